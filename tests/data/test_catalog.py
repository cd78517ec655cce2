"""The catalogue, and downloads from a server that misbehaves."""

import concurrent.futures
import dataclasses
import errno
import gzip
import hashlib
import io
import json
import os
import pathlib
import socket
import subprocess
import sys
import tarfile
import time
import types
import zipfile

import h5py
import misbehaving_server
import numpy as np
import pytest

from pertjax.data import catalog, conventions


def _h5(path, seed):
  values = np.random.default_rng(seed).integers(0, 255, 300_000, np.uint8)
  with h5py.File(path, 'w') as file:
    file['X'] = values
  return path.read_bytes()


@pytest.fixture(scope='module')
def payload(tmp_path_factory):
  return _h5(tmp_path_factory.mktemp('payload') / 'a.h5ad', seed=0)


@pytest.fixture(scope='module')
def other(tmp_path_factory):
  return _h5(tmp_path_factory.mktemp('payload') / 'b.h5ad', seed=1)


@pytest.fixture
def server(monkeypatch):
  monkeypatch.setenv('NO_PROXY', '127.0.0.1')
  with misbehaving_server.running() as running:
    yield running


@pytest.fixture
def entry(server, payload):
  server.files['/a.h5ad'] = payload
  return _entry(url=server.url('/a.h5ad'))


def _entry(**changes):
  return catalog.Entry(
    **{
      'name': 'toy',
      'title': 'a toy',
      'reference': 'nobody',
      'licence': 'CC0',
      'filename': 'a.h5ad',
      'preset': 'perturbench',
      'key': 'condition',
      'control': 'control',
      **changes,
    }
  )


def _fetch(entry, tmp_path, **changes):
  arguments = {'progress': False, 'timeout': 5, 'retries': 0, 'backoff': 0.01}
  return catalog.fetch(entry, cache_dir=tmp_path, **{**arguments, **changes})


def _record(tmp_path):
  return json.loads((tmp_path / 'toy' / 'checksum.json').read_text())


def _sha256(content):
  return hashlib.sha256(content).hexdigest()


def _left(tmp_path):
  """What is in the folder of the toy, but for the lock."""
  found = {path.name for path in (tmp_path / 'toy').iterdir()}
  return sorted(found - {'.lock'})


# The table.


def test_names_are_sorted_and_found():
  names = catalog.names()
  assert list(names) == sorted(names)
  assert len(names) >= 20
  assert all(catalog.get(name).name == name for name in names)


def test_datasets_that_are_promised():
  have = ' '.join(catalog.names())
  for wanted in (
    *('norman2019_gears', 'norman2019_scperturb', 'norman2019_cpa'),
    *('adamson2016_gears', 'dixit2016_gears', 'replogle2022_k562_gears'),
    *('replogle2022_rpe1_gears', 'kang2018', 'srivatsan2020', 'nault2021'),
    *('frangieh2021', 'mcfaline2023', 'norman2019_perturbench'),
  ):
    assert wanted in have


def test_an_unknown_name_is_refused_with_the_closest():
  with pytest.raises(ValueError, match='did you mean norman2019_gears'):
    catalog.get('norman_gears')
  with pytest.raises(ValueError, match='allowed: adamson2016_gears'):
    catalog.fetch('?')


@pytest.mark.parametrize('name', catalog.names())
def test_entries_say_what_a_reader_needs(name):
  entry = catalog.get(name)
  assert entry.title
  assert entry.licence
  assert entry.key
  assert 'doi:' in entry.reference or 'openreview' in entry.reference
  if entry.url is None:
    assert entry.manual
  else:
    assert entry.url.startswith('https://')
  if entry.sha256 is None and entry.md5 is None and entry.url is not None:
    assert any(note.startswith('unverified') for note in entry.notes)
  assert (entry.preset == 'gears') == (entry.gene_names == 'gene_name')
  assert entry.local_name.endswith('.h5ad')


