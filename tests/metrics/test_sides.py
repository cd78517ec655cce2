"""Sides: sums of labels in blocks, from memory and from files."""

import h5py
import numpy as np
import pytest
from anndata.io import write_elem
from numpy import testing
from scipy import sparse

from pertjax.metrics import sides
from pertjax.metrics.anndata import inputs

LABELS = 5


@pytest.fixture
def values():
  random = np.random.default_rng(0)
  return (
    random.poisson(0.7, (203, 11)) * random.random((203, 11))
  ).astype(np.float32)  # fmt: skip


@pytest.fixture
def labels():
  return np.random.default_rng(1).integers(-1, LABELS, 203).astype(np.int32)


def in_file(tmp_path, values, kind):
  file = h5py.File(tmp_path / 'x.h5', 'w')
  write_elem(
    file, 'X', values if kind == 'dense' else sparse.csr_matrix(values)
  )
  if kind == 'dense':
    return file['X']
  found = file['X']
  return inputs.StoredRows(
    found['data'], found['indices'], found['indptr'][...], values.shape
  )


def expected(values, labels, function=lambda x: x):
  return np.stack(
    [
      function(values[labels == i].astype(np.float64)).mean(0)
      for i in range(LABELS)
    ]
  )


@pytest.mark.parametrize('small', [False, True])
@pytest.mark.parametrize(
  'kind', ['array', 'csr', 'csr_array', 'file dense', 'file csr']
)
def test_moments(tmp_path, monkeypatch, values, labels, kind, small):
  if small:
    monkeypatch.setattr(sides, 'BLOCK_BYTES', 700)
  if kind.startswith('file'):
    matrix = in_file(tmp_path, values, kind.split()[1])
  else:
    matrix = {
      'array': np.asarray,
      'csr': sparse.csr_matrix,
      'csr_array': sparse.csr_array,
    }[kind](values)
  side = sides.Side(matrix, labels, LABELS)
  testing.assert_allclose(side.mean, expected(values, labels), rtol=1e-13)
  square = expected(values, labels, np.square)
  testing.assert_allclose(
    side.variance, square - expected(values, labels) ** 2, atol=1e-12
  )
  share = expected(values, labels, lambda x: x != 0)
  testing.assert_allclose(side.detected, share, rtol=1e-14)
  testing.assert_array_equal(
    side.sizes, [(labels == i).sum() for i in range(LABELS)]
  )


@pytest.mark.parametrize('kind', ['dense', 'csr'])
def test_rows_of_a_file_in_any_order(tmp_path, monkeypatch, values, kind):
  monkeypatch.setattr(sides, 'BLOCK_BYTES', 2000)
  monkeypatch.setattr(sides, '_GAP_BYTES', 300)
  matrix = in_file(tmp_path, values, kind)
  rows = np.asarray([200, 3, 3, 4, 90, 0, 88, 5, 202, 4])
  side = sides.Side(matrix, np.arange(10) % 3, 3, rows=rows)
  block, position = side.cells([2, 0])
  order = np.asarray([2, 5, 8, 0, 3, 6, 9])
  testing.assert_array_equal(sides.dense(block), values[rows[order]])
  testing.assert_array_equal(position, [0, 0, 0, 1, 1, 1, 1])
  testing.assert_allclose(
    side.mean,
    [values[rows[i::3]].astype(np.float64).mean(0) for i in range(3)],
    rtol=1e-13,
  )
  none, position = side.cells([])
  assert none.shape == (0, 11)
  assert len(position) == 0


def test_memory_is_bounded(tmp_path, monkeypatch, values, labels):
  """No block is larger than BLOCK_BYTES, whatever the side is made of."""
  monkeypatch.setattr(sides, 'BLOCK_BYTES', 1000)
  for kind in ('dense', 'csr'):
    matrix = in_file(tmp_path, values, kind)
    stored = sparse.csr_matrix(values).nnz / len(values)
    for side in (
      sides.Side(matrix, labels, LABELS),
      sides.Side(matrix, labels[::-1], LABELS, rows=np.arange(203)[::-1]),
      sides.Side(matrix, labels, LABELS, shift=np.zeros((LABELS, 11))),
    ):
      blocks = list(side.blocks())
      assert len(blocks) > 4
      for _, block in blocks:
        if kind == 'dense' or side.shift is not None:
          assert block.size * 8 <= 1000
        else:
          assert block.shape[0] <= 1000 / (32 * stored)
    (matrix if kind == 'dense' else matrix.data).file.close()


