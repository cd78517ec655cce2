"""Gene sets of a dataset: read, aligned to its genes, filtered, accounted for.

What the sets are read from is one string: the path of a GMT file or of a table
of (set, gene), or 'go:ANNOTATION,GRAPH[,TERMS]' for Gene Ontology annotation
that is propagated here over is_a and part_of; 'go-regulates:...' also follows
the relations of regulation, as Bioconductor's org packages do. Every set and
gene that does not make it is counted, under the rule by which it left.
"""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from pertjax import names as name_lib
from pertjax.data import gene_ids, gene_ontology, text_tables
from pertjax.data import gene_set_files as files_lib
from pertjax.data import gene_set_report as report

KINDS = ('gmt', 'tsv', 'go', 'go-regulates')
# Keys of config.data, and what they are where nothing is asked for.
DEFAULTS = {
  # What the module describes; '' for the sets of the file's uns, or those of
  # the simulator, as they are. The other keys are for files of sets.
  'gene_sets': '',
  # Sets with fewer or more genes of the data are left out; max 0: no limit.
  'gene_set_min': 5,
  'gene_set_max': 0,
  # Tables of ids and of aliases that lead from the sets' names to the data's.
  'gene_set_ids': (),
  # File of the ids of sets that may be used; '' for all.
  'gene_set_allow': '',
  # Keep one of the sets that have the same genes of the data.
  'gene_set_merge': False,
}
_SUFFIXES = {'.gmt': 'gmt', '.tsv': 'tsv', '.txt': 'tsv', '.tab': 'tsv'}


class Request(NamedTuple):
  """Gene sets as read, and what is to be done with them.

  Attributes:
    sets: see gene_set_files.Sets; its files are all that were read.
    min_genes: sets with fewer genes of the data leave.
    max_genes: sets with more leave; 0 for no limit.
    allowed: ids of sets that may stay; None for all.
    ids: other names of genes.
    merge: keep one of the sets with the same genes of the data.
  """

  sets: files_lib.Sets
  min_genes: int = 5
  max_genes: int = 0
  allowed: frozenset[str] | None = None
  ids: gene_ids.Ids = gene_ids.Ids()
  merge: bool = False


class Selected(NamedTuple):
  """The gene sets of a dataset.

  Attributes:
    columns: {set id: columns of the data, sorted}; ids in lexicographic order.
    names: {set id: name}, '' where the file has none.
    coverage: see gene_set_report.Coverage.
  """

  columns: dict[str, tuple[int, ...]]
  names: dict[str, str]
  coverage: report.Coverage


def check(options) -> None:
  """Checks the gene-set keys of config.data; files are looked for, not read.

  Raises:
    FileNotFoundError, IsADirectoryError: naming key and file.
    ValueError: naming the key, what was given and what is allowed.
  """
  if not options.gene_sets:
    given = [k for k, v in DEFAULTS.items() if _plain(options[k]) != v]
    if given:
      raise ValueError(
        f'data.{given[0]} is {options[given[0]]!r}, but data.gene_sets is '
        "empty: it is for the sets of a file. Sets in the dataset's own uns "
        'are taken as they are'
      )
    return
  _, paths = parse(options.gene_sets)
  named = [('data.gene_sets', path) for path in paths]
  named += [('data.gene_set_ids', path) for path in options.gene_set_ids]
  if options.gene_set_allow:
    named.append(('data.gene_set_allow', options.gene_set_allow))
  for key, path in named:
    text_tables.check_path(path, key)
  _check_limits(options.gene_set_min, options.gene_set_max)


def _plain(value: Any) -> Any:
  return tuple(value) if isinstance(value, list) else value


def _check_limits(low: int, high: int) -> None:
  if low < 1 or (high and high < low):
    raise ValueError(
      f'gene_set_min is {low} and gene_set_max {high}; allowed: 1 <= min <= '
      'max, or max 0 for no upper limit'
    )


