"""Tests of a study's storage: a trial is assigned to one worker, and taken over when that worker dies."""

import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import mistakes
import optuna
import pytest
import small
from optuna.distributions import FloatDistribution, IntDistribution
from optuna.trial import TrialState

from tunevlseg_jax.search.options import PRUNERS
from tunevlseg_jax.search.sampler import START_UP, Sampler
from tunevlseg_jax.search.storage import JOURNAL, StudyStorage

SPACE = {"optim.learning_rate": FloatDistribution(1e-5, 1e-2, log=True), "learner.depth": IntDistribution(1, 5)}
NEVER = optuna.pruners.NopPruner()

WORKER = """
import random, sys, time
from pathlib import Path
from optuna.trial import TrialState
from test_storage import open_storage
storage = open_storage(Path({folder!r}), {url!r})
print("ready", flush=True)
sys.stdin.readline()
storage.requeue()
pending = []
while True:
    while len(pending) < 3 and (trial := storage.assign({wanted})) is not None:
        pending.append(trial)
    if not pending:
        break
    trial = pending.pop(random.randrange(len(pending)))
    time.sleep(random.random() * {pause})
    storage.report(trial.number, 1, 0.5)
    print(trial.number, flush=True)
    storage.finish(trial.number, TrialState.COMPLETE, trial.params["optim.learning_rate"], {{}})
storage.close()
"""
"""Trains nothing: takes up to three trials at a time and finishes them in any order."""


def open_storage(folder: Path, url: str | None = None, **identity) -> StudyStorage:
    return StudyStorage(folder, "study", url, identity or {"a": 1}, Sampler(SPACE, 0), "maximize", NEVER)


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    """The URL of a server with a database for each test, on a free port, in a temporary folder."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    initdb = programs[-1] if programs else shutil.which("initdb")
    if initdb is None:
        pytest.skip("PostgreSQL is not installed: there is no initdb")
    binaries = Path(initdb).parent
    user = None
    if os.geteuid() == 0:  # the server refuses to run as root
        if "postgres" not in {entry.pw_name for entry in pwd.getpwall()}:
            pytest.skip("PostgreSQL can't run as root, and there is no user postgres")
        user = "postgres"
    folder = Path(tempfile.mkdtemp(prefix="pg"))
    if user is not None:
        shutil.chown(folder, user)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def execute(*arguments: object) -> None:
        done = subprocess.run([*map(str, arguments)], user=user, cwd=folder, capture_output=True, encoding="utf-8")
        assert done.returncode == 0, done.stderr

    execute(binaries / "initdb", "-D", folder / "data", "-A", "trust", "-U", "postgres", "--no-sync")
    options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
    execute(binaries / "pg_ctl", "-D", folder / "data", "-o", options, "-w", "-l", folder / "log", "start")
    try:
        yield f"postgresql+psycopg://postgres@127.0.0.1:{port}/postgres"
    finally:
        execute(binaries / "pg_ctl", "-D", folder / "data", "-m", "immediate", "stop")
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["journal", "postgres"])
def url(request) -> str | None:
    """Where the study is: in its folder's journal, or in a database."""
    return None if request.param == "journal" else request.getfixturevalue("postgres")


def start(folder: Path, url: str | None, wanted: int, pause: float = 0.02) -> subprocess.Popen:
    """A worker in another process, which waits for a line before it asks for trials."""
    script = WORKER.format(folder=str(folder), url=url, wanted=wanted, pause=pause)
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        env=os.environ | {"PYTHONPATH": small.PYTHONPATH, "JAX_PLATFORMS": "cpu"},
    )


def go(process: subprocess.Popen) -> None:
    """Waits until a worker has opened the study, then lets it ask."""
    assert process.stdout is not None and process.stdin is not None
    line = process.stdout.readline()
    assert line == "ready\n", process.communicate()[1]
    process.stdin.write("\n")
    process.stdin.flush()


def ended(process: subprocess.Popen) -> list[int]:
    """The trials that a worker has finished by the time it ends."""
    out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "")
    return [int(line) for line in out.split()]


def check_start_up(storage: StudyStorage) -> None:
    """The first trials have the parameters of the start-up, in whatever order they came to an end."""
    trials = storage.trials()
    assert [trial.params for trial in trials[:START_UP]] == storage.sampler.start_up[: len(trials)]


