"""Paired comparison: error rates by simulation, exact values, edge cases.

A simulated rate of `count` tests at 5 % must stay below 5 % plus three standard
errors, 3 sqrt(0.05 0.95 / count): chance alone fails that once in 700 times.
"""

import itertools

import numpy as np
import pytest
from numpy import testing
from scipy import stats

from pertjax.metrics import comparison

ROWS = 1000
NAMES = tuple('abcde')

# Differences of two models that are alike: symmetric about zero.
NULLS = {
  'normal': lambda g, size: g.normal(size=size),
  'heavy': lambda g, size: g.standard_t(1.5, size=size),
  'tied': lambda g, size: g.integers(-2, 3, size).astype(float),
  'zeros': lambda g, size: g.normal(size=size) * (g.random(size) < 0.3),
  'outlier': lambda g, size: np.sinh(3 * g.normal(size=size)),
}


def bound(count, rate=0.05):
  return rate + 3 * np.sqrt(rate * (1 - rate) / count)


def brute_force(row):
  flips = np.array(list(itertools.product([1, -1], repeat=len(row))))
  return np.mean(np.abs(flips @ row) >= np.abs(row.sum()) - 1e-12)


def compare(values, **options):
  options = {'names': NAMES[: len(values)], 'direction': 'higher', **options}
  return comparison.compare(values, **options)


# ----------------------------------------------------------------------------
# Tests.


@pytest.mark.parametrize('test', comparison.TESTS)
@pytest.mark.parametrize('n', [6, 20, 100])
@pytest.mark.parametrize('null', NULLS)
def test_false_positives(null, n, test):
  rows = NULLS[null](np.random.default_rng(n), (ROWS, n))
  if test == 'permutation':
    p = comparison.sign_flip(rows, num=999)
  else:
    p = comparison.signed_rank(rows)
  assert ((p > 0) & (p <= 1)).all()
  assert np.mean(p <= 0.05) <= bound(ROWS)
  if n == 100 and null != 'heavy':
    assert np.mean(p <= 0.05) > 0.03  # Nor is it needlessly careful.


@pytest.mark.parametrize('models', [2, 5])
def test_family_wise_rate(models):
  families, n = 1000, 20
  g = np.random.default_rng(models)
  values = g.normal(size=(families, models, n)) + g.normal(size=(1, 1, n))
  first, second = np.array(list(itertools.combinations(range(models), 2))).T
  gaps = values[:, first] - values[:, second]
  p = comparison.sign_flip(gaps.reshape(-1, n), num=1999)
  p = p.reshape(families, -1)
  assert np.mean((comparison.holm(p) <= 0.05).any(1)) <= bound(families)
  if models == 5:
    assert np.mean((p <= 0.05).any(1)) > 0.15


def test_sign_flip_is_exact():
  g = np.random.default_rng(0)
  rows = np.concatenate([NULLS[key](g, (10, 6)) for key in NULLS])
  rows = np.concatenate([rows, rows + 1])
  expected = [brute_force(row) for row in rows]
  testing.assert_allclose(comparison.sign_flip(rows), expected, rtol=1e-12)


def test_drawn_flips_agree_with_all_of_them():
  rows = np.random.default_rng(0).normal(0.3, size=(8, 12))
  exact = comparison.sign_flip(rows, num=2**12)
  drawn = comparison.sign_flip(rows, num=2**12 - 1)
  assert (exact != drawn).any()
  error = np.sqrt(exact * (1 - exact) / 2**12)
  assert (np.abs(drawn - exact) < 4 * error + 1e-4).all()
  testing.assert_array_equal(
    comparison.sign_flip(rows, num=500, seed=3),
    comparison.sign_flip(rows, num=500, seed=3),
  )
  assert (
    comparison.sign_flip(rows, num=500, seed=4)
    != comparison.sign_flip(rows, num=500, seed=3)
  ).any()


def test_drawn_p_is_never_zero():
  p = comparison.sign_flip(np.ones((1, 40)), num=99)
  testing.assert_allclose(p, 1 / 100)


def test_sign_flip_leaves_nan_out():
  row = np.array([[1.0, np.nan, 2, 3, 0, np.nan, 5]])
  testing.assert_allclose(comparison.sign_flip(row), 2 / 2**4)
  testing.assert_allclose(comparison.sign_flip(1e300 * row), 2 / 2**4)


