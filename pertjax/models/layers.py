"""Building blocks that several models share."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from pertjax import names, types
from pertjax.data import gene_patterns

DTYPES = ('float32', 'bfloat16')


def torch_dense_init(key, shape, dtype=jnp.float32):
  """Draws U(-1/sqrt(fan_in), 1/sqrt(fan_in)), torch's default for Linear."""
  bound = shape[0] ** -0.5
  return jax.random.uniform(key, shape, dtype, -bound, bound)


class Dense(nn.Module):
  """A linear layer with torch's default initialisation of kernel and bias.

  Attributes:
    features: width of the output.
    dtype: compute type; parameters are float32.
  """

  features: int
  dtype: str = 'float32'

  @nn.compact
  def __call__(self, x):
    bound = x.shape[-1] ** -0.5

    def bias_init(key, shape, dtype=jnp.float32):
      return jax.random.uniform(key, shape, dtype, -bound, bound)

    return nn.Dense(
      self.features,
      kernel_init=torch_dense_init,
      bias_init=bias_init,
      dtype=jnp.dtype(self.dtype),
      name='linear',
    )(x)


class Mlp(nn.Module):
  """PerturbBench's MLP: layers of [Linear, LayerNorm, ReLU, Dropout], Linear.

  The LayerNorm has neither scale nor shift, as in the original (perturbench
  version 1; its epsilon is torch's 1e-5).

  Attributes:
    hidden: width of the hidden layers.
    out: width of the output.
    num_layers: hidden layers; 0 leaves one Linear.
    dropout: rate.
    dtype: compute type.
  """

  hidden: int
  out: int
  num_layers: int
  dropout: float = 0.0
  dtype: str = 'float32'

  @nn.compact
  def __call__(self, x, *, deterministic: bool):
    for layer in range(self.num_layers):
      x = Dense(self.hidden, self.dtype, name=f'dense_{layer}')(x)
      x = nn.LayerNorm(
        epsilon=1e-5,
        use_bias=False,
        use_scale=False,
        dtype=jnp.dtype(self.dtype),
        name=f'norm_{layer}',
      )(x)
      x = nn.relu(x)
      x = dropout(self, x, self.dropout, deterministic=deterministic)
    return Dense(self.out, self.dtype, name='dense_out')(x)


