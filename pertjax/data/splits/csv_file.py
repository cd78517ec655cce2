"""Splits as files: the package's own, and others' of cells or conditions."""

from __future__ import annotations

import csv
import io
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pertjax import names as name_lib
from pertjax import types
from pertjax.data.splits import controls, naming, problem

COLUMNS = ('cell', 'split', 'condition', 'group', 'regime')


def text(split: types.Split, cells: problem.Cells) -> str:
  """Returns the text of split.csv; see `splits.to_csv`."""
  order = np.argsort(cells.names, kind='stable')
  codes = np.asarray(split.cells)[order].tolist()
  condition = cells.condition[order].tolist()
  group = cells.group[order].tolist()
  names = cells.conditions.names
  regimes = split.regimes
  lines = (
    (
      cell,
      problem.NAMES[code],
      names[c],
      cells.group_names[g],
      regimes.get((c, g), '') if code > 0 else '',
    )
    for cell, code, c, g in zip(
      cells.names[order].tolist(), codes, condition, group
    )
  )
  out = io.StringIO()
  writer = csv.writer(out, lineterminator='\n')
  writer.writerow(COLUMNS)
  writer.writerows(lines)
  return out.getvalue()


def place(
  cells: problem.Cells, method: str, seed: int, opts: Mapping[str, Any]
) -> problem.Placed:
  """Places cells as a file says; see `splits.read` for its forms.

  Raises:
    FileNotFoundError: if there is no such file.
    LeakageError: if a cell or a condition is in two splits.
    ValueError: for a file that is not understood, or not of this data.
  """
  path = pathlib.Path(opts['path'])
  with path.open(encoding='utf-8-sig', newline='') as file:
    lines = [line for line in csv.reader(file) if line]
  if not lines:
    raise ValueError(f'{path}: the file is empty')
  header = [name.strip() for name in lines[0]]
  if len(header) == 2 and (header[0] in ('', 'index')):
    header[:] = ['cell', 'split']
  elif len(header) == 2 and header[1] in (*problem.CODES, 'None', ''):
    header = ['cell', 'split']
    lines.insert(0, header)
  width = [i for i, line in enumerate(lines, 1) if len(line) != len(header)]
  if width:
    raise ValueError(
      f'{path}: line {width[0]} has {len(lines[width[0] - 1])} fields, the '
      f'header {len(header)}'
    )
  columns = {
    name: [line[i] for line in lines[1:]] for i, name in enumerate(header)
  }
  keys = [key for key in ('cell', 'condition') if key in columns]
  if not keys or 'split' not in columns:
    raise ValueError(
      f"{path}: columns {header} lack 'split', or both 'cell' and 'condition'"
    )
  columns['split'] = [_code(value, path) for value in columns['split']]
  if keys[0] == 'cell':
    placed = _read_cells(columns, cells, path, opts)
  else:
    placed = _read_conditions(columns, cells, path, seed, opts)
  codes = placed.cells
  tables = cells.tables(codes)
  lacks = [c for c in (types.VAL, types.TEST) if not tables[c][1:].any()]
  notes = [
    f'{path.name} has no perturbed {problem.NAMES[c]} cells' for c in lacks
  ]
  shared = tables[types.TRAIN] & (tables[types.VAL] | tables[types.TEST])
  shared |= tables[types.VAL] & tables[types.TEST]
  if shared[1:].any():
    notes.append(
      f'{int(shared[1:].sum())} (condition, group) pairs have cells in two '
      f'splits of {path.name}'
    )
  return placed._replace(notes=(*placed.notes, *notes), may_lack=tuple(lacks))


def _code(value: str, path: pathlib.Path) -> int:
  value = value.strip()
  if value in ('', 'None'):
    return types.EXCLUDED
  if value not in problem.CODES:
    raise ValueError(
      name_lib.unknown(f'{path}: split', value, tuple(problem.CODES))
    )
  return problem.CODES[value]


def _read_cells(
  columns: Mapping[str, list],
  cells: problem.Cells,
  path: pathlib.Path,
  opts: Mapping[str, Any],
) -> problem.Placed:
  """Places cells by their names."""
  names = columns['cell']
  row = {name: i for i, name in enumerate(cells.names.tolist())}
  line = {name: i for i, name in enumerate(names)}
  if len(line) < len(names):
    twice = [name for i, name in enumerate(names) if line[name] != i]
    raise problem.LeakageError(
      f'{path}: {len(twice)} cells have more than one line: '
      f'{name_lib.listing(twice, quoted=False)}'
    )
  notes = []
  strange = [name for name in names if name not in row]
  absent = [name for name in row if name not in line]
  for few, what in (
    (strange, 'cells of the file are not in the data'),
    (absent, 'cells of the data are not in the file'),
  ):
    notes += _missing(few, what, path, opts)
  rows = np.array([row.get(name, -1) for name in names], np.int64)
  codes = np.full(len(cells.names), types.EXCLUDED, np.int8)
  codes[rows[rows >= 0]] = np.array(columns['split'], np.int8)[rows >= 0]
  for key, ids, known in (
    ('condition', cells.condition, cells.conditions.names),
    ('group', cells.group, cells.group_names),
  ):
    _same(columns.get(key), rows, ids, known, names, f'{path}: {key}')
  # Regimes that the file claims stand if one rule explains them all.
  rule, regimes = (opts['seen'], 'train'), None
  if 'regime' in columns:
    rule, regimes = None, _read_regimes(columns, rows, cells, path)
  extra = [name for name in columns if name not in COLUMNS]
  if extra:
    notes.append(f'columns {extra} of {path.name} are not used')
  return problem.Placed(codes, tuple(notes), rule, regimes)


