"""Tests of NIfTI files that are cut off: they are refused, as ITK reads the missing values as 0."""

import gzip
from pathlib import Path

import mistakes
import numpy as np
import phantoms
import pytest

from tunevlseg_jax.data.medical import slices, volume_files


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("missing", [1, 500, 0.5])
def test_a_file_that_is_cut_off(tmp_path, suffix, missing):
    """By a byte, near its end, and in the middle."""
    values, _ = phantoms.phantom()
    path = tmp_path / f"a{suffix}"
    phantoms.write_nifti(path, values, "LSA")
    assert volume_files.read(path, "a").image.GetSize() == (16, 12, 20)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * missing) if missing == 0.5 else -int(missing)])
    with mistakes.raises("undecodable: a: the file ends before its last value"):
        volume_files.read(path, "a")


def test_several_gzip_members_are_one_file(tmp_path):
    """As bgzip writes them, so that the last member's length isn't the file's."""
    values, _ = phantoms.phantom()
    path: Path = tmp_path / "a.nii"
    phantoms.write_nifti(path, values)
    data = path.read_bytes()
    joined = tmp_path / "a.nii.gz"
    joined.write_bytes(gzip.compress(data[:3000]) + gzip.compress(data[3000:]))
    ours, theirs = (volume_files.read(one, "a").image for one in (joined, path))
    np.testing.assert_array_equal(slices.values(ours), slices.values(theirs))
