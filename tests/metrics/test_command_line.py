"""The command line: what it prints, writes and refuses."""

import subprocess
import sys

import pandas as pd
import pytest
import toy_adata

from pertjax.metrics import __main__ as command
from pertjax.metrics import anndata as front


@pytest.fixture(autouse=True)
def _known(monkeypatch):
  toy_adata.only_known(monkeypatch)


@pytest.fixture(scope='module')
def paths(tmp_path_factory):
  folder = tmp_path_factory.mktemp('h5ad')
  found = {}
  for side in ('observed', 'predicted'):
    found[side] = str(folder / f'{side}.h5ad')
    toy_adata.made(side).write_h5ad(found[side])
  return found


def test_score(paths, tmp_path, capsys):
  output = tmp_path / 'new' / 'scores.csv'
  status = command.main(
    [
      'score', f'--observed={paths["observed"]}',
      f'--predicted={paths["predicted"]}', '--convention=toy',
      f'--output={output}',
    ]
  )  # fmt: skip
  printed = capsys.readouterr()
  assert status == 0
  assert "note: perturbation_key='condition'" in printed.err
  assert 'note: toy: predicted changes start from' in printed.err
  lines = printed.out.splitlines()
  assert 'Toy' in lines
  assert max(len(line) for line in lines if 'rows in' not in line) <= 100
  (line,) = (line for line in lines if line.startswith('mse'))
  table = front.score(
    toy_adata.made(), toy_adata.made('predicted'), convention='toy',
    say=[].append, **toy_adata.KEYS,
  )  # fmt: skip
  mean = table[(table['metric'] == 'mse') & (table['level'] == 'aggregate')]
  assert line.split()[1] == f'{mean["value"].item():.4g}'
  assert line.split()[-1] == '6'
  written = pd.read_csv(output, keep_default_na=False, na_values={
    'low': [''], 'high': ['']})  # fmt: skip
  pd.testing.assert_frame_equal(written, table, check_dtype=False)
  assert [path.name for path in output.parent.iterdir()] == ['scores.csv']


def test_several_models_are_compared(paths, tmp_path, capsys):
  output = tmp_path / 'scores.csv'
  status = command.main(
    [
      'score', f'--observed={paths["observed"]}',
      f'--predicted=model={paths["predicted"]}',
      f'--predicted=real={paths["observed"]}', '--convention=gears,toy',
      '--option=gears.undefined_pearson=zero', '--metrics=mse,pearson,total',
      f'--output={output}', '--bootstrap=none',
    ]
  )  # fmt: skip
  assert status == 0
  assert 'Toy - model' in capsys.readouterr().out
  compared = tmp_path / 'compared.csv'
  status = command.main(
    [
      'compare', f'--scores={output}', '--reference=real',
      f'--output={compared}', '--metrics=mse,total',
    ]
  )  # fmt: skip
  printed = capsys.readouterr()
  assert status == 0
  assert 'Toy: model against real' in printed.out
  assert "one value for all conditions and are not compared: 'total'" in (
    printed.err
  )
  table = pd.read_csv(compared)
  assert table['verdict'].tolist() == ['worse', 'worse']
  assert table['convention'].tolist() == ['gears', 'toy']


def test_certify_and_red_team(paths, tmp_path, capsys):
  for name, text in (
    ('certify', 'tell a replicate from the mean'),
    ('red-team', 'metrics reward none of 11 submissions'),
  ):
    output = tmp_path / f'{name}.csv'
    more = ['--splits=2'] if name == 'certify' else []
    status = command.main(
      [
        name, f'--observed={paths["observed"]}', '--convention=toy',
        '--metrics=mse,pearson_delta', f'--output={output}', '--seed=1', *more,
      ]
    )  # fmt: skip
    printed = capsys.readouterr()
    assert status == 0
    assert text in ' '.join(printed.out.split())
    assert 'note: toy: scoring' in printed.err
    assert set(pd.read_csv(output)['metric']) == {'mse', 'pearson_delta'}


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (['--convention=tooy'], "convention: 'tooy' is unknown"),
    (['--control=ctl'], "no cell of the control 'ctl'"),
    (['--perturbation_key=pert'], "obs has no column 'pert'"),
    (['--option=x'], '--option=x: expected NAME=VALUE'),
    (['--metrics=msee'], "metrics: 'msee' is unknown"),
    (['--engine=numpy'], "'numpy'"),
    (['--observed=none.h5ad'], 'none.h5ad: no such file'),
    (['--scale=log'], "scale: 'log' is unknown"),
  ],
)
def test_errors_are_one_line(paths, capsys, arguments, message):
  status = command.main(
    [
      'score', f'--observed={paths["observed"]}',
      f'--predicted={paths["predicted"]}', '--convention=toy', *arguments,
    ]
  )  # fmt: skip
  printed = capsys.readouterr()
  assert status == 2
  errors = [x for x in printed.err.splitlines() if x.startswith('error: ')]
  assert len(errors) == 1
  assert message in errors[0]
  assert printed.out == ''


def test_names_of_predictions(paths, capsys):
  status = command.main(
    [
      'score', f'--observed={paths["observed"]}', '--convention=toy',
      f'--predicted={paths["predicted"]}', f'--predicted={paths["predicted"]}',
    ]
  )  # fmt: skip
  assert status == 2
  assert "two are named 'predicted'" in capsys.readouterr().err
  assert command.main(['compare', '--scores=none.csv']) == 2
  assert 'none.csv: no such file' in capsys.readouterr().err


def test_list(capsys):
  assert command.main(['list', '--convention=toy']) == 0
  printed = capsys.readouterr().out
  assert 'Toy: --convention=toy' in printed
  assert 'pearson_delta' in printed
  assert 'best 1; higher is better; chance 0; needs means, control' in printed
  assert command.main(['list']) == 0
  assert 'Functions of arrays' in capsys.readouterr().out


def test_a_reader_that_leaves_is_no_error():
  """As `... list | head -1` does."""
  script = (
    'import sys; from pertjax.metrics import __main__ as command; '
    "sys.exit(command.main(['list', '--convention=gears']))"
  )
  process = subprocess.Popen(
    [sys.executable, '-c', script],
    stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
  )  # fmt: skip
  process.stdout.close()
  with process.stderr:
    error = process.stderr.read()
  assert process.wait(timeout=60) == 0, error
  assert 'error' not in error
