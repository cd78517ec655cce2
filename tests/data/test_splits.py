"""Splitters: reproducible, and doing what their names say."""

import collections
import json
import os
import pathlib
import subprocess
import sys
import time

import numpy as np
import pytest
from split_cases import (
  CASES,
  GOLDEN,
  OWN,
  TEST,
  TRAIN,
  VAL,
  in_split,
  make,
  make_data,
  reorder,
)

from pertjax.data import splits

# Reproducibility.


@pytest.mark.parametrize('method', CASES)
def test_golden(method):
  got = make(method, make_data(), **CASES[method]).sha256
  assert got == GOLDEN[method], (
    f'{method} gives another split for the same seed. Splits of published runs '
    'would change: that needs a new method name, not a new hash here.'
  )


def test_every_method_has_a_case():
  rest = {'csv', 'gears_simulation_single'}
  assert set(CASES) | rest == set(splits.METHODS)
  data = make_data([(f'P{i}',) for i in range(12)])
  single = make('gears_simulation_single', data)
  assert set(single.regimes.values()) == {'unseen_single'}


def test_hash_seed_of_python_does_not_matter():
  """Two processes under other PYTHONHASHSEEDs give the same bytes."""
  code = (
    'import json, sys; sys.path[:0] = json.loads(sys.argv[1])\n'
    'import split_cases as t\n'
    'data = t.make_data()\n'
    'print(json.dumps({m: t.make(m, data, **o).sha256'
    ' for m, o in t.CASES.items()}))\n'
  )
  root = pathlib.Path(__file__).resolve().parents[2]
  paths = json.dumps([str(root), str(pathlib.Path(__file__).parent)])
  running = []
  for seed in ('1', '2'):
    env = {**os.environ, 'PYTHONHASHSEED': seed, 'JAX_PLATFORMS': 'cpu'}
    command = [sys.executable, '-c', code, paths]
    running.append(subprocess.Popen(command, env=env, stdout=subprocess.PIPE))
  answers = [json.loads(process.communicate()[0]) for process in running]
  assert answers[0] == answers[1] == GOLDEN


@pytest.mark.parametrize('method', OWN)
def test_order_of_cells_does_not_matter(method):
  data = make_data()
  split = make(method, data, **CASES[method])
  order = np.random.default_rng(0).permutation(len(data['condition']))
  again = make(method, reorder(data, order), **CASES[method])
  np.testing.assert_array_equal(again.cells, split.cells[order])
  assert again.sha256 == split.sha256
  assert again.regimes == split.regimes


@pytest.mark.parametrize('method', OWN)
def test_seeds_differ(method):
  data = make_data()
  hashes = {
    make(method, data, seed, **CASES[method]).sha256 for seed in range(4)
  }
  assert len(hashes) == 4


def test_a_new_condition_moves_few_others():
  tokens = [(f'P{i:03d}',) for i in range(200)]
  before = make('conditions', make_data(tokens, ('a',), cells=1))
  data = make_data([*tokens, ('Q',)], ('a',), cells=1)
  after = make('conditions', data)
  moved = before.cells[10:] != after.cells[10:210]
  # Rounding may move the last of val and of test; a reshuffle moves about 90.
  assert moved.sum() <= 2
  # Controls do not hear of it.
  np.testing.assert_array_equal(before.cells[:10], after.cells[:10])


def test_a_hundred_thousand_cells():
  tokens = [(f'P{i:03d}',) for i in range(125)]
  data = make_data(tokens, tuple('abcd'), cells=198, controls=250)
  assert len(data['condition']) == 100_000
  start = time.perf_counter()
  make('cells', data)
  # Measured 0.2 s; the room is for a busy machine.
  assert time.perf_counter() - start < 1.5


# Methods.


def test_combinations():
  data = make_data()
  split = make('combinations', data, val_fraction=0.25, test_fraction=0.25)
  for code in (VAL, TEST):
    held = in_split(data, split, code)
    assert len(held) == 4
    assert all('+' in name for name in held)
    assert not held & in_split(data, split, TRAIN)
  assert set(split.regimes.values()) == {'seen2'}
  assert len(split.regimes) == 16  # Eight combinations in two groups.
  assert split.method == 'combinations'