@pytest.mark.parametrize('name', catalog.names())
def test_entries_make_a_convention(name):
  entry = catalog.get(name)
  changes = {} if entry.separator == '' else {'separator': entry.separator}
  made = conventions.make(
    entry.preset or 'custom',
    key=entry.key,
    control=entry.control,
    covariates=entry.covariates,
    gene_names=entry.gene_names,
    dose_key=entry.dose,
    **changes,
  )
  pair = 'A+,_B' if made.separator is None else f'B{made.separator}A'
  parsed = conventions.parse_labels(
    [entry.control, pair], convention=made._replace(dose_key=None)
  )
  tokens = ('A+,_B',) if made.separator is None else ('A', 'B')
  assert parsed.conditions.tokens == ((), tokens)


def test_known_faults_are_named():
  notes = catalog.get('norman2019_gears').notes
  assert any('A549' in note and 'K562' in note for note in notes)


def test_describe_has_a_row_for_each_dataset():
  table = catalog.describe()
  assert tuple(table['name']) == catalog.names()
  by_name = table.set_index('name')
  assert by_name.loc['nault2021', 'download'] == 'by hand'
  assert by_name.loc['norman2019_gears', 'MB'] == 169
  assert by_name['MB'].isna().any()


@pytest.mark.parametrize(
  ('changes', 'field'),
  [
    ({'name': 'No Blanks'}, 'name'),
    ({'filename': 'up/a.h5ad'}, 'filename'),
    ({'filename': 'a.csv'}, 'filename'),
    ({'filename': 'a.zip'}, 'member'),
    ({'member': 'a.h5ad'}, 'member'),
    ({'preset': 'pertubench'}, 'preset'),
    ({'preset': None}, 'separator'),
    ({'scale': 'tpm'}, 'scale'),
    ({'url': None}, 'manual'),
    ({'sha256': 'abc'}, 'sha256'),
    ({'md5': 'A' * 32}, 'md5'),
  ],
)
def test_an_unsound_entry_is_refused(changes, field):
  with pytest.raises(ValueError, match=f"dataset '.*': {field} is"):
    _entry(**{'url': 'https://example.org/a', **changes})


def test_the_cache_is_the_argument_or_the_variable(tmp_path, monkeypatch):
  monkeypatch.setenv('PERTJAX_CACHE', str(tmp_path / 'variable'))
  assert catalog.cache_folder() == tmp_path / 'variable'
  assert catalog.cache_folder(tmp_path) == tmp_path
  path = catalog.local_path('norman2019_gears')
  folder = tmp_path / 'variable' / 'norman2019_gears'
  assert path == folder / 'perturb_processed.h5ad'
  monkeypatch.delenv('PERTJAX_CACHE')
  assert catalog.cache_folder().name == 'pertjax'


# A good download, and what is remembered of it.


def test_a_download_is_whole_recorded_and_not_repeated(
  entry, server, payload, tmp_path
):
  path = _fetch(entry, tmp_path)
  assert path == tmp_path / 'toy' / 'a.h5ad'
  assert path.read_bytes() == payload
  with h5py.File(path) as file:
    assert file['X'].shape == (300_000,)
  record = _record(tmp_path)
  assert record['download']['sha256'] == _sha256(payload)
  assert record['file']['sha256'] == _sha256(payload)
  assert record['origin'] == entry.url
  assert _left(tmp_path) == ['a.h5ad', 'checksum.json']
  headers = server.requests[0][1]
  assert headers['User-Agent'].startswith('pertjax/')
  assert headers['Accept-Encoding'] == 'identity'
  assert _fetch(entry, tmp_path) == path
  assert len(server.requests) == 1


def test_a_later_fetch_neither_hashes_nor_writes(entry, tmp_path, monkeypatch):
  path = _fetch(entry, tmp_path)
  (tmp_path / 'toy' / '.lock').unlink()
  monkeypatch.setattr(catalog.pooch, 'file_hash', None)
  assert _fetch(entry, tmp_path) == path
  assert not (tmp_path / 'toy' / '.lock').exists()


