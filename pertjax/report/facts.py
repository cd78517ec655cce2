"""Put the parts of the page that need no script into words and rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from pertjax.report import notes, paired, read, scores, verdict

_ONE = {'members of the fleet': 'member of the fleet'}
# What training shows of a held-out condition in its group.
_REGIMES = {
  'cells': 'other cells of the same condition and group were trained on',
  'transfer': 'the condition was trained on in other groups',
  'unseen_dose': 'the same perturbations were trained on at other doses',
  'combo_only': 'a single perturbation that trains in combinations only',
  'unseen_single': 'a single perturbation that trains nowhere',
}
_TONES = {
  'better': 'model better',
  'worse': 'baseline better',
  'unclear': 'no clear difference',
  'few': 'too few conditions',
  'none': 'not comparable',
}


def verdicts(
  run: read.Run,
  axes: scores.Axes,
  table: dict[str, np.ndarray] | None,
  grids: dict[str, scores.Grid],
  tests: paired.Paired | None,
) -> dict[str, Any] | None:
  """Returns the verdict over all regimes and a row for each of them.

  Args:
    run: what was read.
    axes: names.
    table: see scores.make_scores; without it there is no verdict.
    grids: {split: single values}.
    tests: see paired.make.
  """
  if not table or not axes.combos:
    return None
  combo = verdict.headline_combo(axes, run.config)
  grid = grids.get(axes.splits[0])
  readings = [
    verdict.read(axes, table, grid, tests, split=0, regime=r, combo=combo)
    for r in range(len(axes.regimes))
    if r == 0 or np.isfinite(table['conditions'][0, r]).any()
  ]
  whole = readings[0]
  if len(readings) == 2:
    # 'all' and the only regime are the same numbers.
    readings = [whole._replace(regime=readings[1].regime)]
  rows = []
  for reading in readings:
    rows.append(
      {
        'regime': reading.regime,
        'score': _interval(reading.score),
        'baseline': axes.models[reading.baseline]
        if reading.baseline >= 0
        else '–',
        'rival': _interval(reading.rival),
        'ceiling': verdict.number(reading.ceiling[0]),
        'share': verdict.number(reading.share),
        'difference': _interval(reading.difference, verdict.gap_scale(reading)),
        'pairs': verdict.number(reading.test.get('conditions', np.nan), 100),
        'p': _p(reading.test.get('p_adjusted', np.nan)),
        'least': verdict.number(
          reading.test.get('detectable', np.nan), verdict.gap_scale(reading)
        ),
        'tone': reading.tone,
        'words': _TONES[reading.tone],
      }
    )
  remarks = []
  if axes.primary < 0 and whole.model >= 0:
    remarks.append(
      'The run does not say which model is its own; this is the trained model '
      'with the best score, which flatters it.'
    )
  if axes.combos[combo] == verdict.HEADLINE and whole.ceiling[1] <= 0:
    remarks.append(
      'The interval of the replicate ceiling reaches zero: these data hold '
      'little that any model could predict.'
    )
  if whole.share > 1:
    remarks.append(
      'More than 1 is possible: the ceiling is how well replicates agree, and '
      'a prediction may hold less noise than a replicate.'
    )
  means = table['mean'][0, 0, :, combo]
  trained = [i for i, kind in enumerate(axes.kinds) if kind == 'trained']
  best = scores.best_of(
    means, trained, axes.directions.get(axes.combos[combo][2])
  )
  if best >= 0 and best != whole.model:
    remarks.append(
      f'Of the trained models in the tables, {axes.models[best]} has the best '
      f'mean, {verdict.number(float(means[best]))}.'
    )
  seeds = table['seeds'][0, 0, whole.model, combo] if whole.model >= 0 else 0
  if seeds > 1:
    spread = table['seed_sd'][0, 0, whole.model, combo]
    remarks.append(
      f'Mean of {seeds:.0f} seeds, whose standard deviation is '
      f'{verdict.number(float(spread), whole.score[0])}.'
    )
  return {
    'pieces': verdict.sentence(whole, axes, combo),
    'evidence': verdict.evidence(whole, unit=_unit(grids.get(axes.splits[0]))),
    'remarks': remarks,
    'tone': whole.tone,
    'model': axes.models[whole.model] if whole.model >= 0 else 'model',
    'combo': verdict.describe(axes.combos[combo]),
    'split': axes.splits[0],
    'rows': rows,
  }


def _p(p: float) -> str:
  if not np.isfinite(p):
    return '–'
  return verdict.p_words(p).removeprefix('p = ').removeprefix('p ')


def _unit(grid: scores.Grid | None) -> str:
  if grid is None or len(set(grid.groups)) < 2:
    return 'conditions'
  return 'pairs of condition and group'


def _interval(
  score: tuple[float, float, float], scale: float | None = None
) -> dict[str, str]:
  mean, low, high = score
  if scale is None:
    scale = max((abs(x) for x in score if np.isfinite(x)), default=0.0)
  text = verdict.number(mean, scale)
  if not (np.isfinite(low) and np.isfinite(high)):
    return {'mean': text, 'range': ''}
  low_text, high_text = (verdict.number(x, scale) for x in (low, high))
  return {'mean': text, 'range': f'{low_text} to {high_text}'}


def counts(env: Mapping[str, Any]) -> list[tuple[str, str]]:
  """Returns the sizes of the run as (number, noun)."""
  keys = (
    ('num_cells', 'cells'),
    ('num_genes', 'genes'),
    ('num_conditions', 'conditions'),
    ('num_perturbations', 'perturbations'),
    ('model_parameters', 'model parameters'),
  )
  facts = [
    (f'{env[key]:,}', word)
    for key, word in keys
    if isinstance(env.get(key), int) and env[key]
  ]
  if env.get('groups'):
    facts.append((f'{len(env["groups"]):,}', 'groups'))
  if env.get('members'):
    facts.append((f'{len(env["members"]):,}', 'members of the fleet'))
  return [(number, _singular(number, word)) for number, word in facts]


def _singular(number: str, word: str) -> str:
  if number != '1':
    return word
  return _ONE.get(word, word.removesuffix('s'))


def regimes(axes: scores.Axes) -> list[tuple[str, str]]:
  """Returns the regimes of the tables that have a fixed meaning, with it."""
  known = []
  for name in axes.regimes:
    count = name.removeprefix('seen')
    if name in _REGIMES:
      known.append((name, _REGIMES[name]))
    elif name.startswith('seen') and count.isdigit():
      word = 'none' if count == '0' else count
      known.append(
        (name, f'a combination of which {word} of the perturbations are seen')
      )
  return known


def split(summary: list[dict[str, Any]] | None) -> dict[str, Any] | None:
  """Sums the split over groups, keeping the rows as they are beside it."""
  if summary is None:
    return None
  # [groups, conditions, cells] of each.
  sums: dict[tuple[str, str], list[int]] = {}
  for row in summary:
    entry = sums.setdefault((row['split'], row['regime']), [0, 0, 0])
    entry[0] += 1
    entry[1] += row['conditions']
    entry[2] += row['cells']
  total = sum(entry[2] for entry in sums.values())
  most = max((entry[2] for entry in sums.values()), default=0)
  shares: dict[str, int] = {}
  for (split, _), entry in sums.items():
    shares[split] = shares.get(split, 0) + entry[2]
  return {
    'rows': [
      {
        'split': split,
        'regime': regime,
        'groups': groups,
        'conditions': conditions,
        'cells': cells,
        'width': 100 * cells / max(most, 1),
      }
      for (split, regime), (groups, conditions, cells) in sums.items()
    ],
    'shares': [
      {'split': split, 'cells': cells, 'share': 100 * cells / max(total, 1)}
      for split, cells in shares.items()
    ],
    'full': summary,
    'total': total,
  }


def members(
  run: read.Run, axes: scores.Axes, grids: dict[str, scores.Grid]
) -> list[dict[str, Any]]:
  """Returns the rows of the table of members."""
  grid = grids.get(axes.splits[0]) if axes.splits else None
  combo = verdict.headline_combo(axes, run.config) if axes.combos else 0
  losses = (run.curves or {}).get('val_loss', {})
  rows = []
  for member in (run.env or {}).get('members') or ():
    number, best = member.get('member'), member.get('best_step')
    loss = score = float('nan')
    if number in losses and best is not None:
      steps, values = losses[number]
      at = np.flatnonzero(steps == best)
      loss = float(values[at[0]]) if len(at) else loss
    if grid is not None and (axes.primary, number) in grid.runs:
      values = grid.members[grid.runs.index((axes.primary, number)), combo]
      score = float(scores.mean(values, axis=0))
    status = str(member.get('status', notes.UNFINISHED))
    rows.append(
      {
        'member': number,
        'seed': member.get('seed'),
        'overrides': member.get('overrides') or {},
        'status': status,
        'kind': status.split(' ')[0],
        'best_step': best,
        'loss': verdict.number(loss),
        'score': verdict.number(score),
      }
    )
  return rows


def hash_agrees(run: read.Run) -> bool | None:
  """Tells whether split.csv is the recorded one; None where unknown."""
  recorded = (run.env or {}).get('split_sha256')
  if not recorded or not run.split_sha256:
    return None
  return recorded == run.split_sha256
