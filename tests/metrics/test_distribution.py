"""Distances of sets of cells, against slow references and published values."""

import functools

import closed_form
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy import testing

from pertjax import metrics
from pertjax.metrics import registry
from pertjax.metrics.distribution import energy, kernels, permutation, transport

CONDITIONS, FEATURES = 3, 5


# ----------------------------------------------------------------------------
# Slow references: float64, one pair of cells at a time where it matters.


def pairs(a, b):
  return np.sqrt(np.square(a[:, None] - b[None]).sum(-1))


def others(a):
  return pairs(a, a)[~np.eye(len(a), dtype=bool)]


def slow_energy(x, y, meaning='biased'):
  if meaning == 'unbiased':
    within = others(x).mean() + others(y).mean()
    return 2 * pairs(x, y).mean() - within
  power = 2 if meaning == 'squared' else 1
  value = 2 * (pairs(x, y) ** power).mean()
  value -= (pairs(x, x) ** power).mean() + (pairs(y, y) ** power).mean()
  return value / 2 if meaning == 'half' else value


def slow_mmd(x, y, kernel, unbiased):
  within = [kernel(s[:, None], s[None]) for s in (x, y)]
  if unbiased:
    within = [k[~np.eye(len(k), dtype=bool)] for k in within]
  return sum(k.mean() for k in within) - 2 * kernel(x[:, None], y[None]).mean()


def slow_linear(x, y, unbiased=False):
  return slow_mmd(x, y, lambda a, b: (a * b).sum(-1), unbiased)


def slow_rbf(x, y, bandwidth='median', unbiased=False):
  if isinstance(bandwidth, str):
    bandwidth = np.median(others(y))
  return slow_mmd(
    x,
    y,
    lambda a, b: sum(
      np.exp(-np.square(a - b).sum(-1) / (2 * w**2))
      for w in np.atleast_1d(bandwidth)
    ),
    unbiased,
  )


def slow_entropic(x, y, epsilon=0.05, relative=True, scale=None):
  cost = pairs(x, y) ** 2
  scale = cost.mean() if scale is None else scale
  epsilon *= scale if relative else 1
  kernel = np.exp(-cost / epsilon) / cost.size
  u = np.ones(len(x))
  for _ in range(3000):
    v = 1 / len(y) / (kernel.T @ u)
    u = 1 / len(x) / (kernel @ v)
  plan = u[:, None] * kernel * v[None]
  entropy = plan * np.log(np.maximum(plan, 1e-300) * cost.size)
  return (plan * cost).sum() + epsilon * entropy.sum()


def slow_divergence(x, y, **options):
  scale = np.square(pairs(x, y)).mean()
  call = functools.partial(slow_entropic, scale=scale, **options)
  return call(x, y) - call(x, x) / 2 - call(y, y) / 2


def slow_wasserstein_1d(x, y):
  values = []
  for a, b in zip(x.T, y.T):
    cuts = np.sort(np.concatenate([a, b]))
    below = [np.mean(s[:, None] <= cuts[:-1], 0) for s in (a, b)]
    values.append(np.sum(np.abs(below[0] - below[1]) * np.diff(cuts)))
  return np.mean(values)


def slow_r2(function, x, y):
  return np.corrcoef(function(x, 0), function(y, 0))[0, 1] ** 2


