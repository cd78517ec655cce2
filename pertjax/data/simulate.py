"""Perturb-seq with a known truth: the built-in dataset, and a ruler for tests.

How a file comes about:

  1. Genes get a share of the transcriptome and a dispersion, one baseline for
     each cell type.
  2. Programs are sets of genes on a directed acyclic graph: a program's
     activity moves its members and the programs that it regulates.
  3. A perturbation is a soft intervention: it shifts the activity of the
     programs that its gene belongs to, and its own gene's expression.
  4. Two perturbations add up in activity, plus `epistasis` times saturation
     (both move one program) and gates (pairs of programs that move a third when
     one perturbation moves the first and the other the second).
  5. Cells draw a library size, a batch and whether their guides work; counts
     are negative binomial.

The generative scale is the log share of a gene. With `epistasis=0` the log
shares of a double are exactly the sum of its singles' shifts, but for one
constant a condition that makes shares sum to one. On the scale that is scored,
the mean of log1p-normalised counts, sums of singles then miss 0.1 % of the
variance of a double's effect (median; 0.7 % at the 90th percentile), far below
the sampling noise of 100 cells: log1p is linear, not logarithmic, for genes
below one count. With `epistasis=1` they miss 2 % (20 %).

Every part draws from a stream of its own, so that an option moves only what it
is about. Arithmetic is in double precision, where machines differ in the last
bit at most: counts are the same on all but for one draw in many billions.
"""

from __future__ import annotations

import difflib
import itertools
import math
import numbers
from collections.abc import Mapping
from typing import Any, NamedTuple

import anndata
import numpy as np
import pandas as pd
from scipy import sparse, special

from pertjax import types

# Stored with the data: raise it when the same seed gives other counts.
VERSION = 1

# K562 control cells of Gasperini et al. 2019 (CRISPRi screen), 8,281 genes with
# more than 1e-5 of the UMIs: log(share / 1e-5) against a gamma distribution
# agrees within 0.1 from the 10th to the 99th percentile. The largest share
# there is 1.46 %.
GENE_SHAPE, GENE_SCALE, GENE_MAX = 1.525, 0.916, 7.29
# Same genes, log NB size = level + slope * log(share / 1e-4) + noise; the
# noise by median absolute deviation. CD8 T cells (Shifrut et al. 2018) have
# less overdispersion: median size 4.7, against 2.8.
SIZE_LEVEL, SIZE_SLOPE, SIZE_NOISE = 0.917, -0.108, 0.486

# Streams are numbered for ever: a changed number changes every dataset.
(
  _GENES, _TYPES, _GRAPH, _LOADINGS, _TARGETS, _STRENGTH, _NULL, _HILL, _PAIRS,
  _ALLOCATION, _BATCHES, _GUIDES, _LIBRARY, _COUNTS,
) = range(14)  # fmt: skip

_BLOCK = 128  # Cells drawn at once; part of what a seed means.
_LARGE = 8.0  # Mean above which inversion is slower than gamma-Poisson.


def default_config() -> dict[str, Any]:
  """Returns every option of `simulate` but the seed, with its default."""
  return {
    # Sizes. Cells of one condition and type: about 120 with these.
    'num_cells': 20_000,
    'num_genes': 2_000,
    'num_perturbations': 30,
    'num_doubles': 45,  # Random pairs; each at the highest dose of both.
    'num_cell_types': 2,
    'num_batches': 2,
    'control_fraction': 0.1,  # Of the cells.
    # Perturbations.
    'mode': 'activation',  # Or 'knockdown': which way the own gene moves.
    'doses': (1.0,),  # Singles come at each; effects are stated at dose 1.
    'null_fraction': 0.1,  # Perturbations that do nothing, own gene included.
    'guide_failure': 0.1,  # Chance that a guide does nothing in a cell.
    'effect_scale': 1.2,  # Median shift of a program; loadings are near 0.5.
    'effect_spread': 0.5,  # Sd of log strength between perturbations.
    'specificity': 0.3,  # Share of a shift's variance that is cell-type own.
    'epistasis': 1.0,  # 0: doubles are the sum of singles in log share.
    # Programs.
    'num_programs': 20,
    'genes_per_program': 160,
    'edge_probability': 0.15,  # That a program regulates a later one.
    'gate_probability': 0.7,  # That a pair of programs does, jointly.
    # Cells. 2 UMIs a gene: 2,000 of 8,281 expressed genes, at 17,000 UMIs.
    'umis_per_gene': 2.0,  # Median library size over the number of genes.
    'library_spread': 0.38,  # Sd of log library size; 0.35 to 0.41 in K562.
    'cell_type_spread': 0.8,  # Sd of log baseline, in 30 % of the genes.
    'batch_spread': 0.1,  # Sd of log share by gene, and of log depth.
  }


