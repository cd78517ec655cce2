"""What is drawn, how often, and which control goes with it."""

import dataclasses

import handmade
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pertjax import types
from pertjax.data import sampling


@pytest.fixture(scope='module')
def screen():
  return handmade.screen(copies=7, controls=15)


def _rows_of(values, data):
  """Finds the row of each cell by its values, which no two cells share."""
  table = np.asarray(data.cells.values)
  return np.argmin(
    np.abs(np.asarray(values)[:, None] - table[None]).sum(-1), axis=1
  )


def _chi_square(counts):
  """Returns how many standard deviations a uniform draw's statistic is off."""
  expected = counts.sum() / len(counts)
  freedom = len(counts) - 1
  statistic = ((counts - expected) ** 2 / expected).sum()
  return (statistic - freedom) / np.sqrt(2 * freedom)


def _draws(name, data, rows, size=4000):
  draw = jax.jit(lambda key: sampling.get(name)(key, data, rows, size))
  return draw(jax.random.key(0))


def test_paired_draws_every_perturbed_cell_alike(screen):
  data, _ = screen
  batch = _draws('paired', data, data.train)
  found = _rows_of(batch.target, data)
  counts = np.bincount(found, minlength=data.condition.shape[0])
  allowed = np.asarray(data.train.perturbed)
  assert counts.sum() == counts[allowed].sum()
  assert abs(_chi_square(counts[allowed])) < 4
  np.testing.assert_array_equal(batch.weight, np.ones(4000))
  # The labels that come with a cell are its own.
  condition = np.asarray(data.condition)[found]
  np.testing.assert_array_equal(
    batch.condition.perturbations,
    np.asarray(data.condition_perturbations)[condition],
  )
  np.testing.assert_array_equal(batch.condition.group, data.group[found])


@pytest.mark.parametrize('part', ['train', 'val', 'test'])
@pytest.mark.parametrize('name', ['paired', 'by_condition'])
def test_controls_are_of_the_same_group_and_split(screen, name, part):
  data, spec = screen
  rows = getattr(data, part)
  batch = _draws(name, data, rows, 600)
  target, source = _rows_of(batch.target, data), _rows_of(batch.source, data)
  code = types.SPLITS.index(part)
  assert (spec.split.cells[source] == code).all()
  assert (spec.split.cells[target] == code).all()
  assert (np.asarray(data.condition)[source] == 0).all()
  np.testing.assert_array_equal(data.group[source], data.group[target])
  if name == 'paired':
    # And all of them are drawn.
    assert set(source) == set(np.asarray(rows.control).tolist())


def test_controls_are_drawn_alike(screen):
  data, _ = screen
  group = jnp.zeros(6000, jnp.int32)
  found = sampling.draw_controls(jax.random.key(1), data.train, group)
  count = int(data.train.control_count[0])
  start = int(data.train.control_start[0])
  counts = np.bincount(found, minlength=data.condition.shape[0])
  own = np.asarray(data.train.control)[start : start + count]
  assert counts[own].sum() == 6000
  assert abs(_chi_square(counts[own])) < 4


def test_cells_draws_controls_too_and_no_source(screen):
  data, _ = screen
  batch = _draws('cells', data, data.train)
  assert batch.source is None
  counts = np.bincount(
    _rows_of(batch.target, data), minlength=data.condition.shape[0]
  )
  allowed = np.r_[data.train.perturbed, data.train.control]
  assert counts.sum() == counts[allowed].sum()
  assert abs(_chi_square(counts[allowed])) < 4


def test_by_condition_has_one_condition_and_draws_them_alike():
  # Pairs of very different size, which must not matter.
  labels = ['control'] * 4 + ['A'] * 40 + ['B'] * 2 + ['C'] * 10
  values = np.arange(len(labels), dtype=np.float32)[:, None]
  data, _ = handmade.dataset(values, labels)

  @jax.jit
  @jax.vmap
  def draw(key):
    batch = sampling.by_condition(key, data, data.train, 8)
    return batch.condition.perturbations[:, 0], batch.target[:, 0]

  tokens, target = jax.device_get(
    draw(jax.random.split(jax.random.key(0), 900))
  )
  assert (tokens == tokens[:, :1]).all()
  assert abs(_chi_square(np.bincount(tokens[:, 0], minlength=3))) < 4
  # Within a condition, cells alike.
  for token, start, count in ((0, 4, 40), (1, 44, 2), (2, 46, 10)):
    cells = target[tokens[:, 0] == token].ravel().astype(int) - start
    assert abs(_chi_square(np.bincount(cells, minlength=count))) < 4


