"""Tests of the user's own data: every layout and encoding, and a line for each mistake."""

from __future__ import annotations

import io
import json
import os
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mistakes
import numpy as np
import pytest
import small
from fake_downloads import blob, photo, save
from PIL import Image
from test_mistakes import one_line

from tunevlseg_jax import prepare
from tunevlseg_jax.data import mask_files, prepared
from tunevlseg_jax.data.audit.image_stats import stats_of_split
from tunevlseg_jax.data.images import decode_rgb
from tunevlseg_jax.data.prepared import VOID, Example

Run = Callable[..., dict[str, Example]]
COLOURS = "class,colour,prompt\npolyp,#ff0000,a polyp|a small polyp\ntool,0 0 255,\nvoid,#808080,\n"
RED, BLUE, GREY = (255, 0, 0), (0, 0, 255), (128, 128, 128)


@pytest.fixture
def run(monkeypatch, tmp_path) -> Run:
    """Prepares tmp_path/source as the set "mine"; its examples by split and id."""

    def prepare_it(*arguments: object) -> dict[str, Example]:
        output = ["--name", "mine", "--source", tmp_path / "source", "--output", tmp_path / "data"]
        small.run(monkeypatch, prepare.main, "folder", *output, *arguments)
        folder = prepared.find(tmp_path / "data", "mine")
        splits = [split for split in prepared.SPLITS if list(folder.glob(f"mine-{split}.*"))]
        return {
            f"{split}/{example.id}": example
            for split in splits
            for example in prepared.load(tmp_path / "data", "mine", split)
        }

    return prepare_it


def masks(example: Example) -> dict[str, np.ndarray]:
    """(height, width) bool by class."""
    maps = example.maps()
    assert len({record.id for record in example.records}) == len(example.records)
    return {record.label: maps[record.mask] == record.value for record in example.records}


@pytest.fixture
def source(tmp_path) -> Path:
    """Four photographs in images/, of unequal sizes and odd names, and a binary mask for each in masks/."""
    rng = np.random.default_rng(0)
    for name, size in (("a b", (24, 32)), ("Köln", (32, 24)), ("c", (40, 16)), ("d.e", (8, 8))):
        save(tmp_path / "source" / "images" / f"{name}.jpg", photo(rng, size))
        save(tmp_path / "source" / "masks" / f"{name}.png", blob(rng, size) * np.uint8(255))
    return tmp_path / "source"


def test_images_and_masks_of_the_same_name(run, source, capsys):
    found = run("--prompt", "wound", "sore", "--fractions", 0.5, 0.25, 0.25)
    assert "layout: images/{name} and masks/{name}" in capsys.readouterr().out
    assert sorted(name.partition("/")[2] for name in found) == ["Köln", "a b", "c", "d.e"]
    assert sorted(name.partition("/")[0] for name in found) == ["test", "train", "train", "val"]
    for example in found.values():
        (record,) = example.records
        meant = np.asarray(Image.open(source / "masks" / f"{example.id}.png")) > 0
        np.testing.assert_array_equal(masks(example)["wound"], meant)
        assert record.prompts == {1: ("wound", "sore")} and example.rgb().shape[:2] == meant.shape
        assert example.image == (source / "images" / f"{example.id}.jpg").read_bytes()


def test_suffix_patterns_groups_and_splits_in_names(run, tmp_path):
    """Two folders of splits without val, patients in the names, masks beside the images."""
    rng = np.random.default_rng(0)
    for split, patients in (("Training", range(8)), ("test", range(2))):
        for patient in patients:
            for view in "LR":
                stem = tmp_path / "source" / "set" / split / f"p{patient}_{view}"
                save(stem.with_suffix(".png"), photo(rng))
                save(stem.with_name(f"{stem.name}_seg.png"), blob(rng))
    pattern = "{split}/{group}_{name}"
    found = run("--prompt", "cyst", "--images", pattern, "--masks", f"{pattern}_seg", "--fractions", 0.75, 0.25, 0)
    splits = {split: {key for key in found if key.startswith(split)} for split in prepared.SPLITS}
    assert [len(splits[split]) for split in prepared.SPLITS] == [12, 4, 4]
    assert splits["test"] == {"test/p0/L", "test/p0/R", "test/p1/L", "test/p1/R"}
    groups = [{found[key].group for key in splits[split]} for split in ("train", "val")]
    assert not groups[0] & groups[1] and found["test/p0/L"].group == "p0"


