"""Tests of reports on runs of different precision: numbers are marked, and notes say which is which."""

import csv
import dataclasses
import json
import shutil
from pathlib import Path

import fake_runs
import pytest
from rich.console import Console

from tunevlseg_jax.config import Train
from tunevlseg_jax.learners import VPT
from tunevlseg_jax.reporting import cells, claims, comparisons, findings, over_sets, robustness, runs, tables
from tunevlseg_jax.reporting.output import collect, gallery, show_claims
from tunevlseg_jax.reporting.output import write as output
from tunevlseg_jax.reporting.output.options import Options
from tunevlseg_jax.reporting.table import Table
from tunevlseg_jax.runtime import files

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


SETS = ("scenes/photo", "scenes/xray")


def evaluated(root: Path, *precisions: str, records: int = 4) -> Path:
    """CoOp in float32 and VPT in these precisions, one for each data set, all with evaluations of their records."""
    for name, other in zip(SETS, precisions, strict=False):
        for config, test, precision in ((COOP, 0.5, "float32"), (PROMPTED, 0.4, other)):
            folder = root / f"{type(config.learner).__name__}_{name.removeprefix('scenes/')}"
            config = dataclasses.replace(config, data=fake_runs.Data(name=name))
            fake_runs.run(folder, config, test=test)
            computed(folder / "card.json", precision)
            computed(fake_runs.evaluation(folder, name, fake_runs.records(test, records)), precision)
    return root


def compared(root: Path) -> list[comparisons.Comparison]:
    found, skipped = runs.gather(root)
    assert not skipped
    return comparisons.compare(cells.choose(found))


def test_differences_between_precisions_are_marked(tmp_path):
    found = compared(evaluated(tmp_path, "float32", "bfloat16"))
    table = comparisons.table(found)
    assert table is not None and table.caption.endswith("Computed in float32 unless a note says otherwise.")
    assert [table.shown(row.entries[0]) for row in table.rows] == ["+10.00", "+10.00‡"]
    (note,) = table.notes
    assert note == ("‡ clipseg-tiny, VPT, scenes/xray: computed in bfloat16, where most numbers are in float32.")


def test_the_summary_says_where_precisions_differ(tmp_path):
    found = compared(evaluated(tmp_path, "float32", "bfloat16"))
    (both,) = [line for line in findings.sentences(found, over_sets.rank(found)) if "VPT" in line]
    assert both.endswith(" Their precisions differ on scenes/xray: CoOp was computed in float32, VPT in bfloat16.")
    (one,) = [line for line in findings.sentences(found[1:], over_sets.rank(found[1:])) if "VPT" in line]
    assert one.endswith(" Their precisions differ: CoOp was computed in float32, VPT in bfloat16.")


def test_the_summary_says_so_where_each_method_has_both_precisions(tmp_path):
    evaluated(tmp_path, "bfloat16", "float32")
    for name in ("card.json", "evaluations/scenes_xray_test_model.json"):
        computed(tmp_path / "CoOp_xray" / name, "bfloat16")
    found = compared(tmp_path)
    (line,) = [line for line in findings.sentences(found, over_sets.rank(found)) if "VPT" in line]
    both = "bfloat16 and float32"
    assert line.endswith(f" Their precisions differ: CoOp was computed in {both}, VPT in {both}.")


def test_rankings_of_different_precisions_have_a_note(tmp_path):
    found = compared(evaluated(tmp_path, "bfloat16", "bfloat16"))
    shown, _ = over_sets.tables(found, over_sets.rank(found))
    note = (
        "Several precisions are behind these numbers. Computed in bfloat16: clipseg-tiny, VPT. Computed in float32:"
        " clipseg-tiny, CoOp."
    )
    assert [table.notes for table in shown] == [(note,)] * 2


def test_captions_of_figures_name_the_precisions_that_they_compare(tmp_path):
    """Those of one data set in a figure of its own, and of trainings where a figure shows these."""
    drawn = gallery.draw_figures(collect.collect(str(evaluated(tmp_path, "float32", "bfloat16")), 0), 0, str.strip)
    note = "Several precisions are behind these numbers. Computed in bfloat16: clipseg-tiny, VPT. Computed in float32:"
    captions = {figure.name: note in figure.caption for figure in drawn.figures}
    expected = {"differences": True, "rank_frequencies": True, "cases_0": False, "cases_1": True}
    assert captions == expected | {"curves": True, "parameters": True}


def test_captions_name_the_precisions_of_what_is_drawn_alone(tmp_path):
    """The figure of parameters leaves out a method that one of the data sets lacks."""
    evaluated(tmp_path, "bfloat16", "bfloat16")
    shutil.rmtree(tmp_path / "VPT_xray")
    drawn = gallery.draw_figures(collect.collect(str(tmp_path), 0), 0, str.strip)
    captions = {figure.name: "precisions" in figure.caption for figure in drawn.figures}
    assert not captions["parameters"] and captions["differences"] and captions["curves"]


