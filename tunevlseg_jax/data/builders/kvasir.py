"""Kvasir-SEG: polyps in colonoscopy."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from tunevlseg_jax.data import mask_files
from tunevlseg_jax.data.builders.archives import SourceFiles
from tunevlseg_jax.data.builders.items import Item, pairs, single
from tunevlseg_jax.data.builders.public import PublicSet, Sizes


class Kvasir(PublicSet, skip_registration=True):
    """Kvasir-SEG (Jha et al. 2020): 1,000 polyps in colonoscopy.

    Source: kvasir-seg.zip of datasets.simula.no, or its folder Kvasir-SEG with images/ID.jpg and masks/ID.jpg; an open
    download for research and education. The masks are JPEG: grey above 127 is polyp.
    """

    name = "kvasir"
    homepage = "https://datasets.simula.no/kvasir-seg/"
    licence = "research and education"
    sizes = Sizes(800, 100, 100)
    annotated = "kvasir_polyp"

    def items(self, source: SourceFiles) -> Iterable[Item]:
        """One item per image."""
        for key, image, mask in pairs(source, r"images/([^/]+)\.jpg", r"masks/([^/]+)\.jpg"):
            yield Item(key, partial(single, source, image, mask, mask_files.binary, key=key, record=key, label="polyp"))
