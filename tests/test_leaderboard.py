"""Tables: their numbers, their files and their lines."""

import csv
from typing import Any, NamedTuple

import handmade
import numpy as np
import pytest

from pertjax import config as config_lib
from pertjax import leaderboard, metrics, scoring

KEYS = (
  ('delta', 'all', 'pearson'),
  ('delta', 'top20', 'pearson'),
  ('logfc', 'all', 'cosine'),
  ('logfc', 'all', 'cosine_rank'),
  ('average', 'all', 'rmse'),
)


class Truth(NamedTuple):
  regime: tuple[str, ...]
  condition: Any = None
  group: Any = None
  cells: Any = None


def _config(**changes):
  config = config_lib.default('decoder_only')
  config.eval.update(bootstrap=100, **changes)
  return config


def _scored(name, values, members=(-1,)):
  """Returns a Scored with `values` [members, pairs] under every key."""
  values = np.float32(values).reshape(len(members), -1)
  return scoring.Scored(name, members, {k: values for k in KEYS}, None)


def _find(rows, **wanted):
  return [r for r in rows if all(r[k] == v for k, v in wanted.items())]


REGIMES = ('seen1', 'seen2', 'seen1', 'seen2', 'seen2', 'seen1')


@pytest.fixture(scope='module')
def random_scores():
  values = np.random.default_rng(0).normal(0.5, 0.2, (3, 6))
  values[1, 2] = np.nan
  values[:, 5] = np.nan
  return values.astype(np.float32)


@pytest.mark.parametrize('regime', ['all', 'seen1', 'seen2'])
def test_summaries_are_means_over_pairs_of_means_over_seeds(
  random_scores, regime
):
  rows = leaderboard.summarise(
    _config(), Truth(REGIMES), [_scored('m', random_scores, (0, 1, 4))]
  )
  assert len(rows) == 3 * len(KEYS)
  chosen = [r == regime or regime == 'all' for r in REGIMES]
  values = random_scores[:, chosen].astype(np.float64)
  # A pair counts where every seed has a value.
  defined = ~np.isnan(values).any(0)
  for row in _find(rows, regime=regime):
    assert row['model'] == 'm'
    assert row['split'] == 'test'
    assert row['seeds'] == 3
    assert row['conditions'] == defined.sum()
    assert row['dropped'] == (~defined).sum()
    np.testing.assert_allclose(row['mean'], values[:, defined].mean(), 1e-5)
    np.testing.assert_allclose(
      row['seed_sd'], values[:, defined].mean(1).std(ddof=1), rtol=1e-4
    )
    assert row['direction'] == metrics.get(row['metric']).direction
    assert row['best'] == metrics.get(row['metric']).best
    if defined.sum() > 1:
      assert row['low'] < row['mean'] < row['high']
    else:
      assert np.isnan([row['low'], row['high']]).all()
    assert not row['closed']


def test_a_summary_without_any_value(random_scores):
  rows = leaderboard.summarise(
    _config(), Truth(REGIMES), [_scored('m', np.full((1, 6), np.nan))]
  )
  for row in _find(rows, regime='all'):
    assert np.isnan([row['mean'], row['low'], row['high']]).all()
    assert (row['conditions'], row['dropped'], row['seeds']) == (0, 6, 1)
    # One member has no spread over members.
    assert np.isnan(row['seed_sd'])
    assert row['closed']


def test_the_interval_depends_on_the_seed_alone(random_scores):
  def low(seed):
    rows = leaderboard.summarise(
      _config(seed=seed), Truth(REGIMES), [_scored('m', random_scores[:1])]
    )
    return rows[0]['low']

  assert low(0) == low(0) != low(1)