def test_a_file_is_read_in_few_pieces(monkeypatch, values):
  """Scattered rows are bridged, far ones are not read."""
  read = []

  class File:
    """What a dataset in a file is to a side."""

    shape, dtype = values.shape, values.dtype

    def __getitem__(self, rows):
      read.append((rows.start, rows.stop))
      return values[rows]

  monkeypatch.setattr(sides, '_GAP_BYTES', 10 * 8 * 11)
  rows = np.asarray([0, 2, 4, 6, 150, 151])
  side = sides.Side(File(), np.zeros(6, int), 1, rows=rows)
  testing.assert_array_equal(side.cells([0])[0], values[rows])
  assert read == [(0, 7), (150, 152)]


def test_same_cells_have_the_very_same_sums(monkeypatch, values):
  """Wherever blocks end: a pool that several labels share ties exactly."""
  pool = np.sort(np.random.default_rng(0).permutation(203)[:50])
  for matrix in (values, sparse.csr_matrix(values)):
    for size in (500, 1700, 1 << 20):
      monkeypatch.setattr(sides, 'BLOCK_BYTES', size)
      side = sides.Side(
        matrix, np.repeat(np.arange(4), 50), 4, rows=np.tile(pool, 4)
      )
      assert (side.mean == side.mean[0]).all()


@pytest.mark.parametrize(
  'dtype', [np.bool_, np.uint8, np.int32, np.int64, np.float16, np.float64]
)
def test_types(values, labels, dtype):
  whole = (values * 300).astype(dtype)
  for matrix in (whole, sparse.csr_matrix(whole.astype(np.float64))):
    side = sides.Side(matrix, labels, LABELS)
    testing.assert_allclose(side.mean, expected(whole, labels), rtol=1e-13)
    square = expected(whole, labels, np.square)
    spread = square - expected(whole, labels) ** 2
    testing.assert_allclose(side.variance, spread, atol=1e-10 * square.max())


def test_sparse_as_it_may_be(values, labels):
  """Unsorted, with stored zeros, repeats and either type of index."""
  matrix = sparse.csr_matrix(values)
  for kind in (np.int32, np.int64):
    twice = sparse.csr_matrix(values)
    twice.data = twice.data / 2
    data = np.concatenate([np.repeat(twice.data, 2), np.zeros(3, 'f4')])
    indices = np.concatenate([np.repeat(twice.indices, 2), [0, 1, 2]])
    indptr = twice.indptr * 2
    indptr[-1] += 3
    # Backwards within each row.
    for a, b in zip(indptr, indptr[1:]):
      data[a:b], indices[a:b] = data[a:b][::-1].copy(), indices[a:b][::-1]
    odd = sparse.csr_matrix(values.shape, dtype=np.float32)
    odd.data, odd.indices = data, indices.astype(kind)
    odd.indptr = indptr.astype(kind)
    before = odd.data.copy(), odd.indices.copy(), odd.indptr.copy()
    plain, side = (sides.Side(m, labels, LABELS) for m in (matrix, odd))
    testing.assert_allclose(side.mean, plain.mean, rtol=1e-12)
    testing.assert_allclose(side.variance, plain.variance, atol=1e-12)
    testing.assert_allclose(side.detected, plain.detected, rtol=1e-12)
    after = odd.data, odd.indices, odd.indptr
    for a, b in zip(before, after):
      testing.assert_array_equal(a, b)
      assert a.dtype == b.dtype


def test_choices_of_labels_genes_and_cells(values, labels):
  side = sides.Side(values, labels, LABELS, columns=np.asarray([7, 2, 2]))
  some = side.take([3, 1])
  testing.assert_array_equal(some.mean, side.mean[[3, 1]])
  testing.assert_array_equal(some.sizes, side.sizes[[3, 1]])
  testing.assert_array_equal(some.members(0), np.flatnonzero(labels == 3))
  again = side.relabelled([0, 0, 1], 2, cells=np.asarray([5, 9, 9]))
  testing.assert_allclose(
    again.mean,
    [values[[5, 9]][:, [7, 2, 2]].mean(0), values[9, [7, 2, 2]]],
    rtol=1e-6,
  )
  moved = side.relabelled(labels, LABELS, shift=np.ones((LABELS, 3)))
  testing.assert_allclose(moved.mean, side.mean + 1)
  testing.assert_allclose(
    moved.cells([2])[0], side.cells([2])[0] + 1, rtol=1e-6
  )
  with pytest.raises(ValueError, match='shifted side'):
    moved.relabelled(labels, LABELS)


def test_a_label_without_cells_is_nan(values):
  side = sides.Side(values, np.zeros(203, np.int32), 2)
  assert np.isnan(side.mean[1]).all()
  assert np.isnan(side.variance[1]).all()
  assert not np.isnan(side.mean[0]).any()
