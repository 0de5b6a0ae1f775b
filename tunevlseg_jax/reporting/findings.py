"""Says in plain sentences which method is better than which, on how many data sets, and by how much."""

from collections.abc import Sequence

import numpy as np

from tunevlseg_jax.reporting import headings, precision
from tunevlseg_jax.reporting.cells import Key, RowKey
from tunevlseg_jax.reporting.comparisons import Comparison
from tunevlseg_jax.reporting.over_sets import Rankings
from tunevlseg_jax.reporting.statistics import intervals
from tunevlseg_jax.reporting.statistics.paired import Pair
from tunevlseg_jax.reporting.table import MINUS

MOST = 12
"""Sentences on pairs of methods; the others are in pairs.csv and pairs_over_sets.csv."""
RESAMPLES = 1999
NOTHING = "No two methods were scored on the same test records, so that nothing can be said of differences."
EXPLAINED = (
    "Points of Dice with 95 % intervals over test cases. A method beats another on a data set where Wilcoxon's test"
    " finds a difference at 5 %, after Holm's correction over the set's pairs. Nothing can be said elsewhere, which"
    " doesn't show that the methods are equal."
)


def sentences(compared: Sequence[Comparison], ranked: Rankings) -> list[str]:
    """The findings: the method that is first on average against every other, then what the numbers mean."""
    several = [each for each in compared if each.pairs]
    if not several:
        return [NOTHING]
    several_models = len({key.model for each in several for key in each.keys}) > 1
    first = leader(several)
    others = dict.fromkeys(key.row for each in several for key in each.keys if key.row != first)
    said = [_against(first, other, several, several_models) for other in others]
    said = [sentence for sentence in said if sentence]
    if len(said) > MOST:
        said = [*said[:MOST], f"{len(said) - MOST} more methods are in the table of differences."]
    if (tested := ranked.tested) is not None:
        verdict = "the methods differ" if tested.p < 0.05 else "no difference between the methods can be shown"
        said.append(f"Over {len(ranked.data)} data sets {verdict} (Friedman's test, p = {100 * tested.p:.3g} %).")
    return [*said, EXPLAINED]


def leader(several: Sequence[Comparison]) -> RowKey:
    """The method with the lowest mean rank over the data sets; one that is on more of them comes before the others."""
    ranks: dict[RowKey, list[int]] = {}
    for each in several:
        for number, place in enumerate(np.argsort(-each.scores.mean(1), kind="stable")):
            ranks.setdefault(each.keys[place].row, []).append(number)
    return min(ranks, key=lambda row: (-len(ranks[row]), float(np.mean(ranks[row])), row))


def over_sets(first: RowKey, second: RowKey, several: Sequence[Comparison]) -> tuple[float, np.ndarray]:
    """The mean over data sets of the difference of two methods that are on all of them, and its 95 % interval."""
    apart = []
    for each in several:
        one, other = (each.scores[each.keys.index(Key(*row, each.data))] for row in (first, second))
        apart.append(one - other)
    mean, limits = intervals.over_sets(apart, RESAMPLES)
    return float(mean), limits


def _against(first: RowKey, second: RowKey, several: Sequence[Comparison], with_model: bool) -> str:
    """What can be said of two methods; nothing where no data set has both."""
    names = [_name(row, with_model) for row in (first, second)]
    both = [each for each in several if {Key(*row, each.data) for row in (first, second)} <= {*each.keys}]
    pairs = {each.data: _pair(each, first, second) for each in both}
    if not pairs:
        return ""
    if len(pairs) == 1:
        ((data, pair),) = pairs.items()
        said = _on_one(data, pair, names, pair.first == headings.method(first))
        return said + _precisions(first, second, both, names)
    won, lost, open_ = [], [], []
    for data, pair in pairs.items():
        better = pair.first == headings.method(first)
        (open_ if not pair.distinguishable else won if better else lost).append(data)
    mean, limits = over_sets(first, second, both)
    sentence = f"{names[0]} beats {names[1]} on {len(won)} of {len(pairs)} data sets"
    sentence += f"; over all of them it is {_points(mean, *limits)}"
    sentence += f"; {names[1]} beats it on {_listed(lost)}" if lost else ""
    sentence += f"; on {_listed(open_)} nothing can be said." if open_ else "."
    return sentence + _precisions(first, second, both, names)


def _precisions(first: RowKey, second: RowKey, both: Sequence[Comparison], names: Sequence[str]) -> str:
    """A sentence on two methods of different precision; "" where they have the same on each data set."""
    of = {
        each.data: [each.precisions.get(Key(*row, each.data), frozenset()) for row in (first, second)] for each in both
    }
    other = {data: pair for data, pair in of.items() if pair[0] != pair[1]}
    if not other:
        return ""
    one, two = (frozenset().union(*each) for each in zip(*other.values(), strict=True))
    where = "" if len(other) == len(both) else f" on {_listed(list(other))}"
    return f" {precision.differ(names[0], names[1], one, two, where)}"


def _on_one(data: str, pair: Pair, names: Sequence[str], in_order: bool) -> str:
    first, second = names if in_order else reversed(names)
    details = f"({pair.units} unit{'s' * (pair.units != 1)}, p = {100 * pair.p:.3g} %)"
    points = _points(pair.difference, pair.low, pair.high)
    if pair.distinguishable:
        return f"{first} beats {second} on {data}: it is {points} {details}."
    return f"On {data} nothing can be said of {first} and {second}: the first is {points} {details}."


def _pair(each: Comparison, first: RowKey, second: RowKey) -> Pair:
    names = {headings.method(row) for row in (first, second)}
    return next(pair for pair in each.pairs if {pair.first, pair.second} == names)


def _name(row: RowKey, with_model: bool) -> str:
    name = headings.method(row)
    return name if with_model else name.removeprefix(f"{row.model}, ")


def _points(mean: float, low: float, high: float) -> str:
    """Such as "2.1 points better [0.8, 3.4]"; the limits are of what the word says."""
    word = "better" if mean >= 0 else "worse"
    low, high = (low, high) if mean >= 0 else (-high, -low)
    interval = "" if np.isnan(low) else f" [{100 * low:.1f}, {100 * high:.1f}]".replace("-", MINUS)
    return f"{abs(100 * mean):.1f} points {word}{interval}"


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
