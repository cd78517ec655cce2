"""Simulated files against their own truth and real ranges."""

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse, stats

from pertjax.data import simulate, simulate_world


@pytest.fixture(scope='module')
def tiny():
  return simulate.tiny(seed=3)


@pytest.fixture(scope='module')
def default():
  return simulate.simulate(seed=1)


@pytest.fixture(scope='module')
def deep():
  """Many cells of few conditions, for means with small sampling errors."""
  return simulate.simulate(
    seed=2,
    num_cells=30_000,
    num_genes=150,
    num_perturbations=4,
    num_doubles=2,
    num_cell_types=2,
    num_batches=3,
    num_programs=4,
    genes_per_program=30,
    null_fraction=0.25,
    guide_failure=0.3,
    batch_spread=0.3,
    umis_per_gene=4.0,
  )


def _rows(adata):
  """Returns {(condition, dose, cell type): row of the truth}."""
  truth = adata.uns['simulation']
  names = zip(
    truth['row_condition'],
    truth['row_dose'],
    truth['row_cell_type'],
    strict=True,
  )
  return {name: i for i, name in enumerate(names)}


def _row_of_cells(adata):
  rows = _rows(adata)
  labels = (
    adata.obs[k].astype(str) for k in ('condition', 'dose', 'cell_type')
  )
  return np.array([rows[name] for name in zip(*labels, strict=True)])


def _log1p(adata):
  """Returns log1p(1e4 * count / total) [cells, genes], sparse."""
  matrix = adata.X.astype(np.float64)
  matrix = sparse.csr_matrix(
    matrix.multiply(1e4 / np.asarray(matrix.sum(axis=1)))
  )
  matrix.data = np.log1p(matrix.data)
  return matrix


def _pseudobulk(adata):
  """Returns mean and its squared standard error [rows, genes]."""
  row, matrix = _row_of_cells(adata), _log1p(adata)
  ones = np.ones(len(row))
  pool = sparse.csr_matrix((ones, (row, np.arange(len(row)))))
  cells = np.asarray(pool.sum(axis=1))
  mean = (pool @ matrix).toarray() / cells
  square = (pool @ matrix.multiply(matrix)).toarray() / cells
  return mean, (square - mean**2) / cells


def _doubles(adata):
  """Yields (row, rows of its two singles, row of its control)."""
  rows = _rows(adata)
  for (condition, dose, cell_type), row in rows.items():
    if '+' in condition:
      singles = zip(condition.split('+'), dose.split('+'), strict=True)
      first, second = (rows[p, d, cell_type] for p, d in singles)
      yield row, (first, second), rows['control', '1', cell_type]


def _assert_same(left, right, path=''):
  """Compares nested dicts of arrays and scalars, values and kinds."""
  if isinstance(left, dict):
    assert list(sorted(left)) == list(sorted(right)), path
    for key in left:
      _assert_same(left[key], right[key], f'{path}/{key}')
    return
  assert np.asarray(left).dtype.kind == np.asarray(right).dtype.kind, path
  assert np.array_equal(left, right), path


def test_same_seed_gives_the_same_bytes_and_another_does_not(tiny):
  again, other = simulate.tiny(seed=3), simulate.tiny(seed=4)
  for field in ('data', 'indices', 'indptr'):
    left, right = getattr(tiny.X, field), getattr(again.X, field)
    assert left.dtype == right.dtype
    assert left.tobytes() == right.tobytes()
  pd.testing.assert_frame_equal(tiny.obs, again.obs)
  _assert_same(tiny.uns, again.uns)
  assert (tiny.X != other.X).nnz > 1000
  assert not np.array_equal(
    tiny.uns['simulation']['effect'], other.uns['simulation']['effect']
  )


