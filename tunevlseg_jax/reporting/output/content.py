"""The content of a report, from which its Markdown and its page are written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tunevlseg_jax.reporting.cells import Cells
from tunevlseg_jax.reporting.runs import Skipped
from tunevlseg_jax.reporting.table import Table

if TYPE_CHECKING:
    from tunevlseg_jax.reporting.output.gallery import Gallery

PROGRAM = "python -m tunevlseg_jax.report"


@dataclass(frozen=True)
class Content:
    """Everything that a report shows.

    Attributes:
      source: the folder of the runs.
      cells: the runs that were compared.
      tables: in their order.
      untabled: for each table without content, why there is none.
      skipped: runs and evaluations that don't count or can't be compared.
      gallery: figures and samples; None in a report without a page.
    """

    source: str
    cells: Cells
    tables: Sequence[Table]
    untabled: Sequence[str]
    skipped: Sequence[Skipped]
    gallery: Gallery | None = None

    @property
    def summary(self) -> str:
        """The numbers of runs and cells."""
        return f"{_counted(len(self.cells.compared), 'run')} in {_counted(len(self.cells.by_key), 'cell')}"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
