"""Tests of what stands in tables: which runs, their means and deviations, marks, and what is missing."""

import dataclasses
import re
import shutil
import statistics
import subprocess
from pathlib import Path

import fake_runs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from tunevlseg_jax.config import Config, Model, Optim, Train
from tunevlseg_jax.data.settings import Data
from tunevlseg_jax.learners import VPT, LoRA, MaPLe, ZeroShot
from tunevlseg_jax.reporting import cells, markup, runs, tables
from tunevlseg_jax.reporting.cells import Cells, Key
from tunevlseg_jax.reporting.table import Entry, Row, Table, marked, mean

PHOTO, XRAY = "scenes/photo", "scenes/xray"
USUAL = fake_runs.config()
COOP = Key("clipseg-tiny", "CoOp", "", PHOTO)
ZERO = "zero-shot"


def write(folder: Path, config: Config, dice: float | None, val: float = 0.5, **more) -> Path:
    """A run with an evaluation of its test records, whose Dice is this; None for no test at all."""
    fake_runs.run(folder, config, (val,) * config.train.epochs, dice, **more)
    if dice is not None:
        fake_runs.evaluation(folder, config.data.name, fake_runs.records(dice))
    return folder


def change(data: str = PHOTO, **changes) -> Config:
    return fake_runs.config(data=Data(name=data), **changes)


def seeded(seed: int, **changes) -> Config:
    return fake_runs.config(train=Train(epochs=2, batch_size=4, seed=seed), **changes)


def rate(value: float, **changes) -> Config:
    return fake_runs.config(optim=Optim(learning_rate=value), **changes)


def chosen(root: Path) -> Cells:
    gathered, skipped = runs.gather(root)
    assert not skipped
    return cells.choose(gathered)


def names(cell: cells.Cell) -> list[str]:
    return [run.folder.name for run in cell.runs]


def shown(table: Table) -> list[list[str]]:
    return [[*row.labels, *map(table.shown, row.entries)] for row in table.rows]


def test_validation_chooses_and_test_does_not(tmp_path):
    write(tmp_path / "a", rate(1e-3), 0.9, val=0.4)
    write(tmp_path / "b", rate(1e-4), 0.2, val=0.6)
    write(tmp_path / "c", rate(1e-5), 0.95, val=0.5)
    cell = chosen(tmp_path).by_key[COOP]
    assert names(cell) == ["b"] and cell.configurations == 3
    assert cell.score("dice") == (pytest.approx(0.2), None, 1)


def test_all_seeds_of_a_configuration_are_averaged(tmp_path):
    for seed, (val, test) in enumerate([(0.6, 0.5), (0.4, 0.7), (0.5, 0.9)]):
        write(tmp_path / f"many{seed}", seeded(seed), test, val=val)
    write(tmp_path / "lucky", rate(1e-5), 0.1, val=0.45)
    cell = chosen(tmp_path).by_key[COOP]
    assert names(cell) == ["many0", "many1", "many2"]
    score = cell.score("dice")
    assert score == (pytest.approx(0.7), pytest.approx(statistics.stdev([0.5, 0.7, 0.9])), 3)


def _vpt(fold: int, seed: int) -> Config:
    return dataclasses.replace(on_fold(fold, seed), learner=VPT(depth=2, max_depth=3))


def on_fold(fold: int | None, seed: int = 0, **changes) -> Config:
    return dataclasses.replace(seeded(seed, **changes), data=Data(name="wounds", fold=fold))


def write_fold(folder: Path, dice: float, config: Config, records: object = "", **more) -> Path:
    """A run on a fold, with records of its own in train and val."""
    sha = {split: fake_runs.sha256("wounds", split, config.data.fold, records) for split in ("train", "val")}
    return write(folder, config, dice, data=sha | {"test": fake_runs.fingerprints("wounds")["test"]}, **more)


