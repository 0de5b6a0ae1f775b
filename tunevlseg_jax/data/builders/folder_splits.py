"""Splits that the names of folders tell, such as `train/images`, `images/valid`, `imagesTr` and `Test_Dataset`."""

import os.path
import re
from collections.abc import Collection, Mapping

from tunevlseg_jax.data.examples import SPLITS
from tunevlseg_jax.runtime.errors import UserError

SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}
NNUNET = {"tr": "train", "ts": "test"}
"""Of nnU-Net's folders imagesTr, labelsTr, imagesTs and labelsTs."""
IMAGE_WORDS = ("images", "image", "imgs", "img", "photos", "frames", "inputs", "jpegimages")
MASK_WORDS = (
    *("masks", "mask", "labels", "label", "annotations", "annotation", "segmentations", "segmentation"),
    *("groundtruth", "truth", "gts", "gt", "targets", "ann", "anns", "annot", "annots"),
)
OTHER_WORDS = ("data", "dataset", "datasets", "set", "sets", "split", "splits", "ground", "folder", "input")


def split_of(folder: str, *, strict: bool = True) -> str:
    """The split that a folder's name tells, "" if it tells none.

    Args:
      folder: the name, without its parents.
      strict: whether other words in it must be general ones such as images and dataset.
    """
    words = [word.lower() for word in words_of(folder)]
    general = (*IMAGE_WORDS, *MASK_WORDS, *OTHER_WORDS)
    names = SPLIT_NAMES | (NNUNET if words and words[0] in (*IMAGE_WORDS, *MASK_WORDS) else {})
    named = {names.get(word, names.get(word.removesuffix("set"), "")) for word in words} - {""}
    if len(named) != 1:
        return ""
    others = [word for word in words if word not in names and word.removesuffix("set") not in names]
    return "" if strict and not set(others) <= set(general) else named.pop()


def words_of(folder: str) -> list[str]:
    """The words of a name, apart at digits, punctuation and capitals: imagesTr is images and Tr."""
    return re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", folder)


def of_files(paths: Mapping[str, Collection[str]]) -> dict[str, str]:
    """The split of each file, {} if their folders tell none.

    Folders above all of the files count only if those below tell nothing. A name with other words in it, such as
    ISIC_Part1_Training_Data, counts only if the names tell train and another split.

    Args:
      paths: the files, and for each the names of folders that tell something else, such as a class.

    Raises:
      UserError: some of the files lie in such folders and others don't, or a file lies in folders of two splits.
    """
    common = len(_parents(os.path.commonpath([f"/{path}" for path in paths]) + "/")) if paths else 0
    for strict in (True, False):
        for begin, end in ((common, None), (0, common)):
            found = {path: _of_path(path, paths[path], slice(begin, end), strict) for path in paths}
            if not any(found.values()):
                continue
            if strict or ("train" in found.values() and len(set(found.values()) - {""}) > 1):
                return _checked(found)
    return {}


def abstract(folder: str) -> str:
    """A folder's path as a pattern, with {split} in place of the word that tells the split."""
    return "/".join(_abstract(part) for part in folder.split("/"))


def _abstract(part: str) -> str:
    if not split_of(part):
        return part
    word = next(word for word in words_of(part) if word.lower() in SPLIT_NAMES | NNUNET)
    return part.replace(word, "{split}", 1)


def _parents(path: str) -> list[str]:
    return [part for part in path.split("/")[:-1] if part]


def _of_path(path: str, others: Collection[str], part: slice, strict: bool) -> str:
    parents = [name for name in _parents(path)[part] if name not in others]
    splits = {split_of(name, strict=strict) for name in parents} - {""}
    if len(splits) > 1:
        raise UserError(
            f"{path} lies in folders of two splits, {' and '.join(sorted(splits))}; say which counts by {{split}} in "
            "the patterns or by a manifest's column split, or give --splits random",
            "split-unclear",
        )
    return splits.pop() if splits else ""


def _checked(found: dict[str, str]) -> dict[str, str]:
    without = [path for path, split in found.items() if not split]
    if without:
        path, split = next((path, split) for path, split in found.items() if split)
        raise UserError(
            f"{path} lies in a folder of the split {split}, but {without[0]} in none; move it into one of "
            f"{', '.join(SPLITS)}, or give --splits random",
            "split-missing",
        )
    return found
