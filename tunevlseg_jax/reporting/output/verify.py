"""Computes every number of a report's page again from the files of the records, and names those that differ."""

import itertools
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

from rich.console import Console

from tunevlseg_jax.reporting import cells, further_scores, scores, words
from tunevlseg_jax.reporting.headings import place
from tunevlseg_jax.reporting.output import collect
from tunevlseg_jax.reporting.output.content import Content
from tunevlseg_jax.reporting.table import MINUS, Entry, Table
from tunevlseg_jax.runtime.errors import UserError

NUMBER = re.compile(rf"(?<![\w.])[+{MINUS}-]?\d+(?:\.\d+)?(?:e-?\d+)?")
SLACK = 1e-6
"""Of a number's last decimal: files hold scores with eight digits."""


@dataclass
class Shown:
    """What a page shows.

    Attributes:
      tables: of each table by its title the rows, each with its labels and its numbers as text.
      notes: of each table by its title the text below it.
      findings: the sentences on top.
    """

    tables: dict[str, list[tuple[list[str], list[str]]]] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    findings: list[str] = field(default_factory=list)


FROM_CARDS = "from cards, of runs without an evaluation of their test records"
FROM_CURVES = "validation Dice of runs, from the lines of their epochs"
FROM_PIXELS = "sums over pixels (Brier, NLL, balanced calibration), of which evaluations hold the total alone"
FROM_MODELS = "distances of words near prompts, from the models"
"""Why a number can't be computed from records."""


@dataclass
class Verified:
    """The comparison of a page with the records.

    Attributes:
      agree: how many numbers agree.
      differ: those that differ, a line each.
      unrecorded: how many agree with the files, but have no records to be computed from, by the reason.
      unread: how many weren't compared, by the reason.
    """

    agree: int = 0
    differ: list[str] = field(default_factory=list)
    unrecorded: Counter[str] = field(default_factory=Counter)
    unread: Counter[str] = field(default_factory=Counter)

    def add(self, agrees: bool, line: str, unrecorded: str = "") -> None:
        """Counts a number.

        Args:
          agrees: whether it is the computed or stored one.
          line: names it.
          unrecorded: why it can't be computed from records; "" if it can.
        """
        if not agrees:
            self.differ.append(line)
        elif unrecorded:
            self.unrecorded[unrecorded] += 1
        else:
            self.agree += 1


def verify(runs: str, page: Path, console: Console) -> None:
    """Prints how many numbers of a page agree with the records, and those that don't.

    Raises:
      UserError: there is no page or no run, or a number differs.
    """
    if not page.is_file():
        raise UserError(f"there is no {page}: make the report with figures and page before --verify", "no-such-file")
    shown = read(page.read_text(encoding="utf-8"))
    found = compare(shown, collect.collect(runs, 0, from_records=True))
    for line in found.differ:
        console.print(f"differs: {line}", soft_wrap=True, markup=False, highlight=False)
    total = found.agree + len(found.differ)
    console.print(f"{found.agree} of {total} numbers of {page} agree with the records", soft_wrap=True, highlight=False)
    for said, counts in (("agree with the files alone", found.unrecorded), ("are not compared", found.unread)):
        for reason, count in counts.items():
            console.print(f"{count} more {said}: {reason}", soft_wrap=True, highlight=False)
    if found.differ:
        raise UserError(f"{len(found.differ)} of {total} numbers of {page} differ from the records", "numbers-differ")


def read(html: str) -> Shown:
    """What a page shows."""
    reader = _Reader()
    reader.feed(html)
    return reader.shown


def compare(shown: Shown, content: Content) -> Verified:
    """The numbers of a page against those of a content that was computed again."""
    found = Verified()
    expected = {table.title: table for table in content.tables}
    for title in dict.fromkeys((*expected, *(title for title in shown.tables if title != RUNS))):
        if title == words.TITLE:
            found.unread[FROM_MODELS] += sum(
                len(NUMBER.findall(" ".join(labels[len(words.HEAD) :]))) for labels, _ in shown.tables[title]
            )
        elif title not in shown.tables or title not in expected:
            where = "page" if title in shown.tables else "records"
            found.add(False, f"the table {title!r} is of the {where} alone")
        else:
            _compare_table(found, expected[title], shown.tables[title])
            _compare_text(found, title, " ".join((expected[title].caption, *expected[title].notes)), shown.notes[title])
    for sentence, there in _aligned(content.findings, shown.findings):
        _compare_text(found, "summary", sentence, there)
    rows = shown.tables.get(RUNS, [])
    _compare_runs(found, content, rows)
    return found


RUNS = "Runs"
"""Stands for the table of runs, which has no title of its own."""


