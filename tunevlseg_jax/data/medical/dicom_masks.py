"""The masks of a DICOM series: SEG files, by highdicom, and the contours of RT structure sets."""

import io
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from tunevlseg_jax.data.medical.dicom_files import SEGMENTATIONS, DicomFile, Series, place
from tunevlseg_jax.data.medical.labels import like
from tunevlseg_jax.runtime.errors import UserError
from tunevlseg_jax.runtime.optional import import_highdicom, import_simpleitk

HALF = 0.5
"""Probability above which a pixel of a fractional SEG belongs to its segment; also the reach of a slice, in slices."""


def of_series(files: Sequence[DicomFile], series: Sequence[Series]) -> dict[str, list[DicomFile]]:
    """The mask files of each series, by the series' name.

    Raises:
      UserError: a mask file belongs to none of them.
    """
    found: dict[str, list[DicomFile]] = {}
    for file in files:
        uids, frame = _referenced(file.header)
        named = [one for one in series if one.uid in uids]
        near = [one for one in series if frame and one.tag("FrameOfReferenceUID") == frame]
        owners = named or near
        if not owners:
            raise UserError(
                f"the mask file {place(file.number)} belongs to a series that the source lacks; add the series",
                "image-missing",
            )
        for one in owners:
            found.setdefault(one.name, []).append(file)
    return found


def read(file: DicomFile, image: Any) -> Iterator[tuple[str, Any]]:
    """The name and the mask, a SimpleITK image of 0 and 1 on the grid of `image`, of each structure in a file.

    Raises:
      UserError: the file is broken, or a contour lies between the slices.
    """
    try:
        if str(file.header.SOPClassUID) in SEGMENTATIONS:
            yield from _segments(file, image)
        else:
            yield from _contoured(file, image)
    except UserError:
        raise
    except Exception as error:  # highdicom and pydicom raise various errors
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise UserError(f"can't read the mask file {place(file.number)}: {reason}", "undecodable") from error


def _referenced(header: Any) -> tuple[set[str], str]:
    """The series that a mask file refers to, and its frame of reference."""
    uids = {str(one.get("SeriesInstanceUID", "")) for one in header.get("ReferencedSeriesSequence") or ()}
    frame = str(header.get("FrameOfReferenceUID") or "")
    for reference in header.get("ReferencedFrameOfReferenceSequence") or ():
        frame = frame or str(reference.get("FrameOfReferenceUID") or "")
        for study in reference.get("RTReferencedStudySequence") or ():
            uids |= {str(one.get("SeriesInstanceUID", "")) for one in study.get("RTReferencedSeriesSequence") or ()}
    return uids, frame


def _segments(file: DicomFile, image: Any) -> Iterator[tuple[str, Any]]:
    """Of a SEG file, which may have other slices than the series, or cover a part of it."""
    highdicom, sitk = import_highdicom("DICOM SEG"), import_simpleitk("DICOM SEG")
    segmentation = highdicom.seg.segread(io.BytesIO(file.read()))
    for number in segmentation.segment_numbers:
        volume = segmentation.get_volume(segment_numbers=[number], combine_segments=False)
        array = np.asarray(volume.array)[..., 0] >= HALF
        mask = sitk.GetImageFromArray(array.astype(np.uint8))
        affine = np.asarray(volume.affine)  # its columns are steps to the next slice, row and column
        spacing = np.linalg.norm(affine[:3, :3], axis=0)
        mask.SetSpacing(spacing[::-1].tolist())
        mask.SetDirection((affine[:3, :3] / spacing)[:, ::-1].reshape(-1).tolist())
        mask.SetOrigin(affine[:3, 3].tolist())
        marked = sitk.Resample(mask, image, sitk.Transform(), sitk.sitkNearestNeighbor, 0)
        yield str(segmentation.get_segment_description(number).SegmentLabel), marked


def _contoured(file: DicomFile, image: Any) -> Iterator[tuple[str, Any]]:
    """Of an RT structure set: pixels whose centres are inside an odd number of contours of their slice."""
    from pydicom import dcmread

    dataset = dcmread(io.BytesIO(file.read()))
    names = {int(roi.ROINumber): str(roi.get("ROIName") or "") for roi in dataset.StructureSetROISequence}
    width, height, depth = image.GetSize()
    for roi in dataset.get("ROIContourSequence") or ():
        name = names.get(int(roi.ReferencedROINumber), "")
        mask = np.zeros((depth, height, width), bool)
        for contour in roi.get("ContourSequence") or ():
            if contour.get("ContourGeometricType", "CLOSED_PLANAR") not in ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR"):
                continue  # a point or a line has no inside
            points = np.asarray(contour.ContourData, float).reshape(-1, 3)
            index = np.array([image.TransformPhysicalPointToContinuousIndex(point) for point in points.tolist()])
            middle = float(index[:, 2].mean())
            number = round(middle)
            if np.abs(index[:, 2] - middle).max() > HALF or not -HALF <= middle < depth - HALF:
                raise UserError(
                    f"a contour of {name!r} in the mask file {place(file.number)} isn't in a slice of its series; "
                    "export the contours in the plane of the slices",
                    "mask-geometry",
                )
            mask[number] ^= inside(index[:, :2], (height, width))
        if mask.any():
            yield name, like(mask.astype(np.uint8), image)


def inside(points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(height, width) bool, the pixels whose centres are inside a polygon.

    Args:
      points: (point, 2) column and row of each corner; pixel centres are whole numbers.
      size: height and width.
    """
    height, width = size
    crossings = np.zeros((height, width + 1), np.int32)
    for (x0, y0), (x1, y1) in zip(points, np.roll(points, -1, axis=0), strict=True):
        low, high = sorted((y0, y1))
        rows = np.arange(max(0, int(np.ceil(low))), min(height, int(np.ceil(high))))  # low <= row < high
        if len(rows):
            columns = x0 + (rows - y0) * (x1 - x0) / (y1 - y0)
            crossings[rows, np.clip(np.ceil(columns), 0, width).astype(int)] += 1
    return (crossings.cumsum(axis=1)[:, :width] % 2).astype(bool)
