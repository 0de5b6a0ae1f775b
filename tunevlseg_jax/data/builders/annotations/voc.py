"""Pascal VOC's folders with a table of classes, as CVAT ("Segmentation mask 1.1") and labelme2voc write them."""

import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import NamedTuple

from tunevlseg_jax.data.builders import voc2012
from tunevlseg_jax.data.builders.archives import SourceFiles
from tunevlseg_jax.data.builders.folder_splits import SPLIT_NAMES
from tunevlseg_jax.data.builders.roboflow import group_of
from tunevlseg_jax.data.builders.tables import BACKGROUND, VOID_NAME, Class, Classes
from tunevlseg_jax.data.builders.user_files import Encoding, ImageFiles, Mask
from tunevlseg_jax.data.examples import VOID
from tunevlseg_jax.data.images import SUFFIXES
from tunevlseg_jax.data.mask_files import Colour
from tunevlseg_jax.runtime.errors import UserError

MASKS = r"(?P<root>(?:.*/)?)SegmentationClass(?:PNG)?/(?P<key>.+)\.png"
NUMBERS = {BACKGROUND: 0, "_background_": 0, VOID_NAME: VOID, "__ignore__": VOID}
TABLES = ("labelmap.txt", "class_names.txt", "labels.txt")


class Documents(NamedTuple):
    """The root folder, with a "/" at its end, and the masks by the image's name."""

    root: str
    masks: dict[str, str]


def documents(source: SourceFiles) -> Documents | None:
    """The folder with SegmentationClass/, or None.

    Raises:
      UserError: there are several.
    """
    masks: dict[str, dict[str, str]] = {}
    for name in source.names:
        if match := re.fullmatch(MASKS, name):
            masks.setdefault(match["root"], {})[match["key"]] = name
    if len(masks) > 1:
        raise UserError(f"{source} has several SegmentationClass, in {', '.join(masks)}; give one", "one-data-set")
    return Documents(*next(iter(masks.items()))) if masks else None


def classes(documents: Documents, source: SourceFiles) -> tuple[Encoding, Classes]:
    """How the maps are coded, and their classes: colours by labelmap.txt, or values by class_names.txt.

    Raises:
      UserError: there is no such table, or a line of it is broken.
    """
    for table in TABLES:
        if (name := documents.root + table) in source:
            lines = source.read(name).decode("utf-8-sig", "replace").splitlines()
            rows = [(number, line.strip()) for number, line in enumerate(lines, 1)]
            rows = [(number, line) for number, line in rows if line and not line.startswith("#")]
            return _colours(rows, name) if table == "labelmap.txt" else _values([line for _, line in rows])
    raise UserError(
        f"{documents.root or source} has SegmentationClass but no {' or '.join(TABLES[:2])} with the names of its "
        "classes; give --classes and --encoding palette (the official VOC 2012: prepare voc2012)",
        "missing-option",
    )


def _colours(rows: list[tuple[int, str]], name: str) -> tuple[Encoding, Classes]:
    """CVAT's labelmap.txt, whose lines are label:red,green,blue:parts:actions; without a colour VOC's own counts."""
    colours: dict[Colour, int] = {}
    named: dict[str, Class] = {}
    for place, (number, line) in enumerate(rows):
        match = re.fullmatch(r"(.+?):(?:(\d{1,3}),(\d{1,3}),(\d{1,3}))?(?::.*)?", line)
        if not match or max(map(int, match.groups("0")[1:])) > 255:
            raise UserError(f"line {number} of {name} must be label:red,green,blue::, got {line!r}", "class-value")
        red, green, blue = map(int, match.groups()[1:]) if match[2] else voc2012.colour(place)
        value = _number(match[1], named)
        if colours.setdefault((red, green, blue), value) != value:
            raise UserError(f"line {number} of {name} has the colour of an earlier class", "rows-disagree")
    return "colour", Classes(named, {}, colours)


def _values(lines: list[str]) -> tuple[Encoding, Classes]:
    """labelme2voc's class_names.txt, whose first class, _background_, has the value 0, and __ignore__ 255."""
    named: dict[str, Class] = {}
    labels = [label for label in lines if label != "__ignore__"]
    values = {value: _number(label, named) for value, label in enumerate(labels)}
    return "palette", Classes(named, {**values, VOID: VOID}, {})


def _number(label: str, named: dict[str, Class]) -> int:
    if label.lower() in NUMBERS:
        return NUMBERS[label.lower()]
    return named.setdefault(label, Class(label, (label,), len(named) + 1)).number


def read(documents: Documents, source: SourceFiles) -> tuple[list[ImageFiles], list[str]]:
    """The images of the lists in ImageSets, or all; and the names that have no mask, or a mask but no place in a list.

    Raises:
      UserError: there is no image for a mask, or two splits have the same image.
    """
    images = {_key(name, documents.root): name for name in source.names if _is_image(name)}
    stems = {key.rpartition("/")[2]: name for key, name in images.items()}
    splits = _splits(documents, source)
    files = []
    for key in splits or documents.masks:
        if key in documents.masks:
            image = images.get(key) or stems.get(key.rpartition("/")[2])
            if image is None:
                raise UserError(f"{source} has no image for {documents.masks[key]}", "image-missing")
            mask = Mask(documents.masks[key], "", ())
            files.append(ImageFiles(image, image, (mask,), group_of(image), splits.get(key, "")))
    listed = splits or documents.masks
    return files, [key for key in {**listed, **documents.masks} if key not in listed or key not in documents.masks]


def _is_image(name: str) -> bool:
    return name.lower().endswith(SUFFIXES) and not re.search(r"(?:^|/)Segmentation(?:Class|Object)", name)


def _key(image: str, root: str) -> str:
    """What the lists call an image: its path in JPEGImages without the suffix."""
    path = str(PurePosixPath(image).with_suffix("")).removeprefix(root)
    return re.sub(r"^(?:JPEGImages|images|img)/", "", path)


def _splits(documents: Documents, source: SourceFiles) -> dict[str, str]:
    """The split of each image that the lists in ImageSets name; "" in lists such as trainval.txt and default.txt."""
    found: dict[str, str] = {}
    for part in ("Segmentation", "Main"):
        lists = list(_lists(f"{documents.root}ImageSets/{part}/", source))
        for split, name in sorted(lists, key=lambda one: not one[0]):  # those of a split first
            for line in source.read(name).decode("utf-8-sig", "replace").splitlines():
                key = line.strip().strip('"')
                if key and split and found.setdefault(key, split) != split:
                    raise UserError(f"{name} has {key}, which is in {found[key]} as well", "rows-disagree")
                if key:
                    found.setdefault(key, split)
        if found:
            break
    return found


def _lists(folder: str, source: SourceFiles) -> Iterator[tuple[str, str]]:
    for name in source.names:
        if name.startswith(folder) and name.endswith(".txt") and "/" not in name.removeprefix(folder):
            yield SPLIT_NAMES.get(name.removeprefix(folder).removesuffix(".txt").lower(), ""), name
