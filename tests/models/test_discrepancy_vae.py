"""The discrepancy-VAE beyond its numbers: what it takes and refuses."""

import dataclasses

import handmade
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pertjax import config as config_lib
from pertjax import losses, models, train_step, types
from pertjax.data import sampling
from pertjax.models import discrepancy_vae, interventions, layers

# Many small programs, a minute to compile; the parity tests are not slow.
pytestmark = pytest.mark.slow

SETS = {'a': (0, 1, 2, 3), 'b': (2, 5), 'c': (6, 7, 8), 'd': (9, 10, 11, 0)}
FULL = {'mmd_ramp': (0, 0), 'kl_ramp': (0, 0), 'temperature_ramp': (0, 0)}


@pytest.fixture(scope='module')
def screen():
  return with_sets(handmade.screen(copies=7, controls=15, noise=0.2))


def with_sets(made, sets=SETS):
  data, spec = made
  return data, dataclasses.replace(spec, gene_sets=sets)


def small(**changes):
  config = config_lib.default('discrepancy_vae')
  options = {
    'latent_dim': 5,
    'decoder_width': 8,
    'intervention_width': 6,
    'temperature': 3.0,
    'mmd_sigma': 20.0,
    **FULL,
  }
  config.model.update({**options, **changes})
  return config.model


def made(screen, **changes):
  model = models.make(small(**changes), screen[1])
  params = jax.jit(model.init)(jax.random.key(0), model.consts)
  return model, params


def batch_of(screen, name='condition_epochs', number=0, size=8):
  data, _ = screen
  key = jax.random.key(number)
  return sampling.get(name)(key, data, data.train, size)


def value_and_grad(model, params, batch, key=1, step=0):
  key = None if key is None else jax.random.key(key)
  function = jax.jit(
    jax.value_and_grad(
      lambda p: model.losses['model'](
        p, key, batch, model.consts, jnp.int32(step)
      ),
      has_aux=True,
    )
  )
  (value, aux), grads = function(params)
  return value, aux.metrics, grads


# The layer, and lambda.


def test_pattern_and_dense_layer_agree_with_lambda_0(screen):
  """Values, gradients and Adam steps of the two forms, to 1e-6."""
  sparse, params = made(screen)
  sets = layers.gene_sets(SETS, 12)
  mask = layers.gene_set_mask(sets, 12)
  kernel = np.zeros((12, 4), np.float32)
  where = np.nonzero(np.asarray(mask).T)
  kernel[where[1], where[0]] = params['encoder']['kernel']
  x = batch_of(screen).source

  def by_pattern(w):
    return jnp.sum(jnp.sin(layers.gene_set_scores(w, x, sets)))

  def by_mask(w):
    return jnp.sum(jnp.sin(layers.masked_scores(w, x, mask, 0.0)))

  a, grad_a = jax.value_and_grad(by_pattern)(params['encoder']['kernel'])
  b, grad_b = jax.value_and_grad(by_mask)(jnp.asarray(kernel))
  np.testing.assert_allclose(a, b, rtol=1e-6)
  np.testing.assert_allclose(
    grad_a, np.asarray(grad_b)[where[1], where[0]], rtol=1e-5, atol=1e-6
  )
  assert np.abs(grad_b[np.asarray(mask) == 0]).max() == 0
  size = sum(len(s) for s in SETS.values())
  assert params['encoder']['kernel'].shape == (size,)
  assert sparse.consts.get('mask') is None


def test_lambda_reaches_the_other_genes_and_can_differ_within_a_fleet(screen):
  model, params = made(screen, sena_lambda=0.1)
  assert params['encoder']['kernel'].shape == (12, 4)
  assert 'sena_lambda' in model.consts['hyper']
  batch = batch_of(screen)
  changed = {
    value: train_step.with_hyper(
      model.consts, {'model.sena_lambda': jnp.float32(value)}
    )
    for value in (0.0, 1.0)
  }
  outside = np.asarray(model.consts['mask']) == 0
  gradient = jax.jit(
    jax.grad(
      lambda p, c: model.losses['model'](p, None, batch, c, jnp.int32(0))[0]
    )
  )
  for value, consts in changed.items():
    grad = gradient(params, consts)['encoder']['kernel']
    assert bool(np.any(np.asarray(grad)[outside])) == bool(value)


