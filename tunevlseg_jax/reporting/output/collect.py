"""Collects the content of a report from the runs under a folder: tables, findings, and what is missing."""

import dataclasses
import itertools
from pathlib import Path

from tunevlseg_jax.reporting import cells as cell_rules
from tunevlseg_jax.reporting import (
    comparisons,
    findings,
    further_scores,
    learning_curve,
    over_sets,
    recomputed,
    robustness,
    runs,
    tables,
    words,
)
from tunevlseg_jax.reporting.output.content import Content
from tunevlseg_jax.reporting.runs import Run
from tunevlseg_jax.reporting.table import Table

TABLES = (
    *tables.NAMES,
    comparisons.NAME,
    *over_sets.NAMES,
    *further_scores.NAMES,
    *robustness.NAMES.values(),
    words.NAME,
)
"""Names of all tables that a report may have."""
UNPAIRED = f"{comparisons.TITLE}: not made, as no data set has two methods with evaluations of the same test records."


def collect(folder: str, number_words: int, *, from_records: bool = False) -> Content:
    """The content of the report on a folder of runs, without figures.

    Args:
      folder: of the runs.
      number_words: how many of the nearest words to list; 0 for none.
      from_records: whether scores are computed again from the files of single records.

    Raises:
      UserError: there is no run.
    """
    gathered, skipped = runs.gather_some(Path(folder))
    cells = cell_rules.choose([_from_records(run) for run in gathered] if from_records else gathered)
    compared = comparisons.compare(cells)
    ranked = over_sets.rank(compared)
    shown, untabled = tables.tables(cells, compared)
    differences = comparisons.table(compared)
    shown += [] if differences is None else [differences]
    untabled += [UNPAIRED] if differences is None else comparisons.uncompared(cells, compared)
    stored, unread = robustness.read(cells, from_records=from_records)
    more = [
        over_sets.tables(compared, ranked),
        (further_scores.tables(cells), []),
        (robustness.tables(cells, stored), unread),
        _words(cells, number_words),
    ]
    shown += itertools.chain.from_iterable(tables for tables, _ in more)
    untabled += itertools.chain.from_iterable(lines for _, lines in more)
    return Content(
        folder,
        cells,
        shown,
        untabled,
        [*skipped, *cells.left_out],
        findings=findings.sentences(compared, ranked),
        comparisons=compared,
        learning_curves=learning_curve.curves(gathered),
        robustness=stored,
    )


def _words(cells: cell_rules.Cells, number: int) -> tuple[list[Table], list[str]]:
    """The table of the nearest words, and a line for each run of which there are none; neither for 0 words."""
    if not number:
        return [], []
    near, unread = words.words(cells, number)
    return [] if near is None else [near], unread


def _from_records(run: Run) -> Run:
    """The run with the scores of its evaluations computed again from their records."""
    return dataclasses.replace(run, evaluations=tuple(map(recomputed.evaluation, run.evaluations)))
