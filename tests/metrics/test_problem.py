"""Problems: the same conditions on both sides, controls and groups."""

import closed_form
import numpy as np
import pytest
from numpy import testing

from pertjax.metrics import problem as problem_lib


def test_fixture_without_and_with_groups():
  one = closed_form.problem_t(covariates=False)
  assert one.conditions == ('A', 'A+B', 'B', 'C')
  assert one.groups == ('',)
  testing.assert_array_equal(one.observed.sizes, [8, 8, 8, 8, 8])
  two = closed_form.problem_t()
  assert two.conditions == ('A', 'A+B', 'B', 'C') * 2
  assert two.groups == ('ta', 'tb')
  testing.assert_array_equal(two.group, [0] * 4 + [1] * 4)
  testing.assert_array_equal(two.control_labels, [8] * 4 + [9] * 4)
  values, names, types = closed_form.fixture_t('observed')
  here = (np.asarray(names) == 'A+B') & (np.asarray(types) == 'tb')
  testing.assert_allclose(two.means('observed')[5], values[here].mean(0))
  control = (np.asarray(names) == 'control') & (np.asarray(types) == 'tb')
  testing.assert_allclose(
    two.control_means('observed')[5], values[control].mean(0)
  )


def test_names_are_held_once():
  found = problem_lib.names_of(['b', 'a', 'b', 3])
  assert found.distinct == ('b', 'a', '3')
  testing.assert_array_equal(found.code, [0, 1, 0, 2])
  assert problem_lib.names_of(found) is found
  groups = problem_lib.Names(('x', 'y'), np.asarray([0, 0, 1, -1]))
  assert problem_lib.pairs_of(found, groups) == {
    ('x', 'b'), ('x', 'a'), ('y', 'b'),
  }  # fmt: skip


def test_cells_without_a_name_are_not_read():
  values, names = closed_form.fixture_a('observed')
  coded = problem_lib.names_of(names)
  gone = coded._replace(code=np.where(np.arange(87) == 20, -1, coded.code))
  problem = problem_lib.from_arrays(
    values, gone, values, coded, control='ctrl', genes=closed_form.GENES_72
  )
  assert problem.observed.labels[20] == -1
  assert problem.observed.sizes.sum() == 86
  assert problem.predicted.sizes.sum() == 87


def test_targets():
  problem = closed_form.problem_a()
  at = dict(zip(problem.conditions, problem.targets))
  assert at['G03'] == (3,)
  assert at['DRUGX'] == ()
  assert problem.target_mask.sum() == 4
  given = closed_form.problem_a(targets={'DRUGX': ['G10', 'G10', 'nobody']})
  assert dict(zip(given.conditions, given.targets))['DRUGX'] == (10,)
  assert given.target_mask.sum() == 1


def test_controls_that_are_not_predicted():
  observed, names = closed_form.fixture_a('observed')
  predicted, _ = closed_form.fixture_a('predicted')
  kept = np.asarray(names) != 'ctrl'
  problem = problem_lib.from_arrays(
    observed, names, predicted[kept], np.asarray(names)[kept],
    control='ctrl', genes=closed_form.GENES_72,
  )  # fmt: skip
  assert not problem.has_predicted_control.any()
  testing.assert_array_equal(
    problem.control_means('predicted'), problem.control_means('observed')
  )
  reference, *_ = problem.test_cells('predicted', 0, [0], control='own')
  testing.assert_array_equal(reference, observed[~kept])
  # With one, 'own' and 'real' differ.
  both = closed_form.problem_a()
  own, real = (
    both.control_means('predicted', control=c) for c in ('own', 'real')
  )
  assert np.abs(own - real).max() > 0.01
  testing.assert_array_equal(real, both.control_means('observed'))


def test_parts_share_what_was_computed():
  problem = closed_form.problem_t()
  problem.said['a line'] = None
  problem.tables['observed', 'x'] = problem.tables['predicted', 'x'] = 1
  (_, first), (chosen, second) = problem.by_group()
  testing.assert_array_equal(chosen, [4, 5, 6, 7])
  testing.assert_array_equal(
    second.means('observed'), problem.means('observed')[4:]
  )
  second.said['another'] = None
  assert list(problem.said) == ['a line', 'another'] == list(first.said)
  assert second.tables == {}
  other = problem.with_sides(None, problem.observed)
  assert other.tables == {('observed', 'x'): 1}
  assert problem.with_sides(problem.observed, None).tables == {}


@pytest.mark.parametrize(
  ('observed', 'predicted', 'groups', 'message'),
  [
    ('xc', 'yc', None, "no condition is on both sides: observed .*'c'"),
    ('xy', 'xy', None, "no observed cell of the control 'c' in the group"),
    ('xxyc', 'xxyc', 'abab', r"'c' in the group\(s\) 'a'"),
  ],
)
def test_errors(observed, predicted, groups, message):
  with pytest.raises(ValueError, match=message):
    problem_lib.from_arrays(
      np.ones((len(observed), 2)), list(observed),
      np.ones((len(predicted), 2)), list(predicted),
      control='c', genes=('a', 'b'),
      observed_groups=groups, predicted_groups=groups,
    )  # fmt: skip
