"""Writes the tables, the figures and the page of a report."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from tunevlseg_jax import __version__
from tunevlseg_jax.reporting import cells as cell_rules
from tunevlseg_jax.reporting import headings, markup, runs, tables, words
from tunevlseg_jax.reporting.cells import Cells
from tunevlseg_jax.reporting.runs import Run, Skipped
from tunevlseg_jax.reporting.table import Table
from tunevlseg_jax.runtime.errors import UserError
from tunevlseg_jax.runtime.files import as_user_error, atomic_file, write_csv

if TYPE_CHECKING:
    from tunevlseg_jax.reporting.output.gallery import Gallery

REPORT_FILE, PAGE_FILE, LATEX_FILE, CELLS_FILE = "report.md", "report.html", "tables.tex", "cells.csv"
PROGRAM = "python -m tunevlseg_jax.report"
FIGURES = "figures"


FEWEST_SAMPLES = 4
"""One of each kind."""


@dataclass(frozen=True)
class Options:
    """What to report on, and where to.

    Attributes:
      runs: folder of runs and studies, at any depth.
      output: folder for the report; it must be empty, or hold an earlier one, which is replaced.
      words: how many of the nearest words to tell of each learnt context vector; 0 for none, without loading models.
      samples: how many test records of each data set to look at, in figures and on the page; 0 for none, without
        loading models and data.
      page: whether to draw figures and to write the page, for which `pip install "tunevlseg_jax[report]"` is needed.
    """

    runs: str
    output: str = "report"
    words: int = 3
    samples: int = 24
    page: bool = True


def report(options: Options, console: Console) -> Cells:
    """Writes the report, and returns what it is of.

    Raises:
      UserError: there is no run, or the report can't be written.
    """
    output = Path(options.output)
    if output.exists() and not output.is_dir():
        raise UserError(f"{output} is a file, not a folder for the report; choose another --output", "not-a-folder")
    is_report = any((output / name).is_file() for name in (CELLS_FILE, REPORT_FILE))
    if output.exists() and any(output.iterdir()) and not is_report:
        raise UserError(f"{output} is neither empty nor a report; choose another --output", "other-folder")
    if options.words < 0:
        raise UserError(f"words must be at least 0, got {options.words}", "out-of-range")
    if options.samples and options.samples < FEWEST_SAMPLES:
        raise UserError(f"samples must be 0, or at least {FEWEST_SAMPLES}, got {options.samples}", "out-of-range")
    if options.page:
        check_installed()
    found, skipped = runs.gather(Path(options.runs))
    if not found:
        details = f": {skipped[0].path}: {skipped[0].reason}" if skipped else ""
        more = f", and {len(skipped) - 1} more" if len(skipped) > 1 else ""
        raise UserError(f"there is no run to report on in {options.runs}{details}{more}", "no-runs")
    cells = cell_rules.choose(found)
    made, missing = tables.tables(cells)
    if options.words:
        near, unread = words.words(cells, options.words)
        made += [near] if near is not None else []
        missing += unread
    left_out = [*skipped, *cells.left_out]
    write_csv(output / CELLS_FILE, _cell_rows(cells))  # first: by it a report is known
    with as_user_error(output):  # nothing of an earlier report may stand beside this one's
        for name in (PAGE_FILE, *(f"{table}.csv" for table in (*tables.NAMES, words.NAME)), *_figures(output)):
            (output / name).unlink(missing_ok=True)
    for table in made:
        write_csv(output / f"{table.name}.csv", markup.csv_rows(table))
    _write(output / LATEX_FILE, markup.document(made))
    drawn = _draw(options, console, found, cells, made, missing, left_out) if options.page else None
    _write(output / REPORT_FILE, _markdown(options, found, cells, made, missing, left_out, drawn))
    console.print(markup.terminal(made[0]))
    details = f"; {PAGE_FILE}, {FIGURES}" if drawn else ""
    lines = [
        _count(found, cells),
        f"report: {output / REPORT_FILE}; beside it {LATEX_FILE}, and a CSV of each table{details}",
        *(f"skipped: {one.path}: {one.reason}" for one in left_out),
    ]
    for line in lines:
        console.print(line, soft_wrap=True, markup=False, highlight=False)
    return cells


def check_installed() -> None:
    """Raises a UserError where a library that draws is missing."""
    try:
        import jinja2  # noqa: F401
        import matplotlib  # noqa: F401
    except ModuleNotFoundError as error:
        details = f'figures and the page need {error.name}: pip install "tunevlseg_jax[report]"'
        raise UserError(f"{details} (report --no-page does without)", "needs-package") from error


def _draw(
    options: Options,
    console: Console,
    found: Sequence[Run],
    cells: Cells,
    made: Sequence[Table],
    missing: Sequence[str],
    left_out: Sequence[Skipped],
) -> Gallery:
    """Writes the figures and the page."""
    from tunevlseg_jax.reporting.figures import style
    from tunevlseg_jax.reporting.output import gallery, page

    output = Path(options.output)
    with console.status("drawing") as status:
        drawn = gallery.draw_figures(found, cells, options.samples, status.update)
        status.update("writing figures and page")
        for figure in drawn.figures:
            style.write(figure, output / FIGURES)
        content = page.Content(
            title=f"Report on {options.runs}",
            summary=f"{_count(found, cells)}.",
            footer=f"Made by {PROGRAM}, tunevlseg_jax {__version__}.",
            tables=made,
            untabled=missing,
            figures=drawn.figures,
            undrawn=drawn.undrawn,
            samples=drawn.samples,
            runs=gallery.keys(found, cells),
            skipped=left_out,
        )
        page.write(output / PAGE_FILE, content)
    return drawn


def _figures(output: Path) -> list[str]:
    """The files of an earlier report's figures, as it shows them."""
    path = output / REPORT_FILE
    names = re.findall(rf"\]\({FIGURES}/([\w.-]+)\.png\)", path.read_text(encoding="utf-8")) if path.exists() else []
    return [f"{FIGURES}/{name}{suffix}" for name in names for suffix in (".png", ".svg")]


