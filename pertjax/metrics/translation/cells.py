"""Families of columns that test genes or compare cells."""

from __future__ import annotations

from pertjax.metrics.translation import means
from pertjax.metrics.translation.facets import Family, Member

_CPM = {
  'values': 'log2 ratio of mean counts per million',
  'start': '{control}',
}
_TEN = {'undefined': 'with 10 significant genes'}
_CALLS2 = {'order': 'Wilcoxon of counts per million, significant, |log2 fold|'}
_AUC = {'k': 'all', 'order': 'Wilcoxon, fdr'}
_T = {'k': '100', 'measure': 'shared / k'}

_DE = Family(
  'Agreement of differentially expressed genes',
  'higher',
  {
    'k': 'as many as significant in truth',
    'order': 'Wilcoxon, significant, |log2 fold|',
    'genes': 'all',
    'measure': 'shared / k',
    'undefined': '0 without significant genes',
  },
  (
    Member('cell-eval', 'overlap_at_N', {}),
    Member('vcc2025', 'overlap_at_N', {}),
    Member('cell-eval', 'overlap_at_50', {'k': '50 of truth'}),
    Member(
      'cell-eval',
      'precision_at_N',
      {'k': 'as many as significant in prediction'},
    ),
    Member(
      'cell-eval',
      'de_sig_genes_recall',
      {'k': 'all significant of each side', 'undefined': 'left out without'},
    ),
    Member('cell-eval', 'pr_auc', _AUC | {'measure': 'average precision'}),
    Member('cell-eval', 'roc_auc', _AUC | {'measure': 'ROC area'}),
    Member(
      'systema',
      'jaccard',
      {'order': '|change of the mean|', 'k': '20', 'measure': 'Jaccard'},
    ),
    Member('scgen', 'DEGs', _T | {'order': 't'}, 'x / 100'),
    Member('scgen', 'DEGs_absolute', _T | {'order': '|t|'}, 'x / 100'),
    Member('scperturbbench', 'common_degs', _T | {'order': '|t|'}, 'x / 100'),
    Member(
      'scperteval',
      'de_overlap_k',
      {'order': '|t| against others', 'k': '{overlap_k}'},
    ),
    Member(
      'scperteval',
      'de_auprc',
      {
        'order': '|t| against others',
        'k': 'all',
        'measure': 'average precision',
      },
    ),
    Member(
      'scperteval',
      'de_auroc',
      {'order': '|t| against others', 'k': 'all', 'measure': 'ROC area'},
    ),
    Member(
      'perturbench2',
      'top_k_recall_logfc',
      {
        'order': '|log2 ratio of mean log values + {pseudocount}|',
        'k': '{top_k}',
      },
    ),
    Member('cell-eval2', 'overlap', _CALLS2),
    Member(
      'cell-eval2',
      'sig_recall',
      _CALLS2 | _TEN | {'k': 'all significant of each side'},
    ),
    Member(
      'cell-eval2',
      'sig_jaccard',
      _CALLS2
      | {
        'k': 'all significant of each side',
        'measure': 'Jaccard',
        'genes': 'all but the own targets',
        'undefined': '1 without significant genes',
      },
    ),
    Member(
      'vcc2026',
      'sig_jaccard',
      _CALLS2
      | {
        'k': 'all significant of each side',
        'measure': 'Jaccard',
        'genes': 'all but the own targets',
        'undefined': '1 without significant genes',
      },
    ),
  ),
  'tests every gene of every condition',
)

_SIGNS = means.REAL | {'undefined': 'all'}

_DIRECTION = Family(
  'Direction of change',
  'higher',
  {
    'start': 'own control',
    'values': 'log2 ratio of geometric means',
    'genes': 'significant in truth',
    'measure': 'share of right signs',
    'undefined': 'left out without such genes',
  },
  (
    Member('cell-eval', 'de_direction_match', {}),
    Member(
      'gears',
      'frac_correct_direction_all',
      _SIGNS | {'genes': 'all', 'values': 'mean log values'},
    ),
    Member(
      'gears',
      'frac_correct_direction_20',
      _SIGNS | means.DE20 | {'values': 'mean log values'},
    ),
    Member(
      'gears',
      'frac_correct_direction_top20_non_dropout',
      _SIGNS | means.DROPOUT20 | {'values': 'mean log values'},
    ),
    Member(
      'gears',
      'frac_opposite_direction_top20_non_dropout',
      _SIGNS
      | means.DROPOUT20
      | {'values': 'mean log values', 'measure': 'share of no wrong signs'},
      '1 - x',
    ),
    Member('cell-eval2', 'direction_match', _CPM | _TEN),
    Member(
      'cell-eval2',
      'model_direction_match',
      _CPM
      | {
        'genes': 'significant in prediction',
        'undefined': 'with 10 genes, 0 without calls',
      },
    ),
    Member(
      'cell-eval2',
      'direction_fidelity_raw',
      _CPM
      | {
        'genes': 'significant in prediction, with a direction, not own',
      },
    ),
    Member(
      'vcc2026',
      'direction_fidelity_yield_raw',
      _CPM
      | {
        'genes': 'significant in prediction, with a direction, not own',
        'measure': 'right signs / the larger number of calls',
      },
    ),
  ),
  'tests every gene of every condition',
)

