"""Differential expression as it comes: engines, matrices, chunks, bad cells.

Both engines are held to SciPy, to each other and to the recorded numbers of
fixture A (cell-eval 0.8.2 with pdex 0.3.0).
"""

import functools
import sys

import closed_form
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy import testing
from scipy import sparse, stats

from pertjax.metrics import differential
from pertjax.metrics.differential import cells as cells_lib
from pertjax.metrics.differential import checks, engines, kernels


def missing():
  try:
    kernels.load()
  except ImportError as error:
    return str(error)
  return ''


NEEDS_ILLICO = pytest.mark.skipif(bool(missing()), reason=missing() or 'here')
ILLICO = pytest.param('illico', marks=NEEDS_ILLICO)
both = pytest.mark.parametrize('engine', ['jax', ILLICO])

NUM_CONDITIONS = 7
ONE_CELL, EMPTY = 5, 6


@functools.cache
def draw():
  """Returns sparse counts full of ties and what else is hard; conditions.

  Condition 5 has one cell, 6 none; some cells belong to none.
  """
  rng = np.random.default_rng(0)
  condition = rng.integers(-1, 5, 420)
  condition[condition == 5] = 0
  condition[17] = ONE_CELL
  shape = len(condition), 20
  values = (rng.random(shape) < rng.random(20)) * rng.poisson(2, shape)
  values = values.astype(np.float32)
  values[:, 1] = 2
  values[:, 2] = 0
  values[:, 3] = rng.integers(-1, 2, len(values))
  values[:, 4] = condition == 1
  values[:, 5] = rng.normal(size=len(values))
  values[:, 6] = rng.normal(size=len(values)) + 30 * (condition == 3)
  values[:, 7] = 1
  values[np.flatnonzero(condition == 2)[0], 7] = 0
  return values, condition


def run(values, condition, engine='jax', **options):
  options = {'num_conditions': NUM_CONDITIONS, **options}
  table, used = differential.de(values, condition, engine=engine, **options)
  assert used == engine
  for field in table:
    assert isinstance(field, np.ndarray)
    assert field.dtype == np.float64
  return table


@functools.cache
def drawn(engine='jax'):
  return run(*draw(), engine)


def assert_equal(found, expected, *, exact=False):
  for name in expected._fields:
    a, b = getattr(found, name), getattr(expected, name)
    if exact or name == 'statistic':
      testing.assert_array_equal(a, b, err_msg=name)
    else:
      testing.assert_allclose(a, b, rtol=1e-11, atol=1e-13, err_msg=name)


def messy(values):
  """Returns CSR with unsorted indices, repeats and stored zeros."""
  rng = np.random.default_rng(1)
  rows, columns = np.nonzero((values != 0) | (rng.random(values.shape) < 0.3))
  data = values[rows, columns]
  twice = rng.random(len(rows)) < 0.1
  rows = np.concatenate([rows, rows[twice]])
  columns = np.concatenate([columns, columns[twice]])
  data = np.concatenate([np.where(twice, data - 1, data), np.ones(twice.sum())])
  order = np.lexsort((rng.random(len(rows)), rows))
  ends = np.cumsum(np.bincount(rows, minlength=len(values)))
  matrix = sparse.csr_matrix(
    (
      data[order].astype(np.float32),
      columns[order].astype(np.int32),
      np.concatenate([[0], ends]),
    ),
    shape=values.shape,
  )
  assert not matrix.has_sorted_indices
  assert (matrix.data == 0).any()
  testing.assert_allclose(matrix.toarray(), values, atol=1e-6)
  return matrix


# ----------------------------------------------------------------------------
# What is computed.


@both
@pytest.mark.parametrize('continuity', [True, False])
def test_ranks_are_scipys(engine, continuity):
  values, condition = draw()
  found = run(values, condition, engine, continuity=continuity)
  control = values[condition == 0].astype(float)
  for i in range(1, EMPTY):
    u, p = stats.mannwhitneyu(
      values[condition == i].astype(float),
      control,
      method='asymptotic',
      use_continuity=continuity,
    )
    testing.assert_array_equal(found.statistic[i], u)
    # scipy has no p where all is one tie.
    p = np.where(np.isnan(p), 1, p)
    testing.assert_allclose(found.p[i], p, rtol=1e-9)
    testing.assert_allclose(
      found.fdr[i], stats.false_discovery_control(p), rtol=1e-9
    )
    testing.assert_allclose(
      found.mean_p[i],
      np.expm1(values[condition == i].mean(0, dtype=float)),
      rtol=1e-9,
      atol=1e-12,
    )


