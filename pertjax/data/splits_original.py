"""The originals' splitters, draw for draw, so that published splits return.

PerturBench (arXiv 2408.10609, first release) draws from Python's `random` and
NumPy's legacy generator; GEARS (Nature Biotechnology 42:927, 2024, version
0.1.2) from the legacy generator alone. Both are kept here with their oddities,
each named where it is. `splits.make` reaches them as `perturbench_*` and
`gears_*`; for new work its own methods are the better choice.

Where this differs from the originals, on purpose:
  * PerturBench stratifies by the text of a frozenset, which for two and more
    covariates depends on PYTHONHASHSEED. Here it is the group's name, so that
    one seed means one split. With one covariate the two agree.
  * PerturBench merges groups whose covariate values are the same set (`a|b`
    and `b|a`). Here they stay two groups.
  * `simulation_single` of GEARS 0.1.2 raises; here it does what was meant.
"""

from __future__ import annotations

import collections
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from pertjax import types

PERTURBENCH = ('transfer', 'combine', 'inverse')
GEARS_LISTS = (
  'single',
  'single_only',
  'combo_seen0',
  'combo_seen1',
  'combo_seen2',
  'no_test',
)
GEARS = ('simulation', 'simulation_single', *GEARS_LISTS)
# The share of the training list that GEARS keeps when it cuts validation.
_GEARS_NESTED = 0.9
_GEARS_CONTROL = 'ctrl'
_CONTROLS = ('', 'control', 'ctrl')


class Labels(NamedTuple):
  """Cells under the originals' names.

  Attributes:
    names: [labels] as the original would read them from a file.
    parts: [labels] the perturbations of each name, in its order; `()` for
      the control.
    label: int [cells]; index into `names`.
    group: int [cells]; index into `group_names`.
    group_names: [groups].
  """

  names: tuple[str, ...]
  parts: tuple[tuple[str, ...], ...]
  label: np.ndarray
  group: np.ndarray
  group_names: tuple[str, ...]


class GearsSplit(NamedTuple):
  """What GEARS' splitter returns.

  Attributes:
    train: condition names; `ctrl` is the last.
    val: condition names.
    test: condition names. Conditions in none of the three are not used.
    val_subgroups: {subgroup: condition names}, empty for the list splits.
    test_subgroups: the same for test.
  """

  train: tuple[str, ...]
  val: tuple[str, ...]
  test: tuple[str, ...]
  val_subgroups: dict[str, tuple[str, ...]]
  test_subgroups: dict[str, tuple[str, ...]]


def make_labels(
  condition: Sequence[str], group: Sequence[str] | None = None
) -> Labels:
  """Makes Labels from one name per cell.

  Args:
    condition: [cells] names such as `A+B`, `A+ctrl`, `ctrl+A`, `control`.
    group: [cells] covariate groups; all cells are in one group without it.
  """
  names, label = np.unique(
    np.asarray(condition, dtype=str), return_inverse=True
  )
  if group is None:
    group = ['all'] * len(label)
  groups, index = np.unique(np.asarray(group, dtype=str), return_inverse=True)
  names = tuple(str(name) for name in names)
  return Labels(
    names=names,
    parts=tuple(_parts(name) for name in names),
    label=label.reshape(-1),
    group=index.reshape(-1),
    group_names=tuple(str(name) for name in groups),
  )


# PerturBench.


