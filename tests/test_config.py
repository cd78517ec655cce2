"""The config: defaults, arguments, checks, fleets, JSON."""

import json
import pathlib

import ml_collections
import numpy as np
import pytest

from pertjax import config as config_lib
from pertjax import models, optimizers
from pertjax.data import splits

ROOT = pathlib.Path(__file__).resolve().parent.parent
FILES = sorted((ROOT / 'configs').glob('*.py'))
ARGS = {'model': 'vae', 'fraction': 0.5, 'count': 3, 'smoke': False}


def put(config, key, value):
  """Sets a dotted key, whatever its type was."""
  *path, last = key.split('.')
  for part in path:
    config = config[part]
  with config.unlocked():
    if last in config:
      del config[last]
    config[last] = value


def refusal(config):
  with pytest.raises(ValueError) as caught:
    config_lib.validate(config)
  return str(caught.value)


# Defaults.


@pytest.mark.parametrize('model', models.names())
@pytest.mark.parametrize('split', splits.METHODS)
def test_default_is_valid_and_holds_the_keys_of_its_parts(model, split):
  config = config_lib.default(model, split)
  config_lib.validate(config)
  assert set(config.model) == {'name', *models.module(model).default_config()}
  assert set(config.split) == {'method', 'seed', *splits.default_options(split)}
  assert set(config.optimizer) == set(optimizers.default_config())


def test_default_has_no_none_which_a_flag_could_not_replace():
  for split in splits.METHODS:
    config = config_lib.default('vae', split)
    assert ': None' not in str(config.to_dict())


def test_recipe_of_a_model_replaces_defaults():
  vae, other = config_lib.default('vae'), config_lib.default('decoder_only')
  assert vae.optimizer.eps == 0.01
  assert other.optimizer.eps == optimizers.default_config()['eps']
  assert (vae.train.batch_size, other.train.batch_size) == (32, 256)
  for key, value in models.module('vae').recipe().items():
    section, _, name = key.partition('.')
    assert vae[section][name] == value


@pytest.mark.parametrize(
  ('model', 'split', 'shown'),
  [
    ('latent_aditive', 'cells', ('model.name', 'latent_additive')),
    ('vae', 'combination', ('split method', 'combinations', 'transfer')),
  ],
)
def test_default_names_the_closest(model, split, shown):
  with pytest.raises(ValueError) as caught:
    config_lib.default(model, split)
  assert all(text in str(caught.value) for text in shown)


# Arguments after the colon.


def test_arguments_keep_their_types():
  options = config_lib.parse_arg(
    'model=x.y, fraction=1,count=-2 ,smoke,', **ARGS
  )
  assert options.to_dict() == {
    'model': 'x.y',
    'fraction': 1.0,
    'count': -2,
    'smoke': True,
  }
  assert type(options.fraction) is float
  assert config_lib.parse_arg('', **ARGS).to_dict() == ARGS
  assert config_lib.parse_arg('smoke=False', **ARGS).smoke is False
  assert config_lib.parse_arg('model=CD4 T cells', **ARGS).model == (
    'CD4 T cells'
  )


@pytest.mark.parametrize(
  ('arg', 'shown'),
  [
    ('smok', ("'smok'", 'closest: smoke', 'allowed: model, fraction, count')),
    ('mdel=vae', ("'mdel'", 'closest: model')),
    ('zzz=1', ("'zzz'", 'allowed: model, fraction, count, smoke')),
    ('model', ("'model'", 'model=vae')),
    ('count', ("'count'", 'count=3')),
    ('count=2.5', ("count='2.5'", 'int', '3')),
    ('count=True', ("count='True'", 'int')),
    ('fraction=half', ("fraction='half'", 'float', '0.5')),
    ('fraction=True', ("fraction='True'", 'float')),
    ('smoke=1', ("smoke='1'", 'bool', 'False')),
    ('smoke=', ("smoke=''", 'bool')),
  ],
)
def test_argument_that_cannot_be_is_named(arg, shown):
  with pytest.raises(ValueError) as caught:
    config_lib.parse_arg(arg, **ARGS)
  assert all(text in str(caught.value) for text in shown), caught.value


# validate().


