"""The folder of a run: its configuration, its metrics, and its learnt tensors with their card."""

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tunevlseg_jax.config import Config
from tunevlseg_jax.data import registry
from tunevlseg_jax.data.preprocessing import CARD_KEY
from tunevlseg_jax.runs import history, provenance
from tunevlseg_jax.runs.card import CARD_FILE, CONFIG_FILE, METRICS_FILE, NON_IDENTITY_FIELDS, make_card, save_learnt
from tunevlseg_jax.runs.checkpoint import Checkpoints
from tunevlseg_jax.runs.provenance import Provenance
from tunevlseg_jax.runs.tensorboard import TensorBoardWriter
from tunevlseg_jax.runtime import locks, multihost, schema
from tunevlseg_jax.runtime.errors import UserError
from tunevlseg_jax.runtime.files import as_user_error, atomic_file, atomic_files, read_json, write_json
from tunevlseg_jax.training.experiment import Experiment
from tunevlseg_jax.training.loop import Epoch

DATA_FOLDER = "data"
"""Folder in a run folder for records given as arrays; it may exist before the run begins."""
LOCK_FILE = "train.lock"
"""The lock of the process that trains in a run folder."""


class RunFolder:
    """The folder of a run in training; only the first of several processes reads and writes it."""

    def __init__(self, config: Config, data: Provenance, *, force_data: bool = False):
        """Creates the folder, or opens it to resume the run; `lock` must be held.

        Args:
          config: of the run.
          data: that it trains on.
          force_data: whether it may go on with data that has changed.

        Raises:
          UserError: it belongs to a run of another configuration or on other data, or can't be written to.
        """
        self.path, self.data = Path(config.workdir), data
        if multihost.is_primary():
            open_folder(config)
            self.data = provenance.check(self.path, data, force=force_data)
            provenance.write(self.path, self.data)
            history.grow(self.path / CONFIG_FILE, config)
        self.checkpoints = Checkpoints(self.path / "checkpoints")
        self.board: TensorBoardWriter | None = None

    def begin_logs(self, epochs: int) -> None:
        """Begins the logs after `epochs`, and drops the lines of later epochs, which will be trained again.

        Raises:
          UserError: the lines of the epochs before aren't all there.
        """
        if not multihost.is_primary():
            return
        path = self.path / METRICS_FILE
        if path.exists() or epochs:
            lines = _logged(path, epochs)
            with atomic_file(path) as temporary:
                temporary.write_text("".join(lines), encoding="utf-8")
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


def check_folder(config: Config) -> None:
    """Raises a UserError unless the run's folder is its own, empty or not there; in process 0 alone."""
    if not multihost.is_primary():
        return
    path = Path(config.workdir)
    with as_user_error(path):  # as of a name that is too long
        path.exists()
    if path.exists() and not path.is_dir():
        raise UserError(f"{path} is a file, not a run folder", "not-a-folder")
    if (path / CONFIG_FILE).exists():
        _check_same(config, path / CONFIG_FILE)
    elif path.exists() and any(entry.name not in (DATA_FOLDER, LOCK_FILE) for entry in path.iterdir()):
        raise UserError(f"{path} is neither empty nor a run folder; choose another --workdir", "other-folder")


def check_new(config: Config) -> None:
    """Raises a UserError if a run that hasn't begun asks for prompts that its data lacks; in process 0 alone."""
    path = Path(config.workdir) / CONFIG_FILE
    with as_user_error(path):
        if multihost.is_primary() and not path.exists():
            registry.check_prompt_kind(config.data)


@contextlib.contextmanager
def lock(config: Config, note: Callable[[str], None] = lambda line: None) -> Iterator[None]:
    """Lets one process at a time train in a run folder; `note` is that of `locks.owned`.

    Raises:
      UserError: another process trains there, or `open_folder` would fail.
    """
    check_folder(config)
    if not multihost.is_primary():
        yield
        return
    with locks.owned(Path(config.workdir) / LOCK_FILE, f"trains in {config.workdir}", note):
        yield


def open_folder(config: Config) -> None:
    """Creates the folder of a run, with its configuration, unless it exists.

    Raises:
      UserError: it belongs to a run of another configuration, or can't be written to.
    """
    check_folder(config)
    path = Path(config.workdir) / CONFIG_FILE
    if not path.exists():
        write_json(path, schema.to_json(config))


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
      data: see `provenance.data_fingerprints`.
      epochs: how many epochs were trained.
      best_epoch: the number of the epoch whose parameters are kept, from 1; 0 if there is none.
      scores: by row ("zero-shot", "tuned"), split and metric.
    """
    card = make_card(config, experiment.pretrained.sha256, experiment.image_size, data)
    card |= {"computed": experiment.computed.for_card()}
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
    before = schema.from_json(Config, read_json(path), str(path))
    stored, now = schema.to_json(before), schema.to_json(config)
    if schema.difference(stored, now, but=(*NON_IDENTITY_FIELDS, "train.epochs")):
        details = schema.difference(stored, now, but=NON_IDENTITY_FIELDS)
        raise UserError(f"{path.parent} holds another run ({details}); choose another --workdir", "other-config")
    history.check_epochs(before, config)


def _logged(path: Path, epochs: int) -> list[str]:
    """The lines of so many epochs."""
    with as_user_error(path):
        content = path.read_bytes() if path.exists() else b""
    lines = content.decode(errors="replace").splitlines(keepends=True)[:epochs]
    for number in range(1, epochs + 1):
        with contextlib.suppress(ValueError, TypeError, KeyError, IndexError):
            if json.loads(lines[number - 1])["epoch"] == number and lines[number - 1].endswith("\n"):
                continue
        raise UserError(
            f"line {number} of {path} must be of epoch {number}, but isn't: the file was cut off or changed; restore "
            f"it, or train in another --workdir",
            "bad-metrics",
        )
    return lines