def test_a_touched_file_is_hashed_again_and_kept(entry, tmp_path, monkeypatch):
  path = _fetch(entry, tmp_path)
  os.utime(path, ns=(1, 1))
  assert _fetch(entry, tmp_path) == path
  assert _record(tmp_path)['file']['mtime_ns'] == 1
  assert _record(tmp_path)['origin'] == entry.url
  monkeypatch.setattr(catalog.pooch, 'file_hash', None)
  assert _fetch(entry, tmp_path) == path


def test_a_changed_file_is_an_error_with_both_hashes(
  entry, payload, other, tmp_path
):
  path = _fetch(entry, tmp_path)
  path.write_bytes(other)
  with pytest.raises(ValueError, match='has changed') as error:
    _fetch(entry, tmp_path)
  assert _sha256(payload) in str(error.value)
  assert _sha256(other) in str(error.value)
  (tmp_path / 'toy' / 'checksum.json').unlink()
  assert _fetch(entry, tmp_path).read_bytes() == other


def test_another_file_than_the_first_download_is_an_error(
  entry, server, payload, other, tmp_path
):
  _fetch(entry, tmp_path).unlink()
  server.files['/a.h5ad'] = other
  with pytest.raises(ValueError, match='the first download had') as error:
    _fetch(entry, tmp_path)
  assert _sha256(payload) in str(error.value)
  assert _sha256(other) in str(error.value)
  assert _left(tmp_path) == ['checksum.json']
  (tmp_path / 'toy' / 'checksum.json').unlink()
  assert _fetch(entry, tmp_path).read_bytes() == other


@pytest.mark.parametrize('kind', ['sha256', 'md5'])
def test_a_known_checksum_is_enforced(entry, payload, other, tmp_path, kind):
  right = hashlib.new(kind, payload).hexdigest()
  wrong = hashlib.new(kind, other).hexdigest()
  with pytest.raises(ValueError, match='the catalogue has') as error:
    _fetch(dataclasses.replace(entry, **{kind: wrong}), tmp_path)
  assert right in str(error.value)
  assert wrong in str(error.value)
  assert _left(tmp_path) == []
  good = dataclasses.replace(entry, **{kind: right})
  assert _fetch(good, tmp_path).read_bytes() == payload


def test_a_known_checksum_precedes_the_record(entry, other, tmp_path):
  _fetch(entry, tmp_path)
  known = dataclasses.replace(entry, sha256=_sha256(other))
  with pytest.raises(ValueError, match=f'has {_sha256(other)}'):
    _fetch(known, tmp_path)


def test_a_record_that_is_not_json_is_an_error(entry, tmp_path):
  _fetch(entry, tmp_path)
  (tmp_path / 'toy' / 'checksum.json').write_text('{')
  with pytest.raises(ValueError, match='checksum.json is not readable'):
    _fetch(entry, tmp_path)


# Interruptions.


def test_a_cut_connection_is_continued_by_the_next_call(
  entry, server, payload, tmp_path
):
  server.faults['/a.h5ad'] = ['truncate', 'none']
  with pytest.raises(catalog.DownloadError, match='fetch again to continue'):
    _fetch(entry, tmp_path)
  part = tmp_path / 'toy' / 'a.h5ad.part'
  assert part.read_bytes() == payload[:100_000]
  assert not (tmp_path / 'toy' / 'a.h5ad').exists()
  assert _fetch(entry, tmp_path).read_bytes() == payload
  assert server.ranges() == [None, 'bytes=100000-']
  assert _left(tmp_path) == ['a.h5ad', 'checksum.json']


def test_cuts_that_bring_something_are_continued_in_one_call(
  entry, server, payload, tmp_path
):
  server.faults['/a.h5ad'] = ['truncate']
  assert _fetch(entry, tmp_path, retries=1).read_bytes() == payload
  size = len(payload)
  starts = range(100_000, size, 100_000)
  assert server.ranges() == [None, *(f'bytes={s}-' for s in starts)]


