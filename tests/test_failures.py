"""Members that diverge in a whole run: named, frozen, never averaged away."""

import csv
import io
import json

import pytest

from pertjax import record, train, writers


def _config(tiny_config, rates):
  config = tiny_config('decoder_only', smooth=False)
  config.num_seeds = 1
  # Plain gradient descent: Adam would survive any learning rate.
  config.optimizer.name = 'sgd'
  config.model.softplus = False
  config.fleet = (('optimizer.learning_rate', rates),)
  config.log.tensorboard = False
  return config


def _run(config, workdir):
  said = io.StringIO()
  run = record.open_run(config, workdir, writers.Console(said))
  return run, said


def test_one_failed_member_is_named_and_the_other_is_scored(
  tiny_config, tmp_path
):
  run, said = _run(_config(tiny_config, (1e-3, 1e30)), tmp_path)
  train.train(run)
  assert 'member 1 (seed 0) met a loss or gradient that is not finite' in (
    said.getvalue()
  )
  members = json.loads((tmp_path / 'env.json').read_text())['members']
  assert [m['status'].split()[0] for m in members] == ['ok', 'failed']
  with (tmp_path / 'eval' / 'metrics.csv').open() as file:
    rows = list(csv.DictReader(file))
  trained = {(r['model'], r['seed']) for r in rows if r['seed'] != '-1'}
  assert trained == {('decoder_only (learning_rate=0.001)', '0')}
  lines = (tmp_path / 'metrics.jsonl').read_text().splitlines()
  steps = [json.loads(line)['step'] for line in lines if '"seed": 1' in line]
  assert steps == [30], 'the failed member has no line after its last chunk'


def test_all_failed_is_an_error_with_the_last_good_steps(tiny_config, tmp_path):
  run, _ = _run(_config(tiny_config, (1e30, 1e31)), tmp_path)
  with pytest.raises(
    FloatingPointError, match=r'every member.*last good steps: member 0: \d+'
  ):
    train.train(run)
  assert not (tmp_path / 'eval').exists()
