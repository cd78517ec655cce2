"""SENA's split: cells of some single perturbations, and every combination.

ICLR 2025 (arXiv 2506.12439) and its code: of each listed perturbation a fifth
of the cells is tested, though the others of them train; every combination of
perturbations that train alone is tested; all controls train, and are predicted
from. Nothing validates.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from pertjax import names as name_lib
from pertjax import types
from pertjax.data.splits import controls, draws, problem


def place(
  cells: problem.Cells, method: str, seed: int, opts: Mapping[str, Any]
) -> problem.Placed:
  """Places cells; floor(test_fraction * n) of a listed perturbation's.

  The original draws them with NumPy's global generator; here they are the
  first by their keyed hash, as in the package's own methods.
  """
  tokens = cells.conditions.tokens
  present = np.flatnonzero(cells.counts.sum(1))
  alone = {tokens[c][0] for c in present if len(tokens[c]) == 1}
  codes = np.full(len(cells.condition), types.TRAIN, np.int8)
  strange = []
  for c in present.tolist():
    if len(tokens[c]) < 2:
      continue
    known = all(token in alone for token in tokens[c])
    codes[cells.condition == c] = types.TEST if known else types.EXCLUDED
    if not known:
      strange.append(cells.conditions.names[c])
  listed = [p for p in opts['perturbations'] if p in alone]
  for token in listed:
    own = [c for c in present.tolist() if tokens[c] == (token,)]
    rows = np.flatnonzero(np.isin(cells.condition, own))
    at = dict(zip(cells.names[rows].tolist(), rows.tolist()))
    scope = draws.make_scope(seed, f'{method} {token}')
    # 1e-9: 0.2 times a multiple of 5 must not fall below the whole number.
    count = int(opts['test_fraction'] * len(rows) + 1e-9)
    for name in draws.ranked(at, scope)[:count]:
      codes[at[name]] = types.TEST
  notes = []
  missing = [p for p in opts['perturbations'] if p not in alone]
  if missing:
    notes.append(
      f'{len(missing)} of {len(opts["perturbations"])} perturbations of '
      'split.perturbations have no cells of their own here, so none of them is '
      f'tested: {name_lib.listing(missing, quoted=False)}'
    )
  if strange:
    notes.append(
      f'{len(strange)} combinations are in no split, because a perturbation of '
      'theirs never occurs alone: '
      f'{name_lib.listing(strange, quoted=False)}'
    )
  return problem.Placed(
    controls.divided(cells, codes, seed, opts),
    tuple(notes),
    (opts['seen'], 'train'),
    may_lack=(types.VAL,),
  )
