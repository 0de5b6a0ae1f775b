"""Scores of lesions: connected components of a predicted mask matched with those of the true one."""

from typing import Any, NamedTuple

import cv2
import numpy as np

LEAST_IOU = 0.1
"""A true and a predicted lesion may match if their IoU is above it."""
SIZES = {"small": 0.01, "medium": 0.1, "large": 1.0}
"""The classes of size: the share of the image or volume that a lesion of the class takes at most."""

RATES = ("recall", "precision", "f1")
"""In the order of `rates`."""


class Counts(NamedTuple):
    """Lesions of each class of size, (size,) ints in the order of SIZES.

    Attributes:
      true: lesions of the true mask.
      found: those of them that match a predicted one.
      false: lesions of the predicted mask that match none, by their own size.
    """

    true: np.ndarray
    found: np.ndarray
    false: np.ndarray


def count(predicted: np.ndarray, target: np.ndarray) -> Counts:
    """Matches each lesion with one of the other mask at most, such that the sum of their IoU is highest.

    Args:
      predicted: (height, width) or (slice, height, width) bool; pixels that touch at a corner are one lesion.
      target: likewise.
    """
    ours, theirs = components(predicted), components(target)
    our_sizes, their_sizes = (np.bincount(labels.ravel())[1:] for labels in (ours, theirs))
    matched = _matched(ours, theirs, our_sizes, their_sizes)
    found, right = np.zeros(len(their_sizes), bool), np.zeros(len(our_sizes), bool)
    right[matched[:, 0]] = found[matched[:, 1]] = True
    by_size = (their_sizes, their_sizes[found], our_sizes[~right])
    return Counts(*(_by_size(sizes / target.size) for sizes in by_size))


def components(mask: np.ndarray) -> np.ndarray:
    """The number of each pixel's connected component, from 1, and 0 outside of the mask."""
    if mask.ndim == 2:
        return cv2.connectedComponents(mask.view(np.uint8), connectivity=8)[1]
    from scipy import ndimage  # OpenCV knows no volumes

    labels: Any = ndimage.label(mask, np.ones((3, 3, 3)))
    return labels[0]


def rates(true: int, found: int, false: int) -> tuple[float | None, float | None, float | None]:
    """Recall, precision and F1 of counted lesions; None where there is none to count."""
    marked, either = found + false, true + found + false
    return (
        found / true if true else None,
        found / marked if marked else None,
        2 * found / either if either else None,
    )


def _matched(ours: np.ndarray, theirs: np.ndarray, our_sizes: np.ndarray, their_sizes: np.ndarray) -> np.ndarray:
    """(match, 2), the rows of a predicted and a true lesion."""
    from scipy.optimize import linear_sum_assignment

    both = (ours > 0) & (theirs > 0)
    pairs, shared = np.unique(np.stack([ours[both], theirs[both]]), axis=1, return_counts=True)
    first, second = pairs - 1
    iou = shared / (our_sizes[first] + their_sizes[second] - shared)
    first, second, iou = (array[iou > LEAST_IOU] for array in (first, second, iou))
    rows, row = np.unique(first, return_inverse=True)
    columns, column = np.unique(second, return_inverse=True)
    gain = np.zeros((len(rows), len(columns)))  # only of lesions that may match, so that noise doesn't make it large
    gain[row, column] = iou
    chosen = linear_sum_assignment(gain, maximize=True)
    matching = gain[chosen] > 0
    return np.stack([rows[chosen[0][matching]], columns[chosen[1][matching]]], axis=1)


def _by_size(shares: np.ndarray) -> np.ndarray:
    """(size,) ints, the number of lesions of each class."""
    limits = list(SIZES.values())[:-1]
    return np.bincount(np.searchsorted(limits, shares), minlength=len(SIZES))
