"""Names in messages: the closest ones, lists of them, those that repeat."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_SHOWN = 5  # Names shown in a message before the rest is only counted.
_ALLOWED = 40  # The same where they are what could have been given.


def closest(name: str, allowed: Iterable[str], n: int = 3) -> tuple[str, ...]:
  """Returns up to `n` allowed names that look most like `name`, best first.

  Letter case is ignored in the comparison; the names come back as they are
  spelled in `allowed`.
  """
  spelled: dict[str, str] = {}
  for candidate in allowed:
    spelled.setdefault(str(candidate).casefold(), str(candidate))
  found = difflib.get_close_matches(name.casefold(), spelled, n=n)
  return tuple(spelled[key] for key in found)


def suggestion(name: str, allowed: Iterable[str], n: int = 3) -> str:
  """Returns the end of an error message: the closest names, or all of them.

  Args:
    name: what was given.
    allowed: what could have been given.
    n: names to show at most where some look alike.
  """
  allowed = [str(candidate) for candidate in allowed]
  if not allowed:
    return 'there are none'
  similar = closest(name, allowed, n)
  if similar:
    return f'closest: {listing(similar)}'
  return f'there are: {listing(allowed, 12)}'


def unknown(what: str, given: object, allowed: Iterable[str]) -> str:
  """Returns an error message: the closest names, then all of them.

  For choices that a reader can survey; `suggestion` is for columns and genes.

  Args:
    what: what the name is of, such as 'split method'.
    given: what was given.
    allowed: what could have been given.
  """
  allowed = list(allowed)
  similar = closest(str(given), allowed)
  hint = f'closest: {listing(similar, quoted=False)}; ' if similar else ''
  return (
    f'{what}: {given!r} is unknown; {hint}allowed: '
    f'{listing(allowed, _ALLOWED, quoted=False)}'
  )


def listing(
  names: Iterable[object], shown: int = _SHOWN, *, quoted: bool = True
) -> str:
  """Returns names joined by commas; those past `shown` are counted."""
  names = [str(name) for name in names]
  text = ', '.join(repr(name) if quoted else name for name in names[:shown])
  rest = len(names) - shown
  return f'{text} and {rest:,} more' if rest > 0 else text


def duplicates(names: Iterable[str]) -> tuple[str, ...]:
  """Returns the names that occur more than once, in order of appearance."""
  seen: set[str] = set()
  twice: dict[str, None] = {}
  for name in names:
    if name in seen:
      twice[name] = None
    seen.add(name)
  return tuple(twice)
