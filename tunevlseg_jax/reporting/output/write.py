"""Writes the tables, the figures and the page of a report."""

import re
from collections.abc import Iterable
from pathlib import Path

from rich.console import Console

from tunevlseg_jax.reporting import headings, markup
from tunevlseg_jax.reporting.cells import Cells
from tunevlseg_jax.reporting.markup import markdown_text
from tunevlseg_jax.reporting.output import collect, csv_files
from tunevlseg_jax.reporting.output.content import Content
from tunevlseg_jax.reporting.output.options import PROGRAM, Options
from tunevlseg_jax.runtime.errors import UserError
from tunevlseg_jax.runtime.files import as_user_error, atomic_file

REPORT_FILE, PAGE_FILE, LATEX_FILE = "report.md", "report.html", "tables.tex"
FIGURES = "figures"
FEWEST_SAMPLES = 4
"""One of each kind."""


def report(options: Options, console: Console) -> Cells:
    """Writes the report, and returns the runs that it compares.

    Raises:
      UserError: there is no run, or the report can't be written.
    """
    output = Path(options.output)
    _check(options, output)
    content = collect.collect(options.runs, options.words)
    with as_user_error(output):  # nothing of an earlier report may stand beside this one's
        for name in (PAGE_FILE, *csv_files.earlier(output), *_figures(output)):
            (output / name).unlink(missing_ok=True)
    csv_files.write(content, output)
    _write(output / LATEX_FILE, markup.document(content.tables))
    if options.page:
        content = _draw(content, output, options.samples, console)
    _write(output / REPORT_FILE, _markdown(content))
    console.print(markup.terminal(content.tables[0]))
    page = f"; {PAGE_FILE}, {FIGURES}" if options.page else ""
    for line in (
        content.summary,
        f"report: {output / REPORT_FILE}; beside it {LATEX_FILE}, and a CSV of each table{page}",
        *(f"skipped: {each.path}: {each.reason}" for each in content.skipped),
    ):
        console.print(line, soft_wrap=True, markup=False, highlight=False)
    return content.cells


def check_installed() -> None:
    """Raises a UserError where a library that draws is missing."""
    try:
        import jinja2  # noqa: F401
        import matplotlib  # noqa: F401
    except ModuleNotFoundError as error:
        details = f'figures and the page need {error.name}: pip install "tunevlseg_jax[report]"'
        raise UserError(f"{details} (report --no-page does without)", "needs-package") from error


def _check(options: Options, output: Path) -> None:
    """Raises a UserError where an option can't be, or the output folder holds something else."""
    if output.exists() and not output.is_dir():
        raise UserError(f"{output} is a file, not a folder for the report; choose another --output", "not-a-folder")
    is_report = any((output / name).is_file() for name in (csv_files.CELLS_FILE, REPORT_FILE))
    if output.exists() and any(output.iterdir()) and not is_report:
        raise UserError(f"{output} is neither empty nor a report; choose another --output", "other-folder")
    if options.words < 0:
        raise UserError(f"words must be at least 0, got {options.words}", "out-of-range")
    if options.samples and options.samples < FEWEST_SAMPLES:
        raise UserError(f"samples must be 0, or at least {FEWEST_SAMPLES}, got {options.samples}", "out-of-range")
    if options.page:
        check_installed()


def _draw(content: Content, output: Path, samples: int, console: Console) -> Content:
    """Writes the figures and the page, and returns the content with them."""
    from tunevlseg_jax.reporting.figures import style
    from tunevlseg_jax.reporting.output import gallery, page

    with console.status("drawing") as status:
        content = gallery.draw_figures(content, samples, status.update)
        status.update("writing figures and page")
        for figure in content.figures:
            style.write(figure, output / FIGURES)
        _write(output / PAGE_FILE, page.render(content))
    return content


def _figures(output: Path) -> list[str]:
    """The files of an earlier report's figures, as it shows them."""
    path = output / REPORT_FILE
    names = re.findall(rf"\]\({FIGURES}/([\w.-]+)\.png\)", path.read_text(encoding="utf-8")) if path.exists() else []
    return [f"{FIGURES}/{name}{suffix}" for name in names for suffix in (".png", ".svg")]


def _markdown(content: Content) -> str:
    """The whole report."""
    parts = [f"# Report\n\n{content.summary} under `{content.source}`, made by `{PROGRAM}`.\n"]
    parts += ["## Summary\n\n" + _bullets(map(markdown_text, content.findings))]
    parts += map(markup.markdown, content.tables)
    for figure in content.figures:
        title = markdown_text(figure.title)
        parts.append(f"## {title}\n\n![{title}]({FIGURES}/{figure.name}.png)\n\n{markdown_text(figure.caption)}\n")
    if missing := [*content.untabled, *content.undrawn]:
        parts.append("## Not made\n\n" + _bullets(map(markdown_text, missing)))
    representing = (
        f"{markdown_text(headings.place(cell.key))}: {', '.join(f'`{run.folder}`' for run in cell.runs)}"
        for cell in content.cells.ordered
    )
    parts.append("## Runs that represent cells\n\n" + _bullets(representing))
    skipped = (f"{markdown_text(str(each.path))}: {markdown_text(each.reason)}" for each in content.skipped)
    parts.append("## Skipped\n\n" + (_bullets(skipped) or "Nothing.\n"))
    return "\n".join(parts)


def _bullets(lines: Iterable[str]) -> str:
    return "".join(f"- {line}\n" for line in lines)


def _write(path: Path, text: str) -> None:
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
