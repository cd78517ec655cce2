"""Kang et al. 2018 (PBMC, interferon-beta): transfer to an unseen cell type.

Every stimulated cell of one cell type is held out; its control cells are seen.
The file is downloaded from the catalogue on first use (24,673 cells x 15,706
genes, counts). Another version goes by --config.data.path=FILE, with its own
name of the cell type, and --config.data.scale where it holds log values.

  python -m pertjax.main --config=configs/kang.py --workdir=runs/kang
  python -m pertjax.main --config="configs/kang.py:cell_type=B cells" ...

Arguments: model=NAME, split=METHOD, cell_type=NAME (for the split 'transfer'),
smoke.
"""

from pertjax import config as config_lib
from pertjax import smoke


def get_config(arg=''):
  options = config_lib.parse_arg(
    arg, model='vae', split='transfer', cell_type='CD4 T cells', smoke=False
  )
  config = config_lib.default(options.model, options.split)
  config.data.dataset = 'kang2018'
  config.data.scale = 'counts'
  # The same for every version of the file; the column is 'label' in the
  # catalogue's, and 'condition', the preset's, in others.
  config.data.control = 'ctrl'
  config.data.covariates = ('cell_type',)
  # scGen was published on 6,998 genes.
  config.data.num_hvg = 7_000
  if options.split == 'transfer':
    config.split.test_groups = (options.cell_type,)
  config.num_seeds = 3
  config.train.steps = 10_000
  config.train.chunk = 500
  config.train.patience = 8
  if options.smoke:
    smoke.shrink(config)
  return config
