"""What a source may say about splits and patients that isn't read: in names of folders, and in tables."""

import csv
import re
from collections.abc import Iterator, Sequence
from itertools import islice

from tunevlseg_jax.data.builders import columns, folder_splits
from tunevlseg_jax.data.builders.archives import SourceFiles
from tunevlseg_jax.data.builders.user_files import ImageFiles

TELLING = ("split", "group")
"""Columns of a manifest whose like in another table is worth a line."""
FOLDS = re.compile(rb"\s*\[\s*\{\s*\"(?:train|val)\"")
"""The start of nnU-Net's splits_final.json."""


def hints(files: Sequence[ImageFiles], images: str, masks: str, source: SourceFiles) -> list[str]:
    """Lines on folders that may be patients or videos, and on tables that tell splits or patients and aren't read.

    Args:
      files: the images, with the splits and groups that the patterns tell.
      images: pattern of the images.
      masks: pattern of the masks.
      source: the files.
    """
    folders = [] if any(one.group for one in files) else _of_folders(files, images, masks)
    return folders + list(islice(_of_tables(files, source), 3))


def _of_tables(files: Sequence[ImageFiles], source: SourceFiles) -> Iterator[str]:
    known = {"split": any(one.split for one in files), "group": any(one.group for one in files)}
    for name in source.names:
        if name.lower().endswith((".csv", ".tsv")):
            first = source.read(name).decode("utf-8-sig", "replace").partition("\n")[0][:10000]
            header = max((next(csv.reader([first], delimiter=one), []) for one in ",;\t"), key=len)
            meant = {column: other for other in header for column in TELLING if columns.is_like(other, column)}
            for column, other in meant.items():
                if not known[column]:
                    yield (
                        f"note: {name} has the column {other.strip()!r}, which isn't read; a --manifest has a column "
                        f"{column} for it"
                    )
        elif name.lower().endswith("splits_final.json") and FOLDS.match(source.read(name)):
            yield f"note: {name} has folds, which aren't read; --folds makes such"


def _of_folders(files: Sequence[ImageFiles], images: str, masks: str) -> list[str]:
    depth = images.count("/") + 1
    folders = dict.fromkeys(one.image.split("/")[:-depth][-1] for one in files if one.image.count("/") >= depth)
    folders = [name for name in folders if not folder_splits.split_of(name, strict=False)]
    if len(folders) < 2 or "*" in images + masks:
        return []
    return [
        f"note: the images lie in {len(folders)} folders, such as {' and '.join(islice(folders, 2))}; if these are "
        "patients or videos, of which none may be in two splits, give "
        f'--images "{{group}}/{images}" --masks "{{group}}/{masks}"'
    ]
