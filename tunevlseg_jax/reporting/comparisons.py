"""Compares the methods of each data set case by case: intervals of their means, and tests of their differences."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from tunevlseg_jax.reporting import headings, precision
from tunevlseg_jax.reporting.cells import Cell, Cells, Key, tested
from tunevlseg_jax.reporting.evaluations import read_units
from tunevlseg_jax.reporting.statistics import intervals, paired, units
from tunevlseg_jax.reporting.statistics.paired import Pair
from tunevlseg_jax.reporting.table import OTHER_PRECISION, Entry, Row, Table

NAME = "differences"
TITLE = "Differences from the best, Dice"
LARGEST = 20_000_000
"""Counts of drawn units that are held in memory; sets with more units get fewer bootstrap samples."""
FEWEST_RESAMPLES = 999


@dataclass(frozen=True)
class Comparison:
    """The methods of one data set that were scored on the same test records.

    Attributes:
      data: name of the data set.
      keys: of the cells, one for each method.
      ids: of the records.
      dice: mean Dice of each record over a cell's runs, (cell, record).
      scores: mean Dice of each independent unit over a cell's runs, (cell, unit).
      limits: of the 95 % interval of each cell's mean over units, (cell, 2); NaN for one unit.
      pairs: every pair of methods, by their names.
      precisions: behind the scores of each cell.
    """

    data: str
    keys: tuple[Key, ...]
    ids: Sequence[str]
    dice: np.ndarray
    scores: np.ndarray
    limits: np.ndarray
    pairs: Sequence[Pair]
    precisions: Mapping[Key, precision.Names] = field(default_factory=dict)

    @property
    def best(self) -> str:
        """The name of the method with the highest mean over units."""
        return self.pairs[0].first if self.pairs else headings.method(self.keys[0].row)

    @property
    def units(self) -> int:
        """How many independent units there are."""
        return self.scores.shape[1]

    @property
    def names(self) -> list[str]:
        """The methods' names, in the order of `keys`."""
        return [headings.method(key.row) for key in self.keys]

    @property
    def named_precisions(self) -> dict[str, precision.Names]:
        """The precisions behind each method's scores, by its name."""
        return {headings.method(key.row): self.precisions.get(key, frozenset()) for key in self.keys}

    @property
    def indistinguishable(self) -> frozenset[Key]:
        """The best method and all that aren't distinguishable from it; none where there is one method alone."""
        worse = {pair.second for pair in self.pairs if pair.first == self.best and pair.distinguishable}
        return frozenset(key for key in self.keys if self.pairs and headings.method(key.row) not in worse)


def compare(cells: Cells) -> list[Comparison]:
    """A comparison for each data set, in the order of the tables.

    A cell counts if every run of it has an evaluation of its own test records. Of a data set those with the records
    that most cells have are compared.
    """
    comparisons = []
    for data in headings.ordered({key.data for key in cells.by_key}):
        here = [cell for cell in cells.ordered if cell.key.data == data]
        found = {cell.key: _records(cell) for cell in here}
        sets = [frozenset(records) for records in found.values() if records]
        most = max(sets, key=sets.count, default=frozenset())
        fitting = {key: records for key, records in found.items() if records and records.keys() == most}
        if fitting:
            precisions = {cell.key: precision.of_cell(cell) for cell in here if cell.key in fitting}
            comparisons.append(_comparison(data, fitting, precisions))
    return comparisons


def precisions(several: Sequence[Comparison]) -> dict[Key, precision.Names]:
    """The precisions behind each cell's scores."""
    return {key: names for each in several for key, names in each.precisions.items()}


def table(comparisons: Sequence[Comparison]) -> Table | None:
    """Each method against the best of its data set; None where no data set has two methods."""
    rows: list[Row] = []
    several = [each for each in comparisons if each.pairs]
    common = precision.most(names for each in several for names in each.named_precisions.values())
    for each in several:
        others = {method for method, names in each.named_precisions.items() if names != common}
        best = [pair for pair in each.pairs if each.best in (pair.first, pair.second)]
        for number, pair in enumerate(sorted(best, key=lambda pair: pair.difference)):
            sign = OTHER_PRECISION * bool(others & {pair.first, pair.second})
            limits = [_entry(value, signed=True) for value in (pair.low, pair.high)]
            numbers = (Entry(pair.difference, signed=True, sign=sign), *limits)
            numbers += (_entry(pair.p), _entry(pair.false_claim))
            rows.append(Row((each.data, pair.first, pair.second), numbers, ruled=bool(rows) and not number))
    if not rows:
        return None
    return Table(
        name=NAME,
        title=TITLE,
        caption=" ".join(filter(None, (*_explained(), _units(comparisons), precision.caption(common)))),
        head=("data set", "best", "compared with"),
        columns=("difference", "95 % from", "to", "p, %", "risk, %"),
        rows=tuple(rows),
        notes=_other_precisions(several, common),
    )


