"""What held-out conditions really look like: the truth that is scored against.

In the mode 'halves' the real cells of every pair, and the controls of every
group, are cut into two halves. Each side is the truth once; predictions then
start from the controls of the other side. So a prediction and its truth never
share a cell, not even a control cell, whose noise would make anything
correlate with anything; and the replicate ceiling, one side scored against the
other, is measured by the same rule as every model.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from pertjax import types
from pertjax.data import arrays, statistics


@dataclasses.dataclass(frozen=True)
class Targets:
  """The pairs to score, and their truth; V versions (2 halves, or 1).

  Attributes:
    condition, group: int [pairs].
    regime: [pairs] names.
    cells: int [pairs] real cells.
    observed: float32 [V, pairs, genes] means of the real cells.
    control: float32 [V, groups, genes] means of the real controls.
    source: int32 [V, groups, n] control rows that predictions start from; for
      halves, of the other side.
    source_weight: float32 [V, groups, n]; 0 is padding.
    source_mean: float32 [V, groups, genes].
    top_genes: bool [pairs, genes].
    replicate: float32 [2, pairs, genes], and
    replicate_control: float32 [2, groups, genes]: the two halves.
    whole: float32 [pairs, genes], whole_control [groups, genes]: all cells.
    notes: what was left out.
  """

  condition: np.ndarray
  group: np.ndarray
  regime: tuple[str, ...]
  cells: np.ndarray
  observed: np.ndarray
  control: np.ndarray
  source: np.ndarray
  source_weight: np.ndarray
  source_mean: np.ndarray
  top_genes: np.ndarray
  replicate: np.ndarray
  replicate_control: np.ndarray
  whole: np.ndarray
  whole_control: np.ndarray
  notes: tuple[str, ...]


def make(config, data: arrays.PerturbArrays, spec: types.DataSpec) -> Targets:
  """Computes the truth of the split that config.eval.split names.

  Raises:
    ValueError: if the split has no pair that can be scored.
  """
  options = config.eval
  rows = {'val': data.val, 'test': data.test}[options.split]
  pair_count = np.asarray(rows.pair_count)
  chosen = np.flatnonzero(pair_count >= options.min_cells)
  notes = []
  if len(chosen) < len(pair_count):
    notes.append(
      f'{len(pair_count) - len(chosen)} of {len(pair_count)} pairs of the '
      f'{options.split} split have fewer than eval.min_cells='
      f'{options.min_cells} cells and are not scored'
    )
  if not len(chosen):
    raise ValueError(
      f'the {options.split} split has no condition with at least '
      f'eval.min_cells={options.min_cells} cells (found {len(pair_count)} '
      f'pairs with {sorted(pair_count.tolist(), reverse=True)[:5]} cells)'
    )
  start = np.asarray(rows.pair_start)
  perturbed = np.asarray(rows.perturbed)
  cells = [perturbed[start[p] : start[p] + pair_count[p]] for p in chosen]
  control_start = np.asarray(rows.control_start)
  control_count = np.asarray(rows.control_count)
  control = np.asarray(rows.control)
  groups = [
    control[control_start[g] : control_start[g] + control_count[g]]
    for g in range(data.num_groups)
  ]
  random = np.random.Generator(np.random.Philox(options.seed))
  cells = [random.permutation(c) for c in cells]
  groups = [random.permutation(c) for c in groups]
  halves = [_halves(cells), _halves(groups)]
  whole, _, square = _means(data, cells, squares=True)
  whole_control, _, control_square = _means(data, groups, squares=True)
  replicate = np.stack([_means(data, h)[0] for h in halves[0]])
  replicate_control = np.stack([_means(data, h)[0] for h in halves[1]])
  if options.truth == 'halves':
    observed, shown = replicate, replicate_control
    sources = [halves[1][1], halves[1][0]]
  else:
    observed, shown = whole[None], whole_control[None]
    sources = [groups]
  source, weight = _source_table(sources, options.cells)
  source_mean = np.stack(
    [
      _means(data, [s[w > 0] for s, w in zip(table, used)])[0]
      for table, used in zip(source, weight)
    ]
  )
  pair_group = np.asarray(rows.pair_group)[chosen]
  t = welch_t(
    whole,
    square,
    pair_count[chosen],
    whole_control[pair_group],
    control_square[pair_group],
    control_count[pair_group],
  )
  condition = np.asarray(rows.pair_condition)[chosen]
  regimes = spec.split.regimes
  return Targets(
    condition=condition,
    group=pair_group,
    regime=tuple(
      regimes.get((int(c), int(g)), 'held_out')
      for c, g in zip(condition, pair_group)
    ),
    cells=pair_count[chosen],
    observed=observed,
    control=shown,
    source=source,
    source_weight=weight,
    source_mean=source_mean,
    top_genes=top_mask(t, options.top_genes),
    replicate=replicate,
    replicate_control=replicate_control,
    whole=whole,
    whole_control=whole_control,
    notes=tuple(notes),
  )


def _halves(lists):
  """Cuts each list of rows in two; one single row is in both."""
  return (
    [x[: max(1, len(x) // 2)] for x in lists],
    [x[len(x) // 2 :] for x in lists],
  )


def _means(data, lists, *, squares=False):
  """Returns (means, counts, means of squares) of lists of rows."""
  rows = np.concatenate([*lists, np.zeros(0, np.int32)]).astype(np.int32)
  segment = np.repeat(np.arange(len(lists)), [len(x) for x in lists])
  mean, count = _segment_means(
    data, jnp.asarray(rows), jnp.asarray(segment, jnp.int32), len(lists), False
  )
  square = None
  if squares:
    square, _ = _segment_means(
      data, jnp.asarray(rows), jnp.asarray(segment, jnp.int32), len(lists), True
    )
    square = np.asarray(square)
  return np.asarray(mean), np.asarray(count), square


def _segment(data, rows, segment, num_segments, squared):
  transform = (lambda x: x * x) if squared else None
  return statistics.segment_means(data, rows, segment, num_segments, transform)


_segment_means = jax.jit(_segment, static_argnums=(3, 4))


def _source_table(sources, most):
  """Makes (rows, weights) [V, groups, n] of at most `most` control rows."""
  width = min(most, max(len(s) for table in sources for s in table))
  width = max(1, width)
  rows = np.zeros((len(sources), len(sources[0]), width), np.int32)
  weight = np.zeros(rows.shape, np.float32)
  for v, table in enumerate(sources):
    for g, found in enumerate(table):
      count = min(width, len(found))
      rows[v, g, :count] = found[:count]
      weight[v, g, :count] = 1.0
  return rows, weight


def welch_t(mean, square, count, control, control_square, control_count):
  """Returns Welch's t of each pair against its controls, [pairs, genes].

  Args:
    mean, square: [pairs, genes] means of the values and of their squares.
    count: [pairs] cells.
    control, control_square: [pairs, genes] of each pair's own controls.
    control_count: [pairs].

  A gene that is constant on both sides gets 0.
  """

  def variance_of_mean(m, s, n):
    n = np.maximum(n[:, None].astype(np.float64), 2)
    spread = np.maximum(s.astype(np.float64) - m.astype(np.float64) ** 2, 0)
    return spread / (n - 1)

  noise = variance_of_mean(mean, square, count) + variance_of_mean(
    control, control_square, control_count
  )
  # Float32 means of squares leave about 1e-7 where the variance is 0.
  flat = noise <= 1e-12
  difference = mean.astype(np.float64) - control
  return np.where(flat, 0.0, difference / np.sqrt(np.where(flat, 1, noise)))


def top_mask(t: np.ndarray, count: int) -> np.ndarray:
  """Returns bool [pairs, genes]: the `count` largest in absolute value."""
  count = min(count, t.shape[1])
  order = np.argsort(-np.abs(t), axis=1, kind='stable')[:, :count]
  mask = np.zeros(t.shape, bool)
  np.put_along_axis(mask, order, True, axis=1)
  return mask