@both
def test_what_cannot_be_tested_is_nan_and_what_is_constant_is_one(engine):
  found = drawn(engine)
  for field in (found.statistic, found.z, found.p, found.log10_p, found.fdr):
    assert np.all(np.isnan(field[[0, EMPTY]]))
    assert not np.any(np.isnan(field[1:EMPTY]))
  assert np.all(np.isnan(found.df))
  testing.assert_array_equal(found.p[1:EMPTY, 1:3], 1)
  testing.assert_array_equal(found.z[1:EMPTY, 1:3], 0)
  testing.assert_array_equal(found.log2_fold_change[1:EMPTY, 1:3], 0)


@both
def test_no_difference_has_the_z_of_the_formula(engine):
  # Where U = n1 n0 / 2 the correction makes z = -1/(2 s), and p is still 1.
  values = np.array([1, 2, 3, 4, 1, 2, 3, 4], np.float32)[:, None]
  found = run(values, np.repeat([0, 1], 4), engine, num_conditions=2)
  s = np.sqrt(16 / 12 * (9 - 4 * (2**3 - 2) / 56))
  testing.assert_allclose(found.z[1, 0], -0.5 / s, rtol=1e-12)
  testing.assert_array_equal([found.statistic[1], found.p[1]], [[8], [1]])


@both
@pytest.mark.parametrize('tie_correct', [True, False])
def test_far_tail_has_a_logarithm(engine, tie_correct):
  values = np.arange(2400, dtype=np.float32)[:, None] // 2
  found = run(
    values,
    np.repeat([0, 1], 1200),
    engine,
    num_conditions=2,
    tie_correct=tie_correct,
  )
  n, pairs = 2400, 1200**2
  ties = tie_correct * 1200 * (2**3 - 2) / (n * (n - 1))
  z = (pairs / 2 - 0.5) / np.sqrt(pairs / 12 * (n + 1 - ties))
  expected = (np.log(2) + stats.norm.logsf(z)) / np.log(10)
  assert expected < -300
  testing.assert_allclose(found.z[1, 0], z, rtol=1e-12)
  testing.assert_allclose(found.log10_p[1, 0], expected, rtol=1e-9)


@NEEDS_ILLICO
@pytest.mark.parametrize('seed', [0, 1, 2])
def test_engines_agree_on_counts(seed):
  rng = np.random.default_rng(seed)
  condition = rng.choice(7, 420, p=[0.4, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1])
  depth = rng.lognormal(0, 0.6, 420)[:, None]
  rate = rng.gamma(0.3, 2, 20) * np.exp(rng.normal(0, 0.5, (7, 20)))[condition]
  counts = rng.poisson(depth * rate).astype(np.float32)
  if seed == 1:  # Hardly anything but ties.
    counts = np.minimum(counts, 1)
  if seed == 2:
    counts = np.log1p(
      counts / np.maximum(counts.sum(1, keepdims=True), 1) * 1e4
    )
  assert_equal(
    run(sparse.csr_matrix(counts), condition, 'illico'),
    run(counts, condition, 'jax'),
  )


@NEEDS_ILLICO
@pytest.mark.parametrize('continuity', [True, False])
@pytest.mark.parametrize('tie_correct', [True, False])
def test_engines_agree_on_what_is_hard(continuity, tie_correct):
  options = {'continuity': continuity, 'tie_correct': tie_correct}
  assert_equal(run(*draw(), 'illico', **options), run(*draw(), **options))


# ----------------------------------------------------------------------------
# What may be given.


@both
@pytest.mark.parametrize(
  'make',
  [
    sparse.csr_matrix,
    sparse.csc_matrix,
    sparse.csr_array,
    np.asfortranarray,
    jnp.asarray,
    lambda x: x.astype(np.float64),
    lambda x: np.repeat(x, 2, axis=1)[:, ::2],
  ],
)
def test_kinds_of_matrices(engine, make):
  values, condition = draw()
  assert_equal(run(make(values), condition, engine), drawn(engine))


@both
def test_unsorted_repeated_and_stored_zeros(engine):
  values, condition = draw()
  counts = np.round(values)  # So that repeats add up exactly.
  matrix = messy(counts)
  before = [x.copy() for x in (matrix.data, matrix.indices, matrix.indptr)]
  found = run(matrix, condition, engine)
  assert_equal(found, run(counts, condition, engine))
  for a, b in zip(before, (matrix.data, matrix.indices, matrix.indptr)):
    testing.assert_array_equal(a, b)


