"""Tests of what counts as a run: whole folders do, and nothing that is cut, mixed up or another program's."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from pathlib import Path

import fake_runs
import mistakes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tunevlseg_jax.config import Train
from tunevlseg_jax.data.settings import Data
from tunevlseg_jax.learners import ZeroShot
from tunevlseg_jax.reporting import evaluations, runs

FILES = ("config.json", "metrics.jsonl", "results.json", "prompts.safetensors", "card.json")
EVALUATION = ("scenes_photo_test_model.json", "scenes_photo_test_model.csv")
ROWS = [fake_runs.sample(f"a/{row}", 3 * row, 40, 30) for row in range(5)] + [fake_runs.sample("empty", 0, 0, 0)]


@pytest.fixture
def whole(tmp_path) -> Path:
    """A folder with one run, tested and evaluated."""
    return write_run(tmp_path / "whole")


def write_run(root: Path) -> Path:
    mean = sum(row.dice for row in ROWS) / len(ROWS)
    run = fake_runs.run(root / "run", fake_runs.config(), test=mean)
    fake_runs.evaluation(run, "scenes/photo", ROWS)
    return root


def edit(path: Path, change) -> None:
    """Changes a JSON file; `change` changes the value, or is the new value."""
    value = json.loads(path.read_text("utf-8"))
    if callable(change):
        change(value)
    path.write_text(json.dumps(value if callable(change) else change), "utf-8")


def reason(root: Path) -> str:
    """Why nothing in this folder counts."""
    counting, skipped = runs.gather(root)
    assert not counting and len(skipped) == 1
    assert "\n" not in skipped[0].reason
    return skipped[0].reason


def test_a_whole_run(whole):
    (run,), skipped = runs.gather(whole)
    assert skipped == [] and run.folder == whole / "run" and (run.role, run.study) == ("run", None)
    assert run.config == dataclasses.replace(fake_runs.config(), workdir=str(run.folder))
    assert run.validation == run.scores["val"]["dice"] == 0.5 and [line["epoch"] for line in run.curve] == [1, 2]
    (evaluation,) = run.evaluations
    assert run.own_test is evaluation and evaluation.scores["dice"] == run.scores["test"]["dice"]
    assert (evaluation.data, evaluation.split, evaluation.resolution) == ("scenes/photo", "test", "model")
    dice = evaluations.read_dice(evaluation.samples)
    assert dice == pytest.approx({row.id: row.dice for row in ROWS}) and evaluation.records == len(ROWS)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(FILES), share=st.floats(0, 1))
def test_a_run_with_a_file_cut_anywhere_is_skipped(whole, name, share):
    path = whole / "run" / name
    content = path.read_bytes()
    kept = content[: min(int(share * len(content)), len(content) - 2)]  # without its last newline a file is whole
    try:
        path.write_bytes(kept)
        assert reason(whole)
    finally:
        path.write_bytes(content)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(EVALUATION), share=st.floats(0, 1))
def test_an_evaluation_with_a_file_cut_anywhere_is_skipped_and_the_run_is_not(whole, name, share):
    path = whole / "run" / "evaluations" / name
    content = path.read_bytes()
    kept = content[: min(int(share * len(content)), len(content) - (2 if name.endswith("json") else 1))]
    try:
        path.write_bytes(kept)
        (run,), (skipped,) = runs.gather(whole)
        assert run.evaluations == () and run.own_test is None
        assert skipped.path == whole / "run" / "evaluations" / EVALUATION[0] and skipped.reason
    finally:
        path.write_bytes(content)


@pytest.mark.parametrize("name", FILES)
def test_a_run_with_a_file_missing_is_skipped(whole, name):
    (whole / "run" / name).unlink()
    assert re.search(f"there is no {name}", reason(whole))


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_another_run_is_noticed(whole, tmp_path, name):
    """Another configuration, other scores, another curve; nothing in a file of tensors says which run it is from."""
    other = fake_runs.run(tmp_path / "other", fake_runs.config(train=Train(epochs=3)), (0.1, 0.3, 0.2), 0.4)
    shutil.copy(other / name, whole / "run" / name)
    if name == "prompts.safetensors":
        assert len(runs.gather(whole)[0]) == 1
    else:
        assert reason(whole)


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("config.json", [1], "wrong-json"),
        ("config.json", {"model_type": "clipseg"}, "not-a-run: config.json"),
        ("config.json", lambda value: value["optim"].pop("learning_rate"), "missing-field: Optim .*learning_rate"),
        ("config.json", lambda value: value.update(colour="red"), "unknown-field: 'colour'"),
        ("config.json", lambda value: value["learner"].update({"class": []}), "unknown-type"),
        ("config.json", lambda value: value["optim"].update(learning_rate=-1.0), "out-of-range: learning_rate .*-1"),
        ("config.json", lambda value: value["learner"].update(depth=1), "bad-card: config.json"),
        ("card.json", {"name": "another program's"}, "bad-card"),
        ("card.json", lambda value: value.update(model_sha256=""), "bad-card: hash"),
        ("card.json", lambda value: value.pop("model_sha256"), "bad-card: hash"),
        ("card.json", lambda value: value["data"].pop("train"), "bad-card: fingerprint"),
        ("card.json", lambda value: value["data"].pop("test"), "bad-card: fingerprint"),
        ("card.json", lambda value: value["data"].update(val="unknown"), "bad-card: fingerprint"),
        ("card.json", lambda value: value["data"].update(name="scenes/xray"), "bad-card: fingerprint"),
        ("card.json", lambda value: value["protocol"].update(image_size="64"), "bad-card: image size"),
        ("card.json", lambda value: value["scores"].pop("tuned"), "bad-card: validation"),
        ("card.json", lambda value: value["scores"]["tuned"].pop("val"), "bad-card: validation"),
        (
            "card.json",
            lambda value: value["scores"]["tuned"]["val"].update(dice=float("nan")),
            "bad-card: val dice .*nan",
        ),
        ("card.json", lambda value: value["scores"]["tuned"]["test"].update(iou=1.5), "bad-card: test iou .*1.5"),
        (
            "card.json",
            lambda value: value["scores"]["tuned"]["test"].update(loss=float("inf")),
            "bad-card: test loss .*inf",
        ),
        ("card.json", lambda value: value["scores"]["tuned"]["test"].pop("dice"), "bad-card: test dice .*None"),
        ("card.json", lambda value: value["scores"]["tuned"]["test"].update(dice=0.9), "scores-disagree: results.json"),
        ("card.json", lambda value: value.update(best_epoch=1), "scores-disagree: 2, .*1 "),
        ("results.json", lambda value: value["tuned"]["test"].update(dice=0.9), "scores-disagree: results.json"),
    ],
)
def test_a_run_without_a_needed_value_is_skipped(whole, name, change, says):
    edit(whole / "run" / name, change)
    mistakes.check_line(reason(whole), says)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda lines: lines[:1], "cut-off: metrics.jsonl .*1, "),
        (lambda lines: [], "cut-off: metrics.jsonl .*0, "),
        (lambda lines: lines[1:], "bad-metrics: line 1 "),
        (lambda lines: [*lines, lines[1]], "bad-metrics: line 3 "),
        (lambda lines: [lines[0], "[1]"], "cut-off: metrics.jsonl"),
        (lambda lines: [lines[0], re.sub(r'"loss": [\d.]+', '"loss": NaN', lines[1])], "not-finite: 2"),
    ],
)
def test_a_run_with_an_incomplete_curve_is_skipped(whole, change, says):
    path = whole / "run" / "metrics.jsonl"
    path.write_text("".join(f"{line}\n" for line in change(path.read_text("utf-8").splitlines())), "utf-8")
    mistakes.check_line(reason(whole), says)


def test_a_run_that_stopped_early_is_whole(tmp_path):
    config = fake_runs.config(train=Train(epochs=9, patience=2))
    fake_runs.run(tmp_path / "early", config, (0.5, 0.4, 0.3))
    cut = fake_runs.run(tmp_path / "cut", config, (0.5, 0.4, 0.3)) / "metrics.jsonl"
    cut.write_text("".join(cut.read_text("utf-8").splitlines(keepends=True)[:2]), "utf-8")
    (run,), (skipped,) = runs.gather(tmp_path)
    assert run.folder.name == "early" and run.validation == 0.5
    assert skipped.path.name == "cut"
    mistakes.check_line(skipped.reason, "cut-off: metrics.jsonl .*2, ")


def test_a_curve_whose_card_has_no_number_of_epochs_is_read(whole):
    """As in version 0.1.0; the best epoch must be among those that there are."""
    edit(whole / "run" / "card.json", lambda value: value.pop("epochs"))
    assert [len(run.curve) for run in runs.gather(whole)[0]] == [2]
    metrics = whole / "run" / "metrics.jsonl"
    first, _ = metrics.read_text("utf-8").splitlines(keepends=True)
    metrics.write_text(first, "utf-8")
    mistakes.check_line(reason(whole), "scores-disagree: 1, .*2 ")


def test_a_zero_shot_run_learnt_nothing(tmp_path):
    config = fake_runs.config(learner=ZeroShot(), upsampling="none")
    folder = fake_runs.run(tmp_path / "run", config, (0.4,), 0.3)
    (run,), skipped = runs.gather(tmp_path)
    assert run.zero_shot and run.curve == [] and run.validation == 0.4 and not skipped
    (folder / "metrics.jsonl").unlink()
    assert len(runs.gather(tmp_path)[0]) == 1
    fake_runs.run(folder, config, (0.4,), 0.3, learnt={"learner/context": np.zeros(3)})
    mistakes.check_line(reason(tmp_path), "bad-learnt: 1 .*none")
    fake_runs.run(folder, fake_runs.config(), learnt={})
    mistakes.check_line(reason(tmp_path), "bad-learnt: 0 .*some")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda value: value.update(samples_sha256="0" * 64), "bad-evaluation: written with"),
        (lambda value: value["scores"].update(dice=None), "bad-evaluation: dice .*None"),
        (lambda value: value["scores"].update(hd95_both_nonempty="3"), "bad-evaluation: hd95_both_nonempty .*3"),
        (lambda value: value["scores"].pop("hd95_both_nonempty"), "bad-evaluation: hd95_both_nonempty .*None"),
        (lambda value: value["scores"].update(iou=float("nan")), "bad-evaluation: iou .*nan"),
        (lambda value: value["scores"].pop("sample_iou"), "bad-evaluation: sample_iou .*None"),
        (lambda value: value.pop("data_sha256"), "bad-evaluation: fingerprint"),
        (lambda value: value.update(threshold=0.4), "bad-evaluation: threshold 0.4"),
        ({"dice": 0.9}, "bad-evaluation"),
        ([], "wrong-json"),
    ],
)
def test_an_evaluation_without_a_needed_value_is_skipped(whole, change, says):
    edit(whole / "run" / "evaluations" / EVALUATION[0], change)
    (run,), (skipped,) = runs.gather(whole)
    assert run.evaluations == ()
    mistakes.check_line(skipped.reason, says)


def test_records_that_have_changed_are_noticed(whole):
    path = whole / "run" / "evaluations" / EVALUATION[1]
    path.write_bytes(path.read_bytes().replace(b"0.17142857", b"0.17142858", 1))
    (run,), (skipped,) = runs.gather(whole)
    assert run.evaluations == ()
    mistakes.check_line(skipped.reason, f"bad-evaluation: {path.name}")


def as_in_version_0_1_0(value: dict) -> None:
    """Removes what an evaluation's JSON has had since."""
    for name in ("resolution", "every_class", "samples_sha256"):
        del value[name]


