"""Values of conditions as lines of a table, with means and intervals."""

from __future__ import annotations

import collections
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
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

# Means whose intervals are computed at once.
_ROWS = 64


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
  limits = _limits(values, problem, bootstrap)
  lost = lost or {}
  out: list[dict[str, Any]] = []
  for name, found in values.items():
    column = convention.column(name)
    draws = [drawn[name] for drawn in noise]
    if isinstance(found, base.Panel):
      out.append(
        _panel(convention, column, problem, found, draws, bootstrap, lost)
      )
      continue
    half = np.full(problem.num_conditions, np.nan)
    if draws:
      half = _noise(np.stack(draws), bootstrap.level)
    out += _conditions(convention, column, problem, found, half, lost)
    out += _aggregates(
      convention, column, problem, found, draws, limits[name], bootstrap, lost
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


def _panel(convention, column, problem, panel, draws, bootstrap, lost):
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
  unused = max(0, problem.num_conditions - panel.used)
  reasons = [] if np.isfinite(panel.value) else [column.undefined]
  if unused and np.isfinite(panel.value):
    reasons.append(f'{unused}: took no part')
  return _line(
    convention,
    column,
    AGGREGATE,
    value=panel.value,
    low=low,
    high=high,
    used=panel.used,
    dropped=unused + len(lost),
    reason='; '.join(filter(None, [*reasons, *_counted(lost.values())])),
  )


def _conditions(convention, column, problem, values, half, lost):
  """Returns the lines of single conditions, those that are lost as well."""
  undefined = column.undefined or 'not defined'
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
      covariates, problem.conditions, np.asarray(values, np.float64), half
    )
  ]
  return out + [
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


def _aggregates(
  convention, column, problem, values, draws, limits, bootstrap, lost
):
  """Returns the mean of all conditions, and of each of several groups."""
  values = np.asarray(values, np.float64)
  undefined = column.undefined or 'not defined'
  # A group all of whose conditions are lost has a line as well.
  names = list(problem.groups)
  names += sorted({group for group, _ in lost} - set(names))
  out = []
  for number in (None, *range(len(names) if len(names) > 1 else 0)):
    chosen, gone = np.ones(len(values), bool), list(lost.values())
    low = high = np.nan
    if number is not None:
      chosen = np.asarray(problem.group) == number
      gone = [r for (group, _), r in lost.items() if group == names[number]]
    at = 0 if number is None else number + 1
    if at < len(limits):
      low, high = limits[at]
    some = values[chosen]
    number_undefined = int(np.isnan(some).sum())
    value = _mean(some)
    if draws:
      means = [_mean(d[chosen]) for d in draws]
      low, high = _widened(value, low, high, _noise(means, bootstrap.level))
    reasons = []
    if number_undefined:
      reasons.append(f'{number_undefined}: {undefined}')
    if np.isinf(some).any():
      reasons.append(f'{int(np.isinf(some).sum())}: infinite, and in the mean')
    reasons += _counted(gone)
    out.append(
      _line(
        convention,
        column,
        AGGREGATE,
        covariate='' if number is None else names[number],
        value=value,
        low=low,
        high=high,
        used=len(some) - number_undefined,
        dropped=number_undefined + len(gone),
        reason='; '.join(reasons),
      )
    )
  return out


def _counted(reasons: Iterable[str]) -> list[str]:
  counts = collections.Counter(reasons)
  return [f'{number}: {reason}' for reason, number in counts.items()]


def _mean(values: np.ndarray) -> float:
  """Returns the mean of what is defined; NaN for infinities of both signs."""
  known = values[~np.isnan(values)]
  with np.errstate(invalid='ignore'):
    return float(known.mean()) if len(known) else np.nan


def _limits(values, problem, bootstrap) -> dict[str, np.ndarray]:
  """Resamples conditions, all columns at once.

  Args:
    values: of all columns; panels are passed over.
    problem: what is scored.
    bootstrap: how.

  Returns:
    {column: [1 + groups, 2]}, low and high of all conditions and of each group;
    one row without groups. NaN where there are fewer than 2 values, or an
    infinite one, whose mean has no spread.
  """
  kept = {n: x for n, x in values.items() if not isinstance(x, base.Panel)}
  if not kept:
    return {}
  rows = np.stack([np.asarray(x, np.float64) for x in kept.values()])
  parts = [rows[:, None]]
  if len(problem.groups) > 1:
    sizes = np.bincount(problem.group, minlength=len(problem.groups))
    padded = np.full((len(rows), len(sizes), max(sizes)), np.nan)
    for number, size in enumerate(sizes):
      padded[:, number, :size] = rows[:, np.asarray(problem.group) == number]
    parts.append(padded)
  found = [
    _resampled(part.reshape(-1, part.shape[-1]), bootstrap).reshape(
      *part.shape[:2], 2
    )
    for part in parts
  ]
  return dict(zip(kept, np.concatenate(found, axis=1)))


def _resampled(rows: np.ndarray, bootstrap: Bootstrap) -> np.ndarray:
  """Resamples rows [rows, conditions] and returns low and high, [rows, 2]."""
  out = np.full((len(rows), 2), np.nan)
  known = np.sum(~np.isnan(rows), 1)
  usable = np.flatnonzero((known > 1) & ~np.isinf(rows).any(1))
  if bootstrap.over == 'none':
    return out
  for start in range(0, len(usable), _ROWS):
    chosen = usable[start : start + _ROWS]
    # Few sizes of arrays, each of which is compiled once.
    number = 1 << (len(chosen) - 1).bit_length()
    block = np.full((number, rows.shape[1]), np.nan)
    block[: len(chosen)] = rows[chosen]
    with jax.enable_x64(True):
      found = intervals.bootstrap(
        block, bootstrap.seed, num=bootstrap.num, level=bootstrap.level
      )
      ends = np.stack([found.low, found.high], -1)
    out[chosen] = ends[: len(chosen)]
  return out


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
