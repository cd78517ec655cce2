"""Settings and fixtures shared by every test."""

import os
import pathlib

# Before jax is imported: the tests need a CPU and nothing else.
os.environ.setdefault('JAX_PLATFORMS', 'cpu')

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
