"""Class tables that users write: the names, values or colours, and prompts of the classes of their masks."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunevlseg_jax.data.builders import table_rows
from tunevlseg_jax.data.builders.table_rows import Row
from tunevlseg_jax.data.examples import VOID
from tunevlseg_jax.data.mask_files import Colour
from tunevlseg_jax.runtime.errors import UserError

BACKGROUND = "background"
VOID_NAME = "void"
OPTIONAL = ("value", "colour", "prompt")


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


def classes(path: Path) -> Classes:
    """A class table with the columns class, value or colour, and prompt, by default the class's name.

    A class may have several rows. "background" has no records, "void" pixels are ignored.

    Raises:
      UserError: as in `table_rows.read`, or a value or colour is invalid or belongs to two classes.
    """
    named: dict[str, Class] = {}
    values: dict[int, int] = {}
    colours: dict[Colour, int] = {}
    numbers = {BACKGROUND: 0, VOID_NAME: VOID}
    for row in table_rows.read(path, ("class",), OPTIONAL).rows:
        label = row.text("class")
        label = label.lower() if label.lower() in (BACKGROUND, VOID_NAME) else label
        if label not in numbers:
            numbers[label] = len(named) + 1
            named[label] = Class(label, row.phrasings("prompt") or (label,), numbers[label])
        if value := row.optional("value"):
            _enter(values, _value(value, row), numbers[label], row)
        if colour := row.cells.get("colour"):
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
    text = re.sub(r"\.0+$", "", text)  # spreadsheets write 1.0
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
