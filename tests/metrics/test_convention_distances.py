"""Distances of a problem's cells, against slow references."""

import closed_form
import jax
import numpy as np
import pytest
from numpy import testing

from pertjax.metrics import sides
from pertjax.metrics.conventions import base, cell_sets
from pertjax.metrics.distribution import energy, kernels

CONVENTION = base.get('distances')


@pytest.fixture(scope='module')
def problem():
  return closed_form.problem_a()


def evaluate(problem, *wanted, **options):
  return base.evaluate(CONVENTION, problem, wanted=wanted, options=options)


def sets(problem, condition):
  """Predicted, observed and control cells of a condition, float64."""
  control = problem.control_labels[condition]
  return [
    np.asarray(sides.dense(side.cells([label])[0]), np.float64)
    for side, label in (
      (problem.predicted, condition),
      (problem.observed, condition),
      (problem.observed, control),
    )
  ]


def pairs(a, b):
  return np.sqrt(np.square(a[:, None] - b[None]).sum(-1))


def others(a):
  return pairs(a, a)[~np.eye(len(a), dtype=bool)]


def slow(x, y):
  """Columns by their formulas."""
  mean = np.square(x.mean(0) - y.mean(0)).sum()
  biased = 2 * pairs(x, y).mean() - pairs(x, x).mean() - pairs(y, y).mean()
  width = np.median(others(y))

  def kernel(d):
    return np.exp(-np.square(d) / (2 * width**2))

  grid = np.arange(len(x) * len(y)) + 0.5
  line = [
    np.sort(s, 0)[(grid // (grid.size // len(s))).astype(int)] for s in (x, y)
  ]
  within = kernel(others(x)).mean() + kernel(others(y)).mean()
  squared = [np.square(pairs(a, b)).mean() for a, b in ((x, y), (x, x), (y, y))]
  return {
    'edistance_biased': biased,
    'edistance_half': biased / 2,
    'edistance_squared': 2 * squared[0] - squared[1] - squared[2],
    'edistance_unbiased': 2 * pairs(x, y).mean()
    - others(x).mean()
    - others(y).mean(),
    'mmd_linear': mean,
    'mmd_rbf': kernel(pairs(x, x)).mean()
    + kernel(pairs(y, y)).mean()
    - 2 * kernel(pairs(x, y)).mean(),
    'mmd_rbf_unbiased': within - 2 * kernel(pairs(x, y)).mean(),
    'rbf_bandwidth': width,
    'wasserstein_1d': np.abs(line[0] - line[1]).mean(),
    'mean_pairwise': pairs(x, y).mean(),
    'euclidean': np.sqrt(mean),
  }  # fmt: skip


@pytest.mark.parametrize(
  ('precision', 'tolerance'), [('float64', 1e-9), ('float32', 2e-5)]
)
def test_columns_are_their_formulas(problem, precision, tolerance):
  names = tuple(slow(*sets(problem, 0)[:2]))
  found = evaluate(problem, *names, precision=precision)
  for condition in range(problem.num_conditions):
    expected = slow(*sets(problem, condition)[:2])
    for name in names:
      testing.assert_allclose(
        found[name][condition],
        expected[name],
        rtol=tolerance,
        atol=tolerance,
        err_msg=name,
      )
  # The benchmark-era identity: three names of one number.
  testing.assert_allclose(
    found['edistance_squared'], 2 * found['mmd_linear'], rtol=1e-6
  )
  testing.assert_allclose(
    found['mmd_linear'], np.square(found['euclidean']), rtol=1e-6
  )


def test_all_meanings_have_a_column():
  names = {c.name for c in CONVENTION.columns}
  assert {f'edistance_{meaning}' for meaning in energy.MEANINGS} <= names
  assert CONVENTION.column('edistance').name == 'edistance_biased'


def test_energies_are_the_library():
  random = np.random.default_rng(0)
  x, y = random.normal(size=(7, 5)), random.normal(size=(9, 5)) + 1
  with jax.enable_x64(True):
    found = jax.jit(cell_sets.energies)(
      x, np.ones(7, bool), y, np.ones(9, bool)
    )
    for meaning in ('biased', 'half', 'unbiased'):
      expected = energy.energy_distance(x, y, meaning=meaning)
      testing.assert_allclose(found[meaning], expected, rtol=1e-12)
    testing.assert_allclose(
      found['mean_pairwise'], energy.mean_pairwise(x, y), rtol=1e-12
    )


def slow_entropic(x, y, epsilon):
  cost = np.square(pairs(x, y))
  kernel = np.exp(-cost / epsilon) / cost.size
  u = np.ones(len(x))
  for _ in range(3000):
    v = 1 / len(y) / (kernel.T @ u)
    u = 1 / len(x) / (kernel @ v)
  plan = u[:, None] * kernel * v[None]
  entropy = plan * np.log(np.maximum(plan, 1e-300) * cost.size)
  return (plan * cost).sum() + epsilon * entropy.sum()


def test_transport(problem):
  names = 'sinkhorn_divergence', 'wasserstein_entropic'
  found = evaluate(problem, *names, precision='float64')
  changed = evaluate(
    problem, names[1], precision='float64', unit='std', epsilon=0.5
  )
  for condition in (0, 3):
    x, y, _ = sets(problem, condition)
    cost = np.square(pairs(x, y))
    epsilon = 0.05 * cost.mean()
    value = slow_entropic(x, y, epsilon)
    testing.assert_allclose(found[names[1]][condition], value, rtol=1e-4)
    value -= sum(slow_entropic(s, s, epsilon) for s in (x, y)) / 2
    testing.assert_allclose(found[names[0]][condition], value, rtol=1e-3)
    testing.assert_allclose(
      changed[names[1]][condition],
      slow_entropic(x, y, 0.5 * np.std(cost)),
      rtol=1e-5,
    )


def test_perfect_prediction(problem):
  perfect = problem.with_sides(None, problem.observed)
  zero = ['edistance', 'edistance_half', 'edistance_squared', 'mmd_linear',
          'mmd_rbf', 'wasserstein_1d', 'euclidean']  # fmt: skip
  found = evaluate(perfect, *zero, 'edistance_unbiased', 'etest_p')
  for name, value in found.items():
    if name == 'edistance_unbiased':
      assert (value < 0).all()  # As every set and itself.
    elif name == 'etest_p':
      testing.assert_array_equal(value, 1)
    else:
      testing.assert_allclose(value, 0, atol=1e-5, err_msg=name)


def test_one_cell():
  random = np.random.default_rng(0)
  cells = random.normal(size=(9, 4))
  labels = ['a', *['b'] * 4, *['c'] * 4]
  problem = cell_sets.problem_lib.from_arrays(
    cells, labels, cells + 1, labels, control='c', genes=tuple('wxyz')
  )
  found = evaluate(
    problem, 'edistance', 'edistance_unbiased', 'mmd_rbf', 'euclidean'
  )
  assert np.isnan(found['edistance_unbiased'][0])
  assert np.isnan(found['mmd_rbf'][0])  # No median distance.
  testing.assert_allclose(found['edistance_biased'][0], 4, rtol=1e-5)
  testing.assert_allclose(found['euclidean'], 2, rtol=1e-5)
  assert np.isfinite(found['edistance_unbiased'][1])
  fixed = evaluate(problem, 'mmd_rbf', 'rbf_bandwidth', bandwidth=2.0)
  testing.assert_allclose(fixed['rbf_bandwidth'], 2)
  testing.assert_allclose(fixed['mmd_rbf'][0], 2 - 2 * np.exp(-0.5), rtol=1e-5)


def test_effects_are_from_the_own_control(problem):
  for meaning in ('biased', 'squared'):
    found = evaluate(
      problem, 'effect_observed', 'effect_predicted', meaning=meaning
    )
    column = f'edistance_{meaning}'
    for side in ('observed', 'predicted'):
      source = getattr(problem, side)
      control = sides.dense(source.cells([problem.num_conditions])[0])
      for condition in (0, 4):
        cells = sides.dense(source.cells([condition])[0])
        expected = slow(cells, control)[column]
        value = found[f'effect_{side}'][condition]
        testing.assert_allclose(value, expected, rtol=1e-4)


def test_effects_of_groups_and_missing_controls():
  problem = closed_form.problem_t()
  kept = problem.predicted.labels.copy()
  kept[kept == problem.num_conditions] = -1  # The first group's control.
  predicted = problem.predicted.relabelled(kept, problem.predicted.num_labels)
  problem = problem.with_sides(None, predicted)
  assert problem.has_predicted_control.tolist() == [False, True]
  found = evaluate(problem, 'effect_predicted')['effect_predicted']
  for condition in range(problem.num_conditions):
    group = problem.group[condition]
    source = problem.predicted if group else problem.observed
    control = source.cells([problem.num_conditions + group])[0]
    cells = problem.predicted.cells([condition])[0]
    expected = slow(cells, control)['edistance_biased']
    testing.assert_allclose(found[condition], expected, rtol=1e-4)


def test_etest(problem):
  names = [
    f'{n}_p{s}' for n in ('etest', 'etest_observed') for s in ('', '_adjusted')
  ]
  found = evaluate(problem, *names, permutations=200)
  # Conditions 0 to 4 have an effect and the last one, NULLP, has none.
  assert (found['etest_observed_p'][:5] <= 0.01).all()
  assert found['etest_observed_p'][5] > 0.05
  assert (found['etest_p'] >= 1 / 201).all()
  for test in ('etest', 'etest_observed'):
    p, adjusted = found[f'{test}_p'], found[f'{test}_p_adjusted']
    order = np.argsort(p)
    steps = 1 - (1 - p[order]) ** np.arange(len(p), 0, -1)
    testing.assert_allclose(
      adjusted[order], np.maximum.accumulate(steps), rtol=1e-9
    )
  again = evaluate(problem, 'etest_p', permutations=200)
  testing.assert_array_equal(again['etest_p'], found['etest_p'])
  other = evaluate(problem, 'etest_p', permutations=200, p_value='pertpy')
  count = np.round(found['etest_p'] * 201 - 1)
  testing.assert_allclose(other['etest_p'], np.maximum(count, 1) / 200)
  assert (
    evaluate(problem, 'etest_p', permutations=200, seed=1)['etest_p']
    != found['etest_p']
  ).any()


def test_components_do_not_see_the_prediction(problem):
  options = {'space': 'pca', 'components': 3, 'precision': 'float64'}
  found = evaluate(problem, 'edistance_squared', **options)
  observed = problem.observed
  cells = sides.dense(observed.cells(range(7))[0])
  centre = cells.mean(0)
  _, _, axes = np.linalg.svd(cells - centre, full_matrices=False)
  for condition in (0, 2):
    x, y, _ = sets(problem, condition)
    expected = 2 * np.square((x.mean(0) - y.mean(0)) @ axes[:3].T).sum()
    testing.assert_allclose(
      found['edistance_squared'][condition], expected, rtol=1e-9
    )


def test_sizes_are_few():
  sizes = [cell_sets.padded_size(n) for n in range(1, 5000)]
  assert len(set(sizes)) < 40
  for n, size in enumerate(sizes, 1):
    assert n <= size <= max(16, 1.19 * n + 8)
  values, mask = cell_sets.padded(np.ones((17, 2)), 'float32')
  assert values.shape == (24, 2)
  assert values.dtype == np.float32
  assert mask.sum() == 17
  assert values.sum() == 34


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'space': 'umap'}, "'genes', 'pca'"),
    ({'precision': 'half'}, "'float32', 'float64'"),
    ({'meaning': 'plain'}, "'biased'"),
    ({'permutations': 0}, 'permutations is 0'),
    ({'unit': 'max'}, "'absolute'"),
    ({'components': 0}, 'components is 0'),
    ({'perms': 3}, 'permutations'),
  ],
)
def test_errors(problem, options, message):
  with pytest.raises(ValueError, match=message):
    evaluate(problem, 'edistance', **options)


def test_float32_median_is_the_library(problem):
  x, y, _ = sets(problem, 0)
  found = evaluate(problem, 'rbf_bandwidth')['rbf_bandwidth'][0]
  expected = kernels.median_bandwidth(y.astype(np.float32))
  testing.assert_allclose(found, expected, rtol=1e-5)
