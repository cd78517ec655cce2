"""Families of columns that compare mean profiles and their changes."""

from __future__ import annotations

from pertjax.metrics.translation.facets import Family, Member

REAL, _NOWHERE = {'start': 'real control'}, {'start': 'nowhere (profiles)'}
_FLOAT32 = {'rounding': 'below 2^-22 of the mean'}
_KEPT = {'rounding': 'nothing'}
_MEAN = {'start': '{dataset_mean}'}
_OTHERS = {'start': 'mean of all other perturbed cells'}
LOGFC = {
  'values': 'log2 ratio of mean log values + {pseudocount}',
  'start': '{control}',
}
_BULK = {'values': 'log of summed counts'}
DE20 = {'genes': 'top 20 by |t|'}
DROPOUT20 = {'genes': 'top 20 non-dropout by |t|'}
_DEGS = {'genes': '{degs}'}
TOP_K = {'genes': 'top {top_k} by |t| against others'}
_PADJ = {'genes': 'adjusted p < {padj} against others'}
_COSINE = {'measure': 'cosine'}


def _weights(exponent: int, test: str) -> dict[str, str]:
  return {'weights': f'|t|^{exponent} against others{test}'}


_CORRELATION = Family(
  'Correlation of changes',
  'higher',
  {
    'start': 'own control',
    'values': 'mean log values',
    'rounding': 'below 1e-12 of the mean',
    'genes': 'all',
    'measure': 'Pearson',
    'undefined': 'left out without a value',
  },
  (
    Member('cell-eval', 'pearson_delta', {}),
    Member('gears', 'pearson_delta', REAL | _FLOAT32),
    Member('gears', 'pearson_delta_de', REAL | _FLOAT32 | DE20),
    Member(
      'gears',
      'pearson_delta_top20_de_non_dropout',
      REAL | _FLOAT32 | DROPOUT20,
    ),
    Member('scgpt', 'pearson_delta', REAL | _FLOAT32),
    Member('scgpt', 'pearson_de_delta', REAL | _FLOAT32 | DE20),
    Member(
      'scgpt',
      'pearson_delta_no_knockout',
      REAL | _FLOAT32 | {'genes': 'all but the own targets'},
    ),
    Member('systema', 'corr_all', REAL | _FLOAT32),
    Member('systema', 'corr_20de', REAL | _FLOAT32 | DROPOUT20),
    Member('systema', 'corr_all_allpert', {'start': '{reference}'} | _FLOAT32),
    Member(
      'systema',
      'corr_20de_allpert',
      {'start': '{reference}'} | _FLOAT32 | DROPOUT20,
    ),
    Member('cellsimbench', 'pearson_deltactrl', REAL | _KEPT),
    Member('cellsimbench', 'pearson_deltactrl_degs', REAL | _KEPT | _DEGS),
    Member('cellsimbench', 'pearson_deltapert', _MEAN | _KEPT),
    Member('cellsimbench', 'pearson_deltapert_degs', _MEAN | _KEPT | _DEGS),
    Member('scperteval', 'pearson_ctrl', REAL | _KEPT),
    Member('scperteval', 'pearson_pert', _OTHERS | _KEPT),
    Member('scperteval', 'pearson_pert_top_k', _OTHERS | _KEPT | TOP_K),
    Member('scperteval', 'pearson_pert_degs_padj', _OTHERS | _KEPT | _PADJ),
    Member('scperturbbench', 'pcc_delta_all', REAL | _KEPT),
    Member(
      'scperturbbench',
      'pcc_delta_top100',
      REAL | _KEPT | {'genes': 'top {top} by {ranking}'},
    ),
    Member('perturbench', 'pearson_logfc', LOGFC),
    Member('perturbench', 'cosine_logfc', LOGFC | _COSINE),
    Member('perturbench', 'pearson_average', _NOWHERE),
    Member('perturbench', 'cosine_average', _NOWHERE | _COSINE),
    Member('gears', 'pearson', _NOWHERE),
    Member('scperteval', 'pearson', _NOWHERE),
    Member(
      'cell-eval2',
      'delta_pearson',
      _BULK
      | {'start': '{control}', 'undefined': '-1 for a constant prediction'},
    ),
  ),
)

_ABSOLUTE = {'measure': 'absolute'}
_OWN = {'start': 'own control'}

