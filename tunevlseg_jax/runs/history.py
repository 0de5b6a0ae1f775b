"""What a run was before: the run whose prompts it began with, and the epochs that it was first asked for."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunevlseg_jax.config import Config
from tunevlseg_jax.runtime import schema
from tunevlseg_jax.runtime.errors import UserError
from tunevlseg_jax.runtime.files import read_object, write_json

HISTORY_FILE = "history.json"


@dataclass(frozen=True)
class History:
    """The history of a run.

    Attributes:
      earlier_epochs: each `train.epochs` before it grew, the oldest first.
      start_from: the run whose prompts it began with: its folder, learner, data set and epochs, and the hash of its
        prompts; None for fresh prompts.
    """

    earlier_epochs: tuple[int, ...] = ()
    start_from: Mapping[str, Any] | None = None

    def for_card(self) -> dict[str, Any]:
        """What a card says of it: only what there is."""
        earlier = {"earlier_epochs": list(self.earlier_epochs)} if self.earlier_epochs else {}
        return earlier | ({"start_from": dict(self.start_from)} if self.start_from else {})


def read(folder: Path) -> History:
    """The history of a run, from its folder.

    Raises:
      UserError: the file is broken.
    """
    path = folder / HISTORY_FILE
    if not path.exists():
        return History()
    stored = read_object(path)
    epochs, start = stored.get("earlier_epochs", []), stored.get("start_from")
    if not (isinstance(epochs, list) and all(type(each) is int for each in epochs)) or not (
        start is None or isinstance(start, dict)
    ):
        raise UserError(f"{path} must have the history that train writes, but hasn't; restore or delete it", "bad-card")
    return History(tuple(epochs), start)


def write(folder: Path, history: History) -> None:
    """Writes the history of a run."""
    write_json(folder / HISTORY_FILE, dataclasses.asdict(history))


def check_epochs(before: Config, now: Config) -> None:
    """Raises a UserError if a run can't go on to another number of epochs."""
    old, new, folder = before.train.epochs, now.train.epochs, now.workdir
    difference = f"{folder} holds another run (train.epochs was {old} and is now {new})"
    if new < old:
        raise UserError(f"{difference}; a run can only grow, so choose another --workdir", "other-config")
    if new > old and not before.optim.open_ended:
        raise UserError(
            f"{difference}, and its learning rate falls along a cosine that ends with epoch {old}; choose another "
            f"--workdir, and perhaps --train.start-from {folder}",
            "schedule-ended",
        )


def grow(config_file: Path, now: Config) -> None:
    """Lets a run go on to more epochs: its history keeps the earlier number, then its configuration has the new one."""
    before = schema.from_json(Config, read_object(config_file), str(config_file))
    if now.train.epochs <= before.train.epochs:
        return
    folder = config_file.parent
    history = read(folder)
    if before.train.epochs not in history.earlier_epochs:  # as after a process that ended between the two files
        write(folder, dataclasses.replace(history, earlier_epochs=(*history.earlier_epochs, before.train.epochs)))
    after = dataclasses.replace(before, train=dataclasses.replace(before.train, epochs=now.train.epochs))
    write_json(config_file, schema.to_json(after))
