"""Which cells a model may learn from: splitters, their file and their audit.

Every draw is a rank under a keyed hash: names are sorted by the SHA-256 of
(seed, method and purpose, name), the first ones are tested, the last ones
validate, the rest trains. So a split is the same on every machine, does not
depend on the order of rows or on Python's own hashing, and a condition that is
added or dropped moves few of the others.

Regimes say what training shows of a held-out (condition, group) pair:

  cells          other cells of the same pair
  transfer       the condition, in other groups
  unseen_dose    the same perturbations at other doses
  combo_only     a single perturbation that trains in combinations only
  unseen_single  a single perturbation that trains nowhere
  seen0, seen1.. a combination of which so many perturbations are seen: with
                 `seen='singles'` they train alone, with 'any' they train in
                 whatever condition
"""

from __future__ import annotations

import csv
import dataclasses
import difflib
import hashlib
import io
import os
import pathlib
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from pertjax import types
from pertjax.data import splits_original

COLUMNS = ('cell', 'split', 'condition', 'group', 'regime')
_NAMES = {
  types.TRAIN: 'train',
  types.VAL: 'val',
  types.TEST: 'test',
  types.EXCLUDED: 'excluded',
}
_CODES = {name: code for code, name in _NAMES.items()}

# What counts as seen, and of which cells: GEARS calls a perturbation seen by
# a test condition if training or validation has it.
RULES = tuple(
  (seen, reference)
  for reference in ('train', 'train_val')
  for seen in ('singles', 'any')
)

_COMMON: Mapping[str, Any] = {
  # Train, val, test shares of each group's control cells.
  'control_fractions': (0.6, 0.2, 0.2),
  # 'error', or 'exclude' the held-out cells of groups without controls.
  'missing_controls': 'error',
  # [cells] donor, guide or replicate of each cell, '' for none: no unit may
  # then have cells in two splits.
  'units': None,
  # 'singles' or 'any': see the module's regimes.
  'seen': 'singles',
}
_FRACTIONS: Mapping[str, Any] = {
  # Shares of what the method holds out: combinations, perturbations, ...
  'val_fraction': 0.15,
  'test_fraction': 0.15,
  # Conditions (pairs, for 'transfer') with fewer cells are not held out.
  'min_cells': 1,
}
_PERTURBENCH: Mapping[str, Any] = {
  'max_heldout_fraction_per_covariate': 0.3,
  'max_heldout_perturbations_per_covariate': 200,
  'train_control_fraction': 0.5,
  'test_fraction': 0.5,
  'labels': None,
  **{key: _COMMON[key] for key in ('missing_controls', 'units', 'seen')},
}
_GEARS: Mapping[str, Any] = {
  'labels': None,
  # The originals train on every control: (1, 0, 0). See `make`.
  **{key: _COMMON[key] for key in _COMMON if key != 'seen'},
}
_GEARS_GENES: Mapping[str, Any] = {
  'train_gene_set_size': 0.75,
  'test_perts': (),
  'only_test_set_perts': False,
}
_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
  'combinations': {
    **_FRACTIONS,
    # Share of single perturbations that leave training, with every
    # combination that they are in: gives seen0, seen1 and unseen_single.
    'hold_out_singles': 0.0,
    **_COMMON,
  },
  'perturbations': {
    **_FRACTIONS,
    # 'hold_out' or 'exclude' the combinations of held-out perturbations.
    'combinations': 'hold_out',
    **_COMMON,
  },
  'transfer': {
    **_FRACTIONS,
    # Most groups held out per perturbation, fewest left to train.
    'max_groups': 1,
    'min_train_groups': 1,
    # Groups that may lose pairs; () for all.
    'groups': (),
    # Groups of which every perturbed cell is tested, or validates; the
    # fractions and limits above are then not used.
    'test_groups': (),
    'val_groups': (),
    # With `test_groups` alone: share of the cells of each training pair that
    # validate.
    'val_cells': 0.1,
    **_COMMON,
  },
  'cells': {**_FRACTIONS, **_COMMON},
  'conditions': {**_FRACTIONS, **_COMMON},
  'csv': {
    'path': '',
    # Column of a condition file that holds the group's name.
    'group_column': 'group',
    # 'error', or 'exclude' what the file or the data lacks, with a note.
    'missing': 'error',
    **_COMMON,
  },
  'perturbench_transfer': {
    'min_train_covariates': 1,
    'max_heldout_covariates': 1,
    'downsample_fraction': 1.0,
    **_PERTURBENCH,
  },
  'perturbench_combine': {'downsample_fraction': 1.0, **_PERTURBENCH},
  'perturbench_inverse': dict(_PERTURBENCH),
  'gears_simulation': {
    **_GEARS_GENES,
    'combo_seen2_train_frac': 0.75,
    **_GEARS,
  },
  'gears_simulation_single': {**_GEARS_GENES, **_GEARS},
  **{
    f'gears_{kind}': {
      'combo_single_split_test_set_fraction': 0.1,
      # A constant in the original; 'no_test' does not use it.
      'val_fraction': 0.1,
      **_GEARS,
    }
    for kind in splits_original.GEARS_LISTS
  },
}
METHODS = tuple(_DEFAULTS)


class LeakageError(ValueError):
  """A split lets a model learn from what it will be tested on."""


class _Cells(NamedTuple):
  """The cells to be split; fields as in `make`."""

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
    return _count(self.condition, self.group, self.shape)