def test_a_server_without_ranges_starts_anew(entry, server, payload, tmp_path):
  server.faults['/a.h5ad'] = ['no_range_truncate', 'no_range']
  with pytest.raises(catalog.DownloadError):
    _fetch(entry, tmp_path)
  assert _fetch(entry, tmp_path).read_bytes() == payload
  assert server.ranges() == [None, 'bytes=100000-']


def test_cuts_that_bring_nothing_new_come_to_an_end(entry, server, tmp_path):
  server.faults['/a.h5ad'] = ['no_range_truncate']
  with pytest.raises(catalog.DownloadError, match='tries: 3'):
    _fetch(entry, tmp_path, retries=2)
  assert len(server.requests) == 3


@pytest.mark.parametrize('fault', ['none', 'no_if_range'])
def test_a_file_that_changed_meanwhile_is_not_mixed(
  entry, server, payload, other, tmp_path, fault
):
  server.faults['/a.h5ad'] = ['truncate', fault]
  with pytest.raises(catalog.DownloadError):
    _fetch(entry, tmp_path)
  server.files['/a.h5ad'] = other + b'longer'
  assert _fetch(entry, tmp_path, retries=1).read_bytes() == other + b'longer'


@pytest.mark.parametrize('validator', ['ETag', 'Last-Modified'])
def test_a_change_that_keeps_the_length_is_not_mixed(
  entry, server, payload, other, tmp_path, validator
):
  server.validator = validator
  server.faults['/a.h5ad'] = ['truncate', 'none']
  with pytest.raises(catalog.DownloadError):
    _fetch(entry, tmp_path)
  assert len(other) == len(payload)
  server.files['/a.h5ad'] = other
  assert _fetch(entry, tmp_path).read_bytes() == other


def test_a_part_from_another_address_is_not_continued(
  entry, server, other, tmp_path
):
  server.faults['/a.h5ad'] = ['truncate']
  with pytest.raises(catalog.DownloadError):
    _fetch(entry, tmp_path)
  server.files['/b.h5ad'] = other
  server.faults['/b.h5ad'] = ['no_if_range']
  moved = dataclasses.replace(entry, url=server.url('/b.h5ad'))
  assert _fetch(moved, tmp_path).read_bytes() == other


def test_a_range_without_a_length_is_continued(
  entry, server, payload, tmp_path
):
  server.faults['/a.h5ad'] = ['truncate', 'range_without_length']
  assert _fetch(entry, tmp_path, retries=1).read_bytes() == payload
  assert server.ranges() == [None, 'bytes=100000-']


def test_fewer_bytes_than_announced_are_noticed_by_count(entry, tmp_path):
  # Old versions of urllib3 end a cut body without an error.
  job = catalog._Job(entry, tmp_path / 'a.h5ad', print, False, 1, 0, 0)
  with pytest.raises(catalog._TransientError, match='at 6 of 7 bytes'):
    catalog._append(job, 0, 7, [b'abc', b'def'])
  assert job.part.read_bytes() == b'abcdef'


def test_a_part_longer_than_the_file_is_dropped(
  entry, server, payload, tmp_path
):
  server.faults['/a.h5ad'] = ['truncate', 'no_if_range']
  with pytest.raises(catalog.DownloadError):
    _fetch(entry, tmp_path)
  small = payload[:50_000]
  server.files['/a.h5ad'] = small
  assert _fetch(entry, tmp_path, retries=1).read_bytes() == small


def test_a_file_of_unknown_length_is_taken_as_it_ends(
  entry, server, payload, tmp_path
):
  server.faults['/a.h5ad'] = ['no_length']
  assert _fetch(entry, tmp_path).read_bytes() == payload


@pytest.mark.parametrize('faults', [('stall_at_once',), ('stall',) * 2])
def test_a_stall_ends_in_a_clear_error(entry, server, tmp_path, faults):
  server.faults['/a.h5ad'] = [*faults, 'stall_at_once']
  began = time.monotonic()
  with pytest.raises(catalog.DownloadError, match='0.2 s') as error:
    _fetch(entry, tmp_path, timeout=0.2, retries=1)
  assert time.monotonic() - began < 8  # The server would wait for 10 s.
  assert str(tmp_path / 'toy' / 'a.h5ad') in str(error.value)
  assert len(server.requests) >= 2
  assert not (tmp_path / 'toy' / 'a.h5ad').exists()