@pytest.mark.slow
def test_two_workers_never_train_one_trial_twice(tmp_path, url):
    workers = [start(tmp_path, url, wanted=20, pause=0.1) for _ in range(2)]
    for worker in workers:
        go(worker)
    done = [ended(worker) for worker in workers]
    assert sorted(done[0] + done[1]) == list(range(20)) and all(done)
    storage = open_storage(tmp_path, url)
    assert len(storage.finished()) == len(storage.trials()) == 20
    check_start_up(storage)
    storage.requeue()
    assert storage.assign(20) is None
    assert storage.assign(21) is not None  # a study may be extended
    storage.close()


def numbers(storage: StudyStorage, state: TrialState) -> list[int]:
    """The trials in a state."""
    return [trial.number for trial in storage.trials() if trial.state == state]


@pytest.mark.slow
def test_trials_of_a_killed_worker_are_taken_over(tmp_path):
    killed = []
    for _ in range(2):
        worker = start(tmp_path, None, wanted=14, pause=0.3)
        go(worker)
        assert worker.stdout is not None
        killed += [int(worker.stdout.readline()) for _ in range(2)]
        time.sleep(0.05)
        os.kill(worker.pid, signal.SIGKILL)
        worker.communicate()
    with (tmp_path / JOURNAL).open("ab") as file:
        file.write(b'{"op_code":4,"wor')  # what a writer leaves that is killed in the middle of a line
    storage = open_storage(tmp_path)
    before = len(storage.trials())
    assert 2 <= len(storage.finished()) < before <= 10
    abandoned = numbers(storage, TrialState.RUNNING)
    storage.requeue()
    assert len(list((tmp_path / "workers").iterdir())) == 1
    assert numbers(storage, TrialState.WAITING) == abandoned and len(abandoned) == before - len(storage.finished())
    pending = [storage.assign(14) for _ in abandoned]
    assert [trial.number for trial in pending if trial is not None] == abandoned
    other = open_storage(tmp_path)
    other.requeue()
    assert numbers(other, TrialState.RUNNING) == abandoned  # they have a living worker now
    check_start_up(storage)
    while (trial := pending.pop() if pending else storage.assign(14)) is not None:
        storage.finish(trial.number, TrialState.COMPLETE, 1.0, {})
    assert [trial.number for trial in storage.finished()] == list(range(14))
    storage.close()
    other.close()


def test_a_trial_without_parameters_or_worker_is_taken_over(tmp_path):
    """Its worker was killed just after it had created the trial."""
    storage = open_storage(tmp_path)
    storage.study.ask()
    storage.requeue()
    trial = storage.assign(1)
    assert trial is not None and (trial.number, trial.params) == (0, storage.sampler.start_up[0])
    storage.close()


def test_dead_workers_of_a_database_on_other_machines(tmp_path, postgres, monkeypatch):
    """Their folder is elsewhere: without heartbeats, their trials are queued again."""
    from tunevlseg_jax.search import storage as module

    monkeypatch.setattr(module, "HEARTBEAT_SECONDS", 1)
    monkeypatch.setattr(module, "GRACE_SECONDS", 2)
    url = postgres
    there = StudyStorage(tmp_path / "there", "beats", url, {}, Sampler(SPACE, 0), "maximize", NEVER)
    here = StudyStorage(tmp_path / "here", "beats", url, {}, Sampler(SPACE, 0), "maximize", NEVER)
    lost, kept = there.assign(2), here.assign(2)
    assert lost is not None and kept is not None and here.assign(2) is None
    lost_params = lost.params
    there.close()
    deadline = time.monotonic() + 30
    while (again := here.assign(2)) is None and time.monotonic() < deadline:
        here.requeue()
        time.sleep(0.5)
    assert again is not None and again.params == lost_params and again.number != lost.number
    for trial in (kept, again):
        here.finish(trial.number, TrialState.COMPLETE, 1.0, {})
    assert len(here.finished()) == 2
    here.close()