def test_folder_a_class(run, tmp_path):
    """A class is asked of the images that have a mask of it; the folder's name is the prompt."""
    rng = np.random.default_rng(0)
    meant = {}
    for name, classes in (("a", ("liver", "left kidney")), ("b", ("liver",))):
        save(tmp_path / "source" / "images" / f"{name}.png", photo(rng))
        for label in classes:
            meant[name, label] = blob(rng)
            save(tmp_path / "source" / "masks" / label / f"{name}.bmp", meant[name, label] * np.uint8(255))
    found = run("--masks", "masks/{class}/{name}", "--fractions", 1, 0, 0)
    assert {(key[-1], label) for key, example in found.items() for label in masks(example)} == set(meant)
    for key, example in found.items():
        for label, mask in masks(example).items():
            np.testing.assert_array_equal(mask, meant[key[-1], label])
        assert all(record.phrasings() == (record.label,) for record in example.records)


def test_class_tree_and_test_that_is_val(run, tmp_path, capsys):
    rng = np.random.default_rng(0)
    for split, name in (("training", "a"), ("validation", "b")):
        save(tmp_path / "source" / "images" / split / f"{name}.jpg", photo(rng))
        save(tmp_path / "source" / "annotations" / split / "traffic light" / f"{name}.png", blob(rng) * np.uint8(255))
    found = run("--test-is-val")
    assert "layout: images/{split}/{name} and annotations/{split}/{class}/{name}" in capsys.readouterr().out
    assert list(found) == ["train/a", "val/b"] and list(masks(found["val/b"])) == ["traffic light"]
    (test,) = prepared.load(tmp_path / "data", "mine", "test")
    assert test == found["val/b"]


def test_test_that_is_val_takes_nothing_from_train(run, source, capsys):
    """What the default fractions would put in a test split is trained on and validated with."""
    found = run("--prompt", "wound", "--test-is-val")
    assert sorted(key.partition("/")[2] for key in found if not key.startswith("test")) == ["Köln", "a b", "c", "d.e"]
    folder = prepared.find(source.parent / "data", "mine")
    assert prepared.splits(folder) == ("train", "val", "test") and prepared.stored_splits(folder) == ("train", "val")
    assert "paper" not in capsys.readouterr().out