def test_options_leave_the_draws_of_other_parts_alone(tiny):
  truth = tiny.uns['simulation']
  more = simulate.tiny(seed=3, num_cells=900).uns['simulation']
  _assert_same(truth['effect'], more['effect'])
  _assert_same(truth['row_condition'], more['row_condition'])
  changed = simulate.tiny(seed=3, epistasis=0.0, guide_failure=0.5)
  for key in ('graph', 'direct', 'own', 'batch_shift', 'perturbed'):
    _assert_same(truth[key], changed.uns['simulation'][key], key)
  for key in ('condition', 'cell_type', 'batch'):
    assert tiny.obs[key].equals(changed.obs[key])
  assert tiny.obs['guide_working'].mean() > changed.obs['guide_working'].mean()


@pytest.mark.parametrize('overrides', [{}, {'null_fraction': 0.0}])
def test_h5ad_round_trip_changes_nothing(tmp_path, overrides):
  adata = simulate.tiny(seed=5, doses=(0.1, 1), num_doubles=2, **overrides)
  adata.write_h5ad(tmp_path / 'tiny.h5ad')
  found = anndata.read_h5ad(tmp_path / 'tiny.h5ad')
  assert found.X.dtype == np.float32
  assert isinstance(found.X, sparse.csr_matrix)
  assert (found.X != adata.X).nnz == 0
  pd.testing.assert_frame_equal(found.obs, adata.obs)
  pd.testing.assert_frame_equal(found.var, adata.var)
  _assert_same(dict(adata.varm), dict(found.varm))
  _assert_same(adata.uns, found.uns)


def test_counts_are_canonical_positive_whole_numbers(default):
  matrix = default.X
  assert matrix.shape == (20_000, 2_000)
  assert matrix.has_canonical_format
  assert matrix.data.min() >= 1
  assert np.array_equal(matrix.data, np.round(matrix.data))


def test_pseudobulks_agree_with_the_truth(deep):
  mean, variance = _pseudobulk(deep)
  truth = deep.uns['simulation']['mean_log1p']
  score = (mean - truth) / np.sqrt(variance)
  # Sampling errors alone: every gene of every row. The common shift is that of
  # a series cut short, for totals of few genes.
  assert np.abs(score).max() < 5.5
  assert 0.9 < score.std() < 1.1
  assert np.abs((mean - truth).mean()) < 6e-3
  # A truth without batches or failed guides would be noticed.
  plain = np.log1p(1e4 * np.exp(deep.uns['simulation']['log_share']))
  assert np.abs((mean - plain) / np.sqrt(variance)).max() > 10


def test_pooled_counts_agree_with_the_truth(deep):
  row = _row_of_cells(deep)
  truth = deep.uns['simulation']['log_bulk']
  for i in np.unique(row):
    total = np.asarray(deep.X[row == i].sum(axis=0)).ravel()
    error = np.log1p(1e4 * total / total.sum()) - truth[i]
    assert np.sqrt((error**2).mean()) < 0.05
    assert np.abs(error).max() < 0.25


