"""Tests of what masks mark: coverage, inverted masks, masks of an unturned photo, and objects that vanish."""

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
import small
from fake_downloads import save, smooth
from PIL import Image
from user_folders import Run, run

from tunevlseg_jax import prepare
from tunevlseg_jax.data import mask_files
from tunevlseg_jax.data.audit import coverage, findings, map_stats, orientation
from tunevlseg_jax.data.audit.image_stats import ImageStats, image_stats
from tunevlseg_jax.data.audit.orientation import Vote, vote
from tunevlseg_jax.data.examples import Example, Record
from tunevlseg_jax.data.images import decode_rgb, encode_png
from tunevlseg_jax.data.mask_files import TURNS

run = run
BACK = {6: 8, 8: 6}
"""The orientation that undoes another; the others undo themselves."""


def disc(rng: np.random.Generator, size: tuple[int, int], radius: float) -> np.ndarray:
    """(height, width) bool of a disc inside the image, away from its middle."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    top = rng.uniform(radius + 2, max(radius + 2, size[0] / 2 - 2 * radius))
    left = rng.uniform(radius + 2, size[1] - radius - 2)
    return np.hypot(rows - top, columns - left) < radius


def stats_of(masks: list[np.ndarray]) -> list[ImageStats]:
    rng = np.random.default_rng(0)
    return [
        image_stats(
            "train",
            number,
            Example(
                f"{number}",
                "",
                encode_png(cv2.resize(smooth(rng, (60, 80)), mask.shape[::-1])),
                (encode_png(mask.astype(np.uint8)),),
                (Record(f"{number}", "wound", 0, 1, {1: ("wound",)}),),
            ),
        )
        for number, mask in enumerate(masks)
    ]


def found(stats: list[ImageStats]) -> list[tuple[str, str]]:
    return [(one.kind, one.where) for one in findings.findings(stats)]


def discs(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [disc(rng, (60, 80), rng.uniform(6, 12)) for _ in range(count)]


def test_inverted_masks_are_one_finding_of_their_class():
    masks = discs(6)
    assert found(stats_of(masks)) == []
    assert found(stats_of([~mask for mask in masks])) == [("marks background", "wound")]
    touching = [mask | (np.arange(80) < 25) for mask in masks]  # objects that are cut off at the side
    assert found(stats_of(touching)) == []
    assert found(stats_of([~mask for mask in touching])) == [("marks background", "wound")]


def test_single_inverted_masks_are_found_where_they_are():
    masks = discs(6)
    masks[2], masks[5] = ~masks[2], ~masks[5]
    assert found(stats_of(masks)) == [("marks background", "train/2"), ("marks background", "train/5")]


def test_large_objects_are_no_background():
    """Lesions that fill the image but for its corners, a wide band, and a whole image."""
    rows, columns = np.mgrid[:60, :80]
    lesion = np.hypot((rows - 30) / 30, (columns - 40) / 40) < 1.2
    band = (columns > 5) & (columns < 75)
    whole = np.ones((60, 80), bool)
    assert found(stats_of([lesion, *discs(3)])) == [] and found(stats_of([band])) == []
    assert found(stats_of([whole, *discs(3)])) == [("full mask", "train/0")]


def test_the_share_of_each_class():
    masks = [np.arange(100).reshape(10, 10) < count for count in (0, 10, 20, 60)]
    shapes = coverage.by_class(record for image in stats_of(masks) for record in image.records)
    table = coverage.table(shapes)
    assert [list(column.cells) for column in table.columns] == [
        ["wound"],
        ["4"],
        ["1"],
        ["10.0%"],
        ["20.0%"],
        ["60.0%"],
    ]


def test_objects_that_no_pixel_of_the_models_size_hits_vanish():
    mask = np.zeros((1000, 1000), bool)
    mask[501, 501] = True  # 352 rows of 1000 leave two of three out
    shown = np.zeros((1000, 1000), bool)
    shown[500:504, 500:504] = True
    stats = stats_of([mask, shown, np.zeros((1000, 1000), bool)])
    assert found(stats) == [("empty mask", "train/2"), ("vanishes", "train/0")]
    assert stats[0].records[0].resized_pixels == 0 < stats[1].records[0].resized_pixels
    lost = [record for image in stats for record in image.records if record.vanishes]
    assert "1 record" in (line := coverage.vanishing(lost)) and "352x352" in line and "'0'" in line
    small_map = stats_of([np.eye(8, dtype=bool)])
    assert small_map[0].records[0].resized_pixels == 352 * 352 // 8 and map_stats.MODEL_SIZE == (352, 352)


def photographed(image: np.ndarray, orientation_tag: int, suffix: str = "JPEG") -> bytes:
    """The image as a camera stores it that was held so; its orientation turns it upright."""
    exif = Image.Exif()
    exif[0x0112] = orientation_tag
    file = io.BytesIO()
    stored = Image.fromarray(image)
    if orientation_tag > 1:
        stored = stored.transpose(TURNS[BACK.get(orientation_tag, orientation_tag)])
    stored.save(file, suffix, quality=90, exif=exif)
    return file.getvalue()


def raw(mask: np.ndarray, orientation_tag: int) -> np.ndarray:
    """The mask as it is drawn on the stored photo."""
    return np.asarray(Image.fromarray(mask).transpose(TURNS[BACK.get(orientation_tag, orientation_tag)]))


def wound(seed: int, size: tuple[int, int], contrast: float) -> tuple[np.ndarray, np.ndarray]:
    """A photo with a disc that is darker by `contrast` of 255, and its mask."""
    rng = np.random.default_rng(seed)
    mask = disc(rng, size, min(size) / 8)
    image = smooth(rng, size).astype(np.float32)
    image[mask] -= contrast
    return np.clip(image, 0, 255).astype(np.uint8), mask


@pytest.mark.parametrize("tag", range(2, 9))
@pytest.mark.parametrize("suffix", ["JPEG", "PNG"])
def test_masks_of_the_stored_photo_are_told_from_masks_of_the_upright_one(tag, suffix):
    upright, stored = [], []
    for seed, size in enumerate([(96, 96), (160, 160), *([(96, 128), (300, 200)] if tag < 5 else [(300, 300)])]):
        image, mask = wound(seed, size, 100)
        data = photographed(image, tag, suffix)
        assert orientation.is_turned(data)
        upright.append(vote(data, image, [mask]))
        stored.append(vote(data, image, [raw(mask, tag)]))
    assert set(upright) <= {Vote.TURNED, Vote.UNCLEAR} and upright.count(Vote.UNCLEAR) <= 1
    assert set(stored) <= {Vote.STORED, Vote.UNCLEAR} and stored.count(Vote.UNCLEAR) <= 1


@pytest.mark.parametrize("tag", range(1, 9))
@pytest.mark.parametrize("suffix", ["TIFF", "WEBP"])
def test_files_that_become_png_keep_their_orientation(tag, suffix):
    """The pixels are upright, and the audit still sees how the photo was stored."""
    image, mask = wound(0, (96, 96), 100)
    data = photographed(image, tag, suffix)
    encoded, size = mask_files.image(data, "a")
    assert encoded.startswith(b"\x89PNG") and size == (96, 96)
    assert np.abs(decode_rgb(encoded, "a").astype(int) - image).mean() < (8 if suffix == "WEBP" else 1e-9)
    assert mask_files.tag_of(data) == mask_files.tag_of(encoded) == tag
    assert orientation.is_turned(encoded) == (tag > 1)
    if tag > 1:
        assert vote(encoded, image, [raw(mask, tag)]) in (Vote.STORED, Vote.UNCLEAR)


def test_deep_photos_keep_their_orientation(run: Run, monkeypatch, tmp_path, capsys):
    for number in range(6):
        image, mask = wound(number, (128, 128), 100)
        exif = Image.Exif()
        exif[0x0112] = 3
        folder, suffix = tmp_path / "source", ("png", "tif")[number % 2]
        (folder / "images").mkdir(parents=True, exist_ok=True)
        stored = np.ascontiguousarray(image[::-1, ::-1, 0].astype(np.uint16) * 16)
        Image.fromarray(stored).save(folder / "images" / f"{number}.{suffix}", exif=exif)
        save(folder / "masks" / f"{number}.png", raw(mask, 3) * np.uint8(255))
    examples = run("--prompt", "wound")
    assert "fit the photo as it is stored" in capsys.readouterr().out
    for key, example in examples.items():
        image, _ = wound(int(key[-1]), (128, 128), 100)
        assert np.abs(example.rgb()[..., 0].astype(int) - image[..., 0]).max() <= 1
    with pytest.raises(SystemExit):
        small.run(monkeypatch, prepare.main, "check", "mine", "--root", tmp_path / "data")
    (row,) = (line for line in capsys.readouterr().out.splitlines() if "mask not turned" in line)
    assert "error" in row


def test_without_an_orientation_or_an_object_nothing_is_said():
    image, mask = wound(0, (96, 96), 70)
    for data in (photographed(image, 1), encode_png(image)):
        assert not orientation.is_turned(data) and vote(data, image, [raw(mask, 3)]) is None
    data = photographed(image, 3)
    for nothing in (np.zeros_like(mask), np.ones_like(mask)):
        assert vote(data, image, [nothing]) is None
    assert vote(data, image, []) is None and vote(data, image, [mask | raw(mask, 3)]) is Vote.UNCLEAR
    oblong, outline = wound(0, (96, 128), 100)
    assert vote(photographed(oblong, 6), oblong, [outline]) is None


@pytest.mark.parametrize("contrast", [0, 30])
def test_objects_without_an_edge_raise_no_alarm(contrast):
    """A few fit the stored photo by chance, but no more than chance explains."""
    wounds = [wound(seed, (96, 128), contrast) for seed in range(50)]
    votes = [vote(photographed(image, 3), image, [mask]) for image, mask in wounds]
    assert votes.count(Vote.STORED) <= 4 and orientation.unturned(votes) == []
    turned, stored, unclear = [Vote.TURNED], [Vote.STORED], [Vote.UNCLEAR]
    assert orientation.unturned(turned * 99 + stored) == [99] and orientation.unturned(stored * 2 + unclear * 6) == [
        0,
        1,
    ]
    assert orientation.unturned([None, *stored]) == [1] and orientation.unturned([None, *turned, *unclear]) == []


def test_prepare_warns_of_unturned_masks_and_check_finds_them(run: Run, monkeypatch, tmp_path, capsys):
    for seed, tag in enumerate((1, 3, 6, 8, 3)):
        image, mask = wound(seed, (96, 96), 90)
        (tmp_path / "source" / "images").mkdir(parents=True, exist_ok=True)
        (tmp_path / "source" / "images" / f"{seed}.jpg").write_bytes(photographed(image, tag))
        drawn = raw(mask, tag) if tag > 1 and seed != 4 else mask
        save(tmp_path / "source" / "masks" / f"{seed}.png", drawn * np.uint8(255))
    run("--prompt", "wound")
    assert "the masks of 3 of 5 images" in capsys.readouterr().out
    assert check(monkeypatch, tmp_path) == 1
    assert "mask not turned" in (out := capsys.readouterr().out) and "6.0%" not in out and "3 │ error" in out


def check(monkeypatch, root: Path) -> object:
    with pytest.raises(SystemExit) as stop:
        small.run(monkeypatch, prepare.main, "check", "mine", "--root", root / "data")
        raise SystemExit(0)
    return stop.value.code


def test_an_ignored_background_is_a_warning(run: Run, tmp_path, capsys):
    """--ignore-value 0 of masks of 0 and 255 leaves nothing that teaches what isn't the object."""
    for number, mask in enumerate(discs(3)):
        save(tmp_path / "source" / "images" / f"{number}.png", smooth(np.random.default_rng(number), (60, 80)))
        save(tmp_path / "source" / "masks" / f"{number}.png", mask * np.uint8(255))
    run("--prompt", "wound", "--fractions", 1, 0, 0)
    assert "beside it are ignored" not in capsys.readouterr().out
    run("--prompt", "wound", "--fractions", 1, 0, 0, "--ignore-value", 0)
    assert "class 'wound': all pixels beside it are ignored, in 3 of 3 masks" in capsys.readouterr().out
