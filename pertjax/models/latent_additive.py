"""LatentAdditive of PerturBench (arXiv 2408.10609): effects add in a latent.

A control cell and the perturbations are encoded by an MLP each; the sum of the
codes is decoded to expression. Trained on perturbed cells, each paired with a
control cell of its group.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from pertjax import losses, types
from pertjax.models import layers


def default_config() -> dict[str, Any]:
  """Returns the model's keys: the class defaults of PerturBench."""
  return {
    'num_layers': 2,
    'width': 128,
    'latent_dim': 32,
    'dropout': 0.0,
    # Give the covariates to the encoder of control cells, and to the decoder.
    'inject_encoder': False,
    'inject_decoder': False,
    # Softplus on the output: expression is never negative.
    'softplus': True,
    # Multiplies the perturbation's code by a learned 0/1 mask.
    'sparse': False,
    'dtype': 'float32',
  }


class Network(nn.Module):
  """See the module; sizes from the config."""

  num_genes: int
  num_layers: int
  width: int
  latent_dim: int
  dropout: float
  inject_encoder: bool
  inject_decoder: bool
  softplus: bool
  sparse: bool
  dtype: str

  @nn.compact
  def __call__(self, control, perturbations, covariates, *, deterministic):
    def mlp(out, name, rate=self.dropout):
      return layers.Mlp(
        self.width, out, self.num_layers, rate, self.dtype, name=name
      )

    x = control
    if self.inject_encoder:
      x = layers.concatenate(x, covariates)
    latent = mlp(self.latent_dim, 'control_encoder')(
      x, deterministic=deterministic
    )
    effect = mlp(self.latent_dim, 'perturbation_encoder')(
      perturbations, deterministic=deterministic
    )
    if self.sparse:
      logits = mlp(self.latent_dim, 'mask_encoder', 0.0)(
        perturbations, deterministic=deterministic
      )
      effect = effect * self._mask(logits, deterministic)
    latent = latent + effect
    if self.inject_decoder:
      latent = layers.concatenate(latent, covariates)
    out = mlp(self.num_genes, 'decoder')(latent, deterministic=deterministic)
    out = out.astype(jnp.float32)
    return nn.softplus(out) if self.softplus else out

  def _mask(self, logits, deterministic):
    """A Bernoulli mask whose gradient is that of its probability."""
    p = nn.sigmoid(logits)
    if deterministic:
      hard = (p > 0.5).astype(p.dtype)
    else:
      hard = jax.random.bernoulli(self.make_rng('mask'), p).astype(p.dtype)
    return hard - jax.lax.stop_gradient(p) + p


def make(config, spec: types.DataSpec) -> types.Model:
  """Builds the model; see types.Model."""
  layers.check_choice('model.dtype', config.dtype, layers.DTYPES)
  names = Network.__dataclass_fields__
  network = Network(
    num_genes=spec.num_genes,
    **{k: config[k] for k in default_config() if k in names},
  )

  def apply(params, key, source, condition):
    rngs = {}
    if key is not None:
      dropout_key, mask_key = jax.random.split(key)
      rngs = {'dropout': dropout_key, 'mask': mask_key}
    return network.apply(
      {'params': params['network']},
      source,
      layers.encode_perturbations(condition, spec.num_perturbations),
      layers.encode_covariates(condition, spec.covariate_sizes),
      deterministic=key is None,
      rngs=rngs,
    )

  def init(key, consts):
    del consts
    condition = types.Condition(
      perturbations=jnp.zeros((1, spec.order), jnp.int32),
      doses=jnp.ones((1, spec.order)),
      covariates=jnp.zeros((1, len(spec.covariates)), jnp.int32),
      group=jnp.zeros((1,), jnp.int32),
    )
    variables = network.init(
      key,
      jnp.zeros((1, spec.num_genes)),
      layers.encode_perturbations(condition, spec.num_perturbations),
      layers.encode_covariates(condition, spec.covariate_sizes),
      deterministic=True,
    )
    return {'network': variables['params']}

  def loss(params, key, batch, consts, step):
    del consts, step
    predicted = apply(params, key, batch.source, batch.condition)
    error = losses.squared_error(predicted, batch.target)
    return losses.weighted_mean(error, batch.weight), types.Aux({})

  def predict(params, key, source, condition, consts):
    del consts
    return apply(params, key, source, condition)

  return types.Model(
    init=init,
    losses={'model': loss},
    predict=predict,
    sampling='paired',
    knows=layers.known_perturbations(spec),
  )
