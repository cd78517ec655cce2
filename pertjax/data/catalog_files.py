"""The files of one dataset in the cache: kinds, checksums, archives, records.

A file is kept as `<cache>/<dataset>/<file>` with `checksum.json` beside it. It
gets its name when it is whole and checked, and it is hashed once.
"""

from __future__ import annotations

import contextlib
import errno
import gzip
import json
import os
import pathlib
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import pooch

from pertjax import files
from pertjax import names as name_lib
from pertjax.data.catalog_entry import Entry

try:
  import fcntl
except ImportError:  # Windows: one process at a time, see locked.
  fcntl = None

CACHE_VARIABLE = 'PERTJAX_CACHE'
_RECORD = 'checksum.json'
HEAD = 512  # Enough to tell the kind of a file; one block of a tar.


class DownloadError(OSError):
  """A file could not be downloaded; the message says what to do."""


class Job(NamedTuple):
  """One file to get: what, where to, and with which patience."""

  entry: Entry
  target: pathlib.Path
  say: Callable[[str], Any]
  progress: bool
  timeout: float
  retries: int
  backoff: float

  @property
  def part(self) -> pathlib.Path:
    return self.target.with_name(self.entry.filename + '.part')

  @property
  def part_record(self) -> pathlib.Path:
    return self.part.with_name(self.part.name + '.json')

  @property
  def record(self) -> pathlib.Path:
    return self.target.with_name(_RECORD)

  def size(self) -> int:
    return self.part.stat().st_size if self.part.exists() else 0

  def drop_part(self) -> None:
    self.part.unlink(missing_ok=True)
    self.part_record.unlink(missing_ok=True)

  def refusal(self, fault: str) -> DownloadError:
    name = f'dataset {self.entry.name!r}'
    return DownloadError(f'{name}: {fault}. {by_hand(self)}')


def is_recorded(job: Job) -> bool:
  """Says whether the file is the recorded one, by its size and time alone."""
  if not job.target.exists():
    return False
  record = read_json(job.record)
  known = record.get('download', {}).get('sha256')
  if job.entry.sha256 and known and job.entry.sha256 != known:
    raise ValueError(
      f'{job.target} came from a download with sha256 {known}, but the '
      f'catalogue has {job.entry.sha256}. Remove {job.target.parent} to '
      'download it again'
    )
  return _stamp(job.target).items() <= record.get('file', {}).items()


def check_again(job: Job) -> None:
  """Hashes a file that has no record, or another time than its record."""
  entry, target = job.entry, job.target
  record = read_json(job.record)
  job.say(f'{entry.name}: checking {target}')
  check_head(entry.local_name, target)
  found = pooch.file_hash(str(target), alg='sha256')
  expected = record.get('file', {}).get('sha256')
  packed = entry.local_name != entry.filename
  if not packed and (entry.sha256 or entry.md5):
    _check_download(job, target, found)
  elif expected not in (None, found):
    raise ValueError(
      f'{target} has changed: its sha256 was {expected} and is {found}. '
      f'Remove the file to download it again, or remove {job.record} to '
      'accept it as it is'
    )
  record.setdefault('origin', 'put there by hand')
  record['file'] = {'name': target.name, 'sha256': found, **_stamp(target)}
  write_json(job.record, record)


def _check_download(job: Job, path: pathlib.Path, found: str) -> None:
  """Compares a download with the catalogue, or with the first download."""
  entry = job.entry
  what, expected = 'the catalogue has sha256', entry.sha256
  if expected is None and entry.md5 is not None:
    found = pooch.file_hash(str(path), alg='md5')
    what, expected = 'the catalogue has md5', entry.md5
  if expected is None:
    what = 'the first download had sha256'
    expected = read_json(job.record).get('download', {}).get('sha256')
  if expected in (None, found):
    return
  advice = 'Remove it, then fetch again'
  if path == job.part:
    job.drop_part()
    advice = 'It was removed; fetch again'
  cure = 'compare with its page, then correct the entry'
  if entry.sha256 is None and entry.md5 is None:
    cure = f'remove {job.record} to accept the new one'
  raise ValueError(
    f'{path} is not the expected file: {what} {expected}, it has {found}. '
    f'{advice}. If this stays so, the publisher has changed the file: {cure}'
  )


def install(job: Job, source: pathlib.Path) -> None:
  """Checks a complete download, unpacks it and gives it its name."""
  entry, target = job.entry, job.target
  sha256 = download_sha256 = pooch.file_hash(str(source), alg='sha256')
  _check_download(job, source, download_sha256)
  ready = source
  if entry.filename != entry.local_name:
    ready = target.with_name(target.name + '.tmp')
    job.say(f'{entry.name}: unpacking {entry.filename}')
    try:
      _unpack(entry, source, ready)
      check_head(entry.local_name, ready)
    except BaseException:
      ready.unlink(missing_ok=True)
      raise
    sha256 = pooch.file_hash(str(ready), alg='sha256')
  # The record first: a file without one would pass for put there by hand.
  write_json(
    job.record,
    {
      'origin': entry.url if source == job.part else 'put there by hand',
      'download': {'name': entry.filename, 'sha256': download_sha256},
      'file': {'name': target.name, 'sha256': sha256, **_stamp(ready)},
    },
  )
  os.replace(ready, target)


