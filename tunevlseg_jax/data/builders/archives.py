"""Source files in folders, zip and tar files as downloaded; only compressed tar files are unpacked."""

import itertools
import os
import re
import tarfile
import unicodedata
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from tunevlseg_jax.runtime.errors import UserError
from tunevlseg_jax.runtime.files import check_name

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
UNREAD = (".7z", ".rar", ".tar.zst", ".z01")
"""Other archives, which must be unpacked first."""
DEEPEST = 3
"""Archives in archives are read down to this depth."""
BROKEN = (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, NotImplementedError, RuntimeError)
"""Exceptions raised by broken or encrypted archives."""
Reader = Callable[[], bytes]


class _File(NamedTuple):
    """A file's path, the same below the name of each archive that it lies in, and how to read it."""

    name: str
    placed: str
    read: Reader


class SourceFiles:
    """Files by their path below a folder or in an archive, with "/" between its parts.

    A folder's archives, and archives in archives, count as if they were unpacked there; files that are unpacked already
    take precedence. Files of several folders or archives may have the same path only if they are equal or never read.
    Hidden files and macOS's extra files are left out.
    """

    def __init__(self, paths: Sequence[Path], unpacked: Path):
        """Lists the files.

        Args:
          paths: folders and archives.
          unpacked: a folder for the contents of compressed tar files.

        Raises:
          UserError: a path doesn't exist or is neither, an archive is broken, or has a member that is a link or would
            lie outside the folder that it is unpacked in.
        """
        self.paths = tuple(paths)
        self._unpacked = unpacked
        self._numbers = itertools.count()
        self._readers: dict[str, list[Reader]] = defaultdict(list)
        self._paths: dict[str, Path] = {}
        self._placed: dict[str, str] = {}
        self._archives: set[str] = set()
        for path in paths:
            for name, placed, reader in self._files(path):
                parts = name.split("/")
                if not any(part.startswith((".", "__MACOSX")) or part == "Thumbs.db" for part in parts):
                    self._readers[name].append(reader)
                    self._paths.setdefault(name, path)
                    self._placed.setdefault(name, placed)

    def __str__(self) -> str:
        return ", ".join(map(str, self.paths))

    @cached_property
    def names(self) -> tuple[str, ...]:
        """All files, in the order of their names."""
        return tuple(sorted(self._readers))

    def placed(self, name: str) -> str:
        """A file's path below the names of its source and of the archive in it that has it, where there are several."""
        below = self._placed.get(name, name) if len(self._archives) > 1 else name
        path = self._paths.get(name) if len(self.paths) > 1 else None
        if path is None:
            return below
        own = path.resolve().name
        return f"{_stem(own) if path.is_file() else own}/{below}"

    @property
    def unread(self) -> list[str]:
        """Archives among the files, which aren't read."""
        return [name for name in self.names if name.lower().endswith((*ARCHIVES, *UNREAD))]

    def __contains__(self, name: str) -> bool:
        return composed(name) in self._readers

    def add(self, name: str, reader: Reader) -> None:
        """Adds a file that lies in another one, such as an image in its annotation file; `names` doesn't list it."""
        self._readers[composed(name)] = [reader]

    def find(self, pattern: str) -> Iterator[tuple[str, re.Match[str]]]:
        """The files whose path matches a regular expression from the start of one of its parts to the end.

        Raises:
          UserError: a matching name isn't UTF-8.
        """
        compiled = re.compile(rf"(?:.*/)?{pattern}", re.IGNORECASE)
        for name in self.names:
            if match := compiled.fullmatch(name):
                check_name(name)
                yield name, match

    def read(self, name: str) -> bytes:
        """A file's content.

        Raises:
          UserError: the file doesn't exist, is ambiguous or can't be read.
        """
        if name not in self:
            raise UserError(f"there is no {name} in {self}", "no-such-file")
        try:
            data, *others = [reader() for reader in self._readers[composed(name)]]
        except OSError as error:
            raise UserError(f"can't read {name} in {self}: {error.strerror or error}", "unreadable") from error
        except BROKEN as error:
            raise UserError(f"can't read {name} in {self}: {error}", "unreadable") from error
        if any(other != data for other in others):
            message = f"{self} have two different files {name}; put each into a folder of its own in a common one"
            raise UserError(message, "duplicate-file")
        return data

    def _files(self, path: Path) -> Iterator[_File]:
        if path.is_dir():
            return self._folder(path)
        if path.is_file() and is_archive(path):
            return self._archive(path)
        reason = "is no folder, zip or tar file; give the folder or archive" if path.exists() else "doesn't exist"
        raise UserError(f"--source {path} {reason}", "no-such-file")

    def _folder(self, folder: Path) -> Iterator[_File]:
        seen = set()
        unpacked = set()
        archives = []
        for place, folders, files in os.walk(folder, followlinks=True):
            folders.sort()
            if (real := os.path.realpath(place)) in seen:  # a link to a folder that was visited already
                folders.clear()
                continue
            seen.add(real)
            for file in map(Path(place).joinpath, sorted(files)):
                if is_archive(file) and not file.name.startswith("."):  # macOS's ._x.zip is none
                    archives.append(file)
                else:
                    name = composed(file.relative_to(folder).as_posix())
                    unpacked.add(name)
                    yield _File(name, name, file.read_bytes)
        for archive in archives:  # last: unpacked files are quicker to read
            inside = self._below(composed(archive.relative_to(folder).as_posix()), self._archive(archive))
            yield from (file for file in inside if file.name not in unpacked)

    def _below(self, archive: str, files: Iterable[_File]) -> Iterator[_File]:
        """An archive's files, as if they were unpacked beside it."""
        self._archives.add(archive)
        folder = archive.rpartition("/")[0]
        for name, placed, reader in files:
            yield _File(f"{folder}/{name}".lstrip("/"), f"{_stem(archive)}/{placed}", reader)

    def _archive(self, path: Path, depth: int = 1) -> Iterator[_File]:
        try:
            for name, reader in self._zip(path) if path.suffix.lower() == ".zip" else self._tar(path):
                inner = is_archive(Path(name)) and not name.rpartition("/")[2].startswith(".") and depth < DEEPEST
                try:
                    files = list(self._archive(self._inner(name, reader), depth + 1)) if inner else None
                except UserError:  # a broken one counts as any other file
                    files = None
                yield from [_File(name, name, reader)] if files is None else self._below(name, files)
        except OSError as error:
            raise UserError(f"can't read {path}: {error.strerror or error}", "unreadable") from error
        except BROKEN as error:
            raise UserError(f"can't read {path}: {error}; download or pack it again", "unreadable") from error

    def _inner(self, name: str, reader: Reader) -> Path:
        """An archive in an archive, unpacked to a file of its own."""
        end = next(end for end in ARCHIVES if name.lower().endswith(end))
        path = self._unpacked / f"{next(self._numbers)}{end}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(reader())
        return path

    def _zip(self, path: Path) -> Iterator[tuple[str, Reader]]:
        archive = zipfile.ZipFile(path)
        for member in archive.infolist():
            if not member.is_dir():
                link = (member.external_attr >> 28) == 0xA
                yield _checked(path, member.filename, link), partial(archive.read, member)

    def _tar(self, path: Path) -> Iterator[tuple[str, Reader]]:
        compressed = path.suffix.lower() != ".tar"
        with tarfile.open(path) as archive:
            for member in archive:
                if member.isdir():
                    continue
                name = _checked(path, member.name, not member.isreg())
                # A compressed tar file can only be read from its start: member by member it would take hours.
                if compressed and (file := archive.extractfile(member)) is not None:
                    yield name, self._unpack(file)
                else:
                    yield name, partial(_read_range, path, member.offset_data, member.size)

    def _unpack(self, file: IO[bytes]) -> Reader:
        # Numbered, so that no name in the archive can say where it is written.
        path = self._unpacked / str(next(self._numbers))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file.read())
        return path.read_bytes


def is_archive(path: Path) -> bool:
    """Whether a file's suffix is that of a zip or tar file."""
    return path.name.lower().endswith(ARCHIVES)


def _stem(name: str) -> str:
    """A path without the suffix of an archive."""
    return next((name[: -len(end)] for end in ARCHIVES if name.lower().endswith(end)), name)


def composed(name: str) -> str:
    """A name in Unicode's composed form (NFC); macOS writes accents as separate characters."""
    return unicodedata.normalize("NFC", name)


def _read_range(path: Path, start: int, size: int) -> bytes:
    with path.open("rb") as file:
        file.seek(start)
        return file.read(size)


def _checked(archive: Path, name: str, link: bool) -> str:
    """The member's path; raises a UserError for links and for paths outside the archive's folder."""
    portable = name.replace("\\", "/")
    if link:
        raise UserError(f"{archive} has the member {name!r}, a link or device; refused", "unsafe-archive")
    if portable.startswith("/") or re.match("[A-Za-z]:", portable) or ".." in portable.split("/"):
        raise UserError(f"{archive} has the member {name!r}, outside its folder; refused", "unsafe-archive")
    return composed(PurePosixPath(portable).as_posix())
