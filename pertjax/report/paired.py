"""Place the paired tests of a run, eval/paired.csv, beside its tables."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pertjax.report import columns, scores

FILE = 'eval/paired.csv'
# Relative rounding of a float32 sum over thousands of genes.
ROUNDING = 1e-6
# Words of the file, and how a page calls them.
TONES = {
  'better': 'better',
  'worse': 'worse',
  'no difference shown': 'unclear',
  'too few conditions': 'few',
  'not tested': 'none',
}
# Numbers of a line that the page shows beside the difference.
SHOWN = (
  'p_adjusted',
  'tests',
  'effect',
  'won',
  'conditions',
  'seeds',
  'detectable',
)


class Paired(NamedTuple):
  """Every model against the best baseline; NaN where there is no line.

  Attributes:
    rivals: int [splits, regimes, combos], the baseline; -1 for none.
    mean: [splits, regimes, models, combos] model minus rival, as the metric
      counts: negative is better where lower is.
    low: its 95% interval.
    high: its other end.
    numbers: {name of SHOWN: [splits, regimes, models, combos]}.
    tones: int [splits, regimes, models, combos], place in TONES; -1 for none.
    notes: what of the file is not shown.
  """

  rivals: np.ndarray
  mean: np.ndarray
  low: np.ndarray
  high: np.ndarray
  numbers: dict[str, np.ndarray]
  tones: np.ndarray
  notes: tuple[str, ...]


def make(table: columns.Table, axes: scores.Axes) -> Paired:
  """Spreads eval/paired.csv over dense arrays.

  Args:
    table: read with read.PAIRED_TEXT and read.PAIRED_NUMBERS.
    axes: names; lines with others are counted in `notes`.

  Raises:
    ValueError: two lines have the same place, one place has two rivals, or a
      verdict or direction is not known.
  """
  sign = _codes(table, 'direction', ('lower', 'higher')) * 2 - 1
  tones = _codes(table, 'verdict', tuple(TONES))
  combos, combo = scores.combos(table)
  known = np.array([axes.combos.index(c) if c in axes.combos else -1
                    for c in combos], int)  # fmt: skip
  place = [
    _places(table, 'split', axes.splits),
    _places(table, 'regime', axes.regimes),
    _places(table, 'model', axes.models),
    known[combo] if len(known) else combo,
  ]
  against = _places(table, 'against', axes.models)
  kept = np.all([at >= 0 for at in (*place, against)], 0)
  place = [at[kept] for at in place]
  shape = tuple(map(len, (axes.splits, axes.regimes, axes.models, axes.combos)))
  flat = np.ravel_multi_index(place, shape) if kept.any() else kept[:0]
  _check_once(flat, shape, axes)

  def dense(values, empty):
    out = np.full(shape, empty)
    out.reshape(-1)[flat.astype(int)] = values[kept]
    return out

  found = {name: table.numbers[name] for name in ('difference', 'low', 'high')}
  low, high = (
    np.where(sign > 0, found[a], -found[b])
    for a, b in (('low', 'high'), ('high', 'low'))
  )
  out = int((~kept).sum())
  notes = []
  if out:
    notes.append(
      f'{out:,} of {len(kept):,} lines of {FILE} are of a model, split, regime '
      'or metric that the other tables do not have; they are not shown.'
    )
  infinite = int((table.numbers['infinite'] > 0).sum())
  if infinite:
    notes.append(
      f'{infinite:,} paired comparisons hold infinite values; their conditions '
      'are left out of them.'
    )
  return Paired(
    rivals=_rivals(place, against[kept], shape, axes),
    mean=dense(sign * found['difference'], np.nan),
    low=dense(low, np.nan),
    high=dense(high, np.nan),
    numbers={name: dense(table.numbers[name], np.nan) for name in SHOWN},
    tones=dense(tones, -1),
    notes=tuple(notes),
  )


def _places(table, column, names) -> np.ndarray:
  """Place of each row's text in `names`, -1 where it is not there."""
  own, codes = table.text[column]
  at = np.array([names.index(n) if n in names else -1 for n in own], int)
  return at[codes] if len(at) else codes.astype(int)


def _codes(table, column, allowed) -> np.ndarray:
  for word in table.text[column][0]:
    if word not in allowed:
      raise ValueError(
        f'{FILE}: {column} {word!r} is not known, expected one of '
        f'{", ".join(map(repr, allowed))}'
      )
  return _places(table, column, allowed)


def _check_once(flat, shape, axes) -> None:
  if len(np.unique(flat)) == len(flat):
    return
  first = int(np.flatnonzero(np.bincount(flat) > 1)[0])
  s, r, m, c = map(int, np.unravel_index(first, shape))
  raise ValueError(
    f'{FILE}: two lines for model {axes.models[m]!r}, split '
    f'{axes.splits[s]!r}, regime {axes.regimes[r]!r}, '
    f'{"/".join(axes.combos[c])}'
  )


def _rivals(place, against, shape, axes) -> np.ndarray:
  split, regime, _, combo = place
  rivals = np.full((shape[0], shape[1], shape[3]), -1)
  rivals[split, regime, combo] = against
  bad = np.flatnonzero(rivals[split, regime, combo] != against)
  if len(bad):
    s, r, c = (int(x[bad[0]]) for x in (split, regime, combo))
    raise ValueError(
      f'{FILE}: models of split {axes.splits[s]!r}, regime '
      f'{axes.regimes[r]!r}, {"/".join(axes.combos[c])} are compared with two '
      f'baselines, {axes.models[int(against[bad[0]])]!r} and '
      f'{axes.models[int(rivals[s, r, c])]!r}'
    )
  return rivals
