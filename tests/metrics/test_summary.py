"""Lines of values: means, intervals, and what has no value."""

import math

import closed_form
import jax
import numpy as np
import pytest
import toy_adata
from numpy import testing

from pertjax.metrics import intervals, summary
from pertjax.metrics.conventions import base

INTERVAL = ('low', 'high')


def convention(function, *columns, **fields):
  return base.Convention(
    'made', 'Made', 'a test', 'any', 'none', columns, function, whole=True,
    **fields,
  )  # fmt: skip


def column(name, **fields):
  return base.Column(name, '', 1.0, 'higher', 'a test', **fields)


def scored(values, problem=None, **options):
  """Returns the lines of given values by (metric, level, covariate, name)."""
  problem = problem or closed_form.problem_t()
  columns = [
    column(name, undefined='it is odd', scope='panel' if isinstance(
      found, base.Panel) else 'condition')
    for name, found in values.items()
  ]  # fmt: skip
  one = convention(lambda *_: values, *columns)
  return {
    (x['metric'], x['level'], x['covariate'], x['condition']): x
    for x in summary.lines(one, problem, **options)
  }


def test_means_count_what_has_no_value():
  values = np.asarray([1.0, np.nan, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0])
  found = scored(
    {'m': values},
    lost={('tb', 'X'): 'not predicted', ('tz', 'Y'): 'without controls'},
  )
  every = found['m', 'aggregate', '', '']
  assert tuple(every) == summary.FIELDS
  assert every['value'] == pytest.approx(34 / 7)
  assert (every['used'], every['dropped']) == (7, 3)
  assert every['reason'] == (
    '1: it is odd; 1: not predicted; 1: without controls'
  )
  first, second = (found['m', 'aggregate', g, ''] for g in ('ta', 'tb'))
  assert (first['value'], first['used'], first['dropped']) == (8 / 3, 3, 1)
  assert (second['value'], second['used'], second['dropped']) == (6.5, 4, 1)
  # A group that is lost as a whole is there with no value.
  third = found['m', 'aggregate', 'tz', '']
  assert math.isnan(third['value'])
  assert (third['used'], third['dropped']) == (0, 1)
  undefined = found['m', 'condition', 'ta', 'A+B']
  assert math.isnan(undefined['value'])
  assert undefined['reason'] == 'it is odd'
  assert (undefined['used'], undefined['dropped']) == (0, 1)
  lost = found['m', 'condition', 'tb', 'X']
  assert lost['reason'] == 'not predicted'
  assert len(found) == 8 + 2 + 4


def test_intervals_are_those_of_single_columns():
  """All columns are resampled at once, and each as if it were alone."""
  random = np.random.default_rng(0)
  values = {f'm{i}': random.normal(size=8) for i in range(5)}
  values['m1'][2] = np.nan
  found = scored(values)
  for name, row in values.items():
    with jax.enable_x64(True):
      every = intervals.bootstrap(row, 0)
      half = intervals.bootstrap(row[4:], 0)
    line = found[name, 'aggregate', '', '']
    testing.assert_allclose(
      [line[k] for k in INTERVAL], [every.low, every.high], rtol=1e-6
    )
    line = found[name, 'aggregate', 'tb', '']
    testing.assert_allclose(
      [line[k] for k in INTERVAL], [half.low, half.high], rtol=1e-6
    )
    assert line['low'] < line['value'] < line['high']


def test_many_columns_are_cut(monkeypatch):
  random = np.random.default_rng(0)
  values = {f'm{i}': random.normal(size=8) for i in range(11)}
  whole = scored(values)
  calls = []
  real = intervals.bootstrap

  def counted(rows, *args, **options):
    calls.append(rows.shape)
    return real(rows, *args, **options)

  monkeypatch.setattr(intervals, 'bootstrap', counted)
  monkeypatch.setattr(summary, '_ROWS', 4)
  cut = scored(values)
  # 11 rows of all, 22 of groups; sizes are powers of two.
  assert calls == [(4, 8)] * 3 + [(4, 4)] * 5 + [(2, 4)]
  for key, line in whole.items():
    testing.assert_allclose(
      [cut[key][k] for k in INTERVAL], [line[k] for k in INTERVAL], rtol=1e-6
    )


