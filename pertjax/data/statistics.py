"""Means over groups of cells, on the device: what closed forms are made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from pertjax.data import arrays

_BLOCK = 2048


class PairMeans(NamedTuple):
  """Means of the cells of one split.

  Attributes:
    perturbations: int32 [pairs, order]; what the pair's condition is made of.
    doses: float32 [pairs, order].
    group: int32 [pairs].
    count: float32 [pairs]; perturbed cells.
    mean: float32 [pairs, features].
    control: float32 [groups, features]; mean of the group's control cells, 0
      where it has none.
    control_count: float32 [groups].
  """

  perturbations: jax.Array
  doses: jax.Array
  group: jax.Array
  count: jax.Array
  mean: jax.Array
  control: jax.Array
  control_count: jax.Array

  @property
  def shift(self) -> jax.Array:
    """Perturbed minus control mean of the pair's group, [pairs, features]."""
    return self.mean - self.control[self.group]


class FitData(NamedTuple):
  """What `Model.fit` may read.

  Attributes:
    arrays: the dataset; only its `train` rows are for learning.
    pairs: means of the training cells' expression.
  """

  arrays: arrays.PerturbArrays
  pairs: PairMeans


def segment_means(
  data: arrays.PerturbArrays,
  rows: jax.Array,
  segment: jax.Array,
  num_segments: int,
  transform: Callable[[jax.Array], jax.Array] | None = None,
) -> tuple[jax.Array, jax.Array]:
  """Returns ([segments, features] means, [segments] counts) of some cells.

  Args:
    data: the dataset.
    rows: int32 [chosen].
    segment: int32 [chosen]; which mean each row belongs to.
    num_segments: static.
    transform: of [cells, genes] to [cells, features]; none for expression.

  Cells are read in blocks, so that the peak does not grow with their number;
  an empty segment has mean 0. A second pass adds the mean of what the first
  left over: plain float32 sums of log counts were wrong by 6e-4 of their value
  at 100,000 cells, which is as much as many an effect, and are by 3e-6 with it.
  """
  transform = transform or (lambda x: x)
  width = jax.eval_shape(
    lambda: transform(jnp.zeros((1, data.cells.shape[1])))
  ).shape[1]
  if not rows.shape[0]:
    return jnp.zeros((num_segments, width)), jnp.zeros(num_segments)
  blocks = -(-rows.shape[0] // _BLOCK)
  index = jnp.arange(blocks * _BLOCK)
  # Padding goes to one segment too many.
  padded = jnp.minimum(index, rows.shape[0] - 1)
  target = jnp.where(index < rows.shape[0], segment[padded], num_segments)
  count = jax.ops.segment_sum(jnp.ones(rows.shape[0]), segment, num_segments)
  divisor = jnp.maximum(count, 1.0)[:, None]

  def average(around):
    """Averages the distances from `around` [segments, features]."""

    def add(total, block):
      block_rows, at = block
      values = transform(arrays.gather(data.cells, block_rows))
      values = values.astype(jnp.float32)
      values = values - around[jnp.minimum(at, num_segments - 1)]
      return total + jax.ops.segment_sum(values, at, num_segments + 1), None

    total, _ = jax.lax.scan(
      add,
      jnp.zeros((num_segments + 1, width)),
      (rows[padded].reshape(-1, _BLOCK), target.reshape(-1, _BLOCK)),
    )
    return total[:-1] / divisor

  mean = average(jnp.zeros((num_segments, width)))
  return mean + average(mean), count


def pair_means(
  data: arrays.PerturbArrays,
  rows: arrays.Rows,
  transform: Callable[[jax.Array], jax.Array] | None = None,
) -> PairMeans:
  """Returns the means over every pair and over every group's controls.

  Args:
    data: the dataset.
    rows: the split, usually `data.train`.
    transform: see segment_means; an encoder, for means in latent space.
  """
  num_pairs = rows.pair_condition.shape[0]
  position = jnp.arange(rows.perturbed.shape[0])
  segment = (
    jnp.searchsorted(rows.pair_start, position, side='right').astype(jnp.int32)
    - 1
  )
  mean, count = segment_means(
    data, rows.perturbed, segment, num_pairs, transform
  )
  control, control_count = segment_means(
    data, rows.control, data.group[rows.control], data.num_groups, transform
  )
  return PairMeans(
    perturbations=data.condition_perturbations[rows.pair_condition],
    doses=data.condition_doses[rows.pair_condition],
    group=rows.pair_group,
    count=count,
    mean=mean,
    control=control,
    control_count=control_count,
  )
