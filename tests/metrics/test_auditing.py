"""Certificates, red teams and comparisons of AnnData."""

import math

import numpy as np
import pandas as pd
import pytest
import toy_adata
from numpy import testing

from pertjax.metrics import anndata as front
from pertjax.metrics import attacks, certificate, comparison, problem
from pertjax.metrics.anndata import comparing, printing

KEYS = {**toy_adata.KEYS, 'convention': 'toy'}


@pytest.fixture(autouse=True)
def _known(monkeypatch):
  toy_adata.only_known(monkeypatch)


def test_certificate_is_that_of_the_arrays():
  notes = []
  adata = toy_adata.made()
  table = front.certify(adata, splits=2, seed=3, say=notes.append, **KEYS)
  assert tuple(table.columns) == certificate.FIELDS
  made = problem.from_arrays(
    adata.X, adata.obs['condition'], adata.X, adata.obs['condition'],
    control='ctrl', genes=adata.var_names,
  )  # fmt: skip
  lines = certificate.certificate(made, toy_adata.TOY, splits=2, seed=3)
  pd.testing.assert_frame_equal(table, pd.DataFrame(lines))
  assert [n for n in notes if n == 'toy: scoring null 2 of 2']
  assert 'both sides hold log1p values' in table.attrs['notes']
  assert not [n for n in table.attrs['notes'] if 'same cells' in n]


def test_red_team_of_two_conventions(tmp_path):
  path = tmp_path / 'real.h5ad'
  toy_adata.made().write_h5ad(path)
  table = front.red_team(
    path, backed=True, say=[].append,
    **{**KEYS, 'convention': ['toy', 'logs'], 'metrics': ['mse']},
  )  # fmt: skip
  assert tuple(table.columns) == attacks.FIELDS
  assert table['convention'].tolist() == ['toy'] * 11 + ['logs'] * 11
  first, second = (
    table[table['convention'] == c].drop(columns='convention')
    for c in ('toy', 'logs')
  )
  pd.testing.assert_frame_equal(first, second.reset_index(drop=True))


def test_conditions_with_few_cells_are_left_out():
  adata = toy_adata.made()
  place = adata.obs.groupby('condition').cumcount()
  few = adata[(adata.obs['condition'] != 'G07') | (place < 3)].copy()
  with pytest.warns(front.ScoreWarning, match="than 4 .* left out: 'G07'"):
    table = front.certify(few, splits=2, metrics=['mse'], **KEYS)
  assert table['conditions'].tolist() == [5]
  table = front.certify(
    few, splits=2, metrics=['mse'], min_cells=2, say=[].append, **KEYS
  )
  assert table['conditions'].tolist() == [6]
  for options, message in (
    ({'min_cells': 1}, 'min_cells is 1; two halves'),
    ({'min_cells': 40}, 'no condition has 40 .* the largest has 14'),
    ({'splits': 1}, 'splits is 1'),
  ):
    with pytest.raises(ValueError, match=message):
      front.certify(adata, say=[].append, **KEYS, **options)
  bare = adata[(adata.obs['condition'] != 'ctrl') | (place < 1)].copy()
  with pytest.raises(ValueError, match="the control 'ctrl' has 1 observed"):
    front.red_team(bare, **KEYS)
  with pytest.raises(ValueError, match="'logs' takes log1p; observed holds"):
    front.red_team(
      toy_adata.counts(), perturbation_key='condition',
      control='non-targeting', convention='logs',
    )  # fmt: skip


# ----------------------------------------------------------------------------


def scores(values, conditions=None, covariates=None, metric='mse'):
  """Returns a table of `score` with given values {model: [conditions]}."""
  rows = []
  for model, row in values.items():
    for at, value in enumerate(row):
      rows.append(
        {
          'model': model, 'convention': 'toy', 'metric': metric, 'version': 1,
          'level': 'condition',
          'covariate': covariates[at] if covariates else '',
          'condition': conditions[at] if conditions else f'c{at}',
          'value': value, 'low': np.nan, 'high': np.nan, 'used': 1,
          'dropped': 0, 'reason': '',
        }
      )  # fmt: skip
  return pd.DataFrame(rows)


@pytest.fixture
def values():
  random = np.random.default_rng(0)
  base = random.random(14)
  return {
    'good': base, 'bad': base + 0.3 + 0.1 * random.random(14),
    'same': base + 0.02 * random.normal(size=14),
  }  # fmt: skip


def test_compare_is_that_of_the_arrays(values):
  table = front.compare(scores(values))
  assert tuple(table.columns) == comparing.FIELDS
  # Sorted by name, so that p does not depend on the order of the table.
  order = np.argsort([f'c{i}' for i in range(14)])
  expected = comparison.compare(
    np.stack(list(values.values()))[:, order],
    names=list(values),
    direction='lower',
  )
  backwards = front.compare(scores(values).iloc[::-1], reference='bad')
  forwards = front.compare(scores(values), reference='bad')
  assert set(backwards['p']) == set(forwards['p'])
  assert table['model'].tolist() == list(expected.models)
  assert table['against'].tolist() == list(expected.against)
  for name in ('difference', 'p_adjusted', 'won', 'detectable'):
    testing.assert_allclose(table[name], getattr(expected, name), rtol=1e-9)
  found = table.set_index(['model', 'against'])['verdict']
  assert found['good', 'bad'] == 'better'
  assert found['good', 'same'] == 'no difference shown'
  assert table.attrs['notes']


