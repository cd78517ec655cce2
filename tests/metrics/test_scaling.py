"""Scores between a baseline and what is possible."""

import numpy as np
import pytest

from pertjax.metrics import scaling
from pertjax.metrics.conventions import base

NAN = float('nan')
CELL_EVAL = base.get('cell-eval')
PDS = 'discrimination_score_l1'


def test_from_baseline():
  values = {
    'mse': 0.2, 'mae': 0.9, 'pearson_delta': 0.7, 'overlap_at_N': 0.1,
    'de_nsig_counts_real': 12.0,
  }  # fmt: skip
  low = {
    'mse': 0.5, 'mae': 0.6, 'pearson_delta': 0.4, 'overlap_at_N': 0.4,
    'de_nsig_counts_real': 12.0, 'roc_auc': 0.5,
  }  # fmt: skip
  found = scaling.from_baseline(values, low, convention=CELL_EVAL)
  assert found == {
    'mse': pytest.approx(0.6),
    'mae': 0,
    'pearson_delta': pytest.approx(0.5),
    'overlap_at_N': 0,
    'avg_score': pytest.approx(1.1 / 4),
  }


@pytest.mark.parametrize(
  ('undefined', 'average'), [('keep', 0.6), ('zero', 0.3)]
)
def test_what_is_undefined(undefined, average):
  found = scaling.from_baseline(
    {'mse': 0.2, 'roc_auc': NAN},
    {'mse': 0.5, 'roc_auc': 0.5},
    convention=CELL_EVAL,
    undefined=undefined,
  )
  assert found['avg_score'] == pytest.approx(average)
  assert np.isnan(found['roc_auc']) == (undefined == 'keep')


def test_a_baseline_that_is_perfect_leaves_no_scale():
  found = scaling.from_baseline(
    {'mse': 0.0, 'overlap_at_N': 0.3},
    {'mse': 0.0, 'overlap_at_N': 1.0},
    convention=CELL_EVAL,
  )
  assert np.isnan(found['mse'])
  assert found['overlap_at_N'] == 0


def test_vcc2025():
  values = {'overlap_at_N': 0.4, PDS: 0.8, 'mae': 0.03, 'mse': 1.0}
  low = {'overlap_at_N': 0.1, PDS: 0.5, 'mae': 0.02}
  assert scaling.vcc2025_score(values, low) == {
    'DES': pytest.approx(100 * 0.3 / 0.9),
    'PDS': pytest.approx(60),
    'MAE': 0,
    'overall': pytest.approx((100 / 3 + 60) / 3),
  }
  nothing = scaling.vcc2025_score({**values, 'overlap_at_N': NAN}, low)
  assert nothing['DES'] == 0
  with pytest.raises(ValueError, match="'mae'"):
    scaling.vcc2025_score({'overlap_at_N': 1.0, PDS: 1.0}, low)


def test_between():
  found = scaling.between(
    {'a': 0.5, 'b': 2.0, 'c': 0.1, 'd': 1.0, 'e': NAN},
    {'a': 0.0, 'b': 4.0, 'c': 0.2, 'd': 0.5, 'e': 0.0},
    {'a': 0.4, 'b': 0.0, 'c': 0.4, 'd': 0.5, 'e': 1.0},
  )
  # Lower is better in b; a is above its replicate, c below its baseline.
  assert found['a'] == pytest.approx(1.25)
  assert found['b'] == pytest.approx(0.5)
  assert found['c'] == pytest.approx(-0.5)
  assert np.isnan(found['d'])
  assert np.isnan(found['e'])
  assert found['avg_score'] == pytest.approx(1.25 / 3)
  with pytest.raises(ValueError, match="'z' is unknown"):
    scaling.between({'a': 1.0}, {'a': 0.0}, {'a': 1.0}, columns=['z'])


def test_spearman_brown():
  assert scaling.spearman_brown(0.5) == pytest.approx(2 / 3)
  assert scaling.spearman_brown(1.0) == 1
  for r in (0.0, -0.4, NAN):
    assert np.isnan(scaling.spearman_brown(r))


def test_wrong_names():
  with pytest.raises(ValueError, match='mse'):
    scaling.from_baseline({'msee': 1.0}, {'msee': 1.0}, convention=CELL_EVAL)
  with pytest.raises(ValueError, match='allowed'):
    scaling.from_baseline({}, {}, convention=CELL_EVAL, undefined='drop')