@pytest.mark.parametrize(
  ('key', 'value', 'shown'),
  [
    # Names.
    ('data.dataset', 'norman2019', ("'norman2019'", 'norman2019_gears')),
    ('data.preset', 'perturbenhc', ("'perturbenhc'", 'perturbench', 'gears')),
    ('data.scale', 'log', ("'log'", 'counts', 'log1p')),
    ('data.zero_cells', 'keep', ("'keep'", 'drop', 'error')),
    ('data.hvg_flavor', 'seurat_v2', ("'seurat_v2'", 'seurat_v3')),
    ('data.hvg_cells', 'test', ("'test'", 'train', 'all')),
    ('data.storage', 'float16', ("'float16'", 'bfloat16', 'csr')),
    ('train.select', 'first', ("'first'", 'best', 'last')),
    ('eval.split', 'train', ("'train'", 'val', 'test')),
    ('eval.truth', 'half', ("'half'", 'closest: halves', 'all')),
    ('eval.rank_denominator', 'n+1', ("'n+1'", 'n-1')),
    ('eval.baselines', ('mean', 'ridg'), ("'ridg'", 'closest: ridge')),
    ('eval.leaderboard', ('delat', 'all', 'mse'), ('aggregate', 'delta')),
    ('eval.leaderboard', ('delta', 'top5', 'mse'), ('genes', 'all, top20')),
    ('eval.leaderboard', ('delta', 'all', 'pearsn'), ('metric', 'pearson')),
    ('eval.leaderboard', ('delta', 'all'), ('aggregate, genes, metric',)),
    ('optimizer.name', 'admaw', ("'admaw'", 'adamw', 'sgd')),
    ('optimizer.schedule', 'cos', ("'cos'", 'cosine', 'linear')),
    # Numbers.
    ('seed', -1, ('-1', 'at least 0')),
    ('num_seeds', 0, ('0', 'at least 1')),
    ('data.min_cells', -1, ('-1', 'at least 0')),
    ('data.min_cells_per_gene', -1, ('-1', 'at least 0')),
    ('data.num_hvg', -5, ('-5', 'at least 0')),
    ('data.degs', -1, ('-1', 'at least 0')),
    ('split.seed', -42, ('-42', 'at least 0')),
    ('train.steps', 0, ('0', 'at least 1')),
    ('train.steps', 150, ('150', 'train.chunk (100)')),
    ('train.batch_size', 0, ('0', 'at least 1')),
    ('train.chunk', 0, ('0', 'at least 1')),
    ('train.checkpoint_every', 0, ('0', 'at least 1')),
    ('train.keep', 1, ('1', 'at least 2')),
    ('train.patience', -1, ('-1', 'at least 0')),
    ('eval.seed', -1, ('-1', 'at least 0')),
    ('eval.cells', 0, ('0', 'at least 1')),
    ('eval.min_cells', 1, ('1', 'at least 2')),
    ('eval.top_genes', 0, ('0', 'at least 1')),
    ('eval.bootstrap', 99, ('99', 'at least 100')),
    ('eval.checkpoint', -2, ('-2', 'at least -1')),
    ('eval.saved_cells', 0, ('0', 'at least 1')),
    ('predict.cells', 0, ('0', 'at least 1')),
    ('optimizer.learning_rate', 0.0, ('0.0', '> 0')),
    ('optimizer.eps', -1e-8, ('-1e-08', '> 0')),
    ('optimizer.weight_decay', -0.1, ('-0.1', '>= 0')),
    ('optimizer.clip_norm', -1.0, ('-1.0', '>= 0')),
    ('optimizer.momentum', -0.5, ('-0.5', '>= 0')),
    ('optimizer.warmup_steps', -3, ('-3', '>= 0')),
    ('optimizer.accumulate', 0, ('0', '>= 1')),
    ('optimizer.b1', 1.0, ('1.0', '[0, 1)')),
    ('optimizer.b2', -0.1, ('-0.1', '[0, 1)')),
    # Types.
    ('train.steps', 'many', ("'many'", 'str', 'int')),
    ('train.steps', 100.0, ('100.0', 'float', 'int')),
    ('optimizer.eps', True, ('True', 'bool', 'float')),
    ('num_seeds', True, ('True', 'bool', 'int')),
    ('data.path', 3, ('3', 'int', 'str')),
    ('log.report', 1, ('1', 'int', 'bool')),
    ('eval.baselines', 'mean', ("'mean'", 'str', 'tuple')),
    # Phases.
    ('train.phases', ((100,),), ('train.phases[0]', '(steps, (player, ...))')),
    ('train.phases', ((100, 'model'),), ('train.phases[0]', "('model',)")),
    ('train.phases', ((100, ()),), ('train.phases[0]', 'player')),
    ('train.phases', ((1.5, ('model',)),), ('train.phases[0]', '1.5')),
    (
      'train.phases',
      ((100, ('model',)), (50, ('model',))),
      ('train.phases[1]', '50', 'train.chunk (100)'),
    ),
  ],
)
def test_wrong_value_is_named_with_what_is_allowed(key, value, shown):
  config = config_lib.default('vae')
  put(config, key, value)
  message = refusal(config)
  assert key in message
  assert all(text in message for text in shown), message


