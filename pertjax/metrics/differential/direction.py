"""Agreement of directions, with chance and depth: cell-eval2 0.20's family.

Functions of two `calls.Calls`, [conditions] out. A gene has a direction where
its log2 fold change is neither 0 nor NaN; infinite is a direction. It is
adjudicable where both tables hold it and the observed side has a direction
there, and it matches where the predicted direction is that one: a prediction
without a direction is a miss. With R and P the significant genes, observed and
predicted,

  n_conf = |R|
  n_pred = |adjudicable genes of P|,  k of which match
  q      = share of the more frequent sign among the genes of R that have one
  d      = max(1 - q, 0.05)

q is what a model gets that predicts the same sign for every gene. The tool
drops the target's own gene from both sides (`calls.without`), but for
`direction_precision` and `direction_sensitivity`.

Where nothing is observed (n_conf = 0) or q does not exist, NaN stands in for a
condition that the tool's means leave out.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from pertjax.metrics import registry
from pertjax.metrics.differential import calls
from pertjax.metrics.differential.calls import Calls
from pertjax.types import Array

UNIVERSES = ('adjudicated', 'all')

# The lowest share of matching signs that `direction_reach` accepts without
# correction for chance: a calibrated number of cell-eval2, not a derived one.
PURITY = 0.9

_LEAST_DOUBT = 0.05


class Components(NamedTuple):
  """The counts of the module's docstring, [conditions] each."""

  n_conf: Array
  n_pred: Array
  k: Array
  q: Array
  d: Array


def directed(change: Array) -> Array:
  """Says where a change has a direction."""
  return ~jnp.isnan(change) & (change != 0)


def _judged(predicted: Calls, observed: Calls) -> tuple[Array, Array]:
  """Says which genes are adjudicable, and which of them match."""
  calls.check(predicted, observed)
  change, truth = predicted.log2_fold_change, observed.log2_fold_change
  judged = predicted.present & observed.present & directed(truth)
  match = directed(change) & (jnp.sign(change) == jnp.sign(truth))
  return judged, judged & match


@jax.jit
def components(predicted: Calls, observed: Calls) -> Components:
  """Counts what the fidelities are made of; NaN q and d where R has no sign."""
  dtype = observed.fdr.dtype
  judged, match = _judged(predicted, observed)
  votes = observed.significant & directed(observed.log2_fold_change)
  number = calls.count(votes, dtype)
  up = calls.count(votes & (observed.log2_fold_change > 0), dtype)
  q = calls.ratio(jnp.maximum(up, number - up), number)
  return Components(
    n_conf=calls.count(observed.significant, dtype),
    n_pred=calls.count(predicted.significant & judged, dtype),
    k=calls.count(predicted.significant & match, dtype),
    q=q,
    d=jnp.maximum(1 - q, _LEAST_DOUBT),  # NaN where q is.
  )


# ----------------------------------------------------------------------------
# Fidelity: of what is called, how much has the right sign.


@jax.jit
def direction_fidelity_raw(predicted: Calls, observed: Calls) -> Array:
  """Returns k / n_pred, the share of right signs among the genes called.

  Range [0, 1], best 1; chance 1/2 for a coin, q for a constant sign. NaN where
  n_pred = 0. cell-eval2 0.20, `direction_fidelity_raw`.
  """
  c = components(predicted, observed)
  return calls.ratio(c.k, c.n_pred)


@jax.jit
def direction_coverage(predicted: Calls, observed: Calls) -> Array:
  """Returns n_pred / n_conf, how much is called of what there is.

  From 0 up, without an end: neither more nor less is better beyond 1. NaN where
  n_conf = 0. cell-eval2 0.20, `direction_coverage`.
  """
  c = components(predicted, observed)
  return calls.ratio(c.n_pred, c.n_conf)


@jax.jit
def direction_yield_raw(predicted: Calls, observed: Calls) -> Array:
  """Returns k / n_conf, right signs for each gene that could be called.

  From 0 up, without an end: right signs outside of R count. NaN where n_conf =
  0. cell-eval2 0.20, `direction_yield_raw`.
  """
  c = components(predicted, observed)
  return calls.ratio(c.k, c.n_conf)


