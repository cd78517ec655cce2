"""Predictions of held-out pairs: of a fleet, of the baselines, as cells."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pertjax import rng, targets, types
from pertjax.data import arrays, statistics
from pertjax.models import baselines


class Predicted(NamedTuple):
  """Mean predictions of one model, before they are scored.

  Attributes:
    name: for tables.
    members: [members] numbers; (-1,) for closed forms and files.
    means: float32 [members, V, pairs, genes].
    control: float32 [V, groups, genes] the prediction's own control means;
      None for those of the source cells.
    shown: whether its profiles are drawn.
  """

  name: str
  members: tuple[int, ...]
  means: np.ndarray
  control: np.ndarray | None = None
  shown: bool = True


def display_name(config) -> str:
  """Returns the name of the trained model in tables."""
  if config.model.name == 'baselines':
    return config.model.kind
  return config.model.name


def member(params: types.Params, k: int) -> types.Params:
  """Returns one member's part of a tree whose leaves are [members, ...]."""
  return jax.tree.map(lambda x: x[k], params)


def members(params: types.Params, numbers: Sequence[int]) -> types.Params:
  """Returns the part of some members, in the order of `numbers`."""
  return member(params, np.asarray(numbers))


def unknown_pairs(
  model: types.Model, spec: types.DataSpec, truth: targets.Targets
) -> dict[int, str]:
  """Returns {pair: reason} for the pairs that a model cannot predict."""
  if model.knows is None:
    return {}
  reasons = {
    pair: model.knows(spec.conditions.tokens[c])
    for pair, c in enumerate(truth.condition)
  }
  return {pair: reason for pair, reason in reasons.items() if reason}


def predict_means(
  model: types.Model,
  params: types.Params,
  consts: types.Consts,
  data: arrays.PerturbArrays,
  spec: types.DataSpec,
  truth: targets.Targets,
  *,
  say: Callable[[str], None] | None = None,
) -> np.ndarray:
  """Returns the mean predicted cell of every pair, [V, pairs, genes].

  A pair that the model cannot know is NaN, and said.
  """
  program = _means_program(model.predict)
  out = np.stack(
    [
      np.asarray(
        program(
          params,
          consts,
          data,
          jnp.asarray(truth.source[v]),
          jnp.asarray(truth.source_weight[v]),
          jnp.asarray(truth.source_mean[v]),
          jnp.asarray(truth.condition, jnp.int32),
          jnp.asarray(truth.group, jnp.int32),
        )
      )
      for v in range(len(truth.source))
    ]
  )
  unknown = unknown_pairs(model, spec, truth)
  if unknown and say is not None:
    reasons = sorted(set(unknown.values()))
    say(
      f'{len(unknown)} of {len(truth.condition)} pairs cannot be predicted by '
      f'this model and count as dropped: {"; ".join(reasons[:5])}'
    )
  out[:, list(unknown)] = np.nan
  return out


# Members of a fleet share the program; a second model replaces it.
@functools.lru_cache(maxsize=1)
def _means_program(predict):
  @jax.jit
  def means(params, consts, data, rows, weight, start, condition, group):
    def one(pair):
      c, g = pair
      return mean_prediction(
        lambda source, where: predict(params, None, source, where, consts),
        data,
        rows[g],
        weight[g],
        start[g],
        arrays.conditions_at(data, c[None], g[None]),
      )

    return jax.lax.map(one, (condition, group))

  return means


def mean_prediction(
  predict: Callable[[jax.Array, types.Condition], jax.Array],
  data: arrays.PerturbArrays,
  rows: jax.Array,
  weight: jax.Array,
  start: jax.Array,
  condition: types.Condition,
) -> jax.Array:
  """Returns the mean predicted cell, [genes].

  It is the mean of the source cells plus the mean change, so that a prediction
  of no change is the mean of the source to the last bit. Otherwise its effect
  would be rounding noise, which has a correlation with anything.

  Args:
    predict: (source cells, condition) to cells.
    data: the dataset.
    rows: int32 [n] source cells.
    weight: float32 [n]; 0 is padding.
    start: float32 [genes] mean of the source cells.
    condition: of one cell.
  """
  source = arrays.gather(data.cells, rows)
  change = predict(source, condition) - source
  # HIGHEST: a GPU's default would round the cells to TF32.
  total = jnp.dot(weight, change, precision=jax.lax.Precision.HIGHEST)
  return start + total / jnp.sum(weight)


