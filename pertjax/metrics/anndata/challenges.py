"""Scores between a baseline and a replicate, as the challenges rank by them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd

from pertjax import names as name_lib
from pertjax.metrics import anchors, scaling
from pertjax.metrics.anndata import aligning, choosing, inputs
from pertjax.metrics.conventions import base

FIELDS = ('convention', 'metric', 'value', 'baseline', 'replicate', 'score')
OVERALL = 'overall'

# By a baseline alone, or between it and a replicate.
_FROM_BASELINE = ('cell-eval', 'vcc2025')
_BETWEEN = ('cell-eval2', 'vcc2026')


def scaled(
  observed: inputs.Given,
  predicted: inputs.Given,
  *,
  perturbation_key: str,
  control: str,
  covariate_keys: Sequence[str] = (),
  convention: str = 'vcc2026',
  baseline: inputs.Given | None = None,
  options: Mapping[str, Any] | None = None,
  splits: int = anchors.NUM_SPLITS,
  seed: int = 0,
  say: Callable[[str], None] | None = None,
  **keys: Any,
) -> pd.DataFrame:
  """Scales the means of a prediction, and averages them.

  'vcc2025' and 'cell-eval' go from 0, the baseline, to 1, the best value, not
  below 0, and the first is shown times 100. 'vcc2026' and 'cell-eval2' go from
  0, the baseline, to 1, replicates of the observed cells, and beyond.

  Args:
    observed: the real cells, see `score`.
    predicted: the predicted cells of one model.
    perturbation_key: see `score`.
    control: see `score`.
    covariate_keys: see `score`.
    convention: one of those named above.
    baseline: predicted cells of the baseline: the challenge of 2025 takes the
      mean of the training cells. None draws one pool from the observed cells
      of all conditions, which knows a little of the truth that it is scored on.
    options: of the convention.
    splits: cuts of the observed cells that replicates are averaged over.
    seed: of the pool and the cuts.
    say: takes notes as lines.
    **keys: `genes`, `conditions`, `layer` and others of `score`.

  Returns:
    A line for each column that is scaled and one for their mean, with the
    columns FIELDS; `attrs['notes']` has the notes.

  Raises:
    FileNotFoundError: where there is no such file.
    ValueError: see `score`.
  """
  allowed = (*_FROM_BASELINE, *_BETWEEN)
  if base.get(convention).name not in allowed:
    raise ValueError(
      name_lib.unknown('convention with a scale', convention, allowed)
    )
  chosen = choosing.chosen(convention, options, None)
  (one,) = chosen.conventions
  settings = chosen.settings[one.name]
  sides = {
    'perturbation_key': perturbation_key,
    'control': control,
    'covariate_keys': covariate_keys,
    **keys,
  }
  aligned = aligning.problem_of(observed, predicted, **sides)
  problem = aligned.problem
  choosing.check_scale(chosen.conventions, problem.scale, 'observed')
  notes = list(aligned.notes)
  if baseline is not None:
    found = aligning.problem_of(observed, baseline, **sides)
    if found.problem.conditions != problem.conditions:
      raise ValueError(
        'the baseline has other conditions than the prediction: '
        f'{len(found.problem.conditions)} and {len(problem.conditions)}'
      )
    notes.append('the baseline is the one that was given')
    low = anchors.means(found.problem, one, options=settings)
  else:
    notes.append(
      'the baseline is one pool of observed cells of all conditions, the same '
      'for all of them'
    )
    low = anchors.baseline(problem, one, options=settings, seed=seed)
  values = anchors.means(problem, one, options=settings)
  high: dict[str, float] = {}
  if one.name in _BETWEEN:
    replicate = anchors.replicate(
      problem, one, num=splits, seed=seed, options=settings
    )
    high = replicate.mean
    notes.append(
      f'the replicate is the mean of {splits} cuts of the observed cells in '
      'halves, each with its own controls'
    )
  scores = _scores(one, values, low, high)
  for note in notes:
    if say is not None:
      say(note)
  overall = scores.pop(OVERALL)
  rows = []
  for name, score in scores.items():
    # The challenge of 2025 has names of its own.
    column = one.column(name).name
    rows.append(
      {
        'convention': one.name,
        'metric': name,
        'value': values[column],
        'baseline': low[column],
        'replicate': high.get(column, float('nan')),
        'score': score,
      }
    )
  rows.append({'convention': one.name, 'metric': OVERALL, 'score': overall})
  table = pd.DataFrame(rows, columns=list(FIELDS))
  table.attrs['notes'] = notes
  return table


def _scores(convention, values, low, high) -> dict[str, float]:
  """Returns {column: score} and OVERALL."""
  if convention.name == 'vcc2025':
    return scaling.vcc2025_score(values, low)
  if convention.name == 'vcc2026':
    found = scaling.vcc2026_score(values, low, high)
  elif convention.name == 'cell-eval2':
    columns = [
      c.name
      for c in convention.columns
      if c.direction != 'none' and c.name in high
    ]
    found = scaling.between(values, low, high, columns=columns)
  else:
    found = scaling.from_baseline(values, low, convention=convention)
  found[OVERALL] = found.pop(scaling.AVERAGE)
  return found
