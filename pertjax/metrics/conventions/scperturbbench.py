"""scPerturBench: six metrics on the top genes and on all of them.

Distances are those of pertpy in the release that the benchmark ran, on at most
2,000 cells of a group. What that release and the benchmark did differently from
the formula is behind options: `mse`, `rounding`. `ac_score` is the table of
models on a scale from 0 to 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pertjax.metrics import problem as problem_lib
from pertjax.metrics import pseudobulk, registry, tested
from pertjax.metrics.conventions import base, cell_sets, scgen
from pertjax.metrics.distribution import energy

MSES = ('mean', 'root_norm')
_REFERENCE = 'scPerturBench (Wei et al. 2025), calPerformance; pertpy 0.7'
_METRICS = ('mse', 'pcc_delta', 'edistance', 'sym_kldiv', 'wasserstein')


def symmetric_kl(
  mean: np.ndarray,
  variance: np.ndarray,
  other_mean: np.ndarray,
  other_variance: np.ndarray,
  *,
  epsilon: float = 1e-8,
) -> np.ndarray:
  """Returns KL(a | b) + KL(b | a) of Gaussians, averaged over genes, [...].

  pertpy's sym_kldiv. With u = s_a² + (m_a - m_b)² and v = s_b² + (m_a - m_b)²
  a gene has u / (2 s_b²) + v / (2 s_a²) - 1; the logarithms cancel.

  Args:
    mean: [..., genes] m_a.
    variance: [..., genes], divided by n.
    other_mean: [..., genes] m_b.
    other_variance: [..., genes].
    epsilon: added to standard deviations; a gene that one side does not vary
      in contributes up to the square of (m_a - m_b) / epsilon.
  """
  a, b = (np.sqrt(v) + epsilon for v in (variance, other_variance))
  shift = np.square(np.asarray(mean) - other_mean)
  forth = (np.square(a) + shift) / (2 * np.square(b))
  back = (np.square(b) + shift) / (2 * np.square(a))
  return np.mean(forth + back - 1, axis=-1)


def ac_score(
  values: np.ndarray, directions: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
  """Rescales a table of models to 0 (worst) to 1 (best) and averages.

  Each metric of each comparison is scaled by its smallest and largest value
  over the models and turned where lower is better. The scaling is inferred
  from the benchmark's tables. A score depends on which other models are there.

  Args:
    values: [models, comparisons, metrics], NaN where there is none; or [models,
      metrics] of one comparison.
    directions: [metrics], 'higher' or 'lower'.

  Returns:
    Scores [models], the mean over what a model has; and the rescaled table,
    NaN where models do not differ.

  Raises:
    ValueError: when a direction is unknown or missing.
  """
  values = np.asarray(values, np.float64)
  if values.ndim not in (2, 3) or values.shape[-1] != len(directions):
    raise ValueError(
      f'values has the shape {values.shape} for {len(directions)} directions; '
      'allowed: [models, (comparisons,) metrics]'
    )
  for direction in directions:
    registry.check_choice('direction', direction, registry.DIRECTIONS)
  known = ~np.isnan(values)
  low = np.min(values, axis=0, where=known, initial=np.inf)
  high = np.max(values, axis=0, where=known, initial=-np.inf)
  room = np.where(high > low, high - low, np.nan)
  lower = np.asarray([d == 'lower' for d in directions])
  scaled = np.where(lower, high - values, values - low) / room
  flat = scaled.reshape(len(values), -1)
  known = ~np.isnan(flat)
  with np.errstate(invalid='ignore'):
    return np.where(known, flat, 0).sum(1) / known.sum(1), scaled


def _drawn(first: int, second: int, options) -> list[np.ndarray]:
  """Draws cells of the predicted and the real group as the benchmark does."""
  random = np.random.RandomState(options['seed'])
  most = options['max_cells']
  return [
    random.choice(number, most, replace=False)
    if most is not None and number > most
    else np.arange(number)
    for number in (first, second)
  ]


def _rounded(value: float, options) -> float:
  return round(value, 4) if options['rounding'] else value


def _of_means(problem, which, genes, options) -> dict[str, np.ndarray]:
  """Metrics of all cells: the benchmark draws none for them."""
  rows = [
    problem.means('predicted'),
    problem.means('observed'),
    problem.control_means('observed'),
  ]
  if genes is not None:
    rows = [np.take_along_axis(x, genes, axis=1) for x in rows]
  predicted, observed, control = rows
  out = {}
  if 'mse' in which:
    out['mse'] = np.asarray(pseudobulk.mse(predicted, observed))
    if options['mse'] == 'root_norm':
      out['mse'] = np.sqrt(np.asarray(pseudobulk.l2(predicted, observed)))
  if 'pcc_delta' in which:
    out['pcc_delta'] = np.asarray(
      pseudobulk.pearson_delta(predicted, observed, control)
    )
  # pertpy rounds the distance 1 - r; 1 - round(1 - r, 4) is round(r, 4).
  return {
    k: np.round(v, 4) if options['rounding'] else v for k, v in out.items()
  }


def _of_cells(problem, which, genes, options, out) -> None:
  """Fills distributions' metrics, one condition at a time."""
  settings = cell_sets.Settings(unit=options['unit'])
  meaning = f'edistance_{options["meaning"]}'
  names = {'edistance': meaning, 'wasserstein': 'wasserstein_entropic'}
  at = cell_sets.View(problem)
  for condition in range(problem.num_conditions):
    pair = [
      cell_sets.cells(at, side, condition) for side in ('predicted', 'observed')
    ]
    pair = [
      s[chosen]
      for s, chosen in zip(pair, _drawn(*(len(s) for s in pair), options))
    ]
    for suffix, listed in genes.items():
      sets = pair
      if listed is not None:
        sets = [s[:, listed[condition]] for s in pair]
      if f'sym_kldiv{suffix}' in which:
        moments = [f(s.astype(np.float64), 0) for s in sets for f in _MOMENTS]
        value = _rounded(float(symmetric_kl(*moments)), options)
        out[f'sym_kldiv{suffix}'][condition] = np.log2(1 + value)
      needed = tuple(v for k, v in names.items() if k + suffix in which)
      if not needed:
        continue
      (x, x_mask), (y, y_mask) = (
        cell_sets.padded(s, options['precision']) for s in sets
      )
      found = cell_sets.between(
        x, x_mask, y, y_mask, names=needed, settings=settings
      )
      for name, key in names.items():
        if key in found:
          value = _rounded(float(found[key]), options)
          out[name + suffix][condition] = value


