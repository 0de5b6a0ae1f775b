"""The tables: the paper's Tables 3, 4 and 5, and tests on other data sets."""

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence

from tunevlseg_jax.reporting import headings, precision, scores
from tunevlseg_jax.reporting.cells import GAUSSIAN, NO_UPSAMPLER, Cell, Cells, Key, RowKey, summary
from tunevlseg_jax.reporting.comparisons import Comparison
from tunevlseg_jax.reporting.evaluations import StoredEvaluation
from tunevlseg_jax.reporting.table import AS_GOOD, OTHER_PRECISION, Entry, Row, Table, difference, marked, mean

TITLES = {
    "table3": "Data sets and combinations (Table 3 of the paper)",
    "table4": "Initial context (Table 4 of the paper)",
    "table5": "Learnable upsampler (Table 5 of the paper)",
}
NAMES = (*(f"table3_{metric}" for metric in scores.METRICS), "table4", "table5", "cross_data")
"""Of all tables."""
LEARNABLE = "learnable upsampler"
EXPLAINED = (
    f" {AS_GOOD}: the best of a data set case by case and all that aren't distinguishable from it, by Wilcoxon's"
    " signed-rank test of the Dice of independent units with Holm's correction over the set's pairs, at 5 %."
)

Elsewhere = Mapping[Key, Mapping[str, Sequence[StoredEvaluation]]]
"""The evaluations on other data sets of the runs that represent a cell, by cell and data set."""


def tables(cells: Cells, comparisons: Sequence[Comparison] = ()) -> tuple[list[Table], list[str]]:
    """Every table with content, and for each of the others why there is none; see `results` of the comparisons."""
    if not cells.by_key:
        return [], ["There are no tables, as no run counts."]
    shown = {
        **{
            f"{TITLES['table3']}, {name}": results(cells, metric, comparisons)
            for metric, (name, _) in scores.METRICS.items()
        },
        TITLES["table4"]: compared(cells, "table4", GAUSSIAN),
        TITLES["table5"]: compared(cells, "table5", NO_UPSAMPLER),
        "Tests on other data sets": cross(cells),
    }
    missing = [f"{title}: not made, as no run is for it." for title, table in shown.items() if table is None]
    return [table for table in shown.values() if table is not None], missing


def results(cells: Cells, metric: str, comparisons: Sequence[Comparison] = ()) -> Table:
    """Table 3: every combination on every data set; an ablated one where there is no other of its combination.

    Of Dice, whose differences the comparisons test, all that aren't distinguishable from the best are marked.
    """
    rows = [row for row in cells.rows if not row.ablation or row._replace(ablation="") not in cells.rows]
    compared = [each for each in comparisons if each.pairs and metric == "dice"]
    data = headings.ordered({key.data for key in cells.by_key})
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
        rows=marked(_as_good(lines, rows, data, compared)),
        used=_of(cells, rows),
        common=precision.usual(cells.ordered),
        legend=f"Bold: the best of a column; underlined: the second.{EXPLAINED if compared else ''}{_beyond(rows)}",
        notes=_untested(_of(cells, rows), compared),
    )


def _as_good(
    lines: Sequence[Row], rows: Sequence[RowKey], data: Sequence[str], compared: Sequence[Comparison]
) -> list[Row]:
    """The lines with a sign at each number that isn't distinguishable from the best of its data set."""
    signed = frozenset().union(*(each.indistinguishable for each in compared))
    changed = []
    for line, row in zip(lines, rows, strict=True):
        entries = [
            dataclasses.replace(entry, sign=AS_GOOD + entry.sign) if Key(*row, name) in signed else entry
            for entry, name in zip(line.entries, data, strict=False)
        ]
        changed.append(dataclasses.replace(line, entries=(*entries, *line.entries[len(data) :])))
    return changed


def _untested(used: Sequence[Cell], compared: Sequence[Comparison]) -> list[str]:
    """Notes on the numbers of compared data sets that no test compares with the best."""
    tested = {key for each in compared for key in each.keys}
    sets = {each.data for each in compared}
    places = [headings.place(cell.key) for cell in used if cell.key.data in sets and cell.key not in tested]
    return [f"Not tested, since not all runs have an evaluation of the same records: {'; '.join(places)}."] * bool(
        places
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
        ways = LEARNABLE if ablation == NO_UPSAMPLER else _init_phrase(_of(cells, [usual]))
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
        common=precision.usual(cells.ordered),
        legend="Difference: how many percentage points the first is above the second; its mean is over where both are.",
    )


