"""The experiment as data: defaults, typed arguments, checks, JSON.

A config file builds on `default(...)` and changes what differs. The keys of
the model and of the split depend on which ones are chosen, so both are chosen
in the argument after the colon: `configs/norman.py:model=vae,split=cells`.
"""

from __future__ import annotations

import ast
import difflib
import json
from collections.abc import Mapping
from typing import Any

import ml_collections

from pertjax import models, optimizers
from pertjax.data import arrays, catalog, conventions, preprocess, splits
from pertjax.data import simulate as simulator
from pertjax.models import baselines

SELECTIONS = ('best', 'last')
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
  # 'optimizer.clip_norm' or a loss weight 'model.x' that the model allows.
  config.fleet = ()

  config.data = _data()
  config.split = {
    'method': split,
    'seed': 42,
    **_settable(splits.default_options(split)),
  }
  config.model = {'name': model, **module.default_config()}
  config.optimizer = optimizers.default_config()

  config.train = {
    'steps': 2000,
    'batch_size': 256,
    # Steps of one compiled call; validation and a log line come after each.
    'chunk': 100,
    # Chunks between checkpoints, and how many are kept.
    'checkpoint_every': 5,
    'keep': 2,
    # Which parameters predict: 'best' by validation, or the 'last'.
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
    # DE genes of the second gene set, by Welch's t on the real cells.
    'top_genes': 20,
    'rank_denominator': 'n-1',
    'r2_swapped': False,
    'bootstrap': 2000,
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
  return config


def _data() -> dict[str, Any]:
  return {
    # 'simulate', a name of data/catalog.py, or a label for the file at `path`.
    'dataset': 'simulate',
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
    # On the device: 'float32', 'bfloat16' or 'csr'.
    'storage': 'float32',
    'simulate': simulator.default_config(),
  }


def _settable(options: Mapping[str, Any]) -> dict[str, Any]:
  """Replaces None by '': a flag cannot override a field that holds None."""
  return {k: '' if v is None else v for k, v in options.items()}


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
      near = difflib.get_close_matches(name, defaults, 3, 0.4)
      hint = f'; closest: {", ".join(near)}' if near else ''
      raise ValueError(
        f'unknown config argument {name!r}; allowed are '
        f'{", ".join(sorted(defaults))}{hint}'
      )
    options[name] = _typed(name, text if equals else 'True', defaults[name])
  return options


def _typed(name: str, text: str, default: Any) -> Any:
  """Reads text as the type of the default."""
  if isinstance(default, str):
    return text
  try:
    value = ast.literal_eval(text)
  except (ValueError, SyntaxError):
    value = text
  if isinstance(default, float) and isinstance(value, int):
    value = float(value)
  if type(value) is not type(default):
    raise ValueError(
      f'config argument {name}={text!r} must be a {type(default).__name__}, '
      f'such as {default!r}'
    )
  return value


def validate(config) -> None:
  """Checks what can be checked before any data is read.

  Raises:
    ValueError: naming the key, what was given and what is allowed.
  """
  module = models.module(config.model.name)
  _same_keys(
    'model',
    config.model,
    {'name', *module.default_config()},
    f'choose the model by the config argument: :model={config.model.name}',
  )
  _same_keys(
    'split',
    config.split,
    {'method', 'seed', *splits.default_options(config.split.method)},
    f'choose the split by the config argument: :split={config.split.method}',
  )
  _choices(config)
  optimizers.validate(config.optimizer)
  for key, low in (
    ('num_seeds', 1),
    ('train.steps', 1),
    ('train.batch_size', 1),
    ('train.chunk', 1),
    ('train.checkpoint_every', 1),
    ('train.keep', 2),
    ('train.patience', 0),
    ('eval.cells', 1),
    ('eval.min_cells', 2),
    ('eval.top_genes', 1),
    ('eval.bootstrap', 100),
    ('predict.cells', 1),
  ):
    value = config.get_ref(key).get() if '.' not in key else _at(config, key)
    if value < low:
      raise ValueError(f'{key} is {value}; it must be at least {low}')
  if config.train.steps % config.train.chunk:
    raise ValueError(
      f'train.steps ({config.train.steps}) must be a multiple of train.chunk '
      f'({config.train.chunk}): a chunk is one compiled call'
    )
  fleet_settings(config)


def _choices(config) -> None:
  """Checks every key that takes one of a few names."""
  datasets = ('simulate', *catalog.names())
  choices = {
    'data.scale': ('counts', 'log1p'),
    'data.storage': arrays.STORAGES,
    'train.select': SELECTIONS,
    'eval.split': ('val', 'test'),
    'eval.truth': TRUTHS,
    'eval.rank_denominator': ('n', 'n-1'),
  }
  if not config.data.path:
    choices['data.dataset'] = datasets
  if config.data.preset:
    choices['data.preset'] = tuple(conventions.PRESETS)
  for key, allowed in choices.items():
    _one_of(key, _at(config, key), allowed)
  for kind in config.eval.baselines:
    _one_of('eval.baselines', kind, tuple(baselines.KINDS))


def _one_of(key, value, allowed):
  if value in allowed:
    return
  near = difflib.get_close_matches(str(value), allowed, 1)
  hint = f' (did you mean {near[0]!r}?)' if near else ''
  raise ValueError(
    f'{key} is {value!r}; allowed are {", ".join(map(repr, allowed))}{hint}'
  )


def _same_keys(section, given, expected, advice):
  extra = sorted(set(given) - expected)
  missing = sorted(expected - set(given))
  if extra or missing:
    raise ValueError(
      f'config.{section} has the unknown keys {extra} and lacks {missing}; '
      f'{advice}'
    )


def _at(config, key: str) -> Any:
  for part in key.split('.'):
    config = config[part]
  return config


def fleet_settings(config) -> list[dict[str, float]]:
  """Returns the settings of config.fleet, every combination of its values.

  Raises:
    ValueError: if an entry is not a (key, values) pair with a known key.
  """
  settings: list[dict[str, float]] = [{}]
  for entry in config.fleet:
    if (
      not isinstance(entry, (tuple, list))
      or len(entry) != 2
      or not isinstance(entry[1], (tuple, list))
      or not entry[1]
    ):
      raise ValueError(
        f'config.fleet has the entry {entry!r}; each must be '
        "(key, (value, ...)), such as ('optimizer.learning_rate', (1e-3, 1e-4))"
      )
    key, values = entry
    section, _, name = key.partition('.')
    known = (section == 'optimizer' and name in optimizers.FLEET_KEYS) or (
      section == 'model' and name in config.model
    )
    if not known:
      allowed = [f'optimizer.{k}' for k in optimizers.FLEET_KEYS]
      raise ValueError(
        f'config.fleet names {key!r}; allowed are {", ".join(allowed)} and '
        'loss weights of the model (model.x); other keys change the program '
        'and need a run of their own'
      )
    if key == 'optimizer.clip_norm' and not config.optimizer.clip_norm:
      raise ValueError(
        'config.fleet names optimizer.clip_norm, but optimizer.clip_norm is 0 '
        '(off); set it to a number that turns clipping on'
      )
    settings = [{**s, key: float(v)} for s in settings for v in values]
  return settings


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
