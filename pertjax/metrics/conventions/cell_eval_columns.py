"""What the columns of 'cell-eval' mean.

n_r and n_p are the numbers of significant genes, fdr below 0.05, of the
observed and of the predicted cells.
"""

from __future__ import annotations

import functools

from pertjax.metrics.conventions import base

TOOL = 'cell-eval 0.8.2'

_CONTROL = ('means', 'control')
_NO_SIGNIFICANT = 'no gene is significant in the observed cells'

_column = functools.partial(base.Column, reference=TOOL)
_share = functools.partial(
  _column, best=1.0, direction='higher', bounds=(0.0, 1.0)
)
_correlation = functools.partial(
  _column, best=1.0, direction='higher', bounds=(-1.0, 1.0)
)
_error = functools.partial(
  _column, best=0.0, direction='lower', bounds=(0.0, None)
)


def _sets() -> list[base.Column]:
  found = []
  for kind, n, aliases in (
    ('overlap', 'n_r', {'N': ('DES', 'de_overlap')}),
    ('precision', 'n_p', {}),
  ):
    for k in ('N', 50, 100, 200, 500):
      m = n if k == 'N' else f'min({k}, {n})'
      found.append(
        _share(
          name=f'{kind}_at_{k}',
          formula=(
            f'shared genes of the first m significant ones of both sides by '
            f'|log2 fold change| / m, m = {m}; 0 for m = 0'
          ),
          needs=('de',),
          aliases=aliases.get(k, ()),
        )
      )
  return found


DE_COLUMNS = (
  *_sets(),
  _correlation(
    name='de_spearman_sig',
    formula='Spearman over conditions with n_r > 0 of n_p and n_r; 1 for none',
    needs=('de',),
    chance=0.0,
    undefined='fewer than two conditions with significant genes, or constant',
    scope='panel',
  ),
  _share(
    name='de_direction_match',
    formula='share of the observed significant genes with the predicted sign',
    needs=('de',),
    undefined=_NO_SIGNIFICANT,
  ),
  _correlation(
    name='de_spearman_lfc_sig',
    formula='Spearman of log2 fold changes over observed significant genes',
    needs=('de',),
    chance=0.0,
    undefined=f'{_NO_SIGNIFICANT}, or one only, or a side is constant',
  ),
  _share(
    name='de_sig_genes_recall',
    formula='share of the observed significant genes that are predicted so',
    needs=('de',),
    undefined=_NO_SIGNIFICANT,
  ),
  *(
    _column(
      name=f'de_nsig_counts_{side}',
      formula=f'number of significant genes of the {words} cells',
      best=None,
      direction='none',
      needs=('de',),
      bounds=(0.0, None),
    )
    for side, words in (('real', 'observed'), ('pred', 'predicted'))
  ),
  _share(
    name='pr_auc',
    formula='average precision of observed significance by predicted fdr',
    needs=('de',),
    undefined='all genes or none are significant in the observed cells',
  ),
  _share(
    name='roc_auc',
    formula='ROC area of observed significance by predicted fdr',
    needs=('de',),
    chance=0.5,
    undefined='all genes or none are significant in the observed cells',
  ),
)

OTHER_COLUMNS = (
  _correlation(
    name='pearson_delta',
    formula='Pearson over genes of the changes, each side from its own control',
    needs=_CONTROL,
    chance=0.0,
    undefined='one side does not change, or by a constant',
  ),
  _error(
    name='mse', formula='mean over genes of (predicted - observed mean)^2'
  ),
  _error(name='mae', formula='mean over genes of |predicted - observed mean|'),
  _error(
    name='mse_delta',
    formula='mse of the changes from control',
    needs=_CONTROL,
  ),
  _error(
    name='mae_delta',
    formula='mae of the changes from control',
    needs=_CONTROL,
  ),
  *(
    _share(
      name=f'discrimination_score_{metric}',
      formula=(
        f'1 - r / P, r the observed changes closer by {words} to the predicted '
        'change than the own one; the gene named as the condition dropped'
      ),
      # Ties count half: r is (P - 1) / 2 where nothing is known.
      chance=lambda number: (number + 1) / (2 * number),
      needs=_CONTROL,
    )
    for metric, words in (
      ('l1', 'sum |a - b|'),
      ('l2', 'Euclidean distance'),
      ('cosine', 'cosine'),
    )
  ),
  _correlation(
    name='pearson_edistance',
    formula=(
      'Pearson over conditions of the energy distances from the own control'
    ),
    needs=('cells', 'control'),
    chance=0.0,
    undefined='one condition only, or a side is constant',
    scope='panel',
  ),
  _share(
    name='clustering_agreement',
    formula=(
      'largest adjusted mutual information of Leiden clusters of the means, '
      'over seven resolutions of the predicted side'
    ),
    undefined=(
      'fewer than three conditions, or igraph is not installed: '
      "pip install 'pertjax[clustering]'"
    ),
    scope='panel',
  ),
)

COLUMNS = DE_COLUMNS + OTHER_COLUMNS
