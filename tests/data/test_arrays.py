"""Cells on the device: three storages that read alike, and the row tables."""

import handmade
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import sparse

from pertjax import data as data_lib
from pertjax import models, train_step, types
from pertjax.data import arrays


def _random_csr(seed, cells, genes, density):
  """Returns a matrix with empty rows at the start, the middle and the end."""
  random = np.random.default_rng(seed)
  dense = random.gamma(2.0, 1.0, (cells, genes)).astype(np.float32)
  dense[random.random((cells, genes)) > density] = 0
  dense[[0, cells // 2, cells - 1]] = 0
  return sparse.csr_matrix(dense), dense


@pytest.mark.parametrize(
  ('cells', 'genes', 'density'),
  [(3, 1, 1.0), (9, 17, 0.0), (20, 31, 0.1), (20, 31, 0.9), (64, 5, 0.5)],
)
def test_the_three_storages_read_alike(cells, genes, density):
  matrix, dense = _random_csr(cells + genes, cells, genes, density)
  random = np.random.default_rng(1)
  rows = jnp.asarray(
    np.r_[np.arange(cells), random.integers(0, cells, 10)], jnp.int32
  )
  for storage in arrays.STORAGES:
    placed = arrays.place(matrix, storage)
    assert placed.shape == (cells, genes)
    # As an argument, so that a packed matrix passes through jit as a pytree.
    found = jax.jit(arrays.gather)(placed, rows)
    assert found.dtype == jnp.float32
    expected = dense[np.asarray(rows)]
    if storage == 'bfloat16':
      expected = expected.astype(jnp.bfloat16).astype(np.float32)
    np.testing.assert_array_equal(found, expected)


def test_packed_rows_may_be_unsorted_and_repeat_a_column():
  # Entries that repeat a column add up, as scipy has it.
  matrix = sparse.csr_matrix(
    (
      np.float32([5, 1, 2, 7]),
      np.int32([3, 0, 3, 1]),
      np.int32([0, 3, 3, 4]),
    ),
    shape=(3, 4),
  )
  expected = np.float32([[1, 0, 0, 7], [0, 0, 0, 0], [0, 7, 0, 0]])
  for storage in ('float32', 'csr'):
    found = arrays.gather(arrays.place(matrix, storage), jnp.arange(3))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
  ('genes', 'dtype'), [(65535, jnp.uint16), (65536, jnp.int32)]
)
def test_column_numbers_are_as_wide_as_they_must_be(genes, dtype):
  last = genes - 1
  matrix = sparse.csr_matrix(
    (np.float32([1, 2, 3]), ([0, 0, 2], [0, last, last])), shape=(3, genes)
  )
  placed = arrays.place(matrix, 'csr')
  assert placed.columns.dtype == dtype
  found = np.asarray(jax.jit(arrays.gather)(placed, jnp.array([2, 1, 0])))
  np.testing.assert_array_equal(found, matrix.toarray()[::-1])


def test_dense_cells_are_placed_by_blocks():
  """More rows than a block has: none is lost or doubled at the seams."""
  matrix = sparse.random(
    8200, 3, 0.5, format='csr', dtype=np.float32, random_state=0
  )
  placed = arrays.place(matrix, 'float32')
  np.testing.assert_array_equal(placed.values, matrix.toarray())


@pytest.mark.parametrize('storage', arrays.STORAGES)
def test_storage_bytes_are_those_of_the_arrays(storage):
  matrix, _ = _random_csr(3, 40, 30, 0.3)
  placed = arrays.place(matrix, storage)
  found = sum(x.nbytes for x in jax.tree.leaves(placed))
  if storage == 'csr':
    # The padding of one longest row is not counted.
    found -= placed.width * (4 + 2)
  assert found == arrays.storage_bytes(40, 30, matrix.nnz, storage)


def test_check_fits_names_every_size():
  gib = 2**30
  sizes = (100_000, 10_000, 100_000_000)
  arrays.check_fits(*sizes, 'float32', limit=None)
  arrays.check_fits(*sizes, 'csr', limit=gib)
  with pytest.raises(ValueError, match='data.storage') as error:
    arrays.check_fits(*sizes, 'float32', limit=gib)
  text = str(error.value)
  for part in (
    '100,000 cells x 10,000 genes',
    'float32 3.73 GiB',
    'bfloat16 1.86 GiB',
    'csr 0.56 GiB',
    'of 0.80 GiB usable',
    'data.num_hvg',
  ):
    assert part in text, part
  with pytest.raises(ValueError, match="'float16'.*float32, bfloat16, csr"):
    arrays.check_fits(*sizes, 'float16', limit=None)


def test_a_matrix_with_too_many_entries_for_32_bits_is_refused():
  class Huge:
    shape = (10, 20)
    nnz = 2**31
    indptr = np.linspace(0, 2**31, 11).astype(np.int64)

  with pytest.raises(ValueError, match='2,147,483,648 entries'):
    arrays.place(Huge(), 'csr')


def _labels(seed, cells=200):
  random = np.random.default_rng(seed)
  condition = random.integers(0, 5, cells)
  group = random.integers(0, 4, cells)
  group[group == 2] = 3  # No cell at all in group 2.
  condition[group == 0] = np.maximum(condition[group == 0], 1)  # No control.
  return condition, group, random.random(cells) < 0.6


@pytest.mark.parametrize('seed', range(3))
def test_every_slice_of_the_row_tables_is_its_pair(seed):
  condition, group, chosen = _labels(seed)
  rows = jax.tree.map(np.asarray, arrays.make_rows(chosen, condition, group, 4))
  cells = np.arange(len(chosen))
  pairs = sorted(set(zip(condition[chosen], group[chosen])))
  pairs = [pair for pair in pairs if pair[0] != 0]
  assert list(zip(rows.pair_condition, rows.pair_group)) == pairs
  for (c, g), start, count in zip(pairs, rows.pair_start, rows.pair_count):
    expected = cells[chosen & (condition == c) & (group == g)]
    # In ascending order: reading memory forwards.
    np.testing.assert_array_equal(
      rows.perturbed[start : start + count], expected
    )
  for g in range(4):
    start, count = rows.control_start[g], rows.control_count[g]
    expected = cells[chosen & (condition == 0) & (group == g)]
    np.testing.assert_array_equal(rows.control[start : start + count], expected)
  assert rows.control_count[2] == 0
  assert sorted([*rows.perturbed, *rows.control]) == cells[chosen].tolist()


def test_row_tables_of_an_empty_split():
  condition, group, chosen = _labels(0)
  rows = arrays.make_rows(np.zeros_like(chosen), condition, group, 4)
  assert rows.perturbed.shape == rows.pair_start.shape == (0,)
  np.testing.assert_array_equal(rows.control_count, np.zeros(4))


_CONDITIONS = types.Conditions(
  names=('control', 'A', 'B@0.5+C@2'),
  tokens=((), ('A',), ('B', 'C')),
  doses=((), (1.0,), (0.5, 2.0)),
)


def test_condition_tables():
  ids, doses = arrays.condition_tables(_CONDITIONS, ('A', 'B', 'C'))
  np.testing.assert_array_equal(ids, [[-1, -1], [0, -1], [1, 2]])
  np.testing.assert_array_equal(doses, [[0, 0], [1, 0], [0.5, 2]])
  assert ids.dtype == np.int32
  assert doses.dtype == np.float32
  wide, _ = arrays.condition_tables(_CONDITIONS, ('A', 'B', 'C'), order=3)
  np.testing.assert_array_equal(wide[:, 2], [-1, -1, -1])


def test_other_conditions_are_looked_up_by_their_own_ids():
  data, spec = handmade.screen()
  ids, doses = arrays.condition_tables(_CONDITIONS, spec.perturbations)
  other = arrays.with_conditions(data, ids, doses)
  found = arrays.conditions_at(other, jnp.array([2, 0]), jnp.array([1, 0]))
  np.testing.assert_array_equal(found.perturbations, [[1, 2], [-1, -1]])
  np.testing.assert_array_equal(found.doses, [[0.5, 2], [0, 0]])
  np.testing.assert_array_equal(found.covariates, [[1], [0]])
  np.testing.assert_array_equal(found.group, [1, 0])
  assert other.cells is data.cells


def test_a_chunk_of_training_does_not_depend_on_the_storage(tiny_config):
  """Same batches, so the same losses and parameters up to rounding."""
  config = tiny_config('decoder_only')
  config.num_seeds = 1
  config.train.update(chunk=6, steps=6)
  seen = {}
  for storage in ('float32', 'csr'):
    config.data.storage = storage
    data, spec = data_lib.load(config)
    model = models.make(config.model, spec)
    (phase,) = train_step.phases_of(model, config)
    state = train_step.init_fleet(model, config, [0], {}, model.consts)
    program = train_step.make_chunk(model, config, phase, 6)
    state, metrics = program(state, data, model.consts)
    seen[storage] = jax.device_get((state.params, metrics))
    packed = isinstance(data.cells, arrays.PackedCells)
    assert packed == (storage == 'csr')
  for a, b in zip(
    jax.tree.leaves(seen['csr']), jax.tree.leaves(seen['float32'])
  ):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
