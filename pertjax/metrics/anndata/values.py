"""What values of a side are: finite, and on which scale."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy import sparse

from pertjax.metrics import problem as problem_lib
from pertjax.metrics import sides
from pertjax.metrics.anndata import inputs

# Cells of each label whose values say what scale they are on, and labels whose
# cells are looked at together.
_SAMPLED = 3
_LABELS = 256
_MAX_LOG = 20.0  # ln(1 + x) of half a billion molecules of a gene in a cell.


def check_finite(
  side: sides.Side, given: inputs.Input, genes: Sequence[str]
) -> None:
  """Raises for values that are NaN or infinite, with their cell and gene.

  The means tell whether there is any, in a pass that is needed anyway.
  """
  with np.errstate(invalid='ignore'):
    bad = ~np.isfinite(side.mean) & (side.sizes > 0)[:, None]
  if not bad.any():
    return
  label = int(np.flatnonzero(bad.any(1))[0])
  gene = int(np.flatnonzero(bad[label])[0])
  # As it is stored, not as it is prepared.
  block, _ = dataclasses.replace(side, prepare=None).cells([label])
  column = sides.dense(block[:, [gene]])[:, 0]
  odd = ~np.isfinite(column)
  if not odd.any():
    odd = column < 0  # That the logarithm made NaN.
  if not odd.any():
    raise ValueError(
      f'{given.name}: the sum of gene {genes[gene]!r} is too large for float64'
    )
  at = int(np.flatnonzero(odd)[0])
  cell = given.cells[side.members(label)[at]]
  raise ValueError(
    f'{given.name}: {int(bad.sum()):,} means of conditions are not finite; the '
    f'first value is {column[at]:g} in cell {str(cell)!r}, gene '
    f'{genes[gene]!r}; every value must be finite'
  )


def scale_of(
  side: sides.Side,
  given: inputs.Input,
  names: Sequence[str],
  asked: str = 'auto',
) -> tuple[str, list[str]]:
  """Looks at a few cells of every label for the scale of the values.

  Integers are counts, other values below 20 are ln(1 + x). A label with
  one value everywhere, such as a constant prediction, may be either.

  Args:
    side: the cells, as they are stored.
    given: where they are from.
    names: of the labels.
    asked: 'counts' or 'log1p' where the caller says what they are, which is
      checked; counts need not be integers then, log values may be.

  Returns:
    (scale, warnings): 'counts', 'log1p', or '' where it cannot be told.

  Raises:
    ValueError: when labels disagree, or the values are neither.
  """
  found: dict[str, str] = {}
  negative = 0.0
  whole_type = np.dtype(side.matrix.dtype).kind in 'biu'
  for start in range(0, side.num_labels, _LABELS):
    chosen = range(start, min(start + _LABELS, side.num_labels))
    for label, values in zip(chosen, _samples(side, chosen)):
      values = values[np.isfinite(values) & (values != 0)]
      if not len(values):
        continue
      kind = _kind(values, whole_type)
      largest = values.max()
      negative = min(negative, values.min())
      wrong = ''
      if asked == 'log1p' and largest >= _MAX_LOG:
        wrong = f"scale='log1p', but condition {names[label]!r} has values up "
        wrong += f'to {largest:g}; expected below {_MAX_LOG:g}'
      elif asked == 'counts' and values.min() < 0:
        wrong = f"scale='counts', but condition {names[label]!r} has values "
        wrong += f'down to {values.min():g}; expected 0 and above'
      elif asked == 'auto' and kind == 'neither':
        wrong = (
          f'condition {names[label]!r} has values up to {largest:g} that are '
          'not integers: neither counts nor log1p values; expected ln(1 + x) '
          f"(below {_MAX_LOG:g}) or counts; scale='counts' takes means of "
          'counts'
        )
      if wrong:
        raise ValueError(f'{given.name}: {wrong}')
      found.setdefault(kind, names[label])
  known = {k: v for k, v in found.items() if k in problem_lib.SCALES}
  warned = []
  if asked == 'auto' and len(known) > 1:
    raise ValueError(
      f'{given.name}: mixed scales: condition {known["counts"]!r} holds counts '
      f'(integers), condition {known["log1p"]!r} log1p values'
    )
  if asked != 'auto' and set(found) - {asked, ''}:
    other = found[min(set(found) - {asked, ''})]
    warned.append(
      f'{given.name}: taken as {asked}, as scale says; condition {other!r} '
      'does not look like it'
    )
  if negative < 0:
    warned.append(
      f'{given.name}: there are values below 0 (down to {negative:g}), which '
      'neither counts nor ln(1 + x) have'
    )
  if asked != 'auto':
    return asked, warned
  return next(iter(known), ''), warned


def _samples(side: sides.Side, labels: Sequence[int]) -> list[np.ndarray]:
  """Returns the values of a few cells of each label, float64."""
  rows = [side.members(label)[:_SAMPLED] for label in labels]
  at = np.repeat(np.arange(len(rows)), [len(r) for r in rows])
  one = side.relabelled(at, len(rows), cells=np.concatenate(rows))
  block, position = one.cells(range(len(rows)))
  ends = np.searchsorted(position, np.arange(len(rows) + 1))
  if hasattr(block, 'indptr'):
    ends, values = block.indptr[ends], block.data
  else:
    values = np.asarray(block)
  return [
    values[a:b].astype(np.float64).reshape(-1) for a, b in zip(ends, ends[1:])
  ]


def _kind(values: np.ndarray, whole_type: bool) -> str:
  """Returns the scale of values other than 0; '' where they do not tell."""
  if whole_type:
    return 'counts'
  whole = bool((values == np.floor(values)).all())
  if values.min() == values.max() and values[0] < _MAX_LOG:
    return ''
  if whole and values.min() > 0:
    return 'counts'
  return 'log1p' if values.max() < _MAX_LOG else 'neither'


def log_normaliser(target: float) -> Callable[[Any], Any]:
  """Returns a function of blocks of counts: ln(1 + target x / sum x)."""

  def prepare(block: Any) -> Any:
    block = block.astype(np.float64)  # Sums of narrow integers overflow.
    whole = np.asarray(block.sum(1)).reshape(-1)
    factor = target / np.where(whole > 0, whole, 1)
    if hasattr(block, 'indptr'):
      scaled = block.data * np.repeat(factor, np.diff(block.indptr))
      return sparse.csr_matrix(
        (np.log1p(scaled), block.indices, block.indptr), shape=block.shape
      )
    return np.log1p(block * factor[:, None])

  return prepare
