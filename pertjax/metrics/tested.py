"""Differential expression of a problem's conditions, a few at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from pertjax.metrics import problem as problem_lib
from pertjax.metrics import sides
from pertjax.metrics.differential import table

# Cells of one call beside the control; bounds memory and sets no result.
_CELLS = 40_000


class Settings(NamedTuple):
  """How conditions are tested against their control.

  Attributes:
    method, mean, pseudocount, tie_correct, continuity: see
      `differential.engines.de`.
    per_million: cells are scaled to a million counts first.
    cpm_filter, cpm_filter_on: see `differential.engines.de`.
    control: 'own' tests predicted cells against predicted controls, where there
      are some; 'real' against the observed ones.
  """

  method: str = 'wilcoxon'
  mean: str = 'geometric'
  pseudocount: float = 0.0
  tie_correct: bool = True
  continuity: bool = True
  per_million: bool = False
  cpm_filter: float | None = None
  cpm_filter_on: str = 'either'
  control: str = 'own'


def de(problem: problem_lib.Problem, side: str, settings: Settings) -> table.DE:
  """Returns the tests of one side, float64 [conditions, genes] each.

  They are kept in `problem.tables`: what a second convention asks for again
  is there.

  Args:
    problem: of one group or several.
    side: 'observed' or 'predicted'.
    settings: how.
  """
  if side == 'observed':
    settings = settings._replace(control='own')
  key = (side, settings)
  if key not in problem.tables:
    problem.tables[key] = _de(problem, side, settings)
  return problem.tables[key]


def _de(problem, side, settings) -> table.DE:
  shape = (problem.num_conditions, len(problem.genes))
  out = table.DE(*(np.full(shape, np.nan) for _ in table.DE._fields))
  sizes = getattr(problem, side).sizes
  for group in range(len(problem.groups)):
    chosen = np.flatnonzero(np.asarray(problem.group) == group)
    for part in _parts(chosen, sizes):
      found = _de_part(problem, side, group, part, settings)
      for kept, new in zip(out, found):
        kept[part] = np.asarray(new)[1:]
  return out


def _parts(chosen: np.ndarray, sizes: np.ndarray) -> list[np.ndarray]:
  """Cuts conditions into runs of at most _CELLS cells, one at least."""
  if not len(chosen):
    return []
  ends = np.cumsum(sizes[chosen])
  return [
    run
    for run in np.split(
      chosen, np.flatnonzero(np.diff((ends - 1) // _CELLS)) + 1
    )
    if len(run)
  ]


def _de_part(problem, side, group, chosen: Sequence[int], settings) -> table.DE:
  reference, zeros, cells, position = problem.test_cells(
    side, group, chosen, control=settings.control
  )
  values = np.concatenate([sides.dense(reference), sides.dense(cells)])
  if settings.per_million:
    values = per_million(values)
  return table.de(
    values,
    np.concatenate([zeros, position]),
    num_conditions=len(chosen) + 1,
    method=settings.method,
    mean=settings.mean,
    pseudocount=settings.pseudocount,
    tie_correct=settings.tie_correct,
    continuity=settings.continuity,
    cpm_filter=settings.cpm_filter,
  )


def per_million(values: Any) -> Any:
  """Scales cells to a million counts each; cells without counts stay 0."""
  values = np.asarray(values, np.float64)
  whole = values.sum(1, keepdims=True)
  return values * (1e6 / np.where(whole > 0, whole, 1))