def test_numbers_of_other_kinds_are_taken_where_they_fit():
  config = config_lib.default('vae')
  put(config, 'optimizer.learning_rate', 1)
  put(config, 'optimizer.eps', np.float64(0.5))
  put(config, 'eval.baselines', ['mean'])
  config_lib.validate(config)


def test_steps_may_be_anything_where_phases_replace_them():
  config = config_lib.default('vae')
  config.train.steps = 150
  config.train.phases = ((100, ('model',)), (200, ('model',), 'cells'))
  config_lib.validate(config)


@pytest.mark.parametrize(
  ('key', 'shown'),
  [
    ('train.stesp', ('train.steps',)),
    ('data.simulate.num_cell', ('data.simulate.num_cells',)),
    ('logs', ('unknown key logs',)),
    ('model.widht', ('model.width', "'vae'", ':model=NAME')),
    ('split.test_groups', ("'combinations'", ':split=NAME')),
  ],
)
def test_key_that_nobody_reads_is_refused(key, shown):
  config = config_lib.default('vae')
  put(config, key, 5)
  message = refusal(config)
  assert key in message
  assert all(text in message for text in shown), message


def test_missing_key_is_refused():
  config = config_lib.default('vae')
  del config.train['chunk']
  assert 'no key train.chunk' in refusal(config)


def test_model_cannot_be_swapped_by_its_name_alone():
  config = config_lib.default('vae')
  config.model.name = 'decoder_only'
  message = refusal(config)
  assert "'decoder_only'" in message
  assert ':model=NAME' in message


def test_a_file_of_your_own_needs_no_dataset():
  config = config_lib.default()
  config.data.dataset = 'mine'
  assert 'data.path' in refusal(config)
  config.data.path = 'mine.h5ad'
  config_lib.validate(config)


# Keys of the command line.


def test_check_key_and_describe_key():
  config = config_lib.default('vae')
  config_lib.check_key(config, 'train.steps')
  config_lib.check_key(config, 'train')
  for key, shown in {
    'train.stesp': ('closest: train.steps', 'config.train has', 'batch_size'),
    'learning_rate': ('closest: optimizer.learning_rate', 'config has'),
    'model.widht': (
      'closest: model.width',
      "'vae'",
      'configs/default.py:model',
    ),
    'train.steps.x': ('train.steps is one value',),
  }.items():
    with pytest.raises(ValueError) as caught:
      config_lib.check_key(config, key)
    assert all(text in str(caught.value) for text in (key, *shown)), key
  assert config_lib.describe_key(config, 'train.steps') == (
    'train.steps takes int, such as 2000'
  )
  assert 'batch_size' in config_lib.describe_key(config, 'train')


# Fleets.


def test_fleet_is_every_combination_times_the_seeds():
  config = config_lib.default('vae')
  config.seed, config.num_seeds = 7, 2
  config.fleet = (
    ('optimizer.learning_rate', (1e-3, 1e-4)),
    ('model.kl_weight', (0, 1)),
  )
  config_lib.validate(config)
  members = config_lib.members(config)
  assert [m['member'] for m in members] == list(range(8))
  assert [m['seed'] for m in members] == [7, 8] * 4
  settings = [tuple(m['overrides'].values()) for m in members[::2]]
  assert settings == [(1e-3, 0.0), (1e-3, 1.0), (1e-4, 0.0), (1e-4, 1.0)]
  assert all(isinstance(v, float) for s in settings for v in s)


def test_no_fleet_is_the_fleet_of_the_seeds():
  config = config_lib.default()
  assert config_lib.members(config) == [
    {'member': 0, 'seed': 0, 'overrides': {}}
  ]


