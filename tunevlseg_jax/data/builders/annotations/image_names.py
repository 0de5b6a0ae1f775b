"""Finds the images that annotation files name, whatever folder or computer they were annotated in."""

from collections import defaultdict
from collections.abc import Iterable
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

from tunevlseg_jax.data.builders import folder_splits
from tunevlseg_jax.data.builders.archives import SourceFiles, composed
from tunevlseg_jax.data.images import SUFFIXES
from tunevlseg_jax.runtime.errors import UserError

FOLDERS = ("images", "img", "jpegimages", "data")
"""Folders that tools keep images in; others of the same name may be masks."""


def file_splits(files: Iterable[str]) -> dict[str, str]:
    """The splits that the names of annotation files and their folders tell, as in instances_val2017.json; or {}.

    Raises:
      UserError: as in `folder_splits.of_files`.
    """
    folders = {str(PurePosixPath(file).with_suffix("")) + "/": file for file in files}
    return {folders[folder]: split for folder, split in folder_splits.of_files(dict.fromkeys(folders, ())).items()}


def _split_in(path: str) -> str:
    parts = PurePosixPath(path).with_suffix("").parts[::-1]
    return next(filter(None, (folder_splits.split_of(part, strict=False) for part in parts)), "")


class ImageNames:
    """The images of a source by the last part of their path."""

    def __init__(self, source: SourceFiles):
        self.source = source
        self._by_name: dict[str, list[str]] = defaultdict(list)
        for name in source.names:
            if name.lower().endswith(SUFFIXES):
                self._by_name[name.rpartition("/")[2]].append(name)

    def __contains__(self, given: str) -> bool:
        return _parts(given)[-1] in self._by_name

    def find(self, given: str, file: str, where: str) -> str:
        """The image that an annotation file names.

        Args:
          given: the name: a path from any place, or an address.
          file: the annotation file.
          where: the entry, for error messages.

        Raises:
          UserError: the source has no such image, or several.
        """
        parts = _parts(given)
        candidates = self._by_name.get(parts[-1], []) if parts else []
        if not candidates:
            raise UserError(f"{where} names the image {given!r}, which {self.source} lacks", "image-missing")
        ranked = sorted(candidates, key=lambda name: _rank(name, parts, file))
        if len(ranked) > 1 and _rank(ranked[-1], parts, file) == _rank(ranked[-2], parts, file):
            raise UserError(
                f"{where} names the image {given!r}, which may be {ranked[-2]} or {ranked[-1]}; remove one, or give "
                "one folder as --source",
                "duplicate-image",
            )
        return ranked[-1]


def _parts(given: str) -> list[str]:
    path = given.replace("\\", "/")
    if "://" in path:
        path = unquote(urlsplit(path).path)
    return [part for part in composed(path).split("/") if part not in ("", ".", "..")]


def _rank(name: str, parts: list[str], file: str) -> tuple[int, bool, int, bool]:
    """How well a file fits: folders in common with the given path, the split, and folders shared with the file."""
    own, folder = name.split("/"), file.split("/")[:-1]
    tail = _common(own[::-1], parts[::-1])
    split = _split_in(file)
    return (
        tail,
        bool(split) and split == _split_in(name),
        _common(own, folder),
        FOLDERS.count("/".join(own[-2:-1]).lower()) > 0,
    )


def _common(a: list[str], b: list[str]) -> int:
    count = 0
    for one, other in zip(a, b, strict=False):
        if one != other:
            break
        count += 1
    return count
