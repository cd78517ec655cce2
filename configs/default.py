"""The built-in simulated data: the first run on a fresh machine.

  python -m pertjax.main --config=configs/default.py --workdir=runs/default

Arguments after a colon: model=NAME, split=METHOD, smoke (tiny, for tests).
"""

from pertjax import config as config_lib


def get_config(arg=''):
  options = config_lib.parse_arg(
    arg, model='latent_additive', split='combinations', smoke=False
  )
  config = config_lib.default(options.model, options.split)
  config.data.simulate.num_cells = 8_000
  config.data.simulate.num_genes = 1_000
  config.data.simulate.num_perturbations = 30
  config.data.simulate.num_doubles = 60
  config.data.simulate.num_cell_types = 1
  if options.split == 'combinations':
    config.split.val_fraction = 0.2
    config.split.test_fraction = 0.3
  config.num_seeds = 3
  if options.smoke:
    shrink(config)
  return config


def shrink(config):
  """Makes a run tiny, so that a test is over in seconds."""
  config.data.simulate.num_cells = 1_200
  config.data.simulate.num_genes = 60
  config.data.simulate.num_perturbations = 8
  config.data.simulate.num_doubles = 12
  config.data.simulate.num_programs = 4
  config.data.simulate.genes_per_program = 12
  config.num_seeds = 2
  config.train.steps = 20
  config.train.chunk = 10
  config.train.checkpoint_every = 1
  config.train.batch_size = 32
  config.eval.cells = 32
  config.eval.min_cells = 4
  config.eval.bootstrap = 200
