"""Names of Roboflow's exports, which hold augmented copies of images."""

import re
from pathlib import PurePosixPath

COPY = re.compile(r"(.+)_(?:jpe?g|png|bmp|tiff?|webp)\.rf\.[^.]+")


def group_of(image: str) -> str:
    """The image that an export made an augmented copy of, or ""; copies of one image stay together."""
    match = COPY.fullmatch(PurePosixPath(image).stem)
    return match[1] if match else ""