@pytest.mark.parametrize('size', [1, 5, 1000])
@pytest.mark.parametrize('name', ['paired', 'cells', 'by_condition'])
def test_evaluation_covers_every_cell_once(screen, name, size):
  data, _ = screen
  rows, weight = jax.jit(
    lambda d: sampling.evaluation_batches(name, d, d.test, size)
  )(data)
  assert rows.shape == weight.shape
  assert rows.shape[1] == size
  assert set(np.unique(weight)) <= {0.0, 1.0}
  counted = np.sort(np.asarray(rows)[np.asarray(weight) == 1])
  expected = np.asarray(data.test.perturbed)
  if name == 'cells':
    expected = np.r_[expected, data.test.control]
  np.testing.assert_array_equal(counted, np.sort(expected))
  if name == 'by_condition':
    pair = np.asarray(data.condition * 2 + data.group)[np.asarray(rows)]
    assert (pair == pair[:, :1]).all()


def test_evaluation_batches_of_an_empty_split(screen):
  data, _ = screen
  empty = dataclasses.replace(
    data.val, perturbed=jnp.zeros(0, jnp.int32), control=jnp.zeros(0, jnp.int32)
  )
  rows, weight = sampling.evaluation_batches('cells', data, empty, 7)
  assert rows.shape == weight.shape == (0, 7)


def _evaluation_batch(name, data, rows, size, number):
  @jax.jit
  def batch(data, rows):
    target, weight = sampling.evaluation_batches(name, data, rows, size)
    target, weight = target[number], weight[number]
    batch = sampling.evaluation_batch(
      name, jax.random.key(0), data, rows, target, weight
    )
    return target, weight, batch

  return jax.device_get(batch(data, rows))


def test_an_evaluation_batch_brings_what_the_sampler_does(screen):
  data, spec = screen
  rows, weight, batch = _evaluation_batch('paired', data, data.test, 16, -1)
  np.testing.assert_array_equal(batch.weight, weight)
  assert 0 < weight.sum() < 16
  source = _rows_of(batch.source, data)
  assert (spec.split.cells[source] == types.TEST).all()
  np.testing.assert_array_equal(data.group[source], data.group[rows])
  np.testing.assert_array_equal(_rows_of(batch.target, data), rows)
  assert _evaluation_batch('cells', data, data.test, 16, 0)[2].source is None


def test_fixed_partners_are_used_in_training_and_validation(screen):
  data, _ = screen
  partner = np.full(data.condition.shape[0], -1)
  random = np.random.default_rng(0)
  for part in (data.train, data.val, data.test):
    control = np.asarray(part.control)
    partner[np.asarray(part.perturbed)] = random.choice(
      control, part.perturbed.shape[0]
    )
  data = dataclasses.replace(data, partner=jnp.asarray(partner, jnp.int32))
  batch = _draws('paired', data, data.train, 100)
  np.testing.assert_array_equal(
    _rows_of(batch.source, data), partner[_rows_of(batch.target, data)]
  )
  rows, _, batch = _evaluation_batch('paired', data, data.val, 100, 0)
  np.testing.assert_array_equal(_rows_of(batch.source, data), partner[rows])


def test_where_every_control_trains_validation_takes_those():
  labels = ['control', 'control', 'A', 'B', 'A+B', 'A+B']
  parts = [0, 0, 0, 0, 1, 1]
  data, _ = handmade.dataset(np.eye(6), labels, parts=parts)
  _, _, batch = _evaluation_batch('paired', data, data.val, 4, 0)
  assert set(_rows_of(batch.source, data)) <= {0, 1}


def test_samplers_by_name():
  assert sampling.get('paired') is sampling.paired
  assert sampling.get('pertjax.data.sampling.cells') is sampling.cells
  with pytest.raises(ValueError, match="'pared'.*closest: paired") as error:
    sampling.get('pared')
  assert 'paired, cells, by_condition' in str(error.value)
  with pytest.raises(ValueError, match="sampling has no function 'cell'"):
    sampling.get('pertjax.data.sampling.cell')
