"""The masks of a volume's slices, as records, and the choice of slices."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np

from tunevlseg_jax.data.builders.items import Content, Item
from tunevlseg_jax.data.images import encode_png
from tunevlseg_jax.data.medical import slices
from tunevlseg_jax.data.medical.scan import Planes
from tunevlseg_jax.data.prepared import LEVEL, Record
from tunevlseg_jax.data.preprocessing import Axis
from tunevlseg_jax.runtime.errors import UserError
from tunevlseg_jax.runtime.optional import import_simpleitk

SliceChoice = Literal["object", "all"] | int
"""Slices with an object, all, or every n-th."""


class Structure(NamedTuple):
    """A class of a volume's labels: its name, its phrasings, and its map and value there, as in `Record`."""

    label: str
    prompts: tuple[str, ...]
    map: int
    value: int


@dataclass(frozen=True)
class Labels:
    """The labels of a volume, in its own geometry.

    Attributes:
      maps: label maps, SimpleITK images of uint8.
      structures: the classes in them.
    """

    maps: tuple[Any, ...]
    structures: tuple[Structure, ...]

    def planes(self, axis: Axis) -> list[np.ndarray]:
        """(slice, height, width) uint8 of each map."""
        return [slices.planes(image, axis) for image in self.maps]


def check_slices(chosen: SliceChoice) -> None:
    """Raises a UserError for a step between slices that is below 1."""
    if isinstance(chosen, int) and chosen < 1:
        raise UserError(f"--slices must be object, all, or a whole number from 1 on, got {chosen}", "out-of-range")


def chosen_slices(labels: Labels, axis: Axis, chosen: SliceChoice) -> list[int]:
    """The numbers of the slices to keep."""
    planes = labels.planes(axis)
    if chosen != "object":
        return list(range(0, len(planes[0]), 1 if chosen == "all" else chosen))
    present = np.zeros(len(planes[0]), bool)
    for structure in labels.structures:
        present |= (planes[structure.map] == structure.value).any(axis=(1, 2))
    return np.flatnonzero(present).tolist()


def items(
    name: str, group: str, splits: tuple[str, ...], loaded: "Loader", chosen: Sequence[int], axis: Axis, records: int
) -> list[Item]:
    """The items of a volume's slices.

    Args:
      name: of the volume.
      group: the patient.
      splits: those that the volume may be in.
      loaded: gives the volume.
      chosen: numbers of the slices.
      axis: of the slices.
      records: number of classes.
    """
    keys = {index: f"{name}/{axis}_{index:04d}" for index in chosen}
    return [Item(key, partial(loaded.content, index, key), group, "", splits, records) for index, key in keys.items()]


class Loader:
    """Reads a volume and its labels when its first slice is asked for, and forgets the volume before.

    The slices of a volume are asked for one after the other, since they stay together in their split.
    """

    latest: "Loader | None" = None

    def __init__(self, read: Any, axis: Axis):
        """`read` gives the planes of the image, their spacing and the labels."""
        self._read, self._axis = read, axis
        self._loaded: tuple[Planes, tuple[float, float] | None, Labels, list[np.ndarray]] | None = None

    def content(self, index: int, key: str) -> Content:
        """A slice with its maps and records. A slice without an object has an empty record of each class."""
        if self._loaded is None:
            if Loader.latest is not None:
                Loader.latest._loaded = None
            Loader.latest = self
            planes, spacing, labels = self._read()
            self._loaded = planes, spacing, labels, labels.planes(self._axis)
        planes, spacing, labels, maps = self._loaded
        present = [one for one in labels.structures if (maps[one.map][index] == one.value).any()]
        records = tuple(
            Record(f"{label}/{key}", label, map_, value, {LEVEL: prompts})
            for label, prompts, map_, value in present or labels.structures
        )
        encoded = tuple(encode_png(np.ascontiguousarray(plane[index])) for plane in maps)
        return Content(encode_png(planes.rgb(index)), encoded, records, spacing)


def recoded(image: Any, array: np.ndarray, numbers: Mapping[int, int], name: str) -> Any:
    """A label volume with other numbers, as uint8.

    Args:
      image: gives the geometry.
      array: (z, y, x) whole numbers.
      numbers: the number of each value; 0 stays 0.
      name: of the file, for error messages.

    Raises:
      UserError: the volume has a value that isn't among them.
    """
    table = np.full(65536, -1, np.int32)
    table[0] = 0
    for value, number in numbers.items():
        table[value] = number
    new = table[array]
    if new.min() < 0:
        unknown = int(array[new < 0].min())
        raise UserError(f"mask {name} has the value {unknown}; the classes have {sorted(numbers)}", "unknown-class")
    return like(new.astype(np.uint8), image)


def like(array: np.ndarray, image: Any) -> Any:
    """(z, y, x) values as a SimpleITK image with the geometry of another."""
    result = import_simpleitk("a volume").GetImageFromArray(np.ascontiguousarray(array))
    result.CopyInformation(image)
    return result
