"""How much of a known causal structure a model of latent factors has found.

For data whose truth is known: programs, their activity in each condition, the
program that each perturbation targets, and the graph of the programs. Factors
come in any order and with any sign and scale, so that they are matched first.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Match(NamedTuple):
  """Which factor stands for which program.

  Attributes:
    factor: int [programs]; -1 for a program that is left without one.
    sign: [programs] 1 or -1; 0 without a factor.
    correlation: [programs] absolute correlation; 0 without a factor.
  """

  factor: np.ndarray
  sign: np.ndarray
  correlation: np.ndarray

  @property
  def mean(self) -> float:
    """The mean correlation (MCC); programs without a factor count 0."""
    return float(self.correlation.mean())


def assign(cost: np.ndarray) -> np.ndarray:
  """Returns the column of each row at the least total cost.

  Shortest augmenting paths with potentials (Jonker and Volgenant 1987), row
  by row: exact, O(rows^2 columns).

  Args:
    cost: [rows, columns], finite.

  Returns:
    int [rows], all different; -1 for rows that are left over where there are
    more rows than columns.

  Raises:
    ValueError: cost is not a finite matrix.
  """
  cost = np.asarray(cost, np.float64)
  if cost.ndim != 2 or not np.isfinite(cost).all():
    raise ValueError(
      f'cost must be a finite matrix; the shape is {cost.shape}'
      + (', with values that are not finite' if cost.ndim == 2 else '')
    )
  if cost.shape[0] > cost.shape[1]:
    out = np.full(cost.shape[0], -1)
    out[assign(cost.T)] = np.arange(cost.shape[1])
    return out
  rows, columns = cost.shape
  # Column 0 is where each path begins; real ones follow.
  row_potential, potential = np.zeros(rows + 1), np.zeros(columns + 1)
  owner = np.zeros(columns + 1, int)
  for row in range(1, rows + 1):
    owner[0], column = row, 0
    distance = np.full(columns + 1, np.inf)
    before = np.zeros(columns + 1, int)
    visited = np.zeros(columns + 1, bool)
    while owner[column]:
      visited[column] = True
      here = owner[column]
      free = np.flatnonzero(~visited)
      step = cost[here - 1, free - 1] - row_potential[here] - potential[free]
      nearer = step < distance[free]
      distance[free[nearer]] = step[nearer]
      before[free[nearer]] = column
      least = free[np.argmin(distance[free])]
      gain = distance[least]
      row_potential[owner[visited]] += gain
      potential[visited] -= gain
      distance[free] -= gain
      column = least
    while column:
      owner[column] = owner[before[column]]
      column = before[column]
  out = np.empty(rows, int)
  out[owner[1:][owner[1:] > 0] - 1] = np.flatnonzero(owner[1:])
  return out


def match(truth: np.ndarray, found: np.ndarray) -> Match:
  """Matches factors to programs by absolute correlation, one to one.

  The mean over programs is the MCC of the literature on identifiability
  (Hyvarinen and Morioka 2016).

  Args:
    truth: [samples, programs].
    found: [samples, factors]; a constant column correlates with nothing.
  """
  correlation = _correlation(truth, found)
  factor = assign(-np.abs(correlation))
  has = factor >= 0
  at = correlation[np.arange(len(factor)), np.maximum(factor, 0)] * has
  return Match(factor, np.where(has, np.where(at < 0, -1, 1), 0), np.abs(at))


def match_by_chance(
  truth: np.ndarray, found: np.ndarray, *, permutations: int = 50, seed: int = 0
) -> float:
  """Returns the mean MCC where samples are permuted: matching favours luck.

  Args:
    truth: [samples, programs].
    found: [samples, factors].
    permutations: of the samples of `found`.
    seed: of the permutations.
  """
  random, found = np.random.default_rng(seed), np.asarray(found)
  return float(
    np.mean(
      [
        match(truth, random.permutation(found)).mean
        for _ in range(permutations)
      ]
    )
  )


def _correlation(truth, found) -> np.ndarray:
  truth, found = (np.asarray(x, np.float64) for x in (truth, found))
  if truth.ndim != 2 or found.ndim != 2 or len(truth) != len(found):
    raise ValueError(
      'truth and found must be [samples, programs] and [samples, factors]; '
      f'the shapes are {truth.shape} and {found.shape}'
    )

  def unit(x):
    x = x - x.mean(0)
    norm = np.sqrt((x**2).sum(0))
    # What is left of a constant after rounding is no direction.
    flat = norm <= 1e-12 * np.maximum(1, np.abs(x).max(initial=0))
    return np.where(flat, 0, x / np.where(flat, 1, norm))

  return unit(truth).T @ unit(found)


def linear_r2(
  truth: np.ndarray, found: np.ndarray, *, leave_one_out: bool = True
) -> np.ndarray:
  """Returns how well all factors together give each program, R^2 [programs].

  Ordinary least squares with an intercept. Left out one at a time, by the hat
  matrix (Allen's PRESS 1974), the value is that of samples that were not
  fitted, against the mean of the others; it can be negative. With as many
  factors as samples the fitted value is 1 whatever the factors are.

  Args:
    truth: [samples, programs].
    found: [samples, factors].
    leave_one_out: judge each sample by the fit to the others.

  Returns:
    NaN for a program that is constant.
  """
  truth, found = (np.asarray(x, np.float64) for x in (truth, found))
  _correlation(truth, found)
  count = len(truth)
  design = np.column_stack([np.ones(count), found - found.mean(0)])
  left, size, _ = np.linalg.svd(design, full_matrices=False)
  left = left[:, size > 1e-10 * size.max()]
  residual = truth - left @ (left.T @ truth)
  centred = truth - truth.mean(0)
  if leave_one_out:
    free = 1 - (left**2).sum(1)
    # A sample that alone decides a coefficient says nothing when left out: its
    # prediction then is the mean of the others.
    usable = free > 1e-8
    other = centred * count / (count - 1)
    residual = np.where(
      usable[:, None], residual / np.where(usable, free, 1)[:, None], other
    )
    centred = other
  total = (centred**2).sum(0)
  flat = total <= 1e-20
  r2 = 1 - (residual**2).sum(0) / np.where(flat, 1, total)
  return np.where(flat, np.nan, r2)


class Targets(NamedTuple):
  """Whether perturbations were given to the right factor.

  Attributes:
    matched: share that goes to the factor of its program by an earlier match.
    best: share under the one-to-one naming of factors that fits best; that of
      an assignment without any knowledge is `best_by_chance`.
    best_by_chance: its mean over permutations of the perturbations.
  """

  matched: float
  best: float
  best_by_chance: float


def intervention_targets(
  program: np.ndarray,
  assigned: np.ndarray,
  matched: Match,
  *,
  num_factors: int,
  permutations: int = 200,
  seed: int = 0,
) -> Targets:
  """Scores which factor each perturbation was given.

  Args:
    program: int [perturbations] the program that it targets (its main one).
    assigned: int [perturbations] its factor.
    matched: which factor stands for which program.
    num_factors: of the model.
    permutations: for the value by chance.
    seed: of the permutations.
  """
  program, assigned = np.asarray(program), np.asarray(assigned)
  random = np.random.default_rng(seed)
  chance = [
    _best(
      program, random.permutation(assigned), len(matched.factor), num_factors
    )
    for _ in range(permutations)
  ]
  return Targets(
    float((matched.factor[program] == assigned).mean()),
    _best(program, assigned, len(matched.factor), num_factors),
    float(np.mean(chance)),
  )


def _best(program, assigned, num_programs, num_factors) -> float:
  table = np.zeros((num_programs, num_factors))
  np.add.at(table, (program, assigned), 1)
  factor = assign(-table)
  has = factor >= 0
  return float(table[has, factor[has]].sum() / len(program))


class Graph(NamedTuple):
  """How well the edges between programs were found.

  Attributes:
    hamming: structural Hamming distance at the threshold: edges that are
      missing, too many, or turned round, which count once.
    edges: of the truth.
    empty_hamming: distance of a graph without edges, which is `edges`.
    found: edges above the threshold, among matched factors.
    auroc: of absolute weights over all ordered pairs of programs, for true
      edges; 0.5 is chance, NaN where there are only edges or none.
    auroc_undirected: likewise over unordered pairs, by the larger weight.
  """

  hamming: int
  edges: int
  empty_hamming: int
  found: int
  auroc: float
  auroc_undirected: float


def graph_recovery(
  truth: np.ndarray, found: np.ndarray, matched: Match, *, threshold: float
) -> Graph:
  """Compares a learned graph with the true one, after matching.

  Structural Hamming distance of Tsamardinos et al. 2006.

  Args:
    truth: [programs, programs]; an entry that is not 0 is an edge from row to
      column.
    found: [factors, factors] learned weights.
    matched: which factor stands for which program; programs without one have
      no edges.
    threshold: absolute weights above it are edges.
  """
  truth = np.asarray(truth) != 0
  count = len(truth)
  weight = np.zeros((count, count))
  has = np.flatnonzero(matched.factor >= 0)
  at = matched.factor[has]
  weight[np.ix_(has, has)] = np.abs(
    np.asarray(found, np.float64)[np.ix_(at, at)]
  )
  np.fill_diagonal(weight, 0)
  edge = weight > threshold
  above = np.triu_indices(count, 1)
  wrong = (truth != edge) | (truth.T != edge.T)
  off = ~np.eye(count, dtype=bool)
  both = np.maximum(weight, weight.T)[above]
  either = (truth | truth.T)[above]
  edges = int(either.sum())
  return Graph(
    int(wrong[above].sum()),
    edges,
    edges,
    int(edge.sum()),
    auroc(weight[off], truth[off]),
    auroc(both, either),
  )


def auroc(score: np.ndarray, positive: np.ndarray) -> float:
  """Returns the area under the ROC curve; ties count half.

  The share of pairs of a positive and a negative that are in order
  (Mann-Whitney); NaN where there are no such pairs.

  Args:
    score: [n].
    positive: bool [n].
  """
  score, positive = np.asarray(score, float), np.asarray(positive, bool)
  _, place, count = np.unique(score, return_inverse=True, return_counts=True)
  rank = (np.cumsum(count) - (count - 1) / 2)[place]
  inside, outside = int(positive.sum()), int((~positive).sum())
  if not inside or not outside:
    return float('nan')
  above = rank[positive].sum() - inside * (inside + 1) / 2
  return float(above / (inside * outside))
