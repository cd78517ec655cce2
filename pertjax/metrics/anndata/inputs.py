"""One side as it is given: an AnnData or an h5ad file, read and checked."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import anndata
import numpy as np
from scipy import sparse

from pertjax import names as name_lib
from pertjax.metrics import sides

# Files beyond this stay on disk and are read in blocks.
_IN_MEMORY = 2 << 30
# Cells of each label whose values say what scale they are on.
_SAMPLED = 3
_MAX_LOG = 20.0  # ln(1 + x) of half a billion molecules of a gene in a cell.

# Looked for, in this order, where no key or control is given.
_KEYS = (
  'target_gene', 'perturbation', 'condition', 'gene', 'target', 'pert', 'drug',
)  # fmt: skip
_CONTROLS = (
  'non-targeting', 'control', 'ctrl', 'Control', 'NT', 'unperturbed', 'DMSO',
  'vehicle',
)  # fmt: skip

Given = anndata.AnnData | str | os.PathLike


class Input(NamedTuple):
  """What was given for one side.

  Attributes:
    name: for messages: the file, or 'observed', 'predicted'.
    matrix: [cells, genes], rows sliceable; CSR or dense, in memory or a file.
    genes: [genes] names.
    cells: [cells] names.
    conditions: [cells] names.
    groups: [cells] names; '' without covariates, joined by '|'.
    uns: of the AnnData.
  """

  name: str
  matrix: Any
  genes: list[str]
  cells: Any
  conditions: list[str]
  groups: list[str]
  uns: Any


def open_side(
  given: Given,
  side: str,
  *,
  perturbation_key: str,
  covariate_keys: Sequence[str],
  layer: str | None,
  backed: bool | None,
) -> Input:
  """Opens one side; values stay where they are.

  Args:
    given: an AnnData, in memory or backed, or the path of an h5ad file.
    side: 'observed' or 'predicted', for messages.
    perturbation_key: column of obs with the condition's name.
    covariate_keys: columns of obs that tell groups apart.
    layer: in place of X.
    backed: whether a file stays on disk; None for large files only.

  Raises:
    FileNotFoundError: where there is no such file.
    ValueError: for a file that is none, and for a missing key, layer or value.
  """
  name = side
  if not isinstance(given, anndata.AnnData):
    path = pathlib.Path(given)
    name = f'{side} ({path})'
    given = _open(path, name, backed)
  obs = given.obs
  for key in (perturbation_key, *covariate_keys):
    if key not in obs:
      raise ValueError(
        f'{name}: obs has no column {key!r}; {name_lib.suggestion(key, obs)}'
      )
    if obs[key].isna().any():
      raise ValueError(
        f'{name}: obs[{key!r}] is missing in {int(obs[key].isna().sum()):,} '
        f'cells: {name_lib.listing(obs.index[obs[key].isna()])}'
      )
  genes = [str(gene) for gene in given.var_names]
  repeated = name_lib.duplicates(genes)
  if repeated:
    raise ValueError(
      f'{name}: genes are named twice: {name_lib.listing(repeated)}'
    )
  groups = [''] * given.n_obs
  if covariate_keys:
    columns = [obs[key].astype(str) for key in covariate_keys]
    groups = ['|'.join(values) for values in zip(*columns)]
  return Input(
    name=name,
    matrix=_matrix(given, layer, name),
    genes=genes,
    cells=given.obs_names,
    conditions=obs[perturbation_key].astype(str).tolist(),
    groups=groups,
    uns=given.uns,
  )


def _open(path, name, backed) -> anndata.AnnData:
  if not path.is_file():
    near = [f.name for f in path.parent.glob('*.h5ad')]
    raise FileNotFoundError(
      f'{name}: no such file; {name_lib.suggestion(path.name, near)}'
    )
  if backed is None:
    backed = path.stat().st_size > _IN_MEMORY
  try:
    return anndata.read_h5ad(path, backed='r' if backed else None)
  except OSError as error:
    raise ValueError(
      f'{name}: cannot be read as h5ad; is it truncated or another kind of '
      f'file? ({error})'
    ) from error


def key_and_control(
  path: str,
  key: str | None,
  control: str | None,
  *,
  say: Callable[[str], None],
) -> tuple[str, str]:
  """Returns the key and the control of a file, looked for where not given.

  Args:
    path: of an h5ad file.
    key: column of obs, or None to look for a usual name.
    control: its control, or None to look for a usual name.
    say: takes lines on what was found.

  Raises:
    FileNotFoundError: where there is no such file.
    ValueError: where nothing usual is found.
  """
  if key and control:
    return key, control
  obs = _open(pathlib.Path(path), str(path), backed=True).obs
  if not key:
    key = next((k for k in _KEYS if k in obs), None)
    if key is None:
      raise ValueError(
        f'perturbation_key is not given and obs of {path} has none of '
        f'{", ".join(_KEYS)}; it has {name_lib.listing(obs, 12)}'
      )
    say(f'perturbation_key={key!r}')
  if control or key not in obs:
    return key, control or ''
  found = sorted(set(obs[key].astype(str)))
  control = next((c for c in _CONTROLS if c in found), None)
  if control is None:
    raise ValueError(
      f'control is not given and obs[{key!r}] of {path} has none of '
      f'{", ".join(_CONTROLS)}; it has {name_lib.listing(found, 12)}'
    )
  say(f'control={control!r}')
  return key, control


def _matrix(given: anndata.AnnData, layer: str | None, name: str) -> Any:
  # From anndata 0.13 on, X is the layer None.
  layers = [key for key in given.layers if key is not None]
  if layer is not None and layer not in layers:
    raise ValueError(
      f'{name}: no layer {layer!r}; {name_lib.suggestion(layer, layers)}'
    )
  matrix = given.X if layer is None else given.layers[layer]
  if matrix is None:
    raise ValueError(
      f'{name}: there is no X; choose a layer: '
      f'{name_lib.listing(layers) or "there are none"}'
    )
  if sparse.issparse(matrix):
    matrix = matrix.tocsr()
  elif getattr(matrix, 'format', 'csr') != 'csr':
    # Rows of a file that is stored by column: each would read all of it.
    matrix = matrix.to_memory().tocsr()
  if not (isinstance(matrix, np.ndarray) or hasattr(matrix, 'shape')):
    raise ValueError(f'{name}: X is a {type(matrix).__name__}')
  if np.dtype(matrix.dtype).kind not in 'biuf':
    raise ValueError(f'{name}: values are {matrix.dtype}; expected numbers')
  if isinstance(matrix, np.ndarray):
    matrix = np.asarray(matrix)
  return matrix


def check_finite(side: sides.Side, given: Input, genes: Sequence[str]) -> None:
  """Raises for values that are NaN or infinite, with their cell and gene.

  The means tell whether there is any, in a pass that is needed anyway.
  """
  bad = ~np.isfinite(side.mean) & (side.sizes > 0)[:, None]
  if not bad.any():
    return
  label = int(np.flatnonzero(bad.any(1))[0])
  gene = int(np.flatnonzero(bad[label])[0])
  block, _ = side.cells([label])
  column = sides.dense(block[:, [gene]])[:, 0]
  at = int(np.flatnonzero(~np.isfinite(column))[0])
  cell = given.cells[side.members(label)[at]]
  raise ValueError(
    f'{given.name}: {int(bad.sum()):,} means of conditions are not finite; the '
    f'first value is {column[at]:g} in cell {str(cell)!r}, gene '
    f'{genes[gene]!r}; every value must be finite'
  )


def scale_of(side: sides.Side, given: Input, names: Sequence[str]) -> str:
  """Returns 'counts' or 'log1p', by a few cells of every label.

  Args:
    side: the cells.
    given: where they are from.
    names: of the labels.

  Raises:
    ValueError: when labels disagree, or the values are neither.
  """
  found: dict[str, str] = {}
  for label, name in enumerate(names):
    rows = side.members(label)[:_SAMPLED]
    if not len(rows):
      continue
    one = side.relabelled(np.zeros(len(rows)), 1, cells=rows)
    values = sides.dense(one.cells([0])[0])
    values = values[values != 0]
    if not len(values):
      continue
    largest = float(max(values.max(), side.mean[label].max()))
    if (values == np.floor(values)).all() and values.min() > 0:
      kind = 'counts'
    elif largest < _MAX_LOG:
      kind = 'log1p'
    else:
      raise ValueError(
        f'{given.name}: condition {name!r} has values up to {largest:g} that '
        'are not integers: neither counts nor log1p values; expected ln(1 + x) '
        f'(below {_MAX_LOG:g}) or counts'
      )
    found.setdefault(kind, name)
  if len(found) > 1:
    raise ValueError(
      f'{given.name}: mixed scales: condition {found["counts"]!r} holds counts '
      f'(integers), condition {found["log1p"]!r} log1p values'
    )
  return next(iter(found), 'log1p')


def log_normaliser(target: float) -> Callable[[Any], Any]:
  """Returns a function of blocks of counts: ln(1 + target x / sum x)."""

  def prepare(block: Any) -> Any:
    whole = np.asarray(block.sum(1), np.float64).reshape(-1)
    factor = target / np.where(whole > 0, whole, 1)
    if hasattr(block, 'indptr'):
      scaled = block.data * np.repeat(factor, np.diff(block.indptr))
      return sparse.csr_matrix(
        (np.log1p(scaled), block.indices, block.indptr), shape=block.shape
      )
    return np.log1p(np.asarray(block) * factor[:, None])

  return prepare
