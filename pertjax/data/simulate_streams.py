"""The simulator's random streams, one for each part of a dataset."""

from __future__ import annotations

import numpy as np

# Numbered for ever: a changed number changes every dataset.
(
  GENES, TYPES, GRAPH, LOADINGS, TARGETS, STRENGTH, NULL, HILL, PAIRS,
  ALLOCATION, BATCHES, GUIDES, LIBRARY, COUNTS,
) = range(14)  # fmt: skip


def make_rng(seed: int, stream: int, *index: int) -> np.random.Generator:
  """Returns the generator of one stream of one dataset."""
  sequence = np.random.SeedSequence(seed, spawn_key=(stream, *index))
  return np.random.Generator(np.random.PCG64(sequence))
