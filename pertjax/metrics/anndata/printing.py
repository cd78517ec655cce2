"""Tables as lines of text that fit a terminal of 100 columns."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Sequence

import pandas as pd

from pertjax import names as name_lib
from pertjax.metrics import summary
from pertjax.metrics.conventions import base

WIDTH = 100
_GOOD = 'tells a replicate from the mean'


def aligned(
  header: Sequence[str], rows: Iterable[Sequence[str]], width: int = WIDTH
) -> list[str]:
  """Aligns cells in columns: the first and the last left, the others right.

  A last cell that has no room is put below its row, indented.

  Args:
    header: [columns]
    rows: of as many cells.
    width: of a line.
  """
  table = [header, *([str(cell) for cell in row] for row in rows)]
  widths = [max(len(row[i]) for row in table) for i in range(len(header))]
  start = widths[0] + sum(2 + size for size in widths[1:-1]) + 2
  below = widths[-1] > width - start
  lines = []
  for row in table:
    text = f'{row[0]:{widths[0]}}' + ''.join(
      f'  {cell:>{size}}' for cell, size in zip(row[1:-1], widths[1:-1])
    )
    if not below:
      text = f'{text}  {row[-1]}'
    lines.append(text.rstrip())
    if below and row[-1]:
      lines += textwrap.wrap(
        row[-1],
        width,
        initial_indent='    ',
        subsequent_indent='      ',
        break_on_hyphens=False,
      )
  return lines


def number(value: float) -> str:
  """Returns three or four digits; '-' for NaN."""
  if math.isnan(value):
    return '-'
  return f'{value:.4g}' if abs(value) < 1e4 else f'{value:.2e}'


def _interval(low: float, high: float) -> str:
  return '-' if math.isnan(low) else f'{number(low)} to {number(high)}'


def _share(value: float) -> str:
  return '-' if math.isnan(value) else f'{round(value, 2) + 0:.0%}'


def _titled(convention: str, model: str = '') -> str:
  title = base.get(convention).title
  return title + (f' - {model}' if model else '')


def means(table: pd.DataFrame) -> list[str]:
  """Returns the means of all conditions, of the table of `score`."""
  found = table[
    (table['level'] == summary.AGGREGATE) & (table['covariate'] == '')
  ]
  keys = [key for key in ('model', 'convention') if key in found]
  lines = []
  for names, part in found.groupby(keys, sort=False):
    model = names[0] if len(names) > 1 else ''
    lines += ['', _titled(names[-1], model)]
    rows = [
      (
        row.metric,
        number(row.value),
        _interval(row.low, row.high),
        f'{row.used}',
        f'{row.dropped}' if row.dropped else '',
        row.reason,
      )
      for row in part.itertuples()
    ]
    header = ('', 'mean', '95 % interval', 'conditions', 'dropped', '')
    lines += aligned(header, rows)
  return [*lines, '']


def certificate(table: pd.DataFrame) -> list[str]:
  """Returns the table of `certificate`, and what its columns mean."""
  lines = []
  for convention, part in table.groupby('convention', sort=False):
    lines += ['', _titled(convention)]
    rows = [
      (
        row.metric,
        number(row.control),
        number(row.perturbed_mean),
        number(row.ceiling),
        number(row.null),
        _share(row.dynamic_range),
        _share(row.bound_discrimination),
        '' if row.verdict == _GOOD else row.verdict,
      )
      for row in part.itertuples()
    ]
    header = (
      '', 'control', 'mean', 'replicate', 'null', 'range', 'wins', '',
    )  # fmt: skip
    lines += aligned(header, rows)
  good = int((table['verdict'] == _GOOD).sum())
  lines += [
    '',
    *textwrap.wrap(
      f'{good} of {len(table)} columns tell a replicate from the mean. '
      'control: score of control cells; mean: of one pool of perturbed cells; '
      'replicate: of other cells of the same condition; null: of a replicate '
      'where labels mean nothing; range: share of the way from the mean to the '
      'best value that a replicate goes; wins: conditions where it beats the '
      'mean.',
      WIDTH,
    ),
    '',
  ]
  return lines


def red_team(table: pd.DataFrame) -> list[str]:
  """Returns what the table of `red_team` found, for each metric."""
  lines = []
  for convention, part in table.groupby('convention', sort=False):
    lines += ['', _titled(convention)]
    flagged = part[part['flag']]
    rows = [
      (
        metric,
        number(each['replicate'].iloc[0]),
        number(each['floor'].iloc[0]),
        ', '.join(_flag(row) for row in each.itertuples()),
      )
      for metric, each in flagged.groupby('metric', sort=False)
    ]
    if rows:
      lines += aligned(('', 'replicate', 'floor', ''), rows)
    every = list(dict.fromkeys(part['metric']))
    named = set(flagged['metric'])
    lines += _wrapped(
      f'{len(every) - len(named)} of {len(every)} metrics reward none of '
      f'{part["submission"].nunique()} submissions: ',
      [metric for metric in every if metric not in named],
    )
    blind = part[part['finding'].str.contains('is not seen')]
    for submission, each in blind.groupby('submission', sort=False):
      names = list(each['metric'])
      text = f'{submission} is not seen by {len(names)} of them: '
      lines += _wrapped(text, names)
  return [
    *lines,
    '',
    *textwrap.wrap(
      'Shown are the submissions that a metric rewards where it should not, '
      'with their value and how far they come from the floor (what chance '
      'gives, or the cells of another condition) to a replicate.',
      WIDTH,
    ),
    '',
  ]


def _flag(row) -> str:
  """Returns a flagged submission in a few words."""
  if row.submission == 'order of names':
    return f'{row.submission}: {row.finding}'
  share = f', {row.share:.0%}' if math.isfinite(row.share) else ''
  return f'{row.submission} ({number(row.value)}{share})'


def _wrapped(text: str, names: Sequence[str]) -> list[str]:
  """Returns a text and some names, on lines that are not too long."""
  listed = name_lib.listing(names, 8, quoted=False) or 'none'
  return textwrap.wrap(
    text + listed, WIDTH, subsequent_indent='  ', break_on_hyphens=False
  )


def compare(table: pd.DataFrame) -> list[str]:
  """Returns the table of `compare`, a block for each pair of models."""
  lines = []
  keys = ['convention', 'model', 'against']
  for (convention, model, against), part in table.groupby(keys, sort=False):
    lines += ['', f'{_titled(convention)}: {model} against {against}']
    rows = [
      (
        row.metric,
        number(row.difference),
        _interval(row.low, row.high),
        number(row.p_adjusted),
        _share(row.won),
        f'{row.conditions}',
        row.verdict,
      )
      for row in part.itertuples()
    ]
    header = (
      '', 'difference', '95 % interval', 'p adj.', 'won', 'n', 'verdict',
    )  # fmt: skip
    lines += aligned(header, rows)
  return [
    *lines,
    '',
    *textwrap.wrap(
      'A positive difference is better whatever the direction of the metric; p '
      'is adjusted over the pairs of models of one metric; n: conditions that '
      'both models have a value for.',
      WIDTH,
    ),
    '',
  ]


def scaled(table: pd.DataFrame) -> list[str]:
  """Returns the lines of a table of `scaled`, the mean last."""
  rows = [
    (
      row.metric,
      *(number(getattr(row, k)) for k in ('value', 'baseline', 'replicate')),
      number(row.score),
      '',
    )
    for row in table.itertuples()
  ]
  title = base.get(table['convention'].iloc[0]).title
  header = ('', 'value', 'baseline', 'replicate', 'score', '')
  return ['', title, *aligned(header, rows), '']
