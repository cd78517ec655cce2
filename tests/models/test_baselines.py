"""Closed forms against slow NumPy and against published numbers."""

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from pertjax import data, models, types
from pertjax.data import statistics
from pertjax.models import baselines, shifts


@pytest.fixture(scope='module')
def loaded(tiny_config):
  config = tiny_config('baselines')
  arrays, spec = data.load(config)
  pairs = jax.jit(statistics.pair_means)(arrays, arrays.train)
  return arrays, spec, statistics.FitData(arrays, pairs)


def _table(perturbations, group, mean, control, doses=None, count=None):
  perturbations = jnp.asarray(perturbations, jnp.int32)
  if doses is None:
    doses = (perturbations >= 0).astype(jnp.float32)
  return statistics.PairMeans(
    perturbations=perturbations,
    doses=jnp.asarray(doses, jnp.float32),
    group=jnp.asarray(group, jnp.int32),
    count=jnp.asarray(count or [10.0] * len(group), jnp.float32),
    mean=jnp.asarray(mean, jnp.float32),
    control=jnp.asarray(control, jnp.float32),
    control_count=jnp.full(len(control), 5.0),
  )


def _query(perturbations, group, doses=None):
  perturbations = jnp.asarray(perturbations, jnp.int32)
  if doses is None:
    doses = (perturbations >= 0).astype(jnp.float32)
  return types.Condition(
    perturbations,
    jnp.asarray(doses, jnp.float32),
    jnp.zeros((len(group), 0), jnp.int32),
    jnp.asarray(group, jnp.int32),
  )


# Two singles in group 0, perturbation 0 also in groups 1 and 2.
TABLE = _table(
  [[0, -1], [1, -1], [0, -1], [0, -1]],
  [0, 0, 1, 2],
  [[1.0, 0.0], [0.0, 3.0], [9.0, 1.0], [5.0, 5.0]],
  [[0.0, 0.0], [8.0, 0.0], [1.0, 1.0], [1.2, 1.0]],
  count=[10.0, 10.0, 30.0, 10.0],
)


def test_additive_sums_singles_of_the_same_group():
  weight = shifts.additive_weights(TABLE, _query([[0, 1]], [0]))
  np.testing.assert_allclose(weight, [[1, 1, 0, 0]])
  np.testing.assert_allclose(weight @ TABLE.shift, [[1.0, 3.0]])


def test_additive_averages_other_groups_where_its_own_has_none():
  query = _query([[0, -1]], [3])
  weight = shifts.additive_weights(TABLE, query)
  np.testing.assert_allclose(weight, [[1 / 3, 0, 1 / 3, 1 / 3]], rtol=1e-6)
  weight = shifts.additive_weights(TABLE, query, by_cells=True)
  np.testing.assert_allclose(weight, [[0.2, 0, 0.6, 0.2]], rtol=1e-6)


def test_nearest_takes_the_most_similar_group():
  query = _query([[0, -1]], [3])
  weight = shifts.additive_weights(TABLE, query, groups='nearest')
  np.testing.assert_allclose(weight, [[0, 0, 0, 1]])


def test_unknown_perturbation_gets_the_mean_single_shift():
  weight = shifts.additive_weights(TABLE, _query([[0, 2]], [0]))
  np.testing.assert_allclose(weight, [[1.5, 0.5, 0, 0]])


def test_nearest_dose_is_used():
  table = _table(
    [[0, -1]] * 3,
    [0] * 3,
    [[1.0], [2.0], [3.0]],
    [[0.0]],
    doses=[[1.0, 0], [10.0, 0], [100.0, 0]],
  )
  weight = shifts.additive_weights(table, _query([[0, -1]], [0], [[30.0, 0]]))
  np.testing.assert_allclose(weight @ table.shift, [[2.0]])


def test_shrinkage_is_the_least_squares_factor():
  singles = np.array([[1.0, 0.0], [0.0, 2.0]])
  table = _table(
    [[0, -1], [1, -1], [0, 1]],
    [0] * 3,
    [*singles, 0.7 * singles.sum(0)],
    [[0.0, 0.0]],
  )
  np.testing.assert_allclose(baselines.shrinkage(table), 0.7, rtol=1e-6)
  np.testing.assert_allclose(
    baselines.shrinkage(jax.tree.map(lambda x: x[:2], table)), 1.0
  )


