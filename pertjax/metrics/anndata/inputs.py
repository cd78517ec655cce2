"""One side as it is given: an AnnData or an h5ad file, read and checked."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import anndata
import numpy as np
import pandas as pd
from scipy import sparse

from pertjax import names as name_lib
from pertjax.metrics import problem as problem_lib

# Files beyond this stay on disk and are read in blocks.
_IN_MEMORY = 2 << 30

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
    conditions: of the cells.
    groups: of the cells; '' without covariates, joined by '|'.
    uns: of the AnnData.
    notes: what was done to read it.
  """

  name: str
  matrix: Any
  genes: list[str]
  cells: Any
  conditions: problem_lib.Names
  groups: problem_lib.Names
  uns: Any
  notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, eq=False)
class StoredRows:
  """A CSR matrix in a file, of which runs of rows are read.

  AnnData's own takes ten times as long for a slice of a few rows, and looks its
  row pointers up anew.

  Attributes:
    data: dataset in the file.
    indices: dataset in the file.
    indptr: int [rows + 1], in memory.
    shape: of the matrix.
  """

  data: Any
  indices: Any
  indptr: np.ndarray
  shape: tuple[int, int]

  @property
  def dtype(self) -> np.dtype:
    """Returns the type of the values."""
    return self.data.dtype

  @property
  def nnz(self) -> int:
    """Counts the stored values."""
    return int(self.data.shape[0])

  def __getitem__(self, rows: slice) -> sparse.csr_matrix:
    """Reads rows; a slice without a step."""
    start, stop, _ = rows.indices(self.shape[0])
    pointers = self.indptr[start : max(start, stop) + 1]
    first, last = int(pointers[0]), int(pointers[-1])
    return sparse.csr_matrix(
      (self.data[first:last], self.indices[first:last], pointers - first),
      shape=(len(pointers) - 1, self.shape[1]),
    )


def same(one: Given, other: Given) -> bool:
  """Says whether two are the same AnnData, or the same file."""
  if isinstance(one, anndata.AnnData) or isinstance(other, anndata.AnnData):
    return one is other
  return os.path.realpath(one) == os.path.realpath(other)


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
  if not given.n_obs or not given.n_vars:
    raise ValueError(
      f'{name}: there are {given.n_obs:,} cells and {given.n_vars:,} genes; '
      'expected some of both'
    )
  obs = given.obs
  for key in (perturbation_key, *covariate_keys):
    if key not in obs:
      raise ValueError(
        f'{name}: obs has no column {key!r}; {name_lib.suggestion(key, obs)}'
      )
    missing = obs[key].isna()
    if missing.any():
      raise ValueError(
        f'{name}: obs[{key!r}] is missing in {int(missing.sum()):,} cells: '
        f'{name_lib.listing(obs.index[missing])}'
      )
  genes = [str(gene) for gene in given.var_names]
  repeated = name_lib.duplicates(genes)
  if repeated:
    raise ValueError(
      f'{name}: genes are named twice: {name_lib.listing(repeated)}'
    )
  matrix, notes = _matrix(given, layer, name)
  if not (isinstance(matrix, np.ndarray) or sparse.issparse(matrix)):
    notes.append(f'{name}: values stay in the file and are read in blocks')
  if not given.obs_names.is_unique:
    notes.append(
      f'{name}: {int(given.obs_names.duplicated().sum()):,} cells have the '
      'name of another cell; cells are told apart by their rows'
    )
  return Input(
    name=name,
    matrix=matrix,
    genes=genes,
    cells=given.obs_names,
    conditions=_names(obs[perturbation_key]),
    groups=_joined(obs, covariate_keys, name),
    uns=given.uns,
    notes=tuple(notes),
  )


def _names(column: pd.Series) -> problem_lib.Names:
  """Returns the names of cells; categories without cells are none."""
  code, found = pd.factorize(column)
  # Two values may be spelled alike, as 1 and '1'.
  names = problem_lib.names_of(pd.Index(found).astype(str).tolist())
  return problem_lib.Names(names.distinct, names.code[code])


def _joined(
  obs: pd.DataFrame, keys: Sequence[str], name: str
) -> problem_lib.Names:
  """Returns the groups of cells: the values of several columns, joined."""
  code, parts = np.zeros(len(obs), np.int64), [()]
  for key in keys:
    column = _names(obs[key])
    number = len(column.distinct)
    found, code = np.unique(code * number + column.code, return_inverse=True)
    parts = [
      (*parts[pair // number], column.distinct[pair % number]) for pair in found
    ]
  joined = ['|'.join(part) for part in parts]
  repeated = name_lib.duplicates(joined)
  if repeated:
    raise ValueError(
      f'{name}: two groups of {", ".join(keys)} are named {repeated[0]!r} when '
      "joined by '|'; rename one of them"
    )
  return problem_lib.Names(tuple(joined), code.astype(np.int32))


def _open(path, name, backed) -> anndata.AnnData:
  if path.is_dir():
    raise IsADirectoryError(f'{name}: a folder; expected an h5ad file')
  if not path.is_file():
    near = [f.name for f in path.parent.glob('*.h5ad')]
    raise FileNotFoundError(
      f'{name}: no such file; {name_lib.suggestion(path.name, near)}'
    )
  size = path.stat().st_size
  if backed is None:
    backed = size > _IN_MEMORY
  try:
    with warnings.catch_warnings():
      # Said by `open_side`, with the name of the file.
      warnings.filterwarnings('ignore', message='.*names are not unique')
      found = anndata.read_h5ad(path, backed='r' if backed else None)
  except (OSError, KeyError, TypeError, ValueError) as error:
    raise ValueError(
      f'{name}: cannot be read as h5ad ({size:,} bytes); is it truncated or '
      f'another kind of file? ({error})'
    ) from error
  return found


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


def _matrix(
  given: anndata.AnnData, layer: str | None, name: str
) -> tuple[Any, list[str]]:
  """Returns values with rows to slice, and notes."""
  # From anndata 0.13 on, X is the layer None.
  layers = [key for key in given.layers if key is not None]
  if layer is not None and layer not in layers:
    raise ValueError(
      f'{name}: no layer {layer!r}; {name_lib.suggestion(layer, layers)}'
    )
  where = 'X' if layer is None else f'layers[{layer!r}]'
  matrix = given.X if layer is None else given.layers[layer]
  if matrix is None:
    raise ValueError(
      f'{name}: there is no X; choose a layer: '
      f'{name_lib.listing(layers) or "there are none"}'
    )
  notes = []
  if sparse.issparse(matrix):
    matrix = matrix.tocsr()
  elif getattr(matrix, 'format', 'csr') != 'csr':
    # Rows of a file that is stored by column: each would read all of it.
    matrix = matrix.to_memory().tocsr()
    notes.append(
      f'{name}: {where} is stored by column (CSC) and was read into memory'
    )
  elif hasattr(matrix, 'group'):
    parts = {key: matrix.group[key] for key in ('data', 'indices', 'indptr')}
    parts['indptr'] = parts['indptr'][...]
    matrix = StoredRows(**parts, shape=matrix.shape)
  if not hasattr(matrix, 'shape') or not hasattr(matrix, 'dtype'):
    raise ValueError(
      f'{name}: {where} is a {type(matrix).__name__}; expected a dense or '
      'sparse matrix'
    )
  if np.dtype(matrix.dtype).kind not in 'biuf':
    raise ValueError(f'{name}: {where} holds {matrix.dtype}; expected numbers')
  if isinstance(matrix, np.ndarray):
    matrix = np.asarray(matrix)
  return matrix, notes