DISTANCES = {
  **{
    f'energy {name}': (
      functools.partial(energy.energy_distance, meaning=name),
      functools.partial(slow_energy, meaning=name),
    )
    for name in energy.MEANINGS
  },
  'mean pairwise': (
    energy.mean_pairwise,
    lambda x, y: pairs(x, y).mean(),
  ),
  'means': (
    kernels.distance_of_means,
    lambda x, y: np.linalg.norm(x.mean(0) - y.mean(0)),
  ),
  'linear': (kernels.mmd_linear, slow_linear),
  'linear unbiased': (
    functools.partial(kernels.mmd_linear, unbiased=True),
    functools.partial(slow_linear, unbiased=True),
  ),
  'rbf median': (kernels.mmd_rbf, slow_rbf),
  'rbf one': (
    functools.partial(kernels.mmd_rbf, bandwidth=1.5),
    functools.partial(slow_rbf, bandwidth=1.5),
  ),
  'rbf several': (
    functools.partial(kernels.mmd_rbf, bandwidth=(0.5, 1, 4), unbiased=True),
    functools.partial(slow_rbf, bandwidth=(0.5, 1, 4), unbiased=True),
  ),
  'entropic': (
    functools.partial(transport.entropic_wasserstein, tolerance=1e-5),
    slow_entropic,
  ),
  'sinkhorn': (
    functools.partial(transport.sinkhorn_divergence, tolerance=1e-5),
    slow_divergence,
  ),
  'sinkhorn absolute': (
    functools.partial(
      transport.sinkhorn_divergence, epsilon=2.0, relative=False
    ),
    functools.partial(slow_divergence, epsilon=2.0, relative=False),
  ),
  'wasserstein 1d': (transport.wasserstein_1d, slow_wasserstein_1d),
  'r2 means': (kernels.r2_means, functools.partial(slow_r2, np.mean)),
  'r2 variances': (kernels.r2_variances, functools.partial(slow_r2, np.var)),
}
each_distance = pytest.mark.parametrize('name', DISTANCES)
each_meaning = pytest.mark.parametrize('meaning', energy.MEANINGS)


def make_sets(seed=0):
  """Sets of several sizes, padded with NaN at random places."""
  generator = np.random.default_rng(seed)
  scale = 1 + np.arange(FEATURES) / FEATURES
  x = generator.normal(size=(CONDITIONS, 11, FEATURES)) * scale
  x += np.arange(CONDITIONS)[:, None, None] + np.arange(FEATURES)
  y = generator.normal(size=(14, FEATURES)) * scale[::-1] + np.arange(FEATURES)
  x_mask = generator.permuted(
    np.arange(11) < np.array([[5], [11], [8]]), axis=1
  )
  y_mask = generator.permutation(np.arange(14) < 10)
  x[~x_mask], y[~y_mask] = np.nan, np.nan
  return x.astype(np.float32), y.astype(np.float32), x_mask, y_mask


def plain(x, y, x_mask, y_mask):
  """Pairs of sets without padding, in float64."""
  y = y[y_mask].astype(np.float64)
  return [(a[m].astype(np.float64), y) for a, m in zip(x, x_mask)]


@each_distance
def test_agrees_with_a_slow_reference(name):
  distance, slow = DISTANCES[name]
  x, y, x_mask, y_mask = make_sets()
  found = distance(x, y, x_mask=x_mask, y_mask=y_mask)
  expected = [slow(*sets) for sets in plain(x, y, x_mask, y_mask)]
  assert found.shape == (CONDITIONS,)
  testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def eager(distance):
  """Takes the compilation off a distance."""
  if isinstance(distance, functools.partial):
    return functools.partial(eager(distance.func), **distance.keywords)
  return getattr(distance, '__wrapped__', distance)


# Those that share no code with another of them.
KINDS = [
  'energy biased',
  'mean pairwise',
  'linear',
  'rbf median',
  'sinkhorn',
  'wasserstein 1d',
  'r2 variances',
]


@pytest.mark.parametrize('name', KINDS)
def test_forms_of_the_arguments(name):
  distance, _ = DISTANCES[name]
  x, y, x_mask, y_mask = make_sets()
  found = distance(x, y, x_mask=x_mask, y_mask=y_mask)
  close = {'rtol': 1e-4, 'atol': 1e-5}
  # One control for each condition, masks of numbers, and compiled from without.
  each = jax.jit(distance)(
    x,
    np.stack([y] * CONDITIONS),
    x_mask=x_mask.astype(np.float32),
    y_mask=np.stack([y_mask] * CONDITIONS).astype(np.int32),
  )
  testing.assert_allclose(each, found, **close)
  # One condition without padding, some evaluated operation by operation.
  by_operation = name in ('energy biased', 'linear', 'r2 variances')
  call = eager(distance) if by_operation else distance
  one = call(x[0][x_mask[0]], y[y_mask])
  assert one.shape == ()
  testing.assert_allclose(one, found[0], **close)


