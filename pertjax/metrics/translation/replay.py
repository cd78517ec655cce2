"""The numbers of all families again, from the phrases of their facets.

`replay` computes what a column with given facets would be, so that facets can
be exchanged one at a time and what each does is measured. It shares arrays and
functions with the conventions but not their code: a convention that does what
its facets do not say leaves a difference, and that is told.

Everything is of one covariate group, [conditions], on the family's common
scale.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from pertjax.metrics import (
  aggregates,
  bulk,
  changes,
  pseudobulk,
  ranks,
  retrieval,
  tested,
  weighted,
)
from pertjax.metrics import problem as problem_lib
from pertjax.metrics.conventions import (
  cell_eval,
  cell_eval2,
  cellsimbench,
  scgen,
)
from pertjax.metrics.conventions import genes as gene_lib
from pertjax.metrics.differential import calls

Facets = Mapping[str, str]
SIDES = ('predicted', 'observed')
_LEAST_DEGS = 3  # Genes of CellSimBench's '_degs'.


class Unknown(Exception):
  """A phrase, or several together, that cannot be computed here."""


@dataclasses.dataclass(frozen=True, eq=False)
class Context:
  """What is compared.

  Attributes:
    problems: {scale: problem} of one group.
    cache: of what several replays need; starts empty.
  """

  problems: Mapping[str, problem_lib.Problem]
  cache: dict[Any, Any] = dataclasses.field(default_factory=dict)

  def problem(self, scale: str) -> problem_lib.Problem:
    """Returns the problem of a scale."""
    if scale not in self.problems:
      raise Unknown(scale)
    return self.problems[scale]

  def keep(self, key: Any, make: Callable[[], Any]) -> Any:
    """Returns what was made under a key, or makes it."""
    if key not in self.cache:
      self.cache[key] = make()
    return self.cache[key]


def replay(
  function: Callable[[Context, Facets], Any], context: Context, facets: Facets
) -> np.ndarray | None:
  """Computes a column by its facets.

  Args:
    function: of a family, one of `REPLAYS`.
    context: what is compared.
    facets: phrases, all of the family's.

  Returns:
    float64 [conditions]; None where a phrase cannot be computed.
  """

  def make():
    try:
      return np.asarray(function(context, facets), np.float64)
    except Unknown:
      return None

  return context.keep((function, tuple(sorted(facets.items()))), make)


def match(pattern: str, text: str) -> re.Match[str] | None:
  """Matches a whole phrase."""
  return re.fullmatch(pattern, text)


# ----------------------------------------------------------------------------
# Profiles and what changes start from.


def _means(context: Context, values: str) -> tuple[np.ndarray, ...]:
  """Returns profiles of predictions, observations and both controls."""
  if values.startswith(('mean log', 'log2 ratio of mean log')):
    at = context.problem('log1p')
    return (
      *(at.means(side) for side in SIDES),
      at.control_means('predicted'),
      at.control_means('observed'),
    )
  if values == 'log of summed counts':
    at = context.problem('counts')
    found = context.keep(
      'bulks',
      lambda: cell_eval2.bulks(
        at, control='own', predicted_noise=False, observed_noise=False
      ),
    )
    return (
      found.predicted,
      found.observed,
      found.predicted_control,
      found.control,
    )
  raise Unknown(values)


def rows(context: Context, facets: Facets) -> list[np.ndarray]:
  """Returns predicted and observed changes, [conditions, genes] each."""
  values, start = facets['values'], facets['start']
  predicted, observed, own, real = _means(context, values)
  starts = {
    'own control': lambda: (own, real),
    'real control': lambda: (real, real),
    'mean of conditions': lambda: (observed.mean(0),) * 2,
    'mean of cells': lambda: (_mean_of_cells(context, values),) * 2,
    'mean of all other perturbed cells': lambda: (
      (others(context, values)[1].mean,) * 2
    ),
    'nowhere (profiles)': lambda: (0.0, 0.0),
  }
  if start not in starts:
    raise Unknown(start)
  origins = starts[start]()
  subtract = {
    'below 1e-12 of the mean': cell_eval.subtract,
    'below 2^-22 of the mean': changes.difference,
    'nothing': np.subtract,
  }[facets.get('rounding', 'below 1e-12 of the mean')]
  ratio = match(r'log2 ratio of mean log values \+ (.+)', values)
  out = []
  for mean, origin in zip((predicted, observed), origins):
    origin = np.broadcast_to(origin, mean.shape)
    if ratio is None:
      row = mean if start.startswith('nowhere') else subtract(mean, origin)
    else:
      if start.startswith('nowhere'):
        raise Unknown(start)
      row = pseudobulk.logfc(
        mean, origin, pseudocount=float(ratio[1]), undefined=0.0
      )
      changed = np.asarray(changes.difference(mean, origin)) != 0
      row = np.where(changed, row, 0)
    out.append(np.asarray(row, np.float64))
  return out


def others(
  context: Context, values: str = 'mean log values'
) -> tuple[aggregates.Moments, aggregates.Moments]:
  """Returns moments of the conditions' real cells, and of all others'."""
  if not values.startswith(('mean log', 'log2 ratio of mean log')):
    raise Unknown(values)

  def make():
    own = cellsimbench.perturbed(context.problem('log1p'), 'observed')
    return own, cellsimbench.rest(own)

  return context.keep('others', make)


def _mean_of_cells(context, values):
  if not values.startswith('mean log'):
    raise Unknown(values)
  return cellsimbench.dataset_mean(context.problem('log1p'), 'cells')


def against_others(context: Context, overestimate: bool) -> aggregates.Tested:
  """Tests each condition's real cells against all other perturbed ones."""

  def make():
    found = aggregates.t_test(*others(context), overestimate=overestimate)
    score = np.asarray(found.score)
    return found._replace(score=np.where(np.isinf(score), 0, score))

  return context.keep(('test', overestimate), make)


