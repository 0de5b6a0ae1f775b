"""What a run was before: the run whose prompts it began with, and the epochs that it was first asked for."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunevlseg_jax.config import Config, Precision
from tunevlseg_jax.runs.card import CARD_FILE, CONFIG_FILE, precision_of_card
from tunevlseg_jax.runtime import schema
from tunevlseg_jax.runtime.errors import UserError
from tunevlseg_jax.runtime.files import read_object, write_json
from tunevlseg_jax.training.precision import ComputeTypes

HISTORY_FILE = "history.json"


@dataclass(frozen=True)
class History:
    """The history of a run.

    Attributes:
      earlier_epochs: each `train.epochs` before it grew, the oldest first.
      start_from: the run whose prompts it began with: its folder, learner, data set and epochs, and the hash of its
        prompts; None for fresh prompts.
      precision: in which the run began on a CPU, where it isn't float32.
    """

    earlier_epochs: tuple[int, ...] = ()
    start_from: Mapping[str, Any] | None = None
    precision: Precision | None = None

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
    precision = stored.get("precision")
    if not (isinstance(epochs, list) and all(type(each) is int for each in epochs)) or not (
        (start is None or isinstance(start, dict)) and precision in (None, "float32", "bfloat16")
    ):
        raise UserError(f"{path} must have the history that train writes, but hasn't; restore or delete it", "bad-card")
    return History(tuple(epochs), start, precision)


def write(folder: Path, history: History) -> None:
    """Writes the history of a run."""
    write_json(folder / HISTORY_FILE, dataclasses.asdict(history))


def kept_precision(folder: Path) -> Precision | None:
    """The precision in which a run goes on on a CPU, see `precision.choose`; None for a run that hasn't begun.

    Raises:
      UserError: a file is broken.
    """
    if (folder / CARD_FILE).exists():
        return precision_of_card(read_object(folder / CARD_FILE))
    if (folder / CONFIG_FILE).exists():
        return read(folder).precision or "float32"
    return None


def precision_of_runs(folder: Path) -> Precision | None:
    """As `kept_precision`, of the first finished run in a folder or below it; None if there is none."""
    cards = sorted(folder.rglob(CARD_FILE))
    return kept_precision(cards[0].parent) if cards else None


def keep_precision(folder: Path, computed: ComputeTypes) -> None:
    """Notes the precision of a run that begins on a CPU, unless it is float32."""
    if computed.platform == "cpu" and computed.kernels.name == "bfloat16":
        history = read(folder)
        if history.precision is None:
            write(folder, dataclasses.replace(history, precision="bfloat16"))


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
