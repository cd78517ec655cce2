"""Distances of sets of cells again, by facets: see `translation_replay`.

With D the mean distance of the n (n - 1) pairs of two cells of a set, the mean
over all n^2 pairs, a cell with itself among them, is (n - 1) / n D. An energy
distance that counts self pairs is therefore larger by D / n of each side, and
that is all the two differ in.
"""

from __future__ import annotations

import jax
import numpy as np

from pertjax.metrics import aggregates
from pertjax.metrics.conventions import cell_sets, scgen
from pertjax.metrics.distribution import energy
from pertjax.metrics.translation import replay as replay_lib

_ENERGY = ('edistance_biased', 'edistance_unbiased', 'edistance_squared')


def _view(context: replay_lib.Context, space: str) -> cell_sets.View:
  problem = context.problem('log1p')
  if space == 'genes':
    return cell_sets.View(problem, None, 'float64')
  words = space.split()
  if len(words) != 2 or words[1] != 'components':
    raise replay_lib.Unknown(space)
  onto = context.keep(
    ('components', words[0]),
    lambda: aggregates.components(problem.observed, int(words[0])),
  )
  return cell_sets.View(problem, onto, 'float64')


def _set(at, side, condition, genes):
  """Reads a set of cells, padded, float64."""
  values = np.asarray(cell_sets.cells(at, side, condition), np.float64)
  if at.onto is None:
    values = values[:, genes[condition]]
  return values, *cell_sets.padded(values, 'float64')


def _energies(context, facets, other: str) -> dict[str, np.ndarray]:
  """Returns energy distances of predictions from truth, or from controls.

  Args:
    context: what is compared.
    facets: 'space' and 'genes' are read.
    other: 'truth'; 'prediction and control' or 'truth and control'.
  """
  at = _view(context, facets['space'])
  genes = replay_lib.mask_of(context, facets['genes'])
  if at.onto is not None and facets['genes'] != 'all':
    raise replay_lib.Unknown(facets['genes'])
  pair = {
    'truth': ('predicted', 'observed'),
    'prediction and control': ('predicted', 'control'),
    'truth and control': ('control', 'observed'),
  }[other]
  number = at.problem.num_conditions
  out = {k: np.full(number, np.nan) for k in (*_ENERGY, 'self', 'spread')}
  for condition in range(number):
    sets = [_set(at, side, condition, genes) for side in pair]
    (_, x, x_mask), (_, y, y_mask) = sets
    found = cell_sets.between(x, x_mask, y, y_mask, names=_ENERGY)
    for name, value in found.items():
      out[name][condition] = value
    out['self'][condition] = sum(float(_distinct(v, m)) for _, v, m in sets)
    control, *_ = _set(at, 'control', condition, genes)
    out['spread'][condition] = control.var(0).sum()
  return out


@jax.jit
def _distinct(values, mask) -> jax.Array:
  """Averages the distances of two different cells of a set, over their number.

  Args:
    values: [rows, features].
    mask: bool [rows], which are cells.
  """
  cells = energy.cells(values, mask, values.dtype)
  cells = energy.shifted(cells, energy.mean(cells))
  mean = energy.pair_mean(cells, None, energy.root, unbiased=True)
  return mean / cells.count


def _kept(context, facets, other):
  key = ('energies', facets['space'], facets['genes'], other)
  return context.keep(key, lambda: _energies(context, facets, other))


def _value(found, facets) -> np.ndarray:
  names = {
    ('Euclidean', 'counted'): 'edistance_biased',
    ('Euclidean', 'left out'): 'edistance_unbiased',
    ('squared', 'counted'): 'edistance_squared',
  }
  key = (facets['length'], facets['self_pairs'])
  if key not in names:
    raise replay_lib.Unknown(key)
  value = found[names[key]]
  return value / 2 if facets['factor'] == 'half of it' else value


def distribution(
  context: replay_lib.Context, facets: replay_lib.Facets
) -> np.ndarray:
  """Replays an energy distance, [conditions]."""
  if facets['measure'] != 'energy distance':
    raise replay_lib.Unknown(facets['measure'])
  most = facets['cells'].removeprefix('at most ')
  if most not in ('all', 'None'):
    problem = context.problem('log1p')
    number = problem.num_conditions
    if any(
      s.sizes[:number].max() > int(most)
      for s in (problem.observed, problem.predicted)
    ):
      raise replay_lib.Unknown(facets['cells'])
  value = _value(_kept(context, facets, 'truth'), facets)
  divided = facets['divided'].removeprefix('that of ')
  if divided == 'nothing':
    return value
  found = _kept(context, facets, divided)
  power = 2 if facets['length'] == 'squared' else 1
  return scgen.ratio(value, _value(found, facets), found['spread'], power)


def self_pairs(
  context: replay_lib.Context, facets: replay_lib.Facets
) -> np.ndarray:
  """Returns E|x - x'| / n of both sides together, float64 [conditions].

  The mean is over pairs of different cells.
  """
  found = _kept(context, facets, 'truth')['self']
  return found / 2 if facets['factor'] == 'half of it' else found
