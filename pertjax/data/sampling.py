"""Draw batches of cells on the device: pure functions of a key.

A sampler is `(key, data, rows, size) -> Batch`. A model names the one that
feeds it (`Model.sampling`); a name with a dot is imported from elsewhere.

A sampler that goes through the cells in epochs is also told the number of the
batch (`in_epochs`). It needs no state either: the order of an epoch is a
permutation that is computed where it is asked for, one place at a time.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from pertjax import names, types
from pertjax.data import arrays

Sampler = Callable[
  [jax.Array, arrays.PerturbArrays, arrays.Rows, int], types.Batch
]
# (key of the run, number of the batch, data, rows, size) to a batch.
EpochSampler = Callable[
  [jax.Array, jax.Array, arrays.PerturbArrays, arrays.Rows, int], types.Batch
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


# Rounds of `shuffled`; each leaves half of the places where they are.
_ROUNDS = 40


def shuffled(key: jax.Array, place: jax.Array, count: jax.Array) -> jax.Array:
  """Returns what a random permutation of 0 .. count - 1 has in some places.

  The swap-or-not shuffle (Hoang, Morris and Rogaway, CRYPTO 2012): in every
  round each number may change places with its mirror image, by a hash of the
  greater of the two. No table is made: `count` may be traced, and the cost is
  that of the places asked for. The whole permutation of 100,000 cells would
  take 45 ms at every step.

  Args:
    key: which permutation.
    place: int32 [n]; those from `count` on give numbers without a meaning.
    count: int32, 1 or more.
  """
  bits = jax.random.bits(key, (_ROUNDS, 2), jnp.uint32)
  count = count.astype(jnp.uint32)

  # A loop: unrolled, it would be half of the time that a step compiles for.
  def swap(round_number, number):
    mirror, salt = bits[round_number]
    other = (mirror % count + count - number) % count
    code = jnp.maximum(number, other) ^ salt
    # The finaliser of MurmurHash3: every bit of the input moves the last one.
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
      code = (code ^ (code >> shift)) * jnp.uint32(factor)
    return jnp.where((code ^ (code >> 16)) & 1, other, number)

  number = jax.lax.fori_loop(0, _ROUNDS, swap, place.astype(jnp.uint32))
  return number.astype(jnp.int32)


def _num_batches(count, size, drop):
  """Returns the batches of each pair; numpy or jax."""
  return count // size if drop else -(-count // size)


def condition_epoch_batch(
  key: jax.Array,
  number: jax.Array,
  data: arrays.PerturbArrays,
  rows: arrays.Rows,
  size: int,
  *,
  original: bool = False,
) -> types.Batch:
  """Draws a batch of one (condition, group) pair, by epochs.

  In an epoch every cell of every pair comes once; the last batch of a pair is
  padded with weight 0, and batches of all pairs come in random order. Each cell
  has a control cell of its group, drawn anew.

  Args:
    key: of the run, not of the step.
    number: int32, of the batch, from the beginning of the run.
    data: the dataset.
    rows: see Rows.
    size: cells in a batch.
    original: as in SENA's code, a pair's last batch is left out if it is not
      full, and so are pairs with fewer cells than a batch; and every cell
      keeps the control cell that it got at the beginning.
  """
  batches = _num_batches(rows.pair_count, size, original)
  end = jnp.cumsum(batches)
  # No batch at all is found out before the run starts: see epoch_summary.
  total = jnp.maximum(end[-1], 1)
  epoch_key = jax.random.fold_in(key, number // total)
  place = shuffled(epoch_key, (number % total)[None], total)
  pair = jnp.searchsorted(end, place[0], side='right').astype(jnp.int32)
  pair = jnp.minimum(pair, rows.pair_count.shape[0] - 1)
  within = place[0] - (end[pair] - batches[pair])
  at = within * size + jnp.arange(size)
  count = rows.pair_count[pair]
  weight = (at < count).astype(jnp.float32)
  cell = shuffled(
    jax.random.fold_in(epoch_key, pair + 1), jnp.minimum(at, count - 1), count
  )
  target = rows.perturbed[rows.pair_start[pair] + cell]
  group = data.group[target]
  if original:
    controls_key = jax.random.fold_in(key, 2**31 - 1)

    def own_control(row, group):
      row_key = jax.random.fold_in(controls_key, row)
      return draw_controls(row_key, rows, group[None])[0]

    source = jax.vmap(own_control)(target, group)
  else:
    control_key = jax.random.fold_in(jax.random.fold_in(epoch_key, 0), place[0])
    source = draw_controls(control_key, rows, group)
  return _batch(data, target, source, data.condition[target], weight)


_EPOCHS: dict[str, EpochSampler] = {
  'condition_epochs': condition_epoch_batch,
  'condition_epochs_original': functools.partial(
    condition_epoch_batch, original=True
  ),
}


def in_epochs(name: str) -> EpochSampler | None:
  """Returns the sampler that goes by epochs, or None if this one does not."""
  return _EPOCHS.get(name)


def epoch_summary(
  name: str, rows: arrays.Rows, size: int
) -> dict[str, int] | None:
  """Counts what an epoch has; None for a sampler without epochs.

  Returns:
    {'batches', 'cells', 'cells_left_out', 'pairs', 'pairs_left_out'}.

  Raises:
    ValueError: if an epoch has no batch.
  """
  if name not in _EPOCHS:
    return None
  count = np.asarray(rows.pair_count)
  drop = name.endswith('_original')
  batches = _num_batches(count, size, drop)
  used = np.minimum(batches * size, count)
  if not batches.sum():
    raise ValueError(
      f'the sampler {name} leaves out batches that are not full, and none of '
      f'{len(count)} conditions has {size} training cells (the most: '
      f'{int(count.max(initial=0))}); set a smaller train.batch_size or the '
      'sampler condition_epochs'
    )
  return {
    'batches': int(batches.sum()),
    'cells': int(used.sum()),
    'cells_left_out': int((count - used).sum()),
    'pairs': int((used > 0).sum()),
    'pairs_left_out': int((used == 0).sum()),
  }


def _first_epoch(name):
  """Returns the sampler of a batch that nobody has numbered."""

  def draw(key, data, rows, size):
    return _EPOCHS[name](key, jnp.int32(0), data, rows, size)

  return draw


_SAMPLERS: dict[str, Sampler] = {
  'paired': paired,
  'cells': cells,
  'by_condition': by_condition,
  **{name: _first_epoch(name) for name in _EPOCHS},
}
# Their batches are of one condition and group each.
_PURE = ('by_condition', *_EPOCHS)


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
      cells; batches of samplers by condition have one condition and group.
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
  if name in _PURE:
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
  if name in _PURE:
    source = draw_controls(key, rows, data.group[target])
  elif name != 'cells':
    source = _partners(key, data, rows, target)
  return _batch(data, target, source, data.condition[target], weight)
