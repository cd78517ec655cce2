"""Distances between sets of cells: what they share, and energy distances.

Every function takes `x` and `y`, cells by features (genes, or coordinates of a
PCA), and compares the two clouds, not matched rows. What holds for all of them:

  * `x` is [n, features] or [conditions, n, features]; `y` is [m, features], one
    set for all conditions, or [conditions, m, features]. The result has the
    shape () or [conditions]. Conditions go one after the other, and what
    depends on a shared `y` alone is computed once.
  * `x_mask` and `y_mask`, bool, or numbers of which those above 0 count, say
    which rows are cells; the others are padding and not read, NaN included.
  * NaN in a counted cell makes the result NaN, and so does a set that is too
    small for the question: an empty one, or one cell for an unbiased estimate.
  * Arithmetic is float32 or wider. Cells are centred on the mean of `y`, then
    distances come from inner products at the highest precision, a block of rows
    at a time: memory beyond the input is a copy of it and some 16 MiB.

`kernels` has kernels and moments, `transport` optimal
transport, `permutation` the test and whole screens.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from pertjax.metrics import pseudobulk, registry
from pertjax.types import Array

# What is published as "the" energy distance, and by whom.
MEANINGS = {
  'biased': 'cell-eval 0.8; pertpy from a precomputed matrix',
  'half': 'PerturBench paper v4, there called mmd; geomloss "energy"',
  'squared': 'pertpy up to 0.10; CellFlow',
  'unbiased': 'newer pertpy; scPertEval',
}

# Distances that exist at once; bounds memory, sets no result.
_PAIRS = 1 << 22
# Squared distances below this many unit roundings of the squared norms are
# rounding, and count as 0: equal cells of two sets then are at distance 0.
_ROUNDING = 16

dot = functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)


# ----------------------------------------------------------------------------
# Sets of cells.


class Cells(NamedTuple):
  """A set of cells.

  Attributes:
    values: [n, features], float32 or wider; 0 where there is no cell.
    mask: bool [n].
    weight: [n] 1 for a cell, 0 for padding.
    count: () number of cells.
  """

  values: Array
  mask: Array
  weight: Array
  count: Array


def cells(values: Array, mask: Array, dtype: jnp.dtype) -> Cells:
  """Returns the set of the masked rows of [n, features]."""
  weight = mask.astype(dtype)
  values = jnp.where(mask[:, None], values.astype(dtype), 0)
  return Cells(values, mask, weight, jnp.sum(weight))


def mean(x: Cells) -> Array:
  """Returns the mean cell, [features]; NaN for an empty set.

  The second pass adds what rounding left over in the first.
  """
  first = dot(x.weight, x.values) / x.count
  return first + dot(x.weight, shifted(x, first).values) / x.count


def shifted(x: Cells, origin: Array) -> Cells:
  """Moves the origin; padding stays 0."""
  values = jnp.where(x.mask[:, None], x.values - origin[None], 0)
  return x._replace(values=values)


def spread(x: Cells) -> Array:
  """Returns the mean squared norm of the cells: () of a centred set."""
  return jnp.sum(jnp.square(x.values)) / x.count


def by_condition(
  compare: Callable[[Cells, Any], Any],
  x: Array,
  y: Array,
  x_mask: Array | None,
  y_mask: Array | None,
  *,
  prepare: Callable[[Cells], Any] = lambda side: side,
  each: tuple = (),
) -> Any:
  """Applies `compare(x, prepare(y), *each)` to the sets of each condition.

  Args:
    compare: of one condition.
    x: as the module says, and so are the next three.
    y: the other sets.
    x_mask: cells of `x`.
    y_mask: cells of `y`.
    prepare: what is needed of `y` alone; once where `y` is shared.
    each: arrays [conditions, ...] that `compare` takes beside the sets.

  Raises:
    ValueError: when shapes do not fit.
  """
  x, y = jnp.asarray(x), jnp.asarray(y)
  fits = x.ndim in (2, 3) and y.ndim in (2, x.ndim)
  fits = fits and x.shape[-1] == y.shape[-1]
  if not fits or (y.ndim == 3 and len(x) != len(y)):
    raise ValueError(
      'sets of cells are x [(conditions,) n, features] and y [m, features] or '
      f'[conditions, m, features]; shapes: {x.shape}, {y.shape}'
    )
  x_mask, y_mask = _mask('x', x, x_mask), _mask('y', y, y_mask)
  dtype = pseudobulk.wide(x, y)

  def left(pair):
    return cells(*pair, dtype)

  def right(pair):
    return prepare(cells(*pair, dtype))

  if y.ndim == 3:
    return jax.lax.map(
      lambda s: compare(left(s[0]), right(s[1]), *s[2]),
      ((x, x_mask), (y, y_mask), each),
    )
  side = right((y, y_mask))
  if x.ndim == 2:
    return compare(left((x, x_mask)), side, *each)
  return jax.lax.map(
    lambda s: compare(left(s[0]), side, *s[1]), ((x, x_mask), each)
  )


def _mask(name: str, values: Array, mask: Array | None) -> Array:
  shape = values.shape[:-1]
  if mask is None:
    return jnp.ones(shape, bool)
  mask = jnp.asarray(mask)
  if mask.shape != shape:
    raise ValueError(
      f'{name}_mask has the shape {mask.shape}; the cells of {name} are {shape}'
    )
  return mask > 0


def squared_shift(side: Cells, other: Cells) -> Array:
  """Returns |mean x - mean y|^2, (), of small differences too."""
  origin = mean(other)
  shift = mean(shifted(side, origin)) - mean(shifted(other, origin))
  return jnp.sum(jnp.square(shift))


# ----------------------------------------------------------------------------
# Pairs of cells.


def _squared(a, a_norm, b, b_norm, same) -> Array:
  """Squared distances of rows; 0 where `same` and where only rounding is."""
  norms = a_norm + b_norm
  squared = norms - 2 * dot(b, a)
  nothing = _ROUNDING * jnp.finfo(squared.dtype).eps * norms
  return jnp.where((squared <= nothing) | same, 0, squared)


def root(squared: Array) -> Array:
  """Returns the square root, with a gradient of 0 at 0."""
  nothing = squared == 0
  return jnp.where(nothing, 0, jnp.sqrt(jnp.where(nothing, 1, squared)))


def squared_distances(a: Array, b: Array | None = None) -> Array:
  """Returns all squared distances, [n, m], of centred rows.

  Args:
    a: [n, features].
    b: [m, features]; None for `a` itself, at distance 0 from itself exactly.
  """
  same = jnp.eye(len(a), dtype=bool) if b is None else False
  other = a if b is None else b
  norms = jnp.sum(jnp.square(a), -1), jnp.sum(jnp.square(other), -1)
  return _squared(other.T, norms[1][None], a, norms[0][:, None], same)


def pair_mean(
  a: Cells,
  b: Cells | None,
  function: Callable[[Array], Array],
  *,
  unbiased: bool = False,
) -> Array:
  """Averages `function(squared distance)` over pairs of cells.

  Args:
    a: centred cells.
    b: centred cells; None for pairs within `a`.
    function: of an array of squared distances.
    unbiased: leaves out the pairs of a cell with itself, within `a`.

  Returns:
    ().
  """
  within, other = b is None, a if b is None else b
  norms = jnp.sum(jnp.square(other.values), -1)
  at = jnp.arange(len(other.mask))

  def row(cell):
    number, values, weight = cell
    itself = within & (at == number)
    squared = _squared(
      values, jnp.sum(jnp.square(values)), other.values, norms, itself
    )
    left_out = itself & unbiased
    counted = jnp.where(left_out, 0, other.weight)
    return weight * jnp.sum(counted * function(squared))

  num = len(a.mask)
  rows = max(1, min(num, _PAIRS // max(1, len(at))))
  each = (jnp.arange(num), a.values, a.weight)
  total = jnp.sum(jax.lax.map(row, each, batch_size=rows))
  return total / (a.count * (other.count - (within and unbiased)))


# ----------------------------------------------------------------------------
# Energy distances.


class Reference(NamedTuple):
  """`y`, prepared.

  Attributes:
    cells: centred on their mean.
    origin: [features] that mean.
    level: () what distances are compared with, or [k] bandwidths.
    within: () mean over its own pairs.
  """

  cells: Cells
  origin: Array
  level: Array
  within: Array


def energy_parts(meaning: str) -> tuple[Callable, Callable]:
  """Returns `prepare(y)` and `compare(x, prepared)` of an energy distance.

  Raises:
    ValueError: when the meaning is unknown.
  """
  registry.check_choice('meaning', meaning, MEANINGS)
  if meaning == 'squared':
    return (lambda side: side), lambda x, y: 2 * squared_shift(x, y)
  unbiased = meaning == 'unbiased'

  def within(side, level):
    return pair_mean(side, None, lambda s: root(s) - level, unbiased=unbiased)

  def prepare(side):
    origin = mean(side)
    side = shifted(side, origin)
    level = jnp.sqrt(2 * spread(side))
    return Reference(side, origin, level, within(side, level))

  def compare(side, other):
    side, level = shifted(side, other.origin), other.level
    between = pair_mean(side, other.cells, lambda s: root(s) - level)
    # Both differences are small where the sets are alike.
    value = (between - within(side, level)) + (between - other.within)
    return value / 2 if meaning == 'half' else value

  return prepare, compare


@registry.metric(
  name='energy_distance',
  best=0.0,
  direction='lower',
  needs=('x', 'y'),
  reference='Szekely & Rizzo 2013, doi:10.1016/j.jspi.2013.03.018; cell-eval '
  '0.8 edistance',
)
@functools.partial(jax.jit, static_argnames='meaning')
def energy_distance(
  x: Array,
  y: Array,
  *,
  x_mask: Array | None = None,
  y_mask: Array | None = None,
  meaning: str = 'biased',
) -> Array:
  """Returns one of the four numbers that are published as energy distance.

  With means over pairs of cells, and |.| the Euclidean norm:

    'biased'    2 E|x - y| - E|x - x'| - E|y - y'|, the pairs of a cell with
                itself included in the last two (V-statistic)
    'half'      half of that
    'squared'   the same of squared norms, which is 2 |mean x - mean y|^2: it
                sees means alone
    'unbiased'  as 'biased' with the self pairs left out (U-statistic); its
                expectation is 0 for two sets of one distribution, and a value
                may be negative

  `MEANINGS` says who publishes which. The self pairs inflate the biased value
  by about E|x - x'| / n for each side, so it depends on the number of cells.

  The mean distance of `y` is taken from all distances before they are added; it
  cancels, and small differences of large distances keep their digits.

  Args:
    x: see the module, and so for the next three.
    y: the other set.
    x_mask: cells of `x`.
    y_mask: cells of `y`.
    meaning: a key of MEANINGS.

  Returns:
    () or [conditions]. 'biased', 'half' and 'squared' are not below 0 but for
    rounding.

  Raises:
    ValueError: when the meaning is unknown or shapes do not fit.
  """
  prepare, compare = energy_parts(meaning)
  return by_condition(compare, x, y, x_mask, y_mask, prepare=prepare)


@registry.metric(
  name='energy_distance_half',
  best=0.0,
  direction='lower',
  needs=('x', 'y'),
  reference='PerturBench (Wu et al. 2024, arXiv:2408.10609v4) mmd; geomloss '
  'SamplesLoss("energy")',
)
def energy_distance_half(x, y, *, x_mask=None, y_mask=None) -> Array:
  """Returns `energy_distance` of the meaning 'half': PerturBench's mmd."""
  return energy_distance(x, y, x_mask=x_mask, y_mask=y_mask, meaning='half')


