"""Systema: correlations that a shift common to all conditions does not lift.

Nature Biotechnology 2025, doi 10.1038/s41587-025-02777-8. Changes are taken
from the observed control and, a second time, from the mean of the centroids of
perturbed conditions. Systema takes those of the *training* conditions: give
their mean as the option `reference`. Without, the scored observed conditions
stand in, which is the nearest that scoring alone can know.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pertjax import names as name_lib
from pertjax.metrics import aggregates, changes, pseudobulk, ranks, registry
from pertjax.metrics import problem as problem_lib
from pertjax.metrics.conventions import base
from pertjax.metrics.conventions import genes as gene_lib

_REFERENCE = 'Systema (Nature Biotechnology 2025), s41587-025-02777-8'
# By name: centroids of the scored conditions, equally or as they have cells.
REFERENCES = ('conditions', 'cells')
_TOP = 20


def perturbed_reference(
  problem: problem_lib.Problem, reference: Any
) -> np.ndarray:
  """Returns the profile of perturbed cells in general, float64 [genes].

  Args:
    problem: of one group.
    reference: one of REFERENCES, or [genes], or {group: [genes]}.

  Raises:
    ValueError: when a name is unknown or a vector does not fit.
  """
  if isinstance(reference, str):
    registry.check_choice('reference', reference, REFERENCES)
    means = problem.means('observed')
    if reference == 'conditions':
      return means.mean(0)
    size = problem.observed.sizes[: problem.num_conditions]
    return size @ means / size.sum()
  if isinstance(reference, Mapping):
    group = problem.groups[0]
    if group not in reference:
      raise ValueError(name_lib.unknown('reference', group, reference))
    reference = reference[group]
  vector = np.asarray(reference, np.float64)
  if vector.shape != (len(problem.genes),):
    raise ValueError(
      f'reference has the shape {vector.shape}; allowed: '
      f'({len(problem.genes)},), one value for each scored gene, or one '
      f'of {", ".join(REFERENCES)}'
    )
  return vector


def jaccard_top(
  predicted: np.ndarray, observed: np.ndarray, k: int
) -> np.ndarray:
  """Returns the Jaccard index of the k genes of largest |value|.

  Args:
    predicted: [conditions, genes].
    observed: same shape.
    k: how many genes.

  Returns:
    [conditions]; genes that tie for the last places share them. NaN where
    there are fewer than k genes.
  """
  sides = [np.asarray(aggregates.member(x, k)) for x in (predicted, observed)]
  return np.minimum(*sides).sum(1) / np.maximum(*sides).sum(1)


def _compute(
  problem: problem_lib.Problem,
  wanted: Sequence[str],
  options: Mapping[str, Any],
) -> base.Values:
  registry.check_choice('ties', options['ties'], ranks.TIES)
  centre = perturbed_reference(problem, options['reference'])
  predicted, observed = problem.means('predicted'), problem.means('observed')
  control = problem.control_means('observed')
  centre = np.broadcast_to(centre, control.shape)
  shifted, centred = (
    [changes.difference(x, start) for x in (predicted, observed)]
    for start in (control, centre)
  )
  values: dict[str, Any] = {
    'rmse': pseudobulk.rmse(predicted, observed),
    'corr_all': pseudobulk.pearson(*shifted),
    'corr_all_allpert': pseudobulk.pearson(*centred),
    'systematic_variation': pseudobulk.cosine(shifted[1], centre - control),
  }
  if {'corr_20de', 'corr_20de_allpert'} & set(wanted):
    sets = gene_lib.gene_sets(problem, options['rankings'])
    mask = gene_lib.top_mask(sets.top_non_dropout, _TOP, len(problem.genes))
    values['corr_20de'] = pseudobulk.pearson(*shifted, mask=mask)
    values['corr_20de_allpert'] = pseudobulk.pearson(*centred, mask=mask)
  if 'jaccard' in wanted:
    values['jaccard'] = jaccard_top(*shifted, _TOP)
  if 'centroid_accuracy' in wanted:
    place = ranks.perturbation_rank(
      predicted,
      observed,
      metric='rmse',
      denominator='n-1',
      transposed=True,
      ties=options['ties'],
    )
    # What is not known is not closest to anything.
    known = np.isfinite(predicted).all(1)
    values['centroid_accuracy'] = np.where(known, 1 - place, np.nan)
  return {name: np.asarray(value) for name, value in values.items()}


def _correlation(name, formula, needs, undefined='') -> base.Column:
  return base.Column(
    name=name,
    formula=formula,
    best=1.0,
    direction='higher',
    reference=_REFERENCE,
    needs=needs,
    undefined=f'one side is constant{undefined}',
    bounds=(-1.0, 1.0),
  )


_MEANS = ('means', 'control')
_DE = ('means', 'variances', 'control')
_FEW = '; fewer than two cells, and no ranking given'
_20 = 'the first 20 non-dropout genes by |Welch t|'
_PERTURBED = (
  'Pearson over {} of the differences from the mean of the centroids of '
  'perturbed conditions (option reference)'
)
_CONTROL = 'Pearson over {} of the changes from the observed control'

COLUMNS = (
  _correlation('corr_all', _CONTROL.format('genes'), _MEANS),
  _correlation('corr_20de', _CONTROL.format(_20), _DE, _FEW),
  _correlation('corr_all_allpert', _PERTURBED.format('genes'), _MEANS),
  _correlation('corr_20de_allpert', _PERTURBED.format(_20), _DE, _FEW),
  base.Column(
    name='rmse',
    formula='sqrt(mean over genes of (predicted - observed mean)^2)',
    best=0.0,
    direction='lower',
    reference=_REFERENCE,
    bounds=(0.0, None),
  ),
  base.Column(
    name='jaccard',
    formula=(
      'Jaccard index of the 20 genes of largest |change from the observed '
      'control| on either side'
    ),
    best=1.0,
    direction='higher',
    reference=_REFERENCE,
    needs=_MEANS,
    undefined='fewer than 20 genes',
    bounds=(0.0, 1.0),
  ),
  base.Column(
    name='centroid_accuracy',
    formula=(
      'share of the other observed centroids strictly farther (Euclid) from '
      'the prediction than its own; ties count against, or half with ties=mid'
    ),
    best=1.0,
    chance=0.5,
    direction='higher',
    reference=_REFERENCE,
    undefined='one condition only',
    bounds=(0.0, 1.0),
  ),
  base.Column(
    name='systematic_variation',
    formula=(
      'cosine of the observed change from the control and the change of the '
      'mean of perturbed centroids: of the data, not of the prediction'
    ),
    best=None,
    direction='none',
    reference=_REFERENCE,
    needs=_MEANS,
    undefined='the condition does not change',
    bounds=(-1.0, 1.0),
  ),
)

CONVENTIONS = (
  base.Convention(
    name='systema',
    title='Systema (2025)',
    reference=_REFERENCE,
    scale='log1p',
    control='real',
    columns=COLUMNS,
    compute=_compute,
    options={
      'reference': 'conditions',  # [genes] of the training conditions: better.
      'ties': 'pessimistic',  # 'mid': a constant prediction gets 0.5.
      'rankings': None,  # Entries of GEARS' files, see `genes.gene_sets`.
    },
  ),
)
