"""Tests of whole runs: the files of a run, how it resumes, and evaluations and predictions of it."""

import csv
import dataclasses
import json
import shutil
import struct
from pathlib import Path

import compilation
import cv2
import jax
import mistakes
import numpy as np
import pytest
import small
from numpy.testing import assert_array_equal
from PIL import Image
from rich.console import Console
from safetensors.numpy import load_file
from small import metrics

from tunevlseg_jax import evaluate, predict, train
from tunevlseg_jax.config import Optim, Train
from tunevlseg_jax.data import registry
from tunevlseg_jax.data.images import encode_png, read_rgb
from tunevlseg_jax.prediction import forward, table
from tunevlseg_jax.runs import trainer
from tunevlseg_jax.runs.card import CARD_FILE, LEARNT_FILE
from tunevlseg_jax.runs.checkpoint import Checkpoints
from tunevlseg_jax.runs.restore import restore
from tunevlseg_jax.runs.run_folder import RunFolder
from tunevlseg_jax.runs.tensorboard import TensorBoardWriter
from tunevlseg_jax.runtime import schema
from tunevlseg_jax.runtime.files import sha256
from tunevlseg_jax.training import step
from tunevlseg_jax.training.split import Split

quick_compilation = small.quick_compilation

SCORES = ("loss", "dice", "iou", "sample_iou")


def read(path: Path):
    """JSON."""
    return json.loads(path.read_text(encoding="utf-8"))


def events(folder: Path) -> list:
    """TensorBoard's events, file by file: records of a length, its checksum, that many bytes and theirs."""
    from tensorboardX.proto.event_pb2 import Event

    records = []
    for path in sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime_ns):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("Q", data[:8])
            records.append(Event.FromString(data[12 : 12 + length]))
            data = data[16 + length :]
    return records


@pytest.fixture(scope="module")
def finished(quick_compilation) -> Path:
    return small.finished()


def test_run_folder(finished):
    assert {path.name for path in finished.iterdir()} == {
        *("config.json", "metrics.jsonl", "tensorboard", "checkpoints", "prompts.safetensors", "card.json"),
        *("results.json", "fingerprints.json"),
    }
    assert {path.name for path in (finished / "checkpoints").iterdir()} == {"6", "9"}  # the last two
    assert read(finished / "config.json")["learner"]["class"] == "VPT"


def test_metrics_have_a_line_for_each_epoch(finished):
    rows = metrics(finished)
    timed = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert all(row["seconds"] > 0 and row["images_per_second"] > 0 for row in timed)
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    for row in rows:
        assert tuple(row["train"]) == tuple(row["val"]) == SCORES
        assert row["learning_rate"] == pytest.approx(1e-2)
    assert rows[-1]["train"]["loss"] < rows[0]["train"]["loss"]


def test_tensorboard_has_the_same_metrics(finished):
    version, start, *epochs = events(finished / "tensorboard")
    assert version.file_version == "brain.Event:2" and start.session_log.status == start.session_log.START
    for event, row in zip(epochs, metrics(finished), strict=True):
        scores = {value.tag: value.simple_value for value in event.summary.value}
        expected = {f"{part}/{name}": value for part in ("train", "val") for name, value in row[part].items()}
        assert event.step == row["epoch"] and event.wall_time > 0
        assert scores == pytest.approx(expected | {"learning_rate": row["learning_rate"]})


def test_learnt_tensors_and_card(finished):
    learnt, card = load_file(finished / "prompts.safetensors"), read(finished / "card.json")
    experiment = small.build(small.config())
    assert {name: (array.shape, array.dtype) for name, array in learnt.items()} == {
        name: (array.shape, array.dtype) for name, array in experiment.trainable.items()
    }
    assert (finished / "prompts.safetensors").stat().st_size < 10_000
    assert card["model_sha256"] == sha256(small.model_folder() / "model.safetensors")
    assert card["protocol"]["image_size"] == [small.IMAGE, small.IMAGE]
    assert card["data"]["test"] == experiment.split("test").records.fingerprint()
    assert card["scores"] == read(finished / "results.json")
    dices = [row["val"]["dice"] for row in metrics(finished)]
    assert card["best_epoch"] == 1 + int(np.argmax(dices))
    assert card["scores"]["tuned"]["val"]["dice"] == max(dices)
    assert card["scores"]["zero-shot"]["val"] != card["scores"]["tuned"]["val"]


