"""What a simulated dataset holds before any cell is drawn.

Genes, programs, perturbations and conditions, and what the conditions do to
the log shares of genes. Every part draws from a stream of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from scipy import special

from pertjax import types
from pertjax.data import simulate_options
from pertjax.data import simulate_streams as streams

# K562 control cells of Gasperini et al. 2019 (CRISPRi screen), 8,281 genes with
# more than 1e-5 of the UMIs: log(share / 1e-5) against a gamma distribution
# agrees within 0.1 from the 10th to the 99th percentile. The largest share
# there is 1.46 %.
GENE_SHAPE, GENE_SCALE, GENE_MAX = 1.525, 0.916, 7.29
# Same genes, log NB size = level + slope * log(share / 1e-4) + noise; the
# noise by median absolute deviation. CD8 T cells (Shifrut et al. 2018) have
# less overdispersion: median size 4.7, against 2.8.
SIZE_LEVEL, SIZE_SLOPE, SIZE_NOISE = 0.917, -0.108, 0.486


class World(NamedTuple):
  """What holds before any cell is drawn.

  Attributes:
    log_share: [types, genes] natural log of the baseline shares.
    size: [genes] NB size (inverse dispersion), variance = mean + mean^2 / size.
    graph: [programs, programs] what one unit of the row's activity adds to the
      column's; acyclic.
    gates: int [gates, 3] programs p, q and r: together, p and q move r when
      one perturbation moves p and the other q. r comes after both in the order
      of the graph.
    gate_weights: [gates].
    loadings: [programs, genes] shift of the log share for one unit of activity,
      0 for genes that are not members.
    perturbed: int [perturbations] column of the perturbed gene.
    targets: [perturbations, programs] 1 for the program of the perturbed gene,
      0.5 for a second one, 0 elsewhere; those of null perturbations too.
    direct: [types, perturbations, programs] shift of activity at dose 1.
    own: [perturbations] shift of the own gene's log share at dose 1.
    ec50: [perturbations] dose of half the largest effect.
    slope: [perturbations] Hill coefficient.
    null: bool [perturbations].
    batch_shift: [batches, genes] added to log shares.
    batch_depth: [batches] multiplies library sizes.
  """

  log_share: np.ndarray
  size: np.ndarray
  graph: np.ndarray
  gates: np.ndarray
  gate_weights: np.ndarray
  loadings: np.ndarray
  perturbed: np.ndarray
  targets: np.ndarray
  direct: np.ndarray
  own: np.ndarray
  ec50: np.ndarray
  slope: np.ndarray
  null: np.ndarray
  batch_shift: np.ndarray
  batch_depth: np.ndarray


class Design(NamedTuple):
  """Which conditions there are; number 0 is the control.

  Attributes:
    labels: [conditions] 'control', 'A', 'A+B'.
    doses: [conditions] '1', '0.1', '1+1'; '1' for the control.
    tokens: int [conditions, 2] perturbations, -1 padding.
    amounts: [conditions, 2] doses, 0 in the padding.
    outcome: int [conditions, 2, 2] the condition whose expression a cell has
      when its first and second guide fail (0) or work (1).
  """

  labels: np.ndarray
  doses: np.ndarray
  tokens: np.ndarray
  amounts: np.ndarray
  outcome: np.ndarray


def make_world(seed: int, config: Mapping[str, Any]) -> World:
  """Draws genes, programs and perturbations; config from `check_options`."""
  log_share, size = _make_genes(seed, config)
  graph, gates, gate_weights = _make_graph(seed, config)
  perturbed, free = _choose_genes(seed, config, log_share)
  loadings, targets = _make_programs(seed, config, perturbed, free)
  count = config['num_perturbations']
  null = np.zeros(count, bool)
  num_null = round(config['null_fraction'] * count)
  null[streams.make_rng(seed, streams.NULL).permutation(count)[:num_null]] = (
    True
  )
  rng = streams.make_rng(seed, streams.STRENGTH)
  normal = rng.standard_normal((2, count))
  log_strength = config['effect_spread'] * normal[0]
  # At most twice the median: effects stay within what screens show.
  strength = np.exp(np.minimum(log_strength, np.log(2.0)))
  strength *= np.where(null, 0.0, config['effect_scale'])
  # One in four genes represses its program.
  direction = simulate_options.MODES[config['mode']]
  sign = np.where(rng.random(count) < 0.25, -1.0, 1.0) * direction
  shared, specific = np.sqrt([1 - config['specificity'], config['specificity']])
  shape = (config['num_cell_types'], *targets.shape)
  # Uniform of variance 1, bounded for the same reason.
  by_type = shared + specific * rng.uniform(-np.sqrt(3.0), np.sqrt(3.0), shape)
  # Activation about 4.5-fold, knock-down to about 22 %.
  own = direction * (1.5 + 0.25 * normal[1]) * ~null
  rng = streams.make_rng(seed, streams.HILL)
  ec50 = np.exp(np.log(0.3) + 0.7 * rng.standard_normal(count))
  slope = rng.uniform(1.0, 3.0, count)
  rng = streams.make_rng(seed, streams.BATCHES)
  batches, spread = config['num_batches'], config['batch_spread']
  return World(
    log_share=log_share,
    size=size,
    graph=graph,
    gates=gates,
    gate_weights=gate_weights,
    loadings=loadings,
    perturbed=perturbed,
    targets=targets,
    direct=by_type * targets * (sign * strength)[:, None],
    own=own,
    ec50=ec50,
    slope=slope,
    null=null,
    batch_depth=np.exp(spread * rng.standard_normal(batches)),
    batch_shift=spread * rng.standard_normal((batches, config['num_genes'])),
  )


def make_design(
  seed: int, config: Mapping[str, Any], perturbations: np.ndarray
) -> Design:
  """Lists control, singles at every dose, and doubles at the highest."""
  count, doses = len(perturbations), config['doses']
  first, second = np.triu_indices(count, 1)
  chosen = streams.make_rng(seed, streams.PAIRS).permutation(len(first))[
    : config['num_doubles']
  ]
  chosen.sort()
  singles = [(k, -1, d, 0.0) for k in range(count) for d in doses]
  doubles = [(first[i], second[i], doses[-1], doses[-1]) for i in chosen]
  table = np.array([(-1, -1, 0.0, 0.0), *singles, *doubles])
  tokens, amounts = table[:, :2].astype(int), table[:, 2:]
  labels, dose_labels = [types.CONTROL], ['1']
  for token, amount in zip(tokens[1:], amounts[1:], strict=True):
    used = token >= 0
    labels.append('+'.join(perturbations[token[used]]))
    dose_labels.append('+'.join(f'{d:g}' for d in amount[used]))
  # Singles are ordered by perturbation and dose; the highest dose is last.
  highest = np.where(tokens >= 0, (tokens + 1) * len(doses), 0)
  itself = np.arange(len(table))
  is_single = tokens[:, 1] < 0
  outcome = np.zeros((len(table), 2, 2), int)
  outcome[:, 1, 1] = itself
  outcome[:, 1, 0] = np.where(is_single, itself, highest[:, 0])
  outcome[:, 0, 1] = highest[:, 1]
  return Design(
    labels=np.array(labels, object),
    doses=np.array(dose_labels, object),
    tokens=tokens,
    amounts=amounts,
    outcome=outcome,
  )


def effects(
  world: World, design: Design, epistasis: float
) -> tuple[np.ndarray, np.ndarray]:
  """Returns activity [conditions, types, programs] and effect [.., genes]."""
  factor = np.where(
    design.tokens >= 0,
    hill(design.amounts, world.ec50[design.tokens], world.slope[design.tokens]),
    0.0,
  )
  direct = (
    np.moveaxis(world.direct[:, design.tokens], 0, 2) * factor[:, :, None, None]
  )
  activity = combine(
    direct[:, 0],
    direct[:, 1],
    graph=world.graph,
    gates=world.gates,
    gate_weights=world.gate_weights,
    epistasis=epistasis,
  )
  effect = activity @ world.loadings
  rows = np.arange(len(design.labels))
  for slot in range(2):
    token = design.tokens[:, slot]
    own = factor[:, slot] * world.own[token]
    effect[rows, :, world.perturbed[token]] += own[:, None]
  return activity, effect


def hill(dose: np.ndarray, ec50: np.ndarray, slope: np.ndarray) -> np.ndarray:
  """Returns the effect at a dose relative to dose 1.

  Hill's equation, d^n / (K^n + d^n), over its value at dose 1; 0 at dose 0.
  """
  return dose**slope * (1 + ec50**slope) / (ec50**slope + dose**slope)


def combine(
  first: np.ndarray,
  second: np.ndarray,
  *,
  graph: np.ndarray,
  gates: np.ndarray,
  gate_weights: np.ndarray,
  epistasis: float,
) -> np.ndarray:
  """Returns the program activity that two interventions cause together.

  Each alone causes x = d (I - W)^-1 (a linear structural equation model with
  the shift d). Together they cause x1 + x2 + epistasis * (s + g (I - W)^-1):

    s = -x1 x2 / (x1 + x2) where both move a program the same way: at
      epistasis 1, two equal shifts give one and a half, not two.
    g_r = sum over gates (p, q, r) of
      weight * (tanh x1_p tanh x2_q + tanh x2_p tanh x1_q).

  Both vanish where either intervention is absent.

  Args:
    first, second: [..., programs] shifts d.
    graph, gates, gate_weights: see `World`.
    epistasis: strength of the interaction.
  """
  total = np.linalg.inv(np.eye(len(graph)) - graph)
  x1, x2 = first @ total, second @ total
  same = x1 * x2 > 0
  saturation = np.where(same, -x1 * x2 / np.where(same, x1 + x2, 1.0), 0.0)
  t1, t2 = np.tanh(x1), np.tanh(x2)
  p, q, r = gates.T
  joint = gate_weights * (t1[..., p] * t2[..., q] + t2[..., p] * t1[..., q])
  gated = joint @ np.eye(len(graph))[r]
  return x1 + x2 + epistasis * (saturation + gated @ total)


def _make_genes(
  seed: int, config: Mapping[str, Any]
) -> tuple[np.ndarray, np.ndarray]:
  """Returns log shares [types, genes] and NB sizes [genes]."""
  genes, cell_types = config['num_genes'], config['num_cell_types']
  rng = streams.make_rng(seed, streams.GENES)
  # Quantiles, not draws: a few genes hold much of the total, and no seed
  # should have a panel that is one gene.
  level = (np.arange(genes) + 0.5) / genes
  excess = GENE_SCALE * special.gammaincinv(GENE_SHAPE, level)
  excess = rng.permutation(np.minimum(excess, GENE_MAX))
  trend = SIZE_LEVEL + SIZE_SLOPE * (excess + np.log(1e-5 / 1e-4))
  size = np.exp(trend + SIZE_NOISE * rng.standard_normal(genes))
  rng = streams.make_rng(seed, streams.TYPES)
  marker = rng.random((cell_types, genes)) < 0.3
  shift = config['cell_type_spread'] * rng.standard_normal(marker.shape)
  return normalise(excess + np.where(marker, shift, 0.0)), size


def _make_graph(
  seed: int, config: Mapping[str, Any]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Returns graph, gates and gate weights; see `World`."""
  programs = config['num_programs']
  order = streams.make_rng(seed, streams.GRAPH).permutation(programs)
  rng = streams.make_rng(seed, streams.GRAPH, 1)
  shape = (programs, programs)
  edge = np.triu(rng.random(shape) < config['edge_probability'], 1)
  weight = rng.uniform(0.2, 0.7, shape)
  weight *= np.where(rng.random(shape) < 0.3, -1.0, 1.0)
  graph = np.zeros(shape)
  graph[np.ix_(order, order)] = np.where(edge, weight, 0.0)
  rng = streams.make_rng(seed, streams.GRAPH, 2)
  # The last program in the order regulates none.
  first, second = np.triu_indices(programs - 1, 1)
  target = rng.integers(second + 1, programs)
  weight = rng.uniform(1.0, 2.0, len(first))
  weight *= np.where(rng.random(len(first)) < 0.3, -1.0, 1.0)
  chosen = rng.random(len(first)) < config['gate_probability']
  gates = order[np.stack([first, second, target], axis=1)]
  return graph, gates[chosen], weight[chosen]


