"""PerturBench's conventions against values that its own code gave."""

import closed_form
import jax
import numpy as np
import pytest
import scipy.sparse

from pertjax.metrics import aggregates, pseudobulk, ranks, sides
from pertjax.metrics import problem as problem_lib
from pertjax.metrics.conventions import base, perturbench, perturbench_values

V1, V2 = perturbench.CONVENTIONS
METRICS = ('rmse', 'mse', 'mae', 'cosine', 'pearson', 'r2_score')
# The original computed in float32.
near = {'abs': 2e-6, 'rel': 2e-6}


@pytest.fixture(scope='module')
def problem():
  return closed_form.problem_t()


@pytest.fixture(scope='module')
def values(problem):
  return base.evaluate(V1, problem)


def row(problem, group, condition):
  pairs = [(problem.groups[g], c) for g, c in zip(
    problem.group, problem.conditions)]  # fmt: skip
  return pairs.index((group, condition))


def by_name(problem, group, **expected):
  """Returns expected values in the problem's order of conditions."""
  names = [c for c, g in zip(problem.conditions, problem.group)
           if problem.groups[g] == group]  # fmt: skip
  return [expected[name.replace('+', '_')] for name in names]


def numbers(problem, aggregate, side, **options):
  settled = base.settle(V1, options)
  with jax.enable_x64(True):
    return np.asarray(
      perturbench_values.AGGREGATE[aggregate](problem, side, settled)
    )


@pytest.mark.parametrize(
  ('aggregate', 'side', 'expected'),
  [
    ('average', 'predicted', [1.9375, 1.125, 1.125, 1.9375, 2.75, 1.9375]),
    ('average', 'observed', [1.375, 1.4375, 1.5, 0.875, 0.25, 1.6875]),
    (
      'logfc',
      'predicted',
      [0.8892965, -0.3278047, -0.6890709, 0.3487282, 0, 1.2612653],
    ),
    (
      'logfc',
      'observed',
      [0.1277555, 0.4830829, 0.9125372, -1.0183785, 0, 0.2772283],
    ),
    (
      'scaled',
      'predicted',
      [0.4838789, -0.3938589, -0.40721, 0.4441081, 0, 0.4922214],
    ),
    (
      'scaled',
      'observed',
      [0.1381329, 0.2324505, 0.3337983, -0.548442, 0, 0.4478586],
    ),
    (
      'var',
      'predicted',
      [0.4860167, 0.6758626, 0.7114583, 0.5349395, 0, 0.5349395],
    ),
    (
      'var',
      'observed',
      [0.4545455, 0.5271459, 0.372678, 0.3194383, 0, 0.586777],
    ),
    (
      'logp',
      'predicted',
      [1.3934677, 0, -0.9506849, 0.9506849, 0, 1.9043818],
    ),
    (
      'logp',
      'observed',
      [0, 0.573228, 1.9043818, -3.8669858, 0, 1.3934677],
    ),
  ],
)
def test_aggregates_are_the_originals(problem, aggregate, side, expected):
  found = numbers(problem, aggregate, side)[row(problem, 'ta', 'A')]
  np.testing.assert_allclose(found, expected, atol=2e-6)


def test_average_of_the_other_cell_type(problem):
  found = numbers(problem, 'average', 'observed')[row(problem, 'tb', 'A+B')]
  np.testing.assert_allclose(found, [1.6875, 1.5, 1.3125, 1.125, 0.25, 2.125])