def predict_baselines(
  config,
  data: arrays.PerturbArrays,
  spec: types.DataSpec,
  truth: targets.Targets,
  *,
  skip: str = '',
) -> list[Predicted]:
  """Fits the baselines of config.eval.baselines.

  Args:
    config: the run's config.
    data: the dataset.
    spec: its static facts.
    truth: see Targets.
    skip: name of a baseline that is the trained model itself.
  """
  kinds = [k for k in config.eval.baselines if k != skip]
  if not kinds:
    return []
  programs = {}
  for kind in kinds:
    programs[kind] = baselines.make_kind(kind, spec)

  # One program for all of them: compiling, not computing, is what they cost.
  @jax.jit
  def every(data, consts, key, rows, weight, start, condition, group):
    fit_data = statistics.FitData(data, statistics.pair_means(data, data.train))
    fitted = {
      kind: model.fit({}, key, fit_data, consts[kind])
      for kind, model in programs.items()
    }

    def one(pair):
      version, c, g = pair
      where = arrays.conditions_at(data, c[None], g[None])
      return {
        kind: mean_prediction(
          lambda source, where, kind=kind: programs[kind].predict(
            fitted[kind], None, source, where, consts[kind]
          ),
          data,
          rows[version, g],
          weight[version, g],
          start[version, g],
          where,
        )
        for kind in kinds
      }

    return jax.lax.map(one, (version_of, condition, group))

  num_versions, num_pairs = len(truth.source), len(truth.condition)
  version_of = jnp.repeat(jnp.arange(num_versions), num_pairs)
  means = every(
    data,
    {kind: model.consts for kind, model in programs.items()},
    rng.stream(rng.root(config.seed), rng.FIT),
    jnp.asarray(truth.source),
    jnp.asarray(truth.source_weight),
    jnp.asarray(truth.source_mean),
    jnp.tile(jnp.asarray(truth.condition, jnp.int32), num_versions),
    jnp.tile(jnp.asarray(truth.group, jnp.int32), num_versions),
  )
  return [
    Predicted(
      kind,
      (-1,),
      np.asarray(means[kind]).reshape(1, num_versions, num_pairs, -1),
    )
    for kind in kinds
  ]


def predict_cells(
  config,
  model: types.Model,
  params: types.Params,
  consts: Sequence[types.Consts],
  data: arrays.PerturbArrays,
  spec: types.DataSpec,
  truth: targets.Targets,
  members: Sequence[int],
) -> dict[str, Any]:
  """Predicts cells of the held-out pairs, for predictions.h5ad."""
  unknown = unknown_pairs(model, spec, truth)
  known = [p for p in range(len(truth.condition)) if p not in unknown]
  requests = [(int(truth.condition[p]), int(truth.group[p])) for p in known]
  count = config.eval.saved_cells
  rows = [
    truth.source[0, g][truth.source_weight[0, g] > 0][:count]
    for _, g in requests
  ]
  return cells_of(
    config, model, params, consts, data, spec, requests, rows, members
  )


def cells_of(
  config,
  model: types.Model,
  params: types.Params,
  consts: Sequence[types.Consts],
  data: arrays.PerturbArrays,
  spec: types.DataSpec,
  requests: Sequence[tuple[int, int]],
  rows: Sequence[np.ndarray],
  members: Sequence[int],
) -> dict[str, Any]:
  """Predicts cells, one block for each request.

  Args:
    config, model, params, consts, data, spec, members: see `run`.
    requests: (condition, group) ids.
    rows: for each request, the control rows that the cells come from.

  Returns:
    Keyword arguments of predictions.write_predictions.
  """

  @jax.jit
  def cells(params, consts, data, rows, condition, group):
    source = arrays.gather(data.cells, rows)
    where = arrays.conditions_at(data, condition[None], group[None])
    return model.predict(params, None, source, where, consts)

  width = max((len(r) for r in rows), default=1)
  blocks, spreads = [], []
  for (c, g), found in zip(requests, rows):
    padded = np.resize(found, width)
    each = np.stack(
      [
        np.asarray(
          cells(
            member(params, k),
            consts[k],
            data,
            jnp.asarray(padded, jnp.int32),
            jnp.int32(c),
            jnp.int32(g),
          )
        )[: len(found)]
        for k in range(len(members))
      ]
    )
    blocks.append(each.mean(0))
    # One member has no spread.
    if len(members) > 1:
      spreads.append(each.std(0, ddof=1))
  flat = np.concatenate([*rows, np.zeros(0, np.int32)]).astype(int)
  sizes = [len(r) for r in rows]
  empty = np.zeros((0, spec.num_genes), np.float32)
  columns = {
    'condition': np.repeat(
      [spec.conditions.names[c] for c, _ in requests], sizes
    ),
    **{
      key: np.repeat([spec.groups[g][k] for _, g in requests], sizes)
      for k, (key, _) in enumerate(spec.covariates)
    },
    'control_cell': spec.cell_names[flat],
  }
  return {
    'values': np.concatenate([*blocks, empty]),
    'spread': np.concatenate([*spreads, empty]) if len(members) > 1 else None,
    'columns': columns,
    'genes': spec.genes,
    'provenance': provenance(config, spec, members),
  }


def provenance(config, spec: types.DataSpec, members) -> dict[str, Any]:
  """Returns what a reader needs to know where predictions came from."""
  return {
    'model': display_name(config),
    'dataset': spec.name,
    'data_fingerprint': spec.fingerprint,
    'split_sha256': spec.split.sha256,
    'members': [int(m) for m in members],
    'scale': 'counts' if config.data.use_counts else 'log1p',
  }
