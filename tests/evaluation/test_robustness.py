"""Tests of corruptions against other libraries, and of the commands that calibrate, corrupt and paraphrase."""

import csv
import json
import shutil
from pathlib import Path

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small
from scipy import ndimage

from tunevlseg_jax import evaluate
from tunevlseg_jax.evaluation import phrase_file, robustness
from tunevlseg_jax.evaluation.corruptions import KINDS, NAMES, corrupt
from tunevlseg_jax.prediction import forward
from tunevlseg_jax.reporting import cells, runs
from tunevlseg_jax.reporting import robustness as robustness_tables
from tunevlseg_jax.run import load_run
from tunevlseg_jax.runtime.errors import UserError

quick_compilation = small.quick_compilation
SIZE = (84, 124)


def photograph() -> np.ndarray:
    """(height, width, 3) uint8, smooth with an edge."""
    image = cv2.GaussianBlur(np.random.default_rng(3).normal(size=(*SIZE, 3)), (0, 0), 3)
    image = 128 + 500 * image
    image[:, 60:] += 40
    return np.clip(image, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def corrupted() -> dict[str, np.ndarray]:
    """The photograph under each kind and strength, by one program."""
    program, image = jax.jit(corrupt), jnp.asarray(photograph()[None])
    found = {
        f"{kind}_{number}": np.asarray(
            program(image, jnp.int32(NAMES.index(kind)), jnp.float32(value), jax.random.key(0))
        )
        for kind, values in KINDS.items()
        for number, value in enumerate(values, 1)
    }
    found["clean_0"] = np.asarray(program(image, jnp.int32(0), jnp.float32(9), jax.random.key(0)))
    assert program._cache_size() == 1
    return {name: images[0].astype(float) for name, images in found.items()}


def test_corruptions_are_those_of_other_libraries(corrupted):
    image = photograph()
    assert np.array_equal(corrupted["clean_0"], image)
    sigma = KINDS["blur"][4] * min(SIZE)
    inner = np.s_[16:-16, 16:-16]
    blurred = ndimage.gaussian_filter(image.astype(float), (sigma, sigma, 0), truncate=6)
    assert np.abs(corrupted["blur_5"] - blurred)[inner].max() < 0.51
    blocks = image.reshape(21, 4, 31, 4, 3).mean((1, 3))
    assert np.abs(corrupted["resolution_3"] - blocks.repeat(4, 0).repeat(4, 1)).max() < 0.51
    for number, quality in enumerate(KINDS["jpeg"], 1):
        options = [cv2.IMWRITE_JPEG_QUALITY, int(quality), cv2.IMWRITE_JPEG_SAMPLING_FACTOR]
        _, encoded = cv2.imencode(".jpg", image[..., ::-1], [*options, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444])
        expected = cv2.imdecode(encoded, cv2.IMREAD_COLOR)[..., ::-1].astype(float)
        assert np.abs(corrupted[f"jpeg_{number}"] - expected).mean() < 0.2 * np.abs(expected - image).mean()
    mean = image.mean()
    assert np.abs(corrupted["contrast_2"] - (mean + 0.5 * (image - mean))).max() < 0.51
    assert np.abs(corrupted["brightness_1"] - np.clip(image + 25.5, 0, 255)).max() < 0.51
    within = (image > 100) & (image < 156)
    assert (corrupted["noise_1"] - image)[within].std() == pytest.approx(0.04 * 255, rel=0.1)


def test_each_strength_is_stronger(corrupted):
    for kind, values in KINDS.items():
        errors = [((corrupted[f"{kind}_{n}"] - photograph()) ** 2).mean() for n in range(1, len(values) + 1)]
        assert errors == sorted(errors) and errors[0] > 0


@pytest.fixture(scope="module")
def evaluated(quick_compilation, tmp_path_factory) -> Path:
    """A run that was calibrated, corrupted and paraphrased."""
    folder = tmp_path_factory.mktemp("run") / "run"
    shutil.copytree(small.finished(), folder)
    phrases = folder.parent / "phrases.json"
    phrases.write_text(json.dumps(["{}", "a photo of a {}", "a photo of a {}"]))
    with pytest.MonkeyPatch.context() as patch:
        small.run(patch, evaluate.main, "--run", folder, "--calibrate", "--corrupt", "--phrases", phrases)
    return folder


@pytest.mark.slow  # trains a small run and compiles its evaluation
def test_a_temperature_is_kept_and_used(evaluated, tmp_path):
    card = json.loads((evaluated / "card.json").read_text())
    fitted, run, before = card["calibration"], load_run(evaluated), load_run(small.finished())
    assert run.temperature == fitted["temperature"] != 1 and before.temperature == 1
    assert fitted["nll_after"] < fitted["nll_before"] and (fitted["split"], fitted["data"]) == ("val", "scenes/photo")
    assert fitted["pixels"] == 5 * small.IMAGE**2 or fitted["pixels"] % small.IMAGE**2 == 0
    image = photograph()
    sharp, calibrated = (one.probabilities(image, "seven") for one in (before, run))
    logits = np.log(sharp.astype(np.float64) / (1 - sharp))
    assert calibrated == pytest.approx(forward.sigmoid(logits / run.temperature), abs=1e-4)
    assert np.array_equal(before.predict(image, "seven"), run.predict(image, "seven"))
    assert before.predictor.fingerprint != run.predictor.fingerprint
    stored = json.loads((evaluated / "evaluations" / "scenes_photo_test_model.json").read_text())
    assert [one["temperature"] for one in stored["reliability"]] == [1.0, run.temperature]
    assert {"ece", "ece_balanced", "nll_calibrated"} <= stored["scores"].keys() and "ece" in stored["empty_masks"]
    card["calibration"]["temperature"] = "hot"
    shutil.copytree(evaluated, tmp_path / "broken")
    (tmp_path / "broken" / "card.json").write_text(json.dumps(card))
    with pytest.raises(UserError, match="must be a positive number, got 'hot'"):
        load_run(tmp_path / "broken")


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_scores_of_corrupted_images_and_paraphrases(evaluated):
    """Clean images score as in the evaluation; the numbers are those of the records; a report has them."""
    usual = rows(evaluated / "evaluations" / "scenes_photo_test_model.csv")
    stored = json.loads((evaluated / "robustness" / "scenes_photo_test_corrupted.json").read_text())
    table = rows(evaluated / "robustness" / "scenes_photo_test_corrupted.csv")
    assert [row["id"] for row in table] == [row["id"] for row in usual]
    clean = [float(row["clean"]) for row in table]
    assert clean == pytest.approx([float(row["dice"]) for row in usual], abs=0.02)
    means = {
        name: np.mean([float(row[name]) for row in table]) for name in table[0] if name not in ("id", "label", "unit")
    }
    assert stored["scores"]["clean"] == pytest.approx(means["clean"])
    for kind in KINDS:
        assert stored["scores"][kind] == pytest.approx([means[f"{kind}_{number}"] for number in range(1, 6)])
    assert stored["scores"]["noise"] != stored["scores"]["blur"]
    spoken = json.loads((evaluated / "robustness" / "scenes_photo_test_phrases.json").read_text())["scores"]
    table = rows(evaluated / "robustness" / "scenes_photo_test_phrases.csv")
    worst, count = 0.0, 0
    for name, scores in spoken["classes"].items():
        each = [np.mean([float(row[f"phrase_{n}"]) for row in table if row["label"] == name]) for n in (1, 2)]
        assert list(scores["phrases"].values()) == pytest.approx(each) and len(scores["phrases"]) == 2
        assert (scores["worst"], scores["spread"]) == pytest.approx((min(each), max(each) - min(each)))
        worst, count = worst + min(each) * scores["records"], count + scores["records"]
    assert spoken["worst"] == pytest.approx(worst / count) and count == len(table)
    chosen = cells.choose(runs.gather(evaluated)[0])
    stored_files, unread = robustness_tables.read(chosen)
    shown = robustness_tables.tables(chosen, stored_files)
    assert [one.name for one in shown] == ["robustness_corrupted", "robustness_phrases"] and not unread
    values = dict(zip(shown[0].columns, (entry.value for entry in shown[0].rows[0].entries), strict=True))
    assert values["blur"] == pytest.approx(np.mean(stored["scores"]["blur"]))
    assert shown[1].rows[0].entries[1].value == pytest.approx(spoken["worst"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[", "can't read"),
        ("3", "must hold a JSON list of templates"),
        ('["one {}"]', "two different phrases"),
        ('["one {}", "two"]', "'two' has none"),
        ('["{}", ""]', "aren't empty"),
        ('{"polyp": ["a", "b"], "ulcr": ["a", "b"]}', "no class 'ulcr'; did you mean 'ulcer'"),
        ('{"polyp": ["a", "b"]}', "no phrases for the class 'ulcer'"),
    ],
)
def test_broken_files_of_phrases(tmp_path, content, message):
    (tmp_path / "phrases.json").write_text(content)
    with pytest.raises(UserError, match=message):
        phrase_file.read(tmp_path / "phrases.json", ["polyp", "ulcer"])


def test_classes_with_different_numbers_of_phrases(tmp_path):
    """The Dice of a class is over its own paraphrases alone."""
    (tmp_path / "phrases.json").write_text('{"a": ["x", "y", "z"], "b": ["x", "w"]}')
    phrases = phrase_file.read(tmp_path / "phrases.json", ["a", "b"])

    class Labels:
        label, classes = np.array([0, 1, 1]), ("a", "b")

    dice = [np.array([0.1, 0.5, 0.7]), np.array([0.2, 0.4, 0.6]), np.array([0.9, np.nan, np.nan])]
    scores = robustness.phrase_scores(Labels, phrases, dice)  # type: ignore[arg-type]
    assert scores["classes"]["a"]["mean"] == pytest.approx(0.4) and scores["classes"]["b"]["spread"] == pytest.approx(
        0.1
    )
    assert scores["worst"] == pytest.approx((0.1 + 2 * 0.5) / 3)


@pytest.mark.parametrize("option", [["--ask-absent"], ["--resolution", "original"], ["--threshold", "0.3"]])
def test_other_scores_are_refused(monkeypatch, option, capsys):
    with pytest.raises(SystemExit):
        small.run(monkeypatch, evaluate.main, "--run", "unused", "--corrupt", *option)
    assert option[0] in capsys.readouterr().err
