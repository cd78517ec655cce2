"""Ranks and pairwise matrices; numbers T2 to T10 come from PerturBench."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy import testing

from pertjax.metrics import pseudobulk, ranks

CONTROL = np.repeat([0, 5], 4)
TREATED = np.array([1, 2, 3, 4, 6, 7, 8, 9])
CELL_TYPE = np.repeat([0, 1], 4)


@functools.cache
def fixture_t(name):
  """Aggregates of fixture T: [ta, tb] x [A, B, C, A+B]; see test_pseudobulk."""
  i, j = np.arange(40)[:, None], np.arange(6)[None, :]
  rows = []
  for cells in (
    ((5 * i + 2 * j + 2 * i * j + 3) % 13) / 4,
    ((7 * i + 3 * j + i * j) % 11) / 4,
  ):
    cells = jnp.asarray(cells, jnp.float32)
    groups = {'groups': np.arange(40) // 4, 'num_groups': 10}
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


# T2 to T5. The recorded mean of (average, mae), .34375, is one draw of a random
# tie-break; its expected value is .328125.
MEANS = {
  ('average', 'rmse'): 0.28125,
  ('average', 'mse'): 0.28125,
  ('average', 'mae'): 0.328125,
  ('average', 'cosine'): 0.40625,
  ('average', 'pearson'): 0.4375,
  ('average', 'r2'): 0.34375,
  ('logfc', 'rmse'): 0.375,
  ('logfc', 'mse'): 0.375,
  ('logfc', 'mae'): 0.3125,
  ('logfc', 'cosine'): 0.40625,
  ('logfc', 'pearson'): 0.4375,
  ('logfc', 'r2'): 0.34375,
  ('scaled', 'rmse'): 0.34375,
  ('scaled', 'cosine'): 0.34375,
  ('scaled', 'pearson'): 0.4375,
  ('var', 'rmse'): 0.4375,
  ('var', 'cosine'): 0.46875,
  ('var', 'pearson'): 0.5,
}
# Order: ta A, B, C, A+B; tb A, B, C, A+B.
EACH = {
  ('average', 'rmse'): [0.5, 0, 0.75, 0.25, 0.5, 0, 0.25, 0],
  ('average', 'cosine'): [0.5, 0.75, 0.5, None, 0, 0.75, 0.25, 0],
  ('logfc', 'cosine'): [0.75, 0.25, 0.75, 0.5, 0.25, 0, 0.75, 0],
}


@pytest.mark.parametrize(('name', 'metric'), MEANS)
def test_ranks_of_perturbench(name, metric):
  values = ranks.perturbation_rank(
    *fixture_t(name),
    metric=metric,
    groups=CELL_TYPE,
    denominator='n',
    swapped=metric == 'r2',
  )
  testing.assert_allclose(jnp.mean(values), MEANS[name, metric], rtol=1e-6)
  for value, expected in zip(values, EACH.get((name, metric), ())):
    if expected is not None:
      assert value == expected


def test_reference_controls_on_both_sides():  # T7
  i, j = np.arange(40)[:, None], np.arange(6)[None, :]
  observed = ((7 * i + 3 * j + i * j) % 11) / 4
  control = observed.reshape(10, 4, 6).mean(1)[CONTROL]
  predicted, truth = (
    pseudobulk.logfc(jnp.asarray(x), jnp.asarray(control, jnp.float32))
    for x in fixture_t('average')
  )
  values = ranks.perturbation_rank(
    predicted, truth, metric='cosine', groups=CELL_TYPE, denominator='n'
  )
  testing.assert_allclose(jnp.mean(values), 0.4375)


def test_without_covariates():  # T8
  predicted, observed = (
    x.reshape(2, 4, 6).mean(0) for x in fixture_t('average')
  )
  values = ranks.perturbation_rank(
    predicted, observed, metric='rmse', denominator='n'
  )
  testing.assert_array_equal(values, [0.5, 0, 0.75, 0.25])


def test_identities():  # T9
  _, observed = fixture_t('average')
  for metric in ranks.METRICS:
    values = ranks.perturbation_rank(observed, observed, metric=metric)
    testing.assert_array_equal(values, 0)
  # One prediction for all of a cell type: the expected (n - 1) / (2 n).
  same = jnp.repeat(observed[:2], 4, axis=0)
  values = ranks.perturbation_rank(
    same, observed, metric='rmse', groups=CELL_TYPE, denominator='n'
  )
  testing.assert_array_equal(values, 0.375)


def test_rank_helper():  # T10
  matrix = jnp.array([[0.1, 0.5, 0.9], [0.4, 0.2, 0.3], [0.05, 0.6, 0.8]])
  third = 1 / 3
  for direction, denominator, expected in (
    ('lower', 'n', [third, 0, third]),
    ('higher', 'n', [third, 2 * third, third]),
    ('lower', 'n-1', [0.5, 0, 0.5]),
    ('higher', 'n-1', [0.5, 1, 0.5]),
  ):
    values = ranks.rank(matrix, direction=direction, denominator=denominator)
    testing.assert_allclose(values, expected, rtol=1e-6)
  # Row by row: .5 and .9 are above .1; .3 and .4 are not below .2; and so on.
  values = ranks.rank(
    matrix, direction='lower', denominator='n-1', transposed=True
  )
  testing.assert_array_equal(values, [0, 0, 1])


def shuffled_rank(matrix, generator, times):
  """PerturBench's rule: shuffle, sort with NaN last, find the own row."""
  number = len(matrix)
  total = np.zeros(number)
  for _ in range(times):
    order = generator.permutation(number)
    for j in range(number):
      column = np.argsort(matrix[order, j], kind='stable')
      total[j] += np.flatnonzero(order[column] == j)[0] / number
  return total / times


