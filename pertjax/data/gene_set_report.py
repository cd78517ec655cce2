"""What became of the sets of a file, and of the genes of the data, in lines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from pertjax import names as name_lib
from pertjax.data import gene_ids

# By which sets leave, in the order in which they are asked.
NOT_ALLOWED = 'not on the list of allowed sets'
NO_GENE = 'without a gene of the data'
TOO_SMALL = 'with too few genes of the data'
TOO_LARGE = 'with too many genes of the data'
IDENTICAL = 'merged into a set of the same genes'


class Coverage(NamedTuple):
  """What became of the sets of a file and of the genes of the data.

  Attributes:
    file: name of the file, of the annotation where there are several.
    num_sets: in the file.
    limits: (fewest, most) genes of the data in a set; most is 0 for no limit.
    left: {rule: ids of the sets that left by it}.
    sizes: (min, median, max) genes of the kept sets.
    matches: see gene_ids.Matches.
    repeated: members that turned out to be a gene the set had already.
    in_no_set: genes of the data that are in no kept set, in their order.
    num_genes: of the data.
    merged: {kept set: sets with the same genes}.
    absent: allowed ids that the file does not have, sorted.
    notes: lines on the files.
  """

  file: str
  num_sets: int
  limits: tuple[int, int]
  left: Mapping[str, tuple[str, ...]]
  sizes: tuple[int, float, int]
  matches: gene_ids.Matches
  repeated: int
  in_no_set: tuple[str, ...]
  num_genes: int
  merged: Mapping[str, tuple[str, ...]]
  absent: tuple[str, ...]
  notes: tuple[str, ...]


def reasons(left: Mapping[str, Sequence[str]], limits: tuple[int, int]) -> str:
  """Returns how many sets left by which rule, for a line."""
  signs = {TOO_SMALL: f' (< {limits[0]})', TOO_LARGE: f' (> {limits[1]})'}
  parts = [
    f'{len(keys):,} {rule}{signs.get(rule, "")}' for rule, keys in left.items()
  ]
  return ', '.join(parts) or 'none'


def in_no_set(
  columns: Mapping[str, Sequence[int]], genes: Sequence[str]
) -> tuple[str, ...]:
  """Returns the genes that are in none of the sets, in their order."""
  covered = {column for own in columns.values() for column in own}
  return tuple(gene for i, gene in enumerate(genes) if i not in covered)


def kind(vocabulary: gene_ids.Vocabulary) -> str:
  """Returns what names of a vocabulary are called, for a line."""
  what = {'symbol': 'symbols', 'Ensembl': 'Ensembl ids'}
  return what.get(vocabulary.kind, 'Entrez numbers')


def lines(coverage: Coverage) -> tuple[str, ...]:
  """Returns the lines that a user should read."""
  found = coverage.matches
  left = sum(len(keys) for keys in coverage.left.values())
  low, median, high = coverage.sizes
  of_rule = Counter(found.rules.values())
  rules = ', '.join(f'{of_rule[r]:,} {r}' for r in gene_ids.RULES if of_rule[r])
  total = len(found.columns) + len(found.unmatched) + len(found.ambiguous)
  num_found = len(set(found.columns.values()))
  out = [
    *coverage.notes,
    f'{coverage.num_sets - left:,} of {coverage.num_sets:,} sets of '
    f'{coverage.file} kept, sizes {low} to {high} (median {median:g}); '
    f'left out: {reasons(coverage.left, coverage.limits)}',
    f'{num_found:,} of {coverage.num_genes:,} genes of the data are in the '
    f'file, {coverage.num_genes - len(coverage.in_no_set):,} in kept sets; '
    f'{len(coverage.in_no_set):,} in none' + _examples(coverage.in_no_set),
    f'{len(found.columns):,} of {total:,} names of the file '
    f'({kind(found.file)}) are genes of the data ({kind(found.data)}): '
    f'{rules}; {len(found.unmatched):,} are not' + _examples(found.unmatched),
  ]
  by_case = [name for name, r in found.rules.items() if r == 'letter case']
  if by_case:
    doubt = ''
    if 2 * len(by_case) > len(found.columns):
      doubt = '; those are most: are the sets of another species?'
    out.append(
      f'{len(by_case):,} names are genes of the data only where letter case is '
      f'ignored{_examples(by_case)}{doubt}'
    )
  for what, unclear in (
    ('names of the file', found.ambiguous),
    ('genes of the data', found.ambiguous_data),
  ):
    if unclear:
      shown = [f'{k} ({" or ".join(v)})' for k, v in unclear.items()]
      out.append(
        f'{len(unclear):,} {what} are ambiguous and not guessed: '
        f'{name_lib.listing(shown, quoted=False)}'
      )
  if coverage.repeated:
    out.append(
      f'{coverage.repeated:,} members were a gene that their set had already, '
      'under another name'
    )
  if coverage.absent:
    out.append(
      f'{len(coverage.absent):,} allowed sets are not in the file'
      + _examples(coverage.absent)
    )
  return tuple(f'gene sets: {line}' for line in out)


def _examples(names: Sequence[str]) -> str:
  return f': {name_lib.listing(names, quoted=False)}' if names else ''
