"""Scores whose right value is known beforehand."""

import csv

import anndata
import handmade
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pertjax import config as config_lib
from pertjax import (
  evaluate,
  external,
  heldout,
  leaderboard,
  metrics,
  scoring,
  targets,
  types,
)

GENES = 24


@pytest.fixture(scope='module')
def screen():
  return handmade.screen(genes=GENES, copies=10, controls=25)


def _config(**changes):
  config = config_lib.default('decoder_only')
  config.eval.update(cells=64, min_cells=2, bootstrap=100)
  config.eval.update(changes)
  return config


def _model(predict, **fields):
  return types.Model(
    init=lambda key, consts: {}, losses={}, predict=predict, **fields
  )


def _oracle(data, means):
  """A model that returns the means [pairs, genes] that it was given."""
  table = np.zeros((data.condition_perturbations.shape[0], 2, GENES))
  for (c, g), mean in means.items():
    table[c, g] = mean

  def predict(params, key, source, condition, consts):
    del key
    same = condition.perturbations[0][None] == consts['conditions']
    row = jnp.argmax(jnp.all(same, axis=1))
    return 0 * source + params['table'][row, condition.group[0]][None]

  params = {'table': jnp.asarray(table, jnp.float32)}
  consts = {'conditions': data.condition_perturbations}
  return _model(predict, consts=consts), params


# Members in every call: tables of one shape share a compiled program.
_WIDTH = 5


def _score(config, truth, *entries):
  rest = _WIDTH - sum(len(e.members) for e in entries)
  filler = _entry(np.repeat(entries[0].means[:1], rest, 0), 'x', (0,) * rest)
  return scoring.score(config, truth, [*entries, filler])[:-1]


def _entry(means, name='some', members=(0,), control=None):
  return heldout.Predicted(name, members, means, control)


def _assert_best(scored):
  assert scored.values
  for (aggregate, genes, name), values in scored.values.items():
    best = metrics.get(name).best
    np.testing.assert_allclose(
      values, best, atol=2e-5, err_msg=f'{aggregate} {genes} {name}'
    )


def test_a_perfect_model_reads_the_best_values(screen):
  data, spec = screen
  config = _config(truth='all')
  truth = targets.make(config, data, spec)
  pairs = zip(truth.condition, truth.group)
  model, params = _oracle(data, dict(zip(pairs, truth.whole)))
  predicted = heldout.predict_means(
    model, params, model.consts, data, spec, truth
  )
  np.testing.assert_allclose(predicted, truth.observed, rtol=1e-5)
  (scored,) = _score(config, truth, _entry(predicted[None]))
  _assert_best(scored)
  keys = {key[:2] for key in scored.values}
  assert keys == {
    (a, g) for a in ('average', 'delta', 'logfc') for g in ('all', 'top20')
  }


def test_in_halves_the_truth_itself_reads_the_best_values(screen):
  data, spec = screen
  config = _config()
  truth = targets.make(config, data, spec)
  entry = _entry(truth.observed[None], control=truth.control)
  (scored,) = _score(config, truth, entry)
  _assert_best(scored)


def test_the_control_has_no_direction(screen):
  """Its change is exactly zero: no number, and a count of what is missing."""
  data, spec = screen
  config = _config(baselines=('control',))
  for mode in ('halves', 'all'):
    config.eval.truth = mode
    truth = targets.make(config, data, spec)
    baselines = heldout.predict_baselines(config, data, spec, truth)
    (control,) = _score(config, truth, *baselines)
    for aggregate in ('delta', 'logfc'):
      for name in ('pearson', 'cosine'):
        assert np.isnan(control.values[aggregate, 'all', name]).all()
    assert np.isfinite(control.values['average', 'all', 'rmse']).all()
    np.testing.assert_array_equal(
      control.values['average', 'all', 'rmse_rank'], np.full((1, 6), 0.5)
    )
    rows = leaderboard.summarise(config, truth, [control])
    (row,) = [
      r
      for r in rows
      if (r['aggregate'], r['genes'], r['metric'], r['regime'])
      == ('delta', 'all', 'pearson', 'all')
    ]
    assert np.isnan(row['mean'])
    assert (row['conditions'], row['dropped']) == (0, 6)