# ----------------------------------------------------------------------------
# Genes and their weights.


def _order(context: Context, by: str) -> np.ndarray:
  """Orders genes of the observed cells, int [conditions, genes]."""
  if by == '|t| against others':
    score = against_others(context, False).score
    return np.argsort(-np.abs(score), axis=1, kind='stable')
  problem = context.problem('log1p')
  if by == '|t|':
    return context.keep('|t|', lambda: gene_lib.ranking(problem))
  if by == 't':
    return scgen.ranking(welch(context, 'observed'))
  raise Unknown(by)


def welch(context: Context, side: str) -> np.ndarray:
  """Returns Welch's t of a side against the observed control."""
  settings = tested.Settings(method='welch', control='real')
  found = tested.de(context.problem('log1p'), side, settings)
  return np.asarray(found.statistic)


def any_problem(context: Context) -> problem_lib.Problem:
  """Returns a problem whose scale does not matter."""
  return next(iter(context.problems.values()))


def mask_of(context: Context, genes: str) -> np.ndarray:
  """Returns which genes count, bool [conditions, genes]."""
  return context.keep(('mask', genes), lambda: _make_mask(context, genes))


def _make_mask(context, genes):
  problem = any_problem(context)
  shape = (problem.num_conditions, len(problem.genes))
  if genes == 'all':
    return np.ones(shape, bool)
  if genes == 'all but the own targets':
    return ~problem.target_mask
  if genes == 'top 20 non-dropout by |t|':
    sets = gene_lib.gene_sets(context.problem('log1p'))
    return gene_lib.top_mask(sets.top_non_dropout, 20, shape[1])
  found = match(r'top (\d+) by (.+)', genes)
  if found is not None:
    order = _order(context, found[2])
    return gene_lib.top_mask(order, int(found[1]), shape[1])
  if genes == 'differential against others':
    mask = np.asarray(against_others(context, True).fdr) < calls.ALPHA
    return mask & (mask.sum(1) >= _LEAST_DEGS)[:, None]
  found = match(r'adjusted p < (.+) against others', genes)
  if found is not None:
    return np.asarray(against_others(context, False).fdr) < float(found[1])
  raise Unknown(genes)


def _weights(context: Context, weights: str) -> np.ndarray | None:
  if weights == 'equal':
    return None
  found = match(r'\|t\|\^(\d+) against others(.*)', weights)
  if found is None:
    raise Unknown(weights)
  test = against_others(context, bool(found[2]))
  return np.asarray(
    weighted.significance_weights(test.score, exponent=float(found[1]))
  )


# ----------------------------------------------------------------------------
# Families of profiles.


def _correlation(context: Context, facets: Facets) -> np.ndarray:
  predicted, observed = rows(context, facets)
  mask = mask_of(context, facets['genes'])
  functions = {'Pearson': pseudobulk.pearson, 'cosine': pseudobulk.cosine}
  value = np.asarray(functions[facets['measure']](
    predicted, observed, mask=mask))  # fmt: skip
  if facets['undefined'].startswith('-1'):
    varies = observed.max(1) > observed.min(1)
    value = np.where(np.isnan(value) & varies, -1.0, value)
  return value