def test_runs_on_the_folds_of_a_set_are_one_cell(tmp_path):
    """Of mean and deviation over folds; the caption says how many, and which a cell lacks."""
    for fold, dice in enumerate([0.5, 0.75, 1.0]):
        write_fold(tmp_path / f"coop{fold}", dice, on_fold(fold))
    for fold in (0, 2):
        for seed in (0, 1):
            write_fold(tmp_path / f"vpt{fold}{seed}", [0.25, 0.5, 0.75][fold + seed - (fold == 2)], _vpt(fold, seed))
    zero = fake_runs.config(learner=ZeroShot(), upsampling="none", data=Data(name="wounds"))
    write_fold(tmp_path / "zero", 0.25, zero)
    found = chosen(tmp_path)
    coop, vpt, zero_shot = (found.by_key[Key("clipseg-tiny", name, "", "wounds")] for name in ("CoOp", "VPT", ZERO))
    assert names(coop) == ["coop0", "coop1", "coop2"] and coop.folds == (0, 1, 2)
    assert (coop.spread, vpt.spread, zero_shot.spread) == ("folds", "folds and seeds", "")
    assert coop.score("dice") == (pytest.approx(0.75), pytest.approx(0.25), 3)
    expected = [0.25, 0.5, 0.5, 0.75]
    assert vpt.score("dice") == (pytest.approx(0.5), pytest.approx(statistics.stdev(expected)), 4)
    (table, *_), _ = tables.tables(found)
    assert [row[2] for row in shown(table)] == ["25.00", "75.00 ± 25.00", "50.00 ± 20.41"]
    assert table.caption.endswith(
        "Seeds: 1 to 2. Folds of train and val, each with the same test split: 2 to 3; ± is the standard deviation "
        "over the runs of all folds (CoOp), folds and seeds (VPT) (n - 1)."
    )
    assert "clipseg-tiny, VPT, wounds: no run on fold 1." in table.notes


def test_runs_of_other_folds_are_left_out(tmp_path):
    """Of the set's own train and val, and of a fold of this number of another division."""
    for fold, dice in enumerate([0.5, 0.75, 1.0]):
        write_fold(tmp_path / f"coop{fold}", dice, on_fold(fold))
    write_fold(tmp_path / "own", 0.1, dataclasses.replace(on_fold(None), learner=VPT(depth=2, max_depth=3)))
    write_fold(tmp_path / "again", 0.1, on_fold(1, optim=Optim(learning_rate=1e-5)), records="of ten folds")
    write_fold(tmp_path / "coop1b", 0.1, on_fold(1))
    found = cells.choose(runs.gather(tmp_path)[0])
    assert names(found.by_key[Key("clipseg-tiny", "CoOp", "", "wounds")]) == ["coop0", "coop1", "coop2"]
    reasons = {each.path.name: each.reason for each in found.left_out}
    assert reasons.keys() == {"own", "again", "coop1b"}
    assert reasons["own"] == (
        "left out: its source of train and val is the set's own, and that of most cells of this data set folds"
    )
    assert "training records are others" in reasons["again"] and "configuration and seed" in reasons["coop1b"]


def test_a_studys_repetitions_on_other_folds_do_not_vote(tmp_path):
    study = fake_runs.study(tmp_path / "s", ["complete", "complete"], {"trial": 0})
    write_fold(study / "trials" / "000", 0.5, on_fold(0), val=0.6)
    write_fold(study / "folds" / "000-1-0", 0.7, on_fold(1), val=0.2)
    write_fold(study / "trials" / "001", 0.9, on_fold(0, optim=Optim(learning_rate=1e-4)), val=0.55)
    write_fold(study / "folds" / "001-1-0", 0.9, on_fold(1, optim=Optim(learning_rate=1e-4)), val=0.9)
    for name, fold in (("0", 0), ("1-0", 1)):
        write_fold(study / "ablations" / "plain" / name, 0.3, on_fold(fold, upsampling="none"))
    write_fold(tmp_path / "alone", 0.1, on_fold(0, optim=Optim(learning_rate=1e-3 / 3)), val=0.58)
    found = chosen(tmp_path)
    assert names(found.by_key[Key("clipseg-tiny", "CoOp", "", "wounds")]) == ["000", "000-1-0"]
    ablated = found.by_key[Key("clipseg-tiny", "CoOp", "no upsampler", "wounds")]
    assert names(ablated) == ["0", "1-0"] and {run.role for run in ablated.runs} == {"ablation"}


