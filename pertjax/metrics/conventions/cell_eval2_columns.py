"""What the columns of 'cell-eval2' mean; R and P are the significant genes.

R of the observed and P of the predicted cells, n_r and n_p their numbers; q is
the share of the more frequent sign in R. See `differential.direction` and
`differential.membership` for the rest.
"""

from __future__ import annotations

from pertjax.metrics.conventions import base

TOOL = 'cell-eval2 0.20 (Arc Institute), preset v2'
PREFIX = 'de_wilcoxon_'

_CONTROL = ('counts', 'control')
_FEW = 'fewer than 10 significant genes in the observed cells'
_NONE = 'no gene is significant in the observed cells'
_TWO_CLASS = f'{_FEW}, or all genes'
_RANKED = f'{_FEW}, or their changes are all equal'


def _column(name, formula, direction, best, bounds, undefined='', **more):
  return base.Column(
    name=name,
    formula=formula,
    best=best,
    direction=direction,
    reference=TOOL,
    undefined=undefined,
    bounds=bounds,
    **{'needs': _CONTROL, **more},
  )


def _de(name, formula, bounds, undefined='', **more) -> base.Column:
  """Makes a column of differential expression, higher being better."""
  made = {'direction': 'higher', 'best': 1.0, **more}
  return _column(
    PREFIX + name,
    formula,
    bounds=bounds,
    undefined=undefined,
    needs=('counts', 'de', 'control'),
    aliases=(name,),
    **made,
  )


_SHARE, _SIGNED, _OPEN = (0.0, 1.0), (-1.0, 1.0), (0.0, None)


def _error(name, formula, undefined='', bounds=_OPEN, **more) -> base.Column:
  return _column(name, formula, 'lower', 0.0, bounds, undefined, **more)


def _diagnostic(name, formula, bounds, undefined='') -> base.Column:
  return _column(name, formula, 'none', None, bounds, undefined)


def _sets() -> list[base.Column]:
  found = []
  for kind, n in (('overlap', 'n_r'), ('precision', 'n_p')):
    for k in (None, 50, 100, 200, 500):
      m = n if k is None else f'min({k}, {n})'
      found.append(
        _de(
          kind + (f'_top{k}' if k else ''),
          'shared genes of the first m of R and of P by |log2 fold change| / '
          f'm, m = {m}; 0 for m = 0',
          _SHARE,
        )
      )
  return found


def _deep(name, universe, threshold, bounds) -> base.Column:
  return _de(
    name,
    f'deepest count of {universe}, by predicted significance, of which '
    f'{threshold} have the right sign / n_r',
    bounds,
    _FEW if 'sensitivity' in name else _NONE,
    best=1.0 if bounds[1] else None,
  )


_ERROR_COLUMNS = (
  _error('expr_mae', 'mean over genes of |predicted - observed bulk|'),
  _error('expr_mse', 'mean over genes of (predicted - observed bulk)^2'),
  _diagnostic(
    'expr_mse_unbiased',
    '(|b^ - b|^2 - C^ - C) / G without the own gene, C the jackknife noise',
    (None, None),
  ),
  _diagnostic(
    'expr_mse_unbiased_capped',
    '(|b^ - b|^2 - rho min(C^, C) - C) / G without the own gene',
    (None, None),
  ),
  _diagnostic(
    'expr_distance_unbiased',
    '(|b - b_0|^2 - C - C_0) / G without the own gene, of observed cells',
    (None, None),
  ),
  _diagnostic(
    'expr_real_mass_ratio',
    'sum over genes of expm1(observed bulk) / target sum: 1 by construction',
    _OPEN,
  ),
  _error('delta_mae', 'mean absolute error of the changes from control'),
  _error('delta_mse', 'mean squared error of the changes from control'),
  _column(
    'delta_pearson',
    'Pearson over genes of the changes; -1 for a constant predicted one',
    'higher',
    1.0,
    _SIGNED,
    'the observed change is constant',
    chance=0.0,
  ),
)
ERRORS = tuple(c.name for c in _ERROR_COLUMNS)

