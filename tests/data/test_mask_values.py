"""Tests of binary masks whose values differ between files, are inverted, or are to be ignored."""

import io
from pathlib import Path

import mistakes
import numpy as np
import pytest
import small
from fake_downloads import blob, photo, save
from PIL import Image
from user_folders import Run, assert_fails, masks_by_class, run

from tunevlseg_jax import prepare
from tunevlseg_jax.data import mask_files
from tunevlseg_jax.data.examples import VOID
from tunevlseg_jax.data.mask_values import BinaryRule
from tunevlseg_jax.data.seen_encodings import SeenEncodings

run = run
MASK = blob(np.random.default_rng(0))


def encoded(image: Image.Image, suffix: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, suffix, **options)
    return file.getvalue()


def palette(colours: list[int]) -> bytes:
    image = Image.fromarray(MASK.astype(np.uint8))
    image.putpalette(colours)
    return encoded(image)


def grey(value: int, low: int = 0) -> bytes:
    return encoded(Image.fromarray(np.where(MASK, value, low).astype(np.uint8 if value < 256 else np.uint16)))


def colour(*rgb: int) -> bytes:
    return encoded(Image.fromarray(MASK[..., None] * np.asarray(rgb, np.uint8)))


KINDS = {
    "255": [grey(255), encoded(Image.fromarray(MASK)), colour(255, 255, 255), palette([0, 0, 0, 255, 255, 255])],
    "1": [grey(1)],
    "2": [grey(2)],
    "254": [grey(254)],
    "65535": [grey(65535)],
    "128 and 255": [grey(255, 128)],
    "1 (palette)": [palette([0, 0, 0, 128, 0, 0]), palette([9, 9, 9, 9, 9, 9])],
    "#ff0000": [colour(255, 0, 0)],
    "#00ff00": [colour(0, 255, 0)],
}
"""Files that hold the same mask, by what is written of their values; 255 is white, however it is stored."""


@pytest.mark.parametrize("kind", KINDS)
def test_each_encoding_is_read_and_noted(kind):
    for data in KINDS[kind]:
        seen = SeenEncodings()
        for file, name in ((data, "a.png"), (grey(255), "b.png")):
            np.testing.assert_array_equal(
                mask_files.object_map(file, name, BinaryRule(), label="tumor", seen=seen), MASK
            )
        if kind == "255":
            assert not seen.mixed()
        else:
            values = f"0 and {kind} in 1 file, such as a.png; 0 and 255 in 1 file, such as b.png"
            assert seen.mixed() == {"tumor": values}


def test_files_that_fit_any_encoding_are_not_noted():
    """An empty mask, a file whose pixels are all the object, a JPEG, an antialiased edge, and another class."""
    seen = SeenEncodings()
    whole = encoded(Image.fromarray(np.full((24, 32), 255, np.uint8)))
    for data in (grey(0), whole, encoded(Image.fromarray(MASK * np.uint8(255)), "JPEG")):
        mask_files.object_map(data, "a", BinaryRule(), label="tumor", seen=seen)
    shades = encoded(Image.fromarray(np.where(MASK, 255, np.arange(32) % 3).astype(np.uint8)))
    mask_files.object_map(shades, "b", BinaryRule(threshold=127), label="tumor", seen=seen)
    mask_files.object_map(grey(1), "c", BinaryRule(), label="other", seen=seen)
    assert not seen.mixed()
    mask_files.object_map(grey(1), "d", BinaryRule(threshold=127), label="tumor", seen=seen)
    assert list(seen.mixed()) == ["tumor"] and "0 and 1 in 1 file, such as d" in seen.mixed()["tumor"]


@pytest.mark.parametrize("kind", KINDS)
def test_an_inverted_mask_is_the_rest(kind):
    for data in KINDS[kind]:
        np.testing.assert_array_equal(mask_files.object_map(data, "a", BinaryRule(inverted=True)), ~MASK)


