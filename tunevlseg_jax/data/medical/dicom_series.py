"""The volume of a DICOM series: rescaled values, geometry, and the series' own window."""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tunevlseg_jax.data.medical import compression
from tunevlseg_jax.data.medical.dicom_files import Series, place
from tunevlseg_jax.data.medical.scan import Scan
from tunevlseg_jax.runtime.errors import UserError
from tunevlseg_jax.runtime.optional import import_pydicom, import_simpleitk

UNEVEN = 0.02
"""Share of the distance between slices by which they may be off."""
CENTIMETRES = 3
"""The unit of an ultrasound region."""


@dataclass(frozen=True)
class Frame:
    """One slice.

    Attributes:
      values: (height, width) or (height, width, 3), rescaled; zeros of (height, width) where only the place is read.
      position: of the first pixel's centre, in millimetres; None where unknown.
      direction: (6,) cosines of the rows and the columns; None where unknown.
      spacing: millimetres between rows, and between columns; None where unknown.
      thickness: millimetres between slices if there is only one.
      window: its own.
      source: SOPInstanceUID.
    """

    values: np.ndarray
    position: np.ndarray | None
    direction: np.ndarray | None
    spacing: tuple[float, float] | None
    thickness: float
    window: tuple[float, float] | None
    source: str


def read(series: Series) -> Scan:
    """The volume of a series, its slices from low to high along their normal.

    Raises:
      UserError: a file is broken or compressed in an unknown way, or the slices are uneven or slanted.
    """
    pydicom = import_pydicom("DICOM")
    frames: list[Frame] = []
    inverted = False
    for file in series.files:
        try:
            dataset = pydicom.dcmread(io.BytesIO(file.read()))
            compression.check(dataset, f"the DICOM file {place(file.number)}, of {series.name},")
            inverted |= dataset.get("PhotometricInterpretation") == "MONOCHROME1"
            frames += _frames(dataset)
        except UserError:
            raise
        except Exception as error:  # pydicom and its decoders raise various errors
            reason = str(error).splitlines()[0][:200] if "decompress" in str(error) or "decode" in str(error) else ""
            raise UserError(
                f"can't read the pixels of the DICOM file {place(file.number)}, of {series.name}: "
                f"{reason or 'it is broken or has no pixels'}",
                "undecodable",
            ) from error
    return _scan(frames, series, inverted)


def grid(series: Series) -> Scan:
    """As `read`, but from the tags alone: all values are 0."""
    frames: list[Frame] = []
    for file in series.files:
        header = file.header
        blank = np.broadcast_to(np.uint8(0), (int(header.get("NumberOfFrames") or 1), header.Rows, header.Columns))
        try:
            frames += _placed(header, blank, rescale=False)
        except Exception as error:  # pydicom raises various errors for broken tags
            raise UserError(
                f"can't read the tags of the DICOM file {place(file.number)}, of {series.name}", "undecodable"
            ) from error
    return _scan(frames, series, inverted=False)


