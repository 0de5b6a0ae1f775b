"""A forest plot: the difference of each data set's best method to every other, with its 95 % interval."""

from collections.abc import Sequence

from tunevlseg_jax.reporting.comparisons import Comparison
from tunevlseg_jax.reporting.figures import style
from tunevlseg_jax.reporting.figures.style import Picture

ROW = 0.28
"""Inches of a difference."""


@style.styled
def differences(compared: Sequence[Comparison]) -> Picture | None:
    """A panel for each data set; None where no data set has two methods."""
    several = [each for each in compared if each.pairs]
    if not several:
        return None
    height = 1.1 + ROW * max(len(each.keys) for each in several)
    figure, axes = style.grid(len(several), 2, height)
    for ax, each in zip(axes, several, strict=True):
        best = [pair for pair in each.pairs if pair.first == each.best]
        for place, pair in enumerate(best):
            combination = each.keys[each.names.index(pair.second)].combination
            limits = (100 * pair.low, 100 * pair.high) if each.units > 1 else None
            mark = style.interval(ax, combination, place, 100 * pair.difference, limits)
            if not pair.distinguishable:
                mark.set_markerfacecolor("white")
        ax.autoscale(axis="x")
        ax.axvline(0, color=style.INK, linewidth=0.8)
        ax.set_yticks(range(len(best)), [style.two_lines(pair.second) for pair in best], fontsize=6.5)
        ax.set_ylim(-0.6, len(best) - 0.4)
        style.headline(ax, each.data, f"{each.best} minus, n {each.units}")
    figure.supxlabel("difference of mean Dice (points)", fontsize=8)
    units = ", ".join(f"{each.units} ({each.data})" for each in several)
    caption = (
        "How much better the best method of each data set is than every other, case by case, with 95 % BCa bootstrap"
        " intervals; filled where Wilcoxon's test with Holm's correction finds a difference at 5 %, hollow where"
        f" nothing can be said. Independent units (patients, videos or images): {units}."
    )
    return Picture(
        "differences", "Differences from the best", caption, figure, [key for each in several for key in each.keys]
    )