def test_mid_rank_is_the_expected_random_tie_break():
  generator = np.random.default_rng(0)
  matrix = generator.integers(0, 3, (6, 6)).astype(np.float32)
  matrix[2] = np.nan
  matrix[4, 1:5] = np.nan
  expected = shuffled_rank(matrix, generator, 4000)
  values = ranks.rank(matrix, direction='lower')
  testing.assert_allclose(values, expected, atol=0.02)
  assert ranks.num_ties(matrix).sum() > 3
  low = ranks.rank(matrix, direction='lower', ties='optimistic')
  high = ranks.rank(matrix, direction='lower', ties='pessimistic')
  testing.assert_allclose((low + high) / 2, values, rtol=1e-6)
  testing.assert_allclose((high - low) * 6, ranks.num_ties(matrix), rtol=1e-6)


def test_nan_sorts_last():
  matrix = jnp.array([[jnp.nan, 1, 1], [5, jnp.nan, 7], [jnp.nan, 2, 3]])
  for direction in ('lower', 'higher'):
    values = ranks.rank(matrix, direction=direction, denominator='n-1')
    # Column 0: loses to 5, ties with NaN. 1: loses to both. 2: beaten by one.
    testing.assert_array_equal(values, [0.75, 1, 0.5])


def test_infinite_distances_are_compared():
  matrix = jnp.array([[jnp.inf, 1], [2, 1]])
  testing.assert_array_equal(
    ranks.rank(matrix, direction='lower', denominator='n-1', tolerance=1e-3),
    [1, 0.5],
  )


def test_a_condition_alone_has_no_rank():
  matrix = jnp.array([[1.0, 0], [0, 1]])
  groups = jnp.array([0, 1])
  alone = ranks.rank(matrix, direction='lower', groups=groups)
  testing.assert_array_equal(alone, 0)
  alone = ranks.rank(
    matrix, direction='lower', groups=groups, denominator='n-1'
  )
  assert np.isnan(alone).all()


@pytest.mark.parametrize('metric', ranks.METRICS[1:])
def test_equal_predictions_rank_as_chance(metric):
  # An odd size: the edge of a matrix product adds up in another order.
  number = 37
  generator = np.random.default_rng(number)
  base = generator.gamma(0.5, 2, (1, 303))
  truth = base + 0.1 * generator.normal(size=(number, 303))
  same = np.broadcast_to(base + 0.01, truth.shape)
  values = ranks.perturbation_rank(
    same.astype(np.float32), truth.astype(np.float32), metric=metric
  )
  testing.assert_array_equal(values, 0.5)


@pytest.mark.parametrize('metric', ranks.METRICS[1:])
def test_predictions_equal_but_for_rounding_rank_as_chance(metric):
  generator = np.random.default_rng(0)
  base = generator.gamma(0.5, 2, (1, 4000))
  truth = base + 0.1 * generator.normal(size=(12, 4000))
  same = np.broadcast_to(base + 0.01, truth.shape).astype(np.float32)
  up = generator.random(same.shape) < 0.5
  same = np.where(up, same, np.nextafter(same, np.float32(np.inf)))
  values = ranks.perturbation_rank(
    same, truth.astype(np.float32), metric=metric
  )
  testing.assert_array_equal(values, 0.5)


