"""The function that an export computes: from images and token ids to probabilities, in float32 and the plain form."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from tunevlseg_jax.models.parameters import FlatParams
from tunevlseg_jax.runs.card import CARD_FILE, temperature_of_card
from tunevlseg_jax.runs.locate import find_run
from tunevlseg_jax.runs.restore import restore
from tunevlseg_jax.runtime.errors import UserError
from tunevlseg_jax.runtime.files import read_object
from tunevlseg_jax.training.experiment import Experiment

DEPTH, TEMPERATURE = "depth", "temperature"
"""The values of a task beside its learnt tensors."""


@dataclass(frozen=True)
class Task:
    """A trained run, in float32.

    Attributes:
      folder: of the run.
      experiment: its model and learner.
      values: float32 by path, what it learnt; and its `DEPTH`, int32, and `TEMPERATURE`.
    """

    folder: Path
    experiment: Experiment
    values: Mapping[str, np.ndarray]

    @property
    def token_length(self) -> int:
        """The number of token ids of a prompt: what the text tower holds beside the learnt context."""
        network = self.experiment.network
        return network.config.text.context_length - network.learner.text_tokens

    def tokens(self, phrases: Sequence[str]) -> np.ndarray:
        """(phrases, token_length) int32, padded with the end token; raises a UserError if a phrase is too long."""
        rows = np.asarray(self.experiment.token_table(phrases))
        return np.pad(rows, ((0, 0), (0, self.token_length - rows.shape[1])), mode="edge")


def load(run: str | Path, checkpoint: str | None = None) -> Task:
    """A run to export; `checkpoint` is its base model's new place, if it has moved.

    Raises:
      UserError: as in `restore`.
    """
    folder = find_run(run)
    experiment, learnt = restore(folder, checkpoint, precision="float32")
    temperature = temperature_of_card(read_object(folder / CARD_FILE), str(folder / CARD_FILE))
    values = {path: np.asarray(array) for path, array in learnt.items()}
    values[DEPTH] = np.asarray(experiment.hyper().depth[0])
    values[TEMPERATURE] = np.asarray(temperature, np.float32)
    return Task(folder, experiment, values)


def folded(task: Task) -> Callable[[Array, Array], Array]:
    """The program of one task, whose values are constants in it.

    From images, (batch, height, width, 3) uint8 or float32 from 0 to 255, RGB, and token ids, (batch, token_length)
    int32, to probabilities, (batch, height, width) float32.
    """
    return lambda images, tokens: _probabilities(task.experiment, task.values, images, tokens)


def with_values(experiment: Experiment) -> Callable[[Array, Array, FlatParams], Array]:
    """The program of all tasks of a model and learner: as `folded`, with the values of each row's task, stacked."""

    def of_row(image: Array, tokens: Array, values: FlatParams) -> Array:
        return _probabilities(experiment, values, image[None], tokens[None])[0]

    return jax.vmap(of_row)


def check_alike(tasks: Sequence[Task]) -> None:
    """Raises a UserError unless one program can serve all tasks, and names what differs."""
    first, *others = tasks
    for task in others:
        for name, value in _shared(task).items():
            if value != _shared(first)[name]:
                raise UserError(
                    f"{first.folder} and {task.folder} have another {name}; one program serves runs that differ in "
                    "their learnt tensors alone",
                    "options-conflict",
                )
    for task in tasks:
        if any(path.startswith("model/") for path in task.values):
            raise UserError(
                f"{task.folder} trained weights of its model, so it shares no program; export it alone",
                "options-conflict",
            )
    names = [task.folder.resolve().name for task in tasks]
    if len({*names}) < len(names):
        raise UserError(f"two runs have the same folder name: {', '.join(sorted(names))}", "duplicate-name")


def _shared(task: Task) -> dict[str, object]:
    experiment = task.experiment
    shapes = {path: np.shape(value) for path, value in task.values.items()}
    return {
        "base model": experiment.pretrained.sha256,
        "learner": experiment.network.learner,
        "upsampler": experiment.network.upsampling,
        "image size": experiment.image_size,
        "form of prompts (data.full_stop)": experiment.config.data.full_stop,
        "shape of the learnt tensors": shapes,
    }


def _probabilities(
    experiment: Experiment, values: Mapping[str, Array | np.ndarray], images: Array, tokens: Array
) -> Array:
    params = {path: value for path, value in values.items() if path not in (DEPTH, TEMPERATURE)}
    logits = experiment.network.logits(
        {**experiment.frozen, **params},  # pyright: ignore[reportArgumentType]
        images,
        jnp.arange(images.shape[0]),
        tokens,
        depth=values[DEPTH],  # pyright: ignore[reportArgumentType]
        dropout=jnp.zeros_like(experiment.hyper().dropout[0]),
    )
    return jax.nn.sigmoid(logits / values[TEMPERATURE])


def on_host(task: Task) -> Task:
    """The task with its weights in NumPy arrays, which become constants of a program."""
    frozen = {path: np.asarray(array) for path, array in task.experiment.frozen.items()}
    return dataclasses.replace(task, experiment=dataclasses.replace(task.experiment, frozen=frozen))  # pyright: ignore[reportArgumentType]
