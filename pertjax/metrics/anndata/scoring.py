"""`score`: predicted cells against observed ones, in anyone's convention."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd

from pertjax import names as name_lib
from pertjax.metrics import summary
from pertjax.metrics.anndata import aligning, choosing, inputs, rankings


class ScoreWarning(UserWarning):
  """Something about the inputs changes what the scores mean."""


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
    options: of the convention; for several conventions {name: options}. The
      option 'rankings', where it is not given, is taken from the observed uns.
    engine: of differential expression: 'auto', 'illico' or 'jax'; see
      `differential.engines.de`.
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
    scale: 'log1p', 'counts', or 'auto' to look. Where it is given, log values
      may be integers, and counts means of counts.
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
  chosen, settings, wanted = choosing.chosen(convention, options, metrics)
  if isinstance(bootstrap, str):
    bootstrap = summary.Bootstrap(over=bootstrap)
  if bootstrap.over not in summary.BOOTSTRAPS:
    raise ValueError(
      name_lib.unknown('bootstrap', bootstrap.over, summary.BOOTSTRAPS)
    )
  several = isinstance(predicted, Mapping)
  models = dict(predicted) if several else {'': predicted}
  if not models:
    raise ValueError('predicted: no model is given')
  keys = {
    'perturbation_key': perturbation_key,
    'covariate_keys': covariate_keys,
    'backed': backed,
  }
  real = aligning.open_side(observed, 'observed', layer=layer, **keys)

  def opened(given, backed=backed):
    if layer == predicted_layer and inputs.same(observed, given):
      return real._replace(name='predicted')
    side = {**keys, 'backed': backed, 'layer': predicted_layer}
    return aligning.open_side(given, 'predicted', **side)

  if len(models) > 1:
    for given in models.values():
      aligning.check_names(
        real, opened(given, True), control, genes=genes, conditions=conditions
      )
  tables, notes = [], []
  first = None
  for model, given in models.items():
    found = aligning.align(
      real,
      opened(given),
      like=first,
      control=control,
      engine=engine,
      genes=genes,
      conditions=conditions,
      targets=targets,
      scale=scale,
      normalise=normalise,
    )
    first = found.problem
    prefix = f'{model}: ' if several else ''
    tell = functools.partial(_tell, notes, prefix, say)
    rows = _lines(found, real, chosen, settings, wanted, bootstrap, tell)
    table = pd.DataFrame(rows, columns=list(summary.FIELDS))
    if several:
      table.insert(0, 'model', model)
    tables.append(table)
  table = pd.concat(tables, ignore_index=True)
  table.attrs['notes'] = notes
  return table


def _lines(found, real, chosen, settings, wanted, bootstrap, tell):
  """Scores one model in every convention and returns the lines."""
  problem = found.problem
  choosing.check_scale(chosen, problem.scale, real.name)
  settings, more, warned = rankings.with_uns(chosen, settings, problem, real)
  tell((*found.notes, *more), (*found.warnings, *warned))
  rows = []
  for one in chosen:
    tell([_control_note(one, problem)])
    rows += summary.lines(
      one,
      problem,
      wanted=wanted[one.name],
      options=settings[one.name],
      bootstrap=bootstrap,
      lost=found.lost,
    )
    tell(problem.said)
  return rows


def _tell(notes, prefix, say, lines, warned=()) -> None:
  """Adds lines to the notes, and says or warns of those that are new."""
  for line in lines:
    note = prefix + line
    if note in notes:
      continue
    notes.append(note)
    if say is not None:
      say(note)
    elif line in warned:
      # Of `score`'s caller.
      warnings.warn(note, ScoreWarning, stacklevel=4)


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
