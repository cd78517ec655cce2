"""Make arrays small enough to travel inside a page."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np

from pertjax.report import read, scores

# Bytes that one byte takes in base64.
BASE64 = 4 / 3
# Values of single conditions; what does not fit is named in a note.
GRID_BYTES = 2_400_000
# Points of one learning curve, and of all of them together.
CURVE_POINTS = 300
ALL_CURVE_POINTS = 40_000
# Genes of one condition. Below the fewest a scatter says too little.
MOST_GENES = 240
FEWEST_GENES = 24

_SCALE = 32767  # of int16
_UNDEFINED = -32768


def pack(array: np.ndarray) -> dict[str, Any]:
  """Returns an array as base64 of its little-endian bytes."""
  array = np.ascontiguousarray(array)
  array = array.astype(array.dtype.newbyteorder('<'), copy=False)
  return {
    'dtype': array.dtype.name,
    'shape': list(array.shape),
    'data': base64.b64encode(array.tobytes()).decode('ascii'),
  }


def plain(array: np.ndarray) -> list[Any]:
  """Returns the flat values with None for what is not finite; exact."""
  flat = np.asarray(array, np.float64).reshape(-1)
  return [
    (int(x) if x.is_integer() else x) if np.isfinite(x) else None
    for x in flat.tolist()
  ]


def pack_curves(curves: read.Curves) -> dict[str, Any]:
  """Thins learning curves without hiding their spikes.

  Returns:
    {'thinned': bool, 'series': {name: [{'member', 'steps', 'values'}]}}.
  """
  count = sum(len(members) for members in curves.values())
  limit = min(CURVE_POINTS, max(40, ALL_CURVE_POINTS // max(count, 1)))
  series, thinned = {}, False
  for name in sorted(curves):
    series[name] = []
    for member, (steps, values) in sorted(curves[name].items()):
      keep = _extremes(values, limit)
      thinned |= len(keep) < len(values)
      series[name].append(
        {
          'member': member,
          'steps': plain(steps[keep]),
          'values': [float(f'{x:.6g}') for x in values[keep].tolist()],
        }
      )
  return {'thinned': thinned, 'series': series}


def pack_grid(
  grid: scores.Grid, axes: scores.Axes, budget: float
) -> tuple[dict[str, Any], float, int]:
  """Packs the values of single conditions, the first combinations first.

  Returns:
    packed: for the page.
    budget: bytes that are left.
    left_out: combinations that did not fit.
  """
  each = grid.values.shape[0] * grid.values.shape[2] * 4 * BASE64
  fit = min(len(axes.combos), int(budget / each)) if each else 0
  trained = [i for i, (_, member) in enumerate(grid.runs) if member >= 0]
  member_means = np.stack(
    [
      scores.mean(grid.members[trained][..., grid.in_regime(regime)], axis=-1)
      for regime in axes.regimes
    ]
  )
  packed = {
    'conditions': list(grid.conditions),
    'groups': list(grid.groups),
    'regimes': [axes.regimes.index(name) for name in grid.regimes],
    'cells': plain(grid.cells),
    'combos': fit,
    'values': pack(grid.values[:, :fit].astype(np.float32)),
    'runs': [grid.runs[i] for i in trained],
    'members': pack(member_means.astype(np.float32)),
  }
  return packed, budget - fit * each, len(axes.combos) - fit


def pack_profiles(
  profiles: read.Profiles, budget: float
) -> tuple[dict[str, Any] | None, str | None]:
  """Packs changes from control for a choice of genes of each condition.

  Half of the genes are those with the largest observed change, a sixth those
  that any model changes most, the rest is spread evenly over the gene order.

  Returns:
    packed: for the page, None where nothing fits.
    note: what was left out, or None.
  """
  num_models, num_pairs, num_genes = profiles.predicted.shape
  # An int16 for each model and the observation, a uint16 for the gene.
  each = (2 * (num_models + 1) + 2) * BASE64
  most = min(MOST_GENES, num_genes)
  fewest = min(FEWEST_GENES, num_genes)
  width = min(most, int(budget / (each * max(num_pairs, 1))))
  pairs, note = np.arange(num_pairs), None
  if width < fewest:
    width = fewest
    fit = int(budget / (each * fewest))
    pairs = np.unique(np.linspace(0, num_pairs - 1, max(fit, 0)).astype(int))
    note = (
      f'Predictions are drawn for {len(pairs)} of {num_pairs} conditions, to '
      'keep this page small; all are in eval/profiles.npz.'
    )
  if not len(pairs):
    return None, note
  chosen = np.empty((len(pairs), width), np.int64)
  scale = np.empty(len(pairs), np.float32)
  observed = np.empty((len(pairs), width), np.int16)
  predicted = np.empty((num_models, len(pairs), width), np.int16)
  for i, pair in enumerate(pairs):
    control = profiles.control[pair].astype(np.float32)
    truth = profiles.observed[pair] - control
    guess = profiles.predicted[:, pair] - control
    genes = _choose(np.abs(truth), np.abs(guess), width)
    chosen[i] = genes
    both = np.concatenate([truth[None, genes], guess[:, genes]])
    finite = np.isfinite(both)
    scale[i] = np.abs(both[finite]).max(initial=0) / _SCALE
    steps = np.where(finite, both, 0) / max(scale[i], np.finfo('f4').tiny)
    steps = np.where(finite, np.rint(steps), _UNDEFINED).astype(np.int16)
    observed[i], predicted[:, i] = steps[0], steps[1:]
  used, index = np.unique(chosen, return_inverse=True)
  small = np.uint16 if len(used) <= 1 << 16 else np.uint32
  return {
    'pairs': [profiles.pairs[i] for i in pairs],
    'models': list(profiles.models),
    'genes': [profiles.genes[i] for i in used],
    'total_genes': num_genes,
    'index': pack(index.reshape(chosen.shape).astype(small)),
    'scale': pack(scale),
    'observed': pack(observed),
    'predicted': pack(predicted),
  }, note


def _extremes(values: np.ndarray, limit: int) -> np.ndarray:
  """Returns indices of the least and greatest value of each stretch."""
  if len(values) <= limit:
    return np.arange(len(values))
  edges = np.linspace(0, len(values), limit // 2 + 1).astype(int)
  keep = {0, len(values) - 1}
  for start, stop in zip(edges[:-1], edges[1:]):
    keep.add(start + int(values[start:stop].argmin()))
    keep.add(start + int(values[start:stop].argmax()))
  return np.array(sorted(keep))


def _choose(truth: np.ndarray, guess: np.ndarray, width: int) -> np.ndarray:
  """Returns `width` genes; the first half by falling observed change.

  Args:
    truth: [genes] size of the observed change.
    guess: [models, genes] size of the predicted change.
    width: how many.
  """
  # A gene without a value is chosen last.
  truth = np.where(np.isfinite(truth), truth, -1)
  guess = np.where(np.isfinite(guess), guess, -1)
  by_truth = np.argsort(-truth, kind='stable')
  if width >= len(truth):
    return by_truth
  top = by_truth[: (width + 1) // 2]
  left = np.setdiff1d(np.arange(len(truth)), top)
  largest = guess[:, left].max(axis=0, initial=-1)
  wrong = left[np.argsort(-largest, kind='stable')[: width // 6]]
  left = np.setdiff1d(left, wrong)
  rest = left[
    np.linspace(0, len(left) - 1, width - len(top) - len(wrong)).astype(int)
  ]
  return np.concatenate([top, wrong, rest])
