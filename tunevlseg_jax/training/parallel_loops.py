"""Several loops that train on one stream of batches, each in a thread of its own."""

from __future__ import annotations

import itertools
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import TypeVar

from tunevlseg_jax.data.feeding.batch import Source
from tunevlseg_jax.runtime.signals import Interrupted
from tunevlseg_jax.training import loop
from tunevlseg_jax.training.loop import Epoch, LoopState, TrainSetup
from tunevlseg_jax.training.metrics import Sums

T = TypeVar("T")


def advance(
    setup: TrainSetup, loops: Sequence[LoopState], batches: Iterator[Source], watch: Callable[[int, Sums], None]
) -> list[tuple[LoopState, Epoch]]:
    """One epoch of every loop and its validation; an error or a signal in one ends the others at their next step.

    Args:
      setup: what the loops share.
      loops: before the epoch; their states' buffers are given away.
      batches: of the epoch.
      watch: called for the first loop, as in `loop.advance`.

    Returns:
      Each loop after the epoch, and what that gave.
    """
    ending = threading.Event()

    def check() -> None:
        if ending.is_set():
            raise Interrupted(signal.SIGINT)

    def one(number: int, stream: Iterator[Source]) -> tuple[LoopState, Epoch]:
        after, epoch = loop.advance(setup, loops[number], stream, watch if number == 0 else _unwatched, check)
        if isinstance(epoch, Interrupted):
            raise epoch
        return after, epoch

    if len(loops) == 1:
        return [one(0, batches)]
    with ThreadPoolExecutor(len(loops)) as threads:
        try:
            futures = [threads.submit(one, *each) for each in enumerate(for_each(batches, len(loops)))]
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
        finally:
            ending.set()
        for future in done:
            future.result()  # an error's own, before what the others ended with
        return [future.result() for future in futures]


def for_each(stream: Iterator[T], readers: int) -> list[Iterator[T]]:
    """The stream for several threads: the first that comes to an item takes it, for all of them."""
    taking = threading.Lock()

    def taken(copy: Iterator[T]) -> Iterator[T]:
        while True:
            with taking:
                items = list(itertools.islice(copy, 1))
            if not items:
                return
            yield items[0]

    return [taken(copy) for copy in itertools.tee(stream, readers)]


def _unwatched(step: int, sums: Sums) -> None:
    """Nothing is told of these steps."""
