"""Tests of a run's data: a run goes on with the data that it began with, and scores on other data are marked."""

import dataclasses
import json
import shutil
from pathlib import Path

import fake_runs
import mistakes
import numpy as np
import pytest
import small

from tunevlseg_jax import api, evaluate, train
from tunevlseg_jax.data import registry
from tunevlseg_jax.data.settings import Data, Scenes
from tunevlseg_jax.evaluation.evaluate_run import stored_name
from tunevlseg_jax.reporting import runs
from tunevlseg_jax.run import load_run
from tunevlseg_jax.runs import provenance, run_folder
from tunevlseg_jax.runs.provenance import Provenance
from tunevlseg_jax.runtime import locks
from tunevlseg_jax.runtime.files import read_json, write_json

quick_compilation = small.quick_compilation

OLD = {"name": "mine", "train": "a", "val": "b", "test": "c"}
NEW = {"name": "mine", "train": "d", "val": "b", "test": "e"}


def test_a_run_goes_on_with_its_data(tmp_path):
    now = Provenance(OLD, images=("1", "2"))
    assert provenance.check(tmp_path, now, force=False) == now
    provenance.write(tmp_path, now)
    assert provenance.read(tmp_path) == now == provenance.check(tmp_path, now, force=False)
    changed = Provenance(NEW, images=("2", "3"))
    with mistakes.raises(f"data-changed: train and test records of mine have changed since {tmp_path}.*--workdir"):
        provenance.check(tmp_path, changed, force=False)
    forced = provenance.check(tmp_path, changed, force=True)
    assert forced == Provenance(NEW, (OLD,), ("1", "2", "3"))
    provenance.write(tmp_path, forced)
    assert provenance.check(tmp_path, changed, force=False) == forced == provenance.read(tmp_path)


def test_a_split_that_was_added_or_left_out_is_a_change(tmp_path):
    provenance.write(tmp_path, Provenance(OLD))
    without = {name: sha for name, sha in OLD.items() if name != "test"}
    with mistakes.raises("data-changed: the test records of mine have changed"):
        provenance.check(tmp_path, Provenance(without), force=False)


def test_a_run_of_an_earlier_version_has_its_data_in_its_card(tmp_path):
    assert provenance.read(tmp_path) is None
    write_json(tmp_path / "card.json", {"data": {}})
    assert provenance.read(tmp_path) is None  # as of a converted run
    write_json(tmp_path / "card.json", {"data": OLD})
    assert provenance.read(tmp_path) == Provenance(OLD)
    with mistakes.raises("data-changed: train and test"):
        provenance.check(tmp_path, Provenance(NEW), force=False)


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"data": {"train": 1}, "earlier": []}', '{"data": 3}'])
def test_broken_fingerprints(tmp_path, content):
    (tmp_path / "fingerprints.json").write_text(content)
    with pytest.raises(ValueError, match=r"fingerprints\.json"):
        provenance.read(tmp_path)


SCENES = Data(name="scenes/photo", scenes=Scenes(train=6, val=3, test=4))


def test_marks_of_a_score(tmp_path):
    """Of the data of the training, of changed data, of data that can't be compared, and of images that trained it."""
    train_records, test = (registry.load(SCENES, split, (24, 24)) for split in ("train", "test"))
    images = tuple(provenance._images(train_records))
    assert len({*images}) == 6
    fingerprints = {"name": "scenes/photo", "train": train_records.fingerprint(), "test": test.fingerprint()}
    provenance.write(tmp_path, Provenance(fingerprints, images=images))
    assert provenance.marks(tmp_path, SCENES, SCENES, test) == {"data_changed": False, "trained_on": 0}
    moved = dataclasses.replace(SCENES, root="elsewhere", cache="elsewhere")
    assert provenance.marks(tmp_path, SCENES, moved, test)["data_changed"] is False
    other = test.take(np.arange(3))
    assert provenance.marks(tmp_path, SCENES, SCENES, other)["data_changed"] is True
    for data in (dataclasses.replace(SCENES, protocol="clean"), dataclasses.replace(SCENES, name="others")):
        assert provenance.marks(tmp_path, SCENES, data, other)["data_changed"] is None
    assert provenance.marks(tmp_path, SCENES, SCENES, other, comparable=False)["data_changed"] is None
    leaked = dataclasses.replace(test, images=np.concatenate([train_records.images[:3], test.images[3:]]))
    assert provenance.marks(tmp_path, SCENES, SCENES, leaked) == {"data_changed": True, "trained_on": 3}
    first, second = provenance.lines(tmp_path, "test", {"data_changed": True, "trained_on": 3})
    assert "changed" in first and second.startswith("3 images of the test split")


