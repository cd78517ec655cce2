"""Directions, sets and gates after cell-eval2 0.20.

Fixture B and its numbers come from cell-eval2 0.20.0, preset 'v2', with the
tests of pdex 0.3.0.
"""

import functools

import closed_form
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy import testing

from pertjax.metrics.differential import calls, cell_eval2, membership
from pertjax.metrics.differential import table as de_lib

INF, NAN = np.inf, np.nan


@pytest.fixture(autouse=True)
def _wide():
  """Everything here in float64, as the tool."""
  with jax.enable_x64(True):
    yield


# ----------------------------------------------------------------------------
# Fixture B.

OWN = np.array([3, 7, 11, 16, 20, 25])[:, None] == np.arange(72)

# Columns: the conditions of the fixture without the control, and the panel.
EXPECTED = """
direction_coverage
  0.63636364 0.69047619 0.78571429 0.50980392 0 nan 0.52447161
direction_fidelity
  1 1 1 1 nan 1 1
direction_fidelity_raw
  1 1 1 1 nan nan 1
direction_fidelity_yield
  0.63636364 0.69047619 0.78571429 0.50980392 0 1 0.60372634
direction_fidelity_yield_raw
  0.63636364 0.69047619 0.78571429 0.50980392 0 nan 0.52447161
direction_match
  0.95454545 0.97674419 0.97674419 0.94230769 0.51162791 nan 0.87239389
direction_precision
  1 1 1 1 0 0 0.66666667
direction_reach
  0.97727273 1 1 0.78431373 0.023809524 nan 0.7570792
direction_reach_raw
  1 1 1 1 0.023809524 nan 0.8047619
direction_reach_unbounded
  0.90909091 1.0238095 1.1666667 0.76470588 0 nan 0.7728546
direction_reach_unbounded_raw
  1.2045455 1.2142857 1.6904762 1.2745098 0 nan 1.0767634
direction_sensitivity
  0.97727273 1 1 0.94230769 0.023255814 nan 0.78856725
direction_sensitivity_universe
  0.90909091 1.0232558 1.1627907 0.98076923 0 nan 0.81518133
direction_yield
  0.63636364 0.69047619 0.78571429 0.50980392 0 nan 0.52447161
direction_yield_raw
  0.63636364 0.69047619 0.78571429 0.50980392 0 nan 0.52447161
lfc_nmae
  0.52186957 0.7815619 0.58132392 0.90531735 0.99497088 nan 0.75700873
lfc_spearman
  0.9726568 0.93823618 0.95212927 0.90685563 0.17381456 nan 0.78873849
lfc_spearman_neg
  0.90965556 0.80914737 0.7526821 0.83387097 0.25413534 nan 0.71189827
lfc_spearman_pos
  0.88142292 0.70649351 0.87272727 0.19220779 0.13932806 nan 0.55843591
model_direction_match
  1 1 1 1 0 0 0.66666667
nsig_counts_pred
  28 30 34 27 0 0 19.833333
nsig_counts_real
  44 43 43 52 43 0 37.5
nsig_spearman
  nan nan nan nan nan nan nan
overlap
  0.63636364 0.6744186 0.79069767 0.51923077 0 0 0.43678511
overlap_adjusted
  0.63636364 0.63662603 0.77680575 0.48038446 -1 nan 0.30603598
overlap_top100
  0.63636364 0.6744186 0.79069767 0.51923077 0 0 0.43678511
overlap_top200
  0.63636364 0.6744186 0.79069767 0.51923077 0 0 0.43678511
overlap_top50
  0.63636364 0.6744186 0.79069767 0.54 0 0 0.44024665
overlap_top500
  0.63636364 0.6744186 0.79069767 0.51923077 0 0 0.43678511
pr_auc
  0.94789562 0.96020607 0.96810698 0.92341186 0.5999354 nan 0.87991119
precision
  0.85714286 0.73333333 0.88235294 0.59259259 0 0 0.51090362
precision_adjusted
  0.63636364 0.63333333 0.76315789 0.44444444 -1 -1 0.079549885
precision_top100
  0.85714286 0.73333333 0.88235294 0.59259259 0 0 0.51090362
precision_top200
  0.85714286 0.73333333 0.88235294 0.59259259 0 0 0.51090362
precision_top50
  0.85714286 0.73333333 0.88235294 0.59259259 0 0 0.51090362
precision_top500
  0.85714286 0.73333333 0.88235294 0.59259259 0 0 0.51090362
roc_auc
  0.89772727 0.92782678 0.93785084 0.78605769 0.50561347 nan 0.81101521
sig_jaccard
  0.63636364 0.65116279 0.78571429 0.50980392 0 1 0.59717411
sig_mcc
  0.63636364 0.63662603 0.77680575 0.48038446 -1 nan 0.30603598
sig_recall
  0.63636364 0.6744186 0.79069767 0.51923077 0 nan 0.52414214
sig_recall_adjusted
  0.63636364 0.63993585 0.79069767 0.51923077 0 nan 0.51724559
"""


def cells(side):
  """Returns the fixture's counts and conditions (side 0 observed)."""
  return closed_form.coded(closed_form.fixture_b, side)


