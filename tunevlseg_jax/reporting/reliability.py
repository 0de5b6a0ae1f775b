"""The reliability of the pixels of each method: its bins of probabilities, as trained and calibrated."""

from collections.abc import Iterable
from typing import NamedTuple

from tunevlseg_jax.reporting import reliability_bins
from tunevlseg_jax.reporting.cells import Cell, Key
from tunevlseg_jax.reporting.reliability_bins import Bins


class Method(NamedTuple):
    """The bins of a cell, over the test pixels of its runs.

    Attributes:
      key: of the cell.
      trained: at temperature 1.
      calibrated: at the temperatures of the runs that were calibrated; None where there are none.
      records: the number of test records.
    """

    key: Key
    trained: Bins
    calibrated: Bins | None
    records: int


def methods(cells: Iterable[Cell]) -> tuple[list[Method], list[Key]]:
    """The methods in the order of the cells, and the keys of cells whose test evaluations have no bins."""
    found, lacking = [], []
    for cell in cells:
        evaluations = [run.own_test for run in cell.runs if run.own_test is not None]
        bins = [each for stored in evaluations for each in stored.reliability]
        trained, calibrated = ([each for each in bins if (each.temperature == 1) == plain] for plain in (True, False))
        if trained:
            pooled = reliability_bins.pooled(calibrated) if calibrated else None
            found.append(Method(cell.key, reliability_bins.pooled(trained), pooled, evaluations[0].records))
        elif evaluations:
            lacking.append(cell.key)
    return found, lacking
