"""Draw batches of cells on the device: pure functions of a key.

A sampler is `(key, data, rows, size) -> Batch`. A model names the one that
feeds it (`Model.sampling`); a name with a dot is imported from elsewhere.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable

import jax
import jax.numpy as jnp

from pertjax import names, types
from pertjax.data import arrays

Sampler = Callable[
  [jax.Array, arrays.PerturbArrays, arrays.Rows, int], types.Batch
]


def draw_controls(
  key: jax.Array, rows: arrays.Rows, group: jax.Array
) -> jax.Array:
  """Draws a control cell of the same group for each, with replacement.

  Args:
    key: consumed.
    rows: see Rows; every group drawn from must have controls here.
    group: int32 [batch].

  Returns:
    int32 [batch] row numbers.
  """
  count = rows.control_count[group]
  u = jax.random.uniform(key, group.shape)
  # u * count can round up to count itself in float32.
  offset = jnp.minimum((u * count).astype(jnp.int32), count - 1)
  return rows.control[rows.control_start[group] + offset]


def _batch(data, target_rows, source_rows, condition, weight=None):
  group = data.group[target_rows]
  if weight is None:
    weight = jnp.ones(target_rows.shape, jnp.float32)
  return types.Batch(
    target=arrays.gather(data.cells, target_rows),
    source=(
      None if source_rows is None else arrays.gather(data.cells, source_rows)
    ),
    condition=arrays.conditions_at(data, condition, group),
    weight=weight,
  )


def paired(key, data, rows, size) -> types.Batch:
  """Perturbed cells, uniformly; each with a control cell of its group."""
  key_cell, key_control = jax.random.split(key)
  choice = jax.random.randint(key_cell, (size,), 0, rows.perturbed.shape[0])
  target = rows.perturbed[choice]
  source = _partners(key_control, data, rows, target)
  return _batch(data, target, source, data.condition[target])


def _partners(key, data, rows, target):
  """Returns the control row that each cell is paired with."""
  if data.partner.shape[0]:
    return data.partner[target]
  return draw_controls(key, rows, data.group[target])


def cells(key, data, rows, size) -> types.Batch:
  """All cells of the split, controls included, uniformly; no source."""
  target = _cell_rows(key, rows, size)
  return _batch(data, target, None, data.condition[target])


def _cell_rows(key, rows, size):
  num_perturbed = rows.perturbed.shape[0]
  total = num_perturbed + rows.control.shape[0]
  choice = jax.random.randint(key, (size,), 0, total)
  return jnp.concatenate([rows.perturbed, rows.control])[choice]


def by_condition(key, data, rows, size) -> types.Batch:
  """Cells of one (condition, group) pair and as many controls of its group.

  For models that match distributions: every cell of the batch shares its
  condition. Conditions are drawn uniformly, cells with replacement.
  """
  key_pair, key_cell, key_control = jax.random.split(key, 3)
  pair = jax.random.randint(key_pair, (), 0, rows.pair_condition.shape[0])
  u = jax.random.uniform(key_cell, (size,))
  count = rows.pair_count[pair]
  offset = jnp.minimum((u * count).astype(jnp.int32), count - 1)
  target = rows.perturbed[rows.pair_start[pair] + offset]
  source = draw_controls(key_control, rows, data.group[target])
  return _batch(data, target, source, data.condition[target])


_SAMPLERS: dict[str, Sampler] = {
  'paired': paired,
  'cells': cells,
  'by_condition': by_condition,
}


def get(name: str) -> Sampler:
  """Returns a sampler by name; 'package.module.function' is imported.

  Raises:
    ValueError: if no sampler has this name, or its module has no such function.
    ImportError: if its module cannot be imported.
  """
  if name in _SAMPLERS:
    return _SAMPLERS[name]
  if '.' in name:
    module, function = name.rsplit('.', 1)
    found = getattr(importlib.import_module(module), function, None)
    if callable(found):
      return found
    raise ValueError(f'sampler {name!r}: {module} has no function {function!r}')
  raise ValueError(names.unknown('sampler', name, _SAMPLERS))


def evaluation_batches(
  name: str, data: arrays.PerturbArrays, rows: arrays.Rows, size: int
) -> tuple[jax.Array, jax.Array]:
  """Lays out every cell of a split in batches, once.

  Args:
    name: the model's sampler: 'cells' takes controls too, others perturbed
      cells; the batches of 'by_condition' have one condition and group each.
    data: the dataset.
    rows: the split's rows.
    size: cells in a batch.

  Returns:
    (rows int32 [batches, size], weight float32 [batches, size]); padding has
    weight 0 and may fill the last batches whole. No batches where the split
    is empty.
  """
  del data
  chosen = rows.perturbed
  if name == 'cells':
    chosen = jnp.concatenate([rows.perturbed, rows.control])
  total = chosen.shape[0]
  if not total:
    return jnp.zeros((0, size), jnp.int32), jnp.zeros((0, size))
  if name == 'by_condition':
    return _batches_of_pairs(rows, size)
  batches = -(-total // size)
  index = jnp.arange(batches * size)
  weight = (index < total).astype(jnp.float32)
  padded = chosen[jnp.minimum(index, total - 1)]
  return padded.reshape(batches, size), weight.reshape(batches, size)


def _batches_of_pairs(rows, size):
  """Lays out the cells of one pair after the other, each in its own batches."""
  num_pairs = rows.pair_count.shape[0]
  # Counts are traced; this many batches are enough whatever they are.
  batches = rows.perturbed.shape[0] // size + num_pairs
  end = jnp.cumsum(-(-rows.pair_count // size))
  number = jnp.arange(batches)
  pair = jnp.minimum(jnp.searchsorted(end, number, side='right'), num_pairs - 1)
  first = end - -(-rows.pair_count // size)
  place = (number - first[pair])[:, None] * size + jnp.arange(size)[None]
  count = rows.pair_count[pair][:, None]
  index = rows.pair_start[pair][:, None] + jnp.minimum(place, count - 1)
  return rows.perturbed[index], (place < count).astype(jnp.float32)


def evaluation_batch(
  name: str,
  key: jax.Array,
  data: arrays.PerturbArrays,
  rows: arrays.Rows,
  target: jax.Array,
  weight: jax.Array,
) -> types.Batch:
  """Gathers one batch of `evaluation_batches`, with controls if it needs."""
  source = None
  rows = arrays.with_controls(data, rows)
  if name == 'by_condition':
    source = draw_controls(key, rows, data.group[target])
  elif name != 'cells':
    source = _partners(key, data, rows, target)
  return _batch(data, target, source, data.condition[target], weight)
