"""Compares an export that was read back with the program that it was made from."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from tunevlseg_jax.exporting import program
from tunevlseg_jax.exporting.program import Task
from tunevlseg_jax.runtime.errors import UserError

TOLERANCE = 1e-4
"""Largest allowed difference of probabilities."""
ROWS = 2


def compare(call: Callable[..., Any], tasks: Sequence[Task], pixels: str, *, inputs: bool) -> float:
    """The largest difference of probabilities on noise.

    Args:
      call: the export, from images, token ids and with `inputs` the rows' values to probabilities.
      tasks: that it serves; the first is asked.
      pixels: type of the images.
      inputs: whether the values are inputs.

    Raises:
      UserError: the difference is above `TOLERANCE`.
    """
    task = tasks[0]
    images = np.random.default_rng(0).integers(0, 256, (ROWS, *task.experiment.image_size, 3)).astype(pixels)
    tokens = task.tokens(["a thing", "something else"])
    rows = [{path: np.stack([value] * ROWS) for path, value in task.values.items()}] if inputs else []
    with jax.default_matmul_precision("highest"):
        expected = np.asarray(jax.jit(program.folded(task))(images, tokens))
        found = np.asarray(call(images, tokens, *rows))
    difference = float(np.abs(found - expected).max())
    if not difference <= TOLERANCE:  # NaN fails too
        raise UserError(f"the export differs by {difference:.3g} in probability; please report it", "wrong-conversion")
    return difference
