"""The user's own images and masks, as a data set."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, NamedTuple

import numpy as np

from tunevlseg_jax.data import mask_files
from tunevlseg_jax.data.builders import folder_splits, split_lists
from tunevlseg_jax.data.builders.archives import SourceFiles
from tunevlseg_jax.data.builders.items import BinaryMask, Content, Item, binary_masks, class_map
from tunevlseg_jax.data.builders.roboflow import group_of
from tunevlseg_jax.data.builders.tables import Classes
from tunevlseg_jax.data.examples import LEVEL, SPLITS, VOID
from tunevlseg_jax.data.mask_values import BinaryRule
from tunevlseg_jax.data.seen_encodings import SeenEncodings
from tunevlseg_jax.runtime.errors import UserError

Encoding = Literal["binary", "palette", "colour"]
Instances = Literal["join", "refuse"]
"""What becomes of several masks of one class in an image."""
Negatives = Literal["drop", "keep"]
"""Whether an image with none of the classes has an empty mask of each."""

Size = tuple[int, int]
"""Height and width."""
Draw = Callable[[Size], np.ndarray]
"""(height, width) bool of a shape in an image of a size."""

DRAWN = "drawn by --fractions and --seed"


class Mask(NamedTuple):
    """A binary mask of a class of an image: the file, the class's name, and how to ask for it.

    A shape that an annotation tool stored has `draw`, and `file` is its place in the tool's file.
    """

    file: str
    label: str
    prompts: tuple[str, ...]
    draw: Draw | None = None


@dataclass(frozen=True)
class ImageFiles:
    """An image and its masks, not read yet.

    Attributes:
      id: the image's name.
      image: file in the source.
      masks: binary masks; those of one class are joined.
      group: patient or video sequence, "" where unknown.
      split: train, val or test, "" where unknown.
    """

    id: str
    image: str
    masks: tuple[Mask, ...]
    group: str = ""
    split: str = ""


SplitChoice = Literal["source", "random"]
"""Whether the source's splits are taken, or all are drawn."""
Load = Callable[[SourceFiles, ImageFiles], Content]
"""Reads an image and its masks."""


def with_splits(files: Sequence[ImageFiles], choice: SplitChoice, source: SourceFiles) -> tuple[str, list[ImageFiles]]:
    """A line on the splits, and the images with the splits that `choice` gives them.

    Images without any split get the one that the names of their folders tell, or those of several sources; else that
    of lists such as train.txt; else that of their own names. Roboflow's augmented copies of an image are a group,
    unless the source names groups.

    Raises:
      UserError: as in `folder_splits.of_files` and `split_lists.of_images`.
    """
    if not any(image.group for image in files):
        files = [replace(image, group=group_of(image.image)) for image in files]
    if choice == "random":
        times = Counter(image.id for image in files)
        images = [
            replace(image, split="", id=f"{image.split}/{image.id}" if times[image.id] > 1 else image.id)
            for image in files
        ]
        return DRAWN, images
    how, splits = ("the source says", {}) if any(image.split for image in files) else _told(files, source)
    images = [replace(image, split=splits.get(image.image, image.split)) for image in files]
    names = [split for split in SPLITS if split in {image.split for image in images}]
    if not names:
        return f"{DRAWN}; the source tells none", images
    val = "; val is drawn from train" if "val" not in names and "train" in names else ""
    lacking = "".join(f"; it has no {split}" for split in ("train", "test") if split not in names)
    return f"{', '.join(names)}, as {how}{val}{lacking} (--splits random draws all)", images


def _told(files: Sequence[ImageFiles], source: SourceFiles) -> tuple[str, dict[str, str]]:
    """What tells the splits of images without any, in words, and the split of each; {} if nothing does."""
    placed = {source.placed(one.image): one for one in files}
    if of_folders := folder_splits.of_files({path: [one.group] for path, one in placed.items()}):
        return "the source says", {placed[path].image: split for path, split in of_folders.items()}
    images = [one.image for one in files]
    if (listed := split_lists.of_images(images, source)).splits:
        return f"{' and '.join(listed.files)} say", listed.splits
    return "the names of the images say", folder_splits.of_names(images)


