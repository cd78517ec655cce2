"""The front door: what is scored, in which order, and what is said of it."""

import math

import anndata
import numpy as np
import pandas as pd
import pytest
import toy_adata
from numpy import testing
from scipy import sparse

from pertjax.metrics import anndata as front
from pertjax.metrics import summary
from pertjax.metrics.conventions import base
from pertjax.metrics.differential import engines

KEYS = toy_adata.KEYS


@pytest.fixture(autouse=True)
def _known(monkeypatch):
  toy_adata.only_known(monkeypatch)


def score(observed=None, predicted=None, **options):
  """Scores and returns (table, notes)."""
  options = {'convention': 'toy', **KEYS, **options}
  observed = toy_adata.made() if observed is None else observed
  predicted = toy_adata.made('predicted') if predicted is None else predicted
  options.setdefault('say', [].append)
  table = front.score(observed, predicted, **options)
  return table, table.attrs['notes']


def values_of(table, metric='mse'):
  found = table[(table['metric'] == metric) & (table['level'] == 'condition')]
  return found.set_index('condition')['value']


def aggregate(table, metric='mse', covariate=''):
  (line,) = table[
    (table['metric'] == metric)
    & (table['level'] == 'aggregate')
    & (table['covariate'] == covariate)
  ].itertuples()
  return line


def said(notes, text):
  return [note for note in notes if text in note]


@pytest.fixture(scope='module')
def plain():
  with pytest.MonkeyPatch.context() as patch:
    toy_adata.only_known(patch)
    return score()[0]


def test_table(plain):
  assert tuple(plain.columns) == summary.FIELDS
  assert values_of(plain).index.tolist() == [
    'DRUGX', 'G03', 'G07', 'G11', 'G16', 'NULLP',
  ]  # fmt: skip
  observed, predicted = (toy_adata.made(s) for s in ('observed', 'predicted'))
  means = [
    a[a.obs['condition'] == 'G07'].X.mean(0) for a in (observed, predicted)
  ]
  assert values_of(plain)['G07'] == pytest.approx(
    float(np.square(means[0] - means[1]).mean()), rel=1e-5
  )
  line = aggregate(plain)
  assert line.value == pytest.approx(values_of(plain).mean())
  assert line.low < line.value < line.high
  assert (line.used, line.dropped, line.reason) == (6, 0, '')


# ----------------------------------------------------------------------------
# However the matrix is stored.


def stored(how, adata):
  X = adata.X
  if how in ('float16', 'float64'):
    return X.astype(how)
  if how == 'unsorted':
    made = sparse.csr_matrix(X)
    for a, b in zip(made.indptr, made.indptr[1:]):
      made.data[a:b] = made.data[a:b][::-1].copy()
      made.indices[a:b] = made.indices[a:b][::-1].copy()
    made.has_sorted_indices = False
    return made
  if how == 'stored zeros':
    made = sparse.csr_matrix(np.where(X == 0, 9, X))
    made.data[made.data == 9] = 0
    return made
  made = {
    'csr': sparse.csr_matrix,
    'csc': sparse.csc_matrix,
    'csr_array': sparse.csr_array,
    'csc_array': sparse.csc_array,
    'int64': sparse.csr_matrix,
    'fortran': np.asfortranarray,
  }[how](X)
  if how == 'int64':
    made.indices, made.indptr = (
      x.astype(np.int64) for x in (made.indices, made.indptr)
    )
  return made


@pytest.mark.parametrize(
  'how',
  [
    'csr', 'csc', 'csr_array', 'csc_array', 'int64', 'unsorted',
    'stored zeros', 'float64', 'float16', 'fortran',
  ],
)  # fmt: skip
def test_the_same_however_it_is_stored(plain, how):
  sides = []
  for side in ('observed', 'predicted'):
    adata = toy_adata.made(side)
    adata.X = stored(how, adata)
    sides.append(adata)
  before = [a.copy() for a in sides]
  table, _ = score(*sides)
  testing.assert_allclose(
    values_of(table), values_of(plain), rtol=2e-2 if how == 'float16' else 1e-6
  )
  for a, b in zip(before, sides):
    testing.assert_array_equal(
      *(x.toarray() if sparse.issparse(x) else x for x in (a.X, b.X))
    )
    assert a.X.dtype == b.X.dtype
    assert type(a.X) is type(b.X)
    pd.testing.assert_frame_equal(a.obs, b.obs)


