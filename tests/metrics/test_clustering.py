"""Agreement of clusters; literals are cell-eval's and scanpy's.

Releases: cell-eval 0.8.2, scanpy 1.11.5, igraph 1.0.0.
"""

import random
import sys

import closed_form
import jax.numpy as jnp
import numpy as np
import pytest
from numpy import testing

from pertjax.metrics import clustering, partitions

needs_igraph = pytest.mark.skipif(
  not clustering.available(), reason='igraph is an extra'
)


def formula(n, g, a, b, *, spread=0.0):
  """Centroids without a generator; four groups, `spread` apart."""
  i, j = np.arange(n)[:, None], np.arange(g)[None, :]
  noise = ((a * i + b * j + i * i * (j + 3) + 7 * i * j) % 31) / 30 - 0.5
  group = ((i % 4 * 5 + 3 * j + i % 4 * j * j) % 7) / 6 - 0.5
  return spread * group + noise


def blobs(seed, *, n=60, groups=5, noise=0.3):
  generator = np.random.default_rng(seed)
  centres = generator.normal(size=(groups, 30))
  labels = np.arange(n) % groups
  return centres[labels] + noise * generator.normal(size=(n, 30)), labels


def dense(graph):
  out = np.zeros((graph.num_nodes, graph.num_nodes))
  out[graph.sources, graph.targets] = graph.weights
  return out


# ----------------------------------------------------------------------------
# The graph.

# Upper triangle, row by row, of scanpy's connectivities with 5 neighbours.
CONNECTIVITIES = (
  0.6650063, 0.2400923, 0, 0, 1, 0.46503475, 0.62813365,
  1, 0.68121374, 0.3573143, 0.7332302, 0.99999994, 0,
  0, 0, 0.12037348, 0.9614532, 0,
  0.88336074, 0.5271889, 1, 0,
  0.3150972, 1, 0.42663667,
  0.64348555, 0.48999456,
  1,
)  # fmt: skip


def test_connectivities_are_scanpys():
  graph = clustering.connectivities(
    *clustering.neighbors(formula(8, 5, 11, 13), num_neighbors=5)
  )
  expected = np.zeros((8, 8))
  expected[np.triu_indices(8, 1)] = CONNECTIVITIES
  testing.assert_allclose(dense(graph), expected + expected.T, atol=1e-6)


def test_weights_sum_to_the_logarithm():
  index, distances = clustering.neighbors(blobs(0)[0], num_neighbors=9)
  far = distances[:, 1:] - distances[:, 1:2]
  sigma = clustering._bandwidths(far, np.log2(9))
  total = np.exp(-far / sigma[:, None]).sum(1)
  testing.assert_allclose(total, np.log2(9), atol=1e-5)
  graph = clustering.connectivities(index, distances)
  testing.assert_array_equal(dense(graph), dense(graph).T)
  # The nearest neighbour of each is joined to it for certain.
  nearest = dense(graph)[np.arange(60), index[:, 1]]
  testing.assert_allclose(nearest, 1, atol=1e-12)


@pytest.mark.parametrize('block', [7, 1024])
def test_neighbors_are_the_nearest(monkeypatch, block):
  monkeypatch.setattr(clustering, '_BLOCK', block)
  monkeypatch.setattr(clustering, '_DIFFERENCES', 90)
  # A large shared mean, as of expression: its square must not cost digits.
  values = 1e4 + blobs(1, n=40)[0]
  index, distances = clustering.neighbors(values, num_neighbors=6)
  full = np.linalg.norm(values[:, None] - values[None], axis=-1)
  order = np.argsort(full, axis=1, kind='stable')[:, :6]
  testing.assert_array_equal(index, order)
  expected = np.take_along_axis(full, order, 1)
  testing.assert_allclose(distances, expected, atol=1e-9)


def test_equal_rows_are_ordered_and_at_distance_zero():
  values = np.repeat(formula(5, 4, 3, 5), 3, axis=0)
  index, distances = clustering.neighbors(values, num_neighbors=4)
  testing.assert_array_equal(distances[:, :3], 0)
  assert (distances[:, 3] > 0).all()
  testing.assert_array_equal(index[4, :3], [4, 3, 5])
  graph = clustering.connectivities(index, distances)
  testing.assert_array_equal(dense(graph)[3:6, 3:6], 1 - np.eye(3))
  # No distance at all: every weight is 1, and nothing is divided by 0.
  index, distances = clustering.neighbors(np.ones((6, 2)), num_neighbors=4)
  assert (clustering.connectivities(index, distances).weights == 1).all()