def test_a_learning_curve_over_two_precisions_says_so(tmp_path):
    for shots, precision in ((2, "bfloat16"), (None, "float32")):
        config = dataclasses.replace(COOP, data=dataclasses.replace(COOP.data, shots=shots))
        write(tmp_path / str(shots), config, 0.5, precision)
    drawn = gallery.draw_figures(collect.collect(str(tmp_path), 0), 0, str.strip)
    (curve,) = [figure for figure in drawn.figures if figure.name == "learning_curve"]
    assert curve.caption.endswith("Computed in bfloat16 and float32: clipseg-tiny, CoOp.")


def test_claims_name_the_precisions_where_they_differ(tmp_path):
    evaluated(tmp_path, "float32", "bfloat16", records=20)
    found, _ = claims.claims(compared(tmp_path), over_sets.rank(compared(tmp_path)))
    first, second = map(show_claims.line, found)
    assert first.startswith("scenes/photo: ") and "precision" not in first
    assert second.startswith("scenes/xray: clipseg-tiny, CoOp is better than clipseg-tiny, VPT (Wilcoxon")
    assert second.endswith(
        "). Their precisions differ: clipseg-tiny, CoOp was computed in float32, clipseg-tiny, VPT in bfloat16."
    )


def test_comparisons_of_one_precision_have_no_note(tmp_path):
    found = compared(evaluated(tmp_path, "float32", "float32"))
    ranked = over_sets.rank(found)
    drawn = gallery.draw_figures(collect.collect(str(tmp_path), 0), 0, str.strip)
    assert len(drawn.figures) > 3 and not any("precision" in figure.caption for figure in drawn.figures)
    assert not any(claim.mixed for claim in claims.claims(found, ranked)[0])
    table = comparisons.table(found)
    assert table is not None and not table.notes and "‡" not in str(table.rows)
    assert not any(each.notes for each in over_sets.tables(found, ranked)[0])
    assert "precisions differ" not in " ".join(findings.sentences(found, ranked))


def test_csv_files_have_the_precisions(tmp_path):
    evaluated(tmp_path / "runs", "float32", "bfloat16")
    report = tmp_path / "report"
    output.report(Options(str(tmp_path / "runs"), str(report), words=0, samples=0, page=False), Console(quiet=True))
    rows = {
        name: list(csv.DictReader((report / f"{name}.csv").read_text("utf-8").splitlines()))
        for name in ("cells", "pairs", "pairs_over_sets")
    }
    of_cells = {(row["combination"], row["data"]): row["precision"] for row in rows["cells"]}
    assert of_cells.pop(("VPT", "scenes/xray")) == "bfloat16" and {*of_cells.values()} == {"float32"}
    of_pairs = [(row["first_precision"], row["second_precision"]) for row in rows["pairs"]]
    assert of_pairs == [("float32", "float32"), ("float32", "bfloat16")]
    (row,) = rows["pairs_over_sets"]
    assert (row["first_precision"], row["second_precision"]) == ("float32", "bfloat16 float32")


def test_later_tables_name_the_other_precision(tmp_path):
    """Those of outlines, from the evaluations, and of robustness, from files of their own."""
    evaluated(tmp_path, "float32", "float32")
    for folder in tmp_path.iterdir():
        details = json.loads((folder / "card.json").read_text())["data"]
        values = dict.fromkeys(("mean", "worst", "spread"), 0.5)
        path = folder / "robustness" / "test_phrases.json"
        stored = {"kind": "phrases", "phrases": {"one": ["a"]}, "scores": values, "split": "test"}
        files.write_json(path, stored | {"data": details["name"], "data_sha256": details["test"]})
        computed(path, "bfloat16" if folder.name == "VPT_xray" else "float32")
    computed(tmp_path / "VPT_photo" / "evaluations" / "scenes_photo_test_model.json", "bfloat16")
    shown = {table.name: table for table in collect.collect(str(tmp_path), 0).tables}
    for name, data in (("outline_distances", "photo"), (robustness.NAMES["phrases"], "xray")):
        table = shown[name]
        (note,) = table.notes
        assert note.startswith(f"‡ clipseg-tiny, VPT, scenes/{data}: computed in bfloat16 and float32, where most")
        signed = [row.labels for row in table.rows if all("‡" in entry.sign for entry in row.entries)]
        assert signed == [(f"scenes/{data}", "clipseg-tiny", "VPT")]
        assert "Computed in float32 unless a note says otherwise." in table.caption
