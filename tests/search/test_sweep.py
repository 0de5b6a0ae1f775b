"""Tests of sweeps: trials side by side are each as alone, and a sweep ends with its trials whatever befalls it."""

from __future__ import annotations

import csv
import dataclasses
import functools
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optuna
import pytest
import small
from numpy.testing import assert_allclose
from rich.console import Console
from safetensors.numpy import load_file

from tunevlseg_jax import evaluate, sweep
from tunevlseg_jax.config import Config, Optim, Train
from tunevlseg_jax.data.feeding.batch import Rows, Source
from tunevlseg_jax.data.settings import Data, Scenes
from tunevlseg_jax.learners import LEARNERS, VPT, CoCoOp, CoOp, MaPLe, Projector, SharedAttention, SharedSeparate
from tunevlseg_jax.learners.contract import Learner
from tunevlseg_jax.models.build import weight_shapes
from tunevlseg_jax.models.clipseg import CLIPSegConfig
from tunevlseg_jax.models.parameters import nested, split, subtree
from tunevlseg_jax.network import Network
from tunevlseg_jax.reporting import cells, runs
from tunevlseg_jax.runs import trainer
from tunevlseg_jax.runs.card import load_learnt
from tunevlseg_jax.runtime import schema, sharding
from tunevlseg_jax.runtime.errors import UserError
from tunevlseg_jax.search import memory_fit, repeats, run_sweep, session, trial_config
from tunevlseg_jax.search.replay import Replay
from tunevlseg_jax.search.resources import Resources
from tunevlseg_jax.search.sampler import Sampler
from tunevlseg_jax.search.storage import JOURNAL
from tunevlseg_jax.search.summary import SweepDisplay
from tunevlseg_jax.studies.grid import Ablation
from tunevlseg_jax.sweep import Options
from tunevlseg_jax.training import parallel_loops, step
from tunevlseg_jax.training.experiment import build_experiment
from tunevlseg_jax.training.loop import TrainSetup
from tunevlseg_jax.training.optim import Schedule
from tunevlseg_jax.training.step import Hyperparameters

quick_compilation = small.quick_compilation

COOP = CoOp(depth=1, num_context=2, words=None)
QUIET = Console(quiet=True)


def options(folder: Path, config: Config | None = None, **changes) -> Options:
    """A study of three trials at once."""
    config = config or small.config(learner=COOP)
    return Options(**({"study": "s", "trials": 3, "folder": str(folder), "config": config} | changes))


def curve(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text("utf-8").splitlines()]


def check_same_run(one: Path, other: Path, tolerance: float = 1e-4) -> None:
    """Two runs agree in their losses, their scores and the prompts that they learnt."""
    for ours, theirs in zip(curve(one), curve(other), strict=True):
        assert ours["learning_rate"] == theirs["learning_rate"]
        for part in ("train", "val"):
            for name in ours[part]:  # scores count pixels, and may differ by one of a few thousand
                close = {"rtol": tolerance, "atol": 0 if name == "loss" else 1e-4}
                assert_allclose(ours[part][name], theirs[part][name], **close, err_msg=f"{part} {name}")
    config, learnt, card = load_learnt(one)
    _, expected, other_card = load_learnt(other)
    if card["best_epoch"] != other_card["best_epoch"]:  # two epochs are equally good but for rounding
        best = {folder: max(line["val"]["dice"] for line in curve(folder)) for folder in (one, other)}
        assert_allclose(curve(one)[other_card["best_epoch"] - 1]["val"]["dice"], best[one], rtol=0, atol=1e-4)
        assert_allclose(curve(other)[card["best_epoch"] - 1]["val"]["dice"], best[other], rtol=0, atol=1e-4)
        return
    assert {path: array.shape for path, array in learnt.items()} == {
        path: array.shape for path, array in expected.items()
    }
    for ours, theirs in zip(prompts(config.learner, learnt), prompts(config.learner, expected), strict=True):
        assert np.linalg.norm(ours - theirs) <= tolerance * np.linalg.norm(theirs)


