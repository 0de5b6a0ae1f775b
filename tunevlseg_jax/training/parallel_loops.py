"""Loops that train on one stream of batches, each in its own thread."""

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


def train_epochs(
    setup: TrainSetup, loops: Sequence[LoopState], batches: Iterator[Source], watch: Callable[[int, Sums], None]
) -> list[tuple[LoopState, Epoch]]:
    """One epoch and validation of every loop; an error or a signal in one loop ends the others at their next step.

    The arguments are those of `loop.train_epoch`; `watch` is called for the first loop.
    """
    ending = threading.Event()

    def check() -> None:
        if ending.is_set():
            raise Interrupted(signal.SIGINT)

    def train_loop(number: int, stream: Iterator[Source]) -> tuple[LoopState, Epoch]:
        after, epoch = loop.train_epoch(setup, loops[number], stream, watch if number == 0 else _ignore, check)
        if isinstance(epoch, Interrupted):
            raise epoch
        return after, epoch

    if len(loops) == 1:
        return [train_loop(0, batches)]
    with ThreadPoolExecutor(len(loops)) as threads:
        try:
            futures = [threads.submit(train_loop, *each) for each in enumerate(for_each(batches, len(loops)))]
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
        finally:
            ending.set()
        for future in done:
            future.result()  # raises the first error, before the interruptions that it caused
        return [future.result() for future in futures]


def for_each(stream: Iterator[T], readers: int) -> list[Iterator[T]]:
    """Copies of the stream for several threads; each item is computed once, when the first thread asks for it."""
    lock = threading.Lock()

    def read(copy: Iterator[T]) -> Iterator[T]:
        while True:
            with lock:
                items = list(itertools.islice(copy, 1))
            if not items:
                return
            yield items[0]

    return [read(copy) for copy in itertools.tee(stream, readers)]


def _ignore(step: int, sums: Sums) -> None:
    """The steps of the other loops aren't reported."""
