"""Highly variable genes against dense NumPy."""

import numpy as np
import pandas as pd
import pytest
from noisy_adata import noisy
from scipy import sparse

from pertjax.data import hvg, loess


def slow_seurat_v3(counts):
  """Variance of clipped, standardised counts of one batch; dense."""
  counts = counts.astype(np.float64)
  mean, variance = counts.mean(axis=0), counts.var(axis=0, ddof=1)
  varies = variance > 0
  deviation = np.ones(len(mean))
  fit = loess.fit(np.log10(mean[varies]), np.log10(variance[varies]))
  deviation[varies] = np.sqrt(10**fit)
  z = np.minimum((counts - mean) / deviation, np.sqrt(len(counts)))
  return (z**2).sum(axis=0) / (len(counts) - 1)


def test_seurat_v3_matches_numpy(monkeypatch):
  monkeypatch.setattr(hvg, '_BLOCK_VALUES', 1000)
  adata = noisy()
  counts = adata.X.toarray()
  counts[:, 7] = 3  # Constant.
  counts[:, 9] = 0
  found = hvg.highly_variable(sparse.csr_matrix(counts), num=10)
  score = slow_seurat_v3(counts)
  np.testing.assert_allclose(found.score, score, rtol=1e-9, atol=1e-9)
  assert set(np.flatnonzero(found.selected)) == set(np.argsort(-score)[:10])
  assert not found.selected[[7, 9]].any()
  assert found.rank[np.argsort(-score)[:10]].tolist() == list(range(10))
  assert np.isnan(found.rank[~found.selected]).all()


def test_seurat_v3_sorts_by_median_rank_over_batches():
  counts = noisy(300).X.toarray()
  batches = np.arange(300) % 3
  found = hvg.highly_variable(sparse.csr_matrix(counts), num=8, groups=batches)
  scores = [slow_seurat_v3(counts[batches == b]) for b in range(3)]
  rank = np.argsort(np.argsort(-np.array(scores), axis=1), axis=1).astype(float)
  table = pd.DataFrame(
    {
      'rank': np.ma.median(np.ma.masked_array(rank, rank >= 8), axis=0).filled(
        np.nan
      ),
      'batches': (rank < 8).sum(axis=0),
    }
  ).sort_values(['rank', 'batches'], ascending=[True, False], kind='stable')
  assert set(np.flatnonzero(found.selected)) == set(table.index[:8])
  np.testing.assert_array_equal(found.batches, (rank < 8).sum(axis=0))
  np.testing.assert_array_equal(found.rank, table['rank'].sort_index())


def test_seurat_matches_numpy():
  log = np.log1p(noisy().X.toarray().astype(np.float64))
  log[:, 9] = 0
  log[:, 11] = 0.1  # Constant, but its float sums are not exact.
  found = hvg.highly_variable(sparse.csr_matrix(log), num=10, flavor='seurat')
  values = np.expm1(log)
  mean, variance = values.mean(axis=0), values.var(axis=0, ddof=1)
  variance[11] = 0
  log_mean = np.log1p(np.maximum(mean, 1e-12))
  bins = pd.cut(log_mean, 20, labels=False)
  expected = np.zeros(40)
  for b in np.unique(bins):
    members = np.flatnonzero((bins == b) & (variance > 0))
    dispersion = np.log(variance[members] / mean[members])
    if len(members) == 1:
      expected[members] = 1
    elif len(members):
      spread = dispersion.std(ddof=1)
      expected[members] = (dispersion - dispersion.mean()) / spread
  np.testing.assert_allclose(found.score, expected, atol=1e-9)
  assert found.selected.sum() == 10
  assert expected[found.selected].min() >= expected[~found.selected].max()


def test_highly_variable_edges():
  X = noisy(12).X
  groups = np.array([0] * 11 + [1])
  found = hvg.highly_variable(X, num=5, groups=groups)
  assert '1 groups with fewer than 2 cells' in found.notes[0]
  everything = hvg.highly_variable(X, num=999)
  assert everything.selected.all()
  with pytest.raises(ValueError, match='no group has two cells'):
    hvg.highly_variable(X, num=5, cells=np.arange(12) == 3)
  with pytest.raises(ValueError, match='hvg_flavor'):
    hvg.highly_variable(X, num=5, flavor='cell_ranger')
