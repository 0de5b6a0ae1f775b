"""How a prepared set's source files became its 8-bit images: kept in the set and in the card of each run on it."""

import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tunevlseg_jax.data.windows import Window
from tunevlseg_jax.runtime import schema
from tunevlseg_jax.runtime.errors import UserError, nearest
from tunevlseg_jax.runtime.files import read_json, write_json

PREPROCESSING_FILE = "preprocessing.json"
"""In the folder of a prepared set; sets of earlier versions lack it."""
CARD_KEY = "preprocessing"
Axis = Literal["axial", "coronal", "sagittal"]
AXES: tuple[Axis, ...] = typing.get_args(Axis)


@dataclass(frozen=True)
class Preprocessing:
    """How the files of a set were read. `predict` reads other files in the same way.

    Attributes:
      window: of images of more than 8 bits; None if the set has none and no window was given.
      axis: the slices of volumes; None if the set isn't made from volumes.
    """

    window: Window | None = schema.added(None)
    axis: Axis | None = schema.added(None)


AS_THEY_ARE = Preprocessing()
"""Images of 8 bits, read as they are."""


def checked_axis(axis: Axis | None) -> Axis | None:
    """The axis; raises a UserError if there is none of this name."""
    if axis is not None and axis not in AXES:
        raise UserError(
            f"axis must be {', '.join(AXES)} or None, got {axis!r}{nearest(str(axis), AXES)}", "unknown-choice"
        )
    return axis


def write(folder: Path, preprocessing: Preprocessing) -> None:
    """Writes the file of a prepared set's folder."""
    write_json(folder / PREPROCESSING_FILE, schema.to_json(preprocessing))


def read(folder: Path) -> Preprocessing:
    """How the set in a folder was made.

    Raises:
      UserError: the file is broken.
    """
    path = folder / PREPROCESSING_FILE
    return from_json(read_json(path), str(path)) if path.exists() else AS_THEY_ARE


def of_card(card: Mapping[str, Any], where: str) -> Preprocessing:
    """The preprocessing in a run's card; cards of earlier versions have none.

    Raises:
      UserError: it has another form.
    """
    return from_json(card[CARD_KEY], where) if card.get(CARD_KEY) else AS_THEY_ARE


def from_json(value: Any, where: str) -> Preprocessing:
    """The inverse of `schema.to_json`."""
    return schema.from_json(Preprocessing, value, where)
