"""Answer a counterfactual request: a table of conditions to predicted cells."""

from __future__ import annotations

import csv
import dataclasses
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pertjax import heldout, types
from pertjax import names as name_lib
from pertjax.data import arrays, conventions, predictions


def read_requests(path: pathlib.Path) -> list[dict[str, str]]:
  """Reads the CSV of a request.

  Raises:
    FileNotFoundError: if it is not there.
    ValueError: if it is empty, or a row has not as many fields as the header.
  """
  if not path.is_file():
    raise FileNotFoundError(
      f'predict.conditions={path}: no such file; it must be a CSV with a '
      'column for the condition and one for each covariate'
    )
  with path.open(newline='', encoding='utf-8-sig') as file:
    rows = list(csv.DictReader(file))
  if not rows:
    raise ValueError(f'{path}: no rows below the header')
  for number, row in enumerate(rows):
    # What DictReader calls fields without a name, and names without a field.
    if None in row or None in row.values():
      raise ValueError(
        f'{path}, row {number + 2}: not as many fields as the header has '
        f'({", ".join(k for k in row if k is not None)})'
      )
  return rows


def parse_requests(
  rows: Sequence[dict[str, str]],
  spec: types.DataSpec,
  convention: conventions.Convention,
  knows: Callable[[tuple[str, ...]], str | None] | None,
  path: pathlib.Path,
) -> tuple[types.Conditions, np.ndarray, np.ndarray]:
  """Checks a request and finds its ids.

  Args:
    rows: of the CSV.
    spec: of the data the model was trained on.
    convention: how the CSV writes conditions, that of the training file.
    knows: Model.knows.
    path: of the CSV, for messages.

  Returns:
    (conditions, int [rows] condition ids into them, int [rows] group ids).

  Raises:
    ValueError: naming the row, what was found and what is allowed: a missing
      or unknown column, a covariate value without control cells, a perturbation
      that the model cannot know (with the closest known names).
  """
  keys = [key for key, _ in spec.covariates]
  label = convention.key if convention.key in rows[0] else 'condition'
  dose = [convention.dose_key] if convention.dose_key else []
  _check_columns(list(rows[0]), [label, *dose, *keys], path)
  try:
    conditions, ids = conventions.parse(
      [row[label] for row in rows],
      [row[dose[0]] for row in rows] if dose else None,
      convention=convention,
    )
  except ValueError as error:
    raise ValueError(f'{path}: {error}') from error
  for number, condition in enumerate(ids):
    reason = _unknown(conditions.tokens[condition], spec, knows)
    if reason:
      name = conditions.names[condition]
      raise ValueError(f'{path}, row {number + 2}, {name!r}: {reason}')
  index = {group: g for g, group in enumerate(spec.groups)}
  groups = []
  for number, row in enumerate(rows):
    wanted = tuple(row[k] for k in keys)
    if wanted not in index:
      known = ['|'.join(g) for g in spec.groups]
      raise ValueError(
        f'{path}, row {number + 2}: there are no control cells with '
        f'{dict(zip(keys, wanted))} to start from; '
        f'known: {name_lib.listing(known, 12, quoted=False)}'
      )
    groups.append(index[wanted])
  return conditions, np.asarray(ids), np.asarray(groups, int)


def _check_columns(found, needed, path) -> None:
  """Raises ValueError for columns that are missing or that nobody reads."""
  missing = [k for k in needed if k not in found]
  extra = [k for k in found if k not in needed]
  if missing or extra:
    wrong = 'no column' if missing else 'unknown column'
    raise ValueError(
      f'{path}: {wrong} {name_lib.listing(missing or extra)}; needed are '
      f'{name_lib.listing(needed)}, found are {name_lib.listing(found)}'
    )


def _unknown(tokens, spec, knows) -> str | None:
  """Returns why a condition cannot be predicted, or None if it can."""
  for token in tokens:
    if token not in spec.perturbations:
      return (
        f'perturbation {token!r} is not in the data that the model was trained '
        f'on; {name_lib.suggestion(token, spec.perturbations)} (of '
        f'{len(spec.perturbations)})'
      )
  reason = knows(tokens) if knows else None
  if not reason:
    return None
  trained = [p for p, t in zip(spec.perturbations, spec.trained) if t]
  token = next((t for t in tokens if t not in trained), tokens[0])
  return (
    f'the model cannot predict it: {reason}; trained perturbations, '
    f'{name_lib.suggestion(token, trained)}'
  )


def predict(
  config,
  output: pathlib.Path,
  path: pathlib.Path,
  *,
  model: types.Model,
  data: arrays.PerturbArrays,
  spec: types.DataSpec,
  convention: conventions.Convention,
  params: types.Params,
  consts: Sequence[types.Consts],
  members: Sequence[int],
) -> dict[str, Any]:
  """Predicts every row of a CSV from up to config.predict.cells controls.

  Control cells of all splits may serve as a start. X is the mean over seeds,
  the layer 'seed_sd' their spread.

  Returns:
    {'rows', 'cells'}: how much was written.

  Raises:
    ValueError: as parse_requests, before anything is computed.
  """
  rows = read_requests(path)
  conditions, ids, groups = parse_requests(
    rows, spec, convention, model.knows, path
  )
  perturbations, doses = arrays.condition_tables(
    conditions, spec.perturbations, order=spec.order
  )
  data = arrays.with_conditions(data, perturbations, doses)
  random = np.random.Generator(np.random.Philox(config.seed))
  condition, group = np.asarray(data.condition), np.asarray(data.group)
  control = [
    random.permutation(np.flatnonzero((condition == 0) & (group == g)))[
      : config.predict.cells
    ]
    for g in range(data.num_groups)
  ]
  result = heldout.cells_of(
    config,
    model,
    params,
    consts,
    data,
    dataclasses.replace(spec, conditions=conditions),
    [(int(c), int(g)) for c, g in zip(ids, groups)],
    [control[g] for g in groups],
    members,
  )
  result['columns']['row'] = np.repeat(
    [str(n) for n in range(len(rows))], [len(control[g]) for g in groups]
  )
  predictions.write_predictions(output, **result)
  return {'rows': len(rows), 'cells': len(result['values'])}
