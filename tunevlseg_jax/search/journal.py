"""A study's journal: Optuna's log of operations, a line of JSON each, mended where a writer or a disk has broken it."""

import contextlib
import json
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import BaseJournalBackend, JournalFileBackend

from tunevlseg_jax.runtime import locks
from tunevlseg_jax.runtime.errors import UserError
from tunevlseg_jax.runtime.files import as_user_error, atomic_file
from tunevlseg_jax.runtime.schema import current_name

START = re.compile(rb'\{\s*"op_code"\s*:')
CREATE_TRIAL = 4
"""The operation's code in the journal."""
WORKER = "worker"
"""The attribute of a trial that names its worker."""
COPY = ".damaged"
"""Suffix of the copy of a damaged journal."""


class _Lock:
    """The journal's lock; Optuna's own outlives a killed holder by half a minute."""

    def __init__(self, path: Path):
        self.path, self.held = path, contextlib.ExitStack()

    def acquire(self) -> bool:
        self.held.enter_context(locks.locked(self.path))
        return True

    def release(self) -> None:
        self.held.close()


def open_journal(path: Path, note: Callable[[str], None]) -> BaseStorage:
    """The storage in a journal, whose damaged lines are mended first.

    A partial last line is what a killed writer leaves, and is dropped. Blank lines, the remains of partial lines, and
    several operations in one line are what network file systems leave: every whole operation is kept, the damaged
    journal is copied, and `note` receives a line.

    Raises:
      UserError: the others need an operation that is lost; the file can't be read or written.
    """
    lock = path.with_suffix(".lock")
    with locks.locked(lock), as_user_error(path):
        path.touch()
        whole, newline, partial = path.read_bytes().rpartition(b"\n")
        lines = whole.split(b"\n") if newline else []
        if partial and _operation(partial) is not None:  # only the end of its line is missing
            lines.append(partial)
        kept = [operation for line in lines for operation in _operations(line)]
        damaged = [number for number, line in enumerate(lines, 1) if _operation(line) is None]
        _check(kept, path, damaged)
        if damaged or partial:
            copy = _copied(path) if damaged else None
            with atomic_file(path) as temporary:
                temporary.write_bytes(b"".join(operation + b"\n" for operation in kept))
            if copy is not None:
                where = f"line{'s' if len(damaged) > 1 else ''} {', '.join(map(str, damaged))}"
                note(f"note: {path} was damaged in {where}; every whole operation is kept, and {copy} is as it was")
    try:
        backend = JournalFileBackend(str(path), lock_obj=_Lock(lock))  # pyright: ignore[reportArgumentType]
        return JournalStorage(backend)
    except (AssertionError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise UserError(
            f"{path} has an operation in another form than Optuna's ({type(error).__name__}: {error}); restore the "
            "file from a copy, or choose another --study",
            "journal-damaged",
        ) from error


def _operation(line: bytes) -> dict[str, Any] | None:
    """The operation of a line; None if it is damaged."""
    with contextlib.suppress(ValueError):
        operation = json.loads(line.decode())
        if isinstance(operation, dict) and type(operation.get("op_code")) is int:
            return operation
    return None


def _operations(line: bytes) -> Iterator[bytes]:
    """The whole operations in a line: itself, or those that have run together, without what is between them."""
    if _operation(line) is not None:
        yield line
        return
    position = 0
    while found := START.search(line, position):
        text = line[found.start() :].decode(errors="replace")
        try:
            _, end = json.JSONDecoder().raw_decode(text)
        except ValueError:
            position = found.end()
            continue
        operation = text[:end].encode()
        position = found.start() + len(operation)
        if _operation(operation) is not None:
            yield operation


@dataclass(frozen=True)
class _Kept(BaseJournalBackend):
    """Operations in memory."""

    operations: Sequence[dict[str, Any]]

    def read_logs(self, log_number_from: int) -> list[dict[str, Any]]:
        return list(self.operations[log_number_from:])

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        raise NotImplementedError


def _check(kept: Sequence[bytes], path: Path, damaged: Sequence[int]) -> None:
    """Raises a UserError unless a journal makes sense with its whole operations alone; `damaged` are its other lines.

    Every operation must be of a trial that was created before, for else the number of a trial would be another's; the
    finished trials must have the same parameters, and those that came to their end the same results; the study must
    have its settings. A trial that lost its end is trained again.
    """
    operations = [json.loads(operation) for operation in kept]
    missing = _missing(operations)
    if missing:
        what = f"line {damaged[0]} of {path} is damaged" if damaged else f"{path} isn't as it was written"
        raise UserError(
            f"{what}, and the study can't do without an operation that is lost: {missing}; restore the file from a "
            "copy, or choose another --study (the finished trials stay in its folder)",
            "journal-damaged",
        )


def _missing(operations: Sequence[dict[str, Any]]) -> str:
    """What the study lacks without an operation that was lost; "" if it can go on."""
    created = 0
    for operation in operations:
        created += operation["op_code"] == CREATE_TRIAL
        if operation.get("trial_id", -1) >= created:
            return f"the creation of trial {operation['trial_id']}"
    try:
        storage = JournalStorage(_Kept(operations))
        studies = storage.get_all_studies()
        trials = [trial for study in studies for trial in storage.get_all_trials(study._study_id)]
    except Exception as error:  # Optuna raises whatever an operation of another form ends in
        return f"an operation has another form ({type(error).__name__})"
    if not studies and operations:
        return "the creation of the study"
    if trials and not all("identity" in study.user_attrs for study in studies):
        return "the study's settings"
    finished = [trial for trial in trials if trial.state.is_finished()]
    complete = [trial for trial in finished if trial.state.name == "COMPLETE"]
    for group, values in ((finished, "params"), (complete, "user_attrs")):
        by_trial = {trial.number: set(map(current_name, getattr(trial, values))) - {WORKER} for trial in group}
        every = set().union(*by_trial.values())
        for number, names in by_trial.items():
            if lost := sorted(every - names):
                return f"{lost[0]} of trial {number}"
    return ""


def _copied(path: Path) -> Path:
    """Copies a damaged journal beside it."""
    names = (path.with_name(f"{path.name}{COPY}{number or ''}") for number in count())
    copy = next(name for name in names if not name.exists())
    shutil.copy2(path, copy)
    return copy
