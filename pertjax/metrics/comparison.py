"""Paired comparison of models from the values of single conditions.

Which question is answered depends on what is given:

  values                       the claim of 'better' is about
  [models, conditions]         these training runs, on conditions of this kind
  [models, seeds, conditions]  the way of training, on conditions of this kind

One run of a model has one draw of training luck, which moves all its conditions
together. No test can tell that shift from a better model: with one seed, two
trainings of one and the same model are called different far more often than at
1 - level (80 % of the time for luck with a standard deviation of 1 beside
residuals of 1 in 60 conditions), and rightly so, for these two runs do differ.
With two seeds or more the luck has a variance that can be seen, and `two_way`
puts it into interval, p and detectable difference.

A test's false positives stay below 1 - level where differences are symmetric
about zero when models are alike, which swapping the names of two models that
are alike guarantees. For models that are not alike but have the same mean, a
skewed difference of few conditions is not covered by any such guarantee.
"""

from __future__ import annotations

import difflib
import itertools
import math
import statistics
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np

from pertjax.metrics import (
  intervals,
  paired_tests,
  paired_units,
  registry,
  student,
)

TESTS = ('permutation', 'wilcoxon')
CORRECTIONS = ('holm', 'none')
VERDICTS = ('better', 'worse', 'no difference shown', 'too few conditions')

# A smaller share of the two values is rounding of float32 sums over genes.
ROUNDING = 1e-6
# With fewer units the bootstrap's interval is far too short to be given.
FEWEST_UNITS = 5
# Replicates of the bootstrap; an end of it then errs by 3 % of its width.
REPLICATES = 2000


class Measured(NamedTuple):
  """What `measure` gives; arrays are [rows].

  Attributes:
    difference: mean of first minus second over the conditions that both have,
      its sign turned so that positive is better.
    low: interval of the difference at `level`, not widened for the number of
      pairs. NaN below FEWEST_UNITS units.
    high: its other end.
    p: two-sided; 1 where nothing could be seen, NaN without any condition.
    p_adjusted: p over the family of pairs; the verdict follows this one.
    effect: difference in standard deviations of the units' differences (d_z of
      Cohen 1988; 0 without a difference, infinite for a constant one).
    rank_biserial: (R+ - R-) / (R+ + R-) of the ranks of the units that differ
      (Kerby 2014, https://doi.org/10.2466/11.IT.3.1), within [-1, 1].
    won: share of conditions where the first is better, equal ones half.
    conditions: int, where both are defined in all their seeds.
    left_out: int, the others.
    units: int, clusters that these conditions belong to.
    seeds: int [pairs, 2], seeds with a value, of first and second.
    seed_share: share of the difference's variance that is due to training
      luck; NaN where no seeds were given to see it.
    detectable: least true difference found with probability `power`, at Holm's
      most strict step; infinite where none can be. See `detectable`. With
      seeds the greater of that and of `two_way`'s, from degrees of freedom that
      are few: the median claim of a power of 0.8 had one of 0.65 with two
      seeds, 0.70 with three and 0.78 with five (400 simulated pairs).
    verdicts: of VERDICTS. 'too few conditions': not even the clearest
      difference could have been significant.
  """

  difference: np.ndarray
  low: np.ndarray
  high: np.ndarray
  p: np.ndarray
  p_adjusted: np.ndarray
  effect: np.ndarray
  rank_biserial: np.ndarray
  won: np.ndarray
  conditions: np.ndarray
  left_out: np.ndarray
  units: np.ndarray
  seeds: np.ndarray
  seed_share: np.ndarray
  detectable: np.ndarray
  verdicts: tuple[str, ...]


