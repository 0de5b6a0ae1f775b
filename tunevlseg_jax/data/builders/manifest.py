"""Images and masks that a manifest lists, one mask a row."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from tunevlseg_jax.data.builders import tables
from tunevlseg_jax.data.builders.archives import SourceFiles
from tunevlseg_jax.data.builders.matching import SPLIT_NAMES
from tunevlseg_jax.data.builders.own import Found, Mask
from tunevlseg_jax.data.builders.tables import Row
from tunevlseg_jax.runtime.errors import UserError, nearest

COLUMNS = ("image", "mask", "prompt")


def find(path: Path, source: SourceFiles) -> list[Found]:
    """What a manifest lists: image, mask and prompt, and where they are told split, class and group.

    Raises:
      UserError: as in `tables.rows`; a file isn't in the source, an image has two masks of one class, or its rows tell
        different splits or groups. The message names the row.
    """
    found: dict[str, Found] = {}
    for row in tables.rows(path, COLUMNS):
        image, mask = _file(row, "image", source), _file(row, "mask", source)
        prompts = row.phrasings("prompt")
        if not prompts:
            raise UserError(f"{row.where} has no prompt")
        label = row.optional("class") or prompts[0]
        group, split = row.optional("group"), _split(row)
        one = found.setdefault(image, Found(image, image, (), group, split))
        if (one.group, one.split) != (group, split):
            raise UserError(f"{row.where} tells another split or group for {image} than a row before")
        if twice := [other.file for other in one.masks if other.label == label]:
            raise UserError(f"{row.where} gives {image} a second mask of the class {label!r}, beside {twice[0]}")
        found[image] = Found(image, image, (*one.masks, Mask(mask, label, prompts)), group, split)
    return list(found.values())


def _file(row: Row, column: str, source: SourceFiles) -> str:
    name = row.text(column).replace("\\", "/")
    if name.startswith("/") or ".." in PurePosixPath(name).parts or ":" in PurePosixPath(name).parts[0]:
        raise UserError(f"{row.where} names the {column} {name!r}, which lies outside of the source; that is refused")
    name = "/".join(part for part in PurePosixPath(name).parts)
    if name not in source:
        raise UserError(f"{row.where} names the {column} {name!r}, which {source} lacks")
    return name


def _split(row: Row) -> str:
    split = row.optional("split").lower()
    if split and split not in SPLIT_NAMES:
        raise UserError(f"{row.where} has the split {split!r}{nearest(split, SPLIT_NAMES)}")
    return SPLIT_NAMES.get(split, "")
