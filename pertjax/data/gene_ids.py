"""Names of genes in other vocabularies: symbols, Ensembl ids, Entrez, aliases.

A name that could be several genes is never guessed: it is listed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from pertjax.data import text_tables

# Names of columns, in lower case; the first that a header has is used.
COLUMNS = {
  'symbol': (
    'symbol', 'gene_symbol', 'external_gene_name', 'hgnc_symbol',
    'approved_symbol', 'gene_name',
  ),
  'Ensembl': (
    'ensembl_id', 'ensembl_gene_id', 'ensembl', 'ensembl_gene', 'gene_id',
  ),
  'Entrez': (
    'entrez', 'entrez_id', 'entrezgene', 'entrezgene_id', 'ncbi_gene_id',
  ),
}  # fmt: skip
ALIAS_COLUMNS = (
  'alias_symbol', 'alias', 'alias_name', 'prev_symbol', 'previous_symbol',
  'synonym',
)  # fmt: skip
# How a name of the file came to be a gene of the data.
RULES = ('as written', 'Ensembl version', 'id table', 'alias', 'letter case')

_ENSEMBL = re.compile(r'(ENS[A-Z]*[GTP]\d{6,})(\.\d+)?')


class Ids(NamedTuple):
  """What other names genes have.

  Attributes:
    names: {vocabulary: names of its column}; keys of COLUMNS.
    symbols: {symbol, Ensembl id or Entrez number: symbols of its genes}. A
      gene without a symbol stands under its Ensembl id.
    aliases: {alias: symbols of its genes}, for names that are not in symbols;
      many an alias is also another gene's symbol, which then counts.
    files, notes: see gene_set_files.Sets.
  """

  names: Mapping[str, frozenset[str]] = {}  # noqa: RUF012 - never mutated.
  symbols: Mapping[str, tuple[str, ...]] = {}  # noqa: RUF012
  aliases: Mapping[str, tuple[str, ...]] = {}  # noqa: RUF012
  files: tuple[tuple[str, str], ...] = ()
  notes: tuple[str, ...] = ()


class Vocabulary(NamedTuple):
  """Which names a list of genes is made of.

  Attributes:
    kind: 'symbol', 'Ensembl' or 'Entrez'.
    num: names of that kind.
    total: names.
  """

  kind: str
  num: int
  total: int


class Matches(NamedTuple):
  """Where the names of a file are among the genes of a dataset.

  Attributes:
    columns: {name: column of the data}, of those that were found.
    rules: {name: one of RULES}, of the same names.
    ambiguous: {name: what it could be}, not matched.
    ambiguous_data: {gene of the data: symbols it is an alias of}, of those
      that no name of the file was matched to.
    unmatched: names that are no gene of the data, in their order.
    data, file: the vocabularies.
  """

  columns: dict[str, int]
  rules: dict[str, str]
  ambiguous: dict[str, tuple[str, ...]]
  ambiguous_data: dict[str, tuple[str, ...]]
  unmatched: tuple[str, ...]
  data: Vocabulary
  file: Vocabulary


def read(paths: Sequence[str]) -> Ids:
  """Reads tables of ids, and of aliases: those with a column for the alias.

  Raises:
    FileNotFoundError, IsADirectoryError, ValueError: naming the file.
  """
  known = [n for names in COLUMNS.values() for n in names]
  tables = [
    text_tables.read_table(
      path, known=(*known, *ALIAS_COLUMNS), needed=0, what='ids of genes'
    )
    for path in paths
  ]
  names: dict[str, set[str]] = {kind: set() for kind in COLUMNS}
  symbols: dict[str, dict[str, None]] = {}
  aliases: dict[str, dict[str, None]] = {}
  for table in tables:
    at = {kind: text_tables.column(table, n) for kind, n in COLUMNS.items()}
    at = {kind: index for kind, index in at.items() if index is not None}
    alias_at = text_tables.column(table, ALIAS_COLUMNS)
    if len(at) + (alias_at is not None) < 2 or not at.keys() & {
      'symbol',
      'Ensembl',
    }:
      raise ValueError(
        f'{table.path}: found the columns '
        f'{", ".join(table.columns) or "(no header)"}; a table of ids needs '
        f'two of {", ".join(f"{k} ({n[0]})" for k, n in COLUMNS.items())} or '
        f'one of symbols and one of aliases ({", ".join(ALIAS_COLUMNS)})'
      )
    _add(table, at, alias_at, names, symbols, aliases)
  return Ids(
    {kind: frozenset(found) for kind, found in names.items()},
    {name: tuple(found) for name, found in symbols.items()},
    {name: tuple(found) for name, found in aliases.items()},
    tuple((table.path.name, table.sha256) for table in tables),
    tuple(note for table in tables for note in table.notes),
  )


def _add(
  table: text_tables.Table,
  at: Mapping[str, int],
  alias_at: int | None,
  names: dict[str, set[str]],
  symbols: dict[str, dict[str, None]],
  aliases: dict[str, dict[str, None]],
) -> None:
  """Adds the rows of a table to what `read` collects."""
  fields = {
    kind: [without_version(row[index].strip()) for row in table.rows]
    for kind, index in at.items()
  }
  blank = [''] * len(table.rows)
  genes = [
    symbol or ensembl
    for symbol, ensembl in zip(
      fields.get('symbol', blank), fields.get('Ensembl', blank)
    )
  ]
  for kind, column in fields.items():
    names[kind].update(column)
    names[kind].discard('')
    for name, gene in zip(column, genes):
      if name and gene:
        symbols.setdefault(name, {})[gene] = None
  if alias_at is not None:
    for row, gene in zip(table.rows, genes):
      alias = row[alias_at].strip()
      if alias and gene and alias != gene:
        aliases.setdefault(alias, {})[gene] = None


def without_version(name: str) -> str:
  """Returns an Ensembl id without its version; other names as they are."""
  # Most names are no Ensembl ids: a cheap look first.
  if '.' not in name or not name.startswith('ENS'):
    return name
  found = _ENSEMBL.fullmatch(name)
  return found.group(1) if found else name


def vocabulary(names: Sequence[str], ids: Ids) -> Vocabulary:
  """Returns the vocabulary that has most of the names.

  Vocabularies are the columns of the tables of ids; without any, names are
  told apart by how they look.
  """
  plain = [without_version(name) for name in names]
  known = ids.names
  if any(known.values()):
    counts = {
      kind: sum(name in found for name in plain)
      for kind, found in known.items()
    }
    if max(counts.values()):
      kind = max(counts, key=counts.__getitem__)
      return Vocabulary(kind, counts[kind], len(plain))
  counts = {
    'Ensembl': sum(bool(_ENSEMBL.fullmatch(name)) for name in plain),
    'Entrez': sum(name.isdecimal() for name in plain),
  }
  counts['symbol'] = len(plain) - sum(counts.values())
  kind = max(counts, key=counts.__getitem__)
  return Vocabulary(kind, counts[kind], len(plain))


def match(
  names: Iterable[str], data_genes: Sequence[str], ids: Ids | None = None
) -> Matches:
  """Finds each name among the genes of a dataset.

  A name is looked up as it is written, without the version of an Ensembl id,
  through the tables of ids, as an alias, and last without letter case. The
  tables lead from the name to its gene, and from there to the genes of the
  data under any of their names; an alias counts only where it is not also a
  symbol. More than one gene at the end, or an alias of several, is ambiguous.

  Args:
    names: of the file; each once.
    data_genes: [genes] unique names.
    ids: see Ids; None for no tables.
  """
  ids = ids or Ids()
  names = list(names)
  written = {name: index for index, name in enumerate(data_genes)}
  plain: dict[str, list[int]] = {}
  for index, name in enumerate(data_genes):
    plain.setdefault(without_version(name), []).append(index)
  official, by_alias, unclear = _data_symbols(plain, ids)
  ambiguous: dict[str, tuple[str, ...]] = {}
  columns: dict[str, int] = {}
  rules: dict[str, str] = {}
  missing = []

  def put(name: str, found: Sequence[int], rule: str) -> bool:
    """Notes a match, or that there are several; False where there is none."""
    if len(found) == 1:
      columns[name], rules[name] = found[0], rule
    elif found:
      ambiguous[name] = tuple(data_genes[index] for index in found)
    return bool(found)

  for name in names:
    if name in written:
      columns[name], rules[name] = written[name], 'as written'
      continue
    short = without_version(name)
    if put(name, plain.get(short, ()), 'Ensembl version'):
      continue
    genes, rule = ids.symbols.get(short), 'id table'
    if genes is None:
      genes, rule = ids.aliases.get(short, ()), 'alias'
      if len(genes) > 1:
        if any(gene in official or gene in by_alias for gene in genes):
          ambiguous[name] = genes
        else:
          missing.append(name)
        continue
    if put(name, _union(official, genes), rule):
      continue
    if not put(name, _union(by_alias, genes), 'alias'):
      missing.append(name)
  unmatched = []
  by_case = _by_case(missing, data_genes, set(columns.values()))
  for name in missing:
    if not put(name, by_case.get(name, ()), 'letter case'):
      unmatched.append(name)
  taken = {data_genes[index] for index in columns.values()}
  return Matches(
    columns,
    rules,
    ambiguous,
    {name: genes for name, genes in unclear.items() if name not in taken},
    tuple(unmatched),
    vocabulary(data_genes, ids),
    vocabulary(names, ids),
  )


def _data_symbols(
  plain: Mapping[str, Sequence[int]], ids: Ids
) -> tuple[
  dict[str, list[int]], dict[str, list[int]], dict[str, tuple[str, ...]]
]:
  """Returns {symbol: columns} by name, by alias, and the ambiguous genes."""
  official: dict[str, list[int]] = {}
  by_alias: dict[str, list[int]] = {}
  ambiguous: dict[str, tuple[str, ...]] = {}
  for name, found in plain.items():
    if name in ids.symbols:
      for gene in ids.symbols[name]:
        official.setdefault(gene, []).extend(found)
    elif len(ids.aliases.get(name, ())) == 1:
      by_alias.setdefault(ids.aliases[name][0], []).extend(found)
    elif name in ids.aliases:
      ambiguous[name] = ids.aliases[name]
  return official, by_alias, ambiguous


def _union(
  columns: Mapping[str, Sequence[int]], genes: Iterable[str]
) -> tuple[int, ...]:
  """Returns the distinct columns of some genes."""
  return tuple(
    dict.fromkeys(c for gene in genes for c in columns.get(gene, ()))
  )


def _by_case(
  missing: Sequence[str], data_genes: Sequence[str], taken: set[int]
) -> dict[str, tuple[int, ...]]:
  """Returns {name: columns of genes that differ in letter case only}."""
  folded: dict[str, list[int]] = {}
  for index, name in enumerate(data_genes):
    if index not in taken:
      folded.setdefault(name.casefold(), []).append(index)
  return {
    name: tuple(folded[name.casefold()])
    for name in missing
    if name.casefold() in folded
  }
