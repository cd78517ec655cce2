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

from pertjax.data import genes, h5ad

FLAVORS = ('seurat_v3', 'seurat')
_BLOCK_ROWS = 16384
_BLOCK_VALUES = 1 << 23
# Below this share, a difference of float64 sums is rounding and no signal.
_ROUNDING = 1e-12


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
    hvg_flavor: one of FLAVORS; 'seurat_v3' needs counts.
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


class Variable(NamedTuple):
  """Highly variable genes.

  Attributes:
    selected: bool [genes].
    score: float64 [genes]; higher is more variable. 'seurat_v3': the mean over
      batches of the variance of standardised counts; 'seurat': of the
      normalised dispersion.
    rank: float64 [genes]; the median over batches of the rank among the `num`
      best, NaN where a gene is never among them.
    batches: int [genes]; batches in which a gene is among the `num` best.
    notes: lines that a user should read.
  """

  selected: np.ndarray
  score: np.ndarray
  rank: np.ndarray
  batches: np.ndarray
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
    variable = highly_variable(
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
    de_genes = degs(log, raw.condition_ids, raw.group_ids, num=options.degs)
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
  return _like(X, np.multiply(X.data, factor, out=factor, casting='same_kind'))


def log1p(X: sparse.csr_matrix) -> sparse.csr_matrix:
  """Returns ln(1 + x); CSR that shares its indices with X."""
  return _like(X, np.log1p(X.data))


def degs(
  X: sparse.csr_matrix,
  condition_ids: np.ndarray,
  group_ids: np.ndarray,
  *,
  num: int,
  cells: np.ndarray | None = None,
) -> dict[tuple[int, int], np.ndarray]:
  """Ranks genes by difference from the control of the same group.

  The score is Welch's t statistic, (m1 - m0) / sqrt(v1 / n1 + v0 / n0), with
  variances over n - 1; genes are ranked by its absolute value, ties by column.
  It is 0 where both variances are 0 and the means agree.

  Args:
    X: CSR [cells, genes], log-normalised.
    condition_ids: int [cells]; 0 is the control.
    group_ids: int [cells].
    num: genes to return for each pair, at most.
    cells: bool [cells] to use; all by default.

  Returns:
    {(condition, group): int32 columns, best first} for every pair with at
    least two cells, in a group with at least two control cells.
  """
  condition_ids = np.asarray(condition_ids, np.int64)
  num_groups = int(np.max(group_ids, initial=0)) + 1
  pairs, ids = np.unique(
    condition_ids * num_groups + group_ids, return_inverse=True
  )
  count, mean, variance = _moments(X, ids, len(pairs), cells)
  row = {divmod(int(p), num_groups): index for index, p in enumerate(pairs)}
  ranked: dict[tuple[int, int], np.ndarray] = {}
  for (condition, group), index in row.items():
    control = row.get((0, group))
    if condition == 0 or control is None:
      continue
    if min(count[index], count[control]) < 2:
      continue
    score = welch_t(
      mean[index],
      variance[index],
      count[index],
      mean[control],
      variance[control],
      count[control],
    )
    order = np.argsort(-np.abs(score), kind='stable')
    ranked[condition, group] = order[:num].astype(np.int32)
  return ranked


def welch_t(
  mean: np.ndarray,
  variance: np.ndarray,
  count: float,
  control_mean: np.ndarray,
  control_variance: np.ndarray,
  control_count: float,
) -> np.ndarray:
  """Returns Welch's t statistic; 0 where it is 0 / 0.

  Args:
    mean, variance: [genes] of the perturbed cells; variance over n - 1.
    count: number of perturbed cells.
    control_mean, control_variance: [genes] of the control cells.
    control_count: number of control cells.
  """
  error = np.sqrt(variance / count + control_variance / control_count)
  difference = mean - control_mean
  # A gene that is constant everywhere must not score infinity for rounding.
  size = np.maximum(np.abs(mean), np.abs(control_mean))
  same = (error == 0) & (np.abs(difference) <= _ROUNDING * size)
  with np.errstate(divide='ignore', invalid='ignore'):
    return np.where(same, 0.0, difference / error)


def highly_variable(
  X: sparse.csr_matrix,
  *,
  num: int,
  groups: np.ndarray | None = None,
  flavor: str = 'seurat_v3',
  cells: np.ndarray | None = None,
) -> Variable:
  """Finds the genes that vary most for their mean.

  'seurat_v3' (Stuart et al. 2019): per batch, the variance of counts that are
  standardised by a loess fit of log10 variance on log10 mean and clipped at
  sqrt(cells) standard deviations; genes are sorted by their median rank among
  each batch's `num` best, then by the number of batches. 'seurat' (Satija et
  al. 2015): per batch, the log dispersion z-scored within 20 bins of the log
  mean; genes are sorted by the number of batches whose `num` best they are in,
  then by mean score. One batch sorts by score alone. Ties go by column.

  Args:
    X: CSR [cells, genes]; counts for 'seurat_v3', ln(1 + x) for 'seurat'.
    num: genes to select.
    groups: int [cells]; batches to rank within. One batch by default.
    flavor: one of FLAVORS.
    cells: bool [cells] to use; all by default.

  Raises:
    ValueError: for an unknown flavor, or no batch with two cells.
  """
  if flavor not in FLAVORS:
    raise ValueError(f'hvg_flavor: {flavor!r}; allowed: {", ".join(FLAVORS)}')
  num_cells, num_genes = X.shape
  groups = np.zeros(num_cells, np.int64) if groups is None else groups
  cells = np.ones(num_cells, bool) if cells is None else cells
  num = min(num, num_genes)
  scores, skipped = [], []
  for group in np.unique(groups[cells]):
    rows = np.flatnonzero(cells & (groups == group))
    if len(rows) < 2:
      skipped.append(int(group))
      continue
    batch = X if len(rows) == num_cells else X[rows]
    score = _standardized if flavor == 'seurat_v3' else _dispersion
    scores.append(score(batch))
  if not scores:
    raise ValueError('highly variable genes: no group has two cells to use')

  score = np.stack(scores)
  rank = np.argsort(np.argsort(-score, axis=1, kind='stable'), axis=1)
  among = rank < num
  batches = among.sum(axis=0)
  # Ranks past `num` do not count; the median is over the batches that do.
  hidden = np.sort(np.where(among, rank, np.inf), axis=0)
  middle = np.maximum(batches - 1, 0)
  columns = np.arange(num_genes)
  low, high = hidden[middle // 2, columns], hidden[(middle + 1) // 2, columns]
  median = np.where(batches > 0, (low + high) / 2, np.inf)
  mean_score = score.mean(axis=0)
  if flavor == 'seurat_v3':
    order = np.lexsort((-batches, median))
  else:
    order = np.lexsort((-mean_score, -batches))
  selected = np.zeros(num_genes, bool)
  selected[order[:num]] = True
  notes = []
  if skipped:
    notes.append(
      f'highly variable genes: {len(skipped)} groups with fewer than 2 cells '
      f'to use were left out: {genes.listing(skipped)}'
    )
  median[np.isinf(median)] = np.nan
  return Variable(selected, mean_score, median, batches, tuple(notes))


def loess(
  x: np.ndarray,
  y: np.ndarray,
  *,
  at: np.ndarray | None = None,
  span: float = 0.3,
  cell: float = 0.2,
) -> np.ndarray:
  """Fits local quadratics with tricube weights, and blends them.

  Cleveland & Grosse (1991): the fit is exact at the vertices of a k-d tree,
  whose cells hold at most `span * cell` of the points, and between vertices it
  is the cubic that has their values and slopes. Agrees with `loess` of R and
  of scikit-misc at degree 2, one predictor, gaussian family. Where so many
  points share one x that a neighbourhood has no width, those raise; here it is
  widened to the next point.

  Args:
    x: [points] predictor.
    y: [points] response.
    at: where to evaluate, within the range of x; x by default.
    span: share of the points in each neighbourhood.
    cell: share of a neighbourhood in each cell of the tree.

  Returns:
    float64, as `at`.
  """
  order = np.argsort(x, kind='stable')
  x, y, at = np.asarray(x, float), np.asarray(y, float), x if at is None else at
  x, y = x[order], y[order]
  count = len(x)
  near = min(count, max(int(count * span + 1e-5), min(count, 4)))
  vertices = _vertices(x, int(count * span * cell))
  fits = np.array([_local_fit(x, y, vertex, near) for vertex in vertices])
  value, slope = fits[:, 0], fits[:, 1]
  left = np.clip(
    np.searchsorted(vertices, at, side='right') - 1, 0, len(vertices) - 2
  )
  width = vertices[left + 1] - vertices[left]
  t = (at - vertices[left]) / width
  # Cubic Hermite basis.
  return (
    value[left] * (1 + 2 * t) * (1 - t) ** 2
    + value[left + 1] * t**2 * (3 - 2 * t)
    + slope[left] * width * t * (1 - t) ** 2
    + slope[left + 1] * width * t**2 * (t - 1)
  )


def _settled(options: Options | Mapping[str, str | float | bool]) -> Options:
  """Returns Options with texts turned into what they say."""
  if not isinstance(options, Options):
    for key in options:
      if key not in Options._fields:
        raise ValueError(
          f'preprocess: no option {key!r}; '
          f'{genes.suggestion(key, Options._fields, 9)}'
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
  if options.hvg_flavor not in FLAVORS:
    raise ValueError(
      f'hvg_flavor: {options.hvg_flavor!r}; allowed: {", ".join(FLAVORS)}'
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
        f'(totals_key); {genes.suggestion(options.totals_key, raw.obs)}'
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
        f'{len(names)} of them are perturbed genes: {genes.listing(names, 10)}'
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
  variable: Variable,
  options: Options,
  cells: np.ndarray | None,
  notes: list[str],
) -> np.ndarray:
  """Returns increasing columns of `log`: variable, perturbed, differential."""
  chosen = variable.selected.copy()
  perturbed, perturbed_notes = _perturbed(raw, kept)
  notes += perturbed_notes
  chosen[perturbed] = True
  differential = np.zeros(len(chosen), bool)
  if options.degs:
    ranked = degs(
      log, raw.condition_ids, raw.group_ids, num=options.degs, cells=cells
    )
    for columns in ranked.values():
      differential[columns] = True
    chosen |= differential
  if options.num_hvg > len(kept):
    notes.append(
      f'num_hvg: {options.num_hvg:,} asked, {len(kept):,} genes are left'
    )
  of = 'all' if cells is None else f'{cells.sum():,} training'
  notes.append(
    f'{chosen.sum():,} genes kept: {variable.selected.sum():,} highly variable '
    f'({options.hvg_flavor}, on {of} cells), {len(perturbed)} perturbed and '
    f'{differential.sum():,} differential, which overlap'
  )
  return np.flatnonzero(chosen)


def _num_pairs(raw: h5ad.Raw) -> int:
  """Returns the number of (condition, group) pairs, controls left out."""
  perturbed = raw.condition_ids > 0
  codes = raw.condition_ids.astype(np.int64) * len(raw.groups) + raw.group_ids
  return len(np.unique(codes[perturbed]))


def _like(X: sparse.csr_matrix, data: np.ndarray) -> sparse.csr_matrix:
  return sparse.csr_matrix((data, X.indices, X.indptr), shape=X.shape)


def _moments(
  X: sparse.csr_matrix,
  ids: np.ndarray,
  num: int,
  cells: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Returns the moments of cells by class, summed in float64.

  Args:
    X: CSR [cells, genes].
    ids: int [cells] in [0, num).
    num: number of classes.
    cells: bool [cells] to use; all by default.

  Returns:
    count: int64 [num].
    mean: float64 [num, genes]; 0 where a class has no cell.
    variance: float64 [num, genes] over n - 1; 0 for fewer than two cells.
  """
  rows = np.arange(X.shape[0]) if cells is None else np.flatnonzero(cells)
  rows = rows[np.argsort(ids[rows], kind='stable')]
  count = np.bincount(ids[rows], minlength=num)
  total = np.zeros((num, X.shape[1]))
  square = np.zeros((num, X.shape[1]))
  # Rows are sorted by class, so that a block touches few classes.
  for start in range(0, len(rows), _BLOCK_ROWS):
    block_rows = rows[start : start + _BLOCK_ROWS]
    block = X[block_rows].astype(np.float64)
    first, last = ids[block_rows[0]], ids[block_rows[-1]] + 1
    member = sparse.csr_matrix(
      (
        np.ones(len(block_rows)),
        (ids[block_rows] - first, np.arange(len(block_rows))),
      ),
      shape=(last - first, len(block_rows)),
    )
    total[first:last] += (member @ block).toarray()
    block.data **= 2
    square[first:last] += (member @ block).toarray()
  n = count[:, None]
  mean = total / np.maximum(n, 1)
  spread = square - total * mean
  spread[spread <= _ROUNDING * square] = 0
  variance = spread / np.maximum(n - 1, 1)
  return count, mean, variance


def _one_batch(X: sparse.csr_matrix) -> tuple[np.ndarray, np.ndarray]:
  """Returns float64 [genes] mean, and variance over n - 1."""
  _, mean, variance = _moments(X, np.zeros(X.shape[0], np.int64), 1)
  return mean[0], variance[0]


def _standardized(X: sparse.csr_matrix) -> np.ndarray:
  """Returns [genes] variances of standardised, clipped counts."""
  n = X.shape[0]
  mean, variance = _one_batch(X)
  varies = variance > 0
  deviation = np.ones(X.shape[1])
  if varies.any():
    fit = loess(np.log10(mean[varies]), np.log10(variance[varies]))
    deviation[varies] = np.sqrt(10**fit)
  ceiling = deviation * np.sqrt(n) + mean
  total, square = np.zeros(X.shape[1]), np.zeros(X.shape[1])
  for start in range(0, X.nnz, _BLOCK_VALUES):
    columns = X.indices[start : start + _BLOCK_VALUES]
    clipped = np.minimum(
      X.data[start : start + _BLOCK_VALUES], ceiling[columns]
    )
    total += np.bincount(columns, clipped, minlength=X.shape[1])
    square += np.bincount(columns, clipped**2, minlength=X.shape[1])
  spread = n * mean**2 + square - 2 * total * mean
  return spread / ((n - 1) * deviation**2)


def _dispersion(X: sparse.csr_matrix, bins: int = 20) -> np.ndarray:
  """Returns [genes] dispersions z-scored among genes of like mean.

  A gene alone in its bin scores 1, one that does not vary scores 0.
  """
  mean, variance = _one_batch(_like(X, np.expm1(X.data)))
  varies = variance > 0
  score = np.zeros(X.shape[1])
  if not varies.any():
    return score
  # Genes that do not vary take part in the range of the bins.
  edges_of = pd.cut(np.log1p(np.maximum(mean, 1e-12)), bins, labels=False)
  table = pd.DataFrame(
    {'bin': edges_of[varies], 'log': np.log(variance[varies] / mean[varies])}
  )
  grouped = table.groupby('bin')['log']
  center, spread = grouped.transform('mean'), grouped.transform('std')
  alone = spread.isna()
  score[varies] = np.where(alone, 1.0, (table['log'] - center) / spread)
  return score


def _vertices(x: np.ndarray, most: int) -> np.ndarray:
  """Returns the sorted vertices of a one-dimensional k-d tree over sorted x.

  A cell of more than `most` points is cut at its middle point, or at the
  nearest place where neighbours differ.
  """
  low, high = x[0], x[-1]
  largest = max(abs(low), abs(high))
  margin = 0.005 * max(high - low, 1e-10 * largest + 1e-30)
  bounds = (low - margin, high + margin)
  vertices = set(bounds)
  cells = [(0, len(x) - 1, *bounds)]
  while cells:
    first, last, left, right = cells.pop()
    if last - first + 1 <= max(most, 1):
      continue
    cut = _cut(x, first, last)
    if cut is None or x[cut] in (left, right):
      continue
    vertices.add(x[cut])
    cells.append((first, cut, left, x[cut]))
    cells.append((cut + 1, last, x[cut], right))
  return np.array(sorted(vertices))


def _cut(x: np.ndarray, first: int, last: int) -> int | None:
  """Returns the index after which to cut, nearest the middle, or None."""
  differs = np.flatnonzero(x[first:last] != x[first + 1 : last + 1]) + first
  if not len(differs):
    return None
  # Counted from one, the middle of (first, last) is rounded down.
  middle = (first + last + 2) // 2 - 1
  distance = np.abs(differs - middle)
  # Of two at the same distance the later one is tried first.
  return int(differs[np.lexsort((-differs, distance))[0]])


def _local_fit(
  x: np.ndarray, y: np.ndarray, center: float, near: int
) -> tuple[float, float]:
  """Returns value and slope at `center` of a tricube-weighted quadratic."""
  distance = np.abs(x - center)
  radius = np.partition(distance, near - 1)[near - 1]
  if radius == 0:
    positive = distance[distance > 0]
    # Twice the distance, so that the nearest other point has weight.
    radius = 2 * positive.min() if len(positive) else 1.0
  inside = distance < radius
  offset = x[inside] - center
  root = np.sqrt((1 - (distance[inside] / radius) ** 3) ** 3)
  design = root[:, None] * np.stack(
    [np.ones_like(offset), offset, offset**2], axis=1
  )
  norm = np.linalg.norm(design, axis=0)
  norm[norm == 0] = 1.0
  solution = np.linalg.lstsq(
    design / norm, root * y[inside], rcond=100 * np.finfo(float).eps
  )[0]
  value, slope, _ = solution / norm
  return float(value), float(slope)
