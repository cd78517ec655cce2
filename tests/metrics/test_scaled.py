"""Scores between baseline and replicate: the challenges' own arithmetic."""

import numpy as np
import pytest
import toy_adata

from pertjax import metrics
from pertjax.metrics import __main__ as command
from pertjax.metrics.anndata import challenges

COUNTS = {'perturbation_key': 'condition', 'control': 'non-targeting'}


@pytest.fixture(scope='module')
def table_2025():
  return metrics.scaled(
    toy_adata.made(),
    toy_adata.made('predicted'),
    convention='vcc2025',
    **toy_adata.KEYS,
  ).set_index('metric')


@pytest.fixture(scope='module')
def table_2026():
  return metrics.scaled(
    toy_adata.counts(), toy_adata.counts('predicted'), **COUNTS
  ).set_index('metric')


def test_vcc2025(table_2025):
  table = table_2025
  assert list(table.index) == ['DES', 'PDS', 'MAE', challenges.OVERALL]
  # The means are those of fixture A.
  np.testing.assert_allclose(
    table['value'].iloc[:3], [0.584742, 0.972222, 0.208224], atol=1e-6
  )
  des, pds, mae = (table.loc[name] for name in ('DES', 'PDS', 'MAE'))
  for row in (des, pds):
    expected = (row['value'] - row['baseline']) / (1 - row['baseline'])
    assert row['score'] == pytest.approx(100 * expected)
  assert mae['score'] == pytest.approx(100 * (1 - mae.value / mae.baseline))
  assert table['score'].iloc[3] == pytest.approx(table['score'].iloc[:3].mean())
  assert table['replicate'].isna().all()


def test_vcc2026(table_2026):
  table = table_2026
  assert len(table) == 7
  rows = table.iloc[:6]
  np.testing.assert_allclose(
    rows['score'],
    (rows['value'] - rows['baseline']) / (rows['replicate'] - rows['baseline']),
  )
  assert table.loc[challenges.OVERALL, 'score'] == pytest.approx(
    rows['score'].mean()
  )
  # The published value of fixture B; a mean response is at chance.
  assert rows.loc['pds_cosine', 'value'] == pytest.approx(0.9)
  assert rows.loc['pds_cosine', 'baseline'] == pytest.approx(0.5)


def test_a_baseline_that_is_given(table_2025):
  """The baseline itself scores nothing; what is given is used."""
  observed, baseline = toy_adata.made(), toy_adata.made('predicted')
  table = metrics.scaled(
    observed,
    baseline,
    baseline=baseline,
    convention='vcc2025',
    **toy_adata.KEYS,
  ).set_index('metric')
  np.testing.assert_allclose(table['score'], 0, atol=1e-9)
  assert any('given' in note for note in table.attrs['notes'])
  assert table.loc['DES', 'value'] == table_2025.loc['DES', 'value']


def test_refusals():
  both = toy_adata.made(), toy_adata.made('predicted')
  with pytest.raises(ValueError, match='allowed: cell-eval, vcc2025'):
    metrics.scaled(*both, convention='perturbench', **toy_adata.KEYS)
  with pytest.raises(ValueError, match='counts'):
    metrics.scaled(*both, convention='vcc2026', **toy_adata.KEYS)


def test_from_the_command_line(tmp_path, capsys):
  paths = {}
  for side in ('observed', 'predicted'):
    paths[side] = str(tmp_path / f'{side}.h5ad')
    toy_adata.made(side).write_h5ad(paths[side])
  arguments = [
    'scaled', f'--observed={paths["observed"]}',
    f'--predicted={paths["predicted"]}', '--convention=vcc2025',
    f'--output={tmp_path / "scaled.csv"}',
  ]  # fmt: skip
  assert command.main(arguments) == 0
  printed = capsys.readouterr()
  assert 'overall' in printed.out
  assert 'one pool of observed cells' in printed.err
  assert (tmp_path / 'scaled.csv').read_text().startswith('convention,metric')
  assert command.main([*arguments, '--metrics=mae']) == 2
