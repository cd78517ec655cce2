"""PerturBench's splitters, draw for draw, so that published splits return.

PerturBench (arXiv 2408.10609, first release) draws from Python's `random` and
NumPy's legacy generator. Its oddities are kept, each named where it is. Where
this differs, on purpose:
  * PerturBench stratifies by the text of a frozenset, which for two and more
    covariates depends on PYTHONHASHSEED. Here it is the group's name, so that
    one seed means one split. With one covariate the two agree.
  * PerturBench merges groups whose covariate values are the same set (`a|b`
    and `b|a`). Here they stay two groups.
"""

from __future__ import annotations

import collections
import random
from collections.abc import Sequence

import numpy as np

from pertjax import types
from pertjax.data.splits import naming


def transfer(
  labels: naming.Labels,
  *,
  seed: int,
  min_train_covariates: int = 1,
  max_heldout_covariates: int = 1,
  max_heldout_fraction_per_covariate: float = 0.3,
  max_heldout_perturbations_per_covariate: int = 200,
  train_control_fraction: float = 0.5,
  downsample_fraction: float = 1.0,
  test_fraction: float = 0.5,
) -> np.ndarray:
  """Holds perturbations out of some of the groups that they occur in.

  The number of groups held out depends on how many groups the whole table
  has, so that a perturbation of few groups gives up one (original's rule).

  Args:
    labels: the cells; their order matters, as in the original.
    seed: the original's `splitter_seed`.
    min_train_covariates: perturbations in more groups than this take part.
    max_heldout_covariates: most groups held out per perturbation.
    max_heldout_fraction_per_covariate: share of a group's conditions, the
      control counted, that may be held out.
    max_heldout_perturbations_per_covariate: cap on their number.
    train_control_fraction: share of all controls for training.
    downsample_fraction: share of perturbations that take part at all.
    test_fraction: share of the held-out pairs for testing.

  Returns:
    int8 [cells]: TRAIN, VAL, TEST or EXCLUDED.
  """
  pairs = _first_pairs(labels)
  sizes = collections.Counter(g for _, g in pairs)
  share = max_heldout_fraction_per_covariate
  most = max_heldout_perturbations_per_covariate
  cap = {g: min(share * size, most) for g, size in sizes.items()}
  contexts: dict[int, list[int]] = {}
  for label, g in pairs:
    if labels.parts[label]:
      contexts.setdefault(label, []).append(g)
  order = sorted(contexts, key=lambda i: (-len(contexts[i]), labels.names[i]))
  if downsample_fraction < 1:
    rng = random.Random(seed)
    kept = set(rng.sample(order, int(downsample_fraction * len(order))))
    order = [label for label in order if label in kept]
  generator = np.random.RandomState(seed)
  held: list[tuple[int, int]] = []
  taken = dict.fromkeys(cap, 0)
  for label in order:
    rng = random.Random(int(generator.randint(100000)))
    if len(contexts[label]) <= min_train_covariates:
      continue
    pool = [g for g in contexts[label] if taken[g] < cap[g]]
    if not pool:
      continue
    most = max(len(pool) - len(sizes) + max_heldout_covariates, 1)
    for g in rng.sample(pool, rng.randint(1, most)):
      held.append((label, g))
      taken[g] += 1
  train = [(label, g) for label in order for g in contexts[label]]
  return _write(
    labels, train, held, test_fraction, train_control_fraction, seed
  )


def combine(
  labels: naming.Labels,
  *,
  seed: int,
  max_heldout_fraction_per_covariate: float = 0.3,
  max_heldout_perturbations_per_covariate: int = 200,
  train_control_fraction: float = 0.5,
  downsample_fraction: float = 1.0,
  test_fraction: float = 0.5,
) -> np.ndarray:
  """Holds combinations out; every single perturbation stays in training.

  Arguments and result as in `transfer`. Each group starts again
  from the same seed, so groups with the same conditions lose the same ones.
  """
  pairs = _first_pairs(labels)
  if downsample_fraction < 1:
    pairs = _downsample(labels, pairs, downsample_fraction, seed)
  held: list[tuple[int, int]] = []
  for g in _sorted_groups(labels):
    combos = [
      label
      for label, group in pairs
      if group == g and len(labels.parts[label]) > 1
    ]
    count = min(
      int(max_heldout_fraction_per_covariate * len(combos)),
      max_heldout_perturbations_per_covariate,
    )
    drawn = random.Random(seed).sample(combos, count)
    held += [(label, g) for label in drawn]
  return _write(
    labels, pairs, held, test_fraction, train_control_fraction, seed
  )


def inverse(
  labels: naming.Labels,
  *,
  seed: int,
  max_heldout_fraction_per_covariate: float = 0.3,
  max_heldout_perturbations_per_covariate: int = 200,
  train_control_fraction: float = 0.5,
  test_fraction: float = 0.5,
) -> np.ndarray:
  """Holds single perturbations out; every combination stays in training.

  No combination loses both of its singles. The control is drawn like a single
  perturbation and can use up a place, as in the original, although its cells
  are split separately afterwards. Arguments and result as in
  `transfer`.
  """
  pairs = _first_pairs(labels)
  appearance = list(dict.fromkeys(label for label, _ in pairs))
  held: list[tuple[int, int]] = []
  for g in _sorted_groups(labels):
    here = {label for label, group in pairs if group == g}
    singles = [
      label
      for label in appearance
      if label in here and len(labels.parts[label]) < 2
    ]
    combos = [
      labels.parts[label]
      for label in appearance
      if label in here and len(labels.parts[label]) > 1
    ]
    count = min(
      int(max_heldout_fraction_per_covariate * len(singles)),
      max_heldout_perturbations_per_covariate,
    )
    pool = random.Random(seed).sample(singles, len(singles))
    drawn: list[int] = []
    while len(drawn) < count and pool:
      label = pool.pop()
      drawn.append(label)
      partners = {
        token
        for tokens in combos
        if set(labels.parts[label]) & set(tokens)
        for token in tokens
      }
      pool = [i for i in pool if not partners.intersection(labels.parts[i])]
    held += [(label, g) for label in drawn]
  return _write(
    labels, pairs, held, test_fraction, train_control_fraction, seed
  )