def _pearson(a, b):
  return np.corrcoef(np.float64(a), np.float64(b))[0, 1]


@pytest.mark.parametrize('mode', ['halves', 'all'])
def test_the_additive_baseline_is_a_sum_of_single_shifts(screen, mode):
  data, spec = screen
  config = _config(baselines=('additive', 'mean'), truth=mode)
  truth = targets.make(config, data, spec)
  baselines = heldout.predict_baselines(config, data, spec, truth)
  scored = {s.name: s for s in _score(config, truth, *baselines)}
  values = np.asarray(data.cells.values, np.float64)
  condition, group = np.asarray(data.condition), np.asarray(data.group)
  trains = spec.split.cells == types.TRAIN

  def mean(c, g):
    return values[trains & (condition == c) & (group == g)].mean(0)

  shift = {
    (t, g): mean(spec.conditions.names.index(t), g) - mean(0, g)
    for t in 'ABCD'
    for g in range(2)
  }
  average = np.mean(list(shift.values()), axis=0)
  for name in ('additive', 'mean'):
    pearson, expected_means = [], []
    for p, (c, g) in enumerate(zip(truth.condition, truth.group)):
      effect = average
      if name == 'additive':
        effect = sum(shift[t, g] for t in spec.conditions.tokens[c])
      versions, profile = [], []
      for v in range(len(truth.source)):
        used = truth.source[v, g][truth.source_weight[v, g] > 0]
        start = values[used].mean(0)
        profile.append(start + effect)
        versions.append(
          _pearson(
            profile[-1] - start, truth.observed[v, p] - truth.control[v, g]
          )
        )
      pearson.append(np.mean(versions))
      expected_means.append(np.mean(profile, 0))
    np.testing.assert_allclose(
      scored[name].means, expected_means, rtol=1e-4, atol=1e-4
    )
    np.testing.assert_allclose(
      scored[name].values['delta', 'all', 'pearson'][0], pearson, atol=1e-4
    )
  # The data are additive, so the baseline that says so is near the best.
  assert scored['additive'].values['delta', 'all', 'pearson'].mean() > 0.95


def _null_screen(controls):
  """40 tested and 20 trained conditions that are all the control."""
  random = np.random.default_rng(0)
  labels = ['control'] * 2 * controls
  parts = [types.TRAIN] * controls + [types.TEST] * controls
  for number in range(60):
    labels += [f'P{number:02d}'] * 20
    parts += [types.TRAIN if number < 20 else types.TEST] * 20
  mean = random.gamma(1.0, 2.0, 80)
  values = random.gamma(mean + 0.1, 1.0, (len(labels), 80))
  return handmade.dataset(np.log1p(values), labels, parts=parts)


def test_without_effects_everything_reads_chance():
  """The ceiling and every baseline: noise must not look like knowledge."""
  data, spec = _null_screen(controls=300)
  config = _config(baselines=('mean', 'additive'))
  truth = targets.make(config, data, spec)
  assert len(truth.condition) == 40
  entries = heldout.predict_baselines(config, data, spec, truth)
  # And one that knows the training data but takes no control cell along.
  start = np.asarray(data.cells.values)[spec.split.cells == types.TRAIN]
  constant = np.broadcast_to(start.mean(0), entries[0].means.shape)
  entries += [_entry(constant, 'constant')] * 2
  scored = scoring.score_with_ceiling(config, truth, entries)
  assert {s.name for s in scored} == {'mean', 'additive', 'constant', 'ceiling'}
  for model in scored:
    for aggregate in ('delta', 'logfc'):
      pearson = model.values[aggregate, 'all', 'pearson'].mean()
      # 80 genes and 40 conditions: one standard error is 0.02 or less.
      assert abs(pearson) < 0.08, (model.name, aggregate, pearson)
      rank = model.values[aggregate, 'all', 'cosine_rank'].mean()
      assert abs(rank - 0.5) < 0.15, (model.name, aggregate, rank)
      # A correlation over 20 genes has an error of 19**-0.5. Pairs share the
      # noise of 150 controls, beside that of 10 cells of their own: a sixteenth
      # of the variance. Three standard errors of their mean are 0.2; genes that
      # the truth itself had chosen would give the ceiling 0.5.
      bound = 3 * np.sqrt((1 / 40 + 1 / 16) / 19)
      for name in ('pearson', 'cosine'):
        top = model.values[aggregate, 'top20', name].mean()
        assert abs(top) < bound, (model.name, aggregate, name, top)


