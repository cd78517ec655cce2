"""Files of the cache: recorded, checked, unpacked, or put there by hand."""

import dataclasses
import gzip
import hashlib
import io
import os
import tarfile
import zipfile

import h5py
import misbehaving_server
import pytest
from toy_dataset import fetch, left_in, make_entry, read_record, sha256

from pertjax.data import catalog_files

# A good download, and what is remembered of it.


def test_a_download_is_whole_recorded_and_not_repeated(
  entry, server, payload, tmp_path
):
  path = fetch(entry, tmp_path)
  assert path == tmp_path / 'toy' / 'a.h5ad'
  assert path.read_bytes() == payload
  with h5py.File(path) as file:
    assert file['X'].shape == (300_000,)
  record = read_record(tmp_path)
  assert record['download']['sha256'] == sha256(payload)
  assert record['file']['sha256'] == sha256(payload)
  assert record['origin'] == entry.url
  assert left_in(tmp_path) == ['a.h5ad', 'checksum.json']
  headers = server.requests[0][1]
  assert headers['User-Agent'].startswith('pertjax/')
  assert headers['Accept-Encoding'] == 'identity'
  assert fetch(entry, tmp_path) == path
  assert len(server.requests) == 1


def test_a_later_fetch_neither_hashes_nor_writes(entry, tmp_path, monkeypatch):
  path = fetch(entry, tmp_path)
  (tmp_path / 'toy' / '.lock').unlink()
  monkeypatch.setattr(catalog_files.pooch, 'file_hash', None)
  assert fetch(entry, tmp_path) == path
  assert not (tmp_path / 'toy' / '.lock').exists()


def test_a_touched_file_is_hashed_again_and_kept(entry, tmp_path, monkeypatch):
  path = fetch(entry, tmp_path)
  os.utime(path, ns=(1, 1))
  assert fetch(entry, tmp_path) == path
  assert read_record(tmp_path)['file']['mtime_ns'] == 1
  assert read_record(tmp_path)['origin'] == entry.url
  monkeypatch.setattr(catalog_files.pooch, 'file_hash', None)
  assert fetch(entry, tmp_path) == path


def test_a_changed_file_is_an_error_with_both_hashes(
  entry, payload, other, tmp_path
):
  path = fetch(entry, tmp_path)
  path.write_bytes(other)
  with pytest.raises(ValueError, match='has changed') as error:
    fetch(entry, tmp_path)
  assert sha256(payload) in str(error.value)
  assert sha256(other) in str(error.value)
  (tmp_path / 'toy' / 'checksum.json').unlink()
  assert fetch(entry, tmp_path).read_bytes() == other


def test_another_file_than_the_first_download_is_an_error(
  entry, server, payload, other, tmp_path
):
  fetch(entry, tmp_path).unlink()
  server.files['/a.h5ad'] = other
  with pytest.raises(ValueError, match='the first download had') as error:
    fetch(entry, tmp_path)
  assert sha256(payload) in str(error.value)
  assert sha256(other) in str(error.value)
  assert left_in(tmp_path) == ['checksum.json']
  (tmp_path / 'toy' / 'checksum.json').unlink()
  assert fetch(entry, tmp_path).read_bytes() == other


@pytest.mark.parametrize('kind', ['sha256', 'md5'])
def test_a_known_checksum_is_enforced(entry, payload, other, tmp_path, kind):
  right = hashlib.new(kind, payload).hexdigest()
  wrong = hashlib.new(kind, other).hexdigest()
  with pytest.raises(ValueError, match='the catalogue has') as error:
    fetch(dataclasses.replace(entry, **{kind: wrong}), tmp_path)
  assert right in str(error.value)
  assert wrong in str(error.value)
  assert left_in(tmp_path) == []
  good = dataclasses.replace(entry, **{kind: right})
  assert fetch(good, tmp_path).read_bytes() == payload


def test_a_known_checksum_precedes_the_record(entry, other, tmp_path):
  fetch(entry, tmp_path)
  known = dataclasses.replace(entry, sha256=sha256(other))
  with pytest.raises(ValueError, match=f'has {sha256(other)}'):
    fetch(known, tmp_path)


def test_a_record_that_is_not_json_is_an_error(entry, tmp_path):
  fetch(entry, tmp_path)
  (tmp_path / 'toy' / 'checksum.json').write_text('{')
  with pytest.raises(ValueError, match='checksum.json is not readable'):
    fetch(entry, tmp_path)


# By hand.


