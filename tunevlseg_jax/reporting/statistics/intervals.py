"""Bias-corrected and accelerated (BCa) bootstrap intervals of means over independent units (Efron 1987)."""

from collections.abc import Sequence

import numpy as np
from scipy.special import ndtr, ndtri, stdtrit

from tunevlseg_jax.reporting.statistics.units import checked

LEVEL = 0.95
RESAMPLES = 9999
CLOSE = 1e-12
"""Relative difference below which two means are the same number, rounded in another order."""


def resamples(units: int, number: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """How often each unit is in each bootstrap sample, (number, units); methods share it, so that they stay paired."""
    drawn = np.random.default_rng(seed).integers(0, units, (number, units))
    rows = np.arange(number)[:, None] * units
    return np.bincount((rows + drawn).ravel(), minlength=number * units).reshape(number, units).astype(np.float64)


def expanded(level: float, units: int) -> float:
    """The standard normal quantile of the upper limit, such as 1.96 for a level of 0.95 and many units.

    A bootstrap interval is too short, as the spread of a sample is below that of the population. Student's t and
    n / (n - 1) make up for it, as in the expanded interval of Hesterberg (2015).
    """
    return float(-stdtrit(units - 1, (1 - level) / 2) * np.sqrt(units / (units - 1)))


def bca(values: np.ndarray, counts: np.ndarray | None = None, level: float = LEVEL) -> np.ndarray:
    """The BCa interval of the mean, with the quantiles of `expanded`.

    Args:
      values: (..., units), one score for each independent unit.
      counts: see `resamples`; None draws them.
      level: the share of studies whose interval should contain the true mean.

    Returns:
      Lower and upper limit, (2, ...). Both are NaN for one unit, of which nothing can be said, and both are the mean
      where all units are equal.

    Raises:
      UserError: a value isn't finite.
    """
    values = checked(values)
    units = values.shape[-1]
    mean = values.mean(-1)
    if units < 2:
        return np.full((2, *mean.shape), np.nan)
    counts = resamples(units) if counts is None else counts
    means = np.sort(values @ counts.T / units, -1)
    skew = _acceleration(values)
    span = CLOSE * np.maximum(1, np.abs(values).max(-1))[..., None]
    below = (means < mean[..., None] - span).mean(-1) / 2 + (means <= mean[..., None] + span).mean(-1) / 2
    bias = ndtri(np.clip(below, 0.5 / len(counts), 1 - 0.5 / len(counts)))
    limits = []
    for side in (-1, 1):
        shifted = bias + side * expanded(level, units)
        limits.append(_quantile(means, ndtr(bias + shifted / (1 - skew * shifted))))
    constant = np.ptp(values, -1) <= span[..., 0]
    return np.where(constant, mean, np.stack(limits))


def difference(
    first: np.ndarray, second: np.ndarray, counts: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The mean of the paired difference of two methods, and its BCa interval.

    Args:
      first: (..., units).
      second: of the same units.
      counts: see `resamples`.

    Returns:
      The first minus the second, (...), and its limits, (2, ...).

    Raises:
      UserError: a value isn't finite.
    """
    apart = checked(first) - checked(second)
    return apart.mean(-1), bca(apart, counts)


def over_sets(values: Sequence[np.ndarray], number: int = RESAMPLES) -> tuple[np.ndarray, np.ndarray]:
    """The mean over sets of each set's mean, and its BCa interval; the units of each set are drawn by themselves.

    Args:
      values: of each set, (..., units).
      number: of bootstrap samples.

    Returns:
      The mean, (...), and its limits, (2, ...); the limits are NaN where a set has one unit.

    Raises:
      UserError: a value isn't finite, or there is no set.
    """
    values = [checked(each) for each in values]
    means = checked(np.array([each.mean(-1) for each in values]))
    mean = means.mean(0)
    if min(each.shape[-1] for each in values) < 2:
        return mean, np.full((2, *mean.shape), np.nan)
    total = sum(each.shape[-1] for each in values)
    # Scaled so that the mean over all units is the mean over sets, in the sample and whenever units are drawn again.
    scaled = [
        mean[..., None] + (each - own[..., None]) * total / (len(values) * each.shape[-1])
        for each, own in zip(values, means, strict=True)
    ]
    counts = np.concatenate([resamples(each.shape[-1], number, seed) for seed, each in enumerate(values)], 1)
    return mean, bca(np.concatenate(scaled, -1), counts)


def _acceleration(values: np.ndarray) -> np.ndarray:
    """From the jackknife: a sixth of the skewness of a mean's influence values; 0 where all are equal."""
    influence = values - values.mean(-1, keepdims=True)
    spread = (influence**2).sum(-1) ** 1.5
    return (influence**3).sum(-1) / np.where(spread > 0, spread, 1) / 6


def _quantile(ordered: np.ndarray, share: np.ndarray) -> np.ndarray:
    """The quantile of each sorted row, (..., number), interpolated linearly; each row has its own share, (...)."""
    place = share * (ordered.shape[-1] - 1)
    low = np.floor(place).astype(int)
    high = np.minimum(low + 1, ordered.shape[-1] - 1)
    below, above = (np.take_along_axis(ordered, each[..., None], -1)[..., 0] for each in (low, high))
    return below + (above - below) * (place - low)
