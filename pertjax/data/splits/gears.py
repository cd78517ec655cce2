"""GEARS' splitters, draw for draw, so that published splits return.

GEARS (Nature Biotechnology 42:927, 2024, version 0.1.2) draws from NumPy's
legacy generator. Its oddities are kept, each named where it is. Where this
differs, on purpose: `simulation_single` of 0.1.2 raises; here it does what was
meant.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from pertjax.data.splits import naming

LISTS = (
  'single',
  'single_only',
  'combo_seen0',
  'combo_seen1',
  'combo_seen2',
  'no_test',
)
# The share of the training list that GEARS keeps when it cuts validation.
_NESTED = 0.9


class Split(NamedTuple):
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


def simulation(
  conditions: Sequence[str],
  *,
  seed: int,
  train_gene_set_size: float = 0.75,
  combo_seen2_train_frac: float = 0.75,
  test_perts: Sequence[str] = (),
  only_test_set_perts: bool = False,
) -> Split:
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
  train, val = _simulate(train, seed, _NESTED, _NESTED)
  return _result(train, val, test)


def simulation_single(
  conditions: Sequence[str],
  *,
  seed: int,
  train_gene_set_size: float = 0.75,
  test_perts: Sequence[str] = (),
  only_test_set_perts: bool = False,
) -> Split:
  """Holds genes out of data without combinations.

  Arguments as in `simulation`.

  Raises:
    ValueError: if there are combinations.
  """
  combos = [c for c in conditions if naming.is_combo(c)]
  if combos:
    raise ValueError(
      f'gears_simulation_single: {len(combos)} conditions are combinations, '
      f'for example {sorted(combos)[0]!r}; gears_simulation takes them'
    )
  return simulation(
    conditions,
    seed=seed,
    train_gene_set_size=train_gene_set_size,
    test_perts=test_perts,
    only_test_set_perts=only_test_set_perts,
  )


def listed(
  conditions: Sequence[str],
  kind: str,
  *,
  seed: int,
  fraction: float = 0.1,
  val_fraction: float = 0.1,
) -> Split:
  """Draws one of GEARS' list splits.

  Draws are with replacement, so that fewer than `fraction` may be held out,
  and the genes are drawn for every kind, used or not (original's behaviour).
  Validation is cut from the training list by the same rule at `val_fraction`,
  with the generator running on; for `no_test` it is the only cut.

  Args:
    conditions: distinct names, as in `simulation`; their order matters
      for `combo_seen2` and `no_test`. The original's is that of first cells.
    kind: one of LISTS.
    seed: of NumPy's legacy generator.
    fraction: the original's `combo_single_split_test_set_fraction`.
    val_fraction: the original's constant 0.1; `no_test` uses `fraction`.
  """
  rng = np.random.RandomState(seed)
  rule = _RULES[kind]
  train, held, _ = rule(_perturbed(conditions), fraction, rng)
  if kind == 'no_test':
    return _result(train, {'': held}, {})
  train, val, _ = rule(train, val_fraction, rng)
  return _result(train, {'': val}, {'': held})


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
  seen = {c: sum(gene in kept for gene in naming.parts_of(c)) for c in names}
  combos = [c for c in names if naming.is_combo(c)]
  both = [c for c in combos if seen[c] > 1]
  # The original seeds again here.
  rng = np.random.RandomState(seed)
  count = int(combo_share * len(both))
  training = (
    set(rng.choice(both, count, replace=False).tolist()) if both else set()
  )
  train = [
    c for c in names if not naming.is_combo(c) and seen[c] or c in training
  ]
  held = {
    'combo_seen0': [c for c in combos if seen[c] == 0],
    'combo_seen1': [c for c in combos if seen[c] == 1],
    'combo_seen2': [c for c in both if c not in training],
    'unseen_single': [
      c for c in names if not naming.is_combo(c) and not seen[c]
    ],
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
      parts = naming.parts_of(name)
      others = sum(gene not in genes for gene in parts)
      touched = others < len(parts)
      if not naming.is_combo(name):
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
  return _draw([c for c in names if naming.is_combo(c)], names, fraction, rng)


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
  singles = [c for c in names if not naming.is_combo(c)]
  genes = _genes(names)
  count = int(fraction * len(singles))
  return set(rng.choice(genes, count).tolist()) if genes else set()


_RULES: Mapping[str, Callable[..., _Cut]] = {
  'single': _rule_genes(-1, True),
  'single_only': _rule_genes(-1, False),
  'combo_seen0': _rule_genes(0, True),
  'combo_seen1': _rule_genes(1, True),
  'combo_seen2': _rule_seen2,
  'no_test': _rule_no_test,
}


def _result(
  train: list[str], val: dict[str, list[str]], test: dict[str, list[str]]
) -> Split:
  def flat(groups: dict[str, list[str]]) -> tuple[str, ...]:
    return tuple(name for names in groups.values() for name in names)

  def named(groups: dict[str, list[str]]) -> dict[str, tuple[str, ...]]:
    return {key: tuple(names) for key, names in groups.items() if key}

  return Split(
    train=(*train, naming.GEARS_CONTROL),
    val=flat(val),
    test=flat(test),
    val_subgroups=named(val),
    test_subgroups=named(test),
  )


def _genes(names: Sequence[str]) -> list[str]:
  return sorted({gene for name in names for gene in naming.parts_of(name)})


def _perturbed(conditions: Sequence[str]) -> list[str]:
  return list(dict.fromkeys(c for c in conditions if naming.parts_of(c)))
