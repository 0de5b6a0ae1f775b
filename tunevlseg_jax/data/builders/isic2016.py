"""ISIC 2016, part 1 (Gutman et al. 2016): 900 + 379 skin lesions in dermoscopy.

Source: a folder with the four downloads of challenge.isic-archive.com, ISBI2016_ISIC_Part1_Training_Data.zip,
_Training_GroundTruth.zip, _Test_Data.zip and _Test_GroundTruth.zip, unpacked or not; CC-0. The paper calls every
lesion "skin melanoma", benign ones too. Its train split names one image twice and three of the test split.
"""

import dataclasses
from collections.abc import Iterator

from tunevlseg_jax.data.builders.archives import SourceFiles
from tunevlseg_jax.data.builders.items import Item, paired_items
from tunevlseg_jax.data.builders.public import PublicSet, Sizes

POOLS = {"Training": ("train", "val"), "Test": ("test",)}


def items(source: SourceFiles) -> Iterator[Item]:
    """One item per image; an image in both parts belongs to the training part."""
    seen = set()
    for pool, splits in POOLS.items():
        part = f"ISBI2016_ISIC_Part1_{pool}"
        images, masks = rf"{part}_Data/(ISIC_\d+)\.jpg", rf"{part}_GroundTruth/(ISIC_\d+)_Segmentation\.png"
        for item in paired_items(source, images, masks, "skin melanoma", id_suffix="_Segmentation"):
            if item.key not in seen:
                seen.add(item.key)
                yield dataclasses.replace(item, splits=splits)


ISIC2016 = PublicSet(
    name="isic2016",
    doc=__doc__,
    homepage="https://challenge.isic-archive.com/data/#2016",
    licence="CC-0",
    sizes=Sizes(810, 90, 379),
    annotated="isic",
    items=items,
)
