"""Tests of compressed DICOM: the values are those before, or a line names the package that decodes them."""

import io
import sys

import cv2
import dicoms
import mistakes
import numpy as np
import pytest
from PIL import Image
from pydicom import uid
from pydicom.encaps import encapsulate
from pydicom.pixels.decoders.base import get_decoder

from tunevlseg_jax.data.medical import dicom_files, dicom_series
from tunevlseg_jax.runtime.optional import import_simpleitk

STORED = (np.arange(3 * 12 * 16).reshape(3, 12, 16) * 7 % 4096).astype(np.uint16)


def read(folder) -> np.ndarray:
    (series,) = dicom_files.image_series(dicom_files.find([path.read_bytes for path in sorted(folder.iterdir())]))
    return import_simpleitk("a test").GetArrayFromImage(dicom_series.read(series).image)


def write(folder, syntax: uid.UID, encode=None) -> None:
    """Writes a series whose planes are compressed by pydicom, or by `encode`, which gives the bytes of one."""
    files = dicoms.write_series(folder, STORED)
    for plane, file, path in zip(STORED, files, sorted(folder.iterdir(), reverse=True), strict=True):
        if encode is None:
            file.compress(syntax, generate_instance_uid=False)
        else:
            file.PixelData, file.file_meta.TransferSyntaxUID = encapsulate([encode(plane)]), syntax
            file["PixelData"].VR = "OB"
        file.save_as(path, enforce_file_format=True)


def jpeg2000(plane: np.ndarray) -> bytes:
    content = io.BytesIO()
    Image.fromarray(plane).save(content, "JPEG2000", no_jp2=True, irreversible=False)
    return content.getvalue()


@pytest.mark.parametrize(
    ("syntax", "encode"),
    [(uid.RLELossless, None), (uid.JPEGLSLossless, None), (uid.JPEG2000Lossless, jpeg2000)],
    ids=["RLE", "JPEG-LS", "JPEG 2000"],
)
def test_lossless_compressions_keep_every_value(tmp_path, syntax, encode):
    """RLE by pydicom, JPEG-LS by pyjpegls, JPEG 2000 by Pillow."""
    write(tmp_path, syntax, encode)
    np.testing.assert_array_equal(read(tmp_path), STORED - 1024.0)


def test_jpeg_of_8_bits(tmp_path):
    plane = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (16, 24)).astype(np.uint8), (0, 0), 2)
    (file,) = dicoms.write_series(tmp_path, plane[None], RescaleSlope=1, RescaleIntercept=0)
    encoded = cv2.imencode(".jpg", plane)[1]
    file.BitsAllocated, file.BitsStored, file.HighBit = 8, 8, 7
    file.file_meta.TransferSyntaxUID = uid.JPEGBaseline8Bit
    file.PixelData = encapsulate([encoded.tobytes()])
    file["PixelData"].VR = "OB"
    file.save_as(next(tmp_path.iterdir()), enforce_file_format=True)
    theirs = cv2.imdecode(encoded, cv2.IMREAD_UNCHANGED).astype(int)
    assert np.abs(read(tmp_path)[0].astype(int) - theirs).max() <= 2


@pytest.mark.parametrize(
    ("syntax", "module", "says"),
    [
        (uid.JPEGLosslessSV1, "gdcm", r"needs-package: number 3 .*of series_[0-9a-f]{12}, is compressed as "
         r"JPEG Lossless.*python-gdcm: pip install .tunevlseg_jax\[medical\]"),
        (uid.HTJ2KLossless, "openjpeg", "needs-package: High-Throughput JPEG 2000.* pip install pylibjpeg "
         "pylibjpeg-openjpeg"),
        (uid.JPEGExtended12Bit, "libjpeg", "needs-package: JPEG Extended.* pip install pylibjpeg pylibjpeg-libjpeg"),
        (uid.MPEG2MPML, "gdcm", "undecodable: MPEG2 Main Profile .*convert it, or leave it out"),
    ],
    ids=["JPEG lossless", "HTJ2K", "JPEG of 12 bits", "MPEG"],
)  # fmt: skip
def test_a_line_names_the_package_that_is_missing(tmp_path, monkeypatch, syntax, module, says):
    write(tmp_path, syntax, lambda plane: b"x" * 64)
    monkeypatch.setitem(sys.modules, module, None)  # as if it weren't installed
    if syntax in (uid.JPEGLosslessSV1, uid.HTJ2KLossless):
        monkeypatch.setattr(get_decoder(syntax), "_available", {})
    with mistakes.raises(says):
        read(tmp_path)