def test_pruning_ignores_epochs_before_a_takeover(tmp_path):
    storage = StudyStorage(tmp_path, "s", None, {}, Sampler(SPACE, 0), "maximize", optuna.pruners.MedianPruner(2))
    for _ in range(2):
        trial = storage.assign(9)
        assert trial is not None
        for epoch in (1, 2):
            storage.report(trial.number, epoch, 0.8)
        storage.finish(trial.number, TrialState.COMPLETE, 0.8, {})
    trial = storage.assign(9)
    assert trial is not None
    storage.report(trial.number, 1, 0.9)
    assert not storage.should_prune(trial.number, 1)
    storage.report(trial.number, 2, 0.1)
    assert not storage.should_prune(trial.number, 1)
    storage.close()
    after = StudyStorage(tmp_path, "s", None, {}, Sampler(SPACE, 0), "maximize", optuna.pruners.MedianPruner(2))
    after.requeue()
    trial = after.assign(9)
    assert trial is not None and trial.number == 2
    after.report(trial.number, 1, 0.1)
    assert not after.should_prune(trial.number, 1)  # it had come to epoch 2
    after.report(trial.number, 2, 0.1)
    assert after.should_prune(trial.number, 2)
    after.close()


def test_a_worker_that_dies_as_it_closes_a_trial_has_not_closed_it(tmp_path, monkeypatch):
    storage = open_storage(tmp_path)
    numbers = []
    for state in (TrialState.COMPLETE, TrialState.FAIL):
        trial = storage.assign(9)
        assert trial is not None
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(storage.study, "tell", dies)
            storage.finish(trial.number, state, 1.0, {})
        storage.study.tell(trial.number, state=TrialState.FAIL)  # as for lack of a heartbeat
        numbers.append(trial.number)
    assert [trial.number for trial in storage.finished()] == numbers[1:]  # which did diverge
    storage.close()


def dies(*given, **how):
    raise KeyboardInterrupt


def test_halving_compares_parallel_trials(tmp_path):
    """At the first rungs already, one that ended early among them, and a good late one survives."""
    storage = StudyStorage(tmp_path, "s", None, {}, Sampler(SPACE, 0), "maximize", PRUNERS["halving"]())
    assigned = [storage.assign(20) for _ in range(10)]
    values = (0.5, 0.9, 0.1, 0.7, 0.3, 0.8, 0.0, 0.6, 0.2, 0.4)
    running = {trial.number: value for trial, value in zip(assigned, values, strict=True) if trial is not None}
    pruned = []
    for epoch in range(1, 6):
        for number, value in list(running.items()):
            storage.report(number, epoch, value)
        for number in list(running):
            if storage.should_prune(number, epoch):
                storage.finish(number, TrialState.PRUNED, None, {})
                pruned.append((number, epoch))
                del running[number]
        if epoch == 3:
            number, value = running.popitem()
            storage.finish(number, TrialState.COMPLETE, value, {})
    assert pruned and {epoch for _, epoch in pruned} <= {1, 4} and 1 not in dict(pruned)
    late = storage.assign(20)
    assert late is not None
    storage.report(late.number, 1, 0.95)
    assert not storage.should_prune(late.number, 1)
    storage.close()


def test_a_study_of_another_configuration_is_refused_with_the_difference(tmp_path):
    open_storage(tmp_path, learner={"depth": 1}, space={"x": 2}).close()
    with mistakes.raises(r"other-config: 'study'.*learner.depth was 1 and is now 3\).*--study"):
        open_storage(tmp_path, learner={"depth": 3}, space={"x": 2})
    open_storage(tmp_path, learner={"depth": 1}, space={"x": 2}).close()


@pytest.mark.parametrize("url", ["nonsense", "postgresql+psycopg://127.0.0.1:1/none", "oracle://host/name"])
def test_a_storage_that_cant_be_used_is_one_line(tmp_path, url):
    with mistakes.raises("bad-storage") as error:
        open_storage(tmp_path, url)
    assert "\n" not in str(error.value)


def test_the_journal_is_one_that_optuna_reads(tmp_path):
    """As its dashboard does."""
    storage = open_storage(tmp_path)
    trial = storage.assign(1)
    assert trial is not None
    storage.finish(trial.number, TrialState.COMPLETE, 0.25, {"val_dice": 0.25})
    storage.close()
    backend = optuna.storages.journal.JournalFileBackend(str(tmp_path / JOURNAL))
    study = optuna.load_study(study_name="study", storage=optuna.storages.JournalStorage(backend))
    assert study.best_value == 0.25 and study.best_params == dict(trial.params)
    assert json.loads(study.user_attrs["identity"]) == {"a": 1}
