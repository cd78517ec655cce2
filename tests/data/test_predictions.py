"""Predictions as files."""

import json

import anndata
import handmade
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from pertjax.data import conventions, predictions

GENES = ('g0', 'g1', 'g2')
CONVENTION = conventions.make('perturbench', covariates=('kind',))


@pytest.fixture(scope='module')
def spec():
  return handmade.screen(genes=3, copies=3)[1]


def _write(path, **changes):
  arguments = {
    'values': np.float32([[1, 2, 3], [4, 5, 6]]),
    'columns': {
      'condition': ['A+B', 'A+C'],
      'kind': ['x', 'y'],
      'control_cell': ['cell3', 'cell7'],
    },
    'genes': GENES,
    'provenance': {'model': 'm', 'members': [0, 1]},
    **changes,
  }
  predictions.write_predictions(path, **arguments)


def test_write_predictions(tmp_path):
  path = tmp_path / 'new' / 'predictions.h5ad'
  spread = np.float32([[0.1, 0.2, 0.3], [0, 0, 0]])
  _write(path, spread=spread)
  adata = anndata.read_h5ad(path)
  np.testing.assert_array_equal(adata.X, [[1, 2, 3], [4, 5, 6]])
  assert adata.X.dtype == np.float32
  np.testing.assert_array_equal(adata.layers['seed_sd'], spread)
  assert list(adata.obs_names) == ['A+B|x|cell3', 'A+C|y|cell7']
  assert list(adata.var_names) == list(GENES)
  assert adata.obs['condition'].tolist() == ['A+B', 'A+C']
  assert adata.obs['kind'].tolist() == ['x', 'y']
  assert json.loads(adata.uns['pertjax']) == {'model': 'm', 'members': [0, 1]}
  _write(path)
  assert not anndata.read_h5ad(path).layers


def test_the_same_predictions_are_the_same_bytes(tmp_path):
  _write(tmp_path / 'a.h5ad', provenance={'b': 1, 'a': 2})
  _write(tmp_path / 'b.h5ad', provenance={'a': 2, 'b': 1})
  a, b = ((tmp_path / f'{x}.h5ad').read_bytes() for x in 'ab')
  assert a == b


def test_a_prediction_of_no_cell_is_a_file(tmp_path):
  _write(
    tmp_path / 'a.h5ad',
    values=np.zeros((0, 3), np.float32),
    columns={'condition': [], 'kind': [], 'control_cell': []},
  )
  assert anndata.read_h5ad(tmp_path / 'a.h5ad').shape == (0, 3)


def test_a_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
  path = tmp_path / 'predictions.h5ad'
  _write(path)
  old = path.read_bytes()

  def full(self, name, **kwargs):
    name.write_bytes(b'half')
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr(anndata.AnnData, 'write_h5ad', full)
  with pytest.raises(OSError, match='predictions.h5ad could not be written'):
    _write(path, values=np.zeros((2, 3), np.float32))
  assert path.read_bytes() == old
  assert [p.name for p in tmp_path.iterdir()] == ['predictions.h5ad']


def test_write_arrays(tmp_path):
  path = tmp_path / 'eval' / 'profiles.npz'
  predictions.write_arrays(path, a=np.arange(3), b=np.asarray(['x', 'y']))
  found = np.load(path)
  np.testing.assert_array_equal(found['a'], [0, 1, 2])
  assert found['b'].tolist() == ['x', 'y']
  assert [p.name for p in path.parent.iterdir()] == ['profiles.npz']


def _file(path, values, obs, genes=GENES, **slots):
  adata = anndata.AnnData(
    values,
    obs=pd.DataFrame(obs, index=[f'c{i}' for i in range(values.shape[0])]),
    var=pd.DataFrame(index=list(genes)),
    **slots,
  )
  adata.write_h5ad(path)
  return path


def _random_obs(count=20):
  random = np.random.default_rng(0)
  return {
    'condition': random.choice(['A+B', 'C+A', 'control', 'A+control'], count),
    'kind': random.choice(['x', 'y'], count),
  }


@pytest.mark.parametrize('form', [np.asarray, sparse.csr_matrix])
def test_read_means(tmp_path, spec, form):
  values = np.random.default_rng(1).poisson(1, (20, 3)).astype(np.float32)
  obs = _random_obs()
  path = _file(tmp_path / 'p.h5ad', form(values), obs)
  means = predictions.read_means(path, spec, CONVENTION)
  canonical = {'C+A': 'A+C', 'A+control': 'A'}
  names = [canonical.get(c, c) for c in obs['condition']]
  expected = {
    (name, (kind,)): [
      row for row, n, k in zip(values, names, obs['kind'])
      if (n, k) == (name, kind)
    ]
    for name, kind in zip(names, obs['kind'])
  }  # fmt: skip
  assert set(means.pairs) == set(expected)
  for pair, rows in expected.items():
    np.testing.assert_allclose(means.pairs[pair], np.mean(rows, 0), rtol=1e-6)
    assert means.pairs[pair].dtype == np.float32
  assert means.notes == ()


