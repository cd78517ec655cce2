"""Splitters, their file and their audit."""

import collections
import dataclasses
import hashlib
import itertools
import json
import os
import pathlib
import subprocess
import sys
import time

import numpy as np
import pytest

from pertjax import types
from pertjax.data import splits

TRAIN, VAL, TEST, EXCLUDED = types.TRAIN, types.VAL, types.TEST, types.EXCLUDED

# GEARS draws genes with replacement, so a share of 8 can be few.
_GEARS_LIST = {
  'combo_single_split_test_set_fraction': 0.3,
  'val_fraction': 0.2,
}
# Options that give every method something to do on `make_data()`.
CASES = {
  'combinations': {'hold_out_singles': 0.3},
  'perturbations': {},
  'transfer': {'max_groups': 1},
  'cells': {},
  'conditions': {'val_fraction': 0.2, 'test_fraction': 0.2},
  'perturbench_transfer': {},
  'perturbench_combine': {},
  'perturbench_inverse': {'max_heldout_fraction_per_covariate': 0.5},
  'gears_simulation': {},
  'gears_single': _GEARS_LIST,
  'gears_single_only': _GEARS_LIST,
  'gears_combo_seen0': _GEARS_LIST,
  'gears_combo_seen1': _GEARS_LIST,
  'gears_combo_seen2': _GEARS_LIST,
  'gears_no_test': _GEARS_LIST,
}
OWN = ('combinations', 'perturbations', 'transfer', 'cells', 'conditions')

GOLDEN = {
  'combinations': (
    '4e951694c7713dc36b70f56d1417d528f151889da01936a81ce44cf848115cf1'
  ),
  'perturbations': (
    '7cf227f9ff50fac0d0860a79ad9c4ff4d35c65b5e8ebb80e659b293c18caf23f'
  ),
  'transfer': (
    '58417d35d32329bf7fb9791e81b6a7048e8110c954e097f2bac01f0487bdb306'
  ),
  'cells': ('d1db23d1700d9ff19db306c52a6fe62d413c43c81021a99ecf32763431961bed'),
  'conditions': (
    '308a463b3df5eb730e3a003559153faed7fb6e716351a3a3a577a5db743b4cd3'
  ),
  'perturbench_transfer': (
    '0aaf4f25be3b0faf638dc3ef9349e521019b3a52e9aaf48c9c94098bed0df39c'
  ),
  'perturbench_combine': (
    '26721cddc1fe2e57dca8157a903fdcbe35f22b9f04ab9e4bc3d5637305cea962'
  ),
  'perturbench_inverse': (
    '7f2a3576ec3a705cf042de8f12a6fef7fc9969060f4d588245a812920e35d6da'
  ),
  'gears_simulation': (
    'b7de84e1eb4cd0494c0a8ff138d0c32e2ff43ea49990d10a657cd8688c086be1'
  ),
  'gears_single': (
    '24abba07cd8e46a12e193fec362573b8342044500d26d1696ee5b7c8120423e6'
  ),
  'gears_single_only': (
    '3b9b5ea5279417883a727b19afdc9800cfaf64c807a7303c6e4c8306e9d6ab0a'
  ),
  'gears_combo_seen0': (
    '24abba07cd8e46a12e193fec362573b8342044500d26d1696ee5b7c8120423e6'
  ),
  'gears_combo_seen1': (
    '9ff23db3c09f5b79946dc48bd30ecea7d7302f5aac5b7ce6abf5d0e32937a8bb'
  ),
  'gears_combo_seen2': (
    'b30f387c4a3ed7bc21fa037aa219760f3ef005599e3d2f0aebe04d9fba523e43'
  ),
  'gears_no_test': (
    '09c2b0a7b8d6f2fb89e1c231d7054be54d585259010bfd7f08139da025c552ac'
  ),
}


def make_conditions(tokens, doses=None):
  tokens = tuple(tokens)
  doses = doses or tuple((1.0,) * len(t) for t in tokens)
  names = [
    '+'.join(n if d == 1 else f'{n}@{d:g}' for n, d in zip(t, ds))
    for t, ds in zip(tokens, doses)
  ]
  return types.Conditions(('control', *names), ((), *tokens), ((), *doses))


def make_data(tokens=None, groups=('a', 'b'), cells=6, controls=10, doses=None):
  """Eight singles and sixteen combinations of them, in every group."""
  if tokens is None:
    singles = [f'P{i}' for i in range(8)]
    pairs = itertools.combinations(singles, 2)
    odd = [p for p in pairs if (int(p[0][1]) + int(p[1][1])) % 2]
    tokens = sorted([(s,) for s in singles] + odd)
  conditions = make_conditions(tokens, doses)
  sizes = [controls] + [cells] * (len(conditions.names) - 1)
  one = np.repeat(np.arange(len(sizes)), sizes)
  condition = np.tile(one, len(groups)).astype(np.int32)
  return {
    'conditions': conditions,
    'condition': condition,
    'group': np.repeat(np.arange(len(groups)), len(one)).astype(np.int32),
    'group_names': tuple(groups),
    'cell_names': np.array([f'cell{i:05d}' for i in range(len(condition))]),
  }


