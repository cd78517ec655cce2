"""Tables of cells and genes: their names, their groups, and who stays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from pertjax import names as name_lib
from pertjax.data import conventions


class Groups(NamedTuple):
  """Covariates of cells; fields as in h5ad.Raw, under shorter names."""

  covariates: dict[str, tuple[str, ...]]
  codes: np.ndarray
  groups: tuple[tuple[str, ...], ...]
  ids: np.ndarray


def unique_names(
  values: Any, *, where: str, make_unique: bool
) -> tuple[np.ndarray, list[str]]:
  """Returns str [n] unique names, and notes.

  Args:
    values: [n] of a table.
    where: what to call it in messages.
    make_unique: number repeated names instead of raising.

  Raises:
    ValueError: for anything but non-empty strings, and for repeats.
  """
  values = np.array(values, dtype=object)  # A copy: it may be renumbered.
  kind = pd.api.types.infer_dtype(values, skipna=False)
  if kind != 'string' or (values == '').any():
    wrong = [v for v in values if not isinstance(v, str) or not v]
    raise ValueError(
      f'{where}: {len(wrong):,} of {len(values):,} are not names: '
      f'{name_lib.listing([repr(v) for v in wrong])}; expected non-empty '
      'strings'
    )
  repeated = pd.Series(values).duplicated(keep='first').to_numpy()
  if not repeated.any():
    return values.astype(str), []
  examples = name_lib.duplicates(values)
  if not make_unique:
    raise ValueError(
      f'{where}: {len(examples):,} occur more than once: '
      f'{name_lib.listing(examples)}; make_unique=True numbers them'
    )
  taken, next_number = set(values.tolist()), dict.fromkeys(examples, 1)
  for index in np.flatnonzero(repeated):
    name = values[index]
    while (new := f'{name}-{next_number[name]}') in taken:
      next_number[name] += 1
    taken.add(new)
    values[index] = new
  return values.astype(str), [
    f'{where}: {repeated.sum():,} repeats of {len(examples):,} names were '
    f'numbered: {name_lib.listing(examples)}'
  ]


def group(obs: pd.DataFrame, keys: Sequence[str], *, name: str) -> Groups:
  """Codes the covariates of cells and the groups that they make.

  Args:
    obs: table of the cells.
    keys: its columns; all cells are one group without any.
    name: of the dataset, for messages.

  Raises:
    ValueError: where a value is missing.
  """
  covariates: dict[str, tuple[str, ...]] = {}
  codes = np.zeros((len(obs), len(keys)), np.int32)
  for index, key in enumerate(keys):
    code, values = pd.factorize(obs[key])
    missing = np.flatnonzero(code < 0)
    if len(missing):
      raise ValueError(
        f'{name}: covariate {key!r} is missing for {len(missing):,} of '
        f'{len(obs):,} cells: {name_lib.listing(obs.index[missing[:3]])}'
      )
    texts = np.array([str(value) for value in values], dtype=object)
    levels, order = np.unique(texts, return_inverse=True)
    covariates[key] = tuple(levels.tolist())
    codes[:, index] = order[code]
  if not keys:
    return Groups({}, codes, ((),), np.zeros(len(obs), np.int32))
  levels = list(covariates.values())
  sizes = tuple(len(values) for values in levels)
  # Levels are sorted, so the mixed-radix number sorts as the tuples do.
  unique, ids = np.unique(
    np.ravel_multi_index(tuple(codes.T), sizes), return_inverse=True
  )
  groups = tuple(
    tuple(levels[key][code] for key, code in enumerate(row))
    for row in np.stack(np.unravel_index(unique, sizes), axis=1)
  )
  return Groups(covariates, codes, groups, ids.astype(np.int32))


def select(
  parsed: conventions.Parsed,
  grouped: Groups,
  nonzero: np.ndarray,
  *,
  labels: pd.Series,
  control: Sequence[str],
  name: str,
  min_cells: int,
  drop_groups_without_control: bool,
) -> tuple[np.ndarray, list[str]]:
  """Returns bool [cells] to keep, and notes; raises where too little is left.

  Args:
    parsed: conditions of all cells.
    grouped: groups of all cells.
    nonzero: bool [cells]; cells with any count.
    labels: of all cells, as they were; for messages.
    control: labels that mean control; for messages.
    name: of the dataset, for messages.
    min_cells: see h5ad.Options.
    drop_groups_without_control: see h5ad.Options.
  """
  notes, keep = [], nonzero.copy()
  if not keep.all():
    notes.append(f'{(~keep).sum():,} cells without any count were dropped')
  is_control = parsed.ids == 0
  if not (is_control & keep).any():
    most = labels.value_counts().head(8)
    frequent = ', '.join(f'{label!r} ({n:,})' for label, n in most.items())
    raise ValueError(
      f'{name}: no control cell: none of {control} is a label in '
      f'obs[{labels.name!r}]; the most frequent are {frequent}. Set the '
      'control label'
    )
  num_groups = len(grouped.groups)
  has_control = np.zeros(num_groups, bool)
  has_control[grouped.ids[is_control & keep]] = True
  present = np.bincount(grouped.ids[keep], minlength=num_groups)
  lacking = np.flatnonzero((present > 0) & ~has_control)
  if len(lacking):
    texts = name_lib.listing(
      f'{"|".join(grouped.groups[g])} ({present[g]:,} cells)' for g in lacking
    )
    if not drop_groups_without_control:
      raise ValueError(
        f'{name}: {len(lacking)} of {num_groups} groups of '
        f'{", ".join(grouped.covariates)} have no control cell: {texts}; '
        'drop_groups_without_control=True leaves them out'
      )
    keep &= has_control[grouped.ids]
    notes.append(
      f'{present[lacking].sum():,} cells of {len(lacking)} groups without '
      f'control were dropped: {texts}'
    )
  cells = np.bincount(parsed.ids[keep], minlength=len(parsed.conditions.names))
  rare = (cells > 0) & (cells < min_cells)
  rare[0] = False
  if rare.any():
    keep &= ~rare[parsed.ids]
    names = [parsed.conditions.names[i] for i in np.flatnonzero(rare)]
    notes.append(
      f'{cells[rare].sum():,} cells of {rare.sum()} conditions with fewer than '
      f'{min_cells} cells were dropped: {name_lib.listing(names, 10)}'
    )
  if not (parsed.ids[keep] > 0).any():
    raise ValueError(
      f'{name}: only one condition, the control, is left in '
      f'obs[{labels.name!r}]; there is nothing to learn. ' + ' '.join(notes)
    )
  return keep, notes
