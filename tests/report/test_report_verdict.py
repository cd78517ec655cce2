"""The verdict says what the numbers allow."""

import math

import numpy as np
import pytest

from pertjax.metrics import comparison_table
from pertjax.report import columns, paired, read, scores, verdict

AXES = scores.Axes(
  models=('net', 'additive', 'mean', 'ceiling'),
  kinds=('trained', 'baseline', 'baseline', 'ceiling'),
  primary=0,
  splits=('test',),
  regimes=('all', 'seen2'),
  combos=(('delta', 'all', 'pearson'), ('average', 'top20', 'rmse')),
  directions={'pearson': 'higher', 'rmse': 'lower'},
  bests={'pearson': 1.0, 'rmse': 0.0},
)


def make(values, *, low=-0.05, high=0.05):
  """Returns (table, grid) of [models, pairs] values for both combos."""
  values = np.asarray(values, float)[:, None].repeat(2, axis=1)
  means = scores.mean(values, axis=2)
  whole = np.broadcast_to(means, (1, 2, *means.shape))
  table = {
    'mean': whole,
    'low': whole + low,
    'high': whole + high,
    'seeds': np.ones_like(whole),
    'seed_sd': np.full_like(whole, np.nan),
    'conditions': np.ones_like(whole),
    'dropped': np.zeros_like(whole),
  }
  count = values.shape[2]
  grid = scores.Grid(
    conditions=tuple(f'c{i}' for i in range(count)),
    groups=('all',) * count,
    regimes=('seen2',) * count,
    cells=np.ones(count),
    runs=((0, 0),),
    values=values,
    members=values[:1],
  )
  return table, grid


def make_tests(axes, values):
  """Returns paired.Paired of [models, pairs] values, the same in both combos.

  A model of kind 'trained' is judged.
  """
  named = {
    kind: [m for m, k in zip(axes.models, axes.kinds) if k == kind]
    for kind in ('trained', 'baseline')
  }
  count = np.shape(values)[1]
  lines, _ = comparison_table.lines(
    {
      model: {combo: np.asarray(row, float)[None] for combo in axes.combos}
      for model, row in zip(axes.models, values)
    },
    judged=named['trained'],
    baselines=named['baseline'],
    directions=axes.directions,
    conditions=[f'c{i}' for i in range(count)],
    regimes=['seen2'] * count,
    split='test',
  )
  return paired.make(table_of(lines), axes)


def table_of(lines):
  """Returns lines as columns.read would read them."""
  text = {}
  for key in read.PAIRED_TEXT:
    names = list(dict.fromkeys(line[key] for line in lines))
    codes = [names.index(line[key]) for line in lines]
    text[key] = (tuple(names), np.array(codes, np.int32))
  return columns.Table(
    text,
    {
      key: np.array([line[key] for line in lines], float)
      for key in read.PAIRED_NUMBERS
    },
  )


def judge(values, *, combo=0, tested=True, axes=AXES, **kwargs):
  table, grid = make(values, **kwargs)
  return verdict.read(
    axes,
    table,
    grid,
    make_tests(axes, values) if tested else None,
    split=0,
    regime=0,
    combo=combo,
  )


def words(reading, combo=0, axes=AXES):
  return ''.join(text for _, text in verdict.sentence(reading, axes, combo))


def spread(mean, count=30, scale=0.02, seed=0):
  return mean + scale * np.random.default_rng(seed).normal(size=count)


@pytest.mark.parametrize(
  ('model', 'tone', 'end'),
  [
    (0.8, 'better', 'The model beats it.'),
    (0.4, 'worse', 'does not beat it: the baseline is better.'),
    (0.6, 'unclear', 'does not clearly beat it.'),
  ],
)
def test_the_tone_follows_the_paired_test(model, tone, end):
  values = [
    spread(model, scale=0.1, seed=1),
    spread(0.6, scale=0.1),
    spread(0.1),
    np.full(30, 0.9),
  ]
  if tone == 'unclear':
    values[0] = values[1] + spread(0.0, scale=0.1, seed=3)
  reading = judge(values)
  assert reading.tone == tone
  assert reading.baseline == 1
  assert words(reading).endswith(end)
  expected = np.mean(values[0]) / 0.9
  assert reading.share == pytest.approx(expected)
  assert f'net reaches {expected:.2f} of the replicate ceiling' in words(
    reading
  )
  line = verdict.evidence(reading)
  assert 'paired over 30 held-out conditions' in line
  test = reading.test
  assert (test['p_adjusted'] < 0.05) == (tone != 'unclear')
  assert verdict.p_words(test['p_adjusted']) in line
  least = verdict.number(test['detectable'], verdict.gap_scale(reading))
  assert f'A difference of {least} would have been found with 80% power' in line
  assert 'Of one seed' in line
  assert 'adjusted for' not in line


