"""Data and cases that the tests of splits share."""

import itertools

import numpy as np

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
  'sena': {'perturbations': ('P1', 'P4')},
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
  'sena': ('a99de6e86ba0fb56a788c24c67c5262b5c3a8c36f723dac6b4eb76e99c228eef'),
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


def write_rows(tmp_path, rows):
  path = tmp_path / 'given.csv'
  path.write_text('\n'.join(rows) + '\n', encoding='utf-8')
  return path


def cell_rows(data, split):
  names = {TRAIN: 'train', VAL: 'val', TEST: 'test', EXCLUDED: ''}
  return [
    f'{cell},{names[code]}'
    for cell, code in zip(data['cell_names'], split.cells.tolist())
  ]