def dropout(
  module: nn.Module, x: jax.Array, rate: float, *, deterministic: bool
) -> jax.Array:
  """Zeroes a fraction of entries and scales the rest up.

  The mask comes from 8 random bits an entry instead of 32: a quarter of the
  random numbers, which is what dropout costs on a CPU. The rate is therefore
  rounded to 1/256, and the scale uses the rounded rate, so that the mean is
  exact.
  """
  if deterministic or rate == 0.0:
    return x
  cut = min(255, max(1, round(rate * 256)))
  # random.bits of type uint8 would draw 32 bits an entry and drop 24.
  words = jax.random.bits(
    module.make_rng('dropout'), (-(-x.size // 4),), jnp.uint32
  )
  octets = jax.lax.bitcast_convert_type(words, jnp.uint8).reshape(-1)
  keep = octets[: x.size].reshape(x.shape) >= cut
  return jnp.where(keep, x / (1.0 - cut / 256), jnp.zeros_like(x))


def encode_perturbations(
  condition: types.Condition, num_perturbations: int
) -> jax.Array:
  """Returns one entry for each perturbation, [..., perturbations] float32.

  An entry is 0 where the perturbation is absent and log2(1 + dose) where it is
  there: 1 at dose 1, which is the multi-hot vector of PerturbBench.
  """
  # -1 padding gives an all-zero row.
  hot = jax.nn.one_hot(condition.perturbations, num_perturbations)
  return jnp.sum(hot * jnp.log2(1.0 + condition.doses)[..., None], axis=-2)


def encode_covariates(
  condition: types.Condition, sizes: tuple[int, ...]
) -> jax.Array:
  """Returns the levels of all covariates one-hot, [..., sum of sizes]."""
  parts = [
    jax.nn.one_hot(condition.covariates[..., k], size)
    for k, size in enumerate(sizes)
  ]
  leading = condition.group.shape
  return jnp.concatenate(parts or [jnp.zeros((*leading, 0))], axis=-1)


def concatenate(x: jax.Array, y: jax.Array) -> jax.Array:
  """Joins features, broadcasting a leading axis of 1."""
  cells = max(x.shape[0], y.shape[0])
  return jnp.concatenate(
    [jnp.broadcast_to(a, (cells, a.shape[-1])) for a in (x, y)], axis=-1
  )


def known_perturbations(
  spec: types.DataSpec,
) -> Callable[[tuple[str, ...]], str | None]:
  """Returns Model.knows of a model that learns a vector per perturbation."""
  trained = {p for p, t in zip(spec.perturbations, spec.trained) if t}

  def knows(tokens: tuple[str, ...]) -> str | None:
    missing = [t for t in tokens if t not in trained]
    if not missing:
      return None
    return f'{", ".join(missing)} never occurs in training'

  return knows


def check_choice(key: str, value, allowed) -> None:
  """Raises ValueError unless a config value is one of those allowed."""
  if value not in allowed:
    raise ValueError(names.unknown(key, value, allowed))


# ----------------------------------------------------------------------------
# A layer from genes to gene sets (SENA, arXiv 2506.12439, section 3).


class GeneSets(NamedTuple):
  """Which genes belong to which set, as a layer reads it.

  The rows of `genes` are padded to the largest set; weights are one vector,
  set after set, without the padding.

  Attributes:
    genes: int32 [sets, width]; gene of each place, 0 in the padding.
    place: int32 [entries]; where each weight lies in `genes`, flat.
    size: int32 [sets].
  """

  genes: jax.Array
  place: jax.Array
  size: jax.Array


def gene_sets(sets: Mapping[str, Sequence[int]], num_genes: int) -> GeneSets:
  """Tabulates gene sets, in the order that they are given.

  Args:
    sets: {name: gene columns}, as DataSpec.gene_sets.
    num_genes: columns of the expression matrix.

  Raises:
    ValueError: if there are no sets, if some have no measured gene, or if a
      column is no gene.
  """
  table = gene_patterns.table(sets, num_genes)
  return GeneSets(
    genes=jnp.asarray(table.genes),
    place=jnp.asarray(np.flatnonzero(table.mask), jnp.int32),
    size=jnp.asarray(table.mask.sum(1), jnp.int32),
  )


def gene_set_scores(
  weight: jax.Array, cells: jax.Array, sets: GeneSets
) -> jax.Array:
  """Returns the weighted sum of each set's genes, [cells, sets].

  Only the weights of the pattern exist, so that nothing else is stored, sent
  through the optimiser, or decayed by it.

  Args:
    weight: [entries].
    cells: [cells, genes]; nothing is differentiated with respect to them.
    sets: see GeneSets.
  """
  table = jnp.zeros(sets.genes.size, weight.dtype)
  table = table.at[sets.place].set(
    weight, unique_indices=True, indices_are_sorted=True
  )
  # Genes are gathered as rows: a row is contiguous, an entry is not.
  rows = jax.lax.stop_gradient(cells).T[sets.genes]
  return jnp.einsum('swc,sw->cs', rows, table.reshape(sets.genes.shape))


def gene_set_mask(
  sets: GeneSets, num_genes: int, dtype=jnp.float32
) -> jax.Array:
  """Returns the pattern as [genes, sets]: 1 for a member, else 0."""
  width = sets.genes.shape[1]
  mask = jnp.zeros((num_genes, sets.size.shape[0]), dtype)
  return mask.at[sets.genes.reshape(-1)[sets.place], sets.place // width].set(1)


def masked_scores(
  kernel: jax.Array,
  cells: jax.Array,
  mask: jax.Array,
  outside: jax.Array | float,
) -> jax.Array:
  """Returns the scores of a dense layer whose other weights are scaled.

  SENA's layer with lambda (section 3.1): the kernel of a gene outside of a set
  counts `outside` times, and so does its gradient.

  Args:
    kernel: [genes, sets].
    cells: [cells, genes].
    mask: [genes, sets]; 1 for a member, else 0.
    outside: lambda; 0 leaves members only, 1 is an ordinary dense layer.
  """
  factor = jnp.where(mask > 0, jnp.ones((), kernel.dtype), outside)
  return cells @ (kernel * factor.astype(kernel.dtype))


def gene_set_bound(
  sets: GeneSets, num_genes: int, *, fan_in: str = 'genes'
) -> jax.Array:
  """Returns b of the first weights U(-b, b), 1 / sqrt(fan in), [entries].

  Args:
    sets: see GeneSets.
    num_genes: of the data.
    fan_in: 'genes' counts all of them, as a masked dense layer does; 'set' the
      members of each set, which makes first scores larger.
  """
  if fan_in == 'genes':
    return jnp.full(sets.place.shape, num_genes**-0.5)
  size = sets.size[sets.place // sets.genes.shape[1]]
  return size.astype(jnp.float32) ** -0.5


# ----------------------------------------------------------------------------
# First parameters.


class Draw(NamedTuple):
  """How a parameter begins.

  Attributes:
    kind: 'normal', 'uniform' (from -1 to 1), 'zeros' or 'ones'.
    shape: of the parameter.
    scale: factor; a number, or an array that broadcasts.
  """

  kind: str
  shape: tuple[int, ...]
  scale: jax.Array | float = 1.0


def torch_linear(fan_in: int, fan_out: int) -> dict[str, Draw]:
  """Returns torch's default of a linear layer, kernel and bias."""
  bound = fan_in**-0.5
  return {
    'kernel': Draw('uniform', (fan_in, fan_out), bound),
    'bias': Draw('uniform', (fan_out,), bound),
  }


def draw(key: jax.Array, wanted, dtype=jnp.float32):
  """Draws a tree of parameters, with one call for each kind.

  A call for each parameter would be most of what an initialisation compiles.

  Args:
    key: consumed.
    wanted: tree of Draw.
    dtype: of the parameters.
  """
  leaves, tree = jax.tree.flatten(wanted, is_leaf=lambda x: isinstance(x, Draw))
  sizes = {
    kind: [math.prod(leaf.shape) for leaf in leaves if leaf.kind == kind]
    for kind in ('normal', 'uniform')
  }
  normal_key, uniform_key = jax.random.split(key)
  values = {
    'normal': jax.random.normal(normal_key, (sum(sizes['normal']),), dtype),
    'uniform': jax.random.uniform(
      uniform_key, (sum(sizes['uniform']),), dtype, -1.0, 1.0
    ),
  }
  parts = {
    kind: iter(jnp.split(values[kind], np.cumsum(sizes[kind])[:-1]))
    if sizes[kind]
    else iter(())
    for kind in values
  }
  out = []
  for leaf in leaves:
    if leaf.kind in parts:
      scale = jnp.asarray(leaf.scale, dtype)
      out.append(scale * next(parts[leaf.kind]).reshape(leaf.shape))
    else:
      fill = {'zeros': jnp.zeros, 'ones': jnp.ones}[leaf.kind]
      out.append(fill(leaf.shape, dtype))
  return jax.tree.unflatten(tree, out)
