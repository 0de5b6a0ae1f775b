"""Annotation files of github.com/naamiinepal/medvlsm: the splits and prompts of the paper's eight medical sets."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from tunevlseg_jax.runtime.errors import UserError
from tunevlseg_jax.runtime.files import read_json


@dataclass(frozen=True)
class Annotation:
    """One record of an annotation file.

    Attributes:
      image: file name.
      mask: file name, in `masks/`.
      prompts: phrasings by level, from "p0", "p1", ...
    """

    image: str
    mask: str
    prompts: Mapping[int, tuple[str, ...]]


def read(path: Path) -> list[Annotation]:
    """The records of a file such as anns/train.json.

    Raises:
      UserError: the file doesn't exist or isn't an annotation file; the message names the record.
    """
    return _annotations(read_json(path), str(path))


def parse(data: bytes, name: str) -> list[Annotation]:
    """The records in the content of a file of this name.

    Raises:
      UserError: it isn't an annotation file; the message names the record.
    """
    try:
        rows = json.loads(data)
    except ValueError as error:
        raise UserError(f"can't read {name}: {error}", "unreadable") from error
    return _annotations(rows, name)


def by_image(rows: Iterable[Annotation]) -> dict[str, list[Annotation]]:
    """The records of each image, by its name without the suffix, in their order."""
    images: dict[str, list[Annotation]] = {}
    for row in rows:
        images.setdefault(stem(row.image), []).append(row)
    return images


def unique_ids(rows: Iterable[Annotation]) -> Iterator[tuple[str, Annotation]]:
    """(id, record) of an image's records; the id is the mask's name, numbered where the paper's splits repeat a row."""
    times = Counter[str]()
    for row in rows:
        name = stem(row.mask)
        times[name] += 1
        yield (name if times[name] == 1 else f"{name}#{times[name]}"), row


def stem(name: str) -> str:
    """A path without its suffix."""
    return str(PurePosixPath(name).with_suffix(""))


def _annotations(rows: Any, name: str) -> list[Annotation]:
    if not isinstance(rows, list) or not rows:
        raise UserError(f"{name} must be a list of records, and not empty", "wrong-json")
    return [_annotation(row, f"record {number} of {name}") for number, row in enumerate(rows, 1)]


def _annotation(row: Any, where: str) -> Annotation:
    if not isinstance(row, dict):
        raise UserError(f"{where} must be a JSON object", "wrong-json")
    for field, kind in (("img_name", str), ("mask_name", str), ("prompts", dict)):
        if not isinstance(row.get(field), kind):
            raise UserError(f"{where} lacks {field}, or it has another type", "missing-field")
    prompts = {}
    for level, texts in row["prompts"].items():
        phrasings = [texts] if isinstance(texts, str) else texts
        number = re.fullmatch(r"p(\d+)", level)
        if not number or not isinstance(phrasings, list) or not all(isinstance(text, str) for text in phrasings):
            raise UserError(f"{where} has prompts {level!r}; give p0, p1, ..., texts or lists", "wrong-prompts")
        if phrasings:
            prompts[int(number[1])] = tuple(phrasings)
    return Annotation(row["img_name"], row["mask_name"], prompts)
