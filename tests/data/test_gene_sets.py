"""Gene sets: files, other names of genes, filters, and what becomes of all."""

import gzip
import json
import types as builtin_types

import h5py
import numpy as np
import pytest

from pertjax import config as config_lib
from pertjax import data as data_lib
from pertjax.data import (
  gene_ids,
  gene_ontology,
  gene_patterns,
  gene_set_files,
  gene_set_report,
  gene_sets,
  text_tables,
)

GENES = tuple(f'G{k}' for k in range(12))


def write(path, *rows, compress=False):
  """Writes rows of fields, tab-separated; returns the path as a string."""
  text = ''.join('\t'.join(map(str, row)) + '\n' for row in rows)
  path.write_bytes(gzip.compress(text.encode()) if compress else text.encode())
  return str(path)


def gmt(tmp_path, name='a.gmt', **sets):
  rows = [(key, f'name of {key}', *genes) for key, genes in sets.items()]
  return write(tmp_path / name, *rows)


def select(spec, genes=GENES, **options):
  return gene_sets.select(gene_sets.request(spec, **options), genes)


def refusal(kind, function, *args, **options):
  with pytest.raises(kind) as caught:
    function(*args, **options)
  return str(caught.value)


# Files.


@pytest.mark.parametrize('compress', [False, True])
def test_gmt_is_read_plain_or_compressed(tmp_path, compress):
  path = write(
    tmp_path / ('a.gmt.gz' if compress else 'a.gmt'),
    ('S2', 'second', 'B', 'A', 'B', ''),
    ('# a comment',),
    ('S1', '', ' C '),
    ('S1', '', 'C'),
    compress=compress,
  )
  found = gene_set_files.read_gmt(path)
  assert found.sets == {'S2': ('second', ('B', 'A')), 'S1': ('', ('C',))}
  name = tmp_path.joinpath(path).name
  assert found.notes == (
    f'{name}: 1 comment lines were skipped',
    f'{name}: 1 empty fields were skipped',
    f'{name}: 1 genes repeated in a set were removed',
    f'{name}: 1 repeated sets were removed',
  )
  ((file, sha256),) = found.files
  assert file == name
  assert len(sha256) == 64


def test_gmt_label_of_the_source_is_no_gene(tmp_path):
  rows = [(f'S{k}', 'R-1', 'Reactome Pathway', f'G{k}') for k in range(3)]
  found = gene_set_files.read_gmt(write(tmp_path / 'a.gmt', *rows))
  assert [s.genes for s in found.sets.values()] == [('G0',), ('G1',), ('G2',)]
  assert "'Reactome Pathway' in field 3 of all 3 lines" in found.notes[0]
  # A gene that all sets share is one: it has no space.
  rows = [(f'S{k}', 'R-1', 'TP53', f'G{k}') for k in range(3)]
  found = gene_set_files.read_gmt(write(tmp_path / 'b.gmt', *rows))
  assert found.sets['S0'].genes == ('TP53', 'G0')


@pytest.mark.parametrize(
  'rows',
  [
    [('S1', 'A'), ('S1', 'B'), ('S2', 'SET'), ('S1', 'A')],
    [('PathwayID', 'Symbol'), ('S1', 'A'), ('S1', 'B'), ('S2', 'SET')],
    [('Symbol', 'PathwayID'), ('A', 'S1'), ('B', 'S1'), ('SET', 'S2')],
    # R: a header of two names over rows of three fields, quoted or not.
    [('set', 'gene'), (1, 'S1', 'A'), (2, 'S1', 'B'), (3, 'S2', 'SET')],
    [('"x"', '"y"'), ('"1"', '"S1"', '"A"'), ('"2"', '"S1"', '"B"')]
    + [('"3"', '"S2"', '"SET"')],
    [(1, 'S1', 'A'), (2, 'S1', 'B'), (3, 'S2', 'SET')],
    [('gene', 'entrez', 'go_id', 'evidence')]
    + [('A', 1, 'S1', 'x'), ('B', 2, 'S1', 'x'), ('SET', 3, 'S2', 'x')],
  ],
)
def test_table_of_pairs_in_its_variants(tmp_path, rows):
  found = gene_set_files.read_tsv(write(tmp_path / 'a.tsv', *rows))
  assert {k: s.genes for k, s in found.sets.items()} == {
    'S1': ('A', 'B'),
    'S2': ('SET',),
  }
  repeated = any('1 repeated rows were removed' in n for n in found.notes)
  assert repeated == (rows[0] == rows[-1])


def test_a_gene_called_set_is_no_header(tmp_path):
  path = write(tmp_path / 'a.tsv', ('S1', 'SET'), ('S1', 'GO'))
  assert gene_set_files.read_tsv(path).sets['S1'].genes == ('SET', 'GO')


