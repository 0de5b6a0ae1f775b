"""Surface distances between two masks in pixels or millimetres: percentile, mean, and the share within a tolerance."""

import cv2
import numpy as np

from tunevlseg_jax.evaluation.settings import TOLERANCE


def distances(
    predicted: np.ndarray, target: np.ndarray, spacing: tuple[float, float] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """From each pixel of one outline to the nearest of the other: the prediction's and the target's, (pixels,) floats.

    An outline is the pixels of a mask that touch its outside by a side; what lies beyond the image is outside.

    Args:
      predicted: (height, width) bool, not empty.
      target: likewise.
      spacing: millimetres between the centres of neighbouring rows, and of columns; distances are in pixels without.
    """
    box = _box(predicted | target)
    ours, theirs = (_outline(np.pad(mask[box], 1)) for mask in (predicted, target))
    return _between(ours, theirs, spacing), _between(theirs, ours, spacing)


def volume_distances(
    predicted: np.ndarray, target: np.ndarray, spacing: tuple[float, float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """As `distances` in three dimensions: between the voxels of two masks that touch the outside by a face.

    Args:
      predicted: (slice, height, width) bool, not empty.
      target: likewise.
      spacing: millimetres between the centres of neighbouring slices, rows and columns.
    """
    from scipy.ndimage import binary_erosion
    from scipy.spatial import KDTree  # its memory grows with the surfaces, not with the volume

    inside = (np.asarray(binary_erosion(mask), bool) for mask in (predicted, target))
    outlines = (mask & ~inner for mask, inner in zip((predicted, target), inside, strict=True))
    ours, theirs = (np.argwhere(outline) * np.asarray(spacing) for outline in outlines)
    return np.asarray(KDTree(theirs).query(ours)[0]), np.asarray(KDTree(ours).query(theirs)[0])


def hd95(ours: np.ndarray, theirs: np.ndarray) -> float:
    """The robust Hausdorff distance: the larger of the 95th percentiles of both ways."""
    return float(max(np.percentile(ours, 95), np.percentile(theirs, 95)))


def assd(ours: np.ndarray, theirs: np.ndarray) -> float:
    """The average symmetric surface distance: the mean over the pixels of both outlines."""
    return float((ours.sum(dtype=np.float64) + theirs.sum(dtype=np.float64)) / (len(ours) + len(theirs)))


def surface_dice(ours: np.ndarray, theirs: np.ndarray, tolerance: float = TOLERANCE) -> float:
    """The share of both outlines within a tolerance of the other: the normalised surface Dice (Nikolov et al. 2018)."""
    near = (ours <= tolerance).sum() + (theirs <= tolerance).sum()
    return float(near / (len(ours) + len(theirs)))


def _box(mask: np.ndarray) -> tuple[slice, slice]:
    """The smallest rectangle that holds a mask."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def _outline(mask: np.ndarray) -> np.ndarray:
    inside = cv2.erode(mask.view(np.uint8), cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3)))
    return mask & (inside == 0)


def _between(first: np.ndarray, second: np.ndarray, spacing: tuple[float, float] | None) -> np.ndarray:
    """From every pixel of the first outline to the nearest of the second, exact."""
    if spacing is not None:
        from scipy.ndimage import distance_transform_edt  # OpenCV knows no spacing

        return np.asarray(distance_transform_edt(~second, sampling=spacing))[first]
    distance = cv2.distanceTransform((~second).view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[first]
    return np.sqrt(np.rint(np.square(distance, dtype=np.float64)))  # OpenCV's square roots differ from call to call