@pytest.mark.parametrize(
  ('fleet', 'shown'),
  [
    (('optimizer.learning_rate',), ("'optimizer.learning_rate'", '(key, (')),
    ((('optimizer.learning_rate', 1e-3),), ('0.001', '(key, (')),
    ((('optimizer.learning_rate', ()),), ('()', '(key, (')),
    ((('optimizer.learning_rate', ('a',)),), ("'a'", 'number')),
    ((('optimizer.learning_rate', (True,)),), ('True', 'number')),
    ((('optimizer.learning_rate', (0.0,)),), ('learning_rate', '> 0')),
    ((('optimizer.weight_decay', (-1.0,)),), ('weight_decay', '>= 0')),
    (
      (('optimizer.learning_rat', (1e-3,)),),
      ("'optimizer.learning_rat'", 'closest: optimizer.learning_rate'),
    ),
    ((('train.batch_size', (32, 64)),), ('optimizer.clip_norm', 'model.x')),
    ((('model.kl_wait', (1.0,)),), ("'model.kl_wait'", 'model.x')),
    ((('optimizer.clip_norm', (1.0,)),), ('clip_norm', 'is 0')),
    (
      (('model.kl_weight', (1.0,)), ('model.kl_weight', (2.0,))),
      ("'model.kl_weight'", 'twice'),
    ),
  ],
)
def test_fleet_that_cannot_be_is_named(fleet, shown):
  config = config_lib.default('vae')
  config.fleet = fleet
  message = refusal(config)
  assert 'fleet' in message or 'optimizer' in message
  assert all(text in message for text in shown), message


def test_clip_norm_in_a_fleet_is_positive():
  config = config_lib.default('vae')
  config.optimizer.clip_norm = 1.0
  config.fleet = (('optimizer.clip_norm', (1.0, 0.0)),)
  assert 'must be > 0' in refusal(config)
  config.fleet = (('optimizer.clip_norm', (1.0, 5.0)),)
  config_lib.validate(config)


# JSON and differences.


def test_to_dict_is_what_json_gives_back():
  config = config_lib.default('vae', 'transfer')
  config.fleet = (('optimizer.learning_rate', (1e-3, 1e-4)),)
  plain = config_lib.to_dict(config)
  assert json.loads(json.dumps(plain)) == plain
  assert plain['fleet'] == [['optimizer.learning_rate', [1e-3, 1e-4]]]
  assert plain['eval']['leaderboard'] == ['delta', 'all', 'pearson']


def test_read_is_the_way_back_and_names_a_damaged_file(tmp_path):
  path = tmp_path / 'config.json'
  plain = config_lib.to_dict(config_lib.default('vae'))
  path.write_text(json.dumps(plain))
  assert config_lib.read(path) == plain
  for text in ('', '{"seed": 0', '[1]'):
    path.write_text(text)
    with pytest.raises(ValueError, match=r'config\.json: not a config'):
      config_lib.read(path)


def test_differences_name_the_keys_that_change_the_training():
  saved = config_lib.to_dict(config_lib.default('vae'))
  config = config_lib.default('vae')
  assert config_lib.differences(saved, config_lib.to_dict(config)) == []
  config.eval.cells, config.predict.cells, config.log.report = 7, 8, False
  assert config_lib.differences(saved, config_lib.to_dict(config)) == []
  config.train.steps = 400
  config.model.width = 16
  config.fleet = (('optimizer.learning_rate', (0.1,)),)
  lines = config_lib.differences(saved, config_lib.to_dict(config))
  assert lines == [
    "fleet: [] -> [['optimizer.learning_rate', [0.1]]]",
    'model.width: 800 -> 16',
    'train.steps: 2000 -> 400',
  ]


def test_differences_show_keys_that_one_side_lacks():
  lines = config_lib.differences({'a': {'b': 1}, 'c': 2}, {'a': {'d': 1}})
  assert lines == [
    "a.b: 1 -> '(absent)'",
    "a.d: '(absent)' -> 1",
    "c: 2 -> '(absent)'",
  ]


# Config files.


@pytest.mark.parametrize('smoke', ['', ',smoke'])
@pytest.mark.parametrize('model', models.names())
@pytest.mark.parametrize('file', FILES, ids=lambda f: f.stem)
def test_config_file_is_valid_with_every_model(file, model, smoke):
  config = config_lib.load(f'{file}:model={model}{smoke}')
  assert config.model.name == model
  config.data.path = 'a.h5ad'  # One of them has no dataset to download.
  config_lib.validate(config)
  assert (config.train.steps <= 40) == bool(smoke)