def test_byte_order_mark_and_line_ends_of_windows(tmp_path):
  (tmp_path / 'a.tsv').write_bytes(b'\xef\xbb\xbfS1\tA\r\n\r\nS1\tB\r\n')
  found = gene_set_files.read_tsv(tmp_path / 'a.tsv')
  assert found.sets == {'S1': ('', ('A', 'B'))}


@pytest.mark.parametrize(
  ('name', 'content', 'words'),
  [
    ('a.gmt', b'', ('a.gmt', 'empty file', '0 bytes')),
    ('a.gmt', b'\n \n', ('empty file',)),
    ('a.gmt', b'# nothing\n', ('no gene set in 1 lines',)),
    ('a.gmt', b'S\tx\tA\nS2\tx\n', ('line 2', '2 tab-separated', 'gene, ...')),
    ('a.gmt', b'S x A\n', ('line 1', "'S x A'")),
    ('a.gmt', b'\tx\tA\n', ('line 1', 'no id')),
    ('a.gmt', b'S\tx\tA\nS\tx\tB\n', ('line 2', "'S'", 'line 1', 'unique')),
    ('a.gmt', b'S\tx\tA\nS\xff\tx\tB\n', ('line 2', 'UTF-8')),
    ('a.gmt.gz', b'S\tx\tA\n', ('not a gzip file', "b'S\\tx\\tA")),
    ('a.gmt.gz', gzip.compress(b'S\tx\tA' * 99, mtime=0)[:-9], ('truncated',)),
    ('a.tsv', b'S\tA\nS\tA\tB\n', ('line 2', '3 tab-separated', '2 on line 1')),
    ('a.tsv', b'S\tA\tB\n', ('line 1', '3 column(s)', 'without a header')),
    ('a.tsv', b'set\tgene\n', ('a header and no row',)),
    ('a.tsv', b'set\tgene\tx\nS\n', ('line 2', '1 tab', 'header of 3')),
    ('a.tsv', b'set\tx\ty\ngene\tb\tc\n', ('line 1', '3 column(s)')),
    ('a.tsv', b'S\tA\n\tB\n', ('line 2', 'no id', "'B'")),
    ('a.tsv', b'S\t\n', ('no row has a gene',)),
  ],
)
def test_bad_files_are_named_with_their_line(tmp_path, name, content, words):
  path = tmp_path / name
  path.write_bytes(content)
  message = refusal(ValueError, gene_sets.read, str(path))
  assert str(path) in message
  for word in words:
    assert word in message


def test_missing_files_are_named_with_those_beside(tmp_path):
  gmt(tmp_path, 'pathways.gmt', S=['A'])
  message = refusal(
    FileNotFoundError, gene_sets.read, str(tmp_path / 'pathway.gmt')
  )
  assert "closest: 'pathways.gmt'" in message
  (tmp_path / 'b.gmt').mkdir()
  refusal(IsADirectoryError, gene_sets.read, str(tmp_path / 'b.gmt'))


@pytest.mark.parametrize(
  ('spec', 'words'),
  [
    ('a.csv', ("'a.csv'", '.gmt, .tsv', 'tsv:FILE')),
    ('gtm:a.gz', ("'gtm'", 'closest: gmt', 'tsv, go')),
    ('go:a', ('1 file(s)', 'go:ANNOTATION,GRAPH,TERMS')),
    ('go:a,,b', ('3 file(s)',)),
  ],
)
def test_bad_specs_say_what_is_allowed(spec, words):
  message = refusal(ValueError, gene_sets.parse, spec)
  for word in words:
    assert word in message


def test_specs_name_kind_and_files():
  assert gene_sets.parse('x/A.GMT.gz') == ('gmt', ('x/A.GMT.gz',))
  assert gene_sets.parse('C:\\x.tsv') == ('tsv', ('C:\\x.tsv',))
  assert gene_sets.parse('gmt:x.dat') == ('gmt', ('x.dat',))
  assert gene_sets.parse('go:a, b') == ('go', ('a', 'b'))


# Other names.


def tables(tmp_path):
  ids = write(
    tmp_path / 'ids.tsv',
    ('symbol', 'entrez', 'ensembl_id'),
    ('AAA', 1, 'ENSG00000000001'),
    ('BBB', 2, 'ENSG00000000002'),
    ('CCC', 3, 'ENSG00000000003'),
    ('CCC', 3, 'ENSG00000000033'),
    ('DDD', 4, ''),
    ('EEE', 5, 'ENSG00000000005'),
  )
  aliases = write(
    tmp_path / 'aliases.tsv',
    ('entrez', 'symbol', 'alias_symbol'),
    (1, 'AAA', 'OLDA'),
    (2, 'BBB', 'TWO'),
    (3, 'CCC', 'TWO'),
    (4, 'DDD', 'AAA'),  # Also a symbol, and that is what it means.
    (5, 'EEE', 'OLDE'),
  )
  return ids, aliases