@pytest.mark.parametrize("resolution", ["model", "original"])
def test_an_evaluation_of_version_0_1_0(tmp_path, resolution):
    run = fake_runs.run(tmp_path / "run", fake_runs.config())
    path = fake_runs.evaluation(run, "scenes/photo", ROWS, resolution=resolution)
    (before,), _ = runs.gather(tmp_path)
    edit(path, as_in_version_0_1_0)
    assert runs.gather(tmp_path) == ([before], []) and before.evaluations[0].resolution == resolution


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda value: value.update(records=7), "bad-evaluation: 6 .*7"),
        (lambda value: value.update(data="scenes/xray"), "bad-evaluation: scenes/xray"),
    ],
)
def test_an_evaluation_of_version_0_1_0_with_other_records_is_skipped(whole, change, says):
    path = whole / "run" / "evaluations" / EVALUATION[0]
    edit(path, as_in_version_0_1_0)
    edit(path, change)
    (run,), (skipped,) = runs.gather(whole)
    assert run.evaluations == ()
    mistakes.check_line(skipped.reason, says)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("a/2,", "a/1,", "bad-evaluation: 5 .*6"),
        ("a/2,one,one,0.17142857", "a/2,one,one,nan", "bad-evaluation: Dice"),
        ("a/2,one,one,0.17142857", "a/2,one,one,much", "unreadable: 'much'"),
        ("a/2,one", "a/2", "bad-evaluation: row"),
        ("id,label", "name,label", "bad-evaluation: columns"),
        ("a/2,one,one", 'a/2,"one,one', "unreadable: scenes_photo_test_model.csv"),
    ],
)
def test_broken_records_of_version_0_1_0_are_skipped(whole, old, new, says):
    folder = whole / "run" / "evaluations"
    edit(folder / EVALUATION[0], as_in_version_0_1_0)
    text = (folder / EVALUATION[1]).read_bytes().decode()
    assert old in text
    (folder / EVALUATION[1]).write_bytes(text.replace(old, new, 1).encode())
    (run,), (skipped,) = runs.gather(whole)
    assert run.evaluations == ()
    mistakes.check_line(skipped.reason, says)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 1))
