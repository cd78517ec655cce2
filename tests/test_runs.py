"""The modes, from a config to the files of a run."""

import csv
import hashlib
import json
import pathlib
import shutil

import anndata
import jax
import numpy as np
import pandas as pd
import pytest
from tiny_runs import (
  MODEL,
  SOURCE,
  command,
  make_config,
  outputs,
  small_flags,
  table,
  values,
)

from pertjax import config as config_lib
from pertjax import data as data_lib
from pertjax import runs, train, types, writers
from pertjax.data import arrays
from pertjax.models import baselines

# ml_collections reads config files by an old function of importlib.
pytestmark = pytest.mark.filterwarnings(
  'ignore:the load_module:DeprecationWarning'
)


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  """A run from the command line, with what it printed."""
  workdir = tmp_path_factory.mktemp('main') / 'run'
  done = command(f'--config={SOURCE}', f'--workdir={workdir}', *small_flags())
  assert done.returncode == 0, done.stderr
  return workdir, done


@pytest.fixture
def run(finished, tmp_path):
  """A copy of the run, for tests that write into it."""
  return shutil.copytree(finished[0], tmp_path / 'run')


# Training.


def test_training_leaves_the_files_of_a_run(finished):
  workdir, done = finished
  assert done.stdout == ''
  assert 'Traceback' not in done.stderr
  assert 'test split' in done.stderr  # The leaderboard.
  for name in (
    'config.json',
    'env.json',
    'split.csv',
    'split_summary.json',
    'metrics.jsonl',
    'predictions.h5ad',
    'eval/profiles.npz',
  ):
    assert (workdir / name).stat().st_size > 0, name  # fmt: skip
  saved = json.loads((workdir / 'config.json').read_text())
  assert saved == config_lib.to_dict(make_config())
  assert sorted(p.name for p in (workdir / 'ckpt').iterdir()) == ['1', '2']
  assert not (workdir / 'tb').exists()
  assert not list(workdir.rglob('*.tmp'))


def test_env_holds_what_the_numbers_depend_on(finished):
  workdir, _ = finished
  env = json.loads((workdir / 'env.json').read_text())
  split = (workdir / 'split.csv').read_bytes()
  assert env['split_sha256'] == hashlib.sha256(split).hexdigest()
  assert len(env['data_fingerprint']) == 64
  assert env['packages']['jax'] == jax.__version__
  assert env['devices'] == ['cpu: cpu']
  assert env['dataset'] == 'simulate'
  assert env['model_parameters'] > 0
  assert [(m['member'], m['seed'], m['status']) for m in env['members']] == [
    (0, 0, 'ok'),
    (1, 1, 'ok'),
  ]
  assert set(env['metric_versions']) >= {'pearson', 'rmse', 'cosine_rank'}
  lines = split.decode().splitlines()
  assert lines[0] == 'cell,split,condition,group,regime'
  assert len(lines) == env['num_cells'] + 1


def test_metrics_hold_every_member_and_chunk(finished):
  lines = (finished[0] / 'metrics.jsonl').read_text().splitlines()
  records = [json.loads(line) for line in lines]
  assert [(r['step'], r['seed']) for r in records] == [
    (10, 0), (10, 1), (20, 0), (20, 1),
  ]  # fmt: skip
  for record in records:
    assert np.isfinite([record['train_loss'], record['val_loss']]).all()


def test_tables_hold_the_model_the_baselines_and_the_ceiling(finished):
  rows = table(finished[0])
  assert {r['model'] for r in rows} == {MODEL, 'ceiling', *baselines.KINDS}
  assert {r['seed'] for r in rows if r['model'] == MODEL} == {'0', '1'}
  assert {r['split'] for r in rows} == {'test'}
  summary = table(finished[0], 'summary')
  assert {r['model'] for r in summary} == {r['model'] for r in rows}
  (row,) = (
    r
    for r in summary
    if (r['model'], r['regime']) == (MODEL, 'all')
    and (r['aggregate'], r['genes'], r['metric']) == ('average', 'all', 'rmse')
  )
  of_pairs = [
    float(r['value'])
    for r in rows
    if r['model'] == MODEL
    and (r['aggregate'], r['genes'], r['metric']) == ('average', 'all', 'rmse')
  ]
  assert float(row['mean']) == pytest.approx(np.mean(of_pairs), rel=1e-5)
  assert float(row['low']) <= float(row['mean']) <= float(row['high'])


