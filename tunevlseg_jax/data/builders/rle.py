"""Run lengths of COCO's mask format: the text form of `counts`, in which small numbers take one letter."""

import numpy as np


def counts(text: str | bytes) -> list[int]:
    """Lengths of the runs, background first.

    A number is written in groups of five bits, lowest first, each a letter from "0" on; 32 says that a group follows,
    16 in the last one is the sign. From the fourth on, a number is the difference to the one two places before.

    Raises:
      ValueError: the text ends in the middle of a number.
    """
    letters = text.encode() if isinstance(text, str) else text
    runs: list[int] = []
    number = shift = 0
    for letter in letters:
        group = letter - 48
        number |= (group & 31) << shift
        shift += 5
        if group & 32:
            continue
        if group & 16:
            number -= 1 << shift
        runs.append(number + (runs[-2] if len(runs) > 2 else 0))
        number = shift = 0
    if shift:
        raise ValueError("the run lengths end in the middle of a number")
    return runs


def decode(runs: list[int], size: tuple[int, int]) -> np.ndarray:
    """(height, width) bool of run lengths, which go down the columns.

    Raises:
      ValueError: the runs don't fill the size.
    """
    if sum(runs) != size[0] * size[1] or min(runs, default=0) < 0:
        raise ValueError(f"the run lengths cover {sum(runs)} pixels, not {size[0]} x {size[1]}")
    flat = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return flat.reshape(size, order="F")
