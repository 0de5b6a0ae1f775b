"""Refuses NIfTI files that are cut off, as by a broken download: ITK reads the missing values as 0 without a word."""

import gzip
import math
import os
import zlib
from pathlib import Path
from typing import Any

from tunevlseg_jax.runtime.errors import UserError

CHUNK = 2**22
"""Bytes that are decompressed at once."""


def check(path: Path, image: Any, name: str) -> None:
    """Checks that a .nii or .nii.gz file has all values that its header counts.

    Args:
      path: the file.
      image: the SimpleITK image that was read from it, which holds its header.
      name: the file's name for the error.

    Raises:
      UserError: the file ends before its last value.
    """
    if not _holds(path, _wanted(image)):
        message = f"can't decode {name}: the file ends before its last value; copy or download it again"
        raise UserError(message, "undecodable")


def _wanted(image: Any) -> int:
    """The bytes of the header and of all values."""
    sizes = [int(image.GetMetaData(f"dim[{axis}]")) for axis in range(1, 1 + int(image.GetMetaData("dim[0]")))]
    bits = math.prod(sizes) * int(image.GetMetaData("bitpix"))
    return int(float(image.GetMetaData("vox_offset"))) + bits // 8


def _holds(path: Path, wanted: int) -> bool:
    """Whether a file has so many bytes, decompressed."""
    with path.open("rb") as file:
        if file.read(2) != b"\x1f\x8b":
            return path.stat().st_size >= wanted
        file.seek(-4, os.SEEK_END)
        if int.from_bytes(file.read(), "little") == wanted % 2**32:  # a whole file ends with its length (RFC 1952)
            return True
    length = 0
    try:
        with gzip.open(path) as file:
            while data := file.read(CHUNK):
                length += len(data)
    except (EOFError, OSError, zlib.error):  # it is cut off, or its checksum is another
        return False
    return length >= wanted
