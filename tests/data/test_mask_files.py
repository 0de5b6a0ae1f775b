"""Tests of mask files: which pixels are the object, in every encoding."""

import io

import cv2
import mistakes
import numpy as np
import pytest
from fake_downloads import blob
from PIL import Image

from tunevlseg_jax.data import mask_files
from tunevlseg_jax.data.images import decode_rgb
from tunevlseg_jax.data.mask_values import BinaryRule


def object_map(data: bytes, name: str) -> np.ndarray:
    return mask_files.object_map(data, name, BinaryRule())


@pytest.mark.parametrize("value", [1, 2, 15, 100, 128, 255, 4095, 65535])
def test_of_two_values_the_larger_is_the_object(value):
    """A label of a drawing program, a palette's index, a percentage, 12 bits in 16."""
    mask = blob(np.random.default_rng(0))
    for low in (0, value - 1):
        file = io.BytesIO()
        Image.fromarray(np.where(mask, value, low).astype(np.uint8 if value < 256 else np.uint16)).save(file, "PNG")
        for decode in (mask_files.binary, object_map):
            np.testing.assert_array_equal(decode(file.getvalue(), "mask"), mask)


def test_gif_masks_hold_one_image():
    mask = blob(np.random.default_rng(0))
    image = Image.fromarray(mask * np.uint8(255))
    for number, others in enumerate([[], [Image.fromarray(~mask * np.uint8(255))]]):
        file = io.BytesIO()
        image.save(file, "GIF", save_all=True, append_images=others)
        if number:
            with mistakes.raises("several-pages: mask .*GIF"):
                mask_files.binary(file.getvalue(), "mask")
        else:
            np.testing.assert_array_equal(object_map(file.getvalue(), "mask"), mask)


@pytest.mark.parametrize(("low", "high"), [(0, 1), (7, 7), (0, 255)])
def test_compression_noise_in_black_is_no_object(low, high):
    """A JPEG of one shade, which quantisation may move, and of black beside an object."""
    shades = np.repeat(np.asarray([low, high], np.uint8), 64 * 16).reshape(32, 64)
    file = io.BytesIO()
    Image.fromarray(shades).save(file, "JPEG", quality=1 if high == 1 else 95)
    np.testing.assert_array_equal(mask_files.binary(file.getvalue(), "mask"), shades == 255)
    file = io.BytesIO()
    Image.fromarray(np.full((8, 8), 90, np.uint8)).save(file, "JPEG")
    with mistakes.raises("almost-black: 127"):
        mask_files.binary(file.getvalue(), "mask")


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize(("value", "suffix"), [(1, "png"), (200, "tif"), (255, "png"), (40_000, "tif"), (65535, "png")])
def test_colours_of_16_bits_keep_all_bits(value, suffix, channels):
    """Pillow keeps the upper 8, in which 1 to 255 are 0."""
    mask = blob(np.random.default_rng(0))
    stored = np.repeat(mask[..., None] * np.uint16(value), channels, -1)
    stored[..., 3:] = 65535
    data = cv2.imencode(f".{suffix}", stored)[1].tobytes()
    for decode in (mask_files.binary, object_map):
        np.testing.assert_array_equal(decode(data, "mask"), mask)
    np.testing.assert_array_equal(mask_files.values(data, "mask")[0], mask * np.uint16(value))


@pytest.mark.parametrize(("colour", "read"), [(256, 1), (257, 1), (1, 1), (300, None)])
def test_colours_of_16_bits_that_8_bits_hold_are_read(colour, read):
    colours = np.asarray([[[0, 0, 0], [0, 0, colour]]], np.uint16)  # blue, green, red
    data = cv2.imencode(".png", colours)[1].tobytes()
    if read is None:
        with mistakes.raises("mask-unclear: mask m .*16 bits.*8 bits"):
            mask_files.values(data, "m")
    else:
        np.testing.assert_array_equal(mask_files.values(data, "m")[0][0, 1], (read, 0, 0))


def test_transparency_of_16_bits_is_refused():
    data = cv2.imencode(".png", np.asarray([[[0, 0, 0, 0], [9, 9, 9, 65535]]], np.uint16))[1].tobytes()
    with mistakes.raises("mask-unclear: mask m .*transparency"):
        mask_files.values(data, "m")


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
    for decode in (mask_files.binary, object_map):
        np.testing.assert_array_equal(decode(file.getvalue(), "mask"), indices == marked)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
def test_masks_are_turned_upright_like_images(orientation, suffix):
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
