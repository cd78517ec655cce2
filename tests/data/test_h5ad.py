"""Reading: what comes out, and what is refused."""

import warnings

import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from small_adata import PERTURBENCH, make, refused, take

from pertjax.data import conventions, h5ad


def test_what_is_read():
  adata = make()
  raw = take(adata)
  assert isinstance(raw.X, sparse.csr_matrix)
  assert raw.X.dtype == np.float32
  assert raw.X.has_sorted_indices
  np.testing.assert_array_equal(raw.X.toarray(), adata.X.toarray())
  assert raw.counts is raw.X
  assert raw.gene_names == tuple(f'G{k}' for k in range(6))
  assert raw.cell_names.tolist() == adata.obs_names.tolist()
  assert raw.conditions.names == ('control', 'A', 'A+B', 'B')
  expected = [raw.conditions.names[i] for i in raw.condition_ids]
  assert expected == adata.obs['condition'].tolist()
  assert raw.covariates == {'cell_type': ('ta', 'tb')}
  assert raw.covariate_codes.tolist() == [[0]] * 12 + [[1]] * 12
  assert raw.groups == (('ta',), ('tb',))
  assert raw.group_ids.tolist() == [0] * 12 + [1] * 12
  assert raw.obs['batch'].tolist() == [0, 1] * 12
  assert raw.obs.index.tolist() == adata.obs_names.tolist()
  assert raw.notes == ()
  assert len(raw.fingerprint) == 64


def test_groups_are_the_combinations_that_occur_sorted():
  adata = make(8)
  adata.obs['cell_type'] = list('bbaabbaa')
  adata.obs['condition'] = ['control', 'A'] * 4
  adata.obs['batch'] = [10, 10, 9, 9, 10, 10, 9, 9]
  raw = take(adata, covariates=('cell_type', 'batch'))
  assert raw.covariates == {'cell_type': ('a', 'b'), 'batch': ('10', '9')}
  assert raw.groups == (('a', '9'), ('b', '10'))
  assert raw.group_ids.tolist() == [1, 1, 0, 0, 1, 1, 0, 0]
  none = take(adata, covariates=())
  assert none.groups == ((),)
  assert none.covariates == {}
  assert none.covariate_codes.shape == (8, 0)
  assert not none.group_ids.any()


def test_fingerprint_changes_with_anything_that_matters():
  seen = {take(make()).fingerprint}

  def differs(adata, **options):
    fingerprint = take(adata, **options).fingerprint
    assert fingerprint not in seen
    seen.add(fingerprint)

  changed = make()
  changed.X.data[0] += 1
  differs(changed)
  differs(make()[::-1].copy())
  differs(make()[:, ::-1].copy())
  renamed = make()
  renamed.var_names = [f'H{k}' for k in range(6)]
  differs(renamed)
  relabelled = make()
  relabelled.obs['condition'] = np.roll(relabelled.obs['condition'], 1)
  differs(relabelled)
  differs(make(), covariates=())
  swapped = make()
  swapped.obs['cell_type'] = swapped.obs['cell_type'].to_numpy()[::-1]
  differs(swapped)
  same = make()
  same.obs['batch'] = 7
  assert take(same).fingerprint in seen


def test_file_round_trip_is_the_same_dataset(tmp_path):
  adata = make()
  adata.uns['gene_sets'] = {'first': ['G0', 'G2', 'gone'], 'second': ['G1']}
  adata.write_h5ad(tmp_path / 'x.h5ad')
  raw = h5ad.read(tmp_path / 'x.h5ad', convention=PERTURBENCH, scale='counts')
  memory = take(adata)
  assert raw.fingerprint == memory.fingerprint
  assert raw.source == str(tmp_path / 'x.h5ad')
  assert raw.gene_sets == {'first': ('G0', 'G2'), 'second': ('G1',)}
  assert memory.gene_sets == raw.gene_sets
  assert any('1 members of gene sets' in note for note in raw.notes)


def test_layers_and_counts():
  adata = make()
  adata.layers['counts'] = adata.X.copy()
  adata.X = np.log1p(adata.X * 0.7)
  raw = take(adata, 'log1p')
  np.testing.assert_array_equal(
    raw.counts.toarray(), adata.layers['counts'].toarray()
  )
  np.testing.assert_array_equal(raw.X.toarray(), adata.X.toarray())
  assert take(adata, 'log1p', counts_layer=None).counts is None
  counts = take(adata, layer='counts')
  assert counts.counts is counts.X
  assert counts.scale == 'counts'
  adata.layers['counts'].data[2] = 0.5
  refused(adata, r"layers\['counts'\]: scale='counts'", scale='log1p')


