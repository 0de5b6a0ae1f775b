"""Tests of the report's figures: what is drawn is what the runs say."""

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import cv2
import fake_runs
import numpy as np
import optuna
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.testing import assert_allclose
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from tunevlseg_jax.config import Config, Optim
from tunevlseg_jax.data.settings import Data
from tunevlseg_jax.learners import VPT, CoOp
from tunevlseg_jax.learners.contract import Learner
from tunevlseg_jax.reporting import cells, pictures, runs
from tunevlseg_jax.reporting.cells import Cells, Key, RowKey
from tunevlseg_jax.reporting.comparisons import Comparison
from tunevlseg_jax.reporting.figures import embeddings, importance, style, trends
from tunevlseg_jax.reporting.figures.cases import cases as cases_figure
from tunevlseg_jax.reporting.figures.curves import curves
from tunevlseg_jax.reporting.figures.embeddings import Vectors
from tunevlseg_jax.reporting.figures.examples import examples
from tunevlseg_jax.reporting.figures.parameters import parameters, trained
from tunevlseg_jax.reporting.figures.trends import AXES, Point
from tunevlseg_jax.reporting.pictures import Picture
from tunevlseg_jax.reporting.runs import Run
from tunevlseg_jax.runtime.files import sha256

DEPTH, RATE, DECAY = AXES
SETS = {"photos": 0.6, "scans": 0.2}


def config(learner: Learner | None = None, data: str = "photos", **changes: Any) -> Config:
    """Two epochs; CoOp has room for more prompts than it uses."""
    learner = CoOp(depth=1, max_depth=4) if learner is None else learner
    return fake_runs.config(learner=learner, data=Data(name=data), **changes)


def gathered(folder: Path) -> tuple[list[Run], Cells]:
    stored, skipped = runs.gather(folder)
    assert not skipped
    return stored, cells.choose(stored)


def first(chosen: Cells) -> dict[Key, Run]:
    return {key: cell.runs[0] for key, cell in chosen.by_key.items()}


def trial(study: Path, number: int, data: str, depth: int, test: float | None, rate: float = 1e-3, decay: float = 1e-3):
    """A trial whose validation Dice is a little above its test Dice."""
    optim = Optim(learning_rate=rate, weight_decay=decay)
    dice = 0.3 if test is None else min(test + 0.02, 1)
    asked = config(CoOp(depth=depth, max_depth=4), data, optim=optim)
    fake_runs.run(study / "trials" / f"{number:03d}", asked, (dice / 2, dice), test)
    fake_runs.study(study, ["complete"] * (number + 1))


