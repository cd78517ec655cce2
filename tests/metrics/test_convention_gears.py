"""GEARS' and scGPT's conventions against values that their own code gave."""

import jax
import numpy as np
import pytest
import scipy.sparse

from pertjax.metrics import changes, sides
from pertjax.metrics import problem as problem_lib
from pertjax.metrics.conventions import base, gears
from pertjax.metrics.conventions import genes as gene_lib

GEARS, SCGPT = gears.CONVENTIONS
GENES = tuple(f'ENS{g:02d}' for g in range(24))
# The original's order of genes, up to those that tie.
ORDER = {
  'A+B': [
    2, 22, 3, 16, 0, 19, 9, 6, 13, 10, 12, 15, 7, 4, 18, 21, 1, 20, 8, 14,
  ],
  'A+ctrl': [
    10, 16, 4, 13, 7, 22, 19, 1, 3, 0, 20, 6, 14, 9, 12, 8, 15, 5, 18, 2, 21,
  ],
}  # fmt: skip


def cells():
  """Returns the cells of the specification's toy, by condition."""
  g = np.arange(24)
  keep = g % 6 != 5

  def level(c):
    return np.round(1 + 0.1 * g + 0.05 * c, 6)

  return {
    'ctrl': np.stack([level(c) * keep for c in range(4)]),
    'A+ctrl': np.stack(
      [
        (level(c) + 0.5 * np.sin(g + 1)) * keep + 0.2 * c * (g == 5)
        for c in range(3)
      ]
    ),
    'A+B': np.stack(
      [(level(c) + 0.8 * np.cos(g)) * keep * (g != 2) for c in range(3)]
    ),
  }


def toy(make=np.asarray, predict=None):
  """Returns the toy with its prediction, or another of each condition."""
  observed = cells()
  start, sign = observed['ctrl'].mean(0), (-1.0) ** np.arange(24)
  if predict is None:

    def predict(own):
      return start + 0.5 * (own - start) + 0.05 * sign

  names = [name for name, some in observed.items() for _ in some]
  predicted = {
    name: np.repeat(predict(some.mean(0))[None], len(some), 0)
    for name, some in observed.items()
    if name != 'ctrl'
  }
  return problem_lib.from_arrays(
    make(np.concatenate(list(observed.values()))),
    names,
    np.concatenate(list(predicted.values())),
    [name for name, some in predicted.items() for _ in some],
    control='ctrl',
    genes=GENES,
  )


@pytest.fixture(scope='module')
def problem():
  return toy()


@pytest.fixture(scope='module')
def values(problem):
  return base.evaluate(GEARS, problem)


@pytest.fixture(scope='module')
def sets(problem):
  with jax.enable_x64(True):
    return gene_lib.gene_sets(problem)


def columns(mask):
  return np.flatnonzero(mask).tolist()


def test_ranking_is_the_originals(problem, sets):
  assert problem.conditions == ('A+B', 'A+ctrl')
  for row, name in enumerate(problem.conditions):
    order = ORDER[name]
    assert sets.order[row, : len(order)].tolist() == order
    assert sorted(sets.order[row]) == list(range(24))


def test_sets_of_genes_are_the_originals(sets):
  assert columns(~sets.non_zero[0]) == [2, 5, 11, 17, 23]
  assert columns(~sets.non_dropout[0]) == [2]
  assert columns(~sets.non_zero[1]) == [11, 17, 23]
  assert columns(~sets.non_dropout[1]) == []
  assert 2 not in sets.top_non_dropout[0]
  assert sets.top_non_dropout[0, :19].tolist() == ORDER['A+B'][1:]
  assert sets.top_non_dropout[1].tolist() == ORDER['A+ctrl'][:20]
  # Only nineteen genes are not 0: the rest is padding.
  assert sets.top_non_zero[0].tolist() == [*ORDER['A+B'][1:], -1]


