"""Tests of several processes: they give what one gives, write once, and leave together."""

import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import time
from pathlib import Path

import jax
import mistakes
import numpy as np
import pytest
import small
from numpy.testing import assert_allclose
from rich.console import Console

from tunevlseg_jax import benchmark, evaluate, predict, report, study, sweep, train
from tunevlseg_jax.config import Config, Train
from tunevlseg_jax.runs import trainer
from tunevlseg_jax.runs.checkpoint import Checkpoints
from tunevlseg_jax.runtime import exchange, multihost, supervisor
from tunevlseg_jax.runtime.multihost import Cluster

quick_compilation = small.quick_compilation

SIZE = 8
"""Records in a batch; the last one of an epoch holds two."""
SCRIPT = """
import hashlib, json, os, signal, sys

import jax
import numpy as np

from tunevlseg_jax.runs import run_folder
from tunevlseg_jax import cli, train
from tunevlseg_jax.runtime import sharding
from tunevlseg_jax.training import loop
from tunevlseg_jax.runs import checkpoint

STOP = json.loads(sys.argv.pop(1))  # step after whose checkpoint a process is terminated, and which one
record = {"saved": {}, "restored": None, "batches": []}


def digest(tree):
    leaves = jax.tree.leaves(sharding.gather_to_host(tree))
    return hashlib.sha256(b"".join(leaf.tobytes() for leaf in leaves)).hexdigest()


class Checkpoints(checkpoint.Checkpoints):
    def save(self, steps, tree):
        super().save(steps, tree)
        record["saved"][steps] = digest(tree)
        if STOP == [steps, jax.process_index()]:
            os.kill(os.getpid(), signal.SIGTERM)

    def restore(self, like):
        state = super().restore(like)
        record["restored"] = digest(state)
        return state


def train_step(state, frozen, source, *rest, **settings):
    # The records of this process's part of the batch, by what their pixels are.
    record["batches"].append({
        shard.index[0].start or 0: [hashlib.sha256(row.tobytes()).hexdigest() for row in np.asarray(shard.data)]
        for shard in source.images.addressable_shards
    })
    return step(state, frozen, source, *rest, **settings)


step, loop.step.train_step = loop.step.train_step, train_step
run_folder.Checkpoints = Checkpoints
try:
    cli.run(train.main)
finally:
    print("record:", json.dumps(record))
"""


def config(folder: Path | str) -> Config:
    """Three epochs of two steps."""
    return small.config(folder, train=Train(epochs=3, batch_size=SIZE))


def start(path: Path, devices: int, *options: object, stop: tuple[int, int] | None = None) -> subprocess.Popen:
    flags = f"--xla_force_host_platform_device_count={devices}"
    return small.start("-c", SCRIPT, json.dumps(stop), "--config", path, *options, XLA_FLAGS=flags)


