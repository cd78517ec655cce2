"""Predictions made of the real cells: what a metric is tried on.

The real cells of every condition, and the controls, are cut into two halves.
One is the truth; predictions are made of the other, so that nothing shares a
cell with its truth, not even a control cell. Some carry all that there is to
know (a replicate), some nothing (the control, the mean of all perturbations),
some are wrong in a known way.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from pertjax.metrics import problem as problem_lib
from pertjax.metrics import sides

# Cells of each condition, and of the control, where cells are written anew.
_CELLS, _CONTROLS = 64, 512
# Counts of a cell on the scale that 'mixed scale' goes back to.
_TARGET = 1e4


class Halves(NamedTuple):
  """A truth, and the cells that predictions of it are made of.

  Attributes:
    problem: observed and predicted are the two halves, a replicate.
    noise: a generator for what is drawn.
  """

  problem: problem_lib.Problem
  noise: np.random.Generator


def halves(problem: problem_lib.Problem, seed: int, *, turn: int = 0) -> Halves:
  """Cuts the observed cells of every label in two at random.

  Args:
    problem: its predicted side is not read.
    seed: of the cut.
    turn: 1 exchanges the halves.

  Raises:
    ValueError: where a condition or a control has fewer than 2 cells.
  """
  random = np.random.default_rng(seed)
  observed = problem.observed
  short = np.flatnonzero(observed.sizes < 2)
  if len(short):
    names = [*problem.conditions, *(f'control {g}' for g in problem.groups)]
    raise ValueError(
      f'{len(short)} label(s) have fewer than 2 observed cells and cannot be '
      f'cut in halves, the first: {names[short[0]]!r}'
    )
  chosen: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
  for label in range(observed.num_labels):
    members = random.permutation(observed.members(label))
    cut = len(members) // 2
    for side, part in zip(chosen, (members[:cut], members[cut:])):
      side.append(np.sort(part))
  made = []
  for parts in chosen if not turn else chosen[::-1]:
    labels = np.repeat(np.arange(len(parts)), [len(p) for p in parts])
    made.append(
      observed.relabelled(
        labels, observed.num_labels, cells=np.concatenate(parts)
      )
    )
  return Halves(problem.with_sides(*made), random)


def null(problem: problem_lib.Problem, seed: int) -> problem_lib.Problem:
  """Returns the same cells with their labels permuted: no effect at all.

  Labels, the control's too, are exchanged within each covariate group, so that
  neither a perturbation nor perturbing as such does anything. The predicted
  side stays and has no meaning.
  """
  random = np.random.default_rng(seed)
  observed = problem.observed
  group_of = np.concatenate([problem.group, np.arange(len(problem.groups))])
  labels = observed.labels.copy()
  where = np.where(labels >= 0, group_of[labels], -1)
  for group in range(len(problem.groups)):
    cells = np.flatnonzero(where == group)
    labels[cells] = random.permutation(labels[cells])
  return problem.with_sides(
    observed.relabelled(labels, observed.num_labels), None
  )


# ----------------------------------------------------------------------------
# Predictions: of the predicted half, for the conditions of the problem.


def _from_cells(
  found: Halves, cells: Callable[[int], np.ndarray]
) -> sides.Side:
  """Makes a side of the same matrix: the cells named for each condition."""
  half, problem = found.problem.predicted, found.problem
  members = [cells(p) for p in range(problem.num_conditions)]
  members += [
    half.members(problem.num_conditions + q) for q in range(len(problem.groups))
  ]
  labels = np.repeat(np.arange(len(members)), [len(m) for m in members])
  return half.relabelled(labels, half.num_labels, cells=np.concatenate(members))


def replicate(found: Halves) -> sides.Side:
  """Returns the other half of the real cells: all that could be known."""
  return found.problem.predicted


def control_copy(found: Halves) -> sides.Side:
  """Predicts the control cells, exactly those of the predicted control."""
  half, problem = found.problem.predicted, found.problem
  return _from_cells(
    found, lambda p: half.members(int(problem.control_labels[p]))
  )


def perturbed_mean(found: Halves) -> sides.Side:
  """Predicts one pool of perturbed cells for every condition of a group.

  The pool has the same number of cells of every condition, and is the same for
  all of them, so that all profiles are exactly equal.
  """
  half, problem = found.problem.predicted, found.problem
  pools = []
  for group in range(len(problem.groups)):
    chosen = np.flatnonzero(np.asarray(problem.group) == group)
    sizes = half.sizes[chosen]
    # Four times the median condition together: the profile has little noise.
    wanted = -(-4 * int(np.median(sizes)) // len(chosen))
    each = max(1, min(int(sizes.min()), wanted))
    pools.append(
      np.sort(
        np.concatenate(
          [found.noise.permutation(half.members(int(c)))[:each] for c in chosen]
        )
      )
    )
  return _from_cells(found, lambda p: pools[int(problem.group[p])])


def interpolated(found: Halves, weight: np.ndarray) -> sides.Side:
  """Predicts the replicate where it is sure, the perturbed mean elsewhere.

  Args:
    found: the halves; log values.
    weight: [conditions, genes] from 0 (the mean) to 1 (the replicate); Miller
      et al. take 1 less the adjusted p of the replicate's own test.
  """
  half, problem = found.problem.predicted, found.problem
  own = problem.means('predicted')
  mean = np.stack(
    [
      own[np.asarray(problem.group) == group].mean(0)
      for group in range(len(problem.groups))
    ]
  )[np.asarray(problem.group)]
  shift = np.zeros((half.num_labels, half.num_genes))
  shift[: problem.num_conditions] = (1 - weight) * (mean - own)
  return half.relabelled(half.labels, half.num_labels, shift=shift)


def scrambled(found: Halves) -> sides.Side:
  """Predicts for each condition the cells of another one of its group."""
  half, problem = found.problem.predicted, found.problem
  partner = np.arange(problem.num_conditions)
  for group in range(len(problem.groups)):
    chosen = found.noise.permutation(
      np.flatnonzero(np.asarray(problem.group) == group)
    )
    partner[chosen] = np.roll(chosen, 1)
  return _from_cells(found, lambda p: half.members(int(partner[p])))


def _written(
  found: Halves,
  write: Callable[[int, np.ndarray, np.ndarray], np.ndarray],
  *,
  silent_control: bool = False,
) -> sides.Side:
  """Makes a side of new cells.

  Args:
    found: the halves.
    write: takes a condition, its own real cells [n, genes] and as many control
      cells of its group as there are, and returns cells [m, genes].
    silent_control: predicts controls without any expression.
  """
  half, problem = found.problem.predicted, found.problem

  def read(label: int, most: int) -> np.ndarray:
    members = found.noise.permutation(half.members(label))[:most]
    one = half.relabelled(np.zeros(len(members)), 1, cells=np.sort(members))
    return sides.dense(one.cells([0])[0]).astype(np.float32)

  controls = [
    read(problem.num_conditions + q, _CONTROLS)
    for q in range(len(problem.groups))
  ]
  blocks = [
    write(p, read(p, _CELLS), controls[int(problem.group[p])]).astype(
      np.float32
    )
    for p in range(problem.num_conditions)
  ]
  blocks += [0 * c for c in controls] if silent_control else controls
  return sides.Side(
    matrix=np.concatenate(blocks),
    labels=np.repeat(
      np.arange(len(blocks), dtype=np.int32), [len(b) for b in blocks]
    ),
    num_labels=len(blocks),
  )


def _moved(
  found: Halves, cells: np.ndarray, old: np.ndarray, new: np.ndarray
) -> np.ndarray:
  """Moves cells so that their mean goes from `old` to `new`.

  Log values are shifted and cut at 0; counts are multiplied, and a gene that
  was 0 gets the new mean in every cell.
  """
  if found.problem.scale == 'counts':
    ratio = new / np.where(old > 0, old, 1)
    return np.where(old > 0, cells * ratio, new)
  return np.maximum(cells + (new - old), 0)


def sign_flipped(found: Halves) -> sides.Side:
  """Predicts the true change with the wrong sign."""

  def write(p, own, control):
    del p
    start = control[: len(own)]
    mean = start.mean(0)
    flipped = np.maximum(2 * control.mean(0) - own.mean(0), 0)
    return _moved(found, start, mean, flipped)

  return _written(found, write)


def inflated_effect(found: Halves, *, factor: float = 3.0) -> sides.Side:
  """Predicts the true change, several times too large."""

  def write(p, own, control):
    del p
    mean, start = own.mean(0), control.mean(0)
    return _moved(
      found, own, mean, np.maximum(start + factor * (mean - start), 0)
    )

  return _written(found, write)


def inflated_variance(found: Halves, *, factor: float = 3.0) -> sides.Side:
  """Predicts the true mean with cells spread several times too far.

  Log values may go below 0, or the mean would change; counts are cut there.
  """

  def write(p, own, control):
    del p, control
    mean = own.mean(0)
    cells = mean + factor * (own - mean)
    return np.maximum(cells, 0) if found.problem.scale == 'counts' else cells

  return _written(found, write)


def mixed_scale(found: Halves) -> sides.Side:
  """Predicts the control on another scale in every second condition.

  Log values become counts there, and counts log values.
  """

  def write(p, own, control):
    start = control[: len(own)]
    if p % 2:
      return start
    if found.problem.scale == 'counts':
      whole = np.maximum(start.sum(1, keepdims=True), 1)
      return np.log1p(start * (_TARGET / whole))
    return np.expm1(start)

  return _written(found, write)


def target_spiked(found: Halves) -> sides.Side:
  """Predicts the control, with the perturbed gene itself at 0.

  Who knows the name of a perturbation knows this; nothing else is predicted.
  """

  def write(p, own, control):
    del own
    cells = control.copy()
    cells[:, list(found.problem.targets[p])] = 0
    return cells

  return _written(found, write)


def moved_control(found: Halves) -> sides.Side:
  """Predicts control cells, and nothing at all as the control.

  Where changes are taken from predicted controls, the change is then the
  expression profile itself (cell-eval issues 183 and 196).
  """
  return _written(found, lambda p, own, control: control, silent_control=True)


def constant(found: Halves) -> sides.Side:
  """Predicts one number, the overall mean, for every gene of every cell."""
  level = float(
    found.problem.predicted.mean[found.problem.num_conditions :].mean()
  )

  def write(p, own, control):
    del p, control
    return np.full_like(own, level)

  return _written(found, write)


# What a metric should tell from one another; the report shows them by name.
NOTHING = {
  'control copy': control_copy,
  'perturbed mean': perturbed_mean,
  'constant': constant,
  'target spiked': target_spiked,
  'moved control': moved_control,
  'scrambled': scrambled,
}
WRONG = {
  'sign flipped': sign_flipped,
  'effect x 3': inflated_effect,
  'variance x 9': inflated_variance,
  'mixed scale': mixed_scale,
}
