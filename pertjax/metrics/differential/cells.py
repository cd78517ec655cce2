"""Cells of several matrices, read by row, by gene or summed by condition.

What the engines of differential expression share on the host. A matrix is NumPy
dense, SciPy CSR or CSC, or a jax array; matrices are stacked by rows, copied
only where there is more than one. Sparse ones are known by what they have
(`format`, `data`, `indices`, `indptr`), so that SciPy is not imported here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

# What is read at once to be summed: bytes of a group's dense cells, values of
# sparse ones.
_BLOCK_BYTES = 64 << 20
_BLOCK_VALUES = 1 << 20


class Stack(NamedTuple):
  """Matrices one below the other.

  Attributes:
    parts: each [cells, genes]; NumPy, jax, or CSR; float32 or float64.
    starts: int64 [parts + 1], the first row of each.
  """

  parts: tuple[Any, ...]
  starts: np.ndarray

  @property
  def shape(self) -> tuple[int, int]:
    return int(self.starts[-1]), self.parts[0].shape[1]


def is_sparse(matrix: Any) -> bool:
  """Says whether a matrix is sparse, as SciPy makes them."""
  return hasattr(matrix, 'tocsr') and hasattr(matrix, 'format')


def _as_part(matrix: Any, name: str) -> Any:
  """Returns a matrix as float32 or float64, which hold its values exactly.

  Integers of more than 16 bits become float64.
  """
  if is_sparse(matrix):
    if matrix.format not in ('csr', 'csc'):
      raise ValueError(
        f'{name} is a sparse {matrix.format!r} matrix; allowed: csr, csc'
      )
    matrix = matrix.tocsr()
  elif not isinstance(matrix, jax.Array):
    matrix = np.asarray(matrix)
  if len(matrix.shape) != 2:
    raise ValueError(
      f'{name} must be [cells, genes], found shape {tuple(matrix.shape)}'
    )
  dtype = np.dtype(matrix.dtype)
  number = jnp.issubdtype(dtype, jnp.floating) or dtype.kind in 'biu'
  if not number or dtype.itemsize > 8:
    raise ValueError(
      f'{name} holds {dtype}; allowed: bool, integers and floats to 64 bits'
    )
  small = dtype.itemsize <= (4 if jnp.issubdtype(dtype, jnp.floating) else 2)
  wide = np.dtype(np.float32 if small else np.float64)
  return matrix if dtype == wide else matrix.astype(wide)


def stack(values: Any) -> Stack:
  """Takes one matrix or a list of them.

  Raises:
    ValueError: for anything but numbers, [cells, genes], with equal genes.
  """
  several = isinstance(values, (list, tuple))
  matrices = list(values) if several else [values]
  if not matrices:
    raise ValueError('values is an empty list; at least one matrix is needed')
  parts = tuple(
    _as_part(matrix, f'values[{i}]' if several else 'values')
    for i, matrix in enumerate(matrices)
  )
  widths = [part.shape[1] for part in parts]
  if len(set(widths)) > 1:
    raise ValueError(f'values differ in their numbers of genes: {widths}')
  starts = np.cumsum([0, *(part.shape[0] for part in parts)])
  return Stack(parts, starts)


def join_conditions(condition: Any) -> np.ndarray:
  """Returns int [cells] from one array of conditions or a list of arrays.

  Raises:
    ValueError: for conditions that are not integers.
  """
  several = isinstance(condition, (list, tuple)) and any(
    np.ndim(x) for x in condition
  )
  arrays = [np.asarray(x) for x in (condition if several else [condition])]
  for array in arrays:
    if array.dtype.kind not in 'iu' or array.ndim != 1:
      raise ValueError(
        f'condition must be integers [cells], found {array.dtype} of shape '
        f'{array.shape}'
      )
  return np.concatenate(arrays).astype(np.int64)


def _rows(part: Any, rows: np.ndarray) -> Any:
  """Returns some rows, without a copy where they are all."""
  if len(rows) == part.shape[0] and np.array_equal(rows, np.arange(len(rows))):
    return part
  return part[rows]


def take(cells: Stack, rows: np.ndarray | None) -> Any:
  """Returns increasing rows, or all of a single matrix, as one matrix.

  Jax arrays stay where they are. Where dense and sparse parts meet, the dense
  become CSR.
  """
  if rows is None:
    (part,) = cells.parts
    return part
  parts = []
  for part, start, end in zip(cells.parts, cells.starts, cells.starts[1:]):
    inside = rows[(rows >= start) & (rows < end)] - start
    if len(inside):
      parts.append(_rows(part, inside))
  if len(parts) == 1:
    return parts[0]
  if all(isinstance(part, jax.Array) for part in parts):
    return jnp.concatenate(parts)
  if not any(is_sparse(part) for part in parts):
    return np.concatenate([np.asarray(part) for part in parts])
  kind = next(type(part) for part in parts if is_sparse(part))
  parts = [x if is_sparse(x) else kind(np.asarray(x)) for x in parts]
  ends = np.cumsum([0, *(part.indptr[-1] for part in parts)])
  indptr = [part.indptr[1:] + end for part, end in zip(parts, ends)]
  return kind(
    (
      np.concatenate([part.data[: part.indptr[-1]] for part in parts]),
      np.concatenate([part.indices[: part.indptr[-1]] for part in parts]),
      np.concatenate([[0], *indptr]),
    ),
    shape=(sum(part.shape[0] for part in parts), parts[0].shape[1]),
  )


def gene_blocks(
  matrix: Any, width: int
) -> Iterator[tuple[int, np.ndarray | jax.Array]]:
  """Yields (first gene, dense [cells, width]); the last ones may overlap.

  All have one width, so that what reads them is compiled once.
  """
  genes = matrix.shape[1]
  width = min(width, genes)
  by_gene = matrix.tocsc() if is_sparse(matrix) else matrix
  for start in range(0, genes, width):
    start = min(start, genes - width)
    block = by_gene[:, start : start + width]
    yield start, block.toarray() if is_sparse(block) else block


# ----------------------------------------------------------------------------
# Sums by condition.


def _add_sparse(total: np.ndarray, part: Any, condition: np.ndarray, linear):
  """Adds the cells of a CSR matrix to total, [conditions, genes]."""
  flat, genes = total.reshape(-1), total.shape[1]
  num_cells = part.shape[0]
  row = 0
  while row < num_cells:
    # As many rows as hold one block of values, one at least.
    limit = int(part.indptr[row]) + _BLOCK_VALUES
    end = int(np.searchsorted(part.indptr, limit, side='right')) - 1
    end = min(max(end, row + 1), num_cells)
    at = slice(int(part.indptr[row]), int(part.indptr[end]))
    to = np.repeat(condition[row:end], np.diff(part.indptr[row : end + 1]))
    data = part.data[at].astype(np.float64)
    where = to * genes + part.indices[at]
    if to.min(initial=0) < 0:
      where, data = where[to >= 0], data[to >= 0]
    # One after the other, as the dense ones are. (The fast path of add.at
    # needs equal types.)
    np.add.at(flat, where, np.expm1(data) if linear else data)
    row = end


def _add_dense(total: np.ndarray, part: Any, condition: np.ndarray, linear):
  """Adds the cells of a dense matrix to total, [conditions, genes]."""
  part = np.asarray(part)
  order = np.argsort(condition, kind='stable')
  ends = np.searchsorted(condition[order], np.arange(len(total) + 1))
  for i, (start, end) in enumerate(zip(ends, ends[1:])):
    if start == end:
      continue
    width = max(1, _BLOCK_BYTES // (8 * int(end - start)))
    for gene in range(0, part.shape[1], width):
      genes = slice(gene, gene + width)
      # Contiguous by rows, so that NumPy adds row after row.
      rows = np.ascontiguousarray(part[order[start:end], genes], np.float64)
      total[i, genes] += np.sum(np.expm1(rows) if linear else rows, axis=0)


def sums(
  cells: Stack, condition: np.ndarray, *, num_conditions: int, linear: bool
) -> np.ndarray:
  """Sums the cells of each condition in float64, [conditions, genes].

  Args:
    cells: [cells, genes].
    condition: int [cells]; -1 for cells that do not count.
    num_conditions: rows of the result.
    linear: sums expm1 of the values.
  """
  total = np.zeros((num_conditions, cells.shape[1]))
  # NaN and infinities are for the caller to find in the sums.
  with np.errstate(invalid='ignore', over='ignore'):
    for part, start, end in zip(cells.parts, cells.starts, cells.starts[1:]):
      add = _add_sparse if is_sparse(part) else _add_dense
      add(total, part, condition[start:end], linear)
  return total