# Mean, ta_A, tb_A+B, mean rank.
TABLE = {
  'rmse_average': (1.1550944, 1.1544186, 1.0710441, 0.28125),
  'mse_average': (1.3374023, 1.3326823, 1.1471354, 0.28125),
  'mae_average': (0.8515625, 0.84375, 0.7083333, None),
  'cosine_average': (0.7801478, 0.7999303, 0.8119824, 0.40625),
  'pearson_average': (-0.7327725, -0.7473288, -0.7184972, 0.4375),
  'r2_score_average': (-3.6380238, -3.2749739, -4.0438933, 0.34375),
  'rmse_logfc': (0.7510685, 1.0519776, 0.5256874, 0.375),
  'mse_logfc': (0.6672925, 1.1066569, 0.2763472, 0.375),
  'mae_logfc': (0.6046708, 0.9208634, 0.436865, 0.3125),
  'cosine_logfc': (0.0268065, -0.2608372, 0.5125947, 0.40625),
  'pearson_logfc': (-0.0241588, -0.3655161, 0.4362686, 0.4375),
  'r2_score_logfc': (-2.7562648, -1.4418141, -2.0550065, 0.34375),
  'rmse_scaled': (0.5669327, 0.5842404, None, 0.34375),
  'cosine_scaled': (-0.0032261, None, None, 0.34375),
  'pearson_scaled': (-0.1611852, None, None, 0.4375),
  'rmse_var': (0.3172433, None, None, 0.4375),
  'cosine_var': (0.838035, None, None, 0.46875),
  'pearson_var': (0.4284458, None, None, 0.5),
  'mae_var': (0.2416455, None, None, None),
  'cosine_logp': (-0.1810302, None, None, 0.4375),
  'rmse_logp': (1.801624, None, None, 0.5),
}


@pytest.mark.parametrize('name', TABLE)
def test_metrics_and_mean_ranks_are_the_originals(problem, values, name):
  mean, first, last, rank = TABLE[name]
  found = values[name]
  assert found.mean() == pytest.approx(mean, **near)
  for group, condition, expected in (('ta', 'A', first), ('tb', 'A+B', last)):
    if expected is not None:
      at = row(problem, group, condition)
      assert found[at] == pytest.approx(expected, **near)
  if rank is not None:
    metric, aggregate = name.rsplit('_', 1)
    assert values[f'{metric}_rank_{aggregate}'].mean() == rank


def test_ranks_of_conditions_are_the_originals(problem, values):
  expected = {
    'rmse_rank_average': (
      by_name(problem, 'ta', A=0.5, A_B=0.25, B=0, C=0.75),
      by_name(problem, 'tb', A=0.5, A_B=0, B=0, C=0.25),
    ),
    'cosine_rank_average': (
      by_name(problem, 'ta', A=0.5, A_B=0.5, B=0.75, C=0.5),
      by_name(problem, 'tb', A=0, A_B=0, B=0.75, C=0.25),
    ),
    'cosine_rank_logfc': (
      by_name(problem, 'ta', A=0.75, A_B=0.5, B=0.25, C=0.75),
      by_name(problem, 'tb', A=0.25, A_B=0, B=0, C=0.75),
    ),
  }
  for name, (ta, tb) in expected.items():
    np.testing.assert_array_equal(values[name], [*ta, *tb])


def test_shuffled_ties_reach_the_published_rank(problem):
  """T2's mae rank had ties; mid-ranks are the mean over shuffles."""
  name = 'mae_rank_average'
  means = [
    base.evaluate(
      V1, problem, wanted=[name], options={'ties': 'shuffled', 'seed': seed}
    )[name].mean()
    for seed in range(12)
  ]
  assert set(np.round(means, 6)) == {0.3125, 0.34375}
  middle = base.evaluate(V1, problem, wanted=[name])[name].mean()
  assert middle == pytest.approx((0.3125 + 0.34375) / 2)


def test_predicted_controls_can_be_replaced(problem):
  names = ['cosine_logfc', 'cosine_rank_logfc']
  found = base.evaluate(V1, problem, wanted=names, options={'control': 'real'})
  expected = [
    *by_name(
      problem, 'ta', A=0.1524483, A_B=0.0827292, B=0.2312277, C=0.1311238
    ),
    *by_name(
      problem, 'tb', A=0.2813946, A_B=0.3218467, B=0.0875822, C=-0.0171784
    ),
  ]
  np.testing.assert_allclose(found['cosine_logfc'], expected, atol=2e-6)
  assert found['cosine_logfc'].mean() == pytest.approx(0.1588968, **near)
  assert found['cosine_rank_logfc'].mean() == 0.4375


