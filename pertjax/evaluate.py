"""Predict held-out conditions and score every model by the same rule."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pertjax import (
  calibration,
  heldout,
  leaderboard,
  metrics,
  scoring,
  targets,
  types,
)
from pertjax.data import arrays, predictions
from pertjax.metrics import attacks, certificate, comparison_table


def metric_versions() -> dict[str, str]:
  """Returns the version of every metric, for the record of a run."""
  return {m.name: str(m.version) for m in metrics.list_metrics()}


def run(
  config,
  workdir: pathlib.Path,
  model: types.Model,
  data: arrays.PerturbArrays,
  spec: types.DataSpec,
  params: types.Params,
  consts: Sequence[types.Consts],
  *,
  members: Sequence[int],
  settings: Sequence[str],
  scores: Sequence[float],
  say: Callable[[str], None],
) -> list[dict[str, Any]]:
  """Scores a trained fleet beside all baselines and writes eval/.

  Args:
    config: the run's config.
    workdir: its directory.
    model: the trained model.
    data: the dataset.
    spec: its static facts.
    params: [members, ...] fitted parameters.
    consts: [members] the arrays that each member saw.
    members: their numbers in the fleet.
    settings: [members] what sets each apart beside its seed, '' for nothing;
      members of one setting are averaged, settings are rows of their own.
    scores: [members] best validation scores; the setting that is best by
      their mean makes predictions.h5ad.
    say: takes lines for a person.

  Returns:
    The rows of eval/summary.csv.
  """
  truth = targets.make(config, data, spec)
  for note in truth.notes:
    say(f'note: {note}')
  say(
    f'scoring {len(truth.condition)} held-out pairs, from '
    f'{truth.source.shape[2]} control cells each'
  )
  name = heldout.display_name(config)
  predicted = np.stack(
    [
      heldout.predict_means(
        model,
        heldout.member(params, k),
        consts[k],
        data,
        spec,
        truth,
        # The same for all members: said once.
        say=None if k else say,
      )
      for k in range(len(members))
    ]
  )
  by_setting = {
    setting: [k for k, s in enumerate(settings) if s == setting]
    for setting in dict.fromkeys(settings)
  }
  entries = [
    heldout.Predicted(
      f'{name} ({setting})' if setting else name,
      tuple(members[k] for k in chosen),
      predicted[chosen],
    )
    for setting, chosen in by_setting.items()
  ]
  entries += heldout.predict_baselines(config, data, spec, truth, skip=name)
  if config.eval.save_predictions:
    best = min(
      by_setting, key=lambda s: np.mean([scores[k] for k in by_setting[s]])
    )
    chosen = by_setting[best]
    if len(by_setting) > 1:
      say(f'predictions.h5ad is of the best setting by validation: {best}')
    cells = heldout.predict_cells(
      config,
      model,
      heldout.members(params, chosen),
      [consts[k] for k in chosen],
      data,
      spec,
      truth,
      [members[k] for k in chosen],
    )
    predictions.write_predictions(workdir / 'predictions.h5ad', **cells)
  return finish(config, workdir, data, spec, truth, entries, say=say)


def finish(
  config,
  workdir: pathlib.Path,
  data: arrays.PerturbArrays,
  spec: types.DataSpec,
  truth: targets.Targets,
  entries: Sequence[heldout.Predicted],
  *,
  say: Callable[[str], None],
) -> list[dict[str, Any]]:
  """Scores all and the ceiling, writes the tables, prints the leaderboard."""
  scored = scoring.score_with_ceiling(config, truth, entries)
  folder = workdir / 'eval'
  leaderboard.write_metrics(folder / 'metrics.csv', config, spec, truth, scored)
  rows = leaderboard.summarise(config, truth, scored)
  leaderboard.write_rows(
    folder / 'summary.csv', leaderboard.SUMMARY_COLUMNS, rows
  )
  compared, notes = _paired(config, spec, truth, scored, entries[0].name)
  leaderboard.write_rows(
    folder / 'paired.csv', comparison_table.FIELDS, compared
  )
  for note in notes:
    say(f'note: {note}')
  calibrated = calibration.lines(config, data, spec, truth, say=say)
  if calibrated:
    leaderboard.write_rows(
      folder / 'certificate.csv', certificate.FIELDS, calibrated
    )
    leaderboard.write_rows(
      folder / 'red_team.csv',
      attacks.FIELDS,
      calibration.red_team(config, spec, truth),
    )
  _write_profiles(folder / 'profiles.npz', spec, truth, scored)
  for line in leaderboard.lines(config, rows):
    say(line)
  return rows


def _paired(config, spec, truth, scored, first):
  """Compares each trained model with the best baseline, pair by pair.

  Args:
    config, spec, truth: see `run`.
    scored: all models.
    first: the name of the model of this run, trained or read from a file.

  Returns:
    Lines with the keys of `comparison_table.FIELDS`, and notes.
  """
  models = [s for s in scored if s.name != scoring.CEILING]
  judged = [s.name for s in models if s.members != (-1,) or s.name == first]
  return comparison_table.lines(
    {s.name: s.values for s in scored},
    judged=judged,
    baselines=[s.name for s in models if s.name not in judged],
    directions={
      key[2]: metrics.get(key[2]).direction for s in scored for key in s.values
    },
    conditions=[spec.conditions.names[int(c)] for c in truth.condition],
    regimes=truth.regime,
    split=config.eval.split,
    seed=config.eval.seed,
  )


def _write_profiles(path, spec, truth, scored) -> None:
  """Writes the mean profiles that the report draws."""
  shown = [s for s in scored if s.means is not None]
  names = [
    f'{spec.conditions.names[c]}|{spec.group_name(g)}'
    for c, g in zip(truth.condition, truth.group)
  ]
  predictions.write_arrays(
    path,
    pairs=np.asarray(names, dtype=np.str_),
    models=np.asarray([s.name for s in shown], dtype=np.str_),
    genes=np.asarray(spec.genes, dtype=np.str_),
    observed=truth.whole,
    control=truth.whole_control[truth.group],
    predicted=np.stack([s.means for s in shown]).astype(np.float16),
  )