def test_a_finished_run_is_not_trained_again(finished, tmp_path, monkeypatch, capsys):
    shutil.copytree(finished, tmp_path / "run")
    config = small.write_config(tmp_path / "config.py", small.config(tmp_path / "run"))
    monkeypatch.setattr(step, "train_step", None)
    small.run(monkeypatch, train.main, "--config", config)
    assert "going on after epoch 3" in capsys.readouterr().out
    for name in ("metrics.jsonl", "prompts.safetensors", "results.json"):
        assert (tmp_path / "run" / name).read_bytes() == (finished / name).read_bytes()
    card = read(tmp_path / "run" / "card.json")
    assert card == read(finished / "card.json") | {
        "config": schema.to_json(small.config(tmp_path / "run")),
        "command": f"python -m tunevlseg_jax.train --config {config}",
    }
    trainer.train(small.config(tmp_path / "run"), Console(quiet=True))
    assert read(tmp_path / "run" / "card.json") == card, "a call without a command line keeps the command"


def test_the_command_line_overrides_the_file_and_compiles_nothing_again(tmp_path, monkeypatch, capsys):
    config = small.write_config(tmp_path / "config.py", small.config())
    small.run(monkeypatch, train.main, "--config", config, "--workdir", tmp_path / "as-written")
    learner = "--learner.depth", "3"
    options = (*learner, "--optim.learning-rate", "0.02", "--optim.weight-decay", "0.1", "--train.epochs", "2")
    with compilation.counted() as compiled:
        small.run(monkeypatch, train.main, "--config", config, "--workdir", tmp_path / "run", *options)
    assert compiled["train_step"] == compiled["eval_step"] == 0
    stored = read(tmp_path / "run" / "config.json")
    assert (stored["learner"]["depth"], stored["learner"]["num_context"], stored["train"]["epochs"]) == (3, 2, 2)
    assert (stored["optim"]["learning_rate"], stored["optim"]["weight_decay"]) == (0.02, 0.1)
    assert len(metrics(tmp_path / "run")) == 2
    out = capsys.readouterr().out
    for words in ("VPT on", "zero-shot", "tuned", "val Dice", "test IoU", "images/s", "6/6"):
        assert words in out


@pytest.mark.slow
def test_early_stopping_ends_the_run(finished, tmp_path):
    settings = Train(epochs=9, batch_size=4, patience=2, min_delta=10.0)
    results = trainer.train(small.config(tmp_path / "run", train=settings), Console(quiet=True))
    assert len(metrics(tmp_path / "run")) == 3  # the first is an improvement on nothing, and then two
    assert read(tmp_path / "run" / "results.json") == results


def test_a_plateau_lowers_the_learning_rate(finished, tmp_path):
    config = small.config(tmp_path / "run", optim=Optim(learning_rate=1e-2, plateau_patience=1))
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, min_delta=10.0))
    trainer.train(config, Console(quiet=True))
    assert [row["learning_rate"] for row in metrics(tmp_path / "run")] == pytest.approx([1e-2, 1e-2, 2e-3])


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (RunFolder, "add_metrics"),
        (TensorBoardWriter, "add"),
        (Checkpoints, "save"),
        (trainer, "_epoch_line"),
        (trainer, "_save"),
    ],
)
def test_a_run_may_be_interrupted_anywhere(finished, tmp_path, monkeypatch, capsys, owner, name):
    config = small.write_config(tmp_path / "config.py", small.config(tmp_path / "run"))
    calls = []

    def interrupted(*arguments):
        calls.append(arguments)
        if len(calls) == 2 or owner is trainer:
            raise KeyboardInterrupt
        return write(*arguments)

    write = getattr(owner, name)
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, interrupted)
        with pytest.raises(SystemExit) as stop:
            small.run(monkeypatch, train.main, "--config", config)
    assert stop.value.code == 130 and capsys.readouterr().err == "interrupted: the same command goes on\n"
    small.check_that_it_continues(tmp_path / "run")
    assert {event.step for event in events(tmp_path / "run" / "tensorboard") if event.summary.value} == {1, 2, 3}


