"""Every model against the best baseline, as lines of a table.

For each regime and metric the rival is the baseline with the best mean, chosen
by the values that are compared: that favours the rival, so that 'better' is
safe, while 'worse' may be the luck of the choice where many baselines are about
as good. What is judged are the models that are no baselines; they are one
family of Holm's within a regime and a metric, which is one leaderboard. Who
looks at several metrics and tells of the best has made more tests than that.

A baseline differs from the best one by having been the worse of the two, and
the ceiling is no model: they have a difference and an interval, but no p.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pertjax import names as name_lib
from pertjax.metrics import comparison, paired_units, registry

FIELDS = (
  'split', 'regime', 'model', 'against', 'aggregate', 'genes', 'metric',
  'direction', 'difference', 'low', 'high', 'p', 'p_adjusted', 'tests',
  'effect', 'rank_biserial', 'won', 'conditions', 'left_out', 'infinite',
  'units', 'seeds', 'seed_share', 'detectable', 'verdict',
)  # fmt: skip
ALL = 'all'
# Of a line that is no test.
NOT_TESTED = 'not tested'

# Values held at once; bounds memory, sets no result.
_AT_ONCE = 1 << 22

# {(aggregate, genes, metric): [members, pairs]}
_Values = Mapping[tuple[str, str, str], np.ndarray]


def lines(
  values: Mapping[str, _Values],
  *,
  judged: Sequence[str],
  baselines: Sequence[str],
  directions: Mapping[str, str],
  conditions: Sequence[str],
  regimes: Sequence[str],
  split: str = '',
  num: int = 10_000,
  seed: int = 0,
  level: float = 0.95,
  power: float = 0.8,
) -> tuple[list[dict[str, Any]], list[str]]:
  """Compares every model with the best baseline, in every regime and metric.

  Args:
    values: {model: {(aggregate, genes, metric): [members, pairs]}}, NaN where
      undefined. Members are independent trainings; models may have different
      numbers of them. Infinite values count as undefined and are counted.
    judged: models that are tested.
    baselines: models of which the best is the rival, with one member each: they
      have no randomness. Other models are neither.
    directions: {metric: 'higher' or 'lower'}. Other metrics have no better
      value, and no line.
    conditions: [pairs] names; pairs of one name are one unit.
    regimes: [pairs] names; 'all' is added.
    split: name, copied into the lines.
    num: sign flips.
    seed: of sign flips and bootstrap.
    level: of the interval; 1 - level is the chance of a false claim in a
      leaderboard.
    power: of 'detectable'.

  Returns:
    lines: a dict with the keys FIELDS for each regime, metric and model but the
      rival. 'difference', 'low' and 'high' are positive where the model is
      better. 'tests' is the number of models in the family, 'seeds' of members
      with values, 'infinite' of infinite values on both sides. The others are
      as in `comparison.Measured`; 'p', 'p_adjusted' and 'detectable' are NaN
      and 'verdict' is NOT_TESTED for models that are not judged.
    notes: what a reader has to know about the numbers.

  Raises:
    ValueError: when a name is not in `values`, a baseline has several members,
      a model is judged and a baseline, or shapes do not fit.
  """
  _check(values, judged, baselines, conditions, regimes)
  regimes = np.asarray(regimes, str)
  found, bare = [], set()
  alone = len(set(regimes.tolist())) == 1
  for regime in (ALL, *sorted(set(regimes.tolist()))):
    if alone and regime != ALL:
      # Another name for the same pairs.
      found += [{**line, 'regime': regime} for line in found]
      break
    at = np.flatnonzero((regimes == regime) | (regime == ALL))
    unit = paired_units.units(len(at), [conditions[i] for i in at], None)
    keys = list(dict.fromkeys(k for own in values.values() for k in own))
    bare |= {k[2] for k in keys if directions.get(k[2]) not in _SIGN}
    keys = [k for k in keys if directions.get(k[2]) in _SIGN]
    for part in _parts(keys, values, len(at)):
      rows = _rows(values, part, at, judged, baselines, directions)
      if rows:
        options = {'num': num, 'seed': seed, 'level': level, 'power': power}
        place = {'split': split, 'regime': regime}
        found += _measured(rows, unit, directions, place, options)
  return found, _notes(found, bare)


_SIGN = {'higher': 1.0, 'lower': -1.0}


def _parts(keys, values, pairs: int) -> list[list[Any]]:
  """Cuts the metrics into parts whose values fit into memory."""
  members = [len(x) for own in values.values() for x in own.values()]
  each = len(values) * max(members, default=1) * max(pairs, 1)
  step = max(_AT_ONCE // each, 1)
  return [keys[i : i + step] for i in range(0, len(keys), step)]


def _rows(values, keys, at, judged, baselines, directions):
  """Returns (key, model, rival, judged, values, rival's values) of each row."""
  rows = []
  for key in keys:
    own = {
      model: np.asarray(found[key], np.float64)[:, at]
      for model, found in values.items()
      if key in found
    }
    sign = _SIGN[directions[key[2]]]
    means = {m: sign * _mean(own[m]) for m in sorted(baselines) if m in own}
    means = {m: mean for m, mean in means.items() if not math.isnan(mean)}
    if not means:
      continue
    rival = max(means, key=means.__getitem__)
    rows += [
      (key, model, rival, model in judged, x, own[rival])
      for model, x in own.items()
      if model != rival
    ]
  return rows


def _mean(x: np.ndarray) -> float:
  """Mean of a baseline over the pairs where it is defined."""
  known = x[np.isfinite(x)]
  return float(known.mean()) if len(known) else math.nan


def _measured(rows, unit, directions, place, options):
  members = max(len(row[4]) for row in rows)
  first = np.stack([_padded(row[4], members) for row in rows])
  # Without luck: as many equal values as the other model has members.
  second = np.stack(
    [_padded(np.repeat(row[5], len(row[4]), 0), members) for row in rows]
  )
  sign = np.array([_SIGN[directions[row[0][2]]] for row in rows])
  keys = list(dict.fromkeys(row[0] for row in rows))
  family = np.array([keys.index(row[0]) if row[3] else -1 for row in rows])
  found = comparison.measure(
    sign[:, None, None] * first,
    sign[:, None, None] * second,
    unit=unit,
    family=family,
    **options,
  )
  tests = comparison.family_sizes(found.p, family)
  lines = []
  for i, (key, model, rival, is_judged, x, y) in enumerate(rows):
    line = {
      **place,
      **dict(zip(('aggregate', 'genes', 'metric'), key)),
      'model': model,
      'against': rival,
      'direction': directions[key[2]],
      'tests': int(tests[i]) if is_judged else 0,
      'infinite': int(np.isinf(x).sum() + np.isinf(y).sum()),
      'seeds': int(np.isfinite(x).any(1).sum()),
      'verdict': found.verdicts[i] if is_judged else NOT_TESTED,
    }
    for name in ('conditions', 'left_out', 'units'):
      line[name] = int(getattr(found, name)[i])
    for name in _NUMBERS:
      tested = is_judged or name not in ('p', 'p_adjusted', 'detectable')
      line[name] = float(getattr(found, name)[i]) if tested else math.nan
    lines.append({name: line[name] for name in FIELDS})
  return lines


_NUMBERS = (
  'difference', 'low', 'high', 'p', 'p_adjusted', 'effect', 'rank_biserial',
  'won', 'seed_share', 'detectable',
)  # fmt: skip


def _padded(x: np.ndarray, members: int) -> np.ndarray:
  """Values [members, pairs] with NaN for infinite ones and missing members."""
  x = np.where(np.isfinite(x), x, np.nan)
  return np.pad(x, ((0, members - len(x)), (0, 0)), constant_values=np.nan)


def _notes(found, bare) -> list[str]:
  notes = []
  infinite = sum(x['infinite'] > 0 for x in found)
  if infinite:
    notes.append(
      f'{infinite} of {len(found)} paired comparisons hold infinite values, '
      'which count as undefined: their conditions are left out.'
    )
  if bare:
    notes.append(
      f'{len(bare)} metric(s) have no better direction and are not compared: '
      f'{name_lib.listing(sorted(bare))}'
    )
  return notes


def _check(values, judged, baselines, conditions, regimes) -> None:
  for key, chosen in (('judged', judged), ('baselines', baselines)):
    for name in chosen:
      registry.check_choice(key, name, values)
  both = sorted(set(judged) & set(baselines))
  if both:
    raise ValueError(
      f'{both[0]!r} is judged and a baseline; a model can be one of them'
    )
  if len(conditions) != len(regimes):
    raise ValueError(
      f'conditions has {len(conditions)} entries and regimes {len(regimes)}; '
      'both are of the pairs'
    )
  for model, own in values.items():
    for key, x in own.items():
      shape = np.shape(x)
      if len(shape) != 2 or not shape[0] or shape[1] != len(conditions):
        raise ValueError(
          f'values of {model!r}, {"/".join(key)}, have the shape {shape}; '
          f'allowed: [members, {len(conditions)}]'
        )
      if model in baselines and shape[0] > 1:
        raise ValueError(
          f'baseline {model!r} has {shape[0]} members; allowed: 1, a closed '
          'form'
        )
