"""Pseudobulks of counts and their errors without noise, against loops."""

import dataclasses

import closed_form
import jax
import numpy as np
import pytest
from numpy import testing
from scipy import sparse

from pertjax.metrics import bulk, sides

TARGET = 5e4


@pytest.fixture(autouse=True)
def double():
  with jax.enable_x64(True):
    yield


def counts(seed=0, sizes=(7, 1, 12, 5), genes=9, level=3.0):
  random = np.random.default_rng(seed)
  labels = random.permutation(np.repeat(np.arange(len(sizes)), sizes))
  rate = random.gamma(1.0, level, (len(sizes), genes))
  cells = random.poisson(rate[labels] * random.gamma(4, 0.25, (len(labels), 1)))
  return cells.astype(np.float64), labels.astype(np.int32)


def side_of(cells, labels, **options):
  return sides.Side(cells, labels, int(labels.max()) + 1, **options)


def slow_bulk(cells):
  return np.log1p(TARGET * cells.sum(0) / max(cells.sum(), 1))


def slow_noise(cells):
  """C by leaving out one cell after the other."""
  number = len(cells)
  if number < 2:
    return 0.0
  values = np.stack(
    [slow_bulk(np.delete(cells, i, axis=0)) for i in range(number)]
  )
  return (number - 1) / number * ((values - values.mean(0)) ** 2).sum()


def check(side, cells, labels):
  found = bulk.bulk(side)
  number = side.num_labels
  expected = [slow_bulk(cells[labels == p]) for p in range(number)]
  testing.assert_allclose(found.value, expected, rtol=1e-12)
  expected = [slow_noise(cells[labels == p]) for p in range(number)]
  testing.assert_allclose(found.noise, expected, rtol=1e-10)


@pytest.mark.parametrize('form', ['dense', 'float32', 'csr', 'rows'])
def test_against_leaving_cells_out(form):
  cells, labels = counts()
  if form == 'rows':  # Repeats, and cells that are not read.
    rows = np.array([3, 3, 9, 0, 11, 14, 20, 20, 20, 1])
    rows = np.append(rows, np.flatnonzero(labels == 1))
    check(side_of(cells, labels[rows], rows=rows), cells[rows], labels[rows])
    return
  matrix = {
    'dense': cells,
    'float32': cells.astype(np.float32),
    'csr': sparse.csr_matrix(cells.astype(np.float32)),
  }[form]
  check(side_of(matrix, labels), cells, labels)


@pytest.mark.parametrize('is_sparse', [False, True])
def test_blocks_change_nothing(monkeypatch, is_sparse):
  cells, labels = counts(sizes=(40, 3, 25))
  matrix = sparse.csr_matrix(cells) if is_sparse else cells
  whole = bulk.bulk(side_of(matrix, labels))
  monkeypatch.setattr(sides, 'BLOCK_BYTES', 8 * 9 * 2)
  monkeypatch.setattr(bulk, '_VALUES', 27)
  parts = bulk.bulk(side_of(matrix, labels))
  testing.assert_allclose(parts.noise, whole.noise, rtol=1e-12)
  testing.assert_allclose(parts.value, whole.value, rtol=1e-12)


def test_small_noise_of_large_values_keeps_its_digits():
  random = np.random.default_rng(0)
  cells = 1e6 + random.integers(0, 2, (50, 9)).astype(np.float64)
  found = bulk.bulk(side_of(cells, np.zeros(50, np.int32)))
  testing.assert_allclose(found.noise, [slow_noise(cells)], rtol=1e-3)


def test_edges():
  cells = np.zeros((6, 4))
  cells[2] = [3, 0, 1, 0]  # All counts of label 1 are in one cell.
  labels = np.array([0, 0, 1, 1, 3, -1], np.int32)
  found = bulk.bulk(side_of(cells, labels))
  testing.assert_array_equal(found.value[[0, 3]], 0)
  assert np.isnan(found.value[2]).all()
  testing.assert_allclose(
    found.noise, [0, slow_noise(cells[2:4]), 0, 0], atol=1e-12
  )