def test_ridge_matches_the_published_formula():
  y = jnp.array([[1.0, 2, 0], [0, 1, 3], [2, 2, 2], [1, 0, -1]])
  a = jnp.array([[1.0, 0], [0, 1], [1, 1], [0.5, -1]])
  b = jnp.array([[1.0, 0, 2], [0, 1, -1]]).T
  core, center = baselines.ridge_map(y, a, b, 0.1)
  np.testing.assert_allclose(center, [1, 4 / 3, 2, 0], atol=1e-6)
  np.testing.assert_allclose(
    core, [[-0.01959544, 0.60745877], [0.01758294, -0.54507111]], atol=1e-6
  )
  np.testing.assert_allclose(
    (a @ core @ b.T + center[:, None])[1],
    [1.35091627, 0.78826222, 1.91357032],
    atol=1e-5,
  )


def test_gene_scores_match_the_published_example():
  means = jnp.array(
    [[1.0, 2, 0, 1], [0, 1, 3, 2], [2, 2, 2, 2], [1, 0, -1, 0], [5, 4, 5, 6]]
  )
  scores, _ = baselines.gene_scores(means, 2)
  expected = np.array(
    [
      [-2.02937205, 0.7084283],
      [-0.49283416, -2.26004739],
      [0.15512765, 0.05794971],
      [-3.90638441, 0.88956473],
      [6.27346297, 0.60410466],
    ]
  )
  sign = np.sign((np.asarray(scores) * expected).sum(0))
  np.testing.assert_allclose(np.asarray(scores) * sign, expected, atol=1e-4)


@pytest.mark.parametrize('kind', baselines.KINDS)
def test_every_kind_predicts(loaded, kind):
  arrays, spec, fit_data = loaded
  config = ml_collections.ConfigDict(
    {**baselines.default_config(), 'kind': kind}
  )
  model = baselines.make(config, spec)
  params = jax.jit(model.fit)({}, jax.random.key(0), fit_data, model.consts)
  source = data.arrays.gather(arrays.cells, arrays.test.control[:4])
  pair = data.arrays.conditions_at(
    arrays, arrays.test.pair_condition[:1], arrays.test.pair_group[:1]
  )
  out = model.predict(params, None, source, pair, model.consts)
  assert out.shape == source.shape
  assert np.isfinite(out).all()
  unchanged = data.arrays.conditions_at(
    arrays, jnp.zeros(1, jnp.int32), jnp.zeros(1, jnp.int32)
  )
  same = model.predict(params, None, source, unchanged, model.consts)
  if kind not in ('pca_arithmetic', 'ridge'):
    np.testing.assert_allclose(same, source, atol=1e-6)
  if kind != 'control':
    assert np.abs(out - source).max() > 1e-3


def test_pair_means_are_means(loaded):
  arrays, _, fit_data = loaded
  values = np.asarray(arrays.cells.values)
  condition, group = np.asarray(arrays.condition), np.asarray(arrays.group)
  chosen = np.zeros(len(values), bool)
  chosen[np.asarray(arrays.train.perturbed)] = True
  for p in range(len(fit_data.pairs.group)):
    c = int(arrays.train.pair_condition[p])
    g = int(arrays.train.pair_group[p])
    mine = chosen & (condition == c) & (group == g)
    assert mine.sum() == fit_data.pairs.count[p]
    np.testing.assert_allclose(
      fit_data.pairs.mean[p], values[mine].mean(0), rtol=1e-4, atol=1e-6
    )


def test_principal_components_match_numpy(loaded):
  arrays, _, _ = loaded
  rows = np.concatenate([arrays.train.perturbed, arrays.train.control])
  x = np.asarray(arrays.cells.values)[rows].astype(np.float64)
  _, _, right = np.linalg.svd(x - x.mean(0), full_matrices=False)
  _, basis = baselines.principal_components(jax.random.key(0), arrays, 3)
  overlap = np.abs(np.asarray(basis) @ right[:3].T)
  np.testing.assert_allclose(np.diag(overlap), 1.0, atol=5e-3)


def test_unknown_kind_names_those_there_are(loaded):
  config = ml_collections.ConfigDict(
    {**baselines.default_config(), 'kind': 'addtive'}
  )
  with pytest.raises(ValueError, match='model.kind.*closest: additive'):
    baselines.make(config, loaded[1])


def test_unknown_model_names_the_closest():
  with pytest.raises(ValueError, match='closest: latent_additive'):
    models.module('latent_aditive')
