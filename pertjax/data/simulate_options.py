"""The simulator's options: defaults, and which go together."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping
from typing import Any

import numpy as np

from pertjax import names as name_lib

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
MODES = {'activation': 1.0, 'knockdown': -1.0}


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


def check_options(options: Mapping[str, Any]) -> dict[str, Any]:
  """Merges options into the defaults.

  Raises:
    ValueError: naming the option, its value and what is allowed.
  """
  config = default_config()
  for name in options:
    if name not in config:
      raise ValueError(
        name_lib.unknown('option of simulate', name, sorted(config))
      )
  config.update(options)
  for name, (kind, low, high) in _RULES.items():
    value = config[name]
    number = is_integer(value) if kind is int else _is_real(value)
    if not number or not low <= value <= high:
      what = 'an integer' if kind is int else 'a number'
      raise ValueError(
        f'{name}={value!r}: expected {what} from {low:g} to {high:g}.'
      )
    config[name] = kind(value)
  if config['mode'] not in tuple(MODES):
    raise ValueError(
      f'mode={config["mode"]!r}: expected one of {", ".join(MODES)}.'
    )
  config['doses'] = _check_doses(config['doses'])
  _check_sizes(config)
  return config


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
  free = genes - count - num_housekeeping(config)
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
  control = num_control(config)
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


def num_housekeeping(config: Mapping[str, Any]) -> int:
  """Returns how many of the best expressed genes stay out of everything."""
  return -(-config['num_genes'] // 50)


def num_control(config: Mapping[str, Any]) -> int:
  """Returns the number of control cells."""
  return round(config['control_fraction'] * config['num_cells'])


def median_library(config: Mapping[str, Any]) -> float:
  """Returns the median library size."""
  return config['umis_per_gene'] * config['num_genes']


def is_integer(value: Any) -> bool:
  """Says whether a value is an integer and no bool."""
  return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _is_real(value: Any) -> bool:
  return isinstance(value, numbers.Real) and not isinstance(value, bool)
