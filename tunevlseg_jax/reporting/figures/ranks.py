"""Ranks of methods: a critical-difference diagram over data sets, and how often each method takes each rank."""

from collections.abc import Sequence

import numpy as np

from tunevlseg_jax.reporting import over_sets
from tunevlseg_jax.reporting.cells import Key
from tunevlseg_jax.reporting.comparisons import Comparison
from tunevlseg_jax.reporting.figures import style
from tunevlseg_jax.reporting.figures.style import Picture
from tunevlseg_jax.reporting.over_sets import Rankings

ROW = 0.2
"""Inches of a method."""


def groups(ranks: np.ndarray, critical: float) -> list[tuple[int, int]]:
    """The first and last place of every largest group of neighbours in which no two ranks differ by `critical`.

    Args:
      ranks: mean ranks in ascending order.
      critical: the difference from which on two are distinguishable.
    """
    found: list[tuple[int, int]] = []
    for first in range(len(ranks)):
        last = int(np.searchsorted(ranks, ranks[first] + critical, "left")) - 1
        if last > first and (not found or last > found[-1][1]):
            found.append((first, last))
    return found


@style.styled
def critical_difference(ranked: Rankings) -> Picture | None:
    """Mean ranks, and bars over methods that aren't distinguishable; None where there is no test over sets."""
    tested = ranked.tested
    if tested is None:
        return None
    order = np.argsort(tested.ranks, kind="stable")
    ranks = tested.ranks[order]
    bars = groups(ranks, tested.critical_difference)
    figure, (ax,) = style.grid(1, 1, 0.8 + ROW * (len(order) + len(bars)))
    for place, (number, rank) in enumerate(zip(order, ranks, strict=True)):
        colour, marker = style.look(ranked.rows[number].combination)
        height = -(len(bars) + 1 + place)
        ax.plot([rank, rank], [0, height], color=colour, linewidth=1)
        ax.plot(rank, height, color=colour, marker=marker, markersize=5)
        label = f"{ranked.names[number]}  {rank:.2f}"  # on the left, where the lines of better methods have ended
        ax.annotate(label, (rank, height), (-7, 0), textcoords="offset points", va="center", ha="right")
    for place, (first, last) in enumerate(bars, 1):
        ax.plot(ranks[[first, last]], [-place, -place], color=style.INK, linewidth=3, solid_capstyle="butt")
    ax.plot([1, 1 + tested.critical_difference], [0.8, 0.8], color=style.INK, linewidth=1.5, marker="|")
    ax.text(1, 1.2, f"critical difference {tested.critical_difference:.2f}", va="bottom", fontsize=7)
    ax.set(
        xlim=(0.8 - 0.45 * (len(order) - 1), len(order) + 0.2), ylim=(-(len(order) + len(bars) + 0.7), 2.4), yticks=[]
    )
    ax.set_xlabel("mean rank over data sets (1 is the best)")
    ax.spines["left"].set_visible(False)
    ax.set_xticks(range(1, len(order) + 1))
    caption = (
        f"Mean ranks of {len(order)} methods by Dice on {len(ranked.data)} data sets ({', '.join(ranked.data)}); a bar"
        " joins methods whose ranks differ by less than the critical difference of Nemenyi's test, so that they aren't"
        f" distinguishable at 5 %. Friedman's test that all are alike: p = {100 * tested.p:.3g} %."
    )
    cells = [Key(*row, data) for row in ranked.rows for data in ranked.data]
    return Picture("critical_difference", "Critical-difference diagram", caption, figure, cells)


@style.styled
def rank_frequencies(compared: Sequence[Comparison]) -> Picture | None:
    """A panel for each data set with an area for each method and rank; None where no data set has two methods."""
    several = [each for each in compared if each.pairs]
    if not several:
        return None
    height = 1.1 + ROW * max(len(each.keys) for each in several)
    figure, axes = style.grid(len(several), 2, height)
    for ax, each in zip(axes, several, strict=True):
        shares = over_sets.frequencies(each)
        order = np.argsort(-each.scores.mean(1), kind="stable")
        for place, number in enumerate(order):
            colour, _ = style.look(each.keys[number].combination)
            there = shares[number] > 0
            x = np.flatnonzero(there) + 1
            ax.scatter(x, np.full(len(x), place), s=110 * shares[number][there], color=colour)
        ax.set_yticks(range(len(order)), [style.two_lines(each.names[number]) for number in order], fontsize=6.5)
        ax.set_xticks(range(1, len(order) + 1))
        ax.set(xlim=(0.4, len(order) + 0.6), ylim=(len(order) - 0.4, -0.6))
        style.headline(ax, each.data, f"n {each.units}")
    figure.supxlabel("rank (1 is the best)", fontsize=8)
    units = ", ".join(f"{each.units} ({each.data})" for each in several)
    caption = (
        "How often each method takes each rank when the independent units of a data set are drawn again: areas are"
        f" shares of the bootstrap samples, so that one full circle is a rank that never changes. Units: {units}."
    )
    cells = [key for each in several for key in each.keys]
    return Picture("rank_frequencies", "How often each method takes each rank", caption, figure, cells)
