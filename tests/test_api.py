"""Tests of the Python API: arrays in, masks out, the same numbers as the commands, and a line for each mistake."""

import csv
import dataclasses
import json
import re
import sys

import cv2
import mistakes
import numpy as np
import pages
import pytest
import small
from numpy.testing import assert_allclose, assert_array_equal

import tunevlseg_jax as tv
from tunevlseg_jax import config as configuration
from tunevlseg_jax import evaluate, predict
from tunevlseg_jax.data.builders.arrays import ArrayDataset
from tunevlseg_jax.data.images import encode_png
from tunevlseg_jax.runtime import schema
from tunevlseg_jax.runtime.optional import import_simpleitk

quick_compilation = small.quick_compilation
UserError = tv.UserError


@pytest.fixture(scope="module")
def run() -> tv.Run:
    return tv.load_run(small.finished())


def picture(height: int = 40, width: int = 60, seed: int = 0) -> np.ndarray:
    """(height, width, 3) uint8, smooth."""
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)
    return cv2.GaussianBlur(noise, (0, 0), 2)


def blobs(count: int = 8) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Images of several sizes, grey, RGB and RGBA, and masks of every allowed kind."""
    images, masks = [], []
    for number in range(count):
        image = picture(40 + number, 60, number)
        mask = np.zeros(image.shape[:2], bool)
        mask[10:25, 10 + number : 30] = True
        image[mask] = 250
        images.append((image, image[..., 0], np.dstack([image, image[..., 0]]))[number % 3])
        masks.append((mask, mask.astype(np.uint8), mask * np.uint8(255), mask.astype(np.int64))[number % 4])
    return images, masks


SPLITS = ["train"] * 4 + ["val"] * 2 + ["test"] * 2


def dataset() -> ArrayDataset:
    return tv.records(*blobs(), "blob", split=SPLITS)


def test_every_name_is_there():
    assert {*tv.__all__} <= {*dir(tv)} and all(getattr(tv, name) is not None for name in tv.__all__)
    assert callable(tv.train) and callable(tv.sweep)
    with pytest.raises(AttributeError, match="nothing"):
        _ = tv.nothing


def test_an_image_may_be_grey_rgb_or_rgba(run):
    image = picture()
    mask = run.predict(image, "seven")
    assert mask.shape == (40, 60) and mask.dtype == bool
    grey = image[..., 0]
    assert_array_equal(run.predict(grey, "seven"), run.predict(np.dstack([grey] * 3), "seven"))
    assert_array_equal(run.predict(np.dstack([image, grey]), "seven"), mask)


def test_several_images_give_a_list(run):
    images = [picture(20 + 3 * number, 50, number) for number in range(10)]
    chances = run.probabilities(images, "seven")
    assert [one.shape for one in chances] == [image.shape[:2] for image in images]
    assert all(one.dtype == np.float32 and one.min() >= 0 and one.max() <= 1 for one in chances)
    for image, one in zip(images[7:], chances[7:], strict=True):
        assert_allclose(run.probabilities(image, "seven"), one, atol=1e-5)
    batch = run.predict(np.stack([picture(), picture(seed=1)]), ["seven", "two"])
    assert_array_equal(batch[1], run.predict(picture(seed=1), "two"))
    assert run.predict([], "seven") == []


def test_several_prompts_for_one_image(run):
    """Each mask is that of its prompt alone, and the label map takes the likeliest."""
    image, prompts = picture(), ["seven", "two", "three"]
    chances = run.probabilities(image, prompts)
    for chance, prompt in zip(chances, prompts, strict=True):
        assert_allclose(chance, run.probabilities(image, prompt), atol=1e-5)
    least = float(np.quantile(np.stack(chances).max(axis=0), 0.4))
    labels = run.label_map(image, prompts, threshold=least)
    best = np.stack(chances)
    clear = np.abs(np.sort(best, axis=0)[-1] - np.sort(best, axis=0)[-2]) > 1e-4
    clear &= np.abs(best.max(axis=0) - least) > 1e-4
    expected = np.where(best.max(axis=0) > least, best.argmax(axis=0) + 1, 0)
    assert labels.dtype == np.uint8 and clear.mean() > 0.9
    assert_array_equal(labels[clear], expected[clear])
    masks = run.predict(image, prompts, threshold=least)
    assert len(masks) == 3 and all((labels[mask] > 0).all() for mask in masks)
    (again, other) = run.label_map([image, picture(30, 20, 1)], prompts, threshold=least)
    assert (again == labels).mean() > 0.99 and other.shape == (30, 20)
    with mistakes.raises("out-of-range: 255 prompts, got 0"):
        run.label_map(image, [])


def test_a_volume_is_predicted_slice_by_slice(run, tmp_path):
    """As `predict` of its slices; the SimpleITK images have the geometry of the volume, which may be a file."""
    sitk = import_simpleitk("a test")
    slices = [picture(30, 40, number)[..., 0] for number in range(3)]
    image = sitk.GetImageFromArray(np.stack(slices))
    image.SetSpacing((0.5, 0.75, 3))
    image.SetOrigin((1, -2, 3))
    image.SetDirection((0.6, 0.8, 0, -0.8, 0.6, 0, 0, 0, 1))
    chances = run.volume_probabilities(image, ["seven", "two"])
    least = float(np.quantile(sitk.GetArrayFromImage(chances[0]), 0.5))
    sitk.WriteImage(image, str(tmp_path / "a.nrrd"))
    mask = run.predict_volume(tmp_path / "a.nrrd", "seven", threshold=least)
    for answer in (mask, *chances):
        for what in ("Size", "Spacing", "Origin", "Direction"):
            assert_allclose(getattr(answer, f"Get{what}")(), getattr(image, f"Get{what}")(), atol=1e-6, rtol=0)
    turned = sitk.GetArrayFromImage(sitk.DICOMOrient(image, "LPS"))
    for chance, prompt in zip(chances, ("seven", "two"), strict=True):
        expected = np.stack(run.probabilities(list(turned), prompt))
        assert_allclose(sitk.GetArrayFromImage(sitk.DICOMOrient(chance, "LPS")), expected, atol=1e-5)
    sure = np.abs(sitk.GetArrayFromImage(chances[0]) - least) > 1e-4
    marked = sitk.GetArrayFromImage(mask)
    assert mask.GetPixelID() == sitk.sitkUInt8 and sure.mean() > 0.9
    assert_array_equal(marked[sure], (sitk.GetArrayFromImage(chances[0]) > least)[sure])
    (sagittal,) = run.predict_volume(image, ["seven"], axis="sagittal")
    assert sagittal.GetSize() == image.GetSize()
    for options, says in (
        ({"axis": "axal"}, "unknown-choice: axis must be axial, .*got 'axal'.*did you mean 'axial'"),
        ({"window": (5, 5)}, "wrong-window: LOW below"),
        ({"threshold": 1}, "out-of-range: threshold"),
    ):
        with mistakes.raises(says):
            run.predict_volume(image, "seven", **options)


def test_a_threshold_cuts_the_probabilities(run):
    image = picture(100, 80)
    for threshold in (0.1, 0.5, 0.9):
        assert_array_equal(
            run.predict(image, "seven", threshold=threshold), run.probabilities(image, "seven") > threshold
        )


def test_masks_are_those_of_the_command(run, tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(encode_png(picture()))
    options = "--run", small.finished(), "--image", path, "--prompt", "seven", "--threshold", 0.3
    small.run(monkeypatch, predict.main, *options, "--output", tmp_path / "masks")
    written = cv2.imread(str(tmp_path / "masks" / "a_mask.png"), cv2.IMREAD_UNCHANGED)
    for given in (picture(), path, str(path)):
        assert_array_equal(run.predict(given, "seven", threshold=0.3), written > 0)


def test_scores_are_those_of_the_command(run, tmp_path, monkeypatch, capsys):
    options = "--run", small.finished(), "--resolution", "original", "--output", tmp_path
    small.run(monkeypatch, evaluate.main, *options)
    (path,) = tmp_path.glob("*.json")
    capsys.readouterr()
    assert run.evaluate(resolution="original") == json.loads(path.read_text(encoding="utf-8"))["scores"]
    assert run.evaluate(split="test")["dice"] == pytest.approx(run.scores["tuned"]["test"]["dice"], abs=1e-5)
    assert capsys.readouterr() == ("", "")
    other = dataclasses.replace(run.config.data, name="scenes/xray")
    assert run.evaluate(other, "val")["records"] == 5


@pytest.mark.parametrize(("threshold", "name"), [(0.5, "original"), (0.2, "original_threshold0.2")])
def test_probabilities_are_those_that_evaluation_scores(run, tmp_path, threshold, name):
    images, masks = blobs()
    data = tv.records(images, masks, "blob", split="test")
    scores = run.evaluate(data, resolution="original", threshold=threshold, output=tmp_path)
    assert json.loads((tmp_path / f"records_test_{name}.json").read_text())["threshold"] == threshold
    with (tmp_path / f"records_test_{name}.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert scores["records"] == len(rows) == len(images)
    for row, chance, mask in zip(rows, run.probabilities(images, "blob"), masks, strict=True):
        assert float(row["intersection"]) == pytest.approx(((chance > threshold) & (mask > 0)).sum(), abs=2)
        assert float(row["union"]) == pytest.approx(((chance > threshold) | (mask > 0)).sum(), abs=2)


def test_a_model_as_it_is():
    model = tv.load_model(small.model_folder())
    assert model.folder is None and model.scores == {} and model.config.learner == tv.ZeroShot()
    assert model.predict(picture(), "seven").shape == (40, 60)
    assert model.evaluate(tv.records(*blobs(2), "blob", split="test"))["records"] == 2


def test_training_on_arrays(tmp_path, capsys, monkeypatch):
    config, epochs = small.config(tmp_path / "run"), []
    run = tv.train(config, records=dataset(), on_epoch=epochs.append)
    assert capsys.readouterr() == ("", "")
    assert [epoch["epoch"] for epoch in epochs] == [1, 2, 3]
    assert {"loss", "dice"} <= epochs[0]["train"].keys() & epochs[0]["val"].keys() and "learning_rate" in epochs[0]
    assert run.scores["tuned"].keys() == {"val", "test"} and run.config.data.name == "records"
    again = tv.load_run(run.folder)
    assert_array_equal(again.probabilities(picture(), "blob"), run.probabilities(picture(), "blob"))
    assert again.evaluate()["dice"] == pytest.approx(run.scores["tuned"]["test"]["dice"], abs=1e-5)

    written = (tmp_path / "run" / "card.json").read_bytes()
    tv.train(config, records=dataset(), on_epoch=epochs.append)  # finished: nothing is trained again
    assert len(epochs) == 3 and (tmp_path / "run" / "card.json").read_bytes() == written
    with mistakes.raises("other-folder: run "):
        tv.train(config, records=tv.records(*blobs(), "spot", split=SPLITS))

    (tmp_path / "run").rename(tmp_path / "moved")
    moved = tv.load_run(tmp_path / "moved")
    assert moved.evaluate() == again.evaluate.__func__(moved)  # reads the records where they are now
    small.run(monkeypatch, evaluate.main, "--run", tmp_path / "moved")
    assert (tmp_path / "moved" / "evaluations" / "records_test_model.json").is_file()


@pytest.mark.slow
def test_a_failed_start_leaves_the_folder_free(tmp_path):
    config = small.config(tmp_path / "run")
    with mistakes.raises("no-such-model: 'nowhere'"):
        tv.train(dataclasses.replace(config, model=tv.Model(checkpoint="nowhere")), records=dataset())
    tv.train(dataclasses.replace(config, train=tv.Train(epochs=1, batch_size=4)), records=dataset())


@pytest.mark.slow
def test_a_sweep_on_arrays(tmp_path, capsys):
    options = {"trials": 2, "parallel": 2, "space": ("learning_rate=1e-3..1e-2", "depth=2")}
    config = small.config(train=tv.Train(epochs=1, batch_size=4, augment=False))
    summary = tv.sweep(config, "s", records=dataset(), folder=tmp_path, **options)
    assert summary == json.loads((tmp_path / "s" / "summary.json").read_text(encoding="utf-8"))
    assert summary["trials"] == 2 and capsys.readouterr() == ("", "")


def changed(index: int, what: str, value) -> dict:
    """`records`' arguments with one image, mask, prompt or split of another value."""
    images, masks = blobs(3)
    given = {"images": images, "masks": masks, "prompts": ["blob"] * 3, "split": ["train"] * 3}
    given[what][index] = value
    return given


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (changed(1, "images", np.zeros((4, 5, 2), np.uint8)), r"wrong-shape: image 1 .*\(4, 5, 2\)"),
        (changed(2, "images", np.zeros((4, 5), complex)), "wrong-type: image 2 .*uint8.*complex128"),
        (changed(1, "masks", np.zeros((4, 5), bool)), r"mask-size: mask 1 .*\(4, 5\), .*\(41, 60\)"),
        (changed(0, "masks", np.full((40, 60), 7)), "mask-not-binary: mask 0 .*7"),
        (changed(0, "masks", np.zeros((40, 60))), "wrong-type: mask 0 .*float64"),
        (changed(1, "prompts", " "), "empty-prompt: prompt 1"),
        (changed(1, "prompts", 3), "wrong-type: prompt 1 .*3"),
        (changed(2, "split", "vla"), "unknown-split: 2 .*'vla'.*'val'"),
        ({**changed(0, "prompts", "a"), "prompts": ["a"]}, "counts-differ: 3 images.* 1 prompts"),
        ({**changed(0, "prompts", "a"), "masks": []}, "counts-differ: 3 images.* 0 masks"),
        ({**changed(0, "prompts", "a"), "split": ["train"]}, "counts-differ: 3 images.* 1 splits"),
        ({"images": [], "masks": [], "prompts": "a", "split": "train"}, "no-images"),
    ],
)
def test_mistakes_in_records(given, says):
    with mistakes.raises(says):
        tv.records(**given)


