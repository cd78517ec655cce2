"""What the columns of GEARS' analyses are; `gears_fields` fills them."""

from __future__ import annotations

import numpy as np

from pertjax.metrics.conventions import base

_DEEPER = 'GEARS (Roohani et al. 2023), deeper_analysis'
_DROPOUT = 'GEARS (Roohani et al. 2023), non_dropout_analysis'


# Quantiles between which a predicted mean is in range.
BANDS = {
  '': (0.0, 1.0),
  '_45_55': (0.45, 0.55),
  '_40_60': (0.40, 0.60),
  '_25_75': (0.25, 0.75),
}
TOPS = (20, 50, 100, 200)
GAPS = {
  'all': (0.0, np.inf),
  'downreg_0.33': (0.0, 0.333),
  'downreg_0.1': (0.0, 0.1),
  'upreg_3': (3.0, np.inf),
  'upreg_10': (10.0, np.inf),
}
APART = {'correct': 0, 'opposite': 2, '0/1': 1}
# Suffix of the set of twenty genes -> field of GeneSets.
KINDS = {'non_dropout': 'top_non_dropout', 'non_zero': 'top_non_zero'}


_MEANS = ('means', 'control')
_DE = ('means', 'variances', 'control')
_CELLS = ('means', 'variances', 'cells', 'control')
NO_DE = 'fewer than two cells, and no ranking given'
_TOP20 = {
  '': 'the first 20 genes by |Welch t| that some observed cell has',
  'non_dropout': 'the first 20 non-dropout genes by |Welch t|',
  'non_zero': 'the first 20 non-zero genes by |Welch t|',
}
_REGION = {
  'top20_non_dropout': _TOP20['non_dropout'],
  'top20_non_zero': _TOP20['non_zero'],
  'non_zero': 'genes of observed mean != 0',
  'non_dropout': 'genes of observed mean != 0, or of control mean 0',
}


def _share(name, formula, needs, reference, best=1.0, **more) -> base.Column:
  return base.Column(
    name=name,
    formula=formula,
    best=best,
    direction='lower' if best == 0 else 'higher',
    reference=reference,
    needs=needs,
    bounds=(0.0, 1.0),
    **more,
  )


def _triple(end, which, needs, reference, undefined='') -> tuple:
  """Makes the columns of pearson_delta, pearson and mse on some genes."""
  return tuple(
    base.Column(
      name=f'{name}_{end}',
      formula=f'{formula} over {which}',
      best=best,
      direction='higher' if best else 'lower',
      reference=reference,
      needs=needs,
      undefined=undefined,
      bounds=(-1.0, 1.0) if best else (0.0, None),
    )
    for name, formula, best in (
      ('pearson_delta', 'Pearson of the changes from the control', 1.0),
      ('pearson', 'Pearson of the means', 1.0),
      ('mse', 'mean of (predicted - observed mean)^2', 0.0),
    )
  )


def _cell_columns(end: str, which: str, reference: str) -> tuple:
  """Makes the columns that read the cells of twenty genes."""
  between = {
    '': 'the least and the largest value',
    '_45_55': 'the quantiles 0.45 and 0.55',
    '_40_60': 'the quantiles 0.40 and 0.60',
    '_25_75': 'the quartiles',
  }
  ranges = tuple(
    _share(
      f'frac_in_range{suffix}{end}',
      f'share of {which} whose predicted mean is between {text} of the '
      'observed cells' + '; a perfect mean may not be' * bool(suffix),
      _CELLS,
      reference,
      None if suffix else 1.0,
      undefined=NO_DE,
    )
    for suffix, text in between.items()
  )
  varies = 'none of the genes varies; ' + NO_DE
  sigma = f'|predicted - observed mean| / sd of the cells, over {which}'
  sigmas = tuple(
    base.Column(
      name=f'{name}{end}',
      formula=f'{text} of {sigma}',
      best=0.0,
      direction=direction,
      reference=reference,
      needs=_CELLS,
      undefined=varies,
      bounds=(0.0, None),
    )
    for name, text, direction in (
      ('mean_sigma', 'mean', 'lower'),
      ('std_sigma', 'standard deviation (over n)', 'none'),
    )
  )
  below = tuple(
    _share(
      f'frac_sigma_below_{number}{end}',
      f'share not above {number} of {sigma}',
      _CELLS,
      reference,
      undefined=varies,
    )
    for number in (1, 2)
  )
  return ranges + sigmas + below


