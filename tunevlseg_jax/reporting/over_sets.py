"""Ranks methods over data sets: mean ranks, how stable they are on each set, and how far the sets agree."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tunevlseg_jax.reporting import comparisons, headings, precision
from tunevlseg_jax.reporting.cells import Key, RowKey
from tunevlseg_jax.reporting.comparisons import Comparison
from tunevlseg_jax.reporting.statistics import rankings
from tunevlseg_jax.reporting.statistics.rankings import FEWEST_METHODS, FEWEST_SETS, OverSets
from tunevlseg_jax.reporting.table import Entry, Row, Table

RANKS, FREQUENCIES, AGREEMENT = "ranks", "rank_frequencies", "rank_agreement"
NAMES = (RANKS, FREQUENCIES, AGREEMENT)
"""Of the tables."""
RANKS_TITLE = "Mean ranks over data sets"
FREQUENCIES_TITLE = "How often each method takes each rank"
AGREEMENT_TITLE = "Agreement of the data sets' rankings"


@dataclass(frozen=True)
class Rankings:
    """The methods that were compared on every data set where two methods or more were.

    Attributes:
      data: names of the data sets.
      rows: of the methods; empty where no method is on all data sets.
      scores: mean Dice over units, (set, method).
      left_out: names of the other methods.
      mixed: a note on methods of several precisions, in a tuple; empty where each data set has one precision.
    """

    data: tuple[str, ...]
    rows: tuple[RowKey, ...]
    scores: np.ndarray
    left_out: tuple[str, ...]
    mixed: tuple[str, ...] = ()

    @property
    def names(self) -> list[str]:
        """The methods' names, in the order of `rows`."""
        return [headings.method(row) for row in self.rows]

    @property
    def tested(self) -> OverSets | None:
        """Friedman's and Nemenyi's tests; None where there are fewer than five sets or three methods."""
        if len(self.data) < FEWEST_SETS or len(self.rows) < FEWEST_METHODS:
            return None
        return rankings.over_sets(self.scores)


def rank(compared: Sequence[Comparison]) -> Rankings:
    """The methods that all data sets share."""
    several = [each for each in compared if each.pairs]
    rows = list(dict.fromkeys(key.row for each in several for key in each.keys))
    shared = [row for row in rows if all(Key(*row, each.data) in each.keys for each in several)]
    means = [[each.scores[each.keys.index(Key(*row, each.data))].mean() for row in shared] for each in several]
    left_out = tuple(headings.method(row) for row in rows if row not in shared)
    mixed = precision.mixed({key: names for key, names in comparisons.precisions(several).items() if key.row in shared})
    return Rankings(tuple(each.data for each in several), tuple(shared), np.array(means), left_out, mixed)


def frequencies(comparison: Comparison) -> np.ndarray:
    """How often each method takes each rank when the units of a data set are drawn again, (method, rank)."""
    return rankings.rank_frequencies(comparison.scores, comparisons.resamples(comparison.units))


def tables(compared: Sequence[Comparison], ranked: Rankings) -> tuple[list[Table], list[str]]:
    """The tables with content, and for each of the others why there is none."""
    needed = f"a test over sets needs at least {FEWEST_SETS} data sets and {FEWEST_METHODS} methods on all of them"
    there = f"there are {len(ranked.data)} and {len(ranked.rows)}"
    found = {
        f"{RANKS_TITLE} (Friedman, Nemenyi): not made, as {needed}, and {there}.": ranks(ranked),
        f"{FREQUENCIES_TITLE}: not made, as no data set has two methods to compare.": _frequency_table(compared),
        f"{AGREEMENT_TITLE}: not made, as it needs two methods on each of two data sets.": agreement(ranked),
    }
    return [each for each in found.values() if each is not None], [why for why, each in found.items() if each is None]


def ranks(ranked: Rankings) -> Table | None:
    """Each method's mean rank and Nemenyi's p against every other; None where there is no test over sets."""
    tested = ranked.tested
    if tested is None:
        return None
    order = np.argsort(tested.ranks, kind="stable")
    rows = []
    for number, place in enumerate(order, 1):
        p = [Entry() if place == other else Entry(100 * float(tested.nemenyi[place, other])) for other in order]
        rows.append(Row((str(number), ranked.names[place]), (Entry(float(tested.ranks[place])), *p)))
    methods, sets = len(ranked.rows), len(ranked.data)
    return Table(
        name=RANKS,
        title=RANKS_TITLE,
        caption=" ".join(
            (
                f"Ranks of {methods} methods by mean Dice over units, on {sets} data sets; 1 is the best.",
                f"Friedman's test that all are alike: p = {100 * tested.p:.3g} %.",
                f"Nemenyi's test: mean ranks that differ by {tested.critical_difference:.2f} or more are",
                "distinguishable at 5 %; p in % of each pair, 0.00 is less than 0.005.",
            )
        ),
        head=("place", "method"),
        columns=("mean rank", *(f"p to {number}, %" for number in range(1, methods + 1))),
        rows=tuple(rows),
        notes=(*_left_out(ranked), *ranked.mixed),
        scale=1.0,
    )


def agreement(ranked: Rankings) -> Table | None:
    """Kendall's tau between the rankings of every two data sets; None below two sets or two methods."""
    if len(ranked.data) < 2 or len(ranked.rows) < 2:
        return None
    rows = [
        Row((name,), tuple(Entry(rankings.kendall(first, second)) for second in ranked.scores))
        for name, first in zip(ranked.data, ranked.scores, strict=True)
    ]
    return Table(
        name=AGREEMENT,
        title=AGREEMENT_TITLE,
        caption=(
            f"Kendall's τ-b between the rankings of {len(ranked.rows)} methods by the mean Dice of independent units:"
            " 1 for the same order, 0 for no relation, -1 for the reverse. A dash: all methods are equal there."
        ),
        head=("data set",),
        columns=ranked.data,
        rows=tuple(rows),
        notes=(*_left_out(ranked), *ranked.mixed),
        scale=1.0,
    )


def _frequency_table(compared: Sequence[Comparison]) -> Table | None:
    several = [each for each in compared if each.pairs]
    if not several:
        return None
    most = max(len(each.keys) for each in several)
    rows: list[Row] = []
    for each in several:
        shares = frequencies(each)
        for number, place in enumerate(np.argsort(-each.scores.mean(1), kind="stable")):
            entries = [Entry(float(share)) for share in shares[place]]
            entries += [Entry()] * (most - len(entries))
            rows.append(Row((each.data, each.names[place]), tuple(entries), ruled=bool(rows) and not number))
    return Table(
        name=FREQUENCIES,
        title=FREQUENCIES_TITLE,
        caption=(
            "In % of the bootstrap samples of a data set's independent units; methods with equal means share ranks. The"
            " more a row is spread, the less its rank says."
        ),
        head=("data set", "method"),
        columns=tuple(f"rank {number}" for number in range(1, most + 1)),
        rows=tuple(rows),
        notes=precision.mixed(comparisons.precisions(several)),
    )


def _left_out(ranked: Rankings) -> tuple[str, ...]:
    return (f"Left out, as a data set lacks them: {'; '.join(ranked.left_out)}.",) if ranked.left_out else ()