@pytest.mark.parametrize('n', [5, 12, 40, 50])
def test_signed_rank_as_scipy_exact(n):
  rows = np.random.default_rng(n).normal(0.3, size=(5, n))
  expected = stats.wilcoxon(rows, axis=1, method='exact').pvalue
  testing.assert_allclose(comparison.signed_rank(rows), expected, rtol=1e-10)


@pytest.mark.parametrize('zeros', comparison.ZEROS)
@pytest.mark.parametrize('null', NULLS)
def test_signed_rank_as_scipy_normal(null, zeros):
  rows = NULLS[null](np.random.default_rng(0), (5, 300)) + (null == 'normal')
  expected = stats.wilcoxon(
    rows,
    axis=1,
    zero_method='pratt' if zeros == 'pratt' else 'wilcox',
    method='asymptotic',
    correction=False,
  ).pvalue
  p = comparison.signed_rank(rows, zeros=zeros)
  testing.assert_allclose(p, expected, rtol=1e-9)


@pytest.mark.parametrize('zeros', comparison.ZEROS)
def test_signed_rank_is_exact_with_ties_and_zeros(zeros):
  for row in np.random.default_rng(0).integers(-2, 4, (10, 8)).astype(float):
    kept = row if zeros == 'pratt' else row[row != 0]
    ranks = np.sign(kept) * stats.rankdata(np.abs(kept))
    testing.assert_allclose(
      comparison.signed_rank(row[None], zeros=zeros), brute_force(ranks)
    )


def test_holm_by_hand():
  p = np.array([[0.01, 0.04, np.nan, 0.03], [0.5, 0.4, 0.9, 0.001]])
  expected = [[0.03, 0.06, np.nan, 0.06], [1, 1, 1, 0.004]]
  testing.assert_allclose(comparison.holm(p), expected)


def test_student():
  t, v = np.array([0, 0.5, 2.0, 30]), np.array([1, 2.5, 40, 3000])
  testing.assert_allclose(
    comparison._two_sided(t, v), 2 * stats.t.sf(t, v), atol=1e-11
  )
  testing.assert_allclose(
    comparison._quantile(0.01, v), stats.t.isf(0.005, v), rtol=1e-9
  )


# ----------------------------------------------------------------------------
# Power.


@pytest.mark.parametrize('test', comparison.TESTS)
@pytest.mark.parametrize('alpha', [0.05, 0.05 / 4])
@pytest.mark.parametrize('n', [6, 8, 20, 100])
def test_power_at_the_detectable_difference(n, alpha, test):
  num, sd = 1999, 0.3
  least = comparison.detectable(
    np.array([sd]), np.array([n]), alpha=alpha, test=test, num=num
  )
  if n == 6 and alpha < 2 / 2**6:
    assert np.isinf(least).all()
    return
  rows = np.random.default_rng(n).normal(least, sd, (ROWS, n))
  if test == 'permutation':
    p = comparison.sign_flip(rows, num=num)
  else:
    p = comparison.signed_rank(rows)
  assert 0.7 < np.mean(p <= alpha) < 0.9


def test_detectable_is_the_textbook_one_for_many():
  least = comparison.detectable(np.ones(1), np.array([10_000]), power=0.9)
  testing.assert_allclose(least, (1.96 + 1.2816) / 100, rtol=2e-3)
  # And the non-central t for few.
  for v in (2, 5, 30):
    shift = comparison._noncentral(0.05, 0.8, np.array([float(v)]))[0]
    power = stats.nct.sf(stats.t.isf(0.025, v), v, shift)
    testing.assert_allclose(power, 0.8, atol=0.01)


def test_detectable_takes_the_strictest_step():
  values = np.random.default_rng(0).normal(size=(5, 30))
  found = compare(values, reference='e')
  sd = np.std(values[:4] - values[4], axis=1, ddof=1)
  testing.assert_allclose(
    found.detectable,
    comparison.detectable(sd, np.full(4, 30), alpha=0.05 / 4),
  )
  alone = compare(values, reference='e', correction='none')
  assert (alone.detectable < found.detectable).all()
  testing.assert_array_equal(alone.p_adjusted, alone.p)


# ----------------------------------------------------------------------------
# Seeds.


def runs(g, seeds, luck, *, rows=ROWS, conditions=30, own=0.0):
  """One model's values: residuals of 1, luck of a seed, its own response."""
  return (
    g.normal(size=(rows, seeds, conditions))
    + luck * g.normal(size=(rows, seeds, 1))
    + own * g.normal(size=(rows, 1, conditions))
  )