def coded(path: Path, kind: str, size: tuple[int, int] = (16, 24)) -> np.ndarray:
    """Writes a mask of polyp (1), tool (2), void and background by colour or palette; returns its label map."""
    rng = np.random.default_rng(1)
    labels = rng.choice(np.uint8([0, 1, 2, VOID]), (size[0] // 8, size[1] // 8)).repeat(8, 0).repeat(8, 1)
    path.parent.mkdir(parents=True, exist_ok=True)
    colours = {0: (0, 0, 0), 1: RED, 2: BLUE, VOID: GREY}
    if kind == "colour":
        image = np.zeros((*size, 3), np.uint8)
        for value, colour in colours.items():
            image[labels == value] = colour
        Image.fromarray(image).save(path)
    elif kind == "palette":  # stored as 0, 3, 7 and 9, in colours that could be anything
        stored = np.select([labels == 1, labels == 2, labels == VOID], [3, 7, 9], 0).astype(np.uint8)
        image = Image.fromarray(stored)
        image.putpalette(rng.integers(0, 256, 768, np.uint8).tolist())
        image.save(path)
    else:  # 16 bits
        stored = np.select([labels == 1, labels == 2, labels == VOID], [3, 700, 9], 0).astype(np.uint16)
        Image.fromarray(stored).save(path)
    return labels


@pytest.mark.parametrize(
    ("kind", "table"),
    [
        ("colour", COLOURS),
        ("palette", "class,value,prompt\npolyp,3,a polyp|a small polyp\ntool,7,\nvoid,9,\nbackground,0,\n"),
        ("16 bits", "class,value,prompt\npolyp,3,a polyp|a small polyp\ntool,700,\nvoid,9,\n"),
    ],
)
def test_label_maps_with_a_class_table(run, tmp_path, kind, table):
    labels = coded(tmp_path / "source" / "masks" / "a.png", kind)
    save(tmp_path / "source" / "images" / "a.jpg", photo(np.random.default_rng(0), labels.shape))
    (tmp_path / "classes.csv").write_text(table)
    encoding = "colour" if kind == "colour" else "palette"
    found = run("--encoding", encoding, "--classes", tmp_path / "classes.csv")
    example = found["train/a"]
    np.testing.assert_array_equal(example.maps()[0], labels)
    assert {record.label: (record.value, record.phrasings()) for record in example.records} == {
        "polyp": (1, ("a polyp", "a small polyp")),
        "tool": (2, ("tool",)),
    }


@pytest.mark.parametrize("suffix", [".csv", ".json"])
def test_manifest(run, source, tmp_path, suffix):
    rows = [
        {"image": "images/a b.jpg", "mask": "masks/a b.png", "prompt": "wound|sore", "split": "train", "group": "7"},
        {"image": "images/a b.jpg", "mask": "masks/a b.png", "prompt": "skin", "split": "train", "group": "7"},
        {"image": "images/Köln.jpg", "mask": "masks/Köln.png", "prompt": "wound", "split": "validation", "class": "w"},
        {"image": "images/c.jpg", "mask": "masks/c.png", "prompt": "wound, deep", "split": "Test"},
    ]
    found = run("--manifest", write_manifest(tmp_path / f"list{suffix}", rows))
    assert list(found) == ["train/images/a b.jpg", "val/images/Köln.jpg", "test/images/c.jpg"]
    first = found["train/images/a b.jpg"]
    assert [(record.label, record.phrasings()) for record in first.records] == [
        ("wound", ("wound", "sore")),
        ("skin", ("skin",)),
    ]
    assert first.group == "7" and found["val/images/Köln.jpg"].records[0].label == "w"


def write_manifest(path: Path, rows: list[dict]) -> Path:
    if path.suffix == ".json":
        path.write_text(json.dumps(rows), encoding="utf-8")
        return path
    columns = list(dict.fromkeys(column for row in rows for column in row))
    lines = [columns, *([row.get(column, "") for column in columns] for row in rows)]
    path.write_text("\n".join(",".join(f'"{cell}"' for cell in line) for line in lines) + "\n", encoding="utf-8")
    return path


def test_medvlsm_folders(run, tmp_path, capsys):
    """Also of CAMUS, whose images lie in train/ and test/, and whose val reads from train/."""
    rng = np.random.default_rng(0)
    root = tmp_path / "source" / "camus"
    (root / "anns").mkdir(parents=True)
    meant = {}
    for split, part, name in (("train", "train", "a"), ("val", "train", "b"), ("test", "test", "a")):
        save(root / "images" / part / f"{name}.png", photo(rng)[..., 0])
        rows = []
        for number in (1, 2):
            mask = f"mask_{number}/{name}_gt.png"
            meant[split, number] = blob(rng)
            save(root / "masks" / part / mask, meant[split, number] * np.uint8(255))
            prompts = {"p0": "", "p1": [f"part {number}", "part"], "p2": f"left part {number}"}
            rows.append({"img_name": f"{name}.png", "mask_name": mask, "prompts": prompts})
        (root / "anns" / f"{split}.json").write_text(json.dumps(rows))
    found = run()
    assert "layout: medvlsm's, camus/" in capsys.readouterr().out
    assert list(found) == ["train/a", "val/b", "test/a"]
    for (split, number), mask in meant.items():
        (example,) = prepared.load(tmp_path / "data", "mine", split)
        np.testing.assert_array_equal(masks(example)[f"part {number}"], mask)
        assert example.records[0].prompts == {0: ("",), 1: ("part 1", "part"), 2: ("left part 1",)}


def medvlsm_set(root: Path, mask: np.ndarray) -> None:
    """A set of one image in medvlsm's layout."""
    save(root / "images" / "a.png", photo(np.random.default_rng(0), mask.shape[:2]))
    save(root / "masks" / "a.png", mask)
    (root / "anns").mkdir()
    row = {"img_name": "a.png", "mask_name": "a.png", "prompts": {"p1": "x"}}
    (root / "anns" / "train.json").write_text(json.dumps([row]))


def test_shades_in_medvlsm_folders_are_cut(run, tmp_path):
    """In the middle, as public masks with soft edges need, or at --threshold."""
    medvlsm_set(tmp_path / "source", np.arange(256, dtype=np.uint8).reshape(16, 16))
    for options, marked in (((), 128), (("--threshold", 15), 240)):
        (example,) = run(*options).values()
        assert int(example.maps()[0].sum()) == marked


def test_labels_in_medvlsm_folders_are_refused(monkeypatch, capsys, tmp_path):
    medvlsm_set(tmp_path / "source", np.arange(256, dtype=np.uint8).reshape(16, 16) % 3)
    arguments = ["--name", "mine", "--source", tmp_path / "source", "--output", tmp_path / "data"]
    says = r"almost-black: masks/a\.png.*127.*--threshold"
    fails(monkeypatch, capsys, says, "folder", *arguments)


@pytest.mark.parametrize("value", [1, 2, 15, 100, 128, 255, 4095, 65535])
def test_of_two_values_the_larger_is_the_object(value):
    """A label of a drawing program, a palette's index, a percentage, 12 bits in 16."""
    mask = blob(np.random.default_rng(0))
    for low in (0, value - 1):
        file = io.BytesIO()
        Image.fromarray(np.where(mask, value, low).astype(np.uint8 if value < 256 else np.uint16)).save(file, "PNG")
        for decode in (mask_files.binary, mask_files.two_valued):
            np.testing.assert_array_equal(decode(file.getvalue(), "mask"), mask)


@pytest.mark.parametrize(("low", "high"), [(0, 1), (7, 7), (0, 255)])
def test_black_that_compression_made_noisy_is_no_object(low, high):
    """A JPEG of one shade, which quantisation may move, and of black beside an object."""
    shades = np.repeat(np.asarray([low, high], np.uint8), 64 * 16).reshape(32, 64)
    file = io.BytesIO()
    Image.fromarray(shades).save(file, "JPEG", quality=1 if high == 1 else 95)
    np.testing.assert_array_equal(mask_files.binary(file.getvalue(), "mask"), shades == 255)
    file = io.BytesIO()
    Image.fromarray(np.full((8, 8), 90, np.uint8)).save(file, "JPEG")
    with mistakes.raises("almost-black: 127"):
        mask_files.binary(file.getvalue(), "mask")


def test_a_webp_may_be_lossless():
    mask = blob(np.random.default_rng(0))
    file = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8)).save(file, "WEBP", lossless=True)
    np.testing.assert_array_equal(mask_files.binary(file.getvalue(), "mask"), mask)