def test_values_that_have_no_interval():
  endless = np.asarray([1.0, np.inf, 3.0, 4.0, 1.0, 2.0, 3.0, 4.0])
  found = scored(
    {
      'endless': endless,
      'both': np.where(np.arange(8) == 7, -np.inf, endless),
      'none': np.full(8, np.nan),
      'one': np.where(np.arange(8) == 5, 2.0, np.nan),
      'same': np.full(8, 0.1),
    }
  )
  line = found['endless', 'aggregate', '', '']
  assert line['value'] == np.inf
  assert line['reason'] == '1: infinite, and in the mean'
  assert math.isnan(line['low'])
  # The group without it is as any.
  other = found['endless', 'aggregate', 'tb', '']
  assert other['value'] == 2.5
  assert other['low'] < 2.5 < other['high']
  assert math.isnan(found['both', 'aggregate', '', '']['value'])
  line = found['none', 'aggregate', '', '']
  assert math.isnan(line['value'])
  assert (line['used'], line['dropped']) == (0, 8)
  line = found['one', 'aggregate', '', '']
  assert (line['value'], line['used'], line['dropped']) == (2.0, 1, 7)
  assert math.isnan(line['low'])
  line = found['same', 'aggregate', '', '']
  assert line['low'] == line['high'] == line['value'] == 0.1


def test_panels():
  rows = np.arange(8.0)
  found = scored(
    {
      'drawn': base.resampled(lambda at: rows[at].mean(1), 8),
      'fixed': base.Panel(0.5, 6),
      'none': base.Panel(np.nan, 0),
    },
    lost={('ta', 'X'): 'not predicted'},
  )
  line = found['drawn', 'aggregate', '', '']
  assert (line['value'], line['used'], line['dropped']) == (3.5, 8, 1)
  assert 1 < line['low'] < 3.5 < line['high'] < 6
  assert line['reason'] == '1: not predicted'
  line = found['fixed', 'aggregate', '', '']
  assert math.isnan(line['low'])
  assert (line['used'], line['dropped']) == (6, 3)
  assert line['reason'] == '2: took no part; 1: not predicted'
  line = found['none', 'aggregate', '', '']
  assert line['reason'] == 'it is odd; 1: not predicted'
  assert line['dropped'] == 9


def test_no_interval_where_none_is_asked_for():
  found = scored({'m': np.arange(8.0)}, bootstrap=summary.Bootstrap('none'))
  assert math.isnan(found['m', 'aggregate', '', '']['low'])
  with pytest.raises(ValueError, match="bootstrap: 'cell'.*cells"):
    scored({'m': np.arange(8.0)}, bootstrap=summary.Bootstrap('cell'))


def test_resampled_cells_widen_the_interval():
  problem = closed_form.problem_a()

  def lines(over):
    found = summary.lines(
      toy_adata.TOY, problem, bootstrap=summary.Bootstrap(over, num_cells=8)
    )
    return {(x['metric'], x['condition']): x for x in found}

  plain, cells = lines('conditions'), lines('cells')
  for key in (('mse', ''), ('pearson_delta', ''), ('total', '')):
    assert cells[key]['value'] == plain[key]['value']
    assert cells[key]['low'] <= plain[key]['low']
    assert cells[key]['high'] >= plain[key]['high']
  line = cells['mse', 'G03']
  assert 0 <= line['low'] < line['value'] < line['high']
  assert math.isnan(plain['mse', 'G03']['low'])
  # Bounds of the column hold.
  assert cells['pearson_delta', '']['high'] <= 1


def test_resampled_cells_keep_their_labels():
  problem = closed_form.problem_t()
  again = summary.resample_cells(problem, np.random.default_rng(0))
  for side in ('observed', 'predicted'):
    before, after = getattr(problem, side), getattr(again, side)
    testing.assert_array_equal(before.sizes, after.sizes)
    testing.assert_array_equal(before.labels[after.rows], after.labels)
    assert len(set(after.rows.tolist())) < len(after.rows)
