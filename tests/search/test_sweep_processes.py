"""Tests of sweeps in separate processes: killed, interrupted, joined by a second worker, on several devices."""

import csv
import json
import os
import signal
import subprocess
import time
from pathlib import Path

import optuna
import pytest
import small
from sweep_cases import COOP, check_same_run

from tunevlseg_jax.config import Config, Train
from tunevlseg_jax.search import trial_config
from tunevlseg_jax.search.sampler import Sampler
from tunevlseg_jax.search.storage import JOURNAL
from tunevlseg_jax.training.build import build_experiment

quick_compilation = small.quick_compilation


SWEEP = """
import sys
import compilation
import small
from rich.console import Console
from tunevlseg_jax import config
from tunevlseg_jax.search import run_sweep
from tunevlseg_jax.search.options import Options
loaded = config.load(sys.argv[1])
options = Options(study="s", trials=12, parallel=5, folder=sys.argv[2], config=loaded)
with compilation.counted() as compiled:
    run_sweep.sweep(options, Console(width=200))
print("programs:", compiled["train_step"])
"""


def ended(folder: Path) -> list[optuna.trial.FrozenTrial]:
    """The finished trials, by number."""
    if not (folder / "s" / JOURNAL).exists():
        return []
    backend = optuna.storages.journal.JournalFileBackend(str(folder / "s" / JOURNAL))
    study = optuna.load_study(study_name="s", storage=optuna.storages.JournalStorage(backend))
    return [trial for trial in study.trials if trial.state.is_finished()]


def wait_for(process: subprocess.Popen, folder: Path, enough: int) -> None:
    """Until a sweep has so many finished trials."""
    deadline = time.monotonic() + 300
    while len(ended(folder)) < enough:
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.02)


@pytest.mark.slow
def test_killed_twice_and_joined_by_a_second_worker(tmp_path):
    """kill -9 within a batch and between batches; what is left goes on with two workers."""
    config = small.write_config(tmp_path / "config.py", small.config(learner=COOP))
    script = SWEEP
    for enough in (1, 6):
        process = small.start("-c", script, config, tmp_path)
        wait_for(process, tmp_path, enough)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    before = {trial.number: (trial.params, trial.value, trial.datetime_complete) for trial in ended(tmp_path)}
    assert 6 <= len(before) < 12
    workers = [small.start("-c", script, config, tmp_path) for _ in range(2)]
    results = [small.finish(worker, 600) for worker in workers]
    assert [(status, err) for status, _, err in results] == [(0, "")] * 2
    after = {trial.number: (trial.params, trial.value, trial.datetime_complete) for trial in ended(tmp_path)}
    assert list(after) == list(range(12)) and after.items() >= before.items()
    space = trial_config.space(config_of(tmp_path), build_experiment(trial_config.shallow(config_of(tmp_path))), ())
    start_up = Sampler(space, 0).start_up
    assert [after[number][0] for number in range(10)] == start_up
    rows = list(csv.DictReader((tmp_path / "s" / "trials.csv").read_text("utf-8").splitlines()))
    assert [int(row["trial"]) for row in rows] == list(range(12))


@pytest.mark.slow
def test_interrupted_a_search_goes_on_and_gives_up_what_goes_badly(tmp_path):
    """Ctrl-C while trials train; the same command then ends with the trials it was asked for, some of them pruned."""
    config = small.write_config(
        tmp_path / "config.py", small.config(learner=COOP, train=Train(epochs=60, batch_size=4))
    )
    asked = ("--study", "s", "--folder", tmp_path, "--trials", 12, "--parallel", 2, "--pruner", "median")
    command = ("-m", "tunevlseg_jax.sweep", "--config", config, *asked, "--space", "learning_rate=1e-6..3e-2")
    process = small.start(*command)
    wait_for(process, tmp_path, 1)
    process.send_signal(signal.SIGINT)
    status, _, err = small.finish(process)
    assert status == 128 + signal.SIGINT and "the same command goes on with the study" in err
    before = {trial.number: (trial.params, trial.value) for trial in ended(tmp_path)}
    assert 1 <= len(before) < 12
    status, _, err = small.finish(small.start(*command), 300)
    assert (status, err) == (0, "")
    after = {trial.number: (trial.params, trial.value) for trial in ended(tmp_path)}
    assert list(after) == list(range(12)) and after.items() >= before.items()
    rows = list(csv.DictReader((tmp_path / "s" / "trials.csv").read_text("utf-8").splitlines()))
    pruned = [row for row in rows if row["state"] == "pruned"]
    assert pruned and all(int(row["epochs"]) < 60 for row in pruned)
    assert json.loads((tmp_path / "s" / "summary.json").read_text())["states"]["pruned"] == len(pruned)


@pytest.mark.slow
def test_two_learners_on_two_sets_in_one_call(tmp_path):
    """With their own spaces; `test_sweep.py` trains every learner's trials."""
    config = small.write_config(tmp_path / "config.py", small.config(train=Train(epochs=1, batch_size=4)))
    several = "--learners", "cocoop,lora", "--data.name", "scenes/photo,scenes/xray"
    asked = "--study", "s", "--folder", tmp_path, "--trials", 2, *several
    command = ("-m", "tunevlseg_jax.sweep", "--config", config, *asked)
    status, out, err = small.finish(small.start(*command, "--space", "depth=1..2"), 600)
    assert (status, err) == (0, "")
    summaries = [json.loads(path.read_text()) for path in (tmp_path / "s").glob("*/summary.json")]
    assert len(summaries) == 4
    for summary in summaries:
        assert summary["trials"] == 2 and summary["study"] in out
        assert 0 <= summary["best"]["mean"]["test"]["dice"] <= 1


def config_of(folder: Path) -> Config:
    from tunevlseg_jax import config

    return config.load(str(folder / "config.py"))


@pytest.mark.slow
def test_eight_devices_give_the_trials_of_one(tmp_path):
    """Four trials on four parts of the mesh, each batch on two devices."""
    config = small.write_config(tmp_path / "config.py", small.config(learner=COOP))
    script = SWEEP.replace("trials=12, parallel=5", "trials=4, parallel=4")
    flags = {8: "--xla_force_host_platform_device_count=8", 1: ""}
    for count, flag in flags.items():
        process = small.start("-c", script, config, tmp_path / str(count), XLA_FLAGS=flag)
        status, out, err = small.finish(process, 600)
        assert (status, err) == (0, "") and "programs: 1" in out
    for number in range(4):
        check_same_run(*(tmp_path / str(count) / "s" / "trials" / f"{number:03d}" for count in flags))