@pytest.mark.parametrize("ground", [(0, 0, 0, 0), (0, 0, 0, 255), (90, 90, 90, 0)])
def test_a_bright_object_on_transparent_or_opaque_ground(ground):
    mask = blob(np.random.default_rng(0))
    file = io.BytesIO()
    Image.fromarray(np.asarray([ground, (255, 255, 255, 255)], np.uint8)[mask.astype(int)]).save(file, "PNG")
    np.testing.assert_array_equal(mask_files.binary(file.getvalue(), "mask"), mask)


WHITE_BLACK, VOC, EQUAL = [255, 255, 255, 0, 0, 0], [0, 0, 0, 128, 0, 0], [255, 255, 255, 255, 0, 0]


@pytest.mark.parametrize(
    ("palette", "used", "marked"),
    [
        *((WHITE_BLACK, used, 0) for used in ((0, 1), (0,), (1,))),  # as optimisers write it
        *((VOC, used, 1) for used in ((0, 1), (0,), (1,))),
        (EQUAL, (0, 1), 1),
    ],
)
def test_of_a_palettes_two_colours_the_brighter_is_the_object(palette, used, marked):
    indices = np.resize(np.asarray(used, np.uint8), (8, 8))
    drawn = Image.fromarray(indices, "L")
    drawn.putpalette(palette)
    file = io.BytesIO()
    drawn.save(file, "PNG")
    np.testing.assert_array_equal(mask_files.values(file.getvalue(), "mask")[0], indices)
    for decode in (mask_files.binary, mask_files.two_valued):
        np.testing.assert_array_equal(decode(file.getvalue(), "mask"), indices == marked)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
