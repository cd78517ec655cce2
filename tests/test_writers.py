"""Where numbers go: files, JSON lines, TensorBoard and the console."""

import io
import json
import os

import numpy as np
import pytest
from tensorboardX.proto import event_pb2

from pertjax import files, writers


def _no_temporaries(folder):
  return sorted(p.name for p in folder.iterdir())


def test_write_text_makes_the_folder_and_replaces(tmp_path):
  path = tmp_path / 'a' / 'b.txt'
  writers.write_text(path, 'one\n')
  writers.write_text(path, 'two – α\n')
  assert path.read_bytes() == 'two – α\n'.encode()
  assert _no_temporaries(path.parent) == ['b.txt']


@pytest.mark.parametrize('broken', ['write', 'rename'])
def test_a_failed_write_keeps_the_old_file(tmp_path, monkeypatch, broken):
  path = tmp_path / 'summary.csv'
  writers.write_text(path, 'old')

  def full(*args, **kwargs):
    raise OSError(28, 'No space left on device')

  target = type(path)
  name = {'write': 'write_text', 'rename': 'replace'}[broken]
  with monkeypatch.context() as patch:
    patch.setattr(target, name, full)
    with pytest.raises(OSError, match='summary.csv .*No space left'):
      writers.write_text(path, 'new')
  assert path.read_text() == 'old'
  assert _no_temporaries(tmp_path) == ['summary.csv']


def test_an_interrupted_write_leaves_nothing_behind(tmp_path):
  path = tmp_path / 'x.bin'
  path.write_bytes(b'old')

  def interrupted():
    with files.replacing(path) as temporary:
      temporary.write_bytes(b'half of the n')
      raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    interrupted()
  assert path.read_bytes() == b'old'
  assert _no_temporaries(tmp_path) == ['x.bin']


def test_write_json_keeps_order_and_has_no_nan(tmp_path):
  path = tmp_path / 'env.json'
  value = {'z': 1, 'a': [float('nan'), 2.5, {'b': float('inf')}], 'm': (1, 2)}
  writers.write_json(path, value)
  found = json.loads(path.read_text())
  assert found == {'z': 1, 'a': [None, 2.5, {'b': None}], 'm': [1, 2]}
  assert list(found) == ['z', 'a', 'm']


def test_check_writable(tmp_path):
  writers.check_writable(tmp_path / 'new' / 'run')
  assert _no_temporaries(tmp_path / 'new' / 'run') == []
  blocked = tmp_path / 'file'
  blocked.write_text('')
  with pytest.raises(OSError, match='--workdir=.*file.*cannot be written to'):
    writers.check_writable(blocked)


def _records(path):
  return [json.loads(line) for line in path.read_text().splitlines()]


def test_json_lines_are_cut_back_to_the_checkpoint(tmp_path):
  path = tmp_path / 'run' / 'metrics.jsonl'
  lines = writers.JsonLines(path)
  lines.write({'step': 1, 'loss': 0.5})
  length = lines.sync()
  # What a checkpoint knows of is on the disk by then.
  assert path.stat().st_size == length
  assert _records(path) == [{'step': 1, 'loss': 0.5}]
  lines.write({'step': 2, 'loss': 0.25})
  lines.close()
  assert len(_records(path)) == 2
  # Killed after step 2, resumed from the checkpoint at step 1.
  lines = writers.JsonLines(path, length)
  lines.write({'step': 2, 'loss': 0.125})
  assert lines.sync() == path.stat().st_size
  lines.close()
  assert [r['loss'] for r in _records(path)] == [0.5, 0.125]
  # A run that starts anew.
  writers.JsonLines(path).close()
  assert path.read_bytes() == b''


def test_json_lines_that_were_lost_are_not_made_up(tmp_path):
  """Truncating to a greater length would fill the file with zeros."""
  path = tmp_path / 'metrics.jsonl'
  path.write_bytes(b'{"step": 1}\n')
  with pytest.raises(
    ValueError, match='metrics.jsonl has 12 bytes but had 1,000'
  ):
    writers.JsonLines(path, 1000)
  assert path.read_bytes() == b'{"step": 1}\n'


def test_json_lines_turn_what_is_not_finite_into_null(tmp_path):
  path = tmp_path / 'metrics.jsonl'
  lines = writers.JsonLines(path)
  lines.write({'a': float('nan'), 'b': float('-inf'), 'c': 1, 'd': 0.1})
  lines.write({'list': [1.0, float('inf')]})
  lines.close()
  first, second = path.read_text().splitlines()
  assert first == '{"a": null, "b": null, "c": 1, "d": 0.1}'
  assert json.loads(second) == {'list': [1.0, None]}


