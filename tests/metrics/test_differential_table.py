"""Differential expression against SciPy and against recorded tables.

Fixture A and its numbers come from cell-eval 0.8.2 with pdex 0.3.0.
"""

import functools
import json

import closed_form
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy import testing
from scipy import special, stats

from pertjax.metrics.differential import checks, rank_counts, tails
from pertjax.metrics.differential import table as de_lib

NUM_CONDITIONS = 6


def draw(seed=0, num_cells=500, num_genes=24):
  """Returns sparse counts full of ties, and conditions with a few left out."""
  rng = np.random.default_rng(seed)
  condition = rng.integers(-1, NUM_CONDITIONS, num_cells)
  shape = num_cells, num_genes
  values = (rng.random(shape) < rng.random(num_genes)) * rng.poisson(3, shape)
  values[:, 1] = 2  # constant, not zero.
  values[:, 2] = 0
  values[:, 3] = rng.integers(-1, 2, num_cells)
  # Hardly anything but ties, and none but one cell's.
  values[:, 4] = (condition == 1) + 7 * (rng.random(num_cells) < 0.02)
  values[:, 5] = 1
  values[np.flatnonzero(condition == 2)[0], 5] = 0
  values = values.astype(np.float32)
  values[:, 6] = rng.normal(size=num_cells)
  values[:, 7] = rng.normal(size=num_cells) + 9 * (condition == 3)
  return values, condition.astype(np.int32)


def run(values, condition, **options):
  options = {'num_conditions': NUM_CONDITIONS, **options}
  return jax.tree.map(np.asarray, de_lib.de(values, condition, **options))


@functools.cache
def drawn():
  values, condition = draw()
  return values, condition, run(values, condition, mean='arithmetic')


def scipy_ranks(a, b, **options):
  """Returns U and ln p from scipy, in float64; p = 1 where it has none."""
  a, b = a.astype(np.float64), b.astype(np.float64)
  u, p = stats.mannwhitneyu(a, b, method='asymptotic', axis=0, **options)
  with np.errstate(divide='ignore'):
    return u, np.log(np.where(np.isnan(p), 1, p))


def assert_p(found, log_p):
  """Compares p and log10 p with ln p: 1e-6, or its float32 in the tail."""
  size = np.maximum(1, np.abs(log_p))
  finite = np.isfinite(log_p)  # scipy's own p ends at 1e-308.
  error = np.abs(found.log10_p * np.log(10) - log_p)[finite]
  assert np.all(error < 3e-6 * size[finite])
  usual = log_p > -8
  testing.assert_allclose(found.p[usual], np.exp(log_p[usual]), rtol=2e-6)
  inside = log_p > -80
  testing.assert_allclose(found.p[inside], np.exp(log_p[inside]), rtol=1e-4)


def row(table, i):
  return jax.tree.map(lambda x: x[i], table)


# ----------------------------------------------------------------------------
# Ranks.


@pytest.mark.parametrize('seed', [0, 1])
@pytest.mark.parametrize('continuity', [True, False])
def test_ranks_are_scipys(seed, continuity):
  values, condition = draw(seed)
  found = run(values, condition, continuity=continuity)
  assert all(np.all(np.isnan(x[0])) for x in (found.statistic, found.p))
  for i in range(1, NUM_CONDITIONS):
    u, log_p = scipy_ranks(
      values[condition == i],
      values[condition == 0],
      use_continuity=continuity,
    )
    testing.assert_array_equal(found.statistic[i], u)
    assert_p(row(found, i), log_p)


def test_z_is_the_formula_with_and_without_ties():
  values, condition, found = drawn()
  plain = run(values, condition, tie_correct=False)
  a, b = values[condition == 1], values[condition == 0]
  n1, n0 = len(a), len(b)
  n = n1 + n0
  for gene in (0, 3, 4, 6):
    _, t = np.unique(np.r_[a[:, gene], b[:, gene]], return_counts=True)
    ties = np.sum(t.astype(float) ** 3 - t)
    u = found.statistic[1, gene]
    top = max(u, n1 * n0 - u) - n1 * n0 / 2 - 0.5
    for table, taken in ((found, ties), (plain, 0)):
      s = np.sqrt(n1 * n0 / 12 * (n + 1 - taken / (n * (n - 1))))
      testing.assert_allclose(table.z[1, gene], top / s, rtol=1e-6)
  testing.assert_array_equal(plain.statistic, found.statistic)


