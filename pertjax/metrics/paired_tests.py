"""Tests of rows of paired differences. NaN is no difference of that row."""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import jax
import numpy as np

from pertjax import rng
from pertjax.metrics import paired_units, registry, student

ZEROS = ('pratt', 'drop')
# The signed-rank distribution is exact up to as many non-zero differences.
EXACT_RANKS = 50

# Signs or sums held at once; bounds memory, sets no result.
_AT_ONCE = 1 << 22
# Sums that differ by less, relative to the sum of sizes, are equal.
_TIE = 1e-10


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

  Raises:
    ValueError: when `num` is below 1.
  """
  if num < 1:
    raise ValueError(f'num is {num}; allowed: 1 or more')
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
  for i, ranks in enumerate(signed_ranks(differences, zeros)):
    ranks = ranks[ranks != 0]
    if np.isnan(differences[i]).all():
      continue
    if not ranks.size:
      p[i] = 1
    elif ranks.size <= EXACT_RANKS:
      # Mean ranks are halves.
      doubled = np.sort(np.abs(2 * ranks)).astype(int)
      tail = rank_tails(tuple(doubled.tolist()))
      less = np.sum(np.abs(2 * ranks[ranks < 0]))
      more = np.sum(np.abs(2 * ranks[ranks > 0]))
      p[i] = min(2 * tail[int(min(less, more))], 1)
    else:
      z = np.abs(ranks.sum()) / np.sqrt(np.sum(ranks**2))
      p[i] = math.erfc(z / math.sqrt(2))
  return p


@functools.lru_cache(maxsize=256)
def rank_tails(ranks: tuple[int, ...]) -> np.ndarray:
  """P(sum of ranks with positive sign <= s) for s from 0 to the middle."""
  chance = np.zeros(sum(ranks) // 2 + 1)
  chance[0] = 1
  for rank in ranks:
    moved = np.zeros_like(chance)
    if rank < len(chance):
      moved[rank:] = chance[: len(chance) - rank]
    chance = (chance + moved) / 2
  return np.cumsum(chance)


def signed_ranks(differences: np.ndarray, zeros: str) -> np.ndarray:
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
  unit = paired_units.units(width, None, clusters)
  first, second = paired_units.common(first, second)
  gaps = paired_units.gaps(first, second, 0)
  used = ~np.isnan(gaps)
  sizes = paired_units.totals(used, unit)
  mean, linear = paired_units.linearised(
    paired_units.totals(np.where(used, gaps, 0), unit), sizes
  )
  units = np.sum(sizes > 0, 1)
  over_units = paired_units.over(paired_units.deviation(linear) ** 2, units)
  parts = [_seed_parts(x, unit, sizes) for x in (first, second)]
  over_seeds, rest, few = _seed_variance(*parts, units)
  known = ~np.isnan(over_seeds) & (units > 1)
  over_seeds, rest = np.where(known, (over_seeds, rest), 0)
  variance = np.maximum(over_units + over_seeds - rest, over_units)
  variance = np.maximum(variance, over_seeds)
  # In shares of the variance, whose squares could underflow.
  own, luck = (
    np.square(paired_units.over(x, variance)) for x in (over_units, over_seeds)
  )
  freedom = paired_units.over(1, own / np.maximum(units - 1, 1) + luck * few)
  freedom = np.where(np.isnan(freedom), units - 1, freedom)
  freedom = np.maximum(freedom, 1)
  seed_freedom = np.maximum(np.where(known, paired_units.over(1, few), 1), 1)
  p = np.maximum(
    _student_test(mean, variance, freedom),
    np.where(known, _student_test(mean, over_seeds, seed_freedom), 0),
  )
  p = np.where(units > 1, p, 1)
  share = np.where(variance > 0, 1 - paired_units.over(over_units, variance), 0)
  return TwoWay(
    p=np.where(units > 0, p, np.nan),
    variance=np.where(units > 1, variance, np.nan),
    freedom=freedom,
    seed_variance=over_seeds,
    seed_freedom=seed_freedom,
    seed_share=np.where(known, share, np.nan),
  )


def _student_test(mean, variance, freedom) -> np.ndarray:
  # Without any variance a difference is certain and none is nothing.
  error = np.sqrt(np.where(variance > 0, variance, np.finfo(float).tiny))
  return student.two_sided(mean / error, freedom)


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
  weight = paired_units.over(n_a - 1, free)
  runs = paired_units.over(1, n_a) + paired_units.over(1, n_b)
  pooled = (weight * var_a + (1 - weight) * var_b) * runs
  pooled_rest = (weight * rest_a + (1 - weight) * rest_b) * runs
  each = [paired_units.over(var_a, n_a), paired_units.over(var_b, n_b)]
  welch = each[0] + each[1]
  both = (n_a > 1) & (n_b > 1)
  take = ~both | (pooled > welch)
  rest = np.where(
    take,
    pooled_rest,
    paired_units.over(rest_a, n_a) + paired_units.over(rest_b, n_b),
  )
  shares = [np.square(paired_units.over(x, welch)) for x in each]
  few = paired_units.over(shares[0], n_a - 1) + paired_units.over(
    shares[1], n_b - 1
  )
  few = np.where(both & (welch > 0), few, paired_units.over(1, free))
  return np.where(take, pooled, welch), paired_units.over(rest, units), few


def _seed_parts(values, unit, sizes):
  """Variance of seed means and of seed x unit residuals, and seeds, [rows]."""
  live = paired_units.live(values)[:, :, None]
  n = live[:, :, 0].sum(1)
  known = np.where(np.isnan(values), 0, values)
  sums = paired_units.totals(known, unit)  # [rows, seeds, units]
  total = sizes.sum(1)[:, None, None]
  units = np.sum(sizes > 0, 1)
  means = paired_units.over(sums.sum(2, keepdims=True), total)
  means = np.where(live, means, 0)
  centre = paired_units.over(means.sum(1, keepdims=True), n[:, None, None])
  free = np.maximum(n - 1, 1)
  off = np.where(live, means - centre, 0)
  variance = np.sum(off**2, (1, 2)) / free
  per_unit = paired_units.over(total, units[:, None, None])
  own = np.where(
    live, paired_units.over(sums - sizes[:, None] * means, per_unit), 0
  )
  own = np.where(np.isnan(own), 0, own)
  centre = paired_units.over(own.sum(1, keepdims=True), n[:, None, None])
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
