"""The precision in which the runs of a cell were computed, so that no table mixes precisions without saying so."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from tunevlseg_jax.reporting import headings
from tunevlseg_jax.reporting.cells import Cell
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
    name = None if evaluation is None else _recorded(evaluation.computed)
    return frozenset() if name is None else frozenset({name})


def of_cell(cell: Cell) -> Names:
    """The precisions behind a cell's test scores."""
    return frozenset().union(*({trained(run)} | scored(run.own_test) for run in cell.runs))


def usual(cells: Iterable[Cell]) -> Names:
    """The precisions behind most cells; of equals those that come first."""
    return max(Counter(map(of_cell, cells)).items(), key=lambda pair: pair[1], default=(frozenset(), 0))[0]


def caption(common: Names) -> str:
    """What a caption says of the unmarked numbers; nothing where no card records it."""
    return "" if common <= {UNKNOWN} else f"Computed in {_joined(common)} unless a note says otherwise."


def note(cell: Cell, common: Names, sign: str) -> str | None:
    """The note on a cell of another precision than most; None for the others."""
    names = of_cell(cell)
    if names == common:
        return None
    place = headings.place(cell.key)
    if len({trained(run) for run in cell.runs}) > 1:
        return f"{sign} {place}: a mean over runs computed in {_joined(names)}."
    return f"{sign} {place}: computed in {_joined(names)}, where most numbers are in {_joined(common)}."


def _recorded(computed: Any) -> str | None:
    name = computed.get("precision") if isinstance(computed, Mapping) else None
    return name if isinstance(name, str) else None


def _joined(names: Names) -> str:
    return " and ".join(sorted(names))