def test_sums_of_cubes_are_exact_beyond_32_bits():
  # n^3 is 1.3e11 and all but three cells tie: float32 alone has no digit of S.
  condition = np.repeat([0, 1], [3000, 2000])
  values = np.ones((5000, 3), np.float32)
  values[[0, 10, 4999], 0] = 5, 6, 0
  values[:, 1] = np.arange(5000) % 7
  values[:, 2] = np.arange(5000) % 2 * 3
  found = rank_counts.count(jnp.asarray(values), condition, num_conditions=2)
  for gene in range(3):
    _, t = np.unique(values[:, gene], return_counts=True)
    untied = np.float32(5000**3 - sum(int(x) ** 3 for x in t))
    assert found.untied[1, gene] == untied
  u, log_p = scipy_ranks(values[3000:], values[:3000])
  table = run(values, condition, num_conditions=2)
  testing.assert_array_equal(table.statistic[1], u)
  assert_p(row(table, 1), log_p)


def test_tiny_p_has_a_logarithm():
  values = np.arange(2400, dtype=np.float32)[:, None]
  condition = np.repeat([0, 1], 1200)
  found = run(values, condition, num_conditions=2)
  n, pairs = 2400, 1200 * 1200
  z = (pairs / 2 - 0.5) / np.sqrt(pairs * (n + 1) / 12)
  expected = (np.log(2) + special.log_ndtr(-z)) / np.log(10)
  assert expected < -300
  assert found.p[1, 0] == 0
  testing.assert_allclose(found.log10_p[1, 0], expected, rtol=1e-6)


def test_constant_and_identical_groups_are_no_evidence():
  values, condition, found = drawn()
  testing.assert_array_equal(found.p[1:, 1:3], 1)
  testing.assert_array_equal(found.z[1:, 1:3], 0)
  testing.assert_array_equal(found.log2_fold_change[1:, 1:3], 0)
  control = values[condition == 0]
  twice = np.concatenate([control, control])
  same = run(twice, np.repeat([0, 1], len(control)), num_conditions=2)
  testing.assert_array_equal(same.statistic[1], len(control) ** 2 / 2)
  testing.assert_array_equal(same.p[1], 1)
  testing.assert_array_equal(same.log2_fold_change[1], 0)


def test_one_cell_and_no_cell():
  values, condition = draw()
  first = np.flatnonzero(condition == 1)[0]
  condition = np.where(condition == 1, -1, condition)
  condition[first] = 1
  condition = np.where(condition == 4, 9, condition)  # out of bounds.
  found = run(values, condition)
  u, log_p = scipy_ranks(values[[first]], values[condition == 0])
  testing.assert_array_equal(found.statistic[1], u)
  assert_p(row(found, 1), log_p)
  for field in (found.statistic, found.p, found.fdr, found.mean_p):
    assert np.all(np.isnan(field[4]))
  assert np.all(np.isnan(run(values, condition, method='welch').p[1]))


def test_signs_of_zero_tie_and_nan_stays_in_its_gene_and_group():
  values, condition = draw()
  signed = np.where(values == 0, -np.float32(0), values)
  signed[::2] = values[::2]
  before = run(values, condition)
  after = run(signed, condition)
  testing.assert_array_equal(after.statistic, before.statistic)
  values[np.flatnonzero(condition == 2)[3], 8] = np.nan
  values[np.flatnonzero(condition == 0)[3], 9] = np.nan
  found = run(values, condition)
  hit = np.zeros(found.p.shape, bool)
  hit[0], hit[2, 8], hit[:, 9] = True, True, True
  testing.assert_array_equal(np.isnan(found.p), hit)
  testing.assert_array_equal(np.isnan(found.fdr), hit)
  testing.assert_array_equal(found.p[~hit], before.p[~hit])


# ----------------------------------------------------------------------------
# How it is computed changes nothing.