def test_masks_are_turned_as_images_are(orientation, suffix):
    shades = np.random.default_rng(0).integers(0, 2, (12, 20, 1), np.uint8) * np.full(3, 255, np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    Image.fromarray(shades).save(file, {"tif": "TIFF"}.get(suffix, suffix), exif=exif, lossless=True)
    upright = decode_rgb(file.getvalue(), "mask")
    np.testing.assert_array_equal(mask_files.binary(file.getvalue(), "mask"), upright[..., 0] > 0)
    labels = mask_files.by_colour(file.getvalue(), "mask", {(0, 0, 0): 0, (255, 255, 255): 1})
    np.testing.assert_array_equal(labels, upright[..., 0] > 0)


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0" + bytes(16), b"Exif\0\0MM\0*\0\0", b"Exif\0\0MM\0*\0\0\0\x08\0\x03\1\x0e"]
)
def test_masks_with_broken_exif(exif):
    mask = blob(np.random.default_rng(0))
    file = io.BytesIO()
    Image.fromarray(mask).save(file, "PNG", exif=exif)
    np.testing.assert_array_equal(mask_files.binary(file.getvalue(), "mask"), mask)


def test_photographs_that_say_in_doubtful_ways_how_they_are_turned(run, source):
    """Broken EXIF and an orientation in XMP, which OpenCV passes over: the mask has the size of what it decodes."""
    rng = np.random.default_rng(0)
    for path in (*source.glob("images/*"), *source.glob("masks/*")):
        path.unlink()
    broken = b"Exif\0\0" + bytes(16)
    xmp = b"""<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
        <rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>"""
    options: dict[str, dict[str, Any]] = {
        "a.jpg": {"exif": broken, "dpi": (72, 72)},
        "b.png": {"exif": broken},
        "c.jpg": {"xmp": xmp},
    }
    for name, said in options.items():
        Image.fromarray(photo(rng, (16, 40))).save(source / "images" / name, **said)
        save(source / "masks" / f"{name[0]}.png", blob(rng, (16, 40)))
    found = run("--prompt", "x", "--fractions", 1, 0, 0)
    assert [example.rgb().shape for example in found.values()] == [(16, 40, 3)] * 3
    assert all(not look.faults for look in stats_of_split("train", found.values()))


def test_grey_alpha_and_turned_photographs(run, source):
    """Photographs that EXIF turns, whose masks are upright; grey, deep and RGBA images; 1-bit and alpha masks."""
    rng = np.random.default_rng(0)
    for path in (*source.glob("images/*"), *source.glob("masks/*")):
        path.unlink()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(photo(rng, (16, 40))).save(source / "images" / "turned.jpg", exif=exif)
    save(source / "masks" / "turned.png", blob(rng, (40, 16)))
    save(source / "images" / "grey.png", photo(rng)[..., 0])
    save(source / "masks" / "grey.png", np.dstack([blob(rng) * np.uint8(255), np.full((24, 32), 255, np.uint8)]))
    save(source / "images" / "deep.png", rng.integers(0, 65536, (24, 32), np.uint16))
    save(source / "masks" / "deep.png", blob(rng) * np.uint16(65535))
    save(source / "images" / "alpha.webp", np.dstack([photo(rng), np.full((24, 32), 9, np.uint8)]))
    save(source / "masks" / "alpha.png", blob(rng) * np.uint8(1))
    found = run("--prompt", "x", "--fractions", 1, 0, 0)
    assert {key: (example.rgb().shape, int(masks(example)["x"].sum())) for key, example in found.items()} == {
        "train/turned": ((40, 16, 3), 64),
        "train/grey": ((24, 32, 3), 64),
        "train/deep": ((24, 32, 3), 64),
        "train/alpha": ((24, 32, 3), 64),
    }


