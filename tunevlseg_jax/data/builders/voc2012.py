"""PASCAL VOC 2012: objects in photographs."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from tunevlseg_jax.data import mask_files
from tunevlseg_jax.data.builders import classmaps
from tunevlseg_jax.data.builders.archives import SourceFiles
from tunevlseg_jax.data.builders.items import Item
from tunevlseg_jax.data.builders.public import PublicSet, Sizes
from tunevlseg_jax.data.mask_files import Colour
from tunevlseg_jax.data.prepared import VOID, Example
from tunevlseg_jax.runtime.errors import UserError

NAMES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog"),
    *("horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
CLASSES = dict(enumerate(NAMES, 1))


class Voc2012(PublicSet, skip_registration=True):
    """PASCAL VOC 2012 segmentation (Everingham et al. 2012): 1,464 + 1,449 photographs, 20 classes.

    Source: VOCtrainval_11-May-2012.tar, or its folder VOCdevkit/VOC2012 with JPEGImages, SegmentationClass and
    ImageSets/Segmentation; open, under Flickr's terms. A record for each class that an image shows; class names are
    written without spaces, as in the paper. Void, the outlines, stays void in the label map and is background to every
    record. The test masks aren't public; test is val.
    """

    name = "voc2012"
    homepage = "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/"
    licence = "Flickr terms of use"
    sizes = Sizes(2170, 2148, 2148)
    test_is_val = True

    def items(self, source: SourceFiles) -> Iterable[Item]:
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
                yield Item(key, partial(_load, source, key, images[key], masks[key]), splits=(split,))


def _load(source: SourceFiles, key: str, image: str, mask: str) -> Example:
    encoded, size = mask_files.image(source.read(image), image)
    data = source.read(mask)
    labels, _ = mask_files.values(data, mask)
    if labels.ndim == 3:  # a copy whose palette has been turned into colours
        labels = mask_files.by_colour(data, mask, {_colour(value): value for value in (0, *CLASSES, VOID)})
    mask_files.check_size(labels, size, mask, image)
    mask_files.check_values(labels, (0, *CLASSES, VOID), mask)
    return classmaps.example(key, "", encoded, labels, CLASSES)


def _colour(value: int) -> Colour:
    """VOC's colour of a value: its bits go to red, green and blue in turn, filling each from its highest bit."""
    channels = [0, 0, 0]
    for bit in range(8):
        channels[bit % 3] |= (value >> bit & 1) << (7 - bit // 3)
    return channels[0], channels[1], channels[2]
