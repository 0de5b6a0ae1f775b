"""Slices of NIfTI and MetaImage files."""

import gzip
import zlib
from collections.abc import Callable

import numpy as np

from tunevlseg_jax.runtime.errors import UserError

TYPES = {"MET_UCHAR": "u1", "MET_CHAR": "i1", "MET_USHORT": "u2", "MET_SHORT": "i2", "MET_FLOAT": "f4"}


def nifti(data: bytes, name: str) -> np.ndarray:
    """(height, width) of a NIfTI file (.nii, .nii.gz) of one slice; NIfTI's first axis runs along the width.

    Raises:
      UserError: nibabel isn't installed, the file is broken, or it has several slices.
    """
    try:
        import nibabel
        from nibabel.spatialimages import HeaderDataError
    except ModuleNotFoundError as error:
        raise UserError('NIfTI files need nibabel: pip install "tunevlseg_jax[datasets]"', "needs-package") from error
    try:
        plain = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
        volume = np.asarray(nibabel.Nifti1Image.from_bytes(plain).dataobj)
    except (OSError, EOFError, ValueError, zlib.error, HeaderDataError) as error:
        raise UserError(f"can't decode {name}: it is not a NIfTI file, or a broken one", "undecodable") from error
    return _slice(volume, name).T


def metaimage(data: bytes, name: str, read: Callable[[str], bytes]) -> np.ndarray:
    """(height, width) of a MetaImage header (.mhd) of one slice, whose pixels `read` gives by file name.

    Raises:
      UserError: the header or the pixels are broken, or there are more slices.
    """
    lines = (line.partition("=") for line in data.decode("utf-8", "replace").splitlines())
    fields = {key.strip(): value.strip() for key, _, value in lines}
    try:
        dtype = np.dtype(TYPES[fields["ElementType"]])
        shape = [int(size) for size in fields["DimSize"].split()][::-1]  # DimSize has the width first
        file = fields["ElementDataFile"]
    except (KeyError, ValueError) as error:
        raise UserError(f"can't decode {name}: its header lacks or misstates {error}", "undecodable") from error
    big = "True" in (fields.get("BinaryDataByteOrderMSB"), fields.get("ElementByteOrderMSB"))
    pixels = read(file)
    try:
        pixels = zlib.decompress(pixels) if fields.get("CompressedData") == "True" else pixels
        volume = np.frombuffer(pixels, dtype.newbyteorder(">" if big else "<")).reshape(shape)
    except (ValueError, zlib.error) as error:
        raise UserError(f"can't decode {name}: {file} doesn't hold {shape} pixels of {dtype}", "undecodable") from error
    return _slice(volume, name)


def _slice(volume: np.ndarray, name: str) -> np.ndarray:
    plane = volume.squeeze()
    if plane.ndim != 2:
        raise UserError(f"{name} must have one slice, got the shape {volume.shape}", "wrong-shape")
    return plane
