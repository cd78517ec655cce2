"""Loss terms, one value per cell; the caller reduces them.

Sums over genes and cells accumulate in float32, whatever the compute type.

`with_terms` adds terms of another kind to a model's own loss: metrics of the
mean cells of the conditions that a batch holds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from pertjax import types

# Whose mean is the control of a condition in a batch.
CONTROLS = ('matched', 'group')


def squared_error(predicted: jax.Array, target: jax.Array) -> jax.Array:
  """Returns the mean over genes of the squared error, [cells, genes] ->
  [cells].

  PerturBench's regression loss (paper 2408.10609, section 3); the mean over
  cells of it equals the mean over all entries.
  """
  error = predicted.astype(jnp.float32) - target
  return jnp.mean(error * error, axis=-1)


def half_squared_sum(predicted: jax.Array, target: jax.Array) -> jax.Array:
  """Returns half the sum over genes of the squared error, [cells].

  scGen's reconstruction term: a unit-variance Gaussian likelihood up to a
  constant (Lotfollahi et al. 2019, Methods).
  """
  error = predicted.astype(jnp.float32) - target
  return 0.5 * jnp.sum(error * error, axis=-1)


def normal_kl(mean: jax.Array, variance: jax.Array) -> jax.Array:
  """Returns KL(N(mean, variance) || N(0, 1)) summed over latent, [cells].

  Kingma and Welling 2013, appendix B.
  """
  mean, variance = mean.astype(jnp.float32), variance.astype(jnp.float32)
  terms = variance + mean * mean - 1.0 - jnp.log(variance)
  return 0.5 * jnp.sum(terms, axis=-1)


def weighted_mean(values: jax.Array, weight: jax.Array) -> jax.Array:
  """Returns the mean of [cells] values; padding has weight 0.

  A batch of nothing but padding gives 0, so that it adds nothing to a sum.
  """
  return jnp.sum(values * weight) / jnp.maximum(jnp.sum(weight), 1e-12)


# ----------------------------------------------------------------------------
# Maximum mean discrepancy between predicted and observed cells.


def mmd_base_width(sigma: jax.Array | float, num_kernels: int):
  """Returns the first width of `gaussian_mmd` for the middle one, sigma.

  discrepancy-VAE (arXiv 2307.06250): sigma / 2^floor(kernels / 2).
  """
  return sigma / 2 ** (num_kernels // 2)


def _squared_distances(x, y):
  """Returns |x_i - x_j|^2, |y_i - y_j|^2 and |x_i - y_j|^2, by products."""

  def dot(a, b):
    # HIGHEST: a GPU's default would round the cells to TF32.
    return jnp.dot(a, b.T, precision=jax.lax.Precision.HIGHEST)

  xx, yy, xy = dot(x, x), dot(y, y), dot(x, y)
  # From the same products, so that equal cells are at distance 0.
  square_x, square_y = jnp.diagonal(xx), jnp.diagonal(yy)

  def distances(row, column, products):
    return jnp.maximum(row[:, None] + column[None] - 2 * products, 0)

  return (
    distances(square_x, square_x, xx),
    distances(square_y, square_y, yy),
    distances(square_x, square_y, xy),
  )


def gaussian_mmd(
  predicted: jax.Array,
  observed: jax.Array,
  *,
  sigma: jax.Array | float,
  num_kernels: int,
  weight: jax.Array | None = None,
  same: jax.Array | None = None,
) -> jax.Array:
  """Returns the squared MMD of a sum of Gaussian kernels, biased.

  k(a, b) = sum_i exp(-|a - b|^2 / w_i), w_i = 2^i w_0, and the mean over all
  pairs, a cell with itself included, of k within both sides minus twice that
  between them (discrepancy-VAE, arXiv 2307.06250, section 4; Gretton et al.
  2012, equation 5). Distances come from products of cells, not from their
  differences, which would be cells x cells x genes numbers.

  Args:
    predicted: [cells, genes].
    observed: [cells, genes].
    sigma: middle width, see mmd_base_width; 0 takes the mean squared distance
      of two of the cells, which is then a constant to the gradient.
    num_kernels: static.
    weight: [cells], of both sides; 0 is padding.
    same: bool [cells, cells]; cells of one condition. Conditions are compared
      each on its own, and averaged by their cells. One condition by default.

  Returns:
    A scalar, from 0 to 2 num_kernels; exactly 0 for equal cells.
  """
  cells = predicted.shape[0]
  if weight is None:
    weight = jnp.ones(cells, predicted.dtype)
  weight = weight.astype(predicted.dtype)
  if same is None:
    same = jnp.ones((cells, cells), bool)
  together = same.astype(weight.dtype)
  # The sum over conditions of n_c / n times the mean over n_c^2 pairs.
  number = jnp.maximum(together @ weight, 1e-12) * jnp.maximum(
    jnp.sum(weight), 1e-12
  )
  pairs = together * weight[:, None] * weight[None] / number[:, None]
  # Distances do not depend on the origin; small numbers round less.
  origin = jax.lax.stop_gradient(jnp.mean(observed, 0))[None]
  xx, yy, xy = _squared_distances(predicted - origin, observed - origin)
  if isinstance(sigma, (int, float)) and not sigma:
    real = (weight > 0)[:, None] & (weight > 0)[None]
    total = jnp.sum(jnp.where(real, xx + yy + 2 * xy, 0))
    both = 2 * jnp.sum(weight > 0)
    sigma = jax.lax.stop_gradient(total / jnp.maximum(both * (both - 1), 1))
  first = mmd_base_width(sigma, num_kernels)
  rate = -(0.5 ** jnp.arange(num_kernels, dtype=predicted.dtype)) / first

  def kernel(squared):
    return jnp.sum(jnp.exp(squared[None] * rate[:, None, None]), 0)

  return jnp.sum(pairs * (kernel(xx) + kernel(yy) - 2 * kernel(xy)))


# ----------------------------------------------------------------------------
# Terms of the mean cells of a batch's conditions.


class BatchMeans(NamedTuple):
  """Mean cells of the (condition, group) pairs of a batch, padded.

  Attributes:
    predicted: float32 [slots, genes].
    observed: float32 [slots, genes].
    control: float32 [slots, genes]; see `batch_means`.
    group: int32 [slots]; covariate group. A slot that is padding has a negative
      number of its own.
    counted: bool [slots]; False in the padding.
  """

  predicted: jax.Array
  observed: jax.Array
  control: jax.Array
  group: jax.Array
  counted: jax.Array


def _first_alike(weight: jax.Array, *keys: jax.Array) -> jax.Array:
  """Returns int32 [cells]: the first cell that counts with the same keys."""
  same = (weight > 0)[None, :]
  for key in keys:
    key = key.reshape(key.shape[0], -1)
    same = same & jnp.all(key[:, None] == key[None], axis=-1)
  return jnp.argmax(same, axis=1).astype(jnp.int32)


def _means(values, at, weight, count, size):
  """Returns the means [size, genes] of the cells at each place."""
  scaled = values.astype(jnp.float32) * weight[:, None]
  total = jax.ops.segment_sum(scaled, at, size)
  return total / jnp.maximum(count, 1)[:, None]


def batch_means(
  predicted: jax.Array,
  batch: types.Batch,
  *,
  min_cells: int,
  control: str,
) -> BatchMeans:
  """Averages a batch's predictions and cells over each of its conditions.

  Args:
    predicted: [cells, genes], one for each cell of the batch.
    batch: with control cells in `source`.
    min_cells: static; a pair with fewer cells in the batch is left out.
    control: 'matched' takes the mean of the pair's own control cells, 'group'
      that of all control cells of its group in the batch: fewer digits of
      noise, which both sides of a comparison of changes share.

  Returns:
    As many slots as there can be pairs: cells // min_cells.
  """
  cells = batch.weight.shape[0]
  condition = jax.tree.map(
    lambda x: jnp.broadcast_to(x, (cells, *x.shape[1:])), batch.condition
  )
  weight = (batch.weight > 0).astype(jnp.float32)
  first = _first_alike(
    weight, condition.perturbations, condition.doses, condition.group
  )
  count = jax.ops.segment_sum(weight, first, cells)
  enough = count >= min_cells
  slots = max(1, cells // min_cells)
  # Where the pair of each first cell goes; the others are out of bounds.
  slot = jnp.where(enough, jnp.cumsum(enough) - 1, slots)
  at = jnp.where(weight > 0, slot[first], slots)
  number = jax.ops.segment_sum(weight, at, slots)
  counted = number > 0
  # One cell of each pair; padding gets the first cell, and is not read.
  holder = (
    jnp.zeros(slots, jnp.int32)
    .at[slot]
    .set(jnp.arange(cells, dtype=jnp.int32), mode='drop')
  )
  if control == 'group':
    alike = _first_alike(weight, condition.group)
    together = jax.ops.segment_sum(weight, alike, cells)
    controls = _means(batch.source, alike, weight, together, cells)
    controls = controls[alike[holder]]
  else:
    controls = _means(batch.source, at, weight, number, slots)
  return BatchMeans(
    predicted=_means(predicted, at, weight, number, slots),
    observed=_means(batch.target, at, weight, number, slots),
    control=jnp.where(counted[:, None], controls, 0.0),
    group=jnp.where(counted, condition.group[holder], -1 - jnp.arange(slots)),
    counted=counted,
  )


def with_terms(
  loss: types.Loss,
  predict: Callable[..., jax.Array],
  terms: Mapping[str, tuple[Any, Callable[..., jax.Array], bool]],
  *,
  own: float = 1.0,
  min_cells: int = 2,
  control: str = 'matched',
) -> types.Loss:
  """Adds metrics of a batch's mean cells to a model's own loss.

  A term is averaged over the pairs of the batch for which it has an answer,
  and is 0 where there is none. The prediction has the dropout of the loss: it
  is made with the same key, so that a model whose loss is of the same
  prediction is computed once.

  Args:
    loss: of one player.
    predict: see types.Model.
    terms: {name: (weight, function, competes)}; the weight may be traced,
      `function(predicted, observed, control, group)` returns [slots] values to
      be made smaller, `competes` says that it needs a second pair of the group.
    own: weight of the model's own loss.
    min_cells: see batch_means.
    control: see batch_means.

  Returns:
    The loss itself where there is nothing to add. Otherwise a loss whose
    metrics also hold 'own_loss', every term by its name, and 'num_conditions',
    the pairs of the batch that took part.

  Raises:
    ValueError: from the loss, where the batch has no control cells, or where
      the model's own metrics have the name of a term.
  """
  if not terms and own == 1.0:
    return loss

  def whole(params, key, batch, consts, step):
    value, aux = loss(params, key, batch, consts, step)
    seen = {'own_loss': value}
    total = own * value
    if terms:
      if batch.source is None:
        raise ValueError(
          'loss.weights needs a control cell for every cell of a batch, and '
          'the sampler draws none; train with the sampler paired'
        )
      predicted = predict(params, key, batch.source, batch.condition, consts)
      means = batch_means(
        predicted, batch, min_cells=min_cells, control=control
      )
      seen['num_conditions'] = jnp.sum(means.counted, dtype=jnp.float32)
      rivals = jnp.sum(means.group[:, None] == means.group[None], axis=1) > 1
    for name, (weight, function, competes) in terms.items():
      ok = means.counted & rivals if competes else means.counted
      values = function(*means[:4])
      seen[name] = jnp.sum(jnp.where(ok, values, 0.0)) / jnp.maximum(
        jnp.sum(ok), 1
      )
      total = total + weight * seen[name]
    twice = sorted(set(seen) & set(aux.metrics))
    if twice:
      raise ValueError(f'the model has metrics of the same names: {twice}')
    return total, aux._replace(metrics={**aux.metrics, **seen})

  return whole
