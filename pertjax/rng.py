"""Every random number is a function of (root key, stream, step)."""

from __future__ import annotations

import jax

# Streams are numbered for ever: a changed number changes every published run.
INIT = 0
BATCH = 1
LOSS = 2
VALIDATION = 3
FIT = 4
PREDICT = 5
BOOTSTRAP = 6
EPOCH = 7


def root(seed: int) -> jax.Array:
  """Returns the root key of a seed."""
  return jax.random.key(seed)


def stream(key: jax.Array, name: int, step: int | jax.Array = 0) -> jax.Array:
  """Returns the key of one stream at one step.

  Args:
    key: a root key.
    name: one of this module's constants.
    step: a non-negative integer, may be traced.
  """
  return jax.random.fold_in(jax.random.fold_in(key, name), step)
