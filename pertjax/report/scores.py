"""Turn the tables of a run into the axes, values and differences it shows."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from pertjax.report import columns, read

CEILING = 'ceiling'
ALL = 'all'
# What is shown first; names that are not here follow in the order of the file.
SPLIT_ORDER = ('test', 'val', 'train')
AGGREGATE_ORDER = ('delta', 'logfc', 'average')
GENES_ORDER = ('all',)
METRIC_ORDER = ('pearson', 'cosine', 'r2', 'rmse', 'mse', 'mae')
RANK = '_rank'  # ends the name of a rank metric; these come last.

_HIGHER = ('higher', 'max', 'maximize', 'maximise', 'up')
_LOWER = ('lower', 'min', 'minimize', 'minimise', 'down')


class Axes(NamedTuple):
  """The names along every axis, in the order of the page.

  Attributes:
    models: names: the run's own model, trained ones, baselines, the ceiling.
    kinds: [models] 'trained', 'baseline' or 'ceiling'.
    primary: index of the model that the run is about, or -1 if there is none.
    splits, groups: names.
    regimes: names; the first is 'all'.
    combos: (aggregate, genes, metric) that occur.
    directions: {metric: 'higher' or 'lower'}, of the better value.
    bests: {metric: its best value}.
  """

  models: tuple[str, ...]
  kinds: tuple[str, ...]
  primary: int
  splits: tuple[str, ...]
  regimes: tuple[str, ...]
  combos: tuple[tuple[str, str, str], ...]
  directions: dict[str, str]
  bests: dict[str, float]

  @property
  def baselines(self) -> list[int]:
    """Models that the primary one has to beat."""
    return [i for i, kind in enumerate(self.kinds) if kind == 'baseline']


class Grid(NamedTuple):
  """All values of one split, dense; NaN where undefined or absent.

  Attributes:
    conditions, groups, regimes: [pairs] names.
    cells: [pairs] number of observed cells, NaN where unknown.
    runs: [runs] (model, member), member -1 for closed forms.
    values: [models, combos, pairs], mean over members; NaN where any of them
      is undefined, so that all members are judged by the same pairs.
    members: [runs, combos, pairs], NaN where `values` is.
  """

  conditions: tuple[str, ...]
  groups: tuple[str, ...]
  regimes: tuple[str, ...]
  cells: np.ndarray
  runs: tuple[tuple[int, int], ...]
  values: np.ndarray
  members: np.ndarray

  def in_regime(self, regime: str) -> np.ndarray:
    """Returns a bool [pairs] mask; 'all' is every pair."""
    return np.array([regime in (ALL, name) for name in self.regimes], bool)


def make_axes(run: read.Run) -> Axes:
  """Collects the names along every axis of a run's tables.

  Raises:
    ValueError: a direction in eval/summary.csv is not known, or a metric has
      two of them.
  """
  tables = [table for table in (run.summary, run.metrics) if table]
  found = _names(tables, 'model')
  if run.profiles:
    found += [name for name in run.profiles.models if name not in found]
  primary = _own_model(run, found)
  kinds = {name: _kind(run, name, primary) for name in found}
  rank = ('trained', 'baseline', CEILING)
  models = sorted(
    kinds, key=lambda name: (name != primary, rank.index(kinds[name]), name)
  )
  regimes = [name for name in _names(tables, 'regime') if name != ALL]
  found_combos = {combo for table in tables for combo in combos(table)[0]}
  orders = (
    _ordered(_names(tables, 'aggregate'), AGGREGATE_ORDER),
    _ordered(_names(tables, 'genes'), GENES_ORDER),
    sorted(
      _ordered(
        _names(tables, 'metric'),
        METRIC_ORDER + tuple(name + RANK for name in METRIC_ORDER),
      ),
      key=lambda name: name.endswith(RANK),
    ),
  )
  directions, bests = _directions(run.summary) if run.summary else ({}, {})
  return Axes(
    models=tuple(models),
    kinds=tuple(kinds[name] for name in models),
    primary=models.index(primary) if primary in models else -1,
    splits=tuple(_ordered(_names(tables, 'split'), SPLIT_ORDER)),
    regimes=(ALL, *sorted(regimes)),
    combos=tuple(
      sorted(
        found_combos,
        key=lambda c: tuple(order.index(x) for order, x in zip(orders, c)),
      )
    ),
    directions=directions,
    bests=bests,
  )


def make_scores(summary: columns.Table, axes: Axes) -> dict[str, np.ndarray]:
  """Spreads eval/summary.csv over dense arrays, NaN where there is no row.

  Returns:
    {column: float64 [splits, regimes, models, combos]} for the number columns.

  Raises:
    ValueError: two rows have the same place, or a regime is not in `axes`.
  """
  index = []
  for column, names in (
    ('split', axes.splits),
    ('regime', axes.regimes),
    ('model', axes.models),
  ):
    own, codes = summary.text[column]
    index.append(np.array([names.index(name) for name in own], int)[codes])
  names, codes = combos(summary)
  index.append(np.array([axes.combos.index(c) for c in names], int)[codes])
  shape = tuple(map(len, (axes.splits, axes.regimes, axes.models, axes.combos)))
  flat = np.ravel_multi_index(index, shape)
  if len(np.unique(flat)) != len(flat):
    place = np.unravel_index(np.flatnonzero(np.bincount(flat) > 1)[0], shape)
    s, r, m, c = map(int, place)
    raise ValueError(
      f'eval/summary.csv: two rows for model {axes.models[m]!r}, split '
      f'{axes.splits[s]!r}, regime {axes.regimes[r]!r}, '
      f'{"/".join(axes.combos[c])}'
    )
  scores = {}
  for column in (
    'mean',
    'low',
    'high',
    'seeds',
    'seed_sd',
    'conditions',
    'dropped',
  ):
    dense = np.full(shape, np.nan)
    dense.reshape(-1)[flat] = summary.numbers[column]
    scores[column] = dense
  return scores


def make_grid(table: columns.Table, axes: Axes, split: str) -> Grid:
  """Spreads the rows of one split over runs, combos and pairs.

  Raises:
    ValueError: two rows give the same model, seed, combination and condition.
  """
  names, codes = table.text['split']
  rows = codes == names.index(split) if split in names else codes < 0
  keys = ('condition', 'covariate', 'regime')
  labels = [np.array(table.text[k][0])[table.text[k][1][rows]] for k in keys]
  pairs, pair = _unique_rows(labels)

  model_names, model_codes = table.text['model']
  places = np.array([axes.models.index(name) for name in model_names])
  runs, run = _unique_rows(
    [places[model_codes[rows]], table.numbers['seed'][rows].astype(int)]
  )
  combo_names, combo_codes = combos(table)
  places = np.array([axes.combos.index(combo) for combo in combo_names])
  combo = places[combo_codes[rows]]

  shape = (len(runs), len(axes.combos), len(pairs))
  flat = np.ravel_multi_index((run, combo, pair), shape)
  if len(np.unique(flat)) != len(flat):
    first = int(np.flatnonzero(np.bincount(flat) > 1)[0])
    r, c, p = np.unravel_index(first, shape)
    raise ValueError(
      'eval/metrics.csv: two rows for model '
      f'{axes.models[runs[r][0]]!r}, seed {runs[r][1]}, split {split!r}, '
      f'{"/".join(axes.combos[c])}, {pairs[p]}'
    )
  members = np.full(shape, np.nan)
  values = table.numbers['value'][rows]
  members.reshape(-1)[flat] = np.where(np.isfinite(values), values, np.nan)
  cells = np.full(len(pairs), np.nan)
  cells[pair] = table.numbers['cells'][rows]
  model_of = np.array([model for model, _ in runs], int)
  averaged = np.full((len(axes.models), *shape[1:]), np.nan)
  for model in set(model_of.tolist()):
    averaged[model] = members[model_of == model].mean(0)
  return Grid(
    conditions=tuple(condition for condition, _, _ in pairs),
    groups=tuple(group for _, group, _ in pairs),
    regimes=tuple(regime for _, _, regime in pairs),
    cells=cells,
    runs=tuple(runs),
    values=averaged,
    members=np.where(np.isfinite(averaged[model_of]), members, np.nan),
  )


def mean(values: np.ndarray, axis: int) -> np.ndarray:
  """Returns the mean of the finite values along an axis, NaN without any."""
  finite = np.isfinite(values)
  count = finite.sum(axis)
  total = np.where(finite, values, 0).sum(axis)
  return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def best_of(
  scores: np.ndarray, candidates: list[int], direction: str | None
) -> int:
  """Returns the candidate with the best score, or -1 if none has one.

  Args:
    scores: [models], NaN where undefined.
    candidates: models to choose from; the first wins a tie.
    direction: 'higher' or 'lower'; None chooses nothing.
  """
  known = [i for i in candidates if np.isfinite(scores[i])]
  if not known or direction is None:
    return -1
  sign = 1 if direction == 'higher' else -1
  return max(known, key=lambda i: sign * scores[i])


def section(config: Mapping[str, Any] | None, name: str) -> dict[str, Any]:
  """Returns a section of a configuration, empty where there is none."""
  found = (config or {}).get(name)
  return found if isinstance(found, dict) else {}


def _own_model(run: read.Run, names: list[str]) -> str | None:
  """Returns the name under which the run's own model is in the tables."""
  model, options = section(run.config, 'model'), section(run.config, 'eval')
  if options.get('predictions'):
    # The run scores the file of another tool.
    file = pathlib.PurePath(str(options['predictions']))
    wanted = [options.get('predictions_name') or file.stem]
  elif model.get('name') == 'baselines':
    wanted = [model.get('kind')]
  else:
    name = str(model.get('name'))
    wanted = [name, name.split('.')[-1]]
  return next((name for name in wanted if name in names), None)


