"""The output folder of predictions: one process at a time writes into it."""

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tunevlseg_jax.runtime.errors import UserError
from tunevlseg_jax.runtime.files import as_user_error


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """A block in which no other `predict` writes into a folder, which is created; it is removed if it stays empty.

    Raises:
      UserError: another process writes into it, or it can't be created.
    """
    with as_user_error(folder):
        created = [path for path in (folder, *folder.parents) if not path.exists()]
        folder.mkdir(parents=True, exist_ok=True)
    try:
        handle = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another process predicts into {folder}; wait for it", "folder-in-use") from None
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.EBADF, errno.EINVAL):  # without locks: go on
                raise
        try:
            yield
        finally:
            os.close(handle)
    finally:
        with contextlib.suppress(OSError):  # it isn't empty
            for path in created:
                path.rmdir()
