"""Agreement of tables after cell-eval 0.8.2, and what the tables are made of.

Fixture A and its numbers come from cell-eval 0.8.2 with pdex 0.3.0.
"""

import functools

import closed_form
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy import testing
from scipy import stats

from pertjax.metrics.differential import agreement, calls
from pertjax.metrics.differential import table as de_lib

INF, NAN = np.inf, np.nan

# ----------------------------------------------------------------------------
# Fixture A.

# Columns: the conditions of the fixture without the control.
EXPECTED = """
overlap_at_N 0.82 0.8627451 0.8627451 0.96296296 0 0
overlap_at_50 0.82 0.86 0.88 0.92 0 0
overlap_at_100 0.82 0.8627451 0.8627451 0.96296296 0 0
overlap_at_200 0.82 0.8627451 0.8627451 0.96296296 0 0
overlap_at_500 0.82 0.8627451 0.8627451 0.96296296 0 0
precision_at_N 0.75862069 0.8627451 0.80357143 0.8852459 0 0
precision_at_50 0.82 0.86 0.88 0.92 0 0
precision_at_100 0.75862069 0.8627451 0.80357143 0.8852459 0 0
precision_at_200 0.75862069 0.8627451 0.80357143 0.8852459 0 0
precision_at_500 0.75862069 0.8627451 0.80357143 0.8852459 0 0
de_spearman_sig 0.666886 0.666886 0.666886 0.666886 0.666886 0.666886
de_direction_match 0.9 0.90196078 0.96078431 1 0.51020408 nan
de_spearman_lfc_sig 0.924994 0.94461538 0.90778281 0.51560892 -0.10142857 nan
de_sig_genes_recall 0.88 0.8627451 0.88235294 1 0 nan
de_nsig_counts_real 50 51 51 54 49 0
de_nsig_counts_pred 58 51 56 61 0 20
pr_auc 0.94520917 0.95715408 0.96515005 1 0.68055556 nan
roc_auc 0.84954545 0.8837535 0.90102708 1 0.5 nan
"""


def fixture_a(side):
  """Returns the table of the fixture's side (0 observed), without control."""
  values, condition = closed_form.coded(closed_form.fixture_a, side)
  table = de_lib.de(values, condition, num_conditions=7)
  return jax.tree.map(lambda x: x[1:], table)


def pad(x, shape, value=False):
  return np.pad(
    np.asarray(x),
    [(0, n - m) for n, m in zip(shape, x.shape)],
    constant_values=value,
  )


def columns(predicted, observed):
  """Pads with conditions and genes that are not there: compiled only once."""
  shape = 6, 72
  number = len(predicted.fdr)
  sides = [
    calls.Calls(
      *(pad(x, shape, NAN) for x in table[:3]),
      *(pad(x, shape) for x in table[3:]),
    )
    for table in (predicted, observed)
  ]
  found = agreement.cell_eval(*sides)
  return {name: np.asarray(x)[:number] for name, x in found.items()}


@functools.cache
def found_a():
  with jax.enable_x64(True):
    predicted, observed = (
      calls.make(t.fdr, t.log2_fold_change, p=t.p, dtype=jnp.float32)
      for t in (fixture_a(1), fixture_a(0))
    )
    return columns(predicted, observed)


@pytest.mark.parametrize('line', EXPECTED.strip().splitlines())
def test_fixture_a(line):
  name, *expected = line.split()
  testing.assert_allclose(
    found_a()[name], np.array(expected, float), rtol=0, atol=1e-6
  )


def test_fixture_a_has_every_column():
  names = [line.split()[0] for line in EXPECTED.strip().splitlines()]
  assert sorted(names) == sorted(found_a())


# ----------------------------------------------------------------------------
# Random tables against definitions written as loops.


