"""Forward passes against numbers that PerturBench itself printed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pertjax import config as config_lib
from pertjax import models, types

G, P, C, B = 5, 3, 2, 3


def _spec(num_genes=G, num_perturbations=P, levels=C):
  names = tuple(f'p{i}' for i in range(num_perturbations))
  return types.DataSpec(
    name='fixture',
    genes=tuple(f'g{i}' for i in range(num_genes)),
    perturbations=names,
    perturbation_genes=(-1,) * num_perturbations,
    conditions=types.Conditions(
      ('control', 'p0+p2'), ((), ('p0', 'p2')), ((), (1.0, 1.0))
    ),
    covariates=(('cell_type', tuple('ab'[:levels])),),
    groups=tuple((v,) for v in 'ab'[:levels]),
    cell_names=np.array([]),
    trained=(True,) * num_perturbations,
    split=types.Split(np.zeros(0, np.int8), {}, 'cells', ''),
    fingerprint='',
    source={},
  )


def _inputs():
  b, g = np.meshgrid(np.arange(B), np.arange(G), indexing='ij')
  target = ((2 * b + 3 * g) % 7) / 3
  source = ((b + 2 * g) % 5) / 2
  condition = types.Condition(
    perturbations=jnp.array([[0, -1], [1, -1], [0, 2]]),
    doses=jnp.array([[1.0, 0], [1, 0], [1, 1]]),
    covariates=jnp.array([[0], [1], [0]]),
    group=jnp.array([0, 1, 0]),
  )
  as_float = [jnp.asarray(x, jnp.float32) for x in (target, source)]
  return types.Batch(*as_float, condition, jnp.ones(B))


def _filled(params):
  """Fills every layer with the fixture's weights."""

  def fill(path, leaf):
    name = path[-1].key
    if name == 'bias':
      return 0.05 * jnp.cos(jnp.arange(leaf.shape[0], dtype=jnp.float32))
    i = jnp.arange(leaf.shape[0], dtype=jnp.float32)[:, None]
    o = jnp.arange(leaf.shape[1], dtype=jnp.float32)[None, :]
    return 0.1 * jnp.sin(o + 2 * i + 1)

  return jax.tree_util.tree_map_with_path(fill, params)


def _make(name, **keys):
  config = config_lib.default(name).model
  config.update(**keys)
  model = models.make(config, _spec())
  return model, _filled(model.init(jax.random.key(0), model.consts))


@pytest.mark.parametrize(
  ('keys', 'rows', 'loss', 'parameters'),
  [
    (
      dict(num_layers=2, width=4, latent_dim=2, inject_encoder=True,
           inject_decoder=True),
      {0: [0.6720625, 0.6896011, 0.7107729, 0.7158327, 0.6999391],
       1: [0.7834569, 0.7524111, 0.6691243, 0.6127771, 0.629018]},
      0.51115549, 173,
    ),
    (
      dict(num_layers=1, width=4, latent_dim=2),
      {2: [0.7753879, 0.7337849, 0.6577384, 0.61744, 0.6452492]},
      0.55292445, 97,
    ),
  ],
)  # fmt: skip
def test_latent_additive(keys, rows, loss, parameters):
  model, params = _make('latent_additive', **keys)
  batch = _inputs()
  assert sum(x.size for x in jax.tree.leaves(params)) == parameters
  out = model.predict(params, None, batch.source, batch.condition, {})
  for row, expected in rows.items():
    np.testing.assert_allclose(out[row], expected, atol=1e-5)
  value, _ = model.losses['model'](params, None, batch, {}, jnp.int32(0))
  np.testing.assert_allclose(value, loss, atol=1e-6)


def test_decoder_only():
  batch = _inputs()
  model, params = _make('decoder_only', num_layers=2, width=4)
  out = model.predict(params, None, batch.source, batch.condition, {})
  np.testing.assert_allclose(
    out[1], [0.7666346, 0.7172664, 0.6489544, 0.6230927, 0.6603636], atol=1e-5
  )
  value, _ = model.losses['model'](params, None, batch, {}, jnp.int32(0))
  np.testing.assert_allclose(value, 0.56084359, atol=1e-6)
  model, params = _make(
    'decoder_only', num_layers=1, width=4, use_covariates=False, softplus=False
  )
  out = model.predict(params, None, batch.source, batch.condition, {})
  np.testing.assert_allclose(
    out[2],
    [0.0243354, -0.0734318, -0.1036861, -0.0386119, 0.0619619],
    atol=1e-5,
  )


def test_latent_additive_at_its_published_size():
  config = config_lib.default('latent_additive').model
  config.update(num_layers=1, width=5376, latent_dim=64, dropout=0.1)
  model = models.make(config, _spec(5000, 131))
  shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), {}))
  count = sum(int(np.prod(x.shape)) for x in jax.tree.leaves(shapes))
  assert count == 55_517_704


def test_scgen_at_its_published_size():
  config = config_lib.default('vae').model
  model = models.make(config, _spec(5000))
  shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), {}))
  count = sum(int(np.prod(x.shape)) for x in jax.tree.leaves(shapes['network']))
  assert count == 9_534_800
