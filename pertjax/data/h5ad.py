"""Reading an AnnData file, and refusing what cannot be right.

Everything that can be wrong with a file is found here, the cheap checks before
the expensive ones, and said with the file, the key, what was found and what is
allowed. What is left out of a file is counted in the notes.
"""

from __future__ import annotations

import contextlib
import hashlib
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import anndata
import h5py
import numpy as np
import pandas as pd
from scipy import sparse

from pertjax import types
from pertjax.data import conventions, genes

SCALES = ('counts', 'log1p')
_COUNTS = 'counts'
_MAX_LOG = 20.0  # ln(1 + x) of a cell with half a billion molecules of a gene.
_BLOCK_BYTES = 64 << 20


class Options(NamedTuple):
  """What `read` and `from_anndata` may be told beside convention and scale.

  Attributes:
    layer: layer to read in place of X.
    counts_layer: layer with raw counts to read beside log values; the default
      may be absent, any other name must exist. None reads none.
    covariates: columns of obs that define the groups; None for those of the
      convention.
    genes: keep only these genes, in the order of the file.
    allow_missing_genes: note wanted genes that the file lacks instead of
      raising; at least one must be there.
    min_cells: exclude conditions with fewer cells, except the control.
    zero_cells: 'drop' or 'error' for cells whose every value is 0.
    drop_groups_without_control: exclude groups that have no control cell
      instead of raising.
    make_unique: number repeated gene and cell names instead of raising.
    gene_sets: key of uns that holds {set name: gene names}, used if there.
  """

  layer: str | None = None
  counts_layer: str | None = _COUNTS
  covariates: Sequence[str] | None = None
  genes: Sequence[str] | None = None
  allow_missing_genes: bool = False
  min_cells: int = 0
  zero_cells: str = 'drop'
  drop_groups_without_control: bool = False
  make_unique: bool = False
  gene_sets: str = 'gene_sets'


class Raw(NamedTuple):
  """A dataset as it was measured, checked and labelled, on the host.

  Attributes:
    X: CSR float32 [cells, genes], sorted indices, no stored zeros. It may
      share memory with the AnnData it came from: do not write to it.
    counts: CSR float32 [cells, genes] raw counts: X itself where scale is
      'counts', the counts layer where there is one, else None.
    scale: 'counts' or 'log1p'; what X holds.
    cell_names: str [cells], unique.
    gene_names: [genes], unique.
    conditions: see types.Conditions; every one has cells.
    condition_ids: int32 [cells].
    covariates: {key: levels}, levels sorted.
    covariate_codes: int32 [cells, keys]; index into the levels.
    groups: [groups] tuples of covariate values that occur, sorted.
    group_ids: int32 [cells].
    obs: all columns of the file, one row for each cell, in order.
    gene_sets: {name: gene names}, empty where the file has none.
    convention: what the labels were parsed by.
    source: where it came from, for messages and records.
    fingerprint: SHA-256 over values, names, conditions and groups.
    notes: lines that a user should read.
  """

  X: sparse.csr_matrix
  counts: sparse.csr_matrix | None
  scale: str
  cell_names: np.ndarray
  gene_names: tuple[str, ...]
  conditions: types.Conditions
  condition_ids: np.ndarray
  covariates: Mapping[str, tuple[str, ...]]
  covariate_codes: np.ndarray
  groups: tuple[tuple[str, ...], ...]
  group_ids: np.ndarray
  obs: pd.DataFrame
  gene_sets: Mapping[str, tuple[str, ...]]
  convention: conventions.Convention
  source: str
  fingerprint: str
  notes: tuple[str, ...]


class _Source(NamedTuple):
  """A file or an AnnData: small tables, and matrices to ask for."""

  name: str
  obs: pd.DataFrame
  var: pd.DataFrame
  layers: tuple[str, ...]
  matrix: Callable[[str | None], Any]
  uns: Callable[[str], Any]


class _Groups(NamedTuple):
  covariates: dict[str, tuple[str, ...]]
  codes: np.ndarray
  groups: tuple[tuple[str, ...], ...]
  ids: np.ndarray