def prompts(learner: Learner, learnt: dict[str, np.ndarray]) -> list[np.ndarray]:
    """What a learner gives a model, as far as its depth goes; CoCoOp's for one random image."""
    params = nested(subtree({path: jnp.asarray(array) for path, array in learnt.items()}, "learner"))
    depth, dropout = learner.traced_values()
    experiment = learner.prompts(params, jnp.asarray(depth), dropout=jnp.asarray(dropout), key=None)
    if learner.per_image:
        width = params["projector"]["layer0"]["kernel"].shape[1]
        experiment = learner.condition(params, experiment, jax.random.normal(jax.random.key(0), (1, width)))
    return [np.asarray(array)[:depth] for array in (experiment.text, experiment.vision) if array is not None]


# A trial that diverges, one that stops early, one that joins when that has, and widths that differ.
UNEQUAL = [
    params | {"optim.weight_decay": 1e-2, "learner.projector.kind": "mlp"}
    for params in (
        {"optim.learning_rate": 2e-3, "learner.depth": 2, "learner.projector.hidden": 8},
        {"optim.learning_rate": 1e30, "learner.depth": 1, "learner.projector.hidden": 8},
        {"optim.learning_rate": 1e-7, "learner.depth": 3, "learner.projector.hidden": 4},
        {"optim.learning_rate": 1e-3, "learner.depth": 3, "learner.projector.hidden": 4},
    )
]


def of_unequal(folder: Path, **changes) -> Options:
    """A study of UNEQUAL, three at once."""
    config = small.config(
        learner=MaPLe(depth=1, num_context=2, words=None),
        train=Train(epochs=4, batch_size=4, patience=2, min_delta=1e-3),
        optim=Optim(plateau_patience=1),
    )
    space = ("learning_rate=1e-7..1e30", "hidden=4,8")
    return options(folder, config, trials=4, parallel=3, space=space, **changes)


@pytest.fixture(scope="module")
def unequal(quick_compilation, tmp_path_factory) -> Path:
    """The folder of a study of UNEQUAL."""
    folder = tmp_path_factory.mktemp("unequal")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Sampler, "start_up", UNEQUAL)
        patch.setattr(sharding, "num_cores", lambda: 1)  # all in one program
        before = step.train_step._cache_size()
        sweep.sweep(of_unequal(folder), QUIET)
        assert step.train_step._cache_size() == before + 1
    return folder / "s"


def test_in_a_program_for_each_core_trials_are_the_same_but_for_rounding(unequal, tmp_path, monkeypatch):
    """In two parts of two: one whose trials diverge, of which one is followed, and one that rests at the end."""
    fine, diverging, stopping, following = UNEQUAL
    busy, advance = [], parallel_loops.advance
    monkeypatch.setattr(
        parallel_loops, "advance", lambda setup, loops, *a: busy.append(len(loops)) or advance(setup, loops, *a)
    )
    monkeypatch.setattr(Sampler, "start_up", [diverging, diverging, stopping, fine, following])
    monkeypatch.setattr(sharding, "num_cores", lambda: 2)
    before = step.train_step._cache_size()
    sweep.sweep(dataclasses.replace(of_unequal(tmp_path), trials=5, parallel=4), QUIET)
    assert step.train_step._cache_size() == before + 1
    trials = [tmp_path / "s" / "trials" / f"{number:03d}" for number in range(5)]
    places = [json.loads((trial / "card.json").read_text())["program"] for trial in trials]
    assert [(place["trials"], place["slot"]) for place in places] == [(2, 0), (2, 1), (2, 0), (2, 1), (2, 0)]
    assert busy[0] == 2 and busy[-1] == 1  # parts that train
    for trial, number in ((2, 2), (3, 0), (4, 3)):
        check_same_run(unequal / "trials" / f"{number:03d}", trials[trial])
    for number in (2, 4):
        sweep.replay(Replay(study="s", trial=number, folder=str(tmp_path)), QUIET)
        alone = tmp_path / "s" / "replays" / trials[number].name
        assert small.metrics(trials[number]) == small.metrics(alone)
        assert (trials[number] / "prompts.safetensors").read_bytes() == (alone / "prompts.safetensors").read_bytes()


