"""Tests of paired differences: error rates by simulation, exact values.

A simulated rate of `count` tests at 5 % must stay below 5 % plus three standard
errors, 3 sqrt(0.05 0.95 / count): chance alone fails that once in 700 times.
"""

import itertools

import numpy as np
import pytest
from numpy import testing
from scipy import stats

from pertjax.metrics import comparison, paired_tests, student

ROWS = 1000

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


def runs(g, seeds, luck, *, rows=ROWS, conditions=30, own=0.0):
  """One model's values: residuals of 1, luck of a seed, its own response."""
  return (
    g.normal(size=(rows, seeds, conditions))
    + luck * g.normal(size=(rows, seeds, 1))
    + own * g.normal(size=(rows, 1, conditions))
  )


@pytest.mark.parametrize('test', comparison.TESTS)
@pytest.mark.parametrize('n', [6, 20, 100])
@pytest.mark.parametrize('null', NULLS)
def test_false_positives(null, n, test):
  rows = NULLS[null](np.random.default_rng(n), (ROWS, n))
  if test == 'permutation':
    p = paired_tests.sign_flip(rows, num=999)
  else:
    p = paired_tests.signed_rank(rows)
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
  p = paired_tests.sign_flip(gaps.reshape(-1, n), num=1999)
  p = p.reshape(families, -1)
  assert np.mean((paired_tests.holm(p) <= 0.05).any(1)) <= bound(families)
  if models == 5:
    assert np.mean((p <= 0.05).any(1)) > 0.15


def test_sign_flip_is_exact():
  g = np.random.default_rng(0)
  rows = np.concatenate([NULLS[key](g, (10, 6)) for key in NULLS])
  rows = np.concatenate([rows, rows + 1])
  expected = [brute_force(row) for row in rows]
  testing.assert_allclose(paired_tests.sign_flip(rows), expected, rtol=1e-12)


def test_drawn_flips_agree_with_all_of_them():
  rows = np.random.default_rng(0).normal(0.3, size=(8, 12))
  exact = paired_tests.sign_flip(rows, num=2**12)
  drawn = paired_tests.sign_flip(rows, num=2**12 - 1)
  assert (exact != drawn).any()
  error = np.sqrt(exact * (1 - exact) / 2**12)
  assert (np.abs(drawn - exact) < 4 * error + 1e-4).all()
  testing.assert_array_equal(
    paired_tests.sign_flip(rows, num=500, seed=3),
    paired_tests.sign_flip(rows, num=500, seed=3),
  )
  assert (
    paired_tests.sign_flip(rows, num=500, seed=4)
    != paired_tests.sign_flip(rows, num=500, seed=3)
  ).any()


def test_drawn_p_is_never_zero():
  p = paired_tests.sign_flip(np.ones((1, 40)), num=99)
  testing.assert_allclose(p, 1 / 100)


def test_sign_flip_leaves_nan_out():
  row = np.array([[1.0, np.nan, 2, 3, 0, np.nan, 5]])
  testing.assert_allclose(paired_tests.sign_flip(row), 2 / 2**4)
  testing.assert_allclose(paired_tests.sign_flip(1e300 * row), 2 / 2**4)


@pytest.mark.parametrize('n', [5, 12, 40, 50])
def test_signed_rank_as_scipy_exact(n):
  rows = np.random.default_rng(n).normal(0.3, size=(5, n))
  expected = stats.wilcoxon(rows, axis=1, method='exact').pvalue
  testing.assert_allclose(paired_tests.signed_rank(rows), expected, rtol=1e-10)


@pytest.mark.parametrize('zeros', paired_tests.ZEROS)
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
  p = paired_tests.signed_rank(rows, zeros=zeros)
  testing.assert_allclose(p, expected, rtol=1e-9)


