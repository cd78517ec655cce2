"""Copies of runs in MLflow, with a stand-in for the library."""

import collections
import csv
import json
import sys
import types as python_types

import pytest

from pertjax import mlflow_export
from pertjax.report import read as read_lib

Entity = collections.namedtuple('Entity', 'key value timestamp step')


class Client:
  """What is used of MlflowClient; refuses what the real one refuses."""

  def __init__(self, tracking_uri):
    self.uri, self.runs, self.experiments = tracking_uri, {}, {}
    Client.last = self

  def get_experiment_by_name(self, name):
    return self.experiments.get(name)

  def create_experiment(self, name, artifact_location):
    assert name not in self.experiments
    self.experiments[name] = artifact_location
    return name

  def create_run(self, experiment, tags, run_name):
    assert experiment in self.experiments
    key = f'run{len(self.runs)}'
    self.runs[key] = {
      'name': run_name, 'tags': tags, 'params': {}, 'metrics': [],
      'files': [], 'status': 'RUNNING',
    }  # fmt: skip
    return python_types.SimpleNamespace(
      info=python_types.SimpleNamespace(run_id=key)
    )

  def log_batch(self, run_id, metrics=(), params=()):
    assert len(metrics) <= 1000
    assert len(params) <= 100
    for p in params:
      assert isinstance(p.value, str)
      assert len(p.value) <= 500
      assert p.key not in self.runs[run_id]['params']
      self.runs[run_id]['params'][p.key] = p.value
    self.runs[run_id]['metrics'] += metrics

  def log_artifact(self, run_id, path, folder):
    self.runs[run_id]['files'].append((path.rpartition('/')[2], folder))

  def set_terminated(self, run_id, status='FINISHED'):
    self.runs[run_id]['status'] = status


@pytest.fixture
def mlflow(monkeypatch):
  module = python_types.ModuleType('mlflow')
  module.MlflowClient = Client
  module.entities = python_types.SimpleNamespace(
    Param=lambda key, value: Entity(key, value, None, None), Metric=Entity
  )
  monkeypatch.setitem(sys.modules, 'mlflow', module)


@pytest.fixture
def workdir(tmp_path):
  folder = tmp_path / 'a run'
  (folder / 'eval' / 'interpret').mkdir(parents=True)
  many = {f'key{i}': i for i in range(150)}
  config = {
    'seed': 3,
    'model': {'name': 'vae', 'long': 'x' * 900, **many},
    'train': {'phases': [[1, 2]]},
  }  # fmt: skip
  (folder / 'config.json').write_text(json.dumps(config))
  members = [
    {'member': 0, 'seed': 3, 'overrides': {'model.kl': 0.1}, 'status': 'ok'},
    {'member': 1, 'seed': 4, 'overrides': {}, 'status': 'failed at step 5'},
  ]
  (folder / 'env.json').write_text(
    json.dumps({'dataset': 'toy', 'members': members})
  )
  lines = [
    {'step': s, 'seed': m, 'loss': 1.0 / s, 'odd:name': 2.0}
    for s in range(1, 801)
    for m in (0, 1)
  ]
  (folder / 'metrics.jsonl').write_text(
    '\n'.join(json.dumps(line) for line in lines) + '\n'
  )
  head = (*read_lib.SUMMARY_TEXT, *read_lib.SUMMARY_NUMBERS)
  row = dict.fromkeys(head, '1') | {
    'model': 'vae', 'split': 'test', 'regime': 'all', 'aggregate': 'delta',
    'genes': 'all', 'metric': 'pearson', 'mean': '0.5', 'direction': 'higher',
  }  # fmt: skip
  with (folder / 'eval' / 'summary.csv').open('w', newline='') as file:
    writer = csv.DictWriter(file, head)
    writer.writeheader()
    writer.writerow(row)
    writer.writerow(row | {'model': 'control', 'mean': ''})
  (folder / 'eval' / 'interpret' / 'graph.txt').write_text('x')
  (folder / 'report.html').write_text('<html>')
  return folder


def test_a_run_and_its_members_are_copied(workdir, mlflow, tmp_path):
  said = []
  store = tmp_path / 'new' / 'store.db'
  key = mlflow_export.export(workdir, store, say=said.append)
  client = Client.last
  assert client.uri == f'sqlite:///{store}'
  assert client.experiments == {
    'toy': (tmp_path / 'new' / 'store_artifacts').as_uri()
  }
  parent = client.runs[key]
  assert (parent['name'], parent['status']) == ('a run', 'FINISHED')
  assert parent['params']['seed'] == '3'
  assert parent['params']['train.phases'] == '[[1, 2]]'
  assert parent['params']['model.long'].endswith('…')
  assert len(parent['params']) == 154
  # Without a value there is no metric.
  assert [(m.key, m.value) for m in parent['metrics']] == [
    ('vae/test/all/delta/all/pearson', 0.5)
  ]
  assert set(parent['files']) == {
    ('config.json', None), ('env.json', None), ('report.html', None),
    ('summary.csv', 'eval'), ('graph.txt', 'eval/interpret'),
  }  # fmt: skip
  first, second = (r for k, r in client.runs.items() if k != key)
  assert first['tags']['mlflow.parentRunId'] == key
  assert first['params'] == {'seed': '3', 'model.kl': '0.1'}
  assert (first['status'], second['status']) == ('FINISHED', 'FAILED')
  assert len(first['metrics']) == 1600
  loss = {m.step: m.value for m in first['metrics'] if m.key == 'loss'}
  assert loss[4] == 0.25
  assert {m.key for m in first['metrics']} == {'loss', 'odd_name'}
  assert 'mlflow ui' in said[0]


def test_without_the_library_the_extra_is_named(workdir, monkeypatch, capsys):
  # None in its place is how an absent module is told from a present one.
  monkeypatch.setitem(sys.modules, 'mlflow', None)
  with pytest.raises(SystemExit) as error:
    mlflow_export.main([f'--workdir={workdir}'])
  assert error.value.code == 1
  assert "pip install 'pertjax[mlflow]'" in capsys.readouterr().err


def test_no_run_is_an_error_of_one_line(tmp_path, mlflow, capsys):
  with pytest.raises(SystemExit):
    mlflow_export.main([f'--workdir={tmp_path}'])
  assert 'not a run directory' in capsys.readouterr().err
