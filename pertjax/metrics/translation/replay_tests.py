"""Columns of differential expression again, by facets: see `replay`."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from pertjax.metrics import aggregates, pseudobulk, tested
from pertjax.metrics.conventions import cell_eval2, cellsimbench, scperteval
from pertjax.metrics.differential import calls
from pertjax.metrics.translation import replay
from pertjax.metrics.translation.replay import Context, Facets, Unknown

# ----------------------------------------------------------------------------
# Families of tests.


def _calls(
  context: Context, values: str, start: str
) -> tuple[calls.Calls, ...]:
  """Returns the tests of both sides."""
  control = {'own control': 'own', 'real control': 'real'}.get(start)
  if control is None:
    raise Unknown(start)
  if values == 'log2 ratio of geometric means':
    problem = context.problem('log1p')
    made = []
    for side in replay.SIDES:
      found = tested.de(problem, side, tested.Settings(control=control))
      made.append(
        calls.make(
          found.fdr, found.log2_fold_change, p=found.p, dtype=jnp.float32
        )
      )
    return tuple(made)
  if values == 'log2 ratio of mean counts per million':
    options = {**cell_eval2.OPTIONS, 'control': control}
    problem = context.problem('counts')
    return tuple(cell_eval2.de_calls(problem, s, options) for s in replay.SIDES)
  raise Unknown(values)


def _changes(context, facets) -> tuple[np.ndarray, np.ndarray]:
  """Returns fold changes or changes of both sides."""
  values = facets['values']
  if values.startswith(('mean log', 'log2 ratio of mean log')):
    rounding = {'rounding': 'below 2^-22 of the mean'}
    return tuple(replay.rows(context, {**facets, **rounding}))
  found = _calls(context, values, facets['start'])
  return tuple(np.asarray(x.log2_fold_change, np.float64) for x in found)


def _significant(context, facets) -> np.ndarray:
  """Returns the genes that a family of tests looks at."""
  genes = facets['genes']
  if not genes.startswith('significant'):
    return replay.mask_of(context, genes)
  values = facets['values']
  if not values.startswith(('log2 ratio of geo', 'log2 ratio of mean counts')):
    values = 'log2 ratio of geometric means'
  predicted, observed = _calls(context, values, facets['start'])
  truth = np.asarray(observed.log2_fold_change)
  masks = {
    'significant in truth': lambda: observed.significant,
    'significant in truth, not own': lambda: (
      np.asarray(observed.significant)
      & np.isfinite(truth)
      & ~replay.any_problem(context).target_mask
    ),
    'significant in truth, rising': lambda: (
      np.asarray(observed.significant) & (truth > 0)
    ),
    'significant in truth, falling': lambda: (
      np.asarray(observed.significant) & (truth < 0)
    ),
    'significant in prediction': lambda: predicted.significant,
    'significant in prediction, with a direction, not own': lambda: (
      np.asarray(predicted.significant)
      & np.asarray(observed.present)
      & ~np.isnan(truth)
      & (truth != 0)
      & ~replay.any_problem(context).target_mask
    ),
  }
  if genes not in masks:
    raise Unknown(genes)
  return np.asarray(masks[genes]())


def _gate(value, mask, undefined: str) -> np.ndarray:
  """Leaves conditions out as cell-eval2 does."""
  if undefined.startswith('with 10') and 'genes, 0' not in undefined:
    gate = mask.sum(1) >= 10
    if '-1 for constant' in undefined:
      value = np.where(np.isnan(value), -1.0, value)
    return np.where(gate, value, np.nan)
  if undefined == 'with 10 genes, 0 without calls':
    return np.where(np.isnan(value), 0.0, value)
  return value


def _direction(context: Context, facets: Facets) -> np.ndarray:
  predicted, observed = _changes(context, facets)
  mask = _significant(context, facets)
  signs = np.sign(predicted), np.sign(observed)
  right = (signs[0] == signs[1]) & mask
  number = mask.sum(1)
  measure = facets['measure']
  if measure == 'share of no wrong signs':
    right = (signs[0] * signs[1] >= 0) & mask
  elif measure == 'right signs / the larger number of calls':
    _, truth = _calls(context, facets['values'], facets['start'])
    own = replay.any_problem(context).target_mask
    real = (np.asarray(truth.significant) & ~own).sum(1)
    number = np.maximum(number, real)
  elif measure != 'share of right signs':
    raise Unknown(measure)
  with np.errstate(invalid='ignore', divide='ignore'):
    value = right.sum(1) / number
  return _gate(value, mask, facets['undefined'])


def _fold_change(context: Context, facets: Facets) -> np.ndarray:
  predicted, observed = _changes(context, facets)
  mask = _significant(context, facets)
  measure = facets['measure']
  if measure == 'Spearman':
    value = calls.spearman(
      jnp.asarray(predicted), jnp.asarray(observed), mask=jnp.asarray(mask)
    )
  elif measure == 'Pearson':
    value = pseudobulk.pearson(predicted, observed, mask=mask)
  elif measure == 'cosine':
    value = pseudobulk.cosine(predicted, observed, mask=mask)
  elif measure == '1 - sum |error| / sum |truth|':
    guess = np.where(np.isfinite(predicted), predicted, 0)
    truth = np.where(mask, observed, 0)
    error = np.abs(np.where(mask, guess, 0) - truth).sum(1)
    with np.errstate(invalid='ignore', divide='ignore'):
      value = 1 - error / np.abs(truth).sum(1)
  else:
    raise Unknown(measure)
  return _gate(np.asarray(value), mask, facets['undefined'])


def _listed(context: Context, order: str) -> list[tuple[Any, Any]]:
  """Returns (strength, eligible) of both sides, [conditions, genes] each."""
  tests = {
    'Wilcoxon, significant, |log2 fold|': (
      'log2 ratio of geometric means',
      'own control',
    ),
    'Wilcoxon of counts per million, significant, |log2 fold|': (
      'log2 ratio of mean counts per million',
      'real control',
    ),
  }
  if order in tests:
    return [
      (np.abs(np.asarray(x.log2_fold_change)), np.asarray(x.significant))
      for x in _calls(context, *tests[order])
    ]
  if order == 'Wilcoxon, fdr':
    start = 'own control'
    both = _calls(context, 'log2 ratio of geometric means', start)
    return [
      (-np.log10(np.clip(x.fdr, 1e-10, 1)), np.asarray(x.significant))
      for x in both
    ]
  if order in ('t', '|t|'):
    found = [replay.welch(context, side) for side in replay.SIDES]
    found = [np.abs(x) for x in found] if order == '|t|' else found
  elif order == '|t| against others':
    own, others = replay.others(context)
    guess = cellsimbench.perturbed(context.problem('log1p'), 'predicted')
    found = []
    for parts in (guess, own):
      score = np.asarray(aggregates.t_test(parts, others).score)
      found.append(np.abs(np.where(np.isinf(score), 0, score)))
  else:
    values = {'|change of the mean|': 'mean log values'}.get(order)
    values = values or order.strip('|')
    start = 'real control' if values == 'mean log values' else 'own control'
    rows = replay.rows(
      context,
      {'values': values, 'start': start, 'rounding': 'below 2^-22 of the mean'},
    )
    found = [np.abs(x) for x in rows]
  return [(x, np.ones(x.shape, bool)) for x in found]


def _first(strength, eligible, number) -> np.ndarray:
  """Returns the strongest genes that may be taken, bool [conditions, genes]."""
  key = np.where(eligible & ~np.isnan(strength), strength, -np.inf)
  order = np.argsort(-key, axis=1, kind='stable')
  place = np.argsort(order, axis=1)
  return eligible & (place < np.asarray(number)[:, None])


def _shared(context: Context, facets: Facets) -> np.ndarray:
  """Returns what lists of genes share, over their length or all of both."""
  (a, may_a), (b, may_b) = _listed(context, facets['order'])
  mask = replay.mask_of(context, facets['genes'])
  may_a, may_b = may_a & mask, may_b & mask
  k = facets['k']
  found = replay.match(r'(\d+)( of truth)?', k)
  if k == 'all significant of each side':
    size = None
  elif k == 'as many as significant in truth':
    size = may_b.sum(1)
  elif k == 'as many as significant in prediction':
    size = may_a.sum(1)
  elif found is None:
    raise Unknown(k)
  else:
    size = np.full(len(a), int(found[1]))
    size = np.minimum(size, may_b.sum(1)) if found[2] else size
  if size is not None:
    may_a, may_b = _first(a, may_a, size), _first(b, may_b, size)
  below = {
    'shared / k': may_b.sum(1) if size is None else size,
    'Jaccard': (may_a | may_b).sum(1),
  }
  if facets['measure'] not in below:
    raise Unknown(facets['measure'])
  with np.errstate(invalid='ignore', divide='ignore'):
    value = (may_a & may_b).sum(1) / below[facets['measure']]
  undefined = facets['undefined']
  if undefined[:2] in ('0 ', '1 '):
    return np.where(np.isnan(value), float(undefined[0]), value)
  return _gate(value, may_b, undefined)


def _areas(context: Context, facets: Facets) -> np.ndarray:
  """Returns the area under a curve of finding the significant genes."""
  (score, _), _ = _listed(context, facets['order'])
  if facets['order'] == '|t| against others':
    labels = np.asarray(replay.against_others(context, False).fdr) < calls.ALPHA
  else:
    start = 'own control'
    _, truth = _calls(context, 'log2 ratio of geometric means', start)
    labels = np.asarray(truth.significant)
  found = scperteval.areas(jnp.asarray(labels), jnp.asarray(score))
  return np.asarray(found[facets['measure'] == 'ROC area'])


def _agreement(context: Context, facets: Facets) -> np.ndarray:
  if facets['measure'] in ('average precision', 'ROC area'):
    return _areas(context, facets)  # There is no k on a curve.
  return _shared(context, facets)


REPLAYS = {
  'de': _agreement,
  'direction': _direction,
  'fold_change': _fold_change,
}
