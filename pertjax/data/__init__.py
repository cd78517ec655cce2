"""From a config to arrays on the device: `load(config)`."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pertjax import names as name_lib
from pertjax import types
from pertjax.data import (
  arrays,
  catalog,
  conventions,
  gene_set_report,
  gene_sets,
  genes,
  h5ad,
  preprocess,
  simulate,
  splits,
)


def load(
  config, say: Callable[[str], None] = lambda line: None
) -> tuple[arrays.PerturbArrays, types.DataSpec]:
  """Reads, splits and preprocesses a dataset and moves it to the device.

  Args:
    config: the run's config; config.data and config.split are read.
    say: takes lines about long steps.

  Raises:
    ValueError: for anything in the file or the config that cannot be right.
    OSError: if a file is missing or cannot be downloaded.
  """
  # Before the cells: a damaged file of gene sets is found in a second.
  wanted = gene_sets.of_config(config.data)
  raw, source = read_raw(config.data, seed=config.seed, say=say)
  if wanted is not None:
    gene_sets.align(wanted.sets, raw.gene_names, wanted.ids)
    source['gene_sets'] = gene_sets.record(wanted)
  split = make_split(config.split, raw)
  processed = preprocess.run(
    raw,
    options={k: config.data[k] for k in preprocess.default_options()},
    train_cells=split.cells == types.TRAIN,
  )
  sets, set_notes = _gene_sets(wanted, raw, processed.gene_names)
  matrix = processed.X
  storage = config.data.storage
  limit = arrays.memory_of(jax.devices()[0])
  arrays.check_fits(*matrix.shape, matrix.nnz, storage, limit=limit)
  say(
    f'placing {arrays.storage_bytes(*matrix.shape, matrix.nnz, storage):,} '
    f'bytes of expression on {jax.devices()[0].device_kind} as {storage}'
  )
  perturbations = tuple(
    sorted({t for tokens in raw.conditions.tokens for t in tokens})
  )
  ids, doses = arrays.condition_tables(raw.conditions, perturbations)
  in_train = np.unique(raw.condition_ids[split.cells == types.TRAIN])
  trained = set(ids[in_train].ravel().tolist())
  columns = np.asarray(
    genes.perturbation_genes(perturbations, processed.gene_names).columns
  )
  num_groups = len(raw.groups)
  rows = [
    arrays.make_rows(
      split.cells == part, raw.condition_ids, raw.group_ids, num_groups
    )
    for part in (types.TRAIN, types.VAL, types.TEST)
  ]
  data = arrays.PerturbArrays(
    cells=arrays.place(matrix, storage),
    condition=jnp.asarray(raw.condition_ids, jnp.int32),
    group=jnp.asarray(raw.group_ids, jnp.int32),
    condition_perturbations=jnp.asarray(ids),
    condition_doses=jnp.asarray(doses),
    group_covariates=jnp.asarray(_group_covariates(raw)),
    train=rows[0],
    val=rows[1],
    test=rows[2],
    partner=jnp.zeros((0,), jnp.int32),
  )
  spec = types.DataSpec(
    name=source['dataset'],
    genes=tuple(processed.gene_names),
    perturbations=perturbations,
    perturbation_genes=tuple(int(c) for c in columns),
    conditions=raw.conditions,
    covariates=tuple(raw.covariates.items()),
    groups=raw.groups,
    cell_names=raw.cell_names,
    trained=tuple(p in trained for p in range(len(perturbations))),
    split=split,
    fingerprint=raw.fingerprint,
    source=source,
    gene_sets=sets,
    notes=(*raw.notes, *processed.notes, *split.notes, *set_notes),
  )
  return data, spec


def read_raw(
  options, *, seed: int, say: Callable[[str], None]
) -> tuple[h5ad.Raw, dict[str, Any]]:
  """Reads the file that config.data names, or simulates one.

  Returns:
    (raw, source); `source` records where it came from.
  """
  shared = {
    'layer': options.layer or None,
    'min_cells': options.min_cells,
    'zero_cells': options.zero_cells,
    'make_unique': options.make_unique,
    'drop_groups_without_control': options.drop_groups_without_control,
  }
  if options.dataset == 'simulate' and not options.path:
    settings = options.simulate.to_dict()
    adata = simulate.simulate(seed=seed, **settings)
    convention = convention_of_config(options)
    raw = h5ad.from_anndata(
      adata,
      convention=convention,
      scale=options.scale,
      name='simulated data',
      **shared,
    )
    return raw, {
      'dataset': 'simulate',
      'seed': seed,
      'version': simulate.VERSION,
    }
  if options.path:
    path, name = pathlib.Path(options.path), ''
  else:
    entry = catalog.get(options.dataset)
    path = catalog.fetch(entry.name, cache_dir=options.cache_dir or None)
    name = entry.name
  convention = convention_of_config(options)
  say(f'reading {path}')
  raw = h5ad.read(path, convention=convention, scale=options.scale, **shared)
  return raw, {
    'dataset': name or path.stem,
    'file': path.name,
    'preset': convention.name,
    'key': convention.key,
    'covariates': list(convention.covariates),
    'scale': options.scale,
    'layer': options.layer,
  }


def convention_of(
  options, preset: str, entry: catalog.Entry | None = None
) -> conventions.Convention:
  """Builds the naming convention: config keys over the entry's, over preset.

  Args:
    options: config.data.
    preset: used where config.data.preset is empty.
    entry: of the catalogue, where the dataset is from there.
  """
  changes: dict[str, Any] = {}
  if entry is not None:
    changes.update(
      key=entry.key,
      control=entry.control,
      covariates=entry.covariates,
      gene_names=entry.gene_names,
      dose_key=entry.dose,
    )
    # '' leaves the preset's; None means that labels are never split.
    if entry.separator != '':
      changes['separator'] = entry.separator
  for field in ('key', 'control', 'separator', 'dose_key', 'gene_names'):
    if options[field]:
      changes[field] = options[field]
  if options.covariates:
    changes['covariates'] = tuple(options.covariates)
  return conventions.make(options.preset or preset, **changes)


def make_split(options, raw: h5ad.Raw) -> types.Split:
  """Makes the split that config.split names."""
  rest = {k: options[k] for k in splits.default_options(options.method)}
  # In the config these two name a column of obs; the splitter takes its values.
  for key in ('units', 'labels'):
    if key in rest:
      rest[key] = _column(raw, rest[key], f'split.{key}')
  return splits.make(
    method=options.method,
    seed=options.seed,
    conditions=raw.conditions,
    condition=raw.condition_ids,
    group=raw.group_ids,
    group_names=tuple('|'.join(g) or 'all' for g in raw.groups),
    cell_names=raw.cell_names,
    options=rest,
  )


def _column(raw: h5ad.Raw, key: str, name: str) -> np.ndarray | None:
  """Returns a column of obs as strings, '' where a value is missing.

  None for an empty name.
  """
  if not key:
    return None
  if key not in raw.obs:
    raise ValueError(
      f'{name}={key!r} is no column of obs in {raw.source}; '
      f'{name_lib.suggestion(key, raw.obs.columns)}'
    )
  column = raw.obs[key]
  return column.astype(str).where(column.notna(), '').to_numpy()


def split_labels(
  data: arrays.PerturbArrays, spec: types.DataSpec
) -> dict[str, Any]:
  """Returns what splits.to_csv is told about the cells."""
  return {
    'conditions': spec.conditions,
    'condition': np.asarray(data.condition),
    'group': np.asarray(data.group),
    'group_names': tuple(spec.group_name(g) for g in range(len(spec.groups))),
    'cell_names': spec.cell_names,
  }


def _group_covariates(raw: h5ad.Raw) -> np.ndarray:
  """Returns int32 [groups, keys]: the level of each covariate of each group."""
  levels = [
    {value: i for i, value in enumerate(names)}
    for names in raw.covariates.values()
  ]
  table = [
    [level[value] for level, value in zip(levels, group)]
    for group in raw.groups
  ]
  return np.asarray(table, np.int32).reshape(len(raw.groups), len(levels))


def _gene_sets(
  wanted: gene_sets.Request | None, raw: h5ad.Raw, names
) -> tuple[dict[str, tuple[int, ...]], tuple[str, ...]]:
  """Returns the gene sets of the config's files, or of the data; and notes."""
  if wanted is None:
    return _gene_columns(raw.gene_sets, names), ()
  found = gene_sets.select(wanted, names)
  notes = gene_set_report.lines(found.coverage)
  if raw.gene_sets:
    notes += (
      f'gene sets: the {len(raw.gene_sets):,} of the data itself are replaced',
    )
  return found.columns, notes


def _gene_columns(sets, gene_names) -> dict[str, tuple[int, ...]]:
  """Turns gene sets of names into gene sets of columns."""
  column = {name: i for i, name in enumerate(gene_names)}
  return {
    name: tuple(column[g] for g in members if g in column)
    for name, members in sets.items()
  }


def convention_of_config(options) -> conventions.Convention:
  """Returns the naming convention of the file that config.data names."""
  if options.path:
    return convention_of(options, 'perturbench')
  if options.dataset == 'simulate':
    convention = convention_of(options, 'perturbench')
    if len(options.simulate.doses) > 1 and not options.dose_key:
      convention = convention._replace(dose_key='dose')
    return convention
  entry = catalog.get(options.dataset)
  return convention_of(options, entry.preset or 'custom', entry)