def test_symbols_reach_ensembl_ids_and_back(tmp_path):
  ids = gene_ids.read(tables(tmp_path))
  data = ['ENSG00000000002.7', 'ENSG00000000001.12', 'ENSG00000000003']
  found = gene_ids.match(['AAA', 'BBB', 'OLDA', 'CCC', 'DDD'], data, ids)
  assert found.columns == {'AAA': 1, 'BBB': 0, 'OLDA': 1, 'CCC': 2}
  assert found.rules['AAA'] == 'id table'
  assert found.rules['OLDA'] == 'alias'
  assert found.unmatched == ('DDD',)
  assert found.data == ('Ensembl', 3, 3)
  assert found.file == ('symbol', 4, 5)
  back = gene_ids.match(data, ['AAA', 'CCC'], ids)
  assert back.columns == {data[1]: 0, data[2]: 1}
  entrez = gene_ids.match(['1', '3'], ['AAA', 'CCC'], ids)
  assert entrez.columns == {'1': 0, '3': 1}
  assert entrez.file.kind == 'Entrez'


def test_versions_of_ensembl_ids_are_ignored():
  found = gene_ids.match(
    ['ENSG00000000001', 'ENSG00000000002.3', 'AC0001.2', 'ENSG00000000009.1'],
    ['ENSG00000000001.5', 'ENSG00000000002', 'AC0001.3']
    + ['ENSG00000000009.3', 'ENSG00000000009.4'],
  )
  assert found.columns == {'ENSG00000000001': 0, 'ENSG00000000002.3': 1}
  assert set(found.rules.values()) == {'Ensembl version'}
  assert found.unmatched == ('AC0001.2',)
  assert found.ambiguous == {
    'ENSG00000000009.1': ('ENSG00000000009.3', 'ENSG00000000009.4')
  }
  assert found.data.kind == found.file.kind == 'Ensembl'


def test_ambiguous_names_are_listed_and_not_guessed(tmp_path):
  ids = gene_ids.read(tables(tmp_path))
  # TWO is an alias of two symbols, in the file and in the data; CCC has two
  # Ensembl ids, both measured.
  found = gene_ids.match(['TWO', 'AAA'], ['BBB', 'AAA'], ids)
  assert found.ambiguous == {'TWO': ('BBB', 'CCC')}
  assert found.columns == {'AAA': 1}
  found = gene_ids.match(['BBB', 'AAA'], ['TWO', 'AAA'], ids)
  assert found.ambiguous_data == {'TWO': ('BBB', 'CCC')}
  assert found.unmatched == ('BBB',)
  found = gene_ids.match(['CCC'], ['ENSG00000000003', 'ENSG00000000033'], ids)
  assert found.ambiguous['CCC'] == ('ENSG00000000003', 'ENSG00000000033')
  # As written in both: nothing to guess.
  found = gene_ids.match(['TWO'], ['TWO'], ids)
  assert found.columns == {'TWO': 0}
  assert found.ambiguous == found.ambiguous_data == {}
  # None of what it could be is measured: it is missing, not ambiguous.
  found = gene_ids.match(['TWO'], ['AAA'], ids)
  assert found.unmatched == ('TWO',)


def test_aliases_work_in_both_directions_and_symbols_win(tmp_path):
  ids = gene_ids.read(tables(tmp_path))
  found = gene_ids.match(['OLDA', 'EEE'], ['AAA', 'OLDE'], ids)
  assert found.columns == {'OLDA': 0, 'EEE': 1}
  assert set(found.rules.values()) == {'alias'}
  # AAA is an alias of DDD, too.
  assert gene_ids.match(['AAA'], ['DDD'], ids).unmatched == ('AAA',)
  assert gene_ids.match(['DDD'], ['AAA'], ids).unmatched == ('DDD',)


def test_letter_case_is_the_last_resort(tmp_path):
  found = gene_ids.match(
    ['ACTB', 'TP53', 'DUP'], ['Actb', 'TP53', 'dup', 'Dup']
  )
  assert found.columns == {'TP53': 1, 'ACTB': 0}
  assert found.rules['ACTB'] == 'letter case'
  assert found.ambiguous == {'DUP': ('dup', 'Dup')}
  spec = gmt(tmp_path, S=['ACTB', 'TP53', 'MYC'])
  lines = gene_set_report.lines(
    select(spec, ['Actb', 'Tp53', 'MYC'], min_genes=1).coverage
  )
  (line,) = (line for line in lines if 'letter case is' in line)
  assert '2 names' in line
  assert 'ACTB, TP53' in line
  assert 'another species?' in line


