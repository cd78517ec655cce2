"""Scoring from the command line.

  python -m pertjax.metrics score --observed=real.h5ad --predicted=pred.h5ad \\
    --convention=vcc2026 --output=scores.csv
  python -m pertjax.metrics scaled --observed=... --predicted=... \\
    --convention=vcc2026
  python -m pertjax.metrics list --convention=vcc2026
  python -m pertjax.metrics certify --observed=real.h5ad --output=ceilings.csv
  python -m pertjax.metrics red-team --observed=real.h5ad
  python -m pertjax.metrics compare --scores=scores.csv --reference=baseline
  python -m pertjax.metrics translate --observed=real.h5ad \\
    --predicted=pred.h5ad --families=retrieval,correlation
"""

from __future__ import annotations

import argparse
import ast
import os
import pathlib
import shutil
import sys
import textwrap
from collections.abc import Sequence

from pertjax import files
from pertjax.metrics import registry, summary
from pertjax.metrics.conventions import base


def main(arguments: Sequence[str] | None = None) -> int:
  """Runs a command; returns the exit status."""
  given = _parser().parse_args(arguments)
  try:
    return given.run(given)
  except BrokenPipeError:  # The reader of `list | head` has gone.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0
  except (ValueError, OSError, ImportError) as error:
    print(f'error: {error}', file=sys.stderr)
    return 2


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog='python -m pertjax.metrics',
    description='Score predicted perturbation effects in any convention.',
  )
  commands = parser.add_subparsers(required=True, metavar='COMMAND')
  score = commands.add_parser(
    'score', help='score a prediction against observed cells'
  )
  score.set_defaults(run=_score)
  add = score.add_argument
  _add_observed(add)
  add(
    '--predicted',
    required=True,
    action='append',
    help='h5ad of the predicted cells; several as NAME=FILE',
  )
  add('--genes', default='same', choices=('same', 'shared'))
  add('--conditions', default='same', choices=('same', 'shared'))
  add('--predicted_layer', help='of the predicted file, in place of X')
  add('--bootstrap', default='conditions', choices=summary.BOOTSTRAPS)
  scaled = commands.add_parser(
    'scaled', help='scale means between a baseline and replicates, and average'
  )
  scaled.set_defaults(run=_scaled)
  add = scaled.add_argument
  _add_observed(add)
  scaled.set_defaults(convention='vcc2026')
  add('--predicted', required=True, help='h5ad of the predicted cells')
  add('--baseline', help='h5ad of the baseline; by default one pool of cells')
  add('--genes', default='same', choices=('same', 'shared'))
  add('--conditions', default='same', choices=('same', 'shared'))
  add('--predicted_layer', help='of the predicted file, in place of X')
  add('--seed', type=int, default=0)
  for name, run, text in (
    ('certify', _certify, 'say what metrics can tell apart on a dataset'),
    ('red-team', _red_team, 'try submissions that deserve nothing'),
  ):
    audit = commands.add_parser(name, help=text)
    audit.set_defaults(run=run)
    add = audit.add_argument
    _add_observed(add)
    if name == 'certify':
      add('--splits', type=int, default=5, help='cuts of the cells in halves')
    add('--seed', type=int, default=0)
    add('--min_cells', type=int, default=4, help='conditions with less are out')
  compare = commands.add_parser(
    'compare', help='compare the models of a table of scores'
  )
  compare.set_defaults(run=_compare)
  add = compare.add_argument
  add('--scores', required=True, help='CSV of `score` with several models')
  add('--reference', help='the model to compare the others with; else all')
  add('--metrics', default='', help='by commas')
  add('--test', default='permutation', choices=('permutation', 'wilcoxon'))
  add('--output', help='CSV of the comparison')
  _add_translate(commands)
  listing = commands.add_parser(
    'list', help='print every metric with its formula and source'
  )
  listing.set_defaults(run=_list)
  listing.add_argument('--convention', help='only this one')
  return parser


def _add_translate(commands) -> None:
  command = commands.add_parser(
    'translate',
    help='score in every convention, with the reasons why numbers differ',
  )
  add = command.add_argument
  _add_observed(add)
  add(
    '--predicted',
    required=True,
    action='append',
    help='h5ad of the predicted cells; several as NAME=FILE are compared',
  )
  add(
    '--families',
    default='',
    help='by commas, or all; by default those that are cheap',
  )
  add('--published', action='store_true', help='ties as the tools have them')
  add('--genes', default='same', choices=('same', 'shared'))
  add('--conditions', default='same', choices=('same', 'shared'))
  add('--predicted_layer', help='of the predicted file, in place of X')
  add('--seed', type=int, default=0)
  command.set_defaults(run=_translate, convention='', normalise=1e4)