def read(
  path: str | pathlib.Path,
  *,
  convention: conventions.Convention,
  scale: str,
  **options: Any,
) -> Raw:
  """Reads an h5ad file; only what is needed of it is loaded.

  Args:
    path: the file.
    convention: how its conditions are named; see conventions.make.
    scale: 'counts' or 'log1p', what the matrix holds; it is checked.
    **options: fields of Options.

  Raises:
    FileNotFoundError, IsADirectoryError: where there is no such file.
    ValueError: for anything in the file that cannot be right.
  """
  chosen = Options(**options)
  path = pathlib.Path(path)
  _check_path(path)
  try:
    with h5py.File(path, 'r') as file:
      lacking = [key for key in ('obs', 'var') if key not in file]
      if lacking:
        raise ValueError(
          f'{path}: not an h5ad file: no {" and no ".join(lacking)} in it; '
          f'it has {genes.listing(file, 12)}'
        )
      if isinstance(file['obs'], h5py.Group):
        source = _file_source(file, str(path))
      else:  # Written by anndata before 0.7, with another layout.
        source = _adata_source(anndata.read_h5ad(path), str(path))
      return _build(source, convention, scale, chosen)
  except OSError as error:
    raise ValueError(
      f'{path}: cannot be read; is it truncated or damaged? ({error})'
    ) from error


def from_anndata(
  adata: anndata.AnnData,
  *,
  convention: conventions.Convention,
  scale: str,
  name: str = 'AnnData',
  **options: Any,
) -> Raw:
  """Does to an AnnData in memory, or backed, what `read` does to a file.

  The AnnData is not changed.

  Args:
    adata: the data.
    convention: see `read`.
    scale: see `read`.
    name: what to call it in messages and records.
    **options: fields of Options.

  Raises:
    ValueError: as `read`.
  """
  return _build(
    _adata_source(adata, name), convention, scale, Options(**options)
  )


def _check_path(path: pathlib.Path) -> None:
  if path.is_dir():
    raise IsADirectoryError(f'{path}: a directory; expected an .h5ad file')
  if not path.exists():
    here = path.parent
    files = [f.name for f in here.glob('*.h5ad')] if here.is_dir() else []
    raise FileNotFoundError(
      f'{path}: no such file; h5ad files in {here}: '
      f'{genes.suggestion(path.name, files)}'
    )
  if not h5py.is_hdf5(path):
    raise ValueError(
      f'{path}: not an HDF5 file ({path.stat().st_size:,} bytes); expected an '
      '.h5ad file, uncompressed'
    )


def _file_source(file: h5py.File, name: str) -> _Source:
  def matrix(layer: str | None) -> Any:
    found = file.get('X' if layer is None else f'layers/{layer}')
    # A dense matrix stays in the file and is read in blocks.
    return anndata.io.read_elem(found) if _is_group(found) else found

  def uns(key: str) -> Any:
    found = file.get(f'uns/{key}')
    return None if found is None else anndata.io.read_elem(found)

  return _Source(
    name=name,
    obs=anndata.io.read_elem(file['obs']),
    var=anndata.io.read_elem(file['var']),
    layers=tuple(file.get('layers', ())),
    matrix=matrix,
    uns=uns,
  )


def _is_group(element: Any) -> bool:
  return isinstance(element, h5py.Group)


def _adata_source(adata: anndata.AnnData, name: str) -> _Source:
  return _Source(
    name=name,
    obs=adata.obs,
    var=adata.var,
    layers=tuple(adata.layers),
    matrix=lambda layer: adata.X if layer is None else adata.layers[layer],
    uns=adata.uns.get,
  )


