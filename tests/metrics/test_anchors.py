"""Ends of scales: baselines, replicates and ceilings."""

import closed_form
import jax
import numpy as np
import pytest
from numpy import testing

from pertjax.metrics import anchors, scaling, sides, stand_ins, tested
from pertjax.metrics import problem as problem_lib
from pertjax.metrics.conventions import base, cell_eval2

CELL_EVAL, VCC2025, VCC2026 = (
  base.get(name) for name in ('cell-eval', 'vcc2025', 'vcc2026')
)
NMAE = 'de_wilcoxon_lfc_nmae'
PDS = 'discrimination_score_l1'


def test_means():
  problem = closed_form.problem_a()
  found = anchors.means(problem, CELL_EVAL, wanted=['mse', 'roc_auc'])
  assert found == {
    'mse': pytest.approx(0.075381, abs=1e-6),
    'roc_auc': pytest.approx(0.826865207, abs=1e-6),
  }


def test_the_mean_response_is_chance():
  problem = closed_form.problem_b()
  found = anchors.baseline(problem, VCC2026, wanted=['pds_cosine'])
  assert found == {'pds_cosine': pytest.approx(0.5)}
  again = anchors.baseline(problem, VCC2026, wanted=['pds_cosine'], seed=3)
  assert again == found


@pytest.mark.parametrize('with_control', [True, False])
def test_mean_profile(with_control):
  problem = closed_form.problem_t()
  side = anchors.mean_profile(problem, with_control=with_control)
  testing.assert_array_equal(side.sizes, problem.observed.sizes)
  number, mean = problem.num_conditions, problem.observed.mean
  for group in range(2):
    members = np.flatnonzero(problem.group == group)
    rows = np.append(members, number + group) if with_control else members
    for member in members:
      testing.assert_allclose(side.mean[member], mean[rows].mean(0))
      assert not side.variance[member].any()
  testing.assert_allclose(side.mean[number:], mean[number:])
  found = anchors.means(
    problem.with_sides(None, side), CELL_EVAL, wanted=['pearson_delta', PDS]
  )
  # The same change for all: each group is at chance, (P + 1) / (2 P).
  assert found[PDS] == pytest.approx(np.mean([(4 + 1) / 8] * 2))


def test_replicate_has_controls_of_its_own(monkeypatch):
  asked = []
  original = tested.de

  def record(problem, side, settings):
    asked.append(settings.control)
    members = problem.observed.rows, problem.predicted.rows
    if members[0] is not None:
      assert not set(members[0].tolist()) & set(members[1].tolist())
    return original(problem, side, settings)

  monkeypatch.setattr(tested, 'de', record)
  found = anchors.replicate(
    closed_form.problem_b(), VCC2026, num=2, wanted=['de_wilcoxon_sig_jaccard']
  )
  assert asked == ['own'] * 4
  assert len(found.splits) == 2
  values = [s['de_wilcoxon_sig_jaccard'] for s in found.splits]
  assert values[0] != values[1]
  assert found.mean['de_wilcoxon_sig_jaccard'] == pytest.approx(np.mean(values))
  assert found.dropped == ()


def test_the_scale_of_2026():
  problem = closed_form.problem_b()
  low = anchors.baseline(problem, VCC2026)
  high = anchors.replicate(problem, VCC2026, num=2)
  assert low['pds_cosine'] < high.mean['pds_cosine']
  for name in ('expr_mse_unbiased_capped_norm', NMAE):
    assert low[name] > high.mean[name]
  score = scaling.vcc2026_score(anchors.means(problem, VCC2026), low, high.mean)
  assert len(score) == 7
  assert 0 < score['avg_score'] < 1
  itself = scaling.vcc2026_score(high.mean, low, high.mean)
  testing.assert_allclose(list(itself.values()), 1)
  nothing = scaling.vcc2026_score(low, low, high.mean)
  testing.assert_allclose(list(nothing.values()), 0, atol=1e-12)


