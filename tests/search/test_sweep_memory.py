"""Tests of the memory and the arithmetic that trials side by side take."""

import contextlib
import dataclasses
import re
from functools import cache

import abstract_step
import jax
import mistakes
import pytest
import small
from sweep_cases import COOP, QUIET, options

from tunevlseg_jax.config import Config, Train
from tunevlseg_jax.data.settings import Data, Scenes
from tunevlseg_jax.learners import VPT, CoOp, MaPLe, Projector
from tunevlseg_jax.learners.contract import Learner
from tunevlseg_jax.models.clipseg import CLIPSegConfig
from tunevlseg_jax.runtime import sharding
from tunevlseg_jax.search import memory_fit
from tunevlseg_jax.search.resources import Resources
from tunevlseg_jax.search.summary import SweepDisplay
from tunevlseg_jax.search.worker import Worker
from tunevlseg_jax.training.experiment import Experiment
from tunevlseg_jax.training.loop import TrainSetup

quick_compilation = small.quick_compilation


def prepare(config: Config) -> tuple[Experiment, TrainSetup]:
    """A model with a learner, and the training of a search."""
    resources = Resources(config)
    experiment = resources.experiment(config)
    return experiment, experiment.train_setup(experiment.splits(resources.cache), resources.cache, parallel=True)


@pytest.mark.slow
def test_parallel_beyond_memory_is_refused_and_auto_takes_fewer(tmp_path, monkeypatch):
    experiment, setup = prepare(small.config(learner=COOP))
    need = {size: memory_fit.bytes_needed(experiment, setup, size) for size in (1, 3)}
    assert need[1] < need[3] < 3 * need[1] + 2**20
    monkeypatch.setattr(memory_fit, "free_bytes", lambda setup: int(need[1] / memory_fit.SHARE) + 1)
    assert memory_fit.max_parallel_trials(experiment, setup, 3, automatic=True) == 1
    with mistakes.raises("device-memory: 3 trials .* GiB .*--parallel auto"):
        memory_fit.max_parallel_trials(experiment, setup, 3, automatic=False)
    monkeypatch.setattr(memory_fit, "free_bytes", lambda setup: 1000)
    with mistakes.raises("device-memory: not even one trial"):
        memory_fit.max_parallel_trials(experiment, setup, 3, automatic=True)


@pytest.mark.slow
def test_encoding_and_every_program_are_counted_in_memory(monkeypatch):
    experiment, setup = prepare(small.config(learner=COOP, train=Train(epochs=2, batch_size=4)))
    monkeypatch.setattr(sharding, "num_cores", lambda: 2)
    one, two, four, six = (memory_fit.bytes_needed(experiment, setup, size, parts=size) for size in (1, 2, 4, 6))
    state = (four - two) // 2  # of a trial; a step's temporary memory is there at most twice
    temporary = two - one - state
    encoding = one - state - temporary
    assert state > 0 and temporary > 0 and encoding > 0 and six == 6 * state + 2 * temporary + encoding


@pytest.mark.slow
def test_on_two_devices_an_even_number_fits():
    script = """
import sys
import small
from tunevlseg_jax.search import memory_fit
from tunevlseg_jax.runtime.errors import UserError
from tunevlseg_jax.learners import CoOp
from tunevlseg_jax.search.resources import Resources
from tunevlseg_jax.search.summary import SweepDisplay
config = small.config(learner=CoOp(depth=1, num_context=2, init_phrase=None))
resources = Resources(config, 4)
experiment = resources.experiment(config)
setup = experiment.train_setup(experiment.splits(resources.cache), resources.cache, parallel=True)
for size in (4, 2):
    need = memory_fit.bytes_needed(experiment, setup, size)
    memory_fit.free_bytes = lambda setup: int(need / memory_fit.SHARE) - 1
    try:
        print("fits:", memory_fit.max_parallel_trials(experiment, setup, 4, automatic=True))
    except UserError as error:
        print(error)
"""
    process = small.start("-c", script, XLA_FLAGS="--xla_force_host_platform_device_count=2")
    status, out, err = small.finish(process)
    assert (status, err) == (0, ""), err
    assert re.fullmatch("fits: 2\nnot even one trial fits: .*\n", out)


def test_memory_is_counted_with_the_data_on_the_devices(monkeypatch):
    data = Data(name="scenes/photo", placement="resident", scenes=Scenes(train=11, val=7, test=5))  # of no other test
    config = small.config(learner=VPT(depth=1, max_depth=small.BLOCKS, num_context=2), data=data)
    experiment, setup = prepare(config)
    held = []

    def free_bytes(setup: TrainSetup) -> int:
        held.extend(array.shape for array in jax.live_arrays())
        return 2**40

    monkeypatch.setattr(memory_fit, "free_bytes", free_bytes)
    assert memory_fit.max_parallel_trials(experiment, setup, 1, automatic=True) == 1
    assert {split.records.compact().images.shape for split in (setup.train, setup.val)} <= set(held)


@pytest.mark.slow
def test_one_program_at_a_time_holds_memory(tmp_path, monkeypatch):
    """Whoever still holds the slots of another, and however often programs take turns."""
    config = small.config(learner=MaPLe(depth=1, num_context=2, init_phrase=None))
    asked = options(tmp_path, config, parallel=7)
    kinds = [Projector(kind="mlp", hidden=(8,)), Projector(kind="low_rank", hidden=(8,))]
    learners = [dataclasses.replace(config.learner, projector=kind) for kind in kinds]
    trials = [dataclasses.replace(config, learner=learner) for learner in learners]
    held, kept = [], []

    def of_seven() -> int:
        return sum(array.ndim > 2 and array.shape[0] == 7 for array in jax.live_arrays())

    def free_bytes(setup: TrainSetup) -> int:
        held.append(of_seven())
        return 2**40

    monkeypatch.setattr(memory_fit, "free_bytes", free_bytes)
    monkeypatch.setattr(sharding, "num_cores", lambda: 1)  # all in one program
    display = SweepDisplay(QUIET, ["s"], 3)
    with contextlib.closing(Worker(asked, "s", tmp_path / "s", config, Resources(config), display)) as worker:
        for trial, number in zip((*trials, *trials), (7, 7, 5, 5), strict=True):
            kept.append(worker.slots(worker.program(trial), number))
            assert kept[-1].size == 7 and of_seven() > 0  # compiled before: 5 would be compiled again
            assert worker.slots(worker.program(trial), 4) is kept[-1]
    assert held == [0] * 4


REAL = CLIPSegConfig()


@cache
def flops(learner: Learner, trials: int) -> float:
    """Of a step of CLIPSeg at its real size, 352 pixels, on four images of one class, with exact augmentation."""
    costs = abstract_step.traced(REAL, learner, trials).lower().cost_analysis()
    assert costs is not None
    return costs["flops"]


@pytest.mark.slow
def test_textual_trials_share_the_vision_pass():
    """Sixteen trials of CoOp cost at most a sixth of sixteen steps, even with prompts as long as the tower takes."""
    learner = CoOp(depth=11, init_phrase=None)
    assert flops(learner, 16) <= 16 * flops(learner, 1) / 6


@pytest.mark.slow
def test_visual_trials_cost_no_more_than_one_after_the_other():
    learner = VPT(depth=11)
    assert flops(learner, 8) <= 8 * flops(learner, 1)
