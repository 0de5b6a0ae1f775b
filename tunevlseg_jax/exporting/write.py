"""Exports of one run or of several: each writes a folder and returns a line that describes it."""

from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from jax import export

from tunevlseg_jax.exporting import check, folder, onnx_file, program
from tunevlseg_jax.exporting import huggingface as huggingface_folder
from tunevlseg_jax.exporting import stablehlo as stablehlo_file
from tunevlseg_jax.exporting.program import Task
from tunevlseg_jax.runs.locate import find_run
from tunevlseg_jax.runtime.optional import import_onnx


def load(runs: Sequence[str | Path], checkpoint: str | None = None) -> list[Task]:
    """The runs to export; raises a UserError as `program.load` does."""
    return [program.on_host(program.load(run, checkpoint)) for run in runs]


def stablehlo(output: Path, tasks: Sequence[Task], pixels: str, phrases: Sequence[str], *, inputs: bool) -> str:
    """Writes StableHLO for CPUs, CUDA and TPUs; arguments as in `stablehlo_file.serialize` and `folder.make_card`.

    Raises:
      UserError: the runs differ in more than their learnt tensors, the weights are too large for one file, what was
        read back differs, or the folder can't be written.
    """
    if inputs:
        program.check_alike(tasks)
    content = stablehlo_file.serialize(tasks, pixels, as_inputs=inputs)
    call = jax.jit(export.deserialize(bytearray(content)).call)
    difference = check.compare(call, tasks, pixels, inputs=inputs)
    card = folder.make_card(tasks, "stablehlo", stablehlo_file.FILE, pixels, phrases, inputs=inputs)
    folder.write(output, content, stablehlo_file.FILE, "stablehlo.py", tasks, card, inputs=inputs)
    return described(output, content, difference)


def described(output: Path, content: bytes, difference: float) -> str:
    """A line about a folder with a program."""
    return (
        f"wrote {output}: a program of {len(content):,} bytes, whose probabilities differ from the run's by at most "
        f"{difference:.2g}"
    )


def onnx(output: Path, task: Task, pixels: str, phrases: Sequence[str]) -> str:
    """Writes ONNX; arguments as in `onnx_file.serialize` and `folder.make_card`.

    Raises:
      UserError: as in `onnx_file.serialize`, a package is missing, what was read back differs, or the folder can't be
        written.
    """
    package, runtime = import_onnx("--format onnx")
    content = onnx_file.serialize(task, pixels, package)
    session = runtime.InferenceSession(content)

    def call(*inputs: np.ndarray) -> np.ndarray:
        return session.run(None, dict(zip(onnx_file.INPUTS, inputs, strict=True)))[0]

    difference = check.compare(call, [task], pixels, inputs=False)
    card = folder.make_card([task], "onnx", onnx_file.FILE, pixels, phrases, inputs=False)
    folder.write(output, content, onnx_file.FILE, "onnx.py", [task], card, inputs=False)
    return described(output, content, difference)


def huggingface(output: Path, run: str | Path, checkpoint: str | None = None) -> str:
    """Writes Hugging Face's folder of a run; raises a UserError as `huggingface_folder.write` does."""
    model = huggingface_folder.write(output, find_run(run), checkpoint)
    size = sum(weight.size for weight in model.weights.values())
    return f"wrote {output}: {len(model.weights)} tensors, {size:,} parameters, for transformers"