class _Placed(NamedTuple):
  """A splitter's answer: codes of the cells, and what to know about them."""

  cells: np.ndarray
  notes: tuple[str, ...] = ()
  rule: tuple[str, str] | None = ('singles', 'train')
  regimes: dict[tuple[int, int], str] | None = None
  original: Mapping[int, str] = {}  # noqa: RUF012 - never mutated.
  may_lack: tuple[int, ...] = ()


def default_options(method: str) -> dict[str, Any]:
  """Returns the options of a method with their defaults.

  Raises:
    ValueError: for an unknown method; names the closest ones.
  """
  if method not in _DEFAULTS:
    raise ValueError(_unknown('split method', method, METHODS))
  return dict(_DEFAULTS[method])


def make(
  *,
  method: str,
  seed: int,
  conditions: types.Conditions,
  condition: np.ndarray,
  group: np.ndarray,
  group_names: Sequence[str],
  cell_names: np.ndarray,
  options: Mapping[str, Any] | None = None,
) -> types.Split:
  """Splits cells, labels the held-out pairs and audits the result.

  Methods: 'combinations' holds combinations out, 'perturbations' single
  perturbations with the combinations they are in, 'transfer' perturbations
  from some of their groups (or whole groups by name), 'conditions' any
  conditions, 'cells' cells of every pair; 'csv' reads a file;
  `perturbench_*` and `gears_*` are the originals of `splits_original`. All
  doses of the same perturbations are held out together, but by 'conditions',
  to which each dose is a condition of its own.

  The GEARS methods place conditions as GEARS does and label them as it does:
  a perturbation that went to validation still counts as seen by the test
  conditions. GEARS trains on all controls; here they are split by
  `control_fractions` unless that is (1, 0, 0).

  Args:
    method: one of METHODS.
    seed: a non-negative integer.
    conditions: see types.Conditions.
    condition: int32 [cells]; index into `conditions`, 0 for controls.
    group: int32 [cells]; index into `group_names`.
    group_names: [groups] display names of the covariate groups.
    cell_names: [cells] unique names.
    options: what differs from `default_options(method)`.

  Returns:
    The split; `sha256` is of `to_csv`'s text and does not depend on the order
    of the cells (the originals' splits do, as they did).

  Raises:
    LeakageError: if the split leaks; see `audit`.
    ValueError: for an unknown method or option, for data that the method
      cannot split, and for an empty val or test that was not asked for.
  """
  opts = _options(method, options)
  if not isinstance(seed, (int, np.integer)) or seed < 0:
    raise ValueError(f'split seed: {seed!r} is not a non-negative integer')
  cells = _make_cells(conditions, condition, group, group_names, cell_names)
  if opts['units'] is not None:
    opts['units'] = np.asarray(opts['units'], dtype=str)
    if opts['units'].shape != cells.names.shape:
      raise ValueError(
        f'split {method}: units has {opts["units"].size} entries for '
        f'{len(cells.names)} cells'
      )
  if not (cells.condition > 0).any():
    raise ValueError(
      f'split {method}: all {len(cells.condition)} cells are controls; there '
      'is no perturbed condition to split'
    )
  placed = _PLACERS[method.split('_')[0]](cells, method, int(seed), opts)
  codes, notes = _require_controls(cells, placed.cells, opts, method)
  _require_filled(codes[cells.condition > 0], placed, method, opts)
  regimes = placed.regimes
  if regimes is None:
    regimes = label(
      codes,
      cells.conditions,
      cells.condition,
      cells.group,
      seen=placed.rule[0],
      reference=placed.rule[1],
    )
  notes = (
    *placed.notes,
    *notes,
    *_original_notes(cells, placed, codes, regimes),
  )
  excluded = int((codes == types.EXCLUDED).sum())
  if excluded:
    notes = (*notes, f'{excluded} of {len(codes)} cells are in no split')
  split = types.Split(codes, regimes, method, '', notes)
  text = _text(split, cells)
  split = dataclasses.replace(split, sha256=_sha256(text))
  audit(
    split,
    cells.conditions,
    cells.condition,
    cells.group,
    cells.names,
    group_names=cells.group_names,
    rule=placed.rule,
    units=opts['units'],
  )
  return split


# Splitters.


def _place_combinations(
  cells: _Cells, method: str, seed: int, opts: Mapping[str, Any]
) -> _Placed:
  sizes = _token_sizes(cells)
  combos = [tokens for tokens in sizes if len(tokens) > 1]
  if not combos:
    raise ValueError(
      'split combinations: no condition has two or more perturbations; '
      "'perturbations', 'conditions', 'transfer' and 'cells' do not need any"
    )
  place, notes = {}, []
  total = opts['val_fraction'] + opts['test_fraction']
  if opts['hold_out_singles'] and total:
    singles, notes = _enough(sizes, opts, 'single perturbations', 1)
    share = opts['hold_out_singles'] / total
    held = _hold_out(
      {token: token for (token,) in singles},
      share * opts['val_fraction'],
      share * opts['test_fraction'],
      _scope(seed, f'{method}/singles'),
      'single perturbations (hold_out_singles, divided as val and test)',
    )
    place = _touching(sizes, held)
  free = {t: sizes[t] for t in combos if t not in place}
  enough, few = _enough(free, opts, 'combinations')
  if enough or not place:
    place |= _hold_out(
      {_key(t): t for t in enough},
      opts['val_fraction'],
      opts['test_fraction'],
      _scope(seed, f'{method}/combinations'),
      'combinations',
      required=not place,
    )
  return _by_condition(cells, seed, opts, place, [*notes, *few])