def _compare_table(found: Verified, table: Table, rows: Sequence[tuple[list[str], list[str]]]) -> None:
    there = {tuple(labels): texts for labels, texts in rows}
    for row in table.rows:
        labels = tuple(" ".join(label.split()) for label in row.labels)
        texts = there.pop(labels, None)
        name = f"{table.title}: {', '.join(labels)}"
        if texts is None or len(texts) != len(row.entries):
            found.add(False, f"{name}: the row is not on the page")
            continue
        for column, entry, text in zip(table.columns, row.entries, texts, strict=True):
            if entry.value is not None or text != table.shown(entry):
                line = f"{name}, {column}: {text} on the page, {table.shown(entry)} computed"
                from_pixels = FROM_PIXELS * (column in further_scores.FROM_PIXELS)
                unrecorded = FROM_CARDS if scores.CARD in entry.sign else from_pixels
                found.add(_fits(text, entry, table.scale), line, unrecorded)
    for labels in there:
        found.add(False, f"{table.title}: {', '.join(labels)}: the row is not in the records")


def _fits(text: str, entry: Entry, scale: float) -> bool:
    """Whether the numbers of a text are those of an entry, rounded."""
    if entry.value is None:
        return False
    values = [entry.value * scale, *([] if entry.std is None else [entry.std * scale]), *(entry.of or ())]
    return _close(text, values)


def _close(text: str, values: Sequence[float]) -> bool:
    parts = NUMBER.findall(text)
    if len(parts) != len(values):
        return False
    for part, value in zip(parts, values, strict=True):
        unit = 10.0 ** -len(part.partition(".")[2])
        if abs(float(part.replace(MINUS, "-")) - value) > unit * (0.5 + SLACK) + SLACK:
            return False
    return True


def _compare_text(found: Verified, name: str, expected: str, there: str) -> None:
    """Every number of a text counts; texts with other numbers differ once."""
    ours, theirs = (NUMBER.findall(text) for text in (expected, there))
    found.agree += len(ours) if ours == theirs else 0
    if ours != theirs:
        found.differ.append(f"{name}: {there!r} on the page, {expected!r} computed")


def _compare_runs(found: Verified, content: Content, rows: Sequence[tuple[list[str], list[str]]]) -> None:
    """The validation and test Dice of each run, in the order of the page."""
    if len(rows) != len(content.cells.compared):
        found.add(False, f"runs: {len(rows)} on the page, {len(content.cells.compared)} in the records")
        return
    for (key, run), (_, texts) in zip(content.cells.compared, rows, strict=True):
        test = cells.tested(run)
        sources = FROM_CURVES, FROM_CARDS * (run.own_test is None)
        values = (run.validation, None if test is None else test["dice"])
        for column, value, text, source in zip(("val Dice", "test Dice"), values, texts[4:6], sources, strict=True):
            if value is not None or text != "-":
                line = f"runs: {place(key)}, {run.folder}, {column}: {text} on the page, {value} computed"
                found.add(value is not None and _close(text, [value]), line, source)


def _aligned(expected: Sequence[str], there: Sequence[str]) -> Iterator[tuple[str, str]]:
    yield from itertools.zip_longest(expected, there, fillvalue="")


class _Reader(HTMLParser):
    """Collects the texts of a page's tables, of the notes below them, and of the findings."""

    def __init__(self) -> None:
        super().__init__()
        self.shown = Shown()
        self._title = ""
        self._section = ""
        self._text: list[str] | None = None
        self._row: tuple[list[str], list[str]] | None = None
        self._body = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        details = dict(attrs)
        if tag == "section":
            self._section = details.get("id") or ""
            self._title = RUNS if self._section == "runs" else ""
        elif tag == "tbody" and self._title:
            self._body = True
            self.shown.tables.setdefault(self._title, [])
        elif tag == "tr" and self._body:
            self._row = ([], [])
        elif tag == "br" and self._text is not None:
            self._text.append(" ")
        is_cell = tag in ("td", "th") and self._row is not None
        if is_cell or tag in ("h3", "li") or (tag == "p" and details.get("class") == "note"):
            self._text = []

    def handle_data(self, data: str) -> None:
        if self._text is not None:
            self._text.append(data)

    def handle_endtag(self, tag: str) -> None:
        text = None if self._text is None else " ".join("".join(self._text).split())
        if tag == "tbody":
            self._body = False
        elif tag == "tr" and self._row is not None:
            self.shown.tables[self._title].append(self._row)
            self._row = None
        elif text is None:
            return
        elif tag in ("td", "th") and self._row is not None:
            self._row[tag == "td"].append(text)
        elif tag == "h3" and self._section == "tables":
            self._title = text
        elif tag == "p" and self._section == "tables" and self._title not in self.shown.notes:
            self.shown.notes[self._title] = text
        elif tag == "li" and self._section == "findings":
            self.shown.findings.append(text)
        if tag in ("td", "th", "h3", "li", "p"):
            self._text = None