def test_the_genes_of_the_replicate_error_are_those_of_all_cells():
  problem = closed_form.problem_b()
  found = anchors.replicate(problem, VCC2026, num=1, seed=4, wanted=[NMAE])
  (seed,) = np.random.SeedSequence(4).generate_state(1)
  half = stand_ins.halves(problem, int(seed)).problem
  settings = cell_eval2.settings({**cell_eval2.OPTIONS, 'control': 'own'})
  with jax.enable_x64(True):
    whole, a, b = (
      tested.de(at, side, settings)
      for at, side in (
        (problem, 'observed'), (half, 'observed'), (half, 'predicted'),
      )
    )  # fmt: skip
  errors = []
  for p in range(6):
    genes = np.flatnonzero(whole.fdr[p] < 0.05)
    genes = genes[~problem.target_mask[p, genes]]
    genes = genes[np.isfinite(whole.log2_fold_change[p, genes])]
    if len(genes) < 10:
      continue
    apart = np.abs(a.log2_fold_change - b.log2_fold_change)[p, genes]
    size = np.abs(whole.log2_fold_change)[p, genes]
    errors.append(apart.sum() / size.sum())
  assert len(errors) == 5
  assert found.mean[NMAE] == pytest.approx(np.mean(errors))


def test_conditions_of_one_cell_cannot_be_cut():
  cells, names = closed_form.fixture_a('observed')
  keep = np.ones(len(names), bool)
  keep[np.flatnonzero(np.asarray(names) == 'G07')[1:]] = False
  names = np.asarray(names)[keep].tolist()
  problem = problem_lib.from_arrays(
    cells[keep], names, cells[keep], names, control='ctrl',
    genes=closed_form.GENES_72,
  )  # fmt: skip
  found = anchors.replicate(problem, CELL_EVAL, num=1, wanted=['mse'])
  assert found.dropped == ('G07',)
  assert found.mean['mse'] > 0
  with pytest.raises(ValueError, match='num is 0'):
    anchors.replicate(problem, CELL_EVAL, num=0)
  single = problem.with_sides(
    sides.Side(cells[:7], np.arange(7, dtype=np.int32), 7), None
  )
  with pytest.raises(ValueError, match='two observed cells'):
    anchors.replicate(single, CELL_EVAL, num=1, wanted=['mse'])


def flat_problem(seed, number=12, genes=40):
  """Returns conditions without any effect."""
  random = np.random.default_rng(seed)
  names = ['ctrl'] * 24 + [f'c{p:02d}' for p in range(number) for _ in range(8)]
  cells = random.gamma(2.0, 0.5, (len(names), genes))
  return problem_lib.from_arrays(
    cells, names, cells, names, control='ctrl',
    genes=[f'g{g}' for g in range(genes)],
  )  # fmt: skip


def test_the_published_ceiling_is_above_chance_where_there_is_nothing():
  names = [f'discrimination_score_{m}' for m in ('l1', 'l2', 'cosine')]
  convention = CELL_EVAL._replace(
    columns=tuple(CELL_EVAL.column(n) for n in (*names, 'mse'))
  )
  raw, published = [], []
  for seed in range(8):
    problem = flat_problem(seed)
    raw.append(anchors.ceiling(problem, convention, seed=seed))
    published.append(
      anchors.ceiling(problem, convention, seed=seed, corrected=True)
    )
  chance = 13 / 24
  ours = np.mean([[r[n] for n in names] for r in raw])
  theirs = np.mean([[r[n] for n in names] for r in published])
  assert abs(ours - chance) < 0.06
  assert theirs > 0.64
  for one, other in zip(raw, published):
    assert np.isnan(other['mse'])
    assert one['mse'] > 0
    for name in names:
      r = one[name]
      assert other[name] == pytest.approx(2 * r / (1 + r))


def test_the_scale_of_2025():
  problem = closed_form.problem_a()
  low = anchors.means(
    problem.with_sides(None, anchors.mean_profile(problem)), VCC2025
  )
  score = scaling.vcc2025_score(anchors.means(problem, VCC2025), low)
  assert score['PDS'] > 80
  assert score['MAE'] == pytest.approx(100 * (1 - 0.208223562 / low['mae']))
  assert 0 < score['overall'] < 100


def test_what_the_published_ceiling_corrects():
  assert len(anchors.CORRECTED) == 20
  assert set(anchors.CORRECTED) < {c.name for c in CELL_EVAL.columns}