def test_a_file_put_there_by_hand_is_taken(payload, tmp_path):
  entry = make_entry(manual='ask the authors')
  with pytest.raises(FileNotFoundError, match='ask the authors') as error:
    fetch(entry, tmp_path)
  path = tmp_path / 'toy' / 'a.h5ad'
  assert str(path) in str(error.value)
  path.write_bytes(payload)
  assert fetch(entry, tmp_path) == path
  assert read_record(tmp_path)['origin'] == 'put there by hand'
  assert read_record(tmp_path)['file']['sha256'] == sha256(payload)


def test_a_wrong_file_put_there_by_hand_is_refused(payload, other, tmp_path):
  entry = make_entry(manual='ask', sha256=sha256(payload))
  path = tmp_path / 'toy' / 'a.h5ad'
  path.parent.mkdir()
  path.write_bytes(misbehaving_server.HTML)
  with pytest.raises(ValueError, match='but a page'):
    fetch(entry, tmp_path)
  path.write_bytes(other)
  with pytest.raises(ValueError, match='Remove it, then fetch again'):
    fetch(entry, tmp_path)
  path.write_bytes(payload)
  assert fetch(entry, tmp_path) == path


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
  path = fetch(packed, tmp_path)
  assert path == tmp_path / 'toy' / 'b.h5ad'
  assert path.read_bytes() == payload
  assert left_in(tmp_path) == ['b.h5ad', 'checksum.json']
  record = read_record(tmp_path)
  assert record['download']['sha256'] == sha256(server.files['/a.h5ad'])
  assert record['file']['sha256'] == sha256(payload)
  assert fetch(packed, tmp_path) == path
  assert len(server.requests) == 1


def test_a_known_checksum_of_an_archive(entry, server, payload, tmp_path):
  packed = _packed(entry, server, 'b.zip', {'deep/b.h5ad': payload})
  right = sha256(server.files['/a.h5ad'])
  with pytest.raises(ValueError, match=right):
    fetch(dataclasses.replace(packed, sha256='0' * 64), tmp_path)
  path = fetch(dataclasses.replace(packed, sha256=right), tmp_path)
  path.write_bytes(payload + b'!')
  with pytest.raises(ValueError, match='has changed'):
    fetch(dataclasses.replace(packed, sha256=right), tmp_path)


@pytest.mark.parametrize(
  'members',
  [{'deep/c.h5ad': b'c'}, {'1/deep/b.h5ad': b'', '2/deep/b.h5ad': b''}],
)
def test_a_member_must_be_there_once(entry, server, tmp_path, members):
  packed = _packed(entry, server, 'b.zip', members)
  with pytest.raises(ValueError, match="one file 'deep/b.h5ad'") as error:
    fetch(packed, tmp_path)
  assert all(name in str(error.value) for name in members)


@pytest.mark.parametrize('filename', ['b.zip', 'b.tar', 'b.tgz', 'b.h5ad.gz'])
def test_a_damaged_archive_is_an_error(
  entry, server, payload, tmp_path, filename
):
  packed = _packed(entry, server, filename, {'deep/b.h5ad': payload})
  server.files['/a.h5ad'] = server.files['/a.h5ad'][:200_000]
  with pytest.raises(ValueError, match='is damaged'):
    fetch(packed, tmp_path)
  assert not (tmp_path / 'toy' / 'b.h5ad').exists()


def test_an_archive_with_something_else_inside(entry, server, tmp_path):
  packed = _packed(entry, server, 'b.zip', {'deep/b.h5ad': b'<html>'})
  with pytest.raises(ValueError, match='not an HDF5 file but a page'):
    fetch(packed, tmp_path)
  assert 'b.h5ad' not in left_in(tmp_path)


def test_an_archive_put_there_by_hand_stays(payload, tmp_path):
  entry = make_entry(filename='b.zip', member='b.h5ad', manual='ask')
  archive = tmp_path / 'toy' / 'b.zip'
  archive.parent.mkdir()
  archive.write_bytes(_pack('b.zip', {'b.h5ad': payload}))
  assert fetch(entry, tmp_path).read_bytes() == payload
  assert archive.exists()
  assert read_record(tmp_path)['origin'] == 'put there by hand'


def test_an_interrupted_unpacking_leaves_no_file(
  entry, server, payload, tmp_path, monkeypatch
):
  packed = _packed(entry, server, 'b.zip', {'deep/b.h5ad': payload})

  def interrupt(source, target, length):
    target.write(source.read(1000))
    raise KeyboardInterrupt

  with monkeypatch.context() as patch:
    patch.setattr(catalog_files.shutil, 'copyfileobj', interrupt)
    with pytest.raises(KeyboardInterrupt):
      fetch(packed, tmp_path)
  assert left_in(tmp_path) == ['b.zip.part', 'b.zip.part.json']
  assert fetch(packed, tmp_path).read_bytes() == payload
  assert len(server.requests) == 1  # The archive was complete.
