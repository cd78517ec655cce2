"""Read the files of a run directory; say what is missing or corrupt.

A missing file leaves its field empty and a line in `Run.missing`. A file that
is there but cannot be what it claims to be is a ValueError that names it.
"""

from __future__ import annotations

import array
import collections
import hashlib
import json
import math
import pathlib
import zipfile
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from pertjax.report import columns, factors

METRIC_TEXT = (
  'model',
  'split',
  'regime',
  'covariate',
  'condition',
  'aggregate',
  'genes',
  'metric',
)
METRIC_NUMBERS = ('seed', 'value', 'cells')
SUMMARY_TEXT = (
  'model',
  'split',
  'regime',
  'aggregate',
  'genes',
  'metric',
  'direction',
)
SUMMARY_NUMBERS = (
  'mean',
  'low',
  'high',
  'seeds',
  'seed_sd',
  'conditions',
  'dropped',
  'best',
)
PAIRED_TEXT = (
  'split',
  'regime',
  'model',
  'against',
  'aggregate',
  'genes',
  'metric',
  'direction',
  'verdict',
)
PAIRED_NUMBERS = (
  'difference',
  'low',
  'high',
  'p_adjusted',
  'tests',
  'effect',
  'won',
  'conditions',
  'infinite',
  'seeds',
  'detectable',
)
CERTIFICATE_TEXT = ('convention', 'metric', 'direction', 'verdict')
CERTIFICATE_NUMBERS = (
  'best',
  'chance',
  'control',
  'perturbed_mean',
  'technical_duplicate',
  'interpolated',
  'ceiling',
  'ceiling_low',
  'ceiling_high',
  'null',
  'null_low',
  'null_high',
  'dynamic_range',
  'bound_discrimination',
  'conditions',
)
RED_TEAM_TEXT = ('convention', 'metric', 'submission', 'flag', 'finding')
RED_TEAM_NUMBERS = ('value', 'replicate', 'floor')
SPLIT_SUMMARY = ('group', 'split', 'regime', 'conditions', 'cells')
PROFILES = ('pairs', 'models', 'genes', 'observed', 'control', 'predicted')

# What a reader loses with each file, in the order of the page.
CONSEQUENCES = {
  'eval/summary.csv': 'there is no leaderboard, no matrix and no verdict',
  'eval/metrics.csv': 'single conditions cannot be shown',
  'eval/paired.csv': (
    'there are no paired tests of the models against the best baseline'
  ),
  'eval/certificate.csv': (
    'how far the metrics can tell predictions apart on these data is unknown'
  ),
  'eval/profiles.npz': 'predictions cannot be drawn against observations',
  'metrics.jsonl': 'there are no learning curves',
  'split_summary.json': 'the split cannot be summarised',
  'split.csv': 'the split cannot be checked against its recorded hash',
  'env.json': (
    'versions, devices, hashes and the state of the members are unknown'
  ),
  'config.json': 'the configuration is unknown',
}

_ENV_KINDS = {
  'packages': dict,
  'devices': list,
  'members': list,
  'notes': list,
  'groups': list,
  'metric_versions': dict,
}


class Profiles(NamedTuple):
  """Pseudobulk means, averaged over seeds.

  Attributes:
    pairs: [pairs] `condition|group`.
    models: [models] names.
    genes: [genes] names.
    observed: [pairs, genes].
    control: [pairs, genes], of the same group.
    predicted: [models, pairs, genes].
  """

  pairs: tuple[str, ...]
  models: tuple[str, ...]
  genes: tuple[str, ...]
  observed: np.ndarray
  control: np.ndarray
  predicted: np.ndarray


# {series: {member: (float64 [points] steps, float64 [points] values)}}
Curves = dict[str, dict[int, tuple[np.ndarray, np.ndarray]]]