def test_gene_names_from_a_column():
  adata = make()
  convention = conventions.make('perturbench', gene_names='symbol')
  assert take(adata, convention=convention).gene_names[0] == 'S0'
  adata.var['symbol'] = pd.Categorical(['S0', 'S0', 'S1', 'S2', 'S3', 'S0'])
  refused(
    adata, r"gene names \(var\['symbol'\]\): 1 occur", convention=convention
  )
  raw = take(adata, convention=convention, make_unique=True)
  assert raw.gene_names == ('S0', 'S0-1', 'S1', 'S2', 'S3', 'S0-2')
  assert '2 repeats of 1 names were numbered' in raw.notes[0]


def test_make_unique_does_not_collide_or_touch_the_input():
  adata = make()
  names = ['c', 'c', 'c-1', 'c', *(f'd{k}' for k in range(20))]
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')  # anndata warns of the repeats.
    adata.obs_names = names
  refused(adata, 'cell names .*1 occur more than once')
  raw = take(adata, make_unique=True)
  assert raw.cell_names[:4].tolist() == ['c', 'c-2', 'c-1', 'c-3']
  assert raw.obs.index[1] == 'c-2'
  assert adata.obs_names.tolist() == names


def test_gene_subset_keeps_the_order_of_the_file():
  raw = take(make(), genes=['G3', 'G0'])
  assert raw.gene_names == ('G0', 'G3')
  np.testing.assert_array_equal(raw.X.toarray(), make().X.toarray()[:, [0, 3]])
  assert '2 of 6 genes kept' in raw.notes[0]
  refused(make(), "'Z'", genes=['G0', 'Z'])
  partial = take(make(), genes=['G0', 'Z'], allow_missing_genes=True)
  assert partial.gene_names == ('G0',)
  refused(make(), 'none of the 1', genes=['Z'], allow_missing_genes=True)
  refused(make(), 'expected a list', genes='G0')


def test_zero_cells_are_counted_or_refused():
  adata = make()
  values = adata.X.toarray()
  values[[1, 7]] = 0
  adata.X = sparse.csr_matrix(values)
  raw = take(adata)
  assert raw.X.shape == (22, 6)
  assert raw.counts is raw.X
  assert raw.obs.shape[0] == raw.condition_ids.shape[0] == 22
  assert 'cell1' not in raw.cell_names
  assert '2 cells without any count were dropped' in raw.notes
  refused(adata, "2 cells have no count.*'cell1', 'cell7'", zero_cells='error')
  refused(adata, "allowed: 'drop', 'error'", zero_cells='keep')


def test_min_cells_excludes_conditions_with_a_note():
  adata = make()
  labels = adata.obs['condition'].astype(str)
  labels.iloc[-1] = 'rare'
  adata.obs['condition'] = labels
  raw = take(adata, min_cells=2)
  assert 'rare' not in raw.conditions.names
  assert raw.X.shape[0] == 23
  assert any(
    "1 cells of 1 conditions with fewer than 2 cells were dropped: 'rare'"
    in note
    for note in raw.notes
  )
  assert raw.condition_ids.max() == len(raw.conditions.names) - 1
  refused(adata, 'only one condition', min_cells=100)
  few = labels.replace('control', 'A')
  few.iloc[[0, 12]] = 'control'
  adata.obs['condition'] = few
  kept = take(adata, min_cells=3)
  assert kept.conditions.names == ('control', 'A', 'A+B', 'B')
  assert (kept.condition_ids == 0).sum() == 2


def test_groups_without_control():
  adata = make()
  labels = adata.obs['condition'].astype(str)
  labels[(labels == 'control') & (adata.obs['cell_type'] == 'tb')] = 'A'
  adata.obs['condition'] = labels
  refused(adata, r"1 of 2 groups of cell_type .*'tb \(12 cells\)'")
  raw = take(adata, drop_groups_without_control=True)
  assert raw.groups == (('ta',),)
  assert raw.covariates == {'cell_type': ('ta',)}
  assert raw.X.shape[0] == 12
  assert '12 cells of 1 groups without control were dropped' in raw.notes[0]


def test_no_control_and_only_control():
  adata = make()
  refused(
    adata,
    "AnnData: .*'cell0'.*not among the control labels",
    convention=conventions.make('perturbench', control='DMSO'),
  )
  labels = adata.obs['condition'].astype(str)
  adata.obs['condition'] = labels.replace('control', 'Control')
  refused(
    adata,
    r"no control cell: none of \('DMSO',\).*most frequent are .*'A' \(6\)",
    convention=conventions.make('perturbench', control='DMSO'),
  )
  adata.obs['condition'] = 'control'
  refused(adata, 'only one condition')