def parse(spec: str) -> tuple[str, tuple[str, ...]]:
  """Returns (kind, paths) of the string that names the sets' files.

  Raises:
    ValueError: saying what is allowed.
  """
  kind, colon, rest = spec.partition(':')
  if not colon or len(kind) == 1:  # A letter is a drive.
    kind, rest = '', spec
    suffixes = [s.lower() for s in pathlib.PurePath(spec).suffixes]
    if suffixes and suffixes[-1] == '.gz':
      suffixes.pop()
    kind = _SUFFIXES.get(suffixes[-1] if suffixes else '', '')
    if not kind:
      raise ValueError(
        f'gene sets: {spec!r}: the name of a file ends in '
        f'{", ".join(_SUFFIXES)}, with or without .gz; for other names say '
        'gmt:FILE or tsv:FILE'
      )
  elif kind not in KINDS:
    raise ValueError(name_lib.unknown('gene sets, kind of file', kind, KINDS))
  if not kind.startswith('go'):
    return kind, (rest,)
  paths = tuple(path.strip() for path in rest.split(','))
  if len(paths) not in (2, 3) or not all(paths):
    raise ValueError(
      f'gene sets: {spec!r} names {len(paths)} file(s); allowed: '
      f'{kind}:ANNOTATION,GRAPH or {kind}:ANNOTATION,GRAPH,TERMS'
    )
  return kind, paths


def read(spec: str) -> files_lib.Sets:
  """Reads the gene sets that a string names; see the module.

  Raises:
    FileNotFoundError, IsADirectoryError, ValueError: naming file and line.
  """
  kind, paths = parse(spec)
  if kind.startswith('go'):
    relations = gene_ontology.RELATIONS
    if kind == 'go-regulates':
      relations = (*relations, *gene_ontology.REGULATION)
    annotations = gene_ontology.read_annotations(paths[0])
    graph = gene_ontology.read_graph(*paths[1:], relations=relations)
    return gene_ontology.sets_of(annotations, graph)
  return (files_lib.read_gmt if kind == 'gmt' else files_lib.read_tsv)(paths[0])


def request(
  spec: str,
  *,
  min_genes: int = 5,
  max_genes: int = 0,
  ids: Sequence[str] = (),
  allow: str = '',
  merge: bool = False,
) -> Request:
  """Reads all files, before there is a dataset.

  Args:
    spec: see the module.
    min_genes, max_genes, merge: see Request.
    ids: tables of ids and of aliases; see gene_ids.read.
    allow: file of the ids of sets that may stay; '' for all.

  Raises:
    FileNotFoundError, IsADirectoryError, ValueError: naming file and line.
  """
  _check_limits(min_genes, max_genes)
  sets, tables = read(spec), gene_ids.read(ids)
  files, allowed = sets.files + tables.files, None
  if allow:
    allowed, sha256 = files_lib.read_allowed(allow)
    files += ((pathlib.Path(allow).name, sha256),)
  sets = sets._replace(files=files, notes=(*sets.notes, *tables.notes))
  return Request(sets, min_genes, max_genes, allowed, tables, merge)


def of_config(options) -> Request | None:
  """Returns the request of config.data, None where it names no file."""
  if not options.gene_sets:
    return None
  return request(
    options.gene_sets,
    min_genes=options.gene_set_min,
    max_genes=options.gene_set_max,
    ids=tuple(options.gene_set_ids),
    allow=options.gene_set_allow,
    merge=options.gene_set_merge,
  )


def record(wanted: Request) -> dict[str, Any]:
  """Returns what a run's record says of its gene sets, as JSON can hold it."""
  return {
    'files': [{'file': f, 'sha256': sha256} for f, sha256 in wanted.sets.files],
    'min': wanted.min_genes,
    'max': wanted.max_genes,
    'merge': wanted.merge,
  }