class Run(NamedTuple):
  """A run directory in memory; a field is None where its file is missing.

  Attributes:
    config: config.json.
    env: env.json.
    split_summary: rows of split_summary.json.
    split_sha256: of the bytes of split.csv.
    curves: metrics.jsonl by series and member.
    metrics: eval/metrics.csv.
    summary: eval/summary.csv.
    paired: eval/paired.csv.
    certificate: eval/certificate.csv.
    red_team: eval/red_team.csv, which is no loss where it is missing.
    factors: tables of eval/interpret by name; of models that have factors.
    profiles: eval/profiles.npz.
    missing: {file: what cannot be shown without it}.
    notes: lines about what reading left out.
  """

  config: dict[str, Any] | None
  env: dict[str, Any] | None
  split_summary: list[dict[str, Any]] | None
  split_sha256: str | None
  curves: Curves | None
  metrics: columns.Table | None
  summary: columns.Table | None
  paired: columns.Table | None
  certificate: columns.Table | None
  red_team: columns.Table | None
  factors: dict[str, columns.Table] | None
  profiles: Profiles | None
  missing: dict[str, str]
  notes: tuple[str, ...]


def read_run(workdir: pathlib.Path) -> Run:
  """Reads every file of a run directory that the report uses.

  Raises:
    FileNotFoundError: the directory does not exist or holds none of them.
    ValueError: a file is corrupt; the message names it and the place.
  """
  if not workdir.is_dir():
    raise FileNotFoundError(f'{workdir}: no such run directory')
  missing = {
    name: why
    for name, why in CONSEQUENCES.items()
    if not (workdir / name).is_file()
  }
  if len(missing) == len(CONSEQUENCES):
    raise FileNotFoundError(
      f'{workdir}: not a run directory: it holds none of '
      + ', '.join(CONSEQUENCES)
    )

  missing |= factors.missing(workdir)

  def maybe(name, reader, *args, **kwargs):
    if name in missing:
      return None
    return reader(workdir / name, *args, **kwargs)

  def table(name, text, numbers):
    return maybe(f'eval/{name}.csv', columns.read, text=text, numbers=numbers)

  def red_team():
    # Not a part of every run: nothing is missing without it.
    path = workdir / 'eval/red_team.csv'
    if not path.is_file():
      return None
    return columns.read(path, text=RED_TEAM_TEXT, numbers=RED_TEAM_NUMBERS)

  env = maybe('env.json', read_json, dict)
  split_summary = maybe('split_summary.json', read_json, list)
  _check_env(workdir / 'env.json', env or {})
  _check_split_summary(workdir / 'split_summary.json', split_summary or [])
  curves, notes = maybe('metrics.jsonl', read_curves) or (None, ())
  return Run(
    config=maybe('config.json', read_json, dict),
    env=env,
    split_summary=split_summary,
    split_sha256=maybe('split.csv', _sha256),
    curves=curves,
    metrics=table('metrics', METRIC_TEXT, METRIC_NUMBERS),
    summary=table('summary', SUMMARY_TEXT, SUMMARY_NUMBERS),
    paired=table('paired', PAIRED_TEXT, PAIRED_NUMBERS),
    certificate=table('certificate', CERTIFICATE_TEXT, CERTIFICATE_NUMBERS),
    red_team=red_team(),
    factors=factors.read(workdir),
    profiles=maybe('eval/profiles.npz', read_profiles),
    missing=missing,
    notes=notes,
  )


def read_json(path: pathlib.Path, kind: type) -> Any:
  """Reads a JSON file whose top level is `kind`.

  Raises:
    ValueError: it is not JSON, or its top level is something else.
  """
  try:
    value = json.loads(path.read_text(encoding='utf-8'))
  except ValueError as error:  # JSONDecodeError and UnicodeDecodeError.
    raise ValueError(f'{path}: not valid JSON: {error}') from error
  if not isinstance(value, kind):
    raise ValueError(
      f'{path}: the top level is a {type(value).__name__}, '
      f'expected a {kind.__name__}'
    )
  return value


