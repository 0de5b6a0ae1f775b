"""Tests of several masks of one image and class: they become one mask, or are refused."""

from pathlib import Path

import numpy as np
import pytest
import user_folders
from fake_downloads import photo, save
from user_folders import Run, assert_fails, masks_by_class, write_manifest

run = user_folders.run
LEFT, RIGHT = np.zeros((24, 32), np.uint8), np.zeros((24, 32), np.uint8)
LEFT[2:10, 3:12] = 255
RIGHT[8:20, 10:30] = 255  # overlaps with the left one


@pytest.fixture
def export(tmp_path) -> Path:
    """An image and two masks of the class tumor, in files as Label Studio names them."""
    source = tmp_path / "source"
    save(source / "task-1.png", photo(np.random.default_rng(0), LEFT.shape))
    for number, mask in enumerate((LEFT, RIGHT)):
        save(source / f"task-1-annotation-1-by-1-tag-tumor-{number}.png", mask)
    return source


@pytest.mark.parametrize(
    "options",
    [
        ("--images", "task-{name}", "--masks", "task-{name}-annotation-*-tag-{class}-*"),
        ("--images", "{name}", "--masks", "{name}-annotation-*", "--prompt", "tumor"),
    ],
)
def test_masks_of_one_class_are_joined(options, run: Run, export):
    (example,) = run(*options, "--fractions", 1, 0, 0).values()
    assert [record.label for record in example.records] == ["tumor"] and len(example.masks) == 1
    np.testing.assert_array_equal(masks_by_class(example)["tumor"], (LEFT | RIGHT) > 0)


def test_rows_of_one_class_are_joined(run: Run, export, tmp_path):
    rows = [
        {"image": "task-1.png", "mask": f"task-1-annotation-1-by-1-tag-tumor-{number}.png", "prompt": "tumor"}
        for number in range(2)
    ]
    (example,) = run("--manifest", write_manifest(tmp_path / "list.csv", rows), "--fractions", 1, 0, 0).values()
    np.testing.assert_array_equal(masks_by_class(example)["tumor"], (LEFT | RIGHT) > 0)


def test_masks_of_one_class_are_refused_if_asked(monkeypatch, capsys, export, tmp_path):
    arguments = ["--name", "mine", "--source", export, "--output", tmp_path / "data", "--prompt", "tumor"]
    patterns = ["--images", "{name}", "--masks", "{name}-annotation-*", "--instances", "refuse"]
    says = r"duplicate-mask: task-1\.png .*'tumor': .*tumor-0\.png and .*tumor-1\.png.*--instances join"
    assert_fails(monkeypatch, capsys, says, "folder", *arguments, *patterns)


def test_parts_of_another_size_are_refused(monkeypatch, capsys, export, tmp_path):
    save(export / "task-1-annotation-1-by-1-tag-tumor-1.png", RIGHT[:-1])
    arguments = ["--name", "mine", "--source", export, "--output", tmp_path / "data", "--prompt", "tumor"]
    says = r"mask-size: tumor-1\.png is 32x23"
    patterns = ["--images", "{name}", "--masks", "{name}-annotation-*"]
    assert_fails(monkeypatch, capsys, says, "folder", *arguments, *patterns)


def test_an_overlooked_second_mask_names_the_pattern_that_joins(monkeypatch, capsys, tmp_path):
    """As BUSI's benign (1)_mask_1.png, which the pattern {name} takes for an image."""
    source = tmp_path / "source"
    for name, pixels in (("a", photo(np.random.default_rng(0))), ("a_mask", LEFT), ("a_mask_1", RIGHT)):
        save(source / f"{name}.png", pixels)
    arguments = ["--name", "mine", "--source", source, "--output", tmp_path / "data", "--prompt", "tumor"]
    patterns = ["--images", "{name}", "--masks", "{name}_mask"]
    says = r"mask-missing: a_mask_1\.png .*--masks '\{name\}_mask\*'"
    assert_fails(monkeypatch, capsys, says, "folder", *arguments, *patterns)


def test_two_label_maps_of_an_image_are_refused(monkeypatch, capsys, export, tmp_path):
    (tmp_path / "classes.csv").write_text("class,value\ntumor,255\n")
    arguments = ["--name", "mine", "--source", export, "--output", tmp_path / "data", "--encoding", "palette"]
    patterns = ["--images", "{name}", "--masks", "{name}-annotation-*", "--classes", tmp_path / "classes.csv"]
    says = r"duplicate-mask: task-1\.png has two label maps: .*tumor-0\.png and .*tumor-1\.png"
    assert_fails(monkeypatch, capsys, says, "folder", *arguments, *patterns)