def test_predictions_are_cells_of_the_held_out_conditions(finished):
  workdir, _ = finished
  cells = anndata.read_h5ad(workdir / 'predictions.h5ad')
  held_out = {r['condition'] for r in table(workdir)}
  assert set(cells.obs['condition']) == held_out
  assert cells.obs_names.is_unique
  assert np.isfinite(cells.X).all()
  assert cells.layers['seed_sd'].max() > 0
  told = json.loads(cells.uns['pertjax'])
  env = json.loads((workdir / 'env.json').read_text())
  assert told['split_sha256'] == env['split_sha256']
  assert told['data_fingerprint'] == env['data_fingerprint']


def test_second_start_changes_no_byte(run, capsys):
  before = outputs(run)
  runs.start(make_config(), run)
  assert outputs(run) == before
  assert 'resuming at step 20 of 20' in capsys.readouterr().err


def test_config_and_split_are_written_once(run, monkeypatch):
  written = []
  whole = writers.write_text

  def counted(path, text):
    written.append(path.name)
    whole(path, text)

  monkeypatch.setattr(writers, 'write_text', counted)
  for mode in ('train', 'evaluate'):
    written.clear()
    runs.start(make_config(**{'eval.baselines': ()}), run, mode=mode)
    for name in ('config.json', 'split.csv', 'split_summary.json'):
      assert written.count(name) == 1, (mode, written)
    # Before training too, where a run that is killed leaves it.
    assert written.count('env.json') == (2 if mode == 'train' else 1)


def test_second_start_with_another_config_names_the_keys(run):
  before = outputs(run)
  config = make_config(**{'train.steps': 40, 'model.width': 8, 'eval.cells': 8})
  with pytest.raises(ValueError, match='another config') as caught:
    runs.start(config, run)
  lines = str(caught.value).splitlines()[1:]
  assert [line.strip() for line in lines] == [
    'model.width: 16 -> 8',
    'train.steps: 20 -> 40',
  ]
  assert outputs(run) == before


# Evaluating.


def test_evaluate_scores_again_without_training(run, monkeypatch):
  monkeypatch.setattr(train, 'train_fleet', None)  # Calling it is an error.
  before = outputs(run)
  (run / 'eval' / 'summary.csv').unlink()
  (run / 'eval' / 'metrics.csv').unlink()
  runs.start(make_config(**{'log.report': True}), run, mode='evaluate')
  assert outputs(run) == before
  assert (run / 'report.html').stat().st_size > 10_000


def test_evaluate_at_a_checkpoint(run):
  before = table(run)
  config = make_config(**{'eval.checkpoint': 10, 'eval.baselines': ()})
  runs.start(config, run, mode='evaluate')
  after = table(run)
  assert {r['model'] for r in after} == {MODEL, 'ceiling'}
  others = [r for r in before if r['model'] in (MODEL, 'ceiling')]
  for now, then in zip(after, others, strict=True):
    if now['model'] == 'ceiling':
      assert now == then
    elif now['metric'] == 'rmse':
      assert now['value'] != then['value']


def test_evaluate_at_a_step_without_checkpoint_names_those_there_are(run):
  config = make_config(**{'eval.checkpoint': 15})
  with pytest.raises(ValueError, match=r'eval\.checkpoint is 15.*\[10, 20\]'):
    runs.start(config, run, mode='evaluate')


