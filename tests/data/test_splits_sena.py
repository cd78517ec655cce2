"""SENA's split."""

import numpy as np
from split_cases import EXCLUDED, TEST, TRAIN, VAL, make, make_data


def test_listed_perturbations_give_a_fifth_of_their_cells():
  """The parity list's item 15: floor(0.2 n), the others nothing."""
  tokens = [('A',), ('B',), ('C',), ('A', 'B'), ('B', 'X')]
  data = make_data(tokens, groups=('all',), cells=14)
  split = make('sena', data, perturbations=('A', 'C', 'Z'))
  counts = {}
  for c, name in enumerate(data['conditions'].names):
    codes = split.cells[data['condition'] == c]
    counts[name] = [int((codes == code).sum()) for code in (TRAIN, VAL, TEST)]
  assert counts == {
    'control': [10, 0, 0],
    'A': [12, 0, 2],
    'B': [14, 0, 0],
    'C': [12, 0, 2],
    'A+B': [0, 0, 14],
    'B+X': [0, 0, 0],
  }
  assert (split.cells == EXCLUDED).sum() == 14
  assert set(split.regimes.values()) == {'cells', 'seen2'}
  notes = ' '.join(split.notes)
  assert '1 of 3' in notes
  assert 'Z' in notes
  assert '1 combinations' in notes
  assert 'B+X' in notes


def test_another_seed_tests_other_cells():
  data = make_data([('A',), ('B',), ('A', 'B')], cells=50)
  splits = [make('sena', data, seed, perturbations='A') for seed in (0, 1, 0)]
  np.testing.assert_array_equal(splits[0].cells, splits[2].cells)
  assert (splits[0].cells != splits[1].cells).any()
  own = data['condition'] == data['conditions'].names.index('A')
  for split in splits:
    # Two groups of 50, counted together.
    assert (split.cells[own] == TEST).sum() == 20
