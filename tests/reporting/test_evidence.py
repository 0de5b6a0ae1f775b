"""Tests of what a report says of its methods: marks, sentences, claims, ranks, matrices, figures, and `--verify`."""

import csv
import dataclasses
import json
import re
import shutil
from pathlib import Path
from typing import Any

import fake_runs
import many_runs
import mistakes
import numpy as np
import pytest
import scikit_posthocs
import small
from rich.console import Console
from scipy import stats

from tunevlseg_jax import report as command
from tunevlseg_jax.data.settings import Data
from tunevlseg_jax.evaluation import calibration, record_scores
from tunevlseg_jax.evaluation.corruptions import KINDS
from tunevlseg_jax.learners import VPT, CoOp
from tunevlseg_jax.reporting import cells, comparisons, findings, learning_curve, over_sets, runs
from tunevlseg_jax.reporting.comparisons import Comparison
from tunevlseg_jax.reporting.figures import ranks
from tunevlseg_jax.reporting.figures.shots import learning_curve as shots_figure
from tunevlseg_jax.reporting.output import collect, page, write
from tunevlseg_jax.reporting.output import verify as verification
from tunevlseg_jax.reporting.output.options import Options
from tunevlseg_jax.reporting.statistics import intervals
from tunevlseg_jax.runtime import files

SETS = many_runs.SETS[:5]


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("many")
    many_runs.write(folder, SETS, methods=3, seeds=1, gaps=(0, 0.012, 0.1))
    return folder


@pytest.fixture(scope="module")
def compared(root) -> list[Comparison]:
    gathered, skipped = runs.gather(root)
    assert not skipped
    return comparisons.compare(cells.choose(gathered))


