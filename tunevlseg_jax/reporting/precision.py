"""The precision in which the runs of a cell were computed, so that no table mixes precisions without saying so."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from tunevlseg_jax.reporting import headings
from tunevlseg_jax.reporting.cells import Cell, Key, RowKey
from tunevlseg_jax.reporting.evaluations import StoredEvaluation
from tunevlseg_jax.reporting.runs import Run

UNKNOWN = "a precision that isn't recorded"
"""Of runs of earlier versions that chose it by their device."""

Names = frozenset[str]


def trained(run: Run) -> str:
    """The precision of a run's training, from its card."""
    asked = run.config.train.precision
    return _recorded(run.card.get("computed")) or (UNKNOWN if asked == "auto" else asked)


def scored(evaluation: StoredEvaluation | None) -> Names:
    """The precision of an evaluation; empty where there is none, or it doesn't say."""
    return frozenset() if evaluation is None else _named(evaluation.computed)


def of_cell(cell: Cell) -> Names:
    """The precisions behind a cell's test scores."""
    return frozenset().union(*({trained(run)} | scored(run.own_test) for run in cell.runs))


def of_file(run: Run, file: Mapping[str, Any]) -> Names:
    """The precisions behind the scores in a file of a run: of its training, and of the file if it says so."""
    return frozenset({trained(run)}) | _named(file.get("computed"))


def usual(cells: Iterable[Cell]) -> Names:
    """The precisions behind most cells; of equals those that come first."""
    return most(map(of_cell, cells))


def most(each: Iterable[Names]) -> Names:
    """The precisions that are there most often; of equals those that come first."""
    return max(Counter(each).items(), key=lambda pair: pair[1], default=(frozenset(), 0))[0]


def caption(common: Names) -> str:
    """What a caption says of the unmarked numbers; nothing where no card records it."""
    return "" if common <= {UNKNOWN} else f"Computed in {joined(common)} unless a note says otherwise."


def note(cell: Cell, common: Names, sign: str) -> str | None:
    """The note on a cell of another precision than most; None for the others."""
    names = of_cell(cell)
    if names != common and len({trained(run) for run in cell.runs}) > 1:
        return f"{sign} {headings.place(cell.key)}: a mean over runs computed in {joined(names)}."
    return note_on(cell.key, names, common, sign)


def note_on(key: Key, names: Names, common: Names, sign: str) -> str | None:
    """The note on a cell's number of these precisions; None where they are those of most numbers."""
    if names == common:
        return None
    return f"{sign} {headings.place(key)}: computed in {joined(names)}, where most numbers are in {joined(common)}."


def mixed(of: Mapping[Key, Names]) -> tuple[str, ...]:
    """A note on the methods of the data sets that have several precisions; none without such data sets.

    Args:
      of: the precisions behind each cell's numbers.
    """
    sets: dict[str, dict[RowKey, Names]] = defaultdict(dict)
    for key, names in of.items():
        sets[key.data][key.row] = names
    methods: dict[str, dict[str, None]] = defaultdict(dict)
    for rows in sets.values():
        if len(frozenset().union(*rows.values())) > 1:
            for row, names in rows.items():
                methods[joined(names)][headings.method(row)] = None
    if not methods:
        return ()
    parts = (f"Computed in {names}: {'; '.join(each)}." for names, each in sorted(methods.items()))
    return (" ".join(("Several precisions are behind these numbers.", *parts)),)


def together(each: Iterable[tuple[Key, Names]]) -> dict[Key, Names]:
    """The precisions of each cell, from those of its parts."""
    of: dict[Key, Names] = defaultdict(frozenset)
    for key, names in each:
        of[key] |= names
    return of


def differ(first: str, second: str, one: Names, other: Names, where: str = "") -> str:
    """A sentence on two methods of different precision.

    Args:
      first: name of a method.
      second: of the other.
      one: the precisions of the first.
      other: of the second.
      where: words behind "Their precisions differ", such as " on kvasir".
    """
    return f"Their precisions differ{where}: {first} was computed in {joined(one)}, {second} in {joined(other)}."


def joined(names: Names) -> str:
    """Precisions in words."""
    return " and ".join(sorted(names))


def column(names: Names) -> str:
    """Precisions in a column of a CSV file, between spaces."""
    return " ".join(sorted("unknown" if name == UNKNOWN else name for name in names))


def _named(computed: Any) -> Names:
    name = _recorded(computed)
    return frozenset() if name is None else frozenset({name})


def _recorded(computed: Any) -> str | None:
    name = computed.get("precision") if isinstance(computed, Mapping) else None
    return name if isinstance(name, str) else None
