"""Tests of signals: what has been done is kept, and the same command goes on to the same bits."""

import dataclasses
import gc
import itertools
import json
import os
import random
import shutil
import signal
import sys
import threading
import time
from pathlib import Path

import jax
import pytest
import small
from rich.console import Console

from tunevlseg_jax import train
from tunevlseg_jax.runs import checkpoint, trainer
from tunevlseg_jax.runs.checkpoint import Checkpoints
from tunevlseg_jax.runtime import sharding, signals
from tunevlseg_jax.training import loop

quick_compilation = small.quick_compilation


@pytest.fixture(scope="module", autouse=True)
def finished(quick_compilation):
    """Another run, that was never interrupted."""
    assert threading.current_thread() is threading.main_thread(), "where signals arrive"
    return small.finished()


@pytest.fixture
def interrupted(tmp_path, monkeypatch, capsys):
    """Trains until the given calls of a function of `step`, each of which sends a signal; what is said in the end."""

    def run(name: str, signals: dict[int, int]) -> tuple[int, str]:
        config = small.write_config(tmp_path / "config.py", small.config(tmp_path / "run"))
        function, calls = getattr(loop.step, name), []

        def signalled(*arguments, **settings):
            calls.append(None)
            result = function(*arguments, **settings)
            if len(calls) in signals:
                os.kill(os.getpid(), signals[len(calls)])
            return result

        with monkeypatch.context() as patch:
            patch.setattr(loop.step, name, signalled)
            with pytest.raises(SystemExit) as stop:
                small.run(monkeypatch, train.main, "--config", config)
        return stop.value.code, capsys.readouterr().err

    return run


@pytest.mark.parametrize(
    ("name", "call", "position", "number"),
    [
        ("train_step", 1, "step 1 of epoch 1", signal.SIGTERM),
        ("train_step", 5, "step 2 of epoch 2", signal.SIGINT),
        ("train_step", 9, "step 3 of epoch 3", signal.SIGTERM),
        ("eval_step", 3, "step 3 of epoch 2", signal.SIGTERM),  # two batches a validation
    ],
)
def test_a_signal_ends_a_run_at_a_step_and_the_run_goes_on(interrupted, tmp_path, name, call, position, number):
    status, said = interrupted(name, {call: number})
    assert status == 128 + number
    word = "terminated" if number == signal.SIGTERM else "interrupted"
    assert said == f"{word}: {position} is saved, and the same command goes on from there\n"
    small.check_that_it_continues(tmp_path / "run")


def test_where_a_run_goes_on_is_said(interrupted, tmp_path, monkeypatch, capsys):
    interrupted("train_step", {5: signal.SIGTERM})
    small.run(monkeypatch, train.main, "--config", tmp_path / "config.py")
    assert "going on after step 2 of epoch 2" in capsys.readouterr().out
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2, 3]


def test_the_second_signal_ends_it_at_once(interrupted, tmp_path):
    def twice(*arguments, **settings):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer._Watch, "__call__", twice)
        status, said = interrupted("train_step", {})
    assert (status, said) == (130, "interrupted: the same command goes on\n")
    assert not list((tmp_path / "run" / "checkpoints").iterdir())
    small.check_that_it_continues(tmp_path / "run")


def test_a_signal_while_a_finished_run_is_scored(interrupted, tmp_path):
    status, said = interrupted("eval_step", {7: signal.SIGTERM})
    assert (status, said) == (143, "terminated: the same command goes on\n")
    assert not (tmp_path / "run" / "results.json").exists()
    small.check_that_it_continues(tmp_path / "run")


def test_handlers_are_put_back(finished):
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) == signal.default_int_handler


class Finalised:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)


def collect(phase, info):
    gc.callbacks.remove(collect)
    os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize(
    ("within", "number"),
    [(Finalised, signal.SIGTERM), (lambda: gc.callbacks.append(collect) or gc.collect(), signal.SIGINT)],
)
def test_a_signal_within_code_whose_exceptions_python_drops_ends_the_command(within, number):
    """A finaliser, and a callback of the garbage collector, as JAX has one."""
    hook = sys.unraisablehook
    with pytest.raises(KeyboardInterrupt) as stop, signals.at_once():
        within()
        time.sleep(10)
    assert getattr(stop.value, "number", signal.SIGINT) == number and sys.unraisablehook is hook