def test_table_of_ids_with_row_numbers_and_gaps(tmp_path):
  path = write(
    tmp_path / 'map.tsv',
    ('ensembl_gene_id', 'external_gene_name'),
    (1, 'ENSG00000000001', 'AAA'),
    (2, 'ENSG00000000002', ''),
    (3, 'ENSG00000000003', 'AAA'),
  )
  ids = gene_ids.read([path])
  assert ids.symbols['AAA'] == ('AAA',)
  assert ids.symbols['ENSG00000000002'] == ('ENSG00000000002',)
  assert 'row number' in ids.notes[0]
  found = gene_ids.match(['AAA'], ['ENSG00000000003.1', 'X'], ids)
  assert found.columns == {'AAA': 0}


def test_table_of_ids_without_two_vocabularies_is_refused(tmp_path):
  path = write(tmp_path / 'x.tsv', ('symbol', 'chromosome'), ('A', 1))
  message = refusal(ValueError, gene_ids.read, [path])
  assert 'x.tsv' in message
  assert 'symbol' in message
  assert 'alias_symbol' in message


# Filters.


def test_filters_of_the_published_model(tmp_path):
  # Item 16 of its parity list: five genes in the data are enough, four are
  # not; a set off the list leaves; order by id; genes of the data stay all.
  sets = {
    'GO:9': GENES[:5] + ('elsewhere',),
    'GO:10': GENES[3:9],
    'GO:3': GENES[:4] + ('elsewhere', 'nowhere'),
    'hsa00010': GENES,
    'GO:7': ('elsewhere',),
  }
  rows = [('PathwayID', 'Symbol')]
  rows += [(key, gene) for key, genes in sets.items() for gene in genes]
  rows += [('GO:3', 'G0'), ('GO:3', 'G1')]  # Twice: they must not make five.
  allow = write(
    tmp_path / 'top.tsv',
    ('PathwayID', 'topGO'),
    *((key, 'GO:0009987') for key in (*sets, 'GO:8') if key != 'hsa00010'),
    ('GO:9', 'GO:0065007'),
  )
  found = select(write(tmp_path / 'map.tsv', *rows), allow=allow)
  assert found.columns == {'GO:10': (3, 4, 5, 6, 7, 8), 'GO:9': (0, 1, 2, 3, 4)}
  assert list(found.columns) == ['GO:10', 'GO:9']
  coverage = found.coverage
  assert coverage.left == {
    gene_set_report.TOO_SMALL: ('GO:3',),
    gene_set_report.NO_GENE: ('GO:7',),
    gene_set_report.NOT_ALLOWED: ('hsa00010',),
  }
  assert coverage.num_genes == len(GENES) == 12
  assert coverage.in_no_set == ('G9', 'G10', 'G11')
  assert coverage.sizes == (5, 5.5, 6)
  assert coverage.absent == ('GO:8',)
  lines = gene_set_report.lines(coverage)
  assert lines[0] == 'gene sets: map.tsv: 2 repeated rows were removed'
  assert lines[1] == (
    'gene sets: 2 of 5 sets of map.tsv kept, sizes 5 to 6 (median 5.5); left '
    'out: 1 with too few genes of the data (< 5), 1 without a gene of the '
    'data, 1 not on the list of allowed sets'
  )
  assert '12 of 12 genes of the data are in the file, 9 in kept' in lines[2]
  assert '3 in none: G9, G10, G11' in lines[2]
  assert '12 of 14 names of the file (symbols)' in lines[3]
  assert '2 are not: elsewhere, nowhere' in lines[3]
  assert lines[4].endswith('1 allowed sets are not in the file: GO:8')


def test_sizes_are_limited_on_both_sides(tmp_path):
  spec = gmt(tmp_path, a=GENES[:2], b=GENES[:3], c=GENES[:4], d=GENES[:5])
  assert list(select(spec, min_genes=3, max_genes=4).columns) == ['b', 'c']
  found = select(spec, min_genes=1, max_genes=4)
  assert found.coverage.left == {gene_set_report.TOO_LARGE: ('d',)}
  assert list(select(spec, min_genes=1).columns) == ['a', 'b', 'c', 'd']
  for low, high in ((0, 0), (5, 4)):
    message = refusal(
      ValueError, gene_sets.request, spec, min_genes=low, max_genes=high
    )
    assert f'gene_set_min is {low} and gene_set_max {high}' in message