def test_without_covariates():
  problem = closed_form.problem_t(covariates=False)
  names = ['rmse_average', 'rmse_rank_average']
  found = base.evaluate(V1, problem, wanted=names)
  assert problem.conditions == ('A', 'A+B', 'B', 'C')
  np.testing.assert_allclose(
    found['rmse_average'], [1.0795959, 1.0660174, 1.089426, 1.1221752], 2e-6
  )
  np.testing.assert_array_equal(
    found['rmse_rank_average'], [0.5, 0.25, 0, 0.75]
  )


def test_a_perfect_prediction_is_best(problem):
  perfect = problem.with_sides(None, problem.observed)
  found = base.evaluate(V1, perfect)
  for column in V1.columns:
    np.testing.assert_allclose(
      found[column.name], column.best, atol=1e-12, err_msg=column.name
    )


def test_a_prediction_of_the_control_mean():
  values, conditions, types = closed_form.fixture_t('observed')
  predicted = values.copy()
  for kind in ('ta', 'tb'):
    cells = np.asarray(types) == kind
    control = cells & (np.asarray(conditions) == 'control')
    predicted[cells] = values[control].mean(0)
  problem = problem_lib.from_arrays(
    values, conditions, predicted, conditions,
    control='control', genes=tuple('abcdef'),
    observed_groups=types, predicted_groups=types,
  )  # fmt: skip
  names = ['rmse_average', 'cosine_logfc', 'rmse_rank_average']
  found = base.evaluate(V1, problem, wanted=names)
  assert found['rmse_average'].mean() == pytest.approx(0.4967652, **near)
  assert np.isnan(found['cosine_logfc']).all()
  # (n - 1) / (2 n) of four conditions, what 400 shuffles gave on average.
  np.testing.assert_array_equal(found['rmse_rank_average'], 0.375)
  means = []
  for seed in range(60):
    options = {'ties': 'shuffled', 'seed': seed}
    names = ['rmse_rank_average']
    found = base.evaluate(V1, problem, wanted=names, options=options)
    means.append(found['rmse_rank_average'].mean())
  assert np.mean(means) == pytest.approx(0.375, abs=0.05)
  assert min(means) < 0.3
  assert max(means) > 0.45


def test_no_change_kept_in_float32_is_no_change():
  values, conditions, types = closed_form.fixture_t('observed')
  values = values + np.float32(0.1)
  kept = np.asarray(conditions) != 'control'
  predicted = np.empty((kept.sum(), 6), np.float32)
  for kind in ('ta', 'tb'):
    cells = np.asarray(types) == kind
    mean = values[cells & ~kept].mean(0, dtype=np.float64)
    assert (mean.astype(np.float32) != mean).any()
    predicted[cells[kept]] = mean
  problem = problem_lib.from_arrays(
    values, conditions, predicted, np.asarray(conditions)[kept].tolist(),
    control='control', genes=tuple('abcdef'),
    observed_groups=types, predicted_groups=np.asarray(types)[kept].tolist(),
  )  # fmt: skip
  found = base.evaluate(V1, problem, wanted=['cosine_logfc', 'rmse_logfc'])
  assert np.isnan(found['cosine_logfc']).all()
  assert (found['rmse_logfc'] > 0).all()


def test_rank_helper():
  matrix = np.array([[0.1, 0.5, 0.9], [0.4, 0.2, 0.3], [0.05, 0.6, 0.8]])
  for denominator, number in (('n', 3), ('n-1', 2)):
    for direction, expected in (('lower', [1, 0, 1]), ('higher', [1, 2, 1])):
      found = ranks.rank(matrix, direction=direction, denominator=denominator)
      np.testing.assert_allclose(found, np.array(expected) / number, 1e-6)


def test_scalar_metrics():
  x, y = np.array([[1.0, 2, 3, 4]]), np.array([[1.0, 3, 2, 6]])
  expected = {
    'pearson': 0.836660027,
    'cosine': 0.955335892,
    'mse': 1.5,
    'rmse': 1.224744871,
    'mae': 1.0,
  }
  with jax.enable_x64(True):
    for name, value in expected.items():
      found = float(getattr(pseudobulk, name)(x, y)[0])
      assert found == pytest.approx(value, abs=1e-9)
    for swapped, value in ((True, -0.2), (False, 0.571428571)):
      found = float(pseudobulk.r2(x, y, swapped=swapped)[0])
      assert found == pytest.approx(value, abs=1e-9)


