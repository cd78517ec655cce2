"""Differential genes against NumPy and scanpy's order."""

import numpy as np
import pytest
from noisy_adata import noisy, read, slow_welch
from scipy import sparse

from pertjax.data import differential, moments


def test_degs_match_the_order_of_scanpy():
  # GEARS' toy: order made with scanpy 1.11.5 by the original; the genes past
  # the given ones are constant and tie.
  genes = np.arange(24)
  keep = genes % 6 != 5

  def base(cell):
    return np.round(1 + 0.1 * genes + 0.05 * cell, 6)

  rows = [base(c) * keep for c in range(4)]
  rows += [
    (base(c) + 0.5 * np.sin(genes + 1)) * keep + 0.2 * c * (genes == 5)
    for c in range(3)
  ]
  rows += [
    (base(c) + 0.8 * np.cos(genes)) * keep * (genes != 2) for c in range(3)
  ]
  ranked = differential.degs(
    sparse.csr_matrix(np.array(rows, np.float32)),
    np.repeat([0, 1, 2], [4, 3, 3]),
    np.zeros(10, int),
    num=24,
  )
  assert ranked[1, 0][:21].tolist() == [
    10, 16, 4, 13, 7, 22, 19, 1, 3, 0, 20, 6, 14, 9, 12, 8, 15, 5, 18, 2, 21,
  ]  # fmt: skip
  assert ranked[2, 0][:20].tolist() == [
    2, 22, 3, 16, 0, 19, 9, 6, 13, 10, 12, 15, 7, 4, 18, 21, 1, 20, 8, 14,
  ]  # fmt: skip
  assert ranked[1, 0][21:].tolist() == [11, 17, 23]


@pytest.mark.parametrize('block', [7, 16384])
def test_degs_match_numpy(monkeypatch, block):
  monkeypatch.setattr(moments, '_BLOCK_ROWS', block)
  raw = read(noisy())
  values = np.log1p(raw.X.toarray())
  ranked = differential.degs(
    sparse.csr_matrix(values), raw.condition_ids, raw.group_ids, num=10
  )
  assert len(ranked) == 6
  for key, columns in ranked.items():
    score = np.abs(slow_welch(raw, values, *key))
    np.testing.assert_array_equal(columns, np.argsort(-score)[:10])


def test_degs_skip_pairs_that_have_no_variance():
  X = sparse.csr_matrix(np.arange(15, dtype=np.float32).reshape(5, 3))
  ids = np.array([0, 0, 1, 1, 2])
  groups = np.zeros(5, int)
  assert set(differential.degs(X, ids, groups, num=2)) == {(1, 0)}
  one_control = np.array([True, False, True, True, True])
  assert not differential.degs(X, ids, groups, num=2, cells=one_control)
  assert not differential.degs(X, ids + 1, groups, num=2)


def test_constant_genes_score_nothing_for_rounding():
  constant = np.float32(np.log1p(0.1))
  X = np.full((30, 2), constant, np.float32)
  X[:, 1] = np.arange(30) % 7
  ranked = differential.degs(
    sparse.csr_matrix(X), np.arange(30) // 17, np.zeros(30, int), num=2
  )
  assert ranked[1, 0].tolist() == [1, 0]
