"""The splitters' options: names, defaults and checks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pertjax import names as name_lib
from pertjax.data.splits import gears

COMMON: Mapping[str, Any] = {
  # Train, val, test shares of each group's control cells.
  'control_fractions': (0.6, 0.2, 0.2),
  # 'error', or 'exclude' the held-out cells of groups without controls.
  'missing_controls': 'error',
  # [cells] donor, guide or replicate of each cell, '' for none: no unit may
  # then have cells in two splits.
  'units': None,
  # 'singles' or 'any': see the package's regimes.
  'seen': 'singles',
}
FRACTIONS: Mapping[str, Any] = {
  # Shares of what the method holds out: combinations, perturbations, ...
  'val_fraction': 0.15,
  'test_fraction': 0.15,
  # Conditions (pairs, for 'transfer') with fewer cells are not held out.
  'min_cells': 1,
}
_PERTURBENCH: Mapping[str, Any] = {
  'max_heldout_fraction_per_covariate': 0.3,
  'max_heldout_perturbations_per_covariate': 200,
  'train_control_fraction': 0.5,
  'test_fraction': 0.5,
  'labels': None,
  **{key: COMMON[key] for key in ('missing_controls', 'units', 'seen')},
}
_GEARS: Mapping[str, Any] = {
  'labels': None,
  # The originals train on every control: (1, 0, 0). See `splits.make`.
  **{key: COMMON[key] for key in COMMON if key != 'seen'},
}
_GEARS_GENES: Mapping[str, Any] = {
  'train_gene_set_size': 0.75,
  'test_perts': (),
  'only_test_set_perts': False,
}
DEFAULTS: Mapping[str, Mapping[str, Any]] = {
  'combinations': {
    **FRACTIONS,
    # Share of single perturbations that leave training, with every
    # combination that they are in: gives seen0, seen1 and unseen_single.
    'hold_out_singles': 0.0,
    **COMMON,
  },
  'perturbations': {
    **FRACTIONS,
    # 'hold_out' or 'exclude' the combinations of held-out perturbations.
    'combinations': 'hold_out',
    **COMMON,
  },
  'transfer': {
    **FRACTIONS,
    # Most groups held out per perturbation, fewest left to train.
    'max_groups': 1,
    'min_train_groups': 1,
    # Groups that may lose pairs; () for all.
    'groups': (),
    # Groups of which every perturbed cell is tested, or validates; the
    # fractions and limits above are then not used.
    'test_groups': (),
    'val_groups': (),
    # With `test_groups` alone: share of the cells of each training pair that
    # validate.
    'val_cells': 0.1,
    **COMMON,
  },
  'cells': {**FRACTIONS, **COMMON},
  'conditions': {**FRACTIONS, **COMMON},
  'csv': {
    'path': '',
    # Column of a condition file that holds the group's name.
    'group_column': 'group',
    # 'error', or 'exclude' what the file or the data lacks, with a note.
    'missing': 'error',
    **COMMON,
  },
  'perturbench_transfer': {
    'min_train_covariates': 1,
    'max_heldout_covariates': 1,
    'downsample_fraction': 1.0,
    **_PERTURBENCH,
  },
  'perturbench_combine': {'downsample_fraction': 1.0, **_PERTURBENCH},
  'perturbench_inverse': dict(_PERTURBENCH),
  'gears_simulation': {
    **_GEARS_GENES,
    'combo_seen2_train_frac': 0.75,
    **_GEARS,
  },
  'gears_simulation_single': {**_GEARS_GENES, **_GEARS},
  **{
    f'gears_{kind}': {
      'combo_single_split_test_set_fraction': 0.1,
      # A constant in the original; 'no_test' does not use it.
      'val_fraction': 0.1,
      **_GEARS,
    }
    for kind in gears.LISTS
  },
  'sena': {
    # Of Norman et al. 2019; those that the data lack are named in a note.
    'perturbations': (
      'ETS2', 'SGK1', 'POU3F2', 'TBX2', 'CBL', 'MAPK1', 'CDKN1C', 'S1PR2',
      'PTPN1', 'MAP2K6', 'COL1A1',
    ),
    'test_fraction': 0.2,
    **{**COMMON, 'control_fractions': (1.0, 0.0, 0.0)},
  },
}  # fmt: skip
METHODS = tuple(DEFAULTS)


def default_options(method: str) -> dict[str, Any]:
  """Returns the options of a method with their defaults.

  Raises:
    ValueError: for an unknown method; names the closest ones.
  """
  if method not in DEFAULTS:
    raise ValueError(name_lib.unknown('split method', method, METHODS))
  return dict(DEFAULTS[method])


def settle(method: str, options: Mapping[str, Any] | None) -> dict[str, Any]:
  """Merges options with their defaults and checks their values.

  Raises:
    ValueError: for an unknown method or option, or a value out of range.
  """
  merged = default_options(method)
  for key, value in (options or {}).items():
    if key not in merged:
      raise ValueError(
        name_lib.unknown(f'option of split {method}', key, tuple(merged))
      )
    merged[key] = value
  for key, value in merged.items():
    if isinstance(DEFAULTS[method][key], float) and not 0 <= value <= 1:
      raise ValueError(f'split {method}: {key}={value} is not within 0 and 1')
  for key, allowed in (
    ('seen', ('singles', 'any')),
    ('missing_controls', ('error', 'exclude')),
    ('combinations', ('hold_out', 'exclude')),
    ('missing', ('error', 'exclude')),
  ):
    if key in merged and merged[key] not in allowed:
      raise ValueError(
        name_lib.unknown(f'{key} of split {method}', merged[key], allowed)
      )
  shares = merged.get('control_fractions', (1, 0, 0))
  if len(shares) != 3 or min(shares) < 0 or abs(sum(shares) - 1) > 1e-6:
    raise ValueError(
      f'split {method}: control_fractions={tuple(shares)} are not three '
      'shares (train, val, test) that sum to 1'
    )
  if (
    'min_cells' in merged
    and merged['val_fraction'] + merged['test_fraction'] > 1
  ):
    raise ValueError(
      f'split {method}: val_fraction={merged["val_fraction"]} and '
      f'test_fraction={merged["test_fraction"]} sum to more than 1'
    )
  for key in (
    'groups',
    'test_groups',
    'val_groups',
    'test_perts',
    'perturbations',
  ):
    if isinstance(merged.get(key), str):
      merged[key] = (merged[key],)
  return merged


def shares(opts: Mapping[str, Any]) -> tuple[float, float, float]:
  """Returns the shares of train, val and test."""
  val, test = opts['val_fraction'], opts['test_fraction']
  return 1 - val - test, val, test
