"""The grid of SENA's ablation: overrides of configs/sena_ablation.py.

Each entry is one run: {dotted config key: value}. Three seeds are an axis of
each run (num_seeds). Grids as in the history of the original's repository:
lambda, L1 weight and beta; first layers of one and two layers.
"""

import itertools

LAMBDAS = (0.0, 1e-5, 1e-3, 1e-2, 1e-1, 10**-0.3)
L1_WEIGHTS = (1e-3, 1e-5, 1e-7)
BETAS = (0.01, 0.1, 1.0, 10.0)


def get_sweep():
  """Returns a list of {dotted config key: value}."""
  encoders = [{'model.encoder': 'mlp'}]
  encoders += [
    {'model.encoder': 'sena', 'model.sena_lambda': value} for value in LAMBDAS
  ]
  encoders += [
    {'model.encoder': 'l1', 'model.l1_weight': value} for value in L1_WEIGHTS
  ]
  kinds = [{'model.variational': False}]
  kinds += [
    {'model.variational': True, 'model.kl_weight': value} for value in BETAS
  ]
  layers = [{'model.num_layers': value} for value in (1, 2)]
  return [
    {**kind, **layer, **encoder}
    for kind, layer, encoder in itertools.product(kinds, layers, encoders)
  ]
