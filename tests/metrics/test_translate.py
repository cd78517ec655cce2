"""Tests of the translation of scores between conventions."""

import dataclasses
import math

import closed_form
import jax
import numpy as np
import pandas as pd
import pytest

from pertjax.metrics import __main__ as command
from pertjax.metrics.conventions import base
from pertjax.metrics.translation import (
  conflicts,
  core,
  exchange,
  facets,
  families,
  replay,
  replay_cells,
)
from pertjax.metrics.translation import text as text_lib

MEMBERS = [
  (name, member)
  for name, family in core.FAMILIES.items()
  for member in family.members
]


def _mean(problem, convention, column, **options):
  found = base.evaluate(
    base.get(convention), problem, wanted=[column], options=options
  )
  return exchange.mean_of(next(iter(found.values())))


def _by_name(lines):
  return {(x.family, x.convention, x.metric): x for x in lines}


@pytest.fixture(scope='module')
def problem():
  return closed_form.problem_a()


@pytest.fixture(scope='module')
def ranked(problem):
  return core.translate(problem, families=['retrieval'])


# ----------------------------------------------------------------------------
# The data.


@pytest.mark.parametrize(('name', 'member'), MEMBERS)
def test_every_member_is_a_column_with_known_facets(name, member):
  family = core.FAMILIES[name]
  one = base.get(member.convention)
  column = one.column(member.column)
  assert set(member.facets) <= set(family.facets)
  assert set(family.facets) <= set(facets.FACETS)
  made = core.facets(family, member, base.settle(one, None))
  assert not any('{' in phrase or not phrase for phrase in made.values())
  assert member.common in facets.COMMON
  if member.common:
    turned = {'higher': 'lower', 'lower': 'higher'}[family.direction]
    expected = turned if member.common == '1 - x' else family.direction
    assert column.direction in (expected, 'none')


def test_members_are_there_once():
  for name, family in core.FAMILIES.items():
    keys = [(m.convention, m.column) for m in family.members]
    assert len(set(keys)) == len(keys), name
  for name, options in families.PUBLISHED.items():
    base.settle(base.get(name), options)


# ----------------------------------------------------------------------------
# What is measured.


def test_retrieval_has_the_values_of_the_conventions(problem, ranked):
  found = _by_name(ranked)
  cosine = found['retrieval', 'cell-eval', 'discrimination_score_cosine']
  assert cosine.value == pytest.approx(0.805556, abs=1e-6)
  assert cosine.used == 6
  for (_, convention, metric), line in found.items():
    if math.isnan(line.value):
      assert 'takes counts' in line.reason
      continue
    value = _mean(problem, convention, metric)
    assert line.value == pytest.approx(value, abs=1e-12)
    turned = line.common_scale == '1 - x'
    assert line.common == pytest.approx(1 - value if turned else value)


def test_steps_of_retrieval_add_up(ranked):
  for line in ranked[1:]:
    if math.isnan(line.value):
      continue
    total = sum(s.effect for s in line.steps)
    assert total == pytest.approx(line.difference, abs=1e-12)
    assert line.unexplained == pytest.approx(0, abs=1e-12)
    if line.steps:
      assert line.steps[-1].total == pytest.approx(total, abs=1e-12)
    else:
      assert line.difference == pytest.approx(0, abs=1e-12)
      assert line.reason == 'the same number'


def test_a_step_is_what_the_option_of_the_convention_does(problem, ranked):
  line = _by_name(ranked)['retrieval', 'perturbench2', 'cosine_rank_logfc']
  steps = {s.facet: s for s in line.steps}
  name = ('perturbench', 'cosine_rank_logfc')
  ours, theirs = (
    _mean(problem, *name, rank_denominator=d) for d in ('n', 'n-1')
  )
  assert steps['denominator'].effect == pytest.approx(ours - theirs)
  assert steps['denominator'].after == 'P - 1'
  other = _mean(problem, *name, transposed=True)
  assert steps['side'].effect == pytest.approx(other - ours)
  assert abs(steps['side'].effect) > 0.05


