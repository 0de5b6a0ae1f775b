"""Prepared sets: their format on disk, and reading it; `data/builders/writer.py` writes it.

A prepared set is a TFDS data set in array_record, DIR/NAME/VERSION, with those of the splits train, val and test that
have records. It is written and read without TensorFlow. One example is one image with all its records. TFDS can't
store nested sequences without TensorFlow, so prompts are a separate sequence and refer to their record:

  id        the image's name, unique in the split
  group     patient or video sequence, "" where unknown
  image     the original file if it is JPEG or PNG of 8 bits, else PNG
  spacing   millimetres between the centres of neighbouring rows, and of columns; empty where unknown
  slice     the place of a slice in its volume, as in `VolumeSlice`, a spacing of 0 is unknown; empty for other images
  masks     label maps: single-channel PNG of the image's size
  records   id (unique in the split), label (the class), mask and value (a pixel belongs to the record where map number
            `mask` is `value`)
  prompts   record (its index), level, text

Mutually exclusive classes share one map, in which VOID pixels are neither a class nor background. Masks that may
overlap have one map each, of 0 and 1. `level` is the index of medvlsm's prompts p0 ... p9, from no words to
detailed descriptions; sets with one kind of prompt have only level 1.

The file preprocessing.json in the same folder has the window that scaled images of more than 8 bits, and the axis of
volumes. The file aliases.json names splits that are copies of another: {"test": "val"} if the paper tests on
val. The file clean.json holds the "clean" protocol: for each split its examples, by stored split and index, and their
records: {"train": [{"split": "train", "index": 0, "id": "...", "records": ["..."]}, ...], ...}.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, SupportsIndex

import cv2
import numpy as np

from tunevlseg_jax.data import folds
from tunevlseg_jax.data.images import decode_rgb
from tunevlseg_jax.data.settings import Protocol
from tunevlseg_jax.data.volume_slice import VolumeSlice
from tunevlseg_jax.runtime.errors import UserError, nearest
from tunevlseg_jax.runtime.files import read_object

VERSION = "1.0.0"
SPLITS = ("train", "val", "test")
CLEAN_FILE = "clean.json"
ALIASES_FILE = "aliases.json"
VOID = 255
"""Value in a label map of pixels that are neither a class nor background."""
SLICE = ("number", "step", "prepared", "total")
"""The whole numbers of a `VolumeSlice`."""
LEVEL = 1
"""The prompt level of sets with one kind of prompt, and of the paper's runs."""
WAYS_OUT = {
    "train": "Prepare the set again with images for train; a set without train can be scored but not trained on",
    "val": "Training needs val: prepare the set again with --fractions 0.8 0.2 0, which needs two images (or groups), "
    "or with a folder, or rows of a manifest, for val",
    "test": "Prepare the set again with --fractions 0.8 0.1 0.1, which needs three images (or groups), or score val: "
    "prepare --test-is-val makes it the test split",
}
"""What to do if a set lacks a split."""


@dataclass(frozen=True)
class Record:
    """One mask of an image and its prompts.

    Attributes:
      id: unique in the split.
      label: name of the class.
      mask: index of the label map.
      value: value of the record's pixels in that map.
      prompts: phrasings by level; training draws one at random, evaluation takes the first.
    """

    id: str
    label: str
    mask: int
    value: int
    prompts: Mapping[int, tuple[str, ...]]

    def phrasings(self, level: int = LEVEL) -> tuple[str, ...]:
        """The phrasings of one level.

        Raises:
          UserError: the record has none of that level.
        """
        if level not in self.prompts:
            raise UserError(f"record {self.id!r} has prompts {sorted(self.prompts)}, got {level}", "prompt-index")
        return self.prompts[level]


@dataclass(frozen=True)
class Example:
    """One image and its records; images are encoded.

    Attributes:
      id: the image's name, unique in the split.
      group: patient or video sequence, "" where unknown.
      image: JPEG or PNG.
      masks: label maps, single-channel PNG of the image's size.
      records: the image's records.
      spacing: millimetres between the centres of neighbouring rows, and of columns; None where unknown.
      slice: of a slice its place in its volume; None for other images, and in sets of earlier versions.
      left_out: classes of records that the clean protocol leaves out; not stored.
    """

    id: str
    group: str
    image: bytes
    masks: tuple[bytes, ...]
    records: tuple[Record, ...]
    spacing: tuple[float, float] | None = None
    slice: VolumeSlice | None = None
    left_out: tuple[str, ...] = ()

    def rgb(self) -> np.ndarray:
        """(height, width, 3) uint8 image, upright.

        Raises:
          UserError: the image is broken.
        """
        return decode_rgb(self.image, f"image {self.id!r}")

    def maps(self) -> tuple[np.ndarray, ...]:
        """(height, width) uint8 label maps.

        Raises:
          UserError: a map is broken.
        """
        decoded = []
        for data in self.masks:
            array = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) if data else None
            if array is None or array.ndim != 2 or array.dtype != np.uint8:
                raise UserError(f"a label map of image {self.id!r} is not a grey PNG of 8 bits", "undecodable")
            decoded.append(array)
        return tuple(decoded)


