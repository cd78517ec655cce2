"""Names in messages."""

from pertjax import names


def test_closest_names():
  assert names.closest('celltype', ['cell_type', 'dose', 'batch']) == (
    'cell_type',
  )
  assert names.closest('MAPK1', ['mapk1', 'KLF1'])[0] == 'mapk1'
  assert names.suggestion('zzz', ['a', 'b']) == "there are: 'a', 'b'"
  assert names.suggestion('zzz', []) == 'there are none'
  assert names.listing('abcdefg', 3) == "'a', 'b', 'c' and 4 more"


def test_what_is_past_the_first_few_is_counted():
  assert names.listing(range(3), quoted=False) == '0, 1, 2'
  assert names.listing(range(1_005), 2) == "'0', '1' and 1,003 more"
  assert names.listing([]) == ''


def test_unknown_names_the_closest_and_then_all():
  assert names.unknown('method', 'Cell', ('cells', 'csv')) == (
    "method: 'Cell' is unknown; closest: cells; allowed: cells, csv"
  )
  assert names.unknown('group', 'zzz', ['a', 'b']) == (
    "group: 'zzz' is unknown; allowed: a, b"
  )
  many = names.unknown('group', 'zzz', [f'a{i}' for i in range(45)])
  assert many.endswith('a38, a39 and 5 more')


def test_duplicates_come_once_in_their_order():
  assert names.duplicates('abcbab') == ('b', 'a')
  assert names.duplicates('abc') == ()
