"""Tests of images of more than 8 bits: their windows, and that prepare, predict and arrays scale them alike."""

import cv2
import mistakes
import numpy as np
import pytest
import user_folders
from fake_downloads import blob, save
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

import tunevlseg_jax as tv
from tunevlseg_jax.data import images, prepared, preprocessing, windows
from tunevlseg_jax.data.builders.arrays import to_rgb
from tunevlseg_jax.data.windows import Range

run = user_folders.run
TYPES = {"png": ["uint16"], "tif": ["uint16", "int16", "uint32", "int32", "float32", "float64"]}


def write(path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(path.suffix, values)[1].tobytes())


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (Range(0, 200, True), (0, 255)),
        (Range(7, 1000, True), (0, 1023)),
        (Range(0, 4095, True), (0, 4095)),
        (Range(0, 4096, True), (0, 16383)),
        (Range(0, 12600, True), (0, 16383)),
        (Range(0, 65535, True), (0, 65535)),
        (Range(-1024, 3071, True), (-1024, 3071)),
        (Range(0.0, 1.0, False), (0, 1)),
        (Range(0.5, 300.25, False), (0.5, 300.25)),
        (Range(3.5, 3.5, False), (3.5, 4.5)),
    ],
)
def test_default_windows(values, expected):
    assert windows.default(values) == expected


@given(
    arrays_of.arrays(np.int32, (3, 4), elements=st.integers(-5000, 70000)),
    st.floats(-2000, 2000),
    st.floats(1, 5000),
)
def test_scaling_is_linear_between_the_ends_and_flat_beyond(values, low, width):
    scaled = windows.scaled(values, (low, low + width))
    expected = np.clip((values - low) / width, 0, 1) * 255
    assert scaled.dtype == np.uint8 and np.abs(scaled - expected).max() <= 0.501
    assert (scaled[values <= low] == 0).all() and (scaled[values >= low + width] == 255).all()


def test_percentiles_and_values_that_are_no_numbers():
    values = np.arange(1001, dtype=np.float64).reshape(7, 143)
    scaled = windows.scaled(values, "percentile")
    np.testing.assert_allclose(scaled, np.clip((values - 5) / 990, 0, 1) * 255, atol=0.501)
    values[0, 0], values[0, 1], values[0, 2] = np.nan, np.inf, -np.inf
    assert windows.scaled(values, (0, 1000))[0, :3].tolist() == [0, 255, 0]
    assert windows.value_range(values) == Range(3, 1000, False)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("5", "wrong-window: LOW HIGH or percentile, got 5"),
        ("1 2 3", "wrong-window: got 1 2 3"),
        ("percentil", "wrong-window: did you mean 'percentile'"),
        ("9 9", "wrong-window: LOW below its HIGH.*got 9 9"),
        ("0 inf", "wrong-window: finite, got 0 inf"),
        ("dicom", "wrong-window: LOW HIGH or percentile, got dicom"),
    ],
)
def test_mistakes_in_windows(given, says):
    with mistakes.raises(says):
        windows.parse(given.split())


@pytest.mark.parametrize("colours", [(), (3,)], ids=["grey", "colour"])
@pytest.mark.parametrize(("suffix", "dtype"), [(suffix, dtype) for suffix, types in TYPES.items() for dtype in types])
def test_deep_files_keep_their_values(tmp_path, suffix, dtype, colours):
    """Also negative ones and fractions: nothing wraps."""
    values = (np.random.default_rng(0).random((5, 7, *colours)) * 3000).astype(dtype)
    values = values - values.dtype.type(1000) if np.dtype(dtype).kind in "if" else values
    write(path := tmp_path / f"a.{suffix}", values)
    assert images.is_deep(path.read_bytes())
    stored = images.read_values(path)
    expected = values[..., ::-1] if colours else np.repeat(values[..., None], 3, axis=2)
    assert stored.dtype == values.dtype
    np.testing.assert_array_equal(stored, expected)
    low, high = windows.default(windows.value_range(expected))
    scaled = np.clip((expected.astype(np.float64) - low) / (high - low), 0, 1) * 255
    np.testing.assert_allclose(images.read_rgb(path), scaled, atol=0.51)


