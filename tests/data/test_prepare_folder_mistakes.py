"""Tests of mistakes in the user's own data: one line for each, and no set is left behind."""

import os
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import user_folders
from fake_downloads import blob, photo, save
from PIL import Image
from user_folders import RED, assert_fails, write_coded_mask, write_manifest, write_medvlsm_set

source = user_folders.source


def write_grey_mask(source: Path) -> None:
    save(source / "masks" / "c.png", np.arange(640, dtype=np.uint8).reshape(40, 16))


def write_medvlsm_annotations(source: Path) -> None:
    (source / "anns").mkdir()
    (source / "anns" / "train.json").write_text("[]")


def write_class_tree(source: Path) -> None:
    save(source / "annotations" / "train" / "polyp" / "c.png", np.zeros((40, 16), np.uint8))


def move_into_test(source: Path) -> None:
    for kind in ("images", "masks"):
        (source / kind / "test").mkdir()
        for path in (source / kind).glob("*.*"):
            path.rename(source / kind / "test" / path.name)


def truncate_image(source: Path) -> None:
    path = source / "images" / "c.jpg"
    path.write_bytes(path.read_bytes()[:-200])


def write_two_pages(path: Path, **options: Any) -> None:
    """A TIFF of two pages in place of a file."""
    first, second = (Image.fromarray(np.full((40, 16), value, np.uint8)) for value in (0, 255))
    path.unlink()
    first.save(path.with_suffix(".tif"), save_all=True, append_images=[second], **options)


def write_two_colours(source: Path, *colours: tuple[int, ...]) -> None:
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
        lambda at: write_two_pages(at / "images/c.jpg"),
        "--prompt x",
        r"several-pages: images/c\.tif.*2",
    ),
    "pages of a mask": (
        lambda at: write_two_pages(at / "masks/c.png"),
        "--prompt x",
        r"several-pages: masks/c\.tif.*2",
    ),
    "another size": (
        lambda at: save(at / "masks/c.png", np.zeros((16, 40), np.uint8)),
        "--prompt x",
        r"mask-size: masks/c\.png .*40x16, .*images/c\.jpg .*16x40",
    ),
    "corrupt JPEG": (truncate_image, "--prompt x", r"undecodable: images/c\.jpg"),
    "no image": (lambda at: (at / "masks/c.png").write_text("?"), "--prompt x", r"undecodable: masks/c\.png"),
    "shades": (write_grey_mask, "--prompt x", r"mask-not-binary: masks/c\.png .*256.*--encoding.*--threshold"),
    "equally bright colours": (
        lambda at: write_two_colours(at, (255, 255, 255), RED),
        "--prompt x",
        r"mask-unclear: masks/c\.png .*bright.*--encoding colour",
    ),
    "equally bright colours, cut": (
        lambda at: write_two_colours(at, (0, 255, 0), RED),
        "--prompt x --threshold 9",
        "mask-unclear: bright",
    ),
    "white on transparent white": (
        lambda at: write_two_colours(at, (255, 255, 255, 0), (255, 255, 255, 255)),
        "--prompt x",
        r"mask-unclear: masks/c\.png .*transparen",
    ),
    "green on transparent white": (
        lambda at: write_two_colours(at, (255, 255, 255, 0), (0, 90, 0, 255)),
        "--prompt x",
        "mask-unclear: transparen",
    ),
    "black on transparent black": (
        lambda at: write_two_colours(at, (0, 0, 0, 0), (0, 0, 0, 255)),
        "--prompt x",
        "mask-unclear: transparen",
    ),
    "grey on transparent grey": (
        lambda at: write_two_colours(at, (9, 0), (9, 255)),
        "--prompt x",
        "mask-unclear: transparen",
    ),
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
        r'no-images: pictures/\{name.* 4 \.jpg, 4 \.png in images \(4\), masks \(4\); --images "images/\{name\}"',
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
    "prompt for a class tree": (write_class_tree, "--prompt x", "options-conflict: --prompt.*'annotations/"),
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
        f"medvlsm's and {options}": (
            write_medvlsm_annotations,
            options,
            rf"options-conflict: anns/train\.json .*{options.split()[0]} ",
        )
        for options in (
            "--prompt x",
            "--encoding palette",
            "--classes c.csv",
            "--fractions 0.5 0.25 0.25",
        )
    },
    "test that is val": (
        move_into_test,
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
    assert_fails(monkeypatch, capsys, says, "folder", *arguments)
    assert not list((tmp_path / "data").glob("*"))


def test_two_sources_with_the_same_names_are_one_line(monkeypatch, capsys, source, tmp_path):
    other = shutil.copytree(source, tmp_path / "other")
    save(other / "images" / "c.jpg", photo(np.random.default_rng(1), (40, 16)))
    (source / "masks" / "c.png").unlink()
    arguments = ["--name", "mine", "--source", source, other, "--output", tmp_path / "data", "--prompt", "x"]
    says = r"duplicate-file: source, .*other .*images/c\.jpg"
    assert_fails(monkeypatch, capsys, says, "folder", *arguments)
    assert not list((tmp_path / "data").glob("*"))


def test_labels_in_medvlsm_folders_are_refused(monkeypatch, capsys, tmp_path):
    write_medvlsm_set(tmp_path / "source", np.arange(256, dtype=np.uint8).reshape(16, 16) % 3)
    arguments = ["--name", "mine", "--source", tmp_path / "source", "--output", tmp_path / "data"]
    says = r"almost-black: masks/a\.png.*127.*--threshold"
    assert_fails(monkeypatch, capsys, says, "folder", *arguments)


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
        (
            [COLUMNS | {"class": "x"}, COLUMNS | {"class": "x", "mask": "masks/d.e.png", "prompt": "y"}],
            r"rows-disagree: row 3 of.*'x'.*images/c\.jpg.*prompts",
        ),
        ([COLUMNS | {"split": "tset"}], "unknown-split: row 2 of.*'tset'.*'test'"),
        ([COLUMNS | {"split": "val"}, COLUMNS | {"prompt": "y"}], r"rows-disagree: row 3 of .*list\.csv .*split"),
        ([COLUMNS | {"split": "val"}, COLUMNS | {"image": "images/d.e.jpg"}], r"split-missing: images/d\.e\.jpg"),
        ([], r"missing-column: list\.csv.*'image'"),
    ],
)
def test_mistakes_in_manifests_name_the_row(rows, says, monkeypatch, capsys, source, tmp_path):
    path = write_manifest(tmp_path / "list.csv", rows)
    arguments = ["--name", "mine", "--source", source, "--output", tmp_path / "data", "--manifest", path]
    assert_fails(monkeypatch, capsys, says, "folder", *arguments)


