"""Columns of obs that a split takes its values from."""

import numpy as np
import pandas as pd
import pytest
from small_adata import make, take

from pertjax import data


@pytest.mark.parametrize(
  ('values', 'expected'),
  [
    (['d0', None] * 12, ['d0', '']),
    (pd.Categorical(['d0', np.nan] * 12), ['d0', '']),
    ([1.5, np.nan] * 12, ['1.5', '']),
    ([3, 4] * 12, ['3', '4']),
  ],
)
def test_missing_values_are_empty(values, expected):
  adata = make()
  adata.obs['donor'] = values
  column = data._column(take(adata), 'donor', 'split.units')
  assert column.tolist() == expected * 12


def test_columns_by_name():
  raw = take(make())
  assert data._column(raw, '', 'split.units') is None
  with pytest.raises(ValueError, match="split.units='batc'.*closest: 'batch'"):
    data._column(raw, 'batc', 'split.units')
