"""Sizes of a mask: pixels, area and connected components."""

import cv2
import numpy as np


def measure(mask: np.ndarray, spacing: tuple[float, float] | None) -> dict[str, int | float | None]:
    """Sizes of a (height, width) bool mask.

    Args:
      mask: the mask.
      spacing: height and width of a pixel in millimetres; None where they are unknown.

    Returns:
      "height", "width" and "pixels"; "marked", the share of pixels in the mask; "components", the number of connected
      parts, where pixels that touch at a corner are connected; "area_mm2", None without a spacing.
    """
    pixels = int(np.count_nonzero(mask))
    components, _ = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    return {
        "height": mask.shape[0],
        "width": mask.shape[1],
        "pixels": pixels,
        "marked": pixels / mask.size,
        "components": components - 1,
        "area_mm2": None if spacing is None else pixels * spacing[0] * spacing[1],
    }
