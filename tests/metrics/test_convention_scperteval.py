"""scPertEval's protocols, against slow references."""

import itertools

import closed_form
import jax
import numpy as np
import pytest
from numpy import testing
from scipy import stats

from pertjax.metrics import problem as problem_lib
from pertjax.metrics import sides
from pertjax.metrics.conventions import base, scperteval

CONVENTION = base.get('scperteval')

# scipy's ttest_ind and false_discovery_control, and scikit-learn's
# average_precision_score and roc_auc_score.
TOOLS = {
  'de_auprc': [0.632872066151, 0.795083170866, 0.694497426663,
               0.757589631268, 0.946273693977, 0.916666666667],
  'de_auroc': [0.805418719212, 0.882874889086, 0.797991071429,
               0.811688311688, 0.868303571429, 0.995169082126],
  'wmse_exp1': [0.301581798544, 0.057795652516, 0.132728588948,
                0.071526923229, 0.116397814224, 0.014557179423],
}  # fmt: skip


@pytest.fixture(scope='module')
def problem():
  return closed_form.problem_a()


def evaluate(problem, *wanted, **options):
  return base.evaluate(CONVENTION, problem, wanted=wanted, options=options)


def cells(side, label):
  return np.asarray(sides.dense(side.cells([label])[0]), np.float64)


def pairs(a, b):
  return np.sqrt(np.square(a[:, None] - b[None]).sum(-1))


def others(a):
  return pairs(a, a)[~np.eye(len(a), dtype=bool)]


def slow_energy(x, y):
  return 2 * pairs(x, y).mean() - others(x).mean() - others(y).mean()


def slow_mmd(x, y, width=None):
  if width is None:
    width = np.median(others(np.concatenate([x, y])))
  within = [
    np.exp(-np.square(others(s)) / (2 * width**2)).mean() for s in (x, y)
  ]
  cross = np.exp(-np.square(pairs(x, y)) / (2 * width**2)).mean()
  return sum(within) - 2 * cross


def test_values_of_the_tools(problem):
  found = evaluate(problem, *TOOLS)
  for name, expected in TOOLS.items():
    testing.assert_allclose(found[name], expected, rtol=1e-9, err_msg=name)


def test_there_are_22_protocols():
  assert len({c.name for c in CONVENTION.columns}) == 22


def test_columns_are_their_formulas(problem):
  k = 15
  names = [c.name for c in CONVENTION.columns if 'sinkhorn' not in c.name]
  found = evaluate(
    problem, *names, top_k=k, pca_k=4, overlap_k=k, precision='float64'
  )
  number = problem.num_conditions
  real = [cells(problem.observed, c) for c in range(number)]
  control = cells(problem.observed, number)
  everyone = np.concatenate([*real, control])
  axes = np.linalg.svd(everyone - everyone.mean(0), full_matrices=False)[2][:4]
  truth = np.stack([x.mean(0) for x in real])
  guess = np.stack([cells(problem.predicted, c).mean(0) for c in range(number)])
  squared = np.square(guess[:, None] - truth[None]).sum(-1)
  for c in range(number):
    x, y = cells(problem.predicted, c), real[c]
    rest = np.concatenate([r for j, r in enumerate(real) if j != c])
    t, p = stats.ttest_ind(y, rest, equal_var=False)
    size, q = np.abs(t), stats.false_discovery_control(p)
    predicted = np.abs(stats.ttest_ind(x, rest, equal_var=False).statistic)
    top = np.argsort(-size)[:k]
    degs = q < 0.05
    a, b, m = guess[c], truth[c], rest.mean(0)
    origin = control.mean(0)

    def r(genes, centre, a=a, b=b):
      return np.corrcoef((a - centre)[genes], (b - centre)[genes])[0, 1]

    every = slice(None)
    error = np.square(a - b)
    share = (size - size.min()) / (size.max() - size.min())
    best = set(top) & set(np.argsort(-predicted)[:k])
    expected = {
      'pearson': r(every, 0),
      'pearson_ctrl': r(every, origin),
      'pearson_pert': r(every, m),
      'mse': error.mean(),
      'wmse_exp2': np.average(error, weights=share**2),
      'wmse_exp4': np.average(error, weights=share**4),
      'mse_top_k': error[top].mean(),
      'mse_degs_padj': error[degs].mean(),
      'pearson_pert_top_k': r(top, m),
      'pearson_pert_degs_padj': r(degs, m),
      'rank': (squared[:, c] < squared[c, c]).sum() / (number - 1),
      'transpose_rank': (squared[c] < squared[c, c]).sum() / (number - 1),
      'energy_distance_top_k': slow_energy(x[:, top], y[:, top]),
      'energy_distance_pca_k': slow_energy(x @ axes.T, y @ axes.T),
      'unbiased_mmd_median_top_k': slow_mmd(x[:, top], y[:, top]),
      'unbiased_mmd_median_pca_k': slow_mmd(x @ axes.T, y @ axes.T),
      'de_overlap_k': len(best) / k,
    }
    for name, value in expected.items():
      testing.assert_allclose(
        found[name][c], value, rtol=1e-7, atol=1e-10, err_msg=name
      )


def test_perfect_prediction(problem):
  perfect = problem.with_sides(None, problem.observed)
  names = [
    c.name
    for c in CONVENTION.columns
    if not c.name.startswith(('unbiased_mmd', 'energy'))
  ]
  found = evaluate(perfect, *names, precision='float64')
  for name, value in found.items():
    best = CONVENTION.column(name).best
    # |t| and p may order genes differently: their degrees of freedom differ.
    tolerance = 0.01 if name in ('de_auprc', 'de_auroc') else 1e-6
    testing.assert_allclose(value, best, atol=tolerance, err_msg=name)


