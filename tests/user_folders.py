"""Folders of images and masks as users have them, for tests of `prepare folder`."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import small
from fake_downloads import blob, photo, save
from PIL import Image
from test_mistakes import one_line

from tunevlseg_jax import prepare
from tunevlseg_jax.data import prepared
from tunevlseg_jax.data.examples import VOID, Example

Run = Callable[..., dict[str, Example]]
COLOURS = "class,colour,prompt\npolyp,#ff0000,a polyp|a small polyp\ntool,0 0 255,\nvoid,#808080,\n"
RED, BLUE, GREY = (255, 0, 0), (0, 0, 255), (128, 128, 128)


@pytest.fixture
def run(monkeypatch, tmp_path) -> Run:
    """Prepares tmp_path/source as the set "mine"; its examples by split and id."""

    def prepare_folder(*arguments: object) -> dict[str, Example]:
        output = ["--name", "mine", "--source", tmp_path / "source", "--output", tmp_path / "data"]
        small.run(monkeypatch, prepare.main, "folder", *output, *arguments)
        folder = prepared.find(tmp_path / "data", "mine")
        splits = [split for split in prepared.SPLITS if list(folder.glob(f"mine-{split}.*"))]
        return {
            f"{split}/{example.id}": example
            for split in splits
            for example in prepared.load(tmp_path / "data", "mine", split)
        }

    return prepare_folder


def masks_by_class(example: Example) -> dict[str, np.ndarray]:
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


def write_coded_mask(path: Path, kind: str, size: tuple[int, int] = (16, 24)) -> np.ndarray:
    """Writes a mask of polyp (1), tool (2), void and background by colour or palette; returns its label map."""
    rng = np.random.default_rng(1)
    labels = rng.choice(np.asarray([0, 1, 2, VOID], np.uint8), (size[0] // 8, size[1] // 8)).repeat(8, 0).repeat(8, 1)
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


def write_manifest(path: Path, rows: list[dict]) -> Path:
    if path.suffix == ".json":
        path.write_text(json.dumps(rows), encoding="utf-8")
        return path
    columns = list(dict.fromkeys(column for row in rows for column in row))
    lines = [columns, *([row.get(column, "") for column in columns] for row in rows)]
    path.write_text("\n".join(",".join(f'"{cell}"' for cell in line) for line in lines) + "\n", encoding="utf-8")
    return path


def write_medvlsm_set(root: Path, mask: np.ndarray) -> None:
    """A set of one image in medvlsm's layout."""
    save(root / "images" / "a.png", photo(np.random.default_rng(0), mask.shape[:2]))
    save(root / "masks" / "a.png", mask)
    (root / "anns").mkdir()
    row = {"img_name": "a.png", "mask_name": "a.png", "prompts": {"p1": "x"}}
    (root / "anns" / "train.json").write_text(json.dumps([row]))


def assert_fails(monkeypatch, capsys, says: str, *arguments: object) -> None:
    with pytest.raises(SystemExit) as stop:
        small.run(monkeypatch, prepare.main, *arguments)
    assert stop.value.code == 2
    one_line(capsys.readouterr().err, says)
