"""One HTML file that shows what a run is and how far its numbers carry."""

from pertjax.report.page import write

__all__ = ('write',)
