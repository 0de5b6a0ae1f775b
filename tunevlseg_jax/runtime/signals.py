"""SIGTERM and Ctrl-C: noted where what has been done can be kept, obeyed at once elsewhere."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from jax.sharding import Mesh

from tunevlseg_jax.runtime.multihost import AllProcessMax

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(KeyboardInterrupt):
    """A signal ends the command.

    Attributes:
      number: of the signal.
    """

    def __init__(self, number: int, told: str = ""):
        """`told` says how to go on, in a few words."""
        super().__init__(told)
        self.number = number


class Interrupted(Stopped):
    """A signal ends the command where what has been done can be kept."""


class Interruptions:
    """A block in which signals are noted, and told by `check`; the second one in it ends the command at once."""

    def __init__(self, mesh: Mesh):
        """For all processes that have devices in the mesh."""
        self.noted = 0
        self.agreed = AllProcessMax(mesh)
        self.before: dict[int, Any] = {}

    def __enter__(self) -> Interruptions:
        self.before = _handling(dict.fromkeys(SIGNALS, self._note))
        return self

    def __exit__(self, *raised: object) -> None:
        _handling(self.before)

    def check(self) -> None:
        """To be called by all processes at the same points.

        Raises:
          Interrupted: in all of them, if one has got a signal.
        """
        number = self.agreed(self.noted)
        if number:
            raise Interrupted(number)

    def _note(self, number: int, frame: object) -> None:
        if self.noted:
            raise Stopped(number)
        self.noted = number


@contextmanager
def at_once() -> Iterator[None]:
    """A block that SIGTERM ends as Ctrl-C does, so that it tidies up."""

    def end(number: int, frame: object) -> None:
        raise Stopped(number)

    before = _handling({signal.SIGTERM: end})
    try:
        yield
    finally:
        _handling(before)


@contextmanager
def with_hint(told: str) -> Iterator[None]:
    """A block whose interruption says how to go on, where it doesn't yet."""
    try:
        yield
    except KeyboardInterrupt as stop:
        known = stop if isinstance(stop, Stopped) else Stopped(signal.SIGINT)
        raise type(known)(known.number, str(stop) or told) from stop


def never() -> None:
    """What is called in place of `Interruptions.check` where nothing could be kept."""


def _handling(handlers: dict[int, Callable[[int, object], None] | Any]) -> dict[int, Any]:
    """Sets signals' handlers, and returns those before; a signal that is ignored stays so."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    return {
        number: signal.signal(number, handler)
        for number, handler in handlers.items()
        if signal.getsignal(number) is not signal.SIG_IGN
    }
