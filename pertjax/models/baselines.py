"""Closed-form baselines: the predictions that a trained model has to beat.

Each adds a shift to the control cells, and each has a name in `KINDS`. They
are strong: the additive one is above every published network on the doubles of
Norman 2019 (Ahlmann-Eltze et al. 2025), and on unseen cell types the nearest
shift equals scGen.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pertjax import types
from pertjax.data import arrays, statistics
from pertjax.models import layers, shifts

KINDS = {
  'control': 'no change: the control cells themselves',
  'mean': 'mean shift over the training pairs',
  'mean_by_group': 'mean shift over the training pairs of the same group',
  'additive': (
    'sum of single shifts; a condition seen in other groups: their mean shift'
  ),
  'additive_cells': 'additive, other groups weighted by their cells',
  'additive_shrunk': 'additive times a factor fitted on training conditions',
  'nearest_shift': 'additive, each effect from the most similar group alone',
  'pca_arithmetic': 'additive in the space of the first principal components',
  'ridge': 'ridge on principal components of perturbed genes and of genes',
}

# Why config.loss.weights must be 0 with this model.
NO_LOSS_TERMS = 'it is a closed form, without training steps'

# Cells that principal components are fitted on, at most.
_PCA_CELLS = 8192


def default_config() -> dict[str, Any]:
  """Returns the model's keys."""
  return {
    'kind': 'additive',
    # Components of pca_arithmetic (scVIDR's baseline has 100).
    'num_components': 50,
    # Ahlmann-Eltze, Huber and Anders 2025: 10 components, lambda 0.1.
    'ridge_components': 10,
    'ridge_penalty': 0.1,
  }


def make(config, spec: types.DataSpec) -> types.Model:
  """Builds the baseline that config.kind names; see types.Model."""
  return make_kind(spec=spec, **{k: config[k] for k in default_config()})


def make_kind(kind: str, spec: types.DataSpec, **changes: float) -> types.Model:
  """Builds one baseline of KINDS.

  Args:
    kind: its name.
    spec: static facts of the data.
    **changes: keys that differ from `default_config`.
  """
  layers.check_choice('model.kind', kind, tuple(KINDS))
  options = {**default_config(), **changes}
  # Where few perturbed genes are measured (drugs), a perturbation is embedded
  # by its own training profile instead of by its gene.
  genes = np.asarray(spec.perturbation_genes, np.int32)
  by_gene = bool(np.mean(genes >= 0) >= 0.5) if len(genes) else False
  consts = {'perturbation_genes': jnp.asarray(genes)}

  def init(key, consts):
    del key, consts
    return {}

  def fit(params, key, data: statistics.FitData, consts):
    table = data.pairs
    params = {**params, 'table': table}
    if kind == 'additive_shrunk':
      params['factor'] = shrinkage(table)
    if kind == 'pca_arithmetic':
      components = min(options['num_components'], *data.arrays.cells.shape)
      params['center'], params['basis'] = principal_components(
        key, data.arrays, components
      )
    if kind == 'ridge':
      params['ridge'] = fit_ridge(
        table,
        consts['perturbation_genes'] if by_gene else None,
        num_perturbations=spec.num_perturbations,
        components=options['ridge_components'],
        penalty=options['ridge_penalty'],
      )
    return params

  def shift_of(params, condition):
    table = params['table']
    if kind in ('mean', 'mean_by_group'):
      weight = shifts.mean_weights(
        table, condition, by_group=kind == 'mean_by_group'
      )
    elif kind == 'ridge':
      return predict_ridge(params['ridge'], condition)
    else:
      weight = shifts.additive_weights(
        table,
        condition,
        groups='nearest' if kind == 'nearest_shift' else 'own',
        by_cells=kind == 'additive_cells',
      )
    return weight @ table.shift * params.get('factor', 1.0)

  def predict(params, key, source, condition, consts):
    del key, consts
    if kind == 'control':
      return source
    shift = shift_of(params, condition) * shifts.is_perturbed(condition)
    if kind == 'pca_arithmetic':
      center, basis = params['center'], params['basis']
      latent = (source - center[None]) @ basis.T + shift @ basis.T
      return latent @ basis + center[None]
    return source + shift

  return types.Model(
    init=init, losses={}, predict=predict, fit=fit, consts=consts
  )


def shrinkage(table: statistics.PairMeans) -> jax.Array:
  """Fits one factor for additive predictions, by least squares.

  Every training pair whose additive prediction can be made without the pair
  itself takes part: combinations from their singles, and conditions that were
  seen in another group. 1 where there is none.
  """
  own = shifts.own_conditions(table)
  same = shifts.same_condition(table, own)
  itself = same & (table.group[:, None] == table.group[None])
  weight = shifts.additive_weights(table, own, exclude=itself)
  sizes = jnp.sum(table.perturbations >= 0, axis=-1)
  elsewhere = jnp.any(same & ~itself, axis=-1)
  takes_part = ((sizes > 1) | elsewhere).astype(jnp.float32)[:, None]
  predicted = weight @ table.shift * takes_part
  fitted = jnp.sum(predicted * table.shift) / jnp.maximum(
    jnp.sum(predicted * predicted), 1e-12
  )
  return jnp.where(jnp.any(takes_part > 0), fitted, 1.0)


