"""Agreement of two sets of significant genes: cell-eval2 0.20's own measures.

Functions of two `calls.Calls`, [conditions] out. R and P are the significant
genes of the observed and the predicted side, n_r and n_p their numbers, and the
universe are the G genes that are in either table. The chance-corrected ones
read the table of R against P:

  informedness  n_rp / n_r - (n_p - n_rp) / (G - n_r)       TPR - FPR
  markedness    n_rp / n_p - (n_r - n_rp) / (G - n_p)       PPV - FOR
  MCC           (n_rp G - n_r n_p) / sqrt(n_r n_p (G - n_r) (G - n_p))

(Youden, Cancer 3, 1950; Powers, J. Mach. Learn. Technol. 2, 2011; Matthews,
Biochim. Biophys. Acta 405, 1975). All are in [-1, 1] with best 1 and chance 0,
and -1, the worst, where a denominator is 0: a prediction that calls nothing, or
everything, loses. Where the observed side is at fault the tool leaves the
condition out; the gates for that are in `cell_eval2`.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from pertjax.metrics.differential import calls
from pertjax.metrics.differential.calls import Calls
from pertjax.types import Array

MIN_GENES = 10


def _universe(predicted: Calls, observed: Calls) -> Array:
  calls.check(predicted, observed)
  return calls.count(predicted.present | observed.present, observed.fdr.dtype)


def _table(
  predicted: Calls, observed: Calls
) -> tuple[Array, Array, Array, Array]:
  """Returns n_rp, n_r, n_p and G."""
  universe, dtype = _universe(predicted, observed), observed.fdr.dtype
  both = predicted.significant & observed.significant
  return (
    calls.count(both, dtype),
    calls.count(observed.significant, dtype),
    calls.count(predicted.significant, dtype),
    universe,
  )


def _excess(both: Array, asked: Array, other: Array, universe: Array) -> Array:
  """Returns the rate inside the asked set less the rate outside of it."""
  outside = universe - asked
  undefined = (asked <= 0) | (outside <= 0)
  value = calls.ratio(both, asked) - calls.ratio(other - both, outside)
  return jnp.where(undefined, -1, value)


def _mcc(both: Array, n_r: Array, n_p: Array, universe: Array) -> Array:
  # Two roots: the product of four counts would leave the range of float32.
  scale = jnp.sqrt(n_r * (universe - n_r)) * jnp.sqrt(n_p * (universe - n_p))
  value = calls.ratio(both * universe - n_r * n_p, scale)
  undefined = (n_r <= 0) | (n_p <= 0) | (n_r >= universe) | (n_p >= universe)
  return jnp.where(undefined, -1, value)


@jax.jit
def sig_jaccard(predicted: Calls, observed: Calls) -> Array:
  """Returns |R and P| / |R or P|; 1 where both are empty.

  Range [0, 1], best 1; chance is about n_r n_p / G over n_r + n_p less that.
  cell-eval2 0.20, `sig_jaccard`, one of the six of the Virtual Cell Challenge
  2026; the target's own gene is dropped from both sides first.
  """
  both, n_r, n_p, _ = _table(predicted, observed)
  return calls.ratio(both, n_r + n_p - both, otherwise=1.0)


@jax.jit
def informedness(predicted: Calls, observed: Calls) -> Array:
  """Returns TPR - FPR; cell-eval2 0.20, `sig_recall_adjusted`.

  -1 where no gene is observed to be significant, or every one.
  """
  both, n_r, n_p, universe = _table(predicted, observed)
  return _excess(both, n_r, n_p, universe)


@jax.jit
def markedness(predicted: Calls, observed: Calls) -> Array:
  """Returns PPV - FOR; cell-eval2 0.20, `precision_adjusted`.

  -1 where no gene is predicted to be significant, or every one.
  """
  both, n_r, n_p, universe = _table(predicted, observed)
  return _excess(both, n_p, n_r, universe)


@jax.jit
def sig_mcc(predicted: Calls, observed: Calls) -> Array:
  """Returns Matthews' correlation; cell-eval2 0.20, `sig_mcc`.

  -1 where a side calls nothing, or everything.
  """
  return _mcc(*_table(predicted, observed))


@jax.jit
def overlap_adjusted(
  predicted: Calls, observed: Calls, *, places: calls.Places | None = None
) -> Array:
  """Returns the MCC of R with the n_r predicted genes of the largest change.

  The chance-corrected `agreement.overlap_at_k`: of P only the n_r genes with
  the largest |log2 fold change| are taken. -1 as in `sig_mcc`. cell-eval2 0.20,
  `overlap_adjusted`.

  Args:
    predicted: see `calls.make`, and so is the other.
    observed: the truth.
    places: `calls.places(predicted)`, where it is known already.

  Returns:
    [conditions].
  """
  universe, dtype = _universe(predicted, observed), observed.fdr.dtype
  n_r = calls.num_significant(observed)
  taken = calls.top(predicted, n_r, where=places) > 0
  both = calls.count(taken & observed.significant, dtype)
  return _mcc(both, n_r.astype(dtype), calls.count(taken, dtype), universe)


@jax.jit
def lfc_nmae(
  predicted: Calls, observed: Calls, *, min_genes: int = MIN_GENES
) -> Array:
  """Returns sum |L_pred - L_obs| / sum |L_obs| over R: an error of size.

  Lower is better, best 0; a prediction of no change has exactly 1, and there is
  no upper end. R without infinite changes, 10 genes at least. A predicted
  change that is infinite, NaN or not in the table is 0: whoever predicts
  nothing usable predicts no change, and cannot shrink the set of genes. NaN
  where fewer than `min_genes` genes are left or all L_obs are 0, which depends
  on the observed side only. cell-eval2 0.20, `lfc_nmae` (Virtual Cell Challenge
  2026); the target's own gene is dropped first.
  """
  calls.check(predicted, observed)
  truth, change = observed.log2_fold_change, predicted.log2_fold_change
  asked = observed.significant & jnp.isfinite(truth)
  change = jnp.where(predicted.present & jnp.isfinite(change), change, 0)
  error = jnp.sum(jnp.where(asked, jnp.abs(change - truth), 0), axis=1)
  size = jnp.sum(jnp.where(asked, jnp.abs(truth), 0), axis=1)
  enough = jnp.sum(asked, axis=1) >= min_genes
  return jnp.where(enough, calls.ratio(error, size), jnp.nan)
