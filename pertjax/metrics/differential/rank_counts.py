"""Exact rank counts of every condition against the control, gene by gene.

The rank test of `table` needs two integers for each condition and gene, over
the cells of the condition and the control taken together:

  D = sum over the condition's cells of (#control below - #control above)
  S = n^3 - sum over distinct values of t^3, where t cells share the value

U = (D + n1 n0) / 2, and the variance of U is n1 n0 S / (12 n (n - 1)).

One sort of a gene's cells by (value, condition) answers all conditions at once.
The control is condition 0, so that the control cells of a tie come first: where
the cells of one condition in one tie end (a run), cumulative counts say how
many they are (a), how many control cells share the value (b) and how many are
below. D grows by a (2 below + b - n0), the sum of t^3 by (a + b)^3 - b^3, and
both are summed by condition. The control's own runs give the sum of b^3.

Zeros, most of single-cell data, are one more tie that needs no sort: what is
sorted are the other cells, and with concrete arrays genes are taken in the
order of how many those are, with few lengths, each compiled once.

Integers stay exact in 32 bits. D is below n1 n0 < 2^31. S is known twice: its
last 32 bits from arithmetic that wraps around, its size from float32. Together
they are exact while the error of the second stays below 2^31, which is up to
about 100,000 cells in a pair, and as good as the second beyond.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pertjax.metrics import pseudobulk
from pertjax.types import Array

# Genes that are sorted at once: 64 x 20,000 cells take about 60 MB.
BLOCK = 64

# Lengths that are sorted, in sixteenths of all cells. More of them would waste
# less sorting and compile more programs.
_LENGTHS = (1, 2, 4, 6, 8, 12, 16)

_WORD = 2.0**32


class Counts(NamedTuple):
  """What the rank test needs, [conditions, genes] each.

  Attributes:
    difference: int32, D above.
    untied: S above; float64 where JAX's x64 mode is on, else float32.
  """

  difference: Array
  untied: Array


def _keys(values: Array) -> Array:
  """Returns unsigned integers in the order of the values; sorts much faster."""
  unsigned = {4: jnp.uint32, 8: jnp.uint64}[values.dtype.itemsize]
  # -0 is 0: equal values need equal keys.
  values = jnp.where(values == 0, jnp.zeros_like(values), values)
  bits = jax.lax.bitcast_convert_type(values, unsigned)
  top = unsigned(1) << unsigned(8 * values.dtype.itemsize - 1)
  return jnp.where(bits >= top, ~bits, bits | top)


def _select(
  keys: Array, counted: Array, conditions: Array, length: int, none: int
) -> tuple[Array, Array]:
  """Moves the counted cells of each gene to the front, [genes, length]."""
  num_cells = keys.shape[1]
  if length >= num_cells:
    return keys, jnp.where(counted, conditions[None, :], none)
  number = jnp.cumsum(counted, axis=1, dtype=jnp.int32)
  wanted = jnp.arange(1, length + 1, dtype=jnp.int32)
  at = jax.vmap(lambda row: jnp.searchsorted(row, wanted))(number)
  found = at < num_cells
  at = jnp.minimum(at, num_cells - 1)
  keys = jnp.take_along_axis(keys, at, axis=1)
  at = jnp.where(found, conditions[at], none)
  return jnp.where(found, keys, ~jnp.zeros_like(keys)), at


def _cube(a: Array, b: Array) -> Array:
  """Returns (a + b)^3 - b^3."""
  return a * (a * a + 3 * a * b + 3 * b * b)


def _sum_runs(keys: Array, conditions: Array, sizes: Array) -> tuple:
  """Sorts, finds the runs and sums over them by condition.

  Args:
    keys: [genes, length], cells ordered by condition.
    conditions: int32 [genes, length]; `len(sizes)` for cells that do not count.
    sizes: int32 [conditions] cells.

  Returns:
    number of counted cells, difference of those, both int32, sum of cubes in
    uint32 (wrapped around) and in float32, each [genes, conditions].
  """
  num_genes, length = keys.shape
  num_bins = sizes.shape[0] + 1
  # The key of zero: only the top bit is set.
  zero = keys.dtype.type(1 << (8 * keys.dtype.itemsize - 1))
  # Stable: cells of one value stay in the order of their conditions.
  keys, conditions = jax.lax.sort(
    (keys, conditions), dimension=1, is_stable=True, num_keys=1
  )
  differs = keys[:, 1:] != keys[:, :-1]
  edge = jnp.ones((num_genes, 1), bool)
  tie_starts = jnp.concatenate([edge, differs], axis=1)
  differs |= conditions[:, 1:] != conditions[:, :-1]
  run_starts = jnp.concatenate([edge, differs], axis=1)
  run_ends = jnp.concatenate([differs, edge], axis=1)

  place = jnp.arange(length, dtype=jnp.int32)[None, :]
  first = jax.lax.cummax(jnp.where(run_starts, place, 0), axis=1)
  a = place - first + 1
  control = conditions == 0
  upto = jnp.cumsum(control, axis=1, dtype=jnp.int32)
  below = jax.lax.cummax(jnp.where(tie_starts, upto - control, 0), axis=1)
  b = jnp.where(control, 0, upto - below)
  zeros = (sizes[0] - upto[:, -1])[:, None]
  score = 2 * (below + jnp.where(keys > zero, zeros, 0)) + b - sizes[0]

  bins = jnp.where(run_ends, conditions, num_bins - 1)
  bins += num_bins * jnp.arange(num_genes, dtype=jnp.int32)[:, None]

  def total(x):
    summed = jnp.zeros(num_genes * num_bins, x.dtype).at[bins].add(x)
    return summed.reshape(num_genes, num_bins)[:, :-1]

  cube = _cube(a.astype(jnp.uint32), b.astype(jnp.uint32))
  rough = _cube(a.astype(jnp.float32), b.astype(jnp.float32))
  # Of the zeros: how many control cells are below less those above.
  negative = jnp.sum(control & (keys < zero), axis=1, dtype=jnp.int32)
  middle = 2 * negative[:, None] + zeros - sizes[0]
  number = total(a)
  difference = total(a * score) + (sizes[None, :] - number) * middle
  return number, difference, total(cube), total(rough)


@functools.partial(jax.jit, static_argnames=('num_conditions', 'length'))
def _count_block(
  values: Array,
  genes: Array,
  order: Array,
  conditions: Array,
  sizes: Array,
  *,
  num_conditions: int,
  length: int,
) -> Counts:
  """Counts a block of genes; [conditions, block]."""
  cells = values[:, genes].astype(pseudobulk.wide(values))[order].T
  counted = (cells != 0) & (conditions < num_conditions)[None, :]
  keys, at = _select(_keys(cells), counted, conditions, length, num_conditions)
  number, difference, cube, rough = _sum_runs(keys, at, sizes)

  together = (sizes + sizes[0])[None, :]
  at_zero = sizes[None, :] - number
  tied = at_zero + at_zero[:, :1]
  words = together.astype(jnp.uint32), tied.astype(jnp.uint32)
  exact = words[0] ** 3 - words[1] ** 3 - cube - cube[:, :1]
  n, t = together.astype(jnp.float32), tied.astype(jnp.float32)
  rest = (together - tied).astype(jnp.float32)
  rough = rest * (n * n + n * t + t * t) - rough - rough[:, :1]
  dtype = jax.dtypes.canonicalize_dtype(np.float64)
  exact = exact.astype(dtype)
  words = jnp.round((rough.astype(dtype) - exact) / _WORD)
  untied = jnp.maximum(words * _WORD + exact, 0)
  return Counts(difference.T, untied.T)


@functools.partial(jax.jit, static_argnames='num_conditions')
def arrange(
  groups: Array, *, num_conditions: int
) -> tuple[Array, Array, Array]:
  """Orders cells by condition, those of none last.

  Returns:
    int32: order [cells], condition in that order [cells], `num_conditions` for
    none, and cells of each condition [conditions].
  """
  outside = (groups < 0) | (groups >= num_conditions)
  conditions = jnp.where(outside, num_conditions, groups).astype(jnp.int32)
  order = jnp.argsort(conditions, stable=True).astype(jnp.int32)
  sizes = jnp.zeros(num_conditions, jnp.int32)
  sizes = sizes.at[conditions].add(1, mode='drop')
  return order, conditions[order], sizes


@jax.jit
def _collect(parts: list[Counts], places: Array) -> Counts:
  return jax.tree.map(lambda *x: jnp.concatenate(x, axis=1)[:, places], *parts)


def count(
  values: Array, groups: Array, *, num_conditions: int, block: int = BLOCK
) -> Counts:
  """Counts ranks of each condition's cells among the control's.

  Args:
    values: [cells, genes], finite.
    groups: int [cells]; 0 is the control, cells outside [0, num_conditions) are
      not counted.
    num_conditions: static.
    block: genes at once; sets the memory and no result.

  Returns:
    Counts; row 0 has no meaning.
  """
  num_cells, num_genes = values.shape
  order, conditions, sizes = arrange(groups, num_conditions=num_conditions)
  run = functools.partial(
    _count_block,
    order=order,
    conditions=conditions,
    sizes=sizes,
    num_conditions=num_conditions,
  )
  block = min(block, num_genes)
  num_blocks = -(-num_genes // block)
  # The last block repeats the last gene.
  places = np.minimum(np.arange(num_blocks * block), num_genes - 1)
  places = places.reshape(num_blocks, block)
  if isinstance(values, jax.core.Tracer):
    counts = jax.lax.map(
      lambda genes: run(values, genes, length=num_cells), jnp.asarray(places)
    )
    return Counts(
      *(
        jnp.moveaxis(x, 0, 1).reshape(num_conditions, -1)[:, :num_genes]
        for x in counts
      )
    )
  nonzero = np.asarray(jnp.count_nonzero(values, axis=0))
  by_number = np.argsort(nonzero, kind='stable')
  lengths = [-(-num_cells * part // 16) for part in _LENGTHS]
  parts = []
  for genes in by_number[places]:
    length = next(x for x in lengths if x >= nonzero[genes].max())
    parts.append(run(values, jnp.asarray(genes), length=length))
  return _collect(parts, np.argsort(by_number, kind='stable'))
