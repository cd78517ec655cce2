"""Aggregates and metrics between rows; numbers T1 to T13 come from PerturBench.

Fixture T is 40 cells of six genes by formula. The expected values were made by
running PerturBench's first release on it.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy import testing

from pertjax.metrics import pseudobulk

# Rows of the aggregates: (cell type, condition), control first in each.
CONTROL = np.repeat([0, 5], 4)
TREATED = np.array([1, 2, 3, 4, 6, 7, 8, 9])
TA_A, TB_AB = 0, 7
METRICS = {
  'rmse': pseudobulk.rmse,
  'mse': pseudobulk.mse,
  'mae': pseudobulk.mae,
  'cosine': pseudobulk.cosine,
  'pearson': pseudobulk.pearson,
  'r2': lambda a, b: pseudobulk.r2(a, b, swapped=True),
}


def fixture_t():
  i, j = np.arange(40)[:, None], np.arange(6)[None, :]
  observed = ((7 * i + 3 * j + i * j) % 11) / 4
  predicted = ((5 * i + 2 * j + 2 * i * j + 3) % 13) / 4
  return predicted.astype(np.float32), observed.astype(np.float32)


def means(groups=None, num_groups=10):
  """Means of [cell type x condition], or of the groups given."""
  groups = np.arange(40) // 4 if groups is None else groups
  return [
    pseudobulk.group_means(x, groups, num_groups=num_groups)
    for x in fixture_t()
  ]


@functools.cache
def aggregate(name):
  """Aggregates of the eight perturbed groups, prediction and observation."""
  groups = {'groups': np.arange(40) // 4, 'num_groups': 10}
  rows = []
  for cells in fixture_t():
    mean = pseudobulk.group_means(cells, **groups)
    if name == 'logfc':
      rows.append(pseudobulk.logfc(mean[TREATED], mean[CONTROL]))
    elif name == 'scaled':
      rows.append(pseudobulk.scaled_means(cells, **groups)[TREATED])
    elif name == 'var':
      variance = pseudobulk.group_variances(cells, **groups)
      rows.append(pseudobulk.variation(mean, variance)[TREATED])
    else:
      rows.append(mean[TREATED])
  return rows


ROWS = {
  'average': (
    [1.9375, 1.125, 1.125, 1.9375, 2.75, 1.9375],
    [1.375, 1.4375, 1.5, 0.875, 0.25, 1.6875],
  ),
  'logfc': (
    [0.8892965, -0.3278047, -0.6890709, 0.3487282, 0, 1.2612653],
    [0.1277555, 0.4830829, 0.9125372, -1.0183785, 0, 0.2772283],
  ),
  'scaled': (
    [0.4838789, -0.3938589, -0.40721, 0.4441081, 0, 0.4922214],
    [0.1381329, 0.2324505, 0.3337983, -0.548442, 0, 0.4478586],
  ),
  'var': (
    [0.4860167, 0.6758626, 0.7114583, 0.5349395, 0, 0.5349395],
    [0.4545455, 0.5271459, 0.372678, 0.3194383, 0, 0.586777],
  ),
}
# Mean over the eight rows; ta_A; tb_A+B. None: not recorded.
VALUES = {
  ('average', 'rmse'): (1.1550944, 1.1544186, 1.0710441),
  ('average', 'mse'): (1.3374023, 1.3326823, 1.1471354),
  ('average', 'mae'): (0.8515625, 0.84375, 0.7083333),
  ('average', 'cosine'): (0.7801478, 0.7999303, 0.8119824),
  ('average', 'pearson'): (-0.7327725, -0.7473288, -0.7184972),
  ('average', 'r2'): (-3.6380238, -3.2749739, -4.0438933),
  ('logfc', 'rmse'): (0.7510685, 1.0519776, 0.5256874),
  ('logfc', 'mse'): (0.6672925, 1.1066569, 0.2763472),
  ('logfc', 'mae'): (0.6046708, 0.9208634, 0.436865),
  ('logfc', 'cosine'): (0.0268065, -0.2608372, 0.5125947),
  ('logfc', 'pearson'): (-0.0241588, -0.3655161, 0.4362686),
  ('logfc', 'r2'): (-2.7562648, -1.4418141, -2.0550065),
  ('scaled', 'rmse'): (0.5669327, 0.5842404, None),
  ('scaled', 'cosine'): (-0.0032261, None, None),
  ('scaled', 'pearson'): (-0.1611852, None, None),
  ('var', 'rmse'): (0.3172433, None, None),
  ('var', 'cosine'): (0.838035, None, None),
  ('var', 'pearson'): (0.4284458, None, None),
  ('var', 'mae'): (0.2416455, None, None),
}


def test_fixture_is_the_recorded_one():
  predicted, observed = fixture_t()
  testing.assert_array_equal(observed[0], [0, 0.75, 1.5, 2.25, 0.25, 1])
  testing.assert_array_equal(predicted[5], [0.5, 0.25, 0, 3, 2.75, 2.5])


@pytest.mark.parametrize('name', ROWS)
def test_aggregates_of_perturbench(name):  # T1, T3, T4, T5
  for row, expected in zip(aggregate(name), ROWS[name]):
    testing.assert_allclose(row[TA_A], expected, rtol=1e-5, atol=1e-6)
  if name == 'average':
    last = [1.6875, 1.5, 1.3125, 1.125, 0.25, 2.125]
    testing.assert_array_equal(aggregate(name)[1][TB_AB], last)


@pytest.mark.parametrize(('name', 'metric'), VALUES)
def test_metrics_of_perturbench(name, metric):  # T2, T3, T4, T5
  values = METRICS[metric](*aggregate(name))
  found = (jnp.mean(values), values[TA_A], values[TB_AB])
  for value, expected in zip(found, VALUES[name, metric]):
    if expected is not None:
      testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-6)


def test_reference_controls_on_both_sides():  # T7
  predicted, observed = means()
  control = observed[CONTROL]
  cosine = pseudobulk.cosine(
    pseudobulk.logfc(predicted[TREATED], control),
    pseudobulk.logfc(observed[TREATED], control),
  )
  expected = [
    [0.1524483, 0.2312277, 0.1311238, 0.0827292],  # ta: A, B, C, A+B.
    [0.2813946, 0.0875822, -0.0171784, 0.3218467],
  ]
  testing.assert_allclose(cosine, np.ravel(expected), rtol=1e-5, atol=1e-6)
  testing.assert_allclose(jnp.mean(cosine), 0.1588968, rtol=1e-5)


def test_without_covariates():  # T8
  predicted, observed = means(np.arange(40) // 4 % 5, 5)
  rmse = pseudobulk.rmse(predicted[1:], observed[1:])
  expected = [1.0795959, 1.089426, 1.1221752, 1.0660174]
  testing.assert_allclose(rmse, expected, rtol=1e-5)
  testing.assert_allclose(jnp.mean(rmse), 1.0893037, rtol=1e-5)


def test_identities():  # T9
  _, observed = means()
  truth, control = observed[TREATED], observed[CONTROL]
  testing.assert_array_equal(pseudobulk.rmse(truth, truth), 0)
  testing.assert_allclose(pseudobulk.cosine(truth, truth), 1, rtol=1e-6)
  rmse = pseudobulk.rmse(control, truth)
  testing.assert_allclose(jnp.mean(rmse), 0.4967652, rtol=1e-5)
  cosine = pseudobulk.cosine(
    pseudobulk.logfc(control, control), pseudobulk.logfc(truth, control)
  )
  assert np.isnan(cosine).all()


def test_scalar_metrics():  # T11
  x, y = jnp.array([1.0, 2, 3, 4]), jnp.array([1.0, 3, 2, 6])
  for value, expected in (
    (pseudobulk.pearson(x, y), 0.836660027),
    (pseudobulk.r2(x, y, swapped=True), -0.2),
    (pseudobulk.r2(x, y), 0.571428571),
    (pseudobulk.cosine(x, y), 0.955335892),
    (pseudobulk.mse(x, y), 1.5),
    (pseudobulk.rmse(x, y), 1.224744871),
    (pseudobulk.mae(x, y), 1.0),
    (pseudobulk.l2(x, y), np.sqrt(6)),
    (pseudobulk.pearson_delta(x + 7, y + 7, jnp.full(4, 7.0)), 0.836660027),
  ):
    testing.assert_allclose(value, expected, rtol=1e-6)


def test_top_k_recall():  # T13
  x = jnp.array([3, -5, 1, 0.5, -2, 4])
  y = jnp.array([-4, 1, 0.2, 3, 2, -0.1])
  for k, expected in ((1, 0), (2, 0), (3, 1 / 3)):
    testing.assert_allclose(
      pseudobulk.top_k_recall(x, y, k=k), expected, rtol=1e-6
    )
  assert np.isnan(pseudobulk.top_k_recall(x, y, k=7))
  with pytest.raises(ValueError, match='k is 0'):
    pseudobulk.top_k_recall(x, y, k=0)


def test_top_k_recall_shares_tied_places():
  truth = jnp.arange(10.0)
  # Zeros everywhere are a guess: k / genes, whatever the order of the genes.
  testing.assert_allclose(
    pseudobulk.top_k_recall(jnp.zeros(10), truth, k=3), 0.3, rtol=1e-6
  )
  # One sure hit; two more places among nine ties, two of which are right.
  flat = jnp.zeros(10).at[9].set(1)
  expected = (1 + 2 * (2 / 9)) / 3
  testing.assert_allclose(
    pseudobulk.top_k_recall(flat, truth, k=3), expected, rtol=1e-6
  )


def test_top_k_recall_with_mask():
  x = jnp.array([9.0, -5, 1, jnp.nan])
  y = jnp.array([1.0, 5, -3, jnp.nan])
  mask = jnp.array([False, True, True, False])
  assert pseudobulk.top_k_recall(x, y, mask=mask, k=1) == 1
  assert np.isnan(pseudobulk.top_k_recall(x, y, mask=mask, k=3))
  assert np.isnan(pseudobulk.top_k_recall(x, y, k=1))


def test_means_leave_out_padding_and_unknown_groups():
  values = [[1, 2], [3, 4], [100, 100], [np.nan, 5], [7, 8], [5, 7]]
  values = jnp.array(values, jnp.float32)
  groups = jnp.array([0, 0, -1, 1, 3, 1])
  weight = jnp.array([1.0, 3, 1, 0, 1, 1])
  mean = pseudobulk.group_means(values, groups, num_groups=3, weight=weight)
  testing.assert_allclose(mean[:2], [[2.5, 3.5], [5, 7]])
  assert np.isnan(mean[2]).all()
  # A NaN stays in its group.
  mean = pseudobulk.group_means(values, groups, num_groups=3)
  testing.assert_allclose(mean[0], [2, 3])
  testing.assert_allclose(mean[1], [np.nan, 6])


def test_integer_weight_counts_a_cell_again():
  cells = jnp.asarray(fixture_t()[0][:6])
  weight = jnp.array([1, 2, 0, 3, 1, 1])
  groups = jnp.array([0, 0, 1, 1, 1, 0])
  repeated = jnp.repeat(jnp.arange(6), weight)
  for function in (
    pseudobulk.group_means,
    pseudobulk.group_variances,
    pseudobulk.scaled_means,
  ):
    testing.assert_allclose(
      function(cells, groups, num_groups=2, weight=weight),
      function(cells[repeated], groups[repeated], num_groups=2),
      rtol=1e-5,
      atol=1e-6,
    )


def test_means_are_blocked_exactly_and_stay_accurate():
  # More cells than one block, many of them: plain float32 sums of these are
  # wrong in the fourth digit.
  generator = np.random.default_rng(0)
  counts = generator.poisson([0.3, 2, 20], (100_000, 3))
  cells = np.log1p(counts).astype(np.float32)
  groups = generator.integers(0, 2, 100_000)
  found = pseudobulk.group_means(cells, groups, num_groups=2)
  spread = pseudobulk.group_variances(cells, groups, num_groups=2)
  for group in range(2):
    exact = cells[groups == group].astype(np.float64)
    testing.assert_allclose(found[group], exact.mean(0), rtol=1e-5)
    testing.assert_allclose(spread[group], exact.var(0), rtol=1e-4)


def test_equal_cells_have_equal_means_bit_for_bit():
  cells = np.random.default_rng(0).gamma(1, 1, (777, 5)).astype(np.float32)
  cells = np.concatenate([cells] * 9)
  mean = pseudobulk.group_means(
    cells, np.repeat(np.arange(9), 777), num_groups=9
  )
  testing.assert_array_equal(mean, np.broadcast_to(mean[:1], mean.shape))
  testing.assert_array_equal(pseudobulk.logfc(mean[1], mean[0]), 0)


def test_half_precision_is_summed_in_float32():
  cells = jnp.full((5000, 1), 0.1, jnp.bfloat16)
  mean = pseudobulk.group_means(cells, jnp.zeros(5000, int), num_groups=1)
  assert mean.dtype == jnp.float32
  testing.assert_allclose(mean, float(cells[0, 0]), rtol=1e-6)


def test_scaled_means_clip_and_leave_constant_genes():
  cells = jnp.zeros((200, 2)).at[0, 0].set(1)
  groups = jnp.zeros(200, int).at[0].set(1)
  rows = pseudobulk.scaled_means(cells, groups, num_groups=2)
  # 1 of 200: a z-score of 14.07, clipped; the silent gene stays at 0.
  testing.assert_allclose(rows[1], [10, 0], rtol=1e-6)


def test_logfc_keeps_small_changes_and_marks_undefined():
  mean = jnp.array([1 + 1e-6, 0.5, -0.2, jnp.nan])
  control = jnp.array([1.0, 0.5, 0.3, 0.3])
  change = pseudobulk.logfc(mean, control)
  exact = np.log2((float(mean[0]) + 0.1) / (1 + 0.1))
  testing.assert_allclose(change[0], exact, rtol=1e-5)
  assert change[1] == 0
  assert np.isnan(change[2:]).all()
  change = pseudobulk.logfc(mean, control, undefined=0.0)
  assert change[2] == 0
  assert np.isnan(change[3])


def test_what_has_no_answer_is_nan():
  zero, one = jnp.zeros((1, 4)), jnp.ones((1, 4))
  rows = jnp.array([[1.0, -2, 3, 0.5]])
  nothing = jnp.zeros(4, bool)
  assert np.isnan(pseudobulk.cosine(zero, rows))
  assert np.isnan(pseudobulk.pearson(one, rows))
  assert np.isnan(pseudobulk.pearson(rows, one))
  assert np.isnan(pseudobulk.r2(rows, one))
  assert np.isnan(pseudobulk.r2(one, rows, swapped=True))
  assert np.isfinite(pseudobulk.r2(one, rows))
  for name in ('cosine', 'pearson', 'mse', 'rmse', 'mae', 'l2', 'r2'):
    metric = getattr(pseudobulk, name)
    assert np.isnan(metric(rows, rows, mask=nothing)), name
    assert np.isnan(metric(rows.at[0, 1].set(jnp.nan), rows)), name


def test_infinities_are_not_replaced():
  rows = jnp.array([[1.0, -2, 3, 0.5]])
  bad = rows.at[0, 1].set(jnp.inf)
  for name in ('mse', 'rmse', 'mae', 'l2'):
    assert np.isposinf(getattr(pseudobulk, name)(bad, rows)), name
  for name in ('cosine', 'pearson'):
    assert np.isnan(getattr(pseudobulk, name)(bad, rows)), name


def test_rounding_of_a_constant_does_not_correlate():
  # The float32 mean of n times 0.1 is not 0.1 for some n.
  generator = np.random.default_rng(0)
  rows = generator.normal(size=(60, 60)).astype(np.float32)
  for value in (0.1, 0.7, 123.4):
    mask = np.tri(60, dtype=bool)
    constant = np.where(mask, np.float32(value), rows)
    assert np.isnan(pseudobulk.pearson(constant, rows, mask=mask)).all()
    assert np.isnan(pseudobulk.r2(rows, constant, mask=mask)).all()


@pytest.mark.parametrize('scale', [1e-25, 1e25])
def test_angles_do_not_depend_on_scale(scale):
  generator = np.random.default_rng(0)
  a, b = generator.normal(size=(2, 3, 50)).astype(np.float32)
  for metric in (pseudobulk.cosine, pseudobulk.pearson):
    testing.assert_allclose(
      metric(a * np.float32(scale), b), metric(a, b), rtol=1e-5
    )


def test_small_differences_on_large_values():
  generator = np.random.default_rng(0)
  base = 100 + generator.normal(size=(1, 500))
  b = (base + 0.01 * generator.normal(size=(4, 500))).astype(np.float32)
  a = (b + 0.01 * generator.normal(size=(4, 500))).astype(np.float32)
  exact = [np.corrcoef(x, y)[0, 1] for x, y in zip(a - base, b - base)]
  found = pseudobulk.pearson_delta(
    a, b, np.broadcast_to(base, a.shape).astype(np.float32)
  )
  # The inputs themselves are known to 4e-6 of 1e-2.
  testing.assert_allclose(found, exact, atol=1e-3)
  wide = [x.astype(np.float64) for x in (a, b)]
  exact = [1 - np.corrcoef(x, y)[0, 1] for x, y in zip(*wide)]
  testing.assert_allclose(1 - pseudobulk.pearson(a, b), exact, atol=2e-7)


def test_masks_and_leading_axes_broadcast():
  generator = np.random.default_rng(0)
  a = generator.normal(size=(3, 2, 12)).astype(np.float32)
  b = a[0] + 1
  mask = generator.permuted(np.tile(np.arange(12) < 6, (2, 1)), axis=1)
  for name in ('cosine', 'mae', 'r2', 'pearson', 'top_k_recall'):
    metric = getattr(pseudobulk, name)
    options = {'k': 2} if name == 'top_k_recall' else {}
    found = metric(a, b, mask=mask, **options)
    for model in range(3):
      for row in range(2):
        kept = mask[row]
        alone = metric(a[model, row, kept], b[row, kept], **options)
        testing.assert_allclose(found[model, row], alone, rtol=1e-5)


def test_errors_name_what_was_given():
  with pytest.raises(ValueError, match=r'\(2, 3\), \(2, 4\)'):
    pseudobulk.mse(jnp.zeros((2, 3)), jnp.zeros((2, 4)))
  with pytest.raises(ValueError, match='boolean, not int32'):
    pseudobulk.mse(jnp.zeros(3), jnp.zeros(3), mask=jnp.ones(3, int))


def test_gradients_are_finite():
  a, b = (jnp.asarray(x[:4]) for x in fixture_t())
  for name in ('pearson', 'r2'):
    metric = getattr(pseudobulk, name)
    grad = jax.grad(lambda x, f=metric: f(x, b).sum())(a)
    assert np.isfinite(grad).all(), name
