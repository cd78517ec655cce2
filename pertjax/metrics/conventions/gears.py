"""GEARS and scGPT: errors and correlations of means, on all and on DE genes.

'gears' has what its `compute_metrics`, `deeper_analysis` and
`non_dropout_analysis` return (Roohani et al., Nature Biotechnology 2023), and
'scgpt' what `compute_perturbation_metrics` of scGPT does (Cui et al., Nature
Methods 2024), which DeepSC uses as well. The control is the observed one on
both sides. DE genes are the first of GEARS' ranking, see `genes`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pertjax.metrics import changes, pseudobulk, registry
from pertjax.metrics import problem as problem_lib
from pertjax.metrics.conventions import base, gears_columns, gears_fields
from pertjax.metrics.conventions import genes as gene_lib

_GEARS = 'GEARS (Roohani et al. 2023), compute_metrics'
_SCGPT = 'scGPT (Cui et al. 2024), compute_perturbation_metrics'
_CSENDES = 'Csendes et al., BMC Genomics 26:393, 2025'
UNDEFINED_PEARSON = ('nan', 'zero')

# Fields that the attention scripts print for each subgroup, and GEARS' own.
LOGGED = (
  'pearson_delta',
  'pearson_delta_de',
  'pearson_delta_top20_de_non_dropout',
  'pearson_top20_de_non_dropout',
  'frac_opposite_direction_top20_non_dropout',
  'frac_sigma_below_1_non_dropout',
  'mse_top20_de_non_dropout',
)

_SPREAD_RATIO = base.Column(
  name='spread_ratio',
  formula=(
    'mean over conditions of |mean - mean of means|, predicted over observed: '
    '0 for a model that predicts the same for every condition'
  ),
  best=1.0,
  chance=0.0,
  direction='none',
  reference='mode collapse monitor of this package; not of GEARS',
  undefined='the observed conditions have all the same mean',
  scope='panel',
  bounds=(0.0, None),
)


def subgroup_means(
  values: Mapping[str, np.ndarray],
  conditions: Sequence[str],
  subgroups: Mapping[str, Sequence[str]],
) -> dict[str, dict[str, float]]:
  """Averages columns over subgroups of the conditions, as GEARS' logs do.

  Args:
    values: {column: [conditions]}; NaN is left out of a mean.
    conditions: their names.
    subgroups: {name: conditions}, such as GEARS' unseen_single; names that are
      not scored take no part.

  Returns:
    {subgroup: {column: mean}}; NaN for a subgroup without a value.

  Raises:
    ValueError: when a column has not one value for each condition.
  """
  names = [str(condition) for condition in conditions]
  for column, row in values.items():
    if np.shape(row) != (len(names),):
      raise ValueError(
        f'column {column!r} has the shape {np.shape(row)}; there are '
        f'{len(names)} conditions'
      )
  means: dict[str, dict[str, float]] = {}
  for subgroup, members in subgroups.items():
    inside = np.isin(names, [str(member) for member in members])
    means[subgroup] = {}
    for column, row in values.items():
      kept = np.asarray(row, np.float64)[inside]
      kept = kept[~np.isnan(kept)]
      means[subgroup][column] = float(kept.mean()) if len(kept) else np.nan
  return means


def _pearson(predicted, observed, options, mask=None) -> np.ndarray:
  """Correlates; NaN or, as GEARS has it, 0 where a side is constant."""
  value = np.asarray(pseudobulk.pearson(predicted, observed, mask=mask))
  if options['undefined_pearson'] == 'nan':
    return value
  some = True if mask is None else mask.any(1)
  return np.where(np.isnan(value) & some, 0.0, value)


def _spread_ratio(problem: problem_lib.Problem) -> base.Panel:
  """Returns `changes.spread_ratio` of all conditions, and of draws of them.

  Distances to a draw's mean follow from the inner products of the conditions:
  |x - m|^2 = x.x - 2 x.m + m.m with m = sum_c n_c x_c / n.
  """
  grams = []
  for side in ('predicted', 'observed'):
    rows = problem.means(side)
    rows = rows - rows.mean(0)
    grams.append(rows @ rows.T)
  number = problem.num_conditions

  def function(chosen):
    times = np.stack([np.bincount(c, minlength=number) for c in chosen])
    spreads = []
    for gram in grams:
      onto = times @ gram / number
      own = (times * onto).sum(1, keepdims=True) / number
      square = np.diagonal(gram) - 2 * onto + own
      distance = np.sqrt(np.maximum(square, 0))
      spreads.append((times * distance).sum(1) / number)
    with np.errstate(invalid='ignore', divide='ignore'):
      return spreads[0] / spreads[1]

  return base.resampled(function, number)


def _compute_gears(
  problem: problem_lib.Problem,
  wanted: Sequence[str],
  options: Mapping[str, Any],
) -> base.Values:
  registry.check_choice(
    'undefined_pearson', options['undefined_pearson'], UNDEFINED_PEARSON
  )
  predicted, observed = problem.means('predicted'), problem.means('observed')
  values: dict[str, Any] = {
    'mse': np.asarray(pseudobulk.mse(predicted, observed)),
    'pearson': _pearson(predicted, observed, options),
  }
  if 'spread_ratio' in wanted:
    values['spread_ratio'] = _spread_ratio(problem)
  if set(wanted) <= values.keys():
    return values
  sets = gene_lib.gene_sets(problem, options['rankings'])
  mask = gene_lib.top_mask(sets.order, 20, len(problem.genes))
  values['mse_de'] = np.asarray(pseudobulk.mse(predicted, observed, mask=mask))
  values['pearson_de'] = _pearson(predicted, observed, options, mask)
  return values | gears_fields.fields(problem, sets, wanted, options)


def _compute_scgpt(
  problem: problem_lib.Problem,
  wanted: Sequence[str],
  options: Mapping[str, Any],
) -> base.Values:
  sets = gene_lib.gene_sets(problem, options['rankings'])
  observed, predicted = problem.means('observed'), problem.means('predicted')
  control = problem.control_means('observed')
  num_genes = len(problem.genes)
  # Conditions whose truth is 0 everywhere are left out.
  silent = ~(observed != 0).any(1)
  if options['zeroed_genes'] is not None:
    zeroed = np.isin(problem.genes, list(options['zeroed_genes']))
    observed = np.where(zeroed, 0.0, observed)
  counted, de = None, gene_lib.top_mask(sets.order, 20, num_genes)
  if options['non_zero_genes']:
    counted = observed != 0
    de = gene_lib.top_mask(sets.top_non_dropout, 20, num_genes)
  own = problem.target_mask
  rest = ~own if counted is None else counted & ~own
  shifted = [changes.difference(x, control) for x in (predicted, observed)]
  found = {
    'mse': pseudobulk.mse(predicted, observed),
    'pearson': pseudobulk.pearson(predicted, observed, mask=counted),
    'pearson_de': pseudobulk.pearson(predicted, observed, mask=de),
    'pearson_delta': pseudobulk.pearson(*shifted, mask=counted),
    'pearson_de_delta': pseudobulk.pearson(*shifted, mask=de),
    'pearson_delta_no_knockout': pseudobulk.pearson(*shifted, mask=rest),
    'pearson_delta_de_no_knockout': pseudobulk.pearson(
      *shifted, mask=de & ~own
    ),
  }
  return {
    name: np.where(silent, np.nan, np.asarray(value))
    for name, value in found.items()
  }


def _correlation(name, formula, reference, undefined, **more) -> base.Column:
  return base.Column(
    name=name,
    formula=formula,
    best=1.0,
    direction='higher',
    reference=reference,
    undefined=f'one side is constant{undefined}',
    bounds=(-1.0, 1.0),
    **more,
  )


def _error(name, formula, reference, undefined='', **more) -> base.Column:
  return base.Column(
    name=name,
    formula=formula,
    best=0.0,
    direction='lower',
    reference=reference,
    undefined=undefined,
    bounds=(0.0, None),
    **more,
  )


_DE_NEEDS = {'needs': ('means', 'variances', 'control')}
_SILENT = '; the truth is 0 everywhere'
_DELTA = 'Pearson over {} of the changes from the observed control'
_DE20 = 'the first 20 genes by |Welch t| against the control'

_GEARS_COLUMNS = (
  _error('mse', 'mean over genes of (predicted - observed mean)^2', _GEARS),
  _correlation(
    'pearson',
    'Pearson over genes of the means; option undefined_pearson=zero gives 0',
    _GEARS,
    '',
  ),
  _error(
    'mse_de', f'mse over {_DE20}', _GEARS, gears_columns.NO_DE, **_DE_NEEDS
  ),
  _correlation(
    'pearson_de',
    f'Pearson of the means over {_DE20}',
    _GEARS,
    f'; {gears_columns.NO_DE}',
    **_DE_NEEDS,
  ),
  *gears_columns.COLUMNS,
  _SPREAD_RATIO,
)

_SCGPT_COLUMNS = (
  _correlation('pearson', 'Pearson over genes of the means', _SCGPT, _SILENT),
  _correlation(
    'pearson_de',
    f'Pearson of the means over {_DE20}',
    _SCGPT,
    f'{_SILENT}; {gears_columns.NO_DE}',
    **_DE_NEEDS,
  ),
  _correlation(
    'pearson_delta',
    _DELTA.format('genes'),
    _SCGPT,
    _SILENT,
    needs=('means', 'control'),
  ),
  _correlation(
    'pearson_de_delta',
    _DELTA.format(_DE20),
    _SCGPT,
    f'{_SILENT}; {gears_columns.NO_DE}',
    aliases=('pearson_delta_de',),
    **_DE_NEEDS,
  ),
  _error(
    'mse',
    'mean over genes of (predicted - observed mean)^2',
    _GEARS,
    'the truth is 0 everywhere',
  ),
  _correlation(
    'pearson_delta_no_knockout',
    _DELTA.format('genes but the perturbed ones'),
    _CSENDES,
    _SILENT,
    needs=('means', 'control'),
  ),
  _correlation(
    'pearson_delta_de_no_knockout',
    _DELTA.format(f'{_DE20}, the perturbed ones aside'),
    _CSENDES,
    f'{_SILENT}; {gears_columns.NO_DE}',
    **_DE_NEEDS,
  ),
)

CONVENTIONS = (
  base.Convention(
    name='gears',
    title='GEARS: compute_metrics, deeper and non-dropout analysis',
    reference=_GEARS,
    scale='log1p',
    control='real',
    columns=_GEARS_COLUMNS,
    compute=_compute_gears,
    options={
      'rankings': None,  # Entries of GEARS' files, see `genes.gene_sets`.
      'undefined_pearson': 'nan',  # 'zero' as GEARS, for pearson, pearson_de.
      **gears_fields.OPTIONS,
    },
  ),
  base.Convention(
    name='scgpt',
    title='scGPT and DeepSC: compute_perturbation_metrics',
    reference=_SCGPT,
    scale='log1p',
    control='real',
    columns=_SCGPT_COLUMNS,
    compute=_compute_scgpt,
    options={
      'rankings': None,
      'non_zero_genes': False,  # True: genes of observed mean != 0, and the
      # first 20 non-dropout DE genes.
      'zeroed_genes': None,  # Names whose truth, but not whose control, is set
      # to 0: DeepSC's script does so with genes outside of its vocabulary.
    },
    aliases=('deepsc',),
  ),
)