def draw(seed=0, num_conditions=5, num_genes=40, *, ties=True):
  """Returns fdr, p and changes full of ties, infinite and missing genes."""
  rng = np.random.default_rng(seed)
  shape = num_conditions, num_genes
  fdr = rng.choice([0, 1e-12, 1e-3, 0.01, 0.05, 0.2, 1], shape)
  change = rng.integers(-4, 5, shape) / 2
  if not ties:
    fdr, change = rng.random(shape) ** 4, rng.normal(size=shape)
  change[rng.random(shape) < 0.05] = INF
  change[rng.random(shape) < 0.05] = -INF
  fdr[rng.random(shape) < 0.05] = NAN
  return fdr, np.minimum(fdr, 0.5) / 2, change


def pair(seed=0, **options):
  return tuple(
    calls.make(fdr, change, p=p)
    for fdr, p, change in (draw(2 * seed + i, **options) for i in range(2))
  )


def rows(*tables):
  """Yields the conditions of tables as NumPy arrays."""
  yield from zip(
    *(
      [calls.Calls(*x) for x in zip(*(np.asarray(field) for field in table))]
      for table in tables
    )
  )


def slow_top(row, k):
  genes = [g for g in range(len(row.fdr)) if row.significant[g]]
  return set(sorted(genes, key=lambda g: -abs(row.log2_fold_change[g]))[:k])


@pytest.mark.parametrize('seed', [0, 1, 2])
@pytest.mark.parametrize('k', [None, 1, 3, 500])
def test_overlap_and_precision_are_sets(seed, k):
  predicted, observed = pair(seed)
  for function, side in (
    (agreement.overlap_at_k, 1),
    (agreement.precision_at_k, 0),
  ):
    expected = []
    for both in rows(predicted, observed):
      number = both[side].significant.sum()
      number = number if k is None else min(k, number)
      shared = slow_top(both[0], number) & slow_top(both[1], number)
      expected.append(len(shared) / number if number else 0)
    testing.assert_allclose(
      function(predicted, observed, k=k), expected, rtol=1e-6
    )


def slow_auc(label, rate):
  """Area by pairs, and average precision threshold by threshold."""
  a, b = rate[label][:, None], rate[~label][None, :]
  roc = np.mean((a < b) + 0.5 * (a == b))
  precision, recall = 0, 0
  for t in np.unique(rate):
    called = rate <= t
    now = np.sum(label & called) / label.sum()
    precision += (now - recall) * label[called].mean()
    recall = now
  return precision, roc


@pytest.mark.parametrize('floor', agreement.FLOORS)
@pytest.mark.parametrize('seed', [0, 1, 2])
def test_areas(seed, floor):
  predicted, observed = pair(seed)
  found = agreement.auc(predicted, observed, floor=floor)
  for i, (p, o) in enumerate(rows(predicted, observed)):
    rate = np.where(p.present, p.fdr, 1)
    # 0 and 1e-12 are the two smallest rates drawn: both floors tie them.
    rate = np.where(rate < 1e-10, 1e-10, rate)[o.present]
    expected = slow_auc(o.significant[o.present], rate)
    testing.assert_allclose([x[i] for x in found], expected, rtol=1e-5)
  testing.assert_array_equal(
    agreement.pr_auc(predicted, observed, floor=floor), found[0]
  )
  testing.assert_array_equal(
    agreement.roc_auc(predicted, observed, floor=floor), found[1]
  )


def test_floors_differ_below_1e10():
  observed = calls.make(jnp.array([[0.01, 1, 1]]), jnp.ones((1, 3)))
  predicted = calls.make(jnp.array([[1e-20, 1e-30, 1]]), jnp.ones((1, 3)))
  clipped = agreement.roc_auc(predicted, observed)
  testing.assert_allclose(clipped, [0.75])
  kept = agreement.roc_auc(predicted, observed, floor='min_nonzero')
  testing.assert_allclose(kept, [0.5])