@pytest.mark.parametrize('file', FILES, ids=lambda f: f.stem)
def test_config_file_takes_every_split_and_refuses_the_rest(file):
  for method in splits.METHODS:
    config = config_lib.load(f'{file}:split={method}')
    assert config.split.method == method
    config.data.path = 'a.h5ad'
    config_lib.validate(config)
  for arg in ('modle=vae', 'model=vea', 'split=transfr', 'smoke=maybe'):
    with pytest.raises(ValueError, match=r'allowed|must be'):
      config_lib.load(f'{file}:{arg}')


def test_config_files_have_their_datasets():
  datasets = {}
  for file in FILES:
    config = config_lib.load(str(file))
    try:
      config_lib.validate(config)
      datasets[file.stem] = config.data.dataset
    except ValueError as error:
      datasets[file.stem] = 'data.path' if 'data.path' in str(error) else error
  assert datasets == {
    'default': 'simulate',
    'kang': 'kang2018',
    'mcfaline': 'mcfaline2023_perturbench',
    'norman': 'norman2019_gears',
    'norman_semisynthetic': 'data.path',
    'sena': 'norman2019_cpa',
    'sena_ablation': 'norman2019_cpa',
  }


def test_arguments_of_single_files():
  kang = config_lib.load(f'{ROOT}/configs/kang.py:cell_type=CD4T')
  assert kang.split.test_groups == ('CD4T',)
  published = config_lib.load(f'{ROOT}/configs/norman.py:published')
  assert published.model.width == 5376
  with pytest.raises(ValueError, match='latent_additive'):
    config_lib.load(f'{ROOT}/configs/norman.py:published,model=vae')


def test_arguments_of_sena():
  def model(arg):
    config = config_lib.load(f'{ROOT}/configs/sena.py:{arg}')
    config_lib.validate(config)
    return config.model

  assert model('').to_dict() == {
    **config_lib.default('discrepancy_vae').model.to_dict(),
    'schedule_steps': 20_000,
  }
  changed = model('mlp,lambda=0.1,latent=35,epochs=20,steps=4000')
  assert (changed.encoder, changed.sena_lambda) == ('mlp', 0.1)
  assert (changed.latent_dim, changed.epochs) == (35, 20)
  assert changed.kl_ramp == (10, 19)
  assert changed.schedule_steps == 4000
  assert model('epochs=6').mmd_ramp == (1, 2)
  parent = model('parent')
  assert (parent.mmd_weight, parent.reduction) == (10, 'sum')
  assert (parent.eval_temperature, parent.width) == (1, 128)
  parity = config_lib.load(f'{ROOT}/configs/sena.py:parity')
  config_lib.validate(parity)
  assert parity.split.method == 'sena'
  assert parity.model.sampling == 'condition_epochs_original'


def test_sweep_of_the_ablation_has_keys_that_exist():
  path = ROOT / 'configs' / 'sweeps' / 'sena_ablation.py'
  namespace = {}
  exec(path.read_text(encoding='utf-8'), namespace)
  sweep = namespace['get_sweep']()
  assert len(sweep) == 5 * 2 * 10
  assert len({str(sorted(o.items())) for o in sweep}) == len(sweep)
  for overrides in sweep:
    config = config_lib.load(f'{ROOT}/configs/sena_ablation.py')
    for key, value in overrides.items():
      config_lib.check_key(config, key)
      put(config, key, value)
    config_lib.validate(config)


def test_load_says_what_is_wrong_with_a_file(tmp_path):
  (tmp_path / 'mine.py').write_text('x = 1\n')
  with pytest.raises(ValueError, match=r'mine\.py: has no get_config'):
    config_lib.load(str(tmp_path / 'mine.py'))
  with pytest.raises(FileNotFoundError, match=r"closest: 'mine\.py'"):
    config_lib.load(str(tmp_path / 'mien.py'))


def test_load_of_a_file_of_your_own(tmp_path):
  (tmp_path / 'mine.py').write_text(
    'from pertjax import config\n'
    'def get_config(arg="a"):\n'
    '  made = config.default("decoder_only")\n'
    '  made.data.path = arg\n'
    '  return made\n'
  )
  config = config_lib.load(str(tmp_path / 'mine.py'))
  assert isinstance(config, ml_collections.ConfigDict)
  assert config.data.path == 'a'
  assert config_lib.load(f'{tmp_path}/mine.py:b:c').data.path == 'b:c'
