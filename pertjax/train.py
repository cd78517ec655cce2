"""The story of a run: data, model, restore, chunks, fit, evaluate, report."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import pathlib
import platform
import signal
import subprocess
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import pertjax
from pertjax import (
  checkpoints,
  evaluate,
  models,
  rng,
  train_step,
  types,
  writers,
)
from pertjax import config as config_lib
from pertjax import data as data_lib
from pertjax.data import arrays, splits, statistics

_PACKAGES = (
  'jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'numpy', 'scipy',
  'pandas', 'anndata', 'h5py', 'ml-collections',
)  # fmt: skip


class Run(NamedTuple):
  """A run in memory: what training, scoring and predicting share.

  Attributes:
    config: the run's config.
    workdir: its directory.
    data: see PerturbArrays.
    spec: see DataSpec.
    model: see Model.
    console: where lines go.
  """

  config: Any
  workdir: pathlib.Path
  data: arrays.PerturbArrays
  spec: types.DataSpec
  model: types.Model
  console: writers.Console


def open_run(
  config, workdir: pathlib.Path, console: writers.Console | None = None
) -> Run:
  """Checks config and directory, loads the data and builds the model.

  Raises:
    ValueError: for a config that cannot be right, or a directory that holds a
      run with another one (the keys that differ are named).
    OSError: if the directory cannot be written to.
  """
  console = console or writers.Console()
  config_lib.validate(config)
  writers.check_writable(workdir)
  _check_same_run(config, workdir)
  began = time.monotonic()
  data, spec = data_lib.load(config, say=console.say)
  model = models.make(config.model, spec)
  for key in {k for s in config_lib.fleet_settings(config) for k in s}:
    name = key.partition('.')[2]
    if key.startswith('model.') and name not in model.consts.get('hyper', {}):
      allowed = sorted(model.consts.get('hyper', {}))
      raise ValueError(
        f'config.fleet names {key!r}, which changes the program of model '
        f'{config.model.name!r}; its loss weights are {allowed}'
      )
  for note in spec.notes:
    console.say(f'note: {note}')
  console.say(
    f'{spec.name}: {len(spec.cell_names):,} cells x {spec.num_genes:,} genes, '
    f'{len(spec.conditions.names) - 1:,} conditions in {len(spec.groups)} '
    f'group(s), loaded in {time.monotonic() - began:.1f} s'
  )
  return Run(config, workdir, data, spec, model, console)


def _check_same_run(config, workdir: pathlib.Path) -> None:
  path = workdir / 'config.json'
  if not path.exists():
    return
  saved = json.loads(path.read_text(encoding='utf-8'))
  lines = config_lib.differences(saved, config_lib.to_dict(config))
  if lines:
    raise ValueError(
      f'--workdir={workdir} holds a run with another config; choose another '
      'directory, or the same values:\n  ' + '\n  '.join(lines)
    )


def train(run: Run) -> None:
  """Trains, or goes on, until the run is finished; then scores and reports.

  Raises:
    FloatingPointError: if every member of the fleet has failed.
    SystemExit: 143 after SIGTERM, once the state is saved.
  """
  members = config_lib.members(run.config)
  write_run(run, members)
  state = train_fleet(run, members)
  score(run, state, member_records(members, state))


def score(run: Run, state: types.TrainState, members: list[dict]) -> None:
  """Fits, scores every member that did not fail, and writes the tables."""
  keep = usable(members)
  params = fit_fleet(run, state)
  parameters = checkpoints.num_parameters(state.params) // len(members)
  write_run(run, members, parameters=parameters)
  evaluate.run(
    run.config,
    run.workdir,
    run.model,
    run.data,
    run.spec,
    jax.tree.map(lambda x: x[np.asarray(keep)], params),
    member_consts(run, state, keep),
    members=keep,
    settings=[setting_name(members[k]['overrides']) for k in keep],
    scores=np.asarray(state.best_score)[keep].tolist(),
    say=run.console.say,
  )


def setting_name(overrides: dict[str, float]) -> str:
  """Returns 'learning_rate=0.001, ...' for a member's own settings."""
  return ', '.join(
    f'{key.partition(".")[2]}={value:g}' for key, value in overrides.items()
  )


