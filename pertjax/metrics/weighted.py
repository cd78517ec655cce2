"""Metrics with a weight for each gene, and scores against two controls.

The weights say which genes a condition moves, so that a prediction which is the
same for every condition no longer scores well (Mejia et al. 2025, "Diversity by
design"); the scores against controls say how far a metric can tell a replicate
from a mean, and where between them a model is (Miller et al. 2025; scPertEval).

[conditions, genes] in, [conditions] out; masks, NaN and types as in
`pseudobulk`. The hard formulas are here; `soft` makes losses of them.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from pertjax.metrics import pseudobulk, ranks, registry
from pertjax.types import Array

MEJIA = 'Mejia et al. 2025 (Diversity by design)'
MILLER = 'Miller et al. 2025 (CellSimBench)'
MISSING = ('dropped', 'lost')


# ----------------------------------------------------------------------------
# Weights.


@functools.partial(jax.jit, static_argnames='exponent')
def significance_weights(
  score: Array, *, mask: Array | None = None, exponent: float = 2.0
) -> Array:
  """Returns ((|t| - min) / (max - min))^exponent, [..., conditions, genes].

  t is the statistic of a condition's real cells against those of all other
  conditions (Mejia et al. 2025, exponent 2; scPertEval also has 1 and 4).

  Args:
    score: [..., conditions, genes] t; its sign is not read. A gene without one
      (NaN or infinite) weighs 0 and has no part in the extremes.
    mask: see `pseudobulk`; genes that do not count weigh 0.
    exponent: static.

  Returns:
    Values in [0, 1]. Where all |t| of a row are equal: 0 if they are 0, else 1.
  """
  score = jnp.asarray(score)
  strength = jnp.abs(score.astype(pseudobulk.wide(score)))
  counted = jnp.isfinite(strength)
  if mask is not None:
    counted &= jnp.broadcast_to(jnp.asarray(mask), strength.shape)
  bounds = {'axis': -1, 'keepdims': True, 'where': counted}
  low = jnp.min(strength, initial=jnp.inf, **bounds)
  high = jnp.max(strength, initial=-jnp.inf, **bounds)
  flat = high <= low
  share = (strength - low) / jnp.where(flat, 1, high - low)
  equal = jnp.where(high > 0, 1.0, 0.0)
  return jnp.where(counted, jnp.where(flat, equal, share) ** exponent, 0)


def shares(
  weights: Array, like: Array, mask: Array | None
) -> tuple[Array, Array]:
  """Divides weights by their sum over the counted genes.

  Args:
    weights: broadcasts to `like`, not negative.
    like: [..., conditions, genes].
    mask: see `pseudobulk`.

  Returns:
    [..., conditions, genes] that sum to 1, equal where the weights sum to 0
    (CellSimBench's rule), and bool [..., conditions], whether a gene counts.
  """
  ones = jnp.ones_like(like)
  kept = jnp.broadcast_to(weights, like.shape).astype(like.dtype)
  if mask is not None:
    ones, kept = (jnp.where(mask, x, 0) for x in (ones, kept))
  total = jnp.sum(kept, axis=-1, keepdims=True)
  kept = jnp.where(total == 0, ones, kept)
  number = jnp.sum(ones, axis=-1, keepdims=True)
  total = jnp.where(number > 0, jnp.sum(kept, axis=-1, keepdims=True), 1)
  return kept / total, number[..., 0] > 0


@registry.metric(
  name='wmse',
  best=0.0,
  direction='lower',
  needs=('predicted', 'observed', 'weights'),
  aliases=('weighted_mse',),
  reference=f'{MEJIA}; sum w (a - b)^2 / sum w',
)
@jax.jit
def wmse(
  predicted: Array,
  observed: Array,
  weights: Array,
  *,
  mask: Array | None = None,
) -> Array:
  """Returns sum w (a - b)^2 / sum w over genes.

  Args:
    predicted: [..., conditions, genes].
    observed: same shape.
    weights: same shape, as of `significance_weights`; equal where they sum to
      0.
    mask: see `pseudobulk`.

  Returns:
    [..., conditions]; NaN where no gene counts.
  """
  predicted, observed, mask = pseudobulk.aligned(predicted, observed, mask)
  share, defined = shares(weights, predicted, mask)
  squared = jnp.square(predicted - observed)
  squared = squared if mask is None else jnp.where(mask, squared, 0)
  return jnp.where(defined, jnp.sum(share * squared, axis=-1), jnp.nan)


@registry.metric(
  name='weighted_r2_delta',
  best=1.0,
  direction='higher',
  needs=('predicted', 'observed', 'control', 'weights'),
  reference=f'{MEJIA}; 1 - sum w (D - D^)^2 / sum w (D - Dw)^2',
)
@jax.jit
def weighted_r2_delta(
  predicted: Array,
  observed: Array,
  control: Array,
  weights: Array,
  *,
  mask: Array | None = None,
) -> Array:
  """Returns 1 - sum w (D - D^)^2 / sum w (D - Dw)^2, D the observed change.

  Dw is the weighted mean of D over genes. What `control` is decides which
  change: from control cells, or from the mean of all perturbed conditions.

  Args:
    predicted: [..., conditions, genes].
    observed: same shape.
    control: same shape, or one that broadcasts to it.
    weights: as in `wmse`.
    mask: see `pseudobulk`.

  Returns:
    [..., conditions], not above 1; NaN where no gene counts, and where the
    observed change is the same in all genes that weigh anything.
  """
  predicted, observed, mask = pseudobulk.aligned(predicted, observed, mask)
  change = observed - jnp.broadcast_to(control, predicted.shape)
  error = predicted - observed
  if mask is not None:
    change, error = (jnp.where(mask, x, 0) for x in (change, error))
  share, defined = shares(weights, predicted, mask)
  rest = change - jnp.sum(share * change, axis=-1, keepdims=True)
  # The mean may miss a constant by its last bit, which is no spread.
  level = jnp.sum(share * jnp.square(change), axis=-1)
  spread = jnp.sum(share * jnp.square(rest), axis=-1)
  least = jnp.square(4 * jnp.finfo(spread.dtype).eps) * level
  defined &= ~(spread <= least)
  residual = jnp.sum(share * jnp.square(error), axis=-1)
  value = 1 - residual / jnp.where(defined, spread, 1)
  return jnp.where(defined, value, jnp.nan)


@functools.partial(jax.jit, static_argnames=('ties', 'metric'))
def nir(
  predicted: Array,
  observed: Array,
  *,
  groups: Array | None = None,
  mask: Array | None = None,
  ties: str = 'pessimistic',
  metric: str = 'rmse',
) -> Array:
  """Returns how often a prediction is closest to its own truth.

  The fraction of other observed conditions q of the group with d(p^, p) <
  d(p^, q), CellSimBench's normalised inverse rank: 1 less the transposed
  `ranks.perturbation_rank`. 1 is best and 0.5 is chance.

  Args:
    predicted: [conditions, genes].
    observed: [conditions, genes].
    groups: int [conditions]; only conditions of the same group compete.
    mask: bool [genes].
    ties: 'pessimistic' counts a tie as lost, which is the tool's strict
      comparison; 'mid' as half.
    metric: 'rmse' is the tool's Euclidean distance; 'mae' makes its PDS.

  Returns:
    [conditions]; NaN for a condition alone in its group.
  """
  return 1 - ranks.perturbation_rank(
    predicted,
    observed,
    metric=metric,
    groups=groups,
    mask=mask,
    denominator='n-1',
    transposed=True,
    ties=ties,
  )


# ----------------------------------------------------------------------------
# Between two controls.


@functools.partial(jax.jit, static_argnames='direction')
def drf(
  score: Array,
  negative: Array,
  *,
  perfect: float,
  direction: str,
  epsilon: float = 1e-6,
) -> Array:
  """Returns clip((M - M_neg) / (M_perfect - M_neg + eps), -1, 1).

  The dynamic range fraction (Miller et al. 2025): of the way from the negative
  control to a perfect prediction, how much M covers. With M of the positive
  control, a duplicate of the data, it says what the metric can resolve; with M
  of a model, how good that is. For lower-is-better metrics both differences
  change their sign.

  Args:
    score: [conditions] M.
    negative: [conditions] M of the negative control: the mean of the dataset,
      or control cells where the change from that mean is measured.
    perfect: M of a perfect prediction.
    direction: 'higher' or 'lower', static.
    epsilon: added to the denominator.

  Returns:
    [conditions]; NaN where a value is not finite, or the negative control is
    better than perfect (scPertEval's rule).
  """
  registry.check_choice('direction', direction, registry.DIRECTIONS)
  score, negative = jnp.asarray(score), jnp.asarray(negative)
  sign = 1.0 if direction == 'higher' else -1.0
  gain, room = sign * (score - negative), sign * (perfect - negative)
  value = jnp.clip(gain / (room + epsilon), -1, 1)
  known = jnp.isfinite(score) & jnp.isfinite(negative) & (room >= 0)
  return jnp.where(known, value, jnp.nan)


@jax.jit
def calibrated(score: Array, negative: Array, positive: Array) -> Array:
  """Returns (M - M_neg) / (M_pos - M_neg): 0 the negative control, 1 the other.

  Not clipped. NaN where the two controls have the same value.
  """
  score, negative, positive = map(jnp.asarray, (score, negative, positive))
  room = positive - negative
  value = (score - negative) / jnp.where(room == 0, 1, room)
  return jnp.where(room == 0, jnp.nan, value)


@functools.partial(jax.jit, static_argnames=('direction', 'missing'))
def bds(
  positive: Array,
  negative: Array,
  *,
  direction: str,
  missing: str = 'dropped',
) -> Array:
  """Returns the share of conditions whose positive control strictly wins.

  scPertEval's bound discrimination score. 1 is best, 0.5 is what two controls
  of the same quality have, and ties count as lost.

  Args:
    positive: [..., conditions] M of the positive control.
    negative: [..., conditions] M of the negative control.
    direction: of M, 'higher' or 'lower', static.
    missing: 'dropped' leaves out conditions where one value is NaN; 'lost'
      counts them as the tool does, static.

  Returns:
    [...]; NaN where nothing is left.
  """
  registry.check_choice('direction', direction, registry.DIRECTIONS)
  registry.check_choice('missing', missing, MISSING)
  positive, negative = jnp.asarray(positive), jnp.asarray(negative)
  wins = positive > negative if direction == 'higher' else positive < negative
  known = ~(jnp.isnan(positive) | jnp.isnan(negative))
  if missing == 'lost':
    known = jnp.ones_like(known)
  return jnp.sum(wins & known, axis=-1) / jnp.sum(known, axis=-1)


@jax.jit
def interpolation_weights(p_adjusted: Array) -> Array:
  """Returns alpha = 1 - p_adj of each gene; 0 for a gene without a test."""
  p_adjusted = jnp.asarray(p_adjusted)
  return jnp.where(jnp.isnan(p_adjusted), 0, 1 - p_adjusted)


@jax.jit
def interpolated_duplicate(
  duplicate: Array, mean: Array, p_adjusted: Array
) -> Array:
  """Returns alpha duplicate + (1 - alpha) mean, CellSimBench's upper bound.

  A technical duplicate is as noisy as the data. Where its test against all
  other perturbed cells finds nothing, the mean of the dataset is the better
  guess; alpha moves between them gene by gene.

  Args:
    duplicate: [conditions, genes] means of the cells that were held out.
    mean: the same shape, or [genes]: the mean of the perturbed conditions.
    p_adjusted: [conditions, genes] of the duplicate's cells against the rest.
  """
  alpha = interpolation_weights(p_adjusted)
  mean = jnp.broadcast_to(mean, jnp.shape(duplicate))
  return mean + alpha * (jnp.asarray(duplicate) - mean)
