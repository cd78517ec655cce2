"""Compare models condition by condition."""

from __future__ import annotations

import statistics
from typing import NamedTuple

import numpy as np

# Resamples of the bootstrap; the Monte Carlo error of an end of the interval
# is then near 3% of its width.
NUM_RESAMPLES = 2000
# Relative rounding of a float32 sum over thousands of genes.
ROUNDING = 1e-6
# With fewer conditions the percentile bootstrap is far too narrow.
FEWEST_CONDITIONS = 5


class Differences(NamedTuple):
  """Paired differences between each model and a rival, over pairs.

  Attributes:
    mean: [models, combos] over the pairs where both are defined.
    low, high: [models, combos] 95% bootstrap interval, NaN where there are
      fewer than FEWEST_CONDITIONS conditions.
    pairs: [models, combos] how many pairs both have.
  """

  mean: np.ndarray
  low: np.ndarray
  high: np.ndarray
  pairs: np.ndarray


def differences(
  values: np.ndarray, rivals: np.ndarray, conditions: tuple[str, ...]
) -> Differences:
  """Compares models condition by condition.

  The percentile bootstrap (Efron 1979) resamples conditions, with all their
  groups together: one perturbation in two cell lines is not two independent
  observations. Its levels are widened for small samples (Hesterberg 2015,
  section 4.3, https://doi.org/10.1080/00031305.2015.1089789).

  Args:
    values: [models, combos, pairs], NaN where undefined.
    rivals: int [combos], the model that the others are compared with; -1 for
      none.
    conditions: [pairs] names.
  """
  num_models, num_combos, num_pairs = values.shape
  if not num_pairs:
    nothing = np.full((num_models, num_combos), np.nan)
    return Differences(nothing, nothing, nothing, np.zeros(nothing.shape, int))
  rival = np.take_along_axis(
    values, np.maximum(rivals, 0)[None, :, None], axis=0
  )
  rival = np.where((rivals >= 0)[None, :, None], rival, np.nan)
  # [pairs, models * combos], so that resampling is one matrix product.
  gaps = values - rival
  # Equal predictions differ by rounding, which must not look like an effect.
  size = np.maximum(np.abs(values), np.abs(rival))
  gaps = np.where(np.abs(gaps) <= ROUNDING * size, 0, gaps)
  gaps = gaps.reshape(num_models * num_combos, num_pairs).T
  both = np.isfinite(gaps)
  gaps = np.where(both, gaps, 0)
  count = both.sum(0)

  names, cluster = np.unique(np.array(conditions, str), return_inverse=True)
  of_cluster = np.eye(len(names))[cluster]  # [pairs, conditions]
  num_clusters = (of_cluster.T @ both > 0).sum(0)
  # A constant, so that the same tables give the same page.
  draws = np.random.default_rng(0).multinomial(
    len(names), np.full(len(names), 1 / max(len(names), 1)), NUM_RESAMPLES
  )
  total = draws @ (of_cluster.T @ gaps)  # [resamples, models * combos]
  weight = draws @ (of_cluster.T @ both)
  enough = num_clusters >= FEWEST_CONDITIONS
  low, high = np.full((2, len(count)), np.nan)
  if enough.any():
    # A resample may hold none of the conditions where both are defined.
    resampled = np.where(weight > 0, total / np.maximum(weight, 1), np.nan)
    for size in np.unique(num_clusters[enough]):
      which = num_clusters == size
      tail = _tail(int(size))
      low[which], high[which] = _quantiles(
        resampled[:, which], [tail, 1 - tail]
      )
  average = np.where(count > 0, gaps.sum(0) / np.maximum(count, 1), np.nan)
  shape = (num_models, num_combos)
  return Differences(
    mean=average.reshape(shape),
    low=low.reshape(shape),
    high=high.reshape(shape),
    pairs=count.reshape(shape),
  )


def _quantiles(values: np.ndarray, levels: list[float]) -> np.ndarray:
  """Returns [levels, columns] over the rows that are not NaN."""
  if np.isnan(values).any():
    return np.nanquantile(values, levels, axis=0)
  return np.quantile(values, levels, axis=0)  # The same, many times faster.


def _tail(n: int) -> float:
  """Returns the level below a 95% interval of n values, widened for small n.

  The normal quantile becomes Student's, by the expansion 26.7.5 of Abramowitz
  and Stegun, times sqrt(n / (n - 1)), the bias of the bootstrap's spread.
  """
  normal = statistics.NormalDist()
  z, v = normal.inv_cdf(0.975), n - 1
  student = (
    z
    + (z**3 + z) / (4 * v)
    + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * v**2)
    + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * v**3)
  )
  return normal.cdf(-student * (n / (n - 1)) ** 0.5)