@pytest.mark.parametrize('name', [*KINDS, 'energy squared', 'r2 means'])
def test_order_and_rotation_change_nothing(name):
  distance, _ = DISTANCES[name]
  generator = np.random.default_rng(1)
  x, y = make_sets()[0][1], generator.normal(size=(11, FEATURES)) + 3
  found = distance(x, y)
  testing.assert_allclose(
    distance(generator.permutation(x), generator.permutation(y)),
    found,
    rtol=1e-4,
    atol=1e-5,
  )
  turn = np.linalg.qr(generator.normal(size=(FEATURES, FEATURES)))[0]
  turned = distance(x @ turn + 2, y @ turn + 2)
  if name.startswith(('wasserstein', 'r2')):
    assert not np.allclose(turned, found, rtol=1e-2)  # They are of genes.
  else:
    testing.assert_allclose(turned, found, rtol=1e-4, atol=1e-4)


@each_distance
def test_what_is_not_known_is_nan(name):
  distance, _ = DISTANCES[name]
  x, y, x_mask, y_mask = make_sets()
  x = np.where(x_mask[..., None], x, 0)
  x[0, np.flatnonzero(x_mask[0])[0], 2] = np.nan
  x_mask[2] = False
  found = np.asarray(distance(x, y, x_mask=x_mask, y_mask=y_mask))
  testing.assert_array_equal(np.isnan(found), [True, False, True])
  empty = distance(x, y, x_mask=x_mask, y_mask=np.zeros(14, bool))
  assert np.isnan(empty).all()


def test_one_cell():
  x, y = np.ones((1, 2)), np.array([[1, 4], [1, 6.0]])
  found = energy.energy_distance(x, y)
  testing.assert_allclose(found, 2 * 4 - 1, rtol=1e-6)
  for distance in (
    energy.energy_distance_unbiased,
    functools.partial(kernels.mmd_linear, unbiased=True),
    functools.partial(kernels.mmd_rbf, unbiased=True),
  ):
    assert np.isnan(distance(x, y))


ENTRIES = [m for m in metrics.list_metrics() if m.needs == ('x', 'y')]


def test_registered():
  assert {m.name for m in ENTRIES} == {
    'distance_of_means',
    'energy_distance',
    'energy_distance_half',
    'energy_distance_squared',
    'energy_distance_unbiased',
    'mmd_linear',
    'mmd_rbf',
    'r2_means',
    'r2_variances',
    'sinkhorn_divergence',
    'wasserstein_1d',
  }
  for entry in ENTRIES:
    assert {'x_mask', 'y_mask'} <= set(entry.options)
    assert entry.reference
  sides, groups = [np.zeros((2, 3))] * 3, np.zeros(2, int)
  with pytest.raises(ValueError, match="'mmd_rbf' needs x, y"):
    metrics.table(*sides, groups=groups, metrics=['mmd_rbf'])


@pytest.mark.parametrize('entry', ENTRIES, ids=[m.name for m in ENTRIES])
def test_registered_best_value_and_direction(entry):
  x = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
  x = x * np.arange(1, 5) + np.arange(4)
  # The same cells in another order: equal cells do not stand side by side.
  own = entry.function(x, x[::-1])
  if entry.name == 'energy_distance_unbiased':
    testing.assert_allclose(own, slow_energy(x, x, 'unbiased'), rtol=1e-4)
    assert own < 0
  else:
    testing.assert_allclose(own, entry.best, atol=1e-5)
  noise = np.random.default_rng(1).normal(size=x.shape)
  near, far = (
    entry.function(x + size * (1 + noise * [4, 2, 1, 0]), x)
    for size in (0.3, 2)
  )
  assert near > far if entry.direction == 'higher' else near < far


