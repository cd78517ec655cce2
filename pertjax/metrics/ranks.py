"""How well a prediction is told apart from the predictions of other conditions.

For every condition the predictions of its covariate group are ordered by how
close they come to the observed condition; the rank is the place of its own,
divided by the number of predictions (PerturBench, arXiv:2408.10609, section 4).
0 is best and 0.5 is chance. All pairs are compared by matrix products.

Ties. PerturBench shuffles before it sorts, without a seed. Here a tie counts
half (the mid-rank), which is the expected value of that shuffle: equal
predictions for all conditions give (n - 1) / (2 n) with its denominator n and
exactly 0.5 with n - 1. Distances that differ by less than the rounding
error of the products are ties as well (`tolerance`), or a last bit would decide
the rank of a model that predicts the same for everything.

NaN. What cannot be compared sorts last, as in PerturBench: a NaN prediction
loses against every number and ties with other NaN. A model whose predictions
are all NaN therefore ranks as chance does; the metric itself stays NaN.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pertjax.metrics import pseudobulk, registry
from pertjax.types import Array

METRICS = ('rmse', 'mse', 'mae', 'cosine', 'pearson', 'r2')
DENOMINATORS = ('n', 'n-1')
TIES = {'mid': 0.5, 'optimistic': 0.0, 'pessimistic': 1.0}

# Rounding error of a computed distance, in units of the last place of the
# squares that it is a sum of: 3.7 at most in 540,000 squared differences of 50
# to 20,000 genes. Rows scaled to length 1 carry the rounding of that too (up to
# 17 units for 50 genes), but equal rows carry it equally.
_UNITS = 4.0

# References that are compared with all predictions at once, without products.
_BLOCK = 16

# Genes at once in sums of absolute differences; sets no result but rounding.
_GENES = 512

# Full float32 on every device: TF32 keeps 10 bits, which reorders neighbours.
_dot = functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)


class OwnGenes(NamedTuple):
  """A mask of [reference, genes] with few genes in each row, as numbers.

  Attributes:
    index: int32 [reference, most] gene columns.
    counted: bool [reference, most]; False in the padding.
  """

  index: Array
  counted: Array


def own_genes(mask: np.ndarray) -> OwnGenes:
  """Lists the genes of a mask, on the host.

  With the twenty genes of each condition out of thousands, gathering them
  costs next to nothing where products over all genes would.

  Args:
    mask: bool [reference, genes].
  """
  mask = np.asarray(mask)
  number = mask.sum(1)
  most = max(1, int(number.max(initial=0)))
  index = np.argsort(~mask, axis=1, kind='stable')[:, :most]
  counted = np.arange(most)[None, :] < number[:, None]
  return OwnGenes(jnp.asarray(index, jnp.int32), jnp.asarray(counted))


# ----------------------------------------------------------------------------
# All pairs. Every metric is a distance first, smaller is closer, together with
# how far rounding may have moved it: 1 - cosine keeps digits that cosine lost.


def _centre(reference: Array) -> Array:
  """Returns the mean reference, [1, genes], whatever is not finite aside."""
  finite = jnp.where(jnp.isfinite(reference), reference, 0)
  return jnp.mean(finite, axis=0, keepdims=True)


def _unit_error(dtype: jnp.dtype) -> float:
  return _UNITS * float(jnp.finfo(dtype).eps)


def _squared(a: Array, b: Array) -> tuple[Array, Array]:
  """Returns |a_i - b_j|^2 and its error, both [predicted, reference].

  The mean reference is taken from both sides first: distances stay, and the
  expression that all conditions share costs no digits.
  """
  centre = _centre(b)
  a, b = a - centre, b - centre
  norms = jnp.sum(a * a, axis=-1)[:, None] + jnp.sum(b * b, axis=-1)[None, :]
  squared = jnp.maximum(norms - 2 * _dot(a, b.T), 0)
  return squared, norms * _unit_error(a.dtype)


def _same_genes(
  predicted: Array,
  reference: Array,
  mask: Array | None,
  metric: str,
  swapped: bool,
) -> tuple[Array, Array]:
  """Distances when all pairs are compared on the same genes."""
  rows = [
    (x, None if mask is None else jnp.broadcast_to(mask[None, :], x.shape))
    for x in (predicted, reference)
  ]
  if metric == 'r2':
    side = 0 if swapped else 1
    spread = jnp.sum(jnp.square(pseudobulk.centred(*rows[side])), axis=-1)
    scale = jnp.expand_dims(jnp.where(spread == 0, jnp.nan, spread), 1 - side)
  elif metric in ('cosine', 'pearson'):
    # |u - v|^2 / 2 = 1 - u.v for u and v of length 1.
    scale = 2.0
    if metric == 'pearson':
      rows = [(pseudobulk.centred(*row), row[1]) for row in rows]
    rows = [(pseudobulk.unit(*row), row[1]) for row in rows]
  else:
    counted = predicted.shape[1] if mask is None else jnp.sum(mask)
    scale = jnp.asarray(counted, predicted.dtype)
  a, b = (x if m is None else jnp.where(m, x, 0) for x, m in rows)
  squared, error = _squared(a, b)
  return squared / scale, error / scale


def _own_genes(
  predicted: Array,
  reference: Array,
  mask: Array,
  metric: str,
  swapped: bool,
) -> tuple[Array, Array]:
  """Distances when every reference brings the genes it is compared on.

  With w_j the genes of reference j, sums over them are products as well:
  sum_g w_jg (a_ig - b_jg)^2 = (a^2 w')_ij - 2 (a (w b)')_ij + (w b^2)_j.
  """
  weights = mask.astype(predicted.dtype).T
  # 0 x NaN is NaN: what does not count must not reach the products.
  finite = jnp.isfinite(predicted)
  broken = _dot((~finite).astype(weights.dtype), weights) > 0
  predicted = jnp.where(finite, predicted, 0)
  number = pseudobulk.gene_count(reference, mask).T
  unit_error = _unit_error(predicted.dtype)

  def scatter(rows, raw):
    """Sums of squares around the mean; NaN where rounding is all of them."""
    around = raw - jnp.square(_dot(rows, weights)) / number
    return jnp.where(around > unit_error * raw, around, jnp.nan)

  # A constant per row changes no scatter; taking it away first saves digits.
  level = predicted - jnp.mean(predicted, axis=-1, keepdims=True)
  if metric in ('cosine', 'pearson'):
    if metric == 'pearson':
      a, b = level, pseudobulk.centred(reference, mask)
    else:
      a, b = predicted, jnp.where(mask, reference, 0)
    a, b = (x / jnp.max(jnp.abs(x), axis=-1, keepdims=True) for x in (a, b))
    raw = _dot(a * a, weights)
    spread = scatter(a, raw) if metric == 'pearson' else raw
    norms = jnp.sqrt(spread * jnp.sum(b * b, axis=-1)[None, :])
    distance = 1 - jnp.clip(_dot(a, b.T) / norms, -1, 1)
    error = unit_error * (1 + raw / spread)
  else:
    centre = _centre(reference)
    a, b = predicted - centre, jnp.where(mask, reference - centre, 0)
    norms = _dot(a * a, weights) + jnp.sum(b * b, axis=-1)[None, :]
    distance = jnp.maximum(norms - 2 * _dot(a, b.T), 0)
    scale = number
    if metric == 'r2' and swapped:
      scale = scatter(level, _dot(level * level, weights))
    elif metric == 'r2':
      own = pseudobulk.centred(reference, mask)
      scale = jnp.sum(own * own, axis=-1)[None, :]
      scale = jnp.where(scale == 0, jnp.nan, scale)
    distance, error = distance / scale, norms * unit_error / scale
  return jnp.where(broken, jnp.nan, distance), error


def _by_blocks(function: Callable[..., Array], *rows: Array) -> Array:
  """Maps over blocks of the references' rows; [predicted, reference].

  A block of references stays in the cache while the predictions pass by.

  Args:
    function: of blocks of rows; returns [predicted, block].
    *rows: [reference, ...].
  """
  number = rows[0].shape[0]
  blocks = -(-number // _BLOCK)

  def in_blocks(x):
    x = jnp.pad(x, ((0, blocks * _BLOCK - number), (0, 0)))
    return x.reshape(blocks, _BLOCK, x.shape[1])

  values = jax.lax.map(
    lambda block: function(*block), tuple(in_blocks(x) for x in rows)
  )
  values = jnp.moveaxis(values, 0, 1)
  return values.reshape(values.shape[0], -1)[:, :number]


def absolute_sums(predicted: Array, observed: Array) -> Array:
  """Sums |a - b| over genes, [predicted, observed].

  A block of genes of all observations stays in the cache while the predictions
  pass by; two loops, so that two processors have one each.
  """
  genes = predicted.shape[1]
  width = min(_GENES, genes)
  pad = -genes % width
  # Genes first: sums run along vectors of conditions.
  columns = jnp.pad(observed, ((0, 0), (0, pad))).T
  columns = columns.reshape(-1, width, len(observed))

  def compare(rows):
    rows = jnp.pad(rows, ((0, 0), (0, pad)))
    blocks = jnp.moveaxis(rows.reshape(len(rows), -1, width), 1, 0)

    def add(total, block):
      some, others = block
      more = jax.lax.map(
        lambda row: jnp.sum(jnp.abs(others - row[:, None]), axis=0), some
      )
      return total + more, None

    zeros = jnp.zeros((len(rows), len(observed)), predicted.dtype)
    return jax.lax.scan(add, zeros, (blocks, columns))[0]

  halves = jnp.array_split(predicted, min(2, max(1, len(predicted))))
  return jnp.concatenate([compare(rows) for rows in halves])


def _absolute(
  predicted: Array, reference: Array, mask: Array | None
) -> tuple[Array, Array]:
  """Mean absolute differences, for which there is no product."""

  def compare(others, *masks):
    error = jnp.abs(predicted[:, None, :] - others[None, :, :])
    for counted in masks:
      error = jnp.where(counted[None, :, :], error, 0)
    return jnp.sum(error, axis=-1)

  if mask is None or len(mask) == 1:
    # The same genes for all pairs.
    number = reference.shape[1]
    if mask is not None:
      number = jnp.sum(mask)
      predicted, reference = (
        jnp.where(mask, x, 0) for x in (predicted, reference)
      )
    distance = absolute_sums(predicted, reference) / number
  else:
    mask = jnp.broadcast_to(mask, reference.shape)
    distance = _by_blocks(compare, reference, mask)
    distance = distance / pseudobulk.gene_count(reference, mask).T
  return distance, distance * _unit_error(distance.dtype)


def _few_genes(
  predicted: Array,
  reference: Array,
  genes: OwnGenes,
  metric: str,
  swapped: bool,
) -> tuple[Array, Array]:
  """Distances on the few genes that each reference brings, by gathering."""
  columns = predicted.T

  def compare(row, index, counted):
    others = columns[index].T
    row, counted = row[None, :], counted[None, :]
    if metric == 'r2':
      return 1 - pseudobulk.r2(others, row, mask=counted, swapped=swapped)
    if metric not in ('cosine', 'pearson'):
      measure = pseudobulk.mae if metric == 'mae' else pseudobulk.mse
      return measure(others, row, mask=counted)
    units = []
    for x in (others, row):
      kept = jnp.broadcast_to(counted, x.shape)
      x = pseudobulk.centred(x, kept) if metric == 'pearson' else x
      units.append(pseudobulk.unit(x, kept))
    return jnp.sum(jnp.square(units[0] - units[1]), axis=-1) / 2

  distance = _by_blocks(
    jax.vmap(compare, out_axes=1),
    jnp.take_along_axis(reference, genes.index, axis=1),
    genes.index,
    genes.counted,
  )
  return distance, jnp.abs(distance) * _unit_error(distance.dtype)


def _distances(
  predicted: Array,
  reference: Array,
  mask: Array | OwnGenes | None,
  metric: str,
  swapped: bool,
) -> tuple[Array, Array]:
  """Checks the arguments; returns distances and their errors."""
  registry.check_choice('metric', metric, METRICS)
  predicted, reference = jnp.asarray(predicted), jnp.asarray(reference)
  shapes = predicted.shape, reference.shape
  if any(len(s) != 2 for s in shapes) or shapes[0][1] != shapes[1][1]:
    raise ValueError(
      'predicted and reference must be [conditions, genes] with the same '
      f'genes; shapes: {shapes[0]}, {shapes[1]}'
    )
  few = isinstance(mask, OwnGenes)
  if few and mask.index.shape[0] != shapes[1][0]:
    raise ValueError(
      f'the genes of {mask.index.shape[0]} conditions were given for the '
      f'{shapes[1][0]} of the reference'
    )
  if mask is not None and not few:
    mask = jnp.asarray(mask)
    if mask.dtype != bool or mask.shape not in (shapes[1], shapes[1][1:]):
      raise ValueError(
        f'mask must be boolean, {shapes[1][1:]} or {shapes[1]}; it is '
        f'{mask.dtype} {mask.shape}'
      )
  dtype = pseudobulk.wide(predicted, reference)
  predicted, reference = predicted.astype(dtype), reference.astype(dtype)
  if few:
    return _few_genes(predicted, reference, mask, metric, swapped)
  if metric == 'mae':
    return _absolute(
      predicted, reference, mask if mask is None else jnp.atleast_2d(mask)
    )
  if mask is not None and mask.ndim == 2:
    return _own_genes(predicted, reference, mask, metric, swapped)
  return _same_genes(predicted, reference, mask, metric, swapped)


@functools.partial(jax.jit, static_argnames=('metric', 'swapped'))
def pairwise(
  predicted: Array,
  reference: Array,
  *,
  metric: str,
  mask: Array | OwnGenes | None = None,
  swapped: bool = False,
) -> Array:
  """Compares every prediction with every reference.

  Args:
    predicted: [predicted, genes].
    reference: [reference, genes].
    metric: one of METRICS, static; each as the function of that name in
      pseudobulk.
    mask: bool [genes], or [reference, genes] for the genes that each reference
      is compared on, or the same by `own_genes` where they are few.
    swapped: for 'r2', see `pseudobulk.r2`.

  Returns:
    [predicted, reference]. Distances of rows that are equal, or nearly, are
    exact to the rounding of the squares they are made of only; take the
    functions of pseudobulk for the value of a matched pair.

  Raises:
    ValueError: when the metric is unknown or a shape does not fit.
  """
  distance, _ = _distances(predicted, reference, mask, metric, swapped)
  if metric == 'rmse':
    return jnp.sqrt(distance)
  if metric in ('cosine', 'pearson'):
    return 1 - jnp.minimum(distance, 2)
  return 1 - distance if metric == 'r2' else distance


# ----------------------------------------------------------------------------
# Ranks.


def _count(
  matrix: Array,
  direction: str,
  groups: Array | None,
  transposed: bool,
  tolerance: Array | float,
) -> tuple[Array, Array, Array]:
  """Counts the competitors that are closer, as close, and all, [conditions]."""
  registry.check_choice('direction', direction, registry.DIRECTIONS)
  matrix = jnp.asarray(matrix)
  if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
    raise ValueError(
      'ranks need a square matrix, prediction i and reference i of the same '
      f'condition; its shape is {matrix.shape}'
    )
  number = matrix.shape[0]
  if groups is not None and jnp.shape(groups) != (number,):
    raise ValueError(
      f'groups must be [{number}], one for each condition; its shape is '
      f'{jnp.shape(groups)}'
    )
  tolerance = jnp.where(jnp.isfinite(matrix), tolerance, 0)
  if transposed:
    matrix, tolerance = matrix.T, tolerance.T
  if direction == 'higher':
    matrix = -matrix
  own = jnp.diagonal(matrix)[None, :]
  within = tolerance + jnp.diagonal(tolerance)[None, :]
  unknown = jnp.isnan(matrix)
  own_unknown = jnp.isnan(own)
  tied = (matrix == own) | (jnp.abs(matrix - own) <= within)
  closer = (matrix < own) & ~tied
  tied |= unknown & own_unknown
  closer |= ~unknown & own_unknown
  others = ~jnp.eye(number, dtype=bool)
  if groups is not None:
    groups = jnp.asarray(groups)
    others &= groups[:, None] == groups[None, :]
  return tuple(
    jnp.sum(others & which, axis=0) for which in (closer, tied, others)
  )


@functools.partial(
  jax.jit, static_argnames=('direction', 'denominator', 'transposed', 'ties')
)
def rank(
  matrix: Array,
  *,
  direction: str,
  groups: Array | None = None,
  denominator: str = 'n',
  transposed: bool = False,
  ties: str = 'mid',
  tolerance: Array | float = 0.0,
) -> Array:
  """Ranks each condition's own prediction among those of its group.

  Args:
    matrix: [conditions, conditions], predictions in rows, references in
      columns, the same conditions in the same order.
    direction: 'lower' for distances, 'higher' for similarities.
    groups: int [conditions]; only conditions of the same group compete.
    denominator: 'n' as in PerturBench's first release and published tables, or
      'n-1' as in its paper (equation 2) and later code.
    transposed: False orders predictions by closeness to one reference. True
      orders references by closeness to one prediction.
    ties: 'mid' counts half of them, 'optimistic' none, 'pessimistic' all.
    tolerance: scalar or [conditions, conditions], how far each entry may be
      from its exact value; entries that could be equal tie.

  Returns:
    [conditions], 0 best. A condition alone in its group has rank 0 with
    denominator 'n' and NaN with 'n-1': there is nothing to tell it from.

  Raises:
    ValueError: when an option is unknown or a shape does not fit.
  """
  registry.check_choice('denominator', denominator, DENOMINATORS)
  registry.check_choice('ties', ties, TIES)
  closer, tied, others = _count(
    matrix, direction, groups, transposed, tolerance
  )
  place = closer + TIES[ties] * tied
  return place / (others + 1 if denominator == 'n' else others)


@functools.partial(jax.jit, static_argnames='transposed')
def num_ties(
  matrix: Array,
  *,
  groups: Array | None = None,
  transposed: bool = False,
  tolerance: Array | float = 0.0,
) -> Array:
  """Counts the competitors as close as the own prediction, int [conditions].

  Arguments as in `rank`. Report it beside a rank: where it is not 0, the ties
  rule had a part in the number.
  """
  return _count(matrix, 'lower', groups, transposed, tolerance)[1]


@functools.partial(
  jax.jit,
  static_argnames=('metric', 'swapped', 'denominator', 'transposed', 'ties'),
)
def perturbation_rank(
  predicted: Array,
  observed: Array,
  *,
  metric: str,
  groups: Array | None = None,
  mask: Array | OwnGenes | None = None,
  swapped: bool = False,
  denominator: str = 'n-1',
  transposed: bool = False,
  ties: str = 'mid',
) -> Array:
  """Ranks predictions by a metric: `pairwise` and `rank` in one.

  The rounding error of the distances is known here and serves as the
  tolerance of ties.

  Args:
    predicted: [conditions, genes].
    observed: [conditions, genes], the same conditions.
    metric: one of METRICS, static.
    groups: see `rank`, and so are the options that are not named here.
    mask: as in `pairwise`; one row for each observed condition.
    swapped: for 'r2', see `pseudobulk.r2`.
    denominator: see `rank`.
    transposed: see `rank`; takes no mask of [conditions, genes].
    ties: see `rank`.

  Returns:
    [conditions].
  """
  own = isinstance(mask, OwnGenes) or (mask is not None and np.ndim(mask) == 2)
  if transposed and own:
    raise ValueError(
      'a transposed rank compares one prediction with many references and '
      'needs one mask for all of them, [genes]'
    )
  distance, error = _distances(predicted, observed, mask, metric, swapped)
  return rank(
    distance,
    direction='lower',
    groups=groups,
    denominator=denominator,
    transposed=transposed,
    ties=ties,
    tolerance=error,
  )


for _name in METRICS:
  registry.metric(
    name=f'{_name}_rank',
    best=0.0,
    chance=0.5,
    direction='lower',
    reference=(
      'PerturBench (arXiv:2408.10609), equation 2, with mid-ranks; Systema '
      'and others call 1 - rank of a distance centroid accuracy'
    ),
  )(functools.partial(perturbation_rank, metric=_name))
