"""The splitter that holds perturbations out of some of their groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pertjax import names as name_lib
from pertjax import types
from pertjax.data.splits import controls, draws, problem, settings


def place_transfer(
  cells: problem.Cells, method: str, seed: int, opts: Mapping[str, Any]
) -> problem.Placed:
  """Holds perturbations out of some of their groups, or groups by name."""
  if cells.shape[1] < 2:
    raise ValueError(
      f'split transfer: there is one group only, {cells.group_names[0]!r}; '
      "name a covariate with several levels, or use 'conditions' or 'cells'"
    )
  for key in ('groups', 'test_groups', 'val_groups'):
    for name in opts[key]:
      if name not in cells.group_names:
        raise ValueError(
          name_lib.unknown(f'{key} of split', name, cells.group_names)
        )
  if opts['test_groups'] or opts['val_groups']:
    return _place_groups(cells, method, seed, opts)
  table, notes = _random_pairs(cells, method, seed, opts)
  codes = table[cells.condition, cells.group]
  codes = controls.divided(cells, codes, seed, opts)
  return problem.Placed(codes, tuple(notes), (opts['seen'], 'train'))


def _place_groups(
  cells: problem.Cells, method: str, seed: int, opts: Mapping[str, Any]
) -> problem.Placed:
  """Holds out every perturbed cell of the groups that are named."""
  for key in (*settings.FRACTIONS, 'max_groups', 'min_train_groups', 'groups'):
    if opts[key] != settings.DEFAULTS['transfer'][key]:
      raise ValueError(
        f'split transfer: {key}={opts[key]!r} has no use beside test_groups, '
        'which hold out whole groups'
      )
  both = [g for g in opts['test_groups'] if g in opts['val_groups']]
  if both or not opts['test_groups']:
    raise ValueError(
      f'split transfer: test_groups={tuple(opts["test_groups"])} must name a '
      f'group, and none of val_groups={tuple(opts["val_groups"])}'
    )
  codes = np.full(len(cells.group), types.TRAIN, np.int8)
  for key, code in (('val_groups', types.VAL), ('test_groups', types.TEST)):
    held = [cells.group_names.index(name) for name in opts[key]]
    codes[np.isin(cells.group, held)] = code
  share, units, lacks = opts['val_cells'], opts['units'], ()
  if not opts['val_groups']:
    rows = np.flatnonzero((codes == types.TRAIN) & (cells.condition > 0))
    codes[rows] = draws.divide(
      cells.pair[rows],
      cells.names[rows],
      None if units is None else units[rows],
      (1 - share, share, 0),
      draws.make_scope(seed, method),
    )
    lacks = () if share else (types.VAL,)
  codes = controls.divided(cells, codes, seed, opts)
  return problem.Placed(codes, (), (opts['seen'], 'train'), may_lack=lacks)


def _random_pairs(
  cells: problem.Cells, method: str, seed: int, opts: Mapping[str, Any]
) -> tuple[np.ndarray, list[str]]:
  """Makes int8 [conditions, groups] with perturbations out of some groups."""
  tokens = list(problem.token_sizes(cells))
  number = {t: i for i, t in enumerate(tokens)}
  unit = np.array([number.get(t, -1) for t in cells.conditions.tokens])
  sizes = np.zeros((len(tokens), cells.shape[1]), np.int64)
  np.add.at(sizes, unit[unit >= 0], cells.counts[unit >= 0])
  spare = (sizes > 0).sum(1) - opts['min_train_groups']
  needed = sum(share > 0 for share in opts['control_fractions'])
  wanted = [
    not opts['groups'] or g in opts['groups'] for g in cells.group_names
  ]
  movable = (sizes >= max(1, opts['min_cells'])) & (spare > 0)[:, None]
  movable &= np.array(wanted) & (cells.counts[0] >= needed)
  quotas = {
    code: np.floor(movable.sum(0) * opts[key] + 0.5)
    for code, key in (
      (types.TEST, 'test_fraction'),
      (types.VAL, 'val_fraction'),
    )
  }
  names = {
    f'{draws.token_key(tokens[i])}\x1f{cells.group_names[g]}': (i, g)
    for i, g in np.argwhere(movable).tolist()
  }
  order = [
    names[name] for name in draws.ranked(names, draws.make_scope(seed, method))
  ]
  table, left = _fill(
    order, np.minimum(spare, opts['max_groups']), quotas, sizes
  )
  limits = ', '.join(
    f'{key}={opts[key]}'
    for key in ('max_groups', 'min_train_groups', 'min_cells')
  )
  for code, key in ((types.TEST, 'test_fraction'), (types.VAL, 'val_fraction')):
    if opts[key] and not (table == code).any():
      raise ValueError(
        f'split transfer: {key}={opts[key]} of {_span(movable.sum(0))} pairs '
        f'that a group may lose holds out none ({limits}); test_groups holds '
        'out whole groups'
      )
  notes = []
  if left:
    notes.append(
      f'{left} pairs fewer than asked for are held out; {limits} allow no more'
    )
  poor = cells.counts[0] < needed
  if poor.any():
    few = [cells.group_names[g] for g in np.flatnonzero(poor)]
    notes.append(
      f'groups with too few controls lose no pair: '
      f'{name_lib.listing(few, quoted=False)}'
    )
  full = np.full(cells.shape, types.TRAIN, np.int8)
  full[unit >= 0] = table[unit[unit >= 0]]
  return full, notes


def _fill(
  order: Sequence[tuple[int, int]],
  spare: np.ndarray,
  quotas: Mapping[int, np.ndarray],
  sizes: np.ndarray,
) -> tuple[np.ndarray, int]:
  """Holds pairs out in turn until the quotas of their groups are full.

  Args:
    order: (perturbations, group) pairs.
    spare: [perturbations] groups that each may lose.
    quotas: {split: pairs wanted [groups]}.
    sizes: [perturbations, groups]; for its shape.

  Returns:
    int8 [perturbations, groups], and how many pairs are missing.
  """
  table = np.full(sizes.shape, types.TRAIN, np.int8)
  spare = spare.copy()
  left = {code: quota.copy() for code, quota in quotas.items()}
  for i, g in order:
    # The split that is furthest from its quota in this group; test on ties.
    code = max(left, key=lambda c: left[c][g] / max(quotas[c][g], 1))
    if spare[i] > 0 and left[code][g] > 0:
      table[i, g] = code
      spare[i] -= 1
      left[code][g] -= 1
  return table, int(sum(count.sum() for count in left.values()))


def _span(counts: np.ndarray) -> str:
  low, high = int(counts.min()), int(counts.max())
  return str(low) if low == high else f'{low} to {high}'