def fixture_b(side):
  """Returns the calls of a side, against the observed control on both."""
  values, condition = cells(side)
  control, _ = cells(0)
  values[condition == 0] = control[condition == 0]
  values *= 1e6 / values.sum(axis=1, keepdims=True)
  found = de_lib.de(
    values,
    condition,
    num_conditions=7,
    mean='arithmetic',
    pseudocount=1e-9,
    gene_mask=values[condition == 0].mean(axis=0) > 5,
  )
  found = jax.tree.map(lambda x: x[1:], found)
  return calls.make(
    found.fdr, found.log2_fold_change, p=found.p, undefined='mask'
  )


def pad(x, shape, value=False):
  return np.pad(
    np.asarray(x),
    [(0, n - m) for n, m in zip(shape, x.shape)],
    constant_values=value,
  )


def columns(predicted, observed, *, own=None, min_genes=10):
  """Pads with conditions and genes that are not there: compiled only once."""
  shape = 12, 72
  number = len(predicted.fdr)
  own = np.zeros_like(predicted.present) if own is None else own
  sides = [
    calls.Calls(
      *(pad(x, shape, NAN) for x in table[:3]),
      *(pad(x, shape) for x in table[3:]),
    )
    for table in (predicted, observed)
  ]
  found = cell_eval2.cell_eval2(
    *sides, own=pad(own, shape), min_genes=min_genes
  )
  return {name: np.asarray(x)[:number] for name, x in found.items()}


@functools.cache
def found_b():
  return columns(fixture_b(1), fixture_b(0), own=OWN)


def expected_b():
  lines = EXPECTED.strip().splitlines()
  return dict(zip(lines[::2], lines[1::2]))


def test_fixture_b_is_built_as_recorded():
  real, predicted = cells(0)[0], cells(1)[0]
  assert (real.sum(), predicted.sum()) == (168256, 169134)
  assert (np.sum(real == 0), np.sum(predicted == 0)) == (950, 802)


@pytest.mark.parametrize('name', expected_b())
def test_fixture_b(name):
  *expected, mean = (float(x) for x in expected_b()[name].split())
  found = found_b()[name]
  testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
  counted = found[~np.isnan(found)]
  average = counted.mean() if counted.size else NAN
  testing.assert_allclose(average, mean, rtol=0, atol=1e-6)


def test_fixture_b_has_every_column():
  assert sorted(found_b()) == sorted(expected_b())


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
# Edges.


def assert_columns(found, expected):
  for name, value in expected.items():
    testing.assert_allclose(found[name], value, rtol=1e-6, err_msg=name)


def test_nothing_significant():
  change = [np.arange(1.0, 31)]
  none, some = simple([[0] * 30], change), simple([[1] * 12 + [0] * 18], change)
  nothing = {
    'direction_fidelity_raw': NAN,
    'direction_fidelity_yield_raw': NAN,
    'direction_coverage': NAN,
    'direction_yield': NAN,
    'direction_reach': NAN,
    'direction_reach_raw': NAN,
    'lfc_nmae': NAN,
    'sig_recall': NAN,
    'sig_mcc': NAN,
    'pr_auc': NAN,
    'nsig_spearman': NAN,
    'direction_precision': 0,
    'precision_adjusted': -1,
  }
  assert_columns(
    columns(none, none),
    nothing
    | {
      'sig_jaccard': 1,
      'direction_fidelity': 1,
      'direction_fidelity_yield': 1,
    },
  )
  assert_columns(
    columns(some, none),
    nothing
    | {
      'sig_jaccard': 0,
      'direction_fidelity': 0,
      'direction_fidelity_raw': 1,
      'direction_fidelity_yield': 0,
      'direction_fidelity_yield_raw': 1,
      'direction_precision': 1,
      'precision_adjusted': 0,
    },
  )
  assert_columns(
    columns(none, some),
    {
      'direction_fidelity': NAN,
      'direction_fidelity_raw': NAN,
      'direction_fidelity_yield': 0,
      'direction_fidelity_yield_raw': 0,
      'direction_coverage': 0,
      'direction_yield': 0,
      'direction_reach_raw': 1,
      'direction_precision': 0,
      'model_direction_match': 0,
      'lfc_nmae': 0,
      'sig_recall': 0,
      'sig_recall_adjusted': 0,
      'precision_adjusted': -1,
      'sig_mcc': -1,
      'overlap_adjusted': -1,
      'sig_jaccard': 0,
      'roc_auc': 0.5,
    },
  )


def test_all_significant():
  table = simple([[1] * 20], [np.arange(-7.0, 13) + 0.5])
  assert_columns(
    columns(table, table),
    {
      'pr_auc': NAN,
      'roc_auc': NAN,
      'sig_mcc': NAN,
      'sig_recall_adjusted': NAN,
      'precision_adjusted': -1,
      'sig_recall': 1,
      'sig_jaccard': 1,
      'lfc_spearman': 1,
      'lfc_spearman_pos': 1,
      'lfc_spearman_neg': NAN,  # seven genes only.
      'lfc_nmae': 0,
      'direction_reach': 1,
      'direction_fidelity': 1,
    },
  )
  assert membership.sig_mcc(table, table)[0] == -1


