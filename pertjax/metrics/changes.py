"""Changes from control: their direction, their size, where cells have them.

Arrays of [..., conditions, genes], or of a few genes of each condition, in;
[..., conditions] out. `mask`, bool, says which genes count, as in `pseudobulk`.
The formulas are those of GEARS' analyses (Roohani et al. 2023).
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from pertjax.metrics import pseudobulk
from pertjax.types import Array

# Of float32, which predictions are kept in: a control mean that was stored and
# read again is off by 2^-24 of it, in either direction.
_ROUNDING = 2.0**-22


@jax.jit
def difference(mean: Array, control: Array) -> Array:
  """Returns mean - control, and 0 where float32 does not tell them apart.

  A prediction of no change is the control's mean, rounded. What is left of it
  has signs and correlates, at random.

  Args:
    mean: [..., genes].
    control: same shape.
  """
  size = jnp.maximum(jnp.abs(mean), jnp.abs(control))
  change = mean - control
  return jnp.where(jnp.abs(change) <= _ROUNDING * size, 0, change)


def _share(which: Array, mask: Array | None, out_of: int | None) -> Array:
  """Returns the share of the counted genes that are in `which`."""
  counted = jnp.ones(which.shape, bool) if mask is None else mask
  number = jnp.sum(counted, axis=-1) if out_of is None else out_of
  return jnp.sum(which & counted, axis=-1) / number


@functools.partial(jax.jit, static_argnames=('apart', 'out_of'))
def sign_share(
  predicted: Array,
  observed: Array,
  control: Array,
  *,
  mask: Array | None = None,
  apart: int = 0,
  out_of: int | None = None,
) -> Array:
  """Returns the share of genes whose changes are so far apart in sign.

  |sign(predicted - control) - sign(observed - control)| is 0 for the same
  direction, 2 for the opposite one, and 1 where one side does not change (see
  `difference`).

  Args:
    predicted: [..., genes].
    observed: same shape.
    control: same shape.
    mask: see the module.
    apart: 0, 1 or 2, static.
    out_of: what the number of genes is divided by; None for all that count.

  Returns:
    [...]; NaN where no gene counts.
  """
  predicted, observed, mask = pseudobulk.aligned(predicted, observed, mask)
  signs = [
    jnp.sign(difference(*pair))
    for pair in ((predicted, control), (observed, control))
  ]
  return _share(jnp.abs(signs[0] - signs[1]) == apart, mask, out_of)


@jax.jit
def share_within(
  values: Array, low: Array, high: Array, *, mask: Array | None = None
) -> Array:
  """Returns the share of genes with low <= value <= high; NaN without genes.

  A bound that is missed by its rounding is kept: the mean of equal values may
  differ from them in the last bit.
  """
  size = jnp.maximum(jnp.abs(low), jnp.abs(high))
  slack = 4 * jnp.finfo(size.dtype).eps * size
  inside = (values >= low - slack) & (values <= high + slack)
  return _share(inside, mask, None)


@jax.jit
def sigma_distances(predicted: Array, observed: Array, spread: Array) -> Array:
  """Returns |predicted - observed| / spread, NaN where nothing varies.

  Args:
    predicted: [..., genes].
    observed: same shape.
    spread: standard deviation over cells, same shape.
  """
  known = spread > 0
  distance = jnp.abs(predicted - observed) / jnp.where(known, spread, 1)
  return jnp.where(known, distance, jnp.nan)


@functools.partial(jax.jit, static_argnames='of')
def sigma_summary(
  distances: Array, *, of: str | float, mask: Array | None = None
) -> Array:
  """Sums up `sigma_distances` over the genes that vary and count.

  Args:
    distances: [..., genes], NaN for genes that do not vary.
    of: 'mean', 'std' (divided by n), or a number: 1 less the share of genes
      that are farther off than so many standard deviations.
    mask: see the module.

  Returns:
    [...]; NaN where no gene varies.
  """
  counted = ~jnp.isnan(distances)
  if mask is not None:
    counted &= mask
  if not isinstance(of, str):
    return 1 - _share(distances > of, counted, None)
  number = jnp.sum(counted, axis=-1, keepdims=True)
  kept = jnp.where(counted, distances, 0)
  mean = jnp.sum(kept, axis=-1, keepdims=True) / number
  if of == 'mean':
    return mean[..., 0]
  rest = jnp.where(counted, distances - mean, 0)
  square = jnp.sum(jnp.square(rest), axis=-1, keepdims=True) / number
  return jnp.sqrt(square)[..., 0]


@jax.jit
def fold_change_gap(
  predicted: Array,
  observed: Array,
  control: Array,
  *,
  above: float = 0.0,
  below: float = jnp.inf,
  least: float = 0.5,
) -> Array:
  """Averages |predicted / control - observed / control| over genes.

  Args:
    predicted: [..., genes].
    observed: same shape.
    control: same shape.
    above: observed fold changes above it count.
    below: and those below it.
    least: genes with a smaller observed mean do not count, nor do those that
      the control does not express.

  Returns:
    [...]; NaN where no gene counts.
  """
  known = (control != 0) & (observed >= least)
  start = jnp.where(known, control, 1)
  change = jnp.where(known, observed / start, 0)
  counted = known & (change > above) & (change < below)
  gap = jnp.where(counted, jnp.abs(predicted / start - change), 0)
  return jnp.sum(gap, axis=-1) / jnp.sum(counted, axis=-1)


@jax.jit
def spread_ratio(predicted: Array, observed: Array) -> Array:
  """Returns how much predictions differ from each other, as observations do.

  Args:
    predicted: [..., conditions, genes].
    observed: same shape.

  Returns:
    [...] mean over conditions of |row - mean row|, predicted over observed: 0
    for a model that predicts one profile for all, 1 as it should be.
  """

  def spread(x):
    rest = x - jnp.mean(x, axis=-2, keepdims=True)
    return jnp.mean(jnp.linalg.norm(rest, axis=-1), axis=-1)

  return spread(predicted) / spread(observed)
