"""A study's trials in Optuna's storage: trial ownership, results, and takeover from dead workers."""

from __future__ import annotations

import contextlib
import datetime
import json
import threading
import uuid
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.exceptions import ExperimentalWarning, OptunaError
from optuna.pruners import BasePruner
from optuna.storages import BaseStorage, JournalStorage, RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from tunevlseg_jax.runtime import locks
from tunevlseg_jax.runtime.errors import UserError
from tunevlseg_jax.runtime.files import as_user_error
from tunevlseg_jax.runtime.schema import difference
from tunevlseg_jax.search.sampler import START_UP, Sampler, suggest

JOURNAL = "journal.log"
WORKER, ENDED = "worker", "ended"
"""Attributes of a trial: who trains it, and how it came to its end."""

HEARTBEAT_SECONDS, GRACE_SECONDS = 20, 120
"""Seconds between a worker's heartbeats in a database, and seconds without one until its trials are reassigned."""


@dataclass(frozen=True)
class AssignedTrial:
    """A trial that this worker trains.

    Attributes:
      number: of the trial in its study.
      params: its parameters, by field.
    """

    number: int
    params: Mapping[str, Any]


class StudyStorage:
    """One worker's view of a study that other workers may share.

    A trial in training belongs to a worker, which holds a lock on a file in the study's folder as long as it lives.
    A trial whose worker's lock is free is taken over, with its number and its parameters, by whoever notices first.
    Workers on other machines share a database, not the folder: there Optuna's heartbeats tell the dead, whose trials
    are closed as failed and queued again.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        url: str | None,
        identity: Mapping[str, Any],
        sampler: Sampler,
        direction: Literal["maximize", "minimize"],
        pruner: BasePruner,
    ):
        """Makes the study, or opens it to go on.

        Args:
          folder: of the study.
          name: of the study in the storage.
          url: of a database; None for a journal in the folder.
          identity: JSON of what all trials share; a study of another is refused.
          sampler: of the parameters.
          direction: "maximize" or "minimize".
          pruner: of trials that go badly.

        Raises:
          UserError: the storage can't be had, or holds a study of this name with another identity.
        """
        self.folder, self.sampler = folder, sampler
        self.resources, self.direction = url is None, direction
        self.worker = uuid.uuid4().hex
        with self._asking(), _reaching(url or str(folder / JOURNAL)):
            self.storage = _journal(folder / JOURNAL) if url is None else _database(url)
            self.study = optuna.create_study(
                storage=self.storage,
                study_name=name,
                sampler=sampler,
                pruner=pruner,
                direction=direction,
                load_if_exists=True,
            )
            self._check(name, identity)
            self.lock = locks.hold(self._lock_of(self.worker))
        self.claimed: dict[int, optuna.Trial] = {}
        self.closed = threading.Event()
        self.beating: threading.Thread | None = None
        if isinstance(self.storage, RDBStorage):
            self.beating = threading.Thread(target=self._beat, daemon=True)
            self.beating.start()

    def close(self) -> None:
        """Releases the trials of this worker, which other workers can then take over."""
        self.closed.set()
        self.lock.close()
        if self.beating is not None:
            self.beating.join()
        if isinstance(self.storage, RDBStorage):
            self.storage.remove_session()
            self.storage.engine.dispose()

    def trials(self) -> list[FrozenTrial]:
        """Every trial that counts, by number: not those that a heartbeat has closed, nor one too many."""
        with _reaching():
            trials = self.study.get_trials(deepcopy=False)
        return [trial for trial in trials if trial.state != TrialState.FAIL or ENDED in trial.user_attrs]

    def params(self, number: int) -> dict[str, Any]:
        """A trial's parameters."""
        with _reaching():
            return self.study.get_trials(deepcopy=False)[number].params

    def finished(self) -> list[FrozenTrial]:
        """The trials that have come to an end, by number."""
        return [trial for trial in self.trials() if trial.state.is_finished()]

    def claim(self, wanted: int) -> AssignedTrial | None:
        """The next trial, or None where there are `wanted` already."""
        with self._asking(), _reaching():
            if len([trial for trial in self.trials() if trial.state != TrialState.WAITING]) >= wanted:
                return None
            trial = self.study.ask()
            trial.set_user_attr(WORKER, self.worker)
            before = [other for other in self.trials() if other.number < trial.number]
            if len([other for other in before if other.state != TrialState.WAITING]) >= wanted:
                # Another machine has asked at the same time, and has the lower number.
                self.study.tell(trial.number, state=TrialState.FAIL)
                return None
            return self._take(trial)

    def starting(self) -> bool:
        """Whether the next trial would be one of TPE's random start."""
        return len(self.trials()) < START_UP

    def adopt(self) -> list[AssignedTrial]:
        """Takes over the trials of workers that have died."""
        adopted = []
        with self._asking(), _reaching():
            if not self.resources:
                optuna.storages.fail_stale_trials(self.study)
            dead = [trial for trial in self.trials() if trial.state == TrialState.RUNNING and self._is_left(trial)]
            for frozen in dead:
                trial = optuna.Trial(self.study, self._id(frozen.number))
                trial.set_user_attr(WORKER, self.worker)
                adopted.append(self._take(trial))
            for path in (self.folder / "workers").glob("*.lock"):
                if not locks.is_held(path):
                    path.unlink()
        return adopted

    def report(self, number: int, epoch: int, value: float) -> None:
        """A trial's objective after an epoch, for pruning and for the dashboard."""
        with _reaching():
            self.storage.set_trial_intermediate_value(self._id(number), epoch, value)

    def should_prune(self, number: int, epoch: int) -> bool:
        """Whether the pruner gives a trial up; never in epochs that it has been through before it was taken over."""
        with _reaching():
            trial = self.study.get_trials(deepcopy=False)[number]
            return trial.last_step == epoch and bool(self.study.pruner.prune(self.study, trial))

    def finish(self, number: int, state: TrialState, value: float | None, attributes: Mapping[str, Any]) -> None:
        """Closes a trial; what it leaves behind must have been written."""
        trial = self.claimed.pop(number)
        with _reaching():
            for name, item in attributes.items():
                trial.set_user_attr(name, item)
            if state == TrialState.FAIL:  # and not for lack of a heartbeat
                trial.set_user_attr(ENDED, state.name.lower())
            self.study.tell(trial, value if state == TrialState.COMPLETE else None, state=state)

    def _take(self, trial: optuna.Trial) -> AssignedTrial:
        params = suggest(trial, self.sampler.distributions)
        self.claimed[trial.number] = trial
        if isinstance(self.storage, RDBStorage):
            self.storage.record_heartbeat(self._id(trial.number))
        return AssignedTrial(trial.number, params)

    def _is_left(self, trial: FrozenTrial) -> bool:
        """Whether nobody trains a trial that is marked as running, as far as this folder tells."""
        worker = trial.user_attrs.get(WORKER)
        if worker is None:  # its worker died as it asked; on another machine it may be asking just now
            age = datetime.datetime.now() - (trial.datetime_start or datetime.datetime.now())
            return self.resources or age.total_seconds() > GRACE_SECONDS
        path = self._lock_of(worker)
        return (self.resources or path.exists()) and not locks.is_held(path)

    def _beat(self) -> None:
        """Sends the heartbeats of this worker's trials to a database."""
        assert isinstance(self.storage, RDBStorage)
        while not self.closed.wait(HEARTBEAT_SECONDS):
            for number in list(self.claimed):
                with contextlib.suppress(Exception):  # the next beat, or the main thread, will find out
                    self.storage.record_heartbeat(self._id(number))
            self.storage.remove_session()

    def _check(self, name: str, identity: Mapping[str, Any]) -> None:
        """Stores what the trials share, or raises a UserError where it differs from what is stored."""
        before = self.study.user_attrs.get("identity")
        if before is None:
            self.study.set_user_attr("identity", json.dumps(identity))
            return
        details = difference(json.loads(before), identity)
        if details:
            raise UserError(f"study {name!r} differs ({details}); choose another --study", "other-config")

    def _asking(self) -> contextlib.AbstractContextManager[None]:
        """One worker of this folder at a time."""
        return locks.locked(self.folder / "asking.lock")

    def _id(self, number: int) -> int:
        study = self.storage.get_study_id_from_name(self.study.study_name)
        return self.storage.get_trial_id_from_study_id_trial_number(study, number)

    def _lock_of(self, worker: str) -> Path:
        return self.folder / "workers" / f"{worker}.lock"


