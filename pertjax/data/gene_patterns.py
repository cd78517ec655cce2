"""Gene sets as arrays, in the three forms that models compute with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from pertjax import names as name_lib


class Pattern(NamedTuple):
  """Which gene is in which set, as pairs sorted by set and then by gene.

  Attributes:
    genes: int32 [members]; column of the gene.
    sets: int32 [members]; number of the set, not decreasing: segment sums may
      be told that their indices are sorted.
  """

  genes: np.ndarray
  sets: np.ndarray


class Table(NamedTuple):
  """The genes of each set, padded to the largest set.

  Attributes:
    genes: int32 [sets, longest]; column of the gene, 0 in the padding.
    mask: bool [sets, longest]; false in the padding.
  """

  genes: np.ndarray
  mask: np.ndarray


def pattern(sets: Mapping[str, Sequence[int]], num_genes: int) -> Pattern:
  """Returns the pairs of gene and set.

  Args:
    sets: {name: gene columns}, as DataSpec.gene_sets; set numbers are their
      order.
    num_genes: of the data.

  Raises:
    ValueError: without a set, for an empty set, for a column that is no gene
      of the data, and for one that is twice in a set.
  """
  if not sets:
    raise ValueError(
      'gene sets: the dataset has none; data.gene_sets names a file of them'
    )
  empty = [name for name, columns in sets.items() if not len(columns)]
  if empty:
    raise ValueError(
      f'gene sets: {len(empty)} have no gene of the data: '
      f'{name_lib.listing(empty)}'
    )
  sizes = [len(columns) for columns in sets.values()]
  genes = np.concatenate([np.asarray(c, np.int64) for c in sets.values()])
  number = np.repeat(np.arange(len(sets)), sizes)
  names = tuple(sets)
  wrong = np.flatnonzero((genes < 0) | (genes >= num_genes))
  if len(wrong):
    at = wrong[0]
    raise ValueError(
      f'gene sets: {names[number[at]]!r} has the column {genes[at]}; allowed: '
      f'0 to {num_genes - 1}'
    )
  order = np.lexsort((genes, number))
  genes = genes[order]
  twice = np.flatnonzero((np.diff(genes) == 0) & (np.diff(number) == 0))
  if len(twice):
    at = twice[0]
    raise ValueError(
      f'gene sets: {names[number[at]]!r} has the column {genes[at]} twice'
    )
  return Pattern(genes.astype(np.int32), number.astype(np.int32))


def table(sets: Mapping[str, Sequence[int]], num_genes: int) -> Table:
  """Returns the genes of each set, padded: for one gather of all sets.

  Raises:
    ValueError: see `pattern`.
  """
  pairs = pattern(sets, num_genes)
  sizes = np.bincount(pairs.sets, minlength=len(sets))
  mask = np.arange(sizes.max())[None] < sizes[:, None]
  genes = np.zeros(mask.shape, np.int32)
  genes[mask] = pairs.genes  # Row by row, which is the order of the pairs.
  return Table(genes, mask)


def matrix(sets: Mapping[str, Sequence[int]], num_genes: int) -> np.ndarray:
  """Returns membership as bool [genes, sets].

  Raises:
    ValueError: see `pattern`.
  """
  pairs = pattern(sets, num_genes)
  out = np.zeros((num_genes, len(sets)), bool)
  out[pairs.genes, pairs.sets] = True
  return out
