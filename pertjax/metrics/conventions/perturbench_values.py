"""The numbers behind PerturBench's columns: aggregates, metrics, ranks."""

from __future__ import annotations

import functools

import jax.numpy as jnp
import numpy as np

from pertjax.metrics import aggregates, changes, pseudobulk, ranks, tested
from pertjax.metrics import problem as problem_lib
from pertjax.metrics.distribution import energy

# ----------------------------------------------------------------------------
# Aggregates, [conditions, genes] of the prediction and of the reference.


def _control(
  problem: problem_lib.Problem, side: str, control: str
) -> aggregates.Moments:
  """Returns the moments of every label, controls as the option has them."""
  observed = aggregates.moments(problem.observed)
  if side == 'observed':
    return observed
  own = aggregates.moments(problem.predicted)
  is_control = np.arange(len(own.size)) >= problem.num_conditions
  if control == 'own':
    is_control &= own.size == 0
  return aggregates.replaced(own, observed, is_control)


def _average(problem, side, options):
  return problem.means(side)


def _logfc(problem, side, options):
  mean = problem.means(side)
  control = problem.control_means(side, control=options['control'])
  values = pseudobulk.logfc(
    mean, control, pseudocount=options['pseudocount'], undefined=0.0
  )
  # No change, stored and read again, is still no change.
  changed = np.asarray(changes.difference(mean, control)) != 0
  return np.where(changed, values, 0.0)


def _scaled(problem, side, options):
  parts = _control(problem, side, options['control'])
  centre, spread = aggregates.pooled(parts)
  values = aggregates.scaled(getattr(problem, side), centre, spread)
  return values[: problem.num_conditions]


def _var(problem, side, options):
  variance = getattr(problem, side).variance[: problem.num_conditions]
  if not options['adjust_var']:
    return variance
  return pseudobulk.variation(problem.means(side), variance)


def de(problem, side, options) -> aggregates.Tested:
  """Tests one side, in float64."""
  control, method = options['control'], options['de_method']
  if method == 'wilcoxon':
    settings = tested.Settings(
      tie_correct=False, continuity=False, control=control
    )
    found = tested.de(problem, side, settings)
    sizes = getattr(problem, side).sizes[: problem.num_conditions]
    rest = _control(problem, side, control).size[problem.control_labels]
    middle = (sizes * rest)[:, None] / 2
    score = np.sign(found.statistic - middle) * found.z
    return aggregates.Tested(score, found.p, found.fdr)
  parts = _control(problem, side, control)
  conditions = np.arange(problem.num_conditions)
  return aggregates.t_test(
    *(
      aggregates.Moments(*(x[labels] for x in parts))
      for labels in (conditions, problem.control_labels)
    ),
    overestimate=method == 't-test_overestim_var',
  )


def _logp(problem, side, options):
  found = de(problem, side, options)
  p = found.fdr if options['logp_adjusted'] else found.p
  score = jnp.where(jnp.isinf(found.score), 0, found.score)
  return jnp.sign(score) * -jnp.log(p + options['logp_floor'])


def _scores(problem, side, options):
  score = de(problem, side, options).score
  return jnp.where(jnp.isinf(score), 0, score)


def _components(problem, options) -> aggregates.Components:
  key = ('observed', 'components', options['n_comps'])
  if key not in problem.tables:
    problem.tables[key] = aggregates.components(
      problem.observed, options['n_comps']
    )
  return problem.tables[key]


def _pca_average(problem, side, options):
  return aggregates.project(problem.means(side), _components(problem, options))


AGGREGATE = {
  'average': _average,
  'logfc': _logfc,
  'scaled': _scaled,
  'var': _var,
  'logp': _logp,
  'scores': _scores,
  'pca_average': _pca_average,
}

# ----------------------------------------------------------------------------
# Metrics and ranks of one aggregate.


def metric(name: str, predicted, observed, mask, options) -> np.ndarray:
  """Returns a metric of an aggregate, [conditions]; infinities count as 0."""
  predicted, observed = (
    np.where(np.isinf(x), 0, x) for x in (predicted, observed)
  )
  options = {
    'r2_score': {'swapped': options['r2_swapped']},
    'top_k_recall': {'k': options.get('top_k')},
  }.get(name, {})
  function = pseudobulk.r2 if name == 'r2_score' else getattr(pseudobulk, name)
  return np.asarray(function(predicted, observed, mask=mask, **options))


def rank(name, predicted, observed, problem, mask, options) -> np.ndarray:
  """Ranks each condition within its covariate group."""
  settings = {
    'groups': jnp.asarray(problem.group),
    'denominator': options['rank_denominator'],
    'transposed': options['transposed'],
  }
  if name == 'top_k_recall':
    if mask is not None:
      return np.full(problem.num_conditions, np.nan)
    shared = [aggregates.member(x, options['top_k']) for x in (
      predicted, observed)]  # fmt: skip
    function = functools.partial(
      ranks.rank, shared[0] @ shared[1].T, direction='higher', **settings
    )
  else:
    # One order: the square root is not needed to compare.
    metric = {'r2_score': 'r2', 'rmse': 'mse'}.get(name, name)
    function = functools.partial(
      ranks.perturbation_rank,
      predicted,
      observed,
      metric=metric,
      mask=mask,
      swapped=options['r2_swapped'] and metric == 'r2',
      **settings,
    )
  if options['ties'] != 'shuffled':
    return np.asarray(function(ties=options['ties']))
  low, high = (
    np.asarray(function(ties=ties)) for ties in ('optimistic', 'pessimistic')
  )
  # A shuffle puts the own prediction anywhere among those as close.
  others = _competitors(problem)
  if options['rank_denominator'] == 'n':
    others = others + 1
  random = np.random.default_rng([options['seed'], *name.encode()])
  tied = np.round((high - low) * others)
  tied = np.where(np.isnan(tied), 0, tied).astype(np.int64)
  with np.errstate(invalid='ignore', divide='ignore'):
    return low + random.integers(0, tied + 1) / others


def _competitors(problem: problem_lib.Problem) -> np.ndarray:
  size = np.bincount(problem.group, minlength=len(problem.groups))
  return size[problem.group] - 1


def energies(problem, options) -> np.ndarray:
  """Energy distance in the reference components, [conditions]."""
  onto = _components(problem, options)
  values = np.full(problem.num_conditions, np.nan)
  for condition in range(problem.num_conditions):
    sets = []
    for side in (problem.predicted, problem.observed):
      cells, _ = side.cells([condition])
      rows = aggregates.project_cells(cells, onto)
      # Few sizes, few compilations.
      size = max(16, 1 << (max(1, len(rows)) - 1).bit_length())
      padded = np.zeros((size, rows.shape[1]))
      padded[: len(rows)] = rows
      sets.append((padded, np.arange(size) < len(rows)))
    (x, x_mask), (y, y_mask) = sets
    values[condition] = energy.energy_distance_half(
      x, y, x_mask=x_mask, y_mask=y_mask
    )
  return values
