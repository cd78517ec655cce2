"""Cells by formula, on which other tools' values are known."""

import numpy as np

from pertjax.metrics import problem as problem_lib

GENES_72 = tuple(f'G{g:02d}' for g in range(72))
GROUPS_A = {
  'ctrl': (0, 18), 'G03': (1, 12), 'G07': (2, 10), 'G11': (3, 14),
  'G16': (4, 9), 'DRUGX': (5, 11), 'NULLP': (6, 13),
}  # fmt: skip
GROUPS_B = {
  'non-targeting': (0, 24), 'G03': (1, 16), 'G07': (2, 14), 'G11': (3, 18),
  'G16': (4, 12), 'G20': (5, 15), 'G25': (6, 17),
}  # fmt: skip


def _cells(groups):
  """Returns names [cells], and p and i of each as columns."""
  names = np.repeat(list(groups), [n for _, n in groups.values()])
  sizes = [n for _, n in groups.values()]
  p = np.repeat([p for p, _ in groups.values()], sizes)
  i = np.concatenate([np.arange(n) for _, n in groups.values()])
  return names.tolist(), p[:, None], i[:, None]


def _raw(p, g):
  value = ((3 * p + 1) * (g + 2)) % 13 - 6
  return np.where((p == 0) | (p == 6) | ((g + p) % 4 == 0), 0, value)


def fixture_a(side):
  """Returns (log-normalised float64 [cells, 72], condition names)."""
  names, p, i = _cells(GROUPS_A)
  g, s = np.arange(72)[None], int(side == 'predicted')
  raw = _raw(p, g) / 6
  if side == 'observed':
    effect = 0.9 * raw
  else:
    own = 0.54 * raw + 0.15 * (((p + 2) * (g + 1)) % 7 - 3) / 3
    effect = np.where((p == 0) | (p == 5), 0, own)
  noise = 0.3 * (((17 * i + 31 * g + 13 * p + 5 * s) % 29) / 28 - 0.5)
  value = np.maximum(0, 1.2 + 2 * ((7 * g) % 11) / 11 + effect + noise)
  return np.where((5 * i + 3 * g + 2 * p + s) % 11 == 0, 0, value), names


def fixture_b(side):
  """Returns (counts as float64 [cells, 72], condition names)."""
  names, p, i = _cells(GROUPS_B)
  g, s = np.arange(72)[None], int(side == 'predicted')
  r = _raw(p, g)
  if side == 'observed':
    add = 2 * r
  else:
    own = r + (((p + 2) * (g + 1)) % 7 - 3) // 2
    add = np.where((p == 0) | (p == 5), 0, own)
  noise = (17 * i + 31 * g + 13 * p + 5 * s) % 9 - 4
  value = np.maximum(0, 8 + 3 * ((7 * g) % 11) + add + noise)
  value = np.where((5 * i + 3 * g + 2 * p + s) % 11 == 0, 0, value)
  return value.astype(np.float64), names


def fixture_t(side):
  """Returns (float32 [40, 6], condition names, cell types)."""
  i, j = np.arange(40)[:, None], np.arange(6)[None]
  if side == 'observed':
    values = ((7 * i + 3 * j + i * j) % 11) / 4
  else:
    values = ((5 * i + 2 * j + 2 * i * j + 3) % 13) / 4
  conditions = np.tile(np.repeat(['control', 'A', 'B', 'C', 'A+B'], 4), 2)
  types = np.repeat(['ta', 'tb'], 20)
  return values.astype(np.float32), conditions.tolist(), types.tolist()


def coded(fixture, side):
  """Returns a fixture's cells, and their conditions as numbers from 0.

  Args:
    fixture: `fixture_a` or `fixture_b`.
    side: 0 observed, 1 predicted.
  """
  values, names = fixture(('observed', 'predicted')[side])
  order = list(dict.fromkeys(names))
  return values, np.asarray([order.index(name) for name in names])


def problem_a(**options):
  """Returns the problem of fixture A."""
  return problem_lib.from_arrays(
    *fixture_a('observed'), *fixture_a('predicted'),
    control='ctrl', genes=GENES_72, **options,
  )  # fmt: skip


def problem_b(**options):
  """Returns the problem of fixture B: counts."""
  options = {'scale': 'counts', **options}
  return problem_lib.from_arrays(
    *fixture_b('observed'), *fixture_b('predicted'),
    control='non-targeting', genes=GENES_72, **options,
  )  # fmt: skip


def problem_t(covariates=True, **options):
  """Returns the problem of fixture T, by cell type or without covariates."""
  observed, conditions, types = fixture_t('observed')
  predicted, _, _ = fixture_t('predicted')
  groups = types if covariates else None
  return problem_lib.from_arrays(
    observed, conditions, predicted, conditions,
    control='control', genes=tuple(f'g{j}' for j in range(6)),
    observed_groups=groups, predicted_groups=groups, **options,
  )  # fmt: skip