@pytest.mark.parametrize('method', checks.METHODS)
def test_jit_is_eager(method):
  values, condition = draw()
  options = {'num_conditions': NUM_CONDITIONS, 'method': method}
  eager = run(values, condition, **options, cpm_filter=30000.0)
  jitted = jax.jit(functools.partial(de_lib.de, **options, cpm_filter=30000.0))(
    values, condition
  )
  for name, a, b in zip(eager._fields, eager, jitted, strict=True):
    testing.assert_allclose(b, a, rtol=2e-5, atol=1e-6, err_msg=name)
  if method == 'wilcoxon':
    testing.assert_array_equal(jitted.statistic, eager.statistic)


def test_order_of_genes_and_cells_and_blocks_change_nothing():
  values, condition, found = drawn()
  rng = np.random.default_rng(5)
  genes = rng.permutation(values.shape[1])
  moved = run(values[:, genes], condition, mean='arithmetic')
  for a, b in zip(found, moved, strict=True):
    testing.assert_array_equal(b, a[:, genes])
  cells = rng.permutation(len(values))
  moved = run(values[cells], condition[cells], mean='arithmetic')
  testing.assert_array_equal(moved.p, found.p)
  testing.assert_array_equal(moved.fdr, found.fdr)
  options = {'num_conditions': NUM_CONDITIONS}
  whole = rank_counts.count(jnp.asarray(values), condition, **options)
  parts = rank_counts.count(jnp.asarray(values), condition, **options, block=7)
  traced = jax.jit(functools.partial(rank_counts.count, **options, block=7))(
    values, condition
  )
  for other in (parts, traced):
    testing.assert_array_equal(other.difference[1:], whole.difference[1:])
    testing.assert_array_equal(other.untied[1:], whole.untied[1:])


def test_float64_keeps_its_digits():
  with jax.enable_x64(True):
    values = 1 + np.arange(60, dtype=np.float64)[:, None] * 1e-12
    condition = np.arange(60) % 2
    found = run(values, condition, num_conditions=2)
    u, log_p = scipy_ranks(values[1::2], values[::2])
    testing.assert_array_equal(found.statistic[1], u)
    testing.assert_allclose(found.p[1], np.exp(log_p), rtol=1e-12)


# ----------------------------------------------------------------------------
# Welch.


def test_welch_is_scipys():
  values, condition, _ = drawn()
  found = run(values, condition, method='welch')
  genes = [g for g in range(values.shape[1]) if g not in (1, 2, 4, 5)]
  for i in range(1, NUM_CONDITIONS):
    a, b = (values[condition == c][:, genes].astype(float) for c in (i, 0))
    expected = stats.ttest_ind(a, b, equal_var=False, axis=0)
    table = jax.tree.map(lambda x, i=i: x[i][genes], found)
    testing.assert_allclose(
      table.statistic, expected.statistic, rtol=1e-5, atol=3e-6
    )
    testing.assert_allclose(table.df, expected.df, rtol=2e-6)
    size = np.maximum(1, np.abs(np.log10(expected.pvalue)))
    error = np.abs(table.log10_p - np.log10(expected.pvalue))
    assert np.all(error < 5e-6 * size)
  testing.assert_array_equal(found.p[1:, 1:3], 1)


@pytest.mark.parametrize('df', [1, 2.5, 8, 29, 31, 99, 101, 3000])
def test_t_tail_to_float32(df):
  t = np.array([0, 0.01, 0.5, 1.9, 2, 2.1, 4, 10, 40], np.float32)
  p, log_p = tails.student(jnp.asarray(t), jnp.full(t.shape, df, jnp.float32))
  expected = np.log(2) + stats.t.logsf(t.astype(float), df)
  size = np.maximum(1, np.abs(expected))
  assert np.all(np.abs(log_p - expected) < 1e-5 * size)
  usual = expected > -10
  testing.assert_allclose(p[usual], np.exp(expected[usual]), rtol=2e-5)


def test_welch_without_variance():
  values = np.repeat([[0.1, 0.1], [0.1, 0.3]], [7, 5], axis=0)
  found = run(
    values.astype(np.float32),
    np.repeat([0, 1], [7, 5]),
    num_conditions=2,
    method='welch',
  )
  testing.assert_array_equal(found.p[1], [1, 0])
  testing.assert_array_equal(found.log10_p[1], [0, -np.inf])


# ----------------------------------------------------------------------------
# False discovery rate, fold change, filters.


