"""What is scored: conditions with their cells on both sides, genes aligned.

A `Problem` has one label per condition and one more for the control of each
covariate group, the same on both sides. Conventions read means, tests and
cells from it; what two conventions need is computed once.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from pertjax import names as name_lib
from pertjax.metrics import sides

SCALES = ('log1p', 'counts')


class Names(NamedTuple):
  """Names of cells, each name held once.

  Attributes:
    distinct: all different.
    code: int [cells], into `distinct`; -1 for a cell that is not read.
  """

  distinct: tuple[str, ...]
  code: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Problem:
  """Observed and predicted cells of the same conditions and genes.

  Labels 0 .. conditions - 1 are the conditions, label conditions + q is the
  control of group q.

  Attributes:
    genes: [genes] names.
    conditions: [conditions] names without the covariates.
    group: int [conditions].
    groups: [groups] names; ('',) without covariates.
    targets: [conditions] tuples of the genes that each condition perturbs:
      indices into `genes`; () where none of them is measured.
    observed: the real cells.
    predicted: the predicted cells; `sizes` of a control label may be 0.
    scale: what the values are, one of SCALES.
    engine: of differential expression, see `differential.engines.de`.
    tables: a cache of the tests that were made; starts empty.
    said: lines on how values were computed, in order; shared by the problems
      that are made of this one.
  """

  genes: tuple[str, ...]
  conditions: tuple[str, ...]
  group: np.ndarray
  groups: tuple[str, ...]
  targets: tuple[tuple[int, ...], ...]
  observed: sides.Side
  predicted: sides.Side
  scale: str = 'log1p'
  engine: str = 'auto'
  tables: dict[Any, Any] = dataclasses.field(default_factory=dict)
  said: dict[str, None] = dataclasses.field(default_factory=dict)

  @property
  def num_conditions(self) -> int:
    """Counts the conditions, controls aside."""
    return len(self.conditions)

  @functools.cached_property
  def control_labels(self) -> np.ndarray:
    """Label of each condition's control, int [conditions]."""
    return self.num_conditions + np.asarray(self.group)

  @property
  def has_predicted_control(self) -> np.ndarray:
    """Says of each group whether the predicted side has control cells."""
    return self.predicted.sizes[self.num_conditions :] > 0

  @functools.cached_property
  def target_mask(self) -> np.ndarray:
    """Genes that a condition perturbs itself, bool [conditions, genes]."""
    mask = np.zeros((self.num_conditions, len(self.genes)), bool)
    for condition, genes in enumerate(self.targets):
      mask[condition, list(genes)] = True
    return mask

  @functools.cached_property
  def named_gene(self) -> np.ndarray:
    """The gene with the very name of a condition, int [conditions]; or -1."""
    place = {name: at for at, name in enumerate(self.genes)}
    return np.asarray([place.get(c, -1) for c in self.conditions], np.int64)

  def means(self, side: str) -> np.ndarray:
    """Returns the means of the conditions, float64 [conditions, genes]."""
    return getattr(self, side).mean[: self.num_conditions]

  def control_means(self, side: str, *, control: str = 'own') -> np.ndarray:
    """Returns each condition's control mean, float64 [conditions, genes].

    Args:
      side: 'observed' or 'predicted'.
      control: 'own' takes that of the side, and the observed one where the
        predicted side has no control cells; 'real' takes the observed one.
    """
    found = self.observed.mean[self.control_labels]
    if side == 'observed' or control == 'real':
      return found
    own = self.has_predicted_control[np.asarray(self.group)][:, None]
    return np.where(own, self.predicted.mean[self.control_labels], found)

  def deltas(self, side: str, *, control: str = 'own') -> np.ndarray:
    """Returns means less control means, float64 [conditions, genes]."""
    return self.means(side) - self.control_means(side, control=control)

  def test_cells(
    self, side: str, group: int, chosen: Sequence[int], *, control: str
  ) -> tuple[Any, np.ndarray, Any, np.ndarray]:
    """Reads the control and the cells of some conditions of one group.

    Args:
      side: 'observed' or 'predicted'.
      group: of all of them.
      chosen: conditions.
      control: see `control_means`.

    Returns:
      (control cells [cells, genes], zeros [cells], cells [cells, genes],
      position + 1 in `chosen` [cells]): what a test stacks.
    """
    real = control == 'real' or not self.has_predicted_control[group]
    source = self.observed if side == 'observed' or real else self.predicted
    reference, zeros = source.cells([self.num_conditions + group])
    cells, position = getattr(self, side).cells(chosen)
    return reference, zeros, cells, position + 1

  def by_group(self) -> list[tuple[np.ndarray, Problem]]:
    """Splits into problems of one group: [(its conditions, problem)].

    Means come from the passes of this problem.
    """
    if len(self.groups) == 1:
      return [(np.arange(self.num_conditions), self)]
    parts = []
    for number, name in enumerate(self.groups):
      chosen = np.flatnonzero(np.asarray(self.group) == number)
      if len(chosen):
        parts.append((chosen, self.choose(chosen, (name,), (number,))))
    return parts

  def choose(
    self, chosen: np.ndarray, groups: Sequence[str], numbers: Sequence[int]
  ) -> Problem:
    """Returns the problem of some conditions and the groups they are in.

    Args:
      chosen: conditions.
      groups: names of the groups to keep.
      numbers: of the same groups here.
    """
    labels = [*chosen, *(self.num_conditions + np.asarray(numbers))]
    place = {number: at for at, number in enumerate(numbers)}
    return dataclasses.replace(
      self,
      conditions=tuple(self.conditions[c] for c in chosen),
      group=np.asarray([place[int(self.group[c])] for c in chosen], np.int32),
      groups=tuple(groups),
      targets=tuple(self.targets[c] for c in chosen),
      observed=self.observed.take(labels),
      predicted=self.predicted.take(labels),
      tables={},
    )

  def with_sides(
    self, observed: sides.Side | None, predicted: sides.Side | None
  ) -> Problem:
    """Returns the same conditions with other cells; None keeps a side.

    The tests of an observed side that is kept are shared.
    """
    shared = {k: v for k, v in self.tables.items() if k[0] == 'observed'}
    return dataclasses.replace(
      self,
      observed=self.observed if observed is None else observed,
      predicted=self.predicted if predicted is None else predicted,
      tables=shared if observed is None else {},
    )