def test_metrics_csv_reads_back_what_was_scored(tmp_path, random_scores):
  data, spec = handmade.screen(
    copies=4, regimes={('A+B', 'x'): 'seen1', ('A+B', 'y'): 'seen1'}
  )
  names = ('A+B', 'A+C', 'C+D')
  truth = Truth(
    regime=('seen1', 'seen1', *['seen2'] * 4),
    condition=np.repeat([spec.conditions.names.index(n) for n in names], 2),
    group=np.array([0, 1] * 3),
    cells=np.arange(10, 16),
  )
  scored = [
    _scored('net', random_scores, (0, 1, 4)),
    _scored('a, "b"', random_scores[:1]),
  ]
  path = tmp_path / 'eval' / 'metrics.csv'
  leaderboard.write_metrics(path, _config(), spec, truth, scored)
  with path.open(newline='') as file:
    reader = csv.DictReader(file)
    assert tuple(reader.fieldnames) == leaderboard.METRIC_COLUMNS
    rows = list(reader)
  assert len(rows) == len(KEYS) * 6 * (3 + 1)
  place = {
    (n, g): i for i, (n, g) in enumerate((n, g) for n in names for g in 'xy')
  }
  values = {'net': random_scores, 'a, "b"': random_scores[:1]}
  members = {'0': 0, '1': 1, '4': 2, '-1': 0}
  seen = set()
  for row in rows:
    pair = place[row['condition'], row['covariate']]
    value = values[row['model']][members[row['seed']], pair]
    if np.isnan(value):
      assert row['value'] == ''
    else:
      # Not rounded: float32 comes back as it was.
      assert np.float32(row['value']) == value
    assert row['regime'] == truth.regime[pair]
    assert int(row['cells']) == truth.cells[pair]
    assert row['split'] == 'test'
    key = (row['aggregate'], row['genes'], row['metric'])
    seen.add((row['model'], row['seed'], pair, key))
  assert len(seen) == len(rows)


def test_summary_csv_reads_back(tmp_path, random_scores):
  rows = leaderboard.summarise(
    _config(), Truth(REGIMES), [_scored('m', random_scores, (0, 1, 4))]
  )
  path = tmp_path / 'summary.csv'
  leaderboard.write_rows(path, leaderboard.SUMMARY_COLUMNS, rows)
  with path.open(newline='') as file:
    found = list(csv.DictReader(file))
  assert tuple(found[0]) == leaderboard.SUMMARY_COLUMNS
  assert len(found) == len(rows)
  for row, text in zip(rows, found):
    for name in leaderboard.SUMMARY_COLUMNS:
      value = row[name]
      if isinstance(value, str):
        assert text[name] == value
      elif np.isnan(value):
        assert text[name] == ''
      else:
        assert np.float32(text[name]) == np.float32(value)


def _lines(config, regimes, *scored):
  rows = leaderboard.summarise(config, Truth(regimes), scored)
  return leaderboard.lines(config, rows)


def _models(lines):
  """Returns the first words of the lines between the last two rules."""
  rules = [i for i, line in enumerate(lines) if line.startswith('---')]
  return [line.split()[0] for line in lines[rules[1] + 1 : rules[2]]]


def _three(shift=0.0):
  spread = np.linspace(-0.1, 0.1, 4) + shift
  return (
    _scored('middle', 0.5 + spread),
    _scored('net', [0.9 + spread, 0.8 + spread], (0, 1)),
    _scored('none', np.full(4, np.nan)),
    _scored('low', 0.1 + spread),
  )


def test_the_best_comes_first_whatever_the_direction():
  lines = _lines(_config(), ['seen2'] * 4, *_three())
  assert _models(lines) == ['net', 'middle', 'low', 'none']
  config = _config(leaderboard=('average', 'all', 'rmse'))
  lines = _lines(config, ['seen2'] * 4, *_three())
  assert _models(lines) == ['low', 'middle', 'net', 'none']
  # The column that sorts is not shown twice.
  head = next(line for line in lines if line.startswith('model'))
  assert head.count('rmse') == 1
  assert head.split()[3] == 'rmse↓'


