"""Soft interventions on a linear causal model of latent factors.

The parts of the discrepancy-VAE (Zhang et al. 2023, arXiv 2307.06250) and of
SENA (arXiv 2506.12439): which factor an intervention shifts and by how much,
the causal layer, the variance of the noise, and the schedules of training.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from pertjax import types

# Below this, softplus(x) is exp(x) to the last bit of double precision.
_SMALL = -37.0
SLOPE = 0.2


def leaky_relu(x: jax.Array) -> jax.Array:
  """Returns the activation of both originals: slope 0.2 below 0."""
  return jax.nn.leaky_relu(x, SLOPE)


def log_softplus(x: jax.Array, *, floor: float = 0.0) -> jax.Array:
  """Returns log(softplus(x) + floor), with gradients that stay finite.

  log(softplus(x)) is -inf below -103 in float32; its limit is x, whose
  gradient is 1.

  Args:
    x: any shape.
    floor: static, added to the softplus.
  """
  # The branch that is not taken must be finite too, or its gradient is NaN.
  inside = jnp.log(jax.nn.softplus(jnp.maximum(x, _SMALL)))
  value = jnp.where(x > _SMALL, inside, x)
  if floor:
    value = jnp.logaddexp(value, jnp.log(jnp.asarray(floor, x.dtype)))
  return value


def strict_upper(entries: jax.Array, size: int) -> jax.Array:
  """Returns the strictly upper triangle [size, size] of entries in row order.

  Args:
    entries: [size * (size - 1) / 2].
    size: static.
  """
  rows, columns = jnp.triu_indices(size, 1)
  matrix = jnp.zeros((size, size), entries.dtype)
  return matrix.at[rows, columns].set(
    entries, unique_indices=True, indices_are_sorted=True
  )


# Rows that are inverted at once in `propagate`.
_BLOCK = 16


def _inverse_blocks(graph: jax.Array) -> jax.Array:
  """Returns (I - D)^-1 of the blocks on the diagonal, [blocks, 16, 16].

  A strictly triangular D has D^16 = 0, so that the inverse is the product of
  I + D, I + D^2, I + D^4 and I + D^8.
  """
  count = graph.shape[0] // _BLOCK
  at = jnp.arange(count)
  power = graph.reshape(count, _BLOCK, count, _BLOCK)[at, :, at, :]
  identity = jnp.eye(_BLOCK, dtype=graph.dtype)[None]
  inverse = identity + power
  for _ in range(3):
    power = power @ power
    inverse = inverse @ (identity + power)
  return inverse


def _solve(values: jax.Array, graph: jax.Array, *, transposed: bool):
  """Returns values (I - U)^-1, or values (I - U)^-T, by blocks of columns."""
  size = graph.shape[0]
  missing = -size % _BLOCK
  graph = jnp.pad(jnp.triu(graph, 1), ((0, missing), (0, missing)))
  values = jnp.pad(values, ((0, 0), (0, missing)))
  inverse = _inverse_blocks(graph)
  if transposed:
    graph, inverse = graph.T, inverse.transpose(0, 2, 1)
  order = range(len(inverse))
  out = [jnp.zeros((values.shape[0], _BLOCK), values.dtype)] * len(inverse)
  for number in reversed(order) if transposed else order:
    here = slice(number * _BLOCK, (number + 1) * _BLOCK)
    known = order[number + 1 :] if transposed else order[:number]
    total = values[:, here]
    if known:
      rows = slice(known[0] * _BLOCK, (known[-1] + 1) * _BLOCK)
      solved = jnp.concatenate([out[k] for k in known], 1)
      total = total + solved @ graph[rows, here]
    out[number] = total @ inverse[number]
  return jnp.concatenate(out, 1)[:, :size]


@jax.custom_vjp
def propagate(noise: jax.Array, graph: jax.Array) -> jax.Array:
  """Returns u = noise (I - U)^-1: every factor, and what it does to later ones.

  u_j = noise_j + sum_{i < j} u_i U_ij, so that U_ij is the edge from i to j
  (arXiv 2307.06250, section 3). A triangular solve by blocks: the library's own
  calls LAPACK on a CPU, whose threads then wait in a loop beside ours and cost
  several times what they compute.

  Args:
    noise: [cells, latent] exogenous noise, shifted where there is a shift.
    graph: [latent, latent]; only what is strictly above the diagonal is read.
  """
  return _solve(noise, graph, transposed=False)


def _propagate_forward(noise, graph):
  factors = propagate(noise, graph)
  return factors, (factors, graph)


def _propagate_backward(saved, cotangent):
  factors, graph = saved
  noise = _solve(cotangent, graph, transposed=True)
  return noise, jnp.triu(factors.T @ noise, 1)


propagate.defvjp(_propagate_forward, _propagate_backward)


def assignments(
  params, perturbations: jax.Array, temperature: jax.Array | float
) -> jax.Array:
  """Returns how much each factor is the target of each perturbation.

  softmax(T c2(phi(c1(one-hot)))); T is an inverse temperature: larger is
  sharper (SENA's code; the paper's softmax with temperature).

  Args:
    params: {'c1': {'kernel' [perturbations, hidden], 'bias'}, 'c2': ...}.
    perturbations: int32 [...]; negative is padding, whose row is of no use.
    temperature: T.

  Returns:
    [..., latent], rows sum to 1.
  """
  # A row of the kernel is its product with a one-hot vector.
  rows = params['c1']['kernel'][jnp.maximum(perturbations, 0)]
  bias = params['c1']['bias']
  hidden = leaky_relu(rows + bias.reshape((1,) * perturbations.ndim + (-1,)))
  second = params['c2']['bias'].reshape((1,) * perturbations.ndim + (-1,))
  logits = hidden @ params['c2']['kernel'] + second
  return jax.nn.softmax(temperature * logits, axis=-1)


def shift_of(
  params,
  condition: types.Condition,
  temperature: jax.Array | float,
) -> jax.Array:
  """Returns the shift of the noise, sum_k bc_k s_k, [cells or 1, latent].

  Every perturbation is encoded on its own, as the original does for doubles
  (section 3.3 of the specification it was written from: two one-hot vectors,
  never one two-hot vector); its shift s_k is scaled by the dose, and any number
  of them add up.

  Args:
    params: as in `assignments`, with 'shift' [perturbations].
    condition: see types.Condition.
    temperature: T.
  """
  ids = condition.perturbations
  target = assignments(params, ids, temperature)
  size = params['shift'][jnp.maximum(ids, 0)]
  size = jnp.where(ids >= 0, size * condition.doses.astype(size.dtype), 0)
  return jnp.sum(target * size[..., None], axis=-2)


def entropy(target: jax.Array) -> jax.Array:
  """Returns the entropy in nats of each row of `assignments`, [...]."""
  safe = jnp.where(target > 0, target, 1)
  return -jnp.sum(safe * jnp.log(safe), -1)


def num_factors(target: jax.Array) -> jax.Array:
  """Returns how many factors are the largest of some perturbation, float32.

  Args:
    target: [perturbations, latent].
  """
  hit = jnp.zeros(target.shape[-1]).at[jnp.argmax(target, -1)].set(1.0)
  return jnp.sum(hit)


# ----------------------------------------------------------------------------
# Schedules.


def epoch_of(step: jax.Array, *, num_steps: int, epochs: int) -> jax.Array:
  """Returns the epoch of a step, int32: the run is cut in `epochs` parts.

  Steps after the last epoch stay in it.
  """
  return jnp.minimum(step * epochs // num_steps, epochs - 1)


def ramp(
  epoch: jax.Array,
  ends: tuple[int, int],
  high: jax.Array | float,
  low: float = 0.0,
) -> jax.Array:
  """Returns `low` until the first epoch, `high` from the last, linear between.

  Args:
    epoch: int32.
    ends: static; (last epoch at `low`, first at `high`). (0, 0) is `high` from
      the beginning.
    high: may be traced.
    low: static.
  """
  first, last = ends
  if last <= first:
    done = (epoch >= last).astype(jnp.float32)
  else:
    done = jnp.clip((epoch - first) / (last - first), 0, 1)
  return low + (high - low) * done


def original_ramps(epochs: int) -> dict[str, tuple[int, int]]:
  """Returns SENA's schedules for a number of epochs, as ends of `ramp`.

  mmd: 0 for 5 epochs, full at half of the run; kl: 0 for 10 epochs; inverse
  temperature: 1 for 5 epochs; both full in the last epoch. Up to 10 epochs,
  where the original fails, the delays are a quarter of the run.
  """
  last = epochs - 1
  short, long = (5, 10) if epochs > 10 else (epochs // 4, epochs // 4)
  return {
    'mmd': (short, max(short, epochs // 2 - 1)),
    'kl': (long, last),
    'temperature': (short, last),
  }