def test_each_trial_ends_in_its_own_way(unequal):
    rows = {int(row["trial"]): row for row in csv.DictReader((unequal / "trials.csv").read_text("utf-8").splitlines())}
    assert [rows[number]["state"] for number in range(4)] == ["complete", "fail", "complete", "complete"]
    assert [int(rows[number]["epochs"]) for number in (0, 2, 3)] == [4, 3, 4]
    assert not rows[1]["objective"] and float(rows[0]["objective"]) == float(rows[0]["val_dice"])
    configs = [load_learnt(unequal / "trials" / f"{number:03d}")[0] for number in range(4)]
    assert [config.train.order_skip for config in configs] == [0, 0, 0, int(rows[1]["epochs"])]
    summary = json.loads((unequal / "summary.json").read_text())
    assert summary["states"] == {"complete": 3, "fail": 1} and summary["trials"] == 4
    values = {number: float(rows[number]["objective"]) for number in (0, 2, 3)}
    assert summary["best"]["objective"] == max(values.values()) == values[summary["best"]["trial"]]
    assert set(summary["best"]["mean"]) == {"val", "test"} and "std" not in summary["best"]


@pytest.mark.parametrize("number", range(4))
def test_replayed_by_itself_a_trial_is_the_same_to_the_bit(unequal, tmp_path, monkeypatch, capsys, number):
    small.run(
        *(monkeypatch, sweep.main, "replay", "s", number),
        *("--folder", unequal.parent, "--workdir", tmp_path / "again"),
    )
    assert f"trial {number} again: the same to the bit" in capsys.readouterr().out
    trial = unequal / "trials" / f"{number:03d}"
    assert small.metrics(trial) == small.metrics(tmp_path / "again")
    assert (trial / "prompts.safetensors").read_bytes() == (tmp_path / "again" / "prompts.safetensors").read_bytes()
    cards = [load_learnt(folder)[2] for folder in (trial, tmp_path / "again")]
    for name in ("best_epoch", "program", "data", "model_sha256"):
        assert cards[0][name] == cards[1][name]


def edited(unequal: Path, tmp_path: Path, **changes) -> Replay:
    """Trial 0 of a study, with another card, to be replayed in a folder of its own."""
    trial = tmp_path / "studies" / "s" / "trials" / "000"
    shutil.copytree(unequal / "trials" / "000", trial)
    card = json.loads((trial / "card.json").read_text())
    for path, value in changes.items():
        *parents, name = path.split("__")
        functools.reduce(dict.__getitem__, parents, card)[name] = value
    (trial / "card.json").write_text(json.dumps(card))
    return Replay(study="s", trial=0, folder=str(tmp_path / "studies"), workdir=str(tmp_path / "again"))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"program": 3}, "card.json, program: the top has no 'class'"),
        ({"program__slot": "first"}, "card.json, program: slot is 'first', not int"),
        ({"program__slot": 3}, "program: slot can't be 3, of 3 trials"),
        ({"program__devices": [2, 1]}, r"program: devices can't be \[2, 1\], for 3 trials"),
        ({"program__learner__projector__hiden": 4}, "Projector has no field 'hiden'; did you mean 'hidden'"),
        ({"program__learner__projector__hidden": [4]}, "program: its learner has no room for the trial's"),
        ({"program__learner": schema.to_json(COOP)}, "program: its learner has no room for the trial's"),
        ({"config__train__batch_size": 0}, "train.batch_size can't be 0"),
        ({"model_sha256": "of another"}, "not the model"),
        ({"data": None}, "card.json: data is None, not the fingerprint of each split"),
        ({"data__val": "of others"}, "the val records of scenes/photo are not those"),
    ],
)
def test_a_replay_that_cant_be_is_one_line_and_no_folder(unequal, tmp_path, changes, says):
    with pytest.raises(UserError, match=says):
        sweep.replay(edited(unequal, tmp_path, **changes), QUIET)
    assert not (tmp_path / "again").exists()