def _add_observed(add) -> None:
  """Adds the arguments of commands that read observed cells."""
  add('--observed', required=True, help='h5ad of the real cells')
  add(
    '--convention',
    default='cell-eval',
    help='one or several, by commas: see `list`',
  )
  add('--output', help='CSV of all values; a summary is printed in any case')
  add('--perturbation_key', help='column of obs with the condition')
  add('--control', help='name of the control in that column')
  add('--covariate_keys', default='', help='columns of obs, by commas')
  add('--metrics', default='', help='columns of the convention, by commas')
  add(
    '--option',
    action='append',
    default=[],
    metavar='NAME=VALUE',
    help='of the convention, CONVENTION.NAME=VALUE of several; may be repeated',
  )
  add('--layer', help='of the observed file, in place of X')
  add('--scale', default='auto', help='log1p or counts; by default it looks')
  add(
    '--normalise',
    type=float,
    help='take counts to ln(1 + x) of so many counts a cell',
  )
  add('--engine', default='auto', help='of differential expression')
  add(
    '--backed',
    action=argparse.BooleanOptionalAction,
    help='leave the files on disk; by default those beyond 2 GB',
  )


def _note(line: str) -> None:
  print(f'note: {line}', file=sys.stderr)


def _observed(given: argparse.Namespace) -> dict[str, object]:
  """Returns what the functions of `anndata` take of these arguments."""
  from pertjax.metrics import anndata as front

  if given.output:  # An error before the work, not after it.
    pathlib.Path(given.output).parent.mkdir(parents=True, exist_ok=True)
  key, control = front.key_and_control(
    given.observed, given.perturbation_key, given.control, say=_note
  )
  return {
    'perturbation_key': key,
    'control': control,
    'covariate_keys': _split(given.covariate_keys),
    'convention': _split(given.convention),
    'metrics': _split(given.metrics) or None,
    'options': _options(given.option),
    'engine': given.engine,
    'layer': given.layer,
    'scale': given.scale,
    'normalise': given.normalise,
    'backed': given.backed,
    'say': _note,
  }


def _show(table, lines: Sequence[str], output: str | None) -> int:
  """Prints lines, and writes the table where a file is asked for."""
  print('\n'.join(lines))
  if output:
    path = pathlib.Path(output)
    with files.replacing(path) as temporary:
      table.to_csv(temporary, index=False)
    print(f'{len(table):,} rows in {path}')
  return 0


def _certify(given: argparse.Namespace) -> int:
  from pertjax.metrics import anndata as front
  from pertjax.metrics.anndata import printing

  table = front.certify(
    given.observed,
    splits=given.splits,
    seed=given.seed,
    min_cells=given.min_cells,
    **_observed(given),
  )
  return _show(table, printing.certificate(table), given.output)


def _red_team(given: argparse.Namespace) -> int:
  from pertjax.metrics import anndata as front
  from pertjax.metrics.anndata import printing

  table = front.red_team(
    given.observed,
    seed=given.seed,
    min_cells=given.min_cells,
    **_observed(given),
  )
  return _show(table, printing.red_team(table), given.output)


def _compare(given: argparse.Namespace) -> int:
  from pertjax.metrics import anndata as front
  from pertjax.metrics.anndata import printing

  if given.output:
    pathlib.Path(given.output).parent.mkdir(parents=True, exist_ok=True)
  table = front.compare(
    front.read_scores(given.scores),
    reference=given.reference,
    metrics=_split(given.metrics) or None,
    test=given.test,
  )
  for line in table.attrs['notes']:
    _note(line)
  return _show(table, printing.compare(table), given.output)


def _score(given: argparse.Namespace) -> int:
  # Only here: `list` needs no tables.
  from pertjax.metrics import anndata as front
  from pertjax.metrics.anndata import printing

  table = front.score(
    given.observed,
    _named(given.predicted),
    bootstrap=given.bootstrap,
    genes=given.genes,
    conditions=given.conditions,
    predicted_layer=given.predicted_layer,
    **_observed(given),
  )
  return _show(table, printing.means(table), given.output)


