"""Optimisers and schedules from the config, with hyper-parameters as arrays.

The chain is built inside the traced step from scalars that may be traced, so
that learning rate and weight decay can differ between the members of a fleet
without a second program.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from pertjax import names

NAMES = ('adam', 'adamw', 'sgd')
SCHEDULES = ('constant', 'cosine', 'linear')
# Scalars of config.optimizer that may differ between members of a fleet.
FLEET_KEYS = ('learning_rate', 'weight_decay', 'clip_norm')


def default_config() -> dict[str, Any]:
  """Returns config.optimizer with its defaults."""
  return {
    'name': 'adam',
    'learning_rate': 1e-3,
    # Coupled for adam: added to the gradient before the moments, as torch's
    # Adam does; decoupled for adamw.
    'weight_decay': 0.0,
    'b1': 0.9,
    'b2': 0.999,
    'eps': 1e-8,
    'momentum': 0.0,
    # 0 turns clipping off.
    'clip_norm': 0.0,
    'schedule': 'constant',
    'warmup_steps': 0,
    # Fraction of the learning rate that the schedule ends at.
    'final_fraction': 0.0,
    # Batches whose gradients are averaged into one step.
    'accumulate': 1,
    # Plateau reduction by validation score: 0 evaluations turns it off.
    'plateau_patience': 0,
    'plateau_factor': 0.2,
    'plateau_threshold': 1e-4,
  }


def validate(config) -> None:
  """Checks config.optimizer.

  Raises:
    ValueError: naming the key, what was given and what is allowed.
  """
  for key, allowed in (('name', NAMES), ('schedule', SCHEDULES)):
    if config[key] not in allowed:
      raise ValueError(names.unknown(f'optimizer.{key}', config[key], allowed))
  for key in ('learning_rate', 'eps'):
    _at_least(f'optimizer.{key}', config[key], 0.0, strict=True)
  for key in ('weight_decay', 'clip_norm', 'momentum', 'warmup_steps'):
    _at_least(f'optimizer.{key}', config[key], 0.0)
  _at_least('optimizer.accumulate', config.accumulate, 1)
  _at_least('optimizer.plateau_patience', config.plateau_patience, 0)
  for key in ('b1', 'b2', 'plateau_threshold'):
    if not 0 <= config[key] < 1:
      raise ValueError(f'optimizer.{key} is {config[key]}; allowed is [0, 1)')
  for key in ('final_fraction', 'plateau_factor'):
    if not 0 <= config[key] <= 1:
      raise ValueError(f'optimizer.{key} is {config[key]}; allowed is [0, 1]')


def _at_least(key, value, low, *, strict=False):
  # Written so that NaN fails.
  if not (value > low if strict else value >= low):
    sign = '>' if strict else '>='
    raise ValueError(f'{key} is {value}; it must be {sign} {low}')


def schedule(config, step: jax.Array, num_steps: int) -> jax.Array:
  """Returns the factor on the learning rate at a step, float32."""
  step = step.astype(jnp.float32)
  factor = jnp.float32(1)
  if config.schedule != 'constant':
    span = max(1, num_steps - config.warmup_steps)
    done = jnp.clip((step - config.warmup_steps) / span, 0, 1)
    if config.schedule == 'cosine':
      done = 0.5 * (1 - jnp.cos(jnp.pi * done))
    factor = 1 - (1 - config.final_fraction) * done
  if config.warmup_steps:
    factor = factor * jnp.minimum(1.0, (step + 1) / config.warmup_steps)
  return factor


def make(
  config, hyper: Mapping[str, jax.Array], rate: jax.Array | float = 1.0
) -> optax.GradientTransformation:
  """Builds the chain of one player.

  Args:
    config: config.optimizer.
    hyper: traced scalars by dotted key, 'optimizer.learning_rate' and so on;
      keys that are absent come from the config.
    rate: factor on the learning rate (schedule, plateau), may be traced.

  Returns:
    A transformation whose state does not depend on the values in `hyper`.
  """

  def value(key):
    return hyper.get(f'optimizer.{key}', config[key])

  parts = []
  if config.clip_norm:
    parts.append(_clip(value('clip_norm')))
  decays = config.weight_decay or 'optimizer.weight_decay' in hyper
  if decays and config.name != 'adamw':
    parts.append(optax.add_decayed_weights(value('weight_decay')))
  if config.name == 'sgd':
    if config.momentum:
      parts.append(optax.trace(config.momentum))
  else:
    parts.append(
      optax.scale_by_adam(b1=config.b1, b2=config.b2, eps=config.eps)
    )
  if decays and config.name == 'adamw':
    parts.append(optax.add_decayed_weights(value('weight_decay')))
  learning_rate = value('learning_rate') * rate
  parts.append(
    optax.stateless(
      lambda updates, _: jax.tree.map(lambda u: -learning_rate * u, updates)
    )
  )
  return optax.chain(*parts)


def _clip(max_norm):
  """Scales gradients to a global norm that may be traced."""

  def clip(updates, _):
    norm = optax.tree.norm(updates)
    factor = jnp.minimum(1.0, max_norm / jnp.maximum(norm, 1e-12))
    return jax.tree.map(lambda u: u * factor, updates)

  return optax.stateless(clip)
