"""A folder for each image, as in the Data Science Bowl 2018: a/images/a.png, and a/masks/*.png with an object each."""

from collections.abc import Sequence
from pathlib import PurePosixPath

from tunevlseg_jax.data.builders.archives import SourceFiles
from tunevlseg_jax.data.builders.matching import SUFFIX
from tunevlseg_jax.data.builders.user_files import ImageFiles, Mask


def documents(source: SourceFiles) -> dict[str, list[str]]:
    """The masks of each image that lies in a folder of its own name; none if no image has any."""
    masks: dict[str, list[str]] = {}
    for name, _ in source.find(rf"masks/[^/]+{SUFFIX}"):
        masks.setdefault(name.rpartition("/masks/")[0], []).append(name)
    images = {
        name: masks.get(name[: match.start(1)] + match[1], [])
        for name, match in source.find(rf"([^/]+)/images/\1{SUFFIX}")
    }
    return images if any(images.values()) else {}


def read(documents: dict[str, list[str]], prompts: Sequence[str]) -> tuple[list[ImageFiles], list[str]]:
    """The images, and those left out as they have no folder of masks, as in stage1_test."""
    files = [
        ImageFiles(
            PurePosixPath(image).stem,
            image,
            tuple(Mask(mask, prompts[0], tuple(prompts)) for mask in masks),
        )
        for image, masks in documents.items()
        if masks
    ]
    return files, [image for image, masks in documents.items() if not masks]