def uncompared(cells: Cells, comparisons: Sequence[Comparison]) -> list[str]:
    """A line for each data set that has methods with test scores that couldn't be compared with the others."""
    lines = []
    for each in comparisons:
        others = [cell for cell in cells.ordered if cell.key.data == each.data and cell.key not in each.keys]
        if names := [headings.method(cell.key.row) for cell in others if cell.score("dice") is not None]:
            lines.append(
                f"{TITLE}, {each.data}: without {'; '.join(names)}, as not all of their runs have an evaluation of the"
                " test records that most methods have."
            )
    return lines


def _other_precisions(several: Sequence[Comparison], common: precision.Names) -> tuple[str, ...]:
    """Notes on the methods of another precision than most."""
    notes = [
        precision.note_on(key, names, common, OTHER_PRECISION)
        for each in several
        for key, names in each.precisions.items()
    ]
    return tuple(note for note in notes if note is not None)


def _entry(value: float, *, signed: bool = False) -> Entry:
    """A number of the table; one unit has no interval and no risk, so that they are missing."""
    return Entry() if math.isnan(value) else Entry(value, signed=signed)


def interval(comparisons: Sequence[Comparison], key: Key) -> dict[str, float | int | None]:
    """The limits of a cell's mean Dice over units and their number, by the names of `cells.csv`."""
    for each in comparisons:
        if key in each.keys and each.units > 1:
            low, high = each.limits[each.keys.index(key)]
            return {"dice_low": float(low), "dice_high": float(high), "units": each.units}
    return {"dice_low": None, "dice_high": None, "units": None}


def _records(cell: Cell) -> dict[str, tuple[float, str]]:
    """The mean Dice over a cell's runs and the unit of each record, by its id.

    Empty if a run with test scores has no evaluation of its records, or runs differ in their records.
    """
    evaluations = [run.own_test for run in cell.runs if tested(run) is not None]
    runs = [read_units(one.samples) for one in evaluations if one is not None]
    if not runs or len(runs) < len(evaluations) or any(run.keys() != runs[0].keys() for run in runs):
        return {}
    means, _ = units.over_seeds(np.array([[run[id][0] for id in runs[0]] for run in runs]))
    return {id: (mean, unit) for mean, (id, (_, unit)) in zip(means.tolist(), runs[0].items(), strict=True)}


def _comparison(
    data: str,
    found: Mapping[Key, Mapping[str, tuple[float, str]]],
    precisions: Mapping[Key, precision.Names],
) -> Comparison:
    names = [headings.method(key.row) for key in found]
    ids, dice = units.matrix(
        {headings.method(key.row): {id: mean for id, (mean, _) in records.items()} for key, records in found.items()}
    )
    first = next(iter(found.values()))
    groups = [first[id][1] for id in ids]
    values = units.unit_means(dice, groups)
    counts = resamples(values.shape[1])
    limits = np.stack([intervals.bca(row, counts) for row in values])
    return Comparison(data, tuple(found), ids, dice, values, limits, paired.pairs(names, values, counts), precisions)


def resamples(number: int) -> np.ndarray:
    """The bootstrap samples of this many units, of which memory holds as many as LARGEST allows."""
    return intervals.resamples(number, max(FEWEST_RESAMPLES, min(intervals.RESAMPLES, LARGEST // number)))


def _explained() -> tuple[str, ...]:
    return (
        "Difference in points: the best method's mean Dice minus the other's, over independent units.",
        "A unit is a patient or a video where the set knows them, else an image; a case's seeds are averaged first.",
        "95 %: the interval of the difference by the BCa bootstrap over units.",
        "p in %: Wilcoxon's signed-rank test, Holm's correction over the data set's pairs; 0.00 is less than 0.005.",
        "Risk in %: the probability that the best isn't better, given the scores.",
        "All of them speak of the choice of test cases, and not of the choice of seeds.",
    )


def _units(comparisons: Sequence[Comparison]) -> str:
    counts = (f"{each.units} of {len(each.ids)} records ({each.data})" for each in comparisons if each.pairs)
    return f"Units: {', '.join(counts)}."
