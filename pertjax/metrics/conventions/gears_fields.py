"""Columns of GEARS' `deeper_analysis` and `non_dropout_analysis`.

Twenty genes at a time come with their cells: whether a predicted mean lies
where the real cells do, and how many standard deviations off it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from pertjax import names as name_lib
from pertjax.metrics import changes, pseudobulk, sides
from pertjax.metrics import problem as problem_lib
from pertjax.metrics.conventions import gears_columns as columns
from pertjax.metrics.conventions import genes as gene_lib

OPTIONS = {
  'mixed_order': True,  # The original's control of frac_.._20_nonzero.
  'fixed_denominator': True,  # frac_correct_direction_k is divided by k.
  'variable_genes': None,  # Names of the genes of _top200_hvg.
}


class Few(NamedTuple):
  """Some genes of each condition, [conditions, 20].

  Attributes:
    index: int, -1 where there are fewer.
    counted: bool.
    predicted: means.
    observed: means.
    control: means.
    expressed: bool, some observed cell of the condition has a value.
    spread: standard deviation over the observed cells (divided by n).
    bands: {suffix: (low, high)} quantiles of the observed cells.
  """

  index: np.ndarray
  counted: np.ndarray
  predicted: np.ndarray
  observed: np.ndarray
  control: np.ndarray
  expressed: np.ndarray
  spread: np.ndarray
  bands: Mapping[str, tuple[np.ndarray, np.ndarray]]


def _few(problem: problem_lib.Problem, index: np.ndarray) -> Few:
  """Reads the cells of the chosen genes, one condition after the other."""
  counted = index >= 0
  at = np.maximum(index, 0)

  def gather(rows):
    return np.where(counted, np.take_along_axis(rows, at, axis=1), np.nan)

  levels = [level for band in columns.BANDS.values() for level in band]
  quantiles = np.full((len(levels), *index.shape), np.nan)
  spread = np.full(index.shape, np.nan)
  expressed = np.zeros(index.shape, bool)
  for row, genes in enumerate(index):
    kept = genes >= 0
    if not kept.any():
      continue
    block, _ = problem.observed.cells([row])
    cells = sides.dense(block[:, genes[kept]]).astype(np.float64)
    quantiles[:, row, kept] = np.quantile(cells, levels, axis=0)
    # Off the first cell, equal values have no spread to the last bit.
    spread[row, kept] = (cells - cells[:1]).std(0)
    expressed[row, kept] = (cells != 0).any(0)
  return Few(
    index=index,
    counted=counted,
    predicted=gather(problem.means('predicted')),
    observed=gather(problem.means('observed')),
    control=gather(problem.control_means('observed')),
    expressed=expressed,
    spread=spread,
    bands={
      suffix: (quantiles[2 * at], quantiles[2 * at + 1])
      for at, suffix in enumerate(columns.BANDS)
    },
  )


def _columns_of(few: Few, kept: slice) -> Few:
  """Returns some of the genes."""
  bands = {
    suffix: tuple(edge[:, kept] for edge in band)
    for suffix, band in few.bands.items()
  }
  return Few(*(x[:, kept] for x in few[:-1]), bands)


def _ranges_and_sigmas(few: Few, mask: np.ndarray, end: str) -> dict[str, Any]:
  distance = changes.sigma_distances(few.predicted, few.observed, few.spread)
  found = {
    f'frac_in_range{suffix}{end}': changes.share_within(
      few.predicted, *band, mask=mask
    )
    for suffix, band in few.bands.items()
  }
  for name, of in (
    ('mean_sigma', 'mean'),
    ('std_sigma', 'std'),
    ('frac_sigma_below_1', 1.0),
    ('frac_sigma_below_2', 2.0),
  ):
    found[f'{name}{end}'] = changes.sigma_summary(distance, of=of, mask=mask)
  return found


def _mixed(few: Few, mask: np.ndarray) -> tuple[np.ndarray, ...]:
  """Pairs means in the order of columns with controls in that of ranks.

  What GEARS does in frac_correct_direction_20_nonzero: predictions and truth
  come by rising column, the control by rank.
  """
  # Genes that are not there go last in both orders.
  key = np.where(few.counted, few.index, np.iinfo(np.int64).max)
  order = np.argsort(key, axis=1, kind='stable')
  return tuple(
    np.take_along_axis(x, order, axis=1)
    for x in (few.predicted, few.observed, mask)
  ) + (few.control,)


def _variable(problem: problem_lib.Problem, options) -> np.ndarray:
  """Returns the 200 genes whose means vary most over conditions, [genes]."""
  number = len(problem.genes)
  names = options['variable_genes']
  mask = np.zeros(number, bool)
  if names is not None:
    place = {gene: at for at, gene in enumerate(problem.genes)}
    known = [place[str(gene)] for gene in names if str(gene) in place]
    if not known:
      raise ValueError(
        f'variable_genes: none of them is scored: {name_lib.listing(names)}'
      )
    mask[known] = True
    return mask
  mean = problem.observed.mean
  mean = mean[~np.isnan(mean).any(1)]
  mask[np.argsort(-mean.std(0), kind='stable')[:200]] = True
  return mask


def fields(
  problem: problem_lib.Problem,
  sets: gene_lib.GeneSets,
  wanted: Sequence[str],
  options: Mapping[str, Any],
) -> dict[str, np.ndarray]:
  """Fills the columns of this module.

  Args:
    problem: of one group.
    sets: genes of each condition.
    wanted: names of columns; the cells are read only for those that need them.
    options: see OPTIONS.

  Returns:
    {column: float64 [conditions]}: at least those wanted that are of here.
  """
  found = _on_means(problem, sets, options)
  read = {
    end: sets.order[:, :20] if end == '' else getattr(sets, columns.KINDS[end])
    for end, names in columns.FROM_CELLS.items()
    if names & set(wanted)
  }
  if read:
    # One reading of the cells for all sets of genes.
    few = _few(problem, np.concatenate(list(read.values()), axis=1))
    start = 0
    for end, index in read.items():
      part = _columns_of(few, slice(start, start + index.shape[1]))
      start += index.shape[1]
      if end == '':
        found |= _deeper_cells(part, options)
      else:
        found |= _ranges_and_sigmas(part, part.counted, f'_{end}')
  return {name: np.asarray(value) for name, value in found.items()}


def _on_means(problem, sets, options) -> dict[str, Any]:
  predicted, observed = problem.means('predicted'), problem.means('observed')
  control = problem.control_means('observed')
  number = len(problem.genes)
  shifted = [changes.difference(x, control) for x in (predicted, observed)]
  everyone = predicted, observed, control
  found: dict[str, Any] = {
    'frac_correct_direction_all': changes.sign_share(*everyone),
    'pearson_delta': pseudobulk.pearson(*shifted),
  }
  masks = {k: gene_lib.top_mask(sets.order, k, number) for k in columns.TOPS}
  for k, mask in masks.items():
    share = changes.sign_share(
      *everyone, mask=mask, out_of=k if options['fixed_denominator'] else None
    )
    some = mask.any(1)
    found[f'frac_correct_direction_{k}'] = np.where(some, share, np.nan)
    found[f'pearson_delta_top{k}_de'] = pseudobulk.pearson(*shifted, mask=mask)
    found[f'pearson_top{k}_de'] = pseudobulk.pearson(
      predicted, observed, mask=mask
    )
    found[f'mse_top{k}_de'] = pseudobulk.mse(predicted, observed, mask=mask)
  found['pearson_delta_de'] = found['pearson_delta_top20_de']
  for name, (above, below) in columns.GAPS.items():
    found[f'fold_change_gap_{name}'] = changes.fold_change_gap(
      *everyone, above=above, below=below
    )
  variable = _variable(problem, options)
  found['pearson_delta_top200_hvg'] = pseudobulk.pearson(
    *shifted, mask=variable
  )
  found['pearson_top200_hvg'] = pseudobulk.pearson(
    predicted, observed, mask=variable
  )
  found['mse_top200_hvg'] = pseudobulk.mse(predicted, observed, mask=variable)
  regions = {'non_zero': sets.non_zero, 'non_dropout': sets.non_dropout}
  for end, field in columns.KINDS.items():
    mask = gene_lib.top_mask(getattr(sets, field), 20, number)
    regions[f'top20_{end}'] = mask
    found |= {
      f'pearson_delta_top20_de_{end}': pseudobulk.pearson(*shifted, mask=mask),
      f'pearson_top20_de_{end}': pseudobulk.pearson(
        predicted, observed, mask=mask
      ),
      f'mse_top20_de_{end}': pseudobulk.mse(predicted, observed, mask=mask),
    }
  for region, mask in regions.items():
    for name, apart in columns.APART.items():
      found[f'frac_{name}_direction_{region}'] = changes.sign_share(
        *everyone, mask=mask, apart=apart
      )
  return found


def _deeper_cells(few: Few, options: Mapping[str, Any]) -> dict[str, Any]:
  mask = few.counted & few.expressed
  found = _ranges_and_sigmas(few, mask, '')
  predicted, observed, kept, control = few[2], few[3], mask, few.control
  if options['mixed_order']:
    predicted, observed, kept, control = _mixed(few, mask)
  found['frac_correct_direction_20_nonzero'] = changes.sign_share(
    predicted, observed, control, mask=kept
  )
  return found
