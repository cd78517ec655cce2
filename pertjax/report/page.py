"""Build report.html from a run directory."""

from __future__ import annotations

import functools
import importlib.resources
import json
import os
import pathlib
from typing import Any

import jinja2
import markupsafe
import numpy as np

from pertjax.report import (
  certificate,
  factors,
  facts,
  notes,
  pack,
  paired,
  read,
  scores,
  verdict,
)

FILE = 'report.html'
# Scatter plots get what the rest of the page leaves of this.
MAX_BYTES = 4_900_000
_MEMBER_KEYS = ('member', 'seed', 'status', 'best_step')
_STYLE = 'style.css'
_SCRIPTS = (
  'base.js',
  'state.js',
  'board.js',
  'matrix.js',
  'certificate.js',
  'conditions.js',
  'scatter.js',
  'curves.js',
  'factors.js',
  'start.js',
)


def write(workdir: pathlib.Path, *, title: str | None = None) -> pathlib.Path:
  """Writes report.html into a run directory and returns its path.

  The same inputs give the same bytes. The file appears whole or not at all.

  Args:
    workdir: a run directory; any of its files may be missing.
    title: heading of the page; the dataset and the directory by default.

  Raises:
    FileNotFoundError: there is no run in `workdir`.
    ValueError: a file is corrupt; the message names it.
  """
  workdir = pathlib.Path(workdir)
  run = read.read_run(workdir)
  text = render(run, name=workdir.resolve().name, title=title)
  path = workdir / FILE
  partial = workdir / f'.{FILE}.{os.getpid()}.partial'
  try:
    partial.write_text(text, encoding='utf-8', newline='\n')
    os.replace(partial, path)
  finally:
    partial.unlink(missing_ok=True)
  return path


def render(run: read.Run, *, name: str, title: str | None = None) -> str:
  """Returns the page of a run.

  Args:
    run: see read.read_run.
    name: of the run.
    title: heading; made from the dataset and the name by default.
  """
  axes = scores.make_axes(run)
  table = scores.make_scores(run.summary, axes) if run.summary else None
  grids = {}
  if run.metrics:
    found = run.metrics.text['split'][0]
    grids = {
      split: scores.make_grid(run.metrics, axes, split)
      for split in axes.splits
      if split in found
    }
  tests = paired.make(run.paired, axes) if run.paired else None
  ranges = certificate.rows(run.certificate, axes) if run.certificate else None
  extra: list[str] = []
  data = _payload(run, axes, table, grids, tests, extra)
  data['certificate'] = ranges
  data['factors'] = run.factors and factors.rows(run.factors)
  env = run.env or {}
  dataset = str(env.get('dataset') or 'unknown dataset')
  context = {
    'title': title or f'{dataset}: {name}',
    'heading': title or env.get('dataset') or name,
    'dataset': dataset,
    'name': name,
    'env': env,
    'missing': run.missing,
    'facts': facts.counts(env),
    'verdict': facts.verdicts(run, axes, table, grids, tests),
    'regimes': facts.regimes(axes),
    'halves': scores.section(run.config, 'eval').get('truth') != 'all',
    'certificate': None if ranges is None else certificate.summary(ranges),
    'red_team': run.red_team and certificate.red_team(run.red_team),
    'factors': bool(data['factors'] and data['factors']['members']),
    'split': facts.split(run.split_summary),
    'members': facts.members(run, axes, grids),
    'config': run.config,
    'hash_agrees': facts.hash_agrees(run),
  }

  def page(profiles, left_out):
    return _fill(
      {
        **context,
        'notes': notes.collect(
          run, axes, table, grids, tests, [*extra, *left_out]
        ),
        'data': _script_json({**data, 'profiles': profiles}),
      }
    )

  text = page(None, [])
  if run.profiles is None:
    return text
  room = MAX_BYTES - len(text.encode()) - 20_000 - _names_size(run.profiles)
  profiles, note = pack.pack_profiles(run.profiles, max(room, 0))
  return page(profiles, [note] if note else [])