def test_records_of_version_0_1_0_cut_anywhere_are_skipped(whole, share):
    folder = whole / "run" / "evaluations"
    content = [(folder / name).read_bytes() for name in EVALUATION]
    try:
        edit(folder / EVALUATION[0], as_in_version_0_1_0)
        (folder / EVALUATION[1]).write_bytes(content[1][: min(int(share * len(content[1])), len(content[1]) - 1)])
        (run,), (skipped,) = runs.gather(whole)
        assert run.evaluations == () and skipped.reason
    finally:
        for name, before in zip(EVALUATION, content, strict=True):
            (folder / name).write_bytes(before)


def test_an_evaluation_of_other_weights_is_skipped(tmp_path):
    run = fake_runs.run(tmp_path / "run", fake_runs.config(), test=0.6)
    fake_runs.evaluation(run, "scenes/photo", fake_runs.records(0.4))
    (stored,), (skipped,) = runs.gather(tmp_path)
    assert stored.own_test is None
    mistakes.check_line(skipped.reason, "scores-disagree: 0.4000, .*0.6000")


def test_the_evaluation_of_the_own_test_records(tmp_path):
    run = fake_runs.run(tmp_path / "run", fake_runs.config(), test=0.6)
    fake_runs.evaluation(run, "scenes/photo", fake_runs.records(0.6), split="val")
    fake_runs.evaluation(run, "scenes/photo", fake_runs.records(0.6), resolution="original")
    fake_runs.evaluation(run, "scenes/xray", fake_runs.records(0.2))
    (stored,), skipped = runs.gather(tmp_path)
    assert len(stored.evaluations) == 3 and stored.own_test is None and not skipped
    path = fake_runs.evaluation(run, "scenes/photo", fake_runs.records(0.6), sha=fake_runs.sha256("other records"))
    assert runs.gather(tmp_path)[0][0].own_test is None
    path.unlink()
    fake_runs.evaluation(run, "scenes/photo", fake_runs.records(0.6))
    assert runs.gather(tmp_path)[0][0].own_test is not None


