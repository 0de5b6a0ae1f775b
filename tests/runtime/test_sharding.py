"""Tests of training on several devices: eight simulated ones give what one gives."""

import dataclasses
import json

import pytest
import small
from numpy.testing import assert_allclose
from rich.console import Console

from tunevlseg_jax.config import Train
from tunevlseg_jax.runs.provenance import Provenance
from tunevlseg_jax.runs.run_folder import RunFolder
from tunevlseg_jax.runs.trainer import train
from tunevlseg_jax.runtime import sharding

pytestmark = pytest.mark.xdist_group("eight devices")  # they share runs on them
quick_compilation = small.quick_compilation

RUNS = {"small": Train(epochs=3, batch_size=4), "large": Train(epochs=3, batch_size=8)}
"""Eight devices divide one of the batches, and the last batch of neither is full."""
RUNS["sharded"] = dataclasses.replace(RUNS["large"], shard_frozen=True)
SCRIPT = """
import sys
from rich.console import Console
from tunevlseg_jax import config
from tunevlseg_jax.runs import trainer
from tunevlseg_jax.runtime import sharding
from tunevlseg_jax.training.build import build_experiment
for path in sys.argv[1:]:
    trainer.train(config.load(path), Console())
frozen = build_experiment(config.load(path)).on_mesh(sharding.mesh()).frozen.values()
print("bytes:", *(sum(array.addressable_data(number).nbytes for array in frozen) for number in range(8)))
"""


def run(folder, name: str):
    """A configuration with a folder of its own; large batches are resident."""
    config = small.config(folder / name, train=RUNS[name])
    placement = "streaming" if name == "small" else "resident"
    return dataclasses.replace(config, data=dataclasses.replace(config.data, placement=placement))


@pytest.fixture(scope="module")
def eight(tmp_path_factory):
    """The folder of runs on eight devices, in a process that has them, and the bytes of frozen weights on each."""
    folder = tmp_path_factory.mktemp("eight")
    paths = [small.write_config(folder / f"{name}.py", run(folder, name)) for name in RUNS]
    process = small.start("-c", SCRIPT, *paths, XLA_FLAGS="--xla_force_host_platform_device_count=8")
    status, out, err = small.finish(process, 600)
    assert (status, err) == (0, "") and "8 cpu devices" in out
    return folder, [int(size) for size in out.splitlines()[-1].removeprefix("bytes: ").split()]


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_eight_devices_give_the_losses_of_one(eight, tmp_path, name):
    folder, _ = eight
    results = train(run(tmp_path, name), Console(quiet=True))
    one, other = (
        [json.loads(line) for line in (each / name / "metrics.jsonl").read_text().splitlines()]
        for each in (tmp_path, folder)
    )
    for part in ("train", "val"):
        assert_allclose([row[part]["loss"] for row in other], [row[part]["loss"] for row in one], rtol=1e-5)
    theirs = json.loads((folder / name / "results.json").read_text())
    for row in results:
        for split in ("val", "test"):
            assert_allclose(theirs[row][split]["loss"], results[row][split]["loss"], rtol=1e-5)
            assert_allclose(theirs[row][split]["dice"], results[row][split]["dice"], atol=1e-3)


@pytest.mark.slow
def test_each_device_keeps_an_eighth_of_the_matrices(eight):
    frozen = small.build(small.config()).frozen.values()
    matrices = sum(array.nbytes for array in frozen if array.ndim > 1 and any(side % 8 == 0 for side in array.shape))
    everything = sum(array.nbytes for array in frozen)
    assert matrices > 0.9 * everything
    assert eight[1] == [everything - matrices + matrices // 8] * 8


def test_a_run_may_go_on_with_its_weights_shared_out(tmp_path):
    for shard in (False, True):
        data = Provenance({"name": "scenes/photo", "train": "0"})
        RunFolder(small.config(tmp_path / "run", train=Train(shard_frozen=shard)), data)


@pytest.mark.slow
def test_what_trials_share_is_shared_out_too():
    """Four trials on four devices look at an image once together, and each reads its own prompts."""
    script = """
import jax

from tunevlseg_jax.runtime import sharding
from tunevlseg_jax.training import (loop, step)
from tunevlseg_jax.benchmarks import programs
from tunevlseg_jax.config import Config, Train
from tunevlseg_jax.learners import CoOp
from tunevlseg_jax.training.optim import Schedule
from tunevlseg_jax.training.build import build_experiment

mesh = sharding.mesh(4)
config = Config(learner=CoOp(depth=5), upsampling="blend", train=Train(batch_size=8))
experiment = build_experiment(config).on_mesh(mesh)
source = programs.random_source(8, experiment.image_size, mesh, augmented=True)
state = loop.begin(*experiment.for_trials(4), mesh).state
table = sharding.replicate(experiment.encode_text(["polyp"]), mesh)
arguments = state, experiment.frozen, source, table
traced = step.train_step.trace(*arguments, network=experiment.network, schedule=Schedule(0, 0))
print("operations:", traced.lower().compile().cost_analysis()["flops"])
"""
    counts = []
    for number in (1, 4):
        process = small.start("-c", script, XLA_FLAGS=f"--xla_force_host_platform_device_count={number}")
        status, out, err = small.finish(process)
        assert (status, err) == (0, "")
        counts.append(float(out.split()[-1]))
    assert counts[1] < 0.3 * counts[0], counts


@pytest.mark.parametrize(
    ("trials", "cores", "programs"),
    [(10, 1, 1), (10, 2, 2), (10, 4, 5), (10, 16, 10), (7, 2, 7), (9, 2, 3), (1, 8, 1), (2, 2, 2), (3, 2, 3)],
)
def test_programs_have_equal_size_and_use_all_cores(monkeypatch, trials, cores, programs):
    monkeypatch.setattr(sharding, "num_cores", lambda: cores)
    assert sharding.num_programs(trials, sharding.mesh()) == programs
