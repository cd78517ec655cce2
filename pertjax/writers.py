"""Where a run's numbers go: JSON lines, TensorBoard, the console, files.

Every file is written under a temporary name and renamed, but for the JSON
lines, which are appended to and cut back to the last checkpoint on resuming.
"""

from __future__ import annotations

import json
import math
import os
import pathlib
import sys
import time
from collections.abc import Mapping
from typing import Any, TextIO

import tensorboardX
import tqdm

from pertjax import files


def write_text(path: pathlib.Path, text: str) -> None:
  """Writes a text file whole or not at all, and its folder."""
  path.parent.mkdir(parents=True, exist_ok=True)
  files.write_text(path, text)


def write_json(path: pathlib.Path, value: Any) -> None:
  """Writes JSON, indented, keys in the order given; NaN becomes null."""
  write_text(path, json.dumps(_plain(value), indent=2, allow_nan=False) + '\n')


def check_writable(folder: pathlib.Path) -> None:
  """Raises OSError, naming the folder, unless files can be made in it."""
  probe = folder / f'.probe.{os.getpid()}'
  try:
    folder.mkdir(parents=True, exist_ok=True)
    probe.write_bytes(b'x')
    probe.unlink()
  except OSError as error:
    raise OSError(
      f'--workdir={folder} cannot be written to: {error.strerror or error}; '
      'choose a folder that you may write to, on a disk with space'
    ) from error


class JsonLines:
  """Appends to metrics.jsonl; its length is part of a checkpoint."""

  def __init__(self, path: pathlib.Path, length: int = 0):
    """Opens the file and cuts off what came after the checkpoint.

    Raises:
      ValueError: if the file is shorter than at the checkpoint.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    size = path.stat().st_size
    if size < length:
      raise ValueError(
        f'{path} has {size:,} bytes but had {length:,} at the checkpoint to '
        'resume from: it was changed or lost. Put it back, or remove '
        f'{path.parent / "ckpt"} to train again from the start'
      )
    self._file = path.open('r+b')
    self._file.truncate(length)
    self._file.seek(length)

  def write(self, record: Mapping[str, Any]) -> None:
    """Writes one line; a number that is not finite becomes null."""
    line = json.dumps(_plain(record), allow_nan=False)
    self._file.write(line.encode() + b'\n')

  def sync(self) -> int:
    """Forces everything to the disk and returns the length in bytes."""
    self._file.flush()
    os.fsync(self._file.fileno())
    return self._file.tell()

  def close(self) -> None:
    self._file.close()


def _plain(value: Any) -> Any:
  """Returns the value as JSON has it: what is not finite becomes None."""
  if isinstance(value, Mapping):
    return {k: _plain(v) for k, v in value.items()}
  if isinstance(value, (list, tuple)):
    return [_plain(v) for v in value]
  if isinstance(value, float) and not math.isfinite(value):
    return None
  return value


class Board:
  """TensorBoard scalars, one folder for each member.

  A curve that goes on after a resume hides what was drawn past its start.
  """

  def __init__(self, folder: pathlib.Path, *, enabled: bool):
    self._folder = folder
    self._enabled = enabled
    self._writers: dict[int, Any] = {}

  def write(self, member: int, step: int, scalars: Mapping[str, Any]) -> None:
    """Adds a point to the curves; one that is not finite leaves a gap."""
    if not self._enabled:
      return
    if member not in self._writers:
      self._writers[member] = tensorboardX.SummaryWriter(
        str(self._folder / f'seed_{member}'), purge_step=step
      )
    for name, value in scalars.items():
      if math.isfinite(value):
        self._writers[member].add_scalar(name, float(value), step)

  def close(self) -> None:
    for writer in self._writers.values():
      writer.close()


class Console:
  """Lines for a person; a progress bar on a terminal."""

  def __init__(self, stream: TextIO | None = None, *, quiet: bool = False):
    self._stream = stream or sys.stderr
    self._quiet = quiet
    self._bar: tqdm.tqdm | None = None
    self._last = 0.0

  def say(self, text: str) -> None:
    """Prints a line without breaking the bar."""
    if self._quiet:
      return
    if self._bar is not None:
      self._bar.write(text, file=self._stream)
    else:
      print(text, file=self._stream, flush=True)

  def start(self, total: int, done: int, unit: str, name: str) -> None:
    """Starts a bar, or plain lines where the stream is no terminal."""
    self._total, self._done, self._unit = total, done, unit
    self._name, self._began = name, time.monotonic()
    self._first = done
    self._last = self._began
    if self._stream.isatty() and not self._quiet:
      self._bar = tqdm.tqdm(
        total=total,
        initial=done,
        unit=unit,
        desc=name,
        file=self._stream,
        dynamic_ncols=True,
      )

  def advance(self, amount: int, text: str) -> None:
    """Moves on; without a terminal a line at most every 5 seconds."""
    self._done += amount
    if self._bar is not None:
      self._bar.set_postfix_str(text, refresh=False)
      self._bar.update(amount)
      return
    now = time.monotonic()
    if now - self._last < 5 and self._done < self._total:
      return
    self._last = now
    rate = (self._done - self._first) / max(now - self._began, 1e-9)
    left = (self._total - self._done) / max(rate, 1e-9)
    self.say(
      f'{self._name} {self._done:,}/{self._total:,} {self._unit}s '
      f'({rate:.1f}/s, {_duration(left)} left) {text}'
    )

  def finish(self) -> None:
    if self._bar is not None:
      self._bar.close()
      self._bar = None


def _duration(seconds: float) -> str:
  minutes, seconds = divmod(round(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  if hours:
    return f'{hours}h{minutes:02d}m'
  return f'{minutes}m{seconds:02d}s' if minutes else f'{seconds}s'
