"""Reading an AnnData file, and refusing what cannot be right.

Everything that can be wrong with a file is found here, the cheap checks before
the expensive ones, and said with the file, the key, what was found and what is
allowed. What is left out of a file is counted in the notes.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import anndata
import h5py
import numpy as np
import pandas as pd
from scipy import sparse

from pertjax import names as name_lib
from pertjax import types
from pertjax.data import cell_tables, conventions, genes, matrices, sources

_COUNTS = 'counts'


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
  sources.check_path(path)
  try:
    with h5py.File(path, 'r') as file:
      source = sources.of_file(file, str(path))
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
    sources.of_adata(adata, name), convention, scale, Options(**options)
  )


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

  values = {'X': raw.X}
  if raw.counts is not None and raw.counts is not raw.X:
    values['counts'] = raw.counts
  for what, matrix in values.items():
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


def _build(
  source: sources.Source,
  convention: conventions.Convention,
  scale: str,
  options: Options,
) -> Raw:
  """Checks and assembles; see the module."""
  name, obs = source.name, source.obs
  convention = _settled(convention, options)
  _check_request(source, convention, scale, options)
  cell_names, notes = cell_tables.unique_names(
    obs.index,
    where=f'{name}: cell names (index of obs)',
    make_unique=options.make_unique,
  )
  gene_names, columns, gene_notes = _gene_names(source, convention, options)
  notes += gene_notes
  with _named(name):
    parsed = conventions.parse_labels(
      pd.Series(obs[convention.key].array, index=cell_names),
      None if convention.dose_key is None else obs[convention.dose_key],
      convention=convention,
    )
  notes += parsed.notes
  grouped = cell_tables.group(obs, convention.covariates, name=name)
  select = functools.partial(
    cell_tables.select,
    parsed,
    grouped,
    labels=obs[convention.key],
    control=convention.control,
    name=name,
    min_cells=options.min_cells,
    drop_groups_without_control=options.drop_groups_without_control,
  )
  # Once now, to fail before the matrix is read, and once with what it says.
  select(np.ones(len(obs), bool))

  X = _matrix(source, options.layer, scale, cell_names, gene_names, columns)
  counts = X if scale == 'counts' else None
  if scale != 'counts' and options.counts_layer in source.layers:
    counts = _matrix(
      source, options.counts_layer, 'counts', cell_names, gene_names, columns
    )
  nonzero = np.diff(X.indptr) > 0
  if options.zero_cells == 'error' and not nonzero.all():
    raise ValueError(
      f'{_where(name, options.layer)}: {(~nonzero).sum():,} cells have no '
      f'count at all: {name_lib.listing(cell_names[~nonzero])}; '
      "zero_cells='drop' leaves them out"
    )
  keep, select_notes = select(nonzero)
  notes += select_notes
  if not keep.all():
    same = counts is X
    X = X[keep]
    counts = X if same else None if counts is None else counts[keep]
    obs, cell_names = obs[keep], cell_names[keep]
  conditions, ids = conventions.compact(parsed.conditions, parsed.ids[keep])
  grouped = cell_tables.group(obs, convention.covariates, name=name)
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


def _gene_names(
  source: sources.Source,
  convention: conventions.Convention,
  options: Options,
) -> tuple[np.ndarray, np.ndarray, list[str]]:
  """Returns [kept] names of the genes that are asked for, columns and notes."""
  name, column = source.name, convention.gene_names
  where = 'index of var' if column is None else f'var[{column!r}]'
  gene_names, notes = cell_tables.unique_names(
    source.var.index if column is None else source.var[column],
    where=f'{name}: gene names ({where})',
    make_unique=options.make_unique,
  )
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
  return gene_names, columns, notes


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
  """Returns the convention with the covariates that are asked for."""
  if options.covariates is not None:
    given = options.covariates
    keys = (given,) if isinstance(given, str) else tuple(given)
    convention = convention._replace(covariates=keys)
  conventions.check(convention)
  return convention


def _where(name: str, layer: str | None) -> str:
  return f'{name}, ' + ('X' if layer is None else f'layers[{layer!r}]')


def _check_request(
  source: sources.Source,
  convention: conventions.Convention,
  scale: str,
  options: Options,
) -> None:
  """Raises where a key, a layer or an option does not exist."""
  name = source.name
  if scale not in matrices.SCALES:
    raise ValueError(f'scale: {scale!r}; allowed: {", ".join(matrices.SCALES)}')
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
        f'{convention.name!r}); {name_lib.suggestion(key, source.obs)}'
      )
  column = convention.gene_names
  if column is not None and column not in source.var:
    raise ValueError(
      f'{name}: var has no column {column!r} (gene_names of convention '
      f'{convention.name!r}); {name_lib.suggestion(column, source.var)}; None '
      'takes the index of var'
    )
  layers = [options.layer]
  if options.counts_layer != _COUNTS:
    layers.append(options.counts_layer)
  for layer in layers:
    if layer is not None and layer not in source.layers:
      raise ValueError(
        f'{name}: no layer {layer!r}; '
        f'{name_lib.suggestion(layer, source.layers)}'
      )
  if not len(source.obs) or not len(source.var):
    raise ValueError(
      f'{name}: {len(source.obs)} cells and {len(source.var)} genes; nothing '
      'to read'
    )


def _matrix(
  source: sources.Source,
  layer: str | None,
  scale: str,
  cell_names: np.ndarray,
  gene_names: np.ndarray,
  columns: np.ndarray,
) -> sparse.csr_matrix:
  """Returns one checked matrix as canonical CSR float32.

  Args:
    source: to read from.
    layer: of the source; None for X.
    scale: what it must hold.
    cell_names: [cells].
    gene_names: [kept].
    columns: [kept] of the matrix, increasing.
  """
  where = _where(source.name, layer)
  X = matrices.to_csr(source.matrix(layer), where=where, layers=source.layers)
  shape = (len(source.obs), len(source.var))
  if X.shape != shape:
    raise ValueError(
      f'{where}: {X.shape[0]} x {X.shape[1]} values, but {shape[0]} cells in '
      f'obs and {shape[1]} genes in var'
    )
  if len(columns) < X.shape[1]:
    X = X[:, columns]
  matrices.check_values(
    X, where=where, cell_names=cell_names, gene_names=gene_names
  )
  matrices.check_scale(X, scale, where=where, layers=source.layers)
  return X


def _gene_sets(
  source: sources.Source, key: str, gene_names: np.ndarray
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
