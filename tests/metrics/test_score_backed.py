"""Files that stay on disk: the same numbers, in little memory."""

import anndata
import numpy as np
import pandas as pd
import pytest
import toy_adata
from scipy import sparse

from pertjax.metrics import anndata as front
from pertjax.metrics import sides
from pertjax.metrics.anndata import inputs

KEYS = toy_adata.KEYS
OPTIONS = {
  'convention': ['toy', 'perturbench'],
  'metrics': [
    'mse', 'pearson_delta', 'pearson_average', 'rmse_rank_logfc', 'mse_var',
    'mae_scaled', 'pearson_logp',
  ],
  **KEYS,
}  # fmt: skip


@pytest.fixture(autouse=True)
def _known(monkeypatch):
  toy_adata.only_known(monkeypatch)


def written(folder, kind):
  """Writes both sides with their rows shuffled; returns the paths."""
  paths = []
  for seed, side in enumerate(('observed', 'predicted')):
    adata = toy_adata.made(side)
    order = np.random.default_rng(seed).permutation(adata.n_obs)
    adata = adata[order].copy()
    if kind != 'dense':
      adata.X = sparse.csr_matrix(adata.X)
    if kind == 'csc':
      adata.X = adata.X.tocsc()
    paths.append(folder / f'{side}.h5ad')
    adata.write_h5ad(paths[-1])
  return paths


@pytest.fixture(scope='module')
def in_memory():
  with pytest.MonkeyPatch.context() as patch:
    toy_adata.only_known(patch)
    return front.score(
      toy_adata.made(), toy_adata.made('predicted'), say=[].append, **OPTIONS
    )


@pytest.mark.parametrize('kind', ['dense', 'csr', 'csc'])
def test_the_same_from_a_file(tmp_path, monkeypatch, in_memory, kind):
  monkeypatch.setattr(sides, 'BLOCK_BYTES', 6000)
  for backed in (True, False):
    notes = []
    table = front.score(
      *written(tmp_path, kind), backed=backed, say=notes.append, **OPTIONS
    )
    pd.testing.assert_frame_equal(table, in_memory, rtol=1e-6, atol=1e-9)
    stay = [n for n in notes if 'values stay in the file' in n]
    assert len(stay) == (2 if backed and kind != 'csc' else 0)
    read = [n for n in notes if 'stored by column (CSC)' in n]
    assert len(read) == (2 if backed and kind == 'csc' else 0)


@pytest.mark.parametrize('kind', ['dense', 'csr'])
def test_what_is_held_is_bounded(tmp_path, monkeypatch, kind):
  """The largest block that is read, in bytes as it is stored."""
  bound = 6000
  monkeypatch.setattr(sides, 'BLOCK_BYTES', bound)
  held = []
  ready = sides.Side._ready

  def counted(side, block):
    if hasattr(block, 'indptr'):
      held.append(8 * block.nnz + 8 * len(block.indptr))
    else:
      held.append(block.nbytes)
    return ready(side, block)

  monkeypatch.setattr(sides.Side, '_ready', counted)
  front.score(
    *written(tmp_path, kind),
    backed=True,
    say=[].append,
    **{**OPTIONS, 'convention': 'toy', 'metrics': ['mse', 'pearson_delta']},
  )
  # Besides the few cells that are looked at for the scale.
  assert sum(size > bound for size in held) <= 2
  assert len(held) > 10


def test_an_anndata_that_is_backed(tmp_path, in_memory):
  paths = written(tmp_path, 'csr')
  backed = [anndata.read_h5ad(path, backed='r') for path in paths]
  before = [path.read_bytes() for path in paths]
  table = front.score(*backed, say=[].append, **OPTIONS)
  pd.testing.assert_frame_equal(table, in_memory, rtol=1e-6, atol=1e-9)
  for adata in backed:
    assert adata.isbacked
    adata.file.close()
  assert [path.read_bytes() for path in paths] == before


def test_large_files_stay_on_disk(tmp_path, monkeypatch):
  paths = written(tmp_path, 'csr')
  monkeypatch.setattr(inputs, '_IN_MEMORY', paths[0].stat().st_size - 1)
  notes = []
  front.score(*paths, say=notes.append, **{**OPTIONS, 'metrics': ['mse']})
  assert [n for n in notes if n.startswith('observed') and 'stay in' in n]


def test_layers_and_normalisation(tmp_path, monkeypatch):
  monkeypatch.setattr(sides, 'BLOCK_BYTES', 6000)
  options = {'convention': 'logs', 'perturbation_key': 'condition',
             'control': 'non-targeting', 'normalise': 1e4,
             'say': [].append}  # fmt: skip
  paths = []
  for side in ('observed', 'predicted'):
    adata = toy_adata.counts(side)
    adata.X = sparse.csr_matrix(adata.X)
    paths.append(tmp_path / f'{side}.h5ad')
    adata.write_h5ad(paths[-1])
  expected = front.score(
    toy_adata.counts(), toy_adata.counts('predicted'), **options
  )
  table = front.score(*paths, backed=True, **options)
  pd.testing.assert_frame_equal(table, expected, rtol=1e-9)


def test_a_value_that_is_not_finite(tmp_path):
  adata = toy_adata.made()
  adata.X[40, 3] = np.nan
  adata.X = sparse.csr_matrix(adata.X)
  adata.write_h5ad(tmp_path / 'nan.h5ad')
  with pytest.raises(ValueError, match="nan in cell 'cell40', gene 'G03'"):
    front.score(tmp_path / 'nan.h5ad', toy_adata.made('predicted'),
                backed=True, **OPTIONS)  # fmt: skip
