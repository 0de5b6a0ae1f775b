"""Prepared splits resized to the model's size, cached on disk and memory-mapped."""

import dataclasses
import hashlib
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import numpy as np

from tunevlseg_jax.data.examples import Example
from tunevlseg_jax.data.images import resize
from tunevlseg_jax.data.prepared import CLEAN_FILE, Prepared
from tunevlseg_jax.data.records import WHOLE, Records
from tunevlseg_jax.data.volume_slice import VolumeSlice
from tunevlseg_jax.runtime import cache, progress_bar
from tunevlseg_jax.runtime.errors import UserError
from tunevlseg_jax.runtime.files import atomic_files, read_object, write_json

FORMAT = 3
"""Version of the cache files' format, part of their key."""
IMAGES_FILE, MAPS_FILE, RECORDS_FILE = "images.npy", "maps.npy", "records.json"


def load(split: Prepared, size: tuple[int, int], folder: str | None, level: int) -> Records:
    """A prepared split at (height, width), from the cache, which the first call fills.

    Images are resized by bicubic interpolation and label maps to the nearest neighbour, by OpenCV.

    Args:
      split: split of a prepared set.
      size: (height, width) of the model's images.
      folder: cache folder; None uses the user's cache folder.
      level: prompt level.

    Raises:
      UserError: the split has no records, is broken or lacks prompts of that level; or the cache isn't writable.
    """
    root = Path(folder) if folder else cache.folder() / "data"
    height, width = size
    part = split.split if split.fold is None else f"{split.split}{split.fold}"
    entry = root / f"{split.name}-{part}-{split.protocol}-{height}x{width}-{_key(split)}"
    if not (entry / RECORDS_FILE).is_file():
        with atomic_files(entry, RECORDS_FILE) as temporary:
            _make(split, size, temporary)
    return _read(split, entry, level)


def _key(split: Prepared) -> str:
    """A hash that changes with the split's source: the names, sizes and times of its set's files."""
    digest = hashlib.sha256(str(FORMAT).encode())
    for path in sorted(split.folder.iterdir()):
        if path.name != CLEAN_FILE or split.protocol == "clean":
            file = path.stat()
            digest.update(repr((path.name, file.st_size, file.st_mtime_ns)).encode())
    return digest.hexdigest()[:16]


def _make(split: Prepared, size: tuple[int, int], folder: Path) -> None:
    """Writes the three files, image by image."""
    names, groups, spacings, slices, records, left_out = [], [], [], [], [], []
    with (folder / IMAGES_FILE).open("wb") as images_file, (folder / MAPS_FILE).open("wb") as maps_file:
        images, maps = _Rows(images_file, (*size, 3)), _Maps(_Rows(maps_file, size))
        for example, image, planes in _resized(split, size):
            stored = [maps.add(plane, _is_binary(example, number, plane)) for number, plane in enumerate(planes)]
            for record in example.records:
                row, bits = stored[record.mask]
                value = record.value if bits == WHOLE else bits
                records.append([record.id, record.label, len(names), row, bits, value, dict(record.prompts)])
            images.add(image)
            left_out += [[len(names), label] for label in example.left_out]
            names.append(example.id)
            groups.append(example.group)
            spacings.append(example.spacing)
            slices.append(example.slice)
        images.close()
        maps.rows.close()
    if not records:
        raise UserError(
            f"{split.name} has images but no records in its split {split.split!r}: none has a mask of a class; prepare "
            "the set again with such images there, or with another --seed or --fractions",
            "empty-split",
        )
    stored = {"images": names, "groups": groups, "spacing": spacings, "slices": slices, "records": records}
    write_json(folder / RECORDS_FILE, stored | {"left_out": left_out})


def _resized(split: Prepared, size: tuple[int, int]) -> Iterator[tuple[Example, np.ndarray, list[np.ndarray]]]:
    """Each example with its image and its label maps at `size`, decoded by as many threads as there are cores."""

    def load_resized(index: int) -> tuple[Example, np.ndarray, list[np.ndarray]]:
        example = split[index]
        image = example.rgb()
        if example.spacing is not None:
            spacing = _rescaled(example.spacing, image.shape[:2], size)
            example = dataclasses.replace(example, spacing=spacing)
        image = resize(image, size, cv2.INTER_CUBIC)
        return example, image, [resize(plane, size, cv2.INTER_NEAREST) for plane in example.maps()]

    import grain  # loads late, as in `feeding.batching`

    threads = os.cpu_count() or 1
    ahead = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
    examples = grain.MapDataset.range(len(split)).map(load_resized).to_iter_dataset(ahead)
    title = f"{split.name}, {split.split}: resizing to {size[0]}x{size[1]}"
    return iter(progress_bar.track(examples, title, len(split)))


def _rescaled(spacing: tuple[float, float], before: Sequence[int], after: tuple[int, int]) -> tuple[float, float]:
    """The spacing of an image's rows and columns after resizing it from one (height, width) to another."""
    return spacing[0] * before[0] / after[0], spacing[1] * before[1] / after[1]


def _is_binary(example: Example, number: int, plane: np.ndarray) -> bool:
    """Whether one of an example's maps has only the values 0 and 1, and all its records have the value 1."""
    return plane.max() <= 1 and all(record.value == 1 for record in example.records if record.mask == number)