def test_mistakes_in_predicting(run, tmp_path):
    (tmp_path / "a.dcm").write_bytes(bytes(128) + b"DICM")
    for image, prompt, threshold, says in (
        (picture(), " ", 0.5, "empty-prompt: ^prompt "),
        (picture(), "seven", 1, "out-of-range: ^threshold .*0 .*1, .* 1 "),
        (picture().astype(complex), "seven", 0.5, "wrong-type: the image .*complex128"),
        ([picture(), picture()[..., :2]], "seven", 0.5, r"wrong-shape: image 1 .*\(40, 60, 2\)"),
        ([picture()], ["seven", "two"], 0.5, "counts-differ: 1 images.* 2 prompts"),
        (tmp_path / "no.png", "seven", 0.5, "unreadable: no.png"),
        (tmp_path / "scan.nii.gz", "seven", 0.5, "medical-file: scan.nii.gz .*Run.predict_volume"),
        ([str(tmp_path / "a.dcm")], "seven", 0.5, "medical-file: a.dcm .*Run.predict_volume"),
        (picture(), "seven " * 30, 0.5, "prompt-too-long: 'seven seven .* 33 .* 24 "),
    ):
        with mistakes.raises(says):
            run.predict(image, prompt, threshold=threshold)


def test_mistakes_in_loading_and_training(tmp_path, run):
    config = small.config(tmp_path / "run")
    train = dataclasses.replace(config.train, epochs=0)
    for call, says in (
        (lambda: tv.load_run(tmp_path), "run-unfinished: card.json in .*no run folder"),
        (lambda: tv.load_model("nowhere"), "no-such-model: 'nowhere'"),
        (lambda: run.evaluate(split="tset"), "unknown-split: 'tset'"),
        (lambda: tv.train("quickstart"), "wrong-type: Config, .*str"),
        (lambda: tv.train(dataclasses.replace(config, train=train)), "out-of-range: train.epochs .*0"),
        (
            lambda: tv.train(dataclasses.replace(config, upsampling="blnd")),
            "unknown-choice: upsampling .*'blnd'.*'blend'",
        ),
        (lambda: tv.train(config, records=tv.records(*blobs(2), "a", split="train")), "unknown-split: 'val'.*train"),
        (lambda: tv.sweep(config, "s", trails=2), "unknown-option: 'trails'.*'trials'"),
        (lambda: tv.sweep(config, "s", folder=tmp_path, trials=0), "out-of-range: trials .*0"),
        (lambda: tv.sweep(config, "../s", folder=tmp_path), "invalid-name: study .*'../s'"),
    ):
        with mistakes.raises(says):
            call()
    assert not (tmp_path / "run").exists() and not (tmp_path / "s").exists()


