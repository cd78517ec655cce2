"""The certificate that a run writes, on data whose effects are known."""

import handmade
import numpy as np
import pytest

from pertjax import calibration, scoring, targets, types
from pertjax import config as config_lib
from pertjax.metrics import certificate

CONDITIONS, GENES = 14, 60


def dataset(effect):
  """Two groups of 14 conditions; each changes every gene by `effect` or so."""
  random = np.random.default_rng(0)
  level = random.gamma(2.0, 1.0, GENES)
  labels, groups, values = [], [], []
  for group in ('k', 'l'):
    shared = effect * random.normal(size=GENES)
    for name in ('control', *(f'P{i:02d}' for i in range(CONDITIONS))):
      change = 0.0
      if name != 'control':
        change = shared + effect * random.normal(size=GENES)
      number = 120 if name == 'control' else 30
      values.append(random.gamma(level * np.exp(change), 1.0, (number, GENES)))
      labels += [name] * number
      groups += [group] * number
  return handmade.dataset(
    np.log1p(np.concatenate(values)),
    labels,
    groups,
    [types.TEST] * len(labels),
  )


def config_of(**changes):
  config = config_lib.default('decoder_only')
  config.eval.update(min_cells=2, bootstrap=100, certificate=3)
  config.eval.update(changes)
  return config


def lines_of(effect, **changes):
  data, spec = dataset(effect)
  config = config_of(**changes)
  truth = targets.make(config, data, spec)
  said = []
  found = calibration.lines(config, data, spec, truth, say=said.append)
  return {line['metric']: line for line in found}, said, (config, truth)


@pytest.fixture(scope='module')
def certified():
  return lines_of(0.3)


def test_lines_of_every_metric_of_the_table(certified):
  lines, said, (config, truth) = certified
  (scored,) = scoring.score(config, truth, [scoring.replicate(truth)])
  assert set(lines) == {'|'.join(key) for key in scored.values}
  for line in lines.values():
    assert tuple(line) == certificate.FIELDS
    assert line['convention'] == calibration.CONVENTION
  assert len(said) == 1


def test_what_each_stand_in_must_read(certified):
  lines, _, _ = certified
  pearson, rank = lines['delta|all|pearson'], lines['delta|all|cosine_rank']
  rmse = lines['average|all|rmse']
  # No change has no direction, and every rank of it is in the middle.
  assert np.isnan(pearson['control'])
  assert rank['control'] == pytest.approx(0.5)
  assert rank['perturbed_mean'] == pytest.approx(0.5)
  assert pearson['ceiling'] > pearson['perturbed_mean'] + 0.1
  assert rank['ceiling'] < 0.05
  assert rmse['ceiling'] < rmse['perturbed_mean'] < rmse['control']
  assert pearson['ceiling_low'] < pearson['ceiling'] < pearson['ceiling_high']
  # Between the mean and the replicate, and better than either for an error.
  assert rmse['interpolated'] < rmse['perturbed_mean']
  assert rank['bound_discrimination'] == 1
  assert rank['dynamic_range'] > 0.9
  assert rank['verdict'] == 'tells a replicate from the mean'


def test_the_null_reads_chance_whatever_the_effects(certified):
  lines, _, _ = certified
  without, _, _ = lines_of(0.0)
  for found in (lines, without):
    for genes in ('all', 'top20'):
      for name in ('pearson', 'cosine'):
        assert abs(found[f'delta|{genes}|{name}']['null']) < 0.15
    assert found['delta|all|cosine_rank']['null'] == pytest.approx(0.5, abs=0.1)
  # Where nothing happens, the ceiling itself is chance.
  assert abs(without['delta|all|pearson']['ceiling']) < 0.1
  assert 'replicate' in without['average|all|rmse']['verdict']


def test_the_first_cut_is_the_one_that_models_are_scored_on(certified):
  lines, _, (config, truth) = certified
  (scored,) = scoring.score(config, truth, [scoring.replicate(truth)])
  for key, values in scored.values.items():
    np.testing.assert_allclose(
      lines['|'.join(key)]['technical_duplicate'],
      np.nanmean(values),
      rtol=1e-6,
    )


def test_it_does_not_depend_on_the_mode(certified):
  halves, _, _ = certified
  whole, _, _ = lines_of(0.3, truth='all')
  for name, line in halves.items():
    for key in ('ceiling', 'null', 'perturbed_mean', 'interpolated'):
      np.testing.assert_allclose(line[key], whole[name][key], err_msg=name)


def test_ranks_of_n_have_a_chance_below_one_half():
  lines, _, _ = lines_of(0.3, rank_denominator='n', certificate=2)
  chance = (CONDITIONS - 1) / (2 * CONDITIONS)
  assert lines['delta|all|cosine_rank']['chance'] == pytest.approx(chance)
  assert lines['delta|all|cosine_rank']['control'] == pytest.approx(chance)


def test_none_is_made_where_none_is_asked_for():
  lines, said, _ = lines_of(0.3, certificate=0)
  assert lines == {}
  assert said == []


def test_red_team_of_a_run(certified):
  _, _, (config, truth) = certified
  _, spec = dataset(0.3)
  lines = {
    (line['metric'], line['submission']): line
    for line in calibration.red_team(config, spec, truth)
  }
  # Nothing that is the same for all finds its condition, nor does a wrong sign.
  rank = 'delta|all|cosine_rank'
  for name in ('perturbed mean', 'sign flipped', 'scrambled', 'constant'):
    assert not lines[rank, name]['flag'], lines[rank, name]
  assert lines[rank, 'perturbed mean']['value'] == pytest.approx(0.5)
  # What all perturbations share is rewarded by a correlation, and by an error.
  for metric in ('delta|all|pearson', 'average|all|rmse'):
    assert lines[metric, 'perturbed mean']['flag']
    assert 'replicate' in lines[metric, 'perturbed mean']['finding']
  assert lines['delta|all|pearson', 'sign flipped']['value'] < 0
  assert lines['delta|all|pearson', 'control copy']['finding'] == 'no value'
  # Three times too much is not seen by an angle, and punished by an error.
  error = lines['average|all|rmse', 'effect x 3']
  assert error['value'] > error['replicate']
  config.eval.certificate = 0
  assert calibration.red_team(config, spec, truth) == []
  config.eval.certificate = 3
