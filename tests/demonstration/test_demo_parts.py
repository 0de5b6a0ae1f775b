"""Tests of the parts of the demo: limits of uploads, levels, names, corrections, and the guard of the server."""

import asyncio
import csv
import io
import threading
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest
from demo_user import of_url, picture, png
from PIL import Image

from tunevlseg_jax.config import Config, Train
from tunevlseg_jax.data.images import read_rgb
from tunevlseg_jax.demonstration import answers, downloads, sessions, uploads
from tunevlseg_jax.demonstration.corrections import Corrections
from tunevlseg_jax.demonstration.guards import Guard
from tunevlseg_jax.demonstration.learning import Training, configuration
from tunevlseg_jax.demonstration.models import MOST_PHRASES
from tunevlseg_jax.demonstration.sessions import Sessions
from tunevlseg_jax.demonstration.uploads import Limits
from tunevlseg_jax.prediction import forward
from tunevlseg_jax.runtime.errors import UserError

LIMITS = Limits(2**20, 10_000)


def animation(frames: int) -> bytes:
    """A GIF of grey images."""
    images = [Image.new("L", (8, 8), number) for number in range(frames)]
    images[0].save(file := io.BytesIO(), "GIF", save_all=True, append_images=images[1:])
    return file.getvalue()


def test_levels_give_the_mask_of_every_threshold():
    logits = np.random.default_rng(0).normal(0, 3, (50, 70)).astype(np.float32)
    logits[0, 0] = 0  # a probability of exactly 0.5 isn't above 0.5
    levels = answers.levels(logits)
    for threshold in range(1, 100):
        assert np.array_equal(levels >= threshold, logits > forward.logit(threshold / 100)), threshold


def test_large_images_are_shown_smaller():
    assert answers.shown_size((60, 80)) == (60, 80)
    assert answers.shown_size((3000, 4000)) == (768, 1024)
    assert answers.shown_size((1, 5000)) == (1, 1024)


def test_phrases_are_checked():
    assert answers.checked_phrases([" a  polyp ", "", "a polyp", "seven"]) == ("a polyp", "seven")
    with pytest.raises(UserError, match="the phrase is empty"):
        answers.checked_phrases([" "])
    with pytest.raises(UserError, match="8 phrases at most, got 9"):
        answers.checked_phrases([str(number) for number in range(MOST_PHRASES + 1)])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the image is empty"),
        (b"no image", "can't decode the image"),
        (png(picture(0))[:30], "can't decode the image"),
        (bytes(2**20 + 1), "has 1.0 MiB, and at most 1 are taken"),
        (png(np.zeros((101, 100), np.uint8)), "has 0 megapixels, and at most 0 are taken"),
        (animation(uploads.MOST_FRAMES + 1), "has 65 frames, and at most 64"),
    ],
)
def test_an_upload_is_refused_by_its_header(data, message):
    with pytest.raises(UserError, match=message):
        uploads.check(data, LIMITS)


