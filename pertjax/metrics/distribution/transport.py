"""Optimal transport between sets of cells; arguments as in `distribution`."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from pertjax.metrics import registry
from pertjax.metrics.distribution import energy
from pertjax.types import Array


def _soft(cost, potential, log_weight, epsilon):
  """Updates the potential of the rows from that of the columns."""
  exponent = (potential - cost) / epsilon + log_weight
  return -epsilon * jax.nn.logsumexp(exponent, axis=-1)


def _error(old, new, side, epsilon):
  """L1 distance of the plan's marginal, before `new`, from what it must be."""
  ratio = jnp.expm1((old - new) / epsilon)
  return jnp.sum(jnp.where(side.mask, jnp.abs(ratio), 0)) / side.count


def _iterate(update, start, error, iterations, tolerance):
  """Updates until the error is small; NaN where it does not become so."""

  def going(state):
    _, step, value = state
    short = step < iterations
    return short if tolerance is None else short & ~(value <= tolerance)

  def body(state):
    old, step, _ = state
    new = update(old)
    return new, step + 1, error(old, new)

  # Of the type and, inside of a map, the batching of the potentials.
  nothing = jnp.full((), jnp.inf, start.dtype)
  found, _, value = jax.lax.while_loop(going, body, (start, 0, nothing))
  if tolerance is None:
    return found
  return jnp.where(value <= tolerance, found, jnp.nan)


def _cost(a, b):
  return energy.squared_distances(a.values, None if b is a else b.values)


def _log_weight(side):
  return jnp.where(side.mask, -jnp.log(side.count), -jnp.inf)[None]


def _average(potential, side):
  return jnp.sum(jnp.where(side.mask, potential, 0)) / side.count


def _between(a, b, epsilon, iterations, tolerance):
  """Entropic cost of two sets: the dual's value."""
  cost = _cost(a, b)
  logs = _log_weight(a), _log_weight(b)

  def rows(g):
    return _soft(cost, g[None], logs[1], epsilon)

  def update(g):
    return _soft(cost.T, rows(g)[None], logs[0], epsilon)

  g = _iterate(
    update,
    jnp.zeros_like(b.weight),
    lambda old, new: _error(old, new, b, epsilon),
    iterations,
    tolerance,
  )
  return _average(rows(g), a) + _average(g, b)


def _itself(a, epsilon, iterations, tolerance):
  """Entropic cost of a set and itself, whose two potentials are one.

  The average of old and new settles in a few steps (Feydy et al. 2019,
  section 3.1).
  """
  cost, log_weight = _cost(a, a), _log_weight(a)

  def soft(f):
    return _soft(cost, f[None], log_weight, epsilon)

  f = _iterate(
    lambda f: (f + soft(f)) / 2,
    jnp.zeros_like(a.weight),
    # The step is half of the way to the other potential.
    lambda old, new: _error(2 * old, 2 * new, a, epsilon),
    iterations,
    tolerance,
  )
  return _average(f, a) + _average(soft(f), a)


def _sides(side, other, epsilon, relative):
  """Centres both and returns them with the absolute epsilon."""
  origin = energy.mean(other)
  side, other = (energy.shifted(s, origin) for s in (side, other))
  if relative:
    means = energy.mean(side) * energy.mean(other)
    cost = energy.spread(side) + energy.spread(other)
    cost = cost - 2 * jnp.sum(means)
    # Two equal points: any epsilon gives 0, but 0 itself.
    epsilon = epsilon * jnp.where(cost == 0, 1, cost)
  return side, other, epsilon


@functools.partial(
  jax.jit, static_argnames=('relative', 'iterations', 'tolerance')
)
def entropic_wasserstein(
  x: Array,
  y: Array,
  *,
  x_mask: Array | None = None,
  y_mask: Array | None = None,
  epsilon: float = 0.05,
  relative: bool = True,
  iterations: int = 2000,
  tolerance: float | None = 1e-4,
) -> Array:
  """Returns the entropic transport cost of squared Euclidean distances.

  min over plans P of <P, |x - y|^2> + eps KL(P | uniform product), by Sinkhorn
  iterations in the log domain (Cuturi 2013; Peyre & Cuturi 2019, section 4.4).
  pertpy's wasserstein is this number from OTT, whose default epsilon is 0.05 of
  the mean cost in older releases and of its standard deviation in newer ones.

  Not in the registry: it is not 0 for equal sets. `sinkhorn_divergence` is.

  Memory: the cost matrix, n x m.

  Args:
    x: see the module.
    y: the other set.
    x_mask: cells of `x`.
    y_mask: cells of `y`.
    epsilon: the weight of the entropy.
    relative: epsilon counts in units of the mean cost over all pairs; else in
      squared units of the features.
    iterations: static; the most that are made.
    tolerance: static; the L1 distance of the plan's marginal from uniform at
      which to stop. None makes all iterations and takes what they give.

  Returns:
    () or [conditions]; NaN where the tolerance was not reached.
  """

  def compare(side, other):
    side, other, eps = _sides(side, other, epsilon, relative)
    return _between(side, other, eps, iterations, tolerance)

  return energy.by_condition(compare, x, y, x_mask, y_mask)


