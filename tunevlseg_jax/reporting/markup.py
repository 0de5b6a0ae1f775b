"""Writes a table as Markdown, LaTeX, CSV and for the terminal, with special characters escaped."""

import dataclasses
import itertools
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from rich.box import SIMPLE
from rich.table import Table as Terminal
from rich.text import Text

from tunevlseg_jax.reporting.table import MINUS, Mark, Table

MARKDOWN: dict[Mark, str] = {"": "{}", "best": "**{}**", "second": "<u>{}</u>"}
LATEX: dict[Mark, str] = {"": "", "best": r"\textbf", "second": r"\underline"}
TERMINAL: dict[Mark, str] = {"": "", "best": "bold", "second": "underline"}
"""Marks of numbers."""

TEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    '"': r"\textquotedbl{}",
    "'": r"\textquotesingle{}",
    "`": r"\textasciigrave{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    MINUS: r"\ensuremath{-}",
    "±": r"\ensuremath{\pm}",
    "≈": r"\ensuremath{\approx}",
    "τ": r"\ensuremath{\tau}",
    "†": r"\textsuperscript{\dag}",
    "‡": r"\textsuperscript{\ddag}",
    "\0": "{}",
}
PREAMBLE = r"""\documentclass{article}
\usepackage[T1]{fontenc}
\usepackage[utf8]{inputenc}
\usepackage{textcomp}
\usepackage[landscape,margin=1cm]{geometry}
\usepackage{booktabs}
\usepackage{graphicx}
\setlength{\belowcaptionskip}{6pt}
\pagestyle{empty}
\begin{document}
"""
"""The start of a document; a paper that includes a table needs these packages."""
END = "\\end{document}\n"
PERCENT = ", %"
"""At the end of a column's name: its unit."""
PAGE = 36
"""Rows of a table that fit on a page with the caption."""


def markdown(table: Table) -> str:
    """A heading, the table in GitHub's Markdown, its caption and its notes."""
    groups = [name for name, span in table.groups for _ in range(span)] or [""] * len(table.columns)
    # Markdown has no headers over several columns.
    columns = [f"{name} ({group})" if group else name for name, group in zip(table.columns, groups, strict=True)]
    lines = [[*map(markdown_text, (*table.head, *columns))], [":--"] * len(table.head) + ["--:"] * len(columns)]
    for row in table.rows:
        numbers = (MARKDOWN[entry.mark].format(markdown_text(table.shown(entry))) for entry in row.entries)
        lines.append([*map(markdown_text, row.labels), *numbers])
    grid = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    notes = "\n".join(f"- {markdown_text(note)}" for note in table.notes)
    parts = (f"## {markdown_text(table.title)}", grid, markdown_text(table.caption), notes)
    return "\n\n".join(filter(None, parts)) + "\n"


def latex(table: Table) -> str:
    """A `table` environment, which needs booktabs and graphicx."""
    lines = _latex_groups(table) if table.groups else []
    lines += [_latex_line(map(latex_text, (*table.head, *table.columns))), r"\midrule"]
    for row in table.rows:
        lines += [r"\midrule"] * row.ruled
        numbers = (_latex_marked(latex_text(table.shown(entry)), LATEX[entry.mark]) for entry in row.entries)
        lines.append(_latex_line((*map(latex_text, row.labels), *numbers)))
    caption = " ".join(filter(None, (f"{table.title}.", table.caption, *table.notes)))
    start = (
        r"\begin{table}[p]",
        r"\centering",
        rf"\caption{{{latex_text(caption)}}}",
        rf"\label{{tab:{re.sub('[^A-Za-z0-9]', '-', table.name)}}}",
        r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
        rf"\begin{{tabular}}{{{'l' * len(table.head)}{'r' * len(table.columns)}}}",
        r"\toprule",
    )
    return "\n".join((*start, *lines, r"\bottomrule", r"\end{tabular}}", r"\end{table}", ""))


def document(tables: Sequence[Table]) -> str:
    """All tables as a LaTeX document that compiles by itself; each begins a page."""
    pages = itertools.chain.from_iterable(map(_pages, tables))
    return PREAMBLE + "\\clearpage\n".join(map(latex, pages)) + END


