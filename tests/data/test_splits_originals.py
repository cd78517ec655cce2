"""The originals' splitters on the package's own conditions."""

import numpy as np
import pytest
from norman_names import NORMAN_HASHES, TOY, hash_names, norman_conditions

from pertjax import types
from pertjax.data.splits import naming, originals, perturbench


def _canonical(names):
  """Conditions and condition ids of cells under original names."""
  tokens = sorted(
    {tuple(sorted(t for t in n.split('+') if t != 'ctrl')) for n in names}
  )
  conditions = types.Conditions(
    names=('control', *('+'.join(t) for t in tokens if t)),
    tokens=((), *(t for t in tokens if t)),
    doses=((), *((1.0,) * len(t) for t in tokens if t)),
  )
  number = {t: i for i, t in enumerate(conditions.tokens)}
  ids = [
    number[tuple(sorted(t for t in n.split('+') if t != 'ctrl'))] for n in names
  ]
  return conditions, np.array(ids, np.int32)


def test_place_with_original_labels(shared_data):
  """Cells labelled as in the original file get its very split."""
  names = ['ctrl', *norman_conditions(shared_data)]
  conditions, condition = _canonical(names)
  options = {
    'train_gene_set_size': 0.75,
    'combo_seen2_train_frac': 0.75,
    'test_perts': (),
    'only_test_set_perts': False,
  }
  arguments = {
    'seed': 1,
    'conditions': conditions,
    'condition': condition,
    'group': np.zeros(len(names), np.int32),
    'group_names': ('k562',),
  }
  placed = originals.draw(
    'gears_simulation', options={**options, 'labels': names}, **arguments
  )
  for code, expected in zip((0, 1, 2), NORMAN_HASHES[283, 1]):
    rows = np.flatnonzero(placed.cells == code)
    assert hash_names([names[r] for r in rows]) == expected
  regimes = list(placed.regimes.values())
  assert regimes.count('seen0') == 9
  assert regimes.count('seen1') == 52 + 11
  wrong = [*names[1:], 'ctrl']
  with pytest.raises(ValueError, match='is given to cells whose condition is'):
    originals.draw(
      'gears_simulation', options={**options, 'labels': wrong}, **arguments
    )
  with pytest.raises(ValueError, match='1 names were given for 284 cells'):
    originals.draw(
      'gears_simulation', options={**options, 'labels': ['ctrl']}, **arguments
    )


def test_place_makes_names():
  """Without labels the canonical names stand in, PerturBench's as they are."""
  names = ['ctrl'] * 4 + [name for name in TOY for _ in range(2)]
  conditions, condition = _canonical(names)
  arguments = {
    'seed': 1,
    'conditions': conditions,
    'condition': condition,
    'group': np.zeros(len(names), np.int32),
    'group_names': ('k',),
  }
  # Every toy name is in canonical orientation but for `+ctrl`.
  placed = originals.draw(
    'gears_combo_seen2',
    options={
      'labels': None,
      'combo_single_split_test_set_fraction': 0.25,
      'val_fraction': 0.1,
    },
    **arguments,
  )
  held = {names[r] for r in np.flatnonzero(placed.cells == types.TEST)}
  assert held == {'G0+G7'}
  assert (placed.cells[:4] == types.TRAIN).all()
  placed = originals.draw(
    'gears_single',
    options={
      'labels': None,
      'combo_single_split_test_set_fraction': 0.25,
      'val_fraction': 0.1,
    },
    **arguments,
  )
  assert placed.notes[0].startswith('3 conditions touch a held-out')
  labels = naming.make_labels(
    [name.replace('ctrl', 'control') for name in names], ['k'] * len(names)
  )
  labels = labels._replace(
    names=conditions.names, parts=conditions.tokens, label=condition
  )
  np.testing.assert_array_equal(
    originals.draw(
      'perturbench_combine',
      options={'labels': None, 'max_heldout_fraction_per_covariate': 0.7},
      **arguments,
    ).cells,
    perturbench.combine(labels, seed=1, max_heldout_fraction_per_covariate=0.7),
  )


def test_place_refuses_names_that_gears_cannot_read():
  conditions = types.Conditions(
    ('control', '(+)-JQ1'), ((), ('(+)-JQ1',)), ((), (1.0,))
  )
  with pytest.raises(ValueError, match='cannot be written in its names'):
    originals.draw(
      'gears_single',
      seed=1,
      conditions=conditions,
      condition=np.array([0, 1]),
      group=np.array([0, 0]),
      group_names=('a',),
      options={
        'labels': None,
        'combo_single_split_test_set_fraction': 0.1,
        'val_fraction': 0.1,
      },
    )
