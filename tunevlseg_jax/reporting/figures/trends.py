"""Dice of every trial against one of its hyperparameters, with a line through them (the paper's Figures 6 and 7)."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from scipy import stats

from tunevlseg_jax.reporting.cells import Key, RowKey
from tunevlseg_jax.reporting.figures import style
from tunevlseg_jax.reporting.figures.style import Picture
from tunevlseg_jax.reporting.headings import ordered
from tunevlseg_jax.reporting.runs import Run
from tunevlseg_jax.runtime import schema

SPREAD = 0.3
"""The width, in blocks, over which the points of data sets are spread so that they don't hide one another."""


class Axis(NamedTuple):
    """A hyperparameter to draw against: a field of the configuration, its label with its unit, and whether the axis and
    the fitted line are in its decimal logarithm."""

    field: str
    label: str
    logarithmic: bool

    @property
    def title(self) -> str:
        """The figure's title."""
        return f"Dice against {self.label.partition(' (')[0]}"


AXES = (
    Axis("learner.depth", "prompt depth (blocks)", False),
    Axis("optim.learning_rate", "learning rate", True),
    Axis("optim.weight_decay", "weight decay", True),
)


class Point(NamedTuple):
    """A trial: its data set, the hyperparameter (its logarithm on a logarithmic axis), and its Dice."""

    data: str
    x: float
    dice: float


def fit(x: np.ndarray, y: np.ndarray) -> Any:
    """The least-squares line through points, with `slope`, `intercept` and `rvalue`, their correlation; None where all
    x, or all y, are equal, or there are fewer than three points."""
    return None if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0 else stats.linregress(x, y)


def within(points: Sequence[Point]) -> Any:
    """The line after each data set's means are subtracted, which removes differences in difficulty between sets."""
    sets = defaultdict(list)
    for point in points:
        sets[point.data].append((point.x, point.dice))
    centred = np.concatenate([np.asarray(values) - np.mean(values, axis=0) for values in sets.values()])
    return fit(*centred.round(12).T)


@style.styled
def trend(axis: Axis, trials: Sequence[tuple[Key, Run]]) -> Picture | None:
    """A panel for each model and learner whose trials vary in the axis's field; None where no learner's do.

    Args:
      axis: what to draw against.
      trials: of any studies, each with its cell, in the order of the tables; all count, not only the best.
    """
    split = "test" if all("test" in run.scores for _, run in trials) else "val"
    panels = {row: points for row, points in _panels(axis, trials, split).items() if len({p.x for p in points}) > 1}
    if not panels:
        return None
    figure, axes = style.grid(len(panels), 4, 1.8, sharex=True, sharey=True)
    sets = ordered({point.data for points in panels.values() for point in points})
    names = style.names(panels)
    for ax, (row, points) in zip(axes, panels.items(), strict=True):
        details = _draw(ax, axis, row.combination, points, sets)
        style.headline(ax, *names[row], details)
    figure.supxlabel(axis.label, fontsize=8)
    figure.supylabel(f"{'test' if split == 'test' else 'validation'} Dice", fontsize=8)
    cells = {Key(*row, point.data) for row, points in panels.items() for point in points}
    return Picture(axis.field.rpartition(".")[2], axis.title, _caption(axis, panels, sets, split), figure, cells)


def _panels(axis: Axis, trials: Sequence[tuple[Key, Run]], split: str) -> dict[RowKey, list[Point]]:
    """The points of each row of the tables."""
    panels: dict[RowKey, list[Point]] = defaultdict(list)
    for key, run in trials:
        value = schema.flat(schema.to_json(run.config)).get(axis.field)
        if value is None or (axis.logarithmic and value <= 0):
            continue
        x = float(np.log10(value)) if axis.logarithmic else float(value)
        panels[key.row].append(Point(key.data, x, run.scores[split]["dice"]))
    return panels


def _draw(ax: Axes, axis: Axis, combination: str, points: Sequence[Point], sets: Sequence[str]) -> str:
    """Points and line of one panel; returns how many, and R²."""
    x, y = np.asarray([(point.x, point.dice) for point in points]).T
    shift = np.zeros(len(points))
    if not axis.logarithmic and len(sets) > 1:
        shift = np.asarray([sets.index(point.data) / (len(sets) - 1) - 0.5 for point in points]) * SPREAD
    shown = 10**x if axis.logarithmic else x + shift
    colour, marker = style.look(combination)
    ax.scatter(shown, y, s=11, color=colour, marker=marker, alpha=0.75)
    line = fit(x, y)
    details = [f"n {len(points)}"]
    if line is not None:
        ends = np.asarray([x.min(), x.max()])
        fitted = line.slope * ends + line.intercept
        ax.plot(10**ends if axis.logarithmic else ends, fitted, color=colour)
        details.append(f"R² {line.rvalue**2:.2f}")
    inside = within(points)
    if inside is not None and len({point.data for point in points}) > 1:
        details.append(f"within sets {inside.rvalue**2:.2f}")
    if axis.logarithmic:
        style.logarithmic(ax)
    else:
        ax.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    return ", ".join(details)


def _caption(axis: Axis, panels: Mapping[RowKey, Sequence[Point]], sets: Sequence[str], split: str) -> str:
    count = sum(len(points) for points in panels.values())
    scale = "its decimal logarithm" if axis.logarithmic else "it"
    sentences = [f"A point is one of {count} trials on {', '.join(sets)}."]
    sentences.append(f"Line and R²: least squares of Dice on {scale} over all points of a panel")
    sentences[-1] += "; within sets: the same with each data set's means subtracted." if len(sets) > 1 else "."
    if split == "val":
        sentences.append("Validation Dice of the best epoch, by which it was chosen: not every trial has a test score.")
    else:
        sentences.append("Test Dice of the epoch that is best by validation Dice, from the trials' cards.")
    return " ".join(sentences)
