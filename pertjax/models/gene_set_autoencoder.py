"""The auto-encoders of SENA's ablation: what a gene-set layer costs and gives.

ICLR 2025 (arXiv 2506.12439), its `ablation_study`. An auto-encoder or a
variational one whose first layer is made of gene sets ('sena'), dense ('mlp'),
or dense with an L1 penalty ('l1'); the decoder is linear. In the released code
the L1 encoder and the variational model of two layers fail before the first
step; here they are what they were meant to be.

No label is given to the network. A condition is predicted as scGen does, by
the difference between its mean and the control's in the latent space.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

from pertjax import losses, types
from pertjax.data import statistics
from pertjax.models import interventions, layers, shifts

ENCODERS = ('sena', 'mlp', 'l1')
_SLOPE = 0.01
_FLOOR = 1e-8

# Why config.loss.weights must be 0 with this model.
NO_LOSS_TERMS = (
  'it is trained to reconstruct cells without their conditions, and predicts '
  'with a shift that is fitted after training'
)
_LABELS = {'network': 'model', 'shift': 'frozen'}


def default_config() -> dict[str, Any]:
  """Returns the model's keys: those of the ablation's code."""
  return {
    'encoder': 'sena',
    'variational': False,
    # Of the encoder: 1 or 2.
    'num_layers': 1,
    # Units of a dense encoder; 0 is the number of gene sets.
    'width': 0,
    # What a gene outside of a set counts; 0 stores the members' weights only.
    'sena_lambda': 0.0,
    # Times the sum of the absolute weights of the first layer; 'l1' only.
    'l1_weight': 1e-5,
    # Beta; times the mean over cells and units; variational only.
    'kl_weight': 1.0,
    'dtype': 'float32',
  }


def recipe() -> dict[str, Any]:
  """Returns the settings of the ablation."""
  return {
    'optimizer.name': 'adamw',
    'optimizer.learning_rate': 1e-4,
    'optimizer.weight_decay': 0.01,
    'train.batch_size': 32,
  }


def check_config(config) -> None:
  """Checks config.model before any data is read; see `check`."""
  check(config.model)


def check(config) -> None:
  """Checks config.model.

  Raises:
    ValueError: naming the key, what was given and what is allowed.
  """
  layers.check_choice('model.dtype', config.dtype, layers.DTYPES)
  layers.check_choice('model.encoder', config.encoder, ENCODERS)
  layers.check_choice('model.num_layers', config.num_layers, (1, 2))
  for key in ('sena_lambda', 'l1_weight', 'kl_weight', 'width'):
    if not 0 <= config[key] < math.inf:
      raise ValueError(f'model.{key} is {config[key]}; it must be at least 0')


def make(config, spec: types.DataSpec) -> types.Model:
  """Builds the model; see types.Model.

  Raises:
    ValueError: for a config that cannot be right, or data without what the
      encoder needs.
  """
  check(config)
  dtype = jnp.dtype(config.dtype)
  genes = spec.num_genes
  if not spec.gene_sets and (config.encoder == 'sena' or not config.width):
    raise ValueError(
      f'model.encoder={config.encoder!r} has one unit for each gene set, and '
      'the data come without gene sets; name a file of them by '
      "data.gene_sets, or set model.encoder='mlp' and model.width"
    )
  made_of_sets = config.encoder == 'sena'
  by_pattern = made_of_sets and not config.sena_lambda
  width = config.width or len(spec.gene_sets)
  if made_of_sets:
    width = len(spec.gene_sets)
  consts = _consts(config, spec)

  def dense(layer, x):
    product = jnp.dot(
      x.astype(dtype),
      layer['kernel'].astype(dtype),
      preferred_element_type=jnp.float32,
    )
    return product + layer['bias'][None]

  def first(params, cells, consts):
    layer = params['first']
    if not made_of_sets:
      return dense(layer, cells)
    kernel, cells = layer['kernel'].astype(dtype), cells.astype(dtype)
    if by_pattern:
      found = layers.gene_set_scores(kernel, cells, consts['sets'])
    else:
      found = layers.masked_scores(
        kernel, cells, consts['mask'], consts['hyper']['sena_lambda']
      )
    return found.astype(jnp.float32) + layer['bias'][None]

  def init(key, consts):
    linear = layers.torch_linear
    network = {'first': linear(genes, width), 'decoder': linear(width, genes)}
    if by_pattern:
      bound = layers.gene_set_bound(consts['sets'], genes)
      network['first']['kernel'] = layers.Draw('uniform', bound.shape, bound)
    if config.variational:
      source = width if config.num_layers == 2 else genes
      network['variance'] = linear(source, width)
    if config.num_layers == 2:
      network['second'] = linear(width, width)
    return {'network': layers.draw(key, network)}

  def activation(x):
    return jax.nn.leaky_relu(x, _SLOPE)

  def latent(network, cells, consts):
    """Returns the code, or its (mean, log variance) if variational."""
    hidden = first(network, cells, consts)
    if not config.variational:
      hidden = activation(hidden)
      if config.num_layers == 2:
        hidden = activation(dense(network['second'], hidden))
      return hidden, None
    source, mean = cells, hidden
    if config.num_layers == 2:
      source = activation(hidden)
      mean = dense(network['second'], source)
    raw = dense(network['variance'], source)
    return mean, interventions.log_softplus(raw, floor=_FLOOR)

  def loss(params, key, batch, consts, step):
    del step
    network = params['network']
    code, log_variance = latent(network, batch.target, consts)
    seen, total = {}, 0.0
    if log_variance is not None:
      terms = 0.5 * (code**2 + jnp.exp(log_variance) - 1 - log_variance)
      seen['kl'] = losses.weighted_mean(jnp.mean(terms, -1), batch.weight)
      total = consts['hyper']['kl_weight'] * seen['kl']
      if key is not None:
        noise = jax.random.normal(key, code.shape)
        code = code + jnp.exp(0.5 * log_variance) * noise
    if config.encoder == 'l1':
      seen['l1'] = jnp.sum(jnp.abs(network['first']['kernel']))
      total = total + consts['hyper']['l1_weight'] * seen['l1']
    predicted = dense(network['decoder'], code)
    error = losses.squared_error(predicted, batch.target)
    seen['reconstruction'] = losses.weighted_mean(error, batch.weight)
    return total + seen['reconstruction'], types.Aux(seen)

  def encode(params, target, condition, consts):
    del condition
    return latent(params['network'], target, consts)[0]

  def fit(params, key, data, consts):
    del key
    table = statistics.pair_means(
      data.arrays,
      data.arrays.train,
      lambda cells: encode(params, cells, None, consts),
    )
    return {**params, 'shift': table}

  def predict(params, key, source, condition, consts):
    del key
    table = params['shift']
    shift = shifts.additive_weights(table, condition) @ table.shift
    code = encode(params, source, condition, consts)
    code = code + shift * shifts.is_perturbed(condition)
    return dense(params['network']['decoder'], code)

  def labels(params):
    return {
      k: jax.tree.map(lambda _, k=k: _LABELS[k], v) for k, v in params.items()
    }

  return types.Model(
    init=init,
    losses={'model': loss},
    predict=predict,
    fit=fit,
    encode=encode,
    labels=labels,
    consts=consts,
    sampling='cells',
    knows=layers.known_perturbations(spec),
  )


def _consts(config, spec) -> dict[str, Any]:
  hyper = {}
  if config.variational:
    hyper['kl_weight'] = jnp.float32(config.kl_weight)
  if config.encoder == 'l1':
    hyper['l1_weight'] = jnp.float32(config.l1_weight)
  consts: dict[str, Any] = {'hyper': hyper}
  if config.encoder == 'sena':
    consts['sets'] = layers.gene_sets(spec.gene_sets, spec.num_genes)
    if config.sena_lambda:
      hyper['sena_lambda'] = jnp.float32(config.sena_lambda)
      consts['mask'] = layers.gene_set_mask(
        consts['sets'], spec.num_genes, jnp.int8
      )
  return consts


def sparsity(
  weight: jax.Array, cells: jax.Array, *, threshold: float = 1e-6
) -> jax.Array:
  """Returns the share of the first layer's contributions that are nothing.

  |m_g W_gb| at or below the threshold, m the mean input (the ablation's code).

  Args:
    weight: [genes, units] effective weights of the first layer.
    cells: [cells, genes].
    threshold: what counts as nothing.
  """
  part = jnp.abs(jnp.mean(cells, 0)[:, None] * weight)
  return jnp.mean(part <= threshold)
