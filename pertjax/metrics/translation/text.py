"""Translations printed: a block for each family, what is equal together."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Sequence

from pertjax.metrics.translation import core
from pertjax.metrics.translation import facets as facet_lib

_MARGIN = 6


def text(lines: Sequence[core.Line], *, width: int = 100) -> str:
  """Returns the blocks of all families.

  Args:
    lines: of `core.translate`.
    width: of the terminal.
  """
  names = list(dict.fromkeys(x.family for x in lines))
  return '\n\n'.join(
    '\n'.join(_block(name, [x for x in lines if x.family == name], width))
    for name in names
  )


def _name(line: core.Line) -> str:
  return f'{line.convention} {line.metric}'


def _block(name, lines, width) -> Iterator[str]:
  family = core.FAMILIES[name]
  yield f'{family.title} ({name}; {family.direction} is better)'
  run = [x for x in lines if not math.isnan(x.value)]
  column = max((len(_name(x)) for x in run), default=0)
  if run:
    yield f'  {"":{column}}  {"value":>10}  {"common":>10}  {"difference":>10}'
  for group in _groups(run):
    for line in group:
      yield f'  {_name(line):{column}}  {_numbers(line)}'.rstrip()
    yield from _why(group[0], width)
  idle: dict[str, list[str]] = {}
  for line in lines:
    if math.isnan(line.value):
      idle.setdefault(line.reason, []).append(_name(line))
  for reason, found in idle.items():
    yield from _wrapped(f'{reason}: {", ".join(found)}', 2, width)


def _groups(lines) -> list[list[core.Line]]:
  """Puts lines of one number and one reason together."""
  groups: list[list[core.Line]] = []
  for line in lines:
    for group in groups:
      first = group[0]
      same = line.reason == first.reason or (
        'same number' in line.reason and first.reason == core.FIRST
      )
      if same and _equal(line, first):
        group.append(line)
        break
    else:
      groups.append([line])
  return groups


def _equal(a: core.Line, b: core.Line) -> bool:
  if math.isnan(a.common) or math.isnan(b.common):
    return False
  return core.close(a.common - b.common, a.common, b.common)


def _number(value: float) -> str:
  return '' if math.isnan(value) else f'{value:.4f}'


def _numbers(line: core.Line) -> str:
  difference = ''
  if not math.isnan(line.difference) and line.reason != core.FIRST:
    same = core.close(line.difference, line.common)
    difference = '=' if same else core.signed(line.difference)
  scale = line.common_scale
  formula = f'  as {scale}' if scale not in ('x', '') else ''
  return (
    f'{_number(line.value):>10}  {_number(line.common):>10}  '
    f'{difference:>10}{formula}'
  )


def _why(line: core.Line, width) -> Iterator[str]:
  """Yields the steps, a line each."""
  if line.reason == core.FIRST or 'same number' in line.reason:
    return
  if not line.steps or math.isnan(line.common):
    yield from _wrapped(line.reason, _MARGIN, width)
    return
  measured = [
    s
    for s in line.steps
    if not math.isnan(s.effect)
    and not core.close(s.effect, line.common, line.difference)
  ]
  for step in measured:
    note = f' ({step.note})' if step.note else ''
    words = f'{core.signed(step.effect)}  {core.step_text(step)}{note}'
    yield from _wrapped(words, _MARGIN, width)
  open_ = [s for s in line.steps if math.isnan(s.effect)]
  left = line.unexplained
  if open_ or not core.close(left, line.common, line.difference):
    words = '; '.join(core.step_text(s) for s in open_)
    words = f'{core.signed(left)}  unexplained' + (
      f': {words}' if words else ''
    )
    yield from _wrapped(words, _MARGIN, width)
  idle = [
    facet_lib.FACETS[s.facet] + f': {s.after}'
    for s in line.steps
    if s not in measured and s not in open_ and s.facet != 'rounding'
  ]
  if idle:
    words = 'no effect here  ' + '; '.join(idle)
    yield from _wrapped(words, _MARGIN, width)


def _wrapped(words: str, margin: int, width: int) -> list[str]:
  return textwrap.wrap(
    words,
    max(40, width),
    initial_indent=' ' * margin,
    subsequent_indent=' ' * (margin + 2),
    break_long_words=False,
  )
