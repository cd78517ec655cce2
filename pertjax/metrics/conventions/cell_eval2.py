"""cell-eval2 0.20, preset 'v2' on counts: all of its columns.

Changes start from the observed control on both sides (option `control`; 'own'
is what the tool takes for replicates). The observed side alone decides which
conditions a metric can score; the others leave the mean, and inside, what a
prediction makes undefined has the worst value: see `differential.cell_eval2`.
Pseudobulks are the logarithms of sums of counts: see `bulk`.

The target genes of all conditions leave the discrimination scores, and those of
a condition its own normalised error. A perturbation without a gene, a drug say,
has none to leave; the tool stops where no condition has one.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pertjax.metrics import bulk, pseudobulk, registry, retrieval, tested
from pertjax.metrics import problem as problem_lib
from pertjax.metrics.conventions import base, cell_eval
from pertjax.metrics.conventions import cell_eval2_columns as columns
from pertjax.metrics.differential import calls
from pertjax.metrics.differential import cell_eval2 as agreement

CONTROLS = ('real', 'own')
PREFIX = columns.PREFIX
NORM = 'expr_mse_unbiased_capped_norm'

OPTIONS = {
  'control': 'real',  # Or 'own': predicted cells against predicted controls.
  'ties': 'mid',  # Of distances; 'tool' takes them by the alphabet.
  'gene_ties': 'first',  # Of fold changes, see `calls.top`.
  'target_sum': bulk.TARGET_SUM,
  'cpm_filter': 5.0,  # Of the control; None tests every gene.
}

_NOISE = ('expr_mse_unbiased', 'expr_mse_unbiased_capped', NORM)
_NOISY = (*_NOISE, 'expr_distance_unbiased')
_COUNTS = ('nsig_counts_pred', 'nsig_counts_real')


class Bulks(NamedTuple):
  """Pseudobulks of the conditions; arrays are [conditions, genes].

  Attributes:
    predicted: predicted bulks.
    observed: observed bulks.
    control: bulk of each condition's observed control.
    predicted_control: what predicted changes start from.
    predicted_noise: [conditions] C of `bulk`; NaN where not asked for, as is
      each of the next two.
    observed_noise: [conditions].
    control_noise: [conditions].
  """

  predicted: np.ndarray
  observed: np.ndarray
  control: np.ndarray
  predicted_control: np.ndarray
  predicted_noise: np.ndarray
  observed_noise: np.ndarray
  control_noise: np.ndarray


def bulks(
  problem: problem_lib.Problem,
  *,
  control: str = 'real',
  target_sum: float = bulk.TARGET_SUM,
  predicted_noise: bool = True,
  observed_noise: bool = True,
) -> Bulks:
  """Reads the pseudobulks of a problem of counts.

  Args:
    problem: of one group or several.
    control: one of CONTROLS.
    target_sum: see `bulk.values`.
    predicted_noise: estimates the noise of predictions, a pass over the cells.
    observed_noise: likewise.
  """
  number = problem.num_conditions
  at = problem.control_labels
  made = {}
  for side, noisy in (
    ('observed', observed_noise),
    ('predicted', predicted_noise),
  ):
    labels = np.arange(number)
    if not noisy:
      labels = labels[:0]
    elif side == 'observed':
      labels = np.union1d(labels, at)
    made[side] = bulk.bulk(
      getattr(problem, side), target_sum=target_sum, noise_of=labels
    )
  observed, predicted = made['observed'], made['predicted']
  start = observed.value[at]
  if control == 'own':
    own = problem.has_predicted_control[np.asarray(problem.group)][:, None]
    start = np.where(own, predicted.value[at], start)
  return Bulks(
    predicted=predicted.value[:number],
    observed=observed.value[:number],
    control=observed.value[at],
    predicted_control=start,
    predicted_noise=predicted.noise[:number],
    observed_noise=observed.noise[:number],
    control_noise=observed.noise[at],
  )


@functools.partial(jax.jit, static_argnames='target_sum')
def _expression(found: Bulks, shifted, truth, own, *, target_sum):
  """Returns the columns of errors, [conditions] each."""
  noise = found.predicted_noise, found.observed_noise
  both = found.predicted, found.observed
  correlation = pseudobulk.pearson(shifted, truth)
  varies = jnp.max(truth, axis=1) > jnp.min(truth, axis=1)
  return {
    'expr_mae': pseudobulk.mae(*both),
    'expr_mse': pseudobulk.mse(*both),
    'delta_mae': pseudobulk.mae(shifted, truth),
    'delta_mse': pseudobulk.mse(shifted, truth),
    'delta_pearson': agreement.gated(correlation, varies, worst=-1.0),
    'expr_mse_unbiased': bulk.error(*both, *noise, own=own),
    'expr_mse_unbiased_capped': bulk.capped_error(*both, *noise, own=own),
    'expr_distance_unbiased': bulk.distance(
      found.observed,
      found.control,
      found.observed_noise,
      found.control_noise,
      own=own,
    ),
    'expr_real_mass_ratio': jnp.sum(jnp.expm1(found.observed), axis=1)
    / target_sum,
  }


def _norm_panel(error: np.ndarray, distance: np.ndarray) -> base.Panel:
  """Returns sum N / sum D; draws keep the rho of the whole panel."""
  known = np.isfinite(error) & np.isfinite(distance)
  above, below = (np.where(known, x, 0) for x in (error, distance))

  def function(chosen):
    total = below[chosen].sum(1)
    with np.errstate(divide='ignore', invalid='ignore'):
      return np.where(total != 0, above[chosen].sum(1) / total, np.nan)

  made = base.resampled(function, len(error))
  return made._replace(used=int(known.sum()))


def _expression_columns(problem, wanted, options) -> dict[str, Any]:
  found = bulks(
    problem,
    control=options['control'],
    target_sum=options['target_sum'],
    predicted_noise=bool(wanted & set(_NOISE)),
    observed_noise=bool(wanted & set(_NOISY)),
  )
  shifted = cell_eval.subtract(found.predicted, found.predicted_control)
  truth = cell_eval.subtract(found.observed, found.control)
  out: dict[str, Any] = {}
  if wanted & set(columns.ERRORS) or NORM in wanted:
    own = problem.target_mask
    values = _expression(
      found, shifted, truth, own, target_sum=options['target_sum']
    )
    out |= {name: np.asarray(x, np.float64) for name, x in values.items()}
  if NORM in wanted:
    out[NORM] = _norm_panel(
      out['expr_mse_unbiased_capped'], out['expr_distance_unbiased']
    )
  for metric in retrieval.METRICS:
    if f'pds_{metric}' in wanted:
      out[f'pds_{metric}'] = np.asarray(
        retrieval.discrimination(
          shifted,
          truth,
          metric=metric,
          mask=~problem.target_mask.any(0),
          ties=options['ties'],
        ),
        np.float64,
      )
  return out


# ----------------------------------------------------------------------------


def settings(options: Mapping[str, Any]) -> tested.Settings:
  """Returns how the tool tests counts: see `differential.cell_eval2`."""
  return tested.Settings(
    mean='arithmetic',
    pseudocount=1e-9,
    per_million=True,
    cpm_filter=options['cpm_filter'],
    cpm_filter_on='control',
    control=options['control'],
  )


def de_calls(
  problem: problem_lib.Problem, side: str, options: Mapping[str, Any]
) -> calls.Calls:
  """Returns the tests of one side."""
  found = tested.de(problem, side, settings(options))
  return calls.make(
    found.fdr, found.log2_fold_change, p=found.p, undefined='mask'
  )


@functools.partial(jax.jit, static_argnames=('names', 'ties'))
def _agreement(predicted, observed, own, tie_order, *, names, ties):
  """Returns some columns, and the gate of the correlation of counts."""
  found = agreement.cell_eval2(
    predicted, observed, own=own, ties=ties, tie_order=tie_order
  )
  return {name: found[name] for name in names}, agreement.panel(observed)


def _count_panel(predicted, observed, gate: bool) -> base.Panel:
  """Correlates numbers of significant genes; -1 for constant predictions."""
  if not gate:
    return base.Panel(np.nan, 0)
  plain = cell_eval.count_panel(predicted, observed)

  def draw(random, draws):
    found = plain.draw(random, draws)
    return np.where(np.isnan(found), -1.0, found)

  value = -1.0 if np.isnan(plain.value) else plain.value
  return base.Panel(value, int((observed > 0).sum()), draw)


def _differential(problem, wanted, options) -> dict[str, Any]:
  both = [
    de_calls(problem, side, options) for side in ('predicted', 'observed')
  ]
  # Genes that are equal in all else go by name.
  order = np.empty(len(problem.genes), np.int32)
  order[np.argsort(np.asarray(problem.genes), kind='stable')] = np.arange(
    len(order)
  )
  names = {n.removeprefix(PREFIX) for n in wanted if n.startswith(PREFIX)}
  counted = 'nsig_spearman' in names
  if counted:
    names = names - {'nsig_spearman'} | set(_COUNTS)
  values, gate = _agreement(
    *both,
    problem.target_mask,
    order,
    names=tuple(sorted(names)),
    ties=options['gene_ties'],
  )
  found: dict[str, Any] = {
    name: np.asarray(x, np.float64) for name, x in values.items()
  }
  if counted:
    found['nsig_spearman'] = _count_panel(
      *(found[name] for name in _COUNTS), bool(gate)
    )
  return {PREFIX + name: value for name, value in found.items()}


def compute(
  problem: problem_lib.Problem,
  wanted: Sequence[str],
  options: Mapping[str, Any],
) -> base.Values:
  """Fills the columns; the `compute` of this convention and of 'vcc2026'."""
  registry.check_choice('control', options['control'], CONTROLS)
  registry.check_choice('ties', options['ties'], retrieval.TIES)
  registry.check_choice('gene_ties', options['gene_ties'], calls.TIES)
  wanted = set(wanted)
  found: dict[str, Any] = {}
  if any(not name.startswith(PREFIX) for name in wanted):
    found |= _expression_columns(problem, wanted, options)
  if any(name.startswith(PREFIX) for name in wanted):
    found |= _differential(problem, wanted, options)
  return found


CONVENTIONS = (
  base.Convention(
    name='cell-eval2',
    title='cell-eval2 0.20, preset v2 on counts',
    reference=columns.TOOL,
    scale='counts',
    control='real',
    columns=columns.COLUMNS,
    compute=compute,
    options=OPTIONS,
    aliases=('cell_eval2',),
  ),
)
