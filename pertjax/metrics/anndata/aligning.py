"""Two sides made one problem: genes, conditions and scales that agree."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from pertjax import names as name_lib
from pertjax.metrics import problem as problem_lib
from pertjax.metrics import sides
from pertjax.metrics.anndata import inputs, values
from pertjax.metrics.differential import engines

_ALLOWED = ('same', 'shared')


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


def open_side(
  given: inputs.Given,
  side: str,
  *,
  perturbation_key: str,
  covariate_keys: Sequence[str],
  layer: str | None,
  backed: bool | None,
) -> inputs.Input:
  """Opens one side; see `inputs.open_side`."""
  if isinstance(covariate_keys, str):
    covariate_keys = (covariate_keys,)
  return inputs.open_side(
    given,
    side,
    perturbation_key=perturbation_key,
    covariate_keys=tuple(covariate_keys),
    layer=layer,
    backed=backed,
  )


def problem_of(
  observed: inputs.Given,
  predicted: inputs.Given,
  *,
  perturbation_key: str,
  control: str,
  covariate_keys: Sequence[str] = (),
  layer: str | None = None,
  predicted_layer: str | None = None,
  backed: bool | None = None,
  **options: Any,
) -> Aligned:
  """Opens, checks and aligns two sides.

  Args:
    observed: see `score`, and so are the others.
    predicted: of one model.
    perturbation_key: see `score`.
    control: see `score`.
    covariate_keys: see `score`.
    layer: see `score`.
    predicted_layer: see `score`.
    backed: see `score`.
    **options: of `align`.
  """
  keys = {
    'perturbation_key': perturbation_key,
    'covariate_keys': covariate_keys,
    'backed': backed,
  }
  real = open_side(observed, 'observed', layer=layer, **keys)
  if layer == predicted_layer and inputs.same(observed, predicted):
    model = real._replace(name='predicted')
  else:
    model = open_side(predicted, 'predicted', layer=predicted_layer, **keys)
  return align(real, model, control=control, **options)


def align(
  real: inputs.Input,
  model: inputs.Input,
  *,
  control: str,
  engine: str = 'auto',
  genes: str = 'same',
  conditions: str = 'same',
  targets: Mapping[str, Sequence[str]] | None = None,
  scale: str = 'auto',
  normalise: float | None = None,
  like: problem_lib.Problem | None = None,
  audited: bool = False,
) -> Aligned:
  """Checks two sides and makes a problem of them; see `score`.

  Args:
    real: the observed side.
    model: the predicted one.
    control: see `score`, and so are the others.
    engine: see `score`.
    genes: see `score`.
    conditions: see `score`.
    targets: see `score`.
    scale: see `score`.
    normalise: see `score`.
    like: a problem of the same observed side, whose means and tests are taken
      where it scores the same genes and conditions.
    audited: the predicted side is the observed one and will not be read.

  Raises:
    ValueError: where they do not fit.
  """
  allowed = (*problem_lib.SCALES, 'auto')
  if scale not in allowed:
    raise ValueError(name_lib.unknown('scale', scale, allowed))
  if normalise is not None and not 0 < normalise < np.inf:
    raise ValueError(f'normalise={normalise:g}; expected a number above 0')
  engines.choose_engine(engine, 'wilcoxon')
  notes, warned = [*real.notes, *model.notes], []
  if real.matrix is model.matrix and not audited:
    warned.append(
      'observed and predicted are the same cells: these are the scores of a '
      'perfect prediction'
    )
  kept, places, more, odd = _genes(real, model, genes)
  notes += more
  warned += odd
  real, lost, more = _conditions(real, model, control, conditions)
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
  made = _sides(problem, places)
  settled, more, odd = _settle_scale(
    made, real, model, _label_names(problem, control), scale
  )
  notes += more
  warned += odd
  if normalise is not None:
    if settled != 'counts':
      raise ValueError(
        f'normalise={normalise:g} needs counts; the values are {settled}'
      )
    prepare = values.log_normaliser(normalise)
    made = {
      side: dataclasses.replace(one, prepare=prepare)
      for side, one in made.items()
    }
    settled = 'log1p'
    notes.append(f'counts were taken to ln(1 + x) of {normalise:g} a cell')
  problem = dataclasses.replace(problem, scale=settled, **made)
  if like is not None and _same_truth(like, problem):
    problem = dataclasses.replace(
      like.with_sides(None, problem.predicted), targets=problem.targets
    )
  if audited:
    problem = dataclasses.replace(problem, predicted=problem.observed)
  values.check_finite(problem.observed, real, kept)
  if not audited:
    values.check_finite(problem.predicted, model, kept)
    notes += _controls(problem, model)
  warned += _small(problem)
  return Aligned(problem, lost, (*warned, *notes), tuple(warned))


def check_names(
  real: inputs.Input,
  model: inputs.Input,
  control: str,
  *,
  genes: str,
  conditions: str,
) -> None:
  """Raises where genes or conditions differ; reads no values.

  Args:
    real: the observed side.
    model: the predicted one.
    control: see `score`.
    genes: see `score`.
    conditions: see `score`.
  """
  _genes(real, model, genes)
  _conditions(real, model, control, conditions)


def _sides(
  problem: problem_lib.Problem, places: Sequence[np.ndarray]
) -> dict[str, sides.Side]:
  """Returns both sides with their columns chosen."""
  made = {}
  for side, at in zip(('observed', 'predicted'), places):
    one = getattr(problem, side)
    same = len(at) == one.num_genes and (at == np.arange(len(at))).all()
    made[side] = dataclasses.replace(one, columns=None if same else at)
  return made


def _label_names(problem: problem_lib.Problem, control: str) -> list[str]:
  names = [
    '|'.join(filter(None, (problem.groups[q], condition)))
    for q, condition in zip(problem.group, problem.conditions)
  ]
  return names + ['|'.join(filter(None, (g, control))) for g in problem.groups]


def _same_truth(a: problem_lib.Problem, b: problem_lib.Problem) -> bool:
  """Says whether the observed sides of two problems are the same."""
  return (
    a.observed.matrix is b.observed.matrix
    and (a.genes, a.conditions, a.groups, a.scale)
    == (b.genes, b.conditions, b.groups, b.scale)
    and np.array_equal(a.group, b.group)
    and np.array_equal(a.observed.labels, b.observed.labels)
  )


def _genes(
  real: inputs.Input, model: inputs.Input, allowed: str
) -> tuple[list[str], list[np.ndarray], list[str], list[str]]:
  """Returns the genes to score, their columns, notes and warnings."""
  if allowed not in _ALLOWED:
    raise ValueError(name_lib.unknown('genes', allowed, _ALLOWED))
  known, measured = set(model.genes), set(real.genes)
  lacking = [g for g in real.genes if g not in known]
  extra = [g for g in model.genes if g not in measured]
  notes, warned = [], []
  if lacking or extra:
    text = (
      f'genes differ: {model.name} lacks {len(lacking):,} of '
      f'{len(real.genes):,} observed genes ({name_lib.listing(lacking)}) and '
      f'has {len(extra):,} that were not observed ({name_lib.listing(extra)})'
    )
    if allowed == 'same':
      raise ValueError(f"{text}; genes='shared' scores those that both have")
    warned.append(text)
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
  return kept, places, notes, warned


def _conditions(
  real: inputs.Input, model: inputs.Input, control: str, allowed: str
) -> tuple[inputs.Input, dict[tuple[str, str], str], list[str]]:
  """Returns the observed side that is scored, what is lost, and notes.

  What is lost is {(group, condition): reason}.
  """
  if allowed not in _ALLOWED:
    raise ValueError(name_lib.unknown('conditions', allowed, _ALLOWED))
  seen = problem_lib.pairs_of(real.conditions, real.groups)
  if not any(condition == control for _, condition in seen):
    raise ValueError(
      f'{real.name}: no cell of the control {control!r}; '
      f'{name_lib.suggestion(control, sorted({c for _, c in seen}))}'
    )
  made = problem_lib.pairs_of(model.conditions, model.groups)
  made = {p for p in made if p[1] != control}
  lacking = sorted(p for p in seen - made if p[1] != control)
  extra = sorted(made - seen)
  notes = []
  if lacking or extra:
    text = (
      f'conditions differ: {model.name} lacks {len(lacking):,} that were '
      f'observed ({_shown(lacking)}) and has {len(extra):,} that were not '
      f'({_shown(extra)})'
    )
    if allowed == 'same':
      raise ValueError(
        f"{text}; conditions='shared' scores those that both have"
      )
    notes.append(text)
  lost = dict.fromkeys(lacking, 'not predicted')
  # Groups with something to score, and nothing to compare it with.
  bare = sorted({g for g, _ in made & seen if (g, control) not in seen})
  if bare:
    gone = sorted(p for p in made & seen if p[0] in bare)
    text = (
      f'{real.name}: no cell of the control {control!r} in the group(s) '
      f'{name_lib.listing(bare)}, which have {len(gone):,} condition(s)'
    )
    if allowed == 'same':
      raise ValueError(f"{text}; conditions='shared' leaves them out")
    notes.append(f'{text}: they are left out')
    lost |= dict.fromkeys(gone, 'without observed controls in their group')
    left_out = [at for at, g in enumerate(real.groups.distinct) if g in bare]
    code = np.where(np.isin(real.groups.code, left_out), -1, real.groups.code)
    real = real._replace(groups=real.groups._replace(code=code))
  return real, lost, notes


def _shown(pairs: Sequence[tuple[str, str]]) -> str:
  listed = name_lib.listing('|'.join(filter(None, p)) for p in pairs)
  return listed or 'none'


def _settle_scale(
  made: Mapping[str, sides.Side],
  real: inputs.Input,
  model: inputs.Input,
  labels: Sequence[str],
  asked: str,
) -> tuple[str, list[str], list[str]]:
  """Returns the scale of both sides, which must agree, notes and warnings."""
  found, warned = {}, []
  for side, given in (('observed', real), ('predicted', model)):
    found[side], odd = values.scale_of(made[side], given, labels, asked)
    warned += odd
  known = {scale for scale in found.values() if scale}
  if len(known) > 1:
    raise ValueError(
      f'mixed scales: {real.name} holds {found["observed"]}, {model.name} '
      f'{found["predicted"]} values; bring both to one scale first'
    )
  settled = next(iter(known), 'log1p')
  notes = [f'both sides hold {settled} values']
  for side, given in (('observed', real), ('predicted', model)):
    if not found[side]:
      notes.append(
        f'{given.name}: the same value everywhere in the cells that were '
        f'looked at; taken as {settled}'
      )
  return settled, notes, warned


def _controls(problem: problem_lib.Problem, model: inputs.Input) -> list[str]:
  """Says what the predicted controls are."""
  own = problem.has_predicted_control
  if not own.any():
    return [f'{model.name}: there are no control cells']
  number = problem.num_conditions
  means = [
    getattr(problem, side).mean[number:][own]
    for side in ('observed', 'predicted')
  ]
  cells = int(problem.predicted.sizes[number:].sum())
  text = f'{model.name}: {cells:,} control cells'
  if not own.all():
    text += f' in {int(own.sum())} of {len(own)} groups'
  largest = float(np.abs(means[0] - means[1]).max())
  if largest <= 1e-6 * max(1.0, float(np.abs(means[0]).max())):
    return [f'{text} with the means of the observed ones']
  return [
    f'{text}, which are not the observed ones: their means differ by up to '
    f'{largest:.3g}'
  ]


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
      'conditions say nothing there'
    )
  return notes
