"""Regimes of held-out pairs, and how many cells each has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pertjax import types
from pertjax.data.splits import problem

# What counts as seen, and of which cells: GEARS calls a perturbation seen by
# a test condition if training or validation has it.
RULES = tuple(
  (seen, reference)
  for reference in ('train', 'train_val')
  for seen in ('singles', 'any')
)


def label(
  codes: np.ndarray,
  conditions: types.Conditions,
  condition: np.ndarray,
  group: np.ndarray,
  *,
  seen: str = 'singles',
  reference: str = 'train',
) -> dict[tuple[int, int], str]:
  """Names the regime of every held-out pair; see the package's list.

  Args:
    codes: int8 [cells]; TRAIN, VAL, TEST or EXCLUDED.
    conditions: see types.Conditions.
    condition: int [cells].
    group: int [cells].
    seen: 'singles' or 'any'.
    reference: 'train', or 'train_val' to count what validates as seen by what
      is tested (GEARS).

  Returns:
    {(condition, group): regime}, in order.
  """
  num_groups = int(group.max(initial=0)) + 1
  shape = (len(conditions.names), num_groups)
  tables = problem.tables(codes, condition, group, shape)
  train, val, test = (tables[c] for c in (types.TRAIN, types.VAL, types.TEST))
  regimes: dict[tuple[int, int], str] = {}
  for held, wider in ((val, False), (test, reference == 'train_val')):
    known = train | val if wider else train
    regime = _condition_regimes(conditions, known, seen)
    for c, g in np.argwhere(held).tolist():
      if c == 0:
        continue
      if known[c, g]:
        regimes[c, g] = 'cells'
      elif known[c].any():
        regimes[c, g] = 'transfer'
      else:
        regimes[c, g] = regime(c)
  return dict(sorted(regimes.items()))


def _condition_regimes(
  conditions: types.Conditions, known: np.ndarray, seen: str
) -> Callable[[int], str]:
  """Makes the function that labels conditions outside `known`."""
  tokens = [conditions.tokens[c] for c in np.flatnonzero(known.any(1)) if c]
  sets = set(tokens)
  anywhere = {token for parts in tokens for token in parts}
  alone = {parts[0] for parts in tokens if len(parts) == 1}
  counted = alone if seen == 'singles' else anywhere

  def regime(c: int) -> str:
    parts = conditions.tokens[c]
    if parts in sets:
      return 'unseen_dose'
    if len(parts) == 1:
      return 'combo_only' if parts[0] in anywhere else 'unseen_single'
    return f'seen{sum(token in counted for token in parts)}'

  return regime


def summary(
  split: types.Split,
  *,
  conditions: types.Conditions,
  condition: np.ndarray,
  group: np.ndarray,
  group_names: Sequence[str],
) -> list[dict[str, Any]]:
  """Counts what is where, for tables.

  Returns:
    Rows with `group`, `split`, `regime`, `conditions` and `cells`. Every cell
    is in one row: controls under the regime 'control' (and no condition),
    perturbed cells that are not held out under ''.
  """
  shape = (len(conditions.names), len(group_names))
  held_out = sorted(set(split.regimes.values()))
  numbers = {r: i for i, r in enumerate(['', *held_out, 'control'])}
  kinds = np.zeros(shape, np.int64)
  for pair, regime in split.regimes.items():
    kinds[pair] = numbers[regime]
  tables = {
    code: problem.count(
      condition[split.cells == code], group[split.cells == code], shape
    )
    for code in problem.NAMES
  }
  rows = []
  for g, group_name in enumerate(group_names):
    for code, split_name in problem.NAMES.items():
      counts = tables[code][:, g]
      # Only what is held out has a regime.
      kind = kinds[:, g] if code in (types.VAL, types.TEST) else kinds[:, g] * 0
      kind = np.where(np.arange(shape[0]) == 0, numbers['control'], kind)
      for regime, number in numbers.items():
        part = counts[kind == number]
        if part.any():
          rows.append(
            {
              'group': group_name,
              'split': split_name,
              'regime': regime,
              'conditions': int((part > 0).sum()) * (regime != 'control'),
              'cells': int(part.sum()),
            }
          )
  return rows
