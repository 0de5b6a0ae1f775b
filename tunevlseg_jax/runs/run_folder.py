"""The folder of a run: its configuration, its metrics, and its learnt tensors with their card."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tunevlseg_jax.config import Config
from tunevlseg_jax.data import registry
from tunevlseg_jax.data.preprocessing import CARD_KEY
from tunevlseg_jax.runs.card import CARD_FILE, CONFIG_FILE, METRICS_FILE, NON_IDENTITY_FIELDS, make_card, save_learnt
from tunevlseg_jax.runs.checkpoint import Checkpoints
from tunevlseg_jax.runs.tensorboard import TensorBoardWriter
from tunevlseg_jax.runtime import multihost, schema
from tunevlseg_jax.runtime.errors import UserError
from tunevlseg_jax.runtime.files import as_user_error, atomic_file, atomic_files, read_json, write_json
from tunevlseg_jax.training.experiment import Experiment
from tunevlseg_jax.training.loop import Epoch
from tunevlseg_jax.training.split import Split

DATA_FOLDER = "data"
"""Folder in a run folder for records given as arrays; it may exist before the run begins."""


class RunFolder:
    """The folder of a run in training; only the first of several processes reads and writes it."""

    def __init__(self, config: Config):
        """Creates the folder, or opens it to resume the run.

        Raises:
          UserError: it belongs to a run of another configuration, or can't be written to.
        """
        self.path = Path(config.workdir)
        if multihost.is_primary():
            open_folder(config)
        self.checkpoints = Checkpoints(self.path / "checkpoints")
        self.board: TensorBoardWriter | None = None

    def begin_logs(self, epochs: int) -> None:
        """Begins the logs after `epochs`, and drops the lines of later epochs, which will be trained again."""
        if not multihost.is_primary():
            return
        path = self.path / METRICS_FILE
        if path.exists():
            lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
            with atomic_file(path) as temporary:
                temporary.write_text("".join(lines[:epochs]), encoding="utf-8")
        self.board = TensorBoardWriter(self.path / "tensorboard", epochs)

    def log(self, epoch: Epoch) -> None:
        """Adds an epoch to `metrics.jsonl` and to TensorBoard's events, if the logs have begun."""
        if self.board is not None:
            self.add_metrics(epoch)
            self.board.add(epoch)

    def close(self) -> None:
        """Closes the logs and the checkpoints."""
        if self.board is not None:
            self.board.close()
        self.checkpoints.close()

    def add_metrics(self, epoch: Epoch) -> None:
        """Adds the line of an epoch of a single trial.

        Raises:
          UserError: it can't be written.
        """
        path = self.path / METRICS_FILE
        with as_user_error(path), path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(metrics_line(epoch, 0)) + "\n")


def open_folder(config: Config) -> None:
    """Creates the folder of a run, with its configuration, unless it exists.

    Raises:
      UserError: it belongs to a run of another configuration, or can't be written to.
    """
    path = Path(config.workdir)
    if path.exists() and not path.is_dir():
        raise UserError(f"{path} is a file, not a run folder", "not-a-folder")
    if (path / CONFIG_FILE).exists():
        _check_same(config, path / CONFIG_FILE)
    elif path.exists() and any(entry.name != DATA_FOLDER for entry in path.iterdir()):
        raise UserError(f"{path} is neither empty nor a run folder; choose another --workdir", "other-folder")
    else:
        write_json(path / CONFIG_FILE, schema.to_json(config))


def metrics_line(epoch: Epoch, trial: int) -> dict[str, Any]:
    """The line of `metrics.jsonl` for an epoch of one trial."""
    return {
        "epoch": epoch.number[trial],
        "train": {name: values[trial] for name, values in epoch.train.items()},
        "val": {name: values[trial] for name, values in epoch.val.items()},
        "learning_rate": epoch.learning_rate[trial],
        "seconds": round(epoch.seconds, 3),
        "images_per_second": round(epoch.images / epoch.seconds, 2),
    }


def data_fingerprints(name: str, splits: Mapping[str, Split]) -> dict[str, str]:
    """The name of a data set as `name`, and the fingerprint of the records of each split by the split's name."""
    return {"name": name} | {split_name: split.records.fingerprint() for split_name, split in splits.items()}


def run_card(
    experiment: Experiment,
    config: Config,
    data: Mapping[str, Any],
    *,
    epochs: int,
    best_epoch: int,
    scores: Mapping[str, Any],
) -> dict[str, Any]:
    """The card of a finished run.

    Args:
      experiment: the model.
      config: of the run.
      data: see `data_fingerprints`.
      epochs: how many epochs were trained.
      best_epoch: the number of the epoch whose parameters are kept, from 1; 0 if there is none.
      scores: by row ("zero-shot", "tuned"), split and metric.
    """
    card = make_card(config, experiment.pretrained.sha256, experiment.image_size, data)
    card |= {CARD_KEY: schema.to_json(registry.preprocessing(config.data))}
    return card | {"epochs": epochs, "best_epoch": best_epoch, "scores": scores}


def save_trial(
    folder: Path,
    config: Config,
    curve: Sequence[Mapping[str, Any]],
    learnt: Mapping[str, np.ndarray],
    card: Mapping[str, Any],
) -> None:
    """Writes a trial of a sweep as a run folder without events and checkpoints, whole or not at all."""
    with atomic_files(folder, last=CARD_FILE) as temporary:
        write_json(temporary / CONFIG_FILE, schema.to_json(config))
        (temporary / METRICS_FILE).write_text("".join(f"{json.dumps(line)}\n" for line in curve), encoding="utf-8")
        save_learnt(temporary, learnt, card)


def _check_same(config: Config, path: Path) -> None:
    """Raises a UserError if the folder's configuration differs in fields that change results."""
    before = schema.to_json(schema.from_json(Config, read_json(path), str(path)))
    details = schema.difference(before, schema.to_json(config), but=NON_IDENTITY_FIELDS)
    if details:
        raise UserError(f"{path.parent} holds another run ({details}); choose another --workdir", "other-config")
