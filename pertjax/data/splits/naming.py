"""Cells under the names that the originals' splitters read from files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from pertjax import types

GEARS_CONTROL = 'ctrl'
CONTROLS = ('', 'control', 'ctrl')


class Labels(NamedTuple):
  """Cells under the originals' names.

  Attributes:
    names: [labels] as the original would read them from a file.
    parts: [labels] the perturbations of each name, in its order; `()` for
      the control.
    label: int [cells]; index into `names`.
    group: int [cells]; index into `group_names`.
    group_names: [groups].
  """

  names: tuple[str, ...]
  parts: tuple[tuple[str, ...], ...]
  label: np.ndarray
  group: np.ndarray
  group_names: tuple[str, ...]


def make_labels(
  condition: Sequence[str], group: Sequence[str] | None = None
) -> Labels:
  """Makes Labels from one name per cell.

  Args:
    condition: [cells] names such as `A+B`, `A+ctrl`, `ctrl+A`, `control`.
    group: [cells] covariate groups; all cells are in one group without it.
  """
  names, label = np.unique(
    np.asarray(condition, dtype=str), return_inverse=True
  )
  if group is None:
    group = ['all'] * len(label)
  groups, index = np.unique(np.asarray(group, dtype=str), return_inverse=True)
  names = tuple(str(name) for name in names)
  return Labels(
    names=names,
    parts=tuple(parts_of(name) for name in names),
    label=label.reshape(-1),
    group=index.reshape(-1),
    group_names=tuple(str(name) for name in groups),
  )


def canonical_labels(
  family: str,
  conditions: types.Conditions,
  condition: np.ndarray,
  group: np.ndarray,
  group_names: tuple[str, ...],
) -> Labels:
  """Makes Labels from the canonical names, as `originals.draw` says.

  Raises:
    ValueError: for a perturbation whose name GEARS would misread.
  """
  if family == 'perturbench':
    return Labels(
      conditions.names, conditions.tokens, condition, group, group_names
    )
  names = []
  for tokens in conditions.tokens:
    bad = [token for token in tokens if '+' in token or token in CONTROLS]
    if bad:
      raise ValueError(
        f'gears: perturbation {bad[0]!r} cannot be written in its names'
      )
    padded = (*tokens, GEARS_CONTROL) if len(tokens) < 2 else tokens
    names.append('+'.join(padded) if tokens else GEARS_CONTROL)
  # Doses have no place in GEARS' names: they fall together.
  distinct = tuple(dict.fromkeys(names))
  position = {name: i for i, name in enumerate(distinct)}
  index = np.array([position[name] for name in names])
  parts = tuple(parts_of(name) for name in distinct)
  return Labels(distinct, parts, index[condition], group, group_names)


def given_labels(
  given: Sequence[str],
  conditions: types.Conditions,
  condition: np.ndarray,
  group: np.ndarray,
  group_names: tuple[str, ...],
) -> Labels:
  """Makes Labels from the names of the original file.

  Raises:
    ValueError: if a label names other perturbations than the condition.
  """
  if len(given) != len(condition):
    raise ValueError(
      f'labels: {len(given)} names were given for {len(condition)} cells'
    )
  labels = make_labels(given)._replace(group=group, group_names=group_names)
  pairs = np.unique(np.stack([labels.label, condition], axis=1), axis=0)
  for label, c in pairs.tolist():
    if tuple(sorted(labels.parts[label])) != tuple(
      sorted(conditions.tokens[c])
    ):
      raise ValueError(
        f'labels: {labels.names[label]!r} is given to cells whose condition is '
        f'{conditions.names[c]!r}'
      )
  return labels


def parts_of(name: str) -> tuple[str, ...]:
  """Returns the perturbations that a name holds; `()` for the control."""
  return tuple(p for p in name.split('+') if p not in CONTROLS)


def is_combo(name: str) -> bool:
  """Says whether a name holds two or more perturbations."""
  return len(parts_of(name)) > 1
