"""Downloads that continue where they stopped, and what is told of them."""

from __future__ import annotations

import itertools
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import IO, Any

import requests
import tqdm
import urllib3

import pertjax
from pertjax.data import catalog_files

_CHUNK = 1 << 16
_MAX_WAIT = 120.0  # Seconds; longest pause between two tries.


class TransientError(Exception):
  """A failure that may pass: the download is tried again."""

  def __init__(self, message: str, wait: float = 0.0):
    super().__init__(message)
    self.wait = wait


def complete(job: catalog_files.Job) -> None:
  """Completes the part, in as many tries as bring it further."""
  failures, furthest = 0, job.size()
  while True:
    try:
      _try_download(job)
      return
    except TransientError as error:
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


def _try_download(job: catalog_files.Job) -> None:
  """Asks for what the part lacks, once, and appends what comes."""
  entry = job.entry
  known = catalog_files.read_json(job.part_record)
  start = job.size()
  # A part without its record, or too short to tell its kind, is of no use.
  if start < catalog_files.HEAD or known.get('url') != entry.url:
    start = 0
  if start and start == known.get('total'):
    return
  with _ask(job, start, known.get('version')) as response:
    if start and response.status_code == 416:
      job.drop_part()
      raise TransientError('the server has less than is already here')
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
      raise TransientError('the file on the server has changed')
    needed = (total or entry.size or start) - start
    catalog_files.check_space(job.target.parent, needed, entry)
    blocks = _blocks(response, job.timeout)
    first = b''
    while (
      not start
      and len(first) < catalog_files.HEAD
      and (block := next(blocks, b''))
    ):
      first += block
    if not start and (fault := catalog_files.kind(first, entry.filename)):
      raise job.refusal(f'what {entry.url} sends is {fault}')
    version = _version(response)
    catalog_files.write_json(
      job.part_record, {'url': entry.url, 'total': total, 'version': version}
    )
    _append(job, start, total, itertools.chain([first], blocks))


def _ask(
  job: catalog_files.Job, start: int, version: str | None
) -> requests.Response:
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
    raise TransientError(f'no answer in {timeout:g} s') from error
  except requests.ConnectionError as error:
    raise TransientError(
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


def _check_answer(
  job: catalog_files.Job, response: requests.Response, start: int
) -> None:
  """Raises where an answer is not data."""
  status = response.status_code
  name = f'HTTP {status} {response.reason or ""}'.strip()
  if status in (408, 425, 429) or status >= 500:
    wait = response.headers.get('Retry-After', '')
    wait = float(wait) if wait.isdecimal() else 0.0
    raise TransientError(f'the server answers {name}', wait)
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
      raise TransientError(f'nothing came for {timeout:g} s') from error
    except (urllib3.exceptions.HTTPError, OSError) as error:
      raise TransientError(f'the connection broke ({error})') from error
    if not block:
      return
    yield block


def _append(
  job: catalog_files.Job, start: int, total: int | None, blocks: Iterable[bytes]
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
    raise TransientError(f'the connection ended at {done:,} of {total:,} bytes')


def say(line: str) -> None:
  """Writes a line to stderr."""
  sys.stderr.write(line + '\n')
  sys.stderr.flush()


def be_silent(line: str) -> None:
  """Writes nothing."""
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
  if stream.isatty():
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