@pytest.mark.parametrize('dtype', [np.uint8, np.int32, np.int64, np.float64])
def test_counts_of_any_type(dtype):
  sides = [toy_adata.counts(s) for s in ('observed', 'predicted')]
  expected, notes = score(*sides, control='non-targeting')
  assert said(notes, 'both sides hold counts')
  for adata in sides:
    adata.X = adata.X.astype(dtype)
  table, _ = score(*sides, control='non-targeting')
  testing.assert_allclose(values_of(table), values_of(expected), rtol=1e-12)


def test_bool_values_are_counts():
  observed, predicted = (toy_adata.counts(s) for s in ('observed', 'predicted'))
  for adata in (observed, predicted):
    adata.X = adata.X > 20
  table, notes = score(observed, predicted, control='non-targeting')
  assert said(notes, 'both sides hold counts')
  assert not values_of(table).isna().any()


def test_normalise():
  raw = [toy_adata.counts(s) for s in ('observed', 'predicted')]
  done = [a.copy() for a in raw]
  for adata in done:
    whole = adata.X.sum(1, keepdims=True)
    adata.X = np.log1p(adata.X * (1e4 / whole))
  options = {'control': 'non-targeting', 'convention': 'logs'}
  expected, _ = score(*done, **options)
  for kind in (np.asarray, sparse.csr_matrix, sparse.csr_array):
    for adata in raw:
      adata.X = kind(toy_adata.counts().X) if adata is raw[0] else kind(
        toy_adata.counts('predicted').X)  # fmt: skip
    table, notes = score(*raw, normalise=1e4, **options)
    testing.assert_allclose(values_of(table), values_of(expected), rtol=1e-4)
    assert said(notes, '10000 a cell') or said(notes, '1e+04 a cell')


def test_layers(plain):
  observed, predicted = (toy_adata.made(s) for s in ('observed', 'predicted'))
  for adata in (observed, predicted):
    adata.layers['logs'] = adata.X.copy()
    adata.X = np.full(adata.shape, 7, np.float32)
  table, _ = score(observed, predicted, layer='logs', predicted_layer='logs')
  testing.assert_array_equal(values_of(table), values_of(plain))
  observed.X = None
  table, _ = score(observed, predicted, layer='logs', predicted_layer='logs')
  testing.assert_array_equal(values_of(table), values_of(plain))


def test_views_and_categories(plain):
  """Unused categories are no conditions, and a view is as good as a copy."""
  sides = []
  for side in ('observed', 'predicted'):
    adata = toy_adata.made(side)
    more = toy_adata.made(side)
    more.obs['condition'] = 'ELSEWHERE'
    more.obs_names = [f'more{i}' for i in range(more.n_obs)]
    both = anndata.concat([adata, more])
    both.obs['condition'] = both.obs['condition'].astype('category')
    sides.append(both[both.obs['condition'] != 'ELSEWHERE'])
    assert sides[-1].is_view
  table, notes = score(*sides)
  testing.assert_allclose(values_of(table), values_of(plain), rtol=1e-12)
  assert not said(notes, 'differ:')
  for side in sides:
    assert side.is_view


# ----------------------------------------------------------------------------
# Genes and conditions.


def test_genes_in_another_order(plain):
  order = np.random.default_rng(0).permutation(72)
  table, notes = score(predicted=toy_adata.made('predicted')[:, order].copy())
  testing.assert_allclose(values_of(table), values_of(plain), rtol=1e-12)
  assert said(notes, 'predicted: genes were reordered by name')


def test_cells_in_another_order(plain):
  order = np.random.default_rng(0).permutation(87)
  table, _ = score(predicted=toy_adata.made('predicted')[order].copy())
  testing.assert_allclose(values_of(table), values_of(plain), rtol=1e-12)


def test_shared_genes():
  observed = toy_adata.made()[:, :50].copy()
  predicted = toy_adata.made('predicted')[:, 20:].copy()
  table, notes = score(observed, predicted, genes='shared')
  expected, _ = score(
    toy_adata.made()[:, 20:50].copy(),
    toy_adata.made('predicted')[:, 20:50].copy(),
  )
  testing.assert_allclose(values_of(table), values_of(expected), rtol=1e-12)
  (note,) = said(notes, 'genes differ')
  assert "lacks 20 of 50 observed genes ('G00', 'G01'" in note
  assert 'has 22 that were not observed' in note


