"""The numbers of SENA's own modules, in float64.

All values were computed by the original PyTorch modules (ML4BM-Lab/SENA, August
2025) and again by a NumPy script; tolerance 1e-9 where none is given.
"""

import math
import types as pytypes

import handmade
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pertjax import config as config_lib
from pertjax import losses, models, train_step, types
from pertjax.data import sampling
from pertjax.metrics import pathways
from pertjax.models import discrepancy_vae, interventions, layers


@pytest.fixture(autouse=True)
def double_precision():
  with jax.enable_x64(True):
    yield


def close(got, wanted, tolerance=1e-9):
  np.testing.assert_allclose(got, wanted, rtol=tolerance, atol=tolerance)


def mmd(a, b, sigma=200.0, kernels=10, **options):
  return losses.gaussian_mmd(
    jnp.asarray(a, float),
    jnp.asarray(b, float),
    sigma=sigma,
    num_kernels=kernels,
    **options,
  )


# 1 to 4: MMD.


@pytest.mark.parametrize(
  ('squared', 'value'),
  [
    (1, 0.6067455836586575),
    (25, 6.6505612375582),
    (200, 12.541785306716),
    (1000, 16.715499596121),
  ],
)
def test_01_mmd_of_two_cells(squared, value):
  close(mmd([[0.0]], [[math.sqrt(squared)]]), value, 1e-12)


A, B = [[0.0, 0], [3, 4]], [[1.0, 2], [6, 8]]


def test_02_mmd_of_two_by_two():
  close(mmd(A, B), 1.862159316559807)
  close(mmd(A, B, 1000.0), 0.732987818096975)
  close(mmd(A, B, 200.0, 5), 0.535391319397404)
  close(
    jax.grad(mmd)(jnp.asarray(A), jnp.asarray(B)),
    [[-0.10823875, -0.27458452], [-0.04090442, -0.15548254]],
    1e-7,
  )


def test_03_mmd_of_four_by_six_and_of_equals():
  i, j = np.mgrid[:4, :6]
  p, q = np.sin(i + 2 * j), np.cos(2 * i - j)
  close(mmd(p, q), 0.643133043612766)
  close(mmd(p, q, 0), 3.482502231102776)
  assert float(mmd(p, p)) == 0