class Comparison(NamedTuple):
  """Every compared pair of models; arrays are [pairs].

  Attributes:
    models: names of the first models.
    against: names of the second.
    difference: this and what follows as in `Measured`, a row for each pair.
    low: see `Measured`.
    high: see `Measured`.
    p: see `Measured`.
    p_adjusted: see `Measured`.
    effect: see `Measured`.
    rank_biserial: see `Measured`.
    won: see `Measured`.
    conditions: see `Measured`.
    left_out: see `Measured`.
    units: see `Measured`.
    seeds: see `Measured`.
    seed_share: see `Measured`.
    detectable: see `Measured`.
    verdicts: see `Measured`.
    notes: what a reader has to know about the numbers.
  """

  models: tuple[str, ...]
  against: tuple[str, ...]
  difference: np.ndarray
  low: np.ndarray
  high: np.ndarray
  p: np.ndarray
  p_adjusted: np.ndarray
  effect: np.ndarray
  rank_biserial: np.ndarray
  won: np.ndarray
  conditions: np.ndarray
  left_out: np.ndarray
  units: np.ndarray
  seeds: np.ndarray
  seed_share: np.ndarray
  detectable: np.ndarray
  verdicts: tuple[str, ...]
  notes: tuple[str, ...]


def compare(
  values: np.ndarray,
  *,
  names: Sequence[str],
  direction: str,
  reference: str | None = None,
  conditions: Sequence[Hashable] | None = None,
  clusters: Sequence[Hashable] | None = None,
  test: str = 'permutation',
  zeros: str = 'pratt',
  num: int = 10_000,
  seed: int = 0,
  level: float = 0.95,
  power: float = 0.8,
  correction: str = 'holm',
  rounding: float = ROUNDING,
) -> Comparison:
  """Compares models condition by condition.

  Conditions of a cluster are one unit: their differences are flipped, ranked
  and resampled together. The difference is the mean over conditions whatever
  the clusters; the interval, `effect` and `detectable` are of the linearised
  ratio of sums (Cochran 1977, section 6.8), the Wilcoxon test is of the
  clusters' means.

  With several seeds, values are averaged over them. p is then the greater of
  the test's over units and of `two_way`, and the interval the hull of both: a
  difference must be more than the luck of the conditions, without assuming a
  distribution, and more than the luck of the seeds.

  Args:
    values: [models, conditions] or [models, seeds, conditions], NaN where
      undefined. A seed without any value does not count. A model that has no
      randomness is given with equal values in all seeds.
    names: [models], distinct.
    direction: 'higher' or 'lower' is better.
    reference: the model that the others are compared with; all pairs if None.
    conditions: [conditions] names; equal names are one cluster, as of one
      perturbation in two cell lines. All distinct if None.
    clusters: [conditions] ids in place of the names.
    test: 'permutation', see `sign_flip`, or 'wilcoxon', see `signed_rank`.
    zeros: of 'wilcoxon'.
    num: sign flips.
    seed: of sign flips and bootstrap.
    level: of the interval; 1 - level is the family's chance of a false claim.
    power: of `detectable`.
    correction: 'holm' (Holm 1979), or 'none'.
    rounding: differences below this share of the greater value are 0.

  Raises:
    ValueError: when an option is not one of those named, shapes do not fit,
      names repeat, or a value is infinite.
  """
  registry.check_choice('direction', direction, registry.DIRECTIONS)
  registry.check_choice('test', test, TESTS)
  registry.check_choice('correction', correction, CORRECTIONS)
  _check_numbers(num, level, power)
  names = tuple(names)
  values = _checked(values, names)
  unit = paired_units.units(values.shape[-1], conditions, clusters)
  first, second = _pairs(names, reference)
  sign = 1 if direction == 'higher' else -1

  found = measure(
    sign * values[first],
    sign * values[second],
    unit=unit,
    family=np.full(len(first), 0 if correction == 'holm' else -1),
    test=test,
    zeros=zeros,
    num=num,
    seed=seed,
    level=level,
    power=power,
    rounding=rounding,
  )
  return Comparison(
    models=tuple(names[i] for i in first),
    against=tuple(names[i] for i in second),
    notes=_notes(first, second, names, found, values),
    **found._asdict(),
  )


