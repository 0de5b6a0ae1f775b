"""Choices of an evaluation, their usual values and their checks."""

import math
from typing import Literal

from tunevlseg_jax.runtime.errors import UserError

Resolution = Literal["model", "original"]
"""Scores at the model's size, or at each mask's own."""
THRESHOLD = 0.5
"""Probability above which a pixel is marked, unless another is asked for."""
TOLERANCE = 2.0
"""Within which two outlines agree: pixels for `surface_dice_2px`, the default of `evaluate --tolerance` for NSD."""


def check_threshold(threshold: float, name: str = "threshold") -> None:
    """Raises a UserError unless it is a probability between 0 and 1."""
    if not 0 < threshold < 1:
        raise UserError(f"{name} must be above 0 and below 1, got {threshold}", "out-of-range")


def check_tolerance(tolerance: float, name: str = "tolerance") -> None:
    """Raises a UserError unless it is a positive, finite distance."""
    if not 0 < tolerance < math.inf:
        raise UserError(f"{name} must be above 0 and finite, got {tolerance}", "out-of-range")
