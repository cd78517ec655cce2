"""Cells and their labels as arrays on the device.

Cells live on the device in one of two forms: dense (float32 or bfloat16), or
packed CSR whose rows are made dense inside the compiled step. Everything that
draws cells goes through `gather`, so the form is decided in one place.
"""

from __future__ import annotations

import dataclasses
import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pertjax import types

STORAGES = ('float32', 'bfloat16', 'csr')


def _register(cls, *, static=()):
  """Registers a frozen dataclass as a pytree."""
  names = [f.name for f in dataclasses.fields(cls)]
  return jax.tree_util.register_dataclass(
    cls,
    data_fields=[n for n in names if n not in static],
    meta_fields=list(static),
  )


@dataclasses.dataclass(frozen=True)
class DenseCells:
  """values: [cells, genes] float32 or bfloat16."""

  values: jax.Array

  @property
  def shape(self) -> tuple[int, int]:
    return self.values.shape


@dataclasses.dataclass(frozen=True)
class PackedCells:
  """Compressed sparse rows, padded so that every row can be read alike.

  Attributes:
    start: int32 [cells]; first entry of each row.
    count: int32 [cells]; entries of each row.
    columns: uint16 or int32 [entries + width]; gene of each entry.
    values: float32 or bfloat16 [entries + width].
    num_genes: static.
    width: static; entries of the longest row.
  """

  start: jax.Array
  count: jax.Array
  columns: jax.Array
  values: jax.Array
  num_genes: int
  width: int

  @property
  def shape(self) -> tuple[int, int]:
    return self.start.shape[0], self.num_genes


_register(DenseCells)
_register(PackedCells, static=('num_genes', 'width'))

Cells = DenseCells | PackedCells


@dataclasses.dataclass(frozen=True)
class Rows:
  """Which cells a sampler may draw, as tables of row numbers.

  `perturbed` is sorted by pair and `control` by group, so that a pair's or a
  group's rows are one slice.

  Attributes:
    perturbed: int32 [perturbed cells].
    control: int32 [control cells].
    control_start: int32 [groups]; first entry in `control`.
    control_count: int32 [groups].
    pair_condition: int32 [pairs]; the pairs that have perturbed cells here.
    pair_group: int32 [pairs].
    pair_start: int32 [pairs]; first entry in `perturbed`.
    pair_count: int32 [pairs].
  """

  perturbed: jax.Array
  control: jax.Array
  control_start: jax.Array
  control_count: jax.Array
  pair_condition: jax.Array
  pair_group: jax.Array
  pair_start: jax.Array
  pair_count: jax.Array


_register(Rows)


@dataclasses.dataclass(frozen=True)
class PerturbArrays:
  """A dataset on the device: what the compiled steps read.

  Attributes:
    cells: [cells, genes]; log-normalised, or counts where the config says so.
    condition: int32 [cells]; 0 is the control.
    group: int32 [cells].
    condition_perturbations: int32 [conditions, order]; -1 padding.
    condition_doses: float32 [conditions, order]; 0 padding.
    group_covariates: int32 [groups, keys].
    train, val, test: see Rows.
    partner: int32 [cells]; a fixed control row for each cell where pairs were
      made beforehand (optimal transport), else an empty array.
  """

  cells: Cells
  condition: jax.Array
  group: jax.Array
  condition_perturbations: jax.Array
  condition_doses: jax.Array
  group_covariates: jax.Array
  train: Rows
  val: Rows
  test: Rows
  partner: jax.Array

  @property
  def num_groups(self) -> int:
    return self.group_covariates.shape[0]


_register(PerturbArrays)


