"""Tests of reports on runs of different precision: numbers are marked, and notes say which is which."""

import dataclasses
import json
from pathlib import Path

import fake_runs
import pytest

from tunevlseg_jax.config import Train
from tunevlseg_jax.learners import VPT
from tunevlseg_jax.reporting import cells, runs, tables
from tunevlseg_jax.reporting.table import Table

COOP = fake_runs.config()
PROMPTED = fake_runs.config(learner=VPT(depth=2))


def computed(path: Path, precision: str) -> None:
    """Writes a precision into a card or an evaluation."""
    details = json.loads(path.read_text()) | {"computed": {"precision": precision, "platform": "cpu"}}
    path.write_text(json.dumps(details))


def write(folder: Path, config, test: float, precision: str | None, scored: str | None = None) -> Path:
    learnt = {} if config is not PROMPTED else {"learner/vision": fake_runs.np.zeros((2, 4, 64), "float32")}
    fake_runs.run(folder, config, test=test, learnt=learnt or None)
    if precision is not None:
        computed(folder / "card.json", precision)
    if scored is not None:
        computed(fake_runs.evaluation(folder, config.data.name, fake_runs.records(test)), scored)
    return folder


def seed(number: int, **changes):
    return dataclasses.replace(COOP, train=dataclasses.replace(COOP.train, seed=number, **changes))


def table3(root: Path) -> Table:
    found, skipped = runs.gather(root)
    assert not skipped
    return tables.tables(cells.choose(found))[0][0]


def shown(table: Table) -> dict[str, list[str]]:
    return {row.labels[1]: [table.shown(entry) for entry in row.entries] for row in table.rows}


def test_one_precision_has_no_mark(tmp_path):
    write(tmp_path / "a", COOP, 0.5, "float32")
    write(tmp_path / "b", PROMPTED, 0.4, "float32")
    table = table3(tmp_path)
    assert "Computed in float32" in table.caption
    assert "‡" not in str(shown(table)) + str(table.notes)


def test_another_precision_is_marked_in_its_cell_and_in_its_mean(tmp_path):
    write(tmp_path / "a", COOP, 0.5, "float32")
    write(tmp_path / "a2", dataclasses.replace(COOP, data=fake_runs.Data(name="scenes/xray")), 0.5, "float32")
    write(tmp_path / "b", PROMPTED, 0.4, "bfloat16")
    table = table3(tmp_path)
    numbers = shown(table)
    assert numbers["CoOp"] == ["50.00†", "50.00†", "50.00"]
    assert numbers["VPT"] == ["40.00†‡", "-", "(40.00, 1 of 2)‡"]
    (note,) = (note for note in table.notes if note.startswith("‡"))
    assert "VPT" in note and "computed in bfloat16, where most numbers are in float32" in note


def test_seeds_of_two_precisions_are_never_averaged_silently(tmp_path):
    write(tmp_path / "a", seed(0), 0.5, "float32")
    write(tmp_path / "b", seed(1), 0.4, "bfloat16")
    write(tmp_path / "c", PROMPTED, 0.4, "float32")
    write(tmp_path / "d", dataclasses.replace(PROMPTED, data=fake_runs.Data(name="scenes/xray")), 0.4, "float32")
    table = table3(tmp_path)
    assert shown(table)["CoOp"][0].endswith("†‡")
    assert any("a mean over runs computed in bfloat16 and float32" in note for note in table.notes)


def test_an_evaluation_in_another_precision_than_the_training(tmp_path):
    write(tmp_path / "a", COOP, 0.5, "float32", scored="bfloat16")
    write(tmp_path / "b", PROMPTED, 0.4, "float32")
    write(tmp_path / "c", dataclasses.replace(PROMPTED, data=fake_runs.Data(name="scenes/xray")), 0.4, "float32")
    table = table3(tmp_path)
    assert shown(table)["CoOp"][0] == "50.00‡"
    assert any("computed in bfloat16 and float32, where most" in note for note in table.notes)


@pytest.mark.parametrize(("asked", "said"), [("auto", False), ("float32", True)])
def test_cards_of_earlier_versions(tmp_path, asked, said):
    """They say what was asked for alone."""
    write(tmp_path / "a", dataclasses.replace(COOP, train=Train(epochs=2, batch_size=4, precision=asked)), 0.5, None)
    table = table3(tmp_path)
    assert ("Computed in float32" in table.caption) == said and "‡" not in str(shown(table))
