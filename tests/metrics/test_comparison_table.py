"""Every model against the best baseline."""

import math

import numpy as np
import pytest
from numpy import testing

from pertjax.metrics import comparison, comparison_table

KEY = ('delta', 'all', 'pearson')
ERROR = ('delta', 'all', 'rmse')
CONDITIONS = [f'c{i}' for i in range(12)]
REGIMES = ['seen'] * 7 + ['unseen'] * 5


def drawn(seed, mean, members=1, pairs=12):
  g = np.random.default_rng(seed)
  return mean + 0.1 * g.normal(size=(members, pairs))


def values():
  """Two trained models, two baselines, a ceiling; the errors are minus that."""
  made = {
    'net': drawn(0, 0.7, 3),
    'other': drawn(1, 0.5, 2),
    'mean': drawn(2, 0.3),
    'additive': drawn(3, 0.4),
    'ceiling': drawn(4, 0.9),
  }
  return {m: {KEY: x, ERROR: -x} for m, x in made.items()}


def lines(found=None, **options):
  options = {
    'judged': ['net', 'other'],
    'baselines': ['mean', 'additive'],
    'directions': {'pearson': 'higher', 'rmse': 'lower'},
    'conditions': CONDITIONS,
    'regimes': REGIMES,
    'split': 'test',
    **options,
  }
  return comparison_table.lines(found or values(), **options)


def line(found, **keys):
  (one,) = [x for x in found if all(x[k] == v for k, v in keys.items())]
  return one


def test_lines_are_those_of_compare():
  found, notes = lines()
  assert notes == []
  assert {tuple(x) for x in found} == {comparison_table.FIELDS}
  # Regimes, metrics, models without the rival.
  assert len(found) == 3 * 2 * 4
  assert {x['against'] for x in found} == {'additive'}
  made = values()
  stacked = np.full((3, 3, 12), np.nan)
  for i, model in enumerate(('net', 'other', 'additive')):
    x = made[model][KEY]
    stacked[i, : len(x)] = x
  # No randomness: equal in all seeds of the model that it stands against.
  stacked[2] = made['additive'][KEY]
  for regime, at in (('all', slice(0, 12)), ('unseen', slice(7, 12))):
    told = comparison.compare(
      stacked[..., at],
      names=('net', 'other', 'additive'),
      direction='higher',
      reference='additive',
    )
    one = line(found, regime=regime, model='net', metric='pearson')
    for name in (
      'difference', 'low', 'high', 'p', 'p_adjusted', 'effect', 'won',
      'rank_biserial', 'conditions', 'left_out', 'units', 'seed_share',
      'detectable',
    ):  # fmt: skip
      testing.assert_allclose(one[name], getattr(told, name)[0], err_msg=name)
    assert one['verdict'] == told.verdicts[0]
    assert (one['tests'], one['seeds']) == (2, 3)


def test_lower_is_better_is_the_same_turned():
  found, _ = lines()
  for model in ('net', 'other', 'mean', 'ceiling'):
    for regime in ('all', 'seen'):
      a, b = (
        line(found, regime=regime, model=model, metric=metric)
        for metric in ('pearson', 'rmse')
      )
      skipped = ('metric', 'direction')
      assert repr({k: a[k] for k in a if k not in skipped}) == repr(
        {k: b[k] for k in b if k not in skipped}
      )


def test_a_model_of_one_seed_is_not_taken_for_one_without_luck():
  made = values()
  made['other'] = {key: x[:1] for key, x in made['other'].items()}
  found, _ = lines(made)
  assert math.isnan(
    line(found, regime='all', model='other', metric='rmse')['seed_share']
  )
  assert (
    line(found, regime='all', model='net', metric='rmse')['seed_share'] >= 0
  )
  seeds = {x['model']: x['seeds'] for x in found}
  assert seeds == {'net': 3, 'other': 1, 'mean': 1, 'ceiling': 1}


