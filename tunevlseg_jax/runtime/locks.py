"""File locks, which the operating system releases when the process that holds them ends, even if it is killed."""

import contextlib
import json
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from tunevlseg_jax.runtime import flock
from tunevlseg_jax.runtime.errors import UserError
from tunevlseg_jax.runtime.files import as_user_error


def hold(path: Path) -> IO[bytes]:
    """Takes a free lock and keeps it until the returned file is closed or the process ends.

    Raises:
      BlockingIOError: the lock is held already, by this process or another.
      UserError: the file can't be created, or its file system has no locks.
    """
    while True:
        file = _opened(path)
        try:
            flock.lock(file, path, wait=False)
            if _is_at(file, path):
                return file
        except BaseException:
            file.close()
            raise
        file.close()  # its last holder has removed it in the meantime


def is_held(path: Path) -> bool:
    """Whether this process or another holds the lock."""
    if not path.exists():
        return False
    try:
        hold(path).close()
    except BlockingIOError:
        return True
    return False


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Waits for a lock and holds it during the block."""
    with _opened(path) as file:
        flock.lock(file, path, wait=True)
        yield


@contextmanager
def owned(path: Path, activity: str, note: Callable[[str], None] = lambda line: None) -> Iterator[None]:
    """Holds a lock during the block; its file names this host and process, and is removed at the end.

    The lock of a process that was killed is free. On a file system without locks the file itself is the lock: there
    that of a killed process is free on its own host alone, where it can be seen that the process has ended.

    Args:
      path: of the lock's file.
      activity: for the message, such as "trains in runs/a".
      note: receives a line on a file system without locks.

    Raises:
      UserError: another process holds the lock; the message names its host and process.
    """
    try:
        file: IO[bytes] | None = hold(path)
    except BlockingIOError:
        message = f"{_named(_owner(path))} {activity} already ({path} is locked); wait until it has ended"
        raise UserError(message, "folder-in-use") from None
    except UserError as error:
        if error.code != flock.NO_LOCKS:
            raise
        file = None
        _take_without_locks(path, activity)
        note(f"note: the file system of {path} has no file locks; delete that file if its process was killed")
    try:
        if file is not None:
            file.truncate(0)
            file.write(_us())
            file.flush()
        yield
    finally:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
        if file is not None:
            file.close()


def _opened(path: Path) -> IO[bytes]:
    """The lock's file, which is created if there is none."""
    with as_user_error(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("ab")


def _is_at(file: IO[bytes], path: Path) -> bool:
    """Whether an open file is still the one at its path."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _us() -> bytes:
    """What the file of an owned lock holds."""
    return json.dumps({"host": socket.gethostname(), "process": os.getpid()}).encode() + b"\n"


def _owner(path: Path) -> dict[str, Any] | None:
    """The host and process that a lock's file names; None where it names none."""
    with contextlib.suppress(OSError, ValueError):
        owner = json.loads(path.read_bytes())
        if isinstance(owner, dict) and isinstance(owner.get("host"), str) and type(owner.get("process")) is int:
            return owner
    return None


def _named(owner: dict[str, Any] | None) -> str:
    return "another process" if owner is None else f"process {owner['process']} on host {owner['host']}"


def _take_without_locks(path: Path, activity: str) -> None:
    """Writes the file of an owned lock, unless it names a process that may live."""
    owner = _owner(path)
    if owner is not None and not (owner["host"] == socket.gethostname() and _has_ended(owner["process"])):
        raise UserError(
            f"{_named(owner)} {activity}, as {path} says, and its file system has no file locks; wait until it has "
            "ended, or delete that file if it was killed",
            "folder-in-use",
        )
    with as_user_error(path):
        path.unlink(missing_ok=True)
        try:
            with path.open("xb") as file:
                file.write(_us())
        except FileExistsError:  # another process was quicker
            raise UserError(f"another process {activity}; {path} is its lock", "folder-in-use") from None


def _has_ended(process: int) -> bool:
    """Whether a process of this host has ended."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False
    return process == os.getpid()  # an earlier one with the same number: this process holds no such lock
