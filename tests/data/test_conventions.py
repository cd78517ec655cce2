"""Labels of every convention."""

import time

import numpy as np
import pandas as pd
import pytest

from pertjax.data import conventions

PERTURBENCH = conventions.make('perturbench')


def parse(labels, doses=None, preset='perturbench', **changes):
  convention = conventions.make(preset, **changes)
  return conventions.parse_labels(labels, doses, convention=convention)


@pytest.mark.parametrize(
  ('preset', 'labels'),
  [
    ('perturbench', ['control', 'A', 'B+A', 'A+B', 'control+A', 'C']),
    ('gears', ['ctrl', 'A+ctrl', 'A+B', 'B+A', 'ctrl+A', 'ctrl+C']),
    ('cpa', ['', 'A', 'B,A', 'A,B', 'A', 'C']),
    ('scperturb', ['control', 'A', 'A_B', 'B_A', 'A_control', 'C']),
  ],
)
def test_every_preset_gives_the_same_conditions(preset, labels):
  parsed = parse(labels, preset=preset)
  assert parsed.conditions.names == ('control', 'A', 'A+B', 'C')
  assert parsed.conditions.tokens == ((), ('A',), ('A', 'B'), ('C',))
  assert parsed.conditions.doses == ((), (1.0,), (1.0, 1.0), (1.0,))
  assert parsed.ids.dtype == np.int32
  assert parsed.ids.tolist() == [0, 1, 2, 2, 1, 3]
  assert any('more than one spelling' in note for note in parsed.notes)


def test_ids_do_not_depend_on_row_order_or_categories():
  labels = np.array(['B', 'control', 'A+C', 'A', 'C+A', 'B'], dtype=object)
  conditions, ids = conventions.parse(labels, convention=PERTURBENCH)
  order = [3, 0, 5, 4, 1, 2]
  shuffled, shuffled_ids = conventions.parse(
    labels[order], convention=PERTURBENCH
  )
  assert shuffled == conditions
  np.testing.assert_array_equal(shuffled_ids, ids[order])
  categories = pd.Categorical(
    labels, categories=['unused', 'C+A', *'BA'] + ['A+C', 'control']
  )
  as_category, category_ids = conventions.parse(
    pd.Series(categories), convention=PERTURBENCH
  )
  assert as_category == conditions
  np.testing.assert_array_equal(category_ids, ids)


def test_control_is_condition_zero_even_where_absent():
  conditions, ids = conventions.parse(['B', 'A'], convention=PERTURBENCH)
  assert conditions.names == ('control', 'A', 'B')
  assert ids.tolist() == [2, 1]
  empty, none = conventions.parse([], convention=PERTURBENCH)
  assert empty.names == ('control',)
  assert none.shape == (0,)


def test_duplicates_collapse_and_are_counted():
  parsed = parse(['A+A', 'A', 'A+A', 'control'])
  assert parsed.ids.tolist() == [1, 1, 1, 0]
  assert any(
    note.startswith('2 cells name a perturbation twice')
    for note in parsed.notes
  )


def test_spaces_are_removed_with_a_note():
  parsed = parse(['A + B', 'A+B', 'control'])
  assert parsed.ids.tolist() == [1, 1, 0]
  assert any(
    note.startswith('1 cells have a label with spaces') for note in parsed.notes
  )


def test_several_control_labels_and_a_separator_inside_one():
  parsed = parse(
    ['non-targeting', 'NT', 'A-B', 'A-NT'],
    preset='custom',
    key='guide',
    control=('non-targeting', 'NT'),
    separator='-',
  )
  assert parsed.conditions.names == ('control', 'A', 'A+B')
  assert parsed.ids.tolist() == [0, 0, 2, 1]


def test_tokens_may_contain_the_join():
  parsed = parse(
    ['(+)-JQ1', 'DMSO', '(+)-JQ1;B'],
    preset='custom',
    key='drug',
    control='DMSO',
    separator=';',
  )
  assert parsed.conditions.tokens == ((), ('(+)-JQ1',), ('(+)-JQ1', 'B'))
  one = parse(['A+B', 'control'], separator=None)
  assert one.conditions.tokens == ((), ('A+B',))
  with pytest.raises(ValueError, match=r"would both be called 'A\+B'"):
    parse(['A+B', 'A;B', 'control'], separator=';')


