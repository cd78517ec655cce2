"""What a model of gene sets and latent factors has learned, as tables.

For models whose module has `network` (see models.discrepancy_vae.Network) with
a causal graph. Written to eval/interpret/, a line for each member of the fleet
and:

  activation.csv     layer, condition and unit: mean score of the encoded cells,
                     change from control cells of the same groups, and its size,
                     the differential activation; is the unit targeted. Gene
                     sets for singles, latent layers for every condition. The
                     layer 'shift' is what the model adds, without any cell.
  perturbations.csv  condition of one perturbation: its factor, the entropy of
                     the assignment, its shift; DAR, recall and z_diff.
  assignments.csv    perturbation and factor: soft assignment.
  factor_sets.csv    factor: the gene sets that feed it most.
  graph.csv          edges above the lowest threshold, and which they pass.
  losses.csv         condition: MMD, reconstruction, KL, L1.
  summary.csv        quantity: value.
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pertjax import heldout, leaderboard, models, types
from pertjax.data import arrays, gene_sets
from pertjax.interpret import activation, discrepancy, structure

FOLDER = 'interpret'
ACTIVATION = (
  'member', 'layer', 'condition', 'unit', 'score', 'change', 'differential',
  'targeted',
)  # fmt: skip
PERTURBATIONS = (
  'member', 'condition', 'perturbation', 'trained', 'factor', 'weight',
  'entropy', 'shift', 'targeted', 'dar', 'dar_without_own', 'recall_25',
  'recall_25_without_own', 'recall_100', 'recall_100_without_own', 'z_diff',
)  # fmt: skip
SUMMARY = ('member', 'quantity', 'value')


def offered(config) -> bool:
  """Says whether the model of a run can be looked into."""
  return hasattr(models.module(config.model.name), 'network')


def run(
  config,
  workdir: pathlib.Path,
  data: arrays.PerturbArrays,
  spec: types.DataSpec,
  params: types.Params,
  consts: Sequence[types.Consts],
  *,
  members: Sequence[int],
  say: Callable[[str], None],
) -> None:
  """Writes the tables of the module's docstring, where the model has them.

  Args:
    config: the run's config.
    workdir: its directory.
    data: the dataset.
    spec: its static facts.
    params: [members, ...] fitted parameters.
    consts: [members] the arrays that each member saw.
    members: their numbers in the fleet.
    say: takes lines for a person.
  """
  if not offered(config):
    return
  net = models.module(config.model.name).network(config.model, spec)
  if not hasattr(net, 'graph'):
    return
  say(f'interpret: factors, gene sets and graph of {len(members)} member(s)')
  tables: dict[str, list[dict[str, Any]]] = {name: [] for name in _COLUMNS}
  wanted = gene_sets.of_config(config.data)
  names = {}
  if wanted is not None:
    names = {key: found.name for key, found in wanted.sets.sets.items()}
  layers = activation.make_layers(net, data, spec)
  terms = discrepancy.make_terms(config.model, net)
  for k, number in enumerate(members):
    found = _of_member(
      config,
      net,
      heldout.member(params, k),
      consts[k],
      data,
      spec,
      layers,
      terms,
      names,
    )
    for name, rows in found.items():
      tables[name] += [{'member': number, **row} for row in rows]
  folder = workdir / 'eval' / FOLDER
  for name, rows in tables.items():
    leaderboard.write_rows(folder / f'{name}.csv', _COLUMNS[name], rows)
  for line in _lines(tables['summary'], len(members)):
    say(line)


_COLUMNS = {
  'activation': ACTIVATION,
  'perturbations': PERTURBATIONS,
  'assignments': structure.ASSIGNMENTS,
  'factor_sets': structure.FACTOR_SETS,
  'graph': structure.GRAPH,
  'losses': discrepancy.COLUMNS,
  'summary': SUMMARY,
}


def _of_member(config, net, params, consts, data, spec, layers, terms, names):
  """Returns the rows of every table of one member."""
  found = layers(params, consts)
  kernel = activation.effective_kernel(net, params, consts, spec.num_genes)
  units = net.set_names or tuple(f'unit_{i}' for i in range(kernel.shape[1]))
  targeted = activation.targeted_units(spec, net.set_names, kernel)
  table = structure.assignment_table(params, consts, spec)
  graph = np.asarray(net.graph(params), np.float64)
  singles = [
    c for c, tokens in enumerate(spec.conditions.tokens) if len(tokens) == 1
  ]
  number = len(spec.conditions.names)
  sets = activation.over_groups(found, found.gene_set, number)
  shown = activation.over_groups(found, found.expression, number)
  about = [
    _about(spec, c, sets.change, shown.change, kernel, targeted)
    for c in singles
    if np.isfinite(sets.change[c]).all()
  ]
  perturbations = [
    {**row, **structure.assigned(params, table, spec, p)} for p, row in about
  ]
  lost = list(
    discrepancy.by_condition(
      terms, params, consts, data, spec, seed=config.eval.seed
    )
  )
  if config.model.parity:
    lost += discrepancy.pooled(
      terms, params, consts, data, spec, seed=config.eval.seed
    )
  control = np.average(
    found.expression[found.condition == 0],
    axis=0,
    weights=found.cells[found.condition == 0],
  )
  summary = {
    **_means(perturbations, len(units)),
    **{
      f'sparsity, contributions up to {limit:g}': share
      for limit, share in activation.sparsity(kernel, control).items()
    },
    **structure.summary(table, graph, spec),
    **_mean_losses(lost),
  }
  return {
    'activation': _activation_rows(
      config, net, params, consts, data, spec, found, sets, units, targeted
    ),
    'perturbations': perturbations,
    'assignments': structure.assignment_rows(table, spec),
    'factor_sets': structure.factor_sets(
      params, units, found.spread, names, by_weight=config.model.parity
    ),
    'graph': structure.graph_rows(graph),
    'losses': lost,
    'summary': [{'quantity': k, 'value': v} for k, v in summary.items()],
  }


def _about(spec, c, change, expression, kernel, targeted):
  """Returns (perturbation, its scores) of a condition of one perturbation."""
  (token,) = spec.conditions.tokens[c]
  p = spec.perturbations.index(token)
  column = spec.perturbation_genes[p]
  own = np.zeros(kernel.shape[1])
  if column >= 0:
    own = kernel[column] * expression[c, column]
  return p, {
    'condition': spec.conditions.names[c],
    **activation.scores_of(change[c], own, targeted[p]),
  }


def _activation_rows(
  config, net, params, consts, data, spec, found, sets, units, targeted
) -> list[dict[str, Any]]:
  number = len(spec.conditions.names)
  latent = [f'factor_{i}' for i in range(found.mean.shape[1])]
  layers = [
    ('gene_set', units, sets),
    ('mean', latent, activation.over_groups(found, found.mean, number)),
    (
      'factor',
      latent,
      activation.over_groups(
        found, activation.shifted(net, params, consts, data, found), number
      ),
    ),
  ]
  if config.model.parity:
    original = activation.original_heads(params, found.gene_set)
    if original is not None:
      layers.append(
        (
          'mean_without_activation',
          latent,
          activation.over_groups(found, original, number),
        )
      )
  known = [
    c
    for c, tokens in enumerate(spec.conditions.tokens)
    if all(spec.trained[spec.perturbations.index(t)] for t in tokens)
  ]
  added = np.full((number, len(latent)), np.nan)
  added[known] = activation.predicted_changes(net, params, consts, data, known)
  layers.append(('shift', latent, activation.Changes(added, added)))
  return [
    {
      'layer': layer,
      'condition': spec.conditions.names[c],
      'unit': unit,
      'score': float(changes.score[c, i]),
      'change': float(changes.change[c, i]),
      'differential': float(abs(changes.change[c, i])),
      'targeted': _is_targeted(spec, c, i, targeted)
      if layer == 'gene_set'
      else '',
    }
    for layer, names, changes in layers
    for c, tokens in enumerate(spec.conditions.tokens)
    if np.isfinite(changes.score[c]).all()
    and (layer != 'gene_set' or len(tokens) < 2)
    for i, unit in enumerate(names)
  ]


def _is_targeted(spec, c, unit, targeted) -> int:
  return int(
    any(
      targeted[spec.perturbations.index(t), unit]
      for t in spec.conditions.tokens[c]
    )
  )


def _means(rows, num_units) -> dict[str, float]:
  """Means over the perturbations whose gene is in some set, not in all."""
  judged = [row for row in rows if np.isfinite(row['dar'])]
  out: dict[str, float] = {
    'perturbations': len(rows),
    'perturbations with a targeted set': len(judged),
  }
  if not judged:
    return out
  for name in ('dar', 'dar_without_own'):
    values = np.asarray([row[name] for row in judged])
    out[f'{name}, median'] = float(np.median(values))
    out[f'{name}, share above 1'] = float((values > 1).mean())
  for top in activation.TOPS:
    for name in (f'recall_{top}', f'recall_{top}_without_own'):
      out[name] = float(np.mean([row[name] for row in judged]))
    out[f'recall_{top}, by chance'] = min(1.0, top / num_units)
  out['z_diff'] = float(np.mean([row['z_diff'] for row in judged]))
  return out


def _mean_losses(rows) -> dict[str, float]:
  out = {}
  keys = dict.fromkeys((r['pooling'], r['split'], r['fold']) for r in rows)
  for key in keys:
    chosen = [r for r in rows if (r['pooling'], r['split'], r['fold']) == key]
    for term in ('mmd', 'mmd_control', 'reconstruction', 'kl'):
      name = f'{term}, {key[1]} {key[2]}'
      if key[0] != 'condition':
        name = f'{term}, pooled as the original, {key[2]}'
      out[name] = float(np.mean([r[term] for r in chosen]))
  return out


# What a run says of itself.
_SAID = (
  'dar, median', 'dar_without_own, median', 'distinct factors', 'entropy, mean',
  'mmd, test combinations', 'mmd_control, test combinations',
)  # fmt: skip


def _lines(summary, num_members) -> list[str]:
  lines = []
  for quantity in _SAID:
    values = [r['value'] for r in summary if r['quantity'] == quantity]
    if values:
      lines.append(
        f'interpret: {quantity}: {np.mean(values):.4g} over {num_members} '
        'member(s)'
      )
  return lines