def measure(
  first: np.ndarray,
  second: np.ndarray,
  *,
  unit: np.ndarray,
  family: np.ndarray,
  test: str = 'permutation',
  zeros: str = 'pratt',
  num: int = 10_000,
  seed: int = 0,
  level: float = 0.95,
  power: float = 0.8,
  rounding: float = ROUNDING,
) -> Measured:
  """Compares rows of values, what `compare` does for one set of models.

  Args:
    first: [rows, seeds, conditions], finite or NaN; higher is better.
    second: the same.
    unit: int [conditions] without gaps, see `paired_units.units`.
    family: int [rows]; rows of one number are one family of Holm's, a row of
      -1 is a test of its own.
    test: as in `compare`, and so are the other options.
    zeros: as in `compare`.
    num: as in `compare`.
    seed: as in `compare`.
    level: as in `compare`.
    power: as in `compare`.
    rounding: as in `compare`.
  """
  a, b = paired_units.common(first, second)
  gaps = paired_units.gaps(a, b, rounding)
  used = ~np.isnan(gaps)
  sums = paired_units.totals(np.where(used, gaps, 0), unit)
  sizes = paired_units.totals(used, unit)
  units, count = np.sum(sizes > 0, 1), np.sum(used, 1)
  difference, linear = paired_units.linearised(sums, sizes)
  sd = paired_units.deviation(linear)

  per_unit = paired_units.over(sums, sizes)
  if test == 'permutation':
    flipped = np.where(sizes > 0, sums, np.nan)
    p = paired_tests.sign_flip(flipped, num=num, seed=seed)
  else:
    p = paired_tests.signed_rank(per_unit, zeros=zeros)
  low, high = _interval(linear, seed, level)
  luck = paired_tests.two_way(a, b, clusters=unit)
  alpha = (1 - level) * (1 + 1e-9)  # 1 - 0.9 is below 0.1.
  seen = ~np.isnan(luck.seed_share)
  strict = alpha / family_sizes(p, family)
  options = {'power': power, 'test': test, 'num': num}
  least = _least(sd, units, luck, strict, **options)
  half = _reach(luck, student.quantile, 1 - level)
  low = np.where(seen, np.minimum(low, difference - half), low)
  high = np.where(seen, np.maximum(high, difference + half), high)
  p = np.where(seen, np.maximum(p, luck.p), p)

  adjusted = p.copy()
  for name in np.unique(family[family >= 0]):
    adjusted[family == name] = paired_tests.holm(p[family == name])
  with np.errstate(divide='ignore', invalid='ignore'):
    effect = np.where(difference == 0, 0.0, difference / sd)
  ranks = paired_tests.signed_ranks(per_unit, 'drop')
  biserial = np.sum(ranks, 1) / np.maximum(np.sum(np.abs(ranks), 1), 1)
  side = difference if test == 'permutation' else biserial
  wins = np.sum(gaps > 0, 1) + np.sum(gaps == 0, 1) / 2
  return Measured(
    difference=difference,
    low=low,
    high=high,
    p=p,
    p_adjusted=adjusted,
    effect=effect,
    rank_biserial=np.where(count > 0, biserial, np.nan),
    won=paired_units.over(wins, count),
    conditions=count,
    left_out=a.shape[-1] - count,
    units=units,
    seeds=np.stack([paired_units.live(x).sum(1) for x in (a, b)], 1),
    seed_share=luck.seed_share,
    detectable=least,
    verdicts=_verdicts(adjusted <= alpha, difference, side, least),
  )


def family_sizes(p: np.ndarray, family: np.ndarray) -> np.ndarray:
  """Counts the tests of each row's family, int [rows], at least 1.

  Args:
    p: [rows], NaN for no test.
    family: int [rows]; -1 is a test of its own.
  """
  tests = np.ones(len(p), int)
  for name in np.unique(family[family >= 0]):
    rows = family == name
    tests[rows] = max(int(np.sum(~np.isnan(p[rows]))), 1)
  return tests


# ----------------------------------------------------------------------------
# What could have been found.


