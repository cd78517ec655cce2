"""Models by name: one module per family, found by importing it."""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

from pertjax import names as name_lib
from pertjax import types

_NOT_MODELS = ('interventions', 'layers', 'shifts')


def names() -> tuple[str, ...]:
  """Returns the names of the model families in this package, sorted."""
  found = [m.name for m in pkgutil.iter_modules(__path__)]
  return tuple(sorted(n for n in found if n not in _NOT_MODELS))


def module(name: str) -> ModuleType:
  """Imports a model's module; a dotted name is imported from outside.

  Raises:
    ValueError: if there is no such model, naming the closest, or if the module
      lacks `default_config` or `make`.
  """
  if '.' not in name and name not in names():
    raise ValueError(name_lib.unknown('model.name', name, names()))
  path = name if '.' in name else f'{__name__}.{name}'
  found = importlib.import_module(path)
  for needed in ('default_config', 'make'):
    if not hasattr(found, needed):
      raise ValueError(f'the model module {path} has no {needed}()')
  return found


def make(config, spec: types.DataSpec) -> types.Model:
  """Builds the model that config.model names.

  Args:
    config: config.model.
    spec: static facts of the data.
  """
  return module(config.name).make(config, spec)
