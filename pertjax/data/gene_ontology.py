"""Gene Ontology annotation, propagated from terms to their ancestors.

An annotation of a gene with a term holds for every term above it by is_a and
part_of (the true-path rule: Ashburner et al. 2000, doi 10.1038/75556; which
relations are safe to follow: geneontology.org/docs/ontology-relations). The
relations of REGULATION are not: who regulates a process need not take part in
it. Bioconductor's org packages (GO2ALLEGS) do follow them.
"""

from __future__ import annotations

import graphlib
import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from pertjax import names as name_lib
from pertjax.data import gene_set_files as files_lib
from pertjax.data import text_tables

RELATIONS = ('is_a', 'part_of')
REGULATION = ('regulates', 'positively_regulates', 'negatively_regulates')
# "No biological Data": the root, to say that nothing is known of a gene.
WITHOUT_EVIDENCE = ('ND',)
_SPELLED = {'isa': 'is_a', 'partof': 'part_of'}
_ID = ('go_id', 'goid', 'go', 'id', 'term_id')
_NAME = ('term', 'name', 'term_name')
_OBSOLETE = ('obsolete', 'is_obsolete')
_CHILD, _PARENT = ('child', 'child_id'), ('parent', 'parent_id')
_RELATION = ('rel', 'relation', 'relationship', 'type')
_EVIDENCE, _QUALIFIER = ('evidence', 'evidence_code'), ('qualifier',)


class Annotations(NamedTuple):
  """Genes of terms as curated, not propagated.

  Attributes:
    genes: {term: genes}.
    files, notes: see gene_set_files.Sets.
  """

  genes: dict[str, tuple[str, ...]]
  files: tuple[tuple[str, str], ...]
  notes: tuple[str, ...]


class Graph(NamedTuple):
  """Terms and what is above them.

  Attributes:
    parents: {term: terms above it by the relations that were asked for}.
    names: {term: name}; empty where no table of terms was read.
    obsolete: terms that the ontology has withdrawn.
    files, notes: see gene_set_files.Sets.
  """

  parents: dict[str, tuple[str, ...]]
  names: dict[str, str]
  obsolete: frozenset[str]
  files: tuple[tuple[str, str], ...]
  notes: tuple[str, ...]


def read_annotations(
  path: str | pathlib.Path,
  *,
  without_evidence: Sequence[str] = WITHOUT_EVIDENCE,
) -> Annotations:
  """Reads a table with columns for the gene and the term.

  Args:
    path: a tab-separated table with a header; the columns `evidence` and
      `qualifier` are read where they are there.
    without_evidence: codes whose rows are left out, and counted.

  Raises:
    FileNotFoundError, IsADirectoryError, ValueError: naming file and line.
  """
  table = text_tables.read_table(
    path,
    known=(*_ID, *files_lib.GENE_COLUMNS, *_EVIDENCE),
    needed=0,
    what='annotation',
  )
  term_at = _needed(table, 'the term', _ID)
  gene_at = _needed(table, 'the gene', files_lib.GENE_COLUMNS)
  evidence_at = text_tables.column(table, _EVIDENCE)
  qualifier_at = text_tables.column(table, _QUALIFIER)
  pairs, numbers, weak, negated = [], [], 0, 0
  for number, row in zip(table.numbers, table.rows):
    if evidence_at is not None and row[evidence_at] in without_evidence:
      weak += 1
    # The gene has been shown not to belong to the term.
    elif qualifier_at is not None and row[qualifier_at].startswith('NOT'):
      negated += 1
    else:
      pairs.append((row[term_at].strip(), row[gene_at].strip()))
      numbers.append(number)
  counts = (
    (weak, f'rows with evidence {"/".join(without_evidence)} left out'),
    (negated, 'rows that say NOT left out'),
  )
  notes = [f'{num:,} {what}' for num, what in counts if num]
  if not pairs:
    raise ValueError(f'{table.path}: no annotation is left: {"; ".join(notes)}')
  genes, more = files_lib.group_pairs(
    pairs, where=lambda i: f'{table.path}, line {numbers[i]}'
  )
  name = table.path.name
  return Annotations(
    genes,
    ((name, table.sha256),),
    (*table.notes, *(f'{name}: {note}' for note in (*notes, *more))),
  )


def read_graph(
  edges: str | pathlib.Path,
  terms: str | pathlib.Path | None = None,
  *,
  relations: Sequence[str] = RELATIONS,
) -> Graph:
  """Reads a table of edges (child, parent, relation) and one of terms.

  Args:
    edges: with a header; spaces in relations are underscores, isa is is_a.
    terms: with columns for the id and the name; a term is obsolete where its
      name starts with 'obsolete ', as in the ontology itself, or a column
      `obsolete` says so. None: no names, and nothing is known as obsolete.
    relations: that are followed; edges of others are counted.

  Raises:
    FileNotFoundError, IsADirectoryError, ValueError: naming file and line.
  """
  table = text_tables.read_table(
    edges,
    known=(*_CHILD, *_PARENT, *_RELATION),
    needed=0,
    what='graph of terms',
  )
  child_at = _needed(table, 'the term', _CHILD)
  parent_at = _needed(table, 'the term above it', _PARENT)
  relation_at = _needed(table, 'the relation', _RELATION)
  spelled: dict[str, str] = {}
  parents: dict[str, dict[str, None]] = {}
  others: dict[str, int] = {}
  for row in table.rows:
    relation = row[relation_at]
    if relation not in spelled:
      plain = relation.strip().lower().replace(' ', '_')
      spelled[relation] = _SPELLED.get(plain.replace('_', ''), plain)
    relation = spelled[relation]
    if relation in relations:
      parents.setdefault(row[child_at], {})[row[parent_at]] = None
    else:
      others[relation] = others.get(relation, 0) + 1
  if not parents:
    raise ValueError(
      f'{table.path}: no edge has one of the relations '
      f'{", ".join(relations)}; found: '
      f'{name_lib.listing(others, 10, quoted=False)}'
    )
  notes = list(table.notes)
  if others:
    what = ', '.join(f'{n:,} {relation}' for relation, n in others.items())
    notes.append(f'{table.path.name}: edges that are not followed: {what}')
  files = ((table.path.name, table.sha256),)
  names, obsolete = {}, frozenset()
  if terms is not None:
    names, obsolete, more = _read_terms(terms)
    files += more
  return Graph(
    {child: tuple(above) for child, above in parents.items()},
    names,
    obsolete,
    files,
    tuple(notes),
  )