def detectable(
  sd: np.ndarray,
  units: np.ndarray,
  *,
  alpha: float = 0.05,
  power: float = 0.8,
  test: str = 'permutation',
  num: int = 10_000,
) -> np.ndarray:
  """Returns the least true difference that is found with probability `power`.

  For normal differences it is sd delta / sqrt(units), where

    delta = t c + z sqrt(1 + t^2 (1 - c^2)),

  t the two-sided quantile of Student's t with units - 1 degrees of freedom, z
  the normal quantile of `power` and c the mean of an estimated standard
  deviation in units of the true one: the normal approximation of the
  non-central t (Johnson & Welch 1940, Biometrika 31:362), which is
  z_alpha + z_power for many units. t is taken at the greatest p that the
  test can give for as many units and that is not above alpha: of 6 units, p =
  0.031 and not 0.05. Where that is the smallest p of all, which needs all
  differences on one side, it is no less than z(power^(1 / units)) sd. For
  'wilcoxon' units count 3 / pi, its efficiency for normal differences.

  The power was 0.72-0.81 in simulations of 6 to 100 units at alpha 0.05 and
  0.005; least where few values of p are below alpha. The standard deviation is
  an estimate, and so is this: 95 times in 100 the truth is 0.6-2.5 times it for
  6 units, 0.76-1.5 times for 20 and 0.88-1.2 times for 100.

  Args:
    sd: [rows] standard deviation of the units' differences.
    units: int [rows].
    alpha: of the test; Holm's most strict step is (1 - level) / pairs.
    power: the probability.
    test: 'permutation' or 'wilcoxon'.
    num: as in `sign_flip`.

  Returns:
    [rows], infinite where no p can reach alpha.
  """
  registry.check_choice('test', test, TESTS)
  sd, units = np.broadcast_arrays(sd, units)
  least = np.full(sd.shape, np.inf)
  for n in np.unique(units):
    reached, smallest = _attainable(alpha, int(n), test, num)
    if n < 2 or reached <= 0:
      continue
    worth = n * 3 / math.pi if test == 'wilcoxon' else n
    delta = student.noncentral(reached, power, np.array([n - 1.0]))[0]
    delta /= math.sqrt(worth)
    if reached <= smallest:
      one_side = statistics.NormalDist().inv_cdf(power ** (1 / n))
      delta = max(delta, one_side)
    least[units == n] = delta * sd[units == n]
  return least


def _attainable(alpha, n: int, test: str, num: int) -> tuple[float, float]:
  """The greatest p up to alpha (0 for none) and the smallest p at all."""
  slack = 1 + 1e-12
  if test == 'permutation':
    exact = n < 63 and 2**n <= num
    least = 2 / 2**n if exact else 1 / (1 + num)
    return math.floor(alpha / least * slack) * least, math.ldexp(2, -n)
  if n > paired_tests.EXACT_RANKS:
    return alpha, 0.0
  tails = 2 * paired_tests.rank_tails(tuple(range(2, 2 * n + 1, 2)))
  below = tails[tails <= alpha * slack]
  return float(below[-1]) if below.size else 0.0, math.ldexp(2, -n)


def _least(sd, units, luck, strict, *, power, test, num) -> np.ndarray:
  """What conditions and seeds let be found, at the levels `strict` [rows]."""
  least = np.empty(len(sd))
  for alpha in np.unique(strict):
    rows = strict == alpha
    least[rows] = detectable(
      sd[rows], units[rows], alpha=alpha, power=power, test=test, num=num
    )
    shift = _reach(luck, student.noncentral, alpha, power)
    seen = rows & ~np.isnan(luck.seed_share)
    least = np.where(seen, np.maximum(least, shift), least)
  return least


def _reach(luck: paired_tests.TwoWay, times, *options) -> np.ndarray:
  """Standard errors with and of the seeds alone, by their own quantiles."""
  parts = (
    (luck.variance, luck.freedom),
    (luck.seed_variance, luck.seed_freedom),
  )
  return np.maximum(*(times(*options, v) * np.sqrt(x) for x, v in parts))


