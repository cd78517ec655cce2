"""What held-out conditions really look like: the truth that is scored against.

In the mode 'halves' the real cells of every pair, and the controls of every
group, are cut into two halves. Each side is the truth once; predictions then
start from the controls of the other side, whose cells also choose the top
genes. So a prediction and its truth never share a cell, not even a control
cell, whose noise would make anything correlate with anything; and the replicate
ceiling, one side scored against the other, is measured by the same rule as
every model.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

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
    top_genes: bool [V, pairs, genes], those of the largest Welch's t; for
      halves, on the cells of the other side: genes that were chosen with cells
      of the truth are partly chosen for its noise.
    replicate: float32 [2, pairs, genes],
    replicate_control: float32 [2, groups, genes], and
    replicate_genes: bool [2, pairs, genes]: the two halves, with the genes that
      the other one chooses, whatever the mode.
    replicate_t: float32 [2, pairs, genes], Welch's t within each half.
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
  replicate_genes: np.ndarray
  replicate_t: np.ndarray
  whole: np.ndarray
  whole_control: np.ndarray
  notes: tuple[str, ...]


def make(
  config,
  data: arrays.PerturbArrays,
  spec: types.DataSpec,
  *,
  seed: int | None = None,
  null: bool = False,
) -> Targets:
  """Computes the truth of the split that config.eval.split names.

  Args:
    config: the run's config.
    data: the dataset.
    spec: its static facts.
    seed: of the cut in halves; None for config.eval.seed.
    null: exchanges the cells of the pairs and controls of each group at random:
      a truth without any effect, to see what a metric makes of it.

  Raises:
    ValueError: if the split has no pair that can be scored.
  """
  options = config.eval
  rows, notes = _rows(options, data)
  chosen = _scored(rows, options, spec, notes)
  # One order of all cells: a pair's halves do not depend on the other pairs.
  random = np.random.Generator(
    np.random.Philox(options.seed if seed is None else seed)
  )
  order = random.permutation(data.cells.shape[0])
  pair_count, control_count = rows.pair_count[chosen], rows.control_count
  cells = _lists(rows.perturbed, rows.pair_start[chosen], pair_count, order)
  groups = _lists(rows.control, rows.control_start, control_count, order)
  group, condition = rows.pair_group[chosen], rows.pair_condition[chosen]
  if null:
    cells, groups = _exchanged(cells, groups, group, random)
  control_halves = _halves(groups)
  replicate, whole = _moments(data, _halves(cells))
  replicate_control, whole_control = _moments(data, control_halves)

  def statistic(moments, control):
    return welch_t(*moments, *(x[:, group] for x in control))

  def top_genes(t):
    return top_mask(t, options.top_genes)

  replicate_t = statistic(replicate, replicate_control)
  replicate_genes = top_genes(replicate_t)[::-1]
  if options.truth == 'halves':
    observed, shown, genes = replicate, replicate_control, replicate_genes
    sources = control_halves[::-1]
  else:
    observed, shown = whole, whole_control
    genes = top_genes(statistic(whole, whole_control))
    sources = [groups]
  source, weight = _source_table(sources, options.cells)
  regimes = spec.split.regimes
  return Targets(
    condition=condition,
    group=group,
    regime=tuple(
      regimes.get((int(c), int(g)), 'held_out')
      for c, g in zip(condition, group)
    ),
    cells=pair_count,
    observed=observed.mean.astype(np.float32),
    control=shown.mean.astype(np.float32),
    source=source,
    source_weight=weight,
    source_mean=np.asarray(_source_means(data.cells, source, weight)),
    top_genes=genes,
    replicate=replicate.mean.astype(np.float32),
    replicate_control=replicate_control.mean.astype(np.float32),
    replicate_genes=replicate_genes,
    replicate_t=replicate_t.astype(np.float32),
    whole=whole.mean[0].astype(np.float32),
    whole_control=whole_control.mean[0].astype(np.float32),
    notes=tuple(notes),
  )


def _rows(options, data) -> tuple[arrays.Rows, list[str]]:
  """Returns the rows of the split, on the host, and what to know of them."""
  rows = {'val': data.val, 'test': data.test}[options.split]
  notes = []
  if not rows.control.shape[0]:
    notes.append(
      f'the {options.split} split has no control cells: predictions start from '
      'training controls and effects are taken from them, so that the noise of '
      'the training controls is in the truth too and favours what learnt it'
    )
  return jax.tree.map(np.asarray, arrays.with_controls(data, rows)), notes


def _scored(rows, options, spec, notes) -> np.ndarray:
  """Returns the pairs to score; adds to `notes` which ones are left out."""
  enough = rows.pair_count >= options.min_cells
  # Two, since one control cannot be in both halves.
  controlled = rows.control_count[rows.pair_group] >= 2
  total = len(enough)
  if not enough.all():
    notes.append(
      f'{int((~enough).sum())} of {total} pairs of the {options.split} split '
      f'have fewer than eval.min_cells={options.min_cells} cells and are not '
      'scored'
    )
  lacking = enough & ~controlled
  if lacking.any():
    names = sorted({spec.group_name(g) for g in rows.pair_group[lacking]})
    notes.append(
      f'{int(lacking.sum())} of {total} pairs of the {options.split} split are '
      'not scored, since their group has fewer than 2 control cells there: '
      f'{", ".join(names)}'
    )
  if not (enough & controlled).any():
    sizes = sorted(rows.pair_count.tolist(), reverse=True)[:5]
    raise ValueError(
      f'the {options.split} split has no condition with at least '
      f'eval.min_cells={options.min_cells} cells and 2 control cells of its '
      f'group (found {total} pairs with {sizes} cells)'
    )
  return np.flatnonzero(enough & controlled)


def _lists(rows, start, count, order):
  """Returns the rows of every slice, sorted by the random `order`."""
  slices = [rows[a : a + n] for a, n in zip(start, count)]
  return [s[np.argsort(order[s], kind='stable')] for s in slices]


def _exchanged(cells, groups, group, random):
  """Returns lists of the same lengths, exchanged within each group."""
  cells, groups = list(cells), list(groups)
  for g in np.unique(group):
    pairs = np.flatnonzero(group == g)
    pool = random.permutation(
      np.concatenate([groups[g], *(cells[p] for p in pairs)])
    )
    sizes = [len(groups[g]), *(len(cells[p]) for p in pairs)]
    groups[g], *parts = np.split(pool, np.cumsum(sizes)[:-1])
    for p, part in zip(pairs, parts):
      cells[p] = part
  return cells, groups


def _halves(lists):
  """Cuts each list of rows in two."""
  return (
    [x[: len(x) // 2] for x in lists],
    [x[len(x) // 2 :] for x in lists],
  )


class _Moments(NamedTuple):
  """Of lists of cells, float64.

  Attributes:
    mean, square: [V, lists, genes] means of values and of their squares.
    count: [V, lists] cells.
  """

  mean: np.ndarray
  square: np.ndarray
  count: np.ndarray


def _moments(data, halves) -> tuple[_Moments, _Moments]:
  """Returns the moments of two lists of arrays of rows, and of their union."""
  lists = [*halves[0], *halves[1]]
  rows = np.concatenate([*lists, np.zeros(0, np.int32)]).astype(np.int32)
  segment = np.repeat(np.arange(len(lists)), [len(x) for x in lists])
  mean, count = _segment_means(
    data, jnp.asarray(rows), jnp.asarray(segment, jnp.int32), len(lists)
  )
  mean = np.asarray(mean, np.float64).reshape(2, len(halves[0]), 2, -1)
  count = np.asarray(count, np.float64).reshape(2, -1)
  total = count.sum(0, keepdims=True)
  share = count / np.maximum(total, 1)
  whole = (share[:, :, None, None] * mean).sum(0, keepdims=True)
  return (
    _Moments(mean[:, :, 0], mean[:, :, 1], count),
    _Moments(whole[:, :, 0], whole[:, :, 1], total),
  )


def _segment(data, rows, segment, num_segments):
  return statistics.segment_means(
    data,
    rows,
    segment,
    num_segments,
    lambda x: jnp.concatenate([x, x * x], axis=1),
  )


_segment_means = jax.jit(_segment, static_argnums=3)


def weighted_mean(weight: jax.Array, cells: jax.Array) -> jax.Array:
  """Returns the mean [genes] of the cells [n, genes] whose weight is 1.

  Full float32 on every device: TF32 errs by as much as a small effect.
  """
  total = jnp.matmul(weight, cells, precision=jax.lax.Precision.HIGHEST)
  return total / jnp.maximum(jnp.sum(weight), 1.0)


@jax.jit
def _source_means(cells, rows, weight):
  """Returns [V, groups, genes]; 0 where a group has no rows."""

  def one(item):
    return weighted_mean(item[1], arrays.gather(cells, item[0]))

  flat = rows.reshape(-1, rows.shape[-1]), weight.reshape(-1, rows.shape[-1])
  return jax.lax.map(one, flat).reshape(*rows.shape[:2], -1)


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
  """Returns Welch's t of each pair against its controls, [..., pairs, genes].

  Args:
    mean, square: [..., pairs, genes] means of the values and of their squares.
    count: [..., pairs] cells; one alone adds no noise.
    control, control_square: [..., pairs, genes] of each pair's own controls.
    control_count: [..., pairs].

  A gene that is constant on both sides gets 0, whatever the constants: no
  spread, no statistic.
  """

  def variance_of_mean(m, s, n):
    m, s = m.astype(np.float64), s.astype(np.float64)
    spread = s - m**2
    # What rounding to float32 leaves where there is no spread.
    spread = np.where(spread <= 1e-6 * s, 0, spread)
    return spread / (np.maximum(n[..., None], 2) - 1)

  noise = variance_of_mean(mean, square, count) + variance_of_mean(
    control, control_square, control_count
  )
  difference = mean.astype(np.float64) - control
  return np.where(
    noise == 0, 0.0, difference / np.sqrt(np.where(noise == 0, 1, noise))
  )


def top_mask(t: np.ndarray, count: int) -> np.ndarray:
  """Returns bool [..., genes]: the `count` largest in absolute value."""
  count = min(count, t.shape[-1])
  order = np.argsort(-np.abs(t), axis=-1, kind='stable')[..., :count]
  mask = np.zeros(t.shape, bool)
  np.put_along_axis(mask, order, True, axis=-1)
  return mask
