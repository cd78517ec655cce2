"""Named public datasets, and how to get their files.

Adding a dataset is adding an entry to the table at the end of this file. Its
address must have been seen in public, never guessed: where the address of the
file itself is not known, `url` is None and `manual` says where a person finds
it. No address was fetched when the table was written. A checksum in it agrees
with what the publisher or several independent users report; a note that starts
with 'unverified' marks what rests on less.

A file is kept as `<cache>/<dataset>/<file>` with `checksum.json` beside it.
Downloads are resumed, checked before they get their name, and hashed once.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import errno
import gzip
import itertools
import json
import os
import pathlib
import re
import shutil
import sys
import tarfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import IO, Any, NamedTuple

import pandas as pd
import pooch
import requests
import urllib3

import pertjax

try:
  import fcntl
except ImportError:  # Windows: one process at a time, see _locked.
  fcntl = None
try:
  import tqdm
except ImportError:  # Progress is then written as lines.
  tqdm = None

# Naming conventions that files follow; data/conventions.py says what they mean.
PRESETS = ('perturbench', 'gears', 'cpa', 'scperturb')
SCALES = ('counts', 'log1p')
CACHE_VARIABLE = 'PERTJAX_CACHE'

_ARCHIVES = ('.zip', '.tar', '.tar.gz', '.tgz')
_SUFFIXES = ('.h5ad', '.h5ad.gz', *_ARCHIVES)
_RECORD = 'checksum.json'
_CHUNK = 1 << 16
_HEAD = 512  # Enough to tell the kind of a file; one block of a tar.
_MAX_WAIT = 120.0  # Seconds; longest pause between two tries.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry:
  """One file that can be downloaded, and how to read it.

  Attributes:
    name: unique; also the folder in the cache.
    title: what was measured, in a line.
    reference: paper with its doi, and who made this version of the file.
    licence: of the file, as its host states it.
    filename: name of the downloaded file.
    url: address, or None where only a person can get the file.
    manual: where a person gets it; needed where `url` is None.
    member: end of the path of the h5ad inside an archive; matches one member.
    preset: one of PRESETS, or None where the fields below say everything.
    key: column of obs that names the perturbation.
    control: its value for control cells.
    separator: joins the perturbations of a label; '' is the preset's own, None
      where a label is always one perturbation.
    covariates: columns of obs that make up a context.
    gene_names: column of var with gene symbols; None where the index has them.
    dose: column of obs with the dose, or None.
    scale: of X, 'counts' or 'log1p'; None where nobody documents it.
    size: bytes of the download, roughly, or None.
    sha256: of the download, or None while it is not known.
    md5: as published by hosts that have no sha256; used where that is None.
    notes: known faults of the file, and what about this entry is unverified.
  """

  name: str
  title: str
  reference: str
  licence: str
  filename: str
  preset: str | None
  key: str
  control: str
  url: str | None = None
  manual: str = ''
  member: str | None = None
  separator: str | None = ''
  covariates: tuple[str, ...] = ()
  gene_names: str | None = None
  dose: str | None = None
  scale: str | None = 'counts'
  size: int | None = None
  sha256: str | None = None
  md5: str | None = None
  notes: tuple[str, ...] = ()

  def __post_init__(self):
    def refuse(field, allowed):
      value = getattr(self, field)
      raise ValueError(
        f'dataset {self.name!r}: {field} is {value!r}; allowed: {allowed}'
      )

    if not re.fullmatch(r'[a-z0-9][a-z0-9_]*', self.name):
      refuse('name', 'lower-case letters, digits and _')
    if pathlib.PurePath(self.filename).name != self.filename:
      refuse('filename', 'a name without folders')
    if not self.filename.endswith(_SUFFIXES):
      refuse('filename', f'names that end in {", ".join(_SUFFIXES)}')
    if self.filename.endswith(_ARCHIVES) != (self.member is not None):
      refuse('member', 'a path for archives, None for other files')
    if self.preset not in (*PRESETS, None):
      refuse('preset', (*PRESETS, None))
    if self.preset is None and self.separator == '':
      refuse('separator', 'a separator or None, as there is no preset')
    if self.scale not in (*SCALES, None):
      refuse('scale', (*SCALES, None))
    if self.url is None and not self.manual:
      refuse('manual', 'where to get the file, as there is no url')
    for field, digits in (('sha256', 64), ('md5', 32)):
      value = getattr(self, field)
      if value is not None and not re.fullmatch(f'[0-9a-f]{{{digits}}}', value):
        refuse(field, f'{digits} lower-case hexadecimal digits, or None')

  @property
  def local_name(self) -> str:
    """Name of the h5ad in the cache, unpacked where it was packed."""
    name = pathlib.PurePosixPath(self.member or self.filename).name
    return name.removesuffix('.gz')


class DownloadError(OSError):
  """A file could not be downloaded; the message says what to do."""


class _TransientError(Exception):
  """A failure that may pass: the download is tried again."""

  def __init__(self, message: str, wait: float = 0.0):
    super().__init__(message)
    self.wait = wait


class _Job(NamedTuple):
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
    return DownloadError(f'{name}: {fault}. {_by_hand(self)}')


def names() -> tuple[str, ...]:
  """Returns the names of all datasets, sorted."""
  return tuple(sorted(_TABLE))


def get(name: str) -> Entry:
  """Returns the entry of a dataset.

  Raises:
    ValueError: no dataset has this name; the message names the closest.
  """
  if name not in _TABLE:
    close = difflib.get_close_matches(name, _TABLE, n=3, cutoff=0.5)
    hint = f'did you mean {", ".join(close)}? ' if close else ''
    raise ValueError(
      f'unknown dataset {name!r}: {hint}allowed: {", ".join(names())}'
    )
  return _TABLE[name]


def describe() -> pd.DataFrame:
  """Returns a table of all datasets, one row each, for people to read."""
  return pd.DataFrame(
    [
      {
        'name': entry.name,
        'title': entry.title,
        'MB': None if entry.size is None else round(entry.size / 1e6),
        'scale': entry.scale,
        'preset': entry.preset,
        'download': 'by hand' if entry.url is None else 'automatic',
        'licence': entry.licence,
        'reference': entry.reference,
        'notes': '; '.join(entry.notes),
      }
      for entry in map(get, names())
    ]
  ).astype({'MB': 'Int64'})


def cache_folder(cache_dir: str | os.PathLike | None = None) -> pathlib.Path:
  """Returns the cache: the argument, $PERTJAX_CACHE, or the system's place."""
  chosen = cache_dir or os.environ.get(CACHE_VARIABLE)
  return pathlib.Path(chosen or pooch.os_cache('pertjax')).expanduser()