def test_a_replay_by_train_needs_a_score_to_compare_with(unequal, tmp_path):
    asked = edited(unequal, tmp_path, scores__tuned={})
    with pytest.raises(UserError, match=r"card\.json: its scores lack the validation Dice"):
        sweep.replay(dataclasses.replace(asked, as_train=True), QUIET)
    assert not (tmp_path / "again").exists()


def test_a_replay_is_not_tried_with_fewer_slots(unequal, tmp_path, monkeypatch):
    monkeypatch.setattr(memory_fit, "free_bytes", lambda setup: 1000)
    with pytest.raises(UserError, match="has 3 slots, too many for this memory; give --as-train"):
        sweep.replay(edited(unequal, tmp_path), QUIET)
    assert not (tmp_path / "again").exists()


@pytest.mark.slow
def test_a_replay_takes_the_devices_that_there_are(unequal, tmp_path):
    """Three slots on two devices, of which the study had three."""
    asked = edited(unequal, tmp_path, program__devices=[3, 1])
    command = ("-m", "tunevlseg_jax.sweep", "replay", "s", 0, "--folder", asked.folder, "--workdir", asked.workdir)
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    status, out, err = small.finish(small.start(*command, **flags))
    assert (status, err) == (0, "") and "trial 0 again: " in out
    check_same_run(unequal / "trials" / "000", tmp_path / "again")


@pytest.mark.parametrize("number", [0, 2, 3])
def test_trained_by_train_a_trial_gives_the_same_but_for_rounding(unequal, tmp_path, number):
    asked = Replay(study="s", trial=number, folder=str(unequal.parent), workdir=str(tmp_path / "alone"), as_train=True)
    sweep.replay(asked, QUIET)
    check_same_run(unequal / "trials" / f"{number:03d}", tmp_path / "alone")


def test_a_trial_that_diverged_keeps_its_curve(unequal):
    last = curve(unequal / "trials" / "001")[-1]
    assert not np.isfinite([last["train"]["loss"], last["val"]["loss"]]).all()


def test_a_report_takes_the_trials_that_ended_well(unequal):
    found, skipped = runs.gather(unequal)
    assert [(run.folder.name, run.role, run.study) for run in found] == [
        (f"{number:03d}", "trial", unequal) for number in (0, 2, 3)
    ]
    (left,) = skipped
    assert left.path == unequal / "trials" / "001" and "failed trial" in left.reason


def test_a_trials_folder_is_a_run_folder(unequal, monkeypatch, capsys):
    small.run(monkeypatch, evaluate.main, "--run", unequal / "trials" / "000", "--split", "val")
    row = curve(unequal / "trials" / "000")
    assert f"{max(line['val']['dice'] for line in row):.4f}" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("learner", "space"),
    [
        (CoOp(words=None), ()),
        (CoCoOp(words=None), ("hidden=8,16", "projector.kind=mlp")),
        (VPT(), ()),
        (MaPLe(words=None), ("hidden=8,16", "kind=low_rank")),
        (SharedSeparate(), ("width=8,16",)),
        (SharedAttention(), ("heads=4", "hidden=32,48", "norm_first=true")),
    ],
    ids=lambda value: type(value).__name__,
)
def test_neighbours_change_nothing(quick_compilation, tmp_path, monkeypatch, learner, space):
    """To the bit: beside two that are well, and beside one that diverges and one of another depth and width."""
    monkeypatch.setattr(sharding, "num_cores", lambda: 1)  # all in one program
    config = small.config(learner=learner, train=Train(epochs=3, batch_size=4))
    space = (*space, "depth=1..2", "learning_rate=1e-4..1e30")
    searched = trial_config.space(config, build_experiment(trial_config.shallow(config)), space)
    low, high = ({name: trial_config._ends(values)[end] for name, values in searched.items()} for end in (0, -1))
    calm = {name: {"optim.learning_rate": 1e-3}.get(name, value) for name, value in high.items()}
    beside = {"calm": [calm, calm], "wild": [high, low]}
    for name, neighbours in beside.items():
        monkeypatch.setattr(Sampler, "start_up", [low, *neighbours])
        sweep.sweep(options(tmp_path / name, config, parallel=3, space=space), QUIET)
    one, other = (tmp_path / name / "s" / "trials" / "000" for name in beside)
    assert small.metrics(one) == small.metrics(other)
    assert (one / "prompts.safetensors").read_bytes() == (other / "prompts.safetensors").read_bytes()
    lost = curve(tmp_path / "wild" / "s" / "trials" / "001")[-1]
    assert not np.isfinite([lost["train"]["loss"], lost["val"]["loss"]]).all()


