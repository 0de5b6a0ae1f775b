"""Tests of the demo's server as a process: malformed uploads, closed addresses, downloads, users and trainings."""

import base64
import csv
import io
import json
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
import small
from demo_process import needs_server
from demo_user import User, of_url, picture, png
from PIL import Image

import tunevlseg_jax as tv

pytestmark = [pytest.mark.slow, needs_server]


def malformed() -> list[bytes]:
    """Fifty files that are no images, or broken, or too large ones."""
    rng = np.random.default_rng(0)
    whole = {kind: encoded(kind) for kind in ("PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP")}
    cut = [data[: int(len(data) * part)] for data in whole.values() for part in (0.05, 0.3)]
    headers = [data[:24] + rng.bytes(300) for data in whole.values()]
    noise = [rng.bytes(int(size)) for size in rng.integers(1, 5000, 12)]
    texts = [b"", b"\0", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"#!/bin/sh\nreboot", b"PK\x03\x04" + b"0" * 99]
    texts += [
        b"\x00\x00\x00\x18ftypheic" + b"0" * 99,
        b"ftypmp42" * 9,
        b"%PDF-1.7",
        b"GIF89a",
        b"II*\0\xff\xff\xff\xff",
    ]
    huge = [png(np.zeros((12_000, 12_000), np.uint8)), bytes(2**20 + 1), bytes(4 * 2**20)]
    bombs = [
        b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + side.to_bytes(4, "big") * 2 + b"\x08\0\0\0\0" for side in (2**16, 2**30)
    ]
    bombs += [b"BM" + rng.bytes(8) + b"\x36\0\0\0\x28\0\0\0" + b"\xff\xff\xff\x7f" * 2 + b"\x01\0\x18\0" + bytes(24)]
    files = [*cut, *headers, *noise, *texts, *huge, *bombs]
    return files + [whole["PNG"][:at] for at in range(40, 40 + 50 - len(files))]


def encoded(kind: str) -> bytes:
    Image.fromarray(picture(0)).save(file := io.BytesIO(), kind)
    return file.getvalue()


def files_below(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} - {"stderr"}


def test_fifty_malformed_uploads_are_refused_and_leave_no_file(address, folder):
    user, before, files = User(address), files_below(folder), malformed()
    assert len(files) == 50
    for number, data in enumerate(files):
        for path, query in (("/segment", {"phrase": "seven"}), ("/download", {"phrase": "seven", "name": "a.mp4"})):
            status, content = user.ask("POST", path, data, **query)
            assert status == 400, (number, data[:20], content[:200])
            told = json.loads(content)
            assert told["error"] and told["code"] in ("undecodable", "out-of-range", "no-images"), told
        mask = {"phrase": "seven", "image": base64.b64encode(data).decode(), "mask": base64.b64encode(data).decode()}
        assert user.ask("POST", "/corrections", json.dumps(mask).encode())[0] == 400
    for body in (b"", b"{", b"[]", b"{}", b'{"image": 1, "mask": null, "phrase": "x"}', b"[" * 10_000, b"\xff\xfe"):
        assert user.ask("POST", "/corrections", body)[0] == 400
        assert user.ask("POST", "/training", body)[0] == 400
    assert files_below(folder) == before
    assert user.json("POST", "/segment", png(picture(0)), phrase="seven")["width"] == 80


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({}, "the phrase is empty"),
        ({"phrase": " "}, "the phrase is empty"),
        ({"phrase": [str(number) for number in range(9)]}, "8 phrases at most"),
        ({"phrase": "word " * 500}, "tokens"),
        ({"phrase": "seven", "model": "runs"}, "there is no model 'runs'"),
    ],
)
def test_a_wrong_question_is_answered_by_one_line(address, query, message):
    status, content = User(address).ask("POST", "/segment", png(picture(0)), **query)
    assert status == 400 and message in json.loads(content)["error"]


@pytest.mark.parametrize("threshold", ["0", "1", "nan", "x"])
def test_a_wrong_threshold_is_refused(address, threshold):
    query = {"phrase": "seven", "threshold": threshold}
    assert User(address).ask("POST", "/download", png(picture(0)), **query)[0] == 400


def test_only_the_pages_own_addresses_and_files_are_reachable(address):
    user = User(address)
    for path in ("/config", "/docs", "/openapi.json", "/file=/etc/passwd", "/file=a"):
        assert user.ask("GET", path)[0] == 404, path
    for name in ("server.py", "..%2fserver.py", "%2e%2e/server.py", "%2fetc%2fpasswd", "page.html%00"):
        assert user.ask("GET", f"/pages/{name}")[0] == 404, name
    for number in ("-1", "8", "x", "..%2f..%2fetc"):
        assert user.ask("GET", f"/examples/{number}")[0] in (400, 404), number
    assert user.ask("POST", "/upload", b"x")[0] == 404
    assert user.ask("POST", "/training", b"{}", {"Origin": "http://elsewhere.example"})[0] == 403
    assert user.ask("GET", "/", headers={"Host": "elsewhere.example"})[0] == 403
    page = user.ask("GET", "/")[1].decode()
    assert "http" not in page, "nothing is loaded from elsewhere"