def read_curves(path: pathlib.Path) -> tuple[Curves, tuple[str, ...]]:
  """Reads metrics.jsonl by series and member, steps ascending.

  Values that are not numbers (null, text) are no points, nor are those that
  are not finite. Where a step occurs again, its last line counts.

  Returns:
    curves: see Curves.
    notes: what was left out.

  Raises:
    ValueError: a line is not a JSON object with `step` and `seed`. Only a last
      line without its end, which an interrupted run leaves, is left out.
  """
  points = collections.defaultdict(lambda: (array.array('d'), array.array('d')))
  notes, broken = [], 0
  with path.open('rb') as file:
    for number, line in enumerate(file, start=1):
      if not line.strip():
        continue
      try:
        row = json.loads(line)
        step, member = float(row['step']), int(row['seed'])
      except (ValueError, TypeError, KeyError) as error:
        if not line.endswith(b'\n'):
          notes.append(
            f'The last line of {path.name} (line {number}) is incomplete and '
            'was left out.'
          )
          break
        raise ValueError(
          f'{path}: line {number} is not a JSON object with step and seed: '
          f'{error!r}'
        ) from error
      for key, value in row.items():
        if type(value) not in (int, float) or key in ('step', 'seed'):
          continue
        if not math.isfinite(value):
          broken += 1
        else:
          steps, values = points[key, member]
          steps.append(step)
          values.append(value)
  curves: Curves = {}
  repeated = 0
  for (key, member), (steps, values) in points.items():
    # Reversed, so that unique's first occurrence is the last line.
    unique, last = np.unique(np.array(steps)[::-1], return_index=True)
    repeated += len(steps) - len(unique)
    series = curves.setdefault(key, {})
    series[member] = (unique, np.array(values)[::-1][last])
  if broken:
    notes.append(
      f'{broken} values of {path.name} are not finite and are not drawn.'
    )
  if repeated:
    notes.append(
      f'{repeated} values of {path.name} repeat a step of the same member; '
      'the last line counts.'
    )
  return curves, tuple(notes)


def read_profiles(path: pathlib.Path) -> Profiles:
  """Reads eval/profiles.npz.

  Raises:
    ValueError: it is not an npz file, or names or shapes do not fit.
  """
  try:
    # Opened here: np.load leaves a file open that is no zip archive.
    with (
      path.open('rb') as file,
      np.load(file, allow_pickle=False) as archive,
    ):
      columns.check_names(path, 'array', archive.files, PROFILES)
      arrays = {name: archive[name] for name in PROFILES}
  except (zipfile.BadZipFile, EOFError, OSError, TypeError) as error:
    raise ValueError(f'{path}: not a readable npz file: {error}') from error
  except ValueError as error:
    # np.load's own ValueErrors do not name the file.
    if str(path) in str(error):
      raise
    raise ValueError(f'{path}: not a readable npz file: {error}') from error
  names = {
    key: tuple(str(name) for name in arrays[key].reshape(-1))
    for key in ('pairs', 'models', 'genes')
  }
  pairs, models, genes = (len(names[k]) for k in ('pairs', 'models', 'genes'))
  shapes = {
    'observed': (pairs, genes),
    'control': (pairs, genes),
    'predicted': (models, pairs, genes),
  }
  for key, shape in shapes.items():
    if arrays[key].shape != shape or arrays[key].dtype.kind != 'f':
      raise ValueError(
        f'{path}: {key} is {arrays[key].dtype} {arrays[key].shape}, expected '
        f'floats {shape}'
      )
  return Profiles(**names, **{key: arrays[key] for key in shapes})


def _sha256(path: pathlib.Path) -> str:
  with path.open('rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()


def _check_env(path: pathlib.Path, env: Mapping[str, Any]) -> None:
  for key, kind in _ENV_KINDS.items():
    # A null is a value that was not recorded.
    if not isinstance(env.get(key), (kind, type(None))):
      raise ValueError(
        f'{path}: {key} is a {type(env[key]).__name__}, expected a '
        f'{kind.__name__}'
      )
  for member in env.get('members') or ():
    columns.check_names(
      path, 'key', member if isinstance(member, dict) else (), ('member',)
    )


def _check_split_summary(path: pathlib.Path, rows: list[Any]) -> None:
  for i, row in enumerate(rows):
    columns.check_names(
      path, 'key', row if isinstance(row, dict) else (), SPLIT_SUMMARY
    )
    for key in ('conditions', 'cells'):
      if not isinstance(row[key], int):
        raise ValueError(
          f'{path}: {key} of row {i} is {row[key]!r}, expected an integer'
        )