def test_r2_the_right_way_round(problem):
  names = ['r2_score_average', 'r2_score_rank_average']
  found = base.evaluate(
    V1, problem, wanted=names, options={'r2_swapped': False}
  )
  a, b = problem.means('predicted'), problem.means('observed')

  def r2(x, y):
    return 1 - np.square(x - y).sum() / np.square(y - y.mean()).sum()

  np.testing.assert_allclose(
    found[names[0]], [r2(x, y) for x, y in zip(a, b)], rtol=1e-12
  )
  for at, group in enumerate(problem.group):
    own = r2(a[at], b[at])
    others = np.flatnonzero(problem.group == group)
    better = sum(r2(a[o], b[at]) > own for o in others)
    assert found[names[1]][at] == better / len(others)


@pytest.mark.parametrize(
  ('value', 'expected'),
  [
    (0.0123456, 0.01235),
    (123.456, 123.5),
    (12345.6, 12350.0),
    (1.234567e-5, 1.235e-5),
    (0.0, 0.0),
    (-0.0123456, -0.01235),
  ],
)
def test_summaries_are_rounded_to_four_digits(value, expected):
  assert perturbench.significant(value) == expected


def test_rounding_leaves_nan():
  assert np.isnan(perturbench.significant(float('nan')))


def test_top_k_recall_is_the_formula():
  x = np.array([[3, -5, 1, 0.5, -2, 4]])
  y = np.array([[-4, 1, 0.2, 3, 2, -0.1]])
  with jax.enable_x64(True):
    for k, expected in ((1, 0), (2, 0), (3, 1 / 3)):
      recall = float(pseudobulk.top_k_recall(x, y, k=k)[0])
      assert recall == pytest.approx(expected)
      shared = [np.asarray(aggregates.member(v, k)) for v in (x, y)]
      assert (shared[0] * shared[1]).sum() / k == pytest.approx(expected)


def test_options_of_the_later_code(problem):
  names = ['rmse_rank_average', 'cosine_logfc', 'top_k_recall_logfc',
           'top_k_recall_rank_logfc']  # fmt: skip
  found = base.evaluate(V2, problem, wanted=names, options={'top_k': 2})
  first = base.evaluate(V1, problem, wanted=names[:2])
  np.testing.assert_allclose(
    found['rmse_rank_average'] * 3, first['rmse_rank_average'] * 4
  )
  np.testing.assert_array_equal(found['cosine_logfc'], first['cosine_logfc'])
  # |logfc| of ta_A: the prediction's top two are genes 5 and 0, the truth's 3
  # and 2.
  assert found['top_k_recall_logfc'][row(problem, 'ta', 'A')] == 0
  assert ((found[names[3]] >= 0) & (found[names[3]] <= 1)).all()


def test_transposed_ranks_order_references(problem):
  name = 'rmse_rank_average'
  found = base.evaluate(
    V2, problem, wanted=[name], options={'transposed': True}
  )[name]
  a, b = problem.means('predicted'), problem.means('observed')
  for at, group in enumerate(problem.group):
    others = np.flatnonzero(problem.group == group)
    distance = np.linalg.norm(b[others] - a[at], axis=1)
    own = np.linalg.norm(b[at] - a[at])
    assert found[at] == pytest.approx((distance < own - 1e-12).sum() / 3)


# scanpy 1.11.5 of fixture T, ta, A against the control.
SCANPY = {
  ('observed', 'wilcoxon'): (
    [0, 0.57735026, 1.4433757, -2.309401, 0, 1.1547005],
    [1, 0.84555429, 0.44674402, 0.12552801, 1, 0.49642616],
  ),
  ('observed', 't-test_overestim_var'): (
    [0.19011727, 0.72071815, 1.6431676, -4.3817806, 0, 0.526073],
    [1, 0.94589171, 0.454362, 0.02795529, 1, 0.94589171],
  ),
  ('predicted', 't-test'): (
    [1.3636364, -0.41333136, -1.1476381, 0.643494, 0, 1.7466265],
    [0.58961896, 0.83424106, 0.58961896, 0.82580749, 1, 0.58961896],
  ),
}


