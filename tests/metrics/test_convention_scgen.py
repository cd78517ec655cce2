"""scGen's and scVIDR's scores, against slow references and known values."""

import closed_form
import numpy as np
import pytest
from numpy import testing
from scipy import stats

from pertjax.metrics import problem as problem_lib
from pertjax.metrics import sides
from pertjax.metrics.conventions import base, scgen, scgen_fields

CONVENTION = base.get('scgen')
PLAIN = ('r2mean', 'r2mean_top20', 'r2mean_top100')
BOOTSTRAP = 'r2mean_all_boostrap_mean', 'r2mean_top20_boostrap_mean'
RATIOS = tuple(scgen_fields.DISTANCES)
EXACT = ('edistance', 'euclidean', 'mmd', 'mean_pairwise')


@pytest.fixture(scope='module')
def problem():
  return closed_form.problem_a()


def evaluate(problem, *wanted, **options):
  return base.evaluate(CONVENTION, problem, wanted=wanted, options=options)


def cells(side, label):
  return np.asarray(sides.dense(side.cells([label])[0]), np.float64)


def small(control, real, predicted):
  """The problem of one condition with the cells given."""
  control, real, predicted = map(np.asarray, (control, real, predicted))
  return problem_lib.from_arrays(
    np.concatenate([control, real]),
    ['c'] * len(control) + ['p'] * len(real),
    predicted,
    ['p'] * len(predicted),
    control='c',
    genes=tuple(f'g{i}' for i in range(control.shape[1])),
  )


# ----------------------------------------------------------------------------
# Correlations.


def test_plain_r2(problem):
  found = evaluate(problem, *PLAIN, 'r2var', 'r2var_top20')
  control = cells(problem.observed, problem.num_conditions)
  for condition in range(problem.num_conditions):
    x = cells(problem.predicted, condition)
    y = cells(problem.observed, condition)
    t = stats.ttest_ind(y, control, equal_var=False).statistic
    top = np.argsort(-t, kind='stable')[:20]
    for name, moment in (('r2mean', np.mean), ('r2var', np.var)):
      for suffix, genes in (('', slice(None)), ('_top20', top)):
        r = stats.linregress(moment(x, 0)[genes], moment(y, 0)[genes]).rvalue
        testing.assert_allclose(
          found[name + suffix][condition], r * r, rtol=1e-9
        )
  # The fixture has 72 genes: the top 100 are all of them.
  testing.assert_allclose(found['r2mean_top100'], found['r2mean'], rtol=1e-12)


def test_plain_r2_as_scanpy_ranks(problem):
  # scanpy 1.11 rank_genes_groups(method='t-test') and scipy's linregress.
  expected = [
    0.9105534844, 0.9641972178, 0.9186812133, 0.9326727233, 0.8521620747,
    0.9725578676,
  ]  # fmt: skip
  found = evaluate(problem, 'r2mean_top20')['r2mean_top20']
  testing.assert_allclose(found, expected, rtol=1e-8)


def test_rounding_of_the_original():
  r = np.sqrt([[1 - 0.9856**2]])
  rows = np.asarray([[1.0, -1.0, 0.0, 0.0], [0.0, 0.0, 1.0, -1.0]])
  other = 0.9856 * rows[:1] + r * rows[1:]
  exact = scgen.squared_correlation(other, rows[:1])
  assert round(float(exact[0]), 3) == 0.971
  found = scgen.squared_correlation(other, rows[:1], rounding='original')
  assert found.tolist() == [0.972]


def test_swapped_columns_of_the_original(problem):
  plain = evaluate(problem, *PLAIN, 'r2var_top20')
  swapped = evaluate(problem, *PLAIN, 'r2var_top20', swapped=True)
  testing.assert_array_equal(swapped['r2mean_top20'], plain['r2mean_top100'])
  testing.assert_array_equal(swapped['r2mean_top100'], plain['r2mean_top20'])
  testing.assert_array_equal(swapped['r2mean'], plain['r2mean'])
  testing.assert_array_equal(swapped['r2var_top20'], plain['r2var_top20'])
  assert not np.allclose(plain['r2mean_top20'], plain['r2mean_top100'])


