"""Atomic writes: files are written to a temporary name and then renamed, so that nobody reads half a file."""

import contextlib
import csv
import errno
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

from tunevlseg_jax.runtime import flock
from tunevlseg_jax.runtime.errors import UserError

REMEDIES = {
    errno.ENOSPC: "; make room, or choose a folder on another disk",
    errno.EDQUOT: "; make room, or choose a folder on another disk",
    errno.EACCES: "; choose another folder, or ask for the right to write there",
    errno.EPERM: "; choose another folder, or ask for the right to write there",
    errno.EROFS: "; choose a folder on another disk",
    errno.EISDIR: "; give the name of a file in it",
    errno.ENOTDIR: "; one of its parts is a file: choose another place",
    errno.EEXIST: "; one of its parts is a file: choose another place",
    errno.ENAMETOOLONG: "; choose a shorter name",
}
"""What to do where a file can't be written, by the system's error."""


def check_name(name: str) -> None:
    """Raises a UserError if a file name isn't UTF-8, because tables and prepared sets can't store it."""
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"the file name {name!a} isn't UTF-8; rename it", "invalid-name") from error


@contextmanager
def as_user_error(path: Path) -> Iterator[None]:
    """Turns an OSError in the block into a UserError that names `path`."""
    try:
        yield
    except OSError as error:
        remedy = REMEDIES.get(error.errno or 0, "")
        raise UserError(f"can't write {path}: {error.strerror or error}{remedy}", "unwritable") from error


def check_output(path: Path) -> None:
    """Raises a UserError if no file can be written at `path`, before long work whose result it takes."""
    with as_user_error(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` to write to; it replaces `path` when the block ends without an error.

    Raises:
      UserError: the disk is full, or the folder isn't writable.
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
    """A temporary folder to write to; its files move into `folder` when the block ends without an error.

    Args:
      folder: created if needed; files of the same names are replaced, other files stay.
      last: name of the file that moves last, so that a folder that has it is complete.

    Raises:
      UserError: the disk is full, or the folder isn't writable.
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
    """A temporary folder to write to; it replaces `folder` as a whole when the block ends without an error.

    Files that a killed process left in the temporary folder are deleted first.

    Raises:
      UserError: another process is writing the folder, the disk is full, or the parent folder isn't writable.
    """
    folder = folder.resolve()
    temporary, old = (folder.parent / f".{folder.name}.{name}" for name in ("incomplete", "old"))
    with as_user_error(folder), contextlib.ExitStack() as stack:
        was_there = temporary.exists()
        temporary.mkdir(parents=True, exist_ok=True)
        handle = os.open(temporary, os.O_RDONLY)
        stack.callback(os.close, handle)
        try:
            flock.lock(handle, temporary, wait=False)
        except BlockingIOError:
            raise UserError(f"{folder} is being written by another process; wait for it", "folder-in-use") from None
        except UserError:  # the file system has no locks: the temporary folder itself is the lock
            if was_there:
                message = f"{temporary} is another process's, or was left by one that was killed; delete it then"
                raise UserError(message, "folder-in-use") from None
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
        # From here on another process may use the temporary name, also while the old folder is being deleted.
        shutil.rmtree(old, ignore_errors=True)


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes a CSV file atomically, with the columns of the first row; None becomes an empty cell."""
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0])
    writer.writeheader()
    for row in rows:
        writer.writerow({name: f"{value:.8g}" if isinstance(value, float) else value for name, value in row.items()})
    with atomic_file(path) as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Writes indented JSON atomically."""
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Reads JSON.

    Raises:
      UserError: the file doesn't exist or isn't JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"there is no {path}", "no-such-file") from error
    except OSError as error:
        raise UserError(f"can't read {path}: {error.strerror or error}", "unreadable") from error
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else error
        raise UserError(
            f"can't read {path}: {reason}; restore it from a copy or write it again", "unreadable"
        ) from error


def read_object(path: Path) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
      UserError: as in `read_json`, or the value isn't an object.
    """
    value = read_json(path)
    if not isinstance(value, dict):
        reason = f"{path} must hold a JSON object, got a {type(value).__name__}"
        raise UserError(f"{reason}; restore it from a copy or write it again", "wrong-json")
    return value


def sha256(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