COLUMNS = (
  *_ERROR_COLUMNS,
  _error(
    'expr_mse_unbiased_capped_norm',
    'sum of expr_mse_unbiased_capped / sum of expr_distance_unbiased',
    'the observed conditions are at no distance from control',
    bounds=(None, None),
    chance=1.0,
    scope='panel',
  ),
  *(
    _column(
      f'pds_{metric}',
      f'1 - k / (P - 1), k the observed changes closer by {words} to the '
      'predicted one than the own, ties half; target genes of all dropped',
      'higher',
      1.0,
      _SHARE,
      'there is one condition only',
      chance=0.5,
    )
    for metric, words in (
      ('l1', 'sum |a - b|'),
      ('l2', 'Euclidean distance'),
      ('cosine', 'cosine'),
    )
  ),
  *(
    _de(
      f'nsig_counts_{side}',
      f'number of significant genes of the {words} cells',
      _OPEN,
      best=None,
      direction='none',
    )
    for side, words in (('real', 'observed'), ('pred', 'predicted'))
  ),
  _de(
    'nsig_spearman',
    'Spearman over conditions with n_r > 0 of n_p and n_r; -1 for constant n_p',
    _SIGNED,
    'fewer than 10 conditions with significant genes, or equal numbers of them',
    chance=0.0,
    scope='panel',
  ),
  *_sets(),
  _de('sig_recall', '|R and P| / n_r', _SHARE, _FEW),
  _de('sig_jaccard', '|R and P| / |R or P|, own gene aside; 1 for 0/0', _SHARE),
  _de(
    'sig_mcc',
    "Matthews' correlation of R and P; -1 where a side calls nothing",
    _SIGNED,
    _TWO_CLASS,
    chance=0.0,
  ),
  _de(
    'sig_recall_adjusted',
    'informedness TPR - FPR of P against R',
    _SIGNED,
    _TWO_CLASS,
    chance=0.0,
  ),
  _de(
    'precision_adjusted',
    'markedness PPV - FOR of P against R; -1 where P is nothing or everything',
    _SIGNED,
    chance=0.0,
  ),
  _de(
    'overlap_adjusted',
    "Matthews' correlation of R and the first n_r of P by |log2 fold change|",
    _SIGNED,
    _TWO_CLASS,
    chance=0.0,
  ),
  _de('pr_auc', 'average precision of R by predicted fdr', _SHARE, _TWO_CLASS),
  _de(
    'roc_auc', 'ROC area of R by predicted fdr', _SHARE, _TWO_CLASS, chance=0.5
  ),
  *(
    _de(
      'lfc_spearman' + suffix,
      f'Spearman of log2 fold changes over R{words}; -1 for constant ones',
      _SIGNED,
      _RANKED,
      chance=0.0,
    )
    for suffix, words in (
      ('', ''),
      ('_pos', ', those that rise'),
      ('_neg', ', those that fall'),
    )
  ),
  _de(
    'lfc_nmae',
    'sum |predicted - observed log2 fold change| / sum |observed| over R, own '
    'gene aside; 1 for no change',
    _OPEN,
    f'{_FEW} with a finite change',
    best=0.0,
    direction='lower',
  ),
  _de('direction_match', 'share of R with the predicted sign', _SHARE, _FEW),
  _de(
    'model_direction_match',
    'share of P with the observed sign',
    _SHARE,
    'fewer than 10 genes are measured',
  ),
  _de(
    'direction_precision',
    'share of right signs in the genes of P that have an observed sign',
    _SHARE,
    'fewer than 10 genes have an observed sign',
  ),
  _de(
    'direction_coverage',
    'n_pred / n_r, n_pred the genes of P with an observed sign',
    _OPEN,
    _NONE,
    best=None,
    direction='none',
  ),
  _de(
    'direction_fidelity_raw',
    'share of right signs in the genes of P, own gene aside',
    _SHARE,
    'no gene is called in the predicted cells',
  ),
  _de(
    'direction_fidelity',
    '(direction_fidelity_raw - q) / max(1 - q, 0.05)',
    (None, 1.0),
    'no gene is called in the predicted cells',
    chance=0.0,
  ),
  _de('direction_yield_raw', 'right signs in P / n_r', _OPEN, _NONE, best=None),
  _de(
    'direction_yield',
    '(right signs in P - q n_pred) / (n_r max(1 - q, 0.05))',
    (None, None),
    _NONE,
    best=None,
    chance=0.0,
  ),
  _de(
    'direction_fidelity_yield_raw',
    'right signs in P / max(n_pred, n_r), own gene aside',
    _SHARE,
    'no gene is significant on either side',
  ),
  _de(
    'direction_fidelity_yield',
    'min(1, n_pred / n_r) times direction_fidelity',
    (None, 1.0),
    _NONE,
    chance=0.0,
  ),
  _deep('direction_reach_raw', 'genes of R', 'at least 0.9', _SHARE),
  _deep('direction_reach', 'genes of R', 'at least 1 - 0.05 (1 - q)', _SHARE),
  _deep('direction_reach_unbounded_raw', 'genes', 'at least 0.9', _OPEN),
  _deep(
    'direction_reach_unbounded', 'genes', 'at least 1 - 0.05 (1 - q)', _OPEN
  ),
  _deep('direction_sensitivity', 'genes of R', 'at least 0.975', _SHARE),
  _deep('direction_sensitivity_universe', 'genes', 'at least 0.975', _OPEN),
)