@pytest.mark.parametrize('seed', [0, 1])
def test_changes_of_significant_genes(seed):
  predicted, observed = pair(seed)
  match = agreement.direction_match(predicted, observed)
  model = agreement.model_direction_match(predicted, observed)
  recall = agreement.sig_genes_recall(predicted, observed)
  ranks = {
    sign: agreement.spearman_lfc_sig(predicted, observed, sign=sign)
    for sign in agreement.SIGNS
  }
  for i, (p, o) in enumerate(rows(predicted, observed)):
    a, b = p.log2_fold_change, o.log2_fold_change
    same = np.sign(a) == np.sign(b)
    asked = o.significant & p.present
    testing.assert_allclose(match[i], same[asked].mean(), rtol=1e-6)
    asked = p.significant & o.present
    testing.assert_allclose(model[i], same[asked].mean(), rtol=1e-6)
    both = p.significant & o.significant
    testing.assert_allclose(
      recall[i], both.sum() / o.significant.sum(), rtol=1e-6
    )
    a = np.where(p.present, a, 0)
    for sign, which in (
      ('all', o.significant),
      ('positive', o.significant & (b > 0)),
      ('negative', o.significant & (b < 0)),
    ):
      # Ranks first: scipy's own would subtract infinities.
      x, y = (stats.rankdata(v[which]) for v in (a, b))
      expected = np.corrcoef(x, y)[0, 1]
      testing.assert_allclose(ranks[sign][i], expected, rtol=1e-5, atol=1e-6)


def test_mid_ranks_are_scipys():
  rng = np.random.default_rng(3)
  x = rng.integers(0, 5, (4, 30)).astype(np.float32)
  x[0, :3], x[1, 5] = INF, -INF
  mask = rng.random(x.shape) < 0.7
  mask[3] = False
  found = calls.mid_ranks(x, mask=mask)
  for i in range(4):
    testing.assert_array_equal(found[i][mask[i]], stats.rankdata(x[i][mask[i]]))
    assert np.all(np.isnan(found[i][~mask[i]]))
  nan = calls.mid_ranks(jnp.array([[NAN, 1, NAN, INF]]))
  testing.assert_array_equal(nan, [[3.5, 1, 3.5, 2]])


# ----------------------------------------------------------------------------
# Edges.


def simple(significant, change, **options):
  fdr = jnp.where(jnp.array(significant, bool), 0.01, 0.5)
  return calls.make(fdr, jnp.array(change, float), **options)


def test_nothing_significant():
  change = [[1.0, -2, 3, 0]] * 2
  none, some = simple([[0] * 4] * 2, change), simple([[1, 1, 0, 0]] * 2, change)
  found = columns(some, none)
  for name, value in {
    'overlap_at_N': 0,
    'overlap_at_50': 0,
    'precision_at_N': 0,
    'de_nsig_counts_real': 0,
    'de_nsig_counts_pred': 2,
    'de_spearman_sig': 1,
    'de_direction_match': NAN,
    'de_spearman_lfc_sig': NAN,
    'de_sig_genes_recall': NAN,
    'pr_auc': NAN,
    'roc_auc': NAN,
  }.items():
    testing.assert_array_equal(found[name], [value] * 2, err_msg=name)
  found = columns(none, some)
  for name, value in {
    'overlap_at_N': 0,
    'precision_at_N': 0,
    'de_spearman_sig': NAN,
    'de_direction_match': 1,
    'de_spearman_lfc_sig': 1,
    'de_sig_genes_recall': 0,
    'pr_auc': 0.5,
    'roc_auc': 0.5,
  }.items():
    testing.assert_allclose(found[name], [value] * 2, 1e-6, err_msg=name)


def test_one_and_all_significant():
  change = [[1.0, -2, 3, 0], [1, -2, 3, 0]]
  table = simple([[1, 0, 0, 0], [1, 1, 1, 1]], change)
  found = columns(table, table)
  testing.assert_array_equal(found['de_spearman_sig'], [1, 1])
  testing.assert_array_equal(found['de_spearman_lfc_sig'], [NAN, 1])
  testing.assert_array_equal(found['roc_auc'], [1, NAN])
  testing.assert_array_equal(found['pr_auc'], [1, NAN])
  for name in ('overlap_at_N', 'precision_at_N', 'de_direction_match'):
    testing.assert_array_equal(found[name], [1, 1])