def test_few_conditions_have_fewer_neighbors():
  for n in (3, 4, 15, 16):
    index, _ = clustering.neighbors(formula(n, 6, 11, 13))
    assert index.shape == (n, min(15, n - 1))


# ----------------------------------------------------------------------------
# Clusters and the score.

LITERALS = {
  0.0: (0.1562278087796849, 0.358062011702504, 0.5426381012392355),
  0.7: (0.21145474646974927, 0.42032580361007427, 0.559383176088163),
  1.0: (0.5128500523567531, 0.5276959765655788, 0.7677022110271481),
  2.0: (0.9341832141103145, 0.9404185439808235, 0.9657610202384252),
}
# scanpy's clusters of the observed side where the groups are 1.0 apart.
LABELS = '0112011001120112011201120112011201120102'


def _same_igraph():
  import igraph

  if igraph.__version__.partition('.')[0] != '1':
    pytest.skip('other releases of igraph draw other numbers')


@needs_igraph
@pytest.mark.parametrize('spread', list(LITERALS))
def test_scores_are_cell_evals(spread):
  _same_igraph()
  observed = formula(40, 12, 11, 13, spread=spread)
  predicted = formula(40, 12, 17, 5, spread=spread)
  for variant, expected in zip(clustering.VARIANTS, LITERALS[spread]):
    value = clustering.clustering_agreement(
      predicted, observed, variant=variant
    )
    testing.assert_allclose(value, expected, atol=1e-9)


@needs_igraph
def test_labels_are_scanpys():
  _same_igraph()
  (labels,) = clustering.cluster(formula(40, 12, 11, 13, spread=1.0), (1.0,))
  assert ''.join(map(str, labels)) == LABELS


# scanpy's sizes of clusters of the centroids below, at resolution 1.
SIZES = (
  92, 97, 158, 97, 60, 117, 124, 64, 45, 132, 82, 146, 105, 60, 83, 38,
)  # fmt: skip


@needs_igraph
def test_many_unclear_clusters_are_scanpys():
  # Weights that are off by one part in ten million give others here.
  _same_igraph()
  state = np.random.RandomState(0)
  labels = state.randint(0, 25, 1500)
  centres = state.randn(25, 300)
  centroids = 0.28 * centres[labels] + state.randn(1500, 300)
  (found,) = clustering.cluster(centroids, (1.0,))
  assert tuple(np.bincount(found)) == SIZES


def _fixture_a(side):
  """Centroids of the specification's fixture A, without the control."""
  # By name, as the tool sorts them.
  names = sorted(closed_form.GROUPS_A)[:-1]
  values, code = closed_form.coded(closed_form.fixture_a, side)
  order = list(closed_form.GROUPS_A)
  return np.stack([values[code == order.index(n)].mean(0) for n in names])


@needs_igraph
@pytest.mark.parametrize('variant', clustering.VARIANTS)
def test_fixture_a(variant):
  value = clustering.clustering_agreement(
    _fixture_a(1), _fixture_a(0), variant=variant
  )
  assert value == 1


@needs_igraph
@pytest.mark.parametrize('variant', clustering.VARIANTS)
def test_clear_clusters(variant):
  observed, labels = blobs(0)
  option = {'variant': variant}
  testing.assert_array_equal(
    partitions.adjusted_rand_index(
      clustering.cluster(observed, (1.0,))[0], labels
    ),
    1,
  )
  assert clustering.clustering_agreement(observed, observed, **option) == 1
  # Other noise, a common shift and a scale: the groups are the same.
  centres = np.stack([observed[labels == c].mean(0) for c in range(5)])
  noise = np.random.default_rng(9).normal(size=observed.shape)
  predicted = 0.5 * centres[labels] + 0.1 * noise + 3
  assert clustering.clustering_agreement(predicted, observed, **option) == 1
  # jax arrays of single precision do as well.
  value = clustering.clustering_agreement(
    jnp.asarray(predicted, jnp.float32), jnp.asarray(observed), **option
  )
  assert value == 1


