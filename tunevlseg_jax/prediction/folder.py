"""The output folder of predictions: one `predict` at a time writes into it."""

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tunevlseg_jax.runtime import locks, multihost
from tunevlseg_jax.runtime.files import as_user_error

LOCK_FILE = ".predict.lock"


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """A block in which no other `predict` writes into a folder, which is created; it is removed if it stays empty.

    Of several processes, process 0 holds it for all.

    Raises:
      UserError: another process writes into it, or it can't be created.
    """
    if not multihost.is_primary():
        yield
        return
    with as_user_error(folder):
        created = [path for path in (folder, *folder.parents) if not path.exists()]
        folder.mkdir(parents=True, exist_ok=True)
    try:
        with locks.owned(folder / LOCK_FILE, f"predicts into {folder}"):
            yield
    finally:
        with contextlib.suppress(OSError):  # it isn't empty
            for path in created:
                path.rmdir()