def pairwise_mmd(x, y, sigma=200.0, kernels=10):
  """As the original: all differences at once."""
  both = jnp.concatenate([x, y])
  squared = jnp.sum((both[:, None] - both[None]) ** 2, -1)
  k = sum(
    jnp.exp(-squared / (sigma / 2 ** (kernels // 2) * 2**i))
    for i in range(kernels)
  )
  n = len(x)
  return (k[:n, :n] + k[n:, n:] - k[:n, n:] - k[n:, :n]).mean()


def test_04_gram_form_equals_pairwise_form():
  random = np.random.default_rng(0)
  x, y = (jnp.asarray(random.gamma(0.3, 0.3, (32, 5000))) for _ in 'xy')
  value, grad = jax.jit(jax.value_and_grad(mmd))(x, y)
  wanted, wanted_grad = jax.jit(jax.value_and_grad(pairwise_mmd))(x, y)
  assert 0.1 < wanted < 20
  close(value, wanted, 1e-12)
  scale = np.abs(wanted_grad).max()
  close(grad / scale, wanted_grad / scale, 1e-12)


# 5 to 11: terms and parts.


def kl(mean, variance, cells=32):
  value = discrepancy_vae.kl_terms(jnp.float64(mean), jnp.log(variance))
  return value / cells


def test_05_kl():
  close(kl(1.0, 1.0), 0.015625)
  close(kl(0.0, math.e), 0.0112231535695727)


def test_06_l1_counts_the_strict_upper_triangle():
  graph = jnp.asarray([[9.0, -1, 2], [7, 9, -3], [5, 6, 9]])

  def l1(graph):
    return jnp.sum(jnp.abs(jnp.triu(graph, 1))) / 3

  close(l1(graph), 2.0)
  close(jax.grad(l1)(graph) * 3, [[0, -1, 1], [0, 0, -1], [0, 0, 0]])
  # The form that is stored: nothing but these entries, row by row.
  entries = jnp.asarray([-1.0, 2, -3])
  np.testing.assert_array_equal(
    interventions.strict_upper(entries, 3), jnp.triu(graph, 1)
  )


def test_07_causal_layer():
  graph = jnp.asarray([[8.0, 0.5, -0.25], [3, 7, 2], [1, 4, 6]])
  z = jnp.asarray([[1.0, 2, 3]])
  one, two = jnp.asarray([[0.0, 1, 0]]), jnp.asarray([[1.0, 0, 0]])
  close(interventions.propagate(z, graph), [[1, 2.5, 7.75]])
  close(interventions.propagate(z + one * 2, graph), [[1, 4.5, 11.75]])
  both = z + one * 2 + two * -1
  close(interventions.propagate(both, graph), [[0, 4, 11]])
  # And its gradient, for what is below the diagonal must not have one.
  grad = jax.grad(lambda g: interventions.propagate(z, g).sum())(graph)
  np.testing.assert_array_equal(np.tril(grad), np.zeros((3, 3)))
  assert (np.asarray(grad)[np.triu_indices(3, 1)] != 0).all()


SETS = {'a': (0, 1), 'b': (1, 2)}
W = jnp.arange(1.0, 9.0).reshape(2, 4).T


def test_08_gene_set_layer():
  sets = layers.gene_sets(SETS, 4)
  mask = layers.gene_set_mask(sets, 4)
  x = jnp.asarray([[1.0, 1, 1, 1], [1, 0, 0, 2]])
  bias = jnp.asarray([0.5, -0.5])[None]
  kernel = jnp.asarray(W, float)
  found = layers.masked_scores(kernel, x, mask, 0.1) + bias
  close(found, [[4.2, 13.8], [2.3, 1.6]], 1e-7)
  grad = jax.grad(lambda k: layers.masked_scores(k, x, mask, 0.1).sum())(kernel)
  close(grad.T, [[2, 1, 0.1, 0.3], [0.2, 1, 1, 0.3]], 1e-7)


def test_08_off_set_weights_stand_still_and_are_not_stored():
  """lambda 0: the dense form's others never move; the sparse form agrees."""
  sets = layers.gene_sets(SETS, 4)
  mask = layers.gene_set_mask(sets, 4)
  x = jnp.asarray(np.random.default_rng(0).random((5, 4)))
  start = jnp.asarray(W, float)
  inside = np.asarray(mask) > 0
  optimizer = optax.adam(1e-2)

  def train(score, weight):
    state = optimizer.init(weight)
    for _ in range(20):
      grad = jax.grad(lambda w: jnp.sum(jnp.sin(score(w))))(weight)
      updates, state = optimizer.update(grad, state)
      weight = optax.apply_updates(weight, updates)
    return weight

  dense = train(lambda w: layers.masked_scores(w, x, mask, 0.0), start)
  assert (np.asarray(dense)[~inside] == np.asarray(start)[~inside]).all()
  assert (np.asarray(dense)[inside] != np.asarray(start)[inside]).all()
  first = jnp.asarray([1.0, 2, 6, 7])  # a: 0, 1; b: 1, 2.
  sparse = train(lambda w: layers.gene_set_scores(w, x, sets), first)
  assert sparse.shape == (4,)
  close(sparse, np.asarray(dense).T[inside.T], 1e-12)


def encoder_of_item_9():
  rows = jnp.asarray([1.0, 0.5, 2]) / 128
  return {
    'c1': {'kernel': jnp.zeros((2, 128)), 'bias': -jnp.ones(128)},
    'c2': {'kernel': jnp.tile(rows[None], (128, 1)), 'bias': jnp.zeros(3)},
    'shift': jnp.asarray([1.5, -0.5]),
  }


@pytest.mark.parametrize(
  ('temperature', 'wanted'),
  [
    (1, (0.342008765159825, 0.377978140981602, 0.280013093858574)),
    (10, (0.259496460342419, 0.705384512698241, 0.0351190269593397)),
    (100, (4.53978687e-05, 0.999954602131204, 9.3572e-14)),
  ],
)
def test_09_intervention_encoder(temperature, wanted):
  params = encoder_of_item_9()
  found = interventions.assignments(params, jnp.asarray([0, 1]), temperature)
  for row in np.asarray(found):
    close(row, wanted)


def condition(ids, doses=None):
  ids = jnp.asarray(ids, jnp.int32)
  doses = jnp.ones(ids.shape) if doses is None else jnp.asarray(doses)
  return types.Condition(
    perturbations=ids,
    doses=jnp.where(ids >= 0, doses, 0).astype(jnp.float32),
    covariates=jnp.zeros((len(ids), 0), jnp.int32),
    group=jnp.zeros(len(ids), jnp.int32),
  )


def test_09_shifts():
  # The target is the same for both genes, so that the row sums to the shift.
  shift = interventions.shift_of(
    encoder_of_item_9(), condition([[0, -1], [1, -1], [0, 1], [-1, -1]]), 10.0
  )
  close(shift.sum(-1), [1.5, -0.5, 1.0, 0.0])


@pytest.mark.parametrize(
  ('epoch', 'wanted'),
  [
    (5, (0, 0, 1)),
    (6, (1 / 44, 0, 2.053192)),
    (10, (5 / 44, 0, 6.265958)),
    (11, (6 / 44, 1 / 89, 7.319149)),
    (27, (0.5, 0.191011, 24.170214)),
    (49, (1, 0.438202, 47.340427)),
    (50, (1, 0.449438, 48.393620)),
    (99, (1, 1, 100)),
  ],
)
def test_10_schedules(epoch, wanted):
  ends = interventions.original_ramps(100)
  # 17 steps an epoch; the last of them.
  at = interventions.epoch_of(
    jnp.int32(17 * epoch + 16), num_steps=1700, epochs=100
  )
  assert at == epoch
  found = (
    interventions.ramp(at, ends['mmd'], 1.0),
    interventions.ramp(at, ends['kl'], 1.0),
    interventions.ramp(at, ends['temperature'], 100.0, 1.0),
  )
  close(found, wanted, 1e-6)
  config = discrepancy_vae.default_config()
  assert config['mmd_ramp'] == ends['mmd']
  assert config['kl_ramp'] == ends['kl']
  assert config['temperature_ramp'] == ends['temperature']


def test_11_activations():
  close(interventions.leaky_relu(jnp.float64(-1)), -0.2)
  found = jnp.exp(interventions.log_softplus(jnp.asarray([0.0, -5])))
  close(found, [0.693147180559945, 0.00671534848911807])


# 12: initialisation.


def fake_spec(genes, sets, perturbations):
  return pytypes.SimpleNamespace(
    num_genes=genes,
    num_perturbations=perturbations,
    perturbations=tuple(f'P{i}' for i in range(perturbations)),
    trained=(True,) * perturbations,
    gene_sets=sets,
    covariate_sizes=(),
  )


def model_config(**changes):
  config = config_lib.default('discrepancy_vae').model
  config.update(changes)
  return config


@pytest.mark.parametrize('encoder', ['sena', 'mlp'])
def test_12_initialisation(encoder):
  random = np.random.default_rng(0)
  sets = {
    f'{i:04d}': tuple(random.choice(5000, 16, replace=False).tolist())
    for i in range(1000)
  }
  net = discrepancy_vae.network(
    model_config(parity=True, encoder=encoder), fake_spec(5000, sets, 105)
  )
  params = jax.jit(net.init)(jax.random.key(0), net.consts)
  first = np.asarray(params['encoder']['kernel'])
  if encoder == 'sena':
    assert 0.0141 < np.abs(first).max() <= 0.0141422
  else:
    assert abs(first.std() - 0.02) < 1e-4
    assert not params['encoder']['bias'].any()
  c1, c2 = (params['intervention'][k] for k in ('c1', 'c2'))
  for part in (c1['kernel'], c1['bias']):
    assert 0.09 < np.abs(part).max() <= 0.0975901
  for part in (c2['kernel'], c2['bias']):
    assert 0.08 < np.abs(part).max() <= 0.0883884
  graph = np.asarray(params['graph'])
  assert abs(graph.std() - 0.1) < 0.003
  upper = np.asarray(net.graph(params))[np.triu_indices(105, 1)]
  assert abs(np.abs(upper).mean() - 0.0798) < 0.003
  assert (np.asarray(params['intervention']['shift']) == 1).all()
  count = sum(x.size for x in jax.tree.leaves(params))
  assert count == 5_908_021
  assert all(x.dtype == jnp.float64 for x in jax.tree.leaves(params))


def test_12_default_stores_the_pattern_only():
  sets = {'a': (0, 1), 'b': (1, 2, 5)}
  net = discrepancy_vae.network(
    model_config(latent_dim=4), fake_spec(6, sets, 3)
  )
  params = net.init(jax.random.key(0), net.consts)
  assert params['encoder']['kernel'].shape == (5,)
  assert params['graph'].shape == (6,)
  assert np.abs(params['encoder']['kernel']).max() <= 6**-0.5


# 13: everything at once.


def fill(shape, w):
  n = np.arange(1, math.prod(shape) + 1)
  return (0.3 * np.sin(n * w)).reshape(shape)


def linear(out, width, w):
  """A layer as torch fills it, [out, in]; ours is [in, out]."""
  return {
    'kernel': jnp.asarray(fill((out, width), w).T),
    'bias': jnp.asarray(fill((out,), w + 0.1)),
  }


def full_model():
  config = model_config(
    parity=True,
    sena_lambda=0.01,
    latent_dim=3,
    # T = 5 from the first step, without schedules.
    temperature=5.0,
    eval_temperature=5.0,
    mmd_ramp=(0, 0),
    kl_ramp=(0, 0),
    temperature_ramp=(0, 0),
  )
  # Of the specification's genes: g0 is in the sets 0 and 1, g1 in 1, ...
  sets = {'0': (0, 4), '1': (0, 1), '2': (2, 3), '3': (3,)}
  spec = fake_spec(6, sets, 2)
  params = {
    'encoder': linear(4, 6, 0.9),
    'mean': linear(3, 4, 1.1),
    'variance': linear(3, 4, 1.3),
    'graph': jnp.asarray(fill((3, 3), 0.7)),
    'intervention': {
      'c1': linear(128, 2, 1.5),
      'c2': linear(3, 128, 1.7),
      'shift': jnp.asarray(fill((2,), 0.8)),
    },
    'decoder': {'hidden': linear(128, 3, 1.9), 'output': linear(6, 128, 2.1)},
  }
  return config, spec, params


def test_13_full_forward():
  config, spec, params = full_model()
  net = discrepancy_vae.network(config, spec)
  model = discrepancy_vae.make(config, spec)
  r, j = np.mgrid[:2, :6]
  x, y = (jnp.asarray(np.abs(f(6 * r + j))) for f in (np.sin, np.cos))
  where = condition([[0], [0]])
  mean, log_variance = net.posterior(params, x, where, net.consts)
  close(
    mean,
    [
      [0.3992121125, 0.3229042914, -0.3262795021],
      [0.4147748042, 0.3230797227, -0.3419500255],
    ],
    1e-8,
  )
  close(
    jnp.exp(log_variance)[0], [0.8691457207, 0.8442710437, 0.6344687387], 1e-8
  )
  target = interventions.assignments(
    params['intervention'], jnp.asarray([0]), 5.0
  )
  close(target[0], [0.9711294891, 0.0288441675, 2.634346e-05], 1e-8)
  close(params['intervention']['shift'][0], 0.2152068273, 1e-8)
  noise = mean + interventions.shift_of(params['intervention'], where, 5.0)
  factors = interventions.propagate(noise, net.graph(params))
  close(factors[0], [0.6082058087, 0.5089186281, -0.3018394915], 1e-8)
  close(
    net.decode(params, factors, where)[0],
    [
      0.4016321496, -0.0529485933, -0.0115263961,
      0.0965308876, -0.0358629293, 0.3030572290,
    ],
    1e-8,
  )  # fmt: skip
  unshifted = interventions.propagate(mean, net.graph(params))
  close(
    net.decode(params, unshifted, where)[0],
    [
      0.3942383325, -0.0529045907, -0.0100306814,
      0.0991918713, -0.0371536241, 0.2979101514,
    ],
    1e-8,
  )  # fmt: skip
  batch = types.Batch(y, x, where, jnp.ones(2))
  total, aux = model.losses['model'](
    params, None, batch, model.consts, jnp.int32(0)
  )
  wanted = {
    'mmd': 1.2867995986,
    'reconstruction': 0.4427242931,
    'kl': 0.0412023528,
    'l1': 0.2720234869,
  }
  for name, value in wanted.items():
    close(aux.metrics[name], value, 1e-8)
  weighted = sum(wanted.values()) - 0.9 * wanted['l1']
  close(total, weighted, 1e-7)
  assert total.dtype == jnp.float64


# 14: the sampler.


def test_14_original_sampler():
  labels = ['control'] * 9 + ['A'] * 70 + ['B'] * 31 + ['C'] * 64
  values = np.arange(len(labels), dtype=np.float32)[:, None]
  with jax.enable_x64(False):
    data, _ = handmade.dataset(values, labels)
    summary = sampling.epoch_summary(
      'condition_epochs_original', data.train, 32
    )
    assert summary == {
      'batches': 4,
      'cells': 128,
      'cells_left_out': 37,
      'pairs': 2,
      'pairs_left_out': 1,
    }
    draw = jax.jit(
      lambda n: sampling.in_epochs('condition_epochs_original')(
        jax.random.key(0), n, data, data.train, 32
      )
    )
    batches = [draw(jnp.int32(n)) for n in range(8)]
  tokens = [np.unique(b.condition.perturbations) for b in batches]
  assert all(len(t) == 1 for t in tokens)
  for epoch in (batches[:4], batches[4:]):
    seen = np.concatenate([b.target[:, 0] for b in epoch])
    assert len(np.unique(seen)) == 128
    kinds = [int(b.condition.perturbations[0, 0]) for b in epoch]
    assert sorted(kinds) == [0, 0, 2, 2]
    assert all((b.weight == 1).all() for b in epoch)
  # A cell has the same control in both epochs.
  pairs = [
    {
      float(y): float(x)
      for b in epoch
      for y, x in zip(b.target[:, 0], b.source[:, 0])
    }
    for epoch in (batches[:4], batches[4:])
  ]
  both = set(pairs[0]) & set(pairs[1])
  assert len(both) > 64
  assert all(pairs[0][cell] == pairs[1][cell] for cell in both)
  assert len(set(pairs[0].values())) == 9


# 17: doubles.


def test_17_double_is_two_singles():
  _, _, params = full_model()
  many = {
    **params['intervention'],
    'c1': linear(128, 9, 1.5),
    'shift': jnp.asarray(fill((9,), 0.8)),
  }
  single = [
    interventions.shift_of(many, condition([[k, -1]]), 5.0) for k in (3, 7)
  ]
  double = interventions.shift_of(many, condition([[3, 7]]), 5.0)
  close(double, single[0] + single[1], 1e-14)
  off = {**many, 'shift': many['shift'].at[7].set(0)}
  close(interventions.shift_of(off, condition([[3, 7]]), 5.0), single[0], 1e-14)
  # Third order is no special case; a dose scales its own shift only.
  triple = interventions.shift_of(
    many, condition([[3, 7, 8]], [[1.0, 0.5, 1.0]]), 5.0
  )
  third = interventions.shift_of(many, condition([[8, -1, -1]]), 5.0)
  close(triple, single[0] + 0.5 * single[1] + third, 1e-14)


# 18 to 20: evaluation and interpretation.


def test_18_batches_are_pooled_as_the_original_does():
  groups = pathways.batch_groups(25)
  assert [len(g) for g in groups] == [1, 10, 10]
  assert [n for g in groups for n in g] == list(range(21))
  assert pathways.batch_groups(0) == ()


def test_19_criterion():
  close(pathways.seed_criterion(2.0, 1.0, 0.5, 0.1, 0.4), 0.8)


def test_20_activation_ratio_and_recall():
  activation = jnp.asarray([4.0, 2, 1, 1])
  targeted = jnp.asarray([True, False, False, True])
  close(pathways.activation_ratio(activation, targeted), 1.6666666666666667)
  close(pathways.recall_at(activation, targeted, top=2), 0.5)
  cells = jnp.asarray([[1.0, 5], [3, 7]])
  close(pathways.differential_activation(cells, cells[:1] + 2.5), [1.5, 1.5])


# A run in double precision.


def test_parity_trains_in_float64(tiny_config):
  from pertjax import data as data_lib

  config = tiny_config('discrepancy_vae')
  config.model.parity = True
  data, spec = data_lib.load(config)
  model = models.make(config.model, spec)
  assert model.sampling == 'condition_epochs_original'
  (phase,) = train_step.phases_of(model, config)
  config.train.chunk = 3
  config.train.batch_size = 8
  program = train_step.make_chunk(model, config, phase, 60)
  state = train_step.init_fleet(model, config, [0], {}, model.consts)
  before = np.asarray(state.params['encoder']['kernel'])
  state, metrics = program(state, data, model.consts)
  assert np.isfinite(metrics['loss']).all()
  after = np.asarray(state.params['encoder']['kernel'])
  assert after.dtype == np.float64
  outside = np.asarray(model.consts['mask']) == 0
  assert (after[0][outside] == before[0][outside]).all()
  assert (after[0][~outside] != before[0][~outside]).any()


def test_parity_without_x64_says_how():
  with (
    jax.enable_x64(False),
    pytest.raises(ValueError, match='JAX_ENABLE_X64=1'),
  ):
    discrepancy_vae.network(
      model_config(parity=True), fake_spec(6, {'a': (0, 1)}, 2)
    )
