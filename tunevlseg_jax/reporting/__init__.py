"""Tables, figures and a page of the runs that lie under a folder: what the paper has, and how it came about."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tunevlseg_jax.reporting.comparisons import Comparison


def compare(folder: str | Path) -> list[Comparison]:
    """Compares the methods of each data set case by case, for all runs under a folder, as `report` does.

    Returns:
      A `comparisons.Comparison` for each data set with evaluations, in the order of the tables.

    Raises:
      UserError: there is no run.
    """
    from tunevlseg_jax.reporting import cells, comparisons, runs  # a help text doesn't load the statistics

    gathered, _ = runs.gather_some(Path(folder))
    return comparisons.compare(cells.choose(gathered))