def test_a_sweeps_repetitions_do_not_vote(tmp_path):
    """The best trial was a little lucky, and its other seeds are worse than the second trial: it stands, as it was
    chosen, with all of its seeds."""
    study = fake_runs.study(tmp_path / "s", ["complete", "complete"])
    write(study / "trials" / "000", rate(1e-3), 0.5, val=0.6)
    write(study / "trials" / "001", rate(1e-4), 0.9, val=0.55)
    other = dataclasses.replace(rate(1e-3), train=dataclasses.replace(USUAL.train, seed=1))
    write(study / "seeds" / "000-1", other, 0.3, val=0.2)
    cell = chosen(tmp_path).by_key[COOP]
    assert names(cell) == ["000", "000-1"] and cell.score("dice") == (
        pytest.approx(0.4),
        pytest.approx(0.2 / 2**0.5),
        2,
    )


def test_a_study_is_represented_by_its_selected_trial(tmp_path):
    """By validation loss, say; the seeds of an earlier choice go with it. Beside other runs validation Dice decides."""
    best = {"trial": 1, "chosen_by": "validation loss"}
    study = fake_runs.study(tmp_path / "s", ["complete", "complete"], best)
    write(study / "trials" / "000", rate(1e-3), None, val=0.6)
    write(study / "trials" / "001", rate(1e-4), 0.9, val=0.55)
    other = dataclasses.replace(rate(1e-3), train=dataclasses.replace(USUAL.train, seed=1))
    write(study / "seeds" / "000-1", other, 0.3, val=0.6)
    cells = chosen(tmp_path)
    assert names(cells.by_key[COOP]) == ["001"] and cells.by_key[COOP].configurations == 2
    (table, *_), _ = tables.tables(cells)
    assert "of its study's trials the one chosen by validation loss." in " ".join(table.notes)
    write(tmp_path / "alone", rate(1e-5), 0.2, val=0.58)
    assert names(chosen(tmp_path).by_key[COOP]) == ["alone"]
    shutil.rmtree(study / "trials" / "001")  # as where another machine keeps it
    assert names(chosen(tmp_path).by_key[COOP]) == ["alone"]
    shutil.rmtree(tmp_path / "alone")
    assert names(chosen(tmp_path).by_key[COOP]) == ["000", "000-1"]


def test_an_ablation_of_a_study_has_another_cell(tmp_path):
    """However it is called, and however good it is."""
    study = fake_runs.study(tmp_path / "s", ["complete"], {"trial": 0})
    write(study / "trials" / "000", USUAL, 0.5, val=0.6)
    shallow = dataclasses.replace(USUAL, learner=dataclasses.replace(USUAL.learner, depth=1))
    write(study / "ablations" / "shallow" / "0", shallow, 0.9, val=0.8)
    write(study / "ablations" / "no-upsampler" / "0", dataclasses.replace(USUAL, upsampling="none"), 0.7, val=0.9)
    by_key = chosen(tmp_path).by_key
    assert {key.ablation: names(cell) for key, cell in by_key.items()} == {
        "": ["000"],
        "shallow": ["0"],
        cells.NO_UPSAMPLER: ["0"],
    }
    assert by_key[COOP].configurations == 1
    (table, *_), _ = tables.tables(chosen(tmp_path))
    assert shown(table) == [["clipseg-tiny", "CoOp", "50.00", "50.00"]]


def test_of_copies_the_selected_trial_counts(tmp_path):
    for name, best in (("a", 1), ("b", 0)):
        study = fake_runs.study(tmp_path / name, ["complete", "complete"], {"trial": best})
        write(study / "trials" / "000", rate(1e-3), 0.5, val=0.6)
        write(study / "trials" / "001", rate(1e-4), 0.4, val=0.55)
    (run,) = chosen(tmp_path).by_key[COOP].runs
    assert run.folder == tmp_path / "b" / "trials" / "000"


def test_copies_count_once(tmp_path):
    write(tmp_path / "a", USUAL, 0.5)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    table_cells = chosen(tmp_path)
    assert names(table_cells.by_key[COOP]) == ["a"]
    (left,) = table_cells.left_out
    assert left.path == tmp_path / "b" and str(tmp_path / "a") in left.reason


