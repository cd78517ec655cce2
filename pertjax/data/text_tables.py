"""Text files and tab-separated tables, compressed or not, as lists of fields.

What cannot be right is said with the file and the line; what is skipped is
counted in the notes.
"""

from __future__ import annotations

import gzip
import hashlib
import pathlib
import zlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from pertjax import names as name_lib

_GZIP = b'\x1f\x8b'


class Text(NamedTuple):
  """A text file in memory.

  Attributes:
    path: of the file, for messages.
    lines: without line ends; empty ones and comments are kept.
    sha256: of the bytes of the file.
  """

  path: pathlib.Path
  lines: list[str]
  sha256: str


class Table(NamedTuple):
  """A tab-separated table.

  Attributes:
    path: of the file, for messages.
    columns: names in lower case, spaces as underscores; () without a header.
    rows: lists of fields, all of one length.
    numbers: number of the line of each row, from 1.
    sha256: of the bytes of the file.
    notes: lines that a user should read.
  """

  path: pathlib.Path
  columns: tuple[str, ...]
  rows: list[list[str]]
  numbers: list[int]
  sha256: str
  notes: tuple[str, ...]


def check_path(path: str | pathlib.Path, what: str) -> pathlib.Path:
  """Returns the path of a file that is there.

  Args:
    path: of the file.
    what: what it is, such as the key that names it.

  Raises:
    FileNotFoundError, IsADirectoryError: naming the path and those like it.
  """
  path = pathlib.Path(path)
  if path.is_dir():
    raise IsADirectoryError(f'{what}: {path} is a directory; expected a file')
  if not path.is_file():
    here = path.parent
    beside = sorted(p.name for p in here.iterdir()) if here.is_dir() else []
    raise FileNotFoundError(
      f'{what}: {path}: no such file; in {here}: '
      f'{name_lib.suggestion(path.name, beside)}'
    )
  return path


def read_text(path: str | pathlib.Path, what: str = 'table') -> Text:
  """Reads a text file, compressed or not: its first bytes say which.

  Raises:
    FileNotFoundError, IsADirectoryError: see `check_path`.
    ValueError: where it is empty, damaged, or not what its name says.
  """
  path = check_path(path, what)
  content = path.read_bytes()
  sha256 = hashlib.sha256(content).hexdigest()
  if content.startswith(_GZIP):
    try:
      content = gzip.decompress(content)
    except (EOFError, OSError, zlib.error) as error:
      raise ValueError(
        f'{path}: a damaged or truncated gzip file ({error})'
      ) from error
  elif path.suffix == '.gz':
    raise ValueError(
      f'{path}: not a gzip file: it starts with {content[:8]!r}, not with '
      f'{_GZIP!r}; if it is plain text, take .gz from its name'
    )
  try:
    text = content.decode('utf-8-sig')
  except UnicodeDecodeError as error:
    line = content[: error.start].count(b'\n') + 1
    raise ValueError(
      f'{path}, line {line}: not text in UTF-8 ({error.reason} '
      f'{content[error.start : error.start + 1]!r})'
    ) from error
  if not text.strip():
    raise ValueError(f'{path}: an empty file ({path.stat().st_size} bytes)')
  # splitlines() would also cut at characters that names may hold.
  lines = text.replace('\r\n', '\n').split('\n')
  return Text(path, lines[:-1] if not lines[-1] else lines, sha256)


def read_table(
  path: str | pathlib.Path,
  *,
  known: Iterable[str],
  needed: int = 2,
  what: str = 'table',
) -> Table:
  """Reads a tab-separated table, with or without a header.

  The first line is a header where it has enough names of `known`, or one field
  less than the rows, which R numbers. Such a first field is dropped, and so is
  one that counts the rows without a header.

  Args:
    path: of the file.
    known: names of columns, in lower case.
    needed: of those names in a header. There is a gene SET: one name alone
      may be a gene. 0 where the first line must be a header.
    what: what the file is, for messages.

  Raises:
    FileNotFoundError, IsADirectoryError, ValueError: naming file and line.
  """
  text = read_text(path, what)
  rows, numbers, skipped = [], [], 0
  for number, line in enumerate(text.lines, 1):
    if not line.strip() or line[0] in '#!':
      skipped += bool(line.strip())
      continue
    if '"' in line:
      fields = [field.strip().strip('"') for field in line.split('\t')]
    else:
      fields = line.split('\t')
    rows.append(fields)
    numbers.append(number)
  notes: list[str] = []
  count(notes, text.path, skipped, 'comment lines were skipped')
  if not rows:
    raise ValueError(f'{text.path}: no row in {len(text.lines)} lines')
  columns: tuple[str, ...] = ()
  first = tuple(name.strip().lower().replace(' ', '_') for name in rows[0])
  num_known = len(set(first) & set(known))
  # R leaves its row names out of the header.
  short = len(rows) > 1 and len(rows[1]) == len(first) + 1
  short = short and (num_known > 0 or _counts(rows[1:]))
  if short or num_known >= needed:
    columns, rows, numbers = first, rows[1:], numbers[1:]
    if not rows:
      raise ValueError(f'{text.path}: a header and no row')
  width = len(rows[0])
  for number, fields in zip(numbers, rows):
    if len(fields) != width:
      raise ValueError(
        f'{text.path}, line {number}: {len(fields)} tab-separated field(s), '
        f'but {width} on line {numbers[0]}: {str(fields)[:80]}'
      )
  if columns and width not in (len(columns), len(columns) + 1):
    raise ValueError(
      f'{text.path}, line {numbers[0]}: {width} tab-separated fields under a '
      f'header of {len(columns)}: {", ".join(columns)}; allowed: as many, or '
      'one more for a row number in front'
    )
  numbered = not columns and width > 2 and _counts(rows)
  if (columns and width == len(columns) + 1) or numbered:
    rows = [fields[1:] for fields in rows]
    notes.append(f'{text.path.name}: the first field is taken as a row number')
  return Table(text.path, columns, rows, numbers, text.sha256, tuple(notes))


def _counts(rows: list[list[str]]) -> bool:
  """Returns whether the first fields are 1, 2, 3, ... or 0, 1, 2, ..."""
  if rows[0][0] not in ('0', '1'):
    return False
  start = int(rows[0][0])
  return all(row[0] == str(start + n) for n, row in enumerate(rows))


def column(table: Table, names: Sequence[str]) -> int | None:
  """Returns the column that has the first of the names that one has."""
  found = [n for n in names if n in table.columns]
  return table.columns.index(found[0]) if found else None


def count(notes: list[str], path: pathlib.Path, num: int, what: str) -> None:
  """Adds a line to the notes unless there is nothing to count."""
  if num:
    notes.append(f'{path.name}: {num:,} {what}')
