"""Cityscapes (Cordts et al. 2016): 2,975 + 500 street scenes, 19 classes.

Source: a folder with leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip of cityscapes-dataset.com, unpacked
or not: leftImg8bit/{train,val}/CITY/*_leftImg8bit.png, gtFine/{train,val}/CITY/*_gtFine_labelIds.png; by
registration, non-commercial. A record for each evaluated class that an image shows. The ids that aren't evaluated
are void in the label map and background to every record. The test masks aren't public; test is val.
"""

from collections.abc import Iterator
from functools import partial

import numpy as np

from tunevlseg_jax.data import mask_files
from tunevlseg_jax.data.builders.archives import SourceFiles
from tunevlseg_jax.data.builders.items import Item, class_map, paired_files
from tunevlseg_jax.data.builders.public import PublicSet, Sizes
from tunevlseg_jax.data.builders.tables import Class
from tunevlseg_jax.data.examples import VOID

NAMES = {
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
CLASSES = [Class(name, (name,), value) for value, name in NAMES.items()]


def items(source: SourceFiles) -> Iterator[Item]:
    """One item per image; a city is a group."""
    for split in ("train", "val"):
        files = paired_files(
            source,
            rf"leftImg8bit/{split}/[^/]+/([^/]+)_leftImg8bit\.png",
            rf"gtFine/{split}/[^/]+/([^/]+)_gtFine_labelIds\.png",
        )
        for key, image, mask in files:
            load = partial(class_map, source, key, image, mask, _decode, CLASSES)
            yield Item(key, load, key.partition("_")[0], splits=(split,))


def _decode(data: bytes, name: str) -> np.ndarray:
    """(height, width) uint8 of the evaluated ids, and VOID."""
    labels, _ = mask_files.values(data, name)
    mask_files.check_values(labels, range(34), name)
    return np.where(np.isin(labels, list(NAMES)), labels, VOID).astype(np.uint8)


CITYSCAPES = PublicSet(
    name="cityscapes",
    doc=__doc__,
    homepage="https://www.cityscapes-dataset.com/",
    licence="non-commercial, by registration",
    sizes=Sizes(34723, 6005, 6005),
    test_is_val=True,
    items=items,
)