@pytest.mark.parametrize(
    ("config", "more", "says"),
    [
        (fake_runs.config(data=Data(name=PHOTO, shots=16)), {}, "its shots is 16, and that of most cells .* all"),
        (fake_runs.config(data=Data(name=PHOTO, protocol="clean")), {}, "its protocol is clean"),
        (fake_runs.config(data=Data(name=PHOTO, prompt_index=2)), {}, "its kind of prompts is 2"),
        (USUAL, {"size": 128}, "its image size is 128x128"),
        (
            USUAL,
            {"data": {split: fake_runs.sha256("other", split) for split in ("train", "val", "test")}},
            "its test rec",
        ),
        (USUAL, {"data": fake_runs.fingerprints(PHOTO) | {"val": fake_runs.sha256("x")}}, "its validation records"),
        (USUAL, {"data": fake_runs.fingerprints(PHOTO) | {"train": fake_runs.sha256("x")}}, "its training records"),
    ],
)
def test_unlike_runs_are_never_averaged(tmp_path, config, more, says):
    """Most cells of a data set decide, and what differs from them is named."""
    write(tmp_path / "vpt", fake_runs.config(learner=VPT()), 0.4)
    write(tmp_path / "coop", USUAL, 0.5)
    fake_runs.run(
        tmp_path / "other", dataclasses.replace(config, train=Train(epochs=2, seed=1)), (0.9, 0.9), 0.9, **more
    )
    table_cells = chosen(tmp_path)
    assert names(table_cells.by_key[COOP]) == ["coop"]
    (left,) = table_cells.left_out
    assert left.path.name == "other"
    assert re.search(says, left.reason), left.reason


def test_zero_shot_runs_stand_whatever_the_others_trained_on(tmp_path):
    few = fake_runs.config(data=Data(name=PHOTO, shots=16))
    write(tmp_path / "few", few, 0.5)
    config = fake_runs.config(learner=ZeroShot(), upsampling="none")
    fake_runs.run(tmp_path / "zero", config, (0.3,), 0.3)
    fake_runs.evaluation(tmp_path / "zero", PHOTO, fake_runs.records(0.3))
    table_cells = chosen(tmp_path)
    assert not table_cells.left_out and {key.combination for key in table_cells.by_key} == {"CoOp", "zero-shot"}


def test_models_of_the_same_name_are_distinguished_by_their_hash(tmp_path):
    write(tmp_path / "a", USUAL, 0.5, model="one")
    write(tmp_path / "b", USUAL, 0.6, model="another")
    write(tmp_path / "c", fake_runs.config(model=Model(checkpoint="x/cris-tiny")), 0.7)
    names = {key.model for key in chosen(tmp_path).by_key}
    assert names == {f"clipseg-tiny ({fake_runs.sha256(sha)[:6]})" for sha in ("one", "another")} | {"cris-tiny"}


@pytest.mark.parametrize(
    ("changes", "combination", "ablation"),
    [
        ({}, "CoOp", ""),
        ({"upsampling": "none"}, "CoOp", "no upsampler"),
        ({"learner": MaPLe(init_phrase=None)}, "MaPLe", "Gaussian context"),
        ({"learner": MaPLe(init_phrase=None), "upsampling": "none"}, "MaPLe", "Gaussian context, no upsampler"),
        ({"learner": VPT(), "train": Train(tune="all")}, "VPT + fine-tuned model", ""),
        ({"learner": ZeroShot(), "upsampling": "none"}, "zero-shot", ""),
        ({"learner": ZeroShot(), "upsampling": "blend"}, "upsampler", ""),
        ({"learner": ZeroShot(), "upsampling": "none", "train": Train(tune="decoder")}, "fine-tuned decoder", ""),
        ({"learner": ZeroShot(), "upsampling": "none", "train": Train(tune="all")}, "fine-tuned model", ""),
    ],
)
def test_the_name_of_a_run(changes, combination, ablation):
    assert cells.key(fake_runs.config(**changes), "m") == Key("m", combination, ablation, PHOTO)