@both
@pytest.mark.parametrize(
  'dtype', [bool, np.int8, np.uint16, np.int64, np.float16, jnp.bfloat16]
)
def test_types_of_values(engine, dtype):
  values, condition = draw()
  counts = np.clip(np.round(values), 0, 9).astype(dtype)
  found = run(counts, condition, engine)
  assert_equal(found, run(counts.astype(np.float32), condition, engine))


@both
def test_large_integers_keep_their_digits(engine):
  values = 2**40 + np.arange(60)[:, None]
  found = run(values, np.arange(60) % 2, engine, num_conditions=2)
  u = stats.mannwhitneyu(np.arange(1, 60, 2), np.arange(0, 60, 2)).statistic
  assert found.statistic[1, 0] == u


@both
def test_input_is_not_changed(engine):
  values, condition = draw()
  values = values.copy()
  values[3, 3] = np.nan
  for matrix in (values, sparse.csr_matrix(values)):
    before = matrix.copy()
    run(matrix, condition, engine)
    if sparse.issparse(matrix):
      matrix, before = matrix.data, before.data
    testing.assert_array_equal(matrix, before)


@both
def test_stacked_matrices_are_one(engine):
  values, condition = draw()
  parts = [values[:100], values[100:101], values[101:]]
  conditions = [condition[:100], condition[100:101], condition[101:]]
  for kinds in (
    (np.asarray, np.asarray, np.asarray),
    (sparse.csr_matrix, sparse.csr_matrix, sparse.csr_matrix),
    (sparse.csr_matrix, np.asarray, sparse.csc_array),
    (jnp.asarray, jnp.asarray, jnp.asarray),
    (np.asarray, jnp.asarray, sparse.csr_matrix),
  ):
    matrices = [kind(part) for kind, part in zip(kinds, parts)]
    assert_equal(run(matrices, conditions, engine), drawn(engine), exact=True)
    assert_equal(run(matrices, condition, engine), drawn(engine), exact=True)


@both
@pytest.mark.parametrize('kind', [np.asarray, sparse.csr_matrix])
def test_chunks_change_nothing(engine, kind, monkeypatch):
  values, condition = draw()
  sizes = np.bincount(condition[condition >= 0], minlength=NUM_CONDITIONS)
  seen = []
  take = cells_lib.take

  def watched(cells, rows):
    matrix = take(cells, rows)
    seen.append(matrix.shape[0])
    return matrix

  monkeypatch.setattr(cells_lib, 'take', watched)
  least = sizes[0] + sizes[1:].max()
  whole = kind(values)
  parts = [kind(values[:150]), kind(values[150:])]
  for matrix in (whole, parts):
    for limit, most in ((least, 5), (least + 80, 4)):
      seen.clear()
      found = run(matrix, condition, engine, max_cells=int(limit))
      assert_equal(found, drawn(engine), exact=True)
      assert 2 <= len(seen) <= most
      assert max(seen) <= limit
  with pytest.raises(ValueError, match=f'{least} is the least for both'):
    run(whole, condition, engine, max_cells=int(least) - 1)


def test_sparse_matrix_is_dense_a_block_at_a_time(monkeypatch):
  values, condition = draw()
  monkeypatch.setattr(engines, '_BLOCK', 6)
  widths = []
  blocks = cells_lib.gene_blocks

  def watched(matrix, width):
    for start, block in blocks(matrix, width):
      widths.append((start, block.shape))
      yield start, block

  monkeypatch.setattr(cells_lib, 'gene_blocks', watched)
  found = run(sparse.csr_matrix(values), condition)
  assert widths == [(start, (420, 6)) for start in (0, 6, 12, 14)]
  assert_equal(found, drawn(), exact=True)


def test_sums_in_blocks(monkeypatch):
  values, condition = draw()
  matrices = [sparse.csr_matrix(values), values]
  for size in (7, 1 << 20):
    monkeypatch.setattr(cells_lib, '_BLOCK_VALUES', size)
    monkeypatch.setattr(cells_lib, '_BLOCK_BYTES', 30 * size)
    for matrix in matrices:
      for linear in (True, False):
        found = cells_lib.sums(
          cells_lib.stack(matrix),
          condition,
          num_conditions=NUM_CONDITIONS,
          linear=linear,
        )
        wide = values.astype(float)
        wide = np.expm1(wide) if linear else wide
        for i in range(NUM_CONDITIONS):
          testing.assert_allclose(
            found[i], wide[condition == i].sum(0), rtol=1e-12, atol=1e-12
          )


