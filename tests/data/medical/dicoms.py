"""Writes DICOM series, SEG files and structure sets for tests, by pydicom and highdicom."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, RTStructureSetStorage, generate_uid

NAME, NUMBER, BIRTH = "Doe^John^Q", "PID-77-4711", "19700102"
"""What must not be found in what is written."""
SECRETS = ("doe^", "doe_", "john", "77-4711", "77_4711", BIRTH)  # 4711 alone may stand in a score


def dataset(kind: str, frame: str, study: str) -> FileDataset:
    """A file without pixels, with a patient's tags."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = kind, generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    file.SOPClassUID, file.SOPInstanceUID = kind, meta.MediaStorageSOPInstanceUID
    file.PatientName, file.PatientID, file.PatientBirthDate, file.PatientSex = NAME, NUMBER, BIRTH, "M"
    file.StudyInstanceUID, file.SeriesInstanceUID, file.FrameOfReferenceUID = study, generate_uid(), frame
    file.AccessionNumber, file.StudyID, file.StudyDate, file.StudyTime = "A1", "1", "20200101", "120000"
    file.ReferringPhysicianName, file.InstanceNumber, file.SeriesNumber = "Roe^Jane", 1, 1
    return file


def write_series(
    folder: Path,
    stored: np.ndarray,
    *,
    spacing: tuple[float, float, float] = (2.5, 1.25, 0.75),
    direction: Sequence[float] = (1, 0, 0, 0, 1, 0),
    origin: Sequence[float] = (-10, -20, -30),
    study: str | None = None,
    **tags: object,
) -> list[FileDataset]:
    """Writes (slice, height, width) stored values as a CT series, the last slice first, and returns its files."""
    folder.mkdir(parents=True, exist_ok=True)
    normal = np.cross(direction[:3], direction[3:])
    frame, study, series, files = generate_uid(), study or generate_uid(), generate_uid(), []
    for number, plane in enumerate(stored):
        file = dataset(CTImageStorage, frame, study)
        file.SeriesInstanceUID, file.Modality, file.InstanceNumber = series, "CT", number + 1
        file.Rows, file.Columns = plane.shape
        file.PixelSpacing, file.SliceThickness = list(spacing[1:]), spacing[0]
        file.ImageOrientationPatient = list(direction)
        file.ImagePositionPatient = (np.asarray(origin, float) + normal * spacing[0] * number).tolist()
        file.SamplesPerPixel, file.PhotometricInterpretation, file.PixelRepresentation = 1, "MONOCHROME2", 0
        file.BitsAllocated, file.BitsStored, file.HighBit = 16, 12, 11
        file.RescaleSlope, file.RescaleIntercept = 1, -1024
        for name, value in tags.items():
            setattr(file, name, value)
        file.PixelData = plane.astype("<u2").tobytes()
        file.save_as(folder / f"{NAME.replace('^', '_')}_{len(stored) - number:03d}.dcm", enforce_file_format=True)
        files.append(file)
    return files


def write_contours(path: Path, series: Sequence[FileDataset], contours: dict[str, list[np.ndarray]]) -> None:
    """Writes a structure set with the contours, (point, 3) millimetres each, of each structure."""
    file = dataset(RTStructureSetStorage, series[0].FrameOfReferenceUID, series[0].StudyInstanceUID)
    file.Modality, file.StructureSetLabel = "RTSTRUCT", "x"
    referenced, study, frame = Dataset(), Dataset(), Dataset()
    referenced.SeriesInstanceUID = series[0].SeriesInstanceUID
    study.RTReferencedSeriesSequence, frame.RTReferencedStudySequence = [referenced], [study]
    frame.FrameOfReferenceUID = series[0].FrameOfReferenceUID
    file.ReferencedFrameOfReferenceSequence = [frame]
    rois, drawn = [], []
    for number, (name, points) in enumerate(contours.items(), 1):
        roi, item = Dataset(), Dataset()
        roi.ROINumber, roi.ROIName, item.ReferencedROINumber, item.ContourSequence = number, name, number, []
        for polygon in points:
            contour = Dataset()
            contour.ContourGeometricType, contour.NumberOfContourPoints = "CLOSED_PLANAR", len(polygon)
            contour.ContourData = [f"{value:.6f}" for value in polygon.reshape(-1)]
            item.ContourSequence.append(contour)
        rois.append(roi)
        drawn.append(item)
    file.StructureSetROISequence, file.ROIContourSequence = rois, drawn
    path.parent.mkdir(parents=True, exist_ok=True)
    file.save_as(path, enforce_file_format=True)


def write_seg(path: Path, series: Sequence[FileDataset], masks: dict[str, np.ndarray]) -> None:
    """Writes a SEG file with (slice, height, width) masks by name."""
    import highdicom
    from pydicom.sr.codedict import codes

    algorithm = highdicom.AlgorithmIdentificationSequence("x", codes.DCM.ArtificialIntelligence, "1")
    descriptions = [
        highdicom.seg.SegmentDescription(
            number, name, codes.SCT.Tissue, codes.SCT.Tissue, "AUTOMATIC", algorithm_identification=algorithm
        )
        for number, name in enumerate(masks, 1)
    ]
    highdicom.seg.Segmentation(
        list(series),
        np.stack([*masks.values()], axis=-1).astype(np.uint8),
        "BINARY",
        descriptions,
        generate_uid(),
        9,
        generate_uid(),
        1,
        "x",
        "x",
        "1",
        "0",
    ).save_as(path)