def test_lines_show_means_intervals_seeds_and_counts():
  spread = np.linspace(-0.1, 0.1, 4)
  partly = 0.5 + spread
  partly[0] = np.nan
  lines = _lines(
    _config(),
    ['seen2'] * 4,
    _scored('net', [0.9 + spread, 0.8 + spread], (0, 1)),
    _scored('part', partly),
    _scored('none', np.full(4, np.nan)),
  )
  rows = {line.split()[0]: line.split() for line in lines if line}
  assert rows['net'][1:4] == ['2', '4', '0.850']
  assert rows['net'][4].startswith('[0.')
  assert rows['part'][1:4] == ['-', '3/4', '0.533']
  assert rows['none'] == ['none', '-', '0/4', *['–'] * 5]
  assert 'n of a/b: a of b conditions have a value; –: none has' in lines
  # The header names aggregate, genes and metric of every column.
  head = [line.split() for line in lines[3:6]]
  assert head[0] == ['delta', 'delta', 'logfc', 'logfc', 'average']
  assert head[1] == ['top20']
  assert head[2] == [
    'model', 'seeds', 'n', 'pearson↑', 'pearson↑', 'cosine↑', 'cosine_rank↓',
    'rmse↓',
  ]  # fmt: skip


def test_one_condition_has_no_interval():
  lines = _lines(_config(), ['seen2'], _scored('one', [0.25]))
  (line,) = [line for line in lines if line.startswith('one')]
  assert line.split() == ['one', '-', '1', *['0.250'] * 5]
  assert not any('nan' in line for line in lines)


def test_identical_closed_forms_are_folded():
  spread = np.linspace(-0.1, 0.1, 4)
  lines = _lines(
    _config(),
    ['seen2'] * 4,
    _scored('first', 0.5 + spread),
    _scored('second', 0.5 + spread),
    _scored('nearly', 0.5 + spread + 1e-6),
    # A trained model has a line of its own, whatever it scores.
    _scored('net', 0.5 + spread, (0,)),
    _scored('third', 0.5 + spread),
  )
  assert sorted(_models(lines)) == ['first', 'nearly', 'net']
  assert 'the same as first here: second, third' in lines


def test_a_table_for_each_regime():
  spread = np.linspace(0, 1, 6)
  lines = _lines(_config(), REGIMES, _scored('m', spread))
  titles = [line for line in lines if line.startswith('test split')]
  assert [t.split('regime ')[1].split(':')[0] for t in titles] == [
    'all', 'seen1', 'seen2'
  ]  # fmt: skip
  # One regime: the table of all would be the same.
  lines = _lines(_config(), ['seen2'] * 6, _scored('m', spread))
  titles = [line for line in lines if line.startswith('test split')]
  assert len(titles) == 1
  assert 'regime seen2' in titles[0]


def test_lines_fit_a_terminal():
  """The longest names of the baselines, negative values and all counts."""
  values = -np.linspace(0.1, 0.9, 6)
  config = _config()
  rows = leaderboard.summarise(
    config,
    Truth(REGIMES),
    [
      _scored('additive_shrunk', values),
      _scored('latent_additive', [values, values + 0.01], (0, 1)),
    ],
  )
  for row in rows:
    row.update(conditions=843, dropped=157)
  lines = leaderboard.lines(config, rows)
  assert max(map(len, lines)) <= 100
  assert all(line == line.rstrip() for line in lines)


@pytest.mark.parametrize(
  'wrong',
  [
    ('delta', 'all', 'pearsons'),
    ('delta', 'top7', 'pearson'),
    ('deltas', 'all', 'pearson'),
    ('delta', 'all'),
  ],
)
def test_a_column_that_no_table_has_is_refused(wrong):
  with pytest.raises(ValueError, match='eval.leaderboard .* all, top20; '):
    leaderboard.columns(_config(leaderboard=wrong))