@jax.jit
def direction_fidelity_yield_raw(predicted: Calls, observed: Calls) -> Array:
  """Returns k / max(n_pred, n_conf), the lower of the raw fidelity and yield.

  Range [0, 1], best 1; calling too much and too little both cost, and the value
  is 0 where nothing is called. Chance: half of min(1, n_conf / n_pred) for a
  coin. NaN where both counts are 0. cell-eval2 0.20,
  `direction_fidelity_yield_raw` (Virtual Cell Challenge 2026).
  """
  c = components(predicted, observed)
  return calls.ratio(c.k, jnp.maximum(c.n_pred, c.n_conf))


def _corrected(c: Components) -> Array:
  return (calls.ratio(c.k, c.n_pred) - c.q) / c.d


def _without_signal(c: Components, value: Array) -> Array:
  """Where nothing is observed, calling nothing is right and all else wrong."""
  return jnp.where(c.n_conf == 0, jnp.where(c.n_pred == 0, 1.0, 0.0), value)


@jax.jit
def direction_fidelity(predicted: Calls, observed: Calls) -> Array:
  """Returns (k / n_pred - q) / d, the fidelity above that of a constant sign.

  Best 1 (less where q > 0.95), chance 0 for a constant sign, -q / d at least,
  and (1/2 - q) / d for a coin. Where n_conf = 0: 1 if nothing is called, else
  0. NaN where q does not exist or n_pred = 0. cell-eval2 0.20,
  `direction_fidelity`.
  """
  c = components(predicted, observed)
  return _without_signal(c, _corrected(c))


@jax.jit
def direction_fidelity_yield(predicted: Calls, observed: Calls) -> Array:
  """Returns min(1, n_pred / n_conf) times `direction_fidelity`.

  Best 1, chance 0. 0 where nothing is called; for n_conf = 0 as there; NaN
  where q does not exist. cell-eval2 0.20, `direction_fidelity_yield`.
  """
  c = components(predicted, observed)
  covered = jnp.minimum(1, calls.ratio(c.n_pred, c.n_conf))
  value = jnp.where(c.n_pred == 0, 0, covered * _corrected(c))
  value = jnp.where(jnp.isnan(c.q), jnp.nan, value)
  return _without_signal(c, value)


@jax.jit
def direction_yield(predicted: Calls, observed: Calls) -> Array:
  """Returns (k - q n_pred) / (n_conf d), right signs above a constant sign's.

  Without an end on either side; chance 0, and 0 where nothing is called. NaN
  where n_conf = 0 or q does not exist. cell-eval2 0.20, `direction_yield`.
  """
  c = components(predicted, observed)
  return calls.ratio(c.k - c.q * c.n_pred, c.n_conf * c.d)


@jax.jit
def direction_precision(predicted: Calls, observed: Calls) -> Array:
  """Returns `direction_fidelity_raw`; the tool keeps the target's own gene.

  cell-eval2 0.20, `direction_precision`.
  """
  return direction_fidelity_raw(predicted, observed)


# ----------------------------------------------------------------------------
# Reach: how far down the predicted order the signs stay right.


@jax.jit
def significance_order(
  predicted: Calls, *, tie_order: Array | None = None
) -> Array:
  """Orders genes by fdr, then p, then |log2 fold change|, the largest first.

  Args:
    predicted: one side. Genes that are not present come last, and so does a p
      or a change that is NaN among its equals.
    tie_order: int [genes], what decides between genes that are equal so far.
      cell-eval2 takes the alphabetical place of the name; the default are the
      columns.

  Returns:
    int32 [conditions, genes] columns, in order.
  """
  size = -jnp.abs(predicted.log2_fold_change)
  keys = [
    jnp.where(jnp.isnan(x), jnp.inf, x)
    for x in (predicted.fdr, predicted.p, size)
  ]
  place = jax.lax.broadcasted_iota(jnp.int32, size.shape, 1)
  if tie_order is not None:
    keys.append(jnp.broadcast_to(jnp.asarray(tie_order)[None, :], size.shape))
  ordered = jax.lax.sort(
    (*keys, place), dimension=1, is_stable=True, num_keys=len(keys)
  )
  return ordered[-1]