class _Rows:
    """An .npy file of (row, *shape) uint8 that grows row by row."""

    def __init__(self, file: BinaryIO, shape: Sequence[int]):
        self.file, self.shape, self.count = file, tuple(shape), 0
        self._write_header()
        self.start = file.tell()

    def add(self, row: np.ndarray) -> int:
        """Appends a row and returns its number."""
        self.count += 1
        self.put(self.count - 1, row)
        return self.count - 1

    def put(self, number: int, row: np.ndarray) -> None:
        self.file.seek(self.start + number * math.prod(self.shape))
        self.file.write(np.ascontiguousarray(row, np.uint8).data)

    def close(self) -> None:
        self.file.seek(0)
        self._write_header()  # NumPy pads the header so that the first axis can grow

    def _write_header(self) -> None:
        header = {"descr": "|u1", "fortran_order": False, "shape": (self.count, *self.shape)}
        np.lib.format.write_array_header_1_0(self.file, header)


class _Maps:
    """Label maps in rows; up to eight binary maps share a row, one bit each."""

    def __init__(self, rows: _Rows):
        self.rows = rows
        self.shared, self.number, self.bits = np.zeros(rows.shape, np.uint8), -1, 1 << 8

    def add(self, plane: np.ndarray, binary: bool) -> tuple[int, int]:
        """Appends a map and returns its row and bits."""
        if not binary:
            return self.rows.add(plane), WHOLE
        if self.bits > 1 << 7:
            self.shared[:] = 0
            self.number, self.bits = self.rows.add(self.shared), 1
        bit = self.bits
        self.shared |= plane * np.uint8(bit)
        self.rows.put(self.number, self.shared)
        self.bits <<= 1
        return self.number, bit


def _read(split: Prepared, entry: Path, level: int) -> Records:
    """The records of a cached split."""
    images, maps = (np.load(entry / name, mmap_mode="r") for name in (IMAGES_FILE, MAPS_FILE))
    stored = read_object(entry / RECORDS_FILE)
    ids, labels, image, map_, bits, value, prompts = zip(*stored["records"], strict=True)
    classes = sorted(set(labels))
    phrasings_of = [_phrasings(split, id, phrasings, level) for id, phrasings in zip(ids, prompts, strict=True)]
    distinct = {phrasings: row for row, phrasings in enumerate(dict.fromkeys(phrasings_of))}
    label = np.searchsorted(np.asarray(classes), np.asarray(labels)).astype(np.int32)
    bits, value, map_ = np.asarray(bits, np.uint8), np.asarray(value, np.uint8), np.asarray(map_, np.int32)
    return Records(
        name=split.name,
        split=split.split,
        images=images,
        maps=maps,
        image=np.asarray(image, np.int32),
        map=map_,
        bits=bits,
        value=value,
        label=label,
        prompt=np.asarray([distinct[phrasings] for phrasings in phrasings_of], np.int32),
        classes=tuple(classes),
        prompts=tuple(distinct),
        names=tuple(stored["images"]),
        ids=ids,
        spacing=_spacing(stored.get("spacing", ())),
        groups=tuple(groups) if any(groups := stored.get("groups", ())) else None,  # earlier versions kept none
        slices=_slices(stored.get("slices", ())),
        shown=_shown(len(stored["images"]), classes, [*zip(image, labels, strict=True), *stored["left_out"]]),
        complete=_complete(len(classes), map_, bits, value, label),
    )


def _shown(images: int, classes: Sequence[str], pairs: Iterable[Sequence[Any]]) -> np.ndarray:
    """(image, class) bool of pairs of an image's row and the name of a class that it shows."""
    shown = np.zeros((images, len(classes)), bool)
    for row, name in pairs:
        if name in classes:
            shown[row, classes.index(name)] = True
    return shown


def _complete(classes: int, map_: np.ndarray, bits: np.ndarray, value: np.ndarray, label: np.ndarray) -> np.ndarray:
    """(class,) bool, whether the class is one of a class map, which says for every pixel what it shows.

    Of a binary mask nobody knows whether other images without such a mask were searched for the class.
    """
    class_maps = map_[(bits == WHOLE) & (value > 1)]  # a binary mask with void pixels has the value 1
    return np.isin(np.arange(classes), label[np.isin(map_, class_maps) & (bits == WHOLE)])


def _spacing(stored: Sequence[Sequence[float] | None]) -> np.ndarray | None:
    """(image, 2) float64 as in `Records`, of the values in a cache file, which may be of an earlier version."""
    if not any(stored):
        return None
    return np.asarray([(np.nan, np.nan) if spacing is None else spacing for spacing in stored], np.float64)


def _slices(stored: Sequence[Sequence[Any] | None]) -> tuple[VolumeSlice | None, ...] | None:
    """The places of slices as in `Records`, of the values in a cache file, which may be of an earlier version."""
    return tuple(None if place is None else VolumeSlice(*place) for place in stored) if any(stored) else None


def _phrasings(split: Prepared, id: str, prompts: Mapping[str, Sequence[str]], level: int) -> tuple[str, ...]:
    """A record's phrasings of one level."""
    if str(level) not in prompts:
        levels = ", ".join(prompts)
        raise UserError(f"data.prompt_index must be one of {levels} for record {id!r}, got {level}", "prompt-index")
    return tuple(prompts[str(level)])
