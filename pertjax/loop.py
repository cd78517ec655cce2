"""The loop over compiled chunks, and everything that the host does in it."""

from __future__ import annotations

import signal
import time

import jax
import numpy as np

from pertjax import checkpoints, train_step, types, writers
from pertjax.record import Run


class Loop:
  """The loop over chunks; it owns the open files and the signal handler."""

  def __init__(self, run: Run, plan, total, members, meta):
    self._run, self._plan, self._members = run, plan, members
    self._folder = run.workdir / 'ckpt'
    self._chunk = int(meta['chunk'])
    # First of all: whoever sees our files may send the signal.
    self._stop = False
    self._previous = signal.getsignal(signal.SIGTERM)
    try:
      signal.signal(signal.SIGTERM, self._on_signal)
    except ValueError:
      # Not the main thread: whoever runs us handles signals.
      self._previous = None
    self._lines = writers.JsonLines(
      run.workdir / 'metrics.jsonl', int(meta['metrics_bytes'])
    )
    self._board = writers.Board(
      run.workdir / 'tb', enabled=run.config.log.tensorboard
    )
    self._programs = {
      phase: train_step.make_chunk(run.model, run.config, phase, total)
      for phase in dict.fromkeys(plan)
    }
    self._pending = None
    self._fetched = time.monotonic()

  def _on_signal(self, *_):
    self._stop = True

  def close(self):
    """Closes files and gives the signal back."""
    self._run.console.finish()
    self._lines.close()
    self._board.close()
    if self._previous is not None:
      signal.signal(signal.SIGTERM, self._previous)

  def go(self, state: types.TrainState) -> types.TrainState:
    """Runs the chunks that are left; metrics are fetched one chunk late."""
    config, run = self._run.config, self._run
    self._active = np.asarray(state.active)
    steps = config.train.chunk
    run.console.start(
      len(self._plan) * steps, self._chunk * steps, 'step', 'training'
    )
    while self._chunk < len(self._plan) and self._active.any():
      phase = self._plan[self._chunk]
      state, metrics = self._programs[phase](state, run.data, run.model.consts)
      self._record()
      if not self._active.any():
        # The chunk just dispatched changed nothing: no member was active.
        break
      self._chunk += 1
      self._pending = (self._chunk, metrics)
      last = self._chunk == len(self._plan)
      due = self._chunk % config.train.checkpoint_every == 0
      if due or last or self._stop:
        self._record()
        self._save(state)
      if self._stop:
        run.console.finish()
        run.console.say(
          f'SIGTERM: saved at step {self._chunk * steps:,}; start again with '
          'the same command to go on'
        )
        raise SystemExit(143)
    if checkpoints.steps(self._folder)[-1:] != [self._chunk]:
      self._save(state)
    return state

  def _save(self, state):
    meta = {'chunk': self._chunk, 'metrics_bytes': self._lines.sync()}
    checkpoints.save(
      self._folder, self._chunk, state, meta, self._run.config.train.keep
    )

  def _record(self):
    """Writes the metrics of the chunk before; names members that failed."""
    if self._pending is None:
      return
    number, metrics = self._pending
    self._pending = None
    metrics = jax.device_get(metrics)
    chunk = self._run.config.train.chunk
    losses = []
    for member in np.flatnonzero(self._active):
      # The steps a member took: all of them, or those before it failed.
      failed = int(metrics['failed_step'][member])
      taken = chunk if failed < 0 else max(1, failed - (number - 1) * chunk)
      scalars = {
        name: float(np.mean(values[:taken, member]))
        for name, values in metrics.items()
        if values.ndim == 2
      }
      scalars['train_loss'] = self._total_loss(scalars)
      scalars['val_loss'] = float(metrics['val_loss'][member])
      scalars['learning_rate'] = float(metrics['learning_rate'][member])
      record = {'step': number * chunk, 'seed': int(member), **scalars}
      self._lines.write(record)
      self._board.write(int(member), number * chunk, scalars)
      losses.append((scalars['train_loss'], scalars['val_loss']))
    self._announce(metrics, number)
    self._progress(losses, chunk)
    self._active = np.asarray(metrics['active'])
    if (metrics['failed_step'] >= 0).all():
      self._run.console.finish()
      steps = ', '.join(
        f'member {m}: {s}' for m, s in enumerate(metrics['failed_step'])
      )
      best = ', '.join(
        f'member {m}: {s}' for m, s in enumerate(metrics['best_step'])
      )
      raise FloatingPointError(
        'every member of the fleet met a loss or gradient that is not finite '
        f'(last good steps: {steps}; best by validation: {best}); lower '
        'optimizer.learning_rate or set optimizer.clip_norm'
      )

  def _total_loss(self, scalars):
    """Returns the loss, which it takes out; of several players, their sum.

    As in the validation score, but only over those who play in this phase.
    """
    players = self._run.model.losses
    if len(players) == 1:
      return scalars.pop('loss')
    names = [f'{player}_loss' for player in players]
    return sum(scalars[name] for name in names if name in scalars)

  def _announce(self, metrics, number):
    say = self._run.console.say
    for member in np.flatnonzero(self._active & ~metrics['active']):
      failed = int(metrics['failed_step'][member])
      who = f'member {member} (seed {self._members[member]["seed"]})'
      if failed >= 0:
        say(
          f'{who} met a loss or gradient that is not finite at step {failed:,} '
          'and is frozen there; the others go on'
        )
      else:
        steps = number * self._run.config.train.chunk
        say(
          f'{who} stopped early at step {steps:,}; best at step '
          f'{int(metrics["best_step"][member]):,}'
        )

  def _progress(self, losses, chunk):
    now = time.monotonic()
    config = self._run.config
    cells = chunk * config.train.batch_size * len(losses)
    cells *= config.optimizer.accumulate
    rate = cells / max(now - self._fetched, 1e-9)
    self._fetched = now
    train, val = np.mean(losses, axis=0)
    self._run.console.advance(
      chunk, f'loss {train:.4g}, val {val:.4g}, {rate:,.0f} cells/s'
    )
