"""Kernels and moments of sets of cells; arguments as in `distribution`."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from pertjax.metrics import pseudobulk, registry
from pertjax.metrics.distribution import energy
from pertjax.types import Array

# Cells whose distances give a median.
_MEDIAN_CELLS = 1024


# ----------------------------------------------------------------------------
# Maximum mean discrepancy.


@registry.metric(
  name='mmd_linear',
  best=0.0,
  direction='lower',
  needs=('x', 'y'),
  reference='Gretton et al. 2012, JMLR 13:723, equations 3 and 5; pertpy mmd',
)
@functools.partial(jax.jit, static_argnames='unbiased')
def mmd_linear(
  x: Array,
  y: Array,
  *,
  x_mask: Array | None = None,
  y_mask: Array | None = None,
  unbiased: bool = False,
) -> Array:
  """Returns the squared MMD of the kernel <a, b>: |mean x - mean y|^2.

  pertpy's mmd at its default. The unbiased estimate takes tr S_x / n and
  tr S_y / m away, S the covariance (n - 1), and may be negative.

  Args:
    x: see the module.
    y: the other set.
    x_mask: cells of `x`.
    y_mask: cells of `y`.
    unbiased: leaves the pairs of a cell with itself out.

  Returns:
    () or [conditions].
  """

  def compare(side, other):
    value = energy.squared_shift(side, other)
    if not unbiased:
      return value
    for s in (side, other):
      own = energy.shifted(s, energy.mean(s))
      value -= energy.spread(own) / (s.count - 1)
    return value

  return energy.by_condition(compare, x, y, x_mask, y_mask)


def _median(side: energy.Cells) -> Array:
  """Median distance of two different cells of a set, ()."""
  side = energy.shifted(side, energy.mean(side))
  size = min(len(side.mask), _MEDIAN_CELLS)
  number = jnp.sum(side.mask, dtype=jnp.int32)
  first = jnp.argsort(~side.mask, stable=True)
  taken = jnp.minimum(number, size)
  # Evenly spaced: at * number / size, whose product could overflow.
  at = jnp.arange(size)
  step, rest = number // size, number % size
  at = jnp.where(number > size, at * step + at * rest // size, at)
  values = side.values[first[at]]
  counted = jnp.arange(size) < taken
  squared = energy.squared_distances(values)
  pairs = counted[:, None] & counted[None] & ~jnp.eye(size, dtype=bool)
  order = jnp.sort(jnp.where(pairs, squared, jnp.inf), axis=None)
  half = taken * (taken - 1) // 2
  middle = energy.root(order[half - 1]) / 2 + energy.root(order[half]) / 2
  known = (taken > 1) & jnp.all(jnp.isfinite(values))
  return jnp.where(known, middle, jnp.nan)


@jax.jit
def median_bandwidth(y: Array, *, y_mask: Array | None = None) -> Array:
  """Returns the median distance between two cells of `y`, ().

  The heuristic of Gretton et al. 2012, section 8, of one side: a bandwidth that
  follows the prediction would let it choose its own ruler. Of more than 1,024
  cells, 1,024 evenly spaced ones are taken.

  Args:
    y: [m, features].
    y_mask: [m].
  """
  return energy.by_condition(
    lambda _, side: side, y, y, y_mask, y_mask, prepare=_median
  )


def mmd_rbf(
  x: Array,
  y: Array,
  *,
  x_mask: Array | None = None,
  y_mask: Array | None = None,
  bandwidth: str | float | Array = 'median',
  unbiased: bool = False,
) -> Array:
  """Returns the squared MMD of the kernel sum_b exp(-|a - b|^2 / (2 b^2)).

  The biased estimate is E k(x, x') + E k(y, y') - 2 E k(x, y) with the pairs of
  a cell with itself (pertpy, CellFlow); the unbiased one leaves them out
  (scPertEval) and may be negative.

  A kernel written as exp(-gamma d^2) has b = 1 / sqrt(2 gamma), one written as
  exp(-d^2 / w) has b = sqrt(w / 2). Where a tool averages kernels instead of
  adding them (CellFlow), divide by their number.

  Args:
    x: see the module.
    y: the other set.
    x_mask: cells of `x`.
    y_mask: cells of `y`.
    bandwidth: b, in units of the features; several are added; 'median' is
      `median_bandwidth` of `y`.
    unbiased: leaves self pairs out.

  Returns:
    () or [conditions].

  Raises:
    ValueError: when the bandwidth is another word or has the wrong shape.
  """
  median = isinstance(bandwidth, str)
  if median:
    registry.check_choice('bandwidth', bandwidth, ('median',))
    bandwidth = 1.0
  widths = jnp.atleast_1d(jnp.asarray(bandwidth))
  if widths.ndim != 1 or not widths.size:
    raise ValueError(
      f'bandwidth has the shape {widths.shape}; allowed are a number, some '
      "numbers, and 'median'"
    )
  return _mmd_rbf(x, y, x_mask, y_mask, widths, median, unbiased)


registry.metric(
  name='mmd_rbf',
  best=0.0,
  direction='lower',
  needs=('x', 'y'),
  reference='Gretton et al. 2012, JMLR 13:723, equations 3 and 5',
)(mmd_rbf)


@functools.partial(jax.jit, static_argnums=(5, 6))
def _mmd_rbf(x, y, x_mask, y_mask, widths, median, unbiased) -> Array:
  # k - k(0), whose small differences near 0 survive; the constant cancels.
  def kernel(squared, widths):
    total = jnp.zeros_like(squared)
    for i in range(widths.shape[0]):
      total += jnp.expm1(-squared / (2 * jnp.square(widths[i])))
    return total

  def within(side, widths):
    side = energy.shifted(side, energy.mean(side))
    return energy.pair_mean(
      side, None, lambda s: kernel(s, widths), unbiased=unbiased
    )

  def prepare(side):
    chosen = _median(side)[None] if median else widths.astype(side.weight.dtype)
    origin = energy.mean(side)
    centred = energy.shifted(side, origin)
    return energy.Reference(centred, origin, chosen, within(side, chosen))

  def compare(side, other):
    chosen = other.level
    moved = energy.shifted(side, other.origin)
    between = energy.pair_mean(moved, other.cells, lambda s: kernel(s, chosen))
    return (within(side, chosen) - between) + (other.within - between)

  return energy.by_condition(compare, x, y, x_mask, y_mask, prepare=prepare)


# ----------------------------------------------------------------------------
# Moments.


@registry.metric(
  name='distance_of_means',
  best=0.0,
  direction='lower',
  needs=('x', 'y'),
  reference='pertpy euclidean; |mean x - mean y|',
)
@jax.jit
def distance_of_means(
  x: Array,
  y: Array,
  *,
  x_mask: Array | None = None,
  y_mask: Array | None = None,
) -> Array:
  """Returns |mean x - mean y|, pertpy's euclidean; () or [conditions]."""
  return energy.root(mmd_linear(x, y, x_mask=x_mask, y_mask=y_mask))