_ERROR = Family(
  'Error of the mean profile',
  'lower',
  {
    'start': 'nowhere (profiles)',
    'values': 'mean log values',
    'genes': 'all',
    'weights': 'equal',
    'measure': 'squared',
    'noise': 'counted',
    'divided': 'the number of genes',
  },
  (
    Member('cell-eval', 'mse', {}),
    Member('cell-eval', 'mse_delta', _OWN),
    Member('cell-eval', 'mae', _ABSOLUTE),
    Member('cell-eval', 'mae_delta', _OWN | _ABSOLUTE),
    Member('vcc2025', 'mae', _ABSOLUTE),
    Member('gears', 'mse', {}),
    Member('gears', 'mse_de', DE20),
    Member('gears', 'mse_top20_de_non_dropout', DROPOUT20),
    Member('scgpt', 'mse', {}),
    Member('systema', 'rmse', {}, 'x^2'),
    Member('perturbench', 'mse_average', {}),
    Member('perturbench', 'rmse_average', {}, 'x^2'),
    Member('perturbench', 'mae_average', _ABSOLUTE),
    Member('perturbench', 'mse_logfc', LOGFC),
    Member('cellsimbench', 'mse', {}),
    Member('cellsimbench', 'wmse', _weights(2, '{overestimate}')),
    Member('scperteval', 'mse', {}),
    Member('scperteval', 'wmse_exp1', _weights(1, '')),
    Member('scperteval', 'wmse_exp2', _weights(2, '')),
    Member('scperteval', 'wmse_exp4', _weights(4, '')),
    Member('scperteval', 'mse_top_k', TOP_K),
    Member('scperteval', 'mse_degs_padj', _PADJ),
    Member('scperturbbench', 'mse_all', {'measure': '{mse}'}),
    Member(
      'scperturbbench',
      'mse_top100',
      {'genes': 'top {top} by {ranking}', 'measure': '{mse}'},
    ),
    Member('cell-eval2', 'expr_mse', _BULK),
    Member('cell-eval2', 'delta_mse', _BULK | {'start': '{control}'}),
    Member('cell-eval2', 'expr_mae', _BULK | _ABSOLUTE),
    Member(
      'cell-eval2',
      'expr_mse_unbiased_capped',
      _BULK | {'genes': 'all but the own targets', 'noise': 'taken away'},
    ),
    Member(
      'vcc2026',
      'expr_mse_unbiased_capped_norm',
      _BULK
      | {
        'genes': 'all but the own targets',
        'noise': 'taken away',
        'divided': 'the distance of truth and control',
      },
      '',
    ),
  ),
)

_TIES = {'ties': '{ties}'}
_ALL = {'genes': 'all'}
_TRUTHS = {'side': '{transposed}', 'denominator': '{rank_denominator}'}
_PROFILES = _NOWHERE | _ALL
_PERTURBENCH = _PROFILES | _TIES | _TRUTHS


def _distance(name: str) -> dict[str, str]:
  return {'distance': name}


_PDS2 = (
  _BULK
  | _TIES
  | {
    'start': '{control}',
    'genes': 'all but the targets of all conditions',
    'denominator': 'P - 1',
  }
)