def test_tolerance_makes_ties():
  matrix = jnp.array([[1.0, 3], [1.25, 2]])
  for tolerance, first in ((0.0, 0), (0.1, 0), (0.125, 0.5)):
    values = ranks.rank(
      matrix, direction='lower', denominator='n-1', tolerance=tolerance
    )
    testing.assert_array_equal(values, [first, 0])


@pytest.mark.parametrize('metric', ['cosine', 'pearson'])
def test_ranks_of_angles_do_not_depend_on_scale(metric):
  generator = np.random.default_rng(0)
  truth = generator.normal(size=(9, 30)).astype(np.float32)
  predicted = truth + 6 * generator.normal(size=truth.shape).astype(np.float32)
  plain = ranks.perturbation_rank(predicted, truth, metric=metric)
  assert plain.max() > 0
  tiny = predicted * np.float32(1e-25)
  scaled = ranks.perturbation_rank(tiny, truth, metric=metric)
  testing.assert_array_equal(scaled, plain)


def slow_pairwise(predicted, reference, metric, mask, swapped):
  """One pair after the other, float64, with the genes of the reference."""
  matrix = np.empty((len(predicted), len(reference)))
  for i, left in enumerate(predicted.astype(np.float64)):
    for j, right in enumerate(reference.astype(np.float64)):
      a, b = left[mask[j]], right[mask[j]]
      matrix[i, j] = {
        'mse': lambda a, b: np.mean((a - b) ** 2),
        'rmse': lambda a, b: np.sqrt(np.mean((a - b) ** 2)),
        'mae': lambda a, b: np.mean(np.abs(a - b)),
        'cosine': lambda a, b: a @ b / np.sqrt((a @ a) * (b @ b)),
        'pearson': lambda a, b: np.corrcoef(a, b)[0, 1],
        'r2': lambda a, b: (
          1 - np.sum((a - b) ** 2) / (len(a) * np.var(a if swapped else b))
        ),
      }[metric](a, b)
  return matrix


@pytest.mark.parametrize('kind', ['all', 'shared', 'own', 'few'])
@pytest.mark.parametrize('metric', [*ranks.METRICS[1:], 'r2 swapped'])
def test_pairwise_equals_one_pair_at_a_time(metric, kind):
  metric, swapped = metric.split()[0], metric.endswith('swapped')
  generator = np.random.default_rng(0)
  # Far from zero and close together, as means of expression are.
  base = generator.gamma(1, 2, (1, 60))
  predicted = (base + 0.1 * generator.normal(size=(9, 60))).astype(np.float32)
  reference = (base + 0.1 * generator.normal(size=(21, 60))).astype(np.float32)
  mask = np.ones((21, 60), bool)
  if kind != 'all':
    # 'few' is 'own' in another form.
    mask &= generator.random((1 if kind == 'shared' else 21, 60)) < 0.4
    # What no reference asks for is not read.
    unread = ~mask[0] if kind == 'shared' else ~mask.any(0)
    mask[:, 7] = False
    unread[7] = True
    predicted[:, unread] = np.nan
    reference[:, unread] = np.nan
  given = {
    'all': None,
    'shared': mask[0],
    'own': mask,
    'few': ranks.own_genes(mask),
  }[kind]
  found = ranks.pairwise(
    predicted, reference, metric=metric, mask=given, swapped=swapped
  )
  expected = slow_pairwise(predicted, reference, metric, mask, swapped)
  testing.assert_allclose(found, expected, rtol=2e-4, atol=1e-6)


def test_distances_keep_the_digits_that_similarities_lose():
  generator = np.random.default_rng(0)
  base = generator.gamma(1, 2, (1, 400))
  a, b = (
    (base + 0.003 * generator.normal(size=(30, 400))).astype(np.float32)
    for _ in range(2)
  )
  wide = [x.astype(np.float64) for x in (a, b)]
  for metric in ('rmse', 'cosine', 'pearson'):
    exact = slow_pairwise(*wide, metric, np.ones(b.shape, bool), False)
    direction = 'lower' if metric == 'rmse' else 'higher'
    expected = [
      np.mean(np.delete(exact[:, j], j) < exact[j, j])
      if direction == 'lower'
      else np.mean(np.delete(exact[:, j], j) > exact[j, j])
      for j in range(30)
    ]
    values = ranks.perturbation_rank(a, b, metric=metric)
    testing.assert_allclose(values, expected, atol=1e-6)


