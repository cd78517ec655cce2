"""Virtual Cell Challenge 2026: the six scored metrics, of cell-eval2 0.20.

`scaling.vcc2026_score` scales their means between those of a mean response, 0,
and of replicates, 1: see `anchors.baseline` and `anchors.replicate`.
"""

from __future__ import annotations

from pertjax.metrics.conventions import base, cell_eval2

SCORED = (
  'pds_cosine',
  cell_eval2.NORM,
  f'{cell_eval2.PREFIX}direction_fidelity_yield_raw',
  f'{cell_eval2.PREFIX}direction_reach_raw',
  f'{cell_eval2.PREFIX}sig_jaccard',
  f'{cell_eval2.PREFIX}lfc_nmae',
)
_TOOL = cell_eval2.CONVENTIONS[0]

CONVENTIONS = (
  base.Convention(
    name='vcc2026',
    title='Virtual Cell Challenge 2026: the six scored metrics',
    reference=f'Virtual Cell Challenge 2026; {_TOOL.reference}',
    scale='counts',
    control='real',
    columns=tuple(_TOOL.column(name) for name in SCORED),
    compute=cell_eval2.compute,
    options=cell_eval2.OPTIONS,
  ),
)