def _choose_genes(
  seed: int, config: Mapping[str, Any], log_share: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Returns columns of the perturbed genes, and of free genes, sorted.

  Perturbed genes come from the better expressed half, if it has enough. Free
  genes may join programs. The top 2 %, which hold a third of the counts, do
  neither: housekeeping genes whose moves would shift the share of all others.
  """
  count = config['num_perturbations']
  top = simulate_options.num_housekeeping(config)
  ranked = np.argsort(-log_share.mean(axis=0), kind='stable')
  pool = np.roll(ranked, -top)[: max(count, config['num_genes'] // 2)]
  perturbed = np.sort(
    streams.make_rng(seed, streams.TARGETS).permutation(pool)[:count]
  )
  return perturbed, np.setdiff1d(ranked[top:], perturbed)


def _make_programs(
  seed: int,
  config: Mapping[str, Any],
  perturbed: np.ndarray,
  free: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
  """Returns loadings and which programs a perturbation targets.

  Args:
    seed: the dataset's.
    config: from `check_options`.
    perturbed: int [perturbations] columns.
    free: int [..] columns that programs choose members from.

  Returns:
    loadings [programs, genes] and targets [perturbations, programs], 1 for the
    gene's own program and 0.5 for the second one that 30 % have. Perturbed
    genes are members of the programs they target and of no other.
  """
  programs, genes = config['num_programs'], config['num_genes']
  rng = streams.make_rng(seed, streams.LOADINGS)
  members = np.zeros((programs, genes), bool)
  for row in members:
    row[rng.permutation(free)[: config['genes_per_program']]] = True
  size = rng.uniform(0.2, 0.8, members.shape)
  size *= np.where(rng.random(members.shape) < 0.2, -1.0, 1.0)
  rng = streams.make_rng(seed, streams.TARGETS, 1)
  count = len(perturbed)
  targets = np.zeros((count, programs))
  second = rng.integers(programs, size=count)
  has_second = rng.random(count) < 0.3
  targets[np.flatnonzero(has_second), second[has_second]] = 0.5
  targets[np.arange(count), rng.permutation(count) % programs] = 1.0
  members[:, perturbed] = targets.T > 0
  return np.where(members, size, 0.0), targets


def normalise(log_share: np.ndarray) -> np.ndarray:
  """Makes shares of the last axis sum to one."""
  log_share = log_share - log_share.max(axis=-1, keepdims=True)
  return log_share - np.log(np.exp(log_share).sum(axis=-1, keepdims=True))
