"""Differential expression of every condition against the control.

`de` takes cells and gives [conditions, genes] arrays; row 0, the control, is
NaN where a test would stand. Two tests:

'wilcoxon', Mann-Whitney U with average ranks, as pdex 0.3 and SciPy's
`mannwhitneyu(method='asymptotic')` define it. With n1 cells of the condition,
n0 of the control, n of both and ties of t cells:

  U = R1 - n1 (n1 + 1) / 2,   R1 the rank sum of the condition's cells,
  s^2 = n1 n0 / 12 [(n + 1) - sum(t^3 - t) / (n (n - 1))],
  z = (max(U, n1 n0 - U) - n1 n0 / 2 - 1/2) / s,   p = 2 Phi(-z), at most 1;

p is 1 where s is 0. U and s^2 come from integers (`rank_counts`): U is exact
while it fits the float type, 2^24 in float32, and z is right beyond.
`engines.de` is the front door for NumPy and sparse matrices, in float64.

'welch', the t test with unequal variances (Welch, Biometrika 34, 1947).

False discovery rates follow Benjamini and Hochberg (J. R. Stat. Soc. B 57,
1995) within a condition, over the genes that were tested.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pertjax.metrics import pseudobulk
from pertjax.metrics.differential import checks, rank_counts, tails
from pertjax.types import Array

_LOG10 = math.log(10)


class DE(NamedTuple):
  """Differential expression; every field is [conditions, genes].

  Attributes:
    statistic: U of the condition, or Welch's t (positive: above the control).
    z: z of the module's docstring, -1/(2 s) at least; for Welch |t|.
    df: degrees of freedom of Welch's t; NaN for ranks.
    p: two-sided; 0 where float32 ends (1e-38), which `log10_p` does not.
    log10_p: its logarithm to base 10.
    fdr: Benjamini-Hochberg; NaN for genes left out.
    log2_fold_change: log2((mean_p + pseudocount) / (mean_0 + pseudocount)).
    mean_p: pseudobulk of the condition.
    mean_0: pseudobulk of the control, the same in all rows.
  """

  statistic: Array
  z: Array
  df: Array
  p: Array
  log10_p: Array
  fdr: Array
  log2_fold_change: Array
  mean_p: Array
  mean_0: Array


@jax.jit
def benjamini_hochberg(p: Array, *, mask: Array | None = None) -> Array:
  """Returns false discovery rates along the last axis.

  Args:
    p: [..., genes]; NaN is not a test and is not counted as one.
    mask: bool [genes] or [..., genes]; False leaves a gene out.

  Returns:
    [..., genes]: min over j >= i of p_(j) m / j, at most 1, for m tests; NaN
    for what is left out.
  """
  tested = ~jnp.isnan(p)
  if mask is not None:
    tested &= _spread(mask, p.shape)
  number = jnp.sum(tested, axis=-1, keepdims=True)
  place = jax.lax.broadcasted_iota(jnp.int32, p.shape, p.ndim - 1)
  ordered, at = jax.lax.sort(
    (jnp.where(tested, p, jnp.inf), place), num_keys=1, is_stable=True
  )
  rank = (place + 1).astype(p.dtype)
  # p / rank first would lose the last bits of the smallest p's.
  q = jnp.minimum(ordered * number.astype(p.dtype) / rank, 1)
  q = jax.lax.cummin(q, axis=p.ndim - 1, reverse=True)
  _, q = jax.lax.sort((at, q), num_keys=1)
  return jnp.where(tested, q, jnp.nan)


def _spread(mask: Array, shape: tuple[int, ...]) -> Array:
  mask = jnp.asarray(mask, bool)
  return jnp.broadcast_to(
    mask.reshape((1,) * (len(shape) - mask.ndim) + mask.shape), shape
  )


# ----------------------------------------------------------------------------
# The tests: statistic, z, df, log10 p from sums over cells.


def rank_tests(
  counts: rank_counts.Counts,
  sizes: Array,
  *,
  tie_correct: Array,
  continuity: Array,
) -> tuple[Array, ...]:
  """Returns statistic, z, df, p and natural log p of the rank test.

  Args:
    counts: of `rank_counts.count`.
    sizes: int [conditions].
    tie_correct, continuity: as in `de`.
  """
  dtype = counts.untied.dtype
  n1, n0 = (x.astype(dtype)[:, None] for x in (sizes, sizes[:1]))
  n, pairs = n1 + n0, n1 * n0
  u = (counts.difference.astype(dtype) + pairs) / 2
  # (n + 1) - sum(t^3 - t) / (n (n - 1)) is S / (n (n - 1)).
  spread = jnp.where(tie_correct, counts.untied / (n * (n - 1)), n + 1)
  s = jnp.broadcast_to(jnp.sqrt(pairs / 12 * spread), u.shape)
  # max(U, n1 n0 - U) - n1 n0 / 2 is |D| / 2, in integers.
  excess = jnp.abs(counts.difference) - jnp.asarray(continuity, jnp.int32)
  z = jnp.where(s > 0, excess.astype(dtype) / 2 / s, 0)
  p, log_p = tails.normal(z)
  empty = (n1 == 0) | (n0 == 0) | (pairs >= 2.0**31)
  return tuple(
    jnp.where(empty, jnp.nan, x) for x in (u, z, jnp.full_like(z, jnp.nan))
  ) + tuple(jnp.where(empty, jnp.nan, x) for x in (p, log_p))


def welch_tests(
  mean: Array, variance: Array, sizes: Array
) -> tuple[Array, ...]:
  """Returns statistic, z, df, p and natural log p of Welch's test.

  Args:
    mean: [conditions, genes].
    variance: the same, divided by n.
    sizes: int [conditions].
  """
  n = sizes.astype(mean.dtype)[:, None]
  # The mean of a constant may be off by its rounding: no variance.
  tiny = 4 * jnp.finfo(mean.dtype).eps * jnp.abs(mean)
  variance = jnp.where(variance <= jnp.square(tiny), 0, variance)
  error = variance / (n - 1)  # 0/0 is NaN: one cell has no variance.
  total = error + error[:1]
  change = mean - mean[:1]
  change = jnp.where(
    (total == 0) & (jnp.abs(change) <= jnp.maximum(tiny, tiny[:1])), 0, change
  )
  df = jnp.square(total) / (
    jnp.square(error) / (n - 1) + jnp.square(error[:1]) / (n[:1] - 1)
  )
  same = (total == 0) & (change == 0)
  t = jnp.where(same, 0, change / jnp.sqrt(total))
  df = jnp.where(total == 0, n + n[:1] - 2, df)
  p, log_p = tails.student(jnp.abs(t), df)
  p, log_p = jnp.where(same, 1, p), jnp.where(same, 0, log_p)
  return t, jnp.abs(t), df, p, log_p


# ----------------------------------------------------------------------------


def log2_fold_change(
  mean_p: Array, mean_0: Array, *, pseudocount: float = 0.0
) -> Array:
  """Returns log2((mean_p + c) / (mean_0 + c)), and 0 for 0/0.

  With a pseudocount of 0, as cell-eval has it, a gene that one side only
  expresses gets an infinite change; pdex's own default is 1e-9.
  """
  above, below = mean_p + pseudocount, mean_0 + pseudocount
  return jnp.where(above == below, 0, jnp.log2(above) - jnp.log2(below))


def cpm_mask(linear: Array, *, threshold: float, on: str = 'either') -> Array:
  """Says which genes have more than `threshold` pooled counts per million.

  Args:
    linear: [conditions, genes] means or sums of values that add up (no logs).
    threshold: a gene at or below it is left out.
    on: 'either', where both condition and control are (pdex); or 'control',
      where the control is (cell-eval2, VCC 2026).

  Returns:
    bool [conditions, genes]; no gene is above where a total is not finite.
  """
  above = linear * (1e6 / jnp.sum(linear, axis=1, keepdims=True)) > threshold
  if on == 'control':
    return jnp.broadcast_to(above[:1], above.shape)
  return above | above[:1]


def fill(
  results: tuple[Array, ...],
  means: Array,
  linear: Array | None,
  gene_mask: Array | None,
  *,
  mean: str,
  pseudocount: float,
  cpm_filter: float | None,
  cpm_filter_on: str,
) -> DE:
  """Fills the table from tests and means.

  Args:
    results: statistic, z, df, p and natural log p, [conditions, genes].
    means: [conditions, genes] of the values as they are; where those are not
      finite the results become NaN.
    linear: means of the values without logarithm, for the CPM filter.
    gene_mask, mean, pseudocount, cpm_filter, cpm_filter_on: as in `de`.
  """
  known = jnp.isfinite(means) & jnp.isfinite(means[:1])
  known &= (jnp.arange(len(means)) > 0)[:, None]
  statistic, z, df, p, log_p = (jnp.where(known, x, jnp.nan) for x in results)
  tested = None if gene_mask is None else _spread(gene_mask, p.shape)
  if cpm_filter is not None:
    enough = cpm_mask(linear, threshold=cpm_filter, on=cpm_filter_on)
    tested = enough if tested is None else tested & enough
  level = jnp.expm1(means) if mean == 'geometric' else means
  level_0 = jnp.broadcast_to(level[:1], level.shape)
  return DE(
    statistic=statistic,
    z=z,
    df=df,
    p=p,
    log10_p=log_p / _LOG10,
    fdr=benjamini_hochberg(p, mask=tested),
    log2_fold_change=log2_fold_change(level, level_0, pseudocount=pseudocount),
    mean_p=level,
    mean_0=level_0,
  )


@functools.partial(
  jax.jit, static_argnames=('num_conditions', 'mean', 'cpm_filter_on')
)
def _table(
  values: Array,
  condition: Array,
  counts: rank_counts.Counts | None,
  gene_mask: Array | None,
  *,
  num_conditions: int,
  mean: str,
  pseudocount: float,
  tie_correct: bool,
  continuity: bool,
  cpm_filter: float | None,
  cpm_filter_on: str,
) -> DE:
  """Makes the table: with counts of the rank test, with None of Welch's."""
  values = values.astype(pseudobulk.wide(values))
  groups = {'groups': condition, 'num_groups': num_conditions}
  means = pseudobulk.group_means(values, **groups)
  _, _, sizes = rank_counts.arrange(condition, num_conditions=num_conditions)
  if counts is not None:
    results = rank_tests(
      counts, sizes, tie_correct=tie_correct, continuity=continuity
    )
  else:
    variance = pseudobulk.group_variances(values, **groups)
    results = welch_tests(means, variance, sizes)
  linear = None
  if cpm_filter is not None:
    linear = means
    if mean == 'geometric':
      linear = pseudobulk.group_means(jnp.expm1(values), **groups)
  return fill(
    results,
    means,
    linear,
    gene_mask,
    mean=mean,
    pseudocount=pseudocount,
    cpm_filter=cpm_filter,
    cpm_filter_on=cpm_filter_on,
  )