def _kind(run: read.Run, name: str, primary: str | None) -> str:
  if name == CEILING:
    return CEILING
  if run.metrics:
    names, codes = run.metrics.text['model']
    if name in names:
      seeds = run.metrics.numbers['seed'][codes == names.index(name)]
      closed = (seeds == -1).all() and name != primary
      return 'baseline' if closed else 'trained'
  # Without single values nothing tells which models were trained, other than
  # that this run trains its own.
  return 'trained' if name == primary else 'baseline'


def _names(tables: list[columns.Table], column: str) -> list[str]:
  return list(dict.fromkeys(n for t in tables for n in t.text[column][0]))


def _ordered(names: list[str], first: tuple[str, ...]) -> list[str]:
  return [n for n in first if n in names] + [n for n in names if n not in first]


def combos(table: columns.Table) -> tuple[list[tuple[str, ...]], np.ndarray]:
  """Returns the (aggregate, genes, metric) that occur, and [rows] codes."""
  parts = [table.text[key] for key in ('aggregate', 'genes', 'metric')]
  shape = tuple(max(len(names), 1) for names, _ in parts)
  flat = np.ravel_multi_index([codes for _, codes in parts], shape)
  unique, codes = np.unique(flat, return_inverse=True)
  places = np.unravel_index(unique, shape)
  names = [
    tuple(parts[axis][0][place] for axis, place in enumerate(combo))
    for combo in zip(*places)
  ]
  return names, codes