def test_a_report_leaves_scores_on_changed_data_out(tmp_path):
    run = fake_runs.run(tmp_path / "run", fake_runs.config(), test=0.5)
    path = fake_runs.evaluation(run, "scenes/photo", fake_runs.records(0.5), sha=fake_runs.sha256("other"))
    write_json(path, read_json(path) | {"data_changed": True, "trained_on": 2})
    (only,), (skipped,) = runs.gather(tmp_path)
    assert only.evaluations == () and skipped.path == path
    mistakes.check_line(skipped.reason, "data-changed: test split of scenes/photo .*2 of its images")


def test_an_evaluation_never_replaces_another(tmp_path):
    run = tmp_path / "runs" / "a"
    own = run / "evaluations"
    identity = {"run": str(run), "data": "mine", "split": "test", "threshold": 0.5, "data_sha256": "a", "size": "8x8"}
    assert stored_name(own, "mine_test", identity) == "mine_test"
    write_json(own / "mine_test.json", identity)
    assert stored_name(own, "mine_test", identity | {"run": str(run), "size": "9x9"}) == "mine_test"
    names = {
        stored_name(own, "mine_test", identity | change)
        for change in ({"data_sha256": "b"}, {"threshold": 0.3}, {"protocol": "clean"} | {"data_sha256": "c"})
    }
    assert len(names) == 3 and "mine_test" not in names
    moved = tmp_path / "moved"
    shutil.copytree(run, moved)
    assert stored_name(moved / "evaluations", "mine_test", identity | {"run": str(moved)}) == "mine_test"
    shared = tmp_path / "shared"
    write_json(shared / "mine_test.json", identity)
    assert stored_name(shared, "mine_test", identity) == "mine_test"
    assert stored_name(shared, "mine_test", identity | {"run": "runs/b"}) != "mine_test"


@pytest.fixture
def copy(tmp_path) -> Path:
    return shutil.copytree(small.finished(), tmp_path / "run")


def change_data(folder: Path) -> None:
    """As if another test split had been there when the run was trained."""
    for name in ("fingerprints.json", "card.json"):
        stored = read_json(folder / name)
        stored["data"]["test"] = fake_runs.sha256("another split")
        write_json(folder / name, stored)


def test_a_second_process_is_refused(quick_compilation, copy, monkeypatch, capsys):
    before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    config = small.config(copy)
    says = r"folder-in-use: process \d+ on host .* trains in .*train.lock"
    with locks.owned(copy / run_folder.LOCK_FILE, "trains"), mistakes.raises(says):
        api.train(config)
    assert {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()} == before


def test_training_on_changed_data_is_refused_unless_forced(quick_compilation, copy, tmp_path, monkeypatch, capsys):
    config = small.write_config(tmp_path / "config.py", small.config(copy))
    right = read_json(copy / "card.json")["data"]
    change_data(copy)
    before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    with pytest.raises(SystemExit) as stop:
        small.run(monkeypatch, train.main, "--config", config)
    assert stop.value.code == 2
    mistakes.check_line(capsys.readouterr().err, "data-changed: the test records of scenes/photo have.*--force-data")
    assert {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()} == before
    small.run(monkeypatch, train.main, "--config", config, "--force-data")
    card = read_json(copy / "card.json")
    assert card["data"] == right
    assert card["earlier_data"] == [right | {"test": fake_runs.sha256("another split")}]
    assert not (copy / run_folder.LOCK_FILE).exists()


def test_evaluating_on_changed_data_says_so(quick_compilation, copy, monkeypatch, capsys):
    small.run(monkeypatch, evaluate.main, "--run", copy)
    assert "warning" not in capsys.readouterr().out
    own = copy / "evaluations" / "scenes_photo_test_model.json"
    before = own.read_bytes()
    assert {name: json.loads(before)[name] for name in ("data_changed", "trained_on")} == {
        "data_changed": False,
        "trained_on": 0,
    }
    change_data(copy)
    small.run(monkeypatch, evaluate.main, "--run", copy)
    out = capsys.readouterr().out
    assert "warning: the test split isn't the one of the data" in out and own.read_bytes() == before
    (marked,) = set(own.parent.glob("*.json")) - {own}
    assert read_json(marked)["data_changed"] is True and marked.with_suffix(".csv").name in out
    with pytest.warns(UserWarning, match="the test split isn't the one"):
        scores = load_run(copy).evaluate()
    assert scores["dice"] == read_json(marked)["scores"]["dice"]
