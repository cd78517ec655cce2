"""Agreement of two tables of differential expression, after cell-eval 0.8.2.

Every function takes the `calls.Calls` of the predicted and the observed side,
both [conditions, genes], and returns [conditions], one number for a panel where
it says so. R and P are the significant genes of the observed and the predicted
side, n_r and n_p their numbers. For the numbers of cell-eval itself, make both
sides with `dtype=jnp.float32`; its columns by their names are `cell_eval`.

NaN stands where the tool leaves a condition out or writes NaN itself. Taking
the mean of what is left is what the tool does for the first kind only: its mean
of `pr_auc` is NaN where one condition has no significant gene.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from pertjax.metrics import registry
from pertjax.metrics.differential import calls
from pertjax.metrics.differential.calls import Calls
from pertjax.types import Array

FLOORS = ('clip', 'min_nonzero')
SIGNS = ('all', 'positive', 'negative')
TOP = (None, 50, 100, 200, 500)

_FLOOR = 1e-10


# ----------------------------------------------------------------------------
# Sets of significant genes.


def _shared(
  predicted: Calls,
  observed: Calls,
  *,
  k: int | None,
  of: Calls,
  ties: str,
  places: tuple[calls.Places, calls.Places] | None,
) -> Array:
  """Counts what the first k of both sides share, over k."""
  calls.check(predicted, observed)
  if k is not None and k < 1:
    raise ValueError(f'k is {k!r}; it must be None or at least 1')
  size = calls.num_significant(of)
  size = size if k is None else jnp.minimum(k, size)
  known = (None, None) if places is None else places
  a, b = (
    calls.top(table, size, ties=ties, where=where)
    for table, where in zip((predicted, observed), known)
  )
  return calls.ratio(
    jnp.sum(a * b, axis=-1), size.astype(a.dtype), otherwise=0.0
  )


@functools.partial(jax.jit, static_argnames=('k', 'ties'))
def overlap_at_k(
  predicted: Calls,
  observed: Calls,
  *,
  k: int | None = None,
  ties: str = 'first',
  places: tuple[calls.Places, calls.Places] | None = None,
) -> Array:
  """Returns which share of the top observed genes the top predicted ones hold.

  Each side's significant genes are ordered by |log2 fold change|. With
  m = min(k, n_r), or n_r without k: |first m of R and of P| / m. cell-eval
  0.8.2, `overlap_at_N`, `overlap_at_k`; cell-eval2 0.20, `overlap`,
  `overlap_topk`. Without k it is the DES of the Virtual Cell Challenge 2025.

  Range [0, 1], best 1; chance is about min(n_p, m) / genes. 0, not NaN, where
  nothing is significant (n_r = 0): a condition without an effect can only lose.

  Args:
    predicted: see `calls.make`, and so is the other.
    observed: the truth.
    k: static.
    ties: what happens to genes of the same change, see `calls.top`. The tool's
      order of them follows from nothing in the data: 'first', the default, is
      repeatable, 'expected' the mean over all orders.
    places: `calls.places` of both, where they are known already.

  Returns:
    [conditions].

  Raises:
    ValueError: for shapes, k or ties that are not possible.
  """
  return _shared(
    predicted, observed, k=k, of=observed, ties=ties, places=places
  )


@functools.partial(jax.jit, static_argnames=('k', 'ties'))
def precision_at_k(
  predicted: Calls,
  observed: Calls,
  *,
  k: int | None = None,
  ties: str = 'first',
  places: tuple[calls.Places, calls.Places] | None = None,
) -> Array:
  """Returns which share of the top predicted genes the top observed ones hold.

  As `overlap_at_k` with m = min(k, n_p), or n_p without k. cell-eval 0.8.2,
  `precision_at_N`, `precision_at_k`; cell-eval2 0.20, `precision`,
  `precision_topk`. Range [0, 1], best 1, chance about min(n_r, m) / genes; 0
  where n_p = 0.
  """
  return _shared(
    predicted, observed, k=k, of=predicted, ties=ties, places=places
  )


@jax.jit
def sig_genes_recall(predicted: Calls, observed: Calls) -> Array:
  """Returns |R and P| / n_r: how many of the significant genes are found.

  Range [0, 1], best 1, chance n_p / genes; NaN where n_r = 0. Calling every
  gene is perfect here. cell-eval 0.8.2, `de_sig_genes_recall`; cell-eval2
  0.20, `sig_recall`.
  """
  calls.check(predicted, observed)
  dtype = observed.fdr.dtype
  both = predicted.significant & observed.significant
  return calls.ratio(
    calls.count(both, dtype), calls.count(observed.significant, dtype)
  )


@jax.jit
def spearman_sig(predicted: Calls, observed: Calls) -> Array:
  """Correlates n_p with n_r by ranks, over the conditions with n_r > 0.

  One number for the panel, []. Range [-1, 1], best 1, chance 0. 1 where no
  condition has a significant gene, whatever was predicted; NaN where a side is
  constant or only one condition is left. cell-eval 0.8.2, `de_spearman_sig`;
  cell-eval2 0.20, `nsig_spearman`. The tools write it into every condition.
  """
  calls.check(predicted, observed)
  dtype = observed.fdr.dtype
  n_p, n_r = (calls.count(x.significant, dtype) for x in (predicted, observed))
  value = calls.spearman(n_p, n_r, mask=n_r > 0)
  return jnp.where(jnp.any(n_r > 0), value, 1)


# ----------------------------------------------------------------------------
# Fold changes of the significant genes.


def same_sign(a: Array, b: Array) -> Array:
  """Says where the signs are equal; 0 equals 0, and NaN equals NaN."""
  return (jnp.sign(a) == jnp.sign(b)) | (jnp.isnan(a) & jnp.isnan(b))


def _match(of: Calls, other: Calls) -> Array:
  """Returns the share of equal signs among one side's significant genes."""
  calls.check(of, other)
  dtype = of.fdr.dtype
  asked = of.significant & other.present
  same = asked & same_sign(of.log2_fold_change, other.log2_fold_change)
  return calls.ratio(calls.count(same, dtype), calls.count(asked, dtype))


