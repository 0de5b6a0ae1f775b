"""The paper's tables of the runs that were gathered: Tables 3, 4 and 5."""

from __future__ import annotations

from collections.abc import Sequence

from tunevlseg_jax.reporting import headings, scores
from tunevlseg_jax.reporting.cells import DECODER, GAUSSIAN, MODEL, NO_UPSAMPLER, ZERO_SHOT, Cell, Cells, RowKey
from tunevlseg_jax.reporting.cross import cross
from tunevlseg_jax.reporting.table import Row, Table, difference, marked, mean

TITLES = {
    "table3": "Data sets and combinations (Table 3 of the paper)",
    "table4": "Initial context (Table 4 of the paper)",
    "table5": "Learnable upsampler (Table 5 of the paper)",
}
NAMES = (*(f"table3_{metric}" for metric in scores.METRICS), "table4", "table5", "cross_data")
"""Of all tables that there may be."""
LEARNABLE = "learnable upsampler"


def tables(cells: Cells) -> tuple[list[Table], list[str]]:
    """Every table that has something to show, and for each of the others why it isn't there."""
    if not cells.by_key:
        return [], ["There are no tables, as no run counts."]
    made = {
        **{f"{TITLES['table3']}, {name}": results(cells, metric) for metric, (name, _) in scores.METRICS.items()},
        TITLES["table4"]: compared(cells, "table4", GAUSSIAN),
        TITLES["table5"]: compared(cells, "table5", NO_UPSAMPLER),
        "Tests on other data sets": cross(cells),
    }
    missing = [f"{title}: not made, as no run is for it." for title, table in made.items() if table is None]
    return [table for table in made.values() if table is not None], missing


def results(cells: Cells, metric: str) -> Table:
    """Table 3: every combination on every data set. A combination that was only tried in an ablated way stands with
    that."""
    rows = [row for row in cells.rows if not row.ablation or row._replace(ablation="") not in cells.rows]
    data = headings.ordered(cells.data)
    lines = [
        scores.line(cells, row, data, metric, scores.labels(row), before is not None and _is_apart(before, row))
        for before, row in zip((None, *rows), rows, strict=False)
    ]
    return scores.table(
        f"table3_{metric}",
        f"{TITLES['table3']}, {scores.METRICS[metric][0]}",
        metric=metric,
        head=("model", "combination"),
        data=data,
        rows=marked(lines),
        used=_of(cells, rows),
        legend="Bold: the best of a column; underlined: the second.",
    )


def compared(cells: Cells, name: str, ablation: str) -> Table | None:
    """Tables 4 and 5: each combination with and without an ablation, and the difference; None where no run has it."""
    pairs = [(_without(row, ablation), row) for row in cells.rows if ablation in row.ablation.split(", ")]
    if not pairs:
        return None
    used = _of(cells, [row for pair in pairs for row in pair])
    data = headings.ordered({cell.key.data for cell in used})
    lines: list[Row] = []
    for usual, ablated in pairs:
        ways = LEARNABLE if ablation == NO_UPSAMPLER else _words(_of(cells, [usual]))
        first, second = (
            scores.line(cells, row, data, "dice", (*scores.labels(usual), way), ruled=bool(lines) and row is usual)
            for row, way in ((usual, ways), (ablated, ablation))
        )
        apart = [difference(*both) for both in zip(first.entries[:-1], second.entries[:-1], strict=True)]
        lines += [first, second, Row((*scores.labels(usual), "difference"), (*apart, mean(apart)))]
    return scores.table(
        name,
        f"{TITLES[name]}, Dice",
        metric="dice",
        head=("model", "combination", "with"),
        data=data,
        rows=lines,
        used=used,
        legend="Difference: how many percentage points the first is above the second; its mean is over where both are.",
    )


def _of(cells: Cells, rows: Sequence[RowKey]) -> list[Cell]:
    """The cells of these rows that there are."""
    return [cell for row in dict.fromkeys(rows) for cell in cells.of(row)]


def _without(row: RowKey, ablation: str) -> RowKey:
    """The row that differs in this ablation alone."""
    return row._replace(ablation=", ".join(part for part in row.ablation.split(", ") if part != ablation))


def _words(used: Sequence[Cell]) -> str:
    """The phrase that contexts start from."""
    phrases = {getattr(run.config.learner, "init_phrase", None) for cell in used for run in cell.runs}
    return f'"{phrases.pop()}"' if len(phrases) == 1 else "words"


def _is_apart(before: RowKey, row: RowKey) -> bool:
    """Whether a rule parts two rows: between models, and between baselines and prompts."""
    baselines = [one.combination in (ZERO_SHOT, DECODER, MODEL) for one in (before, row)]
    return before.model != row.model or baselines[0] != baselines[1]
