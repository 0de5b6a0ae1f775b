"""Writing files so that nothing is ever found half-written: to a temporary name first, then a rename."""

from __future__ import annotations

import contextlib
import csv
import fcntl
import hashlib
import io
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tunevlseg_jax.runtime.errors import UserError


def check_name(name: str) -> None:
    """Raises a UserError at a file name that isn't UTF-8: no table or prepared set can hold it."""
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"the file name {name!a} isn't UTF-8; rename it") from error


@contextmanager
def as_user_error(path: Path) -> Iterator[None]:
    """Turns an OSError in the block into a UserError that names `path`."""
    try:
        yield
    except OSError as error:
        raise UserError(f"can't write {path}: {error.strerror or error}") from error


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` to write to; it takes the place of `path` when the block ends well.

    Raises:
      UserError: the disk is full, or the folder can't be written to.
    """
    with as_user_error(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            temporary.chmod(0o666 & ~_umask())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_files(folder: Path, last: str) -> Iterator[Path]:
    """A temporary folder to write to; its files move into `folder` when the block ends well.

    Args:
      folder: made if need be; files of the same names are replaced, others stay.
      last: name of the file that moves last, so that a folder that has it is whole.

    Raises:
      UserError: the disk is full, or the folder can't be written to.
    """
    folder = folder.resolve()
    with as_user_error(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
        try:
            yield temporary
            folder.mkdir(exist_ok=True)
            for path in sorted(temporary.iterdir(), key=lambda path: path.name == last):
                path.replace(folder / path.name)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def atomic_dir(folder: Path) -> Iterator[Path]:
    """A temporary folder to write to; it takes the place of `folder`, whole, when the block ends well.

    What a killed process left of an earlier try is thrown away first.

    Raises:
      UserError: another process makes the folder just now, the disk is full, or the place can't be written to.
    """
    folder = folder.resolve()
    temporary, old = (folder.parent / f".{folder.name}.{name}" for name in ("incomplete", "old"))
    with as_user_error(folder), contextlib.ExitStack() as stack:
        temporary.mkdir(parents=True, exist_ok=True)
        handle = os.open(temporary, os.O_RDONLY)
        stack.callback(os.close, handle)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{folder} is being written by another process; wait until it has ended") from None
        try:
            for path in temporary.iterdir():
                shutil.rmtree(path)
            yield temporary
            if folder.exists():
                shutil.rmtree(old, ignore_errors=True)
                folder.rename(old)
            temporary.rename(folder)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        # From here on, what has the temporary name is another process's, which may begin while the old one goes.
        shutil.rmtree(old, ignore_errors=True)


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes a CSV file whose columns are those of the first row, whole or not at all; what is None stays empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0])
    writer.writeheader()
    for row in rows:
        writer.writerow({name: f"{value:.8g}" if isinstance(value, float) else value for name, value in row.items()})
    with atomic_file(path) as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Writes JSON, indented, whole or not at all."""
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Reads JSON.

    Raises:
      UserError: there is no such file, or it isn't JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"there is no {path}") from error
    except (OSError, ValueError) as error:
        raise UserError(f"can't read {path}: {error}") from error


def read_object(path: Path) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
      UserError: as in `read_json`, or it is another value.
    """
    value = read_json(path)
    if not isinstance(value, dict):
        raise UserError(f"{path} holds no JSON object")
    return value


def sha256(path: Path) -> str:
    """Of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
