"""Compares the outputs of a converted model with those of a public implementation."""

import numpy as np

from tunevlseg_jax.runtime.errors import UserError

PHRASES = ("a photo of a cat.", "something else")
TOLERANCE = 1e-4
"""Largest allowed difference, as a share of the largest value."""


def compare(name: str, ours: np.ndarray, theirs: np.ndarray) -> str:
    """A line with the largest difference of outputs.

    Args:
      name: of their outputs.
      ours: our outputs.
      theirs: like `ours`.

    Raises:
      UserError: they differ by more than `TOLERANCE` of the largest value.
    """
    difference = np.abs(ours - theirs).max() / np.abs(theirs).max()
    message = f"largest difference from {name}: {difference:.3g} of the largest value"
    if not difference <= TOLERANCE:  # NaN fails too
        raise UserError(f"{message}: more than {TOLERANCE:g}, so the conversion is wrong", "wrong-conversion")
    return message
