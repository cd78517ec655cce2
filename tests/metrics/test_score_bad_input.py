"""What cannot be scored is said before any work, with names."""

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import toy_adata
from scipy import sparse

from pertjax.metrics import anndata as front
from pertjax.metrics import sides
from pertjax.metrics.conventions import base

KEYS = toy_adata.KEYS


@pytest.fixture(autouse=True)
def _known(monkeypatch):
  toy_adata.only_known(monkeypatch)

  def never(*_, **__):
    raise AssertionError('scored before everything was checked')

  monkeypatch.setattr(base, 'evaluate', never)


def fails(match, observed=None, predicted=None, error=ValueError, **options):
  observed = toy_adata.made() if observed is None else observed
  predicted = toy_adata.made('predicted') if predicted is None else predicted
  options = {'convention': 'toy', **KEYS, **options}
  with pytest.raises(error, match=match):
    front.score(observed, predicted, **options)


def changed(side='observed', **columns):
  adata = toy_adata.made(side)
  for name, values in columns.items():
    adata.obs[name] = values
  return adata


# ----------------------------------------------------------------------------
# Files.


def test_no_file(tmp_path):
  toy_adata.made().write_h5ad(tmp_path / 'real.h5ad')
  path = tmp_path / 'reel.h5ad'
  fails(
    r"observed \(.*reel.h5ad\): no such file; closest: 'real.h5ad'",
    path, error=FileNotFoundError,
  )  # fmt: skip
  fails('a folder; expected', tmp_path, error=IsADirectoryError)


