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

from collections.abc import Mapping
from typing import Any

import anndata
import numpy as np
import pandas as pd
from scipy import sparse

from pertjax.data import (
  simulate_cells,
  simulate_options,
  simulate_truth,
  simulate_world,
)
from pertjax.data.simulate_options import check_options, default_config

__all__ = ['VERSION', 'check_options', 'default_config', 'simulate', 'tiny']

# Stored with the data: raise it when the same seed gives other counts.
VERSION = 1


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
  config = simulate_options.check_options(options)
  if not simulate_options.is_integer(seed) or seed < 0:
    raise ValueError(f'seed={seed!r}: expected an integer, 0 or more.')
  world = simulate_world.make_world(seed, config)
  names = gene_names(config['num_genes'])
  design = simulate_world.make_design(seed, config, names[world.perturbed])
  cells = simulate_cells.allocate(seed, config, design)
  activity, effect = simulate_world.effects(world, design, config['epistasis'])
  log_share = simulate_world.normalise(world.log_share[None] + effect)
  states = simulate_world.normalise(log_share[:, :, None] + world.batch_shift)
  counts = simulate_cells.draw(seed, config, world, cells, states)
  truth = {
    'activity': activity,
    'effect': effect,
    'log_share': log_share,
    **simulate_truth.expected(config, world, design, states),
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


def gene_names(num_genes: int) -> np.ndarray:
  """Returns `GENE0001` and on, objects [genes], in sorted order."""
  width = max(4, len(str(num_genes)))
  return np.array([f'GENE{i + 1:0{width}d}' for i in range(num_genes)], object)


def _package(
  seed: int,
  config: Mapping[str, Any],
  world: simulate_world.World,
  design: simulate_world.Design,
  cells: simulate_cells.Cells,
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


def _numbered(prefix: str, count: int) -> np.ndarray:
  return np.array([f'{prefix}{i}' for i in range(count)], object)