def test_other_dropped_exceptions_are_reported(monkeypatch):
    seen = []

    class Fails:
        def __del__(self):
            raise ValueError

    monkeypatch.setattr(sys, "unraisablehook", seen.append)
    with signals.at_once():
        Fails()
    assert [lost.exc_type for lost in seen] == [ValueError]


KILLS = int(os.environ.get("TUNEVLSEG_KILLS", "3"))
"""Of the test below; each takes the time of a start."""


def steps_saved(folder: Path) -> list[int]:
    """The checkpoints of a run that are whole."""
    return sorted(int(path.name) for path in (folder / "checkpoints").glob("*") if path.name.isdecimal())


def check_readable(folder: Path, scratch: Path) -> None:
    """Every checkpoint, in a copy."""
    experiment = small.build(small.config())
    start = loop.begin(
        jax.tree.map(lambda array: array[None], experiment.trainable), experiment.hyper(), sharding.mesh()
    )
    for steps in steps_saved(folder):
        shutil.copytree(folder / "checkpoints" / str(steps), scratch / str(steps))
        checkpoints = Checkpoints(scratch)
        state = checkpoints.restore(start)
        checkpoints.close()
        assert 3 * state.epoch[0] + state.steps == steps
        shutil.rmtree(scratch)


def test_killed_while_an_old_checkpoint_is_deleted(tmp_path, monkeypatch):
    """It isn't among the others any more by then."""
    config, deleted = small.config(tmp_path / "run"), []

    def dies(path, **settings):
        if path.exists():  # of the third checkpoint, when the first one goes
            next(file for file in path.rglob("*") if file.is_file()).unlink()
            deleted.append(path)
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.shutil, "rmtree", dies)
        with pytest.raises(KeyboardInterrupt):
            trainer.train(config, Console(quiet=True))
    assert len(deleted) == 1 and steps_saved(tmp_path / "run") == [6, 9]
    check_readable(tmp_path / "run", tmp_path / "scratch")
    small.check_that_it_continues(tmp_path / "run")
    assert {path.name for path in (tmp_path / "run" / "checkpoints").iterdir()} == {"6", "9"}


@pytest.mark.slow
def test_killed_at_random_moments(tmp_path):
    """kill -9, now and then while SIGTERM is being obeyed: every start goes on, and to the same bits in the end."""
    epochs = 6 * KILLS + 10
    settings = dataclasses.replace(small.config().train, epochs=epochs, patience=epochs)
    path = small.write_config(tmp_path / "config.py", small.config(train=settings))
    command = "-m", "tunevlseg_jax.train", "--config", path, "--workdir"
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert small.finish(small.start(*command, whole))[0] == 0

    draw, counts = random.Random(time.time_ns()), []
    for number in itertools.count():
        reached = max(steps_saved(killed), default=0)
        process = small.start(*command, killed)
        assert process.stdout is not None
        out = [process.stdout.readline() for _ in range(2 if reached else 1)]
        if reached:
            assert out[1].startswith("going on after "), out
        if number == KILLS:
            break
        target = reached + draw.choice((0, 1, 4, 7))
        while process.poll() is None and max(steps_saved(killed), default=0) < target:
            time.sleep(0.002)
        time.sleep(draw.uniform(0, 0.3))
        if draw.random() < 0.3:
            process.terminate()
            time.sleep(draw.uniform(0, 0.1))
        process.kill()
        _, err = process.communicate()
        assert process.returncode in (-signal.SIGKILL, 143) and not (killed / "results.json").exists(), err
        check_readable(killed, tmp_path / "scratch")
        counts.append(f"{steps_saved(killed)}")
    print(f"killed {KILLS} times; checkpoints there each time: {' '.join(counts)}")
    status, _, err = small.finish(process)
    assert (status, err) == (0, "")
    for name in ("prompts.safetensors", "results.json"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes()
    assert small.metrics(killed) == small.metrics(whole)