def test_what_is_not_judged_is_not_tested_and_costs_nothing():
  found, _ = lines(judged=['net'])
  for model in ('other', 'mean', 'ceiling'):
    one = line(found, regime='all', model=model, metric='pearson')
    assert (one['verdict'], one['tests']) == ('not tested', 0)
    assert math.isnan(one['p'])
    assert math.isnan(one['detectable'])
    assert math.isfinite(one['low'])
  alone = line(found, regime='all', model='net', metric='pearson')
  both = line(lines()[0], regime='all', model='net', metric='pearson')
  assert alone['p'] == alone['p_adjusted'] == both['p']
  assert both['p_adjusted'] == min(2 * both['p'], 1)
  assert alone['detectable'] < both['detectable']


def test_one_regime_is_all():
  found, _ = lines(regimes=['seen'] * 12)
  half = len(found) // 2
  for a, b in zip(found[:half], found[half:]):
    assert (a['regime'], b['regime']) == ('all', 'seen')
    assert repr({**a, 'regime': 'seen'}) == repr(b)


def test_undefined_and_infinite_values():
  made = values()
  made['net'][KEY] = made['net'][KEY].copy()
  made['net'][KEY][1, 2] = np.inf
  made['net'][KEY][0, 3] = np.nan
  made['net'][KEY][2] = np.nan  # A failed member.
  made['mean'][KEY] = np.full((1, 12), np.nan)
  made['other'][KEY] = np.full((2, 12), np.nan)
  found, notes = lines(made)
  one = line(found, regime='all', model='net', metric='pearson')
  assert (one['conditions'], one['left_out'], one['infinite']) == (10, 2, 1)
  assert (one['seeds'], one['tests']) == (2, 1)
  empty = line(found, regime='all', model='other', metric='pearson')
  assert (empty['conditions'], empty['seeds']) == (0, 0)
  assert math.isnan(empty['p_adjusted'])
  assert empty['verdict'] == 'too few conditions'
  (note,) = notes
  assert note.startswith('2 of 24 paired comparisons hold infinite values')


def test_pairs_of_one_condition_are_one_unit():
  found, _ = lines(conditions=[f'c{i // 2}' for i in range(12)])
  one = line(found, regime='all', model='net', metric='rmse')
  assert (one['conditions'], one['units']) == (12, 6)


def test_no_direction_no_baseline_no_line():
  found, notes = lines(directions={'pearson': 'higher'})
  assert {x['metric'] for x in found} == {'pearson'}
  assert notes == [
    "1 metric(s) have no better direction and are not compared: 'rmse'"
  ]
  assert lines(baselines=[]) == ([], [])


def test_parts_change_nothing(monkeypatch):
  whole, _ = lines()
  monkeypatch.setattr(comparison_table, '_AT_ONCE', 1)
  parts, _ = lines()
  for a, b in zip(whole, parts, strict=True):
    for name, x in a.items():
      if isinstance(x, float):
        testing.assert_allclose(x, b[name], rtol=1e-6, err_msg=name)
      else:
        assert x == b[name]


@pytest.mark.parametrize(
  ('options', 'words'),
  [
    ({'judged': ['nett']}, "judged is 'nett'; closest: 'net'"),
    ({'baselines': ['median']}, "baselines is 'median'"),
    ({'baselines': ['mean', 'net']}, "'net' is judged and a baseline"),
    (
      {'judged': ['net'], 'baselines': ['other']},
      "baseline 'other' has 2 members",
    ),
    ({'conditions': CONDITIONS[:3]}, 'conditions has 3 entries and regimes 12'),
    (
      {'conditions': CONDITIONS[:3], 'regimes': REGIMES[:3]},
      r"values of 'net', delta/all/pearson, have the shape \(3, 12\)",
    ),
  ],
)
def test_errors(options, words):
  with pytest.raises(ValueError, match=words):
    lines(**options)
