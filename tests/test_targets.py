"""The truth that predictions are scored against."""

import dataclasses

import handmade
import ml_collections
import numpy as np
import pytest
from scipy import stats

from pertjax import targets, types
from pertjax.data import arrays


@pytest.fixture(scope='module')
def screen():
  return handmade.screen(copies=11, controls=25)


def _config(**changes):
  return ml_collections.ConfigDict(
    {
      'eval': {
        'split': 'test',
        'seed': 0,
        'cells': 500,
        'min_cells': 2,
        'truth': 'halves',
        'top_genes': 4,
        **changes,
      }
    }
  )


def _members(data, spec, part, condition, group):
  chosen = (spec.split.cells == part) & (np.asarray(data.group) == group)
  return np.flatnonzero(chosen & (np.asarray(data.condition) == condition))


def _values(data):
  return np.asarray(data.cells.values, np.float64)


def test_the_halves_are_disjoint_and_cover_all_cells(screen):
  data, spec = screen
  truth = targets.make(_config(), data, spec)
  rows = np.arange(len(spec.cell_names))
  lists = [rows[:0], rows[:1], rows[:2], rows[:7]]
  first, second = targets._halves(lists)
  for whole, a, b in zip(lists, first, second):
    assert not set(a) & set(b)
    assert sorted([*a, *b]) == whole.tolist()
    assert abs(len(a) - len(b)) <= 1
  # 11 cells: halves of 5 and 6, whose means weigh up to the mean of all.
  for p, (c, g) in enumerate(zip(truth.condition, truth.group)):
    own = _members(data, spec, types.TEST, c, g)
    assert truth.cells[p] == len(own) == 11
    mean = _values(data)[own].mean(0)
    a, b = truth.replicate[:, p].astype(np.float64)
    np.testing.assert_allclose((5 * a + 6 * b) / 11, mean, rtol=1e-5)
    np.testing.assert_allclose(truth.whole[p], mean, rtol=1e-5)
    assert np.abs(a - b).max() > 0.01
  np.testing.assert_array_equal(truth.observed, truth.replicate)
  np.testing.assert_array_equal(truth.control, truth.replicate_control)


def test_sources_are_the_controls_of_the_other_side(screen):
  data, spec = screen
  truth = targets.make(_config(), data, spec)
  values = _values(data)
  for g in range(2):
    own = _members(data, spec, types.TEST, 0, g)
    used = [truth.source[v, g][truth.source_weight[v, g] > 0] for v in range(2)]
    # The two sides are all controls of the split and share none.
    assert sorted([*used[0], *used[1]]) == own.tolist()
    for v in range(2):
      # The source of one truth is what the other truth's effects start from.
      np.testing.assert_allclose(
        truth.control[1 - v, g], values[used[v]].mean(0), rtol=1e-5
      )
      np.testing.assert_allclose(
        truth.source_mean[v, g], values[used[v]].mean(0), rtol=1e-5
      )
    np.testing.assert_allclose(
      truth.whole_control[g], values[own].mean(0), rtol=1e-5
    )


def test_at_most_so_many_source_cells_and_weights_mark_padding(screen):
  data, spec = screen
  parts = spec.split.cells.copy()
  # Leave group 0 three test controls, group 1 has ten.
  own = _members(data, spec, types.TEST, 0, 0)
  parts[own[3:]] = types.EXCLUDED
  data, spec = _with_parts(data, spec, parts)
  truth = targets.make(_config(cells=4), data, spec)
  assert truth.source.shape == (2, 2, 4)
  np.testing.assert_array_equal(truth.source_weight.sum(-1), [[2, 4], [1, 4]])
  values = _values(data)
  for v in range(2):
    for g in range(2):
      used = truth.source[v, g][truth.source_weight[v, g] > 0]
      assert len(set(used)) == len(used)
      assert set(used) <= set(_members(data, spec, types.TEST, 0, g))
      np.testing.assert_allclose(
        truth.source_mean[v, g], values[used].mean(0), rtol=1e-5
      )


def _with_parts(data, spec, parts):
  rows = [
    arrays.make_rows(
      parts == part, np.asarray(data.condition), np.asarray(data.group), 2
    )
    for part in (types.TRAIN, types.VAL, types.TEST)
  ]
  data = dataclasses.replace(data, train=rows[0], val=rows[1], test=rows[2])
  split = dataclasses.replace(spec.split, cells=parts)
  return data, dataclasses.replace(spec, split=split)


