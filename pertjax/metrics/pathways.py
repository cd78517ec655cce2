"""Scores of units that stand for gene sets, and SENA's ways to pool batches.

Differential activation, its ratio (DAR) and recall are those of SENA (ICLR
2025, arXiv 2506.12439) and of its code; arrays in, arrays out.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from pertjax.types import Array


def differential_activation(control: Array, perturbed: Array) -> Array:
  """Returns |mean over control cells - mean over perturbed cells|, [units].

  Args:
    control: [cells, units].
    perturbed: [cells, units].
  """
  return jnp.abs(jnp.mean(control, 0) - jnp.mean(perturbed, 0))


def activation_ratio(activation: Array, targeted: Array) -> Array:
  """Returns the DAR: mean activation of targeted units over that of others.

  Above 1, the sets that a perturbed gene belongs to move more than the others.

  Args:
    activation: [..., units] differential activation.
    targeted: bool [..., units]; sets of the perturbed gene.

  Returns:
    [...]; NaN where no unit, or every one, is targeted.
  """
  hit = jnp.asarray(targeted, activation.dtype)
  inside = jnp.sum(activation * hit, -1) / jnp.sum(hit, -1)
  outside = jnp.sum(activation * (1 - hit), -1) / jnp.sum(1 - hit, -1)
  return inside / outside


def recall_at(scores: Array, targeted: Array, *, top: int) -> Array:
  """Returns the share of targeted units among the `top` highest scores.

  Args:
    scores: [units]; ties go to the first unit.
    targeted: bool [units].
    top: how many.

  Returns:
    (); NaN where no unit is targeted.
  """
  order = jnp.argsort(-scores, stable=True)[:top]
  hit = jnp.asarray(targeted, scores.dtype)
  return jnp.sum(hit[order]) / jnp.sum(hit)


def batch_groups(num_batches: int, *, every: int = 10) -> tuple[range, ...]:
  """Returns which batches SENA's evaluation pools: the 1st, then tens.

  What has been collected is scored at batches 0, 10, 20, ...; the batches
  after the last of these are never scored.

  Args:
    num_batches: of a fold.
    every: batches between two scores.
  """
  ends = range(0, num_batches, every)
  return tuple(range(max(0, e - every + 1), e + 1) for e in ends)


def seed_criterion(total: Any, *terms: Any) -> Any:
  """Returns SENA's score of an epoch: the mean of the total and of its terms.

  The total is weighted by schedules that rise, its terms are not: the score
  can prefer an epoch before the weights are full.

  Args:
    total: mean over the epoch of the weighted sum.
    *terms: of MMD, reconstruction, KL and L1.
  """
  return jax.tree.reduce(lambda a, b: a + b, [total, *terms]) / (1 + len(terms))