def test_identical_sets_are_merged_only_when_asked(tmp_path):
  # The same in the data only: their other genes are not measured.
  spec = gmt(
    tmp_path, b=['G1', 'G2', 'x'], a=['G2', 'G1'], c=['G1'], d=['y', 'G1', 'G2']
  )
  assert list(select(spec, min_genes=1).columns) == ['a', 'b', 'c', 'd']
  found = select(spec, min_genes=1, merge=True)
  assert found.columns == {'a': (1, 2), 'c': (1,)}
  assert found.coverage.merged == {'a': ('b', 'd')}
  assert found.coverage.left == {gene_set_report.IDENTICAL: ('b', 'd')}
  assert found.names['a'] == 'name of a'


def test_two_names_of_one_gene_count_once_in_a_set(tmp_path):
  spec = gmt(tmp_path, S=['AAA', 'OLDA', 'BBB'], T=['AAA', 'BBB', 'EEE'])
  found = select(spec, ['AAA', 'BBB', 'EEE'], min_genes=3, ids=tables(tmp_path))
  assert found.columns == {'T': (0, 1, 2)}
  assert found.coverage.repeated == 1
  assert any('1 members' in s for s in gene_set_report.lines(found.coverage))


def test_no_common_gene_shows_both_vocabularies(tmp_path):
  spec = gmt(tmp_path, S=['TP53', 'MYC', 'KRAS'])
  genes = [f'ENSG0000000000{k}.1' for k in range(3)]
  message = refusal(ValueError, select, spec, genes)
  for word in (
    'a.gmt: none of the 3 genes',
    "symbols: 'TP53', 'MYC', 'KRAS'",
    "Ensembl ids: 'ENSG00000000000.1'",
    'data.gene_set_ids',
  ):
    assert word in message


def test_no_set_left_says_why(tmp_path):
  spec = gmt(tmp_path, S=GENES[:4], T=['x'])
  message = refusal(ValueError, select, spec)
  assert 'none of 2 gene sets is left' in message
  assert '1 with too few genes of the data (< 5)' in message
  allow = write(tmp_path / 'allow.txt', ('other',))
  message = refusal(ValueError, select, spec, allow=allow)
  assert '2 not on the list of allowed sets' in message


def test_result_does_not_depend_on_the_order_of_the_file(tmp_path):
  rows = [(f'S{k % 3}', f'G{k}') for k in range(12)]
  one = select(write(tmp_path / 'a.tsv', *rows), min_genes=1)
  other = select(write(tmp_path / 'b.tsv', *rows[::-1]), min_genes=1)
  assert list(one.columns.items()) == list(other.columns.items())


# Gene Ontology.


def ontology(tmp_path, edges=(), terms=None, **changes):
  annotation = changes.pop(
    'annotation',
    [
      ('A', 'GO:c', 'IDA'), ('A', 'GO:c', 'IEA'), ('B', 'GO:b', 'IDA'),
      ('C', 'GO:r', 'TAS'), ('D', 'GO:root', 'ND'), ('E', 'GO:x', 'IDA'),
      ('F', 'GO:gone', 'IDA'),
    ],
  )  # fmt: skip
  paths = [
    write(
      tmp_path / 'annotation.tsv', ('symbol', 'go_id', 'evidence'), *annotation
    ),
    write(
      tmp_path / 'edges.tsv',
      ('child', 'parent', 'rel'),
      ('GO:b', 'GO:root', 'isa'), ('GO:c', 'GO:b', 'part of'),
      ('GO:c', 'GO:a', 'is_a'), ('GO:a', 'GO:root', 'isa'),
      ('GO:r', 'GO:b', 'positively regulates'), ('GO:r', 'GO:root', 'isa'),
      ('GO:gone', 'GO:a', 'isa'), *edges,
    ),
    write(
      tmp_path / 'terms.tsv',
      ('go_id', 'term', 'ontology'),
      *((f'GO:{k}', f'the {k}', 'BP') for k in ('root', 'a', 'b', 'c', 'r')),
      ('GO:gone', 'obsolete process', 'BP'),
    ),
  ]  # fmt: skip
  return ','.join(paths)


def test_annotations_rise_over_is_a_and_part_of(tmp_path):
  found = gene_sets.read('go:' + ontology(tmp_path))
  assert {k: s.genes for k, s in found.sets.items()} == {
    'GO:a': ('A',),
    'GO:b': ('A', 'B'),
    'GO:c': ('A',),
    'GO:r': ('C',),
    'GO:root': ('A', 'B', 'C'),
  }
  assert found.sets['GO:b'].name == 'the b'
  notes = ' '.join(found.notes)
  for words in (
    '1 rows with evidence ND left out',
    '1 repeated rows were removed',
    'not followed: 1 positively_regulates',
    '1 annotations of 1 obsolete terms left out: GO:gone',
    '1 annotations of 1 unknown terms left out: GO:x',
  ):
    assert words in notes
  assert [name for name, _ in found.files] == [
    'annotation.tsv', 'edges.tsv', 'terms.tsv'
  ]  # fmt: skip


