"""Annotation files of github.com/naamiinepal/medvlsm: the splits and prompts of the paper's eight medical sets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunevlseg_jax.errors import UserError
from tunevlseg_jax.files import read_json


@dataclass(frozen=True)
class Annotation:
    """One record of an annotation file.

    Attributes:
      image: file name.
      mask: file name, in `masks/`.
      prompts: phrasings by level, of "p0", "p1", ...
    """

    image: str
    mask: str
    prompts: Mapping[int, tuple[str, ...]]


def read(path: Path) -> list[Annotation]:
    """The records of a file such as anns/train.json.

    Raises:
      UserError: there is no such file, or it holds something else; the message names the record.
    """
    rows = read_json(path)
    if not isinstance(rows, list) or not rows:
        raise UserError(f"{path} holds no list of records")
    return [_annotation(row, f"record {number} of {path}") for number, row in enumerate(rows, 1)]


def _annotation(row: Any, where: str) -> Annotation:
    if not isinstance(row, dict):
        raise UserError(f"{where} is no JSON object")
    for field, kind in (("img_name", str), ("mask_name", str), ("prompts", dict)):
        if not isinstance(row.get(field), kind):
            raise UserError(f"{where} lacks {field}")
    prompts = {}
    for level, said in row["prompts"].items():
        phrasings = [said] if isinstance(said, str) else said
        number = re.fullmatch(r"p(\d+)", level)
        if not number or not isinstance(phrasings, list) or not all(isinstance(text, str) for text in phrasings):
            raise UserError(f"{where} has prompts {level!r} that are neither a text nor a list of texts, p0, p1, ...")
        if phrasings:
            prompts[int(number[1])] = tuple(phrasings)
    return Annotation(row["img_name"], row["mask_name"], prompts)