def shades(source: Path) -> None:
    save(source / "masks" / "c.png", np.arange(640, dtype=np.uint8).reshape(40, 16))


def medvlsms(source: Path) -> None:
    (source / "anns").mkdir()
    (source / "anns" / "train.json").write_text("[]")


def class_tree(source: Path) -> None:
    save(source / "annotations" / "train" / "polyp" / "c.png", np.zeros((40, 16), np.uint8))


def into_test(source: Path) -> None:
    for kind in ("images", "masks"):
        (source / kind / "test").mkdir()
        for path in (source / kind).glob("*.*"):
            path.rename(source / kind / "test" / path.name)


def half(source: Path) -> None:
    path = source / "images" / "c.jpg"
    path.write_bytes(path.read_bytes()[:-200])


def pages(path: Path, **options: Any) -> None:
    """A TIFF of two pages in place of a file."""
    first, second = (Image.fromarray(np.full((40, 16), value, np.uint8)) for value in (0, 255))
    path.unlink()
    first.save(path.with_suffix(".tif"), save_all=True, append_images=[second], **options)


def painted(source: Path, *colours: tuple[int, ...]) -> None:
    """A mask of two colours."""
    save(
        source / "masks" / "c.png", np.asarray(colours, np.uint8)[blob(np.random.default_rng(0), (40, 16)).astype(int)]
    )