def test_fan_in_of_the_set_makes_first_scores_larger(screen):
  x = batch_of(screen).source
  spread = {}
  for fan_in in ('genes', 'set'):
    config = small(fan_in=fan_in)
    net = discrepancy_vae.network(config, screen[1])
    params = net.init(jax.random.key(0), net.consts)
    spread[fan_in] = float(jnp.std(net.scores(params, x, net.consts)))
  assert spread['set'] > 1.3 * spread['genes']


# Terms.


def test_mixed_batches_compare_condition_by_condition(screen):
  """The MMD of a mixed batch is the cell-weighted mean of the pure ones."""
  random = np.random.default_rng(0)
  x, y = (random.normal(0, 1, (6, 3)).astype(np.float32) for _ in 'xy')
  kind = np.asarray([0, 1, 0, 1, 1, 0])
  weight = np.asarray([1, 1, 1, 1, 1, 0], np.float32)

  def mmd(rows, **options):
    return losses.gaussian_mmd(
      jnp.asarray(x[rows]),
      jnp.asarray(y[rows]),
      sigma=4.0,
      num_kernels=4,
      **options,
    )

  every = np.arange(6)
  mixed = mmd(
    every,
    weight=jnp.asarray(weight),
    same=jnp.asarray(kind[:, None] == kind[None]),
  )
  parts = [np.asarray([0, 2]), np.asarray([1, 3, 4])]
  wanted = sum(len(rows) / 5 * mmd(rows) for rows in parts)
  np.testing.assert_allclose(mixed, wanted, rtol=1e-5)
  pooled = mmd(every, weight=jnp.asarray(weight))
  assert abs(pooled - mixed) > 0.01
  # Through the model: 'paired' draws mixed batches.
  model, params = made(screen, sampling='paired')
  assert model.sampling == 'paired'
  value, metrics, _ = value_and_grad(
    model, params, batch_of(screen, 'paired', size=12)
  )
  assert np.isfinite(value)
  assert 0 < metrics['mmd'] < 20


@pytest.mark.parametrize(
  'changes',
  [
    {'encoder': 'mlp'},
    {'encoder': 'mlp', 'width': 7},
    {'matched_io': True},
    {'mmd_sigma': 0.0},
    {'reduction': 'sum', 'kl_weight': 0.01},
    {'inject_encoder': True, 'inject_decoder': True, 'sena_lambda': 0.1},
    {'fan_in': 'set', 'sampling': 'by_condition'},
  ],
)
def test_options_train(screen, changes):
  model, params = made(screen, **changes)
  value, metrics, grads = value_and_grad(model, params, batch_of(screen))
  assert np.isfinite(value)
  for path, leaf in jax.tree_util.tree_leaves_with_path(grads):
    assert np.isfinite(leaf).all(), path
    assert np.any(leaf != 0), path
  if changes.get('inject_decoder'):
    assert params['decoder']['hidden']['kernel'].shape[0] == 5 + 2
    assert params['mean']['kernel'].shape[0] == 4 + 2
  if 'width' in changes:
    assert params['encoder']['kernel'].shape == (12, 7)
  if changes.get('reduction') == 'sum':
    assert metrics['kl'] == metrics['kl_per_cell']


def test_matched_io_is_the_error_to_the_paired_cell(screen):
  model, params = made(screen, matched_io=True)
  batch = batch_of(screen)
  _, metrics, _ = value_and_grad(model, params, batch, key=None)
  predicted = model.predict(
    params, None, batch.source, batch.condition, model.consts
  )
  error = np.mean((np.asarray(predicted) - batch.target) ** 2, -1)
  wanted = np.sum(error * batch.weight) / np.sum(batch.weight)
  np.testing.assert_allclose(metrics['mmd'], wanted, rtol=1e-5)


def test_schedules_move_training_but_not_validation(screen):
  model, params = made(
    screen,
    epochs=10,
    schedule_steps=100,
    mmd_ramp=(2, 6),
    kl_ramp=(3, 9),
    temperature_ramp=(2, 9),
  )
  batch = batch_of(screen)
  seen = {
    step: value_and_grad(model, params, batch, step=step)[1]
    for step in (0, 40, 99, 5000)
  }
  assert [float(m['mmd_weight']) for m in seen.values()] == [0, 0.5, 1, 1]
  assert float(seen[0]['temperature']) == 1
  assert float(seen[5000]['temperature']) == 3
  assert float(seen[0]['kl_weight']) == 0
  alone = {
    step: float(value_and_grad(model, params, batch, None, step)[0])
    for step in (0, 99)
  }
  assert alone[0] == alone[99]


