"""The precision in which the runs of a cell were computed, so that no table mixes precisions without saying so."""

import itertools
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


def mixed(each: Iterable[tuple[Key, Names]]) -> tuple[str, ...]:
    """A note on methods that are compared with others of another precision on a data set; none without such.

    Args:
      each: the precisions behind each number; a method may have several on a data set.
    """
    sets: dict[str, list[tuple[RowKey, Names]]] = defaultdict(list)
    for key, names in each:
        sets[key.data].append((key.row, names))
    compared = [pairs for pairs in sets.values() if len({names for _, names in pairs}) > 1]
    methods: dict[str, dict[str, None]] = defaultdict(dict)
    for row, names in itertools.chain(*compared):
        methods[joined(names)][headings.method(row)] = None
    if not methods:
        return ()
    parts = (f"Computed in {names}: {'; '.join(each)}." for names, each in sorted(methods.items()))
    return (" ".join(("Methods of different precision are compared.", *parts)),)


def apart(first: str, second: str, of: Mapping[str, Names], where: str = "") -> str:
    """A sentence on two methods of different precision, by their names; "" where they have the same.

    Args:
      first: name of a method.
      second: of the other.
      of: the precisions of each.
      where: words behind "Their precisions differ", such as " on kvasir".
    """
    if of[first] == of[second]:
        return ""
    each = f"{first} was computed in {joined(of[first])}, {second} in {joined(of[second])}"
    return f"Their precisions differ{where}: {each}."


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
