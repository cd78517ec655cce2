"""The catalogue's entries."""

import pytest
from toy_dataset import make_entry

from pertjax.data import catalog, conventions


def test_names_are_sorted_and_found():
  names = catalog.names()
  assert list(names) == sorted(names)
  assert len(names) >= 20
  assert all(catalog.get(name).name == name for name in names)


def test_datasets_that_are_promised():
  have = ' '.join(catalog.names())
  for wanted in (
    *('norman2019_gears', 'norman2019_scperturb', 'norman2019_cpa'),
    *('adamson2016_gears', 'dixit2016_gears', 'replogle2022_k562_gears'),
    *('replogle2022_rpe1_gears', 'kang2018', 'srivatsan2020', 'nault2021'),
    *('frangieh2021', 'mcfaline2023', 'norman2019_perturbench'),
  ):
    assert wanted in have


def test_an_unknown_name_is_refused_with_the_closest():
  with pytest.raises(ValueError, match='closest: norman2019_gears'):
    catalog.get('norman_gears')
  with pytest.raises(ValueError, match='allowed: adamson2016_gears'):
    catalog.fetch('?')


@pytest.mark.parametrize('name', catalog.names())
def test_entries_say_what_a_reader_needs(name):
  entry = catalog.get(name)
  assert entry.title
  assert entry.licence
  assert entry.key
  assert 'doi:' in entry.reference or 'openreview' in entry.reference
  if entry.url is None:
    assert entry.manual
  else:
    assert entry.url.startswith('https://')
  if entry.sha256 is None and entry.md5 is None and entry.url is not None:
    assert any(note.startswith('unverified') for note in entry.notes)
  assert (entry.preset == 'gears') == (entry.gene_names == 'gene_name')
  assert entry.local_name.endswith('.h5ad')


@pytest.mark.parametrize('name', catalog.names())
def test_entries_make_a_convention(name):
  entry = catalog.get(name)
  changes = {} if entry.separator == '' else {'separator': entry.separator}
  made = conventions.make(
    entry.preset or 'custom',
    key=entry.key,
    control=entry.control,
    covariates=entry.covariates,
    gene_names=entry.gene_names,
    dose_key=entry.dose,
    **changes,
  )
  pair = 'A+,_B' if made.separator is None else f'B{made.separator}A'
  parsed = conventions.parse_labels(
    [entry.control, pair], convention=made._replace(dose_key=None)
  )
  tokens = ('A+,_B',) if made.separator is None else ('A', 'B')
  assert parsed.conditions.tokens == ((), tokens)


def test_known_faults_are_named():
  notes = catalog.get('norman2019_gears').notes
  assert any('A549' in note and 'K562' in note for note in notes)


def test_describe_has_a_row_for_each_dataset():
  table = catalog.describe()
  assert tuple(table['name']) == catalog.names()
  by_name = table.set_index('name')
  assert by_name.loc['nault2021', 'download'] == 'by hand'
  assert by_name.loc['norman2019_gears', 'MB'] == 169
  assert by_name['MB'].isna().any()


@pytest.mark.parametrize(
  ('changes', 'field'),
  [
    ({'name': 'No Blanks'}, 'name'),
    ({'filename': 'up/a.h5ad'}, 'filename'),
    ({'filename': 'a.csv'}, 'filename'),
    ({'filename': 'a.zip'}, 'member'),
    ({'member': 'a.h5ad'}, 'member'),
    ({'preset': 'pertubench'}, 'preset'),
    ({'preset': None}, 'separator'),
    ({'scale': 'tpm'}, 'scale'),
    ({'url': None}, 'manual'),
    ({'sha256': 'abc'}, 'sha256'),
    ({'md5': 'A' * 32}, 'md5'),
  ],
)
def test_an_unsound_entry_is_refused(changes, field):
  with pytest.raises(ValueError, match=f"dataset '.*': {field} is"):
    make_entry(**{'url': 'https://example.org/a', **changes})


def test_the_cache_is_the_argument_or_the_variable(tmp_path, monkeypatch):
  monkeypatch.setenv('PERTJAX_CACHE', str(tmp_path / 'variable'))
  assert catalog.cache_folder() == tmp_path / 'variable'
  assert catalog.cache_folder(tmp_path) == tmp_path
  path = catalog.local_path('norman2019_gears')
  folder = tmp_path / 'variable' / 'norman2019_gears'
  assert path == folder / 'perturb_processed.h5ad'
  monkeypatch.delenv('PERTJAX_CACHE')
  assert catalog.cache_folder().name == 'pertjax'
