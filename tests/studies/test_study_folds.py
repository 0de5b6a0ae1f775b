"""Tests of studies over folds: their cells, and a small study that is stopped and goes on."""

import csv
import dataclasses
import json
import statistics
from pathlib import Path

import mistakes
import numpy as np
import pytest
import small
from PIL import Image
from rich.console import Console

from tunevlseg_jax import prepare, study
from tunevlseg_jax.config import Config, Train
from tunevlseg_jax.data.settings import Data
from tunevlseg_jax.learners import CoOp, ZeroShot
from tunevlseg_jax.runs.card import load_learnt
from tunevlseg_jax.search.options import Search
from tunevlseg_jax.studies import runner
from tunevlseg_jax.studies.grid import Ablation, Combination, Study
from tunevlseg_jax.studies.plan import plan
from tunevlseg_jax.studies.progress import StudyProgress

quick_compilation = small.quick_compilation

QUIET = Console(quiet=True)
FOLDS = (1, 2)


def definition(folder: Path, root: Path = Path("data"), **changes) -> Study:
    """The model as it is, its decoder fine-tuned, and a trial of CoOp with another seed and an ablation."""
    train = Train(epochs=1, batch_size=4, augment=False)

    def config(learner=None, **changes) -> Config:
        data = Data(name="discs", root=str(root))
        usual = {"upsampling": "none", "train": train, "data": data, "learner": learner or ZeroShot()}
        return small.config(**(usual | changes))

    usual = Study(
        folder=str(folder),
        data=("discs",),
        combinations=(
            Combination(config=config()),
            Combination(config=config(train=dataclasses.replace(train, tune="decoder"))),
            Combination(config=config(CoOp(num_context=2, init_phrase=None), upsampling="blend")),
        ),
        ablations=(Ablation(name="no upsampler", field="upsampling", value="none"),),
        search=Search(trials=1, parallel=1, seeds=2),
        folds=FOLDS,
    )
    return dataclasses.replace(usual, **changes)


