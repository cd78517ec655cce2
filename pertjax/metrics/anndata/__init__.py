"""Scoring AnnData and h5ad files: the only metrics that know such tables."""

from pertjax.metrics.anndata.inputs import key_and_control
from pertjax.metrics.anndata.scoring import ScoreWarning, problem_of, score

__all__ = ['ScoreWarning', 'key_and_control', 'problem_of', 'score']