@pytest.fixture
def two_sets(tmp_path) -> Path:
    """Zero-shot and three learners on two data sets, VPT on one of them alone."""
    zero = {"learner": ZeroShot(), "upsampling": "none"}
    for data, dice in ((PHOTO, 0.4), (XRAY, 0.1)):
        short = data.removeprefix("scenes/")
        fake_runs.run(tmp_path / f"zero-{short}", change(data, **zero), (dice,), dice)
        fake_runs.evaluation(tmp_path / f"zero-{short}", data, fake_runs.records(dice))
        write(tmp_path / f"coop-{short}", change(data), dice + 0.2)
        write(tmp_path / f"maple-{short}", change(data, learner=MaPLe()), dice + 0.3)
    write(tmp_path / "vpt", change(learner=VPT()), 0.9)
    return tmp_path


def test_table_3(two_sets):
    table = tables.results(chosen(two_sets), "dice")
    assert (table.head, table.columns, table.groups) == (("model", "combination"), (PHOTO, XRAY, "mean"), ())
    assert shown(table) == [
        ["clipseg-tiny", "zero-shot", "40.00", "10.00", "25.00"],
        ["clipseg-tiny", "CoOp", "60.00", "30.00", "45.00"],
        ["clipseg-tiny", "VPT", "90.00", "-", "(90.00, 1 of 2)"],
        ["clipseg-tiny", "MaPLe", "70.00", "40.00", "55.00"],
    ]
    marks = [[entry.mark for entry in row.entries] for row in table.rows]
    assert marks == [["", "", ""], ["", "second", "second"], ["best", "", ""], ["second", "best", "best"]]
    assert [row.ruled for row in table.rows] == [False, True, False, False]
    for said in ("Dice in %", "64x64 pixels", "over 0.5", "Test records: 4.", "Protocol: paper", "validation Dice"):
        assert said in table.caption
    assert "Seeds: 1." in table.caption
    assert [note.split(":")[0] for note in table.notes] == ["A dash", "In parentheses"]


def test_learners_beyond_the_paper_are_a_group_of_their_own(two_sets):
    write(two_sets / "lora", change(learner=LoRA()), 0.5)
    table = tables.results(chosen(two_sets), "dice")
    assert [row.labels[1] for row in table.rows if row.ruled] == ["CoOp", "LoRA"]
    assert "Beyond the paper: LoRA." in table.caption


def test_scores_of_cards_are_marked_and_missing_scores_are_dashes(two_sets):
    shutil.rmtree(two_sets / "maple-xray" / "evaluations")
    fake_runs.run(two_sets / "coop-xray", change(XRAY), (0.5, 0.5), None)
    shutil.rmtree(two_sets / "coop-xray" / "evaluations")
    table = tables.results(chosen(two_sets), "dice")
    assert shown(table)[1][2:] == ["60.00", "-", "(60.00, 1 of 2)"] and shown(table)[3][3] == "40.00†"
    assert any(note.startswith("†: from the card") for note in table.notes)
    assert any("CoOp, scenes/xray: 1 of the 1 runs" in note and "coop-xray" in note for note in table.notes)


def test_the_paper_groups_its_data_sets(tmp_path):
    for data in ("voc2012", "busi", "kvasir", "wounds", "clinicdb"):
        write(tmp_path / data, change(data), 0.5)
    table = tables.results(chosen(tmp_path), "dice")
    assert table.columns == ("kvasir", "clinicdb", "busi", "voc2012", "wounds", "mean")
    assert table.groups == (
        ("medical, not radiology", 2),
        ("medical, radiology", 1),
        ("open domain", 1),
        ("other", 1),
        ("", 1),
    )
    assert r"\cmidrule(lr){3-4}\cmidrule(lr){5-5}" in markup.latex(table)
    assert "| kvasir (medical, not radiology) |" in markup.markdown(table)


