"""YOLO's segmentation labels: data.yaml, and labels/a.txt with a class and a polygon in fractions on each line."""

import re
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from tunevlseg_jax.data.builders.annotations import shapes
from tunevlseg_jax.data.builders.annotations.image_names import ImageNames
from tunevlseg_jax.data.builders.archives import SourceFiles
from tunevlseg_jax.data.builders.matching import SUFFIX
from tunevlseg_jax.data.builders.roboflow import group_of
from tunevlseg_jax.data.builders.user_files import ImageFiles, Mask, Size
from tunevlseg_jax.data.examples import SPLITS
from tunevlseg_jax.data.images import SUFFIXES
from tunevlseg_jax.runtime.errors import UserError
from tunevlseg_jax.runtime.optional import import_yaml

OUTSIDE = 1
"""Fractions may lie this far outside of 0 to 1, and are cut off; further ones are pixels."""
SPLIT_KEYS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


class Documents(NamedTuple):
    """A set: the names of its classes by number, the file that has them, and the file's splits."""

    file: str
    names: Mapping[int, str]
    splits: Mapping[str, list[str]]


def documents(source: SourceFiles) -> Documents | None:
    """The set's data.yaml, or classes.txt or obj.names beside labels/; None if there is neither.

    Raises:
      UserError: there are several, or it is broken.
    """
    labels = any(source.find(r"labels/(?:[^/]+/)*[^/]+\.txt"))
    found = []
    for name, _ in source.find(r"[^/]+\.ya?ml"):
        keys = set(re.findall(rb"^(\w+):", source.read(name), re.MULTILINE))
        if b"names" in keys and (labels or keys & {b"train", b"val"}):
            found.append(name)
    if not found and labels:
        found = [name for name, _ in source.find(r"(?:classes\.txt|obj\.names)")]
    if len(found) > 1:
        raise UserError(f"{source} has several sets of YOLO: {', '.join(found)}; give one of them", "one-data-set")
    if not found:
        return None
    text = source.read(found[0]).decode("utf-8-sig", "replace")
    if found[0].lower().endswith((".txt", ".names")):
        return Documents(found[0], dict(enumerate(map(str.strip, text.rstrip().splitlines()))), {})
    return _yaml(found[0], text)


def check_named(source: SourceFiles) -> None:
    """Raises a UserError if a source has polygons in labels/, but no file with the names of their classes."""
    file = next((name for name, _ in source.find(r"labels/(?:[^/]+/)*[^/]+\.txt")), None)
    if file is None:
        return
    line = source.read(file).decode("utf-8", "replace").partition("\n")[0].strip()
    if re.fullmatch(r"\d+(?: +-?[\d.e+-]+ +-?[\d.e+-]+){3,}", line):
        raise UserError(
            f"{file} has polygons of YOLO, but {source} has neither data.yaml nor classes.txt with the names of their "
            "classes; add a classes.txt with a name on each line",
            "class-count",
        )


def _yaml(file: str, text: str) -> Documents:
    yaml = import_yaml(file)
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"can't read {file}: {error}", "unreadable") from error
    names: Any = content.get("names") if isinstance(content, dict) else None
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or not all(isinstance(number, int) for number in names):
        raise UserError(f"{file} must have names, a list or numbers with names, got {str(names)[:80]}", "missing-field")
    splits: dict[str, list[str]] = {}
    for key, split in SPLIT_KEYS.items():
        if given := content.get(key):
            splits.setdefault(split, []).extend(map(str, given if isinstance(given, list) else [given]))
    return Documents(file, {number: str(name) for number, name in names.items()}, splits)


def read(documents: Documents, source: SourceFiles, names: ImageNames) -> tuple[list[ImageFiles], list[str]]:
    """The images of the splits in data.yaml, or else of images/; an image without a label file has no objects.

    Without data.yaml, images without a label file are left out, and named second.

    Raises:
      UserError: a line is broken or has a box or an unknown class, a split's folder isn't there, or an image is in two.
    """
    split_by_image: dict[str, str] = {}
    for split in SPLITS:
        for given in documents.splits.get(split, ()):
            for image in _images(given, documents.file, source, names):
                if split_by_image.setdefault(image, split) != split:
                    raise UserError(
                        f"{documents.file} has {image} in {split_by_image[image]} and in {split}; leave one of them "
                        "out, and it is drawn from the other",
                        "rows-disagree",
                    )
    if not documents.splits:
        split_by_image = {name: "" for name, _ in source.find(rf"images/(?:[^/]+/)*[^/]+{SUFFIX}")}
    labels = {image: _label_file(image) for image in split_by_image}
    left_out = [image for image in labels if labels[image] not in source and not documents.splits]
    files = [
        ImageFiles(image, image, tuple(_masks(labels[image], documents, source)), group_of(image), split)
        for image, split in split_by_image.items()
        if image not in left_out
    ]
    return files, left_out


def _images(given: str, file: str, source: SourceFiles, names: ImageNames) -> list[str]:
    """The images of a folder, or of a list of images, that data.yaml names in its own or another computer's terms."""
    parts = [part for part in given.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    if given.endswith(".txt"):
        lists = [name for name in source.names if name.rpartition("/")[2] == parts[-1]]
        lines = source.read(lists[0]).decode("utf-8-sig", "replace").split("\n") if lists else []
        return [names.find(line.strip(), file, lists[0]) for line in lines if line.strip()]
    near = file.split("/")[:-1]
    for start in range(len(parts)):
        for base in (near, []):
            folder = "/".join((*base, *parts[start:])) + "/"
            inside = [name for name in source.names if name.startswith(folder) and name.lower().endswith(SUFFIXES)]
            if inside:
                return inside
    raise UserError(f"{file} names {given}, but {source} has no images there; correct or remove the line", "no-images")


def _label_file(image: str) -> str:
    """labels/a.txt for images/a.jpg."""
    folders = image.split("/")[:-1]
    if "images" in folders:
        folders[len(folders) - 1 - folders[::-1].index("images")] = "labels"
    return "/".join((*folders, PurePosixPath(image).stem + ".txt"))


def _masks(file: str, documents: Documents, source: SourceFiles) -> Iterator[Mask]:
    text = source.read(file).decode("utf-8-sig", "replace") if file in source else ""
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        where = f"line {number} of {file}"
        label, *values = line.split()
        if not label.isdigit() or int(label) not in documents.names:
            raise UserError(
                f"{where} has the class {label!r}; {documents.file} has {sorted(documents.names)}", "unknown-class"
            )
        if len(values) == 4:
            raise UserError(f"{where} has a box; export polygons (segmentation), or remove it", "mask-missing")
        points = shapes.ring(values, where)
        if points.min() < -OUTSIDE or points.max() > 1 + OUTSIDE:
            raise UserError(
                f"{where} must have fractions of the image, from 0 to 1, got {points.max()}", "out-of-range"
            )
        yield shapes.mask(where, documents.names[int(label)], partial(_scaled, where, points))


def _scaled(where: str, points: np.ndarray, size: Size) -> np.ndarray:
    return shapes.polygons(where, [points * size[::-1]])(size)