def scored(monkeypatch, folder: Path, *options: object) -> tuple[dict, list[dict]]:
    """What `evaluate` writes: of the set, and of each record."""
    small.run(monkeypatch, evaluate.main, "--run", folder, *options)
    (path,) = (folder / "evaluations").glob("*.json")
    with path.with_suffix(".csv").open(encoding="utf-8", newline="") as file:
        return read(path), list(csv.DictReader(file))


@pytest.fixture
def shared(finished, tmp_path) -> Path:
    """A folder with the two files to share."""
    folder = tmp_path / "shared"
    folder.mkdir()
    for name in (LEARNT_FILE, CARD_FILE):
        shutil.copy(finished / name, folder)
    return folder


@pytest.mark.parametrize("split", ["val", "test"])
def test_evaluating_gives_the_scores_of_training(finished, shared, monkeypatch, split):
    details, rows = scored(monkeypatch, shared, "--split", split)
    results = read(finished / "results.json")["tuned"][split]
    del results["loss"]
    assert {name: details["scores"][name] for name in results} == pytest.approx(results, rel=1e-6)
    assert (details["split"], details["size"], details["records"]) == (split, "48x48", len(rows))
    assert details["data_sha256"] == read(finished / "card.json")["data"][split]


def test_evaluating_from_the_run_folder(finished, monkeypatch, capsys):
    details, _ = scored(monkeypatch, finished)
    shutil.rmtree(finished / "evaluations")
    assert details["scores"]["dice"] == pytest.approx(
        read(finished / "results.json")["tuned"]["test"]["dice"], rel=1e-6
    )
    assert f"{details['scores']['dice']:.4f}" in capsys.readouterr().out


def test_scores_of_the_records_give_the_scores_of_the_split(shared, monkeypatch):
    details, rows = scored(monkeypatch, shared)
    columns = {name: np.asarray([float(row[name]) for row in rows]) for name in ("dice", "iou")}
    both, either = (sum(float(row[name]) for row in rows) for name in ("intersection", "union"))
    means = {"dice": columns["dice"].mean(), "sample_iou": columns["iou"].mean(), "iou": both / either}
    assert {name: details["scores"][name] for name in means} == pytest.approx(means, rel=1e-6)
    records = small.build(small.config()).split("test").records
    assert [row["id"] for row in rows] == list(records.ids)
    assert [row["prompt"] for row in rows] == [records.prompts[prompt][0] for prompt in records.prompt]


def test_evaluating_at_the_size_of_the_masks(finished, shared, monkeypatch):
    """The model sees 48 pixels, the data has 96: logits are enlarged, and not masks."""
    details, rows = scored(monkeypatch, shared, "--resolution", "original")
    assert details["size"] == "96x96"
    experiment = small.build(small.config())
    split, true_masks = experiment.split("test"), registry.originals(experiment.config.data, "test")
    for row, logits, target in zip(rows, logits_of(finished, split), true_masks, strict=True):
        (mask,) = target.masks
        marked = cv2.resize(logits, (96, 96), interpolation=cv2.INTER_LINEAR) > 0
        assert float(row["union"]) == pytest.approx((marked | mask).sum(), abs=5)  # pixels on the brink
        assert float(row["intersection"]) == pytest.approx((marked & mask).sum(), abs=5)


def logits_of(folder: Path, split: Split) -> list[np.ndarray]:
    """Each record's logits at the model's size, as `predict` makes them."""
    experiment, learnt = restore(folder)
    hyper = jax.tree.map(lambda values: values[0], experiment.hyper())
    params, logits, phrases = {**experiment.frozen, **learnt}, [], np.zeros(forward.BATCH, np.int32)
    for image, prompt in zip(split.records.images, split.records.prompt, strict=True):
        batch = np.broadcast_to(image, (forward.BATCH, *image.shape))
        row = jax.tree.map(lambda rows, prompt=prompt: rows[prompt : prompt + 1], split.table)
        answers = step.answer_step(params, batch, phrases, row, hyper, network=experiment.network)
        logits.append(np.asarray(answers.logits)[0])
    return logits