@registry.metric(
  name='energy_distance_squared',
  best=0.0,
  direction='lower',
  needs=('x', 'y'),
  reference='pertpy up to 0.10 edistance; CellFlow',
)
def energy_distance_squared(x, y, *, x_mask=None, y_mask=None) -> Array:
  """Returns `energy_distance` of the meaning 'squared': early pertpy's."""
  return energy_distance(x, y, x_mask=x_mask, y_mask=y_mask, meaning='squared')


@registry.metric(
  name='energy_distance_unbiased',
  best=0.0,
  direction='lower',
  needs=('x', 'y'),
  reference='newer pertpy edistance; scPertEval; U-statistic',
)
def energy_distance_unbiased(x, y, *, x_mask=None, y_mask=None) -> Array:
  """Returns `energy_distance` of the meaning 'unbiased'.

  The best value, 0, is that of equal distributions in expectation; of a set and
  itself it is below 0.
  """
  return energy_distance(x, y, x_mask=x_mask, y_mask=y_mask, meaning='unbiased')


@jax.jit
def mean_pairwise(
  x: Array,
  y: Array,
  *,
  x_mask: Array | None = None,
  y_mask: Array | None = None,
) -> Array:
  """Returns E|x - y| over all pairs, pertpy's mean_pairwise.

  Not in the registry: the best value depends on the spread of `y`, and a
  prediction without spread has a better one than the truth.
  """

  def compare(side, other):
    origin = mean(other)
    side, other = shifted(side, origin), shifted(other, origin)
    return pair_mean(side, other, root)

  return by_condition(compare, x, y, x_mask, y_mask)
