"""Whether the binary mask files of a set agree on the values of the object; kept in the set where they don't."""

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from tunevlseg_jax.data.mask_values import Encoding
from tunevlseg_jax.runtime.errors import UserError
from tunevlseg_jax.runtime.files import read_object, write_json

MIXED_FILE = "mixed_values.json"
"""In the folder of a prepared set whose mask files differ: the values and files by class."""


class Files(NamedTuple):
    """Number of files of an encoding, and the first by name."""

    number: int
    first: str

    def __str__(self) -> str:
        return f"{self.number} file{'s' * (self.number > 1)}, such as {self.first}"


class SeenEncodings:
    """Counts the encodings of the masks read so far, by class."""

    def __init__(self) -> None:
        self._files: dict[str, dict[Encoding, Files]] = defaultdict(dict)

    def add(self, label: str, encoding: Encoding | None, name: str) -> None:
        """Adds a file's encoding; files without an object, and those that are cut at a threshold, fit any other."""
        if encoding:
            earlier = self._files[label].get(encoding, Files(0, name))
            self._files[label][encoding] = Files(earlier.number + 1, min(earlier.first, name))

    def mixed(self) -> dict[str, str]:
        """The values and their files, for each class whose files differ."""
        return {
            label: "; ".join(
                f"{' and '.join(('0', *values))} in {files}"
                for values, files in sorted(encodings.items(), key=lambda item: -item[1].number)
            )
            for label, encodings in self._files.items()
            if len(encodings) > 1
        }


def write(folder: Path, mixed: Mapping[str, str]) -> None:
    """Writes the file of a prepared set's folder, if any class's files differ."""
    if mixed:
        write_json(folder / MIXED_FILE, mixed)


def read(folder: Path) -> dict[str, str]:
    """The result of `SeenEncodings.mixed` of the set in a folder; sets of earlier versions don't tell.

    Raises:
      UserError: the file is broken.
    """
    path = folder / MIXED_FILE
    mixed = read_object(path) if path.exists() else {}
    if wrong := [values for values in mixed.values() if not isinstance(values, str)]:
        raise UserError(
            f"{path} must hold a text for each class, got {wrong[0]!r}; prepare the set again", "wrong-json"
        )
    return mixed
