"""Counts to preprocess, and a slow Welch's t."""

import anndata
import numpy as np
import pandas as pd
from scipy import sparse

from pertjax.data import conventions, h5ad

PERTURBENCH = conventions.make('perturbench')


def read(adata, scale='counts', **options):
  return h5ad.from_anndata(
    adata, convention=PERTURBENCH, scale=scale, **options
  )


def noisy(num=240, num_genes=40, seed=0):
  """Negative-binomial counts; half of the genes differ between cells."""
  rng = np.random.default_rng(seed)
  mean = np.exp(rng.normal(0, 1.5, num_genes))
  mean = mean * np.exp(rng.normal(0, 1, (num, num_genes)) * (mean > 0.8))
  counts = rng.poisson(mean).astype(np.float32)
  counts[:, 0] += 1
  obs = pd.DataFrame(
    {
      'condition': rng.choice(['control', 'G3', 'G5', 'drug'], num),
      'cell_type': rng.choice(['ta', 'tb'], num),
    },
    index=[f'cell{k}' for k in range(num)],
  )
  var = pd.DataFrame(index=[f'G{k}' for k in range(num_genes)])
  return anndata.AnnData(sparse.csr_matrix(counts), obs=obs, var=var)


def slow_welch(raw, values, condition, group):
  values = values.astype(np.float64)
  mine = (raw.condition_ids == condition) & (raw.group_ids == group)
  control = (raw.condition_ids == 0) & (raw.group_ids == group)
  a, b = values[mine], values[control]
  error = np.sqrt(
    a.var(axis=0, ddof=1) / len(a) + b.var(axis=0, ddof=1) / len(b)
  )
  difference = a.mean(axis=0) - b.mean(axis=0)
  return np.divide(
    difference, error, out=np.zeros_like(error), where=error > 1e-9
  )
