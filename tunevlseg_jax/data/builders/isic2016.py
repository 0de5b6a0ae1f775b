"""ISIC 2016, part 1 (Gutman et al. 2016): 900 + 379 skin lesions in dermoscopy.

Source: a folder with the four downloads of challenge.isic-archive.com, ISBI2016_ISIC_Part1_Training_Data.zip,
_Training_GroundTruth.zip, _Test_Data.zip and _Test_GroundTruth.zip, unpacked or not; CC-0. Part 3B holds the same
images, in ISBI2016_ISIC_Part3B_Training_Data.zip and _Test_Data.zip, with the masks beside them; it is read where a
download of part 1 is missing. The paper calls every lesion "skin melanoma", benign ones too. Its train split names one
image twice and three of the test split.
"""

import dataclasses
from collections.abc import Iterator, Sequence

from tunevlseg_jax.data.builders.archives import SourceFiles
from tunevlseg_jax.data.builders.items import Item, paired_items
from tunevlseg_jax.data.builders.public import PublicSet, Sizes

POOLS = {"Training": ("train", "val"), "Test": ("test",)}
PARTS = ("ISBI2016_ISIC_Part1", "ISBI2016_ISIC_Part3B", "ISBI2016_ISIC_Part3")
"""The downloads' names that hold these images, the first the one that the paper used."""


def items(source: SourceFiles) -> Iterator[Item]:
    """One item per image; an image in both parts belongs to the training part."""
    seen = set()
    for pool, splits in POOLS.items():
        images = _first(source, [rf"{part}_{pool}_Data/(ISIC_\d+)\.jpg" for part in PARTS])
        folders = [rf"{part}_{pool}_{kind}" for kind in ("GroundTruth", "Data") for part in PARTS]
        masks = _first(source, [rf"{folder}/(ISIC_\d+)_Segmentation\.png" for folder in folders])
        for item in paired_items(source, images, masks, "skin melanoma", id_suffix="_Segmentation"):
            if item.key not in seen:
                seen.add(item.key)
                yield dataclasses.replace(item, splits=splits)


def _first(source: SourceFiles, patterns: Sequence[str]) -> str:
    """The first pattern that any file matches, or else the first."""
    return next((pattern for pattern in patterns if any(source.find(pattern))), patterns[0])


ISIC2016 = PublicSet(
    name="isic2016",
    doc=__doc__,
    homepage="https://challenge.isic-archive.com/data/#2016",
    licence="CC-0",
    sizes=Sizes(810, 90, 379),
    annotated="isic",
    items=items,
)
