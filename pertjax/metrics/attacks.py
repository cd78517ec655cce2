"""Submissions that deserve nothing, tried on every metric of a dataset.

Each is made of half of the real cells and scored against the other half, see
`stand_ins`. Those that know nothing of a condition should score what chance
gives; those that are wrong in a known way should score less than the replicate
that they were made of; and no value may depend on the order of names.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from pertjax.metrics import certificate, stand_ins
from pertjax.metrics import problem as problem_lib
from pertjax.metrics.conventions import base

FIELDS = (
  'convention', 'metric', 'submission', 'value', 'replicate', 'floor', 'share',
  'flag', 'finding',
)  # fmt: skip

# A submission that reaches more than this share of what a replicate reaches
# beyond the floor, in conditions that agree on it, is rewarded.
_SHARE = 0.1
_ERRORS = 2.0


def red_team(
  problem: problem_lib.Problem,
  convention: base.Convention,
  *,
  wanted: Sequence[str] | None = None,
  options: Mapping[str, Any] | None = None,
  seed: int = 0,
  say: Callable[[str], None] | None = None,
) -> list[dict[str, Any]]:
  """Runs every submission against every column of a convention.

  Args:
    problem: its predicted side is not read.
    convention: of which the columns are.
    wanted: columns; None for all.
    options: of the convention.
    seed: of the cut in halves and of what is drawn.
    say: takes a line about what is being scored.

  Returns:
    A line for each column and submission with the keys FIELDS: 'floor' is what
    knowing nothing should give: the chance value of the column, or where it has
    none what other conditions' cells get ('scrambled'); 'share' is (value -
    floor) / (replicate - floor); 'flag' says whether the metric rewards what it
    should not, 'finding' how.

  Raises:
    ValueError: where a condition or control has fewer than 2 cells.
  """
  found = stand_ins.halves(problem, seed)

  def scored(name, predicted, at=None):
    if say is not None:
      say(f'{convention.name}: scoring {name}')
    target = found.problem.with_sides(None, predicted)
    if at is not None:
      groups = range(len(problem.groups))
      target = target.choose(at, problem.groups, groups)
    return base.evaluate(convention, target, wanted=wanted, options=options)

  replicate = scored('the replicate', stand_ins.replicate(found))
  made = {**stand_ins.NOTHING, **stand_ins.WRONG}
  values = {
    name: scored(name, function(found)) for name, function in made.items()
  }
  # Equal profiles: what tells conditions apart is the order they stand in.
  backwards = np.arange(problem.num_conditions)[::-1]
  tied = stand_ins.perturbed_mean(found)
  orders = (
    scored('the perturbed mean', tied),
    scored('the perturbed mean, names reversed', tied, backwards),
  )
  lines = []
  for name, best in replicate.items():
    column = convention.column(name)
    if column.direction == 'none':
      continue
    for submission in made:
      lines.append(
        line(
          convention.name,
          column,
          base.chance_of(column, problem),
          submission,
          values[submission][name],
          best,
          values['scrambled'][name],
        )
      )
    lines.append(
      _order_line(convention, column, best, *(o[name] for o in orders))
    )
  return lines


def line(
  convention: str,
  column: base.Column,
  chance: float | None,
  submission: str,
  values: np.ndarray | base.Panel,
  replicate: np.ndarray | base.Panel,
  scrambled: np.ndarray | base.Panel,
) -> dict[str, Any]:
  """Makes the line of one submission; see `red_team`.

  Args:
    convention: its name.
    column: that is tried.
    chance: its chance value here; None where unknown.
    submission: a name of `stand_ins.NOTHING` or `stand_ins.WRONG`.
    values: of the submission.
    replicate: of the replicate.
    scrambled: of other conditions' cells, the floor where chance is unknown.
  """
  value, best = (certificate.mean_of(v) for v in (values, replicate))
  floor = chance
  if floor is None:
    floor = certificate.mean_of(scrambled)
  sign = -1.0 if column.direction == 'lower' else 1.0
  reach = sign * (best - floor)
  share = sign * (value - floor) / reach if reach > 0 else math.nan
  flag, finding = False, ''
  if math.isnan(value):
    finding = 'no value'
  elif submission in stand_ins.NOTHING or submission in (
    'sign flipped',
    'mixed scale',
  ):
    if submission == 'scrambled' and chance is None:
      finding = 'is the floor'
    elif not reach > 0:
      finding = 'a replicate is not above the floor: there is nothing to reward'
    elif share > _SHARE and _surely(sign, values, floor):
      flag = True
      finding = 'scores above a replicate'
      if share <= 1:
        finding = f'reaches {share:.0%} of what a replicate reaches'
  elif sign * (value - best) > 0 and _surely(sign, values, best):
    flag, finding = True, 'scores above the replicate it was made of'
  elif math.isclose(value, best, rel_tol=1e-3, abs_tol=1e-9):
    finding = 'is not seen: scores as the replicate does'
  return {
    'convention': convention,
    'metric': column.name,
    'submission': submission,
    'value': value,
    'replicate': best,
    'floor': floor,
    'share': share,
    'flag': flag,
    'finding': finding,
  }


def _surely(sign: float, values: Any, level: float) -> bool:
  """Says whether conditions agree that a submission is above a level."""
  if isinstance(values, base.Panel):
    return True
  known = values[np.isfinite(values)]
  if len(known) < 2:
    return True
  error = float(known.std(ddof=1)) / math.sqrt(len(known))
  return sign * (float(known.mean()) - level) > _ERRORS * error


def _order_line(convention, column, replicate, forwards, backwards):
  if isinstance(forwards, base.Panel):
    pair = (np.asarray([x.value]) for x in (forwards, backwards))
  else:
    pair = (forwards, backwards[::-1])
  first, second = (np.nan_to_num(x, nan=-1e30) for x in pair)
  moved = int((~np.isclose(first, second, rtol=1e-6, atol=1e-9)).sum())
  return {
    'convention': convention.name,
    'metric': column.name,
    'submission': 'order of names',
    'value': certificate.mean_of(forwards),
    'replicate': certificate.mean_of(replicate),
    'floor': certificate.mean_of(backwards),
    'share': math.nan,
    'flag': moved > 0,
    'finding': (
      f'{moved} value(s) change with the order of the names' if moved else ''
    ),
  }