def _build(
  source: _Source,
  convention: conventions.Convention,
  scale: str,
  options: Options,
) -> Raw:
  """Checks and assembles; see the module."""
  name, obs = source.name, source.obs
  convention = _settled(convention, options)
  _check_request(source, convention, scale, options)
  cell_names, notes = _names(
    obs.index, f'{name}: cell names (index of obs)', options
  )
  gene_names, gene_notes = _names(
    source.var.index
    if convention.gene_names is None
    else source.var[convention.gene_names],
    f'{name}: gene names (var[{convention.gene_names!r}])'
    if convention.gene_names
    else f'{name}: gene names (index of var)',
    options,
  )
  notes += gene_notes
  columns = np.arange(len(gene_names))
  if options.genes is not None:
    with _named(name):
      found = genes.align(
        gene_names, options.genes, allow_missing=options.allow_missing_genes
      )
    columns = np.sort(found.columns[found.columns >= 0])
    notes += found.notes
    notes.append(f'{len(columns):,} of {len(gene_names):,} genes kept: asked')
    gene_names = gene_names[columns]

  with _named(name):
    parsed = conventions.parse_labels(
      pd.Series(obs[convention.key].array, index=cell_names),
      None if convention.dose_key is None else obs[convention.dose_key],
      convention=convention,
    )
  notes += parsed.notes
  grouped = _group(obs, convention.covariates, name)
  everything = np.ones(len(obs), bool)
  # Once now, to fail before the matrix is read, and once with what it says.
  _select(parsed, grouped, everything, source, convention, options)

  X = _matrix(source, options.layer, len(columns), columns)
  _check_values(X, _where(name, options.layer), cell_names, gene_names)
  _check_scale(X, scale, source, options)
  counts = X if scale == 'counts' else _counts(source, options, columns)
  if counts is not None and counts is not X:
    where = _where(name, options.counts_layer)
    _check_values(counts, where, cell_names, gene_names)
    _check_scale(counts, 'counts', source, options, options.counts_layer)
  nonzero = np.diff(X.indptr) > 0
  if options.zero_cells == 'error' and not nonzero.all():
    raise ValueError(
      f'{_where(name, options.layer)}: {(~nonzero).sum():,} cells have no '
      f'count at all: {genes.listing(cell_names[~nonzero])}; '
      "zero_cells='drop' leaves them out"
    )
  keep, select_notes = _select(
    parsed, grouped, nonzero, source, convention, options
  )
  notes += select_notes
  if not keep.all():
    same = counts is X
    X = X[keep]
    counts = X if same else None if counts is None else counts[keep]
    obs, cell_names = obs[keep], cell_names[keep]
  conditions, ids = conventions.compact(parsed.conditions, parsed.ids[keep])
  grouped = _group(obs, convention.covariates, name)
  obs = obs.set_axis(pd.Index(cell_names, dtype=object), axis=0)
  gene_sets, set_notes = _gene_sets(source, options.gene_sets, gene_names)
  raw = Raw(
    X=X,
    counts=counts,
    scale=scale,
    cell_names=cell_names,
    gene_names=tuple(gene_names.tolist()),
    conditions=conditions,
    condition_ids=ids,
    covariates=grouped.covariates,
    covariate_codes=grouped.codes,
    groups=grouped.groups,
    group_ids=grouped.ids,
    obs=obs,
    gene_sets=gene_sets,
    convention=convention,
    source=name,
    fingerprint='',
    notes=(*notes, *set_notes),
  )
  return raw._replace(fingerprint=fingerprint(raw))


@contextlib.contextmanager
def _named(name: str) -> Iterator[None]:
  """Puts the name of the source before the message of a ValueError."""
  try:
    yield
  except ValueError as error:
    raise ValueError(f'{name}: {error}') from error


def _settled(
  convention: conventions.Convention, options: Options
) -> conventions.Convention:
  if options.covariates is not None:
    given = options.covariates
    keys = (given,) if isinstance(given, str) else tuple(given)
    convention = convention._replace(covariates=keys)
  conventions.check(convention)
  return convention


def _where(name: str, layer: str | None) -> str:
  return f'{name}, ' + ('X' if layer is None else f'layers[{layer!r}]')


def _check_request(
  source: _Source,
  convention: conventions.Convention,
  scale: str,
  options: Options,
) -> None:
  """Raises where a key, a layer or an option does not exist."""
  name = source.name
  if scale not in SCALES:
    raise ValueError(f'scale: {scale!r}; allowed: {", ".join(SCALES)}')
  if options.zero_cells not in ('drop', 'error'):
    raise ValueError(
      f"zero_cells: {options.zero_cells!r}; allowed: 'drop', 'error'"
    )
  if isinstance(options.genes, str):
    raise ValueError(f'genes: {options.genes!r}; expected a list of names')
  asked = {'key': convention.key, 'dose_key': convention.dose_key}
  asked.update((f'covariate {key}', key) for key in convention.covariates)
  for what, key in asked.items():
    if key is not None and key not in source.obs:
      raise ValueError(
        f'{name}: obs has no column {key!r} ({what} of convention '
        f'{convention.name!r}); {genes.suggestion(key, source.obs)}'
      )
  column = convention.gene_names
  if column is not None and column not in source.var:
    raise ValueError(
      f'{name}: var has no column {column!r} (gene_names of convention '
      f'{convention.name!r}); {genes.suggestion(column, source.var)}; None '
      'takes the index of var'
    )
  layers = [options.layer]
  if options.counts_layer != _COUNTS:
    layers.append(options.counts_layer)
  for layer in layers:
    if layer is not None and layer not in source.layers:
      raise ValueError(
        f'{name}: no layer {layer!r}; {genes.suggestion(layer, source.layers)}'
      )
  if not len(source.obs) or not len(source.var):
    raise ValueError(
      f'{name}: {len(source.obs)} cells and {len(source.var)} genes; nothing '
      'to read'
    )