def test_predictions_that_say_nothing():
  observed = simple([[1] * 12 + [0] * 8], [np.arange(1.0, 21)])
  for change in (0.0, INF, NAN):
    predicted = simple([[0] * 20], [[change] * 20])
    found = columns(predicted, observed)
    assert_columns(found, {'lfc_nmae': 1, 'lfc_spearman': -1})
    assert found['direction_match'] == (change == INF)
    assert found['direction_reach_raw'] == (change == INF)


def test_directions_that_do_not_exist():
  # Observed: only genes without a direction are significant.
  observed = simple([[1] * 3 + [0] * 17], [[0.0] * 3 + [1] * 17])
  predicted = simple([[1] * 20], [[1.0] * 20])
  assert_columns(
    columns(predicted, observed),
    {
      'direction_fidelity': NAN,
      'direction_fidelity_yield': NAN,
      'direction_fidelity_raw': 1,
      'direction_yield': NAN,
      'direction_reach': NAN,
      'direction_reach_raw': 0,
      'direction_yield_raw': 17 / 3,
      'direction_reach_unbounded_raw': 17 / 3,
    },
  )


def test_infinite_changes_have_a_direction_but_no_size():
  change = [[INF, -INF] + [1.0] * 11]
  observed = simple([[1] * 13], change)
  predicted = simple([[1] * 13], [[INF, INF] + [2.0] * 11])
  assert_columns(
    columns(predicted, observed),
    {'direction_fidelity_raw': 12 / 13, 'lfc_nmae': 1},
  )
  few = columns(predicted, observed, min_genes=12)
  assert np.isnan(few['lfc_nmae'][0])
  assert not np.isnan(few['sig_recall'][0])


def test_own_genes_leave_some_columns_only():
  significant = [[1] * 9 + [0] * 11]
  others = [1.0] * 5 + [-1.0] * 3 + [1.0] * 11
  observed = simple(significant, [[-9.0, *others]])
  predicted = simple(significant, [[9.0, *others]])
  own = np.arange(20)[None, :] == 0
  with_own = columns(predicted, observed, min_genes=5)
  found = columns(predicted, observed, own=own, min_genes=5)
  changed = {
    name
    for name in found
    if not np.array_equal(found[name], with_own[name], equal_nan=True)
  }
  assert changed == {
    'direction_fidelity',
    'direction_fidelity_raw',
    'direction_fidelity_yield',
    'direction_fidelity_yield_raw',
    'direction_yield',
    'direction_yield_raw',
    'direction_reach',
    'direction_reach_raw',
    'direction_reach_unbounded',
    'direction_reach_unbounded_raw',
    'lfc_nmae',
  }
  assert found['direction_precision'][0] == pytest.approx(8 / 9)
  assert found['lfc_nmae'][0] == 0


def test_panel_gate():
  number = np.arange(3, 15)[:, None]
  change = np.ones((12, 20))
  observed = simple(np.arange(20) < number, change)
  predicted = simple(np.arange(20) < number[::-1], change)
  found = columns(predicted, observed)['nsig_spearman']
  testing.assert_allclose(found, np.full(12, -1.0), rtol=1e-6)
  flat = simple(np.arange(20) < np.full((12, 1), 4), change)
  found = columns(flat, observed)['nsig_spearman']
  testing.assert_array_equal(found, np.full(12, -1.0))
  found = columns(observed, flat)['nsig_spearman']
  assert np.all(np.isnan(found))
  few = [jax.tree.map(lambda x: x[:9], t) for t in (predicted, observed)]
  assert not cell_eval2.panel(few[1])


def test_gates_read_the_observed_side_only():
  observed = pair(4)[1]
  nan = []
  for seed in (5, 6):
    predicted = pair(seed)[0]
    found = columns(predicted, observed, min_genes=18)
    nan.append({name: np.isnan(x).tolist() for name, x in found.items()})
  assert nan[0] == nan[1]
  assert any(any(x) and not all(x) for x in nan[0].values())


def test_perfect_prediction():
  table = pair(7)[1]
  found = columns(table, table)
  skipped = 'nsig', 'unbounded', 'universe', 'coverage', 'yield'
  for name, value in found.items():
    if name == 'lfc_nmae':
      testing.assert_array_equal(value, 0)
    elif not any(word in name for word in skipped):
      # A change of 0 has no direction, and no prediction can match it.
      low = 0.6 if 'reach' in name or 'sensitivity' in name else 1 - 1e-6
      assert np.all((value >= low) & (value <= 1 + 1e-6)), name


def test_jit_and_vmap():
  tables = [pair(i) for i in (8, 9)]
  stacked = jax.tree.map(lambda *x: jnp.stack(x), *tables)
  found = jax.jit(jax.vmap(cell_eval2.cell_eval2))(*stacked)
  for i, both in enumerate(tables):
    expected = columns(*both)
    assert_columns({name: x[i] for name, x in found.items()}, expected)