def start_two(path: Path, **settings) -> list[subprocess.Popen]:
    """Two processes of four devices each."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        where = f"localhost:{probe.getsockname()[1]}"
    options = "--processes", 2, "--coordinator", where, "--process"
    return [start(path, 4, *options, number, **settings) for number in range(2)]


def ended(process: subprocess.Popen) -> tuple[int, str, str, dict]:
    """The exit status, stdout and stderr of a process, and what the script printed after "record:"."""
    status, out, err = small.finish(process, 600)
    lines = out.splitlines()
    record = [json.loads(line.removeprefix("record: ")) for line in lines if line.startswith("record: ")]
    rest = [line for line in lines if not line.startswith("record: ")]
    return status, "\n".join(rest), err, record[0] if record else {}


def batch_rows(*records: dict) -> list[list[str]]:
    """The records of each step, in order, from the parts of all processes."""
    batches = []
    for parts in zip(*(one["batches"] for one in records), strict=True):
        rows = {int(start): shard for part in parts for start, shard in part.items()}
        assert len(rows) == sum(map(len, parts)), "no process has another's part"
        batches.append([row for start in sorted(rows) for row in rows[start]])
    return batches


def expected(epochs: int) -> list[list[str]]:
    """The same of one device."""
    feed = small.build(config("unused")).split("train").feed
    batches = [batch for epoch in range(1, epochs + 1) for batch in feed.training(SIZE, 0, epoch, augment=False)]
    return [[hashlib.sha256(row.tobytes()).hexdigest() for row in np.asarray(batch.images)] for batch in batches]


def check_same(one: Path, other: Path) -> None:
    """The losses of two runs, to 1e-5."""
    curves = [[json.loads(line) for line in (each / "metrics.jsonl").read_text().splitlines()] for each in (one, other)]
    assert [len(curve) for curve in curves] == [3, 3]
    for ours, theirs in zip(*curves, strict=True):
        for part in ("train", "val"):
            assert_allclose(ours[part]["loss"], theirs[part]["loss"], rtol=1e-5)
    results = [json.loads((each / "results.json").read_text()) for each in (one, other)]
    for row in ("zero-shot", "tuned"):
        for split in ("val", "test"):
            assert_allclose(results[0][row][split]["loss"], results[1][row][split]["loss"], rtol=1e-5)


def digest(tree: object) -> str:
    """As in the script."""
    return hashlib.sha256(b"".join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree))).hexdigest()


@pytest.fixture(scope="module")
def one(quick_compilation, tmp_path_factory) -> Path:
    """A run on one device."""
    folder = tmp_path_factory.mktemp("one")
    trainer.train(config(folder / "run"), Console(quiet=True))
    return folder / "run"


@pytest.mark.slow
def test_two_processes_leave_together_and_one_goes_on(one, tmp_path, monkeypatch):
    """From a checkpoint within an epoch; process 1 alone got the signal."""
    path = small.write_config(tmp_path / "config.py", config(tmp_path / "run"))
    first, second = (ended(process) for process in start_two(path, stop=(2, 1)))
    assert first[0] == 143 and "8 cpu devices in 2 processes" in first[1]
    assert first[2] == "terminated: step 2 of epoch 2 is saved, and the same command goes on from there\n"
    assert second[:3] == (143, "", "")
    assert batch_rows(first[3], second[3]) == expected(epochs=2)
    assert first[3]["saved"] == second[3]["saved"] and set(first[3]["saved"]) == {"2", "4"}

    restored, restore = [], Checkpoints.restore

    def noted(self, like):
        state = restore(self, like)
        restored.append(digest(state))
        return state

    monkeypatch.setattr(Checkpoints, "restore", noted)
    trainer.train(config(tmp_path / "run"), Console(quiet=True))
    assert restored == [first[3]["saved"]["4"]]
    check_same(tmp_path / "run", one)


@pytest.mark.slow
@pytest.mark.parametrize("killed", [0, 1])
def test_a_killed_process_ends_the_others_in_one_line(one, tmp_path, killed):
    """Within a minute; the same commands go on from the checkpoint that process 0 left, as if nothing had been."""
    path = small.write_config(tmp_path / "config.py", config(tmp_path / "run"))
    members = start_two(path)
    while not list((tmp_path / "run" / "checkpoints").glob("[0-9]*")):
        assert all(member.poll() is None for member in members)
        time.sleep(0.1)
    members[killed].kill()
    since = time.monotonic()
    status, _, err, _ = ended(members[1 - killed])
    assert time.monotonic() - since < 60
    assert small.finish(members[killed])[0] == -9
    assert status == 1 and err.count("\n") == 1, err
    mistakes.check_line(err, "lost-process: the same commands go on")
    if killed == 0:
        first, second = (ended(process) for process in start_two(path))
        assert (first[0], first[2], second[:3]) == (0, "", (0, "", "")) and "tuned" in first[1]
        check_same(tmp_path / "run", one)


@pytest.mark.slow
def test_a_checkpoint_of_eight_devices_goes_on_on_two_and_on_one(one, tmp_path):
    path = small.write_config(tmp_path / "config.py", config(tmp_path / "run"))
    status, _, err, record = ended(start(path, 8, stop=(2, 0)))
    assert status == 143 and err.startswith("terminated: step 1 of epoch 2 is saved")
    for devices in (2, 1):
        folder = tmp_path / str(devices)
        shutil.copytree(tmp_path / "run", folder)
        status, out, err, other = ended(start(path, devices, "--workdir", folder))
        assert (status, err) == (0, "") and f"{devices} cpu device" in out
        assert other["restored"] == record["saved"]["3"]
        check_same(folder, one)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("--processes 2", "missing-option: --process and --coordinator.*--distributed auto"),
        ("--processes 2 --process 2 --coordinator a:1", "out-of-range: --process .*0 .*1, .*2"),
        ("--processes 0 --process 0 --coordinator a:1", "out-of-range: --processes .*at least 1, got 0"),
        ("--processes 2 --process 0 --coordinator a", "invalid-address: --coordinator .*'a'"),
        ("--processes 2 --process 0 --coordinator a:99999", "invalid-address: --coordinator .*'a:99999'"),
        ("--distributed auto --process 1", "options-conflict: --distributed auto .*--process"),
        ("--distributed auto", "no-cluster: --distributed auto"),
        ("--distributed maybe", "invalid-option: maybe"),
    ],
)
def test_mistakes_are_one_line(tmp_path, monkeypatch, capsys, options, says):
    path = small.write_config(tmp_path / "config.py", config(tmp_path / "run"))
    monkeypatch.setenv(supervisor.MEMBER, "")  # this process can't be run again
    # Without its first look whether the process has asked for devices already: this one has.
    monkeypatch.setattr(jax.distributed, "initialize", jax._src.distributed.global_state.initialize)
    with pytest.raises(SystemExit) as stop:
        small.run(monkeypatch, train.main, "--config", path, *options.split())
    err = capsys.readouterr().err
    assert stop.value.code == 2 and err.startswith("error: ") and err.count("\n") == 1, err
    mistakes.check_line(err, says)
    assert not (tmp_path / "run").exists()


def test_a_port_that_is_taken():
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        with mistakes.raises(f"cannot-connect: port {port} .*Address already in use; .*another port"):
            multihost.join(Cluster(processes=2, process=0, coordinator=f"localhost:{port}"))


def test_options_that_differ_are_named(monkeypatch):
    def gather(mine: dict) -> list[dict]:
        assert "workdir" not in mine and "data.root" not in mine
        return [mine, mine, mine | {"train.seed": 7}]

    monkeypatch.setattr(exchange, "gather", gather)
    with mistakes.raises("options-conflict: process 2 has train.seed 7, process 0 has 0; .*same options"):
        exchange.check_same(Config(), but=("workdir", "data."))


@pytest.mark.parametrize(
    ("command", "options", "differing"),
    [
        (train, "--config FILE", "config.train.seed"),
        (benchmark, "--config FILE", "config.train.batch_size"),
        (sweep, "--config FILE --study s", "trials"),
        (evaluate, "--run r", "threshold"),
        (predict, "--run r --image i --prompt p", "threshold"),
    ],
    ids=["train", "benchmark", "sweep", "evaluate", "predict"],
)
def test_every_command_refuses_options_that_differ(tmp_path, monkeypatch, capsys, command, options, differing):
    path = small.write_config(tmp_path / "config.py", config(tmp_path / "run"))
    monkeypatch.setattr(exchange, "gather", lambda mine: [mine, mine | {differing: 7}])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        small.run(monkeypatch, command.main, *options.replace("FILE", str(path)).split())
    assert stop.value.code == 2
    name = differing.removeprefix("config.")
    says = f"options-conflict: process 1 has {re.escape(name)} 7, process 0 has [0-9.]+; .*same options"
    mistakes.check_line(capsys.readouterr().err, says)
    assert [one.name for one in tmp_path.iterdir()] == ["config.py"]


LOG = "E1130 14:59:41.886578   17442 agent.cc:289] Polled an error from coordination service"
ALONE = (
    "F1201 03:16:51.444715    2748 client.h:80] fatal errors|RPC: /xla.coordination.CoordinationService/RegisterTask"
)
LOST = supervisor.loss().line
ENDS = {
    "its own line among JAX's": (f"{LOG}|error: {LOST}", 1, f"error: {LOST}"),
    "its own line before JAX's": (f"process 1: error: {LOST}|{LOG}", -6, f"process 1: error: {LOST}"),
    "aborted": (LOG, -6, f"error: {LOST}"),
    "aborted before it met the others": (ALONE, -6, f"error: {supervisor.absence().line}"),
}


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX processes")
@pytest.mark.parametrize("name", ENDS)
def test_a_lost_process_is_one_line_whoever_says_it(name):
    text, status, expected = ENDS[name]
    script = f"""
