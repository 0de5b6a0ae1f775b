"""Label Studio's run lengths of brushes: the format of thi.ng's rle-pack, over the channels of an RGBA image.

The text of https://github.com/thi-ng/umbrella/tree/develop/packages/rle-pack describes the format: 32 bits for the
number of words, 5 for the bits of a word, less one, and four times 4 for the bits of a length, less one. Then, until
there are enough words: a bit that says whether one word is repeated, two that choose one of the four sizes of lengths,
the length, less one, and the word, or as many words as the length says.
"""

from collections.abc import Sequence

import numpy as np


class _Bits:
    def __init__(self, data: Sequence[int]):
        self._bits = np.unpackbits(np.asarray(data, np.uint8))
        self._position = 0

    def words(self, count: int, bits: int) -> np.ndarray:
        """(count,) int64, the next numbers of so many bits.

        Raises:
          ValueError: the data end before.
        """
        end = self._position + count * bits
        if end > len(self._bits):
            raise ValueError("the run lengths end too early")
        taken = self._bits[self._position : end].reshape(count, bits).astype(np.int64)
        self._position = end
        return taken @ (1 << np.arange(bits, dtype=np.int64)[::-1])

    def number(self, bits: int) -> int:
        return int(self.words(1, bits)[0])


def decode(data: Sequence[int], size: tuple[int, int]) -> np.ndarray:
    """(height, width) bool, where the last channel, the opacity, is above half.

    Args:
      data: the bytes.
      size: (height, width).

    Raises:
      ValueError: the data are broken, or of an image of another size.
    """
    if not all(isinstance(byte, int) and 0 <= byte < 256 for byte in data):
        raise ValueError("the run lengths aren't bytes")
    bits = _Bits(data)
    total = bits.number(32)
    if total != size[0] * size[1] * 4:
        raise ValueError(f"the run lengths are of {total // 4} pixels, not of {size[1]}x{size[0]}")
    word, lengths = bits.number(5) + 1, bits.words(4, 4) + 1
    if word != 8:
        raise ValueError(f"the channels have {word} bits instead of 8")
    channels = np.empty(total, np.uint8)
    filled = 0
    while filled < total:
        repeated = bits.number(1)
        length = bits.number(int(lengths[bits.number(2)])) + 1
        if filled + length > total:
            raise ValueError("the run lengths cover more than the image")
        channels[filled : filled + length] = bits.words(1 if repeated else length, word)
        filled += length
    return channels.reshape(*size, 4)[..., 3] > 127