def stratified_halves(
  strata: Sequence[str], *, test_fraction: float, seed: int
) -> tuple[list[int], list[int]]:
  """Splits rows as scikit-learn's stratified `train_test_split` does.

  Args:
    strata: [rows] class of each row.
    test_fraction: share of rows in the second part, rounded up.
    seed: of NumPy's legacy generator.

  Returns:
    Row numbers of the first and of the second part, grouped by class.

  Raises:
    ValueError: if a class has one row, or a part has fewer rows than classes.
  """
  num_second = int(np.ceil(test_fraction * len(strata)))
  num_first = len(strata) - num_second
  classes, index, counts = np.unique(
    np.asarray(strata, dtype=str), return_inverse=True, return_counts=True
  )
  too_few = min(num_first, num_second) < max(1, len(classes))
  if too_few or counts.min() < 2:
    raise ValueError(
      f'perturbench: {len(strata)} held-out pairs in {len(classes)} groups '
      f'cannot be divided into val and test at test_fraction={test_fraction}; '
      'hold out more, or use the methods without the prefix'
    )
  rng = np.random.RandomState(seed)
  take_first = _approximate_mode(counts, num_first, rng)
  take_second = _approximate_mode(counts - take_first, num_second, rng)
  first: list[int] = []
  second: list[int] = []
  for k in range(len(classes)):
    rows = np.flatnonzero(index.reshape(-1) == k)[rng.permutation(counts[k])]
    end = take_first[k] + take_second[k]
    first += rows[: take_first[k]].tolist()
    second += rows[take_first[k] : end].tolist()
  return first, second


def _approximate_mode(
  counts: np.ndarray, draws: int, rng: np.random.RandomState
) -> np.ndarray:
  """Shares draws among classes: floors, then largest remainders, ties drawn."""
  exact = counts / counts.sum() * draws
  shares = np.floor(exact)
  missing = int(draws - shares.sum())
  remainders = exact - shares
  for value in np.unique(remainders)[::-1]:
    if missing <= 0:
      break
    tied = np.flatnonzero(remainders == value)
    some = rng.choice(tied, size=min(len(tied), missing), replace=False)
    shares[some] += 1
    missing -= len(some)
  return shares.astype(int)


def _write(
  labels: naming.Labels,
  pairs: Sequence[tuple[int, int]],
  held: Sequence[tuple[int, int]],
  test_fraction: float,
  train_control_fraction: float,
  seed: int,
) -> np.ndarray:
  """Writes pairs and controls onto cells; other cells are excluded."""
  table = np.full(
    (len(labels.names), len(labels.group_names)), types.EXCLUDED, np.int8
  )
  for pair in pairs:
    table[pair] = types.TRAIN
  for pair in held:
    table[pair] = types.EXCLUDED
  # A group with one held-out pair cannot be stratified: the original drops it.
  sizes = collections.Counter(g for _, g in held)
  held = [pair for pair in held if sizes[pair[1]] > 1]
  # The text that scikit-learn sorts classes by in the original.
  strata = [f'frozenset({{{labels.group_names[g]!r}}})' for _, g in held]
  val, test = stratified_halves(strata, test_fraction=test_fraction, seed=seed)
  for rows, code in ((val, types.VAL), (test, types.TEST)):
    for row in rows:
      table[held[row]] = code
  cells = table[labels.label, labels.group]
  control = np.array([not parts for parts in labels.parts])[labels.label]
  where = np.flatnonzero(control)
  drawn = where[random.Random(seed).sample(range(len(where)), len(where))]
  share = train_control_fraction
  cut = int(share * len(where))
  end = int((share + (1 - share) / 2) * len(where))
  cells[drawn[:cut]] = types.TRAIN
  cells[drawn[cut:end]] = types.VAL
  cells[drawn[end:]] = types.TEST
  return cells


def _first_pairs(labels: naming.Labels) -> list[tuple[int, int]]:
  """Lists (label, group) pairs in the order of their first cells."""
  code = labels.label.astype(np.int64) * len(labels.group_names) + labels.group
  pairs, first = np.unique(code, return_index=True)
  width = len(labels.group_names)
  return [divmod(int(p), width) for p in pairs[np.argsort(first)]]


def _downsample(
  labels: naming.Labels,
  pairs: list[tuple[int, int]],
  fraction: float,
  seed: int,
) -> list[tuple[int, int]]:
  """Keeps a share of conditions; combinations need both singles kept too."""
  present = list(dict.fromkeys(label for label, _ in pairs))
  drawn = random.Random(seed).sample(present, round(len(present) * fraction))
  singles = {
    labels.parts[label][0] for label in drawn if len(labels.parts[label]) == 1
  }
  kept = {label for label, _ in pairs if not labels.parts[label]}
  for label in drawn:
    parts = labels.parts[label]
    if len(parts) < 2 or singles.issuperset(parts):
      kept.add(label)
  return [pair for pair in pairs if pair[0] in kept]


def _sorted_groups(labels: naming.Labels) -> list[int]:
  return sorted(
    range(len(labels.group_names)), key=lambda g: labels.group_names[g]
  )