@pytest.mark.parametrize('zeros', paired_tests.ZEROS)
def test_signed_rank_is_exact_with_ties_and_zeros(zeros):
  for row in np.random.default_rng(0).integers(-2, 4, (10, 8)).astype(float):
    kept = row if zeros == 'pratt' else row[row != 0]
    ranks = np.sign(kept) * stats.rankdata(np.abs(kept))
    testing.assert_allclose(
      paired_tests.signed_rank(row[None], zeros=zeros), brute_force(ranks)
    )


def test_holm_by_hand():
  p = np.array([[0.01, 0.04, np.nan, 0.03], [0.5, 0.4, 0.9, 0.001]])
  expected = [[0.03, 0.06, np.nan, 0.06], [1, 1, 1, 0.004]]
  testing.assert_allclose(paired_tests.holm(p), expected)


@pytest.mark.parametrize('own', [0, 0.7])
@pytest.mark.parametrize('luck', [0, 0.3, 2])
@pytest.mark.parametrize('seeds', [(2, 2), (4, 4), (5, 2), (5, 1)])
def test_seeds_are_not_a_difference(seeds, luck, own):
  g = np.random.default_rng(0)
  first, second = (runs(g, n, luck, own=own) for n in seeds)
  p = paired_tests.two_way(first, second).p
  assert np.mean(p <= 0.05) <= bound(ROWS)
  if luck == 2:
    # What ignoring the seeds would claim.
    flips = paired_tests.sign_flip(first.mean(1) - second.mean(1), num=199)
    assert np.mean(flips <= 0.05) > 0.6


@pytest.mark.parametrize('luck', [0.3, 2])
@pytest.mark.parametrize('seeds', [2, 5])
def test_seeds_against_a_model_without_luck(seeds, luck):
  first = runs(np.random.default_rng(0), seeds, luck, own=0.7)
  found = paired_tests.two_way(first, np.zeros_like(first))
  assert np.mean(found.p <= 0.05) <= bound(ROWS)


@pytest.mark.parametrize(('seeds', 'luck'), [(3, 2.0), (5, 0.3), (5, 0.0)])
def test_power_with_seeds(seeds, luck):
  g = np.random.default_rng(0)
  first, second = (runs(g, seeds, luck) for _ in range(2))
  error = np.sqrt(2 * (luck**2 + 1 / 30) / seeds)
  shift = student.noncentral(0.05, 0.8, np.array([2.0 * seeds - 2]))[0]
  p = paired_tests.two_way(first + shift * error, second).p
  # The variance is not let below its parts, which costs most without luck.
  assert (0.7 if luck else 0.6) < np.mean(p <= 0.05) < 0.9


def test_variance_of_two_way():
  g = np.random.default_rng(0)
  first, second = (runs(g, 4, 0.5, rows=4000, own=1.0) for _ in range(2))
  found = paired_tests.two_way(first, second)
  true = 2 * (1 / 30 + 0.25 / 4 + 1 / 120)
  testing.assert_allclose(found.variance.mean(), true, rtol=0.05)
  testing.assert_allclose((first - second).mean((1, 2)).var(), true, rtol=0.1)


def test_two_way_with_clusters_of_equal_conditions():
  g = np.random.default_rng(0)
  first, second = g.normal(size=(2, 4, 3, 10))
  alone = paired_tests.two_way(first, second)
  twice = paired_tests.two_way(
    np.repeat(first, 2, -1),
    np.repeat(second, 2, -1),
    clusters=np.repeat(np.arange(10), 2),
  )
  for x, y in zip(alone, twice):
    testing.assert_allclose(x, y)


def test_student():
  t, v = np.array([0, 0.5, 2.0, 30]), np.array([1, 2.5, 40, 3000])
  testing.assert_allclose(
    student.two_sided(t, v), 2 * stats.t.sf(t, v), atol=1e-11
  )
  testing.assert_allclose(
    student.quantile(0.01, v), stats.t.isf(0.005, v), rtol=1e-9
  )
