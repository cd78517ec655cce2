"""Values of conditions as lines of a table, with means and intervals."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from pertjax import names as name_lib
from pertjax.metrics import intervals, sides
from pertjax.metrics import problem as problem_lib
from pertjax.metrics.conventions import base

BOOTSTRAPS = ('conditions', 'cells', 'none')
FIELDS = (
  'convention', 'metric', 'version', 'level', 'covariate', 'condition', 'value',
  'low', 'high', 'used', 'dropped', 'reason',
)  # fmt: skip
CONDITION, AGGREGATE = 'condition', 'aggregate'


class Bootstrap(NamedTuple):
  """How intervals are made.

  Attributes:
    over: 'conditions'; 'cells', which adds the noise of the cells within each
      condition to it; or 'none'.
    num: draws of conditions.
    num_cells: draws of cells; each scores everything again.
    level: nominal coverage.
    seed: of all draws.
  """

  over: str = 'conditions'
  num: int = 2000
  num_cells: int = 20
  level: float = 0.95
  seed: int = 0


def lines(
  convention: base.Convention,
  problem: problem_lib.Problem,
  *,
  wanted: Sequence[str] | None = None,
  options: Mapping[str, Any] | None = None,
  bootstrap: Bootstrap = Bootstrap(),  # noqa: B008, immutable.
  lost: Mapping[tuple[str, str], str] | None = None,
) -> list[dict[str, Any]]:
  """Scores a problem and returns one line a value; see FIELDS.

  A line of level 'condition' has the value of one condition, and an interval
  where cells are resampled. A line of level 'aggregate' has the mean over the
  conditions that have a value, how many those are and how many have none; with
  several covariate groups there is one more for each.

  Args:
    convention: how to score.
    problem: what.
    wanted: columns; None for all.
    options: of the convention.
    bootstrap: how intervals are made.
    lost: {(group, condition): reason} conditions that are not in the problem
      and count as dropped.

  Raises:
    ValueError: when a name or an option is unknown.
  """
  if bootstrap.over not in BOOTSTRAPS:
    raise ValueError(name_lib.unknown('bootstrap', bootstrap.over, BOOTSTRAPS))
  values = base.evaluate(convention, problem, wanted=wanted, options=options)
  noise: list[Mapping[str, Any]] = []
  if bootstrap.over == 'cells':
    random = np.random.default_rng(bootstrap.seed)
    for _ in range(bootstrap.num_cells):
      again = resample_cells(problem, random)
      noise.append(
        base.evaluate(convention, again, wanted=wanted, options=options)
      )
  out: list[dict[str, Any]] = []
  for name, found in values.items():
    column = convention.column(name)
    draws = [drawn[name] for drawn in noise]
    if isinstance(found, base.Panel):
      out.append(_panel(convention, column, found, draws, bootstrap, lost))
    else:
      out += _conditions(
        convention, column, problem, found, draws, bootstrap, lost or {}
      )
  return out


def resample_cells(
  problem: problem_lib.Problem, random: np.random.Generator
) -> problem_lib.Problem:
  """Draws the cells of every label with replacement, on both sides."""

  def drawn(side: sides.Side) -> sides.Side:
    members = [side.members(label) for label in range(side.num_labels)]
    cells = [m[random.integers(0, len(m), len(m))] for m in members if len(m)]
    labels = np.repeat(np.arange(side.num_labels), [len(m) for m in members])
    return side.relabelled(labels, side.num_labels, cells=np.concatenate(cells))

  return problem.with_sides(drawn(problem.observed), drawn(problem.predicted))


def _line(convention, column, level, **fields) -> dict[str, Any]:
  known = dict.fromkeys(FIELDS, '')
  known |= {'low': np.nan, 'high': np.nan, 'used': 0, 'dropped': 0}
  known |= fields
  # An interval by the normal distribution may leave the range of the metric.
  for end in ('low', 'high'):
    if np.isfinite(known[end]):
      known[end] = float(np.clip(known[end], *column.bounds))
  return known | {
    'convention': convention.name,
    'metric': column.name,
    'version': column.version,
    'level': level,
  }


def _panel(convention, column, panel, draws, bootstrap, lost):
  low = high = np.nan
  if bootstrap.over != 'none' and panel.draw and np.isfinite(panel.value):
    random = np.random.default_rng(bootstrap.seed)
    found = panel.draw(random, bootstrap.num)
    known = found[np.isfinite(found)]
    if len(known):
      tail = (1 - bootstrap.level) / 2
      low, high = np.quantile(known, [tail, 1 - tail])
  wide = _noise([d.value for d in draws], bootstrap.level)
  low, high = _widened(panel.value, low, high, wide)
  return _line(
    convention,
    column,
    AGGREGATE,
    value=panel.value,
    low=low,
    high=high,
    used=panel.used,
    dropped=len(lost or ()),
    reason='' if np.isfinite(panel.value) else column.undefined,
  )


def _conditions(convention, column, problem, values, draws, bootstrap, lost):
  values = np.asarray(values, np.float64)
  undefined = column.undefined or 'not defined'
  half = np.full(values.shape, np.nan)
  if draws:
    half = _noise(np.stack(draws), bootstrap.level)
  covariates = [problem.groups[q] for q in problem.group]
  out = [
    _line(
      convention,
      column,
      CONDITION,
      covariate=covariate,
      condition=condition,
      value=value,
      low=value - wide,
      high=value + wide,
      used=int(not np.isnan(value)),
      dropped=int(np.isnan(value)),
      reason=undefined if np.isnan(value) else '',
    )
    for covariate, condition, value, wide in zip(
      covariates, problem.conditions, values, half
    )
  ]
  out += [
    _line(
      convention,
      column,
      CONDITION,
      covariate=group,
      condition=condition,
      value=np.nan,
      dropped=1,
      reason=reason,
    )
    for (group, condition), reason in lost.items()
  ]
  several = len(problem.groups) > 1
  for number in (None, *range(len(problem.groups) if several else 0)):
    chosen = np.ones(len(values), bool)
    gone = list(lost)
    if number is not None:
      chosen = np.asarray(problem.group) == number
      gone = [key for key in gone if key[0] == problem.groups[number]]
    some = values[chosen]
    number_undefined = int(np.isnan(some).sum())
    low, high = _interval(some, bootstrap)
    value = np.nanmean(some) if number_undefined < len(some) else np.nan
    if draws:
      with np.errstate(invalid='ignore'):
        means = [_mean(d[chosen]) for d in draws]
      wide = _noise(means, bootstrap.level)
      low, high = _widened(value, low, high, wide)
    reasons = []
    if number_undefined:
      reasons.append(f'{number_undefined} {undefined}')
    if gone:
      reasons.append(f'{len(gone)} {lost[gone[0]]}')
    out.append(
      _line(
        convention,
        column,
        AGGREGATE,
        covariate='' if number is None else problem.groups[number],
        value=value,
        low=low,
        high=high,
        used=len(some) - number_undefined,
        dropped=number_undefined + len(gone),
        reason='; '.join(reasons),
      )
    )
  return out


def _mean(values: np.ndarray) -> float:
  known = values[~np.isnan(values)]
  return float(known.mean()) if len(known) else np.nan


def _interval(values: np.ndarray, bootstrap: Bootstrap) -> tuple[float, float]:
  """Resamples conditions; NaN for infinite values, whose mean has no spread."""
  known = values[~np.isnan(values)]
  if bootstrap.over == 'none' or not np.isfinite(known).all():
    return np.nan, np.nan
  found = intervals.bootstrap(
    values, bootstrap.seed, num=bootstrap.num, level=bootstrap.level
  )
  return float(found.low), float(found.high)


def _noise(draws: Any, level: float) -> Any:
  """Half the width of the interval that the draws' spread gives."""
  if len(draws) < 2:
    return np.nan
  factor = statistics.NormalDist().inv_cdf((1 + level) / 2)
  return factor * np.std(np.asarray(draws, np.float64), axis=0, ddof=1)


def _widened(value, low, high, half) -> tuple[float, float]:
  """Adds an independent source of noise to an interval, in quadrature."""
  if not np.isfinite(half):
    return float(low), float(high)
  if not np.isfinite(low):
    return float(value - half), float(value + half)
  return (
    float(value - np.hypot(value - low, half)),
    float(value + np.hypot(high - value, half)),
  )
