"""The compiled part of training: state, step, chunk, fleet. Pure functions.

A chunk is one compiled call: a scan over steps of a step that is vmapped over
the members of the fleet, then the validation score, then the bookkeeping of
best parameters, plateaus and early stopping. Nothing in it asks the host.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from pertjax import losses, optimizers, rng, types
from pertjax.data import arrays, sampling
from pertjax.metrics import soft_losses

# Labels that are not players.
STATE = 'state'
FROZEN = 'frozen'


class Phase(NamedTuple):
  """A stretch of training.

  Attributes:
    steps: how many steps it lasts.
    players: whose turns make up a step, in order; each turn draws its own
      batch, so a name given twice takes two turns.
    sampling: the sampler; the model's own where it is empty.
  """

  steps: int
  players: tuple[str, ...]
  sampling: str = ''


def phases_of(model: types.Model, config) -> tuple[Phase, ...]:
  """Reads config.train.phases; one phase with every player by default.

  Raises:
    ValueError: if a player is unknown, a phase is not whole chunks, or
      config.loss asks for terms that the model cannot have.
  """
  check_terms(model, config)
  players = tuple(model.losses)
  if not players:
    return ()
  phases = tuple(
    Phase(int(p[0]), tuple(p[1]), *p[2:]) for p in config.train.phases
  ) or (Phase(config.train.steps, players),)
  for number, phase in enumerate(phases):
    unknown = sorted(set(phase.players) - set(players))
    if unknown:
      raise ValueError(
        f'train.phases[{number}] names the players {unknown}; model '
        f'{config.model.name!r} has {list(players)}'
      )
    if phase.steps < 1 or phase.steps % config.train.chunk:
      raise ValueError(
        f'phase {number} has {phase.steps} steps; it must be a positive '
        f'multiple of train.chunk ({config.train.chunk}), since a chunk is '
        'one compiled call'
      )
    sampling.get(phase.sampling or model.sampling)
  return phases


def active_terms(config) -> tuple[str, ...]:
  """Returns the terms of config.loss that have a weight, or get one by fleet.

  Those without one are not in the compiled program.
  """
  swept = {entry[0] for entry in config.fleet}
  return tuple(
    name
    for name, weight in config.loss.weights.items()
    if weight or f'loss.weights.{name}' in swept
  )


def check_terms(model: types.Model, config) -> None:
  """Checks that a model can have the terms that config.loss asks for.

  Raises:
    ValueError: if it is not trained by steps, predicts with what is fitted
      afterwards only, or has several players.
  """
  terms = active_terms(config)
  if not terms:
    return
  reason = ''
  if not model.losses:
    reason = 'is a closed form: it has no training steps'
  elif model.fit is not None:
    reason = 'predicts with what is fitted after its training steps'
  elif len(model.losses) > 1:
    reason = f'has several players ({", ".join(model.losses)})'
  if reason:
    raise ValueError(
      f'loss.weights asks for {", ".join(terms)}, but model '
      f'{config.model.name!r} {reason}; set the weights to 0'
    )


def loss_of(
  model: types.Model, config, player: str, hyper: dict[str, jax.Array]
) -> types.Loss:
  """Returns a player's loss with the terms of config.loss; see with_terms.

  Args:
    model: see types.Model.
    config: the run's config.
    player: whose loss.
    hyper: the scalars in which this member differs.
  """
  options = config.loss
  terms = {}
  for name in active_terms(config):
    term = soft_losses.LOSSES[name]
    function = functools.partial(
      term.function,
      temperature=options.temperature,
      metric=options.rank_metric,
    )
    weight = hyper.get(f'loss.weights.{name}', options.weights[name])
    terms[name] = (weight, function, term.competes)
  return losses.with_terms(
    model.losses[player],
    model.predict,
    terms,
    own=options.own,
    min_cells=options.min_cells,
    control=options.control,
  )


def total_steps(phases: Sequence[Phase]) -> int:
  """Returns the steps of a whole run."""
  return sum(phase.steps for phase in phases)


def labels_of(model: types.Model, params: types.Params) -> list[str]:
  """Returns the label of every leaf of params, in leaf order.

  Raises:
    ValueError: if a label is neither a player, 'state' nor 'frozen'.
  """
  leaves, tree = jax.tree.flatten(params)
  if model.labels is None:
    default = next(iter(model.losses), FROZEN)
    return [default] * len(leaves)
  labels = jax.tree.leaves(model.labels(params))
  if jax.tree.structure(model.labels(params)) != tree:
    raise ValueError('Model.labels must return a tree like params')
  allowed = {*model.losses, STATE, FROZEN}
  unknown = sorted(set(labels) - allowed)
  if unknown:
    raise ValueError(f'unknown labels {unknown}; allowed: {sorted(allowed)}')
  return labels


def _own(leaves, labels, player):
  return [leaf for leaf, label in zip(leaves, labels) if label == player]


def _with_own(leaves, labels, player, own):
  own = iter(own)
  return [
    next(own) if label == player else leaf
    for leaf, label in zip(leaves, labels)
  ]


def init_member(
  model: types.Model,
  config,
  key: jax.Array,
  hyper: dict[str, jax.Array],
  consts: types.Consts,
) -> types.TrainState:
  """Builds the state of one member of the fleet.

  Args:
    model: see types.Model.
    config: the run's config.
    key: root key.
    hyper: the scalars in which this member differs.
    consts: the model's arrays.
  """
  consts = with_hyper(consts, hyper)
  params = model.init(rng.stream(key, rng.INIT), consts)
  leaves = jax.tree.leaves(params)
  labels = labels_of(model, params)
  optimizer = optimizers.make(config.optimizer, hyper)
  return types.TrainState(
    step=jnp.int32(0),
    params=params,
    opt_state={
      p: optimizer.init(_own(leaves, labels, p)) for p in model.losses
    },
    key=key,
    hyper=hyper,
    lr_scale=jnp.float32(1),
    plateau_best=jnp.float32(jnp.inf),
    plateau_bad=jnp.int32(0),
    # A copy: two leaves in one buffer cannot both be donated.
    best_params=jax.tree.map(jnp.copy, params),
    best_score=jnp.float32(jnp.inf),
    best_step=jnp.int32(0),
    bad_evals=jnp.int32(0),
    active=jnp.bool_(True),
    failed_step=jnp.int32(-1),
  )


def with_hyper(consts: types.Consts, hyper: dict[str, jax.Array]):
  """Puts a member's own 'model.x' scalars into consts['hyper']."""
  prefix = 'model.'
  own = {k[len(prefix) :]: v for k, v in hyper.items() if k.startswith(prefix)}
  if not own:
    return consts
  return {**consts, 'hyper': {**consts['hyper'], **own}}


