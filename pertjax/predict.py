"""Answer a counterfactual request: a table of conditions to predicted cells."""

from __future__ import annotations

import csv
import dataclasses
import difflib
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pertjax import evaluate, types
from pertjax.data import arrays, conventions, predictions


def read_requests(path: pathlib.Path) -> list[dict[str, str]]:
  """Reads the CSV of a request.

  Raises:
    FileNotFoundError: if it is not there.
    ValueError: if it is empty.
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
      column, a covariate value without control cells, a perturbation that the
      model cannot know (with the closest known names).
  """
  keys = [key for key, _ in spec.covariates]
  label = convention.key if convention.key in rows[0] else 'condition'
  missing = [k for k in (label, *keys) if k not in rows[0]]
  if missing:
    raise ValueError(
      f'{path}: no column {", ".join(map(repr, missing))}; needed are '
      f'{", ".join(map(repr, (label, *keys)))}, found are '
      f'{", ".join(map(repr, rows[0]))}'
    )
  doses = None
  if convention.dose_key and convention.dose_key in rows[0]:
    doses = [row[convention.dose_key] for row in rows]
  conditions, ids = conventions.parse(
    [row[label] for row in rows], doses, convention=convention
  )
  known = set(spec.perturbations)
  for number, condition in enumerate(ids):
    tokens = conditions.tokens[condition]
    for token in tokens:
      if token not in known:
        near = difflib.get_close_matches(token, spec.perturbations, 3, 0.5)
        raise ValueError(
          f'{path}, row {number + 2}: perturbation {token!r} is not in the '
          f'data that the model was trained on; closest known: '
          f'{", ".join(near) or "none"} (of {len(known)})'
        )
    reason = knows(tokens) if knows else None
    if reason:
      trained = [p for p, t in zip(spec.perturbations, spec.trained) if t]
      near = difflib.get_close_matches(tokens[0], trained, 3, 0.3)
      raise ValueError(
        f'{path}, row {number + 2}: the model cannot predict '
        f'{conditions.names[condition]!r}: {reason}; closest known: '
        f'{", ".join(near) or ", ".join(trained[:3])}'
      )
  index = {group: g for g, group in enumerate(spec.groups)}
  groups = []
  for number, row in enumerate(rows):
    wanted = tuple(row[k] for k in keys)
    if wanted not in index:
      shown = ', '.join('|'.join(g) for g in spec.groups[:8])
      raise ValueError(
        f'{path}, row {number + 2}: there are no control cells with '
        f'{dict(zip(keys, wanted))} to start from; known: {shown}'
      )
    groups.append(index[wanted])
  return conditions, np.asarray(ids), np.asarray(groups, int)


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
  result = evaluate.cells_of(
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
