"""The values of every model on one truth, all by the same call."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from pertjax import heldout, metrics, targets

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


def halves_of(truth: targets.Targets) -> targets.Targets:
  """Returns the truth in halves, in whatever mode it was made."""
  if truth.observed.shape[0] == 2:
    return truth
  return dataclasses.replace(
    truth,
    observed=truth.replicate,
    control=truth.replicate_control,
    top_genes=truth.replicate_genes,
  )


def replicate(truth: targets.Targets) -> heldout.Predicted:
  """Returns the other half of the real cells as a prediction of each half."""
  return heldout.Predicted(
    CEILING,
    (-1,),
    truth.replicate[::-1][None],
    truth.replicate_control[::-1],
    shown=False,
  )


def score_with_ceiling(
  config, truth: targets.Targets, entries: Sequence[heldout.Predicted]
) -> list[Scored]:
  """Scores every model and the replicate ceiling.

  The ceiling is one half of the real cells against the other, both ways round,
  also where models are scored on all cells: against all of them, half of its
  own truth would be its own cells. Its top genes are those of halves as well.
  """
  ceiling = replicate(truth)
  if truth.observed.shape[0] == 2:
    return score(config, truth, [*entries, ceiling])
  return [
    *score(config, truth, entries),
    *score(config, halves_of(truth), [ceiling]),
  ]