# ----------------------------------------------------------------------------
# NaN and infinity.


@both
@pytest.mark.parametrize('kind', [np.asarray, sparse.csr_matrix])
def test_nan_and_infinity_stay_in_their_gene_and_group(engine, kind):
  values, condition = draw()
  values = values.copy()
  values[np.flatnonzero(condition == 2)[3], 8] = np.nan
  values[np.flatnonzero(condition == 0)[3], 9] = np.inf
  values[np.flatnonzero(condition == 3)[3], 10] = -np.inf
  values[np.flatnonzero(condition == -1)[0], 11] = np.nan
  found = run(kind(values), condition, engine)
  before = drawn(engine)
  hit = np.zeros(found.p.shape, bool)
  hit[2, 8], hit[:, 9], hit[3, 10] = True, True, True
  testing.assert_array_equal(np.isnan(found.mean_p)[2:4, [8, 10]], np.eye(2))
  assert np.all(np.isnan(found.mean_0[:, 9]))
  hit[[0, EMPTY]] = True
  for name in ('statistic', 'z', 'p', 'log10_p', 'fdr'):
    a, b = getattr(found, name), getattr(before, name)
    testing.assert_array_equal(np.isnan(a), hit)
    if name != 'fdr':
      testing.assert_array_equal(a[~hit], b[~hit])


@both
@pytest.mark.parametrize('kind', [np.asarray, sparse.csr_matrix])
def test_cells_of_no_condition_are_not_read(engine, kind):
  values, condition = draw()
  values = values.copy()
  values[condition == -1] = np.nan
  found = run(kind(values), np.where(condition == -1, 99, condition), engine)
  assert_equal(found, drawn(engine), exact=True)


# ----------------------------------------------------------------------------
# Filters.


def pooled_cpm(values, condition):
  sums = np.stack(
    [values[condition == i].sum(0) for i in range(NUM_CONDITIONS)]
  )
  with np.errstate(invalid='ignore'):
    return 1e6 * sums / sums.sum(1, keepdims=True)


@both
@pytest.mark.parametrize('on', checks.CPM_FILTERS)
@pytest.mark.parametrize('mean', checks.MEANS)
def test_cpm_filter(engine, on, mean):
  values, condition = draw()
  values = np.abs(np.round(values)) % 7
  threshold = 4e4
  above = pooled_cpm(values.astype(float), condition) > threshold
  given = np.log1p(values) if mean == 'geometric' else values
  found = run(
    sparse.csr_matrix(given),
    condition,
    engine,
    mean=mean,
    cpm_filter=threshold,
    cpm_filter_on=on,
  )
  kept = above[:1] if on == 'control' else above | above[:1]
  kept = np.broadcast_to(kept, above.shape)
  assert 0.2 < kept[1:EMPTY].mean() < 0.95
  testing.assert_array_equal(~np.isnan(found.fdr[1:EMPTY]), kept[1:EMPTY])
  for i in range(1, EMPTY):
    expected = stats.false_discovery_control(found.p[i, kept[i]])
    testing.assert_allclose(found.fdr[i, kept[i]], expected, rtol=1e-12)


def test_filters_on_either_and_control_differ():
  values, condition = draw()
  values = np.abs(np.round(values)) % 7
  above = pooled_cpm(values.astype(float), condition) > 4e4
  assert np.any(above[1:EMPTY] & ~above[:1])


@both
def test_gene_mask_leaves_genes_out_of_the_fdr(engine):
  values, condition = draw()
  mask = np.arange(values.shape[1]) % 3 > 0
  found = run(values, condition, engine, gene_mask=mask)
  assert np.all(np.isnan(found.fdr[:, ~mask]))
  testing.assert_array_equal(found.p, drawn(engine).p)
  for i in range(1, EMPTY):
    expected = stats.false_discovery_control(found.p[i, mask])
    testing.assert_allclose(found.fdr[i, mask], expected, rtol=1e-12)


