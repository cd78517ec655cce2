"""From measured cells to the matrix that a model learns from.

The order is PerturBench's (Wu et al. 2024, arXiv 2408.10609): genes detected in
too few cells leave, cells are scaled to one total, ln(1 + x), and of the genes
that are left the variable ones, the perturbed ones and the differentially
expressed ones stay. Unlike there, genes are chosen on the training cells unless
asked otherwise, and they keep the order of the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import sparse

from pertjax import names as name_lib
from pertjax.data import differential, genes, h5ad, hvg, matrices


class Options(NamedTuple):
  """What to do to a dataset.

  Attributes:
    normalize: 'median' scales every cell to the median of the cells' totals, a
      number (or its text) to that total, 'none' leaves them. 'auto' is 'median'
      on counts and 'none' on log1p values, on which the others are errors.
    totals_key: column of obs with the total of each cell over the whole
      transcriptome, for files that hold a part of the genes. Empty sums the
      genes that are left.
    log1p: whether X is to be ln(1 + x); applied where it is not so already.
    min_cells_per_gene: drop genes detected in fewer cells; all cells count, so
      that the genes do not depend on the split. A perturbed gene may leave too.
    num_hvg: highly variable genes to keep, beside the perturbed ones; 0 keeps
      every gene.
    hvg_flavor: one of hvg.FLAVORS; 'seurat_v3' needs counts.
    hvg_cells: 'train' or 'all'; the cells that variable and differential genes
      are chosen on.
    degs: differential genes for each condition and group, 0 for none. Where
      num_hvg is set they are kept as well.
    use_counts: give the model counts, not log values.
  """

  normalize: str | float = 'auto'
  totals_key: str | None = None
  log1p: bool = True
  min_cells_per_gene: int = 10
  num_hvg: int = 0
  hvg_flavor: str = 'seurat_v3'
  hvg_cells: str = 'train'
  degs: int = 0
  use_counts: bool = False


class Processed(NamedTuple):
  """A dataset ready for models and metrics; cells are those of the Raw.

  Attributes:
    X: CSR float32 [cells, kept]; log-normalised, or counts if `use_counts`.
    counts: CSR float32 [cells, kept] raw counts, None where there are none.
    genes: int32 [kept]; column of each kept gene in the Raw, increasing.
    gene_names: [kept].
    highly_variable: bool [kept], or None where none were asked for.
    de_genes: {(condition, group): int32 columns of X}, most differential
      first, over all cells: for judging predictions, not for making them.
    notes: what was done, with numbers.
  """

  X: sparse.csr_matrix
  counts: sparse.csr_matrix | None
  genes: np.ndarray
  gene_names: tuple[str, ...]
  highly_variable: np.ndarray | None
  de_genes: Mapping[tuple[int, int], np.ndarray]
  notes: tuple[str, ...]


def default_options() -> dict[str, str | float | bool]:
  """Returns the defaults of Options for a config; '' stands for no key."""
  return {**Options()._asdict(), 'totals_key': ''}


def run(
  raw: h5ad.Raw,
  *,
  options: Options | Mapping[str, str | float | bool],
  train_cells: np.ndarray,
) -> Processed:
  """Preprocesses a dataset; the steps are those of the module's text.

  Args:
    raw: see h5ad.Raw.
    options: see Options; or a mapping of its fields, the others by default.
    train_cells: bool [cells]; the cells that models may learn from.

  Raises:
    ValueError: for options that do not fit each other or the data.
  """
  train_cells = np.asarray(train_cells)
  options = _settled(options)
  _check(raw, options, train_cells)
  notes: list[str] = []
  kept = _detected_genes(raw, options, notes)
  X = raw.X if len(kept) == raw.X.shape[1] else raw.X[:, kept]
  log = _normalized(X, raw, options, notes)

  choose = train_cells if options.hvg_cells == 'train' else None
  variable = None
  if options.num_hvg:
    kept_counts = X if raw.counts is raw.X else None
    if kept_counts is None and raw.counts is not None:
      kept_counts = raw.counts[:, kept]
    variable = hvg.highly_variable(
      kept_counts if options.hvg_flavor == 'seurat_v3' else log,
      num=options.num_hvg,
      groups=raw.group_ids,
      flavor=options.hvg_flavor,
      cells=choose,
    )
    notes += variable.notes
    chosen = _chosen(raw, log, kept, variable, options, choose, notes)
    log, kept = log[:, chosen], kept[chosen]
    variable = variable.selected[chosen]
  else:
    notes += _perturbed(raw, kept)[1]

  de_genes: dict[tuple[int, int], np.ndarray] = {}
  if options.degs:
    de_genes = differential.degs(
      log, raw.condition_ids, raw.group_ids, num=options.degs
    )
    pairs = _num_pairs(raw)
    notes.append(
      f'{options.degs} most differential genes listed for {len(de_genes):,} of '
      f'{pairs:,} (condition, group) pairs'
      + ('; the others have fewer than 2 cells' * (len(de_genes) < pairs))
    )
  counts = None
  if raw.counts is not None:
    everything = len(kept) == raw.X.shape[1]
    counts = raw.counts if everything else raw.counts[:, kept]
  if options.use_counts:
    notes.append('models are given counts')
  return Processed(
    X=counts if options.use_counts else log,
    counts=counts,
    genes=kept.astype(np.int32),
    gene_names=tuple(raw.gene_names[index] for index in kept),
    highly_variable=variable,
    de_genes=de_genes,
    notes=tuple(notes),
  )


def normalize_total(
  X: sparse.csr_matrix,
  *,
  target: str | float = 'median',
  totals: np.ndarray | None = None,
) -> sparse.csr_matrix:
  """Scales every cell to the same total.

  x_ij <- x_ij * target / total_i. Cells whose total is 0 stay as they are.

  Args:
    X: CSR [cells, genes].
    target: the new total, or 'median' for the median total of the cells that
      have one.
    totals: [cells] totals to scale by; the sums of X by default.

  Returns:
    CSR float32; it shares its indices with X.

  Raises:
    ValueError: for a target that is not positive, or no cell with a total.
  """
  if totals is None:
    totals = X.sum(axis=1, dtype=np.float64)
  totals = np.asarray(totals, np.float64).reshape(-1)
  some = totals > 0
  if not some.any():
    raise ValueError('normalize: no cell has a total above 0')
  if target == 'median':
    target = float(np.median(totals[some]))
  if isinstance(target, str) or not 0 < target < np.inf:
    raise ValueError(
      f"normalize: {target!r}; allowed: 'median', 'none' or a positive number"
    )
  scale = np.divide(target, totals, out=np.ones_like(totals), where=some)
  factor = np.repeat(scale.astype(np.float32), np.diff(X.indptr))
  return matrices.with_values(
    X, np.multiply(X.data, factor, out=factor, casting='same_kind')
  )


def log1p(X: sparse.csr_matrix) -> sparse.csr_matrix:
  """Returns ln(1 + x); CSR that shares its indices with X."""
  return matrices.with_values(X, np.log1p(X.data))


def _settled(options: Options | Mapping[str, str | float | bool]) -> Options:
  """Returns Options with texts turned into what they say."""
  if not isinstance(options, Options):
    for key in options:
      if key not in Options._fields:
        raise ValueError(
          f'preprocess: no option {key!r}; '
          f'{name_lib.suggestion(key, Options._fields, 9)}'
        )
    options = Options(**options)
  target = options.normalize
  if isinstance(target, str) and target not in ('auto', 'median', 'none'):
    try:
      target = float(target)
    except ValueError:
      raise ValueError(
        f"normalize: {target!r}; allowed: 'auto', 'median', 'none' or a "
        'positive number'
      ) from None
  return options._replace(
    normalize=target, totals_key=options.totals_key or None
  )


def _check(raw: h5ad.Raw, options: Options, train_cells: np.ndarray) -> None:
  """Raises where options do not fit each other or the data."""
  num_cells = raw.X.shape[0]
  if train_cells.shape != (num_cells,) or train_cells.dtype != bool:
    raise ValueError(
      f'train_cells: {train_cells.dtype} {train_cells.shape}; expected bool '
      f'({num_cells},)'
    )
  if options.hvg_cells not in ('train', 'all'):
    raise ValueError(
      f"hvg_cells: {options.hvg_cells!r}; allowed: 'train', 'all'"
    )
  if options.hvg_flavor not in hvg.FLAVORS:
    raise ValueError(
      f'hvg_flavor: {options.hvg_flavor!r}; allowed: {", ".join(hvg.FLAVORS)}'
    )
  for key in ('min_cells_per_gene', 'num_hvg', 'degs'):
    if getattr(options, key) < 0:
      raise ValueError(f'{key}: {getattr(options, key)}; allowed: 0 or more')
  choosing = options.num_hvg and options.hvg_cells == 'train'
  if choosing and not train_cells.any():
    raise ValueError(
      "hvg_cells: 'train', but no cell is a training cell; 'all' uses all"
    )
  already = raw.scale == 'log1p'
  if already and options.normalize not in ('auto', 'none'):
    raise ValueError(
      f"normalize: {options.normalize!r}, but data.scale is 'log1p': it is "
      "normalised already; leave it 'auto' or 'none'"
    )
  if already and not options.log1p:
    raise ValueError(
      "log1p: False, but data.scale is 'log1p': it is applied already; read a "
      'layer with counts instead'
    )
  if options.totals_key is not None:
    if already or options.normalize == 'none':
      raise ValueError(
        f'totals_key: {options.totals_key!r} is not used where nothing is '
        'normalised; leave it empty'
      )
    if options.totals_key not in raw.obs:
      raise ValueError(
        f'{raw.source}: obs has no column {options.totals_key!r} '
        f'(totals_key); {name_lib.suggestion(options.totals_key, raw.obs)}'
      )
  if raw.counts is None:
    if options.use_counts:
      raise ValueError(f'use_counts: {raw.source} has no layer with counts')
    if options.num_hvg and options.hvg_flavor == 'seurat_v3':
      raise ValueError(
        f"hvg_flavor: 'seurat_v3' needs counts, and {raw.source} has no layer "
        "with them; use 'seurat'"
      )


def _detected_genes(
  raw: h5ad.Raw, options: Options, notes: list[str]
) -> np.ndarray:
  """Returns the columns of genes detected in enough cells."""
  detected = np.bincount(raw.X.indices, minlength=raw.X.shape[1])
  kept = np.flatnonzero(detected >= options.min_cells_per_gene)
  if not len(kept):
    raise ValueError(
      f'min_cells_per_gene: {options.min_cells_per_gene}; no gene is detected '
      f'in so many cells (at most {detected.max():,})'
    )
  lost = len(detected) - len(kept)
  if lost:
    notes.append(
      f'{lost:,} of {len(detected):,} genes detected in fewer than '
      f'{options.min_cells_per_gene} cells dropped'
    )
    perturbed, _ = _perturbed(raw, np.arange(len(detected)))
    names = [raw.gene_names[c] for c in np.setdiff1d(perturbed, kept)]
    if names:
      notes.append(
        f'{len(names)} of them are perturbed genes: '
        f'{name_lib.listing(names, 10)}'
      )
  return kept


def _normalized(
  X: sparse.csr_matrix, raw: h5ad.Raw, options: Options, notes: list[str]
) -> sparse.csr_matrix:
  """Applies normalisation and logarithm, as far as they are due."""
  if raw.scale == 'log1p':
    notes.append('values are ln(1 + x) already: not normalised')
    return X
  target = 'median' if options.normalize == 'auto' else options.normalize
  if target != 'none':
    totals, of = _totals(X, raw, options)
    empty = int((totals <= 0).sum())
    if empty:
      notes.append(f'{empty:,} cells have no count in the genes that are left')
    X = normalize_total(X, target=target, totals=totals)
    size = np.median(totals[totals > 0]) if target == 'median' else target
    kind = 'the median total' if target == 'median' else 'the total'
    notes.append(f'cells scaled to {kind} {float(size):g} of {of}')
  if options.log1p:
    X = log1p(X)
    notes.append('ln(1 + x) applied')
  return X


def _totals(
  X: sparse.csr_matrix, raw: h5ad.Raw, options: Options
) -> tuple[np.ndarray, str]:
  """Returns float64 [cells] totals, and what they are totals of."""
  sums = np.asarray(X.sum(axis=1, dtype=np.float64)).reshape(-1)
  key = options.totals_key
  if key is None:
    return sums, f'{X.shape[1]:,} genes'
  column = raw.obs[key]
  where = f'{raw.source}: obs[{key!r}] (totals_key)'
  if not pd.api.types.is_numeric_dtype(column):
    raise ValueError(f'{where}: {column.dtype}; expected numbers')
  totals = column.to_numpy(np.float64, na_value=np.nan)
  for what, bad in (
    ('are not positive and finite', ~((totals > 0) & (totals < np.inf))),
    ('are less than the sum of the genes here', totals < sums * (1 - 1e-6)),
  ):
    if bad.any():
      first = np.flatnonzero(bad)[0]
      raise ValueError(
        f'{where}: {bad.sum():,} of {len(bad):,} values {what}, the first '
        f'({totals[first]:g}, sum {sums[first]:g}) in cell '
        f'{str(raw.cell_names[first])!r}'
      )
  return totals, f'obs[{key!r}]'


def _perturbed(
  raw: h5ad.Raw, kept: np.ndarray
) -> tuple[np.ndarray, tuple[str, ...]]:
  """Returns positions in `kept` of the perturbed genes, and notes."""
  tokens = sorted({t for each in raw.conditions.tokens for t in each})
  names = [raw.gene_names[column] for column in kept]
  columns, notes = genes.perturbation_genes(tokens, names)
  columns = np.array(columns, np.int64)
  return np.unique(columns[columns >= 0]), notes


def _chosen(
  raw: h5ad.Raw,
  log: sparse.csr_matrix,
  kept: np.ndarray,
  variable: hvg.Variable,
  options: Options,
  cells: np.ndarray | None,
  notes: list[str],
) -> np.ndarray:
  """Returns increasing columns of `log`: variable, perturbed, differential."""
  chosen = variable.selected.copy()
  perturbed, perturbed_notes = _perturbed(raw, kept)
  notes += perturbed_notes
  chosen[perturbed] = True
  differs = np.zeros(len(chosen), bool)
  if options.degs:
    ranked = differential.degs(
      log, raw.condition_ids, raw.group_ids, num=options.degs, cells=cells
    )
    for columns in ranked.values():
      differs[columns] = True
    chosen |= differs
  if options.num_hvg > len(kept):
    notes.append(
      f'num_hvg: {options.num_hvg:,} asked, {len(kept):,} genes are left'
    )
  of = 'all' if cells is None else f'{cells.sum():,} training'
  notes.append(
    f'{chosen.sum():,} genes kept: {variable.selected.sum():,} highly variable '
    f'({options.hvg_flavor}, on {of} cells), {len(perturbed)} perturbed and '
    f'{differs.sum():,} differential, which overlap'
  )
  return np.flatnonzero(chosen)


def _num_pairs(raw: h5ad.Raw) -> int:
  """Returns the number of (condition, group) pairs, controls left out."""
  perturbed = raw.condition_ids > 0
  codes = raw.condition_ids.astype(np.int64) * len(raw.groups) + raw.group_ids
  return len(np.unique(codes[perturbed]))