# Of A+B and of A+ctrl; None where the original's value is not known.
EXPECTED = {
  'mse': (0.09930881, 0.0330303),
  'mse_de': (0.11867057, 0.0391991),
  'pearson': (0.96505823, 0.98529862),
  'pearson_de': (0.94679657, 0.97164415),
  'frac_correct_direction_all': (0.83333333, 0.875),
  'frac_correct_direction_20': (1.0, 1.0),
  'frac_correct_direction_50': (0.4, None),
  'frac_correct_direction_100': (0.2, None),
  'frac_correct_direction_200': (0.1, None),
  'frac_correct_direction_20_nonzero': (0.89473684, None),
  'frac_in_range': (0.05263158, 0.3),
  'frac_in_range_40_60': (0.05263158, None),
  'mean_sigma': (7.16110501, 3.97556991),
  'std_sigma': (2.95675828, 2.66110702),
  'frac_sigma_below_1': (0.05263158, 0.25),
  'frac_sigma_below_2': (None, 0.3),
  'pearson_delta': (0.98670818, 0.95458153),
  'pearson_delta_de': (0.98935356, 0.9630208),
  'fold_change_gap_all': (0.14865654, 0.08445718),
  'frac_correct_direction_top20_non_dropout': (0.95, 1.0),
  'frac_opposite_direction_top20_non_dropout': (0.0, None),
  'frac_0/1_direction_top20_non_dropout': (0.05, None),
  'frac_correct_direction_non_dropout': (0.82608696, 0.875),
  'frac_0/1_direction_non_dropout': (0.17391304, 0.125),
  'pearson_delta_top20_de_non_dropout': (0.98710178, 0.9630208),
  'pearson_top20_de_non_dropout': (0.94945961, None),
  'mse_top20_de_non_dropout': (0.09516275, None),
}


@pytest.mark.parametrize('name', EXPECTED)
def test_fields_are_the_originals(values, name):
  for found, expected in zip(values[name], EXPECTED[name]):
    if expected is not None:
      assert found == pytest.approx(expected, abs=1e-8)


def test_averages_of_compute_metrics(values):
  expected = {
    'mse': 0.06616955,
    'mse_de': 0.07893483,
    'pearson': 0.97517843,
    'pearson_de': 0.95922036,
  }
  for name, mean in expected.items():
    assert values[name].mean() == pytest.approx(mean, abs=1e-8)


def test_each_quirk_has_its_option(problem):
  names = ['frac_correct_direction_20_nonzero', 'frac_correct_direction_50']
  found = base.evaluate(
    GEARS,
    problem,
    wanted=names,
    options={'mixed_order': False, 'fixed_denominator': False},
  )
  # Aligned, all nineteen genes go the right way; and 20 of the 24 there are.
  assert found[names[0]].tolist() == [1.0, 1.0]
  assert found[names[1]][0] == pytest.approx(20 / 24)


@pytest.mark.parametrize(
  ('options', 'expected'),
  [
    (
      {},
      {
        'pearson': 0.9751784253,
        'pearson_de': 0.9592203584,
        'pearson_delta': 0.9706448529,
        'pearson_de_delta': 0.976187182,
      },
    ),
    (
      {'non_zero_genes': True},
      {
        'pearson': 0.9543265992,
        'pearson_de': 0.9605518776,
        'pearson_delta': 0.9742619782,
        'pearson_de_delta': 0.9750612877,
      },
    ),
  ],
)
def test_scgpt_is_the_original(problem, options, expected):
  found = base.evaluate(SCGPT, problem, options=options)
  for name, mean in expected.items():
    assert found[name].mean() == pytest.approx(mean, abs=1e-9)


def test_deepsc_is_scgpt():
  assert 'deepsc' in SCGPT.aliases
  assert SCGPT.column('pearson_delta_de').name == 'pearson_de_delta'


