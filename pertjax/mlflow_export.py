"""Copy a finished run into a local MLflow store.

  python -m pertjax.mlflow_export --workdir=runs/norman [--store=mlflow.db]

The store is one SQLite file, its artifacts in a folder beside it: nothing is
sent anywhere. A run becomes one MLflow run with its parameters, its leaderboard
and, as artifacts, its tables and report; every member of the fleet becomes a
run inside of it, with its own settings and curves. Needs the extra
pertjax[mlflow].
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import pathlib
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pertjax import writers
from pertjax.report import columns
from pertjax.report import read as read_lib

# What MLflow takes at once, and how long a value may be.
_METRICS, _PARAMS, _LENGTH = 1000, 100, 500
_ARTIFACTS = (
  'config.json', 'env.json', 'split.csv', 'split_summary.json', 'report.html',
)  # fmt: skip
_FORBIDDEN = re.compile(r'[^\w\-. /]')


def export(
  workdir: pathlib.Path,
  store: pathlib.Path,
  *,
  experiment: str = '',
  say: Callable[[str], None] = lambda line: None,
) -> str:
  """Copies a run; a run that is copied again is a run of its own.

  Args:
    workdir: directory of a finished run.
    store: SQLite file, which is made where it is absent.
    experiment: its name in MLflow; the dataset's by default.
    say: takes lines for a person.

  Returns:
    MLflow's id of the run.

  Raises:
    FileNotFoundError: there is no run in `workdir`.
    ModuleNotFoundError: mlflow is not installed; the message names the extra.
  """
  mlflow = _mlflow()
  run = read_lib.read_run(workdir)
  if run.config is None:
    raise FileNotFoundError(f'{workdir}: no config.json; is this a run?')
  env = run.env or {}
  store = store.expanduser().resolve()
  store.parent.mkdir(parents=True, exist_ok=True)
  client = mlflow.MlflowClient(tracking_uri=f'sqlite:///{store.as_posix()}')
  name = experiment or str(env.get('dataset') or 'pertjax')
  found = client.get_experiment_by_name(name)
  # Not MLflow's default, a folder wherever the command was started.
  place = (
    found.experiment_id
    if found
    else client.create_experiment(
      name,
      artifact_location=(store.parent / f'{store.stem}_artifacts').as_uri(),
    )
  )
  title = workdir.resolve().name
  parent = _start(client, place, title, {'pertjax.workdir': str(workdir)})
  _log(mlflow, client, parent, _params(run.config), _summary(run.summary))
  for path in _files(workdir):
    folder = path.parent.relative_to(workdir).as_posix()
    client.log_artifact(parent, str(path), None if folder == '.' else folder)
  members = env.get('members') or []
  for member in members:
    number = int(member['member'])
    tags = {'mlflow.parentRunId': parent, 'status': member.get('status') or ''}
    child = _start(client, place, f'{title}: member {number}', tags)
    own = {'seed': member.get('seed'), **(member.get('overrides') or {})}
    _log(mlflow, client, child, _params(own), _curves(run.curves, number))
    client.set_terminated(child, _status(member))
  client.set_terminated(parent)
  say(
    f'{workdir}: {len(members)} member(s) copied to {store}; look at it with '
    f'mlflow ui --backend-store-uri sqlite:///{store.as_posix()}'
  )
  return parent


def _mlflow():
  try:
    return importlib.import_module('mlflow')
  except ModuleNotFoundError as error:
    if error.name != 'mlflow':
      raise
    raise ModuleNotFoundError(
      'mlflow is not installed; it comes with the extra: '
      "pip install 'pertjax[mlflow]'",
      name='mlflow',
    ) from error


def _start(client, experiment, name, tags) -> str:
  made = client.create_run(experiment, tags=tags, run_name=name)
  return made.info.run_id


def _status(member: Mapping[str, Any]) -> str:
  failed = str(member.get('status') or '').startswith('failed')
  return 'FAILED' if failed else 'FINISHED'


def _log(mlflow, client, run_id, params, metrics) -> None:
  """Sends parameters and metrics in as few calls as MLflow allows.

  Args:
    mlflow: the library.
    client: of the store.
    run_id: where they go.
    params: {name: text}.
    metrics: (name, value, step).
  """
  entities = mlflow.entities
  items = [entities.Param(k, v) for k, v in params.items()]
  for i in range(0, len(items), _PARAMS):
    client.log_batch(run_id, params=items[i : i + _PARAMS])
  # Times are of no interest: a run of yesterday is copied now.
  values = [entities.Metric(k, v, 0, step) for k, v, step in metrics]
  for i in range(0, len(values), _METRICS):
    client.log_batch(run_id, metrics=values[i : i + _METRICS])


def _params(config: Mapping[str, Any], prefix: str = '') -> dict[str, str]:
  """Returns {dotted key: text}; what is longer than MLflow takes is cut."""
  out: dict[str, str] = {}
  for key, value in config.items():
    name = f'{prefix}{key}'
    if isinstance(value, Mapping):
      out.update(_params(value, f'{name}.'))
    else:
      text = value if isinstance(value, str) else json.dumps(value)
      if len(text) > _LENGTH:
        text = text[: _LENGTH - 1] + '…'
      out[_FORBIDDEN.sub('_', name)] = text
  return out


def _curves(curves, member: int) -> Iterator[tuple[str, float, int]]:
  for name, series in (curves or {}).items():
    if member in series:
      for step, value in zip(*series[member]):
        yield _FORBIDDEN.sub('_', name), float(value), int(step)


def _summary(table: columns.Table | None) -> Iterator[tuple[str, float, int]]:
  """Yields the means of eval/summary.csv, baselines included."""
  keys = ('model', 'split', 'regime', 'aggregate', 'genes', 'metric')
  if table is None:
    return
  for i in range(table.num_rows):
    value = float(table.numbers['mean'][i])
    names = [table.text[key][0][table.text[key][1][i]] for key in keys]
    if math.isfinite(value):
      yield _FORBIDDEN.sub('_', '/'.join(names)), value, 0


def _files(workdir: pathlib.Path) -> Iterator[pathlib.Path]:
  for name in _ARTIFACTS:
    if (workdir / name).is_file():
      yield workdir / name
  for path in sorted((workdir / 'eval').rglob('*')):
    if path.is_file():
      yield path


def main(arguments: list[str] | None = None) -> None:
  """Reads the command line and copies a run."""
  parser = argparse.ArgumentParser(
    prog='python -m pertjax.mlflow_export',
    description='Copy a finished run into a local MLflow store.',
  )
  parser.add_argument('--workdir', type=pathlib.Path, required=True)
  parser.add_argument(
    '--store',
    type=pathlib.Path,
    default=pathlib.Path('mlflow.db'),
    help='SQLite file, made where it is absent (default: mlflow.db)',
  )
  parser.add_argument(
    '--experiment', default='', help="default: the dataset's name"
  )
  options = parser.parse_args(arguments)
  try:
    export(
      options.workdir,
      options.store,
      experiment=options.experiment,
      say=writers.Console().say,
    )
  except (OSError, ValueError, ModuleNotFoundError) as error:
    parser.exit(1, f'{error}\n')


if __name__ == '__main__':
  main()
