"""The discrepancy-VAE, and SENA, which encodes cells by gene sets.

Zhang et al., NeurIPS 2023 (arXiv 2307.06250), and SENA-discrepancy-VAE, ICLR
2025 (arXiv 2506.12439). A control cell is encoded to exogenous noise; each
perturbation shifts the noise of the factor that it targets; a linear causal
model over the factors is solved, and the result is decoded to a perturbed cell.
Predicted and real cells of a condition are compared as distributions, by MMD.

Shifts add: any number of perturbations works, and two that target one factor
can only add up there, so that no epistasis between them can be expressed.

Where SENA's code does something that it should not, `parity=False` is the
repaired way and `parity=True` the original one, in float64:

                     parity=False                    parity=True
  arithmetic         float32 or bfloat16             float64 (needs x64)
  pattern, lambda 0  only its weights exist          dense, times a mask
  graph              strict upper triangle           square, half of it unused
  batches            every cell, each epoch          tails dropped
  controls           drawn for every batch           one for each cell, for ever
  variance           floor of 1e-8, stable log       softplus, plain log
  KL                 over `kl_batch` cells           over those in the batch
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from pertjax import losses, types
from pertjax.models import interventions, layers

ENCODERS = ('sena', 'mlp')
REDUCTIONS = ('mean', 'sum')
FAN_INS = ('genes', 'set')
SAMPLERS = (
  'condition_epochs', 'condition_epochs_original', 'by_condition', 'paired',
)  # fmt: skip
_FLOOR = 1e-8


def default_config() -> dict[str, Any]:
  """Returns the model's keys: those of SENA's code."""
  return {
    # 'sena': genes to gene sets; 'mlp': a dense layer, the discrepancy-VAE.
    'encoder': 'sena',
    # What a gene outside of a set counts, beside 1 for a member. 0 stores the
    # members' weights only.
    'sena_lambda': 0.0,
    # Of U(-1/sqrt(n), 1/sqrt(n)), the first weights of the gene sets: 'genes'
    # as in the original, 'set' for the members, which is about 20 times more.
    'fan_in': 'genes',
    # Of the first weights of perturbations, beside torch's default. With 1, as
    # in the original, perturbations begin almost alike, and in short runs all
    # may settle on one factor; see metrics' assigned_factors.
    'intervention_scale': 1.0,
    # Of the dense encoder; 0 is the number of gene sets.
    'width': 0,
    'latent_dim': 105,
    'decoder_width': 128,
    'intervention_width': 128,
    # Give the covariates to the encoder's heads, and to the decoder.
    'inject_encoder': False,
    'inject_decoder': False,
    # Weights at the end of their schedules. L1 has none.
    'mmd_weight': 1.0,
    'kl_weight': 1.0,
    'l1_weight': 0.1,
    # Inverse temperature of the assignment of perturbations to factors: at the
    # end of training, and where something is predicted.
    'temperature': 100.0,
    'eval_temperature': 1000.0,
    # Schedules: the run is cut in epochs; each pair is the last epoch without
    # and the first with the whole weight. (0, 0) has it from the beginning.
    'epochs': 100,
    'schedule_steps': 2000,
    'mmd_ramp': (5, 49),
    'kl_ramp': (10, 99),
    'temperature_ramp': (5, 99),
    # Middle width of the kernels; 0 takes the mean squared distance.
    'mmd_sigma': 200.0,
    'mmd_kernels': 10,
    # Mean squared error to the paired cell, instead of the MMD.
    'matched_io': False,
    # Of KL over latent and L1 over edges: 'mean' (SENA), 'sum' (its parent).
    'reduction': 'mean',
    # SENA divides the mean KL by the cells of the batch once more; this many.
    'kl_batch': 32,
    'sampling': 'condition_epochs',
    'parity': False,
    'dtype': 'float32',
  }


def recipe() -> dict[str, Any]:
  """Returns the settings that SENA was published with."""
  return {'train.batch_size': 32, 'optimizer.learning_rate': 1e-3}


def link(config) -> None:
  """Lets the schedules last as long as the run, whatever that is set to."""
  config.model.schedule_steps = config.train.get_oneway_ref('steps')


def check_config(config) -> None:
  """Checks config.model, and that the schedules end within the run.

  Raises:
    ValueError: naming the key, what was given and what is allowed.
  """
  check(config.model)
  phases = config.train.phases
  steps = sum(p[0] for p in phases) if phases else config.train.steps
  if config.model.schedule_steps > steps:
    raise ValueError(
      f'model.schedule_steps is {config.model.schedule_steps}, but the run has '
      f'{steps} steps: the schedules would be longer than the run'
    )


def check(config) -> None:
  """Checks config.model; see check_config."""
  for key, allowed in (
    ('dtype', layers.DTYPES),
    ('encoder', ENCODERS),
    ('reduction', REDUCTIONS),
    ('fan_in', FAN_INS),
    ('sampling', SAMPLERS),
  ):
    layers.check_choice(f'model.{key}', config[key], allowed)
  for key, low in (
    ('latent_dim', 2),
    ('width', 0),
    ('decoder_width', 1),
    ('intervention_width', 1),
    ('epochs', 1),
    ('schedule_steps', 1),
    ('mmd_kernels', 1),
    ('kl_batch', 1),
    ('mmd_sigma', 0),
    ('mmd_weight', 0),
    ('kl_weight', 0),
    ('l1_weight', 0),
    ('sena_lambda', 0),
    ('intervention_scale', 0),
    ('temperature', 0),
    ('eval_temperature', 0),
  ):
    if not low <= config[key] < math.inf:
      reason = ', for a graph needs two factors' if key == 'latent_dim' else ''
      raise ValueError(
        f'model.{key} is {config[key]}; it must be at least {low}{reason}'
      )
  for key in ('mmd_ramp', 'kl_ramp', 'temperature_ramp'):
    ends = tuple(config[key])
    last = config.epochs - 1
    if (
      len(ends) != 2
      or not all(type(e) is int for e in ends)
      or not 0 <= ends[0] <= ends[1]
    ):
      raise ValueError(
        f'model.{key} is {ends}; it must be two epochs, the first not after '
        'the second, such as (5, 49)'
      )
    if ends[1] > last:
      raise ValueError(
        f'model.{key} ends in epoch {ends[1]}, but the last of model.epochs='
        f'{config.epochs} is {last}: the schedule would be longer than the run'
      )
  if config.epochs * config.schedule_steps >= 2**31:
    raise ValueError(
      f'model.epochs={config.epochs} times model.schedule_steps='
      f'{config.schedule_steps} must be below 2^31'
    )


class Network(NamedTuple):
  """The parts of the model, for those who look inside; pure functions.

  Attributes:
    init: `(key, consts) -> params`.
    scores: `(params, cells, consts) -> [cells, sets]`: the first layer before
      its activation.
    posterior: `(params, cells, condition, consts) -> (mean, log variance)` of
      the noise, [cells, latent].
    graph: `(params) -> [latent, latent]`, strictly upper triangular.
    decode: `(params, latent, condition) -> [cells, genes]`.
    set_names: [sets] names of the columns of `scores`; empty for 'mlp'.
    consts: arrays that are not trained.
  """

  init: Callable[..., Any]
  scores: Callable[..., Any]
  posterior: Callable[..., Any]
  graph: Callable[..., Any]
  decode: Callable[..., Any]
  set_names: tuple[str, ...]
  consts: dict[str, Any]


def _dtypes(config):
  """Returns the type of parameters and sums, and that of products."""
  if not config.parity:
    return jnp.dtype('float32'), jnp.dtype(config.dtype)
  if jnp.zeros((), float).dtype != jnp.float64:
    raise ValueError(
      'model.parity=True computes in float64, which JAX has turned off; set '
      'JAX_ENABLE_X64=1 in the environment'
    )
  return jnp.dtype('float64'), jnp.dtype('float64')


def _consts(config, spec, wide) -> dict[str, Any]:
  hyper = {
    key: jnp.asarray(config[key], wide)
    for key in (
      'mmd_weight',
      'kl_weight',
      'l1_weight',
      'temperature',
      'eval_temperature',
    )
  }
  if config.mmd_sigma:
    hyper['mmd_sigma'] = jnp.asarray(config.mmd_sigma, wide)
  consts = {'hyper': hyper}
  if config.encoder == 'sena':
    consts['sets'] = layers.gene_sets(spec.gene_sets, spec.num_genes)
    if _is_dense(config):
      hyper['sena_lambda'] = jnp.asarray(config.sena_lambda, wide)
      # One byte an entry: a mask of floats is as large as the weights.
      consts['mask'] = layers.gene_set_mask(
        consts['sets'], spec.num_genes, jnp.int8
      )
  return consts


def _is_dense(config) -> bool:
  return bool(config.sena_lambda) or config.parity


def _hidden(config, spec) -> int:
  if config.encoder == 'sena' or not config.width:
    if not spec.gene_sets:
      raise ValueError(
        f'model.encoder={config.encoder!r} has one unit for each gene set, and '
        'the data come without gene sets; name a file of them by '
        "data.gene_sets, or set model.encoder='mlp' and model.width"
      )
    return len(spec.gene_sets)
  return config.width


def network(config, spec: types.DataSpec) -> Network:
  """Builds the parts; arguments as in `make`."""
  check(config)
  if spec.num_perturbations == 0 or not any(spec.trained):
    raise ValueError(
      'discrepancy_vae learns from perturbed cells, and no perturbation is '
      'among the training cells; check the split and the names of conditions'
    )
  wide, narrow = _dtypes(config)
  hidden, latent = _hidden(config, spec), config.latent_dim
  levels = sum(spec.covariate_sizes)
  sparse = config.encoder == 'sena' and not _is_dense(config)

  def dense(layer, x):
    product = jnp.dot(
      x.astype(narrow),
      layer['kernel'].astype(narrow),
      preferred_element_type=wide,
    )
    return product + layer['bias'][None]

  def init(key, consts):
    def linear(fan_in, fan_out):
      return {
        'kernel': layers.Draw('normal', (fan_in, fan_out), 0.02),
        'bias': layers.Draw('zeros', (fan_out,)),
      }

    genes, width = spec.num_genes, config.intervention_width
    if config.encoder == 'sena':
      encoder = layers.torch_linear(genes, hidden)
      if sparse:
        bound = layers.gene_set_bound(
          consts['sets'], genes, fan_in=config.fan_in
        )
        encoder['kernel'] = layers.Draw('uniform', bound.shape, bound)
      elif config.fan_in == 'set':
        bound = consts['sets'].size.astype(wide)[None] ** -0.5
        encoder['kernel'] = encoder['kernel']._replace(scale=bound)
    else:
      encoder = linear(genes, hidden)
    c1 = layers.torch_linear(spec.num_perturbations, width)
    bound = config.intervention_scale * spec.num_perturbations**-0.5
    c1['kernel'] = c1['kernel']._replace(scale=bound)
    heads = hidden + levels * config.inject_encoder
    edges = (latent * (latent - 1) // 2,)
    wanted = {
      'encoder': encoder,
      'mean': linear(heads, latent),
      'variance': linear(heads, latent),
      'graph': layers.Draw(
        'normal', (latent, latent) if config.parity else edges, 0.1
      ),
      'intervention': {
        'c1': c1,
        'c2': layers.torch_linear(width, latent),
        'shift': layers.Draw('ones', (spec.num_perturbations,)),
      },
      'decoder': {
        'hidden': linear(
          latent + levels * config.inject_decoder, config.decoder_width
        ),
        'output': linear(config.decoder_width, genes),
      },
    }
    return layers.draw(key, wanted, wide)

  def scores(params, cells, consts):
    layer, cells = params['encoder'], cells.astype(narrow)
    kernel = layer['kernel'].astype(narrow)
    if sparse:
      found = layers.gene_set_scores(kernel, cells, consts['sets'])
    elif config.encoder == 'sena':
      found = layers.masked_scores(
        kernel, cells, consts['mask'], consts['hyper']['sena_lambda']
      )
    else:
      return dense(layer, cells)
    return found.astype(wide) + layer['bias'][None]

  def posterior(params, cells, condition, consts):
    h = interventions.leaky_relu(scores(params, cells, consts))
    if config.inject_encoder:
      h = layers.concatenate(
        h, layers.encode_covariates(condition, spec.covariate_sizes)
      )
    raw = dense(params['variance'], h)
    if config.parity:
      log_variance = jnp.log(jax.nn.softplus(raw))
    else:
      log_variance = interventions.log_softplus(raw, floor=_FLOOR)
    return dense(params['mean'], h), log_variance

  def graph(params):
    if config.parity:
      return jnp.triu(params['graph'], 1)
    return interventions.strict_upper(params['graph'], latent)

  def decode(params, factors, condition):
    if config.inject_decoder:
      factors = layers.concatenate(
        factors, layers.encode_covariates(condition, spec.covariate_sizes)
      )
    h = interventions.leaky_relu(dense(params['decoder']['hidden'], factors))
    return interventions.leaky_relu(dense(params['decoder']['output'], h))

  return Network(
    init=init,
    scores=scores,
    posterior=posterior,
    graph=graph,
    decode=decode,
    set_names=tuple(spec.gene_sets) if config.encoder == 'sena' else (),
    consts=_consts(config, spec, wide),
  )


def _weights(config, hyper, step, *, training: bool):
  """Returns the weights of MMD and KL, and the inverse temperature."""
  if not training:
    # What the run ends at, so that scores of all its steps can be compared.
    return hyper['mmd_weight'], hyper['kl_weight'], hyper['eval_temperature']
  epoch = interventions.epoch_of(
    step, num_steps=config.schedule_steps, epochs=config.epochs
  )
  return (
    interventions.ramp(epoch, tuple(config.mmd_ramp), hyper['mmd_weight']),
    interventions.ramp(epoch, tuple(config.kl_ramp), hyper['kl_weight']),
    interventions.ramp(
      epoch, tuple(config.temperature_ramp), hyper['temperature'], 1.0
    ),
  )


def kl_terms(mean: jax.Array, log_variance: jax.Array) -> jax.Array:
  """Returns KL(N(mean, variance) || N(0, 1)) of every entry, same shape."""
  return 0.5 * (mean**2 + jnp.exp(log_variance) - 1 - log_variance)


def _same_condition(condition: types.Condition, cells: int) -> jax.Array:
  """Returns bool [cells, cells]: one condition and one group."""
  rows = jnp.concatenate(
    [
      condition.perturbations,
      jax.lax.bitcast_convert_type(condition.doses, jnp.int32),
      condition.group[:, None],
    ],
    -1,
  )
  rows = jnp.broadcast_to(rows, (cells, rows.shape[-1]))
  return jnp.all(rows[:, None] == rows[None], -1)


def sample(key, mean, log_variance):
  """Returns a draw of the noise; the mean itself where key is None."""
  if key is None:
    return mean
  noise = jax.random.normal(key, mean.shape, mean.dtype)
  return mean + jnp.exp(0.5 * log_variance) * noise


def make(config, spec: types.DataSpec) -> types.Model:
  """Builds the model; see types.Model.

  Raises:
    ValueError: for a config that cannot be right, or data without what the
      encoder needs.
  """
  net = network(config, spec)
  latent = config.latent_dim

  def both_branches(params, key, batch, consts, temperature):
    """Returns predicted and reconstructed cells, and the noise's moments."""
    mean, log_variance = net.posterior(
      params, batch.source, batch.condition, consts
    )
    if key is None and not (config.parity or config.matched_io):
      # The MMD is about spread: means of cells would all be too close together.
      key = jax.random.key(0)
    noise = sample(key, mean, log_variance)
    shift = interventions.shift_of(
      params['intervention'], batch.condition, temperature
    )
    # Both at once: one solve and one pass over the decoder's weights.
    noise = jnp.concatenate([noise + shift, noise])
    factors = interventions.propagate(noise, net.graph(params))
    twice = jax.tree.map(
      lambda x: jnp.concatenate([x, x]) if x.shape[0] > 1 else x,
      batch.condition,
    )
    predicted, reconstructed = jnp.split(net.decode(params, factors, twice), 2)
    return predicted, reconstructed, mean, log_variance

  def discrepancy(predicted, batch, consts):
    target = batch.target.astype(predicted.dtype)
    if config.matched_io:
      error = jnp.mean((predicted - target) ** 2, -1)
      return losses.weighted_mean(error, batch.weight)
    return losses.gaussian_mmd(
      predicted,
      target,
      sigma=consts['hyper'].get('mmd_sigma', 0.0),
      num_kernels=config.mmd_kernels,
      weight=batch.weight,
      same=_same_condition(batch.condition, target.shape[0]),
    )

  def loss(params, key, batch, consts, step):
    hyper = consts['hyper']
    mmd_weight, kl_weight, temperature = _weights(
      config, hyper, step, training=key is not None
    )
    predicted, reconstructed, mean, log_variance = both_branches(
      params, key, batch, consts, temperature
    )
    mmd = discrepancy(predicted, batch, consts)
    error = jnp.mean((reconstructed - batch.source) ** 2, -1)
    reconstruction = losses.weighted_mean(error, batch.weight)
    kl_cell = losses.weighted_mean(
      jnp.sum(kl_terms(mean, log_variance), -1), batch.weight
    )
    l1 = jnp.sum(jnp.abs(net.graph(params)))
    kl = kl_cell
    if config.reduction == 'mean':
      divisor = jnp.sum(batch.weight) if config.parity else config.kl_batch
      kl = kl_cell / latent / divisor
      l1 = l1 / (latent * (latent - 1) // 2)
    total = (
      mmd_weight * mmd
      + reconstruction
      + kl_weight * kl
      + hyper['l1_weight'] * l1
    )
    return total, types.Aux(
      {
        'mmd': mmd,
        'reconstruction': reconstruction,
        'kl': kl,
        'kl_per_cell': kl_cell,
        'l1': l1,
        'mmd_weight': mmd_weight,
        'kl_weight': kl_weight,
        'temperature': temperature,
        # SENA keeps the model where the epoch's mean of this is least.
        'criterion': (total + mmd + reconstruction + kl + l1) / 5,
        'cells': jnp.sum(batch.weight),
        **_sharpness(params, spec, temperature),
      }
    )

  def predict(params, key, source, condition, consts):
    mean, log_variance = net.posterior(params, source, condition, consts)
    noise = sample(key, mean, log_variance) + interventions.shift_of(
      params['intervention'], condition, consts['hyper']['eval_temperature']
    )
    factors = interventions.propagate(noise, net.graph(params))
    return net.decode(params, factors, condition).astype(jnp.float32)

  def encode(params, target, condition, consts):
    return net.posterior(params, target, condition, consts)[0]

  return types.Model(
    init=net.init,
    losses={'model': loss},
    predict=predict,
    encode=encode,
    consts=net.consts,
    sampling=(
      'condition_epochs_original' if config.parity else config.sampling
    ),
    knows=layers.known_perturbations(spec),
  )


# A table of more perturbations would cost as much as the step itself.
_MOST_LOGGED = 512


def _sharpness(params, spec, temperature) -> dict[str, jax.Array]:
  """Returns how settled the assignment to factors is, for the log."""
  if spec.num_perturbations > _MOST_LOGGED:
    return {}
  table = interventions.assignments(
    jax.lax.stop_gradient(params['intervention']),
    jnp.arange(spec.num_perturbations),
    temperature,
  )
  return {
    'assignment_entropy': jnp.mean(interventions.entropy(table)),
    'assigned_factors': interventions.num_factors(table),
  }
