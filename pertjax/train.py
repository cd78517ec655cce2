"""The story of a run: data, model, restore, chunks, fit, evaluate, report."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from pertjax import (
  checkpoints,
  evaluate,
  heldout,
  interpret,
  record,
  rng,
  train_step,
  types,
)
from pertjax import config as config_lib
from pertjax import loop as loop_lib
from pertjax.data import sampling, statistics
from pertjax.record import Run


def train(run: Run) -> None:
  """Trains, or goes on, until the run is finished; then scores and reports.

  Raises:
    FloatingPointError: if every member of the fleet has failed.
    SystemExit: 143 after SIGTERM, once the state is saved.
  """
  members = config_lib.members(run.config)
  record.write_run(run)
  record.write_env(run, members)
  state = train_fleet(run, members)
  score(run, state, record.member_records(members, state))


def score(run: Run, state: types.TrainState, members: list[dict]) -> None:
  """Fits, scores every member that did not fail, and writes the tables."""
  keep = record.usable(members)
  params = fit_fleet(run, state)
  parameters = checkpoints.num_parameters(state.params) // len(members)
  record.write_env(run, members, parameters=parameters)
  kept = heldout.members(params, keep)
  consts = member_consts(run, state, keep)
  evaluate.run(
    run.config,
    run.workdir,
    run.model,
    run.data,
    run.spec,
    kept,
    consts,
    members=keep,
    settings=[record.setting_name(members[k]['overrides']) for k in keep],
    scores=np.asarray(state.best_score)[keep].tolist(),
    say=run.console.say,
  )
  interpret.run(
    run.config,
    run.workdir,
    run.data,
    run.spec,
    kept,
    consts,
    members=keep,
    say=run.console.say,
  )


def train_fleet(run: Run, members: list[dict]) -> types.TrainState:
  """Takes the training steps that are left; returns the state after them."""
  config, model, console = run.config, run.model, run.console
  phases = train_step.phases_of(model, config)
  total = train_step.total_steps(phases)
  chunk = config.train.chunk
  plan = [p for p in phases for _ in range(p.steps // chunk)]
  init = _fleet(run, members)
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
  for name in dict.fromkeys(p.sampling or model.sampling for p in phases):
    _say_epoch(run, name)
  loop = loop_lib.Loop(run, plan, total, members, meta)
  try:
    return loop.go(state)
  finally:
    loop.close()


def _say_epoch(run: Run, name: str) -> None:
  """Says what an epoch of a sampler has, if it goes by epochs."""
  size = run.config.train.batch_size
  found = sampling.epoch_summary(name, run.data.train, size)
  if found is None:
    return
  lost = ''
  if found['cells_left_out']:
    lost = (
      f'; {found["cells_left_out"]:,} cells are left out in every epoch, among '
      f'them all of {found["pairs_left_out"]:,} conditions'
    )
  run.console.say(
    f'an epoch is {found["batches"]:,} batches of {found["cells"]:,} perturbed '
    f'cells of {found["pairs"]:,} conditions{lost}'
  )


def _fleet(run: Run, members: list[dict]) -> Callable[[], types.TrainState]:
  """Returns what builds the state of the fleet before its first step."""
  hyper = {
    key: jnp.asarray([m['overrides'][key] for m in members], jnp.float32)
    for key in members[0]['overrides']
  }
  return lambda: train_step.init_fleet(
    run.model, run.config, [m['seed'] for m in members], hyper, run.model.consts
  )


def member_consts(
  run: Run, state: types.TrainState, keep: list[int]
) -> list[types.Consts]:
  """Returns the model's arrays as each member saw them."""
  return [
    train_step.with_hyper(run.model.consts, heldout.member(state.hyper, m))
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
      heldout.member(params, k),
      state.key[k],
      heldout.member(state.hyper, k),
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
  members = config_lib.members(run.config)
  init = _fleet(run, members)
  if not run.model.losses:
    state = init()
    return state, record.member_records(members, state)
  folder, abstract = run.workdir / 'ckpt', jax.eval_shape(init)
  if step < 0:
    found = checkpoints.restore_latest(folder, abstract, run.console.say)
    if found is None:
      raise ValueError(
        f'{run.workdir} has no checkpoint to read; train first with '
        '--mode=train and the same --config and --workdir'
      )
    state, _ = found
  else:
    chunk = run.config.train.chunk
    there = [s * chunk for s in checkpoints.steps(folder)]
    if step not in there:
      raise ValueError(
        f'eval.checkpoint is {step}; {folder} has checkpoints at the steps '
        f'{there}'
      )
    state, _ = checkpoints.restore(folder, step // chunk, abstract)
    # The parameters of that very step, not the best until then.
    state = dataclasses.replace(state, best_params=state.params)
  return state, record.member_records(members, state)