@both
def test_as_cell_eval2_has_it(engine):
  # Predicted cells against the real control, on counts per million.
  rng = np.random.default_rng(4)
  real, predicted = rng.poisson(rng.gamma(0.5, 3, 20), (2, 210, 20))
  real, predicted = (
    1e6 * x / np.maximum(x.sum(1, keepdims=True), 1) for x in (real, predicted)
  )
  control = real[:90]
  condition = 1 + np.arange(210) % (NUM_CONDITIONS - 1)
  found = run(
    [sparse.csr_matrix(control), predicted],
    [np.zeros(90, int), condition],
    engine,
    mean='arithmetic',
    pseudocount=1e-9,
    cpm_filter=5.0,
    cpm_filter_on='control',
  )
  kept = control.mean(0) > 5
  assert 0 < kept.mean() <= 1
  for i in range(1, NUM_CONDITIONS):
    cells = predicted[condition == i]
    p = stats.mannwhitneyu(cells, control, method='asymptotic').pvalue
    testing.assert_allclose(found.p[i, kept], p[kept], rtol=1e-9)
    q = stats.false_discovery_control(p[kept])
    testing.assert_allclose(found.fdr[i, kept], q, rtol=1e-9)
    assert np.all(np.isnan(found.fdr[i, ~kept]))
    change = np.log2((cells.mean(0) + 1e-9) / (control.mean(0) + 1e-9))
    testing.assert_allclose(found.log2_fold_change[i], change, atol=1e-9)


# ----------------------------------------------------------------------------
# Fixture A.

NAMES = tuple(closed_form.GROUPS_A)


def fixture_a(predicted):
  """Returns the fixture's cells [cells, 72] in float64, and conditions."""
  return closed_form.coded(closed_form.fixture_a, int(predicted))


@both
@pytest.mark.parametrize('kind', [np.asarray, sparse.csr_matrix])
def test_fixture_a(engine, kind):
  values, condition = fixture_a(predicted=False)
  testing.assert_allclose(values.sum(), 11602.322727, rtol=1e-10)
  real = run(kind(values), condition, engine)
  for name, p, fdr, change, u in (
    ('G03', 16.810847, 19.398022, -2.018047, 7939.5),
    ('G16', 13.728232, 15.358022, -92.134475, 2220),
    ('NULLP', 52.851660, 71.849042, -0.366679, 8434),
  ):
    i = NAMES.index(name)
    testing.assert_allclose(real.p[i].sum(), p, rtol=1e-6)
    testing.assert_allclose(real.fdr[i].sum(), fdr, rtol=1e-6)
    testing.assert_allclose(real.log2_fold_change[i].sum(), change, rtol=1e-6)
    testing.assert_allclose(real.statistic[i].sum(), u, rtol=1e-12)
  values, condition = fixture_a(predicted=True)
  testing.assert_allclose(values.sum(), 11752.712468, rtol=1e-10)
  predicted = run(kind(values), condition, engine)
  for table, gene, row in (
    (real, 0, (2.951547, 1.931737, 0.611572, 1.266537e-4, 199, 3.995326e-4)),
    (real, 2, (2.270103, 3.682242, -0.697827, 3.452244e-4, 23, 6.541095e-4)),
    (real, 3, (11.357444, 16.265656, -0.518191, 0.656323, 97, 0.829039)),
    (
      predicted,
      0,
      (2.606931, 1.902221, 0.454668, 7.599019e-4, 188, 1.563227e-3),
    ),
  ):
    found = (
      table.mean_p,
      table.mean_0,
      table.log2_fold_change,
      table.p,
      table.statistic,
      table.fdr,
    )
    # Six digits.
    testing.assert_allclose([x[1, gene] for x in found], row, rtol=2e-6)
  for table, expected in (
    (real, [50, 51, 51, 54, 49, 0]),
    (predicted, [58, 51, 56, 61, 0, 20]),
  ):
    testing.assert_array_equal(np.sum(table.fdr[1:] < 0.05, 1), expected)


# ----------------------------------------------------------------------------
# The choice of the engine.


@pytest.fixture
def without_illico(monkeypatch):
  monkeypatch.setitem(sys.modules, 'illico', None)
  monkeypatch.setitem(sys.modules, 'illico.rust_backend', None)
  kernels.load.cache_clear()
  yield
  kernels.load.cache_clear()


@pytest.mark.usefixtures('without_illico')
def test_without_illico_it_is_an_error_to_ask_for_it():
  with pytest.raises(ImportError, match=r"pip install 'pertjax\[de\]'"):
    differential.de(*draw(), num_conditions=NUM_CONDITIONS, engine='illico')


