"""Certificates and red teams of AnnData: what stands behind scores.

Both need the observed cells only.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from pertjax import names as name_lib
from pertjax.metrics import attacks
from pertjax.metrics import certificate as certificate_lib
from pertjax.metrics import problem as problem_lib
from pertjax.metrics.anndata import aligning, choosing, inputs, rankings
from pertjax.metrics.anndata.scoring import ScoreWarning


def certify(
  observed: inputs.Given,
  *,
  perturbation_key: str,
  control: str,
  covariate_keys: Sequence[str] = (),
  convention: str | Sequence[str] = 'cell-eval',
  metrics: Sequence[str] | None = None,
  options: Mapping[str, Any] | None = None,
  splits: int = 5,
  seed: int = 0,
  min_cells: int = 4,
  engine: str = 'auto',
  targets: Mapping[str, Sequence[str]] | None = None,
  layer: str | None = None,
  scale: str = 'auto',
  normalise: float | None = None,
  backed: bool | None = None,
  say: Callable[[str], None] | None = None,
) -> pd.DataFrame:
  """Says what a convention's metrics can tell apart on a dataset.

  Each is computed of halves of the observed cells; see
  `metrics.certificate.certificate`.

  Args:
    observed: the real cells, see `score`; so are the arguments not named here.
    perturbation_key: see `score`.
    control: see `score`.
    covariate_keys: see `score`.
    convention: one or several of `base.conventions()`.
    metrics: columns of the convention; None for all.
    options: of the convention; for several conventions {name: options}.
    splits: cuts in halves, and permutations of the null.
    seed: of both.
    min_cells: conditions with fewer observed cells are left out and counted.
    engine: see `score`.
    targets: see `score`.
    layer: see `score`.
    scale: see `score`.
    normalise: see `score`.
    backed: see `score`.
    say: takes the notes, and lines on what is being scored.

  Returns:
    A table with the columns of `metrics.certificate.FIELDS`; what a reader
    should know is in `attrs['notes']`.

  Raises:
    FileNotFoundError: where there is no such file.
    ValueError: for anything that does not fit, before any long work.
  """
  if splits < 2:
    raise ValueError(f'splits is {splits}; at least 2 are needed')
  return _audit(
    functools.partial(certificate_lib.certificate, splits=splits),
    certificate_lib.FIELDS,
    observed,
    choosing.chosen(convention, options, metrics),
    seed=seed,
    min_cells=min_cells,
    say=say,
    perturbation_key=perturbation_key,
    control=control,
    covariate_keys=covariate_keys,
    layer=layer,
    backed=backed,
    engine=engine,
    targets=targets,
    scale=scale,
    normalise=normalise,
  )


def red_team(
  observed: inputs.Given,
  *,
  perturbation_key: str,
  control: str,
  covariate_keys: Sequence[str] = (),
  convention: str | Sequence[str] = 'cell-eval',
  metrics: Sequence[str] | None = None,
  options: Mapping[str, Any] | None = None,
  seed: int = 0,
  min_cells: int = 4,
  engine: str = 'auto',
  targets: Mapping[str, Sequence[str]] | None = None,
  layer: str | None = None,
  scale: str = 'auto',
  normalise: float | None = None,
  backed: bool | None = None,
  say: Callable[[str], None] | None = None,
) -> pd.DataFrame:
  """Tries submissions that deserve nothing on a convention's metrics.

  Args:
    observed: the real cells; the arguments are those of `certify`.
    perturbation_key: see `score`.
    control: see `score`.
    covariate_keys: see `score`.
    convention: see `certify`.
    metrics: see `certify`.
    options: see `certify`.
    seed: of the cut in halves and of what is drawn.
    min_cells: see `certify`.
    engine: see `score`.
    targets: see `score`.
    layer: see `score`.
    scale: see `score`.
    normalise: see `score`.
    backed: see `score`.
    say: see `certify`.

  Returns:
    A table with the columns of `metrics.attacks.FIELDS`; `attrs` as of
    `certificate`.

  Raises:
    FileNotFoundError: where there is no such file.
    ValueError: for anything that does not fit, before any long work.
  """
  return _audit(
    attacks.red_team,
    attacks.FIELDS,
    observed,
    choosing.chosen(convention, options, metrics),
    seed=seed,
    min_cells=min_cells,
    say=say,
    perturbation_key=perturbation_key,
    control=control,
    covariate_keys=covariate_keys,
    layer=layer,
    backed=backed,
    engine=engine,
    targets=targets,
    scale=scale,
    normalise=normalise,
  )


def _audit(
  function: Callable[..., list[dict[str, Any]]],
  fields: Sequence[str],
  observed: inputs.Given,
  chosen: choosing.Chosen,
  *,
  seed: int,
  min_cells: int,
  say: Callable[[str], None] | None,
  perturbation_key: str,
  control: str,
  covariate_keys: Sequence[str],
  layer: str | None,
  backed: bool | None,
  **options: Any,
) -> pd.DataFrame:
  """Opens the observed side and calls a function with every convention."""
  real = aligning.open_side(
    observed,
    'observed',
    perturbation_key=perturbation_key,
    covariate_keys=covariate_keys,
    layer=layer,
    backed=backed,
  )
  found = aligning.align(real, real, control=control, audited=True, **options)
  choosing.check_scale(chosen.conventions, found.problem.scale, real.name)
  problem, few = _enough(found.problem, min_cells, control)
  settings, more, warned = rankings.with_uns(
    chosen.conventions, chosen.settings, problem, real
  )
  notes = list(dict.fromkeys([*found.notes, *few, *more]))
  if say is not None:
    for line in notes:
      say(line)
  else:
    for line in (*found.warnings, *few, *warned):
      warnings.warn(line, ScoreWarning, stacklevel=3)
  rows = []
  for one in chosen.conventions:
    rows += function(
      problem,
      one,
      wanted=chosen.wanted[one.name],
      options=settings[one.name],
      seed=seed,
      say=say,
    )
  table = pd.DataFrame(rows, columns=list(fields))
  table.attrs['notes'] = [*notes, *problem.said]
  return table


def _enough(
  problem: problem_lib.Problem, min_cells: int, control: str
) -> tuple[problem_lib.Problem, list[str]]:
  """Leaves out conditions with too few cells to be cut in halves."""
  if min_cells < 2:
    raise ValueError(f'min_cells is {min_cells}; two halves need at least 2')
  number = problem.num_conditions
  sizes = problem.observed.sizes
  for name, size in zip(problem.groups, sizes[number:]):
    if size < 2:
      where = f' in the group {name!r}' if name else ''
      raise ValueError(
        f'the control {control!r} has {size} observed cell(s){where}; two '
        'halves need at least 2'
      )
  few = np.flatnonzero(sizes[:number] < min_cells)
  if not len(few):
    return problem, []
  kept = np.setdiff1d(np.arange(number), few)
  if not len(kept):
    raise ValueError(
      f'no condition has {min_cells} observed cells or more (min_cells); the '
      f'largest has {int(sizes[:number].max())}'
    )
  present = np.unique(problem.group[kept])
  note = (
    f'{len(few)} of {number} condition(s) have fewer than {min_cells} observed '
    'cells (min_cells) and are left out: '
    f'{name_lib.listing(problem.conditions[at] for at in few)}'
  )
  names = [problem.groups[q] for q in present]
  return problem.choose(kept, names, present.tolist()), [note]
