"""What a splitter is given, and what it answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from pertjax import names as name_lib
from pertjax import types

NAMES = {
  types.TRAIN: 'train',
  types.VAL: 'val',
  types.TEST: 'test',
  types.EXCLUDED: 'excluded',
}
CODES = {name: code for code, name in NAMES.items()}


class LeakageError(ValueError):
  """A split lets a model learn from what it will be tested on."""


class Cells(NamedTuple):
  """The cells to be split; fields as in `splits.make`."""

  conditions: types.Conditions
  condition: np.ndarray
  group: np.ndarray
  group_names: tuple[str, ...]
  names: np.ndarray

  @property
  def shape(self) -> tuple[int, int]:
    return len(self.conditions.names), len(self.group_names)

  @property
  def pair(self) -> np.ndarray:
    """int64 [cells] number of each cell's (condition, group) pair."""
    return self.condition.astype(np.int64) * self.shape[1] + self.group

  @property
  def counts(self) -> np.ndarray:
    """int [conditions, groups] cells."""
    return count(self.condition, self.group, self.shape)

  def tables(self, codes: np.ndarray) -> dict[int, np.ndarray]:
    """See `tables`; codes: int8 [cells]."""
    return tables(codes, self.condition, self.group, self.shape)


class Placed(NamedTuple):
  """A splitter's answer: codes of the cells, and what to know about them.

  Attributes:
    cells: int8 [cells]; TRAIN, VAL, TEST or EXCLUDED.
    notes: lines that a user should read.
    rule: one of labelling.RULES, by which the regimes are named; None where
      `regimes` are given and any of them may explain them.
    regimes: of the held-out pairs, where the splitter knows them.
    original: {condition: regime} as an original's splitter reports it.
    may_lack: splits that need not have a perturbed cell.
  """

  cells: np.ndarray
  notes: tuple[str, ...] = ()
  rule: tuple[str, str] | None = ('singles', 'train')
  regimes: dict[tuple[int, int], str] | None = None
  original: Mapping[int, str] = {}  # noqa: RUF012 - never mutated.
  may_lack: tuple[int, ...] = ()


def make_cells(
  conditions: types.Conditions,
  condition: np.ndarray,
  group: np.ndarray,
  group_names: Sequence[str],
  cell_names: np.ndarray,
) -> Cells:
  """Checks that the arrays belong together."""
  condition, group = np.asarray(condition), np.asarray(group)
  names = np.asarray(cell_names)
  if names.dtype.kind != 'U':
    names = names.astype(str)
  if not (condition.shape == group.shape == names.shape == (len(names),)):
    raise ValueError(
      f'split: condition {condition.shape}, group {group.shape} and '
      f'cell_names {names.shape} differ in length'
    )
  for what, ids, known in (
    ('condition', condition, conditions.names),
    ('group', group, group_names),
  ):
    low, high = ids.min(initial=0), ids.max(initial=0)
    if low < 0 or high >= len(known):
      raise ValueError(
        f'split: {what} has ids from {low} to {high}, but {len(known)} names'
      )
  unique, counts = np.unique(names, return_counts=True)
  if len(unique) < len(names):
    twice = unique[counts > 1].tolist()
    raise LeakageError(
      f'split: {len(twice)} cell names occur more than once, so a cell could '
      f'be on both sides: {name_lib.listing(twice, quoted=False)}'
    )
  return Cells(conditions, condition, group, tuple(group_names), names)


def token_sizes(cells: Cells) -> dict[tuple[str, ...], int]:
  """Counts the cells of each set of perturbations, doses together."""
  sizes: dict[tuple[str, ...], int] = {}
  counts = cells.counts.sum(1)
  for tokens, count in sorted(zip(cells.conditions.tokens, counts.tolist())):
    if tokens and count:
      sizes[tokens] = sizes.get(tokens, 0) + count
  return sizes


def count(
  condition: np.ndarray, group: np.ndarray, shape: tuple[int, int]
) -> np.ndarray:
  """Counts cells; int [conditions, groups]."""
  code = condition.astype(np.int64) * shape[1] + group
  return np.bincount(code, minlength=shape[0] * shape[1]).reshape(shape)


def tables(
  codes: np.ndarray,
  condition: np.ndarray,
  group: np.ndarray,
  shape: tuple[int, int],
) -> dict[int, np.ndarray]:
  """Makes {split: bool [conditions, groups]}: where the split has cells."""
  return {
    code: count(condition[codes == code], group[codes == code], shape) > 0
    for code in (types.TRAIN, types.VAL, types.TEST)
  }


def pair_name(pair: Sequence[int], cells: Cells) -> str:
  """Names a (condition, group) pair in a message."""
  c, g = pair
  names = cells.conditions.names
  if not (0 <= c < len(names) and 0 <= g < len(cells.group_names)):
    return f'pair {tuple(pair)}'
  return f'{names[c]} in {cells.group_names[g]}'


def pair_names(pairs: Sequence[Sequence[int]], cells: Cells) -> str:
  """Names pairs in a message; those past the first few are counted."""
  texts = [pair_name(pair, cells) for pair in pairs]
  return name_lib.listing(texts, quoted=False)
