"""What a trained model of gene sets says of itself, as tables."""

import csv
import dataclasses

import handmade
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pertjax import config as config_lib
from pertjax import interpret, models, types
from pertjax.data import arrays
from pertjax.interpret import activation, discrepancy, structure
from pertjax.models import interventions

SETS = {'a': (0, 1, 2, 3), 'b': (2, 5), 'c': (6, 7, 8), 'd': (9, 10, 11, 0)}
# Columns of the genes that A, B, C and D perturb; D is not measured.
COLUMNS = (0, 5, 7, -1)


@pytest.fixture(scope='module')
def screen():
  data, spec = handmade.screen(copies=7, controls=15, noise=0.2)
  return data, dataclasses.replace(
    spec, gene_sets=SETS, perturbation_genes=COLUMNS
  )


@pytest.fixture(scope='module')
def config():
  config = config_lib.default('discrepancy_vae')
  config.model.update(
    latent_dim=5,
    decoder_width=8,
    intervention_width=6,
    fan_in='set',
    mmd_sigma=20.0,
    eval_temperature=3.0,
  )
  return config


@pytest.fixture(scope='module')
def parts(screen, config):
  data, spec = screen
  net = models.module('discrepancy_vae').network(config.model, spec)
  params = net.init(jax.random.key(0), net.consts)
  return net, params, data, spec


@pytest.fixture(scope='module')
def written(screen, config, parts, tmp_path_factory):
  data, spec = screen
  net, *_ = parts
  folder = tmp_path_factory.mktemp('run')
  params = [net.init(jax.random.key(k), net.consts) for k in range(2)]
  said = []
  interpret.run(
    config,
    folder,
    data,
    spec,
    jax.tree.map(lambda *x: jnp.stack(x), *params),
    [net.consts] * 2,
    members=[0, 3],
    say=said.append,
  )
  tables = {}
  for path in (folder / 'eval' / 'interpret').iterdir():
    with path.open(newline='') as file:
      tables[path.stem] = list(csv.DictReader(file))
  return tables, said


def cells_of(data, spec, name, group):
  c = spec.conditions.names.index(name)
  rows = np.flatnonzero(
    (np.asarray(data.condition) == c) & (np.asarray(data.group) == group)
  )
  return rows, np.asarray(arrays.gather(data.cells, jnp.asarray(rows)))


def test_every_table_is_there_for_every_member(written):
  tables, said = written
  assert set(tables) == {
    'activation', 'perturbations', 'assignments', 'factor_sets', 'graph',
    'losses', 'summary',
  }  # fmt: skip
  for rows in tables.values():
    assert {r['member'] for r in rows} == {'0', '3'}
  assert any('distinct factors' in line for line in said)


def test_a_model_without_parts_is_left_alone(screen, tmp_path):
  data, spec = screen
  config = config_lib.default('decoder_only')
  interpret.run(
    config, tmp_path, data, spec, {}, [], members=[], say=lambda line: None
  )
  assert list(tmp_path.iterdir()) == []


def test_activation_is_the_mean_over_cells_by_group(written, parts):
  net, params, data, spec = parts
  changes, weights, scores = [], [], []
  for group in range(2):
    _, treated = cells_of(data, spec, 'A', group)
    _, control = cells_of(data, spec, 'control', group)
    score = np.asarray(net.scores(params, jnp.asarray(treated), net.consts))
    base = np.asarray(net.scores(params, jnp.asarray(control), net.consts))
    changes.append(score.mean(0) - base.mean(0))
    scores.append(score.mean(0))
    weights.append(len(treated))
  rows = [
    r
    for r in written[0]['activation']
    if (r['member'], r['layer'], r['condition']) == ('0', 'gene_set', 'A')
  ]
  assert [r['unit'] for r in rows] == list(SETS)
  expected = np.average(changes, axis=0, weights=weights)
  found = [float(r['change']) for r in rows]
  np.testing.assert_allclose(found, expected, atol=2e-5)
  np.testing.assert_allclose(
    [float(r['score']) for r in rows],
    np.average(scores, axis=0, weights=weights),
    rtol=1e-4, atol=1e-5,
  )  # fmt: skip
  np.testing.assert_allclose(
    [float(r['differential']) for r in rows], np.abs(found)
  )
  assert [r['targeted'] for r in rows] == ['1', '0', '0', '1']


