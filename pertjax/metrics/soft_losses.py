"""Soft metrics as training losses: what config.loss.weights names.

0 is the best value of all. Genes are weighted by the change that the batch's
own cells show, which is all that a batch knows of significance: with few cells
a pair these weights are mostly noise.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from pertjax.metrics import pseudobulk, soft, soft_ranks, weighted
from pertjax.types import Array


class Term(NamedTuple):
  """A metric in the form that training makes smaller.

  Attributes:
    function: `(predicted, observed, control, groups, *, temperature, metric)`
      of rows [conditions, genes] and int [conditions]; returns [conditions].
    competes: whether a condition needs another one of its group.
  """

  function: Callable[..., Array]
  competes: bool = False


def _mse(predicted, observed, control, groups, *, temperature, metric):
  del control, groups, temperature, metric
  return pseudobulk.mse(predicted, observed)


def _weighted_mse(predicted, observed, control, groups, *, temperature, metric):
  del groups, temperature, metric
  weights = weighted.significance_weights(observed - control)
  return weighted.wmse(predicted, observed, weights)


def _weighted_r2(predicted, observed, control, groups, *, temperature, metric):
  del groups, temperature, metric
  weights = weighted.significance_weights(observed - control)
  return 1 - soft.weighted_r2_delta(
    predicted, observed, control, weights, eps=soft.EPS
  )


def _pearson(predicted, observed, control, groups, *, temperature, metric):
  del groups, temperature, metric
  return 1 - soft.pearson_delta(predicted, observed, control)


def _cosine(predicted, observed, control, groups, *, temperature, metric):
  del groups, temperature, metric
  return 1 - soft.cosine(predicted - control, observed - control)


def _rank(predicted, observed, control, groups, *, temperature, metric):
  return soft_ranks.soft_rank(
    predicted - control,
    observed - control,
    metric=metric,
    temperature=temperature,
    groups=groups,
  )


def _nce(predicted, observed, control, groups, *, temperature, metric):
  return soft_ranks.retrieval_nce(
    predicted - control,
    observed - control,
    metric=metric,
    temperature=temperature,
    groups=groups,
  )


def _direction(predicted, observed, control, groups, *, temperature, metric):
  del groups, metric
  change = observed - control
  return 1 - soft.direction_match(
    predicted - control,
    change,
    temperature=temperature,
    weights=weighted.significance_weights(change),
  )


def _recall(predicted, observed, control, groups, *, temperature, metric):
  del groups, metric
  return 1 - soft.top_k_recall(
    predicted - control,
    observed - control,
    temperature=temperature,
    k=min(20, predicted.shape[-1]),
  )


LOSSES = {
  'mse': Term(_mse),
  'weighted_mse': Term(_weighted_mse),
  'weighted_r2_delta': Term(_weighted_r2),
  'pearson_delta': Term(_pearson),
  'cosine_delta': Term(_cosine),
  'soft_rank': Term(_rank, competes=True),
  'retrieval_nce': Term(_nce, competes=True),
  'direction_match': Term(_direction),
  'top_k_recall': Term(_recall),
}
