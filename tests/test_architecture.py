"""The shape of the package, walked in its source: imports, homes, docstrings.

Every rule returns lines that say what breaks it; each is also tried on a source
that does break it, so that none of them passes by looking away.
"""

import ast
import graphlib
import pathlib
import re
import subprocess
import sys
import textwrap
from typing import NamedTuple

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent

# Who may import whom, lowest first: a part imports parts of earlier rows, and
# of its own row where no circle comes of it. A new part needs a place here.
ROWS = (
  ('pertjax', 'types', 'rng', 'files', 'names'),
  ('losses', 'data', 'metrics', 'models', 'report'),
  ('optimizers', 'parallel'),
  (
    'train_step', 'targets', 'scoring', 'calibration', 'leaderboard', 'heldout',
    'evaluate', 'external', 'predict', 'checkpoints', 'writers', 'config',
    'record', 'loop', 'smoke', 'interpret',
  ),
  ('train',),
  ('runs',),
  ('main', 'mlflow_export'),
)  # fmt: skip
# Of their own row, these import only what is named here.
OWN_ROW = {
  'losses': (),
  'data': (),
  'metrics': (),
  'report': (),
  'models': (
    'losses',
    'data.statistics',
    'data.arrays',
    'data.gene_patterns',
  ),
}

# Parts that may import a third-party library; anywhere for those in FREE.
FREE = ('jax', 'jaxlib', 'numpy', 'jaxtyping')
HOMES = {
  'absl': ('main',),
  'anndata': ('data', 'metrics.anndata'),
  'flax': ('models',),
  'h5py': ('data',),
  'igraph': ('metrics.clustering',),
  'illico': ('metrics.differential',),
  'jinja2': ('report',),
  'markupsafe': ('report',),
  'matplotlib': ('report',),
  'ml_collections': ('config', 'main'),
  'mlflow': ('mlflow_export',),
  'optax': ('optimizers', 'train_step', 'models'),
  'orbax': ('checkpoints',),
  'pandas': ('data', 'metrics.anndata'),
  'pooch': ('data',),
  'requests': ('data',),
  'scipy': ('data', 'metrics.anndata'),
  'tensorboardX': ('writers',),
  'tqdm': ('writers', 'data'),
  'urllib3': ('data',),
}
PRINTERS = ('writers', 'main', 'metrics.__main__')
# Folders of somebody's machine; in two parts, so that this file passes.
FOLDERS = tuple('/' + name for name in ('work', 'root', 'home', 'Users'))


class Module(NamedTuple):
  """A parsed module; `name` is dotted, without 'pertjax.' before it."""

  name: str
  tree: ast.Module


def read_package(root):
  modules = []
  for path in sorted((root / 'pertjax').rglob('*.py')):
    parts = path.relative_to(root / 'pertjax').with_suffix('').parts
    if parts[-1] == '__init__':
      parts = parts[:-1]
    name = '.'.join(parts) or 'pertjax'
    modules.append(Module(name, ast.parse(path.read_text(encoding='utf-8'))))
  return modules


def imports(module):
  """Yields (line, dotted name) of every import, those in functions too."""
  for node in ast.walk(module.tree):
    if isinstance(node, ast.Import):
      for alias in node.names:
        yield node.lineno, alias.name
    elif isinstance(node, ast.ImportFrom):
      start = '.' * node.level + (node.module or '')
      for alias in node.names:
        yield node.lineno, f'{start}.{alias.name}'


def within(name, parts):
  return any(name == part or name.startswith(f'{part}.') for part in parts)


def _row(name):
  part = name.partition('.')[0]
  for number, row in enumerate(ROWS):
    if part in row:
      return number
  return None


