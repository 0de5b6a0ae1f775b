"""Tests of DICOM: values, windows, geometry, masks, and that nothing about the patient is kept."""

import dicoms
import mistakes
import numpy as np
import pytest
import small
from pydicom.uid import generate_uid

from tunevlseg_jax import prepare
from tunevlseg_jax.data import prepared, preprocessing, windows
from tunevlseg_jax.data.medical import dicom_files, dicom_masks, dicom_series
from tunevlseg_jax.data.medical.scan import Scan
from tunevlseg_jax.runtime.optional import import_simpleitk

DIRECTIONS = ((1, 0, 0, 0, 1, 0), (0, 1, 0, 0, 0, -1), (0.8, 0.6, 0, 0, 0, -1), (-1, 0, 0, 0, -1, 0))


def stored(shape: tuple[int, ...] = (5, 12, 16), seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 4096, shape).astype(np.uint16)


def found(folder) -> list[dicom_files.DicomFile]:
    return dicom_files.find([path.read_bytes for path in sorted(folder.rglob("*")) if path.is_file()])


def scan_of(folder) -> Scan:
    (series,) = dicom_files.image_series(found(folder))
    return dicom_series.read(series)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_values_and_geometry_are_those_of_simpleitk(tmp_path, direction):
    values = stored()
    dicoms.write_series(tmp_path, values, direction=direction, RescaleSlope=0.5, RescaleIntercept=-100)
    sitk = import_simpleitk("a test")
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path)))
    theirs, ours = reader.Execute(), scan_of(tmp_path).image
    for what in ("Size", "Spacing", "Origin", "Direction"):
        np.testing.assert_allclose(getattr(ours, f"Get{what}")(), getattr(theirs, f"Get{what}")(), atol=1e-6)
    np.testing.assert_allclose(sitk.GetArrayFromImage(ours), sitk.GetArrayFromImage(theirs))
    np.testing.assert_allclose(sitk.GetArrayFromImage(ours), values * 0.5 - 100)


@pytest.mark.parametrize(
    ("tags", "window"),
    [
        ({"WindowCenter": 40, "WindowWidth": 400}, (-160, 239)),
        ({"WindowCenter": [40, 300], "WindowWidth": [400, 1500]}, (-160, 239)),
        ({"WindowCenter": 40, "WindowWidth": 400, "VOILUTFunction": "LINEAR_EXACT"}, (-160, 240)),
        ({}, None),
    ],
)
def test_windows_are_the_series_own_or_percentiles(tmp_path, tags, window):
    values = stored()
    dicoms.write_series(tmp_path, values, **tags)
    scan = scan_of(tmp_path)
    assert scan.window == window
    expected = window or tuple(np.percentile(values.astype(float) - 1024, windows.PERCENTILES))
    assert scan.resolved("dicom") == pytest.approx(expected)
    assert scan.resolved((0, 80)) == (0, 80)
    plane = scan.planes("axial", "dicom").rgb(2)
    grey = windows.scaled(values[2].astype(np.float32) - 1024, scan.resolved("dicom"))
    np.testing.assert_array_equal(plane, np.repeat(grey[..., None], 3, axis=2))


def test_monochrome1_is_bright_where_values_are_small(tmp_path):
    values = stored()
    for name in ("MONOCHROME1", "MONOCHROME2"):
        dicoms.write_series(tmp_path / name, values, PhotometricInterpretation=name, WindowCenter=40, WindowWidth=400)
    one, two = (scan_of(tmp_path / name).planes("axial", "dicom").rgb(0) for name in ("MONOCHROME1", "MONOCHROME2"))
    np.testing.assert_array_equal(one, 255 - two)


def test_several_frames_in_a_file(tmp_path):
    values = stored((1, 12, 16))
    (file,) = dicoms.write_series(tmp_path, values)
    frames = stored((4, 12, 16), 1)
    file.NumberOfFrames, file.PixelData = 4, frames.astype("<u2").tobytes()
    for name in ("ImagePositionPatient", "ImageOrientationPatient"):
        delattr(file, name)
    (path,) = tmp_path.iterdir()
    file.save_as(path, enforce_file_format=True)
    scan = scan_of(tmp_path)
    assert not scan.placed and scan.spacing("axial") == (1.25, 0.75)
    np.testing.assert_array_equal(scan.planes("axial", None).values, frames - 1024.0)


