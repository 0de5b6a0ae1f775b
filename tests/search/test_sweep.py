"""Tests of sweeps: trials side by side are each as alone; seeds, learners, and mistakes on the command line."""

import contextlib
import dataclasses
from collections import Counter
from pathlib import Path

import mistakes
import numpy as np
import pytest
import small
from safetensors.numpy import load_file
from sweep_cases import COOP, QUIET, SPACES, check_same_run, curve, each, options, three_trials

from tunevlseg_jax import sweep
from tunevlseg_jax.config import Optim, Train
from tunevlseg_jax.data.settings import Data
from tunevlseg_jax.learners import LEARNERS, MaPLe
from tunevlseg_jax.runs import trainer
from tunevlseg_jax.runs.card import load_learnt
from tunevlseg_jax.runtime import sharding
from tunevlseg_jax.search import repeats, run_sweep, trial_config
from tunevlseg_jax.search.options import Replay
from tunevlseg_jax.search.resources import Resources
from tunevlseg_jax.search.sampler import Sampler
from tunevlseg_jax.search.summary import SweepDisplay
from tunevlseg_jax.search.worker import Worker
from tunevlseg_jax.studies.grid import Ablation
from tunevlseg_jax.training.build import build_experiment

quick_compilation = small.quick_compilation


def test_every_learner_has_a_space():
    assert SPACES.keys() == run_sweep.BY_NAME.keys()


@pytest.mark.slow
@each(*SPACES)
def test_neighbours_change_nothing(tmp_path, monkeypatch, learner, space):
    """To the bit: beside two trials that converge, beside one that diverges and one of other sizes, and alone."""
    monkeypatch.setattr(sharding, "num_cores", lambda: 1)  # all in one program
    config = three_trials(str(tmp_path), learner, space).config
    depth = ["depth=1..2"] if hasattr(config.learner, "depth") else []
    space = (*space, *depth, "learning_rate=1e-4..1e30")
    searched = trial_config.space(config, build_experiment(trial_config.shallow(config)), space)
    low, high = ({name: trial_config._ends(values)[end] for name, values in searched.items()} for end in (0, -1))
    calm = {name: {"optim.learning_rate": 1e-3}.get(name, value) for name, value in high.items()}
    beside = {"calm": [calm, calm], "wild": [high, low]}
    for name, neighbours in beside.items():
        monkeypatch.setattr(Sampler, "start_up", [low, *neighbours])
        run_sweep.sweep(options(tmp_path, config, study=name, parallel=3, space=space), QUIET)
    check_same_bits(*(tmp_path / name / "trials" / "000" for name in beside))
    lost = curve(tmp_path / "wild" / "trials" / "001")[-1]
    assert not np.isfinite([lost["train"]["loss"], lost["val"]["loss"]]).all()
    for name, trial in (("wild", 0), ("calm", 2)):
        sweep.replay(Replay(study=name, trial=trial, folder=str(tmp_path)), QUIET)
        check_same_bits(*(tmp_path / name / part / f"{trial:03d}" for part in ("trials", "replays")))


def check_same_bits(one: Path, other: Path) -> None:
    assert small.metrics(one) == small.metrics(other)
    assert (one / "prompts.safetensors").read_bytes() == (other / "prompts.safetensors").read_bytes()


@pytest.mark.slow
@each("coop", "maple", "sharedattention", "lora")  # of the others the values differ, and not how they are trained
def test_together_is_train(tmp_path, learner, space):
    """In float64, where the rounding of another program is too small for Adam to make steps of."""
    script = small.ROOT / "tests" / "float64_sweep.py"
    status, _, err = small.finish(small.start(script, tmp_path, learner, *space), seconds=600)
    assert status == 0, err
    for number in range(3):
        trial, alone = tmp_path / "s" / "trials" / f"{number:03d}", tmp_path / "s" / "replays" / f"{number:03d}-train"
        _, learnt, card = load_learnt(trial)
        assert {array.dtype for array in learnt.values()} == {np.dtype(np.float64)} and card["program"]["trials"] == 3
        check_same_run(trial, alone, 1e-6)


@pytest.mark.slow
def test_the_counts_of_running_trials(tmp_path, monkeypatch):
    counted = []

    def update(display, name, storage):
        counted.append(Counter(trial.state.name for trial in storage.trials()))

    monkeypatch.setattr(SweepDisplay, "update", update)
    config = small.config(learner=COOP, train=Train(epochs=1, batch_size=4))
    run_sweep.sweep(options(tmp_path, config, trials=3, parallel=2), QUIET)
    assert {"RUNNING": 2} in counted and {"COMPLETE": 2, "RUNNING": 1} in counted and counted[-1] == {"COMPLETE": 3}