@pytest.fixture(scope="module")
def report(root, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("report") / "new"
    write.report(Options(str(root), str(output), words=0, samples=0), Console(quiet=True))
    return output


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_best_and_all_that_are_not_distinguishable_from_it_are_marked(report):
    """Recomputed from the pairs, which tests of their own compare with scipy's."""
    worse = {(row["data"], row["second"]) for row in rows(report / "pairs.csv") if float(row["p"]) < 0.05}
    methods = {"CoOp", "CoCoOp", "VPT"}
    expected = {(data, name) for data in SETS for name in methods if (data, f"clipseg-tiny, {name}") not in worse}
    assert len(SETS) < len(expected) < len(SETS) * len(methods), "the marks say something"
    text = (report / "report.md").read_text("utf-8")
    lines = text.partition("IoU")[0].splitlines()
    head = next(line for line in lines if line.startswith("| model"))
    found = set()
    for line in lines:
        names = [name for name in methods if f"| {name} |" in line]
        for data, number in zip(head.split("|")[3:], line.split("|")[3:], strict=False) if names else ():
            found |= {(data.split()[0], names[0])} if "≈" in number else set()
    assert found == expected
    assert "≈: the best of a data set case by case" in text
    assert "≈" in (report / "report.html").read_text("utf-8")
    assert r"\ensuremath{\approx}" in (report / "tables.tex").read_text("utf-8")


def test_ranks_over_sets_are_those_of_scipy_and_scikit_posthocs(report, compared):
    ranked = over_sets.rank(compared)
    table = over_sets.ranks(ranked)
    assert table is not None
    expected = scikit_posthocs.posthoc_nemenyi_friedman(ranked.scores).to_numpy()
    order = [ranked.names.index(row.labels[1]) for row in table.rows]
    for place, row in zip(order, table.rows, strict=True):
        for other, entry in zip(order, row.entries[1:], strict=True):
            assert (entry.value is None) == (place == other)
            assert entry.value is None or entry.value / 100 == pytest.approx(expected[place, other], abs=1e-6)
    p = stats.friedmanchisquare(*ranked.scores.T).pvalue
    assert f"p = {100 * p:.3g} %" in table.caption
    taus = over_sets.agreement(ranked)
    assert taus is not None
    tau: Any = stats.kendalltau(ranked.scores[0], ranked.scores[1])
    assert taus.rows[0].entries[1].value == pytest.approx(tau.statistic, abs=1e-6)
    assert {"ranks.csv", "rank_frequencies.csv", "rank_agreement.csv"} <= {path.name for path in report.iterdir()}


def test_below_five_sets_a_line_says_why_there_is_no_test(compared):
    few = compared[:4]
    shown, missing = over_sets.tables(few, over_sets.rank(few))
    assert [table.name for table in shown] == ["rank_frequencies", "rank_agreement"]
    assert len(missing) == 1 and "at least 5 data sets and 3 methods" in missing[0] and "4 and 3" in missing[0]
    shown, missing = over_sets.tables([], over_sets.rank([]))
    assert not shown and len(missing) == 3


def test_a_method_that_a_set_lacks_is_left_out_by_name(compared):
    lacking = dataclasses.replace(
        compared[0],
        keys=compared[0].keys[:2],
        scores=compared[0].scores[:2],
        pairs=[pair for pair in compared[0].pairs if {pair.first, pair.second} == {*compared[0].names[:2]}],
    )
    ranked = over_sets.rank([lacking, *compared[1:]])
    assert ranked.left_out == (compared[0].names[2],) and len(ranked.rows) == 2
    assert ranked.tested is None


def test_sentences_say_what_beats_what_and_where_nothing_can_be_said(compared):
    said = findings.sentences(compared, over_sets.rank(compared))
    close, far = said[:2]
    assert re.match(r"VPT beats CoOp on \d of 5 data sets; over all of them it is \d\.\d points better \[", close)
    assert "nothing can be said" in close
    assert re.match(r"VPT beats CoCoOp on 5 of 5 data sets; .*\]\.$", far)
    apart = [each.scores[2] - each.scores[0] for each in compared]
    assert [each.keys[place].combination for each in compared for place in (0, 2)] == ["CoOp", "VPT"] * 5
    mean = np.mean([each.mean() for each in apart])
    assert f"{100 * mean:.1f} points better" in close
    (one,) = [line for line in findings.sentences(compared[:1], over_sets.rank(compared[:1])) if "CoCoOp" in line]
    assert re.search(r"beats CoCoOp on kvasir: it is .* points better \[.*\] \(20 units, p = .* %\)", one)
    assert findings.sentences([], over_sets.rank([])) == [findings.NOTHING]


def test_the_interval_over_sets_is_a_bootstrap_of_each_set_by_itself():
    values = [np.random.default_rng(seed).beta(5, 1.5, number) for seed, number in enumerate((30, 60))]
    mean, (low, high) = intervals.over_sets(values, 1999)
    assert mean == pytest.approx(np.mean([each.mean() for each in values]))
    drawn = sum(intervals.resamples(len(each), 1999, seed) @ each / len(each) for seed, each in enumerate(values)) / 2
    assert (low, high) == pytest.approx(np.quantile(drawn, (0.025, 0.975)), abs=0.004)
    assert intervals.over_sets([values[0]], 1999)[1] == pytest.approx(
        intervals.bca(values[0], intervals.resamples(30, 1999))
    )
    assert np.isnan(intervals.over_sets([values[0], np.array([0.5])])[1]).all()


def test_every_pair_has_a_difference_over_the_sets(report, compared):
    """The one of the summary is there, and another is that of the two methods by themselves."""
    found = rows(report / "pairs_over_sets.csv")
    names = {(row["first"], row["second"]): row for row in found}
    assert len(found) == 3
    (row,) = [row for both, row in names.items() if {*both} == {"clipseg-tiny, CoOp", "clipseg-tiny, CoCoOp"}]
    places = [[key.combination for key in each.keys] for each in compared]
    apart = [
        each.scores[place.index("CoOp")] - each.scores[place.index("CoCoOp")]
        for each, place in zip(compared, places, strict=True)
    ]
    mean, (low, high) = intervals.over_sets(apart, findings.RESAMPLES)
    assert row["first"] == "clipseg-tiny, CoOp" and mean > 0
    assert [float(row[name]) for name in ("difference", "low", "high")] == pytest.approx([mean, low, high], rel=1e-6)
    pairs = [
        pair for pair in rows(report / "pairs.csv") if {pair["first"], pair["second"]} == {row["first"], row["second"]}
    ]
    sure = [pair["first"] for pair in pairs if float(pair["p"]) < 0.05]
    better, worse, still_open = (int(row[name]) for name in ("better", "worse", "open"))
    assert (better, worse) == (sure.count(row["first"]), sure.count(row["second"])) and better + still_open + worse == 5
    said = (report / "report.md").read_text("utf-8")
    first = names["clipseg-tiny, VPT", "clipseg-tiny, CoCoOp"]
    shown = [f"{100 * float(first[name]):.1f}" for name in ("difference", "low", "high")]
    assert f"{shown[0]} points better \\[{shown[1]}, {shown[2]}\\]" in said


def test_intervals_over_sets_cover_the_truth():
    """400 simulated studies of three sets, whose cases differ in number and in mean."""
    random, truth, covered = np.random.default_rng(0), (0.1 + 0.3 + 0.8) / 3, 0
    for _ in range(400):
        values = [mean + 0.2 * random.standard_normal(number) for mean, number in ((0.1, 40), (0.3, 60), (0.8, 100))]
        _, (low, high) = intervals.over_sets(values, 499)
        covered += low <= truth <= high
    assert 0.92 <= covered / 400 <= 0.98


def test_claims_have_a_test_n_p_and_risk(root, report, monkeypatch, capsys):
    small.run(monkeypatch, command.main, "--runs", root, "--claims")
    *lines, last = capsys.readouterr().out.splitlines()
    pairs = rows(report / "pairs.csv")
    sure = [row for row in pairs if float(row["p"]) < 0.05]
    assert last == f"{len(lines)} claims; of {len(pairs) - len(sure)} pairs of methods nothing can be said"
    for row in sure:
        claim = f"{row['data']}: {row['first']} is better than {row['second']} (Wilcoxon signed-rank, Holm: n = 20, "
        (line,) = [line for line in lines if line.startswith(claim)]
        p, risk = re.findall(r"(?:p = |outperformance )([\d.e-]+)", line)
        assert float(p) == pytest.approx(float(row["p"]), rel=0.06)
        assert float(risk) == pytest.approx(float(row["false_claim"]), rel=0.06)
    assert any("Friedman: n = 5" in line for line in lines)


def test_every_case_of_a_set_is_in_a_matrix_that_others_read(root, report):
    matrix = rows(report / "cases" / "kvasir.csv")
    assert list(matrix[0]) == ["case_id", "clipseg-tiny, CoOp", "clipseg-tiny, CoCoOp", "clipseg-tiny, VPT"]
    assert len(matrix) == 40
    gathered, _ = runs.gather(root)
    ours = [run for run in gathered if run.config.data.name == "kvasir"]
    assert len(ours) == 3
    for run in ours:
        assert run.own_test is not None
        dice = {row["id"]: float(row["dice"]) for row in rows(run.own_test.samples)}
        name = f"clipseg-tiny, {type(run.config.learner).__name__}"
        assert {row["case_id"]: float(row[name]) for row in matrix} == dice


def test_verify_agrees_and_names_what_differs(root, report, tmp_path, monkeypatch, capsys):
    def verify(output: Path) -> str:
        small.run(monkeypatch, command.main, "--runs", root, "--output", output, "--verify")
        return capsys.readouterr().out

    agree, total = map(int, re.findall(r"(\d+) of (\d+) numbers", verify(report))[0])
    assert agree == total > 150
    html = (report / "report.html").read_text("utf-8")
    first = re.search(r'class="best">(\d\d\.\d\d)≈', html)
    assert first is not None
    (tmp_path / "changed").mkdir()
    wrong = f"{float(first[1]) + 0.02:.2f}"
    (tmp_path / "changed" / "report.html").write_text(html.replace(first[1], wrong, 1), "utf-8")
    with pytest.raises(SystemExit) as stop:
        verify(tmp_path / "changed")
    out, err = capsys.readouterr()
    assert stop.value.code == 2 and re.search(rf"differs: .*Dice: clipseg-tiny, VPT, .*{wrong}≈ on the page", out)
    mistakes.check_line(err, f"numbers-differ: 1 .*{total}")


def test_verify_computes_from_the_records(root, report, tmp_path, monkeypatch, capsys):
    """A score in an evaluation's JSON that isn't its records' is found."""
    copied = tmp_path / "runs"
    shutil.copytree(root, copied)
    (path,) = (copied / "run0000" / "evaluations").glob("*.json")
    details = json.loads(path.read_text("utf-8"))
    details["scores"]["dice"] += 0.01
    path.write_text(json.dumps(details), "utf-8")
    output = tmp_path / "report"
    output.mkdir()
    (output / "report.html").write_text(page.render(collect.collect(str(copied), 0)), "utf-8")
    with pytest.raises(SystemExit):
        small.run(monkeypatch, command.main, "--runs", copied, "--output", output, "--verify")
    out, err = capsys.readouterr()
    assert "numbers-differ" in err and re.search(r"differs: .*table 3.*camus", out, re.IGNORECASE)
    with pytest.raises(SystemExit):
        small.run(monkeypatch, command.main, "--runs", root, "--output", tmp_path / "none", "--verify")
    mistakes.check_line(capsys.readouterr().err, "no-such-file: report.html")
    with pytest.raises(SystemExit):
        small.run(monkeypatch, command.main, "--runs", root, "--claims", "--verify")
    mistakes.check_line(capsys.readouterr().err, "options-conflict: --claims .*--verify")


def scored(root: Path) -> None:
    """Two runs of four records with every score that a page has, such as `evaluate` writes them: with outlines in
    millimetres, lesions, bins of calibration, corrupted images and paraphrases."""
    small_masks = np.zeros((4, 2, 32, 32), bool)  # (record, predicted or true, row, column)
    small_masks[:, 1, 4:16, 4:16] = small_masks[:, 1, 20:28, 20:28] = True
    for record in range(3):  # the last has an empty prediction
        small_masks[record, 0, 5 + record : 17, 4 : 14 + record] = True
    small_masks[1, 0, 28:30, 2:5] = True
    for seed, learner in enumerate((VPT(), CoOp())):
        config = fake_runs.config(learner=learner, data=Data(name="busi"))
        samples = [
            record_scores.score(f"{number}", "one", "one", predicted, true, (0.5, 0.7))
            for number, (predicted, true) in enumerate(small_masks[:, :, :, : 32 - 2 * seed])
        ]
        dice = float(np.mean([sample.dice for sample in samples]))
        folder = fake_runs.run(root / f"run{seed}", config, (0.5, 0.5), dice)
        path = fake_runs.evaluation(folder, "busi", samples)
        details = json.loads(path.read_text("utf-8"))
        bins = [{"pixels": 30, "probability": 0.1, "true": 0.2}, {"pixels": 10, "probability": 0.9, "true": 0.4}]
        bins += [{"pixels": 0, "probability": None, "true": None}] * (calibration.BINS - len(bins))
        details["reliability"] = [{"temperature": 1.0, "bins": bins}]
        details["scores"] |= {"ece": (30 * 0.1 + 10 * 0.5) / 40, "brier": 0.1, "nll": 0.25}
        path.write_text(json.dumps(details), "utf-8")
        identity = {"data": "busi", "data_sha256": details["data_sha256"], "split": "test"}
        columns = {"clean": 0.8} | {f"{kind}_{n}": 0.7 - 0.1 * n for kind, each in KINDS.items() for n in range(1, 6)}
        values = {kind: [columns[f"{kind}_{n}"] for n in range(1, 6)] for kind in KINDS}
        stored = {"clean": 0.8, "corrupted": float(np.mean([*values.values()])), **values}
        robust = folder / "robustness"
        rows_ = [{"id": str(n), "label": "one", **columns} for n in range(4)]
        files.write_json(robust / "busi_test_corrupted.json", identity | {"kind": "corrupted", "scores": stored})
        files.write_csv(robust / "busi_test_corrupted.csv", rows_)
        phrases = {"one": ["a", "b"], "two": ["c"]}
        rows_ = [{"id": str(n), "label": "one", "phrase_1": 0.25 + 0.5 * (n % 2), "phrase_2": 1.0} for n in range(2)]
        rows_ += [{"id": str(n), "label": "two", "phrase_1": 0.25, "phrase_2": None} for n in range(2, 4)]
        stored = {"mean": (0.75 + 0.25) / 2, "worst": (0.5 + 0.25) / 2, "spread": (0.5 + 0) / 2}  # of "one" and "two"
        files.write_json(
            robust / "busi_test_phrases.json", identity | {"kind": "phrases", "phrases": phrases, "scores": stored}
        )
        files.write_csv(robust / "busi_test_phrases.csv", rows_)


LATER = {
    "hd95_mm_or_diagonal": "HD95 mm, or diagonal",
    "assd_px": "ASSD px, both not empty",
    "nsd": "NSD",
    "lesion_f1_pooled": "lesion F1",
    "ece": "calibration error",
}


def test_verify_recomputes_every_later_score(tmp_path):
    """Scores are changed in the JSON alone: the page shows the changes, and the records don't."""
    root = tmp_path / "runs"
    scored(root)
    computed = collect.collect(str(root), 0, from_records=True)

    def verify() -> verification.Verified:
        return verification.compare(verification.read(page.render(collect.collect(str(root), 0))), computed)

    found = verify()
    assert not found.differ and found.agree > 60
    assert found.unrecorded == {verification.FROM_CURVES: 2, verification.FROM_PIXELS: 4}
    path = root / "run0" / "evaluations" / "busi_test_model.json"
    details = json.loads(path.read_text("utf-8"))
    details["scores"] |= {score: details["scores"][score] + 0.02 for score in LATER}
    path.write_text(json.dumps(details), "utf-8")
    for kind, score in (("corrupted", "blur"), ("phrases", "worst")):
        path = root / "run1" / "robustness" / f"busi_test_{kind}.json"
        details = json.loads(path.read_text("utf-8"))
        value = details["scores"][score]
        details["scores"][score] = [0.1 + each for each in value] if isinstance(value, list) else 0.1 + value
        path.write_text(json.dumps(details), "utf-8")
    found = verify()
    named = [re.search(r"clipseg-tiny, (\w+), ([^:]+): .* on the page, .* computed", line) for line in found.differ]
    assert sorted((each[1], each[2]) for each in named if each) == sorted(
        [*(("VPT", column) for column in LATER.values()), ("CoOp", "blur"), ("CoOp", "worst")]
    )
    assert all(named)


def test_every_figure_says_how_many_cases_are_behind_it(report):
    html = (report / "report.html").read_text("utf-8")
    for name in ("differences", "critical_difference", "rank_frequencies", "cases_0"):
        (caption,) = re.findall(rf'id="figure-{name}".*?<figcaption>(.*?)</figcaption>', html, re.DOTALL)
        assert re.search(r"\b20\b|5 data sets", caption), name
        assert (report / "figures" / f"{name}.png").is_file()
    summary = html.index('id="findings"')
    assert summary < html.index('id="tables"') and "VPT beats CoCoOp on 5 of 5 data sets" in html[summary:]


def test_groups_of_a_critical_difference_diagram_by_hand():
    """1.0 and 2.0 are one group, 2.0 to 3.9 another; 6.0 is alone, and a distance of 2 is distinguishable."""
    assert ranks.groups(np.array([1.0, 2.0, 3.0, 3.9, 6.0]), 2.0) == [(0, 1), (1, 3)]
    assert ranks.groups(np.array([1.0, 3.0]), 2.0) == []


def test_a_learning_curve_has_a_point_for_each_number_of_shots(tmp_path):
    """Each number is chosen by itself, so that no run is left out; a method with one number has no curve."""
    for place, (shots, learner, dice) in enumerate(
        ((1, VPT(), 0.3), (8, VPT(), 0.5), (None, VPT(), 0.75), (8, CoOp(depth=2), 0.6))
    ):
        config = fake_runs.config(learner=learner, data=Data(name="kvasir", shots=shots))
        folder = fake_runs.run(tmp_path / str(place), config, (0.5, 0.5), dice)
        if shots != 1:
            fake_runs.evaluation(folder, "kvasir", fake_runs.records(dice))
    gathered, _ = runs.gather(tmp_path)
    (rows,) = learning_curve.curves(gathered).values()
    (points,) = rows.values()
    assert [(point.shots, point.units) for point in points] == [("1", None), ("8", 4), ("all", 4)]
    assert [point.dice for point in points] == pytest.approx([0.3, 0.5, 0.75])
    figure = shots_figure({"kvasir": rows})
    assert figure is not None and "4 (kvasir)" in figure.caption
    assert not learning_curve.curves(gathered[:1]) and shots_figure({}) is None
