"""Differences condition by condition, and their intervals."""

import numpy as np

from pertjax.report import paired


def test_differences_are_paired():
  rng = np.random.default_rng(0)
  hard = rng.normal(size=40)  # A condition is hard for every model.
  values = np.stack([hard, hard + 0.1, hard + rng.normal(0, 0.5, 40)])[:, None]
  names = tuple(f'c{i}' for i in range(40))
  gap = paired.differences(values, np.array([0]), names)
  np.testing.assert_allclose(gap.mean[1, 0], 0.1)
  np.testing.assert_allclose([gap.low[1, 0], gap.high[1, 0]], 0.1)
  assert gap.low[2, 0] < gap.mean[2, 0] < gap.high[2, 0]
  assert gap.mean[0, 0] == gap.low[0, 0] == gap.high[0, 0] == 0
  assert gap.pairs.tolist() == [[40]] * 3
  again = paired.differences(values, np.array([0]), names)
  np.testing.assert_array_equal(gap.low, again.low)


def test_the_interval_covers_as_often_as_it_says():
  rng = np.random.default_rng(1)
  repeats, n = 400, 12
  # Each repeat is a combination; they share resamples, not values.
  values = np.stack(
    [np.zeros((repeats, n)), rng.normal(0.3, 1.0, (repeats, n))]
  )
  names = tuple(f'c{i}' for i in range(n))
  gap = paired.differences(values, np.zeros(repeats, int), names)
  covered = (gap.low[1] <= 0.3) & (gap.high[1] >= 0.3)
  # The standard error of 95% over 400 repeats is 1.1 points.
  assert 0.915 <= covered.mean() <= 0.985


def test_groups_of_one_condition_are_resampled_together():
  rng = np.random.default_rng(2)
  effect = rng.normal(size=20)
  values = np.zeros((2, 1, 60))
  values[1, 0] = np.repeat(effect, 3)
  together = tuple(f'c{i}' for i in np.repeat(np.arange(20), 3))
  apart = tuple(f'c{i}' for i in range(60))
  wide = paired.differences(values, np.array([0]), together)
  narrow = paired.differences(values, np.array([0]), apart)
  np.testing.assert_allclose(wide.mean, narrow.mean)
  ratio = (wide.high - wide.low)[1, 0] / (narrow.high - narrow.low)[1, 0]
  assert 1.5 < ratio < 2.0  # sqrt(3), widened for 20 instead of 60.


def test_differences_skip_what_is_undefined_and_refuse_few():
  values = np.zeros((2, 2, 8))
  values[1] = 1
  values[1, 0, :2] = np.nan
  values[1, 1, :5] = np.nan
  names = tuple(f'c{i}' for i in range(8))
  gap = paired.differences(values, np.array([0, 0]), names)
  assert gap.pairs[1].tolist() == [6, 3]
  assert gap.mean[1].tolist() == [1, 1]
  assert np.isfinite(gap.low[1]).tolist() == [True, False]
  none = paired.differences(values, np.array([-1, -1]), names)
  assert np.isnan(none.mean).all()
  empty = paired.differences(values[..., :0], np.array([0, 0]), ())
  assert np.isnan(empty.mean).all()


def test_rounding_is_not_an_effect():
  base = np.linspace(0.2, 0.9, 30)
  values = np.stack([base, base * (1 + 3e-7), base * (1 + 1e-4)])[:, None]
  names = tuple(map(str, range(30)))
  gap = paired.differences(values, np.array([0]), names)
  assert gap.low[1, 0] == gap.high[1, 0] == 0
  assert gap.low[2, 0] > 0
