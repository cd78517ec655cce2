"""What energy distances say of a screen: which conditions differ from control.

Sets of cells and masks are those of `distribution`.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pertjax.metrics import pseudobulk, registry
from pertjax.metrics.distribution import energy
from pertjax.types import Array

# Permutations that are drawn at once; bounds memory, sets no result.
_BLOCK = 256
# Values closer than this share of the mean distance are equal: the same cells
# drawn in another order differ in rounding.
_TIE = 1e-6


class EnergyTest(NamedTuple):
  """Result of `edistance_test`.

  Attributes:
    distance: [conditions] energy distance from control.
    p_value: [conditions] of the permutation test.
    p_adjusted: [conditions] Holm-Sidak over the conditions.
    exceeding: int [conditions] permutations that reached the distance.
  """

  distance: Array
  p_value: Array
  p_adjusted: Array
  exceeding: Array


@jax.jit
def holm_sidak(p_values: Array) -> Array:
  """Adjusts p-values for the number of tests, step down.

  The k-th smallest of n becomes the largest of 1 - (1 - p_i)^(n - i + 1) over
  i <= k (Holm 1979 with the bound of Sidak 1967). It controls the chance of any
  false discovery where tests are independent or positively dependent.

  Args:
    p_values: [conditions]; NaN is no test, and stays NaN.

  Returns:
    [conditions].
  """
  p_values = jnp.asarray(p_values)
  order = jnp.argsort(p_values)  # NaN goes last.
  ranked = p_values[order]
  rest = jnp.sum(~jnp.isnan(p_values)) - jnp.arange(len(p_values))
  # A p-value of 1 has the logarithm -inf, which ends as 1 again.
  each = -jnp.expm1(jnp.maximum(rest, 1) * jnp.log1p(-ranked))
  return jnp.zeros_like(ranked).at[order].set(jax.lax.cummax(each))


def _matrix(a, b, within_b, function):
  """Distances among the cells of both sets, [n + m, n + m]."""
  within = function(energy.squared_distances(a.values))
  between = function(energy.squared_distances(a.values, b.values))
  return jnp.block([[within, between], [between.T, within_b]])


def _energies(chosen, distances, everyone, *, unbiased):
  """Energy distances of splits of the pooled cells.

  Args:
    chosen: [splits, cells] 1 for the cells on the first side.
    distances: [cells, cells], less a constant; 0 on the diagonal if unbiased.
    everyone: [cells] 1 for cells, 0 for padding.
    unbiased: leaves self pairs out.

  Returns:
    [splits].
  """
  to_all = distances * everyone[None]
  rows = jnp.sum(to_all, -1) * everyone
  touching = energy.dot(chosen, rows)
  inside = jnp.sum(energy.dot(chosen, distances) * chosen, -1)
  between = touching - inside
  outside = jnp.sum(rows) - touching - between
  n = jnp.sum(chosen, -1)
  m = jnp.sum(everyone) - n
  less = 1 if unbiased else 0
  within = inside / (n * (n - less)) + outside / (m * (m - less))
  return 2 * between / (n * m) - within


def _draw(key, number, valid):
  """Draws `number` of the valid cells, [cells]."""
  bits = jax.random.bits(key, valid.shape, jnp.uint32) >> 1
  # Padding comes after every cell.
  bits = jnp.where(valid, bits.astype(jnp.int32), jnp.iinfo(jnp.int32).max)
  last = jnp.sort(bits)[number - 1]
  # Two equal bits at the edge, once in a million draws, make a set of one cell
  # more, whose distance is as valid.
  return valid & (bits <= last)


@functools.partial(jax.jit, static_argnames=('num_permutations', 'meaning'))
def edistance_test(
  x: Array,
  y: Array,
  key: Array,
  *,
  num_permutations: int = 1000,
  x_mask: Array | None = None,
  y_mask: Array | None = None,
  meaning: str = 'biased',
) -> EnergyTest:
  """Tests whether each condition's cells are distributed as the control's.

  The E-test (Peidli et al. 2024, https://doi.org/10.1038/s41592-023-02144-y):
  cells of a condition and of control are pooled and split anew at random, in
  sets of the same sizes; p = (1 + count) / (1 + num_permutations), where the
  count is of splits whose energy distance is not below that of the true one
  (Phipson & Smyth 2010, https://doi.org/10.2202/1544-6115.1585; never 0).
  pertpy's p is max(1, #above) / num_permutations instead.

  Distances are computed once for each condition, those within a shared control
  once for all; every split is a product with its indicator. Memory: the matrix
  of distances of the pooled cells, three times.

  Cells that share a donor or a batch are not exchangeable with the others: the
  test then finds batches.

  Args:
    x: [conditions, n, features].
    y: [m, features] or [conditions, m, features], the control.
    key: a key, consumed; the same one gives the same p-values.
    num_permutations: static.
    x_mask: cells of `x`.
    y_mask: cells of `y`.
    meaning: of the energy distance, see `energy.energy_distance`. 'half'
      is 'biased' but for the reported distance; 'squared' tests means alone.

  Returns:
    See `EnergyTest`; NaN for a condition without an energy distance.

  Raises:
    ValueError: when an option is unknown, shapes do not fit, or there is no
      permutation.
  """
  registry.check_choice('meaning', meaning, energy.MEANINGS)
  if num_permutations < 1:
    raise ValueError(
      f'num_permutations is {num_permutations}; allowed: 1 or more'
    )
  if jnp.ndim(x) != 3:
    raise ValueError(
      f'x has the shape {jnp.shape(x)}; allowed is [conditions, n, features]'
    )
  squared = meaning == 'squared'
  function = (lambda s: s) if squared else energy.root
  keys = jax.random.split(key, jnp.shape(x)[0])

  def prepare(side):
    origin = energy.mean(side)
    side = energy.shifted(side, origin)
    within = function(energy.squared_distances(side.values))
    return side, origin, within

  def compare(side, control, key):
    other, origin, within = control
    side = energy.shifted(side, origin)
    return _test(
      side,
      other,
      _matrix(side, other, within, function),
      key,
      num_permutations,
      meaning == 'unbiased',
    )

  distance, exceeding = energy.by_condition(
    compare, x, y, x_mask, y_mask, prepare=prepare, each=(keys,)
  )
  known = ~jnp.isnan(distance)
  p_value = (1 + exceeding) / (1 + num_permutations)
  p_value = jnp.where(known, p_value.astype(distance.dtype), jnp.nan)
  distance = distance / 2 if meaning == 'half' else distance
  return EnergyTest(distance, p_value, holm_sidak(p_value), exceeding)


def _test(side, other, distances, key, num, unbiased):
  """Returns the distance of two sets and how many splits reach it."""
  everyone = jnp.concatenate([side.weight, other.weight])
  true = jnp.concatenate([side.weight, jnp.zeros_like(other.weight)])
  valid = everyone > 0
  number = jnp.sum(side.mask, dtype=jnp.int32)
  # Equal shares of a constant cancel; without it, sums keep their digits.
  level = energy.dot(everyone, energy.dot(distances, everyone))
  level = level / jnp.square(jnp.sum(everyone))
  centred = distances - level
  if unbiased:
    centred = jnp.where(jnp.eye(len(valid), dtype=bool), 0, centred)
  energies = functools.partial(
    _energies, distances=centred, everyone=everyone, unbiased=unbiased
  )
  distance = energies(true[None])[0]
  reached = distance - _TIE * level

  def exceeds(start):
    numbers = start + jnp.arange(_BLOCK)
    keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(numbers)
    chosen = jax.vmap(lambda k: _draw(k, number, valid))(keys)
    found = energies(chosen.astype(everyone.dtype))
    return jnp.sum((found >= reached) & (numbers < num))

  starts = jnp.arange(0, num, _BLOCK)
  return distance, jnp.sum(jax.lax.map(exceeds, starts), dtype=jnp.int32)


# ----------------------------------------------------------------------------
# Screens: cells with group ids.


def cell_sets(
  groups: np.ndarray, *, num_groups: int
) -> tuple[np.ndarray, np.ndarray]:
  """Lists the cells of each group, on the host.

  Args:
    groups: int [cells]; cells outside [0, num_groups) belong to none.
    num_groups: of them.

  Returns:
    int32 [groups, longest] rows of the cells, in the order of the file, and
    bool [groups, longest], which of them are not padding.
  """
  groups = np.asarray(groups)
  order = np.argsort(groups, kind='stable')
  counted = (groups >= 0) & (groups < num_groups)
  order = order[counted[order]]
  sizes = np.bincount(groups[counted], minlength=num_groups)
  longest = max(1, int(sizes.max(initial=0)))
  mask = np.arange(longest)[None] < sizes[:, None]
  rows = np.zeros((num_groups, longest), np.int32)
  rows[mask] = order
  return rows, mask


def energy_from_control(
  values: Array,
  groups: np.ndarray,
  *,
  num_groups: int,
  control: int = 0,
  meaning: str = 'biased',
) -> Array:
  """Returns the energy distance of each group's cells from the control's.

  Cells are gathered a group at a time; no padded copy of the screen is made.

  Args:
    values: [cells, features].
    groups: int [cells], on the host.
    num_groups: of them.
    control: the group to compare with.
    meaning: see `energy.energy_distance`.

  Returns:
    [groups]; 0 for the control, NaN for a group without cells.

  Raises:
    ValueError: when the control is not a group or has no cells, or groups do
      not fit values.
  """
  groups = np.asarray(groups)
  if not 0 <= control < num_groups:
    raise ValueError(f'control is {control}; allowed: 0 to {num_groups - 1}')
  if groups.shape != jnp.shape(values)[:1]:
    raise ValueError(
      f'groups has the shape {groups.shape}; values are {jnp.shape(values)}'
    )
  own = np.flatnonzero(groups == control)
  if not own.size:
    raise ValueError(f'no cell is of the control, group {control}')
  # The control is often by far the longest: the others are not padded to it.
  others = np.where(groups == control, -1, groups)
  rows, mask = cell_sets(others, num_groups=num_groups)
  rows, mask = (np.delete(x, control, axis=0) for x in (rows, mask))
  found = _from_control(jnp.asarray(values), own, rows, mask, meaning)
  return jnp.insert(found, control, 0)


@functools.partial(jax.jit, static_argnums=4)
def _from_control(values, own, rows, mask, meaning):
  """Energy distances of the cells in each of `rows`, [rows]."""
  dtype = pseudobulk.wide(values)
  prepare, compare = energy.energy_parts(meaning)
  everyone = jnp.ones(own.shape, bool)
  reference = prepare(energy.cells(values[own], everyone, dtype))

  def one(condition):
    at, counted = condition
    return compare(energy.cells(values[at], counted, dtype), reference)

  return jax.lax.map(one, (rows, mask))


def edistance_correlation(
  predicted: Array,
  observed: Array,
  *,
  predicted_groups: np.ndarray,
  observed_groups: np.ndarray,
  num_groups: int,
  control: int = 0,
  meaning: str = 'biased',
) -> Array:
  """Correlates the sizes of effects: cell-eval's pearson_edistance.

  The Pearson correlation over conditions of the energy distance between a
  condition's cells and the control's, predicted cells with predicted control
  cells and observed with observed. It asks whether large effects are predicted
  to be large, and not whether they are the right ones.

  Args:
    predicted: [cells, features], control cells included.
    observed: [other cells, features].
    predicted_groups: int [cells] condition, on the host.
    observed_groups: int [other cells].
    num_groups: conditions, the control included.
    control: its number; it is not correlated.
    meaning: see `energy.energy_distance`; cell-eval's is 'biased'.

  Returns:
    (); NaN for fewer than two conditions, for a constant side, and where a
    condition has no cells.
  """
  sides = []
  for values, groups in (
    (predicted, predicted_groups),
    (observed, observed_groups),
  ):
    found = energy_from_control(
      values, groups, num_groups=num_groups, control=control, meaning=meaning
    )
    sides.append(jnp.delete(found, control))
  return pseudobulk.pearson(*sides)