def test_eight_bits_are_not_deep(tmp_path):
    for suffix in ("png", "tif", "bmp", "jpg", "webp"):
        write(path := tmp_path / f"a.{suffix}", np.zeros((4, 5), np.uint8))
        assert not images.is_deep(path.read_bytes())
        assert images.read_rgb(path, (0, 10)).dtype == np.uint8


def deep_source(tmp_path) -> dict[str, np.ndarray]:
    """Four 16-bit images, of which only the last one has values above 4095, an 8-bit one, and their masks."""
    rng = np.random.default_rng(0)
    values = {name: rng.integers(0, 4000, (12, 16)).astype(np.uint16) for name in "abcd"}
    values["d"][0, 0] = 9000
    values["e"] = rng.integers(0, 256, (12, 16)).astype(np.uint8)
    for name, array in values.items():
        write(tmp_path / "source" / "images" / f"{name}.png", array)
        save(tmp_path / "source" / "masks" / f"{name}.png", blob(rng, (12, 16)) * np.uint8(255))
    return values


@pytest.mark.parametrize(
    ("option", "window"),
    [((), (0, 16383)), (("--window", "100", "3000"), (100, 3000)), (("--window", "percentile"), "percentile")],
    ids=["default", "numbers", "percentile"],
)
def test_a_sets_deep_images_are_scaled_alike_and_the_set_keeps_the_window(run, tmp_path, capsys, option, window):
    values = deep_source(tmp_path)
    examples = {key[-1]: example for key, example in run("--prompt", "x", *option).items()}
    assert " ".join(windows.described(window).split()) in " ".join(capsys.readouterr().out.split())
    assert preprocessing.read(prepared.find(tmp_path / "data", "mine")).window == window
    for name, array in values.items():
        expected = array if array.dtype == np.uint8 else windows.scaled(array, window)
        pixels = examples[name].rgb()
        np.testing.assert_array_equal(pixels, np.repeat(expected[..., None], 3, axis=2))
        np.testing.assert_array_equal(images.read_rgb(tmp_path / "source/images" / f"{name}.png", window), pixels)
        np.testing.assert_array_equal(to_rgb(array, name, window), pixels)


def test_images_of_other_depths_than_most_are_said(run, tmp_path, capsys):
    """12 bits beside 16, and fractions beside whole numbers, would be nearly black under one window for both."""
    rng = np.random.default_rng(0)
    values = rng.integers(0, 4000, (5, 24, 32))
    for number, (scale, dtype, suffix) in enumerate(
        [(16, np.uint16, "png"), (16, np.uint16, "png"), (1, np.uint16, "png"), (2.5e-4, np.float32, "tif")]
    ):
        write(tmp_path / "source" / "images" / f"{number}.{suffix}", (values[number] * scale).astype(dtype))
        save(tmp_path / "source" / "masks" / f"{number}.png", blob(rng) * np.uint8(255))
    run("--prompt", "x")
    out = capsys.readouterr().out
    assert "warning: 2 of 4 images of more than 8 bits use less than a tenth of the window" in out
    run("--prompt", "x", "--window", "percentile")
    assert "less than a tenth" not in capsys.readouterr().out
    ranges = [("a", Range(0, 10, True)), ("b", Range(0, 9, True)), ("c", Range(200, 300, True))]
    assert windows.flattened(ranges, (0, 100)).startswith("2 of 3") and "'b' with" in windows.flattened(
        ranges, (0, 100)
    )
    assert windows.flattened(ranges[:1], (0, 100)) == windows.flattened(ranges, "percentile") == ""


def test_records_from_arrays_keep_the_window(tmp_path):
    values = [np.full((6, 6), highest, np.uint16) for highest in (300, 4000)]
    dataset = tv.records(values, [np.eye(6) > 0] * 2, "x", split="train")
    assert dataset.window == (0, 4095)
    assert [int(example.rgb().max()) for example in dataset.splits["train"]] == [19, 249]
    from tunevlseg_jax.data.builders import arrays

    arrays.write(dataset, tmp_path)
    assert preprocessing.read(prepared.find(tmp_path, arrays.NAME)).window == (0, 4095)
    with mistakes.raises(r"wrong-window: \(low, high\)"):
        tv.records(values, [np.eye(6) > 0] * 2, "x", split="train", window=(1,))  # type: ignore[arg-type]


def test_a_card_without_a_window_has_none():
    assert preprocessing.of_card({}, "card.json") == preprocessing.AS_THEY_ARE
