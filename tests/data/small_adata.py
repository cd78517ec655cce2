"""A small AnnData, and reading it."""

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from pertjax.data import conventions, h5ad

PERTURBENCH = conventions.make('perturbench')
CONDITIONS = ['control', 'A', 'B', 'A+B']


def make(num=24, num_genes=6, **changes):
  """Returns a small AnnData of counts; no cell and no gene is empty."""
  i, j = np.arange(num)[:, None], np.arange(num_genes)[None]
  counts = ((3 * i + 5 * j + i * j) % 4).astype(np.float32)
  counts[:, 0] += 1
  obs = pd.DataFrame(
    {
      'condition': pd.Categorical([CONDITIONS[k // 2 % 4] for k in range(num)]),
      'cell_type': ['ta' if k < num // 2 else 'tb' for k in range(num)],
      'batch': [k % 2 for k in range(num)],
    },
    index=[f'cell{k}' for k in range(num)],
  )
  var = pd.DataFrame(
    {'symbol': [f'S{k}' for k in range(num_genes)]},
    index=[f'G{k}' for k in range(num_genes)],
  )
  parts = {'X': sparse.csr_matrix(counts), 'obs': obs, 'var': var, **changes}
  return anndata.AnnData(**parts)


def take(adata, scale='counts', convention=PERTURBENCH, **options):
  return h5ad.from_anndata(adata, convention=convention, scale=scale, **options)


def refused(adata, words, **options):
  with pytest.raises(ValueError, match=words):
    take(adata, **options)
