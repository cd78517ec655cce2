"""Saves and restores states; the only importer of orbax.

A checkpoint is a folder: `state/`, the arrays, and `manifest.json`, which names
them and holds the size and the checksum of every file. It is written under a
temporary name and renamed, so that a kill at any moment leaves either the whole
of it or none. One that was damaged later is skipped with a line that says so.
"""

from __future__ import annotations

import json
import pathlib
import shutil
import zlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from pertjax import files, names

_TEMPORARY = '.tmp'
_MANIFEST = 'manifest.json'
_BLOCK = 1 << 22


def save(folder: pathlib.Path, step: int, state: Any, meta: dict, keep: int):
  """Writes a checkpoint and removes all but the newest `keep`.

  Checkpoints of later steps are removed as well: they can only be damaged ones
  that this run went past.

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
  temporary = target.with_name(f'{step}{_TEMPORARY}')
  try:
    _remove(temporary)
    temporary.mkdir(parents=True)
    with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as checkpointer:
      checkpointer.save(
        temporary / 'state', args=ocp.args.StandardSave(_stored(state))
      )
    manifest = {
      'meta': meta,
      'arrays': _describe(state),
      'files': {
        path.relative_to(temporary).as_posix(): _fingerprint(path)
        for path in sorted(temporary.rglob('*'))
        if path.is_file()
      },
    }
    files.write_text(temporary / _MANIFEST, json.dumps(manifest, indent=1))
    _remove(target)
    temporary.replace(target)
  except Exception as error:
    shutil.rmtree(temporary, ignore_errors=True)
    raise OSError(
      f'could not save the checkpoint {target}: {error}. Older checkpoints in '
      f'{folder} are untouched; free space if there is none, and start again '
      'to resume'
    ) from error
  there = steps(folder)
  kept = [s for s in there if s <= step][-keep:]
  for old in set(there) - set(kept):
    shutil.rmtree(folder / str(old))


def _remove(folder: pathlib.Path) -> None:
  if folder.exists():
    shutil.rmtree(folder)


def _stored(tree: Any) -> dict[str, Any]:
  """Returns the arrays by number; orbax cannot store those without entries."""
  leaves = jax.tree.leaves(tree)
  return {f'{i:05d}': x for i, x in enumerate(leaves) if np.prod(x.shape)}


def _describe(tree: Any) -> dict[str, str]:
  """Returns {path: 'type[shape]'} of every array of a tree."""
  return {
    jax.tree_util.keystr(path): f'{x.dtype}{list(x.shape)}'
    for path, x in jax.tree_util.tree_leaves_with_path(tree)
  }


def _fingerprint(path: pathlib.Path) -> list[int]:
  """Returns [size, CRC-32] of a file."""
  size, code = 0, 0
  with path.open('rb') as file:
    while block := file.read(_BLOCK):
      size += len(block)
      code = zlib.crc32(block, code)
  return [size, code]


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
    ValueError: if it is not there, naming those that are, or holds arrays of
      other names, shapes or types.
    OSError: if a file of it is missing or not as it was written.
  """
  if step not in steps(folder):
    raise ValueError(
      f'no checkpoint {step} in {folder}; there are {steps(folder)}'
    )
  path = folder.resolve() / str(step)
  manifest = _checked_manifest(path)
  _check_arrays(manifest['arrays'], _describe(abstract), path)
  sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  wanted = {
    name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)
    for name, x in _stored(abstract).items()
  }
  with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as checkpointer:
    found = checkpointer.restore(
      path / 'state', args=ocp.args.StandardRestore(wanted)
    )
  leaves, tree = jax.tree.flatten(abstract)
  state = [
    found[f'{i:05d}'] if f'{i:05d}' in found else jnp.zeros(x.shape, x.dtype)
    for i, x in enumerate(leaves)
  ]
  return jax.tree.unflatten(tree, state), manifest['meta']


def _checked_manifest(path: pathlib.Path) -> dict[str, Any]:
  """Reads the manifest; raises OSError unless every file is as it was."""
  try:
    manifest = json.loads((path / _MANIFEST).read_text(encoding='utf-8'))
  except (OSError, ValueError) as error:
    raise OSError(f'{_MANIFEST} cannot be read: {error}') from error
  for name, (size, code) in manifest['files'].items():
    file = path / name
    if not file.is_file():
      raise OSError(f'{name} is missing')
    found = _fingerprint(file)
    if found[0] != size:
      raise OSError(f'{name} has {found[0]:,} bytes instead of {size:,}')
    if found[1] != code:
      raise OSError(f'{name} is not as it was written (checksum)')
  return manifest


def _check_arrays(found, wanted, path) -> None:
  """Raises ValueError unless the arrays are those that the program has."""
  if found == wanted:
    return
  differing = [
    f'{name} is {found.get(name, "absent")}, expected '
    f'{wanted.get(name, "none of that name")}'
    for name in sorted({*found, *wanted})
    if found.get(name) != wanted.get(name)
  ]
  raise ValueError(
    f'the checkpoint {path} is of another program: '
    f'{names.listing(differing, 3, quoted=False)}'
  )


def restore_latest(
  folder: pathlib.Path, abstract: Any, say: Callable[[str], None]
) -> tuple[Any, dict[str, Any]] | None:
  """Reads the newest checkpoint that is whole.

  Args:
    folder: of the run's checkpoints.
    abstract: the state's shapes.
    say: takes a line for the user about each one that was skipped.

  Returns:
    (state, meta), or None where there is none.

  Raises:
    ValueError: as restore: what fits no longer is not silently trained anew.
  """
  if folder.is_dir():
    for path in sorted(folder.iterdir()):
      if _TEMPORARY in path.name:
        say(f'skipping the half-written checkpoint {path.name}')
        shutil.rmtree(path)
  for step in reversed(steps(folder)):
    try:
      return restore(folder, step, abstract)
    except OSError as error:
      say(f'skipping checkpoint {step}, which is damaged: {error}')
  return None


def num_parameters(params: Any) -> int:
  """Counts the numbers in a pytree of one member."""
  return sum(int(np.prod(x.shape)) for x in jax.tree.leaves(params))
