"""Pseudobulks of counts and squared errors without their sampling noise.

cell-eval2 0.20 adds the counts of a condition's cells before it takes the
logarithm: b_g = log1p(T sum_c y_cg / sum_cg y), T = 50,000. What b varies by
because other cells could have been drawn is estimated by leaving out one cell
at a time (delete-one jackknife; Efron and Stein, Ann. Stat. 9, 1981):

  C = (n - 1) / n  sum_g sum_i (v_ig - mean_i v_ig)^2,
  v_ig = log1p(T (S_g - y_ig) / (sum_g S_g - l_i)),

S the counts of all n cells together, l_i those of cell i; 0 for n < 2. Squared
differences of two bulks are too large by the C of both on average:

  error     N_p = (|b^_p - b_p|^2 - rho min(C^_p, C_p) - C_p) / G_p
  distance  D_p = (|b_p - b_0|^2 - C_p - C_0) / G_p

over the G_p genes that condition p does not target itself (the Cs are of all
genes, as in the tool). A prediction may claim no more noise than the truth has,
and all of them together no more than they differ from one another:

  rho = min(1, B / sum_p min(C^_p, C_p) / G_p),
  B = sum_g sum_p (b^_pg - mean_p b^_pg)^2 / G_p,

the inner mean weighted by 1 / G_p and both over the p that do not target g.
sum N / sum D is `expr_mse_unbiased_capped_norm` of the Virtual Cell Challenge
2026: 0 for a perfect prediction, about 1 for the control, negative where the
noise was overestimated.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pertjax.metrics import sides
from pertjax.types import Array

TARGET_SUM = 5e4

# Values that are dense at once while cells are left out; they stay in cache.
_VALUES = 1 << 17


class Bulk(NamedTuple):
  """Pseudobulks of labels.

  Attributes:
    value: float64 [labels, genes]; 0 for cells without counts, NaN for a label
      without cells.
    noise: float64 [labels], C of the module's docstring.
  """

  value: np.ndarray
  noise: np.ndarray


def values(side: sides.Side, *, target_sum: float = TARGET_SUM) -> np.ndarray:
  """Returns log1p of counts in proportion, float64 [labels, genes].

  Args:
    side: counts.
    target_sum: counts that a bulk is scaled to.

  Raises:
    ValueError: when the target sum is not positive.
  """
  if not 0 < target_sum < np.inf:
    raise ValueError(f'target_sum is {target_sum!r}; allowed: numbers > 0')
  mean = side.mean
  return np.log1p(target_sum * _over(mean, mean.sum(1, keepdims=True)))


def bulk(
  side: sides.Side,
  *,
  target_sum: float = TARGET_SUM,
  noise_of: np.ndarray | None = None,
) -> Bulk:
  """Returns pseudobulks and their noise, in two passes over the cells.

  The second reads the cells again, a block at a time; no more than a block is
  dense, and two sums of [labels, genes] are held.

  Args:
    side: counts.
    target_sum: see `values`.
    noise_of: int, labels whose noise is wanted (others are NaN); None for all.

  Raises:
    ValueError: when a count is negative or the target sum is not positive.
  """
  found = values(side, target_sum=target_sum)
  wanted = np.ones(side.num_labels, bool)
  if noise_of is not None:
    wanted[:] = False
    wanted[noise_of] = True
  noise = np.full(side.num_labels, np.nan)
  if wanted.any():
    estimate = _jackknife(side, found, wanted, target_sum)
    noise = np.where(wanted, estimate, np.nan)
  return Bulk(found, noise)


def _jackknife(side, center, wanted, target_sum) -> np.ndarray:
  """Returns C of each label, [labels]; `center` are the bulks themselves.

  Deviations from the bulk are added, not the values: their squares lose no
  digits, and the sums do not depend on the blocks.
  """
  sizes = side.sizes.astype(np.float64)
  total = side.mean * sizes[:, None]
  whole = total.sum(1)
  first, second = np.zeros((2, *center.shape))
  rows = max(1, _VALUES // max(1, side.num_genes))
  for labels, block in side.blocks():
    data = block.data if hasattr(block, 'indptr') else block
    if data.size and data.min() < 0:
      raise ValueError(
        f'counts are needed; the lowest value is {float(data.min())!r}'
      )
    # By label, so that its sums are read once for many cells.
    order = np.argsort(labels, kind='stable')
    starts = np.flatnonzero(np.diff(labels[order], prepend=-2))
    for start, end in zip(starts, [*starts[1:], len(order)]):
      label = labels[order[start]]
      if label < 0 or not wanted[label] or sizes[label] < 2:
        continue
      for at in range(start, end, rows):
        cells = sides.dense(block[order[at : min(at + rows, end)]])
        change = _without_one(
          cells, total[label], whole[label], center[label], target_sum
        )
        first[label] += change.sum(0)
        second[label] += np.einsum('ig,ig->g', change, change)
  number = np.maximum(sizes, 1)
  spread = second - np.square(first) / number[:, None]
  return np.maximum((number - 1) / number * spread.sum(1), 0)


def _without_one(cells, total, whole, center, target_sum) -> np.ndarray:
  """Returns v - b of each cell that is left out, [cells, genes]."""
  cells = cells.astype(np.float64)
  left = whole - cells.sum(1, keepdims=True)
  np.subtract(total, cells, out=cells)
  # What is left of all counts is 0 but for rounding where one cell has all.
  some = left > 1e-12 * whole
  cells *= np.where(some, target_sum / np.where(some, left, 1), 0)
  np.maximum(cells, 0, out=cells)
  np.log1p(cells, out=cells)
  cells -= center
  return cells


def _over(above: np.ndarray, below: np.ndarray) -> np.ndarray:
  """Returns above / below, and 0 where below is 0; NaN stays."""
  return above / np.where(below == 0, 1, below)


# ----------------------------------------------------------------------------
# Of bulks: jittable.


def _squared(a: Array, b: Array, own: Array | None) -> tuple[Array, Array]:
  """Returns |a - b|^2 over the genes that count, and their number."""
  square = jnp.square(jnp.asarray(a) - b)
  if own is None:
    return square.sum(-1), jnp.full(square.shape[:-1], square.shape[-1])
  number = jnp.sum(~own, axis=-1)
  return jnp.sum(jnp.where(own, 0, square), axis=-1), number


def _per_gene(total: Array, number: Array) -> Array:
  return jnp.where(number > 0, total / jnp.maximum(number, 1), jnp.nan)


@jax.jit
def budget(predicted: Array, *, own: Array | None = None) -> Array:
  """Returns B: how much the predictions differ from one another, ().

  Args:
    predicted: [conditions, genes] bulks.
    own: bool [conditions, genes], the genes that a condition targets.
  """
  predicted = jnp.asarray(predicted)
  keep = jnp.ones(predicted.shape, bool) if own is None else ~own
  number = jnp.sum(keep, axis=1, keepdims=True)
  share = jnp.where(number > 0, 1 / jnp.maximum(number, 1), 0)
  weight = jnp.where(keep, share, 0)
  whole = jnp.sum(weight, axis=0, keepdims=True)
  # Small numbers from here on.
  rest = predicted - jnp.mean(predicted, axis=0, keepdims=True)
  center = jnp.sum(weight * rest, axis=0, keepdims=True)
  center = center / jnp.where(whole > 0, whole, 1)
  spread = jnp.sum(weight * jnp.square(rest - center), axis=0)
  return jnp.sum(jnp.where(jnp.sum(keep, axis=0) > 1, spread, 0))


@jax.jit
def share(
  predicted: Array,
  predicted_noise: Array,
  observed_noise: Array,
  *,
  own: Array | None = None,
) -> Array:
  """Returns rho, the part of its claimed noise that a panel gets, ().

  Args:
    predicted: [conditions, genes] bulks.
    predicted_noise: [conditions] C of the prediction.
    observed_noise: [conditions] C of the truth.
    own: see `budget`.
  """
  _, number = _squared(predicted, predicted, own)
  claim = jnp.minimum(predicted_noise, observed_noise)
  claim = jnp.sum(jnp.where(number > 0, claim / jnp.maximum(number, 1), 0))
  part = budget(predicted, own=own) / jnp.where(claim > 0, claim, 1)
  return jnp.where(claim > 0, jnp.minimum(part, 1), 1.0)


@jax.jit
def error(
  predicted: Array,
  observed: Array,
  predicted_noise: Array,
  observed_noise: Array,
  *,
  own: Array | None = None,
) -> Array:
  """Returns (|b^ - b|^2 - C^ - C) / G, [conditions]: nothing is capped.

  cell-eval2 0.20, `expr_mse_unbiased`: for looking at; whoever predicts noisy
  cells can make it as low as they like.

  Args:
    predicted: [conditions, genes] bulks.
    observed: the same.
    predicted_noise: [conditions].
    observed_noise: [conditions].
    own: see `budget`.
  """
  total, number = _squared(predicted, observed, own)
  return _per_gene(total - predicted_noise - observed_noise, number)


@jax.jit
def capped_error(
  predicted: Array,
  observed: Array,
  predicted_noise: Array,
  observed_noise: Array,
  *,
  own: Array | None = None,
) -> Array:
  """Returns N_p of the module's docstring, [conditions]; arguments of `error`.

  cell-eval2 0.20, `expr_mse_unbiased_capped`.
  """
  rho = share(predicted, predicted_noise, observed_noise, own=own)
  claim = rho * jnp.minimum(predicted_noise, observed_noise)
  return error(predicted, observed, claim, observed_noise, own=own)


@jax.jit
def distance(
  observed: Array,
  control: Array,
  observed_noise: Array,
  control_noise: Array,
  *,
  own: Array | None = None,
) -> Array:
  """Returns D_p of the module's docstring, [conditions].

  cell-eval2 0.20, `expr_distance_unbiased`: how much there is to predict.

  Args:
    observed: [conditions, genes] bulks.
    control: the same of each condition's control.
    observed_noise: [conditions].
    control_noise: [conditions].
    own: see `budget`.
  """
  return error(observed, control, observed_noise, control_noise, own=own)