def usable(members: list[dict]) -> list[int]:
  """Returns the numbers of the members that did not fail."""
  return [m['member'] for m in members if not m['status'].startswith('failed')]


def train_fleet(run: Run, members: list[dict]) -> types.TrainState:
  """Takes the training steps that are left; returns the state after them."""
  config, model, console = run.config, run.model, run.console
  phases = train_step.phases_of(model, config)
  total = train_step.total_steps(phases)
  chunk = config.train.chunk
  plan = [p for p in phases for _ in range(p.steps // chunk)]
  hyper = {
    key: jnp.asarray([m['overrides'][key] for m in members], jnp.float32)
    for key in members[0]['overrides']
  }
  seeds = [m['seed'] for m in members]

  def init():
    return train_step.init_fleet(model, config, seeds, hyper, model.consts)

  folder = run.workdir / 'ckpt'
  found = checkpoints.restore_latest(folder, jax.eval_shape(init), console.say)
  if found is None:
    state, meta = init(), {'chunk': 0, 'metrics_bytes': 0}
  else:
    state, meta = found
    console.say(f'resuming at step {meta["chunk"] * chunk:,} of {total:,}')
  count = checkpoints.num_parameters(state.params) // len(members)
  console.say(
    f'{config.model.name}: {count:,} parameters, {len(members)} member(s), '
    f'{total:,} steps of {config.train.batch_size:,} cells'
  )
  if not plan:
    return state
  loop = _Loop(run, plan, total, members, meta)
  try:
    return loop.go(state)
  finally:
    loop.close()


class _Loop:
  """The loop over chunks; it owns the open files and the signal handler."""

  def __init__(self, run, plan, total, members, meta):
    self._run, self._plan, self._members = run, plan, members
    self._folder = run.workdir / 'ckpt'
    self._chunk = int(meta['chunk'])
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
    self._stop = False
    self._pending = None
    self._fetched = time.monotonic()
    self._previous = signal.getsignal(signal.SIGTERM)
    try:
      signal.signal(signal.SIGTERM, self._on_signal)
    except ValueError:
      # Not the main thread: whoever runs us handles signals.
      self._previous = None

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
      scalars['train_loss'] = scalars.pop('loss', float('nan'))
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


def member_records(
  members: list[dict], state: types.TrainState
) -> list[dict[str, Any]]:
  """Adds to each member how it ended: 'ok', 'stopped ...' or 'failed ...'."""
  failed, active = np.asarray(state.failed_step), np.asarray(state.active)
  step, best = np.asarray(state.step), np.asarray(state.best_step)
  records = []
  for m in members:
    k = m['member']
    status = 'ok'
    if failed[k] >= 0:
      status = f'failed at step {failed[k]}'
    elif not active[k]:
      status = f'stopped at step {step[k]}'
    records.append({**m, 'status': status, 'best_step': int(best[k])})
  return records


def member_consts(
  run: Run, state: types.TrainState, keep: list[int]
) -> list[types.Consts]:
  """Returns the model's arrays as each member saw them."""
  return [
    train_step.with_hyper(
      run.model.consts, {k: v[m] for k, v in state.hyper.items()}
    )
    for m in keep
  ]


def fit_fleet(run: Run, state: types.TrainState) -> types.Params:
  """Returns the selected parameters after `Model.fit`, [members, ...].

  Members are fitted one after the other: a fit reads all training cells.
  """
  params = state.best_params
  if run.config.train.select == 'last':
    params = state.params
  if run.model.fit is None:
    return params
  # One compiled call each: eager calls would compile operation by operation.
  pairs = jax.jit(statistics.pair_means)(run.data, run.data.train)
  data = statistics.FitData(run.data, pairs)

  @jax.jit
  def fit(params, key, hyper, data, consts):
    consts = train_step.with_hyper(consts, hyper)
    return run.model.fit(params, rng.stream(key, rng.FIT), data, consts)

  fitted = [
    fit(
      jax.tree.map(lambda x, k=k: x[k], params),
      state.key[k],
      {name: v[k] for name, v in state.hyper.items()},
      data,
      run.model.consts,
    )
    for k in range(state.step.shape[0])
  ]
  return jax.tree.map(lambda *x: jnp.stack(x), *fitted)


def restore_state(run: Run, step: int = -1) -> tuple[types.TrainState, list]:
  """Reads the state of a finished or running training.

  Args:
    run: the run.
    step: training step of the checkpoint, -1 for the newest.

  Raises:
    ValueError: if there is none, naming those there are.
  """
  config = run.config
  members = config_lib.members(config)
  hyper = {
    key: jnp.zeros(len(members), jnp.float32) for key in members[0]['overrides']
  }
  abstract = jax.eval_shape(
    lambda: train_step.init_fleet(
      run.model, config, [m['seed'] for m in members], hyper, run.model.consts
    )
  )
  folder = run.workdir / 'ckpt'
  if not run.model.losses:
    hyper = {
      k: jnp.asarray([m['overrides'][k] for m in members]) for k in hyper
    }
    state = train_step.init_fleet(
      run.model, config, [m['seed'] for m in members], hyper, run.model.consts
    )
    return state, member_records(members, state)
  if step < 0:
    found = checkpoints.restore_latest(folder, abstract, run.console.say)
    if found is None:
      raise ValueError(
        f'{run.workdir} has no checkpoint to read; train first with '
        '--mode=train and the same --config and --workdir'
      )
    state, _ = found
  else:
    chunk = config.train.chunk
    there = [s * chunk for s in checkpoints.steps(folder)]
    if step not in there:
      raise ValueError(
        f'eval.checkpoint is {step}; {folder} has checkpoints at the steps '
        f'{there}'
      )
    state, _ = checkpoints.restore(folder, step // chunk, abstract)
    # The parameters of that very step, not the best until then.
    state = dataclasses.replace(state, best_params=state.params)
  return state, member_records(members, state)


def write_run(
  run: Run, members: list[dict], *, parameters: int | None = None
) -> None:
  """Writes config.json, split.csv, its summary and env.json.

  env.json holds everything that a number in a table depends on.
  """
  spec = run.spec
  labels = data_lib.split_labels(run.data, spec)
  writers.write_text(
    run.workdir / 'split.csv', splits.to_csv(spec.split, **labels)
  )
  labels.pop('cell_names')
  writers.write_json(
    run.workdir / 'split_summary.json', splits.summary(spec.split, **labels)
  )
  writers.write_json(
    run.workdir / 'config.json', config_lib.to_dict(run.config)
  )
  writers.write_json(
    run.workdir / 'env.json',
    {
      'pertjax': pertjax.__version__,
      'python': platform.python_version(),
      'packages': {p: importlib.metadata.version(p) for p in _PACKAGES},
      'devices': [f'{d.platform}: {d.device_kind}' for d in jax.devices()],
      **_revision(),
      'data_fingerprint': spec.fingerprint,
      'split_sha256': spec.split.sha256,
      'dataset': spec.name,
      'source': dict(spec.source),
      'notes': list(spec.notes),
      'num_cells': len(spec.cell_names),
      'num_genes': spec.num_genes,
      'num_conditions': len(spec.conditions.names),
      'num_perturbations': spec.num_perturbations,
      'groups': [spec.group_name(g) for g in range(len(spec.groups))],
      'model_parameters': parameters,
      'members': members,
      'metric_versions': evaluate.metric_versions(),
    },
  )


def _revision() -> dict[str, Any]:
  """Returns the git revision of the code, where it runs from a checkout."""
  here = pathlib.Path(__file__).resolve().parent

  def git(*words):
    return subprocess.run(
      ['git', '-C', str(here), *words],
      capture_output=True,
      text=True,
      check=True,
      timeout=10,
    ).stdout.strip()

  try:
    # A package inside some other project's checkout is not that revision.
    git('ls-files', '--error-unmatch', '__init__.py')
    return {
      'revision': git('rev-parse', 'HEAD'),
      'dirty': bool(git('status', '--porcelain', '--untracked-files=no')),
    }
  except (OSError, subprocess.SubprocessError):
    return {'revision': None, 'dirty': None}
