"""What a run is made of, and the record that it leaves of itself."""

from __future__ import annotations

import importlib.metadata
import pathlib
import platform
import subprocess
import time
from typing import Any, NamedTuple

import jax
import numpy as np

import pertjax
from pertjax import config as config_lib
from pertjax import data as data_lib
from pertjax import evaluate, models, types, writers
from pertjax.data import arrays, splits

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
  saved = config_lib.read(path)
  lines = config_lib.differences(saved, config_lib.to_dict(config))
  if lines:
    raise ValueError(
      f'--workdir={workdir} holds a run with another config; choose another '
      'directory, or the same values:\n  ' + '\n  '.join(lines)
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


def setting_name(overrides: dict[str, float]) -> str:
  """Returns 'learning_rate=0.001, ...' for a member's own settings."""
  return ', '.join(
    f'{key.partition(".")[2]}={value:g}' for key, value in overrides.items()
  )


def usable(members: list[dict]) -> list[int]:
  """Returns the numbers of the members that did not fail."""
  return [m['member'] for m in members if not m['status'].startswith('failed')]


def write_run(run: Run) -> None:
  """Writes config.json, split.csv and its summary."""
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


def write_env(
  run: Run, members: list[dict], *, parameters: int | None = None
) -> None:
  """Writes env.json: what the numbers depend on beside config and split.

  Args:
    run: see Run.
    members: what is known of the members so far.
    parameters: of one member; None before the end.
  """
  spec = run.spec
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