import os, sys
from tunevlseg_jax.runtime import supervisor
if supervisor.is_needed():
    sys.exit(supervisor.supervise())
print(*{text.split("|")!r}, sep="\\n", file=sys.stderr, flush=True)
os.abort() if {status} < 0 else sys.exit({status})
"""
    assert small.finish(small.start("-c", script)) == (supervisor.STATUS, "", f"{expected}\n")


@pytest.mark.parametrize("command", [report, study], ids=lambda module: module.__name__)
def test_other_commands_refuse_to_be_several(monkeypatch, capsys, command):
    required = ("--runs", "runs") if command is report else ("--config", "configs/study_scenes.py")
    monkeypatch.chdir(small.ROOT)
    with pytest.raises(SystemExit):
        small.run(monkeypatch, command.main, *required, "--processes", 2, "--process", 0)
    mistakes.check_line(capsys.readouterr().err, "one-process: --processes")


@pytest.mark.parametrize("end", ["\n", ""], ids=["line ended", "line not ended"])
def test_the_log_of_a_thread_after_our_line_is_held_back(capsys, end):
    """A thread may write before the newline of our error."""
    ours = f"process 1: error: {supervisor.loss().line}"
    log = ["E1130 23:08:08.710034   28759 agent.cc:289] Polled an error\n", "Socket closed\n"]
    said, held = supervisor._pass_on(f"{ours}{end}{''.join(log)}".splitlines(keepends=True))
    assert said and held == log
    assert capsys.readouterr().err == f"{ours}\n"
