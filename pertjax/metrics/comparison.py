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
import functools
import itertools
import math
import statistics
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import jax
import numpy as np

from pertjax import rng
from pertjax.metrics import intervals, registry

TESTS = ('permutation', 'wilcoxon')
CORRECTIONS = ('holm', 'none')
ZEROS = ('pratt', 'drop')
VERDICTS = ('better', 'worse', 'no difference shown', 'too few conditions')

# A smaller share of the two values is rounding of float32 sums over genes.
ROUNDING = 1e-6
# With fewer units the bootstrap's interval is far too short to be given.
FEWEST_UNITS = 5
# Replicates of the bootstrap; an end of it then errs by 3 % of its width.
REPLICATES = 2000
# The signed-rank distribution is exact up to as many non-zero differences.
_EXACT_RANKS = 50
# Signs or sums held at once; bounds memory, sets no result.
_AT_ONCE = 1 << 22
# Of Gauss and Legendre, for Student's distribution.
_POINTS, _WEIGHTS = np.polynomial.legendre.leggauss(64)
# Sums that differ by less, relative to the sum of sizes, are equal.
_TIE = 1e-10


class Comparison(NamedTuple):
  """Every compared pair of models; arrays are [pairs].

  Attributes:
    models: names of the first models.
    against: names of the second.
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


class TwoWay(NamedTuple):
  """Result of `two_way`; arrays are [rows].

  Attributes:
    p: two-sided.
    variance: of the mean difference.
    freedom: its degrees of freedom.
    seed_variance: V_seeds alone, 0 where no seeds were given to see it.
    seed_freedom: its degrees of freedom.
    seed_share: of the variance; NaN where neither model has two seeds, and the
      variance is that over conditions alone.
  """

  p: np.ndarray
  variance: np.ndarray
  freedom: np.ndarray
  seed_variance: np.ndarray
  seed_freedom: np.ndarray
  seed_share: np.ndarray


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
  unit = _units(values.shape[-1], conditions, clusters)
  first, second = _pairs(names, reference)
  sign = 1 if direction == 'higher' else -1

  a, b = _common(sign * values[first], sign * values[second])
  gaps = _gaps(a, b, rounding)
  used = ~np.isnan(gaps)
  sums, sizes = _totals(np.where(used, gaps, 0), unit), _totals(used, unit)
  units, count = np.sum(sizes > 0, 1), np.sum(used, 1)
  difference, linear = _linearised(sums, sizes)
  sd = _deviation(linear)

  if test == 'permutation':
    p = sign_flip(np.where(sizes > 0, sums, np.nan), num=num, seed=seed)
  else:
    p = signed_rank(_over(sums, sizes), zeros=zeros)
  low, high = _interval(linear, seed, level)
  luck = two_way(a, b, clusters=unit)
  tests = int(np.sum(~np.isnan(p))) if correction == 'holm' else 1
  alpha = (1 - level) * (1 + 1e-9)  # 1 - 0.9 is below 0.1.
  strict = alpha / max(tests, 1)
  least = detectable(sd, units, alpha=strict, power=power, test=test, num=num)
  seen = ~np.isnan(luck.seed_share)
  if seen.any():
    reach, shift = _reach(luck, 1 - level, strict, power)
    low[seen] = np.minimum(low, difference - reach)[seen]
    high[seen] = np.maximum(high, difference + reach)[seen]
    p[seen] = np.maximum(p, luck.p)[seen]
    least[seen] = np.maximum(least, shift)[seen]

  adjusted = holm(p) if correction == 'holm' else p
  with np.errstate(divide='ignore', invalid='ignore'):
    effect = np.where(difference == 0, 0.0, difference / sd)
  ranks = _signed_ranks(_over(sums, sizes), 'drop')
  ranked = np.sum(np.abs(ranks), 1)
  biserial = np.sum(ranks, 1) / np.maximum(ranked, 1)
  side = difference if test == 'permutation' else biserial
  wins = np.sum(gaps > 0, 1) + np.sum(gaps == 0, 1) / 2
  return Comparison(
    models=tuple(names[i] for i in first),
    against=tuple(names[i] for i in second),
    difference=difference,
    low=low,
    high=high,
    p=p,
    p_adjusted=adjusted,
    effect=effect,
    rank_biserial=np.where(count > 0, biserial, np.nan),
    won=_over(wins, count),
    conditions=count,
    left_out=values.shape[-1] - count,
    units=units,
    seeds=np.stack([_live(a).sum(1), _live(b).sum(1)], 1),
    seed_share=luck.seed_share,
    detectable=least,
    verdicts=_verdicts(adjusted <= alpha, difference, side, least),
    notes=_notes(first, second, names, count, values, seen),
  )


# ----------------------------------------------------------------------------
# Tests of rows of differences. NaN is no difference of that row.


def sign_flip(
  differences: np.ndarray, *, num: int = 10_000, seed: int = 0
) -> np.ndarray:
  """Tests by flipping signs whether differences are symmetric about zero.

  The statistic is the absolute sum (Fisher 1935, The Design of Experiments,
  section 21; Pitman 1937, https://doi.org/10.2307/2984124). Where the signs of
  the non-zero differences have at most `num` combinations all of them are
  taken, p = #(at least as large) / 2^n. Else signs are drawn, and p = (1 + #) /
  (1 + num), which is never 0 and no less valid than the exact one (Phipson &
  Smyth 2010, https://doi.org/10.2202/1544-6115.1585).

  Args:
    differences: [rows, units]; all rows see the same drawn signs.
    num: combinations, drawn or allowed.
    seed: of the draws.

  Returns:
    p [rows], two-sided; 1 for a row of zeros, NaN for one without a value.
  """
  _check_numbers(num, 0.5, 0.5)
  differences = np.asarray(differences, np.float64)
  empty = np.all(np.isnan(differences), 1)
  # The scale cancels; without it sums could overflow.
  values = np.where(np.isnan(differences), 0, differences)
  largest = np.max(np.abs(values), axis=1, keepdims=True, initial=0)
  values = values / np.where(largest > 0, largest, 1)
  size = np.sum(values != 0, 1)
  least = np.abs(values.sum(1)) - _TIE * np.abs(values).sum(1)
  p = np.full(len(values), np.nan)
  for n in np.unique(size):
    if n < 63 and 2 ** int(n) <= num:
      rows = np.flatnonzero(size == n)
      p[rows] = _enumerated(values[rows], least[rows], int(n))
  rows = np.flatnonzero(np.isnan(p))
  if rows.size:
    p[rows] = _drawn(values[rows], least[rows], num, seed)
  p[empty] = np.nan
  return p


def _enumerated(values, least, n: int) -> np.ndarray:
  """Exact p of rows with n non-zero values each; `least` [rows] to reach."""
  values = values[values != 0].reshape(len(values), n)
  # The first sign stays: turning all of them changes no absolute sum.
  bits = np.arange(2 ** max(n - 1, 0))[:, None] >> np.arange(max(n - 1, 0))
  signs = np.hstack([np.ones((len(bits), min(n, 1))), 1.0 - 2 * (bits & 1)])
  step = max(_AT_ONCE // len(signs), 1)
  return np.concatenate(
    [
      np.mean(
        np.abs(values[i : i + step] @ signs.T) >= least[i : i + step, None], 1
      )
      for i in range(0, len(values), step)
    ]
  )


def _drawn(values, least, num: int, seed: int) -> np.ndarray:
  units = values.shape[1]
  key = rng.stream(rng.root(seed), rng.BOOTSTRAP, 1)  # 0 is the interval's.
  packed = jax.random.bits(key, (num, -(-units // 8)), 'uint8')
  packed = np.asarray(packed)
  reached = np.zeros(len(values), np.int64)
  step = max(_AT_ONCE // max(units, len(values)), 1)
  for i in range(0, num, step):
    signs = np.unpackbits(packed[i : i + step], axis=1, count=units)
    sums = (1.0 - 2 * signs) @ values.T
    reached += np.sum(np.abs(sums) >= least, 0)
  return (1 + reached) / (1 + num)


def signed_rank(differences: np.ndarray, *, zeros: str = 'pratt') -> np.ndarray:
  """Tests by Wilcoxon's signed ranks (1945, https://doi.org/10.2307/3001968).

  Tied sizes share their mean rank. Up to 50 non-zero differences p is exact,
  with ties and zeros too: it is of the distribution of the ranks that there
  are, each with either sign. Beyond, it is normal with the variance that these
  ranks have, sum(rank^2) / 4, which contains the corrections for ties and
  zeros; without a correction for continuity.

  Args:
    differences: [rows, units].
    zeros: 'pratt' ranks zeros with the others and then leaves their ranks out
      (Pratt 1959, https://doi.org/10.1080/01621459.1959.10501526), 'drop'
      leaves them out first, as Wilcoxon did.

  Returns:
    p [rows], two-sided; 1 for a row of zeros, NaN for one without a value.

  Raises:
    ValueError: when `zeros` is neither.
  """
  registry.check_choice('zeros', zeros, ZEROS)
  differences = np.asarray(differences, np.float64)
  p = np.full(len(differences), np.nan)
  for i, ranks in enumerate(_signed_ranks(differences, zeros)):
    ranks = ranks[ranks != 0]
    if np.isnan(differences[i]).all():
      continue
    if not ranks.size:
      p[i] = 1
    elif ranks.size <= _EXACT_RANKS:
      # Mean ranks are halves.
      doubled = np.sort(np.abs(2 * ranks)).astype(int)
      tail = _rank_tails(tuple(doubled.tolist()))
      less = np.sum(np.abs(2 * ranks[ranks < 0]))
      more = np.sum(np.abs(2 * ranks[ranks > 0]))
      p[i] = min(2 * tail[int(min(less, more))], 1)
    else:
      z = np.abs(ranks.sum()) / np.sqrt(np.sum(ranks**2))
      p[i] = math.erfc(z / math.sqrt(2))
  return p


@functools.lru_cache(maxsize=256)
def _rank_tails(ranks: tuple[int, ...]) -> np.ndarray:
  """P(sum of ranks with positive sign <= s) for s from 0 to the middle."""
  chance = np.zeros(sum(ranks) // 2 + 1)
  chance[0] = 1
  for rank in ranks:
    moved = np.zeros_like(chance)
    if rank < len(chance):
      moved[rank:] = chance[: len(chance) - rank]
    chance = (chance + moved) / 2
  return np.cumsum(chance)


def _signed_ranks(differences: np.ndarray, zeros: str) -> np.ndarray:
  """Ranks of sizes with the sign of the difference, 0 for zeros and NaN."""
  ranks = np.zeros(differences.shape)
  for row, out in zip(differences, ranks):
    keep = ~np.isnan(row) & ((row != 0) | (zeros == 'pratt'))
    _, place, count = np.unique(
      np.abs(row[keep]), return_inverse=True, return_counts=True
    )
    middle = np.cumsum(count) - (count - 1) / 2
    out[keep] = np.sign(row[keep]) * middle[place]
  return ranks


def two_way(
  first: np.ndarray,
  second: np.ndarray,
  *,
  clusters: np.ndarray | None = None,
) -> TwoWay:
  """Tests a mean difference with conditions and seeds both drawn at random.

  A value is model + condition + model x condition + seed + seed x condition;
  seeds are independent runs, of the second model too, and a seed's luck is
  common to all its conditions. The variance of the difference of the means is

    V = V_units + V_seeds - V_rest,

  V_units the variance over units of the differences of seed means / units,
  V_seeds the sum over both models of the variance of seed means / seeds, and
  V_rest the part that both of them contain, from the seed x unit residuals: the
  random-effects analysis of variance, as for readers and cases (Dorfman,
  Berbaum & Metz 1992) and for clusters of two kinds (Cameron, Gelbach & Miller
  2011, https://doi.org/10.1198/jbes.2010.07136). V is not let below V_units and
  V_seeds. Degrees of freedom are Satterthwaite's (1946,
  https://doi.org/10.2307/3002019), for the seeds Welch's, which assume no equal
  variances. They are estimates: where two seeds happen to lie close, the
  conditions' many degrees are taken for a difference that is all luck (10 % at
  5 %, two seeds against a model without luck). p is therefore no less than that
  of the seed means alone, by V_seeds and its own degrees.

  Rejections at 5 % by simulation, 40 conditions, 10,000 pairs of models that
  are alike, luck s, residuals 1; standard error 0.2:

    seeds        s = 0     0.1     0.3      1       3
    2 and 2      0.7       0.9     2.1      1.9     2.4
    3 and 3      1.3       2.0     3.3      3.6     3.4
    5 and 5      1.8       2.6     4.7      4.7     4.6
    5 and 2      0.7       1.5     2.1      2.5     2.1
    5 and 1      1.6       2.5     4.5      4.8     4.9

  Where only one of two models has luck, the most that was seen is 5.8 with two
  seeds, 5.7 with three and 5.5 with five; where the other one has equal values
  in all seeds 4.5, 4.9 and 5.2 (6,000 pairs, 30 conditions). Two seeds are
  valid but weak: Student's t has one to two degrees of freedom.

  Args:
    first: [rows, seeds, conditions]. Where one model has a single seed the
      variance of the other one's stands for it.
    second: the same. Conditions that lack a seed (NaN) are not used.
    clusters: int [conditions], conditions that are one unit.

  Returns:
    See `TwoWay`.
  """
  width = first.shape[-1]
  unit = _units(width, None, clusters)
  first, second = _common(first, second)
  gaps = _gaps(first, second, 0)
  used = ~np.isnan(gaps)
  sizes = _totals(used, unit)
  mean, linear = _linearised(_totals(np.where(used, gaps, 0), unit), sizes)
  units = np.sum(sizes > 0, 1)
  over_units = _over(_deviation(linear) ** 2, units)
  parts = [_seed_parts(x, unit, sizes) for x in (first, second)]
  over_seeds, rest, few = _seed_variance(*parts, units)
  known = ~np.isnan(over_seeds) & (units > 1)
  over_seeds, rest = np.where(known, (over_seeds, rest), 0)
  variance = np.maximum(over_units + over_seeds - rest, over_units)
  variance = np.maximum(variance, over_seeds)
  # In shares of the variance, whose squares could underflow.
  own, luck = (np.square(_over(x, variance)) for x in (over_units, over_seeds))
  freedom = _over(1, own / np.maximum(units - 1, 1) + luck * few)
  freedom = np.where(np.isnan(freedom), units - 1, freedom)
  freedom = np.maximum(freedom, 1)
  seed_freedom = np.maximum(np.where(known, _over(1, few), 1), 1)
  p = np.maximum(
    _student_test(mean, variance, freedom),
    np.where(known, _student_test(mean, over_seeds, seed_freedom), 0),
  )
  p = np.where(units > 1, p, 1)
  share = np.where(variance > 0, 1 - _over(over_units, variance), 0)
  return TwoWay(
    p=np.where(units > 0, p, np.nan),
    variance=np.where(units > 1, variance, np.nan),
    freedom=freedom,
    seed_variance=over_seeds,
    seed_freedom=seed_freedom,
    seed_share=np.where(known, share, np.nan),
  )


def _reach(luck: TwoWay, alpha: float, strict: float, power: float):
  """Half of the interval at 1 - alpha, and the detectable difference."""
  parts = (
    (luck.variance, luck.freedom),
    (luck.seed_variance, luck.seed_freedom),
  )
  half = [_quantile(alpha, v) * np.sqrt(x) for x, v in parts]
  shift = [_noncentral(strict, power, v) * np.sqrt(x) for x, v in parts]
  return np.maximum(*half), np.maximum(*shift)


def _student_test(mean, variance, freedom) -> np.ndarray:
  # Without any variance a difference is certain and none is nothing.
  error = np.sqrt(np.where(variance > 0, variance, np.finfo(float).tiny))
  return _two_sided(mean / error, freedom)


def _seed_variance(first, second, units):
  """Adds up what both models' seeds do to the mean difference.

  The greater of Welch's sum and that of the pooled variances: with five seeds
  against two Welch's alone rejects 5.9 % at 5 %.

  Returns:
    V_seeds, V_rest and 1 / degrees of freedom, [rows]; NaN where neither model
    has two seeds.
  """
  (var_a, rest_a, n_a), (var_b, rest_b, n_b) = first, second
  free = n_a + n_b - 2
  weight = _over(n_a - 1, free)
  runs = _over(1, n_a) + _over(1, n_b)
  pooled = (weight * var_a + (1 - weight) * var_b) * runs
  pooled_rest = (weight * rest_a + (1 - weight) * rest_b) * runs
  each = [_over(var_a, n_a), _over(var_b, n_b)]
  welch = each[0] + each[1]
  both = (n_a > 1) & (n_b > 1)
  take = ~both | (pooled > welch)
  rest = np.where(take, pooled_rest, _over(rest_a, n_a) + _over(rest_b, n_b))
  shares = [np.square(_over(x, welch)) for x in each]
  few = _over(shares[0], n_a - 1) + _over(shares[1], n_b - 1)
  few = np.where(both & (welch > 0), few, _over(1, free))
  return np.where(take, pooled, welch), _over(rest, units), few


def _seed_parts(values, unit, sizes):
  """Variance of seed means and of seed x unit residuals, and seeds, [rows]."""
  live = _live(values)[:, :, None]
  n = live[:, :, 0].sum(1)
  known = np.where(np.isnan(values), 0, values)
  sums = _totals(known, unit)  # [rows, seeds, units]
  total = sizes.sum(1)[:, None, None]
  units = np.sum(sizes > 0, 1)
  means = _over(sums.sum(2, keepdims=True), total)
  means = np.where(live, means, 0)
  centre = _over(means.sum(1, keepdims=True), n[:, None, None])
  free = np.maximum(n - 1, 1)
  off = np.where(live, means - centre, 0)
  variance = np.sum(off**2, (1, 2)) / free
  per_unit = _over(total, units[:, None, None])
  own = np.where(live, _over(sums - sizes[:, None] * means, per_unit), 0)
  own = np.where(np.isnan(own), 0, own)
  centre = _over(own.sum(1, keepdims=True), n[:, None, None])
  own = np.where(live, own - centre, 0)
  rest = np.sum(own**2, (1, 2)) / (free * np.maximum(units - 1, 1))
  return variance, rest, n


def holm(p_values: np.ndarray) -> np.ndarray:
  """Adjusts p-values for their number, step down (Holm 1979).

  Scand. J. Statist. 6:65. The k-th smallest of m becomes the largest of
  (m - i + 1) p_i over i <= k, at most 1: the chance of any false claim is
  controlled whatever the dependence.

  Args:
    p_values: [..., tests]; NaN is no test, and stays NaN.
  """
  p_values = np.asarray(p_values, np.float64)
  order = np.argsort(p_values, -1)  # NaN goes last.
  ranked = np.take_along_axis(p_values, order, -1)
  tests = np.sum(~np.isnan(p_values), -1, keepdims=True)
  each = np.maximum(tests - np.arange(p_values.shape[-1]), 1) * ranked
  each = np.minimum(np.maximum.accumulate(each, -1), 1)
  adjusted = np.empty_like(p_values)
  np.put_along_axis(adjusted, order, each, -1)
  return adjusted


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
    delta = _noncentral(reached, power, np.array([n - 1.0]))[0]
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
  if n > _EXACT_RANKS:
    return alpha, 0.0
  tails = 2 * _rank_tails(tuple(range(2, 2 * n + 1, 2)))
  below = tails[tails <= alpha * slack]
  return float(below[-1]) if below.size else 0.0, math.ldexp(2, -n)


def _noncentral(alpha: float, power: float, freedom: np.ndarray) -> np.ndarray:
  """Non-centrality at which a two-sided t test has the power, see above."""
  t = _quantile(alpha, freedom)
  z = statistics.NormalDist().inv_cdf(power)
  gamma = np.array(
    [math.lgamma((v + 1) / 2) - math.lgamma(v / 2) for v in freedom]
  )
  c = np.sqrt(2 / freedom) * np.exp(gamma)
  return t * c + z * np.sqrt(1 + t**2 * np.maximum(1 - c**2, 0))


def _two_sided(t: np.ndarray, freedom: np.ndarray) -> np.ndarray:
  """P(|T| >= t) of Student's t on the host, to 1e-12; degrees of freedom >= 1.

  With t = sqrt(v) tan(u) the density is a power of cos(u), integrated from 0.
  """
  t, v = np.broadcast_arrays(np.abs(np.asarray(t, np.float64)), freedom)
  # Beyond, cos(u)^(v - 1) < exp(-(v - 1) u^2 / 2) is nothing.
  end = np.minimum(np.arctan(t / np.sqrt(v)), 9 / np.sqrt(np.maximum(v - 1, 1)))
  u = end[..., None] * (_POINTS + 1) / 2
  area = end / 2 * np.sum(_WEIGHTS * np.cos(u) ** (v[..., None] - 1), -1)
  log_gamma = np.frompyfunc(math.lgamma, 1, 1)
  scale = log_gamma((v + 1) / 2) - log_gamma(v / 2)
  scale = 2 / math.sqrt(math.pi) * np.exp(np.asarray(scale, np.float64))
  return np.clip(1 - scale * area, 0, 1)


def _quantile(alpha: float, freedom: np.ndarray) -> np.ndarray:
  """Returns t with P(|T| >= t) = alpha, by bisection of its angle."""
  freedom = np.asarray(freedom, np.float64)
  low, high = np.zeros(freedom.shape), np.full(freedom.shape, math.pi / 2)
  for _ in range(50):
    middle = (low + high) / 2
    above = _two_sided(np.sqrt(freedom) * np.tan(middle), freedom) > alpha
    low, high = np.where(above, middle, low), np.where(above, high, middle)
  return np.sqrt(freedom) * np.tan((low + high) / 2)


# ----------------------------------------------------------------------------
# From values to differences of units.


def _over(total, number):
  """Divides, NaN where the divisor is 0."""
  total, number = np.broadcast_arrays(total, number)
  zero = number == 0
  return np.where(zero, np.nan, total / np.where(zero, 1, number))


def _live(values: np.ndarray) -> np.ndarray:
  """Seeds [rows, seeds] that have any value."""
  return np.any(~np.isnan(values), -1)


def _common(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Leaves NaN in the conditions that a live seed of either model lacks."""
  lacking = [
    np.any(np.isnan(x) & _live(x)[:, :, None], 1) | ~_live(x).any(1)[:, None]
    for x in (a, b)
  ]
  lacking = (lacking[0] | lacking[1])[:, None]
  return np.where(lacking, np.nan, a), np.where(lacking, np.nan, b)


def _gaps(a: np.ndarray, b: np.ndarray, rounding: float) -> np.ndarray:
  """Differences of means over seeds, [rows, conditions]."""
  a, b = (
    _over(np.where(np.isnan(x), 0, x).sum(1), (~np.isnan(x)).sum(1))
    for x in (a, b)
  )
  small = np.abs(a - b) <= rounding * np.maximum(np.abs(a), np.abs(b))
  return np.where(small, 0.0, a - b)


def _linearised(sums, sizes) -> tuple[np.ndarray, np.ndarray]:
  """Mean over conditions, and units' values [rows, units] with that mean.

  A unit's value is its part of the mean and of the mean's error; for units of
  one condition each it is the difference itself.
  """
  mean = _over(sums.sum(1), sizes.sum(1))
  per_unit = _over(sizes.sum(1), np.sum(sizes > 0, 1))
  parts = _over(sums - sizes * mean[:, None], per_unit[:, None])
  return mean, np.where(sizes > 0, mean[:, None] + parts, np.nan)


def _interval(linear, seed: int, level: float) -> tuple[np.ndarray, np.ndarray]:
  """Bootstraps rows, padded with NaN so that few shapes are compiled."""
  padding = [(0, max(1 << (n - 1).bit_length(), 8) - n) for n in linear.shape]
  padded = np.pad(linear, padding, constant_values=np.nan)
  box = intervals.bootstrap(padded, seed, num=REPLICATES, level=level)
  low, high = (np.array(x, np.float64) for x in (box.low, box.high))
  low, high = low[: len(linear)], high[: len(linear)]
  few = np.sum(~np.isnan(linear), 1) < FEWEST_UNITS
  return np.where(few, np.nan, low), np.where(few, np.nan, high)


def _deviation(values: np.ndarray) -> np.ndarray:
  """Standard deviation [rows], NaN below two values, 0 if all are equal."""
  known = ~np.isnan(values)
  number = known.sum(1)
  mean = _over(np.where(known, values, 0).sum(1), number)
  rest = np.where(known, values - mean[:, None], 0)
  # What is left of equal values when their mean is rounded.
  size = np.max(np.where(known, np.abs(values), 0), axis=1, initial=0)
  rest = np.where(np.abs(rest) <= 1e-14 * size[:, None], 0, rest)
  return np.sqrt(_over(np.sum(rest**2, 1), np.maximum(number - 1, 0)))


def _units(width: int, conditions, clusters) -> np.ndarray:
  """Unit of each condition, int [conditions] without gaps."""
  for key, ids in (('conditions', conditions), ('clusters', clusters)):
    if ids is not None and len(ids) != width:
      raise ValueError(
        f'{key} has {len(ids)} entries; allowed: {width}, as values has '
        'conditions'
      )
  ids = conditions if clusters is None else clusters
  if ids is None:
    return np.arange(width)
  place = {}
  return np.array([place.setdefault(_plain(x), len(place)) for x in ids])


def _totals(values: np.ndarray, unit: np.ndarray) -> np.ndarray:
  """Sums [..., conditions] to [..., units]."""
  order = np.argsort(unit, kind='stable')
  start = np.flatnonzero(np.diff(unit[order], prepend=-1))
  return np.add.reduceat(values[..., order], start, axis=-1, dtype=float)


def _plain(x):
  return x.item() if isinstance(x, np.generic) else x


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


def _notes(first, second, names, count, values, seen) -> tuple[str, ...]:
  notes = []
  width = values.shape[-1]
  for row in np.flatnonzero(count < width):
    notes.append(
      f'{names[first[row]]} and {names[second[row]]} share {count[row]} of '
      f'{width} conditions; the others are left out.'
    )
  live = _live(values)
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
