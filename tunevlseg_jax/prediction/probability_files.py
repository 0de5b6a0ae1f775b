"""Files of probabilities: 16-bit PNG or npy."""

from pathlib import Path

import numpy as np

from tunevlseg_jax.data.images import write_png
from tunevlseg_jax.runtime.files import atomic_file

SCALE = 2**16 - 1
"""The value of probability 1 in a PNG."""


def write_probability(path: Path, probability: np.ndarray) -> None:
    """Writes (height, width) float32 from 0 to 1: as float32 into an .npy file, scaled to 16 bits into a .png file."""
    if path.suffix == ".npy":
        with atomic_file(path) as temporary:
            np.save(temporary, probability)
    else:
        write_png(path, np.round(probability * SCALE).astype(np.uint16))