def _names(
  values: Any, where: str, options: Options
) -> tuple[np.ndarray, list[str]]:
  """Returns str [n] unique names, and notes."""
  values = np.array(values, dtype=object)  # A copy: it may be renumbered.
  kind = pd.api.types.infer_dtype(values, skipna=False)
  if kind != 'string' or (values == '').any():
    wrong = [v for v in values if not isinstance(v, str) or not v]
    raise ValueError(
      f'{where}: {len(wrong):,} of {len(values):,} are not names: '
      f'{genes.listing([repr(v) for v in wrong])}; expected non-empty strings'
    )
  repeated = pd.Series(values).duplicated(keep='first').to_numpy()
  if not repeated.any():
    return values.astype(str), []
  examples = genes.duplicates(values)
  if not options.make_unique:
    raise ValueError(
      f'{where}: {len(examples):,} occur more than once: '
      f'{genes.listing(examples)}; make_unique=True numbers them'
    )
  taken, next_number = set(values.tolist()), dict.fromkeys(examples, 1)
  for index in np.flatnonzero(repeated):
    name = values[index]
    while (new := f'{name}-{next_number[name]}') in taken:
      next_number[name] += 1
    taken.add(new)
    values[index] = new
  return values.astype(str), [
    f'{where}: {repeated.sum():,} repeats of {len(examples):,} names were '
    f'numbered: {genes.listing(examples)}'
  ]


def _group(obs: pd.DataFrame, keys: Sequence[str], name: str) -> _Groups:
  """Codes the covariates of cells and the groups that they make."""
  covariates: dict[str, tuple[str, ...]] = {}
  codes = np.zeros((len(obs), len(keys)), np.int32)
  for index, key in enumerate(keys):
    code, values = pd.factorize(obs[key])
    missing = np.flatnonzero(code < 0)
    if len(missing):
      raise ValueError(
        f'{name}: covariate {key!r} is missing for {len(missing):,} of '
        f'{len(obs):,} cells: {genes.listing(obs.index[missing[:3]])}'
      )
    texts = np.array([str(value) for value in values], dtype=object)
    levels, order = np.unique(texts, return_inverse=True)
    covariates[key] = tuple(levels.tolist())
    codes[:, index] = order[code]
  if not keys:
    return _Groups({}, codes, ((),), np.zeros(len(obs), np.int32))
  levels = list(covariates.values())
  sizes = tuple(len(values) for values in levels)
  # Levels are sorted, so the mixed-radix number sorts as the tuples do.
  unique, ids = np.unique(
    np.ravel_multi_index(tuple(codes.T), sizes), return_inverse=True
  )
  groups = tuple(
    tuple(levels[key][code] for key, code in enumerate(row))
    for row in np.stack(np.unravel_index(unique, sizes), axis=1)
  )
  return _Groups(covariates, codes, groups, ids.astype(np.int32))


def _select(
  parsed: conventions.Parsed,
  grouped: _Groups,
  nonzero: np.ndarray,
  source: _Source,
  convention: conventions.Convention,
  options: Options,
) -> tuple[np.ndarray, list[str]]:
  """Returns bool [cells] to keep, and notes; raises where too little is left.

  Args:
    parsed: conditions of all cells.
    grouped: groups of all cells.
    nonzero: bool [cells]; cells with any count.
    source: for messages.
    convention: for messages.
    options: see Options.
  """
  name, notes, keep = source.name, [], nonzero.copy()
  if not keep.all():
    notes.append(f'{(~keep).sum():,} cells without any count were dropped')
  control = parsed.ids == 0
  if not (control & keep).any():
    labels = source.obs[convention.key].value_counts().head(8)
    frequent = ', '.join(f'{label!r} ({n:,})' for label, n in labels.items())
    raise ValueError(
      f'{name}: no control cell: none of {convention.control} is a label in '
      f'obs[{convention.key!r}]; the most frequent are {frequent}. Set the '
      'control label'
    )
  num_groups = len(grouped.groups)
  has_control = np.zeros(num_groups, bool)
  has_control[grouped.ids[control & keep]] = True
  present = np.bincount(grouped.ids[keep], minlength=num_groups)
  lacking = np.flatnonzero((present > 0) & ~has_control)
  if len(lacking):
    texts = genes.listing(
      f'{"|".join(grouped.groups[g])} ({present[g]:,} cells)' for g in lacking
    )
    if not options.drop_groups_without_control:
      raise ValueError(
        f'{name}: {len(lacking)} of {num_groups} groups of '
        f'{", ".join(grouped.covariates)} have no control cell: {texts}; '
        'drop_groups_without_control=True leaves them out'
      )
    keep &= has_control[grouped.ids]
    notes.append(
      f'{present[lacking].sum():,} cells of {len(lacking)} groups without '
      f'control were dropped: {texts}'
    )
  cells = np.bincount(parsed.ids[keep], minlength=len(parsed.conditions.names))
  rare = (cells > 0) & (cells < options.min_cells)
  rare[0] = False
  if rare.any():
    keep &= ~rare[parsed.ids]
    names = [parsed.conditions.names[i] for i in np.flatnonzero(rare)]
    notes.append(
      f'{cells[rare].sum():,} cells of {rare.sum()} conditions with fewer than '
      f'{options.min_cells} cells were dropped: {genes.listing(names, 10)}'
    )
  if not (parsed.ids[keep] > 0).any():
    raise ValueError(
      f'{name}: only one condition, the control, is left in '
      f'obs[{convention.key!r}]; there is nothing to learn. ' + ' '.join(notes)
    )
  return keep, notes