@jax.jit
def direction_match(predicted: Calls, observed: Calls) -> Array:
  """Returns the share of R whose fold change has the predicted sign.

  Range [0, 1], best 1; chance 1/2 for signs drawn by a coin, and the share of
  the more frequent sign for a model that always predicts that one. Genes that
  are not in the predicted table are not asked; NaN where none is left. As in
  the tools, 0 agrees with 0 and NaN with NaN. cell-eval 0.8.2,
  `de_direction_match`; cell-eval2 0.20, `direction_match`.
  """
  return _match(observed, predicted)


@jax.jit
def model_direction_match(predicted: Calls, observed: Calls) -> Array:
  """Returns the share of P whose fold change has the observed sign.

  As `direction_match` with the sides exchanged; the observed significance is
  not asked. NaN where n_p = 0. cell-eval2 0.20, `model_direction_match`.
  """
  return _match(predicted, observed)


@functools.partial(jax.jit, static_argnames='sign')
def spearman_lfc_sig(
  predicted: Calls, observed: Calls, *, sign: str = 'all'
) -> Array:
  """Correlates fold changes by ranks, over R.

  Range [-1, 1], best 1, chance 0. A gene that is not in the predicted table
  has change 0. NaN where n_r < 2 or a side is constant. cell-eval 0.8.2,
  `de_spearman_lfc_sig`; cell-eval2 0.20, `lfc_spearman`, `..._pos`, `..._neg`.

  Args:
    predicted: see `calls.make`, and so is the other.
    observed: the truth.
    sign: 'positive' or 'negative' takes the genes of R whose observed change
      is such; static. The infinite ones are.

  Returns:
    [conditions].
  """
  calls.check(predicted, observed)
  change = jnp.where(predicted.present, predicted.log2_fold_change, 0)
  mask = significant_of(observed, sign)
  return calls.spearman(change, observed.log2_fold_change, mask=mask)


def significant_of(table: Calls, sign: str) -> Array:
  """Returns the significant genes whose change has the sign, one of SIGNS."""
  registry.check_choice('sign', sign, SIGNS)
  change = table.log2_fold_change
  if sign == 'positive':
    # polars, in which the tools are written: NaN is larger than any number.
    return table.significant & ((change > 0) | jnp.isnan(change))
  if sign == 'negative':
    return table.significant & (change < 0)
  return table.significant


# ----------------------------------------------------------------------------
# Curves: R found by the predicted false discovery rate.


def _scores(predicted: Calls, observed: Calls, floor: str) -> Array:
  """Returns the predicted rates that order genes; infinite: not counted."""
  registry.check_choice('floor', floor, FLOORS)
  rate = jnp.where(predicted.present, predicted.fdr, 1)
  if floor == 'clip':
    rate = jnp.clip(rate, _FLOOR, 1)
  else:
    positive = observed.present & (rate > 0)
    least = jnp.min(rate, where=positive, initial=jnp.inf)
    least = jnp.where(jnp.isfinite(least), least, _FLOOR)
    rate = jnp.where(rate == 0, least, rate)
  return jnp.where(observed.present, rate, jnp.inf)