def test_evaluating_on_another_domain(shared, monkeypatch):
    details, _ = scored(monkeypatch, shared, "--data.name", "scenes/xray")
    assert details["data"] == "scenes/xray" and (shared / "evaluations" / "scenes_xray_test_model.csv").is_file()


@pytest.fixture
def images(tmp_path) -> Path:
    """A folder with every kind of image that people have."""
    rng = np.random.default_rng(0)
    colour = cv2.GaussianBlur(rng.integers(0, 256, (60, 90, 3)).astype(np.uint8), (0, 0), 1)
    folder = tmp_path / "Bilder für 画像"
    folder.mkdir()
    for name, image in {
        "landscape.jpg": colour,
        "portrait.PNG": np.ascontiguousarray(colour.transpose(1, 0, 2)),
        "grey.png": colour[..., 0],
        "alpha.png": np.dstack([colour, colour[..., 0]]),
        "sixteen.png": colour.astype(np.uint16) * 257,
        "sixteen grey.tif": colour[..., 1].astype(np.uint16) * 257,
        "größe 画像.jpeg": cv2.resize(colour, (301, 33)),
        "tiny.bmp": colour[:5, :3],
        "one.webp": colour[:1, :1],
    }.items():
        (folder / name).write_bytes(cv2.imencode(Path(name).suffix.lower(), image)[1].tobytes())
    (folder / "notes.txt").write_text("no image")
    return folder


def test_predicting(finished, images, tmp_path, monkeypatch, capsys):
    output = tmp_path / "masks"
    paths = sorted(path for path in images.iterdir() if path.suffix != ".txt")
    options = "--run", finished, "--prompt", "seven", "--threshold", "0.02", "--output", output
    small.run(monkeypatch, predict.main, *options, "--image", images)
    assert len(paths) == 9 and "9 images" in capsys.readouterr().out
    expected = {f"{path.stem}_{kind}.png" for path in paths for kind in ("mask", "overlay")}
    assert {path.name for path in output.iterdir()} == expected | {table.LIST_FILE}
    listed = (output / table.LIST_FILE).read_text(encoding="utf-8").splitlines()
    assert listed[0] == ",".join(table.COLUMNS) and len(listed) == 10
    marked = 0
    for path in paths:
        image = read_rgb(path)
        mask = cv2.imdecode(np.frombuffer((output / f"{path.stem}_mask.png").read_bytes(), np.uint8), -1)
        assert mask.dtype == np.uint8 and mask.shape == image.shape[:2]  # one channel
        assert set(np.unique(mask)) <= {0, 255}
        overlay = read_rgb(output / f"{path.stem}_overlay.png")
        assert overlay.shape == image.shape
        changed = (overlay != image).any(axis=-1)
        assert changed[mask > 0].mean() > 0.9 if mask.any() else not changed.any()
        marked += mask.any()
    assert marked


