"""PerturBench: six metrics of five aggregates, and ranks of each.

Wu et al. 2024, arXiv:2408.10609: 'perturbench' is the first release, whose
numbers the paper's tables have; 'perturbench2' the later code and version 4 of
the paper, with principal components, recall of the strongest genes and an
energy distance. A column is `{metric}_{aggregate}`, a rank
`{metric}_rank_{aggregate}`.

Infinite aggregates count as 0 in a metric and as they are in a rank, as in the
original. Ranks are among the scored conditions of a covariate group. Z-scores
('scaled') and principal components are over the scored conditions and their
controls: what is in neither takes no part, where the original takes every cell
of its files.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pertjax.metrics import problem as problem_lib
from pertjax.metrics import ranks, registry
from pertjax.metrics.conventions import base, perturbench_values
from pertjax.metrics.conventions import genes as gene_lib

_PAPER = 'PerturBench (Wu et al. 2024, arXiv:2408.10609)'
_V4 = 'PerturBench, code of 2025 and paper v4 (arXiv:2408.10609v4)'

# Metric -> (formula of a prediction a and a reference b, best, bounds).
METRICS = {
  'pearson': ('Pearson correlation over genes', 1.0, (-1.0, 1.0)),
  'cosine': ('a.b / (|a| |b|)', 1.0, (-1.0, 1.0)),
  'mse': ('mean over genes of (a - b)^2', 0.0, (0.0, None)),
  'rmse': ('sqrt(mean over genes of (a - b)^2)', 0.0, (0.0, None)),
  'mae': ('mean over genes of |a - b|', 0.0, (0.0, None)),
  'r2_score': (
    '1 - sum (a - b)^2 / sum (a - mean a)^2: the prediction as reference, '
    'unless r2_swapped is False',
    1.0,
    (None, 1.0),
  ),
}  # fmt: skip
_RECALL = (
  'share of the top_k genes of largest |value| that both sides have',
  1.0,
  (0.0, 1.0),
)

# Aggregate -> (formula, what it is computed from).
AGGREGATES = {
  'average': ('mean of log-normalised expression', ('means',)),
  'logfc': (
    'log2(mean + 0.1) - log2(control mean + 0.1) of log-normalised values',
    ('means', 'control'),
  ),
  'scaled': (
    'mean of z-scores over all cells of the side, clipped to +-10',
    ('means', 'variances', 'cells', 'control'),
  ),
  'var': ('coefficient of variation; 0 for 0 / 0', ('means', 'variances')),
  'logp': ('sign(score) (-ln(p + 1e-24)), Wilcoxon', ('de', 'control')),
}
AGGREGATES_2 = AGGREGATES | {
  'logp': (
    'sign(score) (-ln(adjusted p + 1e-37)), t-test_overestim_var',
    ('de', 'control'),
  ),
  'scores': ('score of the test; 0 where infinite', ('de', 'control')),
  'pca_average': (
    'mean of the coordinates on the reference principal components',
    ('means', 'cells', 'control'),
  ),
}
DE_METHODS = ('wilcoxon', 't-test', 't-test_overestim_var')
TIES = (*ranks.TIES, 'shuffled')
CONTROLS = ('own', 'real')


def _chance(number: int) -> float:
  """Returns the mean rank of equal predictions, with denominator n."""
  return (number - 1) / (2 * number)


def _columns(metrics, names, reference, chance) -> tuple[base.Column, ...]:
  columns = []
  for aggregate, (made, needs) in names.items():
    kept = _fitting(metrics, aggregate)
    for metric in kept:
      formula, best, bounds = metrics[metric]
      columns.append(
        base.Column(
          name=f'{metric}_{aggregate}',
          formula=f'{formula}; of: {made}',
          best=best,
          direction='higher' if best else 'lower',
          reference=reference,
          needs=needs,
          undefined=_undefined(metric, needs),
          bounds=bounds,
        )
      )
    for metric in kept:
      columns.append(
        base.Column(
          name=f'{metric}_rank_{aggregate}',
          formula=(
            'share of the predictions of the covariate group that are closer '
            f'to the reference by {metric} than its own; of: {made}'
          ),
          best=0.0,
          chance=chance,
          direction='lower',
          reference=reference,
          needs=needs,
          undefined='alone in its group, with rank_denominator n-1'
          + '; with deg' * (metric == 'top_k_recall'),
          bounds=(0.0, 1.0),
        )
      )
  return tuple(columns)


def _undefined(metric: str, needs: Sequence[str]) -> str:
  found = {
    'cosine': 'one side is zero everywhere',
    'pearson': 'one side is constant',
    'r2_score': 'the prediction is constant',
    'top_k_recall': 'fewer genes than top_k',
  }.get(metric, '')
  if 'de' in needs:
    single = 'one cell only, where de_method is a t-test'
    return f'{found}; {single}' if found else single
  return found


def _fitting(metrics, aggregate: str) -> list[str]:
  # Components are not genes; the strongest of them are no genes to recall.
  left_out = {'top_k_recall'} if aggregate == 'pca_average' else set()
  return [metric for metric in metrics if metric not in left_out]


def significant(value: float, digits: int = 4) -> float:
  """Rounds to significant digits, as PerturBench's summaries are."""
  if not math.isfinite(value) or value == 0:
    return float(value)
  return float(f'{value:.{digits - 1}e}')