_RETRIEVAL = Family(
  'Retrieval: does a prediction find its own condition',
  'higher',
  {
    'sign': 'kept',
    'start': 'own control',
    'values': 'mean log values',
    'genes': 'all but the one named as the condition',
    'distance': 'l1',
    'side': 'truths per prediction',
    'ties': 'half',
    'denominator': 'P',
  },
  (
    Member('cell-eval', 'discrimination_score_l1', _TIES),
    Member('cell-eval', 'discrimination_score_l2', _TIES | _distance('l2')),
    Member(
      'cell-eval', 'discrimination_score_cosine', _TIES | _distance('cosine')
    ),
    Member(
      'vcc2025', 'discrimination_score_l1', _TIES | {'sign': '{absolute}'}
    ),
    Member(
      'systema',
      'centroid_accuracy',
      _PROFILES | _TIES | _distance('l2') | {'denominator': 'P - 1'},
    ),
    Member(
      'cellsimbench',
      'nir',
      _PROFILES | _TIES | _distance('l2') | {'denominator': 'P - 1'},
    ),
    Member(
      'scperteval',
      'transpose_rank',
      _PROFILES | _distance('l2') | {'ties': '{noise}', 'denominator': 'P - 1'},
      '1 - x',
    ),
    Member(
      'scperteval',
      'rank',
      _PROFILES
      | _distance('l2')
      | {
        'ties': '{noise}',
        'denominator': 'P - 1',
        'side': 'predictions per truth',
      },
      '1 - x',
    ),
    Member(
      'perturbench',
      'rmse_rank_average',
      _PERTURBENCH | _distance('l2'),
      '1 - x',
    ),
    Member('perturbench', 'mae_rank_average', _PERTURBENCH, '1 - x'),
    Member(
      'perturbench',
      'cosine_rank_average',
      _PERTURBENCH | _distance('cosine'),
      '1 - x',
    ),
    Member(
      'perturbench',
      'cosine_rank_logfc',
      _PERTURBENCH | LOGFC | _distance('cosine'),
      '1 - x',
    ),
    Member(
      'perturbench2',
      'rmse_rank_average',
      _PERTURBENCH | _distance('l2'),
      '1 - x',
    ),
    Member(
      'perturbench2',
      'cosine_rank_logfc',
      _PERTURBENCH | LOGFC | _distance('cosine'),
      '1 - x',
    ),
    Member('cell-eval2', 'pds_l1', _PDS2),
    Member('cell-eval2', 'pds_l2', _PDS2 | _distance('l2')),
    Member('cell-eval2', 'pds_cosine', _PDS2 | _distance('cosine')),
    Member('vcc2026', 'pds_cosine', _PDS2 | _distance('cosine')),
  ),
)

_SSE = {'measure': '1 - SSE / SST of the truth'}

_MEANS = Family(
  'Explained variance of means',
  'higher',
  {
    'start': 'nowhere (profiles)',
    'values': 'mean log values',
    'genes': 'all',
    'measure': 'squared Pearson',
    'weights': 'equal',
    'cells': 'all',
  },
  (
    Member('scgen', 'r2mean', {}),
    Member('scgen', 'r2mean_top20', {'genes': 'top 20 by {ranking}'}),
    Member('scgen', 'r2mean_top100', {'genes': 'top 100 by {ranking}'}),
    Member(
      'scgen',
      'r2mean_all_boostrap_mean',
      {'cells': '{repeats} draws of {fraction} of them'},
    ),
    Member('gears', 'pearson', {}, 'x^2'),
    Member('perturbench', 'r2_score_average', {'measure': '{r2_swapped}'}),
    Member('cellsimbench', 'r2_deltactrl', REAL | _SSE),
    Member('cellsimbench', 'r2_deltactrl_degs', REAL | _SSE | _DEGS),
    Member('cellsimbench', 'r2_deltapert', _MEAN | _SSE),
    Member('cellsimbench', 'r2_deltapert_degs', _MEAN | _SSE | _DEGS),
    Member(
      'cellsimbench',
      'weighted_r2_deltactrl',
      REAL | _SSE | _weights(2, '{overestimate}'),
    ),
    Member(
      'cellsimbench',
      'weighted_r2_deltapert',
      _MEAN | _SSE | _weights(2, '{overestimate}'),
    ),
  ),
)

_VARIANCES = Family(
  'Explained variance of variances',
  'higher',
  {
    'of': 'variance',
    'genes': 'all',
    'measure': 'squared Pearson',
    'cells': 'all',
  },
  (
    Member('scgen', 'r2var', {}),
    Member('scgen', 'r2var_top20', {'genes': 'top 20 by {ranking}'}),
    Member('scgen', 'r2var_top100', {'genes': 'top 100 by {ranking}'}),
    Member(
      'scgen',
      'r2var_all_boostrap_mean',
      {'cells': '{repeats} draws of {fraction} of them'},
    ),
    Member(
      'perturbench',
      'r2_score_var',
      {'of': '{adjust_var}', 'measure': '{r2_swapped}'},
    ),
    Member('perturbench', 'pearson_var', {'of': '{adjust_var}'}, 'x^2'),
  ),
)

FAMILIES: dict[str, Family] = {
  'correlation': _CORRELATION,
  'error': _ERROR,
  'retrieval': _RETRIEVAL,
  'r2_means': _MEANS,
  'r2_variances': _VARIANCES,
}