# name: (type, lowest, highest).
_RULES: dict[str, tuple[type, float, float]] = {
  'num_cells': (int, 1, math.inf),
  'num_genes': (int, 1, 10**7),
  'num_perturbations': (int, 1, math.inf),
  'num_doubles': (int, 0, math.inf),
  'num_cell_types': (int, 1, math.inf),
  'num_batches': (int, 1, math.inf),
  'control_fraction': (float, 0, 1),
  'null_fraction': (float, 0, 1),
  'guide_failure': (float, 0, 1),
  'effect_scale': (float, 0, 10),
  'effect_spread': (float, 0, 10),
  'specificity': (float, 0, 1),
  'epistasis': (float, 0, 10),
  'num_programs': (int, 1, math.inf),
  'genes_per_program': (int, 0, math.inf),
  'edge_probability': (float, 0, 1),
  'gate_probability': (float, 0, 1),
  'umis_per_gene': (float, 1e-6, 1e6),
  'library_spread': (float, 0, 1),
  'cell_type_spread': (float, 0, 3),
  'batch_spread': (float, 0, 3),
}
_MODES = {'activation': 1.0, 'knockdown': -1.0}


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


class Cells(NamedTuple):
  """Who the cells are, in the order of the file.

  Attributes:
    condition: int [cells].
    cell_type: int [cells].
    batch: int [cells].
    works: bool [cells, 2] first and second guide; True in the padding.
    effective: int [cells] the condition whose expression the cell has.
  """

  condition: np.ndarray
  cell_type: np.ndarray
  batch: np.ndarray
  works: np.ndarray
  effective: np.ndarray


def simulate(*, seed: int = 0, **options) -> anndata.AnnData:
  """Draws a Perturb-seq dataset and keeps the truth beside it.

  What is in the file:
    X: CSR float32 counts [cells, genes].
    obs: condition, dose, cell_type, batch; guide_working (all guides of the
      cell work; True for controls) and effective_condition (the label without
      the guides that failed).
    var: perturbed, size (NB). varm: program_members, program_loadings.
    uns['gene_sets']: {'program_0': names of its genes, ...}.
    uns['simulation']: `version`, `seed`, `parameters`; every field of `World`
      (gates, graph, direct, ...) with the names of its axes; and the truth in
      rows, one for each condition, dose and cell type, which `row_condition`,
      `row_dose` and `row_cell_type` name:
        activity [rows, programs]: shift of program activity.
        effect [rows, genes]: shift of the log share, before shares are made to
          sum to one. Exactly additive where epistasis is 0.
        log_share [rows, genes]: natural log of the share where all guides work,
          without batch effects: the noise-free mean log expression.
        log_bulk [rows, genes]: log1p(1e4 * share) of infinitely many cells
          pooled, failed guides and batches included.
        mean_log1p [rows, genes]: expectation over cells of
          log1p(1e4 * count / total), likewise. What pseudobulks estimate.

  Args:
    seed: non-negative integer.
    **options: see `default_config`, which has the defaults.

  Returns:
    The dataset, which `write_h5ad` and `read_h5ad` leave as it is.

  Raises:
    ValueError: an option is unknown or out of range.
  """
  config = check_options(options)
  if not _is_integer(seed) or seed < 0:
    raise ValueError(f'seed={seed!r}: expected an integer, 0 or more.')
  world = make_world(seed, config)
  names = gene_names(config['num_genes'])
  design = make_design(seed, config, names[world.perturbed])
  cells = _allocate(seed, config, design)
  activity, effect = effects(world, design, config['epistasis'])
  log_share = _normalise(world.log_share[None] + effect)
  states = _normalise(log_share[:, :, None] + world.batch_shift)
  counts = _draw(seed, config, world, cells, states)
  truth = {
    'activity': activity,
    'effect': effect,
    'log_share': log_share,
    **_expected(config, world, design, states),
  }
  return _package(seed, config, world, design, cells, counts, truth)


