"""DecoderOnly of PerturBench (arXiv 2408.10609): expression from labels alone.

The mean expression of a condition is decoded from its perturbations, its
covariates, or both; the control cell is not looked at.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from pertjax import losses, types
from pertjax.models import layers


def default_config() -> dict[str, Any]:
  """Returns the model's keys: PerturBench's defaults, a smaller width."""
  return {
    'num_layers': 3,
    'width': 512,
    'use_perturbations': True,
    'use_covariates': True,
    'softplus': True,
    'dtype': 'float32',
  }


def make(config, spec: types.DataSpec) -> types.Model:
  """Builds the model; see types.Model.

  Raises:
    ValueError: if neither perturbations nor covariates are used.
  """
  layers.check_choice('model.dtype', config.dtype, layers.DTYPES)
  if not (config.use_perturbations or config.use_covariates):
    raise ValueError(
      'model.use_perturbations and model.use_covariates are both False; '
      'decoder_only needs one of them as its input'
    )
  # No dropout, as in the original.
  network = layers.Mlp(
    config.width, spec.num_genes, config.num_layers, 0.0, config.dtype
  )

  def labels_of(condition):
    parts = []
    if config.use_perturbations:
      parts.append(
        layers.encode_perturbations(condition, spec.num_perturbations)
      )
    if config.use_covariates:
      parts.append(layers.encode_covariates(condition, spec.covariate_sizes))
    return parts[0] if len(parts) == 1 else layers.concatenate(*parts)

  def apply(params, condition):
    out = network.apply(
      {'params': params['network']}, labels_of(condition), deterministic=True
    ).astype(jnp.float32)
    return nn.softplus(out) if config.softplus else out

  def init(key, consts):
    del consts
    width = spec.num_perturbations * config.use_perturbations
    width += sum(spec.covariate_sizes) * config.use_covariates
    variables = network.init(key, jnp.zeros((1, width)), deterministic=True)
    return {'network': variables['params']}

  def loss(params, key, batch, consts, step):
    del key, consts, step
    error = losses.squared_error(apply(params, batch.condition), batch.target)
    return losses.weighted_mean(error, batch.weight), types.Aux({})

  def predict(params, key, source, condition, consts):
    del key, consts
    return jnp.broadcast_to(apply(params, condition), source.shape)

  knows = layers.known_perturbations(spec) if config.use_perturbations else None
  return types.Model(
    init=init,
    losses={'model': loss},
    predict=predict,
    sampling='paired',
    knows=knows,
  )
