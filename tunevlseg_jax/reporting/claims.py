"""Lists every claim of a report that one method is better than another, with its test, the cases, p and risk."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tunevlseg_jax.reporting import precision
from tunevlseg_jax.reporting.comparisons import Comparison
from tunevlseg_jax.reporting.over_sets import Rankings
from tunevlseg_jax.reporting.statistics.paired import SIGNIFICANCE

WILCOXON = "Wilcoxon signed-rank, Holm"
FRIEDMAN, NEMENYI = "Friedman", "Nemenyi"


class Claim(NamedTuple):
    """A claim.

    Attributes:
      text: of the claim.
      data: name of the data set, or how many there are.
      test: its name, and its correction for many tests.
      n: how many independent units, or data sets, the test has.
      p: of the test, after the correction.
      risk: the probability of false outperformance; None where it isn't of two methods on one data set.
      mixed: what is to be said of methods of different precision; "" where all have one, and for the claims that
        follow Friedman's, which says it of all methods.
    """

    text: str
    data: str
    test: str
    n: int
    p: float
    risk: float | None
    mixed: str


def claims(compared: Sequence[Comparison], ranked: Rankings) -> tuple[list[Claim], int]:
    """Every claim that a test supports at 5 %, and the number of pairs of which nothing can be said."""
    found, open_ = [], 0
    for each in compared:
        for pair in each.pairs:
            if pair.distinguishable:
                text = f"{pair.first} is better than {pair.second}"
                one, other = (each.named_precisions[name] for name in (pair.first, pair.second))
                mixed = precision.differ(pair.first, pair.second, one, other) if one != other else ""
                found.append(Claim(text, each.data, WILCOXON, pair.units, pair.p, pair.false_claim, mixed))
            open_ += not pair.distinguishable
    return found + _over_sets(ranked), open_


def _over_sets(ranked: Rankings) -> list[Claim]:
    """Of mean ranks; Nemenyi's test counts only where Friedman's finds a difference."""
    tested = ranked.tested
    if tested is None or tested.p >= SIGNIFICANCE:
        return []
    sets = len(ranked.data)
    data = f"{sets} data sets"
    found = [Claim("the methods differ", data, FRIEDMAN, sets, tested.p, None, " ".join(ranked.mixed))]
    order = np.argsort(tested.ranks, kind="stable")
    for number, first in enumerate(order):
        for second in order[number + 1 :]:
            if (p := float(tested.nemenyi[first, second])) < SIGNIFICANCE:
                text = f"{ranked.names[first]} ranks better than {ranked.names[second]}"
                found.append(Claim(text, data, NEMENYI, sets, p, None, ""))
    return found
