"""Test Dice against the number of training records of each class, from runs that differ in `data.shots`."""

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from tunevlseg_jax.reporting import cells as cell_rules
from tunevlseg_jax.reporting import comparisons, precision
from tunevlseg_jax.reporting.cells import RowKey
from tunevlseg_jax.reporting.runs import Run

ALL = "all"


class Point(NamedTuple):
    """A method on a data set with some training records.

    Attributes:
      shots: training records of each class, or ALL.
      dice: mean test Dice over runs.
      low: lower limit of its 95 % interval over test cases; None without evaluations of the test records.
      high: upper limit.
      units: how many independent units the interval is over; None likewise.
      precisions: behind the runs' scores.
    """

    shots: str
    dice: float
    low: float | None
    high: float | None
    units: int | None
    precisions: precision.Names


Curves = dict[str, dict[RowKey, list[Point]]]
"""The points of each method with two numbers of shots or more, by data set."""


def curves(runs: Sequence[Run]) -> Curves:
    """The curves of trained runs; each number of shots is compared by itself, by the rules of the tables."""
    by_shots: dict[int | None, list[Run]] = defaultdict(list)
    for run in runs:
        if not run.zero_shot:
            by_shots[run.config.data.shots].append(run)
    if len(by_shots) < 2:
        return {}
    found: Curves = defaultdict(lambda: defaultdict(list))
    for shots in sorted(by_shots, key=lambda shots: (shots is None, shots or 0)):
        cells = cell_rules.choose(by_shots[shots])
        compared = comparisons.compare(cells)
        for cell in cells.ordered:
            if (score := cell.score("dice")) is None:
                continue
            limits = comparisons.interval(compared, cell.key)
            number = next((each.units for each in compared if cell.key in each.keys), None)
            name = ALL if shots is None else str(shots)
            point = Point(name, score.mean, limits["dice_low"], limits["dice_high"], number, precision.of_cell(cell))
            found[cell.key.data][cell.key.row].append(point)
    several = {data: {row: points for row, points in rows.items() if len(points) > 1} for data, rows in found.items()}
    return {data: rows for data, rows in several.items() if rows}
