"""CellSimBench: metrics weighted by what a condition changes.

Changes are measured from control cells (`deltactrl`) and from the mean of all
perturbed conditions (`deltapert`). A prediction of that mean scores well on
everything that is not weighted or measured from it, and badly on the rest
(Mejia et al. 2025; Miller et al. 2025). Scores against controls (DRF) and the
interpolated duplicate are functions in `pertjax.metrics.weighted`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pertjax.metrics import aggregates, pseudobulk, ranks, registry, weighted
from pertjax.metrics import problem as problem_lib
from pertjax.metrics.conventions import base

DEGS = ('significant', 'top')
MEANS = ('conditions', 'cells')
_LEAST = 3  # Genes of a '_degs' column.


def rest(parts: aggregates.Moments) -> aggregates.Moments:
  """Pools the cells of all other labels, for each label.

  From what a pass over the cells left: sums that leave one out, around the
  mean of all cells.

  Args:
    parts: of the perturbed conditions, the control not among them.

  Returns:
    [conditions, genes]; NaN where no cell is left.
  """
  known = parts.size > 0
  size = parts.size[:, None].astype(np.float64)
  mean = np.where(known[:, None], parts.mean, 0)
  variance = np.where(known[:, None], parts.variance, 0)
  with np.errstate(invalid='ignore', divide='ignore'):
    centre = (size * mean).sum(0) / size.sum()
    around = mean - centre
    square = size * (variance + np.square(around))
    others = size.sum() - size
    shift = ((size * around).sum(0) - size * around) / others
    second = (square.sum(0) - square) / others
    spread = second - np.square(shift)
    spread = np.where(spread <= 1e-14 * second, 0, spread)
    nothing = others == 0
  return aggregates.Moments(
    np.where(nothing, np.nan, centre + shift),
    np.where(nothing, np.nan, spread),
    others[:, 0].astype(np.int64),
  )


def perturbed(problem: problem_lib.Problem, side: str) -> aggregates.Moments:
  """Returns the moments of the conditions, controls left out."""
  number = problem.num_conditions
  return aggregates.Moments(
    *(x[:number] for x in aggregates.moments(getattr(problem, side)))
  )


def against_rest(
  problem: problem_lib.Problem, *, overestimate: bool = True
) -> aggregates.Tested:
  """Tests each condition's real cells against all other perturbed ones.

  Args:
    problem: of one covariate group.
    overestimate: scanpy's 't-test_overestim_var', which the weights are
      published with; False is Welch's test.
  """
  own = perturbed(problem, 'observed')
  return aggregates.t_test(own, rest(own), overestimate=overestimate)


def dataset_mean(problem: problem_lib.Problem, over: str) -> np.ndarray:
  """Averages the observed conditions, float64 [genes].

  Args:
    problem: of one covariate group.
    over: 'conditions' weighs each of them alike, 'cells' by its cells.
  """
  registry.check_choice('dataset_mean', over, MEANS)
  own = perturbed(problem, 'observed')
  weight = own.size if over == 'cells' else np.ones(len(own.size))
  return np.average(own.mean, axis=0, weights=weight)


def _genes(found: aggregates.Tested, options) -> np.ndarray:
  """Says which genes are differential, bool [conditions, genes]."""
  if options['degs'] == 'significant':
    return np.asarray(found.fdr) < options['alpha']
  order = np.argsort(np.asarray(found.p), axis=1, kind='stable')
  mask = np.zeros(order.shape, bool)
  np.put_along_axis(mask, order[:, : options['top']], True, axis=1)
  return mask & ~np.isnan(found.p)


def _compute(
  problem: problem_lib.Problem,
  wanted: Sequence[str],
  options: Mapping[str, Any],
) -> dict[str, np.ndarray]:
  registry.check_choice('degs', options['degs'], DEGS)
  registry.check_choice('ties', options['ties'], ranks.TIES)
  registry.check_choice('dataset_mean', options['dataset_mean'], MEANS)
  predicted, observed = problem.means('predicted'), problem.means('observed')
  weights = mask = None
  if any('w' in n.split('_')[0] or n.endswith('_degs') for n in wanted):
    found = against_rest(problem, overestimate=options['overestimate'])
    weights = np.array(weighted.significance_weights(found.score))
    # Without another condition there is no test, and so no weight.
    weights[np.isnan(found.score).all(1)] = np.nan
    mask = _genes(found, options)
  origins = {
    'deltactrl': lambda: problem.control_means('observed'),
    'deltapert': lambda: np.broadcast_to(
      dataset_mean(problem, options['dataset_mean']), observed.shape
    ),
  }
  out = {}
  for name in wanted:
    if name == 'mse':
      value = pseudobulk.mse(predicted, observed)
    elif name == 'wmse':
      value = weighted.wmse(predicted, observed, weights)
    elif name == 'nir':
      value = weighted.nir(predicted, observed, ties=options['ties'])
    else:
      value = _of_changes(
        name, predicted, observed, origins, weights=weights, degs=mask
      )
    out[name] = np.asarray(value, np.float64)
  return out


def _of_changes(name, predicted, observed, origins, *, weights, degs):
  measure, _, delta = name.removesuffix('_degs').rpartition('_')
  origin = origins[delta]()
  if measure == 'weighted_r2':
    return weighted.weighted_r2_delta(predicted, observed, origin, weights)
  function = {'pearson': pseudobulk.pearson, 'r2': pseudobulk.r2}[measure]
  if not name.endswith('_degs'):
    return function(predicted - origin, observed - origin)
  value = function(predicted - origin, observed - origin, mask=degs)
  return np.where(degs.sum(1) >= _LEAST, value, np.nan)


def _columns() -> tuple[base.Column, ...]:
  test = 't against all other perturbed cells'
  columns = [
    base.Column(
      'mse', 'mean over genes of (a - b)^2', 0.0, 'lower', weighted.MILLER
    ),
    base.Column(
      'wmse',
      f'sum w (a - b)^2 / sum w, w = ((|t| - min) / (max - min))^2, {test}',
      0.0,
      'lower',
      weighted.MEJIA,
      needs=('means', 'variances'),
      undefined='the only condition of its group',
      aliases=('weighted_mse',),
    ),
  ]
  for delta, origin in (
    ('deltactrl', 'the real control'),
    ('deltapert', 'the mean of the observed conditions'),
  ):
    for measure, text, needs in (
      ('pearson', 'Pearson correlation of the changes from {}', ('means',)),
      (
        'r2',
        '1 - SS(D - D^) / SS(D - mean D), D the change from {}',
        ('means',),
      ),
      (
        'weighted_r2',
        '1 - sum w (D - D^)^2 / sum w (D - Dw)^2, w as in wmse, D the change '
        'from {}',
        ('means', 'variances'),
      ),
    ):
      for degs in ('', '_degs') if measure != 'weighted_r2' else ('',):
        columns.append(
          base.Column(
            f'{measure}_{delta}{degs}',
            text.format(origin) + ('; differential genes only' if degs else ''),
            1.0,
            'higher',
            weighted.MILLER,
            chance=0.0 if measure == 'pearson' else None,
            needs=('means', 'variances') if degs else needs,
            undefined='a constant side'
            + (f'; fewer than {_LEAST} differential genes' if degs else ''),
            bounds=(-1.0, 1.0) if measure == 'pearson' else (None, 1.0),
          )
        )
  columns.append(
    base.Column(
      'nir',
      'share of other conditions q with |p^ - p| < |p^ - q|, q observed',
      1.0,
      'higher',
      weighted.MILLER,
      chance=0.5,
      undefined='the only condition of its group',
      bounds=(0.0, 1.0),
    )
  )
  return tuple(columns)


CONVENTIONS = (
  base.Convention(
    name='cellsimbench',
    title='CellSimBench (Miller, Mejia)',
    reference='Mejia et al. 2025, arXiv:2506.22641; Miller et al. 2025',
    scale='log1p',
    control='real',
    columns=_columns(),
    compute=_compute,
    options={
      'degs': 'significant',  # fdr < alpha; or 'top' by p.
      'alpha': 0.05,
      'top': 100,
      'overestimate': True,  # of the variance, in the test; False: Welch.
      'dataset_mean': 'conditions',  # or 'cells'.
      'ties': 'pessimistic',  # of nir; or 'mid', 'optimistic'.
    },
    aliases=('miller', 'mejia'),
  ),
)