def tiny(*, seed: int = 0, **overrides) -> anndata.AnnData:
  """Draws 600 cells of 60 genes, for tests; see `simulate`."""
  options = {
    'num_cells': 600,
    'num_genes': 60,
    'num_perturbations': 6,
    'num_doubles': 4,
    'num_programs': 4,
    'genes_per_program': 12,
    'edge_probability': 0.5,
    'control_fraction': 0.2,
    'umis_per_gene': 20.0,
  }
  return simulate(seed=seed, **{**options, **overrides})


def check_options(options: Mapping[str, Any]) -> dict[str, Any]:
  """Merges options into the defaults.

  Raises:
    ValueError: naming the option, its value and what is allowed.
  """
  config = default_config()
  for name in options:
    if name not in config:
      close = difflib.get_close_matches(name, config, n=3, cutoff=0.5)
      raise ValueError(
        f'Unknown option {name!r} of simulate. '
        f'Closest: {", ".join(close) or "none"}; '
        f'allowed: {", ".join(sorted(config))}.'
      )
  config.update(options)
  for name, (kind, low, high) in _RULES.items():
    value = config[name]
    number = _is_integer(value) if kind is int else _is_real(value)
    if not number or not low <= value <= high:
      what = 'an integer' if kind is int else 'a number'
      raise ValueError(
        f'{name}={value!r}: expected {what} from {low:g} to {high:g}.'
      )
    config[name] = kind(value)
  if config['mode'] not in tuple(_MODES):
    raise ValueError(
      f'mode={config["mode"]!r}: expected one of {", ".join(_MODES)}.'
    )
  config['doses'] = _check_doses(config['doses'])
  _check_sizes(config)
  return config


def gene_names(num_genes: int) -> np.ndarray:
  """Returns `GENE0001` and on, objects [genes], in sorted order."""
  width = max(4, len(str(num_genes)))
  return np.array([f'GENE{i + 1:0{width}d}' for i in range(num_genes)], object)


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


def expected_log1p(
  log_share: np.ndarray,
  size: np.ndarray,
  *,
  library: float,
  library_spread: float,
  total_variance: float | np.ndarray = 0.0,
  scale: float = 1e4,
) -> np.ndarray:
  """Returns the mean of log1p(scale * count / total) over cells.

  Counts are negative binomial with mean share * library, libraries log-normal.
  Frullani's integral, log(1 + kc) = int (1 - exp(-tkc)) exp(-t) / t dt, turns
  the mean over counts into the NB probability generating function,
  (1 + mean (1 - z) / size)^-size at z = exp(-tk); libraries are integrated by
  Gauss-Hermite quadrature. A total scatters around its library with relative
  variance v = total_variance + 1 / library: by Taylor expansion of second
  order in its inverse, exp(-t) becomes exp(-t) (1 + v t^2 / 2). What that
  leaves out is below 0.005 for panels of 100 genes and 0.001 for 2,000.

  Args:
    log_share: [...].
    size: broadcasts against log_share.
    library: median library size.
    library_spread: standard deviation of its log, at most 1.
    total_variance: sum over genes of share^2 / size; broadcasts.
    scale: what counts are normalised to.
  """
  mean, slope = _log1p_terms(log_share, size, library, library_spread, scale)
  return mean + total_variance * slope


def _log1p_terms(
  log_share: np.ndarray,
  size: np.ndarray,
  library: float,
  library_spread: float,
  scale: float = 1e4,
) -> tuple[np.ndarray, np.ndarray]:
  """Returns `expected_log1p` at total_variance 0, and its slope there."""
  nodes, weights = np.polynomial.hermite_e.hermegauss(9)
  step = 0.5  # In log t; this rule is within 1e-6 of a ten times finer one.
  t = np.exp(np.arange(-24.0, 4.0, step))
  share, size = np.exp(log_share)[..., None], np.asarray(size)[..., None]
  shape = np.broadcast_shapes(share.shape, size.shape)[:-1]
  mean, slope = np.zeros(shape), np.zeros(shape)
  for node, weight in zip(nodes, weights / weights.sum(), strict=True):
    depth = library * np.exp(library_spread * node)
    thinned = -np.expm1(-t * scale / depth) * depth * share
    positive = -np.expm1(-size * np.log1p(thinned / size))
    kernel = weight * step * np.exp(-t)
    mean += positive @ (kernel * (1 + t**2 / (2 * depth)))
    slope += positive @ (kernel * t**2 / 2)
  return mean, slope


