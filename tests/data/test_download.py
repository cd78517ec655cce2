"""Downloads from a server that misbehaves."""

import concurrent.futures
import dataclasses
import errno
import io
import pathlib
import socket
import subprocess
import sys
import time
import types

import pytest
from toy_dataset import fetch, left_in, make_entry

from pertjax.data import catalog, catalog_files, download

# Interruptions.


def test_a_cut_connection_is_continued_by_the_next_call(
  entry, server, payload, tmp_path
):
  server.faults['/a.h5ad'] = ['truncate', 'none']
  with pytest.raises(catalog.DownloadError, match='fetch again to continue'):
    fetch(entry, tmp_path)
  part = tmp_path / 'toy' / 'a.h5ad.part'
  assert part.read_bytes() == payload[:100_000]
  assert not (tmp_path / 'toy' / 'a.h5ad').exists()
  assert fetch(entry, tmp_path).read_bytes() == payload
  assert server.ranges() == [None, 'bytes=100000-']
  assert left_in(tmp_path) == ['a.h5ad', 'checksum.json']


def test_cuts_that_bring_something_are_continued_in_one_call(
  entry, server, payload, tmp_path
):
  server.faults['/a.h5ad'] = ['truncate']
  assert fetch(entry, tmp_path, retries=1).read_bytes() == payload
  size = len(payload)
  starts = range(100_000, size, 100_000)
  assert server.ranges() == [None, *(f'bytes={s}-' for s in starts)]


def test_a_server_without_ranges_starts_anew(entry, server, payload, tmp_path):
  server.faults['/a.h5ad'] = ['no_range_truncate', 'no_range']
  with pytest.raises(catalog.DownloadError):
    fetch(entry, tmp_path)
  assert fetch(entry, tmp_path).read_bytes() == payload
  assert server.ranges() == [None, 'bytes=100000-']


def test_cuts_that_bring_nothing_new_come_to_an_end(entry, server, tmp_path):
  server.faults['/a.h5ad'] = ['no_range_truncate']
  with pytest.raises(catalog.DownloadError, match='tries: 3'):
    fetch(entry, tmp_path, retries=2)
  assert len(server.requests) == 3


@pytest.mark.parametrize('fault', ['none', 'no_if_range'])
def test_a_file_that_changed_meanwhile_is_not_mixed(
  entry, server, payload, other, tmp_path, fault
):
  server.faults['/a.h5ad'] = ['truncate', fault]
  with pytest.raises(catalog.DownloadError):
    fetch(entry, tmp_path)
  server.files['/a.h5ad'] = other + b'longer'
  assert fetch(entry, tmp_path, retries=1).read_bytes() == other + b'longer'


@pytest.mark.parametrize('validator', ['ETag', 'Last-Modified'])
def test_a_change_that_keeps_the_length_is_not_mixed(
  entry, server, payload, other, tmp_path, validator
):
  server.validator = validator
  server.faults['/a.h5ad'] = ['truncate', 'none']
  with pytest.raises(catalog.DownloadError):
    fetch(entry, tmp_path)
  assert len(other) == len(payload)
  server.files['/a.h5ad'] = other
  assert fetch(entry, tmp_path).read_bytes() == other


def test_a_part_from_another_address_is_not_continued(
  entry, server, other, tmp_path
):
  server.faults['/a.h5ad'] = ['truncate']
  with pytest.raises(catalog.DownloadError):
    fetch(entry, tmp_path)
  server.files['/b.h5ad'] = other
  server.faults['/b.h5ad'] = ['no_if_range']
  moved = dataclasses.replace(entry, url=server.url('/b.h5ad'))
  assert fetch(moved, tmp_path).read_bytes() == other


def test_a_range_without_a_length_is_continued(
  entry, server, payload, tmp_path
):
  server.faults['/a.h5ad'] = ['truncate', 'range_without_length']
  assert fetch(entry, tmp_path, retries=1).read_bytes() == payload
  assert server.ranges() == [None, 'bytes=100000-']


def test_fewer_bytes_than_announced_are_noticed_by_count(entry, tmp_path):
  # Old versions of urllib3 end a cut body without an error.
  job = catalog_files.Job(entry, tmp_path / 'a.h5ad', print, False, 1, 0, 0)
  with pytest.raises(download.TransientError, match='at 6 of 7 bytes'):
    download._append(job, 0, 7, [b'abc', b'def'])
  assert job.part.read_bytes() == b'abcdef'


def test_a_part_longer_than_the_file_is_dropped(
  entry, server, payload, tmp_path
):
  server.faults['/a.h5ad'] = ['truncate', 'no_if_range']
  with pytest.raises(catalog.DownloadError):
    fetch(entry, tmp_path)
  small = payload[:50_000]
  server.files['/a.h5ad'] = small
  assert fetch(entry, tmp_path, retries=1).read_bytes() == small