def cross(cells: Cells) -> Table | None:
    """Each combination trained on each data set against every data set that any of them was tested on; None where there
    are no such tests.

    The numbers of a column and a model are of the same records: those of that data set's own cells, or where it has
    none, those of most evaluations.
    """
    tuned = {key: cell for key, cell in cells.by_key.items() if not (key.ablation or cell.runs[0].zero_shot)}
    elsewhere: Elsewhere = {key: _elsewhere(cell) for key, cell in tuned.items()}
    data = headings.ordered({name for key, others in elsewhere.items() for name in (*others, key.data) if others})
    if not data:
        return None
    records, common = _records(cells, elsewhere), precision.usual(cells.ordered)
    lines, notes, used = [], [], []
    for row in cells.rows:
        trained = [key for name in data if (key := Key(*row, name)) in elsewhere]
        if not any(elsewhere[key] for key in trained):
            continue
        for number, key in enumerate(trained):
            entries = []
            for name in data:
                stored = elsewhere[key].get(name, ())
                fitting = [each for each in stored if each.data_sha256 == records[key.model, name]]
                if len(fitting) < len(stored):
                    notes.append(f"{headings.place(key)}: an evaluation on {name} is of other records, and left out.")
                if seen := max((each.trained_on or 0 for each in fitting), default=0):
                    notes.append(f"{headings.place(key)}: {seen} images of {name} that it is tested on trained it.")
                if 0 < len(fitting) < (runs := len(cells.by_key[key].runs)):
                    notes.append(f"{headings.place(key)}: {len(fitting)} of its {runs} runs tested on {name}.")
                entry = Entry.of_score(summary([each.scores["dice"] for each in fitting]))
                entry = _marked(entry, cells.by_key[key], fitting, common)
                entries.append(scores.entry(cells.by_key[key], "dice", common) if name == key.data else entry)
            lines.append(Row((*scores.labels(row), key.data), tuple(entries), ruled=bool(lines) and not number))
            used.append(cells.by_key[key])
    return scores.table(
        "cross_data",
        "Trained on one data set and tested on others, Dice",
        metric="dice",
        head=("model", "combination", "trained on"),
        data=data,
        rows=lines,
        used=used,
        common=precision.usual(cells.ordered),
        legend="Columns: tested on.",
        notes=notes,
    )


def _marked(entry: Entry, cell: Cell, evaluations: Sequence[StoredEvaluation], common: precision.Names) -> Entry:
    """The mean of a cell's evaluations on another data set, marked where one is of another precision than most."""
    apart = any(not precision.scored(each) <= common for each in evaluations) or precision.of_cell(cell) != common
    return dataclasses.replace(entry, sign=OTHER_PRECISION if apart and entry.value is not None else "")


def _of(cells: Cells, rows: Sequence[RowKey]) -> list[Cell]:
    """The cells of these rows."""
    return [cell for cell in cells.ordered if cell.key.row in rows]


def _without(row: RowKey, ablation: str) -> RowKey:
    """The row without this ablation."""
    return row._replace(ablation=", ".join(part for part in row.ablation.split(", ") if part != ablation))


def _init_phrase(used: Sequence[Cell]) -> str:
    """The phrase that initialises the contexts of these cells, if they share one."""
    phrases = {getattr(run.config.learner, "init_phrase", None) for cell in used for run in cell.runs}
    return f'"{phrases.pop()}"' if len(phrases) == 1 else "words"


def _beyond(rows: Sequence[RowKey]) -> str:
    """A sentence on the learners that the paper doesn't have; "" for none."""
    others = {headings.shown(row.combination) for row in rows if headings.group(row.combination) == headings.BEYOND}
    return f" Beyond the paper: {', '.join(sorted(others))}." if others else ""


def _is_apart(before: RowKey, row: RowKey) -> bool:
    """Whether a rule stands between two rows: between models, and between the groups of combinations."""
    first, second = (headings.group(each.combination) for each in (before, row))
    return before.model != row.model or first != second


def _elsewhere(cell: Cell) -> dict[str, list[StoredEvaluation]]:
    """The evaluations of a cell's runs on other data sets under the same protocol, by data set."""
    by_data = defaultdict(list)
    for run in cell.runs:
        for stored in run.evaluations:
            data = run.config.data
            if stored.is_plain_test and stored.data != data.name and stored.protocol == data.protocol:
                by_data[stored.data].append(stored)
    return dict(by_data)


def _records(cells: Cells, elsewhere: Elsewhere) -> dict[tuple[str, str], Hashable]:
    """For each model and data set the fingerprint of the test records to compare on."""
    counts: dict[tuple[str, str], Counter[Hashable]] = defaultdict(Counter)
    for key, others in elsewhere.items():
        for name, evaluations in others.items():
            counts[key.model, name].update(each.data_sha256 for each in evaluations)
    most = {place: count.most_common(1)[0][0] for place, count in counts.items()}
    return most | {(key.model, key.data): cell.condition["test records"] for key, cell in cells.by_key.items()}
