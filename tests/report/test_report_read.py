"""Reading a run directory: what is missing, what is corrupt."""

import json
import pathlib
import shutil

import fabricated_run
import numpy as np
import pytest

from pertjax.report import read


@pytest.fixture(scope='module')
def made(tmp_path_factory):
  return fabricated_run.write(
    tmp_path_factory.mktemp('made'),
    conditions=4,
    genes=30,
    seeds=2,
    failed=(1,),
    trained=('latent_additive',),
    steps=400,
  )


@pytest.fixture
def workdir(made, tmp_path):
  return pathlib.Path(shutil.copytree(made, tmp_path / 'run'))


def test_reads_all_files(workdir):
  run = read.read_run(workdir)
  assert run.missing == {}
  assert run.metrics.num_rows == len(
    (workdir / 'eval/metrics.csv').read_text().splitlines()[1:]
  )
  names, codes = run.metrics.text['metric']
  assert names[codes[0]] == 'cosine'
  assert run.profiles.predicted.shape == (5, 8, 30)
  assert set(run.curves) == {
    'train_loss',
    'val_loss',
    'grad_norm',
    'learning_rate',
  }


@pytest.mark.parametrize('name', read.CONSEQUENCES)
def test_a_missing_file_is_named_with_what_it_costs(workdir, name):
  (workdir / name).unlink()
  run = read.read_run(workdir)
  assert run.missing == {name: read.CONSEQUENCES[name]}


def test_no_directory_and_no_run(tmp_path):
  with pytest.raises(FileNotFoundError, match='no such run directory'):
    read.read_run(tmp_path / 'absent')
  with pytest.raises(FileNotFoundError, match='holds none of'):
    read.read_run(tmp_path)


@pytest.mark.parametrize(
  ('name', 'content', 'words'),
  [
    ('config.json', b'{"a": ', 'not valid JSON'),
    ('config.json', b'\xff\xfe', 'not valid JSON'),
    ('config.json', b'[1]', 'top level is a list'),
    ('env.json', b'{"members": 3}', 'members is a int, expected a list'),
    ('env.json', b'{"members": [{}]}', "'member' is missing"),
    ('split_summary.json', b'[{"group": "a"}]', "'split' is missing"),
    (
      'split_summary.json',
      b'[{"group":"a","split":"b","regime":"","conditions":1,"cells":"many"}]',
      "cells of row 0 is 'many'",
    ),
    ('metrics.jsonl', b'{"step": 1}\n', 'line 1 is not a JSON object with'),
    ('metrics.jsonl', b'[1]\n', 'line 1 is not a JSON object with'),
    ('eval/metrics.csv', b'', "column 'model' is missing, found nothing"),
    ('eval/metrics.csv', b'model,sed\n', "'split' is missing"),
    ('eval/metrics.csv', b'\xff\xfe\x00', 'not a readable csv file'),
    ('eval/profiles.npz', b'PK\x03\x04 torn', 'not a readable npz file'),
    ('eval/profiles.npz', b'', 'not a readable npz file'),
    ('eval/profiles.npz', b'hello', 'not a readable npz file'),
  ],
)
def test_a_corrupt_file_is_named(workdir, name, content, words):
  (workdir / name).write_bytes(content)
  with pytest.raises(ValueError) as error:
    read.read_run(workdir)
  assert str(workdir / name) in str(error.value)
  assert words in str(error.value)


def test_a_close_column_is_suggested(workdir):
  path = workdir / 'eval/summary.csv'
  path.write_text(path.read_text().replace('seed_sd', 'seeds_sd', 1))
  with pytest.raises(ValueError, match="'seed_sd' is missing.*'seeds_sd' mean"):
    read.read_run(workdir)


def test_a_bad_row_and_a_bad_number_give_their_line(workdir):
  path = workdir / 'eval/metrics.csv'
  lines = path.read_text().splitlines()
  path.write_text('\n'.join([*lines[:5], lines[5][:20], *lines[6:]]))
  with pytest.raises(ValueError, match='row 6 has . fields, expected 11'):
    read.read_run(workdir)
  fields = lines[7].split(',')
  fields[9] = 'high'
  path.write_text('\n'.join([*lines[:7], ','.join(fields), *lines[8:]]))
  with pytest.raises(ValueError, match="row 8: value is 'high'"):
    read.read_run(workdir)


def test_empty_fields_are_nan(workdir):
  path = workdir / 'eval/metrics.csv'
  lines = path.read_text().splitlines()
  fields = lines[1].split(',')
  fields[9] = ''
  path.write_text('\n'.join([lines[0], ','.join(fields), *lines[2:]]))
  values = read.read_run(workdir).metrics.numbers['value']
  assert np.isnan(values[0])
  assert np.isfinite(values[1])


def test_profiles_of_another_shape_or_kind(workdir):
  path = workdir / 'eval/profiles.npz'
  arrays = dict(np.load(path))
  np.savez(path, **{**arrays, 'control': arrays['control'][:, :3]})
  with pytest.raises(ValueError, match=r'control is float32 \(8, 3\)'):
    read.read_run(workdir)
  np.savez(path, **{k: v for k, v in arrays.items() if k != 'genes'})
  with pytest.raises(ValueError, match="array 'genes' is missing"):
    read.read_run(workdir)


def test_an_interrupted_last_line_is_left_out_and_said(workdir):
  path = workdir / 'metrics.jsonl'
  whole = read.read_run(workdir).curves['train_loss'][0][0]
  with path.open('a') as file:
    file.write('{"step": 9999, "se')
  run = read.read_run(workdir)
  np.testing.assert_array_equal(run.curves['train_loss'][0][0], whole)
  assert any('incomplete' in note for note in run.notes)


def test_a_repeated_step_counts_once_and_is_said(workdir):
  path = workdir / 'metrics.jsonl'
  lines = [
    {'step': 2, 'seed': 0, 'train_loss': 5.0, 'val_loss': None, 'phase': 'x'},
    {'step': 1, 'seed': 0, 'train_loss': 7.0, 'val_loss': 1},
    {'step': 2, 'seed': 0, 'train_loss': 6.0, 'val_loss': float('nan')},
  ]
  path.write_text('\n'.join(map(json.dumps, lines)) + '\n')
  run = read.read_run(workdir)
  steps, values = run.curves['train_loss'][0]
  assert steps.tolist() == [1, 2]
  assert values.tolist() == [7, 6]
  assert run.curves['val_loss'][0][1].tolist() == [1]
  assert set(run.curves) == {'train_loss', 'val_loss'}
  assert any(note.startswith('1 values') for note in run.notes)
  assert len(run.notes) == 2