def _events(folder):
  """Reads the (step, name, value) of every scalar in an event file."""
  (path,) = folder.iterdir()
  content, found, starts = path.read_bytes(), [], []
  while content:
    # A record: length, checksum, event, checksum.
    length = int.from_bytes(content[:8], 'little')
    event = event_pb2.Event.FromString(content[12 : 12 + length])
    content = content[16 + length :]
    found += [
      (event.step, v.tag, round(v.simple_value, 6)) for v in event.summary.value
    ]
    if event.HasField('session_log'):
      starts.append(event.step)
  return found, starts


def test_board_writes_a_folder_for_each_member(tmp_path):
  board = writers.Board(tmp_path / 'tb', enabled=True)
  board.write(0, 10, {'loss': 0.5, 'val_loss': float('nan')})
  board.write(3, 10, {'loss': np.float32(0.25), 'count': 2})
  board.write(0, 20, {'loss': 0.125, 'val_loss': 1.0})
  board.close()
  assert sorted(p.name for p in (tmp_path / 'tb').iterdir()) == [
    'seed_0', 'seed_3'
  ]  # fmt: skip
  found, starts = _events(tmp_path / 'tb' / 'seed_0')
  assert found == [
    (10, 'loss', 0.5),
    (20, 'loss', 0.125),
    (20, 'val_loss', 1.0),
  ]
  # TensorBoard forgets what an interrupted run drew from here on.
  assert starts == [10]
  found, _ = _events(tmp_path / 'tb' / 'seed_3')
  assert found == [(10, 'loss', 0.25), (10, 'count', 2.0)]


def test_a_board_that_is_off_writes_nothing(tmp_path):
  board = writers.Board(tmp_path / 'tb', enabled=False)
  board.write(0, 10, {'loss': 0.5})
  board.close()
  assert not (tmp_path / 'tb').exists()


class _Clock:
  """Stands in for the time module."""

  def __init__(self):
    self.now = 100.0

  def monotonic(self):
    return self.now


class _Terminal(io.StringIO):
  def isatty(self):
    return True

  def fileno(self):
    raise OSError


@pytest.fixture
def clock(monkeypatch):
  clock = _Clock()
  monkeypatch.setattr(writers, 'time', clock)
  return clock


def test_plain_lines_come_at_most_every_five_seconds(clock):
  stream = io.StringIO()
  console = writers.Console(stream)
  console.say('hello')
  # Resumed at 1,000: the rate is of the steps taken since.
  console.start(2000, 1000, 'step', 'training')
  for seconds, text in ((2, 'a'), (2, 'b'), (2, 'c'), (1, 'd'), (1, 'e')):
    clock.now += seconds
    console.advance(200, text)
  console.finish()
  console.say('bye')
  assert stream.getvalue().splitlines() == [
    'hello',
    'training 1,600/2,000 steps (100.0/s, 4s left) c',
    # The last one is always said.
    'training 2,000/2,000 steps (125.0/s, 0s left) e',
    'bye',
  ]


def test_a_terminal_gets_a_bar_with_rate_and_time_left():
  stream = _Terminal()
  console = writers.Console(stream)
  console.start(100, 20, 'step', 'training')
  console.advance(30, 'loss 0.5')
  console.say('note: something')
  console.advance(50, 'loss 0.25')
  console.finish()
  console.say('after')
  text = stream.getvalue()
  # Redrawn in one place.
  assert text.count('\r') > 2
  last = [part for part in text.split('\r') if 'training' in part][-1]
  assert '100/100' in last
  assert 'loss 0.25' in last
  assert 'step/s' in last
  assert '<00:00' in last
  # Notes stand on lines of their own.
  assert 'note: something\n' in text
  assert text.endswith('after\n')


def test_a_quiet_console_is_silent():
  for stream in (io.StringIO(), _Terminal()):
    console = writers.Console(stream, quiet=True)
    console.say('a')
    console.start(10, 0, 'step', 'training')
    console.advance(10, 'b')
    console.finish()
    assert stream.getvalue() == ''


@pytest.mark.parametrize(
  ('seconds', 'text'),
  [
    (0, '0s'),
    (59.4, '59s'),
    (59.6, '1m00s'),
    (3599, '59m59s'),
    (7260, '2h01m'),
  ],
)
def test_durations(seconds, text):
  assert writers._duration(seconds) == text


def test_a_folder_that_may_not_be_written(tmp_path):
  if os.geteuid() == 0:
    pytest.skip('the administrator may write anywhere')
  tmp_path.chmod(0o500)
  with pytest.raises(OSError, match='Permission denied'):
    writers.check_writable(tmp_path / 'run')
