"""SIGTERM and Ctrl-C: deferred to a checkpoint in training, immediate elsewhere."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tunevlseg_jax.runtime.multihost import AllProcessMax

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

    from jax.sharding import Mesh

SIGNALS = (signal.SIGINT, signal.SIGTERM)
AGAIN = 0.02
"""Seconds after which a signal whose exception was lost is sent again."""


class Stopped(KeyboardInterrupt):
    """A signal ends the command.

    Attributes:
      number: the signal's number.
    """

    def __init__(self, number: int, hint: str = ""):
        """`hint` says in a few words how to continue."""
        super().__init__(hint)
        self.number = number


class Interrupted(Stopped):
    """A signal ends the command at a point where its progress can be saved."""


class Interruptions:
    """A block that defers the first signal until `check`; a second signal ends the command at once."""

    def __init__(self, mesh: Mesh):
        """`mesh` has the devices of all processes that call `check`."""
        self.deferred = 0
        self.all_process_max = AllProcessMax(mesh)
        self.before: dict[int, Any] = {}

    def __enter__(self) -> Interruptions:
        self.before = _set_handlers(dict.fromkeys(SIGNALS, self._defer))
        return self

    def __exit__(self, *raised: object) -> None:
        _set_handlers(self.before)

    def check(self) -> None:
        """Raises the deferred signal; all processes must call this at the same points.

        Raises:
          Interrupted: in all processes, if one of them has received a signal.
        """
        number = self.all_process_max(self.deferred)
        if number:
            raise Interrupted(number)

    def _defer(self, number: int, frame: object) -> None:
        if self.deferred:
            raise Stopped(number)
        self.deferred = number


@contextmanager
def at_once() -> Iterator[None]:
    """A block that SIGTERM ends in the same way as Ctrl-C, so that cleanup runs.

    Python drops an exception of a finaliser or of a callback of the garbage collector, such as JAX has one. A signal
    that arrives within one is sent again.
    """

    def end(number: int, frame: object) -> None:
        raise Stopped(number)

    def dropped(lost: UnraisableHookArgs) -> None:
        if isinstance(lost.exc_value, KeyboardInterrupt):
            _send_again(lost.exc_value)
        else:
            hook(lost)

    hook, sys.unraisablehook = sys.unraisablehook, dropped
    before = _set_handlers({signal.SIGTERM: end})
    try:
        yield
    finally:
        _set_handlers(before)
        sys.unraisablehook = hook


@contextmanager
def with_hint(hint: str) -> Iterator[None]:
    """A block that adds to an interruption how to continue, if it doesn't say so yet."""
    try:
        yield
    except KeyboardInterrupt as stop:
        known = stop if isinstance(stop, Stopped) else Stopped(signal.SIGINT)
        raise type(known)(known.number, str(stop) or hint) from stop


def never() -> None:
    """Takes the place of `Interruptions.check` in code whose progress isn't saved."""


def _send_again(stop: KeyboardInterrupt) -> None:
    """Sends a signal from another thread, when the code that dropped its exception has gone on."""
    number = stop.number if isinstance(stop, Stopped) else signal.SIGINT
    timer = threading.Timer(AGAIN, signal.pthread_kill, (threading.main_thread().ident, number))
    timer.daemon = True
    timer.start()


def _set_handlers(handlers: dict[int, Callable[[int, object], None] | Any]) -> dict[int, Any]:
    """Sets signal handlers and returns the previous ones; an ignored signal stays ignored."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    return {
        number: signal.signal(number, handler)
        for number, handler in handlers.items()
        if signal.getsignal(number) is not signal.SIG_IGN
    }