def test_colours_and_palettes(tmp_path):
    """As of ultrasound, whose frames have no place in the body; they stay as they are."""
    (file,) = dicoms.write_series(tmp_path, stored((1, 4, 6)))
    (path,) = tmp_path.iterdir()
    for name in ("ImagePositionPatient", "ImageOrientationPatient"):
        delattr(file, name)
    frames = np.random.default_rng(0).integers(0, 256, (3, 4, 6, 3)).astype(np.uint8)
    file.SamplesPerPixel, file.PhotometricInterpretation, file.PlanarConfiguration = 3, "RGB", 0
    file.BitsAllocated = file.BitsStored = 8
    file.HighBit, file.NumberOfFrames, file.PixelData = 7, 3, frames.tobytes()
    file.save_as(path, enforce_file_format=True)
    scan = scan_of(tmp_path)
    planes = scan.planes("axial", "dicom")
    assert len(planes) == 3 and not scan.is_deep
    np.testing.assert_array_equal(planes.rgb(1), frames[1])
    del file.PlanarConfiguration
    file.SamplesPerPixel, file.PhotometricInterpretation, file.NumberOfFrames = 1, "PALETTE COLOR", 1
    for colour in ("Red", "Green", "Blue"):
        setattr(file, f"{colour}PaletteColorLookupTableDescriptor", [256, 0, 16])
        table = np.arange(256, dtype=np.uint16) * 256
        setattr(file, f"{colour}PaletteColorLookupTableData", table.tobytes())
    file.PixelData = frames[0, ..., 0].tobytes()
    file.save_as(path, enforce_file_format=True)
    np.testing.assert_array_equal(scan_of(tmp_path).planes("axial", None).rgb(0)[..., 0], frames[0, ..., 0])


def test_missing_and_slanted_slices_are_refused(tmp_path):
    dicoms.write_series(tmp_path / "a", stored())
    sorted((tmp_path / "a").iterdir())[2].unlink()
    with mistakes.raises("uneven-slices: series_[0-9a-f]{12} has slices .* 2.5 to 5 mm"):
        scan_of(tmp_path / "a")
    files = dicoms.write_series(tmp_path / "b", stored())
    for file, path in zip(files, sorted((tmp_path / "b").iterdir(), reverse=True), strict=True):
        x, y, z = file.ImagePositionPatient
        file.ImagePositionPatient = [x, y + 0.5 * file.InstanceNumber, z]
        file.save_as(path, enforce_file_format=True)
    with mistakes.raises("uneven-slices: slanted"):
        scan_of(tmp_path / "b")


def test_times_of_one_place_are_series_of_their_own(tmp_path):
    values = stored((6, 12, 16))
    files = dicoms.write_series(tmp_path, values)
    for file, path in zip(files, sorted(tmp_path.iterdir(), reverse=True), strict=True):
        x, y, z = files[(file.InstanceNumber - 1) % 3].ImagePositionPatient
        file.ImagePositionPatient = [x, y, z]
        file.save_as(path, enforce_file_format=True)
    first, second = dicom_files.image_series(found(tmp_path))
    assert second.name == f"{first.name}_2" and first.patient == second.patient
    sitk = import_simpleitk("a test")
    for series, part in ((first, values[:3]), (second, values[3:])):
        np.testing.assert_array_equal(sitk.GetArrayFromImage(dicom_series.read(series).image), part - 1024.0)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_segments_and_contours_lie_where_they_belong(tmp_path, direction):
    values, masks = stored(), np.zeros((2, 5, 12, 16), bool)
    masks[0, 1:4, 2:7, 3:12], masks[1, 2:5, 6:11, 1:5] = True, True
    series = dicoms.write_series(tmp_path, values, direction=direction)
    dicoms.write_seg(tmp_path / "seg.dcm", series, {"liver": masks[0], "tumour": masks[1]})
    image = scan_of(tmp_path).image
    corners = np.array([[2.6, 1.6], [11.4, 1.6], [11.4, 6.4], [2.6, 6.4]])  # around the centres of the first mask
    hole = np.array([[4.5, 2.5], [7.5, 2.5], [7.5, 4.5], [4.5, 4.5]])
    contours = [
        np.array([image.TransformContinuousIndexToPhysicalPoint([*map(float, point), float(k)]) for point in polygon])
        for k in (1, 2, 3)
        for polygon in (corners, hole)
    ]
    dicoms.write_contours(tmp_path / "rt.dcm", series, {"ring": contours})
    files = [file for file in found(tmp_path) if dicom_files.is_mask(file)]
    read = {name: mask for file in files for name, mask in dicom_masks.read(file, image)}
    sitk = import_simpleitk("a test")
    arrays = {name: sitk.GetArrayFromImage(mask) for name, mask in read.items()}
    ring = masks[0].copy()
    ring[1:4, 3:5, 5:8] = False
    for name, expected in (("liver", masks[0]), ("tumour", masks[1]), ("ring", ring)):
        np.testing.assert_array_equal(arrays[name], expected, name)


