"""Directions and sets of two tables against definitions written as loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy import testing

from pertjax.metrics.differential import (
  agreement,
  calls,
  direction,
  membership,
)

INF, NAN = np.inf, np.nan


@pytest.fixture(autouse=True)
def _wide():
  """Everything here in float64, as the tool."""
  with jax.enable_x64(True):
    yield


def draw(seed, num_conditions=6, num_genes=60):
  rng = np.random.default_rng(seed)
  shape = num_conditions, num_genes
  p = rng.choice([0, 1e-9, 1e-4, 0.01, 0.02, 0.04, 0.3], shape)
  fdr = np.where(p > 0.01, np.maximum(p, 0.04), p)
  change = rng.integers(-3, 6, shape) / 2
  change[rng.random(shape) < 0.05] = INF
  change[rng.random(shape) < 0.05] = -INF
  change[rng.random(shape) < 0.05] = NAN
  fdr[rng.random(shape) < 0.05] = NAN
  return fdr, p, change


def pair(seed, *, like=0.0):
  """Returns two sides; a share of the second's changes is the first's."""
  observed, predicted = draw(2 * seed), draw(2 * seed + 1)
  rng = np.random.default_rng(seed)
  copied = rng.random(observed[2].shape) < like
  change = np.where(copied, observed[2], predicted[2])
  return tuple(
    calls.make(fdr, change, p=p, undefined='mask')
    for fdr, p, change in ((*predicted[:2], change), observed)
  )


def simple(significant, change):
  fdr = jnp.where(jnp.array(significant, bool), 0.01, 0.5)
  return calls.make(fdr, jnp.array(change, float), undefined='mask')


# ----------------------------------------------------------------------------
# Definitions.


def rows(*tables):
  """Yields the conditions of tables as NumPy arrays."""
  yield from zip(
    *(
      [calls.Calls(*x) for x in zip(*(np.asarray(field) for field in table))]
      for table in tables
    )
  )


def slow_depth(p, o, purity, universe):
  """Walks down the predicted order of one condition."""
  genes = [
    g
    for g in range(len(p.fdr))
    if p.present[g] and o.present[g] and (universe == 'all' or o.significant[g])
  ]
  size = np.where(
    np.isnan(p.log2_fold_change), -INF, np.abs(p.log2_fold_change)
  )
  genes.sort(key=lambda g: (p.fdr[g], p.p[g], -size[g], g))
  seen = right = deepest = 0
  for g in genes:
    a, b = p.log2_fold_change[g], o.log2_fold_change[g]
    if np.isnan(b) or b == 0:
      continue
    seen += 1
    right += np.sign(a) == np.sign(b)
    if right / seen >= purity - 1e-12:
      deepest = seen
  return deepest / o.significant.sum()


@pytest.mark.parametrize('universe', direction.UNIVERSES)
@pytest.mark.parametrize('like', [0.6, 0.97])
def test_depths(universe, like):
  sides, options = pair(1, like=like), {'universe': universe}
  found = [
    direction.direction_sensitivity(*sides, **options),
    direction.direction_reach_raw(*sides, **options),
    direction.direction_reach(*sides, **options),
  ]
  q = direction.components(*sides).q
  for i, (p, o) in enumerate(rows(*sides)):
    purities = 0.975, 0.9, q[i] + 0.95 * (1 - q[i])
    expected = [slow_depth(p, o, purity, universe) for purity in purities]
    testing.assert_allclose([x[i] for x in found], expected, rtol=1e-12)


def test_depth_recovers_and_equality_is_enough():
  # A miss first: nine matches more make 9 of 10.
  observed = simple([[1] * 10], [[1.0] * 10])
  predicted = simple([[1] * 10], [[-9.0] + [1.0] * 9])
  found = direction.direction_reach_raw(predicted, observed)
  testing.assert_array_equal(found, [1])
  found = direction.direction_reach_raw(predicted, observed, purity=0.91)
  testing.assert_array_equal(found, [0])


def test_order_and_its_ties():
  fdr = np.array([[0.2, 0.01, 0.01, NAN, 0.01, 0.01]])
  p = np.array([[0.0, 0.2, 0.1, 0, 0.1, 0.1]])
  change = np.array([[9.0, 9, 1, 9, -2, 2]])
  table = calls.make(fdr, change, p=p)
  found = direction.significance_order(table)
  testing.assert_array_equal(found, [[4, 5, 2, 1, 0, 3]])
  found = direction.significance_order(table, tie_order=np.arange(6)[::-1])
  testing.assert_array_equal(found, [[5, 4, 2, 1, 0, 3]])


def slow_fidelities(p, o):
  truth, change = o.log2_fold_change, p.log2_fold_change
  judged = p.present & o.present & ~np.isnan(truth) & (truth != 0)
  match = judged & (np.sign(change) == np.sign(truth))
  n_conf = o.significant.sum()
  n_pred, k = (p.significant & judged).sum(), (p.significant & match).sum()
  votes = np.sign(truth[o.significant & (truth != 0)])
  q = max(np.mean(votes > 0), np.mean(votes < 0))
  d = max(1 - q, 0.05)
  fidelity = (k / n_pred - q) / d
  return {
    'direction_fidelity_raw': k / n_pred,
    'direction_fidelity': fidelity,
    'direction_coverage': n_pred / n_conf,
    'direction_yield_raw': k / n_conf,
    'direction_yield': fidelity * n_pred / n_conf,
    'direction_fidelity_yield_raw': k / max(n_pred, n_conf),
    'direction_fidelity_yield': fidelity * min(1, n_pred / n_conf),
    'direction_precision': k / n_pred,
  }


def slow_sets(p, o):
  both = p.significant & o.significant
  a, b = o.significant, p.significant
  asked = p.present | o.present
  n = np.corrcoef(a[asked], b[asked])[0, 1]
  finite = a & np.isfinite(o.log2_fold_change)
  change = np.where(
    np.isfinite(p.log2_fold_change) & p.present, p.log2_fold_change, 0
  )
  error = np.abs(change - o.log2_fold_change)[finite].mean()
  return {
    'sig_jaccard': both.sum() / (a | b).sum(),
    'sig_mcc': n,
    'informedness': b[a].mean() - b[asked & ~a].mean(),
    'markedness': a[b].mean() - a[asked & ~b].mean(),
    'lfc_nmae': error / np.abs(o.log2_fold_change[finite]).mean(),
  }


@pytest.mark.parametrize('seed', [2, 3])
def test_fidelities_and_sets(seed):
  predicted, observed = pair(seed, like=0.5)
  for module, slow in (
    (direction, slow_fidelities),
    (membership, slow_sets),
  ):
    expected = [slow(p, o) for p, o in rows(predicted, observed)]
    for name in expected[0]:
      found = getattr(module, name)(predicted, observed)
      testing.assert_allclose(
        found, [x[name] for x in expected], 1e-6, 1e-12, err_msg=name
      )


def test_overlap_adjusted_takes_the_largest_changes():
  observed = simple([[1, 1, 0, 0, 0, 0]], [[1.0] * 6])
  predicted = simple([[1, 1, 1, 1, 0, 0]], [[1.0, -5, 4, 1, 9, 9]])
  # Genes 1 and 2 of {0, 1}: 1 of 2 inside, 1 of 4 outside.
  found = membership.overlap_adjusted(predicted, observed)
  testing.assert_allclose(found, [0.25], rtol=1e-6)
  testing.assert_allclose(membership.sig_mcc(predicted, observed), [0.5])


def test_float32_is_close():
  wide = pair(10, like=0.8)
  narrow = jax.tree.map(
    lambda x: x if x.dtype == bool else x.astype(jnp.float32), wide
  )
  for function in (
    direction.direction_reach,
    direction.direction_reach_raw,
    direction.direction_fidelity_yield,
    membership.sig_mcc,
    membership.lfc_nmae,
    agreement.spearman_lfc_sig,
    agreement.roc_auc,
  ):
    found = function(*narrow)
    assert found.dtype == jnp.float32
    testing.assert_allclose(found, function(*wide), 1e-5, 1e-6)


def test_errors_say_what_is_wrong():
  predicted, observed = pair(0)
  with pytest.raises(ValueError, match="'adjudicated'"):
    direction.direction_reach(predicted, observed, universe='adjudicate')
  short = jax.tree.map(lambda x: x[:2], predicted)
  for function in (
    direction.direction_fidelity,
    membership.sig_jaccard,
    agreement.model_direction_match,
  ):
    with pytest.raises(ValueError, match=r'\(2, 60\)'):
      function(short, observed)
