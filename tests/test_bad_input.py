"""What is wrong with a file, a config or a disk is said before any long work.

Each case goes the whole way, from a config to the sentence that a user reads;
afterwards the run directory holds nothing that was not there before.
"""

import contextlib
import json
import os
import pathlib
import resource
import subprocess
import sys

import anndata
import jax
import ml_collections
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from pertjax import checkpoints, models, record, runs, train, writers
from pertjax import config as config_lib

ROOT = pathlib.Path(__file__).resolve().parent.parent
SINGLES = ('A', 'B', 'C', 'D')
DOUBLES = ('A+B', 'A+C', 'B+D', 'C+D')
GENES = 12
NEVER = 1e9  # Seconds.


def make_adata(per_condition=12):
  """Counts of controls, singles and doubles in two cell types."""
  random = np.random.default_rng(0)
  labels = ['control', *SINGLES, *DOUBLES]
  table = pd.DataFrame(
    [
      (label, cell_type)
      for cell_type in ('t0', 't1')
      for label in labels
      for _ in range(per_condition * (3 if label == 'control' else 1))
    ],
    columns=['condition', 'cell_type'],
  )
  table.index = [f'cell{i}' for i in range(len(table))]
  counts = random.poisson(3.0, (len(table), GENES)).astype(np.float32)
  genes = pd.DataFrame(index=[*'ABCD', *(f'g{i}' for i in range(GENES - 4))])
  return anndata.AnnData(counts, obs=table, var=genes)


def make_config(path, model='decoder_only', split='combinations'):
  config = config_lib.default(model, split)
  config.data.path = str(path)
  config.data.min_cells_per_gene = 0
  if split == 'combinations':
    config.split.val_fraction = config.split.test_fraction = 0.25
  if model == 'decoder_only':
    config.model.width, config.model.num_layers = 8, 1
  config.train.update(steps=20, chunk=10, batch_size=16, checkpoint_every=1)
  config.eval.update(cells=8, min_cells=2, bootstrap=100, baselines=('mean',))
  config.log.update(report=False, tensorboard=False)
  return config


@pytest.fixture
def written(tmp_path):
  """Writes an AnnData and returns its path."""

  def write(adata):
    path = tmp_path / 'data.h5ad'
    adata.write_h5ad(path)
    return path

  return write


@pytest.fixture
def refused(tmp_path, monkeypatch):
  """Starts a run that must fail early and leave nothing; returns the words."""

  def too_late(*args, **kwargs):
    raise AssertionError('training began')

  monkeypatch.setattr(train, 'train_fleet', too_late)
  monkeypatch.setattr(models, 'make', too_late)

  def start(config, kind=ValueError, mode='train'):
    workdir = tmp_path / 'run'
    with pytest.raises(kind) as caught:
      runs.start(config, workdir, mode=mode)
    assert not isinstance(caught.value, AssertionError)
    assert not list(workdir.rglob('*')), 'files are left'
    return str(caught.value)

  return start


# The file.


def test_missing_file_names_those_beside_it(written, refused):
  path = written(make_adata())
  said = refused(make_config(path.with_name('dta.h5ad')), FileNotFoundError)
  assert f'{path.with_name("dta.h5ad")}: no such file' in said
  assert "'data.h5ad'" in said


def test_folder_is_no_file(tmp_path, refused):
  said = refused(make_config(tmp_path), IsADirectoryError)
  assert f'{tmp_path}: a directory' in said


def test_file_that_is_no_hdf5(tmp_path, refused):
  path = tmp_path / 'data.h5ad'
  path.write_text('condition,cell_type\n')
  said = refused(make_config(path))
  assert f'{path}: not an HDF5 file' in said


