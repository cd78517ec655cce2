"""What the modes of the command line do: train, evaluate, predict."""

from __future__ import annotations

import os
import pathlib

import jax

from pertjax import config as config_lib
from pertjax import data as data_lib
from pertjax import (
  evaluate,
  external,
  heldout,
  names,
  predict,
  record,
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
    debug: train one seed for a few steps, operation by operation, with an
      error at the first NaN.

  Raises:
    ValueError: for a config, file or request that cannot be right.
    OSError: where something cannot be read or written.
    FloatingPointError: if every member of the fleet has failed.
  """
  if mode not in _MODES:
    raise ValueError(names.unknown('mode', mode, _MODES))
  use_compilation_cache()
  if debug and mode == 'train':
    _debug(config, workdir)
  else:
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
  run = record.open_run(config, workdir)
  train.train(run)
  _report(run)


def _debug(config, workdir):
  config = config.copy_and_resolve_references().unlock()
  config.num_seeds = 1
  config.fleet = ()
  config.train.steps = config.train.chunk = _DEBUG_STEPS
  config.train.phases = ()
  run = record.open_run(config, workdir)
  members = config_lib.members(config)
  record.write_run(run)
  record.write_env(run, members)
  with jax.debug_nans(True), jax.disable_jit():
    state = train.train_fleet(run, members)
  # Compiled, and with the NaNs by which metrics say that they are undefined.
  train.score(run, state, record.member_records(members, state))
  _report(run)


def _report(run):
  if run.config.log.report:
    path = report.write(run.workdir)
    run.console.say(f'report: {path}')


def _evaluate(config, workdir):
  if config.eval.predictions:
    _evaluate_external(config, workdir)
    return
  _check_trained(workdir)
  run = record.open_run(config, workdir)
  state, members = train.restore_state(run, config.eval.checkpoint)
  record.write_run(run)
  train.score(run, state, members)
  _report(run)


def _evaluate_external(config, workdir):
  # Known before the data are read, which may take minutes.
  if not pathlib.Path(config.eval.predictions).is_file():
    raise FileNotFoundError(
      f'eval.predictions={config.eval.predictions}: no such file; it must be '
      'an h5ad with predicted cells of the held-out conditions'
    )
  if (workdir / 'predictions.h5ad').exists() or (workdir / 'ckpt').exists():
    raise ValueError(
      f'--workdir={workdir} holds a trained run, whose tables another '
      "model's scores would replace; choose another directory for "
      f'eval.predictions={config.eval.predictions}'
    )
  run = record.open_run(config, workdir)
  truth = targets.make(config, run.data, run.spec)
  entries = [
    external.predicted(config, run.spec, truth, say=run.console.say),
    *heldout.predict_baselines(config, run.data, run.spec, truth),
  ]
  record.write_run(run)
  record.write_env(run, [], parameters=0)
  evaluate.finish(
    config,
    workdir,
    run.data,
    run.spec,
    truth,
    entries,
    say=run.console.say,
  )
  _report(run)


def _check_trained(workdir):
  if not (workdir / 'config.json').is_file():
    raise FileNotFoundError(
      f'--workdir={workdir} holds no run; train first with --mode=train and '
      'the same --config and --workdir'
    )


def _predict(config, workdir):
  if not config.predict.conditions:
    raise ValueError(
      'predict.conditions is empty; give the CSV of the conditions to predict '
      'as --config.predict.conditions=FILE'
    )
  path = pathlib.Path(config.predict.conditions)
  predict.read_requests(path)
  _check_trained(workdir)
  output = pathlib.Path(
    config.predict.output or workdir / 'predicted.h5ad'
  ).expanduser()
  _check_output(output)
  run = record.open_run(config, workdir)
  state, members = train.restore_state(run)
  keep = record.usable(members)
  params = train.fit_fleet(run, state)
  done = predict.predict(
    config,
    output,
    path,
    model=run.model,
    data=run.data,
    spec=run.spec,
    convention=data_lib.convention_of_config(config.data),
    params=heldout.members(params, keep),
    consts=train.member_consts(run, state, keep),
    members=keep,
  )
  run.console.say(
    f'{done["rows"]} requests, {done["cells"]:,} predicted cells: {output}'
  )


def _check_output(output):
  """Raises OSError, naming the key, where the output cannot be written."""
  if output.is_dir():
    raise IsADirectoryError(
      f'predict.output={output}: a directory; give the name of an h5ad file'
    )
  try:
    writers.check_writable(output.parent)
  except OSError as error:
    raise OSError(
      f'predict.output={output}: its folder cannot be written to '
      f'({error.__cause__ or error})'
    ) from error


_MODES = {'train': _train, 'evaluate': _evaluate, 'predict': _predict}