def _scan(frames: Sequence[Frame], series: Series, inverted: bool) -> Scan:
    normal, frames = _sorted(frames)
    step = _step(frames, normal, series.name)
    middle = frames[len(frames) // 2]
    sources = tuple(frame.source for frame in frames)
    return Scan(
        _image(frames, normal, step),
        middle.window,
        inverted,
        spaced=middle.spacing is not None,
        placed=normal is not None,
        sources=sources if len(set(sources)) == len(sources) else (),
    )


def _frames(dataset: Any) -> Iterator[Frame]:
    """The frames of a file, with the tags of each."""
    from pydicom.pixels.processing import apply_color_lut
    from pydicom.pixels.utils import pixel_array  # colours become RGB

    array = pixel_array(dataset)
    if dataset.get("PhotometricInterpretation") == "PALETTE COLOR":
        array = apply_color_lut(array, dataset)
        array = array if array.dtype == np.uint8 else (array >> 8).astype(np.uint8)
    colours = array.ndim > 2 and array.shape[-1] == 3 and int(dataset.get("SamplesPerPixel", 1)) == 3
    colours |= dataset.get("PhotometricInterpretation") == "PALETTE COLOR"
    several = array.ndim == (4 if colours else 3)
    return _placed(dataset, array if several else array[None], rescale=not colours)


def _placed(dataset: Any, array: np.ndarray, *, rescale: bool) -> Iterator[Frame]:
    """The frames of a file with these values, (frame, height, width[, 3])."""
    per_frame = dataset.get("PerFrameFunctionalGroupsSequence") or [None] * len(array)
    shared = (dataset.get("SharedFunctionalGroupsSequence") or [None])[0]
    for values, own in zip(array, per_frame, strict=True):
        groups = [group for group in (own, shared) if group is not None]
        values = _rescaled(values, dataset, groups) if rescale else values
        position = _tag(dataset, groups, "PlanePositionSequence", "ImagePositionPatient")
        direction = _tag(dataset, groups, "PlaneOrientationSequence", "ImageOrientationPatient")
        thickness = _tag(dataset, groups, "PixelMeasuresSequence", "SpacingBetweenSlices")
        thickness = thickness or _tag(dataset, groups, "PixelMeasuresSequence", "SliceThickness")
        yield Frame(
            values,
            None if position is None else np.asarray(position, float),
            None if direction is None else np.asarray(direction, float),
            _spacing(dataset, groups),
            float(thickness or 1),
            _window(dataset, groups),
            str(dataset.SOPInstanceUID),
        )


def _tag(dataset: Any, groups: Sequence[Any], sequence: str, name: str) -> Any:
    """A tag of a frame: its own, that of all frames, or that of the file; None without any."""
    for group in groups:
        if (items := group.get(sequence)) and items[0].get(name) is not None:
            return items[0].get(name)
    value = dataset.get(name)
    return None if value is None or value == "" else value


def _rescaled(values: np.ndarray, dataset: Any, groups: Sequence[Any]) -> np.ndarray:
    """Values in the unit of the modality, such as Hounsfield units."""
    if dataset.get("ModalityLUTSequence"):
        from pydicom.pixels.processing import apply_modality_lut

        return apply_modality_lut(values, dataset).astype(np.float32)
    slope, intercept = (
        float(_tag(dataset, groups, "PixelValueTransformationSequence", name) or default)
        for name, default in (("RescaleSlope", 1), ("RescaleIntercept", 0))
    )
    if (slope, intercept) == (1, 0):
        return values
    return (values * slope + intercept).astype(np.float32)


def _spacing(dataset: Any, groups: Sequence[Any]) -> tuple[float, float] | None:
    """Millimetres between rows and columns; of radiographs at the detector, of ultrasound as its region says."""
    spacing = _tag(dataset, groups, "PixelMeasuresSequence", "PixelSpacing")
    spacing = spacing or dataset.get("NominalScannedPixelSpacing") or dataset.get("ImagerPixelSpacing")
    if spacing:
        return float(spacing[0]), float(spacing[1])
    regions = dataset.get("SequenceOfUltrasoundRegions") or ()
    if len(regions) == 1 and regions[0].get("PhysicalUnitsXDirection") == CENTIMETRES:
        return 10 * abs(float(regions[0].PhysicalDeltaY)), 10 * abs(float(regions[0].PhysicalDeltaX))
    return None


def _window(dataset: Any, groups: Sequence[Any]) -> tuple[float, float] | None:
    """The first window: of DICOM's function LINEAR (PS3.3 C.11.2.1.2), or of LINEAR_EXACT and SIGMOID its ends."""
    centre, width = (_tag(dataset, groups, "FrameVOILUTSequence", name) for name in ("WindowCenter", "WindowWidth"))
    if centre is None or width is None:
        return None
    centre, width = (float(value[0] if hasattr(value, "__len__") else value) for value in (centre, width))
    if (_tag(dataset, groups, "FrameVOILUTSequence", "VOILUTFunction") or "LINEAR") == "LINEAR":
        low, high = centre - 0.5 - (width - 1) / 2, centre - 0.5 + (width - 1) / 2
    else:
        low, high = centre - width / 2, centre + width / 2
    return (low, high) if low < high else None


def _sorted(frames: Sequence[Frame]) -> tuple[np.ndarray | None, list[Frame]]:
    """The normal of the slices and the slices along it; None and the order of the file where places are unknown."""
    if any(frame.position is None or frame.direction is None for frame in frames):
        return None, list(frames)
    direction = frames[0].direction
    assert direction is not None
    normal = np.cross(direction[:3], direction[3:])
    return normal, sorted(frames, key=lambda frame: float(np.dot(normal, frame.position)))  # type: ignore[arg-type]


def _step(frames: Sequence[Frame], normal: np.ndarray | None, name: str) -> float:
    """Millimetres between the slices; raises a UserError if they are uneven, slanted or of unequal sizes."""
    if len({frame.values.shape for frame in frames}) > 1:
        raise UserError(f"{name} has images of unequal sizes; leave them out", "wrong-shape")
    if normal is None or len(frames) == 1:
        return frames[0].thickness
    positions = np.array([frame.position for frame in frames])
    steps = np.diff(positions @ normal)
    step = float(steps.mean())
    if step <= 0 or np.abs(steps - step).max() > max(UNEVEN * step, 1e-3):
        raise UserError(
            f"{name} has slices at uneven distances, from {steps.min():.4g} to {steps.max():.4g} mm: are some missing? "
            "Leave the series out, or resample it",
            "uneven-slices",
        )
    sideways = (positions[-1] - positions[0]) - normal * (positions[-1] - positions[0]).dot(normal)
    if np.linalg.norm(sideways) > max(UNEVEN * step * len(frames), 1e-3):
        raise UserError(f"{name} has slanted slices (a tilted gantry); resample it", "uneven-slices")
    return step


def _image(frames: Sequence[Frame], normal: np.ndarray | None, step: float) -> Any:
    sitk = import_simpleitk("DICOM")
    array = np.stack([frame.values for frame in frames])
    image = sitk.GetImageFromArray(array, isVector=array.ndim == 4)
    row, column = frames[0].spacing or (1.0, 1.0)
    image.SetSpacing((column, row, step))
    if normal is not None and frames[0].direction is not None and frames[0].position is not None:
        direction = frames[0].direction
        image.SetDirection(np.stack([direction[:3], direction[3:], normal], axis=1).reshape(-1).tolist())
        image.SetOrigin(frames[0].position.tolist())
    return image