@pytest.mark.parametrize("threshold", [0.5, 0.4])
def test_predicting_at_the_size_of_a_large_image(finished, tmp_path, monkeypatch, threshold):
    """Logits are enlarged, and not probabilities: these are the masks that `evaluate --resolution original` scores."""
    split = small.build(small.config()).split("test")
    image = np.concatenate([split.records.images[0], split.records.images[1]], axis=1).repeat(10, 0).repeat(10, 1)
    (tmp_path / "large.png").write_bytes(encode_png(image))
    options = "--run", finished, "--prompt", "seven", "--threshold", threshold, "--output", tmp_path / "masks"
    small.run(monkeypatch, predict.main, *options, "--image", tmp_path / "large.png")
    mask = read_rgb(tmp_path / "masks" / "large_mask.png")[..., 0]
    experiment, learnt = restore(finished)
    hyper = jax.tree.map(lambda values: values[0], experiment.hyper())
    batch = np.zeros((forward.BATCH, small.IMAGE, small.IMAGE, 3), np.uint8)
    batch[0] = cv2.resize(image, (small.IMAGE, small.IMAGE), interpolation=cv2.INTER_CUBIC)
    phrases, table = np.zeros(forward.BATCH, np.int32), experiment.encode_text(["seven"])
    params = {**experiment.frozen, **learnt}
    answers = step.answer_step(params, batch, phrases, table, hyper, network=experiment.network)
    enlarged = cv2.resize(np.asarray(answers.logits)[0], image.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    assert_array_equal(mask > 0, enlarged > np.log(threshold / (1 - threshold)))
    assert 0 < (mask > 0).mean() < 1


def test_predicting_again_keeps_what_was_predicted(finished, images, tmp_path, monkeypatch):
    """Also of the same images, with another prompt."""
    options = "--run", finished, "--output", tmp_path / "masks"
    for prompt, names in (("seven", ("grey.png", "one.webp")), ("two, or 画像", ("grey.png", "tiny.bmp"))):
        given = [images / name for name in names]
        small.run(monkeypatch, predict.main, *options, "--prompt", prompt, "--image", *given)
    with (tmp_path / "masks" / table.LIST_FILE).open(newline="", encoding="utf-8") as file:
        rows = [(row["image"], row["prompt"], row["mask"]) for row in csv.DictReader(file)]
    assert rows == [
        (str(images / "grey.png"), "seven", "grey_mask.png"),
        (str(images / "one.webp"), "seven", "one_mask.png"),
        (str(images / "grey.png"), "two, or 画像", "grey_two-or-画像_mask.png"),
        (str(images / "tiny.bmp"), "two, or 画像", "tiny_mask.png"),
    ]


def test_predicting_does_not_depend_on_the_other_images(finished, images, tmp_path, monkeypatch):
    for name in ("all", "one"):
        given = images if name == "all" else images / "portrait.PNG"
        options = "--run", finished, "--prompt", "seven", "--threshold", "0.02", "--output", tmp_path / name
        small.run(monkeypatch, predict.main, *options, "--image", given)
    masks = [(tmp_path / name / "portrait_mask.png").read_bytes() for name in ("all", "one")]
    assert masks[0] == masks[1] and len(list((tmp_path / "one").iterdir())) == 3


def test_sixteen_bits_are_the_eight_that_matter(images):
    assert_array_equal(read_rgb(images / "sixteen.png"), read_rgb(images / "alpha.png"))
    assert_array_equal(read_rgb(images / "grey.png")[..., 0], read_rgb(images / "sixteen.png")[..., 2])


def test_deep_images_take_the_window_of_the_run(finished, images, tmp_path, monkeypatch, capsys):
    """Else one for all of them: 12 bits in 16 give the mask of the 8-bit image."""
    grey = read_rgb(images / "grey.png")[..., 0]
    small_path, deep_path = tmp_path / "eight.png", tmp_path / "deep.png"
    small_path.write_bytes(cv2.imencode(".png", grey)[1].tobytes())
    deep_path.write_bytes(cv2.imencode(".png", grey.astype(np.uint16) * 16)[1].tobytes())
    options = "--run", finished, "--prompt", "seven", "--threshold", "0.02", "--image", small_path, deep_path
    for name, window in (("none", ()), ("given", ("--window", 0, 4080))):
        small.run(monkeypatch, predict.main, *options, "--output", tmp_path / name, *window)
        shown = f"0 to {4080 if window else 4095} become 0 to 255 (--window)"
        assert shown in " ".join(capsys.readouterr().out.split())
        eight, deep = (read_rgb(tmp_path / name / f"{image}_mask.png") > 0 for image in ("eight", "deep"))
        assert eight.any() and (eight != deep).mean() < 0.02


def test_pages_of_a_tiff_are_refused_but_reduced_copies_are_not(tmp_path):
    path = tmp_path / "image.tif"
    page = Image.fromarray(np.full((8, 8, 3), 90, np.uint8))
    copy = page.resize((4, 4))
    for reduced in (True, False):
        copy.encoderinfo = {"tiffinfo": {254: int(reduced)}}
        page.save(path, save_all=True, append_images=[copy])
        if reduced:
            assert read_rgb(path).shape == (8, 8, 3)
        else:
            with mistakes.raises(r"several-pages: image\.tif .*2"):
                read_rgb(path)
