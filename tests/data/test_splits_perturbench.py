"""PerturBench's splitters against what the original itself gave."""

import numpy as np
import pytest
from norman_names import norman, words

from pertjax import types
from pertjax.data.splits import naming, perturbench


def _comb():
  return naming.make_labels(
    ['control'] * 20
    + [f'P{i}' for i in range(10) for _ in range(3)]
    + [f'P{i}+P{(i + 1) % 10}' for i in range(10) for _ in range(3)],
    ['k'] * 80,
  )


def _transfer():
  return naming.make_labels(
    ['control'] * 24
    + [f'D{i}' for _ in 'abc' for i in range(12) for _ in '12'],
    [g for g in 'abc' for _ in range(8)]
    + [g for g in 'abc' for _ in range(24)],
  )


def _held(labels, cells, code, with_group=False):
  """Names of the perturbed conditions of one split, and its control rows."""
  names, controls = set(), []
  for row in np.flatnonzero(cells == code):
    if not labels.parts[labels.label[row]]:
      controls.append(int(row))
      continue
    name = labels.names[labels.label[row]]
    group = labels.group_names[labels.group[row]]
    names.add(f'{name}|{group}' if with_group else name)
  return names, controls


def _check(labels, cells, val, test, controls=None, with_group=False):
  got_val = _held(labels, cells, types.VAL, with_group)
  got_test = _held(labels, cells, types.TEST, with_group)
  assert got_val[0] == set(val.split())
  assert got_test[0] == set(test.split())
  if controls:
    train = _held(labels, cells, types.TRAIN)[1]
    assert (train, got_val[1], got_test[1]) == controls


@pytest.mark.parametrize(
  ('seed', 'share', 'val', 'test', 'controls'),
  [
    (
      42,
      0.7,
      'P0+P1 P1+P2 P5+P6',
      'P4+P5 P6+P7 P8+P9 P9+P0',
      (
        [0, 1, 2, 3, 7, 8, 10, 11, 16, 17],
        [6, 12, 13, 15, 18],
        [4, 5, 9, 14, 19],
      ),
    ),
    (
      0,
      0.3,
      'P0+P1',
      'P6+P7 P9+P0',
      (
        [1, 4, 5, 6, 7, 8, 12, 13, 15, 19],
        [2, 3, 9, 11, 17],
        [0, 10, 14, 16, 18],
      ),
    ),
  ],
)
def test_perturbench_combine(seed, share, val, test, controls):
  """Fixtures S1 and S2."""
  labels = _comb()
  cells = perturbench.combine(
    labels, seed=seed, max_heldout_fraction_per_covariate=share
  )
  _check(labels, cells, val, test, controls)
  if seed == 42:
    assert [int((cells == c).sum()) for c in (0, 1, 2)] == [49, 14, 17]


def test_perturbench_inverse():
  """Fixture S3: five places, one of them used up by the control."""
  labels = _comb()
  cells = perturbench.inverse(
    labels, seed=42, max_heldout_fraction_per_covariate=0.5
  )
  _check(labels, cells, 'P2', 'P4 P6 P8')


def test_perturbench_combine_downsampled():
  """Fixture S4."""
  labels = _comb()
  cells = perturbench.combine(
    labels,
    seed=42,
    max_heldout_fraction_per_covariate=0.7,
    downsample_fraction=0.6,
  )
  _check(labels, cells, 'P0+P1', 'P5+P6 P9+P0')
  excluded, _ = _held(labels, cells, types.EXCLUDED)
  assert excluded == set(words('P2+P3 P3 P3+P4 P4 P4+P5 P7+P8 P8 P8+P9'))
  counts = [int((cells == c).sum()) for c in (0, 1, 2, -1)]
  assert counts == [37, 8, 11, 24]


