"""Trains a trial of a study again, alone in its slot of the study's program: to the bit."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import tyro

from tunevlseg_jax import artefacts, planner, schema
from tunevlseg_jax.config import Config
from tunevlseg_jax.errors import UserError
from tunevlseg_jax.shared import Shared
from tunevlseg_jax.slots import Slots

STUDIES = "runs/studies"
CLOCK = ("seconds", "images_per_second")
"""What of a line of metrics is another every time."""


@dataclass(frozen=True, kw_only=True)
class Replay:
    """A trial to train again.

    Attributes:
      study: name of the study.
      trial: number of the trial.
      folder: of all studies.
      workdir: folder of the new run; None for one in the study's folder.
      as_train: whether to train it as `python -m tunevlseg_jax.train` would: in a program of its own, whose sums are
        rounded otherwise, to its last epoch, with checkpoints, TensorBoard's events and the model's scores as it is.
    """

    study: tyro.conf.Positional[str]
    trial: tyro.conf.Positional[int]
    folder: str = STUDIES
    workdir: str | None = None
    as_train: bool = False


def places(options: Replay) -> tuple[Path, Path]:
    """Of the trial, and of the run that is to be.

    Raises:
      UserError: there is no such trial here, or it would be written over.
    """
    study = Path(options.folder) / options.study
    folder = study / "trials" / f"{options.trial:03d}"
    if not folder.is_dir():
        kept = [path.name.lstrip("0") or "0" for path in sorted(study.glob("trials/*"))]
        told = f"there are {', '.join(kept)}" if kept else f"there is no finished trial in {study}"
        raise UserError(f"the study {options.study!r} keeps no trial {options.trial}; {told}")
    name = f"{folder.name}-train" if options.as_train else folder.name
    again = Path(options.workdir or study / "replays" / name)
    if again.resolve() == folder.resolve():
        raise UserError(f"{folder} is the trial itself; choose another --workdir")
    return folder, again


def train_again(folder: Path, again: Path, tell: Callable[[str], None]) -> bool:
    """Trains a trial for the epochs that it had, in the program and the slot that it had, with nobody beside it.

    Args:
      folder: of the trial.
      again: run folder to make.
      tell: what is happening, in a few words.

    Returns:
      Whether it is the same to the bit.

    Raises:
      UserError: the model or the records are others now, or the program doesn't fit in memory.
    """
    config, _, card = artefacts.load_learnt(folder)
    if "program" not in card:
        raise UserError(f"{folder} is of an earlier version and doesn't say what program it had; give --as-train")
    place = card["program"]
    artefacts.open_folder(dataclasses.replace(config, workdir=str(again)))
    asked = schema.to_json(config) | {"learner": place["learner"]}
    program = schema.from_json(Config, asked, str(folder / artefacts.CARD_FILE))
    shared = Shared(program, place["devices"]["trial"])
    made = shared.experiment(program)
    fit = shared.fit(program, made)
    if made.pretrained.sha256 != card["model_sha256"]:
        raise UserError(f"{config.model.checkpoint} is not the model that {folder} was trained on")
    for name, split in (("train", fit.train), ("val", fit.val)):
        if split.records.fingerprint() != card["data"][name]:
            raise UserError(f"the {name} records of {config.data.name} are not those that {folder} was trained on")
    size = place["trials"]
    if planner.fitting(made, fit, size, automatic=True) < size:
        raise UserError(f"the program of {folder} has {size} slots, too many for this memory; give --as-train")
    slots = Slots(made, fit, size)
    slots.put(0, config, place["slot"])
    epochs = len(_curve(folder))
    for epoch in range(1, epochs + 1):
        tell(f"epoch {epoch} of {epochs}")
        slots.advance(lambda step, sums: None)
    slots.save(again, place["slot"], card["data"])
    ours, theirs = ((path / artefacts.LEARNT_FILE).read_bytes() for path in (again, folder))
    return ours == theirs and _curve(again) == _curve(folder)


def _curve(folder: Path) -> list[str]:
    """A line for each epoch of a trial, without what is another every time."""
    path = folder / artefacts.METRICS_FILE
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        return [json.dumps({name: value for name, value in line.items() if name not in CLOCK}) for line in lines]
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(f"can't read {path}: {error}") from error