@pytest.mark.parametrize(('side', 'method'), SCANPY)
def test_scores_are_scanpys(problem, side, method):
  options = {'control': 'own', 'de_method': method}
  with jax.enable_x64(True):
    found = perturbench_values.de(problem, side, options)
  score, adjusted = SCANPY[side, method]
  at = row(problem, 'ta', 'A')
  np.testing.assert_allclose(found.score[at], score, atol=1e-6)
  np.testing.assert_allclose(found.fdr[at], adjusted, atol=1e-6)


def test_overestimated_variance_counts_fewer_controls():
  """scanpy 1.11.5's rule: the control has as many cells as the condition."""
  random = np.random.default_rng(0)
  cells = random.gamma(2, size=(3, 4)), random.gamma(2, size=(50, 4))
  parts = [
    aggregates.Moments(x.mean(0)[None], x.var(0)[None], np.array([len(x)]))
    for x in cells
  ]
  with jax.enable_x64(True):
    found = aggregates.t_test(*parts, overestimate=True)
  a, b = cells
  error = a.var(0, ddof=1) / 3 + b.var(0, ddof=1) / 3
  expected = (a.mean(0) - b.mean(0)) / np.sqrt(error)
  np.testing.assert_allclose(found.score[0], expected, rtol=1e-12)


def cells_with_outliers():
  random = np.random.default_rng(3)
  values = random.poisson(0.4, size=(400, 5)).astype(np.float64)
  values[:, 3] = 5 + 0.01 * random.normal(size=400)
  values[7, 3] = 0.0  # A rare zero, far below.
  values[11, 0] = 90.0
  return values, np.repeat(np.arange(4), 100).astype(np.int32)


@pytest.mark.parametrize('make', [np.asarray, scipy.sparse.csr_matrix])
def test_z_scores_are_clipped(make):
  values, labels = cells_with_outliers()
  side = sides.Side(matrix=make(values), labels=labels, num_labels=4)
  centre, spread = aggregates.pooled(aggregates.moments(side))
  np.testing.assert_allclose(spread, values.std(0, ddof=1), rtol=1e-10)
  found = aggregates.scaled(side, centre, spread)
  z = np.clip((values - values.mean(0)) / values.std(0, ddof=1), -10, 10)
  expected = [z[labels == k].mean(0) for k in range(4)]
  np.testing.assert_allclose(found, expected, atol=1e-10)
  assert (np.abs((values - values.mean(0)) / values.std(0)) > 10).sum() >= 2


@pytest.mark.parametrize('make', [np.asarray, scipy.sparse.csr_matrix])
def test_components_are_those_of_the_cells(make):
  values, labels = cells_with_outliers()
  labels[:5] = -1  # Cells that are not read.
  side = sides.Side(matrix=make(values), labels=labels, num_labels=4)
  fitted = aggregates.components(side, 3)
  kept = values[labels >= 0]
  np.testing.assert_allclose(fitted.mean, kept.mean(0))
  _, _, loading = np.linalg.svd(kept - kept.mean(0), full_matrices=False)
  np.testing.assert_allclose(
    np.abs(loading[:3] @ fitted.loading), np.eye(3), atol=1e-9
  )
  np.testing.assert_allclose(
    aggregates.project_cells(make(values), fitted),
    aggregates.project(values, fitted),
    atol=1e-9,
  )


def test_principal_components_keep_distances(problem):
  names = ['rmse_pca_average', 'rmse_average', 'mmd_pca']
  found = base.evaluate(V2, problem, wanted=names)
  # All six of them: a rotation.
  np.testing.assert_allclose(found[names[0]], found[names[1]], rtol=1e-9)

  def spread(x, y):
    return np.linalg.norm(x[:, None] - y[None], axis=-1).mean()

  for at in range(problem.num_conditions):
    x, y = (
      getattr(problem, side).cells([at])[0].astype(np.float64)
      for side in ('predicted', 'observed')
    )
    expected = spread(x, y) - spread(x, x) / 2 - spread(y, y) / 2
    assert found['mmd_pca'][at] == pytest.approx(expected, rel=1e-9)


