"""Progress bars of slow loops: on a terminal alone, and gone when the loop ends."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

import rich
import rich.progress

T = TypeVar("T")


def track(items: Iterable[T], title: str, total: int | None = None) -> Iterable[T]:
    """Yields the items, and moves a bar as they are taken."""
    quiet = not rich.get_console().is_interactive
    return rich.progress.track(items, title, total=total, transient=True, disable=quiet)
