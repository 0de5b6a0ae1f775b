"""Tests of TIFF files that declare their pixels in unusual ways: what is read is what the file shows."""

import struct

import mistakes
import numpy as np
import pytest
from PIL import Image

from tunevlseg_jax.data import mask_files
from tunevlseg_jax.data.images import decode_rgb
from tunevlseg_jax.data.mask_values import BinaryRule

WHITE_IS_ZERO, BLACK_IS_ZERO = 0, 1


def tiff(array: np.ndarray, photometric: int, order: str = "<", extra: int = 0, planar: bool = False) -> bytes:
    """An uncompressed TIFF of (height, width[, samples]) unsigned integers, from the description of TIFF 6.0."""
    pixels = np.atleast_3d(array)
    height, width, samples = pixels.shape
    bits = 8 * pixels.dtype.itemsize
    stored = (np.moveaxis(pixels, 2, 0) if planar else pixels).astype(f"{order}u{pixels.itemsize}").tobytes()
    arrays = b""
    start = 8 + 2 + 12 * 11 + 4

    def entry(tag: int, kind: int, *values: int) -> bytes:
        nonlocal arrays
        packed = struct.pack(f"{order}{len(values)}{'HI'[kind == 4]}", *values)
        if len(packed) > 4:
            place, arrays = start + len(arrays), arrays + packed
            packed = struct.pack(order + "I", place)
        return struct.pack(order + "HHI", tag, kind, len(values)) + packed.ljust(4, b"\0")

    strips = samples if planar else 1
    length = len(stored) // strips
    first = start + 2 * samples * (samples > 2) + 8 * strips * (strips > 1) + 2 * extra * (extra > 2)
    entries = [
        entry(256, 4, width),
        entry(257, 4, height),
        entry(258, 3, *[bits] * samples),
        entry(259, 3, 1),
        entry(262, 3, photometric),
        entry(273, 4, *[first + length * number for number in range(strips)]),
        entry(277, 3, samples),
        entry(278, 4, height),
        entry(279, 4, *[length] * strips),
        entry(284, 3, 2 if planar else 1),
        entry(338, 3, *[0] * extra) if extra else entry(297, 3, 0, 1),
    ]
    assert start + len(arrays) == first
    head = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(order + "I", 8)
    return head + struct.pack(order + "H", len(entries)) + b"".join(entries) + bytes(4) + arrays + stored


def noise(shape: tuple[int, ...], dtype: type = np.uint8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max + 1, shape, dtype)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("photometric", [WHITE_IS_ZERO, BLACK_IS_ZERO])
@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("samples", [3, 4])
def test_three_samples_that_are_declared_grey_are_colours(order, photometric, planar, samples):
    colours = noise((5, 7, samples))
    data = tiff(colours, photometric, order, planar=planar)
    np.testing.assert_array_equal(decode_rgb(data, "a.tif"), colours[..., :3])
    np.testing.assert_array_equal(np.asarray(mask_files.whole(data, "a.tif"))[..., :3], colours[..., :3])


def test_sixteen_bits_a_sample_too():
    colours = noise((5, 7, 3), np.uint16)
    shown = decode_rgb(tiff(colours, BLACK_IS_ZERO), "a.tif")
    assert np.abs(shown.astype(int) - colours / 257).max() <= 1


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_where_white_is_zero_a_mask_and_an_image_are_what_they_look_like(order, dtype):
    most = np.iinfo(dtype).max
    grey = noise((5, 7), dtype)
    stored, same = tiff(most - grey, WHITE_IS_ZERO, order), tiff(grey, BLACK_IS_ZERO, order)
    np.testing.assert_array_equal(mask_files.values(stored, "a.tif")[0], grey)
    np.testing.assert_array_equal(decode_rgb(stored, "a.tif"), decode_rgb(same, "a.tif"))
    mask = grey > most // 2
    drawn = tiff(np.where(mask, 0, most).astype(dtype), WHITE_IS_ZERO, order)
    np.testing.assert_array_equal(mask_files.object_map(drawn, "a.tif", BinaryRule()), mask)
    encoded, size = mask_files.image(stored, "a.tif")
    assert encoded[:4] == b"\x89PNG" and size == (5, 7)
    np.testing.assert_array_equal(decode_rgb(encoded, "a.png"), decode_rgb(same, "a.tif"))


def test_grey_with_extra_samples_stays_grey():
    samples = noise((5, 7, 3))
    shown = decode_rgb(tiff(samples, BLACK_IS_ZERO, extra=2), "a.tif")
    np.testing.assert_array_equal(shown, np.repeat(samples[..., :1], 3, 2))


@pytest.mark.parametrize("length", [3, 4, 8, 9, 30, 100])
def test_a_cut_file_is_undecodable(length):
    for array in (noise((5, 7, 3)), noise((5, 7), np.uint16)):
        with mistakes.raises("undecodable: a.tif"):
            decode_rgb(tiff(array, WHITE_IS_ZERO)[:length], "a.tif")


def test_floats_are_labels_if_they_are_whole(tmp_path):
    labels = np.random.default_rng(0).integers(0, 4, (5, 7))
    Image.fromarray(labels.astype(np.float32)).save(tmp_path / "a.tif")
    np.testing.assert_array_equal(mask_files.values((tmp_path / "a.tif").read_bytes(), "a.tif")[0], labels)
    for value, says in ((0.5, "got 0.5"), (np.nan, "got nan"), (70000, "65535, got 0 to 70000"), (-2, "got -2 to 3")):
        wrong = np.where(labels == 1, value, labels).astype(np.float32)
        Image.fromarray(wrong).save(tmp_path / "b.tif")
        with mistakes.raises(f"{'wrong-type' if value in (0.5,) or value != value else 'out-of-range'}: b.tif.*{says}"):
            mask_files.values((tmp_path / "b.tif").read_bytes(), "b.tif")