# ----------------------------------------------------------------------------
# Published values.


def test_perturbench_example():
  x, y = np.array([[0, 0], [1, 0.0]]), np.array([[0, 1], [2, 2.0]])
  found = energy.energy_distance_half(x, y)
  testing.assert_allclose(found, 1.0606602, rtol=1e-6)


def test_example_of_the_cell_type_benchmark():
  """Ratios D(real, predicted) / D(control, predicted) of a toy."""
  control = np.array([[0, 0], [2, 0.0]])
  real = np.array([[3, 1], [5, 1.0]])
  predicted = np.array([[3, 1], [3, 1.0]])
  both = np.stack([real, control])
  for distance, expected in (
    (energy.energy_distance_squared, [2, 10]),
    (kernels.mmd_linear, [1, 5]),
    (kernels.distance_of_means, [1, np.sqrt(5)]),
    (energy.mean_pairwise, [1, 2.288246]),
    (energy.energy_distance_unbiased, [0, 2.576491]),
  ):
    testing.assert_allclose(distance(both, predicted), expected, atol=2e-6)


def cell_eval_fixture(predicted):
  """Cells and conditions of fixture A, made by formula; 0 is the control."""
  return closed_form.coded(closed_form.fixture_a, int(predicted))


def test_cell_eval_fixture():
  predicted, groups = cell_eval_fixture(True)
  observed, _ = cell_eval_fixture(False)
  # The fixture is the published one.
  testing.assert_allclose(observed.sum(), 11602.322727, rtol=1e-9)
  testing.assert_allclose(predicted.sum(), 11752.712468, rtol=1e-9)
  order = np.random.default_rng(0).permutation(len(groups))
  call = functools.partial(
    permutation.edistance_correlation,
    predicted[order].astype(np.float32),
    observed.astype(np.float32),
    predicted_groups=groups[order],
    observed_groups=groups,
    num_groups=7,
  )
  testing.assert_allclose(call(), 0.8882730570120346, rtol=1e-5)
  assert abs(call(meaning='squared') - 0.888273) > 1e-3
  # One condition has no correlation.
  assert np.isnan(call(num_groups=2, meaning='squared'))


@pytest.mark.parametrize('meaning', ['biased', 'squared'])
def test_energy_from_control(meaning):
  values, groups = cell_eval_fixture(False)
  found = permutation.energy_from_control(
    values, groups, num_groups=9, control=2, meaning=meaning
  )
  control = values[groups == 2]
  expected = [
    0 if g == 2 else slow_energy(values[groups == g], control, meaning)
    for g in range(7)
  ]
  testing.assert_allclose(found[:7], expected, rtol=1e-4, atol=1e-6)
  assert np.isnan(found[7:]).all()


# ----------------------------------------------------------------------------
# Numbers.


@each_meaning
def test_small_differences_of_large_values(meaning):
  generator = np.random.default_rng(0)
  # Shifts of a hundredth of the spread, which is 1e-3 of the values.
  x = 10 + 1e-2 * generator.normal(size=(4, 40, 300))
  x += 3e-3 * np.arange(1, 5)[:, None, None]
  y = 10 + 1e-2 * generator.normal(size=(70, 300))
  x, y = x.astype(np.float32), y.astype(np.float32)
  found = energy.energy_distance(x, y, meaning=meaning)
  wide = y.astype(np.float64)
  expected = [slow_energy(a.astype(np.float64), wide, meaning) for a in x]
  testing.assert_allclose(found, expected, rtol=1e-4)


def test_squared_energy_is_linear_mmd_is_euclidean():
  x, y, x_mask, y_mask = make_sets()
  masks = {'x_mask': x_mask, 'y_mask': y_mask}
  squared = energy.energy_distance_squared(x, y, **masks)
  testing.assert_allclose(squared, 2 * kernels.mmd_linear(x, y, **masks))
  euclidean = kernels.distance_of_means(x, y, **masks)
  testing.assert_allclose(squared, 2 * np.square(euclidean), rtol=1e-5)


