"""Tests of images without a mask file: errors, or images with an empty mask of every class if they are asked for."""

import numpy as np
import pytest
import user_folders
from fake_downloads import blob, photo, save
from user_folders import Run, assert_fails, masks_by_class

run = user_folders.run
KEEP = ("--negatives", "keep")


def marked(example) -> dict[str, bool]:
    """Whether each class of an example marks a pixel."""
    return {label: bool(mask.any()) for label, mask in masks_by_class(example).items()}


def write(folder, images: str, masks: dict[str, str]) -> None:
    """Images "0" to "3", and masks by their paths: the name of the image."""
    rng = np.random.default_rng(0)
    for number in range(4):
        save(folder / images / f"{number}.png", photo(rng))
    for path in masks:
        save(folder / path, blob(rng) * np.uint8(255))


TREES = {
    "masks/{class}/{name}": ("images", ["masks/polyp/0.png", "masks/tool/1.png", "masks/polyp/1.png"]),
    "annotations/{split}/{class}/{name}": (
        "images/train",
        [f"annotations/train/{mask}.png" for mask in ("polyp/0", "tool/1", "polyp/1")],
    ),
}


@pytest.mark.parametrize("tree", TREES)
def test_class_trees(run: Run, tmp_path, capsys, tree):
    """Images 2 and 3 are in no class's folder; image 0 has a mask of one class and so no record of the other."""
    images, masks = TREES[tree]
    write(tmp_path / "source", images, dict.fromkeys(masks))
    pattern = () if tree.startswith("annotations") else ("--masks", tree)
    with pytest.raises(SystemExit, match="2"):
        run(*pattern)
    assert "2.png has no mask in" in (err := capsys.readouterr().err) and "--negatives keep" in err
    examples = {example.id: marked(example) for example in run(*pattern, *KEEP).values()}
    none = {"polyp": False, "tool": False}
    assert examples == {"0": {"polyp": True}, "1": {"polyp": True, "tool": True}, "2": none, "3": none}
    assert "2 of 4 images have no mask and get an empty one of each class, such as images" in capsys.readouterr().out


def test_the_classes_of_a_table_and_their_prompts(run: Run, tmp_path):
    """Also of a class of which no image has a mask."""
    write(tmp_path / "source", "images", dict.fromkeys(["masks/polyp/0.png"]))
    (tmp_path / "classes.csv").write_text("class,prompt\npolyp,a polyp\nulcer,an ulcer\n")
    examples = run("--masks", "masks/{class}/{name}", "--classes", tmp_path / "classes.csv", *KEEP)
    prompts = {one.id: {record.label: record.prompts for record in one.records} for one in examples.values()}
    assert prompts["0"] == {"polyp": {1: ("a polyp",)}}
    assert prompts["3"] == {"polyp": {1: ("a polyp",)}, "ulcer": {1: ("an ulcer",)}}


def test_one_class(run: Run, tmp_path, capsys):
    """A test split without any mask is to be predicted on, and stays out."""
    source = tmp_path / "source"
    write(source, "train/images", dict.fromkeys(["train/masks/0.png", "train/masks/1.png"]))
    write(source, "test/images", {})
    examples = run("--prompt", "wound", "--fractions", 0.5, 0.5, 0, *KEEP)
    assert {example.id: marked(example)["wound"] for example in examples.values()} == {
        "0": True,
        "1": True,
        "2": False,
        "3": False,
    }
    out = capsys.readouterr().out
    assert "left out: 4 images of test" in out and "2 of 8 images have no mask" in out


def test_a_class_without_a_single_pixel_is_said(run: Run, tmp_path, capsys):
    write(tmp_path / "source", "images", {})
    for number in range(4):
        save(tmp_path / "source" / "masks" / f"{number}.png", np.zeros((24, 32), np.uint8))
    run("--prompt", "wound")
    assert "warning: class 'wound': all 4 masks are empty" in capsys.readouterr().out


def test_a_pattern_that_finds_no_mask_is_an_error(monkeypatch, tmp_path, capsys):
    write(tmp_path / "source", "images", {})
    command = ["folder", "--name", "x", "--source", tmp_path / "source", "--output", tmp_path / "data", *KEEP]
    assert_fails(monkeypatch, capsys, "mask-missing: 0.png has no mask", *command, "--prompt", "x")


def test_rows_of_a_manifest_without_a_mask(run: Run, tmp_path, capsys):
    write(tmp_path / "source", "images", dict.fromkeys(["masks/0.png"]))
    rows = ["image,mask,prompt", "images/0.png,masks/0.png,polyp", "images/1.png,,polyp", "images/2.png,,a tool"]
    (tmp_path / "list.csv").write_text("\n".join(rows))
    with pytest.raises(SystemExit, match="2"):
        run("--manifest", tmp_path / "list.csv")
    assert "row 3 of" in (err := capsys.readouterr().err) and "--negatives keep takes it as an empty mask" in err
    examples = run("--manifest", tmp_path / "list.csv", *KEEP)
    assert {example.id: marked(example) for example in examples.values()} == {
        "images/0.png": {"polyp": True},
        "images/1.png": {"polyp": False},
        "images/2.png": {"a tool": False},
    }
