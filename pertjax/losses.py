"""Loss terms, one value per cell; the caller reduces them.

Sums over genes and cells accumulate in float32, whatever the compute type.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp


def squared_error(predicted: jax.Array, target: jax.Array) -> jax.Array:
  """Returns the mean over genes of the squared error, [cells, genes] ->
  [cells].

  PerturBench's regression loss (paper 2408.10609, section 3); the mean over
  cells of it equals the mean over all entries.
  """
  error = predicted.astype(jnp.float32) - target
  return jnp.mean(error * error, axis=-1)


def half_squared_sum(predicted: jax.Array, target: jax.Array) -> jax.Array:
  """Returns half the sum over genes of the squared error, [cells].

  scGen's reconstruction term: a unit-variance Gaussian likelihood up to a
  constant (Lotfollahi et al. 2019, Methods).
  """
  error = predicted.astype(jnp.float32) - target
  return 0.5 * jnp.sum(error * error, axis=-1)


def normal_kl(mean: jax.Array, variance: jax.Array) -> jax.Array:
  """Returns KL(N(mean, variance) || N(0, 1)) summed over latent, [cells].

  Kingma and Welling 2013, appendix B.
  """
  mean, variance = mean.astype(jnp.float32), variance.astype(jnp.float32)
  terms = variance + mean * mean - 1.0 - jnp.log(variance)
  return 0.5 * jnp.sum(terms, axis=-1)


def weighted_mean(values: jax.Array, weight: jax.Array) -> jax.Array:
  """Returns the mean of [cells] values; padding has weight 0.

  A batch of nothing but padding gives 0, so that it adds nothing to a sum.
  """
  return jnp.sum(values * weight) / jnp.maximum(jnp.sum(weight), 1e-12)
