"""Tests of commands in several processes: they give what one gives, and go on if one is killed."""

import csv
import json
import signal
import socket
import subprocess
import time
from pathlib import Path

import cv2
import mistakes
import numpy as np
import pytest
import small
from numpy.testing import assert_allclose

from tunevlseg_jax import benchmark, evaluate, predict, sweep
from tunevlseg_jax.benchmarks import programs
from tunevlseg_jax.config import Train
from tunevlseg_jax.data.images import write_png
from tunevlseg_jax.runtime.optional import import_simpleitk

pytestmark = pytest.mark.xdist_group("commands of several hosts")  # they share what one process writes
quick_compilation = small.quick_compilation
sitk = import_simpleitk("a test")

SCRIPT = """
import functools, importlib, json, os, signal, sys

import jax

from tunevlseg_jax import cli
from tunevlseg_jax.benchmarks import programs
from tunevlseg_jax.evaluation import inference
from tunevlseg_jax.prediction import session
from tunevlseg_jax.runtime import multihost
from tunevlseg_jax.search.slots import Slots

multihost.join = functools.cache(multihost.join)  # once for all commands, which give the same options
cluster, commands, (killed, victim) = sys.argv[1:7], json.loads(sys.argv[7]), json.loads(sys.argv[8])
written, saved = [], []


def die():
    if jax.process_index() == victim:
        os.kill(os.getpid(), signal.SIGKILL)


def score(*given, score=inference._score):
    if killed == "evaluate":
        die()
    return score(*given)


def timed(*given, timed=programs.timed):
    if killed == "benchmark":
        die()
    return timed(*given)


def write_png(path, image, write=session.write_png):
    write(path, image)
    written.append(path)
    if killed == "predict" and len(written) == 3:
        die()


def save(*given, save=Slots.save):
    save(*given)
    saved.append(given)


def train_epoch(*given, train=Slots.train_epoch):
    if killed == "sweep" and saved:
        die()
    train(*given)


session.write_png, Slots.save, Slots.train_epoch = write_png, save, train_epoch
inference._score, programs.timed = score, timed


def main():
    for module, *options in commands:
        sys.argv = [module, *options, *cluster]
        importlib.import_module(f"tunevlseg_jax.{module}").main()


cli.run(main)
"""
MODULES = {"evaluate": evaluate, "predict": predict, "sweep": sweep, "benchmark": benchmark}
SIZES = [(40, 60), (48, 48), (70, 30), (50, 50), (33, 44)]
"""(height, width) of the images; the second of two processes gets the last three."""