@pytest.mark.parametrize('mode', ['evaluate', 'predict'])
def test_a_run_is_needed(mode, tmp_path):
  wanted = tmp_path / 'wanted.csv'
  wanted.write_text('condition,cell_type\nGENE0002,type0\n')
  config = make_config(**{'predict.conditions': str(wanted)})
  with pytest.raises(FileNotFoundError, match='holds no run; train first'):
    runs.start(config, tmp_path / 'none', mode=mode)
  assert not (tmp_path / 'none').exists()


def test_unknown_mode_is_named(tmp_path):
  with pytest.raises(ValueError, match="'evalute'.*closest: evaluate"):
    runs.start(make_config(), tmp_path, mode='evalute')


# Evaluating another tool's file.


def score_file(cells, tmp_path, **changes):
  path = tmp_path / 'theirs.h5ad'
  if not isinstance(cells, pathlib.Path):
    cells.write_h5ad(path)
    cells = path
  workdir = tmp_path / 'scored'
  keys = {'eval.predictions': str(cells), 'eval.baselines': ('mean',)}
  runs.start(make_config(**keys, **changes), workdir, mode='evaluate')
  return workdir


def test_external_predictions_are_scored_by_name_not_by_order(
  finished, tmp_path, capsys
):
  workdir, _ = finished
  own = score_file(workdir / 'predictions.h5ad', tmp_path / 'a')
  assert {r['model'] for r in table(own)} == {'predictions', 'mean', 'ceiling'}
  assert values(own, 'ceiling') == values(workdir, 'ceiling')
  assert values(own, 'mean') == values(workdir, 'mean')
  cells = anndata.read_h5ad(workdir / 'predictions.h5ad')
  order = np.random.default_rng(0).permutation(cells.n_vars)
  shuffled = anndata.AnnData(
    cells.X[:, order],
    obs=cells.obs[['condition', 'cell_type']],
    var=pd.DataFrame(index=cells.var_names[order]),
  )
  # Combinations may be written in any order, as in the data.
  shuffled.obs['condition'] = [
    '+'.join(reversed(name.split('+'))) for name in cells.obs['condition']
  ]
  capsys.readouterr()
  (tmp_path / 'b').mkdir()
  theirs = score_file(
    shuffled, tmp_path / 'b', **{'eval.predictions_name': 'theirs'}
  )
  assert 'genes were reordered by name' in capsys.readouterr().err
  assert values(theirs, 'theirs') == values(own, 'predictions')
  env = json.loads((theirs / 'env.json').read_text())
  assert env['members'] == []


def test_external_predictions_that_are_the_truth_are_perfect(tmp_path):
  config = make_config()
  data, spec = data_lib.load(config)
  test = np.flatnonzero(spec.split.cells == types.TEST)
  condition, group = np.asarray(data.condition), np.asarray(data.group)
  cells = anndata.AnnData(
    np.asarray(arrays.gather(data.cells, jax.numpy.asarray(test))),
    obs=pd.DataFrame(
      {
        'condition': np.asarray(spec.conditions.names)[condition[test]],
        'cell_type': [spec.groups[g][0] for g in group[test]],
      },
      index=spec.cell_names[test],
    ),
    var=pd.DataFrame(index=list(spec.genes)),
  )
  workdir = score_file(cells, tmp_path, **{'eval.truth': 'all'})
  found = values(workdir, 'theirs')
  assert found
  for key, value in found.items():
    if key[-1] in ('pearson', 'cosine', 'r2'):
      assert float(value) == pytest.approx(1, abs=1e-4), key
    if key[-1] in ('rmse', 'mae', 'pearson_rank'):
      assert float(value) == pytest.approx(0, abs=1e-4), key


