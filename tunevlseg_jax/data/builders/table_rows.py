"""Rows of tables that users write: CSV with any usual separator, JSON, or JSON lines."""

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tunevlseg_jax.data.builders import columns, text_files
from tunevlseg_jax.runtime.errors import UserError

SEPARATORS = (",", ";", "\t", "|")
LINES = (".jsonl", ".ndjson")


@dataclass(frozen=True)
class Row:
    """A row of a table: its place in the file, for errors, and its cells by column."""

    where: str
    cells: Mapping[str, Any]

    def text(self, column: str) -> str:
        """A cell that must be there.

        Raises:
          UserError: the cell is missing or empty.
        """
        value = self.optional(column)
        if not value:
            raise UserError(f"{self.where} has no value in the column {column!r}", "missing-column")
        return value

    def optional(self, column: str) -> str:
        """A cell, "" if it is missing."""
        value = self.cells.get(column)
        return "" if _is_blank(value) else str(value).strip()

    def phrasings(self, column: str) -> tuple[str, ...]:
        """The phrasings in a cell: a JSON list, or texts between "|"; () if there are none."""
        value = self.cells.get(column)
        parts = value if isinstance(value, list) else self.optional(column).split("|")
        return tuple(str(part).strip() for part in parts if str(part).strip())


class TableFile(NamedTuple):
    """The rows of a file, and the encoding that it was read in."""

    rows: list[Row]
    encoding: str


def read(path: Path, required: Sequence[str], optional: Sequence[str]) -> TableFile:
    """The rows of a CSV file with a header, of a JSON file with a list of objects, or of a file with one on each line.

    Names of columns may be in any case. The separator is the one that splits the header into known names. Blank rows
    and an unnamed column of row numbers are left out.

    Args:
      path: the file.
      required: the columns that each row must have.
      optional: the columns that it may have.

    Raises:
      UserError: the file doesn't exist, is no such file, has no rows or an unknown column, or a row lacks a column.
    """
    text, encoding = text_files.read(path)
    known = (*required, *optional)
    is_json = path.suffix.lower() in (".json", *LINES)
    found = _json(path, text, known) if is_json else _csv(path, text, required, known)
    rows = [row for row in found if not all(map(_is_blank, row.cells.values()))]
    if not rows:
        raise UserError(f"{path} has no rows", "no-rows")
    for row in rows:
        if missing := [column for column in required if row.cells.get(column) is None]:
            raise UserError(f"{row.where} lacks the column {missing[0]!r}", "missing-column")
    return TableFile(rows, encoding)


def _csv(path: Path, text: str, required: Sequence[str], known: Sequence[str]) -> list[Row]:
    stream = io.StringIO(text, newline=None)  # \r and \r\n become \n
    header, begin = stream.readline(), 0
    while header and not header.strip():
        header, begin = stream.readline(), begin + 1
    stated = re.fullmatch(r'"?sep=(.)"?\s*', header, re.IGNORECASE)  # Excel's own first line
    if stated:
        header, begin = stream.readline(), begin + 1
    separators = stated[1] if stated else SEPARATORS
    separator = max(separators, key=lambda one: columns.count(next(csv.reader([header], delimiter=one), ()), known))
    lines = io.StringIO(header + stream.read())
    reader = csv.reader(lines, delimiter=separator, skipinitialspace=separator != "\t", strict=True)
    try:
        first, *others = [(begin + reader.line_num, cells) for cells in reader] or [(1, [])]
    except csv.Error as error:
        raise UserError(
            f"can't read {path}: {error} at line {begin + reader.line_num}; a text with quotes is written in quotes, "
            "with each of its own doubled",
            "unreadable",
        ) from error
    names = _header(path, first[1], required, known)
    rows = []
    for number, cells in others:
        where = f"row {number} of {path}"
        if any(cell.strip() for cell in cells[len(names) :]):
            raise UserError(f"{where} has more cells than the first line; texts with commas need quotes", "extra-cells")
        rows.append((where, cells[: len(names)]))
    _check_unnamed(path, names, [cells for _, cells in rows])
    return [Row(where, {name: cell for name, cell in zip(names, cells, strict=False) if name}) for where, cells in rows]


def _header(path: Path, names: Sequence[str], required: Sequence[str], known: Sequence[str]) -> list[str]:
    """The columns of the first line."""
    written = [name.strip() for name in names]
    if not columns.count(written, known):
        raise UserError(
            f"{path} lacks the column {required[0]!r}; its first line must name columns ({', '.join(known)}), "
            f"got {', '.join(map(repr, written[:12]))}{', …' * (len(written) > 12)}"
            f"{columns.renames(written, required[0])}",
            "missing-column",
        )
    found = columns.known(written, known, str(path))
    if missing := [column for column in required if column not in found]:
        raise UserError(f"{path} lacks the column {missing[0]!r}; its first line has {written}", "missing-column")
    return found


def _check_unnamed(path: Path, names: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Raises a UserError if a column without a name holds anything but row numbers in the first one."""
    for place, name in enumerate(names):
        if name:
            continue
        cells = [row[place].strip() for row in rows if place < len(row)]
        held = [cell for cell in cells if cell and not (place == 0 and cell.isdecimal())]
        if held:
            raise UserError(
                f"column {place + 1} of {path} has no name and holds {held[0]!r}; name it in the first line",
                "unknown-column",
            )


def _json(path: Path, text: str, known: Sequence[str]) -> list[Row]:
    lines = path.suffix.lower() in LINES
    try:
        if lines:
            numbered = [(number, json.loads(line)) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
        else:
            values = json.loads(text)
            numbered = list(enumerate(values, 1)) if isinstance(values, list) else [(1, None)]
    except ValueError as error:
        raise UserError(f"can't read {path}: {error}", "unreadable") from error
    rows = []
    for number, value in numbered:
        if not isinstance(value, dict):
            shape = "objects on a line each" if lines else "a list of JSON objects"
            raise UserError(f"{path} must be {shape}", "wrong-json")
        where = f"{'line' if lines else 'object'} {number} of {path}"
        cells = dict(zip(columns.known(list(value), known, where), value.values(), strict=True))
        if wrong := [name for name, cell in cells.items() if not _is_cell(cell)]:
            raise UserError(f"{where} has {cells[wrong[0]]!r} as {wrong[0]!r}; it must be a text", "wrong-json")
        rows.append(Row(where, cells))
    return rows


def _is_cell(value: Any) -> bool:
    """Whether a JSON value is a text, a number or a list of them."""
    if isinstance(value, list):
        return all(isinstance(one, str | int | float) for one in value)
    return value is None or (isinstance(value, str | int | float) and not isinstance(value, bool))


def _is_blank(value: Any) -> bool:
    """Whether a cell is missing or empty; pandas writes a missing number as NaN."""
    return value is None or value != value or (isinstance(value, str) and not value.strip())