def _error(context: Context, facets: Facets) -> np.ndarray:
  if facets['divided'] != 'the number of genes':
    raise Unknown(facets['divided'])
  weights = _weights(context, facets['weights'])
  if facets['noise'] == 'taken away':
    return _error_without_noise(context, facets)
  predicted, observed = rows(context, facets)
  mask = mask_of(context, facets['genes'])
  if weights is not None:
    if facets['measure'] != 'squared':
      raise Unknown(facets['weights'])
    return weighted.wmse(predicted, observed, weights, mask=mask)
  functions = {'squared': pseudobulk.mse, 'absolute': pseudobulk.mae}
  if facets['measure'] not in functions:
    raise Unknown(facets['measure'])
  return functions[facets['measure']](predicted, observed, mask=mask)


def _error_without_noise(context, facets):
  known = {
    'values': 'log of summed counts',
    'genes': 'all but the own targets',
    'measure': 'squared',
    'weights': 'equal',
  }
  if any(facets[k] != v for k, v in known.items()):
    raise Unknown('noise')
  problem = context.problem('counts')
  found = context.keep('noise', lambda: cell_eval2.bulks(problem))
  return bulk.capped_error(
    found.predicted,
    found.observed,
    found.predicted_noise,
    found.observed_noise,
    own=problem.target_mask,
  )


_RANKED = ('sign', 'start', 'values', 'genes', 'distance')


def _all_distances(context: Context, facets: Facets) -> retrieval.Distances:
  predicted, observed = rows(context, facets)
  if facets['sign'] == 'dropped':
    predicted, observed = np.abs(predicted), np.abs(observed)
  problem = any_problem(context)
  which: dict[str, Any] = {
    'all': {},
    'all but the one named as the condition': {'own': problem.named_gene},
    'all but the targets of all conditions': {
      'mask': ~problem.target_mask.any(0)
    },
  }
  if facets['genes'] not in which:
    raise Unknown(facets['genes'])
  if facets['distance'] not in retrieval.METRICS:
    raise Unknown(facets['distance'])
  return retrieval.distances(
    predicted,
    observed,
    metric=facets['distance'],
    **which[facets['genes']],
  )


def _retrieval(context: Context, facets: Facets) -> np.ndarray:
  key = ('distances', *(facets[k] for k in _RANKED))
  found = context.keep(key, lambda: _all_distances(context, facets))
  number = len(found.value)
  below = number - (facets['denominator'] == 'P - 1')
  if not below:
    return np.full(number, np.nan)
  if facets['side'] == 'predictions per truth':
    found = retrieval.Distances(found.value.T, found.error.T)
  ties = {
    'half': 'mid',
    'by name': 'tool',
    'against it': 'pessimistic',
    'for it': 'optimistic',
  }.get(facets['ties'])
  if ties is None:
    raise Unknown(facets['ties'])
  if ties in retrieval.TIES:
    return 1 - np.asarray(retrieval.place(found, ties=ties)) / below
  place = ranks.rank(
    found.value,
    direction='lower',
    transposed=True,
    ties=ties,
    tolerance=found.error,
  )
  return 1 - np.asarray(place) * number / below


def _explained(measure, predicted, observed, mask) -> np.ndarray:
  if measure == 'squared Pearson':
    return np.square(pseudobulk.pearson(predicted, observed, mask=mask))
  found = match(r'1 - SSE / SST of the (truth|prediction)', measure)
  if found is None:
    raise Unknown(measure)
  return pseudobulk.r2(
    predicted, observed, mask=mask, swapped=found[1] == 'prediction'
  )


def _means_explained(context: Context, facets: Facets) -> np.ndarray:
  if facets['cells'] != 'all':
    raise Unknown(facets['cells'])
  # CellSimBench rounds nothing, and in the others nothing is subtracted.
  predicted, observed = rows(context, {**facets, 'rounding': 'nothing'})
  mask = mask_of(context, facets['genes'])
  weights = _weights(context, facets['weights'])
  if weights is None:
    return _explained(facets['measure'], predicted, observed, mask)
  if facets['measure'] != '1 - SSE / SST of the truth':
    raise Unknown(facets['weights'])
  return weighted.weighted_r2_delta(
    predicted, observed, np.zeros_like(observed), weights, mask=mask
  )


def _variances_explained(context: Context, facets: Facets) -> np.ndarray:
  if facets['cells'] != 'all':
    raise Unknown(facets['cells'])
  problem = context.problem('log1p')
  pair = []
  for side in SIDES:
    value = getattr(problem, side).variance[: problem.num_conditions]
    if facets['of'] == 'coefficient of variation':
      value = np.asarray(pseudobulk.variation(problem.means(side), value))
    pair.append(value)
  mask = mask_of(context, facets['genes'])
  return _explained(facets['measure'], *pair, mask)


REPLAYS: dict[str, Callable[[Context, Facets], Any]] = {
  'correlation': _correlation,
  'error': _error,
  'retrieval': _retrieval,
  'r2_means': _means_explained,
  'r2_variances': _variances_explained,
}