def test_configurations_have_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("quickstart", "quickstart.py", "configs/quickstart.py"):
        assert configuration.load(name) == configuration.load(str(small.ROOT / "configs" / "quickstart.py"))
    with mistakes.raises(r"no-such-file: quikstart.*'quickstart'"):
        configuration.load("quikstart")
    with mistakes.raises("no-such-file: study_paper"):
        configuration.load("study_paper")
    small.write_config(tmp_path / "quickstart", small.config())  # a file goes first
    assert configuration.load("quickstart") == small.config()


def test_a_runs_config_json_is_a_configuration(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(schema.to_json(small.config())), encoding="utf-8")
    assert configuration.load(str(path)) == small.config()
    path.write_text("[]", encoding="utf-8")
    with mistakes.raises("wrong-json"):
        configuration.load(str(path))
    with mistakes.raises(r"no-such-file: other\.json"):
        configuration.load(str(tmp_path / "other.json"))


@pytest.mark.slow
def test_the_page_runs(tmp_path, monkeypatch):
    """Every block of docs/python.md, one after the other."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["python"])
    names: dict = {"__name__": "page"}
    for block in pages.blocks("docs/python.md"):
        if block.kind == "python":
            code = "\n" * (block.line - 1) + "\n".join(block.lines)
            code = re.sub(r"epochs=\d+", "epochs=1", code)
            exec(compile(code, "docs/python.md", "exec", dont_inherit=True), names)