def test_noise_of_some():
  cells, labels = counts()
  side = side_of(cells, labels)
  whole, some = bulk.bulk(side), bulk.bulk(side, noise_of=[2])
  testing.assert_allclose(some.noise[2], whole.noise[2])
  assert np.isnan(some.noise[[0, 1, 3]]).all()
  none = bulk.bulk(side, noise_of=[])
  assert np.isnan(none.noise).all()
  testing.assert_array_equal(none.value, whole.value)


@pytest.mark.parametrize('is_sparse', [False, True])
def test_what_are_not_counts(is_sparse):
  cells, labels = counts()
  cells[4, 2] = -1.5
  matrix = sparse.csr_matrix(cells) if is_sparse else cells
  with pytest.raises(ValueError, match=r'-1\.5'):
    bulk.bulk(side_of(matrix, labels))
  with pytest.raises(ValueError, match='target_sum'):
    bulk.values(side_of(np.abs(cells), labels), target_sum=0)


def test_noise_is_what_bulks_vary_by():
  # E |b_A - b_B|^2 = C_A + C_B for two draws of one population.
  cells, labels = counts(seed=5, sizes=(60,) * 80, genes=12, level=40.0)
  random = np.random.default_rng(6)
  cells = random.poisson(30.0 * np.linspace(0.5, 2, 12), cells.shape)
  found = bulk.bulk(side_of(cells.astype(float), labels))
  apart = ((found.value[::2] - found.value[1::2]) ** 2).sum(1)
  claimed = found.noise[::2] + found.noise[1::2]
  testing.assert_allclose(apart.mean(), claimed.mean(), rtol=0.15)


# ----------------------------------------------------------------------------
# Errors.


def slow_errors(b_hat, b, b_0, c_hat, c, c_0, own):
  """N, D and rho by loops over conditions and genes."""
  number, genes = b.shape
  keep = [[g for g in range(genes) if not own[p, g]] for p in range(number)]
  budget = 0.0
  for g in range(genes):
    rows = [p for p in range(number) if g in keep[p]]
    if len(rows) < 2:
      continue
    weight = np.array([1 / len(keep[p]) for p in rows])
    values = b_hat[rows, g]
    mean = (weight * values).sum() / weight.sum()
    budget += (weight * (values - mean) ** 2).sum()
  claim = sum(min(c_hat[p], c[p]) / len(keep[p]) for p in range(number))
  rho = min(1, budget / claim)
  error, distance = [], []
  for p in range(number):
    k = keep[p]
    claimed = rho * min(c_hat[p], c[p]) + c[p]
    error.append((((b_hat[p] - b[p])[k] ** 2).sum() - claimed) / len(k))
    spent = c[p] + c_0[p]
    distance.append((((b[p] - b_0[p])[k] ** 2).sum() - spent) / len(k))
  return np.array(error), np.array(distance), rho


def panel(spread, seed=0, number=6, genes=8):
  """Bulks and noises; `spread` is how much predictions differ."""
  random = np.random.default_rng(seed)
  b, b_0 = random.normal(3, 1, (2, number, genes))
  b_hat = random.normal(3, 1, (1, genes)) + spread * random.normal(size=b.shape)
  c_hat, c, c_0 = random.gamma(4, 0.1, (3, number))
  own = random.random((number, genes)) < 0.15
  own[0] = False
  return b_hat, b, b_0, c_hat, c, c_0, own


@pytest.mark.parametrize(('spread', 'bound'), [(1.0, False), (0.1, True)])
def test_errors_against_loops(spread, bound):
  b_hat, b, b_0, c_hat, c, c_0, own = inputs = panel(spread)
  error, distance, rho = slow_errors(*inputs)
  assert (rho < 1) == bound
  testing.assert_allclose(bulk.share(b_hat, c_hat, c, own=own), rho)
  testing.assert_allclose(
    bulk.capped_error(b_hat, b, c_hat, c, own=own), error, rtol=1e-10
  )
  testing.assert_allclose(
    bulk.distance(b, b_0, c, c_0, own=own), distance, rtol=1e-10
  )


