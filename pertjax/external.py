"""Score another tool's predictions, from an h5ad, by the same rule."""

from __future__ import annotations

import pathlib
from collections.abc import Callable

import numpy as np

from pertjax import data as data_lib
from pertjax import heldout, targets, types
from pertjax.data import predictions


def predicted(
  config,
  spec: types.DataSpec,
  truth: targets.Targets,
  *,
  say: Callable[[str], None],
) -> heldout.Predicted:
  """Reads the file that config.eval.predictions names.

  The file must use the naming convention of the data. Values must be on the
  scale of the preprocessed data. Its control cells, where it has them, are its
  own reference; otherwise the real controls are.

  Raises:
    ValueError: if genes are missing, or no held-out condition is in the file.
  """
  path = pathlib.Path(config.eval.predictions)
  means = predictions.read_means(
    path, spec, data_lib.convention_of_config(config.data)
  )
  for note in means.notes:
    say(f'note: {note}')
  num_pairs = len(truth.condition)
  found_means = np.full((num_pairs, spec.num_genes), np.nan, np.float32)
  for p, (c, g) in enumerate(zip(truth.condition, truth.group)):
    key = (spec.conditions.names[c], spec.groups[g])
    if key in means.pairs:
      found_means[p] = means.pairs[key]
  found = int((~np.isnan(found_means[:, 0])).sum())
  if not found:
    shown = ', '.join(f'{c}|{"|".join(g)}' for c, g in list(means.pairs)[:5])
    raise ValueError(
      f'{path} has none of the {num_pairs} held-out pairs of the '
      f'{config.eval.split} split; it has {shown}'
    )
  if found < num_pairs:
    say(f'{path.name} lacks {num_pairs - found} of {num_pairs} held-out pairs')
  control = truth.control[::-1].copy()
  own = [means.pairs.get((types.CONTROL, g)) for g in spec.groups]
  for g, mean in enumerate(own):
    if mean is not None:
      control[:, g] = mean
  say(
    f'reference of the predicted effects: own control cells in '
    f'{sum(m is not None for m in own)} of {len(own)} group(s), real controls '
    'in the others; a tool that starts from control cells should put them '
    'into the file, or their noise counts as its effect'
  )
  versions = truth.observed.shape[0]
  return heldout.Predicted(
    config.eval.predictions_name or path.stem,
    (-1,),
    np.broadcast_to(found_means, (1, versions, *found_means.shape)),
    control,
  )
