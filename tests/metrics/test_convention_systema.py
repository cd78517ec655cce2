"""Systema's convention against its published rules."""

import closed_form
import numpy as np
import pytest

from pertjax.metrics import problem as problem_lib
from pertjax.metrics.conventions import base, systema

(SYSTEMA,) = systema.CONVENTIONS
TRUTH = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0], [3.0, 3.0]])


def corners(predicted):
  """Returns a problem of four conditions with one cell each, a to d."""
  control = np.array([[9.0, 9.0]])
  return problem_lib.from_arrays(
    np.concatenate([TRUTH, control]), [*'abcd', 'ctrl'], predicted, [*'abcd'],
    control='ctrl', genes=['x', 'y'],
  )  # fmt: skip


@pytest.fixture(scope='module')
def problem():
  return closed_form.problem_a()


@pytest.fixture(scope='module')
def values(problem):
  return base.evaluate(SYSTEMA, problem)


@pytest.mark.parametrize(
  ('predicted', 'strict', 'mid'),
  [
    (
      [[0.1, 0], [0.9, 0.2], [0, 1], [1, 1]],
      [1, 1, 2 / 3, 0],
      [1, 1, 2.5 / 3, 0],
    ),
    (
      [[0.5, 0.5]] * 4,
      [2 / 3, 2 / 3, 1 / 3, 0],
      [2.5 / 3, 2.5 / 3, 1 / 3, 0],
    ),
  ],
)
def test_centroid_accuracy(predicted, strict, mid):
  problem = corners(np.array(predicted, np.float64))
  name = 'centroid_accuracy'
  for options, expected in (({}, strict), ({'ties': 'mid'}, mid)):
    found = base.evaluate(SYSTEMA, problem, wanted=[name], options=options)
    np.testing.assert_allclose(found[name], expected, atol=1e-12)


def test_correlations_by_hand(problem, values):
  a, b = problem.means('predicted'), problem.means('observed')
  control = problem.control_means('observed')
  perturbed = b.mean(0)
  for name, start in (
    ('corr_all', control[0]),
    ('corr_all_allpert', perturbed),
  ):
    expected = [np.corrcoef(x - start, y - start)[0, 1] for x, y in zip(a, b)]
    np.testing.assert_allclose(values[name], expected, atol=1e-9)
  rmse = np.sqrt(np.square(a - b).mean(1))
  np.testing.assert_allclose(values['rmse'], rmse, atol=1e-12)


def test_correlations_on_de_genes_by_hand(problem, values):
  """The first twenty by |t| among the genes that are not silenced."""
  x, names = closed_form.fixture_a('observed')
  names = np.asarray(names)
  rest = x[names == 'ctrl']
  a, b = problem.means('predicted'), problem.means('observed')
  for row, name in enumerate(problem.conditions):
    own = x[names == name]
    error = own.var(0, ddof=1) / len(own) + rest.var(0, ddof=1) / len(rest)
    t = (own.mean(0) - rest.mean(0)) / np.sqrt(error)
    kept = np.flatnonzero((own.mean(0) != 0) | (rest.mean(0) == 0))
    top = kept[np.argsort(-np.abs(t[kept]), kind='stable')[:20]]
    for column, start in (
      ('corr_20de', rest.mean(0)),
      ('corr_20de_allpert', b.mean(0)),
    ):
      expected = np.corrcoef((a[row] - start)[top], (b[row] - start)[top])
      assert values[column][row] == pytest.approx(expected[0, 1], abs=1e-9)


def test_systematic_variation_by_hand(problem, values):
  b = problem.means('observed')
  shift = b - problem.control_means('observed')
  mean = shift.mean(0)
  expected = shift @ mean / np.linalg.norm(shift, axis=1) / np.linalg.norm(mean)
  np.testing.assert_allclose(
    values['systematic_variation'], expected, atol=1e-12
  )


def test_jaccard_by_hand(problem, values):
  control = problem.control_means('observed')
  tops = [
    np.argsort(-np.abs(problem.means(side) - control), axis=1)[:, :20]
    for side in ('predicted', 'observed')
  ]
  for row, (x, y) in enumerate(zip(*tops)):
    if problem.conditions[row] == 'DRUGX':
      continue  # Predicted as the control is, but for noise.
    shared = len(set(x) & set(y))
    assert values['jaccard'][row] == pytest.approx(shared / (40 - shared))


