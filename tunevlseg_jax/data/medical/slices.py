"""Slices of volumes as radiologists see them, whatever the order in which a file stores its axes, and the way back.

A volume is brought into DICOM's orientation first: its axes run to the patient's left, back and head. Only axes are
swapped and turned; nothing is interpolated, so an oblique volume is cut along the axes that come nearest.
"""

from typing import Any

import numpy as np

from tunevlseg_jax.data.preprocessing import Axis
from tunevlseg_jax.runtime.optional import import_simpleitk

ORIENTATION = "LPS"
ORDER: dict[Axis, tuple[int, int, int]] = {"axial": (0, 1, 2), "coronal": (1, 0, 2), "sagittal": (2, 0, 1)}
"""The axes (head, back, left) of an oriented array that become slice, row and column.

Axial slices have the patient's front on top and his left on the right. Coronal and sagittal slices have the head on
top; coronal ones have his left on the right, sagittal ones his back.
"""


def values(image: Any) -> np.ndarray:
    """(z, y, x) or (z, y, x, channel) values of a SimpleITK image, a view that lives as long as the image."""
    return import_simpleitk("a volume").GetArrayViewFromImage(image)


def planes(image: Any, axis: Axis) -> np.ndarray:
    """(slice, height, width[, channel]) of a volume; the first slice is the lowest, the front or the rightmost one."""
    sitk = import_simpleitk("a volume")
    array = sitk.GetArrayFromImage(sitk.DICOMOrient(image, ORIENTATION))
    if axis != "axial":
        array = array[::-1]  # the head is on top
    return array.transpose(*ORDER[axis], *range(3, array.ndim))


def count(image: Any, axis: Axis) -> int:
    """The number of slices along an axis."""
    oriented = import_simpleitk("a volume").DICOMOrient(_empty(image), ORIENTATION)
    return oriented.GetSize()[::-1][ORDER[axis][0]]


def spacing(image: Any, axis: Axis) -> tuple[float, float, float]:
    """Millimetres between the centres of neighbouring slices, of rows of a slice, and of columns."""
    oriented = import_simpleitk("a volume").DICOMOrient(_empty(image), ORIENTATION)
    between, row, column = (oriented.GetSpacing()[::-1][place] for place in ORDER[axis])
    return between, row, column


def volume(array: np.ndarray, image: Any, axis: Axis) -> Any:
    """The inverse of `planes`: (slice, height, width) values as an image with exactly the geometry of `image`."""
    sitk = import_simpleitk("a volume")
    array = array.transpose(np.argsort(ORDER[axis]))
    if axis != "axial":
        array = array[::-1]
    oriented = sitk.GetImageFromArray(np.ascontiguousarray(array))
    oriented.CopyInformation(sitk.DICOMOrient(_empty(image), ORIENTATION))
    code = sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(image.GetDirection())
    restored = sitk.DICOMOrient(oriented, code)
    assert restored.GetSize() == image.GetSize(), "turning a volume back must restore its size"
    restored.CopyInformation(image)  # without the rounding of turning its corner twice
    return restored


def _empty(image: Any) -> Any:
    """An image of the same geometry with one byte a pixel."""
    sitk = import_simpleitk("a volume")
    empty = sitk.Image(image.GetSize(), sitk.sitkUInt8)
    empty.CopyInformation(image)
    return empty
