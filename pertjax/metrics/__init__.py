"""Metrics of predicted perturbation effects: a library of its own.

For arrays: every function is pure and can be jitted, vmapped and used in a
loss. `get` knows them by name, `table` computes them for all conditions of all
models at once, `de` tests every gene of every condition.

For AnnData and h5ad files: `score` in anybody's convention, `scaled` as the
challenges rank, `certify` and `red_team` of a dataset, `compare` of models,
`translate` between conventions. These are loaded when they are first used.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from pertjax.metrics import intervals, pseudobulk, ranks, registry
from pertjax.metrics.differential import benjamini_hochberg, de
from pertjax.metrics.intervals import Interval, bootstrap, hierarchical
from pertjax.metrics.pseudobulk import (
  cosine,
  delta,
  group_means,
  group_variances,
  l2,
  logfc,
  mae,
  mse,
  pearson,
  pearson_delta,
  r2,
  rmse,
  scaled_means,
  top_k_recall,
  variation,
)
from pertjax.metrics.ranks import num_ties, pairwise, perturbation_rank, rank
from pertjax.metrics.registry import Metric, get, list_metrics, metric
from pertjax.types import Array

__all__ = [
  'AGGREGATES',
  'TABLE_METRICS',
  'Interval',
  'Metric',
  'benjamini_hochberg',
  'bootstrap',
  'cosine',
  'de',
  'delta',
  'get',
  'group_means',
  'group_variances',
  'hierarchical',
  'intervals',
  'l2',
  'list_metrics',
  'logfc',
  'mae',
  'metric',
  'mse',
  'num_ties',
  'pairwise',
  'pearson',
  'pearson_delta',
  'perturbation_rank',
  'pseudobulk',
  'r2',
  'rank',
  'ranks',
  'registry',
  'rmse',
  'scaled_means',
  'table',
  'top_k_recall',
  'variation',
]

# From `anndata`, which needs pandas and more: not before somebody asks.
_LATER = ('certify', 'compare', 'red_team', 'scaled', 'score', 'translate')

AGGREGATES = ('average', 'delta', 'logfc')
TABLE_METRICS = (
  'rmse',
  'mse',
  'mae',
  'cosine',
  'pearson',
  'r2',
  'top_k_recall',
  *(f'{name}_rank' for name in ranks.METRICS),
)
# Genes are gathered where a mask has less than one in so many of them; from
# there on products are faster.
_FEW = 8


def __getattr__(name: str):
  """Loads what reads AnnData when it is asked for."""
  if name in _LATER:
    from pertjax.metrics import anndata

    return getattr(anndata, name)
  raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


Table = dict[tuple[str, str, str], Array]


def table(
  predicted: Array,
  observed: Array,
  control: Array,
  *,
  groups: Array,
  predicted_control: Array | None = None,
  gene_masks: Mapping[str, Array | None] | None = None,
  aggregates: Sequence[str] = AGGREGATES,
  metrics: Sequence[str] = TABLE_METRICS,
  rank_denominator: str = 'n-1',
  r2_swapped: bool = False,
  top_k: int = 20,
  pseudocount: float = 0.1,
  logfc_floor: float = 0.0,
  logfc_undefined: float = float('nan'),
) -> Table:
  """Computes metrics of all conditions in one compiled call.

  Models run one after the other inside it, so memory is that of one model and
  the inputs.

  Args:
    predicted: [conditions, genes] mean prediction of each condition, or
      [models, conditions, genes].
    observed: [conditions, genes] mean of the observed cells.
    control: [conditions, genes] mean of the control cells of each condition's
      covariate group; the changes of both sides are taken from it.
    predicted_control: [(models,) conditions, genes] what the changes of the
      predicted side are taken from instead, for predictions with controls of
      their own.
    groups: int [conditions] covariate group; ranks compare within it.
    gene_masks: {name: None for all genes, bool [genes] or [conditions, genes]};
      default {'all': None}. The last kind ranks predictions of other
      conditions on the genes of the condition in question.
    aggregates: some of AGGREGATES: the means themselves, their difference from
      control, their log fold change.
    metrics: names or aliases in the registry that need nothing beyond the
      arguments above.
    rank_denominator: see `ranks.rank`.
    r2_swapped: see `pseudobulk.r2`.
    top_k: genes of `top_k_recall`.
    pseudocount: see `pseudobulk.logfc`.
    logfc_floor: lower means count as this in 'logfc': a sum of effects may
      leave the range of expression. Minus infinity keeps them.
    logfc_undefined: its `undefined`; NaN makes every 'logfc' metric of a
      condition NaN where one mean is below minus the pseudocount.

  Returns:
    {(aggregate, genes, metric): [conditions] or [models, conditions]} with the
    names as they were asked for. NaN where a metric has no answer.

  Raises:
    ValueError: when a name is unknown, a metric needs more than a table has,
      or shapes do not fit.
  """
  masks = {'all': None} if gene_masks is None else dict(gene_masks)
  predicted, observed, control, groups = (
    jnp.asarray(x) for x in (predicted, observed, control, groups)
  )
  _check_table(predicted, observed, control, groups)
  _check_names(aggregates, metrics, masks)
  own = control if predicted_control is None else predicted_control
  own = jnp.asarray(own)
  if own.shape not in (control.shape, predicted.shape):
    raise ValueError(
      f'predicted_control has the shape {own.shape}; allowed are that of '
      f'control, {control.shape}, and of predicted, {predicted.shape}'
    )
  if predicted.ndim == 3:
    own = jnp.broadcast_to(own, predicted.shape)
  values = _table(
    predicted if predicted.ndim == 3 else predicted[None],
    observed,
    control,
    own if predicted.ndim == 3 else own[None],
    groups,
    masks,
    _few_genes(masks),
    pseudocount,
    logfc_floor,
    logfc_undefined,
    aggregates=tuple(aggregates),
    metrics=tuple(metrics),
    options=(
      ('denominator', rank_denominator),
      ('k', top_k),
      ('swapped', r2_swapped),
    ),
  )
  if predicted.ndim == 3:
    return values
  return {key: value[0] for key, value in values.items()}


def _check_table(predicted, observed, control, groups) -> None:
  shape = observed.shape
  fits = observed.ndim == 2 and predicted.ndim in (2, 3)
  fits = fits and predicted.shape[-2:] == shape == control.shape
  if not fits or groups.shape != shape[:1]:
    raise ValueError(
      'a table takes predicted [(models,) conditions, genes], observed and '
      'control [conditions, genes] and groups [conditions]; shapes: '
      f'{predicted.shape}, {shape}, {control.shape}, {groups.shape}'
    )


def _check_names(aggregates, metrics, masks) -> None:
  for name in aggregates:
    registry.check_choice('aggregate', name, AGGREGATES)
  given = {'predicted', 'observed', 'control'}
  for name in metrics:
    entry = registry.get(name)
    missing = set(entry.needs) - given
    if missing:
      raise ValueError(
        f'metric {name!r} needs {", ".join(sorted(missing))}, which a table '
        'does not have'
      )
    masked = [genes for genes, mask in masks.items() if mask is not None]
    if masked and 'mask' not in entry.options:
      raise ValueError(
        f'metric {name!r} takes no gene mask; given: {", ".join(masked)}'
      )


def _few_genes(masks) -> dict[str, ranks.OwnGenes]:
  """Lists the genes of masks that have few in each row.

  A mask that is being traced cannot be counted; it is used as it is.
  """
  few = {}
  for name, mask in masks.items():
    if np.ndim(mask) == 2 and not isinstance(mask, jax.core.Tracer):
      most = np.asarray(mask).sum(1).max(initial=0)
      if most * _FEW <= np.shape(mask)[1]:
        few[name] = ranks.own_genes(mask)
  return few


@functools.partial(
  jax.jit, static_argnames=('aggregates', 'metrics', 'options')
)
def _table(
  predicted,
  observed,
  control,
  predicted_control,
  groups,
  masks,
  few,
  pseudocount,
  floor,
  undefined,
  *,
  aggregates,
  metrics,
  options,
) -> Table:
  """Computes the table of [models, conditions, genes]."""
  options = dict(options, groups=groups)

  def aggregate(name, mean, control):
    if name == 'logfc':
      return pseudobulk.logfc(
        jnp.maximum(mean, floor),
        control,
        pseudocount=pseudocount,
        undefined=undefined,
      )
    return pseudobulk.delta(mean, control) if name == 'delta' else mean

  def stacked(mean, control):
    return jnp.stack([aggregate(name, mean, control) for name in aggregates])

  def compare(sides):
    inputs = dict(zip(('predicted', 'observed', 'control'), sides))
    values = {}
    for genes, mask in masks.items():
      for name in metrics:
        entry = registry.get(name)
        given = {key: inputs[key] for key in entry.needs}
        # Ranks alone compare across conditions and can use the list.
        own = few.get(genes, mask) if 'groups' in entry.options else mask
        known = dict(options, mask=own)
        given |= {k: v for k, v in known.items() if k in entry.options}
        values[genes, name] = entry.function(**given)
    return values

  # The aggregate of the control itself: zero for differences.
  truth, origin = stacked(observed, control), stacked(control, control)
  values = jax.lax.map(
    lambda side: jax.lax.map(compare, (stacked(*side), truth, origin)),
    (predicted, predicted_control),
  )
  return {
    (name, genes, of): values[genes, of][:, at]
    for at, name in enumerate(aggregates)
    for genes in masks
    for of in metrics
  }
