"""Files that appear whole or not at all."""

import os

import pytest

from pertjax import files


def test_text_is_written_byte_for_byte_and_replaces(tmp_path):
  path = tmp_path / 'a.csv'
  path.write_text('older and longer')
  files.write_text(path, 'ä\nb\r\n')
  assert path.read_bytes() == 'ä\nb\r\n'.encode()
  assert os.listdir(tmp_path) == ['a.csv']


def test_a_reader_sees_the_older_file_until_the_end(tmp_path):
  path = tmp_path / 'a'
  path.write_text('old')
  with files.replacing(path) as temporary:
    assert temporary.parent == tmp_path
    temporary.write_text('new')
    assert path.read_text() == 'old'
  assert path.read_text() == 'new'
  assert os.listdir(tmp_path) == ['a']


@pytest.mark.parametrize('error', [ValueError, KeyboardInterrupt])
def test_other_errors_pass_and_leave_the_older_file(tmp_path, error):
  path = tmp_path / 'a'
  path.write_text('old')

  def write():
    with files.replacing(path) as temporary:
      temporary.write_text('half')
      raise error('stop')

  with pytest.raises(error, match='^stop$'):
    write()
  assert path.read_text() == 'old'
  assert os.listdir(tmp_path) == ['a']


def test_a_failing_disk_is_named_with_the_path(tmp_path, monkeypatch):
  path = tmp_path / 'a'
  path.write_text('old')

  def fail(_):
    raise OSError('disk full')

  monkeypatch.setattr(os, 'fsync', fail)
  with pytest.raises(OSError, match=r'/a could not be written: disk full'):
    files.write_text(path, 'new')
  assert path.read_text() == 'old'
  assert os.listdir(tmp_path) == ['a']


def test_a_missing_folder_and_a_body_that_writes_nothing(tmp_path):
  with pytest.raises(OSError, match='none/a could not be written'):
    files.write_text(tmp_path / 'none' / 'a', 'new')
  with pytest.raises(OSError, match='/a could not be written'):  # noqa: SIM117
    with files.replacing(tmp_path / 'a'):
      pass
  assert os.listdir(tmp_path) == []
