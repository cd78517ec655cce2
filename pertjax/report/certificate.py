"""Put a run's certificate and red team into rows for the page."""

from __future__ import annotations

from typing import Any

import numpy as np

from pertjax.report import columns, read, scores, verdict

CERTIFICATE = 'eval/certificate.csv'
RED_TEAM = 'eval/red_team.csv'
_DIRECTIONS = ('higher', 'lower', 'none')
_FLAGS = {'True': True, 'False': False, '1': True, '0': False}
# Lines of the red team that stand open; the others are a click away.
_OPEN = 12
_DIGITS = 6  # of numbers that are drawn
# What conventions call a metric of the tables.
_ALIASES = {'r2_score': 'r2'}
# How the verdicts of a certificate start that find nothing to object to.
_SOUND = 'tells a replicate'
_SILENT = ('a diagnostic', 'no value')


def rows(table: columns.Table, axes: scores.Axes) -> list[dict[str, Any]]:
  """Returns a row for each line of eval/certificate.csv, for the script.

  Args:
    table: read with read.CERTIFICATE_TEXT and read.CERTIFICATE_NUMBERS.
    axes: names; a row's 'combo' is its metric in the tables, -1 for none.

  Raises:
    ValueError: a direction is not known.
  """
  text = {key: _texts(table, key) for key in read.CERTIFICATE_TEXT}
  found = []
  for i in range(table.num_rows):
    direction = text['direction'][i]
    if direction not in _DIRECTIONS:
      raise ValueError(
        f'{CERTIFICATE}: row {i + 2}: direction is {direction!r}, expected one '
        f'of {", ".join(_DIRECTIONS)}'
      )
    row: dict[str, Any] = {key: text[key][i] for key in read.CERTIFICATE_TEXT}
    row['combo'] = combo_of(row['metric'], axes)
    row['sound'] = row['verdict'].startswith(_SOUND)
    row['silent'] = row['verdict'].startswith(_SILENT)
    for key in read.CERTIFICATE_NUMBERS:
      value = float(table.numbers[key][i])
      finite = np.isfinite(value)
      row[key] = float(f'{value:.{_DIGITS}g}') if finite else None
    found.append(row)
  return found


def combo_of(metric: str, axes: scores.Axes) -> int:
  """Returns which combination a column of a convention is, or -1.

  'delta|all|pearson' is one in full; 'pearson_delta' and 'pearson_rank_delta'
  are over all genes.
  """
  parts = tuple(metric.split('|'))
  if parts in axes.combos:
    return axes.combos.index(parts)
  base, _, aggregate = metric.rpartition('_')
  rank = base.endswith(scores.RANK)
  base = base.removesuffix(scores.RANK)
  base = _ALIASES.get(base, base) + (scores.RANK if rank else '')
  wanted = (aggregate, scores.ALL, base)
  return axes.combos.index(wanted) if wanted in axes.combos else -1


def summary(found: list[dict[str, Any]]) -> dict[str, int]:
  """Counts the rows by what their verdicts say."""
  silent = sum(row['silent'] for row in found)
  sound = sum(row['sound'] for row in found)
  return {
    'rows': len(found),
    'sound': sound,
    'silent': silent,
    'faults': len(found) - sound - silent,
  }


def red_team(table: columns.Table) -> dict[str, Any]:
  """Returns the flagged lines of eval/red_team.csv, and how many there are.

  Raises:
    ValueError: a flag is neither true nor false.
  """
  text = {key: _texts(table, key) for key in read.RED_TEAM_TEXT}
  flagged = []
  for i, flag in enumerate(text['flag']):
    if flag not in _FLAGS:
      raise ValueError(
        f'{RED_TEAM}: row {i + 2}: flag is {flag!r}, expected one of '
        f'{", ".join(_FLAGS)}'
      )
    if _FLAGS[flag]:
      row: dict[str, Any] = {key: text[key][i] for key in read.RED_TEAM_TEXT}
      for key in read.RED_TEAM_NUMBERS:
        row[key] = verdict.number(float(table.numbers[key][i]))
      flagged.append(row)
  return {
    'open': _spans(flagged[:_OPEN]),
    'more': _spans(flagged[_OPEN:]),
    'flagged': len(flagged),
    'tried': table.num_rows,
    'metrics': len(set(zip(text['convention'], text['metric']))),
    'caught': len({(row['convention'], row['metric']) for row in flagged}),
  }


def _spans(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
  """Gives the first row of each metric's run its length, the others 0."""
  out: list[dict[str, Any]] = []
  first = 0
  for at, row in enumerate(rows):
    key = (row['convention'], row['metric'])
    if not at or key != (rows[first]['convention'], rows[first]['metric']):
      first = at
    out.append({**row, 'rows': 0})
    out[first]['rows'] += 1
  return out


def _texts(table: columns.Table, key: str) -> list[str]:
  names, codes = table.text[key]
  return [names[code] for code in codes]
