"""Genes that are wanted, perturbed, missing or spelled otherwise."""

import numpy as np
import pytest

from pertjax.data import genes


def test_align_finds_columns_and_counts_what_is_missing():
  found = genes.align(['A', 'B', 'C'], ['C', 'A'])
  assert found.columns.tolist() == [2, 0]
  assert found.columns.dtype == np.int32
  assert found.notes == ()
  partial = genes.align(['A', 'B'], ['B', 'Z'], allow_missing=True)
  assert partial.columns.tolist() == [1, -1]
  assert partial.missing == ('Z',)
  assert partial.notes == ("1 of 2 wanted genes are not in the data: 'Z'",)


def test_align_reports_letter_case():
  with pytest.raises(ValueError, match='would match.*letter case'):
    genes.align(['Actb', 'B'], ['ACTB', 'B'])
  found = genes.align(['Actb', 'B'], ['ACTB', 'B'], ignore_case=True)
  assert found.columns.tolist() == [0, 1]
  assert 'ACTB as Actb' in found.notes[0]
  # Two candidates: neither is taken.
  with pytest.raises(ValueError, match='not in the data'):
    genes.align(['Actb', 'aCtb', 'B'], ['ACTB', 'B'], ignore_case=True)


@pytest.mark.parametrize(
  ('data', 'wanted', 'words'),
  [
    (['A', 'A'], ['A'], "data genes: 1 names occur more than once: 'A'"),
    (['A'], ['A', 'A'], 'wanted genes: 1 names'),
    (['A'], [], 'the list is empty'),
    (['ENSG1'], ['A', 'B'], 'none of the 2 wanted genes'),
    (['MAPK1', 'B'], ['MAPK11', 'B'], "closest: 'MAPK1'"),
  ],
)
def test_align_errors(data, wanted, words):
  with pytest.raises(ValueError, match=words):
    genes.align(data, wanted)


def test_perturbation_genes():
  found = genes.perturbation_genes(['KLF1', 'aspirin'], ['X', 'KLF1'])
  assert found.columns == (1, -1)
  assert found.notes == (
    "1 of 2 perturbations name none of the 2 genes: 'aspirin'",
  )
  assert genes.perturbation_genes([], ['X']).columns == ()
  assert genes.perturbation_genes(['Klf1'], ['KLF1']).columns == (-1,)
  assert genes.perturbation_genes(
    ['Klf1'], ['KLF1'], ignore_case=True
  ).columns == (0,)