def test_knocked_out_genes_are_left_out():
  observed = cells()
  names = [name for name, some in observed.items() for _ in some]
  random = np.random.default_rng(0)
  matrix = np.concatenate(list(observed.values()))
  problem = problem_lib.from_arrays(
    matrix,
    names,
    matrix + random.normal(0, 0.2, matrix.shape),
    names,
    control='ctrl',
    genes=('A', 'B', *GENES[2:]),
  )
  found = base.evaluate(SCGPT, problem)
  start = matrix[:4].mean(0)
  for row, targets in enumerate(([0, 1], [0])):
    rest = np.setdiff1d(np.arange(24), targets)
    shifts = [problem.means(s)[row] - start for s in ('predicted', 'observed')]
    expected = np.corrcoef(shifts[0][rest], shifts[1][rest])[0, 1]
    assert found['pearson_delta_no_knockout'][row] == pytest.approx(expected)
    top = [g for g in ORDER[problem.conditions[row]][:20] if g not in targets]
    expected = np.corrcoef(shifts[0][top], shifts[1][top])[0, 1]
    assert found['pearson_delta_de_no_knockout'][row] == pytest.approx(expected)


def test_zeroed_truth_raises_the_correlation():
  """DeepSC's script: the change of a gene it cannot see is -control."""
  problem = toy(predict=lambda own: 0 * own)
  names = ['pearson_delta']
  honest = base.evaluate(SCGPT, problem, wanted=names)[names[0]]
  zeroed = base.evaluate(
    SCGPT, problem, wanted=names, options={'zeroed_genes': GENES[12:]}
  )[names[0]]
  assert (zeroed > honest + 0.3).all()


def test_a_silent_truth_is_left_out():
  observed = cells()
  observed['A+B'][:] = 0
  names = [name for name, some in observed.items() for _ in some]
  matrix = np.concatenate(list(observed.values()))
  problem = problem_lib.from_arrays(
    matrix, names, matrix + 0.1, names, control='ctrl', genes=GENES
  )
  found = base.evaluate(SCGPT, problem)
  for value in found.values():
    assert np.isnan(value[0])
    assert not np.isnan(value[1])


def test_sparse_cells_give_the_same(values):
  found = base.evaluate(GEARS, toy(scipy.sparse.csr_matrix))
  for name, value in values.items():
    if name != 'spread_ratio':
      np.testing.assert_allclose(found[name], value, atol=1e-12, err_msg=name)


def test_a_perfect_prediction_is_best():
  observed = toy()
  found = base.evaluate(GEARS, observed.with_sides(None, observed.observed))
  for column in GEARS.columns:
    value = found[column.name]
    if isinstance(value, base.Panel):
      value = value.value
    known = ~np.isnan(value)
    if column.best is None or not known.any():
      assert column.name.startswith(('frac_in_range_', 'fold_change_gap_'))
      continue
    best = np.full(np.shape(value), column.best)
    for k in (50, 100, 200):
      # Out of k, of the 24 genes that there are.
      if column.name == f'frac_correct_direction_{k}':
        best = best * 24 / k
    np.testing.assert_allclose(value, best, atol=1e-7, err_msg=column.name)


def test_no_change_has_no_correlation():
  start = cells()['ctrl'].mean(0)
  problem = toy(predict=lambda own: start)
  names = ['pearson_delta', 'pearson', 'frac_0/1_direction_top20_non_dropout']
  found = base.evaluate(GEARS, problem, wanted=names)
  assert np.isnan(found['pearson_delta']).all()
  assert found[names[2]].tolist() == [0.95, 1.0]
  # Kept in float32, it is still no change.
  stored = toy(predict=lambda own: start.astype(np.float32))
  assert stored.predicted.matrix.dtype == np.float32
  found = base.evaluate(GEARS, stored, wanted=names)
  assert np.isnan(found['pearson_delta']).all()
  assert found[names[2]].tolist() == [0.95, 1.0]
  ones = toy(predict=lambda own: np.ones(24))
  for rule, expected in (('nan', np.nan), ('zero', 0.0)):
    found = base.evaluate(
      GEARS, ones, wanted=['pearson'], options={'undefined_pearson': rule}
    )
    np.testing.assert_array_equal(found['pearson'], expected)


