"""PASCAL VOC 2012 segmentation (Everingham et al. 2012): 1,464 + 1,449 photographs, 20 classes.

Source: VOCtrainval_11-May-2012.tar, or its folder VOCdevkit/VOC2012 with JPEGImages, SegmentationClass and
ImageSets/Segmentation; open, under Flickr's terms. A record for each class that an image shows; class names are
written without spaces, as in the paper. Void, the outlines, stays void in the label map and is background to every
record. The test masks aren't public; test is val.
"""

from collections.abc import Iterator
from functools import partial

import numpy as np

from tunevlseg_jax.data import mask_files
from tunevlseg_jax.data.builders.archives import SourceFiles
from tunevlseg_jax.data.builders.items import Item, class_map
from tunevlseg_jax.data.builders.public import PublicSet, Sizes
from tunevlseg_jax.data.builders.tables import Class
from tunevlseg_jax.data.examples import VOID
from tunevlseg_jax.data.mask_files import Colour
from tunevlseg_jax.runtime.errors import UserError

NAMES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog"),
    *("horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
CLASSES = [Class(name, (name,), value) for value, name in enumerate(NAMES, 1)]


def items(source: SourceFiles) -> Iterator[Item]:
    """One item per image of the segmentation lists."""
    lists = {
        split: source.read(name).decode().split()
        for split in ("train", "val")
        for name, _ in source.find(rf"ImageSets/Segmentation/{split}\.txt")
    }
    images = {match[1]: name for name, match in source.find(r"JPEGImages/([^/]+)\.jpg")}
    masks = {match[1]: name for name, match in source.find(r"SegmentationClass/([^/]+)\.png")}
    for split, keys in lists.items():
        for key in keys:
            if key not in images or key not in masks:
                raise UserError(f"{source} lacks the image or the mask of {key} in {split}.txt", "image-missing")
            yield Item(key, partial(class_map, source, key, images[key], masks[key], _decode, CLASSES), splits=(split,))


def _decode(data: bytes, name: str) -> np.ndarray:
    """(height, width) uint8 of a label map, also of a copy whose palette has been turned into colours."""
    allowed = (*range(len(NAMES) + 1), VOID)
    labels, _ = mask_files.values(data, name)
    if labels.ndim == 3:
        labels = mask_files.by_colour(data, name, {colour(value): value for value in allowed})
    mask_files.check_values(labels, allowed, name)
    return labels


def colour(value: int) -> Colour:
    """VOC's colour of a value: its bits go to red, green and blue in turn, filling each from its highest bit."""
    channels = [0, 0, 0]
    for bit in range(8):
        channels[bit % 3] |= (value >> bit & 1) << (7 - bit // 3)
    return channels[0], channels[1], channels[2]


VOC2012 = PublicSet(
    name="voc2012",
    doc=__doc__,
    homepage="http://host.robots.ox.ac.uk/pascal/VOC/voc2012/",
    licence="Flickr terms of use",
    sizes=Sizes(2170, 2148, 2148),
    test_is_val=True,
    items=items,
)
