"""Collect what a reader has to know before believing the numbers."""

from __future__ import annotations

import json
import math
from typing import Any, NamedTuple

import numpy as np

from pertjax.report import paired, read, scores

# How far the two tables may differ before it is worth a line: both come from
# float32 values, written with six digits or more.
_TOLERANCE = 1e-4
# Without these there is less to see, but the numbers are no less certain.
_HARMLESS = (
  'eval/certificate.csv',
  'eval/profiles.npz',
  'metrics.jsonl',
  'split_summary.json',
)
# The status of a member before training has written one.
UNFINISHED = 'not finished'


class Note(NamedTuple):
  """One line.

  Attributes:
    level: 'warning' or 'note'.
    text: for the reader.
  """

  level: str
  text: str


def collect(
  run: read.Run,
  axes: scores.Axes,
  table: dict[str, np.ndarray] | None,
  grids: dict[str, scores.Grid],
  tests: paired.Paired | None,
  extra: list[str],
) -> list[Note]:
  """Returns all warnings, then all notes.

  Args:
    run: what was read.
    axes: names.
    table: see scores.make_scores; None without eval/summary.csv.
    grids: {split: single values}.
    tests: see paired.make; None without eval/paired.csv.
    extra: lines about what the page leaves out.
  """
  env = run.env or {}
  warnings, notes = _members(run, axes, grids)
  for name, why in run.missing.items():
    lines = notes if name in _HARMLESS else warnings
    lines.append(f'{name} is missing: {why}.')
  warnings += [*_undefined(run), *_disagreements(axes, table, grids)]
  warnings += tests.notes if tests else ()
  recorded = env.get('split_sha256')
  if recorded and run.split_sha256 and recorded != run.split_sha256:
    warnings.append(
      f'split.csv is not the file that this run recorded: its SHA-256 is '
      f'{run.split_sha256}, env.json has {recorded}.'
    )
  if env.get('dirty'):
    warnings.append(
      'The code had changes that were not committed: the revision alone does '
      'not give these numbers again.'
    )
  if run.config is not None and axes.models and axes.primary < 0:
    name = run.config.get('model')
    name = name.get('name') if isinstance(name, dict) else name
    warnings.append(
      f'The configured model ({name!r}) is not in the tables, which hold '
      f'{", ".join(axes.models)}.'
    )
  notes += [*map(str, env.get('notes') or ()), *run.notes, *extra]
  return [
    *(Note('warning', text) for text in warnings),
    *(Note('note', text) for text in notes),
  ]


def label(member: dict[str, Any]) -> str:
  """Returns how a member of the fleet is called."""
  return f'member {member.get("member", "?")} (seed {member.get("seed", "?")})'


def _members(
  run: read.Run, axes: scores.Axes, grids: dict[str, scores.Grid]
) -> tuple[list[str], list[str]]:
  """Returns (warnings, notes) about members that did not end as planned."""
  members = (run.env or {}).get('members') or ()
  scored = {
    member
    for grid in grids.values()
    for model, member in grid.runs
    if model == axes.primary
  }
  warnings, notes = [], []
  for member in members:
    status = str(member.get('status', UNFINISHED))
    if status == 'ok':
      continue
    line = f'{label(member).capitalize()}: {status}.'
    if grids:
      inside = member.get('member') in scored
      line += ' Its scores are ' + (
        'in the averages.' if inside else 'not in the averages.'
      )
    # Stopping early is a way to end well.
    lines = notes if status.startswith('stopped') else warnings
    lines.append(line)
  settings = {
    json.dumps(member.get('overrides') or {}, sort_keys=True)
    for member in members
  }
  if len(settings) > 1:
    warnings.append(
      f'The members have {len(settings)} different settings; a mean over '
      'members mixes them. The table of members keeps them apart.'
    )
  return warnings, notes


def _undefined(run: read.Run) -> list[str]:
  if run.metrics is None:
    return []
  names, codes = run.metrics.text['model']
  bad = ~np.isfinite(run.metrics.numbers['value'])
  if not bad.any():
    return []
  counts = np.bincount(codes[bad], minlength=len(names))
  parts = ', '.join(
    f'{name} {count:,}'
    for name, count in sorted(zip(names, counts.tolist()))
    if count
  )
  return [
    f'{bad.sum():,} of {len(bad):,} values of eval/metrics.csv are undefined '
    f'({parts}). A condition counts for a model where all its members have a '
    'value.'
  ]


def _disagreements(
  axes: scores.Axes,
  table: dict[str, np.ndarray] | None,
  grids: dict[str, scores.Grid],
) -> list[str]:
  """Says where eval/summary.csv is not the mean of eval/metrics.csv."""
  if table is None:
    return []
  compared, found, worst = 0, 0, (0.0, '')
  for s, split in enumerate(axes.splits):
    if split not in grids:
      continue
    for r, regime in enumerate(axes.regimes):
      mask = grids[split].in_regime(regime)
      own = scores.mean(grids[split].values[:, :, mask], axis=-1)
      told = table['mean'][s, r]
      gap = np.abs(own - told)
      scale = np.maximum(np.abs(told), _TOLERANCE)
      known = np.isfinite(gap)
      compared += int(known.sum())
      off = np.where(known, gap / scale, 0)
      found += int((off > _TOLERANCE).sum())
      m, c = np.unravel_index(off.argmax(), off.shape) if off.size else (0, 0)
      if off.size and off[m, c] > worst[0]:
        worst = (
          float(off[m, c]),
          f'{axes.models[m]}, {"/".join(axes.combos[c])}, {split}, {regime}: '
          f'{told[m, c]:.4g} against {own[m, c]:.4g}',
        )
  if not found or math.isclose(worst[0], 0):
    return []
  return [
    f'{found:,} of {compared:,} means of eval/summary.csv are not the mean '
    'over seeds, then conditions, of eval/metrics.csv; the largest gap is '
    f'{worst[1]}.'
  ]