def test_combinations_with_held_out_singles():
  data = make_data()
  split = make('combinations', data, seed=3, hold_out_singles=0.25)
  train = in_split(data, split, TRAIN)
  alone = {name for name in train if '+' not in name}
  held_singles = {f'P{i}' for i in range(8)} - alone
  assert len(held_singles) == 2
  # No training or validation condition has a perturbation that is tested.
  tested = held_singles & in_split(data, split, TEST)
  assert len(tested) == 1
  for name in train | in_split(data, split, VAL):
    assert not tested & set(name.split('+'))
  for (c, _), regime in split.regimes.items():
    tokens = data['conditions'].tokens[c]
    if len(tokens) == 1:
      assert regime == 'unseen_single'
    else:
      assert regime == f'seen{sum(t in alone for t in tokens)}'
  kinds = set(split.regimes.values())
  assert {'unseen_single', 'seen1', 'seen2'} <= kinds


def test_perturbations():
  data = make_data()
  split = make('perturbations', data, seed=2)
  train = in_split(data, split, TRAIN)
  held = {f'P{i}' for i in range(8)} - train
  assert len(held) == 2  # One of 8 * 0.15 for each of val and test.
  assert not any(held & set(name.split('+')) for name in train)
  assert {'unseen_single', 'seen1'} <= set(split.regimes.values())
  excluded = make('perturbations', data, seed=2, combinations='exclude')
  assert set(excluded.regimes.values()) == {'unseen_single'}
  assert in_split(data, excluded, TRAIN) == train
  assert 'combinations with held-out perturbations' in excluded.notes[0]
  assert 'cells are in no split' in excluded.notes[1]


def test_transfer():
  data = make_data(groups=('a', 'b', 'c'))
  split = make(
    'transfer', data, max_groups=2, val_fraction=0.25, test_fraction=0.25
  )
  assert set(split.regimes.values()) == {'transfer'}
  lost = collections.Counter(c for c, _ in split.regimes)
  assert max(lost.values()) == 2
  per_group = collections.Counter(g for _, g in split.regimes)
  assert per_group == {0: 12, 1: 12, 2: 12}
  # Every held-out condition still trains in another group.
  held = {data['conditions'].names[c] for c in lost}
  assert held <= in_split(data, split, TRAIN)
  one = make('transfer', data, groups='b')
  assert {g for _, g in one.regimes} == {1}
  strict = make('transfer', data, max_groups=2, min_train_groups=2)
  assert max(collections.Counter(c for c, _ in strict.regimes).values()) == 1


def test_transfer_of_whole_groups():
  """An unseen cell type: all of its perturbed cells are tested."""
  data = make_data([('stim',)], ('B', 'CD4', 'NK'), cells=20)
  split = make('transfer', data, test_groups=('CD4',))
  assert split.regimes == {(1, 0): 'cells', (1, 1): 'transfer', (1, 2): 'cells'}
  perturbed = data['condition'] == 1
  assert (split.cells[perturbed & (data['group'] == 1)] == TEST).all()
  for g in (0, 2):
    codes = split.cells[perturbed & (data['group'] == g)]
    assert collections.Counter(codes.tolist()) == {TRAIN: 18, VAL: 2}
  named = make('transfer', data, test_groups='CD4', val_groups='NK')
  assert named.regimes == {(1, 1): 'transfer', (1, 2): 'transfer'}
  with pytest.raises(ValueError, match=r"none of val_groups=\('CD4',\)"):
    make('transfer', data, test_groups='CD4', val_groups='CD4')
  with pytest.raises(ValueError, match='has no use beside test_groups'):
    make('transfer', data, test_groups='CD4', max_groups=2)
  with pytest.raises(ValueError, match="'CD8' is unknown; closest: CD4"):
    make('transfer', data, test_groups='CD8')
  bare = make('transfer', data, test_groups='CD4', val_cells=0.0)
  assert not (bare.cells[perturbed] == VAL).any()


def test_cells():
  data = make_data(cells=20)
  split = make('cells', data)
  for c in range(1, 25):
    for g in range(2):
      rows = (data['condition'] == c) & (data['group'] == g)
      assert np.bincount(split.cells[rows]).tolist() == [14, 3, 3]
  assert set(split.regimes.values()) == {'cells'}
  assert len(split.regimes) == 48
  thin = make_data(cells=2)
  thin['condition'] = np.where(thin['condition'] > 12, 12, thin['condition'])
  split = make('cells', thin)
  assert split.notes[0].startswith('22 pairs have too few cells')
  assert set(split.regimes) == {(12, 0), (12, 1)}