def start(
    processes: int, commands: list[list[str]], devices: int = 1, killed: tuple[str, int] = ("", 0)
) -> list[subprocess.Popen]:
    """Processes that run the same commands one after the other; `killed` is a command, and who is killed in it."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        where = f"localhost:{probe.getsockname()[1]}"
    flags = f"--xla_force_host_platform_device_count={devices}"
    options = "--processes", processes, "--coordinator", where, "--process"
    shared = json.dumps(commands), json.dumps(killed)
    return [small.start("-c", SCRIPT, *options, number, *shared, XLA_FLAGS=flags) for number in range(processes)]


def printed(members: list[subprocess.Popen]) -> str:
    """What process 0 prints; the others print nothing, and none of them an error."""
    ended = [small.finish(member, 600) for member in members]
    assert [(status, err) for status, _, err in ended] == [(0, "")] * len(members), ended
    outs = [out for _, out, _ in ended]
    assert outs[1:] == [""] * (len(members) - 1)
    return outs[0]


def run_here(command: list[str]) -> None:
    """Runs a command in this process, with one device."""
    with pytest.MonkeyPatch.context() as patch:
        small.run(patch, MODULES[command[0]].main, *command[1:])


def evaluations(output: Path) -> list[list[str]]:
    command = ["evaluate", "--run", str(small.finished()), "--output", str(output / "scores")]
    return [command, [*command, "--ask-absent", "--resolution", "original"]]


@pytest.fixture(scope="module")
def shared(tmp_path_factory) -> Path:
    """A folder of images, one of volumes, and the configuration of a sweep."""
    folder = tmp_path_factory.mktemp("shared")
    rng = np.random.default_rng(3)
    (folder / "images").mkdir()
    for number, size in enumerate(SIZES):
        write_png(folder / "images" / f"{number}.png", rng.integers(0, 256, (*size, 3), dtype=np.uint8))
    (folder / "volumes").mkdir()
    for number in range(3):
        values = rng.integers(0, 256, (2 + number, 20, 30), dtype=np.uint8)
        sitk.WriteImage(sitk.GetImageFromArray(values), str(folder / "volumes" / f"{number}.nii.gz"))
    small.write_config(folder / "config.py", small.config("unused", train=Train(epochs=2, batch_size=4, augment=False)))
    return folder


def prediction(shared: Path, output: Path) -> list[str]:
    command = ["predict", "--run", str(small.finished()), "--image", str(shared / "images"), "--prompt", "one", "two"]
    return [*command, "--output", str(output / "masks"), "--probabilities", "png", "--format", "coco"]


def volumes(shared: Path, output: Path) -> list[str]:
    command = ["predict", "--run", str(small.finished()), "--image", str(shared / "volumes"), "--prompt", "one", "two"]
    return [*command, "--output", str(output / "volumes"), "--probabilities"]


def search(shared: Path, output: Path) -> list[str]:
    command = ["sweep", "--config", str(shared / "config.py"), "--study", "s", "--folder", str(output / "studies")]
    return [*command, "--trials", "3", "--parallel", "2", "--seeds", "2", "--test-all"]


def pruned(shared: Path, output: Path) -> list[str]:
    command = ["sweep", "--config", str(shared / "config.py"), "--study", "p", "--folder", str(output / "studies")]
    return [*command, "--trials", "5", "--parallel", "2", "--pruner", "halving"]


def benchmarking(shared: Path, output: Path) -> list[str]:
    command = ["benchmark", "--config", str(shared / "config.py"), "--repeats", "1"]
    return [*command, "--output", str(output / "benchmark.json")]


def commands(shared: Path, output: Path) -> list[list[str]]:
    predictions = [prediction(shared, output), volumes(shared, output)]
    return [*evaluations(output), *predictions, search(shared, output), pruned(shared, output)]


LINES = {
    "evaluate": lambda shared, output: evaluations(output)[0],
    "predict": prediction,
    "sweep": search,
    "benchmark": benchmarking,
}


@pytest.fixture(scope="module")
def one(quick_compilation, shared, tmp_path_factory) -> Path:
    """What one process writes."""
    output = tmp_path_factory.mktemp("one")
    for command in commands(shared, output):
        run_here(command)
    return output


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def check_rows(one: Path, other: Path, but: tuple[str, ...] = ()) -> None:
    """The same rows in the same order, numbers to 1e-5."""
    ours, theirs = rows(one), rows(other)
    assert len(ours) == len(theirs) > 0 and ours[0].keys() == theirs[0].keys()
    for row, expected in zip(ours, theirs, strict=True):
        for name in row.keys() - set(but):
            try:
                assert_allclose(float(row[name]), float(expected[name]), rtol=1e-5, atol=1e-5, err_msg=name)
            except ValueError:
                assert row[name] == expected[name]


def check_scores(one: Path, other: Path) -> None:
    names = sorted(path.name for path in (one / "scores").iterdir())
    assert names == sorted(path.name for path in (other / "scores").iterdir()) and len(names) == 6
    for name in names:
        ours, theirs = one / "scores" / name, other / "scores" / name
        if name.endswith(".csv"):
            check_rows(ours, theirs)
        else:
            scores = [json.loads(path.read_text())["scores"] for path in (ours, theirs)]
            assert scores[0] == pytest.approx(scores[1], abs=1e-5, nan_ok=True)


def check_masks(one: Path, other: Path) -> None:
    files = sorted(path.name for path in (one / "masks").iterdir())
    assert files == sorted(path.name for path in (other / "masks").iterdir())
    for name in (name for name in files if name.endswith(("_mask.png", "_labels.png"))):
        ours, theirs = (cv2.imread(str(each / "masks" / name), cv2.IMREAD_GRAYSCALE) for each in (one, other))
        assert ours is not None and theirs is not None
        assert ours.shape == theirs.shape and (ours == theirs).all()


def check_volumes(one: Path, other: Path) -> None:
    """The same masks, and probabilities to 1e-5."""
    files = sorted(path.name for path in (one / "volumes").iterdir())
    assert files == sorted(path.name for path in (other / "volumes").iterdir()) and len(files) == 1 + 3 * 2 * 2
    for name in (name for name in files if name.endswith(".nii.gz")):
        ours, theirs = (sitk.GetArrayFromImage(sitk.ReadImage(str(each / "volumes" / name))) for each in (one, other))
        assert ours.dtype == theirs.dtype
        assert_allclose(ours, theirs, rtol=0, atol=1e-5 if name.endswith("_probability.nii.gz") else 0)
    check_rows(one / "volumes" / "volumes.csv", other / "volumes" / "volumes.csv")


def check_trials(one: Path, other: Path) -> None:
    """The same parameters, and losses to 1e-5, in the same order; also of the repetitions."""
    folders = [sorted(path.parent for path in (each / "studies" / "s").rglob("card.json")) for each in (one, other)]
    assert len(folders[0]) == len(folders[1]) == 4
    for ours, theirs in zip(*folders, strict=True):
        configs = [json.loads((each / "config.json").read_text()) | {"workdir": ""} for each in (ours, theirs)]
        assert ours.name == theirs.name and configs[0] == configs[1]
        for row, expected in zip(small.metrics(ours), small.metrics(theirs), strict=True):
            for part in ("train", "val"):
                assert_allclose(row[part]["loss"], expected[part]["loss"], rtol=1e-5)
        cards = [json.loads((each / "card.json").read_text())["scores"]["tuned"] for each in (ours, theirs)]
        assert_allclose(cards[0]["test"]["loss"], cards[1]["test"]["loss"], rtol=1e-5)
    summaries = [json.loads((each / "studies" / "s" / "summary.json").read_text()) for each in (one, other)]
    assert summaries[0]["best"]["trial"] == summaries[1]["best"]["trial"]


@pytest.mark.slow
@pytest.mark.parametrize(("processes", "devices"), [(2, 2), (4, 1)])
def test_several_processes_give_what_one_gives(one, shared, tmp_path, processes, devices):
    """Each with this many devices; the first one alone prints."""
    output = tmp_path
    out = printed(start(processes, commands(shared, output), devices))
    assert "all" in out and "masks and overlays" in out and "best trials" in out
    check_scores(one, output)
    check_masks(one, output)
    for name in ("predictions.csv", "label_maps.csv"):
        check_rows(one / "masks" / name, output / "masks" / name)
    coco = [json.loads((each / "masks" / "predictions.coco.json").read_text()) for each in (one, output)]
    assert coco[0] == coco[1]
    check_trials(one, output)
    check_volumes(one, output)
    table = Path("studies", "p", "trials.csv")
    check_rows(one / table, output / table)
    assert {row["state"] for row in rows(output / table)} == {"complete", "pruned"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "victim"), [("predict", 1), ("sweep", 1), *((command, 0) for command in LINES)], ids=str
)
def test_a_killed_process_ends_the_others_and_the_command_goes_on(monkeypatch, one, shared, tmp_path, command, victim):
    """Within a minute; finished masks and trials are kept, and no half of one is taken for a whole."""
    line = LINES[command](shared, tmp_path)
    members = start(2, [line], killed=(command, victim))
    assert small.finish(members.pop(victim), 600)[0] == 128 + signal.SIGKILL
    since = time.monotonic()
    status, _, err = small.finish(members[0])
    assert time.monotonic() - since < 60
    assert status == 1 and err.count("\n") == 1, err
    mistakes.check_line(err, "lost-process: the same commands go on")
    monkeypatch.setattr(programs, "CEILING_SIDE", 64)
    finished = "[01]_*_mask.png" if victim == 1 else "[234]_*_mask.png", "prompts.safetensors"  # of whoever was left
    kept = {path: path.read_bytes() for name in finished for path in tmp_path.rglob(name)}
    assert len(kept) >= {"predict": 4 * victim, "sweep": 1}.get(command, 0)  # without process 0 another ends at once
    run_here(line)
    assert all(path.read_bytes() == content for path, content in kept.items())
    if command == "benchmark":
        assert len(json.loads((tmp_path / "benchmark.json").read_text())) > 1
    elif command == "evaluate":
        for path in (tmp_path / "scores").glob("*.csv"):
            check_rows(one / "scores" / path.name, path)
    elif command == "predict":
        check_masks(one, tmp_path)
        tables = [sorted(row["mask"] for row in rows(each / "masks" / "predictions.csv")) for each in (one, tmp_path)]
        assert tables[0] == tables[1]
    else:
        check_trials(one, tmp_path)
