"""Dice on corrupted images against the strength of the corruption, and the range of Dice over paraphrases."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tunevlseg_jax.evaluation.corruptions import KINDS
from tunevlseg_jax.reporting import headings
from tunevlseg_jax.reporting.figures import style
from tunevlseg_jax.reporting.figures.style import Picture
from tunevlseg_jax.reporting.robustness import Stored

MOST_METHODS = 12
"""The most methods in a panel; more lines would hide each other."""
ROW = 0.28
"""Inches of a method."""


@style.styled
def corrupted(name: str, data: str, stored: Stored) -> Picture:
    """A panel for each corruption with a line for each method, the best on clean images first.

    Args:
      name: of the figure's files.
      data: name of the data set.
      stored: of the data set.
    """
    clean = {key: _mean(files, "clean") for key, files in stored.items()}
    keys = sorted(clean, key=lambda key: -clean[key])[:MOST_METHODS]
    models = sorted({key.model for key in keys})
    figure, axes = style.grid(len(KINDS), 3, 1.9, sharex=True, sharey=True)
    handles = {}
    for ax, kind in zip(axes, KINDS, strict=True):
        for key in keys:
            dice = np.mean([file["scores"][kind] for file in stored[key]], axis=0)
            handle = style.handle(key.combination, linestyle=style.dashes(models, key.model), markersize=3.5)
            handle.set_data(range(len(dice) + 1), [clean[key], *dice])
            ax.add_line(handle)
            handles[headings.method(key.row)] = handle
        ax.set_title(kind, loc="left", fontweight="bold")
        ax.set(xlim=(-0.3, len(KINDS[kind]) + 0.3), xticks=range(len(KINDS[kind]) + 1))
        ax.autoscale(axis="y")
    axes[0].set_ylim(bottom=0)
    figure.supxlabel("strength of the corruption (0 is the clean image)", fontsize=8)
    figure.supylabel("test Dice", fontsize=8)
    style.legend(figure, handles)
    caption = (
        f"How the test Dice of {data} falls with the strength of six corruptions: means over {_records(stored)} test"
        " records and a method's runs, at the model's size."
    )
    if left := len(stored) - len(keys):
        caption += f" The {left} methods with the lowest Dice on clean images are left out."
    return Picture(name, f"Dice on corrupted images, {data}", caption, figure, keys)


@style.styled
def phrases(stored: Stored) -> Picture | None:
    """A panel for each data set with the range of each method over paraphrases; None without any."""
    if not stored:
        return None
    sets = headings.ordered({key.data for key in stored})
    here = {
        data: sorted((key for key in stored if key.data == data), key=lambda key: -_mean(stored[key], "mean"))
        for data in sets
    }
    records = {data: _records({key: stored[key] for key in keys}) for data, keys in here.items()}
    figure, axes = style.grid(len(sets), 2, 1.1 + ROW * max(map(len, here.values())))
    for ax, data in zip(axes, sets, strict=True):
        for place, key in enumerate(here[data]):
            mean, worst, spread = (_mean(stored[key], score) for score in ("mean", "worst", "spread"))
            style.interval(ax, key.combination, place, mean, (worst, worst + spread))
        labels = [style.two_lines(headings.method(key.row)) for key in here[data]]
        ax.set_yticks(range(len(labels)), labels, fontsize=6.5)
        ax.set_ylim(len(labels) - 0.4, -0.6)
        style.headline(ax, data, f"{records[data]} records")
    figure.supxlabel("test Dice", fontsize=8)
    counts = ", ".join(f"{number} ({data})" for data, number in records.items())
    caption = (
        "How much the test Dice depends on the words of the prompt: from the worst paraphrase of a class to the best,"
        " with a mark at the mean over paraphrases, averaged over classes by their records and over a method's runs."
        f" Test records: {counts}."
    )
    return Picture("robustness_phrases", "Dice over paraphrases of the prompts", caption, figure, list(stored))


def _mean(files: Sequence[Mapping[str, Any]], score: str) -> float:
    return float(np.mean([file["means"][score] for file in files]))


def _records(stored: Stored) -> str:
    """The number of records of a data set's files."""
    given = (file.get("records") for files in stored.values() for file in files)
    numbers = {number for number in given if number is not None}
    return " or ".join(map(str, sorted(numbers))) or "an unknown number of"
