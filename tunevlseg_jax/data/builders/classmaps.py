"""Examples with one map of mutually exclusive classes, for Cityscapes and VOC."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tunevlseg_jax.data.images import encode_png
from tunevlseg_jax.data.mask_files import distinct
from tunevlseg_jax.data.prepared import LEVEL, Example, Record


def example(key: str, group: str, image: bytes, labels: np.ndarray, classes: Mapping[int, str]) -> Example:
    """An image with one label map, and a record for each class in it whose prompt is the class's name.

    Args:
      key: the image's name.
      group: as in `Example`.
      image: encoded.
      labels: (height, width) uint8.
      classes: names by value; other values have no record.
    """
    present = distinct(labels)
    records = tuple(
        Record(f"{name}/{key}", name, 0, value, {LEVEL: (name,)}) for value, name in classes.items() if value in present
    )
    return Example(key, group, image, (encode_png(labels),), records)
