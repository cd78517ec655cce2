"""`translate`: predictions under every convention, side by side."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

from pertjax.metrics import problem as problem_lib
from pertjax.metrics.anndata import aligning, inputs
from pertjax.metrics.translation import conflicts as conflict_lib
from pertjax.metrics.translation import core
from pertjax.metrics.translation import text as text_lib


class _Pair(NamedTuple):
  """A prediction on both scales.

  Attributes:
    problem: of log values, or of counts that are not to be normalised.
    counts: the same cells as counts; None where there are none.
  """

  problem: problem_lib.Problem
  counts: problem_lib.Problem | None


def translate(
  observed: inputs.Given,
  predicted: inputs.Given | Mapping[str, inputs.Given],
  *,
  perturbation_key: str,
  control: str,
  covariate_keys: Sequence[str] = (),
  families: Sequence[str] | None = None,
  conventions: Sequence[str] | None = None,
  options: Mapping[str, Mapping[str, Any]] | None = None,
  published: bool = False,
  seed: int = 0,
  engine: str = 'auto',
  genes: str = 'same',
  conditions: str = 'same',
  targets: Mapping[str, Sequence[str]] | None = None,
  layer: str | None = None,
  predicted_layer: str | None = None,
  scale: str = 'auto',
  normalise: float | None = 1e4,
  backed: bool | None = None,
  say: Callable[[str], None] | None = None,
) -> pd.DataFrame:
  """Scores predictions in every convention and says why numbers differ.

  Columns that claim to measure the same thing stand together; see
  `metrics.translation.core`. Rankings of genes in a file's uns are not read:
  every convention makes them of the cells, and numbers can be compared.

  Args:
    observed: see `score`, and so are the arguments not named here.
    predicted: see `score`.
    perturbation_key: see `score`.
    control: see `score`.
    covariate_keys: see `score`.
    families: keys of `core.FAMILIES`, or 'all'; None for the cheap ones.
    conventions: names; None for all.
    options: {convention: options}.
    published: ties and the like as the tools have them; see
      `core.translate`.
    seed: of what is random.
    engine: see `score`.
    genes: see `score`.
    conditions: see `score`.
    targets: see `score`.
    layer: see `score`.
    predicted_layer: see `score`.
    scale: see `score`.
    normalise: where the values are counts, they go to the conventions that take
      counts as they are, and to the others as ln(1 + x) of so many counts a
      cell; None leaves the others out.
    backed: see `score`.
    say: takes notes, and lines on what is being scored.

  Returns:
    A table with the columns of `core.FIELDS`, and 'model' before them
    for several models. `attrs['notes']` has what a reader should know,
    `attrs['text']` {model: the table in words}, `attrs['conflicts']` what
    models are ordered differently.

  Raises:
    FileNotFoundError: where there is no such file.
    ValueError: for anything that does not fit, before any long work.
  """
  core.check(families)
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
  notes: list[str] = []
  tables, lines, first = [], {}, None
  for model, given in models.items():
    made = aligning.open_side(given, 'predicted', layer=predicted_layer, **keys)
    tell = functools.partial(_tell, notes, f'{model}: ' if several else '', say)
    first = _pair(
      real,
      made,
      first,
      normalise,
      tell,
      control=control,
      engine=engine,
      genes=genes,
      conditions=conditions,
      targets=targets,
      scale=scale,
    )
    lines[model] = core.translate(
      first.problem,
      counts=first.counts,
      families=families,
      conventions=conventions,
      options=options,
      published=published,
      seed=seed,
      say=tell,
    )
    table = pd.DataFrame(
      [line.row() for line in lines[model]], columns=list(core.FIELDS)
    )
    if several:
      table.insert(0, 'model', model)
    tables.append(table)
  out = pd.concat(tables, ignore_index=True)
  out.attrs['notes'] = notes
  out.attrs['text'] = {
    model: text_lib.text(found) for model, found in lines.items()
  }
  out.attrs['conflicts'] = [
    conflict_lib.text(c) for c in conflict_lib.conflicts(lines)
  ]
  return out


def _tell(notes: list[str], prefix: str, say, line: str) -> None:
  note = prefix + line
  if note not in notes:
    notes.append(note)
    if say is not None:
      say(note)


def _pair(real, made, before, normalise, tell, **keys) -> _Pair:
  """Aligns a prediction, on both scales where there are counts."""
  like = None if before is None else before.counts or before.problem
  found = aligning.align(real, made, like=like, **keys)
  for note in found.notes:
    tell(note)
  if found.problem.scale != 'counts' or normalise is None:
    counts = found.problem if found.problem.scale == 'counts' else None
    return _Pair(found.problem, counts)
  logs = aligning.align(
    real,
    made,
    like=None if before is None else before.problem,
    normalise=normalise,
    **keys,
  )
  tell(
    f'conventions of log values are given ln(1 + x) of {normalise:g} counts a '
    'cell'
  )
  return _Pair(logs.problem, found.problem)
