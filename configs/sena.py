"""SENA-discrepancy-VAE on Norman et al. 2019 (arXiv 2506.12439): doubles.

Trained on singles, tested on doubles. Gene sets go by data.gene_sets (see
pertjax/data/gene_sets.py); the original's were the gene ontology's, restricted
to a list:

  python -m pertjax.main --config=configs/sena.py --workdir=runs/sena \
    --config.data.gene_sets=go_kegg_gene_map.tsv \
    --config.data.gene_set_allow=topGO_uhler.tsv \
    --config.data.gene_set_ids="('ensembl_genename_mapping.tsv',)"
  python -m pertjax.main --config=configs/sena.py:simulate --workdir=runs/sena

Arguments: lambda=0.1 (what genes outside of a set count), mlp (a dense encoder
of the same width), latent=35, epochs=100 (of the schedules), steps=N (of the
run; SENA's 100 epochs of Norman are about 180,000), parent (the settings of the
discrepancy-VAE, arXiv 2307.06250), parity (as the original computes; needs
JAX_ENABLE_X64=1), simulate (the built-in data, whose programs are the gene
sets), model=NAME, split=METHOD, smoke.
"""

from pertjax import config as config_lib
from pertjax import smoke
from pertjax.models import interventions


def get_config(arg=''):
  options = config_lib.parse_arg(
    arg,
    model='discrepancy_vae',
    split='',
    mlp=False,
    latent=105,
    epochs=100,
    steps=20_000,
    parent=False,
    parity=False,
    simulate=False,
    smoke=False,
    **{'lambda': 0.0},
  )
  split = options.split or ('sena' if options.parity else 'combinations')
  config = config_lib.default(options.model, split)
  # The file that SENA's code opens, whatever name it is given.
  config.data.dataset = 'norman2019_cpa'
  config.data.scale = 'log1p'
  if split == 'combinations':
    # No double trains; some of them choose among the steps of a run.
    config.split.val_fraction = 0.15
    config.split.test_fraction = 0.85
  # 42, 43 and 44; SENA's table has 42 and 13.
  config.seed = 42
  config.num_seeds = 3
  config.train.steps = options.steps
  config.train.chunk = min(500, options.steps)
  config.train.batch_size = 32
  if options.model == 'discrepancy_vae':
    _set_model(config.model, options)
    if options.parity:
      config.train.select = 'criterion'
  if options.simulate:
    simulate(config)
  if options.smoke:
    smoke.shrink(config)
  return config


def _set_model(model, options):
  model.encoder = 'mlp' if options.mlp else 'sena'
  model.sena_lambda = options['lambda']
  model.latent_dim = options.latent
  model.epochs = options.epochs
  for name, ends in interventions.original_ramps(options.epochs).items():
    model[f'{name}_ramp'] = ends
  model.parity = options.parity
  if options.parity:
    model.sampling = 'condition_epochs_original'
  if options.parent:
    # Its encoder has 128 units whatever the gene sets are.
    model.update(encoder='mlp', width=128, reduction='sum')
    model.update(mmd_weight=10.0, kl_weight=2.0, l1_weight=1e-3)
    model.update(mmd_sigma=1000.0, temperature=5.0, eval_temperature=1.0)


def simulate(config):
  """Sets simulated data of one cell type; programs are the gene sets."""
  config.data.dataset = 'simulate'
  config.data.scale = 'counts'
  config.data.simulate.num_cells = 8_000
  config.data.simulate.num_genes = 1_000
  config.data.simulate.num_perturbations = 30
  config.data.simulate.num_doubles = 60
  config.data.simulate.num_cell_types = 1
  if config.model.name == 'discrepancy_vae':
    # With SENA's own values all 30 perturbations settle on one factor here,
    # and nothing is learnt of their differences: an epoch has 90 batches, not
    # Norman's 1,700, and cells are further apart than 200.
    config.model.intervention_scale = 50.0
    config.model.fan_in = 'set'
    config.model.mmd_sigma = 8000.0
