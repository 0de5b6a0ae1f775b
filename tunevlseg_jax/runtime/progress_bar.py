"""Progress bars for slow loops, shown only on a terminal and removed when the loop ends."""

from collections.abc import Iterable
from typing import TypeVar

import rich
import rich.progress

T = TypeVar("T")


def track(items: Iterable[T], title: str, total: int | None = None) -> Iterable[T]:
    """Yields the items and advances a progress bar."""
    quiet = not rich.get_console().is_interactive
    return rich.progress.track(items, title, total=total, transient=True, disable=quiet)