def de(
  values: Array,
  condition: Array,
  *,
  num_conditions: int,
  method: str = 'wilcoxon',
  mean: str = 'geometric',
  pseudocount: float = 0.0,
  tie_correct: bool = True,
  continuity: bool = True,
  gene_mask: Array | None = None,
  cpm_filter: float | None = None,
  cpm_filter_on: str = 'either',
) -> DE:
  """Tests every gene of every condition against the control.

  Can be jitted (all but the arrays static). Called with concrete arrays it
  sorts only the cells that are not zero, a few times faster for sparse data.

  Args:
    values: [cells, genes], finite; a group with a NaN or infinity in a gene
      gives NaN there. float64 is kept where JAX's x64 mode is on; elsewhere it
      becomes float32, in which values that differ by less are ties.
    condition: int [cells]; 0 is the control; cells outside
      [0, num_conditions), -1 say, are not read.
    num_conditions: with the control.
    method: 'wilcoxon' or 'welch'.
    mean: pseudobulk of the fold change: 'geometric', expm1 of the mean, for
      log1p values; or 'arithmetic', the mean of the values as they are.
    pseudocount: added to both pseudobulks.
    tie_correct: takes ties from the variance of U.
    continuity: takes 1/2 from |U - n1 n0 / 2|.
    gene_mask: bool [genes] or [conditions, genes]; False leaves a gene out of
      the false discovery rate.
    cpm_filter: leaves out, too, the genes whose pooled counts per million are
      at or below it (after expm1 with the geometric mean).
    cpm_filter_on: 'either' keeps a gene that condition or control has more of;
      'control' one that the control has.

  Returns:
    DE. NaN, not 1, for a condition without cells, Welch with one cell, and
    under jit where control times condition cells reach 2^31.

  Raises:
    ValueError: for shapes, names or sizes that do not fit; what depends on the
      values of `condition` is not seen under jit.
  """
  checks.check_shapes(jnp.shape(values), jnp.shape(condition))
  checks.check_options(
    num_conditions=num_conditions,
    num_genes=jnp.shape(values)[1],
    method=method,
    mean=mean,
    gene_mask=gene_mask,
    cpm_filter_on=cpm_filter_on,
  )
  if not isinstance(condition, jax.core.Tracer):
    sizes = checks.count_cells(np.asarray(condition), num_conditions)
    checks.check_sizes(sizes, pairs=method == 'wilcoxon')
  values, condition = jnp.asarray(values), jnp.asarray(condition)
  counts = None
  if method == 'wilcoxon':
    counts = rank_counts.count(values, condition, num_conditions=num_conditions)
  return _table(
    values,
    condition,
    counts,
    gene_mask,
    num_conditions=num_conditions,
    mean=mean,
    pseudocount=pseudocount,
    tie_correct=tie_correct,
    continuity=continuity,
    cpm_filter=cpm_filter,
    cpm_filter_on=cpm_filter_on,
  )
