"""Tests of one study of four unequal trials: each ends in another way, and replays and repeats give the same trial."""

import contextlib
import csv
import dataclasses
import functools
import json
import shutil
from pathlib import Path

import compilation
import mistakes
import numpy as np
import pytest
import small
from numpy.testing import assert_allclose
from sweep_cases import COOP, QUIET, check_same_run, curve, options

from tunevlseg_jax import evaluate, sweep
from tunevlseg_jax.config import Optim, Train
from tunevlseg_jax.learners import MaPLe
from tunevlseg_jax.reporting import cells, runs
from tunevlseg_jax.runs.card import load_learnt
from tunevlseg_jax.runtime import schema, sharding
from tunevlseg_jax.search import memory_fit, repeats, run_sweep
from tunevlseg_jax.search.options import Replay
from tunevlseg_jax.search.resources import Resources
from tunevlseg_jax.search.sampler import Sampler
from tunevlseg_jax.search.summary import SweepDisplay
from tunevlseg_jax.search.worker import Worker
from tunevlseg_jax.studies.grid import Ablation
from tunevlseg_jax.sweep import Options
from tunevlseg_jax.training import parallel_loops

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("unequal")]  # they share one study
quick_compilation = small.quick_compilation


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
        learner=MaPLe(depth=1, num_context=2, init_phrase=None),
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
        with compilation.counted() as compiled:
            run_sweep.sweep(of_unequal(folder), QUIET)
        assert compiled["train_step"] == 1
    return folder / "s"


@pytest.mark.slow
def test_in_a_program_for_each_core_trials_are_the_same_but_for_rounding(unequal, tmp_path, monkeypatch):
    """In two parts of two: one whose trials diverge, of which one is followed, and one that rests at the end."""
    fine, diverging, stopping, following = UNEQUAL
    busy, train_epochs = [], parallel_loops.train_epochs
    monkeypatch.setattr(
        parallel_loops,
        "train_epochs",
        lambda setup, loops, *a: busy.append(len(loops)) or train_epochs(setup, loops, *a),
    )
    monkeypatch.setattr(Sampler, "start_up", [diverging, diverging, stopping, fine, following])
    monkeypatch.setattr(sharding, "num_cores", lambda: 2)
    with compilation.counted() as compiled:
        run_sweep.sweep(dataclasses.replace(of_unequal(tmp_path), trials=5, parallel=4), QUIET)
    assert compiled["train_step"] == 1
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


def test_each_trial_ends_in_another_way(unequal):
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
def test_a_replayed_trial_is_the_same_to_the_bit(unequal, tmp_path, monkeypatch, capsys, number):
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
    """Trial 0 of a study, with another card, to be replayed in a new folder."""
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
        ({"program": 3}, "missing-field: card.json, program: .*'class'"),
        ({"program__slot": "first"}, "wrong-type: card.json, program: slot .*int.*'first'"),
        ({"program__slot": 3}, "bad-card: slot .*0 .*2, .*3"),
        ({"program__devices": [2, 1]}, r"bad-card: devices .*3 trials.*\[2, 1\]"),
        ({"program__learner__projector__hiden": 4}, "unknown-field: Projector .*'hiden'.*'hidden'"),
        ({"program__learner__projector__hidden": [4]}, "bad-card: card.json, program: its learner"),
        ({"program__learner": schema.to_json(COOP)}, "bad-card: card.json, program: its learner"),
        ({"config__train__batch_size": 0}, "out-of-range: train.batch_size .*0"),
        ({"model_sha256": "of another"}, "model-changed"),
        ({"data": None}, "bad-card: card.json: data .*None"),
        ({"data__val": "of others"}, "data-changed: val .*scenes/photo"),
    ],
)
def test_an_invalid_replay_is_one_line_and_no_folder(unequal, tmp_path, changes, says):
    with mistakes.raises(says):
        sweep.replay(edited(unequal, tmp_path, **changes), QUIET)
    assert not (tmp_path / "again").exists()


def test_a_replay_by_train_needs_a_score_to_compare_with(unequal, tmp_path):
    asked = edited(unequal, tmp_path, scores__tuned={})
    with mistakes.raises(r"bad-card: card\.json: its scores"):
        sweep.replay(dataclasses.replace(asked, as_train=True), QUIET)
    assert not (tmp_path / "again").exists()


