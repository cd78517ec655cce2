"""cell-eval2 0.20's columns of differential expression, its gates among them.

The tool decides from the observed side alone which conditions a metric can
score (a gate); the others become NaN and leave the mean. Inside, a metric that
the prediction makes undefined has its worst value. R are the observed
significant genes, n_r their number; most gates ask for `min_genes`, 10.

  sig_set      n_r >= min_genes
  two_class    and at least one gene of the observed table is not in R
  changes      n_r >= min_genes within one sign, and two different changes
  panel        min_genes conditions with n_r > 0, and two different n_r
  directed     min_genes observed genes, in R or not, with a direction
  measured     min_genes observed genes

The tables that the tool makes for itself ('v2' preset): Wilcoxon test of counts
per million, arithmetic means, pseudocount 1e-9, only genes above 5 counts per
million in the observed control, Benjamini-Hochberg after that, predicted cells
against the observed control, `undefined='mask'`, float64.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from pertjax.metrics.differential import agreement, calls, direction, membership
from pertjax.metrics.differential.calls import Calls
from pertjax.types import Array

MIN_GENES = membership.MIN_GENES


def sig_set(observed: Calls, *, min_genes: int = MIN_GENES) -> Array:
  """Gate, bool [conditions]; see the module, and so for those below."""
  return calls.num_significant(observed) >= min_genes


def two_class(observed: Calls, *, min_genes: int = MIN_GENES) -> Array:
  """Gate of the curves and of what is corrected for chance."""
  other = jnp.any(observed.present & ~observed.significant, axis=1)
  return sig_set(observed, min_genes=min_genes) & other


def changes(
  observed: Calls, *, sign: str = 'all', min_genes: int = MIN_GENES
) -> Array:
  """Gate of the correlations of fold changes."""
  asked = agreement.significant_of(observed, sign)
  change = observed.log2_fold_change
  low = jnp.min(change, axis=1, where=asked, initial=jnp.inf)
  high = jnp.max(change, axis=1, where=asked, initial=-jnp.inf)
  return (jnp.sum(asked, axis=1) >= min_genes) & (low != high)


def panel(observed: Calls, *, min_conditions: int = MIN_GENES) -> Array:
  """Gate of `nsig_spearman`: bool [], for all conditions or none."""
  number = calls.num_significant(observed)
  asked = number > 0
  low = jnp.min(number, where=asked, initial=jnp.iinfo(number.dtype).max)
  high = jnp.max(number, where=asked, initial=0)
  return (jnp.sum(asked) >= min_conditions) & (low != high)


def directed(observed: Calls, *, min_genes: int = MIN_GENES) -> Array:
  """Gate of `direction_precision`."""
  asked = observed.present & direction.directed(observed.log2_fold_change)
  return jnp.sum(asked, axis=1) >= min_genes


def measured(observed: Calls, *, min_genes: int = MIN_GENES) -> Array:
  """Gate of `model_direction_match`."""
  return jnp.sum(observed.present, axis=1) >= min_genes


def gated(value: Array, gate: Array, worst: float | None = None) -> Array:
  """Returns NaN outside of the gate and the worst value for NaN inside."""
  if worst is not None:
    value = jnp.where(jnp.isnan(value), worst, value)
  return jnp.where(gate, value, jnp.nan)


# ----------------------------------------------------------------------------


def _sets(
  predicted: Calls, observed: Calls, min_genes: int, ties: str
) -> dict[str, Array]:
  """Columns of membership and of curves, the target's own gene included."""
  places = calls.places(predicted), calls.places(observed)
  columns = {}
  for name, function in (
    ('overlap', agreement.overlap_at_k),
    ('precision', agreement.precision_at_k),
  ):
    for k in agreement.TOP:
      columns[name + (f'_top{k}' if k else '')] = function(
        predicted, observed, k=k, ties=ties, places=places
      )
  some = sig_set(observed, min_genes=min_genes)
  both = two_class(observed, min_genes=min_genes)
  precision_recall, roc = agreement.auc(
    predicted, observed, floor='min_nonzero'
  )
  counts = gated(
    agreement.spearman_sig(predicted, observed),
    panel(observed, min_conditions=min_genes),
    worst=-1.0,
  )
  dtype = observed.fdr.dtype
  return columns | {
    'nsig_counts_real': calls.count(observed.significant, dtype),
    'nsig_counts_pred': calls.count(predicted.significant, dtype),
    'nsig_spearman': jnp.broadcast_to(counts, some.shape),
    'sig_recall': gated(agreement.sig_genes_recall(predicted, observed), some),
    'pr_auc': gated(precision_recall, both),
    'roc_auc': gated(roc, both),
    'overlap_adjusted': gated(
      membership.overlap_adjusted(predicted, observed, places=places[0]), both
    ),
    'precision_adjusted': membership.markedness(predicted, observed),
    'sig_recall_adjusted': gated(
      membership.informedness(predicted, observed), both
    ),
    'sig_mcc': gated(membership.sig_mcc(predicted, observed), both),
  }


