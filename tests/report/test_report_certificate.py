"""Rows of a certificate and of a red team."""

import numpy as np
import pytest

from pertjax.report import certificate, columns, read, scores

AXES = scores.Axes(
  models=('net',),
  kinds=('trained',),
  primary=0,
  splits=('test',),
  regimes=('all',),
  combos=(
    ('delta', 'all', 'pearson'),
    ('delta', 'top20', 'pearson'),
    ('logfc', 'all', 'r2'),
    ('logfc', 'all', 'cosine_rank'),
  ),
  directions={},
  bests={},
)


@pytest.mark.parametrize(
  ('metric', 'combo'),
  [
    ('delta|top20|pearson', 1),
    ('pearson_delta', 0),
    ('r2_score_logfc', 2),
    ('cosine_rank_logfc', 3),
    ('pearson', -1),
    ('cosine_logfc', -1),
    ('', -1),
    ('delta|top50|pearson', -1),
  ],
)
def test_metrics_are_found_in_the_tables(metric, combo):
  assert certificate.combo_of(metric, AXES) == combo


def table(text, numbers, rows):
  coded = {}
  for key in text:
    names = tuple(dict.fromkeys(row[key] for row in rows))
    codes = [names.index(row[key]) for row in rows]
    coded[key] = (names, np.array(codes, np.int32))
  return columns.Table(
    coded,
    {key: np.array([row.get(key, np.nan) for row in rows]) for key in numbers},
  )


def test_verdicts_are_counted():
  rows = [
    {'convention': 'c', 'metric': 'm', 'direction': 'none', 'verdict': words}
    for words in (
      'tells a replicate from the mean',
      'a diagnostic: nothing is better or worse',
      'no value on this dataset',
      'reads 0.3 where nothing happens, not 0.5',
      'a replicate reaches 1.0% of the range only',
    )
  ]
  rows[0] |= {'best': np.inf, 'ceiling': 0.12345678}
  made = certificate.rows(
    table(read.CERTIFICATE_TEXT, read.CERTIFICATE_NUMBERS, rows), AXES
  )
  assert certificate.summary(made) == {
    'rows': 5,
    'sound': 1,
    'silent': 2,
    'faults': 2,
  }
  assert made[0]['best'] is None
  assert made[0]['ceiling'] == 0.123457


def test_the_red_team_shows_what_is_flagged_by_metric():
  rows = [
    {
      'convention': 'c',
      'metric': f'm{i // 4}',
      'submission': f's{i}',
      'flag': 'True' if i % 4 != 3 else 'False',
      'finding': 'f',
    }
    for i in range(40)
  ]
  found = certificate.red_team(
    table(read.RED_TEAM_TEXT, read.RED_TEAM_NUMBERS, rows)
  )
  assert (found['flagged'], found['tried']) == (30, 40)
  assert (found['caught'], found['metrics']) == (10, 10)
  shown = found['open'] + found['more']
  assert len(shown) == 30
  assert [row['rows'] for row in shown[:4]] == [3, 0, 0, 3]
  assert sum(row['rows'] for row in found['open']) == len(found['open'])
  assert sum(row['rows'] for row in found['more']) == len(found['more'])
