"""Label Studio's brushes as PNG: task-1-annotation-2-by-3-tag-tumor-0.png, beside images named task-1."""

from functools import partial

import numpy as np

from tunevlseg_jax.data import mask_files
from tunevlseg_jax.data.builders.archives import SourceFiles
from tunevlseg_jax.data.builders.matching import SUFFIX
from tunevlseg_jax.data.builders.user_files import ImageFiles, Mask, Size
from tunevlseg_jax.runtime.errors import UserError

NAME = r"task-(?P<task>\d+)-annotation-(?P<annotation>\d+)-by-(?P<by>[^-]*)-(?P<tag>[^-]+)-(?P<label>.+)-\d+\.png"
HALF = 127
"""Opacity above which a pixel belongs to a brush, whose edges are soft."""


def documents(source: SourceFiles) -> dict[str, list[tuple[str, str, str]]]:
    """(file, annotation, label) of the masks by task."""
    masks: dict[str, list[tuple[str, str, str]]] = {}
    for name, match in source.find(NAME):
        masks.setdefault(match["task"], []).append((name, f"{match['annotation']} by {match['by']}", match["label"]))
    return masks


def read(documents: dict[str, list[tuple[str, str, str]]], source: SourceFiles) -> list[ImageFiles]:
    """The images, which must be named after their tasks, as a PNG export doesn't hold their names.

    Raises:
      UserError: a task has masks of several annotations, or no image.
    """
    images = {match[1]: name for name, match in source.find(rf"task-(\d+){SUFFIX}")}
    files = []
    for task, masks in documents.items():
        annotations = sorted({annotation for _, annotation, _ in masks})
        if len(annotations) > 1:
            raise UserError(
                f"task {task} has masks of several annotations, {' and '.join(annotations)}; keep those of one",
                "several-annotations",
            )
        if task not in images:
            raise UserError(
                f"{masks[0][0]} is a mask of task {task}, but {source} has no image task-{task}; a PNG export lacks "
                "the images' names: name them so, or export JSON, which has names and brushes",
                "image-missing",
            )
        drawn = tuple(Mask(file, label, (label,), partial(_opaque, source, file)) for file, _, label in masks)
        files.append(ImageFiles(images[task], images[task], drawn))
    return files


def _opaque(source: SourceFiles, file: str, _: Size) -> np.ndarray:
    return mask_files.binary(source.read(file), file, HALF)