def make(method, data, seed=1, **options):
  return splits.make(method=method, seed=seed, options=options, **data)


def in_split(data, split, code):
  """Perturbed condition names that a split has cells of."""
  ids = np.unique(data['condition'][split.cells == code])
  return {data['conditions'].names[c] for c in ids if c}


def audit(data, split, **more):
  keys = ('conditions', 'condition', 'group', 'cell_names')
  splits.audit(
    split,
    *(data[key] for key in keys),
    **{'group_names': data['group_names'], **more},
  )


def reorder(data, order):
  cells = ('condition', 'group', 'cell_names')
  return {k: v[order] if k in cells else v for k, v in data.items()}


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
    'import test_splits as t\n'
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


def test_seen_counts_singles_or_any():
  tokens = [('A',), ('A', 'B'), ('A', 'C'), ('B', 'C'), ('A', 'B', 'C')]
  data = make_data(tokens, ('g',), cells=4)
  codes = np.full(len(data['condition']), TRAIN, np.int8)
  codes[data['condition'] >= 4] = TEST
  arguments = codes, data['conditions'], data['condition'], data['group']
  assert splits.label(*arguments) == {(4, 0): 'seen0', (5, 0): 'seen1'}
  got = splits.label(*arguments, seen='any')
  assert got == {(4, 0): 'seen2', (5, 0): 'seen3'}


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


# The file.


@pytest.mark.parametrize('method', CASES)
def test_round_trip(tmp_path, method):
  data = make_data()
  split = make(method, data, **CASES[method])
  text = splits.to_csv(split, **data)
  assert hashlib.sha256(text.encode()).hexdigest() == split.sha256
  assert text.startswith('cell,split,condition,group,regime\n')
  path = tmp_path / 'split.csv'
  splits.write(path, text)
  again = splits.read(path, **data)
  assert again.sha256 == split.sha256
  assert again.regimes == split.regimes
  assert again.method == 'csv'
  np.testing.assert_array_equal(again.cells, split.cells)
  # Whatever order the cells come in.
  order = np.arange(len(split.cells))[::-1]
  again = splits.read(path, **reorder(data, order))
  assert again.sha256 == split.sha256


def test_names_are_quoted(tmp_path):
  data = make_data()
  names = data['cell_names'].astype('U20')
  names[0] = 'odd, "name"'
  data['cell_names'] = names
  split = make('cells', data)
  path = tmp_path / 'split.csv'
  splits.write(path, splits.to_csv(split, **data))
  assert splits.read(path, **data).sha256 == split.sha256


def test_write_is_atomic(tmp_path, monkeypatch):
  path = tmp_path / 'split.csv'
  splits.write(path, 'old\n')

  def fail(_):
    raise OSError('disk full')

  monkeypatch.setattr(os, 'fsync', fail)
  with pytest.raises(OSError, match='disk full'):
    splits.write(path, 'new\n')
  assert path.read_text() == 'old\n'
  assert [p.name for p in tmp_path.iterdir()] == ['split.csv']


def _write(tmp_path, rows):
  path = tmp_path / 'given.csv'
  path.write_text('\n'.join(rows) + '\n', encoding='utf-8')
  return path


def _cell_rows(data, split):
  names = {TRAIN: 'train', VAL: 'val', TEST: 'test', EXCLUDED: ''}
  return [
    f'{cell},{names[code]}'
    for cell, code in zip(data['cell_names'], split.cells.tolist())
  ]


@pytest.mark.parametrize('header', ['cell,split', ',split', ',0', None])
def test_csv_of_cells(tmp_path, header):
  """PerturBench reads files without a header and writes them with one."""
  data = make_data()
  split = make('gears_single', data, **CASES['gears_single'])
  rows = _cell_rows(data, split)
  path = _write(tmp_path, rows if header is None else [header, *rows])
  again = splits.read(path, **data)
  np.testing.assert_array_equal(again.cells, split.cells)
  assert again.sha256 == split.sha256


def test_csv_of_cells_with_shared_pairs(tmp_path):
  data = make_data()
  split = make('cells', data)
  path = _write(
    tmp_path,
    ['cell,split,batch'] + [row + ',1' for row in _cell_rows(data, split)],
  )
  again = splits.read(path, **data)
  assert again.regimes == split.regimes
  assert "columns ['batch'] of given.csv are not used" in again.notes
  assert '48 (condition, group) pairs have cells in two' in again.notes[1]


