"""Whether predicted conditions fall into the groups that the observed ones do.

cell-eval's `clustering_agreement` (release 0.8.2): the centroids of each side
become a weighted graph of nearest neighbours, Leiden cuts it into clusters, and
two partitions are compared by their adjusted mutual information. The observed
side is cut at resolution 1, the predicted one at seven, and the best of the
seven is the score.

The number says little where conditions are few. The maximum of seven is above 0
without any information, and where the observed side is one cluster, every
prediction that is one at some resolution scores 1. Two unrelated sides of
standard normal values in 50 genes, 40 draws (15 of the last size):

  conditions           3     4     5     6     8    20    60   200
  mean score        1.00  0.98  0.48  0.41  0.13  0.08  0.03  0.02
  score of 1, in %   100    97    38    33     0     0     0     0

Judge a score beside that of a simple baseline; `agreements` gives all seven.

The graph is UMAP's (McInnes et al. 2018, arXiv:1802.03426, section 3.1) as
scanpy makes it, and Leiden (Traag et al. 2019, arXiv:1810.08473) is igraph's,
with random numbers drawn as scanpy draws them: a seed gives the same clusters.
Where clusters are not clear, other last digits give other clusters: for the
tool's own number pass centroids in double precision. Only Leiden needs more
than numpy: `pip install 'pertjax[clustering]'`.

Where the tool does something else:

  * Centroids that are all equal are one cluster. The tool cuts the graph that
    its arbitrary order of equal distances makes.
  * Equal distances are ordered by row. A score can depend on them, and Leiden
    visits rows in their order too: the tool's is alphabetical.
  * NaN or infinite centroids, and fewer than three conditions, make the score
    NaN; the tool raises.
  * Neighbours are exact for any number of conditions; the tool's are
    approximate from 8,192 on.
"""

from __future__ import annotations

import importlib.util
import math
import numbers
import random
import types as python_types
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from pertjax.metrics import partitions, registry
from pertjax.types import Array

VARIANTS = ('ami', 'nmi', 'ari')
# Settings of cell-eval 0.8.2.
RESOLUTIONS = (0.2, 0.4, 0.6, 0.8, 1.0, 1.5, 2.0)
OBSERVED_RESOLUTION = 1.0
NUM_NEIGHBORS = 15
ITERATIONS = 2

# Below three conditions no condition has a neighbour: see `neighbors`.
MIN_CONDITIONS = 3

# UMAP's: precision of the sum that a bandwidth is searched for, steps of the
# search, and the least bandwidth in units of the mean distance.
_TOLERANCE = 1e-5
_STEPS = 64
_LEAST = 1e-3

# Rows whose distances to all others are held at once, and differences that are
# taken at once; they bound the memory and set no result.
_BLOCK = 1024
_DIFFERENCES = 1 << 23
# Spare candidates that exact distances are computed for: products round, and
# could take the wrong one of two that are about equally far.
_SPARE = 5


class Graph(NamedTuple):
  """A weighted graph without loops; every edge stands in both directions.

  Attributes:
    sources: int64 [edges], sorted.
    targets: int64 [edges], sorted within a source.
    weights: float32 [edges] in (0, 1].
    num_nodes: conditions.
  """

  sources: np.ndarray
  targets: np.ndarray
  weights: np.ndarray
  num_nodes: int


def available() -> bool:
  """Returns whether igraph, which `leiden` needs, is installed."""
  return importlib.util.find_spec('igraph') is not None


