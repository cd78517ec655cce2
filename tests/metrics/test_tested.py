"""Tests of a problem's conditions: parts, sparse cells and what is said."""

import closed_form
import jax
import numpy as np
import pytest
from numpy import testing
from scipy import sparse

from pertjax.metrics import problem as problem_lib
from pertjax.metrics import tested
from pertjax.metrics.differential import table


def problem_of(kind, fixture=closed_form.fixture_a, control='ctrl', **options):
  """Returns the problem of a fixture, its matrices made by `kind`."""
  (a, names), (b, others) = fixture('observed'), fixture('predicted')
  return problem_lib.from_arrays(
    kind(a), names, kind(b), others, control=control,
    genes=closed_form.GENES_72, **options,
  )  # fmt: skip


def by_hand(problem, side, control, **options):
  """Tests the conditions of each group on dense cells."""
  shape = (problem.num_conditions, len(problem.genes))
  out = table.DE(*(np.full(shape, np.nan) for _ in table.DE._fields))
  for group in range(len(problem.groups)):
    chosen = np.flatnonzero(problem.group == group)
    reference, zeros, cells, position = problem.test_cells(
      side, group, chosen, control=control
    )
    with jax.enable_x64(True):
      found = jax.jit(table.de, static_argnames='num_conditions')(
        np.concatenate([reference, cells]).astype(np.float64),
        np.concatenate([zeros, position]),
        num_conditions=len(chosen) + 1,
        **options,
      )
    for kept, new in zip(out, found):
      kept[chosen] = np.asarray(new)[1:]
  return out


@pytest.mark.parametrize('control', ['own', 'real'])
def test_de_is_that_of_the_arrays(control):
  problem = problem_of(np.asarray)
  found = tested.de(problem, 'predicted', tested.Settings(control=control))
  expected = by_hand(problem, 'predicted', control)
  for name in ('p', 'fdr', 'log2_fold_change', 'statistic'):
    testing.assert_allclose(
      getattr(found, name), getattr(expected, name), rtol=1e-8, err_msg=name
    )
  # Once, and the same for whoever asks again.
  settings = tested.Settings(control=control)
  assert tested.de(problem, 'predicted', settings) is found


@pytest.mark.parametrize(
  ('engine', 'cells'),
  [('illico', 1), ('illico', 25), ('illico', 40_000), ('jax', 40_000)],
)
def test_the_same_in_parts_and_sparse(monkeypatch, engine, cells):
  if engine == 'illico':
    pytest.importorskip('illico')
  settings = tested.Settings()
  expected = tested.de(problem_of(np.asarray), 'observed', settings)
  monkeypatch.setattr(tested, '_BYTES', cells * 72 * 8)
  for kind in (np.asarray, sparse.csr_matrix):
    problem = problem_of(kind, engine=engine)
    found = tested.de(problem, 'observed', settings)
    for name in table.DE._fields:
      testing.assert_allclose(
        getattr(found, name), getattr(expected, name), rtol=1e-9, err_msg=name
      )
    assert list(problem.said) == [
      f'differential expression by {engine}: as asked'
    ]


def test_groups_have_their_own_control():
  problem = closed_form.problem_t()
  found = tested.de(problem, 'observed', tested.Settings())
  expected = by_hand(problem, 'observed', 'own')
  testing.assert_allclose(found.p, expected.p, rtol=1e-8)
  assert not np.allclose(found.p[:4], found.p[4:])


def test_per_million():
  counts, _ = closed_form.fixture_b('observed')
  counts[3] = 0
  scaled = tested.per_million(counts.astype(np.int32))
  assert scaled.dtype == np.float64
  whole = np.full(len(counts), 1e6)
  whole[3] = 0
  testing.assert_allclose(scaled.sum(1), whole)
  for kind in (sparse.csr_matrix, sparse.csr_array):
    found = tested.per_million(kind(counts.astype(np.float32)))
    assert sparse.issparse(found)
    testing.assert_allclose(found.toarray(), scaled, rtol=1e-12)


@pytest.mark.parametrize('on', ['either', 'control'])
def test_counts_per_million_are_filtered(on):
  settings = tested.Settings(
    mean='arithmetic',
    pseudocount=1e-9,
    per_million=True,
    cpm_filter=9000.0,
    cpm_filter_on=on,
  )
  options = {
    'fixture': closed_form.fixture_b,
    'control': 'non-targeting',
    'scale': 'counts',
  }
  found = [
    tested.de(problem_of(kind, **options), 'observed', settings)
    for kind in (np.asarray, sparse.csr_matrix)
  ]
  testing.assert_allclose(found[0].fdr, found[1].fdr, rtol=1e-9)
  problem = problem_of(np.asarray, **options)
  means = np.stack(
    [
      tested.per_million(problem.observed.cells([label])[0]).mean(0)
      for label in range(problem.observed.num_labels)
    ]
  )
  known = np.broadcast_to(means[-1] > 9000, means[:-1].shape)
  if on == 'either':
    known = known | (means[:-1] > 9000)
  testing.assert_array_equal(~np.isnan(found[0].fdr), known)
  assert 0 < known.sum() < known.size
