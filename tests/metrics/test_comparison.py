"""Paired comparison: power and coverage by simulation, edge cases."""

import numpy as np
import pytest
from numpy import testing
from scipy import stats

from pertjax.metrics import comparison, paired_tests, student

ROWS = 1000
NAMES = tuple('abcde')


def bound(count, rate=0.05):
  # Chance alone is above this once in 700 times.
  return rate + 3 * np.sqrt(rate * (1 - rate) / count)


def compare(values, **options):
  options = {'names': NAMES[: len(values)], 'direction': 'higher', **options}
  return comparison.compare(values, **options)


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
    p = paired_tests.sign_flip(rows, num=num)
  else:
    p = paired_tests.signed_rank(rows)
  assert 0.7 < np.mean(p <= alpha) < 0.9


def test_detectable_is_the_textbook_one_for_many():
  least = comparison.detectable(np.ones(1), np.array([10_000]), power=0.9)
  testing.assert_allclose(least, (1.96 + 1.2816) / 100, rtol=2e-3)
  # And the non-central t for few.
  for v in (2, 5, 30):
    shift = student.noncentral(0.05, 0.8, np.array([float(v)]))[0]
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


def test_compare_with_seeds_covers_and_says_no_difference():
  # Models against one that scores zero in every seed: independent pairs.
  g = np.random.default_rng(0)
  rows = 300
  luck = g.normal(size=(rows, 3, 1))
  values = luck + g.normal(size=(rows, 3, 20))
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