def test_truncated_file(written, refused):
  path = written(make_adata())
  whole = path.read_bytes()
  path.write_bytes(whole[: len(whole) // 2])
  said = refused(make_config(path))
  assert f'{path}: cannot be read; is it truncated' in said


@pytest.mark.parametrize(
  ('key', 'value', 'shown'),
  [
    ('key', 'conditon', ("no column 'conditon'", "'condition'")),
    ('covariates', ('celltype',), ("no column 'celltype'", "'cell_type'")),
    ('dose_key', 'dose', ("no column 'dose'", "'condition'")),
    ('gene_names', 'symbol', ("no column 'symbol'", 'gene_names')),
    ('layer', 'counts', ("no layer 'counts'", 'there are none')),
    ('totals_key', 'depth', ("no column 'depth'", 'totals_key')),
    ('control', 'ctrl', ("obs['condition']", "'control'", "('ctrl',)")),
    ('preset', 'scperturb', ("no column 'perturbation'", 'scperturb')),
  ],
)
def test_key_that_the_file_lacks(key, value, shown, written, refused):
  path = written(make_adata())
  config = make_config(path)
  config.data[key] = value
  said = refused(config)
  assert all(text in said for text in (str(path), *shown)), said


def test_no_control_cells(written, refused):
  adata = make_adata()
  path = written(adata[adata.obs['condition'] != 'control'].copy())
  said = refused(make_config(path))
  assert f'{path}: no control cell' in said
  assert "('control',)" in said


def test_group_without_control(written, refused):
  adata = make_adata()
  lost = (adata.obs['condition'] == 'control') & (
    adata.obs['cell_type'] == 't1'
  )
  path = written(adata[~lost.to_numpy()].copy())
  said = refused(make_config(path))
  assert all(text in said for text in (str(path), 'cell_type', 't1 (96 cells)'))
  assert 'drop_groups_without_control' in said


@pytest.mark.parametrize(
  ('axis', 'names', 'shown'),
  [
    ('obs', ['cell0', *(f'cell{i}' for i in range(263))], "'cell0'"),
    ('var', ['A', 'A', *(f'g{i}' for i in range(10))], "'A'"),
  ],
)
@pytest.mark.filterwarnings('ignore:.*names are not unique:UserWarning')
def test_repeated_names(axis, names, shown, written, refused):
  adata = make_adata()
  getattr(adata, axis).index = names
  path = written(adata)
  said = refused(make_config(path))
  assert all(t in said for t in (str(path), axis, shown, 'make_unique')), said


@pytest.mark.parametrize(
  ('value', 'shown'),
  [(np.nan, 'NaN'), (np.inf, 'infinite'), (-1.0, 'negative')],
)
@pytest.mark.parametrize('kind', [np.asarray, sparse.csr_matrix])
def test_values_that_cannot_be(value, shown, kind, written, refused):
  adata = make_adata()
  adata.X[7, 3] = value
  adata.X = kind(adata.X)
  path = written(adata)
  said = refused(make_config(path))
  for text in (f'{path}, X', f'1 values are {shown}', "'cell7'", "'D'"):
    assert text in said, said


def test_scale_is_checked_both_ways(written, refused):
  adata = make_adata()
  config = make_config(written(adata))
  config.data.scale = 'log1p'
  said = refused(config)
  assert "scale='log1p'" in said
  assert 'looks like counts' in said
  adata.X = np.log1p(adata.X / 2)
  config = make_config(written(adata))
  said = refused(config)
  assert "scale='counts'" in said
  assert 'looks like log1p' in said
  assert 'data.scale' in said
  assert 'data.layer' in said


def test_only_one_condition(written, refused):
  adata = make_adata()
  path = written(adata[adata.obs['condition'] == 'control'].copy())
  said = refused(make_config(path))
  assert f'{path}: only one condition' in said


def test_too_few_combinations_to_hold_out(written, refused):
  adata = make_adata()
  path = written(adata[~adata.obs['condition'].isin(DOUBLES)].copy())
  said = refused(make_config(path))
  assert 'combinations' in said


# The split.


def test_split_file_with_a_condition_that_the_data_lack(
  written, refused, tmp_path
):
  labels = tmp_path / 'mine.csv'
  rows = [*((c, 'train') for c in (*SINGLES, 'A+B')), ('A+C', 'val')]
  rows += [('B+D', 'test'), ('C+D', 'test'), ('A+Z', 'test')]
  labels.write_text(
    'condition,split\n' + ''.join(f'{c},{s}\n' for c, s in rows)
  )
  config = make_config(written(make_adata()), split='csv')
  config.split.path = str(labels)
  said = refused(config)
  assert all(text in said for text in (labels.name, 'A+Z', 'missing')), said
  config.split.path = str(tmp_path / 'none.csv')
  said = refused(config, FileNotFoundError)
  assert 'none.csv' in said


def test_split_by_a_column_that_is_not_there(written, refused):
  path = written(make_adata())
  config = make_config(path, split='cells')
  config.split.units = 'doner'
  said = refused(config)
  assert all(t in said for t in ('split.units', "'doner'", str(path))), said


def test_split_by_a_group_that_is_not_there(written, refused):
  config = make_config(written(make_adata()), split='transfer')
  config.split.test_groups = ('t2',)
  said = refused(config)
  assert all(t in said for t in ('test_groups', "'t2'", 't0', 't1')), said


# What is odd but can be used is counted.


def test_cells_without_counts_are_counted(written, tmp_path, capsys):
  adata = make_adata()
  adata.X[[3, 100]] = 0
  path = written(adata)
  run = record.open_run(make_config(path), tmp_path / 'run')
  assert any('2 cells without any count' in note for note in run.spec.notes)
  assert 'note: 2 cells without any count' in capsys.readouterr().err
  assert len(run.spec.cell_names) == adata.n_obs - 2
  config = make_config(path)
  config.data.zero_cells = 'error'
  with pytest.raises(ValueError, match=r"2 cells have no count.*'cell3'"):
    record.open_run(config, tmp_path / 'run')


# The config.


def test_value_of_another_type(written, refused):
  config = make_config(written(make_adata()))
  with pytest.raises(TypeError, match='steps'):
    config.train.steps = 'many'
  raw = config.to_dict()
  raw['train']['steps'] = 'many'
  said = refused(ml_collections.ConfigDict(raw))
  assert "train.steps is 'many' (str); it takes int" in said


def test_value_that_is_not_allowed_comes_before_the_file(refused, tmp_path):
  config = make_config(tmp_path / 'none.h5ad')
  config.eval.truth = 'half'
  said = refused(config)
  assert 'eval.truth' in said
  assert 'halves' in said


def test_key_that_nobody_reads(refused, tmp_path):
  config = make_config(tmp_path / 'none.h5ad')
  config.train.stesp = 5
  assert 'train.steps' in refused(config)


# The run directory.


def test_workdir_that_cannot_be_written(written, tmp_path):
  path = written(make_adata())
  (tmp_path / 'file').write_text('x')
  for workdir in (tmp_path / 'file' / 'run', tmp_path / 'file'):
    with pytest.raises(OSError, match='cannot be written to') as caught:
      runs.start(make_config(path), workdir)
    assert f'--workdir={workdir}' in str(caught.value)
  assert (tmp_path / 'file').read_text() == 'x'


def test_workdir_of_another_run_names_the_keys(written, tmp_path):
  path = written(make_adata())
  workdir = tmp_path / 'run'
  writers.write_json(
    workdir / 'config.json', config_lib.to_dict(make_config(path))
  )
  config = make_config(path)
  config.seed, config.train.batch_size = 5, 8
  with pytest.raises(ValueError, match='another config') as caught:
    runs.start(config, workdir)
  said = str(caught.value)
  assert f'--workdir={workdir}' in said
  assert 'seed: 0 -> 5' in said
  assert 'train.batch_size: 16 -> 8' in said
  assert [p.name for p in workdir.iterdir()] == ['config.json']


@pytest.mark.parametrize('text', ['', '{"seed": 0', '[1]'])
def test_config_of_a_run_that_cannot_be_read(text, written, tmp_path):
  (tmp_path / 'run').mkdir()
  (tmp_path / 'run' / 'config.json').write_text(text)
  with pytest.raises(ValueError, match=r'run/config\.json'):
    runs.start(make_config(written(make_adata())), tmp_path / 'run')


# The disk.


@contextlib.contextmanager
def disk_of(size):
  """Lets no file of this process grow beyond a size, as a full disk does."""
  before = resource.getrlimit(resource.RLIMIT_FSIZE)
  shortest = jax.config.jax_persistent_cache_min_compile_time_secs
  # The cache of compiled programs is read, and not written to half.
  jax.config.update('jax_persistent_cache_min_compile_time_secs', NEVER)
  resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
  try:
    yield
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    jax.config.update('jax_persistent_cache_min_compile_time_secs', shortest)


def test_disk_full_at_the_first_table(written, tmp_path):
  config = make_config(written(make_adata()))
  workdir = tmp_path / 'run'
  with disk_of(2_000), pytest.raises(OSError, match='too large') as caught:
    runs.start(config, workdir)
  assert str(workdir / 'split.csv') in str(caught.value)
  assert not list(workdir.rglob('*'))


def test_disk_full_leaves_the_older_tables(written, tmp_path):
  config = make_config(written(make_adata()), model='baselines')
  workdir = tmp_path / 'run'
  runs.start(config, workdir)
  files = sorted(p for p in workdir.rglob('*') if p.is_file())
  before = {p: p.read_bytes() for p in files}
  size = len(before[workdir / 'eval' / 'metrics.csv']) - 1
  for name in ('eval/metrics.csv', 'predictions.h5ad'):
    config.eval.save_predictions = name == 'predictions.h5ad'
    limit = min(size, len(before[workdir / name]) - 1)
    with disk_of(limit), pytest.raises(OSError) as caught:  # noqa: PT011
      runs.start(config, workdir)
    assert str(workdir / name) in str(caught.value)
    after = sorted(p for p in workdir.rglob('*') if p.is_file())
    assert after == files
    for path in (workdir / 'eval' / 'metrics.csv', workdir / 'split.csv'):
      assert path.read_bytes() == before[path]
    assert (workdir / name).read_bytes() == before[workdir / name]


# A process whose files end at the size that its first argument names.
LIMITED = (
  'import resource, runpy, sys; '
  'size = int(sys.argv.pop(1)); '
  'resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)); '
  'runpy.run_module("pertjax.main", run_name="__main__", alter_sys=True)'
)


def test_disk_full_at_a_checkpoint(written, tmp_path, monkeypatch):
  path = written(make_adata())
  workdir = tmp_path / 'run'
  file = tmp_path / 'mine.py'
  config = make_config(path)
  # Adam's moments of this width do not fit, and every table does.
  config.model.width = 256
  file.write_text(
    'import json, ml_collections\n'
    'def get_config():\n'
    f'  raw = json.loads({json.dumps(config_lib.to_dict(config))!r})\n'
    '  from pertjax import config\n'
    '  made = config.default("decoder_only")\n'
    '  for section, keys in raw.items():\n'
    '    if isinstance(keys, dict):\n'
    '      made[section].update(\n'
    '        {k: tuple(v) if isinstance(v, list) else v\n'
    '         for k, v in keys.items() if k != "simulate"})\n'
    '  return made\n'
  )
  save = checkpoints.save

  def once(*args):
    monkeypatch.setattr(checkpoints, 'save', interrupted)
    return save(*args)

  def interrupted(*args):
    raise KeyboardInterrupt

  monkeypatch.setattr(checkpoints, 'save', once)
  with pytest.raises(KeyboardInterrupt):
    runs.start(config, workdir)
  monkeypatch.undo()
  first = {
    p: p.read_bytes()
    for p in (workdir / 'ckpt' / '1').rglob('*')
    if p.is_file()
  }
  assert first
  size = max(len(content) for content in first.values()) // 2
  done = subprocess.run(
    [
      sys.executable, '-c', LIMITED, str(size),
      f'--config={file}', f'--workdir={workdir}',
    ],
    cwd=ROOT,
    capture_output=True,
    text=True,
    timeout=300,
    check=False,
    env={
      **os.environ,
      'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': str(NEVER),
    },
  )  # fmt: skip
  assert done.returncode == 1, done.stderr
  # A sentence and no trace of ours; threads of orbax may still complain.
  (error,) = (
    line
    for line in done.stderr.splitlines()
    if line.startswith('pertjax: error: ')
  )
  assert 'pertjax/' not in done.stderr.replace(str(workdir), '')
  assert f'could not save the checkpoint {workdir / "ckpt" / "2"}' in error
  assert 'start again to resume' in error
  assert {p: p.read_bytes() for p in first} == first
  assert [p.name for p in (workdir / 'ckpt').iterdir()] == ['1']
  # With space again, the run goes on from there.
  runs.start(config, workdir)
  lines = (workdir / 'metrics.jsonl').read_text().splitlines()
  assert [json.loads(line)['step'] for line in lines] == [10, 20]
  assert sorted(p.name for p in (workdir / 'ckpt').iterdir()) == ['1', '2']