def _select(keep, new, old):
  return jax.tree.map(lambda n, o: jnp.where(keep, n, o), new, old)


def player_turn(
  model: types.Model,
  config,
  player: str,
  draw: Callable[[jax.Array, jax.Array], types.Batch],
  num_steps: int,
  *,
  state: types.TrainState,
  turn: int,
  consts: types.Consts,
) -> tuple[types.Params, Any, dict[str, jax.Array], jax.Array]:
  """Takes one player's turn.

  Where the loss or the gradient is not finite, or the member is not active,
  the gradient counts as 0 and so does the learning rate: the parameters stay
  as they were, bit for bit, without a second copy of them to choose from,
  which costs as much as the optimiser itself.

  Args:
    model: see types.Model.
    config: the run's config.
    player: whose turn it is.
    draw: `(key, number of the draw in this player's turn) -> Batch`.
    num_steps: length of the whole run, for the schedule.
    state: of one member.
    turn: number of the turn within the step.
    consts: with the member's own hyper-parameters.

  Returns:
    (params, optimiser state of the player, metrics, whether all is finite).
  """
  leaves, tree = jax.tree.flatten(state.params)
  labels = labels_of(model, state.params)
  own = _own(leaves, labels, player)
  loss = loss_of(model, config, player, state.hyper)

  def value(own, number, batch_key, loss_key):
    params = jax.tree.unflatten(tree, _with_own(leaves, labels, player, own))
    batch = draw(batch_key, number)
    return loss(params, loss_key, batch, consts, state.step)

  def keys(micro):
    number = state.step * config.optimizer.accumulate + micro
    at = number * 16 + turn
    return (
      number,
      rng.stream(state.key, rng.BATCH, at),
      rng.stream(state.key, rng.LOSS, at),
    )

  gradient = jax.value_and_grad(value, has_aux=True)
  if config.optimizer.accumulate == 1:
    (loss, aux), grads = gradient(own, *keys(0))
  else:
    (loss, aux), grads = _accumulated(
      lambda micro: gradient(own, *keys(micro)), config.optimizer.accumulate
    )
  norm = optax.tree.norm(grads)
  finite = jnp.isfinite(loss) & jnp.isfinite(norm)
  moves = state.active & finite
  grads = jax.tree.map(lambda g: jnp.where(moves, g, 0.0), grads)
  rate = state.lr_scale * optimizers.schedule(
    config.optimizer, state.step, num_steps
  )
  optimizer = optimizers.make(
    config.optimizer, state.hyper, jnp.where(moves, rate, 0.0)
  )
  updates, opt_state = optimizer.update(grads, state.opt_state[player], own)
  params = jax.tree.unflatten(
    tree,
    _with_own(leaves, labels, player, optax.apply_updates(own, updates)),
  )
  if aux.state:
    old = {k: state.params[k] for k in aux.state}
    params = {**params, **_select(moves, aux.state, old)}
  metrics = {'loss': loss, 'grad_norm': norm, **aux.metrics}
  return params, opt_state, metrics, finite


