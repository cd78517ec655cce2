"""Tables of scores: tidy values, summaries with intervals, the console."""

from __future__ import annotations

import csv
import io
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from pertjax import metrics, types, writers
from pertjax.targets import Targets

METRIC_COLUMNS = (
  'model', 'seed', 'split', 'regime', 'covariate', 'condition', 'aggregate',
  'genes', 'metric', 'value', 'cells',
)  # fmt: skip
SUMMARY_COLUMNS = (
  'model', 'split', 'regime', 'aggregate', 'genes', 'metric', 'mean', 'low',
  'high', 'seeds', 'seed_sd', 'conditions', 'dropped', 'direction', 'best',
)  # fmt: skip
ALL = 'all'


def _number(value: float) -> str:
  """Formats a value so that it is read back as it was in float32."""
  return '' if np.isnan(value) else f'{value:.9g}'


def write_metrics(
  path: pathlib.Path,
  config,
  spec: types.DataSpec,
  truth: Targets,
  scored: Sequence[Any],
) -> None:
  """Writes eval/metrics.csv: a line for each model, seed, pair and metric."""
  buffer = io.StringIO()
  writer = csv.writer(buffer, lineterminator='\n')
  writer.writerow(METRIC_COLUMNS)
  pairs = [
    (
      truth.regime[p],
      spec.group_name(int(truth.group[p])),
      spec.conditions.names[int(truth.condition[p])],
      int(truth.cells[p]),
    )
    for p in range(len(truth.condition))
  ]
  split = config.eval.split
  for model in scored:
    for (aggregate, genes, metric), values in model.values.items():
      for member, row in zip(model.members, values):
        for (regime, group, condition, cells), value in zip(pairs, row):
          writer.writerow(
            (
              model.name, member, split, regime, group, condition, aggregate,
              genes, metric, _number(value), cells,
            )
          )  # fmt: skip
  writers.write_text(path, buffer.getvalue())


def summarise(
  config, truth: Targets, scored: Sequence[Any]
) -> list[dict[str, Any]]:
  """Returns a row for each model, regime and metric, with its interval.

  The mean is over pairs, of the mean over seeds; the interval is a bootstrap
  over pairs, and over seeds too where there are several: their luck is shared
  by all pairs. A pair whose value is not defined is counted in 'dropped'.
  """
  regime = np.asarray(truth.regime)
  regimes = sorted(set(truth.regime))
  rows = []
  for model in scored:
    keys = list(model.values)
    stacked = np.stack([model.values[k] for k in keys])
    for name in (ALL, *regimes):
      chosen = np.ones(len(regime), bool) if name == ALL else regime == name
      values = stacked[:, :, chosen]
      with np.errstate(invalid='ignore'):
        averaged = values.mean(1)
      interval = _interval(config, values, averaged)
      for k, (aggregate, genes, metric) in enumerate(keys):
        defined = ~np.isnan(averaged[k])
        seeds = values[k][:, defined].mean(1) if defined.any() else None
        entry = metrics.get(metric)
        rows.append(
          {
            'model': model.name,
            'split': config.eval.split,
            'regime': name,
            'aggregate': aggregate,
            'genes': genes,
            'metric': metric,
            'mean': averaged[k][defined].mean() if defined.any() else np.nan,
            'low': float(interval.low[k]),
            'high': float(interval.high[k]),
            'seeds': len(model.members),
            'seed_sd': (
              seeds.std(ddof=1)
              if seeds is not None and len(seeds) > 1
              else np.nan
            ),
            'conditions': int(defined.sum()),
            'dropped': int((~defined).sum()),
            'direction': entry.direction,
            'best': entry.best,
            'closed': model.members == (-1,),
          }
        )
  return rows


def _interval(config, values, averaged) -> metrics.Interval:
  """Returns the interval of every metric of one model.

  Args:
    config: the run's config.
    values: [metrics, members, pairs].
    averaged: [metrics, pairs]; NaN where a member has no value.
  """
  options = {'num': config.eval.bootstrap}
  if values.shape[1] == 1:
    return metrics.bootstrap(averaged, config.eval.seed, **options)
  defined = np.where(np.isnan(averaged)[:, None], np.nan, values)
  return metrics.hierarchical(
    np.swapaxes(defined, 1, 2), config.eval.seed, **options
  )


def write_rows(
  path: pathlib.Path, columns: Sequence[str], rows: Sequence[dict[str, Any]]
) -> None:
  """Writes a table of eval/: the columns named, a line for each row."""
  buffer = io.StringIO()
  writer = csv.writer(buffer, lineterminator='\n')
  writer.writerow(columns)
  for row in rows:
    writer.writerow(
      _number(v) if isinstance(v, (float, np.floating)) else v
      for v in (row[c] for c in columns)
    )
  writers.write_text(path, buffer.getvalue())