def _depth(
  predicted: Calls,
  observed: Calls,
  *,
  purity: Array,
  universe: str,
  order: Array | None,
) -> Array:
  """Returns the deepest count of judged genes that is pure enough, over n_conf.

  A share that equals the purity is enough, also where rounding has it below.
  """
  registry.check_choice('universe', universe, UNIVERSES)
  judged, match = _judged(predicted, observed)
  if universe == 'adjudicated':
    judged, match = (x & observed.significant for x in (judged, match))
  order = significance_order(predicted) if order is None else order
  seen, right = (
    jnp.cumsum(jnp.take_along_axis(x, order, axis=1), axis=1, dtype=jnp.int32)
    for x in (judged, match)
  )
  dtype = observed.fdr.dtype
  share = calls.ratio(right.astype(dtype), seen.astype(dtype))
  slack = 4 * jnp.finfo(dtype).eps
  pure = share >= jnp.broadcast_to(purity, seen.shape[:1])[:, None] - slack
  deepest = jnp.max(jnp.where(pure, seen, 0), axis=1).astype(dtype)
  return calls.ratio(deepest, calls.count(observed.significant, dtype))


@functools.partial(jax.jit, static_argnames='universe')
def direction_sensitivity(
  predicted: Calls,
  observed: Calls,
  *,
  universe: str = 'adjudicated',
  alpha: float = calls.ALPHA,
  order: Array | None = None,
) -> Array:
  """Returns how deep the predicted order stays 1 - alpha/2 right, over n_conf.

  Genes are taken in the order of `significance_order`; the depth is the largest
  number of adjudicable ones of which at least 1 - alpha/2 match: among the
  false discoveries that a rate of alpha allows, half have the right sign. A
  share that recovers counts.

  'adjudicated' takes genes of R only: range [0, 1], best 1. 'all' takes every
  gene, and has no upper end. Chance is about 1 / n_conf (a right first gene is
  pure). NaN where n_conf = 0. cell-eval2 0.20, `direction_sensitivity`,
  `direction_sensitivity_universe`; the tool keeps the target's own gene.

  Args:
    predicted: see `calls.make`, and so is the other.
    observed: the truth.
    universe: static.
    alpha: the one of `calls.make`.
    order: `significance_order(predicted)`, where it is known already.

  Returns:
    [conditions]. Where a share equals the threshold, it is reached; the tool
    decides such cases by the rounding of its float64, and rejects one in some
    twenty of those with a threshold from q.
  """
  return _depth(
    predicted,
    observed,
    purity=1 - jnp.asarray(alpha, observed.fdr.dtype) / 2,
    universe=universe,
    order=order,
  )


@functools.partial(jax.jit, static_argnames='universe')
def direction_reach(
  predicted: Calls,
  observed: Calls,
  *,
  universe: str = 'adjudicated',
  alpha: float = calls.ALPHA,
  order: Array | None = None,
) -> Array:
  """Returns the depth as `direction_sensitivity`, right beyond a constant sign.

  The threshold is q + (1 - alpha) (1 - q): of what a constant sign gets wrong,
  1 - alpha must be right. NaN, too, where q does not exist. cell-eval2 0.20,
  `direction_reach`, with 'all' `direction_reach_unbounded`.
  """
  q = components(predicted, observed).q
  depth = _depth(
    predicted,
    observed,
    purity=q + (1 - jnp.asarray(alpha, q.dtype)) * (1 - q),
    universe=universe,
    order=order,
  )
  return jnp.where(jnp.isnan(q), jnp.nan, depth)


@functools.partial(jax.jit, static_argnames='universe')
def direction_reach_raw(
  predicted: Calls,
  observed: Calls,
  *,
  universe: str = 'adjudicated',
  purity: float = PURITY,
  order: Array | None = None,
) -> Array:
  """Returns the depth as `direction_sensitivity`, with a threshold of 0.9.

  cell-eval2 0.20, `direction_reach_raw` (Virtual Cell Challenge 2026), with
  'all' `direction_reach_unbounded_raw`.
  """
  return _depth(
    predicted,
    observed,
    purity=jnp.asarray(purity, observed.fdr.dtype),
    universe=universe,
    order=order,
  )