def test_shares_sum_to_one_and_follow_the_effects(default):
  truth = default.uns['simulation']
  share = np.exp(truth['log_share'].astype(np.float64))
  np.testing.assert_allclose(share.sum(axis=1), 1, rtol=1e-4)
  control = truth['log_share'][:2]
  shift = truth['log_share'] - np.tile(control, (len(share) // 2, 1))
  rest = shift - truth['effect']
  # One constant a row.
  assert np.ptp(rest, axis=1).max() < 1e-4
  assert np.all(truth['effect'][:2] == 0)


def test_without_epistasis_effects_add_up():
  adata = simulate.simulate(
    seed=1, num_cells=2_000, epistasis=0.0, num_genes=500, genes_per_program=40
  )
  truth = adata.uns['simulation']
  missed = []
  for row, singles, control in _doubles(adata):
    for key in ('effect', 'activity'):
      np.testing.assert_allclose(
        truth[key][row], truth[key][list(singles)].sum(axis=0), atol=1e-5
      )
    delta = truth['mean_log1p'] - truth['mean_log1p'][control]
    residual = delta[row] - delta[list(singles)].sum(axis=0)
    if (delta[row] ** 2).mean() > 1e-4:
      missed.append((residual**2).sum() / (delta[row] ** 2).sum())
  assert len(missed) > 50
  assert np.median(missed) < 0.005
  assert np.quantile(missed, 0.9) < 0.03


def test_epistasis_grows_with_its_option_and_spares_null_partners(default):
  truth = default.uns['simulation']
  null = set(truth['null_perturbations'])
  assert len(null) == 3
  missed, spared = [], 0
  for row, singles, _ in _doubles(default):
    residual = truth['effect'][row] - truth['effect'][list(singles)].sum(axis=0)
    if null & set(truth['row_condition'][row].split('+')):
      np.testing.assert_allclose(residual, 0, atol=1e-5)
      spared += 1
    else:
      missed.append((residual**2).sum() / (truth['effect'][row] ** 2).sum())
  assert spared > 0
  assert 0.01 < np.median(missed) < 0.3
  design = {'num_cells': 300, 'num_genes': 100, 'genes_per_program': 10}
  size = []
  for epistasis in (0.0, 0.5, 1.0):
    adata = simulate.simulate(seed=1, epistasis=epistasis, **design)
    effect = adata.uns['simulation']['activity']
    size.append(
      sum(
        ((effect[row] - effect[list(singles)].sum(axis=0)) ** 2).sum()
        for row, singles, _ in _doubles(adata)
      )
    )
  np.testing.assert_allclose(size[0], 0, atol=1e-8)
  # Linear in the option, so quadratic here.
  np.testing.assert_allclose(size[2], 4 * size[1], rtol=1e-4)


def test_guides_fail_as_often_as_asked_and_leave_cells_unperturbed(deep):
  obs, truth = deep.obs, deep.uns['simulation']
  condition = obs['condition'].astype(str)
  effective = obs['effective_condition'].astype(str)
  order = condition.str.count(r'\+') + (condition != 'control')
  assert obs['guide_working'][order == 0].all()
  for count, expected in ((1, 0.3), (2, 1 - 0.7**2)):
    failed = ~obs['guide_working'][order == count]
    error = np.sqrt(expected * (1 - expected) / len(failed))
    assert abs(failed.mean() - expected) < 4 * error
  assert np.array_equal(obs['guide_working'], effective == condition)
  halves = effective[order == 2].value_counts(normalize=True)
  assert abs(halves['control'] - 0.09) < 0.03
  # Cells whose guide failed have the control's mean; the others do not.
  matrix = _log1p(deep)
  perturbed = condition[
    (order == 1) & ~condition.isin(truth['null_perturbations'])
  ]
  one = condition == perturbed.iloc[0]
  of_type = obs['cell_type'] == 'type0'
  groups = [
    matrix[(mask & of_type).to_numpy()].toarray()
    for mask in (
      one & ~obs['guide_working'],
      one & obs['guide_working'],
      condition == 'control',
    )
  ]
  failed, worked = (
    np.abs(stats.ttest_ind(g, groups[2], equal_var=False).statistic)
    for g in groups[:2]
  )
  assert failed.max() < 5
  assert worked.max() > 10


def test_null_perturbations_do_nothing(default):
  truth = default.uns['simulation']
  mean, variance = _pseudobulk(default)
  null = list(truth['null_perturbations'])
  rows = _rows(default)
  for cell_type in truth['cell_types']:
    control = rows['control', '1', cell_type]
    for name in null:
      row = rows[name, '1', cell_type]
      assert np.all(truth['effect'][row] == 0)
      score = mean[row] - mean[control]
      score = score / np.sqrt(variance[row] + variance[control])
      # Where counts allow the normal approximation.
      usual = mean[control] > 0.5
      assert usual.sum() > 500
      assert 0.9 < score[usual].std() < 1.15
  active = np.setdiff1d(truth['perturbations'], null)
  for name in active:
    assert np.abs(truth['effect'][rows[name, '1', 'type0']]).max() > 0.5


@pytest.mark.parametrize(
  ('mode', 'sign'), [('activation', 1), ('knockdown', -1)]
)
def test_the_perturbed_gene_moves(mode, sign):
  adata = simulate.simulate(
    mode=mode, num_cells=400, num_genes=200, effect_scale=0.0, num_doubles=0,
    genes_per_program=10,
  )  # fmt: skip
  truth, rows = adata.uns['simulation'], _rows(adata)
  assert set(truth['perturbations']) <= set(adata.var_names)
  assert set(truth['perturbations']) == set(
    adata.var_names[adata.var['perturbed']]
  )
  for name in np.setdiff1d(truth['perturbations'], truth['null_perturbations']):
    effect = truth['effect'][rows[name, '1', 'type1']]
    column = adata.var_names.get_loc(name)
    assert 0.5 < sign * effect[column] < 2.5
    assert np.count_nonzero(effect) == 1


def test_doses_order_effects_and_label_cells():
  doses = (0.1, 1.0, 10.0)
  adata = simulate.tiny(seed=1, doses=doses[::-1], epistasis=0.0)
  truth, rows = adata.uns['simulation'], _rows(adata)
  assert set(adata.obs['dose']) == {'0.1', '1', '10', '10+10'}
  is_double = adata.obs['condition'].astype(str).str.contains('+', regex=False)
  assert set(adata.obs['dose'][is_double]) == {'10+10'}
  for k, name in enumerate(truth['perturbations']):
    effects = [truth['effect'][rows[name, f'{d:g}', 'type0']] for d in doses]
    sizes = [np.linalg.norm(e) for e in effects]
    if truth['null'][k]:
      assert sizes == [0, 0, 0]
      continue
    assert sizes[0] < sizes[1] < sizes[2]
    factor = simulate_world.hill(
      np.array(doses), truth['ec50'][k], truth['slope'][k]
    )
    for effect, f in zip(effects, factor, strict=True):
      np.testing.assert_allclose(effect, effects[1] * f, atol=1e-5)
  # Doubles are sums of singles at their own dose.
  for row, singles, _ in _doubles(adata):
    np.testing.assert_allclose(
      truth['effect'][row], truth['effect'][list(singles)].sum(0), atol=1e-5
    )


def test_doses_are_constant_where_none_are_asked_for(default):
  single = ~default.obs['condition'].str.contains('+', regex=False)
  assert set(default.obs['dose'][single]) == {'1'}
  assert set(default.obs['dose'][~single]) == {'1+1'}


def test_controls_in_every_context_and_conditions_in_every_type(default, tiny):
  for adata in (default, tiny):
    control = adata.obs[adata.obs['condition'] == 'control']
    table = pd.crosstab(control['cell_type'], control['batch'])
    assert table.shape == (2, 2)
    assert table.to_numpy().min() >= len(control) // 4 - 1
    table = pd.crosstab(adata.obs['condition'], adata.obs['cell_type'])
    assert table.to_numpy().min() >= 1
    assert len(adata) == table.to_numpy().sum()
  assert (default.obs['condition'] == 'control').sum() == 2_000
  # Batches are even within conditions.
  table = pd.crosstab(_row_of_cells(default), default.obs['batch'])
  assert np.ptp(table.to_numpy(), axis=1).max() <= 1


def test_programs_are_the_gene_sets(default):
  truth, sets = default.uns['simulation'], default.uns['gene_sets']
  assert list(sets) == [f'program_{i}' for i in range(20)]
  members = default.varm['program_members']
  loadings = default.varm['program_loadings']
  assert np.array_equal(members, loadings != 0)
  for i, names in enumerate(sets.values()):
    assert set(names) == set(default.var_names[members[:, i]])
    assert 160 <= len(names) <= 170
  # A perturbed gene is a member of the programs that it moves.
  column = default.var_names.get_indexer(truth['perturbations'])
  targets = truth['targets'] > 0
  assert np.array_equal(members[column], targets)
  moved = np.any(truth['direct'] != 0, axis=0)
  assert np.array_equal(moved, targets & ~truth['null'][:, None])
  # What it moves beyond, it moves through the graph.
  total = np.linalg.inv(np.eye(20) - truth['graph'])
  row = _rows(default)[truth['perturbations'][0], '1', 'type1']
  np.testing.assert_allclose(
    truth['activity'][row], truth['direct'][1, 0] @ total, atol=1e-5
  )
  power = np.linalg.matrix_power(truth['graph'], 20)
  assert np.all(power == 0)


def test_cell_types_respond_alike_where_specificity_is_zero():
  responses = []
  for specificity in (0.0, 0.3, 1.0):
    adata = simulate.tiny(
      seed=2, specificity=specificity, null_fraction=0.0, num_perturbations=20,
      num_doubles=0,
    )  # fmt: skip
    first, second = adata.uns['simulation']['direct']
    responses.append(np.corrcoef(first.ravel(), second.ravel())[0, 1])
  np.testing.assert_allclose(responses[0], 1)
  assert 0.99 > responses[1] > 0.5 > abs(responses[2])


def test_default_effects_are_sparse_with_a_strong_minority(default):
  truth = default.uns['simulation']
  single = np.array(
    [c != 'control' and '+' not in c for c in truth['row_condition']]
  )
  fold = np.abs(truth['effect'][single]) / np.log(2)
  changed = (fold > 0.25).sum(axis=1)
  assert 30 < np.median(changed) < 400
  assert np.quantile(changed, 0.1) < 60
  assert np.quantile(changed, 0.9) > 300
  assert fold.max() < 9


def test_default_additive_baseline_beats_no_change(default):
  mean, _ = _pseudobulk(default)
  errors, scores = [], []
  for row, singles, control in _doubles(default):
    delta = mean - mean[control]
    additive = delta[list(singles)].sum(axis=0)
    errors.append(
      [((delta[row] - additive) ** 2).mean(), (delta[row] ** 2).mean()]
    )
    scores.append(np.corrcoef(delta[row], additive)[0, 1])
  additive, none = np.mean(errors, axis=0)
  assert additive < 0.7 * none
  assert np.median(scores) > 0.5


def test_library_sizes_and_dispersions_are_those_of_real_screens(default):
  library = np.asarray(default.X.sum(axis=1)).ravel()
  # Sd of log depth: 0.35 and 0.41 in two K562 screens, 0.66 in one of
  # glioblastoma lines.
  assert 0.3 < np.log(library).std() < 0.7
  np.testing.assert_allclose(np.median(library), 4_000, rtol=0.15)
  density = default.X.nnz / np.prod(default.X.shape)
  assert 0.03 < density < 0.5
  assert 1 < np.median(default.var['size']) < 6
  # Overdispersion as it is measured: method of moments on the controls of one
  # type and batch, expected counts at each cell's depth.
  obs = default.obs
  chosen = (
    (obs['condition'] == 'control')
    & (obs['cell_type'] == 'type0')
    & (obs['batch'] == 'batch0')
  )
  counts = default.X[chosen.to_numpy()].toarray().astype(np.float64)
  depth = counts.sum(axis=1, keepdims=True)
  expected = depth * counts.sum(axis=0) / counts.sum()
  excess = ((counts - expected) ** 2 - expected).sum(axis=0)
  dispersion = excess / (expected**2).sum(axis=0)
  usual = (expected.mean(axis=0) > 1) & (expected.mean(axis=0) < 50)
  assert usual.sum() > 300
  assert 0.15 < np.median(dispersion[usual]) < 1.0
  truth = 1 / default.var['size'].to_numpy()[usual]
  assert stats.spearmanr(dispersion[usual], truth).statistic > 0.7
