"""The masks of a volume's slices, as records, and the choice of slices."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from tunevlseg_jax.data.builders.items import Content, Item
from tunevlseg_jax.data.examples import LEVEL, Record
from tunevlseg_jax.data.images import encode_png
from tunevlseg_jax.data.medical import slices
from tunevlseg_jax.data.medical.scan import Planes, Scan
from tunevlseg_jax.data.preprocessing import Axis
from tunevlseg_jax.data.volume_slice import VolumeSlice
from tunevlseg_jax.data.windows import Window
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


class Volume(NamedTuple):
    """A volume with its labels, whose values are read later.

    Attributes:
      name: unique in the set.
      group: the patient.
      splits: those that it may be in.
      grid: its geometry; the values may be missing.
      labels: in its geometry.
      load: reads it.
    """

    name: str
    group: str
    splits: tuple[str, ...]
    grid: Scan
    labels: Labels
    load: Callable[[], Scan]


def check_options(prompt: Sequence[str], classes: Path | None, chosen: SliceChoice) -> None:
    """Raises a UserError for both prompts and a table of classes, and for a step between slices that is below 1."""
    if classes and prompt:
        raise UserError("--classes has the prompt of each class; leave --prompt out", "options-conflict")
    if isinstance(chosen, int) and chosen < 1:
        raise UserError(f"--slices must be object, all, or a whole number from 1 on, got {chosen}", "out-of-range")


def items(volume: Volume, axis: Axis, chosen: SliceChoice, window: Window) -> Iterator[Item]:
    """The items of a volume's slices. Their masks are kept encoded, so that the labels are read once."""
    maps, structures = volume.labels.planes(axis), volume.labels.structures
    indices = _chosen(maps, structures, chosen)
    loader = Loader(volume.load, axis, window)
    for index in indices:
        key = f"{volume.name}/{axis}_{index:04d}"
        present = [one for one in structures if (maps[one.map][index] == one.value).any()]
        records = tuple(
            Record(f"{label}/{key}", label, map_, value, {LEVEL: prompts})
            for label, prompts, map_, value in present or structures  # without an object, an empty record of each class
        )
        encoded = tuple(encode_png(np.ascontiguousarray(plane[index])) for plane in maps)
        place = _place(volume, axis, index, chosen, len(indices))
        load = partial(loader.content, index, encoded, records, volume.grid.spacing(axis), place)
        yield Item(key, load, volume.group, "", volume.splits, max(1, len(structures)))


def _chosen(maps: Sequence[np.ndarray], structures: Sequence[Structure], chosen: SliceChoice) -> list[int]:
    """The numbers of the slices to keep."""
    if chosen != "object":
        return list(range(0, len(maps[0]), 1 if chosen == "all" else chosen))
    present = np.zeros(len(maps[0]), bool)
    for structure in structures:
        present |= (maps[structure.map] == structure.value).any(axis=(1, 2))
    return np.flatnonzero(present).tolist()


def _place(volume: Volume, axis: Axis, index: int, chosen: SliceChoice, prepared: int) -> VolumeSlice | None:
    """The place of a slice; None for single images, and for frames without a place in the body."""
    total = slices.count(volume.grid.image, axis)
    if total < 2 or not volume.grid.placed:
        return None
    step = chosen if isinstance(chosen, int) else 1
    return VolumeSlice(volume.name, index, step, prepared, total, volume.grid.slice_spacing(axis))


class Loader:
    """Reads a volume when its first slice is asked for, and forgets the volume before.

    The slices of a volume are asked for one after the other, since they stay together in their split.
    """

    latest: "Loader | None" = None

    def __init__(self, load: Callable[[], Scan], axis: Axis, window: Window):
        self._load = load
        self._axis: Axis = axis
        self._window: Window = window
        self._planes: Planes | None = None

    def content(
        self,
        index: int,
        masks: tuple[bytes, ...],
        records: tuple[Record, ...],
        spacing: tuple[float, float] | None,
        place: VolumeSlice | None,
    ) -> Content:
        """A slice with its image."""
        if self._planes is None:
            if Loader.latest is not None:
                Loader.latest._planes = None
            Loader.latest = self
            self._planes = self._load().planes(self._axis, self._window)
        return Content(encode_png(self._planes.rgb(index)), masks, records, spacing, place)


def recoded(array: np.ndarray, numbers: Mapping[int, int], name: str) -> np.ndarray:
    """(z, y, x) uint8, a label volume with other numbers.

    Args:
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
    return new.astype(np.uint8)


def like(array: np.ndarray, image: Any) -> Any:
    """(z, y, x) values as a SimpleITK image with the geometry of another."""
    result = import_simpleitk("a volume").GetImageFromArray(np.ascontiguousarray(array))
    result.CopyInformation(image)
    return result