def slow_bh(p):
  q, least = np.empty(len(p)), 1.0
  for place, i in reversed(list(enumerate(np.argsort(p, kind='stable'), 1))):
    least = min(least, p[i] * len(p) / place)
    q[i] = least
  return q


def test_bh_leaves_out_nan_and_masked_genes():
  rng = np.random.default_rng(0)
  p = np.round(rng.random((3, 40)) ** 3, 2)
  p[0, 4:9] = np.nan
  p[2] = np.nan
  mask = rng.random((3, 40)) < 0.8
  plain = de_lib.benjamini_hochberg(jnp.asarray(p))
  masked = de_lib.benjamini_hochberg(jnp.asarray(p), mask=mask)
  shared = de_lib.benjamini_hochberg(jnp.asarray(p), mask=mask[0])
  for i in range(3):
    for found, keep in (
      (plain[i], np.ones(40, bool)),
      (masked[i], mask[i]),
      (shared[i], mask[0]),
    ):
      keep = keep & ~np.isnan(p[i])
      testing.assert_allclose(found[keep], slow_bh(p[i][keep]), rtol=1e-6)
      assert np.all(np.isnan(np.asarray(found)[~keep]))


def test_fdr_is_scipys_over_each_condition():
  _, _, found = drawn()
  for i in range(1, NUM_CONDITIONS):
    expected = stats.false_discovery_control(found.p[i].astype(float))
    testing.assert_allclose(found.fdr[i], expected, rtol=1e-6)


def test_fold_change_of_zeros():
  p, zero = jnp.array([0.0, 2, 0, 4]), jnp.array([0.0, 0, 3, 1])
  found = de_lib.log2_fold_change(p, zero)
  testing.assert_array_equal(found, [0, np.inf, -np.inf, 2])
  found = de_lib.log2_fold_change(p, zero, pseudocount=1.0)
  testing.assert_allclose(found, np.log2([1, 3, 0.25, 2.5]), rtol=1e-6)


def test_means():
  values, condition, found = drawn()
  logs = np.log1p(np.abs(values))
  geometric = run(logs, condition)
  for i in range(1, NUM_CONDITIONS):
    testing.assert_allclose(
      found.mean_p[i], values[condition == i].mean(0), rtol=1e-5, atol=1e-6
    )
    testing.assert_allclose(
      geometric.mean_p[i], np.expm1(logs[condition == i].mean(0)), rtol=1e-5
    )
    testing.assert_array_equal(found.mean_0[i], found.mean_p[0])


def test_masks_and_cpm_filter_come_before_the_fdr():
  values, condition = draw()
  values = np.abs(values)
  mask = np.arange(values.shape[1]) % 3 > 0
  found = run(values, condition, mean='arithmetic', gene_mask=mask)
  kept = run(values[:, mask], condition, mean='arithmetic')
  testing.assert_array_equal(found.fdr[:, mask], kept.fdr)
  assert np.all(np.isnan(found.fdr[:, ~mask]))
  assert not np.any(np.isnan(found.p[1:]))
  share = np.stack(
    [
      values[condition == i].sum(0) / values[condition == i].sum()
      for i in range(NUM_CONDITIONS)
    ]
  )
  threshold = 1e6 * np.median(share)
  above = share * 1e6 > threshold
  expected = (above | above[:1])[1:]
  assert 0 < expected.mean() < 1
  found = run(values, condition, mean='arithmetic', cpm_filter=threshold)
  testing.assert_array_equal(~np.isnan(found.fdr[1:]), expected)
  logs = run(np.log1p(values), condition, cpm_filter=threshold)
  testing.assert_array_equal(~np.isnan(logs.fdr[1:]), expected)


# ----------------------------------------------------------------------------
# Fixture A.


@functools.cache
def fixture_a(side):
  """Returns cells, and the table of the fixture's side (0 real).

  In float64: many of its values differ in their last bit only.
  """
  values, condition = closed_form.coded(closed_form.fixture_a, side)
  with jax.enable_x64(True):
    table = run(values, condition, num_conditions=7)
  return values, table


def test_fixture_a_is_built_as_recorded():
  real, predicted = fixture_a(0)[0], fixture_a(1)[0]
  testing.assert_allclose(real.sum(), 11602.322727, rtol=1e-10)
  testing.assert_allclose(predicted.sum(), 11752.712468, rtol=1e-10)
  assert (np.sum(real == 0), np.sum(predicted == 0)) == (570, 568)