def test_ties_are_measured(problem):
  # A prediction of no change for anything: all but its own gene ties.
  own = problem.observed.relabelled(
    np.concatenate([np.full(18, label, np.int32) for label in range(7)]),
    7,
    cells=np.tile(problem.observed.members(6), 7),
  )
  still = problem.with_sides(None, own)
  lines = core.translate(
    still,
    families=['retrieval'],
    conventions=['cell-eval', 'vcc2025', 'systema'],
    options={'vcc2025': {'ties': 'tool'}},
  )
  line = _by_name(lines)['retrieval', 'vcc2025', 'discrimination_score_l1']
  assert [s.facet for s in line.steps] == ['ties']
  assert line.steps[0].after == 'by name'
  name = ('vcc2025', 'discrimination_score_l1')
  difference = _mean(still, *name, ties='tool') - _mean(still, *name)
  assert line.steps[0].effect == pytest.approx(difference, abs=1e-12)
  cosine = _mean(still, 'cell-eval', 'discrimination_score_cosine')
  by_name = _mean(
    still, 'cell-eval', 'discrimination_score_cosine', ties='tool'
  )
  found = core.translate(
    still,
    families=['retrieval'],
    conventions=['cell-eval'],
    published=True,
  )
  assert found[2].value == pytest.approx(by_name)
  assert cosine == pytest.approx(1 - 2.5 / 6)  # All six tie: in the middle.


def test_what_cannot_be_computed_is_said_to_be_unexplained(problem):
  lines = core.translate(
    problem,
    families=['r2_variances'],
    conventions=['scgen', 'perturbench'],
  )
  drawn = _by_name(lines)['r2_variances', 'scgen', 'r2var_all_boostrap_mean']
  assert math.isnan(drawn.steps[0].effect)
  assert drawn.unexplained == pytest.approx(drawn.difference)
  assert 'unexplained: cells: all -> 100 draws of 0.8 of them' in drawn.reason
  assert drawn.row()['steps'] == 'cells ?'
  for line in lines:
    if line is not drawn:
      assert line.unexplained == pytest.approx(0, abs=1e-9)


def test_tests_and_profiles_are_measured(problem):
  lines = core.translate(
    problem,
    families=['correlation', 'de', 'direction'],
    conventions=['cell-eval', 'systema'],
  )
  found = _by_name(lines)
  jaccard = found['de', 'systema', 'jaccard']
  assert [s.facet for s in jaccard.steps] == ['k', 'order', 'measure']
  for line in lines:
    assert line.unexplained == pytest.approx(0, abs=1e-9), line.metric
  start = found['correlation', 'systema', 'corr_all'].steps[0]
  own = _mean(problem, 'cell-eval', 'pearson_delta')
  assert own == pytest.approx(0.586403, abs=1e-6)
  real = _mean(problem, 'systema', 'corr_all')
  assert (start.facet, start.after) == ('start', 'real control')
  assert start.effect == pytest.approx(real - own)


def test_counts_beside_log_values():
  counts = closed_form.problem_b()

  def prepare(block):
    return np.log1p(1e4 * block / block.sum(1, keepdims=True))

  logs = dataclasses.replace(
    counts,
    scale='log1p',
    tables={},
    **{
      side: dataclasses.replace(getattr(counts, side), prepare=prepare)
      for side in ('observed', 'predicted')
    },
  )
  lines = core.translate(
    logs,
    counts=counts,
    families=['correlation', 'retrieval'],
    conventions=['cell-eval', 'cell-eval2'],
  )
  found = _by_name(lines)
  cosine = found['retrieval', 'cell-eval2', 'pds_cosine']
  assert cosine.value == pytest.approx(0.9)
  delta = found['correlation', 'cell-eval2', 'delta_pearson']
  assert delta.value == pytest.approx(0.633940, abs=1e-6)
  assert [s.facet for s in delta.steps] == ['start', 'values', 'undefined']
  for line in lines:
    assert line.unexplained == pytest.approx(0, abs=1e-12), line.metric
  with pytest.raises(ValueError, match='counts must be a problem of counts'):
    core.translate(logs, counts=logs)