def _unique_rows(arrays: list[np.ndarray]) -> tuple[list[tuple], np.ndarray]:
  """Returns the distinct rows of some arrays, sorted, and [rows] codes."""
  parts = [np.unique(column, return_inverse=True) for column in arrays]
  shape = tuple(max(len(names), 1) for names, _ in parts)
  flat = np.ravel_multi_index([codes for _, codes in parts], shape)
  unique, codes = np.unique(flat, return_inverse=True)
  places = np.unravel_index(unique, shape)
  rows = [
    tuple(parts[axis][0][place].item() for axis, place in enumerate(row))
    for row in zip(*places)
  ]
  return rows, codes


def _directions(
  summary: columns.Table,
) -> tuple[dict[str, str], dict[str, float]]:
  metrics, metric_codes = summary.text['metric']
  texts, text_codes = summary.text['direction']
  directions, bests = {}, {}
  for m, d in sorted(set(zip(metric_codes.tolist(), text_codes.tolist()))):
    word = texts[d].strip().lower()
    if word not in _HIGHER + _LOWER:
      raise ValueError(
        f'eval/summary.csv: direction {texts[d]!r} of {metrics[m]!r} is not '
        f'known, expected one of {", ".join(_HIGHER + _LOWER)}'
      )
    direction = 'higher' if word in _HIGHER else 'lower'
    if directions.setdefault(metrics[m], direction) != direction:
      raise ValueError(
        f'eval/summary.csv: metric {metrics[m]!r} has two directions'
      )
  best = summary.numbers['best']
  for m, name in enumerate(metrics):
    known = best[metric_codes == m]
    known = known[np.isfinite(known)]
    if len(known):
      bests[name] = float(known[0])
  return directions, bests
