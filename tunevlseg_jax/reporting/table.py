"""A table independent of its output format: words on the left, numbers on the right."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from tunevlseg_jax.reporting.cells import Score

Mark = Literal["", "best", "second"]
MINUS = "\N{MINUS SIGN}"


@dataclass(frozen=True)
class Entry:
    """A number of a table.

    Attributes:
      value: in the table's unit as files have it, so 0..1 for Dice; None for a missing one.
      std: over seeds; None where there is one.
      mark: whether it is the best or the second of its column.
      of: for a mean that lacks some of its parts, how many of how many it has.
      signed: whether it is a difference.
      sign: "†" and the like, which a note explains.
    """

    value: float | None = None
    std: float | None = None
    mark: Mark = ""
    of: tuple[int, int] | None = None
    signed: bool = False
    sign: str = ""

    @classmethod
    def of_score(cls, score: Score | None, sign: str = "") -> Entry:
        """A score as it is; None as a missing number."""
        return cls() if score is None else cls(score.mean, score.std, sign=sign)


@dataclass(frozen=True)
class Row:
    """A line of a table: its words, its numbers, and whether a rule stands above it."""

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
    marks: list[Mapping[float, Mark]] = []
    for column in zip(*(row.entries for row in rows), strict=True):
        values = [_rounded(entry) for entry in column if _counts(entry)]
        ranked = sorted(set(values), reverse=True)
        marks.append(dict(zip(ranked, ("best", "second"), strict=False)) if len(values) > 1 else {})
    return tuple(
        dataclasses.replace(
            row,
            entries=tuple(
                dataclasses.replace(entry, mark=column.get(_rounded(entry), "")) if _counts(entry) else entry
                for entry, column in zip(row.entries, marks, strict=True)
            ),
        )
        for row in rows
    )


def mean(entries: Sequence[Entry]) -> Entry:
    """The mean over columns, which tells where some are missing."""
    values = [entry.value for entry in entries if entry.value is not None]
    if not values:
        return Entry()
    of = None if len(values) == len(entries) else (len(values), len(entries))
    return Entry(sum(values) / len(values), of=of, signed=any(entry.signed for entry in entries))


def difference(first: Entry, second: Entry) -> Entry:
    """How much higher the first is; missing where either is."""
    if first.value is None or second.value is None:
        return Entry()
    return Entry(first.value - second.value, signed=True)


def _counts(entry: Entry) -> bool:
    return entry.value is not None and entry.of is None


def _rounded(entry: Entry) -> float:
    assert entry.value is not None, "a number"
    return round(entry.value, 4)
