"""Tests of splits without images: as given, as earlier versions wrote them, and as the clean protocol leaves them."""

import json
from pathlib import Path

import mistakes
import numpy as np
from rich.console import Console

from tunevlseg_jax import prepare
from tunevlseg_jax.data import registry
from tunevlseg_jax.data.builders import writer
from tunevlseg_jax.data.examples import LEVEL, Example, Record
from tunevlseg_jax.data.images import encode_png
from tunevlseg_jax.data.settings import Data


def example(number: int, *, broken: bool = False) -> Example:
    """An image of noise with a box in it."""
    noise = np.random.default_rng(number).integers(0, 256, (20, 30, 3)).astype(np.uint8)
    mask = np.zeros((20, 30), np.uint8)
    mask[3:9, 4 : 12 + number] = 1
    image = encode_png(noise)
    record = Record(f"{number}/box", "box", 0, 1, {LEVEL: ("box",)})
    return Example(f"{number}", "", image[:40] if broken else image, (encode_png(mask),), (record,))


def splits_of(root: Path) -> tuple[str, ...]:
    return registry.splits(Data(name="mine", root=str(root)))


def test_a_split_without_images_is_left_out(tmp_path):
    folder = writer.write(tmp_path, "mine", {"train": [example(0), example(1)], "val": [], "test": [example(2)]}, "")
    assert splits_of(tmp_path) == ("train", "test")
    assert registry.count(Data(name="mine", root=str(tmp_path)), "train") == 2
    info = json.loads((folder / "dataset_info.json").read_text())
    assert [split["name"] for split in info["splits"]] == ["train", "test"]


def test_a_split_without_images_of_an_earlier_version_is_ignored(tmp_path):
    folder = writer.write(tmp_path, "mine", {"train": [example(0)], "test": [example(2)]}, "")
    info = json.loads((folder / "dataset_info.json").read_text())
    empty = info["splits"][0] | {"name": "val", "shardLengths": ["0"], "numBytes": "0"}
    (folder / "dataset_info.json").write_text(json.dumps(info | {"splits": [*info["splits"], empty]}))
    assert splits_of(tmp_path) == ("train", "test")
    with mistakes.raises("unknown-split: 'val'"):
        registry.count(Data(name="mine", root=str(tmp_path)), "val")


def test_a_clean_protocol_without_any_image(tmp_path):
    broken = [example(number, broken=True) for number in range(4)]
    folder = writer.write(tmp_path, "mine", {"train": broken[:2], "val": broken[2:3], "test": broken[3:]}, "")
    with mistakes.raises("no-images: all 4 images.*unreadable.*--protocol paper"):
        prepare.check(prepare.Check("mine", tmp_path, "clean"), Console(quiet=True))
    assert not (folder / "clean.json").exists()


def test_a_split_that_the_clean_protocol_leaves_empty_is_said(tmp_path, capsys):
    splits = {"train": [example(0), example(1)], "val": [example(2, broken=True)], "test": [example(3)]}
    writer.write(tmp_path, "mine", splits, "")
    prepare.check(prepare.Check("mine", tmp_path, "clean"), Console(width=120))
    assert "warning: the clean protocol leaves no image in val" in capsys.readouterr().out
