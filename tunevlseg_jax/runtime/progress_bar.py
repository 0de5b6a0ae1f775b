"""Progress bars for slow loops, shown only on a terminal and removed when the loop ends."""

from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

import rich
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

T = TypeVar("T")


def track(items: Iterable[T], title: str, total: int | None = None) -> Iterator[T]:
    """Yields the items, and shows how many of how many are done and the remaining time.

    Args:
      items: to yield.
      title: what is being done, in a word.
      total: the number of items; None for their own length.
    """
    console = rich.get_console()
    if not console.is_interactive:
        yield from items
        return
    if total is None and isinstance(items, Sized):
        total = len(items)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(title, total=total)
        for item in items:
            yield item
            bar.advance(task)
