"""What simulated cells are expected to show: closed forms, no draws."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from pertjax.data import simulate_options, simulate_world


def expected(
  config: Mapping[str, Any],
  world: simulate_world.World,
  design: simulate_world.Design,
  states: np.ndarray,
) -> dict[str, np.ndarray]:
  """Returns log_bulk and mean_log1p [conditions, types, genes]."""
  # A gene's mean is a smooth function of its log share and log size: a table
  # of 128 by 24, read linearly, is within 1e-3.
  grid = np.linspace(states.min() - 1e-6, states.max() + 1e-6, 128)
  log_size = np.log(world.size)
  sizes = np.linspace(log_size.min(), log_size.max() + 1e-6, 24)
  low, weight = _bracket(log_size, sizes)
  conditions, cell_types, batches, genes = states.shape
  mean = np.zeros((conditions, cell_types, genes))
  bulk, column = np.zeros_like(mean), np.arange(genes)
  for b, depth in enumerate(world.batch_depth):
    tables = [
      _between(table[low], table[low + 1], weight[:, None])
      for table in _log1p_terms(
        grid,
        np.exp(sizes)[:, None],
        simulate_options.median_library(config) * depth,
        config['library_spread'],
      )
    ]
    for c, log_share in enumerate(states[:, :, b]):
      share = np.exp(log_share)
      at, part = _bracket(log_share, grid)
      value, slope = (
        _between(table[column, at], table[column, at + 1], part)
        for table in tables
      )
      variance = (share**2 / world.size).sum(axis=-1, keepdims=True)
      mean[c] += (value + variance * slope) / batches
      bulk[c] += share * depth / world.batch_depth.sum()
  bulk = _mix_outcomes(config['guide_failure'], design, bulk)
  return {
    'log_bulk': np.log1p(1e4 * bulk),
    'mean_log1p': _mix_outcomes(config['guide_failure'], design, mean),
  }


def expected_log1p(
  log_share: np.ndarray,
  size: np.ndarray,
  *,
  library: float,
  library_spread: float,
  total_variance: float | np.ndarray = 0.0,
  scale: float = 1e4,
) -> np.ndarray:
  """Returns the mean of log1p(scale * count / total) over cells.

  Counts are negative binomial with mean share * library, libraries log-normal.
  Frullani's integral, log(1 + kc) = int (1 - exp(-tkc)) exp(-t) / t dt, turns
  the mean over counts into the NB probability generating function,
  (1 + mean (1 - z) / size)^-size at z = exp(-tk); libraries are integrated by
  Gauss-Hermite quadrature. A total scatters around its library with relative
  variance v = total_variance + 1 / library: by Taylor expansion of second
  order in its inverse, exp(-t) becomes exp(-t) (1 + v t^2 / 2). What that
  leaves out is below 0.005 for panels of 100 genes and 0.001 for 2,000.

  Args:
    log_share: [...].
    size: broadcasts against log_share.
    library: median library size.
    library_spread: standard deviation of its log, at most 1.
    total_variance: sum over genes of share^2 / size; broadcasts.
    scale: what counts are normalised to.
  """
  mean, slope = _log1p_terms(log_share, size, library, library_spread, scale)
  return mean + total_variance * slope


def _log1p_terms(
  log_share: np.ndarray,
  size: np.ndarray,
  library: float,
  library_spread: float,
  scale: float = 1e4,
) -> tuple[np.ndarray, np.ndarray]:
  """Returns `expected_log1p` at total_variance 0, and its slope there."""
  nodes, weights = np.polynomial.hermite_e.hermegauss(9)
  step = 0.5  # In log t; this rule is within 1e-6 of a ten times finer one.
  t = np.exp(np.arange(-24.0, 4.0, step))
  share, size = np.exp(log_share)[..., None], np.asarray(size)[..., None]
  shape = np.broadcast_shapes(share.shape, size.shape)[:-1]
  mean, slope = np.zeros(shape), np.zeros(shape)
  for node, weight in zip(nodes, weights / weights.sum(), strict=True):
    depth = library * np.exp(library_spread * node)
    thinned = -np.expm1(-t * scale / depth) * depth * share
    positive = -np.expm1(-size * np.log1p(thinned / size))
    kernel = weight * step * np.exp(-t)
    mean += positive @ (kernel * (1 + t**2 / (2 * depth)))
    slope += positive @ (kernel * t**2 / 2)
  return mean, slope


def _mix_outcomes(
  failure: float, design: simulate_world.Design, value: np.ndarray
) -> np.ndarray:
  """Averages [conditions, ...] over which guides work."""
  mixed = np.zeros_like(value)
  chance = (failure, 1 - failure)
  for first in range(2):
    for second in range(2):
      source = value[design.outcome[:, first, second]]
      mixed += chance[first] * chance[second] * source
  return mixed


def _bracket(
  value: np.ndarray, grid: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Returns the even grid's point below each value, and how far past it."""
  at = (value - grid[0]) / (grid[1] - grid[0])
  low = at.astype(np.int64)
  return low, at - low


def _between(low: np.ndarray, high: np.ndarray, part: np.ndarray) -> np.ndarray:
  return low + part * (high - low)
