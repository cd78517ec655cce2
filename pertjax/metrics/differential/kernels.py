"""Rank tests by the CPU kernels of illico (Remy Dubois, github.com/remydubois).

They sort the control's cells once for each gene, then each condition's, on as
many threads as there are processors, and never make a sparse matrix dense. Four
properties of theirs, in version 0.6, are met here:

  * CSR with unsorted indices is misread;
  * zeros that are stored are not tied with those that are not;
  * a NaN makes them run for ever;
  * only float32 and float64 are read.

The kernels are called, and not the function `asymptotic_wilcoxon` around them,
because that one wants an AnnData and shows a progress bar. They are no public
interface, which is why the extra `de` has an upper bound.
"""

from __future__ import annotations

import functools
import os
from concurrent import futures
from importlib import metadata
from typing import Any, NamedTuple

import numpy as np

from pertjax.metrics.differential import cells as cells_lib

INSTALL = "pip install 'pertjax[de]'"

# Genes of one call of a kernel, on one thread.
_GENES = 256

# Cubes of ties are summed in 64 bits.
MAX_CELLS = 2_000_000


class Kernels(NamedTuple):
  """Functions of illico, and its version."""

  dense: Any
  csr: Any
  groups: Any
  version: str


@functools.cache
def load() -> Kernels:
  """Imports illico.

  Raises:
    ImportError: says what is missing and how to install it.
  """
  try:
    import illico.rust_backend as rust
    from illico.utils import groups

    return Kernels(
      dense=rust.dense_ovo_over_contiguous_col_chunk_rust,
      csr=rust.csr_ovo_mwu_kernel_over_contiguous_col_chunk_rust,
      groups=groups.GroupContainer,
      version=metadata.version('illico'),
    )
  except ImportError as error:
    raise ImportError(
      f'illico cannot be imported ({error}); {INSTALL}'
    ) from error
  except AttributeError as error:
    raise ImportError(
      f'illico has not the kernels of its version 0.6 ({error}); {INSTALL}'
    ) from error


def _num_threads() -> int:
  if hasattr(os, 'sched_getaffinity'):
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1


def _readable(matrix: Any, *, finite: bool) -> Any:
  """Returns what the kernels read right; a copy where it has to change."""
  if not cells_lib.is_sparse(matrix):
    matrix = np.asarray(matrix)
    if finite:
      return matrix
    return np.where(np.isfinite(matrix), matrix, matrix.dtype.type(0))
  used = int(matrix.indptr[-1])
  indices, data = matrix.indices[:used], matrix.data[:used]
  rising = indices[1:] > indices[:-1]
  first = matrix.indptr[1:-1]
  rising[first[(first > 0) & (first < used)] - 1] = True
  is_zero = data == 0
  if rising.all() and finite and not is_zero.any():
    return matrix
  matrix = matrix.copy()
  if not rising.all():
    # SciPy keeps a note of both, which may be of older indices.
    matrix.has_sorted_indices = False
    matrix.has_canonical_format = False
    matrix.sum_duplicates()
  matrix.data[~np.isfinite(matrix.data)] = 0
  matrix.eliminate_zeros()
  return matrix


def ranks(
  matrix: Any,
  condition: np.ndarray,
  *,
  num_conditions: int,
  finite: bool,
  tie_correct: bool,
  continuity: bool,
) -> tuple[np.ndarray, np.ndarray]:
  """Returns U and z of `table`, float64 [conditions, genes].

  Args:
    matrix: [cells, genes], NumPy or CSR; float32 or float64.
    condition: int [cells]; 0 is the control, -1 is not read.
    num_conditions: rows of the result; NaN for the control and for a condition
      without cells.
    finite: whether all values are; if not, results mean nothing where a group
      has others in a gene.
    tie_correct, continuity: as in `table.de`.
  """
  illico = load()
  matrix = _readable(matrix, finite=finite)
  kernel = illico.csr if cells_lib.is_sparse(matrix) else illico.dense
  genes = matrix.shape[1]
  # The conditions that have cells, and after them the cells of none.
  sizes = np.bincount(condition + 1, minlength=num_conditions + 1)
  there = np.flatnonzero(sizes[1:])
  code = np.zeros(num_conditions + 1, np.int64)
  code[0] = len(there)
  code[there + 1] = np.arange(len(there))
  at = code[condition + 1]
  counts = np.bincount(at)
  groups = illico.groups(
    n_selected_groups=np.uint64(len(there)),
    encoded_groups=at.astype(np.uint64),
    counts=counts.astype(np.uint64),
    indices=np.argsort(at, kind='stable').astype(np.uint64),
    included_cell_indices=np.arange(len(at), dtype=np.uint64),
    indptr=np.concatenate([[0], np.cumsum(counts)]).astype(np.uint64),
    encoded_ref_group=0,
  )
  # One-sided: its z tells s, which a two-sided z of 0 does not.
  options = (groups, False, continuity, tie_correct, False, 'greater')

  u = np.full((num_conditions, genes), np.nan)
  z = np.full((num_conditions, genes), np.nan)

  def run(start: int) -> None:
    end = min(start + _GENES, genes)
    found = kernel(matrix, start, end, *options)
    u[there, start:end] = found[1][: len(there)]
    z[there, start:end] = found[2][: len(there)]

  with futures.ThreadPoolExecutor(_num_threads()) as pool:
    # The list raises what a thread raised.
    list(pool.map(run, range(0, genes, _GENES)))
  u[0], z[0] = np.nan, np.nan
  # From (U - n1 n0 / 2 - c) / s to (|U - n1 n0 / 2| - c) / s, c of 1/2 or 0.
  correction = 0.5 if continuity else 0.0
  above = u - sizes[1:, None] * (sizes[1] / 2)
  one_sided = np.abs(above - correction)
  z = np.abs(z) * (np.abs(above) - correction)
  return u, np.divide(z, one_sided, out=np.zeros_like(z), where=one_sided != 0)
