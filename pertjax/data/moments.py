"""Means and variances of sparse matrices, summed in float64."""

from __future__ import annotations

import numpy as np
from scipy import sparse

_BLOCK_ROWS = 16384
# Below this share, a difference of float64 sums is rounding and no signal.
ROUNDING = 1e-12


def by_class(
  X: sparse.csr_matrix,
  ids: np.ndarray,
  num: int,
  cells: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Returns the moments of cells by class.

  Args:
    X: CSR [cells, genes].
    ids: int [cells] in [0, num).
    num: number of classes.
    cells: bool [cells] to use; all by default.

  Returns:
    count: int64 [num].
    mean: float64 [num, genes]; 0 where a class has no cell.
    variance: float64 [num, genes] over n - 1; 0 for fewer than two cells.
  """
  rows = np.arange(X.shape[0]) if cells is None else np.flatnonzero(cells)
  rows = rows[np.argsort(ids[rows], kind='stable')]
  count = np.bincount(ids[rows], minlength=num)
  total = np.zeros((num, X.shape[1]))
  square = np.zeros((num, X.shape[1]))
  # Rows are sorted by class, so that a block touches few classes.
  for start in range(0, len(rows), _BLOCK_ROWS):
    block_rows = rows[start : start + _BLOCK_ROWS]
    block = X[block_rows].astype(np.float64)
    first, last = ids[block_rows[0]], ids[block_rows[-1]] + 1
    member = sparse.csr_matrix(
      (
        np.ones(len(block_rows)),
        (ids[block_rows] - first, np.arange(len(block_rows))),
      ),
      shape=(last - first, len(block_rows)),
    )
    total[first:last] += (member @ block).toarray()
    block.data **= 2
    square[first:last] += (member @ block).toarray()
  n = count[:, None]
  mean = total / np.maximum(n, 1)
  spread = square - total * mean
  spread[spread <= ROUNDING * square] = 0
  variance = spread / np.maximum(n - 1, 1)
  return count, mean, variance


def of_all(X: sparse.csr_matrix) -> tuple[np.ndarray, np.ndarray]:
  """Returns float64 [genes] mean, and variance over n - 1."""
  _, mean, variance = by_class(X, np.zeros(X.shape[0], np.int64), 1)
  return mean[0], variance[0]