def _place_perturbations(
  cells: _Cells, method: str, seed: int, opts: Mapping[str, Any]
) -> _Placed:
  sizes = _token_sizes(cells)
  singles, notes = _enough(sizes, opts, 'single perturbations', 1)
  held = _hold_out(
    {token: token for (token,) in singles},
    opts['val_fraction'],
    opts['test_fraction'],
    _scope(seed, method),
    'single perturbations',
  )
  place = _touching(sizes, held)
  if opts['combinations'] == 'exclude':
    combos = [tokens for tokens in place if len(tokens) > 1]
    place |= dict.fromkeys(combos, types.EXCLUDED)
    if combos:
      notes.append(
        f'{len(combos)} combinations with held-out perturbations are excluded'
      )
  return _by_condition(cells, seed, opts, place, notes)


def _place_conditions(
  cells: _Cells, method: str, seed: int, opts: Mapping[str, Any]
) -> _Placed:
  sizes = cells.counts.sum(1)
  present = {c: sizes[c] for c in range(1, len(sizes)) if sizes[c]}
  enough, notes = _enough(present, opts, 'conditions')
  held = _hold_out(
    {cells.conditions.names[c]: c for c in enough},
    opts['val_fraction'],
    opts['test_fraction'],
    _scope(seed, method),
    'conditions',
  )
  table = np.full(len(sizes), types.TRAIN, np.int8)
  for c, code in held.items():
    table[c] = code
  codes = _with_controls(cells, table[cells.condition], seed, opts)
  return _Placed(codes, tuple(notes), (opts['seen'], 'train'))


def _place_cells(
  cells: _Cells, method: str, seed: int, opts: Mapping[str, Any]
) -> _Placed:
  shares, units, notes = _shares(opts), opts['units'], []
  blocks, block = _blocks(cells.names, units)
  pairs = np.unique(np.stack([block, cells.pair]), axis=1)
  if pairs.shape[1] > len(blocks):
    # Units such as donors have cells of many pairs: they are divided whole,
    # and the controls with them.
    stratum = np.zeros_like(cells.pair)
    codes = _divide(stratum, cells.names, units, shares, _scope(seed, method))
    return _Placed(codes, (), (opts['seen'], 'train'))
  codes = _divide(cells.pair, cells.names, units, shares, _scope(seed, method))
  sizes = np.bincount(pairs[1], minlength=np.prod(cells.shape))
  small = cells.counts.reshape(-1) < opts['min_cells']
  small |= sizes < sum(share > 0 for share in shares)
  # Controls have fractions of their own.
  small[: cells.shape[1]] = False
  codes[small[cells.pair]] = types.TRAIN
  few = int((small & (sizes > 0)).sum())
  if few:
    notes.append(f'{few} pairs have too few cells to divide: they all train')
  codes = _with_controls(cells, codes, seed, opts)
  return _Placed(codes, tuple(notes), (opts['seen'], 'train'))


def _place_transfer(
  cells: _Cells, method: str, seed: int, opts: Mapping[str, Any]
) -> _Placed:
  if cells.shape[1] < 2:
    raise ValueError(
      f'split transfer: there is one group only, {cells.group_names[0]!r}; '
      "name a covariate with several levels, or use 'conditions' or 'cells'"
    )
  for key in ('groups', 'test_groups', 'val_groups'):
    for name in opts[key]:
      if name not in cells.group_names:
        raise ValueError(_unknown(f'{key} of split', name, cells.group_names))
  if opts['test_groups'] or opts['val_groups']:
    return _place_groups(cells, method, seed, opts)
  table, notes = _random_pairs(cells, method, seed, opts)
  codes = table[cells.condition, cells.group]
  codes = _with_controls(cells, codes, seed, opts)
  return _Placed(codes, tuple(notes), (opts['seen'], 'train'))


def _place_groups(
  cells: _Cells, method: str, seed: int, opts: Mapping[str, Any]
) -> _Placed:
  """Holds out every perturbed cell of the groups that are named."""
  for key in (*_FRACTIONS, 'max_groups', 'min_train_groups', 'groups'):
    if opts[key] != _DEFAULTS['transfer'][key]:
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
    codes[rows] = _divide(
      cells.pair[rows],
      cells.names[rows],
      None if units is None else units[rows],
      (1 - share, share, 0),
      _scope(seed, method),
    )
    lacks = () if share else (types.VAL,)
  codes = _with_controls(cells, codes, seed, opts)
  return _Placed(codes, (), (opts['seen'], 'train'), may_lack=lacks)


def _random_pairs(
  cells: _Cells, method: str, seed: int, opts: Mapping[str, Any]
) -> tuple[np.ndarray, list[str]]:
  """Makes int8 [conditions, groups] with perturbations out of some groups."""
  tokens = list(_token_sizes(cells))
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
    f'{_key(tokens[i])}\x1f{cells.group_names[g]}': (i, g)
    for i, g in np.argwhere(movable).tolist()
  }
  order = [names[name] for name in _ranked(names, _scope(seed, method))]
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
    notes.append(f'groups with too few controls lose no pair: {_some(few)}')
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


def _place_perturbench(
  cells: _Cells, method: str, seed: int, opts: Mapping[str, Any]
) -> _Placed:
  placed = _original(cells, method, seed, opts)
  return _Placed(placed.cells, placed.notes, (opts['seen'], 'train'))


def _place_gears(
  cells: _Cells, method: str, seed: int, opts: Mapping[str, Any]
) -> _Placed:
  placed = _original(cells, method, seed, opts)
  lacks = (types.TEST,) if method == 'gears_no_test' else ()
  return _Placed(
    _with_controls(cells, placed.cells, seed, opts),
    placed.notes,
    ('any', 'train_val'),
    original=placed.regimes,
    may_lack=lacks,
  )