@pytest.mark.parametrize(
  ('side', 'gene', 'expected'),
  [
    (0, 0, (2.951547, 1.931737, 0.611572, 1.266537e-4, 199, 3.995326e-4)),
    (0, 2, (2.270103, 3.682242, -0.697827, 3.452244e-4, 23, 6.541095e-4)),
    (0, 3, (11.357444, 16.265656, -0.518191, 0.656323, 97, 0.829039)),
    (1, 0, (2.606931, 1.902221, 0.454668, 7.599019e-4, 188, 1.563227e-3)),
  ],
)
def test_fixture_a_rows_of_g03(side, gene, expected):
  table = fixture_a(side)[1]
  found = [
    getattr(table, name)[1, gene]
    for name in (
      'mean_p',
      'mean_0',
      'log2_fold_change',
      'p',
      'statistic',
      'fdr',
    )
  ]
  testing.assert_allclose(found, expected, rtol=2e-6)


def test_fixture_a_sums():
  table = fixture_a(0)[1]
  for i, p, fdr, change, u in (
    (1, 16.810847, 19.398022, -2.018047, 7939.5),
    (4, 13.728232, 15.358022, -92.134475, 2220),
    (6, 52.851660, 71.849042, -0.366679, 8434),
  ):
    testing.assert_allclose(table.p[i].sum(), p, rtol=1e-6)
    testing.assert_allclose(table.fdr[i].sum(), fdr, rtol=1e-6)
    testing.assert_allclose(table.log2_fold_change[i].sum(), change, rtol=1e-6)
    assert table.statistic[i].sum() == u


def test_fixture_a_number_of_significant_genes():
  for side, expected in (
    (0, [50, 51, 51, 54, 49, 0]),
    (1, [58, 51, 56, 61, 0, 20]),
  ):
    found = np.sum(fixture_a(side)[1].fdr[1:] < 0.05, axis=1)
    testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(('side', 'name'), [(0, 'de_real'), (1, 'de_pred')])
def test_fixture_a_against_every_recorded_row(shared_data, side, name):
  path = shared_data.parent / 'fixtures' / 'fixture_a_expected.json'
  if not path.is_file():
    pytest.skip(f'no recorded table {path}')
  rows = json.loads(path.read_text())[name]
  table = fixture_a(side)[1]
  order = list(closed_form.GROUPS_A)
  at = tuple(
    np.transpose(
      [(order.index(r['target']), int(r['feature'][1:])) for r in rows]
    )
  )
  assert len(rows) == 6 * 72
  for field, column, tolerance in (
    ('statistic', 'statistic', 0),
    ('p', 'p_value', 1e-9),
    ('fdr', 'fdr', 1e-9),
    ('mean_p', 'target_mean', 1e-10),
    ('mean_0', 'ref_mean', 1e-10),
  ):
    expected = np.array([r[column] for r in rows])
    testing.assert_allclose(
      getattr(table, field)[at], expected, rtol=tolerance, err_msg=field
    )
  expected = np.array([r['log2_fold_change'] for r in rows])
  testing.assert_allclose(
    table.log2_fold_change[at], expected, rtol=1e-9, atol=1e-9
  )


# ----------------------------------------------------------------------------
# Errors.


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'method': 'wilcox'}, "'wilcox'; closest: 'wilcoxon'"),
    ({'mean': 'mean'}, "mean is 'mean'"),
    ({'num_conditions': 1}, 'num_conditions is 1'),
    ({'gene_mask': np.ones(3, bool)}, r'gene_mask has shape \(3,\)'),
    ({'condition': np.ones(5, int)}, 'no cell of the control'),
    ({'condition': np.ones(4, int)}, r'condition \[cells\]'),
    ({'values': np.ones((5, 0), np.float32)}, 'no genes'),
  ],
)
def test_errors_name_what_is_wrong(options, message):
  given = {
    'values': np.ones((5, 2), np.float32),
    'condition': np.array([0, 0, 1, 1, 1]),
    'num_conditions': 2,
    **options,
  }
  with pytest.raises(ValueError, match=message):
    de_lib.de(given.pop('values'), given.pop('condition'), **given)