def test_ties_share_places():
  x = np.array([[3.0, 2.0, 2.0, 0.0]])
  y = np.array([[3.0, 0.0, 2.0, 2.5]])
  # Gene 0 in both, genes 1 and 2 half each against gene 3: 1 / 3.
  found = systema.jaccard_top(x, y, 2)
  assert found[0] == pytest.approx(1 / 3)


def test_a_perfect_prediction_is_best(problem):
  perfect = problem.with_sides(None, problem.observed)
  found = base.evaluate(SYSTEMA, perfect)
  for column in SYSTEMA.columns:
    if column.best is not None:
      np.testing.assert_allclose(
        found[column.name], column.best, atol=1e-12, err_msg=column.name
      )


def test_a_common_shift_earns_nothing_from_the_perturbed_mean(problem):
  """The mean of all conditions, predicted for each, is the reference itself."""
  genes = len(problem.genes)
  mean = problem.means('observed').mean(0)
  predicted = problem_lib.from_arrays(
    *closed_form.fixture_a('observed'),
    np.repeat(mean[None], problem.num_conditions, 0),
    list(problem.conditions),
    control='ctrl',
    genes=problem.genes,
  )
  found = base.evaluate(SYSTEMA, predicted)
  assert np.isnan(found['corr_all_allpert']).all()
  assert found['corr_all'].mean() > 0.2
  assert found['centroid_accuracy'].mean() == pytest.approx(0.5, abs=0.01)
  assert genes == 72


def test_the_reference_can_be_given(problem):
  name = 'corr_all_allpert'
  a, b = problem.means('predicted'), problem.means('observed')
  vector = problem.control_means('observed')[0]
  for reference in (vector, vector.tolist(), {'': vector}):
    found = base.evaluate(
      SYSTEMA, problem, options={'reference': reference},
      wanted=[name, 'corr_all'],
    )  # fmt: skip
    np.testing.assert_allclose(found[name], found['corr_all'], atol=1e-12)
  found = base.evaluate(
    SYSTEMA, problem, wanted=[name], options={'reference': 'cells'}
  )
  size = problem.observed.sizes[: problem.num_conditions]
  start = (size[:, None] * b).sum(0) / size.sum()
  expected = [np.corrcoef(x - start, y - start)[0, 1] for x, y in zip(a, b)]
  np.testing.assert_allclose(found[name], expected, atol=1e-9)


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'reference': 'cell'}, "closest: 'cells'"),
    ({'reference': np.zeros(3)}, r'\(3,\); allowed: \(72,\)'),
    ({'reference': {'K': np.zeros(72)}}, 'reference'),
    ({'ties': 'strict'}, 'pessimistic'),
  ],
)
def test_wrong_options_are_named(problem, options, message):
  with pytest.raises(ValueError, match=message):
    base.evaluate(SYSTEMA, problem, options=options)


def test_groups_are_scored_apart():
  problem = closed_form.problem_t()
  found = base.evaluate(SYSTEMA, problem)
  for chosen, part in problem.by_group():
    alone = base.evaluate(SYSTEMA, part)
    for name, value in alone.items():
      np.testing.assert_array_equal(found[name][chosen], value)
  # Six genes have no top twenty.
  assert np.isnan(found['jaccard']).all()


def test_one_condition_has_no_rank():
  problem = problem_lib.from_arrays(
    TRUTH, ['a', 'a', 'ctrl', 'ctrl'], TRUTH, ['a', 'a', 'ctrl', 'ctrl'],
    control='ctrl', genes=['x', 'y'],
  )  # fmt: skip
  found = base.evaluate(SYSTEMA, problem, wanted=['centroid_accuracy'])
  assert np.isnan(found['centroid_accuracy']).all()


def test_columns_say_what_they_are(values):
  for column in SYSTEMA.columns:
    assert column.direction in base.DIRECTIONS
    assert set(column.needs) <= set(base.NEEDS)
    assert column.formula
    assert column.reference
    low, high = column.bounds
    value = values[column.name]
    value = value[~np.isnan(value)]
    assert low is None or (value >= low - 1e-12).all()
    assert high is None or (value <= high + 1e-12).all()
