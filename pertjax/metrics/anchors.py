"""Ends of scales, of the observed cells: baselines, replicates and ceilings.

Each returns means by column, {column: number}, which `scaling` takes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from pertjax.metrics import problem as problem_lib
from pertjax.metrics import scaling, sides, stand_ins
from pertjax.metrics.conventions import base, cell_eval2
from pertjax.metrics.differential import calls, membership

NUM_SPLITS = 5

# Columns that cell-eval 0.8.2 corrects to the depth of all cells.
CORRECTED = (
  'pearson_delta',
  *(f'discrimination_score_{m}' for m in ('l1', 'l2', 'cosine')),
  *(
    f'{kind}_at_{k}'
    for kind in ('overlap', 'precision')
    for k in ('N', 50, 100, 200, 500)
  ),
  'de_spearman_sig',
  'de_spearman_lfc_sig',
  'de_direction_match',
  'de_sig_genes_recall',
  'pr_auc',
  'roc_auc',
)

_NMAE = f'{cell_eval2.PREFIX}lfc_nmae'


class Replicate(NamedTuple):
  """What halves of the observed cells say of one another.

  Attributes:
    mean: {column: mean over the splits}.
    splits: the same of each split.
    dropped: conditions that have fewer than two observed cells.
  """

  mean: dict[str, float]
  splits: tuple[dict[str, float], ...]
  dropped: tuple[str, ...]


def means(
  problem: problem_lib.Problem,
  convention: base.Convention,
  *,
  wanted: Sequence[str] | None = None,
  options: Mapping[str, Any] | None = None,
) -> dict[str, float]:
  """Evaluates a convention; {column: mean over the conditions with a value}."""
  found = base.evaluate(convention, problem, wanted=wanted, options=options)
  return {name: _mean(value) for name, value in found.items()}


def _mean(value: np.ndarray | base.Panel) -> float:
  if isinstance(value, base.Panel):
    return value.value
  known = value[~np.isnan(value)]
  return float(known.mean()) if len(known) else float('nan')


def baseline(
  problem: problem_lib.Problem,
  convention: base.Convention,
  *,
  wanted: Sequence[str] | None = None,
  options: Mapping[str, Any] | None = None,
  seed: int = 0,
) -> dict[str, float]:
  """Returns the means of a mean response: the same cells for all conditions.

  The cells are drawn from all observed conditions of a group alike, so the
  baseline knows what perturbations do on average, and nothing else.

  Args:
    problem: its observed cells are the truth; its predicted ones are not read.
    convention: how to score.
    wanted: columns; None for all.
    options: of the convention.
    seed: of the draw.
  """
  everything = stand_ins.Halves(
    problem.with_sides(None, problem.observed), np.random.default_rng(seed)
  )
  predicted = problem.with_sides(None, stand_ins.perturbed_mean(everything))
  return means(predicted, convention, wanted=wanted, options=options)


def mean_profile(
  problem: problem_lib.Problem, *, with_control: bool = True
) -> sides.Side:
  """Predicts one profile, without spread, in every cell of every condition.

  cell-eval 0.8.2's baseline: the mean of the group means, as many cells as were
  observed, and the observed controls.

  Args:
    problem: its observed cells make the profile of each covariate group.
    with_control: averages over the control as well, as the tool does; its own
      description says perturbations.

  Returns:
    A predicted side for `Problem.with_sides`.
  """
  observed, number = problem.observed, problem.num_conditions
  group = np.asarray(problem.group)
  profiles = []
  for q in range(len(problem.groups)):
    labels = np.flatnonzero(group == q)
    if with_control:
      labels = np.append(labels, number + q)
    profiles.append(observed.mean[labels].mean(0))
  controls = np.arange(number, observed.num_labels)
  cells, position = observed.cells(controls)
  matrix = np.concatenate([np.stack(profiles), sides.dense(cells)])
  sizes = observed.sizes[:number]
  return sides.Side(
    matrix=matrix,
    labels=np.concatenate(
      [np.repeat(np.arange(number), sizes), number + position]
    ).astype(np.int32),
    num_labels=observed.num_labels,
    # One row of the matrix for all cells of a group's conditions.
    rows=np.concatenate(
      [np.repeat(group, sizes), len(profiles) + np.arange(len(position))]
    ),
  )


def _divisible(
  problem: problem_lib.Problem,
) -> tuple[problem_lib.Problem, tuple[str, ...]]:
  """Returns the conditions that can be cut in halves, and the other names."""
  enough = problem.observed.sizes[: problem.num_conditions] >= 2
  if enough.all():
    return problem, ()
  if not enough.any():
    raise ValueError('no condition has two observed cells to cut in halves')
  lost = tuple(c for c, kept in zip(problem.conditions, enough) if not kept)
  kept = np.flatnonzero(enough)
  numbers = sorted({int(problem.group[c]) for c in kept})
  names = [problem.groups[q] for q in numbers]
  return problem.choose(kept, names, numbers), lost


def replicate(
  problem: problem_lib.Problem,
  convention: base.Convention,
  *,
  num: int = NUM_SPLITS,
  seed: int = 0,
  wanted: Sequence[str] | None = None,
  options: Mapping[str, Any] | None = None,
) -> Replicate:
  """Scores halves of the observed cells against one another, uncorrected.

  Each half has its own controls: with the same ones, changes agree by their
  noise. A half has half the depth, so a perfect prediction may score better
  than it. For `lfc_nmae` genes and scale come from all observed cells, and only
  the error from the halves, as cell-eval2 0.20 has it: a half calls too few
  genes significant, and other conditions would be averaged over.

  Args:
    problem: its observed cells are cut; its predicted ones are not read.
    convention: how to score.
    num: splits, averaged over.
    seed: of the splits.
    wanted: columns; None for all.
    options: of the convention; `control` becomes 'own' where there is one.

  Raises:
    ValueError: when `num` is below 1, or a control has fewer than two cells.
  """
  if num < 1:
    raise ValueError(f'num is {num}; allowed: 1 or more')
  options = dict(options or {})
  if 'control' in convention.options:
    options['control'] = 'own'
  problem, lost = _divisible(problem)
  splits = []
  for draw in np.random.SeedSequence(seed).generate_state(num):
    half = stand_ins.halves(problem, int(draw)).problem
    found = means(half, convention, wanted=wanted, options=options)
    if _NMAE in found:
      settled = base.settle(convention, options)
      found[_NMAE] = _mean(_full_gate(problem, half, settled))
    splits.append(found)
  mean = {
    name: _mean(np.asarray([s[name] for s in splits])) for name in splits[0]
  }
  return Replicate(mean, tuple(splits), lost)


def _full_gate(problem, half, options) -> np.ndarray:
  """Returns sum |L_A - L_B| / sum |L| over R of all cells, [conditions]."""
  with jax.enable_x64(True):
    truth, a, b = (
      calls.without(cell_eval2.de_calls(at, side, options), problem.target_mask)
      for at, side in (
        (problem, 'observed'),
        (half, 'observed'),
        (half, 'predicted'),
      )
    )
    change = np.asarray(truth.log2_fold_change)
    asked = np.asarray(truth.significant) & np.isfinite(change)
    first, second = (
      np.where(
        np.asarray(x.present) & np.isfinite(x.log2_fold_change),
        x.log2_fold_change,
        0,
      )
      for x in (a, b)
    )
  error = np.where(asked, np.abs(first - second), 0).sum(1)
  size = np.where(asked, np.abs(change), 0).sum(1)
  enough = (asked.sum(1) >= membership.MIN_GENES) & (size > 0)
  return np.where(enough, error / np.where(size > 0, size, 1), np.nan)


def ceiling(
  problem: problem_lib.Problem,
  convention: base.Convention,
  *,
  corrected: bool = False,
  seed: int = 0,
  options: Mapping[str, Any] | None = None,
) -> dict[str, float]:
  """Returns the highest score to expect, from two halves of observed cells.

  As published (cell-eval 0.8.2, `compute_ceiling`), the means of one split are
  corrected by Spearman and Brown, those that are not correlations too, and
  columns that are not in CORRECTED have none. On data without any effect that
  gives ceilings well above chance; uncorrected they are at chance.

  Args:
    problem: its observed cells are cut; its predicted ones are not read.
    convention: 'cell-eval', for the published correction.
    corrected: as published; False returns what `replicate` measures.
    seed: of the split.
    options: of the convention.

  Returns:
    {column: ceiling}; NaN for none.
  """
  wanted = None
  names = [c.name for c in convention.columns]
  if corrected:
    wanted = [name for name in names if name in CORRECTED]
  found = replicate(
    problem, convention, num=1, seed=seed, wanted=wanted, options=options
  ).mean
  if not corrected:
    return found
  return {
    name: scaling.spearman_brown(found[name]) if name in found else float('nan')
    for name in names
  }
