"""Differential expression of cells as they come: the front door.

`de` takes NumPy, SciPy CSR or CSC and jax matrices, or a list of them that are
stacked by rows, and fills the table of `table.DE` in float64 on the host. Two
engines take the ranks:

  'illico', CPU kernels (`kernels`), with the extra `pertjax[de]`: about a
      second for 60 conditions x 2,000 genes of 20,000 cells on two processors;
  'jax', integer rank counts (`rank_counts`) on whatever device JAX has, and
      Welch's test; a sparse matrix is made dense a block of genes at a time.

Both give the same table: U exactly, z and what follows to float64's rounding.

The columns of pdex, in its order, are `target_mean` (`mean_p`), `ref_mean`
(`mean_0`), `log2_fold_change`, `p_value` (`p`), `statistic` and `fdr`. As

  * pdex 0.3 in cell-eval: the defaults, on log1p values; pdex itself has
    pseudocount=1e-9; its `cpm_filter=T` is cpm_filter=T.
  * cell-eval2 and the Virtual Cell Challenge 2026: mean='arithmetic',
    pseudocount=1e-9, cpm_filter=5, cpm_filter_on='control' on values that are
    counts per million, and the real control below the predicted cells:
    `de([control, predicted], [np.zeros(n, int), condition], ...)`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pertjax.metrics import pseudobulk, registry
from pertjax.metrics.differential import cells as cells_lib
from pertjax.metrics.differential import (
  checks,
  kernels,
  rank_counts,
  table,
  tails,
)
from pertjax.types import Array

ENGINES = ('auto', 'illico', 'jax')

# Genes that the jax engine has on its device at once; 20,000 cells take 40 MB
# of them, and 80 MB while they are averaged.
_BLOCK = 512


class _Found(NamedTuple):
  """Results of an engine, float64 [conditions, genes] each."""

  statistic: np.ndarray
  z: np.ndarray
  df: np.ndarray
  p: np.ndarray
  log_p: np.ndarray
  means: np.ndarray
  linear: np.ndarray


class _Chunk(NamedTuple):
  """Cells that an engine gets at once.

  Attributes:
    ids: conditions, the control first.
    rows: increasing rows of the cells; None for all of them.
    condition: int [rows], place in `ids`, -1 for cells of none.
  """

  ids: np.ndarray
  rows: np.ndarray | None
  condition: np.ndarray


def choose_engine(
  engine: str, method: str, *, say: Callable[[str], Any] | None = None
) -> str:
  """Returns 'illico' or 'jax', and says which and why.

  Raises:
    ValueError: for another name, or for illico and another test than its own.
    ImportError: for illico where it is not installed.
  """
  registry.check_choice('engine', engine, ENGINES)
  if engine == 'illico':
    if method != 'wilcoxon':
      raise ValueError(
        f"engine is 'illico' and method {method!r}; illico has 'wilcoxon' "
        "only; allowed: engine 'jax' or 'auto'"
      )
    try:
      kernels.load()
    except ImportError as error:
      raise ImportError(f"engine is 'illico': {error}") from error
  chosen, reason = engine, 'as asked'
  if engine == 'auto':
    chosen = 'jax'
    if method != 'wilcoxon':
      reason = f'illico has no method {method!r}'
    elif jax.default_backend() != 'cpu':
      reason = f"JAX's device is a {jax.default_backend()}"
    else:
      try:
        version = kernels.load().version
        chosen, reason = 'illico', f'version {version} is installed'
      except ImportError as error:
        reason = str(error)
  if say is not None:
    say(f'differential expression by {chosen}: {reason}')
  return chosen


# ----------------------------------------------------------------------------
# Chunks of conditions.


def _chunks(
  condition: np.ndarray, sizes: np.ndarray, *, whole: bool, max_cells: int
) -> Iterator[_Chunk]:
  """Splits the conditions so that a chunk and the control fit max_cells."""
  if whole:
    yield _Chunk(np.arange(len(sizes)), None, condition)
    return
  bounds, used = [1], 0
  for i, size in enumerate(sizes[1:], 1):
    if sizes[0] + size > max_cells:
      raise ValueError(
        f'max_cells is {max_cells}; the control has {sizes[0]} cells and '
        f'condition {i} has {size}: {sizes[0] + size} is the least for both'
      )
    if sizes[0] + used + size > max_cells:
      bounds.append(i)
      used = 0
    used += size
  bounds.append(len(sizes))
  for first, last in zip(bounds, bounds[1:]):
    place = np.full(len(sizes) + 1, -1)
    place[0], place[first:last] = 0, np.arange(last - first) + 1
    here = place[condition]
    rows = np.flatnonzero(here >= 0)
    ids = np.concatenate([[0], np.arange(first, last)])
    yield _Chunk(ids, rows, here[rows])


# ----------------------------------------------------------------------------
# The engines.


def _run_illico(
  cells: cells_lib.Stack,
  condition: np.ndarray,
  sizes: np.ndarray,
  chunks: list[_Chunk],
  *,
  linear: bool,
  tie_correct: bool,
  continuity: bool,
) -> _Found:
  """Takes ranks by illico and means by NumPy."""
  largest = sizes[0] + sizes[1:].max()
  if largest > kernels.MAX_CELLS:
    raise ValueError(
      f'{largest} cells of the control and one condition; illico takes '
      f'{kernels.MAX_CELLS} at most; draw fewer control cells'
    )
  add = functools.partial(
    cells_lib.sums, cells, condition, num_conditions=len(sizes)
  )
  number = sizes[:, None].astype(np.float64)
  with np.errstate(invalid='ignore'):  # 0/0, a condition without cells.
    means = add(linear=False) / number
    pooled = add(linear=True) / number if linear else means
  finite = bool(np.isfinite(means[sizes > 0]).all())
  # Infinity is no mean, as in `group_means`.
  means[np.isinf(means)], pooled[np.isinf(pooled)] = np.nan, np.nan
  u, z = np.full((2, *means.shape), np.nan)
  for chunk in chunks:
    matrix = cells_lib.take(cells, chunk.rows)
    found = kernels.ranks(
      matrix,
      chunk.condition,
      num_conditions=len(chunk.ids),
      finite=finite,
      tie_correct=tie_correct,
      continuity=continuity,
    )
    u[chunk.ids], z[chunk.ids] = found
  p, log_p = (np.asarray(x) for x in jax.jit(tails.normal)(z))
  return _Found(u, z, np.full_like(z, np.nan), p, log_p, means, pooled)


@functools.partial(jax.jit, static_argnames=('num_conditions', 'linear'))
def _test_block(
  values: Array,
  condition: Array,
  counts: rank_counts.Counts | None,
  *,
  num_conditions: int,
  linear: bool,
  tie_correct: bool,
  continuity: bool,
) -> tuple[Array, ...]:
  """Returns the fields of _Found for a block of genes."""
  values = values.astype(jnp.float64)
  groups = {'groups': condition, 'num_groups': num_conditions}
  means = pseudobulk.group_means(values, **groups)
  _, _, sizes = rank_counts.arrange(condition, num_conditions=num_conditions)
  if counts is None:
    variance = pseudobulk.group_variances(values, **groups)
    results = table.welch_tests(means, variance, sizes)
  else:
    results = table.rank_tests(
      counts, sizes, tie_correct=tie_correct, continuity=continuity
    )
  pooled = means
  if linear:
    pooled = pseudobulk.group_means(jnp.expm1(values), **groups)
  return *results, means, pooled


def _run_jax(
  cells: cells_lib.Stack,
  chunks: list[_Chunk],
  *,
  num_conditions: int,
  method: str,
  linear: bool,
  tie_correct: bool,
  continuity: bool,
) -> _Found:
  """Takes ranks and means by JAX, a block of genes at a time."""
  found = np.full((7, num_conditions, cells.shape[1]), np.nan)
  # One shape for all chunks, so that they are compiled once: what is added
  # belongs to no condition.
  size = max(len(chunk.condition) for chunk in chunks)
  most = max(len(chunk.ids) for chunk in chunks)
  for chunk in chunks:
    rest = size - len(chunk.condition)
    condition = jnp.asarray(
      np.pad(chunk.condition, (0, rest), constant_values=-1), jnp.int32
    )
    matrix = cells_lib.take(cells, chunk.rows)
    for start, block in cells_lib.gene_blocks(matrix, _BLOCK):
      block = jnp.asarray(block)
      if rest:
        block = jnp.pad(block, ((0, rest), (0, 0)))
      counts = None
      if method == 'wilcoxon':
        counts = rank_counts.count(block, condition, num_conditions=most)
      results = _test_block(
        block,
        condition,
        counts,
        num_conditions=most,
        linear=linear,
        tie_correct=tie_correct,
        continuity=continuity,
      )
      genes = slice(start, start + block.shape[1])
      for field, result in zip(found, results, strict=True):
        field[chunk.ids, genes] = np.asarray(result)[: len(chunk.ids)]
  return _Found(*found)


# ----------------------------------------------------------------------------


def de(
  values: Any,
  condition: Any,
  *,
  num_conditions: int,
  method: str = 'wilcoxon',
  mean: str = 'geometric',
  pseudocount: float = 0.0,
  tie_correct: bool = True,
  continuity: bool = True,
  gene_mask: np.ndarray | None = None,
  cpm_filter: float | None = None,
  cpm_filter_on: str = 'either',
  engine: str = 'auto',
  max_cells: int | None = None,
  say: Callable[[str], Any] | None = None,
) -> tuple[table.DE, str]:
  """Tests every gene of every condition against the control, on the host.

  Not for jit; `table.de` is.

  Args:
    values: [cells, genes], or a list of such matrices, stacked by rows (copied
      then, sparse ones as CSR, dense ones too if any other is sparse). NumPy,
      SciPy CSR or CSC (copied to CSR), or jax; bool, integers or floats. NaN or
      infinity in a gene of a group gives NaN there. CSR may have unsorted
      indices, repeats, which are summed, and stored zeros.
    condition: int [cells], or a list of such for the list of matrices; 0 is the
      control; cells outside [0, num_conditions), -1 say, are not read.
    num_conditions: with the control.
    method: 'wilcoxon' or 'welch'.
    mean: 'geometric', expm1 of the mean of log1p values, or 'arithmetic'.
    pseudocount: added to both means of the fold change.
    tie_correct: takes ties from the variance of U.
    continuity: takes 1/2 from |U - n1 n0 / 2|.
    gene_mask: bool [genes] or [conditions, genes]; False leaves a gene out of
      the false discovery rate.
    cpm_filter: leaves out, too, genes whose pooled counts per million are at or
      below it (after expm1 with the geometric mean).
    cpm_filter_on: 'either' keeps a gene that condition or control has more of;
      'control' one that the control has.
    engine: 'illico', 'jax' or 'auto': illico for 'wilcoxon' where it is
      installed and JAX has no other device than a CPU.
    max_cells: stacks at most so many cells at once, the control and a chunk of
      conditions; sets the memory and no result.
    say: gets a line that says which engine was chosen and why.

  Returns:
    `table.DE` of NumPy float64, and the engine's name. NaN for a condition
    without cells, and for Welch with one cell.

  Raises:
    ValueError: for shapes, types, names or sizes that do not fit.
    ImportError: for engine='illico' where it is not installed.
  """
  cells = cells_lib.stack(values)
  condition = cells_lib.join_conditions(condition)
  checks.check_shapes(cells.shape, condition.shape)
  checks.check_options(
    num_conditions=num_conditions,
    num_genes=cells.shape[1],
    method=method,
    mean=mean,
    gene_mask=gene_mask,
    cpm_filter_on=cpm_filter_on,
  )
  engine = choose_engine(engine, method, say=say)
  condition = np.where(
    (condition >= 0) & (condition < num_conditions), condition, -1
  )
  sizes = checks.count_cells(condition, num_conditions)
  checks.check_sizes(sizes, pairs=method == 'wilcoxon' and engine == 'jax')
  limit = len(condition) if max_cells is None else max_cells
  whole = len(cells.parts) == 1 and len(condition) <= limit
  chunks = list(_chunks(condition, sizes, whole=whole, max_cells=limit))
  options = {
    'linear': cpm_filter is not None and mean == 'geometric',
    'tie_correct': tie_correct,
    'continuity': continuity,
  }
  with jax.enable_x64(True):
    if engine == 'illico':
      found = _run_illico(cells, condition, sizes, chunks, **options)
    else:
      found = _run_jax(
        cells,
        chunks,
        num_conditions=num_conditions,
        method=method,
        **options,
      )
    result = _fill(
      found[:5],
      found.means,
      found.linear,
      gene_mask,
      mean=mean,
      pseudocount=pseudocount,
      cpm_filter=cpm_filter,
      cpm_filter_on=cpm_filter_on,
    )
    return jax.tree.map(np.asarray, result), engine


_fill = jax.jit(table.fill, static_argnames=('mean', 'cpm_filter_on'))
