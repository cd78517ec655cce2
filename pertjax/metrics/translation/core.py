"""One prediction under every convention, and why the numbers differ.

Tools publish numbers of one name that are not the same number. `translate`
scores a prediction in all conventions, puts the columns that claim to measure
the same thing side by side (`families`), and says what each does otherwise than
the first of its family. What a difference is made of is not only named but
measured: facets are exchanged one after the other, in the order of the family,
and the number is computed again each time (`replay`). The steps add up to the
difference; what they leave is said to be unexplained. The effect of a step
depends on those before it.

`conflicts` says which models are ordered differently by which columns, and
`text` prints.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from pertjax import names as name_lib
from pertjax.metrics import problem as problem_lib
from pertjax.metrics.conventions import base
from pertjax.metrics.translation import exchange
from pertjax.metrics.translation import facets as facet_lib
from pertjax.metrics.translation import families as family_lib

FAMILIES = family_lib.FAMILIES
FIELDS = (
  'family', 'convention', 'metric', 'direction', 'value', 'common_scale',
  'common', 'difference', 'steps', 'unexplained', 'used', 'dropped', 'reason',
)  # fmt: skip

# Differences below this part of the numbers are not shown as differences.
_SAME = 1e-6


@dataclasses.dataclass(frozen=True, eq=False)
class Line:
  """A column of a family on one prediction.

  Attributes:
    family: key of FAMILIES.
    convention: its name.
    metric: its column.
    direction: of the column.
    value: mean over the conditions that have one; NaN where it was not run.
    common_scale: one of `facets.COMMON`.
    common: mean on the family's scale.
    difference: of `common` from that of the family's first line.
    steps: facets that differ, in order.
    unexplained: what the steps leave of the difference.
    used: conditions with a value.
    dropped: conditions without.
    reason: in words.
    each: [conditions] on the family's scale; None for a panel's number.
  """

  family: str
  convention: str
  metric: str
  direction: str
  value: float = math.nan
  common_scale: str = 'x'
  common: float = math.nan
  difference: float = math.nan
  steps: tuple[exchange.Step, ...] = ()
  unexplained: float = math.nan
  used: int = 0
  dropped: int = 0
  reason: str = ''
  each: np.ndarray | None = None

  def row(self) -> dict[str, Any]:
    """Returns the line as a row of a table, see FIELDS.

    Steps are written 'facet +effect', those that were not measured 'facet ?'.
    """
    found = {name: getattr(self, name) for name in FIELDS}
    found['steps'] = '; '.join(
      f'{s.facet} ?' if math.isnan(s.effect) else f'{s.facet} {s.effect:+.6g}'
      for s in self.steps
    )
    return found


def facets(
  family: facet_lib.Family,
  member: facet_lib.Member,
  options: Mapping[str, Any],
) -> dict[str, str]:
  """Returns all facets of a member, its options filled in."""
  made = {**family.facets, **member.facets}
  return {k: facet_lib.phrase(v, options) for k, v in made.items()}


def check(families: Sequence[str] | None) -> dict[str, facet_lib.Family]:
  """Returns the families to run: those named, or all that are cheap.

  Raises:
    ValueError: when a name is unknown; 'all' is allowed.
  """
  if families is None:
    return {k: f for k, f in FAMILIES.items() if not f.cost}
  if isinstance(families, str):
    families = [families]
  for name in families:
    if name != 'all' and name not in FAMILIES:
      raise ValueError(name_lib.unknown('families', name, [*FAMILIES, 'all']))
  if 'all' in families:
    return dict(FAMILIES)
  return {k: FAMILIES[k] for k in FAMILIES if k in families}


def _settings(
  options: Mapping[str, Mapping[str, Any]] | None, published: bool, seed: int
) -> dict[str, dict[str, Any]]:
  given = dict(options or {})
  for name in given:
    base.get(name)  # Raises where there is none.
  settled = {}
  for one in base.conventions():
    own: dict[str, Any] = {}
    # A seed that is part of a published definition stays.
    if one.options.get('seed') == 0:
      own['seed'] = seed
    if published:
      own |= family_lib.PUBLISHED.get(one.name, {})
    for name in (one.name, *one.aliases):
      own |= given.get(name, {})
    settled[one.name] = base.settle(one, own)
  return settled


def translate(
  problem: problem_lib.Problem,
  *,
  counts: problem_lib.Problem | None = None,
  families: Sequence[str] | None = None,
  conventions: Sequence[str] | None = None,
  options: Mapping[str, Mapping[str, Any]] | None = None,
  published: bool = False,
  seed: int = 0,
  say: Callable[[str], None] | None = None,
) -> list[Line]:
  """Scores a prediction in every convention, family by family.

  Args:
    problem: what is scored.
    counts: the same cells as counts, where `problem` is of their log-normalised
      values: for the conventions that take counts.
    families: keys of FAMILIES, or 'all'; None for those that test no genes and
      compare no single cells. What is left out is told to `say`.
    conventions: names; None for all.
    options: {convention: options}.
    published: takes the tools' own ways where this package by default has
      better ones: ties by name, by a shuffle or by a fixed noise.
    seed: of what is random.
    say: takes lines about what is run and what is not.

  Returns:
    A line for each member of each family; those that could not be run say why.

  Raises:
    ValueError: when a name or an option is unknown, or the two problems are not
      of the same conditions.
  """
  chosen = check(families)
  settled = _settings(options, published, seed)
  wanted = {base.get(n).name for n in conventions} if conventions else None
  problems = {problem.scale: problem}
  if counts is not None:
    if counts.conditions != problem.conditions or counts.scale != 'counts':
      raise ValueError(
        'counts must be a problem of counts of the same conditions; it has '
        f'{counts.scale} values of {len(counts.conditions)} conditions, the '
        f'other {len(problem.conditions)}'
      )
    problems['counts'] = counts
  say = say or (lambda line: None)
  if families is None:
    out = [f'{n} ({f.cost})' for n, f in FAMILIES.items() if n not in chosen]
    say(f'families left out, as they take long: {", ".join(out)}')
  members = {
    name: [
      m
      for m in family.members
      if wanted is None or base.get(m.convention).name in wanted
    ]
    for name, family in chosen.items()
  }
  values, failed = _values(members, problems, settled, families is None, say)
  contexts = exchange.contexts(problems)
  lines = []
  for name, found in members.items():
    lines += _family(
      name, chosen[name], found, values, failed, problems, contexts, settled
    )
  return lines


def _scale(convention: base.Convention, problems) -> str | None:
  """Returns the scale of the problem that a convention is run on."""
  if convention.scale == 'any':
    return 'log1p' if 'log1p' in problems else 'counts'
  return convention.scale if convention.scale in problems else None


def _values(members, problems, settled, cheap: bool, say):
  """Runs the conventions: {(convention, column): values}, and what was not."""
  asked: dict[str, list[str]] = {}
  failed: dict[tuple[str, str], str] = {}
  for member in itertools.chain.from_iterable(members.values()):
    one = base.get(member.convention)
    column = one.column(member.column)
    key = (one.name, column.name)
    if _scale(one, problems) is None:
      has = ' and '.join(problems)
      failed[key] = f'not run: takes {one.scale}, the values are {has}'
    elif cheap and 'cells' in column.needs:
      failed[key] = 'not run: reads single cells; name the family to run it'
    else:
      asked.setdefault(one.name, []).append(column.name)
  values = {}
  number = sum(len(set(columns)) for columns in asked.values())
  say(f'scoring {number} columns of {len(asked)} conventions')
  for name, columns in asked.items():
    one = base.get(name)
    columns = list(dict.fromkeys(columns))
    found = base.evaluate(
      one,
      problems[_scale(one, problems)],
      wanted=columns,
      options=settled[name],
    )
    values |= {(name, column): x for column, x in found.items()}
  return values, failed


def _family(
  name, family, members, values, failed, problems, contexts, settled
) -> list[Line]:
  number = next(iter(problems.values())).num_conditions
  run = exchange.Measured(name, family, contexts, number)
  num_genes = len(next(iter(problems.values())).genes)
  lines: list[Line] = []
  first = None
  for member in members:
    one = base.get(member.convention)
    column = one.column(member.column)
    key = (one.name, column.name)
    line = Line(
      name,
      one.name,
      column.name,
      column.direction,
      common_scale=member.common,
    )
    if key in failed:
      lines.append(dataclasses.replace(line, reason=failed[key]))
      continue
    line = _scored(line, values[key], num_genes)
    own = facets(family, member, settled[one.name])
    if math.isnan(line.value):
      why = f': {column.undefined}' if column.undefined else ''
      line = dataclasses.replace(line, reason=f'no value here{why}')
    elif first is None and math.isfinite(line.common):
      first = line, own
      line = dataclasses.replace(
        line, difference=0.0, unexplained=0.0, reason=FIRST
      )
    elif first is None:
      line = dataclasses.replace(line, reason='another scale, not compared')
    else:
      line = _explained(run, line, own, *first)
    lines.append(line)
  return lines


FIRST = 'what the others are compared with'


def _scored(line: Line, values, num_genes: int) -> Line:
  """Fills in the values of a column."""
  panel = isinstance(values, base.Panel)
  each = np.asarray([values.value]) if panel else np.asarray(values)
  convert = facet_lib.COMMON[line.common_scale]
  common = np.full(each.shape, np.nan)
  if convert is not None:
    common = convert(each, num_genes)
  used = values.used if panel else int((~np.isnan(each)).sum())
  return dataclasses.replace(
    line,
    value=exchange.mean_of(each),
    common=exchange.mean_of(common),
    used=used,
    dropped=0 if panel else len(each) - used,
    each=None if panel or convert is None else common,
  )


def _explained(
  run: exchange.Measured, line: Line, own: Mapping[str, str], first: Line, start
) -> Line:
  """Says why a line differs from the first."""
  difference = line.common - first.common
  steps = exchange.steps(run, own, start, bool(line.common_scale))
  known = sum(s.effect for s in steps if not math.isnan(s.effect))
  line = dataclasses.replace(
    line, difference=difference, steps=steps, unexplained=difference - known
  )
  return dataclasses.replace(line, reason=_reason(line, first))


# ----------------------------------------------------------------------------
# In words.


def close(x: float, *sizes: float) -> bool:
  """Says whether a difference of such numbers is none."""
  return abs(x) <= _SAME * max(1e-12, *(abs(size) for size in sizes))


def _close(x: float, line: Line, first: Line) -> bool:
  return close(x, line.common, first.common)


def signed(x: float) -> str:
  """Writes a difference."""
  return f'{x:+.4f}' if abs(x) >= 5e-5 or not x else f'{x:+.1e}'


def step_text(step: exchange.Step) -> str:
  """Says what a step exchanges."""
  return f'{facet_lib.FACETS[step.facet]}: {step.before} -> {step.after}'


def _reason(line: Line, first: Line) -> str:
  """Says in words what makes the difference."""
  if not line.common_scale:
    named = '; '.join(step_text(s) for s in line.steps)
    return f'another scale, not compared: {named}'
  if math.isnan(line.common):
    return 'no value here'
  if not line.steps and _close(line.difference, line, first):
    return 'the same number'
  parts, idle, open_ = [], [], []
  for step in line.steps:
    if math.isnan(step.effect):
      open_.append(step)
    elif _close(step.effect, line, first):
      # Hardly ever has an effect, and would be named everywhere.
      idle += [step] if step.facet != 'rounding' else []
    else:
      note = f' ({step.note})' if step.note else ''
      parts.append(f'{signed(step.effect)} {step_text(step)}{note}')
  rest = not _close(line.unexplained, line, first)
  if open_:
    named = '; '.join(step_text(s) for s in open_)
    parts.append(f'{signed(line.unexplained)} unexplained: {named}')
  elif rest:
    parts.append(f'{signed(line.unexplained)} unexplained')
  if idle:
    parts.append('no effect here: ' + '; '.join(step_text(s) for s in idle))
  return '; '.join(parts) or 'the same number'
