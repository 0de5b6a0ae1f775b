"""Locks on files that the system frees when their holder dies, however it dies."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from tunevlseg_jax.runtime.files import as_user_error


def hold(path: Path) -> IO[bytes]:
    """Takes a lock that is free, until the file that is returned is closed or the process ends.

    Raises:
      BlockingIOError: somebody holds it.
      UserError: the file can't be made.
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
    """Whether somebody holds the lock, in this process or another."""
    if not path.exists():
        return False
    try:
        hold(path).close()
    except BlockingIOError:
        return True
    return False


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds a lock during a block, and waits for it first."""
    with as_user_error(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("ab")
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
