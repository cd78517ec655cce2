"""Scores on a scale: what a value is between a baseline and what is possible.

Everything takes means by column, {column: number}, as `anchors.means` makes
them of a problem, or as a table holds them. Three published scales:

  * `from_baseline`, cell-eval 0.8.2's `score`: 1 - u / b where 0 is best and
    (u - b) / (1 - b) where 1 is, not below 0, and their mean;
  * `vcc2025_score`, the same of DES, PDS and MAE, times 100 (Virtual Cell
    Challenge 2025);
  * `between`, (u - b) / (r - b) with a replicate at 1, and `vcc2026_score`,
    that of the six metrics of the Virtual Cell Challenge 2026.

`anchors` makes the ends of a scale of the observed cells.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from pertjax import names as name_lib
from pertjax.metrics import registry
from pertjax.metrics.conventions import base, vcc2025, vcc2026

AVERAGE = 'avg_score'
UNDEFINED = ('keep', 'zero')

Means = Mapping[str, float]


def _columns(given: Sequence[Means], wanted: Iterable[str]) -> list[str]:
  """Returns the names that all tables must have.

  Raises:
    ValueError: when one lacks a name.
  """
  wanted = list(wanted)
  for table in given:
    for name in wanted:
      if name not in table:
        raise ValueError(name_lib.unknown('column of a scale', name, table))
  return wanted


def _average(values: Mapping[str, float]) -> float:
  known = [v for v in values.values() if not np.isnan(v)]
  return float(np.mean(known)) if known else float('nan')


def from_baseline(
  values: Means,
  baseline: Means,
  *,
  convention: base.Convention,
  undefined: str = 'keep',
) -> dict[str, float]:
  """Scales means to 0 for the baseline and 1 for the best.

  1 - u / b where 0 is best, (u - b) / (1 - b) where 1 is, not below 0;
  cell-eval 0.8.2, `score_agg_metrics`.

  Args:
    values: {column: mean} of a prediction; columns whose best is neither 0 nor
      1 are left out.
    baseline: the same of the baseline, every column of `values` at least.
    convention: says what is best.
    undefined: 'zero' scores NaN as 0, as the tool does: a metric that has no
      value for anybody then counts as a failure. 'keep' keeps NaN, which
      leaves the average.

  Returns:
    {column: score}, and their mean as 'avg_score'.

  Raises:
    ValueError: when a name is unknown or the baseline lacks a column.
  """
  registry.check_choice('undefined', undefined, UNDEFINED)
  best = {name: convention.column(name).best for name in values}
  names = _columns([baseline], [n for n in values if best[n] in (0.0, 1.0)])
  found = {}
  for name in names:
    u, b = np.float64(values[name]), np.float64(baseline[name])
    with np.errstate(divide='ignore', invalid='ignore'):
      score = 1 - u / b if best[name] == 0 else (u - b) / (1 - b)
    if undefined == 'zero' and np.isnan(score):
      score = 0.0
    found[name] = float(np.maximum(score, 0))
  return found | {AVERAGE: _average(found)}


def vcc2025_score(values: Means, baseline: Means) -> dict[str, float]:
  """Returns DES, PDS, MAE and 'overall' of the Virtual Cell Challenge 2025.

  Args:
    values: means with the columns of convention 'vcc2025'; others are ignored.
    baseline: the same of the mean of all training cells.

  Returns:
    Scaled scores as in `from_baseline`, NaN as 0 as in the tool, times 100,
    and their mean.

  Raises:
    ValueError: when a column is lacking.
  """
  convention = vcc2025.CONVENTIONS[0]
  names = _columns([values, baseline], [c.name for c in convention.columns])
  found = from_baseline(
    {name: values[name] for name in names},
    baseline,
    convention=convention,
    undefined='zero',
  )
  scored = {
    convention.column(name).aliases[0]: 100 * found[name] for name in names
  }
  return scored | {'overall': 100 * found[AVERAGE]}


def between(
  values: Means,
  low: Means,
  high: Means,
  *,
  columns: Iterable[str] | None = None,
) -> dict[str, float]:
  """Returns (u - b) / (r - b) of each column, and the mean as 'avg_score'.

  0 is the baseline's value and 1 the replicate's, whichever is larger; scores
  below 0 and above 1 stay.

  Args:
    values: {column: mean} of a prediction.
    low: b, the same of a baseline.
    high: r, the same of a replicate.
    columns: which; None for all of `values`.

  Returns:
    {column: score}; NaN where b = r or one is NaN, which leaves the average.

  Raises:
    ValueError: when a table lacks a column.
  """
  names = _columns([values, low, high], values if columns is None else columns)
  found = {}
  for name in names:
    width = np.float64(high[name]) - low[name]
    # Without a width, there is no scale.
    width = width if width != 0 else np.float64(np.nan)
    found[name] = float((values[name] - low[name]) / width)
  return found | {AVERAGE: _average(found)}


def vcc2026_score(values: Means, low: Means, high: Means) -> dict[str, float]:
  """Returns the six scores of the Virtual Cell Challenge 2026 and their mean.

  Args:
    values: means with the columns of convention 'vcc2026'; others are ignored.
    low: of a mean response, see `anchors.baseline`.
    high: of replicates, see `anchors.replicate`.
  """
  return between(values, low, high, columns=vcc2026.SCORED)


def spearman_brown(r: float) -> float:
  """Returns 2 r / (1 + r), a correlation of halves at twice the depth.

  NaN for r of 0 or below. Spearman and Brown, British Journal of Psychology 3,
  1910: for the correlation of two sums of items. It is neither exact for ranks
  and shares nor for a value that is above 0 by chance: on permuted labels a
  score of 1/2 becomes 2/3.
  """
  return 2 * r / (1 + r) if r > 0 else float('nan')
