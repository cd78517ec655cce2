"""Rankings of genes that a file carries, for conventions that take them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pertjax import names as name_lib
from pertjax.metrics import problem as problem_lib
from pertjax.metrics.anndata import inputs
from pertjax.metrics.conventions import base
from pertjax.metrics.conventions import genes as gene_lib

_OPTION = 'rankings'


def with_uns(
  chosen: Sequence[base.Convention],
  settings: Mapping[str, Mapping[str, Any]],
  problem: problem_lib.Problem,
  real: inputs.Input,
) -> tuple[dict[str, Mapping[str, Any]], list[str], list[str]]:
  """Gives rankings of the observed uns to the conventions that take some.

  Args:
    chosen: conventions.
    settings: {convention: options that were given}; one that has 'rankings'
      keeps them.
    problem: what is scored.
    real: the observed side.

  Returns:
    The options, notes, and the notes that are warnings.
  """
  takers = [
    one
    for one in chosen
    if _OPTION in one.options and _OPTION not in settings[one.name]
  ]
  settings = dict(settings)
  if not takers:
    return settings, [], []
  found, notes, warned = _of_uns(problem, real)
  if found:
    named = ', '.join(one.name for one in takers)
    notes = [
      f'{named}: genes are ranked by the observed uns, {line}' for line in notes
    ]
    for one in takers:
      settings[one.name] = {**settings[one.name], _OPTION: found}
  return settings, [*warned, *notes], warned


def _of_uns(
  problem: problem_lib.Problem, real: inputs.Input
) -> tuple[dict[str, gene_lib.Lists], list[str], list[str]]:
  """Returns the entries that fit the problem, notes and warnings."""
  found, notes, warned = {}, [], []
  for field in gene_lib.FIELDS.values():
    entry = real.uns.get(field)
    if entry is None:
      continue
    try:
      lists = _named(field, entry, real.genes)
      gene_lib.chosen_mask(problem, lists)
    except ValueError as error:
      warned.append(
        f'{real.name}: uns[{field!r}] is not used, and what it says follows '
        f'from the cells: {error}'
      )
      continue
    found[field] = lists
    every = {gene for genes in lists.values() for gene in genes}
    lost = sorted(every - set(problem.genes))
    text = f'uns[{field!r}]'
    if lost:
      text += (
        f' ({len(lost):,} of its {len(every):,} genes are not scored: '
        f'{name_lib.listing(lost)})'
      )
    notes.append(text)
  return found, notes, warned


def _named(field: str, entry: Any, genes: Sequence[str]) -> gene_lib.Lists:
  """Returns {condition: names of genes}; GEARS keeps some as numbers."""
  if not isinstance(entry, Mapping):
    raise ValueError(
      f'it is a {type(entry).__name__}; expected {{condition: genes}}'
    )
  lists = {}
  for condition, given in entry.items():
    row = np.asarray(given).reshape(-1)
    if row.dtype.kind in 'iu':
      if len(row) and not 0 <= row.min() <= row.max() < len(genes):
        raise ValueError(
          f'{condition!r} has the gene number {row.max()}; there are '
          f'{len(genes)} genes'
        )
      row = [genes[at] for at in row]
    lists[str(condition)] = [str(gene) for gene in row]
  return lists