def clustering_agreement(
  predicted: Array,
  observed: Array,
  *,
  variant: str = 'ami',
  resolutions: Sequence[float] = RESOLUTIONS,
  observed_resolution: float = OBSERVED_RESOLUTION,
  num_neighbors: int = NUM_NEIGHBORS,
  seed: int = 0,
) -> float:
  """Compares the clusters of predicted and of observed centroids.

  One number for all conditions, not one for each.

  Args:
    predicted: [conditions, genes] mean of each condition's cells, the control
      left out. Means and changes from one control are the same to it.
    observed: [conditions, genes].
    variant: 'ami', 'nmi' or 'ari', which is (ARI + 1) / 2.
    resolutions: of the predicted side; the best agreement counts.
    observed_resolution: of the observed side.
    num_neighbors: see `neighbors`.
    seed: of Leiden.

  Returns:
    The largest of `agreements`, 0 where all are below: 1 is best. NaN where
    there are fewer than three conditions or a centroid is not finite.

  Raises:
    ImportError: when igraph is not installed; see `available`.
    ValueError: when shapes differ or an option is out of its range.
  """
  values = agreements(
    predicted,
    observed,
    variant=variant,
    resolutions=resolutions,
    observed_resolution=observed_resolution,
    num_neighbors=num_neighbors,
    seed=seed,
  )
  return float(np.maximum(values.max(), 0.0))


def agreements(
  predicted: Array,
  observed: Array,
  *,
  variant: str = 'ami',
  resolutions: Sequence[float] = RESOLUTIONS,
  observed_resolution: float = OBSERVED_RESOLUTION,
  num_neighbors: int = NUM_NEIGHBORS,
  seed: int = 0,
) -> np.ndarray:
  """Returns the agreement at each resolution of the predicted side.

  Args and errors are those of `clustering_agreement`.

  Returns:
    float64 [resolutions].
  """
  registry.check_choice('variant', variant, VARIANTS)
  resolutions = tuple(resolutions)
  if not resolutions:
    raise ValueError('resolutions is empty; allowed: one or more numbers > 0')
  for resolution in (observed_resolution, *resolutions):
    _check_resolution(resolution)
  _check_seed(seed)
  _check_neighbors(num_neighbors)
  predicted = np.asarray(predicted, np.float64)
  observed = np.asarray(observed, np.float64)
  if predicted.ndim != 2 or predicted.shape != observed.shape:
    raise ValueError(
      'predicted and observed must both be [conditions, genes]; the shapes are '
      f'{predicted.shape} and {observed.shape}'
    )
  _igraph()  # A missing library is not found out by the data that need it.
  finite = np.isfinite(predicted).all() and np.isfinite(observed).all()
  if len(observed) < MIN_CONDITIONS or not finite:
    return np.full(len(resolutions), np.nan)
  function = {
    'ami': partitions.adjusted_mutual_information,
    'nmi': partitions.normalized_mutual_information,
    'ari': lambda a, b: (partitions.adjusted_rand_index(a, b) + 1) / 2,
  }[variant]
  options = {'num_neighbors': num_neighbors, 'seed': seed}
  (truth,) = cluster(observed, (observed_resolution,), **options)
  found = cluster(predicted, resolutions, **options)
  return np.array([function(truth, labels) for labels in found])


def cluster(
  centroids: Array,
  resolutions: Sequence[float],
  *,
  num_neighbors: int = NUM_NEIGHBORS,
  seed: int = 0,
) -> np.ndarray:
  """Cuts centroids into clusters, at several resolutions of one graph.

  Args:
    centroids: [conditions, genes].
    resolutions: see `leiden`.
    num_neighbors: see `neighbors`.
    seed: see `leiden`; the same for each resolution.

  Returns:
    int64 [resolutions, conditions]; equal centroids are one cluster.

  Raises:
    ImportError: when igraph is not installed.
    ValueError: as in `neighbors` and `leiden`.
  """
  index, distances = neighbors(centroids, num_neighbors=num_neighbors)
  centroids = np.asarray(centroids)
  if (centroids == centroids[:1]).all():
    return np.zeros((len(resolutions), len(centroids)), np.int64)
  graph = connectivities(index, distances)
  return np.stack([leiden(graph, r, seed=seed) for r in resolutions])


# ----------------------------------------------------------------------------
# The graph.


