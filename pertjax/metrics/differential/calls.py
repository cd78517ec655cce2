"""One side's table of differential expression, and what is counted along it.

Metrics of agreement compare two tables, one of predicted and one of observed
cells. `make` turns the arrays of a table into `Calls`, and a metric takes two:
`metric(predicted, observed)`, [conditions, genes] in, [conditions] out. Own
target genes, or genes that a filter drops, leave a side by `make(mask=...)` or
`without`. A gene that is not in a table (`present` is False) is what a missing
row is to the tools that join tables: each metric says what it does with it.

The rest of the module is shared by the metrics: ranks with ties, Spearman's
correlation of the counted genes, and places by size of change.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from pertjax.metrics import pseudobulk, registry
from pertjax.types import Array

ALPHA = 0.05

UNDEFINED = ('keep', 'mask')
TIES = ('first', 'expected')


class Calls(NamedTuple):
  """Which genes a side calls; every field is [conditions, genes].

  Attributes:
    fdr: false discovery rates; those that are not present are NaN.
    p: p-values; they only order genes of the same fdr.
    log2_fold_change: may be infinite.
    significant: bool, fdr < alpha; False where not present.
    present: bool, the gene was tested and counts.
  """

  fdr: Array
  p: Array
  log2_fold_change: Array
  significant: Array
  present: Array


class Runs(NamedTuple):
  """Places, from 0, of the first and last entry that ties with each."""

  first: Array
  last: Array


class Places(NamedTuple):
  """Where each gene stands among the significant ones, [conditions, genes].

  Attributes:
    ordinal: place from 0; the number of genes where not significant.
    runs: places that its ties share.
  """

  ordinal: Array
  runs: Runs


def make(
  fdr: Array,
  log2_fold_change: Array,
  *,
  p: Array | None = None,
  mask: Array | None = None,
  alpha: float = ALPHA,
  min_change: float = 0.0,
  undefined: str = 'keep',
  dtype: jnp.dtype | None = None,
) -> Calls:
  """Reads one side's table.

  Args:
    fdr: [conditions, genes]; NaN means that the gene is not in the table.
    log2_fold_change: the same shape.
    p: the same shape. Without it, `fdr` alone orders genes.
    mask: bool [genes] or [conditions, genes]; False drops a gene.
    alpha: genes below it are significant, strictly.
    min_change: significant genes must have changed by at least this.
    undefined: 'keep' leaves a gene with a NaN change significant, as cell-eval
      0.8.2 and the v1 preset of cell-eval2 0.20 do; 'mask' sets its fdr to 1,
      as the v2 preset does.
    dtype: `jnp.float32` rounds everything first, as cell-eval does with the
      tables that it loads; cell-eval2 stays in float64.

  Returns:
    Calls.

  Raises:
    ValueError: for shapes that do not fit, or an unknown `undefined`.
  """
  registry.check_choice('undefined', undefined, UNDEFINED)
  fdr, change = jnp.asarray(fdr), jnp.asarray(log2_fold_change)
  p = jnp.zeros_like(fdr) if p is None else jnp.asarray(p)
  if fdr.ndim != 2 or not fdr.shape == change.shape == p.shape:
    raise ValueError(
      'fdr, log2_fold_change and p must be [conditions, genes]; shapes: '
      f'{fdr.shape}, {change.shape}, {p.shape}'
    )
  dtype = pseudobulk.wide(fdr, change) if dtype is None else dtype
  fdr, change, p = (x.astype(dtype) for x in (fdr, change, p))
  below = jnp.abs(change) < min_change
  if undefined == 'mask':
    below |= jnp.isnan(change)
  present = ~jnp.isnan(fdr)
  fdr = jnp.where(below & present, 1, fdr)
  table = Calls(fdr, p, change, present & (fdr < alpha), present)
  return table if mask is None else _keep(table, mask)


def _keep(table: Calls, mask: Array) -> Calls:
  mask, shape = jnp.asarray(mask), table.fdr.shape
  if mask.dtype != bool or mask.shape not in (shape, shape[1:]):
    raise ValueError(
      f'a mask of genes must be boolean, {shape[1:]} or {shape}; it is '
      f'{mask.dtype} {mask.shape}'
    )
  mask = jnp.broadcast_to(mask, shape)
  return table._replace(
    fdr=jnp.where(mask, table.fdr, jnp.nan),
    significant=table.significant & mask,
    present=table.present & mask,
  )


def without(table: Calls, genes: Array | None) -> Calls:
  """Drops genes, bool [genes] or [conditions, genes]; None drops none."""
  return table if genes is None else _keep(table, ~jnp.asarray(genes, bool))


def check(predicted: Calls, observed: Calls) -> None:
  """Raises a ValueError when the two sides do not have the same shape."""
  if predicted.fdr.shape != observed.fdr.shape:
    raise ValueError(
      'predicted and observed must have the same conditions and genes; shapes: '
      f'{predicted.fdr.shape}, {observed.fdr.shape}'
    )


def count(which: Array, dtype: jnp.dtype) -> Array:
  """Counts along genes, in the type that ratios are taken in."""
  return jnp.sum(which, axis=-1, dtype=dtype)


def ratio(above: Array, below: Array, *, otherwise: float = jnp.nan) -> Array:
  """Returns above / below, and `otherwise` where below is 0."""
  none = below == 0
  return jnp.where(none, otherwise, above / jnp.where(none, 1, below))


def num_significant(table: Calls) -> Array:
  """Counts the significant genes, int32 [conditions].

  A diagnostic without a best value: `de_nsig_counts_real` and `..._pred` of
  cell-eval 0.8.2, `nsig_counts_real` and `..._pred` of cell-eval2 0.20.
  """
  return jnp.sum(table.significant, axis=-1, dtype=jnp.int32)


# ----------------------------------------------------------------------------
# Ranks.


def runs(*keys: Array) -> Runs:
  """Finds the ties of entries that were sorted along the last axis by `keys`.

  NaN ties with NaN.
  """
  axis, length = keys[0].ndim - 1, keys[0].shape[-1]
  differs = jnp.zeros(keys[0][..., 1:].shape, bool)
  for key in keys:
    a, b = key[..., 1:], key[..., :-1]
    differs |= (a != b) & ~((a != a) & (b != b))
  edge = jnp.ones_like(differs[..., :1] if length > 1 else keys[0], bool)
  place = jax.lax.broadcasted_iota(jnp.int32, keys[0].shape, axis)
  starts = jnp.concatenate([edge, differs], axis=-1)
  ends = jnp.concatenate([differs, edge], axis=-1)
  return Runs(
    jax.lax.cummax(jnp.where(starts, place, 0), axis=axis),
    jax.lax.cummin(jnp.where(ends, place, length - 1), axis=axis, reverse=True),
  )


def _rank_in_order(
  values: Array, mask: Array, *others: Array
) -> tuple[Array, ...]:
  """Sorts, the counted entries first; returns mid-ranks, mask and others."""
  left_out, values, *others = jax.lax.sort(
    (~mask, values, *others),
    dimension=values.ndim - 1,
    is_stable=True,
    num_keys=2,
  )
  ties = runs(left_out, values)
  middle = (ties.first + ties.last).astype(values.dtype) / 2 + 1
  return middle, ~left_out, *others


def mid_ranks(values: Array, *, mask: Array | None = None) -> Array:
  """Ranks along the last axis, from 1; ties share the mean of their ranks.

  Args:
    values: [..., genes]; NaN is above every number and ties with NaN, as in
      polars.
    mask: bool, the same shape, the entries that are ranked.

  Returns:
    [..., genes], NaN where the mask is False.
  """
  values = values.astype(pseudobulk.wide(values))
  mask = jnp.ones_like(values, bool) if mask is None else mask
  place = jax.lax.broadcasted_iota(jnp.int32, values.shape, values.ndim - 1)
  middle, _, at = _rank_in_order(values, mask, place)
  ranks = jnp.put_along_axis(middle, at, middle, axis=-1, inplace=False)
  return jnp.where(mask, ranks, jnp.nan)


def spearman(a: Array, b: Array, *, mask: Array | None = None) -> Array:
  """Correlates the mid-ranks of two rows over the genes that count.

  Range [-1, 1], best 1, chance 0. Spearman, American Journal of Psychology 15
  (1904).

  Args:
    a: [..., genes]; NaN ranks above every number.
    b: the same shape.
    mask: bool, the same shape.

  Returns:
    [...], NaN where a side is constant or fewer than two genes count.
  """
  dtype = pseudobulk.wide(a, b)
  a, b = a.astype(dtype), b.astype(dtype)
  mask = jnp.ones_like(a, bool) if mask is None else mask
  # The order of the genes does not matter: the ranks of a travel with b.
  ranks_a, mask, b = _rank_in_order(a, mask, b)
  ranks_b, mask, ranks_a = _rank_in_order(b, mask, ranks_a)
  return pseudobulk.pearson(ranks_a, ranks_b, mask=mask)


# ----------------------------------------------------------------------------
# The significant genes by size of change.


def places(table: Calls) -> Places:
  """Orders the significant genes by |log2 fold change|, the largest first.

  Genes that tie keep the order of the columns. NaN comes first, then
  infinities.
  """
  size = jnp.abs(table.log2_fold_change)
  group = jnp.where(jnp.isnan(size), 0, 1)
  group = jnp.where(table.significant, group, 2).astype(jnp.int32)
  at = jax.lax.broadcasted_iota(jnp.int32, size.shape, 1)
  group, size, at = jax.lax.sort(
    (group, -size, at), dimension=1, is_stable=True, num_keys=2
  )
  place = jax.lax.broadcasted_iota(jnp.int32, size.shape, 1)
  place = jnp.where(group < 2, place, size.shape[1])

  def back(x):
    return jnp.put_along_axis(x, at, x, axis=-1, inplace=False)

  ties = runs(group, size)
  return Places(back(place), Runs(back(ties.first), back(ties.last)))


def top(
  table: Calls, k: Array, *, ties: str = 'first', where: Places | None = None
) -> Array:
  """Says which significant genes are among the k of the largest change.

  Args:
    table: one side.
    k: int [conditions].
    ties: 'first' takes the first columns of those that tie; 'expected' gives
      each of them the same share of the places that are left.
    where: `places(table)`, where it is known already.

  Returns:
    [conditions, genes] of 0, 1 and, with 'expected', shares between.
  """
  registry.check_choice('ties', ties, TIES)
  where = places(table) if where is None else where
  dtype, k = table.fdr.dtype, k[:, None]
  if ties == 'first':
    return (where.ordinal < k).astype(dtype)
  first, last = (x.astype(dtype) for x in where.runs)
  share = jnp.clip((k.astype(dtype) - first) / (last - first + 1), 0, 1)
  return jnp.where(table.significant, share, 0)
