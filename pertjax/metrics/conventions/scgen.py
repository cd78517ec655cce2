"""R² of means and variances, common DEGs and ratios of distances.

How scGen, scVIDR and the benchmark of cell-type transfer built on them score.
What was wrong in that benchmark is kept behind options: `swapped` columns,
`rounding` of r before it is squared, and a PCA `basis` that the prediction
takes part in. Distances are given as published, over the distance of the
prediction from control, and over that of the truth from control
(`*_to_effect`), which is 1 for a prediction of no change.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from pertjax.metrics import aggregates, pseudobulk, registry, sides, tested
from pertjax.metrics import problem as problem_lib
from pertjax.metrics.conventions import base, cell_sets, scgen_fields

BASES = ('real', 'joint')
ROUNDINGS = ('none', 'original')
RANKINGS = ('signed', 'absolute')


# ----------------------------------------------------------------------------
# Genes.


def ranking(statistic: np.ndarray, *, by: str = 'signed') -> np.ndarray:
  """Orders genes by a test, the strongest first, int [conditions, genes].

  Args:
    statistic: [conditions, genes]; NaN comes last, ties in the order of genes.
    by: 'signed' puts the most increased genes first and the most decreased
      ones last, as the benchmark does; 'absolute' goes by size.
  """
  registry.check_choice('ranking', by, RANKINGS)
  statistic = np.asarray(statistic, np.float64)
  strength = np.abs(statistic) if by == 'absolute' else statistic
  return np.argsort(-strength, axis=1, kind='stable')


def common(first: np.ndarray, second: np.ndarray, k: int) -> np.ndarray:
  """Counts the genes that are in the first k of both, float64 [conditions].

  Args:
    first: int [conditions, genes], as of `ranking`.
    second: the same shape.
    k: how many; all genes where there are fewer.
  """
  place = np.argsort(second, axis=1)
  found = np.take_along_axis(place, first[:, :k], axis=1)
  return (found < min(k, first.shape[1])).sum(1).astype(np.float64)


def squared_correlation(
  predicted: np.ndarray,
  observed: np.ndarray,
  genes: np.ndarray | None = None,
  *,
  rounding: str = 'none',
) -> np.ndarray:
  """Returns r² over genes, r Pearson's, float64 [...].

  Args:
    predicted: [..., genes].
    observed: the same shape.
    genes: int [..., k] which of them; None for all.
    rounding: 'original' is round(round(r, 3)², 3).
  """
  registry.check_choice('rounding', rounding, ROUNDINGS)
  if genes is not None:
    genes = np.broadcast_to(genes, (*predicted.shape[:-1], genes.shape[-1]))
    predicted, observed = (
      np.take_along_axis(x, genes, axis=-1) for x in (predicted, observed)
    )
  r = np.asarray(pseudobulk.pearson(predicted, observed), np.float64)
  if rounding == 'original':
    return np.round(np.square(np.round(r, 3)), 3)
  return np.square(r)


class GeneTable(NamedTuple):
  """One side's genes; every field is float64 [conditions, genes].

  Attributes:
    mean: of all cells.
    fraction: of cells above 0.
    expressed: mean of the cells above 0; NaN where there is none.
    rank: from 0, in the t-test's list against the observed control.
  """

  mean: np.ndarray
  fraction: np.ndarray
  expressed: np.ndarray
  rank: np.ndarray


def gene_table(problem: problem_lib.Problem, side: str) -> GeneTable:
  """Returns the benchmark's table of one side, 'observed' or 'predicted'."""
  order = ranking(_welch(problem, side))
  mean, fraction, expressed = _expression(problem, side)
  rank = np.argsort(order, axis=1).astype(np.float64)
  return GeneTable(mean, fraction, expressed, rank)


def _expression(problem, side):
  cells = getattr(problem, side)
  number = problem.num_conditions
  above = sides.total(cells, lambda x: (x > 0).astype(np.float64))[:number]
  summed = sides.total(cells, lambda x: np.maximum(x, 0))[:number]
  size = cells.sizes[:number, None]
  with np.errstate(invalid='ignore', divide='ignore'):
    return problem.means(side), above / size, summed / above


