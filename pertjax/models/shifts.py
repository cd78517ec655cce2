"""Shifts between control and perturbed means, and how to combine them.

Every closed-form predictor here, in expression or in a latent space, adds a
weighted sum of the training pairs' shifts to the control cells. They differ
only in the weights, which this module makes.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from pertjax import types
from pertjax.data import statistics

PairMeans = statistics.PairMeans


def _normalised(weight: jax.Array) -> jax.Array:
  """Makes rows sum to 1; a row of zeros stays."""
  return weight / jnp.maximum(jnp.sum(weight, -1, keepdims=True), 1e-12)


def _first(*options: jax.Array) -> jax.Array:
  """Takes, row by row, the first option that is not all zero."""
  out = options[-1]
  for option in reversed(options[:-1]):
    found = jnp.any(option > 0, axis=-1, keepdims=True)
    out = jnp.where(found, option, out)
  return out


def _sizes(ids: jax.Array) -> jax.Array:
  return jnp.sum(ids >= 0, axis=-1)


def same_condition(table: PairMeans, condition: types.Condition) -> jax.Array:
  """Returns bool [queries, pairs]: same perturbations at the same doses."""
  # Tokens are sorted in both, so that equal conditions are equal rows.
  ids = condition.perturbations[:, None] == table.perturbations[None]
  doses = jnp.isclose(condition.doses[:, None], table.doses[None], rtol=1e-4)
  return jnp.all(ids & doses, axis=-1)


def singles_of(
  table: PairMeans, token: jax.Array, dose: jax.Array
) -> jax.Array:
  """Returns bool [queries, pairs]: the single perturbation, nearest dose.

  Args:
    table: of the training pairs.
    token: int32 [queries].
    dose: float32 [queries]; nearness is of logarithms.
  """
  single = (_sizes(table.perturbations) == 1)[None] & (
    table.perturbations[None, :, 0] == token[:, None]
  )
  gap = jnp.abs(jnp.log1p(table.doses[None, :, 0]) - jnp.log1p(dose)[:, None])
  gap = jnp.where(single, gap, jnp.inf)
  nearest = gap <= jnp.min(gap, axis=-1, keepdims=True) + 1e-6
  return single & nearest


def group_similarity(control: jax.Array, count: jax.Array) -> jax.Array:
  """Returns minus the distance between control means, [groups, groups].

  Groups without controls are infinitely far.
  """
  square = jnp.sum(control * control, -1)
  distance = square[:, None] + square[None] - 2 * control @ control.T
  missing = (count == 0)[:, None] | (count == 0)[None]
  return jnp.where(missing, -jnp.inf, -distance)


def additive_weights(
  table: PairMeans,
  condition: types.Condition,
  *,
  groups: str = 'own',
  exclude: jax.Array | None = None,
  by_cells: bool = False,
) -> jax.Array:
  """Returns the weights [queries, pairs] of the sum of known effects.

  A condition that was seen in another group is its shift there; otherwise its
  perturbations' single shifts are summed. Each effect is taken from the
  query's own group where it was seen there, and averaged over groups
  otherwise. A perturbation never seen alone contributes the mean single shift.

  Args:
    table: of the training pairs.
    condition: [queries].
    groups: 'own' as above, or 'nearest': of the groups where the effect was
      seen, the one whose controls are most similar to the query's.
    exclude: optional bool [queries, pairs] that must not be used.
    by_cells: average over groups by their cells instead of alike.
  """
  usable = (
    jnp.ones((condition.group.shape[0], table.group.shape[0]), bool)
    if exclude is None
    else ~exclude
  )
  own = condition.group[:, None] == table.group[None]
  cells = table.count[None] if by_cells else jnp.ones((1, table.count.shape[0]))
  if groups == 'nearest':
    similar = group_similarity(table.control, table.control_count)
    near = similar[condition.group][:, table.group]

  def of(match):
    """Chooses groups for one effect: bool to weights, both [queries, pairs]."""
    match = match & usable
    weight = _first(
      jnp.where(match & own, 1.0, 0.0), jnp.where(match, cells, 0.0)
    )
    if groups == 'nearest':
      best = jnp.max(jnp.where(match, near, -jnp.inf), -1, keepdims=True)
      weight = jnp.where(match & (near >= best), 1.0, 0.0)
    return _normalised(weight)

  single = (_sizes(table.perturbations) == 1)[None] & usable
  average = _first(
    _normalised(jnp.where(single & own, 1.0, 0.0)),
    _normalised(jnp.where(single, 1.0, 0.0)),
    _normalised(jnp.where(usable, 1.0, 0.0)),
  )
  summed = jnp.zeros(usable.shape)
  for place in range(condition.perturbations.shape[-1]):
    token = condition.perturbations[:, place]
    match = singles_of(table, token, condition.doses[:, place])
    effect = _first(of(match), average)
    summed = summed + jnp.where((token >= 0)[:, None], effect, 0.0)
  whole = of(same_condition(table, condition))
  return _first(whole, summed)


def mean_weights(
  table: PairMeans, condition: types.Condition, *, by_group: bool
) -> jax.Array:
  """Returns the weights [queries, pairs] of the mean over training pairs."""
  every = jnp.ones((condition.group.shape[0], table.group.shape[0]))
  if not by_group:
    return _normalised(every)
  own = condition.group[:, None] == table.group[None]
  return _normalised(_first(jnp.where(own, every, 0.0), every))


def is_perturbed(condition: types.Condition) -> jax.Array:
  """Returns float32 [queries, 1]: 0 where the condition is the control."""
  return (_sizes(condition.perturbations) > 0).astype(jnp.float32)[:, None]


def own_conditions(table: PairMeans) -> types.Condition:
  """Returns the training pairs as queries."""
  return types.Condition(
    perturbations=table.perturbations,
    doses=table.doses,
    covariates=jnp.zeros((table.group.shape[0], 0), jnp.int32),
    group=table.group,
  )
