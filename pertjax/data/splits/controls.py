"""Control cells: divided alike by every method, and needed by every group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pertjax import names as name_lib
from pertjax import types
from pertjax.data.splits import draws, problem


def divided(
  cells: problem.Cells,
  codes: np.ndarray,
  seed: int,
  opts: Mapping[str, Any],
  rows: np.ndarray | None = None,
) -> np.ndarray:
  """Returns codes with the control cells of every group divided.

  All methods do it alike, by the option `control_fractions`.

  Args:
    cells: see problem.Cells.
    codes: int8 [cells]; those of the controls are replaced.
    seed: of the split.
    opts: see settings.settle.
    rows: the control cells to divide; all by default.
  """
  if rows is None:
    rows = np.flatnonzero(cells.condition == 0)
  codes = codes.copy()
  codes[rows] = draws.divide(
    cells.group[rows],
    cells.names[rows],
    None if opts['units'] is None else opts['units'][rows],
    opts['control_fractions'],
    draws.make_scope(seed, 'controls'),
  )
  return codes


def require(
  cells: problem.Cells, codes: np.ndarray, opts: Mapping[str, Any], method: str
) -> tuple[np.ndarray, tuple[str, ...]]:
  """Sees to it that held-out pairs have controls to be predicted from.

  Returns:
    Codes, without the cells of such pairs where `missing_controls` is
    'exclude', and notes that count them.

  Raises:
    ValueError: where it is 'error', naming the groups.
  """
  lacking = without(codes, cells)
  if not lacking:
    return codes, ()
  if opts['missing_controls'] == 'error':
    raise ValueError(
      f'split {method}: {len(lacking)} groups have held-out cells but no '
      f'control cell to predict them from: {describe(lacking, cells)}. Merge '
      "covariates, or set missing_controls='exclude'"
    )
  codes, notes = codes.copy(), []
  for g, code, _ in lacking:
    rows = (cells.group == g) & (codes == code) & (cells.condition > 0)
    codes[rows] = types.EXCLUDED
    if rows.any():
      notes.append(
        f'{int(rows.sum())} {problem.NAMES[code]} cells of group '
        f'{cells.group_names[g]!r} are excluded: no control to predict from'
      )
  return codes, tuple(notes)


def without(
  codes: np.ndarray, cells: problem.Cells
) -> list[tuple[int, int, str]]:
  """Lists (group, split, split that lacks controls) of held-out pairs."""
  tables = cells.tables(codes)
  # Where every control trains, predictions start from training controls.
  shared = not (tables[types.VAL][0].any() or tables[types.TEST][0].any())
  lacking = []
  for g in range(cells.shape[1]):
    for code in (types.VAL, types.TEST):
      if not tables[code][1:, g].any():
        continue
      for source in (types.TRAIN,) if shared else (types.TRAIN, code):
        if not tables[source][0, g]:
          lacking.append((g, code, problem.NAMES[source]))
  return lacking


def describe(
  lacking: Sequence[tuple[int, int, str]], cells: problem.Cells
) -> str:
  """Names groups and the splits that they lack controls in, for a message."""
  texts = [f'{cells.group_names[g]!r} in {name}' for g, _, name in lacking]
  return name_lib.listing(texts, quoted=False)