def _read_terms(
  path: str | pathlib.Path,
) -> tuple[dict[str, str], frozenset[str], tuple[tuple[str, str], ...]]:
  """Returns {term: name}, the obsolete ones, and (file, hash)."""
  table = text_tables.read_table(
    path, known=(*_ID, *_NAME), needed=0, what='terms'
  )
  id_at = _needed(table, 'the term', _ID)
  name_at = _needed(table, 'its name', _NAME)
  obsolete_at = text_tables.column(table, _OBSOLETE)
  names = {row[id_at]: row[name_at] for row in table.rows}
  obsolete = {k for k, name in names.items() if name.startswith('obsolete ')}
  if obsolete_at is not None:
    obsolete.update(
      row[id_at]
      for row in table.rows
      if row[obsolete_at].strip().lower() in ('1', 'true', 'yes')
    )
  return names, frozenset(obsolete), ((table.path.name, table.sha256),)


def _needed(table: text_tables.Table, what: str, names: Sequence[str]) -> int:
  at = text_tables.column(table, names)
  if at is None:
    raise ValueError(
      f'{table.path}: no column for {what}; found: '
      f'{", ".join(table.columns) or "no header"}; allowed: {", ".join(names)}'
    )
  return at


def propagate(
  genes: Mapping[str, Sequence[str]], parents: Mapping[str, Sequence[str]]
) -> dict[str, tuple[str, ...]]:
  """Gives the genes of each term to all terms above it.

  Args:
    genes: {term: genes} direct annotation.
    parents: {term: terms right above it}.

  Returns:
    {term: genes, sorted} for the terms with genes, sorted.

  Raises:
    ValueError: naming the terms of a cycle.
  """
  try:
    # Parents come first in this order: it is walked from its end.
    order = list(graphlib.TopologicalSorter(parents).static_order())
  except graphlib.CycleError as error:
    cycle = list(dict.fromkeys(error.args[1]))
    raise ValueError(
      f'the graph of terms has a cycle of {len(cycle)}: '
      f'{name_lib.listing(cycle, 8, quoted=False)}; is_a and part_of have none'
    ) from error
  # Names are compared only when they are sorted; numbers are faster to join.
  names = sorted({gene for members in genes.values() for gene in members})
  number = {name: index for index, name in enumerate(names)}
  held = {
    term: {number[gene] for gene in members} for term, members in genes.items()
  }
  for term in reversed(order):
    if below := held.get(term):
      for parent in parents.get(term, ()):
        held.setdefault(parent, set()).update(below)
  return {
    term: tuple(names[index] for index in sorted(held[term]))
    for term in sorted(held)
  }


def sets_of(
  annotations: Annotations, graph: Graph, *, propagated: bool = True
) -> files_lib.Sets:
  """Makes gene sets of terms.

  Annotations of obsolete terms, and of terms that are in neither the graph
  nor the table of terms, are left out and counted.

  Args:
    annotations: see read_annotations.
    graph: see read_graph.
    propagated: give the genes of a term to the terms above it.

  Raises:
    ValueError: where nothing is left, or the graph has a cycle.
  """
  known = set(graph.names) or {
    *graph.parents,
    *(parent for above in graph.parents.values() for parent in above),
  }
  notes, kept, lost = [], {}, {'obsolete': [], 'unknown': []}
  for term, genes in annotations.genes.items():
    if term in graph.obsolete:
      lost['obsolete'].append(term)
    elif term not in known:
      lost['unknown'].append(term)
    else:
      kept[term] = genes
  for why, terms in lost.items():
    if terms:
      num = sum(len(annotations.genes[term]) for term in terms)
      notes.append(
        f'{num:,} annotations of {len(terms):,} {why} terms left out: '
        f'{name_lib.listing(terms, quoted=False)}'
      )
  if not kept:
    raise ValueError(
      f'{annotations.files[0][0]}: no annotation is of a term in '
      f'{graph.files[0][0]}: {" ".join(notes)}'
    )
  parents = {
    term: tuple(p for p in above if p not in graph.obsolete)
    for term, above in graph.parents.items()
    if term not in graph.obsolete
  }
  genes = propagate(kept, parents if propagated else {})
  return files_lib.Sets(
    {
      term: files_lib.GeneSet(graph.names.get(term, ''), members)
      for term, members in genes.items()
    },
    annotations.files + graph.files,
    (*annotations.notes, *graph.notes, *notes),
  )