def test_bootstrap(problem):
  found = evaluate(problem, *BOOTSTRAP, 'r2var_all_boostrap_mean')
  # By scanpy 1.11 (rank sums without tie correction), NumPy's choice with seed
  # i, and scipy's linregress.
  testing.assert_allclose(
    found['r2mean_all_boostrap_mean'],
    [0.5777808580, 0.8571795819, 0.8669675613, 0.8752571289, 0.8459249547,
     0.8731530989],
    rtol=1e-8,
  )  # fmt: skip
  # Where no gene ties with the last one of the list.
  testing.assert_allclose(
    found['r2mean_top20_boostrap_mean'][[0, 2, 3]],
    [0.7855641819, 0.8231343237, 0.8670672259],
    rtol=1e-8,
  )
  x, y = cells(problem.predicted, 1), cells(problem.observed, 1)
  values = []
  for i in range(100):
    pair = []
    for side in (x, y):
      size = int(0.8 * len(side))
      drawn = np.random.RandomState(i).choice(len(side), size, replace=False)
      pair.append(side[drawn].var(0))
    values.append(np.corrcoef(*pair)[0, 1] ** 2)
  testing.assert_allclose(
    found['r2var_all_boostrap_mean'][1], np.mean(values), rtol=1e-9
  )
  alias = CONVENTION.column('r2mean_all_bootstrap_mean')
  assert alias.name == 'r2mean_all_boostrap_mean'


def test_bootstrap_options(problem):
  whole = evaluate(problem, *BOOTSTRAP[:1], 'r2mean', fraction=1.0, repeats=3)
  testing.assert_allclose(whole[BOOTSTRAP[0]], whole['r2mean'], rtol=1e-9)
  perfect = problem.with_sides(None, problem.observed)
  found = evaluate(perfect, *BOOTSTRAP, *PLAIN, 'r2var')
  for value in found.values():
    testing.assert_allclose(value, 1, rtol=1e-12)
  drawn = scgen.subsample(50, repeats=4, fraction=0.8, replacement=True)
  assert drawn.shape == (4, 40)
  assert any(len(set(row)) < 40 for row in drawn.tolist())


def test_one_cell_has_no_bootstrap():
  random = np.random.default_rng(0)
  tiny = small(*(random.random((n, 6)) for n in (5, 1, 4)))
  found = evaluate(tiny, BOOTSTRAP[0], 'r2mean', repeats=3)
  assert np.isnan(found[BOOTSTRAP[0]]).all()
  assert np.isfinite(found['r2mean']).all()


def test_constant_genes_have_no_r2():
  random = np.random.default_rng(0)
  tiny = small(random.random((5, 4)), random.random((5, 4)), np.ones((3, 4)))
  assert np.isnan(evaluate(tiny, 'r2mean')['r2mean']).all()


# ----------------------------------------------------------------------------
# Genes.


def test_common_degs():
  random = np.random.default_rng(1)
  genes, n = 300, 30
  control = random.gamma(2, 1, (n, genes))
  effect = random.normal(0, 1, genes)
  real = random.gamma(2, 1, (n, genes)) + effect
  guess = random.gamma(2, 1, (n, genes)) + effect
  tiny = small(control, real, guess)
  found = evaluate(tiny, 'DEGs', 'DEGs_absolute')
  t = [
    stats.ttest_ind(x, control, equal_var=False).statistic
    for x in (real, guess)
  ]
  for name, function in (('DEGs', lambda x: x), ('DEGs_absolute', np.abs)):
    lists = [set(np.argsort(-function(x))[:100]) for x in t]
    assert found[name].tolist() == [len(lists[0] & lists[1])]
  # Permuting the predicted cells changes nothing; the truth gets all.
  again = small(control, real, guess[::-1])
  assert evaluate(again, 'DEGs')['DEGs'] == found['DEGs']
  perfect = small(control, real, real)
  assert evaluate(perfect, 'DEGs')['DEGs'].tolist() == [100]


def test_gene_tables(problem):
  table = scgen.gene_table(problem, 'predicted')
  x, y = cells(problem.predicted, 2), cells(problem.observed, 2)
  control = cells(problem.observed, problem.num_conditions)
  testing.assert_allclose(table.mean[2], x.mean(0))
  testing.assert_allclose(table.fraction[2], (x > 0).mean(0))
  expressed = [np.where(s > 0, s, 0).sum(0) / (s > 0).sum(0) for s in (x, y)]
  testing.assert_allclose(table.expressed[2], expressed[0])
  t = stats.ttest_ind(x, control, equal_var=False).statistic
  assert table.rank[2, np.argmax(t)] == 0
  found = evaluate(
    problem,
    'average_mean_expressed_diff',
    'average_fractions_diff',
    'average_mean_degs20_diff',
  )
  relative = np.abs(expressed[0] - expressed[1]) / expressed[1]
  testing.assert_allclose(
    found['average_mean_expressed_diff'][2], relative.mean()
  )
  testing.assert_allclose(
    found['average_fractions_diff'][2],
    np.abs((x > 0).mean(0) - (y > 0).mean(0)).mean(),
  )
  t = stats.ttest_ind(y, control, equal_var=False).statistic
  testing.assert_allclose(
    found['average_mean_degs20_diff'][2],
    relative[np.argsort(-t, kind='stable')[:20]].mean(),
  )


