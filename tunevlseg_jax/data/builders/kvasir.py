"""Kvasir-SEG (Jha et al. 2020): 1,000 polyps in colonoscopy.

Source: kvasir-seg.zip of datasets.simula.no, or its folder Kvasir-SEG with images/ID.jpg and masks/ID.jpg; an open
download for research and education. The masks are JPEG: grey above 127 is polyp.
"""

from functools import partial

from tunevlseg_jax.data.builders.items import paired_items
from tunevlseg_jax.data.builders.public import PublicSet, Sizes

KVASIR = PublicSet(
    name="kvasir",
    doc=__doc__,
    homepage="https://datasets.simula.no/kvasir-seg/",
    licence="research and education",
    sizes=Sizes(800, 100, 100),
    annotated="kvasir_polyp",
    items=partial(paired_items, images=r"images/([^/]+)\.jpg", masks=r"masks/([^/]+)\.jpg", label="polyp"),
)