@pytest.mark.parametrize('own', [0, 0.7])
@pytest.mark.parametrize('luck', [0, 0.3, 2])
@pytest.mark.parametrize('seeds', [(2, 2), (4, 4), (5, 2), (5, 1)])
def test_seeds_are_not_a_difference(seeds, luck, own):
  g = np.random.default_rng(0)
  first, second = (runs(g, n, luck, own=own) for n in seeds)
  p = comparison.two_way(first, second).p
  assert np.mean(p <= 0.05) <= bound(ROWS)
  if luck == 2:
    # What ignoring the seeds would claim.
    flips = comparison.sign_flip(first.mean(1) - second.mean(1), num=199)
    assert np.mean(flips <= 0.05) > 0.6


@pytest.mark.parametrize('luck', [0.3, 2])
@pytest.mark.parametrize('seeds', [2, 5])
def test_seeds_against_a_model_without_luck(seeds, luck):
  first = runs(np.random.default_rng(0), seeds, luck, own=0.7)
  found = comparison.two_way(first, np.zeros_like(first))
  assert np.mean(found.p <= 0.05) <= bound(ROWS)


@pytest.mark.parametrize(('seeds', 'luck'), [(3, 2.0), (5, 0.3), (5, 0.0)])
def test_power_with_seeds(seeds, luck):
  g = np.random.default_rng(0)
  first, second = (runs(g, seeds, luck) for _ in range(2))
  error = np.sqrt(2 * (luck**2 + 1 / 30) / seeds)
  shift = comparison._noncentral(0.05, 0.8, np.array([2.0 * seeds - 2]))[0]
  p = comparison.two_way(first + shift * error, second).p
  # The variance is not let below its parts, which costs most without luck.
  assert (0.7 if luck else 0.6) < np.mean(p <= 0.05) < 0.9


def test_variance_of_two_way():
  g = np.random.default_rng(0)
  first, second = (runs(g, 4, 0.5, rows=4000, own=1.0) for _ in range(2))
  found = comparison.two_way(first, second)
  true = 2 * (1 / 30 + 0.25 / 4 + 1 / 120)
  testing.assert_allclose(found.variance.mean(), true, rtol=0.05)
  testing.assert_allclose((first - second).mean((1, 2)).var(), true, rtol=0.1)


def test_compare_with_seeds_covers_and_says_no_difference():
  # Models against one that scores zero in every seed: independent pairs.
  g = np.random.default_rng(0)
  rows = 300
  values = runs(g, 3, 1.0, rows=rows, conditions=20)
  values = np.concatenate([values, np.zeros((1, 3, 20))])
  found = comparison.compare(
    values,
    names=range(rows + 1),
    reference=rows,
    direction='higher',
    correction='none',
    num=199,
  )
  covered = np.mean((found.low <= 0) & (found.high >= 0))
  assert covered > 0.95 - 3 * np.sqrt(0.95 * 0.05 / rows)
  assert np.mean(found.p <= 0.05) <= bound(rows)
  # The median: two degrees of freedom leave a heavy lower tail.
  assert np.median(found.seed_share) > 0.7
  assert not found.notes
  one = comparison.compare(
    values[:, 0],
    names=range(rows + 1),
    reference=rows,
    direction='higher',
    correction='none',
    num=199,
  )
  assert np.mean(one.p <= 0.05) > 0.4  # Which is why one seed has its note.
  assert 'one seed' in one.notes[0]
  assert np.isnan(one.seed_share).all()


def test_dead_seeds_and_lacking_conditions():
  g = np.random.default_rng(0)
  values = g.normal(size=(2, 3, 12))
  values[0, 2] = np.nan  # A run that failed.
  values[1, 0, 4] = np.nan  # A metric that is undefined once.
  found = compare(values)
  testing.assert_array_equal(found.seeds, [[2, 3]])
  testing.assert_array_equal(found.conditions, [11])
  testing.assert_array_equal(found.left_out, [1])
  kept = np.delete(values, 4, 2)
  testing.assert_allclose(found.difference, kept[0, :2].mean() - kept[1].mean())
  assert any('2 of 3 seeds' in note for note in found.notes)
  testing.assert_allclose(compare(kept).p, found.p)
  single = values.copy()
  single[0, 1] = np.nan
  assert any('stands for' in note for note in compare(single).notes)


def test_two_way_with_clusters_of_equal_conditions():
  g = np.random.default_rng(0)
  first, second = g.normal(size=(2, 4, 3, 10))
  alone = comparison.two_way(first, second)
  twice = comparison.two_way(
    np.repeat(first, 2, -1),
    np.repeat(second, 2, -1),
    clusters=np.repeat(np.arange(10), 2),
  )
  for x, y in zip(alone, twice):
    testing.assert_allclose(x, y)