@pytest.mark.parametrize(
    ("table", "says"),
    [
        (
            "class,colour\npolyp,#ff0000\nvoid,#808080\n",
            r"unknown-class: masks/a\.png .*\(0, 0, 255\)",
        ),
        ("name,colour\npolyp,#ff0000\n", r"unknown-column: classes\.csv.*'name'.*'class'"),
        ("class,colour\npolyp,#ff000\n", r"class-value: row 2 of .*classes\.csv .*'#ff000'"),
        ("class,colour\npolyp,#ff0000\ntool,255 0 0\n", r"rows-disagree: row 3 of.*\(255, 0, 0\)"),
        ("class,colour\nvoid,#808080\n", r"class-count: classes\.csv"),
        ("", r"missing-column: classes\.csv.*'class'"),
    ],
)
def test_mistakes_in_class_tables_are_one_line(table, says, monkeypatch, capsys, tmp_path):
    labels = write_coded_mask(tmp_path / "source" / "masks" / "a.png", "colour")
    save(tmp_path / "source" / "images" / "a.jpg", photo(np.random.default_rng(0), labels.shape))
    (tmp_path / "classes.csv").write_text(table)
    arguments = ["--source", tmp_path / "source", "--output", tmp_path / "data", "--classes", tmp_path / "classes.csv"]
    assert_fails(monkeypatch, capsys, says, "folder", "--name", "mine", "--encoding", "colour", *arguments)


def test_public_sets_get_no_advice_of_options_that_they_lack(monkeypatch, capsys, source, tmp_path):
    """A dark mask, for which `folder` has --threshold."""
    for path in source.glob("masks/*"):
        save(path.with_suffix(".jpg"), np.full((40, 16), 90, np.uint8))
        path.unlink()
    says = r"almost-black: masks/.*\.jpg has no value above 127, so no object; the official files aren't so: .* again"
    assert_fails(monkeypatch, capsys, says, "kvasir", "--source", source, "--output", tmp_path / "data")
