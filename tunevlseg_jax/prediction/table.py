"""The tables of an output folder: rows are appended as masks are written, and earlier rows are never lost.

Several processes write a part each, a hidden table beside the whole one, which process 0 joins at the end. What
processes that were killed have left is joined by the next call.
"""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tunevlseg_jax.runtime import multihost
from tunevlseg_jax.runtime.errors import UserError
from tunevlseg_jax.runtime.files import as_user_error, atomic_file

LIST_FILE = "predictions.csv"
"""The table of the masks in a folder. Only files in it, and their overlays, may be replaced."""
LABELS_FILE = "label_maps.csv"
"""The table of the label maps in a folder, with a row for each value of each map."""
ABOUT: tuple[str, ...] = ("image", "frame", "prompt", "threshold", "run", "run_sha256")
SIZES: tuple[str, ...] = ("height", "width", "pixels", "marked", "components", "area_mm2", "image_sha256")
COLUMNS: tuple[str, ...] = (*ABOUT, "mask", "probabilities", *SIZES, "presence")
LABEL_COLUMNS: tuple[str, ...] = (*ABOUT, "labels", "value", *SIZES)
PART = ".part"
"""In the names of the tables of several processes."""
EARLIER: tuple[tuple[str, ...], ...] = (("image", "prompt", "mask", "marked"), COLUMNS[:-1])
"""The columns of earlier tables, the first those of version 0.1.0."""
Row = dict[str, Any]


class Table:
    """A CSV file whose rows are replaced by their key, else kept.

    Attributes:
      path: of the file; it is written with the first row that is added.
      rows: by key, the values of the columns of `key`.
      earlier: of a part, the rows of the whole table.
    """

    def __init__(
        self, path: Path, columns: Sequence[str], key: Sequence[str], earlier: Mapping[tuple[str, ...], Row] = {}
    ):
        """Reads the rows that are there.

        Raises:
          UserError: the file can't be read, or isn't such a table.
        """
        self.path, self._columns, self._key, self.earlier = path, columns, key, earlier
        self.rows: dict[tuple[str, ...], Row] = {}
        self._appendable = False
        """Whether the file ends in a whole row of these columns."""
        self._has_repeats = False
        """Whether the file has several rows of a key, of which the last counts."""
        if path.exists():
            self._read()

    def get(self, *key: str) -> Row | None:
        """The row of a key, also an earlier one; None if there is none."""
        return self.rows.get(key) or self.earlier.get(key)

    def part(self) -> "Table":
        """The table for the rows of this process, which is the table itself if there is one process."""
        if not multihost.is_multiprocess():
            return self
        path = self.path.with_name(f".{self.path.stem}{PART}{multihost.process_number():04}.csv")
        return Table(path, self._columns, self._key, self.rows)

    def join_parts(self) -> None:
        """Takes over the rows of the parts, and removes them.

        Raises:
          UserError: as in `add`, or a part can't be read.
        """
        for path in sorted(self.path.parent.glob(f".{self.path.stem}{PART}*.csv")):
            self.add(Table(path, self._columns, self._key).rows.values())
            with as_user_error(path):
                path.unlink()
        self.close()

    def add(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Adds rows to the file at once, each whole or not at all.

        Raises:
          UserError: the disk is full, or the folder isn't writable.
        """
        added = [{name: _cell(row[name]) for name in self._columns} for row in rows]
        self._has_repeats |= any(self._key_of(row) in self.rows for row in added)
        self.rows |= {self._key_of(row): row for row in added}
        if not self._appendable:
            self._write()
            return
        with as_user_error(self.path), self.path.open("ab") as file:
            file.write(self._text(added))

    def close(self) -> None:
        """Removes the rows that others have replaced from the file."""
        if self._has_repeats:
            self._write()

    def _write(self) -> None:
        header = self._text([dict(zip(self._columns, self._columns, strict=True))])
        with atomic_file(self.path) as temporary:
            temporary.write_bytes(header + self._text(self.rows.values()))
        self._appendable, self._has_repeats = True, False

    def _read(self) -> None:
        try:
            text = self.path.read_bytes().decode("utf-8")
            rows = list(csv.reader(io.StringIO(text, newline="")))
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise UserError(f"can't read {self.path}: {error}; choose another --output", "unreadable") from error
        cut_off = not text.endswith("\n")  # a killed process, or a full disk, left a part of the last row
        known = (each for each in (self._columns, *EARLIER) if set(each) <= set(self._columns))
        columns = next((each for each in known if rows[:1] == [[*each]]), None)
        body = rows[1 : len(rows) - cut_off]
        if columns is None or any(len(row) != len(columns) for row in body):
            raise UserError(
                f"{self.path} lacks the columns {', '.join(self._columns)}; choose another --output", "other-folder"
            )
        for row in body:
            whole = dict.fromkeys(self._columns, "") | dict(zip(columns, row, strict=True))
            self.rows[self._key_of(whole)] = whole
        self._appendable = columns == self._columns and not cut_off
        self._has_repeats = len(self.rows) < len(body)

    def _key_of(self, row: Mapping[str, str]) -> tuple[str, ...]:
        return tuple(row[name] for name in self._key)

    def _text(self, rows: Iterable[Mapping[str, str]]) -> bytes:
        text = io.StringIO()
        csv.DictWriter(text, self._columns).writerows(rows)
        return text.getvalue().encode()


def masks_of(folder: Path) -> Table:
    """The table of a folder's masks."""
    return Table(folder / LIST_FILE, COLUMNS, ("mask",))


def label_maps_of(folder: Path) -> Table:
    """The table of a folder's label maps."""
    return Table(folder / LABELS_FILE, LABEL_COLUMNS, ("labels", "value"))


def _cell(value: Any) -> str:
    return "" if value is None else f"{value:.8g}" if isinstance(value, float) else str(value)
