"""What columns that claim to measure the same thing differ in.

A family is a set of columns of several conventions, and for each of them its
facets: short phrases that say where changes start, which genes count, which
side is ranked. A member lists only what it does otherwise than the family's
first; `{ties}` in a phrase is filled in from the convention's options. What
each facet does to the number is measured by `translation_replay`, which reads
the same phrases.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class Member(NamedTuple):
  """A column of a family.

  Attributes:
    convention: its name.
    column: its name.
    facets: {facet: phrase} in which it differs from the first of the family.
    common: how a value gets to the family's scale, one of `COMMON`.
  """

  convention: str
  column: str
  facets: Mapping[str, str]
  common: str = 'x'


class Family(NamedTuple):
  """Columns that claim to measure the same thing.

  Attributes:
    title: what they claim.
    direction: of the common scale, 'higher' or 'lower' is better.
    facets: {facet: phrase} of the first member, in the order in which facets
      are exchanged.
    members: the first one is compared with all others.
    cost: why it is not run unless asked for; '' where it is cheap.
  """

  title: str
  direction: str
  facets: Mapping[str, str]
  members: tuple[Member, ...]
  cost: str = ''


# How values get to a common scale: x is the value, G the number of genes.
COMMON = {
  'x': lambda x, genes: x,
  '1 - x': lambda x, genes: 1 - x,
  'x^2': lambda x, genes: x * x,
  'x / G': lambda x, genes: x / genes,
  'x^2 / G': lambda x, genes: x * x / genes,
  'x / 100': lambda x, genes: x / 100,
  '': None,  # There is none.
}

# Facet -> what it says, in words.
FACETS = {
  'sign': 'signs of changes',
  'start': 'changes start from',
  'values': 'values',
  'rounding': 'what is no change',
  'of': 'moment',
  'space': 'space',
  'cells': 'cells',
  'genes': 'genes',
  'weights': 'weights of genes',
  'length': 'length',
  'self_pairs': 'pairs of a cell with itself',
  'factor': 'form',
  'order': 'genes are ordered by',
  'k': 'how many genes',
  'measure': 'measure',
  'distance': 'distance',
  'side': 'ranked are',
  'ties': 'ties count',
  'denominator': 'denominator',
  'divided': 'divided by',
  'noise': 'sampling noise',
  'undefined': 'conditions',
}

# Values of options, in words.
WORDS: dict[str, dict[Any, str]] = {
  'ties': {
    'mid': 'half',
    'tool': 'by name',
    'pessimistic': 'against it',
    'optimistic': 'for it',
    'shuffled': 'at random',
  },
  'noise': {False: 'half', True: 'by a fixed noise'},
  'rank_denominator': {'n': 'P', 'n-1': 'P - 1'},
  'control': {'own': 'own control', 'real': 'real control'},
  'transposed': {
    False: 'predictions per truth',
    True: 'truths per prediction',
  },
  'dataset_mean': {
    'conditions': 'mean of conditions',
    'cells': 'mean of cells',
  },
  'reference': {'conditions': 'mean of conditions', 'cells': 'mean of cells'},
  'absolute': {False: 'kept', True: 'dropped'},
  'r2_swapped': {
    True: '1 - SSE / SST of the prediction',
    False: '1 - SSE / SST of the truth',
  },
  'ranking': {'signed': 't', 'absolute': '|t|'},
  'mse': {'mean': 'squared', 'root_norm': 'root of the distance'},
  'adjust_var': {True: 'coefficient of variation', False: 'variance'},
  'degs': {
    'significant': 'differential against others',
    'top': 'first by p against others',
  },
  'overestimate': {True: ', variance overestimated', False: ''},
  'space': {'genes': 'genes', 'pca': 'components'},
  'meaning': {
    'squared': 'squared',
    'biased': 'Euclidean',
    'half': 'Euclidean, half of it',
    'unbiased': 'Euclidean, self pairs left out',
  },
}


def phrase(template: str, options: Mapping[str, Any]) -> str:
  """Fills the options of a convention into a facet.

  Args:
    template: a phrase with {option}s.
    options: settled ones.
  """
  if '{' not in template:
    return template
  words = {}
  for name, value in options.items():
    known = WORDS.get(name, {})
    simple = isinstance(value, (str, int, float, bool))
    words[name] = known.get(value, value) if simple else 'as given'
  return template.format(**words)
