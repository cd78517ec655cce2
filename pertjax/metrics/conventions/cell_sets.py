"""Sets of cells of a problem: reading them, and comparing pairs of sets.

Cells are read one condition at a time and padded to few sizes, so that few
programs are compiled. The distances are those of `pertjax.metrics.distribution`
under the names of the convention 'distances'.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pertjax import rng
from pertjax.metrics import aggregates, registry, sides
from pertjax.metrics import problem as problem_lib
from pertjax.metrics.distribution import energy, kernels, permutation, transport
from pertjax.types import Array

PRECISIONS = ('float32', 'float64')
SPACES = ('genes', 'pca')
P_VALUES = ('phipson_smyth', 'pertpy')
UNITS = ('mean', 'std', 'absolute')

_LEAST = 16  # Cells that a set is padded to at least.


# ----------------------------------------------------------------------------
# Reading cells.


class View(NamedTuple):
  """How the cells of a problem are read.

  Attributes:
    problem: whose.
    onto: components that cells are projected on; None for the genes.
    dtype: 'float32' or 'float64'.
  """

  problem: problem_lib.Problem
  onto: aggregates.Components | None = None
  dtype: str = 'float32'


def view(
  problem: problem_lib.Problem,
  *,
  space: str = 'genes',
  components: int = 50,
  precision: str = 'float32',
) -> View:
  """Returns a view of a problem.

  Args:
    problem: whose cells.
    space: 'genes', or 'pca' for principal components of all observed cells,
      which no prediction moves.
    components: their number.
    precision: of the cells; distances are computed in it.

  Raises:
    ValueError: when a name is unknown or a number is not positive.
  """
  registry.check_choice('space', space, SPACES)
  registry.check_choice('precision', precision, PRECISIONS)
  if components < 1:
    raise ValueError(f'components is {components}; allowed: 1 or more')
  onto = None
  if space == 'pca':
    onto = aggregates.components(problem.observed, components)
  return View(problem, onto, precision)


def padded_size(number: int) -> int:
  """Returns the number of rows that a set of cells is padded to.

  Four sizes in an octave, so that at most a fifth of the rows are empty.
  """
  if number <= _LEAST:
    return _LEAST
  step = math.ceil(4 * math.log2(number) - 1e-9)
  return -(-math.ceil(2 ** (step / 4) - 1e-9) // 8) * 8


def padded(values: np.ndarray, dtype: str) -> tuple[np.ndarray, np.ndarray]:
  """Returns cells [rows, features] with empty rows behind, and which are not.

  Args:
    values: [cells, features].
    dtype: of the result.
  """
  rows = padded_size(len(values))
  out = np.zeros((rows, values.shape[1]), dtype)
  out[: len(values)] = values
  return out, np.arange(rows) < len(values)


def cells(at: View, side: str, condition: int) -> np.ndarray:
  """Reads one set of cells, dense [cells, features].

  Args:
    at: the view.
    side: 'observed' or 'predicted'; 'control' is the observed control of the
      condition's group, 'predicted_control' the predicted one, or the observed
      one where there is none.
    condition: whose.
  """
  problem = at.problem
  label, source = condition, side
  if side in ('control', 'predicted_control'):
    label = int(problem.control_labels[condition])
    group = int(np.asarray(problem.group)[condition])
    own = side == 'predicted_control' and problem.has_predicted_control[group]
    source = 'predicted' if own else 'observed'
  values, _ = getattr(problem, source).cells([label])
  values = sides.dense(values)
  return values if at.onto is None else aggregates.project(values, at.onto)


def read(at: View, side: str, condition: int) -> tuple[np.ndarray, np.ndarray]:
  """Reads one set of cells, padded; arguments as in `cells`."""
  return padded(cells(at, side, condition), at.dtype)


# ----------------------------------------------------------------------------
# One pair of sets.


class Settings(NamedTuple):
  """Options of the distances.

  Attributes:
    bandwidth: of the RBF kernel, in units of the features; 'median' is the
      median distance of two observed cells.
    epsilon: of the entropy of transport, in `unit`s.
    unit: one of UNITS: the mean of the squared distances between the sets
      (older OTT, and pertpy with it), their standard deviation (newer), or 1.
    iterations: of transport at most.
    tolerance: see `transport.entropic_wasserstein`.
  """

  bandwidth: str | float = 'median'
  epsilon: float = 0.05
  unit: str = 'mean'
  iterations: int = 2000
  tolerance: float | None = 1e-4


def energies(
  x: Array, x_mask: Array, y: Array, y_mask: Array
) -> dict[str, Array]:
  """Returns the energy distances that go over pairs, from one pass over them.

  `energy.energy_distance` in the meanings 'biased', 'half' and 'unbiased', and
  `energy.mean_pairwise`. With D the mean over the n^2 pairs of a set, L a level
  that cancels and self pairs at distance 0, the mean over n (n - 1) pairs of
  what is above L is (n^2 (D - L) + n L) / (n (n - 1)).

  Args:
    x: [n, features].
    x_mask: bool [n].
    y: [m, features].
    y_mask: bool [m].
  """
  side, other = (
    energy.cells(v, m, v.dtype) for v, m in ((x, x_mask), (y, y_mask))
  )
  origin = energy.mean(other)
  side, other = energy.shifted(side, origin), energy.shifted(other, origin)
  level = jnp.sqrt(2 * energy.spread(other))

  def above(squared):
    return energy.root(squared) - level

  between = energy.pair_mean(side, other, above)
  biased, unbiased = 0.0, 0.0
  for s in (side, other):
    within, n = energy.pair_mean(s, None, above), s.count
    others = (n * within + level) / (n - 1)  # NaN or infinite for one cell.
    biased += between - within
    unbiased += between - jnp.where(n > 1, others, jnp.nan)
  return {
    'biased': biased,
    'half': biased / 2,
    'unbiased': unbiased,
    'mean_pairwise': between + level,
  }


def _cost_deviation(x, x_mask, y, y_mask) -> Array:
  """Standard deviation of the squared distances of two sets, ()."""
  side, other = (
    energy.cells(v, m, v.dtype) for v, m in ((x, x_mask), (y, y_mask))
  )
  origin = energy.mean(other)
  side, other = energy.shifted(side, origin), energy.shifted(other, origin)
  centre = energy.pair_mean(side, other, lambda s: s)
  return energy.root(
    energy.pair_mean(side, other, lambda s: jnp.square(s - centre))
  )


@functools.partial(jax.jit, static_argnames=('names', 'settings'))
def between(
  x: Array,
  x_mask: Array,
  y: Array,
  y_mask: Array,
  *,
  names: tuple[str, ...],
  settings: Settings = Settings(),  # noqa: B008, immutable.
) -> dict[str, Array]:
  """Computes distances of two sets of cells.

  Args:
    x: [n, features], the predicted ones where it matters.
    x_mask: bool [n].
    y: [m, features].
    y_mask: bool [m].
    names: columns of 'distances' that need no control, static.
    settings: static.

  Returns:
    {name: ()}.
  """
  masks = {'x_mask': x_mask, 'y_mask': y_mask}
  epsilon = settings.epsilon
  if settings.unit == 'std':
    epsilon = epsilon * _cost_deviation(x, x_mask, y, y_mask)
  sinkhorn = {
    'epsilon': epsilon,
    'relative': settings.unit == 'mean',
    'iterations': settings.iterations,
    'tolerance': settings.tolerance,
  }
  pairs = {}
  if set(names) & set(_PAIRS):
    pairs = energies(x, x_mask, y, y_mask)

  def bandwidth():
    if settings.bandwidth == 'median':
      return kernels.median_bandwidth(y, y_mask=y_mask)
    return jnp.asarray(settings.bandwidth, x.dtype)

  functions = {
    **{name: functools.partial(pairs.get, key) for name, key in _PAIRS.items()},
    'edistance_squared': lambda: energy.energy_distance_squared(x, y, **masks),
    'euclidean': lambda: kernels.distance_of_means(x, y, **masks),
    'mmd_linear': lambda: kernels.mmd_linear(x, y, **masks),
    'mmd_rbf': lambda: kernels.mmd_rbf(x, y, bandwidth=bandwidth(), **masks),
    'mmd_rbf_unbiased': lambda: kernels.mmd_rbf(
      x, y, bandwidth=bandwidth(), unbiased=True, **masks
    ),
    'rbf_bandwidth': bandwidth,
    'sinkhorn_divergence': lambda: transport.sinkhorn_divergence(
      x, y, **sinkhorn, **masks
    ),
    'wasserstein_entropic': lambda: transport.entropic_wasserstein(
      x, y, **sinkhorn, **masks
    ),
    'wasserstein_1d': lambda: transport.wasserstein_1d(x, y, **masks),
  }
  return {name: functions[name]() for name in names}


_PAIRS = {
  'edistance_biased': 'biased',
  'edistance_half': 'half',
  'edistance_unbiased': 'unbiased',
  'mean_pairwise': 'mean_pairwise',
}


def compare(
  at: View,
  names: Sequence[str],
  settings: Settings = Settings(),  # noqa: B008, immutable.
) -> dict[str, np.ndarray]:
  """Computes distances of predicted from observed cells.

  Args:
    at: the cells.
    names: columns of 'distances' that need no control.
    settings: of the distances.

  Returns:
    {name: float64 [conditions]}.
  """
  number = at.problem.num_conditions
  out = {name: np.full(number, np.nan) for name in names}
  for condition in range(number if names else 0):
    x, y = read(at, 'predicted', condition), read(at, 'observed', condition)
    found = between(*x, *y, names=tuple(names), settings=settings)
    for name, value in found.items():
      out[name][condition] = value
  return out


# ----------------------------------------------------------------------------
# Against controls.


@functools.partial(jax.jit, static_argnames='meaning')
def _prepared(y, y_mask, *, meaning):
  prepare, _ = energy.energy_parts(meaning)
  return prepare(energy.cells(y, y_mask, y.dtype))


@functools.partial(jax.jit, static_argnames='meaning')
def _from_prepared(x, x_mask, control, *, meaning):
  _, distance = energy.energy_parts(meaning)
  return distance(energy.cells(x, x_mask, x.dtype), control)


def from_control(at: View, side: str, *, meaning: str = 'biased') -> np.ndarray:
  """Returns the energy distance of each condition's cells from their control.

  The control of a group is read once, conditions one at a time: what
  `permutation.energy_from_control` gives, without a matrix of all cells.

  Args:
    at: the cells.
    side: 'observed', or 'predicted' from the predicted control, or from the
      observed one in groups without.
    meaning: see `energy.energy_distance`.

  Returns:
    float64 [conditions].
  """
  registry.check_choice('meaning', meaning, energy.MEANINGS)
  control = 'control' if side == 'observed' else 'predicted_control'
  group = np.asarray(at.problem.group)
  out = np.full(at.problem.num_conditions, np.nan)
  for number in np.unique(group):
    members = np.flatnonzero(group == number)
    prepared = _prepared(*read(at, control, members[0]), meaning=meaning)
    for condition in members:
      x = read(at, side, condition)
      out[condition] = _from_prepared(*x, prepared, meaning=meaning)
  return out


def etest(
  at: View,
  first: str,
  second: str,
  *,
  permutations: int = 1000,
  seed: int = 0,
  meaning: str = 'biased',
  p_value: str = 'phipson_smyth',
) -> tuple[np.ndarray, np.ndarray]:
  """Tests each condition by permutation of the energy distance.

  Args:
    at: the cells.
    first: a side, see `cells`.
    second: another one.
    permutations: of each condition.
    seed: of all of them; the same one gives the same p-values.
    meaning: see `permutation.edistance_test`.
    p_value: 'phipson_smyth' is (1 + count) / (1 + permutations); 'pertpy' is
      max(1, count) / permutations. The count is of permutations that reach the
      distance; pertpy's is of those above it, the same but for ties.

  Returns:
    p and Holm-Sidak adjusted p, float64 [conditions]; NaN where a set has no
    cell, or one cell with an unbiased meaning.
  """
  registry.check_choice('p_value', p_value, P_VALUES)
  key = rng.root(seed)
  p = np.full(at.problem.num_conditions, np.nan)
  for condition in range(len(p)):
    x, y = read(at, first, condition), read(at, second, condition)
    found = permutation.edistance_test(
      x[0][None],
      y[0],
      jax.random.fold_in(key, condition),
      num_permutations=permutations,
      x_mask=x[1][None],
      y_mask=y[1],
      meaning=meaning,
    )
    if np.isnan(found.distance[0]):
      continue
    count = int(found.exceeding[0])
    if p_value == 'pertpy':
      p[condition] = max(1, count) / permutations
    else:
      p[condition] = (1 + count) / (1 + permutations)
  return p, np.asarray(permutation.holm_sidak(jnp.asarray(p)))
