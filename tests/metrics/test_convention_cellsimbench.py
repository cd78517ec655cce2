"""CellSimBench's metrics and weights, against slow references."""

import closed_form
import jax
import numpy as np
import pytest
from numpy import testing
from scipy import stats

from pertjax.metrics import problem as problem_lib
from pertjax.metrics import registry, sides, weighted
from pertjax.metrics.conventions import base, cellsimbench

CONVENTION = base.get('cellsimbench')

# scanpy 1.11 rank_genes_groups(method='t-test_overestim_var', reference='rest')
# of the perturbed cells, whose scores are float32, and scikit-learn's r2_score.
TOOLS = {
  'wmse': [0.3899017573, 0.0669777756, 0.1625317569, 0.0826765322,
           0.1215820869, 0.0104143057],
  'weighted_r2_deltactrl': [-0.0052714417, 0.8115314287, 0.6978843918,
                            0.7538701345, -5.4889965733, -0.7147767167],
  'weighted_r2_deltapert': [0.0933103211, 0.7712775595, 0.5997140000,
                            0.6767544107, -2.3839962010, 0.7998127340],
  'pearson_deltapert_degs': [0.8385485152, 0.9703243788, 0.9533156925,
                             0.9025602853, 0.6992077908, np.nan],
}  # fmt: skip


@pytest.fixture(scope='module')
def problem():
  return closed_form.problem_a()


def evaluate(problem, *wanted, **options):
  return base.evaluate(CONVENTION, problem, wanted=wanted, options=options)


def cells(side, label):
  return np.asarray(sides.dense(side.cells([label])[0]), np.float64)


def test_values_of_the_tools(problem):
  found = evaluate(problem, *TOOLS)
  for name, expected in TOOLS.items():
    testing.assert_allclose(
      found[name], expected, rtol=3e-6, atol=5e-8, err_msg=name
    )


def test_columns_are_their_formulas(problem):
  names = [c.name for c in CONVENTION.columns]
  assert len(names) == 13
  found = evaluate(problem, *names, degs='top', top=30)
  number = problem.num_conditions
  real = [cells(problem.observed, c) for c in range(number)]
  guess = np.stack([cells(problem.predicted, c).mean(0) for c in range(number)])
  truth = np.stack([x.mean(0) for x in real])
  origins = {
    'deltactrl': cells(problem.observed, number).mean(0),
    'deltapert': truth.mean(0),
  }
  for c in range(number):
    rest = np.concatenate([x for k, x in enumerate(real) if k != c])
    n = len(real[c])
    test = stats.ttest_ind_from_stats(
      truth[c], real[c].std(0, ddof=1), n,
      rest.mean(0), rest.std(0, ddof=1), n, equal_var=False,
    )  # fmt: skip
    size = np.abs(test.statistic)
    w = np.square((size - size.min()) / (size.max() - size.min()))
    top = np.argsort(test.pvalue, kind='stable')[:30]
    error = np.square(guess[c] - truth[c])
    expected = {'mse': error.mean(), 'wmse': np.average(error, weights=w)}
    for delta, origin in origins.items():
      a, b = guess[c] - origin, truth[c] - origin
      for suffix, genes in (('', slice(None)), ('_degs', top)):
        r = np.corrcoef(a[genes], b[genes])[0, 1]
        expected[f'pearson_{delta}{suffix}'] = r
        expected[f'r2_{delta}{suffix}'] = (
          1 - np.square(a - b)[genes].mean() / b[genes].var()
        )
      mean = np.average(b, weights=w)
      spread = np.average(np.square(b - mean), weights=w)
      expected[f'weighted_r2_{delta}'] = 1 - expected['wmse'] / spread
    distance = np.square(guess[c] - truth).sum(1)
    others = np.arange(number) != c
    expected['nir'] = (distance[c] < distance)[others].mean()
    for name, value in expected.items():
      testing.assert_allclose(
        found[name][c], value, rtol=1e-8, atol=1e-12, err_msg=name
      )


