"""Conventions, their options and columns, as they are asked for by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pertjax import names as name_lib
from pertjax.metrics.conventions import base


class Chosen(NamedTuple):
  """What is asked for.

  Attributes:
    conventions: in the order given.
    settings: {convention: options that were given}.
    wanted: {convention: columns}; None for all.
  """

  conventions: list[base.Convention]
  settings: dict[str, Mapping[str, Any]]
  wanted: dict[str, list[str] | None]


def chosen(
  convention: str | Sequence[str],
  options: Mapping[str, Any] | None,
  metrics: Sequence[str] | None,
) -> Chosen:
  """Returns conventions with their options and columns.

  Args:
    convention: one or several names.
    options: of the convention; for several conventions {name: options}.
    metrics: columns; None for all.

  Raises:
    ValueError: when a name is unknown, or given twice.
  """
  names = (convention,) if isinstance(convention, str) else tuple(convention)
  if not names:
    raise ValueError(
      'convention: none is given; allowed: '
      f'{name_lib.listing((c.name for c in base.conventions()), 40)}'
    )
  found = [base.get(name) for name in names]
  repeated = name_lib.duplicates([one.name for one in found])
  if repeated:
    raise ValueError(f'convention: {repeated[0]!r} is given twice')
  return Chosen(found, _options(found, options), _wanted(found, metrics))


def check_scale(
  conventions: Sequence[base.Convention], scale: str, where: str
) -> None:
  """Raises where a convention takes values on another scale."""
  for one in conventions:
    if one.scale not in ('any', scale):
      hint = ''
      if one.scale == 'log1p':
        hint = '; normalise=1e4, say, takes counts to ln(1 + x)'
      raise ValueError(
        f'convention {one.name!r} takes {one.scale}; {where} holds {scale} '
        f'values{hint}'
      )


def _options(chosen, options) -> dict[str, Mapping[str, Any]]:
  options = dict(options or {})
  if len(chosen) == 1 and not set(options) <= {chosen[0].name}:
    options = {chosen[0].name: options}
  known = {one.name for one in chosen}
  unknown = set(options) - known
  if unknown:
    raise ValueError(
      name_lib.unknown('options: convention', sorted(unknown)[0], known)
    )
  settled = {one.name: options.get(one.name, {}) for one in chosen}
  for one in chosen:
    base.settle(one, settled[one.name])
  return settled


def _wanted(chosen, metrics) -> dict[str, list[str] | None]:
  """Returns the columns asked for that each convention has."""
  if metrics is None:
    return {one.name: None for one in chosen}
  if isinstance(metrics, str):
    raise ValueError(f'metrics: {metrics!r}; expected a list of names')
  found: dict[str, list[str] | None] = {one.name: [] for one in chosen}
  for name in metrics:
    having = []
    for one in chosen:
      names = {n for c in one.columns for n in (c.name, *c.aliases)}
      if name in names:
        having.append(one.name)
    if not having:
      every = [c.name for one in chosen for c in one.columns]
      raise ValueError(name_lib.unknown('metrics', name, every))
    for one in having:
      found[one].append(name)
  return found
