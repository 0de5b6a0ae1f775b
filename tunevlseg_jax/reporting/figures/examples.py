"""The best, the median and the worst test record of a data set: image, true mask and predicted masks."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb

from tunevlseg_jax.reporting.figures import style
from tunevlseg_jax.reporting.figures.style import TRUTH
from tunevlseg_jax.reporting.headings import shown
from tunevlseg_jax.reporting.pictures import Picture, Predictor

ROWS = ("best", "median", "worst")
OPACITY = 0.55
LARGEST = 1.2
"""Inches of a picture's side, at most."""
MOST = 9
"""Combinations side by side, at most, so that their heads don't touch; more have rows of their own."""


@style.styled
def examples(name: str, data: str, model: str, pictures: Sequence[Picture]) -> style.Picture:
    """A row for each of three records, a column for each combination of a model.

    Many combinations are divided among several such blocks, each with the image and the truth.

    Args:
      name: of the figure's files.
      data: name of the data set.
      model: name of the model.
      pictures: of the data set, as `pictures.predict` orders them.
    """
    shown_records = [(why, _of_kind(pictures, why)) for why in ROWS]
    columns = [who for who in pictures[0].predicted if who[0] == model]
    blocks = np.array_split(np.arange(len(columns)), -(-len(columns) // MOST))
    width = 2 + len(blocks[0])
    side = min(style.WIDTH / width, LARGEST)
    figure, axes = style.grid(len(blocks) * len(ROWS) * width, width, side + 0.18)
    figure.set_figwidth(side * width)
    cells = iter(axes)
    for block in blocks:
        for number, (why, picture) in enumerate(shown_records):
            row = [next(cells) for _ in range(width)]
            _row(row, picture, why, [columns[index] for index in block], heads=number == 0)
    caption = (
        f"{model} on the test split of {data}: the records with the highest, the median and the lowest Dice, which is "
        f"the mean over {len(pictures[0].predicted)} combinations. Numbers: the record's Dice, from the files that "
        "evaluate wrote; masks: predicted again at the model's size, threshold 0.5."
    )
    return style.Picture(name, f"Examples, {data}, {model}", caption, figure)


def _row(row: Sequence[Axes], picture: Picture, why: str, columns: Sequence[Predictor], *, heads: bool) -> None:
    """A record: its image, its truth and the mask of each combination, with their names above the first row."""
    prompt = picture.prompt if len(picture.prompt) <= 14 else f"{picture.prompt[:13]}…"
    _show(row[0], picture.image, f"{why}: {prompt}")
    _show(row[1], tinted(picture.image, picture.truth, TRUTH), "truth" if heads else "")
    for ax, who in zip(row[2:], columns, strict=False):
        image = tinted(picture.image, picture.predicted[who], style.colour(who[1]))
        dice = f"{picture.dice[who]:.2f}"
        combination = shown(who[1]).replace("-", "-\n").replace(" ", "\n")
        _show(ax, image, f"{combination}\n{dice}" if heads else dice)
    for ax in row[2 + len(columns) :]:
        ax.remove()


def tinted(image: np.ndarray, mask: np.ndarray, colour: str) -> np.ndarray:
    """(height, width, 3) uint8: the image in grey with a mask in colour."""
    grey = np.repeat(image.mean(axis=-1, keepdims=True), 3, axis=-1)
    drawn = grey * (1 - OPACITY) + np.asarray(to_rgb(colour)) * 255 * OPACITY
    return np.where(mask[..., None], drawn, grey).round().astype(np.uint8)


def _of_kind(pictures: Sequence[Picture], why: str) -> Picture:
    """The first of its kind; of the worst the last, and the middle one of those around the median."""
    same = [picture for picture in pictures if picture.why == why]
    return same[{"best": 0, "median": len(same) // 2, "worst": -1}[why]]


def _show(ax: Axes, image: np.ndarray, title: str) -> None:
    ax.imshow(image, interpolation="nearest")
    ax.set_title(title, fontsize=6.5, pad=2)
    style.without_axes(ax)
    ax.spines[:].set_visible(False)