def test_shared_conditions_are_counted():
  predicted = toy_adata.made('predicted')
  kept = ~predicted.obs['condition'].isin(['G03', 'NULLP'])
  predicted = predicted[kept].copy()
  predicted.obs['condition'] = predicted.obs['condition'].replace('G16', 'NEW')
  with pytest.warns(front.ScoreWarning, match='lacks 3 that were observed'):
    table, notes = score(predicted=predicted, conditions='shared', say=None)
  assert said(notes, "('G03', 'G16', 'NULLP') and has 1 that were not ('NEW')")
  line = aggregate(table)
  assert (line.used, line.dropped, line.reason) == (3, 3, '3: not predicted')
  lost = table[(table['metric'] == 'mse') & (table['condition'] == 'G16')]
  assert lost['reason'].tolist() == ['not predicted']
  assert lost['value'].isna().all()
  assert aggregate(table, 'total').dropped == 3


def types(side):
  """Fixture A in two cell types; the second is another draw of cells."""
  first, second = toy_adata.made(side), toy_adata.made(side)
  second.X = second.X[:, ::-1].copy()
  first.obs['cell_type'], second.obs['cell_type'] = 'k', 'l'
  second.obs_names = [f'l{i}' for i in range(second.n_obs)]
  return anndata.concat([first, second])


def test_covariates(plain):
  sides = [types(side) for side in ('observed', 'predicted')]
  table, _ = score(*sides, covariate_keys='cell_type')
  assert aggregate(table, 'mse', 'k').value == pytest.approx(
    aggregate(plain).value
  )
  assert aggregate(table).used == 12
  assert aggregate(table, 'mse', 'l').used == 6
  again, _ = score(*sides, covariate_keys=['cell_type'])
  pd.testing.assert_frame_equal(table, again)


def test_a_group_without_controls():
  observed, predicted = (types(side) for side in ('observed', 'predicted'))
  bare = (observed.obs['cell_type'] == 'l') & (
    observed.obs['condition'] == 'ctrl'
  )
  observed = observed[~bare].copy()
  options = {'covariate_keys': ('cell_type',)}
  with pytest.raises(ValueError, match=r"'ctrl' in the group\(s\) 'l', which"):
    score(observed, predicted, **options)
  table, notes = score(observed, predicted, conditions='shared', **options)
  assert said(notes, 'which have 6 condition(s): they are left out')
  line = aggregate(table)
  assert (line.used, line.dropped) == (6, 6)
  assert line.reason == '6: without observed controls in their group'
  assert math.isnan(aggregate(table, 'mse', 'l').value)


# ----------------------------------------------------------------------------
# Controls, and what is said.


def test_predicted_controls_are_told():
  _, notes = score()
  (note,) = said(notes, '18 control cells')
  assert 'which are not the observed ones: their means differ by up to' in note
  assert said(notes, 'toy: predicted changes start from predicted controls')
  predicted = toy_adata.made('predicted')
  same = predicted.copy()
  at = (same.obs['condition'] == 'ctrl').to_numpy()
  same.X[at] = toy_adata.made().X[at]
  _, notes = score(predicted=same)
  assert said(notes, '18 control cells with the means of the observed ones')
  _, notes = score(predicted=predicted[~at].copy())
  assert said(notes, 'predicted: there are no control cells')
  assert said(notes, 'from observed ones in the others, which have none')
  _, notes = score(convention='gears', metrics=['mse'])
  assert said(notes, 'gears: predicted changes start from observed controls')


def test_the_same_cells_twice(tmp_path):
  adata = toy_adata.made()
  with pytest.warns(front.ScoreWarning, match='are the same cells'):
    table, _ = score(adata, adata, say=None)
  testing.assert_array_equal(values_of(table), 0)
  testing.assert_allclose(values_of(table, 'pearson_delta'), 1)
  adata.write_h5ad(tmp_path / 'a.h5ad')
  paths = tmp_path / 'a.h5ad', str(tmp_path / '..' / tmp_path.name / 'a.h5ad')
  again, notes = score(*paths)
  assert said(notes, 'are the same cells')
  pd.testing.assert_frame_equal(again, table)