def test_factors_of_means_are_means_of_factors(parts):
  """The shift and the graph are linear, so that means go through them."""
  net, params, data, spec = parts
  found = activation.make_layers(net, data, spec)(params, net.consts)
  factors = activation.shifted(net, params, net.consts, data, found)
  at = np.flatnonzero(
    (found.condition == spec.conditions.names.index('A+B')) & (found.group == 1)
  )[0]
  rows, cells = cells_of(data, spec, 'A+B', 1)
  where = arrays.conditions_at(data, data.condition[rows], data.group[rows])
  mean, _ = net.posterior(params, jnp.asarray(cells), where, net.consts)
  noise = mean + interventions.shift_of(params['intervention'], where, 3.0)
  each = interventions.propagate(noise, net.graph(params))
  np.testing.assert_allclose(factors[at], each.mean(0), atol=1e-5)
  assert found.cells[at] == len(rows)
  np.testing.assert_allclose(found.expression[at], cells.mean(0), rtol=1e-5)


def test_excluded_cells_are_not_encoded(parts):
  net, params, data, spec = parts
  rows, _ = cells_of(data, spec, 'A', 0)
  kept = np.array(spec.split.cells)
  kept[rows] = types.EXCLUDED
  without = dataclasses.replace(
    spec, split=dataclasses.replace(spec.split, cells=kept)
  )
  found = activation.make_layers(net, data, without)(params, net.consts)
  names = [spec.conditions.names[c] for c in found.condition[found.group == 0]]
  assert 'A' not in names
  assert 'B' in names


def test_effective_kernel_is_the_layer(parts):
  net, params, data, spec = parts
  kernel = activation.effective_kernel(net, params, net.consts, spec.num_genes)
  _, cells = cells_of(data, spec, 'B', 0)
  score = np.asarray(net.scores(params, jnp.asarray(cells), net.consts))
  bias = np.asarray(params['encoder']['bias'])
  np.testing.assert_allclose(cells @ kernel + bias, score, rtol=1e-4, atol=1e-4)
  # What is outside of a set has no weight.
  for k, genes in enumerate(SETS.values()):
    assert set(np.flatnonzero(kernel[:, k])) == set(genes)
  assert activation.sparsity(kernel, np.ones(12))[1e-6] == pytest.approx(
    1 - sum(map(len, SETS.values())) / 48
  )


def test_targets_are_the_sets_of_the_perturbed_gene(parts):
  *_, spec = parts
  hit = activation.targeted_units(spec, tuple(SETS), np.zeros((12, 4)))
  assert hit.tolist() == [
    [True, False, False, True],
    [False, True, False, False],
    [False, False, True, False],
    [False] * 4,
  ]


def test_dense_units_are_targeted_by_weight(parts, monkeypatch):
  *_, spec = parts
  monkeypatch.setattr(activation, 'DENSE_TARGETS', 2)
  kernel = np.zeros((12, 5))
  kernel[0] = [0.1, -3, 2, 0, 0]
  hit = activation.targeted_units(spec, (), kernel)
  assert hit[0].tolist() == [False, True, True, False, False]
  assert not hit[3].any()


def test_scores_of_a_perturbation_by_hand():
  change = np.array([4.0, -2.0, 1.0, -1.0])
  own = np.array([3.5, 0.0, 0.0, 0.0])
  targeted = np.array([True, False, False, True])
  found = activation.scores_of(change, own, targeted)
  # Item 20 of the original's checklist.
  assert found['dar'] == pytest.approx(5 / 3)
  assert found['dar_without_own'] == pytest.approx(0.75 / 1.5)
  assert found['recall_25'] == 1
  # Scaled: 1, 1/3, 0, 0.
  assert found['z_diff'] == pytest.approx(0.5 - 1 / 6)
  nothing = activation.scores_of(change, own, np.zeros(4, bool))
  assert np.isnan(nothing['dar'])
  assert np.isnan(nothing['z_diff'])


def test_assignments_and_entropy(written, parts):
  net, params, _, spec = parts
  table = structure.assignment_table(params, net.consts, spec)
  np.testing.assert_allclose(table.sum(1), 1, rtol=1e-6)
  rows = [r for r in written[0]['perturbations'] if r['member'] == '0']
  assert [r['perturbation'] for r in rows] == list('ABCD')
  for p, row in enumerate(rows):
    assert row['factor'] == f'factor_{table[p].argmax()}'
    assert float(row['entropy']) == pytest.approx(
      -(table[p] * np.log(table[p])).sum(), rel=1e-5
    )
  assert rows[3]['dar'] == ''
  total = sum(
    float(r['weight']) for r in written[0]['assignments'] if r['member'] == '0'
  )
  assert total == pytest.approx(4, abs=1e-2)


