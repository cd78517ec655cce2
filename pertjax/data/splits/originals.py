"""The splitters of PerturBench and GEARS on the package's conditions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from pertjax import names as name_lib
from pertjax import types
from pertjax.data.splits import (
  controls,
  gears,
  labelling,
  naming,
  perturbench,
  problem,
  settings,
)


class Split(NamedTuple):
  """An original's split of the package's cells.

  Attributes:
    cells: int8 [cells]; for GEARS the controls are all TRAIN.
    regimes: {condition: regime} as the original reports it; GEARS only.
    notes: lines that a user should read.
  """

  cells: np.ndarray
  regimes: dict[int, str]
  notes: tuple[str, ...]


def place_perturbench(
  cells: problem.Cells, method: str, seed: int, opts: Mapping[str, Any]
) -> problem.Placed:
  """Places cells as PerturBench does, its controls included."""
  drawn = _draw(cells, method, seed, opts)
  return problem.Placed(drawn.cells, drawn.notes, (opts['seen'], 'train'))


def place_gears(
  cells: problem.Cells, method: str, seed: int, opts: Mapping[str, Any]
) -> problem.Placed:
  """Places conditions as GEARS does, and divides the controls."""
  drawn = _draw(cells, method, seed, opts)
  lacks = (types.TEST,) if method == 'gears_no_test' else ()
  return problem.Placed(
    controls.divided(cells, drawn.cells, seed, opts),
    drawn.notes,
    ('any', 'train_val'),
    original=drawn.regimes,
    may_lack=lacks,
  )


def disagreements(
  cells: problem.Cells,
  placed: problem.Placed,
  codes: np.ndarray,
  regimes: Mapping[tuple[int, int], str],
) -> tuple[str, ...]:
  """Says where an original's label and the training set disagree."""
  if placed.rule != ('any', 'train_val'):
    return ()
  names = cells.conditions.names
  notes = []
  moved = sorted(
    {
      names[c]
      for (c, _), regime in regimes.items()
      if placed.original.get(c, regime) != regime
    }
  )
  if moved:
    notes.append(
      f'{len(moved)} conditions are not what GEARS calls them, because no cell '
      f'of a kept gene is in training or validation: '
      f'{name_lib.listing(moved, quoted=False)}'
    )
  strict = labelling.label(
    codes, cells.conditions, cells.condition, cells.group
  )
  loose = sorted(
    {names[c] for (c, g), r in regimes.items() if strict[c, g] != r}
  )
  if loose:
    notes.append(
      f'{len(loose)} conditions are labelled by the rule of GEARS, to which a '
      f'perturbation in validation is a seen one: '
      f'{name_lib.listing(loose, quoted=False)}'
    )
  return tuple(notes)


def draw(
  method: str,
  *,
  seed: int,
  conditions: types.Conditions,
  condition: np.ndarray,
  group: np.ndarray,
  group_names: tuple[str, ...],
  options: Mapping[str, Any],
) -> Split:
  """Runs an original's splitter on the package's conditions.

  Names decide the originals' draws. `labels`, [cells] names of the original
  file, gives exactly its split. Without them, names are made from the
  canonical ones: for PerturBench as they are (`A`, `A+B`, `A@0.5`, `control`),
  for GEARS `A+ctrl` and `A+B`, without doses and always with the sorted
  orientation, where the original file of Norman 2019 has `ctrl+A` as well.

  Args:
    method: one of settings.METHODS that start with `perturbench_` or `gears_`.
    seed: the original's seed.
    conditions: see types.Conditions.
    condition: int [cells].
    group: int [cells].
    group_names: [groups].
    options: arguments of the splitter by their original names, and `labels`.

  Raises:
    ValueError: if a label names other perturbations than the condition.
  """
  options = dict(options)
  given = options.pop('labels')
  family, kind = method.split('_', 1)
  if given is None:
    labels = naming.canonical_labels(
      family, conditions, condition, group, group_names
    )
  else:
    labels = naming.given_labels(
      given, conditions, condition, group, group_names
    )
  if family == 'perturbench':
    splitter = {
      'transfer': perturbench.transfer,
      'combine': perturbench.combine,
      'inverse': perturbench.inverse,
    }[kind]
    return Split(splitter(labels, seed=seed, **options), {}, ())
  first = np.sort(np.unique(labels.label, return_index=True)[1])
  present = [labels.names[i] for i in labels.label[first]]
  if kind == 'simulation':
    split = gears.simulation(present, seed=seed, **options)
  elif kind == 'simulation_single':
    split = gears.simulation_single(present, seed=seed, **options)
  else:
    split = gears.listed(
      present,
      kind,
      seed=seed,
      fraction=options['combo_single_split_test_set_fraction'],
      val_fraction=options['val_fraction'],
    )
  return _from_gears(labels, split, condition)


def _draw(
  cells: problem.Cells, method: str, seed: int, opts: Mapping[str, Any]
) -> Split:
  """Runs an original's splitter with the options that it knows."""
  own = {k: value for k, value in opts.items() if k not in settings.COMMON}
  return draw(
    method,
    seed=seed,
    conditions=cells.conditions,
    condition=cells.condition,
    group=cells.group,
    group_names=cells.group_names,
    options=own,
  )


def _from_gears(
  labels: naming.Labels, split: gears.Split, condition: np.ndarray
) -> Split:
  """Writes GEARS' lists of names onto the cells."""
  codes = dict.fromkeys(split.train, types.TRAIN)
  codes |= dict.fromkeys(split.val, types.VAL)
  codes |= dict.fromkeys(split.test, types.TEST)
  table = np.array(
    [
      codes.get(name, types.EXCLUDED) if parts else types.TRAIN
      for name, parts in zip(labels.names, labels.parts)
    ],
    dtype=np.int8,
  )
  of = dict(zip(labels.label.tolist(), condition.tolist()))
  number = {name: i for i, name in enumerate(labels.names)}
  regimes = {}
  for subgroups in (split.val_subgroups, split.test_subgroups):
    for key, names in subgroups.items():
      for name in names:
        regimes[of[number[name]]] = key.removeprefix('combo_')
  unused = sorted(
    n for n in labels.names if naming.parts_of(n) and n not in codes
  )
  notes = ()
  if unused:
    notes = (
      f'{len(unused)} conditions touch a held-out perturbation and are used '
      f'nowhere, as in GEARS: {name_lib.listing(unused, quoted=False)}',
    )
  return Split(table[labels.label], regimes, notes)