def neighbors(
  centroids: Array, *, num_neighbors: int = NUM_NEIGHBORS
) -> tuple[np.ndarray, np.ndarray]:
  """Finds the nearest centroids of each, by Euclidean distance.

  Args:
    centroids: [conditions, genes], at least 3, finite. No principal components
      are taken, as in the tool.
    num_neighbors: scanpy's: the centroid itself is the first of them, so that
      15 are 14 others. At most conditions - 1 are taken.

  Returns:
    index: int64 [conditions, neighbours], nearest first and itself at the head;
      of equal distances the first row comes first.
    distances: float64 [conditions, neighbours].

  Raises:
    ValueError: when there are too few conditions or neighbours, or a centroid
      is not finite.
  """
  _check_neighbors(num_neighbors)
  values = np.asarray(centroids, np.float64)
  if values.ndim != 2 or len(values) < MIN_CONDITIONS:
    raise ValueError(
      f'centroids has the shape {values.shape}; allowed: [conditions, genes] '
      f'with {MIN_CONDITIONS} conditions or more'
    )
  bad = np.flatnonzero(~np.isfinite(values).all(1))
  if len(bad):
    raise ValueError(
      f'centroids has NaN or infinite values in {len(bad)} of {len(values)} '
      f'rows, the first is {bad[0]}; allowed: finite values'
    )
  num = len(values)
  others = min(num_neighbors, num - 1) - 1
  candidates = min(others + _SPARE, num - 1)
  # Centred: the products of values that share a large mean would lose digits.
  values = values - values.mean(0)
  squares = (values**2).sum(1)
  index, distances = [], []
  for start in range(0, num, _BLOCK):
    rows = np.arange(start, min(start + _BLOCK, num))
    squared = squares[rows, None] + squares - 2 * values[rows] @ values.T
    squared[np.arange(len(rows)), rows] = np.inf
    near = np.argpartition(squared, candidates - 1, axis=1)[:, :candidates]
    # Sorted by row first, so that a stable sort leaves ties in that order.
    near = np.sort(near, axis=1)
    far = _distances(values, rows, near)
    order = np.argsort(far, axis=1, kind='stable')[:, :others]
    index.append(np.take_along_axis(near, order, 1))
    distances.append(np.take_along_axis(far, order, 1))
  itself = np.arange(num)[:, None]
  return (
    np.concatenate([itself, np.concatenate(index)], 1),
    np.concatenate([np.zeros((num, 1)), np.concatenate(distances)], 1),
  )