def _cell_rows(cells: Cells) -> list[dict[str, object]]:
    """A row for every cell: its scores, and the runs that stand for it."""
    rows = []
    for row in cells.rows:
        for cell in cells.of(row):
            details: dict[str, object] = dict(cell.key._asdict())
            for metric in ("dice", "iou", "sample_iou", "hd95_both_nonempty", "surface_dice_2px"):
                score = cell.score(metric)
                details |= {metric: score and score.mean, f"{metric}_std": score and score.std}
            details |= {"records": cell.records, "from": "card" if cell.from_card else "evaluations"}
            details |= {"configurations": cell.configurations, "seeds": len(cell.runs)}
            rows.append(details | {"runs": " ".join(str(run.folder) for run in cell.runs)})
    return rows


def _markdown(
    options: Options,
    found: Sequence[Run],
    cells: Cells,
    made: Sequence[Table],
    missing: Sequence[str],
    left_out: Sequence[Skipped],
    drawn: Gallery | None,
) -> str:
    """The whole report."""
    count = f"{_count(found, cells)} under `{options.runs}`"
    parts = [f"# Report\n\n{count}, made by `{PROGRAM}`.\n", *map(markup.markdown, made)]
    for figure in drawn.figures if drawn else ():
        title, caption = markup.markdown_text(figure.title), markup.markdown_text(figure.caption)
        parts.append(f"## {title}\n\n![{title}]({FIGURES}/{figure.name}.png)\n\n{caption}\n")
    undone = [*missing, *(drawn.undrawn if drawn else ())]
    if undone:
        parts.append("## Not made\n\n" + "".join(f"- {markup.markdown_text(line)}\n" for line in undone))
    standing = [
        f"- {markup.markdown_text(headings.place(cell.key))}: {', '.join(f'`{run.folder}`' for run in cell.runs)}\n"
        for row in cells.rows
        for cell in cells.of(row)
    ]
    parts.append("## Runs that stand for cells\n\n" + "".join(standing))
    lines = [f"- {markup.markdown_text(str(one.path))}: {markup.markdown_text(one.reason)}\n" for one in left_out]
    parts.append("## Skipped\n\n" + ("".join(lines) or "Nothing.\n"))
    return "\n".join(parts)


def _count(found: Sequence[Run], cells: Cells) -> str:
    """How many runs there are to compare, and in how many cells."""
    number = len({run.folder for run in found} - {one.path for one in cells.left_out})
    return f"{_counted(number, 'run')} in {_counted(len(cells.by_key), 'cell')}"


def _counted(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


def _write(path: Path, text: str) -> None:
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
