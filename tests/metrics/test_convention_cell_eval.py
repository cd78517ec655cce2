# ruff: noqa: E501, tables of other tools.
"""cell-eval 0.8.2: its values on fixture A, and what happens at the edges."""

import closed_form
import jax
import numpy as np
import pytest
from numpy import testing

from pertjax.metrics import clustering, summary, tested
from pertjax.metrics import problem as problem_lib
from pertjax.metrics.conventions import base, cell_eval

NAN = float('nan')
CONVENTION = base.get('cell-eval')
CHEAP = (
  'pearson_delta', 'mse', 'mae', 'mse_delta', 'mae_delta',
  'discrimination_score_l1', 'discrimination_score_l2',
  'discrimination_score_cosine',
)  # fmt: skip
PANELS = ('de_spearman_sig', 'pearson_edistance', 'clustering_agreement')

# cell-eval 0.8.2 with pdex 0.3.0: DRUGX, G03, G07, G11, G16, NULLP.
# fmt: off
EXPECTED = {
  'overlap_at_N': (0, 0.82, 0.862745098, 0.862745098, 0.962962963, 0),
  'overlap_at_50': (0, 0.82, 0.86, 0.88, 0.92, 0),
  'overlap_at_100': (0, 0.82, 0.862745098, 0.862745098, 0.962962963, 0),
  'overlap_at_200': (0, 0.82, 0.862745098, 0.862745098, 0.962962963, 0),
  'overlap_at_500': (0, 0.82, 0.862745098, 0.862745098, 0.962962963, 0),
  'precision_at_N': (0, 0.75862069, 0.862745098, 0.803571429, 0.885245902, 0),
  'precision_at_50': (0, 0.82, 0.86, 0.88, 0.92, 0),
  'precision_at_100': (0, 0.75862069, 0.862745098, 0.803571429, 0.885245902, 0),
  'precision_at_200': (0, 0.75862069, 0.862745098, 0.803571429, 0.885245902, 0),
  'precision_at_500': (0, 0.75862069, 0.862745098, 0.803571429, 0.885245902, 0),
  'de_spearman_sig': (0.666885929, 0.666885929, 0.666885929, 0.666885929, 0.666885929, 0.666885929),
  'de_direction_match': (0.510204082, 0.9, 0.901960784, 0.960784314, 1, NAN),
  'de_spearman_lfc_sig': (-0.101428571, 0.924993998, 0.944615385, 0.907782805, 0.515608919, NAN),
  'de_sig_genes_recall': (0, 0.88, 0.862745098, 0.882352941, 1, NAN),
  'de_nsig_counts_real': (49, 50, 51, 51, 54, 0),
  'de_nsig_counts_pred': (0, 58, 51, 56, 61, 20),
  'pr_auc': (0.680555556, 0.94520917, 0.957154081, 0.965150049, 1, NAN),
  'roc_auc': (0.5, 0.849545455, 0.883753501, 0.901027077, 1, NAN),
  'pearson_delta': (-0.077540588, 0.891604374, 0.897825493, 0.913780475, 0.811157373, 0.081588788),
  'mse': (0.177645761, 0.044198884, 0.053091683, 0.047199879, 0.111358601, 0.018788585),
  'mae': (0.314908009, 0.174669087, 0.176587121, 0.177408202, 0.295533009, 0.110235945),
  'mse_delta': (0.188536268, 0.048722183, 0.049812607, 0.045291234, 0.118994209, 0.031397516),
  'mae_delta': (0.323350068, 0.184989804, 0.168690015, 0.173835743, 0.296525072, 0.139927048),
  'discrimination_score_l1': (0.833333333, 1, 1, 1, 1, 1),
  'discrimination_score_l2': (0.833333333, 1, 1, 1, 1, 1),
  'discrimination_score_cosine': (0.333333333, 1, 1, 1, 1, 0.5),
  'pearson_edistance': (0.888273057, 0.888273057, 0.888273057, 0.888273057, 0.888273057, 0.888273057),
  'clustering_agreement': (1, 1, 1, 1, 1, 1),
}
# fmt: on


@pytest.fixture(scope='module')
def values():
  return base.evaluate(CONVENTION, closed_form.problem_a())


def rows(found, number=6):
  """Returns a column as the tool writes it, a panel in every condition."""
  if isinstance(found, base.Panel):
    return np.full(number, found.value)
  return found


def from_cells(observed, predicted, **options):
  """Makes a problem of two lists of (name, cells)."""
  made = []
  for groups in (observed, predicted):
    made.append(np.concatenate([cells for _, cells in groups]))
    made.append([name for name, cells in groups for _ in cells])
  genes = [f'G{g:02d}' for g in range(made[0].shape[1])]
  return problem_lib.from_arrays(*made, control='ctrl', genes=genes, **options)


