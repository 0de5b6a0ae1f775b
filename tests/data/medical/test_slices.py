"""Tests of slices: all 48 orientations of a volume give the same ones, and masks go back to where they belong."""

import mistakes
import nibabel
import numpy as np
import phantoms
import pytest

from tunevlseg_jax.data.medical import slices, volume_files
from tunevlseg_jax.runtime.optional import import_simpleitk


def expected(array: np.ndarray, axis: str) -> np.ndarray:
    """The slices of a phantom, whose axes run to the right, front and head, by the definition of each axis."""
    left, back, head = array[::-1], array[:, ::-1], array  # each turned along its own axis alone
    both = array[::-1, ::-1]
    assert left.shape == back.shape == head.shape == both.shape
    return {
        "axial": both.transpose(2, 1, 0),  # front on top, his left on the right
        "coronal": both[:, :, ::-1].transpose(1, 2, 0),  # head on top, his left on the right
        "sagittal": both[:, :, ::-1].transpose(0, 2, 1),  # head on top, his back on the right
    }[axis]


SPACINGS = {"axial": (2.5, 1.25, 0.75), "coronal": (1.25, 2.5, 0.75), "sagittal": (0.75, 2.5, 1.25)}
"""Between slices, rows and columns."""


@pytest.mark.parametrize("axis", ["axial", "coronal", "sagittal"])
def test_all_orientations_give_the_same_slices_and_masks_go_back(tmp_path, axis):
    sitk = import_simpleitk("a test")
    values, labels = phantoms.phantom()
    assert len(set(phantoms.ORIENTATIONS)) == 48
    for orientation in phantoms.ORIENTATIONS:
        phantoms.write_nifti(tmp_path / "image.nii.gz", values, orientation)
        phantoms.write_nifti(tmp_path / "labels.nii", labels, orientation)
        image = volume_files.read(tmp_path / "image.nii.gz", "image").image
        planes = slices.planes(image, axis)
        np.testing.assert_array_equal(planes, expected(values, axis), orientation)
        assert slices.spacing(image, axis) == pytest.approx(SPACINGS[axis], rel=1e-6)
        assert slices.count(image, axis) == len(planes)
        mask = (planes > 1000).astype(np.uint8)  # the second box
        volume_files.write(tmp_path / "mask.nii.gz", slices.volume(mask, image, axis))
        again, before = (sitk.ReadImage(str(tmp_path / name)) for name in ("mask.nii.gz", "image.nii.gz"))
        for what in ("Size", "Spacing", "Origin", "Direction"):
            ours, theirs = (getattr(one, f"Get{what}")() for one in (again, before))
            np.testing.assert_allclose(ours, theirs, atol=1e-6, rtol=0, err_msg=f"{orientation} {what}")
        stored = np.asarray(nibabel.load(tmp_path / "labels.nii").dataobj)
        written = np.asarray(nibabel.load(tmp_path / "mask.nii.gz").dataobj)
        np.testing.assert_array_equal(written == 1, stored == 2, orientation)


def test_labels_in_another_orientation_lie_on_their_volume(tmp_path):
    values, labels = phantoms.phantom()
    phantoms.write_nifti(tmp_path / "image.nii.gz", values, "LPS")
    image = volume_files.read(tmp_path / "image.nii.gz", "image").image
    for orientation in phantoms.ORIENTATIONS[::5]:
        phantoms.write_nifti(tmp_path / "labels.nii.gz", labels, orientation)
        marked = volume_files.read(tmp_path / "labels.nii.gz", "labels").image
        turned = volume_files.check_geometry(marked, image, "labels", "image")
        np.testing.assert_array_equal(slices.planes(turned, "axial"), expected(labels, "axial"), orientation)


def test_labels_that_lie_elsewhere_are_refused(tmp_path):
    values, labels = phantoms.phantom()
    phantoms.write_nifti(tmp_path / "image.nii.gz", values)
    image = volume_files.read(tmp_path / "image.nii.gz", "image").image
    for name, change, says in (
        ("spacing", lambda affine: affine @ np.diag([1.1, 1, 1, 1]), "mask-geometry: labels has the spacing 0.825"),
        ("origin", lambda affine: affine + np.eye(4, k=3) * 3, "mask-geometry: origin"),
    ):
        changed = nibabel.Nifti1Image(labels, change(nibabel.load(tmp_path / "image.nii.gz").affine))
        nibabel.save(changed, tmp_path / f"{name}.nii.gz")
        marked = volume_files.read(tmp_path / f"{name}.nii.gz", name).image
        with mistakes.raises(says):
            volume_files.check_geometry(marked, image, "labels", "image")
    with mistakes.raises("mask-size: labels is 16x20x5"):
        phantoms.write_nifti(tmp_path / "short.nii.gz", labels[:, :, :5])
        short = volume_files.read(tmp_path / "short.nii.gz", "short").image
        volume_files.check_geometry(short, image, "labels", "image")


@pytest.mark.parametrize(
    ("shape", "says"), [((4, 5, 6, 2), "wrong-shape: a.nii.*4x5x6x2"), (None, "undecodable: a.nii")]
)
def test_files_that_are_no_volume(tmp_path, shape, says):
    path = tmp_path / "a.nii"
    if shape is None:
        path.write_bytes(b"no volume")
    else:
        nibabel.save(nibabel.Nifti1Image(np.zeros(shape, np.int16), np.eye(4)), path)
    with mistakes.raises(says):
        volume_files.read(path, "a.nii")