@pytest.mark.slow
def test_seeds_repeat_the_best_trial(tmp_path):
    config = small.config(learner=COOP, train=Train(epochs=1, batch_size=4))
    (summary,) = run_sweep.sweep(options(tmp_path, config, trials=1, seeds=2), QUIET)
    runs = summary["best"]["runs"]
    assert [run["seed"] for run in runs] == [0, 1]
    for metric in ("dice", "loss"):
        values = [run["test"][metric] for run in runs]
        assert summary["best"]["mean"]["test"][metric] == pytest.approx(np.mean(values))
        assert summary["best"]["std"]["test"][metric] == pytest.approx(np.std(values, ddof=1))
    first, second = (load_file(Path(run["folder"]) / "prompts.safetensors") for run in runs)
    assert (first["learner/context"] != second["learner/context"]).any()
    trainer.train(dataclasses.replace(load_learnt(Path(runs[1]["folder"]))[0], workdir=str(tmp_path / "alone")), QUIET)
    check_same_run(Path(runs[1]["folder"]), tmp_path / "alone")


CHANGES = {
    **{"learner.init_phrase": "a photo", "learner.num_context": 3, "learner.depth": 2, "upsampling": "none"},
    **{"optim.learning_rate": 1e-2, "optim.weight_decay": 0.5, "optim.warmup_steps": 5, "optim.cosine": True},
    **{"optim.plateau_factor": 0.5, "optim.plateau_patience": 1},
    **{"train.epochs": 2, "train.batch_size": 5, "train.patience": 1, "train.min_delta": 0.0},
}
"""Another value for each field that an ablation or a search may change, where no epoch is better than the first."""


@pytest.mark.slow
def test_every_field_that_may_differ_changes_what_is_trained(quick_compilation, tmp_path):
    train = Train(epochs=4, batch_size=4, patience=3, min_delta=100.0, augment=False)
    config = small.config(learner=COOP, train=train, optim=Optim(learning_rate=1e-3, plateau_patience=2))
    assert CHANGES.keys() == trial_config.variable(config).keys()
    asked = options(tmp_path, config, space=("depth=1..2",))
    ablations = [Ablation(name=field, field=field, value=value) for field, value in CHANGES.items()]
    trial = dataclasses.replace(config, learner=dataclasses.replace(COOP, max_depth=2))
    runs = {tmp_path / ablation.name: ablation.of(trial) for ablation in ablations}
    same = tmp_path / "same"
    table = SweepDisplay(QUIET, ["s"], 3)
    with contextlib.closing(Worker(asked, "s", tmp_path / "s", config, Resources(config), table)) as worker:
        repeats.train(worker, {same: trial} | runs)
    for folder in runs:
        assert small.metrics(folder) != small.metrics(same), folder.name


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("--trials 1", "invalid-option: study"),
        ("--study s --trials 0", "out-of-range: trials .*0"),
        ("--study s --parallel 0", "out-of-range: parallel .*0"),
        ("--study s --parallel many", "invalid-option: many"),
        ("--study s --seeds 0", "out-of-range: seeds .*0"),
        ("--study ../s", "invalid-name: study .*'../s'"),
        ("--study s --learners coop,vtp", "unknown-learner: 'vtp'.*'vpt'"),
        ("--study s --pruner medain", "invalid-option: medain.*median"),
        ("--study s --space depht=1..2", "unknown-field: 'depht'.*'depth'"),
        ("--study s --space depth=2..1", r"search-space: learner.depth: .*2\.\.1"),
        ("--study s --learners coop,maple --space hidden=8", "unknown-field: CoOp .*'hidden'"),
        ("--study s --learners maple,coop --space hidden=8", "unknown-field: CoOp .*'hidden'"),
        ("--study s --space num_context=21", "prompt-too-long"),
        ("--study s --trails 3", "invalid-option: --trails.*--trials"),
        ("--study s --storage nowhere", "bad-storage: nowhere"),
        ("--study s --data.name scenes/photo,scenes/xry", "no-such-data-set: 'scenes/xry'.*'scenes/xray'"),
        ("replay nothing 3", "no-such-trial: 3"),
    ],
)
def test_mistakes_are_one_line(tmp_path, monkeypatch, capsys, arguments, says):
    config = small.write_config(tmp_path / "config.py", small.config(learner=COOP))
    given = arguments.split() if arguments.startswith("replay") else ["--config", config, *arguments.split()]
    with pytest.raises(SystemExit) as stop:
        small.run(monkeypatch, sweep.main, *given, "--folder", tmp_path / "studies")
    err = capsys.readouterr().err
    assert stop.value.code == 2 and err.startswith("error: ") and err.count("\n") == 1, err
    mistakes.check_line(err, says)


@pytest.mark.slow
def test_sets_and_learners_have_a_study_each(tmp_path, monkeypatch):
    config = small.config(learner=COOP, data=Data(name="scenes/photo, scenes/xray"))
    configs = run_sweep.studies(options(tmp_path, config, learners="all"), Resources(config))
    assert len(configs) == 2 * len(LEARNERS) and list(configs)[:2] == ["s/scenes-photo.coop", "s/scenes-photo.cocoop"]
    assert configs["s/scenes-xray.coop"].learner == COOP and configs["s/scenes-xray.coop"].data.name == "scenes/xray"
    assert configs["s/scenes-xray.maple"].learner == MaPLe()
