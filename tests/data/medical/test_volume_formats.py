"""Tests of sources of volumes: slices, labels and spacing are those of SimpleITK; what isn't read is named."""

from pathlib import Path

import numpy as np
import phantoms
import pytest
import small

from tunevlseg_jax import prepare
from tunevlseg_jax.data import prepared
from tunevlseg_jax.runtime.optional import import_simpleitk

OBLIQUE = (0.8, 0.0, 0.6, 0.6, 0.0, -0.8, 0.0, 1.0, 0.0)


@pytest.mark.parametrize(("images", "masks"), [(".nrrd", ".mha"), (".mha", ".nrrd"), (".mhd", ".nhdr")])
def test_slices_of_oblique_volumes(monkeypatch, tmp_path, images, masks):
    """The labels have another order of axes than the volume."""
    monkeypatch.chdir(tmp_path)
    sitk = import_simpleitk("a test")
    rng = np.random.default_rng(0)
    array = rng.integers(0, 256, (6, 8, 10)).astype(np.uint8)
    labels = (rng.random((6, 8, 10)) < 0.3).astype(np.uint8)
    both = []
    for folder, values, suffix, code in (("images", array, images, None), ("labels", labels, masks, "RAI")):
        image = sitk.GetImageFromArray(values)
        image.SetSpacing((0.7, 1.3, 2.9))
        image.SetOrigin((-11.5, 23.25, 7.125))
        image.SetDirection(OBLIQUE)
        Path("source", folder).mkdir(parents=True)
        sitk.WriteImage(image if code is None else sitk.DICOMOrient(image, code), f"source/{folder}/a{suffix}")
        both.append(sitk.DICOMOrient(image, "LPS"))
    options = "--source", "source", "--prompt", "x", "--slices", "all", "--fractions", 1, 0, 0
    small.run(monkeypatch, prepare.main, "volumes", "--name", "mine", *options)
    examples = list(prepared.load(Path("data"), "mine", "train"))
    theirs, marked = (sitk.GetArrayFromImage(image) for image in both)
    column, row, between = both[0].GetSpacing()
    assert len(examples) == len(theirs)
    for number, one in enumerate(examples):
        np.testing.assert_array_equal(one.rgb()[..., 1], theirs[number])
        np.testing.assert_array_equal(one.maps()[0], marked[number])
        assert one.spacing == pytest.approx((row, column), abs=1e-6)
        assert one.slice is not None and one.slice.number == number
        assert one.slice.spacing == pytest.approx(between, abs=1e-6)


def test_other_channels_and_unlabelled_volumes_are_told(monkeypatch, tmp_path, capsys):
    """Of nnU-Net's channels the first is read."""
    monkeypatch.chdir(tmp_path)
    values, labels = phantoms.phantom()
    for channel in range(3):
        phantoms.write_nifti(Path(f"source/imagesTr/a_000{channel}.nii.gz"), values)
    phantoms.write_nifti(Path("source/labelsTr/a.nii.gz"), (labels > 0).astype(np.uint8))
    phantoms.write_nifti(Path("source/imagesTs/b_0000.nii.gz"), values)
    options = "--source", "source", "--prompt", "x", "--fractions", 1, 0, 0
    small.run(monkeypatch, prepare.main, "volumes", "--name", "mine", *options)
    lines = capsys.readouterr().out.splitlines()
    assert "left out: 2 volumes that fit neither pattern, such as imagesTr/a_0001.nii.gz" in lines
    assert "left out: 1 volumes without labels, such as imagesTs/b_0000.nii.gz" in lines
