"""cell-eval 0.8.2, profile 'full': all 28 columns.

The tool writes `pearson_edistance`, `de_spearman_sig` and
`clustering_agreement`, one number each, into every condition; here they are
panel columns. A condition without a value leaves a mean and is counted, where
the tool's mean of `pr_auc` and `roc_auc` is NaN (`scaling.from_baseline` has
the tool's rule for that as an option).

Changes that are rounding are 0: a predicted copy of the control changes
nothing, where the tool has changes of 1e-7 in random directions. Ties of
distances count half; `ties='tool'` takes them by the alphabet.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pertjax.metrics import clustering, pseudobulk, registry, retrieval, tested
from pertjax.metrics import problem as problem_lib
from pertjax.metrics.conventions import base, cell_sets
from pertjax.metrics.conventions import cell_eval_columns as columns
from pertjax.metrics.differential import agreement, calls

SETTINGS = tested.Settings()

_DE = tuple(c.name for c in columns.DE_COLUMNS)
_COUNTS = ('de_nsig_counts_pred', 'de_nsig_counts_real')
_ROWS = ('pearson_delta', 'mse', 'mae', 'mse_delta', 'mae_delta')

# A difference of means below this part of them is what rounding leaves.
_ROUNDING = 1e-12


def changes(
  problem: problem_lib.Problem, side: str, *, control: str = 'own'
) -> np.ndarray:
  """Returns means less control means, 0 where only rounding is between them.

  Args:
    problem: on the scale that means are wanted of.
    side: 'observed' or 'predicted'.
    control: see `Problem.control_means`.

  Returns:
    float64 [conditions, genes].
  """
  return subtract(
    problem.means(side), problem.control_means(side, control=control)
  )


def subtract(mean: np.ndarray, control: np.ndarray) -> np.ndarray:
  """Returns mean - control, 0 where only rounding is between them."""
  found = mean - control
  level = np.maximum(np.abs(mean), np.abs(control))
  return np.where(np.abs(found) <= _ROUNDING * level, 0, found)


@jax.jit
def _rows(predicted, observed, shifted, truth) -> dict[str, jax.Array]:
  return {
    'pearson_delta': pseudobulk.pearson(shifted, truth),
    'mse': pseudobulk.mse(predicted, observed),
    'mae': pseudobulk.mae(predicted, observed),
    'mse_delta': pseudobulk.mse(shifted, truth),
    'mae_delta': pseudobulk.mae(shifted, truth),
  }


# ----------------------------------------------------------------------------
# Panels.


@jax.jit
def _count_correlation(predicted, observed) -> jax.Array:
  """Spearman over the conditions with observed significant genes, [...]."""
  some = observed > 0
  value = calls.spearman(predicted, observed, mask=some)
  return jnp.where(jnp.any(some, axis=-1), value, 1)


def count_panel(predicted: np.ndarray, observed: np.ndarray) -> base.Panel:
  """Correlates numbers of significant genes; see `agreement.spearman_sig`."""
  return base.resampled(
    lambda chosen: _count_correlation(predicted[chosen], observed[chosen]),
    len(observed),
  )


def _energy_panel(problem, precision: str) -> base.Panel:
  at = cell_sets.view(problem, precision=precision)
  found = [
    cell_sets.from_control(at, side, meaning='biased')
    for side in ('predicted', 'observed')
  ]
  return base.resampled(
    lambda chosen: jax.jit(pseudobulk.pearson)(*(x[chosen] for x in found)),
    problem.num_conditions,
  )


def _clustering_panel(problem, seed: int) -> base.Panel:
  value = np.nan
  if clustering.available():
    value = clustering.clustering_agreement(
      problem.means('predicted'), problem.means('observed'), seed=seed
    )
  # Conditions that are drawn twice are a cluster: no interval by resampling.
  return base.Panel(value, problem.num_conditions)


# ----------------------------------------------------------------------------


def de_calls(problem: problem_lib.Problem, side: str) -> calls.Calls:
  """Returns the tests of one side, rounded to float32 as the tool reads them.

  Ratios and correlations of the rounded values are taken in float64.
  """
  found = tested.de(problem, side, SETTINGS)
  rounded = calls.make(
    found.fdr, found.log2_fold_change, p=found.p, dtype=jnp.float32
  )
  return jax.tree.map(
    lambda x: x if x.dtype == bool else x.astype(jnp.float64), rounded
  )


@functools.partial(jax.jit, static_argnames=('names', 'ties'))
def _agreement(predicted, observed, *, names, ties):
  found = agreement.cell_eval(predicted, observed, ties=ties)
  return {name: found[name] for name in names}


def _differential(problem, wanted, ties: str) -> dict[str, Any]:
  both = [de_calls(problem, side) for side in ('predicted', 'observed')]
  names = set(wanted) & set(_DE)
  counted = 'de_spearman_sig' in names
  if counted:
    names = names - {'de_spearman_sig'} | set(_COUNTS)
  values = _agreement(*both, names=tuple(sorted(names)), ties=ties)
  found: dict[str, Any] = {
    name: np.asarray(x, np.float64) for name, x in values.items()
  }
  if counted:
    found['de_spearman_sig'] = count_panel(*(found[name] for name in _COUNTS))
  return found


def discrimination(
  problem: problem_lib.Problem,
  metric: str,
  *,
  ties: str = 'mid',
  absolute: bool = False,
) -> np.ndarray:
  """Returns the discrimination score, float64 [conditions].

  Args:
    problem: of one group.
    metric: one of `retrieval.METRICS`.
    ties: one of `retrieval.TIES`.
    absolute: takes the sizes of changes without their signs.
  """
  predicted, observed = (
    changes(problem, side) for side in ('predicted', 'observed')
  )
  if absolute:
    predicted, observed = np.abs(predicted), np.abs(observed)
  value = retrieval.discrimination(
    predicted,
    observed,
    metric=metric,
    own=problem.named_gene,
    ties=ties,
    denominator='n',
  )
  return np.asarray(value, np.float64)


def _compute(
  problem: problem_lib.Problem,
  wanted: Sequence[str],
  options: Mapping[str, Any],
) -> base.Values:
  registry.check_choice('ties', options['ties'], retrieval.TIES)
  registry.check_choice('gene_ties', options['gene_ties'], calls.TIES)
  registry.check_choice('precision', options['precision'], cell_sets.PRECISIONS)
  wanted = set(wanted)
  found: dict[str, Any] = {}
  if wanted & set(_ROWS):
    sides = ('predicted', 'observed')
    rows = _rows(
      *(problem.means(side) for side in sides),
      *(changes(problem, side) for side in sides),
    )
    found |= {k: np.asarray(v, np.float64) for k, v in rows.items()}
  for metric in retrieval.METRICS:
    name = f'discrimination_score_{metric}'
    if name in wanted:
      found[name] = discrimination(problem, metric, ties=options['ties'])
  if wanted & set(_DE):
    found |= _differential(problem, wanted, options['gene_ties'])
  if 'pearson_edistance' in wanted:
    found['pearson_edistance'] = _energy_panel(problem, options['precision'])
  if 'clustering_agreement' in wanted:
    found['clustering_agreement'] = _clustering_panel(
      problem, options['clustering_seed']
    )
  return found


CONVENTIONS = (
  base.Convention(
    name='cell-eval',
    title=f'{columns.TOOL}, profile full',
    reference=f'{columns.TOOL} (Arc Institute), with pdex 0.3',
    scale='log1p',
    control='own',
    columns=columns.COLUMNS,
    compute=_compute,
    options={
      'ties': 'mid',  # Of distances; 'tool' takes them by the alphabet.
      'gene_ties': 'first',  # Of fold changes, see `calls.top`.
      'precision': 'float32',  # Of the energy distances.
      'clustering_seed': 0,
    },
    aliases=('cell_eval',),
  ),
)