def items(files: Sequence[ImageFiles], source: SourceFiles, load: Load) -> list[Item]:
    """The items of the images. If the images name splits but no val, val is drawn from train.

    Raises:
      UserError: some images have a split and others don't.
    """
    names = {image.split for image in files}
    if "" in names and len(names) > 1:
        first = next(image for image in files if not image.split)
        raise UserError(f"{first.image} has no split, but other images have one", "split-missing")
    train = ("train", "val") if "val" not in names else ("train",)
    allowed = {"": SPLITS, "train": train, "val": ("val",), "test": ("test",)}
    return [
        Item(image.id, partial(load, source, image), image.group, "", allowed[image.split], _classes(image))
        for image in files
    ]


def healthy(image: ImageFiles, prompts: Mapping[str, tuple[str, ...]]) -> ImageFiles:
    """The image with an empty mask of each class; `prompts` are the phrasings by class."""
    empty = partial(np.zeros, dtype=bool)
    return replace(image, masks=tuple(Mask(image.image, label, texts, empty) for label, texts in prompts.items()))


def check_instances(files: Sequence[ImageFiles]) -> None:
    """Refuses several masks of one class in an image.

    Raises:
      UserError: an image has such; the message names the files.
    """
    for image in files:
        first: dict[str, str] = {}
        for mask in image.masks:
            if mask.label in first:
                raise UserError(
                    f"{image.image} has two masks of {mask.label!r}: {first[mask.label]} and {mask.file}; "
                    "--instances join makes one mask of them",
                    "duplicate-mask",
                )
            first[mask.label] = mask.file


def _classes(image: ImageFiles) -> int:
    return max(1, len({mask.label for mask in image.masks}))


def binary(source: SourceFiles, files: ImageFiles, rule: BinaryRule, seen: SeenEncodings) -> Content:
    """An image with one binary map for each class of its masks, whose values are noted in `seen`.

    Raises:
      UserError: a file is broken, isn't binary, or has another size than its image.
    """

    def masks() -> Iterator[BinaryMask]:
        for file, label, prompts, draw in files.masks:
            pixels = draw or mask_files.object_map(source.read(file), file, rule, label=label, seen=seen)
            yield BinaryMask(file, pixels, f"{label}/{files.id}", label, {LEVEL: prompts})

    return binary_masks(source, files.image, masks())


def coded(
    source: SourceFiles, files: ImageFiles, encoding: Encoding, classes: Classes, rule: BinaryRule, negatives: Negatives
) -> Content:
    """An image with one label map, and a record for each class in it, or for every class if `negatives` are kept.

    Of `rule`, the ignored values of palette masks count.

    Raises:
      UserError: a file is broken or has another size than its image, or the map has a value or colour without a class.
    """
    if encoding == "colour":
        decode = partial(mask_files.by_colour, table={(0, 0, 0): 0} | dict(classes.colours))
    else:
        if wrong := [value for value in rule.ignored if classes.values.get(value, VOID) != VOID]:
            raise UserError(f"--ignore-value {wrong[0]} is the value of a class in --classes", "options-conflict")
        decode = partial(_by_value, numbers={0: 0} | dict(classes.values) | dict.fromkeys(rule.ignored, VOID))
    mask, *others = files.masks
    if others:
        raise UserError(f"{files.image} has two label maps: {mask.file} and {others[0].file}", "duplicate-mask")
    return class_map(source, files.id, files.image, mask.file, decode, classes.named.values(), negatives == "keep")


def _by_value(data: bytes, name: str, numbers: Mapping[int, int]) -> np.ndarray:
    """(height, width) uint8 label map of a map of other values."""
    stored, _ = mask_files.values(data, name)
    if stored.ndim != 2:
        raise UserError(f"mask {name} has colours, not one value a pixel; give --encoding colour", "mask-not-grey")
    mask_files.check_values(stored, list(numbers), name)
    table = np.zeros(max(numbers) + 1, np.uint8)
    table[list(numbers)] = list(numbers.values())
    return table[stored]