def local_path(
  name: str | Entry, *, cache_dir: str | os.PathLike | None = None
) -> pathlib.Path:
  """Returns where the h5ad of a dataset is, or will be."""
  entry = name if isinstance(name, Entry) else get(name)
  return cache_folder(cache_dir) / entry.name / entry.local_name


def fetch(
  name: str | Entry,
  *,
  cache_dir: str | os.PathLike | None = None,
  progress: bool = True,
  timeout: float = 60.0,
  retries: int = 5,
  backoff: float = 1.0,
) -> pathlib.Path:
  """Returns the path of a dataset's h5ad, downloading it where it is not here.

  A later call reads nothing but the size and the time of change of the file;
  where these differ from the record, the file is hashed again. An interrupted
  download continues where it stopped. Two processes may ask at once: the
  second waits for the first.

  Args:
    name: of a dataset, or an entry of your own.
    cache_dir: see cache_folder.
    progress: whether to write what happens to stderr.
    timeout: seconds without a byte after which a connection counts as dead.
    retries: tries after the first that bring nothing new.
    backoff: seconds before the first of these; doubled for each further one.

  Raises:
    ValueError: unknown name; a checksum differs; an archive is damaged.
    FileNotFoundError: only a person can get this file; says where, and where
      to put it.
    DownloadError: no connection, an error of the server, a page in place of
      data, a stall. What has arrived is kept and continued by the next call.
    OSError: the disk is too full.
  """
  entry = name if isinstance(name, Entry) else get(name)
  job = _Job(
    entry=entry,
    target=local_path(entry, cache_dir=cache_dir),
    say=_say if progress else _be_silent,
    progress=progress,
    timeout=timeout,
    retries=retries,
    backoff=backoff,
  )
  # Before anything is written: a shared cache may be read-only.
  if not _is_recorded(job):
    job.target.parent.mkdir(parents=True, exist_ok=True)
    with _locked(job):
      if not _is_recorded(job):  # Another process may have been faster.
        _obtain(job)
  return job.target


def _obtain(job: _Job) -> None:
  """Makes a checked, recorded file of what is here or on the server."""
  by_hand = job.target.with_name(job.entry.filename)
  if job.target.exists():
    _check_again(job)
  elif by_hand.exists():  # Packed: otherwise it would be the target.
    job.say(f'{job.entry.name}: found {by_hand}, put there by hand')
    _check_head(job.entry.filename, by_hand)
    _install(job, by_hand)
  elif job.entry.url is None:
    raise FileNotFoundError(
      f'dataset {job.entry.name!r} cannot be downloaded by a program. '
      + _by_hand(job)
    )
  else:
    _download(job)
    _install(job, job.part)
    job.drop_part()


# Files: kinds, checksums, unpacking.


def _kind(head: bytes, filename: str) -> str | None:
  """Says what a file's first bytes show instead of what its name promises."""
  if filename.endswith('.h5ad'):
    good, promised = head.startswith(b'\x89HDF\r\n\x1a\n'), 'an HDF5 file'
  elif filename.endswith('.zip'):
    good, promised = head.startswith(b'PK\x03\x04'), 'a zip archive'
  elif filename.endswith('.tar'):
    promised = 'a tar archive'
    try:
      tarfile.TarInfo.frombuf(head[:_HEAD], 'utf-8', 'surrogateescape')
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


