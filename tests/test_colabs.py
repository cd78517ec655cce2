"""Notebooks run from the first cell to the last; they are stored bare."""

import ast
import json
import pathlib

import pytest

COLABS = pathlib.Path(__file__).resolve().parent.parent / 'colabs'
NOTEBOOKS = sorted(COLABS.glob('*.ipynb'))


def code_of(path):
  cells = json.loads(path.read_text(encoding='utf-8'))['cells']
  return [c for c in cells if c['cell_type'] == 'code']


def test_there_are_notebooks():
  assert [path.name for path in NOTEBOOKS] == ['metrics.ipynb']


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda path: path.stem)
def test_stored_without_output(path):
  for cell in code_of(path):
    assert cell['outputs'] == []
    assert cell['execution_count'] is None


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda path: path.stem)
def test_runs(path, tmp_path, monkeypatch, capsys):
  """Runs the code of every cell; what a cell ends with must have a value."""
  monkeypatch.chdir(tmp_path)
  names = {'__name__': '__main__'}
  shown = 0
  for number, cell in enumerate(code_of(path)):
    parsed = ast.parse(''.join(cell['source']))
    last = None
    if parsed.body and isinstance(parsed.body[-1], ast.Expr):
      last = ast.Expression(parsed.body.pop().value)
    where = f'{path.name}, code cell {number}'
    exec(compile(parsed, where, 'exec'), names)
    if last is not None:
      value = eval(compile(last, where, 'eval'), names)
      if value is not None:
        assert len(value), f'{where} shows nothing'
        shown += 1
  assert shown >= 5
  assert 'columns' in capsys.readouterr().out


def test_scoring_takes_ten_lines():
  (path,) = [p for p in NOTEBOOKS if p.stem == 'metrics']
  (cell,) = [
    c for c in code_of(path) if 'metrics.score(' in ''.join(c['source'])
  ]
  assert len(''.join(cell['source']).strip().splitlines()) <= 10
