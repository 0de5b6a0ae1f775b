"""How alike two images are, by their thumbnails: in their colours, or in their shapes whatever the light."""

from collections.abc import Callable, Iterator, Sequence

import cv2
import numpy as np

from tunevlseg_jax.data.audit.image_stats import ImageStats

SHAPES = 0.96
"""Least correlation of the brightness of one frame in two lights: 0.968 to 0.994 between the modes of an endoscope."""
DETAILS = 0.5
"""Least correlation of its details, in a set of which other images have none in common."""
SPREADS = 4.0
"""How many standard deviations above those of two images of the set it must be."""
FINE = 1.0
"""Details are finer than this, in pixels of a thumbnail."""


def difference(first: ImageStats, second: ImageStats) -> float:
    """Root mean square over the thumbnails, in grey levels."""
    if first.thumbnail is None or second.thumbnail is None:
        return np.inf
    return float(np.sqrt(np.square(first.thumbnail.astype(np.float32) - second.thumbnail).mean()))


def usual_difference(stats: Sequence[ImageStats]) -> float:
    """The median difference of two images, over a fixed draw of pairs, whatever order they come in."""
    return float(np.median([difference(first, second) for first, second in _draw(stats)]))


def common_details(stats: Sequence[ImageStats]) -> float:
    """The correlation of details that two different images of this set don't reach.

    Images that are alike by nature, such as lesions in the middle of skin, have more in common than others.
    """
    usual = [_correlation(first, second, details) for first, second in _draw(stats)]
    if not usual:
        return DETAILS
    middle = float(np.median(usual))
    spread = 1.4826 * float(np.median(np.abs(np.asarray(usual) - middle)))  # of a normal distribution
    return min(max(DETAILS, middle + SPREADS * spread), 0.9)


def same_shapes(first: ImageStats, second: ImageStats, least_details: float) -> bool:
    """Whether two images show the same in another light: their brightness and its details correlate."""
    return _correlation(first, second, brightness) >= SHAPES and _correlation(first, second, details) >= least_details


def brightness(thumbnail: np.ndarray) -> np.ndarray:
    """(32, 32) float32 grey of a thumbnail."""
    return cv2.cvtColor(thumbnail, cv2.COLOR_RGB2GRAY).astype(np.float32)


def details(thumbnail: np.ndarray) -> np.ndarray:
    """(32, 32) float32, the brightness without its coarse structure."""
    grey = brightness(thumbnail)
    return grey - cv2.GaussianBlur(grey, (0, 0), FINE)


def _correlation(first: ImageStats, second: ImageStats, of: Callable[[np.ndarray], np.ndarray]) -> float:
    """Pearson's correlation over the pixels, 0 where an image has one shade or can't be read."""
    if first.thumbnail is None or second.thumbnail is None:
        return 0.0
    one, other = (values - values.mean() for values in (of(first.thumbnail), of(second.thumbnail)))
    norm = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float((one * other).sum()) / norm if norm else 0.0


def _draw(stats: Sequence[ImageStats]) -> Iterator[tuple[ImageStats, ImageStats]]:
    stats = sorted(stats, key=lambda image: (image.id, image.content))
    for first, second in np.random.default_rng(0).integers(0, len(stats), (1000, 2)):
        if first != second:
            yield stats[first], stats[second]
