"""Tests of the figures of calibration and robustness: what is drawn is what the evaluations hold."""

import json
from pathlib import Path
from typing import Any

import fake_runs
import numpy as np
import pytest
from matplotlib.axes import Axes
from numpy.testing import assert_allclose

from tunevlseg_jax.config import Train
from tunevlseg_jax.data.settings import Data
from tunevlseg_jax.evaluation.calibration import BINS
from tunevlseg_jax.evaluation.corruptions import KINDS
from tunevlseg_jax.learners import VPT, CoOp
from tunevlseg_jax.reporting import cells, further_scores, reliability, reliability_bins, runs
from tunevlseg_jax.reporting.cells import Key
from tunevlseg_jax.reporting.figures import robustness as figures
from tunevlseg_jax.reporting.figures.reliability import reliability as diagram
from tunevlseg_jax.runtime.errors import UserError


def bins(pixels: int, true: float, temperature: float = 1.0) -> dict[str, Any]:
    """All pixels in the second and the last bin; the others are empty, as `evaluate` writes them."""
    empty = {"pixels": 0, "probability": None, "true": None}
    rows = [dict(empty) for _ in range(BINS)]
    rows[1] = {"pixels": 3 * pixels, "probability": 0.1, "true": 0.2}
    rows[-1] = {"pixels": pixels, "probability": 0.96, "true": true}
    return {"temperature": temperature, "bins": rows}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """CoOp with two seeds, of which one was calibrated, and VPT with an evaluation of an earlier version."""
    for name, learner, seed, stored in (
        ("a", CoOp(), 0, [bins(100, 0.4), bins(200, 0.9, 2.0)]),
        ("b", CoOp(), 1, [bins(300, 0.8)]),
        ("c", VPT(), 0, None),
    ):
        train = Train(epochs=2, batch_size=4, seed=seed)
        config = fake_runs.config(learner=learner, data=Data(name="busi"), train=train)
        path = fake_runs.evaluation(fake_runs.run(tmp_path / name, config, test=0.5), "busi", fake_runs.records(0.5))
        if stored:
            details = json.loads(path.read_text("utf-8"))
            details["reliability"] = stored
            details["scores"] |= {"ece": 0.2} | ({"ece_calibrated": 0.1} if len(stored) > 1 else {})
            path.write_text(json.dumps(details), "utf-8")
    return tmp_path


def lines(ax: Axes, marker: str = "o") -> list[np.ndarray]:
    """The points of the lines with a marker."""
    return [np.asarray(line.get_xydata()) for line in ax.lines if line.get_marker() == marker]


def test_a_diagram_has_the_pixels_of_all_runs_and_names_what_it_lacks(root):
    gathered, skipped = runs.gather(root)
    chosen = cells.choose(gathered)
    methods, lacking = reliability.methods(chosen.ordered)
    assert not skipped and [key.combination for key in lacking] == ["VPT"]
    (method,) = methods
    assert method.trained.pixels[[1, -1]].tolist() == [1200, 400] and method.records == 4
    picture = diagram("x", "clipseg-tiny", methods)
    assert "4 (busi)" in picture.caption and "--calibrate" in picture.caption
    trained, calibrated = picture.figure.axes[:2]
    assert_allclose(lines(trained)[0], [[0.1, 0.2], [0.96, (100 * 0.4 + 300 * 0.8) / 400]])
    assert_allclose(lines(calibrated)[0], [[0.1, 0.2], [0.96, 0.9]])
    (table,) = [table for table in further_scores.tables(chosen) if table.name == "calibration"]
    assert table.notes == ("Calibrated scores are of fewer runs than the others: 1 of 2 runs in 1 cell.",)


def test_bins_with_few_pixels_have_no_dot():
    (few,) = reliability_bins.read([bins(50, 0.4)], "x.json")
    method = reliability.Method(Key("clipseg-tiny", "CoOp", "", "busi"), few, None, 7)
    picture = diagram("x", "clipseg-tiny", [method])
    assert_allclose(lines(picture.figure.axes[0])[0], [[0.1, 0.2]])
    assert "--calibrate" not in picture.caption and "7 (busi)" in picture.caption


def test_earlier_evaluations_have_no_bins_and_broken_ones_are_errors(root):
    assert reliability_bins.read(None, "x.json") == ()
    good = bins(100, 0.4)
    for broken in (
        [{"temperature": 1.0}],
        [good | {"bins": good["bins"][:-1]}],
        [good | {"bins": [*good["bins"][:-1], good["bins"][-1] | {"true": None}]}],
        [good | {"temperature": "hot"}],
        [3],
    ):
        with pytest.raises(UserError, match=r"the reliability of x\.json is broken"):
            reliability_bins.read(broken, "x.json")
    (path,) = (root / "b" / "evaluations").glob("*.json")
    path.write_text(path.read_text("utf-8").replace('"probability": 0.96', '"probability": "x"'), "utf-8")
    _, skipped = runs.gather(root)
    assert [each.reason for each in skipped] == [f"the reliability of {path.name} is broken [bad-evaluation]"]


def keyed(**files: Any) -> dict[Key, list[Any]]:
    return {Key("clipseg-tiny", name, "", "busi"): each for name, each in files.items()}


def test_corrupted_images_have_a_line_for_each_method_and_corruption():
    def file(clean: float, fall: float) -> dict[str, Any]:
        scores = {kind: [clean - fall * n for n in range(1, 1 + len(each))] for kind, each in KINDS.items()}
        return {"records": 20, "means": {"clean": clean}, "scores": scores}

    stored = keyed(CoOp=[file(0.8, 0.1), file(0.6, 0.1)], VPT=[file(0.5, 0.02)])
    picture = figures.corrupted("x", "busi", stored)
    assert "20 test records" in picture.caption and "left out" not in picture.caption
    assert len(picture.figure.axes) == len(KINDS)
    for ax in picture.figure.axes:
        (coop,) = lines(ax)
        assert_allclose(coop[:, 1], 0.7 - 0.1 * np.arange(6), atol=1e-12)
        (vpt,) = lines(ax, "^")
        assert_allclose(vpt[:, 1], 0.5 - 0.02 * np.arange(6), atol=1e-12)
    many = {Key(f"model {n}", "CoOp", "", "busi"): [file(0.8, 0.1)] for n in range(figures.MOST_METHODS + 2)}
    assert "2 methods with the lowest Dice" in figures.corrupted("x", "busi", many).caption


def test_paraphrases_have_a_range_from_the_worst_to_the_best():
    assert figures.phrases({}) is None
    file = {"records": 20, "means": {"mean": 0.5, "worst": 0.25, "spread": 0.5}}
    picture = figures.phrases(keyed(CoOp=[file], VPT=[file | {"means": {"mean": 0.75, "worst": 0.5, "spread": 0.25}}]))
    assert picture is not None and "20 (busi)" in picture.caption
    (ax,) = picture.figure.axes
    assert lines(ax)[0].tolist() == [[0.5, 1]] and lines(ax, "^")[0].tolist() == [[0.75, 0]], "the best is above"
    ranges = [line.get_xdata() for line in ax.lines if len(np.asarray(line.get_xdata())) == 2]
    assert np.array(ranges).tolist() == [[0.5, 0.75], [0.25, 0.75]]