def _welch(problem, side) -> np.ndarray:
  settings = tested.Settings(method='welch', control='real')
  return np.asarray(tested.de(problem, side, settings).statistic)


def _mann_whitney(problem) -> np.ndarray:
  # Without a correction for ties z is increasing in U: the order is the same.
  settings = tested.Settings(
    method='wilcoxon', tie_correct=False, continuity=False, control='real'
  )
  found = tested.de(problem, 'observed', settings)
  sizes = problem.observed.sizes
  own = sizes[: problem.num_conditions, None]
  pairs = own * sizes[problem.control_labels][:, None]
  return np.asarray(found.statistic) - pairs / 2


def _table_errors(problem, lists) -> dict[str, np.ndarray]:
  """Differences of the gene tables; NaN where no gene has a value."""
  _, fraction, expressed = _expression(problem, 'observed')
  _, fraction_p, expressed_p = _expression(problem, 'predicted')
  relative = np.abs(expressed - expressed_p) / expressed
  out = {
    'average_mean_expressed_diff': _known_mean(relative),
    'average_fractions_diff': np.abs(fraction - fraction_p).mean(1),
  }
  for k in scgen_fields.SIZES if lists is not None else ():
    some = np.take_along_axis(relative, lists[:, :k], axis=1)
    out[f'average_mean_degs{k}_diff'] = _known_mean(some)
  return out


def _known_mean(values: np.ndarray) -> np.ndarray:
  known = ~np.isnan(values)
  total = np.where(known, values, 0).sum(1)
  with np.errstate(invalid='ignore'):
    return total / known.sum(1)


# ----------------------------------------------------------------------------
# Bootstrap.


def subsample(
  number: int, *, repeats: int, fraction: float, replacement: bool
) -> np.ndarray:
  """Draws cells, the i-th time with seed i, int [repeats, cells].

  Args:
    number: of cells to draw from.
    repeats: draws.
    fraction: of the cells that are drawn, rounded down.
    replacement: a cell may be drawn twice.
  """
  size = int(fraction * number)
  return np.stack(
    [
      np.random.RandomState(i).choice(number, size, replace=replacement)
      for i in range(repeats)
    ]
  )


def resampled_moments(
  cells: np.ndarray, drawn: np.ndarray, *, variances: bool = True
) -> tuple[np.ndarray, ...]:
  """Returns means and population variances of draws, [repeats, genes] each.

  Args:
    cells: [cells, genes].
    drawn: int [repeats, drawn], cells.
    variances: False leaves the second out.
  """
  repeats, size = drawn.shape
  shape = repeats, len(cells)
  if not size:
    nothing = np.full((repeats, cells.shape[1]), np.nan)
    return (nothing,) * (1 + variances)
  row = np.arange(repeats)[:, None]
  flat = (row * shape[1] + drawn).ravel()
  weight = np.bincount(flat, minlength=shape[0] * shape[1]).reshape(shape)
  weight = weight / size
  # Around the mean of all cells, where squares cancel least.
  centre = cells.mean(0, dtype=np.float64)
  around = cells - centre
  shift = weight @ around
  if not variances:
    return (centre + shift,)
  variance = weight @ np.square(around) - np.square(shift)
  least = 1e-14 * np.square(around).max(0)
  return centre + shift, np.where(variance <= least, 0, variance)


