"""How far predicted cells are from real ones: the original's losses.

By condition and over all its cells, or pooled over batches of mixed conditions
as SENA's evaluation has it (`metrics.pathways.batch_groups`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pertjax import losses, rng, types
from pertjax.data import arrays
from pertjax.metrics import pathways
from pertjax.models import interventions

COLUMNS = (
  'member', 'pooling', 'split', 'fold', 'condition', 'covariate', 'cells',
  'mmd', 'mmd_control', 'reconstruction', 'kl', 'kl_per_cell', 'l1',
)  # fmt: skip
# The matrix of distances has the square of this many entries.
MOST_CELLS = 1024
# Cells of a batch of SENA's evaluation, by fold.
_BATCH = {'train': 32, 'test': 8, 'double': 32}


class _Pair(NamedTuple):
  """Cells of one condition and group, and the controls that predict them."""

  split: str
  condition: int
  group: int
  target: np.ndarray
  source: np.ndarray


def make_terms(config, net):
  """Returns the compiled terms of some cells.

  Args:
    config: config.model.
    net: see models.discrepancy_vae.Network.

  Returns:
    `(params, consts, data, key, source, target, weight) -> {term: scalar}`;
    rows [cells] of control and of perturbed cells. The noise is drawn, as
    MMD needs it: cells of its mean are more alike than any that the model
    stands for. `mmd_control` is that of the control cells as they are.
  """

  @jax.jit
  def terms(params, consts, data, key, source, target, weight):
    hyper = consts['hyper']
    graph = net.graph(params)
    cells = arrays.gather(data.cells, source).astype(graph.dtype)
    real = arrays.gather(data.cells, target).astype(graph.dtype)
    where = arrays.conditions_at(
      data, data.condition[target], data.group[target]
    )
    mean, log_variance = net.posterior(params, cells, where, consts)
    draw = jax.random.normal(key, mean.shape, mean.dtype)
    noise = mean + jnp.exp(0.5 * log_variance) * draw
    shift = interventions.shift_of(
      params['intervention'], where, hyper['eval_temperature']
    )
    predicted = net.decode(
      params, interventions.propagate(noise + shift, graph), where
    )
    rebuilt = net.decode(params, interventions.propagate(noise, graph), where)

    def mmd(made):
      return losses.gaussian_mmd(
        made.astype(real.dtype),
        real,
        sigma=hyper.get('mmd_sigma', 0.0),
        num_kernels=config.mmd_kernels,
        weight=weight,
      )

    entry = 0.5 * (mean**2 + jnp.exp(log_variance) - 1 - log_variance)
    kl_cell = losses.weighted_mean(jnp.sum(entry, -1), weight)
    latent = mean.shape[-1]
    count = jnp.sum(weight) if config.parity else config.kl_batch
    kl = kl_cell / latent / count if config.reduction == 'mean' else kl_cell
    edges = jnp.sum(jnp.abs(graph))
    if config.reduction == 'mean':
      edges = edges / (latent * (latent - 1) // 2)
    return {
      'mmd': mmd(predicted),
      'mmd_control': mmd(cells),
      'reconstruction': losses.weighted_mean(
        jnp.mean((rebuilt - cells) ** 2, -1), weight
      ),
      'kl': kl,
      'kl_per_cell': kl_cell,
      'l1': edges,
    }

  return terms


def by_condition(
  terms, params, consts, data, spec: types.DataSpec, *, seed: int
) -> Iterator[dict[str, Any]]:
  """Yields a line with COLUMNS, but for the member, for each pair of a split.

  Pairs with a perturbation that was never trained are left out.
  """
  key = rng.stream(rng.root(seed), rng.PREDICT)
  for number, pair in enumerate(_pairs(data, spec, seed)):
    count = len(pair.target)
    # Powers of two: a few programs, and little padding.
    width = max(16, 1 << (count - 1).bit_length())
    found = terms(
      params,
      consts,
      data,
      jax.random.fold_in(key, number),
      jnp.asarray(np.resize(pair.source, width), jnp.int32),
      jnp.asarray(np.resize(pair.target, width), jnp.int32),
      jnp.asarray(np.arange(width) < count, jnp.float32),
    )
    order = len(spec.conditions.tokens[pair.condition])
    yield {
      'pooling': 'condition',
      'split': pair.split,
      'fold': 'singles' if order == 1 else 'combinations',
      'condition': spec.conditions.names[pair.condition],
      'covariate': spec.group_name(pair.group),
      'cells': count,
      **{k: float(v) for k, v in found.items()},
    }


def _pairs(data, spec, seed) -> Iterator[_Pair]:
  known = {name for name, t in zip(spec.perturbations, spec.trained) if t}
  for number, split in enumerate(types.SPLITS):
    rows = arrays.with_controls(data, getattr(data, split))
    for k in range(rows.pair_condition.shape[0]):
      c, g = int(rows.pair_condition[k]), int(rows.pair_group[k])
      if not known.issuperset(spec.conditions.tokens[c]):
        continue
      random = np.random.default_rng([seed, number, c, g])
      control = _slice(
        rows.control, rows.control_start[g], rows.control_count[g]
      )
      if not len(control):
        continue
      target = random.permutation(
        _slice(rows.perturbed, rows.pair_start[k], rows.pair_count[k])
      )[:MOST_CELLS]
      source = random.choice(
        control, len(target), replace=len(target) > len(control)
      )
      yield _Pair(split, c, g, target, source)


def _slice(values, start, count) -> np.ndarray:
  return np.asarray(values)[int(start) : int(start) + int(count)]


def pooled(
  terms, params, consts, data, spec: types.DataSpec, *, seed: int
) -> Iterator[dict[str, Any]]:
  """Yields a line for each fold of SENA's evaluation.

  Batches of one condition, incomplete ones dropped, are pooled in groups of
  mixed conditions; the noise is drawn; terms are means over groups.
  """
  key = rng.stream(rng.root(seed), rng.PREDICT)
  gathered: dict[str, list[_Pair]] = {}
  for pair in _pairs(data, spec, seed):
    order = len(spec.conditions.tokens[pair.condition])
    fold = 'double' if order > 1 else pair.split
    if fold in _BATCH and not (fold == 'double' and pair.split == 'train'):
      gathered.setdefault(fold, []).append(pair)
  for fold, found in gathered.items():
    size = _BATCH[fold]
    batches = [
      (pair.source[i : i + size], pair.target[i : i + size])
      for pair in found
      for i in range(0, len(pair.target) - size + 1, size)
    ]
    order = np.random.default_rng([seed, len(batches)]).permutation(
      len(batches)
    )
    values, cells = [], 0
    for chosen in pathways.batch_groups(len(batches)):
      source, target = (
        np.concatenate([batches[order[b]][side] for b in chosen])
        for side in range(2)
      )
      key, now = jax.random.split(key)
      values.append(
        terms(
          params,
          consts,
          data,
          now,
          jnp.asarray(source, jnp.int32),
          jnp.asarray(target, jnp.int32),
          jnp.ones(len(target), jnp.float32),
        )
      )
      cells += len(target)
    if values:
      yield {
        'pooling': 'original',
        'split': 'train' if fold == 'train' else 'test',
        'fold': fold,
        'condition': '',
        'covariate': '',
        'cells': cells,
        **{k: float(np.mean([v[k] for v in values])) for k in values[0]},
      }
