"""Facets exchanged one after the other: what each does to a number."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import jax
import numpy as np

from pertjax.metrics import problem as problem_lib
from pertjax.metrics.translation import facets as facet_lib
from pertjax.metrics.translation import replay, replay_cells, replay_tests

_REPLAYS = {
  **replay.REPLAYS,
  **replay_tests.REPLAYS,
  'distribution': replay_cells.distribution,
}


class Step(NamedTuple):
  """One facet exchanged.

  Attributes:
    facet: which.
    before: its phrase.
    after: its phrase.
    effect: change of the mean, on the common scale; NaN where it could not be
      computed.
    total: the change that this step and those before it make together.
    note: more about it.
  """

  facet: str
  before: str
  after: str
  effect: float
  total: float
  note: str = ''


def contexts(
  problems: Mapping[str, problem_lib.Problem],
) -> list[tuple[np.ndarray, replay.Context]]:
  """Returns the groups: (their conditions, problems of one group each)."""
  split = {scale: p.by_group() for scale, p in problems.items()}
  return [
    (
      parts[0][0],
      replay.Context(dict(zip(split, (p[1] for p in parts)))),
    )
    for parts in zip(*split.values())
  ]


class Measured(NamedTuple):
  """A family on the conditions of a problem.

  Attributes:
    name: key of `families.FAMILIES`.
    family: the same.
    contexts: of `contexts`.
    number: of conditions.
  """

  name: str
  family: facet_lib.Family
  contexts: list[tuple[np.ndarray, replay.Context]]
  number: int

  def replay(self, function, phrases) -> np.ndarray | None:
    """Computes a column of all groups by its facets; None where it cannot."""
    out = np.full(self.number, np.nan)
    with jax.enable_x64(True):
      for conditions, context in self.contexts:
        found = replay.replay(function, context, phrases)
        if found is None:
          return None
        out[conditions] = found
    return out

  def mean(self, phrases) -> float:
    """Returns the mean of a column by its facets; NaN where it cannot."""
    found = self.replay(_REPLAYS[self.name], phrases)
    return math.nan if found is None else mean_of(found)


def mean_of(values: np.ndarray) -> float:
  """Returns the mean of the values that are there; NaN where there is none."""
  known = values[~np.isnan(values)]
  return float(known.mean()) if len(known) else math.nan


def steps(
  run: Measured,
  own: Mapping[str, str],
  start: Mapping[str, str],
  comparable: bool,
) -> tuple[Step, ...]:
  """Exchanges facets one after the other, in the order of the family.

  What cannot be computed yet is tried once more when the others are exchanged:
  some facets have a meaning together only.

  Args:
    run: the family.
    own: facets to come to.
    start: facets of the first member.
    comparable: whether there is a common scale; else nothing is computed.
  """
  now = dict(start)
  steps = []
  waiting = [f for f in run.family.facets if own[f] != now[f]]
  value = origin = run.mean(now) if comparable and waiting else math.nan
  for _ in range(2 if comparable else 0):
    again = []
    for facet in waiting:
      changed = {**now, facet: own[facet]}
      found = run.mean(changed)
      if math.isnan(found - value):
        again.append(facet)
        continue
      note = ''
      if facet == 'self_pairs':
        share = mean_of(run.replay(replay_cells.self_pairs, changed))
        note = f"E|x-x'|/n of both sides is {share:.4g}"
      steps.append(
        Step(facet, now[facet], own[facet], found - value, found - origin, note)
      )
      now, value = changed, found
    waiting = again
  return (
    *steps,
    *(Step(f, now[f], own[f], math.nan, value - origin) for f in waiting),
  )