def test_a_stall_inside_a_body_is_named(entry, server, tmp_path):
  server.faults['/a.h5ad'] = ['stall']
  with pytest.raises(catalog.DownloadError, match='nothing came for 0.8 s'):
    _fetch(entry, tmp_path, timeout=0.8)


def test_a_stall_is_continued(entry, server, payload, tmp_path):
  server.faults['/a.h5ad'] = ['stall', 'none']
  path = _fetch(entry, tmp_path, timeout=0.5, retries=1)
  assert path.read_bytes() == payload
  # The blocks that came before the stall are not asked for again.
  assert int(server.ranges()[1].strip('bytes=-')) >= 65_536


def test_pauses_between_tries_grow(entry, server, tmp_path, monkeypatch):
  pauses = []
  monkeypatch.setattr(catalog.time, 'sleep', pauses.append)
  server.faults['/a.h5ad'] = ['busy']
  with pytest.raises(catalog.DownloadError, match='HTTP 503'):
    _fetch(entry, tmp_path, retries=3, backoff=2)
  assert pauses == [2, 4, 8]
  server.retry_after = '7'
  with pytest.raises(catalog.DownloadError, match='HTTP 503'):
    _fetch(entry, tmp_path, retries=1, backoff=2)
  assert pauses[3:] == [7]


def test_a_busy_server_is_asked_again(entry, server, payload, tmp_path):
  server.faults['/a.h5ad'] = ['busy', 'none']
  assert _fetch(entry, tmp_path, retries=1).read_bytes() == payload
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
    _fetch(entry, tmp_path, retries=3)
  assert entry.url in str(error.value)
  assert str(tmp_path / 'toy' / 'a.h5ad') in str(error.value)
  assert _left(tmp_path) == []
  assert len(server.requests) == 1  # Asking again would not help.


def test_a_page_while_resuming_leaves_the_part(
  entry, server, payload, tmp_path
):
  server.faults['/a.h5ad'] = ['truncate', 'page', 'none']
  for _ in range(2):
    with pytest.raises(catalog.DownloadError):
      _fetch(entry, tmp_path)
  assert _fetch(entry, tmp_path).read_bytes() == payload
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
    _fetch(wrong, tmp_path)
  assert _left(tmp_path) == []


def test_without_a_connection_the_way_by_hand_is_told(tmp_path, monkeypatch):
  monkeypatch.setenv('NO_PROXY', '127.0.0.1')
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    url = f'http://127.0.0.1:{free.getsockname()[1]}/a.h5ad'
  with pytest.raises(catalog.DownloadError, match='offline') as error:
    _fetch(_entry(url=url), tmp_path, retries=1)
  assert url in str(error.value)
  assert str(tmp_path / 'toy' / 'a.h5ad') in str(error.value)


def test_an_address_that_is_none_is_an_error(tmp_path):
  with pytest.raises(catalog.DownloadError, match='cannot be read'):
    _fetch(_entry(url='no-address'), tmp_path, retries=3)


# By hand.


def test_a_file_put_there_by_hand_is_taken(payload, tmp_path):
  entry = _entry(manual='ask the authors')
  with pytest.raises(FileNotFoundError, match='ask the authors') as error:
    _fetch(entry, tmp_path)
  path = tmp_path / 'toy' / 'a.h5ad'
  assert str(path) in str(error.value)
  path.write_bytes(payload)
  assert _fetch(entry, tmp_path) == path
  assert _record(tmp_path)['origin'] == 'put there by hand'
  assert _record(tmp_path)['file']['sha256'] == _sha256(payload)