def test_conditions_and_doses():
  tokens = [('A',), ('A',), ('A',), ('B',), ('B', 'C'), ('C',)]
  doses = ((0.1,), (0.5,), (1.0,), (1.0,), (1.0, 1.0), (1.0,))
  data = make_data(tokens, ('g',), doses=doses)
  assert data['conditions'].names[1] == 'A@0.1'
  seen = set()
  for seed in range(12):
    split = make('conditions', data, seed, val_fraction=0.2, test_fraction=0.2)
    for (c, _), regime in split.regimes.items():
      seen.add((data['conditions'].names[c], regime))
  assert ('A@0.5', 'unseen_dose') in seen
  assert ('B', 'combo_only') in seen
  assert ('B+C', 'seen2') in seen
  # The other methods hold all doses of a perturbation out together.
  for seed in range(6):
    split = make(
      'perturbations', data, seed, val_fraction=0.3, test_fraction=0.3
    )
    doses_of_a = {
      split.cells[data['condition'] == c].tolist()[0] for c in (1, 2, 3)
    }
    assert len(doses_of_a) == 1


def test_min_cells():
  data = make_data()
  # P0 loses all but two of its cells in each group.
  first = data['condition'] == 1
  keep = ~first | (np.cumsum(first) % 3 == 0)
  data = reorder(data, np.flatnonzero(keep))
  for seed in range(8):
    split = make('perturbations', data, seed, min_cells=5)
    assert 'P0' in in_split(data, split, TRAIN)
    assert split.notes[0].startswith('1 single perturbations have fewer than')


# Controls.


@pytest.mark.parametrize('method', OWN)
def test_controls_are_in_every_split_of_every_group(method):
  data = make_data(controls=3)
  split = make(method, data, **CASES[method])
  for g in range(2):
    rows = (data['condition'] == 0) & (data['group'] == g)
    assert sorted(split.cells[rows].tolist()) == [TRAIN, VAL, TEST]
  assert all(c for c, _ in split.regimes)


def test_control_fractions():
  data = make_data(controls=20)
  split = make('combinations', data, control_fractions=(0.5, 0.3, 0.2))
  rows = (data['condition'] == 0) & (data['group'] == 1)
  assert np.bincount(split.cells[rows]).tolist() == [10, 6, 4]
  shared = make('combinations', data, control_fractions=(1, 0, 0))
  assert (shared.cells[data['condition'] == 0] == TRAIN).all()
  with pytest.raises(ValueError, match='sum to 1'):
    make('combinations', data, control_fractions=(0.5, 0.5, 0.5))


def test_missing_controls():
  data = make_data()
  few = (data['condition'] == 0) & (data['group'] == 1)
  keep = ~few | (np.cumsum(few) == 1)
  data = reorder(data, np.flatnonzero(keep))
  with pytest.raises(ValueError, match="no control cell .*'b' in val"):
    make('combinations', data)
  split = make('combinations', data, missing_controls='exclude')
  assert {g for _, g in split.regimes} == {0}
  assert len([note for note in split.notes if "group 'b'" in note]) == 2
  # 'transfer' leaves such a group alone.
  split = make('transfer', data, val_fraction=0.2, test_fraction=0.2)
  assert {g for _, g in split.regimes} == {0}
  assert 'too few controls lose no pair: b' in split.notes[-1]


@pytest.mark.parametrize(
  ('count', 'shares', 'expected'),
  [
    (10, (0.6, 0.2, 0.2), (6, 2, 2)),
    (1, (0.6, 0.2, 0.2), (1, 0, 0)),
    (2, (0.6, 0.2, 0.2), (1, 0, 1)),
    (3, (0.98, 0.01, 0.01), (1, 1, 1)),
    (7, (0.98, 0.01, 0.01), (5, 1, 1)),
    (4, (1, 0, 0), (4, 0, 0)),
    (0, (0.6, 0.2, 0.2), (0, 0, 0)),
    (11, (0.8, 0.2, 0), (9, 2, 0)),
  ],
)
def test_allocate(count, shares, expected):
  assert splits.allocate(count, shares) == expected


# Units.