def test_a_file_of_unknown_length_is_taken_as_it_ends(
  entry, server, payload, tmp_path
):
  server.faults['/a.h5ad'] = ['no_length']
  assert fetch(entry, tmp_path).read_bytes() == payload


@pytest.mark.parametrize('faults', [('stall_at_once',), ('stall',) * 2])
def test_a_stall_ends_in_a_clear_error(entry, server, tmp_path, faults):
  server.faults['/a.h5ad'] = [*faults, 'stall_at_once']
  began = time.monotonic()
  with pytest.raises(catalog.DownloadError, match='0.2 s') as error:
    fetch(entry, tmp_path, timeout=0.2, retries=1)
  assert time.monotonic() - began < 8  # The server would wait for 10 s.
  assert str(tmp_path / 'toy' / 'a.h5ad') in str(error.value)
  assert len(server.requests) >= 2
  assert not (tmp_path / 'toy' / 'a.h5ad').exists()


def test_a_stall_inside_a_body_is_named(entry, server, tmp_path):
  server.faults['/a.h5ad'] = ['stall']
  with pytest.raises(catalog.DownloadError, match='nothing came for 0.8 s'):
    fetch(entry, tmp_path, timeout=0.8)


def test_a_stall_is_continued(entry, server, payload, tmp_path):
  server.faults['/a.h5ad'] = ['stall', 'none']
  path = fetch(entry, tmp_path, timeout=0.5, retries=1)
  assert path.read_bytes() == payload
  # The blocks that came before the stall are not asked for again.
  assert int(server.ranges()[1].strip('bytes=-')) >= 65_536


def test_pauses_between_tries_grow(entry, server, tmp_path, monkeypatch):
  pauses = []
  monkeypatch.setattr(download.time, 'sleep', pauses.append)
  server.faults['/a.h5ad'] = ['busy']
  with pytest.raises(catalog.DownloadError, match='HTTP 503'):
    fetch(entry, tmp_path, retries=3, backoff=2)
  assert pauses == [2, 4, 8]
  server.retry_after = '7'
  with pytest.raises(catalog.DownloadError, match='HTTP 503'):
    fetch(entry, tmp_path, retries=1, backoff=2)
  assert pauses[3:] == [7]


def test_a_busy_server_is_asked_again(entry, server, payload, tmp_path):
  server.faults['/a.h5ad'] = ['busy', 'none']
  assert fetch(entry, tmp_path, retries=1).read_bytes() == payload
  assert len(server.requests) == 2


# What is not data.


@pytest.mark.parametrize(
  ('fault', 'message'),
  [
    ('not_found', 'HTTP 404'),
    ('forbidden', 'HTTP 403'),
    ('page', 'HTML page in place of data'),
    ('disguised_page', 'not an HDF5 file but a page.*403 Forbidden'),
    ('challenge', 'HTTP 202.*only a browser can solve'),
  ],
)
def test_pages_are_never_saved_as_data(entry, server, tmp_path, fault, message):
  server.faults['/a.h5ad'] = [fault]
  with pytest.raises(catalog.DownloadError, match=message) as error:
    fetch(entry, tmp_path, retries=3)
  assert entry.url in str(error.value)
  assert str(tmp_path / 'toy' / 'a.h5ad') in str(error.value)
  assert left_in(tmp_path) == []
  assert len(server.requests) == 1  # Asking again would not help.


def test_a_page_while_resuming_leaves_the_part(
  entry, server, payload, tmp_path
):
  server.faults['/a.h5ad'] = ['truncate', 'page', 'none']
  for _ in range(2):
    with pytest.raises(catalog.DownloadError):
      fetch(entry, tmp_path)
  assert fetch(entry, tmp_path).read_bytes() == payload
  assert server.ranges()[2] == 'bytes=100000-'


@pytest.mark.parametrize(
  ('filename', 'content', 'promised'),
  [
    ('a.h5ad', b'PK\x03\x04' + bytes(600), 'HDF5'),
    ('a.h5ad', b'', 'HDF5'),
    ('a.h5ad.gz', b'\x89HDF\r\n\x1a\n' + bytes(600), 'gzip'),
    ('a.zip', b'\x1f\x8b' + bytes(600), 'zip'),
    ('a.tar', b'PK\x03\x04' + bytes(600), 'tar'),
    ('a.tgz', b'{"error": "gone"}' + bytes(600), 'gzip file but a page'),
  ],
)
def test_the_wrong_kind_of_file_is_refused(
  entry, server, tmp_path, filename, content, promised
):
  server.files['/a.h5ad'] = content
  member = None if filename.startswith('a.h5ad') else 'a.h5ad'
  wrong = dataclasses.replace(entry, filename=filename, member=member)
  with pytest.raises(catalog.DownloadError, match=f'is not an? {promised}'):
    fetch(wrong, tmp_path)
  assert left_in(tmp_path) == []