def _accumulated(gradient, count):
  """Averages loss, metrics and gradients over micro-batches.

  The state part of Aux is the last micro-batch's.
  """

  def add(total, micro):
    (loss, aux), grads = gradient(micro)
    summed = jax.tree.map(jnp.add, total, (loss, aux.metrics, grads))
    return summed, aux.state

  shapes = jax.eval_shape(gradient, jnp.int32(0))
  (loss, aux), grads = shapes
  zero = jax.tree.map(
    lambda x: jnp.zeros(x.shape, x.dtype), (loss, aux.metrics, grads)
  )
  total, states = jax.lax.scan(add, zero, jnp.arange(count))
  loss, metrics, grads = jax.tree.map(lambda x: x / count, total)
  last = jax.tree.map(lambda x: x[-1], states)
  return (loss, types.Aux(metrics, last)), grads


def train_step(
  model: types.Model,
  config,
  phase: Phase,
  num_steps: int,
  state: types.TrainState,
  data: arrays.PerturbArrays,
  consts: types.Consts,
) -> tuple[types.TrainState, dict[str, jax.Array]]:
  """Takes one step of one member: every player of the phase has its turn.

  A member that is not active keeps its parameters; one whose loss or gradient
  is not finite keeps those before this step, and is not active from here on.

  Returns:
    (state, metrics); with several players their names prefix the metrics.
  """
  consts = with_hyper(consts, state.hyper)
  name = phase.sampling or model.sampling
  draw, in_order = sampling.get(name), sampling.in_epochs(name)
  size = config.train.batch_size

  def draw_batch(key, number, turn):
    if in_order is None:
      return draw(key, data, data.train, size)
    key = rng.stream(state.key, rng.EPOCH)
    number = number * len(phase.players) + turn
    return in_order(key, number, data, data.train, size)

  new, metrics, finite = state, {}, jnp.bool_(True)
  for turn, player in enumerate(phase.players):
    params, opt_state, seen, ok = player_turn(
      model,
      config,
      player,
      functools.partial(draw_batch, turn=turn),
      num_steps,
      state=new,
      turn=turn,
      consts=consts,
    )
    new = dataclasses.replace(
      new, params=params, opt_state={**new.opt_state, player: opt_state}
    )
    prefix = f'{player}_' if len(model.losses) > 1 else ''
    metrics.update({f'{prefix}{k}': v for k, v in seen.items()})
    finite = finite & ok
  keep = state.active & finite
  failed = state.active & ~finite
  params = new.params
  if len(phase.players) > 1:
    # A turn that went well is taken back when a later one fails.
    params = _select(keep, params, state.params)
  new = dataclasses.replace(
    new,
    step=state.step + keep.astype(jnp.int32),
    params=params,
    active=keep,
    failed_step=jnp.where(failed, state.step, state.failed_step),
  )
  return new, metrics


def validation_score(
  model: types.Model,
  config,
  state: types.TrainState,
  data: arrays.PerturbArrays,
  consts: types.Consts,
) -> jax.Array:
  """Returns the deterministic loss over every validation cell, float32.

  Cells count alike whatever batch they fall into. Controls are paired by a key
  of their own, the same at every evaluation and for every member, so that
  scores can be compared. The sum over players is the score. NaN where the
  split has no cells.
  """
  consts = with_hyper(consts, state.hyper)
  size = config.train.batch_size
  rows, weights = sampling.evaluation_batches(
    model.sampling, data, data.val, size
  )
  if not rows.shape[0]:
    return jnp.float32(jnp.nan)

  def add(total, item):
    number, target, weight = item
    key = rng.stream(rng.root(config.seed), rng.VALIDATION, number)
    batch = sampling.evaluation_batch(
      model.sampling, key, data, data.val, target, weight
    )
    loss = sum(
      loss(state.params, None, batch, consts, state.step)[0]
      for loss in model.losses.values()
    )
    count = jnp.sum(weight)
    # A model may compute in float64.
    loss = jnp.asarray(loss, jnp.float32)
    return (total[0] + loss * count, total[1] + count), None

  numbers = jnp.arange(rows.shape[0])
  (loss, count), _ = jax.lax.scan(
    add, (jnp.float32(0), jnp.float32(0)), (numbers, rows, weights)
  )
  return loss / count


