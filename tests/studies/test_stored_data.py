"""Tests of a study's data: cells are trained only on the data sets that its finished cells were trained on."""

import dataclasses
from pathlib import Path

import fake_runs
import mistakes
import pytest

from tunevlseg_jax.config import Config, Train
from tunevlseg_jax.data import registry
from tunevlseg_jax.data.settings import Data, Scenes
from tunevlseg_jax.learners import CoOp
from tunevlseg_jax.runtime.files import read_json, write_json
from tunevlseg_jax.studies import stored_data
from tunevlseg_jax.studies.grid import Combination, Study
from tunevlseg_jax.studies.progress import StudyProgress

SIZE = 24
DATA = Data(name="scenes/photo", scenes=Scenes(train=3, val=2, test=2))


def two_cells(folder: Path) -> Study:
    """The model as it is, and its decoder fine-tuned."""
    configs = (Config(data=DATA), Config(data=DATA, train=Train(tune="decoder")))
    return Study(
        folder=str(folder),
        data=("scenes/photo",),
        combinations=tuple(Combination(config=config) for config in configs),
    )


@pytest.fixture
def begun(tmp_path) -> tuple[Study, StudyProgress, Path]:
    """A study whose first cell is finished, and that cell's run."""
    study = two_cells(tmp_path / "study")
    progress = StudyProgress(tmp_path / "study", study)
    cell = study.cells()[0]
    data = {split: registry.load(DATA, split, (SIZE, SIZE)).fingerprint() for split in ("train", "val", "test")}
    config = dataclasses.replace(fake_runs.config(learner=CoOp(depth=2, max_depth=3)), data=DATA)
    run = fake_runs.run(progress.folder / cell.folder, config, test=0.5, size=SIZE, data=data)
    progress.add(cell, [run], 1.0)
    return study, progress, run


def test_a_study_goes_on_with_its_data(begun):
    study, progress, _ = begun
    assert [progress.has(cell) for cell in study.cells()] == [True, False]
    stored_data.check(study, progress)


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_study_whose_data_changed_is_refused(begun, split):
    study, progress, run = begun
    card = read_json(run / "card.json")
    card["data"][split] = fake_runs.sha256("another split")
    write_json(run / "card.json", card)
    with mistakes.raises(f"data-changed: the {split} records of scenes/photo have changed since {run}.*--folder"):
        stored_data.check(study, progress)
    progress.add(study.cells()[1], [run], 1.0)  # nothing is left to train
    stored_data.check(study, progress)


def test_a_card_without_its_data_is_named(begun):
    study, progress, run = begun
    write_json(run / "card.json", {"data": 5})
    with mistakes.raises("bad-card: card.json.*delete"):
        stored_data.check(study, progress)