@pytest.mark.parametrize("stored", ["grey", "palette", "deep", "colour"])
def test_ignored_values_are_void_whatever_the_others_are(stored):
    ignored = np.roll(MASK, 8, 0) & ~MASK
    for high in (1, 2, 200):
        values = np.select([MASK, ignored], [high, 255], 0)
        if stored == "colour":
            image = Image.fromarray(np.repeat(values[..., None], 3, 2).astype(np.uint8))
        else:
            image = Image.fromarray(values.astype(np.uint16 if stored == "deep" else np.uint8))
        if stored == "palette":
            image.putpalette([channel for value in range(256) for channel in (value, value, value // 2)])
        data = encoded(image)
        expected = np.select([ignored, MASK], [VOID, 1], 0)
        np.testing.assert_array_equal(mask_files.object_map(data, "a", BinaryRule(ignored=(255,))), expected)
        inverted = np.select([ignored, MASK], [VOID, 0], 1)
        rule = BinaryRule(inverted=True, ignored=(255,))
        np.testing.assert_array_equal(mask_files.object_map(data, "a", rule), inverted)
        with mistakes.raises("mask-not-binary: 3 (values|colours).*--ignore-value"):
            mask_files.object_map(data, "a", BinaryRule())


def test_values_of_a_lossy_file_cannot_be_ignored():
    data = encoded(Image.fromarray(MASK * np.uint8(255)), "JPEG")
    with mistakes.raises("options-conflict: a.jpg.*--ignore-value"):
        mask_files.object_map(data, "a.jpg", BinaryRule(ignored=(255,)))


def write(folder: Path, values: list[int], ground: int = 0) -> None:
    rng = np.random.default_rng(0)
    for number, value in enumerate(values):
        save(folder / "images" / f"{number}.png", photo(rng))
        save(folder / "masks" / f"{number}.png", np.where(blob(rng), value, ground).astype(np.uint8))


def test_the_command_says_that_values_differ_and_ignores_them_if_asked(run: Run, tmp_path, capsys, monkeypatch):
    write(tmp_path / "source", [1, 1, 255, 1])
    run("--prompt", "tumor")
    line = next(line for line in capsys.readouterr().out.splitlines() if "differ in their values" in line)
    assert "0 and 1 in 3 files, such as masks/0.png; 0 and 255 in 1 file, such as masks/2.png" in line
    check = ["check", "mine", "--root", tmp_path / "data", "--findings", tmp_path / "findings.csv"]
    small.run(monkeypatch, prepare.main, *check)
    (found,) = [one for one in (tmp_path / "findings.csv").read_text().splitlines() if "mixed values" in one]
    assert found == (
        'warning,mixed values,tumor,"0 and 1 in 3 files, such as masks/0.png; 0 and 255 in 1 file, such as masks/2.png"'
    )
    examples = run("--prompt", "tumor", "--ignore-value", 255)
    small.run(monkeypatch, prepare.main, *check)
    assert "differ in their values" not in capsys.readouterr().out
    assert "mixed values" not in (tmp_path / "findings.csv").read_text()
    maps = {example.id: example.maps()[0] for example in examples.values()}
    assert {key: sorted(np.unique(values)) for key, values in maps.items()} == {
        "0": [0, 1],
        "1": [0, 1],
        "2": [0, VOID],
        "3": [0, 1],
    }


def test_the_command_shows_coverage_and_inverts_masks_on_white(run: Run, tmp_path, capsys):
    write(tmp_path / "source", [0, 0, 0, 0], ground=255)
    examples = run("--prompt", "tumor")
    out = capsys.readouterr().out
    assert "91.7%" in out and "class 'tumor': 4 of 4 masks mark most of the image" in out and "--invert" in out
    for example in run("--prompt", "tumor", "--invert").values():
        before = next(other for other in examples.values() if other.id == example.id)
        np.testing.assert_array_equal(masks_by_class(example)["tumor"], ~masks_by_class(before)["tumor"])
    out = capsys.readouterr().out
    assert "8.3%" in out and "warning" not in out


def test_an_option_that_has_no_effect_is_refused(monkeypatch, tmp_path, capsys):
    write(tmp_path / "source", [1, 2])
    (tmp_path / "classes.csv").write_text("class,value,colour\na,1,#ff0000\nb,2,#00ff00\n")
    command = ["folder", "--name", "x", "--source", tmp_path / "source", "--output", tmp_path / "data"]
    coded = [*command, "--classes", tmp_path / "classes.csv", "--encoding"]
    for says, arguments in (
        ("options-conflict: --invert", [*coded, "palette", "--invert"]),
        ("options-conflict: --ignore-value", [*coded, "colour", "--ignore-value", 3]),
        ("options-conflict: --ignore-value 2", [*coded, "palette", "--ignore-value", 2]),
        ("out-of-range: --ignore-value.*-1", [*command, "--prompt", "x", "--ignore-value", -1]),
    ):
        assert_fails(monkeypatch, capsys, says, *arguments)


def test_healthy_images_of_label_maps_are_counted_and_kept_if_asked(run: Run, tmp_path, capsys):
    write(tmp_path / "source", [1, 2, 0, 0, 1])
    (tmp_path / "classes.csv").write_text("class,value,prompt\nlesion,1,lesion\ntool,2,a tool\n")
    options = ["--encoding", "palette", "--classes", tmp_path / "classes.csv", "--fractions", 0.4, 0.4, 0.2]
    labels = {example.id: [record.label for record in example.records] for example in run(*options).values()}
    assert labels == {"0": ["lesion"], "1": ["tool"], "2": [], "3": [], "4": ["lesion"]}
    assert "2 of 5 images" in (out := capsys.readouterr().out) and "--negatives keep" in out
    examples = {example.id: example for example in run(*options, "--negatives", "keep").values()}
    assert {key: list(masks_by_class(example)) for key, example in examples.items()} == labels | {
        "2": ["lesion", "tool"],
        "3": ["lesion", "tool"],
    }
    assert not any(mask.any() for mask in masks_by_class(examples["2"]).values())
    assert "--negatives" not in capsys.readouterr().out
