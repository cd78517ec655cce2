"""Terms of a batch's mean cells: config.loss, from the config to the step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy import testing

from pertjax import config as config_lib
from pertjax import data as data_lib
from pertjax import losses, models, train_step, types
from pertjax.data import sampling
from pertjax.metrics import soft_losses

GENES = 6


def make_batch(pairs, weight=None, seed=0):
  """A batch of (perturbation, group) cells, for means by hand."""
  random = np.random.default_rng(seed)
  number = len(pairs)
  ids, group = (np.array(x, np.int32) for x in zip(*pairs))
  return types.Batch(
    target=jnp.array(random.random((number, GENES)), jnp.float32),
    source=jnp.array(random.random((number, GENES)), jnp.float32),
    condition=types.Condition(
      perturbations=jnp.array(np.stack([ids, np.full_like(ids, -1)], 1)),
      doses=jnp.array(np.stack([np.ones(number), np.zeros(number)], 1)),
      covariates=jnp.zeros((number, 0), jnp.int32),
      group=jnp.array(group),
    ),
    weight=jnp.array(
      np.ones(number) if weight is None else weight, jnp.float32
    ),  # fmt: skip
  )


PAIRS = [(3, 0), (1, 0), (3, 1), (3, 0), (1, 0), (2, 0), (3, 1), (3, 0)]


# ----------------------------------------------------------------------------
# Means over the pairs of a batch.


@pytest.mark.parametrize('control', losses.CONTROLS)
@pytest.mark.parametrize('padding', [(), (0, 6)])
def test_batch_means_by_hand(control, padding):
  weight = np.ones(len(PAIRS))
  weight[list(padding)] = 0
  batch = make_batch(PAIRS, weight)
  predicted = batch.target + 1
  means = losses.batch_means(predicted, batch, min_cells=2, control=control)
  assert means.counted.shape == (4,)
  seen = {}
  for slot in np.flatnonzero(means.counted):
    seen[tuple(np.asarray(means.observed[slot]).round(5))] = slot
  expected = [(3, 0), (1, 0), (3, 1)]
  if padding:
    expected.remove((3, 1))  # One of its two cells is left.
  assert len(seen) == len(expected)
  for pair in expected:
    own = [i for i, p in enumerate(PAIRS) if p == pair and weight[i]]
    slot = seen[tuple(np.asarray(batch.target)[own].mean(0).round(5))]
    testing.assert_allclose(
      means.predicted[slot], means.observed[slot] + 1, rtol=1e-5
    )
    assert means.group[slot] == pair[1]
    if control == 'group':
      own = [i for i, p in enumerate(PAIRS) if p[1] == pair[1] and weight[i]]
    testing.assert_allclose(
      means.control[slot], np.asarray(batch.source)[own].mean(0), rtol=1e-5
    )
  empty = ~np.asarray(means.counted)
  assert (np.asarray(means.group)[empty] < 0).all()
  assert len(set(np.asarray(means.group)[empty])) == empty.sum()
  assert not np.asarray(means.observed)[empty].any()


def test_doses_make_conditions_of_their_own():
  batch = make_batch([(1, 0)] * 4)
  doses = jnp.array([[1.0, 0], [2, 0], [1, 0], [2, 0]])
  batch = batch._replace(condition=batch.condition._replace(doses=doses))
  means = losses.batch_means(
    batch.target, batch, min_cells=2, control='matched'
  )
  assert means.counted.tolist() == [True, True]
  testing.assert_allclose(
    means.observed[0], batch.target[jnp.array([0, 2])].mean(0), rtol=1e-6
  )


def _identity_model():
  """Predicts the control cell times a learned number."""

  def predict(params, key, source, condition, consts):
    return source * params['w']

  def loss(params, key, batch, consts, step):
    error = predict(params, key, batch.source, None, consts) - batch.target
    return jnp.mean(error**2), types.Aux({})

  return types.Model(
    init=lambda key, consts: {'w': jnp.float32(1)},
    losses={'model': loss},
    predict=predict,
  )


def _with(model, terms, **options):
  return losses.with_terms(
    model.losses['model'], model.predict, terms, **options
  )


def _call(loss, batch, w=0.7):
  return loss({'w': jnp.float32(w)}, None, batch, {}, jnp.int32(0))


def _mean_error(predicted, observed, control, group):
  return jnp.mean((predicted - observed) ** 2, axis=-1)


def test_a_term_is_the_mean_over_the_pairs_that_count():
  batch, model = make_batch(PAIRS), _identity_model()
  total, aux = _call(_with(model, {'x': (0.5, _mean_error, False)}), batch)
  own, _ = _call(model.losses['model'], batch)
  target, source = np.asarray(batch.target), 0.7 * np.asarray(batch.source)
  errors = []
  for pair in ((3, 0), (1, 0), (3, 1)):
    cells = [i for i, p in enumerate(PAIRS) if p == pair]
    errors.append(np.mean((source[cells] - target[cells]).mean(0) ** 2))
  testing.assert_allclose(aux.metrics['x'], np.mean(errors), rtol=1e-5)
  assert aux.metrics['own_loss'] == own
  assert aux.metrics['num_conditions'] == 3
  testing.assert_allclose(total, own + 0.5 * np.mean(errors), rtol=1e-6)
  # (3, 1) is alone in its group and cannot compete.
  _, aux = _call(_with(model, {'x': (0.5, _mean_error, True)}), batch)
  testing.assert_allclose(aux.metrics['x'], np.mean(errors[:2]), rtol=1e-5)


@pytest.mark.parametrize('name', soft_losses.LOSSES)
@pytest.mark.parametrize(
  'pairs',
  [[(1, 0), (2, 0), (3, 0), (4, 0)], [(1, 0)] * 4, [(1, 0), (1, 0)] * 2],
  ids=['no pair with two cells', 'one pair', 'the same'],
)
def test_a_batch_without_an_answer_adds_a_finite_gradient(name, pairs):
  term = soft_losses.LOSSES[name]

  def function(*arrays):
    return term.function(*arrays, temperature=0.1, metric='rmse')

  loss = _with(_identity_model(), {name: (1.0, function, term.competes)})
  batch = make_batch(pairs)
  (value, aux), slope = jax.jit(
    jax.value_and_grad(lambda w: _call(loss, batch, w), has_aux=True)
  )(0.7)
  assert np.isfinite(value)
  assert np.isfinite(slope)
  if len(set(pairs)) == 4:
    assert aux.metrics[name] == 0


def test_nothing_to_add_is_the_loss_itself():
  model = _identity_model()
  assert _with(model, {}) is model.losses['model']
  total, aux = _call(_with(model, {}, own=0.25), make_batch(PAIRS))
  assert total == 0.25 * aux.metrics['own_loss']


def test_what_a_batch_or_model_lacks_is_said():
  model, batch = _identity_model(), make_batch(PAIRS)
  loss = _with(model, {'x': (1.0, _mean_error, False)})
  base = model.losses['model']
  blind = losses.with_terms(
    lambda *a: (jnp.float32(0), types.Aux({})),
    model.predict,
    {'x': (1.0, _mean_error, False)},
  )
  with pytest.raises(ValueError, match='control cell.*sampler paired'):
    _call(blind, batch._replace(source=None))
  named = model._replace(
    losses={'model': lambda *a: (base(*a)[0], types.Aux({'x': 1.0}))}
  )
  with pytest.raises(ValueError, match=r"same names: \['x'\]"):
    _call(_with(named, {'x': (1.0, _mean_error, False)}), batch)
  _call(loss, batch)


# ----------------------------------------------------------------------------
# In training.


@pytest.fixture(scope='module')
def setting(tiny_config):
  config = tiny_config('latent_additive')
  config.train.update(chunk=5, batch_size=48)
  config.data.simulate.num_genes = 24
  data, spec = data_lib.load(config)
  return config, data, models.make(config.model, spec)


def _train(setting, weights=None, fleet=(), **changes):
  config, data, model = setting
  config = config.copy_and_resolve_references()
  config.loss.weights.update(weights or {})
  config.loss.update(changes)
  config.fleet = fleet
  config_lib.validate(config)
  members = config_lib.members(config)
  hyper = {
    k: jnp.array([m['overrides'][k] for m in members])
    for k in members[0]['overrides']
  }
  (phase,) = train_step.phases_of(model, config)
  state = train_step.init_fleet(
    model, config, [m['seed'] for m in members], hyper, model.consts
  )
  program = train_step.make_chunk(model, config, phase, 60)
  state, metrics = program(state, data, model.consts)
  return state, jax.device_get(metrics)


def test_the_default_is_the_models_own_loss(setting):
  config, _, model = setting
  assert train_step.active_terms(config) == ()
  for player, loss in model.losses.items():
    assert train_step.loss_of(model, config, player, {}) is loss


def test_terms_are_in_the_metrics_and_move_the_parameters(setting):
  plain, before = _train(setting)
  weights = dict.fromkeys(soft_losses.LOSSES, 0.1)
  state, metrics = _train(setting, weights)
  assert set(metrics) - set(before) == {
    'own_loss', 'num_conditions', *soft_losses.LOSSES
  }  # fmt: skip
  # The same parameters, batch and dropout in the first step.
  testing.assert_allclose(metrics['own_loss'][0], before['loss'][0], rtol=1e-6)
  total = metrics['own_loss'] + 0.1 * sum(metrics[k] for k in weights)
  testing.assert_allclose(metrics['loss'], total, rtol=1e-5)
  for name in weights:
    assert metrics[name].shape == metrics['loss'].shape
    assert np.isfinite(metrics[name]).all()
    assert (metrics[name] > 0).all()
  assert (metrics['num_conditions'] > 3).all()
  assert (metrics['failed_step'] == -1).all()
  assert np.isfinite(metrics['val_loss']).all()
  same = jax.tree.map(np.array_equal, state.params, plain.params)
  assert not any(jax.tree.leaves(same['network']['decoder']))


def test_a_fleet_may_have_weights_of_its_own(setting):
  key = 'loss.weights.pearson_delta'
  state, metrics = _train(setting, fleet=((key, (0.0, 1.0)),))
  plain, before = _train(setting)
  alone, _ = _train(setting, {'pearson_delta': 1.0})
  # Members are setting by setting, two seeds of each.
  testing.assert_allclose(metrics['loss'][:, :2], before['loss'], rtol=1e-4)
  for part, other in ((slice(0, 2), plain), (slice(2, 4), alone)):
    for a, b in zip(
      jax.tree.leaves(state.params), jax.tree.leaves(other.params)
    ):
      testing.assert_allclose(a[part], b, rtol=1e-3, atol=1e-4)
  assert (metrics['loss'][:, 2:] > metrics['own_loss'][:, 2:] + 0.05).all()


def test_training_on_a_term_alone_lowers_it(setting):
  config, data, model = setting
  config = config.copy_and_resolve_references()
  config.loss.own = 0.0
  config.loss.weights.pearson_delta = 1.0
  config.loss.control = 'group'
  config.train.update(chunk=40, steps=40)
  config.optimizer.update(learning_rate=1e-2, eps=1e-8)
  config_lib.validate(config)
  (phase,) = train_step.phases_of(model, config)
  state = train_step.init_fleet(model, config, [0], {}, model.consts)
  program = train_step.make_chunk(model, config, phase, 40)
  _, metrics = program(state, data, model.consts)
  values = np.asarray(metrics['pearson_delta'])[:, 0]
  testing.assert_allclose(values, np.asarray(metrics['loss'])[:, 0], rtol=1e-6)
  assert values[-5:].mean() < values[:5].mean() - 0.1


def test_terms_count_padding_as_little_as_the_loss_does(setting):
  config, data, model = setting
  config = config.copy_and_resolve_references()
  config.loss.weights.update(soft_rank=1.0, weighted_mse=1.0)
  loss = train_step.loss_of(model, config, 'model', {})
  draw = sampling.get(model.sampling)
  batch = draw(jax.random.key(0), data, data.train, 48)
  params = model.init(jax.random.key(1), model.consts)
  half = (jnp.arange(48) < 24).astype(jnp.float32)
  short = jax.tree.map(lambda x: x[:24], batch)
  metrics = jax.jit(
    lambda x: loss(params, None, x, model.consts, jnp.int32(0))[1].metrics
  )
  a, b = metrics(batch._replace(weight=half)), metrics(short)
  assert a.keys() == b.keys()
  for name in a:
    testing.assert_allclose(a[name], b[name], rtol=1e-4)


# ----------------------------------------------------------------------------
# The config.


def _refusal(config):
  with pytest.raises(ValueError) as caught:
    config_lib.validate(config)
  return str(caught.value)


def test_every_term_has_a_weight_and_it_is_zero():
  weights = config_lib.default().loss.weights
  assert dict(weights) == dict.fromkeys(soft_losses.LOSSES, 0.0)


@pytest.mark.parametrize(
  ('key', 'value', 'shown'),
  [
    ('weights.soft_rnk', 0.1, ('soft_rnk', 'loss.weights.soft_rank')),
    ('weights.soft_rank', -0.1, ('loss.weights.soft_rank is -0.1', '>= 0')),
    ('weights.mse', float('nan'), ('loss.weights.mse is nan', '>= 0')),
    ('own', -1.0, ('loss.own is -1.0', '>= 0')),
    ('own', 0.0, ('loss.own is 0', 'nothing to train on')),
    ('temperature', 0.0, ('loss.temperature is 0.0', '> 0')),
    ('rank_metric', 'rsme', ("'rsme'", 'closest: rmse')),
    ('control', 'groups', ("'groups'", 'closest: group')),
    ('min_cells', 1, ('loss.min_cells is 1', 'at least 2')),
  ],
)  # fmt: skip
def test_wrong_value_is_named(key, value, shown):
  config = config_lib.default()
  section, _, name = f'loss.{key}'.rpartition('.')
  with config.unlocked():
    target = config.loss.weights if 'weights' in section else config.loss
    target[name] = value
  message = _refusal(config)
  assert all(text in message for text in shown), message


@pytest.mark.parametrize(
  ('model', 'shown'),
  [('vae', 'fitted after training'), ('baselines', 'closed form')],
)
def test_model_that_cannot_have_terms_is_refused_before_data_are_read(
  model, shown
):
  config = config_lib.default(model)
  config_lib.validate(config)
  config.loss.weights.soft_rank = 0.5
  message = _refusal(config)
  assert all(t in message for t in ('soft_rank', repr(model), shown)), message
  config.loss.weights.soft_rank = 0.0
  if model == 'vae':
    config.fleet = (('loss.weights.mse', (0.0, 1.0)),)
    assert shown in _refusal(config)


@pytest.mark.parametrize(
  ('changes', 'shown'),
  [
    ({'fit': lambda *a: None}, 'fitted after its training'),
    ({'losses': {}}, 'closed form'),
    ({'losses': {'a': None, 'b': None}}, r'several players \(a, b\)'),
  ],
)
def test_model_from_elsewhere_is_checked_before_training(
  setting, changes, shown
):
  config = setting[0].copy_and_resolve_references()
  model = _identity_model()._replace(**changes)
  train_step.check_terms(model, config)
  config.loss.weights.mse = 1.0
  with pytest.raises(ValueError, match=shown):
    train_step.phases_of(model, config)


@pytest.mark.parametrize(
  ('fleet', 'shown'),
  [
    ((('loss.weights.msee', (1.0,)),), 'closest: loss.weights.mse'),
    ((('loss.weights.mse', (1.0, -1.0)),), 'loss.weights.mse to -1.0'),
    ((('loss.temperature', (1.0,)),), 'loss.temperature'),
  ],
)
def test_fleet_that_cannot_be_is_named(fleet, shown):
  config = config_lib.default()
  config.fleet = fleet
  assert shown in _refusal(config)
