"""Virtual Cell Challenge 2025: the three metrics of its score, in cell-eval.

`scaling.vcc2025_score` scales their means against those of the mean baseline.
Until October 2025 the discrimination score took sizes of changes without their
signs (`absolute=True`), and a model could win by any change at all
(ArcInstitute/cell-eval issue 189).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pertjax.metrics import problem as problem_lib
from pertjax.metrics import pseudobulk, registry, retrieval
from pertjax.metrics.conventions import base, cell_eval
from pertjax.metrics.differential import agreement, calls

DES, PDS, MAE = 'overlap_at_N', 'discrimination_score_l1', 'mae'


def _compute(
  problem: problem_lib.Problem,
  wanted: Sequence[str],
  options: Mapping[str, Any],
) -> base.Values:
  registry.check_choice('ties', options['ties'], retrieval.TIES)
  registry.check_choice('gene_ties', options['gene_ties'], calls.TIES)
  found = {}
  if DES in wanted:
    both = [
      cell_eval.de_calls(problem, side) for side in ('predicted', 'observed')
    ]
    found[DES] = agreement.overlap_at_k(*both, ties=options['gene_ties'])
  if PDS in wanted:
    found[PDS] = cell_eval.discrimination(
      problem, 'l1', ties=options['ties'], absolute=options['absolute']
    )
  if MAE in wanted:
    found[MAE] = pseudobulk.mae(
      problem.means('predicted'), problem.means('observed')
    )
  return {name: np.asarray(x, np.float64) for name, x in found.items()}


_ALIASES = {DES: ('DES', 'des'), PDS: ('PDS', 'pds'), MAE: ('MAE',)}
_TOOL = cell_eval.CONVENTIONS[0]

CONVENTIONS = (
  base.Convention(
    name='vcc2025',
    title='Virtual Cell Challenge 2025: DES, PDS and MAE',
    reference='Virtual Cell Challenge 2025; cell-eval 0.8.2, profile vcc',
    scale='log1p',
    control='own',
    columns=tuple(
      _TOOL.column(name)._replace(aliases=aliases)
      for name, aliases in _ALIASES.items()
    ),
    compute=_compute,
    options={
      'ties': 'mid',  # As in 'cell-eval', and so is the next.
      'gene_ties': 'first',
      'absolute': False,  # True: without signs, as before October 2025.
    },
  ),
)
