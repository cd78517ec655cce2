"""`score`: predicted cells against observed ones, in anyone's convention."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from pertjax import names as name_lib
from pertjax.metrics import problem as problem_lib
from pertjax.metrics import summary
from pertjax.metrics.anndata import inputs
from pertjax.metrics.conventions import base

_ALLOWED = ('same', 'shared')


class ScoreWarning(UserWarning):
  """Something about the inputs changes what the scores mean."""


class Aligned(NamedTuple):
  """A problem made of two AnnData.

  Attributes:
    problem: what is scored.
    lost: {(group, condition): reason} what is not.
    notes: what a reader of the scores should know.
    warnings: the notes that change what the scores mean.
  """

  problem: problem_lib.Problem
  lost: dict[tuple[str, str], str]
  notes: tuple[str, ...]
  warnings: tuple[str, ...]


def score(
  observed: inputs.Given,
  predicted: inputs.Given | Mapping[str, inputs.Given],
  *,
  perturbation_key: str,
  control: str,
  covariate_keys: Sequence[str] = (),
  convention: str | Sequence[str] = 'cell-eval',
  metrics: Sequence[str] | None = None,
  options: Mapping[str, Any] | None = None,
  engine: str = 'auto',
  bootstrap: summary.Bootstrap | str = 'conditions',
  genes: str = 'same',
  conditions: str = 'same',
  targets: Mapping[str, Sequence[str]] | None = None,
  layer: str | None = None,
  predicted_layer: str | None = None,
  scale: str = 'auto',
  normalise: float | None = None,
  backed: bool | None = None,
  say: Callable[[str], None] | None = None,
) -> pd.DataFrame:
  """Scores predictions as a published tool would, with intervals.

  Args:
    observed: the real cells, controls among them: an AnnData, in memory or
      backed, or the path of an h5ad file; dense or sparse.
    predicted: the predicted cells of the same conditions, or {model: cells}
      for several, which adds a column 'model'.
    perturbation_key: column of obs, on both sides, with the condition's name.
    control: the name of the control in that column.
    covariate_keys: columns of obs, on both sides, such as the cell type;
      conditions compete and meet their controls within one group.
    convention: one or several of `base.conventions()`.
    metrics: columns of the convention; None for all.
    options: of the convention; for several conventions {name: options}.
    engine: of differential expression, see `differential.engines.de`.
    bootstrap: 'conditions', 'cells', 'none', or a `summary.Bootstrap`.
    genes: 'same' raises where the sides name different genes; 'shared' scores
      those that both have.
    conditions: 'same' raises where the prediction lacks a condition or has one
      that was not observed; 'shared' scores those that both have and counts
      the others that were observed as dropped.
    targets: {condition: genes it perturbs}; by default the parts of its name,
      cut at '+', that are genes.
    layer: of the observed side, in place of X.
    predicted_layer: of the predicted side.
    scale: 'log1p', 'counts', or 'auto' to look.
    normalise: takes counts on both sides to ln(1 + x) of so many counts a
      cell; None leaves them as they are.
    backed: whether files stay on disk; None for those beyond 2 GB.
    say: takes the notes as lines; None makes warnings of those that change
      what the scores mean. All are in `attrs['notes']`.

  Returns:
    A tidy table with the columns of `summary.FIELDS`.

  Raises:
    FileNotFoundError: where there is no such file.
    ValueError: for anything that does not fit, with the file, the key, what
      was found and what is allowed, before any long work.
  """
  names = (convention,) if isinstance(convention, str) else tuple(convention)
  chosen = [base.get(name) for name in names]
  settings = _options(chosen, options)
  wanted = _wanted(chosen, metrics)
  if isinstance(bootstrap, str):
    bootstrap = summary.Bootstrap(over=bootstrap)
  several = isinstance(predicted, Mapping)
  models = dict(predicted) if several else {'': predicted}
  tables, notes = [], []
  first = None
  for model, given in models.items():
    found = problem_of(
      observed,
      given,
      perturbation_key=perturbation_key,
      control=control,
      covariate_keys=covariate_keys,
      engine=engine,
      genes=genes,
      conditions=conditions,
      targets=targets,
      layer=layer,
      predicted_layer=predicted_layer,
      scale=scale,
      normalise=normalise,
      backed=backed,
    )
    problem = found.problem
    if first is not None and problem.conditions == first.conditions:
      # The same truth: its means and tests are there already.
      problem = dataclasses.replace(
        first.with_sides(None, problem.predicted), targets=problem.targets
      )
    first = first or problem
    prefix = f'{model}: ' if several else ''
    _say([prefix + n for n in found.notes], found.warnings, say)
    notes += [prefix + n for n in found.notes]
    for one in chosen:
      line = _control_note(one, problem)
      _say([prefix + line], (), say)
      notes.append(prefix + line)
      rows = summary.lines(
        one,
        problem,
        wanted=wanted[one.name],
        options=settings[one.name],
        bootstrap=bootstrap,
        lost=found.lost,
      )
      table = pd.DataFrame(rows, columns=list(summary.FIELDS))
      if several:
        table.insert(0, 'model', model)
      tables.append(table)
  table = pd.concat(tables, ignore_index=True)
  table.attrs['notes'] = list(dict.fromkeys(notes))
  return table


def _options(chosen, options) -> dict[str, Mapping[str, Any]]:
  options = dict(options or {})
  if len(chosen) == 1 and not set(options) <= {chosen[0].name}:
    options = {chosen[0].name: options}
  known = {one.name for one in chosen}
  unknown = set(options) - known
  if unknown:
    raise ValueError(
      name_lib.unknown('options: convention', sorted(unknown)[0], known)
    )
  settled = {one.name: options.get(one.name, {}) for one in chosen}
  for one in chosen:
    base.settle(one, settled[one.name])
  return settled


def _wanted(chosen, metrics) -> dict[str, list[str] | None]:
  """Returns the columns asked for that each convention has."""
  if metrics is None:
    return {one.name: None for one in chosen}
  if isinstance(metrics, str):
    raise ValueError(f'metrics: {metrics!r}; expected a list of names')
  found: dict[str, list[str] | None] = {one.name: [] for one in chosen}
  for name in metrics:
    having = []
    for one in chosen:
      names = {n for c in one.columns for n in (c.name, *c.aliases)}
      if name in names:
        having.append(one.name)
    if not having:
      every = [c.name for one in chosen for c in one.columns]
      raise ValueError(name_lib.unknown('metrics', name, every))
    for one in having:
      found[one].append(name)
  return found


def _say(notes, warned, say) -> None:
  if say is not None:
    for note in notes:
      say(note)
  else:
    for note in warned:
      warnings.warn(note, ScoreWarning, stacklevel=3)


def _control_note(convention, problem) -> str:
  """Says which controls predicted changes are taken from."""
  if convention.control == 'none':
    return f'{convention.name}: no control is read'
  if convention.control == 'real':
    return f'{convention.name}: predicted changes start from observed controls'
  own = problem.has_predicted_control
  text = 'predicted changes start from predicted controls'
  if not own.all():
    text += (
      f' in {int(own.sum())} of {len(own)} group(s), from observed ones in the '
      'others, which have none'
    )
  return f'{convention.name}: {text}'


def problem_of(
  observed: inputs.Given,
  predicted: inputs.Given,
  *,
  perturbation_key: str,
  control: str,
  covariate_keys: Sequence[str] = (),
  engine: str = 'auto',
  genes: str = 'same',
  conditions: str = 'same',
  targets: Mapping[str, Sequence[str]] | None = None,
  layer: str | None = None,
  predicted_layer: str | None = None,
  scale: str = 'auto',
  normalise: float | None = None,
  backed: bool | None = None,
) -> Aligned:
  """Opens, checks and aligns two sides; see `score` for the arguments."""
  for key, value in (('genes', genes), ('conditions', conditions)):
    if value not in _ALLOWED:
      raise ValueError(name_lib.unknown(key, value, _ALLOWED))
  if scale not in (*problem_lib.SCALES, 'auto'):
    raise ValueError(
      name_lib.unknown('scale', scale, (*problem_lib.SCALES, 'auto'))
    )
  if isinstance(covariate_keys, str):
    covariate_keys = (covariate_keys,)
  keys = {
    'perturbation_key': perturbation_key,
    'covariate_keys': tuple(covariate_keys),
    'backed': backed,
    'layer': layer,
  }
  real = inputs.open_side(observed, 'observed', **keys)
  keys['layer'] = predicted_layer
  model = inputs.open_side(predicted, 'predicted', **keys)
  kept, places, warned = _genes(real, model, genes)
  lost, more = _conditions(real, model, control, conditions)
  warned += more
  problem = problem_lib.from_arrays(
    real.matrix,
    real.conditions,
    model.matrix,
    model.conditions,
    control=control,
    genes=kept,
    observed_groups=real.groups,
    predicted_groups=model.groups,
    targets=targets,
    engine=engine,
  )
  made = {}
  for side, given, at in (
    ('observed', real, places[0]),
    ('predicted', model, places[1]),
  ):
    same = len(at) == len(given.genes) and (at == np.arange(len(at))).all()
    one = getattr(problem, side)
    made[side] = dataclasses.replace(one, columns=None if same else at)
  labels = [*problem.conditions, *(f'{control} {g}' for g in problem.groups)]
  scales = {}
  for side, given in (('observed', real), ('predicted', model)):
    inputs.check_finite(made[side], given, kept)
    scales[side] = inputs.scale_of(made[side], given, labels)
  settled, notes = _settle_scale(scales, scale, real, model)
  if normalise is not None:
    if settled != 'counts':
      raise ValueError(
        f'normalise={normalise:g} needs counts; the values are {settled}'
      )
    prepare = inputs.log_normaliser(normalise)
    made = {
      side: dataclasses.replace(one, prepare=prepare)
      for side, one in made.items()
    }
    settled = 'log1p'
    notes.append(f'counts were taken to ln(1 + x) of {normalise:g} a cell')
  problem = dataclasses.replace(problem, scale=settled, **made)
  warned += _small(problem)
  return Aligned(problem, lost, (*warned, *notes), tuple(warned))


def _genes(
  real: inputs.Input, model: inputs.Input, allowed: str
) -> tuple[list[str], list[np.ndarray], list[str]]:
  """Returns the genes to score, their columns on both sides, and notes."""
  lacking = [g for g in real.genes if g not in set(model.genes)]
  extra = [g for g in model.genes if g not in set(real.genes)]
  notes = []
  if lacking or extra:
    text = (
      f'genes differ: {model.name} lacks {len(lacking):,} of '
      f'{len(real.genes):,} observed genes ({name_lib.listing(lacking)}) and '
      f'has {len(extra):,} that were not observed ({name_lib.listing(extra)})'
    )
    if allowed == 'same':
      raise ValueError(f"{text}; genes='shared' scores those that both have")
    notes.append(text)
  known = set(model.genes)
  kept = [g for g in real.genes if g in known]
  if not kept:
    raise ValueError(
      f'no gene is on both sides; observed: {name_lib.listing(real.genes)}; '
      f'predicted: {name_lib.listing(model.genes)}'
    )
  places = []
  for genes in (real.genes, model.genes):
    at = {gene: index for index, gene in enumerate(genes)}
    places.append(np.asarray([at[g] for g in kept], np.int64))
  if (np.diff(places[1]) < 0).any():
    notes.append(f'{model.name}: genes were reordered by name')
  return kept, places, notes


def _conditions(
  real: inputs.Input, model: inputs.Input, control: str, allowed: str
) -> tuple[dict[tuple[str, str], str], list[str]]:
  """Returns {(group, condition): reason} that are lost, and notes."""
  seen = set(zip(real.groups, real.conditions))
  if not any(condition == control for _, condition in seen):
    raise ValueError(
      f'{real.name}: no cell of the control {control!r}; '
      f'{name_lib.suggestion(control, {c for _, c in seen})}'
    )
  made = {p for p in zip(model.groups, model.conditions) if p[1] != control}
  lacking = sorted(p for p in seen - made if p[1] != control)
  extra = sorted(made - seen)
  notes = []
  if lacking or extra:

    def shown(pairs):
      return name_lib.listing('|'.join(filter(None, p)) for p in pairs)

    text = (
      f'conditions differ: {model.name} lacks {len(lacking):,} that were '
      f'observed ({shown(lacking)}) and has {len(extra):,} that were not '
      f'({shown(extra)})'
    )
    if allowed == 'same':
      raise ValueError(
        f"{text}; conditions='shared' scores those that both have"
      )
    notes.append(text)
  return dict.fromkeys(lacking, 'not predicted'), notes


def _settle_scale(
  scales: Mapping[str, str], given: str, real: inputs.Input, model: inputs.Input
) -> tuple[str, list[str]]:
  """Returns the scale of both sides; they must agree."""
  if scales['observed'] != scales['predicted']:
    raise ValueError(
      f'mixed scales: {real.name} holds {scales["observed"]}, {model.name} '
      f'{scales["predicted"]} values; bring both to one scale first'
    )
  found = scales['observed']
  if given not in ('auto', found):
    raise ValueError(
      f'scale={given!r}, but the values look like {found} on both sides'
    )
  return found, [f'both sides hold {found} values']


def _small(problem: problem_lib.Problem) -> list[str]:
  """Notes what is too small for some of the metrics."""
  notes = []
  for side in ('observed', 'predicted'):
    sizes = getattr(problem, side).sizes[: problem.num_conditions]
    few = [c for c, n in zip(problem.conditions, sizes) if n < 2]
    if few:
      notes.append(
        f'{len(few)} condition(s) have fewer than 2 {side} cells, so metrics '
        f'of single cells have no value there: {name_lib.listing(few)}'
      )
  single = np.bincount(problem.group) == 1
  if single.any():
    notes.append(
      f'{int(single.sum())} group(s) have one condition only: ranks among '
      'conditions have no value there'
    )
  return notes
