"""Factors, what feeds them, which perturbation is whose, and their graph."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pertjax import types
from pertjax.models import interventions

ASSIGNMENTS = ('member', 'perturbation', 'factor', 'weight')
FACTOR_SETS = (
  'member', 'factor', 'rank', 'gene_set', 'name', 'weight', 'contribution',
)  # fmt: skip
GRAPH = ('member', 'from', 'to', 'weight', 'threshold')
# 0.005 is the one of the discrepancy-VAE's own figure.
THRESHOLDS = (0.005, 0.01, 0.05, 0.1, 0.2, 0.5)
TOP_SETS = 20
# Smaller ones are left out of assignments.csv.
_LEAST = 1e-4


def assignment_table(params, consts, spec: types.DataSpec) -> np.ndarray:
  """Returns how much each factor is each perturbation's, [perturbations, Z]."""
  return np.asarray(
    jax.jit(interventions.assignments)(
      params['intervention'],
      jnp.arange(spec.num_perturbations),
      consts['hyper']['eval_temperature'],
    ),
    np.float64,
  )


def assigned(params, table, spec: types.DataSpec, p: int) -> dict[str, Any]:
  """Returns where a perturbation goes; untrained ones go nowhere."""
  if not spec.trained[p]:
    nowhere = {'factor': '', 'weight': '', 'entropy': '', 'shift': ''}
    return {'perturbation': spec.perturbations[p], 'trained': 0, **nowhere}
  factor = int(table[p].argmax())
  return {
    'perturbation': spec.perturbations[p],
    'trained': 1,
    'factor': f'factor_{factor}',
    'weight': float(table[p, factor]),
    'entropy': _entropy(table[p]),
    'shift': float(params['intervention']['shift'][p]),
  }


def _entropy(weights: np.ndarray) -> float:
  inside = weights[weights > 0]
  return float(max(0.0, -(inside * np.log(inside)).sum()))


def assignment_rows(table, spec: types.DataSpec) -> list[dict[str, Any]]:
  """Returns the assignments of trained perturbations, from 1e-4 on."""
  return [
    {
      'perturbation': spec.perturbations[p],
      'factor': f'factor_{z}',
      'weight': float(table[p, z]),
    }
    for p in range(len(table))
    if spec.trained[p]
    for z in np.flatnonzero(table[p] >= _LEAST)
  ]


def factor_sets(
  params, units, spread: np.ndarray, names, *, by_weight: bool
) -> list[dict[str, Any]]:
  """Returns the gene sets that feed each factor most.

  Args:
    params: of the model.
    units: names of the gene sets.
    spread: [sets] standard deviation over control cells. Times the weight it
      is the set's contribution: scores of sets differ in scale.
    names: {gene set: what people call it}, where that is known.
    by_weight: order by weight alone, as the original.
  """
  weight = np.asarray(params['mean']['kernel'], np.float64)[: len(units)]
  contribution = weight * spread[:, None]
  rank_by = np.abs(weight if by_weight else contribution)
  return [
    {
      'factor': f'factor_{z}',
      'rank': rank + 1,
      'gene_set': units[k],
      'name': names.get(units[k], ''),
      'weight': float(weight[k, z]),
      'contribution': float(contribution[k, z]),
    }
    for z in range(weight.shape[1])
    for rank, k in enumerate(
      np.argsort(-rank_by[:, z], kind='stable')[:TOP_SETS]
    )
  ]


def graph_rows(graph: np.ndarray) -> list[dict[str, Any]]:
  """Returns the edges above the lowest threshold, the strongest first."""
  size = np.abs(np.triu(graph, 1))
  rows, columns = np.nonzero(size > THRESHOLDS[0])
  order = np.argsort(-size[rows, columns], kind='stable')
  return [
    {
      'from': f'factor_{i}',
      'to': f'factor_{j}',
      'weight': float(graph[i, j]),
      'threshold': max(t for t in THRESHOLDS if size[i, j] > t),
    }
    for i, j in zip(rows[order], columns[order])
  ]


def summary(table, graph, spec: types.DataSpec) -> dict[str, float]:
  """Returns entropy, distinct factors, and edges by threshold."""
  trained = table[np.asarray(spec.trained, bool)]
  size = np.abs(graph[np.triu_indices(len(graph), 1)])
  return {
    'factors': len(graph),
    'distinct factors': len(set(trained.argmax(1).tolist())),
    'entropy, mean': float(np.mean([_entropy(row) for row in trained])),
    'entropy, uniform': float(np.log(table.shape[1])),
    'edges': len(size),
    **{f'edges above {t:g}': int((size > t).sum()) for t in THRESHOLDS},
  }