def test_the_bound_from_cells():
  # Cells that scatter, dealt so that all predicted bulks are nearly the same:
  # their jackknife claims noise that the bulks do not have.
  problem = closed_form.problem_b()
  cells = sides.dense(problem.observed.matrix)[:16]
  random = np.random.default_rng(0)
  blocks = [random.permuted(cells, axis=0) for _ in problem.conditions]
  labels = np.repeat(np.arange(7), [*([16] * 6), 16]).astype(np.int32)
  predicted = side_of(np.concatenate([*blocks, cells]), labels)
  made = {'b': bulk.bulk(problem.observed), 'b_hat': bulk.bulk(predicted)}
  b, b_hat = made['b'], made['b_hat']
  own = problem.target_mask
  error, distance, rho = slow_errors(
    b_hat.value[:6], b.value[:6], b.value[[6] * 6],
    b_hat.noise[:6], b.noise[:6], b.noise[[6] * 6], own,
  )  # fmt: skip
  assert rho < 1e-6
  found = bulk.capped_error(
    b_hat.value[:6], b.value[:6], b_hat.noise[:6], b.noise[:6], own=own
  )
  testing.assert_allclose(found, error, rtol=1e-9)
  unbounded = bulk.error(
    b_hat.value[:6], b.value[:6], b_hat.noise[:6], b.noise[:6], own=own
  )
  assert (np.asarray(unbounded) < error - 1e-3).all()
  assert np.isfinite(distance).all()


def test_fixture_b():
  problem = closed_form.problem_b()
  b, b_hat = bulk.bulk(problem.observed), bulk.bulk(problem.predicted)
  own = problem.target_mask
  arguments = b_hat.value[:6], b.value[:6], b_hat.noise[:6], b.noise[:6]
  assert bulk.share(b_hat.value[:6], *arguments[2:], own=own) == 1
  error = bulk.capped_error(*arguments, own=own)
  distance = bulk.distance(
    b.value[:6], b.value[[6] * 6], b.noise[:6], b.noise[[6] * 6], own=own
  )
  assert error.sum() / distance.sum() == pytest.approx(0.565167401, abs=1e-8)


def test_a_copy_of_the_control_is_at_one():
  b_hat, b, b_0, _, c, c_0, own = panel(1.0)
  b_0[:], c_0[:] = b_0[0], c_0[0]
  large = np.maximum(c, c_0)  # Where the cap does not bind.
  error = bulk.error(b_0, b, c_0, large, own=own)
  distance = bulk.distance(b, b_0, large, c_0, own=own)
  testing.assert_allclose(error, distance)
  # One block of cells for all conditions has no spread, and gets no noise.
  assert bulk.share(b_0, c_0, large, own=own) == pytest.approx(0)


def test_nothing_is_left_without_genes():
  b_hat, b, b_0, c_hat, c, c_0, _ = panel(1.0)
  own = np.zeros(b.shape, bool)
  own[1] = True
  error = np.asarray(bulk.capped_error(b_hat, b, c_hat, c, own=own))
  assert np.isnan(error[1])
  assert np.isfinite(np.delete(error, 1)).all()
  one = [x[:1] for x in (b_hat, b, c_hat, c)]
  assert bulk.share(one[0], one[2], one[3]) == 0  # No others to differ from.
  assert np.isfinite(bulk.capped_error(*one)).all()


def test_sides_are_not_changed():
  cells, labels = counts()
  before = cells.copy()
  side = side_of(cells, labels)
  bulk.bulk(dataclasses.replace(side))
  testing.assert_array_equal(cells, before)
