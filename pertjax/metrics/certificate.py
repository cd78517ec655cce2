"""How far a metric can tell predictions apart on a dataset: its certificate.

A number means little without the numbers that nothing and everything would
get. `certificate` scores, against one half of the real cells, what the other
half has to say (see `stand_ins`):

  control               the control cells: no effect,
  perturbed_mean        one pool of perturbed cells for all conditions,
  technical_duplicate   the other half of each condition's cells,
  interpolated          the duplicate where it is sure, the mean elsewhere
                        (Miller et al. 2025; log values only),
  ceiling               the technical duplicate, mean over several cuts,
  null                  the same on data whose labels were permuted: no effect
                        at all, so that this must be what chance gives.

No correction for the halved number of cells is made: Spearman-Brown's, which
cell-eval 0.8.2 applies, takes a chance level of 1/2 to 2/3.

From these follow the share of the metric's range that a replicate reaches
(dynamic range fraction, Miller et al. 2025) and the share of conditions in
which it beats the mean (bound discrimination score, scPertEval 2026).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from pertjax.metrics import intervals, stand_ins, tested, weighted
from pertjax.metrics import problem as problem_lib
from pertjax.metrics.conventions import base

FIELDS = (
  'convention', 'metric', 'version', 'direction', 'best', 'chance', 'control',
  'perturbed_mean', 'technical_duplicate', 'interpolated', 'ceiling',
  'ceiling_low', 'ceiling_high', 'null', 'null_low', 'null_high',
  'dynamic_range', 'dynamic_range_interpolated', 'bound_discrimination',
  'conditions', 'verdict',
)  # fmt: skip

# Levels of the two tests: whether the null ceiling is at chance, which is asked
# of dozens of metrics at once, and whether a replicate beats the mean.
_NULL_LEVEL = 0.999
# A replicate that reaches less of the range than this tells little.
_LITTLE = 0.05


def certificate(
  problem: problem_lib.Problem,
  convention: base.Convention,
  *,
  wanted: Sequence[str] | None = None,
  options: Mapping[str, Any] | None = None,
  splits: int = 5,
  seed: int = 0,
  say: Callable[[str], None] | None = None,
) -> list[dict[str, Any]]:
  """Calibrates the columns of a convention on the observed cells.

  Args:
    problem: its predicted side is not read.
    convention: of which the columns are.
    wanted: columns; None for all.
    options: of the convention.
    splits: cuts in halves of the ceiling, and permutations of the null.
    seed: of cuts and permutations.
    say: takes a line about what is being scored.

  Returns:
    A line for each column with the keys FIELDS: means over conditions, NaN
    where a column has no value. 'ceiling_low' and 'ceiling_high' are the 95 %
    interval over conditions; 'null_low' and 'null_high' the 99.9 % interval of
    the mean over permutations.

  Raises:
    ValueError: where a condition or control has fewer than 2 cells, or splits
      is below 2.
  """
  if splits < 2:
    raise ValueError(f'splits is {splits}; at least 2 are needed')

  def scored(name, found, predicted):
    if say is not None:
      say(f'{convention.name}: scoring {name}')
    return base.evaluate(
      convention,
      found.problem.with_sides(None, predicted),
      wanted=wanted,
      options=options,
    )

  first = stand_ins.halves(problem, seed)
  values = {
    'control': scored('the control', first, stand_ins.control_copy(first)),
    'perturbed_mean': scored(
      'the perturbed mean', first, stand_ins.perturbed_mean(first)
    ),
  }
  if problem.scale == 'log1p':
    sure = 1 - tested.de(first.problem, 'predicted', tested.Settings()).fdr
    weight = np.where(np.isnan(sure), 0, sure)
    values['interpolated'] = scored(
      'the interpolated duplicate', first, stand_ins.interpolated(first, weight)
    )
  ceilings, nulls = [], []
  for k in range(splits):
    cut = first
    if k:
      # The second of a pair exchanges the sides of the first.
      cut = stand_ins.halves(problem, seed + k // 2, turn=k % 2)
    ceilings.append(
      scored(f'replicate {k + 1} of {splits}', cut, stand_ins.replicate(cut))
    )
    still = stand_ins.null(problem, seed + k)
    cut = stand_ins.halves(still, seed + k)
    nulls.append(
      scored(f'null {k + 1} of {splits}', cut, stand_ins.replicate(cut))
    )
  return [
    line(
      convention.name,
      convention.column(name),
      base.chance_of(convention.column(name), problem),
      {key: found[name] for key, found in values.items()},
      [found[name] for found in ceilings],
      [found[name] for found in nulls],
      seed,
    )
    for name in ceilings[0]
  ]


def mean_of(values: np.ndarray | base.Panel) -> float:
  """Returns the mean over the conditions that have a value."""
  if isinstance(values, base.Panel):
    return values.value
  known = values[~np.isnan(values)]
  return float(known.mean()) if len(known) else math.nan


def dynamic_range(
  column: base.Column, positive: float, negative: float
) -> float:
  """Returns what of the range a positive control covers: `weighted.drf`.

  NaN where the metric has no best value.
  """
  if column.best is None or column.direction == 'none':
    return math.nan
  return float(
    weighted.drf(
      positive, negative, perfect=column.best, direction=column.direction
    )
  )


def line(
  convention: str,
  column: base.Column,
  chance: float | None,
  values: Mapping[str, np.ndarray | base.Panel],
  ceilings: Sequence[np.ndarray | base.Panel],
  nulls: Sequence[np.ndarray | base.Panel],
  seed: int,
) -> dict[str, Any]:
  """Makes the line of one column; see `certificate`.

  Args:
    convention: its name.
    column: what is calibrated.
    chance: its chance value here; None where unknown.
    values: of 'control', 'perturbed_mean' and, where it was made,
      'interpolated'.
    ceilings: of the replicate, one for each cut; the first is the technical
      duplicate.
    nulls: the same without effects.
    seed: of the bootstrap.
  """

  def mean(key):
    return mean_of(values[key]) if key in values else math.nan

  out = {
    'convention': convention,
    'metric': column.name,
    'version': column.version,
    'direction': column.direction,
    'best': math.nan if column.best is None else column.best,
    'chance': math.nan if chance is None else chance,
    **{k: mean(k) for k in ('control', 'perturbed_mean', 'interpolated')},
    'technical_duplicate': mean_of(ceilings[0]),
  }
  if isinstance(ceilings[0], base.Panel):
    each = np.asarray([c.value for c in ceilings])
    used = ceilings[0].used
    low = high = math.nan
  else:
    with np.errstate(invalid='ignore'):
      each = _nanmean(np.stack(ceilings))
    used = int((~np.isnan(each)).sum())
    low = high = math.nan
    if used > 1 and np.isfinite(each[~np.isnan(each)]).all():
      found = intervals.bootstrap(each, seed)
      low, high = float(found.low), float(found.high)
  ceiling = mean_of(each)
  null = np.asarray([mean_of(n) for n in nulls])
  null_mean, null_low, null_high = _interval(null)
  # Against the mean there is no correlation of effects with the mean itself;
  # there the control is the worse end.
  negative = out['perturbed_mean']
  if math.isnan(negative):
    negative = out['control']
  out |= {
    'ceiling': ceiling,
    'ceiling_low': low,
    'ceiling_high': high,
    'null': null_mean,
    'null_low': null_low,
    'null_high': null_high,
    'dynamic_range': dynamic_range(column, ceiling, negative),
    'dynamic_range_interpolated': dynamic_range(
      column, out['interpolated'], negative
    ),
    'bound_discrimination': _wins(
      column, ceilings[0], values['perturbed_mean'], values['control']
    ),
    'conditions': used,
  }
  out['verdict'] = _verdict(column, out)
  return {key: out[key] for key in FIELDS}


def _nanmean(values: np.ndarray) -> np.ndarray:
  known = ~np.isnan(values)
  number = known.sum(0)
  total = np.where(known, values, 0).sum(0)
  return np.where(number > 0, total / np.maximum(number, 1), np.nan)


def _interval(values: np.ndarray) -> tuple[float, float, float]:
  """Mean and interval of a few independent values, by the t distribution."""
  known = values[np.isfinite(values)]
  if len(known) < 2:
    return mean_of(values), math.nan, math.nan
  normal = statistics.NormalDist().inv_cdf((1 + _NULL_LEVEL) / 2)
  wide = float(intervals.student_quantile(normal, len(known) - 1))
  half = wide * float(known.std(ddof=1)) / math.sqrt(len(known))
  mean = float(known.mean())
  return mean, mean - half, mean + half


def _wins(column, positive, negative, control) -> float:
  """Share of conditions in which the positive control is strictly better."""
  if isinstance(positive, base.Panel) or column.direction == 'none':
    return math.nan
  negative = np.where(np.isnan(negative), control, negative)
  known = ~(np.isnan(positive) | np.isnan(negative))
  if not known.any():
    return math.nan
  better = (
    positive > negative
    if column.direction == 'higher'
    else (positive < negative)
  )
  return float(better[known].mean())


def _verdict(column, line) -> str:
  """Says in a few words what the numbers mean."""
  if column.direction == 'none':
    return 'a diagnostic: nothing is better or worse'
  if math.isnan(line['ceiling']):
    return 'no value on this dataset'
  faults = []
  chance = line['chance']
  if math.isfinite(chance) and math.isfinite(line['null']):
    spread = line['null_high'] - line['null_low']
    low, high = line['null_low'], line['null_high']
    if math.isnan(spread) or spread < 1e-9:
      low, high = line['null'] - 1e-9, line['null'] + 1e-9
    if not low <= chance <= high:
      faults.append(
        f'reads {line["null"]:.3g} where nothing happens, not {chance:g}'
      )
  reach = line['dynamic_range']
  if math.isfinite(reach) and reach <= 0:
    faults.append('a replicate is no better than the mean')
  elif math.isfinite(reach) and reach < _LITTLE:
    faults.append(f'a replicate reaches {reach:.1%} of the range only')
  if faults:
    return '; '.join(faults)
  if math.isnan(reach):
    return 'nothing to compare a replicate with: the mean has no value'
  return 'tells a replicate from the mean'
