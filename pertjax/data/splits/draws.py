"""Draws by keyed hashes: the same on every machine, in any order of rows.

Names are sorted by the SHA-256 of (seed, method and purpose, name); the first
ones are tested, the last ones validate, the rest trains. So a split does not
depend on Python's own hashing either, and a condition that is added or dropped
moves few of the others.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from pertjax import types


def make_scope(seed: int, purpose: str) -> str:
  """Returns what is hashed before a name: no two draws share one."""
  return f'pertjax split\x1f{seed}\x1f{purpose}\x1f'


def ranked(names: Iterable[str], scope: str) -> list[str]:
  """Sorts names by their keyed hash."""
  return sorted(names, key=lambda name: (_digest(scope + name), name))


def _digest(text: str) -> bytes:
  return hashlib.sha256(text.encode('utf-8')).digest()


def token_key(tokens: Sequence[str]) -> str:
  """Names a set of perturbations; a name may itself contain '+'."""
  return '\x1e'.join(tokens)


def hold_out(
  names: Mapping[str, Any],
  val_fraction: float,
  test_fraction: float,
  scope: str,
  what: str,
  required: bool = True,
) -> dict[Any, int]:
  """Draws {value: VAL or TEST}; fractions are rounded to the nearest count."""
  total = len(names)
  num_test = int(total * test_fraction + 0.5)
  num_val = min(int(total * val_fraction + 0.5), total - num_test)
  for key, fraction, count in (
    ('val_fraction', val_fraction, num_val),
    ('test_fraction', test_fraction, num_test),
  ):
    if required and fraction and not count:
      hint = f'{0.5 / total:.3g} gives one' if total > 1 else 'too few'
      raise ValueError(
        f'split: {key}={fraction:.3g} of {total} {what} holds out none; {hint}'
      )
  order = ranked(names, scope)
  held = {names[name]: types.TEST for name in order[:num_test]}
  tail = order[total - num_val :]
  return held | {names[name]: types.VAL for name in tail}


def divide(
  stratum: np.ndarray,
  names: np.ndarray,
  units: np.ndarray | None,
  shares: Sequence[float],
  scope: str,
) -> np.ndarray:
  """Divides the cells of every stratum, units whole; int8 [cells]."""
  blocks, block = make_blocks(names, units)
  # A unit of several strata counts in the first of them.
  home = np.full(len(blocks), np.iinfo(np.int64).max)
  np.minimum.at(home, block, stratum)
  return _stratified(home, blocks, shares, scope)[block]


def make_blocks(
  names: np.ndarray, units: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
  """Returns names of what must stay together, and the block of each cell."""
  if units is None:
    return names, np.arange(len(names))
  # A unit cannot be mistaken for the cell of that name.
  keys = np.where(
    units == '',
    np.char.add('cell\x1f', names),
    np.char.add('unit\x1f', units),
  )
  blocks, block = np.unique(keys, return_inverse=True)
  return blocks, block.reshape(-1)


def _stratified(
  stratum: np.ndarray, names: np.ndarray, shares: Sequence[float], scope: str
) -> np.ndarray:
  """Divides the blocks of every stratum by their keyed hashes.

  Args:
    stratum: int [blocks].
    names: [blocks].
    shares: of train, val and test.
    scope: see `make_scope`.

  Returns:
    int8 [blocks].
  """
  prefix = hashlib.sha256(scope.encode('utf-8'))
  hashes = np.empty(len(names), np.uint64)
  for i, name in enumerate(names.tolist()):
    state = prefix.copy()
    state.update(name.encode('utf-8'))
    hashes[i] = int.from_bytes(state.digest()[:8], 'big')
  order = np.lexsort((names, hashes, stratum))
  strata, starts = np.unique(stratum[order], return_index=True)
  codes = np.full(len(names), types.TRAIN, np.int8)
  ends = np.append(starts[1:], len(order))
  for start, end in zip(starts.tolist(), ends.tolist()):
    _, num_val, num_test = allocate(end - start, shares)
    codes[order[start : start + num_test]] = types.TEST
    codes[order[end - num_val : end]] = types.VAL
  return codes


def allocate(count: int, shares: Sequence[float]) -> tuple[int, int, int]:
  """Shares a count among train, val and test by largest remainders.

  Each split with a share gets at least one where the count allows; where it
  does not, train goes before test and test before val.

  Args:
    count: how many there are.
    shares: three non-negative numbers that sum to 1.
  """
  wanting = [k for k in (0, 2, 1) if shares[k] > 0]
  got = [0, 0, 0]
  if count <= len(wanting):
    for k in wanting[:count]:
      got[k] = 1
    return tuple(got)
  exact = [count * share for share in shares]
  # 1e-9: 10 * (0.6 / 1) must not fall below 6.
  got = [int(value + 1e-9) for value in exact]
  rest = sorted(wanting, key=lambda k: got[k] - exact[k])
  for k in rest[: count - sum(got)]:
    got[k] += 1
  for k in wanting:
    if not got[k]:
      got[k] += 1
      got[got.index(max(got))] -= 1
  return tuple(got)
