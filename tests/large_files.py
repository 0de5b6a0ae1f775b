"""Photographs of many megapixels, and the largest memory of a command on them."""

from pathlib import Path

import cv2
import numpy as np
import small

MAIN = """
import importlib, sys
from tunevlseg_jax import cli
from tunevlseg_jax.runtime import memory
cli.run(importlib.import_module(sys.argv.pop(1)).main)
print("peak", memory.process_peak())
"""


def write_source(folder: Path, count: int, size: tuple[int, int]) -> Path:
    """Photographs of noise that doesn't compress well, with a mask each."""
    rng = np.random.default_rng(0)
    noise = cv2.resize(rng.integers(0, 256, (size[0] // 4, size[1] // 4, 3), np.uint8), size[::-1])
    mask = np.zeros(size, np.uint8)
    mask[: size[0] // 3, : size[1] // 2] = 255
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    for number in range(count):
        cv2.imwrite(str(folder / "images" / f"{number:04}.jpg"), np.roll(noise, 3 * number, 1))
        cv2.imwrite(str(folder / "masks" / f"{number:04}.png"), np.roll(mask, number, 1))
    return folder


def peak(module: str, *arguments: object) -> int:
    """The largest resident set, in bytes, of a process that runs a command."""
    status, out, err = small.finish(small.start("-c", MAIN, module, *arguments), 400)
    assert status == 0, err
    return int(out.split("peak ")[1])