def test_regulation_is_followed_when_asked(tmp_path):
  found = gene_sets.read('go-regulates:' + ontology(tmp_path))
  assert found.sets['GO:b'].genes == ('A', 'B', 'C')
  assert found.sets['GO:a'].genes == ('A',)


def test_propagation_agrees_with_walking_every_path():
  generator = np.random.default_rng(0)
  terms = [f't{k:02}' for k in range(30)]
  parents = {
    terms[k]: tuple(
      terms[j] for j in generator.choice(k, min(k, 2), replace=False)
    )
    for k in range(1, 30)
  }
  genes = {
    terms[k]: tuple(f'g{n}' for n in generator.choice(40, 3, replace=False))
    for k in range(5, 30, 2)
  }
  expected = {}

  def walk(term, members):
    expected.setdefault(term, set()).update(members)
    for parent in parents.get(term, ()):
      walk(parent, members)

  for term, members in genes.items():
    walk(term, members)
  found = gene_ontology.propagate(genes, parents)
  assert found == {k: tuple(sorted(v)) for k, v in sorted(expected.items())}
  assert list(found) == sorted(expected)


def test_a_cycle_of_terms_is_an_error_that_names_them(tmp_path):
  paths = ontology(tmp_path, edges=[('GO:b', 'GO:c', 'isa')])
  message = refusal(ValueError, gene_sets.read, 'go:' + paths)
  assert 'cycle of 2' in message
  assert 'GO:b' in message
  assert 'GO:c' in message


def test_annotation_that_says_not_is_left_out(tmp_path):
  path = write(
    tmp_path / 'a.tsv',
    ('symbol', 'qualifier', 'go_id'),
    ('A', 'involved_in', 'GO:1'),
    ('B', 'NOT|involved_in', 'GO:1'),
  )
  found = gene_ontology.read_annotations(path)
  assert found.genes == {'GO:1': ('A',)}
  assert found.notes == ('a.tsv: 1 rows that say NOT left out',)


@pytest.mark.parametrize(
  ('which', 'header', 'words'),
  [
    (0, 'symbol\tterms\tevidence', ('annotation.tsv', 'the term', 'go_id')),
    (1, 'child\tabove\trel', ('edges.tsv', 'the term above it', 'parent')),
    (2, 'go_id\tlabel\tontology', ('terms.tsv', 'its name', 'term')),
  ],
)
def test_missing_columns_are_named(tmp_path, which, header, words):
  paths = ontology(tmp_path).split(',')
  _, *rest = (tmp_path / paths[which]).read_text().splitlines()
  (tmp_path / paths[which]).write_text('\n'.join([header, *rest]))
  message = refusal(ValueError, gene_sets.read, 'go:' + ','.join(paths))
  for word in words:
    assert word in message


def test_no_relation_to_follow_names_those_there_are(tmp_path):
  path = write(
    tmp_path / 'e.tsv', ('child', 'parent', 'rel'), ('a', 'b', 'has part')
  )
  message = refusal(ValueError, gene_ontology.read_graph, path)
  assert 'is_a, part_of' in message
  assert 'has_part' in message


# Arrays for models.


def test_three_forms_of_a_pattern_agree():
  sets = {'b': (3, 1), 'a': (0,), 'c': (1, 2, 3)}
  pairs = gene_patterns.pattern(sets, 5)
  assert pairs.sets.tolist() == [0, 0, 1, 2, 2, 2]
  assert pairs.genes.tolist() == [1, 3, 0, 1, 2, 3]
  table = gene_patterns.table(sets, 5)
  assert table.genes.tolist() == [[1, 3, 0], [0, 0, 0], [1, 2, 3]]
  assert table.mask.tolist() == [
    [True, True, False], [True, False, False], [True, True, True]
  ]  # fmt: skip
  matrix = gene_patterns.matrix(sets, 5)
  assert matrix.dtype == bool
  assert matrix.shape == (5, 3)
  assert not matrix[4].any()
  for array in (*pairs, table.genes):
    assert array.dtype == np.int32
  x = np.arange(10.0).reshape(2, 5)
  sums = np.zeros((2, 3))
  np.add.at(sums.T, pairs.sets, x.T[pairs.genes])
  np.testing.assert_array_equal(x @ matrix, sums)
  np.testing.assert_array_equal((x[:, table.genes] * table.mask).sum(-1), sums)


