"""What every layer of a model of gene sets says of every condition.

Differential activation, its ratio and recall are those of SENA (ICLR 2025,
arXiv 2506.12439, and its code). Cells of all splits are encoded, perturbed ones
too, which the encoder never sees in training.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pertjax import types
from pertjax.data import arrays
from pertjax.metrics import pathways
from pertjax.models import interventions

TOPS = (25, 100)
# Of contributions to a set's score that count as none; SENA's grid.
SPARSITY = (1e-8, 1e-7, 1e-6, 1e-5, 1e-4)
# Units of a dense encoder that count as targeted, as SENA's code has it.
DENSE_TARGETS = 100
_BLOCK = 512


class Layers(NamedTuple):
  """Mean activations of the cells of each (condition, group) pair.

  Attributes:
    condition: int [pairs].
    group: int [pairs].
    cells: int [pairs].
    gene_set: [pairs, sets] scores before the activation.
    spread: [sets] standard deviation over control cells after the activation.
    mean: [pairs, latent] mean of the noise.
    expression: [pairs, genes].
  """

  condition: np.ndarray
  group: np.ndarray
  cells: np.ndarray
  gene_set: np.ndarray
  spread: np.ndarray
  mean: np.ndarray
  expression: np.ndarray


class Changes(NamedTuple):
  """Activations by condition, groups together.

  Attributes:
    score: [conditions, units], groups weighted by the condition's cells.
    change: [conditions, units] from the control cells of the same groups,
      weighted alike; NaN where no group of the condition has control cells.
  """

  score: np.ndarray
  change: np.ndarray


def make_layers(net, data: arrays.PerturbArrays, spec: types.DataSpec):
  """Returns `(params, consts) -> Layers` over all cells that are not excluded.

  Args:
    net: see models.discrepancy_vae.Network.
    data: the dataset.
    spec: its static facts.
  """
  rows = np.flatnonzero(spec.split.cells != types.EXCLUDED)
  condition = np.asarray(data.condition)[rows].astype(np.int64)
  group = np.asarray(data.group)[rows]
  pairs, pair, cells = np.unique(
    condition * len(spec.groups) + group,
    return_inverse=True,
    return_counts=True,
  )
  count = len(pairs)
  missing = -len(rows) % _BLOCK
  blocks = (
    jnp.asarray(np.pad(rows, (0, missing)).reshape(-1, _BLOCK), jnp.int32),
    # One segment more than there are pairs takes the padding.
    jnp.asarray(
      np.pad(pair, (0, missing), constant_values=count).reshape(-1, _BLOCK),
      jnp.int32,
    ),
  )

  def values(params, consts, data, rows):
    expression = arrays.gather(data.cells, rows)
    where = arrays.conditions_at(data, data.condition[rows], data.group[rows])
    score = net.scores(params, expression, consts)
    active = interventions.leaky_relu(score)
    mean, _ = net.posterior(params, expression, where, consts)
    return score, active, active**2, mean, expression

  @jax.jit
  def totals(params, consts, data, blocks):
    def add(total, block):
      found = values(params, consts, data, block[0])
      return jax.tree.map(
        lambda t, x: t + jax.ops.segment_sum(x, block[1], count + 1)[:count],
        total,
        found,
      ), None

    shapes = jax.eval_shape(values, params, consts, data, blocks[0][0])
    zero = tuple(jnp.zeros((count, x.shape[1]), x.dtype) for x in shapes)
    return jax.lax.scan(add, zero, blocks)[0]

  def layers(params, consts) -> Layers:
    score, active, square, mean, expression = (
      np.asarray(x, np.float64) for x in totals(params, consts, data, blocks)
    )
    control = pairs // len(spec.groups) == 0
    number = max(cells[control].sum(), 1)
    variance = square[control].sum(0) / number
    variance = variance - (active[control].sum(0) / number) ** 2
    per = cells[:, None]
    return Layers(
      pairs // len(spec.groups),
      pairs % len(spec.groups),
      cells,
      score / per,
      np.sqrt(np.maximum(variance, 0)),
      mean / per,
      expression / per,
    )

  return layers


def over_groups(
  found: Layers, values: np.ndarray, num_conditions: int
) -> Changes:
  """Puts the groups of each condition together.

  Args:
    found: the pairs that `values` are of.
    values: [pairs, units].
    num_conditions: conditions of the dataset; those without cells are NaN.
  """
  control = {
    int(g): values[i]
    for i, (c, g) in enumerate(zip(found.condition, found.group))
    if c == 0
  }
  score = np.full((num_conditions, values.shape[1]), np.nan)
  change = score.copy()
  for c in np.unique(found.condition):
    chosen = np.flatnonzero(found.condition == c)
    score[c] = np.average(values[chosen], axis=0, weights=found.cells[chosen])
    kept = [i for i in chosen if int(found.group[i]) in control]
    if kept:
      change[c] = np.average(
        [values[i] - control[int(found.group[i])] for i in kept],
        axis=0,
        weights=found.cells[kept],
      )
  return Changes(score, change)


# Compiled once for all members: operation by operation costs more than it does.
@jax.jit
def _moved(intervention, graph, noise, where, temperature):
  shift = interventions.shift_of(intervention, where, temperature)
  return interventions.propagate(noise.astype(graph.dtype) + shift, graph)


def shifted(net, params, consts, data, found: Layers) -> np.ndarray:
  """Returns the factors of each pair, [pairs, latent].

  Both the shift and the causal layer are linear, so that the mean over cells
  can go through them: u = (mean + shift) (I - U)^-1. Perturbed cells are
  encoded and shifted once more, as SENA's activation scores have it.
  """
  where = arrays.conditions_at(
    data, jnp.asarray(found.condition), jnp.asarray(found.group)
  )
  moved = _moved(
    params['intervention'],
    net.graph(params),
    jnp.asarray(found.mean),
    where,
    consts['hyper']['eval_temperature'],
  )
  return np.asarray(moved, np.float64)


def predicted_changes(net, params, consts, data, conditions) -> np.ndarray:
  """Returns what conditions add to the factors, [conditions, latent]."""
  zero = jnp.zeros(len(conditions), jnp.int32)
  graph = net.graph(params)
  moved = _moved(
    params['intervention'],
    graph,
    jnp.zeros((len(conditions), graph.shape[0])),
    arrays.conditions_at(data, jnp.asarray(conditions, jnp.int32), zero),
    consts['hyper']['eval_temperature'],
  )
  return np.asarray(moved, np.float64)


def effective_kernel(net, params, consts, num_genes: int) -> np.ndarray:
  """Returns what one unit of each gene adds to each score, [genes, sets]."""

  @jax.jit
  def rows(params, consts, genes):
    cells = jax.nn.one_hot(genes, num_genes)
    return net.scores(params, cells, consts) - net.scores(
      params, jnp.zeros((1, num_genes)), consts
    )

  missing = -num_genes % _BLOCK
  genes = np.pad(np.arange(num_genes), (0, missing)).reshape(-1, _BLOCK)
  found = [np.asarray(rows(params, consts, jnp.asarray(g))) for g in genes]
  return np.concatenate(found)[:num_genes]


def targeted_units(
  spec: types.DataSpec, set_names, kernel: np.ndarray
) -> np.ndarray:
  """Returns bool [perturbations, units]: those that the perturbed gene is in.

  Units of a dense encoder have no genes of their own: those with the largest
  weight of the perturbed gene count, 100 as in SENA's code.

  Args:
    spec: static facts of the data.
    set_names: names of the units; empty for a dense encoder.
    kernel: [genes, units].
  """
  columns = spec.perturbation_genes
  hit = np.zeros((len(columns), kernel.shape[1]), bool)
  if set_names:
    sets = [set(spec.gene_sets[name]) for name in set_names]
    for p, column in enumerate(columns):
      hit[p] = [column >= 0 and column in genes for genes in sets]
    return hit
  for p, column in enumerate(columns):
    if column >= 0:
      order = np.argsort(-np.abs(kernel[column]), kind='stable')
      hit[p, order[:DENSE_TARGETS]] = True
  return hit


def scores_of(
  change: np.ndarray, own: np.ndarray, targeted: np.ndarray
) -> dict[str, float]:
  """Returns the scores of one perturbation, NaN where nothing is targeted.

  Args:
    change: [units] of the gene-set layer.
    own: [units] the part that the perturbed gene's own expression has in it. A
      perturbation of expression moves its gene, and with it every set that the
      gene is in, whatever else happens: `_without_own` takes that out.
    targeted: bool [units].
  """
  out: dict[str, float] = {'targeted': int(targeted.sum())}
  for name, values in (('', change), ('_without_own', change - own)):
    size = jnp.asarray(np.abs(values))
    out[f'dar{name}'] = float(pathways.activation_ratio(size, targeted))
    for top in TOPS:
      out[f'recall_{top}{name}'] = float(
        pathways.recall_at(size, targeted, top=top)
      )
  size = np.abs(change)
  span = size.max() - size.min()
  scaled = (size - size.min()) / span if span > 0 else np.zeros_like(size)
  inside = scaled[targeted].mean() if targeted.any() else np.nan
  out['z_diff'] = float(inside - np.median(scaled))
  return out


def sparsity(kernel: np.ndarray, cell: np.ndarray) -> dict[float, float]:
  """Returns the share of contributions of genes to sets that are almost 0.

  Args:
    kernel: [genes, sets]; see `effective_kernel`.
    cell: [genes] the mean cell.
  """
  size = np.abs(cell[:, None] * kernel)
  return {limit: float((size <= limit).mean()) for limit in SPARSITY}


def original_heads(params: Any, score: np.ndarray) -> np.ndarray | None:
  """Returns SENA's 'fc_mean': the head of scores without their activation.

  Args:
    params: of the model.
    score: [pairs, sets].

  Returns:
    [pairs, latent]; None where covariates go into the head as well.
  """
  kernel = np.asarray(params['mean']['kernel'], np.float64)
  if kernel.shape[0] != score.shape[1]:
    return None
  return score @ kernel + np.asarray(params['mean']['bias'], np.float64)