def test_tables_4_and_5(two_sets):
    for data, dice in ((PHOTO, 0.5), (XRAY, 0.45)):
        write(two_sets / f"gauss-{data[7:]}", change(data, learner=MaPLe(init_phrase=None)), dice)
    write(two_sets / "bare", change(upsampling="none"), 0.55)
    table_cells = chosen(two_sets)
    four, five = (
        tables.compared(table_cells, "table4", "Gaussian context"),
        tables.compared(table_cells, "table5", "no upsampler"),
    )
    assert four is not None and five is not None
    assert shown(four) == [
        ["clipseg-tiny", "MaPLe", '"a photo of a"', "70.00", "40.00", "55.00"],
        ["clipseg-tiny", "MaPLe", "Gaussian context", "50.00", "45.00", "47.50"],
        ["clipseg-tiny", "MaPLe", "difference", "+20.00", "\N{MINUS SIGN}5.00", "+7.50"],
    ]
    assert shown(five) == [
        ["clipseg-tiny", "CoOp", "learnable upsampler", "60.00", "30.00", "45.00"],
        ["clipseg-tiny", "CoOp", "no upsampler", "55.00", "-", "(55.00, 1 of 2)"],
        ["clipseg-tiny", "CoOp", "difference", "+5.00", "-", "(+5.00, 1 of 2)"],
    ]
    # Ablated runs are in no other table.
    assert shown(tables.results(table_cells, "dice")) == shown(
        tables.results(_without(table_cells, "bare", "gauss"), "dice")
    )
    assert [row.combination for row in table_cells.rows] == ["zero-shot", "CoOp", "CoOp", "VPT", "MaPLe", "MaPLe"]


def _without(table_cells: Cells, *starts: str) -> Cells:
    kept = {key: cell for key, cell in table_cells.by_key.items() if not cell.runs[0].folder.name.startswith(starts)}
    return Cells(kept, ())


def test_a_combination_that_is_ablated_everywhere_is_in_table_3(tmp_path):
    write(tmp_path / "bare", change(upsampling="none"), 0.55)
    assert shown(tables.results(chosen(tmp_path), "dice")) == [["clipseg-tiny", "CoOp, no upsampler", "55.00", "55.00"]]


def test_tables_that_nothing_is_for_are_named(two_sets):
    shown_tables, missing = tables.tables(chosen(two_sets))
    assert [table.name for table in shown_tables] == ["table3_dice", "table3_iou"]
    assert [line.split(":")[0] for line in missing] == [
        "Initial context (Table 4 of the paper)",
        "Learnable upsampler (Table 5 of the paper)",
        "Tests on other data sets",
    ]


def test_scores_on_other_data_sets(two_sets):
    fake_runs.evaluation(two_sets / "coop-photo", XRAY, fake_runs.records(0.25))
    fake_runs.evaluation(two_sets / "coop-photo", "wounds", fake_runs.records(0.35))
    fake_runs.evaluation(two_sets / "coop-xray", PHOTO, fake_runs.records(0.15), sha=fake_runs.sha256("other records"))
    fake_runs.evaluation(two_sets / "coop-xray", "wounds", fake_runs.records(0.99), split="val")
    fake_runs.evaluation(two_sets / "zero-photo", XRAY, fake_runs.records(0.99))
    shown_tables, _ = tables.tables(chosen(two_sets))
    table = shown_tables[-1]
    assert (table.name, table.columns) == ("cross_data", (PHOTO, XRAY, "wounds"))
    assert shown(table) == [
        ["clipseg-tiny", "CoOp", PHOTO, "60.00", "25.00", "35.00"],
        ["clipseg-tiny", "CoOp", XRAY, "-", "30.00", "-"],
    ]
    assert any("an evaluation on scenes/photo is of other records" in note for note in table.notes)


values = st.one_of(st.none(), st.floats(0, 1))


@given(st.lists(st.tuples(values, values), min_size=1, max_size=6))
def test_marks_are_at_the_two_highest_numbers_of_each_column(rows):
    lines = marked([Row((), tuple(Entry(value) for value in row)) for row in rows])
    for column in zip(*(row.entries for row in lines), strict=True):
        there = [round(entry.value, 4) for entry in column if entry.value is not None]
        ranked = sorted(set(there), reverse=True)
        for entry in column:
            rank = None if entry.value is None else ranked.index(round(entry.value, 4))
            assert entry.mark == ({0: "best", 1: "second"}.get(rank, "") if len(there) > 1 else "")


def test_a_mean_that_lacks_a_part_is_no_mean_of_all():
    assert mean([Entry(0.5), Entry(0.7)]) == Entry(pytest.approx(0.6))
    assert mean([Entry(0.5), Entry()]) == Entry(0.5, of=(1, 2))
    assert mean([Entry(), Entry()]) == Entry()


