"""Put what a model of latent factors has learned into rows for the page."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np

from pertjax.report import columns

FOLDER = 'eval/interpret'
# {file: (text columns, number columns)}.
FILES = {
  'perturbations': (
    ('condition', 'perturbation', 'factor'),
    ('member', 'entropy', 'shift', 'dar', 'dar_without_own'),
  ),
  'assignments': (('perturbation', 'factor'), ('member', 'weight')),
  'factor_sets': (
    ('factor', 'gene_set', 'name'),
    ('member', 'rank', 'weight', 'contribution'),
  ),
  'graph': (('from', 'to'), ('member', 'weight', 'threshold')),
  'summary': (('quantity',), ('member', 'value')),
}  # fmt: skip
# Of each member and factor; what is left out is in the files.
MOST_EDGES = 200
MOST_SETS = 12
_DIGITS = 5
# Of a perturbation.
_SHOWN = ('entropy', 'shift', 'dar', 'dar_without_own')


def missing(workdir: pathlib.Path) -> dict[str, str]:
  """Returns {file: what is lost} of a folder that lacks some of its tables."""
  if not (workdir / FOLDER).is_dir():
    return {}
  return {
    f'{FOLDER}/{name}.csv': 'what the factors are cannot be shown'
    for name in FILES
    if not (workdir / FOLDER / f'{name}.csv').is_file()
  }


def read(workdir: pathlib.Path) -> dict[str, columns.Table] | None:
  """Reads the tables of eval/interpret, None where they are not all there.

  Raises:
    ValueError: a table is corrupt; the message names it.
  """
  folder = workdir / FOLDER
  if not folder.is_dir() or missing(workdir):
    return None
  return {
    name: columns.read(folder / f'{name}.csv', text=text, numbers=numbers)
    for name, (text, numbers) in FILES.items()
  }


def rows(tables: dict[str, columns.Table]) -> dict[str, Any]:
  """Returns what the page's script draws.

  Returns:
    {'perturbations': names, 'sets': [[id, name]], 'members': [...], 'summary':
    [[quantity, mean, least, greatest]]}. Of a member: 'member'; 'factors' and
    'edges', how many there are; 'graph', [[from, to, weight]]; 'assigned',
    [[perturbation, factor, weight]]; 'feeds', {factor: [[set, weight,
    contribution]]}; 'about', [{...}]. Factors, sets and perturbations are
    numbers.

  Raises:
    ValueError: a factor is not called 'factor_' and a number.
  """
  found = {name: _rows(tables, name) for name in FILES}
  perturbations = sorted(
    {
      row['perturbation']
      for row in found['perturbations'] + found['assignments']
    }
  )
  names = {row['gene_set']: row['name'] for row in found['factor_sets']}
  sets = sorted(names)
  numbers = sorted({row['member'] for row in found['summary']})
  place = {name: i for i, name in enumerate(perturbations)}
  set_place = {name: i for i, name in enumerate(sets)}
  return {
    'perturbations': perturbations,
    'sets': [[key, names[key]] for key in sets],
    'members': [
      _member(
        {k: [r for r in v if r['member'] == number] for k, v in found.items()},
        int(number),
        place,
        set_place,
      )
      for number in numbers
    ],
    'summary': _summary(found['summary']),
  }


def _member(found, number: int, place, set_place) -> dict[str, Any]:
  """Returns one member's part; `found` has its rows only."""
  of = {row['quantity']: row['value'] for row in found['summary']}
  feeds: dict[int, list] = {}
  for row in found['factor_sets']:
    if row['rank'] <= MOST_SETS:
      feeds.setdefault(_factor('factor_sets', row['factor']), []).append(
        [
          set_place[row['gene_set']],
          _short(row['weight']),
          _short(row['contribution']),
        ]
      )
  graph = [
    [
      _factor('graph', row['from']),
      _factor('graph', row['to']),
      _short(row['weight']),
    ]
    for row in found['graph']
  ]
  return {
    'member': number,
    'factors': int(of.get('factors') or 0),
    'edges': int(of.get('edges') or 0),
    'graph': graph[:MOST_EDGES],
    'assigned': [
      [
        place[row['perturbation']],
        _factor('assignments', row['factor']),
        _short(row['weight']),
      ]
      for row in found['assignments']
    ],
    'feeds': feeds,
    'about': [
      {
        'condition': row['condition'],
        'perturbation': place[row['perturbation']],
        'factor': _factor('perturbations', row['factor'])
        if row['factor']
        else None,
        **{key: _short(row[key]) for key in _SHOWN},
      }
      for row in found['perturbations']
    ],
  }


def _rows(tables, name) -> list[dict[str, Any]]:
  table = tables[name]
  text = {key: [n[c] for c in codes] for key, (n, codes) in table.text.items()}
  return [
    {
      **{key: values[i] for key, values in text.items()},
      **{key: float(values[i]) for key, values in table.numbers.items()},
    }
    for i in range(table.num_rows)
  ]


def _factor(file: str, name: str) -> int:
  head, _, number = name.rpartition('_')
  if head != 'factor' or not number.isdecimal():
    raise ValueError(
      f"{FOLDER}/{file}.csv: a factor is {name!r}, expected 'factor_' and a "
      'number'
    )
  return int(number)


def _short(value: float) -> float | None:
  return float(f'{value:.{_DIGITS}g}') if np.isfinite(value) else None


def _summary(found) -> list[list[Any]]:
  """Returns [quantity, mean, least, greatest] over the members."""
  values: dict[str, list[float]] = {}
  for row in found:
    values.setdefault(row['quantity'], []).append(row['value'])
  return [
    [
      name,
      *(
        _short(float(f(v))) if np.isfinite(v).all() else None
        for f in (np.mean, np.min, np.max)
      ),
    ]
    for name, v in values.items()
  ]