def direction(modules):
  """Arrows point one way."""
  faults = [
    f'{m.name}: has no place in ROWS of tests/test_architecture.py'
    for m in modules
    if _row(m.name) is None
  ]
  known = {m.name for m in modules}
  graph = {m.name: set() for m in modules}
  for module in modules:
    part = module.name.partition('.')[0]
    for line, name in imports(module):
      if name.startswith('.'):
        faults.append(f'{module.name}:{line}: relative import of {name}')
      if name.partition('.')[0] != 'pertjax':
        continue
      inside = name.partition('.')[2] or 'pertjax'
      # `from pertjax.types import Array` depends on the module, not the name.
      target = inside
      while target not in known and '.' in target:
        target = target.rpartition('.')[0]
      if target not in known:
        target = 'pertjax'
      if target != module.name:
        graph[module.name].add(target)
      if target.partition('.')[0] == part:
        continue
      here, there = _row(module.name), _row(target)
      if here is None or there is None:
        continue
      allowed = there < here
      if there == here:
        allowed = part not in OWN_ROW or within(inside, OWN_ROW[part])
      if not allowed:
        faults.append(f'{module.name}:{line}: may not import pertjax.{inside}')
  try:
    graphlib.TopologicalSorter(graph).prepare()
  except graphlib.CycleError as error:
    faults.append(f'circle: {" <- ".join(error.args[1])}')
  return faults


def homes(modules):
  """Every third-party library has one home, and nothing else is imported."""
  faults = []
  for module in modules:
    for line, name in imports(module):
      library = name.partition('.')[0]
      if library in ('', 'pertjax', '__future__', *FREE):
        continue
      if library in sys.stdlib_module_names:
        continue
      if library not in HOMES:
        faults.append(f'{module.name}:{line}: {library} has no home')
      elif not within(module.name, HOMES[library]):
        faults.append(
          f'{module.name}:{line}: {library} belongs in {HOMES[library]}'
        )
  return faults


def docstrings(modules):
  """Modules and their public functions and classes say what they are."""
  faults = []
  for module in modules:
    if not ast.get_docstring(module.tree):
      faults.append(f'{module.name}: no docstring')
    for node in module.tree.body:
      if (
        isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
        and not node.name.startswith('_')
        and not ast.get_docstring(node)
      ):
        faults.append(f'{module.name}:{node.lineno}: {node.name} says nothing')
  return faults


def prints(modules):
  """What a person reads goes through writers.Console."""
  return [
    f'{module.name}:{node.lineno}: prints'
    for module in modules
    if module.name not in PRINTERS
    for node in ast.walk(module.tree)
    if isinstance(node, ast.Call)
    and isinstance(node.func, ast.Name)
    and node.func.id == 'print'
  ]


def folders(texts):
  """No path of somebody's machine; `texts` is {name: text}."""
  # A folder at the root: not a part of an address or of a longer path.
  pattern = re.compile(rf'(?<![\w.~}}-])({"|".join(FOLDERS)})/')
  return [
    f'{name}:{number}: {line.strip()[:80]}'
    for name, text in texts.items()
    for number, line in enumerate(text.splitlines(), 1)
    if pattern.search(line)
  ]


def tracked_texts(root):
  try:
    listed = subprocess.run(
      ['git', '-C', str(root), 'ls-files', '-z'],
      capture_output=True, check=True, text=True,
    ).stdout.split('\0')  # fmt: skip
  except (OSError, subprocess.CalledProcessError):
    pytest.skip('not in a git checkout')
  texts = {}
  for name in filter(None, listed):
    path = root / name
    if path.is_file() and b'\0' not in (content := path.read_bytes()):
      texts[name] = content.decode('utf-8')
  return texts


@pytest.fixture(scope='module')
def package():
  return read_package(ROOT)


@pytest.mark.parametrize('rule', [direction, homes, docstrings, prints])
def test_package_keeps_the_rule(rule, package):
  assert len(package) > 20
  assert rule(package) == []


def test_no_path_of_a_machine_in_tracked_files():
  texts = tracked_texts(ROOT)
  assert 'pertjax/main.py' in texts
  assert folders(texts) == []


