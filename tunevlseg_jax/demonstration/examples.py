"""Examples: images of the test split of the first run's data set, with what they show."""

import dataclasses
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tunevlseg_jax.data import prepared, registry
from tunevlseg_jax.data.images import encode_png
from tunevlseg_jax.data.prepared import Prepared
from tunevlseg_jax.data.registry import SCENES
from tunevlseg_jax.data.scene_domains import SIZE
from tunevlseg_jax.data.settings import Data
from tunevlseg_jax.demonstration.answers import data_url, thumbnail
from tunevlseg_jax.runtime.errors import UserError

COUNT = 8


class ShownExample(NamedTuple):
    """An image to try.

    Attributes:
      name: in the data set.
      phrases: the first phrasings of its records.
      image: an encoded image.
      thumbnail: a data URL.
    """

    name: str
    phrases: tuple[str, ...]
    image: bytes
    thumbnail: str


def load(data: Data) -> list[ShownExample]:
    """The first images of the test split, or of val where there is no test; none if the set is no longer there."""
    try:
        return list(itertools.islice(_scenes(data) if data.name in SCENES else _prepared(data), COUNT))
    except UserError:  # a run can be shown without its data
        return []


def _scenes(data: Data) -> Iterator[ShownExample]:
    few = dataclasses.replace(data.scenes, test=min(COUNT, data.scenes.test))  # more would only add to their end
    records = registry.load(dataclasses.replace(data, scenes=few), "test", (SIZE, SIZE))
    for row in range(len(records)):
        (phrase, *_) = records.prompts[records.prompt[row]]
        image = encode_png(records.images[records.image[row]])
        yield ShownExample(records.names[records.image[row]], (phrase,), image, data_url(image, "png"))


def _prepared(data: Data) -> Iterator[ShownExample]:
    folder = prepared.find(Path(data.root), data.name)
    split = "test" if "test" in registry.splits(data) else "val"
    for example in Prepared(folder, split, data.protocol, data.fold):
        phrases = (record.phrasings(data.prompt_index)[0] for record in example.records)
        yield ShownExample(example.id, tuple(dict.fromkeys(phrases)), example.image, thumbnail(example.rgb()))