class SelectedExample(NamedTuple):
    """An example of the clean protocol: its stored split, its index there, and the ids of the records to use."""

    split: str
    stored_index: int
    records: frozenset[str] | None


class Prepared:
    """One split of a prepared set, read example by example; it can be pickled.

    Attributes:
      folder: DIR/NAME/VERSION.
      name: name of the set.
      split: train, val or test.
      protocol: "paper" is the set as prepared, "clean" the splits of clean.json.
      fold: of train and val in a cross-validation; None for the splits as prepared.
    """

    def __init__(self, folder: Path, split: str, protocol: Protocol = "paper", fold: int | None = None):
        """Opens a split; `load` finds the folder of a set.

        Raises:
          UserError: there is no such split, or the set has no such protocol or fold.
        """
        self.fold = fold if split in folds.POOL else None
        self.folder, self.name, self.split, self.protocol = folder, folder.parent.name, split, protocol
        stored = _stored(folder)
        stored_split = aliases(folder).get(split, split)
        self._selected = _selected(folder, stored_split) if protocol == "clean" else None
        if self.fold is not None:
            self._selected = [SelectedExample(*place, None) for place in folds.select(folder, split, self.fold)]
        sources = {stored_split} if self._selected is None else {selected.split for selected in self._selected}
        if missing := sorted(sources - stored.keys()):
            hint = nearest(missing[0], stored)
            if missing[0] in SPLITS:
                hint = f"; there are {', '.join(sorted(stored))}. {WAYS_OUT[missing[0]]}"
            raise UserError(f"{folder} has no split {missing[0]!r}{hint}", "unknown-split")
        self._stored_split, self._sources = stored_split, {name: stored[name] for name in sources}
        for selected in self._selected or ():
            if not 0 <= selected.stored_index < len(stored[selected.split]):
                raise UserError(
                    f"{folder / CLEAN_FILE} names image {selected.stored_index} of {len(stored[selected.split])} in "
                    f"{selected.split}; prepare check {self.name} --protocol clean writes it again",
                    "out-of-range",
                )

    def __len__(self) -> int:
        return len(self._sources[self._stored_split]) if self._selected is None else len(self._selected)

    def __iter__(self) -> Iterator[Example]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: SupportsIndex) -> Example:
        number = range(len(self))[index]
        if self._selected is None:
            return decode(self._sources[self._stored_split][number])
        selected = self._selected[number]
        example = decode(self._sources[selected.split][selected.stored_index])
        if selected.records is None:
            return example
        records = tuple(record for record in example.records if record.id in selected.records)
        left_out = tuple(record.label for record in example.records if record.id not in selected.records)
        return dataclasses.replace(example, records=records, left_out=left_out)


def load(root: Path, name: str, split: str, protocol: Protocol = "paper") -> Prepared:
    """A split of a prepared set.

    Args:
      root: the data folder, DIR.
      name: name of the set.
      split: train, val or test.
      protocol: "paper" for the set as prepared, "clean" for the splits without leaks that `prepare check` wrote.

    Raises:
      UserError: there is no such set, split or protocol.
    """
    return Prepared(find(root, name), split, protocol)


def find(root: Path, name: str) -> Path:
    """The folder of a set, DIR/NAME/VERSION.

    Raises:
      UserError: there is none.
    """
    folder = root / name / VERSION
    if name not in names(root):
        raise UserError(
            f"there is no prepared set {name!r} in {root}{nearest(name, names(root)) if names(root) else ''}; "
            "python -m tunevlseg_jax.prepare writes one",
            "no-such-data-set",
        )
    return folder


def splits(folder: Path) -> tuple[str, ...]:
    """The splits of a set, including aliases.

    Raises:
      UserError: the set can't be read.
    """
    return (*stored_splits(folder), *aliases(folder))


def names(root: Path) -> tuple[str, ...]:
    """The prepared sets in a data folder."""
    return tuple(sorted(path.parent.parent.name for path in root.glob(f"[!.]*/{VERSION}/features.json")))


def aliases(folder: Path) -> dict[str, str]:
    """The aliases of a set's splits: {"test": "val"} if test is val."""
    stored = read_object(folder / ALIASES_FILE)
    if wrong := [name for name in stored.values() if not isinstance(name, str)]:
        raise UserError(
            f"{folder / ALIASES_FILE} must name splits, got {wrong[0]!r}; prepare the set again", "wrong-json"
        )
    return stored


def stored_splits(folder: Path) -> tuple[str, ...]:
    """The stored splits of a set, without aliases.

    Raises:
      UserError: the set can't be read.
    """
    return tuple(sorted(_stored(folder), key=SPLITS.index))


