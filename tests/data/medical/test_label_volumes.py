"""Tests of label volumes of DICOM series: which series they belong to, and where their labels lie."""

from collections import Counter
from pathlib import Path

import dicoms
import mistakes
import numpy as np
import pytest
import small

from tunevlseg_jax import prepare
from tunevlseg_jax.data import prepared
from tunevlseg_jax.data.medical import dicom_files, dicom_series, slices
from tunevlseg_jax.runtime.optional import import_simpleitk

OBLIQUE = (0.8, 0.6, 0, 0, 0, -1)


def labels() -> np.ndarray:
    """(slice, height, width) of two boxes that can't be mistaken."""
    values = np.zeros((5, 12, 16), np.uint8)
    values[1:4, 2:7, 3:12], values[2:5, 8:11, 1:5] = 3, 7
    return values


def write_labels(path: Path, folder: Path, values: np.ndarray, orientation: str = "RAS") -> str:
    """Writes the labels of the series in a folder, in another order of axes; returns the series' UID."""
    sitk = import_simpleitk("a test")
    files = [path for path in sorted(folder.iterdir()) if path.suffix == ".dcm"]
    (series,) = dicom_files.image_series(dicom_files.find([file.read_bytes for file in files]))
    image = sitk.GetImageFromArray(values)
    image.CopyInformation(dicom_series.read(series).image)
    path = path.with_name(path.name.replace("UID", series.uid))
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(sitk.DICOMOrient(image, orientation), str(path))
    return series.uid


def prepare_set(monkeypatch, *options: object) -> list[prepared.Example]:
    """Prepares the source, and returns all slices."""
    arguments = "dicom", "--name", "mine", "--source", "source", "--fractions", 1, 0, 0
    small.run(monkeypatch, prepare.main, *arguments, *options)
    folder = prepared.find(Path("data"), "mine")
    return [one for split in prepared.stored_splits(folder) for one in prepared.load(Path("data"), "mine", split)]


@pytest.mark.parametrize(
    "name",
    ["labels/UID.nii.gz", "labels/UID_seg.nrrd", "labels/Doe_John_0-label.nii", "a/Doe_John_0/anything.mha"],
)
def test_labels_belong_to_a_series_by_name_or_folder(monkeypatch, tmp_path, capsys, name):
    """Of two series only one has labels; each is decoded once, and no name of a file is kept or printed."""
    monkeypatch.chdir(tmp_path)
    Path("classes.csv").write_text("class,value,prompt\nlung,3,the lung\nheart,7,\n")
    for number in range(2):
        stored = np.random.default_rng(number).integers(0, 4096, (5, 12, 16)).astype(np.uint16)
        dicoms.write_series(Path("source/a") / f"Doe_John_{number}", stored, direction=OBLIQUE)
    write_labels(Path("source") / name, Path("source/a/Doe_John_0"), labels())
    read, times = dicom_series.read, Counter[str]()
    monkeypatch.setattr(dicom_series, "read", lambda series: times.update([series.name]) or read(series))
    examples = prepare_set(monkeypatch, "--classes", "classes.csv")
    assert list(times.values()) == [1]
    sitk = import_simpleitk("a test")
    (series, _) = sorted(
        dicom_files.image_series(dicom_files.find([path.read_bytes for path in sorted(Path("source").rglob("*.dcm"))])),
        key=lambda one: one.name not in times,
    )
    image = read(series).image
    on_grid = sitk.GetImageFromArray(labels())
    on_grid.CopyInformation(image)
    expected = slices.planes(on_grid, "axial")
    shown = [index for index, plane in enumerate(expected) if plane.any()]
    assert [one.slice.number for one in examples if one.slice is not None] == shown
    for one, plane in zip(examples, expected[shown], strict=True):
        own = {record.label: one.maps()[record.mask] == record.value for record in one.records}
        assert own.keys() == {label for label, value in (("lung", 3), ("heart", 7)) if (plane == value).any()}
        for label, mask in own.items():
            np.testing.assert_array_equal(mask, plane == {"lung": 3, "heart": 7}[label])
    written = [path for path in Path("data").rglob("*") if path.is_file()]
    out, err = capsys.readouterr()
    texts = [str(path).encode() + path.read_bytes() for path in written] + [(out + err).encode()]
    assert not [secret for secret in dicoms.SECRETS for text in texts if secret.encode() in text.lower()]
    assert "1 without masks left out" in out and "neither" not in out


def test_mistakes(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for number in range(2):
        dicoms.write_series(Path("source") / f"Doe_{number}", np.zeros((5, 12, 16), np.uint16))
    label = Path("source/Doe_0.nii")
    write_labels(label, Path("source/Doe_0"), labels())

    def says(line: str, *options: object) -> None:
        with mistakes.raises(line) as error:
            monkeypatch.setattr("sys.argv", ["prepare", "dicom", "--name", "x", "--source", "source", *options])
            prepare.main()
        assert "doe" not in error.value.line.lower()
        assert not Path("data/x").exists()

    says("mask-not-binary: the label volume number 1 .*values 3, 7; give --classes", "--prompt", "box")
    says("mask-not-binary: values 3, 7")
    Path("classes.csv").write_text("class,value\nlung,3\n")
    says("unknown-class: label volume number 1 .*value 7", "--classes", "classes.csv")
    Path("classes.csv").write_text("class\nlung\nheart\n")
    write_labels(label, Path("source/Doe_0"), (labels() > 0).astype(np.uint8))
    says("missing-option: needs --prompt, or --classes with a column value", "--classes", "classes.csv")
    says("missing-option: needs --prompt")
    label.rename("source/other.nii")
    says("label-unclear: the label volume number 11 .*belongs to several series .*SeriesInstanceUID", "--prompt", "x")
    Path("source/labels").mkdir()
    Path("source/other.nii").rename("source/labels/other.nii")
    says("image-missing: belongs to no series", "--prompt", "x")
    Path("source/labels/other.nii").unlink()
    Path("source/Doe_1/a.nii.gz").write_bytes(b"x")
    says("undecodable: can't read the label volume number 11", "--prompt", "x")
    sitk = import_simpleitk("a test")
    sitk.WriteImage(sitk.GetImageFromArray(np.ones((5, 12, 16), np.uint8)), "source/Doe_1/a.nii.gz")
    says("mask-geometry: label volume number 11 .*, its volume series_[0-9a-f]{12}", "--prompt", "x")


def test_one_class_needs_no_values(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    dicoms.write_series(Path("source"), np.zeros((5, 12, 16), np.uint16))
    write_labels(Path("source/a.nii"), Path("source"), (labels() == 3).astype(np.uint8) * 9)
    examples = prepare_set(monkeypatch, "--prompt", "lung", "--slices", "all")
    assert sum(int((one.maps()[0] == 1).sum()) for one in examples) == (labels() == 3).sum()
    assert {record.label for one in examples for record in one.records} == {"lung"} and len(examples) == 5
