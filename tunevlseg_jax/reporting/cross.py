"""Scores of runs of one data set on the test splits of the others."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence

from tunevlseg_jax.reporting import headings, scores
from tunevlseg_jax.reporting.cells import ZERO_SHOT, Cell, Cells, Key, summary
from tunevlseg_jax.reporting.evaluations import StoredEvaluation
from tunevlseg_jax.reporting.table import Entry, Row, Table

Elsewhere = Mapping[Key, Mapping[str, Sequence[StoredEvaluation]]]
"""The evaluations on other data sets of the runs that represent a cell, by cell and data set."""


def cross(cells: Cells) -> Table | None:
    """Each combination trained on each data set against every data set that one of them was tested on; None where
    nobody looked.

    The numbers of a column and a model are of the same records: those of that data set's own cells, or where it has
    none, those that most evaluations are of.
    """
    tuned = (key for key in cells.by_key if not key.ablation and key.combination != ZERO_SHOT)
    found: Elsewhere = {key: _elsewhere(cells.by_key[key]) for key in tuned}
    data = headings.ordered({name for key, others in found.items() for name in (*others, key.data) if others})
    if not data:
        return None
    records = _records(cells, found)
    lines, notes, used = [], [], []
    for row in cells.rows:
        trained = [key for name in data if (key := Key(*row, name)) in found]
        if not any(found[key] for key in trained):
            continue
        for number, key in enumerate(trained):
            entries = []
            for name in data:
                given = found[key].get(name, ())
                fitting = [one for one in given if one.data_sha256 == records[key.model, name]]
                if len(fitting) < len(given):
                    notes.append(f"{headings.place(key)}: an evaluation on {name} is of other records, and left out.")
                if 0 < len(fitting) < (runs := len(cells.by_key[key].runs)):
                    notes.append(f"{headings.place(key)}: {len(fitting)} of its {runs} runs tested on {name}.")
                elsewhere = Entry.of_score(summary([one.scores["dice"] for one in fitting]))
                entries.append(scores.entry(cells.by_key[key], "dice") if name == key.data else elsewhere)
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
        legend="Columns: tested on.",
        notes=notes,
    )


def _elsewhere(cell: Cell) -> dict[str, list[StoredEvaluation]]:
    """The evaluations of a cell's runs on other data sets under the same protocol, by data set."""
    by_data = defaultdict(list)
    for run in cell.runs:
        for stored in run.evaluations:
            data = run.config.data
            if stored.is_plain_test and stored.data != data.name and stored.protocol == data.protocol:
                by_data[stored.data].append(stored)
    return dict(by_data)


def _records(cells: Cells, found: Elsewhere) -> dict[tuple[str, str], Hashable]:
    """For each model and data set the fingerprint of the test records to compare on."""
    counts: dict[tuple[str, str], Counter[Hashable]] = defaultdict(Counter)
    for key, others in found.items():
        for name, evaluations in others.items():
            counts[key.model, name].update(one.data_sha256 for one in evaluations)
    most = {place: count.most_common(1)[0][0] for place, count in counts.items()}
    return most | {(key.model, key.data): cell.condition["test records"] for key, cell in cells.by_key.items()}