@functools.partial(jax.jit, static_argnames='floor')
def auc(
  predicted: Calls, observed: Calls, *, floor: str = 'clip'
) -> tuple[Array, Array]:
  """Returns the areas under the precision-recall and the ROC curve.

  See `pr_auc` and `roc_auc`, each of which is half of this.
  """
  calls.check(predicted, observed)
  dtype = observed.fdr.dtype
  rate, label = jax.lax.sort(
    (_scores(predicted, observed, floor), observed.significant),
    dimension=1,
    num_keys=1,
  )
  ties = calls.runs(rate)
  found = jnp.cumsum(label, axis=1, dtype=jnp.int32)
  before = jnp.take_along_axis(found - label, ties.first, axis=1)
  found = jnp.take_along_axis(found, ties.last, axis=1)
  taken = ties.last + 1
  wrong_before = (ties.first - before).astype(dtype)
  wrong = (taken - found).astype(dtype)
  precision = found.astype(dtype) / taken.astype(dtype)
  positives = calls.count(observed.significant, dtype)
  negatives = calls.count(observed.present, dtype) - positives
  undefined = (positives == 0) | (negatives == 0)
  # A positive gene is above the negatives of later runs, and half of its own.
  above = 1 - (wrong + wrong_before) / (2 * negatives[:, None])
  return tuple(
    jnp.where(
      undefined, jnp.nan, jnp.sum(jnp.where(label, x, 0), axis=1) / positives
    )
    for x in (precision, above)
  )


def pr_auc(predicted: Calls, observed: Calls, *, floor: str = 'clip') -> Array:
  """Returns the average precision of finding R by the predicted fdr.

  sum over thresholds of (recall - recall before) * precision, genes of one
  rate entering together. Labels are the genes of the observed table; one that
  is not in the predicted table has rate 1.

  Range [0, 1], best 1, chance n_r / genes; NaN where all genes or none are
  significant. cell-eval 0.8.2 and cell-eval2 0.20, `pr_auc`. Both score by
  -log10 of the rate, in which rates that differ in their last bits may tie;
  here the rates themselves are compared.

  Args:
    predicted: see `calls.make`, and so is the other.
    observed: the truth.
    floor: 'clip' takes rates below 1e-10 as equal (cell-eval); 'min_nonzero'
      gives a rate of 0 the smallest other one of the panel (cell-eval2).

  Returns:
    [conditions].
  """
  return auc(predicted, observed, floor=floor)[0]


def roc_auc(predicted: Calls, observed: Calls, *, floor: str = 'clip') -> Array:
  """Returns the probability that a gene of R is ranked above one outside.

  The area under the ROC curve by trapezoids, which counts ties by one half
  (Mann-Whitney). Range [0, 1], best 1, chance 1/2; everything else as in
  `pr_auc`. cell-eval 0.8.2 and cell-eval2 0.20, `roc_auc`.
  """
  return auc(predicted, observed, floor=floor)[1]


# ----------------------------------------------------------------------------


@functools.partial(jax.jit, static_argnames='ties')
def cell_eval(
  predicted: Calls, observed: Calls, *, ties: str = 'first'
) -> dict[str, Array]:
  """Returns cell-eval 0.8.2's columns of differential expression.

  Args:
    predicted: of `calls.make(..., dtype=jnp.float32)`.
    observed: likewise.
    ties: see `overlap_at_k`.

  Returns:
    {column: [conditions]}; NaN where the tool omits a condition.
  """
  places = calls.places(predicted), calls.places(observed)
  dtype = observed.fdr.dtype
  n_r = calls.count(observed.significant, dtype)
  columns = {}
  for name, function in (
    ('overlap', overlap_at_k),
    ('precision', precision_at_k),
  ):
    for k in TOP:
      columns[f'{name}_at_{k or "N"}'] = function(
        predicted, observed, k=k, ties=ties, places=places
      )
  precision_recall, roc = auc(predicted, observed)
  return columns | {
    'de_nsig_counts_real': n_r,
    'de_nsig_counts_pred': calls.count(predicted.significant, dtype),
    'de_spearman_sig': jnp.full_like(n_r, spearman_sig(predicted, observed)),
    'de_direction_match': direction_match(predicted, observed),
    'de_spearman_lfc_sig': spearman_lfc_sig(predicted, observed),
    'de_sig_genes_recall': sig_genes_recall(predicted, observed),
    'pr_auc': precision_recall,
    'roc_auc': roc,
  }
