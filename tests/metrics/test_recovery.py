"""Recovery of a known structure, on cases whose answer is known."""

import itertools

import numpy as np
import pytest
from scipy import optimize

from pertjax.metrics import recovery


@pytest.fixture
def random():
  return np.random.default_rng(0)


@pytest.mark.parametrize(
  'shape', [(1, 1), (3, 3), (4, 7), (7, 4), (20, 20), (12, 30)]
)
def test_assignment_costs_as_little_as_scipys(random, shape):
  for kind in range(4):
    cost = random.normal(size=shape)
    if kind == 1:  # Many ties.
      cost = random.integers(0, 3, shape).astype(float)
    if kind == 2:
      cost = cost * 1e6
    if kind == 3:
      cost = np.zeros(shape)
    found = recovery.assign(cost)
    has = found >= 0
    assert has.sum() == min(shape)
    assert len(set(found[has].tolist())) == has.sum()
    rows, columns = optimize.linear_sum_assignment(cost)
    np.testing.assert_allclose(
      cost[has, found[has]].sum(), cost[rows, columns].sum(), rtol=1e-12
    )


def test_assignment_refuses_what_is_no_cost():
  with pytest.raises(ValueError, match='finite'):
    recovery.assign(np.array([[0.0, np.nan]]))
  with pytest.raises(ValueError, match='matrix'):
    recovery.assign(np.zeros(3))


def test_matching_undoes_order_sign_and_scale(random):
  truth = random.normal(size=(40, 5))
  order = np.array([3, 0, 4, 2, 1])
  sign = np.array([1, -1, 1, -1, 1.0])
  found = np.column_stack(
    [random.normal(size=40), 7 + 3 * (truth * sign)[:, order]]
  )
  matched = recovery.match(truth, found)
  # Factor 1 + i is program order[i].
  expected = 1 + np.argsort(order)
  assert matched.factor.tolist() == expected.tolist()
  assert matched.sign.tolist() == sign.tolist()
  assert matched.mean == pytest.approx(1, abs=1e-12)


def test_fewer_factors_than_programs_leave_some_at_zero(random):
  truth = random.normal(size=(200, 4))
  matched = recovery.match(truth, truth[:, [2]])
  assert matched.factor.tolist() == [-1, -1, 0, -1]
  assert matched.sign.tolist() == [0, 0, 1, 0]
  assert matched.mean == pytest.approx(0.25)


def test_constant_factor_correlates_with_nothing(random):
  truth = random.normal(size=(10, 2))
  found = np.column_stack([np.full(10, 0.1), truth[:, 0]])
  matched = recovery.match(truth, found)
  assert matched.factor.tolist() == [1, 0]
  assert matched.correlation[1] == 0


def test_shapes_that_do_not_fit_are_refused():
  with pytest.raises(ValueError, match='shapes'):
    recovery.match(np.zeros((3, 2)), np.zeros((4, 2)))


def test_linear_r2_of_a_mixture_is_one_and_of_noise_is_not(random):
  truth = random.normal(size=(30, 3))
  mixed = truth @ random.normal(size=(3, 3)) + 5
  np.testing.assert_allclose(recovery.linear_r2(truth, mixed), 1, atol=1e-9)
  noise = random.normal(size=(30, 20))
  fitted = recovery.linear_r2(truth, noise, leave_one_out=False)
  judged = recovery.linear_r2(truth, noise)
  assert fitted.min() > 0.4
  assert judged.max() < 0


def test_leaving_one_out_is_what_it_says(random):
  truth = random.normal(size=(12, 2))
  found = truth[:, :1] + random.normal(size=(12, 3))
  missed = np.empty_like(truth)
  spread = np.empty_like(truth)
  for i in range(12):
    rest = np.arange(12) != i
    design = np.column_stack([np.ones(11), found[rest]])
    weight, *_ = np.linalg.lstsq(design, truth[rest], rcond=None)
    missed[i] = truth[i] - np.concatenate([[1], found[i]]) @ weight
    spread[i] = truth[i] - truth[rest].mean(0)
  np.testing.assert_allclose(
    recovery.linear_r2(truth, found),
    1 - (missed**2).sum(0) / (spread**2).sum(0),
    rtol=1e-9,
  )


