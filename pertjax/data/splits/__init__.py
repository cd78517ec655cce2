"""Which cells a model may learn from: splitters, their file and their audit.

`make` splits by one of METHODS: the package's own, which draw by keyed hashes,
or an original's, draw for draw. Every split is audited before it is returned.

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

import dataclasses
import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from pertjax import types
from pertjax.data.splits import (
  controls,
  csv_file,
  holdout,
  labelling,
  originals,
  problem,
  sena,
  settings,
  transfer,
)
from pertjax.data.splits.csv_file import COLUMNS
from pertjax.data.splits.draws import allocate
from pertjax.data.splits.labelling import RULES, label, summary
from pertjax.data.splits.leakage import audit
from pertjax.data.splits.problem import LeakageError
from pertjax.data.splits.settings import METHODS, default_options
from pertjax.files import write_text as write

__all__ = [
  'COLUMNS',
  'METHODS',
  'RULES',
  'LeakageError',
  'allocate',
  'audit',
  'default_options',
  'label',
  'make',
  'read',
  'summary',
  'to_csv',
  'write',
]

# By the method, or by what is before its first underscore.
_PLACERS: Mapping[str, Callable[..., problem.Placed]] = {
  'combinations': holdout.place_combinations,
  'perturbations': holdout.place_perturbations,
  'transfer': transfer.place_transfer,
  'cells': holdout.place_cells,
  'conditions': holdout.place_conditions,
  'csv': csv_file.place,
  'perturbench': originals.place_perturbench,
  'gears': originals.place_gears,
  'sena': sena.place,
}


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
  conditions, 'cells' cells of every pair; 'csv' reads a file; 'sena' is that of
  SENA, which tests cells of perturbations that train and all combinations;
  `perturbench_*` and `gears_*` are the originals' of `splits.originals`. All
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
  opts = settings.settle(method, options)
  if not isinstance(seed, (int, np.integer)) or seed < 0:
    raise ValueError(f'split seed: {seed!r} is not a non-negative integer')
  cells = problem.make_cells(
    conditions, condition, group, group_names, cell_names
  )
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
  codes, notes = controls.require(cells, placed.cells, opts, method)
  _require_filled(codes[cells.condition > 0], placed, method, opts)
  regimes = placed.regimes
  if regimes is None:
    regimes = labelling.label(
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
    *originals.disagreements(cells, placed, codes, regimes),
  )
  excluded = int((codes == types.EXCLUDED).sum())
  if excluded:
    notes = (*notes, f'{excluded} of {len(codes)} cells are in no split')
  split = types.Split(codes, regimes, method, '', notes)
  text = csv_file.text(split, cells).encode('utf-8')
  split = dataclasses.replace(split, sha256=hashlib.sha256(text).hexdigest())
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
  cells = problem.make_cells(
    conditions, condition, group, group_names, cell_names
  )
  return csv_file.text(split, cells)


def _require_filled(
  codes: np.ndarray,
  placed: problem.Placed,
  method: str,
  opts: Mapping[str, Any],
) -> None:
  """Raises if no perturbed cell is in a split that should have some."""
  for code in (types.TRAIN, types.VAL, types.TEST):
    if (codes == code).any() or code in placed.may_lack:
      continue
    key = f'{problem.NAMES[code]}_fraction'
    if code != types.TRAIN and not opts.get(key, 1):
      continue
    given = {k: v for k, v in opts.items() if isinstance(v, float)}
    counts = {
      name: int((codes == c).sum()) for c, name in problem.NAMES.items()
    }
    raise ValueError(
      f'split {method}: no perturbed cell is in {problem.NAMES[code]} '
      f'({counts}, options {given}); change the fractions or use another method'
    )
