"""Layouts of images and masks: found in a source's folders, or proposed if a pattern doesn't fit."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from itertools import product
from pathlib import PurePosixPath
from typing import NamedTuple

from tunevlseg_jax.data.builders import folder_splits
from tunevlseg_jax.data.builders.archives import SourceFiles
from tunevlseg_jax.data.builders.folder_splits import MASK_WORDS
from tunevlseg_jax.data.images import SUFFIXES
from tunevlseg_jax.runtime.errors import UserError

PLAIN = ("images/{name}", "masks/{name}")
MASK_ENDS = (
    "_mask",
    "_masks",
    "_segmentation",
    "_seg",
    "_label",
    "_labels",
    "_gt",
    "_groundtruth",
    "-mask",
    ".mask",
    "_anno",
    "_annotation",
    "_L",
)
IMAGE_ENDS = ("_0000", "_image", "_img")
"""Ends of images' names; the first is nnU-Net's first channel."""
MEDICAL = {"volumes": (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd"), "dicom": (".dcm", ".dicom", ".ima")}
"""The ends of medical files, by the command that reads them."""
MOST_FOLDERS = 40
"""In larger trees, such as a folder for each patient, no layout is sought."""


class Layout(NamedTuple):
    """Patterns of images and masks, and the number of images that have a mask by them."""

    images: str
    masks: str
    pairs: int


def best(source: SourceFiles) -> Layout | None:
    """The layout by which most images have a mask, or None."""
    stems: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for name in source.names:
        path = PurePosixPath(name)
        if path.suffix.lower() in SUFFIXES:
            folder = name.rpartition("/")[0]
            stems[folder_splits.abstract(folder)].add((_split(folder), path.stem))
    if len(stems) > MOST_FOLDERS:
        return None
    found = [layout for images, masks in product(stems, repeat=2) for layout in _layouts(images, masks, stems)]
    return max(found, key=lambda layout: layout.pairs, default=None)


def no_images(source: SourceFiles, pattern: str) -> UserError:
    """The error of a pattern that no image fits: the files that are there, and the layout that would fit."""
    layout = best(source)
    hint = ""
    if layout is not None:
        hint = f'; --images "{layout.images}" --masks "{layout.masks}" fits {layout.pairs} images'
    elif {name.rpartition("/")[0] for name in source.names} == {""}:
        hint = "; give the folder that holds images and masks, or --images and --masks with {name}"
    return UserError(f"{source} has no image that fits the pattern {pattern!r}: {_held(source)}{hint}", "no-images")


def _layouts(images: str, masks: str, stems: dict[str, set[tuple[str, str]]]) -> Iterator[Layout]:
    """The layouts with images in one folder and masks in another, or in the same under other names."""
    if images != masks and (_has(images, MASK_WORDS) or not _has(masks, MASK_WORDS)):
        return
    ends = [("", end) for end in ("", *MASK_ENDS)] + [(end, "") for end in IMAGE_ENDS]
    if images == masks:
        ends = [(image, mask) for image in ("", *IMAGE_ENDS) for mask in MASK_ENDS]
    for image, mask in ends:
        named = {
            (split, stem.removesuffix(image))
            for split, stem in stems[images]
            if stem.endswith(image) and (images != masks or not stem.endswith(mask))
        }
        pairs = sum((split, name + mask) in stems[masks] for split, name in named)
        if pairs:
            yield Layout(_pattern(images, image), _pattern(masks, mask), pairs)


def _pattern(folder: str, end: str) -> str:
    return f"{folder}/{{name}}{end}".removeprefix("/")


def _split(folder: str) -> str:
    return next((split for part in folder.split("/") if (split := folder_splits.split_of(part))), "")


def _has(folder: str, words: Iterable[str]) -> bool:
    return bool({word.lower() for part in folder.split("/") for word in folder_splits.words_of(part)} & set(words))


def _held(source: SourceFiles) -> str:
    """The files of a source by suffix, and the folders with most of them."""
    if not source.names:
        return "it has no files"
    suffixes = Counter(PurePosixPath(name).suffix.lower() or "no suffix" for name in source.names)
    folders = Counter(name.rpartition("/")[0] or "." for name in source.names)
    kinds = ", ".join(f"{count} {suffix}" for suffix, count in suffixes.most_common(4))
    places = ", ".join(f"{folder} ({count})" for folder, count in sorted(folders.most_common(4)))
    readable = "" if set(suffixes) & set(SUFFIXES) else f"; images are {', '.join(SUFFIXES)}"
    if source.unread:
        readable = "; unpack the archives first"
    for command, ends in MEDICAL.items():
        if any(name.lower().endswith(ends) for name in source.names):
            readable = f"; prepare {command} reads medical files"
    return f"it has {kinds} in {places}{readable}"
