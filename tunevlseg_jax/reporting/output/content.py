"""The content of a report, from which its Markdown and its page are written."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tunevlseg_jax.reporting.cells import Cells
from tunevlseg_jax.reporting.comparisons import Comparison
from tunevlseg_jax.reporting.learning_curve import Curves
from tunevlseg_jax.reporting.robustness import Stored
from tunevlseg_jax.reporting.runs import Skipped
from tunevlseg_jax.reporting.table import Table

if TYPE_CHECKING:
    from tunevlseg_jax.reporting.figures.style import Picture as Figure
    from tunevlseg_jax.reporting.pictures import Picture


@dataclass(frozen=True)
class Content:
    """Everything that a report shows.

    Attributes:
      source: the folder of the runs.
      cells: the runs that were compared.
      tables: in their order.
      untabled: for each table without content, why there is none.
      skipped: runs and evaluations that don't count or can't be compared.
      figures: in their order.
      undrawn: for each figure that isn't drawn, why.
      samples: test records with the predicted masks, by data set.
      findings: sentences that say which method is better than which.
      comparisons: the methods of each data set, case by case.
      learning_curves: of runs that differ in their training records.
      robustness: the files of `evaluate --corrupt` and `--phrases`, by kind.
    """

    source: str
    cells: Cells
    tables: Sequence[Table]
    untabled: Sequence[str]
    skipped: Sequence[Skipped]
    figures: Sequence["Figure"] = ()
    undrawn: Sequence[str] = ()
    samples: Mapping[str, Sequence["Picture"]] = field(default_factory=dict)
    findings: Sequence[str] = ()
    comparisons: Sequence[Comparison] = ()
    learning_curves: Curves = field(default_factory=dict)
    robustness: Mapping[str, Stored] = field(default_factory=dict)

    @property
    def summary(self) -> str:
        """The numbers of runs and cells."""
        runs, cells = len(self.cells.compared), len(self.cells.by_key)
        return f"{runs} run{'s' * (runs != 1)} in {cells} cell{'s' * (cells != 1)}"
