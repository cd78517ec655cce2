"""Settings and fixtures shared by every test."""

import os
import pathlib
import tempfile

# Before jax is imported: the tests need a CPU and nothing else.
os.environ.setdefault('JAX_PLATFORMS', 'cpu')

# Many tests compile the same programs, and so do the processes that some start:
# each is compiled once for all of them.
os.environ.setdefault(
  'JAX_COMPILATION_CACHE_DIR',
  str(pathlib.Path(tempfile.gettempdir()) / f'pertjax-tests-{os.getuid()}'),
)
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0.2')

import jax
import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent

# A rank promotion is a missing axis until somebody says that it is not.
jax.config.update('jax_numpy_rank_promotion', 'raise')


@pytest.fixture(scope='session')
def shared_data() -> pathlib.Path:
  """The folder of real datasets; tests that need it skip where it is absent."""
  folder = pathlib.Path(
    os.environ.get('PERTJAX_SHARED', ROOT.parent / 'shared')
  )
  if not (folder / 'data').is_dir():
    pytest.skip('the real datasets are not here (set PERTJAX_SHARED)')
  return folder / 'data'


@pytest.fixture(scope='session')
def tiny_config():
  """Returns a maker of tiny configs: `(model, split='combinations')`."""
  from pertjax import config as config_lib

  def make(model='latent_additive', split='combinations', *, smooth=True):
    config = config_lib.default(model, split)
    config.data.simulate.update(
      num_cells=900,
      num_genes=40,
      num_perturbations=7,
      num_doubles=10,
      num_cell_types=2,
      num_programs=4,
      genes_per_program=8,
      null_fraction=0.0,
    )
    config.data.min_cells_per_gene = 0
    if split == 'combinations':
      config.split.val_fraction = 0.2
      config.split.test_fraction = 0.3
    for key, value in TINY_MODELS.get(model, {}).items():
      config.model[key] = value
    if model in TINY_RATES:
      config.optimizer.learning_rate = TINY_RATES[model]
    config.num_seeds = 2
    config.train.update(steps=60, chunk=30, batch_size=32, checkpoint_every=1)
    config.eval.update(cells=16, min_cells=3, bootstrap=200)
    if smooth:
      # Adam's first steps follow the sign of the gradient, so that a rounding
      # difference near zero becomes a whole step; a large eps is smooth.
      config.optimizer.eps = 1e-2
    return config

  return make


# Published rates that 60 steps do not get far with.
TINY_RATES = {'gene_set_autoencoder': 0.03}

# Small sizes; a model that is not named here is tested at its defaults.
TINY_MODELS = {
  'latent_additive': {
    'num_layers': 1,
    'width': 24,
    'latent_dim': 6,
    'dropout': 0.1,
    'inject_encoder': True,
    'inject_decoder': True,
    'sparse': True,
  },
  'decoder_only': {'num_layers': 1, 'width': 24},
  'vae': {'width': 24, 'latent_dim': 6, 'num_layers': 1},
  'discrepancy_vae': {
    'latent_dim': 6,
    'decoder_width': 24,
    'intervention_width': 8,
    'fan_in': 'set',
    # Every part trains from the first step.
    'mmd_ramp': (0, 0),
    'kl_ramp': (0, 0),
    'temperature_ramp': (0, 0),
    'temperature': 5.0,
    'mmd_sigma': 20.0,
  },
  'gene_set_autoencoder': {'variational': True, 'num_layers': 2},
}

# Modules that compile for long. What compares with other tools' numbers, and
# what is refused, runs every time; the rest of them is slow.
LONG = frozenset({
  'test_agreement', 'test_anchors', 'test_auditing', 'test_cell_eval2',
  'test_convention_gears', 'test_interpret', 'test_translation',
  'test_comparison', 'test_convention_cellsimbench',
  'test_convention_distances', 'test_convention_scgen',
  'test_convention_scperteval', 'test_differential_engines', 'test_direction',
  'test_gene_set_autoencoder', 'test_losses_config', 'test_soft',
  'test_translate',
})  # fmt: skip
ALWAYS = (
  'fixture', 'tools', 'formula', 'published', 'refus', 'bad_', 'error',
  'unknown', 'edge', 'perfect', 'default', 'rate',
)  # fmt: skip


def pytest_collection_modifyitems(items):
  """Marks the tests of LONG that are not of ALWAYS as slow."""
  for item in items:
    if item.path.stem in LONG and not any(w in item.name for w in ALWAYS):
      item.add_marker(pytest.mark.slow)