def _scaled(given: argparse.Namespace) -> int:
  from pertjax.metrics import anndata as front
  from pertjax.metrics.anndata import printing

  settings = _observed(given)
  if settings.pop('metrics'):
    raise ValueError('--metrics: scaled takes all columns that have a scale')
  convention = settings.pop('convention')
  if len(convention) != 1:
    raise ValueError(f'--convention={given.convention}: scaled takes one')
  table = front.scaled(
    given.observed,
    given.predicted,
    convention=convention[0],
    baseline=given.baseline,
    genes=given.genes,
    conditions=given.conditions,
    predicted_layer=given.predicted_layer,
    seed=given.seed,
    **settings,
  )
  return _show(table, printing.scaled(table), given.output)


def _translate(given: argparse.Namespace) -> int:
  from pertjax.metrics import anndata as front

  settings = _observed(given)
  conventions = settings.pop('convention')
  if settings.pop('metrics'):
    raise ValueError('--metrics: translate takes --families')
  table = front.translate(
    given.observed,
    _named(given.predicted),
    families=_split(given.families) or None,
    conventions=conventions or None,
    published=given.published,
    seed=given.seed,
    genes=given.genes,
    conditions=given.conditions,
    predicted_layer=given.predicted_layer,
    **{**settings, 'normalise': given.normalise or None},
  )
  lines = []
  for model, text in table.attrs['text'].items():
    lines += [f'\n{model}' if model else '', text]
  if table.attrs['conflicts']:
    lines += ['\nModels that are ordered differently', '']
    lines += table.attrs['conflicts']
  return _show(table, [*lines, ''], given.output)


def _named(given: Sequence[str]) -> str | dict[str, str]:
  """Returns one path, or {name: path} of several."""
  if len(given) == 1 and '=' not in given[0]:
    return given[0]
  found = {}
  for item in given:
    name, equals, path = item.partition('=')
    if not equals:
      name, path = pathlib.Path(item).stem, item
    if name in found:
      raise ValueError(f'--predicted: two are named {name!r}')
    found[name] = path
  return found


def _options(given: Sequence[str]) -> dict[str, object]:
  """Returns {name: value}, or {convention: {name: value}}."""
  found: dict[str, object] = {}
  for item in given:
    name, equals, text = item.partition('=')
    if not equals:
      raise ValueError(f'--option={item}: expected NAME=VALUE')
    try:
      value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
      value = text
    convention, dot, option = name.partition('.')
    if dot:
      found.setdefault(convention, {})[option] = value
    else:
      found[name] = value
  return found


def _split(given: str) -> list[str]:
  return [part.strip() for part in given.split(',') if part.strip()]


def _list(given: argparse.Namespace) -> int:
  chosen = base.conventions()
  if given.convention:
    chosen = (base.get(given.convention),)
  else:
    print('Functions of arrays, pertjax.metrics.get(name)\n')
    for entry in registry.list_metrics():
      _print_entry(
        entry.name,
        (entry.function.__doc__ or '').strip().split('\n')[0],
        entry.best,
        entry.chance,
        entry.direction,
        entry.needs,
        '',
        entry.aliases,
        entry.version,
        entry.reference,
      )
  for convention in chosen:
    names = ', '.join((convention.name, *convention.aliases))
    print(f'{convention.title}: --convention={names}')
    print(f'  takes {convention.scale}; {convention.reference}\n')
    for column in convention.columns:
      _print_entry(
        column.name,
        column.formula,
        column.best,
        column.chance,
        column.direction,
        column.needs,
        column.undefined,
        column.aliases,
        column.version,
        column.reference,
      )
  return 0


def _chance(chance) -> str:
  if chance is None:
    return ''
  if callable(chance):
    return f'chance {chance(100):g} among 100 conditions'
  return f'chance {chance:g}'


def _print_entry(
  name, formula, best, chance, direction, needs, undefined, aliases, version,
  reference,
) -> None:  # fmt: skip
  width = max(60, min(100, shutil.get_terminal_size().columns))
  facts = [
    'no best value' if best is None else f'best {best:g}',
    '' if direction == 'none' else f'{direction} is better',
    _chance(chance),
    f'needs {", ".join(needs)}',
    f'no value: {undefined}' if undefined else '',
    f'also {", ".join(aliases)}' if aliases else '',
    f'version {version}',
  ]
  print(f'  {name}')
  for text in (formula, '; '.join(filter(None, facts)), reference):
    if text:
      print(textwrap.indent(textwrap.fill(text, width - 4), '    '))
  print()


if __name__ == '__main__':
  sys.exit(main())