def _bootstrap(problem, names, options) -> dict[str, np.ndarray]:
  lists = None
  if any(scgen_fields.BOOTSTRAPPED[name][1] is not None for name in names):
    lists = ranking(_mann_whitney(problem), by=options['ranking'])
  out = {name: np.full(problem.num_conditions, np.nan) for name in names}
  draw = {
    'repeats': options['repeats'],
    'fraction': options['fraction'],
    'replacement': options['replacement'],
  }
  variances = any(scgen_fields.BOOTSTRAPPED[name][0] for name in names)
  draws: dict[int, np.ndarray] = {}  # The same for sets of one size.
  for condition in range(problem.num_conditions):
    moments = []
    for side in (problem.predicted, problem.observed):
      cells = sides.dense(side.cells([condition])[0]).astype(np.float64)
      if len(cells) not in draws:
        draws[len(cells)] = subsample(len(cells), **draw)
      drawn = draws[len(cells)]
      moments.append(resampled_moments(cells, drawn, variances=variances))
    for name in names:
      kind, genes = scgen_fields.BOOTSTRAPPED[name]
      chosen = None if genes is None else lists[condition, :genes]
      pair = (m[kind] for m in moments)
      out[name][condition] = squared_correlation(*pair, chosen).mean()
  return out


def _plain(problem, names, lists, options) -> dict[str, np.ndarray]:
  moments = [
    (
      side.mean[: problem.num_conditions],
      side.variance[: problem.num_conditions],
    )
    for side in (problem.predicted, problem.observed)
  ]
  out = {}
  for name in names:
    kind, genes = scgen_fields.PLAIN[name]
    if options['swapped'] and kind == 0:  # Variances were never recorded.
      genes = {20: 100, 100: 20}.get(genes)
    chosen = None if genes is None else lists[:, :genes]
    out[name] = squared_correlation(
      *(m[kind] for m in moments), chosen, rounding=options['rounding']
    )
  return out


# ----------------------------------------------------------------------------
# Distances.


def joint_components(cells: np.ndarray, number: int) -> aggregates.Components:
  """Fits principal components to cells, centred and not scaled.

  Args:
    cells: [cells, genes].
    number: of components; fewer where there are fewer genes, or cells less one.
  """
  centre = cells.mean(0, dtype=np.float64)
  around = cells - centre
  number = min(number, cells.shape[1], max(1, len(cells) - 1))
  if len(cells) >= cells.shape[1]:
    _, vector = np.linalg.eigh(around.T @ around)
    return aggregates.Components(centre, vector[:, ::-1][:, :number])
  value, vector = np.linalg.eigh(around @ around.T)
  value, vector = value[::-1][:number], vector[:, ::-1][:, :number]
  loading = around.T @ vector
  # Directions without spread are no directions; every cell is at 0 there.
  length = np.sqrt(np.maximum(value, 0))
  kept = length > 1e-7 * max(length[0], 1e-300)
  loading = np.where(kept, loading / np.where(kept, length, 1), 0)
  return aggregates.Components(centre, loading)


def _real_components(problem, number: int) -> aggregates.Components:
  observed = problem.observed
  if observed.sizes.sum() >= observed.num_genes:
    return aggregates.components(observed, number)
  cells, _ = observed.cells(range(observed.num_labels))
  return joint_components(sides.dense(cells), number)


def ratio(
  above: np.ndarray, below: np.ndarray, spread: np.ndarray, power: int
) -> np.ndarray:
  """Divides distances; NaN where the second is 0, but for rounding.

  Args:
    above: [...].
    below: [...].
    spread: [...] mean squared distance of the control's cells from their mean.
    power: 1 where the distances are lengths, 2 where they are squares of them.
  """
  least = (1e-6 * np.sqrt(spread)) ** power
  known = below > least
  return np.where(known, above / np.where(known, below, 1), np.nan)


