"""The ablation's auto-encoders: all of them train, and are what they say."""

import dataclasses
import itertools

import handmade
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pertjax import config as config_lib
from pertjax import models
from pertjax.data import sampling, statistics
from pertjax.models import gene_set_autoencoder, layers

SETS = {'a': (0, 1, 2, 3), 'b': (2, 5), 'c': (6, 7, 8), 'd': (9, 10, 11, 0)}


@pytest.fixture(scope='module')
def screen():
  data, spec = handmade.screen(copies=6, controls=15)
  return data, dataclasses.replace(spec, gene_sets=SETS)


def made(screen, **changes):
  config = config_lib.default('gene_set_autoencoder')
  config.model.update(changes)
  model = models.make(config.model, screen[1])
  return model, jax.jit(model.init)(jax.random.key(0), model.consts)


def batch_of(screen, size=16):
  return sampling.cells(jax.random.key(0), screen[0], screen[0].train, size)


EVERY = [
  {'variational': v, 'encoder': e, 'num_layers': n}
  for v, e, n in itertools.product(
    (False, True), gene_set_autoencoder.ENCODERS, (1, 2)
  )
]


@pytest.mark.parametrize(
  'changes', [*EVERY, {'sena_lambda': 0.1}], ids=lambda c: '-'.join(
    str(v) for v in c.values()
  )
)  # fmt: skip
def test_every_combination_trains(screen, changes):
  model, params = made(screen, **changes)
  batch = batch_of(screen)

  @jax.jit
  def step(params):
    (value, aux), grads = jax.value_and_grad(
      model.losses['model'], has_aux=True
    )(params, jax.random.key(1), batch, model.consts, jnp.int32(0))
    moved = jax.tree.map(lambda p, g: p - 0.004 * g, params, grads)
    return moved, value, aux.metrics, grads

  values = []
  for _ in range(60):
    params, value, metrics, grads = step(params)
    values.append(float(value))
  assert values[-1] < 0.9 * values[0]
  for path, leaf in jax.tree_util.tree_leaves_with_path(grads):
    assert np.isfinite(leaf).all(), path
    assert np.any(leaf != 0), path
  network = params['network']
  assert set(metrics) - {'reconstruction'} == {
    *(['kl'] if changes.get('variational') else []),
    *(['l1'] if changes.get('encoder') == 'l1' else []),
  }
  assert ('second' in network) == (changes.get('num_layers') == 2)
  assert ('variance' in network) == bool(changes.get('variational'))
  sena = changes.get('encoder', 'sena') == 'sena'
  if sena and 'sena_lambda' not in changes:
    assert network['first']['kernel'].shape == (13,)
  else:
    assert network['first']['kernel'].shape == (12, 4)
  assert network['decoder']['kernel'].shape == (4, 12)


def slow_forward(network, x, first, changes):
  """The ablation in NumPy: [cells, genes] to (reconstruction, KL)."""

  def dense(name, h):
    return h @ np.asarray(network[name]['kernel']) + network[name]['bias']

  def leaky(h):
    return np.where(h > 0, h, 0.01 * h)

  hidden = x @ first + network['first']['bias']
  if not changes['variational']:
    code = leaky(hidden)
    if changes['num_layers'] == 2:
      code = leaky(dense('second', code))
    return dense('decoder', code), 0.0
  mean, source = hidden, x
  if changes['num_layers'] == 2:
    source = leaky(hidden)
    mean = dense('second', source)
  variance = np.log1p(np.exp(dense('variance', source)))
  kl = -0.5 * np.mean(1 + np.log(variance) - mean**2 - variance)
  return dense('decoder', mean), kl


@pytest.mark.parametrize('changes', EVERY, ids=lambda c: '-'.join(
  str(v) for v in c.values()
))  # fmt: skip
def test_loss_is_the_one_of_the_ablation(screen, changes):
  model, params = made(screen, **changes, kl_weight=0.5, l1_weight=1e-3)
  batch = batch_of(screen)
  network = jax.device_get(params['network'])
  first = np.asarray(network['first']['kernel'])
  penalty = 0.0
  if changes['encoder'] == 'sena':
    sets = layers.gene_sets(SETS, 12)
    mask = np.asarray(layers.gene_set_mask(sets, 12))
    full = np.zeros((4, 12), np.float32)
    full[mask.T > 0] = first
    first = full.T
  if changes['encoder'] == 'l1':
    penalty = 1e-3 * np.abs(first).sum()
  x = np.asarray(batch.target)
  predicted, kl = slow_forward(network, x, first, changes)
  wanted = np.mean((predicted - x) ** 2) + 0.5 * kl + penalty
  value, _ = model.losses['model'](
    params, None, batch, model.consts, jnp.int32(0)
  )
  np.testing.assert_allclose(value, wanted, rtol=1e-4)


def test_predictions_use_the_latent_shift(screen):
  data, spec = screen
  model, params = made(screen)
  pairs = statistics.pair_means(data, data.train)
  params = model.fit(
    params, None, statistics.FitData(data, pairs), model.consts
  )
  source = batch_of(screen).target
  seen = []
  for name in ('control', 'A', 'A+B'):
    condition = sampling.arrays.conditions_at(
      data,
      jnp.asarray([spec.conditions.names.index(name)]),
      jnp.zeros(1, jnp.int32),
    )
    seen.append(model.predict(params, None, source, condition, model.consts))
  assert np.abs(seen[1] - seen[0]).max() > 1e-3
  assert np.abs(seen[2] - seen[1]).max() > 1e-3
  # A linear decoder: effects add in expression too.
  single = model.predict(
    params, None, source,
    sampling.arrays.conditions_at(
      data,
      jnp.asarray([spec.conditions.names.index('B')]),
      jnp.zeros(1, jnp.int32),
    ),
    model.consts,
  )  # fmt: skip
  np.testing.assert_allclose(
    seen[2] - seen[0], seen[1] - seen[0] + single - seen[0], atol=1e-4
  )


def test_sparsity_counts_contributions_that_are_nothing():
  weight = jnp.asarray([[1.0, 0.0], [2.0, 1e-9], [3.0, 4.0]])
  cells = jnp.asarray([[1.0, 1.0, 0.0], [1.0, 3.0, 0.0]])
  found = gene_set_autoencoder.sparsity(weight, cells)
  np.testing.assert_allclose(found, 4 / 6)


@pytest.mark.parametrize(
  ('changes', 'shown'),
  [
    ({'encoder': 'lasso'}, ("'lasso'", 'sena, mlp, l1')),
    ({'num_layers': 3}, ('model.num_layers', '1, 2')),
    ({'sena_lambda': -1.0}, ('model.sena_lambda is -1', 'at least 0')),
    ({'l1_weight': -1.0}, ('model.l1_weight',)),
  ],
)
def test_config_that_cannot_be(screen, changes, shown):
  with pytest.raises(ValueError) as caught:
    made(screen, **changes)
  assert all(text in str(caught.value) for text in shown), caught.value


def test_no_gene_sets(screen):
  bare = dataclasses.replace(screen[1], gene_sets={})
  with pytest.raises(ValueError, match='without gene sets'):
    made((screen[0], bare))
  made((screen[0], bare), encoder='l1', width=3)