def test_compare_with_a_reference(values):
  table = front.compare(scores(values), reference='bad')
  assert table['against'].tolist() == ['bad', 'bad']
  assert table['verdict'].tolist() == ['better', 'better']
  assert (table['difference'] > 0).all()


def test_conditions_of_a_name_are_one_unit(values):
  conditions = [f'c{i // 2}' for i in range(14)]
  covariates = ['k', 'l'] * 7
  table = front.compare(scores(values, conditions, covariates))
  assert table['units'].tolist() == [7, 7, 7]
  assert table['conditions'].tolist() == [14, 14, 14]


def test_what_cannot_be_compared_is_counted(values):
  values['good'][3] = np.inf
  values['bad'][4] = np.nan
  table = front.compare(scores({k: values[k] for k in ('good', 'bad')}))
  (row,) = table.itertuples()
  assert (row.conditions, row.left_out, row.infinite) == (12, 2, 1)
  both = pd.concat([scores(values), scores(values, metric='total').assign(
    level='aggregate')])  # fmt: skip
  notes = front.compare(both).attrs['notes']
  assert [n for n in notes if 'one value for all conditions' in n]


def test_compare_of_scores_from_a_file(tmp_path):
  models = {'a': toy_adata.made('predicted'), 'b': toy_adata.made()}
  table = front.score(toy_adata.made(), models, say=[].append, **KEYS)
  table.to_csv(tmp_path / 's.csv', index=False)
  again = front.read_scores(tmp_path / 's.csv')
  pd.testing.assert_frame_equal(
    front.compare(again), front.compare(table), check_exact=False
  )
  found = front.compare(table, metrics=['mse'])
  assert found['verdict'].tolist() == ['worse']


def test_names_such_as_na_are_names(tmp_path, values):
  table = scores(values, ['NA', 'null', *(f'c{i}' for i in range(12))])
  table['value'] = table['value'].where(table['condition'] != 'c3')
  table.to_csv(tmp_path / 's.csv', index=False)
  again = front.read_scores(tmp_path / 's.csv')
  assert again['condition'].tolist() == table['condition'].tolist()
  testing.assert_allclose(again['value'], table['value'])


def test_compare_errors(tmp_path, values):
  table = scores(values)
  for changed, options, message in (
    (table.drop(columns='model'), {}, "lacks the column.s. 'model'"),
    (scores({'good': values['good']}), {}, "has the model.s. 'good'"),
    (table, {'reference': 'god'}, "reference: 'god' is unknown; closest: good"),
    (table, {'metrics': ['mae']}, "metrics: 'mae'.*mse"),
    (pd.concat([table, table]), {}, "two values of 'mse'.*'good' in 'c0'"),
  ):
    with pytest.raises(ValueError, match=message):
      front.compare(changed, **options)
  with pytest.raises(FileNotFoundError, match='no such file'):
    front.read_scores(tmp_path / 'none.csv')
  (tmp_path / 'empty.csv').write_text('')
  with pytest.raises(ValueError, match='cannot be read as a table'):
    front.read_scores(tmp_path / 'empty.csv')


# ----------------------------------------------------------------------------


def test_lines_fit_a_terminal(values):
  table = front.certify(
    toy_adata.made(), splits=2, say=[].append, **{**KEYS,
    'convention': ['toy', 'gears'], 'metrics': ['mse', 'pearson_delta', 'total',
    'frac_opposite_direction_top20_non_dropout', 'std_sigma']},
  )  # fmt: skip
  texts = [
    printing.certificate(table),
    printing.red_team(front.red_team(toy_adata.made(), say=[].append, **KEYS)),
    printing.compare(front.compare(scores(values))),
  ]
  for lines in texts:
    assert max(len(line) for line in lines) <= printing.WIDTH
  text = '\n'.join(texts[0])
  assert 'frac_opposite_direction_top20_non_dropout' in text
  assert 'a diagnostic: nothing is better or worse' in text
  assert 'Toy: good against bad' in '\n'.join(texts[2])


def test_numbers_are_short():
  assert printing.number(math.nan) == '-'
  assert printing.number(0.123456) == '0.1235'
  assert printing.number(1234567.0) == '1.23e+06'
  lines = printing.aligned(
    ('', 'a', ''), [('x', '1', 'why ' * 40), ('yy', '22', '')]
  )
  assert lines[:2] == ['     a', 'x    1']
  assert lines[-1] == 'yy  22'
  assert all(line.startswith('    ') for line in lines[2:-1])