def _check_head(filename: str, path: pathlib.Path) -> None:
  with path.open('rb') as file:
    fault = _kind(file.read(_HEAD), filename)
  if fault:
    raise ValueError(f'{path} is {fault}. Remove it, then fetch again')


def _read_json(path: pathlib.Path) -> dict[str, Any]:
  if not path.exists():
    return {}
  try:
    return json.loads(path.read_text(encoding='utf-8'))
  except json.JSONDecodeError as error:
    raise ValueError(
      f'{path} is not readable ({error}); remove it to start anew'
    ) from error


def _write_json(path: pathlib.Path, content: dict[str, Any]) -> None:
  temporary = path.with_name(path.name + '.tmp')
  temporary.write_text(json.dumps(content, indent=2) + '\n', encoding='utf-8')
  os.replace(temporary, path)


def _stamp(path: pathlib.Path) -> dict[str, int]:
  status = path.stat()
  return {'size': status.st_size, 'mtime_ns': status.st_mtime_ns}


def _is_recorded(job: _Job) -> bool:
  """Says whether the file is the recorded one, by its size and time alone."""
  if not job.target.exists():
    return False
  record = _read_json(job.record)
  known = record.get('download', {}).get('sha256')
  if job.entry.sha256 and known and job.entry.sha256 != known:
    raise ValueError(
      f'{job.target} came from a download with sha256 {known}, but the '
      f'catalogue has {job.entry.sha256}. Remove {job.target.parent} to '
      'download it again'
    )
  return _stamp(job.target).items() <= record.get('file', {}).items()


def _check_again(job: _Job) -> None:
  """Hashes a file that has no record, or another time than its record."""
  entry, target = job.entry, job.target
  record = _read_json(job.record)
  job.say(f'{entry.name}: checking {target}')
  _check_head(entry.local_name, target)
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
  _write_json(job.record, record)


def _check_download(job: _Job, path: pathlib.Path, found: str) -> None:
  """Compares a download with the catalogue, or with the first download."""
  entry = job.entry
  what, expected = 'the catalogue has sha256', entry.sha256
  if expected is None and entry.md5 is not None:
    found = pooch.file_hash(str(path), alg='md5')
    what, expected = 'the catalogue has md5', entry.md5
  if expected is None:
    what = 'the first download had sha256'
    expected = _read_json(job.record).get('download', {}).get('sha256')
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