_FOLD = Family(
  'Agreement of fold changes',
  'higher',
  {
    'start': 'own control',
    'values': 'log2 ratio of geometric means',
    'genes': 'significant in truth',
    'measure': 'Spearman',
    'undefined': 'left out without a value',
  },
  (
    Member('cell-eval', 'de_spearman_lfc_sig', {}),
    Member('cell-eval', 'pearson_delta', {
      'values': 'mean log values', 'genes': 'all', 'measure': 'Pearson'}),
    Member('perturbench', 'pearson_logfc', means.LOGFC | {
      'genes': 'all', 'measure': 'Pearson'}),
    Member('perturbench', 'cosine_logfc', means.LOGFC | {
      'genes': 'all', 'measure': 'cosine'}),
    Member('gears', 'fold_change_gap_all', means.REAL | {
      'values': 'mean log values', 'genes': 'of observed mean >= 0.5',
      'measure': '|error| / control'}, ''),
    Member('cell-eval2', 'lfc_spearman', _CPM | {
      'undefined': 'with 10 significant genes, -1 for constant ones'}),
    Member('cell-eval2', 'lfc_spearman_pos', _CPM | {
      'genes': 'significant in truth, rising',
      'undefined': 'with 10 such genes, -1 for constant ones'}),
    Member('cell-eval2', 'lfc_spearman_neg', _CPM | {
      'genes': 'significant in truth, falling',
      'undefined': 'with 10 such genes, -1 for constant ones'}),
    Member('vcc2026', 'lfc_nmae', _CPM | {
      'genes': 'significant in truth, not own',
      'measure': '1 - sum |error| / sum |truth|',
      'undefined': 'with 10 significant genes'}, '1 - x'),
  ),
  'tests every gene of every condition',
)  # fmt: skip

_LEFT_OUT = {'self_pairs': 'left out'}
_SQUARED = {'length': 'squared'}
_SETS = {'space': '{space}'}
_RBF = {'measure': 'RBF kernel, median width', 'factor': 'K + K - 2 K'}

_CELLS = Family(
  'Distance of cell distributions',
  'lower',
  {
    'space': 'genes',
    'cells': 'all',
    'genes': 'all',
    'length': 'Euclidean',
    'self_pairs': 'counted',
    'factor': '2 E|x-y| - E|x-x\'| - E|y-y\'|',
    'measure': 'energy distance',
    'divided': 'nothing',
  },
  (
    Member('distances', 'edistance_biased', _SETS),
    Member('distances', 'edistance_half', _SETS | {'factor': 'half of it'}),
    Member('distances', 'edistance_unbiased', _SETS | _LEFT_OUT),
    Member('distances', 'edistance_squared', _SETS | _SQUARED),
    Member('distances', 'mmd_linear', _SETS | _SQUARED | {
      'factor': 'half of it'}),
    Member('scperturbbench', 'edistance_all', {
      'cells': 'at most {max_cells}', 'length': '{meaning}'}),
    Member('scperturbbench', 'edistance_top100', {
      'cells': 'at most {max_cells}', 'length': '{meaning}',
      'genes': 'top {top} by {ranking}'}),
    Member('scperteval', 'energy_distance_top_k', means.TOP_K | _LEFT_OUT),
    Member('scperteval', 'energy_distance_pca_k', _LEFT_OUT | {
      'space': '{pca_k} components'}),
    Member('perturbench2', 'mmd_pca', {
      'space': '{n_comps} components', 'factor': 'half of it'}),
    Member('scgen', 'edistance', _SQUARED | {
      'space': '{components} components',
      'divided': 'that of prediction and control'}),
    Member('scgen', 'edistance_to_effect', _SQUARED | {
      'space': '{components} components',
      'divided': 'that of truth and control'}),
    Member('scgen', 'edistance_unbiased', _LEFT_OUT | {
      'space': '{components} components',
      'divided': 'that of prediction and control'}),
    Member('distances', 'mmd_rbf', _SETS | _RBF, ''),
    Member('distances', 'mmd_rbf_unbiased', _SETS | _RBF | _LEFT_OUT, ''),
    Member('scperteval', 'unbiased_mmd_median_pca_k', _RBF | _LEFT_OUT | {
      'space': '{pca_k} components'}, ''),
    Member('distances', 'wasserstein_1d', _SETS | {
      'measure': 'mean over genes of Wasserstein-1'}, ''),
  ),
  'compares all pairs of cells',
)  # fmt: skip

FAMILIES: dict[str, Family] = {
  'de': _DE,
  'direction': _DIRECTION,
  'fold_change': _FOLD,
  'distribution': _CELLS,
}
