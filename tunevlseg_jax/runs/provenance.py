"""The data that a run was trained on: fingerprints of its splits and of its images, kept in its folder."""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from tunevlseg_jax.data.records import Records
from tunevlseg_jax.data.settings import Data
from tunevlseg_jax.runs.card import CARD_FILE, NON_IDENTITY_FIELDS
from tunevlseg_jax.runtime import schema
from tunevlseg_jax.runtime.errors import UserError
from tunevlseg_jax.runtime.files import read_object, write_json
from tunevlseg_jax.training.split import Split

FINGERPRINTS_FILE = "fingerprints.json"
SPLITS = ("train", "val", "test")
HEX = 16
"""Hexadecimal digits of an image's fingerprint."""


@dataclass(frozen=True)
class Provenance:
    """The data of a run.

    Attributes:
      data: the set's name as `name`, and the fingerprint of the records of each split by the split's name.
      earlier: the same of data that the run had before it went on with changed data, oldest first.
      images: fingerprints of the training images; None where they are unknown, as of earlier versions.
    """

    data: Mapping[str, str]
    earlier: tuple[Mapping[str, str], ...] = ()
    images: tuple[str, ...] | None = None

    def changed(self, now: Mapping[str, str]) -> list[str]:
        """The splits that were added, left out or changed since."""
        return [split for split in SPLITS if self.data.get(split) != now.get(split)]

    def followed_by(self, now: "Provenance") -> "Provenance":
        """The data of now, with this data among the earlier ones; an image that ever trained counts as such."""
        images = None if self.images is None or now.images is None else tuple(sorted({*self.images, *now.images}))
        return Provenance(now.data, (*self.earlier, self.data), images)


def data_fingerprints(name: str, splits: Mapping[str, Split]) -> dict[str, str]:
    """The name of a data set as `name`, and the fingerprint of the records of each split by the split's name."""
    return {"name": name} | {split_name: split.records.fingerprint() for split_name, split in splits.items()}


def of_splits(name: str, splits: Mapping[str, Split]) -> Provenance:
    """The provenance of a run that trains on these splits."""
    return Provenance(data_fingerprints(name, splits), images=tuple(sorted({*_images(splits["train"].records)})))


def read(folder: Path) -> Provenance | None:
    """The data of a run, from its folder or from its card alone; None where neither says.

    Raises:
      UserError: the file of the fingerprints or the card is broken.
    """
    path = folder / FINGERPRINTS_FILE
    if path.exists():
        stored = read_object(path)
        data, earlier, images = (stored.get(name) for name in ("data", "earlier", "images"))
        if not (_is_data(data) and isinstance(earlier, list) and all(map(_is_data, earlier)) and _is_names(images)):
            raise UserError(
                f"{path} must have the fingerprints that train writes, but hasn't; restore it, or delete it to go on "
                "without knowing whether the data has changed",
                "bad-fingerprints",
            )
        return Provenance(data, tuple(earlier), None if images is None else tuple(images))
    if (folder / CARD_FILE).exists():
        data = read_object(folder / CARD_FILE).get("data")
        return Provenance(data) if _is_data(data) else None
    return None


def write(folder: Path, provenance: Provenance) -> None:
    """Writes the fingerprints of a run's data."""
    write_json(folder / FINGERPRINTS_FILE, dataclasses.asdict(provenance))


def check(folder: Path, now: Provenance, *, force: bool) -> Provenance:
    """The provenance of a run that goes on, whose data may only have changed if that is forced.

    Raises:
      UserError: the data has changed, or the stored fingerprints are broken.
    """
    before = read(folder)
    if before is None:
        return now
    changed = before.changed(now.data)
    if not changed:
        return dataclasses.replace(before, images=before.images or now.images)
    if not force:
        raise UserError(
            f"the {' and '.join(changed)} records of {now.data['name']} have changed since {folder} was trained on "
            "them; train in another --workdir, or prepare the set as it was (--force-data goes on with the changed "
            "data, and its scores are marked)",
            "data-changed",
        )
    return before.followed_by(now)


def after(run: Provenance, start: Provenance | None) -> Provenance:
    """The provenance of a run that begins with another run's prompts: that run's training images trained it as well."""
    images = {*(run.images or ()), *((start.images if start else None) or ())}
    return dataclasses.replace(run, images=tuple(sorted(images)))


def marks(folder: Path, trained: Data, data: Data, records: Records, *, comparable: bool = True) -> dict[str, Any]:
    """What a reader of a score needs to know about a run's data and the scored data.

    Args:
      folder: of the run.
      trained: settings of the run's data.
      data: settings of the scored data.
      records: the scored records, at the size that the run saw.
      comparable: whether they would be the run's own if nothing had changed, as far as is known without the settings.

    Returns:
      `data_changed`: whether the data set of this name isn't as it was in training; None where that can't be seen,
      as of another data set or protocol. `trained_on`: how many of the images trained the run; None if unknown.
    """
    before = read(folder)
    if before is None:
        return {"data_changed": None, "trained_on": None}
    comparable = comparable and _identity(trained) == _identity(data)
    comparable = comparable and not (records.split == "train" and trained.shots)
    same = before.data.get(records.split) == records.fingerprint()
    seen = None
    if before.images is not None and not (records.split == "train" and trained.name == data.name):
        images = set(_images(records))
        seen = len(images & set(before.images))
    return {"data_changed": not same if comparable else None, "trained_on": seen}


def lines(folder: Path | None, split: str, marks: Mapping[str, Any]) -> list[str]:
    """What the marks of a score say, a line for each; none where all is well."""
    said = []
    if marks.get("data_changed"):
        said.append(
            f"the {split} split isn't the one of the data that {folder} was trained with: the set has changed, or is "
            "another of the same name"
        )
    if number := marks.get("trained_on"):
        images = "1 image of the" if number == 1 else f"{number} images of the"
        said.append(f"{images} {split} split trained {folder}")
    return said


def _identity(data: Data) -> dict[str, Any]:
    """The settings that decide what the records are."""
    fields = schema.flat(schema.to_json(data.for_scoring()), "data")
    return {name: value for name, value in fields.items() if name not in NON_IDENTITY_FIELDS}


def _images(records: Records) -> list[str]:
    """The fingerprint of each image that a record uses: of its pixels at the model's size."""
    return [
        hashlib.sha256(np.ascontiguousarray(records.images[row]).data).hexdigest()[:HEX]
        for row in np.unique(records.image)
    ]


def _is_data(value: Any) -> TypeGuard[Mapping[str, str]]:
    return isinstance(value, dict) and "train" in value and all(isinstance(item, str) for item in value.values())


def _is_names(value: Any) -> bool:
    return value is None or (isinstance(value, Sequence) and all(isinstance(item, str) for item in value))