def test_p_is_adjusted_for_the_trained_models():
  axes = AXES._replace(kinds=('trained', 'baseline', 'trained', 'ceiling'))
  values = [spread(0.7, seed=1), spread(0.6), spread(0.65), np.full(30, 0.9)]
  assert 'adjusted for 2 models' in verdict.evidence(judge(values, axes=axes))


def test_lower_is_better_turns_the_sign_and_has_no_share():
  values = [spread(0.4), spread(0.6), spread(0.9), np.full(30, 0.1)]
  reading = judge(values, combo=1)
  assert (reading.tone, reading.baseline) == ('better', 1)
  assert reading.difference[0] < 0
  assert math.isnan(reading.share)
  text = words(reading, combo=1)
  assert 'RMSE of mean expression over the top 20 genes' in text
  assert '(lower is better)' in text


def test_a_ceiling_at_zero_gives_no_share():
  values = [spread(0.4), spread(0.6), spread(0.1), np.full(30, 0.01)]
  reading = judge(values)
  assert math.isnan(reading.share)
  assert 'ceiling' not in words(reading)


def test_the_share_is_over_pairs_that_have_a_ceiling():
  ceiling = np.full(30, 0.8)
  ceiling[:10] = np.nan
  model = np.where(np.arange(30) < 10, 0.0, 0.4)
  reading = judge([model, spread(0.1), spread(0.0), ceiling])
  assert reading.share == pytest.approx(0.5)


def test_too_few_conditions_give_no_verdict():
  reading = judge([[0.9] * 3, [0.1] * 3, [0.0] * 3, [1.0] * 3])
  assert reading.tone == 'few'
  assert 'too few conditions' in words(reading)
  line = verdict.evidence(reading)
  assert 'no difference could have been significant' in line
  assert '95% interval' not in line


@pytest.mark.parametrize(
  ('model', 'tone'), [(0.9, 'better'), (0.3, 'worse'), (0.65, 'unclear')]
)
def test_without_paired_tests_intervals_are_compared(model, tone):
  values = [[model] * 9, [0.6] * 9, [0.1] * 9, [1.0] * 9]
  reading = judge(values, tested=False)
  assert (reading.tone, reading.test) == (tone, {})
  line = verdict.evidence(reading)
  assert ('do not overlap' in line) == (tone != 'unclear')
  assert 'eval/paired.csv' in line


def test_nothing_is_claimed_without_a_model_a_value_or_a_baseline():
  values = [spread(0.4), spread(0.6), spread(0.9), np.full(30, 1.0)]
  nothing = AXES._replace(kinds=('baseline',) * 3 + ('ceiling',), primary=-1)
  reading = judge(values, axes=nothing)
  assert 'No trained model is in the tables' in words(reading, axes=nothing)
  undefined = judge([np.full(30, np.nan), *values[1:]])
  assert 'nothing can be said' in words(undefined)
  assert verdict.evidence(undefined) == ''
  alone = AXES._replace(kinds=('trained',) * 3 + ('ceiling',))
  reading = judge(values, axes=alone)
  assert 'no baseline to compare it with' in words(reading, axes=alone)


def test_the_rival_is_the_one_that_was_tested():
  values = [spread(0.7), spread(0.6), spread(0.5), np.full(30, 0.9)]
  table, grid = make(values)
  swapped = AXES._replace(
    models=('net', 'mean', 'additive', 'ceiling'),
  )
  tests = make_tests(swapped, values)
  options = {'split': 0, 'regime': 0, 'combo': 0}
  assert tests.rivals[0, 0, 0] == 1
  tests = tests._replace(rivals=np.full_like(tests.rivals, 2))
  assert verdict.read(AXES, table, grid, tests, **options).baseline == 2


def test_the_headline_is_the_configured_one():
  assert verdict.headline_combo(AXES, None) == 0
  config = {'eval': {'leaderboard': ['average', 'top20', 'rmse']}}
  assert verdict.headline_combo(AXES, config) == 1
  config = {'eval': {'leaderboard': ['delta', 'all', 'spearman']}}
  assert verdict.headline_combo(AXES, config) == 0


@pytest.mark.parametrize(
  ('p', 'text'),
  [(0.0004, 'p < 0.001'), (0.0123, 'p = 0.012'), (1.0, 'p = 1')],
)
def test_p_words(p, text):
  assert verdict.p_words(p) == text
  assert verdict.p_words(math.nan) == 'no p'


@pytest.mark.parametrize(
  ('value', 'scale', 'text'),
  [
    (0.7123, None, '0.712'),
    (-0.0123, None, '−0.0123'),
    (-0.0123, 0.5, '−0.012'),
    (-0.0001, 0.5, '0.000'),
    (12.34, None, '12.3'),
    (1234.0, None, '1234'),
    (0.0, None, '0.00'),
    (float('nan'), None, '–'),
  ],
)
def test_numbers_have_three_digits(value, scale, text):
  assert verdict.number(value, scale) == text
