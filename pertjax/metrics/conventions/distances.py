"""Distances between predicted and observed cells, each under its own name.

"E-distance" alone is four different numbers; here each has a column. Beside
them are kernels, transport, and the E-test with its p-values. The functions
are in `cell_sets` and `pertjax.metrics.distribution`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pertjax.metrics import problem as problem_lib
from pertjax.metrics import registry
from pertjax.metrics.conventions import base, cell_sets
from pertjax.metrics.distribution import energy

_TESTS = {
  'etest': ('predicted', 'observed'),
  'etest_observed': ('observed', 'control'),
  'etest_predicted': ('predicted', 'predicted_control'),
}


def _columns() -> tuple[base.Column, ...]:
  cells_ = {'needs': ('cells',), 'best': 0.0, 'direction': 'lower'}
  control = {'needs': ('cells', 'control')}
  one = 'a side has one cell'
  column = base.Column
  columns = [
    column(
      'edistance_biased',
      '2 E|x-y| - E|x-x\'| - E|y-y\'|, self pairs included',
      reference='cell-eval 0.8; pertpy from a precomputed matrix',
      aliases=('edistance',),
      **cells_,
    ),
    column(
      'edistance_half',
      'E|x-y| - E|x-x\'|/2 - E|y-y\'|/2, self pairs included',
      reference='PerturBench v4 mmd; geomloss "energy"',
      **cells_,
    ),
    column(
      'edistance_squared',
      'the same of squared norms: 2 |mean x - mean y|^2',
      reference='pertpy up to 0.10; CellFlow',
      **cells_,
    ),
    column(
      'edistance_unbiased',
      '2 E|x-y| - E|x-x\'| - E|y-y\'| without self pairs',
      reference='newer pertpy; scPertEval',
      undefined=one,
      **cells_,
    ),
    column(
      'mmd_linear',
      '|mean x - mean y|^2',
      reference='pertpy mmd',
      **cells_,
    ),
    column(
      'mmd_rbf',
      'E k(x,x\') + E k(y,y\') - 2 E k(x,y), k = exp(-d^2 / (2 b^2)), b the '
      'option bandwidth',
      reference='Gretton et al. 2012, JMLR 13:723, equation 5',
      undefined="bandwidth 'median' and one observed cell, or b = 0",
      **cells_,
    ),
    column(
      'mmd_rbf_unbiased',
      'the same without self pairs',
      reference='Gretton et al. 2012, JMLR 13:723, equation 3',
      undefined=f"{one}; b = 0",
      **cells_,
    ),
    column(
      'rbf_bandwidth',
      'b of mmd_rbf: the median distance of two observed cells, or as given',
      None,
      'none',
      'Gretton et al. 2012, section 8',
      needs=('cells',),
      undefined='one observed cell',
    ),
    column(
      'sinkhorn_divergence',
      'W(x,y) - W(x,x)/2 - W(y,y)/2 of wasserstein_entropic',
      reference='Feydy et al. 2019, arXiv:1810.08278, equation 3',
      undefined='the iterations do not reach the tolerance',
      **cells_,
    ),
    column(
      'wasserstein_entropic',
      'min_P <P, |x-y|^2> + eps KL(P | uniform)',
      None,
      'lower',
      'Cuturi 2013; pertpy wasserstein',
      needs=('cells',),
      undefined='the iterations do not reach the tolerance',
      aliases=('wasserstein',),
    ),
    column(
      'wasserstein_1d',
      'mean over genes of the Wasserstein-1 distance of the gene',
      reference='area between the distribution functions',
      **cells_,
    ),
    column(
      'mean_pairwise',
      'E|x-y| over all pairs',
      None,
      'lower',
      'pertpy mean_pairwise',
      needs=('cells',),
    ),
    column(
      'euclidean',
      '|mean x - mean y|',
      reference='pertpy euclidean',
      **cells_,
    ),
  ]  # fmt: skip
  for side in ('observed', 'predicted'):
    columns.append(
      column(
        f'effect_{side}',
        f'energy distance (option meaning) of {side} cells from their control',
        None,
        'none',
        'Peidli et al. 2024, doi:10.1038/s41592-023-02144-y',
        undefined="one cell and meaning 'unbiased'",
        **control,
      )
    )
  reference = 'E-test, Peidli et al. 2024; adjusted: Holm 1979, Sidak 1967'
  for name, (first, second) in _TESTS.items():
    which = f'{first} vs {second}'.replace('_', ' ')
    for suffix, text in (('', ''), ('_adjusted', ', Holm-Sidak adjusted')):
      columns.append(
        column(
          f'{name}_p{suffix}',
          f'permutation p of the energy distance, {which}{text}',
          # Cells that cannot be told from real ones have uniform p-values.
          None,
          'higher' if name == 'etest' else 'none',
          reference,
          undefined='no energy distance',
          bounds=(0.0, 1.0),
          needs=('cells',) if second == 'observed' else ('cells', 'control'),
        )
      )
  return tuple(columns)


def _compute(
  problem: problem_lib.Problem,
  wanted: Sequence[str],
  options: Mapping[str, Any],
) -> dict[str, np.ndarray]:
  registry.check_choice('meaning', options['meaning'], energy.MEANINGS)
  registry.check_choice('p_value', options['p_value'], cell_sets.P_VALUES)
  registry.check_choice('unit', options['unit'], cell_sets.UNITS)
  if options['permutations'] < 1:
    raise ValueError(
      f'permutations is {options["permutations"]}; allowed: 1 or more'
    )
  at = cell_sets.view(
    problem,
    **{k: options[k] for k in ('space', 'components', 'precision')},
  )
  settings = cell_sets.Settings(
    **{k: options[k] for k in cell_sets.Settings._fields}
  )
  beside = ('effect_', 'etest')
  names = [name for name in wanted if not name.startswith(beside)]
  out = cell_sets.compare(at, names, settings)
  for side in ('observed', 'predicted'):
    if f'effect_{side}' in wanted:
      found = cell_sets.from_control(at, side, meaning=options['meaning'])
      out[f'effect_{side}'] = found
  for name, (first, second) in _TESTS.items():
    columns = f'{name}_p', f'{name}_p_adjusted'
    if not set(columns) & set(wanted):
      continue
    found = cell_sets.etest(
      at,
      first,
      second,
      **{k: options[k] for k in ('permutations', 'seed', 'meaning', 'p_value')},
    )
    out |= dict(zip(columns, found))
  return out


CONVENTIONS = (
  base.Convention(
    name='distances',
    title='Distances of sets of cells',
    reference='the functions of pertjax.metrics.distribution',
    scale='any',
    control='own',
    columns=_columns(),
    compute=_compute,
    options={
      'space': 'genes',  # or 'pca', of the observed cells.
      'components': 50,
      'precision': 'float32',
      'meaning': 'biased',  # of effects and tests.
      'permutations': 1000,
      'seed': 0,
      'p_value': 'phipson_smyth',
      **cell_sets.Settings()._asdict(),
    },
    whole=True,
  ),
)
