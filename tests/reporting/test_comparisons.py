"""Tests of the comparison of methods case by case, from files of evaluations to the tables of a report."""

import csv
import dataclasses
from pathlib import Path

import fake_runs
import numpy as np
import pytest
from rich.console import Console
from scipy import stats

from tunevlseg_jax import reporting
from tunevlseg_jax.config import Train
from tunevlseg_jax.data.settings import Data
from tunevlseg_jax.learners import VPT, MaPLe, SharedSeparate
from tunevlseg_jax.reporting import cells, comparisons, runs
from tunevlseg_jax.reporting.comparisons import Comparison
from tunevlseg_jax.reporting.output import collect, write
from tunevlseg_jax.reporting.output.options import Options

DATA = "scenes/photo"
PATIENTS, IMAGES = 12, 3


def scores(seed: int, mean: float) -> np.ndarray:
    """Of the images of each patient, (PATIENTS, IMAGES), in hundredths."""
    random = np.random.default_rng(seed)
    levels = mean + 0.1 * random.standard_normal((PATIENTS, 1)) + 0.05 * random.standard_normal((PATIENTS, IMAGES))
    return np.clip(np.round(levels, 2), 0, 1)


def method(folder: Path, learner, dice: np.ndarray, seed: int = 0, *, patients: bool = True) -> None:
    """A run with an evaluation that has these scores of its test records."""
    config = fake_runs.config(learner=learner, data=Data(name=DATA), train=Train(epochs=2, batch_size=4, seed=seed))
    fake_runs.run(folder, config, (0.5, 0.5), float(dice.mean()))
    samples = []
    for place, value in np.ndenumerate(dice):
        sample = fake_runs.sample("-".join(map(str, place)), round(100 * value), 100, 100)
        samples.append(dataclasses.replace(sample, unit=f"patient {place[0]}" if patients else None))
    fake_runs.evaluation(folder, DATA, samples)


def compared(root: Path) -> list[Comparison]:
    gathered, skipped = runs.gather(root)
    assert not skipped
    return comparisons.compare(cells.choose(gathered))


def test_patients_are_the_units_and_seeds_are_averaged_first(tmp_path):
    vpt, other, maple = scores(0, 0.7), scores(1, 0.6), scores(2, 0.5)
    method(tmp_path / "vpt0", VPT(), vpt)
    method(tmp_path / "vpt1", VPT(), other, seed=1)
    method(tmp_path / "maple", MaPLe(), maple)
    (found,) = compared(tmp_path)
    (from_folder,) = reporting.compare(tmp_path)
    assert (from_folder.pairs, from_folder.keys) == (found.pairs, found.keys)
    first, second = (vpt + other).mean(1) / 2, maple.mean(1)
    assert found.scores.shape == (2, PATIENTS) and len(found.ids) == PATIENTS * IMAGES
    (pair,) = found.pairs
    assert (pair.first, pair.second, pair.units) == ("clipseg-tiny, VPT", "clipseg-tiny, MaPLe", PATIENTS)
    assert pair.difference == pytest.approx((first - second).mean(), abs=1e-9)
    assert pair.p == pytest.approx(stats.wilcoxon(first, second, method=stats.PermutationMethod()).pvalue, abs=1e-9)
    assert pair.low < pair.difference < pair.high
    means = {"VPT": first.mean(), "MaPLe": second.mean()}
    for key, (low, high) in zip(found.keys, found.limits, strict=True):
        assert low < means[key.combination] < high


def test_without_patients_each_record_is_a_unit(tmp_path):
    for learner in (VPT(), MaPLe()):
        method(tmp_path / type(learner).__name__, learner, scores(0, 0.6), patients=False)
    (found,) = compared(tmp_path)
    (pair,) = found.pairs
    assert (pair.units, pair.difference, pair.p, pair.false_claim) == (PATIENTS * IMAGES, 0, 1, 0.5)


def test_other_records_and_runs_without_an_evaluation_are_not_compared(tmp_path):
    method(tmp_path / "vpt", VPT(), scores(0, 0.7))
    method(tmp_path / "maple", MaPLe(), scores(1, 0.6)[:-1])
    method(tmp_path / "zero", SharedSeparate(), scores(2, 0.1))
    config = fake_runs.config(data=Data(name=DATA), train=Train(epochs=2, batch_size=4))
    fake_runs.run(tmp_path / "card", config, (0.5, 0.5), 0.9)
    (found,) = compared(tmp_path)
    (line,) = [line for line in collect.collect(str(tmp_path), 0).untabled if line.startswith(comparisons.TITLE)]
    assert "scenes/photo: without clipseg-tiny, CoOp; clipseg-tiny, MaPLe, as" in line
    assert {key.combination for key in found.keys} == {"VPT", "SharedSeparate"}
    assert comparisons.interval([found], found.keys[0])["units"] == PATIENTS
    assert comparisons.interval([found], found.keys[0]._replace(combination="CoOp")) == {
        "dice_low": None,
        "dice_high": None,
        "units": None,
    }


def test_one_patient_has_a_difference_and_no_interval(tmp_path):
    for number, learner in enumerate((VPT(), MaPLe())):
        method(tmp_path / str(number), learner, scores(number, 0.6)[:1])
    found = compared(tmp_path)
    table = comparisons.table(found)
    assert table is not None
    (row,) = table.rows
    assert [entry.value is None for entry in row.entries] == [False, True, True, False, True]
    assert comparisons.interval(found, found[0].keys[0])["units"] is None


def test_a_report_has_intervals_pairs_and_a_table(tmp_path):
    for number, learner in enumerate((VPT(), MaPLe(), SharedSeparate())):
        method(tmp_path / "runs" / str(number), learner, scores(number, 0.7 - 0.2 * number))
    output = tmp_path / "report"
    write.report(Options(str(tmp_path / "runs"), str(output), words=0, samples=0, page=False), Console(quiet=True))
    rows = {
        name: list(csv.DictReader((output / f"{name}.csv").read_text("utf-8").splitlines()))
        for name in ("cells", "pairs", "differences")
    }
    assert [row["units"] for row in rows["cells"]] == ["12"] * 3
    assert all(float(row["dice_low"]) < float(row["dice"]) < float(row["dice_high"]) for row in rows["cells"])
    assert len(rows["pairs"]) == 3 and all(float(row["low"]) < float(row["high"]) for row in rows["pairs"])
    assert {row["compared with"] for row in rows["differences"]} == {
        "clipseg-tiny, MaPLe",
        "clipseg-tiny, Shared Separate",
    }
    for row in rows["differences"]:
        (pair,) = [
            each for each in rows["pairs"] if (each["first"], each["second"]) == (row["best"], row["compared with"])
        ]
        names = {"difference": "difference", "95 % from": "low", "to": "high", "p": "p", "risk": "false_claim"}
        assert {name: row[name] for name in names} == {name: pair[theirs] for name, theirs in names.items()}
        assert not [name for name in row if name.endswith(", %")], "its numbers are fractions"
    text = (output / "report.md").read_text("utf-8")
    assert f"Units: {PATIENTS} of {PATIENTS * IMAGES} records ({DATA})." in text


def test_one_method_is_compared_with_none(tmp_path):
    method(tmp_path / "runs" / "vpt", VPT(), scores(0, 0.7))
    output = tmp_path / "report"
    write.report(Options(str(tmp_path / "runs"), str(output), words=0, samples=0, page=False), Console(quiet=True))
    assert not (output / "pairs.csv").exists() and not (output / "differences.csv").exists()
    assert "as no data set has two methods" in (output / "report.md").read_text("utf-8")