class _Lock:
    """The journal's lock; Optuna's own outlives a killed holder by half a minute."""

    def __init__(self, path: Path):
        self.path, self.held = path, contextlib.ExitStack()

    def acquire(self) -> bool:
        self.held.enter_context(locks.locked(self.path))
        return True

    def release(self) -> None:
        self.held.close()


def _journal(path: Path) -> BaseStorage:
    """The journal in a study's folder; half a line that a killed writer left at its end is cut off."""
    lock = path.with_suffix(".lock")
    with locks.locked(lock), as_user_error(path), path.open("a+b") as file:
        file.seek(0)
        content = file.read()
        file.truncate(content.rfind(b"\n") + 1)
    return JournalStorage(JournalFileBackend(str(path), lock_obj=_Lock(lock)))  # pyright: ignore[reportArgumentType]


def _database(url: str) -> BaseStorage:
    """Any database that SQLAlchemy knows."""
    return RDBStorage(
        url,
        heartbeat_interval=HEARTBEAT_SECONDS,
        grace_period=GRACE_SECONDS,
        heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(),
    )


@contextlib.contextmanager
def _reaching(where: str = "") -> Iterator[None]:
    """Turns what a storage raises into one line, and is silent about what Optuna calls experimental."""
    from sqlalchemy.exc import SQLAlchemyError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            warnings.filterwarnings("ignore", "Heartbeat of storage")
            yield
    except (OptunaError, SQLAlchemyError, ImportError, OSError) as error:
        raise UserError(f"can't use the storage {where}: {str(error).splitlines()[0]}", "bad-storage") from error