def test_external_predictions_that_do_not_fit_are_named(finished, tmp_path):
  cells = anndata.read_h5ad(finished[0] / 'predictions.h5ad')
  with pytest.raises(FileNotFoundError, match=r'eval\.predictions=.*none\.h5'):
    score_file(tmp_path / 'none.h5', tmp_path)
  with pytest.raises(ValueError, match='lacks 2 of 60 genes'):
    score_file(cells[:, 2:].copy(), tmp_path)
  unknown = cells.copy()
  unknown.obs['condition'] = 'GENE0002'
  with pytest.raises(ValueError, match='none of the 4 held-out pairs'):
    score_file(unknown, tmp_path)
  bare = cells.copy()
  del bare.obs['cell_type']
  with pytest.raises(ValueError, match="obs has no.*'cell_type'"):
    score_file(bare, tmp_path)
  bad = cells.copy()
  bad.X[0, 0] = np.nan
  with pytest.raises(ValueError, match='1 values are NaN'):
    score_file(bad, tmp_path)
  assert not list((tmp_path / 'scored').rglob('*'))


def test_external_predictions_do_not_replace_the_tables_of_a_run(run):
  before = outputs(run)
  config = make_config(**{'eval.predictions': str(run / 'predictions.h5ad')})
  with pytest.raises(ValueError, match='choose another directory'):
    runs.start(config, run, mode='evaluate')
  assert outputs(run) == before


# Predicting.