def sides_of_a():
  """Returns the cells of fixture A, {name: cells} of both sides."""
  found = []
  for side in ('observed', 'predicted'):
    cells, names = closed_form.fixture_a(side)
    names = np.asarray(names)
    found.append({n: cells[names == n] for n in closed_form.GROUPS_A})
  return found


def evaluate(problem, names, **options):
  return base.evaluate(CONVENTION, problem, wanted=names, options=options)


@pytest.mark.parametrize('name', EXPECTED)
def test_fixture_a(values, name):
  if name == 'clustering_agreement' and not clustering.available():
    pytest.skip('igraph is not installed')
  testing.assert_allclose(rows(values[name]), EXPECTED[name], rtol=0, atol=1e-6)


def test_every_column_is_there_in_order(values):
  assert len(EXPECTED) == 28
  assert list(values) == [c.name for c in CONVENTION.columns]
  assert set(values) == set(EXPECTED)
  scopes = {c.name for c in CONVENTION.columns if c.scope == 'panel'}
  assert scopes == set(PANELS)
  assert {n for n, v in values.items() if isinstance(v, base.Panel)} == scopes


def test_conditions_without_value_leave_the_mean(values):
  lines = summary.lines(
    CONVENTION,
    closed_form.problem_a(),
    wanted=['pr_auc', 'de_direction_match', 'mse'],
    bootstrap=summary.Bootstrap(num=50),
  )
  means = {x['metric']: x for x in lines if x['level'] == 'aggregate'}
  # The tool's own mean of pr_auc is NaN.
  assert means['pr_auc']['value'] == pytest.approx(0.909613771, abs=1e-6)
  assert (means['pr_auc']['used'], means['pr_auc']['dropped']) == (5, 1)
  match = means['de_direction_match']
  assert match['value'] == pytest.approx(0.854590, abs=1e-6)
  assert 'no gene is significant' in match['reason']
  assert means['mse']['value'] == pytest.approx(0.075381, abs=1e-6)


def test_energy_distances_in_double_precision():
  found = evaluate(
    closed_form.problem_a(), ['pearson_edistance'], precision='float64'
  )
  panel = found['pearson_edistance']
  testing.assert_allclose(panel.value, 0.8882730570120346, rtol=0, atol=1e-12)


def test_panels_have_intervals(values):
  for name in ('de_spearman_sig', 'pearson_edistance'):
    draws = values[name].draw(np.random.default_rng(0), 300)
    known = draws[np.isfinite(draws)]
    assert len(known) > 200
    assert known.min() < values[name].value <= known.max() + 1e-6
  assert values['clustering_agreement'].draw is None


def test_only_what_is_wanted_is_computed(monkeypatch):
  def refuse(*arguments, **options):
    raise AssertionError('computed without need')

  monkeypatch.setattr(tested, 'de', refuse)
  monkeypatch.setattr(cell_eval, '_energy_panel', refuse)
  monkeypatch.setattr(cell_eval, '_clustering_panel', refuse)
  found = evaluate(closed_form.problem_a(), CHEAP)
  assert set(found) == set(CHEAP)
  for name in ('overlap_at_N', 'pearson_edistance', 'clustering_agreement'):
    with pytest.raises(AssertionError, match='without need'):
      evaluate(closed_form.problem_a(), [name])


def test_clustering_needs_an_extra(monkeypatch):
  monkeypatch.setattr(clustering, 'available', lambda: False)
  (line,) = summary.lines(
    CONVENTION, closed_form.problem_a(), wanted=['clustering_agreement']
  )
  assert np.isnan(line['value'])
  assert 'pertjax[clustering]' in line['reason']


def test_a_copy_of_the_control_changes_nothing():
  real, _ = sides_of_a()
  names = list(real)
  # Blocks of other sizes would leave sums that differ in their last bits.
  copies = {n: real['ctrl'] for n in names}
  copies['G07'] = np.concatenate([real['ctrl'][::-1]] * 7)
  problem = from_cells(real.items(), copies.items())
  assert not cell_eval.changes(problem, 'predicted').any()
  found = evaluate(problem, CHEAP)
  assert np.isnan(found['pearson_delta']).all()
  number = len(names) - 1
  # Every condition is as far: half of them count.
  testing.assert_allclose(
    found['discrimination_score_cosine'], (number + 1) / (2 * number)
  )
  for metric in ('l1', 'l2'):
    # The order of the observed sizes of change is the same for all.
    score = found[f'discrimination_score_{metric}']
    testing.assert_allclose(np.sort(score), np.arange(1, 7) / 6)
  by_name = evaluate(problem, CHEAP, ties='tool')
  testing.assert_allclose(
    by_name['discrimination_score_cosine'], 1 - np.arange(6) / 6
  )