def perturbench_transfer(
  labels: Labels,
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
  return _perturbench_cells(
    labels, train, held, test_fraction, train_control_fraction, seed
  )


def perturbench_combine(
  labels: Labels,
  *,
  seed: int,
  max_heldout_fraction_per_covariate: float = 0.3,
  max_heldout_perturbations_per_covariate: int = 200,
  train_control_fraction: float = 0.5,
  downsample_fraction: float = 1.0,
  test_fraction: float = 0.5,
) -> np.ndarray:
  """Holds combinations out; every single perturbation stays in training.

  Arguments and result as in `perturbench_transfer`. Each group starts again
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
  return _perturbench_cells(
    labels, pairs, held, test_fraction, train_control_fraction, seed
  )


def perturbench_inverse(
  labels: Labels,
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
  `perturbench_transfer`.
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
  return _perturbench_cells(
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


def _perturbench_cells(
  labels: Labels,
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


def _first_pairs(labels: Labels) -> list[tuple[int, int]]:
  """Lists (label, group) pairs in the order of their first cells."""
  code = labels.label.astype(np.int64) * len(labels.group_names) + labels.group
  pairs, first = np.unique(code, return_index=True)
  width = len(labels.group_names)
  return [divmod(int(p), width) for p in pairs[np.argsort(first)]]


def _downsample(
  labels: Labels, pairs: list[tuple[int, int]], fraction: float, seed: int
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


def _sorted_groups(labels: Labels) -> list[int]:
  return sorted(
    range(len(labels.group_names)), key=lambda g: labels.group_names[g]
  )


# GEARS.


def gears_simulation(
  conditions: Sequence[str],
  *,
  seed: int,
  train_gene_set_size: float = 0.75,
  combo_seen2_train_frac: float = 0.75,
  test_perts: Sequence[str] = (),
  only_test_set_perts: bool = False,
) -> GearsSplit:
  """Holds genes out, with the combinations that touch them.

  The result depends on the set of names and the seed only. A single counts as
  seen if its gene was kept from testing, even where validation, cut from the
  training list by the same procedure at 0.9, then takes it away.

  Args:
    conditions: distinct names, `A+ctrl`, `ctrl+A` or `A+B`; `ctrl` is ignored.
    seed: of NumPy's legacy generator.
    train_gene_set_size: share of genes that are kept for training.
    combo_seen2_train_frac: share of combinations of kept genes that train.
    test_perts: genes to hold out whatever is drawn.
    only_test_set_perts: hold out these genes and no others.

  Raises:
    ValueError: for a gene of `test_perts` that is in no condition.
  """
  train, test = _simulate(
    conditions,
    seed,
    train_gene_set_size,
    combo_seen2_train_frac,
    test_perts,
    only_test_set_perts,
  )
  train, val = _simulate(train, seed, _GEARS_NESTED, _GEARS_NESTED)
  return _gears_result(train, val, test)


def gears_simulation_single(
  conditions: Sequence[str],
  *,
  seed: int,
  train_gene_set_size: float = 0.75,
  test_perts: Sequence[str] = (),
  only_test_set_perts: bool = False,
) -> GearsSplit:
  """Holds genes out of data without combinations.

  Arguments as in `gears_simulation`.

  Raises:
    ValueError: if there are combinations.
  """
  combos = [c for c in conditions if _is_combo(c)]
  if combos:
    raise ValueError(
      f'gears_simulation_single: {len(combos)} conditions are combinations, '
      f'for example {sorted(combos)[0]!r}; gears_simulation takes them'
    )
  return gears_simulation(
    conditions,
    seed=seed,
    train_gene_set_size=train_gene_set_size,
    test_perts=test_perts,
    only_test_set_perts=only_test_set_perts,
  )


def gears_list(
  conditions: Sequence[str],
  kind: str,
  *,
  seed: int,
  fraction: float = 0.1,
  val_fraction: float = 0.1,
) -> GearsSplit:
  """Draws one of GEARS' list splits.

  Draws are with replacement, so that fewer than `fraction` may be held out,
  and the genes are drawn for every kind, used or not (original's behaviour).
  Validation is cut from the training list by the same rule at `val_fraction`,
  with the generator running on; for `no_test` it is the only cut.

  Args:
    conditions: distinct names, as in `gears_simulation`; their order matters
      for `combo_seen2` and `no_test`. The original's is that of first cells.
    kind: one of GEARS_LISTS.
    seed: of NumPy's legacy generator.
    fraction: the original's `combo_single_split_test_set_fraction`.
    val_fraction: the original's constant 0.1; `no_test` uses `fraction`.
  """
  rng = np.random.RandomState(seed)
  rule = _GEARS_RULES[kind]
  train, held, _ = rule(_perturbed(conditions), fraction, rng)
  if kind == 'no_test':
    return _gears_result(train, {'': held}, {})
  train, val, _ = rule(train, val_fraction, rng)
  return _gears_result(train, {'': val}, {'': held})


def _simulate(
  conditions: Sequence[str],
  seed: int,
  gene_share: float,
  combo_share: float,
  test_perts: Sequence[str] = (),
  only_test: bool = False,
) -> tuple[list[str], dict[str, list[str]]]:
  """Returns the training list and {subgroup: held-out names}."""
  names = sorted(_perturbed(conditions))
  genes = _genes(names)
  unknown = sorted(set(test_perts) - set(genes))
  if unknown:
    raise ValueError(f'gears: test_perts {unknown} are in no condition')
  rng = np.random.RandomState(seed)
  if only_test and len(test_perts):
    kept = set(genes) - set(test_perts)
  else:
    drawn = rng.choice(genes, int(gene_share * len(genes)), replace=False)
    kept = set(drawn.tolist()) - set(test_perts)
    if len(test_perts):
      # As many genes come in as the named ones took out.
      spare = [g for g in genes if g not in kept and g not in test_perts]
      missing = len(drawn) - len(kept)
      kept |= set(rng.choice(spare, missing, replace=False).tolist())
  seen = {c: sum(gene in kept for gene in _parts(c)) for c in names}
  combos = [c for c in names if _is_combo(c)]
  both = [c for c in combos if seen[c] > 1]
  # The original seeds again here.
  rng = np.random.RandomState(seed)
  count = int(combo_share * len(both))
  training = (
    set(rng.choice(both, count, replace=False).tolist()) if both else set()
  )
  train = [c for c in names if not _is_combo(c) and seen[c] or c in training]
  held = {
    'combo_seen0': [c for c in combos if seen[c] == 0],
    'combo_seen1': [c for c in combos if seen[c] == 1],
    'combo_seen2': [c for c in both if c not in training],
    'unseen_single': [c for c in names if not _is_combo(c) and not seen[c]],
  }
  return train, held


_Cut = tuple[list[str], list[str], list[str]]


def _rule_genes(max_unheld: int, combos_train: bool) -> Callable[..., _Cut]:
  """Makes the rules that hold genes out.

  Args:
    max_unheld: combinations of held-out genes with at most this many other
      genes are held out; the rest is used nowhere. Below 0: none is.
    combos_train: whether combinations without held-out genes may train.
  """

  def rule(names: list[str], fraction: float, rng: np.random.RandomState):
    genes = _draw_genes(names, fraction, rng)
    train, held, unused = [], [], []
    for name in names:
      parts = _parts(name)
      others = sum(gene not in genes for gene in parts)
      touched = others < len(parts)
      if not _is_combo(name):
        (held if touched else train).append(name)
      elif touched:
        (held if others <= max_unheld else unused).append(name)
      else:
        (train if combos_train else unused).append(name)
    return train, held, unused

  return rule


def _rule_seen2(
  names: list[str], fraction: float, rng: np.random.RandomState
) -> _Cut:
  _draw_genes(names, fraction, rng)
  return _draw([c for c in names if _is_combo(c)], names, fraction, rng)


def _rule_no_test(
  names: list[str], fraction: float, rng: np.random.RandomState
) -> _Cut:
  _draw_genes(names, fraction, rng)
  return _draw(names, names, fraction, rng)


def _draw(
  pool: list[str],
  names: list[str],
  fraction: float,
  rng: np.random.RandomState,
) -> _Cut:
  count = int(fraction * len(pool))
  drawn = set(rng.choice(pool, count).tolist()) if pool else set()
  train = [c for c in names if c not in drawn]
  return train, [c for c in names if c in drawn], []


def _draw_genes(
  names: list[str], fraction: float, rng: np.random.RandomState
) -> set[str]:
  singles = [c for c in names if not _is_combo(c)]
  genes = _genes(names)
  count = int(fraction * len(singles))
  return set(rng.choice(genes, count).tolist()) if genes else set()


_GEARS_RULES: Mapping[str, Callable[..., _Cut]] = {
  'single': _rule_genes(-1, True),
  'single_only': _rule_genes(-1, False),
  'combo_seen0': _rule_genes(0, True),
  'combo_seen1': _rule_genes(1, True),
  'combo_seen2': _rule_seen2,
  'no_test': _rule_no_test,
}


def _gears_result(
  train: list[str], val: dict[str, list[str]], test: dict[str, list[str]]
) -> GearsSplit:
  def flat(groups: dict[str, list[str]]) -> tuple[str, ...]:
    return tuple(name for names in groups.values() for name in names)

  def named(groups: dict[str, list[str]]) -> dict[str, tuple[str, ...]]:
    return {key: tuple(names) for key, names in groups.items() if key}

  return GearsSplit(
    train=(*train, _GEARS_CONTROL),
    val=flat(val),
    test=flat(test),
    val_subgroups=named(val),
    test_subgroups=named(test),
  )


def _parts(name: str) -> tuple[str, ...]:
  return tuple(p for p in name.split('+') if p not in _CONTROLS)


def _is_combo(name: str) -> bool:
  return len(_parts(name)) > 1


def _genes(names: Sequence[str]) -> list[str]:
  return sorted({gene for name in names for gene in _parts(name)})


def _perturbed(conditions: Sequence[str]) -> list[str]:
  return list(dict.fromkeys(c for c in conditions if _parts(c)))


# From and to the package's own conditions.


class Placed(NamedTuple):
  """An original's split of the package's cells.

  Attributes:
    cells: int8 [cells]; for GEARS the controls are all TRAIN.
    regimes: {condition: regime} as the original reports it; GEARS only.
    notes: lines that a user should read.
  """

  cells: np.ndarray
  regimes: dict[int, str]
  notes: tuple[str, ...]


def place(
  method: str,
  *,
  seed: int,
  conditions: types.Conditions,
  condition: np.ndarray,
  group: np.ndarray,
  group_names: tuple[str, ...],
  options: Mapping[str, Any],
) -> Placed:
  """Runs an original's splitter on the package's conditions.

  Names decide the originals' draws. `labels`, [cells] names of the original
  file, gives exactly its split. Without them, names are made from the
  canonical ones: for PerturBench as they are (`A`, `A+B`, `A@0.5`, `control`),
  for GEARS `A+ctrl` and `A+B`, without doses and always with the sorted
  orientation, where the original file of Norman 2019 has `ctrl+A` as well.

  Args:
    method: `perturbench_` with one of PERTURBENCH, or `gears_` with one of
      GEARS.
    seed: the original's seed.
    conditions: see types.Conditions.
    condition: int [cells].
    group: int [cells].
    group_names: [groups].
    options: arguments of the splitter by their original names, and `labels`.

  Raises:
    ValueError: if a label names other perturbations than the condition.
  """
  options = dict(options)
  given = options.pop('labels')
  family, kind = method.split('_', 1)
  if given is None:
    labels = _canonical_labels(
      family, conditions, condition, group, group_names
    )
  else:
    labels = _given_labels(given, conditions, condition, group, group_names)
  if family == 'perturbench':
    splitter = {
      'transfer': perturbench_transfer,
      'combine': perturbench_combine,
      'inverse': perturbench_inverse,
    }[kind]
    return Placed(splitter(labels, seed=seed, **options), {}, ())
  first = np.sort(np.unique(labels.label, return_index=True)[1])
  present = [labels.names[i] for i in labels.label[first]]
  if kind == 'simulation':
    split = gears_simulation(present, seed=seed, **options)
  elif kind == 'simulation_single':
    split = gears_simulation_single(present, seed=seed, **options)
  else:
    split = gears_list(
      present,
      kind,
      seed=seed,
      fraction=options['combo_single_split_test_set_fraction'],
      val_fraction=options['val_fraction'],
    )
  return _place_gears(labels, split, condition)


def _place_gears(
  labels: Labels, split: GearsSplit, condition: np.ndarray
) -> Placed:
  codes = dict.fromkeys(split.train, types.TRAIN)
  codes |= dict.fromkeys(split.val, types.VAL)
  codes |= dict.fromkeys(split.test, types.TEST)
  table = np.array(
    [
      codes.get(name, types.EXCLUDED) if parts else types.TRAIN
      for name, parts in zip(labels.names, labels.parts)
    ],
    dtype=np.int8,
  )
  of = dict(zip(labels.label.tolist(), condition.tolist()))
  number = {name: i for i, name in enumerate(labels.names)}
  regimes = {}
  for subgroups in (split.val_subgroups, split.test_subgroups):
    for key, names in subgroups.items():
      for name in names:
        regimes[of[number[name]]] = key.removeprefix('combo_')
  unused = sorted(n for n in labels.names if _parts(n) and n not in codes)
  notes = ()
  if unused:
    notes = (
      f'{len(unused)} conditions touch a held-out perturbation and are used '
      f'nowhere, as in GEARS: {", ".join(unused[:5])}',
    )
  return Placed(table[labels.label], regimes, notes)


def _canonical_labels(
  family: str,
  conditions: types.Conditions,
  condition: np.ndarray,
  group: np.ndarray,
  group_names: tuple[str, ...],
) -> Labels:
  if family == 'perturbench':
    return Labels(
      conditions.names, conditions.tokens, condition, group, group_names
    )
  names = []
  for tokens in conditions.tokens:
    bad = [token for token in tokens if '+' in token or token in _CONTROLS]
    if bad:
      raise ValueError(
        f'gears: perturbation {bad[0]!r} cannot be written in its names'
      )
    padded = (*tokens, _GEARS_CONTROL) if len(tokens) < 2 else tokens
    names.append('+'.join(padded) if tokens else _GEARS_CONTROL)
  # Doses have no place in GEARS' names: they fall together.
  distinct = tuple(dict.fromkeys(names))
  position = {name: i for i, name in enumerate(distinct)}
  index = np.array([position[name] for name in names])
  parts = tuple(_parts(name) for name in distinct)
  return Labels(distinct, parts, index[condition], group, group_names)


def _given_labels(
  given: Sequence[str],
  conditions: types.Conditions,
  condition: np.ndarray,
  group: np.ndarray,
  group_names: tuple[str, ...],
) -> Labels:
  if len(given) != len(condition):
    raise ValueError(
      f'labels: {len(given)} names were given for {len(condition)} cells'
    )
  labels = make_labels(given)._replace(group=group, group_names=group_names)
  pairs = np.unique(np.stack([labels.label, condition], axis=1), axis=0)
  for label, c in pairs.tolist():
    if tuple(sorted(labels.parts[label])) != tuple(
      sorted(conditions.tokens[c])
    ):
      raise ValueError(
        f'labels: {labels.names[label]!r} is given to cells whose condition is '
        f'{conditions.names[c]!r}'
      )
  return labels