def draw_counts(
  rng: np.random.Generator, mean: np.ndarray, size: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Draws negative-binomial counts, the positive ones only.

  One uniform an entry decides between zero and more; what is more walks up the
  distribution function. Means above 8 are drawn as Poisson of gamma instead.

  Args:
    rng: a generator.
    mean: float64 [cells, genes].
    size: [genes].

  Returns:
    Positions in the flattened array, increasing, and counts there.
  """
  uniform = rng.random(mean.shape)
  zero = np.exp(-size * np.log1p(mean / size))
  zero[mean > _LARGE] = -1.0
  position = np.flatnonzero(uniform > zero)
  mean, r = mean.ravel()[position], size[position % len(size)]
  count = np.ones(len(position), np.int64)
  large = mean > _LARGE
  rate = rng.standard_gamma(r[large]) * (mean[large] / r[large])
  count[large] = rng.poisson(rate)
  left = np.flatnonzero(~large)
  u = uniform.ravel()[position[left]]
  mass = zero.ravel()[position[left]]
  r, odds = r[left], mean[left] / (mean[left] + r[left])
  below = mass
  for k in itertools.count():
    mass = mass * odds * ((k + r) / (k + 1))
    below = below + mass
    # Rounding can leave the sum below the largest uniforms for ever.
    more = np.flatnonzero((u > below) & (mass > 1e-18))
    if not len(more):
      break
    left = left[more]
    count[left] = k + 2
    u, mass, r, odds, below = (x[more] for x in (u, mass, r, odds, below))
  keep = count > 0
  return position[keep], count[keep]


def make_world(seed: int, config: Mapping[str, Any]) -> World:
  """Draws genes, programs and perturbations; config from `check_options`."""
  log_share, size = _make_genes(seed, config)
  graph, gates, gate_weights = _make_graph(seed, config)
  perturbed, free = _choose_genes(seed, config, log_share)
  loadings, targets = _make_programs(seed, config, perturbed, free)
  count = config['num_perturbations']
  null = np.zeros(count, bool)
  num_null = round(config['null_fraction'] * count)
  null[_rng(seed, _NULL).permutation(count)[:num_null]] = True
  rng = _rng(seed, _STRENGTH)
  normal = rng.standard_normal((2, count))
  log_strength = config['effect_spread'] * normal[0]
  # At most twice the median: effects stay within what screens show.
  strength = np.exp(np.minimum(log_strength, np.log(2.0)))
  strength *= np.where(null, 0.0, config['effect_scale'])
  # One in four genes represses its program.
  sign = np.where(rng.random(count) < 0.25, -1.0, 1.0) * _MODES[config['mode']]
  shared, specific = np.sqrt([1 - config['specificity'], config['specificity']])
  shape = (config['num_cell_types'], *targets.shape)
  # Uniform of variance 1, bounded for the same reason.
  by_type = shared + specific * rng.uniform(-np.sqrt(3.0), np.sqrt(3.0), shape)
  # Activation about 4.5-fold, knock-down to about 22 %.
  own = _MODES[config['mode']] * (1.5 + 0.25 * normal[1]) * ~null
  rng = _rng(seed, _HILL)
  ec50 = np.exp(np.log(0.3) + 0.7 * rng.standard_normal(count))
  slope = rng.uniform(1.0, 3.0, count)
  rng = _rng(seed, _BATCHES)
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
  chosen = _rng(seed, _PAIRS).permutation(len(first))[: config['num_doubles']]
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


def _make_genes(
  seed: int, config: Mapping[str, Any]
) -> tuple[np.ndarray, np.ndarray]:
  """Returns log shares [types, genes] and NB sizes [genes]."""
  genes, cell_types = config['num_genes'], config['num_cell_types']
  rng = _rng(seed, _GENES)
  # Quantiles, not draws: a few genes hold much of the total, and no seed
  # should have a panel that is one gene.
  level = (np.arange(genes) + 0.5) / genes
  excess = GENE_SCALE * special.gammaincinv(GENE_SHAPE, level)
  excess = rng.permutation(np.minimum(excess, GENE_MAX))
  trend = SIZE_LEVEL + SIZE_SLOPE * (excess + np.log(1e-5 / 1e-4))
  size = np.exp(trend + SIZE_NOISE * rng.standard_normal(genes))
  rng = _rng(seed, _TYPES)
  marker = rng.random((cell_types, genes)) < 0.3
  shift = config['cell_type_spread'] * rng.standard_normal(marker.shape)
  return _normalise(excess + np.where(marker, shift, 0.0)), size


def _make_graph(
  seed: int, config: Mapping[str, Any]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Returns graph, gates and gate weights; see `World`."""
  programs = config['num_programs']
  order = _rng(seed, _GRAPH).permutation(programs)
  rng = _rng(seed, _GRAPH, 1)
  shape = (programs, programs)
  edge = np.triu(rng.random(shape) < config['edge_probability'], 1)
  weight = rng.uniform(0.2, 0.7, shape)
  weight *= np.where(rng.random(shape) < 0.3, -1.0, 1.0)
  graph = np.zeros(shape)
  graph[np.ix_(order, order)] = np.where(edge, weight, 0.0)
  rng = _rng(seed, _GRAPH, 2)
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
  count, top = config['num_perturbations'], _num_housekeeping(config)
  ranked = np.argsort(-log_share.mean(axis=0), kind='stable')
  pool = np.roll(ranked, -top)[: max(count, config['num_genes'] // 2)]
  perturbed = np.sort(_rng(seed, _TARGETS).permutation(pool)[:count])
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
  rng = _rng(seed, _LOADINGS)
  members = np.zeros((programs, genes), bool)
  for row in members:
    row[rng.permutation(free)[: config['genes_per_program']]] = True
  size = rng.uniform(0.2, 0.8, members.shape)
  size *= np.where(rng.random(members.shape) < 0.2, -1.0, 1.0)
  rng = _rng(seed, _TARGETS, 1)
  count = len(perturbed)
  targets = np.zeros((count, programs))
  second = rng.integers(programs, size=count)
  has_second = rng.random(count) < 0.3
  targets[np.flatnonzero(has_second), second[has_second]] = 0.5
  targets[np.arange(count), rng.permutation(count) % programs] = 1.0
  members[:, perturbed] = targets.T > 0
  return np.where(members, size, 0.0), targets


def _allocate(seed: int, config: Mapping[str, Any], design: Design) -> Cells:
  """Returns the cells: every batch, and nearly even batches in each row."""
  rng = _rng(seed, _ALLOCATION)
  cells, cell_types = config['num_cells'], config['num_cell_types']
  rows = len(design.labels) * cell_types
  control = _num_control(config)
  size = np.zeros(rows, int)
  size[:cell_types] = control // cell_types
  size[: control % cell_types] += 1
  # Real screens have uneven conditions; each keeps a cell at least.
  weight = np.exp(0.2 * rng.standard_normal(rows))[cell_types:]
  exact = weight / weight.sum() * (cells - control - len(weight))
  whole = np.floor(exact).astype(int)
  short = cells - control - len(weight) - whole.sum()
  whole[np.argsort(whole - exact, kind='stable')[:short]] += 1
  size[cell_types:] = whole + 1
  row = np.repeat(np.arange(rows), size)
  place = np.arange(cells) - np.repeat(np.cumsum(size) - size, size)
  first = rng.integers(config['num_batches'], size=rows)
  batch = (place + first[row]) % config['num_batches']
  order = rng.permutation(cells)
  condition, cell_type = np.divmod(row[order], cell_types)
  failed = _rng(seed, _GUIDES).random((cells, 2)) < config['guide_failure']
  works = ~failed | (design.tokens[condition] < 0)
  first_works, second_works = works.astype(int).T
  return Cells(
    condition=condition,
    cell_type=cell_type,
    batch=batch[order],
    works=works,
    effective=design.outcome[condition, first_works, second_works],
  )


def _draw(
  seed: int,
  config: Mapping[str, Any],
  world: World,
  cells: Cells,
  states: np.ndarray,
) -> sparse.csr_matrix:
  """Returns counts; states: log shares [conditions, types, batches, genes]."""
  genes = config['num_genes']
  state = np.ravel_multi_index(
    (cells.effective, cells.cell_type, cells.batch), states.shape[:3]
  )
  share = np.exp(states).reshape(-1, genes)
  normal = _rng(seed, _LIBRARY).standard_normal(config['num_cells'])
  library = _library(config) * np.exp(config['library_spread'] * normal)
  library *= world.batch_depth[cells.batch]
  columns, values, lengths = [], [], []
  for block, start in enumerate(range(0, config['num_cells'], _BLOCK)):
    part = slice(start, start + _BLOCK)
    mean = share[state[part]] * library[part, None]
    position, count = draw_counts(_rng(seed, _COUNTS, block), mean, world.size)
    row, column = np.divmod(position, genes)
    lengths.append(np.bincount(row, minlength=len(mean)))
    columns.append(column.astype(np.int32))
    values.append(count.astype(np.float32))
  indptr = np.concatenate([[0], np.cumsum(np.concatenate(lengths))])
  if indptr[-1] < np.iinfo(np.int32).max:
    indptr = indptr.astype(np.int32)
  data = np.concatenate(values)
  del values
  shape = (config['num_cells'], genes)
  return sparse.csr_matrix((data, np.concatenate(columns), indptr), shape)


def _expected(
  config: Mapping[str, Any], world: World, design: Design, states: np.ndarray
) -> dict[str, np.ndarray]:
  """Returns log_bulk and mean_log1p [conditions, types, genes]."""
  # A gene's mean is a smooth function of its log share and log size: a table
  # of 128 by 24, read linearly, is within 1e-3.
  grid = np.linspace(states.min() - 1e-6, states.max() + 1e-6, 128)
  log_size = np.log(world.size)
  sizes = np.linspace(log_size.min(), log_size.max() + 1e-6, 24)
  low, weight = _bracket(log_size, sizes)
  conditions, cell_types, batches, genes = states.shape
  mean = np.zeros((conditions, cell_types, genes))
  bulk, column = np.zeros_like(mean), np.arange(genes)
  for b, depth in enumerate(world.batch_depth):
    tables = [
      _between(table[low], table[low + 1], weight[:, None])
      for table in _log1p_terms(
        grid,
        np.exp(sizes)[:, None],
        _library(config) * depth,
        config['library_spread'],
      )
    ]
    for c, log_share in enumerate(states[:, :, b]):
      share = np.exp(log_share)
      at, part = _bracket(log_share, grid)
      value, slope = (
        _between(table[column, at], table[column, at + 1], part)
        for table in tables
      )
      variance = (share**2 / world.size).sum(axis=-1, keepdims=True)
      mean[c] += (value + variance * slope) / batches
      bulk[c] += share * depth / world.batch_depth.sum()
  bulk = _mix_outcomes(config['guide_failure'], design, bulk)
  return {
    'log_bulk': np.log1p(1e4 * bulk),
    'mean_log1p': _mix_outcomes(config['guide_failure'], design, mean),
  }


def _mix_outcomes(
  failure: float, design: Design, value: np.ndarray
) -> np.ndarray:
  """Averages [conditions, ...] over which guides work."""
  mixed = np.zeros_like(value)
  chance = (failure, 1 - failure)
  for first in range(2):
    for second in range(2):
      source = value[design.outcome[:, first, second]]
      mixed += chance[first] * chance[second] * source
  return mixed


def _package(
  seed: int,
  config: Mapping[str, Any],
  world: World,
  design: Design,
  cells: Cells,
  counts: sparse.csr_matrix,
  truth: Mapping[str, np.ndarray],
) -> anndata.AnnData:
  """Puts counts, labels and truth into one AnnData."""
  names = gene_names(config['num_genes'])
  # No underscore: some tools join cell types and conditions with one.
  cell_types = _numbered('type', config['num_cell_types'])
  batches = _numbered('batch', config['num_batches'])
  programs = _numbered('program_', config['num_programs'])
  obs = pd.DataFrame(
    {
      'condition': pd.Categorical(design.labels[cells.condition]),
      'dose': pd.Categorical(design.doses[cells.condition]),
      'cell_type': pd.Categorical(cell_types[cells.cell_type]),
      'batch': pd.Categorical(batches[cells.batch]),
      'guide_working': cells.works.all(axis=1),
      'effective_condition': pd.Categorical(design.labels[cells.effective]),
    },
    index=_numbered('cell', config['num_cells']),
  )
  var = pd.DataFrame({'perturbed': False, 'size': world.size}, index=names)
  var.loc[names[world.perturbed], 'perturbed'] = True
  members = world.loadings.T != 0
  repeat, rows = len(cell_types), len(design.labels) * len(cell_types)
  perturbations = names[world.perturbed]
  simulation = {
    'version': VERSION,
    'seed': int(seed),
    'parameters': {**config, 'doses': np.array(config['doses'])},
    'cell_types': cell_types,
    'batches': batches,
    'programs': programs,
    'perturbations': perturbations,
    'null_perturbations': perturbations[world.null],
    **{
      k: v for k, v in world._asdict().items() if k not in ('size', 'loadings')
    },
    'row_condition': np.repeat(design.labels, repeat),
    'row_dose': np.repeat(design.doses, repeat),
    'row_cell_type': np.tile(cell_types, len(design.labels)),
    **{k: v.reshape(rows, -1).astype(np.float32) for k, v in truth.items()},
  }
  return anndata.AnnData(
    X=counts,
    obs=obs,
    var=var,
    varm={
      'program_members': members,
      'program_loadings': world.loadings.T.astype(np.float32),
    },
    uns={
      'simulation': simulation,
      'gene_sets': {
        name: names[column]
        for name, column in zip(programs, members.T, strict=True)
      },
    },
  )


def _check_doses(doses: Any) -> tuple[float, ...]:
  """Returns positive, different doses in increasing order."""
  values = np.asarray(doses).ravel().tolist()
  if (
    not values
    or not all(_is_real(d) and 0 < d < math.inf for d in values)
    or len(set(values)) < len(values)
  ):
    raise ValueError(
      f'doses={doses!r}: expected one or more different numbers above 0.'
    )
  return tuple(sorted(float(d) for d in values))


def _check_sizes(config: Mapping[str, Any]) -> None:
  """Raises where options do not fit each other."""
  count, genes = config['num_perturbations'], config['num_genes']
  pairs = count * (count - 1) // 2
  free = genes - count - _num_housekeeping(config)
  for name, most, why in (
    ('num_perturbations', genes, 'perturbed genes are measured: num_genes'),
    (
      'genes_per_program',
      max(0, free),
      'genes neither perturbed nor in the top 2 %',
    ),
    ('num_doubles', pairs, f'pairs of {count} perturbations'),
  ):
    if config[name] > most:
      raise ValueError(
        f'{name}={config[name]}: expected at most {most} ({why}).'
      )
  contexts = config['num_cell_types'] * config['num_batches']
  control = _num_control(config)
  if control < contexts:
    raise ValueError(
      f'control_fraction={config["control_fraction"]:g} of '
      f'num_cells={config["num_cells"]} gives {control} control cells: '
      f'expected at least {contexts}, one for each cell type and batch.'
    )
  conditions = count * len(config['doses']) + config['num_doubles']
  rows = conditions * config['num_cell_types']
  if config['num_cells'] - control < rows:
    raise ValueError(
      f'num_cells={config["num_cells"]}, {control} of them controls: expected '
      f'at least {rows} others, one for each of {conditions} conditions in '
      f'{config["num_cell_types"]} cell types.'
    )


def _num_housekeeping(config: Mapping[str, Any]) -> int:
  return -(-config['num_genes'] // 50)


def _num_control(config: Mapping[str, Any]) -> int:
  return round(config['control_fraction'] * config['num_cells'])


def _library(config: Mapping[str, Any]) -> float:
  """Returns the median library size."""
  return config['umis_per_gene'] * config['num_genes']


def _rng(seed: int, stream: int, *index: int) -> np.random.Generator:
  """Returns the generator of one stream of one dataset."""
  sequence = np.random.SeedSequence(seed, spawn_key=(stream, *index))
  return np.random.Generator(np.random.PCG64(sequence))


def _normalise(log_share: np.ndarray) -> np.ndarray:
  """Makes shares of the last axis sum to one."""
  log_share = log_share - log_share.max(axis=-1, keepdims=True)
  return log_share - np.log(np.exp(log_share).sum(axis=-1, keepdims=True))


def _bracket(
  value: np.ndarray, grid: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Returns the even grid's point below each value, and how far past it."""
  at = (value - grid[0]) / (grid[1] - grid[0])
  low = at.astype(np.int64)
  return low, at - low


def _between(low: np.ndarray, high: np.ndarray, part: np.ndarray) -> np.ndarray:
  return low + part * (high - low)


def _numbered(prefix: str, count: int) -> np.ndarray:
  return np.array([f'{prefix}{i}' for i in range(count)], object)


def _is_integer(value: Any) -> bool:
  return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _is_real(value: Any) -> bool:
  return isinstance(value, numbers.Real) and not isinstance(value, bool)