def test_panel_correlation_leaves_out_conditions_without_signal():
  genes = np.arange(8)
  change = np.ones((4, 8))
  observed = simple(genes < np.array([[0], [2], [4], [6]]), change)
  predicted = simple(genes < np.array([[8], [1], [3], [2]]), change)
  found = agreement.spearman_sig(predicted, observed)
  testing.assert_allclose(found, 0.5, rtol=1e-6)


def test_ties_first_and_expected():
  # Six genes of one change, three of them asked for: half of each is expected.
  observed = simple([[1, 1, 1, 0, 0, 0]], [[1.0] * 6])
  predicted = simple([[1] * 6], [[2.0] * 6])
  first = agreement.overlap_at_k(predicted, observed)
  testing.assert_allclose(first, [1])
  expected = agreement.overlap_at_k(predicted, observed, ties='expected')
  testing.assert_allclose(expected, [0.5])
  tables = pair(4, ties=False)
  tables = [
    t._replace(log2_fold_change=jnp.clip(t.log2_fold_change, -9, 9))
    for t in tables
  ]
  for k in (None, 5):
    testing.assert_allclose(
      agreement.precision_at_k(*tables, k=k),
      agreement.precision_at_k(*tables, k=k, ties='expected'),
      rtol=1e-6,
    )


def test_expected_is_the_mean_over_orders():
  predicted, observed = pair(5)
  rng = np.random.default_rng(0)
  total = 0
  for _ in range(400):
    sides = []
    for t in (predicted, observed):
      jitter = 1 + 1e-4 * rng.random(t.fdr.shape)
      change = np.clip(t.log2_fold_change, -9, 9)
      sides.append(t._replace(log2_fold_change=change * jitter))
    total += agreement.overlap_at_k(*sides, k=4)
  sides = [
    t._replace(log2_fold_change=jnp.clip(t.log2_fold_change, -9, 9))
    for t in (predicted, observed)
  ]
  expected = agreement.overlap_at_k(*sides, k=4, ties='expected')
  testing.assert_allclose(total / 400, expected, atol=0.05)


def test_undefined_changes():
  change = [[NAN, INF, 1, -INF, 0.5]]
  kept = simple([[1] * 5], change)
  assert calls.num_significant(kept)[0] == 5
  testing.assert_array_equal(calls.places(kept).ordinal, [[0, 1, 3, 2, 4]])
  testing.assert_array_equal(agreement.direction_match(kept, kept), [1])
  masked = simple([[1] * 5], change, undefined='mask')
  testing.assert_array_equal(masked.significant[0], [0, 1, 1, 1, 1])
  testing.assert_array_equal(masked.fdr[0, 0], 1)
  assert masked.present[0, 0]
  large = simple([[1] * 5], change, min_change=1.0)
  testing.assert_array_equal(large.significant[0], [1, 1, 1, 1, 0])


def test_missing_genes():
  fdr = np.array([[0.01, 0.01, NAN, 0.3]], np.float32)
  table = calls.make(fdr, np.array([[1, -1, 2, 3]], np.float32))
  testing.assert_array_equal(table.present, [[1, 1, 0, 1]])
  testing.assert_array_equal(table.significant, [[1, 1, 0, 0]])
  full = simple([[1, 1, 1, 0]], [[1, 1, 2, 3]])
  # Not in the predicted table: not asked, change 0, rate 1.
  testing.assert_array_equal(agreement.direction_match(table, full), [0.5])
  found = agreement.sig_genes_recall(table, full)
  testing.assert_allclose(found, [2 / 3], rtol=1e-6)
  found = agreement.roc_auc(table, full)
  testing.assert_allclose(found, [2 / 3], rtol=1e-6)
  # Not in the observed one: neither a label nor called.
  testing.assert_array_equal(agreement.roc_auc(full, table), [1])