def test_groups_are_measured_apart():
  problem = closed_form.problem_t()
  assert len(problem.groups) == 2
  lines = core.translate(
    problem,
    families=['retrieval'],
    conventions=['cell-eval', 'perturbench', 'scperteval'],
  )
  compared = [x for x in lines if x.steps]
  assert compared
  for line in compared:
    if not math.isnan(line.common):
      assert line.unexplained == pytest.approx(0, abs=1e-9), line.metric


# ----------------------------------------------------------------------------
# Energy distances.


def _distances(x, y):
  return np.linalg.norm(x[:, None] - y[None], axis=-1)


def test_four_energy_distances_differ_by_what_they_say(problem):
  family = core.FAMILIES['distribution']
  members = family.members[:4]
  columns = [m.column for m in members]
  values = base.evaluate(
    base.get('distances'),
    problem,
    wanted=columns,
    options={'precision': 'float64'},
  )
  context = replay.Context({'log1p': problem})
  options = base.settle(base.get('distances'), None)
  for member in members:
    made = core.facets(family, member, options)
    with jax.enable_x64(True):
      again = replay.replay(replay_cells.distribution, context, made)
    np.testing.assert_allclose(again, values[member.column], rtol=1e-10)
  with jax.enable_x64(True):
    share = replay_cells.self_pairs(
      context, core.facets(family, members[0], options)
    )
  expected = []
  for condition in range(problem.num_conditions):
    total = 0.0
    for side in (problem.observed, problem.predicted):
      x, _ = side.cells([condition])
      n = len(x)
      total += _distances(x, x).sum() / (n * (n - 1)) / n
    expected.append(total)
  np.testing.assert_allclose(share, expected, rtol=1e-9)
  # The zero diagonal is all that the two differ in.
  np.testing.assert_allclose(
    values['edistance_biased'] - values['edistance_unbiased'],
    expected,
    rtol=1e-9,
  )
  np.testing.assert_allclose(
    values['edistance_half'], values['edistance_biased'] / 2
  )
  shift = problem.means('predicted') - problem.means('observed')
  np.testing.assert_allclose(
    values['edistance_squared'], 2 * np.square(shift).sum(1), rtol=1e-10
  )


# ----------------------------------------------------------------------------
# Words.


def test_text_puts_equal_numbers_together(ranked):
  shown = text_lib.text(ranked)
  lines = shown.splitlines()
  assert lines[0].startswith('Retrieval')
  at = next(i for i, x in enumerate(lines) if 'systema' in x)
  assert 'cellsimbench nir' in lines[at + 1]
  assert lines[at + 2].strip() == '-0.0056  denominator: P -> P - 1'
  assert 'no effect here' in lines[at + 3]
  assert 'as 1 - x' in shown
  assert 'not run: takes counts, the values are log1p: cell-eval2' in shown
  assert max(len(x) for x in lines) <= 100


def _line(metric, value, steps=(), reason='', spread=0.0):
  return core.Line(
    'retrieval',
    'perturbench',
    metric,
    'higher',
    value=value,
    common=value,
    steps=steps,
    reason=reason,
    each=value + spread * np.asarray([-1.0, 1.0, 0.0]),
  )


def _turned(value, after):
  steps, before = [], value
  for facet, now in (('distance', value), ('side', after)):
    steps.append(
      exchange.Step(facet, 'old', f'new {facet}', now - before, now - value)
    )
    before = now
  return tuple(steps)


