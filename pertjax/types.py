"""The values that travel between the parts of pertjax.

Dimension glossary, used in every shape below and in every docstring:

  cells       rows of an expression matrix, or of a batch of it
  genes       measured genes, in the order of the file
  conditions  distinct sets of (perturbation, dose); number 0 is the control
  groups      distinct combinations of covariate values ("contexts")
  pairs       (condition, group) combinations that occur
  order       perturbations in one condition, padded to the longest
  seeds       members of a fleet: seeds times settings
  latent      a model's hidden representation
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

Array = jax.Array
Params = Any  # pytree of arrays; the top level is a dict.
Consts = Any  # pytree of arrays that are not trained.

CONTROL = 'control'
SPLITS = ('train', 'val', 'test')
TRAIN, VAL, TEST, EXCLUDED = 0, 1, 2, -1


@dataclasses.dataclass(frozen=True)
class Conditions:
  """What was done to cells, parsed once from the labels of a file.

  Attributes:
    names: [conditions] canonical names; `names[0]` is `'control'`, the others
      are `'A'`, `'A+B'` with the perturbations sorted, and `'A@0.5'` where a
      dose other than 1 was given. For display and files: never split them.
    tokens: [conditions] tuples of perturbations, sorted; `()` for control.
    doses: [conditions] tuples of doses, one for each token.
  """

  names: tuple[str, ...]
  tokens: tuple[tuple[str, ...], ...]
  doses: tuple[tuple[float, ...], ...]


@dataclasses.dataclass(frozen=True)
class Split:
  """Which cells a model may learn from.

  Attributes:
    cells: int8 [cells]; TRAIN, VAL, TEST or EXCLUDED.
    regimes: {(condition, group): regime} for every held-out pair, for example
      'seen2', 'unseen_single', 'transfer', 'cells'; ids as in the data.
    method: the splitter's name.
    sha256: of the text of split.csv.
    notes: lines that a user should read (what was excluded, and why).
  """

  cells: np.ndarray
  regimes: dict[tuple[int, int], str]
  method: str
  sha256: str
  notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class DataSpec:
  """Static facts of a dataset, on the host.

  Attributes:
    name: the dataset's name for tables.
    genes: [genes] names, unique.
    perturbations: vocabulary of single perturbations, sorted.
    perturbation_genes: [perturbations] column of the perturbed gene, or -1.
    conditions: see Conditions; ids in PerturbArrays index into it.
    covariates: ((key, levels), ...), levels sorted.
    groups: [groups] tuples of covariate values, one for each key, sorted.
    cell_names: [cells] unique names, in the order of the arrays.
    trained: [perturbations] whether any training cell carries it.
    split: see Split.
    fingerprint: SHA-256 over the values, genes, conditions and groups.
    source: where it came from: path or dataset name, preset, preprocessing.
    gene_sets: {name: gene columns}, empty where none were given.
    notes: lines that a user should read.
  """

  name: str
  genes: tuple[str, ...]
  perturbations: tuple[str, ...]
  perturbation_genes: tuple[int, ...]
  conditions: Conditions
  covariates: tuple[tuple[str, tuple[str, ...]], ...]
  groups: tuple[tuple[str, ...], ...]
  cell_names: np.ndarray
  trained: tuple[bool, ...]
  split: Split
  fingerprint: str
  source: Mapping[str, Any]
  gene_sets: Mapping[str, tuple[int, ...]] = dataclasses.field(
    default_factory=dict
  )
  notes: tuple[str, ...] = ()

  @property
  def num_genes(self) -> int:
    return len(self.genes)

  @property
  def num_perturbations(self) -> int:
    return len(self.perturbations)

  @property
  def order(self) -> int:
    """The most perturbations that any condition has; at least 1."""
    return max(1, max(len(t) for t in self.conditions.tokens))

  @property
  def covariate_sizes(self) -> tuple[int, ...]:
    return tuple(len(levels) for _, levels in self.covariates)

  def group_name(self, group: int) -> str:
    """A group's display name: its values joined by a bar, or 'all'."""
    return '|'.join(self.groups[group]) or 'all'