MISTAKES: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "missing mask": (lambda at: (at / "masks/c.png").unlink(), "--prompt x", r"mask-missing: images/c\.jpg"),
    "missing image": (
        lambda at: (at / "images/c.jpg").unlink(),
        "--prompt x",
        r"image-missing: webp.*c\.png",
    ),
    "pages of an image": (
        lambda at: pages(at / "images/c.jpg"),
        "--prompt x",
        r"several-pages: images/c\.tif.*2",
    ),
    "pages of a mask": (lambda at: pages(at / "masks/c.png"), "--prompt x", r"several-pages: masks/c\.tif.*2"),
    "12 bits in 16": (
        lambda at: (
            save(at / "images/c.png", np.arange(640, dtype=np.uint16).reshape(40, 16) * 6)
            or (at / "images/c.jpg").unlink()
        ),
        "--prompt x",
        r"almost-black: images/c\.png .*16.*3834",
    ),
    "another size": (
        lambda at: save(at / "masks/c.png", np.zeros((16, 40), np.uint8)),
        "--prompt x",
        r"mask-size: masks/c\.png .*40x16, .*images/c\.jpg .*16x40",
    ),
    "corrupt JPEG": (half, "--prompt x", r"undecodable: images/c\.jpg"),
    "no image": (lambda at: (at / "masks/c.png").write_text("?"), "--prompt x", r"undecodable: masks/c\.png"),
    "shades": (shades, "--prompt x", r"mask-not-binary: masks/c\.png .*256.*--encoding.*--threshold"),
    "equally bright colours": (
        lambda at: painted(at, (255, 255, 255), RED),
        "--prompt x",
        r"mask-unclear: masks/c\.png .*bright.*--encoding colour",
    ),
    "equally bright colours, cut": (
        lambda at: painted(at, (0, 255, 0), RED),
        "--prompt x --threshold 9",
        "mask-unclear: bright",
    ),
    "white on transparent white": (
        lambda at: painted(at, (255, 255, 255, 0), (255, 255, 255, 255)),
        "--prompt x",
        r"mask-unclear: masks/c\.png .*transparen",
    ),
    "green on transparent white": (
        lambda at: painted(at, (255, 255, 255, 0), (0, 90, 0, 255)),
        "--prompt x",
        "mask-unclear: transparen",
    ),
    "black on transparent black": (
        lambda at: painted(at, (0, 0, 0, 0), (0, 0, 0, 255)),
        "--prompt x",
        "mask-unclear: transparen",
    ),
    "grey on transparent grey": (lambda at: painted(at, (9, 0), (9, 255)), "--prompt x", "mask-unclear: transparen"),
    "two masks": (
        lambda at: save(at / "masks/c.bmp", np.zeros((40, 16), np.uint8)),
        "--prompt x",
        r"duplicate-mask: masks/c\.bmp.*masks/c\.png",
    ),
    "two images": (
        lambda at: save(at / "images/c.bmp", np.zeros((40, 16), np.uint8)),
        "--prompt x",
        r"duplicate-image: images/c\.bmp.*images/c\.jpg",
    ),
    "no UTF-8": (
        lambda at: (at / "images/c.jpg").rename(at / "images" / os.fsdecode(b"K\xf6ln.jpg")),
        "--prompt x",
        r"invalid-name: 'images/K\\udcf6ln\.jpg'",
    ),
    "no prompt": (lambda at: None, "", "missing-option: --prompt"),
    "empty prompt": (lambda at: None, "--prompt ''", "empty-prompt: --prompt"),
    "no source": (
        lambda at: None,
        "--prompt x --images pictures/{name}",
        r"no-images: pictures/\{name.*webp",
    ),
    "unknown field": (lambda at: None, "--prompt x --images {nam}", r"unknown-field: \{nam\}.*'name'"),
    "no name": (lambda at: None, "--prompt x --masks masks/*", r"missing-field: \{name\}"),
    "fractions": (lambda at: None, "--prompt x --fractions 0.8 0.1 0.2", "out-of-range: --fractions"),
    "no classes": (lambda at: None, "--encoding colour", "missing-option: colour .*--classes"),
    "prompt for classes": (
        lambda at: None,
        "--prompt x --masks masks/{class}/{name}",
        r"options-conflict: --prompt .*'masks/\{class\}/\{name\}'",
    ),
    "prompt for a class tree": (class_tree, "--prompt x", "options-conflict: --prompt.*'annotations/"),
    "prompt beside classes": (lambda at: None, "--prompt x --classes c.csv", "options-conflict: --classes .*--prompt"),
    "prompt beside a manifest": (
        lambda at: None,
        "--prompt x --manifest m.csv",
        "options-conflict: --manifest .*--prompt",
    ),
    "threshold of colours": (
        lambda at: None,
        "--encoding colour --classes c.csv --threshold 9",
        "options-conflict: --threshold .*--encoding colour",
    ),
    **{
        f"medvlsm's and {options}": (medvlsms, options, rf"options-conflict: anns/train\.json .*{options.split()[0]} ")
        for options in (
            "--prompt x",
            "--encoding palette",
            "--classes c.csv",
            "--fractions 0.5 0.25 0.25",
        )
    },
    "test that is val": (
        into_test,
        "--prompt x --test-is-val --images images/{split}/{name} --masks masks/{split}/{name}",
        r"options-conflict: --test-is-val .*test \[",
    ),
    "test that is no val": (
        lambda at: None,
        "--prompt x --test-is-val --fractions 0.9 0 0.1",
        r"options-conflict: --test-is-val .*train \[",
    ),
    "unknown encoding": (lambda at: None, "--encoding color", "invalid-option: 'color'.*'colour'"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_one_line_and_leave_nothing(mistake, monkeypatch, capsys, source, tmp_path):
    make, options, says = MISTAKES[mistake]
    make(source)
    arguments = ["--name", "mine", "--source", source, "--output", tmp_path / "data", *shlex.split(options)]
    fails(monkeypatch, capsys, says, "folder", *arguments)
    assert not list((tmp_path / "data").glob("*"))


def fails(monkeypatch, capsys, says: str, *arguments: object) -> None:
    with pytest.raises(SystemExit) as stop:
        small.run(monkeypatch, prepare.main, *arguments)
    assert stop.value.code == 2
    one_line(capsys.readouterr().err, says)


def test_two_sources_with_the_same_names_are_one_line(monkeypatch, capsys, source, tmp_path):
    other = shutil.copytree(source, tmp_path / "other")
    save(other / "images" / "c.jpg", photo(np.random.default_rng(1), (40, 16)))
    (source / "masks" / "c.png").unlink()
    arguments = ["--name", "mine", "--source", source, other, "--output", tmp_path / "data", "--prompt", "x"]
    says = r"duplicate-file: source, .*other .*images/c\.jpg"
    fails(monkeypatch, capsys, says, "folder", *arguments)
    assert not list((tmp_path / "data").glob("*"))


COLUMNS = {"image": "images/c.jpg", "mask": "masks/c.png", "prompt": "x"}


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([{"image": "images/c.jpg", "prompt": "x"}], r"missing-column: list\.csv.*'mask'"),
        ([COLUMNS, COLUMNS | {"mask": ""}], r"missing-column: row 3 of .*list\.csv .*'mask'"),
        ([COLUMNS | {"prompt": " "}], r"empty-prompt: row 2 of.*list\.csv"),
        ([COLUMNS | {"mask": "../masks/c.png"}], r"outside-source: row 2 of.*mask.*'\.\./masks/c\.png'"),
        ([COLUMNS | {"image": "/etc/passwd"}], "outside-source: row 2 of.*'/etc/passwd'"),
        ([COLUMNS | {"mask": "masks/f.png"}], r"no-such-file: row 2 of.*mask.*'masks/f\.png'"),
        ([COLUMNS, COLUMNS], r"duplicate-mask: row 3 of.*'x'.*masks/c\.png"),
        ([COLUMNS | {"split": "tset"}], "unknown-split: row 2 of.*'tset'.*'test'"),
        ([COLUMNS | {"split": "val"}, COLUMNS | {"prompt": "y"}], r"rows-disagree: row 3 of .*list\.csv .*split"),
        ([COLUMNS | {"split": "val"}, COLUMNS | {"image": "images/d.e.jpg"}], r"split-missing: images/d\.e\.jpg"),
        ([], r"missing-column: list\.csv.*'image'"),
    ],
)
def test_mistakes_in_manifests_name_the_row(rows, says, monkeypatch, capsys, source, tmp_path):
    path = write_manifest(tmp_path / "list.csv", rows)
    arguments = ["--name", "mine", "--source", source, "--output", tmp_path / "data", "--manifest", path]
    fails(monkeypatch, capsys, says, "folder", *arguments)


