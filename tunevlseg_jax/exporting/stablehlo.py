"""StableHLO for CPUs, CUDA and TPUs in one file, with a symbolic batch size."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from tunevlseg_jax.exporting import program
from tunevlseg_jax.exporting.program import Task
from tunevlseg_jax.models.platforms import only_plain
from tunevlseg_jax.runtime.errors import UserError

FILE = "model.stablehlo"
PLATFORMS = ("cpu", "cuda", "tpu")
LIMIT = 2**31 - 2**24
"""Bytes of weights that fit in a file of `jax.export`, which has 32-bit offsets."""


def serialize(tasks: Sequence[Task], pixels: str, *, as_inputs: bool) -> bytes:
    """The program of a task; with `as_inputs` that of several, whose values are inputs.

    Args:
      tasks: one; or with `as_inputs` those that `program.check_alike` accepts.
      pixels: type of the images, "uint8" or "float32".
      as_inputs: whether the tasks' values are inputs.

    Raises:
      UserError: the weights are too large for one file.
    """
    task = tasks[0]
    check_size(task)
    (batch,) = export.symbolic_shape("batch")
    inputs = [jax.ShapeDtypeStruct((batch, *shape), dtype) for shape, dtype in shapes(task, pixels)]
    if as_inputs:
        rows = {
            path: jax.ShapeDtypeStruct((batch, *np.shape(value)), value.dtype) for path, value in task.values.items()
        }
        function, inputs = program.with_values(task.experiment), [*inputs, rows]
    else:
        function = program.folded(task)
    with only_plain(), jax.default_matmul_precision("highest"):
        exported = export.export(jax.jit(function), platforms=PLATFORMS)(*inputs)
    return bytes(exported.serialize())


def shapes(task: Task, pixels: str) -> list[tuple[tuple[int, ...], np.dtype]]:
    """Shape without the batch, and type, of the images and of the token ids."""
    height, width = task.experiment.image_size
    return [((height, width, 3), np.dtype(pixels)), ((task.token_length,), np.dtype(jnp.int32))]


def check_size(task: Task) -> None:
    """Raises a UserError if the weights don't fit in one file."""
    size = sum(np.asarray(array).nbytes for array in (*task.experiment.frozen.values(), *task.values.values()))
    if size > LIMIT:
        raise UserError(
            f"the weights take {size / 2**30:.1f} GiB, and a file of this format holds 2; export to huggingface what "
            "that can say, or use predict",
            "export-too-large",
        )
