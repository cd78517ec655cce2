"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import pathlib
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
  """Yields a temporary path whose file takes the name `path` at the end.

  The temporary is in the same folder, so that renaming is one step and a
  reader sees the older file or all of the new one. Where the body raises, the
  temporary is removed and an older file stays as it was.

  Args:
    path: of the file; its folder must be there.

  Raises:
    OSError: naming `path`, where the body or the renaming raised one. Other
      exceptions of the body pass as they are.
  """
  path = pathlib.Path(path)
  # Of this process and thread: two writers must not share a temporary.
  writer = f'{os.getpid()}-{threading.get_ident()}'
  temporary = path.with_name(f'.{path.name}.{writer}.tmp')
  try:
    yield temporary
    with temporary.open('r+b') as file:
      os.fsync(file.fileno())
    temporary.replace(path)
  except OSError as error:
    raise OSError(
      f'{path} could not be written: {error}; an older file of that name is '
      'as it was'
    ) from error
  finally:
    temporary.unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
  """Writes a text file, in UTF-8 and with the line ends of the text.

  Raises:
    OSError: see `replacing`.
  """
  with replacing(path) as temporary:
    temporary.write_text(text, encoding='utf-8', newline='')
