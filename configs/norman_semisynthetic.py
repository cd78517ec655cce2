"""Doubles of Norman et al. 2019, semi-synthetic: the truth at full depth.

Negative-binomial cells drawn to reproduce the measured mean effects of Norman's
perturbations over a measured baseline; never call them real. The file is not in
the catalogue. It holds a part of the genes, so counts are scaled by the depth
over the whole transcriptome, obs column total_counts_full.

  python -m pertjax.main --config=configs/norman_semisynthetic.py \
    --config.data.path=FILE --workdir=runs/norman_semisynthetic

Arguments: model=NAME, split=METHOD, smoke.
"""

from pertjax import config as config_lib
from pertjax import smoke


def get_config(arg=''):
  options = config_lib.parse_arg(
    arg, model='latent_additive', split='combinations', smoke=False
  )
  config = config_lib.default(options.model, options.split)
  # Not in the catalogue: without data.path this is an error that says so.
  config.data.dataset = 'norman_semisynthetic'
  config.data.scale = 'counts'
  config.data.totals_key = 'total_counts_full'
  config.num_seeds = 3
  if options.split == 'combinations':
    # As configs/norman.py, so that results lie side by side.
    config.split.val_fraction = 0.15
    config.split.test_fraction = 0.35
  config.train.steps = 3_000
  if options.model == 'latent_additive':
    config.model.num_layers = 1
    config.model.width = 512
    config.model.latent_dim = 64
    config.model.dropout = 0.1
    config.optimizer.learning_rate = 5e-4
    config.train.batch_size = 512
    config.train.patience = 10
  if options.smoke:
    smoke.shrink(config)
  return config
