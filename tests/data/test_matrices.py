"""Matrices of every kind, and those that are refused."""

import anndata
import numpy as np
import pytest
from scipy import sparse
from small_adata import PERTURBENCH, make, refused, take

from pertjax.data import h5ad, matrices


@pytest.mark.parametrize(
  'change',
  [
    lambda x: x.toarray(),
    sparse.csc_matrix,
    sparse.csr_array,
    lambda x: x.astype(np.float64),
    lambda x: x.astype(np.int64),
  ],
  ids=['dense', 'csc', 'array', 'float64', 'int64'],
)
def test_every_kind_of_matrix_gives_the_same_dataset(change):
  reference = take(make())
  adata = make()
  adata.X = change(adata.X)
  raw = take(adata)
  assert raw.X.dtype == np.float32
  np.testing.assert_array_equal(raw.X.toarray(), reference.X.toarray())
  assert raw.fingerprint == reference.fingerprint


def test_stored_zeros_and_unsorted_indices_do_not_matter_nor_change_the_input():
  adata = make(3, 3, obs=make(3).obs)
  messy = sparse.csr_matrix(
    (
      np.array([2, 1, 0, 5, 3], np.float32),
      np.array([2, 0, 1, 1, 0]),
      np.array([0, 3, 4, 5]),
    ),
    shape=(3, 3),
  )
  adata.obs['condition'] = ['control', 'A', 'B']
  adata.obs['cell_type'] = 'k'
  adata.X = messy
  before = adata.X.indices.copy(), adata.X.data.copy()
  raw = take(adata)
  assert raw.X.nnz == 4
  assert raw.X.indices.tolist() == [0, 2, 1, 0]
  np.testing.assert_array_equal(adata.X.indices, before[0])
  np.testing.assert_array_equal(adata.X.data, before[1])
  tidy = adata.copy()
  tidy.X = sparse.csr_matrix(messy.toarray())
  assert take(tidy).fingerprint == raw.fingerprint


@pytest.mark.parametrize('dense', [False, True])
def test_dense_files_and_backed_data(tmp_path, monkeypatch, dense):
  adata = make()
  reference = take(adata).fingerprint
  if dense:
    adata.X = adata.X.toarray()
    monkeypatch.setattr(
      matrices, '_BLOCK_BYTES', 100
    )  # Several blocks of rows.
  path = tmp_path / 'x.h5ad'
  adata.write_h5ad(path)
  raw = h5ad.read(path, convention=PERTURBENCH, scale='counts')
  assert raw.fingerprint == reference
  backed = anndata.read_h5ad(path, backed='r')
  try:
    assert take(backed).fingerprint == reference
  finally:
    backed.file.close()


@pytest.mark.parametrize(
  ('value', 'words'),
  [
    (np.nan, "1 values are NaN, the first .*cell 'cell5', gene 'G0'"),
    (np.inf, "1 values are infinite.*'cell5', gene 'G0'"),
    (-1.0, "1 values are negative.*'cell5', gene 'G0'"),
  ],
)
@pytest.mark.parametrize('scale', matrices.SCALES)
def test_impossible_values(value, words, scale):
  adata = make()
  values = adata.X.toarray()
  values[5, 0] = value
  adata.X = sparse.csr_matrix(values)
  refused(adata, words, scale=scale)


def test_float64_beyond_float32_is_infinite_and_refused():
  adata = make()
  adata.X = adata.X.astype(np.float64)
  adata.X.data[0] = 1e300
  refused(adata, 'infinite')


def test_scale_is_checked():
  adata = make()
  refused(adata, r'max 4, 100.00% integers.*looks like counts', scale='log1p')
  logged = make()
  logged.X = np.log1p(logged.X * 0.7)
  logged.layers['raw'] = make().X
  refused(logged, "looks like log1p values.*layers: 'raw'")
  unlogged = make()
  unlogged.X = unlogged.X * 33.3
  refused(unlogged, 'without a logarithm', scale='log1p')
  refused(unlogged, 'without a logarithm')
  refused(make(), "scale: 'raw'; allowed: counts, log1p", scale='raw')
