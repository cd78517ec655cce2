"""Tiny runs, from a config or from the command line, and what they leave."""

import csv
import pathlib
import subprocess
import sys

from pertjax import config as config_lib

ROOT = pathlib.Path(__file__).resolve().parent.parent
SOURCE = 'configs/default.py:smoke,model=decoder_only'
SMALL = {
  'model.width': 16,
  'model.num_layers': 1,
  'log.report': False,
  'log.tensorboard': False,
}
MODEL = 'decoder_only'


def make_config(**changes):
  config = config_lib.load(f'{ROOT}/{SOURCE}')
  for key, value in {**SMALL, **changes}.items():
    *path, last = key.split('.')
    section = config
    for part in path:
      section = section[part]
    section[last] = value
  return config.lock()


def command(*args):
  return subprocess.run(
    [sys.executable, '-m', 'pertjax.main', *args],
    cwd=ROOT,
    capture_output=True,
    text=True,
    timeout=300,
    check=False,
  )


def small_flags(**changes):
  return [f'--config.{k}={v}' for k, v in {**SMALL, **changes}.items()]


def outputs(workdir):
  names = (
    'metrics.jsonl',
    'eval/metrics.csv',
    'eval/summary.csv',
    'split.csv',
    'predictions.h5ad',
  )
  return {name: (workdir / name).read_bytes() for name in names}


def table(workdir, name='metrics'):
  with (workdir / 'eval' / f'{name}.csv').open(newline='') as file:
    return list(csv.DictReader(file))


def values(workdir, model):
  return {
    (r['seed'], r['covariate'], r['condition'], r['aggregate'], r['genes'],
     r['metric']): r['value']
    for r in table(workdir)
    if r['model'] == model
  }  # fmt: skip