class Condition(NamedTuple):
  """What is done to each cell of a batch, and where.

  The leading axis is the cells', or 1 where all cells share one condition;
  models broadcast.

  Attributes:
    perturbations: int32 [..., order]; index into the vocabulary, -1 padding.
    doses: float32 [..., order]; 0 in the padding.
    covariates: int32 [..., keys]; level of each covariate.
    group: int32 [...]; covariate group, -1 where this combination of
      covariates was not in the data.
  """

  perturbations: Array
  doses: Array
  covariates: Array
  group: Array


class Batch(NamedTuple):
  """One draw of cells.

  Attributes:
    target: [cells, genes] observed cells.
    source: [cells, genes] a control cell of the same group for each, or None
      where the model's sampler draws none.
    condition: see Condition, one for each cell.
    weight: float32 [cells]; 0 marks padding, which losses must not count.
  """

  target: Array
  source: Array | None
  condition: Condition
  weight: Array


class Aux(NamedTuple):
  """What a loss returns beside its value.

  Attributes:
    metrics: {name: scalar}.
    state: {top-level key of params: new subtree} for statistics that are not
      trained by gradient, such as batch-norm averages; their label is 'state'.
  """

  metrics: dict[str, Array]
  state: dict[str, Any] = {}  # noqa: RUF012 - never mutated.


Loss = Callable[[Params, Array | None, Batch, Consts, Array], tuple[Array, Aux]]


class Model(NamedTuple):
  """A model is a value: pure functions and the arrays they are given.

  Attributes:
    init: `(key, consts) -> params`, a dict; no data is read.
    losses: `{player: (params, key, batch, consts, step) -> (scalar, Aux)}`.
      `key=None` asks for the deterministic value: no dropout, no noise, stored
      batch-norm statistics. A player's gradient moves only the parameters that
      `labels` gives it. Empty for closed forms.
    predict: `(params, key, source, condition, consts) -> [cells, genes]` from
      control cells to a condition, unseen ones included. `key=None` as above.
    fit: optional `(params, key, data, consts) -> params`: closed form, or
      statistics of the training cells, after the training steps. `data` is
      data.statistics.FitData.
    encode: optional `(params, target, condition, consts) -> [cells, latent]`.
    labels: optional `(params) -> tree of names` over all of params. Names:
      a player, 'state' (set by losses, not by gradients) or 'frozen'. Without
      it, everything belongs to the single player.
    consts: arrays that are not trained. `consts['hyper']` holds the scalars
      (loss weights) that may differ between members of a fleet.
    sampling: name of the sampler that makes its batches, in data/sampling.py.
    knows: optional `(condition tokens) -> reason or None`: why a condition
      cannot be predicted; without it, every perturbation of the vocabulary can.
  """

  init: Callable[[Array, Consts], Params]
  losses: Mapping[str, Loss]
  predict: Callable[[Params, Array | None, Array, Condition, Consts], Array]
  fit: Callable[[Params, Array, Any, Consts], Params] | None = None
  encode: Callable[[Params, Array, Condition, Consts], Array] | None = None
  labels: Callable[[Params], Any] | None = None
  consts: Consts = {}  # noqa: RUF012 - never mutated.
  sampling: str = 'paired'
  knows: Callable[[tuple[str, ...]], str | None] | None = None


@dataclasses.dataclass(frozen=True)
class TrainState:
  """Everything a fleet needs to go on; every leaf has a leading seeds axis.

  Attributes:
    step: int32; steps taken. It stands still once a member is not active.
    params: see Model.
    opt_state: {player: optax state}.
    key: root key.
    hyper: {dotted config key: float32}, what may differ between members.
    lr_scale: float32; factor from plateau reduction.
    plateau_best, plateau_bad: score and evaluations without improvement on it.
    best_params, best_score, best_step: by validation score, lowest first.
    bad_evals: evaluations since best_score improved.
    active: bool; false once stopped early or failed.
    failed_step: int32; step of the first non-finite loss or gradient, or -1.
  """

  step: Array
  params: Params
  opt_state: Any
  key: Array
  hyper: dict[str, Array]
  lr_scale: Array
  plateau_best: Array
  plateau_bad: Array
  best_params: Params
  best_score: Array
  best_step: Array
  bad_evals: Array
  active: Array
  failed_step: Array


jax.tree_util.register_dataclass(TrainState)