def prepared(root: Path, number: int = 12) -> Path:
    """Writes a set of discs in three folds, and returns its data root."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:48, :48]
    for name in range(number):
        (row, column), radius = rng.integers(12, 36, 2), rng.integers(4, 10)
        mask = (rows - row) ** 2 + (columns - column) ** 2 < radius**2
        image = rng.integers(0, 99, (48, 48, 3)) + 120 * mask[..., None]
        for kind, pixels in (("images", image), ("masks", mask * 255)):
            path = root / "source" / kind / f"{name:02d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(path)
    options = prepare.Folder(name="discs", source=(root / "source",), output=root / "data", prompt=("disc",), folds=3)
    prepare.prepare_folder(options, QUIET)
    return root / "data"


def test_a_cell_has_all_folds_and_searches_on_the_first(tmp_path):
    cells = definition(tmp_path).cells()
    assert len(cells) == 4 and {cell.folds for cell in cells} == {FOLDS}
    assert {cell.config.data.fold for cell in cells} == {1}
    tested = definition(tmp_path, data=("discs", "rings"), across=(("discs", "rings"),))
    assert [(data.name, data.fold) for data in tested.tested(tested.cells()[0])] == [("discs", 1), ("rings", None)]
    own = definition(tmp_path, folds=()).cells()[0]
    assert own.folds == () and own.config.data.fold is None


def test_the_plan_counts_the_runs_on_all_folds(tmp_path):
    table, _ = plan(definition(tmp_path), {})
    runs = dict(zip(*(column.cells for column in table.columns[:2]), strict=True))
    expected = {"fine-tuned decoder on model": 4, "CoOp on model": 4, "CoOp on model, no upsampler": 4}
    assert {name: int(runs[name].split(" x ")[0]) for name in expected} == expected


def test_folds_are_a_part_of_the_study(tmp_path):
    """A study of an earlier version, which has none, goes on without folds alone."""
    StudyProgress(tmp_path / "runs", definition(tmp_path, folds=()))
    path = tmp_path / "runs" / "study.json"
    stored = json.loads(path.read_text("utf-8"))
    del stored["folds"]
    path.write_text(json.dumps(stored), encoding="utf-8")
    StudyProgress(tmp_path / "runs", definition(tmp_path, folds=()))
    with mistakes.raises("other-config: folds was .* and is now .*1, 2"):
        StudyProgress(tmp_path / "runs", definition(tmp_path))
    fixed = definition(tmp_path).combinations[0]
    data = dataclasses.replace(fixed.config.data, fold=2)
    fixed = dataclasses.replace(fixed, config=dataclasses.replace(fixed.config, data=data))
    with mistakes.raises("options-conflict: data.fold must be None"):
        definition(tmp_path, combinations=(fixed,), ablations=()).check()


def test_a_missing_fold_is_found_before_anything_trains(tmp_path):
    root = prepared(tmp_path)
    late = definition(tmp_path / "runs", root, folds=(0, 3))
    with mistakes.raises("out-of-range: data.fold must be from 0 to 2 in discs, got 3"), runner.open_progress(late):
        pass
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_a_study_over_folds_goes_on_where_it_was_stopped(tmp_path, monkeypatch):
    """Stopped before CoOp's last run; then every cell has its runs on each fold, with the best trial's values."""
    asked = definition(tmp_path / "runs", prepared(tmp_path))
    trains, train = [], runner.train

    def stopping(config: Config, *arguments):
        if (config.learner.name, config.data.fold, config.train.seed) == ("CoOp", 2, 1):
            raise KeyboardInterrupt
        return train(config, *arguments)

    monkeypatch.setattr(runner, "train", stopping)
    with pytest.raises(KeyboardInterrupt):
        study.run(asked, QUIET)
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("prompts.safetensors")}
    coop = tmp_path / "runs" / "discs" / "coop-on-model"
    assert {path.parent.name for path in kept} >= {"fold-2", "seed-1", "000", "000-1", "000-2-0"}

    monkeypatch.setattr(runner, "train", lambda config, *more: trains.append(config) or train(config, *more))
    study.run(asked, QUIET)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert [(each.data.fold, each.train.seed, each.upsampling) for each in trains] == [
        (2, 1, "blend"),
        (2, 0, "none"),
        (2, 1, "none"),
    ]
    cells = json.loads((tmp_path / "runs" / "cells.json").read_text("utf-8"))
    assert [len(cell["runs"]) for cell in cells.values()] == [1, 4, 4, 4]
    first, _, _ = load_learnt(coop / "trials" / "000")
    for run in cells["discs/coop-on-model"]["runs"]:
        config, _, card = load_learnt(tmp_path / "runs" / run)
        same = dataclasses.replace(config, data=first.data, workdir=first.workdir)
        assert dataclasses.replace(same, train=first.train) == first
        assert card["data"]["test"] == json.loads((coop / "trials" / "000" / "card.json").read_text())["data"]["test"]
    rows = {
        row["combination"] + row["ablation"]: row
        for row in csv.DictReader((tmp_path / "runs" / "report" / "cells.csv").read_text("utf-8").splitlines())
    }
    counted = {name: (row["folds"], row["seeds"], row["std_over"]) for name, row in rows.items()}
    assert counted == {
        "zero-shot": ("", "1", ""),
        "fine-tuned decoder": ("2", "2", "folds and seeds"),
        "CoOpGaussian context": ("2", "2", "folds and seeds"),
        "CoOpGaussian context, no upsampler": ("2", "2", "folds and seeds"),
    }
    dice = [
        json.loads((tmp_path / "runs" / run / "evaluations" / "discs_test_model.json").read_text())["scores"]["dice"]
        for run in cells["discs/fine-tuned-decoder-on-model"]["runs"]
    ]
    assert float(rows["fine-tuned decoder"]["dice"]) == pytest.approx(statistics.fmean(dice))
    assert float(rows["fine-tuned decoder"]["dice_std"]) == pytest.approx(statistics.stdev(dice))