def test_polygons_hold_the_pixels_whose_centres_are_inside():
    triangle = np.array([[0.5, -0.5], [9.5, 4.2], [3.1, 8.7]])
    rows, columns = np.mgrid[:10, :12]
    inside = np.ones((10, 12), bool)
    for (x0, y0), (x1, y1) in zip(triangle, np.roll(triangle, -1, axis=0), strict=True):
        inside &= (x1 - x0) * (rows - y0) - (y1 - y0) * (columns - x0) > 0
    np.testing.assert_array_equal(dicom_masks.inside(triangle, (10, 12)), inside)


def test_nothing_about_the_patient_is_kept(tmp_path, monkeypatch, capsys):
    """Names of folders and files, tags and messages; two series of a patient stay together."""
    study = generate_uid()
    for number in range(3):
        folder = tmp_path / "source" / dicoms.NAME.replace("^", "_") / f"{dicoms.NUMBER}_{number}"
        series = dicoms.write_series(folder, stored(seed=number), study=study if number < 2 else None)
        for file, path in zip(series, sorted(folder.iterdir(), reverse=True), strict=True):
            file.PatientID = dicoms.NUMBER if number < 2 else "PID-4711-2"
            file.save_as(path, enforce_file_format=True)
        mask = np.zeros((5, 12, 16), bool)
        mask[1:3, 2:6, 3:9] = True
        dicoms.write_seg(folder / "seg.dcm", series, {"liver": mask})
    (tmp_path / "source" / "notes.txt").write_text("x")
    options = "--name", "mine", "--source", tmp_path / "source", "--output", tmp_path / "data"
    small.run(monkeypatch, prepare.main, "dicom", *options, "--fractions", 0.5, 0, 0.5)
    out = capsys.readouterr()
    assert "3 of 2 patients" in out.out and "1 files that are neither DICOM" in out.out
    small.run(monkeypatch, prepare.main, "dicom", *options, "--slices", 2, "--window", -100, 100)
    capsys.readouterr()
    folder = prepared.find(tmp_path / "data", "mine")
    assert preprocessing.read(folder) == preprocessing.Preprocessing((-100, 100), "axial")
    written = list((tmp_path / "data").rglob("*"))
    texts = [str(path.relative_to(tmp_path)).encode() for path in written]
    texts += [path.read_bytes() for path in written if path.is_file()]
    for text in (*texts, out.out.replace(str(tmp_path), "").encode(), out.err.encode()):
        assert not [secret for secret in dicoms.SECRETS if secret.encode() in text.lower()]
    splits = (prepared.load(tmp_path / "data", "mine", split) for split in prepared.stored_splits(folder))
    examples = [one for split in splits for one in split]
    assert len(examples) == 9 and len({one.group for one in examples}) == 2
    assert {one.spacing for one in examples} == {(1.25, 0.75)}
    empty = [not one.maps()[0].any() for one in examples]
    assert sum(empty) == 6  # of slices 0, 2 and 4 only 2 shows the object


def test_mistakes(tmp_path, monkeypatch):
    source = tmp_path / "source"
    series = dicoms.write_series(source, stored())
    options = "--name", "mine", "--source", source, "--output", tmp_path / "data"

    def says(line: str, *more: object) -> None:
        with mistakes.raises(line):
            monkeypatch.setattr("sys.argv", ["prepare", "dicom", *map(str, (*options, *more))])
            prepare.main()

    says("mask-missing: no DICOM SEG or RT-STRUCT")
    mask = np.ones((5, 12, 16), bool)
    dicoms.write_seg(source / "seg.dcm", series, {"GTV Doe": mask})
    says("patient-named: series_[0-9a-f]{12} has the patient's name")
    dicoms.write_seg(source / "seg.dcm", series, {"a": mask, "b": mask})
    says("class-count: structures a, b; .*--classes", "--prompt", "x")
    says("out-of-range: --slices .*got 0", "--slices", 0)
    says("wrong-window: LOW HIGH or percentile or dicom, got 5", "--window", 5)
    for path in source.glob("*_0*.dcm"):
        path.unlink()
    says("no-images: no DICOM images")
