"""Differential expression of a problem's conditions, a few at a time."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from pertjax.metrics import problem as problem_lib
from pertjax.metrics import sides
from pertjax.metrics.differential import engines, table

# Memory of the cells of one call beside the control; sets no result. Few large
# calls are better where cells lie scattered in a file: each reads most of it.
_BYTES = 512 << 20


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
  source = getattr(problem, side)
  dense = source.shift is not None
  most = max(1, _BYTES // sides.row_bytes(source.matrix, dense_too=dense))
  for group in range(len(problem.groups)):
    chosen = np.flatnonzero(np.asarray(problem.group) == group)
    reference = None  # Read once for all parts.
    for part in _parts(chosen, source.sizes, most):
      if reference is None:
        reference, _, *cells = problem.test_cells(
          side, group, part, control=settings.control
        )
        if settings.per_million:
          reference = per_million(reference)
      else:
        block, position = source.cells(part)
        cells = block, position + 1
      found = _de_part(problem, reference, *cells, len(part), settings)
      for kept, new in zip(out, found):
        kept[part] = np.asarray(new)[1:]
  return out


def _parts(
  chosen: np.ndarray, sizes: np.ndarray, most: int
) -> list[np.ndarray]:
  """Cuts conditions into runs of about `most` cells, one condition at least."""
  if not len(chosen):
    return []
  ends = np.cumsum(sizes[chosen])
  return [
    run
    for run in np.split(chosen, np.flatnonzero(np.diff((ends - 1) // most)) + 1)
    if len(run)
  ]


def _de_part(
  problem: problem_lib.Problem,
  reference: Any,
  cells: Any,
  position: np.ndarray,
  number: int,
  settings: Settings,
) -> table.DE:
  """Tests cells of a few conditions, at positions from 1, with the control."""
  if settings.per_million:
    cells = per_million(cells)
  found, _ = engines.de(
    [reference, cells],
    [np.zeros(reference.shape[0], np.int32), position],
    num_conditions=number + 1,
    method=settings.method,
    mean=settings.mean,
    pseudocount=settings.pseudocount,
    tie_correct=settings.tie_correct,
    continuity=settings.continuity,
    cpm_filter=settings.cpm_filter,
    cpm_filter_on=settings.cpm_filter_on,
    engine=problem.engine,
    say=lambda line: problem.said.setdefault(line),
  )
  return found


def per_million(values: Any) -> Any:
  """Scales cells to a million counts each; cells without counts stay 0.

  Args:
    values: [cells, genes], dense or CSR, which stays sparse.

  Returns:
    The same in float64.
  """
  values = values.astype(np.float64)
  whole = np.asarray(values.sum(1)).reshape(-1)
  # Divided, as scanpy does: the last bit decides which values tie.
  divisor = np.where(whole > 0, whole, 1) / 1e6
  if not hasattr(values, 'indptr'):
    return values / divisor[:, None]
  data = values.data / np.repeat(divisor, np.diff(values.indptr))
  return type(values)((data, values.indices, values.indptr), shape=values.shape)
