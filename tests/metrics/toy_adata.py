"""AnnData of the fixtures of formulas, and a convention that costs nothing."""

import anndata
import closed_form
import numpy as np
import pandas as pd

from pertjax.metrics.conventions import base, gears, perturbench

KEYS = {'perturbation_key': 'condition', 'control': 'ctrl'}


def made(side='observed', **columns):
  """Returns fixture A as an AnnData: 87 cells, 72 genes, log values."""
  values, names = closed_form.fixture_a(side)
  return of(values.astype(np.float32), names, closed_form.GENES_72, **columns)


def counts(side='observed'):
  """Returns fixture B as an AnnData: 116 cells, 72 genes, counts."""
  values, names = closed_form.fixture_b(side)
  return of(values.astype(np.float32), names, closed_form.GENES_72)


def of(values, names, genes, **columns):
  """Returns an AnnData of cells, their conditions and genes."""
  obs = pd.DataFrame(
    {'condition': list(names), **columns},
    index=[f'cell{i}' for i in range(len(names))],
  )
  return anndata.AnnData(values, obs=obs, var=pd.DataFrame(index=list(genes)))


def _columns_of(problem, wanted, options):
  del wanted, options
  predicted, observed = problem.deltas('predicted'), problem.deltas('observed')
  with np.errstate(invalid='ignore', divide='ignore'):
    pearson = [np.corrcoef(a, b)[0, 1] for a, b in zip(predicted, observed)]
  error = np.square(problem.means('predicted') - problem.means('observed'))
  error = error.mean(1)
  return {
    'pearson_delta': np.asarray(pearson),
    'mse': error,
    'total': base.resampled(lambda at: error[at].sum(1), len(error)),
  }


TOY = base.Convention(
  'toy', 'Toy', 'a test', 'any', 'own',
  (
    base.Column(
      'pearson_delta', '', 1.0, 'higher', 'a test', 0.0, ('means', 'control'),
      'a side has no change', ('delta',), bounds=(-1.0, 1.0),
    ),
    base.Column('mse', '', 0.0, 'lower', 'a test', bounds=(0.0, None)),
    base.Column('total', '', 0.0, 'lower', 'a test', scope='panel'),
  ),
  _columns_of,
)  # fmt: skip
LOGS = TOY._replace(name='logs', scale='log1p')
KNOWN = (TOY, LOGS, *perturbench.CONVENTIONS, *gears.CONVENTIONS)


def only_known(monkeypatch):
  """Leaves nothing but KNOWN to be found by name."""
  found = {name: c for c in KNOWN for name in (c.name, *c.aliases)}
  monkeypatch.setattr(base, '_all', lambda: found)
