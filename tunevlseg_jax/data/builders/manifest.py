"""Images and masks that a manifest lists, one mask a row."""

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np

from tunevlseg_jax.data.builders import table_rows
from tunevlseg_jax.data.builders.archives import SourceFiles
from tunevlseg_jax.data.builders.folder_splits import SPLIT_NAMES
from tunevlseg_jax.data.builders.table_rows import Row
from tunevlseg_jax.data.builders.user_files import ImageFiles, Mask, Negatives
from tunevlseg_jax.runtime.errors import UserError, nearest

COLUMNS, OPTIONAL = ("image", "mask", "prompt"), ("split", "class", "group")


def find(path: Path, source: SourceFiles, negatives: Negatives = "drop") -> tuple[str, list[ImageFiles]]:
    """The manifest's name, with its encoding if that isn't UTF-8, and its images.

    A row without a mask is an error, or stands for an empty mask if `negatives` are kept.

    Raises:
      UserError: as in `table_rows.read`; a file isn't in the source, a mask is listed twice, or an image's rows have
        different splits or groups, or different prompts for one class. The message names the row.
    """
    images: dict[str, ImageFiles] = {}
    table = table_rows.read(path, COLUMNS, OPTIONAL)
    for row in table.rows:
        image, mask = _file(row, "image", source), _mask(row, source, negatives)
        prompts = row.phrasings("prompt")
        if not prompts:
            raise UserError(f"{row.where} has no prompt", "empty-prompt")
        label = row.optional("class") or prompts[0]
        group, split = row.optional("group"), _split(row)
        files = images.setdefault(image, ImageFiles(image, image, (), group, split))
        if (files.group, files.split) != (group, split):
            raise UserError(f"{row.where} has another split or group for {image} than an earlier row", "rows-disagree")
        for other in (other for other in files.masks if other.label == label):
            if other.file == mask:
                again = f"mask {mask}" if mask else "empty mask"
                raise UserError(f"{row.where} gives {image} the {label!r} {again} again", "duplicate-mask")
            if other.prompts != prompts:
                raise UserError(
                    f"{row.where} gives the class {label!r} of {image} other prompts than an earlier row; masks of "
                    "one class are joined, so give each class a name of its own in the column class",
                    "rows-disagree",
                )
        own = Mask(mask, label, prompts, None if mask else partial(np.zeros, dtype=bool))
        images[image] = ImageFiles(image, image, (*files.masks, own), group, split)
    name = str(path) if table.encoding == "UTF-8" else f"{path}, read as {table.encoding}"
    return name, list(images.values())


def _file(row: Row, column: str, source: SourceFiles) -> str:
    """The file that a row names, by its path in the source."""
    given = row.text(column)
    name = _below(given, source)
    parts = PurePosixPath(name).parts
    where = f"{row.where} names the {column} {given!r}"
    if name.startswith("/") or ".." in parts or ":" in name.partition("/")[0]:
        raise UserError(f"{where}, which is outside the source{_hint(parts, source)}", "outside-source")
    name = "/".join(parts)
    if name not in source:
        raise UserError(f"{where}, which {source} lacks{_hint(parts, source)}", "no-such-file")
    return name


def _mask(row: Row, source: SourceFiles, negatives: Negatives) -> str:
    """The mask file that a row names, or "" for an empty mask."""
    if row.optional("mask"):
        return _file(row, "mask", source)
    if negatives == "keep":
        return ""
    raise UserError(
        f"{row.where} has no value in the column 'mask'; --negatives keep takes it as an empty mask", "missing-column"
    )


def _below(name: str, source: SourceFiles) -> str:
    """A path with "/" between its parts, and below the source if it is the absolute path of a file there."""
    if Path(name).is_absolute():
        for root in source.paths:
            for place, file in ((root.absolute(), Path(name)), (root.resolve(), Path(name).resolve())):
                if file.is_relative_to(place):
                    return file.relative_to(place).as_posix()
    return name.replace("\\", "/")


def _hint(parts: Sequence[str], source: SourceFiles) -> str:
    """The end of a message about a file that the source lacks: the file that is probably meant."""
    for begin in range(1, len(parts)):
        if (tail := "/".join(parts[begin:])) in source:
            return f"; paths are relative to --source: write {tail!r}"
    stem = _stem("/".join(parts))
    other = next((name for name in source.names if stem and f"/{_stem(name)}".endswith(f"/{stem}")), None)
    return "; paths are relative to --source" if other is None else f"; did you mean {other!r}?"


def _stem(name: str) -> str:
    return re.sub(r"\.[^./]*$", "", name).lower()


def _split(row: Row) -> str:
    split = row.optional("split").lower()
    if split and split not in SPLIT_NAMES:
        raise UserError(f"{row.where} has the split {split!r}{nearest(split, SPLIT_NAMES)}", "unknown-split")
    return SPLIT_NAMES.get(split, "")
