"""Tests of the audit: each fault is found where it is and nowhere else, and the clean protocol is free of them."""

import csv
import dataclasses
import itertools
from pathlib import Path

import cv2
import numpy as np
import pytest
import small

from tunevlseg_jax import prepare
from tunevlseg_jax.data import prepared
from tunevlseg_jax.data.audit import duplicates
from tunevlseg_jax.data.audit.image_stats import image_stats
from tunevlseg_jax.data.builders.writer import write
from tunevlseg_jax.data.examples import Example, Record
from tunevlseg_jax.data.images import encode_png

SIZE = (48, 64)


def field(seed: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """(height, width, 3) uint8, smooth, of blobs about twelve pixels wide: what a photograph is like."""
    noise = np.random.default_rng(seed).normal(size=(*size, 3)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 5)
    return np.clip(128 + 45 * smooth / smooth.std(), 0, 255).astype(np.uint8)


def example(name: str, image: np.ndarray, prompt: str = "polyp", group: str = "", filled: bool = True) -> Example:
    mask = np.zeros(image.shape[:2], np.uint8)
    mask[10:20, 10:30] = filled
    record = Record(name, "polyp", 0, 1, {1: (prompt,), 2: (f"no {prompt} but a level that isn't asked",)})
    return Example(name, group, encode_png(image), (encode_png(mask),), (record,))


def audit(monkeypatch, root: Path, *options: object) -> tuple[int, set[tuple[str, str, str]], list[dict[str, str]]]:
    """The exit status, (severity, kind, where) of what was found, and all of it."""
    report = root / "findings.csv"
    with pytest.raises(SystemExit) as stop:
        small.run(monkeypatch, prepare.main, "check", "mine", "--root", root, "--findings", report, *options)
        raise SystemExit(0)
    with report.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return stop.value.code, {(row["severity"], row["kind"], row["where"]) for row in rows}, rows


def test_each_fault_is_found_where_it_is(monkeypatch, capsys, tmp_path):
    photo = [field(seed) for seed in range(12)]
    jpeg = cv2.imencode(".jpg", photo[1][..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 60])[1].tobytes()
    smaller = cv2.resize(photo[2], (32, 24), interpolation=cv2.INTER_AREA)
    good, other = example("good", photo[0]), example("other", photo[3])
    splits = {
        "train": [
            good,
            example("photo", photo[1]),
            example("again", photo[3]),
            other,
            dataclasses.replace(
                example("twice", photo[4]),
                records=(example("twice", photo[4]).records[0], example("twice#2", photo[4]).records[0]),
            ),
            example("nothing", photo[5], filled=False),
            dataclasses.replace(example("all", field(21)), masks=(encode_png(np.ones(SIZE, np.uint8)),)),
            example("left", photo[6], group="patient 1"),
        ],
        "val": [
            dataclasses.replace(example("encoded again", photo[1]), image=jpeg),
            example("resized", photo[2]),
            dataclasses.replace(example("half", photo[7]), image=jpeg[:-300]),
            dataclasses.replace(example("large", photo[8]), masks=(encode_png(np.zeros((8, 8), np.uint8)),)),
            example("right", photo[9], group="patient 1"),
        ],
        "test": [
            dataclasses.replace(good, id="renamed"),
            example("smaller", smaller),
            example("healthy", photo[10], "no polyp", filled=False),
            example("denied", photo[11], "image without polyp"),
            dataclasses.replace(example("odd", field(20)), masks=(encode_png(np.full(SIZE, 7, np.uint8)),)),
        ],
    }
    write(tmp_path, "mine", splits, "a test")
    status, findings, _ = audit(monkeypatch, tmp_path)
    assert status == 1
    assert findings == {
        ("error", "unreadable", "val/half"),
        ("error", "another size", "val/large"),
        ("error", "unexpected values", "test/odd"),
        ("error", "copies across", "test/renamed"),
        ("error", "group across", "val/right"),
        ("error", "tells the answer", "test/healthy"),
        ("warning", "near copies across", "val/encoded again"),
        ("warning", "near copies across", "test/smaller"),
        ("warning", "copies", "train/other"),
        ("warning", "repeated record", "train/twice"),
        ("warning", "empty mask", "train/nothing"),
        ("warning", "full mask", "train/all"),
        ("warning", "empty mask", "val/large"),
        ("warning", "empty mask", "test/odd"),
        ("warning", "denies the mask", "test/denied"),
    }
    out = capsys.readouterr().out
    assert "as train/good" in out and "train: 8 images, 9 records" in " ".join(out.split())

    status, findings, _ = audit(monkeypatch, tmp_path, "--protocol", "clean")
    clean = {split: prepared.load(tmp_path, "mine", split, "clean") for split in prepared.SPLITS}
    assert status == 0 and {severity for severity, _, _ in findings} == {"warning"}
    kept = {split: {one.id for one in examples} for split, examples in clean.items()}
    assert set().union(*kept.values()) == {
        *("photo", "again", "twice", "nothing", "all", "left"),
        *("encoded again", "resized", "right"),
        *("renamed", "smaller", "denied"),
    }
    assert [len(one.records) for one in clean["train"] if one.id == "twice"] == [1]
    for together in ({"photo", "encoded again"}, {"resized", "smaller"}, {"left", "right"}):
        assert any(together <= ids for ids in kept.values())


def videos() -> tuple[list[Example], list[int]]:
    """Three videos of 14 frames that pan over a field, and the video of each frame; frames are numbered through."""
    frames, video = [], []
    for number, length in itertools.product(range(3), range(14)):
        wide = field(100 + number, (SIZE[0], SIZE[1] + 42))
        frames.append(wide[:, 3 * length : 3 * length + SIZE[1]])
        video.append(number)
    return [example(f"{number}", frame) for number, frame in enumerate(frames, 1)], video


def test_neighbouring_frames_are_found_and_kept_together(monkeypatch, tmp_path):
    """Numbered frames in random splits: as many leaks as frames whose next one lies in another split."""
    frames, video = videos()
    chosen = np.random.default_rng(0).choice(prepared.SPLITS, len(frames), p=(0.6, 0.2, 0.2))
    write(
        tmp_path,
        "mine",
        {name: [one for one, own in zip(frames, chosen, strict=True) if own == name] for name in prepared.SPLITS},
        "a test",
    )
    leaks = [
        number
        for number in range(len(frames) - 1)
        if chosen[number] != chosen[number + 1] and video[number] == video[number + 1]
    ]
    status, _, rows = audit(monkeypatch, tmp_path)
    across = [row for row in rows if row["kind"] == "frames across"]
    assert status == 1 and len(across) == len(leaks) > 10

    status, findings, _ = audit(monkeypatch, tmp_path, "--protocol", "clean")
    assert status == 0 and not {kind for _, kind, _ in findings if kind.endswith("across")}
    clean = {split: prepared.load(tmp_path, "mine", split, "clean") for split in prepared.SPLITS}
    own = [{video[int(one.id) - 1] for one in examples} for examples in clean.values()]
    assert sorted(map(sorted, own)) == [[0], [1], [2]]


def test_numbers_alone_make_no_video(monkeypatch, tmp_path):
    images = [example(f"ISIC_{number:04d}", field(number)) for number in range(30)]
    write(tmp_path, "mine", {"train": images[::2], "val": images[1::4], "test": images[3::4]}, "a test")
    assert audit(monkeypatch, tmp_path)[:2] == (0, set())


def test_neighbours_are_the_same_in_any_order_of_the_images():
    """The clean splits and their audit have the same images in other orders."""
    rng = np.random.default_rng(0)
    levels = {}
    for number in range(50):  # pairs of frames that differ by nothing up to as much as any two
        levels[f"{3 * number}"] = int(rng.integers(0, 128))
        levels[f"{3 * number + 1}"] = levels[f"{3 * number}"] + number
    stats = [
        image_stats("train", index, example(name, np.full((*SIZE, 3), level, np.uint8)))
        for index, (name, level) in enumerate(levels.items())
    ]
    neighbours = set()
    for seed in range(20):
        order = [stats[number] for number in np.random.default_rng(seed).permutation(len(stats))]
        neighbours.add(frozenset((order[one].id, order[other].id) for one, other in duplicates.neighbours(order)))
    assert len(neighbours) == 1 and neighbours != {frozenset()}


def test_clean_splits_keep_their_sizes_where_groups_allow(monkeypatch, tmp_path):
    """Twelve patients over all splits: none is shared afterwards, and each split has about what it had."""
    images = [example(f"{number}x", field(number), group=f"patient {number % 12}") for number in range(60)]
    write(tmp_path, "mine", {"train": images[:40], "val": images[40:50], "test": images[50:]}, "a test")
    assert audit(monkeypatch, tmp_path)[0] == 1
    assert audit(monkeypatch, tmp_path, "--protocol", "clean")[:2] == (0, set())
    clean = {split: list(prepared.load(tmp_path, "mine", split, "clean")) for split in prepared.SPLITS}
    assert {split: len(examples) for split, examples in clean.items()} == {"train": 40, "val": 10, "test": 10}
    groups = [{one.group for one in examples} for examples in clean.values()]
    assert sum(map(len, groups)) == len(set().union(*groups)) == 12
