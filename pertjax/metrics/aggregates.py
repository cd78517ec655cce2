"""Aggregates of the cells of a side, beyond means: z-scores, t scores, PCA.

Everything comes from a side's means, variances and at most one more pass over
its blocks, in float64; no matrix of all cells is made.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pertjax.metrics import pseudobulk, sides
from pertjax.metrics.differential import table, tails
from pertjax.types import Array


class Moments(NamedTuple):
  """Cells of some labels, summed up.

  Attributes:
    mean: float64 [labels, genes].
    variance: float64 [labels, genes], divided by n.
    size: int [labels].
  """

  mean: np.ndarray
  variance: np.ndarray
  size: np.ndarray


def moments(side: sides.Side) -> Moments:
  """Returns the moments of every label of a side."""
  return Moments(side.mean, side.variance, side.sizes)


def replaced(own: Moments, other: Moments, which: np.ndarray) -> Moments:
  """Takes the labels of `which`, bool [labels], from the other moments."""
  rows = which[:, None]
  return Moments(
    np.where(rows, other.mean, own.mean),
    np.where(rows, other.variance, own.variance),
    np.where(which, other.size, own.size),
  )


def pooled(parts: Moments) -> tuple[np.ndarray, np.ndarray]:
  """Returns mean and standard deviation (n - 1) of all cells, [genes] each.

  Args:
    parts: labels without cells are not read.
  """
  known = parts.size > 0
  mean, variance, size = (x[known] for x in parts)
  weight = size[:, None] / size.sum()
  centre = (weight * mean).sum(0)
  spread = (weight * (variance + np.square(mean - centre))).sum(0)
  # What rounding leaves of a gene without spread, as in `sides.Side.variance`.
  spread = np.where(spread <= 1e-14 * np.square(centre), 0.0, spread)
  return centre, np.sqrt(spread * (size.sum() / max(1, size.sum() - 1)))


def scaled(
  side: sides.Side,
  centre: np.ndarray,
  spread: np.ndarray,
  *,
  clip: float = 10.0,
) -> np.ndarray:
  """Averages clipped z-scores of each label's cells, float64 [labels, genes].

  The mean of z-scores is the z-score of the mean; a pass over the cells finds
  what the clipping takes away.

  Args:
    side: the cells.
    centre: [genes] mean that is taken off.
    spread: [genes] standard deviation; genes with 0 are centred only.
    clip: largest z-score, and smallest with a minus.
  """
  spread = np.where(spread == 0, 1.0, spread)
  silent = -centre / spread  # The z-score of a 0.
  silent_excess = np.clip(silent, -clip, clip) - silent
  excess = np.zeros((side.num_labels, side.num_genes))
  for labels, block in side.blocks():
    if hasattr(block, 'indptr'):
      genes = np.asarray(block.indices)
      value = np.asarray(block.data, np.float64)
      row = np.repeat(labels, np.diff(block.indptr))
      z = (value - centre[genes]) / spread[genes]
      found = np.flatnonzero((np.abs(z) > clip) & (row >= 0) & (value != 0))
      row, genes, z = row[found], genes[found], z[found]
    else:
      # Few genes have a cell that far off; the others are passed over.
      ends = [(x - centre) / spread for x in (block.max(0), block.min(0))]
      far = np.flatnonzero((ends[0] > clip) | (ends[1] < -clip))
      value = block[:, far].astype(np.float64)
      z = (value - centre[far]) / spread[far]
      found = (np.abs(z) > clip) & (value != 0)
      row, genes = np.nonzero(found & (labels >= 0)[:, None])
      z, row, genes = z[row, genes], labels[row], far[genes]
    np.add.at(excess, (row, genes), np.clip(z, -clip, clip) - z)
  with np.errstate(invalid='ignore', divide='ignore'):
    excess /= side.sizes[:, None]
  if silent_excess.any():
    excess += (1 - side.detected) * silent_excess
  return (side.mean - centre) / spread + excess


class Tested(NamedTuple):
  """A test of every gene, [conditions, genes] each.

  Attributes:
    score: signed, above 0 where the condition is above its control.
    p: two-sided.
    fdr: Benjamini-Hochberg over the genes of a condition.
  """

  score: Array
  p: Array
  fdr: Array


@jax.jit
def t_score(mean: Array, error: Array, mean_0: Array, error_0: Array) -> Array:
  """Returns (mean - mean_0) / sqrt(error + error_0); 0 for 0 / 0.

  Welch's t: scanpy and GEARS rank genes by it, and give 0 to a gene that
  neither group varies in.

  Args:
    mean: [conditions, genes].
    error: variance (n - 1) of the condition's cells over their number.
    mean_0: of the control.
    error_0: of the control.
  """
  change = mean - mean_0
  total = error + error_0
  flat = (total == 0) & (change == 0)
  return jnp.where(flat, 0, change / jnp.sqrt(jnp.where(flat, 1, total)))


def _errors(
  condition: Moments, control: Moments, overestimate: bool
) -> tuple[np.ndarray, ...]:
  """Returns squared errors of both means, and the numbers they count as."""
  n = condition.size[:, None].astype(np.float64)
  size_0 = control.size[:, None].astype(np.float64)
  n_0 = n if overestimate else size_0
  with np.errstate(invalid='ignore', divide='ignore'):
    # variance n / (n - 1) is the sample's; over n, its mean's.
    error = condition.variance / (n - 1)
    error_0 = control.variance * (size_0 / (size_0 - 1)) / n_0
  return error, error_0, n, n_0


def t_scores(
  condition: Moments, control: Moments, *, overestimate: bool = False
) -> np.ndarray:
  """Returns the score of `t_test` alone, float64 [conditions, genes]."""
  error, error_0, *_ = _errors(condition, control, overestimate)
  return np.asarray(t_score(condition.mean, error, control.mean, error_0))


@jax.jit
def _t_tails(score, error, error_0, n, n_0) -> tuple[Array, Array]:
  total = error + error_0
  df = jnp.square(total) / (
    jnp.square(error) / (n - 1) + jnp.square(error_0) / (n_0 - 1)
  )
  # df is 0 / 0 where nothing varies; scanpy calls the NaN that follows p = 1.
  steady = total == 0
  p, _ = tails.student(jnp.abs(score), jnp.where(steady, 1, df))
  p = jnp.where(steady, 1, p)
  p = jnp.where(jnp.isnan(score), jnp.nan, p)
  return p, table.benjamini_hochberg(p)


def t_test(
  condition: Moments, control: Moments, *, overestimate: bool = False
) -> Tested:
  """Tests conditions by Welch's t as scanpy 1.11 does.

  Args:
    condition: of the conditions.
    control: of the control of each.
    overestimate: scanpy's 't-test_overestim_var': the control counts as having
      as many cells as the condition has.

  Returns:
    NaN for conditions with one cell or none.
  """
  errors = _errors(condition, control, overestimate)
  score = t_score(condition.mean, errors[0], control.mean, errors[1])
  return Tested(score, *_t_tails(score, *errors))


class Components(NamedTuple):
  """Principal components.

  Attributes:
    mean: [genes].
    loading: [genes, components], orthonormal, in order of falling variance;
      the largest entry of each, by size, is positive.
  """

  mean: np.ndarray
  loading: np.ndarray


def components(side: sides.Side, number: int) -> Components:
  """Fits principal components to the labelled cells of a side.

  From the second moments, [genes, genes], added up block by block.

  Args:
    side: the cells.
    number: of components; fewer where there are fewer genes, or cells less one.
  """
  centre, _ = pooled(moments(side))
  second = np.zeros((side.num_genes, side.num_genes))
  for labels, block in side.blocks():
    kept = sides.dense(block)[labels >= 0].astype(np.float64) - centre
    second += kept.T @ kept
  number = min(number, side.num_genes, max(1, int(side.sizes.sum()) - 1))
  _, vectors = np.linalg.eigh(second)
  loading = vectors[:, ::-1][:, :number]
  largest = np.abs(loading).argmax(0)
  sign = np.sign(loading[largest, np.arange(number)])
  return Components(centre, loading * sign)


def project(values: np.ndarray, onto: Components) -> np.ndarray:
  """Returns the coordinates of rows [..., genes], [..., components]."""
  return (np.asarray(values, np.float64) - onto.mean) @ onto.loading


def project_cells(cells: Any, onto: Components) -> np.ndarray:
  """Returns the coordinates of cells, an array or CSR [cells, genes]."""
  # Sparse cells stay sparse: the mean is taken off after the product.
  cells = cells.astype(np.float64)
  return np.asarray(cells @ onto.loading) - onto.mean @ onto.loading


def member(values: Array, k: int) -> Array:
  """Says how far each gene is among the k of largest size, [..., genes].

  1 and 0, and a share of the places where genes tie for the last ones; the
  same as in `pseudobulk.top_k_recall`. NaN where k genes are not there.
  """
  values = jnp.asarray(values)
  if k > values.shape[-1]:
    return jnp.full(values.shape, jnp.nan, pseudobulk.wide(values))
  strength = jnp.abs(values)
  last = jax.lax.top_k(strength, k)[0][..., -1:]
  above, tied = strength > last, strength == last
  places = k - jnp.sum(above, axis=-1, keepdims=True)
  share = places / jnp.sum(tied, axis=-1, keepdims=True)
  found = above + tied * share.astype(strength.dtype)
  unknown = jnp.any(jnp.isnan(values), axis=-1, keepdims=True)
  return jnp.where(unknown, jnp.nan, found)