def gather(cells: Cells, rows: jax.Array) -> jax.Array:
  """Returns the cells of these rows.

  Args:
    cells: see Cells.
    rows: int32 [batch].

  Returns:
    float32 [batch, genes].
  """
  if isinstance(cells, DenseCells):
    # Rows come from our own tables, always inside; the default would fill.
    return cells.values.at[rows].get(mode='clip').astype(jnp.float32)
  entry = cells.start[rows][:, None] + jnp.arange(cells.width)[None, :]
  inside = jnp.arange(cells.width)[None, :] < cells.count[rows][:, None]
  # Padding goes to one column past the end, which `drop` leaves out.
  columns = jnp.where(
    inside, cells.columns[entry].astype(jnp.int32), cells.num_genes
  )
  values = cells.values[entry].astype(jnp.float32)
  out = jnp.zeros((rows.shape[0], cells.num_genes), jnp.float32)
  return out.at[jnp.arange(rows.shape[0])[:, None], columns].add(
    values, mode='drop'
  )


def conditions_at(
  data: PerturbArrays, condition: jax.Array, group: jax.Array
) -> types.Condition:
  """Looks up what ids mean: [...] condition and group ids to a Condition."""
  return types.Condition(
    perturbations=data.condition_perturbations[condition],
    doses=data.condition_doses[condition],
    covariates=data.group_covariates[group],
    group=group,
  )