def from_arrays(
  observed: Any,
  observed_conditions: Sequence[str] | Names,
  predicted: Any,
  predicted_conditions: Sequence[str] | Names,
  *,
  control: str,
  genes: Sequence[str],
  observed_groups: Sequence[str] | Names | None = None,
  predicted_groups: Sequence[str] | Names | None = None,
  targets: Mapping[str, Sequence[str]] | None = None,
  scale: str = 'log1p',
  engine: str = 'auto',
) -> Problem:
  """Makes a problem of matrices and the labels of their cells.

  What both sides have is scored, sorted by group and name; `anndata.score`
  reads files, checks what they hold and says what is left out.

  Args:
    observed: [cells, genes], dense or CSR.
    observed_conditions: [cells] names, or `Names`.
    predicted: [cells, genes] of the same genes.
    predicted_conditions: [cells] names.
    control: name of the control.
    genes: [genes] names.
    observed_groups: [cells] covariate group; None for one group.
    predicted_groups: the same of the predicted cells.
    targets: {condition: genes it perturbs}; by default the parts of its name,
      cut at '+', that are genes.
    scale: one of SCALES.
    engine: see `Problem`.

  Raises:
    ValueError: when no condition is on both sides, or a group that is scored
      has no observed control cell.
  """
  named = [
    (names_of(conditions), _groups_of(groups, conditions))
    for conditions, groups in (
      (observed_conditions, observed_groups),
      (predicted_conditions, predicted_groups),
    )
  ]
  found = [pairs_of(*both) for both in named]
  pairs = sorted(p for p in found[0] & found[1] if p[1] != control)
  groups = sorted({group for group, _ in pairs})
  if not pairs:
    raise ValueError(
      'no condition is on both sides: observed '
      f'{name_lib.listing(sorted(found[0]))}; predicted '
      f'{name_lib.listing(sorted(found[1]))}'
    )
  lacking = [g for g in groups if (g, control) not in found[0]]
  if lacking:
    raise ValueError(
      f'no observed cell of the control {control!r} in the group(s) '
      f'{name_lib.listing(lacking)}'
    )
  place = {pair: at for at, pair in enumerate(pairs)}
  place |= {(g, control): len(pairs) + q for q, g in enumerate(groups)}
  made = [
    sides.Side(
      matrix=matrix, labels=_labels(place, *both), num_labels=len(place)
    )
    for matrix, both in zip((observed, predicted), named)
  ]
  number = {group: index for index, group in enumerate(groups)}
  at = {gene: index for index, gene in enumerate(genes)}
  names = [condition for _, condition in pairs]
  perturbed = [
    targets.get(name, ()) if targets is not None else name.split('+')
    for name in names
  ]
  return Problem(
    genes=tuple(genes),
    conditions=tuple(names),
    group=np.asarray([number[g] for g, _ in pairs], np.int32),
    groups=tuple(groups),
    targets=tuple(
      tuple(at[g] for g in dict.fromkeys(some) if g in at) for some in perturbed
    ),
    observed=made[0],
    predicted=made[1],
    scale=scale,
    engine=engine,
  )


def names_of(values: Sequence[str] | Names) -> Names:
  """Returns the names of cells with each name held once."""
  if isinstance(values, Names):
    return values
  place: dict[str, int] = {}
  code = np.fromiter(
    (place.setdefault(str(v), len(place)) for v in values),
    np.int32,
    len(values),
  )
  return Names(tuple(place), code)


def _groups_of(groups, conditions) -> Names:
  if groups is not None:
    return names_of(groups)
  return Names(('',), np.zeros(len(names_of(conditions).code), np.int32))


def _pair_code(conditions: Names, groups: Names) -> np.ndarray:
  """Numbers the pairs of cells; -1 where one of the names is not read."""
  number = len(conditions.distinct)
  code = groups.code.astype(np.int64) * number + conditions.code
  code[(groups.code < 0) | (conditions.code < 0)] = -1
  return code


def pairs_of(conditions: Names, groups: Names) -> set[tuple[str, str]]:
  """Returns the pairs (group, condition) that cells have."""
  code = _pair_code(conditions, groups)
  number = len(conditions.distinct)
  return {
    (groups.distinct[pair // number], conditions.distinct[pair % number])
    for pair in np.flatnonzero(np.bincount(code[code >= 0]))
  }


def _labels(
  place: Mapping[tuple[str, str], int], conditions: Names, groups: Names
) -> np.ndarray:
  """Returns the label of each cell, int32; -1 for those without one."""
  number = len(conditions.distinct)
  # One more at the end, where a code of -1 leads.
  table = np.full(len(groups.distinct) * number + 1, -1, np.int32)
  at = {name: i for i, name in enumerate(conditions.distinct)}
  start = {name: i * number for i, name in enumerate(groups.distinct)}
  for (group, condition), label in place.items():
    if group in start and condition in at:
      table[start[group] + at[condition]] = label
  return table[_pair_code(conditions, groups)]
