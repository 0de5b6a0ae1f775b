"""BUSI (Al-Dhabyani et al. 2020): 780 breast ultrasound images, 437 benign, 210 malignant, 133 normal.

Source: Dataset_BUSI_with_GT.zip (Cairo University, Kaggle), or its folder with benign/, malignant/ and normal/;
CC-0 on Kaggle, CC BY 4.0 in the article. A mask is the union of an image's "_mask.png", "_mask_1.png", ...; some
have colours or alpha, which are ignored. The normal images' masks are empty, and the paper's prompt says so:
"No tumor ...". Some images are near copies of others, "benign (433)" of "malignant (145)". `check` reports both.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np

from tunevlseg_jax.data import mask_files
from tunevlseg_jax.data.builders.archives import SourceFiles
from tunevlseg_jax.data.builders.items import Content, Item
from tunevlseg_jax.data.builders.public import PublicSet, Sizes
from tunevlseg_jax.data.examples import LEVEL, Record
from tunevlseg_jax.data.images import encode_png
from tunevlseg_jax.runtime.errors import UserError

KIND = r"(benign|malignant|normal) \((\d+)\)"
PROMPTS = {
    "benign": "Tumor in the breast ultrasound image.",
    "malignant": "Tumor in the breast ultrasound image.",
    "normal": "No tumor in the breast ultrasound image.",
}


def items(source: SourceFiles) -> Iterator[Item]:
    """One item per image; seeded splits have the same shares of benign, malignant and normal."""
    masks = defaultdict(list)
    for name, match in source.find(rf"{KIND}_mask(?:_\d+)?\.png"):
        masks[match[1], match[2]].append(name)
    for image, match in source.find(rf"{KIND}\.png"):
        kind, number = match[1], match[2]
        if not masks[kind, number]:
            raise UserError(f"{image} in {source} has no mask", "mask-missing")
        key = f"{number}_{kind}"
        yield Item(key, partial(_load, source, key, PROMPTS[kind], image, masks[kind, number]), stratum=kind)


def _load(source: SourceFiles, key: str, prompt: str, image: str, masks: Sequence[str]) -> Content:
    encoded, size = mask_files.image(source.read(image), image)
    tumour = np.zeros(size, bool)
    for mask in masks:
        part = mask_files.binary(source.read(mask), mask)
        mask_files.check_size(part, size, mask, image)
        tumour |= part
    record = Record(key, "tumor", 0, 1, {LEVEL: (prompt,)})
    return Content(encoded, (encode_png(tumour.astype(np.uint8)),), (record,))


BUSI = PublicSet(
    name="busi",
    doc=__doc__,
    homepage="https://scholar.cu.edu.eg/?q=afahmy/pages/dataset",
    licence="CC-0 / CC BY 4.0",
    sizes=Sizes(624, 78, 78),
    annotated="busi",
    items=items,
)