def _counts(
  source: _Source, options: Options, columns: np.ndarray
) -> sparse.csr_matrix | None:
  layer = options.counts_layer
  if layer is None or layer not in source.layers:
    return None
  return _matrix(source, layer, len(columns), columns)


def _matrix(
  source: _Source, layer: str | None, num_genes: int, columns: np.ndarray
) -> sparse.csr_matrix:
  """Returns one matrix as canonical CSR float32, without copies if it is."""
  where = _where(source.name, layer)
  X = _to_csr(source.matrix(layer), where, source.layers)
  shape = (len(source.obs), len(source.var))
  if X.shape != shape:
    raise ValueError(
      f'{where}: {X.shape[0]} x {X.shape[1]} values, but {shape[0]} cells in '
      f'obs and {shape[1]} genes in var'
    )
  return X[:, columns] if num_genes < X.shape[1] else X


def _to_csr(
  matrix: Any, where: str, layers: Sequence[str]
) -> sparse.csr_matrix:
  if matrix is None:
    raise ValueError(
      f'{where}: there is none; choose a layer: '
      f'{genes.listing(layers) or "there are none"}'
    )
  if hasattr(matrix, 'to_memory'):  # A backed sparse matrix.
    matrix = matrix.to_memory()
  dense = isinstance(matrix, (np.ndarray, h5py.Dataset))
  if not (dense or sparse.issparse(matrix)):
    raise ValueError(
      f'{where}: a {type(matrix).__name__}; expected a dense or sparse matrix'
    )
  if len(matrix.shape) != 2 or matrix.dtype.kind not in 'biuf':
    raise ValueError(
      f'{where}: {matrix.dtype} of shape {matrix.shape}; expected numbers, '
      'cells by genes'
    )
  if dense:
    X = _sparse_blocks(matrix)
  else:
    X = matrix.tocsr()
    with np.errstate(over='ignore'):  # Found afterwards, as an infinite value.
      data = X.data.astype(np.float32, copy=False)
    X = sparse.csr_matrix((data, X.indices, X.indptr), shape=X.shape)
  if not X.has_canonical_format:
    X = X.copy()
    X.sum_duplicates()
  if (X.data == 0).any():
    X = X.copy()
    X.eliminate_zeros()
  return X


