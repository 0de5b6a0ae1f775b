"""Bars of what takes a while, gone when it is done, and on a terminal alone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

import rich
from rich.progress import track

T = TypeVar("T")


def passing(items: Iterable[T], title: str, total: int | None = None) -> Iterable[T]:
    """The items, with a bar that moves as they are taken."""
    return track(items, title, total=total, transient=True, disable=not rich.get_console().is_interactive)
