"""Package metadata; tool settings live in pyproject.toml."""

import pathlib

import setuptools

_HERE = pathlib.Path(__file__).parent
_VERSION = '0.1.0'

_CORE = [
  'absl-py>=2.1',
  # 0.12.19 is the first to work with pandas 2.3 and numpy 2.4; it also caps
  # pandas itself, which a pin here would fight.
  'anndata>=0.12.6',
  'flax>=0.12',
  'h5py>=3.11',
  'jax>=0.10,<0.13',
  'jinja2>=3.1',
  'ml-collections>=1.0',
  'numpy>=2.0',
  'optax>=0.2.5',
  'orbax-checkpoint>=0.12,<1',
  'pandas>=2.2',
  'pooch>=1.8',
  'requests>=2.31',
  'scipy>=1.13',
  'tensorboardX>=2.6',
  'tqdm>=4.66',
]
_DE = [
  # Its kernels are called, which are no public interface.
  'illico>=0.6,<0.7',
  # illico 0.6 imports it and does not ask for it.
  'statsmodels>=0.14',
]
_CLUSTERING = ['igraph>=0.11']
_DEV = [
  # The tests compare every engine that there is.
  *_CLUSTERING,
  *_DE,
  'beartype>=0.19',
  'chex>=0.1.90',
  'jaxtyping>=0.3',
  'pytest>=8',
  'pytest-xdist>=3.6',
  # Pinned: a newer one may format differently, and make test checks.
  'ruff>=0.17,<0.18',
]

setuptools.setup(
  name='pertjax',
  version=_VERSION,
  description=(
    'Predict how single cells respond to perturbations, and judge such '
    'predictions honestly.'
  ),
  long_description=(_HERE / 'README.md').read_text(encoding='utf-8'),
  long_description_content_type='text/markdown',
  license='Apache-2.0',
  python_requires='>=3.11,<3.14',
  packages=setuptools.find_packages(include=['pertjax', 'pertjax.*']),
  package_data={'pertjax.report': ['*.html', '*.css', '*.js']},
  install_requires=_CORE,
  extras_require={
    'clustering': _CLUSTERING,
    'de': _DE,
    'dev': _DEV,
    'gpu': ['jax[cuda12]>=0.10,<0.13'],
    'mlflow': ['mlflow>=2.10'],
  },
)