def _payload(
  run: read.Run,
  axes: scores.Axes,
  table: dict[str, np.ndarray] | None,
  grids: dict[str, scores.Grid],
  tests: paired.Paired | None,
  extra: list[str],
) -> dict[str, Any]:
  """Returns what the page's script draws from, without the profiles."""
  data: dict[str, Any] = {
    'models': [
      {'name': name, 'kind': kind, 'primary': i == axes.primary}
      for i, (name, kind) in enumerate(zip(axes.models, axes.kinds))
    ],
    'splits': axes.splits,
    'regimes': axes.regimes,
    'combos': axes.combos,
    'directions': axes.directions,
    'bests': axes.bests,
    'rounding': paired.ROUNDING,
    'headline': verdict.headline_combo(axes, run.config)
    if axes.combos
    else None,
    'scores': table
    and {key: pack.plain(value) for key, value in table.items()},
    'grids': [None] * len(axes.splits),
    'differences': [
      tests and _differences(tests, s) for s in range(len(axes.splits))
    ],
    'tones': list(paired.TONES.values()),
    'curves': run.curves and pack.pack_curves(run.curves),
    'members': [
      {
        key: member.get(key)
        for key in ('member', 'seed', 'status', 'best_step')
      }
      for member in (run.env or {}).get('members') or ()
    ],
  }
  if data['curves'] and data['curves']['thinned']:
    extra.append(
      'Learning curves are thinned to the least and greatest value of each '
      'stretch of steps.'
    )
  budget, left_out = pack.GRID_BYTES, 0
  for s, split in enumerate(axes.splits):
    if split not in grids:
      continue
    data['grids'][s], budget, out = pack.pack_grid(grids[split], axes, budget)
    left_out += out
  if left_out:
    extra.append(
      f'Single conditions are shown for the first '
      f'{len(grids) * len(axes.combos) - left_out} of '
      f'{len(grids) * len(axes.combos)} metrics, to keep this page small; all '
      'are in eval/metrics.csv.'
    )
  return data


def _differences(tests: paired.Paired, split: int) -> dict[str, Any] | None:
  """Packs the paired tests of one split; None where it has none."""
  if (tests.tones[split] < 0).all():
    return None
  numbers = {
    'mean': tests.mean,
    'low': tests.low,
    'high': tests.high,
    **tests.numbers,
  }
  return {
    'rivals': pack.pack(tests.rivals[split].astype(np.int16)),
    'tones': pack.pack(tests.tones[split].astype(np.int16)),
    **{k: pack.pack(x[split].astype(np.float32)) for k, x in numbers.items()},
  }


def _names_size(profiles: read.Profiles) -> int:
  """Returns how much the names of genes and pairs can take."""
  names = (*profiles.genes, *profiles.pairs, *profiles.models)
  return sum(len(_script_json(name)) + 1 for name in names)


def _script_json(value: Any) -> str:
  """Returns JSON that can stand inside a script element."""
  text = json.dumps(value, separators=(',', ':'), allow_nan=False)
  for character in '<>&':
    text = text.replace(character, f'\\u{ord(character):04x}')
  return text


def _shown(value: Any) -> str:
  """Returns a value of a configuration as text."""
  if isinstance(value, float):
    return f'{value:.6g}'
  return value if isinstance(value, str) else json.dumps(value)


def _own(name: str) -> markupsafe.Markup:
  """Reads a file of this package, which needs no escaping."""
  files = importlib.resources.files('pertjax.report')
  return markupsafe.Markup(files.joinpath(name).read_text(encoding='utf-8'))


@functools.cache
def _template() -> jinja2.Template:
  environment = jinja2.Environment(
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
  )
  environment.filters['shown'] = _shown
  return environment.from_string(_own('template.html'))


def _fill(context: dict[str, Any]) -> str:
  """Fills the template; every value is escaped unless it is our own file."""
  return _template().render(
    {
      **context,
      'data': markupsafe.Markup(context['data']),
      'style': _own(_STYLE),
      'scripts': [_own(name) for name in _SCRIPTS],
    }
  )
