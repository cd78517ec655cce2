"""All families, and what the tools do otherwise than this package."""

from __future__ import annotations

from typing import Any

from pertjax.metrics.translation import cells, means
from pertjax.metrics.translation.facets import Family

FAMILIES: dict[str, Family] = {**means.FAMILIES, **cells.FAMILIES}

# What tools do where this package by default does better: see `translate`.
PUBLISHED: dict[str, dict[str, Any]] = {
  'cell-eval': {'ties': 'tool'},
  'vcc2025': {'ties': 'tool'},
  'perturbench': {'ties': 'shuffled'},
  'perturbench2': {'ties': 'shuffled'},
  'scperteval': {'noise': True},
  'gears': {'undefined_pearson': 'zero'},
}
