"""Soft metrics: their limits, gradients, and what has no answer."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import test_util
from numpy import testing

from pertjax.metrics import (
  pseudobulk,
  ranks,
  soft,
  soft_losses,
  soft_ranks,
  weighted,
)

CONDITIONS, GENES = 8, 30
GROUPS = np.array([0, 0, 0, 0, 1, 1, 1, 2])


@pytest.fixture(autouse=True)
def _wide():
  with jax.enable_x64(True):
    yield


def rows(seed=0, noise=0.8):
  random = np.random.default_rng(seed)
  observed = random.normal(size=(CONDITIONS, GENES))
  predicted = observed + noise * random.normal(size=observed.shape)
  control = 2 + random.normal(size=(CONDITIONS, GENES))
  return jnp.array(predicted), jnp.array(observed), jnp.array(control)


def some_genes(own=False):
  random = np.random.default_rng(7)
  shape = (CONDITIONS, GENES) if own else (GENES,)
  return jnp.array(random.random(shape) < 0.7)


# Every function with a temperature, in one signature.
SOFT = {
  f'rank {metric}': functools.partial(
    soft_ranks.soft_rank, metric=metric, groups=GROUPS
  )
  for metric in ranks.METRICS
}
SOFT['rank n'] = functools.partial(
  soft_ranks.soft_rank, metric='rmse', denominator='n'
)
SOFT['rank transposed'] = functools.partial(
  soft_ranks.soft_rank, metric='rmse', transposed=True
)
SOFT['recall'] = functools.partial(soft.top_k_recall, k=5)
SOFT['direction'] = soft.direction_match
HARD = {
  name: (lambda p, o, f=f, **k: f(p, o, temperature=None, **k))
  for name, f in SOFT.items()
}


def gap(a, b):
  """Largest difference; both must be undefined in the same conditions."""
  testing.assert_array_equal(np.isnan(a), np.isnan(b))
  return np.nanmax(np.abs(a - b))


# ----------------------------------------------------------------------------
# The limit.


# All kinds of mask where one can go wrong, none elsewhere: to be fast.
LIMITS = [(name, 'all') for name in SOFT] + [
  (name, mask)
  for name in ('rank rmse', 'rank pearson', 'rank r2', 'recall', 'direction')
  for mask in ('shared', 'own')
]


@pytest.mark.parametrize(('name', 'mask'), LIMITS)
def test_approaches_the_hard_value(name, mask):
  options = {'mask': None if mask == 'all' else some_genes(mask == 'own')}
  if name.startswith('rank'):
    options['eps'] = 1e-9
  predicted, observed, _ = rows()
  hard = HARD[name](predicted, observed, **options)
  at = jax.jit(
    lambda t: SOFT[name](predicted, observed, temperature=t, **options)
  )
  gaps = [gap(at(t), hard) for t in (1.0, 0.1, 0.01, 1e-3, 1e-4)]
  assert gaps[0] > 0.01, 'a high temperature must differ'
  assert all(b <= a for a, b in zip(gaps, gaps[1:])), gaps
  assert gaps[-1] < 1e-4, gaps


@pytest.mark.parametrize('name', SOFT)
def test_no_temperature_is_the_hard_metric(name):
  predicted, observed, _ = rows()
  zero = SOFT[name](predicted, observed, temperature=0.0)
  testing.assert_array_equal(zero, HARD[name](predicted, observed))


def test_hard_values_are_those_of_the_other_modules():
  predicted, observed, control = rows()
  testing.assert_array_equal(
    SOFT['rank r2'](predicted, observed, temperature=None),
    ranks.perturbation_rank(predicted, observed, metric='r2', groups=GROUPS),
  )
  testing.assert_array_equal(
    SOFT['recall'](predicted, observed, temperature=0),
    pseudobulk.top_k_recall(predicted, observed, k=5),
  )
  for ours, hard in (
    (soft.cosine, pseudobulk.cosine),
    (soft.pearson, pseudobulk.pearson),
  ):
    testing.assert_array_equal(
      ours(predicted, observed, eps=None), hard(predicted, observed)
    )
  testing.assert_allclose(
    soft.pearson_delta(predicted, observed, control, eps=0),
    pseudobulk.pearson_delta(predicted, observed, control),
    rtol=1e-12,
  )


@pytest.mark.parametrize('mask', [None, 'own'])
@pytest.mark.parametrize('name', ['cosine', 'pearson'])
def test_angles_are_the_hard_ones_to_the_stated_factor(name, mask):
  mask = mask and some_genes(own=True)
  predicted, observed, _ = rows()
  hard = getattr(pseudobulk, name)(predicted, observed, mask=mask)
  for eps in (0.1, 1e-2, 1e-3):
    value = getattr(soft, name)(predicted, observed, mask=mask, eps=eps)
    factor = value / hard
    assert (factor < 1).all()
    bound = eps**2 * (1 / 0.3 + 1 / 0.3)  # No mean square here is below 0.3.
    assert (factor > 1 - bound).all()


def test_temperature_may_be_traced_and_may_not_be_negative():
  predicted, observed, _ = rows()
  traced = jax.jit(
    lambda t: soft_ranks.soft_rank(
      predicted, observed, metric='mse', temperature=t
    )
  )
  testing.assert_allclose(
    traced(0.1),
    soft_ranks.soft_rank(predicted, observed, metric='mse', temperature=0.1),
    rtol=1e-12,
  )
  with pytest.raises(ValueError, match='at least 0'):
    soft.direction_match(predicted, observed, temperature=-1.0)
  with pytest.raises(ValueError, match='above 0'):
    soft_ranks.retrieval_nce(predicted, observed, metric='mse', temperature=0)


@pytest.mark.parametrize(
  'name', ['rank rmse', 'rank mse', 'recall', 'direction']
)
def test_temperature_has_no_unit(name):
  options = {'eps': 1e-12} if name.startswith('rank') else {}
  predicted, observed, _ = rows()
  both = [
    SOFT[name](s * predicted, s * observed, temperature=0.2, **options)
    for s in (1.0, 1e3)
  ]
  testing.assert_allclose(*both, rtol=1e-6)


# ----------------------------------------------------------------------------
# References.


@pytest.mark.parametrize('transposed', [False, True])
def test_soft_rank_and_cross_entropy_are_their_formulas(transposed):
  predicted, observed, _ = rows()
  call = {'metric': 'mse', 'temperature': 0.3, 'transposed': transposed}
  rank = soft_ranks.soft_rank(predicted, observed, groups=GROUPS, **call)
  nce = soft_ranks.retrieval_nce(predicted, observed, groups=GROUPS, **call)
  p, o = np.asarray(predicted), np.asarray(observed)
  for j in range(CONDITIONS):
    group = np.flatnonzero(GROUPS[j] == GROUPS)
    pairs = [(j, i) if transposed else (i, j) for i in group]
    d = np.array([np.mean((p[a] - o[b]) ** 2) for a, b in pairs])
    own = d[group == j][0]
    if len(group) == 1:
      assert np.isnan(rank[j])
      assert np.isnan(nce[j])
      continue
    z = (own - d) / (0.3 * d.std())
    others = group != j
    testing.assert_allclose(
      rank[j], np.mean(1 / (1 + np.exp(-z[others]))), rtol=1e-9
    )
    testing.assert_allclose(nce[j], np.log(np.sum(np.exp(z))), rtol=1e-9)


@pytest.mark.parametrize('metric', ranks.METRICS)
def test_distances_order_as_the_metric_does_on_any_genes(metric):
  predicted, observed, _ = rows()
  hard = ranks.pairwise(predicted, observed, metric=metric)
  value, _ = soft_ranks.distances(predicted, observed, metric=metric, eps=1e-9)
  sign = -1 if metric in ('cosine', 'pearson', 'r2') else 1
  testing.assert_allclose(value, (1 if sign < 0 else 0) + sign * hard,
                          rtol=1e-6, atol=1e-9)  # fmt: skip
  shared = some_genes()
  spread = jnp.broadcast_to(shared, observed.shape)
  a, _ = soft_ranks.distances(predicted, observed, metric=metric, mask=shared)
  b, _ = soft_ranks.distances(predicted, observed, metric=metric, mask=spread)
  testing.assert_allclose(a, b, rtol=1e-9)


def test_weighted_errors_by_hand():
  predicted = jnp.array([[1.0, 2.0, 3.0, 9.0]])
  observed = jnp.array([[1.0, 4.0, 2.0, 5.0]])
  score = jnp.array([[-1.0, 3.0, 2.0, jnp.nan]])
  mask = jnp.array([True, True, True, False])
  weights = weighted.significance_weights(score, mask=mask)
  testing.assert_allclose(weights, [[0, 1, 0.25, 0]])
  testing.assert_allclose(
    weighted.wmse(predicted, observed, weights, mask=mask),
    [(1 * 4 + 0.25 * 1) / 1.25],
  )
  mean = (4 + 0.25 * 2) / 1.25
  spread = ((4 - mean) ** 2 + 0.25 * (2 - mean) ** 2) / 1.25
  testing.assert_allclose(
    soft.weighted_r2_delta(
      predicted, observed, jnp.zeros((1, 4)), weights, mask=mask
    ),
    [1 - 3.4 / spread],
  )


def test_weights_that_say_nothing_are_equal():
  predicted, observed, control = rows()
  flat = jnp.full((CONDITIONS, GENES), -2.0)
  testing.assert_array_equal(
    weighted.significance_weights(flat), jnp.ones_like(flat)
  )
  zero = jnp.zeros((CONDITIONS, GENES))
  testing.assert_allclose(
    weighted.wmse(predicted, observed, zero),
    pseudobulk.mse(predicted, observed),
    rtol=1e-12,
  )
  testing.assert_allclose(
    soft.weighted_r2_delta(predicted, observed, control, zero),
    pseudobulk.r2(predicted - control, observed - control),
    rtol=1e-9,
  )


def test_direction_counts_no_change_half_and_weighs_genes():
  predicted = jnp.array([[1.0, -1.0, 0.0, 5.0]])
  observed = jnp.array([[2.0, 2.0, 2.0, -1.0]])
  match = functools.partial(soft.direction_match, predicted, observed)
  testing.assert_allclose(match(temperature=None), [1.5 / 4])
  weights = jnp.array([[3.0, 1.0, 0.0, 0.0]])
  testing.assert_allclose(match(temperature=1e-6, weights=weights), [0.75])


# ----------------------------------------------------------------------------
# Gradients.

FIXED = jnp.ones(CONDITIONS)
PER_ROW = {
  **{
    name: functools.partial(f, temperature=0.7, scale=FIXED)
    for name, f in SOFT.items()
  },
  'nce': functools.partial(
    soft_ranks.retrieval_nce, metric='rmse', temperature=0.7, scale=FIXED,
    groups=GROUPS,
  ),
  'cosine': soft.cosine,
  'pearson': soft.pearson,
  'weighted mse': lambda p, o, **k: weighted.wmse(p, o, jnp.abs(o), **k),
  'weighted r2': lambda p, o, **k: soft.weighted_r2_delta(
    p, o, jnp.zeros_like(o), jnp.abs(o), eps=soft.EPS, **k
  ),
}  # fmt: skip


def total(function, observed, **options):
  """A scalar of the conditions that have an answer."""

  def value(predicted):
    values = function(predicted, observed, **options)
    weight = jnp.arange(1.0, CONDITIONS + 1)
    return jnp.sum(jnp.where(jnp.isnan(values), 0, weight * values))

  return value


@pytest.mark.parametrize(
  ('name', 'mask'),
  [(name, None) for name in PER_ROW]
  + [
    (name, 'own')
    for name in ('rank pearson', 'rank mae', 'recall', 'weighted r2')
  ],
)
def test_gradient_is_that_of_finite_differences(name, mask):
  options = {}
  if mask:
    options['mask'] = some_genes(own=True)
  predicted, observed, _ = rows(3)
  value = jax.jit(total(PER_ROW[name], observed, **options))
  test_util.check_grads(
    value, (predicted,), order=1, modes=['rev'], eps=1e-6, rtol=1e-5, atol=1e-7
  )
  assert jnp.any(jax.grad(value)(predicted) != 0)


@pytest.mark.parametrize('name', ['rank rmse', 'recall', 'direction', 'nce'])
def test_no_gradient_flows_through_the_scale(name):
  function = PER_ROW[name].func
  options = {k: v for k, v in PER_ROW[name].keywords.items() if k != 'scale'}
  predicted, observed, _ = rows(3)
  if name == 'recall':
    # Both rows share a scale that is given; only equal ones can be compared.
    observed = predicted[:, ::-1]
    scale = jnp.std(jnp.abs(predicted), axis=1)
  elif name == 'direction':
    scale = jnp.sqrt(jnp.mean(observed**2, axis=1))
  else:
    distance, error = soft_ranks.distances(predicted, observed, metric='rmse')
    scale = soft_ranks.competition(distance, error, groups=GROUPS).scale
  free = functools.partial(function, **options)
  fixed = functools.partial(free, scale=scale)
  ours, theirs = (
    jax.jit(jax.value_and_grad(total(f, observed)))(predicted)
    for f in (free, fixed)
  )
  testing.assert_allclose(ours[0], theirs[0], rtol=1e-9)
  testing.assert_allclose(ours[1], theirs[1], rtol=1e-7, atol=1e-11)


ROUGH = {
  'zero predictions': lambda p, o: (jnp.zeros_like(p), o),
  'constant predictions': lambda p, o: (jnp.full_like(p, 0.1), o),
  'identical predictions': lambda p, o: (
    jnp.broadcast_to(p[:1], p.shape) + 0, o
  ),
  'exact predictions': lambda p, o: (o, o),
  'constant truth': lambda p, o: (p, jnp.full_like(o, 0.3)),
  'everything equal': lambda p, o: (jnp.ones_like(p), jnp.ones_like(o)),
}  # fmt: skip
LOOSE = {
  **{name: functools.partial(f, temperature=0.1) for name, f in SOFT.items()},
  'nce': functools.partial(
    soft_ranks.retrieval_nce, metric='cosine', temperature=0.1
  ),
  **{k: v for k, v in PER_ROW.items() if k not in SOFT and k != 'nce'},
}


@pytest.mark.parametrize('name', LOOSE)
def test_gradients_are_finite_where_the_hard_metric_has_none(name):
  @jax.jit
  def both(predicted, observed, mask):
    def value(predicted):
      values = LOOSE[name](predicted, observed, mask=mask)
      return jnp.sum(jnp.where(jnp.isnan(values), 0, values)), values

    return jax.value_and_grad(value, has_aux=True)(predicted)

  # float32, where rounding is largest.
  predicted, observed, _ = (x.astype(jnp.float32) for x in rows())
  everything = jnp.ones(GENES, bool)
  for case, make in ROUGH.items():
    (value, _), gradient = both(*make(predicted, observed), everything)
    assert jnp.isfinite(value), case
    assert jnp.isfinite(gradient).all(), case
  (_, values), gradient = both(predicted, observed, ~everything)
  assert not gradient.any()
  assert jnp.isnan(values).all()


@pytest.mark.parametrize('metric', ranks.METRICS)
def test_identical_predictions_tie_and_still_have_a_gradient(metric):
  predicted, observed, _ = (x.astype(jnp.float32) for x in rows())
  same = jnp.broadcast_to(predicted[:1] + 100, predicted.shape)
  call = functools.partial(soft_ranks.soft_rank, metric=metric, temperature=0.1)
  testing.assert_array_equal(call(same, observed), 0.5)
  testing.assert_allclose(
    soft_ranks.retrieval_nce(same, observed, metric=metric, temperature=0.1),
    np.log(CONDITIONS),
    rtol=1e-6,
  )
  gradient = jax.jit(jax.grad(lambda p: jnp.sum(call(p, observed))))(same)
  assert jnp.any(gradient != 0)
  # Of the size that a thousandth of the distances as a spread allows.
  assert jnp.abs(gradient).max() < 1e5


@pytest.mark.parametrize('name', ['rank mse', 'nce'])
def test_one_condition_has_no_rank_and_no_gradient(name):
  predicted, observed, _ = (x[:1] for x in rows())
  function = functools.partial(
    soft_ranks.retrieval_nce if name == 'nce' else soft_ranks.soft_rank,
    metric='mse',
    temperature=0.1,
  )
  assert jnp.isnan(function(predicted, observed)).all()
  gradient = jax.jit(
    jax.grad(lambda p: jnp.sum(jnp.where(False, function(p, observed), 0)))
  )(predicted)
  assert not gradient.any()


def test_steps_down_the_gradient_lower_the_hard_rank():
  predicted, observed, _ = rows(noise=4.0)
  call = functools.partial(
    soft_ranks.soft_rank, observed=observed, metric='rmse'
  )
  slope = jax.jit(jax.grad(lambda p: jnp.sum(call(p, temperature=0.3))))
  before = jnp.mean(call(predicted, temperature=None))
  for _ in range(60):
    predicted = predicted - slope(predicted)
  assert jnp.mean(call(predicted, temperature=None)) < before - 0.1


@pytest.mark.parametrize('name', soft_losses.LOSSES)
def test_every_loss_is_best_for_the_truth(name):
  _, observed, control = rows()
  term = soft_losses.LOSSES[name]
  options = {'temperature': 0.05, 'metric': 'rmse'}
  groups = np.zeros(CONDITIONS, int)
  call = functools.partial(
    term.function, observed=observed, control=control, groups=groups, **options
  )
  perfect = call(observed)
  assert perfect.shape == (CONDITIONS,)
  assert (perfect > -1e-6).all()
  # What sigmoids leave over at this temperature.
  assert (perfect < 0.2).all()
  if name == 'top_k_recall':
    return  # Strength has no sign.
  assert (call(control - (observed - control)) > perfect + 0.1).all()


@pytest.mark.parametrize(
  ('call', 'message'),
  [
    (lambda a: soft_ranks.soft_rank(a, a, metric='rsme', temperature=1),
     'closest: .rmse'),
    (lambda a: soft_ranks.soft_rank(a, a[1:], metric='mse', temperature=1),
     'same condition'),
    (lambda a: soft_ranks.soft_rank(a, a[:, 1:], metric='mse', temperature=1),
     'same condition'),
    (lambda a: soft_ranks.distances(a, a[:, 1:], metric='mse'), 'same genes'),
    (lambda a: soft_ranks.distances(a, a, metric='mse', mask=a),
     'must be boolean'),
    (lambda a: soft_ranks.soft_rank(
      a, a, metric='mse', temperature=1, mask=a > 0, transposed=True),
     'one mask for all'),
    (lambda a: soft_ranks.soft_rank(
      a, a, metric='mse', temperature=1, denominator='n+1'), "'n-1'"),
  ],
)  # fmt: skip
def test_what_cannot_be_is_named(call, message):
  with pytest.raises(ValueError, match=message):
    call(rows()[0])