def test_conflicts_name_the_facet_that_turns_the_order():
  models = {
    'A': [
      _line('first', 0.9, reason=core.FIRST),
      _line('second', 0.6, _turned(0.9, 0.6)),
      _line('third', 0.5),
    ],
    'B': [
      _line('first', 0.8, reason=core.FIRST),
      _line('second', 0.7, _turned(0.8, 0.7), spread=0.5),
      _line('third', 0.5),
    ],
  }
  (found,) = conflicts.conflicts(models)
  assert (found.first, found.second) == ('A', 'B')
  assert [(c[1], c[3]) for c in found.better] == [('first', True)]
  assert found.better[0][2] == pytest.approx(0.1)
  assert [(c[1], c[3]) for c in found.worse] == [('second', False)]
  assert [c[1] for c in found.equal] == ['third']
  assert found.turns == ('ranked are: old -> new side',)
  shown = conflicts.text(found)
  assert 'A is better in perturbench first by 0.1' in shown
  assert 'B is better in perturbench second by 0.1 (within noise)' in shown
  (same,) = conflicts.conflicts(dict(reversed(models.items())))
  assert (same.first, same.second) == ('A', 'B')
  agreed = {k: v[:1] for k, v in models.items()}
  assert conflicts.conflicts(agreed) == []


def test_names_that_are_not_there(problem):
  with pytest.raises(ValueError, match="'retreival' is unknown; closest"):
    core.translate(problem, families=['retreival'])
  with pytest.raises(ValueError, match='systemma'):
    core.translate(problem, conventions=['systemma'])
  with pytest.raises(ValueError, match='option of convention'):
    core.translate(problem, options={'systema': {'tie': 'mid'}})


def test_what_is_left_out_is_said(problem):
  said = []
  lines = core.translate(problem, conventions=['cell-eval2'], say=said.append)
  assert 'distribution (compares all pairs of cells)' in said[0]
  assert 'fold_change' in said[0]
  assert {x.family for x in lines} == {'correlation', 'error', 'retrieval'}
  assert all(math.isnan(x.value) for x in lines)


# ----------------------------------------------------------------------------
# Files.


@pytest.fixture
def files(tmp_path):
  anndata = pytest.importorskip('anndata')
  paths = {}
  for side in ('observed', 'predicted'):
    values, names = closed_form.fixture_b(side)
    paths[side] = tmp_path / f'{side}.h5ad'
    anndata.AnnData(
      values.astype(np.float32),
      obs=pd.DataFrame(
        {'target_gene': pd.Categorical(names)},
        index=[f'{side} {i}' for i in range(len(names))],
      ),
      var=pd.DataFrame(index=list(closed_form.GENES_72)),
    ).write_h5ad(paths[side])
  return paths


def test_command_prints_and_writes(files, tmp_path, capsys):
  out = tmp_path / 'made' / 'lines.csv'
  status = command.main(
    [
      'translate',
      f'--observed={files["observed"]}',
      f'--predicted=A={files["predicted"]}',
      f'--predicted=B={files["observed"]}',
      '--families=correlation',
      '--convention=cell-eval,cell-eval2',
      f'--output={out}',
    ]
  )
  shown = capsys.readouterr()
  assert status == 0, shown.err
  assert 'Correlation of changes' in shown.out
  assert 'values: mean log values -> log of summed counts' in shown.out
  table = pd.read_csv(out)
  assert list(table.columns) == ['model', *core.FIELDS]
  assert table['model'].tolist() == ['A', 'A', 'B', 'B']
  assert table['value'][1] == pytest.approx(0.633940, abs=1e-6)
  np.testing.assert_allclose(table['value'][2:], 1)
  status = command.main(
    [
      'translate',
      f'--observed={files["observed"]}',
      f'--predicted={files["predicted"]}',
      '--families=corelation',
    ]
  )
  assert status == 2
  assert 'closest: correlation' in capsys.readouterr().err
