"""Aggregates of cells, and metrics between the aggregates of conditions.

The aggregates turn [cells, genes] into one row for each group of cells. The
metrics compare rows: [..., conditions, genes] twice in, [..., conditions] out.

What holds for every metric here:

  * `mask`, bool [genes] or [..., conditions, genes], says which genes count;
    what stands in the others is not read, NaN included.
  * NaN in a counted gene makes the result NaN. So does a question without an
    answer: the direction of a zero vector, the correlation of a constant one,
    an empty mask. Nothing is replaced; who averages counts what was left out.
  * Infinities are not replaced either (PerturBench sets them to 0): distances
    become infinite, angles and correlations NaN.
  * Arithmetic is float32 or wider. Rows are centred and scaled before products
    are taken, so that small differences between large values survive.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from pertjax.metrics import registry
from pertjax.types import Array

_PERTURBENCH = 'PerturBench (Wu et al. 2024, arXiv:2408.10609)'

# Cells that are read at once while sums are taken. It bounds the memory beyond
# the input to one block and the sums, and sets no result: cells are added one
# after the other whatever the block.
_BLOCK = 4096


def wide(*arrays: Array) -> jnp.dtype:
  """Returns the type to compute in: float32, or what is wider among inputs."""
  return jnp.promote_types(jnp.result_type(*arrays), jnp.float32)


# ----------------------------------------------------------------------------
# Aggregates.


def _ids(groups: Array, weight: Array | None, num_groups: int) -> Array:
  """Sends cells that do not count to a group that is out of bounds."""
  counted = (groups >= 0) & (groups < num_groups)
  if weight is not None:
    counted &= weight > 0
  return jnp.where(counted, groups, num_groups).astype(jnp.int32)


def _sum_by_group(
  values: Array,
  ids: Array,
  weight: Array | None,
  num_groups: int,
  function: Callable[[Array, Array], Array],
) -> Array:
  """Sums `function(cells, ids)` by group, a block of cells at a time."""
  num_cells, num_genes = values.shape
  dtype = wide(values)

  def add(total, start, size):
    cells = jax.lax.dynamic_slice_in_dim(values, start, size).astype(dtype)
    at = jax.lax.dynamic_slice_in_dim(ids, start, size)
    rows = function(cells, jnp.minimum(at, num_groups - 1))
    if weight is not None:
      scale = jax.lax.dynamic_slice_in_dim(weight, start, size)
      rows = rows * scale.astype(dtype)[:, None]
    return total.at[at].add(rows, mode='drop')

  blocks = num_cells // _BLOCK
  total = jnp.zeros((num_groups, num_genes), dtype)
  if blocks:
    total = jax.lax.fori_loop(
      0, blocks, lambda i, t: add(t, i * _BLOCK, _BLOCK), total
    )
  return add(total, blocks * _BLOCK, num_cells - blocks * _BLOCK)


def _mean_by_group(
  values: Array,
  ids: Array,
  weight: Array | None,
  num_groups: int,
  function: Callable[[Array, Array], Array],
) -> Array:
  """Averages `function(cells, ids)` by group, in two passes.

  The second adds the mean of what the first left over. Sums of many small
  numbers of one sign lose digits: plain float32 means of log counts were wrong
  by up to 6e-4 of their value at 100,000 cells, and are by 2e-5 with it.
  """
  dtype = wide(values)
  ones = jnp.ones(ids.shape, dtype) if weight is None else weight.astype(dtype)
  count = jnp.zeros(num_groups, dtype).at[ids].add(ones, mode='drop')[:, None]
  add = functools.partial(_sum_by_group, values, ids, weight, num_groups)
  mean = add(function) / count
  return mean + add(lambda cells, at: function(cells, at) - mean[at]) / count


@functools.partial(jax.jit, static_argnames='num_groups')
def group_means(
  values: Array,
  groups: Array,
  *,
  num_groups: int,
  weight: Array | None = None,
) -> Array:
  """Averages the cells of each group.

  Sums go by scattered addition, not by a one-hot product: on a CPU that is
  10 to 60 times faster (20,000 cells x 5,000 genes x 200 groups: 0.02 s against
  0.24 s for one pass), a NaN stays in its group, and two groups that hold the
  same cells in the same order get the same bits. (On a GPU the order in which
  scattered additions arrive is not fixed, and neither is the last bit.)

  Args:
    values: [cells, genes].
    groups: int [cells]; cells outside [0, num_groups), -1 say, are not counted.
    num_groups: static.
    weight: [cells], not negative; cells of weight 0 are padding and not read.

  Returns:
    [groups, genes], float32 or wider; NaN for a group without cells.
  """
  ids = _ids(groups, weight, num_groups)
  return _mean_by_group(values, ids, weight, num_groups, lambda cells, _: cells)


@functools.partial(jax.jit, static_argnames='num_groups')
def group_variances(
  values: Array,
  groups: Array,
  *,
  num_groups: int,
  weight: Array | None = None,
) -> Array:
  """Returns each group's population variance (divided by n), [groups, genes].

  Arguments as in `group_means`; 0 for a group of one cell.
  """
  ids = _ids(groups, weight, num_groups)
  mean = group_means(values, groups, num_groups=num_groups, weight=weight)
  return _mean_by_group(
    values, ids, weight, num_groups, lambda x, at: jnp.square(x - mean[at])
  )


@functools.partial(jax.jit, static_argnames='num_groups')
def scaled_means(
  values: Array,
  groups: Array,
  *,
  num_groups: int,
  weight: Array | None = None,
  clip: float = 10.0,
) -> Array:
  """Averages z-scores: the aggregate that PerturBench calls 'scaled'.

  Each gene is centred and divided by its standard deviation (n - 1) over all
  cells given, control cells included, and clipped to +-`clip`; a gene without
  variance is centred only. Prediction and observation are scaled apart.

  Args:
    values: as in `group_means`, and so are the others.
    groups: int [cells].
    num_groups: static.
    weight: [cells]; taken as how often a cell occurs.
    clip: largest z-score.

  Returns:
    [groups, genes].
  """
  ids = _ids(groups, weight, num_groups)
  everyone = jnp.where(ids < num_groups, 0, -1)
  mean = group_means(values, everyone, num_groups=1, weight=weight)
  variance = group_variances(values, everyone, num_groups=1, weight=weight)
  number = (ids < num_groups) * (1 if weight is None else weight)
  number = jnp.sum(number, dtype=mean.dtype)
  spread = jnp.sqrt(variance * number / (number - 1))
  spread = jnp.where(spread == 0, 1, spread)
  return _mean_by_group(
    values,
    ids,
    weight,
    num_groups,
    lambda cells, _: jnp.clip((cells - mean) / spread, -clip, clip),
  )


@jax.jit
def variation(mean: Array, variance: Array) -> Array:
  """Returns the coefficient of variation: PerturBench's aggregate 'var'.

  Args:
    mean: [..., genes] of a group.
    variance: [..., genes], population variance.

  Returns:
    sqrt(variance) / mean; 0 where both are 0, for a gene that the group does
    not express (PerturBench's definition).
  """
  silent = (mean == 0) & (variance == 0)
  return jnp.where(silent, 0, jnp.sqrt(variance) / jnp.where(silent, 1, mean))


@jax.jit
def logfc(
  mean: Array,
  control_mean: Array,
  *,
  pseudocount: float = 0.1,
  undefined: float = jnp.nan,
) -> Array:
  """Returns log2((mean + pseudocount) / (control_mean + pseudocount)).

  The means are of log-normalised values, as in PerturBench: this is its log
  fold change, not that of a differential expression test. Written with log1p,
  so that a small change keeps its digits and equal means give exactly 0.

  Args:
    mean: [..., genes].
    control_mean: same shape.
    pseudocount: added to both.
    undefined: the value where a sum is not positive, which a model that
      predicts negative expression can cause. PerturBench uses 0.
  """
  above, below = mean + pseudocount, control_mean + pseudocount
  change = jnp.log1p((mean - control_mean) / below) / math.log(2.0)
  return jnp.where((above <= 0) | (below <= 0), undefined, change)


def delta(mean: Array, control_mean: Array) -> Array:
  """Returns mean - control_mean, [..., genes]."""
  return mean - control_mean


# ----------------------------------------------------------------------------
# Rows: what the metrics, here and in ranks.py, are made of.


def aligned(
  predicted: Array, observed: Array, mask: Array | None
) -> tuple[Array, Array, Array | None]:
  """Brings both sides and the mask to one shape and type.

  Raises:
    ValueError: when the shapes do not fit, or the mask is not boolean.
  """
  predicted, observed = jnp.asarray(predicted), jnp.asarray(observed)
  shapes = (predicted.shape, observed.shape)
  if mask is not None:
    mask = jnp.asarray(mask)
    if mask.dtype != bool:
      raise ValueError(f'mask must be boolean, not {mask.dtype}')
    shapes += (mask.shape,)
  if len({s[-1:] for s in shapes}) != 1 or not shapes[0]:
    raise ValueError(
      'predicted, observed and mask must have the same genes (last axis); '
      f'shapes: {", ".join(map(str, shapes))}'
    )
  shape = jnp.broadcast_shapes(*shapes)
  dtype = wide(predicted, observed)
  predicted, observed = (
    jnp.broadcast_to(x.astype(dtype), shape) for x in (predicted, observed)
  )
  if mask is not None:
    mask = jnp.broadcast_to(mask, shape)
  return predicted, observed, mask


def gene_sum(x: Array, mask: Array | None) -> Array:
  """Sums over the counted genes, [..., 1]."""
  kept = x if mask is None else jnp.where(mask, x, 0)
  return jnp.sum(kept, axis=-1, keepdims=True)


def gene_count(x: Array, mask: Array | None) -> Array:
  """Counts the counted genes, [..., 1]."""
  if mask is None:
    return jnp.full((*x.shape[:-1], 1), x.shape[-1], x.dtype)
  return jnp.sum(mask, axis=-1, keepdims=True, dtype=x.dtype)


def centred(x: Array, mask: Array | None) -> Array:
  """Takes each row's mean away; 0 in the genes that do not count.

  A constant row becomes exactly 0: its computed mean may differ from it in the
  last bit, and what is left would correlate perfectly with nothing at all.
  """
  kept = x if mask is None else jnp.where(mask, x, 0)
  rest = kept - gene_sum(x, mask) / gene_count(x, mask)
  rest = rest - gene_sum(rest, mask) / gene_count(x, mask)
  everywhere = True if mask is None else mask
  bounds = {'axis': -1, 'keepdims': True, 'where': everywhere}
  low = jnp.min(x, initial=jnp.inf, **bounds)
  high = jnp.max(x, initial=-jnp.inf, **bounds)
  rest = jnp.where(low == high, 0, rest)
  return rest if mask is None else jnp.where(mask, rest, 0)


def unit(x: Array, mask: Array | None) -> Array:
  """Scales rows to length 1; a zero row becomes NaN.

  Dividing by the largest entry first keeps the squares of tiny and of huge
  rows inside the range of float32.
  """
  kept = x if mask is None else jnp.where(mask, x, 0)
  kept = kept / jnp.max(jnp.abs(kept), axis=-1, keepdims=True)
  return kept / jnp.sqrt(jnp.sum(jnp.square(kept), axis=-1, keepdims=True))


def _angle(a: Array, b: Array) -> Array:
  """Cosine of the angle between rows that are 0 where they do not count."""
  a = a / jnp.max(jnp.abs(a), axis=-1, keepdims=True)
  b = b / jnp.max(jnp.abs(b), axis=-1, keepdims=True)
  norms = jnp.sqrt(jnp.sum(a * a, axis=-1) * jnp.sum(b * b, axis=-1))
  return jnp.clip(jnp.sum(a * b, axis=-1) / norms, -1, 1)


# ----------------------------------------------------------------------------
# Metrics.


@registry.metric(
  name='cosine',
  best=1.0,
  chance=None,
  direction='higher',
  reference=f'{_PERTURBENCH}, section 4; a.b / (|a| |b|)',
)
@jax.jit
def cosine(
  predicted: Array, observed: Array, *, mask: Array | None = None
) -> Array:
  """Returns the cosine of the angle between the rows; NaN for a zero row."""
  predicted, observed, mask = aligned(predicted, observed, mask)
  if mask is not None:
    predicted, observed = (jnp.where(mask, x, 0) for x in (predicted, observed))
  return _angle(predicted, observed)


@registry.metric(
  name='pearson',
  best=1.0,
  chance=None,
  direction='higher',
  reference='Pearson correlation over genes',
)
@jax.jit
def pearson(
  predicted: Array, observed: Array, *, mask: Array | None = None
) -> Array:
  """Returns the correlation of the rows; NaN where one is constant."""
  predicted, observed, mask = aligned(predicted, observed, mask)
  return _angle(centred(predicted, mask), centred(observed, mask))


@registry.metric(
  name='pearson_delta',
  best=1.0,
  chance=None,
  direction='higher',
  needs=('predicted', 'observed', 'control'),
  reference='GEARS (Roohani et al. 2023); cell-eval 0.8 pearson_delta',
)
@jax.jit
def pearson_delta(
  predicted: Array,
  observed: Array,
  control: Array,
  *,
  mask: Array | None = None,
) -> Array:
  """Correlates the changes from control, the same control on both sides."""
  predicted, observed, mask = aligned(predicted, observed, mask)
  control = jnp.broadcast_to(control, predicted.shape)
  return pearson(delta(predicted, control), delta(observed, control), mask=mask)


@registry.metric(
  name='mse',
  best=0.0,
  direction='lower',
  aliases=('mean_squared_error',),
  reference=f'{_PERTURBENCH}; mean over genes of (a - b)^2',
)
@jax.jit
def mse(
  predicted: Array, observed: Array, *, mask: Array | None = None
) -> Array:
  """Returns the mean over genes of the squared difference."""
  predicted, observed, mask = aligned(predicted, observed, mask)
  squared = jnp.square(predicted - observed)
  return (gene_sum(squared, mask) / gene_count(squared, mask))[..., 0]


@registry.metric(
  name='rmse',
  best=0.0,
  direction='lower',
  aliases=('root_mean_squared_error',),
  reference=f'{_PERTURBENCH}; square root of mse, per condition',
)
@jax.jit
def rmse(
  predicted: Array, observed: Array, *, mask: Array | None = None
) -> Array:
  """Returns the root of the mean over genes of the squared difference."""
  return jnp.sqrt(mse(predicted, observed, mask=mask))


@registry.metric(
  name='l2',
  best=0.0,
  direction='lower',
  aliases=('euclidean',),
  reference='Euclidean distance; grows with the number of genes',
)
@jax.jit
def l2(
  predicted: Array, observed: Array, *, mask: Array | None = None
) -> Array:
  """Returns the Euclidean distance between the rows; NaN without genes."""
  predicted, observed, mask = aligned(predicted, observed, mask)
  squared = jnp.square(predicted - observed)
  empty = gene_count(squared, mask) == 0
  return jnp.sqrt(jnp.where(empty, jnp.nan, gene_sum(squared, mask)))[..., 0]


@registry.metric(
  name='mae',
  best=0.0,
  direction='lower',
  aliases=('mean_absolute_error',),
  reference=f'{_PERTURBENCH}; mean over genes of |a - b|',
)
@jax.jit
def mae(
  predicted: Array, observed: Array, *, mask: Array | None = None
) -> Array:
  """Returns the mean over genes of the absolute difference."""
  predicted, observed, mask = aligned(predicted, observed, mask)
  error = jnp.abs(predicted - observed)
  return (gene_sum(error, mask) / gene_count(error, mask))[..., 0]


@registry.metric(
  name='r2',
  best=1.0,
  chance=None,
  direction='higher',
  aliases=('r2_score',),
  reference='coefficient of determination, the observation as reference',
)
@functools.partial(jax.jit, static_argnames='swapped')
def r2(
  predicted: Array,
  observed: Array,
  *,
  mask: Array | None = None,
  swapped: bool = False,
) -> Array:
  """Returns 1 - sum (a - b)^2 / sum (r - mean r)^2, r the reference row.

  Args:
    predicted: [..., conditions, genes].
    observed: same shape.
    mask: see the module.
    swapped: False takes the observation as reference. True takes the
      prediction, as PerturBench does, which passes the arguments to
      scikit-learn the other way round: a prediction is then punished for
      varying less than the truth.

  Returns:
    [..., conditions]; NaN where the reference is constant (scikit-learn gives
    0, or 1 for an exact prediction).
  """
  predicted, observed, mask = aligned(predicted, observed, mask)
  residual = gene_sum(jnp.square(predicted - observed), mask)
  reference = centred(predicted if swapped else observed, mask)
  spread = gene_sum(jnp.square(reference), mask)
  spread = jnp.where(spread == 0, jnp.nan, spread)
  return (1 - residual / spread)[..., 0]


@registry.metric(
  name='top_k_recall',
  best=1.0,
  chance=None,
  direction='higher',
  reference='PerturBench v4 (arXiv:2408.10609v4), DEG recall, k = 20',
)
@functools.partial(jax.jit, static_argnames='k')
def top_k_recall(
  predicted: Array,
  observed: Array,
  *,
  mask: Array | None = None,
  k: int = 20,
) -> Array:
  """Returns the share of the k genes of largest |value| that both rows have.

  Genes that tie for the last places share them, so the result is the expected
  recall under ties broken at random on both sides, and does not depend on the
  order of the genes: a prediction of zeros gets chance, k / genes.

  Args:
    predicted: [..., conditions, genes].
    observed: same shape.
    mask: see the module.
    k: how many genes, static.

  Returns:
    [..., conditions]; NaN where fewer than k genes count.
  """
  predicted, observed, mask = aligned(predicted, observed, mask)
  if k < 1:
    raise ValueError(f'top_k_recall: k is {k}; it must be at least 1')
  if k > predicted.shape[-1]:
    return jnp.full(predicted.shape[:-1], jnp.nan, predicted.dtype)
  shared = _in_top(predicted, mask, k) * _in_top(observed, mask, k)
  return jnp.sum(shared, axis=-1) / k


def _in_top(x: Array, mask: Array | None, k: int) -> Array:
  """Returns how likely each gene is among the k largest, [..., genes]."""
  strength = jnp.abs(x)
  counted = True if mask is None else mask
  unknown = jnp.any(jnp.isnan(x), axis=-1, keepdims=True, where=counted)
  # Floats that are not negative are ordered as their bits are.
  whole = jnp.int64 if x.dtype == jnp.float64 else jnp.int32
  order = jax.lax.bitcast_convert_type(strength, whole)
  order = order if mask is None else jnp.where(mask, order, -1)
  last = _kth_largest(order, k)
  above, tied = order > last, order == last
  places = k - jnp.sum(above, axis=-1, keepdims=True)
  share = places / jnp.sum(tied, axis=-1, keepdims=True)
  enough = jnp.sum(order >= 0, axis=-1, keepdims=True) >= k
  member = above + tied * share.astype(x.dtype)
  return jnp.where(enough & ~unknown, member, jnp.nan)


def _kth_largest(order: Array, k: int) -> Array:
  """Returns the k-th largest of integers that are not negative, [..., 1].

  Bit by bit from the highest: a bit is set where k values stay at or above the
  number so far. One pass over the row for each bit took 1/10 of the time of
  lax.top_k, which sorts, on 5,000 genes.
  """
  top = jnp.iinfo(order.dtype).bits - 2

  def settle(i, found):
    bit = jnp.left_shift(jnp.ones((), order.dtype), top - i)
    tried = found | bit.astype(order.dtype)
    reached = jnp.sum(order >= tried, axis=-1, keepdims=True) >= k
    return jnp.where(reached, tried, found)

  start = jnp.zeros((*order.shape[:-1], 1), order.dtype)
  return jax.lax.fori_loop(0, top + 1, settle, start)
