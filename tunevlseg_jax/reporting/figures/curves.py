"""The training curves of the runs that represent cells: validation Dice after each epoch."""

from collections.abc import Mapping

import numpy as np
from matplotlib.ticker import MaxNLocator

from tunevlseg_jax.reporting.cells import Key
from tunevlseg_jax.reporting.figures import style
from tunevlseg_jax.reporting.figures.style import Picture
from tunevlseg_jax.reporting.headings import ordered, shown
from tunevlseg_jax.reporting.runs import Run


@style.styled
def curves(chosen: Mapping[Key, Run]) -> Picture | None:
    """A panel for each data set, a line for each model and combination; None where nothing was trained."""
    trained = {key: run for key, run in chosen.items() if run.curve}
    if not trained:
        return None
    sets = ordered({key.data for key in trained})
    models = sorted({key.model for key in trained})
    figure, axes = style.grid(len(sets), 4, 2.1, sharex=True, sharey=True)
    for ax, data in zip(axes, sets, strict=True):
        for key, run in ((key, run) for key, run in trained.items() if key.data == data):
            epochs = [line["epoch"] for line in run.curve]
            dice = [line["val"]["dice"] for line in run.curve]
            colour, best = style.colour(key.combination), int(np.argmax(dice))
            ax.plot(epochs, dice, color=colour, linestyle=style.dashes(models, key.model))
            ax.plot(epochs[best], dice[best], "o", color=colour, markersize=3.5)
        ax.set_title(data, loc="left", fontweight="bold")
        ax.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
        ax.label_outer()
    figure.supxlabel("epoch", fontsize=8)
    figure.supylabel("validation Dice", fontsize=8)
    line = {"linestyle": "-", "marker": "none"}
    handles = {shown(name): style.handle(name, **line) for name in dict.fromkeys(key.combination for key in trained)}
    if len(models) > 1:
        for model in models:
            look = {"color": style.INK, "marker": "none", "linestyle": style.dashes(models, model)}
            handles[model] = style.handle(model, **look)
    style.legend(figure, handles)
    caption = (
        f"{len(trained)} runs: for each model, combination and data set the configuration with the best validation "
        "Dice. The dot is the epoch whose parameters were kept. From each run's metrics.jsonl."
    )
    return Picture("curves", "Training curves", caption, figure, list(trained))