def features() -> Any:
    """The format as a TFDS FeaturesDict."""
    import tensorflow_datasets as tfds

    text, image = tfds.features.Text(), tfds.features.Image
    return tfds.features.FeaturesDict(
        {
            "id": text,
            "group": text,
            "image": image(shape=(None, None, None)),
            "masks": tfds.features.Sequence(image(shape=(None, None, 1))),
            "spacing": tfds.features.Sequence(np.float64),
            "slice": tfds.features.Sequence({"volume": text, "spacing": np.float64, **dict.fromkeys(SLICE, np.int32)}),
            "records": tfds.features.Sequence({"id": text, "label": text, "mask": np.int32, "value": np.int32}),
            "prompts": tfds.features.Sequence({"record": np.int32, "level": np.int32, "text": text}),
        }
    )


def encode(example: Example) -> dict[str, Any]:
    """An example in the form that TFDS writes."""
    place = example.slice
    return {
        "id": example.id,
        "group": example.group,
        "image": example.image,
        "masks": list(example.masks),
        "spacing": list(example.spacing or ()),
        "slice": [] if place is None else [place._asdict() | {"spacing": place.spacing or 0.0}],
        "records": [
            {"id": record.id, "label": record.label, "mask": record.mask, "value": record.value}
            for record in example.records
        ],
        "prompts": [
            {"record": number, "level": level, "text": text}
            for number, record in enumerate(example.records)
            for level, phrasings in sorted(record.prompts.items())
            for text in phrasings
        ],
    }


def decode(stored: Mapping[str, Any]) -> Example:
    """The inverse of `encode`, from the form that TFDS reads."""
    records, prompts = stored["records"], stored["prompts"]
    levels: list[dict[int, tuple[str, ...]]] = [{} for _ in records["id"]]
    for number, level, text in zip(prompts["record"], prompts["level"], prompts["text"], strict=True):
        phrasings = levels[int(number)]
        phrasings[int(level)] = (*phrasings.get(int(level), ()), text.decode())
    spacing = tuple(map(float, stored.get("spacing", ())))  # sets of earlier versions have none
    return Example(
        id=stored["id"].decode(),
        group=stored["group"].decode(),
        image=stored["image"],
        masks=tuple(stored["masks"]),
        records=tuple(
            Record(id.decode(), label.decode(), int(mask), int(value), phrasings)
            for id, label, mask, value, phrasings in zip(
                records["id"], records["label"], records["mask"], records["value"], levels, strict=True
            )
        ),
        spacing=(spacing[0], spacing[1]) if spacing else None,
        slice=_slice(stored.get("slice", {"volume": ()})),  # likewise
    )


def _slice(stored: Mapping[str, Any]) -> VolumeSlice | None:
    """The place in the form that TFDS reads, a sequence of one or none."""
    if not len(stored["volume"]):
        return None
    numbers = {name: int(stored[name][0]) for name in SLICE}
    return VolumeSlice(stored["volume"][0].decode(), spacing=float(stored["spacing"][0]) or None, **numbers)


class _Encoded:
    """A TFDS decoder that leaves images encoded; TFDS's SkipDecoding doesn't work in a sequence."""

    def setup(self, *, feature: Any) -> None:
        """Called by TFDS first; does nothing."""

    def decode_example_np(self, data: Any) -> Any:
        """One image."""
        return data

    decode_batch_example_np = decode_example_np


def _stored(folder: Path) -> dict[str, Any]:
    """The stored splits by name, with encoded images."""
    import tensorflow_datasets as tfds

    encoded: Any = _Encoded()
    try:
        builder: Any = tfds.builder_from_directory(folder)
        return {
            split: builder.as_data_source(split, decoders={"image": encoded, "masks": encoded})
            for split, info in builder.info.splits.items()
            if info.num_examples
        }
    except Exception as error:  # TFDS raises various errors for files that it hasn't written
        raise UserError(f"can't read the prepared set in {folder}: {error}", "unreadable") from error


def _selected(folder: Path, split: str) -> list[SelectedExample]:
    """A split's examples in the clean protocol."""
    path = folder / CLEAN_FILE
    if not path.is_file():
        raise UserError(f"no {path}; prepare check {folder.parent.name} --protocol clean writes it", "no-clean-file")
    splits = read_object(path)
    if split not in splits:
        raise UserError(f"{path} has no split {split!r}{nearest(split, splits)}", "unknown-split")
    try:
        rows = [SelectedExample(row["split"], row["index"], frozenset(row["records"])) for row in splits[split]]
        if all(isinstance(row.split, str) and type(row.stored_index) is int for row in rows):
            return rows
    except (KeyError, TypeError):
        pass
    raise UserError(
        f"{path} has a row in {split!r} without split, index or records; prepare check {folder.parent.name} --protocol "
        "clean writes it again",
        "missing-field",
    )