def test_distances_of_equal_cells_are_zero():
  x = 100 + np.random.default_rng(0).normal(size=(20, 500)).astype(np.float32)
  x -= x.mean(0)
  found = np.asarray(energy.squared_distances(x))
  assert (np.diag(found) == 0).all()
  assert (found[~np.eye(20, dtype=bool)] > 0).all()
  found = energy.squared_distances(x, x[::-1])
  assert (np.diag(found[:, ::-1]) == 0).all()


def test_blocks_change_nothing(monkeypatch):
  x, y, x_mask, y_mask = make_sets()

  def compiled():
    # A function of its own: what was compiled with other blocks is not used.
    return jax.jit(
      lambda: energy.energy_distance.__wrapped__(
        x, y, x_mask=x_mask, y_mask=y_mask
      )
    )

  whole = compiled()()
  monkeypatch.setattr(energy, '_PAIRS', 40)
  testing.assert_allclose(compiled()(), whole, rtol=1e-5)


def test_gradient_at_equal_cells():
  y = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
  slope = jax.grad(energy.energy_distance)(y, y)
  assert np.isfinite(slope).all()


def test_median_bandwidth_of_many_cells():
  y = np.random.default_rng(0).normal(size=(3000, 2)).astype(np.float32)
  mask = np.arange(3000) % 3 > 0
  found = kernels.median_bandwidth(y, y_mask=mask)
  chosen = y[mask][np.arange(1024) * 2000 // 1024]
  testing.assert_allclose(found, np.median(others(chosen)), rtol=1e-5)


# ----------------------------------------------------------------------------
# Transport.


def test_sinkhorn_tolerance_and_iterations():
  x, y = make_sets()[0][1], np.zeros((3, FEATURES)) + np.eye(3, FEATURES)
  call = functools.partial(transport.sinkhorn_divergence, x, y)
  assert np.isnan(call(iterations=2, tolerance=1e-6))
  short = call(iterations=2, tolerance=None)
  long = call(iterations=500, tolerance=None)
  assert np.isfinite(short)
  testing.assert_allclose(call(tolerance=1e-5), long, rtol=1e-4)


def test_sinkhorn_limits():
  generator = np.random.default_rng(0)
  x, y = generator.normal(size=(9, 4)), generator.normal(size=(9, 4)) + 1
  far = transport.sinkhorn_divergence(x, y, epsilon=1000.0)
  testing.assert_allclose(far, kernels.mmd_linear(x, y), rtol=1e-2)
  # Shifted cells go to their own images: the squared length of the shift.
  near = transport.sinkhorn_divergence(x * 9, x * 9 + 1, epsilon=0.01)
  testing.assert_allclose(near, 4, rtol=1e-3)
  one = transport.sinkhorn_divergence(x[:1], x[:1])
  assert one == 0


def test_wasserstein_1d_of_a_shift():
  x = np.random.default_rng(0).normal(size=(300, 3)).astype(np.float32)
  found = transport.wasserstein_1d(x, x[::-1] + np.float32([1, 2, 6]))
  testing.assert_allclose(found, 3, rtol=1e-5)
  many = jax.ShapeDtypeStruct((50000, 1), jnp.float32)
  with pytest.raises(ValueError, match='50000 x 50000'):
    jax.eval_shape(transport.wasserstein_1d, many, many)


# ----------------------------------------------------------------------------
# The permutation test.


def slow_count(x, y, key, num, meaning):
  """Splits as `_draw` makes them, each energy distance from its cells."""
  pooled = np.concatenate([x, y]).astype(np.float64)
  true = slow_energy(pooled[: len(x)], pooled[len(x) :], meaning)
  count = 0
  for i in range(num):
    chosen = permutation._draw(
      jax.random.fold_in(key, i), len(x), np.ones(len(pooled), bool)
    )
    sides = pooled[chosen], pooled[~np.asarray(chosen)]
    assert len(sides[0]) == len(x)
    count += slow_energy(*sides, meaning) >= true - 1e-9
  return true, count


@each_meaning
def test_permutations_are_of_cells(meaning):
  generator = np.random.default_rng(3)
  x = generator.normal(size=(2, 7, 3)).astype(np.float32) + 0.3
  y = generator.normal(size=(9, 3)).astype(np.float32)
  key = jax.random.key(5)
  found = permutation.edistance_test(
    x, y, key, num_permutations=60, meaning=meaning
  )
  for i, own in enumerate(jax.random.split(key, 2)):
    distance, count = slow_count(x[i], y, own, 60, meaning)
    testing.assert_allclose(found.distance[i], distance, rtol=1e-4)
    assert found.exceeding[i] == count
    assert 0 < count < 60
    testing.assert_allclose(found.p_value[i], (1 + count) / 61, rtol=1e-6)


def test_draws_are_even():
  valid = np.array([True, False, True, True, True, False, True])
  keys = jax.random.split(jax.random.key(0), 4000)
  chosen = jax.vmap(lambda k: permutation._draw(k, 2, valid))(keys)
  assert (chosen.sum(1) == 2).all()
  assert not chosen[:, ~valid].any()
  share = np.asarray(chosen.mean(0))[valid]
  # Five standard errors.
  testing.assert_allclose(share, 2 / 5, atol=5 * np.sqrt(0.24 / 4000))


def test_p_values_are_uniform_without_an_effect():
  generator = np.random.default_rng(0)
  x = generator.gamma(1, 1, (200, 8, 4)).astype(np.float32)
  y = generator.gamma(1, 1, (200, 12, 4)).astype(np.float32)
  found = permutation.edistance_test(
    x, y, jax.random.key(1), num_permutations=99
  )
  p = np.sort(found.p_value)
  assert ((p >= 0.01) & (p <= 1)).all()
  # Kolmogorov-Smirnov at 1e-3, and the share below 0.05.
  gap = np.abs(p - (np.arange(200) + 0.5) / 200).max()
  assert gap < 1.95 / np.sqrt(200) + 0.01
  assert np.mean(p <= 0.05) < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 200)
  assert np.std(p) > 0.25
  # The least p-value, 0.01, is never significant among 200 tests.
  assert (found.p_adjusted >= found.p_value).all()