ANY = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20)
NASTY = st.one_of(ANY, st.text("_&%#|\\{}$~^<>*`'\"-,?!:[]()&amp;", max_size=12))


def table_of(words: str) -> Table:
    """A table that is called so wherever something can be called."""
    row = Row((words, words), (Entry(0.5, 0.1, "best"), Entry(0.25, mark="second"), Entry()))
    return Table("t", words, words, (words, "b"), (words, "x", "y"), (row,), ((words, 2), ("", 1)), (words,))


@given(NASTY)
def test_names_come_out_of_markdown_as_they_went_in(words):
    plain = " ".join(words.split())
    html = MarkdownIt("commonmark").enable("table").parse(markup.markdown(table_of(plain)))
    inline = [token for token in html if token.type == "inline"]
    texts = ["".join(child.content for child in token.children if child.type == "text") for token in inline]
    assert texts[0] == texts[-1] == texts[-2] == plain or not plain
    cells = [text for token, text in zip(inline, texts, strict=True) if token.map and token.map[0] >= 2]
    if plain:
        assert cells[:5] == [plain, "b", f"{plain} ({plain})", f"x ({plain})", "y"]
        assert cells[5:10] == [plain, plain, "50.00 ± 10.00", "25.00", "-"]


@given(NASTY)
def test_names_come_out_of_latex_as_they_went_in(words):
    """Read back with an independent table of LaTeX's commands."""
    read = markup.latex_text(words)
    commands = {"textbackslash": "\\", "textasciitilde": "~", "textasciicircum": "^", "textquotedbl": '"'}
    commands |= {"textquotesingle": "'", "textasciigrave": "`", "textless": "<", "textgreater": ">", "textbar": "|"}
    text, place = "", 0
    while place < len(read):
        rest = read[place:]
        name = next((name for name in commands if rest.startswith(f"\\{name}{{}}")), None)
        if name is not None:
            text, place = text + commands[name], place + len(name) + 3
        elif rest.startswith(r"\texttt{U+"):
            end = rest.index("}")
            text, place = text + chr(int(rest[10:end], 16)), place + end + 1
        elif rest.startswith("\\ensuremath{\\pm}"):
            text, place = text + "±", place + 16
        elif rest[0] == "\\" and rest[1] in "&%$#_{}":
            text, place = text + rest[1], place + 2
        elif rest.startswith("{}"):
            place += 2
        else:
            assert rest[0] not in "\\&%$#_{}~^\"'`<>|", read
            assert not rest.startswith(("--", ",,")), read
            text, place = text + rest[0], place + 1
    expected = " ".join(words.split())
    assert text == expected or "†" in words or "\N{MINUS SIGN}" in words


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="there is no pdflatex here")
def test_latex_compiles(two_sets, tmp_path):
    """Tables as they come, and one of all characters that mean something to LaTeX, and some that mean nothing."""
    shown_tables, _ = tables.tables(chosen(two_sets))
    nasty = "".join(map(chr, range(32, 127))) + " -- ,, ?` !` äÉß ± † \N{MINUS SIGN} 中 \N{GREEK SMALL LETTER ALPHA}"
    folder = tmp_path / "tex"
    folder.mkdir()
    long = dataclasses.replace(table_of("long"), rows=table_of("long").rows * 100)
    (folder / "tables.tex").write_text(markup.document([*shown_tables, table_of(nasty), long]), encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "tables.tex"]
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == 0, ended.stdout[-2000:]
    assert (folder / "tables.pdf").stat().st_size > 10_000
    assert not re.search("Missing character|Float too large|Overfull", ended.stdout)
    assert f"({len(shown_tables) + 1 + 3} pages" in ended.stdout


def test_csv_has_numbers_as_they_were_computed(two_sets):
    rows = markup.csv_rows(tables.results(chosen(two_sets), "dice"))
    assert rows[2] == {
        "model": "clipseg-tiny",
        "combination": "VPT",
        PHOTO: pytest.approx(0.9),
        XRAY: None,
        "mean": pytest.approx(0.9),
        "mean of": 1,
    }
    assert rows[0]["mean of"] == 2
