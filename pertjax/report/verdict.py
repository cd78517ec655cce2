"""Say in words what the numbers allow, and no more."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from pertjax.report import paired, scores

# What the page opens with, unless the configuration says otherwise.
HEADLINE = ('delta', 'all', 'pearson')
# Scores with 0 for no agreement and 1 for the best: only for these does a
# share of the ceiling mean something.
_RATIO_METRICS = ('pearson', 'cosine', 'r2')
_METRICS = {
  'pearson': 'Pearson r',
  'cosine': 'cosine similarity',
  'r2': 'R²',
  'rmse': 'RMSE',
  'mse': 'MSE',
  'mae': 'MAE',
  'top_k_recall': 'recall of the most changed genes',
}
_AGGREGATES = {
  'delta': 'the change from control',
  'logfc': 'the log fold change',
  'average': 'mean expression',
}


class Reading(NamedTuple):
  """One comparison of the run's model with the best baseline.

  Attributes:
    regime: name.
    model, baseline: index, or -1.
    score, rival, ceiling: (mean, low, high), NaN where unknown.
    difference: (mean, low, high) of model minus baseline.
    test: numbers of the paired test by their names in paired.SHOWN; empty
      without one, where `difference` is that of the means.
    share, rival_share: of the ceiling, over the pairs that have both; or NaN.
    tone: 'better', 'worse', 'unclear', 'few' or 'none'.
  """

  regime: str
  model: int
  baseline: int
  score: tuple[float, float, float]
  rival: tuple[float, float, float]
  ceiling: tuple[float, float, float]
  difference: tuple[float, float, float]
  test: dict[str, float]
  share: float
  rival_share: float
  tone: str


def headline_combo(axes: scores.Axes, config: Mapping[str, Any] | None) -> int:
  """Returns the combination that the page opens with.

  It is the one that the configuration prints first, if the tables hold it.
  """
  chosen = scores.section(config, 'eval').get('leaderboard')
  chosen = tuple(chosen) if isinstance(chosen, list) else None
  for combo in (chosen, HEADLINE):
    if combo in axes.combos:
      return axes.combos.index(combo)
  return 0


def describe(combo: tuple[str, str, str]) -> str:
  """Returns a combination in words."""
  aggregate, genes, metric = combo
  base = metric.removesuffix(scores.RANK)
  words = _METRICS.get(base, base)
  if metric != base:
    words = f'{words} rank'
  of = _AGGREGATES.get(aggregate, aggregate)
  over = genes
  if genes == 'all':
    over = 'all genes'
  elif genes.removeprefix('top').isdigit():
    over = f'the top {genes.removeprefix("top")} genes'
  return words + (f' of {of}' if of else '') + (f' over {over}' if over else '')


def read(
  axes: scores.Axes,
  table: dict[str, np.ndarray],
  grid: scores.Grid | None,
  tests: paired.Paired | None,
  *,
  split: int,
  regime: int,
  combo: int,
) -> Reading:
  """Compares the run's model with the best baseline in one regime.

  Args:
    axes: names.
    table: see scores.make_scores.
    grid: single values of the split, None where eval/metrics.csv is missing.
    tests: see paired.make; None where eval/paired.csv is missing.
    split: which.
    regime: which.
    combo: which.
  """
  metric = axes.combos[combo][2]
  direction = axes.directions.get(metric)
  means = table['mean'][split, regime, :, combo]
  trained = [i for i, kind in enumerate(axes.kinds) if kind == 'trained']
  model = axes.primary
  if model < 0:
    model = scores.best_of(means, trained, direction)
  baseline = -1 if tests is None else int(tests.rivals[split, regime, combo])
  if baseline in (-1, model):
    baseline = scores.best_of(means, axes.baselines, direction)
  ceiling = (
    axes.models.index(scores.CEILING) if scores.CEILING in axes.models else -1
  )

  def score(index):
    if index < 0:
      return (math.nan,) * 3
    place = (split, regime, index, combo)
    return tuple(float(table[key][place]) for key in ('mean', 'low', 'high'))

  reading = Reading(
    regime=axes.regimes[regime],
    model=model,
    baseline=baseline,
    score=score(model),
    rival=score(baseline),
    ceiling=score(ceiling),
    difference=(math.nan,) * 3,
    test={},
    share=math.nan,
    rival_share=math.nan,
    tone='none',
  )
  if model < 0 or not math.isfinite(reading.score[0]):
    return reading
  values = None
  if grid is not None:
    values = grid.values[:, combo, grid.in_regime(axes.regimes[regime])]
  if metric in _RATIO_METRICS and reading.ceiling[1] > 0:
    reading = reading._replace(
      share=_share(means, values, model, ceiling),
      rival_share=_share(means, values, baseline, ceiling),
    )
  if baseline < 0 or direction is None:
    return reading
  place = (split, regime, model, combo)
  if tests is not None and tests.tones[place] >= 0:
    return reading._replace(
      difference=tuple(
        float(x[place]) for x in (tests.mean, tests.low, tests.high)
      ),
      test={key: float(x[place]) for key, x in tests.numbers.items()},
      tone=tuple(paired.TONES.values())[tests.tones[place]],
    )
  return _unpaired(reading, 1 if direction == 'higher' else -1)


def sentence(
  reading: Reading, axes: scores.Axes, combo: int
) -> list[tuple[str, str]]:
  """Returns the verdict as (style, text) pieces.

  Styles: 'name', 'number', the reading's tone, or '' for plain text.
  """
  words = describe(axes.combos[combo])
  direction = axes.directions.get(axes.combos[combo][2])
  if reading.model < 0:
    if reading.baseline < 0:
      return [('', f'The tables hold no {words} of any model.')]
    return [
      ('', 'No trained model is in the tables. The best baseline, '),
      ('name', axes.models[reading.baseline]),
      ('', ', reaches '),
      ('number', number(reading.rival[0])),
      ('', f' on {words}.'),
    ]
  model = ('name', axes.models[reading.model])
  if not math.isfinite(reading.score[0]):
    return [model, ('', f' has no {words}: nothing can be said.')]
  if math.isfinite(reading.share):
    pieces = [
      model,
      ('', ' reaches '),
      ('number', f'{reading.share:.2f}'),
      ('', f' of the replicate ceiling on {words}'),
    ]
    rival = f'{reading.rival_share:.2f}'
  else:
    better = f' ({direction} is better)' if direction else ''
    pieces = [
      model,
      ('', ' has '),
      ('number', number(reading.score[0])),
      ('', f' on {words}{better}'),
    ]
    rival = number(reading.rival[0])
  if reading.baseline < 0:
    return [*pieces, ('', '. There is no baseline to compare it with.')]
  pieces += [
    ('', '; the best baseline, '),
    ('name', axes.models[reading.baseline]),
    ('', ', '),
    ('number', rival),
    ('', '. '),
  ]
  ends = {
    'better': 'The model beats it.',
    'worse': 'The model does not beat it: the baseline is better.',
    'unclear': 'The model does not clearly beat it.',
    'few': 'There are too few conditions to tell them apart.',
    'none': 'They cannot be compared.',
  }
  return [*pieces, (reading.tone, ends[reading.tone])]


def evidence(reading: Reading, *, unit: str = 'conditions') -> str:
  """Returns what the verdict rests on, in a few sentences.

  Args:
    reading: the verdict.
    unit: what one value stands for, in the plural.
  """
  if reading.tone == 'none':
    return ''
  mean, low, high = reading.difference
  scale = gap_scale(reading)
  words = f'Difference {number(mean, scale)}'
  if not reading.test:
    overlap = 'overlap' if reading.tone == 'unclear' else 'do not overlap'
    return (
      f'{words}; the two 95% intervals {overlap}. There is no paired test: '
      'eval/paired.csv does not hold this comparison.'
    )
  test = reading.test
  interval = ''
  if math.isfinite(low):
    interval = f' (95% interval {number(low, scale)} to {number(high, scale)})'
  words += f'{interval}, paired over {test["conditions"]:.0f} held-out {unit}'
  if test['seeds'] > 1:
    words += f' and {test["seeds"]:.0f} seeds'
  if reading.tone == 'few':
    return (
      f'{words}. With so few of them no difference could have been significant.'
    )
  family = f', adjusted for {test["tests"]:.0f} models' * (test['tests'] > 1)
  words += f': {p_words(test["p_adjusted"])}{family}'
  if math.isfinite(test['effect']):
    words += (
      f'; {number(abs(test["effect"]))} standard deviations of the paired '
      'differences'
    )
  if math.isfinite(test['won']):
    words += f'; better in {test["won"]:.0%} of the {unit}'
  words += '.'
  if math.isfinite(test['detectable']):
    least = number(test['detectable'], scale)
    words += f' A difference of {least} would have been found with 80% power.'
  if test['seeds'] == 1:
    words += ' Of one seed: how far another would move it is not in these.'
  return words


def p_words(p: float) -> str:
  """Returns a p-value as a reader wants it."""
  if not math.isfinite(p):
    return 'no p'
  return 'p < 0.001' if p < 0.001 else f'p = {p:.2g}'


def gap_scale(reading: Reading) -> float:
  """Returns the scale to print a difference at, for `number`.

  As many decimals as the scores have, and two significant ones at least.
  """
  gap = max(
    (abs(x) for x in reading.difference if math.isfinite(x)), default=0.0
  )
  own = [abs(x) for x in (*reading.score, *reading.rival) if math.isfinite(x)]
  score = max(own, default=0.0)
  return min(10 * gap or math.inf, score or math.inf)


def number(value: float, scale: float | None = None) -> str:
  """Formats a value to three significant digits of `scale`."""
  if not math.isfinite(value):
    return '–'
  size = abs(value if scale is None else scale)
  known = size > 0 and math.isfinite(size)
  digits = 2 - math.floor(math.log10(size)) if known else 2
  # A rounded zero has no sign.
  text = f'{value:.{min(max(digits, 0), 6)}f}'
  if float(text) == 0:
    text = text.lstrip('-')
  return text.replace('-', '−')


def _share(
  means: np.ndarray, values: np.ndarray | None, model: int, ceiling: int
) -> float:
  """Returns mean(model) / mean(ceiling) over the pairs that have both."""
  if model < 0:
    return math.nan
  if values is None:
    return float(means[model] / means[ceiling])
  both = np.isfinite(values[model]) & np.isfinite(values[ceiling])
  top = values[ceiling, both].sum()
  return float(values[model, both].sum() / top) if top > 0 else math.nan


def _unpaired(reading: Reading, sign: int) -> Reading:
  gap = reading.score[0] - reading.rival[0]
  if not all(map(math.isfinite, (*reading.score, *reading.rival))):
    return reading
  apart = (
    reading.score[1] > reading.rival[2] or reading.score[2] < reading.rival[1]
  )
  tone = ('better' if sign * gap > 0 else 'worse') if apart else 'unclear'
  return reading._replace(difference=(gap, math.nan, math.nan), tone=tone)