def test_a_replay_is_not_tried_with_fewer_slots(unequal, tmp_path, monkeypatch):
    monkeypatch.setattr(memory_fit, "free_bytes", lambda setup: 1000)
    with mistakes.raises("device-memory: 3 trials.*--as-train"):
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


@pytest.mark.parametrize("number", [2, 3])
def test_trained_by_train_a_trial_gives_the_same_but_for_rounding(unequal, tmp_path, number):
    asked = Replay(study="s", trial=number, folder=str(unequal.parent), workdir=str(tmp_path / "alone"), as_train=True)
    sweep.replay(asked, QUIET)
    check_same_run(unequal / "trials" / f"{number:03d}", tmp_path / "alone")


def test_a_trial_that_diverged_keeps_its_curve(unequal):
    last = curve(unequal / "trials" / "001")[-1]
    assert not np.isfinite([last["train"]["loss"], last["val"]["loss"]]).all()


def test_a_report_takes_the_trials_that_ended_well(unequal):
    gathered, skipped = runs.gather(unequal)
    assert [(run.folder.name, run.role, run.study) for run in gathered] == [
        (f"{number:03d}", "trial", unequal) for number in (0, 2, 3)
    ]
    (left,) = skipped
    assert left.path == unequal / "trials" / "001" and "failed trial" in left.reason


def test_a_trials_folder_is_a_run_folder(unequal, monkeypatch, capsys):
    small.run(monkeypatch, evaluate.main, "--run", unequal / "trials" / "000", "--split", "val")
    row = curve(unequal / "trials" / "000")
    assert f"{max(line['val']['dice'] for line in row):.4f}" in capsys.readouterr().out


def test_a_trial_that_joined_late_is_repeated_in_its_own_order(unequal, tmp_path):
    """With another seed, which then is the same configuration to a report, and with another field."""
    folder = tmp_path / "s"
    shutil.copytree(unequal, folder)
    asked = of_unequal(tmp_path)
    table = SweepDisplay(QUIET, ["s"], 4)
    with contextlib.closing(Worker(asked, "s", folder, asked.config, Resources(asked.config, 3), table)) as worker:
        first, second = repeats.repeat(worker, 3, 2).values()
        trial, other = (load_learnt(run)[0] for run in (first, second))
        assert trial.train.order_skip > 0 and (trial.train.seed, other.train.seed) == (0, 1)
        fewer = Ablation(name="fewer", field="train.epochs", value=2).of(trial)
        repeats.train(worker, {tmp_path / "fewer": fewer})
    assert cells.configuration(trial) == cells.configuration(other)
    assert dataclasses.replace(load_learnt(tmp_path / "fewer")[0], workdir="") == dataclasses.replace(
        trial, train=dataclasses.replace(trial.train, epochs=2), workdir=""
    )
    losses = [[line["train"]["loss"] for line in curve(run)] for run in (first, tmp_path / "fewer")]
    assert_allclose(losses[1], losses[0][:2], rtol=1e-4)


@pytest.mark.parametrize("kept", ["the best", "a failed one"])
def test_trials_whose_folders_another_machine_keeps(unequal, tmp_path, kept):
    """The others are tested, and the summaries written."""
    best = json.loads((unequal / "summary.json").read_text())["best"]["trial"]
    elsewhere = best if kept == "the best" else 1
    shutil.copytree(unequal, tmp_path / "s")
    shutil.rmtree(tmp_path / "s" / "trials" / f"{elsewhere:03d}")
    (summary,) = run_sweep.sweep(of_unequal(tmp_path, test_all=True), QUIET)
    assert summary == json.loads((tmp_path / "s" / "summary.json").read_text()) and summary["trials"] == 4
    assert len(summary["best"]["runs"]) == (summary["best"]["trial"] != elsewhere)
    for number in {0, 2, 3} - {elsewhere}:
        assert "test" in load_learnt(tmp_path / "s" / "trials" / f"{number:03d}")[2]["scores"]["tuned"]


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
    mistakes.check_line(err, f"other-config: 's' .*{says}")
