"""Joins what several processes have predicted: rows for the reader, and the parts of the tables."""

import itertools
from collections.abc import Iterator, Sequence

from tunevlseg_jax.prediction.session import Session
from tunevlseg_jax.prediction.table import Row, Table
from tunevlseg_jax.runtime import exchange, multihost


def joined(rows: Iterator[Row], tables: Sequence[Table]) -> Iterator[Row]:
    """The rows of all processes in their order; all processes must call this.

    Args:
      rows: of this process, which are written to its part as they are read.
      tables: the whole tables, which process 0 completes when all parts are.
    """
    if not multihost.is_multiprocess():
        yield from rows
        return
    every = exchange.gather(list(rows))

    def complete() -> None:
        for table in tables:
            table.join_parts()

    exchange.from_primary(complete)
    yield from itertools.chain.from_iterable(every)


def join_notes(session: Session) -> None:
    """Gives the session the notes of all processes' sessions: what was left out, failed, kept or replaced."""
    parts = exchange.gather((session.left_out, session.failures, session.kept, session.changed))
    left_out, failures, kept, changed = zip(*parts, strict=True)
    session.left_out = list(itertools.chain.from_iterable(left_out))
    session.failures = list(itertools.chain.from_iterable(failures))
    session.kept, session.changed = sum(kept), sum(changed)