def test_what_is_logged(screen):
  model, params = made(screen)
  batch = batch_of(screen, size=16)
  assert batch.weight.sum() == 7
  _, metrics, _ = value_and_grad(model, params, batch)
  assert metrics['cells'] == 7
  assert 0 <= metrics['assignment_entropy'] <= np.log(5)
  assert 1 <= metrics['assigned_factors'] <= 4
  terms = [metrics[k] for k in ('mmd', 'reconstruction', 'kl', 'l1')]
  total = sum(terms) - 0.9 * metrics['l1']
  np.testing.assert_allclose(
    metrics['criterion'], (total + sum(terms)) / 5, rtol=1e-5
  )
  # A full batch of the size that the weight refers to: the original's number.
  np.testing.assert_allclose(
    metrics['kl'], metrics['kl_per_cell'] / 5 / 32, rtol=1e-6
  )


def test_variance_stays_finite_where_softplus_underflows():
  x = jnp.asarray([-1e4, -200.0, -50.0, 0.0, 50.0])
  for floor in (0.0, 1e-8):
    value, grad = jax.vmap(
      jax.value_and_grad(
        lambda v, f=floor: interventions.log_softplus(v, floor=f)
      )
    )(x)
    assert np.isfinite(value).all()
    assert np.isfinite(grad).all()
  np.testing.assert_allclose(value[0], np.log(1e-8), rtol=1e-6)
  np.testing.assert_allclose(value[3:], [np.log(np.log(2)), np.log(50)], 1e-6)


# Predictions.


def where(spec, *names, doses=None):
  """The condition of some perturbations, of group 0."""
  ids = [spec.perturbations.index(n) for n in names] or [-1]
  doses = [1.0] * len(names) if doses is None else doses
  return types.Condition(
    perturbations=jnp.asarray([ids], jnp.int32),
    doses=jnp.asarray([doses or [0.0]], jnp.float32),
    covariates=jnp.zeros((1, 1), jnp.int32),
    group=jnp.zeros(1, jnp.int32),
  )


def test_any_order_and_dose_is_predicted(screen):
  _, spec = screen
  model, params = made(screen)
  source = batch_of(screen).source

  def predict(condition):
    return model.predict(params, None, source, condition, model.consts)

  one, two = predict(where(spec, 'A')), predict(where(spec, 'A', 'B'))
  three = predict(where(spec, 'A', 'B', 'C'))
  for a, b in ((one, two), (two, three)):
    assert np.abs(a - b).max() > 1e-5
  # Dose 0 is no perturbation; so is the control.
  none = predict(where(spec, 'A', doses=[0.0]))
  np.testing.assert_allclose(none, predict(where(spec)), rtol=1e-6)
  np.testing.assert_allclose(
    predict(where(spec, 'A', 'B', doses=[1.0, 0.0])), one, rtol=1e-5
  )
  drawn = model.predict(
    params, jax.random.key(0), source, where(spec, 'A'), model.consts
  )
  assert np.abs(drawn - one).max() > 1e-4


def test_evaluation_uses_its_own_temperature(screen):
  model, params = made(screen, eval_temperature=0.0)
  _, spec = screen
  source = batch_of(screen).source
  # Without a temperature every perturbation moves all factors alike.
  a, b = (
    model.predict(params, None, source, where(spec, name), model.consts)
    for name in 'AB'
  )
  np.testing.assert_allclose(a, b, rtol=1e-6)


def test_unseen_perturbations_are_refused_by_name(screen):
  _, spec = screen
  spec = dataclasses.replace(spec, trained=(True, True, False, True))
  model = models.make(small(), spec)
  assert model.knows(('A', 'B')) is None
  assert model.knows(()) is None
  assert 'C' in model.knows(('A', 'C'))


# Bad input.


@pytest.mark.parametrize(
  ('changes', 'shown'),
  [
    ({'sena_lambda': -0.1}, ('model.sena_lambda', '-0.1', 'at least 0')),
    ({'sena_lambda': float('nan')}, ('model.sena_lambda', 'nan')),
    ({'latent_dim': 1}, ('model.latent_dim is 1', 'two factors')),
    ({'encoder': 'snea'}, ("'snea'", 'closest: sena')),
    ({'mmd_kernels': 0}, ('model.mmd_kernels', 'at least 1')),
    ({'mmd_ramp': (6, 5)}, ('model.mmd_ramp', '(6, 5)')),
    ({'mmd_ramp': (1,)}, ('model.mmd_ramp', '(5, 49)')),
    (
      {'epochs': 20, 'kl_ramp': (10, 99)},
      ('model.kl_ramp ends in epoch 99', 'model.epochs=20', 'longer'),
    ),
    ({'epochs': 2**30}, ('model.epochs', '2^31')),
  ],
)
def test_config_that_cannot_be(screen, changes, shown):
  with pytest.raises(ValueError) as caught:
    models.make(small(**changes), screen[1])
  assert all(text in str(caught.value) for text in shown), caught.value


