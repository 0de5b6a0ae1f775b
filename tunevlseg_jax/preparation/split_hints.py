"""What the names of files and folders may say about splits and patients, where the patterns don't use it."""

import re
from collections.abc import Sequence
from itertools import islice

from tunevlseg_jax.data.builders import folder_splits
from tunevlseg_jax.data.builders.folder_splits import SPLIT_NAMES
from tunevlseg_jax.data.builders.user_files import ImageFiles

PREFIX = re.compile(rf"({'|'.join(SPLIT_NAMES)})([_. -])", re.IGNORECASE)


def hints(files: Sequence[ImageFiles], images: str, masks: str) -> list[str]:
    """Lines on images whose names begin with a split, and on folders that may be patients or videos.

    Args:
      files: the images, with the splits and groups that the patterns tell.
      images: pattern of the images.
      masks: pattern of the masks.
    """
    names = [] if any(one.split for one in files) else _of_names(files, images, masks)
    groups = [] if any(one.group for one in files) else _of_folders(files, images, masks)
    return names + groups


def _of_names(files: Sequence[ImageFiles], images: str, masks: str) -> list[str]:
    found = [PREFIX.match(one.image.rpartition("/")[2]) for one in files]
    starts = {(match[1], match[2]) for match in found if match}
    if (
        not all(found)
        or len({SPLIT_NAMES[word.lower()] for word, _ in starts}) < 2
        or len({end for _, end in starts}) > 1
    ):
        return []
    begins = " and ".join(sorted(word for word, _ in starts))
    return [
        f"note: the images' names begin with {begins}; to take these as splits give "
        + _options(images, masks, "{split}" + starts.pop()[1] + "{name}")
    ]


def _of_folders(files: Sequence[ImageFiles], images: str, masks: str) -> list[str]:
    depth = images.count("/") + 1
    folders = dict.fromkeys(one.image.split("/")[:-depth][-1] for one in files if one.image.count("/") >= depth)
    folders = [name for name in folders if not folder_splits.split_of(name, strict=False)]
    if len(folders) < 2 or "*" in images + masks:
        return []
    return [
        f"note: the images lie in {len(folders)} folders, such as {' and '.join(islice(folders, 2))}; if these are "
        "patients or videos, of which none may be in two splits, give "
        f'--images "{{group}}/{images}" --masks "{{group}}/{masks}"'
    ]


def _options(images: str, masks: str, name: str) -> str:
    return f'--images "{images.replace("{name}", name)}" --masks "{masks.replace("{name}", name)}"'