def request(run, rows, **changes):
  path = run.parent / 'wanted.csv'
  with path.open('w', newline='') as file:
    writer = csv.DictWriter(file, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
  config = make_config(
    **{'predict.conditions': str(path), 'predict.cells': 20, **changes}
  )
  runs.start(config, run, mode='predict')
  return run / 'predicted.h5ad'


def unseen_pair(run):
  """Two perturbations that never occur together, by names as in the file."""
  with (run / 'split.csv').open(newline='') as file:
    seen = {r['condition'] for r in csv.DictReader(file)}
  singles = sorted(c for c in seen if '+' not in c and c != 'control')
  return next(
    (a, b) for a in singles for b in singles if a < b and f'{a}+{b}' not in seen
  )


def test_predict_answers_with_cells(run):
  a, b = unseen_pair(run)
  rows = [
    {'condition': f'{b}+{a}', 'cell_type': 'type0'},
    {'condition': a, 'cell_type': 'type0'},
  ]
  before = outputs(run)
  path = request(run, rows)
  first = path.read_bytes()
  cells = anndata.read_h5ad(path)
  assert cells.obs['condition'].tolist() == [f'{a}+{b}'] * 20 + [a] * 20
  assert set(cells.obs['cell_type']) == {'type0'}
  assert cells.obs['row'].astype(str).tolist() == ['0'] * 20 + ['1'] * 20
  with (run / 'split.csv').open(newline='') as file:
    control = {
      r['cell'] for r in csv.DictReader(file) if r['condition'] == 'control'
    }
  assert set(cells.obs['control_cell']) <= control
  assert cells.obs_names.is_unique
  assert cells.obs_names[0].startswith(f'{a}+{b}|type0|cell')
  assert np.isfinite(cells.X).all()
  spread = cells.layers['seed_sd']
  assert spread.shape == cells.X.shape
  assert np.isfinite(spread).all()
  assert spread.max() > 0
  assert not np.array_equal(cells.X[:20], cells.X[20:])
  told = json.loads(cells.uns['pertjax'])
  env = json.loads((run / 'env.json').read_text())
  assert told['model'] == MODEL
  assert told['members'] == [0, 1]
  assert told['scale'] == 'log1p'
  assert told['data_fingerprint'] == env['data_fingerprint']
  # Names and values are stable, and nothing else in the run moved.
  assert request(run, rows).read_bytes() == first
  assert outputs(run) == before


def test_predict_writes_where_it_is_told(run, tmp_path):
  output = tmp_path / 'deep' / 'mine.h5ad'
  a, _ = unseen_pair(run)
  rows = [{'condition': a, 'cell_type': 'type0'}]
  request(run, rows, **{'predict.output': str(output), 'predict.cells': 3})
  assert anndata.read_h5ad(output).n_obs == 3
  assert not (run / 'predicted.h5ad').exists()
  for wrong, shown in ((tmp_path, 'a directory'), (output / 'x', 'written to')):
    with pytest.raises(OSError, match=shown) as caught:
      request(run, rows, **{'predict.output': str(wrong)})
    assert f'predict.output={wrong}' in str(caught.value)


@pytest.mark.parametrize(
  ('row', 'shown'),
  [
    ({'condition': 'GENE00o2', 'cell_type': 'type0'}, ('row 2', 'closest')),
    ({'condition': '{a}+NOPE', 'cell_type': 'type0'}, ("'NOPE'", 'row 2')),
    ({'condition': '{a}'}, ("no column 'cell_type'", "found are 'condition'")),
    ({'perturbation': '{a}', 'cell_type': 'type0'}, ("no column 'condition'",)),
    ({'condition': '{a}', 'cell_type': 'type9'}, ("'type9'", 'row 2', 'type0')),
    ({'condition': '', 'cell_type': 'type0'}, ('condition',)),
  ],
)
def test_predict_names_what_it_cannot_answer(row, shown, run):
  a, _ = unseen_pair(run)
  row = {k: v.replace('{a}', a) for k, v in row.items()}
  with pytest.raises(ValueError) as caught:  # noqa: PT011
    request(run, [row])
  message = str(caught.value)
  assert all(text in message for text in shown), message
  assert not (run / 'predicted.h5ad').exists()


def test_predict_needs_a_table(run, tmp_path):
  with pytest.raises(ValueError, match=r'predict\.conditions is empty'):
    runs.start(make_config(), run, mode='predict')
  config = make_config(**{'predict.conditions': str(tmp_path / 'none.csv')})
  with pytest.raises(FileNotFoundError, match=r'none\.csv: no such file'):
    runs.start(config, run, mode='predict')
  (tmp_path / 'none.csv').write_text('condition,cell_type\n')
  with pytest.raises(ValueError, match='no rows'):
    runs.start(config, run, mode='predict')


# Debugging.


def test_debug_takes_few_steps_of_one_seed(tmp_path, monkeypatch):
  seen = []
  whole = train.train_fleet

  def watched(run, members):
    nans, jit = jax.config.jax_debug_nans, not jax.config.jax_disable_jit
    seen.append((nans, jit, len(members)))
    with jax.disable_jit(False):  # The real thing is below, and slow.
      return whole(run, members)

  monkeypatch.setattr(train, 'train_fleet', watched)
  config = make_config(**{'eval.baselines': ()})
  runs.start(config, tmp_path, debug=True)
  assert seen == [(True, False, 1)]
  assert not jax.config.jax_disable_jit
  assert not jax.config.jax_debug_nans
  assert config.num_seeds == 2  # The caller's own is untouched.
  saved = json.loads((tmp_path / 'config.json').read_text())
  assert (saved['num_seeds'], saved['train']['steps']) == (1, 2)
  assert {r['model'] for r in table(tmp_path)} == {MODEL, 'ceiling'}


def test_debug_stops_at_the_first_nan(tmp_path, monkeypatch):
  def broken(run, members):
    return jax.numpy.log(-jax.numpy.ones(2))

  monkeypatch.setattr(train, 'train_fleet', broken)
  with pytest.raises(FloatingPointError):
    runs.start(make_config(), tmp_path, debug=True)


def test_compilation_cache_is_the_users_or_theirs(monkeypatch, tmp_path):
  changed = {}
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
  monkeypatch.setattr(jax.config, 'update', changed.__setitem__)
  runs.use_compilation_cache()
  if jax.config.jax_compilation_cache_dir:
    assert changed == {}
    monkeypatch.setattr(type(jax.config), 'jax_compilation_cache_dir', None)
    runs.use_compilation_cache()
  assert changed['jax_compilation_cache_dir'] == f'{tmp_path}/pertjax/jax'
