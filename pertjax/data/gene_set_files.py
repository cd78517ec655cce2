"""Files of gene sets: GMT, tables of (set, gene), lists of allowed sets.

Nothing here knows the genes of a dataset: see `gene_sets`. A file may be
compressed with gzip. Whatever in it is not used is counted in the notes.
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

from pertjax import names as name_lib
from pertjax.data import text_tables

# Names of columns, in lower case; the first that a header has is used.
SET_COLUMNS = (
  'set', 'set_id', 'gene_set', 'gene_set_id', 'geneset', 'gs_name', 'gs_id',
  'pathwayid', 'pathway_id', 'pathway', 'go_id', 'goid', 'go', 'term_id',
  'term',
)  # fmt: skip
GENE_COLUMNS = (
  'gene', 'genes', 'symbol', 'gene_symbol', 'gene_name', 'ensembl_id',
  'ensembl_gene_id', 'ensembl', 'ensembl_gene', 'gene_id', 'entrez',
  'entrez_id', 'entrez_gene', 'entrezgene', 'entrezgene_id',
)  # fmt: skip


class GeneSet(NamedTuple):
  """A gene set as its file has it.

  Attributes:
    name: what it is called beside its id; '' where the file does not say.
    genes: names, each once, in the order of the file.
  """

  name: str
  genes: tuple[str, ...]


class Sets(NamedTuple):
  """Gene sets as read, before they meet a dataset.

  Attributes:
    sets: {set id: GeneSet}, in the order of the file.
    files: (file name, SHA-256 of its bytes) of each file that was read.
    notes: lines that a user should read.
  """

  sets: dict[str, GeneSet]
  files: tuple[tuple[str, str], ...]
  notes: tuple[str, ...]


def read_gmt(path: str | pathlib.Path) -> Sets:
  """Reads a GMT file: id, description, genes, separated by tabs.

  A third field with a space that is the same on every line is a label of the
  source, as in Reactome's file, and not a gene.

  Raises:
    FileNotFoundError, IsADirectoryError, ValueError: naming file and line.
  """
  text = text_tables.read_text(path, 'gene sets')
  rows, numbers, skipped = [], [], 0
  for number, line in enumerate(text.lines, 1):
    if not line.strip() or line.startswith('#'):
      skipped += bool(line.strip())
      continue
    fields = line.split('\t')
    if len(fields) < 3:
      raise ValueError(
        f'{text.path}, line {number}: {len(fields)} tab-separated field(s): '
        f'{line[:60]!r}; a line of a GMT file is: id, description, gene, '
        'gene, ...'
      )
    if not fields[0].strip():
      raise ValueError(f'{text.path}, line {number}: the set has no id')
    rows.append(fields)
    numbers.append(number)
  if not rows:
    raise ValueError(f'{text.path}: no gene set in {len(text.lines)} lines')
  start, notes = 2, []
  third = {fields[2] for fields in rows}
  if len(rows) > 1 and len(third) == 1 and ' ' in rows[0][2].strip():
    start = 3
    notes.append(
      f'{text.path.name}: {rows[0][2]!r} in field 3 of all {len(rows):,} '
      'lines is taken as a label, not as a gene'
    )
  sets, more = _sets_of_rows(text, rows, numbers, start)
  text_tables.count(notes, text.path, skipped, 'comment lines were skipped')
  return Sets(sets, ((text.path.name, text.sha256),), (*notes, *more))


def _sets_of_rows(
  text: text_tables.Text, rows: list[list[str]], numbers: list[int], start: int
) -> tuple[dict[str, GeneSet], list[str]]:
  """Returns the sets of the lines of a GMT file, and notes."""
  sets: dict[str, GeneSet] = {}
  lines: dict[str, int] = {}
  empty = repeated = twice = 0
  for number, fields in zip(numbers, rows):
    members = [field.strip() for field in fields[start:]]
    genes = dict.fromkeys(members)
    blank = members.count('') if '' in genes else 0
    genes.pop('', None)
    empty += blank
    repeated += len(members) - blank - len(genes)
    key, found = fields[0].strip(), GeneSet(fields[1].strip(), tuple(genes))
    if key in sets:
      if set(sets[key].genes) != set(found.genes):
        raise ValueError(
          f'{text.path}, line {number}: set {key!r} was on line {lines[key]} '
          f'already, with other genes ({len(sets[key].genes)} there, '
          f'{len(found.genes)} here); ids must be unique'
        )
      twice += 1
      continue
    sets[key], lines[key] = found, number
  notes: list[str] = []
  text_tables.count(notes, text.path, empty, 'empty fields were skipped')
  text_tables.count(
    notes, text.path, repeated, 'genes repeated in a set were removed'
  )
  text_tables.count(notes, text.path, twice, 'repeated sets were removed')
  return sets, notes


def read_tsv(path: str | pathlib.Path) -> Sets:
  """Reads a table of (set, gene), one row for each member.

  With a header the columns go by name (SET_COLUMNS, GENE_COLUMNS), or by
  position where there are two; without one there must be two.

  Raises:
    FileNotFoundError, IsADirectoryError, ValueError: naming file and line.
  """
  table = text_tables.read_table(
    path, known=(*SET_COLUMNS, *GENE_COLUMNS), what='gene sets'
  )
  set_at = text_tables.column(table, SET_COLUMNS)
  gene_at = text_tables.column(table, GENE_COLUMNS)
  width = len(table.rows[0])
  if width == 2 and (set_at is None or gene_at is None):
    # One of the two may have a name that is known.
    set_at = 0 if gene_at is None and set_at is None else set_at
    set_at = 1 - gene_at if set_at is None else set_at
    gene_at = 1 - set_at
  if set_at is None or gene_at is None:
    raise ValueError(
      f'{table.path}, line {table.numbers[0]}: {width} column(s) '
      f'({", ".join(table.columns) or "without a header"}); allowed: two (set, '
      'gene), or a header with a name for the set '
      f'({name_lib.listing(SET_COLUMNS, 20, quoted=False)}) and for the gene '
      f'({name_lib.listing(GENE_COLUMNS, 20, quoted=False)})'
    )
  pairs = [(row[set_at].strip(), row[gene_at].strip()) for row in table.rows]
  sets, notes = group_pairs(
    pairs, where=lambda i: f'{table.path}, line {table.numbers[i]}'
  )
  return Sets(
    {key: GeneSet('', genes) for key, genes in sets.items()},
    ((table.path.name, table.sha256),),
    (*table.notes, *(f'{table.path.name}: {note}' for note in notes)),
  )


def group_pairs(
  pairs: Sequence[tuple[str, str]], *, where: Callable[[int], str]
) -> tuple[dict[str, tuple[str, ...]], list[str]]:
  """Returns {set: genes} of (set, gene) pairs, and notes.

  Args:
    pairs: in the order of the file.
    where: (index of a pair) to its place, for messages.

  Raises:
    ValueError: where a set has no name, or no pair has a gene.
  """
  sets: dict[str, dict[str, None]] = {}
  empty = repeated = 0
  for index, (key, gene) in enumerate(pairs):
    if not key:
      raise ValueError(f'{where(index)}: the set has no id (gene {gene!r})')
    if not gene:
      empty += 1
      continue
    members = sets.setdefault(key, {})
    repeated += gene in members
    members[gene] = None
  if not sets:
    raise ValueError(f'{where(0)}: no row has a gene')
  notes = []
  if empty:
    notes.append(f'{empty:,} rows without a gene were skipped')
  if repeated:
    notes.append(f'{repeated:,} repeated rows were removed')
  return {key: tuple(genes) for key, genes in sets.items()}, notes


def read_allowed(path: str | pathlib.Path) -> tuple[frozenset[str], str]:
  """Reads the ids of sets that may be used: one a line, or a table's column.

  Returns:
    (ids, SHA-256 of the file).

  Raises:
    FileNotFoundError, IsADirectoryError, ValueError: naming file and line.
  """
  table = text_tables.read_table(
    path, known=SET_COLUMNS, needed=1, what='allowed gene sets'
  )
  at = text_tables.column(table, SET_COLUMNS) or 0
  for number, row in zip(table.numbers, table.rows):
    if not row[at].strip():
      raise ValueError(f'{table.path}, line {number}: the set has no id')
  return frozenset(row[at].strip() for row in table.rows), table.sha256