def test_units_are_divided_whole():
  data = make_data(cells=12, controls=12)
  donors = np.array([f'd{i % 6}' for i in range(len(data['condition']))])
  split = make('cells', data, units=donors, val_fraction=0.2, test_fraction=0.2)
  for donor in np.unique(donors):
    assert len(np.unique(split.cells[donors == donor])) == 1
  codes = [split.cells[donors == d][0] for d in np.unique(donors)]
  assert collections.Counter(codes) == {TRAIN: 4, VAL: 1, TEST: 1}
  # Guides live inside one condition: each condition keeps some of its guides.
  guides = np.char.add(
    np.char.add(data['condition'].astype(str), '_'),
    np.char.add((np.arange(len(donors)) % 4).astype(str), '_'),
  )
  guides = np.char.add(guides, data['group'].astype(str))
  split = make('cells', data, units=guides)
  assert len(split.regimes) == 48
  assert set(split.regimes.values()) == {'cells'}
  with pytest.raises(splits.LeakageError, match='6 units have cells in more'):
    make('combinations', data, units=donors)
  order = np.random.default_rng(0).permutation(len(donors))
  for units in (donors, guides):
    one = make('cells', data, units=units, test_fraction=0.2)
    two = make(
      'cells', reorder(data, order), units=units[order], test_fraction=0.2
    )
    assert one.sha256 == two.sha256
  free = np.where(data['condition'] == 0, '', guides)
  make('combinations', data, units=free)
  with pytest.raises(ValueError, match='units has 1 entries for'):
    make('combinations', data, units=['x'])


# Errors.


def _one_group():
  return make_data(groups=('only',))


def _singles_only():
  return make_data([('A',), ('B',)])


def _one_condition():
  return make_data([('A',)], ('g',))


def _all_controls():
  data = make_data()
  return {**data, 'condition': np.zeros_like(data['condition'])}


@pytest.mark.parametrize(
  ('data', 'method', 'options', 'message'),
  [
    (make_data, 'combination', {}, 'is unknown; closest: combinations'),
    (make_data, 'cells', {'val_fracton': 0.1}, 'closest: val_fraction'),
    (make_data, 'cells', {'val_fraction': 1.5}, 'not within 0 and 1'),
    (make_data, 'cells', {'val_fraction': 0.9}, 'sum to more than 1'),
    (make_data, 'cells', {'seen': 'anyy'}, 'closest: any'),
    (_singles_only, 'combinations', {}, 'no condition has two or more'),
    (_one_group, 'transfer', {}, "one group only, 'only'"),
    (_one_condition, 'conditions', {}, 'val_fraction=0.15 of 1 conditions'),
    (_one_condition, 'perturbations', {}, 'of 1 single perturbations'),
    (_all_controls, 'conditions', {}, 'all 308 cells are controls'),
    (
      make_data,
      'combinations',
      {'test_fraction': 0.01},
      r'test_fraction=0.01 of 16 combinations holds out none; 0.0312 gives one',
    ),
    (
      make_data,
      'transfer',
      {'val_fraction': 0.01},
      r'val_fraction=0.01 of 24 pairs that a group may lose holds out none',
    ),
    (make_data, 'gears_single', {}, r"no perturbed cell is in val \({'train'"),
    (make_data, 'perturbench_combine', {'test_fraction': 1.0}, 'cannot be'),
    (
      make_data,
      'gears_simulation_single',
      {},
      '16 conditions are combinations',
    ),
  ],
)
def test_errors(data, method, options, message):
  with pytest.raises(ValueError, match=message):
    make(method, data(), **options)


def test_bad_arrays():
  data = make_data()
  with pytest.raises(ValueError, match="seed: 'x' is not a non-negative"):
    make('cells', data, seed='x')
  with pytest.raises(ValueError, match='differ in length'):
    make('cells', {**data, 'group': data['group'][1:]})
  with pytest.raises(ValueError, match='has ids from 0 to 99'):
    make('cells', {**data, 'group': data['group'] * 99})


def test_an_empty_split_can_be_asked_for():
  data = make_data()
  split = make('combinations', data, val_fraction=0.0)
  assert not in_split(data, split, VAL)
  assert in_split(data, split, TEST)


def test_default_options():
  options = splits.default_options('cells')
  options['val_fraction'] = 0.5
  assert splits.default_options('cells')['val_fraction'] == 0.15
