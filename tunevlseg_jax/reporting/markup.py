"""Writes a table as Markdown, LaTeX, CSV and for the terminal, with special characters escaped."""

from __future__ import annotations

import dataclasses
import itertools
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from rich.box import SIMPLE
from rich.table import Table as Terminal
from rich.text import Text

from tunevlseg_jax.reporting.table import MINUS, Entry, Mark, Table

STYLES: dict[Mark, str] = {"": "", "best": "bold", "second": "underline"}
"""Marks on the terminal."""

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
    "†": r"\textsuperscript{\dag}",
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
"""Of a document that compiles by itself; a paper that takes a table needs its packages."""
END = "\\end{document}\n"
PAGE = 36
"""Rows of a table that fit on a page with the caption."""


def markdown(table: Table) -> str:
    """A heading, the table in GitHub's Markdown, and what stands with it."""
    marks: dict[Mark, str] = {"": "{}", "best": "**{}**", "second": "<u>{}</u>"}
    lines = [_pipes(map(markdown_text, (*table.head, *_grouped_columns(table))))]
    lines.append(_pipes([":--"] * len(table.head) + ["--:"] * len(table.columns)))
    for row in table.rows:
        numbers = (marks[entry.mark].format(markdown_text(table.shown(entry))) for entry in row.entries)
        lines.append(_pipes((*map(markdown_text, row.labels), *numbers)))
    about = [markdown_text(table.caption), *(f"- {markdown_text(note)}" for note in table.notes)]
    parts = (f"## {markdown_text(table.title)}", "\n".join(lines), about[0], "\n".join(about[1:]))
    return "\n\n".join(filter(None, parts)) + "\n"


def latex(table: Table) -> str:
    """A `table` environment, which needs booktabs and graphicx."""
    columns = "l" * len(table.head) + "r" * len(table.columns)
    lines = []
    if table.groups:
        lines.append(" & ".join([*[""] * len(table.head), *(_spanning(*group) for group in table.groups)]) + r" \\")
        lines.append(_rules(table))
    lines += [_cells(map(latex_text, (*table.head, *table.columns))), r"\midrule"]
    for row in table.rows:
        lines += [r"\midrule"] * row.ruled
        lines.append(_cells((*map(latex_text, row.labels), *(_latex_number(table, entry) for entry in row.entries))))
    caption = " ".join(filter(None, (f"{table.title}.", table.caption, *table.notes)))
    return "\n".join(
        (
            r"\begin{table}[p]",
            r"\centering",
            rf"\caption{{{latex_text(caption)}}}",
            rf"\label{{tab:{re.sub('[^A-Za-z0-9]', '-', table.name)}}}",
            r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            *lines,
            r"\bottomrule",
            r"\end{tabular}}",
            r"\end{table}",
            "",
        )
    )


def document(tables: Sequence[Table]) -> str:
    """All tables as a LaTeX document that compiles by itself, each on a page, or on several."""
    pages = itertools.chain.from_iterable(map(_pages, tables))
    return PREAMBLE + "\\clearpage\n".join(map(latex, pages)) + END


def csv_rows(table: Table) -> list[dict[str, Any]]:
    """A row for each line, with every number as it was computed: its mean, and where the table has any its standard
    deviation; a mean that lacks data sets says of how many it is."""
    spread = any(entry.std is not None for row in table.rows for entry in row.entries)
    partial = any(entry.of for row in table.rows for entry in row.entries)
    rows = []
    for row in table.rows:
        details: dict[str, Any] = dict(zip(table.head, row.labels, strict=True))
        for name, entry in zip(table.columns, row.entries, strict=True):
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
    made = Terminal(title=Text(table.title), caption=caption, box=SIMPLE, pad_edge=False, collapse_padding=True)
    for place, name in enumerate(table.head):
        longest = max((len(word) for row in table.rows for word in row.labels[place].split()), default=0)
        made.add_column(Text(name), overflow="fold", min_width=max(longest, len(name)))
    for name in table.columns:
        made.add_column(Text(name.replace("/", "/\n")), justify="right", no_wrap=True)
    for number, row in enumerate(table.rows):
        cells = [Text(label) for label in row.labels]
        cells += [Text(table.shown(entry), STYLES[entry.mark]) for entry in row.entries]
        following = table.rows[number + 1 : number + 2]
        made.add_row(*cells, end_section=bool(following) and following[0].ruled)
    return made


def markdown_text(text: str) -> str:
    """Text as Markdown shows it: what would be markup, HTML or the end of a cell is escaped, and a line stays one."""
    text = re.sub(r"\s+", " ", text).strip()
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(r"([\\`*_\[\]|~#])", r"\\\1", text)
    return re.sub(r"^(\d*)([-+=.)])(?=[-=\s]|$)", r"\1\\\2", text)  # no list and no underline of a heading


def latex_text(text: str) -> str:
    """Text as LaTeX sets it; a character that its usual fonts lack is given by its number, such as U+4E2D."""
    line = re.sub(r"[\s\0]+", " ", text).strip()
    apart = re.sub(r"([-,])(?=\1)", "\\1\0", line)  # two of them would become one sign
    return "".join("{}" if character == "\0" else _latex_character(character) for character in apart)


def _latex_character(character: str) -> str:
    if character in TEX:
        return TEX[character]
    if " " <= character <= "~":
        return character
    # What pdflatex can set of other scripts: letters of Western Europe, whole or as a letter and its accent.
    if "À" <= character <= "ÿ" and unicodedata.category(character)[0] == "L":
        return character
    return rf"\texttt{{U+{ord(character):04X}}}"


def _pages(table: Table) -> Iterator[Table]:
    """A table in parts that fit on a page, of which the first says everything."""
    first, *others = (table.rows[start : start + PAGE] for start in range(0, len(table.rows), PAGE))
    yield dataclasses.replace(table, rows=first)
    for number, rows in enumerate(others, 2):
        yield dataclasses.replace(
            table, name=f"{table.name}-{number}", title=f"{table.title} (continued)", caption="", notes=(), rows=rows
        )


def _grouped_columns(table: Table) -> list[str]:
    """Headers of the columns of numbers; Markdown has no headers over several columns."""
    groups = [name for name, span in table.groups for _ in range(span)] or [""] * len(table.columns)
    return [f"{name} ({group})" if group else name for name, group in zip(table.columns, groups, strict=True)]


def _pipes(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cells(cells: Iterable[str]) -> str:
    return " & ".join(cells) + r" \\"


def _spanning(name: str, span: int) -> str:
    return rf"\multicolumn{{{span}}}{{c}}{{{latex_text(name)}}}"


def _rules(table: Table) -> str:
    """Lines under the headers over several columns."""
    rules, start = [], len(table.head) + 1
    for name, span in table.groups:
        rules += [rf"\cmidrule(lr){{{start}-{start + span - 1}}}"] * bool(name)
        start += span
    return "".join(rules)


def _latex_number(table: Table, entry: Entry) -> str:
    around: dict[Mark, Callable[[str], str]] = {
        "": lambda text: text,
        "best": lambda text: rf"\textbf{{{text}}}",
        "second": lambda text: rf"\underline{{{text}}}",
    }
    return around[entry.mark](latex_text(table.shown(entry)))
