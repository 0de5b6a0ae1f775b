"""Colours and transparency of 16 bits a channel, of which Pillow keeps only the upper 8."""

import numpy as np
from PIL import Image

from tunevlseg_jax.data import tiff
from tunevlseg_jax.data.images import decode_deep, is_deep
from tunevlseg_jax.runtime.errors import UserError

BYTE = 255


def exact(opened: Image.Image, data: bytes, name: str) -> Image.Image:
    """An opened mask without loss: grey of 16 bits if its channels are equal, else colours of 8 bits.

    Args:
      opened: the file as Pillow opens it; one of 8 bits, or of one channel, comes back as it is.
      data: its content.
      name: the file's name.

    Raises:
      UserError: it has colours that 8 bits don't hold, or transparent pixels.
    """
    corrected = tiff.corrected(data)
    if opened.mode not in ("LA", "RGB", "RGBA") or not is_deep(corrected):
        return opened
    colours = decode_deep(corrected, name)
    lowest, highest = opened.getchannel("A").getextrema() if "A" in opened.getbands() else (BYTE, BYTE)
    if lowest != highest:
        raise UserError(f"mask {name} has transparency of 16 bits; save it without, white on black", "mask-unclear")
    if (colours == colours[..., :1]).all():
        return Image.fromarray(np.ascontiguousarray(colours[..., 0]))
    if colours.max() <= BYTE:
        return Image.fromarray(colours.astype(np.uint8))
    if not ((colours % (BYTE + 2) == 0).all() or (colours % (BYTE + 1) == 0).all()):
        raise UserError(f"mask {name} has colours of 16 bits a channel; save it with 8 bits", "mask-unclear")
    return opened.convert("RGB")
