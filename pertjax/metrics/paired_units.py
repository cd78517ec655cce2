"""From the values of two models to the differences of units.

Arrays are [rows, seeds, conditions] or [rows, conditions], a row for each pair
of models that is compared; NaN is no value. Conditions of one cluster are a
unit.
"""

from __future__ import annotations

import numpy as np


def over(total, number):
  """Divides, NaN where the divisor is 0."""
  total, number = np.broadcast_arrays(total, number)
  zero = number == 0
  return np.where(zero, np.nan, total / np.where(zero, 1, number))


def live(values: np.ndarray) -> np.ndarray:
  """Seeds [rows, seeds] that have any value."""
  return np.any(~np.isnan(values), -1)


def common(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Leaves NaN in the conditions that a live seed of either model lacks."""
  lacking = [
    np.any(np.isnan(x) & live(x)[:, :, None], 1) | ~live(x).any(1)[:, None]
    for x in (a, b)
  ]
  lacking = (lacking[0] | lacking[1])[:, None]
  return np.where(lacking, np.nan, a), np.where(lacking, np.nan, b)


def gaps(a: np.ndarray, b: np.ndarray, rounding: float) -> np.ndarray:
  """Differences of means over seeds, [rows, conditions]."""
  a, b = (
    over(np.where(np.isnan(x), 0, x).sum(1), (~np.isnan(x)).sum(1))
    for x in (a, b)
  )
  small = np.abs(a - b) <= rounding * np.maximum(np.abs(a), np.abs(b))
  return np.where(small, 0.0, a - b)


def linearised(sums, sizes) -> tuple[np.ndarray, np.ndarray]:
  """Mean over conditions, and units' values [rows, units] with that mean.

  A unit's value is its part of the mean and of the mean's error; for units of
  one condition each it is the difference itself.
  """
  mean = over(sums.sum(1), sizes.sum(1))
  per_unit = over(sizes.sum(1), np.sum(sizes > 0, 1))
  parts = over(sums - sizes * mean[:, None], per_unit[:, None])
  return mean, np.where(sizes > 0, mean[:, None] + parts, np.nan)


def deviation(values: np.ndarray) -> np.ndarray:
  """Standard deviation [rows], NaN below two values, 0 if all are equal."""
  known = ~np.isnan(values)
  number = known.sum(1)
  mean = over(np.where(known, values, 0).sum(1), number)
  rest = np.where(known, values - mean[:, None], 0)
  # What is left of equal values when their mean is rounded.
  size = np.max(np.where(known, np.abs(values), 0), axis=1, initial=0)
  rest = np.where(np.abs(rest) <= 1e-14 * size[:, None], 0, rest)
  return np.sqrt(over(np.sum(rest**2, 1), np.maximum(number - 1, 0)))


def units(width: int, conditions, clusters) -> np.ndarray:
  """Unit of each condition, int [conditions] without gaps."""
  for key, ids in (('conditions', conditions), ('clusters', clusters)):
    if ids is not None and len(ids) != width:
      raise ValueError(
        f'{key} has {len(ids)} entries; allowed: {width}, as values has '
        'conditions'
      )
  ids = conditions if clusters is None else clusters
  if ids is None:
    return np.arange(width)
  place = {}
  return np.array([place.setdefault(_plain(x), len(place)) for x in ids])


def totals(values: np.ndarray, unit: np.ndarray) -> np.ndarray:
  """Sums [..., conditions] to [..., units]."""
  order = np.argsort(unit, kind='stable')
  start = np.flatnonzero(np.diff(unit[order], prepend=-1))
  return np.add.reduceat(values[..., order], start, axis=-1, dtype=float)


def _plain(x):
  return x.item() if isinstance(x, np.generic) else x