# ----------------------------------------------------------------------------
# The whole comparison.


def test_fields_by_hand():
  values = np.array([[3.0, 5, 4, 9, 1], [1, 4, 4, 5, np.nan]])
  found = compare(values, names=('new', 'old'), reference='old')
  assert (found.models, found.against) == (('new',), ('old',))
  gaps = np.array([2.0, 1, 0, 4])
  testing.assert_allclose(found.difference, gaps.mean())
  testing.assert_allclose(found.effect, gaps.mean() / gaps.std(ddof=1))
  testing.assert_allclose(found.p, 2 / 2**3)
  testing.assert_allclose(found.won, 3.5 / 4)
  testing.assert_allclose(found.rank_biserial, 1)
  assert (found.conditions, found.left_out, found.units) == (4, 1, 4)
  assert np.isnan(found.low)  # Four units are too few.
  more = compare(np.tile(values, 2), names=('new', 'old'), reference='old')
  assert more.low < gaps.mean() < more.high
  assert found.verdicts == ('too few conditions',)
  assert '4 of 5 conditions' in found.notes[0]


def test_direction_turns_everything():
  values = np.random.default_rng(0).normal(size=(2, 30))
  values[0] += 1
  up, down = (compare(values, direction=d) for d in ('higher', 'lower'))
  assert up.verdicts == ('better',)
  assert down.verdicts == ('worse',)
  for key in ('difference', 'effect', 'rank_biserial'):
    testing.assert_allclose(getattr(up, key), -getattr(down, key))
  testing.assert_allclose(up.won, 1 - down.won)
  testing.assert_allclose(up.p, down.p)
  testing.assert_allclose(
    up.rank_biserial, compare(values, test='wilcoxon').rank_biserial
  )


def test_rank_biserial_by_hand():
  found = compare(np.array([[3.0, -1, 2, 0], [0, 0, 0, 0]]))
  testing.assert_allclose(found.rank_biserial, (3 + 2 - 1) / 6)


def test_pairs():
  values = np.random.default_rng(0).normal(size=(3, 8))
  found = compare(values)
  assert (found.models, found.against) == (('a', 'a', 'b'), ('b', 'c', 'c'))
  found = compare(values, reference='b')
  assert (found.models, found.against) == (('a', 'c'), ('b', 'b'))


def test_deterministic():
  values = np.random.default_rng(0).normal(size=(3, 30))
  first, second = (compare(values, num=500) for _ in range(2))
  for x, y in zip(first, second):
    testing.assert_array_equal(x, y)


@pytest.mark.parametrize('test', comparison.TESTS)
def test_identical_values(test):
  values = np.tile(np.random.default_rng(0).normal(size=(1, 20)), (2, 1))
  # Rounding of float32 is no effect.
  for second in (values[1], values[1] * (1 + 5e-7)):
    found = compare(np.stack([values[0], second]), test=test)
    testing.assert_array_equal(found.p, 1)
    testing.assert_array_equal(found.difference, 0)
    testing.assert_array_equal((found.low, found.high, found.effect), 0)
    testing.assert_array_equal(found.rank_biserial, 0)
    testing.assert_array_equal(found.won, 0.5)
    assert found.verdicts == ('no difference shown',)


def test_identical_values_in_all_seeds():
  found = compare(np.ones((2, 3, 20)))
  testing.assert_array_equal(found.p, 1)
  testing.assert_array_equal((found.low, found.high), 0)
  testing.assert_array_equal(found.seed_share, 0)


def test_constant_difference():
  found = compare(np.stack([np.full(20, 0.3), np.full(20, 0.1)]))
  assert found.verdicts == ('better',)
  assert np.isposinf(found.effect)
  testing.assert_array_equal(found.detectable, 0)


@pytest.mark.parametrize('test', comparison.TESTS)
@pytest.mark.parametrize('shape', [(2, 1), (2, 3, 1)])
def test_one_condition(shape, test):
  values = np.random.default_rng(0).normal(size=shape)
  found = compare(values, test=test)
  testing.assert_array_equal(found.p, 1)
  assert np.isfinite(found.difference)
  assert np.isnan(found.low)
  assert np.isnan(found.effect)
  assert np.isinf(found.detectable)
  assert found.verdicts == ('too few conditions',)


