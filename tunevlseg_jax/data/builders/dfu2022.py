"""DFUC 2022: ulcers in photographs of diabetic feet."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from tunevlseg_jax.data import mask_files
from tunevlseg_jax.data.builders.archives import SourceFiles
from tunevlseg_jax.data.builders.items import Item, pairs, single
from tunevlseg_jax.data.builders.public import PublicSet, Sizes


class Dfu2022(PublicSet, skip_registration=True):
    """DFUC 2022 (Kendrick et al. 2022): 2,000 photographs of diabetic feet with ulcers, 640x480.

    Source: DFUC2022_train_release.zip, or its folder with DFUC2022_train_images/ID.jpg and DFUC2022_train_masks/ID.png;
    by signed request to Manchester Metropolitan University, not to be passed on. The masks of the official validation
    and test releases aren't public, so the paper splits the training release.
    """

    name = "dfu2022"
    homepage = "https://dfu-challenge.github.io/dfuc2022.html"
    licence = "by signed request, no redistribution"
    sizes = Sizes(1600, 200, 200)
    annotated = "dfu"

    def items(self, source: SourceFiles) -> Iterable[Item]:
        """One item per image."""
        images, masks = r"DFUC2022_train_images/([^/]+)\.jpg", r"DFUC2022_train_masks/([^/]+)\.png"
        for key, image, mask in pairs(source, images, masks):
            load = partial(single, source, image, mask, mask_files.binary, key=key, record=key, label="foot ulcer")
            yield Item(key, load)