def make_rows(
  chosen: np.ndarray, condition: np.ndarray, group: np.ndarray, num_groups: int
) -> Rows:
  """Builds the row tables of one split.

  Args:
    chosen: bool [cells]; the cells of the split.
    condition: int [cells]; 0 is the control.
    group: int [cells].
    num_groups: groups in the dataset.
  """
  rows = np.flatnonzero(chosen)
  control = rows[condition[rows] == 0]
  control = control[np.argsort(group[control], kind='stable')]
  counts = np.bincount(group[control], minlength=num_groups)
  perturbed = rows[condition[rows] != 0]
  code = condition[perturbed].astype(np.int64) * num_groups + group[perturbed]
  sorting = np.argsort(code, kind='stable')
  perturbed, code = perturbed[sorting], code[sorting]
  pairs, start, count = np.unique(code, return_index=True, return_counts=True)

  def int32(x):
    return jnp.asarray(np.asarray(x), jnp.int32)

  return Rows(
    perturbed=int32(perturbed),
    control=int32(control),
    control_start=int32(np.cumsum(counts) - counts),
    control_count=int32(counts),
    pair_condition=int32(pairs // num_groups),
    pair_group=int32(pairs % num_groups),
    pair_start=int32(start),
    pair_count=int32(count),
  )


def with_controls(data: PerturbArrays, rows: Rows) -> Rows:
  """Returns the rows of a split, with training controls if it has none.

  Where every control trains, as GEARS has it, predictions of the other splits
  start from training controls; see data.splits.
  """
  if rows.control.shape[0]:
    return rows
  return dataclasses.replace(
    rows,
    control=data.train.control,
    control_start=data.train.control_start,
    control_count=data.train.control_count,
  )


def condition_tables(
  conditions: types.Conditions, perturbations: tuple[str, ...], order: int = 1
) -> tuple[np.ndarray, np.ndarray]:
  """Returns the (perturbations, doses) tables [conditions, order].

  Args:
    conditions: what to tabulate.
    perturbations: the vocabulary.
    order: width of the tables, or more where a condition needs it.
  """
  order = max(order, *(len(t) for t in conditions.tokens))
  index = {name: i for i, name in enumerate(perturbations)}
  ids = np.full((len(conditions.tokens), order), -1, np.int32)
  doses = np.zeros(ids.shape, np.float32)
  for row, (tokens, amounts) in enumerate(
    zip(conditions.tokens, conditions.doses)
  ):
    ids[row, : len(tokens)] = [index[t] for t in tokens]
    doses[row, : len(tokens)] = amounts
  return ids, doses


def with_conditions(
  data: PerturbArrays, perturbations: np.ndarray, doses: np.ndarray
) -> PerturbArrays:
  """Returns the dataset with other tables of conditions, for requests.

  The cells keep their old ids, so only lookups by new ids make sense.
  """
  return dataclasses.replace(
    data,
    condition_perturbations=jnp.asarray(perturbations),
    condition_doses=jnp.asarray(doses),
  )


def storage_bytes(
  num_cells: int, num_genes: int, num_entries: int, storage: str
) -> int:
  """Returns the bytes that the expression matrix takes on the device."""
  if storage == 'csr':
    column = 2 if num_genes <= np.iinfo(np.uint16).max else 4
    return num_entries * (4 + column) + num_cells * 8
  return num_cells * num_genes * {'float32': 4, 'bfloat16': 2}[storage]


def memory_of(device: jax.Device) -> int | None:
  """Returns the bytes that a device can hold, or None where it is unknown."""
  stats = device.memory_stats() if device.platform != 'cpu' else None
  if stats and 'bytes_limit' in stats:
    return stats['bytes_limit'] - stats.get('bytes_in_use', 0)
  if device.platform == 'cpu' and hasattr(os, 'sysconf'):
    return os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
  return None


def check_fits(
  num_cells: int,
  num_genes: int,
  num_entries: int,
  storage: str,
  *,
  limit: int | None,
) -> None:
  """Raises before anything is copied if the cells cannot fit.

  Raises:
    ValueError: if storage is unknown, or with the sizes of every storage.
  """
  if storage not in STORAGES:
    raise ValueError(
      f'data.storage is {storage!r}; allowed are {", ".join(STORAGES)}'
    )
  sizes = {
    s: storage_bytes(num_cells, num_genes, num_entries, s) for s in STORAGES
  }
  # Room for parameters, batches and the compiler's scratch space.
  usable = None if limit is None else 0.8 * limit
  if usable is None or sizes[storage] <= usable:
    return
  options = ', '.join(f'{s} {sizes[s] / 2**30:.2f} GiB' for s in STORAGES)
  raise ValueError(
    f'{num_cells:,} cells x {num_genes:,} genes do not fit on the device as '
    f'data.storage={storage!r}: {sizes[storage] / 2**30:.2f} GiB of '
    f'{usable / 2**30:.2f} GiB usable. Sizes: {options}. Choose a smaller '
    'storage, fewer genes (data.num_hvg) or fewer cells.'
  )


def place(matrix: Any, storage: str) -> Cells:
  """Moves a CSR matrix to the device.

  Args:
    matrix: scipy CSR [cells, genes], float32.
    storage: one of STORAGES.

  Raises:
    ValueError: if 'csr' has more entries than 32-bit offsets can count.
  """
  num_cells, num_genes = matrix.shape
  if storage == 'csr':
    count = np.diff(matrix.indptr)
    width = max(1, int(count.max(initial=0)))
    if matrix.nnz + width > np.iinfo(np.int32).max:
      raise ValueError(
        f'{matrix.nnz:,} entries are more than 32-bit row offsets can hold; '
        'use data.storage=bfloat16 or fewer genes'
      )
    small = num_genes <= np.iinfo(np.uint16).max
    columns = np.zeros(matrix.nnz + width, np.uint16 if small else np.int32)
    columns[: matrix.nnz] = matrix.indices
    values = np.zeros(matrix.nnz + width, np.float32)
    values[: matrix.nnz] = matrix.data
    return PackedCells(
      start=jnp.asarray(matrix.indptr[:-1].astype(np.int32)),
      count=jnp.asarray(count.astype(np.int32)),
      columns=jnp.asarray(columns),
      values=jnp.asarray(values),
      num_genes=num_genes,
      width=width,
    )
  dtype = jnp.dtype(storage)
  dense = np.empty((num_cells, num_genes), dtype)
  # By blocks: toarray() of everything would double the peak.
  for begin in range(0, num_cells, 4096):
    block = matrix[begin : begin + 4096]
    dense[begin : begin + 4096] = block.toarray()
  return DenseCells(values=jnp.asarray(dense))