def test_the_published_convention_rewards_the_noise_of_the_controls():
  """Why 'halves' is the default: a constant beats chance under 'all'."""
  data, spec = _null_screen(controls=40)
  start = np.asarray(data.cells.values)[spec.split.cells == types.TRAIN]
  constant = np.broadcast_to(start.mean(0), (1, 2, 40, 80))
  seen = {}
  for mode in ('halves', 'all'):
    config = _config(truth=mode)
    truth = targets.make(config, data, spec)
    entry = _entry(constant[:, : len(truth.source)])
    (scored,) = _score(config, truth, entry)
    seen[mode] = scored.values['delta', 'all', 'pearson'].mean()
  assert abs(seen['halves']) < 0.2
  assert seen['all'] > 0.4


def test_the_ceiling_of_strong_effects_is_high(screen):
  """One half against the other, both ways round, whatever the truth is."""
  data, spec = screen
  seen = []
  for mode in ('halves', 'all'):
    config = _config(truth=mode)
    truth = targets.make(config, data, spec)
    entry = _entry(truth.observed[None])
    *_, ceiling = scoring.score_with_ceiling(config, truth, [entry] * 4)
    assert (ceiling.name, ceiling.members) == ('ceiling', (-1,))
    assert ceiling.means is None
    seen.append(ceiling.values)
  pearson = seen[0]['delta', 'all', 'pearson'][0]
  assert pearson.mean() > 0.95
  for p, g in enumerate(truth.group):
    a, b = truth.replicate[:, p] - truth.replicate_control[:, g]
    np.testing.assert_allclose(pearson[p], _pearson(a, b), atol=1e-5)
  for key, values in seen[0].items():
    np.testing.assert_allclose(values, seen[1][key], 1e-5, err_msg=key)


def test_conditions_that_a_model_cannot_know_are_nan_and_said(screen):
  data, spec = screen
  config = _config()
  truth = targets.make(config, data, spec)
  model = _model(
    lambda params, key, source, condition, consts: source + 1.0,
    knows=lambda tokens: 'C is no gene' if 'C' in tokens else None,
  )
  said = []
  predicted = heldout.predict_means(
    model, {}, {}, data, spec, truth, say=said.append
  )
  names = [spec.conditions.names[c] for c in truth.condition]
  unknown = np.array(['C' in name for name in names])
  assert unknown.sum() == 4
  np.testing.assert_array_equal(np.isnan(predicted[:, :, 0]), [unknown] * 2)
  assert said == [
    '4 of 6 pairs cannot be predicted by this model and count as dropped: '
    'C is no gene'
  ]
  (scored,) = _score(config, truth, _entry(predicted[None]))
  rows = leaderboard.summarise(config, truth, [scored])
  rmse = [r for r in rows if r['metric'] == 'rmse' and r['regime'] == 'all']
  assert {(r['conditions'], r['dropped']) for r in rmse} == {(2, 4)}


def test_members_are_scored_one_by_one(screen):
  data, spec = screen
  config = _config()
  truth = targets.make(config, data, spec)
  random = np.random.default_rng(0)
  predicted = truth.observed[None] + random.normal(
    0, [[[[0.1]]], [[[1.0]]]], (2, *truth.observed.shape)
  ).astype(np.float32)
  truth_itself = _entry(truth.observed[None], 'truth', (-1,), truth.control)
  _, together = _score(
    config, truth, truth_itself, _entry(predicted, 'm', (3, 8))
  )
  assert together.members == (3, 8)
  for number, member in enumerate(predicted):
    (alone,) = _score(config, truth, _entry(member[None]))
    for key, values in together.values.items():
      assert values.shape == (2, 6)
      np.testing.assert_allclose(values[number], alone.values[key][0], 1e-5)
  np.testing.assert_allclose(together.means, predicted.mean((0, 1)), rtol=1e-5)
  rmse = together.values['average', 'all', 'rmse'].mean(1)
  assert rmse[0] < rmse[1]


