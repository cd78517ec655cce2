"""Bootstrap intervals: coverage by simulation, NaN, determinism, nesting."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy import testing

from pertjax import rng
from pertjax.metrics import intervals

SETS = 1500  # Standard error of a 95 % coverage: 0.6 points.

# Draws of [sets, n] and their expectation.
DRAWS = {
  'normal': (lambda g, size: g.normal(size=size), 0.0),
  'exponential': (lambda g, size: g.exponential(size=size), 1.0),
  'beta': (lambda g, size: g.beta(5, 1.2, size), 5 / 6.2),
  'zeros': (lambda g, s: g.random(s) * (g.random(s) < 0.4), 0.2),
}


def coverage(interval, truth):
  return float(np.mean((interval.low <= truth) & (truth <= interval.high)))


@pytest.mark.parametrize('number', [30, 60])
@pytest.mark.parametrize('name', DRAWS)
def test_coverage_of_the_default(name, number):
  draw, truth = DRAWS[name]
  values = draw(np.random.default_rng(number), (SETS, number))
  found = intervals.bootstrap(values, 0, num=500)
  assert 0.93 < coverage(found, truth) < 0.97
  # Width alone must not buy it.
  width = np.median(found.high - found.low)
  normal = 2 * 1.96 * np.median(values.std(1, ddof=1)) / np.sqrt(number)
  assert 0.9 < width / normal < 1.2


def test_default_beats_the_textbook_percentile():
  values = np.random.default_rng(0).exponential(size=(SETS, 12))
  default = coverage(intervals.bootstrap(values, 0, num=500), 1)
  plain = intervals.bootstrap(
    values, 0, num=500, method='percentile', widen=False
  )
  assert default > coverage(plain, 1) + 0.03


def test_coverage_of_the_median():
  values = np.random.default_rng(0).exponential(size=(600, 31))
  found = intervals.bootstrap(values, 0, num=300, statistic='median')
  assert 0.92 < coverage(found, np.log(2)) < 0.98
  testing.assert_allclose(found.estimate, np.median(values, 1), rtol=1e-6)


def test_level_widens():
  values = np.random.default_rng(0).normal(size=(4, 30))
  widths = [
    found.high - found.low
    for found in (
      intervals.bootstrap(values, 0, level=level) for level in (0.5, 0.9, 0.99)
    )
  ]
  assert (widths[0] < widths[1]).all()
  assert (widths[1] < widths[2]).all()


def numpy_bca(values, replicates, level):
  """Efron's BCa, without the widening, from the same replicates."""
  normal = jax.scipy.stats.norm
  estimate = values.mean()
  below = np.mean(replicates < estimate) + np.mean(replicates == estimate) / 2
  bias = float(normal.ppf(below))
  jackknife = [np.delete(values, i).mean() for i in range(len(values))]
  rest = np.mean(jackknife) - np.array(jackknife)
  skew = np.sum(rest**3) / (6 * np.sum(rest**2) ** 1.5)
  limits = []
  for side in ((1 - level) / 2, (1 + level) / 2):
    z = bias + float(normal.ppf(side))
    share = float(normal.cdf(bias + z / (1 - skew * z)))
    limits.append(np.quantile(replicates, share))
  return limits


@pytest.mark.parametrize('step', [0, 0.5])  # With 0.5, replicates tie.
def test_bca_equals_its_formula(step):
  values = np.random.default_rng(0).exponential(size=20).astype(np.float32)
  values = np.round(values / step) * step if step else values
  key = rng.stream(rng.root(3), rng.BOOTSTRAP)
  shares = jax.random.uniform(key, (500, 20))
  replicates = values[np.floor(shares * 20).astype(int)].mean(1)
  expected = numpy_bca(values, replicates, 0.9)
  found = intervals.bootstrap(values, 3, num=500, level=0.9, widen=False)
  testing.assert_allclose((found.low, found.high), expected, rtol=1e-4)
  plain = intervals.bootstrap(
    values, 3, num=500, level=0.9, widen=False, method='percentile'
  )
  expected = np.quantile(replicates, [0.05, 0.95])
  testing.assert_allclose((plain.low, plain.high), expected, rtol=1e-4)


def test_student_quantiles():
  # Tables of the t distribution at 97.5 %.
  freedom = jnp.array([5.0, 9, 29, 1000])
  expected = [2.5706, 2.2622, 2.0452, 1.9623]
  found = intervals.student_quantile(1.959964, freedom)
  testing.assert_allclose(found, expected, rtol=1.5e-3)


def test_same_seed_same_interval():
  values = np.random.default_rng(0).normal(size=(2, 15))
  first = intervals.bootstrap(values, 7)
  testing.assert_array_equal(first.low, intervals.bootstrap(values, 7).low)
  key = rng.stream(rng.root(7), rng.BOOTSTRAP)
  testing.assert_array_equal(first.low, intervals.bootstrap(values, key).low)
  assert (first.low != intervals.bootstrap(values, 8).low).all()


def test_blocks_change_nothing(monkeypatch):
  values = np.random.default_rng(0).normal(size=(3, 15)).astype(np.float32)
  whole = intervals.bootstrap(values, 7, num=100)
  monkeypatch.setattr(intervals, '_DRAWN', 1000)
  jax.clear_caches()
  blocks = intervals.bootstrap(values, 7, num=100)
  testing.assert_allclose(whole.low, blocks.low, rtol=1e-6)
  testing.assert_allclose(whole.high, blocks.high, rtol=1e-6)