def test_the_same_seed_makes_the_same_halves(screen):
  data, spec = screen
  a = targets.make(_config(), data, spec)
  b = targets.make(_config(), data, spec)
  for field in ('observed', 'source', 'control', 'source_mean', 'top_genes'):
    np.testing.assert_array_equal(getattr(a, field), getattr(b, field))
  other = targets.make(_config(seed=1), data, spec)
  assert np.abs(other.observed - a.observed).max() > 1e-3
  assert (other.source != a.source).any()
  np.testing.assert_allclose(other.whole, a.whole, rtol=1e-6)


def test_a_pairs_halves_do_not_depend_on_the_other_pairs(screen):
  """Otherwise eval.min_cells would change every number of a table."""
  data, spec = screen
  a = targets.make(_config(), data, spec)
  parts = spec.split.cells.copy()
  parts[_members(data, spec, types.TEST, a.condition[0], a.group[0])] = -1
  b = targets.make(_config(), *_with_parts(data, spec, parts))
  assert len(b.condition) == len(a.condition) - 1
  np.testing.assert_allclose(b.observed, a.observed[:, 1:], rtol=1e-6)
  np.testing.assert_array_equal(b.source, a.source)


def test_all_is_the_published_convention(screen):
  """All cells against all controls, which are the source as well."""
  data, spec = screen
  truth = targets.make(_config(truth='all'), data, spec)
  assert truth.observed.shape[0] == truth.source.shape[0] == 1
  values = _values(data)
  for p, (c, g) in enumerate(zip(truth.condition, truth.group)):
    own = _members(data, spec, types.TEST, c, g)
    np.testing.assert_allclose(
      truth.observed[0, p], values[own].mean(0), rtol=1e-5
    )
  for g in range(2):
    own = _members(data, spec, types.TEST, 0, g)
    np.testing.assert_allclose(
      truth.control[0, g], values[own].mean(0), rtol=1e-5
    )
    np.testing.assert_allclose(
      truth.source_mean[0, g], values[own].mean(0), rtol=1e-5
    )
    used = truth.source[0, g][truth.source_weight[0, g] > 0]
    assert sorted(used) == own.tolist()


def test_pairs_and_regimes(screen):
  data, spec = screen
  regimes = {('A+B', 'x'): 'seen1', ('B+D', 'y'): 'seen0'}
  data, spec = handmade.screen(copies=11, controls=25, regimes=regimes)
  truth = targets.make(_config(), data, spec)
  names = [
    (spec.conditions.names[c], spec.group_name(g))
    for c, g in zip(truth.condition, truth.group)
  ]
  assert names == [(c, g) for c in ('A+B', 'A+C', 'C+D') for g in ('x', 'y')]
  assert truth.regime == ('seen1', *['seen2'] * 5)
  truth = targets.make(_config(split='val'), data, spec)
  assert [spec.conditions.names[c] for c in truth.condition] == ['B+D'] * 2
  assert truth.regime == ('seen2', 'seen0')


def test_small_pairs_are_left_out_and_counted(screen):
  data, spec = screen
  parts = spec.split.cells.copy()
  condition = spec.conditions.names.index('A+C')
  parts[_members(data, spec, types.TEST, condition, 1)[4:]] = types.EXCLUDED
  data, spec = _with_parts(data, spec, parts)
  truth = targets.make(_config(min_cells=5), data, spec)
  assert len(truth.condition) == 5
  assert truth.notes == (
    '1 of 6 pairs of the test split have fewer than eval.min_cells=5 cells '
    'and are not scored',
  )
  assert targets.make(_config(min_cells=4), data, spec).notes == ()
  with pytest.raises(
    ValueError, match=r'eval.min_cells=12 .*found 6 pairs with \[11, 11, 11'
  ):
    targets.make(_config(min_cells=12), data, spec)


def test_a_group_with_one_control_is_not_scored(screen):
  """It would be both the source of a prediction and part of its truth."""
  data, spec = screen
  parts = spec.split.cells.copy()
  parts[_members(data, spec, types.TEST, 0, 1)[1:]] = types.EXCLUDED
  data, spec = _with_parts(data, spec, parts)
  truth = targets.make(_config(), data, spec)
  assert truth.group.tolist() == [0, 0, 0]
  (note,) = truth.notes
  assert note == (
    '3 of 6 pairs of the test split are not scored, since their group has '
    'fewer than 2 control cells there: y'
  )
  assert np.isfinite(truth.source_mean).all()