def test_genes_without_expression_are_left_out():
  control = np.ones((4, 3))
  real = np.asarray([[2.0, 0.0, 1.0], [4.0, 0.0, 0.0]])
  guess = np.asarray([[3.0, 1.0, -1.0], [1.5, 1.0, 2.0]])
  found = evaluate(
    small(control, real, guess),
    'average_mean_expressed_diff',
    'average_fractions_diff',
  )
  # Gene 1 has no real value; 2.25 for 3 and 2 for 1 in the others.
  testing.assert_allclose(
    found['average_mean_expressed_diff'], [(0.25 + 1) / 2]
  )
  testing.assert_allclose(found['average_fractions_diff'], [1 / 3])


# ----------------------------------------------------------------------------
# Ratios.


def test_ratios_of_the_specification():
  tiny = small(
    [[0.0, 0.0], [2.0, 0.0]], [[3.0, 1.0], [5.0, 1.0]], [[3.0, 1.0]] * 2
  )
  for options in ({'basis': 'real'}, {'basis': 'joint'}):
    found = evaluate(
      tiny, *RATIOS, *(f'{n}_to_effect' for n in RATIOS), **options
    )
    for name, value in (
      ('edistance', 0.2),
      ('mmd', 0.2),
      ('euclidean', 1 / np.sqrt(5)),
      ('mean_pairwise', 0.437016),
      ('edistance_unbiased', 0.0),
      ('edistance_to_effect', 0.1),
      ('euclidean_to_effect', np.sqrt(0.1)),
    ):
      testing.assert_allclose(found[name], [value], rtol=2e-6, atol=1e-12)


def test_identity_of_the_ratios(problem):
  found = evaluate(problem, *EXACT, *(f'{n}_to_effect' for n in EXACT))
  for suffix in ('', '_to_effect'):
    squared = found[f'edistance{suffix}']
    testing.assert_allclose(found[f'mmd{suffix}'], squared, rtol=1e-6)
    testing.assert_allclose(
      np.square(found[f'euclidean{suffix}']), squared, rtol=1e-6
    )
  assert not np.allclose(found['edistance'], found['edistance_to_effect'])


def test_perfect_and_control_predictions(problem):
  perfect = problem.with_sides(None, problem.observed)
  found = evaluate(perfect, 'edistance', 'euclidean', 'mmd_to_effect')
  for value in found.values():
    testing.assert_allclose(value, 0, atol=1e-12)
  labels = problem.observed.labels
  control = np.flatnonzero(labels == problem.num_conditions)
  copies = problem.observed.relabelled(
    np.repeat(np.arange(problem.num_conditions), len(control)),
    problem.observed.num_labels,
    cells=np.tile(control[::-1], problem.num_conditions),
  )
  unchanged = problem.with_sides(None, copies)
  names = [f'{n}_to_effect' for n in EXACT]
  found = evaluate(unchanged, *names, 'edistance', 'euclidean', 'mmd')
  for name in names:
    testing.assert_allclose(found[name], 1, rtol=1e-9)
  for name in ('edistance', 'euclidean', 'mmd'):
    assert np.isnan(found[name]).all()  # Divided by a distance of 0.


def test_joint_basis_follows_the_prediction(problem):
  options = {'components': 2}
  real = evaluate(problem, 'edistance_to_effect', **options)
  joint = evaluate(problem, 'edistance_to_effect', basis='joint', **options)
  assert not np.allclose(
    real['edistance_to_effect'], joint['edistance_to_effect'], rtol=1e-3
  )
  x, y, c = (
    cells(problem.predicted, 1),
    cells(problem.observed, 1),
    cells(problem.observed, problem.num_conditions),
  )
  everyone = np.concatenate([y, x, c])
  axes = np.linalg.svd(everyone - everyone.mean(0))[2][:2]
  shifts = [np.square((a.mean(0) - y.mean(0)) @ axes.T).sum() for a in (x, c)]
  testing.assert_allclose(
    joint['edistance_to_effect'][1], shifts[0] / shifts[1], rtol=1e-9
  )


@pytest.mark.parametrize('shape', [(6, 20), (20, 6)])
def test_joint_components(shape):
  values = np.random.default_rng(0).normal(size=shape)
  found = scgen.joint_components(values, 3)
  axes = np.linalg.svd(values - values.mean(0), full_matrices=False)[2][:3]
  testing.assert_allclose(np.abs(axes @ found.loading), np.eye(3), atol=1e-9)


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'basis': 'both'}, "'real', 'joint'"),
    ({'rounding': 'twice'}, "'none', 'original'"),
    ({'ranking': 'size'}, "'signed', 'absolute'"),
    ({'fraction': 0.0}, 'fraction 0.0'),
    ({'repeats': 0}, 'repeats is 0'),
  ],
)
def test_errors(problem, options, message):
  with pytest.raises(ValueError, match=message):
    evaluate(problem, 'r2mean', **options)
