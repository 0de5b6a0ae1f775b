"""Files to prepare from: folders, zip and tar files as downloaded, read without unpacking where that is quick."""

from __future__ import annotations

import os
import re
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path, PurePosixPath
from typing import IO

from tunevlseg_jax.errors import UserError

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
BROKEN = (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, NotImplementedError, RuntimeError)
"""What broken or encrypted archives raise."""


class Source:
    """Files by their path below a folder or in an archive, with "/" between its parts.

    A folder's archives count as if they had been unpacked there. Hidden files and what macOS adds are left out.
    """

    def __init__(self, paths: Sequence[Path], unpacked: Path):
        """Lists the files.

        Args:
          paths: folders and archives.
          unpacked: a folder for what must be unpacked to be read, namely compressed tar files.

        Raises:
          UserError: a path doesn't exist or is neither, an archive is broken, or has a member that is a link or would
            lie outside the folder that it is unpacked in.
        """
        self.paths = tuple(paths)
        self._unpacked = unpacked
        self._readers: dict[str, Callable[[], bytes]] = {}
        for path in paths:
            if path.is_dir():
                self._add_folder(path)
            elif path.is_file() and is_archive(path):
                self._add_archive(path)
            else:
                there = "is no folder, zip or tar file" if path.exists() else "doesn't exist"
                raise UserError(f"--source {path} {there}")

    def __str__(self) -> str:
        return ", ".join(map(str, self.paths))

    @cached_property
    def names(self) -> tuple[str, ...]:
        """All files, in the order of their names."""
        return tuple(sorted(self._readers))

    def __contains__(self, name: str) -> bool:
        return composed(name) in self._readers

    def find(self, pattern: str) -> Iterator[tuple[str, re.Match[str]]]:
        """The files whose path ends in what a regular expression matches, from the start of one of the path's parts."""
        compiled = re.compile(rf"(?:.*/)?{pattern}", re.IGNORECASE)
        for name in self.names:
            if match := compiled.fullmatch(name):
                yield name, match

    def read(self, name: str) -> bytes:
        """A file's content.

        Raises:
          UserError: there is no such file, or it can't be read.
        """
        reader = self._readers.get(composed(name))
        if reader is None:
            raise UserError(f"there is no {name} in {self}")
        try:
            return reader()
        except OSError as error:
            raise UserError(f"can't read {name} in {self}: {error.strerror or error}") from error
        except BROKEN as error:
            raise UserError(f"can't read {name} in {self}: {error}") from error

    def _add(self, name: str, reader: Callable[[], bytes]) -> None:
        parts = PurePosixPath(name).parts
        if not any(part.startswith((".", "__MACOSX")) or part == "Thumbs.db" for part in parts):
            self._readers.setdefault(composed("/".join(parts)), reader)

    def _add_folder(self, folder: Path) -> None:
        seen = set()
        archives = []
        for place, folders, files in os.walk(folder, followlinks=True):
            folders.sort()
            if (real := os.path.realpath(place)) in seen:  # a link to where the walk has been
                folders.clear()
                continue
            seen.add(real)
            for file in map(Path(place).joinpath, sorted(files)):
                if is_archive(file):
                    archives.append(file)
                else:
                    self._add(file.relative_to(folder).as_posix(), file.read_bytes)
        for archive in archives:  # last: what is unpacked already is quicker to read
            self._add_archive(archive)

    def _add_archive(self, path: Path) -> None:
        try:
            if path.suffix.lower() == ".zip":
                self._add_zip(path)
            else:
                self._add_tar(path)
        except OSError as error:
            raise UserError(f"can't read {path}: {error.strerror or error}") from error
        except BROKEN as error:
            raise UserError(f"can't read {path}: {error}") from error

    def _add_zip(self, path: Path) -> None:
        archive = zipfile.ZipFile(path)
        for member in archive.infolist():
            if member.is_dir():
                continue
            link = (member.external_attr >> 28) == 0xA
            self._add(_checked(path, member.filename, link), partial(archive.read, member))

    def _add_tar(self, path: Path) -> None:
        compressed = path.suffix.lower() != ".tar"
        with tarfile.open(path) as archive:
            for member in archive:
                if member.isdir():
                    continue
                name = _checked(path, member.name, not member.isreg())
                # A compressed tar file can only be read from its start: member by member it would take hours.
                if compressed and (file := archive.extractfile(member)) is not None:
                    self._add(name, self._unpack(file))
                else:
                    self._add(name, partial(_read_range, path, member.offset_data, member.size))

    def _unpack(self, file: IO[bytes]) -> Callable[[], bytes]:
        # Numbered, so that no name in the archive can say where it is written.
        path = self._unpacked / str(len(self._readers))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file.read())
        return path.read_bytes


def is_archive(path: Path) -> bool:
    """Whether a file's name is that of a zip or tar file."""
    return path.name.lower().endswith(ARCHIVES)


def composed(name: str) -> str:
    """A name with its accents in one character each; macOS writes them apart."""
    return unicodedata.normalize("NFC", name)


def _read_range(path: Path, start: int, size: int) -> bytes:
    with path.open("rb") as file:
        file.seek(start)
        return file.read(size)


def _checked(archive: Path, name: str, link: bool) -> str:
    """The member's name, if it would lie inside the folder that the archive is unpacked in."""
    portable = name.replace("\\", "/")
    if link:
        raise UserError(f"{archive} has the member {name!r}, a link or device; archives with such are refused")
    if portable.startswith("/") or re.match("[A-Za-z]:", portable) or ".." in portable.split("/"):
        raise UserError(
            f"{archive} has the member {name!r}, which would lie outside its folder; such archives are refused"
        )
    return portable