def test_own_genes_skip_nan_of_other_conditions():
  generator = np.random.default_rng(0)
  truth = generator.normal(size=(3, 8)).astype(np.float32)
  mask = np.zeros((3, 8), bool)
  mask[0, :4] = mask[1, 2:6] = mask[2, 4:] = True
  predicted = truth + 0.1
  predicted[0, 7] = np.nan  # A gene of condition 2 only.
  unknown = np.zeros((3, 3), bool)
  unknown[0, 2] = True
  for metric in ('mse', 'cosine', 'r2'):
    for form in (mask, ranks.own_genes(mask)):
      matrix = ranks.pairwise(predicted, truth, metric=metric, mask=form)
      testing.assert_array_equal(np.isnan(matrix), unknown)


def test_own_genes_that_are_constant_have_no_correlation():
  predicted = np.random.default_rng(0).normal(size=(2, 8)).astype(np.float32)
  predicted[0, :4] = 0.1
  truth = predicted[::-1]
  mask = np.zeros((2, 8), bool)
  mask[:, :4] = True
  for form in (mask, ranks.own_genes(mask)):
    matrix = ranks.pairwise(predicted, truth, metric='pearson', mask=form)
    testing.assert_array_equal(np.isnan(matrix), [[True, True], [False, True]])


def test_own_genes_lists_a_mask():
  mask = np.array([[0, 1, 0, 1], [0, 0, 0, 0], [1, 0, 0, 0]], bool)
  genes = ranks.own_genes(mask)
  testing.assert_array_equal(genes.index[0], [1, 3])
  testing.assert_array_equal(genes.counted, mask.sum(1)[:, None] > [[0, 1]])
  rows = jnp.ones((3, 4))
  matrix = ranks.pairwise(rows, rows, metric='mse', mask=genes)
  testing.assert_array_equal(np.isnan(matrix[0]), [False, True, False])
  with pytest.raises(ValueError, match='of 3 conditions .* the 2 of'):
    ranks.pairwise(rows, rows[:2], metric='mse', mask=genes)


def test_groups_are_ranked_apart():
  generator = np.random.default_rng(0)
  truth = generator.normal(size=(9, 30)).astype(np.float32)
  predicted = truth + generator.normal(size=truth.shape).astype(np.float32)
  groups = np.array([0, 1, 0, 1, 1, 0, 2, 2, 2])
  for transposed in (False, True):
    together = ranks.perturbation_rank(
      predicted, truth, metric='mae', groups=groups, transposed=transposed
    )
    for group in range(3):
      rows = groups == group
      alone = ranks.perturbation_rank(
        predicted[rows], truth[rows], metric='mae', transposed=transposed
      )
      testing.assert_array_equal(together[rows], alone)


def test_vmap_over_models():
  generator = np.random.default_rng(0)
  truth = generator.normal(size=(7, 20)).astype(np.float32)
  models = truth + generator.normal(size=(3, 7, 20)).astype(np.float32)
  for metric in ('mae', 'cosine'):
    together = jax.vmap(
      lambda x, m=metric: ranks.perturbation_rank(x, truth, metric=m)
    )(models)
    one_by_one = [
      ranks.perturbation_rank(x, truth, metric=metric) for x in models
    ]
    testing.assert_array_equal(together, one_by_one)


@pytest.mark.parametrize(
  ('call', 'message'),
  [
    (lambda m: ranks.pairwise(m, m, metric='cosin'), "closest: 'cosine'"),
    (lambda m: ranks.pairwise(m, m[:, :2], metric='mse'), r'\(3, 2\)'),
    (lambda m: ranks.pairwise(m, m, metric='mse', mask=m), 'boolean'),
    (lambda m: ranks.rank(m[:2], direction='lower'), r'square.*\(2, 3\)'),
    (lambda m: ranks.rank(m, direction='up'), "'higher', 'lower'"),
    (lambda m: ranks.rank(m, direction='lower', ties='x'), "ties is 'x'"),
    (lambda m: ranks.rank(m, direction='lower', denominator='n+1'), "'n-1'"),
    (lambda m: ranks.rank(m, direction='lower', groups=m[0, :2]), r'\[3\]'),
    (
      lambda m: ranks.perturbation_rank(
        m, m, metric='mse', mask=m > 0, transposed=True
      ),
      'one mask for all',
    ),
  ],
)
def test_errors_name_what_is_allowed(call, message):
  with pytest.raises(ValueError, match=message):
    call(jnp.eye(3))
