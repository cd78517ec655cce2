"""What the modes of the command line do: train, evaluate, predict."""

from __future__ import annotations

import os
import pathlib

import jax
import numpy as np

from pertjax import data as data_lib
from pertjax import (
  evaluate,
  external,
  predict,
  report,
  targets,
  train,
  writers,
)

_DEBUG_STEPS = 2


def start(
  config, workdir: pathlib.Path, *, mode: str = 'train', debug: bool = False
) -> None:
  """Runs one mode.

  Args:
    config: a ConfigDict, from a config file or config.default().
    workdir: directory of the run.
    mode: 'train', 'evaluate' or 'predict'.
    debug: one seed, few steps, no compilation, an error at the first NaN.
  """
  if debug:
    config = config.copy_and_resolve_references()
    config.unlock()
    config.num_seeds = 1
    config.fleet = ()
    config.train.steps = config.train.chunk = _DEBUG_STEPS
    config.train.phases = ()
    jax.config.update('jax_debug_nans', True)
    with jax.disable_jit():
      _MODES[mode](config, workdir)
    return
  use_compilation_cache()
  _MODES[mode](config, workdir)


def use_compilation_cache() -> None:
  """Keeps compiled programs in the user's cache folder, if none is set."""
  if jax.config.jax_compilation_cache_dir:
    return
  root = os.environ.get('XDG_CACHE_HOME') or pathlib.Path.home() / '.cache'
  jax.config.update(
    'jax_compilation_cache_dir', str(pathlib.Path(root) / 'pertjax' / 'jax')
  )
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.5)


def _train(config, workdir):
  run = train.open_run(config, workdir)
  train.train(run)
  _report(run)


def _report(run):
  if run.config.log.report:
    path = report.write(run.workdir)
    run.console.say(f'report: {path}')


def _evaluate(config, workdir):
  run = train.open_run(config, workdir)
  if config.eval.predictions:
    truth = targets.make(config, run.data, run.spec)
    scored = [
      external.score(config, run.spec, truth, say=run.console.say),
      *evaluate.score_baselines(config, run.data, run.spec, truth),
    ]
    members = []
    train.write_run(run, members, parameters=0)
    evaluate.finish(
      config, workdir, run.spec, truth, scored, say=run.console.say
    )
    _report(run)
    return
  state, members = train.restore_state(run, config.eval.checkpoint)
  train.score(run, state, members)
  _report(run)


def _predict(config, workdir):
  if not config.predict.conditions:
    raise ValueError(
      'predict.conditions is empty; give the CSV of the conditions to predict '
      'as --config.predict.conditions=FILE'
    )
  path = pathlib.Path(config.predict.conditions)
  predict.read_requests(path)
  run = train.open_run(config, workdir)
  state, members = train.restore_state(run)
  keep = train.usable(members)
  params = train.fit_fleet(run, state)
  output = pathlib.Path(
    config.predict.output or workdir / 'predicted.h5ad'
  ).expanduser()
  writers.check_writable(output.parent)
  done = predict.predict(
    config,
    output,
    path,
    model=run.model,
    data=run.data,
    spec=run.spec,
    convention=data_lib.convention_of_config(config.data),
    params=jax.tree.map(lambda x: x[np.asarray(keep)], params),
    consts=train.member_consts(run, state, keep),
    members=keep,
  )
  run.console.say(
    f'{done["rows"]} requests, {done["cells"]:,} predicted cells: {output}'
  )


_MODES = {'train': _train, 'evaluate': _evaluate, 'predict': _predict}