def test_csv_of_conditions(tmp_path):
  """GEARS' names, in any orientation, in every group."""
  data = make_data()
  rows = [
    f'{"+".join(reversed(t))}{"+ctrl" if len(t) == 1 else ""},train'
    for t in data['conditions'].tokens[1:]
  ]
  rows[0] = 'ctrl+P0,val'
  rows[1] = 'P1+P0,test'
  path = _write(tmp_path, ['condition,split', *rows])
  split = splits.read(path, **data)
  assert in_split(data, split, VAL) == {'P0'}
  assert in_split(data, split, TEST) == {'P0+P1'}
  assert set(split.regimes.values()) == {'combo_only', 'seen1'}
  assert 'does not place 20 controls' in split.notes[0]
  path = _write(tmp_path, ['condition,split', 'ctrl,train', *rows])
  split = splits.read(path, **data)
  assert (split.cells[data['condition'] == 0] == TRAIN).all()


def test_csv_of_pairs(tmp_path):
  data = make_data()
  names = data['conditions'].names[1:]
  rows = [f'{name},{g},train' for name in names for g in 'ab']
  rows[0] = 'P0,a,test'
  rows[3] = 'P0+P1,b,val'
  header = 'condition,cell_type,split'
  path = _write(tmp_path, [header, *rows])
  with pytest.raises(ValueError, match="columns .'cell_type'. are not und"):
    splits.read(path, **data)
  options = {'group_column': 'cell_type'}
  split = splits.read(path, options=options, **data)
  assert split.regimes == {(1, 0): 'transfer', (2, 1): 'transfer'}
  path = _write(tmp_path, [header, *rows, 'P1,c,test'])
  with pytest.raises(ValueError, match="'c' is unknown; allowed: a, b"):
    splits.read(path, options=options, **data)


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (lambda rows: rows[:-2], '2 cells of the data are not in the file'),
    (
      lambda rows: [*rows, 'ghost,train'],
      r'1 cells of the file are not in the data \(given.csv\), .* ghost',
    ),
    (lambda rows: [*rows, rows[5]], '1 cells have more than one line'),
    (lambda rows: [*rows[:-1], 'cell00307,tset'], 'closest: test'),
    (lambda rows: [*rows[:-1], 'cell00307,test,x'], 'line 309 has 3 fields'),
    (lambda rows: ['name,fold'], "lack 'split', or both 'cell' and"),
    (lambda rows: [], 'the file is empty'),
  ],
)
def test_csv_of_cells_errors(tmp_path, change, message):
  data = make_data()
  rows = ['cell,split', *_cell_rows(data, make('combinations', data))]
  path = _write(tmp_path, change(rows))
  with pytest.raises(ValueError, match=message):
    splits.read(path, **data)


def test_csv_leaves_out_when_told(tmp_path):
  data = make_data()
  rows = ['cell,split', *_cell_rows(data, make('combinations', data))]
  path = _write(tmp_path, [*rows[:-2], 'ghost,train'])
  split = splits.read(path, options={'missing': 'exclude'}, **data)
  assert split.cells[-2:].tolist() == [EXCLUDED, EXCLUDED]
  assert split.notes[0].startswith('1 cells of the file are not in the data')
  assert split.notes[1].startswith('2 cells of the data are not in the file')
  assert '2 of 308 cells are in no split' in split.notes


def test_csv_of_conditions_errors(tmp_path):
  data = make_data()
  rows = [f'{n},train' for n in data['conditions'].names[1:]]
  path = _write(tmp_path, ['condition,split', *rows, 'P9,test'])
  with pytest.raises(ValueError, match='1 conditions of the file .* P9'):
    splits.read(path, **data)
  path = _write(tmp_path, ['condition,split', *rows[1:]])
  with pytest.raises(ValueError, match='2 pairs of the data .* P0 in a'):
    splits.read(path, **data)
  path = _write(tmp_path, ['condition,split', *rows, 'P1+P0,test'])
  with pytest.raises(splits.LeakageError, match=r"'P1\+P0' is in two splits"):
    splits.read(path, **data)
  with pytest.raises(FileNotFoundError):
    splits.read(tmp_path / 'none.csv', **data)


def test_csv_must_agree_with_the_data(tmp_path):
  data = make_data()
  text = splits.to_csv(make('combinations', data), **data)
  lines = text.splitlines()
  # The last cell is of the last condition, P7, in group b.
  broken = [*lines[:-1], lines[-1].replace('P7', 'P0')]
  with pytest.raises(ValueError, match=r"'cell00307' is 'P0' in the file and"):
    splits.read(_write(tmp_path, broken), **data)


# The audit.


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


# Counts.


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