def test_schedules_longer_than_the_run():
  config = config_lib.default('discrepancy_vae')
  assert config.model.schedule_steps == config.train.steps
  config.train.steps = 300
  # The schedules follow the run, until they are set themselves.
  assert config.model.schedule_steps == 300
  config_lib.validate(config)
  config.model.schedule_steps = 400
  with pytest.raises(ValueError, match='longer than the run'):
    config_lib.validate(config)
  config.model.schedule_steps = 200
  config_lib.validate(config)
  config.model.latent_dim = 1
  with pytest.raises(ValueError, match=r'model\.latent_dim'):
    config_lib.validate(config)


@pytest.mark.parametrize(
  ('sets', 'shown'),
  [
    ({}, ('without gene sets', "encoder='mlp'")),
    ({'a': (), 'b': ()}, ('2 have no gene of the data', "'a'")),
    ({'a': (1, 2), 'b': ()}, ('1 have no gene of the data', "'b'")),
    ({'a': (1, 12)}, ("'a'", '0 to 11')),
    ({'a': (1, 1)}, ("'a'", 'twice')),
  ],
)
def test_gene_sets_that_cannot_be(screen, sets, shown):
  _, spec = with_sets(screen, sets)
  with pytest.raises(ValueError) as caught:
    models.make(small(), spec)
  assert all(text in str(caught.value) for text in shown), caught.value
  # The dense encoder of a given width needs none.
  models.make(small(encoder='mlp', width=3), spec)


def test_no_trained_perturbation_is_an_error(screen):
  spec = dataclasses.replace(screen[1], trained=(False,) * 4)
  with pytest.raises(ValueError, match='no perturbation'):
    models.make(small(), spec)


def test_a_single_condition_trains_and_predicts():
  labels = ['control'] * 10 + ['A'] * 6
  values = np.random.default_rng(0).random((16, 12))
  single = with_sets(handmade.dataset(values, labels))
  model, params = made(single)
  value, metrics, grads = value_and_grad(model, params, batch_of(single))
  assert np.isfinite(value)
  assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads))
  assert metrics['assigned_factors'] == 1


# Selection.


def test_selection_by_the_criterion_of_the_original(screen):
  config = config_lib.default('discrepancy_vae')
  config.model.update(small().to_dict())
  config.train.update(steps=12, chunk=4, batch_size=8, select='criterion')
  data, spec = screen
  model = models.make(config.model, spec)
  (phase,) = train_step.phases_of(model, config)
  program = train_step.make_chunk(model, config, phase, 12)
  state = train_step.init_fleet(model, config, [0], {}, model.consts)
  means = []
  for _ in range(3):
    state, metrics = program(state, data, model.consts)
    means.append(float(np.mean(metrics['criterion'])))
  np.testing.assert_allclose(state.best_score, [min(means)], rtol=1e-6)
  assert int(state.best_step[0]) == 4 * (1 + int(np.argmin(means)))
  other = config_lib.default('decoder_only')
  other.train.select = 'criterion'
  model = models.make(other.model, spec)
  state = train_step.init_fleet(model, other, [0], {}, model.consts)
  (phase,) = train_step.phases_of(model, other)
  with pytest.raises(ValueError, match='decoder_only'):
    train_step.make_chunk(model, other, phase, 100)(state, data, {})


# Epochs.


def uneven():
  """Pairs of 1, 5, 8 and 19 cells; a cell's value is its number."""
  labels = ['control'] * 6 + ['A'] * 1 + ['B'] * 5 + ['C'] * 8 + ['D'] * 19
  values = np.arange(len(labels), dtype=np.float32)[:, None]
  return handmade.dataset(values, labels)[0]


def epoch_batches(data, numbers, size=8, seed=0):
  sampler = sampling.in_epochs('condition_epochs')
  draw = jax.jit(
    lambda n: sampler(jax.random.key(seed), n, data, data.train, size)
  )
  return [jax.device_get(draw(jnp.int32(n))) for n in numbers]