def test_training_controls_serve_where_the_split_has_none(screen):
  data, spec = screen
  parts = spec.split.cells.copy()
  parts[(np.asarray(data.condition) == 0)] = types.TRAIN
  data, spec = _with_parts(data, spec, parts)
  truth = targets.make(_config(), data, spec)
  (note,) = truth.notes
  assert note.startswith('the test split has no control cells')
  for g in range(2):
    used = np.concatenate(
      [truth.source[v, g][truth.source_weight[v, g] > 0] for v in range(2)]
    )
    own = _members(data, spec, types.TRAIN, 0, g)
    assert sorted(used) == own.tolist()


def test_welch_t_is_scipys():
  random = np.random.default_rng(0)
  genes, sizes = 30, (5, 12, 2)
  control = [random.gamma(2, 1, (n, genes)) for n in (40, 7, 3)]
  cells = [random.gamma(2, 1.5, (n, genes)) for n in sizes]

  def moments(lists):
    return (
      np.stack([x.mean(0) for x in lists]).astype(np.float32),
      np.stack([(x**2).mean(0) for x in lists]).astype(np.float32),
      np.asarray([len(x) for x in lists]),
    )

  t = targets.welch_t(*moments(cells), *moments(control))
  for p in range(3):
    expected = stats.ttest_ind(cells[p], control[p], equal_var=False)
    np.testing.assert_allclose(t[p], expected.statistic, rtol=1e-3, atol=1e-4)


def test_a_constant_gene_has_no_statistic():
  mean = np.float32([[0.0, 4.1, 4.1, 2.0]])
  # The third has its mean square off in the last bit.
  square = np.float32([[0.0, 4.1**2, np.nextafter(np.float32(4.1**2), 99), 5]])
  count = np.array([50])
  other = np.float32([[0.0, 4.1, 4.0, 2.0]]), np.float32([[0, 4.1**2, 16, 5]])
  t = targets.welch_t(mean, square, count, *other, count)
  np.testing.assert_array_equal(t, np.zeros((1, 4)))


def _top_of(cells, controls, count=4):
  t = stats.ttest_ind(cells, controls, equal_var=False).statistic
  return set(np.argsort(-np.abs(t))[:count])


def test_top_genes_of_all_are_the_largest_statistics(screen):
  data, spec = screen
  truth = targets.make(_config(truth='all'), data, spec)
  values = _values(data)
  assert truth.top_genes.shape == (1, 6, 12)
  for p, (c, g) in enumerate(zip(truth.condition, truth.group)):
    expected = _top_of(
      values[_members(data, spec, types.TEST, c, g)],
      values[_members(data, spec, types.TEST, 0, g)],
    )
    assert set(np.flatnonzero(truth.top_genes[0, p])) == expected


def test_top_genes_of_a_half_are_chosen_by_the_other(screen):
  data, spec = screen
  truth = targets.make(_config(), data, spec)
  values = _values(data)
  random = np.random.Generator(np.random.Philox(0))
  order = random.permutation(len(values))
  assert truth.top_genes.shape == (2, 6, 12)

  def sides(condition, group):
    own = _members(data, spec, types.TEST, condition, group)
    own = own[np.argsort(order[own])]
    return values[own[: len(own) // 2]], values[own[len(own) // 2 :]]

  for p, (c, g) in enumerate(zip(truth.condition, truth.group)):
    cells, controls = sides(c, g), sides(0, g)
    for v in range(2):
      np.testing.assert_allclose(
        truth.observed[v, p], cells[v].mean(0), rtol=1e-5
      )
      found = set(np.flatnonzero(truth.top_genes[v, p]))
      assert found == _top_of(cells[1 - v], controls[1 - v])
  assert (truth.top_genes[0] != truth.top_genes[1]).any()
  # What the ceiling is scored on does not depend on the mode.
  for mode in ('halves', 'all'):
    other = targets.make(_config(truth=mode), data, spec)
    np.testing.assert_array_equal(other.replicate_genes, truth.top_genes)


def test_top_mask():
  t = np.array([[1.0, -3.0, 2.0], [0.0, 0.0, 0.0]])
  np.testing.assert_array_equal(
    targets.top_mask(t, 2),
    [[False, True, True], [True, True, False]],
  )
  assert targets.top_mask(t, 20).all()
