"""Volumes in every orientation, for tests: an asymmetric phantom whose axes can't be mistaken."""

import itertools
from pathlib import Path

import nibabel
import numpy as np

SPACING = (0.75, 1.25, 2.5)
"""Millimetres along the phantom's axes to the right, front and head."""
SIZE = (16, 20, 12)
ORIENTATIONS = tuple(
    "".join(names) for order in itertools.permutations(("RL", "AP", "SI")) for names in itertools.product(*order)
)
"""All 48 orders and directions of a volume's axes."""


def phantom(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(right, front, head) int16 values and their uint8 labels: a box, and a smaller one right, front and top of it."""
    rng = np.random.default_rng(seed)
    values = rng.integers(-200, 200, SIZE).astype(np.int16)
    labels = np.zeros(SIZE, np.uint8)
    labels[2:8, 4:15, 2:9], labels[9:13, 12:17, 6:10] = 1, 2
    values[labels == 1] += 700
    values[labels == 2] += 1500
    return values, labels


def write_nifti(path: Path, array: np.ndarray, orientation: str = "RAS") -> None:
    """Writes a phantom's array with its axes in another order and direction, at the same place in space."""
    affine = np.diag([*SPACING, 1.0])
    affine[:3, 3] = -11, 23, -7
    image = nibabel.Nifti1Image(array, affine)
    start = nibabel.orientations.io_orientation(affine)
    wanted = nibabel.orientations.axcodes2ornt(orientation)
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(image.as_reoriented(nibabel.orientations.ornt_transform(start, wanted)), path)
