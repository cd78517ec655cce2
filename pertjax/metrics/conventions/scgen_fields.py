"""The columns of the convention 'scgen'."""

from __future__ import annotations

from pertjax.metrics.conventions import base

SIZES = (20, 100)

# A ratio's column: how `distances` calls it, and the power of a length it is.
DISTANCES = {
  'edistance': ('edistance_squared', 2),
  'wasserstein': ('wasserstein_entropic', 2),
  'euclidean': ('euclidean', 1),
  'mean_pairwise': ('mean_pairwise', 1),
  'mmd': ('mmd_linear', 2),
  'edistance_unbiased': ('edistance_unbiased', 1),
}
EFFECT = '_to_effect'

_BENCHMARK = 'cell-type transfer benchmark on scGen and scVIDR'
_SCGEN = 'scGen (Lotfollahi et al. 2019); scVIDR (Kana et al. 2023)'

# {column: (0 for means and 1 for variances, size of the list)}.
BOOTSTRAPPED = {
  f'r2{kind}_{name}_boostrap_mean': (number, genes)
  for number, kind in enumerate(('mean', 'var'))
  for name, genes in (('all', None), ('top20', 20), ('top100', 100))
}
PLAIN = {
  f'r2{kind}{name}': (number, genes)
  for number, kind in enumerate(('mean', 'var'))
  for name, genes in (('', None), ('_top20', 20), ('_top100', 100))
}


def _columns() -> tuple[base.Column, ...]:
  columns = [
    base.Column(
      'DEGs',
      '|top 100 of the real list & top 100 of the predicted one|; Welch t '
      'against the real control, increased genes first',
      100.0,
      'higher',
      _BENCHMARK,
      needs=('de', 'control'),
      aliases=('common_degs',),
      bounds=(0.0, 100.0),
    ),
    base.Column(
      'DEGs_absolute',
      'the same of lists by |t|, decreased genes too',
      100.0,
      'higher',
      'the missing half of DEGs',
      needs=('de', 'control'),
      bounds=(0.0, 100.0),
    ),
  ]  # fmt: skip
  for name, (kind, genes) in PLAIN.items():
    moment = ('means', 'variances')[kind]
    which = f'top {genes} of the real list' if genes else 'all'
    columns.append(
      base.Column(
        name,
        f'squared Pearson correlation of the {moment} over genes: {which}',
        1.0,
        'higher',
        _SCGEN,
        needs=(moment, 'de', 'control') if genes else (moment,),
        undefined='a side is constant over the genes',
        bounds=(0.0, 1.0),
      )
    )
  for name, (kind, genes) in BOOTSTRAPPED.items():
    moment = ('means', 'variances')[kind]
    which = f'top {genes} by rank sums' if genes else 'all'
    columns.append(
      base.Column(
        name,
        f'mean over subsamples of the squared correlation of {moment} over '
        f'genes: {which}',
        1.0,
        'higher',
        _BENCHMARK,
        needs=('cells', 'de', 'control') if genes else ('cells',),
        undefined='a side is constant over the genes, or has one cell',
        aliases=(name.replace('boostrap', 'bootstrap'),),
        bounds=(0.0, 1.0),
      )
    )
  texts = {
    'average_mean_expressed_diff': 'mean over genes of |e - e^| / e, e the '
    'mean of the cells above 0',
    'average_fractions_diff': 'mean over genes of |f - f^|, f the share of '
    'cells above 0',
    'average_mean_degs20_diff': 'average_mean_expressed_diff over the top 20',
    'average_mean_degs100_diff': 'average_mean_expressed_diff over the top 100',
  }
  for name, text in texts.items():
    columns.append(
      base.Column(
        name,
        text,
        0.0,
        'lower',
        _BENCHMARK,
        needs=('cells', 'de', 'control') if 'degs' in name else ('cells',),
        undefined=''
        if 'fraction' in name
        else 'no gene is expressed on both sides',
      )
    )
  for name, (key, _) in DISTANCES.items():
    for suffix, below in (('', 'control, pred'), (EFFECT, 'real, control')):
      exact = name not in ('wasserstein', 'mean_pairwise')
      columns.append(
        base.Column(
          name + suffix,
          f'D(real, pred) / D({below}), D {key} in 50 components',
          0.0 if exact and name != 'edistance_unbiased' else None,
          'lower',
          f'{_BENCHMARK}; pertpy up to 0.10',
          chance=1.0 if suffix else None,
          needs=('cells', 'control'),
          undefined=f'D({below}) is 0, or D is not defined',
        )
      )
  return tuple(columns)


COLUMNS = _columns()