@pytest.mark.usefixtures('without_illico')
def test_without_illico_auto_is_jax_and_says_why():
  said = []
  table, used = differential.de(
    *draw(), num_conditions=NUM_CONDITIONS, say=said.append
  )
  assert used == 'jax'
  assert len(said) == 1
  assert 'by jax: illico cannot be imported' in said[0]
  assert "pip install 'pertjax[de]'" in said[0]
  assert_equal(table, drawn(), exact=True)


@NEEDS_ILLICO
def test_auto_is_illico_on_a_cpu(monkeypatch):
  said = []
  assert engines.choose_engine('auto', 'wilcoxon', say=said.append) == 'illico'
  assert said[0].startswith('differential expression by illico: version ')
  monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
  assert engines.choose_engine('auto', 'wilcoxon', say=said.append) == 'jax'
  assert 'gpu' in said[1]


def test_welch_is_jaxs():
  values, condition = draw()
  said = []
  found, used = differential.de(
    sparse.csr_matrix(values),
    condition,
    num_conditions=NUM_CONDITIONS,
    method='welch',
    say=said.append,
  )
  assert used == 'jax'
  assert "no method 'welch'" in said[0]
  control = values[condition == 0].astype(float)
  genes = [0, 3, 5, 6, 8, 9, 10, 11]
  for i in range(1, ONE_CELL):
    cells = values[condition == i].astype(float)
    expected = stats.ttest_ind(
      cells[:, genes], control[:, genes], equal_var=False
    )
    testing.assert_allclose(
      found.statistic[i, genes], expected.statistic, rtol=1e-9
    )
    testing.assert_allclose(found.df[i, genes], expected.df, rtol=1e-9)
    testing.assert_allclose(
      found.log10_p[i, genes], np.log10(expected.pvalue), rtol=1e-9, atol=1e-11
    )
  assert np.all(np.isnan(found.p[[0, ONE_CELL, EMPTY]]))


# ----------------------------------------------------------------------------
# Errors.


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'engine': 'ilico'}, "'ilico'; closest: 'illico'"),
    ({'engine': 'illico', 'method': 'welch'}, "illico has 'wilcoxon' only"),
    ({'method': 'wilcox'}, "'wilcox'; closest: 'wilcoxon'"),
    ({'cpm_filter_on': 'both'}, "cpm_filter_on is 'both'"),
    ({'num_conditions': 1}, 'num_conditions is 1'),
    ({'gene_mask': np.ones(3, bool)}, r'gene_mask has shape \(3,\)'),
    ({'condition': np.ones(5, int)}, 'no cell of the control'),
    ({'condition': np.zeros(4, int)}, r'condition \[cells\]'),
    ({'condition': np.ones(5)}, 'condition must be integers'),
    ({'values': np.ones((5, 0))}, 'no genes'),
    ({'values': np.ones(5)}, r'values must be \[cells, genes\]'),
    ({'values': np.full((5, 2), 'a')}, 'values holds <U1'),
    ({'values': np.ones((5, 2), complex)}, 'values holds complex128'),
    ({'values': sparse.coo_matrix(np.ones((5, 2)))}, "sparse 'coo' matrix"),
    ({'values': []}, 'values is an empty list'),
    (
      {'values': [np.ones((2, 2)), np.ones((3, 4))]},
      r'numbers of genes: \[2, 4\]',
    ),
    ({'values': [np.ones((2, 2)), np.ones(3)]}, r'values\[1\] must be'),
  ],
)
def test_errors_name_what_is_wrong(options, message):
  given = {
    'values': np.ones((5, 2), np.float32),
    'condition': np.array([0, 0, 1, 1, 1]),
    'num_conditions': 2,
    'engine': 'jax',
    **options,
  }
  with pytest.raises(ValueError, match=message):
    differential.de(given.pop('values'), given.pop('condition'), **given)


def test_too_many_pairs_for_the_counts_of_jax():
  condition = np.repeat([0, 1], [50_000, 50_000])
  values = np.zeros((len(condition), 1), np.float32)
  with pytest.raises(ValueError, match=r'must stay below 2\^31'):
    run(values, condition, num_conditions=2)


@NEEDS_ILLICO
def test_illico_takes_as_many_pairs():
  condition = np.repeat([0, 1], [50_000, 50_000])
  values = np.zeros((len(condition), 1), np.float32)
  values[:50_001] = 1
  found = run(values, condition, 'illico', num_conditions=2)
  assert found.statistic[1, 0] == 25_000.0
  assert found.log10_p[1, 0] < -1000
