"""One side of a comparison: labelled cells, in memory or on disk.

A `Side` says which rows of a matrix belong to which label and computes what
conventions need of them: means and variances in float64, one pass over the
matrix each, a block of rows at a time, so that a file larger than memory is
scored in little of it; and the cells of a few labels at once.

The matrix may be anything that slices rows: an array, a SciPy sparse matrix in
CSR, or a dataset in a file. Sparse blocks are told by their `indptr`; this
module does not import SciPy.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

# What a block may take, as dense float64 or as CSR; bounds the memory of every
# pass beyond the result.
BLOCK_BYTES = 64 << 20


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
    return _over(total(self, lambda x: (x != 0).astype(x.dtype)), self.sizes)

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
    if self.prepare is not None:
      block = self.prepare(block)
    return block if self.columns is None else block[:, self.columns]

  def blocks(self) -> Iterator[tuple[np.ndarray, Any]]:
    """Yields (labels, block of cells) in the order of the matrix.

    Blocks hold no cell without a label where the side reads rows by number.
    """
    size = max(1, BLOCK_BYTES // (8 * max(1, int(self.matrix.shape[1]))))
    if hasattr(self.matrix, 'toarray') or hasattr(self.matrix, 'to_memory'):
      size *= 4  # A block of CSR takes a fraction of a dense one.
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


def dense(block: Any) -> np.ndarray:
  """Returns a block as an array."""
  return block.toarray() if hasattr(block, 'toarray') else np.asarray(block)


def total(
  side: Side, function: Callable[[np.ndarray], np.ndarray] | None = None
) -> np.ndarray:
  """Sums the cells of each label in one pass.

  Args:
    side: the cells.
    function: of values, elementwise, 0 at 0; None sums the values themselves.

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
      cells = block[order[a:b]]
      if function is not None:
        cells = function(cells.astype(np.float64))
      summed[label] += cells.sum(0, dtype=np.float64)


def _add_sparse(summed, labels, block, function) -> None:
  labels = np.asarray(labels, np.int64)
  num_genes = summed.shape[1]
  at = np.repeat(labels * num_genes, np.diff(block.indptr)) + block.indices
  data = block.data
  if (labels < 0).any():
    kept = np.repeat(labels >= 0, np.diff(block.indptr))
    at, data = at[kept], data[kept]
  if function is not None:
    data = function(data.astype(np.float64))
  summed += np.bincount(at, weights=data, minlength=summed.size).reshape(
    summed.shape
  )


def _over(summed: np.ndarray, sizes: np.ndarray) -> np.ndarray:
  with np.errstate(invalid='ignore', divide='ignore'):
    return summed / sizes[:, None]


def _read_rows(matrix: Any, rows: np.ndarray) -> Any:
  """Reads rows by number; a file wants them increasing and once each."""
  if isinstance(matrix, np.ndarray):
    return matrix[rows]
  if len(rows) and (np.diff(rows) == 1).all():
    return matrix[int(rows[0]) : int(rows[-1]) + 1]
  if hasattr(matrix, 'toarray'):
    return matrix[rows]  # CSR in memory.
  once, back = np.unique(rows, return_inverse=True)
  return (matrix[once] if len(once) else matrix[:0])[back]