def test_a_wrong_file_put_there_by_hand_is_refused(payload, other, tmp_path):
  entry = _entry(manual='ask', sha256=_sha256(payload))
  path = tmp_path / 'toy' / 'a.h5ad'
  path.parent.mkdir()
  path.write_bytes(misbehaving_server.HTML)
  with pytest.raises(ValueError, match='but a page'):
    _fetch(entry, tmp_path)
  path.write_bytes(other)
  with pytest.raises(ValueError, match='Remove it, then fetch again'):
    _fetch(entry, tmp_path)
  path.write_bytes(payload)
  assert _fetch(entry, tmp_path) == path


# Archives.


def _pack(filename, members):
  buffer = io.BytesIO()
  if filename.endswith('.zip'):
    with zipfile.ZipFile(buffer, 'w', zipfile.ZIP_DEFLATED) as archive:
      for name, content in members.items():
        archive.writestr(name, content)
  elif filename.endswith('.h5ad.gz'):
    buffer.write(gzip.compress(next(iter(members.values()))))
  else:
    mode = 'w' if filename.endswith('.tar') else 'w:gz'
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
      for name, content in members.items():
        info = tarfile.TarInfo(name)
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))
  return buffer.getvalue()


def _packed(entry, server, filename, members):
  server.files['/a.h5ad'] = _pack(filename, members)
  member = None if filename.endswith('.h5ad.gz') else 'deep/b.h5ad'
  return dataclasses.replace(entry, filename=filename, member=member)


@pytest.mark.parametrize(
  'filename', ['b.zip', 'b.tar', 'b.tar.gz', 'b.tgz', 'b.h5ad.gz']
)
def test_archives_are_unpacked(entry, server, payload, tmp_path, filename):
  members = {
    'top/deep/b.h5ad': payload,
    'top/deep/._b.h5ad': b'x',
    'b.h5ad': b'shallow',
  }
  packed = _packed(entry, server, filename, members)
  path = _fetch(packed, tmp_path)
  assert path == tmp_path / 'toy' / 'b.h5ad'
  assert path.read_bytes() == payload
  assert _left(tmp_path) == ['b.h5ad', 'checksum.json']
  record = _record(tmp_path)
  assert record['download']['sha256'] == _sha256(server.files['/a.h5ad'])
  assert record['file']['sha256'] == _sha256(payload)
  assert _fetch(packed, tmp_path) == path
  assert len(server.requests) == 1


def test_a_known_checksum_of_an_archive(entry, server, payload, tmp_path):
  packed = _packed(entry, server, 'b.zip', {'deep/b.h5ad': payload})
  right = _sha256(server.files['/a.h5ad'])
  with pytest.raises(ValueError, match=right):
    _fetch(dataclasses.replace(packed, sha256='0' * 64), tmp_path)
  path = _fetch(dataclasses.replace(packed, sha256=right), tmp_path)
  path.write_bytes(payload + b'!')
  with pytest.raises(ValueError, match='has changed'):
    _fetch(dataclasses.replace(packed, sha256=right), tmp_path)


@pytest.mark.parametrize(
  'members',
  [{'deep/c.h5ad': b'c'}, {'1/deep/b.h5ad': b'', '2/deep/b.h5ad': b''}],
)
def test_a_member_must_be_there_once(entry, server, tmp_path, members):
  packed = _packed(entry, server, 'b.zip', members)
  with pytest.raises(ValueError, match="one file 'deep/b.h5ad'") as error:
    _fetch(packed, tmp_path)
  assert all(name in str(error.value) for name in members)


@pytest.mark.parametrize('filename', ['b.zip', 'b.tar', 'b.tgz', 'b.h5ad.gz'])
def test_a_damaged_archive_is_an_error(
  entry, server, payload, tmp_path, filename
):
  packed = _packed(entry, server, filename, {'deep/b.h5ad': payload})
  server.files['/a.h5ad'] = server.files['/a.h5ad'][:200_000]
  with pytest.raises(ValueError, match='is damaged'):
    _fetch(packed, tmp_path)
  assert not (tmp_path / 'toy' / 'b.h5ad').exists()


def test_an_archive_with_something_else_inside(entry, server, tmp_path):
  packed = _packed(entry, server, 'b.zip', {'deep/b.h5ad': b'<html>'})
  with pytest.raises(ValueError, match='not an HDF5 file but a page'):
    _fetch(packed, tmp_path)
  assert 'b.h5ad' not in _left(tmp_path)