def test_a_sample_that_stands_alone_is_no_evidence():
  """One-hot factors fit everything and predict nothing."""
  truth = np.arange(6.0)[:, None]
  found = np.eye(6)
  assert recovery.linear_r2(truth, found, leave_one_out=False) == [1]
  assert recovery.linear_r2(truth, found)[0] == pytest.approx(0)
  assert np.isnan(recovery.linear_r2(np.ones((6, 1)), found)[0])


def match_of(*factor):
  factor = np.array(factor)
  return recovery.Match(factor, np.sign(factor + 1), np.ones(len(factor)))


def test_targets_by_match_and_by_the_best_naming():
  program = np.array([0, 0, 1, 1, 2, 2])
  assigned = np.array([4, 4, 3, 3, 1, 0])
  found = recovery.intervention_targets(
    program, assigned, match_of(4, 2, 1), num_factors=5
  )
  assert found.matched == pytest.approx(3 / 6)
  assert found.best == pytest.approx(5 / 6)
  # By hand over all orders of the six.
  best = [
    max(
      sum(naming[p] == a for p, a in zip(program, turned))
      for naming in itertools.permutations(range(5), 3)
    )
    / 6
    for turned in set(itertools.permutations(assigned.tolist()))
  ]
  assert found.best_by_chance == pytest.approx(np.mean(best), abs=0.03)


def test_all_on_one_factor_is_worth_the_largest_program_only():
  program = np.array([0, 0, 0, 1, 2])
  found = recovery.intervention_targets(
    program, np.full(5, 2), match_of(0, 1, 2), num_factors=3
  )
  assert found.matched == pytest.approx(1 / 5)
  assert found.best == pytest.approx(3 / 5)
  assert found.best_by_chance == pytest.approx(3 / 5)


def test_graph_after_matching():
  truth = np.zeros((3, 3))
  truth[0, 1], truth[1, 2] = 0.5, -0.4
  learned = np.zeros((4, 4))
  # Programs 0, 1, 2 are the factors 1, 0, 3: 0 -> 1 is turned round.
  learned[0, 1], learned[0, 3], learned[1, 3] = 0.3, -0.6, 0.2
  learned[2, 3] = 9  # Of a factor that stands for no program.
  found = recovery.graph_recovery(
    truth, learned, match_of(1, 0, 3), threshold=0.1
  )
  # Turned once, one too many (0 -> 2), one right (1 -> 2).
  assert found.hamming == 2
  assert (found.edges, found.empty_hamming, found.found) == (2, 2, 3)
  # Ordered pairs: true scores {0, .6}; false {.3, .2, 0, 0}.
  assert found.auroc == pytest.approx((4 + 0 + 0 + 0.5 + 0.5) / 8)
  # Unordered: true {.3, .6}, false {.2}.
  assert found.auroc_undirected == 1
  strict = recovery.graph_recovery(
    truth, learned, match_of(1, 0, 3), threshold=0.5
  )
  assert (strict.hamming, strict.found) == (1, 1)


def test_the_true_graph_is_at_distance_zero(random):
  truth = np.triu(random.normal(size=(6, 6)) * (random.random((6, 6)) < 0.4), 1)
  order = random.permutation(6)
  learned = truth[np.ix_(order, order)]
  found = recovery.graph_recovery(
    truth, learned, match_of(*np.argsort(order)), threshold=0
  )
  assert found.hamming == 0
  assert found.auroc == found.auroc_undirected == 1


def test_auroc_counts_ties_half_and_knows_when_there_is_none():
  assert recovery.auroc([3, 1, 2, 1], [1, 0, 1, 0]) == 1
  assert recovery.auroc([1, 1, 1, 1], [1, 0, 1, 0]) == 0.5
  assert recovery.auroc([1, 3, 2], [1, 0, 0]) == 0
  assert np.isnan(recovery.auroc([1, 2], [1, 1]))


def test_luck_of_matching_is_known(random):
  truth, found = random.normal(size=(10, 3)), random.normal(size=(10, 8))
  chance = recovery.match_by_chance(truth, found)
  assert 0.3 < chance < 0.8
  assert chance == recovery.match_by_chance(truth, found)
  long = random.normal(size=(2000, 3))
  assert recovery.match_by_chance(long, random.normal(size=(2000, 3))) < 0.05
