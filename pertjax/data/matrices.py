"""Expression matrices: made CSR without copies where they are, and checked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import h5py
import numpy as np
from scipy import sparse

from pertjax import names as name_lib

SCALES = ('counts', 'log1p')
_MAX_LOG = 20.0  # ln(1 + x) of a cell with half a billion molecules of a gene.
_BLOCK_BYTES = 64 << 20


def to_csr(
  matrix: Any, *, where: str, layers: Sequence[str] = ()
) -> sparse.csr_matrix:
  """Returns a matrix as canonical CSR float32, without copies if it is.

  Sorted indices, no repeats, no stored zeros. Values beyond float32 become
  infinite.

  Args:
    matrix: dense or sparse, in memory or in a file; None where there is none.
    where: what to call it in messages.
    layers: what could be read in its place, for messages.

  Raises:
    ValueError: for anything but numbers, cells by genes.
  """
  if matrix is None:
    raise ValueError(
      f'{where}: there is none; choose a layer: '
      f'{name_lib.listing(layers) or "there are none"}'
    )
  if hasattr(matrix, 'to_memory'):  # A backed sparse matrix.
    matrix = matrix.to_memory()
  dense = isinstance(matrix, (np.ndarray, h5py.Dataset))
  if not (dense or sparse.issparse(matrix)):
    raise ValueError(
      f'{where}: a {type(matrix).__name__}; expected a dense or sparse matrix'
    )
  if len(matrix.shape) != 2 or matrix.dtype.kind not in 'biuf':
    raise ValueError(
      f'{where}: {matrix.dtype} of shape {matrix.shape}; expected numbers, '
      'cells by genes'
    )
  if dense:
    X = _sparse_blocks(matrix)
  else:
    X = matrix.tocsr()
    with np.errstate(over='ignore'):  # Found afterwards, as an infinite value.
      data = X.data.astype(np.float32, copy=False)
    X = with_values(X, data)
  if not X.has_canonical_format:
    X = X.copy()
    X.sum_duplicates()
  if (X.data == 0).any():
    X = X.copy()
    X.eliminate_zeros()
  return X


def _sparse_blocks(matrix: Any) -> sparse.csr_matrix:
  """Makes a dense matrix sparse a block of rows at a time."""
  rows = max(1, _BLOCK_BYTES // (4 * max(1, matrix.shape[1])))
  blocks = []
  for start in range(0, max(1, matrix.shape[0]), rows):
    with np.errstate(over='ignore'):
      block = np.asarray(matrix[start : start + rows]).astype(np.float32)
    blocks.append(sparse.csr_matrix(block))
  return sparse.vstack(blocks, format='csr')


def check_values(
  X: sparse.csr_matrix,
  *,
  where: str,
  cell_names: np.ndarray,
  gene_names: np.ndarray,
) -> None:
  """Raises for NaN, infinite and negative values, and for none at all."""
  if not X.nnz:
    raise ValueError(f'{where}: every value is 0')
  if X.data.min() >= 0 and X.data.max() < np.inf:  # NaN fails both.
    return
  for what, test in (
    ('NaN', np.isnan),
    ('infinite', np.isinf),
    ('negative', lambda x: x < 0),
  ):
    bad = np.flatnonzero(test(X.data))
    if len(bad):
      row = np.searchsorted(X.indptr, bad[0], side='right') - 1
      raise ValueError(
        f'{where}: {len(bad):,} values are {what}, the first '
        f'({X.data[bad[0]]:g}) in cell {str(cell_names[row])!r}, gene '
        f'{str(gene_names[X.indices[bad[0]]])!r}; expected counts or '
        'log-normalised values, not scaled ones'
      )


def check_scale(
  X: sparse.csr_matrix, scale: str, *, where: str, layers: Sequence[str] = ()
) -> None:
  """Raises where the values cannot be what `scale` says they are.

  Args:
    X: CSR [cells, genes] with some values.
    scale: one of SCALES.
    where: what to call it in messages.
    layers: what could be read in its place, for messages.

  Raises:
    ValueError: says what was expected, found, and what that looks like.
  """
  largest = float(X.data.max())
  whole = sum(int((x == np.floor(x)).sum()) for x in _chunks(X.data)) / X.nnz
  if scale == 'counts' and whole == 1:
    return
  if scale == 'log1p' and largest < _MAX_LOG and whole < 0.99:
    return
  expected = {
    'counts': 'non-negative integers',
    'log1p': f'ln(1 + x): mostly fractions, below {_MAX_LOG:g}',
  }[scale]
  if whole >= 0.99:
    looks = 'counts'
  elif largest < _MAX_LOG:
    looks = 'log1p values'
  else:
    looks = 'normalised values without a logarithm, which is neither'
  raise ValueError(
    f'{where}: scale={scale!r} expects {expected}; found '
    f'max {largest:g}, {whole:.2%} integers among {X.nnz:,} non-zero values, '
    f'which looks like {looks}. Set data.scale to what the matrix holds, or '
    'data.layer to another matrix (layers: '
    f'{name_lib.listing(layers) or "none"})'
  )


def _chunks(data: np.ndarray) -> Iterator[np.ndarray]:
  size = _BLOCK_BYTES // 4
  for start in range(0, len(data), size):
    yield data[start : start + size]


def with_values(X: sparse.csr_matrix, data: np.ndarray) -> sparse.csr_matrix:
  """Returns CSR with other values, which shares its indices with X."""
  return sparse.csr_matrix((data, X.indices, X.indptr), shape=X.shape)
