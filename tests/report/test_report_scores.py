"""From tables to axes and dense values."""

import csv

import fabricated_run
import numpy as np
import pytest

from pertjax.report import columns, read, scores


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
  return fabricated_run.write(
    tmp_path_factory.mktemp('run'),
    conditions=6,
    genes=30,
    seeds=3,
    failed=(1,),
    steps=400,
  )


@pytest.fixture(scope='module')
def run(workdir):
  return read.read_run(workdir)


def test_the_axes_are_ordered_for_a_reader(run):
  axes = scores.make_axes(run)
  assert axes.models == (
    'latent_additive',
    'decoder_only',
    'scgen',
    'additive',
    'control',
    'mean',
    'ridge',
    'ceiling',
  )
  assert axes.kinds == ('trained',) * 3 + ('baseline',) * 4 + ('ceiling',)
  assert axes.primary == 0
  assert axes.regimes == ('all', 'seen2', 'unseen_single')
  assert axes.combos[0] == ('delta', 'all', 'pearson')
  assert [c[2].endswith('_rank') for c in axes.combos[:12]] == [False] * 6 + [
    True
  ] * 6
  assert axes.directions['pearson'] == 'higher'
  assert axes.directions['rmse_rank'] == 'lower'
  assert axes.bests['mae'] == 0


@pytest.mark.parametrize(
  ('config', 'name'),
  [
    ({'model': {'name': 'scgen'}}, 'scgen'),
    ({'model': {'name': 'elsewhere.models.scgen'}}, 'scgen'),
    ({'model': {'name': 'baselines', 'kind': 'ridge'}}, 'ridge'),
    (
      {'model': {'name': 'scgen'}, 'eval': {'predictions': '/x/additive.h5ad'}},
      'additive',
    ),
    (
      {'eval': {'predictions': 'a.h5ad', 'predictions_name': 'mean'}},
      'mean',
    ),
    ({'model': {'name': 'another'}}, None),
    (None, None),
  ],
)
def test_the_run_knows_its_own_model(run, config, name):
  axes = scores.make_axes(run._replace(config=config))
  if name is None:
    assert axes.primary == -1
    return
  assert axes.models[axes.primary] == name
  assert axes.kinds[axes.primary] == 'trained'
  assert axes.primary not in axes.baselines


def test_an_unknown_direction_is_an_error(run):
  names, codes = run.summary.text['direction']
  text = {**run.summary.text, 'direction': (('sideways', 'lower'), codes)}
  with pytest.raises(ValueError, match="direction 'sideways'"):
    scores.make_axes(run._replace(summary=run.summary._replace(text=text)))


def test_scores_are_those_of_the_file(run, workdir):
  axes = scores.make_axes(run)
  table = scores.make_scores(run.summary, axes)
  with (workdir / 'eval/summary.csv').open() as file:
    rows = list(csv.DictReader(file))
  assert np.isfinite(table['conditions']).sum() == len(rows)
  for row in rows:
    place = (
      axes.splits.index(row['split']),
      axes.regimes.index(row['regime']),
      axes.models.index(row['model']),
      axes.combos.index((row['aggregate'], row['genes'], row['metric'])),
    )
    for key in ('mean', 'low', 'high', 'seed_sd'):
      expected = float(row[key] or 'nan')
      np.testing.assert_equal(table[key][place], expected)


def test_a_repeated_row_is_an_error(run):
  axes = scores.make_axes(run)
  for table, make in (
    (run.summary, scores.make_scores),
    (run.metrics, lambda t, a: scores.make_grid(t, a, 'test')),
  ):
    double = columns.Table(
      {k: (names, np.tile(c, 2)) for k, (names, c) in table.text.items()},
      {k: np.tile(v, 2) for k, v in table.numbers.items()},
    )
    with pytest.raises(ValueError, match='two rows for model'):
      make(double, axes)


def test_the_grid_averages_members_and_keeps_what_is_undefined(run, workdir):
  axes = scores.make_axes(run)
  grid = scores.make_grid(run.metrics, axes, 'test')
  assert len(grid.conditions) == 12
  assert sorted(m for model, m in grid.runs if model == 0) == [0, 2]
  sums = {}
  with (workdir / 'eval/metrics.csv').open() as file:
    for row in csv.DictReader(file):
      key = tuple(
        row[k]
        for k in (
          'model',
          'aggregate',
          'genes',
          'metric',
          'condition',
          'covariate',
        )
      )
      sums.setdefault(key, []).append(float(row['value']))
  for (model, *combo, condition, group), values in sums.items():
    pair = next(
      p
      for p in range(12)
      if (grid.conditions[p], grid.groups[p]) == (condition, group)
    )
    place = axes.models.index(model), axes.combos.index(tuple(combo)), pair
    np.testing.assert_allclose(grid.values[place], np.mean(values), rtol=1e-12)
  control = axes.models.index('control')
  assert np.isnan(grid.values[control, 0]).all()


def test_one_undefined_member_leaves_the_pair_out_for_all(run):
  axes = scores.make_axes(run)
  numbers = run.metrics.numbers
  names, codes = run.metrics.text['model']
  first = np.flatnonzero(
    (codes == names.index('latent_additive')) & (numbers['seed'] == 0)
  )[0]
  value = numbers['value'].copy()
  value[first] = np.inf
  table = run.metrics._replace(numbers={**numbers, 'value': value})
  grid = scores.make_grid(table, axes, 'test')
  plain = scores.make_grid(run.metrics, axes, 'test')
  gone = np.isnan(grid.values) & ~np.isnan(plain.values)
  assert gone.sum() == 1
  lost = np.isnan(grid.members) & ~np.isnan(plain.members)
  assert lost.sum() == 2


def test_the_best_of_some_models():
  values = np.array([0.5, np.nan, 0.9, 0.9])
  assert scores.best_of(values, [0, 1, 2, 3], 'higher') == 2
  assert scores.best_of(values, [0, 1, 2], 'lower') == 0
  assert scores.best_of(values, [1], 'higher') == -1
  assert scores.best_of(values, [0], None) == -1
