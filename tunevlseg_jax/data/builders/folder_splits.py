"""Splits that names tell: of folders such as `train/images`, `imagesTr` and `Test_Dataset`, and of files."""

import os.path
import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping
from pathlib import PurePosixPath

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
OTHER_NAMES = NNUNET | {
    "trn": "train",
    **dict.fromkeys(("va", "vl", "vld", "eval", "evaluation"), "val"),
    **dict.fromkeys(("te", "tst", "holdout", "teste", "testes"), "test"),
}
"""Words that tell a split only where the names tell train and another one."""
ROOTS = {
    "train": (
        *("training", "entren", "entrain", "apprent", "trein", "addestr", "egitim", "обуч"),
        *("训练", "訓練", "学習", "학습", "훈련"),
    ),
    "val": ("valid", "dogrula", "валид", "验证", "驗證", "検証", "검증"),
    "test": ("testdat", "prueb", "prova", "тест", "测试", "測試", "テスト", "테스트", "시험"),
}
"""The beginnings of such words in other languages, without accents."""
IMAGE_WORDS = ("images", "image", "imgs", "img", "photos", "frames", "inputs", "jpegimages")
MASK_WORDS = (
    *("masks", "mask", "labels", "label", "annotations", "annotation", "segmentations", "segmentation"),
    *("groundtruth", "truth", "gts", "gt", "targets", "ann", "anns", "annot", "annots"),
    *("masken", "masque", "masques", "mascara", "mascaras", "maschere", "掩码", "掩膜", "标注", "マスク"),
)
OTHER_WORDS = ("data", "dataset", "datasets", "set", "sets", "split", "splits", "ground", "folder", "input")


def split_of(folder: str, *, strict: bool = True) -> str:
    """The split that a folder's name tells, "" if it tells none.

    Args:
      folder: the name, without its parents.
      strict: whether other words in it must be general ones such as images and dataset, and short and foreign words
        tell nothing.
    """
    words = [word.lower() for word in words_of(folder)]
    general = (*IMAGE_WORDS, *MASK_WORDS, *OTHER_WORDS)
    names = SPLIT_NAMES | (NNUNET if words and words[0] in (*IMAGE_WORDS, *MASK_WORDS) else {})
    splits = [_of_word(word, names, strict) for word in words]
    named = set(splits) - {""}
    if len(named) != 1:
        return ""
    others = {word for word, split in zip(words, splits, strict=True) if not split}
    return "" if strict and not others <= set(general) else named.pop()


def _of_word(word: str, names: Mapping[str, str], strict: bool) -> str:
    split = names.get(word) or names.get(word.removesuffix("set"), "")
    if split or strict:
        return split
    return OTHER_NAMES.get(word) or next((split for split, roots in ROOTS.items() if word.startswith(roots)), "")


def words_of(folder: str) -> list[str]:
    """The words of a name without accents, apart at digits, punctuation and capitals: imagesTr is images and Tr."""
    apart = unicodedata.normalize("NFKD", folder)
    plain = unicodedata.normalize("NFC", "".join(char for char in apart if not unicodedata.combining(char)))
    return re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[^\W\da-zA-Z_]+", plain)


def of_files(paths: Mapping[str, Collection[str]]) -> dict[str, str]:
    """The split of each file, {} if their folders tell none.

    Folders above all of the files count only if those below tell nothing. A name with other words in it, such as
    ISIC_Part1_Training_Data, and short and foreign words count only if the names tell train and another split, or if
    they complete what the others tell.

    Args:
      paths: the files, and for each the names of folders that tell something else, such as a class.

    Raises:
      UserError: some of the files lie in such folders and others don't, or a file lies in folders of two splits.
    """
    common = len(_parents(os.path.commonpath([f"/{path}" for path in paths]) + "/")) if paths else 0
    for strict in (True, False):
        for begin, end in ((common, None), (0, common)):
            found = _of_paths(paths, slice(begin, end), strict)
            if not any(found.values()):
                continue
            if strict and not all(found.values()):
                complete = _of_paths(paths, slice(begin, end), strict=False)
                return complete if all(complete.values()) else _checked(found)
            if strict or ("train" in found.values() and len(set(found.values()) - {""}) > 1):
                return _checked(found)
    return {}


def of_names(files: Iterable[str]) -> dict[str, str]:
    """The split that each file's name begins or ends with, as in train_1.png; {} unless all do, with several splits."""
    found = {file: _of_ends(PurePosixPath(file).stem) for file in files}
    return found if all(found.values()) and len(set(found.values())) > 1 else {}


def _of_ends(name: str) -> str:
    words = re.split(r"[_. -]+", name.lower())
    splits = {SPLIT_NAMES.get(words[0], ""), SPLIT_NAMES.get(words[-1], "")} - {""}
    return splits.pop() if len(splits) == 1 else ""


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


def _of_paths(paths: Mapping[str, Collection[str]], part: slice, strict: bool) -> dict[str, str]:
    return {path: _of_path(path, others, part, strict) for path, others in paths.items()}


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