@pytest.mark.parametrize('test', comparison.TESTS)
@pytest.mark.parametrize('shape', [(3, 9), (3, 2, 9)])
def test_all_nan(shape, test):
  values = np.random.default_rng(0).normal(size=shape)
  values[1] = np.nan
  found = compare(values, reference='c', test=test)
  assert np.isfinite(found.p[0])
  testing.assert_allclose(found.p_adjusted[0], found.p[0])  # No family of 2.
  for key in (
    'difference',
    'low',
    'high',
    'p',
    'p_adjusted',
    'effect',
    'rank_biserial',
    'won',
    'seed_share',
  ):
    assert np.isnan(getattr(found, key)[1]), key
  assert (found.conditions[1], found.left_out[1]) == (0, 9)
  assert found.verdicts[1] == 'too few conditions'
  assert any('share 0 of 9' in note for note in found.notes)


def test_few_conditions_under_holm():
  values = np.random.default_rng(0).normal(size=(5, 6))
  values[:4] += 10
  found = compare(values, reference='e')
  testing.assert_allclose(found.p, 2 / 2**6)
  assert found.verdicts == ('too few conditions',) * 4
  assert compare(values[3:], names='de').verdicts == ('better',)


# ----------------------------------------------------------------------------
# Clusters.


def test_clusters_are_units():
  g = np.random.default_rng(0)
  values = g.normal(size=(2, 8))
  twice = compare(np.repeat(values, 2, 1), conditions=np.repeat(range(8), 2))
  once = compare(values)
  assert (twice.conditions, twice.units) == (16, 8)
  for key in ('difference', 'p', 'low', 'high', 'effect', 'detectable'):
    testing.assert_allclose(getattr(twice, key), getattr(once, key), rtol=1e-5)
  assert compare(np.repeat(values, 2, 1)).p < once.p


def test_clusters_keep_the_rate():
  rows = 400
  g = np.random.default_rng(0)
  units = np.repeat(np.arange(24), [1, 2, 3] * 8)
  gaps = g.normal(size=(rows, 24))[:, units] + g.normal(size=(rows, 48)) / 3
  values = np.concatenate([gaps, np.zeros((1, 48))])
  options = {
    'names': range(rows + 1),
    'direction': 'higher',
    'reference': rows,
    'correction': 'none',
    'num': 999,
  }
  found = comparison.compare(values, clusters=units, **options)
  assert np.mean(found.p <= 0.05) <= bound(rows)
  # 94.0 % of 3,000.
  covered = np.mean((found.low <= 0) & (found.high >= 0))
  assert covered > 0.94 - 3 * np.sqrt(0.94 * 0.06 / rows)
  testing.assert_allclose(found.difference, gaps.mean(1))
  naive = comparison.compare(values, **options)
  assert np.mean(naive.p <= 0.05) > 0.1


def test_constant_difference_of_unequal_clusters_is_certain():
  values = np.stack([np.full(9, 2.0), np.full(9, 1.5)])
  found = compare(values, clusters=[0, 0, 0, 0, 1, 1, 2, 3, 4])
  testing.assert_allclose((found.low, found.high), 0.5)


# ----------------------------------------------------------------------------
# Errors.


@pytest.mark.parametrize(
  ('options', 'words'),
  [
    ({'direction': 'up'}, "'higher', 'lower'"),
    ({'test': 'wilcox'}, "closest: 'wilcoxon'"),
    ({'test': 'wilcoxon', 'zeros': 'keep'}, "'pratt', 'drop'"),
    ({'correction': 'bh'}, "'holm', 'none'"),
    ({'names': ('linear', 'mean'), 'reference': 'lnear'}, "'linear'"),
    ({'names': ('a', 'a')}, '2 distinct'),
    ({'names': ('a',)}, '2 distinct'),
    ({'conditions': ['x']}, '1 entries; allowed: 9'),
    ({'clusters': range(10)}, '10 entries; allowed: 9'),
    ({'num': 0}, 'num >= 1'),
    ({'level': 1.0}, '0 < level < 1'),
    ({'power': 0.0}, '0 < power < 1'),
  ],
)
def test_errors(options, words):
  with pytest.raises(ValueError, match=words):
    compare(np.ones((2, 9)), **options)


def test_errors_of_values():
  with pytest.raises(ValueError, match=r'\(9,\)'):
    comparison.compare(np.ones(9), names='a', direction='higher')
  with pytest.raises(ValueError, match='one model'):
    compare(np.ones((1, 9)))
  values = np.ones((2, 9))
  values[1, 3] = np.inf
  with pytest.raises(ValueError, match="'b' are infinite"):
    compare(values)
