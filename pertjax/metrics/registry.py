"""Every metric by its name, with what a reader must know to judge its value.

A metric is a function of arrays with `@registry.metric(...)` above it, in any
module of this package: `get` and `list_metrics` import them all, so a new file
is a new metric and no central list is edited.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

DIRECTIONS = ('higher', 'lower')

_Function = TypeVar('_Function', bound=Callable[..., Any])


def check_choice(key: str, value: str, allowed: Iterable[str]) -> None:
  """Raises a ValueError that names the key and what is allowed for it."""
  allowed = tuple(allowed)
  if value not in allowed:
    close = difflib.get_close_matches(str(value), allowed, n=1)
    hint = f'closest: {close[0]!r}; ' if close else ''
    raise ValueError(
      f'{key} is {value!r}; {hint}allowed: {", ".join(map(repr, allowed))}'
    )


@dataclasses.dataclass(frozen=True)
class Metric:
  """What is known of one metric.

  Attributes:
    name: the name that tables use.
    function: takes the arrays of `needs`, and `options` by keyword; returns one
      value for each condition unless its own docstring says otherwise.
    best: the value of a perfect prediction.
    direction: 'higher' or 'lower' is better.
    needs: the arguments of `function` that must be given: 'predicted' and
      'observed' are [conditions, genes] aggregates, 'control' the same of each
      condition's control.
    options: the arguments of `function` that have a default; 'mask' and
      'groups' (int [conditions], covariate groups) are such.
    chance: the value that a prediction without information is expected to have,
      None where that depends on the data.
    aliases: other names in use for the same number.
    version: counts the changes of definition; a number keeps its version.
    reference: where the formula comes from.
  """

  name: str
  function: Callable[..., Any]
  best: float
  direction: str
  needs: tuple[str, ...]
  options: tuple[str, ...]
  chance: float | None
  aliases: tuple[str, ...]
  version: int
  reference: str

  def __call__(self, *args, **kwargs):
    return self.function(*args, **kwargs)


_METRICS: dict[str, Metric] = {}
_NAMES: dict[str, str] = {}  # any name, aliases too -> the name.


def metric(
  *,
  name: str,
  best: float,
  direction: str,
  reference: str,
  needs: Iterable[str] = ('predicted', 'observed'),
  chance: float | None = None,
  aliases: Iterable[str] = (),
  version: int = 1,
) -> Callable[[_Function], _Function]:
  """Records the function below it as a metric and returns it unchanged.

  Args:
    name: see `Metric` for this and the others.
    best: value of a perfect prediction.
    direction: 'higher' or 'lower'.
    reference: paper, equation, or tool and release.
    needs: arguments that must be given.
    chance: value of an uninformative prediction.
    aliases: other names.
    version: of the definition.

  Raises:
    ValueError: when a name is taken, the direction is neither of the two, or
      `needs` is not what the function's signature requires.
  """
  needs, aliases = tuple(needs), tuple(aliases)

  def record(function: _Function) -> _Function:
    check_choice(f'metric {name!r}: direction', direction, DIRECTIONS)
    parameters = inspect.signature(function).parameters.values()
    required = tuple(p.name for p in parameters if p.default is p.empty)
    if set(required) != set(needs):
      raise ValueError(
        f'metric {name!r}: needs is {needs}, but its function requires '
        f'{required}'
      )
    entry = Metric(
      name=name,
      function=function,
      best=best,
      direction=direction,
      needs=needs,
      options=tuple(p.name for p in parameters if p.default is not p.empty),
      chance=chance,
      aliases=aliases,
      version=version,
      reference=reference,
    )
    for known in (name, *aliases):
      if known in _NAMES:
        raise ValueError(
          f'metric {name!r}: the name {known!r} is taken by the metric '
          f'{_NAMES[known]!r}'
        )
    _METRICS[name] = entry
    _NAMES.update(dict.fromkeys((name, *aliases), name))
    return function

  return record


@functools.cache
def _import_all() -> None:
  """Imports the package's modules, whose decorators then have run."""
  package = importlib.import_module(__package__)
  prefix = f'{__package__}.'
  for module in pkgutil.walk_packages(package.__path__, prefix):
    if not module.name.endswith('__main__'):
      importlib.import_module(module.name)


def get(name: str) -> Metric:
  """Returns a metric by its name or an alias.

  Raises:
    ValueError: when no metric has that name; the closest ones are named.
  """
  _import_all()
  if name not in _NAMES:
    close = difflib.get_close_matches(name, _NAMES, n=3, cutoff=0.5)
    hint = f'closest: {", ".join(close)}; ' if close else ''
    raise ValueError(
      f'no metric is named {name!r}; {hint}all: {", ".join(sorted(_METRICS))}'
    )
  return _METRICS[_NAMES[name]]


def list_metrics() -> tuple[Metric, ...]:
  """Returns every metric, sorted by name."""
  _import_all()
  return tuple(_METRICS[name] for name in sorted(_METRICS))