def _original(
  cells: _Cells, method: str, seed: int, opts: Mapping[str, Any]
) -> splits_original.Placed:
  """Runs an original's splitter with the options that it knows."""
  own = {key: value for key, value in opts.items() if key not in _COMMON}
  return splits_original.place(
    method,
    seed=seed,
    conditions=cells.conditions,
    condition=cells.condition,
    group=cells.group,
    group_names=cells.group_names,
    options=own,
  )


# What splitters share.


def _scope(seed: int, purpose: str) -> str:
  return f'pertjax split\x1f{seed}\x1f{purpose}\x1f'


def _ranked(names: Iterable[str], scope: str) -> list[str]:
  """Sorts names by their keyed hash."""
  return sorted(names, key=lambda name: (_digest(scope + name), name))


def _digest(text: str) -> bytes:
  return hashlib.sha256(text.encode('utf-8')).digest()


def _sha256(text: str) -> str:
  return hashlib.sha256(text.encode('utf-8')).hexdigest()


def _hold_out(
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
  order = _ranked(names, scope)
  held = {names[name]: types.TEST for name in order[:num_test]}
  tail = order[total - num_val :]
  return held | {names[name]: types.VAL for name in tail}


def _key(tokens: Sequence[str]) -> str:
  """Names a set of perturbations; a name may itself contain '+'."""
  return '\x1e'.join(tokens)


def _token_sizes(cells: _Cells) -> dict[tuple[str, ...], int]:
  """Counts the cells of each set of perturbations, doses together."""
  sizes: dict[tuple[str, ...], int] = {}
  counts = cells.counts.sum(1)
  for tokens, count in sorted(zip(cells.conditions.tokens, counts.tolist())):
    if tokens and count:
      sizes[tokens] = sizes.get(tokens, 0) + count
  return sizes


def _enough(
  sizes: Mapping[Any, int],
  opts: Mapping[str, Any],
  what: str,
  order: int | None = None,
) -> tuple[list[Any], list[str]]:
  """Lists what has `min_cells` cells, of one order if given, and a note."""
  pool = [x for x in sizes if order is None or len(x) == order]
  kept = [x for x in pool if sizes[x] >= opts['min_cells']]
  if len(kept) == len(pool):
    return kept, []
  note = (
    f'{len(pool) - len(kept)} {what} have fewer than '
    f'min_cells={opts["min_cells"]} cells and are not held out'
  )
  return kept, [note]


def _touching(
  sizes: Mapping[tuple[str, ...], int], held: Mapping[str, int]
) -> dict[tuple[str, ...], int]:
  """Holds out all that a held-out perturbation is in; test goes first."""
  place = {}
  for tokens in sizes:
    codes = [held[t] for t in tokens if t in held]
    if codes:
      place[tokens] = max(codes)  # TEST > VAL.
  return place


def _by_condition(
  cells: _Cells,
  seed: int,
  opts: Mapping[str, Any],
  place: Mapping[tuple[str, ...], int],
  notes: Sequence[str],
) -> _Placed:
  table = np.array(
    [place.get(t, types.TRAIN) for t in cells.conditions.tokens], np.int8
  )
  codes = _with_controls(cells, table[cells.condition], seed, opts)
  return _Placed(codes, tuple(notes), (opts['seen'], 'train'))


def _with_controls(
  cells: _Cells,
  codes: np.ndarray,
  seed: int,
  opts: Mapping[str, Any],
  rows: np.ndarray | None = None,
) -> np.ndarray:
  """Divides the control cells of every group; all methods do it alike."""
  if rows is None:
    rows = np.flatnonzero(cells.condition == 0)
  codes = codes.copy()
  codes[rows] = _divide(
    cells.group[rows],
    cells.names[rows],
    None if opts['units'] is None else opts['units'][rows],
    opts['control_fractions'],
    _scope(seed, 'controls'),
  )
  return codes


def _divide(
  stratum: np.ndarray,
  names: np.ndarray,
  units: np.ndarray | None,
  shares: Sequence[float],
  scope: str,
) -> np.ndarray:
  """Divides the cells of every stratum, units whole; int8 [cells]."""
  blocks, block = _blocks(names, units)
  # A unit of several strata counts in the first of them.
  home = np.full(len(blocks), np.iinfo(np.int64).max)
  np.minimum.at(home, block, stratum)
  return _stratified(home, blocks, shares, scope)[block]


def _blocks(
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
    scope: see `_scope`.

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


def _shares(opts: Mapping[str, Any]) -> tuple[float, float, float]:
  val, test = opts['val_fraction'], opts['test_fraction']
  return 1 - val - test, val, test


def _require_controls(
  cells: _Cells, codes: np.ndarray, opts: Mapping[str, Any], method: str
) -> tuple[np.ndarray, tuple[str, ...]]:
  """Sees to it that held-out pairs have controls to be predicted from."""
  lacking = _without_controls(codes, cells.condition, cells.group, cells.shape)
  if not lacking:
    return codes, ()
  if opts['missing_controls'] == 'error':
    raise ValueError(
      f'split {method}: {len(lacking)} groups have held-out cells but no '
      f'control cell to predict them from: {_lacking(lacking, cells)}. Merge '
      "covariates, or set missing_controls='exclude'"
    )
  codes, notes = codes.copy(), []
  for g, code, _ in lacking:
    rows = (cells.group == g) & (codes == code) & (cells.condition > 0)
    codes[rows] = types.EXCLUDED
    if rows.any():
      notes.append(
        f'{int(rows.sum())} {_NAMES[code]} cells of group '
        f'{cells.group_names[g]!r} are excluded: no control to predict from'
      )
  return codes, tuple(notes)


def _without_controls(
  codes: np.ndarray,
  condition: np.ndarray,
  group: np.ndarray,
  shape: tuple[int, int],
) -> list[tuple[int, int, str]]:
  """Lists (group, split, split that lacks controls) of held-out pairs."""
  tables = _tables(codes, condition, group, shape)
  # Where every control trains, predictions start from training controls.
  shared = not (tables[types.VAL][0].any() or tables[types.TEST][0].any())
  lacking = []
  for g in range(shape[1]):
    for code in (types.VAL, types.TEST):
      if not tables[code][1:, g].any():
        continue
      for source in (types.TRAIN,) if shared else (types.TRAIN, code):
        if not tables[source][0, g]:
          lacking.append((g, code, _NAMES[source]))
  return lacking


def _lacking(lacking: Sequence[tuple[int, int, str]], cells: _Cells) -> str:
  return _some(
    [f'{cells.group_names[g]!r} in {name}' for g, _, name in lacking]
  )


def _require_filled(
  codes: np.ndarray, placed: _Placed, method: str, opts: Mapping[str, Any]
) -> None:
  """Raises if no perturbed cell is in a split that should have some."""
  for code in (types.TRAIN, types.VAL, types.TEST):
    if (codes == code).any() or code in placed.may_lack:
      continue
    key = f'{_NAMES[code]}_fraction'
    if code != types.TRAIN and not opts.get(key, 1):
      continue
    given = {k: v for k, v in opts.items() if isinstance(v, float)}
    counts = {name: int((codes == c).sum()) for c, name in _NAMES.items()}
    raise ValueError(
      f'split {method}: no perturbed cell is in {_NAMES[code]} ({counts}, '
      f'options {given}); change the fractions or use another method'
    )


def _original_notes(
  cells: _Cells,
  placed: _Placed,
  codes: np.ndarray,
  regimes: Mapping[tuple[int, int], str],
) -> tuple[str, ...]:
  """Says where an original's label and the training set disagree."""
  if placed.rule != ('any', 'train_val'):
    return ()
  names = cells.conditions.names
  notes = []
  moved = sorted(
    {
      names[c]
      for (c, _), regime in regimes.items()
      if placed.original.get(c, regime) != regime
    }
  )
  if moved:
    notes.append(
      f'{len(moved)} conditions are not what GEARS calls them, because no cell '
      f'of a kept gene is in training or validation: {_some(moved)}'
    )
  strict = label(codes, cells.conditions, cells.condition, cells.group)
  loose = sorted(
    {names[c] for (c, g), r in regimes.items() if strict[c, g] != r}
  )
  if loose:
    notes.append(
      f'{len(loose)} conditions are labelled by the rule of GEARS, to which a '
      f'perturbation in validation is a seen one: {_some(loose)}'
    )
  return tuple(notes)


# Regimes and audit.


def label(
  codes: np.ndarray,
  conditions: types.Conditions,
  condition: np.ndarray,
  group: np.ndarray,
  *,
  seen: str = 'singles',
  reference: str = 'train',
) -> dict[tuple[int, int], str]:
  """Names the regime of every held-out pair; see the module's list.

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
  tables = _tables(codes, condition, group, shape)
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
    rule: one of RULES that regimes must follow; without it, one of them must
      explain them all.
    units: [cells] donors, guides or replicates that must be on one side each;
      '' for none.

  Raises:
    LeakageError: names what leaks.
    ValueError: for arrays of different lengths or codes out of range.
  """
  if group_names is None:
    count = int(np.max(group, initial=0)) + 1
    group_names = [f'group {g}' for g in range(count)]
  cells = _make_cells(conditions, condition, group, group_names, cell_names)
  codes = np.asarray(split.cells)
  if codes.shape != cells.condition.shape:
    raise ValueError(
      f'audit: the split has {codes.shape} cells, the data '
      f'{cells.condition.shape}'
    )
  bad = sorted(set(np.unique(codes).tolist()) - set(_NAMES))
  if bad:
    raise ValueError(f'audit: split codes {bad} are none of {sorted(_NAMES)}')
  _audit_conditions(conditions)
  _audit_pairs(split, cells)
  lacking = _without_controls(codes, cells.condition, cells.group, cells.shape)
  if lacking:
    raise LeakageError(
      'audit: held-out pairs have no control of their own split to be '
      f'predicted from: {_lacking(lacking, cells)}'
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
      raise LeakageError(
        f'audit: conditions {first[key]!r} and {name!r} are the same '
        'perturbations; as two they could be on both sides of a split'
      )
    first[key] = name
  for name, tokens in zip(conditions.names, conditions.tokens):
    if tuple(sorted(tokens)) != tuple(tokens):
      raise LeakageError(f'audit: condition {name!r} is not in sorted order')


def _audit_pairs(split: types.Split, cells: _Cells) -> None:
  """Raises if a pair has cells on two sides of a condition-level split."""
  tables = _tables(split.cells, cells.condition, cells.group, cells.shape)
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
    if pairs:
      raise LeakageError(
        f'audit: {len(pairs)} pairs have cells in {one} and in {other}: '
        f'{_pairs(pairs, cells)}'
      )


def _audit_regimes(
  split: types.Split, cells: _Cells, rule: tuple[str, str] | None
) -> None:
  """Raises unless the labels are those that the training set gives."""
  best = None
  for seen, reference in RULES if rule is None else (rule,):
    true = label(
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
  details = _some(
    [
      f'{_pair(pair, cells)} is labelled {split.regimes.get(pair, "nothing")} '
      f'but is {true.get(pair, "not held out")}'
      for pair in wrong
    ]
  )
  raise LeakageError(
    f'audit: {len(wrong)} regimes do not fit the training set: {details}'
  )


def _audit_units(codes: np.ndarray, units: np.ndarray) -> None:
  used = (codes != types.EXCLUDED) & (units != '')
  pairs = np.unique(
    np.stack([units[used], codes[used].astype(str)], axis=1), axis=0
  )
  names, counts = np.unique(pairs[:, 0], return_counts=True)
  bad = names[counts > 1].tolist()
  if bad:
    raise LeakageError(
      f'audit: {len(bad)} units have cells in more than one split: '
      f"{_some(bad)}; method 'cells' with `units` divides whole units"
    )


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
  numbers = {r: i for i, r in enumerate(['', *_regimes(split), 'control'])}
  kinds = np.zeros(shape, np.int64)
  for pair, regime in split.regimes.items():
    kinds[pair] = numbers[regime]
  tables = {
    code: _count(
      condition[split.cells == code], group[split.cells == code], shape
    )
    for code in _NAMES
  }
  rows = []
  for g, group_name in enumerate(group_names):
    for code, split_name in _NAMES.items():
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


def _regimes(split: types.Split) -> list[str]:
  return sorted(set(split.regimes.values()))


# The file.


def to_csv(
  split: types.Split,
  *,
  conditions: types.Conditions,
  condition: np.ndarray,
  group: np.ndarray,
  group_names: Sequence[str],
  cell_names: np.ndarray,
) -> str:
  """Returns the text of split.csv; its SHA-256 is `split.sha256`.

  One line for every cell, sorted by name: COLUMNS, with the regime of held-out
  cells. `read` takes it back as it is.
  """
  cells = _make_cells(conditions, condition, group, group_names, cell_names)
  return _text(split, cells)


def write(path: str | os.PathLike[str], text: str) -> None:
  """Writes a split's text so that a reader sees all of it or nothing."""
  path = pathlib.Path(path)
  handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name)
  try:
    with os.fdopen(handle, 'w', encoding='utf-8', newline='') as file:
      file.write(text)
      file.flush()
      os.fsync(file.fileno())
    pathlib.Path(temporary).replace(path)
  except BaseException:
    pathlib.Path(temporary).unlink(missing_ok=True)
    raise


def read(
  path: str | os.PathLike[str],
  *,
  conditions: types.Conditions,
  condition: np.ndarray,
  group: np.ndarray,
  group_names: Sequence[str],
  cell_names: np.ndarray,
  seed: int = 0,
  options: Mapping[str, Any] | None = None,
) -> types.Split:
  """Reads a split: `make` with method 'csv'.

  Forms: the package's own; any with columns `cell,split`; `condition,split`
  with an optional column of group names (`group_column`); two columns without
  a header, cell and split (PerturBench). Conditions may be written as GEARS
  does (`A+ctrl`, `ctrl+B`, `B+A`). A condition file without a line for the
  control leaves the controls to `control_fractions` and `seed`.

  Args:
    path: the file.
    conditions: see types.Conditions.
    condition: int [cells].
    group: int [cells].
    group_names: [groups].
    cell_names: [cells].
    seed: for the controls of a condition file.
    options: see `default_options('csv')`.

  Raises:
    FileNotFoundError: if there is no such file.
    LeakageError: as `audit`; also if a cell has two lines.
    ValueError: for what the file has and the data lacks, or the reverse.
  """
  return make(
    method='csv',
    seed=seed,
    conditions=conditions,
    condition=condition,
    group=group,
    group_names=group_names,
    cell_names=cell_names,
    options={**(options or {}), 'path': os.fspath(path)},
  )


def _text(split: types.Split, cells: _Cells) -> str:
  order = np.argsort(cells.names, kind='stable')
  codes = np.asarray(split.cells)[order].tolist()
  condition = cells.condition[order].tolist()
  group = cells.group[order].tolist()
  names = cells.conditions.names
  regimes = split.regimes
  lines = (
    (
      cell,
      _NAMES[code],
      names[c],
      cells.group_names[g],
      regimes.get((c, g), '') if code > 0 else '',
    )
    for cell, code, c, g in zip(
      cells.names[order].tolist(), codes, condition, group
    )
  )
  out = io.StringIO()
  writer = csv.writer(out, lineterminator='\n')
  writer.writerow(COLUMNS)
  writer.writerows(lines)
  return out.getvalue()


def _place_csv(
  cells: _Cells, method: str, seed: int, opts: Mapping[str, Any]
) -> _Placed:
  path = pathlib.Path(opts['path'])
  with path.open(encoding='utf-8-sig', newline='') as file:
    lines = [line for line in csv.reader(file) if line]
  if not lines:
    raise ValueError(f'{path}: the file is empty')
  header = [name.strip() for name in lines[0]]
  if len(header) == 2 and (header[0] in ('', 'index')):
    header[:] = ['cell', 'split']
  elif len(header) == 2 and header[1] in (*_CODES, 'None', ''):
    header = ['cell', 'split']
    lines.insert(0, header)
  width = [i for i, line in enumerate(lines, 1) if len(line) != len(header)]
  if width:
    raise ValueError(
      f'{path}: line {width[0]} has {len(lines[width[0] - 1])} fields, the '
      f'header {len(header)}'
    )
  columns = {
    name: [line[i] for line in lines[1:]] for i, name in enumerate(header)
  }
  keys = [key for key in ('cell', 'condition') if key in columns]
  if not keys or 'split' not in columns:
    raise ValueError(
      f"{path}: columns {header} lack 'split', or both 'cell' and 'condition'"
    )
  columns['split'] = [_code(value, path) for value in columns['split']]
  if keys[0] == 'cell':
    placed = _read_cells(columns, cells, path, opts)
  else:
    placed = _read_conditions(columns, cells, path, seed, opts)
  codes = placed.cells
  tables = _tables(codes, cells.condition, cells.group, cells.shape)
  lacks = [c for c in (types.VAL, types.TEST) if not tables[c][1:].any()]
  notes = [f'{path.name} has no perturbed {_NAMES[c]} cells' for c in lacks]
  shared = tables[types.TRAIN] & (tables[types.VAL] | tables[types.TEST])
  shared |= tables[types.VAL] & tables[types.TEST]
  if shared[1:].any():
    notes.append(
      f'{int(shared[1:].sum())} (condition, group) pairs have cells in two '
      f'splits of {path.name}'
    )
  return placed._replace(notes=(*placed.notes, *notes), may_lack=tuple(lacks))


def _code(value: str, path: pathlib.Path) -> int:
  value = value.strip()
  if value in ('', 'None'):
    return types.EXCLUDED
  if value not in _CODES:
    raise ValueError(_unknown(f'{path}: split', value, tuple(_CODES)))
  return _CODES[value]


def _read_cells(
  columns: Mapping[str, list],
  cells: _Cells,
  path: pathlib.Path,
  opts: Mapping[str, Any],
) -> _Placed:
  """Places cells by their names."""
  names = columns['cell']
  row = {name: i for i, name in enumerate(cells.names.tolist())}
  line = {name: i for i, name in enumerate(names)}
  if len(line) < len(names):
    twice = [name for i, name in enumerate(names) if line[name] != i]
    raise LeakageError(
      f'{path}: {len(twice)} cells have more than one line: {_some(twice)}'
    )
  notes = []
  strange = [name for name in names if name not in row]
  absent = [name for name in row if name not in line]
  for few, what in (
    (strange, 'cells of the file are not in the data'),
    (absent, 'cells of the data are not in the file'),
  ):
    notes += _missing(few, what, path, opts)
  rows = np.array([row.get(name, -1) for name in names], np.int64)
  codes = np.full(len(cells.names), types.EXCLUDED, np.int8)
  codes[rows[rows >= 0]] = np.array(columns['split'], np.int8)[rows >= 0]
  for key, ids, known in (
    ('condition', cells.condition, cells.conditions.names),
    ('group', cells.group, cells.group_names),
  ):
    _same(columns.get(key), rows, ids, known, names, f'{path}: {key}')
  # Regimes that the file claims stand if one of RULES explains them all.
  rule, regimes = (opts['seen'], 'train'), None
  if 'regime' in columns:
    rule, regimes = None, _read_regimes(columns, rows, cells, path)
  extra = [name for name in columns if name not in COLUMNS]
  if extra:
    notes.append(f'columns {extra} of {path.name} are not used')
  return _Placed(codes, tuple(notes), rule, regimes)


def _same(
  given: list[str] | None,
  rows: np.ndarray,
  ids: np.ndarray,
  known: Sequence[str],
  names: Sequence[str],
  what: str,
) -> None:
  """Raises if the file says something else of a cell than the data."""
  if given is None:
    return
  for i, (value, r) in enumerate(zip(given, rows.tolist())):
    if r >= 0 and value != known[ids[r]]:
      raise ValueError(
        f'{what} of cell {names[i]!r} is {value!r} in the file and '
        f'{known[ids[r]]!r} in the data'
      )


def _read_regimes(
  columns: Mapping[str, list],
  rows: np.ndarray,
  cells: _Cells,
  path: pathlib.Path,
) -> dict[tuple[int, int], str]:
  regimes: dict[tuple[int, int], str] = {}
  for value, code, r in zip(columns['regime'], columns['split'], rows.tolist()):
    pair = (int(cells.condition[r]), int(cells.group[r]))
    if r < 0 or code not in (types.VAL, types.TEST) or pair[0] == 0:
      continue
    if regimes.setdefault(pair, value) != value:
      raise ValueError(
        f'{path}: {_pair(pair, cells)} has the regimes {regimes[pair]!r} and '
        f'{value!r}'
      )
  return dict(sorted(regimes.items()))


def _read_conditions(
  columns: Mapping[str, list],
  cells: _Cells,
  path: pathlib.Path,
  seed: int,
  opts: Mapping[str, Any],
) -> _Placed:
  """Places cells by their conditions, and groups if the file has them."""
  key = opts['group_column']
  extra = [k for k in columns if k not in ('condition', 'split', 'regime', key)]
  if extra:
    raise ValueError(
      f'{path}: columns {extra} are not understood in a file of conditions; '
      "if one holds the group's name, set group_column to it"
    )
  known = {name: c for c, name in enumerate(cells.conditions.names)}
  numbers = {name: g for g, name in enumerate(cells.group_names)}
  table = np.full(cells.shape, -2, np.int8)  # -2: no line in the file.
  strange = []
  for i, name in enumerate(columns['condition']):
    c = known.get(name, known.get(_canonical(name)))
    if c is None:
      strange.append(name)
      continue
    where: Any = slice(None)
    if key in columns:
      place = columns[key][i]
      if place not in numbers:
        raise ValueError(_unknown(f'{path}: {key}', place, cells.group_names))
      where = numbers[place]
    code = columns['split'][i]
    before = table[c, where]
    if np.any((before != -2) & (before != code)):
      raise LeakageError(f'{path}: condition {name!r} is in two splits')
    table[c, where] = code
  present = cells.counts > 0
  absent = [list(p) for p in np.argwhere(present & (table == -2)) if p[0]]
  notes = _missing(
    strange, 'conditions of the file are not in the data', path, opts
  )
  notes += _missing(
    [_pair(p, cells) for p in absent],
    'pairs of the data are not in the file',
    path,
    opts,
  )
  codes = table[cells.condition, cells.group]
  listed = codes != -2
  codes = np.where(listed, codes, types.EXCLUDED).astype(np.int8)
  rows = np.flatnonzero(~listed & (cells.condition == 0))
  if len(rows):
    codes = _with_controls(cells, codes, seed, opts, rows)
    notes.append(
      f'{path.name} does not place {len(rows)} controls: they are divided by '
      f'control_fractions={tuple(opts["control_fractions"])}'
    )
  return _Placed(codes, tuple(notes), (opts['seen'], 'train'))


def _canonical(name: str) -> str:
  """Rewrites `B+A`, `A+ctrl` or `ctrl` as this package names conditions."""
  parts = [p for p in name.split('+') if p not in ('ctrl', types.CONTROL, '')]
  return '+'.join(sorted(parts)) or types.CONTROL


def _missing(
  names: Sequence[str],
  what: str,
  path: pathlib.Path,
  opts: Mapping[str, Any],
) -> list[str]:
  if not names:
    return []
  line = f'{len(names)} {what} ({path.name}), for example {_some(names)}'
  if opts['missing'] == 'error':
    raise ValueError(f"{line}; missing='exclude' leaves them out")
  return [line + ': left out']


# Small things.


def _make_cells(
  conditions: types.Conditions,
  condition: np.ndarray,
  group: np.ndarray,
  group_names: Sequence[str],
  cell_names: np.ndarray,
) -> _Cells:
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
      f'be on both sides: {_some(twice)}'
    )
  return _Cells(conditions, condition, group, tuple(group_names), names)


def _options(method: str, options: Mapping[str, Any] | None) -> dict[str, Any]:
  """Merges options with their defaults and checks their values."""
  merged = default_options(method)
  for key, value in (options or {}).items():
    if key not in merged:
      raise ValueError(
        _unknown(f'option of split {method}', key, tuple(merged))
      )
    merged[key] = value
  for key, value in merged.items():
    if isinstance(_DEFAULTS[method][key], float) and not 0 <= value <= 1:
      raise ValueError(f'split {method}: {key}={value} is not within 0 and 1')
  for key, allowed in (
    ('seen', ('singles', 'any')),
    ('missing_controls', ('error', 'exclude')),
    ('combinations', ('hold_out', 'exclude')),
    ('missing', ('error', 'exclude')),
  ):
    if key in merged and merged[key] not in allowed:
      raise ValueError(
        _unknown(f'{key} of split {method}', merged[key], allowed)
      )
  shares = merged.get('control_fractions', (1, 0, 0))
  if len(shares) != 3 or min(shares) < 0 or abs(sum(shares) - 1) > 1e-6:
    raise ValueError(
      f'split {method}: control_fractions={tuple(shares)} are not three '
      'shares (train, val, test) that sum to 1'
    )
  if 'min_cells' in merged and sum(_shares(merged)[1:]) > 1:
    raise ValueError(
      f'split {method}: val_fraction={merged["val_fraction"]} and '
      f'test_fraction={merged["test_fraction"]} sum to more than 1'
    )
  for key in ('groups', 'test_groups', 'val_groups', 'test_perts'):
    if isinstance(merged.get(key), str):
      merged[key] = (merged[key],)
  return merged


def _unknown(what: str, given: Any, allowed: Sequence[str]) -> str:
  close = difflib.get_close_matches(str(given), allowed, n=3, cutoff=0.5)
  hint = f'closest: {", ".join(close)}; ' if close else ''
  return f'{what}: {given!r} is unknown; {hint}allowed: {", ".join(allowed)}'


def _some(names: Sequence[Any], most: int = 5) -> str:
  shown = ', '.join(str(name) for name in names[:most])
  return shown + (', ...' if len(names) > most else '')


def _span(counts: np.ndarray) -> str:
  low, high = int(counts.min()), int(counts.max())
  return str(low) if low == high else f'{low} to {high}'


def _pair(pair: Sequence[int], cells: _Cells) -> str:
  c, g = pair
  names = cells.conditions.names
  if not (0 <= c < len(names) and 0 <= g < len(cells.group_names)):
    return f'pair {tuple(pair)}'
  return f'{names[c]} in {cells.group_names[g]}'


def _pairs(pairs: Sequence[Sequence[int]], cells: _Cells) -> str:
  return _some([_pair(pair, cells) for pair in pairs[:6]])


def _count(
  condition: np.ndarray, group: np.ndarray, shape: tuple[int, int]
) -> np.ndarray:
  code = condition.astype(np.int64) * shape[1] + group
  return np.bincount(code, minlength=shape[0] * shape[1]).reshape(shape)


def _tables(
  codes: np.ndarray,
  condition: np.ndarray,
  group: np.ndarray,
  shape: tuple[int, int],
) -> dict[int, np.ndarray]:
  """Makes {split: bool [conditions, groups]}: where the split has cells."""
  return {
    code: _count(condition[codes == code], group[codes == code], shape) > 0
    for code in (types.TRAIN, types.VAL, types.TEST)
  }


_PLACERS: Mapping[str, Callable[..., _Placed]] = {
  'combinations': _place_combinations,
  'perturbations': _place_perturbations,
  'transfer': _place_transfer,
  'cells': _place_cells,
  'conditions': _place_conditions,
  'csv': _place_csv,
  'perturbench': _place_perturbench,
  'gears': _place_gears,
}
