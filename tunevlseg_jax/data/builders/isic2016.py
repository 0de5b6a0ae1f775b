"""ISIC 2016, task 1: skin lesions in dermoscopy."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from tunevlseg_jax.data import mask_files
from tunevlseg_jax.data.builders.archives import SourceFiles
from tunevlseg_jax.data.builders.items import Item, pairs, single
from tunevlseg_jax.data.builders.public import PublicSet, Sizes

POOLS = {"Training": ("train", "val"), "Test": ("test",)}


class Isic2016(PublicSet, skip_registration=True):
    """ISIC 2016, part 1 (Gutman et al. 2016): 900 + 379 skin lesions in dermoscopy.

    Source: a folder with the four downloads of challenge.isic-archive.com, ISBI2016_ISIC_Part1_Training_Data.zip,
    _Training_GroundTruth.zip, _Test_Data.zip and _Test_GroundTruth.zip, unpacked or not; CC-0. The paper calls every
    lesion "skin melanoma", benign ones too. Its train split names one image twice and three of the test split.
    """

    name = "isic2016"
    homepage = "https://challenge.isic-archive.com/data/#2016"
    licence = "CC-0"
    sizes = Sizes(810, 90, 379)
    annotated = "isic"

    def items(self, source: SourceFiles) -> Iterable[Item]:
        """One item per image; an image in both parts belongs to the training part."""
        seen = set()
        for pool, splits in POOLS.items():
            part = f"ISBI2016_ISIC_Part1_{pool}"
            for key, image, mask in pairs(
                source, rf"{part}_Data/(ISIC_\d+)\.jpg", rf"{part}_GroundTruth/(ISIC_\d+)_Segmentation\.png"
            ):
                if key not in seen:
                    seen.add(key)
                    load = partial(
                        single,
                        source,
                        image,
                        mask,
                        mask_files.binary,
                        key=key,
                        record=f"{key}_Segmentation",
                        label="skin melanoma",
                    )
                    yield Item(key, load, splits=splits)