def select_best(
  config, state: types.TrainState, score: jax.Array
) -> types.TrainState:
  """Updates best parameters, plateau and early stopping of one member.

  Without validation cells (NaN score) the newest parameters are the best.
  Plateau: torch's ReduceLROnPlateau in relative mode.
  """
  blind = jnp.isnan(score)
  better = (score < state.best_score) | blind | (config.train.select == 'last')
  better = better & (state.failed_step < 0) & state.active
  counted = state.active & ~blind
  bad = jnp.where(better, 0, state.bad_evals + counted.astype(jnp.int32))
  state = dataclasses.replace(
    state,
    best_params=_select(better, state.params, state.best_params),
    best_score=jnp.where(better & ~blind, score, state.best_score),
    best_step=jnp.where(better, state.step, state.best_step),
    bad_evals=bad,
  )
  options = config.optimizer
  if options.plateau_patience:
    threshold = state.plateau_best * (1 - options.plateau_threshold)
    improved = score < threshold
    waited = jnp.where(
      improved, 0, state.plateau_bad + counted.astype(jnp.int32)
    )
    reduce = waited > options.plateau_patience
    state = dataclasses.replace(
      state,
      plateau_best=jnp.where(improved, score, state.plateau_best),
      plateau_bad=jnp.where(reduce, 0, waited),
      lr_scale=state.lr_scale * jnp.where(reduce, options.plateau_factor, 1.0),
    )
  if config.train.patience:
    state = dataclasses.replace(
      state, active=state.active & (bad < config.train.patience)
    )
  return state


def train_chunk(
  model: types.Model,
  config,
  phase: Phase,
  num_steps: int,
  length: int,
  state: types.TrainState,
  data: arrays.PerturbArrays,
  consts: types.Consts,
) -> tuple[types.TrainState, dict[str, jax.Array]]:
  """Trains a fleet for `length` steps and validates it. To be jitted.

  Returns:
    (state, metrics); metrics are [steps, seeds], but 'val_loss', 'active',
    'failed_step', 'best_step' and 'learning_rate', which are [seeds].
  """

  def chunk(member):
    def step(member, _):
      return train_step(model, config, phase, num_steps, member, data, consts)

    member, metrics = jax.lax.scan(step, member, length=length)
    score = validation_score(model, config, member, data, consts)
    chosen = score
    if config.train.select == 'criterion':
      if 'criterion' not in metrics:
        raise ValueError(
          "train.select='criterion' is for models that report one in training, "
          f'and {config.model.name!r} does not; use best or last'
        )
      chosen = jnp.mean(metrics['criterion']).astype(jnp.float32)
    member = select_best(config, member, chosen)
    rate = member.hyper.get(
      'optimizer.learning_rate', jnp.float32(config.optimizer.learning_rate)
    )
    factor = optimizers.schedule(config.optimizer, member.step, num_steps)
    return (
      member,
      metrics,
      {
        'val_loss': score,
        'active': member.active,
        'failed_step': member.failed_step,
        'best_step': member.best_step,
        'learning_rate': rate * factor * member.lr_scale,
      },
    )

  # The fleet is outside the scan: a fleet of one would otherwise lose its axis
  # and get it back at every step, for which XLA copies all parameters.
  state, metrics, closing = over_fleet(chunk, state)
  metrics = {name: value.T for name, value in metrics.items()}
  return state, {**metrics, **closing}


def over_fleet(function, state):
  """Applies a function of one member to all; a fleet of one is not vmapped.

  A batch axis of length one costs layout changes in some backends, and the
  result is the same.
  """
  size = jax.tree.leaves(state)[0].shape[0]
  if size > 1:
    return jax.vmap(function)(state)
  out = function(jax.tree.map(lambda x: x[0], state))
  return jax.tree.map(lambda x: x[None], out)


def make_chunk(
  model: types.Model, config, phase: Phase, num_steps: int
) -> Callable[..., Any]:
  """Compiles `(state, data, consts) -> (state, metrics)`; state is donated."""

  def chunk(state, data, consts):
    return train_chunk(
      model, config, phase, num_steps, config.train.chunk, state, data, consts
    )

  return jax.jit(chunk, donate_argnums=0)


def init_fleet(
  model: types.Model,
  config,
  seeds: Sequence[int],
  hyper: dict[str, jax.Array],
  consts: types.Consts,
) -> types.TrainState:
  """Builds the state of a fleet in one compiled call.

  Args:
    model: see types.Model.
    config: the run's config.
    seeds: [members] seeds.
    hyper: {dotted key: [members]}.
    consts: the model's arrays.
  """
  keys = jnp.stack([rng.root(seed) for seed in seeds])

  def init(keys, hyper, consts):
    return over_fleet(
      lambda member: init_member(model, config, member[0], member[1], consts),
      (keys, hyper),
    )

  return jax.jit(init)(keys, hyper, consts)