def test_engine_and_what_it_says():
  options = {'convention': 'perturbench', 'metrics': ['pearson_logp']}
  found = {}
  for engine in ('jax', 'auto'):
    table, notes = score(engine=engine, **options)
    (note,) = said(notes, 'differential expression by')
    found[engine] = values_of(table, 'pearson_logp')
    if engine == 'jax':
      assert 'by jax: as asked' in note
  testing.assert_allclose(found['jax'], found['auto'], rtol=1e-9)
  with pytest.raises(ValueError, match="engine is 'numpy'|engine.*'numpy'"):
    score(engine='numpy')


def test_a_missing_engine_is_an_error_at_once(monkeypatch):
  def nothing():
    raise ImportError('illico is not installed')

  monkeypatch.setattr(engines.kernels, 'load', nothing)
  with pytest.raises(ImportError, match='illico is not installed'):
    score(engine='illico')


def test_several_models_and_conventions(plain):
  models = {'a': toy_adata.made('predicted'), 'b': toy_adata.made()}
  table, notes = score(
    predicted=models, convention=['toy', 'gears'], metrics=['mse']
  )
  assert table.columns[0] == 'model'
  testing.assert_allclose(
    values_of(table[(table['model'] == 'a') & (table['convention'] == 'toy')]),
    values_of(plain),
  )
  at_b = table[(table['model'] == 'b') & (table['convention'] == 'gears')]
  testing.assert_allclose(values_of(at_b), 0, atol=1e-12)
  assert said(notes, 'a: both sides hold log1p')
  assert said(notes, 'b: toy: predicted')
  assert len(notes) == len(set(notes))


def test_models_do_not_share_what_differs():
  """Each model is scored on its own genes and conditions."""
  short = toy_adata.made('predicted')[:, :40].copy()
  few = toy_adata.made('predicted')
  few = few[few.obs['condition'] != 'G03'].copy()
  models = {'whole': toy_adata.made('predicted'), 'short': short, 'few': few}
  options = {'genes': 'shared', 'conditions': 'shared'}
  table, _ = score(predicted=models, **options)
  for name, model in models.items():
    alone, _ = score(predicted=model, **options)
    own = table[table['model'] == name].drop(columns='model')
    pd.testing.assert_frame_equal(own.reset_index(drop=True), alone)


# ----------------------------------------------------------------------------
# Predictions that say little.


def test_constant_prediction():
  constant = toy_adata.made('predicted')
  constant.X[:] = 1
  table, notes = score(predicted=constant)
  assert said(notes, 'predicted: the same value everywhere')
  line = aggregate(table, 'pearson_delta')
  assert math.isnan(line.value)
  assert (line.used, line.dropped) == (0, 6)
  assert line.reason == '6: a side has no change'
  assert aggregate(table).used == 6
  table, _ = score(
    predicted=constant,
    convention='perturbench',
    metrics=['mse_rank_average', 'pearson_average', 'pearson_logp'],
  )
  # Ties everywhere: every rank in the middle, n - 1 of 2 n.
  testing.assert_allclose(values_of(table, 'mse_rank_average'), 5 / 12)
  for name in ('pearson_average', 'pearson_logp'):
    line = aggregate(table, name)
    assert line.used + line.dropped == 6
    assert line.dropped == 6
    assert 'constant' in line.reason


def test_nothing_is_significant():
  """The control as prediction: no gene changes, and every value is told."""
  observed = toy_adata.made()
  still = observed.copy()
  control = observed.X[(observed.obs['condition'] == 'ctrl').to_numpy()]
  for name in still.obs['condition'].unique():
    at = np.flatnonzero(still.obs['condition'] == name)
    still.X[at] = control[: len(at)]
  table, _ = score(observed, still, convention='perturbench')
  each = table[table['level'] == 'aggregate']
  assert ((each['used'] + each['dropped']) == 6).all()
  assert (each['reason'].ne('') == each['dropped'].gt(0)).all()
  known = each[each['used'] > 0]
  assert np.isfinite(known['value']).all()