def test_masks_drop_genes():
  fdr, p, change = draw(7)
  mask = np.random.default_rng(1).random(fdr.shape) < 0.6
  other = pair(3)[1]
  for which in (mask, mask[0]):
    masked = calls.make(fdr, change, p=p, mask=which)
    missing = calls.make(np.where(which, fdr, NAN), change, p=p)
    jax.tree.map(testing.assert_array_equal, masked, missing)
    again = calls.without(calls.make(fdr, change, p=p), ~which)
    jax.tree.map(testing.assert_array_equal, masked, again)
  kept = calls.make(fdr[:, mask[0]], change[:, mask[0]])
  other_kept = jax.tree.map(lambda x: x[:, mask[0]], other)
  other = calls.without(other, ~mask[0])
  found = columns(masked, other)
  expected = columns(kept, other_kept)
  for name in found:
    testing.assert_allclose(found[name], expected[name], 1e-6, err_msg=name)


def test_order_of_genes_changes_nothing():
  tables = pair(6, ties=False)
  shuffled = np.random.default_rng(0).permutation(40)
  moved = [jax.tree.map(lambda x: x[:, shuffled], t) for t in tables]
  found, expected = columns(*moved), columns(*tables)
  for name in found:
    if name.startswith(('overlap', 'precision')):
      continue  # infinite changes tie.
    testing.assert_allclose(found[name], expected[name], 1e-5, err_msg=name)


def test_perfect_prediction():
  table = pair(8)[0]
  found = columns(table, table)
  for name, value in found.items():
    if 'nsig' not in name:
      testing.assert_allclose(value, 1, rtol=1e-6, err_msg=name)


def test_jit_and_vmap():
  tables = [pair(i) for i in (9, 10)]
  stacked = jax.tree.map(lambda *x: jnp.stack(x), *tables)
  found = jax.jit(jax.vmap(agreement.cell_eval))(*stacked)
  for i, both in enumerate(tables):
    expected = columns(*both)
    for name in found:
      testing.assert_allclose(found[name][i], expected[name], 1e-6)


def test_types():
  fdr, p, change = draw(0)
  with jax.enable_x64(True):
    wide = calls.make(fdr, change, p=p)
    assert wide.fdr.dtype == jnp.float64
    assert agreement.pr_auc(wide, wide).dtype == jnp.float64
    rounded = calls.make(fdr, change, dtype=jnp.float32)
    assert rounded.log2_fold_change.dtype == jnp.float32
    # 0.05 in float32 is not below 0.05, as in the tool.
    edge = calls.make(jnp.full((1, 1), 0.05), change[:1, :1], dtype=jnp.float32)
    assert not edge.significant[0, 0]
  assert calls.make(fdr, change).fdr.dtype == jnp.float32


@pytest.mark.parametrize(
  ('function', 'message'),
  [
    (lambda a, b: agreement.overlap_at_k(a, b, k=0), 'k is 0'),
    (lambda a, b: agreement.overlap_at_k(a, b, ties='frist'), "'first'"),
    (lambda a, b: agreement.pr_auc(a, b, floor='none'), 'floor'),
    (lambda a, b: agreement.spearman_lfc_sig(a, b, sign='up'), 'sign'),
    (lambda a, b: calls.make(a.fdr, b.fdr[:1]), r'\(5, 40\), \(1, 40\)'),
    (lambda a, b: calls.make(a.fdr, a.fdr, undefined='no'), 'undefined'),
    (lambda a, b: calls.make(a.fdr, a.fdr, mask=np.ones(3, bool)), 'mask'),
    (
      lambda a, b: agreement.roc_auc(a, jax.tree.map(lambda x: x[:2], b)),
      r'\(2, 40\)',
    ),
  ],
)
def test_errors_say_what_is_wrong(function, message):
  with pytest.raises(ValueError, match=message):
    function(*pair(0))
