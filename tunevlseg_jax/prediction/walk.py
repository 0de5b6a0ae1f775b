"""Finds the files that a command line means: files, patterns, folders, and standard input."""

import glob
import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from tunevlseg_jax.prediction.frames import KNOWN
from tunevlseg_jax.runtime.errors import UserError
from tunevlseg_jax.runtime.files import check_name

STDIN = "-"


@dataclass(frozen=True)
class Found:
    """A file to predict.

    Attributes:
      path: as given, or below the folder that was given; "-" for standard input.
      name: of its masks, before "_mask.png": without its ending; below a folder, with the subfolders.
    """

    path: Path
    name: str


class LeftOut(NamedTuple):
    """A file that isn't predicted, and why."""

    path: Path
    reason: str


def find(
    given: Sequence[str], *, recursive: bool, output: Path, ours: Collection[Path]
) -> tuple[list[Found], list[LeftOut]]:
    """The files to predict, those of a folder in the order of their names, and the files that are left out.

    Args:
      given: names of files and of folders, patterns such as "scans/*.png", and "-".
      recursive: whether subfolders are walked.
      output: the folder of the masks, which isn't walked as a subfolder.
      ours: resolved paths of earlier masks, which are left out of folders.

    Raises:
      UserError: nothing is given, a path doesn't exist, there are no images, or a name isn't UTF-8.
    """
    if not given:
        raise UserError("--image needs the names of image files, or of folders of them", "missing-option")
    found: dict[Path, Found] = {}
    left_out: list[LeftOut] = []
    for path in (path for name in given for path in _paths(name)):
        if not path.is_dir():
            found.setdefault(path.resolve() if path.is_file() else path, Found(path, _stem(path)))
            continue
        before, excuses = len(found), []
        for file in _files(path, recursive, output.resolve(), excuses):
            if file.resolve() in ours:
                excuses.append(LeftOut(file, "an earlier mask or overlay of predict"))
            elif file.suffix.lower() not in KNOWN:
                excuses.append(LeftOut(file, f"{file.suffix or 'no ending'} is no image's or video's ending"))
            else:
                name = PurePosixPath(file.relative_to(path).with_suffix("").as_posix())
                found.setdefault(file.resolve(), Found(file, str(name)))
        if len(found) == before and not any(file.is_relative_to(path.resolve()) for file in found):
            raise UserError(f"{path} holds no images ({', '.join(KNOWN)}){_summary(excuses)}", "no-images")
        left_out += excuses
    for one in found.values():
        check_name(str(one.path))
    return list(found.values()), left_out


def _paths(name: str) -> list[Path]:
    """The path of a name, or the paths that a pattern fits."""
    if name == STDIN or Path(name).exists():
        return [Path(name)]
    if glob.has_magic(name):
        paths = sorted(Path(path) for path in glob.glob(name))  # noqa: PTH207 - a pattern may be absolute
        if paths:
            return paths
        raise UserError(f"no file fits {name}", "no-such-file")
    slashes = name.replace("\\", "/")
    hint = f"; did you mean {slashes}?" if slashes != name and Path(slashes).exists() else ""
    raise UserError(f"there is no {name}{hint}", "no-such-file")


def _stem(path: Path) -> str:
    """The name of the masks of a file that was given itself."""
    return "stdin" if str(path) == STDIN else path.stem


def _files(folder: Path, recursive: bool, output: Path, excuses: list[LeftOut]) -> Iterator[Path]:
    """The files of a folder, without hidden ones such as macOS's ._a.jpg; subfolders as `recursive` says."""
    for parent, folders, files in os.walk(folder):
        inside = sorted(name for name in folders if not name.startswith("."))
        here = Path(parent)
        folders[:] = [name for name in inside if recursive and (here / name).resolve() != output]
        yield from (here / name for name in sorted(files) if not name.startswith("."))
        if not recursive:
            excuses += [LeftOut(here / name, "a folder: --recursive walks it") for name in inside]


def _summary(excuses: Sequence[LeftOut]) -> str:
    """What a folder without images has."""
    if not excuses:
        return ""
    named = ", ".join(f"{path.name} ({reason})" for path, reason in excuses[:3])
    return f"; it has {named}" + (f" and {len(excuses) - 3} more" if len(excuses) > 3 else "")