def three_trials(folder: str, learner: str, space: Sequence[str]) -> Options:
    """A study of the embedded model: three trials at once, three epochs, rates as in the paper."""
    config = Config(
        learner=run_sweep.BY_NAME[learner](),
        upsampling="blend",
        data=Data(name="scenes/photo", scenes=Scenes(train=32, val=16, test=8)),
        train=Train(epochs=3, batch_size=16),
    )
    return options(Path(folder), config, parallel=3, space=space)


EVERY_LEARNER = pytest.mark.parametrize(
    ("learner", "space"),
    [
        ("coop", ()),
        ("cocoop", ("hidden=8,16", "projector.kind=mlp")),
        ("vpt", ()),
        ("maple", ("hidden=8,16", "kind=low_rank")),
        ("sharedseparate", ("width=8,16",)),
        ("sharedattention", ("heads=4", "hidden=32,48", "norm_first=true")),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)


@pytest.mark.slow
@EVERY_LEARNER
def test_together_is_alone_for_every_learner(tmp_path, monkeypatch, learner, space):
    """To the bit, with nobody in the other slots."""
    monkeypatch.setattr(sharding, "num_cores", lambda: 1)  # all in one program
    sweep.sweep(three_trials(str(tmp_path), learner, space), QUIET)
    for number in range(3):
        sweep.replay(Replay(study="s", trial=number, folder=str(tmp_path)), QUIET)
        trial, alone = (tmp_path / "s" / part / f"{number:03d}" for part in ("trials", "replays"))
        assert small.metrics(trial) == small.metrics(alone)
        assert (trial / "prompts.safetensors").read_bytes() == (alone / "prompts.safetensors").read_bytes()


@pytest.mark.slow
@EVERY_LEARNER
def test_together_is_train_for_every_learner(tmp_path, learner, space):
    """In float64, where the rounding that tells another program apart is too small for Adam to make steps of."""
    script = small.ROOT / "tests" / "float64_sweep.py"
    status, _, err = small.finish(small.start(script, tmp_path, learner, *space), seconds=600)
    assert status == 0, err
    for number in range(3):
        trial, alone = tmp_path / "s" / "trials" / f"{number:03d}", tmp_path / "s" / "replays" / f"{number:03d}-train"
        _, learnt, card = load_learnt(trial)
        assert {array.dtype for array in learnt.values()} == {np.dtype(np.float64)} and card["program"]["trials"] == 3
        check_same_run(trial, alone, 1e-6)


def test_it_tells_how_many_trials_run(tmp_path, monkeypatch):
    counted = []

    def update(view, name, ledger):
        counted.append(Counter(trial.state.name for trial in ledger.trials()))

    monkeypatch.setattr(SweepDisplay, "update", update)
    config = small.config(learner=COOP, train=Train(epochs=1, batch_size=4))
    sweep.sweep(options(tmp_path, config, trials=3, parallel=2), QUIET)
    assert {"RUNNING": 2} in counted and {"COMPLETE": 2, "RUNNING": 1} in counted and counted[-1] == {"COMPLETE": 3}


def test_seeds_repeat_the_best_trial(unequal, tmp_path):
    config = small.config(learner=COOP, train=Train(epochs=1, batch_size=4))
    (summary,) = sweep.sweep(options(tmp_path, config, trials=1, seeds=2), QUIET)
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


def test_a_trial_that_joined_late_is_repeated_in_its_own_order(unequal, tmp_path):
    """With another seed, which then is the same configuration to a report, and with another field."""
    folder = tmp_path / "s"
    shutil.copytree(unequal, folder)
    asked = of_unequal(tmp_path)
    table = SweepDisplay(QUIET, ["s"], 4)
    with session.opened(asked, "s", folder, asked.config, Resources(asked.config, 3), table) as sweeper:
        first, second = repeats.repeat(sweeper, 3, 2).values()
        trial, other = (load_learnt(run)[0] for run in (first, second))
        assert trial.train.order_skip > 0 and (trial.train.seed, other.train.seed) == (0, 1)
        fewer = Ablation(name="fewer", field="train.epochs", value=2).of(trial)
        repeats.train(sweeper, {tmp_path / "fewer": fewer})
    assert cells.configuration(trial) == cells.configuration(other)
    assert dataclasses.replace(load_learnt(tmp_path / "fewer")[0], workdir="") == dataclasses.replace(
        trial, train=dataclasses.replace(trial.train, epochs=2), workdir=""
    )
    losses = [[line["train"]["loss"] for line in curve(run)] for run in (first, tmp_path / "fewer")]
    assert_allclose(losses[1], losses[0][:2], rtol=1e-4)


CHANGES = {
    **{"learner.words": "a photo", "learner.num_context": 3, "learner.depth": 2, "upsampling": "none"},
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
    runs = {tmp_path / one.name: one.of(trial) for one in ablations}
    same = tmp_path / "same"
    table = SweepDisplay(QUIET, ["s"], 3)
    with session.opened(asked, "s", tmp_path / "s", config, Resources(config), table) as sweeper:
        repeats.train(sweeper, {same: trial} | runs)
    for folder in runs:
        assert small.metrics(folder) != small.metrics(same), folder.name


@pytest.mark.parametrize("elsewhere", [0, 1, 2, 3])
def test_trials_whose_folders_another_machine_keeps(unequal, tmp_path, elsewhere):
    """The others are tested, and the summaries written."""
    shutil.copytree(unequal, tmp_path / "s")
    shutil.rmtree(tmp_path / "s" / "trials" / f"{elsewhere:03d}")
    (summary,) = sweep.sweep(of_unequal(tmp_path, test_all=True), QUIET)
    assert summary == json.loads((tmp_path / "s" / "summary.json").read_text()) and summary["trials"] == 4
    assert len(summary["best"]["runs"]) == (summary["best"]["trial"] != elsewhere)
    for number in {0, 2, 3} - {elsewhere}:
        assert "test" in load_learnt(tmp_path / "s" / "trials" / f"{number:03d}")[2]["scores"]["tuned"]


def test_parallel_beyond_memory_is_refused_and_auto_takes_fewer(tmp_path, monkeypatch):
    resources = Resources(small.config(learner=COOP))
    experiment = resources.experiment(small.config(learner=COOP))
    setup = resources.setup(experiment.config, experiment)
    need = {size: memory_fit.bytes_needed(experiment, setup, size) for size in (1, 3)}
    assert need[1] < need[3] < 3 * need[1] + 2**20
    monkeypatch.setattr(memory_fit, "free_bytes", lambda setup: int(need[1] / memory_fit.SHARE) + 1)
    assert memory_fit.max_parallel_trials(experiment, setup, 3, automatic=True) == 1
    with pytest.raises(UserError, match=r"3 trials at once take .* GiB of memory, and .*--parallel auto finds out"):
        memory_fit.max_parallel_trials(experiment, setup, 3, automatic=False)
    monkeypatch.setattr(memory_fit, "free_bytes", lambda setup: 1000)
    with pytest.raises(UserError, match="not even one trial fits"):
        memory_fit.max_parallel_trials(experiment, setup, 3, automatic=True)


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
config = small.config(learner=CoOp(depth=1, num_context=2, words=None))
shared = Resources(config, 4)
made = shared.experiment(config)
fit = shared.fit(config, made)
for size in (4, 2):
    need = memory_fit.bytes_needed(made, fit, size)
    memory_fit.free_bytes = lambda fit: int(need / memory_fit.SHARE) - 1
    try:
        print("fits:", memory_fit.max_parallel_trials(made, fit, 4, automatic=True))
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
    resources = Resources(config)
    experiment = resources.experiment(config)
    setup = resources.setup(config, experiment)
    held = []

    def free_bytes(setup: TrainSetup) -> int:
        held.extend(array.shape for array in jax.live_arrays())
        return 2**40

    monkeypatch.setattr(memory_fit, "free_bytes", free_bytes)
    assert memory_fit.max_parallel_trials(experiment, setup, 1, automatic=True) == 1
    assert {split.records.compact().images.shape for split in (setup.train, setup.val)} <= set(held)


def test_one_program_at_a_time_holds_memory(tmp_path, monkeypatch):
    """Whoever still holds the slots of another, and however often programs take turns."""
    config = small.config(learner=MaPLe(depth=1, num_context=2, words=None))
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
    view = SweepDisplay(QUIET, ["s"], 3)
    with session.opened(asked, "s", tmp_path / "s", config, Resources(config), view) as sweeper:
        for trial, number in zip((*trials, *trials), (7, 7, 5, 5), strict=True):
            kept.append(sweeper.slots(sweeper.program(trial), number))
            assert kept[-1].size == 7 and of_seven() > 0  # compiled before: 5 would be compiled anew
            assert sweeper.slots(sweeper.program(trial), 4) is kept[-1]
    assert held == [0] * 4


SWEEP = """
import sys
import small
from rich.console import Console
from tunevlseg_jax import (config, sweep)
from tunevlseg_jax.training import step
made = config.load(sys.argv[1])
sweep.sweep(sweep.Options(study="s", trials=12, parallel=5, folder=sys.argv[2], config=made), Console(width=200))
print("programs:", step.train_step._cache_size())
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
    told = [small.finish(worker, 600) for worker in workers]
    assert [(status, err) for status, _, err in told] == [(0, "")] * 2
    after = {trial.number: (trial.params, trial.value, trial.datetime_complete) for trial in ended(tmp_path)}
    assert list(after) == list(range(12)) and after.items() >= before.items()
    ledger_space = trial_config.space(
        config_of(tmp_path), build_experiment(trial_config.shallow(config_of(tmp_path))), ()
    )
    start_up = Sampler(ledger_space, 0).start_up
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
def test_every_learner_on_two_sets_in_one_call(tmp_path):
    config = small.write_config(tmp_path / "config.py", small.config(train=Train(epochs=1, batch_size=4)))
    asked = ("--study", "s", "--folder", tmp_path, "--learners", "all", "--data.name", "scenes/photo,scenes/xray")
    command = ("-m", "tunevlseg_jax.sweep", "--config", config, *asked, "--trials", 2)
    status, out, err = small.finish(small.start(*command, "--space", "depth=1..2"), 600)
    assert (status, err) == (0, "")
    summaries = [json.loads(path.read_text()) for path in (tmp_path / "s").glob("*/summary.json")]
    assert len(summaries) == 2 * len(LEARNERS)
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


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("--trials 1", "study"),
        ("--study s --trials 0", "trials can't be 0"),
        ("--study s --parallel 0", "parallel can't be 0"),
        ("--study s --parallel many", "many"),
        ("--study s --seeds 0", "seeds can't be 0"),
        ("--study ../s", "study can't be '../s'"),
        ("--study s --learners coop,vtp", "no learner 'vtp'; did you mean 'vpt'"),
        ("--study s --pruner medain", "medain.*median"),
        ("--study s --space depht=1..2", "no parameter 'depht'; did you mean 'depth'"),
        ("--study s --space depth=2..1", "learner.depth: 2..1 is empty"),
        ("--study s --learners coop,maple --space hidden=8", "space of CoOp has no parameter 'hidden'"),
        ("--study s --learners maple,coop --space hidden=8", "space of CoOp has no parameter 'hidden'"),
        ("--study s --space num_context=21", "fit beside the learnt context"),
        ("--study s --trails 3", "--trails.*did you mean --trials"),
        ("--study s --storage nowhere", "the study's storage nowhere can't be used"),
        ("--study s --data.name scenes/photo,scenes/xry", "'scenes/xry'; did you mean 'scenes/xray'"),
        ("replay nothing 3", "keeps no trial 3; there is no finished trial"),
    ],
)
def test_mistakes_are_one_line(tmp_path, monkeypatch, capsys, arguments, says):
    config = small.write_config(tmp_path / "config.py", small.config(learner=COOP))
    given = arguments.split() if arguments.startswith("replay") else ["--config", config, *arguments.split()]
    with pytest.raises(SystemExit) as stop:
        small.run(monkeypatch, sweep.main, *given, "--folder", tmp_path / "studies")
    err = capsys.readouterr().err
    assert stop.value.code == 2 and err.startswith("error: ") and err.count("\n") == 1, err
    assert re.search(says, err), err


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--optim.plateau-patience", "3"), "optim.plateau_patience was 1 and is now 3"),
        (("--space", "learning_rate=1e-3..1e-2"), "space.optim.learning_rate.* was .*1e-07.* and is now .*0.001"),
        (("--objective", "loss"), "objective was dice and is now loss"),
        (("--sampler-seed", "1"), "sampler_seed was 0 and is now 1"),
        (("--data.scenes.train", "9"), "data.scenes.train was 10 and is now 9"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_a_study_of_another_configuration_is_refused(unequal, capsys, monkeypatch, tmp_path, options, says):
    asked = of_unequal(tmp_path)
    path = small.write_config(tmp_path / "config.py", asked.config)
    given = options if options[0] == "--space" else ("--space", *asked.space, *options)
    with pytest.raises(SystemExit):
        small.run(monkeypatch, sweep.main, "--config", path, "--study", "s", "--folder", unequal.parent, *given)
    err = capsys.readouterr().err
    assert "'s' is of another configuration" in err and re.search(says, err), err


def test_sets_and_learners_have_a_study_each(tmp_path, monkeypatch):
    config = small.config(learner=COOP, data=Data(name="scenes/photo, scenes/xray"))
    told = run_sweep.studies(options(tmp_path, config, learners="all"), Resources(config))
    assert len(told) == 12 and list(told)[:2] == ["s/scenes-photo.coop", "s/scenes-photo.cocoop"]
    assert told["s/scenes-xray.coop"].learner == COOP and told["s/scenes-xray.coop"].data.name == "scenes/xray"
    assert told["s/scenes-xray.maple"].learner == MaPLe()


REAL = CLIPSegConfig()


@cache
def flops(learner: Learner, trials: int) -> float:
    """Of a step of CLIPSeg at its real size, 352 pixels, on four images of one class, with exact augmentation."""
    net = Network(REAL, learner, "blend")
    shape = jax.ShapeDtypeStruct
    weights = {path: shape(dims, jnp.float32) for path, dims in weight_shapes(REAL).items()}
    towers = REAL.towers(lambda phrase: jnp.zeros((0, 0)))
    params = jax.eval_shape(lambda key, given: net.init(key, given, towers), jax.random.key(0), weights)
    trainable, frozen = split(params, "prompts")
    trainable = {path: shape((trials, *array.shape), array.dtype) for path, array in trainable.items()}
    types = (jnp.float32, jnp.float32, jnp.int32, jnp.float32, jnp.uint32)
    state = jax.eval_shape(step.init, trainable, Hyperparameters(*(shape((trials,), kind) for kind in types)))
    one = shape((4,), jnp.uint8)
    source = Source(
        shape((4, 352, 352, 3), jnp.uint8),
        shape((4, 352, 352), jnp.uint8),
        Rows(None, None, one, one, shape((4,), jnp.int32), shape((4,), jnp.float32)),
        draw=shape((2,), jnp.uint32),
    )
    program = step.train_step.lower(
        state, frozen, source, shape((1, 73), jnp.int32), network=net, schedule=Schedule(0, 0)
    )
    costs = program.cost_analysis()
    assert costs is not None
    return costs["flops"]


@pytest.mark.slow
def test_textual_trials_share_the_vision_pass():
    """Sixteen trials of CoOp cost at most a sixth of sixteen steps, even with prompts as long as the tower takes."""
    learner = CoOp(depth=11, words=None)
    assert flops(learner, 16) <= 16 * flops(learner, 1) / 6


@pytest.mark.slow
def test_visual_trials_cost_no_more_than_one_after_the_other():
    learner = VPT(depth=11)
    assert flops(learner, 8) <= 8 * flops(learner, 1)