def test_the_mean_prediction_weighs_no_padding():
  """Groups of unequal size share one table of source rows."""
  labels = ['control'] * 16 + ['A'] * 4
  groups = ['x'] * 4 + ['y'] * 12 + ['x', 'x', 'y', 'y']
  parts = [types.TEST] * 20
  values = np.random.default_rng(0).normal(size=(20, GENES))
  data, spec = handmade.dataset(values, labels, groups, parts)
  truth = targets.make(_config(), data, spec)
  assert (truth.source_weight.sum(-1) == [[2, 6], [2, 6]]).all()

  def predict(params, key, source, condition, consts):
    return jnp.exp(source) + condition.group[:, None]

  found = heldout.predict_means(_model(predict), {}, {}, data, spec, truth)
  for v in range(2):
    for p, g in enumerate(truth.group):
      used = truth.source[v, g][truth.source_weight[v, g] > 0]
      expected = np.exp(values[used]).mean(0) + g
      np.testing.assert_allclose(found[v, p], expected, rtol=1e-5)


def test_a_run_writes_tables_profiles_and_predictions_of_the_best_setting(
  screen, tmp_path
):
  data, spec = screen
  config = _config(baselines=('control',), saved_cells=3)

  def predict(params, key, source, condition, consts):
    return source + params['shift'] * consts['scale']

  model = _model(
    predict, knows=lambda tokens: 'no' if tokens == ('C', 'D') else None
  )
  params = {'shift': jnp.array([9.0, 1.0, 3.0])}
  consts = [{'scale': jnp.float32(s)} for s in (1, 1, 2)]
  said = []
  rows = evaluate.run(
    config, tmp_path, model, data, spec, params, consts,
    members=[0, 2, 3], settings=['rate=1', 'rate=2', 'rate=2'],
    scores=[0.3, 0.4, 0.1], say=said.append,
  )  # fmt: skip
  assert any('best setting by validation: rate=2' in line for line in said)
  assert {r['model']: r['seeds'] for r in rows} == {
    'decoder_only (rate=1)': 1, 'decoder_only (rate=2)': 2, 'control': 1,
    'ceiling': 1,
  }  # fmt: skip
  with (tmp_path / 'eval' / 'metrics.csv').open() as file:
    table = list(csv.DictReader(file))
  assert {(r['model'], r['seed']) for r in table} == {
    ('decoder_only (rate=1)', '0'), ('decoder_only (rate=2)', '2'),
    ('decoder_only (rate=2)', '3'), ('control', '-1'), ('ceiling', '-1'),
  }  # fmt: skip
  assert (tmp_path / 'eval' / 'summary.csv').exists()
  profiles = np.load(tmp_path / 'eval' / 'profiles.npz')
  truth = targets.make(config, data, spec)
  assert profiles['models'].tolist() == [
    'decoder_only (rate=1)', 'decoder_only (rate=2)', 'control'
  ]  # fmt: skip
  assert profiles['pairs'][0] == 'A+B|x'
  np.testing.assert_allclose(profiles['observed'], truth.whole)
  np.testing.assert_allclose(
    profiles['predicted'][2], truth.source_mean.mean(0)[truth.group], rtol=1e-3
  )
  adata = anndata.read_h5ad(tmp_path / 'predictions.h5ad')
  # 4 pairs can be predicted, from 3 control cells each.
  assert adata.shape == (12, GENES)
  assert adata.obs_names.is_unique
  assert set(adata.obs['condition']) == {'A+B', 'A+C'}
  place = {name: i for i, name in enumerate(spec.cell_names)}
  source = np.asarray(data.cells.values)[
    [place[name] for name in adata.obs['control_cell']]
  ]
  # Shifts of 1 and of 3 * 2: mean 3.5, spread 5 / sqrt(2).
  np.testing.assert_allclose(adata.X, source + 3.5, rtol=1e-5)
  np.testing.assert_allclose(
    adata.layers['seed_sd'], np.full(adata.shape, 5 / 2**0.5), rtol=1e-5
  )
  kind = adata.obs['kind'].astype(str).to_numpy()
  group = [spec.groups[int(data.group[place[n]])][0]
           for n in adata.obs['control_cell']]  # fmt: skip
  assert kind.tolist() == group


