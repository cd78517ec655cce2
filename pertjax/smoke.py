"""The size of a run that only shows that a config works on its data."""

from __future__ import annotations


def shrink(config) -> None:
  """Makes a config tiny, in place: one seed, a few steps, every gene as it is.

  A batch that is small already stays.
  """
  config.data.num_hvg = 0
  config.data.degs = 0
  config.num_seeds = 1
  config.train.steps = 40
  config.train.chunk = 20
  config.train.batch_size = min(64, config.train.batch_size)
  config.eval.cells = 64
  config.eval.bootstrap = 200
  config.eval.certificate = 2
