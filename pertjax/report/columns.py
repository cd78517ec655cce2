"""Read columns of a csv file, fast and with errors that give the place."""

from __future__ import annotations

import array
import collections
import csv
import difflib
import itertools
import pathlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

_ROWS_AT_ONCE = 50_000


class Table(NamedTuple):
  """Columns of a csv file.

  Attributes:
    text: {column: (distinct values, int32 [rows] codes into them)}.
    numbers: {column: float64 [rows]}; an empty field is NaN.
  """

  text: dict[str, tuple[tuple[str, ...], np.ndarray]]
  numbers: dict[str, np.ndarray]

  @property
  def num_rows(self) -> int:
    return len(next(iter(self.numbers.values())))


def read(
  path: pathlib.Path, *, text: Sequence[str], numbers: Sequence[str]
) -> Table:
  """Reads columns of a csv file; further columns are not read.

  Args:
    path: the file.
    text: columns to read as text.
    numbers: columns to read as numbers; an empty field is NaN.

  Raises:
    ValueError: a column is missing, a row has another number of fields, or a
      number cannot be read; the message gives the line.
  """
  # A vocabulary hands out the next code when it meets a new value.
  vocabularies = {
    name: collections.defaultdict(itertools.count().__next__) for name in text
  }
  codes = {name: array.array('i') for name in text}
  values = {name: array.array('d') for name in numbers}
  try:
    with path.open(newline='', encoding='utf-8') as file:
      rows = csv.reader(file, strict=True)
      header = next(rows, [])
      check_names(path, 'column', header, (*text, *numbers))
      at = {name: header.index(name) for name in (*text, *numbers)}
      line = 2
      while chunk := list(itertools.islice(rows, _ROWS_AT_ONCE)):
        _check_widths(path, chunk, len(header), line)
        columns = list(zip(*chunk))
        for name in text:
          code = vocabularies[name].__getitem__
          codes[name].extend(map(code, columns[at[name]]))
        for name in numbers:
          values[name].extend(_floats(path, name, columns[at[name]], line))
        line += len(chunk)
  except (csv.Error, UnicodeDecodeError) as error:
    raise ValueError(f'{path}: not a readable csv file: {error}') from error
  return Table(
    text={
      name: (tuple(vocabularies[name]), np.array(codes[name], np.int32))
      for name in text
    },
    numbers={name: np.array(values[name], np.float64) for name in numbers},
  )


def check_names(
  path: pathlib.Path, what: str, found: Iterable[str], needed: Iterable[str]
) -> None:
  """Raises ValueError, naming the file, unless all needed names are there."""
  found = list(found)
  for name in needed:
    if name not in found:
      close = difflib.get_close_matches(name, found, n=1)
      hint = f'; is {close[0]!r} meant?' if close else ''
      raise ValueError(
        f'{path}: {what} {name!r} is missing, found '
        f'{", ".join(map(str, found)) or "nothing"}{hint}'
      )


def _check_widths(
  path: pathlib.Path, rows: list[list[str]], width: int, first: int
) -> None:
  if set(map(len, rows)) == {width}:
    return
  bad = next(i for i, row in enumerate(rows) if len(row) != width)
  raise ValueError(
    f'{path}: row {first + bad} has {len(rows[bad])} fields, expected {width}'
  )


def _floats(
  path: pathlib.Path, name: str, column: Sequence[str], first: int
) -> array.array:
  try:
    return array.array('d', map(float, column))
  except ValueError:
    values = array.array('d')
    for i, text in enumerate(column):
      try:
        values.append(float(text or 'nan'))
      except ValueError as error:
        raise ValueError(
          f'{path}: row {first + i}: {name} is {text!r}, expected a number'
        ) from error
    return values
