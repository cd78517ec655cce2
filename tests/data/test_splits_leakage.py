"""The audit finds every leak that is planted; regimes are what they say."""

import collections
import dataclasses
import itertools

import numpy as np
import pytest
from split_cases import (
  CASES,
  EXCLUDED,
  TEST,
  TRAIN,
  VAL,
  audit,
  make,
  make_data,
)

from pertjax import types
from pertjax.data import splits


def test_seen_counts_singles_or_any():
  tokens = [('A',), ('A', 'B'), ('A', 'C'), ('B', 'C'), ('A', 'B', 'C')]
  data = make_data(tokens, ('g',), cells=4)
  codes = np.full(len(data['condition']), TRAIN, np.int8)
  codes[data['condition'] >= 4] = TEST
  arguments = codes, data['conditions'], data['condition'], data['group']
  assert splits.label(*arguments) == {(4, 0): 'seen0', (5, 0): 'seen1'}
  got = splits.label(*arguments, seen='any')
  assert got == {(4, 0): 'seen2', (5, 0): 'seen3'}


def _plant(data, split, rows, code):
  cells = split.cells.copy()
  cells[rows] = code
  return dataclasses.replace(split, cells=cells)


@pytest.mark.parametrize('method', CASES)
def test_audit_passes_what_make_gives(method):
  data = make_data()
  audit(data, make(method, data, **CASES[method]))


@pytest.mark.parametrize('source', [TRAIN, VAL])
@pytest.mark.parametrize(
  'method', ['combinations', 'perturbations', 'transfer']
)
def test_audit_finds_cells_on_two_sides(method, source):
  data = make_data()
  split = make(method, data, **CASES[method])
  held = (split.cells == TEST) & (data['condition'] > 0)
  row = np.flatnonzero(held)[0]
  name = data['conditions'].names[data['condition'][row]]
  pattern = f'in test and in .*: {name} in a'.replace('+', r'\+')
  with pytest.raises(splits.LeakageError, match=pattern):
    audit(data, _plant(data, split, row, source))


def test_audit_finds_validation_cells_in_training():
  data = make_data()
  for method in ('combinations', 'transfer'):
    split = make(method, data, **CASES[method])
    held = (split.cells == VAL) & (data['condition'] > 0)
    with pytest.raises(splits.LeakageError, match='val and in train|is cells'):
      audit(data, _plant(data, split, np.flatnonzero(held)[0], TRAIN))


def test_audit_finds_a_condition_that_trains_elsewhere():
  """All cells of one group move to training: the label is then false."""
  data = make_data()
  split = make('combinations', data)
  c, g = next(iter(split.regimes))
  rows = (data['condition'] == c) & (data['group'] == g)
  regimes = {k: v for k, v in split.regimes.items() if k != (c, g)}
  leaky = dataclasses.replace(_plant(data, split, rows, TRAIN), regimes=regimes)
  with pytest.raises(splits.LeakageError, match='labelled seen2 but is transf'):
    audit(data, leaky)


def test_audit_finds_false_regimes():
  data = make_data()
  split = make('perturbations', data)
  pair = next(p for p, r in split.regimes.items() if r == 'seen1')
  for regimes, message in (
    ({**split.regimes, pair: 'seen2'}, 'labelled seen2 but is seen1'),
    ({p: r for p, r in split.regimes.items() if p != pair}, 'labelled nothing'),
    ({**split.regimes, (0, 0): 'cells'}, 'control in a is labelled cells but'),
    ({**split.regimes, (99, 0): 'cells'}, r'pair \(99, 0\) is labelled'),
  ):
    with pytest.raises(splits.LeakageError, match=message):
      audit(data, dataclasses.replace(split, regimes=regimes))


def test_audit_finds_a_held_out_perturbation_in_a_training_combination():
  data = make_data()
  split = make('perturbations', data)
  c = next(c for (c, _), r in split.regimes.items() if r == 'seen1')
  regimes = {p: r for p, r in split.regimes.items() if p[0] != c}
  leaky = _plant(data, split, data['condition'] == c, TRAIN)
  leaky = dataclasses.replace(leaky, regimes=regimes)
  with pytest.raises(splits.LeakageError, match='unseen_single but is combo_'):
    audit(data, leaky)


def test_audit_knows_the_rule():
  """A GEARS label counts validation as seen; the default rule does not."""
  data = make_data()
  split = make('gears_simulation', data)
  audit(data, split)
  audit(data, split, rule=('any', 'train_val'))
  assert 'labelled by the rule of GEARS' in split.notes[0]
  with pytest.raises(splits.LeakageError, match='do not fit the training set'):
    audit(data, split, rule=('singles', 'train'))


def test_audit_finds_a_cell_twice():
  data = make_data()
  split = make('combinations', data)
  names = data['cell_names'].copy()
  # A test cell comes back under its own name among the training controls.
  test = np.flatnonzero((split.cells == TEST) & (data['condition'] > 0))[0]
  control = np.flatnonzero((split.cells == TRAIN) & (data['condition'] == 0))[0]
  names[control] = names[test]
  with pytest.raises(
    splits.LeakageError, match=f'more than once.*{names[test]}'
  ):
    audit({**data, 'cell_names': names}, split)


