"""A table independent of its output format: words on the left, numbers on the right."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tunevlseg_jax.reporting.cells import Score

Mark = Literal["", "best", "second"]
MINUS = "\N{MINUS SIGN}"
OTHER_PRECISION = "‡"
"""Marks numbers of another precision than most, and numbers that are computed from one."""


AS_GOOD = "≈"
"""Marks the best of a data set and all methods that aren't distinguishable from it."""


@dataclass(frozen=True)
class Entry:
    """A number of a table.

    Attributes:
      value: in the table's unit as files have it, so 0..1 for Dice; None if missing.
      std: over folds and seeds; None where there is one run.
      mark: whether it is the best or the second of its column.
      of: for a mean of incomplete columns, the number of columns with a value, and of all columns.
      signed: whether it is a difference.
      sign: such as "†", which a note explains.
    """

    value: float | None = None
    std: float | None = None
    mark: Mark = ""
    of: tuple[int, int] | None = None
    signed: bool = False
    sign: str = ""

    @classmethod
    def of_score(cls, score: Score | None, sign: str = "") -> "Entry":
        """A score as it is; None as a missing number."""
        return cls() if score is None else cls(score.mean, score.std, sign=sign)


@dataclass(frozen=True)
class Row:
    """A row of a table: its labels, its numbers, and whether a rule stands above it."""

    labels: tuple[str, ...]
    entries: tuple[Entry, ...] = ()
    ruled: bool = False


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
      name: of its files.
      title: a few words.
      caption: what a reader must know of its numbers, in sentences.
      head: headers of the columns of words.
      columns: headers of the columns of numbers.
      rows: the lines.
      groups: headers over neighbouring columns of numbers, each with how many it spans; empty for none.
      notes: what is missing or different, a sentence each.
      scale: what numbers are multiplied by to be shown: 100 for percents.
    """

    name: str
    title: str
    caption: str
    head: tuple[str, ...]
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    groups: tuple[tuple[str, int], ...] = ()
    notes: tuple[str, ...] = ()
    scale: float = 100.0

    def shown(self, entry: Entry) -> str:
        """A number as text, without its mark: "81.20", "81.20 ± 0.35", "(81.20, 3 of 4)", "+1.20", "-" if missing."""
        if entry.value is None:
            return "-"
        number = f"{entry.value * self.scale:{'+' if entry.signed else ''}.2f}".replace("-", MINUS)
        if entry.std is not None:
            number += f" ± {entry.std * self.scale:.2f}"
        if entry.of is not None:
            number = f"({number}, {entry.of[0]} of {entry.of[1]})"
        return number + entry.sign


def marked(rows: Sequence[Row]) -> tuple[Row, ...]:
    """The rows with the best and the second of each column marked; equals share a mark, and incomplete means have none.

    Numbers are compared as they are shown, to a hundredth of a percent. A column of one number has no best.
    """
    columns = [_marked_column(column) for column in zip(*(row.entries for row in rows), strict=True)]
    return tuple(
        dataclasses.replace(row, entries=entries) for row, entries in zip(rows, zip(*columns, strict=True), strict=True)
    )


def _marked_column(column: Sequence[Entry]) -> list[Entry]:
    rounded = [None if entry.value is None or entry.of else round(entry.value, 4) for entry in column]
    values = [value for value in rounded if value is not None]
    marks: dict[float | None, Mark] = {}
    if len(values) > 1:
        marks = dict(zip(sorted(set(values), reverse=True), ("best", "second"), strict=False))
    return [dataclasses.replace(entry, mark=marks.get(value, "")) for entry, value in zip(column, rounded, strict=True)]


def mean(entries: Sequence[Entry]) -> Entry:
    """The mean over columns."""
    values = [entry.value for entry in entries if entry.value is not None]
    if not values:
        return Entry()
    of = None if len(values) == len(entries) else (len(values), len(entries))
    signed = any(entry.signed for entry in entries)
    return Entry(sum(values) / len(values), of=of, signed=signed, sign=_other_precision(*entries))


def difference(first: Entry, second: Entry) -> Entry:
    """The first minus the second; missing where either is."""
    if first.value is None or second.value is None:
        return Entry()
    return Entry(first.value - second.value, signed=True, sign=_other_precision(first, second))


def _other_precision(*entries: Entry) -> str:
    return OTHER_PRECISION if any(OTHER_PRECISION in entry.sign for entry in entries) else ""
