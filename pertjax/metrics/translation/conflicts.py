"""Models that are ordered one way by one tool and another way by the next."""

from __future__ import annotations

import itertools
import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from pertjax.metrics.translation import core

# Standard errors from 0 at which a difference of models is not called noise.
_SURE = 2.0


# Convention, metric, by how much, and whether that is sure; None for one number
# of all conditions.
Ordered = tuple[str, str, float, bool | None]


class Conflict(NamedTuple):
  """Two models that columns of one family order differently.

  Attributes:
    family: key of `core.FAMILIES`.
    first: model that is better by the family's first column.
    second: the other.
    better: ((convention, metric, by how much, sure), ...) columns by which
      `first` is better.
    worse: those by which it is worse.
    equal: those by which the two are equal.
    turns: for each of `worse`, what turns the order.
  """

  family: str
  first: str
  second: str
  better: tuple[Ordered, ...]
  worse: tuple[Ordered, ...]
  equal: tuple[Ordered, ...]
  turns: tuple[str, ...]


def conflicts(
  models: Mapping[str, Sequence[core.Line]],
) -> list[Conflict]:
  """Finds the pairs of models that columns of a family order differently.

  A difference is sure where its mean over conditions is two standard errors
  from 0, conditions being paired; a number of a whole panel never is. Columns
  that are diagnostics order nothing. Means are over the conditions that each
  model has a value for.

  Args:
    models: {model: its lines of `translate`}, of the same problem and call.
  """
  found = []
  for (one, lines), (other, others) in itertools.combinations(
    models.items(), 2
  ):
    theirs = {(x.family, x.convention, x.metric): x for x in others}
    for family in dict.fromkeys(x.family for x in lines):
      pairs = [
        (x, theirs[x.family, x.convention, x.metric])
        for x in lines
        if x.family == family
        and x.direction != 'none'
        and not math.isnan(x.value)
      ]
      pairs = [p for p in pairs if not math.isnan(p[1].value)]
      conflict = _conflict(family, one, other, pairs)
      if conflict is not None:
        found.append(conflict)
  return found


def _lead(pair) -> tuple[float, bool | None]:
  """By how much the first of two lines is better, and whether it is sure."""
  a, b = pair
  if a.common_scale:
    sign = 1 if core.FAMILIES[a.family].direction == 'higher' else -1
    lead = sign * (a.common - b.common)
  else:
    sign = 1 if a.direction == 'higher' else -1
    lead = sign * (a.value - b.value)
  lead = 0.0 if core.close(lead, a.value, b.value) else lead
  if a.each is None or b.each is None:
    return lead, None
  gap = a.each - b.each
  gap = gap[np.isfinite(gap)]
  if len(gap) < 2:
    return lead, False
  error = float(gap.std(ddof=1)) / math.sqrt(len(gap))
  return lead, abs(float(gap.mean())) > _SURE * error


def _conflict(family, one, other, pairs) -> Conflict | None:
  leads = [_lead(pair) for pair in pairs]
  signs = [lead for lead, _ in leads if lead]
  if not signs or all(x > 0 for x in signs) or all(x < 0 for x in signs):
    return None
  turned = signs[0] < 0
  if turned:
    one, other = other, one
    pairs = [pair[::-1] for pair in pairs]
    leads = [(-lead, sure) for lead, sure in leads]
  kinds: dict[int, list] = {1: [], -1: [], 0: []}
  turns = []
  for pair, (lead, sure) in zip(pairs, leads):
    sign = (lead > 0) - (lead < 0)
    line = pair[0]
    kinds[sign].append((line.convention, line.metric, abs(lead), sure))
    if sign < 0:
      turns.append(_turn(*pair, pairs))
  return Conflict(
    family, one, other, *(tuple(kinds[k]) for k in (1, -1, 0)), tuple(turns)
  )


def _turn(a: core.Line, b: core.Line, pairs) -> str:
  """Says which facet turns the order of two models on the way to a column."""
  first = pairs[0]
  same = first[0].reason == first[1].reason == core.FIRST
  sign = 1 if core.FAMILIES[a.family].direction == 'higher' else -1
  lead = sign * (first[0].common - first[1].common)
  found = None
  for x, y in zip(a.steps, b.steps) if same else ():
    after = lead
    if not math.isnan(x.effect + y.effect) and x.facet == y.facet:
      after = lead + sign * (x.effect - y.effect)
    if lead >= 0 and after < 0 and not core.close(after, a.common):
      found = x
    lead = after
  if found is not None and lead < 0:
    return core.step_text(found)
  named = [s for s in a.steps if math.isnan(s.effect)] or a.steps
  return 'one of: ' + '; '.join(core.step_text(s) for s in named)


def text(conflict: Conflict, *, most: int = 3, width: int = 100) -> str:
  """Says a conflict in a few lines.

  Args:
    conflict: of `conflicts`.
    most: columns that are named where many agree.
    width: of the terminal.
  """

  def listed(columns):
    shown = ', '.join(
      f'{c} {m} by {lead:.4g}' + (' (within noise)' if sure is False else '')
      for c, m, lead, sure in columns[:most]
    )
    more = len(columns) - most
    return shown + (f' and {more} more' if more > 0 else '')

  title = core.FAMILIES[conflict.family].title
  out = [
    f'{title}: {conflict.first} or {conflict.second}?',
    f'  {conflict.first} is better in {listed(conflict.better)}',
  ]
  for turn in dict.fromkeys(conflict.turns):
    columns = [c for c, t in zip(conflict.worse, conflict.turns) if t == turn]
    out.append(f'  {conflict.second} is better in {listed(columns)}')
    out.append(f'    turned by {turn}')
  if conflict.equal:
    names = ', '.join(f'{c} {m}' for c, m, _, _ in conflict.equal[:most])
    more = len(conflict.equal) - most
    out.append(
      f'  equal in {names}' + (f' and {more} more' if more > 0 else '')
    )
  return '\n'.join(
    wrapped
    for line in out
    for wrapped in textwrap.wrap(
      line.strip(),
      width,
      initial_indent=line[: len(line) - len(line.lstrip())],
      subsequent_indent=' ' * 6,
    )
  )
