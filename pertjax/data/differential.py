"""Genes that differ from the control, by Welch's t."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from pertjax.data import moments


def degs(
  X: sparse.csr_matrix,
  condition_ids: np.ndarray,
  group_ids: np.ndarray,
  *,
  num: int,
  cells: np.ndarray | None = None,
) -> dict[tuple[int, int], np.ndarray]:
  """Ranks genes by difference from the control of the same group.

  The score is Welch's t statistic, (m1 - m0) / sqrt(v1 / n1 + v0 / n0), with
  variances over n - 1; genes are ranked by its absolute value, ties by column.
  It is 0 where both variances are 0 and the means agree.

  Args:
    X: CSR [cells, genes], log-normalised.
    condition_ids: int [cells]; 0 is the control.
    group_ids: int [cells].
    num: genes to return for each pair, at most.
    cells: bool [cells] to use; all by default.

  Returns:
    {(condition, group): int32 columns, best first} for every pair with at
    least two cells, in a group with at least two control cells.
  """
  condition_ids = np.asarray(condition_ids, np.int64)
  num_groups = int(np.max(group_ids, initial=0)) + 1
  pairs, ids = np.unique(
    condition_ids * num_groups + group_ids, return_inverse=True
  )
  count, mean, variance = moments.by_class(X, ids, len(pairs), cells)
  row = {divmod(int(p), num_groups): index for index, p in enumerate(pairs)}
  ranked: dict[tuple[int, int], np.ndarray] = {}
  for (condition, group), index in row.items():
    control = row.get((0, group))
    if condition == 0 or control is None:
      continue
    if min(count[index], count[control]) < 2:
      continue
    score = welch_t(
      mean[index],
      variance[index],
      count[index],
      mean[control],
      variance[control],
      count[control],
    )
    order = np.argsort(-np.abs(score), kind='stable')
    ranked[condition, group] = order[:num].astype(np.int32)
  return ranked


def welch_t(
  mean: np.ndarray,
  variance: np.ndarray,
  count: float,
  control_mean: np.ndarray,
  control_variance: np.ndarray,
  control_count: float,
) -> np.ndarray:
  """Returns Welch's t statistic; 0 where it is 0 / 0.

  Args:
    mean, variance: [genes] of the perturbed cells; variance over n - 1.
    count: number of perturbed cells.
    control_mean, control_variance: [genes] of the control cells.
    control_count: number of control cells.
  """
  error = np.sqrt(variance / count + control_variance / control_count)
  difference = mean - control_mean
  # A gene that is constant everywhere must not score infinity for rounding.
  size = np.maximum(np.abs(mean), np.abs(control_mean))
  same = (error == 0) & (np.abs(difference) <= moments.ROUNDING * size)
  with np.errstate(divide='ignore', invalid='ignore'):
    return np.where(same, 0.0, difference / error)