def test_fold_changes_by_range():
  control = np.array([[1.0, 1.0, 10.0, 10.0, 0.0, 1.0, 4.0]])
  observed = np.array([[4.0, 12.0, 2.0, 0.9, 3.0, 0.4, 0.5]])
  predicted = observed + np.array([[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]])
  # Genes 4 (no control) and 5 (observed below 0.5) never count.
  gap = {0: 1.0, 1: 2.0, 2: 0.3, 3: 0.4, 6: 1.75}
  with jax.enable_x64(True):
    for (above, below), kept in {
      (0, np.inf): [0, 1, 2, 3, 6],
      (0, 0.333): [2, 3, 6],
      (0, 0.1): [3],
      (3, np.inf): [0, 1],
      (10, np.inf): [1],
    }.items():
      found = changes.fold_change_gap(
        predicted, observed, control, above=above, below=below
      )
      assert found[0] == pytest.approx(np.mean([gap[k] for k in kept]))
    empty = changes.fold_change_gap(predicted, observed, control, above=100)
  assert np.isnan(empty[0])


def test_signs_by_distance():
  predicted = np.array([[1.0, -1, 0, 1, 0, 2]])
  observed = np.array([[2.0, 1, 0, 0, -3, -2]])
  shares = [
    float(changes.sign_share(predicted, observed, 0 * observed, apart=apart)[0])
    for apart in (0, 1, 2)
  ]
  assert shares == pytest.approx([2 / 6, 2 / 6, 2 / 6])
  mask = np.array([[True, False, False, True, False, False]])
  share = changes.sign_share(
    predicted, observed, 0 * observed, mask=mask, out_of=4
  )
  assert float(share[0]) == 0.25


def given(keys):
  """Returns rankings as GEARS' files have them, under other names."""
  return {
    'rank_genes_groups_cov_all': {
      key: [GENES[g] for g in reversed(range(24))] for key in keys
    },
    'top_non_dropout_de_20': {key: list(GENES[:20]) for key in keys},
  }


@pytest.mark.parametrize(
  'keys', [('A+B', 'A+ctrl'), ('K_A+B_1+1', 'K_A+ctrl_1+1')]
)
def test_rankings_of_the_file_come_first(problem, keys):
  names = ['mse_de', 'mse_top20_de_non_dropout']
  found = base.evaluate(
    GEARS, problem, wanted=names, options={'rankings': given(keys)}
  )
  gap = np.square(problem.means('predicted') - problem.means('observed'))
  np.testing.assert_allclose(found['mse_de'], gap[:, 4:].mean(1))
  np.testing.assert_allclose(found[names[1]], gap[:, :20].mean(1))


@pytest.mark.parametrize(
  ('rankings', 'message'),
  [
    ({'top_non_dropout_20': {}}, 'top_non_dropout_de_20'),
    (given(('A+B',)), "condition 'A\\+ctrl' has no entry"),
    (given(('K_A+B_1+1', 'L_A+B_1+1')), 'several'),
    (
      {'top_non_zero_de_20': {'A+B': ['TP53'], 'A+ctrl': ['TP53']}},
      'none of the genes',
    ),
  ],
)
def test_wrong_rankings_are_named(problem, rankings, message):
  with pytest.raises(ValueError, match=message):
    base.evaluate(
      GEARS, problem, wanted=['mse_de'], options={'rankings': rankings}
    )


def test_one_cell_has_no_ranking():
  observed = cells()
  matrix = np.concatenate([observed['ctrl'], observed['A+B'][:1]])
  names = ['ctrl'] * 4 + ['A+B']
  problem = problem_lib.from_arrays(
    matrix, names, matrix, names, control='ctrl', genes=GENES
  )
  found = base.evaluate(GEARS, problem)
  for column in GEARS.columns:
    if column.name.endswith('_de') or 'top20_' in column.name:
      assert np.isnan(found[column.name]).all(), column.name
  assert found['mse'][0] == 0
  assert np.isnan(found['mean_sigma']).all()


