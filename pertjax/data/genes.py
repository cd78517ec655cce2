"""Genes by name: where those that are wanted or perturbed are in the data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from pertjax import names as name_lib

# data/predictions.py still looks for it here.


class Alignment(NamedTuple):
  """Where the wanted genes are in the data.

  Attributes:
    columns: int32 [wanted]; column of each wanted gene in the data, -1 where
      it is missing.
    missing: the wanted genes that the data does not have, in their order.
    notes: lines that a user should read.
  """

  columns: np.ndarray
  missing: tuple[str, ...]
  notes: tuple[str, ...]


class Perturbed(NamedTuple):
  """Where the perturbed genes are in the data.

  Attributes:
    columns: [perturbations]; column of the gene that each perturbation names,
      -1 where no gene has that name.
    notes: lines that a user should read.
  """

  columns: tuple[int, ...]
  notes: tuple[str, ...]


def align(
  data_genes: Sequence[str],
  wanted: Sequence[str],
  *,
  allow_missing: bool = False,
  ignore_case: bool = False,
) -> Alignment:
  """Finds each wanted gene among the genes of a dataset.

  Args:
    data_genes: [genes] unique names.
    wanted: [wanted] unique names.
    allow_missing: report genes that the data lacks in `missing` and `notes`
      instead of raising.
    ignore_case: also accept a gene whose name differs in letter case only,
      where exactly one gene of the data does; such matches are noted. Where
      this is off they are still named in the notes or the error, because they
      often mean another species' symbols.

  Raises:
    ValueError: if names occur twice, nothing is wanted, no gene is shared, or
      a gene is missing and that is not allowed.
  """
  columns, notes = _match(data_genes, wanted, ignore_case)
  missing = tuple(
    name for name, index in zip(wanted, columns, strict=True) if index < 0
  )
  if len(missing) == len(wanted):
    raise ValueError(
      f'genes: none of the {len(wanted)} wanted genes is in the data (wanted: '
      f'{name_lib.listing(wanted)}; in the data: '
      f'{name_lib.listing(data_genes)}). Are both symbols, or both Ensembl '
      'ids, of one species? ' + ' '.join(notes)
    )
  if missing and not allow_missing:
    hints = '; '.join(
      f'{name!r}: {name_lib.suggestion(name, data_genes)}'
      for name in missing[:3]
    )
    raise ValueError(
      f'genes: {len(missing)} of {len(wanted)} wanted genes are not in the '
      f'data: {name_lib.listing(missing)} ({hints}). ' + ' '.join(notes)
    )
  if missing:
    notes.append(
      f'{len(missing)} of {len(wanted)} wanted genes are not in the data: '
      f'{name_lib.listing(missing)}'
    )
  return Alignment(columns, missing, tuple(notes))


def perturbation_genes(
  perturbations: Sequence[str],
  genes: Sequence[str],
  *,
  ignore_case: bool = False,
) -> Perturbed:
  """Finds the column of the gene that each perturbation names.

  Args:
    perturbations: single perturbations; drugs and stimuli name no gene.
    genes: [genes] unique names of the data.
    ignore_case: see `align`.

  Raises:
    ValueError: if names occur twice.
  """
  if not perturbations:
    return Perturbed((), ())
  columns, notes = _match(genes, perturbations, ignore_case)
  missing = [
    name
    for name, index in zip(perturbations, columns, strict=True)
    if index < 0
  ]
  if missing:
    notes.append(
      f'{len(missing)} of {len(perturbations)} perturbations name none of the '
      f'{len(genes):,} genes: {name_lib.listing(missing, 10)}'
    )
  return Perturbed(tuple(int(index) for index in columns), tuple(notes))


def _match(
  data_genes: Sequence[str], wanted: Sequence[str], ignore_case: bool
) -> tuple[np.ndarray, list[str]]:
  """Returns int32 [wanted] columns, -1 where missing, and notes on case."""
  for what, names in (('data genes', data_genes), ('wanted genes', wanted)):
    twice = name_lib.duplicates(names)
    if twice:
      raise ValueError(
        f'{what}: {len(twice)} names occur more than once: '
        f'{name_lib.listing(twice)}'
      )
  if not len(wanted):
    raise ValueError('wanted genes: the list is empty')
  column = {name: index for index, name in enumerate(data_genes)}
  columns = np.array([column.get(name, -1) for name in wanted], np.int32)
  by_case = _matches_by_case(data_genes, wanted, columns)
  if not by_case:
    return columns, []
  pairs = [f'{wanted[i]} as {found}' for i, found in by_case.items()]
  verb = 'were matched' if ignore_case else 'would match'
  if ignore_case:
    for index, found in by_case.items():
      columns[index] = column[found]
  return columns, [
    f'{len(pairs)} names {verb} only when letter case is ignored: '
    f'{name_lib.listing(pairs)}'
  ]


def _matches_by_case(
  data_genes: Sequence[str], wanted: Sequence[str], columns: np.ndarray
) -> dict[int, str]:
  """Returns {index in wanted: data gene} for matches by letter case only."""
  folded: dict[str, list[str]] = {}
  for name in data_genes:
    folded.setdefault(name.casefold(), []).append(name)
  taken = {data_genes[index] for index in columns if index >= 0}
  found: dict[int, str] = {}
  for index in np.flatnonzero(columns < 0):
    candidates = folded.get(wanted[index].casefold(), [])
    if len(candidates) == 1 and candidates[0] not in taken:
      found[int(index)] = candidates[0]
      taken.add(candidates[0])
  return found
