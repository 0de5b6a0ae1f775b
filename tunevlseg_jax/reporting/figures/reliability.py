"""Reliability diagrams: how often pixels of each probability are true, and how many pixels there are of each."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from tunevlseg_jax.evaluation.calibration import BINS
from tunevlseg_jax.reporting.figures import style
from tunevlseg_jax.reporting.figures.style import Picture
from tunevlseg_jax.reporting.headings import ordered, shown
from tunevlseg_jax.reporting.reliability import Method
from tunevlseg_jax.reporting.reliability_bins import Bins

FEWEST_PIXELS = 100
"""Bins with fewer pixels have no dot."""
SHARES = (1e-5, 1.5)
"""Limits of the axis of pixels' shares."""


@style.styled
def reliability(name: str, model: str, methods: Sequence[Method]) -> Picture:
    """A panel for each data set with a line for each method, and one beside it for calibrated probabilities.

    Args:
      name: of the figure's files.
      model: of the methods.
      methods: without ablations.
    """
    sets = ordered({method.key.data for method in methods})
    calibrated = any(method.calibrated for method in methods)
    panels = [(data, kind) for data in sets for kind in (("as trained", "calibrated") if calibrated else ("",))]
    columns = 2 if calibrated else min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure, axes = style.grid(
        2 * rows * columns, columns, 1.6, sharex=True, gridspec_kw={"height_ratios": [3, 1] * rows}
    )
    handles = {}
    for place in range(rows * columns):
        row, column = divmod(place, columns)
        above, below = (axes[(2 * row + part) * columns + column] for part in range(2))
        if place >= len(panels):
            above.remove()
            below.remove()
            continue
        data, kind = panels[place]
        here = [method for method in methods if method.key.data == data]
        for method in here:
            bins = method.calibrated if kind == "calibrated" else method.trained
            if bins is not None:
                handles[shown(method.key.combination)] = _draw(above, below, method.key.combination, bins)
        _finish(above, below, first=not column)
        style.headline(above, data, ", ".join(filter(None, (kind, f"{here[0].records} records"))))
    figure.supxlabel("probability", fontsize=8)
    style.legend(figure, handles)
    records = {method.key.data: method.records for method in methods}
    caption = (
        f"Whether probabilities are right: each dot is one of {BINS} bins of the probability, with the share of its"
        f" pixels that are true, over all test records of a method's runs on {model}, at the model's size. On the"
        " diagonal probabilities are right; below it they are too high, above it too low. The lower panels show the"
        f" share of all pixels that are in each bin. A bin with fewer than {FEWEST_PIXELS} pixels has no dot."
        " Test records: " + ", ".join(f"{records[data]} ({data})" for data in sets) + "."
    )
    if calibrated:
        caption += " Calibrated: with the temperature that evaluate --calibrate fitted on the validation split."
    return Picture(name, f"Reliability of pixels, {model}", caption, figure, [method.key for method in methods])


def _draw(above: Axes, below: Axes, combination: str, bins: Bins) -> Line2D:
    """A method's line of a panel."""
    there = bins.pixels >= FEWEST_PIXELS
    handle = style.handle(combination, linestyle="-", linewidth=1, markersize=3)
    handle.set_data(bins.probability[there], bins.true[there])
    above.add_line(handle)
    shares = np.where(there, bins.pixels / bins.pixels.sum(), np.nan)
    middle = (np.arange(BINS) + 0.5) / BINS
    below.plot(middle, shares, color=handle.get_color(), linewidth=0.8, drawstyle="steps-mid")
    return handle


def _finish(above: Axes, below: Axes, *, first: bool) -> None:
    """The diagonal and the axes of a panel; the first of a row has their names."""
    above.plot([0, 1], [0, 1], color=style.INK, linewidth=0.8, linestyle=":", zorder=0)
    above.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    below.set(yscale="log", ylim=SHARES, yticks=[1e-4, 1e-2, 1])
    below.yaxis.set_major_formatter(FuncFormatter(lambda value, position: f"{100 * value:g} %"))
    below.minorticks_off()
    if first:
        above.set_ylabel("share of true pixels")
        below.set_ylabel("pixels")
