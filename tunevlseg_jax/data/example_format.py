"""The form of an example in a prepared set, which is written and read without TensorFlow.

One example is one image with all its records. TFDS can't store nested sequences without TensorFlow, so prompts are a
separate sequence and refer to their record:

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
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tunevlseg_jax.data.examples import Example, Record
from tunevlseg_jax.data.volume_slice import VolumeSlice
from tunevlseg_jax.runtime.errors import UserError

SLICE = ("number", "step", "prepared", "total")
"""The whole numbers of a `VolumeSlice`."""


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


def open_splits(folder: Path) -> dict[str, Any]:
    """The stored splits of a set by name, with encoded images.

    Raises:
      UserError: the set can't be read.
    """
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
        raise UserError(f"can't read the prepared set in {folder}: {error}; prepare it again", "unreadable") from error