def _ratios(problem, names, options) -> dict[str, np.ndarray]:
  number = problem.num_conditions
  out = {name: np.full(number, np.nan) for name in names}
  plain = {name.removesuffix(scgen_fields.EFFECT) for name in names}
  wanted = tuple(
    scgen_fields.DISTANCES[name][0]
    for name in scgen_fields.DISTANCES
    if name in plain
  )
  settings = cell_sets.Settings(unit=options['unit'])
  real = None
  if options['basis'] == 'real':
    real = _real_components(problem, options['components'])
  at = cell_sets.View(problem)
  for condition in range(number):
    sets = [
      np.asarray(cell_sets.cells(at, side, condition), np.float64)
      for side in ('observed', 'predicted', 'control')
    ]
    onto = real
    if onto is None:
      onto = joint_components(np.concatenate(sets), options['components'])
    sets = [aggregates.project(s, onto) for s in sets]
    spread = sets[2].var(0).sum()
    truth, guess, control = (
      cell_sets.padded(s, options['precision']) for s in sets
    )
    found = [
      cell_sets.between(*a, *b, names=wanted, settings=settings)
      for a, b in ((guess, truth), (guess, control), (control, truth))
    ]
    for name in names:
      key, power = scgen_fields.DISTANCES[
        name.removesuffix(scgen_fields.EFFECT)
      ]
      error, moved, effect = (float(f[key]) for f in found)
      below = effect if name.endswith(scgen_fields.EFFECT) else moved
      out[name][condition] = ratio(error, below, spread, power)
  return out


# ----------------------------------------------------------------------------
# The convention.


def _compute(
  problem: problem_lib.Problem,
  wanted: Sequence[str],
  options: Mapping[str, Any],
) -> dict[str, np.ndarray]:
  for key, allowed in (
    ('basis', BASES),
    ('rounding', ROUNDINGS),
    ('ranking', RANKINGS),
    ('precision', cell_sets.PRECISIONS),
    ('unit', cell_sets.UNITS),
  ):
    registry.check_choice(key, options[key], allowed)
  if options['repeats'] < 1 or not 0 < options['fraction'] <= 1:
    raise ValueError(
      f'repeats is {options["repeats"]} and fraction {options["fraction"]}; '
      'allowed: repeats >= 1, 0 < fraction <= 1'
    )
  out: dict[str, np.ndarray] = {}
  plain = [name for name in wanted if name in scgen_fields.PLAIN]
  tables = [name for name in wanted if name.startswith('average_')]
  shared = [name for name in wanted if name.startswith('DEGs')]
  lists = None
  if shared or any('top' in n or 'degs' in n for n in (*plain, *tables)):
    score = _welch(problem, 'observed')
    lists = ranking(score, by=options['ranking'])
  if shared:
    other = _welch(problem, 'predicted')
    for name in shared:
      by = 'absolute' if name == 'DEGs_absolute' else 'signed'
      pair = (ranking(x, by=by) for x in (score, other))
      out[name] = common(*pair, 100)
  if plain:
    out |= _plain(problem, plain, lists, options)
  if tables:
    out |= _table_errors(problem, lists)
  bootstrap = [name for name in wanted if name in scgen_fields.BOOTSTRAPPED]
  if bootstrap:
    out |= _bootstrap(problem, bootstrap, options)
  ratios = [
    n
    for n in wanted
    if n.removesuffix(scgen_fields.EFFECT) in scgen_fields.DISTANCES
  ]
  if ratios:
    out |= _ratios(problem, ratios, options)
  return out


CONVENTIONS = (
  base.Convention(
    name='scgen',
    title='scGen, scVIDR and cell-type transfer',
    reference='Lotfollahi et al. 2019, doi:10.1038/s41592-019-0494-8; Kana et '
    'al. 2023, doi:10.1016/j.patter.2023.100817',
    scale='log1p',
    control='real',
    columns=scgen_fields.COLUMNS,
    compute=_compute,
    options={
      'ranking': 'signed',  # of the lists of genes; or 'absolute'.
      'rounding': 'none',  # 'original': round(round(r, 3)², 3), plain R².
      'swapped': False,  # True: top20 and top100 of the plain R² of means.
      'basis': 'real',  # 'joint': the prediction takes part in the PCA.
      'components': 50,
      'unit': 'mean',  # of the transport's entropy, see `distances`.
      'precision': 'float64',
      'repeats': 100,
      'fraction': 0.8,
      'replacement': False,  # scVIDR's paper: 500 repeats with replacement.
    },
    aliases=('scvidr',),
  ),
)
