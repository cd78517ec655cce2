"""Splits as files: written, read back, and refused."""

import hashlib
import os

import numpy as np
import pytest
from split_cases import (
  CASES,
  EXCLUDED,
  TEST,
  TRAIN,
  VAL,
  cell_rows,
  in_split,
  make,
  make_data,
  reorder,
  write_rows,
)

from pertjax.data import splits


@pytest.mark.parametrize('method', CASES)
def test_round_trip(tmp_path, method):
  data = make_data()
  split = make(method, data, **CASES[method])
  text = splits.to_csv(split, **data)
  assert hashlib.sha256(text.encode()).hexdigest() == split.sha256
  assert text.startswith('cell,split,condition,group,regime\n')
  path = tmp_path / 'split.csv'
  splits.write(path, text)
  again = splits.read(path, **data)
  assert again.sha256 == split.sha256
  assert again.regimes == split.regimes
  assert again.method == 'csv'
  np.testing.assert_array_equal(again.cells, split.cells)
  # Whatever order the cells come in.
  order = np.arange(len(split.cells))[::-1]
  again = splits.read(path, **reorder(data, order))
  assert again.sha256 == split.sha256


def test_names_are_quoted(tmp_path):
  data = make_data()
  names = data['cell_names'].astype('U20')
  names[0] = 'odd, "name"'
  data['cell_names'] = names
  split = make('cells', data)
  path = tmp_path / 'split.csv'
  splits.write(path, splits.to_csv(split, **data))
  assert splits.read(path, **data).sha256 == split.sha256


def test_write_is_atomic(tmp_path, monkeypatch):
  path = tmp_path / 'split.csv'
  splits.write(path, 'old\n')

  def fail(_):
    raise OSError('disk full')

  monkeypatch.setattr(os, 'fsync', fail)
  with pytest.raises(OSError, match='disk full'):
    splits.write(path, 'new\n')
  assert path.read_text() == 'old\n'
  assert [p.name for p in tmp_path.iterdir()] == ['split.csv']


@pytest.mark.parametrize('header', ['cell,split', ',split', ',0', None])
def test_csv_of_cells(tmp_path, header):
  """PerturBench reads files without a header and writes them with one."""
  data = make_data()
  split = make('gears_single', data, **CASES['gears_single'])
  rows = cell_rows(data, split)
  path = write_rows(tmp_path, rows if header is None else [header, *rows])
  again = splits.read(path, **data)
  np.testing.assert_array_equal(again.cells, split.cells)
  assert again.sha256 == split.sha256


def test_csv_of_cells_with_shared_pairs(tmp_path):
  data = make_data()
  split = make('cells', data)
  path = write_rows(
    tmp_path,
    ['cell,split,batch'] + [row + ',1' for row in cell_rows(data, split)],
  )
  again = splits.read(path, **data)
  assert again.regimes == split.regimes
  assert "columns ['batch'] of given.csv are not used" in again.notes
  assert '48 (condition, group) pairs have cells in two' in again.notes[1]


def test_csv_of_conditions(tmp_path):
  """GEARS' names, in any orientation, in every group."""
  data = make_data()
  rows = [
    f'{"+".join(reversed(t))}{"+ctrl" if len(t) == 1 else ""},train'
    for t in data['conditions'].tokens[1:]
  ]
  rows[0] = 'ctrl+P0,val'
  rows[1] = 'P1+P0,test'
  path = write_rows(tmp_path, ['condition,split', *rows])
  split = splits.read(path, **data)
  assert in_split(data, split, VAL) == {'P0'}
  assert in_split(data, split, TEST) == {'P0+P1'}
  assert set(split.regimes.values()) == {'combo_only', 'seen1'}
  assert 'does not place 20 controls' in split.notes[0]
  path = write_rows(tmp_path, ['condition,split', 'ctrl,train', *rows])
  split = splits.read(path, **data)
  assert (split.cells[data['condition'] == 0] == TRAIN).all()


def test_csv_of_pairs(tmp_path):
  data = make_data()
  names = data['conditions'].names[1:]
  rows = [f'{name},{g},train' for name in names for g in 'ab']
  rows[0] = 'P0,a,test'
  rows[3] = 'P0+P1,b,val'
  header = 'condition,cell_type,split'
  path = write_rows(tmp_path, [header, *rows])
  with pytest.raises(ValueError, match="columns .'cell_type'. are not und"):
    splits.read(path, **data)
  options = {'group_column': 'cell_type'}
  split = splits.read(path, options=options, **data)
  assert split.regimes == {(1, 0): 'transfer', (2, 1): 'transfer'}
  path = write_rows(tmp_path, [header, *rows, 'P1,c,test'])
  with pytest.raises(ValueError, match="'c' is unknown; allowed: a, b"):
    splits.read(path, options=options, **data)


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (lambda rows: rows[:-2], '2 cells of the data are not in the file'),
    (
      lambda rows: [*rows, 'ghost,train'],
      r'1 cells of the file are not in the data \(given.csv\), .* ghost',
    ),
    (lambda rows: [*rows, rows[5]], '1 cells have more than one line'),
    (lambda rows: [*rows[:-1], 'cell00307,tset'], 'closest: test'),
    (lambda rows: [*rows[:-1], 'cell00307,test,x'], 'line 309 has 3 fields'),
    (lambda rows: ['name,fold'], "lack 'split', or both 'cell' and"),
    (lambda rows: [], 'the file is empty'),
  ],
)
def test_csv_of_cells_errors(tmp_path, change, message):
  data = make_data()
  rows = ['cell,split', *cell_rows(data, make('combinations', data))]
  path = write_rows(tmp_path, change(rows))
  with pytest.raises(ValueError, match=message):
    splits.read(path, **data)


def test_csv_leaves_out_when_told(tmp_path):
  data = make_data()
  rows = ['cell,split', *cell_rows(data, make('combinations', data))]
  path = write_rows(tmp_path, [*rows[:-2], 'ghost,train'])
  split = splits.read(path, options={'missing': 'exclude'}, **data)
  assert split.cells[-2:].tolist() == [EXCLUDED, EXCLUDED]
  assert split.notes[0].startswith('1 cells of the file are not in the data')
  assert split.notes[1].startswith('2 cells of the data are not in the file')
  assert '2 of 308 cells are in no split' in split.notes


def test_csv_of_conditions_errors(tmp_path):
  data = make_data()
  rows = [f'{n},train' for n in data['conditions'].names[1:]]
  path = write_rows(tmp_path, ['condition,split', *rows, 'P9,test'])
  with pytest.raises(ValueError, match='1 conditions of the file .* P9'):
    splits.read(path, **data)
  path = write_rows(tmp_path, ['condition,split', *rows[1:]])
  with pytest.raises(ValueError, match='2 pairs of the data .* P0 in a'):
    splits.read(path, **data)
  path = write_rows(tmp_path, ['condition,split', *rows, 'P1+P0,test'])
  with pytest.raises(splits.LeakageError, match=r"'P1\+P0' is in two splits"):
    splits.read(path, **data)
  with pytest.raises(FileNotFoundError):
    splits.read(tmp_path / 'none.csv', **data)


def test_csv_must_agree_with_the_data(tmp_path):
  data = make_data()
  text = splits.to_csv(make('combinations', data), **data)
  lines = text.splitlines()
  # The last cell is of the last condition, P7, in group b.
  broken = [*lines[:-1], lines[-1].replace('P7', 'P0')]
  with pytest.raises(ValueError, match=r"'cell00307' is 'P0' in the file and"):
    splits.read(write_rows(tmp_path, broken), **data)
