"""Discrimination scores against loops, and their ties."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy import testing

from pertjax.metrics import retrieval

NUMBER, GENES = 11, 30
each_metric = pytest.mark.parametrize('metric', retrieval.METRICS)
each_ties = pytest.mark.parametrize('ties', retrieval.TIES)


@pytest.fixture(autouse=True)
def double():
  with jax.enable_x64(True):
    yield


def changes(seed=0, number=NUMBER):
  random = np.random.default_rng(seed)
  truth = random.normal(size=(number, GENES))
  return truth + 2 * random.normal(size=truth.shape), truth


def slow_distance(a, b, metric):
  if metric == 'l1':
    return np.abs(a - b).sum()
  if metric == 'l2':
    return np.sqrt(((a - b) ** 2).sum())
  scale = np.sqrt((a * a).sum() * (b * b).sum())
  return 1 - (a * b).sum() / scale if scale else 1.0


def slow(predicted, observed, metric, mask, own, ties, denominator):
  """The score by one condition after the other."""
  scores = []
  for i, row in enumerate(predicted):
    keep = mask.copy()
    if own[i] >= 0:
      keep[own[i]] = False
    far = [slow_distance(row[keep], b[keep], metric) for b in observed]
    order = np.argsort(far, kind='stable')
    place = np.flatnonzero(order == i)[0]
    if ties == 'mid':
      others = np.delete(far, i)
      place = (others < far[i]).sum() + 0.5 * (others == far[i]).sum()
    scores.append(1 - place / (len(far) - (denominator == 'n-1')))
  return scores


@each_metric
@each_ties
@pytest.mark.parametrize('denominator', ['n', 'n-1'])
def test_against_loops(metric, ties, denominator):
  random = np.random.default_rng(1)
  mask = random.random(GENES) < 0.7
  own = np.where(
    random.random(NUMBER) < 0.3, -1, random.integers(0, GENES, NUMBER)
  )
  predicted, observed = changes()
  predicted[4] = 0  # Without a direction.
  observed[7] = observed[2]  # Two conditions of one effect.
  options = {'metric': metric, 'ties': ties, 'denominator': denominator}
  found = retrieval.discrimination(
    predicted, observed, mask=mask, own=own, **options
  )
  expected = slow(predicted, observed, mask=mask, own=own, **options)
  testing.assert_allclose(found, expected, atol=1e-12)
  hidden = np.where(mask, predicted, np.nan), np.where(mask, observed, np.nan)
  found = retrieval.discrimination(*hidden, mask=mask, own=own, **options)
  testing.assert_allclose(found, expected, atol=1e-12)


@each_metric
def test_distances(metric):
  predicted, observed = changes()
  predicted[0, 3] = 1e4  # The gene of a condition may be all of its change.
  own = np.full(NUMBER, 3)
  found = retrieval.distances(predicted, observed, metric=metric, own=own)
  keep = np.arange(GENES) != 3
  expected = [
    [slow_distance(a[keep], b[keep], metric) for b in observed]
    for a in predicted
  ]
  expected = np.asarray(expected) ** (2 if metric == 'l2' else 1)
  off = np.abs(found.value - expected)
  assert (off <= found.error + 1e-12 * expected).all()
  testing.assert_allclose(found.value, expected, atol=1e-6)
  assert np.max(found.error[1:]) < 1e-11


@each_metric
def test_best_and_worst(metric):
  _, truth = changes()
  score = functools.partial(retrieval.discrimination, metric=metric)
  testing.assert_allclose(score(truth, truth), 1)
  apart = np.eye(4, GENES)
  others = 9 * (apart.sum(0) - apart)
  testing.assert_allclose(score(others, apart), 0, atol=1e-15)
  lowest = score(others, apart, denominator='n')
  testing.assert_allclose(lowest, 0.25)


@each_metric
def test_one_prediction_for_all_is_chance(metric):
  predicted, truth = changes(number=40)
  predicted[:] = predicted[0]
  found = retrieval.discrimination(predicted, truth, metric=metric)
  assert np.mean(found) == pytest.approx(0.5)


@pytest.mark.parametrize('own', [None, np.arange(NUMBER)])
def test_no_change_is_chance_for_each_condition(own):
  _, truth = changes()
  nothing = np.zeros_like(truth)
  if own is not None:  # Nothing but the own gene is predicted.
    nothing[np.arange(NUMBER), own] = -3.7
  score = functools.partial(
    retrieval.discrimination, nothing, truth, metric='cosine', own=own
  )
  testing.assert_array_equal(score(), 0.5)
  # The tool's rule gives points by the alphabet.
  by_name = 1 - np.arange(NUMBER) / NUMBER
  testing.assert_allclose(score(ties='tool', denominator='n'), by_name)


def test_targets_of_others_tell_nothing_under_a_mask():
  # Each condition lowers its own gene only; the model raises all the others.
  truth = -np.eye(NUMBER, GENES) + 1e-3 * changes()[0]
  spiked = np.zeros_like(truth)
  spiked[:, :NUMBER] = 5 * (1 - np.eye(NUMBER))
  own = np.arange(NUMBER)
  gamed = retrieval.discrimination(spiked, truth, metric='cosine', own=own)
  testing.assert_allclose(gamed, 1)
  mask = np.arange(GENES) >= NUMBER
  fair = retrieval.discrimination(spiked, truth, metric='cosine', mask=mask)
  testing.assert_array_equal(fair, 0.5)


@each_metric
@each_ties
def test_equal_rows_tie_whatever_the_products_round_to(metric, ties):
  random = np.random.default_rng(3)
  effects = random.normal(size=(3, 997)) * 10.0 ** random.integers(-3, 3, 997)
  truth = np.repeat(effects, 21, axis=0)
  predicted = random.normal(size=truth.shape)
  with jax.enable_x64(False):
    found = retrieval.place(
      retrieval.distances(
        jnp.float32(predicted), jnp.float32(truth), metric=metric
      ),
      ties=ties,
    )
  place = np.asarray(found).reshape(3, 21)
  # Whole blocks of 21 are closer, then the place within the own block.
  within = np.full(21, 10) if ties == 'mid' else np.arange(21)
  testing.assert_array_equal(place % 21, np.broadcast_to(within, (3, 21)))


@each_metric
@each_ties
def test_nan_comes_last(metric, ties):
  predicted, truth = changes()
  predicted[2] = np.nan
  truth[5, 1] = np.nan
  found = retrieval.discrimination(
    predicted, truth, metric=metric, ties=ties, denominator='n-1'
  )
  clean = np.delete(np.arange(NUMBER), [2, 5])
  assert np.isfinite(found).all()
  assert (
    abs(found[5]) < 1e-15
  )  # Its own is the only one that cannot be compared.
  expected = 0.5 if ties == 'mid' else 1 - 2 / (NUMBER - 1)
  assert found[2] == pytest.approx(expected)
  others = [i for i in range(NUMBER) if i != 5]
  expected = retrieval.discrimination(
    np.nan_to_num(predicted)[others], truth[others], metric=metric,
    denominator='n-1',
  )  # fmt: skip
  place = (1 - np.asarray(expected)) * (NUMBER - 2)
  kept = [others.index(i) for i in clean]
  testing.assert_allclose(
    (1 - found[clean]) * (NUMBER - 1), place[kept], atol=1e-9
  )


def test_one_condition():
  predicted, truth = (x[:1] for x in changes())
  score = functools.partial(retrieval.discrimination, metric='l2')
  assert np.isnan(score(predicted, truth))
  assert score(predicted, truth, denominator='n') == 1


def test_jit_and_vmap():
  score = functools.partial(
    retrieval.discrimination, metric='l1', own=jnp.arange(NUMBER)
  )
  both = [changes(seed) for seed in range(3)]
  stacked = [jnp.stack(x) for x in zip(*both)]
  found = jax.jit(jax.vmap(score))(*stacked)
  expected = [score(*pair) for pair in both]
  testing.assert_allclose(found, np.stack(expected))


@pytest.mark.parametrize(
  'options',
  [{'metric': 'l3'}, {'ties': 'half'}, {'denominator': 'n+1'}],
)
def test_wrong_names(options):
  options = {'metric': 'l1', **options}
  with pytest.raises(ValueError, match='allowed'):
    retrieval.discrimination(*changes(), **options)


def test_wrong_shapes():
  predicted, truth = changes()
  with pytest.raises(ValueError, match=r'\(11, 29\)'):
    retrieval.distances(predicted[:, 1:], truth, metric='l1')
  with pytest.raises(ValueError, match='square'):
    retrieval.discrimination(predicted[1:], truth, metric='l1')


@pytest.mark.parametrize('rule', ['all genes', 'own', 'mask'])
def test_settled_places_are_those_of_float64(rule):
  """Float32 alone would exchange neighbours here."""
  random = np.random.default_rng(0)
  observed = random.normal(size=(40, 30))
  # Neighbours that differ by less than float32 can tell, and exact twins.
  observed[20:30] = observed[10:20] + 1e-9 * random.normal(size=(10, 30))
  observed[30:35] = observed[5:10]
  predicted = observed + 0.5 * random.normal(size=observed.shape)
  predicted[15] = predicted[14]
  rules = {'own': None, 'mask': None}
  if rule == 'own':
    rules['own'] = random.integers(-1, 30, 40)
  elif rule == 'mask':
    rules['mask'] = random.random(30) < 0.7
  with jax.enable_x64(True):
    exact = retrieval.distances(predicted, observed, metric='l1', **rules)
    found = retrieval.settled(predicted, observed, **rules)
    for ties in retrieval.TIES:
      testing.assert_array_equal(
        retrieval.place(found, ties=ties), retrieval.place(exact, ties=ties)
      )
    rough = retrieval.distances(
      *(x.astype(np.float32) for x in (predicted, observed)),
      metric='l1',
      **rules,
    )
    assert (retrieval.place(rough) != retrieval.place(exact)).any()


def test_many_conditions_of_float64_are_settled(monkeypatch):
  random = np.random.default_rng(1)
  observed = random.normal(size=(12, 20))
  predicted = observed + random.normal(size=observed.shape)
  with jax.enable_x64(True):
    before = retrieval.discrimination(predicted, observed, metric='l1')
    calls = []
    monkeypatch.setattr(retrieval, '_MANY', 12)
    settled = retrieval.settled
    monkeypatch.setattr(
      retrieval,
      'settled',
      lambda *a, **k: calls.append(1) or settled(*a, **k),
    )
    after = retrieval.discrimination(predicted, observed, metric='l1')
  testing.assert_array_equal(before, after)
  assert calls
  # Equal everywhere: nothing to settle one by one.
  with jax.enable_x64(True):
    flat = np.zeros((12, 20))
    testing.assert_allclose(
      retrieval.discrimination(flat, flat, metric='l1'), 0.5
    )
