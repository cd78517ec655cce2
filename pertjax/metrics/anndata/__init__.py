"""Scoring AnnData and h5ad files: the only metrics that know such tables."""

from pertjax.metrics.anndata.aligning import problem_of
from pertjax.metrics.anndata.auditing import certify, red_team
from pertjax.metrics.anndata.challenges import scaled
from pertjax.metrics.anndata.comparing import compare, read_scores
from pertjax.metrics.anndata.inputs import key_and_control
from pertjax.metrics.anndata.scoring import ScoreWarning, score
from pertjax.metrics.anndata.translating import translate

__all__ = [
  'ScoreWarning',
  'certify',
  'compare',
  'key_and_control',
  'problem_of',
  'read_scores',
  'red_team',
  'scaled',
  'score',
  'translate',
]
