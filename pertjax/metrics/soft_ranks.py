"""Retrieval with a useful gradient: ranks.py with sigmoids for its steps.

See soft.py for what a temperature is relative to, and for what is undefined.
The distances are those of ranks.py but for an `eps` that keeps their gradients
finite where a vector is zero or a pair is equal.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from pertjax.metrics import pseudobulk, ranks, registry, soft
from pertjax.types import Array

# Least spread of distances that a temperature is relative to, as a share of
# their mean: predictions that are all but equal would otherwise have gradients
# as large as rounding is small.
_LEAST_SPREAD = 1e-3

# Rounding of a distance made by products, in units of the last place of the
# squares that it is a sum of; see ranks.py.
_UNITS = 4.0


def _squared(a: Array, b: Array) -> tuple[Array, Array]:
  """Returns |a_i - b_j|^2 and its rounding error, [predicted, reference]."""
  squared = ranks.pairwise(a, b, metric='mse') * a.shape[1]
  centre = jnp.mean(b, axis=0, keepdims=True)
  norms = [jnp.sum(jnp.square(x - centre), axis=-1) for x in (a, b)]
  unit = _UNITS * float(jnp.finfo(a.dtype).eps)
  return squared, unit * (norms[0][:, None] + norms[1][None, :])


def _own_genes(
  predicted: Array, observed: Array, mask: Array, metric: str, eps: float
) -> tuple[Array, Array]:
  """Distances on the genes that each reference brings, one after the other."""

  def compare(row):
    reference, counted = row
    reference = jnp.broadcast_to(reference[None, :], predicted.shape)
    counted = jnp.broadcast_to(counted[None, :], predicted.shape)
    if metric in ('cosine', 'pearson'):
      angle = soft.cosine if metric == 'cosine' else soft.pearson
      return 1 - angle(predicted, reference, mask=counted, eps=eps)
    if metric == 'mae':
      return pseudobulk.mae(predicted, reference, mask=counted)
    squared = pseudobulk.mse(predicted, reference, mask=counted)
    if metric == 'r2':
      level = soft.around_mean(reference, counted)
      number = pseudobulk.gene_count(reference, counted)[..., 0]
      spread = jnp.sum(jnp.square(level), axis=-1) / jnp.maximum(number, 1)
      return squared / (spread + eps**2)
    return jnp.sqrt(squared + eps**2) if metric == 'rmse' else squared

  # Made again for the gradient: all references at once would keep
  # [reference, predicted, genes].
  distance = jax.lax.map(jax.checkpoint(compare), (observed, mask)).T
  unit = _UNITS * float(jnp.finfo(distance.dtype).eps)
  return distance, unit * jnp.abs(distance)


def distances(
  predicted: Array,
  observed: Array,
  *,
  metric: str,
  mask: Array | None = None,
  eps: float = soft.EPS,
) -> tuple[Array, Array]:
  """Returns smooth distances of all pairs and their rounding errors.

  They order as the metrics of `ranks.METRICS` do, but for what `eps` adds:
  mse, mae; rmse = sqrt(mse + eps^2); r2 = mse / (spread + eps^2); 1 - `cosine`
  and 1 - `pearson` of this module.

  Args:
    predicted: [predicted, genes].
    observed: [reference, genes].
    metric: one of ranks.METRICS.
    mask: bool [genes], or [reference, genes].
    eps: above 0.

  Returns:
    two of [predicted, reference].

  Raises:
    ValueError: when the metric is unknown or a shape does not fit.
  """
  registry.check_choice('metric', metric, ranks.METRICS)
  predicted, observed = jnp.asarray(predicted), jnp.asarray(observed)
  dtype = pseudobulk.wide(predicted, observed)
  a, b = predicted.astype(dtype), observed.astype(dtype)
  if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
    raise ValueError(
      'predicted and observed must be [conditions, genes] with the same '
      f'genes; shapes: {a.shape}, {b.shape}'
    )
  if mask is not None:
    mask = jnp.asarray(mask)
    if mask.dtype != bool or mask.shape not in (b.shape, b.shape[1:]):
      raise ValueError(
        f'mask must be boolean, {b.shape[1:]} or {b.shape}; it is '
        f'{mask.dtype} {mask.shape}'
      )
    if mask.ndim == 2:
      return _own_genes(a, b, mask, metric, eps)
    a, b = (jnp.where(mask[None, :], x, 0) for x in (a, b))
  number = jnp.asarray(a.shape[1], dtype)
  if mask is not None:
    number = jnp.sum(mask, dtype=dtype)
  some = jnp.maximum(number, 1)
  rows = None if mask is None else jnp.broadcast_to(mask[None, :], b.shape)
  if metric == 'mae':
    distance = ranks.pairwise(a, b, metric='mae') * a.shape[1] / some
    error = distance * _UNITS * float(jnp.finfo(dtype).eps)
  elif metric in ('cosine', 'pearson'):
    if metric == 'pearson':
      wide = None if rows is None else jnp.broadcast_to(mask[None, :], a.shape)
      a, b = soft.around_mean(a, wide), soft.around_mean(b, rows)
    # 1 - u.v, by a difference that keeps its digits where u is near v.
    distance, error = _squared(
      soft.shortened(a, some, eps), soft.shortened(b, some, eps)
    )
    lost = [
      some * eps**2 / (jnp.sum(jnp.square(x), axis=-1) + some * eps**2)
      for x in (a, b)
    ]
    distance = (distance + lost[0][:, None] + lost[1][None, :]) / 2
    error = error / 2
  else:
    distance, error = _squared(a, b)
    distance, error = distance / some, error / some
    if metric == 'r2':
      spread = jnp.sum(jnp.square(soft.around_mean(b, rows)), axis=-1) / some
      scale = (spread + eps**2)[None, :]
      distance, error = distance / scale, error / scale
    if metric == 'rmse':
      distance = jnp.sqrt(distance + eps**2)
      error = error / (2 * distance)
  return soft.answer(distance, number > 0), error


class Competition(NamedTuple):
  """How much closer each competitor is than a condition's own prediction.

  Attributes:
    lead: [conditions, conditions]; own distance minus the competitor's, of the
      condition in the column; 0, with a gradient, where rounding is all of it.
    rivals: bool [conditions, conditions]; who competes.
    scale: [conditions]; spread of the distances, without a gradient.
  """

  lead: Array
  rivals: Array
  scale: Array


def competition(
  distance: Array,
  tolerance: Array,
  *,
  groups: Array | None = None,
  transposed: bool = False,
) -> Competition:
  """Compares distances with the own one; arguments as in `ranks.rank`."""
  if transposed:
    distance, tolerance = distance.T, tolerance.T
  number = distance.shape[0]
  together = jnp.ones((number, number), bool)
  if groups is not None:
    groups = jnp.asarray(groups)
    together = groups[:, None] == groups[None, :]
  lead = jnp.diagonal(distance)[None, :] - distance
  within = tolerance + jnp.diagonal(tolerance)[None, :]
  still = jax.lax.stop_gradient(lead)
  lead = jnp.where(jnp.abs(still) <= within, lead - still, lead)
  fixed = jax.lax.stop_gradient(distance)
  size = jnp.sum(together, axis=0)
  mean = jnp.sum(jnp.where(together, fixed, 0), axis=0) / size
  around = jnp.where(together, fixed - mean[None, :], 0)
  scale = jnp.sqrt(jnp.sum(jnp.square(around), axis=0) / size)
  scale = jnp.maximum(scale, _LEAST_SPREAD * jnp.abs(mean))
  rivals = together & ~jnp.eye(number, dtype=bool)
  return Competition(lead, rivals, jnp.where(scale == 0, 1, scale))


def soft_rank(
  predicted: Array,
  observed: Array,
  *,
  metric: str,
  temperature: Array | float | None,
  groups: Array | None = None,
  mask: Array | None = None,
  denominator: str = 'n-1',
  transposed: bool = False,
  eps: float = soft.EPS,
  scale: Array | None = None,
) -> Array:
  """Ranks predictions with sigmoids for steps: a soft perturbation rank.

  sum_i sigmoid((d_own - d_i) / (temperature scale)) over competitors i, by
  their number: 0 best, 0.5 chance. 1 minus it, transposed, is a soft
  perturbation discrimination score (PDS). A tie counts half, as a mid-rank.

  Args:
    predicted: [conditions, genes].
    observed: [conditions, genes].
    metric: one of ranks.METRICS.
    temperature: a share of `scale`; None or 0 gives `ranks.perturbation_rank`.
    groups: int [conditions]; only conditions of the same group compete.
    mask: bool [genes], or [conditions, genes] for the genes that each observed
      condition is compared on.
    denominator: 'n-1' or 'n', see `ranks.rank`.
    transposed: see `ranks.rank`; takes no mask of [conditions, genes].
    eps: see `distances`.
    scale: [conditions], what the temperature is relative to. Without it, the
      standard deviation of the distances of a condition's group, at least a
      thousandth of their mean; no gradient flows through it.

  Returns:
    [conditions]; NaN for a condition alone in its group with 'n-1'.

  Raises:
    ValueError: when an option is unknown or a shape does not fit.
  """
  if soft.is_hard(temperature):
    return ranks.perturbation_rank(
      predicted,
      observed,
      metric=metric,
      groups=groups,
      mask=mask,
      denominator=denominator,
      transposed=transposed,
    )
  registry.check_choice('denominator', denominator, ranks.DENOMINATORS)
  found = _compete(predicted, observed, metric, groups, mask, transposed, eps)
  scale = found.scale if scale is None else scale
  step = jax.nn.sigmoid(found.lead / (temperature * scale)[None, :])
  place = jnp.sum(jnp.where(found.rivals, step, 0), axis=0)
  others = jnp.sum(found.rivals, axis=0)
  if denominator == 'n':
    return place / (others + 1)
  return soft.answer(place / jnp.maximum(others, 1), others > 0)


def _compete(predicted, observed, metric, groups, mask, transposed, eps):
  """Compares all pairs; see soft_rank."""
  if jnp.shape(predicted) != jnp.shape(observed):
    raise ValueError(
      'ranks need prediction i and observation i of the same condition; '
      f'shapes: {jnp.shape(predicted)}, {jnp.shape(observed)}'
    )
  if transposed and mask is not None and jnp.ndim(mask) == 2:
    raise ValueError(
      'a transposed rank compares one prediction with many references and '
      'needs one mask for all of them, [genes]'
    )
  distance, error = distances(
    predicted, observed, metric=metric, mask=mask, eps=eps
  )
  return competition(distance, error, groups=groups, transposed=transposed)


def retrieval_nce(
  predicted: Array,
  observed: Array,
  *,
  metric: str,
  temperature: Array | float,
  groups: Array | None = None,
  mask: Array | None = None,
  transposed: bool = False,
  eps: float = soft.EPS,
  scale: Array | None = None,
) -> Array:
  """Returns the cross entropy of choosing the own prediction among all.

  log sum_i exp((d_own - d_i) / (temperature scale)) over the group, the own
  among it (InfoNCE, van den Oord et al. 2018, arXiv:1807.03748, equation 4).
  0 best, log n for equal predictions. Its gradient does not fade where the
  rank is hopeless, as that of a sigmoid does. It has no hard value.

  Arguments as in `soft_rank`; temperature above 0.

  Returns:
    [conditions]; NaN for a condition alone in its group.

  Raises:
    ValueError: as `soft_rank`, and when the temperature is None or 0.
  """
  if soft.is_hard(temperature):
    raise ValueError('retrieval_nce needs a temperature above 0')
  found = _compete(predicted, observed, metric, groups, mask, transposed, eps)
  scale = found.scale if scale is None else scale
  logits = found.lead / (temperature * scale)[None, :]
  own = jnp.eye(logits.shape[0], dtype=bool)
  logits = jnp.where(found.rivals, logits, jnp.where(own, 0, -jnp.inf))
  value = jax.nn.logsumexp(logits, axis=0)
  return soft.answer(value, jnp.any(found.rivals, axis=0))
