"""Simulated cells: who they are, and their negative-binomial counts."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse

from pertjax.data import simulate_options, simulate_world
from pertjax.data import simulate_streams as streams

_BLOCK = 128  # Cells drawn at once; part of what a seed means.
_LARGE = 8.0  # Mean above which inversion is slower than gamma-Poisson.


class Cells(NamedTuple):
  """Who the cells are, in the order of the file.

  Attributes:
    condition: int [cells].
    cell_type: int [cells].
    batch: int [cells].
    works: bool [cells, 2] first and second guide; True in the padding.
    effective: int [cells] the condition whose expression the cell has.
  """

  condition: np.ndarray
  cell_type: np.ndarray
  batch: np.ndarray
  works: np.ndarray
  effective: np.ndarray


def allocate(
  seed: int, config: Mapping[str, Any], design: simulate_world.Design
) -> Cells:
  """Returns the cells: every batch, and nearly even batches in each row."""
  rng = streams.make_rng(seed, streams.ALLOCATION)
  cells, cell_types = config['num_cells'], config['num_cell_types']
  rows = len(design.labels) * cell_types
  control = simulate_options.num_control(config)
  size = np.zeros(rows, int)
  size[:cell_types] = control // cell_types
  size[: control % cell_types] += 1
  # Real screens have uneven conditions; each keeps a cell at least.
  weight = np.exp(0.2 * rng.standard_normal(rows))[cell_types:]
  exact = weight / weight.sum() * (cells - control - len(weight))
  whole = np.floor(exact).astype(int)
  short = cells - control - len(weight) - whole.sum()
  whole[np.argsort(whole - exact, kind='stable')[:short]] += 1
  size[cell_types:] = whole + 1
  row = np.repeat(np.arange(rows), size)
  place = np.arange(cells) - np.repeat(np.cumsum(size) - size, size)
  first = rng.integers(config['num_batches'], size=rows)
  batch = (place + first[row]) % config['num_batches']
  order = rng.permutation(cells)
  condition, cell_type = np.divmod(row[order], cell_types)
  rng = streams.make_rng(seed, streams.GUIDES)
  failed = rng.random((cells, 2)) < config['guide_failure']
  works = ~failed | (design.tokens[condition] < 0)
  first_works, second_works = works.astype(int).T
  return Cells(
    condition=condition,
    cell_type=cell_type,
    batch=batch[order],
    works=works,
    effective=design.outcome[condition, first_works, second_works],
  )


def draw(
  seed: int,
  config: Mapping[str, Any],
  world: simulate_world.World,
  cells: Cells,
  states: np.ndarray,
) -> sparse.csr_matrix:
  """Returns counts; states: log shares [conditions, types, batches, genes]."""
  genes = config['num_genes']
  state = np.ravel_multi_index(
    (cells.effective, cells.cell_type, cells.batch), states.shape[:3]
  )
  share = np.exp(states).reshape(-1, genes)
  rng = streams.make_rng(seed, streams.LIBRARY)
  spread = config['library_spread'] * rng.standard_normal(config['num_cells'])
  library = simulate_options.median_library(config) * np.exp(spread)
  library *= world.batch_depth[cells.batch]
  columns, values, lengths = [], [], []
  for block, start in enumerate(range(0, config['num_cells'], _BLOCK)):
    part = slice(start, start + _BLOCK)
    mean = share[state[part]] * library[part, None]
    rng = streams.make_rng(seed, streams.COUNTS, block)
    position, count = draw_counts(rng, mean, world.size)
    row, column = np.divmod(position, genes)
    lengths.append(np.bincount(row, minlength=len(mean)))
    columns.append(column.astype(np.int32))
    values.append(count.astype(np.float32))
  indptr = np.concatenate([[0], np.cumsum(np.concatenate(lengths))])
  if indptr[-1] < np.iinfo(np.int32).max:
    indptr = indptr.astype(np.int32)
  data = np.concatenate(values)
  del values
  shape = (config['num_cells'], genes)
  return sparse.csr_matrix((data, np.concatenate(columns), indptr), shape)


def draw_counts(
  rng: np.random.Generator, mean: np.ndarray, size: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Draws negative-binomial counts, the positive ones only.

  One uniform an entry decides between zero and more; what is more walks up the
  distribution function. Means above 8 are drawn as Poisson of gamma instead.

  Args:
    rng: a generator.
    mean: float64 [cells, genes].
    size: [genes].

  Returns:
    Positions in the flattened array, increasing, and counts there.
  """
  uniform = rng.random(mean.shape)
  zero = np.exp(-size * np.log1p(mean / size))
  zero[mean > _LARGE] = -1.0
  position = np.flatnonzero(uniform > zero)
  mean, r = mean.ravel()[position], size[position % len(size)]
  count = np.ones(len(position), np.int64)
  large = mean > _LARGE
  rate = rng.standard_gamma(r[large]) * (mean[large] / r[large])
  count[large] = rng.poisson(rate)
  left = np.flatnonzero(~large)
  u = uniform.ravel()[position[left]]
  mass = zero.ravel()[position[left]]
  r, odds = r[left], mean[left] / (mean[left] + r[left])
  below = mass
  for k in itertools.count():
    mass = mass * odds * ((k + r) / (k + 1))
    below = below + mass
    # Rounding can leave the sum below the largest uniforms for ever.
    more = np.flatnonzero((u > below) & (mass > 1e-18))
    if not len(more):
      break
    left = left[more]
    count[left] = k + 2
    u, mass, r, odds, below = (x[more] for x in (u, mass, r, odds, below))
  keep = count > 0
  return position[keep], count[keep]