@registry.metric(
  name='sinkhorn_divergence',
  best=0.0,
  direction='lower',
  needs=('x', 'y'),
  reference='Feydy et al. 2019, arXiv:1810.08278, equation 3; CellFlow',
)
@functools.partial(
  jax.jit, static_argnames=('relative', 'iterations', 'tolerance')
)
def sinkhorn_divergence(
  x: Array,
  y: Array,
  *,
  x_mask: Array | None = None,
  y_mask: Array | None = None,
  epsilon: float = 0.05,
  relative: bool = True,
  iterations: int = 2000,
  tolerance: float | None = 1e-4,
) -> Array:
  """Returns W(x, y) - W(x, x) / 2 - W(y, y) / 2 of `entropic_wasserstein`.

  One epsilon, that of the cost between `x` and `y`, serves all three. It is 0
  for equal sets and not below 0, up to the tolerance; it tends to the squared
  Wasserstein-2 distance for epsilon to 0, and to |mean x - mean y|^2 for
  epsilon to infinity. CellFlow reports it at absolute epsilons of 1, 10, 100.
  Between few cells of thousands of genes every cell is far from every other,
  and the value is mostly the first term: use coordinates of a PCA.

  Arguments, memory and NaN as in `entropic_wasserstein`.
  """

  def compare(side, other):
    side, other, eps = _sides(side, other, epsilon, relative)
    between = _between(side, other, eps, iterations, tolerance)
    within = (_itself(s, eps, iterations, tolerance) for s in (side, other))
    return between - sum(within) / 2

  return energy.by_condition(compare, x, y, x_mask, y_mask)


def _quantiles(n, m, longest):
  """Cuts [0, 1] where either empirical quantile function may jump.

  Args:
    n: int () cells on one side.
    m: int () cells on the other.
    longest: static sizes of both sides, padding included.

  Returns:
    Lengths of the pieces, and the rank of each side's value in each of them.
  """
  # In units of 1 / (n m) every cut is an integer: nothing is rounded.
  ends = jnp.concatenate(
    [
      jnp.minimum(jnp.arange(1, longest[0] + 1), n) * m,
      jnp.minimum(jnp.arange(1, longest[1] + 1), m) * n,
    ]
  )
  ends = jnp.sort(ends)
  starts = jnp.concatenate([jnp.zeros(1, ends.dtype), ends[:-1]])
  ranks = (
    jnp.minimum(starts // jnp.maximum(m, 1), n - 1),
    jnp.minimum(starts // jnp.maximum(n, 1), m - 1),
  )
  return ends - starts, *ranks


@registry.metric(
  name='wasserstein_1d',
  best=0.0,
  direction='lower',
  needs=('x', 'y'),
  reference='Wasserstein-1 of each gene (area between the distribution '
  'functions), averaged over genes',
)
@jax.jit
def wasserstein_1d(
  x: Array,
  y: Array,
  *,
  x_mask: Array | None = None,
  y_mask: Array | None = None,
) -> Array:
  """Returns the exact Wasserstein-1 distance of each gene, averaged over genes.

  The integral over u of |Q_x(u) - Q_y(u)|, Q the empirical quantile functions.
  It sees whole marginal distributions and no dependence between genes.

  Args:
    x: see the module.
    y: the other set; sorted once where it is shared.
    x_mask: cells of `x`.
    y_mask: cells of `y`.

  Returns:
    () or [conditions], in units of the features.

  Raises:
    ValueError: when the number of pairs of cells exceeds 2^31 - 1.
  """
  longest = jnp.shape(x)[-2], jnp.shape(y)[-2]
  if longest[0] * longest[1] >= 1 << 31:
    raise ValueError(
      f'{longest[0]} x {longest[1]} cells are more pairs than 2^31 - 1: give a '
      'sample of the cells'
    )

  def ordered(side):
    # NaN sorts last, behind infinite cells.
    values = jnp.where(side.mask[:, None], side.values, jnp.nan)
    number = jnp.sum(side.mask, dtype=jnp.int32)
    return jnp.sort(values, axis=0), number

  def compare(side, other):
    (a, n), (b, m) = ordered(side), other
    lengths, at_a, at_b = _quantiles(n, m, longest)
    total = (n * m).astype(a.dtype)

    def piece(cut):
      length, i, j = cut
      # Empty pieces may point at padding.
      gap = jnp.abs(a[i] - b[j])
      return jnp.where(length == 0, 0, jnp.mean(gap) * length)

    return jnp.sum(_pieces(piece, (lengths, at_a, at_b))) / total

  return energy.by_condition(compare, x, y, x_mask, y_mask, prepare=ordered)


def _pieces(function, cuts):
  size = min(len(cuts[0]), 256)
  return jax.lax.map(function, cuts, batch_size=size)