def test_trials_seeds_and_replays(tmp_path):
    study = fake_runs.study(tmp_path / "studies" / "s", ["complete", "pruned", "fail", "complete"])
    for number in range(5):
        fake_runs.run(study / "trials" / f"{number:03d}", fake_runs.config(train=Train(epochs=2, seed=number)))
    fake_runs.run(study / "seeds" / "000-1", fake_runs.config())
    fake_runs.run(study / "replays" / "000", fake_runs.config())
    fake_runs.run(tmp_path / "alone", fake_runs.config(data=Data(name="scenes/xray")))
    stored, skipped = runs.gather(tmp_path)
    assert [(run.folder.name, run.role, run.study) for run in stored] == [
        ("alone", "run", None),
        ("000-1", "seed", study),
        ("000", "trial", study),
        ("003", "trial", study),
    ]
    reasons = {each.path.name: each.reason for each in skipped}
    assert reasons.keys() == {"001", "002", "004"}
    for name, fact in (("001", "pruned"), ("002", "failed"), ("004", "list")):
        mistakes.check_line(reasons[name], f"trial-unfinished: {fact}")


@pytest.mark.parametrize("lost", ["trials.csv", "summary.json"])
def test_trials_of_a_search_that_goes_on_are_skipped(tmp_path, lost):
    study = fake_runs.study(tmp_path / "s", ["complete"])
    fake_runs.run(study / "trials" / "000", fake_runs.config())
    assert len(runs.gather(tmp_path)[0]) == 1
    (study / lost).unlink()
    mistakes.check_line(reason(tmp_path), "trial-unfinished")


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 1))
def test_trials_of_a_study_whose_list_is_cut_are_skipped(tmp_path, share):
    study = fake_runs.study(tmp_path / "s", ["complete", "pruned", "complete"])
    fake_runs.run(study / "trials" / "000", fake_runs.config())
    content = (study / "trials.csv").read_bytes()
    (study / "trials.csv").write_bytes(content[: min(int(share * len(content)), len(content) - 1)])
    mistakes.check_line(reason(tmp_path), "trial-unfinished: trials.csv")


def test_a_folder_that_trains_is_named_as_unfinished(whole):
    shutil.rmtree(whole / "run" / "evaluations")
    for name in FILES[2:]:
        (whole / "run" / name).unlink()
    mistakes.check_line(reason(whole), "run-unfinished: card.json")


def test_other_folders_are_no_runs(tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "readme.txt").write_text("nothing")
    fake_runs.run(tmp_path / ".run.half", fake_runs.config())
    assert runs.gather(tmp_path) == ([], [])
    with mistakes.raises(r"not-a-folder: nowhere"):
        runs.gather(tmp_path / "nowhere")
    with mistakes.raises(r"not-a-folder: readme.txt"):
        runs.gather(tmp_path / "notes" / "readme.txt")


def test_runs_may_lie_in_runs(whole):
    fake_runs.run(whole / "run" / "again", fake_runs.config())
    fake_runs.run(whole / "run" / "checkpoints" / "x", fake_runs.config())
    assert [run.folder.name for run in runs.gather(whole)[0]] == ["run", "again"]
