"""Names of a table's columns: known in any case, and unknown ones refused with the nearest name."""

import re
from collections.abc import Iterable, Sequence

from tunevlseg_jax.runtime.errors import UserError, nearest

SPELLINGS = {"color": "colour", "pixel_value": "value"}
"""Other names that are read; the second is Roboflow's."""
MEANINGS = {
    "image": (
        "img",
        "images",
        "file",
        "filename",
        "file_name",
        "path",
        "image_path",
        "image_file",
        "img_name",
        "photo",
    ),
    "mask": ("masks", "mask_path", "mask_file", "mask_name", "annotation", "segmentation", "ground_truth", "gt", "seg"),
    "prompt": ("prompts", "text", "phrase", "phrases", "caption", "sentence", "expression", "description", "query"),
    "split": ("subset", "set", "partition", "phase", "fold", "dataset", "usage", "splits"),
    "class": ("label", "labels", "category", "classes", "class_name", "name", "object", "structure"),
    "group": ("patient", "patient_id", "case", "case_id", "subject", "subject_id", "video", "sequence", "study", "id"),
    "value": ("index", "id", "number", "grey", "gray", "label_id", "class_id", "pixel"),
    "colour": ("rgb", "hex", "r", "g", "b", "red", "green", "blue", "color_hex"),
}
"""Other names for the known columns. They are proposed and not read, since they often hold something else."""

VAGUE = ("id", "set", "case", "dataset", "phase", "usage", "study", "sequence")
"""Such names that often hold something else in a table that wasn't written for this package."""


def known(names: Sequence[str], columns: Iterable[str], where: str) -> list[str]:
    """The columns of these names, "" for a name that is blank or that a spreadsheet or pandas gives to an unnamed one.

    Args:
      names: as the file writes them; case, blanks and hyphens don't matter.
      columns: the known columns.
      where: the file, for error messages.

    Raises:
      UserError: a name is unknown or there twice.
    """
    columns = tuple(columns)
    found: list[str] = []
    for name in names:
        column = _plain(name)
        column = SPELLINGS.get(column, column)
        if column and column not in columns:
            raise UserError(
                f"{where} has the column {name.strip()!r}{_proposal(column, columns)} (rename it or leave it out)",
                "unknown-column",
            )
        if column and column in found:
            raise UserError(f"{where} has the column {column!r} twice; leave one out", "repeated-column")
        found.append(column)
    return found


def count(names: Iterable[str], columns: Iterable[str]) -> int:
    """How many of these names are known."""
    return len({SPELLINGS.get(_plain(name), _plain(name)) for name in names} & set(columns))


def _plain(name: str) -> str:
    plain = re.sub(r"[\s_-]+", "_", name.strip().strip("\ufeff").lower())
    return "" if re.fullmatch(r"unnamed:_\d+", plain) else plain


def is_like(name: str, column: str) -> bool:
    """Whether a name is a column's, or another for it such as subset or patient_id; id and set alone say nothing."""
    plain = _plain(name).replace("_", "")
    return plain in {other.replace("_", "") for other in (column, *MEANINGS[column]) if other not in VAGUE}


def renames(names: Iterable[str], column: str) -> str:
    """The end of a message about a missing column: the name that probably means it, if one does."""
    meant = [name for name in names if _means(_plain(name), column)]
    return f"; rename {meant[0]!r} to {column!r}" if meant else ""


def _proposal(name: str, columns: Sequence[str]) -> str:
    """The end of the message: the column that the name means or resembles."""
    meant = [column for column in columns if name in MEANINGS[column]]
    meant = meant or [column for column in columns if _means(name, column)]
    return nearest(meant[0], meant[:1]) if meant else nearest(name, columns)


def _means(name: str, column: str) -> bool:
    """Whether a name, or a word that it begins with or holds, is another one for a column."""
    return any(
        other == name or other in name.split("_") or (len(other) > 3 and name.startswith(other))
        for other in (column, *MEANINGS[column])
    )
