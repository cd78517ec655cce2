"""The auto-encoders of SENA's ablation (arXiv 2506.12439) on Norman's singles.

What a gene-set layer costs in reconstruction, beside dense and L1-penalised
first layers; the sweep is configs/sweeps/sena_ablation.py. Gene sets go by
data.gene_sets, as in configs/sena.py.

  python -m pertjax.main --config=configs/sena_ablation.py:encoder=sena \
    --config.data.gene_sets=FILE --workdir=runs/ablation/sena

Arguments: encoder=sena|mlp|l1, vae (variational), layers=1|2, beta=1.0,
lambda=0.0, l1=1e-5, steps=N (the original: 250 epochs), simulate, model=NAME,
split=METHOD, smoke.
"""

from pertjax import config as config_lib
from pertjax import smoke


def get_config(arg=''):
  options = config_lib.parse_arg(
    arg,
    model='gene_set_autoencoder',
    split='cells',
    encoder='sena',
    vae=False,
    layers=1,
    beta=1.0,
    l1=1e-5,
    steps=20_000,
    simulate=False,
    smoke=False,
    **{'lambda': 0.0},
  )
  config = config_lib.default(options.model, options.split)
  config.data.dataset = 'norman2019_cpa'
  config.data.scale = 'log1p'
  if options.split == 'cells':
    # A tenth of every condition's cells, as in the original.
    config.split.val_fraction = 0.05
    config.split.test_fraction = 0.1
  config.num_seeds = 3
  config.train.steps = options.steps
  config.train.chunk = min(500, options.steps)
  if options.model == 'gene_set_autoencoder':
    config.model.encoder = options.encoder
    config.model.variational = options.vae
    config.model.num_layers = options.layers
    config.model.kl_weight = options.beta
    config.model.sena_lambda = options['lambda']
    config.model.l1_weight = options.l1
  if options.simulate:
    config.data.dataset = 'simulate'
    config.data.scale = 'counts'
    config.data.simulate.num_cells = 8_000
    config.data.simulate.num_genes = 1_000
    config.data.simulate.num_cell_types = 1
  if options.smoke:
    smoke.shrink(config)
  return config