def test_an_epoch_visits_every_cell_of_every_condition_once():
  data = uneven()
  summary = sampling.epoch_summary('condition_epochs', data.train, 8)
  assert summary == {
    'batches': 6,
    'cells': 33,
    'cells_left_out': 0,
    'pairs': 4,
    'pairs_left_out': 0,
  }
  batches = epoch_batches(data, range(12))
  orders, visits = [], []
  for epoch in (batches[:6], batches[6:]):
    seen = np.concatenate([b.target[b.weight > 0, 0] for b in epoch])
    assert sorted(seen.tolist()) == list(range(6, 39))
    visits.append(seen.tolist())
    orders.append([int(b.condition.perturbations[0, 0]) for b in epoch])
    assert sorted(orders[-1]) == [0, 1, 2, 3, 3, 3]
    for b in epoch:
      assert len(np.unique(b.condition.perturbations)) == 1
      # Padding repeats a cell of the condition, and does not count.
      assert np.isfinite(b.target).all()
      assert (b.source[:, 0] < 6).all()
  assert visits[0] != visits[1], 'another epoch has another order'
  assert epoch_batches(data, [3], seed=1)[0].target.tolist() != (
    batches[3].target.tolist()
  )


def test_controls_are_drawn_anew():
  data = uneven()
  partner = {}
  for b in epoch_batches(data, range(60)):
    for y, x in zip(b.target[b.weight > 0, 0], b.source[b.weight > 0, 0]):
      partner.setdefault(float(y), set()).add(float(x))
  # Ten epochs, six controls: each cell has met more than one.
  assert min(len(met) for met in partner.values()) > 1


@pytest.mark.parametrize('count', [1, 2, 3, 7, 64, 1000])
def test_shuffled_is_a_permutation(count):
  place = jnp.arange(count)
  found = [
    sampling.shuffled(jax.random.key(k), place, jnp.int32(count))
    for k in (0, 1)
  ]
  for one in found:
    assert sorted(np.asarray(one).tolist()) == list(range(count))
  if count > 7:
    assert (found[0] != found[1]).mean() > 0.9


def test_shuffled_gives_every_order_alike():
  keys = jax.random.split(jax.random.key(0), 6000)
  orders = jax.jit(
    jax.vmap(lambda k: sampling.shuffled(k, jnp.arange(3), jnp.int32(3)))
  )(keys)
  _, counts = np.unique(orders @ np.asarray([9, 3, 1]), return_counts=True)
  assert len(counts) == 6
  assert ((counts - 1000) ** 2 / 1000).sum() < 20.5  # 0.1 % of chi2(5).


def test_dropping_all_batches_is_an_error():
  data = uneven()
  with pytest.raises(ValueError, match='none of 4 conditions has 32'):
    sampling.epoch_summary('condition_epochs_original', data.train, 32)
  assert sampling.epoch_summary('paired', data.train, 32) is None


def test_turns_and_micro_batches_go_on_through_the_epoch(tiny_config):
  """Accumulated batches are the ones that single steps would have drawn."""
  from pertjax import data as data_lib

  config = tiny_config('decoder_only')
  config.optimizer.name = 'sgd'
  config.optimizer.learning_rate = 1e-12
  data, spec = data_lib.load(config)
  seen = {}
  for accumulate in (1, 3):
    config.optimizer.accumulate = accumulate
    model = models.make(config.model, spec)
    base = model.losses['model']

    def loss(params, key, batch, consts, step, base=base):
      value, _ = base(params, key, batch, consts, step)
      return value, types.Aux({'token': jnp.mean(batch.target)})

    model = model._replace(losses={'model': loss}, sampling='condition_epochs')
    (phase,) = train_step.phases_of(model, config)
    state = train_step.init_fleet(model, config, [0], {}, model.consts)
    member = jax.tree.map(lambda x: x[0], state)
    tokens = []
    for _ in range(6 // accumulate):
      member, metrics = jax.jit(
        lambda m, p=phase, model=model: train_step.train_step(
          model, config, p, 60, m, data, model.consts
        )
      )(member)
      tokens.append(float(metrics['token']))
    seen[accumulate] = np.asarray(tokens)
  np.testing.assert_allclose(seen[1].reshape(2, 3).mean(1), seen[3], rtol=1e-5)
  assert len(set(seen[1].tolist())) == 6
