"""scPerturBench's metrics, against slow references."""

import closed_form
import numpy as np
import pytest
from numpy import testing
from scipy import stats

from pertjax.metrics import problem as problem_lib
from pertjax.metrics import sides
from pertjax.metrics.conventions import base, scperturbbench

CONVENTION = base.get('scperturbbench')


@pytest.fixture(scope='module')
def problem():
  return closed_form.problem_a()


def evaluate(problem, *wanted, **options):
  return base.evaluate(CONVENTION, problem, wanted=wanted, options=options)


def cells(side, label):
  return np.asarray(sides.dense(side.cells([label])[0]), np.float64)


def slow_kl(x, y, epsilon=1e-8):
  """Sums both divergences as they are written, and averages over genes."""
  values = []
  for a, b in zip(x.T, y.T):
    sa, sb = a.std() + epsilon, b.std() + epsilon
    shift = (a.mean() - b.mean()) ** 2
    forth = np.log(sb / sa) + (sa**2 + shift) / (2 * sb**2) - 0.5
    back = np.log(sa / sb) + (sb**2 + shift) / (2 * sa**2) - 0.5
    values.append(forth + back)
  return np.mean(values)


@pytest.mark.parametrize('top', [100, 12])
def test_columns_are_their_formulas(problem, top):
  names = [c.name for c in CONVENTION.columns if 'wasserstein' not in c.name]
  found = evaluate(problem, *names, top=top, precision='float64')
  control = cells(problem.observed, problem.num_conditions)
  for condition in range(problem.num_conditions):
    x = cells(problem.predicted, condition)
    y = cells(problem.observed, condition)
    t = [
      np.abs(stats.ttest_ind(s, control, equal_var=False).statistic)
      for s in (y, x)
    ]
    lists = [np.argsort(-s, kind='stable')[:top] for s in t]
    shared = len(set(lists[0]) & set(lists[1]))
    assert found['common_degs'][condition] == shared
    for suffix, genes in (('_all', np.arange(72)), ('_top100', lists[0])):
      a, b, c = (s[:, genes] for s in (x, y, control))
      shift = a.mean(0) - b.mean(0)
      expected = {
        'mse': np.mean(shift**2),
        'pcc_delta': np.corrcoef([s.mean(0) - c.mean(0) for s in (a, b)])[0, 1],
        'edistance': 2 * np.sum(shift**2),
        'sym_kldiv': np.log2(1 + slow_kl(a, b)),
      }  # fmt: skip
      for name, value in expected.items():
        testing.assert_allclose(
          found[name + suffix][condition], value, rtol=1e-9, err_msg=name
        )


def test_options(problem):
  names = 'mse_all', 'pcc_delta_all', 'sym_kldiv_all', 'edistance_all'
  plain = evaluate(problem, *names, precision='float64')
  rounded = evaluate(problem, *names, precision='float64', rounding=True)
  testing.assert_allclose(rounded['mse_all'], np.round(plain['mse_all'], 4))
  testing.assert_allclose(
    rounded['pcc_delta_all'], 1 - np.round(1 - plain['pcc_delta_all'], 4)
  )
  inner = np.round(2 ** plain['sym_kldiv_all'] - 1, 4)
  testing.assert_allclose(rounded['sym_kldiv_all'], np.log2(1 + inner))
  root = evaluate(problem, 'mse_all', mse='root_norm')['mse_all']
  testing.assert_allclose(root**4, 72 * plain['mse_all'], rtol=1e-9)
  biased = evaluate(problem, 'edistance_all', meaning='biased')
  assert (biased['edistance_all'] < plain['edistance_all']).all()


def test_cells_are_drawn_as_by_the_benchmark(problem):
  found = evaluate(
    problem, 'edistance_all', 'mse_all', max_cells=8, precision='float64'
  )
  x, y = cells(problem.predicted, 3), cells(problem.observed, 3)
  # The benchmark's global seed, and predicted cells first.
  random = np.random.RandomState(42)
  x_drawn = x[random.choice(len(x), 8, replace=False)]
  y_drawn = y[random.choice(len(y), 8, replace=False)]
  expected = 2 * np.square(x_drawn.mean(0) - y_drawn.mean(0)).sum()
  testing.assert_allclose(found['edistance_all'][3], expected, rtol=1e-9)
  # Metrics of means take all cells.
  expected = np.square(x.mean(0) - y.mean(0)).mean()
  testing.assert_allclose(found['mse_all'][3], expected, rtol=1e-9)


def test_perfect_and_constant_predictions(problem):
  perfect = problem.with_sides(None, problem.observed)
  names = [
    c.name for c in CONVENTION.columns if not c.name.startswith('wasserstein')
  ]
  found = evaluate(perfect, *names, top=50)
  for name, value in found.items():
    best = 50 if name == 'common_degs' else CONVENTION.column(name).best
    testing.assert_allclose(value, best, atol=1e-9, err_msg=name)
  one = problem_lib.from_arrays(
    np.asarray([[0.0, 1.0], [2.0, 1.0], [1.0, 1.0]]),
    ['a', 'a', 'c'],
    np.asarray([[1.0, 2.0]]),
    ['a'],
    control='c',
    genes=('x', 'y'),
  )
  found = evaluate(one, 'sym_kldiv_all', 'edistance_all', 'pcc_delta_all')
  testing.assert_allclose(found['edistance_all'], [2])
  # Gene y varies on neither side: its shift counts in units of 1e-8.
  assert 50 < found['sym_kldiv_all'][0] < 55
  assert np.isnan(found['pcc_delta_all'][0])  # The truth does not change.


def test_wasserstein_is_that_of_distances(problem):
  found = evaluate(problem, 'wasserstein_all')['wasserstein_all']
  expected = base.evaluate(
    base.get('distances'), problem, wanted=['wasserstein']
  )
  testing.assert_allclose(found, expected['wasserstein_entropic'], rtol=1e-6)


def test_ac_score():
  mse = [[1.0, 4.0], [3.0, 2.0], [2.0, np.nan]]
  pcc = [[0.5, 0.5], [0.9, 0.5], [0.1, 0.5]]
  values = np.stack([mse, pcc], axis=-1)
  score, scaled = scperturbbench.ac_score(values, ('lower', 'higher'))
  testing.assert_allclose(scaled[:, 0, 0], [1, 0, 0.5])
  testing.assert_allclose(scaled[:, 1, 0], [0, 1, np.nan])
  testing.assert_allclose(scaled[:, 0, 1], [0.5, 1, 0])
  assert np.isnan(scaled[:, 1, 1]).all()  # All models are the same.
  testing.assert_allclose(score, [0.5, 2 / 3, 0.25])
  flat, _ = scperturbbench.ac_score(values[:, 0], ('lower', 'higher'))
  testing.assert_allclose(flat, [0.75, 0.5, 0.25])


@pytest.mark.parametrize(
  ('values', 'directions', 'message'),
  [
    (np.ones((2, 2)), ('lower',), '1 directions'),
    (np.ones((2, 1)), ('down',), "'higher', 'lower'"),
    (np.ones(3), ('lower',) * 3, r'\(3,\)'),
  ],
)
def test_ac_score_errors(values, directions, message):
  with pytest.raises(ValueError, match=message):
    scperturbbench.ac_score(values, directions)


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'mse': 'sum'}, "'mean', 'root_norm'"),
    ({'meaning': 'x'}, "'squared'"),
    ({'top': 0}, 'top is 0'),
    ({'max_cells': 0}, 'max_cells 0'),
  ],
)
def test_errors(problem, options, message):
  with pytest.raises(ValueError, match=message):
    evaluate(problem, 'mse_all', **options)