def test_perturbench_transfer():
  """Fixture S5, with its summary of conditions, the control counted."""
  labels = _transfer()
  cells = perturbench.transfer(labels, seed=42)
  controls = (
    [0, 2, 3, 4, 6, 7, 8, 9, 19, 20, 21, 22],
    [1, 11, 12, 14, 16, 17],
    [5, 10, 13, 15, 18, 23],
  )
  val = 'D10|a D11|b D4|c D6|a D7|b D9|c'
  test = 'D0|b D1|a D2|a D3|b D5|c D8|c'
  _check(labels, cells, val, test, controls, with_group=True)
  for g in range(3):
    here = labels.group == g
    counts = [
      len(np.unique(labels.label[here & (cells == code)]))
      for code in (types.TRAIN, types.VAL, types.TEST)
    ]
    assert counts == [9, 3, 3]


def test_perturbench_transfer_two_groups():
  """Fixture S6."""
  labels = _transfer()
  cells = perturbench.transfer(labels, seed=0, max_heldout_covariates=2)
  val = 'D0|b D0|c D10|b D5|a D6|a D7|c'
  test = 'D1|b D11|a D2|b D2|c D3|c D4|a'
  _check(labels, cells, val, test, with_group=True)


def test_perturbench_transfer_downsampled():
  """Fixture S7."""
  labels = _transfer()
  cells = perturbench.transfer(labels, seed=42, downsample_fraction=0.75)
  val = 'D0|b D11|a D8|c D9|a'
  test = 'D1|a D2|b D4|a D6|b D7|c'
  _check(labels, cells, val, test, with_group=True)
  assert _held(labels, cells, types.EXCLUDED)[0] == {'D3', 'D5', 'D10'}


def test_perturbench_transfer_fractions():
  """Fixture S8."""
  labels = _transfer()
  cells = perturbench.transfer(
    labels, seed=42, train_control_fraction=0.8, test_fraction=0.25
  )
  val = 'D0|b D1|a D10|a D11|b D4|c D5|c D6|a D7|b D9|c'
  _check(labels, cells, val, 'D2|a D3|b D8|c', with_group=True)
  controls = [
    len(_held(labels, cells, code)[1])
    for code in (types.TRAIN, types.VAL, types.TEST)
  ]
  assert controls == [19, 2, 3]


def test_perturbench_norman_counts(shared_data):
  """Fixture S9: 91 of 131 combinations held out, 45 and 46."""
  _, doubles = norman(shared_data)
  labels = naming.make_labels(['control'] * 4 + doubles)
  cells = perturbench.combine(
    labels, seed=42, max_heldout_fraction_per_covariate=0.7
  )
  counts = [int((cells[4:] == c).sum()) for c in (0, 1, 2, -1)]
  assert counts == [40, 45, 46, 0]


def test_perturbench_drops_lone_pairs():
  """A group that gives up one pair cannot be stratified: the pair is unused."""
  labels = naming.make_labels(
    ['control'] * 8
    + [f'A{i}+B{i}' for i in range(8)] * 2
    + ['C+D', 'E+F', 'G+H', 'control'],
    ['a'] * 24 + ['b'] * 4,
  )
  cells = perturbench.combine(
    labels, seed=1, max_heldout_fraction_per_covariate=0.5
  )
  lone = _held(labels, cells, types.EXCLUDED, with_group=True)[0]
  assert len(lone) == 1
  assert lone < {'C+D|b', 'E+F|b', 'G+H|b'}


def test_stratified_halves_needs_rows():
  with pytest.raises(ValueError, match='1 held-out pairs in 1 groups'):
    perturbench.stratified_halves(['a'], test_fraction=0.5, seed=0)
  with pytest.raises(ValueError, match='0 held-out pairs'):
    perturbench.stratified_halves([], test_fraction=0.5, seed=0)
  first, second = perturbench.stratified_halves(
    list('aabbbbcc'), test_fraction=0.5, seed=3
  )
  assert sorted(first + second) == list(range(8))
  assert sorted('aabbbbcc'[i] for i in first) == list('abbc')