@pytest.mark.parametrize(
  ('sets', 'words'),
  [
    ({}, 'data.gene_sets'),
    ({'a': (0,), 'b': ()}, "1 have no gene of the data: 'b'"),
    ({'a': (0,), 'b': (1, 5)}, "'b' has the column 5; allowed: 0 to 4"),
    ({'a': (-1,)}, "'a' has the column -1"),
    ({'a': (2,), 'b': (2, 1, 2)}, "'b' has the column 2 twice"),
  ],
)
def test_impossible_patterns_are_refused(sets, words):
  assert words in refusal(ValueError, gene_patterns.pattern, sets, 5)


# From the config to the spec.


def config_with(tiny_config, **keys):
  config = tiny_config()
  config.data.update(keys)
  config_lib.validate(config)
  return config


def test_sets_of_a_file_replace_the_programs(tiny_config, tmp_path):
  programs = data_lib.load(config_with(tiny_config))[1]
  assert all(name.startswith('program_') for name in programs.gene_sets)
  assert 'gene_sets' not in programs.source
  spec = gmt(tmp_path, z=programs.genes[3:9], a=[*programs.genes[:5], 'x'])
  config = config_with(tiny_config, gene_sets=spec)
  found = data_lib.load(config)[1]
  assert list(found.gene_sets.items()) == [
    ('a', (0, 1, 2, 3, 4)),
    ('z', (3, 4, 5, 6, 7, 8)),
  ]
  assert found.genes == programs.genes
  assert found.fingerprint == programs.fingerprint
  record = found.source['gene_sets']
  assert json.loads(json.dumps(record)) == record
  assert record['files'][0]['file'] == 'a.gmt'
  assert record['files'][0]['sha256'] == text_tables.read_text(spec).sha256
  notes = [n for n in found.notes if n.startswith('gene sets:')]
  assert '2 of 2 sets of a.gmt kept' in notes[0]
  assert notes[-1] == 'gene sets: the 4 of the data itself are replaced'
  pairs = gene_patterns.pattern(found.gene_sets, found.num_genes)
  assert pairs.genes.size == 11


def test_wrong_genes_are_found_before_the_split(
  tiny_config, tmp_path, monkeypatch
):
  config = config_with(tiny_config, gene_sets=gmt(tmp_path, S=['TP53', 'MYC']))
  monkeypatch.setattr(
    data_lib, 'make_split', lambda *a: pytest.fail('it came to the split')
  )
  message = refusal(ValueError, data_lib.load, config)
  assert 'none of the 2 genes' in message


def test_damaged_file_is_found_before_the_cells(
  tiny_config, tmp_path, monkeypatch
):
  (tmp_path / 'a.gmt').write_text('S\n')
  config = config_with(tiny_config, gene_sets=str(tmp_path / 'a.gmt'))
  monkeypatch.setattr(
    data_lib, 'read_raw', lambda *a, **k: pytest.fail('it read the cells')
  )
  assert 'line 1' in refusal(ValueError, data_lib.load, config)


@pytest.mark.parametrize(
  ('keys', 'error', 'words'),
  [
    ({'gene_sets': 'no.gmt'}, FileNotFoundError, ('data.gene_sets', 'no.gmt')),
    ({'gene_sets': 'a.xlsx'}, ValueError, ('a.xlsx', '.gmt')),
    ({'gene_set_max': 100}, ValueError, ('data.gene_set_max is 100', 'empty')),
    ({'gene_set_ids': ('x',)}, ValueError, ('data.gene_set_ids',)),
    ({'gene_set_min': 0}, ValueError, ('gene_set_min', 'at least 1')),
    ({'gene_set_min': 2.5}, ValueError, ('gene_set_min', 'int')),
  ],
)
def test_config_is_checked_before_anything_is_read(
  tiny_config, keys, error, words
):
  config = tiny_config()
  with config.unlocked(), config.data.unlocked():
    for key, value in keys.items():
      del config.data[key]
      config.data[key] = value
  message = refusal(error, config_lib.validate, config)
  for word in words:
    assert word in message


def test_files_of_ids_and_of_allowed_sets_are_looked_for(tiny_config, tmp_path):
  spec = gmt(tmp_path, S=['A'])
  for key, value in (('gene_set_ids', ('no.tsv',)), ('gene_set_allow', 'no.x')):
    config = tiny_config()
    config.data.gene_sets = spec
    config.data[key] = value
    message = refusal(FileNotFoundError, config_lib.validate, config)
    assert f'data.{key}' in message


# Real files: the numbers are those of the files, counted independently.