@needs_igraph
def test_shuffled_conditions_are_near_zero():
  observed, _ = blobs(0, n=120)
  generator = np.random.default_rng(3)
  values = [
    clustering.clustering_agreement(generator.permutation(observed), observed)
    for _ in range(12)
  ]
  # The best of seven is not below 0, and a little above it on average.
  assert min(values) >= 0
  assert np.mean(values) < 0.05
  assert max(values) < 0.15


@needs_igraph
def test_score_is_the_best_resolution_and_not_below_zero():
  observed, predicted = blobs(0, noise=3.0)[0], blobs(2, noise=3.0)[0]
  each = clustering.agreements(predicted, observed)
  assert each.shape == (7,)
  score = clustering.clustering_agreement(predicted, observed)
  assert score == max(0, each.max())
  worst = clustering.RESOLUTIONS[int(each.argmin())]
  assert each.min() < 0
  only = clustering.clustering_agreement(
    predicted, observed, resolutions=(worst,)
  )
  assert only == 0


@needs_igraph
def test_a_seed_decides():
  observed, _ = blobs(0, noise=3.0)
  graph = clustering.connectivities(*clustering.neighbors(observed))
  first = clustering.leiden(graph, 1.0, seed=3)
  # Python's generator, igraph's own, is neither read nor moved.
  random.seed(17)
  state = random.getstate()
  testing.assert_array_equal(clustering.leiden(graph, 1.0, seed=3), first)
  assert random.getstate() == state
  others = [clustering.leiden(graph, 1.0, seed=s) for s in range(8)]
  assert any((other != first).any() for other in others)


@needs_igraph
def test_genes_in_any_order_and_any_common_shift():
  observed, _ = blobs(0, noise=1.5)
  predicted, _ = blobs(4, noise=1.5)
  score = clustering.clustering_agreement(predicted, observed)
  order = np.random.default_rng(0).permutation(30)
  moved = (predicted - 2.0)[:, order], (observed - 2.0)[:, order]
  assert clustering.clustering_agreement(*moved) == score


@needs_igraph
def test_equal_centroids_are_one_cluster():
  observed, _ = blobs(0, n=20)
  flat = np.full((20, 30), 0.1)
  testing.assert_array_equal(clustering.cluster(flat, (0.2, 2.0)), 0)
  assert clustering.clustering_agreement(flat, observed) == 0
  assert clustering.clustering_agreement(flat, flat) == 1


@needs_igraph
def test_without_an_answer():
  values = formula(12, 5, 11, 13)
  for n in (1, 2):
    assert np.isnan(clustering.clustering_agreement(values[:n], values[:n]))
  assert clustering.clustering_agreement(values[:3], values[:3]) == 1
  for wrong in (np.nan, np.inf):
    broken = values.copy()
    broken[4, 2] = wrong
    assert np.isnan(clustering.clustering_agreement(broken, values))
    assert np.isnan(clustering.agreements(values, broken)).all()
    with pytest.raises(ValueError, match='1 of 12 rows, the first is 4'):
      clustering.neighbors(broken)
  with pytest.raises(ValueError, match=r'\(2, 5\).*3 conditions'):
    clustering.neighbors(values[:2])


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'variant': 'amy'}, "'amy'; closest: 'ami'"),
    ({'resolutions': ()}, 'resolutions is empty'),
    ({'resolutions': (1.0, -1.0)}, 'resolution is -1.0'),
    ({'observed_resolution': float('nan')}, 'resolution is nan'),
    ({'num_neighbors': 1}, 'num_neighbors is 1'),
    ({'num_neighbors': 2.5}, 'num_neighbors is 2.5'),
    ({'seed': -1}, 'seed is -1'),
  ],
)
def test_options_out_of_range(options, message):
  values = formula(5, 5, 11, 13)
  with pytest.raises(ValueError, match=message):
    clustering.clustering_agreement(values, values, **options)


def test_shapes_must_agree():
  values = formula(5, 5, 11, 13)
  with pytest.raises(ValueError, match=r'\(5, 4\) and \(5, 5\)'):
    clustering.clustering_agreement(values[:, :4], values)


def test_missing_library_is_named(monkeypatch):
  monkeypatch.setitem(sys.modules, 'igraph', None)
  assert not clustering.available()
  values = formula(5, 5, 11, 13)
  # Whatever the data: two conditions have no answer, but the reason is igraph.
  for n in (2, 5):
    with pytest.raises(ImportError, match=r"pip install 'pertjax\[clustering"):
      clustering.clustering_agreement(values[:n], values[:n])