def test_audit_finds_conditions_that_are_one():
  data = make_data()
  split = make('combinations', data)
  known = data['conditions']
  names, tokens = list(known.names), list(known.tokens)
  names[1], tokens[1] = 'P1+P0', ('P1', 'P0')
  doses = [(1.0,) * len(t) for t in tokens]
  twins = types.Conditions(tuple(names), tuple(tokens), tuple(doses))
  with pytest.raises(splits.LeakageError, match=r"'P1\+P0' and 'P0\+P1' are"):
    audit({**data, 'conditions': twins}, split)
  names[1], tokens[1] = 'Z+P0', ('Z', 'P0')
  odd = types.Conditions(tuple(names), tuple(tokens), tuple(doses))
  with pytest.raises(splits.LeakageError, match=r"'Z\+P0' is not in sorted"):
    audit({**data, 'conditions': odd}, split)


@pytest.mark.parametrize('lost', [TRAIN, VAL, TEST])
def test_audit_finds_missing_controls(lost):
  data = make_data()
  split = make('combinations', data)
  rows = (data['condition'] == 0) & (data['group'] == 1) & (split.cells == lost)
  name = types.SPLITS[lost]
  with pytest.raises(splits.LeakageError, match=f"'b' in {name}"):
    audit(data, _plant(data, split, rows, EXCLUDED))


def test_audit_finds_straddling_units():
  data = make_data()
  split = make('combinations', data)
  donors = np.array(['d1', 'd2'] * (len(split.cells) // 2))
  with pytest.raises(splits.LeakageError, match='2 units .*: d1, d2'):
    audit(data, split, units=donors)
  codes = np.array(['train', 'val', 'test'])[split.cells]
  audit(data, split, units=codes)


def test_audit_checks_its_input():
  data = make_data()
  split = make('combinations', data)
  short = dataclasses.replace(split, cells=split.cells[1:])
  with pytest.raises(ValueError, match='the split has'):
    audit(data, short)
  with pytest.raises(ValueError, match=r'split codes \[7\] are none of'):
    audit(data, _plant(data, split, 0, 7))


def test_regimes_against_a_slow_count():
  """`label` says what loops over the training conditions say."""
  data = make_data()
  rng = np.random.default_rng(0)
  table = rng.choice([TRAIN, VAL, TEST], (25, 2), p=[0.6, 0.2, 0.2])
  codes = table[data['condition'], data['group']].astype(np.int8)
  got = splits.label(
    codes, data['conditions'], data['condition'], data['group']
  )
  tokens = data['conditions'].tokens
  train = [c for c in range(1, 25) if TRAIN in table[c]]
  for c, g in itertools.product(range(1, 25), range(2)):
    if table[c, g] == TRAIN:
      assert (c, g) not in got
      continue
    alone = [t for t in tokens[c] if any(tokens[o] == (t,) for o in train)]
    combined = any(set(tokens[c]) & set(tokens[o]) for o in train)
    if c in train:
      expected = 'transfer'
    elif len(tokens[c]) > 1:
      expected = f'seen{len(alone)}'
    else:
      expected = 'combo_only' if combined else 'unseen_single'
    assert got[c, g] == expected


def test_summary():
  """The rows are a partition of the cells."""
  data = make_data()
  labels = {k: v for k, v in data.items() if k != 'cell_names'}
  split = make('combinations', data, hold_out_singles=0.3)
  rows = splits.summary(split, **labels)
  assert sum(r['cells'] for r in rows) == len(data['condition'])
  keys = [(r['group'], r['split'], r['regime']) for r in rows]
  assert len(set(keys)) == len(keys)
  for g, group in enumerate('ab'):
    here = [r for r in rows if r['group'] == group]
    assert sum(r['conditions'] for r in here) == 24
    controls = [r for r in here if r['regime'] == 'control']
    assert [(r['split'], r['cells']) for r in controls] == [
      ('train', 6),
      ('val', 2),
      ('test', 2),
    ]
    assert {r['conditions'] for r in controls} == {0}
    held = collections.Counter(r for p, r in split.regimes.items() if p[1] == g)
    counted = collections.Counter()
    for row in here:
      if row['split'] in ('val', 'test') and row['regime'] != 'control':
        counted[row['regime']] += row['conditions']
        assert row['cells'] == 6 * row['conditions']
    assert counted == held
  excluded = make('perturbations', data, combinations='exclude')
  rows = splits.summary(excluded, **labels)
  assert sum(r['cells'] for r in rows) == len(data['condition'])
  left = [r for r in rows if r['split'] == 'excluded']
  assert {r['regime'] for r in left} == {''}
  assert sum(r['cells'] for r in left) == (excluded.cells == EXCLUDED).sum()
  # Cells of one pair on two sides: the training part has no regime.
  rows = splits.summary(make('cells', data), **labels)
  kinds = {(r['split'], r['regime']) for r in rows}
  assert kinds == {(s, 'control') for s in types.SPLITS} | {
    ('train', ''),
    ('val', 'cells'),
    ('test', 'cells'),
  }
