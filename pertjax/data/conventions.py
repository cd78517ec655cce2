"""How files name their conditions, and the one way that pertjax does.

A preset says which column holds the label, how perturbations are joined in it
and what the control is called. `parse` turns the labels of all cells into
canonical conditions; nothing after it looks at a label again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from pertjax import names as name_lib
from pertjax import types

_JOIN = '+'


class Convention(NamedTuple):
  """How one family of files describes its cells.

  Attributes:
    name: the preset, for messages and the record of a run.
    key: column of obs that holds the condition label.
    control: labels, or parts of a label, that mean "no perturbation". With
      an empty string among them, missing labels are controls as well.
    separator: joins the perturbations of a label; None where a label is
      always one perturbation.
    covariates: columns of obs that define the groups.
    gene_names: column of var with the gene names, None for its index.
    dose_key: column of obs with doses, None where there is none.
    dose_separator: joins the doses of a combination.
  """

  name: str
  key: str
  control: tuple[str, ...]
  separator: str | None
  covariates: tuple[str, ...] = ()
  gene_names: str | None = None
  dose_key: str | None = None
  dose_separator: str = '+'


PRESETS = {
  'perturbench': Convention(
    'perturbench', 'condition', ('control',), '+', ('cell_type',)
  ),
  'gears': Convention(
    'gears', 'condition', ('ctrl',), '+', ('cell_type',), 'gene_name'
  ),
  'cpa': Convention('cpa', 'guide_ids', ('',), ','),
  'scperturb': Convention('scperturb', 'perturbation', ('control',), '_'),
  # Key and control have no default here: `make` asks for them.
  'custom': Convention('custom', '', (), '+'),
}


class Parsed(NamedTuple):
  """What `parse_labels` returns.

  Attributes:
    conditions: see types.Conditions.
    ids: int32 [cells]; index into `conditions`, 0 is control.
    notes: lines that a user should read.
  """

  conditions: types.Conditions
  ids: np.ndarray
  notes: tuple[str, ...]


def make(preset: str, **changes: Any) -> Convention:
  """Returns a preset with some of its fields changed.

  Args:
    preset: a name in PRESETS; 'custom' needs at least `key` and `control`.
    **changes: fields of Convention; `control` and `covariates` may be one
      string or several.

  Raises:
    ValueError: for an unknown preset or field, or a field that cannot be.
  """
  if preset not in PRESETS:
    raise ValueError(
      f'convention: {preset!r} is unknown; '
      f'{name_lib.suggestion(preset, PRESETS, 8)}'
    )
  for field in changes:
    if field not in Convention._fields or field == 'name':
      raise ValueError(
        f'convention: no field {field!r}; '
        f'{name_lib.suggestion(field, Convention._fields[1:])}'
      )
  for field in ('control', 'covariates'):
    if field in changes:
      value = changes[field]
      changes[field] = (value,) if isinstance(value, str) else tuple(value)
  convention = PRESETS[preset]._replace(**changes)
  check(convention)
  return convention


def check(convention: Convention) -> None:
  """Raises ValueError where a convention cannot work."""
  name = convention.name
  if not isinstance(convention.key, str) or not convention.key:
    raise ValueError(
      f'convention {name!r}: key is {convention.key!r}; it must name the '
      'column of obs that holds the condition'
    )
  if not isinstance(convention.control, tuple) or not convention.control:
    raise ValueError(
      f'convention {name!r}: control is {convention.control!r}; it must be a '
      'tuple of the labels that mean control'
    )
  if convention.separator == '' or convention.dose_separator == '':
    raise ValueError(
      f'convention {name!r}: an empty separator; use None where a label is '
      'always one perturbation'
    )
  twice = name_lib.duplicates((convention.key, *convention.covariates))
  if twice:
    raise ValueError(
      f'convention {name!r}: {name_lib.listing(twice)} used more than once '
      'among key and covariates'
    )


def canonical_name(tokens: Sequence[str], doses: Sequence[float]) -> str:
  """Returns the display name of a condition; tokens must be sorted."""
  if not tokens:
    return types.CONTROL
  return _JOIN.join(
    token if dose == 1 else f'{token}@{dose:.15g}'
    for token, dose in zip(tokens, doses, strict=True)
  )


def parse(
  labels: Any, doses: Any = None, *, convention: Convention
) -> tuple[types.Conditions, np.ndarray]:
  """Parses labels as `parse_labels` does, without its notes."""
  parsed = parse_labels(labels, doses, convention=convention)
  return parsed.conditions, parsed.ids


def parse_labels(
  labels: Any, doses: Any = None, *, convention: Convention
) -> Parsed:
  """Turns the labels of cells into canonical conditions.

  Perturbations are sorted, control tokens dropped, repeated perturbations
  counted once. Condition 0 is the control even where no cell is one; the
  others are sorted by name, so ids do not depend on the order of cells. Only
  distinct labels are parsed.

  Args:
    labels: [cells] strings, or a pandas Series or Categorical of them.
    doses: [cells] numbers or strings, aligned to the parts of each label in
      the label's own order, control tokens counted or not; one number applies
      to all of them. The doses of control cells are not read. A perturbation
      at dose 0 was not given.
    convention: see Convention.

  Raises:
    ValueError: for missing or empty labels, labels that are no strings, doses
      that are missing, negative, infinite or do not fit the label, and names
      that would be ambiguous.
  """
  check(convention)
  label_codes, label_values = _factorize(labels)
  name_of = _namer(labels)
  label_values, label_codes = _checked_labels(
    label_values, label_codes, convention, name_of
  )
  num_doses = 1
  dose_codes = np.zeros(len(label_codes), np.int64)
  dose_values: list[Any] = [1.0]
  if doses is not None:
    dose_codes, dose_values = _factorize(doses)
    if len(dose_codes) != len(label_codes):
      raise ValueError(
        f'doses: {len(dose_codes)} values for {len(label_codes)} labels'
      )
    # A missing dose has code -1; it is only an error where it is needed.
    dose_codes = np.where(dose_codes < 0, len(dose_values), dose_codes)
    dose_values = [*dose_values, None]
    num_doses = len(dose_values)

  pair_codes, pairs = pd.factorize(label_codes * num_doses + dose_codes)
  cells = np.bincount(pair_codes, minlength=len(pairs))
  first = np.full(len(pairs), -1, np.int64)
  first[pair_codes[::-1]] = np.arange(len(pair_codes))[::-1]
  counts: dict[str, list[Any]] = {}
  parsed = []
  for index, pair in enumerate(pairs):
    label = label_values[pair // num_doses]
    key, events = _parse_one(
      label,
      dose_values[pair % num_doses],
      convention,
      lambda index=index: name_of(first[index]),
    )
    parsed.append(key)
    for event in events:
      tally = counts.setdefault(event, [0, label])
      tally[0] += int(cells[index])
  conditions, index_of = _conditions(parsed)
  pair_to_id = np.array([index_of[key] for key in parsed], np.int32)
  ids = pair_to_id[pair_codes] if len(pairs) else np.zeros(0, np.int32)
  notes = [
    f'{n:,} cells {event}, e.g. {x!r}' for event, (n, x) in counts.items()
  ]
  notes += _merged_note(label_values, pairs // num_doses, pair_to_id)
  return Parsed(conditions, ids, tuple(notes))


def compact(
  conditions: types.Conditions, ids: np.ndarray
) -> tuple[types.Conditions, np.ndarray]:
  """Drops the conditions that no cell has; the control always stays."""
  used = np.zeros(len(conditions.names), bool)
  used[ids] = True
  used[0] = True
  kept = np.flatnonzero(used)
  new_ids = (np.cumsum(used) - 1).astype(np.int32)[ids]
  return types.Conditions(
    names=tuple(conditions.names[i] for i in kept),
    tokens=tuple(conditions.tokens[i] for i in kept),
    doses=tuple(conditions.doses[i] for i in kept),
  ), new_ids


def _factorize(values: Any) -> tuple[np.ndarray, list[Any]]:
  """Returns codes [cells], -1 for missing, and the distinct values used."""
  if not isinstance(values, (pd.Series, pd.Index, pd.Categorical, np.ndarray)):
    values = pd.Series(list(values), dtype=object)
  codes, uniques = pd.factorize(values)
  return np.asarray(codes, np.int64), list(uniques)


def _namer(labels: Any) -> Callable[[int], str]:
  """Returns a function from a row to the name to show for it."""
  if isinstance(labels, pd.Series) and not isinstance(
    labels.index, pd.RangeIndex
  ):
    return lambda row: f'cell {labels.index[row]!r}'
  return lambda row: f'cell number {row}'


def _checked_labels(
  values: list[Any],
  codes: np.ndarray,
  convention: Convention,
  name_of: Callable[[int], str],
) -> tuple[list[str], np.ndarray]:
  """Returns the labels with missing ones settled: control or an error."""
  where = f'obs[{convention.key!r}]'
  wrong = [value for value in values if not isinstance(value, str)]
  if wrong:
    raise ValueError(
      f'{where}: labels must be strings; found {type(wrong[0]).__name__}, e.g. '
      f'{wrong[0]!r}; convert the column with .astype(str)'
    )
  if '' in convention.control:
    return [*values, ''], np.where(codes < 0, len(values), codes)
  empty = [index for index, value in enumerate(values) if not value.strip()]
  missing = np.flatnonzero((codes < 0) | np.isin(codes, empty))
  if len(missing):
    raise ValueError(
      f'{where}: {len(missing):,} of {len(codes):,} cells have no label '
      f'({", ".join(name_of(row) for row in missing[:3])}); label or remove '
      "them, or, if they are the controls, put '' among the control labels"
    )
  return values, codes


def _parse_one(
  label: str, dose: Any, convention: Convention, cell: Callable[[], str]
) -> tuple[tuple[tuple[str, ...], tuple[float, ...]], list[str]]:
  """Returns the (tokens, doses) of one label and what was odd about it."""
  control = convention.control
  if label in control:
    return ((), ()), []
  where = f'obs[{convention.key!r}] of {cell()}'
  parts = [label]
  if convention.separator is not None:
    parts = label.split(convention.separator)
  tokens = [part.strip() for part in parts]
  events = []
  if tokens != parts:
    events.append('have a label with spaces around a name: removed')
  if '' in tokens and '' not in control:
    raise ValueError(
      f'{where}: {label!r} has an empty part between separators '
      f'{convention.separator!r}'
    )
  given = [token for token in tokens if token not in control]
  if not given:
    return ((), ()), events
  if types.CONTROL in given:
    raise ValueError(
      f'{where}: {label!r} has a part called {types.CONTROL!r}, which is not '
      f'among the control labels {control}; add it to them'
    )
  amounts = _parse_doses(dose, tokens, given, convention, f'{where}, {label!r}')
  merged: dict[str, float] = {}
  for token, amount in zip(given, amounts, strict=True):
    if merged.setdefault(token, amount) != amount:
      raise ValueError(
        f'{where}: {label!r} gives {token!r} the doses {merged[token]:g} and '
        f'{amount:g}'
      )
  if len(merged) < len(given):
    events.append('name a perturbation twice: counted once')
  if 0.0 in merged.values():
    events.append('have a perturbation at dose 0: read as not given')
  kept = sorted(token for token, amount in merged.items() if amount)
  return (tuple(kept), tuple(merged[token] for token in kept)), events


def _parse_doses(
  dose: Any,
  tokens: list[str],
  given: list[str],
  convention: Convention,
  where: str,
) -> list[float]:
  """Returns the dose of each given token."""
  key = convention.dose_key or 'doses'
  if dose is None:
    raise ValueError(f'{where}: {key!r} is missing')
  # Through text, so that a float32 0.1 is 0.1 and not 0.10000000149.
  text = str(dose)
  try:
    numbers = [float(text)]
  except ValueError:
    try:
      numbers = [float(p) for p in text.split(convention.dose_separator)]
    except ValueError:
      raise ValueError(
        f'{where}: {key!r} is {dose!r}; allowed: numbers joined by '
        f'{convention.dose_separator!r}'
      ) from None
  bad = [number for number in numbers if not 0 <= number < math.inf]
  if bad:
    raise ValueError(
      f'{where}: {key!r} is {dose!r}; a dose is finite and not negative'
    )
  if len(numbers) == 1:
    return numbers * len(given)
  if len(numbers) == len(tokens):
    return [
      number
      for token, number in zip(tokens, numbers, strict=True)
      if token not in convention.control
    ]
  if len(numbers) == len(given):
    return numbers
  raise ValueError(
    f'{where}: {key!r} is {dose!r}, {len(numbers)} doses for '
    f'{len(tokens)} perturbations'
  )


def _conditions(
  parsed: list[tuple[tuple[str, ...], tuple[float, ...]]],
) -> tuple[types.Conditions, dict[Any, int]]:
  """Returns the sorted conditions and the index of each (tokens, doses)."""
  named: dict[str, Any] = {types.CONTROL: ((), ())}
  for key in parsed:
    name = canonical_name(*key)
    if named.setdefault(name, key) != key:
      raise ValueError(
        f'conditions: {named[name]} and {key} would both be called {name!r}; '
        f"rename the perturbations that contain {_JOIN!r} or '@'"
      )
  names = (types.CONTROL, *sorted(name for name in named if named[name][0]))
  return types.Conditions(
    names=names,
    tokens=tuple(named[name][0] for name in names),
    doses=tuple(named[name][1] for name in names),
  ), {named[name]: index for index, name in enumerate(names)}


def _merged_note(
  labels: list[str], label_of_pair: np.ndarray, id_of_pair: np.ndarray
) -> list[str]:
  """Returns a note about different labels that mean one condition."""
  spellings: dict[int, set[str]] = {}
  for label, index in zip(label_of_pair, id_of_pair, strict=True):
    if index:
      spellings.setdefault(int(index), set()).add(labels[label])
  merged = [sorted(s) for s in spellings.values() if len(s) > 1]
  if not merged:
    return []
  return [
    f'{len(merged)} conditions have more than one spelling, e.g. '
    f'{name_lib.listing(merged[0])}: merged'
  ]
