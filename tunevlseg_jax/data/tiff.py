"""TIFF files that libraries misread: colours that are declared grey, and 16 bits in which white is 0."""

import struct
from typing import NamedTuple

import cv2
import numpy as np

BITS, PHOTOMETRIC, SAMPLES, EXTRA_SAMPLES, SAMPLE_FORMAT = 258, 262, 277, 338, 339
"""Tags of TIFF 6.0."""
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB = 0, 1, 2
"""Values of PhotometricInterpretation."""
UNSIGNED = 1


class _Entry(NamedTuple):
    """An entry of the first directory: the place of its value, the number of values, and the first 16-bit one."""

    place: int
    length: int
    value: int


def corrected(data: bytes) -> bytes:
    """The same pixels in a form that Pillow and OpenCV read as meant; any other file as it is.

    Three samples a pixel that are declared grey are colours (CVC-ClinicDB's files are such): Pillow refuses them, and
    OpenCV takes the first sample for all. Grey of 16 bits in which white is 0 becomes a PNG in which black is 0: both
    libraries invert only 8 bits and less.
    """
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(data[:4])
    if order is None:
        return data
    try:
        entries = _directory(data, order)
    except struct.error:  # a broken file, of which the decoder will say so
        return data
    photometric = entries.get(PHOTOMETRIC)
    if photometric is None or photometric.value not in (WHITE_IS_ZERO, BLACK_IS_ZERO):
        return data
    samples = entries[SAMPLES].value if SAMPLES in entries else 1
    extra = entries[EXTRA_SAMPLES].length if EXTRA_SAMPLES in entries else 0
    if samples - extra >= 3:
        value = struct.pack(order + "H", RGB)
        return data[: photometric.place] + value + data[photometric.place + len(value) :]
    deep = samples == 1 and BITS in entries and entries[BITS].value == 16
    unsigned = SAMPLE_FORMAT not in entries or entries[SAMPLE_FORMAT].value == UNSIGNED
    if photometric.value == WHITE_IS_ZERO and deep and unsigned:
        stored = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_ANYDEPTH)
        if stored is not None and stored.dtype == np.uint16:
            return cv2.imencode(".png", 65535 - stored)[1].tobytes()
    return data


def _directory(data: bytes, order: str) -> dict[int, _Entry]:
    """The entries of the first directory by tag."""
    (start,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, start)
    entries = {}
    for place in range(start + 2, start + 2 + 12 * count, 12):
        tag, _, number, value = struct.unpack_from(order + "HHIH", data, place)
        entries[tag] = _Entry(place + 8, number, value)
    return entries