def test_rows_share_draws():
  # Pairs: a constant difference has no width, whatever the rows do.
  values = np.random.default_rng(0).normal(size=(1, 25)).astype(np.float32)
  rows = np.concatenate([values, values + 1])
  found = intervals.bootstrap(rows, 0)
  testing.assert_allclose(found.low[1] - found.low[0], 1, rtol=1e-5)
  difference = intervals.bootstrap(np.full(25, 0.25), 0)
  assert difference.low == difference.high == difference.estimate == 0.25


def test_nan_is_counted_out():
  values = np.random.default_rng(0).normal(5, 1, (2, 3, 20)).astype(np.float32)
  values[0, 1, [3, 7, 19]] = np.nan
  values[1, 2] = np.nan
  values[1, 1, 1:] = np.nan
  found = intervals.bootstrap(values, 0)
  testing.assert_array_equal(found.used, [[20, 17, 20], [20, 1, 0]])
  testing.assert_array_equal(found.dropped, 20 - found.used)
  for field in (found.low, found.high):
    testing.assert_array_equal(
      np.isnan(field), [[False] * 3, [False, True, True]]
    )
  assert found.estimate[1, 1] == values[1, 1, 0]
  assert np.isnan(found.estimate[1, 2])
  # As if the missing ones had never been there.
  rest = values[0, 1][~np.isnan(values[0, 1])]
  testing.assert_allclose(found.estimate[0, 1], rest.mean(), rtol=1e-5)
  alone = intervals.bootstrap(rest, 0)
  testing.assert_allclose(found.low[0, 1], alone.low, atol=0.05)
  testing.assert_allclose(found.high[0, 1], alone.high, atol=0.05)


def test_limits_stay_inside_what_was_seen():
  values = np.random.default_rng(0).random((50, 4)) < 0.5
  found = intervals.bootstrap(values.astype(np.float32), 0)
  assert (found.low >= 0).all()
  assert (found.high <= 1).all()
  assert (found.low <= found.high).all()


def crossed(generator, conditions, seeds, of_seed, of_pair):
  values = generator.normal(size=(400, conditions, 1))
  values = values + of_seed * generator.normal(size=(400, 1, seeds))
  return values + of_pair * generator.normal(size=(400, conditions, seeds))


def test_coverage_over_conditions_and_seeds():
  values = crossed(np.random.default_rng(0), 30, 8, 0.5, 0.3)
  both = coverage(intervals.hierarchical(values, 0, num=200), 0)
  assert 0.92 < both < 0.98
  # Averaging the seeds away forgets that they vary.
  flat = coverage(intervals.bootstrap(values.mean(-1), 0, num=200), 0)
  assert flat < both - 0.02


def test_nested_design_draws_seeds_anew():
  values = crossed(np.random.default_rng(0), 30, 4, 0.0, 2.0)
  width = {}
  for design in intervals.DESIGNS:
    found = intervals.hierarchical(values, 0, num=200, design=design)
    width[design] = np.median(found.high - found.low)
    assert coverage(found, 0) > 0.93
  assert width['nested'] != width['crossed']


@pytest.mark.parametrize('design', intervals.DESIGNS)
def test_one_seed_is_the_plain_bootstrap(design):
  values = np.random.default_rng(0).normal(size=(6, 30)).astype(np.float32)
  plain = intervals.bootstrap(values, 0)
  found = intervals.hierarchical(values[..., None], 0, design=design)
  testing.assert_allclose(found.estimate, plain.estimate, atol=1e-6)
  testing.assert_allclose(found.low, plain.low, atol=0.06)
  testing.assert_allclose(found.high, plain.high, atol=0.06)


def test_hierarchical_counts_conditions_without_seeds():
  values = np.random.default_rng(0).normal(size=(2, 9, 3)).astype(np.float32)
  values[0, 2] = np.nan
  values[0, 3, :2] = np.nan
  values[1, :, 1] = np.nan
  found = intervals.hierarchical(values, 0, num=500)
  testing.assert_array_equal(found.used, [8, 9])
  testing.assert_array_equal(found.dropped, [1, 0])
  rest = values[0, [0, 1, 3, 4, 5, 6, 7, 8]]
  expected = np.nanmean(np.nanmean(rest, axis=1))
  testing.assert_allclose(found.estimate[0], expected, rtol=1e-5)
  assert np.isfinite(found.low).all()


@pytest.mark.parametrize(
  ('call', 'message'),
  [
    (lambda: intervals.bootstrap([1.0], 0, statistic='men'), "closest: 'mean'"),
    (lambda: intervals.bootstrap([1.0], 0, method='t'), "'bca', 'percentile'"),
    (lambda: intervals.bootstrap([1.0], 0, level=95), 'level 95'),
    (lambda: intervals.bootstrap(1.0, 0), r'conditions\]'),
    (lambda: intervals.bootstrap(np.zeros((2, 0)), 0), r'\(2, 0\)'),
    (lambda: intervals.hierarchical([1.0], 0), 'conditions, seeds'),
    (
      lambda: intervals.hierarchical([[1.0]], 0, design='both'),
      "'crossed', 'nested'",
    ),
  ],
)
def test_errors_name_what_is_allowed(call, message):
  with pytest.raises(ValueError, match=message):
    call()
