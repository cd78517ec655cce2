"""Models against one another, condition by condition, from `score`'s table.

`metrics.comparison` has the tests and says what they claim.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from pertjax import names as name_lib
from pertjax.metrics import comparison, summary
from pertjax.metrics.conventions import base

FIELDS = (
  'convention', 'metric', 'version', 'direction', 'model', 'against',
  'difference', 'low', 'high', 'p', 'p_adjusted', 'won', 'effect',
  'rank_biserial', 'detectable', 'conditions', 'left_out', 'infinite', 'units',
  'verdict',
)  # fmt: skip


def read_scores(path: str | os.PathLike[str]) -> pd.DataFrame:
  """Reads the table of `score` from a CSV file.

  Raises:
    FileNotFoundError: where there is no such file.
    ValueError: where it is no table.
  """
  path = pathlib.Path(path)
  if not path.is_file():
    near = [file.name for file in path.parent.glob('*.csv')]
    raise FileNotFoundError(
      f'{path}: no such file; {name_lib.suggestion(path.name, near)}'
    )
  text = dict.fromkeys(('model', 'covariate', 'condition', 'reason'), str)
  try:
    # Names such as NA and NULL are names.
    table = pd.read_csv(path, dtype=text, keep_default_na=False, na_values={
      key: [''] for key in ('value', 'low', 'high')})  # fmt: skip
  except ValueError as error:
    raise ValueError(f'{path}: cannot be read as a table ({error})') from error
  return table


def compare(
  table: pd.DataFrame,
  *,
  reference: str | None = None,
  metrics: Sequence[str] | None = None,
  test: str = 'permutation',
  num: int = 10_000,
  seed: int = 0,
  level: float = 0.95,
  power: float = 0.8,
) -> pd.DataFrame:
  """Compares models condition by condition, metric by metric.

  See `metrics.comparison.compare`: p is adjusted over the pairs of models of
  one metric (Holm). Conditions of one name, in several covariate groups, are
  one unit. Who looks at several metrics and tells of the best has made more
  tests than that.

  Args:
    table: as `score` returns it for several models, or as it was saved.
    reference: the model that the others are compared with; None for all pairs.
    metrics: names of columns; None for all.
    test: 'permutation' or 'wilcoxon'.
    num: sign flips.
    seed: of sign flips and bootstrap.
    level: of the interval; 1 - level is a family's chance of a false claim.
    power: of 'detectable'.

  Returns:
    A table with the columns FIELDS, a row for each metric and pair; a positive
    'difference' says that 'model' is better than 'against'. 'left_out' counts
    conditions without a value of both, and 'infinite' the values among them
    that are infinite. What a reader should know is in `attrs['notes']`.

  Raises:
    ValueError: for a table that is not one of `score` with at least two models,
      and for unknown names.
  """
  models, each, whole = _checked(table, metrics, reference)
  options = {
    'reference': reference, 'test': test, 'num': num, 'seed': seed,
    'level': level, 'power': power,
  }  # fmt: skip
  rows, bare = [], []
  said: dict[str, list[str]] = {}
  for (name, metric), part in each.groupby(
    ['convention', 'metric'], sort=False
  ):
    column = base.get(name).column(metric)
    if column.direction == 'none':
      bare.append(metric)
      continue
    found, lines = _compared(column, part, models, options)
    rows += [{'convention': name, **row} for row in found]
    for line in lines:
      said.setdefault(line, []).append(metric)
  compared = len({(row['convention'], row['metric']) for row in rows})
  notes = [
    line if len(names) == compared else (
      f'{line} ({name_lib.listing(names, quoted=False)})')
    for line, names in said.items()
  ]  # fmt: skip
  panels = sorted(whole - set(each['metric']))
  for text, names in (
    ('have no better direction', bare),
    ('have one value for all conditions', panels),
  ):
    if names:
      notes.append(
        f'{len(names)} metric(s) {text} and are not compared: '
        f'{name_lib.listing(names)}'
      )
  out = pd.DataFrame(rows, columns=list(FIELDS))
  out.attrs['notes'] = notes
  return out


def _checked(
  table: pd.DataFrame, metrics: Sequence[str] | None, reference: str | None
) -> tuple[list[str], pd.DataFrame, set[str]]:
  """Returns models, the lines of single conditions and all metrics."""
  lacking = {'model', *summary.FIELDS} - set(table.columns)
  if lacking:
    raise ValueError(
      f'the table lacks the column(s) {name_lib.listing(sorted(lacking))}; '
      'expected what score returns for several models, predicted={name: cells}'
    )
  models = list(dict.fromkeys(table['model'].astype(str)))
  if len(models) < 2:
    raise ValueError(
      f'the table has the model(s) {name_lib.listing(models) or "none"}; a '
      'comparison needs two'
    )
  if reference is not None and reference not in models:
    raise ValueError(name_lib.unknown('reference', reference, models))
  whole = set(table['metric'])
  for name in metrics or ():
    if name not in whole:
      raise ValueError(name_lib.unknown('metrics', name, sorted(whole)))
  if metrics is not None:
    whole = set(metrics)
  each = table[
    (table['level'] == summary.CONDITION) & table['metric'].isin(whole)
  ]
  # As CSV readers leave them.
  each = each.assign(
    model=each['model'].astype(str),
    covariate=each['covariate'].fillna('').astype(str),
    condition=each['condition'].astype(str),
  )
  keys = ['convention', 'metric', 'model', 'covariate', 'condition']
  again = each[each.duplicated(keys)]
  if len(again):
    first = again.iloc[0]
    raise ValueError(
      f'the table has two values of {first["metric"]!r} for the model '
      f'{first["model"]!r} in {first["condition"]!r}'
    )
  return models, each, whole


def _compared(
  column: base.Column,
  part: pd.DataFrame,
  models: Sequence[str],
  options: Mapping[str, Any],
) -> tuple[list[dict[str, Any]], tuple[str, ...]]:
  """Returns the rows of one metric, and notes."""
  wide = part.pivot(
    index=['covariate', 'condition'], columns='model', values='value'
  ).reindex(columns=list(models))
  values = wide.to_numpy(np.float64).T
  endless = np.isinf(values)
  found = comparison.compare(
    np.where(endless, np.nan, values),
    names=models,
    direction=column.direction,
    conditions=wide.index.get_level_values('condition').tolist(),
    **options,
  )
  infinite = dict(zip(models, endless.sum(1)))
  rows = []
  for at, (model, against) in enumerate(zip(found.models, found.against)):
    row = {
      'metric': column.name,
      'version': column.version,
      'direction': column.direction,
      'model': model,
      'against': against,
      'infinite': int(infinite[model] + infinite[against]),
      'verdict': found.verdicts[at],
    }
    for name in FIELDS:
      if name not in row and name != 'convention':
        row[name] = getattr(found, name)[at].item()
    rows.append(row)
  return rows, found.notes