@pytest.mark.parametrize(
    ("table", "says"),
    [
        (
            "class,colour\npolyp,#ff0000\nvoid,#808080\n",
            r"unknown-class: masks/a\.png .*\(0, 0, 255\)",
        ),
        ("name,colour\npolyp,#ff0000\n", r"missing-column: classes\.csv.*'class'"),
        ("class,colour\npolyp,#ff000\n", r"class-value: row 2 of .*classes\.csv .*'#ff000'"),
        ("class,colour\npolyp,#ff0000\ntool,255 0 0\n", r"rows-disagree: row 3 of.*\(255, 0, 0\)"),
        ("class,colour\nvoid,#808080\n", r"class-count: classes\.csv"),
        ("", r"missing-column: classes\.csv.*'class'"),
    ],
)
def test_mistakes_in_class_tables_are_one_line(table, says, monkeypatch, capsys, tmp_path):
    labels = coded(tmp_path / "source" / "masks" / "a.png", "colour")
    save(tmp_path / "source" / "images" / "a.jpg", photo(np.random.default_rng(0), labels.shape))
    (tmp_path / "classes.csv").write_text(table)
    arguments = ["--source", tmp_path / "source", "--output", tmp_path / "data", "--classes", tmp_path / "classes.csv"]
    fails(monkeypatch, capsys, says, "folder", "--name", "mine", "--encoding", "colour", *arguments)
