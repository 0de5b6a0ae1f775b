"""Python objects that the processes of a run send each other; they trust each other, so objects are pickled."""

import pickle
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from tunevlseg_jax.runtime import multihost, schema
from tunevlseg_jax.runtime.errors import EverywhereError, UserError
from tunevlseg_jax.runtime.lazy import jax, multihost_utils

T = TypeVar("T")

MAY_DIFFER = ("cluster.", "config.workdir", "config.data.root", "config.data.cache", "config.data.workers")
"""Beginnings of the names of options that may differ between hosts, whatever the command."""


def from_primary(function: Callable[[], T]) -> T:
    """Calls a function in process 0 alone, and returns its result in every process; all processes must call this.

    Raises:
      EverywhereError: the function had a UserError; every process raises it.
    """
    if not multihost.is_multiprocess():
        return function()
    outcome: tuple[Any, UserError | None] = None, None
    if multihost.is_primary():
        try:
            outcome = function(), None
        except UserError as error:
            outcome = None, EverywhereError(str(error), error.code)
    sent = pickle.dumps(outcome)
    length = int(multihost.broadcast_from_primary(np.asarray(len(sent), np.int32)))
    result, failure = pickle.loads(multihost.broadcast_from_primary(_padded(sent, length)).tobytes())
    if failure is not None:
        raise failure
    return result


def gather(item: T) -> list[T]:
    """The items of all processes, in their order; all processes must call this."""
    if not multihost.is_multiprocess():
        return [item]
    sent = pickle.dumps(item)
    length = int(multihost.gather_numbers([len(sent)]).max())
    received = multihost_utils.process_allgather(_padded(sent, length))
    return [pickle.loads(row.tobytes()) for row in np.asarray(received)]


def check_same(options: Any, but: tuple[str, ...] = ()) -> None:
    """Raises an EverywhereError if a process was started with other options; all processes must call this.

    Args:
      options: a dataclass.
      but: the beginnings of the dotted names that may differ beside MAY_DIFFER.
    """
    flat = schema.flat(schema.to_json(options))
    mine = {name: value for name, value in flat.items() if not name.startswith((*MAY_DIFFER, *but))}
    first, *others = gather(mine)
    for number, theirs in enumerate(others, 1):
        for name in sorted({*first, *theirs}):
            if first.get(name) != theirs.get(name):
                field = name.removeprefix("config.")
                given = f"process {number} has {field} {theirs.get(name)}, process 0 has {first.get(name)}"
                raise EverywhereError(f"{given}; start all processes with the same options", "options-conflict")


def share() -> slice:
    """This process's share of items that the processes divide: every n-th of them, from the process's number on."""
    return slice(jax.process_index(), None, jax.process_count()) if multihost.is_multiprocess() else slice(0, None, 1)


def block(items: Sequence[T]) -> Sequence[T]:
    """This process's part of items that the processes divide; the parts follow each other in the processes' order."""
    number, count = (jax.process_index(), jax.process_count()) if multihost.is_multiprocess() else (0, 1)
    return items[len(items) * number // count : len(items) * (number + 1) // count]


def _padded(sent: bytes, length: int) -> np.ndarray:
    """The first `length` bytes, and zeros up to a power of two, so that few programs send objects of any length."""
    padded = np.zeros(1 << max(10, (length - 1).bit_length()), np.uint8)
    cut = np.frombuffer(sent, np.uint8)[:length]
    padded[: len(cut)] = cut
    return padded
