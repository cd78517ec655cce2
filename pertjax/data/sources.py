"""Where a dataset is read from: an h5ad file, or an AnnData in memory."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import anndata
import h5py
import pandas as pd

from pertjax import names as name_lib


class Source(NamedTuple):
  """A file or an AnnData: small tables, and matrices to ask for.

  Attributes:
    name: for messages and records.
    obs, var: the tables of cells and of genes.
    layers: names of the layers.
    matrix: returns a layer, or X for None; None where there is none.
    uns: returns an entry of uns, None where there is none.
  """

  name: str
  obs: pd.DataFrame
  var: pd.DataFrame
  layers: tuple[str, ...]
  matrix: Callable[[str | None], Any]
  uns: Callable[[str], Any]


def check_path(path: pathlib.Path) -> None:
  """Raises unless there is an HDF5 file.

  Raises:
    FileNotFoundError, IsADirectoryError: where there is no such file.
    ValueError: where it is no HDF5 file.
  """
  if path.is_dir():
    raise IsADirectoryError(f'{path}: a directory; expected an .h5ad file')
  if not path.exists():
    here = path.parent
    files = [f.name for f in here.glob('*.h5ad')] if here.is_dir() else []
    raise FileNotFoundError(
      f'{path}: no such file; h5ad files in {here}: '
      f'{name_lib.suggestion(path.name, files)}'
    )
  if not h5py.is_hdf5(path):
    raise ValueError(
      f'{path}: not an HDF5 file ({path.stat().st_size:,} bytes); expected an '
      '.h5ad file, uncompressed'
    )


def of_file(file: h5py.File, name: str) -> Source:
  """Makes the source of an open file; matrices stay in it until asked for.

  Raises:
    ValueError: where the file has no tables of cells and genes.
  """
  lacking = [key for key in ('obs', 'var') if key not in file]
  if lacking:
    raise ValueError(
      f'{name}: not an h5ad file: no {" and no ".join(lacking)} in it; '
      f'it has {name_lib.listing(file, 12)}'
    )
  if not isinstance(file['obs'], h5py.Group):
    # Written by anndata before 0.7, with another layout.
    return of_adata(anndata.read_h5ad(name), name)

  def matrix(layer: str | None) -> Any:
    found = file.get('X' if layer is None else f'layers/{layer}')
    # A dense matrix stays in the file and is read in blocks.
    whole = isinstance(found, h5py.Group)
    return anndata.io.read_elem(found) if whole else found

  def uns(key: str) -> Any:
    found = file.get(f'uns/{key}')
    return None if found is None else anndata.io.read_elem(found)

  return Source(
    name=name,
    obs=anndata.io.read_elem(file['obs']),
    var=anndata.io.read_elem(file['var']),
    layers=tuple(file.get('layers', ())),
    matrix=matrix,
    uns=uns,
  )


def of_adata(adata: anndata.AnnData, name: str) -> Source:
  """Makes the source of an AnnData, in memory or backed."""
  return Source(
    name=name,
    obs=adata.obs,
    var=adata.var,
    # From anndata 0.13 on, X is the layer None.
    layers=tuple(name for name in adata.layers if name is not None),
    matrix=lambda layer: adata.X if layer is None else adata.layers[layer],
    uns=adata.uns.get,
  )
