"""What a convention is: named columns, and one function that fills them.

A module of this package with `CONVENTIONS`, a tuple of them, is found by being
here; no list is edited to add one. Its columns say everything a reader
needs to judge a value: the formula, what is best, what chance gives, when
there is no value and where the definition comes from.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from pertjax import names as name_lib
from pertjax.metrics import problem as problem_lib

SCOPES = ('condition', 'panel')
DIRECTIONS = ('higher', 'lower', 'none')
# What a column is computed from; 'cells' are single cells of both sides.
NEEDS = ('means', 'variances', 'cells', 'counts', 'de', 'control')


class Column(NamedTuple):
  """One number of a convention.

  Attributes:
    name: as the tool spells it.
    formula: one line.
    best: value of a perfect prediction; None where there is none (diagnostics).
    direction: one of DIRECTIONS.
    reference: paper, equation, or tool and release.
    chance: what a prediction without information is expected to have, or a
      function that gives it for a number of competing conditions; None where
      it depends on the data.
    needs: some of NEEDS.
    undefined: when there is no value; '' for never.
    aliases: names of the same number in other tools.
    scope: 'condition' for a value of each, 'panel' for one of all together.
    version: of the definition; a number keeps its version.
    bounds: (low, high) that no value leaves; None for no bound.
  """

  name: str
  formula: str
  best: float | None
  direction: str
  reference: str
  chance: float | Callable[[int], float] | None = None
  needs: tuple[str, ...] = ('means',)
  undefined: str = ''
  aliases: tuple[str, ...] = ()
  scope: str = 'condition'
  version: int = 1
  bounds: tuple[float | None, float | None] = (None, None)


def chance_of(column: Column, problem: problem_lib.Problem) -> float | None:
  """Returns the chance value of a column on a problem, None where unknown.

  Where it depends on the number of competing conditions, it is the mean over
  the conditions of the problem.
  """
  if column.chance is None or isinstance(column.chance, (int, float)):
    return column.chance
  sizes = np.bincount(problem.group, minlength=len(problem.groups))
  each = np.asarray([column.chance(int(n)) if n else 0.0 for n in sizes])
  return float((each * sizes).sum() / sizes.sum())


class Panel(NamedTuple):
  """The value of a panel column.

  Attributes:
    value: of all conditions; NaN where it is not defined.
    used: conditions that entered.
    draw: takes a random generator and a number of draws, resamples conditions
      with replacement and returns the value of each draw, [draws]; None where
      the value cannot be recomputed from parts, and has no interval.
  """

  value: float
  used: int
  draw: Callable[[np.random.Generator, int], np.ndarray] | None = None


def resampled(
  function: Callable[[np.ndarray], np.ndarray], number: int
) -> Panel:
  """Makes a panel of a function of chosen conditions.

  Args:
    function: takes int [draws, number], conditions of each draw, and returns
      [draws]; the value itself is that of all conditions in order.
    number: of conditions.
  """

  def draw(random, draws):
    return np.asarray(function(random.integers(0, number, (draws, number))))

  value = np.asarray(function(np.arange(number)[None]))
  return Panel(float(value[0]), number, draw)


# What `compute` returns: float [conditions], NaN where undefined, or a Panel.
Values = Mapping[str, np.ndarray | Panel]


class Convention(NamedTuple):
  """A way of scoring that somebody published.

  Attributes:
    name: by which `score` finds it, lower case.
    title: of the tool and its release.
    reference: where it is defined.
    scale: 'log1p', 'counts', or 'any'.
    control: where predicted changes start: 'own' (the predicted controls, the
      observed ones where there are none), 'real' (always the observed ones),
      'none' (no control is read).
    columns: all of them, in the tool's order.
    compute: of a problem, the names of the columns that are wanted (a column
      that costs nothing may be returned as well) and the settled options.
    options: {name: default}; `check` of a wrong value is up to `compute`, which
      raises a ValueError before any long work.
    whole: takes problems of several covariate groups; others are called for
      each group.
    aliases: other names.
  """

  name: str
  title: str
  reference: str
  scale: str
  control: str
  columns: tuple[Column, ...]
  compute: Callable[
    [problem_lib.Problem, Sequence[str], Mapping[str, Any]], Values
  ]
  options: Mapping[str, Any] = {}
  whole: bool = False
  aliases: tuple[str, ...] = ()

  def column(self, name: str) -> Column:
    """Returns a column by its name or an alias.

    Raises:
      ValueError: when there is none; the closest are named.
    """
    for column in self.columns:
      if name == column.name or name in column.aliases:
        return column
    raise ValueError(
      name_lib.unknown(
        f'metric of convention {self.name!r}',
        name,
        [c.name for c in self.columns],
      )
    )


@functools.cache
def _all() -> dict[str, Convention]:
  found: dict[str, Convention] = {}
  package = importlib.import_module(__package__)
  for module in pkgutil.iter_modules(package.__path__):
    loaded = importlib.import_module(f'{__package__}.{module.name}')
    for convention in getattr(loaded, 'CONVENTIONS', ()):
      for name in (convention.name, *convention.aliases):
        if name in found:
          raise ValueError(f'two conventions are named {name!r}')
        found[name] = convention
  return found


def get(name: str) -> Convention:
  """Returns a convention by its name or an alias.

  Raises:
    ValueError: when there is none; the closest are named.
  """
  found = _all()
  if name not in found:
    raise ValueError(
      name_lib.unknown('convention', name, [c.name for c in conventions()])
    )
  return found[name]


def conventions() -> tuple[Convention, ...]:
  """Returns every convention, sorted by name."""
  unique = {c.name: c for c in _all().values()}
  return tuple(unique[name] for name in sorted(unique))


def settle(
  convention: Convention, options: Mapping[str, Any] | None
) -> dict[str, Any]:
  """Returns the convention's options with those given in place.

  Raises:
    ValueError: when an option is unknown.
  """
  settled = dict(convention.options)
  for name, value in (options or {}).items():
    if name not in settled:
      raise ValueError(
        name_lib.unknown(
          f'option of convention {convention.name!r}', name, settled
        )
      )
    settled[name] = value
  return settled


def evaluate(
  convention: Convention,
  problem: problem_lib.Problem,
  *,
  wanted: Sequence[str] | None = None,
  options: Mapping[str, Any] | None = None,
) -> dict[str, np.ndarray | Panel]:
  """Fills the columns of a convention, group by group where it wants that.

  Args:
    convention: one of `conventions()`.
    problem: what is scored.
    wanted: names of columns; None for all.
    options: of the convention.

  Returns:
    {column: float64 [conditions], or a Panel}, in the order of the columns.
    Panels of several groups are averaged over the groups.

  Raises:
    ValueError: when a name or an option is unknown, or the scale is wrong.
  """
  columns = convention.columns
  if wanted is not None:
    chosen = {convention.column(name).name for name in wanted}
    columns = tuple(c for c in columns if c.name in chosen)
  if convention.scale not in ('any', problem.scale):
    raise ValueError(
      f'convention {convention.name!r} takes {convention.scale}; the values '
      f'are {problem.scale}'
    )
  settled = settle(convention, options)
  names = tuple(c.name for c in columns)

  def compute(*arguments):
    # Other tools compute in float64; JAX would round to float32 without.
    with jax.enable_x64(True):
      return convention.compute(*arguments)

  if convention.whole or len(problem.groups) == 1:
    values = compute(problem, names, settled)
    return {name: values[name] for name in names}
  out: dict[str, np.ndarray | Panel] = {
    c.name: np.full(problem.num_conditions, np.nan)
    for c in columns
    if c.scope == 'condition'
  }
  panels: dict[str, list[Panel]] = {}
  for chosen, part in problem.by_group():
    values = compute(part, names, settled)
    for name in names:
      if isinstance(values[name], Panel):
        panels.setdefault(name, []).append(values[name])
      else:
        out[name][chosen] = values[name]
  out |= {name: _average(found) for name, found in panels.items()}
  return {name: out[name] for name in names}


def _average(panels: Sequence[Panel]) -> Panel:
  """Averages the panels of groups; each is resampled within itself."""
  value = float(np.mean([p.value for p in panels]))
  draw = None
  if all(p.draw is not None for p in panels):

    def draw(random, draws):
      return np.mean([p.draw(random, draws) for p in panels], axis=0)

  return Panel(value, sum(p.used for p in panels), draw)