def _check(problem, options: Mapping[str, Any]) -> None:
  allowed = {
    'rank_denominator': ranks.DENOMINATORS,
    'ties': TIES,
    'control': CONTROLS,
    'de_method': DE_METHODS,
  }
  for name, choices in allowed.items():
    registry.check_choice(name, options[name], choices)
  if options['deg'] is not None and options['transposed']:
    raise ValueError(
      'deg gives every reference its own genes; a transposed rank compares one '
      'prediction with many references and cannot take it'
    )


def _compute(
  columns: Mapping[str, tuple[str, bool, str]],
  problem: problem_lib.Problem,
  wanted: Sequence[str],
  options: Mapping[str, Any],
) -> base.Values:
  """Fills the columns, one aggregate after the other."""
  _check(problem, options)
  mask = None
  if options['deg'] is not None:
    mask = gene_lib.chosen_mask(problem, options['deg'])
  values: dict[str, np.ndarray] = {}
  if 'mmd_pca' in wanted:
    values['mmd_pca'] = perturbench_values.energies(problem, options)
  parts = [(name, *columns[name]) for name in wanted if name in columns]
  for aggregate in dict.fromkeys(part[3] for part in parts):
    pair = [
      perturbench_values.AGGREGATE[aggregate](problem, side, options)
      for side in ('predicted', 'observed')
    ]
    # Components are no genes: there is nothing to choose among them.
    counted = None if aggregate == 'pca_average' else mask
    for name, metric, is_rank, other in parts:
      if other != aggregate:
        continue
      if is_rank:
        values[name] = perturbench_values.rank(
          metric, *pair, problem, counted, options
        )
      else:
        values[name] = perturbench_values.metric(
          metric, *pair, counted, options
        )
  return values


def _parts(metrics, names) -> dict[str, tuple[str, bool, str]]:
  """Takes column names apart: (metric, is a rank, aggregate)."""
  found = {}
  for aggregate in names:
    for metric in _fitting(metrics, aggregate):
      found[f'{metric}_{aggregate}'] = (metric, False, aggregate)
      found[f'{metric}_rank_{aggregate}'] = (metric, True, aggregate)
  return found


_OPTIONS = {
  'pseudocount': 0.1,
  'adjust_var': True,  # False: 'var' is the variance itself.
  'r2_swapped': True,  # False: the reference is the reference.
  'rank_denominator': 'n',
  'transposed': False,  # True: ranks references by closeness to a prediction.
  'ties': 'mid',  # 'shuffled' with `seed`: as the original, but repeatable.
  'seed': 0,
  'control': 'own',  # 'real': predicted controls are replaced.
  'de_method': 'wilcoxon',
  'logp_adjusted': False,
  'logp_floor': 1e-24,
  'deg': None,  # {condition or group_condition: genes} that count.
}
_OPTIONS_2 = _OPTIONS | {
  'rank_denominator': 'n-1',
  'de_method': 't-test_overestim_var',
  'logp_adjusted': True,
  'logp_floor': 1e-37,
  'n_comps': 100,
  'top_k': 50,
}
_METRICS_2 = METRICS | {'top_k_recall': _RECALL}
_MMD = base.Column(
  name='mmd_pca',
  formula=(
    'E|X - Y| - E|X - X*| / 2 - E|Y - Y*| / 2 (V-statistic) of the cells on '
    'the reference principal components'
  ),
  best=0.0,
  direction='lower',
  reference=f'{_V4}; geomloss "energy"',
  needs=('cells', 'control'),
  undefined='a side has no cells',
  bounds=(0.0, None),
)

CONVENTIONS = (
  base.Convention(
    name='perturbench',
    title='PerturBench, first release (2024)',
    reference=_PAPER,
    scale='log1p',
    control='own',
    columns=_columns(METRICS, AGGREGATES, _PAPER, _chance),
    compute=functools.partial(_compute, _parts(METRICS, AGGREGATES)),
    options=_OPTIONS,
    whole=True,
  ),
  base.Convention(
    name='perturbench2',
    title='PerturBench, code of 2025',
    reference=_V4,
    scale='log1p',
    control='own',
    columns=(*_columns(_METRICS_2, AGGREGATES_2, _V4, 0.5), _MMD),
    compute=functools.partial(_compute, _parts(_METRICS_2, AGGREGATES_2)),
    options=_OPTIONS_2,
    whole=True,
  ),
)
