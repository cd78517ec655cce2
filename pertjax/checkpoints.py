"""Saves and restores states; the only importer of orbax.

A checkpoint is written under a temporary name and renamed, so that a kill at
any moment leaves either the whole of it or none. One that cannot be read is
skipped with a line that says so.
"""

from __future__ import annotations

import pathlib
import shutil
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

_TEMPORARY = '.orbax-checkpoint-tmp'


def _abstract(tree: Any) -> Any:
  """Turns arrays (or shapes) into restore targets on the default device."""
  sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree
  )


def save(folder: pathlib.Path, step: int, state: Any, meta: dict, keep: int):
  """Writes a checkpoint and removes all but the newest `keep`.

  Args:
    folder: of the run's checkpoints.
    step: its number.
    state: pytree of arrays.
    meta: JSON values that go with it.
    keep: how many to keep.

  Raises:
    OSError: if it cannot be written; older checkpoints are untouched.
  """
  target = folder.resolve() / str(step)
  try:
    folder.mkdir(parents=True, exist_ok=True)
    with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as checkpointer:
      checkpointer.save(
        target,
        args=ocp.args.Composite(
          state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(meta)
        ),
        force=True,
      )
  except Exception as error:
    raise OSError(
      f'could not save the checkpoint {target}: {error}. Older checkpoints in '
      f'{folder} are untouched; free some space and start again to resume'
    ) from error
  for old in steps(folder)[:-keep]:
    shutil.rmtree(folder / str(old))


def steps(folder: pathlib.Path) -> list[int]:
  """Returns the numbers of the finished checkpoints, oldest first."""
  if not folder.is_dir():
    return []
  return sorted(int(p.name) for p in folder.iterdir() if p.name.isdigit())


def restore(
  folder: pathlib.Path, step: int, abstract: Any
) -> tuple[Any, dict[str, Any]]:
  """Reads one checkpoint.

  Args:
    folder: of the run's checkpoints.
    step: its number.
    abstract: the state's shapes, as jax.eval_shape returns them.

  Returns:
    (state, meta).

  Raises:
    ValueError: if it is not there, naming those that are.
  """
  if step not in steps(folder):
    raise ValueError(
      f'no checkpoint {step} in {folder}; there are {steps(folder)}'
    )
  with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as checkpointer:
    found = checkpointer.restore(
      folder.resolve() / str(step),
      args=ocp.args.Composite(
        state=ocp.args.StandardRestore(_abstract(abstract)),
        meta=ocp.args.JsonRestore(),
      ),
    )
  return found.state, found.meta


def restore_latest(
  folder: pathlib.Path, abstract: Any, say: Callable[[str], None]
) -> tuple[Any, dict[str, Any]] | None:
  """Reads the newest checkpoint that can be read.

  Args:
    folder: of the run's checkpoints.
    abstract: the state's shapes.
    say: takes a line for the user about each one that was skipped.

  Returns:
    (state, meta), or None where there is none.
  """
  if folder.is_dir():
    for path in sorted(folder.iterdir()):
      if _TEMPORARY in path.name:
        say(f'skipping the half-written checkpoint {path.name}')
        shutil.rmtree(path)
  for step in reversed(steps(folder)):
    try:
      return restore(folder, step, abstract)
    # Whatever is wrong with the files: an older checkpoint is better than
    # none, and the line below says what happened.
    except Exception as error:  # noqa: BLE001
      reason = str(error).strip().splitlines()[0][:200]
      say(f'skipping checkpoint {step}, which cannot be read: {reason}')
  return None


def num_parameters(params: Any) -> int:
  """Counts the numbers in a pytree of one member."""
  return sum(int(np.prod(x.shape)) for x in jax.tree.leaves(params))
