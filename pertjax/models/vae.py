"""scGen's variational autoencoder with its latent shift.

Lotfollahi, Wolf and Theis, Nature Methods 16 (2019). All cells are
reconstructed, no label is given to the network; afterwards the difference
between the perturbed and the control mean in latent space is added to control
cells and decoded.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from pertjax import losses, types
from pertjax.data import statistics
from pertjax.models import layers, shifts

# 'balanced' averages shifts over the groups that have both sides. 'original'
# takes the mean over perturbed groups minus the mean over all control groups,
# which moves with the groups that were never perturbed.
SHIFTS = ('balanced', 'original')

# Why config.loss.weights must be 0 with this model.
NO_LOSS_TERMS = (
  'it is trained to reconstruct cells without their conditions, and predicts '
  'with a shift that is fitted after training'
)


def default_config() -> dict[str, Any]:
  """Returns the model's keys: scGen's published sizes."""
  return {
    'width': 800,
    'latent_dim': 100,
    'num_layers': 2,
    'dropout': 0.2,
    'kl_weight': 5e-5,
    'shift': 'balanced',
    'dtype': 'float32',
  }


def recipe() -> dict[str, Any]:
  """Returns the settings that scGen was published with.

  The published version kept the last parameters; here the best by validation
  are kept, and train.select='last' brings the original back.
  """
  return {
    'optimizer.learning_rate': 1e-3,
    # Not a slip: it makes the first steps small, and results depend on it.
    'optimizer.eps': 0.01,
    'optimizer.weight_decay': 1e-6,
    'train.batch_size': 32,
  }


class Trunk(nn.Module):
  """Layers of [Linear, BatchNorm, LeakyReLU, Dropout]."""

  width: int
  num_layers: int
  dropout: float
  dtype: str

  @nn.compact
  def __call__(self, x, *, deterministic):
    for layer in range(self.num_layers):
      x = layers.Dense(self.width, self.dtype, name=f'dense_{layer}')(x)
      x = nn.BatchNorm(
        use_running_average=deterministic,
        momentum=0.99,
        epsilon=1e-3,
        dtype=jnp.dtype(self.dtype),
        name=f'norm_{layer}',
      )(x)
      x = nn.leaky_relu(x, 0.01)
      x = layers.dropout(self, x, self.dropout, deterministic=deterministic)
    return x


class Network(nn.Module):
  """Encoder and decoder; see the module."""

  num_genes: int
  width: int
  latent_dim: int
  num_layers: int
  dropout: float
  dtype: str

  def setup(self):
    trunk = (self.width, self.num_layers, self.dropout, self.dtype)
    self.encoder = Trunk(*trunk)
    self.mean = layers.Dense(self.latent_dim, self.dtype)
    self.log_variance = layers.Dense(self.latent_dim, self.dtype)
    self.decoder = Trunk(*trunk)
    self.output = layers.Dense(self.num_genes, self.dtype)

  def encode(self, x, *, deterministic=True):
    """Returns the posterior's (mean, variance), float32 [cells, latent]."""
    hidden = self.encoder(x, deterministic=deterministic)
    mean = self.mean(hidden).astype(jnp.float32)
    log_variance = self.log_variance(hidden).astype(jnp.float32)
    return mean, jnp.exp(log_variance) + 1e-4

  def decode(self, latent, *, deterministic=True):
    """Returns expression, float32; it may be negative, as in the original."""
    hidden = self.decoder(latent, deterministic=deterministic)
    return self.output(hidden).astype(jnp.float32)

  def __call__(self, x, *, deterministic):
    mean, variance = self.encode(x, deterministic=deterministic)
    latent = mean
    if not deterministic:
      noise = jax.random.normal(self.make_rng('latent'), mean.shape)
      latent = mean + jnp.sqrt(variance) * noise
    return self.decode(latent, deterministic=deterministic), mean, variance


def make(config, spec: types.DataSpec) -> types.Model:
  """Builds the model; see types.Model."""
  layers.check_choice('model.dtype', config.dtype, layers.DTYPES)
  layers.check_choice('model.shift', config.shift, SHIFTS)
  network = Network(
    num_genes=spec.num_genes,
    width=config.width,
    latent_dim=config.latent_dim,
    num_layers=config.num_layers,
    dropout=config.dropout,
    dtype=config.dtype,
  )

  def variables(params):
    return {'params': params['network'], 'batch_stats': params['batch_stats']}

  def init(key, consts):
    del consts
    made = network.init(key, jnp.zeros((1, spec.num_genes)), deterministic=True)
    return {'network': made['params'], 'batch_stats': made['batch_stats']}

  def labels(params):
    return {
      k: jax.tree.map(lambda _, k=k: _LABELS[k], v) for k, v in params.items()
    }

  def loss(params, key, batch, consts, step):
    """Half the squared error plus half the weighted KL (spec: both halves)."""
    del step
    state = {}
    if key is None:
      out = network.apply(variables(params), batch.target, deterministic=True)
    else:
      dropout_key, latent_key = jax.random.split(key)
      out, changed = network.apply(
        variables(params),
        batch.target,
        deterministic=False,
        rngs={'dropout': dropout_key, 'latent': latent_key},
        mutable=['batch_stats'],
      )
      state = dict(changed)
    predicted, mean, variance = out
    reconstruction = losses.weighted_mean(
      losses.half_squared_sum(predicted, batch.target), batch.weight
    )
    kl = losses.weighted_mean(losses.normal_kl(mean, variance), batch.weight)
    total = reconstruction + 0.5 * consts['hyper']['kl_weight'] * kl
    return total, types.Aux({'reconstruction': reconstruction, 'kl': kl}, state)

  def encode(params, target, condition, consts):
    del condition, consts
    return network.apply(variables(params), target, method=network.encode)[0]

  def fit(params, key, data, consts):
    del key
    table = statistics.pair_means(
      data.arrays,
      data.arrays.train,
      lambda x: encode(params, x, None, consts),
    )
    return {**params, 'shift': table}

  def predict(params, key, source, condition, consts):
    del key
    table = params['shift']
    weight = shifts.additive_weights(table, condition)
    if config.shift == 'balanced':
      shift = weight @ table.shift
    else:
      has = (table.control_count > 0).astype(jnp.float32)
      control = has @ table.control / jnp.sum(has)
      total = jnp.sum(weight, -1, keepdims=True)
      shift = weight @ table.mean - total * control[None]
    latent = encode(params, source, condition, consts)
    latent = latent + shift * shifts.is_perturbed(condition)
    return network.apply(variables(params), latent, method=network.decode)

  return types.Model(
    init=init,
    losses={'model': loss},
    predict=predict,
    fit=fit,
    encode=encode,
    labels=labels,
    consts={'hyper': {'kl_weight': jnp.float32(config.kl_weight)}},
    sampling='cells',
    knows=layers.known_perturbations(spec),
  )


_LABELS = {'network': 'model', 'batch_stats': 'state', 'shift': 'frozen'}
