"""File locks, which the operating system releases when the process that holds them ends, even if it is killed."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from tunevlseg_jax.runtime.files import as_user_error


def hold(path: Path) -> IO[bytes]:
    """Takes a free lock and keeps it until the returned file is closed or the process ends.

    Raises:
      BlockingIOError: the lock is held already, by this process or another.
      UserError: the file can't be created.
    """
    with as_user_error(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise
    return file


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
    with as_user_error(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("ab")
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
