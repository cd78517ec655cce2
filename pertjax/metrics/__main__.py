"""Scoring from the command line.

  python -m pertjax.metrics score --observed=real.h5ad --predicted=pred.h5ad \\
    --convention=vcc2026 --output=scores.csv
  python -m pertjax.metrics list --convention=vcc2026
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
  except (ValueError, OSError) as error:
    print(f'error: {error}', file=sys.stderr)
    return 2
  except BrokenPipeError:  # The reader of `list | head` has gone.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog='python -m pertjax.metrics',
    description='Score predicted perturbation effects in any convention.',
  )
  commands = parser.add_subparsers(required=True, metavar='score|list')
  score = commands.add_parser(
    'score', help='score a prediction against observed cells'
  )
  score.set_defaults(run=_score)
  add = score.add_argument
  add('--observed', required=True, help='h5ad of the real cells')
  add(
    '--predicted',
    required=True,
    action='append',
    help='h5ad of the predicted cells; several as NAME=FILE',
  )
  add(
    '--convention',
    default='cell-eval',
    help='one or several, by commas: see `list`',
  )
  add('--output', help='CSV of all values; the means are printed in any case')
  add('--perturbation_key', help='column of obs with the condition')
  add('--control', help='name of the control in that column')
  add('--covariate_keys', default='', help='columns of obs, by commas')
  add('--metrics', default='', help='columns of the convention, by commas')
  add(
    '--option',
    action='append',
    default=[],
    metavar='NAME=VALUE',
    help='of the convention; repeat it for several',
  )
  add('--genes', default='same', choices=('same', 'shared'))
  add('--conditions', default='same', choices=('same', 'shared'))
  add('--layer', help='of the observed file, in place of X')
  add('--predicted_layer', help='of the predicted file, in place of X')
  add(
    '--normalise',
    type=float,
    help='take counts to ln(1 + x) of so many counts a cell',
  )
  add('--bootstrap', default='conditions', choices=summary.BOOTSTRAPS)
  add('--engine', default='auto', help='of differential expression')
  add(
    '--backed',
    action=argparse.BooleanOptionalAction,
    help='leave the files on disk; by default those beyond 2 GB',
  )
  listing = commands.add_parser(
    'list', help='print every metric with its formula and source'
  )
  listing.set_defaults(run=_list)
  listing.add_argument('--convention', help='only this one')
  return parser


def _score(given: argparse.Namespace) -> int:
  # Only here: `list` needs no tables.
  from pertjax.metrics import anndata as front

  def say(line: str) -> None:
    print(f'note: {line}', file=sys.stderr)

  key, control = front.key_and_control(
    given.observed, given.perturbation_key, given.control, say=say
  )
  predicted = _named(given.predicted)
  table = front.score(
    given.observed,
    predicted,
    perturbation_key=key,
    control=control,
    covariate_keys=_split(given.covariate_keys),
    convention=_split(given.convention),
    metrics=_split(given.metrics) or None,
    options=_options(given.option),
    engine=given.engine,
    bootstrap=given.bootstrap,
    genes=given.genes,
    conditions=given.conditions,
    layer=given.layer,
    predicted_layer=given.predicted_layer,
    normalise=given.normalise,
    backed=given.backed,
    say=say,
  )
  _print_means(table)
  if given.output:
    path = pathlib.Path(given.output)
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.replacing(path) as temporary:
      table.to_csv(temporary, index=False)
    print(f'{len(table):,} values in {path}')
  return 0


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
  found: dict[str, object] = {}
  for item in given:
    name, equals, value = item.partition('=')
    if not equals:
      raise ValueError(f'--option={item}: expected NAME=VALUE')
    try:
      found[name] = ast.literal_eval(value)
    except (ValueError, SyntaxError):
      found[name] = value
  return found


def _split(given: str) -> list[str]:
  return [part.strip() for part in given.split(',') if part.strip()]


def _print_means(table) -> None:
  """Prints the means of all conditions, a line each."""
  means = table[(table['level'] == summary.AGGREGATE)]
  means = means[means['covariate'] == '']
  width = max((len(m) for m in means['metric']), default=6)
  last = None
  for row in means.itertuples():
    model = getattr(row, 'model', '')
    if (row.convention, model) != last:
      last = (row.convention, model)
      title = base.get(row.convention).title
      print(f'\n{title}' + (f' - {model}' if model else ''))
      print(f'{"":{width}}  {"mean":>10}  {"95 % interval":^21}  conditions')
    interval = '' if row.low != row.low else f'{row.low:.4g} to {row.high:.4g}'
    used = f'{row.used}' + (f' (-{row.dropped})' if row.dropped else '')
    print(
      f'{row.metric:{width}}  {row.value:>10.4g}  {interval:^21}  {used:<10}'
      f'{"  " + row.reason if row.reason else ""}'.rstrip()
    )
  print()


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
    f'no value {undefined}' if undefined else '',
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
