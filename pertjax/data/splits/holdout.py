"""Splitters that hold out combinations, perturbations, conditions or cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pertjax import types
from pertjax.data.splits import controls, draws, problem, settings


def place_combinations(
  cells: problem.Cells, method: str, seed: int, opts: Mapping[str, Any]
) -> problem.Placed:
  """Holds combinations out, and perturbations whole where that is asked."""
  sizes = problem.token_sizes(cells)
  combos = [tokens for tokens in sizes if len(tokens) > 1]
  if not combos:
    raise ValueError(
      'split combinations: no condition has two or more perturbations; '
      "'perturbations', 'conditions', 'transfer' and 'cells' do not need any"
    )
  place, notes = {}, []
  total = opts['val_fraction'] + opts['test_fraction']
  if opts['hold_out_singles'] and total:
    singles, notes = _enough(sizes, opts, 'single perturbations', 1)
    share = opts['hold_out_singles'] / total
    held = draws.hold_out(
      {token: token for (token,) in singles},
      share * opts['val_fraction'],
      share * opts['test_fraction'],
      draws.make_scope(seed, f'{method}/singles'),
      'single perturbations (hold_out_singles, divided as val and test)',
    )
    place = _touching(sizes, held)
  free = {t: sizes[t] for t in combos if t not in place}
  enough, few = _enough(free, opts, 'combinations')
  if enough or not place:
    place |= draws.hold_out(
      {draws.token_key(t): t for t in enough},
      opts['val_fraction'],
      opts['test_fraction'],
      draws.make_scope(seed, f'{method}/combinations'),
      'combinations',
      required=not place,
    )
  return _by_condition(cells, seed, opts, place, [*notes, *few])


def place_perturbations(
  cells: problem.Cells, method: str, seed: int, opts: Mapping[str, Any]
) -> problem.Placed:
  """Holds single perturbations out, with the combinations they are in."""
  sizes = problem.token_sizes(cells)
  singles, notes = _enough(sizes, opts, 'single perturbations', 1)
  held = draws.hold_out(
    {token: token for (token,) in singles},
    opts['val_fraction'],
    opts['test_fraction'],
    draws.make_scope(seed, method),
    'single perturbations',
  )
  place = _touching(sizes, held)
  if opts['combinations'] == 'exclude':
    combos = [tokens for tokens in place if len(tokens) > 1]
    place |= dict.fromkeys(combos, types.EXCLUDED)
    if combos:
      notes.append(
        f'{len(combos)} combinations with held-out perturbations are excluded'
      )
  return _by_condition(cells, seed, opts, place, notes)


def place_conditions(
  cells: problem.Cells, method: str, seed: int, opts: Mapping[str, Any]
) -> problem.Placed:
  """Holds any conditions out; each dose is a condition of its own."""
  sizes = cells.counts.sum(1)
  present = {c: sizes[c] for c in range(1, len(sizes)) if sizes[c]}
  enough, notes = _enough(present, opts, 'conditions')
  held = draws.hold_out(
    {cells.conditions.names[c]: c for c in enough},
    opts['val_fraction'],
    opts['test_fraction'],
    draws.make_scope(seed, method),
    'conditions',
  )
  table = np.full(len(sizes), types.TRAIN, np.int8)
  for c, code in held.items():
    table[c] = code
  codes = controls.divided(cells, table[cells.condition], seed, opts)
  return problem.Placed(codes, tuple(notes), (opts['seen'], 'train'))


def place_cells(
  cells: problem.Cells, method: str, seed: int, opts: Mapping[str, Any]
) -> problem.Placed:
  """Holds cells of every pair out, units whole."""
  shares, units, notes = settings.shares(opts), opts['units'], []
  blocks, block = draws.make_blocks(cells.names, units)
  pairs = np.unique(np.stack([block, cells.pair]), axis=1)
  if pairs.shape[1] > len(blocks):
    # Units such as donors have cells of many pairs: they are divided whole,
    # and the controls with them.
    stratum = np.zeros_like(cells.pair)
    codes = draws.divide(
      stratum, cells.names, units, shares, draws.make_scope(seed, method)
    )
    return problem.Placed(codes, (), (opts['seen'], 'train'))
  codes = draws.divide(
    cells.pair, cells.names, units, shares, draws.make_scope(seed, method)
  )
  sizes = np.bincount(pairs[1], minlength=np.prod(cells.shape))
  small = cells.counts.reshape(-1) < opts['min_cells']
  small |= sizes < sum(share > 0 for share in shares)
  # Controls have fractions of their own.
  small[: cells.shape[1]] = False
  codes[small[cells.pair]] = types.TRAIN
  few = int((small & (sizes > 0)).sum())
  if few:
    notes.append(f'{few} pairs have too few cells to divide: they all train')
  codes = controls.divided(cells, codes, seed, opts)
  return problem.Placed(codes, tuple(notes), (opts['seen'], 'train'))


def _enough(
  sizes: Mapping[Any, int],
  opts: Mapping[str, Any],
  what: str,
  order: int | None = None,
) -> tuple[list[Any], list[str]]:
  """Lists what has `min_cells` cells, of one order if given, and a note."""
  pool = [x for x in sizes if order is None or len(x) == order]
  kept = [x for x in pool if sizes[x] >= opts['min_cells']]
  if len(kept) == len(pool):
    return kept, []
  note = (
    f'{len(pool) - len(kept)} {what} have fewer than '
    f'min_cells={opts["min_cells"]} cells and are not held out'
  )
  return kept, [note]


def _touching(
  sizes: Mapping[tuple[str, ...], int], held: Mapping[str, int]
) -> dict[tuple[str, ...], int]:
  """Holds out all that a held-out perturbation is in; test goes first."""
  place = {}
  for tokens in sizes:
    codes = [held[t] for t in tokens if t in held]
    if codes:
      place[tokens] = max(codes)  # TEST > VAL.
  return place


def _by_condition(
  cells: problem.Cells,
  seed: int,
  opts: Mapping[str, Any],
  place: Mapping[tuple[str, ...], int],
  notes: Sequence[str],
) -> problem.Placed:
  table = np.array(
    [place.get(t, types.TRAIN) for t in cells.conditions.tokens], np.int8
  )
  codes = controls.divided(cells, table[cells.condition], seed, opts)
  return problem.Placed(codes, tuple(notes), (opts['seen'], 'train'))