def test_energy_example():
  """X = {(0,0), (1,0)}, Y = {(0,1), (2,2)}, of the specification."""
  x, y = np.array([[0.0, 0], [1, 0]]), np.array([[0.0, 1], [2, 2]])
  with jax.enable_x64(True):
    found = perturbench_values.energy.energy_distance_half(x, y)
  assert float(found) == pytest.approx(1.0606602, abs=1e-7)


def test_chosen_genes(problem):
  genes = {'ta_A': ['g0', 'g5'], 'A': ['g1'], 'A+B': ['g2', 'g3'],
           'B': ['g4', 'g1'], 'C': ['g0', 'unknown']}  # fmt: skip
  names = ['mae_average', 'rmse_rank_average']
  found = base.evaluate(V1, problem, wanted=names, options={'deg': genes})
  gap = np.abs(problem.means('predicted') - problem.means('observed'))
  at = row(problem, 'ta', 'A')
  assert found['mae_average'][at] == pytest.approx(gap[at, [0, 5]].mean())
  at = row(problem, 'tb', 'A')
  assert found['mae_average'][at] == pytest.approx(gap[at, 1])
  at = row(problem, 'tb', 'C')
  assert found['mae_average'][at] == pytest.approx(gap[at, 0])


def test_infinite_aggregates_count_as_zero():
  options = base.settle(V1, {})
  a, b = np.array([[1.0, np.inf, 2]]), np.array([[1.0, 3, 2]])
  with jax.enable_x64(True):
    found = perturbench_values.metric('mae', a, b, None, options)
  assert found[0] == pytest.approx(1.0)


def test_missing_predicted_controls_are_the_observed_ones(problem):
  conditions = np.arange(problem.num_conditions)
  labels = np.where(
    np.isin(problem.predicted.labels, conditions), problem.predicted.labels, -1
  )
  bare = problem.with_sides(
    None,
    problem.predicted.relabelled(labels, problem.predicted.num_labels),
  )
  names = ['rmse_logfc', 'cosine_logp', 'rmse_scaled', 'rmse_scores']
  found = base.evaluate(V2, bare, wanted=names)
  real = base.evaluate(V2, problem, wanted=names, options={'control': 'real'})
  for name in names:
    np.testing.assert_allclose(found[name], real[name], rtol=1e-12)


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'ties': 'middle'}, "closest: 'mid'"),
    ({'rank_denominator': 'p'}, 'n-1'),
    ({'de_method': 'welch'}, 't-test_overestim_var'),
    ({'control': 'both'}, 'real'),
    ({'deg': {'A': ['g0']}, 'transposed': True}, 'transposed'),
    ({'deg': {'A': ['g0']}}, "'A\\+B' has no entry"),
    ({'tie': 'mid'}, 'ties'),
  ],
)
def test_wrong_options_are_named(problem, options, message):
  with pytest.raises(ValueError, match=message):
    base.evaluate(V1, problem, wanted=['mse_average'], options=options)


def test_genes_in_any_order(problem):
  """A permutation of the genes changes nothing."""
  order = np.array([3, 0, 5, 1, 4, 2])
  values, conditions, types = closed_form.fixture_t('observed')
  predicted, _, _ = closed_form.fixture_t('predicted')
  permuted = problem_lib.from_arrays(
    values[:, order], conditions, predicted[:, order], conditions,
    control='control', genes=tuple('abcdef'),
    observed_groups=types, predicted_groups=types,
  )  # fmt: skip
  names = [f'{m}_{a}' for m in METRICS for a in ('logfc', 'scaled')]
  names.append('mse_rank_scaled')
  first = base.evaluate(V1, problem, wanted=names)
  second = base.evaluate(V1, permuted, wanted=names)
  for name in names:
    np.testing.assert_allclose(first[name], second[name], atol=1e-12)


@pytest.mark.parametrize('convention', [V1, V2], ids=lambda c: c.name)
def test_columns_say_what_they_are(convention):
  names = [column.name for column in convention.columns]
  assert len(set(names)) == len(names)
  for column in convention.columns:
    assert column.direction in base.DIRECTIONS
    assert set(column.needs) <= set(base.NEEDS)
    assert column.formula
    assert column.reference
