"""McFaline-Figueroa et al. 2023 (CRISPRi of kinases): transfer between lines.

Pairs of perturbation and context are held out whose perturbation is seen in
other contexts. The catalogue's file (878,229 cells x 15,009 genes, 5.5 GB to
download) has cell line x treatment as its contexts; a local file goes by
--config.data.path=FILE, with its own --config.data.covariates where they are
not cell_type alone.

  python -m pertjax.main --config=configs/mcfaline.py --workdir=runs/mcfaline

Arguments: model=NAME, split=METHOD, smoke.
"""

from pertjax import config as config_lib
from pertjax import smoke


def get_config(arg=''):
  options = config_lib.parse_arg(
    arg, model='latent_additive', split='transfer', smoke=False
  )
  config = config_lib.default(options.model, options.split)
  config.data.dataset = 'mcfaline2023_perturbench'
  config.data.scale = 'counts'
  # As PerturBench prepares it: 4,000 variable genes, and 25 for each pair.
  config.data.num_hvg = 4_000
  config.data.degs = 25
  config.data.storage = 'csr'
  if options.split == 'transfer':
    config.split.val_fraction = 0.15
    config.split.test_fraction = 0.15
    # A pair that is scored has enough cells for two halves.
    config.split.min_cells = 20
  config.num_seeds = 3
  config.train.steps = 10_000
  config.train.chunk = 500
  config.train.patience = 8
  if options.model == 'latent_additive':
    # PerturBench's sizes for this dataset, with the smallest context split.
    config.model.num_layers = 1
    config.model.width = 1280
    config.model.latent_dim = 512
    config.model.dropout = 0.0
    config.optimizer.learning_rate = 2.1235e-4
    config.optimizer.weight_decay = 1.410e-7
    config.train.batch_size = 1024
  if options.smoke:
    smoke.shrink(config)
  return config
