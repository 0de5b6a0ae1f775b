"""The folder of an export: the program, its tokenizer, its card, a reader, and the values of tasks."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tunevlseg_jax import __version__
from tunevlseg_jax.exporting.program import Task
from tunevlseg_jax.runtime import schema
from tunevlseg_jax.runtime.errors import UserError
from tunevlseg_jax.runtime.files import atomic_dir, write_json

CARD_FILE = "card.json"
READER_FILE = "read_model.py"
TASKS_FOLDER = "tasks"
READERS = Path(__file__).with_name("readers")
THRESHOLD = 0.5


def check(output: Path) -> None:
    """Raises a UserError unless the folder is new or empty."""
    if output.exists() and not output.is_dir():
        raise UserError(f"--output {output} is a file, not a folder", "not-a-folder")
    if output.exists() and any(output.iterdir()):
        raise UserError(f"--output {output} isn't empty; choose another folder", "other-folder")


def write(
    output: Path, program: bytes, file: str, reader: str, tasks: Sequence[Task], card: dict[str, Any], *, inputs: bool
) -> None:
    """Writes the folder whole or not at all; `check` it first.

    Args:
      output: the folder.
      program: content of the program's file.
      file: its name.
      reader: name of the reader in `READERS`.
      tasks: of the program.
      card: content of the card.
      inputs: whether the tasks' values are inputs, which are written beside the program.

    Raises:
      UserError: the folder can't be written.
    """
    with atomic_dir(output) as temporary:
        (temporary / file).write_bytes(program)
        tasks[0].experiment.pretrained.tokenizer.save(temporary)
        shutil.copyfile(READERS / reader, temporary / READER_FILE)
        for task in tasks if inputs else ():
            (temporary / TASKS_FOLDER).mkdir(exist_ok=True)
            np.savez(temporary / TASKS_FOLDER / f"{name_of(task)}.npz", **task.values)  # pyright: ignore[reportArgumentType]
        write_json(temporary / CARD_FILE, card)


def make_card(
    tasks: Sequence[Task], kind: str, file: str, pixels: str, phrases: Sequence[str], *, inputs: bool
) -> dict[str, Any]:
    """What a reader needs to use the program; `phrases` are those whose token ids it holds.

    Raises:
      UserError: a phrase is too long.
    """
    experiment = tasks[0].experiment
    config, sizes = experiment.config, experiment.network.config
    rows = tasks[0].tokens(phrases).tolist() if phrases else []
    return {
        "made_by": f"tunevlseg_jax {__version__}",
        "format": kind,
        "program": file,
        "model": Path(config.model.checkpoint).name,
        "model_sha256": experiment.pretrained.sha256,
        "learner": schema.to_json(config.learner),
        "image": {"size": list(experiment.image_size), "type": pixels, "values": "0 to 255, RGB", "resized": "bicubic"},
        "normalisation": {"mean": list(sizes.mean), "std": list(sizes.std), "where": "in the program"},
        "tokens": {"length": tasks[0].token_length, "padding": "the end token", "full_stop": config.data.full_stop},
        "prompts": dict(zip(phrases, rows, strict=True)),
        "output": "the probability of each pixel at the image's size, float32",
        "threshold": THRESHOLD,
        "runs": [name_of(task) for task in tasks],
        "tasks": [name_of(task) for task in tasks] if inputs else [],
    }


def name_of(task: Task) -> str:
    """The name of a run's folder."""
    return task.folder.resolve().name
