"""Killed at any moment, a run goes on to the same bytes."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
FLAGS = (
  '--config=configs/default.py:smoke',
  '--config.train.steps=120',
  '--config.train.chunk=10',
  '--config.train.batch_size=16',
  '--config.log.report=False',
  '--config.log.tensorboard=False',
)


def _start(workdir, *flags):
  return subprocess.Popen(
    [sys.executable, '-m', 'pertjax.main', f'--workdir={workdir}', *FLAGS,
     *flags],
    cwd=ROOT,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
    env={**os.environ, 'PYTHONUNBUFFERED': '1'},
  )  # fmt: skip


def _finish(workdir, *flags):
  process = _start(workdir, *flags)
  output, _ = process.communicate(timeout=300)
  assert process.returncode == 0, output
  return output


def _outputs(workdir):
  names = ('metrics.jsonl', 'predictions.h5ad', 'eval/metrics.csv', 'split.csv')
  return {name: (workdir / name).read_bytes() for name in names}


def _wait_for(condition, process, seconds=120):
  deadline = time.monotonic() + seconds
  while time.monotonic() < deadline:
    if condition():
      return True
    if process.poll() is not None:
      return condition()
    time.sleep(0.005)
  return False


def _kill_after(workdir, chunks):
  """Starts a run and kills it once that many chunks are checkpointed."""
  process = _start(workdir)
  folder = workdir / 'ckpt'

  def there():
    return folder.is_dir() and any(
      p.name.isdigit() and int(p.name) >= chunks for p in folder.iterdir()
    )

  assert _wait_for(there, process)
  assert process.poll() is None, 'the run was over before it could be killed'
  process.kill()
  process.communicate()


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  workdir = tmp_path_factory.mktemp('whole')
  _finish(workdir)
  return _outputs(workdir)


def test_killed_twice_ends_in_the_same_bytes(whole, tmp_path):
  _kill_after(tmp_path, 2)
  _kill_after(tmp_path, 6)
  output = _finish(tmp_path)
  assert 'resuming at step' in output
  assert _outputs(tmp_path) == whole
  lines = [json.loads(x) for x in whole['metrics.jsonl'].splitlines()]
  assert [x['step'] for x in lines if x['seed'] == 0] == list(
    range(10, 121, 10)
  )


def test_sigterm_saves_first(whole, tmp_path):
  process = _start(tmp_path, '--config.train.checkpoint_every=100')
  lines = tmp_path / 'metrics.jsonl'
  assert _wait_for(lines.exists, process)
  process.send_signal(signal.SIGTERM)
  output, _ = process.communicate(timeout=120)
  assert process.returncode == 143, output
  assert 'SIGTERM: saved at step' in output
  assert any((tmp_path / 'ckpt').iterdir())
  _finish(tmp_path, '--config.train.checkpoint_every=100')
  assert _outputs(tmp_path) == whole
