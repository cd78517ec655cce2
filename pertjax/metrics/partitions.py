"""Agreement of two partitions of the same members into clusters."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from pertjax.types import Array


class _Overlap(NamedTuple):
  """Sizes of the clusters of two partitions, and of what they share.

  Attributes:
    num: members.
    first: int [clusters] sizes in one partition.
    second: int [clusters] sizes in the other.
    shared: int [cells] members of a cluster of each, where there are any.
    rows: int [cells] cluster of the first.
    columns: int [cells] cluster of the second.
  """

  num: int
  first: np.ndarray
  second: np.ndarray
  shared: np.ndarray
  rows: np.ndarray
  columns: np.ndarray

  @property
  def equal(self) -> bool:
    """Whether they are one partition, under whatever labels."""
    return len(self.first) == len(self.second) == len(self.shared)


def _overlap(a: Array, b: Array) -> _Overlap:
  a, b = np.asarray(a), np.asarray(b)
  if a.ndim != 1 or a.shape != b.shape or not len(a):
    raise ValueError(
      'two partitions must be [members] alike and not empty; the shapes are '
      f'{a.shape} and {b.shape}'
    )
  _, a, first = np.unique(a, return_inverse=True, return_counts=True)
  _, b, second = np.unique(b, return_inverse=True, return_counts=True)
  cells, shared = np.unique(a * len(second) + b, return_counts=True)
  rows, columns = np.divmod(cells, len(second))
  return _Overlap(len(a), first, second, shared, rows, columns)


def adjusted_mutual_information(a: Array, b: Array) -> float:
  """Compares two partitions; a random one is expected at 0, an equal one is 1.

  (I - E[I]) / ((H_a + H_b) / 2 - E[I]), E[I] over all partitions with the same
  sizes (Vinh, Epps and Bailey 2010, JMLR 11, equation 3.1 with the arithmetic
  mean). One cluster against several is 0.

  Args:
    a: [members] labels of any kind.
    b: [members].

  Raises:
    ValueError: when the shapes differ or are empty.
  """
  overlap = _overlap(a, b)
  if overlap.equal:
    return 1.0
  if 1 in (len(overlap.first), len(overlap.second)):
    return 0.0
  expected = _expected_information(overlap)
  entropy = (_entropy(overlap.first) + _entropy(overlap.second)) / 2
  return float((_information(overlap) - expected) / (entropy - expected))


def normalized_mutual_information(a: Array, b: Array) -> float:
  """Returns I / ((H_a + H_b) / 2); arguments as for the adjusted one.

  Not adjusted for chance: many small clusters are above 0 whatever they hold.
  """
  overlap = _overlap(a, b)
  if overlap.equal:
    return 1.0
  entropy = (_entropy(overlap.first) + _entropy(overlap.second)) / 2
  # Rounding leaves about -1e-17 of independent partitions.
  return float(max(_information(overlap), 0) / entropy)


def adjusted_rand_index(a: Array, b: Array) -> float:
  """Compares pairs of members; a random partition is expected at 0.

  (S - A B / T) / ((A + B) / 2 - A B / T) of the T pairs, of which A, B and S
  are together in a, in b and in both (Hubert and Arabie 1985, J. Classification
  2, equation 5). Arguments as for `adjusted_mutual_information`.
  """
  overlap = _overlap(a, b)
  if overlap.equal:
    return 1.0
  of_a, of_b, both = (
    sum(int(n) * (int(n) - 1) // 2 for n in sizes)
    for sizes in (overlap.first, overlap.second, overlap.shared)
  )
  pairs = overlap.num * (overlap.num - 1) // 2
  # In integers to the last division: products of pairs exceed 2**53.
  above = 2 * (both * pairs - of_a * of_b)
  return above / ((of_a + of_b) * pairs - 2 * of_a * of_b)


def _entropy(sizes: np.ndarray) -> float:
  """Entropy in nats of clusters of these sizes."""
  share = sizes / sizes.sum()
  return float(-(share * np.log(share)).sum())


def _information(overlap: _Overlap) -> float:
  """Mutual information in nats."""
  n, shared = overlap.num, overlap.shared
  sizes = np.log(overlap.first)[overlap.rows]
  sizes = sizes + np.log(overlap.second)[overlap.columns]
  return float((shared / n * (np.log(n) + np.log(shared) - sizes)).sum())


def _expected_information(overlap: _Overlap) -> float:
  """Mutual information that chance leaves, in nats.

  Vinh, Epps and Bailey 2010, equation 3.2: the overlap of clusters of a and b
  members is hypergeometric. Clusters of equal sizes are computed once.
  """
  n = overlap.num
  factorial = np.array([math.lgamma(i + 1) for i in range(n + 1)])
  firsts, seconds = (
    list(zip(*(x.tolist() for x in np.unique(sizes, return_counts=True))))
    for sizes in (overlap.first, overlap.second)
  )
  expected = 0.0
  for a, times_a in firsts:
    for b, times_b in seconds:
      both = np.arange(max(1, a + b - n), min(a, b) + 1)
      probability = np.exp(
        factorial[a]
        + factorial[b]
        + factorial[n - a]
        + factorial[n - b]
        - factorial[n]
        - factorial[both]
        - factorial[a - both]
        - factorial[b - both]
        - factorial[n - a - b + both]
      )
      each = probability * both / n * np.log(n * both / (a * b))
      expected += times_a * times_b * float(each.sum())
  return expected