def test_perfect_prediction(problem):
  found = evaluate(
    problem.with_sides(None, problem.observed),
    *[c.name for c in CONVENTION.columns],
    degs='top',
  )
  for name, value in found.items():
    best = CONVENTION.column(name).best
    testing.assert_allclose(value, best, atol=1e-12, err_msg=name)


def test_mean_prediction_is_found_out(problem):
  mean = cellsimbench.dataset_mean(problem, 'conditions')
  shift = mean - problem.means('observed')
  shift = np.concatenate([shift, np.zeros_like(shift[:1])])
  moved = problem.observed.relabelled(
    problem.observed.labels, problem.observed.num_labels, shift=shift
  )
  found = evaluate(
    problem.with_sides(None, moved),
    'pearson_deltactrl',
    'r2_deltapert',
    'weighted_r2_deltapert',
  )
  assert (found['pearson_deltactrl'][:5] > 0.05).all()
  # Nothing is explained of what is different between conditions.
  assert (found['r2_deltapert'] <= 0).all()
  assert (found['weighted_r2_deltapert'] <= 0).all()


def test_rest_is_all_other_cells():
  random = np.random.default_rng(0)
  sizes = 5, 1, 7
  sets = [random.normal(size=(n, 4)) + 100 for n in sizes]
  parts = cellsimbench.aggregates.Moments(
    np.stack([x.mean(0) for x in sets]),
    np.stack([x.var(0) for x in sets]),
    np.asarray(sizes),
  )
  found = cellsimbench.rest(parts)
  for k in range(3):
    others = np.concatenate([x for j, x in enumerate(sets) if j != k])
    testing.assert_allclose(found.mean[k], others.mean(0), rtol=1e-12)
    testing.assert_allclose(found.variance[k], others.var(0), rtol=1e-10)
    assert found.size[k] == len(others)


def test_one_condition_has_no_weights():
  random = np.random.default_rng(0)
  values = random.normal(size=(8, 5))
  labels = ['p'] * 4 + ['c'] * 4
  problem = problem_lib.from_arrays(
    values, labels, values + 0.1, labels, control='c', genes=tuple('vwxyz')
  )
  found = evaluate(
    problem, 'wmse', 'nir', 'weighted_r2_deltactrl', 'r2_deltactrl_degs', 'mse'
  )
  for name in ('wmse', 'nir', 'weighted_r2_deltactrl', 'r2_deltactrl_degs'):
    assert np.isnan(found[name]).all(), name
  testing.assert_allclose(found['mse'], [0.01])


def test_ties_of_nir(problem):
  labels = problem.observed.labels
  first = np.flatnonzero(labels == 0)
  # Two conditions with the same cells are as far from every prediction.
  number = problem.observed.num_labels
  cells_ = np.concatenate(
    [np.flatnonzero((labels >= 0) & (labels != 1)), first]
  )
  relabelled = np.concatenate([labels[cells_[: -len(first)]], first * 0 + 1])
  twin = problem.with_sides(
    problem.observed.relabelled(relabelled, number, cells=cells_), None
  )
  strict, mid = (
    evaluate(twin, 'nir', ties=ties)['nir'] for ties in ('pessimistic', 'mid')
  )
  testing.assert_allclose(mid[:2] - strict[:2], 0.1)
  testing.assert_allclose(mid[2:], strict[2:])


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'degs': 'all'}, "'significant', 'top'"),
    ({'ties': 'half'}, "'mid'"),
    ({'dataset_mean': 'train'}, "'conditions', 'cells'"),
  ],
)
def test_errors(problem, options, message):
  with pytest.raises(ValueError, match=message):
    evaluate(problem, 'mse', **options)


# ----------------------------------------------------------------------------
# weighted.