def trials(folder: Path) -> Path:
    """Twenty trials on two sets, the second harder; deeper is better, but for noise."""
    draw = np.random.default_rng(0)
    for number in range(20):
        data, depth = list(SETS)[number % 2], int(draw.integers(1, 5))
        dice = SETS[data] + 0.05 * depth + draw.normal(0, 0.05)
        trial(folder / data, number // 2, data, depth, dice, *(10 ** draw.uniform(-5, -2, 2)))
    return folder


def journal(study: Path, rows: Sequence[tuple[dict[str, Any], float]]) -> Path:
    """A study's journal of complete trials, each with its parameters and its validation Dice."""
    study.mkdir(parents=True)
    path = study / "journal.log"
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    search = optuna.create_study(storage=JournalStorage(JournalFileBackend(str(path))), direction="maximize")
    ranges = {
        "learner.depth": optuna.distributions.IntDistribution(1, 4),
        "optim.learning_rate": optuna.distributions.FloatDistribution(1e-5, 1e-1, log=True),
    }
    for params, dice in rows:
        used = {name: ranges[name] for name in params}
        attributes = {"val_dice": dice}
        search.add_trial(optuna.create_trial(params=params, distributions=used, value=dice, user_attrs=attributes))
    return path


def words(figure: Figure) -> str:
    return " ".join(text.get_text() for ax in figure.axes for text in ax.texts)


def test_a_line_and_its_r2_are_numpys():
    x, y = np.random.default_rng(0).normal(size=(2, 30))
    line = trends.fit(x, y)
    assert line is not None
    assert_allclose([line.slope, line.intercept], np.polyfit(x, y, 1))
    assert_allclose(line.rvalue, np.corrcoef(x, y)[0, 1])


@pytest.mark.parametrize(("x", "y"), [([1, 2], [1, 2]), ([1, 1, 1], [1, 2, 3]), ([1, 2, 3], [5, 5, 5])])
def test_there_is_no_line_through_too_little(x, y):
    assert trends.fit(np.asarray(x, float), np.asarray(y, float)) is None


def test_within_sets_how_hard_a_set_is_explains_nothing():
    points = [Point(data, x, base + 0.1 * x) for data, base in (("easy", 0.5), ("hard", 0.0)) for x in range(4)]
    line = trends.within(points)
    assert line is not None
    assert_allclose([line.slope, line.rvalue], [0.1, 1])
    pooled = trends.fit(*np.asarray([(point.x, point.dice) for point in points]).T)
    assert pooled is not None and pooled.rvalue**2 < 0.2


@pytest.mark.parametrize(("axis", "scale"), [(DEPTH, float), (RATE, np.log10), (DECAY, np.log10)])
def test_a_trend_draws_every_trial_and_their_line(axis, scale, tmp_path):
    stored, chosen = gathered(trials(tmp_path))
    drawn = trends.trend(axis, chosen.compared)
    assert drawn is not None
    (ax,) = drawn.figure.axes
    section, field = axis.field.split(".")
    x = np.asarray([scale(getattr(getattr(run.config, section), field)) for run in stored])
    y = np.asarray([run.scores["test"]["dice"] for run in stored])
    points = np.asarray(ax.collections[0].get_offsets())
    assert_allclose(sorted(points[:, 1]), sorted(y))
    slope, intercept = np.polyfit(x, y, 1)
    assert_allclose(ax.lines[0].get_ydata(), slope * np.asarray([x.min(), x.max()]) + intercept)
    assert f"n 20, R² {np.corrcoef(x, y)[0, 1] ** 2:.2f}, within sets" in words(drawn.figure)
    assert drawn.figure.get_supylabel() == "test Dice" and "20 trials on photos, scans" in drawn.caption
    assert (ax.get_xscale() == "log") == (axis is not DEPTH)


def test_a_trial_without_a_test_score_makes_the_figure_show_validation(tmp_path):
    trial(trials(tmp_path) / "photos", 10, "photos", 4, None)
    stored, chosen = gathered(tmp_path)
    drawn = trends.trend(DEPTH, chosen.compared)
    assert drawn is not None
    assert drawn.figure.get_supylabel() == "validation Dice" and "Validation Dice" in drawn.caption
    dice = sorted(run.scores["val"]["dice"] for run in stored)
    assert_allclose(sorted(np.asarray(drawn.figure.axes[0].collections[0].get_offsets())[:, 1]), dice)


def test_what_does_not_vary_is_not_drawn(tmp_path):
    for number in range(4):
        trial(tmp_path, number, "photos", 1, 0.1 * number)
    assert trends.trend(DEPTH, gathered(tmp_path)[1].compared) is None
    assert trends.trend(DEPTH, []) is None


def test_curves_are_the_epochs_and_mark_the_best(tmp_path):
    fake_runs.run(tmp_path / "coop", config(), (0.2, 0.6))
    fake_runs.run(tmp_path / "vpt", config(VPT(depth=1)), (0.9, 0.3))
    drawn = curves(first(gathered(tmp_path)[1]))
    assert drawn is not None
    lines = [line for line in drawn.figure.axes[0].lines if len(line.get_xdata()) > 1]
    dots = [line for line in drawn.figure.axes[0].lines if len(line.get_xdata()) == 1]
    assert {tuple(line.get_ydata()) for line in lines} == {(0.2, 0.6), (0.9, 0.3)}
    assert [(dot.get_xdata()[0], dot.get_ydata()[0]) for dot in dots] == [(2, 0.6), (1, 0.9)]
    assert [line.get_color() for line in lines] == [style.colour("CoOp"), style.colour("VPT")]
    assert curves({}) is None


def test_parameters_in_use_are_counted(tmp_path):
    learnt = {"learner/context": np.zeros((4, 4, 8), np.float32), "upsampler/kernel": np.zeros((4, 3), np.float32)}
    for name, learner, data, dice in (
        ("a", None, "photos", 0.4),
        ("b", None, "scans", 0.6),
        ("c", VPT(depth=1), "scans", 0.6),
    ):
        fake_runs.run(tmp_path / name, config(learner, data), test=dice, learnt=learnt)
    stored, chosen = gathered(tmp_path)
    assert trained(stored[0]) == 4 * 8 + 4 * 3, "one of four prompts is in use"
    scores = {key: cell.score("dice") for key, cell in chosen.by_key.items()}
    drawn = parameters(first(chosen), {key: score.mean for key, score in scores.items() if score})
    assert drawn is not None
    (point,) = drawn.figure.axes[0].lines
    assert_allclose(point.get_xydata(), [[44, 0.5]])
    assert "Left out, since a data set is missing: VPT (clipseg-tiny)" in drawn.caption


@pytest.mark.parametrize(("count", "method"), [(12, "PED-ANOVA"), (importance.ENOUGH, "fANOVA")])
def test_importance_is_highest_for_the_field_that_decides_scores(count, method, tmp_path):
    draw = np.random.default_rng(0)
    rows = []
    for _ in range(count):
        rate = draw.uniform(-5, -1)
        params = {"learner.depth": int(draw.integers(1, 5)), "optim.learning_rate": 10**rate}
        rows.append((params, float(np.exp(-((rate + 2) ** 2)))))
    half = count // 2
    paths = [journal(tmp_path / name, part) for name, part in (("a", rows[:half]), ("b", rows[half:]))]
    before = [sha256(path) for path in paths]
    weighed = importance.weigh([importance.trials_of(path.parent) for path in paths])
    assert weighed is not None and weighed.trials == count and weighed.method == method
    assert weighed.importances["optim.learning_rate"] > 0.6
    assert_allclose(sum(weighed.importances.values()), 1)
    drawn = importance.importance({RowKey("tiny", "CoOp", ""): [path.parent for path in paths]})
    assert drawn is not None and method in drawn.caption
    assert [path.name for path in sorted(tmp_path.rglob("*"))] == ["a", "journal.log", "b", "journal.log"]
    assert [sha256(path) for path in paths] == before


def test_importance_of_too_few_trials_is_not_drawn(tmp_path):
    rows = [({"learner.depth": 1 + number % 4}, number / 10) for number in range(importance.FEW - 1)]
    journal(tmp_path / "a", rows)
    assert importance.importance({RowKey("tiny", "CoOp", ""): [tmp_path / "a", tmp_path / "none"]}) is None


def test_samples_are_the_best_the_median_the_worst_and_others():
    dice = {f"r{number:02d}": number / 40 for number in range(41)}
    cases = pictures.choose([dice, {id: value / 2 for id, value in dice.items()}], 12)
    by_kind = {kind: [id for id, why in cases.items() if why == kind] for kind in pictures.KINDS}
    assert by_kind["best"] == ["r40", "r39", "r38"] and by_kind["worst"] == ["r02", "r01", "r00"]
    assert by_kind["median"] == ["r21", "r20", "r19"]
    assert len(by_kind["sample"]) == 3 and len(cases) == 12
    assert list(cases.items()) == list(pictures.choose([dice], 12).items()), "the same every time"
    assert len(pictures.choose([{"a": 0.1, "b": 0.5, "c": 0.9}], 12)) == 3
    few = pictures.choose([{"a": 0.1, "b": 0.5, "c": 0.9}], 3)
    assert few == {"c": "best", "b": "median", "a": "worst"}


def scene(id: str, why: str, dice: float) -> Picture:
    mask = np.zeros((48, 64), bool)
    mask[10:30, 10:30] = True
    image = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
    predicted = {("tiny", name): np.roll(mask, shift, axis=1) for shift, name in ((0, "zero-shot"), (9, "CoOp"))}
    return Picture(id, why, "seven", image, mask, predicted, dict.fromkeys(predicted, dice))


def test_examples_show_three_records_and_their_scores():
    pictures_shown = [scene("a", "best", 0.9), scene("b", "median", 0.5), scene("c", "worst", 0.1)]
    drawn = examples("examples", "photos", "tiny", pictures_shown)
    assert drawn.name == "examples"
    titles = [ax.get_title() for ax in drawn.figure.axes]
    assert len(titles) == 3 * 4 and titles[2:4] == ["zero-\nshot\n0.90", "CoOp\n0.90"] and titles[-1] == "0.10"
    truth = drawn.figure.axes[1].images[0].get_array()
    assert (np.ptp(truth, axis=-1) > 0).sum() == 400, "tinted where the mask is, grey elsewhere"


def test_many_combinations_have_rows_of_their_own():
    """Twelve: two blocks of three records, each with the image and the truth."""
    names = ["zero-shot", *(f"method {number}" for number in range(11))]
    scenes = [scene(why, why, 0.5) for why in ("best", "median", "worst")]
    predicted = {("tiny", name): scenes[0].truth for name in names}
    many = [dataclasses.replace(one, predicted=predicted, dice=dict.fromkeys(predicted, 0.5)) for one in scenes]
    axes = examples("examples", "photos", "tiny", many).figure.axes
    assert len(axes) == 3 * (12 + 2 * 2)
    heads = [ax.get_title().removesuffix("\n0.50") for ax in axes if "\n" in ax.get_title()]
    assert [head.replace("-\n", "-").replace("\n", " ") for head in heads] == names


def test_embeddings_of_sets_that_differ_lie_apart_and_always_in_the_same_places():
    draw = np.random.default_rng(0)
    vectors = {
        name: Vectors(
            draw.normal(centre, 0.1, (8, 8)), ["seven", *(f"{name} {n}" for n in range(4))], draw.normal(size=(5, 8))
        )
        for name, centre in (("photos", [3] + [0] * 7), ("scans", [0] * 7 + [3]))
    }
    drawn = [embeddings.embeddings("embeddings", "tiny", vectors) for _ in range(2)]
    places = [
        [np.asarray(points.get_offsets()) for points in each.figure.axes[0].collections] for each in drawn if each
    ]
    assert_allclose(places[0], places[1])
    photos, scans = places[0]
    gap = np.linalg.norm(photos.mean(axis=0) - scans.mean(axis=0))
    assert gap > 2 * max(np.linalg.norm(points - points.mean(axis=0), axis=1).max() for points in (photos, scans))
    assert "seven" in words(drawn[0].figure) and "several sets share" in drawn[0].caption
    few = {"photos": Vectors(np.ones((3, 8)), ["a"], np.ones((1, 8)))}
    assert embeddings.embeddings("embeddings", "tiny", few) is None


NASTY = "<script>alert(1)</script> $x_{$ & \"y'"


def test_files_are_small_the_same_every_time_and_safe_whatever_a_set_is_called(tmp_path):
    fake_runs.run(tmp_path / "run", config(data=NASTY))
    drawn, same = (curves(first(gathered(tmp_path)[1])) for _ in range(2))
    assert drawn is not None and same is not None
    png, svg = style.write(drawn, tmp_path / "one")
    assert png.stat().st_size < 200_000 and cv2.imread(str(png)).shape[1] > 900
    again = [path.read_bytes() for path in style.write(same, tmp_path / "two")]
    assert again == [png.read_bytes(), svg.read_bytes()]
    texts = [text.text for text in ElementTree.parse(svg).iter("{http://www.w3.org/2000/svg}text")]
    assert NASTY in texts and any("metrics.jsonl" in text for text in texts)
    inline = style.svg(drawn)
    assert "<script" not in inline and 'id="curves-' in inline and style.INK not in inline


def test_every_combination_has_another_colour():
    assert len(set(style.LOOKS.values())) == len({colour for colour, _ in style.LOOKS.values()}) == len(style.LOOKS)
    assert style.colour("Another") == style.colour("Another") not in {colour for colour, _ in style.LOOKS.values()}
    assert style.power_of_ten(1e-3) == "10⁻³" and style.power_of_ten(3e4) == "3·10⁴"


@pytest.mark.parametrize("number", [6, 10])
def test_names_of_methods_do_not_overlap(number):
    """Below the dots of every case, with the longest names."""
    keys = tuple(Key("clipseg-tiny", "fine-tuned decoder", "", f"set {place}") for place in range(number))
    scores = np.linspace(0.2, 0.9, number * 20).reshape(number, 20)
    compared = Comparison("busi", keys, [*map(str, range(20))], scores, scores, np.zeros((number, 2)), ())
    figure = cases_figure("cases_0", compared).figure
    FigureCanvasAgg(figure).draw()
    boxes = [label.get_window_extent() for label in figure.axes[0].get_xticklabels()]
    assert len(boxes) == number
    assert all(first.x1 <= second.x0 for first, second in itertools.pairwise(boxes))