def _interval(linear, seed: int, level: float) -> tuple[np.ndarray, np.ndarray]:
  """Bootstraps rows, padded with NaN so that few shapes are compiled."""
  padding = [(0, max(1 << (n - 1).bit_length(), 8) - n) for n in linear.shape]
  padded = np.pad(linear, padding, constant_values=np.nan)
  box = intervals.bootstrap(padded, seed, num=REPLICATES, level=level)
  low, high = (np.array(x, np.float64) for x in (box.low, box.high))
  low, high = low[: len(linear)], high[: len(linear)]
  few = np.sum(~np.isnan(linear), 1) < FEWEST_UNITS
  return np.where(few, np.nan, low), np.where(few, np.nan, high)


def _pairs(names, reference) -> tuple[np.ndarray, np.ndarray]:
  if reference is None:
    pairs = list(itertools.combinations(range(len(names)), 2))
  else:
    if reference not in names:
      close = difflib.get_close_matches(str(reference), map(str, names), n=1)
      hint = f'closest: {close[0]!r}; ' if close else ''
      raise ValueError(
        f'reference is {reference!r}; {hint}allowed: '
        f'{", ".join(map(repr, names))}'
      )
    at = names.index(reference)
    pairs = [(i, at) for i in range(len(names)) if i != at]
  first, second = np.array(pairs).T
  return first, second


def _checked(values, names) -> np.ndarray:
  """Values as [models, seeds, conditions] of float64."""
  values = np.asarray(values, np.float64)
  if values.ndim not in (2, 3) or 0 in values.shape:
    raise ValueError(
      'values must be [models, conditions] or [models, seeds, conditions] and '
      f'not empty; the shape is {values.shape}'
    )
  if len(names) != len(values) or len(set(names)) < len(names):
    raise ValueError(
      f'names are {names}; allowed: {len(values)} distinct ones, as values has '
      'models'
    )
  if len(names) < 2:
    raise ValueError(f'there is one model, {names[0]!r}; allowed: 2 at least')
  infinite = np.isinf(values).reshape(len(values), -1).any(1)
  if infinite.any():
    raise ValueError(
      f'values of {names[int(np.argmax(infinite))]!r} are infinite; allowed: '
      'numbers, or NaN where a metric is undefined'
    )
  return values[:, None] if values.ndim == 2 else values


def _check_numbers(num: int, level: float, power: float) -> None:
  if num < 1 or not 0 < level < 1 or not 0 < power < 1:
    raise ValueError(
      f'num is {num}, level {level} and power {power}; allowed: num >= 1, '
      '0 < level < 1, 0 < power < 1'
    )


# ----------------------------------------------------------------------------
# Words.


def _verdicts(claimed, difference, side, least) -> tuple[str, ...]:
  words = []
  for row in range(len(claimed)):
    # Ranks and mean may point apart; then neither side is claimed.
    agree = difference[row] * side[row] > 0
    if claimed[row] and agree:
      words.append('better' if difference[row] > 0 else 'worse')
    elif np.isfinite(least[row]):
      words.append('no difference shown')
    else:
      words.append('too few conditions')
  return tuple(words)


def _notes(first, second, names, found, values) -> tuple[str, ...]:
  notes = []
  width, count = values.shape[-1], found.conditions
  seen = ~np.isnan(found.seed_share)
  for row in np.flatnonzero(count < width):
    notes.append(
      f'{names[first[row]]} and {names[second[row]]} share {count[row]} of '
      f'{width} conditions; the others are left out.'
    )
  live = paired_units.live(values)
  for i in np.flatnonzero(~live.all(1)):
    notes.append(
      f'{names[i]} has values in {live[i].sum()} of {live.shape[1]} seeds.'
    )
  if not seen.all():
    which = 'Where' if seen.any() else 'As'
    notes.append(
      f'{which} each model has one seed, the comparison is of these training '
      'runs: how far other seeds would move them is not in interval and p.'
    )
  single = seen & (np.minimum(*(live.sum(1)[x] for x in (first, second))) == 1)
  for row in np.flatnonzero(single):
    notes.append(
      f'Of {names[first[row]]} and {names[second[row]]} one has a single seed; '
      "the other's variance over seeds stands for its own."
    )
  return tuple(notes)
