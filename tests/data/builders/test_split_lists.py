"""Tests of splits that lists of names tell."""

import json

import mistakes
import pytest

from tunevlseg_jax.data.builders import layouts, matching, user_files
from tunevlseg_jax.data.builders.archives import SourceFiles

SPLITS = {"a b": "train", "c": "train", "d": "val", "e": "test"}


def with_lists(root, lists: dict[str, str]) -> tuple[str, dict[str, str]]:
    """The line on the splits, and each image's split, of images beside these files."""
    for kind in ("images", "masks"):
        (root / kind).mkdir()
        for name in SPLITS:
            (root / kind / f"{name}.png").touch()
    for name, text in lists.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text, encoding="utf-8-sig")
    source = SourceFiles([root], root / "unpacked")
    found = matching.find(source, *layouts.PLAIN, ("x",), None)
    line, images = user_files.with_splits(found.files, "source", source)
    return line, {image.id: image.split for image in images}


@pytest.mark.parametrize(
    "lists",
    [
        {"train.txt": "a b\nc\n", "val.txt": "d\n", "test.txt": "e\n"},
        {"sets/train_list.lst": "a b.png\r\nc.png\r\n", "sets/Valid.txt": "d.png", "sets/testing.txt": "\ne.png\n\n"},
        {
            "train.csv": "file\n/data/x/images/a b.png\n/data/x/images/c.png\n",
            "dev.csv": "images/d.png,masks/d.png",
            "test.csv": "e;1",
        },
        {"split.json": json.dumps({"train": ["a b", "c.png"], "val": [{"image": "images/d.png"}], "test": ["e"]})},
        {"fold_tr.txt": "'a b'\nc", "fold_va.txt": "d 1", "fold_te.txt": "images\\e.png"},
    ],
)
def test_lists_are_the_splits(lists, tmp_path):
    line, splits = with_lists(tmp_path, lists)
    assert splits == SPLITS and line.startswith(f"train, val, test, as {' and '.join(sorted(lists))} say")


@pytest.mark.parametrize(
    "lists",
    [
        {"test.txt": "Notes on a test.\nNothing here.\nc\n"},
        {"classes.txt": "c\nd\n", "train_val.txt": "a b\nc\nd\ne\n"},
        {"split.json": "[1, 2]", "train.json": "{", "test.json": json.dumps({"info": ["c"], "test": 3})},
    ],
)
def test_other_files_are_no_lists(lists, tmp_path):
    line, splits = with_lists(tmp_path, lists)
    assert set(splits.values()) == {""} and line.endswith("the source tells none")


def test_lists_that_disagree_or_lack_an_image_are_refused(tmp_path):
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    with mistakes.raises(r"split-unclear: images/c.png is of test in 0_test.txt and of train in 1_train.txt; .*random"):
        with_lists(tmp_path / "a", {"0_test.txt": "c", "1_train.txt": "a b\nc"})
    with mistakes.raises(r"split-missing: test.txt and train.txt .* 3 images, but not that of 1, such as images/d.png"):
        with_lists(tmp_path / "b", {"train.txt": "a b\nc", "test.txt": "e"})
