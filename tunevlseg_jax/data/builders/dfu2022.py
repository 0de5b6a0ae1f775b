"""DFUC 2022 (Kendrick et al. 2022): 2,000 photographs of diabetic feet with ulcers, 640x480.

Source: DFUC2022_train_release.zip, or its folder with DFUC2022_train_images/ID.jpg and DFUC2022_train_masks/ID.png;
by signed request to Manchester Metropolitan University, not to be passed on. The masks of the official validation
and test releases aren't public, so the paper splits the training release.
"""

from functools import partial

from tunevlseg_jax.data.builders.items import paired_items
from tunevlseg_jax.data.builders.public import PublicSet, Sizes

DFU2022 = PublicSet(
    name="dfu2022",
    doc=__doc__,
    homepage="https://dfu-challenge.github.io/dfuc2022.html",
    licence="by signed request, no redistribution",
    sizes=Sizes(1600, 200, 200),
    annotated="dfu",
    items=partial(
        paired_items,
        images=r"DFUC2022_train_images/([^/]+)\.jpg",
        masks=r"DFUC2022_train_masks/([^/]+)\.png",
        label="foot ulcer",
    ),
)