def columns(config) -> tuple[tuple[str, str, str], ...]:
  """Returns the columns of the console's table; the first one sorts it.

  Raises:
    ValueError: if config.eval.leaderboard names what no table has.
  """
  first = tuple(config.eval.leaderboard)
  top = f'top{config.eval.top_genes}'
  allowed = (metrics.AGGREGATES, ('all', top), metrics.TABLE_METRICS)
  if len(first) != 3 or any(x not in a for x, a in zip(first, allowed)):
    options = '; '.join(', '.join(a) for a in allowed)
    raise ValueError(
      f'eval.leaderboard is {first}; it must be an aggregate, a gene set and a '
      f'metric out of: {options}'
    )
  others = (
    ('delta', top, 'pearson'),
    ('logfc', 'all', 'cosine'),
    ('logfc', 'all', 'cosine_rank'),
    ('average', 'all', 'rmse'),
  )
  return (first, *(c for c in others if c != first))


def lines(config, rows: Sequence[dict[str, Any]]) -> list[str]:
  """Returns the leaderboard as lines of text, a table for each regime."""
  shown = columns(config)
  regimes = list(dict.fromkeys(r['regime'] for r in rows))
  if len(regimes) == 2:
    # 'all' and the only regime are the same numbers.
    regimes = regimes[1:]
  out = ['']
  for regime in regimes:
    cells = {
      (r['model'], r['aggregate'], r['genes'], r['metric']): r
      for r in rows
      if r['regime'] == regime
    }
    out += [*_table(config, regime, shown, cells), '']
  return out


def _table(config, regime, shown, cells) -> list[str]:
  models, notes = _fold(_ordered(shown[0], cells), cells)
  body = []
  for model in models:
    row = cells[(model, *shown[0])]
    body.append(
      [
        model,
        '-' if row['closed'] else str(row['seeds']),
        _count(row),
        _with_interval(row),
        *(_short(cells[(model, *c)]['mean']) for c in shown[1:]),
      ]
    )
  head = _head(shown, {c: cells[(models[0], *c)]['direction'] for c in shown})
  widths = [max(map(len, column)) for column in zip(*head, *body)]

  def pad(row):
    left = row[0].ljust(widths[0])
    padded = [left, *(t.rjust(w) for t, w in zip(row[1:], widths[1:]))]
    return '  '.join(padded).rstrip()

  rule = '-' * (sum(widths) + 2 * (len(widths) - 1))
  return [
    f'{config.eval.split} split, regime {regime}: mean over n conditions '
    '[95% bootstrap interval]',
    rule,
    *map(pad, head),
    rule,
    *map(pad, body),
    rule,
    *notes,
  ]


def _ordered(key, cells) -> list[str]:
  """Returns the models, best first by one column.

  A mean over fewer conditions than others have is of other conditions, usually
  easier ones: such models come after the complete ones, those without any value
  last.
  """
  models = list(dict.fromkeys(k[0] for k in cells))
  rows = {m: cells[(m, *key)] for m in models}
  sign = -1 if rows[models[0]]['direction'] == 'higher' else 1
  most = max(row['conditions'] for row in rows.values())

  def place(model):
    row = rows[model]
    missing = 0 if row['conditions'] == most else 1 + (row['conditions'] == 0)
    return missing, 0.0 if missing == 2 else sign * row['mean']

  return sorted(models, key=place)


def _fold(models, cells) -> tuple[list[str], list[str]]:
  """Leaves out closed forms that equal an earlier one in every metric."""
  kept, seen, same = [], {}, {}
  for model in models:
    rows = [v for k, v in cells.items() if k[0] == model]
    numbers = tuple(_number(v['mean']) for v in rows)
    if rows[0]['closed'] and numbers in seen:
      same.setdefault(seen[numbers], []).append(model)
      continue
    if rows[0]['closed']:
      seen[numbers] = model
    kept.append(model)
  notes = [
    f'the same as {name} here: {", ".join(others)}'
    for name, others in same.items()
  ]
  if any(v['dropped'] for v in cells.values()):
    notes += [
      'n of a/b: a of b conditions have a value; –: none has',
      'means over fewer conditions stand below; do not compare them',
    ]
  return kept, notes


def _head(shown, directions) -> list[list[str]]:
  """Returns the lines of the header: aggregate, genes, metric."""
  arrow = {'higher': '↑', 'lower': '↓'}
  lines = [
    ['', '', '', *(a for a, _, _ in shown)],
    ['', '', '', *('' if g == 'all' else g for _, g, _ in shown)],
    ['model', 'seeds', 'n', *(f'{c[2]}{arrow[directions[c]]}' for c in shown)],
  ]
  return [line for line in lines if any(line)]


def _count(row) -> str:
  if not row['dropped']:
    return str(row['conditions'])
  return f'{row["conditions"]}/{row["conditions"] + row["dropped"]}'


def _short(value: float) -> str:
  return '–' if np.isnan(value) else f'{value:.3f}'


def _with_interval(row) -> str:
  """Formats a mean with its interval; one condition has none."""
  if np.isnan(row['low']) or np.isnan(row['high']):
    return _short(row['mean'])
  return f'{row["mean"]:.3f} [{row["low"]:.3f}, {row["high"]:.3f}]'