def _same(
  given: list[str] | None,
  rows: np.ndarray,
  ids: np.ndarray,
  known: Sequence[str],
  names: Sequence[str],
  what: str,
) -> None:
  """Raises if the file says something else of a cell than the data."""
  if given is None:
    return
  for i, (value, r) in enumerate(zip(given, rows.tolist())):
    if r >= 0 and value != known[ids[r]]:
      raise ValueError(
        f'{what} of cell {names[i]!r} is {value!r} in the file and '
        f'{known[ids[r]]!r} in the data'
      )


def _read_regimes(
  columns: Mapping[str, list],
  rows: np.ndarray,
  cells: problem.Cells,
  path: pathlib.Path,
) -> dict[tuple[int, int], str]:
  regimes: dict[tuple[int, int], str] = {}
  for value, code, r in zip(columns['regime'], columns['split'], rows.tolist()):
    pair = (int(cells.condition[r]), int(cells.group[r]))
    if r < 0 or code not in (types.VAL, types.TEST) or pair[0] == 0:
      continue
    if regimes.setdefault(pair, value) != value:
      raise ValueError(
        f'{path}: {problem.pair_name(pair, cells)} has the regimes '
        f'{regimes[pair]!r} and {value!r}'
      )
  return dict(sorted(regimes.items()))


def _read_conditions(
  columns: Mapping[str, list],
  cells: problem.Cells,
  path: pathlib.Path,
  seed: int,
  opts: Mapping[str, Any],
) -> problem.Placed:
  """Places cells by their conditions, and groups if the file has them."""
  key = opts['group_column']
  extra = [k for k in columns if k not in ('condition', 'split', 'regime', key)]
  if extra:
    raise ValueError(
      f'{path}: columns {extra} are not understood in a file of conditions; '
      "if one holds the group's name, set group_column to it"
    )
  known = {name: c for c, name in enumerate(cells.conditions.names)}
  numbers = {name: g for g, name in enumerate(cells.group_names)}
  table = np.full(cells.shape, -2, np.int8)  # -2: no line in the file.
  strange = []
  for i, name in enumerate(columns['condition']):
    c = known.get(name, known.get(_canonical(name)))
    if c is None:
      strange.append(name)
      continue
    where: Any = slice(None)
    if key in columns:
      place = columns[key][i]
      if place not in numbers:
        raise ValueError(
          name_lib.unknown(f'{path}: {key}', place, cells.group_names)
        )
      where = numbers[place]
    code = columns['split'][i]
    before = table[c, where]
    if np.any((before != -2) & (before != code)):
      raise problem.LeakageError(f'{path}: condition {name!r} is in two splits')
    table[c, where] = code
  present = cells.counts > 0
  absent = [list(p) for p in np.argwhere(present & (table == -2)) if p[0]]
  notes = _missing(
    strange, 'conditions of the file are not in the data', path, opts
  )
  notes += _missing(
    [problem.pair_name(p, cells) for p in absent],
    'pairs of the data are not in the file',
    path,
    opts,
  )
  codes = table[cells.condition, cells.group]
  listed = codes != -2
  codes = np.where(listed, codes, types.EXCLUDED).astype(np.int8)
  rows = np.flatnonzero(~listed & (cells.condition == 0))
  if len(rows):
    codes = controls.divided(cells, codes, seed, opts, rows)
    notes.append(
      f'{path.name} does not place {len(rows)} controls: they are divided by '
      f'control_fractions={tuple(opts["control_fractions"])}'
    )
  return problem.Placed(codes, tuple(notes), (opts['seen'], 'train'))


def _canonical(name: str) -> str:
  """Rewrites `B+A`, `A+ctrl` or `ctrl` as this package names conditions."""
  return '+'.join(sorted(naming.parts_of(name))) or types.CONTROL


def _missing(
  names: Sequence[str],
  what: str,
  path: pathlib.Path,
  opts: Mapping[str, Any],
) -> list[str]:
  if not names:
    return []
  line = (
    f'{len(names)} {what} ({path.name}), for example '
    f'{name_lib.listing(names, quoted=False)}'
  )
  if opts['missing'] == 'error':
    raise ValueError(f"{line}; missing='exclude' leaves them out")
  return [line + ': left out']
