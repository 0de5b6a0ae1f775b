"""Rankings of methods: over sets (Friedman, Nemenyi), their stability, and their agreement (Kendall's tau)."""

import math
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from tunevlseg_jax.reporting.statistics import intervals
from tunevlseg_jax.reporting.statistics.units import checked
from tunevlseg_jax.runtime.errors import UserError

FEWEST_SETS = 5
FEWEST_METHODS = 3


class OverSets(NamedTuple):
    """A comparison of methods over several sets (Demsar 2006).

    Attributes:
      ranks: mean rank of each method over the sets, 1 for the best, (methods,); equals share the mean of their ranks.
      p: of the Friedman test that all methods are alike; 1 where all are equal on every set.
      nemenyi: p of each pair, (methods, methods).
      critical_difference: how far two mean ranks must lie apart to be distinguishable at 5 %.
    """

    ranks: np.ndarray
    p: float
    nemenyi: np.ndarray
    critical_difference: float


def over_sets(scores: np.ndarray) -> OverSets:
    """Friedman's test over sets, and Nemenyi's of the pairs.

    Args:
      scores: mean score of each method on each set, (sets, methods).

    Raises:
      UserError: there are fewer than five sets or three methods, or a score isn't finite.
    """
    scores = checked(scores)
    sets, methods = scores.shape
    if sets < FEWEST_SETS or methods < FEWEST_METHODS:
        needed = f"at least {FEWEST_SETS} sets and {FEWEST_METHODS} methods"
        raise UserError(f"a test over sets needs {needed}, got {sets} and {methods}", "too-few-scores")
    ranks = stats.rankdata(-scores, axis=1).mean(0)
    p = 1.0 if (np.ptp(scores, axis=1) == 0).all() else float(stats.friedmanchisquare(*scores.T).pvalue)
    error = math.sqrt(methods * (methods + 1) / (6 * sets))
    apart = np.abs(ranks[:, None] - ranks) / error * math.sqrt(2)
    nemenyi = np.minimum(stats.studentized_range.sf(apart, methods, np.inf), 1)
    np.fill_diagonal(nemenyi, 1)
    critical = float(stats.studentized_range.ppf(0.95, methods, np.inf)) / math.sqrt(2) * error
    return OverSets(ranks, p, nemenyi, critical)


def rank_frequencies(scores: np.ndarray, counts: np.ndarray | None = None) -> np.ndarray:
    """How often each method takes each rank when the units of a set are drawn again.

    Args:
      scores: (methods, units).
      counts: see `intervals.resamples`.

    Returns:
      (methods, ranks); each row sums to 1, and methods with equal means share their ranks in equal parts.

    Raises:
      UserError: a score isn't finite.
    """
    scores = checked(scores)
    counts = intervals.resamples(scores.shape[-1]) if counts is None else counts
    means = np.round(counts @ scores.T / scores.shape[-1], 12)
    first, last = (stats.rankdata(-means, method, axis=1) for method in ("min", "max"))
    share = 1 / (last - first + 1)
    return np.stack(
        [np.where((first <= rank) & (rank <= last), share, 0).mean(0) for rank in range(1, len(scores) + 1)], 1
    )


def kendall(first: np.ndarray, second: np.ndarray) -> float | None:
    """Kendall's tau-b between two rankings of the same methods.

    Args:
      first: scores of the methods, (methods,).
      second: other scores of theirs.

    Returns:
      1 for the same order and -1 for the reverse; None if one of them ranks nothing, as all are equal.

    Raises:
      UserError: a score isn't finite, or there are different numbers of methods.
    """
    first, second = checked(first), checked(second)
    if first.shape != second.shape:
        raise UserError(f"two rankings must be of the same methods, got {len(first)} and {len(second)}", "bad-scores")
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    found: Any = stats.kendalltau(first, second)
    return float(found.statistic)
