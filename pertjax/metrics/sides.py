"""One side of a comparison: labelled cells, in memory or on disk.

A `Side` says which rows of a matrix belong to which label and computes what
conventions need of them: means and variances in float64, one pass over the
matrix each, a block of rows at a time, so that a file larger than memory is
scored in little of it; and the cells of a few labels at once.

The matrix may be anything that slices rows: an array, a SciPy sparse matrix in
CSR, or a dataset in a file. Sparse blocks are told by their `indptr`; this
module does not import SciPy. Sums are taken cell by cell in the order of the
rows, wherever blocks end: labels with the same cells have the very same sums.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

# What a block may take, as dense float64 or as CSR with what its sums need;
# bounds the memory of every pass beyond the result.
BLOCK_BYTES = 64 << 20
# Of a stored value of CSR: value, column, place and weight, 8 bytes each.
_STORED_BYTES = 32
# Memory of the rows of a file that are read, and left, rather than starting
# another read: a read takes about as long as these.
_GAP_BYTES = 4 << 20


@dataclasses.dataclass(frozen=True, eq=False)
class Side:
  """Cells with labels.

  Attributes:
    matrix: [cells in the matrix, genes in the matrix], rows sliceable.
    labels: int32 [cells], from 0; -1 is not read.
    num_labels: labels are below it.
    columns: int [genes], which columns of the matrix; None for all in order.
    rows: int [cells], which rows of the matrix, repeats allowed; None for all
      in order.
    prepare: of a block of whole cells, before columns are chosen: a
      normalisation; None for nothing.
    shift: float [num_labels, genes] added to every cell of a label after it is
      read, for made-up predictions; None for nothing. Values below 0 stay.
    parent: the side that this one is a choice of labels of, whose passes it
      shares; None for none. Set by `take`.
    chosen: int [num_labels] the labels of the parent.
  """

  matrix: Any
  labels: np.ndarray
  num_labels: int
  columns: np.ndarray | None = None
  rows: np.ndarray | None = None
  prepare: Callable[[Any], Any] | None = None
  shift: np.ndarray | None = None
  parent: Side | None = None
  chosen: np.ndarray | None = None

  @property
  def num_genes(self) -> int:
    """Counts the genes that are read."""
    if self.columns is not None:
      return len(self.columns)
    return int(self.matrix.shape[1])

  @functools.cached_property
  def sizes(self) -> np.ndarray:
    """Counts the cells of each label, int64 [num_labels]."""
    kept = self.labels[self.labels >= 0]
    return np.bincount(kept, minlength=self.num_labels)[: self.num_labels]

  @functools.cached_property
  def mean(self) -> np.ndarray:
    """Means of the labels, float64 [num_labels, genes]; NaN without cells."""
    if self.parent is not None:
      return self.parent.mean[self.chosen]
    return _over(total(self), self.sizes)

  @functools.cached_property
  def variance(self) -> np.ndarray:
    """Population variances (over n), float64 [num_labels, genes].

    The mean square less the square of the mean: squares of sparse data stay
    sparse, and float64 holds seven digits more than the data have.
    """
    if self.parent is not None:
      return self.parent.variance[self.chosen]
    square = _over(total(self, np.square), self.sizes)
    spread = square - np.square(self.mean)
    # What rounding leaves of a gene without spread.
    return np.where(spread <= 1e-14 * square, 0.0, spread)

  @functools.cached_property
  def detected(self) -> np.ndarray:
    """Share of cells with a value other than 0, [num_labels, genes]."""
    if self.parent is not None:
      return self.parent.detected[self.chosen]
    return _over(total(self, lambda x: (x != 0) * 1.0), self.sizes)

  def take(self, labels: Sequence[int] | np.ndarray) -> Side:
    """Returns the side of some labels, numbered in the order given.

    Means, variances and detection rates come from this side's own passes.
    """
    labels = np.asarray(labels, np.int64)
    table = np.full(self.num_labels + 1, -1, np.int32)
    table[labels] = np.arange(len(labels), dtype=np.int32)
    return dataclasses.replace(
      self,
      labels=table[self.labels],
      num_labels=len(labels),
      shift=None if self.shift is None else self.shift[labels],
      parent=self,
      chosen=labels,
    )

  def relabelled(
    self,
    labels: np.ndarray,
    num_labels: int,
    *,
    cells: np.ndarray | None = None,
    shift: np.ndarray | None = None,
  ) -> Side:
    """Returns other labels for these cells, or for some of them.

    Args:
      labels: int [cells], or [len(cells)].
      num_labels: labels are below it.
      cells: int, which cells of this side, repeats allowed; None for all.
      shift: see `Side`; not allowed on a side that has one.
    """
    if self.shift is not None:
      raise ValueError('a shifted side cannot be relabelled')
    rows = self.rows
    if cells is not None:
      rows = np.asarray(cells) if rows is None else rows[cells]
    return Side(
      matrix=self.matrix,
      labels=np.asarray(labels, np.int32),
      num_labels=num_labels,
      columns=self.columns,
      rows=rows,
      prepare=self.prepare,
      shift=shift,
    )

  def members(self, label: int) -> np.ndarray:
    """Returns the cells of a label: indices into `labels`."""
    order, start = self._order
    return order[start[label] : start[label + 1]]

  @functools.cached_property
  def _order(self) -> tuple[np.ndarray, np.ndarray]:
    """Cells sorted by label, and where each label starts."""
    order = np.argsort(self.labels, kind='stable')
    start = np.searchsorted(
      self.labels[order], np.arange(self.num_labels + 1), side='left'
    )
    return order, start

  def cells(self, labels: Sequence[int]) -> tuple[Any, np.ndarray]:
    """Reads the cells of some labels.

    Args:
      labels: which, each once.

    Returns:
      (matrix, position): an array or CSR matrix [cells, genes] in the type it
      is stored in, and for each cell the position of its label in `labels`.
    """
    found = [self.members(label) for label in labels]
    chosen = np.concatenate([*found, np.zeros(0, np.int64)]).astype(np.int64)
    position = np.repeat(
      np.arange(len(found), dtype=np.int32), [len(f) for f in found]
    )
    rows = chosen if self.rows is None else self.rows[chosen]
    block = self._ready(_read_rows(self.matrix, rows))
    if self.shift is not None:
      block = dense(block) + self.shift[np.asarray(labels)][position]
    return block, position

  def _ready(self, block: Any) -> Any:
    if hasattr(block, 'indptr') and not block.has_canonical_format:
      # Values that are stored twice count as their sum; the block may be the
      # caller's own matrix.
      block = block.copy()
      block.sum_duplicates()
    if self.prepare is not None:
      block = self.prepare(block)
    return block if self.columns is None else block[:, self.columns]

  def blocks(self) -> Iterator[tuple[np.ndarray, Any]]:
    """Yields (labels, block of cells) in the order of the matrix.

    Blocks hold no cell without a label where the side reads rows by number.
    """
    size = block_rows(self.matrix, dense_too=self.shift is not None)
    rows, labels = self.rows, self.labels
    if rows is not None:
      kept = np.flatnonzero(labels >= 0)
      kept = kept[np.argsort(rows[kept], kind='stable')]
      rows, labels = rows[kept], labels[kept]
    for start in range(0, len(labels), size):
      at = labels[start : start + size]
      if not (at >= 0).any():
        continue
      if rows is None:
        block = self.matrix[start : start + size]
      else:
        block = _read_rows(self.matrix, rows[start : start + size])
      block = self._ready(block)
      if self.shift is not None:
        block = dense(block) + self.shift[np.maximum(at, 0)]
      yield at, block


def block_rows(matrix: Any, *, dense_too: bool = False) -> int:
  """Counts the rows that are read at once, at least 1; see `row_bytes`."""
  return max(1, BLOCK_BYTES // row_bytes(matrix, dense_too=dense_too))


def row_bytes(matrix: Any, *, dense_too: bool = False) -> int:
  """Returns the memory that a row takes with what its sums need, on average.

  Args:
    matrix: of a side.
    dense_too: whether sparse rows are made dense.
  """
  stored = getattr(matrix, 'nnz', None)
  if stored is None or dense_too:
    return 8 * max(1, int(matrix.shape[1]))
  return _STORED_BYTES * max(1, -(-stored // max(1, matrix.shape[0])))


def dense(block: Any) -> np.ndarray:
  """Returns a block as an array."""
  return block.toarray() if hasattr(block, 'toarray') else np.asarray(block)


def total(
  side: Side, function: Callable[[np.ndarray], np.ndarray] | None = None
) -> np.ndarray:
  """Sums the cells of each label in one pass.

  Args:
    side: the cells.
    function: of float64 values, elementwise, 0 at 0; None sums the values
      themselves.

  Returns:
    float64 [num_labels, genes].
  """
  summed = np.zeros((side.num_labels, side.num_genes))
  for labels, block in side.blocks():
    if hasattr(block, 'indptr'):
      _add_sparse(summed, labels, block, function)
    else:
      _add_dense(summed, labels, block, function)
  return summed


def _add_dense(summed, labels, block, function) -> None:
  order = np.argsort(labels, kind='stable')
  found, start = np.unique(labels[order], return_index=True)
  ends = [*start[1:], len(order)]
  for label, a, b in zip(found, start, ends):
    if label >= 0:
      cells = block[order[a:b]].astype(np.float64)
      if function is not None:
        cells = function(cells)
      # As if the cells of earlier blocks stood above these.
      cells[0] += summed[label]
      summed[label] = cells.sum(0)


def _add_sparse(summed, labels, block, function) -> None:
  each = np.diff(block.indptr)
  at = np.repeat(np.asarray(labels, np.int64) * summed.shape[1], each)
  at += block.indices
  # In float64 already: `add.at` is slow where it has to cast.
  data = block.data.astype(np.float64)
  if (labels < 0).any():
    kept = np.repeat(labels >= 0, each)
    at, data = at[kept], data[kept]
  if function is not None:
    data = function(data)
  np.add.at(summed.reshape(-1), at, data)


def _over(summed: np.ndarray, sizes: np.ndarray) -> np.ndarray:
  with np.errstate(invalid='ignore', divide='ignore'):
    return summed / sizes[:, None]


def _read_rows(matrix: Any, rows: np.ndarray) -> Any:
  """Reads rows by number, in any order and with repeats."""
  if isinstance(matrix, np.ndarray):
    return matrix[rows]
  if len(rows) and (np.diff(rows) == 1).all():
    return matrix[int(rows[0]) : int(rows[-1]) + 1]
  if hasattr(matrix, 'toarray'):
    return matrix[rows]  # CSR in memory.
  once, back = np.unique(rows, return_inverse=True)
  found = _read_increasing(matrix, once)
  same = len(once) == len(rows) and (once == rows).all()
  return found if same else found[back]


def _read_increasing(matrix: Any, rows: np.ndarray) -> Any:
  """Reads increasing rows of a file by runs that lie close together."""
  if not len(rows):
    return matrix[0:0]
  size = block_rows(matrix)
  gap = max(1, _GAP_BYTES // row_bytes(matrix))
  new = (np.diff(rows) > gap) | (np.diff(rows // size) > 0)
  parts = []
  for run in np.split(rows, np.flatnonzero(new) + 1):
    first, last = int(run[0]), int(run[-1])
    block = matrix[first : last + 1]
    parts.append(block if len(run) == last + 1 - first else block[run - first])
  return _stacked(parts)


def _stacked(parts: list[Any]) -> Any:
  """Puts blocks of rows, all dense or all CSR, one below the other."""
  if len(parts) == 1:
    return parts[0]
  if not hasattr(parts[0], 'indptr'):
    return np.concatenate(parts)
  counts = np.concatenate([np.diff(part.indptr) for part in parts])
  indptr = np.zeros(len(counts) + 1, np.int64)
  np.cumsum(counts, out=indptr[1:])
  return type(parts[0])(
    (
      np.concatenate([part.data for part in parts]),
      np.concatenate([part.indices for part in parts]),
      indptr,
    ),
    shape=(len(counts), parts[0].shape[1]),
  )