def test_an_archive_put_there_by_hand_stays(payload, tmp_path):
  entry = _entry(filename='b.zip', member='b.h5ad', manual='ask')
  archive = tmp_path / 'toy' / 'b.zip'
  archive.parent.mkdir()
  archive.write_bytes(_pack('b.zip', {'b.h5ad': payload}))
  assert _fetch(entry, tmp_path).read_bytes() == payload
  assert archive.exists()
  assert _record(tmp_path)['origin'] == 'put there by hand'


def test_an_interrupted_unpacking_leaves_no_file(
  entry, server, payload, tmp_path, monkeypatch
):
  packed = _packed(entry, server, 'b.zip', {'deep/b.h5ad': payload})

  def interrupt(source, target, length):
    target.write(source.read(1000))
    raise KeyboardInterrupt

  with monkeypatch.context() as patch:
    patch.setattr(catalog.shutil, 'copyfileobj', interrupt)
    with pytest.raises(KeyboardInterrupt):
      _fetch(packed, tmp_path)
  assert _left(tmp_path) == ['b.zip.part', 'b.zip.part.json']
  assert _fetch(packed, tmp_path).read_bytes() == payload
  assert len(server.requests) == 1  # The archive was complete.


# Space, company, progress.


def test_a_full_disk_is_told_before(entry, server, tmp_path, monkeypatch):
  usage = types.SimpleNamespace(free=1000)
  monkeypatch.setattr(catalog.shutil, 'disk_usage', lambda _: usage)
  with pytest.raises(OSError, match='PERTJAX_CACHE') as error:
    _fetch(entry, tmp_path)
  assert error.value.errno == errno.ENOSPC
  assert _left(tmp_path) == []


def test_two_threads_download_once(entry, server, payload, tmp_path):
  server.faults['/a.h5ad'] = ['slow']
  with concurrent.futures.ThreadPoolExecutor(4) as pool:
    jobs = [pool.submit(_fetch, entry, tmp_path) for _ in range(4)]
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
  path = _fetch(entry, tmp_path)
  printed, errors = process.communicate(timeout=60)
  assert printed.strip() == str(path), errors
  assert path.read_bytes() == payload
  assert len(server.requests) == 1
  assert _left(tmp_path) == ['a.h5ad', 'checksum.json']


def test_progress_is_lines_away_from_a_terminal(
  entry, server, tmp_path, capsys
):
  server.faults['/a.h5ad'] = ['truncate', 'none']
  _fetch(entry, tmp_path, progress=True, retries=1)
  lines = capsys.readouterr().err.splitlines()
  assert '\r' not in ''.join(lines)
  assert lines[0].startswith('toy: 0.')
  assert 'MB/s' in lines[0]
  assert 's left' in lines[0]
  assert sum('trying again' in line for line in lines) == 1
  assert '(100%)' in lines[-1]


def test_without_progress_nothing_is_written(entry, server, tmp_path, capsys):
  server.faults['/a.h5ad'] = ['truncate', 'none']
  _fetch(entry, tmp_path, retries=1)
  captured = capsys.readouterr()
  assert captured.err == captured.out == ''


def test_rate_and_time_left():
  line = catalog._progress_line('toy', 30_000_000, 10_000_000, 50_000_000, 4)
  assert line == 'toy: 30.0 MB of 50.0 (60%), 5.0 MB/s, 4 s left'
  line = catalog._progress_line('toy', 30_000_000, 0, None, 3)
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
  monkeypatch.setattr(catalog, 'tqdm', types.SimpleNamespace(tqdm=Bar))
  update, close = catalog._reporter('toy', 10, 100, stream, True)
  update(90)
  close()
  assert made['initial'] == 10
  assert made['total'] == 100
  assert made['file'] is stream
  assert made['unit_scale'] is True
  assert steps == [90, 'closed']
  assert stream.getvalue() == ''
