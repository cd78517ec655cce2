"""The experiment as data: defaults, typed arguments, checks, JSON.

A config file builds on `default(...)` and changes what differs. The keys of
the model and of the split depend on which ones are chosen, so both are chosen
in the argument after the colon: `configs/norman.py:model=vae,split=cells`.
A key that nobody reads is an error, wherever it was set.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import math
import pathlib
from collections.abc import Mapping
from typing import Any

import ml_collections

from pertjax import losses, metrics, models, names, optimizers, train_step
from pertjax.data import (
  arrays,
  catalog,
  conventions,
  gene_sets,
  hvg,
  preprocess,
  splits,
)
from pertjax.data import simulate as simulator
from pertjax.metrics import ranks, soft_losses
from pertjax.models import baselines

SELECTIONS = ('best', 'last', 'criterion')
TRUTHS = ('halves', 'all')


def default(
  model: str = 'latent_additive', split: str = 'combinations'
) -> ml_collections.ConfigDict:
  """Returns every key with its default.

  Args:
    model: name of the model; its own keys are put under config.model.
    split: method of the split; its own keys are put under config.split.

  Raises:
    ValueError: if there is no such model or split, naming the closest.
  """
  module = models.module(model)
  config = ml_collections.ConfigDict()
  config.seed = 0
  # Seeds seed, seed + 1, ... are trained at once, as an axis.
  config.num_seeds = 1
  # Settings trained at once, times the seeds: ((key, (value, ...)), ...) with
  # keys 'optimizer.learning_rate', 'optimizer.weight_decay',
  # 'optimizer.clip_norm', 'loss.weights.x' or a loss weight 'model.x' that the
  # model allows.
  config.fleet = ()

  config.data = _data()
  config.split = {
    'method': split,
    'seed': 42,
    **_settable(splits.default_options(split)),
  }
  config.model = {'name': model, **module.default_config()}
  config.optimizer = optimizers.default_config()
  config.loss = _loss()

  config.train = {
    'steps': 2000,
    'batch_size': 256,
    # Steps of one compiled call; validation and a log line come after each.
    'chunk': 100,
    # Chunks between checkpoints, and how many are kept.
    'checkpoint_every': 5,
    'keep': 2,
    # Which parameters predict: 'best' by validation, the 'last', or those of
    # the chunk with the least mean 'criterion' that the model itself reports.
    'select': 'best',
    # Validations without improvement before a member stops; 0 never stops.
    'patience': 0,
    # ((steps, (player, ...)), ...) or with a sampler as a third entry; empty
    # for one phase of all players.
    'phases': (),
  }
  config.eval = {
    'split': 'test',
    # Of the halves and of the bootstrap: the same for runs to be compared.
    'seed': 0,
    # Control cells that are sent through the model for each condition.
    'cells': 500,
    # Pairs with fewer real cells than this are not scored.
    'min_cells': 10,
    # 'halves': everything is scored on both halves of the real cells, and the
    # ceiling is one half against the other. 'all': on all cells, as published.
    'truth': 'halves',
    # DE genes of the second gene set, by Welch's t on real cells: in halves,
    # on those that are not the truth.
    'top_genes': 20,
    'rank_denominator': 'n-1',
    'r2_swapped': False,
    'bootstrap': 2000,
    # Cuts in halves, and permutations without any effect, by which metrics
    # are calibrated on these data; 0 for none.
    'certificate': 4,
    'baselines': tuple(baselines.KINDS),
    # Step of the checkpoint that is scored; -1 for the selected parameters.
    'checkpoint': -1,
    # Another tool's predictions (h5ad) to score in mode=evaluate.
    'predictions': '',
    'predictions_name': '',
    # Print the leaderboard for these: aggregate, genes, metric.
    'leaderboard': ('delta', 'all', 'pearson'),
    # Write predictions.h5ad for the held-out pairs (seed mean per cell).
    'save_predictions': True,
    # Predicted cells of each pair in that file, at most.
    'saved_cells': 100,
  }
  config.predict = {
    # CSV with a column for the condition and one for each covariate.
    'conditions': '',
    'output': '',
    'cells': 256,
  }
  config.log = {'tensorboard': True, 'report': True}
  for key, value in getattr(module, 'recipe', dict)().items():
    config[key.split('.')[0]][key.split('.')[1]] = value
  # Keys of the model that follow others until they are set themselves.
  getattr(module, 'link', lambda config: None)(config)
  return config


def _loss() -> dict[str, Any]:
  return {
    # Weight of the model's own loss. Validation, and with it the choice of
    # parameters, is by the own loss whatever is added here.
    'own': 1.0,
    # Metrics of the mean cells of each batch's (condition, group) pairs, in a
    # form that is 0 at best; see metrics/soft_losses.py. 0 leaves one out.
    'weights': dict.fromkeys(soft_losses.LOSSES, 0.0),
    # Of sigmoids, as a share of the spread of what they compare.
    'temperature': 0.1,
    # Distance of soft_rank and retrieval_nce, between changes from control.
    'rank_metric': 'rmse',
    # Pairs with fewer cells in a batch are left out of it.
    'min_cells': 2,
    # What changes are taken from: 'matched', the mean of a pair's own control
    # cells, or 'group', of all controls of its group in the batch.
    'control': 'matched',
  }


def _data() -> dict[str, Any]:
  return {
    # 'simulate' or a name of data/catalog.py; not used where `path` is given.
    'dataset': 'simulate',
    # An h5ad file, which gives the dataset its name.
    'path': '',
    'cache_dir': '',
    # Naming convention of the file; empty: the catalogue entry's, or
    # 'perturbench' for a file. Keys that are not empty replace the preset's.
    'preset': '',
    'key': '',
    'control': '',
    'separator': '',
    'covariates': (),
    'dose_key': '',
    'gene_names': '',
    # What the values are: 'counts' or 'log1p'; the file is checked against it.
    'scale': 'counts',
    'layer': '',
    'zero_cells': 'drop',
    'min_cells': 0,
    'make_unique': False,
    'drop_groups_without_control': False,
    **_settable(preprocess.default_options()),
    # Gene sets of a file, and which are used; see data/gene_sets.py.
    **gene_sets.DEFAULTS,
    # On the device: 'float32', 'bfloat16' or 'csr'.
    'storage': 'float32',
    'simulate': simulator.default_config(),
  }


def _settable(options: Mapping[str, Any]) -> dict[str, Any]:
  """Replaces None by '': a flag cannot override a field that holds None."""
  return {k: '' if v is None else v for k, v in options.items()}


def load(source: str) -> ml_collections.ConfigDict:
  """Returns the config of 'FILE.py' or 'FILE.py:ARGUMENTS'.

  Raises:
    FileNotFoundError: if there is no such file, naming those beside it.
    ValueError: if it has no get_config(), or for arguments that it refuses.
  """
  name, colon, arg = source.partition(':')
  path = pathlib.Path(name)
  if not path.is_file():
    beside = sorted(p.name for p in path.parent.glob('*.py'))
    raise FileNotFoundError(
      f'{path}: no such file; config files in {path.parent}: '
      f'{names.suggestion(path.name, beside)}'
    )
  spec = importlib.util.spec_from_file_location(f'config_{path.stem}', path)
  if spec is None or spec.loader is None:
    raise ValueError(f'{path}: not a Python file')
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  if not hasattr(module, 'get_config'):
    raise ValueError(f'{path}: has no get_config()')
  return module.get_config(arg) if colon else module.get_config()


def parse_arg(arg: str, **defaults: Any) -> ml_collections.ConfigDict:
  """Parses the text after a config file's colon into typed options.

  Args:
    arg: 'name=value,flag,...'; a bare name sets a boolean to True.
    **defaults: what is allowed, each with its default, whose type is kept.

  Raises:
    ValueError: for an unknown name (with the closest allowed ones) or a value
      of another type.
  """
  options = ml_collections.ConfigDict(defaults)
  for part in filter(None, (p.strip() for p in arg.split(','))):
    name, equals, text = part.partition('=')
    if name not in defaults:
      raise ValueError(names.unknown('config argument', name, defaults))
    default = defaults[name]
    if not equals and not isinstance(default, bool):
      raise ValueError(
        f'config argument {name!r} has no value; give {name}={default}'
      )
    options[name] = _typed(name, text if equals else 'True', default)
  return options


def _typed(name: str, text: str, default: Any) -> Any:
  """Reads text as the type of the default."""
  if isinstance(default, str):
    return text
  try:
    value = ast.literal_eval(text)
  except (ValueError, SyntaxError):
    value = text
  if isinstance(default, float) and type(value) is int:
    value = float(value)
  if type(value) is not type(default):
    raise ValueError(
      f'config argument {name}={text!r} must be a {type(default).__name__}, '
      f'such as {default!r}'
    )
  return value


# How the sections are chosen whose keys depend on a name.
_CHOSEN = {'model': 'name', 'split': 'method'}


def check_key(config, key: str) -> None:
  """Checks that config has a dotted key.

  Raises:
    ValueError: naming the closest keys, and those of the section.
  """
  section, path = config, []
  for part in key.split('.'):
    if not isinstance(section, ml_collections.ConfigDict):
      raise ValueError(f'{".".join(path)} is one value; there is no key {key}')
    if part not in section:
      near = names.closest(key, _flat(config))
      hint = f'closest: {", ".join(near)}; ' if near else ''
      raise ValueError(
        f'there is no key {key}; {hint}{".".join(["config", *path])} has '
        f'{names.listing(section, 40, quoted=False)}{_advice(path, config)}'
      )
    section, path = section[part], [*path, part]


def describe_key(config, key: str) -> str:
  """Returns what a key may be set to, for a message."""
  value = _at(config, key)
  if isinstance(value, ml_collections.ConfigDict):
    return (
      f'{key} is a section; set one of its keys: '
      f'{names.listing(value, 40, quoted=False)}{_advice([key], config)}'
    )
  return f'{key} takes {type(value).__name__}, such as {value!r}'


def _advice(path: list[str], config) -> str:
  if not path or path[0] not in _CHOSEN:
    return ''
  name = config[path[0]][_CHOSEN[path[0]]]
  return (
    f'; these are the keys of {name!r}: another {path[0]} is chosen after the '
    f'config file, as in configs/default.py:{path[0]}=NAME'
  )


def _flat(config, before: str = '') -> dict[str, Any]:
  """Returns {dotted key: value}, without the sections."""
  flat = {}
  for key, value in config.items():
    if isinstance(value, ml_collections.ConfigDict):
      flat.update(_flat(value, f'{before}{key}.'))
    else:
      flat[before + key] = value
  return flat


# Keys that are numbers with a lower limit.
_LOWEST = {
  'seed': 0,
  'num_seeds': 1,
  'data.min_cells': 0,
  'data.min_cells_per_gene': 0,
  'data.gene_set_min': 1,
  'data.gene_set_max': 0,
  'data.num_hvg': 0,
  'data.degs': 0,
  'split.seed': 0,
  'loss.min_cells': 2,
  'train.steps': 1,
  'train.batch_size': 1,
  'train.chunk': 1,
  'train.checkpoint_every': 1,
  'train.keep': 2,
  'train.patience': 0,
  'eval.seed': 0,
  'eval.cells': 1,
  'eval.min_cells': 2,
  'eval.top_genes': 1,
  'eval.bootstrap': 100,
  'eval.certificate': 0,
  'eval.checkpoint': -1,
  'eval.saved_cells': 1,
  'predict.cells': 1,
}


def validate(config) -> None:
  """Checks what can be checked before any data is read.

  Raises:
    ValueError: naming the key, what was given and what is allowed.
  """
  _same_keys(config)
  datasets = ('simulate', *catalog.names())
  if not config.data.path and config.data.dataset not in datasets:
    unknown = names.unknown('data.dataset', config.data.dataset, datasets)
    raise ValueError(f'{unknown}; a file of your own goes by data.path')
  for key, low in _LOWEST.items():
    if _at(config, key) < low:
      raise ValueError(
        f'{key} is {_at(config, key)}; it must be at least {low}'
      )
  for key, allowed in _choices(config).items():
    values = _at(config, key)
    for value in values if isinstance(values, (tuple, list)) else (values,):
      if value not in allowed:
        raise ValueError(names.unknown(key, value, allowed))
  gene_sets.check(config.data)
  optimizers.validate(config.optimizer)
  _check_leaderboard(config.eval)
  _check_steps(config.train)
  fleet_settings(config)
  _check_loss(config)
  # What the model can say before it is built.
  check = getattr(models.module(config.model.name), 'check_config', None)
  if check is not None:
    check(config)


def _same_keys(config) -> None:
  """Raises unless config has the keys of `default`, and values of their type.

  A config file may set what it likes: without this, a key that is misspelled
  there would change nothing, in silence.
  """
  given = _flat(config)
  wanted = _flat(default(config.model.name, config.split.method))
  for key in (*given, *wanted):
    if key not in given or key not in wanted:
      what, near = 'no', ()
      if key in given:
        what, near = 'the unknown', names.closest(key, wanted)
      hint = f'; closest: {", ".join(near)}' if near else ''
      raise ValueError(
        f'config has {what} key {key}{hint}{_advice(key.split("."), config)}'
      )
  for key, value in given.items():
    kind = type(wanted[key])
    kinds = (kind, *{float: (int,), tuple: (list,)}.get(kind, ()))
    if not isinstance(value, kinds) or (type(value) is bool) != (kind is bool):
      raise ValueError(
        f'{key} is {value!r} ({type(value).__name__}); it takes '
        f'{kind.__name__}, such as {wanted[key]!r}'
      )


def _choices(config) -> dict[str, tuple[str, ...]]:
  """Returns the names that keys may have, or hold a tuple of."""
  choices = {
    'data.scale': ('counts', 'log1p'),
    'data.zero_cells': ('drop', 'error'),
    'data.hvg_flavor': hvg.FLAVORS,
    'data.hvg_cells': ('train', 'all'),
    'data.storage': arrays.STORAGES,
    'loss.rank_metric': ranks.METRICS,
    'loss.control': losses.CONTROLS,
    'train.select': SELECTIONS,
    'eval.split': ('val', 'test'),
    'eval.truth': TRUTHS,
    'eval.rank_denominator': ('n', 'n-1'),
    'eval.baselines': tuple(baselines.KINDS),
  }
  if config.data.preset:
    choices['data.preset'] = tuple(conventions.PRESETS)
  return choices


def _check_loss(config) -> None:
  """Checks the weights of config.loss, and that the model can have terms."""
  options = config.loss
  weights = {'own': options.own}
  weights.update({f'weights.{k}': v for k, v in options.weights.items()})
  for key, value in weights.items():
    if not 0 <= value < math.inf:
      raise ValueError(f'loss.{key} is {value}; it must be a number >= 0')
  if not 0 < options.temperature < math.inf:
    raise ValueError(
      f'loss.temperature is {options.temperature}; it must be > 0'
    )
  terms = train_step.active_terms(config)
  module = models.module(config.model.name)
  reason = getattr(module, 'NO_LOSS_TERMS', '')
  if terms and reason:
    raise ValueError(
      f'loss.weights asks for {", ".join(terms)}, but model '
      f'{config.model.name!r} cannot have them: {reason}'
    )
  if not options.own and not terms:
    raise ValueError(
      'loss.own is 0 and so are all of loss.weights: there is nothing to '
      'train on'
    )


def _check_leaderboard(options) -> None:
  columns = {
    'aggregate': metrics.AGGREGATES,
    'genes': ('all', f'top{options.top_genes}'),
    'metric': metrics.TABLE_METRICS,
  }
  if len(options.leaderboard) != len(columns):
    raise ValueError(
      f'eval.leaderboard is {options.leaderboard!r}; it must name '
      f'{", ".join(columns)}'
    )
  for value, (column, allowed) in zip(options.leaderboard, columns.items()):
    if value not in allowed:
      raise ValueError(
        names.unknown(f'eval.leaderboard, {column}', value, allowed)
      )


def _check_steps(options) -> None:
  """Checks that phases, or the only one, are whole chunks."""
  lengths = {'train.steps': options.steps}
  if options.phases:
    lengths = {}
  for number, phase in enumerate(options.phases):
    key = f'train.phases[{number}]'
    if (
      not isinstance(phase, (tuple, list))
      or len(phase) not in (2, 3)
      or type(phase[0]) is not int
      or not isinstance(phase[1], (tuple, list))
      or not phase[1]
      or not all(isinstance(name, str) for name in (*phase[1], *phase[2:]))
    ):
      raise ValueError(
        f'{key} is {phase!r}; it must be (steps, (player, ...)) or (steps, '
        "(player, ...), sampler), such as (1000, ('model',))"
      )
    lengths[key] = phase[0]
  for key, steps in lengths.items():
    if steps < 1 or steps % options.chunk:
      raise ValueError(
        f'{key} is {steps} steps; it must be a positive multiple of '
        f'train.chunk ({options.chunk}): a chunk is one compiled call'
      )


def _at(config, key: str) -> Any:
  for part in key.split('.'):
    config = config[part]
  return config


def fleet_settings(config) -> list[dict[str, float]]:
  """Returns the settings of config.fleet, every combination of its values.

  Raises:
    ValueError: if an entry is not a (key, values) pair with a known key and
      numbers that the key may have.
  """
  settings: list[dict[str, float]] = [{}]
  for entry in config.fleet:
    if (
      not isinstance(entry, (tuple, list))
      or len(entry) != 2
      or not isinstance(entry[0], str)
      or not isinstance(entry[1], (tuple, list))
      or not entry[1]
      or not all(type(v) in (int, float) for v in entry[1])
    ):
      raise ValueError(
        f'config.fleet has the entry {entry!r}; each must be (key, (number, '
        "...)), such as ('optimizer.learning_rate', (1e-3, 1e-4))"
      )
    key, values = entry
    if key in settings[0]:
      raise ValueError(f'config.fleet names {key!r} twice')
    _check_fleet_key(config, key, values)
    settings = [{**s, key: float(v)} for s in settings for v in values]
  return settings


def _check_fleet_key(config, key: str, values: tuple[float, ...]) -> None:
  section, _, name = key.partition('.')
  allowed = [f'optimizer.{k}' for k in optimizers.FLEET_KEYS]
  allowed += [f'loss.weights.{k}' for k in config.loss.weights]
  if key not in allowed and not (section == 'model' and name in config.model):
    near = names.closest(key, (*allowed, *(f'model.{k}' for k in config.model)))
    hint = f'; closest: {", ".join(near)}' if near else ''
    raise ValueError(
      f'config.fleet names {key!r}; allowed are {", ".join(allowed)} and loss '
      'weights of the model (model.x); other keys change the program and need '
      f'a run of their own{hint}'
    )
  if key == 'optimizer.clip_norm':
    if not config.optimizer.clip_norm:
      raise ValueError(
        'config.fleet names optimizer.clip_norm, but optimizer.clip_norm is 0 '
        '(off); set it to a number that turns clipping on'
      )
    if min(values) <= 0:
      raise ValueError(
        f'config.fleet sets optimizer.clip_norm to {min(values)}; it must be '
        '> 0: 0 turns clipping off for a whole run, not for a member'
      )
  if section == 'loss' and not all(0 <= v < math.inf for v in values):
    raise ValueError(
      f'config.fleet sets {key} to {min(values)}; weights must be >= 0'
    )
  if section == 'optimizer':
    for value in values:
      changed = ml_collections.ConfigDict(config.optimizer.to_dict())
      changed[name] = float(value)
      optimizers.validate(changed)


def members(config) -> list[dict[str, Any]]:
  """Returns the fleet: {'member', 'seed', 'overrides'} for each."""
  return [
    {'member': number, 'seed': config.seed + seed, 'overrides': setting}
    for number, (setting, seed) in enumerate(
      (setting, seed)
      for setting in fleet_settings(config)
      for seed in range(config.num_seeds)
    )
  ]


def to_dict(config) -> dict[str, Any]:
  """Returns the config as JSON can hold it: tuples become lists."""
  return json.loads(json.dumps(config.to_dict()))


def read(path: pathlib.Path) -> dict[str, Any]:
  """Returns the config that a run has saved, as `to_dict` made it.

  Raises:
    ValueError: naming the file, if it is damaged.
  """
  try:
    saved = json.loads(path.read_text(encoding='utf-8'))
  except ValueError as error:
    raise ValueError(f'{path}: not a config of a run: {error}') from error
  if not isinstance(saved, dict):
    raise ValueError(
      f'{path}: not a config of a run: a {type(saved).__name__}, not an object'
    )
  return saved


# Sections that do not change what is trained; a run may be evaluated, or
# predicted from, with other values.
_FREE = ('eval', 'predict', 'log')


def differences(
  saved: Mapping[str, Any], given: Mapping[str, Any]
) -> list[str]:
  """Returns lines 'key: saved -> given' where training configs differ."""
  lines: list[str] = []

  def walk(a, b, path):
    if isinstance(a, Mapping) and isinstance(b, Mapping):
      for key in sorted({*a, *b}):
        if path or key not in _FREE:
          absent = '(absent)'
          walk(a.get(key, absent), b.get(key, absent), [*path, key])
    elif a != b:
      lines.append(f'{".".join(path)}: {a!r} -> {b!r}')

  walk(saved, given, [])
  return lines
