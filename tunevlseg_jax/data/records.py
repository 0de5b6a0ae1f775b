"""A split in memory at the model's size: images, label maps and records."""

import dataclasses
import hashlib
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from tunevlseg_jax.data.images import resize
from tunevlseg_jax.data.negatives import Negatives
from tunevlseg_jax.data.volume_slice import VolumeSlice

WHOLE = 255
"""Value of `bits` for a record whose map is a class map."""


@dataclass(frozen=True)
class Records:
    """One split of a data set; a record is an image, the mask of one thing in it, and a prompt for that thing.

    Images and label maps are stored once, however many records use them. A record's mask is where
    `(maps[map] & bits) == value`. With bits 255 the map is a class map, in which every class has a value; a binary
    mask is one bit of a map that it shares with up to seven others. Images and maps may be memory-mapped files, and
    may have rows that no record uses.

    A record's prompt is a row of `prompts`, each a tuple of phrasings with the same meaning: training draws one at
    random, evaluation takes the first.

    Attributes:
      name: the data set's name, such as "scenes/photo".
      split: "train", "val" or "test".
      images: (image, height, width, 3) uint8, RGB.
      maps: (map, height, width) uint8.
      image: (record,) int32, the row of `images` that holds its image.
      map: (record,) int32, the row of `maps` that holds its mask.
      bits: (record,) uint8.
      value: (record,) uint8.
      label: (record,) int32, the row of `classes` that holds its class.
      prompt: (record,) int32, the row of `prompts` that holds its prompt.
      classes: names of the classes.
      prompts: the distinct prompts, each a tuple of one phrasing or more.
      names: a name for each image, unique within the split.
      ids: a name for each record, unique within the split.
      spacing: (image, 2) float64, millimetres between the centres of neighbouring rows and columns of `images`, NaN
        where unknown; None if all are.
      groups: the patient or video of each image, "" where unknown; None if all are.
      slices: the place of each image in its volume, None for images that aren't slices; None if none is.
      shown: (image, class) bool, the classes that an image shows, whether or not a record asks for them; None if it
        shows those of its records.
      complete: (class,) bool, whether an image without the class in `shown` is known not to show it; None for no class.
      negatives: the absent things that training may ask for; None for none.
    """

    name: str
    split: str
    images: np.ndarray
    maps: np.ndarray
    image: np.ndarray
    map: np.ndarray
    bits: np.ndarray
    value: np.ndarray
    label: np.ndarray
    prompt: np.ndarray
    classes: tuple[str, ...]
    prompts: tuple[tuple[str, ...], ...]
    names: tuple[str, ...]
    ids: tuple[str, ...]
    spacing: np.ndarray | None = None
    groups: tuple[str, ...] | None = None
    slices: tuple[VolumeSlice | None, ...] | None = None
    shown: np.ndarray | None = None
    complete: np.ndarray | None = None
    negatives: Negatives | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def masks(self) -> np.ndarray:
        """(record, height, width) bool, all masks; for small splits."""
        return np.stack([self.mask(row) for row in range(len(self))])

    def mask(self, row: int) -> np.ndarray:
        """(height, width) bool of one record."""
        return (self.maps[self.map[row]] & self.bits[row]) == self.value[row]

    def unit(self, row: int) -> str:
        """What a record's score isn't independent of: its patient or video, or its image where that is unknown."""
        image = self.image[row]
        return (self.groups[image] if self.groups is not None else "") or self.names[image]

    @property
    def phrases(self) -> tuple[str, ...]:
        """Every phrasing of every prompt, prompt by prompt, and then the words for absent things."""
        words = self.negatives.words if self.negatives is not None else ()
        return (*(phrase for phrasings in self.prompts for phrase in phrasings), *words)

    @property
    def prompts_per_image(self) -> int:
        """Records per image if all images have the same number and their records are adjacent; else 1."""
        changes = np.flatnonzero(np.diff(self.image)) + 1
        number = int(changes[0]) if len(changes) else len(self)
        groups = self.image[::number]
        unique = len(np.unique(groups)) == len(groups)
        return number if unique and np.array_equal(np.repeat(groups, number), self.image) else 1

    def take(self, rows: np.ndarray) -> "Records":
        """Only the records in these rows; images and maps are unchanged."""
        arrays = {name: getattr(self, name)[rows] for name in ("image", "map", "bits", "value", "label", "prompt")}
        return dataclasses.replace(self, **arrays, ids=tuple(self.ids[row] for row in rows))

    def without_masks(self, rows: np.ndarray) -> "Records":
        """The same records, of which those in these rows have empty masks."""
        bits, value = self.bits.copy(), self.value.copy()
        bits[rows], value[rows] = 0, 1  # no pixel & 0 is 1
        return dataclasses.replace(self, bits=bits, value=value)

    def compact(self) -> "Records":
        """The same records without unused images and maps."""
        images, image = np.unique(self.image, return_inverse=True)
        maps, map_ = np.unique(self.map, return_inverse=True)
        if len(images) == len(self.images) and len(maps) == len(self.maps):
            return self
        return dataclasses.replace(
            self,
            images=self.images[images],
            maps=self.maps[maps],
            image=image.astype(np.int32),
            names=tuple(self.names[row] for row in images),
            spacing=None if self.spacing is None else self.spacing[images],
            groups=None if self.groups is None else tuple(self.groups[row] for row in images),
            slices=None if self.slices is None else tuple(self.slices[row] for row in images),
            shown=None if self.shown is None else self.shown[images],
            negatives=None if self.negatives is None else self.negatives.take(images),
            map=map_.astype(np.int32),
        )

    def few_shot(self, shots: int, seed: int) -> "Records":
        """At most `shots` records of each class, drawn by `seed`; a larger draw contains every smaller one."""
        drawn = []
        for label, name in enumerate(self.classes):
            rows = np.flatnonzero(self.label == label)
            draw = np.random.default_rng([seed, *name.encode()])
            drawn.append(draw.permutation(rows)[:shots])
        return self.take(np.sort(np.concatenate(drawn)))

    def asking_every_class(self) -> "Records":
        """A record for every image and class, with the prompt of the class's first record and without masks."""
        images, count = len(self.names), len(self.classes)
        first = [int(np.argmax(self.label == label)) for label in range(count)]
        none = np.zeros(images * count, np.int32)
        return dataclasses.replace(
            self,
            image=np.repeat(np.arange(images, dtype=np.int32), count),
            map=none,
            bits=none.astype(np.uint8),
            value=np.ones(images * count, np.uint8),  # no pixel & 0 is 1
            label=np.tile(np.arange(count, dtype=np.int32), images),
            prompt=np.tile(self.prompt[first], images),
            ids=tuple(f"{name}/{label}" for name in self.names for label in self.classes),
        )

    def fingerprint(self) -> str:
        """SHA-256 of the model's inputs and targets: pixels, masks and prompts, in their order."""
        digest = hashlib.sha256()
        for pixels, rows in ((self.images, self.image), (self.maps, self.map)):
            used, order = np.unique(rows, return_inverse=True)
            for row in used:
                digest.update(np.ascontiguousarray(pixels[row]).data)
            digest.update(order.astype(np.int32).data)
        for array in (self.bits, self.value, self.prompt):
            digest.update(np.ascontiguousarray(array).data)
        digest.update(repr(self.prompts).encode())
        return digest.hexdigest()


def resized(records: Records, size: tuple[int, int], *, maps: bool = True) -> Records:
    """The records with their images (bicubic) and, if `maps`, their maps (nearest neighbour) at (height, width)."""
    if records.images.shape[1:3] != size:
        images = np.stack([resize(image, size, cv2.INTER_CUBIC) for image in records.images])
        records = dataclasses.replace(records, images=images)
    if maps and records.maps.shape[1:] != size:
        nearest = np.stack([resize(plane, size, cv2.INTER_NEAREST) for plane in records.maps])
        records = dataclasses.replace(records, maps=nearest)
    return records


def packed(masks: np.ndarray) -> dict[str, Any]:
    """`maps`, `map`, `bits` and `value` of (record, height, width) bool masks, eight to a map."""
    count = len(masks)
    maps = np.zeros((-(-count // 8), *masks.shape[1:]), np.uint8)
    for bit in range(8):
        maps[: len(masks[bit::8])] |= masks[bit::8].astype(np.uint8) << bit
    row = np.arange(count)
    bits = (1 << row % 8).astype(np.uint8)
    return {"maps": maps, "map": (row // 8).astype(np.int32), "bits": bits, "value": bits}