@pytest.mark.parametrize('meaning', ['biased', 'unbiased'])
def test_a_shift_is_found(meaning):
  generator = np.random.default_rng(0)
  x = generator.normal(size=(3, 30, 6)).astype(np.float32)
  x[1] += 2
  y = generator.normal(size=(40, 6)).astype(np.float32)
  call = functools.partial(
    permutation.edistance_test, num_permutations=999, meaning=meaning
  )
  found = call(x, y, jax.random.key(0))
  testing.assert_allclose(found.p_value[1], 1e-3)
  testing.assert_allclose(found.p_adjusted[1], 1 - 0.999**3, rtol=1e-4)
  assert (found.p_value[jnp.array([0, 2])] > 0.02).all()
  for again, first in zip(call(x, y, jax.random.key(0)), found):
    testing.assert_array_equal(again, first)
  other = call(x, y, jax.random.key(1))
  assert (other.exceeding != found.exceeding).any()


def test_padding_changes_no_test():
  x, y, x_mask, y_mask = make_sets()
  masks = {'x_mask': x_mask, 'y_mask': y_mask}
  x_mask[2] = False
  call = functools.partial(
    permutation.edistance_test, key=jax.random.key(0), num_permutations=500
  )
  found = call(x, y, **masks)
  distance = energy.energy_distance(x, y, **masks)
  testing.assert_allclose(found.distance, distance, rtol=1e-4)
  testing.assert_array_equal(np.isnan(found.p_value), [False, False, True])
  assert np.isnan(found.p_adjusted[2])
  for i in range(2):
    # Other draws of the same test.
    alone = call(x[i][x_mask[i]][None], y[y_mask])
    testing.assert_allclose(alone.p_value[0], found.p_value[i], atol=0.1)