def test_untrained_perturbations_go_nowhere(parts):
  net, params, _, spec = parts
  spec = dataclasses.replace(spec, trained=(True, True, True, False))
  table = structure.assignment_table(params, net.consts, spec)
  row = structure.assigned(params, table, spec, 3)
  assert (row['trained'], row['factor']) == (0, '')
  shown = {r['perturbation'] for r in structure.assignment_rows(table, spec)}
  assert shown == set('ABC')


def test_graph_is_cut_at_the_thresholds():
  graph = np.array([[9, 0.3, -0.004], [9, 9, -0.06], [9, 9, 9.0]])
  rows = structure.graph_rows(graph)
  assert [(r['from'], r['to'], r['weight'], r['threshold']) for r in rows] == [
    ('factor_0', 'factor_1', 0.3, 0.2),
    ('factor_1', 'factor_2', -0.06, 0.05),
  ]


def test_sets_of_a_factor_are_ranked_by_contribution_or_weight():
  params = {'mean': {'kernel': np.array([[0.1], [-0.2], [0.0]])}}
  spread = np.array([10.0, 1.0, 1.0])
  units = ('a', 'b', 'c')
  rows = structure.factor_sets(
    params, units, spread, {'a': 'apoptosis'}, by_weight=False
  )
  assert [r['gene_set'] for r in rows] == ['a', 'b', 'c']
  assert [r['name'] for r in rows] == ['apoptosis', '', '']
  assert rows[1]['contribution'] == pytest.approx(-0.2)
  rows = structure.factor_sets(params, units, spread, {}, by_weight=True)
  assert [r['gene_set'] for r in rows] == ['b', 'a', 'c']


def test_losses_agree_with_the_models_own(config, parts):
  """One condition as one batch: the terms that training logs."""
  net, params, data, spec = parts
  model = models.make(config.model, spec)
  target, real = cells_of(data, spec, 'A', 0)
  source, cells = cells_of(data, spec, 'control', 0)
  source, cells = source[: len(target)], cells[: len(target)]
  where = arrays.conditions_at(data, data.condition[target], data.group[target])
  batch = types.Batch(
    jnp.asarray(real), jnp.asarray(cells), where, jnp.ones(len(target))
  )
  _, aux = model.losses['model'](params, None, batch, net.consts, jnp.int32(0))
  terms = discrepancy.make_terms(config.model, net)
  found = terms(
    params,
    net.consts,
    data,
    # The model's own draw, where it is given no key.
    jax.random.key(0),
    jnp.asarray(source),
    jnp.asarray(target),
    jnp.ones(len(target)),
  )
  for name in ('mmd', 'reconstruction', 'kl', 'kl_per_cell', 'l1'):
    assert float(found[name]) == pytest.approx(
      float(aux.metrics[name]), rel=1e-4
    ), name


def test_losses_cover_every_pair_once(written):
  rows = [r for r in written[0]['losses'] if r['member'] == '0']
  keys = [(r['split'], r['condition'], r['covariate']) for r in rows]
  assert len(set(keys)) == len(keys) == 2 * (4 + 1 + 3)
  folds = {(r['split'], r['fold']) for r in rows}
  assert folds == {
    ('train', 'singles'), ('val', 'combinations'), ('test', 'combinations'),
  }  # fmt: skip
  assert {r['cells'] for r in rows} == {'7'}
  assert all(float(r['mmd']) > 0 for r in rows)


def test_batches_are_pooled_as_the_original_does(config, parts, monkeypatch):
  net, params, data, spec = parts
  monkeypatch.setattr(
    discrepancy, '_BATCH', {'train': 3, 'test': 2, 'double': 2}
  )
  terms = discrepancy.make_terms(config.model, net)
  rows = list(discrepancy.pooled(terms, params, net.consts, data, spec, seed=0))
  of = {r['fold']: r for r in rows}
  # 8 pairs of 7 cells are 16 batches of 3: groups of 1 and 10. The val and
  # test doubles, 8 pairs, are 24 batches of 2: groups of 1, 10 and 10.
  assert (of['train']['cells'], of['double']['cells']) == (33, 42)
  assert set(of) == {'train', 'double'}