def test_one_condition():
  sides = [toy_adata.made(side) for side in ('observed', 'predicted')]
  sides = [a[a.obs['condition'].isin(['ctrl', 'G07'])].copy() for a in sides]
  with pytest.warns(front.ScoreWarning, match='have one condition only'):
    table, _ = score(*sides, say=None)
  line = aggregate(table)
  assert (line.used, line.dropped) == (1, 0)
  assert math.isnan(line.low)


def test_single_cells():
  predicted = toy_adata.made('predicted')
  first = ~predicted.obs['condition'].duplicated()
  predicted = predicted[first].copy()
  with pytest.warns(
    front.ScoreWarning, match='6 condition.s. have fewer than 2 predicted cells'
  ):
    table, _ = score(
      predicted=predicted,
      convention=['toy', 'perturbench'],
      metrics=['mse', 'pearson_logp'],
      say=None,
    )
  assert aggregate(table).used == 6
  line = aggregate(table, 'pearson_logp')
  assert line.used + line.dropped == 6


def test_cells_with_the_same_name(plain):
  observed = toy_adata.made()
  observed.obs_names = ['same'] * observed.n_obs
  table, notes = score(observed)
  testing.assert_array_equal(values_of(table), values_of(plain))
  assert said(notes, '86 cells have the name of another cell')


# ----------------------------------------------------------------------------
# Rankings that the file carries.


def ranked():
  """Fixture A with GEARS' entries of uns, the strongest genes last."""
  adata = toy_adata.made()
  names = [n for n in adata.obs['condition'].unique() if n != 'ctrl']
  backwards = list(adata.var_names[::-1])
  adata.uns['rank_genes_groups_cov_all'] = {
    f'k_{n}_1+1': np.asarray(backwards, object) for n in names
  }
  adata.uns['non_zeros_gene_idx'] = {
    f'k_{n}_1+1': np.arange(10, 40) for n in names
  }
  return adata


def test_rankings_of_uns():
  options = {'convention': 'gears', 'metrics': ['mse_de', 'mse_top20_de']}
  adata = ranked()
  table, notes = score(adata, **options)
  (note,) = said(notes, "uns['rank_genes_groups_cov_all']")
  assert note.startswith('gears: genes are ranked by the observed uns')
  assert said(notes, "uns['non_zeros_gene_idx']")
  plain_lists = {
    field: {
      key.split('_')[1]: (
        list(row) if row.dtype == object else list(adata.var_names[row])
      )
      for key, row in adata.uns[field].items()
    }
    for field in adata.uns
  }
  given, _ = score(options={'rankings': plain_lists}, **options)
  pd.testing.assert_frame_equal(table, given)
  # What is given goes before what the file has.
  cells, _ = score(**options)
  asked, notes = score(adata, options={'rankings': {}}, **options)
  pd.testing.assert_frame_equal(asked, cells)
  assert not said(notes, 'uns[')
  assert not values_of(cells, 'mse_de').equals(values_of(table, 'mse_de'))
  # A convention that takes none is not told of them.
  _, notes = score(adata)
  assert not said(notes, 'uns[')


def test_rankings_with_genes_that_are_not_scored():
  adata = ranked()
  lists = adata.uns['rank_genes_groups_cov_all']
  adata.uns['rank_genes_groups_cov_all'] = {
    key: np.asarray(['NOBODY', *row], object) for key, row in lists.items()
  }
  _, notes = score(adata, convention='gears', metrics=['mse_de'])
  assert said(notes, "1 of its 73 genes are not scored: 'NOBODY'")


def test_rankings_that_do_not_fit_are_told():
  adata = ranked()
  del adata.uns['rank_genes_groups_cov_all']['k_G03_1+1']
  adata.uns['top_non_zero_de_20'] = 'nothing'
  with pytest.warns(front.ScoreWarning, match='is not used') as caught:
    table, notes = score(
      adata, convention='gears', metrics=['mse_de'], say=None
    )
  assert len(caught) == 2
  assert said(notes, "condition 'G03' has no entry")
  assert said(notes, 'it is a str')
  cells, _ = score(convention='gears', metrics=['mse_de'])
  testing.assert_array_equal(
    values_of(table, 'mse_de'), values_of(cells, 'mse_de')
  )


def test_everything_known_is_a_convention():
  assert {c.name for c in base.conventions()} == {
    c.name for c in toy_adata.KNOWN
  }