@pytest.mark.filterwarnings('ignore:Element.*encoding metadata')
@pytest.mark.parametrize('backed', [None, True])
@pytest.mark.parametrize('kind', ['empty', 'text', 'hdf5', 'cut'])
def test_no_h5ad(tmp_path, kind, backed):
  path = tmp_path / 'pred.h5ad'
  if kind == 'hdf5':
    with h5py.File(path, 'w') as file:
      file['something'] = np.arange(3)
    message = r'predicted \(.*pred.h5ad\): (cannot be read|there are 0 cells)'
  else:
    toy_adata.made().write_h5ad(path)
    whole = path.read_bytes()
    path.write_bytes({'empty': b'', 'text': b'a,b\n1,2\n'}.get(
      kind, whole[: len(whole) // 2]))  # fmt: skip
    message = r'predicted \(.*pred.h5ad\): cannot be read as h5ad \([\d,]+ byte'
  fails(message, predicted=path, backed=backed)


def test_nothing_inside():
  fails('there are 0 cells and 72 genes', toy_adata.made()[:0].copy())
  fails(
    'predicted: there are 87 cells and 0 genes',
    predicted=toy_adata.made()[:, :0].copy(),
  )


# ----------------------------------------------------------------------------
# Keys and labels.


def test_missing_keys():
  fails(
    "observed: obs has no column 'conditoin'; closest: 'condition'",
    perturbation_key='conditoin',
  )
  fails("no column 'cell_type'", covariate_keys=['cell_type'])
  predicted = toy_adata.made('predicted')
  predicted.obs = predicted.obs.rename(columns={'condition': 'pert'})
  fails("predicted: obs has no column 'condition'", predicted=predicted)


def test_missing_labels():
  names = toy_adata.made().obs['condition'].astype(object)
  names.iloc[[4, 7]] = np.nan
  message = r"is missing in 2 cells: 'cell4', 'cell7'"
  fails(rf"observed: obs\['condition'\] {message}", changed(condition=names))
  fails(
    rf"predicted: obs\['condition'\] {message}",
    predicted=changed('predicted', condition=names.astype('category')),
  )
  batch = np.where(np.arange(87) == 3, np.nan, 1.0)
  fails(
    r"obs\['batch'\] is missing in 1 cells: 'cell3'",
    changed(batch=batch),
    covariate_keys=['batch'],
  )


def test_no_control():
  fails(
    "observed: no cell of the control 'ctl'; closest: 'ctrl'", control='ctl'
  )
  adata = toy_adata.made()
  fails(
    "no cell of the control 'ctrl'",
    adata[adata.obs['condition'] != 'ctrl'].copy(),
  )
  controls = adata[adata.obs['condition'] == 'ctrl'].copy()
  fails('no condition is on both sides', controls, controls)


def test_groups_that_are_named_alike():
  a = np.where(np.arange(87) % 2, 'x', 'x|y')
  b = np.where(np.arange(87) % 2, 'y|z', 'z')
  fails(
    r"two groups of a, b are named 'x\|y\|z'",
    changed(a=a, b=b),
    covariate_keys=['a', 'b'],
  )


def test_conditions_differ():
  predicted = toy_adata.made('predicted')
  few = predicted[~predicted.obs['condition'].isin(['G03', 'G07'])].copy()
  few.obs['condition'] = few.obs['condition'].replace('G11', 'G12')
  fails(
    r"predicted lacks 3 that were observed \('G03', 'G07', 'G11'\) and has 1 "
    r"that were not \('G12'\); conditions='shared' scores",
    predicted=few,
  )
  fails("conditions: 'some' is unknown.*same, shared", conditions='some')


def test_a_later_model_is_checked_first():
  predicted = toy_adata.made('predicted')
  few = predicted[predicted.obs['condition'] != 'G03'].copy()
  fails(
    "lacks 1 that were observed .'G03'.", predicted={'a': predicted, 'b': few}
  )
  fails('no model is given', predicted={})


# ----------------------------------------------------------------------------
# Genes and matrices.


def test_genes_differ():
  predicted = toy_adata.made('predicted')
  predicted.var_names = [
    'new' if g == 'G05' else g for g in predicted.var_names
  ]
  fails(
    r"predicted lacks 1 of 72 observed genes \('G05'\) and has 1 that were not "
    r"observed \('new'\); genes='shared'",
    predicted=predicted,
  )
  predicted.var_names = [f'x{g}' for g in predicted.var_names]
  fails(
    "no gene is on both sides; observed: 'G00'.* predicted: 'xG00'",
    predicted=predicted,
    genes='shared',
  )
  fails("genes: 'any' is unknown", genes='any')


@pytest.mark.filterwarnings('ignore:Variable names are not unique')
def test_genes_that_are_named_twice():
  adata = toy_adata.made()
  adata.var_names = ['G01', *adata.var_names[1:]]
  fails("observed: genes are named twice: 'G01'", adata)


def test_layers():
  adata = toy_adata.made()
  adata.layers['counts'] = adata.X
  fails("observed: no layer 'count'; closest: 'counts'", adata, layer='count')
  fails("predicted: no layer 'logs'; there are none", predicted_layer='logs')
  adata.X = None
  fails("observed: there is no X; choose a layer: 'counts'", adata)


@pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize('kind', [np.asarray, sparse.csr_matrix])
def test_values_that_are_not_finite(value, kind):
  predicted = toy_adata.made('predicted')
  values = predicted.X.copy()
  at = np.flatnonzero(predicted.obs['condition'] == 'G07')[5]
  values[at, 31] = value
  predicted.X = kind(values)
  fails(
    rf"predicted: 1 means .* the first value is {value:g} in cell 'cell{at}', "
    "gene 'G31'",
    predicted=predicted,
  )


def test_values_that_are_no_numbers():
  adata = toy_adata.made()
  adata.X = adata.X.astype(complex)
  fails('observed: X holds complex128; expected numbers', adata)


# ----------------------------------------------------------------------------
# Scales.


def test_scales():
  log, raw = toy_adata.made('predicted'), toy_adata.made('predicted')
  raw.X = np.round(np.expm1(raw.X))
  fails(
    'mixed scales: observed holds log1p, predicted counts values',
    predicted=raw,
  )
  # Within a side.
  mixed = log.copy()
  at = (mixed.obs['condition'] == 'G11').to_numpy()
  mixed.X[at] = raw.X[at]
  fails(
    "predicted: mixed scales: condition 'G11' holds counts .*'DRUGX' log1p",
    predicted=mixed,
  )
  # Neither.
  wrong = log.copy()
  wrong.X[at] = np.expm1(wrong.X[at]) * 13.7
  fails(
    "predicted: condition 'G11' has values up to .* that are not integers",
    predicted=wrong,
  )
  fails(
    "predicted: scale='log1p', but condition 'G11' has values up to",
    predicted=wrong,
    scale='log1p',
  )
  log.X[at] -= 9
  fails("scale='counts', but .* down to -9", predicted=log, scale='counts')
  fails("scale: 'log' is unknown; closest: log1p", scale='log')


def test_a_scale_that_a_convention_does_not_take():
  raw = [toy_adata.counts(side) for side in ('observed', 'predicted')]
  fails(
    "convention 'logs' takes log1p; observed holds counts values; normalise=",
    *raw,
    control='non-targeting',
    convention=['toy', 'logs'],
  )
  fails('normalise=10000 needs counts; the values are log1p', normalise=1e4)
  fails('normalise=0; expected a number above 0', normalise=0)


# ----------------------------------------------------------------------------
# Names of conventions and what they take.


def test_names():
  fails("convention: 'tooy' is unknown; closest: toy", convention='tooy')
  fails("'gears' is given twice", convention=['gears', 'gears'])
  fails('convention: none is given', convention=[])
  fails("metrics: 'msee' is unknown; closest: mse", metrics=['msee'])
  fails("metrics: 'mse'; expected a list", metrics='mse')
  fails("option .*'rankins'.*rankings", convention='gears',
        options={'rankins': 1})  # fmt: skip
  fails(
    "options: convention: 'geers' is unknown",
    convention=['toy', 'gears'],
    options={'geers': {}},
  )
  fails("bootstrap: 'cell' is unknown; closest: cells", bootstrap='cell')


def test_columns_that_only_look_like_keys(tmp_path):
  """`key_and_control` finds usual names, and says what there is if not."""
  adata = toy_adata.made()
  adata.write_h5ad(tmp_path / 'a.h5ad')
  lines = []
  found = front.key_and_control(
    str(tmp_path / 'a.h5ad'), None, None, say=lines.append
  )
  assert found == ('condition', 'ctrl')
  assert lines == ["perturbation_key='condition'", "control='ctrl'"]
  names = adata.obs['condition'].astype(str)
  adata.obs['condition'] = names.replace('ctrl', 'none')
  adata.write_h5ad(tmp_path / 'b.h5ad')
  with pytest.raises(ValueError, match="control is not given.*it has 'DRUGX'"):
    front.key_and_control(str(tmp_path / 'b.h5ad'), None, None, say=print)
  plain = anndata.AnnData(np.ones((2, 2), np.float32))
  plain.obs = pd.DataFrame({'x': ['a', 'b']}, index=plain.obs_names)
  plain.write_h5ad(tmp_path / 'c.h5ad')
  with pytest.raises(ValueError, match="has none of target_gene.*it has 'x'"):
    front.key_and_control(str(tmp_path / 'c.h5ad'), None, None, say=print)


def test_negative_values_are_told(monkeypatch):
  monkeypatch.undo()
  toy_adata.only_known(monkeypatch)
  predicted = toy_adata.made('predicted')
  predicted.X = predicted.X - 0.5
  with pytest.warns(front.ScoreWarning, match='values below 0 .down to -0.5'):
    front.score(toy_adata.made(), predicted, convention='toy', **KEYS)


def test_means_of_counts_are_counts_where_scale_says_so(monkeypatch):
  monkeypatch.undo()
  toy_adata.only_known(monkeypatch)
  observed, predicted = (toy_adata.counts(s) for s in ('observed', 'predicted'))
  predicted.X = predicted.X + 0.25
  options = {'convention': 'toy', **KEYS, 'control': 'non-targeting'}
  with pytest.raises(ValueError, match="scale='counts' takes means of counts"):
    front.score(observed, predicted, **options)
  with pytest.warns(front.ScoreWarning, match='does not look like it'):
    table = front.score(observed, predicted, scale='counts', **options)
  assert 'both sides hold counts values' in table.attrs['notes']
  assert isinstance(sides.BLOCK_BYTES, int)