def test_equal_predictions_and_noise(problem):
  mean = problem.means('observed').mean(0)
  shift = np.concatenate([mean - problem.means('observed'), np.zeros((1, 72))])
  moved = problem.observed.relabelled(
    problem.observed.labels, problem.observed.num_labels, shift=shift
  )
  constant = problem.with_sides(None, moved)
  mid = evaluate(constant, 'rank')['rank']
  testing.assert_array_equal(mid, 0.5)
  noisy = evaluate(constant, 'rank', noise=True)['rank']
  assert len(set(noisy)) > 1
  testing.assert_array_equal(
    noisy, evaluate(constant, 'rank', noise=True)['rank']
  )
  plain = evaluate(problem, 'rank', 'transpose_rank')
  with_noise = evaluate(problem, 'rank', 'transpose_rank', noise=True)
  for name in plain:
    testing.assert_allclose(plain[name], with_noise[name])


def test_noisy_rank():
  noise = np.random.default_rng(42).uniform(0, 1e-12, size=(3, 3))
  expected = [
    (noise[:, j] < noise[j, j]).sum() / 2 for j in range(3)
  ]  # fmt: skip
  testing.assert_allclose(scperteval.noisy_rank(np.zeros((3, 3))), expected)


def test_areas():
  labels = np.asarray([[1, 0, 1, 0], [1, 1, 1, 1], [0, 0, 0, 0]], bool)
  score = np.asarray([[0.9, 0.9, 0.5, 0.1]] * 3)
  average, roc = scperteval.areas(labels, score)
  # Two genes enter first, one of the class; then the third.
  testing.assert_allclose(average[0], 0.5 * 0.5 + 0.5 * 2 / 3, rtol=1e-6)
  testing.assert_allclose(roc[0], (0.5 + 1 + 0 + 1) / 4, rtol=1e-6)
  assert np.isnan(average[1:]).all()
  assert np.isnan(roc[1:]).all()


def test_bandwidth_of_one_side(problem):
  found = evaluate(
    problem,
    'unbiased_mmd_median_top_k',
    top_k=72,
    bandwidth='observed',
    precision='float64',
  )
  x, y = cells(problem.predicted, 1), cells(problem.observed, 1)
  expected = slow_mmd(x, y, np.median(others(y)))
  testing.assert_allclose(
    found['unbiased_mmd_median_top_k'][1], expected, rtol=1e-9
  )


def test_sinkhorn_w2():
  random = np.random.default_rng(0)
  x = random.normal(size=(5, 3))
  with jax.enable_x64(True):
    # A cloud that is moved is as far as it was moved.
    found = scperteval.sinkhorn_w2(x, x + np.asarray([0.3, -0.4, 0.0]))
    testing.assert_allclose(found, 0.5, rtol=1e-3)
    testing.assert_allclose(scperteval.sinkhorn_w2(x, x), 0, atol=1e-6)
    # Few cells: the best of all matchings, at a slow schedule.
    y = random.normal(size=(5, 3)) + 1
    cost = np.square(pairs(x, y))
    best = min(
      cost[np.arange(5), list(order)].mean()
      for order in itertools.permutations(range(5))
    )
    found = scperteval.sinkhorn_w2(x, y, scaling=0.95)
    testing.assert_allclose(found, np.sqrt(best), rtol=1e-2)
    # Padding is not read.
    padded = np.concatenate([x, np.full((3, 3), np.nan)])
    masked = scperteval.sinkhorn_w2(
      padded, y, x_mask=np.arange(8) < 5, scaling=0.95
    )
    testing.assert_allclose(masked, found, rtol=1e-9)


def test_padding_moves_no_distance(problem):
  found = evaluate(problem, 'sinkhorn_w2_top_k', top_k=72, precision='float64')
  x, y = cells(problem.predicted, 1), cells(problem.observed, 1)
  with jax.enable_x64(True):
    expected = scperteval.sinkhorn_w2(x, y)
  testing.assert_allclose(found['sinkhorn_w2_top_k'][1], expected, rtol=1e-9)


def test_edges():
  random = np.random.default_rng(0)
  values = random.normal(size=(9, 4))
  labels = ['p'] + ['q'] * 4 + ['c'] * 4
  problem = problem_lib.from_arrays(
    values, labels, values, labels, control='c', genes=tuple('wxyz')
  )
  found = evaluate(problem, 'energy_distance_pca_k', 'de_overlap_k', 'mse')
  assert np.isnan(found['energy_distance_pca_k'][0])  # One cell.
  assert np.isnan(found['de_overlap_k']).all()  # Fewer than 50 genes.
  alone = problem.choose(np.asarray([1]), ('',), (0,))
  found = evaluate(alone, 'wmse_exp2', 'pearson_pert', 'rank', 'mse_top_k')
  for name, value in found.items():
    assert np.isnan(value).all(), name


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'bandwidth': 'mean'}, "'pooled', 'observed'"),
    ({'top_k': 0}, 'top_k is 0'),
    ({'blur': 0.0}, 'blur is 0.0'),
  ],
)
def test_errors(problem, options, message):
  with pytest.raises(ValueError, match=message):
    evaluate(problem, 'mse', **options)