def test_a_control_copy_has_no_direction():
  real, _ = sides_of_a()
  copies = {n: real['ctrl'] for n in real}
  problem = from_cells(real.items(), copies.items())
  found = evaluate(
    problem, ['de_direction_match', 'de_nsig_counts_pred', 'roc_auc']
  )
  assert not found['de_nsig_counts_pred'].any()
  match = found['de_direction_match']
  testing.assert_array_equal(match[~np.isnan(match)], 0)
  testing.assert_allclose(found['roc_auc'][:5], 0.5)


def test_a_constant_prediction():
  real, _ = sides_of_a()
  flat = {n: np.full(x.shape, 1.5) for n, x in real.items()}
  problem = from_cells(real.items(), flat.items())
  found = evaluate(problem, [*CHEAP, 'pearson_edistance', 'de_spearman_sig'])
  assert np.isnan(found['pearson_delta']).all()
  assert np.isnan(found['pearson_edistance'].value)
  assert np.isnan(found['de_spearman_sig'].value)
  mean = problem.means('observed')
  testing.assert_allclose(found['mse'], ((mean - 1.5) ** 2).mean(1))


def test_without_predicted_control_changes_start_from_the_real_one():
  real, model = sides_of_a()
  with_real = from_cells(real.items(), {**model, 'ctrl': real['ctrl']}.items())
  del model['ctrl']
  without = from_cells(real.items(), model.items())
  assert not without.has_predicted_control.any()
  names = [*CHEAP, 'overlap_at_N', 'pearson_edistance']
  found, expected = (evaluate(p, names) for p in (without, with_real))
  for name in names:
    testing.assert_allclose(
      rows(found[name]), rows(expected[name]), rtol=1e-6, err_msg=name
    )
  testing.assert_allclose(found['mse_delta'], found['mse'])
  testing.assert_allclose(found['mae_delta'], found['mae'])


def test_one_condition():
  real, model = ({n: side[n] for n in ('ctrl', 'G03')} for side in sides_of_a())
  problem = from_cells(real.items(), model.items())
  found = evaluate(problem, [*CHEAP, *PANELS[1:]])
  for metric in ('l1', 'l2', 'cosine'):
    assert found[f'discrimination_score_{metric}'] == [1]
  for name in PANELS[1:]:
    assert np.isnan(found[name].value), name
  assert np.isnan(cell_eval.count_panel(np.ones(1), np.ones(1)).value)
  testing.assert_allclose(found['mse'], EXPECTED['mse'][1:2], atol=1e-6)


def test_no_significant_genes_anywhere():
  _, model = sides_of_a()
  # The sizes of the fixture, for which all is compiled.
  profile = np.random.default_rng(0).gamma(2.0, 0.5, 72)
  real = {n: np.tile(profile, (len(x), 1)) for n, x in model.items()}
  found = evaluate(
    from_cells(real.items(), model.items()),
    [c.name for c in CONVENTION.columns if 'de' in c.needs],
  )
  assert not found['de_nsig_counts_real'].any()
  assert found['de_nsig_counts_pred'].any()
  for name in ('overlap_at_N', 'overlap_at_50', 'precision_at_N'):
    testing.assert_array_equal(found[name], 0)
  for name in ('de_direction_match', 'de_sig_genes_recall', 'pr_auc'):
    assert np.isnan(found[name]).all()
  assert found['de_spearman_sig'].value == 1


def test_groups_are_scored_on_their_own():
  problem = closed_form.problem_t()
  found = evaluate(problem, [*CHEAP, 'overlap_at_N'])
  for chosen, part in problem.by_group():
    alone = evaluate(part, [*CHEAP, 'overlap_at_N'])
    for name in alone:
      testing.assert_allclose(found[name][chosen], alone[name])


def test_the_gene_of_the_name_is_dropped_and_no_other():
  problem = closed_form.problem_a()
  named = problem.named_gene
  testing.assert_array_equal(named, [-1, 3, 7, 11, 16, -1])
  shifted, truth = (
    cell_eval.changes(problem, side) for side in ('predicted', 'observed')
  )
  for i, gene in enumerate(named):
    keep = np.arange(72) != gene
    far = np.abs(truth - shifted[i])[:, keep].sum(1)
    expected = 1 - (far < far[i]).sum() / 6
    with jax.enable_x64(True):
      found = cell_eval.discrimination(problem, 'l1')[i]
    assert found == pytest.approx(expected)


@pytest.mark.parametrize(
  'options',
  [
    {'ties': 'half'},
    {'gene_ties': 'last'},
    {'precision': 'float16'},
    {'tie': 1},
  ],
)
def test_wrong_options(options):
  with pytest.raises(ValueError, match='allowed'):
    evaluate(closed_form.problem_a(), ['mse'], **options)