def test_doses_follow_the_label_order():
  parsed = parse(
    ['B+A', 'A+B', 'A', 'control', 'A', 'C'],
    ['2+1', '1+2', '10', None, np.float32(0.1), '1'],
  )
  assert parsed.conditions.names == (
    'control', 'A+B@2', 'A@0.1', 'A@10', 'C',
  )  # fmt: skip
  assert parsed.conditions.tokens[1] == ('A', 'B')
  assert parsed.conditions.doses == ((), (1.0, 2.0), (0.1,), (10.0,), (1.0,))
  assert parsed.ids.tolist() == [1, 1, 3, 0, 2, 4]


def test_doses_count_control_tokens_or_not_and_spread():
  parsed = parse(
    ['A+ctrl', 'ctrl+A', 'A+B', 'A+B+ctrl'],
    ['3+1', '1+3', '0.5', '0.5+0.5'],
    preset='gears',
  )
  assert parsed.conditions.names == ('control', 'A@0.5+B@0.5', 'A@3')
  assert parsed.ids.tolist() == [2, 2, 1, 1]


def test_dose_zero_is_no_perturbation_and_is_counted():
  parsed = parse(['A', 'A', 'A+B', 'control'], [0.0, 1.0, '0+2', 0.0])
  assert parsed.ids.tolist() == [0, 1, 2, 0]
  assert parsed.conditions.names == ('control', 'A', 'B@2')
  assert any('2 cells have a perturbation at dose 0' in n for n in parsed.notes)


@pytest.mark.parametrize(
  ('labels', 'doses', 'words'),
  [
    (['A', None, np.nan, 'control'], None, '2 of 4 cells have no label'),
    (['A', '', ' ', 'control'], None, '2 of 4 cells have no label'),
    (['A', 3, 'control'], None, 'must be strings; found int'),
    (['A+', 'control'], None, "'A\\+' has an empty part"),
    (['A', 'ctrl'], [None, None], "'doses' is missing"),
    (['A'], ['high'], "'doses' is 'high'; allowed: numbers"),
    (['A'], [-1.0], 'finite and not negative'),
    (['A'], [np.inf], 'finite and not negative'),
    (['A+B'], ['1+2+3'], '3 doses for 2 perturbations'),
    (['A+A'], ['1+2'], "gives 'A' the doses 1 and 2"),
    (['A', 'B'], [1.0], '1 values for 2 labels'),
  ],
)
def test_bad_labels_and_doses(labels, doses, words):
  with pytest.raises(ValueError, match=words):
    parse(labels, doses)


def test_errors_name_the_cell():
  labels = pd.Series(['A', None], index=['cell_a', 'cell_b'])
  with pytest.raises(ValueError, match="'condition'.*'cell_b'"):
    conventions.parse(labels, convention=PERTURBENCH)


def test_missing_labels_are_controls_for_cpa():
  parsed = parse([None, '', 'A', np.nan], preset='cpa')
  assert parsed.ids.tolist() == [0, 0, 1, 0]


def test_a_perturbation_may_not_be_called_control():
  with pytest.raises(ValueError, match='not among the control labels'):
    parse(['control', 'ctrl', 'A+ctrl'], preset='gears')


@pytest.mark.parametrize(
  ('preset', 'changes', 'words'),
  [
    ('perturbensch', {}, "closest: 'perturbench'"),
    ('perturbench', {'covariate': ()}, "closest: 'covariates'"),
    ('custom', {}, 'key is'),
    ('custom', {'key': 'x'}, 'control is'),
    ('perturbench', {'separator': ''}, 'empty separator'),
    ('perturbench', {'covariates': 'condition'}, 'more than once'),
  ],
)
def test_bad_conventions(preset, changes, words):
  with pytest.raises(ValueError, match=words):
    conventions.make(preset, **changes)


def test_compact_drops_unused_conditions_but_not_the_control():
  conditions, ids = conventions.parse(
    ['control', 'A', 'B', 'C'], convention=PERTURBENCH
  )
  smaller, new_ids = conventions.compact(conditions, ids[[1, 3, 3]])
  assert smaller.names == ('control', 'A', 'C')
  assert smaller.tokens == ((), ('A',), ('C',))
  assert new_ids.tolist() == [1, 2, 2]


def test_only_distinct_labels_are_parsed():
  names = [f'G{i}+G{j}' for i in range(30) for j in range(30)] + ['control']
  labels = np.random.default_rng(0).choice(np.array(names, object), 300_000)
  start = time.perf_counter()
  conditions, ids = conventions.parse(labels, convention=PERTURBENCH)
  assert time.perf_counter() - start < 2
  assert len(conditions.names) == 1 + 30 * 31 // 2
  assert ids.shape == (300_000,)