@pytest.mark.parametrize(
  ('options', 'words'),
  [
    ({'covariates': ['celltype']}, "no column 'celltype'.*'cell_type'"),
    ({'layer': 'count'}, "no layer 'count'; closest: 'counts'"),
    ({'counts_layer': 'count'}, "no layer 'count'"),
    (
      {'convention': conventions.make('perturbench', key='conditions')},
      "no column 'conditions' .key.*closest: 'condition'",
    ),
    (
      {'convention': conventions.make('perturbench', dose_key='dose')},
      "no column 'dose' .dose_key",
    ),
    (
      {'convention': conventions.make('perturbench', gene_names='symbols')},
      "var has no column 'symbols'.*closest: 'symbol'",
    ),
  ],
)
def test_missing_keys_name_the_closest(options, words):
  adata = make()
  adata.layers['counts'] = adata.X.copy()
  refused(adata, words, **options)


def test_missing_values_in_labels_and_covariates():
  adata = make()
  adata.obs.loc['cell3', 'cell_type'] = None
  refused(adata, "covariate 'cell_type' is missing for 1 of 24.*'cell3'")
  adata = make()
  adata.obs.loc['cell3', 'condition'] = None
  refused(adata, "1 of 24 cells have no label.*'cell3'")


def test_names_must_be_strings():
  adata = make()
  adata.var['number'] = range(6)
  convention = conventions.make('perturbench', gene_names='number')
  refused(adata, '6 of 6 are not names.*non-empty', convention=convention)
  adata.var['symbol'] = ['a', None, 'c', 'd', 'e', '']
  convention = conventions.make('perturbench', gene_names='symbol')
  refused(adata, '2 of 6 are not names', convention=convention)


def test_no_matrix_and_empty_data():
  nothing = make()
  refused(make(X=None), 'X: there is none')
  nothing.X = sparse.csr_matrix((24, 6), dtype=np.float32)
  refused(nothing, 'every value is 0')
  refused(make()[:0].copy(), '0 cells and 6 genes')
  refused(make()[:, :0].copy(), '24 cells and 0 genes')


def test_unknown_options_are_refused():
  with pytest.raises(TypeError, match='layr'):
    take(make(), layr='counts')


def test_files_that_are_none(tmp_path):
  def read(path):
    return h5ad.read(path, convention=PERTURBENCH, scale='counts')

  make().write_h5ad(tmp_path / 'norman.h5ad')
  with pytest.raises(FileNotFoundError, match="closest: 'norman.h5ad'"):
    read(tmp_path / 'normann.h5ad')
  with pytest.raises(IsADirectoryError, match='a directory'):
    read(tmp_path)
  text = tmp_path / 'text.h5ad'
  text.write_text('not hdf5')
  with pytest.raises(ValueError, match=r'text.h5ad: not an HDF5 file \(8 byt'):
    read(text)
  whole = (tmp_path / 'norman.h5ad').read_bytes()
  (tmp_path / 'half.h5ad').write_bytes(whole[: len(whole) // 2])
  with pytest.raises(
    ValueError, match='half.h5ad: cannot be read; is it trunc'
  ):
    read(tmp_path / 'half.h5ad')
  with h5py.File(tmp_path / 'other.h5ad', 'w') as file:
    file['x'] = np.zeros(3)
  with pytest.raises(ValueError, match="no obs and no var in it; it has 'x'"):
    read(tmp_path / 'other.h5ad')
  with h5py.File(tmp_path / 'norman.h5ad', 'a') as file:
    del file['X']
  with pytest.raises(ValueError, match='norman.h5ad, X: there is none'):
    read(tmp_path / 'norman.h5ad')


def test_cheap_checks_come_before_the_matrix():
  adata = make()
  adata.X.data[0] = np.nan
  refused(adata, 'no column', covariates=['line'])
  refused(adata, 'only one condition', min_cells=100)
  refused(adata, 'NaN')


@pytest.mark.parametrize(
  ('file', 'changes', 'shape', 'num_conditions', 'num_groups'),
  [
    ('norman_k562_500g.h5ad', {'dose_key': 'dose'}, (3375, 500), 34, 1),
    ('mcfaline_gbm_500g.h5ad', {}, (2586, 500), 10, 3),
    ('kang_ifnb_2000g.h5ad', {'control': 'ctrl'}, (13999, 2002), 2, 11),
    ('norman_semisynthetic_1530g.h5ad', {}, (26135, 1530), 170, 1),
  ],
)
def test_real_files(
  shared_data, file, changes, shape, num_conditions, num_groups
):
  raw = h5ad.read(
    shared_data / file,
    convention=conventions.make('perturbench', **changes),
    scale='counts',
  )
  assert raw.X.shape == shape
  assert len(raw.conditions.names) == num_conditions
  assert len(raw.groups) == num_groups
  assert (np.bincount(raw.condition_ids, minlength=num_conditions) > 0).all()
  assert raw.notes == ()
