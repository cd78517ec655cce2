"""Models against simulated truth: does the whole way find what is there?"""

import csv

import numpy as np
import pytest

from pertjax import config as config_lib
from pertjax import runs

# Additive truth: how far below the ceiling, and below the additive baseline, a
# score may lie. The first is the noise of the single shifts, which the
# replicate does not have.
NEAR_CEILING = 0.05
NEAR_ADDITIVE = 0.05


def _config(epistasis):
  config = config_lib.default('latent_additive')
  config.data.simulate.update(
    num_cells=24_000,
    num_genes=500,
    num_perturbations=25,
    num_doubles=180,
    num_cell_types=1,
    num_programs=10,
    genes_per_program=40,
    epistasis=epistasis,
  )
  config.split.update(val_fraction=0.2, test_fraction=0.3)
  config.model.update(width=256, latent_dim=64)
  config.train.update(batch_size=512, steps=1_500, patience=5)
  config.eval.save_predictions = False
  config.log.update(report=False, tensorboard=False)
  return config


def _scores(workdir):
  """Returns {model: delta Pearson of each pair, mean over seeds}."""
  values = {}
  with (workdir / 'eval' / 'metrics.csv').open(encoding='utf-8') as file:
    for row in csv.DictReader(file):
      key = (row['aggregate'], row['genes'], row['metric'])
      if key == ('delta', 'all', 'pearson') and row['value']:
        pairs = values.setdefault(row['model'], {})
        pair = (row['covariate'], row['condition'])
        pairs.setdefault(pair, []).append(float(row['value']))
  return {
    model: np.array([np.mean(pairs[k]) for k in sorted(pairs)])
    for model, pairs in values.items()
  }


@pytest.mark.slow
def test_additive_truth(tmp_path):
  runs.start(_config(0.0), tmp_path)
  scores = _scores(tmp_path)
  mean = {model: x.mean() for model, x in scores.items()}
  assert mean['additive'] > mean['ceiling'] - NEAR_CEILING
  assert mean['latent_additive'] > mean['additive'] - NEAR_ADDITIVE
  assert mean['additive'] > mean['mean'] + 0.2


@pytest.mark.slow
def test_with_epistasis_a_trained_model_beats_additive(tmp_path):
  runs.start(_config(3.0), tmp_path)
  scores = _scores(tmp_path)
  difference = scores['latent_additive'] - scores['additive']
  error = difference.std(ddof=1) / np.sqrt(len(difference))
  assert difference.mean() > 2 * error
