"""Predict held-out conditions and score every model by the same rule."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from pertjax import heldout, leaderboard, metrics, targets, types
from pertjax.data import arrays, predictions

CEILING = 'ceiling'


class Scored(NamedTuple):
  """The values of one model.

  Attributes:
    name: for tables.
    members: [members] numbers; (-1,) for closed forms.
    values: {(aggregate, genes, metric): float [members, pairs]}.
    means: float32 [pairs, genes]; predicted, averaged over members; None for
      the ceiling.
  """

  name: str
  members: tuple[int, ...]
  values: dict[tuple[str, str, str], np.ndarray]
  means: np.ndarray | None


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
  return finish(config, workdir, spec, truth, entries, say=say)


def finish(
  config,
  workdir: pathlib.Path,
  spec: types.DataSpec,
  truth: targets.Targets,
  entries: Sequence[heldout.Predicted],
  *,
  say: Callable[[str], None],
) -> list[dict[str, Any]]:
  """Scores all and the ceiling, writes the tables, prints the leaderboard."""
  scored = score_with_ceiling(config, truth, entries)
  folder = workdir / 'eval'
  leaderboard.write_metrics(folder / 'metrics.csv', config, spec, truth, scored)
  rows = leaderboard.summarise(config, truth, scored)
  leaderboard.write_summary(folder / 'summary.csv', rows)
  _write_profiles(folder / 'profiles.npz', spec, truth, scored)
  for line in leaderboard.lines(config, rows):
    say(line)
  return rows


def score(
  config, truth: targets.Targets, entries: Sequence[heldout.Predicted]
) -> list[Scored]:
  """Computes every metric of every model, in one program.

  In a table of halves a value is the mean over both; where one of them is not
  defined, neither is the mean.
  """
  stacked = np.concatenate([e.means for e in entries])
  controls = np.concatenate(
    [
      np.repeat(
        (truth.source_mean if e.control is None else e.control)[None],
        len(e.members),
        axis=0,
      )
      for e in entries
    ]
  )
  # A prediction that is not there has no rank either, though it sorts last.
  missing = np.isnan(stacked).any((1, 3))
  values: dict[tuple[str, str, str], np.ndarray] = {}
  for v in range(stacked.shape[1]):
    table = metrics.table(
      jnp.asarray(stacked[:, v]),
      jnp.asarray(truth.observed[v]),
      jnp.asarray(truth.control[v][truth.group]),
      predicted_control=jnp.asarray(controls[:, v][:, truth.group]),
      groups=jnp.asarray(truth.group, jnp.int32),
      gene_masks={
        'all': None,
        f'top{config.eval.top_genes}': jnp.asarray(truth.top_genes[v]),
      },
      rank_denominator=config.eval.rank_denominator,
      r2_swapped=config.eval.r2_swapped,
    )
    for key, value in table.items():
      value = np.where(missing, np.nan, value)
      values[key] = values.get(key, 0.0) + value / stacked.shape[1]
  ends = np.cumsum([len(e.members) for e in entries])
  return [
    Scored(
      e.name,
      e.members,
      {k: x[end - len(e.members) : end] for k, x in values.items()},
      e.means.mean((0, 1)) if e.shown else None,
    )
    for e, end in zip(entries, ends)
  ]


def score_with_ceiling(
  config, truth: targets.Targets, entries: Sequence[heldout.Predicted]
) -> list[Scored]:
  """Scores every model and the replicate ceiling.

  The ceiling is one half of the real cells against the other, both ways round,
  also where models are scored on all cells: against all of them, half of its
  own truth would be its own cells. Its top genes are those of halves as well.
  """
  ceiling = heldout.Predicted(
    CEILING,
    (-1,),
    truth.replicate[::-1][None],
    truth.replicate_control[::-1],
    shown=False,
  )
  if truth.observed.shape[0] == 2:
    return score(config, truth, [*entries, ceiling])
  halves = dataclasses.replace(
    truth,
    observed=truth.replicate,
    control=truth.replicate_control,
    top_genes=truth.replicate_genes,
  )
  return [*score(config, truth, entries), *score(config, halves, [ceiling])]


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
