"""The CSV files of a report: its tables, cells and pairs, and the Dice of every case for challengeR and others."""

import csv
import dataclasses
import io
import re
from collections.abc import Sequence
from pathlib import Path

from tunevlseg_jax.evaluation.record_scores import POLICIES
from tunevlseg_jax.reporting import comparisons, markup, pairs_over_sets, precision
from tunevlseg_jax.reporting.cells import Cells
from tunevlseg_jax.reporting.comparisons import Comparison
from tunevlseg_jax.reporting.output.collect import TABLES
from tunevlseg_jax.reporting.output.content import Content
from tunevlseg_jax.runtime.files import write_csv

CELLS_FILE, PAIRS_FILE, OVER_SETS_FILE, CASES = "cells.csv", "pairs.csv", "pairs_over_sets.csv", "cases"


def write(content: Content, output: Path) -> None:
    """Writes all of them.

    Raises:
      UserError: they can't be written.
    """
    write_csv(output / CELLS_FILE, _cells(content.cells, content.comparisons))  # first: it marks the folder as a report
    if pairs := _pairs(content.comparisons):
        write_csv(output / PAIRS_FILE, pairs)
    if over_sets := pairs_over_sets.pairs(content.comparisons):
        write_csv(output / OVER_SETS_FILE, [dataclasses.asdict(pair) for pair in over_sets])
    for each in content.comparisons:
        write_csv(output / _cases_file(each.data), _cases(each))
    for table in content.tables:
        write_csv(output / f"{table.name}.csv", markup.csv_rows(table))


def earlier(output: Path) -> list[str]:
    """Files that an earlier report may have and a new one may lack."""
    path = output / CELLS_FILE
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    data = {row["data"]: None for row in csv.DictReader(io.StringIO(text, newline="")) if row.get("data")}
    return [*(f"{table}.csv" for table in TABLES), PAIRS_FILE, OVER_SETS_FILE, *map(_cases_file, data)]


def _cases_file(data: str) -> str:
    name = re.sub(r"[^\w.-]", "_", data)
    return f"{CASES}/{name}.csv"


def _pairs(compared: Sequence[Comparison]) -> list[dict[str, object]]:
    """Every pair of methods of every data set, with the fields of `paired.Pair` and the precisions of both."""
    rows = []
    for each in compared:
        names = {method: precision.column(of) for method, of in each.named_precisions.items()}
        for pair in each.pairs:
            both = {"first_precision": names[pair.first], "second_precision": names[pair.second]}
            rows.append({"data": each.data, **dataclasses.asdict(pair), **both})
    return rows


def _cases(each: Comparison) -> list[dict[str, object]]:
    """The Dice of every test record of a data set, with a column for each method."""
    return [
        {"case_id": id, **dict(zip(each.names, column, strict=True))}
        for id, column in zip(each.ids, each.dice.T.tolist(), strict=True)
    ]


def _cells(cells: Cells, compared: Sequence[Comparison]) -> list[dict[str, object]]:
    """For every cell its scores and the runs that represent it."""
    rows = []
    for cell in cells.ordered:
        scores: dict[str, object] = {}
        for metric in POLICIES:
            score = cell.score(metric)
            scores |= {metric: score and score.mean, f"{metric}_std": score and score.std}
        details = comparisons.interval(compared, cell.key) | {"records": cell.records}
        details |= {"from": "card" if cell.from_card else "evaluations"}
        details |= {"configurations": cell.configurations, "seeds": cell.seeds}
        details |= {"folds": len(cell.folds) or None, "std_over": cell.spread or None}
        details |= {"precision": precision.column(precision.of_cell(cell))}
        details |= {"runs": " ".join(str(run.folder) for run in cell.runs)}
        rows.append(cell.key._asdict() | scores | details)
    return rows
