"""The columns of the convention 'scperteval'."""

from __future__ import annotations

import functools

from pertjax.metrics.conventions import base

REFERENCE = 'scPertEval 0.2'
EXPONENTS = (1, 2, 4)


def _columns() -> tuple[base.Column, ...]:
  test = ('means', 'variances')
  alone = 'the only condition of its group'
  column = functools.partial(base.Column, reference=REFERENCE)
  r = {'best': 1.0, 'direction': 'higher', 'bounds': (-1.0, 1.0)}
  error = {'best': 0.0, 'direction': 'lower'}
  columns = [
    column(
      'pearson',
      'Pearson correlation of the means',
      undefined='a constant side',
      **r,
    ),
    column(
      'pearson_ctrl',
      'the same of changes from the real control',
      undefined='a constant side',
      chance=0.0,
      needs=('means', 'control'),
      **r,
    ),
    column(
      'pearson_pert',
      'the same of changes from the mean of all other perturbed cells',
      undefined=f'a constant side; {alone}',
      chance=0.0,
      **r,
    ),
    column('mse', 'mean over genes of (a - b)^2', **error),
  ]
  for exponent in EXPONENTS:
    columns.append(
      column(
        f'wmse_exp{exponent}',
        'sum w (a - b)^2 / sum w, w = ((|t| - min) / (max - min))^'
        f'{exponent}, t against all other perturbed cells',
        needs=test,
        undefined=alone,
        **error,
      )
    )
  for suffix, genes in (
    ('top_k', 'the k genes of largest |t|'),
    ('degs_padj', 'the genes with adjusted p < padj'),
  ):
    nothing = f'{alone}; no such gene'
    columns.append(
      column(
        f'mse_{suffix}',
        f'mse over {genes}',
        needs=test,
        undefined=nothing,
        **error,
      )
    )
    columns.append(
      column(
        f'pearson_pert_{suffix}',
        f'pearson_pert over {genes}',
        needs=test,
        undefined=f'{nothing}; a constant side',
        chance=0.0,
        **r,
      )
    )
  for name, text in (
    ('rank', 'predictions closer to a truth than its own, over all others'),
    ('transpose_rank', 'truths closer to a prediction than its own'),
  ):
    columns.append(
      column(
        name,
        f'{text}; squared distance, ties count half',
        chance=0.5,
        undefined=alone,
        bounds=(0.0, 1.0),
        **error,
      )
    )
  texts = {
    'unbiased_mmd_median': 'squared RBF MMD without self pairs, median '
    'bandwidth',
    'energy_distance': '2 E|x-y| - E|x-x\'| - E|y-y\'| without self pairs',
    'sinkhorn_w2': 'sqrt(2 S), S the Sinkhorn divergence of |x - y|^2 / 2',
  }  # fmt: skip
  for name, text in texts.items():
    for suffix, space in (
      ('top_k', 'on the k genes of largest |t|'),
      ('pca_k', 'in k principal components of the observed cells'),
    ):
      columns.append(
        column(
          f'{name}_{suffix}',
          f'{text}, {space}',
          needs=('cells', *test) if suffix == 'top_k' else ('cells',),
          undefined='' if name == 'sinkhorn_w2' else 'a side has one cell',
          **error,
        )
      )
  for name, text, chance in (
    ('de_auprc', 'average precision of finding genes with adjusted p < 0.05 '
     'by predicted |t|, which may order even real genes differently', None),
    ('de_auroc', 'area under the ROC curve of the same', 0.5),
    ('de_overlap_k', 'share of the k genes of largest |t| on both sides; ties '
     'share places', None),
  ):  # fmt: skip
    columns.append(
      column(
        name,
        text,
        1.0,
        'higher',
        chance=chance,
        needs=test,
        undefined='k is all genes'
        if name == 'de_overlap_k'
        else 'all genes or none are differential',
        bounds=(0.0, 1.0),
      )
    )
  return tuple(columns)


COLUMNS = _columns()
