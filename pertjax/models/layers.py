"""Building blocks that several models share."""

from __future__ import annotations

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from pertjax import names, types

DTYPES = ('float32', 'bfloat16')


def torch_dense_init(key, shape, dtype=jnp.float32):
  """Draws U(-1/sqrt(fan_in), 1/sqrt(fan_in)), torch's default for Linear."""
  bound = shape[0] ** -0.5
  return jax.random.uniform(key, shape, dtype, -bound, bound)


class Dense(nn.Module):
  """A linear layer with torch's default initialisation of kernel and bias.

  Attributes:
    features: width of the output.
    dtype: compute type; parameters are float32.
  """

  features: int
  dtype: str = 'float32'

  @nn.compact
  def __call__(self, x):
    bound = x.shape[-1] ** -0.5

    def bias_init(key, shape, dtype=jnp.float32):
      return jax.random.uniform(key, shape, dtype, -bound, bound)

    return nn.Dense(
      self.features,
      kernel_init=torch_dense_init,
      bias_init=bias_init,
      dtype=jnp.dtype(self.dtype),
      name='linear',
    )(x)


class Mlp(nn.Module):
  """PerturbBench's MLP: layers of [Linear, LayerNorm, ReLU, Dropout], Linear.

  The LayerNorm has neither scale nor shift, as in the original (perturbench
  version 1; its epsilon is torch's 1e-5).

  Attributes:
    hidden: width of the hidden layers.
    out: width of the output.
    num_layers: hidden layers; 0 leaves one Linear.
    dropout: rate.
    dtype: compute type.
  """

  hidden: int
  out: int
  num_layers: int
  dropout: float = 0.0
  dtype: str = 'float32'

  @nn.compact
  def __call__(self, x, *, deterministic: bool):
    for layer in range(self.num_layers):
      x = Dense(self.hidden, self.dtype, name=f'dense_{layer}')(x)
      x = nn.LayerNorm(
        epsilon=1e-5,
        use_bias=False,
        use_scale=False,
        dtype=jnp.dtype(self.dtype),
        name=f'norm_{layer}',
      )(x)
      x = nn.relu(x)
      x = dropout(self, x, self.dropout, deterministic=deterministic)
    return Dense(self.out, self.dtype, name='dense_out')(x)


def dropout(
  module: nn.Module, x: jax.Array, rate: float, *, deterministic: bool
) -> jax.Array:
  """Zeroes a fraction of entries and scales the rest up.

  The mask comes from 8 random bits an entry instead of 32: a quarter of the
  random numbers, which is what dropout costs on a CPU. The rate is therefore
  rounded to 1/256, and the scale uses the rounded rate, so that the mean is
  exact.
  """
  if deterministic or rate == 0.0:
    return x
  cut = min(255, max(1, round(rate * 256)))
  # random.bits of type uint8 would draw 32 bits an entry and drop 24.
  words = jax.random.bits(
    module.make_rng('dropout'), (-(-x.size // 4),), jnp.uint32
  )
  octets = jax.lax.bitcast_convert_type(words, jnp.uint8).reshape(-1)
  keep = octets[: x.size].reshape(x.shape) >= cut
  return jnp.where(keep, x / (1.0 - cut / 256), jnp.zeros_like(x))


def encode_perturbations(
  condition: types.Condition, num_perturbations: int
) -> jax.Array:
  """Returns one entry for each perturbation, [..., perturbations] float32.

  An entry is 0 where the perturbation is absent and log2(1 + dose) where it is
  there: 1 at dose 1, which is the multi-hot vector of PerturbBench.
  """
  # -1 padding gives an all-zero row.
  hot = jax.nn.one_hot(condition.perturbations, num_perturbations)
  return jnp.sum(hot * jnp.log2(1.0 + condition.doses)[..., None], axis=-2)


def encode_covariates(
  condition: types.Condition, sizes: tuple[int, ...]
) -> jax.Array:
  """Returns the levels of all covariates one-hot, [..., sum of sizes]."""
  parts = [
    jax.nn.one_hot(condition.covariates[..., k], size)
    for k, size in enumerate(sizes)
  ]
  leading = condition.group.shape
  return jnp.concatenate(parts or [jnp.zeros((*leading, 0))], axis=-1)


def concatenate(x: jax.Array, y: jax.Array) -> jax.Array:
  """Joins features, broadcasting a leading axis of 1."""
  cells = max(x.shape[0], y.shape[0])
  return jnp.concatenate(
    [jnp.broadcast_to(a, (cells, a.shape[-1])) for a in (x, y)], axis=-1
  )


def known_perturbations(
  spec: types.DataSpec,
) -> Callable[[tuple[str, ...]], str | None]:
  """Returns Model.knows of a model that learns a vector per perturbation."""
  trained = {p for p, t in zip(spec.perturbations, spec.trained) if t}

  def knows(tokens: tuple[str, ...]) -> str | None:
    missing = [t for t in tokens if t not in trained]
    if not missing:
      return None
    return f'{", ".join(missing)} never occurs in training'

  return knows


def check_choice(key: str, value, allowed) -> None:
  """Raises ValueError unless a config value is one of those allowed."""
  if value not in allowed:
    raise ValueError(names.unknown(key, value, allowed))
