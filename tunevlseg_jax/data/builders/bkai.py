"""BKAI-IGH NeoPolyp-Small (Lan et al. 2021): 1,000 images of polyps in colonoscopy.

Source: the Kaggle competition's bkai-igh-neopolyp.zip, or its folder with train/train/ID.jpeg and
train_gt/train_gt/ID.jpeg; its rules must be accepted, non-commercial. The masks are JPEG, red for neoplastic and
green for other polyps; a pixel counts as the nearest of these colours and black, and both kinds are "polyp". The
paper's split names 996 of the images. Four images have two names each, of which three are in two splits; other frames
are in two splits in two modes of light; and six prompts say "no polyp" of images with one, as `check` reports.
"""

from functools import partial

import numpy as np

from tunevlseg_jax.data import mask_files
from tunevlseg_jax.data.builders.items import paired_items
from tunevlseg_jax.data.builders.public import PublicSet, Sizes

COLOURS = {(0, 0, 0): 0, (255, 0, 0): 1, (0, 255, 0): 2}
"""Background, neoplastic, not neoplastic."""


def _polyp(data: bytes, name: str) -> np.ndarray:
    """(height, width) bool, either kind of polyp."""
    return mask_files.by_colour(data, name, COLOURS, nearest=True) > 0


BKAI = PublicSet(
    name="bkai",
    doc=__doc__,
    homepage="https://www.kaggle.com/c/bkai-igh-neopolyp",
    licence="non-commercial, competition rules",
    sizes=Sizes(800, 100, 100),
    annotated="bkai_polyp",
    items=partial(
        paired_items,
        images=r"train/([^/]+)\.jpe?g",
        masks=r"train_gt/([^/]+)\.jpe?g",
        label="polyp",
        decode=_polyp,
    ),
)