def test_without_a_connection_the_way_by_hand_is_told(tmp_path, monkeypatch):
  monkeypatch.setenv('NO_PROXY', '127.0.0.1')
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    url = f'http://127.0.0.1:{free.getsockname()[1]}/a.h5ad'
  with pytest.raises(catalog.DownloadError, match='offline') as error:
    fetch(make_entry(url=url), tmp_path, retries=1)
  assert url in str(error.value)
  assert str(tmp_path / 'toy' / 'a.h5ad') in str(error.value)


def test_an_address_that_is_none_is_an_error(tmp_path):
  with pytest.raises(catalog.DownloadError, match='cannot be read'):
    fetch(make_entry(url='no-address'), tmp_path, retries=3)


# Space, company, progress.


def test_a_full_disk_is_told_before(entry, server, tmp_path, monkeypatch):
  usage = types.SimpleNamespace(free=1000)
  monkeypatch.setattr(catalog_files.shutil, 'disk_usage', lambda _: usage)
  with pytest.raises(OSError, match='PERTJAX_CACHE') as error:
    fetch(entry, tmp_path)
  assert error.value.errno == errno.ENOSPC
  assert left_in(tmp_path) == []


def test_two_threads_download_once(entry, server, payload, tmp_path):
  server.faults['/a.h5ad'] = ['slow']
  with concurrent.futures.ThreadPoolExecutor(4) as pool:
    jobs = [pool.submit(fetch, entry, tmp_path) for _ in range(4)]
  assert {job.result().read_bytes() for job in jobs} == {payload}
  assert len(server.requests) == 1


def test_two_processes_download_once(entry, server, payload, tmp_path):
  server.faults['/a.h5ad'] = ['slow']
  code = (
    'import sys; from pertjax.data import catalog\n'
    'entry = catalog.Entry(name="toy", title="", reference="", licence="",\n'
    '  filename="a.h5ad", preset="cpa", key="c", control="", url=sys.argv[1])\n'
    'print(catalog.fetch(entry, cache_dir=sys.argv[2]))\n'
  )
  process = subprocess.Popen(
    [sys.executable, '-c', code, entry.url, str(tmp_path)],
    cwd=pathlib.Path(catalog.__file__).parents[2],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )
  while not server.requests and process.poll() is None:
    time.sleep(0.01)
  # The other process is now in the middle of its download.
  path = fetch(entry, tmp_path)
  printed, errors = process.communicate(timeout=60)
  assert printed.strip() == str(path), errors
  assert path.read_bytes() == payload
  assert len(server.requests) == 1
  assert left_in(tmp_path) == ['a.h5ad', 'checksum.json']


def test_progress_is_lines_away_from_a_terminal(
  entry, server, tmp_path, capsys
):
  server.faults['/a.h5ad'] = ['truncate', 'none']
  fetch(entry, tmp_path, progress=True, retries=1)
  lines = capsys.readouterr().err.splitlines()
  assert '\r' not in ''.join(lines)
  assert lines[0].startswith('toy: 0.')
  assert 'MB/s' in lines[0]
  assert 's left' in lines[0]
  assert sum('trying again' in line for line in lines) == 1
  assert '(100%)' in lines[-1]


def test_without_progress_nothing_is_written(entry, server, tmp_path, capsys):
  server.faults['/a.h5ad'] = ['truncate', 'none']
  fetch(entry, tmp_path, retries=1)
  captured = capsys.readouterr()
  assert captured.err == captured.out == ''


def test_rate_and_time_left():
  line = download._progress_line('toy', 30_000_000, 10_000_000, 50_000_000, 4)
  assert line == 'toy: 30.0 MB of 50.0 (60%), 5.0 MB/s, 4 s left'
  line = download._progress_line('toy', 30_000_000, 0, None, 3)
  assert line == 'toy: 30.0 MB, 10.0 MB/s'


def test_a_terminal_gets_a_bar(monkeypatch):
  made, steps = {}, []

  class Bar:
    def __init__(self, **arguments):
      made.update(arguments)

    update = staticmethod(steps.append)

    def close(self):
      steps.append('closed')

  class Terminal(io.StringIO):
    def isatty(self):
      return True

  stream = Terminal()
  monkeypatch.setattr(download, 'tqdm', types.SimpleNamespace(tqdm=Bar))
  update, close = download._reporter('toy', 10, 100, stream, True)
  update(90)
  close()
  assert made['initial'] == 10
  assert made['total'] == 100
  assert made['file'] is stream
  assert made['unit_scale'] is True
  assert steps == [90, 'closed']
  assert stream.getvalue() == ''
