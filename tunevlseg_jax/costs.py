"""What the paper's study would take of a device, at a rate."""

from __future__ import annotations

from tunevlseg_jax.data import sets

RECORDS = sum(sets.PUBLISHED.values())
TRIALS, EPOCHS = 20, 20
"""Of each learner on each set, in the paper."""
NOTE = (
    f"the paper's study, for one learner: {TRIALS} trials of {EPOCHS} epochs over the {RECORDS:,} training records of "
    "its ten sets; training alone"
)


def study_hours(images_per_second: float) -> float:
    """Hours of one device, for one learner on the paper's ten sets."""
    return TRIALS * EPOCHS * RECORDS / images_per_second / 3600
