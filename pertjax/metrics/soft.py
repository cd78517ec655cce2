"""Metrics of rows that have a useful gradient; soft_ranks.py has the retrieval.

[conditions, genes] in, [conditions] out, as in pseudobulk.py, and the same
numbers in the limit: with a temperature (or an `eps`) of None or 0 each
function calls the hard metric. With one above 0 the steps of the hard metric
become sigmoids, and what was undefined for a reason of scale alone, the angle
of a zero vector, becomes a smooth function.

  * Temperatures have no unit. They are multiplied by a spread of the very
    numbers that are compared, through which no gradient flows, so that neither
    the scale of expression nor the number of genes changes their meaning.
  * What stays undefined is NaN as in the hard metrics: an empty mask, a rank
    without a competitor. Its gradient is 0, not NaN, so that a caller may leave
    the condition out of a mean and differentiate the rest.

soft_losses.py has the forms in which they can be trained on.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from pertjax.metrics import pseudobulk, weighted
from pertjax.types import Array

# Root mean square over genes below which a row counts as having no direction;
# log-normalised expression, where an effect that matters is above 1e-2.
EPS = 1e-3


def is_hard(temperature: Array | float | None) -> bool:
  """Returns whether a temperature (or eps) asks for the hard metric.

  A traced one never does, and must be above 0.

  Raises:
    ValueError: when it is negative.
  """
  if temperature is None:
    return True
  if isinstance(temperature, jax.core.Tracer):
    return False
  if not temperature >= 0:
    raise ValueError(f'a temperature must be at least 0, not {temperature}')
  return bool(temperature == 0)


def answer(value: Array, defined: Array) -> Array:
  """NaN where there is no answer, without a gradient there."""
  return jnp.where(defined, value, jnp.nan)


def counted_rows(x: Array, mask: Array | None) -> tuple[Array, Array]:
  """Returns rows that are 0 where they do not count, and how many do."""
  kept = x if mask is None else jnp.where(mask, x, 0)
  return kept, pseudobulk.gene_count(x, mask)


# ----------------------------------------------------------------------------
# Weighted errors: weighted.py has them, they have no step.


def weighted_r2_delta(
  predicted: Array,
  observed: Array,
  control: Array,
  weights: Array,
  *,
  mask: Array | None = None,
  eps: float | None = None,
) -> Array:
  """Returns 1 - sum w (D - D')^2 / sum w (D - Dw)^2, D the observed change.

  CellSimBench's R2_w(Delta); Dw is the weighted mean of D over genes. What
  `control` is decides which of its two it is: control cells, or the mean of
  all perturbations.

  Args:
    predicted: [..., conditions, genes].
    observed: same shape.
    control: same shape, or one that broadcasts to it.
    weights: as in `weighted.wmse`.
    mask: see pseudobulk.
    eps: added to the spread as eps^2; None or 0 gives the metric.

  Returns:
    [..., conditions]; NaN where no gene counts, or without `eps` where the
    observed change does not vary.
  """
  if is_hard(eps):
    return weighted.weighted_r2_delta(
      predicted, observed, control, weights, mask=mask
    )
  predicted, observed, mask = pseudobulk.aligned(predicted, observed, mask)
  control = jnp.broadcast_to(control, predicted.shape)
  share, defined = weighted.shares(weights, predicted, mask)
  change, _ = counted_rows(observed - control, mask)
  error, _ = counted_rows(predicted - observed, mask)
  mean = jnp.sum(share * change, axis=-1, keepdims=True)
  spread = jnp.sum(share * jnp.square(change - mean), axis=-1) + eps**2
  return answer(1 - jnp.sum(share * error**2, axis=-1) / spread, defined)


# ----------------------------------------------------------------------------
# Angles.


def shortened(x: Array, number: Array, eps: Array | float) -> Array:
  """Divides rows by the root of |x|^2 + number eps^2."""
  square = jnp.sum(jnp.square(x), axis=-1, keepdims=True)
  return x / jnp.sqrt(square + jnp.maximum(number, 1) * eps**2)


def around_mean(x: Array, mask: Array | None) -> Array:
  """Takes each row's mean over counted genes away, with its gradient.

  `pseudobulk.centred` sets constant rows to exactly 0, and their gradient too:
  a prediction that is constant would never leave it.
  """
  kept, number = counted_rows(x, mask)
  mean = jnp.sum(kept, axis=-1, keepdims=True) / jnp.maximum(number, 1)
  return counted_rows(kept - mean, mask)[0]


def cosine(
  predicted: Array,
  observed: Array,
  *,
  mask: Array | None = None,
  eps: Array | float | None = EPS,
) -> Array:
  """Returns a.b / sqrt((|a|^2 + n eps^2) (|b|^2 + n eps^2)), n genes.

  A zero vector has cosine 0 with everything, and the gradient there is that of
  a linear function. Elsewhere the value is the hard one times a factor between
  1 - eps^2 (1 / ms(a) + 1 / ms(b)) / 2 and 1, ms the mean square over genes.

  Args:
    predicted: [..., conditions, genes], changes for instance.
    observed: same shape.
    mask: see pseudobulk.
    eps: root mean square over genes below which a row has no direction; None or
      0 gives `pseudobulk.cosine`.

  Returns:
    [..., conditions]; NaN where no gene counts.
  """
  if is_hard(eps):
    return pseudobulk.cosine(predicted, observed, mask=mask)
  predicted, observed, mask = pseudobulk.aligned(predicted, observed, mask)
  a, number = counted_rows(predicted, mask)
  b, _ = counted_rows(observed, mask)
  value = jnp.sum(
    shortened(a, number, eps) * shortened(b, number, eps), axis=-1
  )
  return answer(value, (number > 0)[..., 0])


def pearson(
  predicted: Array,
  observed: Array,
  *,
  mask: Array | None = None,
  eps: Array | float | None = EPS,
) -> Array:
  """Returns `cosine` of the rows around their means; see there.

  With `eps` None or 0 it is `pseudobulk.pearson`.
  """
  if is_hard(eps):
    return pseudobulk.pearson(predicted, observed, mask=mask)
  predicted, observed, mask = pseudobulk.aligned(predicted, observed, mask)
  return cosine(
    around_mean(predicted, mask),
    around_mean(observed, mask),
    mask=mask,
    eps=eps,
  )


def pearson_delta(
  predicted: Array,
  observed: Array,
  control: Array,
  *,
  mask: Array | None = None,
  eps: Array | float | None = EPS,
) -> Array:
  """Returns `pearson` of the changes from control, the same on both sides."""
  control = jnp.broadcast_to(control, jnp.shape(predicted))
  return pearson(predicted - control, observed - control, mask=mask, eps=eps)


# ----------------------------------------------------------------------------
# Genes.


def _soft_top(
  x: Array,
  mask: Array | None,
  k: int,
  temperature: Array | float,
  scale: Array | None,
) -> Array:
  """Returns how much each gene is among the k largest; rows sum to k.

  A sigmoid around the middle between the k-th and the next strength.
  """
  strength, number = counted_rows(jnp.abs(x), mask)
  if scale is None:
    fixed = jax.lax.stop_gradient(around_mean(strength, mask))
    scale = jnp.sum(jnp.square(fixed), axis=-1) / jnp.maximum(number[..., 0], 1)
    scale = jnp.sqrt(scale)
  scale = jnp.where(scale == 0, 1, scale)[..., None]
  padded = strength if mask is None else jnp.where(mask, strength, -scale)
  padded = jnp.concatenate(
    [padded, -jnp.ones_like(padded[..., :1]) * scale], -1
  )
  first, _ = jax.lax.top_k(padded, k + 1)
  last = (first[..., k - 1 : k] + first[..., k : k + 1]) / 2
  member = jax.nn.sigmoid((strength - last) / (temperature * scale))
  member, _ = counted_rows(member, mask)
  total = jnp.sum(member, axis=-1, keepdims=True)
  return k * member / jnp.where(number > 0, total, 1)


def top_k_recall(
  predicted: Array,
  observed: Array,
  *,
  temperature: Array | float | None,
  mask: Array | None = None,
  k: int = 20,
  scale: Array | None = None,
) -> Array:
  """Returns the soft share of the k strongest genes that both rows have.

  Each row's membership is a sigmoid around the middle between its k-th and next
  strength, normalised to sum to k; equal strengths give chance, k / genes, as
  in the hard metric.

  Args:
    predicted: [..., conditions, genes], changes for instance.
    observed: same shape.
    temperature: a share of the standard deviation of a row's strengths; None or
      0 gives `pseudobulk.top_k_recall`.
    mask: see pseudobulk.
    k: how many genes, static.
    scale: [..., conditions] in place of that deviation, for both rows.

  Returns:
    [..., conditions]; NaN where fewer than k genes count.
  """
  if is_hard(temperature) or k < 1 or k > jnp.shape(predicted)[-1]:
    return pseudobulk.top_k_recall(predicted, observed, mask=mask, k=k)
  predicted, observed, mask = pseudobulk.aligned(predicted, observed, mask)
  a, b = (
    _soft_top(x, mask, k, temperature, scale) for x in (predicted, observed)
  )
  number = pseudobulk.gene_count(predicted, mask)[..., 0]
  return answer(jnp.sum(a * b, axis=-1) / k, number >= k)


def direction_match(
  predicted: Array,
  observed: Array,
  *,
  temperature: Array | float | None,
  weights: Array | None = None,
  mask: Array | None = None,
  scale: Array | None = None,
) -> Array:
  """Returns the weighted share of genes that change the same way.

  sum w (1 + tanh(a / (temperature scale)) sign(b)) / 2 / sum w; with None or 0
  the sign of a in place of tanh: agreement 1, disagreement 0, no change 1/2.

  Args:
    predicted: [..., conditions, genes] changes.
    observed: same shape.
    temperature: a share of the root mean square of the observed changes.
    weights: same shape, of the real significance for instance; equal without.
    mask: see pseudobulk.
    scale: [..., conditions] in place of that root mean square.

  Returns:
    [..., conditions]; NaN where no gene counts.
  """
  predicted, observed, mask = pseudobulk.aligned(predicted, observed, mask)
  share, defined = weighted.shares(
    1.0 if weights is None else weights, predicted, mask
  )
  a, number = counted_rows(predicted, mask)
  b, _ = counted_rows(observed, mask)
  if is_hard(temperature):
    way = jnp.sign(a)
  else:
    if scale is None:
      fixed = jax.lax.stop_gradient(b)
      square = jnp.sum(jnp.square(fixed), axis=-1)
      scale = jnp.sqrt(square / jnp.maximum(number[..., 0], 1))
    scale = jnp.where(scale == 0, 1, scale)[..., None]
    way = jnp.tanh(a / (temperature * scale))
  return answer(jnp.sum(share * (1 + way * jnp.sign(b)), -1) / 2, defined)