def test_ties_count():
  # Two cells each: a third of all splits is the true one.
  x, y = np.array([[[0.0], [1.1]]]), np.array([[5.0], [6.3]])
  found = permutation.edistance_test(
    x, y, jax.random.key(0), num_permutations=3000
  )
  testing.assert_allclose(found.p_value, 1 / 3, atol=0.05)
  same = permutation.edistance_test(
    np.ones((1, 5, 2)), np.ones((4, 2)), jax.random.key(0), num_permutations=9
  )
  assert same.p_value == 1


def test_holm_sidak():
  p = np.array([0.01, 0.5, np.nan, 0.02, 1.0, 0.021])
  found = permutation.holm_sidak(p)
  expected = [
    1 - 0.99**5,
    1 - 0.5**2,
    np.nan,
    1 - 0.98**4,
    1,
    max(1 - 0.98**4, 1 - 0.979**3),
  ]
  testing.assert_allclose(found, expected, rtol=1e-5)
  tiny = permutation.holm_sidak(np.array([1e-12, 1]))
  testing.assert_allclose(tiny[0], 2e-12, rtol=1e-5)


# ----------------------------------------------------------------------------
# Host side and errors.


def test_cell_sets():
  rows, mask = permutation.cell_sets(
    np.array([1, 0, 1, -1, 3, 1, 9]), num_groups=4
  )
  assert mask.tolist() == [
    [True, False, False],
    [True] * 3,
    [False] * 3,
    [True, False, False],
  ]
  assert rows[mask].tolist() == [1, 0, 2, 5, 4]


SETS = np.zeros((2, 4, 3))


@pytest.mark.parametrize(
  ('call', 'message'),
  [
    (
      lambda: energy.energy_distance(SETS, SETS, meaning='bias'),
      "closest: 'biased'",
    ),
    (lambda: energy.energy_distance(SETS[0], SETS), r'\(2, 4, 3\)'),
    (lambda: kernels.mmd_linear(SETS, SETS[0, :, :2]), r'\(4, 2\)'),
    (lambda: kernels.r2_means(SETS, np.zeros((3, 4, 3))), r'\(3, 4, 3\)'),
    (
      lambda: energy.mean_pairwise(SETS, SETS, y_mask=np.ones(4)),
      r'y_mask has the shape \(4,\)',
    ),
    (lambda: kernels.mmd_rbf(SETS, SETS, bandwidth='mean'), "'median'"),
    (lambda: kernels.mmd_rbf(SETS, SETS, bandwidth=()), r'\(0,\)'),
    (
      lambda: permutation.edistance_test(SETS[0], SETS[0], jax.random.key(0)),
      'conditions, n, features',
    ),
    (
      lambda: permutation.edistance_test(
        SETS, SETS, jax.random.key(0), num_permutations=0
      ),
      'num_permutations is 0',
    ),
    (
      lambda: permutation.energy_from_control(
        SETS[0], np.zeros(4, int), num_groups=2, control=2
      ),
      'control is 2; allowed: 0 to 1',
    ),
    (
      lambda: permutation.energy_from_control(
        SETS[0], np.zeros(4, int), num_groups=2, control=1
      ),
      'no cell is of the control',
    ),
    (
      lambda: permutation.energy_from_control(
        SETS[0], np.zeros(3, int), num_groups=2
      ),
      r'\(3,\)',
    ),
  ],
)
def test_errors(call, message):
  with pytest.raises(ValueError, match=message):
    call()


def test_meanings_have_a_metric_each():
  for meaning in set(energy.MEANINGS) - {'biased'}:
    entry = registry.get(f'energy_distance_{meaning}')
    x, y, x_mask, y_mask = make_sets()
    masks = {'x_mask': x_mask, 'y_mask': y_mask}
    testing.assert_array_equal(
      entry.function(x, y, **masks),
      energy.energy_distance(x, y, **masks, meaning=meaning),
    )