def _deeper_columns() -> tuple:
  top = 'the first {} genes by |Welch t|'
  direction = 'share of {} whose change from the control has the observed sign'
  constant = 'one side is constant'
  return (
    _share(
      'frac_correct_direction_all',
      direction.format('genes'),
      _MEANS,
      _DEEPER,
    ),
    *(
      _share(
        f'frac_correct_direction_{k}',
        f'{direction.format(top.format(k))}; divided by {k} however many '
        'there are, unless fixed_denominator is False',
        _DE,
        _DEEPER,
        undefined=NO_DE,
      )
      for k in TOPS
    ),
    _share(
      'frac_correct_direction_20_nonzero',
      f'{direction.format(_TOP20[""])}; unless mixed_order is False the '
      'control of another gene is taken, as in the original: means by rising '
      'column, controls by rank',
      _CELLS,
      _DEEPER,
      undefined=NO_DE,
    ),
    *_cell_columns('', _TOP20[''], _DEEPER),
    *_triple('', 'genes', _MEANS, _DEEPER, constant)[:1],
    *_triple('de', top.format(20), _DE, _DEEPER, f'{constant}; {NO_DE}')[:1],
    *(
      base.Column(
        name=f'fold_change_gap_{name}',
        formula=(
          'mean |predicted - observed| / control over genes of observed mean '
          f'>= 0.5 and {low:g} < observed / control < {high:g}'
        ),
        best=0.0,
        direction='lower',
        reference=_DEEPER,
        needs=_MEANS,
        undefined='no gene is in that range',
        bounds=(0.0, None),
      )
      for name, (low, high) in GAPS.items()
    ),
    *_triple(
      'top200_hvg',
      'the 200 genes whose means vary most over observed conditions',
      _MEANS,
      _DEEPER,
      constant,
    ),
    *(
      column
      for k in TOPS
      for column in _triple(
        f'top{k}_de', top.format(k), _DE, _DEEPER, f'{constant}; {NO_DE}'
      )
    ),
  )


def _kind_columns(kind: str) -> tuple:
  changed = {
    'correct': ('have the observed sign', 1.0),
    'opposite': ('have the opposite sign', 0.0),
    '0/1': ('are 0 on one side only', 0.0),
  }
  return (
    *(
      _share(
        f'frac_{name}_direction_{region}',
        f'share of {which} whose changes from the control {text}',
        _DE if 'top20' in region else _MEANS,
        _DROPOUT,
        best,
        undefined=NO_DE if 'top20' in region else 'no such gene',
      )
      for region, which in _REGION.items()
      if region.endswith(kind)
      for name, (text, best) in changed.items()
    ),
    *_cell_columns(f'_{kind}', _TOP20[kind], _DROPOUT),
    *_triple(
      f'top20_de_{kind}',
      _TOP20[kind],
      _DE,
      _DROPOUT,
      f'one side is constant; {NO_DE}',
    ),
  )


def _renamed(columns: tuple) -> tuple:
  """Takes the underscore off that an empty ending leaves."""
  return tuple(c._replace(name=c.name.rstrip('_')) for c in columns)


COLUMNS = _renamed(
  (
    *_deeper_columns(),
    *_kind_columns('non_dropout'),
    *_kind_columns('non_zero'),
  )
)
FROM_CELLS = {
  '': frozenset(
    {'frac_correct_direction_20_nonzero'}
    | {c.name for c in _cell_columns('', '', '')}
  ),
  **{
    kind: frozenset(c.name for c in _cell_columns(f'_{kind}', '', ''))
    for kind in KINDS
  },
}