_MOMENTS = (np.mean, np.var)


def _compute(
  problem: problem_lib.Problem,
  wanted: Sequence[str],
  options: Mapping[str, Any],
) -> dict[str, np.ndarray]:
  for key, allowed in (
    ('mse', MSES),
    ('meaning', energy.MEANINGS),
    ('ranking', scgen.RANKINGS),
    ('unit', cell_sets.UNITS),
    ('precision', cell_sets.PRECISIONS),
  ):
    registry.check_choice(key, options[key], allowed)
  top = options['top']
  if top < 1 or (options['max_cells'] is not None and options['max_cells'] < 1):
    raise ValueError(
      f'top is {top} and max_cells {options["max_cells"]}; allowed: 1 or more'
    )
  number = problem.num_conditions
  out = {name: np.full(number, np.nan) for name in wanted}
  lists = None
  if (
    any(name.endswith('_top100') for name in wanted) or 'common_degs' in wanted
  ):
    welch = tested.Settings(method='welch', control='real')
    score = np.asarray(tested.de(problem, 'observed', welch).statistic)
    lists = scgen.ranking(score, by=options['ranking'])
  if 'common_degs' in wanted:
    other = np.asarray(tested.de(problem, 'predicted', welch).statistic)
    other = scgen.ranking(other, by=options['ranking'])
    out['common_degs'] = scgen.common(lists, other, top)
  genes = {'_all': None}
  if lists is not None:
    genes['_top100'] = lists[:, :top]
  for suffix, listed in genes.items():
    which = {n.removesuffix(suffix) for n in wanted if n.endswith(suffix)}
    found = _of_means(problem, which, listed, options)
    out |= {name + suffix: value for name, value in found.items()}
  cells = ('edistance', 'sym_kldiv', 'wasserstein')
  if any(name.startswith(cells) for name in wanted):
    _of_cells(problem, set(wanted), genes, options, out)
  return out


def _columns() -> tuple[base.Column, ...]:
  texts = {
    'mse': ('mean over genes of (a - b)^2, a and b means of cells', 'means'),
    'pcc_delta': (
      'Pearson correlation of the changes of means from control',
      'means',
    ),
    'edistance': (
      'energy distance of cells, by default 2 |mean x - mean y|^2',
      'cells',
    ),
    'sym_kldiv': (
      'log2(1 + mean over genes of KL(a|b) + KL(b|a)), Gaussians',
      'cells',
    ),
    'wasserstein': ('entropic transport cost of squared distances', 'cells'),
  }
  columns = []
  for suffix, where in (('_top100', 'top 100 genes'), ('_all', 'all genes')):
    for name, (text, needs) in texts.items():
      higher = name == 'pcc_delta'
      listed = ('de', 'control') if suffix == '_top100' else ()
      best = 1.0 if higher else 0.0
      columns.append(
        base.Column(
          name + suffix,
          f'{text}; {where}',
          None if name == 'wasserstein' else best,
          'higher' if higher else 'lower',
          _REFERENCE,
          chance=0.0 if higher else None,
          needs=tuple(dict.fromkeys((needs, *listed))),
          undefined={
            'pcc_delta': 'a side does not change, or the same in all genes',
            'wasserstein': 'the iterations do not reach the tolerance',
          }.get(name, ''),
          bounds=(-1.0, 1.0) if higher else (None, None),
        )
      )
  columns.append(
    base.Column(
      'common_degs',
      'genes in the top 100 of both sides by |Welch t| against real control',
      100.0,
      'higher',
      _REFERENCE,
      needs=('de', 'control'),
      bounds=(0.0, 100.0),
    )
  )
  return tuple(columns)


CONVENTIONS = (
  base.Convention(
    name='scperturbbench',
    title='scPerturBench',
    reference='Wei et al. 2025, doi:10.1038/s41592-025-02980-0',
    scale='log1p',
    control='real',
    columns=_columns(),
    compute=_compute,
    options={
      'top': 100,
      'ranking': 'absolute',  # of the genes, by |t|; or 'signed'.
      'max_cells': 2000,  # of a group, for distributions; None for all.
      'seed': 42,
      'meaning': 'squared',  # of the energy distance.
      'mse': 'mean',  # 'root_norm': sqrt(|a - b|), pertpy 0.8.
      'rounding': False,  # True: to four decimals, before log2.
      'unit': 'mean',  # of the transport's entropy, see `distances`.
      'precision': 'float32',
    },
  ),
)