def principal_components(
  key: jax.Array, data: arrays.PerturbArrays, components: int
) -> tuple[jax.Array, jax.Array]:
  """Returns (centre [genes], components [components, genes]) of train cells.

  Subspace iteration on a sample of the cells (Halko, Martinsson and Tropp
  2011, algorithm 4.4): four passes reach the leading components to far better
  than the sampling error.
  """
  key_rows, key_start = jax.random.split(key)
  rows = jnp.concatenate([data.train.perturbed, data.train.control])
  if rows.shape[0] > _PCA_CELLS:
    rows = jax.random.choice(key_rows, rows, (_PCA_CELLS,), replace=False)
  x = arrays.gather(data.cells, rows)
  center = jnp.mean(x, axis=0)
  x = x - center[None]
  width = min(components + 10, *x.shape)
  basis = jax.random.normal(key_start, (x.shape[1], width))
  for _ in range(4):
    basis, _ = jnp.linalg.qr(x.T @ (x @ basis))
  _, _, right = jnp.linalg.svd(x @ basis, full_matrices=False)
  return center, (right @ basis.T)[:components]


def gene_scores(
  profiles: jax.Array, components: int
) -> tuple[jax.Array, jax.Array]:
  """Returns the principal component scores of genes and loadings of profiles.

  Args:
    profiles: [genes, profiles]; each profile is centred over its genes.
    components: how many.

  Returns:
    ([genes, components], [profiles, components]).
  """
  centred = profiles - jnp.mean(profiles, axis=0, keepdims=True)
  left, values, right = jnp.linalg.svd(centred, full_matrices=False)
  return (left * values[None])[:, :components], right[:components].T


def ridge_map(
  y: jax.Array, a: jax.Array, b: jax.Array, penalty: float
) -> tuple[jax.Array, jax.Array]:
  """Returns (K, c) of the bilinear fit y ~ a K b' + c.

  Ahlmann-Eltze, Huber and Anders 2025, Methods:

    K = (A'A + l I)^-1 A' (Y - c) B (B'B + l I)^-1,   c = row means of Y.

  Args:
    y: [genes, conditions].
    a: [genes, p] embedding of the genes.
    b: [conditions, q] embedding of the conditions.
    penalty: l.
  """
  center = jnp.mean(y, axis=1)
  inner = a.T @ (y - center[:, None]) @ b
  left = jnp.linalg.solve(a.T @ a + penalty * jnp.eye(a.shape[1]), inner)
  right = b.T @ b + penalty * jnp.eye(b.shape[1])
  return jnp.linalg.solve(right, left.T).T, center


def fit_ridge(
  table: statistics.PairMeans,
  perturbation_genes: jax.Array | None,
  *,
  num_perturbations: int,
  components: int,
  penalty: float,
) -> dict[str, jax.Array]:
  """Fits `ridge_map` on the training shifts, the control as one more column.

  Genes are embedded by their component scores over the training profiles, a
  perturbation by its own gene's scores, a combination by their sum and the
  control by 0. A perturbation whose gene is not measured has embedding 0, so
  that its prediction is the mean.

  Args:
    table: of the training pairs.
    perturbation_genes: int32 [perturbations], -1 where not measured; None to
      embed a perturbation by the loadings of its own training profiles.
    num_perturbations: size of the vocabulary.
    components: p and q of the paper.
    penalty: lambda of the paper.
  """
  shift = table.shift
  y = jnp.concatenate([jnp.zeros((1, shift.shape[1])), shift]).T
  control = jnp.mean(table.control, axis=0, keepdims=True)
  genes, loadings = gene_scores(
    jnp.concatenate([control, table.mean]).T, min(components, *y.shape)
  )
  if perturbation_genes is None:
    embedding = _token_means(table, loadings[1:], num_perturbations)
  else:
    measured = (perturbation_genes >= 0)[:, None]
    embedding = jnp.where(measured, genes[perturbation_genes], 0.0)
  b = _embed(embedding, table.perturbations)
  b = jnp.concatenate([jnp.zeros((1, b.shape[1])), b])
  core, center = ridge_map(y, genes, b, penalty)
  return {
    'genes': genes,
    'core': core,
    'embedding': embedding,
    'center': center,
  }


def _token_means(table, scores, num_perturbations):
  """Averages pair scores over the pairs that carry each perturbation."""
  hot = jnp.sum(jax.nn.one_hot(table.perturbations, num_perturbations), axis=1)
  return hot.T @ scores / jnp.maximum(jnp.sum(hot, 0), 1.0)[:, None]


def _embed(embedding, perturbations):
  """Sums the embeddings of each row's perturbations."""
  hot = jax.nn.one_hot(perturbations, embedding.shape[0])
  return jnp.sum(hot, axis=-2) @ embedding


def predict_ridge(
  fitted: dict[str, jax.Array], condition: types.Condition
) -> jax.Array:
  """Returns the shifts [queries, genes]; see fit_ridge."""
  embedded = _embed(fitted['embedding'], condition.perturbations)
  return (
    embedded @ fitted['core'].T @ fitted['genes'].T + fitted['center'][None]
  )