def _r2(function, x, y, x_mask, y_mask, mask) -> Array:
  def compare(side, other):
    a, b = function(side), function(other)
    return jnp.square(pseudobulk.pearson(a, b, mask=mask))

  return energy.by_condition(compare, x, y, x_mask, y_mask)


@registry.metric(
  name='r2_means',
  best=1.0,
  direction='higher',
  needs=('x', 'y'),
  reference='scGen (Lotfollahi et al. 2019); scVIDR (Kana et al. 2023)',
)
@jax.jit
def r2_means(
  x: Array,
  y: Array,
  *,
  x_mask: Array | None = None,
  y_mask: Array | None = None,
  mask: Array | None = None,
) -> Array:
  """Returns the squared Pearson correlation over genes of the two means.

  It is near 1 for two unrelated cell populations of one assay, and blind to
  the sign of the correlation; kept because scGen and scVIDR report it.

  Args:
    x: see the module.
    y: the other set.
    x_mask: cells of `x`.
    y_mask: cells of `y`.
    mask: bool [features] that count.

  Returns:
    () or [conditions]; NaN where a mean is constant over genes.
  """
  return _r2(energy.mean, x, y, x_mask, y_mask, mask)


def variance(x: energy.Cells) -> Array:
  """Returns each feature's population variance, [features]."""
  values = energy.shifted(x, energy.mean(x)).values
  return energy.dot(x.weight, jnp.square(values)) / x.count


@registry.metric(
  name='r2_variances',
  best=1.0,
  direction='higher',
  needs=('x', 'y'),
  reference='scGen (Lotfollahi et al. 2019); scVIDR (Kana et al. 2023)',
)
@jax.jit
def r2_variances(
  x: Array,
  y: Array,
  *,
  x_mask: Array | None = None,
  y_mask: Array | None = None,
  mask: Array | None = None,
) -> Array:
  """Returns the squared correlation over genes of the two sets' variances.

  Arguments as in `r2_means`; NaN where no gene varies.
  """
  return _r2(variance, x, y, x_mask, y_mask, mask)