def _write(path, data, spec, profiles):
  """Writes {(condition, group): mean} as a file of two cells for each."""
  labels, kinds, values = [], [], []
  for (condition, kind), mean in profiles.items():
    for offset in (-0.5, 0.5):
      labels.append(condition)
      kinds.append(kind)
      values.append(mean + offset)
  adata = anndata.AnnData(np.float32(values))
  adata.obs_names = [f'p{i}' for i in range(len(labels))]
  adata.var_names = list(spec.genes)
  adata.obs['condition'] = labels
  adata.obs['kind'] = kinds
  adata.write_h5ad(path)


def _named(spec, truth):
  return [
    (spec.conditions.names[c], *spec.groups[g])
    for c, g in zip(truth.condition, truth.group)
  ]


@pytest.mark.parametrize('mode', ['halves', 'all'])
def test_another_tools_predictions(screen, tmp_path, mode):
  data, spec = screen
  path = tmp_path / 'other.h5ad'
  config = _config(truth=mode, predictions=str(path))
  config.data.covariates = ('kind',)
  truth = targets.make(config, data, spec)
  profiles = dict(zip(_named(spec, truth), truth.whole))
  missing = profiles.pop(('A+C', 'y'))
  assert missing is not None
  # The tool has control cells of its own in one of the groups.
  profiles['control', 'x'] = np.float64(truth.whole_control[0])
  _write(path, data, spec, profiles)
  said = []
  entry = external.predicted(config, spec, truth, say=said.append)
  assert (entry.name, entry.members) == ('other', (-1,))
  assert 'other.h5ad lacks 1 of 6 held-out pairs' in said
  assert 'own control cells in 1 of 2 group(s)' in said[-1]
  (scored,) = _score(config, truth, entry)
  values = scored.values['delta', 'all', 'pearson'][0]
  lost = _named(spec, truth).index(('A+C', 'y'))
  assert np.flatnonzero(np.isnan(values)).tolist() == [lost]
  for p, g in enumerate(truth.group):
    if p == lost:
      continue
    expected = []
    versions = len(truth.observed)
    for v in range(versions):
      other = truth.control[(v + 1) % versions, g]
      start = truth.whole_control[0] if g == 0 else other
      expected.append(
        _pearson(
          truth.whole[p] - start, truth.observed[v, p] - truth.control[v, g]
        )
      )
    np.testing.assert_allclose(values[p], np.mean(expected), atol=1e-4)


def test_a_file_without_any_held_out_pair_is_refused(screen, tmp_path):
  data, spec = screen
  path = tmp_path / 'other.h5ad'
  config = _config(predictions=str(path))
  config.data.covariates = ('kind',)
  truth = targets.make(config, data, spec)
  _write(path, data, spec, {('A', 'x'): np.zeros(GENES)})
  with pytest.raises(ValueError, match='none of the 6 held-out pairs.*A|x'):
    external.predicted(config, spec, truth, say=lambda line: None)


def test_metric_versions_name_every_metric():
  versions = evaluate.metric_versions()
  assert set(versions) == {m.name for m in metrics.list_metrics()}
  assert all(v.isdigit() for v in versions.values())


def test_members_of_a_tree():
  tree = {'a': jnp.arange(6).reshape(3, 2)}
  found = jax.tree.map(np.asarray, heldout.member(tree, 2))
  np.testing.assert_array_equal(found['a'], [4, 5])
  found = jax.tree.map(np.asarray, heldout.members(tree, [2, 0]))
  np.testing.assert_array_equal(found['a'], [[4, 5], [0, 1]])
