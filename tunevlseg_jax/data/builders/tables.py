"""Tables that users write, as CSV or JSON: the classes of their masks, and manifests."""

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunevlseg_jax.data.mask_files import Colour
from tunevlseg_jax.data.prepared import VOID
from tunevlseg_jax.runtime.errors import UserError

BACKGROUND = "background"
VOID_NAME = "void"


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
        return "" if value is None else str(value).strip()

    def phrasings(self, column: str) -> tuple[str, ...]:
        """The phrasings in a cell: a JSON list, or texts between "|"; () if there are none."""
        value = self.cells.get(column)
        parts = value if isinstance(value, list) else str(value or "").split("|")
        return tuple(str(part).strip() for part in parts if str(part).strip())


@dataclass(frozen=True)
class Class:
    """A class of a table.

    Attributes:
      label: its name.
      prompts: phrasings that ask for it.
      number: value in label maps; 0 for background, VOID for void.
    """

    label: str
    prompts: tuple[str, ...]
    number: int


@dataclass(frozen=True)
class Classes:
    """The classes of label maps.

    Attributes:
      named: by name, background and void left out.
      values: the number for each value of a map, of the rows that have one.
      colours: the number for each colour, of the rows that have one.
    """

    named: Mapping[str, Class]
    values: Mapping[int, int]
    colours: Mapping[Colour, int]


def rows(path: Path, columns: Sequence[str]) -> list[Row]:
    """The rows of a CSV file with a header, or of a JSON file with a list of objects.

    Args:
      path: the file.
      columns: the required columns.

    Raises:
      UserError: the file doesn't exist, is neither CSV nor JSON, has no rows, or a row lacks a column.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise UserError(f"there is no {path}", "no-such-file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"can't read {path}: {error}", "unreadable") from error
    table_rows = _json(path, text) if path.suffix.lower() == ".json" else _csv(path, text, columns)
    if not table_rows:
        raise UserError(f"{path} has no rows", "no-rows")
    for row in table_rows:
        if missing := [column for column in columns if row.cells.get(column) is None]:
            raise UserError(f"{row.where} lacks the column {missing[0]!r}", "missing-column")
    return table_rows


def _csv(path: Path, text: str, columns: Sequence[str]) -> list[Row]:
    reader = csv.DictReader(io.StringIO(text), skipinitialspace=True)
    header = [name.strip() for name in reader.fieldnames or ()]
    if missing := [column for column in columns if column not in header]:
        raise UserError(f"{path} lacks the column {missing[0]!r}; its first line has {header}", "missing-column")
    reader.fieldnames = header
    table_rows = []
    for cells in reader:
        where = f"row {reader.line_num} of {path}"
        if None in cells:
            raise UserError(f"{where} has more cells than the first line; texts with commas need quotes", "extra-cells")
        table_rows.append(Row(where, cells))
    return table_rows


def _json(path: Path, text: str) -> list[Row]:
    try:
        values = json.loads(text)
    except ValueError as error:
        raise UserError(f"can't read {path}: {error}", "unreadable") from error
    if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
        raise UserError(f"{path} must be a list of JSON objects", "wrong-json")
    return [Row(f"object {number} of {path}", value) for number, value in enumerate(values, 1)]


def classes(path: Path) -> Classes:
    """A class table with the columns class, value or colour, and prompt, by default the class's name.

    A class may have several rows. "background" has no records, "void" pixels are ignored.

    Raises:
      UserError: as in `rows`, or a value or colour is invalid or belongs to two classes.
    """
    named: dict[str, Class] = {}
    values: dict[int, int] = {}
    colours: dict[Colour, int] = {}
    numbers = {BACKGROUND: 0, VOID_NAME: VOID}
    for row in rows(path, ["class"]):
        label = row.text("class")
        if label not in numbers:
            numbers[label] = len(named) + 1
            named[label] = Class(label, row.phrasings("prompt") or (label,), numbers[label])
        if value := row.optional("value"):
            _enter(values, _value(value, row), numbers[label], row)
        if colour := row.cells.get("colour", row.cells.get("color")):
            _enter(colours, _colour(colour, row), numbers[label], row)
    if len(named) >= VOID:
        raise UserError(f"{path} must have at most {VOID - 1} classes, got {len(named)}", "class-count")
    if not named:
        raise UserError(f"{path} has no class but background and void", "class-count")
    return Classes(named, values, colours)


def _enter(table: dict[Any, int], key: Any, number: int, row: Row) -> None:
    if table.setdefault(key, number) != number:
        raise UserError(f"{row.where} gives {key} to another class than an earlier row", "rows-disagree")


def _value(text: str, row: Row) -> int:
    if not re.fullmatch(r"\d{1,5}", text) or int(text) > 65535:
        raise UserError(f"{row.where} has the value {text!r}; it must be a whole number from 0 to 65535", "class-value")
    return int(text)


def _colour(cell: Any, row: Row) -> Colour:
    """(red, green, blue) from "#ff8000", "255 128 0" or [255, 128, 0]."""
    text = " ".join(map(str, cell)) if isinstance(cell, list) else str(cell).strip()
    if match := re.fullmatch(r"#?([0-9a-fA-F]{6})", text):
        parts = tuple(bytes.fromhex(match[1]))
    else:
        match = re.fullmatch(r"(\d{1,3})[\s,;]+(\d{1,3})[\s,;]+(\d{1,3})", text)
        parts = tuple(map(int, match.groups())) if match else ()
    if not parts or max(parts) > 255:
        raise UserError(f"{row.where} has the colour {text!r}; write it as #ff8000 or 255 128 0", "class-value")
    red, green, blue = parts
    return red, green, blue
