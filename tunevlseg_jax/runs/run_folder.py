"""What a run leaves behind: its folder while it trains, and the learnt tensors with their card, to share."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from tunevlseg_jax import __version__
from tunevlseg_jax.config import Config
from tunevlseg_jax.models.parameters import Flat
from tunevlseg_jax.pretrained.load import read_tensors, write_tensors
from tunevlseg_jax.runs.checkpoint import Checkpoints
from tunevlseg_jax.runtime import multihost, schema
from tunevlseg_jax.runtime.errors import UserError
from tunevlseg_jax.runtime.files import filling, read_json, replacing, write_json, writing
from tunevlseg_jax.training import experiment
from tunevlseg_jax.training.experiment import Experiment
from tunevlseg_jax.training.loop import Epoch

CONFIG_FILE = "config.json"
METRICS_FILE = "metrics.jsonl"
LEARNT_FILE = "prompts.safetensors"
CARD_FILE = "card.json"
RESULTS_FILE = "results.json"

WHEREABOUTS = ("workdir", "data.root", "data.cache", "data.placement", "data.workers", "train.shard_frozen")
"""Fields that a run may change when it goes on: they decide where things are, as the number of devices does."""


class RunFolder:
    """The folder of a run in training; of several processes the first alone looks into it and writes."""

    def __init__(self, config: Config):
        """Makes the folder, or opens it to go on.

        Raises:
          UserError: it belongs to a run of another configuration, or can't be written to.
        """
        self.path = Path(config.workdir)
        if multihost.first():
            open_folder(config)
        self.checkpoints = Checkpoints(self.path / "checkpoints")

    def keep_metrics(self, epochs: int) -> None:
        """Drops the lines of epochs after `epochs`, which are about to be trained again."""
        path = self.path / METRICS_FILE
        if path.exists():
            lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
            with replacing(path) as temporary:
                temporary.write_text("".join(lines[:epochs]), encoding="utf-8")

    def add_metrics(self, epoch: Epoch) -> None:
        """One line of JSON for an epoch of a single trial.

        Raises:
          UserError: it can't be written.
        """
        path = self.path / METRICS_FILE
        with writing(path), path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(metrics_line(epoch, 0)) + "\n")


def open_folder(config: Config) -> None:
    """Makes the folder of a run, with its configuration, unless it is there already.

    Raises:
      UserError: it belongs to a run of another configuration, or can't be written to.
    """
    path = Path(config.workdir)
    if path.exists() and not path.is_dir():
        raise UserError(f"{path} is a file, not a run folder")
    if (path / CONFIG_FILE).exists():
        _check_same(config, path / CONFIG_FILE)
    elif path.exists() and any(path.iterdir()):
        raise UserError(f"{path} is not empty and not a run folder; choose another --workdir")
    else:
        write_json(path / CONFIG_FILE, schema.to_json(config))


CLOCK = ("seconds", "images_per_second")
"""What of `metrics_line` is another every time."""


def metrics_line(epoch: Epoch, trial: int) -> dict[str, Any]:
    """What `metrics.jsonl` says of an epoch of one of its trials."""
    return {
        "epoch": epoch.number[trial],
        "train": {name: values[trial] for name, values in epoch.train.items()},
        "val": {name: values[trial] for name, values in epoch.val.items()},
        "learning_rate": epoch.learning_rate[trial],
        "seconds": round(epoch.seconds, 3),
        "images_per_second": round(epoch.images / epoch.seconds, 2),
    }


class Board:
    """TensorBoard's events of a run of one trial, on the disk after each epoch.

    tensorboardX's own SummaryWriter leaves the writing to a thread: a killed process takes along what it holds, and its
    errors, such as a full disk, end in a traceback.
    """

    def __init__(self, folder: Path, epochs: int):
        """Begins a file; what earlier ones say of epochs after `epochs` is void.

        Raises:
          UserError: it can't be written.
        """
        from tensorboardX.record_writer import RecordWriter

        self.folder = folder
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self.writer = RecordWriter(str(folder / f"events.out.tfevents.{time.time():.0f}.{epochs}"))
        self._write(file_version="brain.Event:2")
        self._write(step=epochs + 1, session_log={"status": "START"})

    def add(self, epoch: Epoch) -> None:
        """The scores and the learning rate of an epoch.

        Raises:
          UserError: they can't be written.
        """
        scores = {f"train/{name}": values[0] for name, values in epoch.train.items()}
        scores |= {f"val/{name}": values[0] for name, values in epoch.val.items()}
        scores["learning_rate"] = epoch.learning_rate[0]
        self._write(
            step=epoch.number[0],
            summary={"value": [{"tag": name, "simple_value": value} for name, value in scores.items()]},
        )

    def close(self) -> None:
        """Closes the file."""
        with contextlib.suppress(OSError):  # what a full disk refused has been told
            self.writer.close()

    def _write(self, **event: Any) -> None:
        from tensorboardX.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]

        with writing(self.folder):
            self.writer.write(Event(wall_time=time.time(), **event).SerializeToString())
            self.writer.flush()


def save_learnt(folder: Path, learnt: Mapping[str, np.ndarray], card: Mapping[str, Any]) -> None:
    """Writes the learnt tensors and their card, each whole or not at all."""
    write_tensors(folder / LEARNT_FILE, learnt)
    write_json(folder / CARD_FILE, card)


def save_trial(
    folder: Path,
    config: Config,
    curve: Sequence[Mapping[str, Any]],
    learnt: Mapping[str, np.ndarray],
    card: Mapping[str, Any],
) -> None:
    """Writes a trial of a sweep as a run folder, whole or not at all: all but TensorBoard's events and checkpoints."""
    with filling(folder, last=CARD_FILE) as temporary:
        write_json(temporary / CONFIG_FILE, schema.to_json(config))
        (temporary / METRICS_FILE).write_text("".join(f"{json.dumps(line)}\n" for line in curve), encoding="utf-8")
        write_json(temporary / RESULTS_FILE, card["scores"])
        save_learnt(temporary, learnt, card)