@pytest.fixture(scope='module')
def real(shared_data):
  """Genes of two datasets, and gene sets of two sources."""
  folder = shared_data / 'gene_sets'

  def genes(name):
    with h5py.File(shared_data / f'{name}.h5ad') as file:
      var = file['var']
      return tuple(var[var.attrs['_index']].asstr()[()].tolist())

  return builtin_types.SimpleNamespace(
    go=str(folder / 'GO_BP_human_2022_propagated_5-500.gmt.gz'),
    reactome=str(folder / 'ReactomePathways.gmt.gz'),
    direct=[
      str(folder / f'{name}.tsv.gz')
      for name in ('gene2go_bp_direct', 'go_bp_graph_edges', 'go_terms')
    ],
    ids=[
      str(folder / f'{name}.tsv.gz')
      for name in ('human_gene_ids', 'human_aliases')
    ],
    norman=genes('norman_k562_500g'),
    semisynthetic=genes('norman_semisynthetic_1530g'),
  )


@pytest.mark.parametrize(
  ('source', 'data', 'read', 'kept', 'sizes', 'in_file', 'uncovered'),
  [
    ('go', 'norman', 9006, 1071, (5, 7, 33), 389, 121),
    ('go', 'semisynthetic', 9006, 2626, (5, 10, 76), 1258, 285),
    ('reactome', 'norman', 2248, 109, (5, 9, 81), 256, 247),
    ('reactome', 'semisynthetic', 2248, 367, (5, 8, 252), 869, 664),
  ],
)
def test_public_sets_against_measured_genes(
  real, source, data, read, kept, sizes, in_file, uncovered
):
  genes = getattr(real, data)
  found = select(getattr(real, source), genes)
  # Counted again, from the text.
  with gzip.open(getattr(real, source), 'rt') as file:
    rows = [line.rstrip('\n').split('\t') for line in file]
  own = {row[0]: set(row[2:]) & set(genes) for row in rows}
  own = {k: v for k, v in own.items() if len(v) >= 5}
  assert list(found.columns) == sorted(own)
  assert all({genes[c] for c in found.columns[k]} == own[k] for k in own)
  coverage = found.coverage
  assert (coverage.num_sets, len(found.columns)) == (read, kept)
  assert coverage.sizes == sizes
  assert len(coverage.matches.columns) == in_file
  assert len(coverage.in_no_set) == uncovered
  assert len(found.columns) + sum(map(len, coverage.left.values())) == read
  assert {*coverage.in_no_set, *set().union(*own.values())} == set(genes)


def test_propagation_makes_the_public_sets(real):
  public = gene_sets.read(real.go).sets
  annotation, edges, terms = real.direct
  direct = gene_ontology.read_annotations(annotation)
  # Bioconductor's sets follow regulation too: then all 9,006 are the same.
  every = (*gene_ontology.RELATIONS, *gene_ontology.REGULATION)
  graph = gene_ontology.read_graph(edges, terms, relations=every)
  regulated = gene_ontology.sets_of(direct, graph).sets
  sized = {k for k, s in regulated.items() if 5 <= len(s.genes) <= 500}
  assert sized == set(public)
  assert all(set(regulated[k].genes) == set(public[k].genes) for k in public)
  # Without it sets are the same or smaller, never others.
  graph = gene_ontology.read_graph(edges, terms)
  strict = gene_ontology.sets_of(direct, graph).sets
  same = [
    set(strict[k].genes) == set(public[k].genes) for k in public if k in strict
  ]
  assert (sum(same), len(same)) == (6019, 8938)
  assert all(
    set(strict[k].genes) <= set(public[k].genes) for k in public if k in strict
  )
  # NUMA1 regulates the elongation of the spindle, and is annotated so only.
  term = 'GO:0000022'
  assert set(public[term].genes) - set(strict[term].genes) == {'NUMA1'}


def test_real_aliases_and_ensembl_ids(real):
  ids = gene_ids.read(real.ids)
  found = gene_sets.align(gene_sets.read(real.reactome), real.norman, ids)
  assert sum(rule == 'alias' for rule in found.rules.values()) == 5
  # The same data by Ensembl ids reaches nearly all of what symbols reach.
  with gzip.open(real.ids[0], 'rt') as file:
    rows = [line.split('\t') for line in file][1:]
  ensembl = {row[0]: row[2] for row in rows[::-1] if row[2]}
  genes = [f'{ensembl[g]}.4' for g in real.norman if g in ensembl]
  assert len(set(genes)) == len(genes)
  sets = gene_sets.read(real.go)
  translated = gene_sets.align(sets, genes, ids)
  assert translated.data.kind == 'Ensembl'
  assert translated.file.kind == 'symbol'
  direct = gene_sets.align(sets, real.norman)
  lost = direct.columns.keys() - translated.columns.keys()
  assert len(direct.columns) == 389
  assert lost == {g for g in direct.columns if g not in ensembl}
