"""The Dice of every independent unit of a data set: a violin with dots for each method, and paired lines."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from tunevlseg_jax.reporting.comparisons import Comparison
from tunevlseg_jax.reporting.figures import style
from tunevlseg_jax.reporting.figures.style import Picture

SPREAD = 0.12
"""How far dots are spread beside their method's place, so that equal ones don't hide one another."""
MOST_METHODS = 12
MOST_LEVEL = 6
"""Methods whose names fit beside each other; those of more are upright."""
LEAST_SPREAD = 1e-9


@style.styled
def cases(name: str, each: Comparison) -> Picture:
    """The methods of a data set with their units, the best first.

    Args:
      name: of the figure's files.
      each: of a data set.
    """
    order = np.argsort(-each.scores.mean(1), kind="stable")[:MOST_METHODS]
    crowded = len(order) > MOST_LEVEL
    figure, (ax,) = style.grid(1, 1, 3.6 if crowded else 2.8)
    shift = np.random.default_rng(0).uniform(-SPREAD, SPREAD, each.units)
    x = np.arange(len(order))[:, None] + shift
    shown = each.scores[order]
    ax.plot(x, shown, color=style.INK, linewidth=0.4, alpha=min(0.25, 8 / each.units), zorder=1)
    for place, number in enumerate(order):
        colour, _ = style.look(each.keys[number].combination)
        _violin(ax, place, shown[place], colour)
        ax.scatter(x[place], shown[place], s=6, color=colour, alpha=0.7, zorder=2)
        ax.plot([place - 0.25, place + 0.25], [shown[place].mean()] * 2, color=style.INK, linewidth=1.5, zorder=3)
    labels = [style.two_lines(each.names[number]) for number in order]
    ax.set_xticks(range(len(order)), labels, fontsize=6.5, rotation=90 if crowded else 0)
    ax.set(xlim=(-0.6, len(order) - 0.4), ylim=(-0.03, 1.03), ylabel="test Dice")
    caption = (
        f"Each dot is the mean test Dice of one of the {each.units} independent units ({len(each.ids)} records) of"
        f" {each.data}, over a method's seeds; thin lines join the same unit, violins show the density, bars the means."
    )
    if left := len(each.keys) - len(order):
        caption += f" The {left} methods with the lowest means are left out."
    return Picture(name, f"Cases, {each.data}", caption, figure, [each.keys[number] for number in order])


def _violin(ax: Axes, place: int, values: np.ndarray, colour: str) -> None:
    if np.ptp(values) <= LEAST_SPREAD:  # no density where all are equal
        return
    parts: Any = ax.violinplot(values, [place], widths=0.85, showextrema=False)
    for body in parts["bodies"]:
        body.set(facecolor=colour, alpha=0.2, zorder=0)
