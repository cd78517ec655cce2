"""Genes that conventions look at: rankings, and sets given by name.

GEARS ranks the genes of a condition by Welch's t against the control of its
cell type, and calls a gene of a condition 'non-zero' where its mean is not 0,
and 'non-dropout' where it is non-zero or the control does not express it
either. Its files carry both; files without are given the same by its rule.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from pertjax import names as name_lib
from pertjax.metrics import aggregates
from pertjax.metrics import problem as problem_lib

Lists = Mapping[str, Sequence[str]]

# Entries of GEARS' files, by what they are.
FIELDS = {
  'order': 'rank_genes_groups_cov_all',
  'top_non_dropout': 'top_non_dropout_de_20',
  'top_non_zero': 'top_non_zero_de_20',
  'non_dropout': 'non_dropout_gene_idx',
  'non_zero': 'non_zeros_gene_idx',
}


class GeneSets(NamedTuple):
  """Genes of each condition, from the observed cells.

  Attributes:
    order: int [conditions, genes], all by falling |t|; -1 pads, a whole row
      where there are too few cells for a test.
    top_non_dropout: int [conditions, 20], the first of `order` that are
      non-dropout, in its order; -1 pads.
    top_non_zero: the same of the non-zero ones.
    non_dropout: bool [conditions, genes].
    non_zero: bool [conditions, genes].
  """

  order: np.ndarray
  top_non_dropout: np.ndarray
  top_non_zero: np.ndarray
  non_dropout: np.ndarray
  non_zero: np.ndarray


def ranking(problem: problem_lib.Problem) -> np.ndarray:
  """Orders all genes of a condition by falling |t|, int [conditions, genes].

  Genes that tie, those that do not vary at all say, keep the order of the
  columns; scanpy leaves them in any order.
  """
  everyone = aggregates.moments(problem.observed)
  condition, control = (
    aggregates.Moments(*(x[labels] for x in everyone))
    for labels in (np.arange(problem.num_conditions), problem.control_labels)
  )
  score = aggregates.t_scores(condition, control)
  order = np.argsort(-np.abs(score), axis=1, kind='stable')
  enough = (condition.size > 1) & (control.size > 1)
  return np.where(enough[:, None], order, -1)


def gene_sets(
  problem: problem_lib.Problem, rankings: Mapping[str, Lists] | None = None
) -> GeneSets:
  """Returns the genes that GEARS' metrics look at.

  Args:
    problem: what is scored.
    rankings: {entry of GEARS' files, see FIELDS: {condition: genes}}; what is
      not there follows from the cells. Conditions may be named as GEARS does,
      celltype_condition_dose.

  Raises:
    ValueError: when an entry is unknown, or lacks a condition.
  """
  rankings = dict(rankings or {})
  for field in rankings:
    if field not in FIELDS.values():
      raise ValueError(name_lib.unknown('rankings', field, FIELDS.values()))
  given = {
    kind: _columns(problem, f'rankings[{field!r}]', rankings[field])
    for kind, field in FIELDS.items()
    if field in rankings
  }
  mean = problem.means('observed')
  control = problem.control_means('observed')
  shape = mean.shape
  non_zero = _mask(given['non_zero'], shape) if 'non_zero' in given else (
    mean != 0)  # fmt: skip
  if 'non_dropout' in given:
    non_dropout = _mask(given['non_dropout'], shape)
  else:
    non_dropout = non_zero | ((mean == 0) & (control == 0))
  order = ranking(problem) if 'order' not in given else (
    _padded(given['order'], shape[1]))  # fmt: skip
  tops = []
  for kind, kept in (
    ('top_non_dropout', non_dropout),
    ('top_non_zero', non_zero),
  ):
    rows = given.get(kind)
    if rows is None:
      rows = [
        row[(row >= 0) & mask[row]][:20] for row, mask in zip(order, kept)
      ]
    tops.append(_padded(rows, 20))
  return GeneSets(order, *tops, non_dropout, non_zero)


def chosen_mask(problem: problem_lib.Problem, chosen: Lists) -> np.ndarray:
  """Returns genes given by name as a mask, bool [conditions, genes].

  Args:
    problem: what is scored.
    chosen: {condition, or group_condition: genes}.

  Raises:
    ValueError: when a condition has none.
  """
  shape = problem.num_conditions, len(problem.genes)
  return _mask(_columns(problem, 'genes of conditions', chosen), shape)


def _columns(problem, what: str, lists: Lists) -> list[np.ndarray]:
  """Finds each condition's list, as columns; other genes are left out."""
  place = {gene: at for at, gene in enumerate(problem.genes)}
  rows = []
  for name, group in zip(problem.conditions, problem.group):
    names = lists[_key(what, lists, name, problem.groups[group])]
    found = [place[str(gene)] for gene in names if str(gene) in place]
    if not found:
      raise ValueError(
        f'{what}: none of the genes of {name!r} is scored: '
        f'{name_lib.listing(names)}'
      )
    rows.append(np.asarray(found, np.int64))
  return rows


def _key(what: str, lists: Lists, name: str, group: str) -> str:
  """Finds a condition's key: its own name, or GEARS' longer one."""
  # PerturBench joins covariates by '_'.
  for key in (f'{group}_{name}', f'{group.replace("|", "_")}_{name}', name):
    if key in lists:
      return key
  long = [
    key
    for key in lists
    if key.count('_') > 1 and key.rsplit('_', 1)[0].endswith(f'_{name}')
  ]
  own = [key for key in long if key.startswith(f'{group}_')] if group else long
  found = own or long
  if len(found) == 1:
    return found[0]
  hint = (
    f'several are its: {name_lib.listing(found)}'
    if found
    else name_lib.suggestion(name, lists)
  )
  raise ValueError(f'{what}: condition {name!r} has no entry; {hint}')


def _mask(rows: Sequence[np.ndarray], shape: tuple[int, int]) -> np.ndarray:
  mask = np.zeros(shape, bool)
  for row, columns in enumerate(rows):
    mask[row, columns[columns >= 0]] = True
  return mask


def _padded(rows: Sequence[np.ndarray], width: int) -> np.ndarray:
  out = np.full((len(rows), width), -1, np.int64)
  for row, columns in enumerate(rows):
    out[row, : len(columns[:width])] = columns[:width]
  return out


def top_mask(order: np.ndarray, k: int, num_genes: int) -> np.ndarray:
  """Returns the first k genes of each row as a mask, [conditions, genes]."""
  return _mask(order[:, :k], (len(order), num_genes))
