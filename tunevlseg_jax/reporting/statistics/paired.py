"""Paired comparison of methods on one set: difference, Wilcoxon signed-rank test, Holm, and the risk of a claim."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from tunevlseg_jax.reporting.statistics import intervals
from tunevlseg_jax.reporting.statistics.units import checked
from tunevlseg_jax.runtime.errors import UserError

SIGNIFICANCE = 0.05
DECIMALS = 12
"""Differences that agree in these are equal; the rest is rounding."""
EXACT = 13
"""The most units whose 2^units signs are all tried."""
MOST_EXACT = 50


@dataclass(frozen=True)
class Pair:
    """A comparison of two methods on the same units.

    Attributes:
      first: name of the method with the higher mean; of equals the one whose name comes first.
      second: name of the other.
      difference: mean of the first minus that of the second.
      low: lower limit of the difference's 95 % interval; NaN for one unit.
      high: upper limit.
      p: of the two-sided Wilcoxon signed-rank test, after Holm's correction over the pairs of the set.
      false_claim: see `false_outperformance`.
      units: how many independent units the methods are compared on.
    """

    first: str
    second: str
    difference: float
    low: float
    high: float
    p: float
    false_claim: float
    units: int

    @property
    def distinguishable(self) -> bool:
        """Whether the first is better than the second by Holm's corrected p."""
        return self.p < SIGNIFICANCE


def wilcoxon(apart: np.ndarray) -> np.ndarray:
    """Two-sided p of the Wilcoxon signed-rank test; zero differences are left out.

    It is exact for up to 13 units, and for up to 50 without ties and zeros, and by the normal approximation beyond.

    Args:
      apart: paired differences, (..., units).

    Returns:
      (...), 1 where all differences are zero.

    Raises:
      UserError: a difference isn't finite.
    """
    apart = np.round(checked(apart), DECIMALS)
    rows = apart.reshape(-1, apart.shape[-1])
    p = np.array([_exact(row) for row in rows]) if rows.shape[1] <= EXACT else _scipys(rows)
    return p.reshape(apart.shape[:-1])


def _exact(row: np.ndarray) -> float:
    """From all signs that the differences could have."""
    ranks = np.where(row == 0, 0, stats.rankdata(np.abs(row)) - (row == 0).sum())
    signs = np.arange(2 ** len(row))[:, None] >> np.arange(len(row)) & 1
    sums, found = signs @ ranks, ranks[row > 0].sum()
    return float(min(1, 2 * min((sums <= found).mean(), (sums >= found).mean())))


def _scipys(rows: np.ndarray) -> np.ndarray:
    """With the method that scipy chooses for each row by itself; for many rows it looks for one that fits all."""
    sizes = np.sort(np.abs(rows), -1)
    plain = (rows.shape[1] <= MOST_EXACT) & (sizes[:, 0] > 0) & (np.diff(sizes) > 0).all(-1)
    p = np.ones(len(rows))
    for method, chosen in (("exact", plain), ("asymptotic", ~plain & rows.any(-1))):
        if chosen.any():
            found: Any = stats.wilcoxon(rows[chosen], axis=-1, method=method)
            p[chosen] = found.pvalue
    return p


def holm(p: np.ndarray) -> np.ndarray:
    """The p of a family of tests after Holm's step-down correction (1979).

    Args:
      p: (..., tests).

    Returns:
      (..., tests): below 0.05 where the family's risk of any false finding stays at most 5 %.
    """
    p = checked(p)
    order = np.argsort(p, -1)
    steps = np.take_along_axis(p, order, -1) * np.arange(p.shape[-1], 0, -1)
    corrected = np.empty_like(p)
    np.put_along_axis(corrected, order, np.minimum(np.maximum.accumulate(steps, -1), 1), -1)
    return corrected


def false_outperformance(apart: np.ndarray) -> np.ndarray:
    """The probability that the claim "the first is better" is false, given the scores.

    With the prior p(mu, sigma^2) ~ 1 / sigma^2, the posterior of the mean difference mu is Student's t with n - 1
    degrees of freedom, location mean(d) and scale std(d) / sqrt(n). The probability is its mass at or below zero:
    P(mu <= 0 | d) = F(-mean(d) * sqrt(n) / std(d)). It is the formula of arXiv 2505.04720 for segmentation, with the
    deviation of the paired differences themselves in place of one from published deviations and a correlation.

    Args:
      apart: paired differences, (..., units).

    Returns:
      (...); NaN for one unit. Where all differences are equal 0 or 1 by their sign, and 0.5 for zero.

    Raises:
      UserError: a difference isn't finite.
    """
    apart = checked(apart)
    units, mean = apart.shape[-1], apart.mean(-1)
    if units < 2:
        return np.full(mean.shape, np.nan)
    scale = apart.std(-1, ddof=1) / np.sqrt(units)
    equal = np.ptp(apart, -1) <= 10.0**-DECIMALS
    statistic = mean / np.where(equal, 1, scale)
    return np.where(equal, 0.5 - np.sign(mean) / 2, stats.t.sf(statistic, units - 1))


def pairs(names: Sequence[str], scores: np.ndarray, counts: np.ndarray | None = None) -> list[Pair]:
    """Every pair of methods of a set.

    Args:
      names: of the methods.
      scores: (methods, units); see `units.unit_means`.
      counts: see `intervals.resamples`.

    Returns:
      The pairs, those with the largest difference first; empty for one method.

    Raises:
      UserError: a score isn't finite, or names don't fit the scores.
    """
    scores = checked(scores)
    if len(names) != len(scores) or len({*names}) != len(names):
        raise UserError(f"names must be {len(scores)} different ones, got {len(names)}", "bad-scores")
    ranked = sorted(range(len(names)), key=lambda place: (-round(float(scores[place].mean()), 12), names[place]))
    chosen = list(itertools.combinations(ranked, 2))
    if not chosen:
        return []
    counts = intervals.resamples(scores.shape[-1]) if counts is None else counts
    apart = np.stack([scores[first] - scores[second] for first, second in chosen])
    apart = np.round(apart, DECIMALS)  # the same differences, whatever constant the scores have
    limits = [intervals.bca(row, counts) for row in apart]  # one at a time, so that memory doesn't grow with pairs
    p, risk = holm(wilcoxon(apart)), false_outperformance(apart)
    found = [
        Pair(
            names[first],
            names[second],
            float(row.mean()),
            float(limit[0]),
            float(limit[1]),
            float(q),
            float(false),
            len(row),
        )
        for (first, second), row, limit, q, false in zip(chosen, apart, limits, p, risk, strict=True)
    ]
    return sorted(found, key=lambda pair: (-pair.difference, pair.first, pair.second))
