"""The simulator's options: refused, recorded, and at their extremes."""

import numpy as np
import pytest

from pertjax.data import simulate


@pytest.mark.parametrize(
  ('options', 'words'),
  [
    ({'num_cells': -5}, ['num_cells=-5', 'from 1']),
    ({'num_genes': 0}, ['num_genes=0', 'from 1']),
    ({'num_genes': 2.5}, ['num_genes=2.5', 'an integer']),
    ({'num_cells': True}, ['num_cells=True', 'an integer']),
    ({'num_genes': 20, 'num_perturbations': 21}, ['21', 'at most 20']),
    ({'num_doubles': 436}, ['num_doubles=436', 'at most 435']),
    ({'control_fraction': 1.5}, ['control_fraction=1.5', 'from 0 to 1']),
    ({'null_fraction': -0.1}, ['null_fraction=-0.1', 'from 0 to 1']),
    ({'guide_failure': float('nan')}, ['guide_failure=nan']),
    ({'epistasis': -1}, ['epistasis=-1', 'from 0 to 10']),
    ({'genes_per_program': 5_000}, ['genes_per_program=5000', 'at most 1930']),
    ({'control_fraction': 0.0}, ['control_fraction=0', 'at least 4']),
    ({'num_cells': 100}, ['num_cells=100', 'at least 150']),
    ({'mode': 'knockout'}, ["mode='knockout'", 'activation, knockdown']),
    ({'doses': ()}, ['doses=()', 'above 0']),
    ({'doses': (1.0, -1.0)}, ['doses=(1.0, -1.0)']),
    ({'doses': (1.0, 1.0)}, ['doses=(1.0, 1.0)', 'different']),
    ({'doses': ('1',)}, ["doses=('1',)"]),
    ({'num_perturbation': 3}, ["'num_perturbation'", 'num_perturbations']),
    ({'seed': -1}, ['seed=-1', '0 or more']),
    ({'seed': 1.0}, ['seed=1.0', 'an integer']),
  ],
)
def test_bad_options_are_named(options, words):
  with pytest.raises(ValueError) as error:
    simulate.simulate(**options)
  for word in words:
    assert word in str(error.value)


@pytest.mark.parametrize(
  'overrides',
  [
    {'num_programs': 1},
    {'num_doubles': 0},
    {'num_perturbations': 1, 'num_doubles': 0},
    {'num_cell_types': 1, 'num_batches': 1},
    {'null_fraction': 1.0},
    {'guide_failure': 1.0},
    {'num_perturbations': 60, 'genes_per_program': 0},
    {'effect_scale': 10.0, 'epistasis': 10.0},
    {'batch_spread': 0.0, 'library_spread': 0.0, 'cell_type_spread': 0.0},
  ],
)
def test_extremes_are_finite(overrides):
  adata = simulate.tiny(seed=0, **overrides)
  assert adata.shape == (600, 60)
  for key in ('effect', 'log_share', 'log_bulk', 'mean_log1p', 'activity'):
    assert np.all(np.isfinite(adata.uns['simulation'][key])), key
  if overrides.get('guide_failure') == 1.0:
    assert set(adata.obs['effective_condition']) == {'control'}


def test_defaults_are_the_recorded_parameters():
  found = simulate.tiny(seed=3).uns['simulation']['parameters']
  assert set(found) == set(simulate.default_config())
  assert found['num_genes'] == 60
  assert found['epistasis'] == simulate.default_config()['epistasis']
