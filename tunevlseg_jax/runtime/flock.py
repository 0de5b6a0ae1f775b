"""The operating system's lock on an open file."""

import fcntl
from pathlib import Path
from typing import IO

from tunevlseg_jax.runtime.errors import UserError

NO_LOCKS = "no-locks"
"""The code of the error of a file system without locks."""


def lock(file: IO[bytes] | int, path: Path, *, wait: bool) -> None:
    """Locks an open file, until it is closed or the process ends.

    Args:
      file: the file, or its descriptor.
      path: of the file, for the message.
      wait: whether to wait while another process holds the lock.

    Raises:
      BlockingIOError: the lock is held, by this process or another.
      UserError: the file system has no locks, as Lustre mounted without `-o flock`.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        raise
    except OSError as error:
        raise UserError(
            f"can't lock {path} ({error.strerror or error}): its file system has no file locks; choose a folder on "
            "another disk, such as a local one, or have this one mounted with locks (Lustre: -o flock)",
            "no-locks",
        ) from error
