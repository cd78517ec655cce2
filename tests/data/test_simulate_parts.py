"""The simulator's formulas and draws against closed forms and measurements."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from pertjax.data import (
  simulate,
  simulate_cells,
  simulate_truth,
  simulate_world,
)


def test_combine_by_hand():
  graph = np.zeros((3, 3))
  graph[0, 1], graph[1, 2] = 0.5, 2.0
  kwargs = {
    'graph': graph,
    'gates': np.array([[0, 1, 2]]),
    'gate_weights': np.array([3.0]),
  }
  first, second = np.array([1.0, 0.0, 0.0]), np.array([0.0, 1.0, 0.0])
  alone = simulate_world.combine(first, 0 * second, epistasis=1.0, **kwargs)
  np.testing.assert_allclose(alone, [1.0, 0.5, 1.0])
  sums = simulate_world.combine(first, second, epistasis=0.0, **kwargs)
  np.testing.assert_allclose(sums, [1.0, 1.5, 3.0])
  # Program 1: 0.5 and 1 together, program 2: 1 and 2; and the gate, open where
  # the first moves program 0 and the second program 1.
  both = simulate_world.combine(first, second, epistasis=0.5, **kwargs)
  saturation = np.array([0.0, -0.5 / 1.5, -2.0 / 3.0])
  gate = 3 * np.tanh(1.0) * np.tanh(1.0) * np.array([0.0, 0.0, 1.0])
  np.testing.assert_allclose(both, sums + 0.5 * (saturation + gate))
  # Opposite shifts do not saturate.
  against = simulate_world.combine(first, -first, epistasis=1.0, **kwargs)
  closed = 2 * 3 * np.tanh(1.0) * np.tanh(-0.5)
  np.testing.assert_allclose(against, [0.0, 0.0, closed])


def test_hill():
  dose = np.array([0.0, 0.01, 0.1, 1.0, 10.0, 1e6])
  value = simulate_world.hill(dose, 0.25, 2.0)
  assert value[0] == 0
  assert np.all(np.diff(value) > 0)
  np.testing.assert_allclose(value[3], 1)
  # Saturation is 1 + K^n; half of it at K.
  np.testing.assert_allclose(value[-1], 1 + 0.25**2)
  half = simulate_world.hill(np.array(0.25), 0.25, 2.0)
  np.testing.assert_allclose(half, (1 + 0.25**2) / 2)


def test_a_double_whose_guide_fails_is_the_single_at_its_dose():
  config = simulate.check_options(
    {'doses': (0.1, 1.0), 'num_perturbations': 5, 'num_doubles': 6}
  )
  names = np.array(list('ABCDE'), object)
  design = simulate_world.make_design(0, config, names)
  assert len(design.labels) == 1 + 10 + 6
  for c, label in enumerate(design.labels):
    both, first, second, none = design.outcome[c][[1, 1, 0, 0], [1, 0, 1, 0]]
    assert both == c
    assert none == 0
    if '+' in label:
      assert label.split('+') == sorted(design.labels[[first, second]])
      assert list(design.doses[[first, second]]) == ['1', '1']
      assert design.labels[first] == label[0]
    elif c:
      assert first == c
      assert second == 0


def test_constants_fit_the_measured_baseline(shared_data):
  file = shared_data / 'baseline_expression' / 'K562_Gasperini_baseline.tsv.gz'
  table = pd.read_csv(file, sep='\t')
  table = table[table['relative_expression'] > 1e-5]
  excess = np.log(table['relative_expression'].to_numpy() / 1e-5)
  level = [0.1, 0.25, 0.5, 0.75, 0.9, 0.99]
  model = stats.gamma(
    simulate_world.GENE_SHAPE, scale=simulate_world.GENE_SCALE
  )
  # 0.21 at the ninth decile, under 0.12 elsewhere.
  np.testing.assert_allclose(
    model.ppf(level), np.quantile(excess, level), atol=0.25
  )
  np.testing.assert_allclose(excess.max(), simulate_world.GENE_MAX, atol=0.01)
  size = np.log(table['expression_size'].to_numpy())
  trend = simulate_world.SIZE_LEVEL + simulate_world.SIZE_SLOPE * (
    excess - np.log(10)
  )
  assert abs(np.median(size - trend)) < 0.2
  spread = 1.4826 * np.median(np.abs(size - trend - np.median(size - trend)))
  np.testing.assert_allclose(spread, simulate_world.SIZE_NOISE, atol=0.02)


@pytest.mark.parametrize('spread', [0.0, 0.4])
def test_expected_log1p_against_monte_carlo(spread):
  rng = np.random.default_rng(0)
  share = np.array([1e-6, 1e-4, 1e-3, 0.05, 0.3])
  size = np.array([0.5, 2.0, 1.0, 8.0, 3.0])
  library = 500 * np.exp(spread * rng.standard_normal((400_000, 1)))
  counts = rng.poisson(
    rng.standard_gamma(size, (len(library), 5)) * share * library / size
  )
  value = np.log1p(1e4 * counts / library)
  found = simulate_truth.expected_log1p(
    np.log(share), size, library=500.0, library_spread=spread
  )
  # Counts here are over libraries, the formula's over totals: the Poisson noise
  # of a total of 500 is worth 1e-3.
  error = value.std(axis=0) / np.sqrt(len(library))
  assert np.all(np.abs(found - value.mean(axis=0)) < 4 * error + 1e-3)


def test_draw_counts_follow_the_negative_binomial():
  rng = np.random.default_rng(0)
  mean = np.array([0.01, 0.5, 3.0, 7.9, 8.1, 60.0])
  size = np.array([2.0, 0.3, 5.0, 1.0, 1.0, 2.5])
  cells = 100_000
  position, count = simulate_cells.draw_counts(
    rng, np.tile(mean, (cells, 1)), size
  )
  assert np.all(np.diff(position) > 0)
  assert count.min() == 1
  dense = np.zeros(cells * len(mean), int)
  dense[position] = count
  dense = dense.reshape(cells, -1)
  for j, (m, r) in enumerate(zip(mean, size, strict=True)):
    law = stats.nbinom(r, r / (r + m))
    edges = np.unique(law.ppf([0.05, 0.2, 0.4, 0.6, 0.8, 0.95, 0.999]))
    below = (dense[:, [j]] <= edges).mean(axis=0)
    expected = law.cdf(edges)
    error = np.sqrt(expected * (1 - expected) / cells)
    assert np.all(np.abs(below - expected) < 4.5 * error)
    np.testing.assert_allclose(
      dense[:, j].mean(), m, atol=4.5 * law.std() / np.sqrt(cells)
    )


def test_means_that_are_almost_zero_draw_nothing():
  rng = np.random.default_rng(0)
  position, count = simulate_cells.draw_counts(
    rng, np.zeros((5, 3)), np.ones(3)
  )
  assert len(position) == len(count) == 0