def _unpack(entry: Entry, source: pathlib.Path, target: pathlib.Path) -> None:
  """Writes the h5ad inside an archive, or a compressed one, to `target`."""
  with contextlib.ExitStack() as stack:
    try:
      if entry.filename.endswith('.zip'):
        archive = stack.enter_context(zipfile.ZipFile(source))
        sizes = {info.filename: info.file_size for info in archive.infolist()}
        inside = archive.open
      elif entry.member is not None:
        archive = stack.enter_context(tarfile.open(source, 'r:*'))
        sizes = {i.name: i.size for i in archive.getmembers() if i.isfile()}
        inside = archive.extractfile
      else:
        sizes, inside = {}, lambda _: gzip.GzipFile(source)
      member = _find_member(entry, source, sizes) if entry.member else ''
      check_space(target.parent, sizes.get(member, 0), entry)
      with inside(member) as packed, target.open('wb') as file:
        shutil.copyfileobj(packed, file, 1 << 20)
    except (
      zipfile.BadZipFile,
      tarfile.TarError,
      gzip.BadGzipFile,
      EOFError,
      zlib.error,
    ) as error:
      raise ValueError(
        f'{source} is damaged ({error}). Remove it, then fetch again'
      ) from error


def _find_member(
  entry: Entry, source: pathlib.Path, sizes: Mapping[str, int]
) -> str:
  """Returns the name of the one member that the entry means."""
  wanted = pathlib.PurePosixPath(entry.member).parts
  found = [
    name
    for name in sizes
    if pathlib.PurePosixPath(name).parts[-len(wanted) :] == wanted
  ]
  if len(found) != 1:
    inside = [name for name in sizes if not name.endswith('/')]
    similar = name_lib.suggestion(entry.member, found or inside)
    raise ValueError(
      f'{source} must hold one file {entry.member!r}; it holds {len(found)} '
      f'among {len(inside)} files; {similar}'
    )
  return found[0]


def kind(head: bytes, filename: str) -> str | None:
  """Says what a file's first bytes show instead of what its name promises."""
  if filename.endswith('.h5ad'):
    good, promised = head.startswith(b'\x89HDF\r\n\x1a\n'), 'an HDF5 file'
  elif filename.endswith('.zip'):
    good, promised = head.startswith(b'PK\x03\x04'), 'a zip archive'
  elif filename.endswith('.tar'):
    promised = 'a tar archive'
    try:
      tarfile.TarInfo.frombuf(head[:HEAD], 'utf-8', 'surrogateescape')
      good = True
    except tarfile.HeaderError:
      good = False
  else:
    good, promised = head.startswith(b'\x1f\x8b'), 'a gzip file'
  if good:
    return None
  if head.lstrip()[:1] in (b'<', b'{'):
    text = ' '.join(head.decode('utf-8', 'replace').split())
    return f'not {promised} but a page: {text[:160]!r}'
  return f'not {promised}: it starts with {head[:8]!r}'


def check_head(filename: str, path: pathlib.Path) -> None:
  """Raises ValueError where a file is not of the kind its name promises."""
  with path.open('rb') as file:
    fault = kind(file.read(HEAD), filename)
  if fault:
    raise ValueError(f'{path} is {fault}. Remove it, then fetch again')


def check_space(folder: pathlib.Path, needed: int, entry: Entry) -> None:
  """Raises OSError where fewer than `needed` bytes are free."""
  free = shutil.disk_usage(folder).free
  if needed > free:
    raise OSError(
      errno.ENOSPC,
      f'dataset {entry.name!r} needs {needed / 1e6:.0f} MB more in {folder}, '
      f'where {free / 1e6:.0f} MB are free. Make room, or choose another place '
      f'with cache_dir or ${CACHE_VARIABLE}',
    )


def by_hand(job: Job) -> str:
  """Says how a person gets the file, and the full path to put it at."""
  entry = job.entry
  where = entry.manual
  if entry.url is not None:
    where = f'open {entry.url} in a browser'
    where += f' ({entry.manual})' if entry.manual else ''
  text = f'To get it by hand: {where}; put the file at '
  text += str(job.target.with_name(entry.filename))
  if entry.filename != entry.local_name:
    text += f' or, unpacked, at {job.target}'
  return text


@contextlib.contextmanager
def locked(job: Job) -> Iterator[None]:
  """Holds a dataset for this process; the lock of a dead process is gone.

  Without flock (Windows) nothing is held: there, do not fetch one dataset from
  two processes at once.
  """
  with job.target.with_name('.lock').open('a') as file:
    if fcntl is not None:
      try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
      except BlockingIOError:
        job.say(f'{job.entry.name}: another process fetches it; waiting')
        fcntl.flock(file, fcntl.LOCK_EX)
    yield


def read_json(path: pathlib.Path) -> dict[str, Any]:
  """Returns a record, empty where there is none."""
  if not path.exists():
    return {}
  try:
    return json.loads(path.read_text(encoding='utf-8'))
  except json.JSONDecodeError as error:
    raise ValueError(
      f'{path} is not readable ({error}); remove it to start anew'
    ) from error


def write_json(path: pathlib.Path, content: dict[str, Any]) -> None:
  """Writes a record, whole or not at all."""
  files.write_text(path, json.dumps(content, indent=2) + '\n')


def _stamp(path: pathlib.Path) -> dict[str, int]:
  status = path.stat()
  return {'size': status.st_size, 'mtime_ns': status.st_mtime_ns}
