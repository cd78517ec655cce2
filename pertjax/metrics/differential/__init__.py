"""Differential expression: tests of every condition against its control."""

from pertjax.metrics.differential.engines import de
from pertjax.metrics.differential.table import (
  DE,
  benjamini_hochberg,
  log2_fold_change,
)

__all__ = ['DE', 'benjamini_hochberg', 'de', 'log2_fold_change']
