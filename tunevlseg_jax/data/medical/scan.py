"""A volume or series in memory, and its values as 8-bit slices."""

import dataclasses
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from tunevlseg_jax.data import windows
from tunevlseg_jax.data.medical import slices
from tunevlseg_jax.data.preprocessing import Axis
from tunevlseg_jax.data.windows import Window

DEFAULT_AXIS: Axis = "axial"


@dataclass(frozen=True)
class Scan:
    """A volume or series.

    Attributes:
      image: a SimpleITK image of three dimensions with the values, such as Hounsfield units, or with colours.
      window: the file's own window, if it has one.
      inverted: whether small values are bright, as in DICOM's MONOCHROME1.
      spaced: whether its spacing is known.
      placed: whether its direction in the body is known; the slices of others are those of the file.
      flat: whether it was an image of two dimensions.
      sources: DICOM's identifiers (SOPInstanceUID) of its slices, in the order of the image's third axis.
    """

    image: Any
    window: tuple[float, float] | None = None
    inverted: bool = False
    spaced: bool = True
    placed: bool = True
    flat: bool = False
    sources: tuple[str, ...] = ()

    @property
    def is_deep(self) -> bool:
        """Whether its values have another type than uint8, so that a window scales them."""
        return slices.values(self.image).dtype != np.uint8

    @cached_property
    def _percentiles(self) -> tuple[float, float]:
        """The window of the rule "percentile", over the whole volume."""
        values = slices.values(self.image)
        finite = values[np.isfinite(values)] if values.dtype.kind == "f" else values.reshape(-1)
        if not finite.size:
            return 0.0, 1.0
        low, high = map(float, np.percentile(finite, windows.PERCENTILES))
        return (low, high) if low < high else (low, low + 1)

    def resolved(self, window: Window | None) -> tuple[float, float]:
        """The values that become 0 and 255; None is "dicom", and "dicom" without a window in the file "percentile"."""
        if isinstance(window, tuple):
            return window
        if window != "percentile" and self.window is not None:
            return self.window
        return self._percentiles

    def axis(self, wanted: Axis | None) -> Axis:
        """The axis of its slices: the wanted one, by default axial; the file's own without a place in the body."""
        return (wanted or DEFAULT_AXIS) if self.placed else "axial"

    def restored(self, array: np.ndarray, axis: Axis) -> Any:
        """(slice, height, width) values as a SimpleITK image with exactly its geometry; of two dimensions if `flat`."""
        image = slices.volume(array, self.image, axis)
        return image[:, :, 0] if self.flat else image

    def planes(self, axis: Axis, window: Window | None) -> "Planes":
        """Its slices along an axis."""
        return Planes(slices.planes(self.image, axis), self.resolved(window), self)

    def spacing(self, axis: Axis) -> tuple[float, float] | None:
        """Millimetres between the centres of the rows and columns of a slice; None if unknown."""
        return slices.spacing(self.image, axis)[1:] if self.spaced else None

    def slice_spacing(self, axis: Axis) -> float | None:
        """Millimetres between the centres of neighbouring slices; None if unknown."""
        return slices.spacing(self.image, axis)[0] if self.spaced and self.placed else None


@dataclass(frozen=True)
class Planes:
    """The slices of a scan along an axis.

    Attributes:
      values: (slice, height, width) or (slice, height, width, 3), a view of the scan's values.
      window: the values that become 0 and 255.
      scan: where they are from.
    """

    values: np.ndarray
    window: tuple[float, float]
    scan: Scan = dataclasses.field(repr=False)

    def __len__(self) -> int:
        return len(self.values)

    def rgb(self, index: int) -> np.ndarray:
        """(height, width, 3) uint8 of a slice; grey is repeated."""
        plane = self.values[index]
        if plane.dtype != np.uint8:
            plane = windows.scaled(plane, self.window)
        if self.scan.inverted:
            plane = 255 - plane
        return np.ascontiguousarray(plane if plane.ndim == 3 else np.repeat(plane[..., None], 3, axis=2))
