"""The difference of every two methods over all data sets that have both, with its interval."""

import itertools
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from tunevlseg_jax.reporting import findings, headings, precision
from tunevlseg_jax.reporting.cells import Key, RowKey
from tunevlseg_jax.reporting.comparisons import Comparison
from tunevlseg_jax.reporting.statistics import intervals


@dataclass(frozen=True)
class PairOverSets:
    """Two methods over several data sets, each of which counts the same.

    Attributes:
      first: name of the method with the higher mean.
      second: name of the other.
      difference: mean over the data sets of the first's mean minus the second's, over independent units.
      low: lower limit of its 95 % interval, see `intervals.over_sets`.
      high: upper limit.
      better: on how many data sets the first is distinguishably better, see `paired.Pair.distinguishable`.
      worse: on how many it is distinguishably worse.
      open: on how many neither can be said.
      first_precision: of the first's scores; several are between spaces.
      second_precision: of the second's.
    """

    first: str
    second: str
    difference: float
    low: float
    high: float
    better: int
    worse: int
    open: int
    first_precision: str
    second_precision: str


def pairs(compared: Sequence[Comparison]) -> list[PairOverSets]:
    """Every two methods that share two data sets or more, in the order of the tables."""
    several = [each for each in compared if each.pairs]
    rows = dict.fromkeys(key.row for each in several for key in each.keys)
    shared: dict[tuple[int, ...], list[tuple[RowKey, RowKey]]] = defaultdict(list)
    for both in itertools.combinations(rows, 2):
        places = tuple(
            place for place, each in enumerate(several) if {Key(*row, each.data) for row in both} <= {*each.keys}
        )
        if len(places) > 1:
            shared[places].append(both)
    found: list[PairOverSets] = []
    for places, together in shared.items():
        found += _of([several[place] for place in places], together)
    return found


def _of(sets: Sequence[Comparison], both: Sequence[tuple[RowKey, RowKey]]) -> list[PairOverSets]:
    """The pairs of methods of the same data sets, whose bootstrap samples they share."""
    apart = []
    for each in sets:
        first, second = ([each.keys.index(Key(*pair[side], each.data)) for pair in both] for side in (0, 1))
        apart.append(each.scores[first] - each.scores[second])
    means, limits = intervals.over_sets(apart, findings.RESAMPLES)
    found = []
    for pair, mean, (low, high) in zip(both, means.tolist(), limits.T.tolist(), strict=True):
        names = [headings.method(row) for row in pair]
        if mean < 0:
            names.reverse()
            mean, low, high = -mean, -high, -low
        counts = _counts(sets, names[0], names[1])
        precisions = (_precision(sets, name) for name in names)
        found.append(PairOverSets(names[0], names[1], mean, low, high, *counts, *precisions))
    return found


def _precision(sets: Sequence[Comparison], name: str) -> str:
    """The precisions behind a method's scores on these data sets."""
    return precision.column(frozenset().union(*(each.named_precisions[name] for each in sets)))


def _counts(sets: Sequence[Comparison], first: str, second: str) -> tuple[int, int, int]:
    """On how many data sets the first is better, worse, and neither."""
    sure = [pair for each in sets for pair in each.pairs if {pair.first, pair.second} == {first, second}]
    better = sum(pair.distinguishable and pair.first == first for pair in sure)
    worse = sum(pair.distinguishable and pair.first == second for pair in sure)
    return better, worse, len(sets) - better - worse
