"""Cityscapes: street scenes."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

import numpy as np

from tunevlseg_jax.data import mask_files
from tunevlseg_jax.data.builders import classmaps
from tunevlseg_jax.data.builders.archives import SourceFiles
from tunevlseg_jax.data.builders.items import Item, pairs
from tunevlseg_jax.data.builders.public import PublicSet, Sizes
from tunevlseg_jax.data.prepared import VOID, Example

CLASSES = {
    7: "road",
    8: "sidewalk",
    11: "building",
    12: "wall",
    13: "fence",
    17: "pole",
    19: "traffic light",
    20: "traffic sign",
    21: "vegetation",
    22: "terrain",
    23: "sky",
    24: "person",
    25: "rider",
    26: "car",
    27: "truck",
    28: "bus",
    31: "train",
    32: "motorcycle",
    33: "bicycle",
}
"""The 19 evaluated classes, by labelId."""


class Cityscapes(PublicSet, skip_registration=True):
    """Cityscapes (Cordts et al. 2016): 2,975 + 500 street scenes, 19 classes.

    Source: a folder with leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip of cityscapes-dataset.com, unpacked
    or not: leftImg8bit/{train,val}/CITY/*_leftImg8bit.png, gtFine/{train,val}/CITY/*_gtFine_labelIds.png; by
    registration, non-commercial. A record for each evaluated class that an image shows. The ids that aren't evaluated
    are void in the label map and background to every record. The test masks aren't public; test is val.
    """

    name = "cityscapes"
    homepage = "https://www.cityscapes-dataset.com/"
    licence = "non-commercial, by registration"
    sizes = Sizes(34723, 6005, 6005)
    test_is_val = True

    def items(self, source: SourceFiles) -> Iterable[Item]:
        """One item per image; a city is a group."""
        for split in ("train", "val"):
            files = pairs(
                source,
                rf"leftImg8bit/{split}/[^/]+/([^/]+)_leftImg8bit\.png",
                rf"gtFine/{split}/[^/]+/([^/]+)_gtFine_labelIds\.png",
            )
            for key, image, mask in files:
                city = key.partition("_")[0]
                yield Item(key, partial(_load, source, key, city, image, mask), city, splits=(split,))


def _load(source: SourceFiles, key: str, city: str, image: str, mask: str) -> Example:
    encoded, size = mask_files.image(source.read(image), image)
    labels, _ = mask_files.values(source.read(mask), mask)
    mask_files.check_size(labels, size, mask, image)
    mask_files.check_values(labels, range(34), mask)
    return classmaps.example(
        key, city, encoded, np.where(np.isin(labels, list(CLASSES)), labels, VOID).astype(np.uint8), CLASSES
    )
