"""A study's trials in Optuna's storage: trial ownership, results, and takeover from dead workers."""

import contextlib
import datetime
import json
import re
import threading
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.exceptions import ExperimentalWarning, OptunaError
from optuna.pruners import BasePruner
from optuna.storages import BaseStorage, RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.trial import FrozenTrial, TrialState

from tunevlseg_jax.config import ADDED
from tunevlseg_jax.runtime import locks
from tunevlseg_jax.runtime.errors import UserError
from tunevlseg_jax.runtime.schema import current_name, difference
from tunevlseg_jax.search.journal import WORKER, open_journal
from tunevlseg_jax.search.sampler import START_UP, Sampler

JOURNAL = "journal.log"
ENDED = "ended"
"""Attribute of a trial: how it ended where it failed."""
RECORDS = ("records.train", "records.val", "records.test")
"""The parts of a study's identity that are its data's fingerprints."""

HEARTBEAT_SECONDS, GRACE_SECONDS = 20, 120
"""Seconds between a worker's heartbeats in a database, and seconds without one until its trials are reassigned."""


class StudyStorage:
    """One worker's view of a study that other workers may share.

    A trial in training belongs to a worker, which holds a lock on a file in the study's folder as long as it lives.
    A trial whose worker's lock is free is queued again, with its number and its parameters, by the first worker that
    notices. Workers on other machines share a database, not the folder: there Optuna's heartbeats show which workers
    are dead, and Optuna closes their trials as failed and queues copies.
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
        note: Callable[[str], None] = lambda line: None,
    ):
        """Creates the study, or opens it to continue.

        Args:
          folder: of the study.
          name: of the study in the storage.
          url: of a database; None for a journal in the folder.
          identity: JSON of the settings that all trials share; a study with other settings is refused.
          sampler: of the parameters.
          direction: "maximize" or "minimize".
          pruner: of trials that go badly.
          note: receives a line where a damaged journal was mended.

        Raises:
          UserError: the storage can't be used, or holds a study of this name with another identity.
        """
        self.folder, self.sampler, self.direction = folder, sampler, direction
        self.worker = uuid.uuid4().hex
        self.where = re.sub("://([^:/@]*):[^@]*@", r"://\1:***@", url or str(folder / JOURNAL))
        with self._locked(), self._as_one_line():
            self.storage = open_journal(folder / JOURNAL, note) if url is None else _database(url)
            self.study = optuna.create_study(
                storage=self.storage,
                study_name=name,
                sampler=sampler,
                pruner=pruner,
                direction=direction,
                load_if_exists=True,
            )
            self._check(name, identity)
            self.lock = locks.hold(self._lock_file(self.worker))
        self.assigned: dict[int, optuna.Trial] = {}
        self.closed = threading.Event()
        self.database = self.storage if isinstance(self.storage, RDBStorage) else None
        if self.database is not None:
            self.heartbeats = threading.Thread(target=self._send_heartbeats, args=(self.database,), daemon=True)
            self.heartbeats.start()

    def close(self) -> None:
        """Releases the trials of this worker, which other workers can then take over."""
        self.closed.set()
        self.lock.close()
        if self.database is not None:
            self.heartbeats.join()
            self.database.remove_session()
            self.database.engine.dispose()

    def trials(self) -> list[FrozenTrial]:
        """The trials that count, by number: all but those that a lost heartbeat closed and those beyond the limit."""
        with self._as_one_line():
            trials = self.study.get_trials(deepcopy=False)
        return [trial for trial in trials if trial.state != TrialState.FAIL or ENDED in trial.user_attrs]

    def finished(self) -> list[FrozenTrial]:
        """The trials that have come to an end, by number."""
        return [trial for trial in self.trials() if trial.state.is_finished()]

    def best(self) -> FrozenTrial | None:
        """The best trial that was trained to its end; the first of equals."""
        best = max if self.direction == "maximize" else min
        complete = [trial for trial in self.trials() if trial.state == TrialState.COMPLETE]
        return best(complete, key=lambda trial: trial.values[0], default=None)

    def assign(self, limit: int) -> optuna.Trial | None:
        """The next trial, or None where `limit` trials have begun already."""
        with self._locked(), self._as_one_line():
            if sum(trial.state != TrialState.WAITING for trial in self.trials()) >= limit:
                return None
            trial = self.study.ask(self.sampler.space)
            trial.set_user_attr(WORKER, self.worker)
            earlier = [other for other in self.trials() if other.number < trial.number]
            if sum(other.state != TrialState.WAITING for other in earlier) >= limit:
                # Another machine has asked at the same time, and has the lower number.
                self.study.tell(trial.number, state=TrialState.FAIL)
                return None
            self.assigned[trial.number] = trial
            if self.database is not None:
                self.database.record_heartbeat(self._id(trial.number))
            return trial

    def next_is_fixed(self) -> bool:
        """Whether the next trial's parameters depend on no result: it is queued, or one of TPE's random start."""
        trials = self.trials()
        return len(trials) < START_UP or any(trial.state == TrialState.WAITING for trial in trials)

    def requeue(self) -> None:
        """Queues the trials of dead workers, for any worker to take over."""
        with self._locked(), self._as_one_line():
            if self.database is not None:
                optuna.storages.fail_stale_trials(self.study)
            for trial in self.trials():
                if trial.state == TrialState.RUNNING and self._is_abandoned(trial):
                    self.storage.set_trial_state_values(self._id(trial.number), TrialState.WAITING)
            for path in (self.folder / "workers").glob("*.lock"):
                if not locks.is_held(path):
                    path.unlink()

    def report(self, number: int, epoch: int, value: float) -> None:
        """Stores a trial's objective after an epoch, for pruning and for the dashboard."""
        with self._as_one_line():
            self.storage.set_trial_intermediate_value(self._id(number), epoch, value)

    def should_prune(self, number: int, epoch: int) -> bool:
        """Whether to prune a trial; never in epochs that it had trained before it was taken over."""
        with self._as_one_line():
            trial = self.study.get_trials(deepcopy=False)[number]
            return trial.last_step == epoch and bool(self.study.pruner.prune(self.study, trial))

    def finish(self, number: int, state: TrialState, value: float | None, attributes: Mapping[str, Any]) -> FrozenTrial:
        """Closes a trial, whose files must have been written."""
        trial = self.assigned.pop(number)
        with self._as_one_line():
            for name, item in attributes.items():
                trial.set_user_attr(name, item)
            if state == TrialState.FAIL:  # and not for lack of a heartbeat
                trial.set_user_attr(ENDED, state.name.lower())
            return self.study.tell(trial, value if state == TrialState.COMPLETE else None, state=state)

    def _is_abandoned(self, trial: FrozenTrial) -> bool:
        """Whether a running trial has no living worker, as far as this folder shows."""
        worker = trial.user_attrs.get(WORKER)
        if worker is None:  # its worker died as it asked; on another machine it may be asking just now
            age = datetime.datetime.now() - (trial.datetime_start or datetime.datetime.now())
            return self.database is None or age.total_seconds() > GRACE_SECONDS
        path = self._lock_file(worker)
        return (self.database is None or path.exists()) and not locks.is_held(path)

    def _send_heartbeats(self, database: RDBStorage) -> None:
        """Sends the heartbeats of this worker's trials to a database."""
        while not self.closed.wait(HEARTBEAT_SECONDS):
            for number in list(self.assigned):
                with contextlib.suppress(Exception):  # the next heartbeat, or the main thread, shows a lasting error
                    database.record_heartbeat(self._id(number))
            database.remove_session()

    def _check(self, name: str, identity: Mapping[str, Any]) -> None:
        """Stores the identity, or raises a UserError where it differs from the stored one."""
        before = self.study.user_attrs.get("identity")
        if before is None:
            self.study.set_user_attr("identity", json.dumps(identity))
            return
        stored = json.loads(before)
        if difference(stored, identity, RECORDS, ADDED):
            details = difference(stored, identity, added=ADDED)
            raise UserError(f"study {name!r} differs ({details}); choose another --study", "other-config")
        if details := difference(stored, identity, added=ADDED):
            changed = " and ".join(name.partition(".")[2] for name in RECORDS if f"{name} was" in details)
            raise UserError(
                f"the {changed} records of study {name!r} have changed since it began, and trials on different data "
                "can't be compared; choose another --study, or prepare the set as it was",
                "data-changed",
            )

    @contextlib.contextmanager
    def _as_one_line(self) -> Iterator[None]:
        """Turns a storage's errors into one line, and silences Optuna's warnings of experimental features."""
        from sqlalchemy.exc import SQLAlchemyError

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)
                warnings.filterwarnings("ignore", "Heartbeat of storage")
                yield
        except json.JSONDecodeError as error:
            message = f"{self.where} was damaged while the study ran; the same command mends it and goes on"
            raise UserError(message, "bad-storage") from error
        except (OptunaError, SQLAlchemyError, ImportError, OSError) as error:
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise UserError(f"can't use the storage {self.where}: {reason}", "bad-storage") from error

    def _locked(self) -> contextlib.AbstractContextManager[None]:
        """Lets one worker of this folder at a time ask for trials."""
        return locks.locked(self.folder / "asking.lock")

    def _id(self, number: int) -> int:
        study = self.storage.get_study_id_from_name(self.study.study_name)
        return self.storage.get_trial_id_from_study_id_trial_number(study, number)

    def _lock_file(self, worker: str) -> Path:
        return self.folder / "workers" / f"{worker}.lock"


def current_params(trial: FrozenTrial | optuna.Trial) -> dict[str, Any]:
    """A trial's parameters by the current names of their fields."""
    return {current_name(name): value for name, value in trial.params.items()}


def _database(url: str) -> BaseStorage:
    """A database of any kind that SQLAlchemy supports."""
    return RDBStorage(
        url,
        heartbeat_interval=HEARTBEAT_SECONDS,
        grace_period=GRACE_SECONDS,
        heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(),
    )