def csv_rows(table: Table) -> list[dict[str, Any]]:
    """A row for each line, with every number as it was computed: its mean, and its standard deviation where the table
    has any; where a mean lacks data sets, each has the number of its data sets.

    A column that is shown in percent but computed as a fraction has the fraction, and no percent in its name.
    """
    entries = [entry for row in table.rows for entry in row.entries]
    spread, partial = any(entry.std is not None for entry in entries), any(entry.of for entry in entries)
    rows = []
    for row in table.rows:
        details: dict[str, Any] = dict(zip(table.head, row.labels, strict=True))
        for column, entry in zip(table.columns, row.entries, strict=True):
            name = column if table.scale == 1 else column.removesuffix(PERCENT)
            details[name] = entry.value
            if spread and name != "mean":
                details[f"{name} std"] = entry.std
            if partial and name == "mean":
                details["mean of"] = (entry.of or (len(row.entries) - 1,))[0] if entry.value is not None else 0
        rows.append(details)
    return rows


def terminal(table: Table) -> Terminal:
    """A table of rich's."""
    caption = Text("\n".join((table.caption, *table.notes)))
    grid = Terminal(title=Text(table.title), caption=caption, box=SIMPLE, pad_edge=False, collapse_padding=True)
    for place, name in enumerate(table.head):
        longest = max((len(word) for row in table.rows for word in row.labels[place].split()), default=0)
        grid.add_column(Text(name), overflow="fold", min_width=max(longest, len(name)))
    for name in table.columns:
        grid.add_column(Text(name.replace("/", "/\n")), justify="right", no_wrap=True)
    for row, following in itertools.zip_longest(table.rows, table.rows[1:]):
        numbers = (Text(table.shown(entry), TERMINAL[entry.mark]) for entry in row.entries)
        grid.add_row(*map(Text, row.labels), *numbers, end_section=following is not None and following.ruled)
    return grid


def markdown_text(text: str) -> str:
    """Text in Markdown, on one line, with markup, HTML and the ends of cells escaped."""
    text = re.sub(r"\s+", " ", text).strip()
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(r"([\\`*_\[\]|~#])", r"\\\1", text)
    return re.sub(r"^(\d*)([-+=.)])(?=[-=\s]|$)", r"\1\\\2", text)  # no list and no underline of a heading


def latex_text(text: str) -> str:
    """Text in LaTeX; a character that its usual fonts lack becomes its number, such as U+4E2D."""
    line = re.sub(r"[\s\0]+", " ", text).strip()
    apart = re.sub(r"([-,])(?=\1)", "\\1\0", line)  # two of them would become one sign
    return "".join(map(_latex_character, apart))


def _latex_character(character: str) -> str:
    # pdflatex sets ASCII and the letters of Western Europe, whole or as a letter and its accent.
    western = "À" <= character <= "ÿ" and unicodedata.category(character)[0] == "L"
    plain = character if " " <= character <= "~" or western else rf"\texttt{{U+{ord(character):04X}}}"
    return TEX.get(character, plain)


def _pages(table: Table) -> Iterator[Table]:
    """A table in parts that fit on a page; only the first has the caption and the notes."""
    first, *others = (table.rows[start : start + PAGE] for start in range(0, len(table.rows), PAGE))
    yield dataclasses.replace(table, rows=first)
    for number, rows in enumerate(others, 2):
        yield dataclasses.replace(
            table, name=f"{table.name}-{number}", title=f"{table.title} (continued)", caption="", notes=(), rows=rows
        )


def _latex_line(cells: Iterable[str]) -> str:
    return " & ".join(cells) + r" \\"


def _latex_marked(number: str, command: str) -> str:
    return f"{command}{{{number}}}" if command else number


def _latex_groups(table: Table) -> list[str]:
    """The headers over several columns, and the rules under them."""
    rules, start = "", len(table.head) + 1
    for name, span in table.groups:
        rules += rf"\cmidrule(lr){{{start}-{start + span - 1}}}" if name else ""
        start += span
    headers = (rf"\multicolumn{{{span}}}{{c}}{{{latex_text(name)}}}" for name, span in table.groups)
    return [_latex_line((*[""] * len(table.head), *headers)), rules]
