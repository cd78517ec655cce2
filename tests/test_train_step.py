"""The compiled step: failures, selection, schedules, settings, players."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
import pytest

from pertjax import config as config_lib
from pertjax import data as data_lib
from pertjax import models, optimizers, train_step, types


@pytest.fixture(scope='module')
def setting(tiny_config):
  config = tiny_config('decoder_only')
  config.train.chunk = 5
  data, spec = data_lib.load(config)
  return config, data, models.make(config.model, spec)


def _config(setting, **changes):
  config = setting[0].copy_and_resolve_references()
  for key, value in changes.items():
    section, name = key.split('__')
    config[section][name] = value
  return config


def _run(setting, config, *, model=None, hyper=None, chunks=2, seeds=(0, 1)):
  _, data, default = setting
  model = model or default
  hyper = hyper or {}
  state = train_step.init_fleet(model, config, seeds, hyper, model.consts)
  history = []
  for phase in train_step.phases_of(model, config):
    program = train_step.make_chunk(model, config, phase, 60)
    for _ in range(chunks):
      state, metrics = program(state, data, model.consts)
      history.append(jax.device_get(metrics))
  return state, history


def _quadratic(**changes):
  """A model of one number whose loss is easy to steer."""

  def init(key, consts):
    del consts
    return {'w': jax.random.normal(key, ())}

  def loss(params, key, batch, consts, step):
    del key, step
    value = (params['w'] - 1.0) ** 2 * consts['hyper']['scale']
    return value + 0.0 * jnp.sum(batch.weight), types.Aux({'w': params['w']})

  fields = {
    'init': init,
    'losses': {'model': loss},
    'predict': lambda params, key, source, condition, consts: source,
    'consts': {'hyper': {'scale': jnp.float32(1)}},
    **changes,
  }
  return types.Model(**fields)


def test_a_failed_seed_is_frozen_and_the_others_go_on(setting):
  def loss(params, key, batch, consts, step, base):
    value, aux = base(params, key, batch, consts, step)
    bad = (step == 7) & (params['w'] > 5.0)
    return jnp.where(bad, jnp.nan, value), aux

  def init(key, consts):
    del consts
    # Only the member with the greater draw starts where the loss breaks.
    return {'w': 10.0 + jax.random.normal(key, ())}

  base = _quadratic()
  breaking = functools.partial(loss, base=base.losses['model'])
  model = base._replace(init=init, losses={'model': breaking})
  config = _config(setting, optimizer__learning_rate=1e-2)
  seeds = (0, 1)
  hyper = {'optimizer.learning_rate': jnp.array([1e-2, 3.0])}
  state, history = _run(
    setting, config, model=model, hyper=hyper, chunks=3, seeds=seeds
  )
  # The slow member is still above 5 at step 7; the fast one is far below.
  np.testing.assert_array_equal(state.failed_step, [7, -1])
  np.testing.assert_array_equal(state.active, [False, True])
  np.testing.assert_array_equal(state.step, [7, 15])
  assert np.isfinite(state.params['w']).all()
  frozen = history[1]['w'][3:, 0]
  np.testing.assert_array_equal(frozen, np.full_like(frozen, frozen[0]))
  assert history[1]['failed_step'].tolist() == [7, -1]


def test_nan_gradient_is_a_failure_even_when_the_loss_is_finite(setting):
  def loss(params, key, batch, consts, step):
    # sqrt has an infinite slope at 0, times 0 is NaN.
    return jnp.sqrt(params['w'] * 0.0), types.Aux({})

  state, _ = _run(
    setting, _config(setting), model=_quadratic(losses={'model': loss})
  )
  np.testing.assert_array_equal(state.failed_step, [0, 0])


def test_early_stopping_freezes_one_member(setting):
  config = _config(
    setting, train__patience=2, optimizer__name='sgd',
    optimizer__learning_rate=0.1,
  )  # fmt: skip
  hyper = {'optimizer.learning_rate': jnp.array([0.1, 0.0])}
  state, history = _run(
    setting, config, model=_quadratic(), hyper=hyper, chunks=4
  )
  # A rate of 0 improves once (from infinity), then never: stopped at 3 chunks.
  np.testing.assert_array_equal(state.active, [True, False])
  np.testing.assert_array_equal(state.step, [20, 15])
  assert [h['active'][1].item() for h in history] == [True, True, False, False]


def test_best_parameters_are_those_of_the_best_score(setting):
  config = _config(setting, optimizer__name='sgd')
  hyper = {'optimizer.learning_rate': jnp.array([0.1, 1.2])}
  state, _ = _run(setting, config, model=_quadratic(), hyper=hyper, chunks=3)
  best, last = state.best_params['w'], state.params['w']
  np.testing.assert_allclose(best[0], last[0])
  # The second member diverges (slowly): its best is its first validation.
  assert abs(best[1] - 1) < abs(last[1] - 1)
  np.testing.assert_array_equal(state.best_step, [15, 5])
  last_config = _config(setting, optimizer__name='sgd', train__select='last')
  state, _ = _run(
    setting, last_config, model=_quadratic(), hyper=hyper, chunks=3
  )
  np.testing.assert_array_equal(state.best_params['w'], state.params['w'])


def test_plateau_reduces_the_rate_as_torch_does(setting):
  config = _config(
    setting, optimizer__plateau_patience=1, optimizer__plateau_factor=0.5
  )
  state = jax.tree.map(
    lambda x: x[0],
    train_step.init_fleet(_quadratic(), config, [0], {}, _quadratic().consts),
  )
  rates = []
  # torch.optim.lr_scheduler.ReduceLROnPlateau(factor=.5, patience=1): the
  # third bad epoch in a row is the first one past the patience, and so on.
  for score in [1.0, 0.9, 0.9, 0.89999, 0.8, 0.8, 0.8, 0.8, 0.8]:
    state = train_step.select_best(config, state, jnp.float32(score))
    rates.append(float(state.lr_scale))
  assert rates == [1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.125]


def test_members_of_a_fleet_have_their_own_settings(setting):
  config = _config(setting, optimizer__name='sgd')
  hyper = {'model.scale': jnp.array([1.0, 3.0])}
  state, _ = _run(
    setting, config, model=_quadratic(), hyper=hyper, chunks=1, seeds=(4, 4)
  )
  rate = config.optimizer.learning_rate
  start = train_step.init_fleet(
    _quadratic(), config, [4], {}, _quadratic().consts
  ).params['w'][0]
  for member, scale in enumerate((1.0, 3.0)):
    expected = 1 + (start - 1) * (1 - 2 * scale * rate) ** 5
    np.testing.assert_allclose(state.params['w'][member], expected, rtol=1e-5)


def test_accumulation_equals_one_large_batch(setting):
  """A linear-in-batch loss: the mean of two halves is the whole."""
  config = _config(setting, optimizer__accumulate=4)
  state, history = _run(setting, config, chunks=1)
  assert np.isfinite(history[0]['loss']).all()
  plain, _ = _run(setting, _config(setting), chunks=1)
  same = jax.tree.map(
    lambda a, b: np.array_equal(a, b), state.params, plain.params
  )
  assert not all(jax.tree.leaves(same)), 'accumulation must change the draw'
  quadratic = _config(setting, optimizer__accumulate=4, optimizer__name='sgd')
  one = _config(setting, optimizer__name='sgd')
  a, _ = _run(setting, quadratic, model=_quadratic(), chunks=1)
  b, _ = _run(setting, one, model=_quadratic(), chunks=1)
  np.testing.assert_allclose(a.params['w'], b.params['w'], rtol=1e-6)


def test_players_move_only_their_own_parameters(setting):
  def init(key, consts):
    return {'a': jnp.float32(0), 'b': jnp.float32(0), 'c': jnp.float32(0)}

  def loss(params, key, batch, consts, step):
    total = (params['a'] - 1) ** 2 + (params['b'] - 1) ** 2
    return total + (params['c'] - 1) ** 2, types.Aux({})

  model = _quadratic(
    init=init,
    losses={'one': loss, 'two': loss},
    labels=lambda params: {'a': 'one', 'b': 'two', 'c': 'frozen'},
  )
  config = _config(setting, train__phases=((5, ('one',)), (5, ('two', 'two'))))
  first = train_step.phases_of(model, config)[0]
  state = train_step.init_fleet(model, config, [0], {}, model.consts)
  program = train_step.make_chunk(model, config, first, 10)
  state, metrics = program(state, setting[1], model.consts)
  assert state.params['a'][0] != 0
  assert state.params['b'][0] == 0
  assert state.params['c'][0] == 0
  assert 'one_loss' in metrics
  state, _ = _run(setting, config, model=model, chunks=1, seeds=(0,))
  assert state.params['b'][0] != 0
  assert state.params['c'][0] == 0


@pytest.mark.parametrize(
  ('phases', 'message'),
  [
    (((5, ('critic',)),), r"players \['critic'\].*has \['model'\]"),
    (((7, ('model',)),), 'multiple of train.chunk'),
    (((5, ('model',), 'pared'),), 'sampler.*closest: paired'),
  ],
)
def test_bad_phases(setting, phases, message):
  config = _config(setting, train__phases=phases)
  with pytest.raises(ValueError, match=message):
    train_step.phases_of(setting[2], config)


def test_a_chunk_is_compiled_once(setting):
  config, data, model = setting
  (phase,) = train_step.phases_of(model, config)
  program = train_step.make_chunk(model, config, phase, 60)
  state = train_step.init_fleet(model, config, [0, 1], {}, model.consts)
  for _ in range(3):
    state, _ = program(state, data, model.consts)
  assert program._cache_size() == 1


def test_scan_equals_a_loop_over_steps(setting):
  config, data, model = setting
  (phase,) = train_step.phases_of(model, config)
  program = train_step.make_chunk(model, config, phase, 60)
  start = train_step.init_fleet(model, config, [0], {}, model.consts)
  state, _ = program(jax.tree.map(jnp.copy, start), data, model.consts)
  step = jax.jit(
    lambda s: train_step.train_step(
      model, config, phase, 60, s, data, model.consts
    )[0]
  )
  looped = jax.tree.map(lambda x: x[0], start)
  for _ in range(config.train.chunk):
    looped = step(looped)
  for a, b in zip(
    jax.tree.leaves(state.params), jax.tree.leaves(looped.params)
  ):
    np.testing.assert_allclose(a[0], b, rtol=1e-5, atol=1e-7)


def test_validation_counts_every_cell_once(setting):
  config, data, _ = setting

  def loss(params, key, batch, consts, step):
    mean = jnp.sum(batch.target.mean(-1) * batch.weight)
    return mean / jnp.maximum(batch.weight.sum(), 1e-9), types.Aux({})

  model = _quadratic(losses={'model': loss})
  state = jax.tree.map(
    lambda x: x[0],
    train_step.init_fleet(model, config, [0], {}, model.consts),
  )
  score = train_step.validation_score(model, config, state, data, model.consts)
  rows = np.asarray(data.val.perturbed)
  assert len(rows) % config.train.batch_size, 'the last batch must be ragged'
  np.testing.assert_allclose(
    score, np.asarray(data.cells.values)[rows].mean(), rtol=1e-5
  )


def test_adam_with_coupled_decay_is_torchs():
  """Two steps by hand: decay joins the gradient before the moments."""
  options = ml_collections.ConfigDict(optimizers.default_config())
  options.update(weight_decay=0.1, learning_rate=0.01)
  tx = optimizers.make(options, {})
  w, state = jnp.array([2.0]), tx.init(jnp.array([2.0]))
  m = v = 0.0
  expected = 2.0
  for t in (1, 2):
    updates, state = tx.update(jnp.array([0.5]), state, w)
    w = optax.apply_updates(w, updates)
    g = 0.5 + 0.1 * expected
    m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
    expected -= 0.01 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    np.testing.assert_allclose(w, [expected], rtol=1e-5)


def test_adamw_decay_is_decoupled():
  options = ml_collections.ConfigDict(optimizers.default_config())
  options.update(name='adamw', weight_decay=0.1, learning_rate=0.01)
  tx = optimizers.make(options, {})
  w = jnp.array([2.0])
  updates, _ = tx.update(jnp.array([0.0]), tx.init(w), w)
  np.testing.assert_allclose(updates, [-0.01 * 0.1 * 2.0], rtol=1e-6)


@pytest.mark.parametrize(
  ('kind', 'expected'),
  [
    ('constant', [0.5, 1, 1, 1]),
    ('linear', [0.5, 1, 0.55, 0.1]),
    ('cosine', [0.5, 1, 0.55, 0.1]),
  ],
)
def test_schedules(kind, expected):
  options = ml_collections.ConfigDict(optimizers.default_config())
  options.update(schedule=kind, warmup_steps=2, final_fraction=0.1)
  seen = [
    float(optimizers.schedule(options, jnp.int32(s), 102))
    for s in (0, 2, 52, 102)
  ]
  np.testing.assert_allclose(seen, expected, rtol=1e-5)


def test_clipping_scales_to_the_norm():
  options = ml_collections.ConfigDict(optimizers.default_config())
  options.update(name='sgd', clip_norm=1.0, learning_rate=1.0)
  tx = optimizers.make(options, {})
  w = jnp.zeros(2)
  updates, _ = tx.update(jnp.array([3.0, 4.0]), tx.init(w), w)
  np.testing.assert_allclose(updates, [-0.6, -0.8], rtol=1e-6)


@pytest.mark.parametrize(
  ('fleet', 'message'),
  [
    ((('optimizer.learning_rate', ()),), 'each must be'),
    ((('optimizer.b1', (0.1,)),), 'config.fleet names'),
    ((('optimizer.clip_norm', (0.1,)),), 'is 0'),
  ],
)
def test_bad_fleets(tiny_config, fleet, message):
  config = tiny_config('vae')
  config.fleet = fleet
  with pytest.raises(ValueError, match=message):
    config_lib.validate(config)


def test_fleet_is_settings_times_seeds(tiny_config):
  config = tiny_config('vae')
  config.fleet = (
    ('optimizer.learning_rate', (0.1, 0.2)),
    ('model.kl_weight', (1.0,)),
  )
  config_lib.validate(config)
  members = config_lib.members(config)
  assert [m['seed'] for m in members] == [0, 1, 0, 1]
  assert members[3]['overrides'] == {
    'optimizer.learning_rate': 0.2,
    'model.kl_weight': 1.0,
  }


def test_state_is_a_dataclass_of_leading_seeds(setting):
  config, _, model = setting
  state = train_step.init_fleet(model, config, [0, 1, 2], {}, model.consts)
  for field in dataclasses.fields(state):
    for leaf in jax.tree.leaves(getattr(state, field.name)):
      assert leaf.shape[0] == 3, field.name