def align(
  sets: files_lib.Sets, genes: Sequence[str], ids: gene_ids.Ids | None = None
) -> gene_ids.Matches:
  """Finds the genes of the sets among those of a dataset.

  Raises:
    ValueError: where none is found, with examples of both vocabularies.
  """
  names = dict.fromkeys(
    gene for found in sets.sets.values() for gene in found.genes
  )
  matches = gene_ids.match(names, genes, ids)
  if not matches.columns:
    unclear = ''
    if matches.ambiguous:
      unclear = f'; {len(matches.ambiguous):,} are ambiguous'
    raise ValueError(
      f'{sets.files[0][0]}: none of the {len(names):,} genes of the sets '
      f'is one of the {len(genes):,} genes of the data{unclear}. The file has '
      f'{report.kind(matches.file)}: {name_lib.listing(names)}; the data has '
      f'{report.kind(matches.data)}: {name_lib.listing(genes)}. Are they of '
      'one species? Tables that translate go in data.gene_set_ids'
    )
  return matches


def select(wanted: Request, genes: Sequence[str]) -> Selected:
  """Keeps the sets that a dataset can use.

  The order of the filters is that of SENA (arXiv 2506.12439, released code):
  genes that are not in the data leave the sets, then sets that are not
  allowed, then those that are too small or too large. A gene counts once in a
  set, however often it is there.

  Args:
    wanted: see Request.
    genes: [genes] unique names of the data.

  Raises:
    ValueError: where no gene is found, or no set is left.
  """
  sets = wanted.sets.sets
  matches = align(wanted.sets, genes, wanted.ids)
  limits = (wanted.min_genes, wanted.max_genes)
  left: dict[str, list[str]] = {}
  columns: dict[str, tuple[int, ...]] = {}
  found_of, repeated = matches.columns, 0
  for key in sorted(sets):
    found = [found_of[g] for g in sets[key].genes if g in found_of]
    own = tuple(sorted(set(found)))
    repeated += len(found) - len(own)
    rule = _rule(wanted, key, len(own))
    if rule:
      left.setdefault(rule, []).append(key)
    else:
      columns[key] = own
  merged: dict[str, tuple[str, ...]] = {}
  if wanted.merge:
    columns, merged = merge_identical(columns)
    gone = sorted(key for keys in merged.values() for key in keys)
    if gone:
      left[report.IDENTICAL] = gone
  if not columns:
    raise ValueError(
      f'{wanted.sets.files[0][0]}: none of {len(sets):,} gene sets is '
      f'left: {report.reasons(left, limits)}; {len(matches.columns):,} of '
      f'their genes are among the {len(genes):,} of the data'
    )
  sizes = [len(own) for own in columns.values()]
  coverage = report.Coverage(
    wanted.sets.files[0][0],
    len(sets),
    limits,
    {rule: tuple(keys) for rule, keys in left.items()},
    (min(sizes), float(np.median(sizes)), max(sizes)),
    matches,
    repeated,
    report.in_no_set(columns, genes),
    len(genes),
    merged,
    tuple(sorted((wanted.allowed or frozenset()) - sets.keys())),
    wanted.sets.notes,
  )
  names = {key: sets[key].name for key in columns}
  return Selected(columns, names, coverage)


def _rule(wanted: Request, key: str, size: int) -> str:
  """Returns the rule by which a set leaves, '' where it stays."""
  if wanted.allowed is not None and key not in wanted.allowed:
    return report.NOT_ALLOWED
  if not size:
    return report.NO_GENE
  if size < wanted.min_genes:
    return report.TOO_SMALL
  if wanted.max_genes and size > wanted.max_genes:
    return report.TOO_LARGE
  return ''


def merge_identical(
  columns: Mapping[str, tuple[int, ...]],
) -> tuple[dict[str, tuple[int, ...]], dict[str, tuple[str, ...]]]:
  """Keeps the first of the sets that have the same genes.

  Returns:
    (sets, {kept set: the others with its genes}).
  """
  first: dict[tuple[int, ...], str] = {}
  others: dict[str, list[str]] = {}
  for key, own in columns.items():
    if own in first:
      others.setdefault(first[own], []).append(key)
    else:
      first[own] = key
  return (
    {key: own for own, key in first.items()},
    {key: tuple(keys) for key, keys in others.items()},
  )
