"""The command line and the config files that it reads."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from absl import flags
from tiny_runs import ROOT, SOURCE, command, table

from pertjax import config as config_lib
from pertjax import main, runs, writers

# ml_collections reads config files by an old function of importlib.
pytestmark = pytest.mark.filterwarnings(
  'ignore:the load_module:DeprecationWarning'
)


@pytest.fixture
def parse(monkeypatch):
  """Parses a command line in this process, and forgets it afterwards."""
  known = set(flags.FLAGS)

  def parsed(*args):
    argv = ['main', *args, '--workdir=x']
    monkeypatch.setattr(sys, 'argv', argv)
    return main.parse_flags(argv)

  yield parsed
  for name in set(flags.FLAGS) - known:
    delattr(flags.FLAGS, name)
  flags.FLAGS.unparse_flags()


def test_flags_set_keys_of_the_config(parse):
  rest = parse(
    f'--config={ROOT}/configs/default.py:smoke,model=vae,split=transfer',
    '--config.train.steps=50',
    '--config.train.chunk=50',
    "--config.data.covariates=('a','b')",
    "--config.fleet=(('optimizer.learning_rate',(1e-3,1e-4)),)",
    '--config.split.test_groups=type0',
    '--noconfig.log.report',
  )
  assert rest == ['main']
  config = flags.FLAGS.config
  config_lib.validate(config)
  assert (config.model.name, config.split.method) == ('vae', 'transfer')
  assert config.data.covariates == ('a', 'b')
  assert config.split.test_groups == ('type0',)
  assert config.train.steps == 50
  assert config.log.report is False
  assert len(config_lib.fleet_settings(config)) == 2


@pytest.mark.parametrize(
  ('args', 'shown'),
  [
    (('--config.train.stesp=3',), ('train.stesp', 'closest: train.steps')),
    (('--config.trian.steps=3',), ('trian.steps', 'closest: train.steps')),
    (('--config.lerning_rate=1',), ('closest: optimizer.learning_rate',)),
    (('--config.model.kl_weight=1',), ("'latent_additive'", ':model=NAME')),
    (('--noconfig.log.reprot',), ('closest: log.report',)),
    (('--config.train.steps=many',), ('steps=many', 'takes int, such as 20')),
    (('--config.train.steps=1e3',), ('steps=1e3', 'takes int')),
    (('--config.log.report=2',), ('log.report=2', 'takes bool')),
    (('--config.model=vae',), ('model is a section', ':model=NAME')),
    (('--mode=trian',), ('trian', 'train|evaluate|predict')),
    (('--wrokdir=x',), ("'wrokdir'", 'workdir')),
  ],
)
def test_flag_that_cannot_be_is_named(args, shown, parse, capsys):
  with pytest.raises(SystemExit) as caught:
    parse(f'--config={ROOT}/configs/default.py:smoke', *args)
  assert caught.value.code == 1
  said = capsys.readouterr().err
  assert said.startswith('pertjax: error: ')
  assert said.count('\n') == 1
  assert all(text in said for text in shown), said


@pytest.mark.parametrize(
  ('source', 'shown'),
  [
    ('configs/defualt.py', ('no such file', "closest: 'default.py'")),
    ('configs/default.py:modle=vae', ("'modle'", 'closest: model')),
    ('configs/default.py:model=vea', ("'vea'", 'closest: vae')),
    ('configs/default.py:split=cell', ("'cell'", 'cells')),
    ('configs/default.py:smoke=1', ("smoke='1'", 'bool')),
  ],
)
@pytest.mark.parametrize('more', [(), ('--config.train.steps=10',)])
def test_config_file_that_cannot_be_is_named(
  source, shown, more, parse, capsys
):
  with pytest.raises(SystemExit):
    parse(f'--config={ROOT}/{source}', *more)
  said = capsys.readouterr().err
  assert source in said
  assert said.count('\n') == 1
  assert all(text in said for text in shown), said


def test_error_inside_a_config_file_keeps_its_trace(parse, tmp_path):
  (tmp_path / 'mine.py').write_text('def get_config():\n  return nothing\n')
  with pytest.raises(NameError, match='nothing'):
    parse(f'--config={tmp_path}/mine.py')


def test_debug_keeps_the_trace(parse):
  with pytest.raises(flags.IllegalFlagValueError):
    parse(f'--config={ROOT}/configs/default.py', '--debug', '--mode=x')


def test_mistake_is_a_sentence_and_a_status(tmp_path):
  (tmp_path / 'file').write_text('x')
  done = command(f'--config={SOURCE}', f'--workdir={tmp_path}/file/run')
  assert done.returncode == 1
  assert done.stdout == ''
  assert done.stderr.startswith('pertjax: error: --workdir=')
  assert done.stderr.count('\n') == 1


def test_help_answers_without_jax(tmp_path):
  (tmp_path / 'jax.py').write_text('raise SystemError("imported")')
  done = subprocess.run(
    [sys.executable, '-m', 'pertjax.main', '--help'],
    cwd=ROOT,
    capture_output=True,
    text=True,
    env={**os.environ, 'PYTHONPATH': str(tmp_path)},
    check=False,
  )
  assert '--workdir' in done.stdout, done.stderr
  assert 'imported' not in done.stderr


def test_console_lines_go_to_stderr(capsys):
  writers.Console().say('a line')
  captured = capsys.readouterr()
  assert (captured.out, captured.err) == ('', 'a line\n')


def test_overrides_may_come_before_the_config():
  rest = ['--config.seed=3', '--workdir=x']
  for config in (['--config=c.py'], ['--config', 'c.py']):
    moved = main._config_first(['main', *rest, *config, '--debug'])
    assert moved == ['main', *config, *rest, '--debug']
  assert main._config_first(['main', *rest]) == ['main', *rest]


@pytest.mark.slow
def test_debug_runs_operation_by_operation(tmp_path):
  done = command(
    '--config=configs/default.py:smoke',
    f'--workdir={tmp_path}',
    '--config.log.report=False',
    '--debug',
  )
  assert done.returncode == 0, done.stderr
  lines = (tmp_path / 'metrics.jsonl').read_text().splitlines()
  assert [json.loads(line)['step'] for line in lines] == [2]


@pytest.mark.slow
@pytest.mark.parametrize(
  ('source', 'file', 'overrides', 'regimes'),
  [
    ('kang.py:smoke,cell_type=CD4T', 'kang_ifnb_2000g', {}, {'transfer'}),
    ('mcfaline.py:smoke', 'mcfaline_gbm_500g', {}, {'transfer'}),
    (
      'norman.py:smoke',
      'norman_k562_500g',
      {'data.scale': 'counts'},
      {'seen0', 'seen1', 'seen2'},
    ),
    (
      'norman_semisynthetic.py:smoke',
      'norman_semisynthetic_1530g',
      {},
      {'seen1', 'seen2'},
    ),
  ],
)
def test_config_file_does_its_job_on_a_real_file(
  source, file, overrides, regimes, shared_data, tmp_path
):
  config = config_lib.load(f'{ROOT}/configs/{source}')
  config.data.path = str(shared_data / f'{file}.h5ad')
  for key, value in overrides.items():
    section, _, name = key.partition('.')
    config[section][name] = value
  runs.start(config, tmp_path)
  rows = table(tmp_path)
  assert {r['regime'] for r in rows} == regimes
  assert config.model.name in {r['model'] for r in rows}
  assert (tmp_path / 'report.html').stat().st_size > 10_000
  ceiling = [
    float(r['value'])
    for r in rows
    if (r['model'], r['aggregate'], r['genes'], r['metric'])
    == ('ceiling', 'average', 'all', 'pearson')
  ]
  assert np.mean(ceiling) > 0.9
