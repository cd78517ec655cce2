"""Paired tests of a run, placed beside its tables."""

import numpy as np
import pytest

from pertjax.report import columns, paired, read, scores

AXES = scores.Axes(
  models=('net', 'additive', 'mean'),
  kinds=('trained', 'baseline', 'baseline'),
  primary=0,
  splits=('test',),
  regimes=('all', 'seen2'),
  combos=(('delta', 'all', 'pearson'), ('delta', 'all', 'rmse')),
  directions={'pearson': 'higher', 'rmse': 'lower'},
  bests={'pearson': 1.0, 'rmse': 0.0},
)
LINE = {
  'split': 'test',
  'regime': 'all',
  'model': 'net',
  'against': 'additive',
  'aggregate': 'delta',
  'genes': 'all',
  'metric': 'pearson',
  'direction': 'higher',
  'verdict': 'better',
  'difference': 0.2,
  'low': 0.1,
  'high': 0.4,
  'p_adjusted': 0.01,
  'tests': 1,
  'effect': 0.7,
  'won': 0.9,
  'conditions': 20,
  'infinite': 0,
  'seeds': 3,
  'detectable': 0.15,
}
LOWER = LINE | {'metric': 'rmse', 'direction': 'lower'}


def make(tmp_path, *lines):
  path = tmp_path / 'paired.csv'
  names = (*read.PAIRED_TEXT, *read.PAIRED_NUMBERS)
  rows = [','.join(str(line[n]) for n in names) for line in lines]
  path.write_text('\n'.join([','.join(names), *rows]) + '\n')
  table = columns.read(path, text=read.PAIRED_TEXT, numbers=read.PAIRED_NUMBERS)
  return paired.make(table, AXES)


def test_lines_are_placed(tmp_path):
  other = LINE | {'model': 'mean', 'verdict': 'not tested', 'p_adjusted': ''}
  found = make(tmp_path, LINE, other | {'regime': 'seen2'})
  assert found.rivals.tolist() == [[[1, -1], [1, -1]]]
  assert found.mean[0, 0, 0, 0] == 0.2
  assert found.numbers['p_adjusted'][0, 0, 0, 0] == 0.01
  assert np.isfinite(found.mean).sum() == 2
  tones = [*paired.TONES.values(), '']
  assert tones[found.tones[0, 0, 0, 0]] == 'better'
  assert tones[found.tones[0, 1, 2, 0]] == 'none'
  assert (found.tones >= 0).sum() == 2
  assert np.isnan(found.numbers['p_adjusted'][0, 1, 2, 0])
  assert found.notes == ()


def test_a_difference_is_turned_back_where_lower_is_better(tmp_path):
  found = make(tmp_path, LOWER, LINE)
  place = (0, 0, 0, 1)
  ends = [float(x[place]) for x in (found.low, found.mean, found.high)]
  assert ends == [-0.4, -0.2, -0.1]
  assert found.numbers['effect'][place] == 0.7


def test_lines_without_a_place_are_counted(tmp_path):
  strange = [
    LINE | {key: 'strange'}
    for key in ('split', 'regime', 'model', 'against', 'metric')
  ]
  found = make(tmp_path, *strange, LINE | {'infinite': 4})
  assert found.notes[0].startswith('5 of 6 lines of eval/paired.csv')
  assert found.notes[1].startswith('1 paired comparisons hold infinite')
  assert np.isfinite(found.mean).sum() == 1
  nothing = make(tmp_path, *strange)
  assert (nothing.rivals == -1).all()
  assert make(tmp_path).notes == ()


@pytest.mark.parametrize(
  ('lines', 'words'),
  [
    ((LINE, LINE), "two lines for model 'net'.*delta/all/pearson"),
    (
      (LINE, LINE | {'model': 'additive', 'against': 'mean'}),
      "two baselines, '(mean|additive)' and",
    ),
    (
      (LINE | {'verdict': 'good'},),
      "verdict 'good' is not known, exp.*'worse'",
    ),
    ((LINE | {'direction': 'none'},), "direction 'none' is not known"),
  ],
)
def test_what_cannot_be_is_an_error(tmp_path, lines, words):
  with pytest.raises(ValueError, match=words):
    make(tmp_path, *lines)
