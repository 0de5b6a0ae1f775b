"""The bins of pixels' probabilities that an evaluation holds: how often the pixels of each bin are true."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from tunevlseg_jax.evaluation.calibration import BINS
from tunevlseg_jax.runtime.errors import UserError


class Bins(NamedTuple):
    """The bins at a temperature, (BINS,) each.

    Attributes:
      temperature: divides the logits; 1 for the model as it was trained.
      pixels: the number of pixels.
      probability: their mean probability; NaN where there is no pixel.
      true: the share of true pixels; NaN likewise.
    """

    temperature: float
    pixels: np.ndarray
    probability: np.ndarray
    true: np.ndarray


def read(reliability: Any, file: str) -> tuple[Bins, ...]:
    """The bins of an evaluation's JSON at each temperature; none in files of earlier versions.

    Args:
      reliability: the value of "reliability" in the JSON, or None.
      file: its name, for the error.

    Raises:
      UserError: the value isn't what `evaluate` writes.
    """
    try:
        return tuple(_bins(each) for each in reliability or ())
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"the reliability of {file} is broken", "bad-evaluation") from error


def pooled(parts: Sequence[Bins]) -> Bins:
    """The bins of the pixels of several runs together, at the temperature of the first."""
    pixels = np.sum([each.pixels for each in parts], axis=0)
    probability, true = (
        np.sum([np.where(each.pixels > 0, each.pixels * getattr(each, name), 0.0) for each in parts], axis=0)
        for name in ("probability", "true")
    )
    here = np.where(pixels > 0, pixels, np.nan)
    return Bins(parts[0].temperature, pixels, probability / here, true / here)


def _bins(stored: Any) -> Bins:
    """The bins at one temperature; a KeyError, TypeError or ValueError where they are broken."""
    pixels = np.array([int(row["pixels"]) for row in stored["bins"]])
    probability, true = (
        np.array([np.nan if row[name] is None else float(row[name]) for row in stored["bins"]])
        for name in ("probability", "true")
    )
    temperature = float(stored["temperature"])
    here = pixels > 0
    if pixels.shape != (BINS,) or not np.isfinite([temperature, *pixels, *probability[here], *true[here]]).all():
        raise ValueError(stored)
    return Bins(temperature, pixels, probability, true)