def _distances(
  values: np.ndarray, rows: np.ndarray, near: np.ndarray
) -> np.ndarray:
  """Distances of rows [n] to near [n, m] by differences: 0 for equal ones."""
  out = np.empty(near.shape)
  step = max(1, _DIFFERENCES // max(1, near.shape[1] * values.shape[1]))
  for start in range(0, len(rows), step):
    at = slice(start, start + step)
    apart = values[near[at]] - values[rows[at], None]
    out[at] = np.sqrt((apart**2).sum(-1))
  return out


def connectivities(index: np.ndarray, distances: np.ndarray) -> Graph:
  """Weights the edges between neighbours as UMAP does.

  An edge from i to j weighs exp(-max(0, d_ij - rho_i) / sigma_i), where rho_i
  is the distance of the nearest neighbour and sigma_i makes the weights of i
  sum to log2(neighbours); weights a and b of the two directions unite to
  a + b - a b (McInnes et al. 2018, arXiv:1802.03426, algorithms 2 and 3).

  Args:
    index: int [conditions, neighbours], itself first.
    distances: [conditions, neighbours].
  """
  num, count = index.shape
  # In single precision, rounded where UMAP rounds: Leiden turns a last digit
  # into other clusters where they are not clear.
  far = np.asarray(distances, np.float32)
  rho = np.min(far, axis=1, where=far > 0, initial=np.inf)
  rho = np.where(np.isinf(rho), 0, rho)  # Only equal centroids around it.
  over = np.maximum(far[:, 1:] - rho[:, None], 0)
  sigma = _bandwidths(over.astype(np.float64), math.log2(count))
  typical = np.where(rho > 0, far.mean(1), far.mean())
  sigma = np.maximum(sigma, _LEAST * typical).astype(np.float32)
  # numpy's own exponential of single precision is off by more than one digit.
  exponent = (-over / sigma[:, None]).astype(np.float64)
  weight = np.exp(exponent).astype(np.float32).ravel()

  source, target = np.repeat(np.arange(num), count - 1), index[:, 1:].ravel()
  edges, at = np.unique(
    np.concatenate([source * num + target, target * num + source]),
    return_inverse=True,
  )
  there, back = np.zeros((2, len(edges)), np.float32)
  there[at[: len(weight)]] = weight
  back[at[len(weight) :]] = weight
  weight = there + back - there * back
  edges, weight = edges[weight > 0], weight[weight > 0]
  return Graph(edges // num, edges % num, weight, num)


def _bandwidths(over: np.ndarray, total: float) -> np.ndarray:
  """Finds sigma [n] with sum(exp(-over / sigma)) = total for over [n, m].

  Bisection that doubles until it has an upper end. A sum that cannot be reached
  ends at the last step's value, as UMAP's does.
  """
  low, middle = np.zeros(len(over)), np.ones(len(over))
  high = np.full(len(over), np.inf)
  for _ in range(_STEPS):
    surplus = np.exp(-over / middle[:, None]).sum(1) - total
    searching = np.abs(surplus) >= _TOLERANCE
    if not searching.any():
      break
    high = np.where(searching & (surplus > 0), middle, high)
    low = np.where(searching & (surplus <= 0), middle, low)
    following = np.where(np.isinf(high), 2 * middle, (low + high) / 2)
    middle = np.where(searching, following, middle)
  return middle


# ----------------------------------------------------------------------------
# Clusters.


def leiden(graph: Graph, resolution: float, *, seed: int = 0) -> np.ndarray:
  """Cuts a graph into clusters of high modularity (arXiv:1810.08473).

  igraph has one generator for all of a process. It is set for the call and is
  Python's `random`, igraph's default, afterwards: not for several threads.

  Args:
    graph: see `Graph`.
    resolution: the larger, the more clusters.
    seed: equal seeds give equal clusters.

  Returns:
    int64 [num_nodes] cluster of each node, from 0.

  Raises:
    ImportError: when igraph is not installed.
    ValueError: when the resolution or the seed is out of its range.
  """
  _check_resolution(resolution)
  _check_seed(seed)
  igraph = _igraph()
  # Both directions of every edge: modularity does not ask for it, but Leiden
  # draws merges by the absolute weight that they gain, and the tool has both.
  net = igraph.Graph(
    n=graph.num_nodes,
    edges=np.stack([graph.sources, graph.targets], 1).tolist(),
  )
  igraph.set_random_number_generator(_generator(seed))
  try:
    parts = net.community_leiden(
      objective_function='modularity',
      weights=graph.weights.tolist(),
      resolution=float(resolution),
      n_iterations=ITERATIONS,
    )
  finally:
    igraph.set_random_number_generator(random)
  return np.asarray(parts.membership, np.int64)


def _generator(seed: int) -> python_types.SimpleNamespace:
  """Makes what igraph takes for the module `random`, as scanpy seeds it."""
  state = np.random.RandomState(seed)
  return python_types.SimpleNamespace(
    getrandbits=lambda bits: int(state.tomaxint()) & ((1 << bits) - 1),
    randint=lambda low, high: int(state.randint(low, high + 1)),
    random=state.random_sample,
    gauss=state.normal,
  )


def _igraph():
  try:
    import igraph
  except ImportError as error:
    raise ImportError(
      'clustering_agreement needs igraph, which is not installed: '
      "pip install 'pertjax[clustering]'"
    ) from error
  return igraph


# ----------------------------------------------------------------------------
# Checks.


def _check_resolution(resolution: float) -> None:
  if not 0 < resolution < math.inf:
    raise ValueError(f'a resolution is {resolution!r}; allowed: numbers > 0')


def _check_neighbors(num_neighbors: int) -> None:
  if not isinstance(num_neighbors, numbers.Integral) or num_neighbors < 2:
    raise ValueError(
      f'num_neighbors is {num_neighbors!r}; allowed: integers of 2 or more '
      '(the first neighbour is the condition itself)'
    )


def _check_seed(seed: int) -> None:
  if not isinstance(seed, numbers.Integral) or not 0 <= seed < 1 << 32:
    raise ValueError(
      f'seed is {seed!r}; allowed: integers from 0 to {(1 << 32) - 1}'
    )
