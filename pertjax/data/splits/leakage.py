"""The audit: what is tested must be out of reach of what is trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pertjax import names as name_lib
from pertjax import types
from pertjax.data.splits import controls, labelling, problem


def audit(
  split: types.Split,
  conditions: types.Conditions,
  condition: np.ndarray,
  group: np.ndarray,
  cell_names: np.ndarray,
  *,
  group_names: Sequence[str] | None = None,
  rule: tuple[str, str] | None = None,
  units: Sequence[str] | None = None,
) -> None:
  """Raises unless a split keeps what it tests away from what it trains on.

  Checked: cell names are unique; conditions are canonical, so that `A+B` and
  `B+A` cannot be on two sides; no held-out pair has cells in training or in
  the other held-out split, but where the method is of cells; every group with
  held-out pairs has controls in training and, unless all controls train, in
  that split; regimes are those that the training set gives; no unit
  straddles splits.

  Args:
    split: the split.
    conditions: see types.Conditions.
    condition: int [cells].
    group: int [cells].
    cell_names: [cells].
    group_names: for messages; numbers stand in for them.
    rule: one of labelling.RULES that regimes must follow; without it, one of
      them must explain them all.
    units: [cells] donors, guides or replicates that must be on one side each;
      '' for none.

  Raises:
    LeakageError: names what leaks.
    ValueError: for arrays of different lengths or codes out of range.
  """
  if group_names is None:
    count = int(np.max(group, initial=0)) + 1
    group_names = [f'group {g}' for g in range(count)]
  cells = problem.make_cells(
    conditions, condition, group, group_names, cell_names
  )
  codes = np.asarray(split.cells)
  if codes.shape != cells.condition.shape:
    raise ValueError(
      f'audit: the split has {codes.shape} cells, the data '
      f'{cells.condition.shape}'
    )
  bad = sorted(set(np.unique(codes).tolist()) - set(problem.NAMES))
  if bad:
    raise ValueError(
      f'audit: split codes {bad} are none of {sorted(problem.NAMES)}'
    )
  _audit_conditions(conditions)
  _audit_pairs(split, cells)
  lacking = controls.without(codes, cells)
  if lacking:
    raise problem.LeakageError(
      'audit: held-out pairs have no control of their own split to be '
      f'predicted from: {controls.describe(lacking, cells)}'
    )
  _audit_regimes(split, cells, rule)
  if units is not None:
    _audit_units(codes, np.asarray(units, dtype=str))


def _audit_conditions(conditions: types.Conditions) -> None:
  """Raises if two conditions are one, or a name hides another order."""
  first: dict[Any, str] = {}
  for name, tokens, doses in zip(
    conditions.names, conditions.tokens, conditions.doses
  ):
    key = tuple(sorted(zip(tokens, doses)))
    if key in first:
      raise problem.LeakageError(
        f'audit: conditions {first[key]!r} and {name!r} are the same '
        'perturbations; as two they could be on both sides of a split'
      )
    first[key] = name
  for name, tokens in zip(conditions.names, conditions.tokens):
    if tuple(sorted(tokens)) != tuple(tokens):
      raise problem.LeakageError(
        f'audit: condition {name!r} is not in sorted order'
      )


def _audit_pairs(split: types.Split, cells: problem.Cells) -> None:
  """Raises if a pair has cells on two sides of a condition-level split."""
  tables = cells.tables(split.cells)
  train, val, test = (tables[c] for c in (types.TRAIN, types.VAL, types.TEST))
  if split.method in ('cells', 'csv'):
    return
  for one, other, table in (
    ('test', 'train', test & train),
    ('val', 'train', val & train),
    ('test', 'val', test & val),
  ):
    # 'transfer' with whole groups may validate on cells of training pairs.
    if split.method == 'transfer' and (one, other) == ('val', 'train'):
      continue
    pairs = [pair for pair in np.argwhere(table).tolist() if pair[0]]
    # 'sena' tests cells of single perturbations that train, as published.
    if split.method == 'sena' and (one, other) == ('test', 'train'):
      tokens = cells.conditions.tokens
      pairs = [pair for pair in pairs if len(tokens[pair[0]]) > 1]
    if pairs:
      raise problem.LeakageError(
        f'audit: {len(pairs)} pairs have cells in {one} and in {other}: '
        f'{problem.pair_names(pairs, cells)}'
      )


def _audit_regimes(
  split: types.Split, cells: problem.Cells, rule: tuple[str, str] | None
) -> None:
  """Raises unless the labels are those that the training set gives."""
  best = None
  for seen, reference in labelling.RULES if rule is None else (rule,):
    true = labelling.label(
      split.cells,
      cells.conditions,
      cells.condition,
      cells.group,
      seen=seen,
      reference=reference,
    )
    pairs = sorted(true.keys() | split.regimes.keys())
    wrong = [p for p in pairs if true.get(p) != split.regimes.get(p)]
    if not wrong:
      return
    if best is None or len(wrong) < len(best[0]):
      best = wrong, true
  wrong, true = best
  details = [
    f'{problem.pair_name(pair, cells)} is labelled '
    f'{split.regimes.get(pair, "nothing")} but is '
    f'{true.get(pair, "not held out")}'
    for pair in wrong
  ]
  raise problem.LeakageError(
    f'audit: {len(wrong)} regimes do not fit the training set: '
    f'{name_lib.listing(details, quoted=False)}'
  )


def _audit_units(codes: np.ndarray, units: np.ndarray) -> None:
  """Raises if a unit has cells in two splits."""
  used = (codes != types.EXCLUDED) & (units != '')
  pairs = np.unique(
    np.stack([units[used], codes[used].astype(str)], axis=1), axis=0
  )
  names, counts = np.unique(pairs[:, 0], return_counts=True)
  bad = names[counts > 1].tolist()
  if bad:
    raise problem.LeakageError(
      f'audit: {len(bad)} units have cells in more than one split: '
      f"{name_lib.listing(bad, quoted=False)}; method 'cells' with `units` "
      'divides whole units'
    )
