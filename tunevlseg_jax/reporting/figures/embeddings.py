"""Maps of data sets by a frozen model: t-SNE of its vectors of images and of prompts (the paper's Figure 4)."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

from tunevlseg_jax.data import registry
from tunevlseg_jax.reporting.figures import style
from tunevlseg_jax.reporting.figures.style import Picture
from tunevlseg_jax.reporting.runs import Run
from tunevlseg_jax.runs.restore import restore
from tunevlseg_jax.training import step

IMAGES = 150
"""Of a data set, at most."""
BATCH = 32
LABELLED = 30
"""Prompts, at most, that are written beside their points."""
SEED = 0
PERPLEXITY = 30
PALETTE = (
    *("#6f5fd0", "#cc6677", "#44aa99", "#ddcc77", "#88ccee"),
    *("#882255", "#117733", "#999933", "#aa4499", "#777777"),
)
"""Of data sets: like Tol's muted colours, none of which is a learner's."""
MARKERS = "os^DvPX*<>"


class Vectors(NamedTuple):
    """A frozen model's vectors of a data set: (image, width) of images, and (phrase, width) of the distinct prompts."""

    images: np.ndarray
    phrases: Sequence[str]
    text: np.ndarray


def vectors(run: Run) -> Vectors:
    """The vectors of evenly drawn test images and of the prompts of a run's data set, by its base model.

    Raises:
      UserError: the base model or the data is no longer there.
    """
    experiment, _ = restore(run.folder)
    network, params = experiment.zero_shot()
    records = registry.load(run.config.data, "test", experiment.image_size).compact()
    rows = np.unique(np.linspace(0, len(records.images) - 1, IMAGES).round().astype(int))
    pooled = []
    for start in range(0, len(rows), BATCH):
        taken = rows[start : start + BATCH]
        images = records.images[np.pad(taken, (0, BATCH - len(taken)), mode="edge")]
        pooled.append(np.asarray(step.encode_images_step(params, images, network=network).pooled)[: len(taken)])
    text = step.encode_text_step(params, experiment.token_table(records.phrases), network=network).sentence
    return Vectors(np.concatenate(pooled).astype(np.float32), records.phrases, np.asarray(text, np.float32))


@style.styled
def embeddings(name: str, model: str, vectors: Mapping[str, Vectors]) -> Picture | None:
    """Two maps, of images and of prompts, by data set; None where there is too little to map.

    Args:
      name: of the figure's files.
      model: name of the model.
      vectors: by data set.
    """
    images = [(data, vector) for data, each in vectors.items() for vector in each.images]
    if len(images) < 4:
        return None
    by_phrase: dict[str, list[tuple[str, np.ndarray]]] = defaultdict(list)
    for data, each in vectors.items():
        for phrase, vector in zip(each.phrases, each.text, strict=True):
            by_phrase[phrase].append((data, vector))
    figure, axes = style.grid(2 if len(by_phrase) > 3 else 1, 2, 3.4)
    styles = {data: (PALETTE[n % len(PALETTE)], MARKERS[n % len(MARKERS)]) for n, data in enumerate(vectors)}
    places = tsne(np.stack([vector for _, vector in images]))
    handles = {}
    for data, (colour, marker) in styles.items():
        inside = places[[owner == data for owner, _ in images]]
        handles[data] = axes[0].scatter(*inside.T, s=9, color=colour, marker=marker, alpha=0.75)
    axes[0].set_title(f"images (n {len(images)})", loc="left", fontweight="bold")
    if len(axes) > 1:
        _draw_phrases(axes[1], by_phrase, styles)
    for ax in axes:
        style.without_axes(ax)
    style.legend(figure, handles)
    caption = (
        f"t-SNE (perplexity {PERPLEXITY} or a third of the points, seed {SEED}) of the unit-length vectors that the "
        f"frozen {model} computes for test images, at most {IMAGES} of a data set, and for the distinct prompts. Axes "
        "have no unit; distances between clusters say little."
    )
    if any(len(members) > 1 for members in by_phrase.values()):
        caption += " A prompt that several sets share is drawn in black."
    return Picture(name, f"Embeddings of {model}", caption, figure)


def tsne(vectors: np.ndarray) -> np.ndarray:
    """(point, 2) of (point, width), each brought to length 1 first; the same every time."""
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    perplexity = min(PERPLEXITY, (len(unit) - 1) / 3)
    with threadpool_limits(1):  # several threads spend longer waiting for each other, the more so on a busy machine
        return TSNE(perplexity=perplexity, init="pca", random_state=SEED).fit_transform(unit)


def _draw_phrases(
    ax: Axes, by_phrase: Mapping[str, Sequence[tuple[str, np.ndarray]]], styles: Mapping[str, tuple[str, str]]
) -> None:
    places = tsne(np.stack([members[-1][1] for members in by_phrase.values()]))
    for (phrase, members), place in zip(by_phrase.items(), places, strict=True):
        colour, marker = (style.INK, ".") if len(members) > 1 else styles[members[0][0]]
        ax.scatter(*place, s=22, color=colour, marker=marker, alpha=0.75)
        if len(by_phrase) <= LABELLED:
            ax.annotate(phrase[:24], place, (4, 3), textcoords="offset points", fontsize=6.5)
    ax.set_title(f"prompts (n {len(by_phrase)})", loc="left", fontweight="bold")
    ax.margins(0.15)