def _changes(
  predicted: Calls, observed: Calls, min_genes: int, alpha: float, order: Array
) -> dict[str, Array]:
  """Columns of fold changes, the target's own gene included."""
  some = sig_set(observed, min_genes=min_genes)
  columns = {}
  for suffix, sign in zip(('', '_pos', '_neg'), agreement.SIGNS):
    columns[f'lfc_spearman{suffix}'] = gated(
      agreement.spearman_lfc_sig(predicted, observed, sign=sign),
      changes(observed, sign=sign, min_genes=min_genes),
      worst=-1.0,
    )
  for suffix, universe in zip(('', '_universe'), direction.UNIVERSES):
    columns[f'direction_sensitivity{suffix}'] = gated(
      direction.direction_sensitivity(
        predicted, observed, universe=universe, alpha=alpha, order=order
      ),
      some,
    )
  return columns | {
    'direction_match': gated(
      agreement.direction_match(predicted, observed), some, worst=0.0
    ),
    'model_direction_match': gated(
      agreement.model_direction_match(predicted, observed),
      measured(observed, min_genes=min_genes),
      worst=0.0,
    ),
    'direction_precision': gated(
      direction.direction_precision(predicted, observed),
      directed(observed, min_genes=min_genes),
      worst=0.0,
    ),
  }


def _without_own(
  predicted: Calls, observed: Calls, min_genes: int, alpha: float, order: Array
) -> dict[str, Array]:
  """Columns that the tool makes without the target's own gene."""
  columns = {}
  for name in (
    'direction_fidelity',
    'direction_fidelity_raw',
    'direction_coverage',
    'direction_yield',
    'direction_yield_raw',
    'direction_fidelity_yield',
    'direction_fidelity_yield_raw',
  ):
    columns[name] = getattr(direction, name)(predicted, observed)
  for suffix, universe in zip(('', '_unbounded'), direction.UNIVERSES):
    options = {'universe': universe, 'order': order}
    columns[f'direction_reach{suffix}'] = direction.direction_reach(
      predicted, observed, alpha=alpha, **options
    )
    columns[f'direction_reach{suffix}_raw'] = direction.direction_reach_raw(
      predicted, observed, **options
    )
  return columns | {
    'sig_jaccard': membership.sig_jaccard(predicted, observed),
    'lfc_nmae': membership.lfc_nmae(predicted, observed, min_genes=min_genes),
  }


@functools.partial(jax.jit, static_argnames='ties')
def cell_eval2(
  predicted: Calls,
  observed: Calls,
  *,
  own: Array | None = None,
  alpha: float = calls.ALPHA,
  min_genes: int = MIN_GENES,
  ties: str = 'first',
  tie_order: Array | None = None,
) -> dict[str, Array]:
  """Returns all columns, without the prefix 'de_wilcoxon_'.

  Args:
    predicted: of `calls.make(..., undefined='mask')`.
    observed: likewise.
    own: bool [conditions, genes], the gene that each condition targets. It
      leaves the metrics from which the tool drops it, and no others.
    alpha: the one of `calls.make`.
    min_genes: of the gates.
    ties: see `agreement.overlap_at_k`.
    tie_order: see `direction.significance_order`.

  Returns:
    {column: [conditions]}; NaN for a condition that its column leaves out. The
    tool's numbers for a panel are the means over the others.
  """
  # Dropping genes later changes no order.
  order = direction.significance_order(predicted, tie_order=tie_order)
  columns = _sets(predicted, observed, min_genes, ties)
  columns |= _changes(predicted, observed, min_genes, alpha, order)
  predicted, observed = (
    calls.without(table, own) for table in (predicted, observed)
  )
  return columns | _without_own(predicted, observed, min_genes, alpha, order)
