"""scPertEval: its 22 protocols, scored for a prediction.

Differential genes are those of a condition's real cells against all other
perturbed cells, and the predicted cells are tested against the same. A protocol
with a number in it (`_k`, `_padj`) has an option of that name. The calibration
scores, DRF and BDS, are functions in `pertjax.metrics.weighted`.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pertjax.metrics import aggregates, pseudobulk, ranks, registry, weighted
from pertjax.metrics import problem as problem_lib
from pertjax.metrics.conventions import (
  base,
  cell_sets,
  cellsimbench,
  scperteval_fields,
)
from pertjax.metrics.differential import calls
from pertjax.metrics.distribution import energy, kernels
from pertjax.types import Array

BANDWIDTHS = ('pooled', 'observed')
_POPULATIONS = ('unbiased_mmd_median', 'energy_distance', 'sinkhorn_w2')


# ----------------------------------------------------------------------------
# Lists of genes.


@jax.jit
def areas(labels: Array, score: Array) -> tuple[Array, Array]:
  """Returns the areas under the precision-recall and the ROC curve.

  Average precision, sum over thresholds of (recall - recall before) times
  precision; and the probability that a gene of the class scores above one that
  is not. Genes of one score enter together, and count half against each other.

  Args:
    labels: bool [conditions, genes], the class that is looked for.
    score: [conditions, genes], higher is more likely of the class.

  Returns:
    two of [conditions]; NaN where all genes are of one class or a score is NaN.
  """
  order, label = jax.lax.sort(
    (-score, jnp.asarray(labels)), dimension=1, num_keys=1
  )
  ties = calls.runs(order)
  found = jnp.cumsum(label, axis=1)
  before = jnp.take_along_axis(found - label, ties.first, axis=1)
  found = jnp.take_along_axis(found, ties.last, axis=1)
  taken = ties.last + 1
  wrong = (taken - found) + (ties.first - before)
  positives = jnp.sum(label, axis=1)
  negatives = label.shape[1] - positives
  known = (positives > 0) & (negatives > 0)
  known &= ~jnp.any(jnp.isnan(score), axis=1)
  above = 1 - wrong / jnp.maximum(2 * negatives, 1)[:, None]
  return tuple(
    jnp.where(
      known,
      jnp.sum(jnp.where(label, x, 0), axis=1) / jnp.maximum(positives, 1),
      jnp.nan,
    )
    for x in (found / taken, above)
  )


def noisy_rank(matrix: np.ndarray) -> np.ndarray:
  """Ranks each diagonal entry of its column as the tool does, [conditions].

  Noise below 1e-12 of seed 42, the same in every run, decides ties, so that
  equal predictions have ranks that depend on the order of the conditions; and
  nothing, where distances are large enough to round it away.

  Args:
    matrix: [predictions, references] squared distances.
  """
  noise = np.random.default_rng(42).uniform(0, 1e-12, size=matrix.shape)
  order = np.argsort(np.argsort(matrix + noise, axis=0), axis=0)
  return np.diag(order) / max(len(matrix) - 1, 1)


def _rank(predicted, observed, *, transposed, noise) -> np.ndarray:
  if not noise:
    return ranks.perturbation_rank(
      predicted, observed, metric='mse', transposed=transposed
    )
  squares = [np.square(x).sum(1) for x in (predicted, observed)]
  matrix = squares[0][:, None] + squares[1] - 2 * predicted @ observed.T
  matrix = np.maximum(matrix, 0)
  return noisy_rank(matrix.T if transposed else matrix)


# ----------------------------------------------------------------------------
# Populations.


@functools.partial(jax.jit, static_argnames=('blur', 'scaling'))
def sinkhorn_w2(
  x: Array,
  y: Array,
  *,
  x_mask: Array | None = None,
  y_mask: Array | None = None,
  blur: float = 0.05,
  scaling: float = 0.5,
) -> Array:
  """Returns sqrt(2 S), S the debiased Sinkhorn divergence of |x - y|²/2.

  Symmetric updates while the temperature falls from the diameter to the blur by
  a factor an iteration, and one more of all potentials (Feydy 2020, thesis,
  section 3.3; geomloss SamplesLoss('sinkhorn', p=2), which the tool calls). The
  few steps need not have converged, and no error is known: for that, take
  `transport.sinkhorn_divergence`, which is S times two at epsilon 2 blur².

  Args:
    x: [n, features].
    y: [m, features].
    x_mask: bool [n].
    y_mask: bool [m].
    blur: square root of the entropy's weight, in units of the features.
    scaling: factor between temperatures, below 1.

  Returns:
    (); NaN without cells.
  """
  x, y = jnp.asarray(x), jnp.asarray(y)
  dtype = pseudobulk.wide(x, y)
  masks = [
    jnp.ones(len(v), bool) if m is None else jnp.asarray(m) > 0
    for v, m in ((x, x_mask), (y, y_mask))
  ]
  sets = [energy.cells(v, m, dtype) for v, m in zip((x, y), masks)]
  origin = energy.mean(sets[1])
  a, b = (energy.shifted(s, origin) for s in sets)
  log_a, log_b = (
    jnp.where(s.mask, -jnp.log(s.count), -jnp.inf)[None] for s in (a, b)
  )
  cost = energy.squared_distances(a.values, b.values) / 2
  own_a, own_b = (energy.squared_distances(s.values) / 2 for s in (a, b))
  highest, lowest = (
    pick(
      jnp.concatenate(
        [jnp.where(s.mask[:, None], s.values, s.values[:1]) for s in (a, b)]
      ),
      axis=0,
    )
    for pick in (jnp.max, jnp.min)
  )
  diameter = jnp.sqrt(jnp.sum(jnp.square(highest - lowest)))

  def soft(temperature, cost, log_weight, potential):
    inside = log_weight + (potential[None] - cost) / temperature
    return -temperature * jax.nn.logsumexp(inside, axis=-1)

  def update(temperature, potentials):
    f, g, own_f, own_g = potentials
    return (
      soft(temperature, cost, log_b, g),
      soft(temperature, cost.T, log_a, f),
      soft(temperature, own_a, log_a, own_f),
      soft(temperature, own_b, log_b, own_g),
    )

  def going(state):
    return state[0] > blur

  def average(length, potentials):
    new = update(jnp.square(length), potentials)
    return tuple((old + fresh) / 2 for old, fresh in zip(potentials, new))

  def body(state):
    length, potentials = state
    return length * scaling, average(length, potentials)

  zeros = tuple(jnp.zeros_like(s.weight) for s in (a, b, a, b))
  start = update(jnp.square(jnp.maximum(diameter, blur)), zeros)
  # The largest temperature comes twice, the blur once.
  potentials = average(jnp.maximum(diameter, blur), start)
  _, potentials = jax.lax.while_loop(going, body, (diameter, potentials))
  potentials = average(jnp.asarray(blur, dtype), potentials)
  f, g, own_f, own_g = update(jnp.asarray(blur**2, dtype), potentials)

  def mean(side, values):
    return jnp.sum(jnp.where(side.mask, values, 0)) / side.count

  value = mean(a, f - own_f) + mean(b, g - own_g)
  return jnp.sqrt(jnp.maximum(2 * value, 0))


@functools.partial(jax.jit, static_argnames=('names', 'blur', 'pooled'))
def _population(x, x_mask, y, y_mask, *, names, blur, pooled):
  masks = {'x_mask': x_mask, 'y_mask': y_mask}
  out = {}
  if 'energy_distance' in names:
    out['energy_distance'] = energy.energy_distance_unbiased(x, y, **masks)
  if 'sinkhorn_w2' in names:
    out['sinkhorn_w2'] = sinkhorn_w2(x, y, blur=blur, **masks)
  if 'unbiased_mmd_median' in names:
    values, mask = y, y_mask
    if pooled:
      values = jnp.concatenate([x, y])
      mask = jnp.concatenate([x_mask, y_mask])
    width = kernels.median_bandwidth(values, y_mask=mask)
    known = jnp.where(width > 0, width, 1)
    found = kernels.mmd_rbf(x, y, bandwidth=known, unbiased=True, **masks)
    found = jnp.where(jnp.isnan(width), jnp.nan, found)
    out['unbiased_mmd_median'] = jnp.where(width == 0, 0, found)
  return out


def _populations(problem, names, lists, options) -> dict[str, np.ndarray]:
  """Distances in the space of the top genes and of the components."""
  out = {name: np.full(problem.num_conditions, np.nan) for name in names}
  spaces = {}
  for suffix in ('_top_k', '_pca_k'):
    found = [n.removesuffix(suffix) for n in names if n.endswith(suffix)]
    spaces[suffix] = tuple(found)
  onto = None
  if spaces['_pca_k']:
    onto = aggregates.components(problem.observed, options['pca_k'])
  at = cell_sets.View(problem)
  for condition in range(problem.num_conditions):
    pair = [
      cell_sets.cells(at, side, condition) for side in ('predicted', 'observed')
    ]
    for suffix, chosen in spaces.items():
      if not chosen:
        continue
      if suffix == '_pca_k':
        sets = [aggregates.project(s, onto) for s in pair]
      else:
        sets = [s[:, lists[condition, : options['top_k']]] for s in pair]
      (x, x_mask), (y, y_mask) = (
        cell_sets.padded(s, options['precision']) for s in sets
      )
      found = _population(
        x,
        x_mask,
        y,
        y_mask,
        names=chosen,
        blur=options['blur'],
        pooled=options['bandwidth'] == 'pooled',
      )
      for name, value in found.items():
        out[name + suffix][condition] = value
  return out


# ----------------------------------------------------------------------------
# The convention.


def _check(options) -> None:
  registry.check_choice('bandwidth', options['bandwidth'], BANDWIDTHS)
  registry.check_choice('precision', options['precision'], cell_sets.PRECISIONS)
  for key in ('top_k', 'pca_k', 'overlap_k'):
    if options[key] < 1:
      raise ValueError(f'{key} is {options[key]}; allowed: 1 or more')
  for key in ('padj', 'blur'):
    if not options[key] > 0:
      raise ValueError(f'{key} is {options[key]}; allowed: above 0')


def _compute(
  problem: problem_lib.Problem,
  wanted: Sequence[str],
  options: Mapping[str, Any],
) -> dict[str, np.ndarray]:
  _check(options)
  predicted, observed = problem.means('predicted'), problem.means('observed')
  own = cellsimbench.perturbed(problem, 'observed')
  others = cellsimbench.rest(own)
  plain = {'pearson', 'pearson_ctrl', 'pearson_pert', 'mse', 'rank'}
  score = fdr = lists = None
  if set(wanted) - plain - {'transpose_rank'}:
    score, fdr = _test(own, others)
    lists = np.argsort(-np.abs(score), axis=1, kind='stable')
    # A condition without others has no test and no list.
    alone = np.isnan(score).all(1)
  out: dict[str, Any] = {}
  for name in wanted:
    out[name] = _of_means(
      name, problem, predicted, observed, others.mean, options
    )
    if out[name] is None and name.startswith(('wmse', 'mse_', 'pearson_')):
      out[name] = _of_lists(
        name, predicted, observed, others.mean, (score, fdr, lists), options
      )
  if any(name.startswith('de_') for name in wanted):
    guess = cellsimbench.perturbed(problem, 'predicted')
    guess = np.abs(_test(guess, others)[0])
    out |= _recovery(score, fdr, guess, options)
  names = [n for n in wanted if n.startswith(_POPULATIONS)]
  if names:
    out |= _populations(problem, names, lists, options)
    for name in names:
      if name.endswith('_top_k'):
        out[name][alone] = np.nan
  return {n: np.asarray(out[n], np.float64) for n in wanted}


def _test(parts, others) -> tuple[np.ndarray, np.ndarray]:
  """Returns t and adjusted p; t is 0 where nothing varies, as in the tool."""
  found = aggregates.t_test(parts, others)
  score = np.asarray(found.score)
  return np.where(np.isinf(score), 0, score), np.asarray(found.fdr)


def _of_means(name, problem, predicted, observed, other_means, options):
  """Protocols that need no test; None for the others."""
  if name == 'mse':
    return pseudobulk.mse(predicted, observed)
  if name in ('rank', 'transpose_rank'):
    return _rank(
      predicted,
      observed,
      transposed=name == 'transpose_rank',
      noise=options['noise'],
    )
  origin = {
    'pearson': lambda: 0.0,
    'pearson_ctrl': lambda: problem.control_means('observed'),
    'pearson_pert': lambda: other_means,
  }.get(name)
  if origin is None:
    return None
  return pseudobulk.pearson(predicted - origin(), observed - origin())


def _of_lists(name, predicted, observed, other_means, tests, options):
  """Protocols of weighted or chosen genes."""
  score, fdr, lists = tests
  alone = np.isnan(score).all(1)
  if name.startswith('wmse'):
    exponent = float(name.removeprefix('wmse_exp'))
    weights = weighted.significance_weights(score, exponent=exponent)
    value = weighted.wmse(predicted, observed, weights)
    return np.where(alone, np.nan, value)
  if name.endswith('_top_k'):
    mask = np.zeros(lists.shape, bool)
    np.put_along_axis(mask, lists[:, : options['top_k']], True, axis=1)
  else:
    mask = fdr < options['padj']
  if name.startswith('mse'):
    value = pseudobulk.mse(predicted, observed, mask=mask)
  else:
    changes = predicted - other_means, observed - other_means
    value = pseudobulk.pearson(*changes, mask=mask)
  return np.where(alone, np.nan, value)


def _recovery(score, fdr, guess, options) -> dict[str, np.ndarray]:
  """Finding the differential genes by the size of the predicted statistic."""
  precision_recall, roc = areas(fdr < 0.05, guess)
  k = options['overlap_k']
  overlap = np.full(len(score), np.nan)
  if k < score.shape[1]:
    both = aggregates.member(score, k) * aggregates.member(guess, k)
    overlap = np.asarray(both).sum(1) / k
  return {
    'de_auprc': precision_recall,
    'de_auroc': roc,
    'de_overlap_k': overlap,
  }


CONVENTIONS = (
  base.Convention(
    name='scperteval',
    title='scPertEval 0.2',
    reference='github.com/Virtual-Cell-Research-Community/scPertEval',
    scale='log1p',
    control='real',
    columns=scperteval_fields.COLUMNS,
    compute=_compute,
    options={
      'top_k': 50,
      'pca_k': 50,
      'overlap_k': 50,
      'padj': 0.05,
      'blur': 0.05,
      'bandwidth': 'pooled',  # the prediction has a part; or 'observed'.
      'noise': False,  # True: ranks as the tool breaks ties.
      'precision': 'float32',
    },
  ),
)
