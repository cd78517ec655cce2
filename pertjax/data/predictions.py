"""Predictions as files: written whole or not at all, and read as means."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import anndata
import numpy as np
import pandas as pd
from scipy import sparse

from pertjax import files, types
from pertjax import names as name_lib
from pertjax.data import conventions


def write_predictions(
  path: pathlib.Path,
  *,
  values: np.ndarray,
  columns: Mapping[str, Sequence[str]],
  genes: Sequence[str],
  provenance: Mapping[str, Any],
  spread: np.ndarray | None = None,
) -> None:
  """Writes predicted cells as h5ad; the same input gives the same bytes.

  Args:
    path: of the file.
    values: float32 [cells, genes]; the mean over seeds.
    columns: obs columns; 'condition', the covariates and 'control_cell', from
      which the stable names of the cells are made.
    genes: [genes] names.
    provenance: JSON values for uns['pertjax'].
    spread: float32 [cells, genes], the standard deviation over seeds, or None.

  Raises:
    OSError: if it cannot be written; an older file stays as it was.
  """
  keys = list(columns)
  names = ['|'.join(row) for row in zip(*(columns[k] for k in keys))]
  obs = pd.DataFrame(
    {
      k: pd.Categorical(np.asarray(v, dtype=object)) for k, v in columns.items()
    },
    index=pd.Index(names, dtype=object),
  )
  adata = anndata.AnnData(
    X=values.astype(np.float32),
    obs=obs,
    var=pd.DataFrame(index=pd.Index(list(genes), dtype=object)),
  )
  if spread is not None:
    adata.layers['seed_sd'] = spread.astype(np.float32)
  adata.uns['pertjax'] = json.dumps(provenance, sort_keys=True)

  with _replacing(path) as temporary:
    adata.write_h5ad(temporary, compression='lzf')


def write_arrays(path: pathlib.Path, **arrays: np.ndarray) -> None:
  """Writes arrays as a compressed npz, whole or not at all."""
  with _replacing(path) as temporary, temporary.open('wb') as file:
    np.savez_compressed(file, **arrays)


def _replacing(path: pathlib.Path):
  """Makes the folder, and the file in it once it is whole."""
  path.parent.mkdir(parents=True, exist_ok=True)
  return files.replacing(path)


class Means(NamedTuple):
  """Mean profiles of another tool's predictions.

  Attributes:
    pairs: {(condition name, covariate values): float32 [genes]}.
    notes: lines that a user should read.
  """

  pairs: dict[tuple[str, tuple[str, ...]], np.ndarray]
  notes: tuple[str, ...]


def read_means(
  path: pathlib.Path,
  spec: types.DataSpec,
  convention: conventions.Convention,
) -> Means:
  """Reads the means of every (condition, covariates) of a predictions file.

  Args:
    path: of the h5ad.
    spec: of the data; genes are reordered to it by name.
    convention: how the file names its conditions, that of the data.

  Raises:
    FileNotFoundError: if it is not there.
    ValueError: if it lacks genes or columns, names a gene twice, or has values
      that are not finite.
  """
  if not path.is_file():
    raise FileNotFoundError(f'eval.predictions={path}: no such file')
  adata = anndata.read_h5ad(path)
  keys = [key for key, _ in spec.covariates]
  label = convention.key if convention.key in adata.obs else 'condition'
  missing = [k for k in (label, *keys) if k not in adata.obs]
  if missing:
    raise ValueError(
      f'{path}: obs has no {missing}; it has {list(adata.obs.columns)}'
    )
  names = adata.var_names
  if convention.gene_names and convention.gene_names in adata.var:
    names = adata.var[convention.gene_names]
  order = _gene_order([str(name) for name in names], spec.genes, path)
  notes = _origin_notes(adata, spec, path)
  if order != list(range(len(order))):
    notes.append(f'{path.name}: genes were reordered by name')
  matrix = sparse.csr_matrix(adata.X)[:, order]
  if not np.isfinite(matrix.data).all():
    count = int((~np.isfinite(matrix.data)).sum())
    raise ValueError(f'{path}: {count} values are NaN or infinite')
  groups = [()] * adata.n_obs
  if keys:
    groups = list(zip(*(adata.obs[k].astype(str) for k in keys)))
  named = list(zip(_condition_names(adata, label, convention), groups))
  pairs = sorted(set(named))
  index = {pair: i for i, pair in enumerate(pairs)}
  rows = [index[pair] for pair in named]
  membership = sparse.csr_matrix((np.ones(len(rows)), (rows, range(len(rows)))))
  means = (membership @ matrix).toarray() / membership.sum(1)
  means = np.asarray(means, np.float32)
  return Means({pair: means[i] for pair, i in index.items()}, tuple(notes))


def _origin_notes(adata, spec, path) -> list[str]:
  """Says where our own predictions are from other data or another split."""
  if 'pertjax' not in adata.uns:
    return []
  origin = json.loads(adata.uns['pertjax'])
  notes = []
  if origin.get('data_fingerprint') != spec.fingerprint:
    notes.append(f'{path.name} was predicted by a run on other data')
  if origin.get('split_sha256') != spec.split.sha256:
    notes.append(
      f'{path.name} was predicted by a run with another split, which may have '
      'trained on cells that are held out here'
    )
  return notes


def _gene_order(found, wanted, path) -> list[int]:
  """Returns the columns of the wanted genes."""
  twice = sorted(set(name_lib.duplicates(found)) & set(wanted))
  if twice:
    raise ValueError(
      f'{path} has more than one column for {name_lib.listing(twice)}'
    )
  column = {name: i for i, name in enumerate(found)}
  lacking = [g for g in wanted if g not in column]
  if lacking:
    raise ValueError(
      f'{path} lacks {len(lacking)} of {len(wanted)} genes: '
      f'{name_lib.listing(lacking)}; it has {name_lib.listing(found)}'
    )
  return [column[g] for g in wanted]


def _condition_names(adata, label, convention) -> list[str]:
  """Returns the canonical name of each cell's condition."""
  labels = adata.obs[label]
  if 'pertjax' in adata.uns:
    # Our own file: names are canonical, whatever the data's convention.
    return labels.astype(str).tolist()
  doses = None
  if convention.dose_key and convention.dose_key in adata.obs:
    doses = adata.obs[convention.dose_key]
  conditions, ids = conventions.parse(labels, doses, convention=convention)
  return [conditions.names[i] for i in ids]