def _install(job: _Job, source: pathlib.Path) -> None:
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
      _check_head(entry.local_name, ready)
    except BaseException:
      ready.unlink(missing_ok=True)
      raise
    sha256 = pooch.file_hash(str(ready), alg='sha256')
  # The record first: a file without one would pass for put there by hand.
  _write_json(
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
      _check_space(target.parent, sizes.get(member, 0), entry)
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


def _find_member(entry: Entry, source: pathlib.Path, sizes) -> str:
  wanted = pathlib.PurePosixPath(entry.member).parts
  found = [
    name
    for name in sizes
    if pathlib.PurePosixPath(name).parts[-len(wanted) :] == wanted
  ]
  if len(found) != 1:
    inside = [name for name in sizes if not name.endswith('/')]
    close = difflib.get_close_matches(entry.member, inside, n=3, cutoff=0)
    raise ValueError(
      f'{source} must hold one file {entry.member!r}; it holds {len(found)} '
      f'among {len(inside)} files. Closest: {", ".join(found or close)}'
    )
  return found[0]


def _check_space(folder: pathlib.Path, needed: int, entry: Entry) -> None:
  free = shutil.disk_usage(folder).free
  if needed > free:
    raise OSError(
      errno.ENOSPC,
      f'dataset {entry.name!r} needs {needed / 1e6:.0f} MB more in {folder}, '
      f'where {free / 1e6:.0f} MB are free. Make room, or choose another place '
      f'with cache_dir or ${CACHE_VARIABLE}',
    )


def _by_hand(job: _Job) -> str:
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
def _locked(job: _Job) -> Iterator[None]:
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


# HTTP.


def _download(job: _Job) -> None:
  """Completes the part, in as many tries as bring it further."""
  failures, furthest = 0, job.size()
  while True:
    try:
      _try_download(job)
      return
    except _TransientError as error:
      failures = failures + 1 if job.size() <= furthest else 1
      furthest = max(furthest, job.size())
      if failures > job.retries:
        fault = f'{error} ({job.entry.url}; tries: {failures})'
        if job.size():
          fault += f'. {job.size():,} bytes are kept at {job.part}; '
          fault += 'fetch again to continue'
        raise job.refusal(fault) from error
      wait = min(_MAX_WAIT, max(error.wait, job.backoff * 2 ** (failures - 1)))
      job.say(f'{job.entry.name}: {error}; trying again in {wait:.0f} s')
      time.sleep(wait)


def _try_download(job: _Job) -> None:
  """Asks for what the part lacks, once, and appends what comes."""
  entry = job.entry
  known = _read_json(job.part_record)
  start = job.size()
  # A part without its record, or too short to tell its kind, is of no use.
  if start < _HEAD or known.get('url') != entry.url:
    start = 0
  if start and start == known.get('total'):
    return
  with _ask(job, start, known.get('version')) as response:
    if start and response.status_code == 416:
      job.drop_part()
      raise _TransientError('the server has less than is already here')
    _check_answer(job, response, start)
    if start and response.status_code == 200:
      start = 0
      job.say(f'{entry.name}: the server cannot continue; starting anew')
    content_range = response.headers.get('Content-Range', '')
    total = _total(response, start)
    if start and not (
      known.get('total') in (None, total)
      and content_range.startswith(f'bytes {start}-')
    ):
      job.drop_part()
      raise _TransientError('the file on the server has changed')
    needed = (total or entry.size or start) - start
    _check_space(job.target.parent, needed, entry)
    blocks = _blocks(response, job.timeout)
    first = b''
    while not start and len(first) < _HEAD and (block := next(blocks, b'')):
      first += block
    if not start and (fault := _kind(first, entry.filename)):
      raise job.refusal(f'what {entry.url} sends is {fault}')
    version = _version(response)
    _write_json(
      job.part_record, {'url': entry.url, 'total': total, 'version': version}
    )
    _append(job, start, total, itertools.chain([first], blocks))


def _ask(job: _Job, start: int, version: str | None) -> requests.Response:
  headers = {
    # Some hosts refuse the agents that libraries name by default.
    'User-Agent': f'pertjax/{pertjax.__version__}',
    # Ranges and lengths must count the bytes of the file itself.
    'Accept-Encoding': 'identity',
  }
  if start:
    headers['Range'] = f'bytes={start}-'
    if version:
      headers['If-Range'] = version
  url, timeout = job.entry.url, job.timeout
  try:
    return requests.get(url, headers=headers, stream=True, timeout=timeout)
  except requests.Timeout as error:
    raise _TransientError(f'no answer in {timeout:g} s') from error
  except requests.ConnectionError as error:
    raise _TransientError(
      f'no connection, is this machine offline? ({_reason(error)})'
    ) from error
  except requests.RequestException as error:
    raise job.refusal(f'{url} cannot be read: {error}') from error


def _reason(error: BaseException) -> str:
  """The innermost cause in words: requests wraps errors three deep."""
  while error.args and isinstance(error.args[0], BaseException):
    error = error.args[0]
  cause = getattr(error, 'reason', None)
  return _reason(cause) if isinstance(cause, BaseException) else str(error)


def _check_answer(job: _Job, response: requests.Response, start: int) -> None:
  """Raises where an answer is not data."""
  status = response.status_code
  name = f'HTTP {status} {response.reason or ""}'.strip()
  if status in (408, 425, 429) or status >= 500:
    wait = response.headers.get('Retry-After', '')
    wait = float(wait) if wait.isdecimal() else 0.0
    raise _TransientError(f'the server answers {name}', wait)
  kind = response.headers.get('Content-Type', '').split(';')[0].strip().lower()
  if status == 200 or (status == 206 and start):
    if kind not in ('text/html', 'application/xhtml+xml'):
      return
    name += ' with an HTML page in place of data'
  elif 'x-amzn-waf-action' in response.headers:
    # Dataverse and figshare: an empty 202, or a script for a browser to solve.
    name += ', a challenge that only a browser can solve'
  raise job.refusal(f'{job.entry.url} answers {name}')


def _total(response: requests.Response, start: int) -> int | None:
  """Bytes of the whole file, or None where the server does not tell."""
  content_range = response.headers.get('Content-Range', '')
  match = re.fullmatch(r'bytes \d+-\d+/(\d+)', content_range)
  if start and match:
    return int(match[1])
  length = response.headers.get('Content-Length', '')
  return start + int(length) if length.isdecimal() else None


def _version(response: requests.Response) -> str | None:
  """What tells this version of the file from others; RFC 9110, 13.1.5."""
  etag = response.headers.get('ETag', '')
  # A weak tag (W/) does not promise equal bytes.
  return etag if etag[:1] == '"' else response.headers.get('Last-Modified')


def _blocks(response: requests.Response, timeout: float) -> Iterator[bytes]:
  """The bytes as they are sent; a failing connection is a transient error."""
  while True:
    try:
      block = response.raw.read(_CHUNK, decode_content=False)
    except (urllib3.exceptions.ReadTimeoutError, TimeoutError) as error:
      raise _TransientError(f'nothing came for {timeout:g} s') from error
    except (urllib3.exceptions.HTTPError, OSError) as error:
      raise _TransientError(f'the connection broke ({error})') from error
    if not block:
      return
    yield block


def _append(
  job: _Job, start: int, total: int | None, blocks: Iterable[bytes]
) -> None:
  done = start
  name, size = job.entry.name, total or job.entry.size
  update, close = _reporter(name, start, size, sys.stderr, job.progress)
  try:
    with job.part.open('ab' if start else 'wb') as file:
      for block in blocks:
        file.write(block)
        done += len(block)
        update(len(block))
  finally:
    close()
  if total is not None and done != total:
    raise _TransientError(
      f'the connection ended at {done:,} of {total:,} bytes'
    )


# Progress.


def _say(line: str) -> None:
  sys.stderr.write(line + '\n')
  sys.stderr.flush()


def _be_silent(line: str) -> None:
  del line


def _reporter(
  name: str, start: int, total: int | None, stream: IO[str], progress: bool
) -> tuple[Callable[[int], Any], Callable[[], Any]]:
  """Makes (update, close): a bar on a terminal, a line now and then elsewhere.

  Args:
    name: of the dataset.
    start: bytes that were here before.
    total: bytes of the whole file, or None.
    stream: where to write.
    progress: whether to write.
  """
  if not progress:
    return lambda _: None, lambda: None
  if tqdm is not None and stream.isatty():
    bar = tqdm.tqdm(
      desc=name,
      initial=start,
      total=total,
      unit='B',
      unit_scale=True,
      file=stream,
    )
    return bar.update, bar.close

  began = time.monotonic()
  done, last_time, last_tenth = start, began, 10 * start // (total or 1)

  def update(count: int) -> None:
    nonlocal done, last_time, last_tenth
    done += count
    now = time.monotonic()
    tenth = min(10 * done // total, 10) if total else last_tenth
    if tenth > last_tenth or now - last_time > 30:
      last_time, last_tenth = now, tenth
      stream.write(_progress_line(name, done, start, total, now - began) + '\n')
      stream.flush()

  return update, lambda: None


def _progress_line(
  name: str, done: int, start: int, total: int | None, seconds: float
) -> str:
  rate = (done - start) / max(seconds, 1e-3)
  line = f'{name}: {done / 1e6:.1f} MB'
  if total:
    line += f' of {total / 1e6:.1f} ({100 * done / total:.0f}%)'
  line += f', {rate / 1e6:.1f} MB/s'
  if total and rate > 0:
    line += f', {max(0, total - done) / rate:.0f} s left'
  return line


# The table.

_SCPERTURB = 'scPerturb: Peidli et al. 2024, doi:10.1038/s41592-023-02144-y'
_GEARS = 'GEARS: Roohani et al. 2024, doi:10.1038/s41587-023-01905-6'
_PERTURBENCH = 'PerturBench: Wu et al. 2025, arXiv:2408.10609'
_NORMAN = 'Norman et al. 2019, Science 365:786, doi:10.1126/science.aax4438'
_ADAMSON = 'Adamson et al. 2016, Cell 167:1867, doi:10.1016/j.cell.2016.11.048'
_DIXIT = 'Dixit et al. 2016, Cell 167:1853, doi:10.1016/j.cell.2016.11.038'
_REPLOGLE = (
  'Replogle et al. 2022, Cell 185:2559, doi:10.1016/j.cell.2022.05.013'
)
_KANG = 'Kang et al. 2018, Nat Biotechnol 36:89, doi:10.1038/nbt.4042'
_SRIVATSAN = (
  'Srivatsan et al. 2020, Science 367:45, doi:10.1126/science.aax6234'
)
_FRANGIEH = (
  'Frangieh et al. 2021, Nat Genet 53:332, doi:10.1038/s41588-021-00779-1'
)
_MCFALINE = (
  'McFaline-Figueroa et al. 2024, Cell Genom 4:100487, '
  'doi:10.1016/j.xgen.2023.100487'
)
_COUNTS = "counts are in layers['counts']"
_UNKNOWN_HASH = 'unverified: no published checksum found'
# Files of a public benchmark of prediction for unseen cell types.
_OOD_FOLDER = (
  'https://drive.google.com/drive/folders/1zcTdTAmcDprXYFJ8EGLado6AP0-H9fX-'
)


def _gears(name: str, file_id: int, title: str, paper: str, **more) -> Entry:
  """A dataset as GEARS distributes it: doi:10.7910/DVN/Q2ZV3E."""
  notes = more.pop('notes', ()) + (
    'X is cut to about 5,000 variable genes',
    'A+ctrl and ctrl+A are one condition',
    'Dataverse at times answers programs with a challenge for browsers',
  )
  return Entry(
    name=name,
    title=title,
    reference=f'{paper}; {_GEARS}',
    licence='CC0 1.0',
    url=f'https://dataverse.harvard.edu/api/access/datafile/{file_id}',
    filename=f'{name}.zip',
    member='perturb_processed.h5ad',
    preset='gears',
    key='condition',
    control='ctrl',
    covariates=('cell_type',),
    gene_names='gene_name',
    scale='log1p',
    notes=notes,
    **more,
  )


def _scperturb(
  name: str, filename: str, title: str, paper: str, **more
) -> Entry:
  """A dataset of scPerturb's RNA collection on Zenodo, version 1.4 or 1.3."""
  record = more.pop('record', 13350497)
  return Entry(
    **{
      'name': name,
      'title': title,
      'reference': f'{paper}; {_SCPERTURB}',
      'licence': 'CC BY 4.0',
      'url': f'https://zenodo.org/records/{record}/files/{filename}?download=1',
      'filename': filename,
      'preset': 'scperturb',
      'key': 'perturbation',
      'control': 'control',
      'covariates': ('cell_line',),
      'scale': 'counts',
      **more,
    }
  )


def _perturbench(
  name: str, filename: str, title: str, paper: str, **more
) -> Entry:
  """A dataset as PerturBench curated it, on Hugging Face."""
  host = 'https://huggingface.co/datasets/altoslabs/perturbench/resolve/main/'
  notes = more.pop('notes', ()) + (
    'the card says CC BY 4.0, its machine-readable part CC BY-NC 4.0',
    'the address follows the main branch, which may change',
  )
  return Entry(
    **{
      'name': name,
      'title': title,
      'reference': f'{paper}; {_PERTURBENCH}',
      'licence': 'CC BY 4.0',
      'url': host + filename,
      'filename': filename,
      'preset': 'perturbench',
      'key': 'condition',
      'control': 'control',
      'covariates': ('cell_type',),
      'scale': 'log1p',
      'notes': notes,
      **more,
    }
  )


_ENTRIES = (
  _gears(
    'norman2019_gears',
    6154020,
    'Perturb-seq, CRISPRa of 105 genes and 131 pairs in K562; 91,205 cells',
    _NORMAN,
    size=168_758_985,
    sha256='c1938353f6f41829c9137f073ecb843ce4d4114528b001b48312b019f739d877',
    md5='cdc41d6050e619c37fd9dd44d440e2b4',
    notes=(
      'cell_type says A549; the cells are K562',
      '47 genes occur both as A+ctrl and as ctrl+A',
      _COUNTS,
      'unpacked 2.2 GB',
    ),
  ),
  _gears(
    'adamson2016_gears',
    6154417,
    'Perturb-seq, CRISPRi of 86 genes in K562; 68,603 cells',
    _ADAMSON,
    size=140_744_228,
    md5='0bde631bae60ee8c105991ff0e0d4a20',
    notes=('cell_type says K562(?)',),
  ),
  _gears(
    'dixit2016_gears',
    6154416,
    'Perturb-seq, CRISPR knock-out of 19 genes; 44,735 cells',
    _DIXIT,
    notes=(_UNKNOWN_HASH,),
  ),
  _gears(
    'replogle2022_k562_gears',
    7458695,
    'Perturb-seq, CRISPRi of 1,092 essential genes in K562; 162,751 cells',
    _REPLOGLE,
    md5='84eed779531de88f83d3eb16a773a261',
    notes=(
      'only perturbations with strong effects; not the whole screen',
      'one gene_name occurs twice',
      'unverified: checksum seen in one place',
    ),
  ),
  _gears(
    'replogle2022_rpe1_gears',
    7458694,
    'Perturb-seq, CRISPRi of 1,543 essential genes in RPE1; 162,733 cells',
    _REPLOGLE,
    size=665_914_266,
    md5='169370a8da6093470f122172ab30f7c5',
    notes=('only perturbations with strong effects; not the whole screen',),
  ),
  _scperturb(
    'norman2019_scperturb',
    'NormanWeissman2019_filtered.h5ad',
    'Perturb-seq, CRISPRa of 105 genes and 131 pairs in K562; 111,445 cells',
    _NORMAN,
    size=698_680_199,
    sha256='efde6f5301fe256725dce1d980f37bd96a13481a9a16135515897368e631affc',
    md5='c870e6967d91c017d9da827bab183cd6',
  ),
  _scperturb(
    'replogle2022_k562_scperturb',
    'ReplogleWeissman2022_K562_essential.h5ad',
    'Perturb-seq, CRISPRi of essential genes in K562; 310,385 cells',
    _REPLOGLE,
    size=1_546_729_675,
    sha256='412fd0df8c4ccea9f4db91cd88033c49200838b29d40945e48574be588b48789',
    md5='d8cba17576d1a8afc0f7d71b79cad0f7',
  ),
  _scperturb(
    'replogle2022_rpe1_scperturb',
    'ReplogleWeissman2022_rpe1.h5ad',
    'Perturb-seq, CRISPRi of essential genes in RPE1; 247,914 cells',
    _REPLOGLE,
    size=1_236_886_900,
    sha256='12d6a0cf9378c4f09411e27f0ce07b59f1d97731bd576d6fadf112f6f088d1a4',
    md5='cc7f1ec50aeb3a3e1b4a6cfa713d80fa',
  ),
  _scperturb(
    'replogle2022_k562_gwps_scperturb',
    'ReplogleWeissman2022_K562_gwps.h5ad',
    'Perturb-seq, CRISPRi of all expressed genes in K562',
    _REPLOGLE,
    size=8_810_000_000,
    md5='13db594f8f1d2ccb88fec44a13e414dc',
    notes=('about two million cells: larger than most memories',),
  ),
  _scperturb(
    'srivatsan2020_scperturb',
    'SrivatsanTrapnell2020_sciplex3.h5ad',
    'sci-Plex 3, 188 compounds at 4 doses in A549, K562, MCF7; 799,317 cells',
    _SRIVATSAN,
    separator=None,
    dose='dose_value',
    size=2_526_631_614,
    md5='c9e70629505d98c7ca1a837f62b14e89',
    notes=(
      '36,522 cells have no treatment: leave them out',
      'names of compounds hold + and blanks',
      'var has Ensembl ids in ensembl_id',
      'earlier releases (md5 d1f51b9f...) have gene labels shifted by one row',
    ),
  ),
  _scperturb(
    'frangieh2021_scperturb',
    'FrangiehIzar2021_RNA.h5ad',
    'Perturb-CITE-seq, knock-out of 248 genes in melanoma cells, alone, with '
    'interferon-gamma or with T cells; 218,331 cells',
    _FRANGIEH,
    record=10044268,
    covariates=('perturbation_2',),
    size=1_458_928_348,
    md5='dc438f53c476a3dd562898654d48ed15',
    notes=(
      'unverified: perturbation is said to name only the first of several '
      'targeted genes and to call cells with mixed guides controls',
    ),
  ),
  Entry(
    name='norman2019_cpa',
    title='Perturb-seq, CRISPRa in K562, as prepared for CPA; 108,497 cells '
    'by 5,000 genes. The file of the discrepancy VAE and of SENA',
    reference=f'{_NORMAN}; CPA: Lotfollahi et al. 2023',
    licence='not stated for the data',
    url='https://dl.fbaipublicfiles.com/dlp/cpa_binaries.tar',
    filename='cpa_binaries.tar',
    member='Norman2019_raw.h5ad',
    preset='cpa',
    key='guide_ids',
    control='',
    gene_names='gene_symbols',
    scale='log1p',
    notes=(
      'named raw, but X is normalised, log1p and cut to variable genes',
      'var_names are Ensembl ids',
      'the archive is large: it holds other datasets and trained models',
      _UNKNOWN_HASH,
    ),
  ),
  Entry(
    name='norman2019_sena',
    title='The CPA file of Norman 2019, reduced by the authors of SENA',
    reference=f'{_NORMAN}; SENA: arXiv:2506.12439',
    licence='MIT (repository)',
    url='https://raw.githubusercontent.com/ML4BM-Lab/SENA/refs/heads/master/'
    'data/Norman2019_reduced.zip',
    filename='Norman2019_reduced.zip',
    member='Norman2019_reduced.h5ad',
    preset='cpa',
    key='guide_ids',
    control='',
    scale='log1p',
    notes=(
      'how it was reduced is not documented',
      'unverified: address seen once, scale assumed to be that of the CPA file',
      _UNKNOWN_HASH,
    ),
  ),
  Entry(
    name='kang2018',
    title='PBMC of 8 lupus patients with and without interferon-beta; 24,673 '
    'cells by 15,706 genes',
    reference=f'{_KANG}; prepared for pertpy',
    licence='not stated by the host',
    url='https://exampledata.scverse.org/pertpy/kang_2018.h5ad',
    manual='the same file is figshare file 34464122',
    filename='kang_2018.h5ad',
    preset=None,
    key='label',
    separator=None,
    control='ctrl',
    covariates=('cell_type',),
    size=38_356_412,
    sha256='e6a5adac64dcdeb36eaba27db49b63e0c64bb0ed4a64c6705971506b41c39830',
    notes=('donors are in replicate',),
  ),
  Entry(
    name='kang2018_scgen',
    title='PBMC with and without interferon-beta, as prepared for scGen; '
    '18,868 cells by 6,998 genes',
    reference=f'{_KANG}; scGen: Lotfollahi et al. 2019',
    licence='not stated by the host',
    manual=f'pbmc/pbmc.h5ad in {_OOD_FOLDER}',
    filename='pbmc.h5ad',
    preset=None,
    key='condition',
    separator=None,
    control='control',
    covariates=('cell_type',),
    scale='log1p',
    notes=('train and validation file of scGen together', _UNKNOWN_HASH),
  ),
  Entry(
    name='hagai2018_scgen',
    title='Phagocytes of 4 species, 6 h of LPS, as prepared for scGen; 62,114 '
    'cells by 6,619 genes',
    reference='Hagai et al. 2018, Nature 563:197, '
    'doi:10.1038/s41586-018-0657-2; scGen: Lotfollahi et al. 2019',
    licence='not stated by the host',
    manual=f'cross_species/cross_species.h5ad in {_OOD_FOLDER}',
    filename='cross_species.h5ad',
    preset=None,
    key='condition',
    separator=None,
    control='unst',
    covariates=('species',),
    scale='log1p',
    notes=(_UNKNOWN_HASH,),
  ),
  Entry(
    name='nault2021',
    title='Mouse liver nuclei, TCDD at 8 doses, 11 cell types',
    reference='Nault et al. 2022, Nucleic Acids Res 50:e48, '
    'doi:10.1093/nar/gkac019 (GEO GSE184506); scVIDR: '
    'doi:10.1101/2022.10.05.510890',
    licence='not stated by the host',
    manual='data.zip of https://github.com/BhattacharyaLab/scVIDR (section '
    f'Data), or scvidr/nault2021_multiDose.h5ad in {_OOD_FOLDER}',
    filename='nault2021_multiDose.h5ad',
    preset=None,
    key='Dose',
    control='0.0',
    separator=None,
    covariates=('celltype',),
    notes=(
      'one compound: the dose (ug/kg) is the condition, 0 the control',
      'Dose holds numbers: turn it into text first',
      _UNKNOWN_HASH,
    ),
  ),
  Entry(
    name='wessels2023_sena',
    title='CaRPool-seq, Cas13 knock-down of CD46, CD55, CD71 and pairs in '
    'HEK293FT',
    reference='Wessels et al. 2023, Nat Methods 20:86, '
    'doi:10.1038/s41592-022-01705-x; SENA: arXiv:2506.12439',
    licence='MIT (repository)',
    manual='data/wessel_dataset/HEK293FT_carpool_processed.h5ad of '
    'https://github.com/ML4BM-Lab/SENA, or raw counts from GEO GSE213957',
    filename='HEK293FT_carpool_processed.h5ad',
    preset='scperturb',
    key='TargetGenes',
    control='NT',
    scale=None,
    notes=(
      'var_names are Ensembl ids',
      'unverified: whether the repository still holds the file',
    ),
  ),
  _perturbench(
    'norman2019_perturbench',
    'norman19_processed.h5ad.gz',
    'Perturb-seq, CRISPRa of genes and pairs in K562; 91,168 cells',
    _NORMAN,
    notes=(_COUNTS, _UNKNOWN_HASH),
  ),
  _perturbench(
    'norman2019_perturbench_cpa',
    'norman19_cpa_hvg_normalized_curated.h5ad',
    'The CPA file of Norman 2019 in PerturBench names',
    _NORMAN,
    notes=(_UNKNOWN_HASH,),
  ),
  _perturbench(
    'srivatsan2020_perturbench',
    'srivatsan20_highest_dose_processed.h5ad.gz',
    'sci-Plex 3 at 10 uM, 188 compounds in 3 lines; 178,213 cells',
    _SRIVATSAN,
    separator=None,
    notes=('made by the pipeline of chemCPA', _COUNTS, _UNKNOWN_HASH),
  ),
  _perturbench(
    'frangieh2021_perturbench',
    'frangieh21_processed.h5ad.gz',
    'Perturb-CITE-seq, knock-out of 248 genes in melanoma cells, 3 treatments; '
    '218,331 cells',
    _FRANGIEH,
    covariates=('treatment',),
    notes=(_COUNTS, _UNKNOWN_HASH),
  ),
  _perturbench(
    'mcfaline2023_perturbench',
    'mcfaline23_gxe_processed.h5ad.gz',
    'sci-Plex-GxE, CRISPRi of kinases in 3 glioblastoma lines, 5 treatments; '
    '878,229 cells by 15,009 genes',
    _MCFALINE,
    covariates=('cell_type', 'treatment'),
    size=5_549_946_093,
    sha256='34db710ad850b5b5fd478d123f1c10ae3d5aaa013fce6061be8216ea27aed215',
    notes=(
      'its genes hold about 72% of the counts; the depth is obs ncounts',
      'raw data: GEO GSE225775',
      _COUNTS,
    ),
  ),
  _perturbench(
    'jiang2024_perturbench',
    'jiang24_processed.h5ad.gz',
    'Perturb-seq, knock-out in 6 lines, 5 cytokines; 1,628,476 cells',
    'Jiang et al. 2025, Nat Cell Biol, doi:10.1038/s41556-025-01622-z',
    covariates=('cell_type', 'treatment'),
    size=15_232_554_616,
    sha256='dd890a8019b8a615010963b32e6e28ce42fd0b94a749602bc93efb2fa8af56cc',
    notes=(_COUNTS,),
  ),
  _perturbench(
    'op3_perturbench',
    'op3_processed.h5ad.gz',
    'Open Problems perturbation prediction, 144 compounds in PBMC; 298,087 '
    'cells',
    'Szalata et al. 2024, NeurIPS, openreview WTI4RJYSVm (GEO GSE279945)',
    preset=None,
    key='SMILES',
    control='C[S+](C)[O-]',
    separator=None,
    notes=(
      'the key holds SMILES, with + in them; the control is DMSO',
      'unverified: scale, taken from the rule of PerturBench',
      _UNKNOWN_HASH,
    ),
  ),
)
_TABLE = {entry.name: entry for entry in _ENTRIES}
if len(_TABLE) != len(_ENTRIES):
  raise ValueError('two datasets of the catalogue have the same name')