def _sparse_blocks(matrix: Any) -> sparse.csr_matrix:
  """Makes a dense matrix sparse a block of rows at a time."""
  rows = max(1, _BLOCK_BYTES // (4 * max(1, matrix.shape[1])))
  blocks = []
  for start in range(0, max(1, matrix.shape[0]), rows):
    with np.errstate(over='ignore'):
      block = np.asarray(matrix[start : start + rows]).astype(np.float32)
    blocks.append(sparse.csr_matrix(block))
  return sparse.vstack(blocks, format='csr')


def _chunks(data: np.ndarray) -> Iterator[np.ndarray]:
  size = _BLOCK_BYTES // 4
  for start in range(0, len(data), size):
    yield data[start : start + size]


def _check_values(
  X: sparse.csr_matrix,
  where: str,
  cell_names: np.ndarray,
  gene_names: np.ndarray,
) -> None:
  """Raises for NaN, infinite and negative values, and for none at all."""
  if not X.nnz:
    raise ValueError(f'{where}: every value is 0')
  if X.data.min() >= 0 and X.data.max() < np.inf:  # NaN fails both.
    return
  for what, test in (
    ('NaN', np.isnan),
    ('infinite', np.isinf),
    ('negative', lambda x: x < 0),
  ):
    bad = np.flatnonzero(test(X.data))
    if len(bad):
      row = np.searchsorted(X.indptr, bad[0], side='right') - 1
      raise ValueError(
        f'{where}: {len(bad):,} values are {what}, the first '
        f'({X.data[bad[0]]:g}) in cell {str(cell_names[row])!r}, gene '
        f'{str(gene_names[X.indices[bad[0]]])!r}; expected counts or '
        'log-normalised values, not scaled ones'
      )


def _check_scale(
  X: sparse.csr_matrix,
  scale: str,
  source: _Source,
  options: Options,
  layer: str | None = None,
) -> None:
  """Raises where the values cannot be what `scale` says they are."""
  layer = layer or options.layer
  largest = float(X.data.max())
  whole = sum(int((x == np.floor(x)).sum()) for x in _chunks(X.data)) / X.nnz
  if scale == 'counts' and whole == 1:
    return
  if scale == 'log1p' and largest < _MAX_LOG and whole < 0.99:
    return
  expected = {
    'counts': 'non-negative integers',
    'log1p': f'ln(1 + x): mostly fractions, below {_MAX_LOG:g}',
  }[scale]
  if whole >= 0.99:
    looks = 'counts'
  elif largest < _MAX_LOG:
    looks = 'log1p values'
  else:
    looks = 'normalised values without a logarithm, which is neither'
  raise ValueError(
    f'{_where(source.name, layer)}: scale={scale!r} expects {expected}; found '
    f'max {largest:g}, {whole:.2%} integers among {X.nnz:,} non-zero values, '
    f'which looks like {looks}. Set data.scale to what the matrix holds, or '
    'data.layer to another matrix (layers: '
    f'{genes.listing(source.layers) or "none"})'
  )


def _gene_sets(
  source: _Source, key: str, gene_names: np.ndarray
) -> tuple[dict[str, tuple[str, ...]], list[str]]:
  """Returns the gene sets of uns, restricted to the genes of the data."""
  found = source.uns(key)
  if found is None:
    return {}, []
  if not isinstance(found, Mapping):
    raise ValueError(
      f'{source.name}: uns[{key!r}] is a {type(found).__name__}; expected '
      '{set name: gene names}'
    )
  known = set(gene_names.tolist())
  sets, lost = {}, 0
  for name, members in found.items():
    members = [str(gene) for gene in np.asarray(members).reshape(-1)]
    sets[str(name)] = tuple(gene for gene in members if gene in known)
    lost += len(members) - len(sets[str(name)])
  notes = []
  if lost:
    notes.append(
      f'uns[{key!r}]: {lost:,} members of gene sets are no genes of the data'
    )
  return sets, notes


def fingerprint(raw: Raw) -> str:
  """Returns SHA-256 over values, names, conditions and groups of a dataset.

  Stored zeros, the order of indices, the kind of matrix and the width of its
  numbers in the file do not matter; the order of cells and genes does.
  """
  digest = hashlib.sha256()

  def add(what: str, content: Any) -> None:
    if not isinstance(content, np.ndarray):
      content = np.frombuffer('\x1f'.join(content).encode(), np.uint8)
    content = np.ascontiguousarray(content)
    digest.update(f'{what}:{content.dtype}:{content.shape};'.encode())
    digest.update(memoryview(content).cast('B'))

  matrices = {'X': raw.X}
  if raw.counts is not None and raw.counts is not raw.X:
    matrices['counts'] = raw.counts
  for what, matrix in matrices.items():
    # One width, so that the fingerprint does not depend on the file's.
    add(f'{what}.indptr', matrix.indptr.astype(np.int64))
    add(f'{what}.indices', matrix.indices.astype(np.int32, copy=False))
    add(f'{what}.data', matrix.data)
  add('scale', [raw.scale])
  add('cells', raw.cell_names.tolist())
  add('genes', raw.gene_names)
  add('conditions', raw.conditions.names)
  add('condition_ids', raw.condition_ids)
  add('groups', ['\x1e'.join(group) for group in raw.groups])
  add('group_ids', raw.group_ids)
  return digest.hexdigest()
