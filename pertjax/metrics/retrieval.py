"""Discrimination scores: whether a predicted change finds its own condition.

For every condition the observed changes of all conditions are ordered by their
distance from its predicted change; the score is 1 - place / number, 1 where its
own observed change is the closest. Other than in `ranks`, references are
ordered for one prediction, as in cell-eval 0.8.2 (`discrimination_score_*`,
[1/P, 1]) and cell-eval2 0.20 (`pds_*`, [0, 1]).

What a condition's own gene does must not tell: `own` drops one gene for each
prediction (cell-eval), `mask` the genes of all of them (cell-eval2: whoever
moves the other targets of a panel gains by the first rule). A dropped gene is
taken from sums over all genes, so that no distance is computed again.

Ties. `ties='mid'` counts half of the conditions that are as close, so that a
prediction without information has the score 1/2 (with denominator 'n-1');
'tool' takes them in the order of the rows: cell-eval sorts conditions by name,
and a prediction of no change at all has a score by its place in the alphabet.
Distances that differ by less than their rounding are ties in both.

All pairs go by matrix products; 'l1', for which there is none, by sums over
genes.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pertjax.metrics import pseudobulk, ranks, registry
from pertjax.types import Array

METRICS = ('l1', 'l2', 'cosine')
TIES = ('mid', 'tool')

# Units in the last place by which a computed sum may be off, of the size of
# what was added.
_UNITS = 4.0

# Of float64 on the host: conditions from which 'l1' goes by `settled`, by how
# much more its float32 sums may be off, and pairs that are summed at once.
_MANY, _BLOCK_ERROR, _PAIRS = 300, 16.0, 4096

_dot = functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)


class Distances(NamedTuple):
  """Distances of every prediction from every observation.

  Attributes:
    value: [predicted, observed].
    error: how far rounding may have moved each.
  """

  value: Array
  error: Array


def _own_values(predicted, observed, own) -> tuple[Array, Array]:
  """Returns the dropped gene of both sides, [n, 1] and [n, m]; 0 for none."""
  at = jnp.maximum(own, 0)
  some = (own >= 0)[:, None]
  a = jnp.take_along_axis(predicted, at[:, None], axis=1)
  b = observed.T[at]
  return jnp.where(some, a, 0), jnp.where(some, b, 0)


@functools.partial(jax.jit, static_argnames='metric')
def distances(
  predicted: Array,
  observed: Array,
  *,
  metric: str,
  mask: Array | None = None,
  own: Array | None = None,
) -> Distances:
  """Compares every predicted change with every observed one.

  2,000 x 2,000 conditions of 5,000 genes in float64 take about 1.5 s of
  processor time as 'l2' or 'cosine'; 'l1' takes as many operations without a
  matrix product, 13 s (6 s in float32, and by `settled`), shared by two
  processors.

  Args:
    predicted: [predicted, genes].
    observed: [observed, genes].
    metric: one of METRICS, static. 'cosine' is 1 - cosine, and 1 where one of
      the two is 0 everywhere.
    mask: bool [genes], those that count; what stands in others is not read.
    own: int [predicted], one gene that does not count for a prediction,
      against all observations; -1 for none.

  Returns:
    Distances; for 'l2' their squares, which have the same order.

  Raises:
    ValueError: for an unknown metric or shapes that do not fit.
  """
  registry.check_choice('metric', metric, METRICS)
  dtype = pseudobulk.wide(predicted, observed)
  a, b = (jnp.asarray(x).astype(dtype) for x in (predicted, observed))
  if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
    raise ValueError(
      'predicted and observed must be [conditions, genes] of the same genes; '
      f'shapes: {a.shape}, {b.shape}'
    )
  if mask is not None:
    a, b = (jnp.where(mask[None, :], x, 0) for x in (a, b))
  unit = _UNITS * float(jnp.finfo(dtype).eps)
  dropped = None if own is None else _own_values(a, b, own)
  if metric == 'l1':
    whole = ranks.absolute_sums(a, b)
    value = whole
    if dropped is not None:
      value = jnp.maximum(whole - jnp.abs(dropped[0] - dropped[1]), 0)
    return Distances(value, unit * whole)
  squares_a, squares_b = (jnp.sum(x * x, axis=-1) for x in (a, b))
  whole_a, whole_b = squares_a[:, None], squares_b[None, :]
  norm_a, norm_b, product = whole_a, whole_b, _dot(a, b.T)
  if dropped is not None:
    one, other = dropped
    norm_a, norm_b = norm_a - one * one, norm_b - other * other
    product = product - one * other
  norm_a, norm_b = (
    _nothing_left(norm_a, whole_a),
    _nothing_left(norm_b, whole_b),
  )
  if metric == 'l2':
    value = jnp.maximum(norm_a + norm_b - 2 * product, 0)
    return Distances(value, unit * (whole_a + whole_b))
  scale = jnp.sqrt(norm_a * norm_b)
  some = scale > 0
  cosine = jnp.where(some, product / jnp.where(some, scale, 1), 0)
  cosine = jnp.where(jnp.isnan(norm_a + norm_b), jnp.nan, cosine)
  # Of a sum from which most was taken away, more than the last digits are lost.
  lost = [
    jnp.where(norm > 0, whole / jnp.where(norm > 0, norm, 1), 0)
    for norm, whole in ((norm_a, whole_a), (norm_b, whole_b))
  ]
  return Distances(1 - jnp.clip(cosine, -1, 1), unit * (lost[0] + lost[1]) / 2)


def _nothing_left(rest: Array, whole: Array) -> Array:
  """Sets what rounding leaves of a sum whose only part was dropped to 0."""
  tiny = _UNITS * jnp.finfo(rest.dtype).eps * whole
  return jnp.where(rest <= tiny, 0, rest)


def place(found: Distances, *, ties: str = 'mid') -> Array:
  """Returns how many observations are closer than the own one, [conditions].

  Args:
    found: [conditions, conditions], predictions in rows.
    ties: one of TIES. A NaN distance comes last and ties with NaN.

  Raises:
    ValueError: for unknown ties or distances that are not square.
  """
  registry.check_choice('ties', ties, TIES)
  rank = ranks.rank(
    found.value,
    direction='lower',
    transposed=True,
    ties='mid' if ties == 'mid' else 'optimistic',
    tolerance=found.error,
  )
  # Whole and half numbers, without what the division left.
  closer = jnp.round(2 * found.value.shape[0] * rank) / 2
  return closer if ties == 'mid' else closer + _tied_before(found)


def _tied_before(found: Distances) -> Array:
  """Counts the ties in the rows before the own one."""
  value, error = found
  own, margin = jnp.diagonal(value)[:, None], jnp.diagonal(error)[:, None]
  tied = (value == own) | (jnp.abs(value - own) <= error + margin)
  tied |= jnp.isnan(value) & jnp.isnan(own)
  index = jnp.arange(len(value))
  before = index[None, :] < index[:, None]
  return jnp.sum(tied & before, axis=1).astype(value.dtype)


def settled(
  predicted: np.ndarray,
  observed: np.ndarray,
  *,
  mask: np.ndarray | None = None,
  own: np.ndarray | None = None,
) -> Distances:
  """Returns 'l1' distances in float64 as far as places need them.

  All pairs are compared in float32, at twice the speed; those that could
  change sides with the distance of the own pair, one in thousands, are summed
  again in float64. Not for jit.

  Args:
    predicted: float64 [conditions, genes].
    observed: float64 [conditions, genes].
    mask: see `distances`.
    own: see `distances`.
  """
  if mask is not None:
    predicted, observed = (
      np.where(mask[None], x, 0) for x in (predicted, observed)
    )
  rough = distances(
    *(x.astype(np.float32) for x in (predicted, observed)),
    metric='l1',
    own=own,
  )
  value = np.asarray(rough.value, np.float64)
  # Rounding grows with the number of terms; the bound of one sum is for few.
  margin = _BLOCK_ERROR * np.asarray(rough.error, np.float64)
  number = np.arange(len(value))

  def exact(rows, columns):
    error = np.abs(predicted[rows] - observed[columns])
    whole = error.sum(1)
    if own is None:
      return whole
    at = np.maximum(own[rows], 0)
    gone = np.where(own[rows] >= 0, error[np.arange(len(rows)), at], 0)
    return np.maximum(whole - gone, 0)

  value[number, number] = exact(number, number)
  near = np.abs(value - np.diagonal(value)[:, None]) <= margin
  np.fill_diagonal(near, False)
  rows, columns = np.nonzero(near)
  if len(rows) > near.size // 8:
    # Equal predictions or observations: nothing is gained.
    return distances(predicted, observed, metric='l1', own=own)
  for start in range(0, len(rows), _PAIRS):
    part = slice(start, start + _PAIRS)
    value[rows[part], columns[part]] = exact(rows[part], columns[part])
  unit = _UNITS * np.finfo(np.float64).eps
  return Distances(jnp.asarray(value), jnp.asarray(unit * value))


@functools.partial(jax.jit, static_argnames=('ties', 'denominator'))
def _score(found: Distances, *, ties: str, denominator: str) -> Array:
  number = found.value.shape[0] - (denominator == 'n-1')
  if not number:
    return jnp.full(found.value.shape[0], jnp.nan, found.value.dtype)
  # XLA multiplies by 1 / number, which leaves -1e-17 of a last place.
  return jnp.maximum(1 - place(found, ties=ties) / number, 0)


def discrimination(
  predicted: Array,
  observed: Array,
  *,
  metric: str,
  mask: Array | None = None,
  own: Array | None = None,
  ties: str = 'mid',
  denominator: str = 'n-1',
) -> Array:
  """Returns 1 - place / number of each condition; best 1.

  cell-eval 0.8.2 has denominator 'n', `own` and ties 'tool'; its lowest value
  is 1/P and a prediction without information has (P + 1) / (2 P). cell-eval2
  0.20 has 'n-1' and `mask`: from 0, and 1/2 without information.

  Args:
    predicted: [conditions, genes] changes from control.
    observed: the same of the observed cells.
    metric: see `distances`, and so for the next two.
    mask: genes.
    own: one gene of each condition.
    ties: see `place`.
    denominator: 'n' or 'n-1', static.

  Returns:
    [conditions]; NaN for one condition alone with 'n-1'.

  Raises:
    ValueError: for unknown names or shapes that do not fit.
  """
  registry.check_choice('denominator', denominator, ranks.DENOMINATORS)
  shape = jnp.shape(predicted)
  host = all(isinstance(x, np.ndarray) for x in (predicted, observed))
  wide = host and predicted.dtype == observed.dtype == np.float64
  if wide and metric == 'l1' and len(shape) == 2 and shape[0] >= _MANY:
    found = settled(predicted, observed, mask=mask, own=own)
  else:
    found = distances(predicted, observed, metric=metric, mask=mask, own=own)
  return _score(found, ties=ties, denominator=denominator)