def test_cells_are_read_only_where_a_column_needs_them(monkeypatch):
  problem = toy()

  def refuse(self, labels):
    raise AssertionError('cells were read')

  monkeypatch.setattr(sides.Side, 'cells', refuse)
  without = [c.name for c in GEARS.columns if 'cells' not in c.needs]
  found = base.evaluate(GEARS, problem, wanted=without)
  assert set(found) == set(without)
  with pytest.raises(AssertionError, match='cells were read'):
    base.evaluate(GEARS, problem, wanted=['frac_sigma_below_1_non_dropout'])


def test_the_most_variable_genes():
  random = np.random.default_rng(1)
  matrix = random.gamma(2, size=(40, 300))
  names = np.repeat(['ctrl', 'A', 'B', 'C'], 10).tolist()
  problem = problem_lib.from_arrays(
    matrix, names, matrix[::-1], names, control='ctrl',
    genes=[f'g{i}' for i in range(300)],
  )  # fmt: skip
  found = base.evaluate(GEARS, problem, wanted=['mse_top200_hvg'])
  mean = matrix.reshape(4, 10, 300).mean(1)
  top = np.argsort(-mean.std(0))[:200]
  gap = np.square(problem.means('predicted') - problem.means('observed'))
  np.testing.assert_allclose(found['mse_top200_hvg'], gap[:, top].mean(1))
  found = base.evaluate(
    GEARS,
    problem,
    wanted=['mse_top200_hvg'],
    options={'variable_genes': ['g3', 'g5']},
  )
  np.testing.assert_allclose(found['mse_top200_hvg'], gap[:, [3, 5]].mean(1))


def test_subgroups():
  values = {'a': np.array([1.0, 2.0, np.nan]), 'b': np.array([3.0, 4.0, 5.0])}
  groups = {'single': ['A', 'C', 'elsewhere'], 'combo_seen2': []}
  found = gears.subgroup_means(values, ['A', 'B', 'C'], groups)
  assert found['single'] == {'a': 1.0, 'b': 4.0}
  assert np.isnan(found['combo_seen2']['a'])
  with pytest.raises(ValueError, match="'a' has the shape"):
    gears.subgroup_means(values, ['A', 'B'], groups)
  known = {column.name for column in GEARS.columns}
  assert set(gears.LOGGED) <= known


def test_collapse_shows_in_the_spread(problem, values):
  # Predictions go half of the way.
  panel = values['spread_ratio']
  assert panel.value == pytest.approx(0.5)
  same = toy(predict=lambda own: np.arange(24.0))
  name = 'spread_ratio'
  assert base.evaluate(GEARS, same, wanted=[name])[name].value == pytest.approx(
    0, abs=1e-7
  )


def test_draws_of_the_spread_are_the_function_of_draws():
  random = np.random.default_rng(1)
  matrix = random.gamma(2, size=(60, 8))
  names = np.repeat(['ctrl', *'ABCDE'], 10).tolist()
  problem = problem_lib.from_arrays(
    matrix, names, matrix[::-1], names, control='ctrl', genes=list('abcdefgh')
  )
  name = 'spread_ratio'
  panel = base.evaluate(GEARS, problem, wanted=[name])[name]
  found = panel.draw(np.random.default_rng(5), 7)
  chosen = np.random.default_rng(5).integers(0, 5, (7, 5))
  with jax.enable_x64(True):
    expected = [
      changes.spread_ratio(problem.means('predicted')[c], problem.means(
        'observed')[c])
      for c in [np.arange(5), *chosen]
    ]  # fmt: skip
  np.testing.assert_allclose([panel.value, *found], expected, rtol=1e-9)


@pytest.mark.parametrize('convention', [GEARS, SCGPT], ids=lambda c: c.name)
def test_columns_say_what_they_are(convention, problem):
  names = [column.name for column in convention.columns]
  assert len(set(names)) == len(names)
  found = base.evaluate(convention, problem)
  for column in convention.columns:
    assert column.direction in base.DIRECTIONS
    assert set(column.needs) <= set(base.NEEDS)
    assert column.formula
    assert column.reference
    value = found[column.name]
    low, high = column.bounds
    if column.scope == 'panel':
      value = value.value
    value = np.asarray(value)[~np.isnan(value)]
    assert low is None or (value >= low).all()
    assert high is None or (value <= high).all()