def make_card(
    config: Config, model_sha256: str, image_size: tuple[int, int], data: Mapping[str, Any]
) -> dict[str, Any]:
    """What a reader needs to use learnt tensors and to trust their scores; `data` holds fingerprints by split."""
    return {
        "made_by": f"tunevlseg_jax {__version__}",
        "config": schema.to_json(config),
        "model_sha256": model_sha256,
        "protocol": {
            "image_size": list(image_size),
            "augmentation": _augmentation(config),
            "threshold": 0.5,
            "dice": "mean over samples; empty on empty counts 1",
            "iou": "one ratio over all pixels of the split",
            "selected_by": "validation Dice",
        },
        "data": dict(data),
    }


def _augmentation(config: Config) -> str:
    if not config.train.augment:
        return "none"
    views = config.train.augmented_views
    return "anew in each step" if views is None else f"{views} fixed views of each image, one an epoch in turn"


def load_learnt(folder: Path) -> tuple[Config, dict[str, np.ndarray], dict[str, Any]]:
    """The configuration, the learnt tensors and the card of a run, from its folder or from these two files alone.

    Raises:
      UserError: a file is missing or broken.
    """
    if not (folder / CARD_FILE).is_file():
        hint = "its training hasn't finished" if (folder / CONFIG_FILE).is_file() else "it is no run folder"
        raise UserError(f"there is no {CARD_FILE} in {folder}: {hint}")
    data = read_json(folder / CARD_FILE)
    if not isinstance(data, dict) or "config" not in data or "model_sha256" not in data:
        raise UserError(f"{folder / CARD_FILE} is no card: it lacks 'config' or 'model_sha256'")
    config = schema.from_json(Config, data["config"], str(folder / CARD_FILE))
    return config, read_tensors(folder / LEARNT_FILE), data


def restore(folder: Path, checkpoint: str | None = None) -> tuple[Experiment, Flat]:
    """A trained run: its experiment, and its learnt tensors in place of the fresh ones.

    Args:
      folder: of the run, or any that holds the learnt tensors and their card.
      checkpoint: where the base model is now, if not where it was.

    Raises:
      UserError: something is missing or broken, or the base model is another than the one prompts were learnt for.
    """
    config, learnt, data = load_learnt(folder)
    if checkpoint is not None:
        config = dataclasses.replace(config, model=dataclasses.replace(config.model, checkpoint=checkpoint))
    made = experiment.build(config, trains=False)
    if made.pretrained.sha256 != data["model_sha256"]:
        raise UserError(
            f"{config.model.checkpoint} is not the model that {folder} was trained on: its weights have sha256 "
            f"{made.pretrained.sha256[:12]}, not {str(data['model_sha256'])[:12]}; name the right one with --checkpoint"
        )
    for name in sorted({*learnt, *made.trainable}):
        ours, theirs = made.trainable.get(name), learnt.get(name)
        if ours is None or theirs is None or ours.shape != theirs.shape:
            raise UserError(
                f"{folder / LEARNT_FILE} doesn't fit its card: {name} is missing, unknown or of another shape"
            )
    return made, {name: jnp.asarray(array) for name, array in learnt.items()}


def _check_same(config: Config, path: Path) -> None:
    """Raises a UserError with the fields in which the folder's configuration differs, and its results would."""
    before = schema.to_json(schema.from_json(Config, read_json(path), str(path)))
    told = schema.difference(before, schema.to_json(config), but=WHEREABOUTS)
    if told:
        raise UserError(f"{path.parent} holds a run of another configuration ({told}); choose another --workdir")
