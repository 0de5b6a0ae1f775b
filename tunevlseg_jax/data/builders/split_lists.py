"""Splits that lists of names beside the images tell: train.txt and test.txt, or split.json with both."""

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from tunevlseg_jax.data.builders.archives import SourceFiles
from tunevlseg_jax.data.builders.folder_splits import split_of
from tunevlseg_jax.data.images import SUFFIXES
from tunevlseg_jax.runtime.errors import UserError

ENDS = (".txt", ".csv", ".tsv", ".lst", ".list")
NAMING = ("image", "img", "file_name", "filename", "name", "id")
"""Keys of an entry in a JSON list that may name the image."""
MOST = 20
"""JSON files of a source; more of them annotate an image each."""
LARGEST = 32 << 20
"""Bytes of a list; larger files aren't read."""


class Told(NamedTuple):
    """The split of each image, and the files that tell it."""

    splits: dict[str, str]
    files: list[str]


class _List(NamedTuple):
    file: str
    split: str
    names: list[str]


def of_images(images: Iterable[str], source: SourceFiles) -> Told:
    """The splits of images by the source's lists, which tell a split in their name or keys; none if there are none.

    A file is such a list if at least half of its lines name images.

    Raises:
      UserError: an image is in lists of two splits, or in none although others are.
    """
    images = list(images)
    by_stem: dict[str, list[str]] = defaultdict(list)
    for image in images:
        by_stem[_stem(image)].append(image)
    found: dict[str, _List] = {}
    files: dict[str, None] = {}
    for listed in _lists(source):
        named = [image for name in listed.names if (image := _image(name, by_stem))]
        if not named or 2 * len(named) < len(listed.names):
            continue
        files[listed.file] = None
        for image in named:
            earlier = found.setdefault(image, listed)
            if earlier.split != listed.split:
                raise UserError(
                    f"{image} is of {earlier.split} in {earlier.file} and of {listed.split} in {listed.file}; leave "
                    "one of them out, or give --splits random",
                    "split-unclear",
                )
    if found and (without := [image for image in images if image not in found]):
        raise UserError(
            f"{' and '.join(files)} tell the splits of {len(found)} images, but not that of {len(without)}, such as "
            f"{without[0]}; complete the lists, or give --splits random",
            "split-missing",
        )
    return Told({image: listed.split for image, listed in found.items()}, list(files))


def _lists(source: SourceFiles) -> Iterator[_List]:
    few = sum(file.lower().endswith(".json") for file in source.names) <= MOST
    for file in source.names:
        path = PurePosixPath(file)
        end = path.suffix.lower()
        if end == ".json" and few:
            yield from _of_json(file, source)
        elif end in ENDS and (split := split_of(path.stem, strict=False)):
            lines = _text(file, source).splitlines()
            yield _List(file, split, [line.strip() for line in lines if line.strip()])


def _of_json(file: str, source: SourceFiles) -> Iterator[_List]:
    """The lists of an object such as {"train": ["a.png"], "test": [{"image": "b.png"}]}."""
    try:
        content = json.loads(_text(file, source) or "null")
    except (ValueError, RecursionError):
        return
    if not isinstance(content, Mapping):
        return
    for key, values in content.items():
        if isinstance(values, list) and (split := split_of(key)):
            yield _List(file, split, [name for value in values if (name := _named(value))])


def _named(value: Any) -> str:
    if isinstance(value, Mapping):
        value = next((value[key] for key in NAMING if key in value), "")
    return str(value)


def _text(file: str, source: SourceFiles) -> str:
    data = source.read(file)
    return data.decode("utf-8-sig", "replace") if len(data) <= LARGEST else ""


def _image(line: str, by_stem: Mapping[str, list[str]]) -> str:
    """The image that a line names, alone or in its first cell, with or without folders and suffix; else ""."""
    cells = (line, re.split(r"[,;\t]", line)[0], line.split()[0])
    for name in dict.fromkeys(cell.strip().strip("\"'").replace("\\", "/") for cell in cells):
        candidates = by_stem.get(_stem(name), ())
        exact = [image for image in candidates if f"/{image}".endswith("/" + name.removeprefix("./").lstrip("/"))]
        for chosen in (exact, candidates):
            if len(chosen) == 1:
                return chosen[0]
    return ""


def _stem(name: str) -> str:
    last = name.rpartition("/")[2]
    return next((last[: -len(end)] for end in SUFFIXES if last.lower().endswith(end)), last)