def test_the_maps_are_those_of_the_python_api(address):
    image, run = picture(1), tv.load_run(small.finished())
    found = User(address).json("POST", "/segment", png(image), phrase=["seven", "two", "nine"])
    assert [model["name"] for model in found["models"]] == ["zero-shot", "run"]
    assert np.array_equal(cv2.imdecode(np.frombuffer(of_url(found["preview"]), np.uint8), 1)[..., ::-1], image)
    for model, asked in zip(found["models"], (run.zero_shot(), run), strict=True):
        for phrase, shown in zip(found["phrases"], model["maps"], strict=True):
            levels = cv2.imdecode(np.frombuffer(of_url(shown["levels"]), np.uint8), cv2.IMREAD_UNCHANGED)
            probability = asked.probabilities(image, phrase)
            assert np.abs(levels - (100 * probability - 0.5)).max() <= 0.51
            assert shown["highest"] == pytest.approx(probability.max(), abs=1e-4)


def test_a_download_holds_what_predict_writes(address):
    image, run = picture(2), tv.load_run(small.finished())
    threshold = round(max(0.01, float(run.probabilities(image, "two").max()) - 0.05), 2)
    query = {"phrase": ["seven", "two"], "name": "../scan.png", "threshold": threshold, "model": "run"}
    status, content = User(address).ask("POST", "/download", png(image), **query)
    assert status == 200
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        read = {name: file.read(name) for name in file.namelist()}
    assert set(read) == {
        f"1_run/{name}"
        for name in (
            *(f"scan_{phrase}_{part}.png" for phrase in ("seven", "two") for part in ("mask", "overlay")),
            *("scan_labels.png", "predictions.csv", "label_maps.csv", "predictions.coco.json"),
        )
    }
    mask = cv2.imdecode(np.frombuffer(read["1_run/scan_two_mask.png"], np.uint8), 0) > 0
    assert mask.any() and np.array_equal(mask, run.predict(image, "two", threshold=threshold))
    labels = cv2.imdecode(np.frombuffer(read["1_run/scan_labels.png"], np.uint8), 0)
    assert np.array_equal(labels, run.label_map(image, ["seven", "two"], threshold=threshold))
    coco = json.loads(read["1_run/predictions.coco.json"])
    assert [image["file_name"] for image in coco["images"]] == ["scan.png"]
    rows = list(csv.DictReader(io.StringIO(read["1_run/predictions.csv"].decode())))
    assert [(row["image"], row["prompt"]) for row in rows] == [("scan.png", "seven"), ("scan.png", "two")]


def test_two_users_at_once_get_their_own_answers(address):
    users, run = [User(address) for _ in range(2)], tv.load_run(small.finished())
    images = [picture(seed, (40 + seed, 60)) for seed in range(8)]

    def ask(number: int) -> dict:
        return users[number % 2].json("POST", "/segment", png(images[number]), phrase="seven", model="run")

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, range(8)))
    for image, answer in zip(images, answers, strict=True):
        highest = run.probabilities(image, "seven").max()
        assert answer["height"] == image.shape[0]
        assert answer["models"][0]["maps"][0]["highest"] == pytest.approx(highest, abs=1e-4)
    assert correct(users[0], 0)["images"] == 1
    assert users[1].json("GET", "/state")["corrections"] == []


def correct(user: User, seed: int) -> dict:
    """Keeps a mask of the left half of a picture."""
    mask = np.zeros((60, 80), np.uint8)
    mask[:, :40] = 255
    texts = {name: base64.b64encode(png(image)).decode() for name, image in (("image", picture(seed)), ("mask", mask))}
    return user.json("POST", "/corrections", {"phrase": "left half", **texts})


def ended(user: User) -> dict:
    """The training of a user at its end."""
    for _ in range(600):
        training = user.json("GET", "/training")["training"]
        if training["state"] not in ("running", "stopping"):
            return training
        time.sleep(0.2)
    raise AssertionError("the training doesn't end")


def test_corrections_are_learnt_and_a_training_can_be_stopped(address, folder):
    user = User(address)
    status, content = user.ask("POST", "/training", b'{"model": "run", "epochs": 2}')
    assert status == 400 and "corrections of two images" in json.loads(content)["error"]
    for seed in range(3):
        shown = correct(user, seed)
    assert shown["images"] == 3 and len(shown["corrections"]) == 3
    user.json("POST", "/training", {"model": "run", "epochs": 2})
    status, content = User(address).ask("POST", "/training", b"{}")
    assert status == 400, "one training at a time, and no corrections"
    training = ended(user)
    assert training["state"] == "done", training
    assert [point["epoch"] for point in training["curve"]] == [1, 2]
    own = Path(shown["folder"])
    run = tv.load_run(own / "runs/001")
    assert run.config.train.start_from == str(small.finished().resolve())
    assert run.evaluate(split="val")["dice"] == pytest.approx(run.scores["tuned"]["val"]["dice"], abs=1e-6)
    answer = user.json("POST", "/segment", png(picture(0)), phrase="left half")
    assert [model["name"] for model in answer["models"]] == ["zero-shot", "run", "yours 1"]
    others = User(address).json("POST", "/segment", png(picture(0)), phrase="left half")
    assert [model["name"] for model in others["models"]] == ["zero-shot", "run"]
    user.json("POST", "/training", {"model": "zero-shot", "epochs": 200})
    while not user.json("GET", "/training")["training"]["curve"]:
        time.sleep(0.2)
    user.json("DELETE", "/training")
    assert ended(user)["state"] == "cancelled"
    assert list((own / "runs/002/checkpoints").iterdir()), "what was learnt stays"
    assert user.json("DELETE", "/corrections/2")["images"] == 2
