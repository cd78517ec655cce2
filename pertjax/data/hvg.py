"""Genes that vary more than their mean explains."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import sparse

from pertjax import names as name_lib
from pertjax.data import loess, matrices, moments

FLAVORS = ('seurat_v3', 'seurat')
_BLOCK_VALUES = 1 << 23


class Variable(NamedTuple):
  """Highly variable genes.

  Attributes:
    selected: bool [genes].
    score: float64 [genes]; higher is more variable. 'seurat_v3': the mean over
      batches of the variance of standardised counts; 'seurat': of the
      normalised dispersion.
    rank: float64 [genes]; the median over batches of the rank among the `num`
      best, NaN where a gene is never among them.
    batches: int [genes]; batches in which a gene is among the `num` best.
    notes: lines that a user should read.
  """

  selected: np.ndarray
  score: np.ndarray
  rank: np.ndarray
  batches: np.ndarray
  notes: tuple[str, ...]


def highly_variable(
  X: sparse.csr_matrix,
  *,
  num: int,
  groups: np.ndarray | None = None,
  flavor: str = 'seurat_v3',
  cells: np.ndarray | None = None,
) -> Variable:
  """Finds the genes that vary most for their mean.

  'seurat_v3' (Stuart et al. 2019): per batch, the variance of counts that are
  standardised by a loess fit of log10 variance on log10 mean and clipped at
  sqrt(cells) standard deviations; genes are sorted by their median rank among
  each batch's `num` best, then by the number of batches. 'seurat' (Satija et
  al. 2015): per batch, the log dispersion z-scored within 20 bins of the log
  mean; genes are sorted by the number of batches whose `num` best they are in,
  then by mean score. One batch sorts by score alone. Ties go by column.

  Args:
    X: CSR [cells, genes]; counts for 'seurat_v3', ln(1 + x) for 'seurat'.
    num: genes to select.
    groups: int [cells]; batches to rank within. One batch by default.
    flavor: one of FLAVORS.
    cells: bool [cells] to use; all by default.

  Raises:
    ValueError: for an unknown flavor, or no batch with two cells.
  """
  if flavor not in FLAVORS:
    raise ValueError(f'hvg_flavor: {flavor!r}; allowed: {", ".join(FLAVORS)}')
  num_cells, num_genes = X.shape
  groups = np.zeros(num_cells, np.int64) if groups is None else groups
  cells = np.ones(num_cells, bool) if cells is None else cells
  num = min(num, num_genes)
  scores, skipped = [], []
  for group in np.unique(groups[cells]):
    rows = np.flatnonzero(cells & (groups == group))
    if len(rows) < 2:
      skipped.append(int(group))
      continue
    batch = X if len(rows) == num_cells else X[rows]
    score = _standardized if flavor == 'seurat_v3' else _dispersion
    scores.append(score(batch))
  if not scores:
    raise ValueError('highly variable genes: no group has two cells to use')

  score = np.stack(scores)
  rank = np.argsort(np.argsort(-score, axis=1, kind='stable'), axis=1)
  among = rank < num
  batches = among.sum(axis=0)
  # Ranks past `num` do not count; the median is over the batches that do.
  hidden = np.sort(np.where(among, rank, np.inf), axis=0)
  middle = np.maximum(batches - 1, 0)
  columns = np.arange(num_genes)
  low, high = hidden[middle // 2, columns], hidden[(middle + 1) // 2, columns]
  median = np.where(batches > 0, (low + high) / 2, np.inf)
  mean_score = score.mean(axis=0)
  if flavor == 'seurat_v3':
    order = np.lexsort((-batches, median))
  else:
    order = np.lexsort((-mean_score, -batches))
  selected = np.zeros(num_genes, bool)
  selected[order[:num]] = True
  notes = []
  if skipped:
    notes.append(
      f'highly variable genes: {len(skipped)} groups with fewer than 2 cells '
      f'to use were left out: {name_lib.listing(skipped)}'
    )
  median[np.isinf(median)] = np.nan
  return Variable(selected, mean_score, median, batches, tuple(notes))


def _standardized(X: sparse.csr_matrix) -> np.ndarray:
  """Returns [genes] variances of standardised, clipped counts."""
  n = X.shape[0]
  mean, variance = moments.of_all(X)
  varies = variance > 0
  deviation = np.ones(X.shape[1])
  if varies.any():
    fit = loess.fit(np.log10(mean[varies]), np.log10(variance[varies]))
    deviation[varies] = np.sqrt(10**fit)
  ceiling = deviation * np.sqrt(n) + mean
  total, square = np.zeros(X.shape[1]), np.zeros(X.shape[1])
  for start in range(0, X.nnz, _BLOCK_VALUES):
    columns = X.indices[start : start + _BLOCK_VALUES]
    clipped = np.minimum(
      X.data[start : start + _BLOCK_VALUES], ceiling[columns]
    )
    total += np.bincount(columns, clipped, minlength=X.shape[1])
    square += np.bincount(columns, clipped**2, minlength=X.shape[1])
  spread = n * mean**2 + square - 2 * total * mean
  return spread / ((n - 1) * deviation**2)


def _dispersion(X: sparse.csr_matrix, bins: int = 20) -> np.ndarray:
  """Returns [genes] dispersions z-scored among genes of like mean.

  A gene alone in its bin scores 1, one that does not vary scores 0.
  """
  mean, variance = moments.of_all(matrices.with_values(X, np.expm1(X.data)))
  varies = variance > 0
  score = np.zeros(X.shape[1])
  if not varies.any():
    return score
  # Genes that do not vary take part in the range of the bins.
  edges_of = pd.cut(np.log1p(np.maximum(mean, 1e-12)), bins, labels=False)
  table = pd.DataFrame(
    {'bin': edges_of[varies], 'log': np.log(variance[varies] / mean[varies])}
  )
  grouped = table.groupby('bin')['log']
  center, spread = grouped.transform('mean'), grouped.transform('std')
  alone = spread.isna()
  score[varies] = np.where(alone, 1.0, (table['log'] - center) / spread)
  return score
