"""Checks of what differential expression is given."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from pertjax.metrics import registry
from pertjax.types import Array

METHODS = ('wilcoxon', 'welch')
MEANS = ('geometric', 'arithmetic')
CPM_FILTERS = ('either', 'control')


def check_options(
  *,
  num_conditions: int,
  num_genes: int,
  method: str,
  mean: str,
  gene_mask: Array | None,
  cpm_filter_on: str,
) -> None:
  """Raises ValueError for options of `de` that do not fit."""
  registry.check_choice('method', method, METHODS)
  registry.check_choice('mean', mean, MEANS)
  registry.check_choice('cpm_filter_on', cpm_filter_on, CPM_FILTERS)
  if not num_genes:
    raise ValueError('values has no genes')
  if num_conditions < 2:
    raise ValueError(
      f'num_conditions is {num_conditions}; the control and at least one more '
      'are needed'
    )
  shapes = ((num_genes,), (num_conditions, num_genes))
  if gene_mask is not None and jnp.shape(gene_mask) not in shapes:
    raise ValueError(
      f'gene_mask has shape {jnp.shape(gene_mask)}; allowed: {shapes[0]} or '
      f'{shapes[1]}'
    )


def check_shapes(values: tuple[int, ...], condition: tuple[int, ...]) -> None:
  """Raises ValueError unless the shapes are [cells, genes] and [cells]."""
  if len(values) != 2 or condition != values[:1]:
    raise ValueError(
      'values must be [cells, genes] and condition [cells], found '
      f'{values} and {condition}'
    )


def check_sizes(sizes: np.ndarray, *, pairs: bool) -> None:
  """Raises ValueError for no control, or too many pairs for `rank_counts`.

  Args:
    sizes: int64 [conditions] cells.
    pairs: whether ranks are counted.
  """
  if not sizes[0]:
    raise ValueError('condition has no cell of the control (0)')
  if pairs and sizes[0] * sizes[1:].max() >= 2**31:
    raise ValueError(
      f'{sizes[0]} control cells and {sizes[1:].max()} of one condition: their '
      'product must stay below 2^31 for exact ranks; draw fewer control cells'
    )


def count_cells(condition: np.ndarray, num_conditions: int) -> np.ndarray:
  """Returns int64 [conditions] cells; others are not counted."""
  inside = condition[(condition >= 0) & (condition < num_conditions)]
  return np.bincount(inside, minlength=num_conditions).astype(np.int64)