PLANTED = {
  'upward': (direction, 'data.arrays', 'from pertjax import train\n', 'train'),
  'upward, in a function': (
    direction,
    'models.vae',
    'def f():\n  import pertjax.evaluate\n',
    ':2: may not import pertjax.evaluate',
  ),
  'sideways': (
    direction, 'metrics.ranks', 'from pertjax import data\n', 'pertjax.data',
  ),
  'models reading files': (
    direction, 'models.vae', 'from pertjax.data import h5ad\n', 'data.h5ad',
  ),
  'report above the bottom': (
    direction, 'report.page', 'from pertjax.writers import write_text\n',
    'writers.write_text',
  ),
  'relative': (direction, 'models.vae', 'from . import layers\n', 'relative'),
  'without a place': (direction, 'helpers', 'import os\n', 'ROWS'),
  'experiments': (homes, 'train', 'import experiments.sweep\n', 'no home'),
  'configs': (homes, 'runs', 'from configs import default\n', 'no home'),
  'flax': (homes, 'train_step', 'import flax.linen as nn\n', 'models'),
  'orbax': (homes, 'train', 'import orbax.checkpoint\n', 'checkpoints'),
  'pandas': (homes, 'evaluate', 'import pandas as pd\n', 'data'),
  'pandas in other metrics': (
    homes, 'metrics.ranks', 'import pandas as pd\n', 'metrics.anndata',
  ),
  'flags': (homes, 'runs', 'from absl import flags\n', 'main'),
  'unheard of': (homes, 'data.arrays', 'import torch\n', 'torch has no home'),
  'plots': (homes, 'evaluate', 'import matplotlib.pyplot\n', 'report'),
  'silent function': (docstrings, 'rng', '"""A."""\ndef f(): ...\n', 'f says'),
  'silent class': (docstrings, 'rng', '"""A."""\nclass F: ...\n', 'F says'),
  'silent module': (docstrings, 'rng', 'x = 1\n', 'no docstring'),
  'print': (prints, 'train', 'def f():\n  print(1)\n', 'train:2: prints'),
}  # fmt: skip


@pytest.mark.parametrize('case', PLANTED)
def test_rule_sees_a_planted_fault(case):
  rule, name, source, shown = PLANTED[case]
  found = rule([Module(name, ast.parse(source)), *_SOME])
  assert len(found) == 1, found
  assert shown in found[0]


def _modules(**sources):
  return [
    Module(n.replace('__', '.'), ast.parse(textwrap.dedent(s)))
    for n, s in sources.items()
  ]


# Modules that the planted sources import, clean themselves.
_SOME = _modules(
  data='"""D."""',
  data__h5ad='"""H."""',
  train='"""T."""',
  evaluate='"""E."""',
  writers='"""W."""\ndef _w(): print(1)',
)


def test_circle_within_a_row_is_found():
  modules = _modules(
    evaluate='from pertjax import leaderboard',
    leaderboard='from pertjax.targets import Targets',
    targets='from pertjax import evaluate',
  )
  (fault,) = direction(modules)
  assert 'circle' in fault
  assert direction(modules[:2]) == []


def test_allowed_imports_are_no_faults():
  modules = _modules(
    types='"""T."""',
    losses='from pertjax import types',
    data='"""D."""',
    data__arrays='from pertjax import types',
    data__statistics='from pertjax.data import arrays',
    models__vae="""
      import flax.linen as nn
      from pertjax import losses
      from pertjax.data.statistics import PairMeans
    """,
    writers='import tensorboardX',
    evaluate='from pertjax import writers',
    metrics__anndata='import pandas, scipy.sparse, anndata',
  )
  assert direction(modules) == homes(modules) == []


@pytest.mark.parametrize('folder', FOLDERS)
def test_planted_folder_is_found(folder):
  planted = {'a.py': f"x = 1\npath = '{folder}/someone/data'\n"}
  (fault,) = folders(planted)
  assert fault.startswith('a.py:2:')


def test_addresses_are_no_folders():
  texts = {
    'a.md': f'https://example.org{FOLDERS[2]}/index.html',
    'b.md': f'runs{FOLDERS[0]}/x and ~{FOLDERS[0]}/y',
  }
  assert folders(texts) == []
