"""Datasets written by hand: labels in, arrays on the device out."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from scipy import sparse

from pertjax import types
from pertjax.data import arrays, conventions

TRAIN, VAL, TEST = types.TRAIN, types.VAL, types.TEST


def dataset(
  values, labels, groups=None, parts=None, *, storage='float32', regimes=None
):
  """Returns (PerturbArrays, DataSpec) of labelled cells.

  Args:
    values: [cells, genes].
    labels: [cells] 'control', 'A', 'A+B', ...
    groups: [cells] names of the one covariate; none for no covariate.
    parts: [cells] TRAIN, VAL, TEST or EXCLUDED; all TRAIN by default.
    storage: see arrays.place.
    regimes: {(condition name, group name): regime}; 'seen2' by default.
  """
  values = np.asarray(values, np.float32)
  num_cells, num_genes = values.shape
  convention = conventions.make('perturbench', covariates=())
  conditions, ids = conventions.parse(list(labels), convention=convention)
  parts = np.zeros(num_cells, np.int8) if parts is None else np.asarray(parts)
  if groups is None:
    covariates, named, group = (), ((),), np.zeros(num_cells, int)
  else:
    levels, group = np.unique(np.asarray(groups, str), return_inverse=True)
    covariates = (('kind', tuple(levels.tolist())),)
    named = tuple((level,) for level in levels.tolist())
  perturbations = tuple(
    sorted({t for tokens in conditions.tokens for t in tokens})
  )
  table, doses = arrays.condition_tables(conditions, perturbations)
  rows = [
    arrays.make_rows(parts == part, ids, group, len(named))
    for part in (TRAIN, VAL, TEST)
  ]
  data = arrays.PerturbArrays(
    cells=arrays.place(sparse.csr_matrix(values), storage),
    condition=jnp.asarray(ids, jnp.int32),
    group=jnp.asarray(group, jnp.int32),
    condition_perturbations=jnp.asarray(table),
    condition_doses=jnp.asarray(doses),
    group_covariates=jnp.arange(len(named), dtype=jnp.int32)[:, None][
      :, : len(covariates)
    ],
    train=rows[0],
    val=rows[1],
    test=rows[2],
    partner=jnp.zeros((0,), jnp.int32),
  )
  held_out = {
    (int(c), int(g))
    for c, g, part in zip(ids, group, parts)
    if c and part in (VAL, TEST)
  }
  named_regimes = {
    (conditions.names.index(c), named.index((g,) if g else ())): regime
    for (c, g), regime in (regimes or {}).items()
  }
  trained = {t for i in np.unique(ids[parts == TRAIN]) for t in table[i]}
  spec = types.DataSpec(
    name='handmade',
    genes=tuple(f'g{i}' for i in range(num_genes)),
    perturbations=perturbations,
    perturbation_genes=(-1,) * len(perturbations),
    conditions=conditions,
    covariates=covariates,
    groups=named,
    cell_names=np.asarray([f'cell{i}' for i in range(num_cells)]),
    trained=tuple(i in trained for i in range(len(perturbations))),
    split=types.Split(
      cells=parts.astype(np.int8),
      regimes={
        pair: named_regimes.get(pair, 'seen2') for pair in sorted(held_out)
      },
      method='handmade',
      sha256='0' * 64,
    ),
    fingerprint='1' * 64,
    source={'dataset': 'handmade'},
  )
  return data, spec


def screen(
  seed=0,
  *,
  genes=12,
  copies=12,
  singles='ABCD',
  held_out=('A+B', 'C+D', 'A+C'),
  groups=('x', 'y'),
  noise=0.3,
  controls=30,
  **options,
):
  """Returns a dataset whose doubles are the sums of the effects of singles.

  Singles train, the `held_out` conditions are tested, two fifths of the
  controls each train and test, the rest validates, and so does 'B+D'. Cells
  are in random order; group 'y' has another baseline but the same effects.

  Args:
    seed: of everything.
    genes: how many.
    copies: cells of each condition and group.
    singles: perturbations, one letter each.
    held_out: conditions.
    groups: names.
    noise: standard deviation of a cell.
    controls: of each group.
    **options: of `dataset`.
  """
  random = np.random.default_rng(seed)
  effects = {name: random.normal(0, 1, genes) for name in singles}
  base = {group: random.uniform(4, 6, genes) for group in groups}
  labels, kinds, parts, means = [], [], [], []

  def add(label, group, part, count):
    tokens = [] if label == 'control' else label.split('+')
    mean = base[group] + sum((effects[t] for t in tokens), np.zeros(genes))
    labels.extend([label] * count)
    kinds.extend([group] * count)
    parts.extend([part] * count)
    means.extend([mean] * count)

  for group in groups:
    add('control', group, TRAIN, 2 * controls // 5)
    add('control', group, TEST, 2 * controls // 5)
    add('control', group, VAL, controls - 2 * (2 * controls // 5))
    for single in singles:
      add(single, group, TRAIN, copies)
    for label in held_out:
      add(label, group, TEST, copies)
    add('B+D', group, VAL, copies)
  order = random.permutation(len(labels))
  values = np.asarray(means) + random.normal(0, noise, (len(labels), genes))
  return dataset(
    values[order],
    np.asarray(labels)[order],
    np.asarray(kinds)[order],
    np.asarray(parts)[order],
    **options,
  )