def test_the_pixels_of_an_upload_are_those_of_its_first_frame():
    image = picture(1)
    uploads.check(png(image), LIMITS)
    assert np.array_equal(uploads.decode(png(image), None), image)
    grey = animation(3)
    uploads.check(grey, LIMITS)
    assert np.array_equal(uploads.decode(grey, None), np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(UserError, match="can't decode the image"):
        uploads.decode(png(image)[:200], None)


@pytest.mark.parametrize(
    ("name", "gif", "path"),
    [
        ("photo.JPG", False, "photo.jpg"),
        ("../../etc/passwd", False, "passwd"),
        (r"C:\scans\a b.c.png", False, "a-b-c.png"),
        ("film.mp4", False, "film"),
        ("film.mp4.mp4", True, "film-mp4.gif"),
        ("/dev/stdin", False, "stdin"),
        ("-", False, "image"),
        ("", False, "image"),
        ("x" * 500 + ".png", False, "x" * 60 + ".png"),
    ],
)
def test_names_of_uploads_stay_names(name, gif, path):
    assert str(downloads.safe_path(name, gif=gif)) == path


def test_corrections_are_kept_as_a_set_that_can_be_prepared(tmp_path):
    kept = Corrections(tmp_path / "c")
    masks = [np.zeros((60, 80), bool) for _ in range(3)]
    for number, mask in enumerate(masks):
        mask[10 : 20 + number] = True
        kept.add(picture(number), mask, "polyp")
    kept.add(picture(0), np.ones((30, 40), bool), "vessel")  # painted at a smaller size
    assert kept.add(picture(1), ~masks[1], "polyp") == 2, "the same image and phrase again"
    again = Corrections(tmp_path / "c")
    assert [row["phrase"] for row in again.shown()] == ["polyp"] * 3 + ["vessel"]
    assert (len(again), again.images) == (4, 3)
    with (tmp_path / "c/list.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["prompt"] for row in rows] == ["polyp", "polyp", "polyp", "vessel"]
    assert rows[0]["group"] == rows[3]["group"] != rows[1]["group"]
    assert np.array_equal(read_rgb(tmp_path / "c" / rows[1]["image"]), picture(1))
    assert np.array_equal(read_rgb(tmp_path / "c" / rows[1]["mask"])[..., 0] > 0, ~masks[1])
    records = again.records()
    assert [len(records.splits[name]) for name in ("train", "val")] == [3, 1]
    again.remove(2)
    assert not (tmp_path / "c" / rows[1]["image"]).exists()
    assert [row["number"] for row in Corrections(tmp_path / "c").shown()] == [1, 3, 4]
    for number in (1, 3, 4):
        again.remove(number)
    assert len(Corrections(tmp_path / "c")) == 0
    with pytest.raises(UserError, match="no correction 7"):
        again.remove(7)


def test_both_phrases_of_an_image_come_into_one_split(tmp_path):
    kept = Corrections(tmp_path / "c")
    for phrase in ("polyp", "vessel"):
        kept.add(picture(0), np.ones((60, 80), bool), phrase)
    with pytest.raises(UserError, match="corrections of two images, one of them for validation, got 1"):
        kept.records()
    kept.add(picture(1), np.ones((60, 80), bool), "polyp")
    assert {name: len(rows) for name, rows in kept.records().splits.items()} == {"train": 2, "val": 1}


def line(epoch: int) -> dict[str, Any]:
    """A line of metrics.jsonl."""
    return {"epoch": epoch, "train": {"dice": 0.1}, "val": {"dice": 0.2}}


def started(train: Callable[..., Any]) -> Training:
    """A training of three epochs by a function that takes the place of `tv.train`."""
    config = Config(train=Train(epochs=3), workdir="runs/x")
    return Training(config, None, train, lambda run: None)  # type: ignore[arg-type]


def test_a_training_reports_its_epochs():
    def train(config, records, on_epoch):
        for epoch in (1, 2, 3):
            on_epoch(line(epoch))

    training = started(train)
    training.wait()
    shown = training.shown()
    assert shown["state"] == "done" and shown["epochs"] == 3
    assert shown["curve"] == [{"epoch": epoch, "train": 0.1, "val": 0.2} for epoch in (1, 2, 3)]


def test_a_training_stops_after_the_epoch_in_which_it_is_cancelled():
    begun, goes_on, done = threading.Event(), threading.Event(), []

    def train(config, records, on_epoch):
        for epoch in (1, 2, 3):
            done.append(epoch)
            begun.set()
            assert goes_on.wait(60)
            on_epoch(line(epoch))

    training = started(train)
    assert begun.wait(60)
    training.cancel()
    assert training.shown()["state"] == "stopping"
    goes_on.set()
    training.wait()
    assert done == [1]
    assert training.shown()["state"] == "cancelled"
    assert training.shown()["message"] == "stopped after epoch 1; the checkpoint is in runs/x"


def test_a_failed_training_says_why():
    def train(config, records, on_epoch):
        raise UserError("the loss is nan", "not-finite")

    training = started(train)
    training.wait()
    assert (training.state, training.message) == ("failed", "the loss is nan [not-finite]")


@pytest.mark.parametrize("epochs", [0, 201])
def test_the_number_of_epochs_is_checked(epochs, tmp_path):
    with pytest.raises(UserError, match=f"must be 1 to 200, got {epochs}"):
        configuration(None, None, epochs, tmp_path)  # type: ignore[arg-type]


def status(method="GET", path="/", local=True, **headers) -> int:
    """The guard's answer to a request: 200 where it lets the application answer."""

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})

    sent = []

    async def send(message):
        sent.append(message)

    pairs = [(name.encode(), value.encode()) for name, value in ({"host": "127.0.0.1:7860"} | headers).items()]
    scope = {"type": "http", "method": method, "path": path, "headers": pairs}
    guard = Guard(app, prefixes=("/segment",), local=local)
    asyncio.run(guard(scope, None, send))  # type: ignore[arg-type]
    assert any(name == b"content-security-policy" for name, _ in sent[0]["headers"])
    return sent[0]["status"]


def test_the_guard_answers_the_page_alone():
    assert status() == status("POST", "/segment") == 200
    assert status("GET", "/file=/etc/passwd") == status("POST", "/upload") == 404
    assert status("GET", "/config") == 404


def test_the_guard_refuses_other_sites():
    own, other = "http://127.0.0.1:7860", "http://elsewhere.example"
    assert status("POST", "/segment", origin=own) == 200
    assert status("POST", "/segment", origin=other) == 403
    assert status(host="elsewhere.example") == 403
    assert status(host="elsewhere.example", local=False) == 200
    assert status(host="localhost:7860") == status(host="[::1]:7860") == 200


def test_the_preview_of_a_small_image_is_exact():
    image = picture(3)
    url = answers.preview(image, (60, 80))
    assert url.startswith("data:image/png;base64,")
    assert np.array_equal(cv2.imdecode(np.frombuffer(of_url(url), np.uint8), 1)[..., ::-1], image)


def test_the_users_that_were_away_longest_leave_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(sessions, "IN_MEMORY", 2)
    users = Sessions(tmp_path)
    users.of("a").corrections.add(picture(0), np.ones((60, 80), bool), "polyp")
    first = users.of("a")
    assert users.of("a") is first, "in memory"
    for token in ("b", "c"):
        assert users.of(token).shown()["corrections"] == [], "nobody else's"
    again = users.of("a")
    assert again is not first and [row["phrase"] for row in again.shown()["corrections"]] == ["polyp"]
    with pytest.raises(UserError, match="no cookie"):
        users.of("")
    assert all(path.name != "a" for path in tmp_path.iterdir()), "a folder doesn't tell the token"