def test_significance_weights():
  score = np.asarray(
    [[-4.0, 2.0, 0.0, 1.0], [0.0] * 4, [3.0] * 4, [np.nan, 1.0, 2.0, np.inf]]
  )
  found = np.asarray(weighted.significance_weights(score))
  testing.assert_allclose(found[0], [1, 0.25, 0, 0.0625])
  testing.assert_array_equal(found[1], 0)
  testing.assert_array_equal(found[2], 1)
  testing.assert_allclose(found[3], [0, 0, 1, 0])
  mask = np.asarray([False, True, True, True])
  found = weighted.significance_weights(score[:1], mask=mask, exponent=1.0)
  testing.assert_allclose(found[0], [0, 1, 0, 0.5])


def test_weights_of_zero_are_equal_weights():
  a, b = np.asarray([[1.0, 2.0, 5.0]]), np.asarray([[0.0, 0.0, 1.0]])
  zero = np.zeros((1, 3))
  testing.assert_allclose(weighted.wmse(a, b, zero), [7])
  testing.assert_allclose(
    weighted.weighted_r2_delta(a, b, zero, zero), [1 - 7 / (2 / 9)], rtol=1e-5
  )
  mask = np.asarray([True, True, False])
  testing.assert_allclose(weighted.wmse(a, b, zero, mask=mask), [2.5])
  nothing = np.zeros(3, bool)
  assert np.isnan(weighted.wmse(a, b, zero, mask=nothing)[0])
  # What does not count is not read.
  hidden = np.where(mask, a, np.nan)
  found = weighted.weighted_r2_delta(hidden, b + a, zero, a, mask=mask)
  assert np.isfinite(found[0])


def test_constant_change_has_no_r2():
  a = np.asarray([[0.3, 0.1, 0.2]])
  b = np.full((1, 3), 0.1)
  found = weighted.weighted_r2_delta(a, b, b * 0, np.ones((1, 3)))
  assert np.isnan(found[0])
  assert registry.get('weighted_mse').name == 'wmse'


def test_drf():
  for direction, sign in (('higher', 1.0), ('lower', -1.0)):
    score = sign * np.asarray([0.5, 1.0, 0.0, -3.0, np.nan, 0.5])
    negative = sign * np.asarray([0.0, 0.0, 0.0, 0.5, 0.0, 2.0])
    with jax.enable_x64(True):
      found = weighted.drf(
        score, negative, perfect=sign * 1.0, direction=direction
      )
    expected = [0.5, 1.0, 0.0, -1.0, np.nan, np.nan]
    testing.assert_allclose(found, expected, atol=2e-6)
  # Both are perfect: there is no room, and none was needed.
  found = weighted.drf(np.ones(1), np.ones(1), perfect=1.0, direction='higher')
  testing.assert_allclose(found, [0])


def test_calibrated_and_bds():
  found = weighted.calibrated(
    np.asarray([3.0, 3.0]), np.asarray([1.0, 2.0]), np.asarray([5.0, 2.0])
  )
  testing.assert_allclose(found, [0.5, np.nan])
  positive = np.asarray([1.0, 2.0, 3.0, np.nan])
  negative = np.asarray([2.0, 2.0, 1.0, 0.0])
  for direction in ('lower', 'higher'):
    found = weighted.bds(positive, negative, direction=direction)
    testing.assert_allclose(found, 1 / 3, rtol=1e-6)
    found = weighted.bds(
      positive, negative, direction=direction, missing='lost'
    )
    testing.assert_allclose(found, 0.25)
  with pytest.raises(ValueError, match="'higher', 'lower'"):
    weighted.bds(positive, negative, direction='up')


def test_interpolated_duplicate():
  found = weighted.interpolated_duplicate(
    np.asarray([[4.0, 4.0, 4.0]]),
    np.asarray([2.0, 2.0, 2.0]),
    np.asarray([[0.0, 0.25, np.nan]]),
  )
  testing.assert_allclose(found, [[4, 3.5, 2]])


def test_nir_of_groups():
  truth = np.asarray([[0.0], [1.0], [2.0], [0.0], [5.0]])
  guess = np.asarray([[0.9], [1.0], [0.0], [0.0], [4.0]])
  groups = np.asarray([0, 0, 0, 1, 1])
  found = weighted.nir(guess, truth, groups=groups)
  testing.assert_allclose(found, [0.5, 1, 0, 1, 1])