def test_genes_are_matched_by_name(tmp_path, spec):
  obs = {'condition': ['A+B'], 'kind': ['x']}
  path = _file(
    tmp_path / 'p.h5ad',
    np.float32([[9, 2, 1, 0]]),
    obs,
    ('z', 'g2', 'g1', 'g0'),
  )
  means = predictions.read_means(path, spec, CONVENTION)
  np.testing.assert_array_equal(means.pairs['A+B', ('x',)], [0, 1, 2])
  assert means.notes == ('p.h5ad: genes were reordered by name',)
  # A gene too many, at the end, moves none.
  path = _file(
    tmp_path / 'q.h5ad', np.float32([[0, 1, 2, 9]]), obs, (*GENES, 'z')
  )
  means = predictions.read_means(path, spec, CONVENTION)
  np.testing.assert_array_equal(means.pairs['A+B', ('x',)], [0, 1, 2])
  assert means.notes == ()
  path = _file(tmp_path / 'r.h5ad', np.float32([[0, 1]]), obs, ('g1', 'z'))
  with pytest.raises(
    ValueError, match="lacks 2 of 3 genes: 'g0', 'g2'; it has"
  ):
    predictions.read_means(path, spec, CONVENTION)


@pytest.mark.filterwarnings('ignore:Variable names are not unique')
def test_a_gene_with_two_columns_is_refused(tmp_path, spec):
  obs = {'condition': ['A+B'], 'kind': ['x']}
  path = _file(
    tmp_path / 'p.h5ad', np.float32([[0, 1, 2, 9]]), obs, (*GENES, 'g1')
  )
  with pytest.raises(ValueError, match="more than one column for 'g1'"):
    predictions.read_means(path, spec, CONVENTION)


def test_values_must_be_finite(tmp_path, spec):
  obs = {'condition': ['A+B', 'A+B'], 'kind': ['x', 'y']}
  values = np.float32([[0, np.nan, 2], [np.inf, 1, 1]])
  path = _file(tmp_path / 'p.h5ad', values, obs)
  with pytest.raises(ValueError, match='2 values are NaN or infinite'):
    predictions.read_means(path, spec, CONVENTION)


def test_columns_must_be_there(tmp_path, spec):
  path = _file(tmp_path / 'p.h5ad', np.zeros((1, 3)), {'condition': ['A+B']})
  with pytest.raises(ValueError, match=r"obs has no \['kind'\]; it has"):
    predictions.read_means(path, spec, CONVENTION)
  with pytest.raises(FileNotFoundError, match='eval.predictions=.*absent.h5ad'):
    predictions.read_means(tmp_path / 'absent.h5ad', spec, CONVENTION)


def test_other_labels_and_doses(tmp_path, spec):
  convention = conventions.make('gears', covariates=('kind',), dose_key='dose')
  obs = {
    'condition': ['B+ctrl', 'ctrl', 'A+B'],
    'kind': ['x', 'x', 'x'],
    'dose': ['2+0', '0', '1+0.5'],
  }
  path = _file(tmp_path / 'p.h5ad', np.eye(3), obs)
  means = predictions.read_means(path, spec, convention)
  assert set(means.pairs) == {
    ('B@2', ('x',)), ('control', ('x',)), ('A+B@0.5', ('x',))
  }  # fmt: skip


def test_without_covariates(tmp_path):
  _, spec = handmade.dataset(np.eye(3), ['control', 'A', 'B'])
  path = _file(tmp_path / 'p.h5ad', np.eye(3), {'condition': ['A', 'A', 'B']})
  means = predictions.read_means(
    path, spec, conventions.make('perturbench', covariates=())
  )
  assert set(means.pairs) == {('A', ()), ('B', ())}


def test_our_own_files_are_read_back(tmp_path, spec):
  """Canonical names, whatever the naming convention of the data."""
  path = tmp_path / 'p.h5ad'
  origin = {
    'data_fingerprint': spec.fingerprint, 'split_sha256': spec.split.sha256
  }  # fmt: skip
  columns = {
    'condition': ['A+B', 'A@0.5'],
    'kind': ['x', 'y'],
    'control_cell': ['cell3', 'cell7'],
  }
  _write(path, provenance=origin, columns=columns)
  convention = conventions.make('scperturb', covariates=('kind',))
  means = predictions.read_means(path, spec, convention)
  np.testing.assert_array_equal(means.pairs['A+B', ('x',)], [1, 2, 3])
  np.testing.assert_array_equal(means.pairs['A@0.5', ('y',)], [4, 5, 6])
  assert means.notes == ()
  _write(path, provenance={**origin, 'split_sha256': 'another'})
  (note,) = predictions.read_means(path, spec, convention).notes
  assert 'with another split' in note
  _write(path, provenance={**origin, 'data_fingerprint': 'another'})
  (note,) = predictions.read_means(path, spec, convention).notes
  assert 'other data' in note
