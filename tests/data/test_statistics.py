"""Means over groups of cells, against NumPy in double precision."""

import functools

import handmade
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pertjax.data import statistics


@pytest.fixture(scope='module')
def screen():
  return handmade.screen(copies=7, controls=15)


def _slow(values, rows, segment, num_segments):
  """Returns (means, counts); an empty segment has mean 0."""
  values = np.asarray(values, np.float64)
  out = np.zeros((num_segments, values.shape[1]))
  count = np.zeros(num_segments)
  for number in range(num_segments):
    own = [row for row, s in zip(rows, segment) if s == number]
    count[number] = len(own)
    if own:
      out[number] = values[own].mean(0)
  return out, count


@pytest.mark.parametrize('chosen', [0, 1, 7, 8, 9, 50])
def test_segment_means(screen, monkeypatch, chosen):
  """Whole blocks, parts of one, and segments that no cell is in."""
  monkeypatch.setattr(statistics, '_BLOCK', 8)
  data, _ = screen
  random = np.random.default_rng(chosen)
  rows = random.integers(0, data.cells.shape[0], chosen)
  segment = random.choice([0, 1, 4, 6], chosen)
  means = jax.jit(functools.partial(statistics.segment_means, num_segments=7))
  mean, count = means(
    data, jnp.asarray(rows, jnp.int32), jnp.asarray(segment, jnp.int32)
  )
  expected, expected_count = _slow(data.cells.values, rows, segment, 7)
  np.testing.assert_allclose(mean, expected, rtol=1e-6, atol=1e-6)
  np.testing.assert_array_equal(count, expected_count)
  assert mean.dtype == count.dtype == jnp.float32


def test_segment_means_of_features(screen, monkeypatch):
  monkeypatch.setattr(statistics, '_BLOCK', 16)
  data, _ = screen
  weights = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)

  @jax.jit
  def means(data, weights):
    return statistics.segment_means(
      data, data.train.perturbed, data.group[data.train.perturbed], 3,
      lambda x: jnp.tanh(x @ weights),
    )  # fmt: skip

  mean, count = means(data, weights)
  rows = np.asarray(data.train.perturbed)
  features = np.tanh(np.asarray(data.cells.values, np.float64) @ weights)
  expected, expected_count = _slow(
    features, rows, np.asarray(data.group)[rows], 3
  )
  assert mean.shape == (3, 3)
  np.testing.assert_allclose(mean, expected, atol=1e-5)
  np.testing.assert_array_equal(count, expected_count)


def test_many_cells_lose_no_digits():
  """A plain float32 sum of this many cells is wrong in the fourth digit."""
  values = np.full((60_000, 1), 1.1, np.float32)
  values[::2] = 7.7
  data, _ = handmade.dataset(values, ['control'] * len(values))
  rows = jnp.arange(len(values))
  mean, _ = jax.jit(
    functools.partial(statistics.segment_means, num_segments=1)
  )(data, rows, jnp.zeros_like(rows))
  exact = values.astype(np.float64).mean()
  assert abs(float(mean[0, 0]) - exact) < 1e-5 * exact


@pytest.mark.parametrize('part', ['train', 'val', 'test'])
def test_pair_means(screen, part):
  data, _ = screen
  rows = getattr(data, part)
  table = jax.jit(statistics.pair_means)(data, rows)
  values = np.asarray(data.cells.values, np.float64)
  condition, group = np.asarray(data.condition), np.asarray(data.group)
  inside = np.zeros(len(condition), bool)
  inside[np.asarray(rows.perturbed)] = True
  inside[np.asarray(rows.control)] = True
  pairs = sorted(
    {(c, g) for c, g in zip(condition[inside], group[inside]) if c}
  )
  assert len(table.group) == len(pairs)
  for number, (c, g) in enumerate(pairs):
    own = inside & (condition == c) & (group == g)
    control = inside & (condition == 0) & (group == g)
    assert int(table.group[number]) == g
    assert int(table.count[number]) == own.sum()
    np.testing.assert_array_equal(
      table.perturbations[number], data.condition_perturbations[c]
    )
    np.testing.assert_array_equal(table.doses[number], data.condition_doses[c])
    np.testing.assert_allclose(table.mean[number], values[own].mean(0), 1e-5)
    np.testing.assert_allclose(table.control[g], values[control].mean(0), 1e-5)
    assert int(table.control_count[g]) == control.sum()
    np.testing.assert_allclose(
      np.asarray(table.shift)[number],
      values[own].mean(0) - values[control].mean(0),
      atol=1e-5,
    )


def test_a_group_without_controls_has_mean_zero_and_count_zero():
  labels = ['control', 'A', 'A', 'B']
  data, _ = handmade.dataset(np.eye(4), labels, groups=['x', 'x', 'y', 'x'])
  table = jax.jit(statistics.pair_means)(data, data.train)
  np.testing.assert_array_equal(table.control_count, [1, 0])
  np.testing.assert_array_equal(table.control[1], np.zeros(4))
  np.testing.assert_array_equal(table.count, [1, 1, 1])


def test_pair_means_of_a_split_without_cells():
  data, _ = handmade.dataset(np.eye(2), ['control', 'A'])
  table = jax.jit(statistics.pair_means)(data, data.test)
  assert table.mean.shape == (0, 2)
  np.testing.assert_array_equal(table.control_count, [0])
