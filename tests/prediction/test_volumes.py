"""Tests of predicted volumes: masks and probabilities in the format and with the geometry of their input."""

import csv
from pathlib import Path

import dicoms
import mistakes
import numpy as np
import pytest
from predicted import predictor, run

from tunevlseg_jax.data.medical import inputs
from tunevlseg_jax.runtime.optional import import_simpleitk

__all__ = ["predictor", "run"]

OBLIQUE = (0.8, 0.0, 0.6, 0.6, 0.0, -0.8, 0.0, 1.0, 0.0)
"""A direction with cosines of two axes in two columns, and axes in another order."""
PERMUTED = (0.0, -1.0, 0.0, 0.0, 0.0, -1.0, 1.0, 0.0, 0.0)


def write_volume(path: str, direction: tuple[float, ...], *, dtype: type = np.uint8) -> np.ndarray:
    """Writes a volume, and returns its (z, y, x) values."""
    sitk = import_simpleitk("a test")
    values = np.random.default_rng(0).integers(0, 256, (3, 5, 7)).astype(dtype)
    image = sitk.GetImageFromArray(values)
    image.SetSpacing((0.7, 1.3, 2.9))
    image.SetOrigin((-11.5, 23.25, 7.125))
    image.SetDirection(direction)
    sitk.WriteImage(image, path, useCompression=True)
    return values


def check(path: str, source: str) -> np.ndarray:
    """The values of a written volume, whose geometry must be that of its source, read by SimpleITK itself."""
    sitk = import_simpleitk("a test")
    ours, theirs = sitk.ReadImage(path), sitk.ReadImage(source)
    for what in ("Size", "Spacing", "Origin", "Direction"):
        np.testing.assert_allclose(getattr(ours, f"Get{what}")(), getattr(theirs, f"Get{what}")(), atol=1e-6, rtol=0)
    return sitk.GetArrayFromImage(ours)


def table() -> list[dict[str, str]]:
    with Path("out/volumes.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("direction", [OBLIQUE, PERMUTED])
@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha"])
def test_masks_and_probabilities_have_the_geometry_of_their_volume(run, suffix, direction):
    """The fake model marks bright pixels, with the logit -4 at 0 and 4 at 255."""
    values = write_volume(f"scan{suffix}", direction)
    out = run("--image", f"scan{suffix}", "--prompt", "red", "--output", "out", "--probabilities")
    assert f"scan_mask{suffix}, scan_probability{suffix}" in out
    mask, chance = (check(f"out/scan_{what}{suffix}", f"scan{suffix}") for what in ("mask", "probability"))
    assert mask.dtype == np.uint8 and chance.dtype == np.float32
    expected = 1 / (1 + np.exp(4 - 8 / 255 * values.astype(float)))
    np.testing.assert_allclose(chance, expected, atol=1e-5)
    np.testing.assert_array_equal(mask, values > 127)
    (row,) = table()
    assert (row["voxels"], row["probability"]) == (str((values > 127).sum()), f"scan_probability{suffix}")


@pytest.mark.parametrize(("suffix", "written"), [(".nhdr", ".nrrd"), (".mhd", ".mha")])
def test_headers_with_a_file_of_pixels_give_one_file(run, suffix, written):
    values = write_volume(f"scan{suffix}", PERMUTED)
    run("--image", f"scan{suffix}", "--prompt", "red", "--output", "out")
    np.testing.assert_array_equal(check(f"out/scan_mask{written}", f"scan{suffix}"), values > 127)
    assert {path.name for path in Path("out").iterdir()} == {f"scan_mask{written}", "volumes.csv"}


def test_earlier_probabilities_are_no_inputs_and_stay_up_to_date(run):
    """A folder is predicted into itself, several times."""
    Path("out").mkdir()
    write_volume("out/scan.nrrd", OBLIQUE)
    run("--image", "out", "--prompt", "red", "--output", "out", "--probabilities", "npy")
    Path("out/scan_probability.nrrd").write_bytes(b"x")
    out = run("--image", "out", "--prompt", "red", "--output", "out")
    assert "scan_mask.nrrd, scan_probability.nrrd" in out
    assert check("out/scan_probability.nrrd", "out/scan.nrrd").max() < 1
    assert {path.name for path in Path("out").iterdir()} == {
        *("scan.nrrd", "scan_mask.nrrd", "scan_probability.nrrd", "volumes.csv")
    }
    Path("volumes").mkdir()
    write_volume("volumes/other.nrrd", OBLIQUE)
    Path("out/other_probability.nrrd").write_bytes(b"mine")
    run("--image", "volumes", "--prompt", "red", "--output", "out", fails="other-folder: other_probability.nrrd")


def test_a_series_has_probabilities_as_nifti(run):
    dicoms.write_series(Path("series"), np.arange(3 * 4 * 5, dtype=np.uint16).reshape(3, 4, 5) * 60)
    (one,) = inputs.find(["series"], recursive=False).scans
    run("--image", "series", "--prompt", "red", "green", "--output", "out", "--probabilities")
    image = one.load().image
    for name in (f"{one.name}_red", f"{one.name}_green"):
        sitk = import_simpleitk("a test")
        chance = sitk.ReadImage(f"out/{name}_probability.nii.gz")
        for what in ("Size", "Spacing", "Origin", "Direction"):
            np.testing.assert_allclose(getattr(chance, f"Get{what}")(), getattr(image, f"Get{what}")(), atol=1e-6)
        values = sitk.GetArrayFromImage(chance)
        np.testing.assert_array_equal(check(f"out/{name}_mask.nii.gz", f"out/{name}_probability.nii.gz"), values > 0.5)
        assert (np.diff(values.ravel()) >= 0).all() and values.min() < 0.1 < 0.9 < values.max()


def test_one_volume_is_read(tmp_path):
    sitk = import_simpleitk("a test")
    values = write_volume(str(tmp_path / "a.mha"), OBLIQUE)
    dicoms.write_series(tmp_path / "series" / "deep", np.zeros((3, 4, 5), np.uint16))
    files = sorted((tmp_path / "series" / "deep").iterdir())
    for volume in (tmp_path / "a.mha", str(tmp_path / "a.mha"), sitk.ReadImage(str(tmp_path / "a.mha"))):
        np.testing.assert_array_equal(sitk.GetArrayFromImage(inputs.read_one(volume).image), values)
    for volume in (tmp_path / "series", files):
        assert inputs.read_one(volume).image.GetSize() == (5, 4, 3)
    for volume, says in (
        (tmp_path, "one-volume: 2 volumes and series .*a.mha, series_"),
        (tmp_path / "b.mha", "no-such-file: b.mha"),
        ([], "no-images: 0 files"),
        (values, "wrong-type: the volume .* got a ndarray"),
        (sitk.Image((2, 2, 2, 2), sitk.sitkUInt8), "wrong-shape: the volume .*2x2x2x2"),
    ):
        with mistakes.raises(says):
            inputs.read_one(volume)


def test_a_dicom_seg_needs_a_series(run):
    write_volume("scan.nrrd", OBLIQUE)
    options = "--image", "scan.nrrd", "--prompt", "red", "--output", "out", "--dicom-seg"
    run(*options, fails="options-conflict: --dicom-seg needs a DICOM series")
    assert not Path("out").exists()
