"""Norman et al. 2019 (CRISPRa, K562): predict held-out double perturbations.

The file is downloaded from the catalogue on first use (GEARS's version, 91,205
cells x 5,045 genes); a local file goes by --config.data.path=FILE, with its
own --config.data.preset where its conditions are named otherwise.

  python -m pertjax.main --config=configs/norman.py --workdir=runs/norman

Arguments: model=NAME, split=METHOD, published (PerturBench's sizes), smoke.
"""

from pertjax import config as config_lib
from pertjax import smoke


def get_config(arg=''):
  options = config_lib.parse_arg(
    arg,
    model='latent_additive',
    split='combinations',
    published=False,
    smoke=False,
  )
  config = config_lib.default(options.model, options.split)
  config.data.dataset = 'norman2019_gears'
  config.data.scale = 'log1p'
  config.num_seeds = 3
  if options.split == 'combinations':
    # Of 131 doubles: half to train, as in Ahlmann-Eltze et al. 2025.
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
  if options.published:
    publish(config)
  if options.smoke:
    smoke.shrink(config)
  return config


def publish(config):
  """Sets LatentAdditive as PerturBench tuned it on this dataset.

  arXiv 2408.10609, first release: 55,517,704 parameters at 5,000 genes, batch
  4,000, at most 500 epochs; a GPU is advised.
  """
  if config.model.name != 'latent_additive':
    raise ValueError('published sizes are there for model=latent_additive only')
  config.model.width = 5376
  config.optimizer.learning_rate = 6.7796e-5
  config.optimizer.weight_decay = 1.0407e-8
  config.optimizer.plateau_patience = 15
  config.train.batch_size = 4_000
  config.train.steps = 5_000
  config.train.chunk = 20
  config.train.patience = 50
