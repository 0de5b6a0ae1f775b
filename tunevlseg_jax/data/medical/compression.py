"""The compressions of DICOM pixels, and the packages that decode them.

pydicom itself reads RLE; Pillow, a requirement of this package, JPEG of 8 bits and JPEG 2000; pyjpegls, which highdicom
requires, JPEG-LS; python-gdcm, of the extra `medical`, lossless JPEG.
"""

from typing import Any

from tunevlseg_jax.runtime.errors import UserError
from tunevlseg_jax.runtime.optional import require_decoder


def check(dataset: Any, name: str) -> None:
    """Raises a UserError that names the package to install, if none that is installed decodes the pixels of a file.

    Args:
      dataset: the file, by pydicom.
      name: of the file, for error messages.
    """
    from pydicom import uid
    from pydicom.pixels.decoders.base import get_decoder

    syntax = dataset.file_meta.TransferSyntaxUID
    if not syntax.is_encapsulated:
        return
    user = f"{name} is compressed as {syntax.name}, which"
    if syntax == uid.JPEGExtended12Bit and int(dataset.BitsStored) > 8:
        require_decoder("libjpeg", user)
        return
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError as error:
        raise UserError(f"{user} pydicom doesn't decode; convert it, or leave it out", "undecodable") from error
    if decoder.is_available:
        return
    is_high_throughput = syntax in (uid.HTJ2K, uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL)
    require_decoder("openjpeg" if is_high_throughput else "gdcm", user)
